// Decks and manuals written from the tables: the resolved deck (full or short), one canonical line per key for
// comparison with another reader, and the description of groups and keys.
#include "deck_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 100 };

// ------------------------------------------------------------------------------------------ resolved deck

// Appends "key = value, value"; long lists go on in further lines, texts of a list have a line each.
static hirl_status_t append_values(const hirl_key_t *key, const void *base,
                                   const key_state_t *state, hirl_text_t *text) {
    const int count = hirl_deck_count(key, state);
    hirl_text_t item = {0};
    hirl_status_t status;
    size_t line = text->size;
    HIRL_TRY_GOTO(hirl_text_append(text, "  %s = ", key->name), status, done);
    const int indent = (int)strlen(key->name) + 5;
    for (int i = 0; i < count; i++) {
        item.size = 0;
        HIRL_TRY_GOTO(hirl_deck_append_item(key, base, i, &item), status, done);
        if (i > 0) {
            const bool is_full = text->size - line + item.size + 2 > WIDTH;
            HIRL_TRY_GOTO(hirl_text_append(text, ","), status, done);
            if (is_full || key->type == HIRL_KEY_TEXT_LIST) {
                HIRL_TRY_GOTO(hirl_text_append(text, "\n"), status, done);
                line = text->size;
                HIRL_TRY_GOTO(hirl_text_append(text, "%*s", indent, ""), status, done);
            } else {
                HIRL_TRY_GOTO(hirl_text_append(text, " "), status, done);
            }
        }
        HIRL_TRY_GOTO(hirl_text_append(text, "%s", item.data), status, done);
    }
    status = hirl_text_append(text, "\n");
done:
    hirl_text_reset(&item);
    return status;
}

static bool is_base_key(const hirl_group_t *group, const hirl_key_t *key) {
    return strcmp(group->name, "run") == 0 && strcmp(key->name, "base") == 0;
}

static bool is_default(const hirl_deck_t *deck, int group, int k) {
    const hirl_key_t *key = &deck->groups[group]->keys[k];
    const key_state_t *state = &deck->state[deck->key0[group] + k];
    const key_state_t *other = &deck->default_state[deck->key0[group] + k];
    if (state->held != other->held) return false;
    const int count = hirl_deck_count(key, state);
    const void *now = hirl_deck_item_view(key, group_base(deck, deck->block, group), 0);
    const void *then = hirl_deck_item_view(key, group_base(deck, deck->defaults, group), 0);
    // Texts and lists are cleared behind their ends, so equal values are equal bytes, -0 and NaN included.
    return memcmp(now, then, (size_t)count * hirl_deck_item_size(key)) == 0;
}

// "type; unit; range or choices; default", the facts of a key on one line.
static hirl_status_t append_facts(const hirl_key_t *key, hirl_text_t *text) {
    static const char *const TYPE[] = {"integer",  "real",  "logical", "text",
                                       "integers", "reals", "texts"};
    HIRL_TRY(hirl_text_append(text, "%s", TYPE[key->type]));
    if (key->unit[0]) HIRL_TRY(hirl_text_append(text, " in %s", key->unit));
    hirl_text_t range = {0};
    hirl_status_t status = hirl_deck_append_range(key, &range);
    if (status == HIRL_OK && range.size) status = hirl_text_append(text, ", %s", range.data);
    hirl_text_reset(&range);
    if (status == HIRL_OK && key->choices) {
        status = hirl_text_append(text, ", one of ");
        if (status == HIRL_OK) status = hirl_deck_append_choices(key, text);
    }
    return status;
}

static hirl_status_t append_default(const hirl_key_t *key, hirl_text_t *text) {
    if (!key->default_text) return hirl_text_append(text, "required");
    if (key_is_list(key) && !key->default_text[0]) return hirl_text_append(text, "an empty list");
    const bool is_text = key->type == HIRL_KEY_TEXT;
    const char first = key->default_text[0];
    if (is_text && first != '\'' && first != '"')
        return hirl_deck_append_quoted(key->default_text, text);
    return hirl_text_append(text, "%s", key->default_text);
}

