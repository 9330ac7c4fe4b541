// From the text of a deck to a script of typed, range-checked assignments, by the rules of Fortran namelists as gfortran
// applies them. What gfortran takes in a way that nobody would expect is refused here: whatever this reader accepts, a
// gfortran program reads with the same values. Refused for that reason: text after '/' or between groups, a key without
// '=', a text or a comma that runs on in the next line, and values after a comment that follows a comma (gfortran puts
// a null value there). Refused because nobody means them: repeated keys, numbers as texts, reals that overflow.
#include "parse_impl.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Length of the Fortran name at `at`; 0 if there is none.
size_t hirl_deck_name_size(const parser_t *p, size_t at) {
    size_t size = 0;
    if (!isalpha(peek_at(p, at) == END ? 0 : peek_at(p, at))) return 0;
    for (;; size++) {
        const int c = peek_at(p, at + size);
        if (c == END || !(isalnum(c) || c == '_')) return size;
    }
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
    const size_t size = hirl_deck_name_size(p, at);
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
    hirl_deck_quote_found(p->source->data + p->at, end - p->at + 1, found);
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
    hirl_deck_quote_found(p->source->data + p->at, end - p->at, found);
    if (!key_is_list(key)) {
        const size_t size = end - p->at;
        const bool is_decimal_comma = key->type == HIRL_KEY_REAL && p->at > 0 &&
                                      p->source->data[p->at - 1] == ',' &&
                                      hirl_deck_kind_of(p->source->data + p->at, size);
        const char *hint = is_decimal_comma ? "; decimals are written with a point" : "";
        if (p->source->kind == SOURCE_FILE && hirl_deck_name_size(p, p->at))
            hint = "; a key needs '='";
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
            hirl_deck_quote_found(p->source->data + p->at + 1, end - p->at - 1, quoted);
            snprintf(found, sizeof found, "the text %s", quoted);
            return hirl_deck_fail_value(p, assign, p->at, found, "; leave the quotes out");
        }
        HIRL_TRY(hirl_deck_read_quoted(p, assign, &value));
        if (!ends_value(p, peek(p))) {
            char found[FOUND_MAX];
            return DECK_FAIL(
                p->source, p->at,
                "%s%%%s: found %s right after the text, expected a blank, ',' or '/'%s",
                key_group(p, assign), key->name, hirl_deck_name_char(p, p->at, found),
                peek(p) == '\'' || peek(p) == '"' ? "" : "; quotes within a text are doubled");
        }
    } else {
        size_t end = p->at;
        while (!ends_value(p, peek_at(p, end))) end++;
        // Without a text key in between, "a/b" would end the group.
        HIRL_TRY(hirl_deck_convert_raw(p, assign, p->at, end - p->at, &value));
        p->at = end;
    }
    for (size_t i = 0; i < repeat; i++) HIRL_TRY(hirl_deck_push_value(p->script, &value));
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
        HIRL_TRY(hirl_deck_push_value(p->script, &null_value));
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
    if (!hirl_deck_read_integer(p->source->data + begin, p->at - begin, &index, &is_overflow)) {
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
            snprintf(why, sizeof why, "found %s", hirl_deck_name_char(p, p->at, found));
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
    const int line = hirl_deck_line_of(p->source, p->given_at[index]);
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
    const size_t size = hirl_deck_name_size(p, p->at);
    if (!size) {
        return DECK_FAIL(p->source, p->at, "group '%s': found %s, expected a key or '/'",
                         p->deck->group_names[group], hirl_deck_name_char(p, p->at, found));
    }
    const char *name = p->source->data + p->at;
    assign.key = hirl_deck_find_key(p->deck->groups[group], name, size);
    if (assign.key < 0) return hirl_deck_fail_unknown_key(p, group, p->at, name, size);
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
                         key_group(p, &assign), key->name, hirl_deck_name_char(p, p->at, found),
                         hint);
    }
    p->at++;
    HIRL_TRY(read_values(p, &assign));
    HIRL_TRY(check_repeated(p, &assign));
    return hirl_deck_push_assign(p->script, &assign);
}

static hirl_status_t fail_open_group(const parser_t *p, size_t at, int group, size_t group_at) {
    char found[FOUND_MAX];
    const char *hint = "";
    if (hirl_deck_name_size(p, at + 1) == 3 &&
        hirl_deck_is_word(p->source->data + at + 1, 3, "end"))
        hint = " instead of '&end'";
    return DECK_FAIL(p->source, at,
                     "found %s inside group '%s' of line %d, expected '/' to end it%s",
                     hirl_deck_name_char(p, at, found), p->deck->group_names[group],
                     hirl_deck_line_of(p->source, group_at), hint);
}

