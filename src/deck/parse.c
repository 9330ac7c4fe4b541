// From the text of a deck to a script of typed, range-checked assignments, by the rules of Fortran namelists as gfortran
// applies them. What gfortran takes in a way that nobody would expect is refused here: whatever this reader accepts, a
// gfortran program reads with the same values. Refused for that reason: text after '/' or between groups, a key without
// '=', a text or a comma that runs on in the next line, and values after a comment that follows a comma (gfortran puts
// a null value there). Refused because nobody means them: repeated keys, numbers as texts, reals that overflow.
#include "deck_impl.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct parser {
    const hirl_deck_t *deck;
    const deck_source_t *source;
    deck_script_t *script;
    size_t at;
    uint64_t *given;  // [n_keys] items that this source has named, as bits
    size_t *given_at; // [n_keys] where the key was first named
} parser_t;

enum { END = -1, FOUND_MAX = 100, NUMBER_MAX = 256 };

static int peek_at(const parser_t *p, size_t at) {
    return at < p->source->size ? (unsigned char)p->source->data[at] : END;
}

static int peek(const parser_t *p) { return peek_at(p, p->at); }

static bool is_blank(int c) { return c == ' ' || c == '\t'; }

static bool is_space(int c) { return is_blank(c) || c == '\n' || c == '\r'; }

// Length of the Fortran name at `at`; 0 if there is none.
static size_t name_size(const parser_t *p, size_t at) {
    size_t size = 0;
    if (!isalpha(peek_at(p, at) == END ? 0 : peek_at(p, at))) return 0;
    for (;; size++) {
        const int c = peek_at(p, at + size);
        if (c == END || !(isalnum(c) || c == '_')) return size;
    }
}

// ------------------------------------------------------------------------------------------ messages

static int line_of(const deck_source_t *source, size_t at) {
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
                 line_of(source, at), column);
    }
    return buf;
}