// Help and facts of a key as comment lines.
static hirl_status_t append_comment(const hirl_key_t *key, hirl_text_t *text) {
    hirl_text_t prose = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_text_append(&prose, "%s (", key->help), status, done);
    HIRL_TRY_GOTO(append_facts(key, &prose), status, done);
    HIRL_TRY_GOTO(hirl_text_append(&prose, "; %s", key->default_text ? "default: " : ""), status,
                  done);
    HIRL_TRY_GOTO(append_default(key, &prose), status, done);
    HIRL_TRY_GOTO(hirl_text_append(&prose, ")"), status, done);
    status = hirl_deck_append_wrapped("  ! ", WIDTH, prose.data, text);
done:
    hirl_text_reset(&prose);
    return status;
}

static hirl_status_t append_group(const hirl_deck_t *deck, int g, bool is_full, bool *has_any_p,
                                  hirl_text_t *text) {
    const hirl_group_t *group = deck->groups[g];
    const void *base = group_base(deck, deck->block, g);
    bool is_open = is_full;
    if (is_full) {
        HIRL_TRY(hirl_text_append(text, "\n"));
        HIRL_TRY(hirl_deck_append_wrapped("! ", WIDTH, group->help, text));
        HIRL_TRY(hirl_text_append(text, "&%s\n", group->name));
    }
    for (int k = 0; k < group->n_keys; k++) {
        const hirl_key_t *key = &group->keys[k];
        const key_state_t *state = &deck->state[deck->key0[g] + k];
        // The base deck's keys are all here.
        if (is_base_key(group, key) || (!is_full && is_default(deck, g, k))) continue;
        if (!is_open) HIRL_TRY(hirl_text_append(text, "\n&%s\n", group->name));
        is_open = true;
        if (is_full) HIRL_TRY(append_comment(key, text));
        if (state->held) {
            HIRL_TRY(append_values(key, base, state, text));
        } else {
            HIRL_TRY(hirl_text_append(text, "  ! %s %s\n", key->name,
                                      key->default_text ? "is an empty list"
                                                        : "is required, and not given"));
        }
    }
    *has_any_p |= is_open;
    return is_open ? hirl_text_append(text, "/\n") : HIRL_OK;
}

hirl_status_t hirl_deck_write_text(const hirl_deck_t *deck, bool is_full, hirl_text_t *text) {
    HIRL_REQUIRE(deck && text, HIRL_ERR_ARG, "no deck, or no text");
    bool has_any = false;
    HIRL_TRY(hirl_text_append(
        text, is_full ? "! Resolved deck: every key with its value.\n"
                      : "! Resolved deck: the keys that differ from their defaults.\n"));
    for (int g = 0; g < deck->n_groups; g++)
        HIRL_TRY(append_group(deck, g, is_full, &has_any, text));
    // A deck has at least one group.
    return has_any ? HIRL_OK : hirl_text_append(text, "\n&%s\n/\n", deck->group_names[0]);
}

// ------------------------------------------------------------------------------------------ canonical values

// As Fortran's ES24.16E3: 17 digits, three of the exponent.
static void format_canonical(double value, char buf[40]) {
    if (isnan(value)) {
        strcpy(buf, "nan");
    } else if (isinf(value)) {
        strcpy(buf, value < 0 ? "-inf" : "inf");
    } else {
        snprintf(buf, 40, "%.16E", value);
        char *exponent = strchr(buf, 'E');
        const int power = atoi(exponent + 1);
        snprintf(exponent, 8, "E%+04d", power);
    }
}

hirl_status_t hirl_deck_write_values(const hirl_deck_t *deck, hirl_text_t *text) {
    HIRL_REQUIRE(deck && text, HIRL_ERR_ARG, "no deck, or no text");
    for (int g = 0; g < deck->n_groups; g++) {
        const hirl_group_t *group = deck->groups[g];
        const void *base = group_base(deck, deck->block, g);
        for (int k = 0; k < group->n_keys; k++) {
            const hirl_key_t *key = &group->keys[k];
            const int count = hirl_deck_count(key, &deck->state[deck->key0[g] + k]);
            HIRL_TRY(hirl_text_append(text, "%s%%%s =", group->name, key->name));
            if (count == 0 && !key_is_list(key)) HIRL_TRY(hirl_text_append(text, " (not set)"));
            for (int i = 0; i < count; i++) {
                HIRL_TRY(hirl_text_append(text, i ? ", " : " "));
                char buf[40];
                if (key_item_type(key) == HIRL_KEY_REAL) {
                    format_canonical(*(const double *)hirl_deck_item_view(key, base, i), buf);
                    HIRL_TRY(hirl_text_append(text, "%s", buf));
                } else {
                    HIRL_TRY(hirl_deck_append_item(key, base, i, text));
                }
            }
            HIRL_TRY(hirl_text_append(text, "\n"));
        }
    }
    return HIRL_OK;
}

