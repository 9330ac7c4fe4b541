// Key tables: checks, look-up by name, access to struct fields, and the wording of types, ranges and values.
#include "deck_impl.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ------------------------------------------------------------------------------------------ checks

static bool is_fortran_name(const char *name) {
    if (!name || !islower((unsigned char)name[0])) return false;
    size_t size = 1;
    for (; name[size]; size++) {
        const unsigned char c = (unsigned char)name[size];
        if (!islower(c) && !isdigit(c) && c != '_') return false;
    }
    return size <= DECK_NAME_MAX;
}

static hirl_status_t check_key(const hirl_group_t *group, int k) {
    const hirl_key_t *key = &group->keys[k];
    HIRL_REQUIRE(is_fortran_name(key->name), HIRL_ERR_INTERNAL,
                 "key table of group '%s', row %d: '%s' is not a lower-case Fortran name of at "
                 "most %d characters",
                 group->name, k, key->name ? key->name : "(null)", DECK_NAME_MAX);
    HIRL_REQUIRE(strcmp(key->name, group->name) != 0, HIRL_ERR_INTERNAL,
                 "key table of group '%s': a key cannot have its group's name, no Fortran program "
                 "could declare both",
                 group->name);
    const bool is_value_name = strcmp(key->name, "t") == 0 || strcmp(key->name, "f") == 0;
    for (int other = 0; other < group->n_keys; other++) {
        HIRL_REQUIRE(!is_value_name || group->keys[other].type != HIRL_KEY_BOOL, HIRL_ERR_INTERNAL,
                     "key table of group '%s': key '%s' cannot have this name beside a logical "
                     "key, a Fortran reader "
                     "takes it for a logical value",
                     group->name, key->name);
    }
    for (int other = 0; other < k; other++) {
        HIRL_REQUIRE(strcmp(key->name, group->keys[other].name) != 0, HIRL_ERR_INTERNAL,
                     "key table of group '%s': key '%s' appears twice", group->name, key->name);
    }
    HIRL_REQUIRE((unsigned)key->type <= HIRL_KEY_TEXT_LIST && key->unit && key->help,
                 HIRL_ERR_INTERNAL,
                 "key table of group '%s': key '%s' lacks a type, a unit or a help text",
                 group->name, key->name);
    const size_t size = hirl_deck_item_size(key) * (key_is_list(key) ? HIRL_DECK_LIST_MAX : 1);
    HIRL_REQUIRE(size <= group->struct_size && key->offset <= group->struct_size - size &&
                     (!key_is_list(key) || (sizeof(int) <= group->struct_size &&
                                            key->count_offset <= group->struct_size - sizeof(int))),
                 HIRL_ERR_INTERNAL,
                 "key table of group '%s': the field of key '%s' lies outside its struct",
                 group->name, key->name);
    const hirl_key_type_t type = key_item_type(key);
    const bool is_number = type == HIRL_KEY_INT || type == HIRL_KEY_REAL;
    HIRL_REQUIRE(!is_number || key->min <= key->max, HIRL_ERR_INTERNAL,
                 "key table of group '%s': key '%s' allows no number (%g to %g)", group->name,
                 key->name, key->min, key->max);
    HIRL_REQUIRE(
        !key->choices || (type == HIRL_KEY_TEXT && key->choices[0]), HIRL_ERR_INTERNAL,
        "key table of group '%s': key '%s' has choices but is no text, or has none to choose",
        group->name, key->name);
    return HIRL_OK;
}

