// Constants: from the characters of a value to a typed one, checked against its key's range and choices.
#include "parse_impl.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { NUMBER_MAX = 256 };

// ------------------------------------------------------------------------------------------ script

static hirl_status_t grow(void **data, size_t *max, size_t need, size_t item_size) {
    if (need <= *max) return HIRL_OK;
    const size_t fresh = need < 64 ? 64 : need + need / 2;
    HIRL_REQUIRE(fresh <= SIZE_MAX / item_size, HIRL_ERR_MEMORY, "%zu items of a deck are too many",
                 fresh);
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, fresh * item_size, data));
    *max = fresh;
    return HIRL_OK;
}

hirl_status_t hirl_deck_push_value(deck_script_t *script, const deck_value_t *value) {
    void *data = script->values;
    HIRL_TRY(grow(&data, &script->max_values, script->n_values + 1, sizeof *value));
    script->values = data;
    script->values[script->n_values++] = *value;
    return HIRL_OK;
}

hirl_status_t hirl_deck_push_assign(deck_script_t *script, const deck_assign_t *assign) {
    void *data = script->assigns;
    HIRL_TRY(grow(&data, &script->max_assigns, script->n_assigns + 1, sizeof *assign));
    script->assigns = data;
    script->assigns[script->n_assigns++] = *assign;
    return HIRL_OK;
}

static hirl_status_t push_text(deck_script_t *script, const char *text, size_t size,
                               size_t *offset_p) {
    void *data = script->texts;
    HIRL_TRY(grow(&data, &script->max_texts, script->n_texts + size + 1, 1));
    script->texts = data;
    memcpy(script->texts + script->n_texts, text, size);
    script->texts[script->n_texts + size] = '\0';
    *offset_p = script->n_texts;
    script->n_texts += size + 1;
    return HIRL_OK;
}

void hirl_deck_script_reset(deck_script_t *script) {
    hirl_mem_free(script->assigns);
    hirl_mem_free(script->values);
    hirl_mem_free(script->texts);
    *script = (deck_script_t){0};
}

// ------------------------------------------------------------------------------------------ constants

bool hirl_deck_is_word(const char *data, size_t size, const char *word) {
    return strlen(word) == size && strncasecmp(data, word, size) == 0;
}

// What a piece without quotes looks like, for messages.
const char *hirl_deck_kind_of(const char *data, size_t size) {
    size_t i = size > 0 && (data[0] == '+' || data[0] == '-') ? 1 : 0;
    size_t digits = 0, others = 0;
    const size_t begin = i;
    for (; i < size; i++) {
        if (isdigit((unsigned char)data[i])) {
            digits++;
        } else {
            others++;
        }
    }
    if (digits && !others) return "an integer";
    char *end = NULL;
    char copy[NUMBER_MAX];
    if (digits && size < sizeof copy &&
        (isdigit((unsigned char)data[begin]) || data[begin] == '.')) {
        memcpy(copy, data, size);
        copy[size] = '\0';
        for (char *c = copy; *c; c++) {
            if (strchr("dDqQ", *c)) *c = 'e';
        }
        (void)strtod(copy, &end);
        if (*end == '\0' && !strpbrk(copy, "xX")) return "a real number";
    }
    return NULL;
}

// A piece without quotes that is not what the key wants.
static hirl_status_t fail_raw(const parser_t *p, const deck_assign_t *assign, size_t at,
                              size_t size, const char *why) {
    const hirl_key_t *key = key_row(p, assign);
    const char *data = p->source->data + at;
    char quoted[FOUND_MAX], found[FOUND_MAX + 64];
    const char *kind = why ? why : hirl_deck_kind_of(data, size);
    hirl_deck_quote_found(data, size, quoted);
    snprintf(found, sizeof found, kind ? "%s (%s)" : "%s", quoted, kind);
    const char *hint = "";
    if (!why && key_item_type(key) == HIRL_KEY_TEXT) {
        hint = "; texts need quotes";
    } else if (!why && kind && key_item_type(key) == HIRL_KEY_BOOL) {
        hint = "; numbers are no logical values";
    }
    return hirl_deck_fail_value(p, assign, at, found, hint);
}

