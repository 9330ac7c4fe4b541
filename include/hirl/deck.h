/// @file deck.h
/// Input decks: Fortran namelists read into plain structs by way of key tables, with base decks, command-line
/// overrides, and the resolved deck written back. Knows no key itself: modules own their tables.
///
/// Whatever is read here, a gfortran program reads with the same values. Null values (`2*`, `1,,3`) keep what was there.
/// `v = 1,2` replaces a list; `v(2) = 7` and `v(2:3) = 7,8` keep its other items; a list has no gaps. Blanks at the end of
/// a text do not count. Refused although gfortran takes it: a repeated key, text after '/' or between groups, '$' and
/// '&end', a text that runs over a line's end, an unquoted word for a text, words for logicals that only begin with t or f,
/// reals that overflow, and what makes gfortran count null values of its own: a value after a comment that follows ',' or
/// '=', a ',' that begins a line. A file has at most 16 MiB, a line 16384 bytes.
#ifndef HIRL_DECK_H
#define HIRL_DECK_H

#include "hirl/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HIRL_DECK_TEXT_MAX =
        512, // capacity of a text value, with its NUL: declare `char key[HIRL_DECK_TEXT_MAX]`
    HIRL_DECK_LIST_MAX =
        64 // capacity of a list: declare `double key[HIRL_DECK_LIST_MAX]; int n_key;`
};

/// Type of a key and of the struct field it fills.
typedef enum hirl_key_type {
    HIRL_KEY_INT,       // int64_t
    HIRL_KEY_REAL,      // double
    HIRL_KEY_BOOL,      // bool
    HIRL_KEY_TEXT,      // char[HIRL_DECK_TEXT_MAX]
    HIRL_KEY_INT_LIST,  // int64_t[HIRL_DECK_LIST_MAX], count beside it
    HIRL_KEY_REAL_LIST, // double[HIRL_DECK_LIST_MAX], count beside it
    HIRL_KEY_TEXT_LIST  // char[HIRL_DECK_LIST_MAX][HIRL_DECK_TEXT_MAX], count beside it
} hirl_key_type_t;

/// One row of a key table: everything that is known about a key. Names are lower-case Fortran names; no key has its group's
/// name, and none is called t or f in a group with logicals (a Fortran reader would take it for a value).
typedef struct hirl_key {
    const char *name; // = struct field = log key, lower case
    hirl_key_type_t type;
    size_t offset;       // of the field in the group's struct
    size_t count_offset; // of the `int n_<name>` field; lists only
    const char *
        default_text; // as one would write it in a deck ("0.03", "'cifar'", "30000,10000"); NULL: required; "" with a list type: empty list
    double min,
        max; // inclusive range of numbers (of each item of a list); of list lengths nothing is said here
    const char *choices; // allowed texts "none|linear|sqrt", or NULL
    const char *unit;    // "", "epochs", "pixels", "samples", ...
    const char *help;    // one or two sentences
} hirl_key_t;

/// A group: `&name ... /` and the struct it fills.
typedef struct hirl_group {
    const char *name;
    const char *help;
    const hirl_key_t *keys;
    int n_keys;
    size_t struct_size;
} hirl_group_t;