hirl_status_t hirl_deck_check_tables(const hirl_group_t *const *groups, int n_groups) {
    HIRL_REQUIRE(groups && n_groups > 0, HIRL_ERR_ARG, "a deck needs at least one group table");
    for (int g = 0; g < n_groups; g++) {
        const hirl_group_t *group = groups[g];
        HIRL_REQUIRE(
            group && is_fortran_name(group->name), HIRL_ERR_INTERNAL,
            "group table %d: '%s' is not a lower-case Fortran name of at most %d characters", g,
            group && group->name ? group->name : "(null)", DECK_NAME_MAX);
        HIRL_REQUIRE(strcmp(group->name, "end") != 0, HIRL_ERR_INTERNAL,
                     "group table %d: a Fortran reader takes '&end' as the end of a group", g);
        HIRL_REQUIRE(group->help && group->keys && group->n_keys > 0, HIRL_ERR_INTERNAL,
                     "group table '%s' lacks keys or a help text", group->name);
        for (int other = 0; other < g; other++) {
            HIRL_REQUIRE(strcmp(group->name, groups[other]->name) != 0, HIRL_ERR_INTERNAL,
                         "group '%s' has two tables", group->name);
        }
        for (int k = 0; k < group->n_keys; k++) HIRL_TRY(check_key(group, k));
    }
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------------ look-up

int hirl_deck_find_group(const hirl_group_t *const *groups, int n_groups, const char *name,
                         size_t size) {
    for (int g = 0; g < n_groups; g++) {
        if (strlen(groups[g]->name) == size && strncasecmp(groups[g]->name, name, size) == 0)
            return g;
    }
    return -1;
}

int hirl_deck_find_key(const hirl_group_t *group, const char *name, size_t size) {
    for (int k = 0; k < group->n_keys; k++) {
        if (strlen(group->keys[k].name) == size &&
            strncasecmp(group->keys[k].name, name, size) == 0)
            return k;
    }
    return -1;
}

size_t hirl_deck_item_size(const hirl_key_t *key) {
    switch (key_item_type(key)) {
        case HIRL_KEY_INT: return sizeof(int64_t);
        case HIRL_KEY_REAL: return sizeof(double);
        case HIRL_KEY_BOOL: return sizeof(bool);
        default: return HIRL_DECK_TEXT_MAX;
    }
}

const void *hirl_deck_item_view(const hirl_key_t *key, const void *base, int item) {
    return (const char *)base + key->offset + (size_t)item * hirl_deck_item_size(key);
}

void *hirl_deck_item(const hirl_key_t *key, void *base, int item) {
    return (char *)base + key->offset + (size_t)item * hirl_deck_item_size(key);
}

int hirl_deck_count(const hirl_key_t *key, const key_state_t *state) {
    if (!key_is_list(key)) return state->held ? 1 : 0;
    return state->held ? 64 - __builtin_clzll(state->held) : 0;
}

// ------------------------------------------------------------------------------------------ wording

static void format_integer_bound(double bound, char buf[40]) { snprintf(buf, 40, "%.0f", bound); }

// The fewest digits that read back to the same number; whole numbers of usual size without an exponent.
static void format_real(double value, char buf[40]) {
    if (isnan(value)) {
        snprintf(buf, 40, "nan");
    } else if (isinf(value)) {
        snprintf(buf, 40, value < 0 ? "-inf" : "inf");
    } else if (value == trunc(value) && fabs(value) < 1e15) {
        snprintf(buf, 40, "%.0f", value);
    } else {
        for (int digits = 1; digits <= 17; digits++) {
            snprintf(buf, 40, "%.*g", digits, value);
            if (strtod(buf, NULL) == value) break;
        }
    }
}

hirl_status_t hirl_deck_append_range(const hirl_key_t *key, hirl_text_t *text) {
    const hirl_key_type_t type = key_item_type(key);
    if (type != HIRL_KEY_INT && type != HIRL_KEY_REAL) return HIRL_OK;
    // The ends of what the type can hold are no bounds worth a word. INT64_MAX as a double is 2^63.
    const double lowest = type == HIRL_KEY_INT ? -0x1p63 : -DBL_MAX;
    const double highest = type == HIRL_KEY_INT ? 0x1p63 : DBL_MAX;
    const bool has_min = key->min > lowest, has_max = key->max < highest;
    char min[40], max[40];
    if (type == HIRL_KEY_INT) {
        format_integer_bound(ceil(key->min), min);
        format_integer_bound(floor(key->max), max);
    } else {
        format_real(key->min, min);
        format_real(key->max, max);
    }
    if (has_min && has_max && key->min == key->max) return hirl_text_append(text, "%s", min);
    if (has_min && has_max) return hirl_text_append(text, "%s to %s", min, max);
    if (has_min) return hirl_text_append(text, "at least %s", min);
    if (has_max) return hirl_text_append(text, "at most %s", max);
    return HIRL_OK;
}

hirl_status_t hirl_deck_append_choices(const hirl_key_t *key, hirl_text_t *text) {
    const char *separator = "";
    for (const char *at = key->choices; at;) {
        const char *end = strchr(at, '|');
        const int size = end ? (int)(end - at) : (int)strlen(at);
        HIRL_TRY(hirl_text_append(text, "%s'%.*s'", separator, size, at));
        separator = ", ";
        at = end ? end + 1 : NULL;
    }
    return HIRL_OK;
}

hirl_status_t hirl_deck_append_expected(const hirl_key_t *key, hirl_text_t *text) {
    if (key->choices) {
        HIRL_TRY(hirl_text_append(text, "one of "));
        return hirl_deck_append_choices(key, text);
    }
    switch (key_item_type(key)) {
        case HIRL_KEY_INT: HIRL_TRY(hirl_text_append(text, "an integer")); break;
        case HIRL_KEY_REAL: HIRL_TRY(hirl_text_append(text, "a real number")); break;
        case HIRL_KEY_BOOL: HIRL_TRY(hirl_text_append(text, "a logical value, T or F")); break;
        default:
            HIRL_TRY(hirl_text_append(text, "a text in quotes of at most %d bytes",
                                      HIRL_DECK_TEXT_MAX - 1));
            break;
    }
    if (key->unit[0]) HIRL_TRY(hirl_text_append(text, " in %s", key->unit));
    hirl_text_t range = {0};
    hirl_status_t status = hirl_deck_append_range(key, &range);
    if (status == HIRL_OK && range.size) status = hirl_text_append(text, ", %s", range.data);
    hirl_text_reset(&range);
    return status;
}

hirl_status_t hirl_deck_append_quoted(const char *value, hirl_text_t *text) {
    HIRL_TRY(hirl_text_append(text, "'"));
    for (const char *at = value; *at;) {
        const size_t plain = strcspn(at, "'");
        HIRL_TRY(hirl_text_append(text, "%.*s%s", (int)plain, at, at[plain] ? "''" : ""));
        at += plain + (at[plain] ? 1 : 0);
    }
    return hirl_text_append(text, "'");
}

hirl_status_t hirl_deck_append_item(const hirl_key_t *key, const void *base, int item,
                                    hirl_text_t *text) {
    const void *at = hirl_deck_item_view(key, base, item);
    char buf[40];
    switch (key_item_type(key)) {
        case HIRL_KEY_INT: return hirl_text_append(text, "%lld", (long long)*(const int64_t *)at);
        case HIRL_KEY_REAL:
            format_real(*(const double *)at, buf);
            return hirl_text_append(text, "%s", buf);
        case HIRL_KEY_BOOL: return hirl_text_append(text, "%s", *(const bool *)at ? "T" : "F");
        default: return hirl_deck_append_quoted(at, text);
    }
}

hirl_status_t hirl_deck_append_wrapped(const char *indent, int width, const char *prose,
                                       hirl_text_t *text) {
    const int n_indent = (int)strlen(indent);
    int column = 0;
    for (const char *at = prose; *at;) {
        at += strspn(at, " \t\r\n");
        const int size = (int)strcspn(at, " \t\r\n");
        if (!size) break;
        if (column && column + 1 + size > width) {
            HIRL_TRY(hirl_text_append(text, "\n"));
            column = 0;
        }
        HIRL_TRY(hirl_text_append(text, "%s%.*s", column ? " " : indent, size, at));
        column += (column ? 1 : n_indent) + size;
        at += size;
    }
    return column ? hirl_text_append(text, "\n") : HIRL_OK;
}

bool hirl_deck_nearest_choice(const hirl_key_t *key, const char *value,
                              char buf[HIRL_DECK_TEXT_MAX]) {
    char candidates[32][HIRL_DECK_TEXT_MAX];
    const char *views[32];
    int n = 0;
    for (const char *at = key->choices; at && n < 32;) {
        const char *end = strchr(at, '|');
        const size_t size = end ? (size_t)(end - at) : strlen(at);
        if (size < HIRL_DECK_TEXT_MAX) {
            memcpy(candidates[n], at, size);
            candidates[n][size] = '\0';
            views[n] = candidates[n];
            n++;
        }
        at = end ? end + 1 : NULL;
    }
    const int nearest = hirl_text_nearest(value, views, n);
    if (nearest < 0) return false;
    memcpy(buf, candidates[nearest], strlen(candidates[nearest]) + 1);
    return true;
}