bool hirl_deck_read_integer(const char *data, size_t size, int64_t *value_p, bool *is_overflow_p) {
    size_t i = 0;
    const bool is_negative = size > 0 && data[0] == '-';
    if (size > 0 && (data[0] == '-' || data[0] == '+')) i++;
    if (i == size) return false;
    uint64_t magnitude = 0;
    const uint64_t max = (uint64_t)INT64_MAX + (is_negative ? 1 : 0);
    for (; i < size; i++) {
        if (!isdigit((unsigned char)data[i])) return false;
        const uint64_t digit = (uint64_t)(data[i] - '0');
        if (magnitude > (max - digit) / 10) *is_overflow_p = true;
        if (!*is_overflow_p) magnitude = magnitude * 10 + digit;
    }
    *value_p = is_negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

// Fortran reals: the exponent's letter is e, d or q, and may be left out before its sign.
static bool read_real(const char *data, size_t size, double *value_p, bool *is_overflow_p) {
    char number[NUMBER_MAX + 2];
    if (size == 0 || size >= NUMBER_MAX) return false;
    size_t i = 0, n = 0, n_digits = 0;
    const bool is_negative = data[0] == '-';
    if (data[0] == '+' || data[0] == '-') i++;
    if (hirl_deck_is_word(data + i, size - i, "inf") ||
        hirl_deck_is_word(data + i, size - i, "infinity")) {
        *value_p = is_negative ? -INFINITY : INFINITY;
        return true;
    }
    if (size - i >= 3 && hirl_deck_is_word(data + i, 3, "nan")) {
        i += 3;
        if (i < size) {
            if (data[i] != '(' || data[size - 1] != ')') return false;
            for (i++; i < size - 1; i++) {
                if (!isalnum((unsigned char)data[i])) return false;
            }
        }
        *value_p = NAN;
        return true;
    }
    if (is_negative) number[n++] = '-';
    for (; i < size && isdigit((unsigned char)data[i]); n_digits++) number[n++] = data[i++];
    if (i < size && data[i] == '.') {
        number[n++] = data[i++];
        for (; i < size && isdigit((unsigned char)data[i]); n_digits++) number[n++] = data[i++];
    }
    if (!n_digits) return false;
    if (i < size) {
        const bool has_letter = strchr("eEdDqQ", data[i]) != NULL;
        if (has_letter) i++;
        number[n++] = 'e';
        if (i < size && (data[i] == '+' || data[i] == '-')) {
            number[n++] = data[i++];
        } else if (!has_letter) {
            return false;
        }
        if (i == size) return false;
        for (; i < size; i++) {
            if (!isdigit((unsigned char)data[i])) return false;
            number[n++] = data[i];
        }
    }
    number[n] = '\0';
    *value_p = strtod(number, NULL);
    *is_overflow_p = isinf(*value_p);
    return true;
}

static bool read_logical(const char *data, size_t size, bool *value_p) {
    static const char *const TRUE_WORDS[] = {"t", "true", ".t", ".t.", ".true", ".true."};
    static const char *const FALSE_WORDS[] = {"f", "false", ".f", ".f.", ".false", ".false."};
    for (size_t i = 0; i < sizeof TRUE_WORDS / sizeof TRUE_WORDS[0]; i++) {
        if (hirl_deck_is_word(data, size, TRUE_WORDS[i])) return *value_p = true, true;
        if (hirl_deck_is_word(data, size, FALSE_WORDS[i])) return *value_p = false, true;
    }
    return false;
}

// A value without quotes for a key of numbers or logicals.
hirl_status_t hirl_deck_convert_raw(const parser_t *p, const deck_assign_t *assign, size_t at,
                                    size_t size, deck_value_t *value) {
    const hirl_key_t *key = key_row(p, assign);
    const char *data = p->source->data + at;
    bool is_overflow = false;
    long double number = 0;
    switch (key_item_type(key)) {
        case HIRL_KEY_INT:
            if (!hirl_deck_read_integer(data, size, &value->integer, &is_overflow))
                return fail_raw(p, assign, at, size, NULL);
            if (is_overflow) return fail_raw(p, assign, at, size, "more than 64 bits hold");
            number = (long double)value->integer;
            break;
        case HIRL_KEY_REAL:
            if (!read_real(data, size, &value->real, &is_overflow))
                return fail_raw(p, assign, at, size, NULL);
            if (is_overflow) return fail_raw(p, assign, at, size, "more than a double holds");
            number = (long double)value->real;
            break;
        case HIRL_KEY_BOOL:
            if (!read_logical(data, size, &value->logical))
                return fail_raw(p, assign, at, size, NULL);
            // gfortran looks past a word for the '=' of a next key, and loses a '/' that it finds there.
            if (size > 1 && data[0] != '.' && p->source->kind == SOURCE_FILE) {
                size_t next = at + size;
                while (is_blank(peek_at(p, next))) next++;
                if (peek_at(p, next) == '/') {
                    return DECK_FAIL(p->source, at,
                                     "%s%%%s: found '%.*s' before '/', which gfortran takes as "
                                     "part of it, expected T, F, "
                                     ".true. or .false., or '/' on a line of its own",
                                     key_group(p, assign), key->name, (int)size, data);
                }
            }
            return HIRL_OK;
        default: return fail_raw(p, assign, at, size, NULL);
    }
    // NaN is in no range but the one that has no ends.
    const bool has_no_range = key->min == -INFINITY && key->max == INFINITY;
    if (!has_no_range && !(number >= (long double)key->min && number <= (long double)key->max)) {
        return fail_raw(p, assign, at, size, "out of range");
    }
    return HIRL_OK;
}

// gfortran looks for the beginning of a group inside texts of other groups too.
static bool hides_group(const hirl_deck_t *deck, const char *text, size_t size,
                        const char **name_p) {
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '&' && text[i] != '$') continue;
        size_t n = 0;
        while (i + 1 + n < size &&
               (isalnum((unsigned char)text[i + 1 + n]) || text[i + 1 + n] == '_'))
            n++;
        if (i + 1 + n == size || !strchr(" \t,/;!=", text[i + 1 + n])) continue;
        const int g = hirl_deck_find_group(deck->groups, deck->n_groups, text + i + 1, n);
        if (g >= 0) return *name_p = deck->group_names[g], true;
    }
    return false;
}

