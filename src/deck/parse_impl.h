// The parser's state and the helpers that parse.c (grammar), value.c (constants) and message.c (places and complaints)
// share.
#ifndef HIRL_DECK_PARSE_IMPL_H
#define HIRL_DECK_PARSE_IMPL_H

#include "deck_impl.h"

enum { END = -1, FOUND_MAX = 100 };

typedef struct parser {
    const hirl_deck_t *deck;
    const deck_source_t *source;
    deck_script_t *script;
    size_t at;
    uint64_t *given;  // [n_keys] items that this source has named, as bits
    size_t *given_at; // [n_keys] where the key was first named
} parser_t;

static inline int peek_at(const parser_t *p, size_t at) {
    return at < p->source->size ? (unsigned char)p->source->data[at] : END;
}

static inline int peek(const parser_t *p) { return peek_at(p, p->at); }

static inline bool is_blank(int c) { return c == ' ' || c == '\t'; }

static inline bool is_space(int c) { return is_blank(c) || c == '\n' || c == '\r'; }

static inline const char *key_group(const parser_t *p, const deck_assign_t *assign) {
    return p->deck->groups[assign->group]->name;
}

static inline const hirl_key_t *key_row(const parser_t *p, const deck_assign_t *assign) {
    return &p->deck->groups[assign->group]->keys[assign->key];
}

/// Length of the Fortran name at `at`; 0 if there is none.
size_t hirl_deck_name_size(const parser_t *p, size_t at);

// ------------------------------------------------------------------------------------------ message.c

int hirl_deck_line_of(const deck_source_t *source, size_t at);
/// A piece of the source in quotes: short, and without bytes that would upset a terminal.
const char *hirl_deck_quote_found(const char *data, size_t size, char buf[FOUND_MAX]);
/// The character at `at`, or what it is called.
const char *hirl_deck_name_char(const parser_t *p, size_t at, char buf[FOUND_MAX]);
/// "optim%lr: found ..., expected a real number in ..., 0 to 10"
hirl_status_t hirl_deck_fail_value(const parser_t *p, const deck_assign_t *assign, size_t at,
                                   const char *found, const char *hint);
hirl_status_t hirl_deck_fail_unknown_group(const parser_t *p, size_t at, const char *name,
                                           size_t size);
hirl_status_t hirl_deck_fail_unknown_key(const parser_t *p, int group, size_t at, const char *name,
                                         size_t size);

// ------------------------------------------------------------------------------------------ value.c

hirl_status_t hirl_deck_push_value(deck_script_t *script, const deck_value_t *value);
hirl_status_t hirl_deck_push_assign(deck_script_t *script, const deck_assign_t *assign);
/// The same word, in any case of letters.
bool hirl_deck_is_word(const char *data, size_t size, const char *word);
/// What a piece without quotes looks like: "an integer", "a real number", or NULL.
const char *hirl_deck_kind_of(const char *data, size_t size);
/// False if it is no integer; else its value, or that it is too large.
bool hirl_deck_read_integer(const char *data, size_t size, int64_t *value_p, bool *is_overflow_p);
/// A value without quotes, for a key of numbers or logicals.
hirl_status_t hirl_deck_convert_raw(const parser_t *p, const deck_assign_t *assign, size_t at,
                                    size_t size, deck_value_t *value);
/// A text without its quotes; `at` is where it begins in the source.
hirl_status_t hirl_deck_take_text(const parser_t *p, const deck_assign_t *assign, size_t at,
                                  const char *text, size_t size, deck_value_t *value);
/// From the opening quote to past the closing one.
hirl_status_t hirl_deck_read_quoted(parser_t *p, const deck_assign_t *assign, deck_value_t *value);

#endif