// From '&' to past the '/' that ends the group.
static hirl_status_t read_group(parser_t *p) {
    const size_t begin = p->at;
    char found[FOUND_MAX];
    const size_t size = hirl_deck_name_size(p, begin + 1);
    if (!size) {
        return DECK_FAIL(p->source, begin + 1,
                         "found %s after '&', expected the name of a group, as in '&%s'",
                         hirl_deck_name_char(p, begin + 1, found), p->deck->group_names[0]);
    }
    const char *name = p->source->data + begin + 1;
    const int group = hirl_deck_find_group(p->deck->groups, p->deck->n_groups, name, size);
    if (group < 0) return hirl_deck_fail_unknown_group(p, begin + 1, name, size);
    p->at += 1 + size;
    const int next = peek(p);
    if (next != END && !is_space(next) && next != '/' && next != '!') {
        return DECK_FAIL(p->source, p->at,
                         "found %s right after '&%s', expected a blank or the end of the line",
                         hirl_deck_name_char(p, p->at, found), p->deck->group_names[group]);
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
                     hirl_deck_name_char(p, p->at, found), p->deck->group_names[group],
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
                          hirl_deck_name_char(&p, p.at, found), hint);
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
            HIRL_TRY(hirl_deck_read_quoted(p, assign, &value));
            while (is_blank(peek(p))) p->at++;
        } else {
            size_t end = p->at, last = p->at;
            while (peek_at(p, end) != END && !(is_list && peek_at(p, end) == ',')) end++;
            for (last = end; last > p->at && is_blank(peek_at(p, last - 1)); last--) {}
            if (is_list && last == p->at) {
                value = null_value;
            } else {
                HIRL_TRY(hirl_deck_take_text(p, assign, p->at, p->source->data + p->at,
                                             last - p->at, &value));
            }
            p->at = end;
        }
        HIRL_TRY(hirl_deck_push_value(p->script, &value));
        assign->n_values++;
        if (peek(p) == END) return HIRL_OK;
        if (!is_list || peek(p) != ',') {
            char found[FOUND_MAX];
            return DECK_FAIL(p->source, p->at, "%s%%%s: found %s after the text, expected %s",
                             key_group(p, assign), key->name, hirl_deck_name_char(p, p->at, found),
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
    if (!has_value) return hirl_deck_fail_value(&p, &assign, source->size, "nothing after '='", "");
    return hirl_deck_push_assign(script, &assign);
}

hirl_status_t hirl_deck_parse_target(const hirl_deck_t *deck, const deck_source_t *source,
                                     size_t size, deck_assign_t *target) {
    parser_t p = {.deck = deck, .source = source};
    char found[FOUND_MAX];
    while (is_blank(peek(&p))) p.at++;
    const size_t group_at = p.at, n_group = hirl_deck_name_size(&p, p.at);
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
                               p.at < size ? hirl_deck_name_char(&p, p.at, found) : "no '%'", hint);
        }
        hirl_text_reset(&text);
        return status;
    }
    target->group =
        hirl_deck_find_group(deck->groups, deck->n_groups, source->data + group_at, n_group);
    if (target->group < 0)
        return hirl_deck_fail_unknown_group(&p, group_at, source->data + group_at, n_group);
    p.at++;
    const size_t n_key = hirl_deck_name_size(&p, p.at);
    target->at = p.at;
    if (!n_key) {
        return DECK_FAIL(source, p.at, "found %s after '%%', expected a key of group '%s'",
                         hirl_deck_name_char(&p, p.at, found), deck->group_names[target->group]);
    }
    target->key = hirl_deck_find_key(deck->groups[target->group], source->data + p.at, n_key);
    if (target->key < 0)
        return hirl_deck_fail_unknown_key(&p, target->group, p.at, source->data + p.at, n_key);
    p.at += n_key;
    HIRL_TRY(read_subscript(&p, target));
    while (is_blank(peek(&p))) p.at++;
    if (p.at != size) {
        return DECK_FAIL(source, p.at, "found %s after the key, expected '='",
                         hirl_deck_name_char(&p, p.at, found));
    }
    return HIRL_OK;
}