// Rows. `T` is the struct; the field has the key's name.
#define HIRL_ROW_INT(T, field, default_text, min, max, unit, help) \
    { #field, HIRL_KEY_INT, offsetof(T, field), 0, default_text, min, max, NULL, unit, help }
#define HIRL_ROW_REAL(T, field, default_text, min, max, unit, help) \
    { #field, HIRL_KEY_REAL, offsetof(T, field), 0, default_text, min, max, NULL, unit, help }
#define HIRL_ROW_BOOL(T, field, default_text, help) \
    { #field, HIRL_KEY_BOOL, offsetof(T, field), 0, default_text, 0, 0, NULL, "", help }
#define HIRL_ROW_TEXT(T, field, default_text, choices, help) \
    { #field, HIRL_KEY_TEXT, offsetof(T, field), 0, default_text, 0, 0, choices, "", help }
#define HIRL_ROW_INT_LIST(T, field, default_text, min, max, unit, help)                           \
    {                                                                                             \
#field, HIRL_KEY_INT_LIST, offsetof(T, field), offsetof(T, n_##field), default_text, min, \
            max, NULL, unit, help                                                                 \
    }
#define HIRL_ROW_REAL_LIST(T, field, default_text, min, max, unit, help)                           \
    {                                                                                              \
#field, HIRL_KEY_REAL_LIST, offsetof(T, field), offsetof(T, n_##field), default_text, min, \
            max, NULL, unit, help                                                                  \
    }
#define HIRL_ROW_TEXT_LIST(T, field, default_text, help)                                         \
    {                                                                                            \
#field, HIRL_KEY_TEXT_LIST, offsetof(T, field), offsetof(T, n_##field), default_text, 0, \
            0, NULL, "", help                                                                    \
    }

typedef struct hirl_deck hirl_deck_t;

/// An empty deck that knows these groups (HIRL_BORROW: the tables are static). All keys start at their defaults.
/// Not collective, like everything here: each rank reads the deck itself and the caller agrees on the outcome.
hirl_status_t hirl_deck_create(const hirl_group_t *const *groups, int n_groups,
                               hirl_deck_t **deck_p);
void hirl_deck_destroy(hirl_deck_t **deck);

/// Reads a file; `run%base = 'other.nml'` in it (path relative to the file) is read first (chains allowed, cycles are an error);
/// the file's own keys then override. Within one file a repeated key is an error; a group may appear several times as long as
/// no key repeats. Errors (HIRL_ERR_DECK): "file:line:column: text, what was expected, nearest valid name"; HIRL_ERR_IO if it can't be read.
hirl_status_t hirl_deck_read_file(hirl_deck_t *deck, const char *path);

/// Same from memory; `name` stands for the file in messages.
hirl_status_t hirl_deck_read_text(hirl_deck_t *deck, const char *name, const char *text,
                                  size_t size);

/// One command-line override, "group%key=value"; texts may be given without quotes; later ones win over earlier ones and over files.
hirl_status_t hirl_deck_override(hirl_deck_t *deck, const char *assignment);

/// After all files and overrides: every required key of group `name` must have a value. Errors: HIRL_ERR_DECK naming the missing group or key.
hirl_status_t hirl_deck_require_group(const hirl_deck_t *deck, const char *name);

/// The struct of a group, valid until the deck is destroyed; NULL if there is no such group.
const void *hirl_deck_group_view(const hirl_deck_t *deck, const char *name);

/// True if a file or an override set the key.
bool hirl_deck_is_set(const hirl_deck_t *deck, const char *group, const char *key);

/// The resolved deck as a namelist that reads back to the same values: every key with its help as comment (`is_full`), or only those that
/// differ from the default. Floating-point values round-trip. run%base is left out, being resolved.
hirl_status_t hirl_deck_write_text(const hirl_deck_t *deck, bool is_full, hirl_text_t *text);

/// Every key of every group as a line "group%key = value", in the order of the tables: reals with 17 digits as Fortran's
/// ES24.16E3 writes them, texts in quotes, lists separated by ", ", "(not set)" for what has no value. For comparison.
hirl_status_t hirl_deck_write_values(const hirl_deck_t *deck, hirl_text_t *text);

/// What differs from the deck in `old_text` (`name` stands for it in messages), a line "group%key: old -> new" each, values as
/// in a namelist. Errors: HIRL_ERR_DECK if the text is no deck of these groups.
hirl_status_t hirl_deck_changes(const hirl_deck_t *deck, const char *name, const char *old_text,
                                hirl_text_t *text);

/// A Fortran program that reads this deck and its base decks with read(unit, nml=...) and prints what
/// hirl_deck_write_values writes, apart from overrides, which it cannot know. `deck_path` stands for the deck itself;
/// NULL: the path it was read from. Arguments of the Fortran program, if there are any, are decks to read instead. Lists
/// are printed to the length they have here; if this deck has read no file, to the last item with a value.
hirl_status_t hirl_deck_write_fortran(const hirl_deck_t *deck, const char *deck_path,
                                      hirl_text_t *text);

/// Manual text: all groups (what == NULL), one group ("optim"), or one key ("optim%lr").
hirl_status_t hirl_deck_describe(const hirl_group_t *const *groups, int n_groups, const char *what,
                                 hirl_text_t *text);

#ifdef __cplusplus
}
#endif
#endif