// A text value; `at` is where it begins in the source.
hirl_status_t hirl_deck_take_text(const parser_t *p, const deck_assign_t *assign, size_t at,
                                  const char *text, size_t size, deck_value_t *value) {
    const hirl_key_t *key = key_row(p, assign);
    char found[FOUND_MAX + 64], quoted[FOUND_MAX];
    // Fortran pads texts with blanks, so blanks at the end say nothing.
    while (size > 0 && text[size - 1] == ' ') size--;
    hirl_deck_quote_found(text, size, quoted);
    if (size >= HIRL_DECK_TEXT_MAX) {
        snprintf(found, sizeof found, "%s (%zu bytes)", quoted, size);
        return hirl_deck_fail_value(p, assign, at, found, "");
    }
    const char *line_end = memchr(text, '\n', size), *group;
    if (line_end) {
        snprintf(found, sizeof found, "%s, a text of several lines", quoted);
        return hirl_deck_fail_value(p, assign, at, found, "");
    }
    if (hides_group(p->deck, text, size, &group)) {
        snprintf(found, sizeof found, "%s, where a Fortran program would see the group '%s' begin",
                 quoted, group);
        return hirl_deck_fail_value(p, assign, at, found, "; change the text");
    }
    HIRL_TRY(push_text(p->script, text, size, &value->text));
    if (!key->choices) return HIRL_OK;
    for (const char *choice = key->choices; choice;) {
        const char *end = strchr(choice, '|');
        const size_t n = end ? (size_t)(end - choice) : strlen(choice);
        if (n == size && memcmp(choice, text, size) == 0) return HIRL_OK;
        choice = end ? end + 1 : NULL;
    }
    char nearest[HIRL_DECK_TEXT_MAX], hint[HIRL_DECK_TEXT_MAX + 32] = "";
    if (hirl_deck_nearest_choice(key, p->script->texts + value->text, nearest)) {
        snprintf(hint, sizeof hint, "; the nearest is '%s'", nearest);
    }
    return hirl_deck_fail_value(p, assign, at, quoted, hint);
}

// From the opening quote to past the closing one; the text goes to `value`.
hirl_status_t hirl_deck_read_quoted(parser_t *p, const deck_assign_t *assign, deck_value_t *value) {
    const size_t begin = p->at;
    const int quote = peek(p);
    hirl_text_t text = {0};
    hirl_status_t status = HIRL_OK;
    p->at++;
    for (;;) {
        size_t end = p->at;
        while (peek_at(p, end) != quote && peek_at(p, end) != '\n' && peek_at(p, end) != END) end++;
        HIRL_TRY_GOTO(hirl_text_append(&text, "%.*s", (int)(end - p->at), p->source->data + p->at),
                      status, done);
        if (peek_at(p, end) != quote) {
            char found[FOUND_MAX];
            size_t size = end - begin;
            if (peek_at(p, begin + size - 1) == '\r') size--;
            status =
                DECK_FAIL(p->source, begin, "%s%%%s: the text %s has no closing %c on its line",
                          key_group(p, assign), key_row(p, assign)->name,
                          hirl_deck_quote_found(p->source->data + begin, size, found), quote);
            goto done;
        }
        p->at = end + 1;
        if (peek(p) != quote) break;
        HIRL_TRY_GOTO(hirl_text_append(&text, "%c", quote), status, done);
        p->at++;
    }
    status = hirl_deck_take_text(p, assign, begin, text.data ? text.data : "", text.size, value);
done:
    hirl_text_reset(&text);
    return status;
}