// A piece of the source in quotes for a message: short, and without bytes that would upset a terminal.
static const char *quote_found(const char *data, size_t size, char buf[FOUND_MAX]) {
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
static const char *name_char(const parser_t *p, size_t at, char buf[FOUND_MAX]) {
    const int c = peek_at(p, at);
    if (c == END) return "the end";
    if (c == '\n' || c == '\r') return "the end of the line";
    size_t size = 1;
    while (((unsigned)peek_at(p, at + size) & 0xC0) == 0x80 && size < 4 &&
           peek_at(p, at + size) != END)
        size++;
    return quote_found(p->source->data + at, size, buf);
}

static const char *key_group(const parser_t *p, const deck_assign_t *assign) {
    return p->deck->groups[assign->group]->name;
}

static const hirl_key_t *key_row(const parser_t *p, const deck_assign_t *assign) {
    return &p->deck->groups[assign->group]->keys[assign->key];
}

// "optim%lr: found '1,5' ..., expected a real number in ..., 0 to 10"
static hirl_status_t fail_value(const parser_t *p, const deck_assign_t *assign, size_t at,
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

static hirl_status_t fail_unknown_group(const parser_t *p, size_t at, const char *name,
                                        size_t size) {
    const hirl_deck_t *deck = p->deck;
    char found[FOUND_MAX], copy[DECK_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%.*s", (int)(size < sizeof copy ? size : sizeof copy - 1), name);
    quote_found(name, size, found);
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

static hirl_status_t fail_unknown_key(const parser_t *p, int group, size_t at, const char *name,
                                      size_t size) {
    const hirl_deck_t *deck = p->deck;
    const char *own = deck->group_names[group];
    char found[FOUND_MAX], copy[DECK_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%.*s", (int)(size < sizeof copy ? size : sizeof copy - 1), name);
    quote_found(name, size, found);
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

static hirl_status_t push_value(deck_script_t *script, const deck_value_t *value) {
    void *data = script->values;
    HIRL_TRY(grow(&data, &script->max_values, script->n_values + 1, sizeof *value));
    script->values = data;
    script->values[script->n_values++] = *value;
    return HIRL_OK;
}

static hirl_status_t push_assign(deck_script_t *script, const deck_assign_t *assign) {
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

static bool is_word(const char *data, size_t size, const char *word) {
    return strlen(word) == size && strncasecmp(data, word, size) == 0;
}

// What a piece without quotes looks like, for messages.
static const char *kind_of(const char *data, size_t size) {
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
    const char *kind = why ? why : kind_of(data, size);
    quote_found(data, size, quoted);
    snprintf(found, sizeof found, kind ? "%s (%s)" : "%s", quoted, kind);
    const char *hint = "";
    if (!why && key_item_type(key) == HIRL_KEY_TEXT) {
        hint = "; texts need quotes";
    } else if (!why && kind && key_item_type(key) == HIRL_KEY_BOOL) {
        hint = "; numbers are no logical values";
    }
    return fail_value(p, assign, at, found, hint);
}

static bool read_integer(const char *data, size_t size, int64_t *value_p, bool *is_overflow_p) {
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
    if (is_word(data + i, size - i, "inf") || is_word(data + i, size - i, "infinity")) {
        *value_p = is_negative ? -INFINITY : INFINITY;
        return true;
    }
    if (size - i >= 3 && is_word(data + i, 3, "nan")) {
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
        if (is_word(data, size, TRUE_WORDS[i])) return *value_p = true, true;
        if (is_word(data, size, FALSE_WORDS[i])) return *value_p = false, true;
    }
    return false;
}

// A value without quotes for a key of numbers or logicals.
static hirl_status_t convert_raw(const parser_t *p, const deck_assign_t *assign, size_t at,
                                 size_t size, deck_value_t *value) {
    const hirl_key_t *key = key_row(p, assign);
    const char *data = p->source->data + at;
    bool is_overflow = false;
    long double number = 0;
    switch (key_item_type(key)) {
        case HIRL_KEY_INT:
            if (!read_integer(data, size, &value->integer, &is_overflow))
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
static hirl_status_t take_text(const parser_t *p, const deck_assign_t *assign, size_t at,
                               const char *text, size_t size, deck_value_t *value) {
    const hirl_key_t *key = key_row(p, assign);
    char found[FOUND_MAX + 64], quoted[FOUND_MAX];
    // Fortran pads texts with blanks, so blanks at the end say nothing.
    while (size > 0 && text[size - 1] == ' ') size--;
    quote_found(text, size, quoted);
    if (size >= HIRL_DECK_TEXT_MAX) {
        snprintf(found, sizeof found, "%s (%zu bytes)", quoted, size);
        return fail_value(p, assign, at, found, "");
    }
    const char *line_end = memchr(text, '\n', size), *group;
    if (line_end) {
        snprintf(found, sizeof found, "%s, a text of several lines", quoted);
        return fail_value(p, assign, at, found, "");
    }
    if (hides_group(p->deck, text, size, &group)) {
        snprintf(found, sizeof found, "%s, where a Fortran program would see the group '%s' begin",
                 quoted, group);
        return fail_value(p, assign, at, found, "; change the text");
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
    return fail_value(p, assign, at, quoted, hint);
}

// From the opening quote to past the closing one; the text goes to `value`.
static hirl_status_t read_quoted(parser_t *p, const deck_assign_t *assign, deck_value_t *value) {
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
                          quote_found(p->source->data + begin, size, found), quote);
            goto done;
        }
        p->at = end + 1;
        if (peek(p) != quote) break;
        HIRL_TRY_GOTO(hirl_text_append(&text, "%c", quote), status, done);
        p->at++;
    }
    status = take_text(p, assign, begin, text.data ? text.data : "", text.size, value);
done:
    hirl_text_reset(&text);
    return status;
}

// ------------------------------------------------------------------------------------------ values of a key

// White space and comments between two pieces.
typedef struct gap {
    bool has_newline;
    bool has_comment; // on the line of the piece before
    size_t comment_at;
} gap_t;

static gap_t skip_gap(parser_t *p) {
    gap_t gap = {0};
    const bool has_lines = p->source->kind == SOURCE_FILE;
    for (;;) {
        const int c = peek(p);
        if (is_space(c)) {
            gap.has_newline |= c == '\n';
            p->at++;
        } else if (c == '!' && has_lines) {
            if (!gap.has_newline) {
                gap.has_comment = true;
                gap.comment_at = p->at;
            }
            while (peek(p) != '\n' && peek(p) != END) p->at++;
        } else {
            return gap;
        }
    }
}

// True if "name =", "name(...) =" or "name%" begins here: the next key, not a value.
static bool is_key_next(const parser_t *p) {
    size_t at = p->at;
    const size_t size = name_size(p, at);
    if (!size) return false;
    at += size;
    while (peek_at(p, at) == '(') {
        while (peek_at(p, at) != ')') {
            if (peek_at(p, at) == '\n' || peek_at(p, at) == END) return false;
            at++;
        }
        at++;
    }
    if (peek_at(p, at) == '%') return true;
    while (is_space(peek_at(p, at))) at++;
    return peek_at(p, at) == '=';
}

static bool ends_value(const parser_t *p, int c) {
    if (c == END || is_space(c) || c == ',') return true;
    return p->source->kind == SOURCE_FILE && (c == '/' || c == '!');
}

// "3*" before a value: sets the count and goes past the '*'. No repeat count: 1, nothing read.
static hirl_status_t read_repeat(parser_t *p, const deck_assign_t *assign, size_t room,
                                 bool is_list, size_t *repeat_p) {
    size_t end = p->at;
    while (peek_at(p, end) != END && isdigit(peek_at(p, end))) end++;
    *repeat_p = 1;
    if (end == p->at || peek_at(p, end) != '*') return HIRL_OK;
    char found[FOUND_MAX];
    quote_found(p->source->data + p->at, end - p->at + 1, found);
    size_t repeat = 0;
    for (size_t i = p->at; i < end; i++) {
        if (repeat <= room) repeat = repeat * 10 + (size_t)(p->source->data[i] - '0');
    }
    const char *group = key_group(p, assign), *key = key_row(p, assign)->name;
    if (repeat == 0) {
        return DECK_FAIL(p->source, p->at,
                         "%s%%%s: a repeat count of zero, found %s, expected at least 1", group,
                         key, found);
    }
    if (repeat > room) {
        return DECK_FAIL(
            p->source, p->at, "%s%%%s: found repeat count %s, expected at most %zu: %s", group, key,
            found, room, is_list ? "there is no room for more items" : "the key takes one value");
    }
    p->at = end + 1;
    *repeat_p = repeat;
    return HIRL_OK;
}

static hirl_status_t fail_too_many(const parser_t *p, const deck_assign_t *assign) {
    const hirl_key_t *key = key_row(p, assign);
    size_t end = p->at + 1;
    while (!ends_value(p, peek_at(p, end))) end++;
    char found[FOUND_MAX];
    quote_found(p->source->data + p->at, end - p->at, found);
    if (!key_is_list(key)) {
        const size_t size = end - p->at;
        const bool is_decimal_comma = key->type == HIRL_KEY_REAL && p->at > 0 &&
                                      p->source->data[p->at - 1] == ',' &&
                                      kind_of(p->source->data + p->at, size);
        const char *hint = is_decimal_comma ? "; decimals are written with a point" : "";
        if (p->source->kind == SOURCE_FILE && name_size(p, p->at)) hint = "; a key needs '='";
        return DECK_FAIL(p->source, p->at, "%s%%%s: found a second value %s, expected one value%s",
                         key_group(p, assign), key->name, found, hint);
    }
    const bool is_item = assign->has_subscript && !assign->is_range;
    return DECK_FAIL(p->source, p->at,
                     "%s%%%s: found one value too many, %s, expected at most %zu here%s",
                     key_group(p, assign), key->name, found, assign->capacity,
                     is_item ? "; several items take a range, as (2:3)" : "");
}

// One value, or the nulls of "3*", `repeat` times; p->at goes past it.
static hirl_status_t read_value(parser_t *p, deck_assign_t *assign) {
    const hirl_key_t *key = key_row(p, assign);
    const bool is_text = key_item_type(key) == HIRL_KEY_TEXT;
    if (assign->n_values >= assign->capacity) return fail_too_many(p, assign);
    size_t repeat;
    const size_t begin = p->at;
    HIRL_TRY(
        read_repeat(p, assign, assign->capacity - assign->n_values, key_is_list(key), &repeat));
    const bool has_repeat = p->at > begin;
    deck_value_t value = {0};
    const int c = peek(p);
    if (has_repeat && ends_value(p, c)) {
        value.is_null = true;
    } else if (c == '\'' || c == '"') {
        if (!is_text) {
            size_t end = p->at + 1;
            while (peek_at(p, end) != c && peek_at(p, end) != '\n' && peek_at(p, end) != END) end++;
            char found[FOUND_MAX + 16], quoted[FOUND_MAX];
            quote_found(p->source->data + p->at + 1, end - p->at - 1, quoted);
            snprintf(found, sizeof found, "the text %s", quoted);
            return fail_value(p, assign, p->at, found, "; leave the quotes out");
        }
        HIRL_TRY(read_quoted(p, assign, &value));
        if (!ends_value(p, peek(p))) {
            char found[FOUND_MAX];
            return DECK_FAIL(
                p->source, p->at,
                "%s%%%s: found %s right after the text, expected a blank, ',' or '/'%s",
                key_group(p, assign), key->name, name_char(p, p->at, found),
                peek(p) == '\'' || peek(p) == '"' ? "" : "; quotes within a text are doubled");
        }
    } else {
        size_t end = p->at;
        while (!ends_value(p, peek_at(p, end))) end++;
        // Without a text key in between, "a/b" would end the group.
        HIRL_TRY(convert_raw(p, assign, p->at, end - p->at, &value));
        p->at = end;
    }
    for (size_t i = 0; i < repeat; i++) HIRL_TRY(push_value(p->script, &value));
    assign->n_values += repeat;
    return HIRL_OK;
}

// All values after '='. Ends before the next key, '/', '&' or the end, whichever comes first.
static hirl_status_t read_values(parser_t *p, deck_assign_t *assign) {
    enum { AFTER_EQUALS, AFTER_COMMA, AFTER_NULL_COMMA, AFTER_VALUE } before = AFTER_EQUALS;
    const hirl_key_t *key = key_row(p, assign);
    const char *group = key_group(p, assign);
    const deck_value_t null_value = {.is_null = true};
    bool is_over = false; // a comment after ',' or '=': gfortran 12 reads a null value there
    size_t over_at = 0;
    assign->value = p->script->n_values;
    assign->n_values = 0;
    for (;;) {
        const gap_t gap = skip_gap(p);
        if (gap.has_comment && before == AFTER_NULL_COMMA) {
            return DECK_FAIL(
                p->source, gap.comment_at,
                "%s%%%s: found a comment after a null value, expected it on a line of its own",
                group, key->name);
        }
        if (gap.has_comment && before != AFTER_VALUE) {
            is_over = true;
            over_at = gap.comment_at;
        }
        const int c = peek(p);
        if (c == END) return HIRL_OK;
        if (p->source->kind == SOURCE_FILE && (c == '/' || c == '&' || is_key_next(p)))
            return HIRL_OK;
        if (is_over) {
            return DECK_FAIL(p->source, over_at,
                             "%s%%%s: found a comment between %s and the next value, where "
                             "gfortran reads a null "
                             "value; expected it after the last value or on a line of its own",
                             group, key->name, assign->n_values ? "','" : "'='");
        }
        if (c != ',') {
            HIRL_TRY(read_value(p, assign));
            before = AFTER_VALUE;
            continue;
        }
        if (gap.has_newline) {
            return DECK_FAIL(p->source, p->at,
                             "%s%%%s: found ',' at the beginning of a line, where gfortran counts "
                             "null values in its "
                             "own way; expected it at the end of the line before",
                             group, key->name);
        }
        p->at++;
        if (before == AFTER_VALUE) {
            before = AFTER_COMMA;
            continue;
        }
        if (assign->n_values >= assign->capacity) {
            return DECK_FAIL(
                p->source, p->at,
                "%s%%%s: found ',' and with it one null value too many, expected at most %zu",
                group, key->name, assign->capacity);
        }
        HIRL_TRY(push_value(p->script, &null_value));
        assign->n_values++;
        before = AFTER_NULL_COMMA;
    }
}

// ------------------------------------------------------------------------------------------ keys and groups

static hirl_status_t fail_subscript(const parser_t *p, const deck_assign_t *assign, size_t at,
                                    const char *why) {
    return DECK_FAIL(p->source, at,
                     "%s%%%s: %s in its subscript, expected an item (2) or a range (2:3) or "
                     "(1:5:2) within 1 to %d",
                     key_group(p, assign), key_row(p, assign)->name, why, HIRL_DECK_LIST_MAX);
}

// An index with its sign; `has_p` says whether there is one.
static hirl_status_t read_index(parser_t *p, const deck_assign_t *assign, bool *has_p,
                                int *index_p) {
    while (is_blank(peek(p))) p->at++;
    const size_t begin = p->at;
    if (peek(p) == '+' || peek(p) == '-') p->at++;
    while (peek(p) != END && isdigit(peek(p))) p->at++;
    *has_p = p->at > begin;
    if (!*has_p) return HIRL_OK;
    int64_t index = 0;
    bool is_overflow = false;
    if (!read_integer(p->source->data + begin, p->at - begin, &index, &is_overflow)) {
        return fail_subscript(p, assign, begin, "found a sign without a number");
    }
    if (is_overflow || index < -HIRL_DECK_LIST_MAX || index > HIRL_DECK_LIST_MAX) {
        return fail_subscript(p, assign, begin, "found a number out of range");
    }
    *index_p = (int)index;
    return HIRL_OK;
}

// "(2)", "(2:3)", "(1:5:2)", "(2:)", "(:3)", "(:)" right after a key; sets first, stride, and how many items it names.
static hirl_status_t read_subscript(parser_t *p, deck_assign_t *assign) {
    const hirl_key_t *key = key_row(p, assign);
    const size_t begin = p->at;
    assign->first = 0;
    assign->stride = 1;
    assign->capacity = key_is_list(key) ? HIRL_DECK_LIST_MAX : 1;
    if (peek(p) != '(') return HIRL_OK;
    if (!key_is_list(key)) {
        return DECK_FAIL(p->source, begin,
                         "%s%%%s: found a subscript, expected '=': the key takes one value",
                         key_group(p, assign), key->name);
    }
    p->at++;
    int bounds[3] = {1, HIRL_DECK_LIST_MAX, 1};
    bool has[3] = {false, false, false};
    int n = 0;
    for (;; n++) {
        if (n == 3) return fail_subscript(p, assign, p->at, "found a third ':'");
        HIRL_TRY(read_index(p, assign, &has[n], &bounds[n]));
        // gfortran takes blanks before ')' after a single index alone.
        if (n == 0 && is_blank(peek(p))) {
            size_t at = p->at;
            while (is_blank(peek_at(p, at))) at++;
            if (peek_at(p, at) == ')') p->at = at;
        }
        if (peek(p) == ')') break;
        if (peek(p) != ':') {
            char found[FOUND_MAX], why[FOUND_MAX + 16];
            snprintf(why, sizeof why, "found %s", name_char(p, p->at, found));
            return fail_subscript(p, assign, p->at, why);
        }
        p->at++;
    }
    p->at++;
    if (n == 0 && !has[0]) return fail_subscript(p, assign, begin, "found nothing");
    if (n == 2 && !(has[0] && has[1] && has[2])) {
        return fail_subscript(p, assign, begin,
                              "found a range with a step that lacks a bound or the step");
    }
    if (bounds[0] < 1 || bounds[1] < 1)
        return fail_subscript(p, assign, begin, "found an item below 1");
    if (bounds[2] == 0) return fail_subscript(p, assign, begin, "found a step of zero");
    const int span = bounds[1] - bounds[0];
    if (n > 0 && (bounds[2] > 0 ? span < 0 : span > 0)) {
        return fail_subscript(p, assign, begin, "found an empty range");
    }
    assign->has_subscript = true;
    assign->first = bounds[0] - 1;
    assign->stride = n == 0 ? 1 : bounds[2];
    assign->is_range = n > 0;
    assign->capacity = n == 0 ? 1 : (size_t)(span / bounds[2]) + 1;
    return HIRL_OK;
}

// Refuses a key, or an item of a list, that this source has given before.
static hirl_status_t check_repeated(parser_t *p, const deck_assign_t *assign) {
    const int index = p->deck->key0[assign->group] + assign->key;
    const hirl_key_t *key = key_row(p, assign);
    uint64_t items = 0;
    if (!assign->has_subscript) {
        items = ~UINT64_C(0);
    } else {
        size_t n = assign->is_range ? assign->capacity : assign->n_values;
        if (n == 0) n = 1;
        for (size_t i = 0; i < n; i++)
            items |= UINT64_C(1) << (assign->first + (int)i * assign->stride);
    }
    const uint64_t again = p->given[index] & items;
    if (!again) {
        if (!p->given[index]) p->given_at[index] = assign->at;
        p->given[index] |= items;
        return HIRL_OK;
    }
    const int line = line_of(p->source, p->given_at[index]);
    if (assign->has_subscript && p->given[index] != ~UINT64_C(0)) {
        return DECK_FAIL(p->source, assign->at,
                         "%s%%%s: item %d is given twice in this file, expected once; see line %d",
                         key_group(p, assign), key->name, __builtin_ctzll(again) + 1, line);
    }
    return DECK_FAIL(p->source, assign->at,
                     "%s%%%s is given twice in this file, expected once; see line %d",
                     key_group(p, assign), key->name, line);
}

// "key = values" inside a group.
static hirl_status_t read_assign(parser_t *p, int group) {
    deck_assign_t assign = {.group = group, .at = p->at};
    char found[FOUND_MAX];
    const size_t size = name_size(p, p->at);
    if (!size) {
        return DECK_FAIL(p->source, p->at, "group '%s': found %s, expected a key or '/'",
                         p->deck->group_names[group], name_char(p, p->at, found));
    }
    const char *name = p->source->data + p->at;
    assign.key = hirl_deck_find_key(p->deck->groups[group], name, size);
    if (assign.key < 0) return fail_unknown_key(p, group, p->at, name, size);
    const hirl_key_t *key = key_row(p, &assign);
    p->at += size;
    HIRL_TRY(read_subscript(p, &assign));
    while (is_space(peek(p))) p->at++;
    if (peek(p) != '=') {
        const char *hint = "";
        if (peek(p) == '%') hint = "; inside a group keys are written without it";
        if (peek(p) == '(')
            hint = "; no blank goes before a subscript, and a text's characters have none";
        if (peek(p) == '!') hint = "; a comment can follow the value";
        return DECK_FAIL(p->source, p->at, "%s%%%s: found %s after the key, expected '='%s",
                         key_group(p, &assign), key->name, name_char(p, p->at, found), hint);
    }
    p->at++;
    HIRL_TRY(read_values(p, &assign));
    HIRL_TRY(check_repeated(p, &assign));
    return push_assign(p->script, &assign);
}

static hirl_status_t fail_open_group(const parser_t *p, size_t at, int group, size_t group_at) {
    char found[FOUND_MAX];
    const char *hint = "";
    if (name_size(p, at + 1) == 3 && is_word(p->source->data + at + 1, 3, "end"))
        hint = " instead of '&end'";
    return DECK_FAIL(
        p->source, at, "found %s inside group '%s' of line %d, expected '/' to end it%s",
        name_char(p, at, found), p->deck->group_names[group], line_of(p->source, group_at), hint);
}

// From '&' to past the '/' that ends the group.
static hirl_status_t read_group(parser_t *p) {
    const size_t begin = p->at;
    char found[FOUND_MAX];
    const size_t size = name_size(p, begin + 1);
    if (!size) {
        return DECK_FAIL(p->source, begin + 1,
                         "found %s after '&', expected the name of a group, as in '&%s'",
                         name_char(p, begin + 1, found), p->deck->group_names[0]);
    }
    const char *name = p->source->data + begin + 1;
    const int group = hirl_deck_find_group(p->deck->groups, p->deck->n_groups, name, size);
    if (group < 0) return fail_unknown_group(p, begin + 1, name, size);
    p->at += 1 + size;
    const int next = peek(p);
    if (next != END && !is_space(next) && next != '/' && next != '!') {
        return DECK_FAIL(p->source, p->at,
                         "found %s right after '&%s', expected a blank or the end of the line",
                         name_char(p, p->at, found), p->deck->group_names[group]);
    }
    for (;;) {
        (void)skip_gap(p);
        const int c = peek(p);
        if (c == '/') break;
        if (c == END || c == '&') return fail_open_group(p, p->at, group, begin);
        HIRL_TRY(read_assign(p, group));
    }
    p->at++;
    while (is_blank(peek(p)) || peek(p) == '\r') p->at++;
    if (peek(p) == END || peek(p) == '\n' || peek(p) == '!') return HIRL_OK;
    return DECK_FAIL(p->source, p->at,
                     "found %s after the '/' that ends group '%s', expected the end of the line "
                     "(gfortran skips the "
                     "rest of it)%s",
                     name_char(p, p->at, found), p->deck->group_names[group],
                     peek(p) == '&' ? "" : "; a text that holds '/' needs quotes");
}

// ------------------------------------------------------------------------------------------ sources

// Refuses what is no text, or too long a line, before anything else looks at it.
static hirl_status_t check_bytes(const deck_source_t *source) {
    size_t line_begin = 0;
    for (size_t i = 0; i < source->size; i++) {
        const unsigned char c = (unsigned char)source->data[i];
        if (c == '\n') {
            line_begin = i + 1;
            continue;
        }
        if (i - line_begin >= DECK_LINE_MAX) {
            return DECK_FAIL(source, line_begin,
                             "found a line of more than %d bytes, expected a Fortran namelist",
                             DECK_LINE_MAX);
        }
        const bool is_line_end = c == '\r' && i + 1 < source->size && source->data[i + 1] == '\n';
        if ((c >= 0x20 && c != 0x7F) || c == '\t' || is_line_end) continue;
        return DECK_FAIL(source, i, "found byte 0x%02x, expected text: a Fortran namelist", c);
    }
    return HIRL_OK;
}

hirl_status_t hirl_deck_parse_file(const hirl_deck_t *deck, const deck_source_t *source,
                                   deck_script_t *script) {
    parser_t p = {.deck = deck, .source = source, .script = script};
    hirl_status_t status = HIRL_OK;
    char found[FOUND_MAX];
    int n_groups = 0;
    HIRL_REQUIRE(source->size <= DECK_FILE_MAX, HIRL_ERR_DECK,
                 "%s: %zu bytes, expected a deck of at most %d", source->name, source->size,
                 DECK_FILE_MAX);
    HIRL_TRY(check_bytes(source));
    if (source->size >= 3 && memcmp(source->data, "\xef\xbb\xbf", 3) == 0)
        p.at = 3; // byte order mark
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->n_keys, &p.given), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->n_keys, &p.given_at), status, done);
    for (;;) {
        (void)skip_gap(&p);
        if (peek(&p) == END) break;
        if (peek(&p) != '&') {
            const char *hint =
                peek(&p) == '$' ? "; groups begin with '&'" : "; comments begin with '!'";
            status =
                DECK_FAIL(source, p.at, "found %s outside of a group, expected '&name ... /'%s",
                          name_char(&p, p.at, found), hint);
            goto done;
        }
        HIRL_TRY_GOTO(read_group(&p), status, done);
        n_groups++;
    }
    if (n_groups == 0) {
        status = DECK_FAIL(source, p.at, "found no group, expected at least one, as in '&%s ... /'",
                           deck->group_names[0]);
    }
done:
    hirl_mem_free(p.given);
    hirl_mem_free(p.given_at);
    return status;
}

// Texts from the command line: as they stand, or in quotes; lists are split at commas.
static hirl_status_t read_plain_texts(parser_t *p, deck_assign_t *assign) {
    const hirl_key_t *key = key_row(p, assign);
    const deck_value_t null_value = {.is_null = true};
    const bool is_list = key_is_list(key);
    assign->value = p->script->n_values;
    for (;;) {
        while (is_blank(peek(p))) p->at++;
        if (peek(p) == END && (is_list || assign->n_values)) return HIRL_OK;
        if (assign->n_values >= assign->capacity) return fail_too_many(p, assign);
        deck_value_t value = {0};
        if (peek(p) == '\'' || peek(p) == '"') {
            HIRL_TRY(read_quoted(p, assign, &value));
            while (is_blank(peek(p))) p->at++;
        } else {
            size_t end = p->at, last = p->at;
            while (peek_at(p, end) != END && !(is_list && peek_at(p, end) == ',')) end++;
            for (last = end; last > p->at && is_blank(peek_at(p, last - 1)); last--) {}
            if (is_list && last == p->at) {
                value = null_value;
            } else {
                HIRL_TRY(
                    take_text(p, assign, p->at, p->source->data + p->at, last - p->at, &value));
            }
            p->at = end;
        }
        HIRL_TRY(push_value(p->script, &value));
        assign->n_values++;
        if (peek(p) == END) return HIRL_OK;
        if (!is_list || peek(p) != ',') {
            char found[FOUND_MAX];
            return DECK_FAIL(p->source, p->at, "%s%%%s: found %s after the text, expected %s",
                             key_group(p, assign), key->name, name_char(p, p->at, found),
                             is_list ? "',' or the end" : "the end");
        }
        p->at++;
    }
}

hirl_status_t hirl_deck_parse_value(const hirl_deck_t *deck, const deck_source_t *source, size_t at,
                                    const deck_assign_t *target, deck_script_t *script) {
    parser_t p = {.deck = deck, .source = source, .script = script, .at = at};
    deck_assign_t assign = *target;
    const hirl_key_t *key = key_row(&p, &assign);
    HIRL_TRY(check_bytes(source));
    if (key_item_type(key) == HIRL_KEY_TEXT) {
        HIRL_TRY(read_plain_texts(&p, &assign));
    } else {
        HIRL_TRY(read_values(&p, &assign));
    }
    bool has_value = false;
    for (size_t i = 0; i < assign.n_values; i++)
        has_value |= !script->values[assign.value + i].is_null;
    if (!has_value) return fail_value(&p, &assign, source->size, "nothing after '='", "");
    return push_assign(script, &assign);
}

hirl_status_t hirl_deck_parse_target(const hirl_deck_t *deck, const deck_source_t *source,
                                     size_t size, deck_assign_t *target) {
    parser_t p = {.deck = deck, .source = source};
    char found[FOUND_MAX];
    while (is_blank(peek(&p))) p.at++;
    const size_t group_at = p.at, n_group = name_size(&p, p.at);
    p.at += n_group;
    if (!n_group || peek(&p) != '%') {
        const char *hint = "";
        hirl_text_t text = {0};
        hirl_status_t status = HIRL_OK;
        for (int g = 0; n_group && g < deck->n_groups && !text.size && status == HIRL_OK; g++) {
            const int k = hirl_deck_find_key(deck->groups[g], source->data + group_at, n_group);
            if (k < 0) continue;
            status = hirl_text_append(&text, "; is it %s%%%s?", deck->group_names[g],
                                      deck->groups[g]->keys[k].name);
        }
        if (text.size) hint = text.data;
        if (status == HIRL_OK) {
            status = DECK_FAIL(source, p.at, "found %s, expected group%%key=value%s",
                               p.at < size ? name_char(&p, p.at, found) : "no '%'", hint);
        }
        hirl_text_reset(&text);
        return status;
    }
    target->group =
        hirl_deck_find_group(deck->groups, deck->n_groups, source->data + group_at, n_group);
    if (target->group < 0)
        return fail_unknown_group(&p, group_at, source->data + group_at, n_group);
    p.at++;
    const size_t n_key = name_size(&p, p.at);
    target->at = p.at;
    if (!n_key) {
        return DECK_FAIL(source, p.at, "found %s after '%%', expected a key of group '%s'",
                         name_char(&p, p.at, found), deck->group_names[target->group]);
    }
    target->key = hirl_deck_find_key(deck->groups[target->group], source->data + p.at, n_key);
    if (target->key < 0)
        return fail_unknown_key(&p, target->group, p.at, source->data + p.at, n_key);
    p.at += n_key;
    HIRL_TRY(read_subscript(&p, target));
    while (is_blank(peek(&p))) p.at++;
    if (p.at != size) {
        return DECK_FAIL(source, p.at, "found %s after the key, expected '='",
                         name_char(&p, p.at, found));
    }
    return HIRL_OK;
}