static hirl_status_t append_items(const hirl_deck_t *deck, int g, int k, hirl_text_t *text) {
    const hirl_key_t *key = &deck->groups[g]->keys[k];
    const void *base = group_base(deck, deck->block, g);
    const int count = hirl_deck_count(key, &deck->state[deck->key0[g] + k]);
    if (count == 0) return hirl_text_append(text, key_is_list(key) ? "(empty)" : "(not set)");
    for (int i = 0; i < count; i++) {
        if (i > 0) HIRL_TRY(hirl_text_append(text, ", "));
        HIRL_TRY(hirl_deck_append_item(key, base, i, text));
    }
    return HIRL_OK;
}

hirl_status_t hirl_deck_changes(const hirl_deck_t *deck, const char *name, const char *old_text,
                                hirl_text_t *text) {
    hirl_deck_t *old = NULL;
    hirl_text_t before = {0}, after = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_deck_create(deck->groups, deck->n_groups, &old));
    HIRL_TRY_GOTO(hirl_deck_read_text(old, name, old_text, strlen(old_text)), status, done);
    for (int g = 0; g < deck->n_groups; g++) {
        for (int k = 0; k < deck->groups[g]->n_keys; k++) {
            before.size = after.size = 0;
            HIRL_TRY_GOTO(append_items(old, g, k, &before), status, done);
            HIRL_TRY_GOTO(append_items(deck, g, k, &after), status, done);
            if (strcmp(before.data, after.data) == 0) continue;
            if (is_base_key(deck->groups[g], &deck->groups[g]->keys[k]))
                continue; // resolved: not in a text
            HIRL_TRY_GOTO(hirl_text_append(text, "%s%%%s: %s -> %s\n", deck->groups[g]->name,
                                           deck->groups[g]->keys[k].name, before.data, after.data),
                          status, done);
        }
    }
done:
    hirl_text_reset(&before);
    hirl_text_reset(&after);
    hirl_deck_destroy(&old);
    return status;
}

// ------------------------------------------------------------------------------------------ manual

static hirl_status_t describe_key(const hirl_group_t *group, const hirl_key_t *key,
                                  hirl_text_t *text) {
    hirl_text_t item = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_text_append(text, "%s%%%s\n", group->name, key->name), status, done);
    HIRL_TRY_GOTO(append_facts(key, &item), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "  %-10s%s\n", "type", item.data), status, done);
    item.size = 0;
    HIRL_TRY_GOTO(append_default(key, &item), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "  %-10s%s\n", "default",
                                   key->default_text ? item.data : "none: required"),
                  status, done);
    if (key_is_list(key)) {
        HIRL_TRY_GOTO(hirl_text_append(text, "  %-10sat most %d\n", "items", HIRL_DECK_LIST_MAX),
                      status, done);
    }
    HIRL_TRY_GOTO(hirl_deck_append_wrapped("  ", WIDTH, key->help, text), status, done);
    // An example that reads: the default, or what the type suggests.
    const char *example = key->default_text && key->default_text[0] ? item.data : NULL;
    char buf[HIRL_DECK_TEXT_MAX + 4];
    if (!example) {
        switch (key_item_type(key)) {
            case HIRL_KEY_INT:
                snprintf(buf, sizeof buf, "%.0f", ceil(fmin(fmax(key->min, 1), key->max)));
                break;
            case HIRL_KEY_REAL:
                snprintf(buf, sizeof buf, "%g", fmin(fmax(key->min, 0.5), key->max));
                break;
            case HIRL_KEY_BOOL: strcpy(buf, "T"); break;
            default:
                snprintf(buf, sizeof buf, "'%.*s'",
                         key->choices ? (int)strcspn(key->choices, "|") : 3,
                         key->choices ? key->choices : "...");
                break;
        }
        example = buf;
    }
    status =
        hirl_text_append(text, "  %-10s&%s %s = %s /\n", "deck", group->name, key->name, example);
done:
    hirl_text_reset(&item);
    return status;
}

