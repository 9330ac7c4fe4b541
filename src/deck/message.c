// Places in a source and what is said about them: line, column, what was found, what was expected, the nearest name.
#include "parse_impl.h"

#include <stdio.h>
#include <string.h>

int hirl_deck_line_of(const deck_source_t *source, size_t at) {
    int line = 1;
    for (size_t i = 0; i < at && i < source->size; i++) line += source->data[i] == '\n';
    return line;
}

char *hirl_deck_place(const deck_source_t *source, size_t at, char buf[DECK_PLACE_MAX]) {
    const int n_name = (int)strlen(source->name);
    const char *tail = n_name > 480 ? source->name + n_name - 480 : source->name;
    if (source->kind == SOURCE_DEFAULT) {
        snprintf(buf, DECK_PLACE_MAX, "default of %s in its key table", tail);
        return buf;
    }
    size_t begin = at < source->size ? at : source->size;
    while (begin > 0 && source->data[begin - 1] != '\n') begin--;
    int column = 1; // in characters: bytes that continue a UTF-8 character do not count
    for (size_t i = begin; i < at && i < source->size; i++)
        column += ((unsigned char)source->data[i] & 0xC0) != 0x80;
    if (source->kind == SOURCE_OVERRIDE) {
        snprintf(buf, DECK_PLACE_MAX, "command line '%s%.480s', column %d",
                 tail == source->name ? "" : "...", tail, column);
    } else {
        snprintf(buf, DECK_PLACE_MAX, "%s%.480s:%d:%d", tail == source->name ? "" : "...", tail,
                 hirl_deck_line_of(source, at), column);
    }
    // Names of files and overrides may hold anything.
    for (char *c = buf; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    }
    return buf;
}

// A piece of the source in quotes for a message: short, and without bytes that would upset a terminal.
const char *hirl_deck_quote_found(const char *data, size_t size, char buf[FOUND_MAX]) {
    const size_t max = 60;
    size_t shown = size;
    if (size > max) {
        shown = max;
        while (shown > 0 && ((unsigned char)data[shown] & 0xC0) == 0x80) shown--;
    }
    char *to = buf;
    *to++ = '\'';
    for (size_t i = 0; i < shown; i++) {
        const unsigned char c = (unsigned char)data[i];
        *to++ = c < 0x20 || c == 0x7F ? '?' : (char)c;
    }
    strcpy(to, size > max ? "...'" : "'");
    return buf;
}

// The character at `at` for a message: itself, or what it is called.
const char *hirl_deck_name_char(const parser_t *p, size_t at, char buf[FOUND_MAX]) {
    const int c = peek_at(p, at);
    if (c == END) return "the end";
    if (c == '\n' || c == '\r') return "the end of the line";
    size_t size = 1;
    while (((unsigned)peek_at(p, at + size) & 0xC0) == 0x80 && size < 4 &&
           peek_at(p, at + size) != END)
        size++;
    return hirl_deck_quote_found(p->source->data + at, size, buf);
}

// "optim%lr: found '1,5' ..., expected a real number in ..., 0 to 10"
hirl_status_t hirl_deck_fail_value(const parser_t *p, const deck_assign_t *assign, size_t at,
                                   const char *found, const char *hint) {
    const hirl_key_t *key = key_row(p, assign);
    hirl_text_t expected = {0};
    hirl_status_t status = hirl_deck_append_expected(key, &expected);
    if (status == HIRL_OK) {
        status = DECK_FAIL(p->source, at, "%s%%%s: found %s, expected %s%s", key_group(p, assign),
                           key->name, found, expected.data, hint);
    }
    hirl_text_reset(&expected);
    return status;
}

hirl_status_t hirl_deck_fail_unknown_group(const parser_t *p, size_t at, const char *name,
                                           size_t size) {
    const hirl_deck_t *deck = p->deck;
    char found[FOUND_MAX], copy[DECK_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%.*s", (int)(size < sizeof copy ? size : sizeof copy - 1), name);
    hirl_deck_quote_found(name, size, found);
    const int nearest = hirl_text_nearest(copy, deck->group_names, deck->n_groups);
    if (nearest >= 0) {
        return DECK_FAIL(p->source, at,
                         "unknown group %s, expected a group of the manual; the nearest is '%s'",
                         found, deck->group_names[nearest]);
    }
    hirl_text_t all = {0};
    hirl_status_t status = HIRL_OK;
    for (int g = 0; g < deck->n_groups && status == HIRL_OK; g++) {
        status = hirl_text_append(&all, "%s%s", g ? ", " : "", deck->group_names[g]);
    }
    if (status == HIRL_OK)
        status = DECK_FAIL(p->source, at, "unknown group %s, expected one of %s", found, all.data);
    hirl_text_reset(&all);
    return status;
}

hirl_status_t hirl_deck_fail_unknown_key(const parser_t *p, int group, size_t at, const char *name,
                                         size_t size) {
    const hirl_deck_t *deck = p->deck;
    const char *own = deck->group_names[group];
    char found[FOUND_MAX], copy[DECK_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%.*s", (int)(size < sizeof copy ? size : sizeof copy - 1), name);
    hirl_deck_quote_found(name, size, found);
    for (int g = 0; g < deck->n_groups; g++) {
        const int k = hirl_deck_find_key(deck->groups[g], name, size);
        if (k < 0) continue;
        return DECK_FAIL(p->source, at, "group '%s' has no key %s; there is %s%%%s", own, found,
                         deck->group_names[g], deck->groups[g]->keys[k].name);
    }
    const char *const *own_keys = deck->key_names + deck->key0[group];
    int nearest = hirl_text_nearest(copy, own_keys, deck->groups[group]->n_keys);
    if (nearest >= 0) {
        return DECK_FAIL(p->source, at, "group '%s' has no key %s; the nearest is '%s'", own, found,
                         own_keys[nearest]);
    }
    nearest = hirl_text_nearest(copy, deck->key_names, deck->n_keys);
    if (nearest >= 0) {
        int g = deck->n_groups - 1;
        while (deck->key0[g] > nearest) g--;
        return DECK_FAIL(p->source, at, "group '%s' has no key %s; the nearest is %s%%%s", own,
                         found, deck->group_names[g], deck->key_names[nearest]);
    }
    hirl_text_t all = {0};
    hirl_status_t status = HIRL_OK;
    for (int k = 0; k < deck->groups[group]->n_keys && status == HIRL_OK; k++) {
        status = hirl_text_append(&all, "%s%s", k ? ", " : "", own_keys[k]);
    }
    if (status == HIRL_OK) {
        status = DECK_FAIL(p->source, at, "group '%s' has no key %s, expected one of %s", own,
                           found, all.data);
    }
    hirl_text_reset(&all);
    return status;
}