static hirl_status_t describe_group(const hirl_group_t *group, hirl_text_t *text) {
    hirl_text_t facts = {0}, value = {0};
    hirl_status_t status;
    int width = 0;
    for (int k = 0; k < group->n_keys; k++) {
        const int size = (int)strlen(group->keys[k].name);
        if (size > width) width = size;
    }
    // Names of usual length are aligned; a longer one moves its own line only.
    if (width > 28) width = 28;
    char indent[40];
    snprintf(indent, sizeof indent, "  %*s", width + 2, "");
    HIRL_TRY_GOTO(hirl_text_append(text, "&%s\n", group->name), status, done);
    HIRL_TRY_GOTO(hirl_deck_append_wrapped("  ", WIDTH, group->help, text), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "\n"), status, done);
    for (int k = 0; k < group->n_keys; k++) {
        const hirl_key_t *key = &group->keys[k];
        facts.size = value.size = 0;
        HIRL_TRY_GOTO(append_default(key, &value), status, done);
        HIRL_TRY_GOTO(append_facts(key, &facts), status, done);
        const char *shown = key->default_text ? value.data : "(required)";
        const bool is_long =
            (size_t)width + 6 + (strlen(shown) > 16 ? strlen(shown) : 16) + facts.size > WIDTH;
        HIRL_TRY_GOTO(hirl_text_append(text, "  %-*s  %-*s%s%s\n", width, key->name,
                                       is_long ? 0 : 16, shown, is_long ? "" : "  ",
                                       is_long ? "" : facts.data),
                      status, done);
        if (is_long)
            HIRL_TRY_GOTO(hirl_deck_append_wrapped(indent, WIDTH, facts.data, text), status, done);
        HIRL_TRY_GOTO(hirl_deck_append_wrapped(indent, WIDTH, key->help, text), status, done);
    }
done:
    hirl_text_reset(&facts);
    hirl_text_reset(&value);
    return status;
}

static hirl_status_t fail_no_group(const hirl_group_t *const *groups, int n_groups,
                                   const char *name, int size) {
    const char **names = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_groups, &names));
    for (int g = 0; g < n_groups; g++) names[g] = groups[g]->name;
    char copy[DECK_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%.*s", size, name);
    const int nearest = hirl_text_nearest(copy, names, n_groups);
    hirl_mem_free(names);
    return HIRL_FAIL(HIRL_ERR_ARG, "there is no group '%.*s', expected a group or group%%key%s%s%s",
                     size, name, nearest >= 0 ? "; the nearest is '" : "",
                     nearest >= 0 ? groups[nearest]->name : "", nearest >= 0 ? "'" : "");
}

static hirl_status_t fail_no_key(const hirl_group_t *group, const char *name) {
    const char **names = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, group->n_keys, &names));
    for (int k = 0; k < group->n_keys; k++) names[k] = group->keys[k].name;
    const int nearest = hirl_text_nearest(name, names, group->n_keys);
    hirl_mem_free(names);
    return HIRL_FAIL(HIRL_ERR_ARG, "group '%s' has no key '%.63s'%s%s%s", group->name, name,
                     nearest >= 0 ? "; the nearest is '" : "",
                     nearest >= 0 ? group->keys[nearest].name : "", nearest >= 0 ? "'" : "");
}

hirl_status_t hirl_deck_describe(const hirl_group_t *const *groups, int n_groups, const char *what,
                                 hirl_text_t *text) {
    HIRL_REQUIRE(text, HIRL_ERR_ARG, "no text to write to");
    HIRL_TRY(hirl_deck_check_tables(groups, n_groups));
    if (!what || !what[0]) {
        for (int g = 0; g < n_groups; g++) {
            if (g) HIRL_TRY(hirl_text_append(text, "\n"));
            HIRL_TRY(describe_group(groups[g], text));
        }
        return HIRL_OK;
    }
    // "&optim" is how decks name it.
    const char *name = what[0] == '&' ? what + 1 : what;
    const size_t size = strcspn(name, "%");
    const int g = hirl_deck_find_group(groups, n_groups, name, size);
    if (g < 0) return fail_no_group(groups, n_groups, name, (int)size);
    if (!name[size]) return describe_group(groups[g], text);
    const char *key = name + size + 1;
    const int k = hirl_deck_find_key(groups[g], key, strlen(key));
    return k < 0 ? fail_no_key(groups[g], key) : describe_key(groups[g], &groups[g]->keys[k], text);
}
