// What the files of this folder share. A deck file goes through three stages: parse.c turns its text into a script
// (typed values with places, nothing applied), apply.c writes a script into group structs, read.c loads files, follows
// base decks and commits. Positions are byte offsets into the source; lines and columns are counted only for messages.
#ifndef HIRL_DECK_IMPL_H
#define HIRL_DECK_IMPL_H

#include "hirl/deck.h"

enum {
    DECK_FILE_MAX = 16 << 20, // bytes of one file
    DECK_LINE_MAX = 16384,    // bytes of one line
    DECK_NAME_MAX = 63,       // characters of a Fortran name
    DECK_CHAIN_MAX = 16       // files of a chain of base decks
};

// A list's items that hold a value are kept as bits.
_Static_assert(HIRL_DECK_LIST_MAX <= 64, "the items of a list fit into the bits of a word");

typedef enum source_kind {
    SOURCE_FILE,     // a deck: keys and values
    SOURCE_OVERRIDE, // "group%key=value" from the command line: texts need no quotes
    SOURCE_DEFAULT   // the default of a key table's row, written the same way
} source_kind_t;

/// A text that is read, with what messages call it.
typedef struct deck_source {
    source_kind_t kind;
    const char *name; // path of the deck, or the whole override, or "group%key"
    const char *data;
    size_t size;
} deck_source_t;

typedef struct deck_value {
    bool is_null; // keeps what the item was
    int64_t integer;
    double real;
    bool logical;
    size_t text; // offset into the script's texts
} deck_value_t;

/// One assignment: items `first`, `first + stride`, ... (at most `capacity`) of a key get `n_values` values.
typedef struct deck_assign {
    int group, key;
    int first, stride;
    size_t capacity;
    bool has_subscript, is_range; // "(2)", "(2:3)"
    size_t at;                    // of the key in the source
    size_t value, n_values;
} deck_assign_t;

/// What a source says, checked against the tables.
typedef struct deck_script {
    deck_assign_t *assigns;
    size_t n_assigns, max_assigns;
    deck_value_t *values;
    size_t n_values, max_values;
    char *texts;
    size_t n_texts, max_texts;
} deck_script_t;

typedef struct key_state {
    uint64_t held; // bit i: item i has a value (bit 0 for a scalar)
    bool is_set;   // by a file or an override
} key_state_t;

struct hirl_deck {
    const hirl_group_t **groups;
    int n_groups, n_keys;
    int *key0;                // [n_groups] number of a group's first key
    const char **group_names; // [n_groups] for hirl_text_nearest
    const char **key_names;   // [n_keys]
    size_t *offset;           // [n_groups] of the group's struct in a block
    size_t block_size;
    char *block, *defaults, *scratch;                   // the structs of all groups
    key_state_t *state, *default_state, *scratch_state; // [n_keys]
    char **files;                                       // in the order they were read
    int n_files;
    bool has_override;
};

// ------------------------------------------------------------------------------------------ tables (table.c)

static inline bool key_is_list(const hirl_key_t *key) {
    return key->type == HIRL_KEY_INT_LIST || key->type == HIRL_KEY_REAL_LIST ||
           key->type == HIRL_KEY_TEXT_LIST;
}

/// The type of a list's items; of anything else its own type.
static inline hirl_key_type_t key_item_type(const hirl_key_t *key) {
    switch (key->type) {
        case HIRL_KEY_INT_LIST: return HIRL_KEY_INT;
        case HIRL_KEY_REAL_LIST: return HIRL_KEY_REAL;
        case HIRL_KEY_TEXT_LIST: return HIRL_KEY_TEXT;
        default: return key->type;
    }
}

/// Errors: HIRL_ERR_INTERNAL, naming the row, if a Fortran program could not declare it or its struct cannot hold it.
hirl_status_t hirl_deck_check_tables(const hirl_group_t *const *groups, int n_groups);

/// Index of a name of `size` bytes in any case of letters; -1 if there is none.
int hirl_deck_find_group(const hirl_group_t *const *groups, int n_groups, const char *name,
                         size_t size);
int hirl_deck_find_key(const hirl_group_t *group, const char *name, size_t size);

/// Size in bytes of an item, and the item's address in the group's struct `base`.
size_t hirl_deck_item_size(const hirl_key_t *key);
void *hirl_deck_item(const hirl_key_t *key, void *base, int item);
const void *hirl_deck_item_view(const hirl_key_t *key, const void *base, int item);

/// Number of values a key holds: of a list its length, else 1 or 0.
int hirl_deck_count(const hirl_key_t *key, const key_state_t *state);

/// The struct of a group inside a block.
static inline char *group_base(const hirl_deck_t *deck, char *block, int group) {
    return block + deck->offset[group];
}

/// Appends "an integer in epochs, 0 to 100": what a value of this key must be.
hirl_status_t hirl_deck_append_expected(const hirl_key_t *key, hirl_text_t *text);
/// Appends "0 to 100", "at least 0", "at most 5", or nothing if every number is allowed.
hirl_status_t hirl_deck_append_range(const hirl_key_t *key, hirl_text_t *text);
/// Appends "'none', 'linear', 'sqrt'".
hirl_status_t hirl_deck_append_choices(const hirl_key_t *key, hirl_text_t *text);
/// Appends item `item` of a key as one writes it in a deck; reals in the shortest form that reads back the same.
hirl_status_t hirl_deck_append_item(const hirl_key_t *key, const void *base, int item,
                                    hirl_text_t *text);
/// Appends a text in quotes, quotes within doubled.
hirl_status_t hirl_deck_append_quoted(const char *value, hirl_text_t *text);
/// Appends prose in lines of at most `width` columns, each begun with `indent`; white space runs become one blank.
hirl_status_t hirl_deck_append_wrapped(const char *indent, int width, const char *prose,
                                       hirl_text_t *text);

/// The choice nearest to `value`: copied into `buf`; false if none is near.
bool hirl_deck_nearest_choice(const hirl_key_t *key, const char *value,
                              char buf[HIRL_DECK_TEXT_MAX]);

// ------------------------------------------------------------------------------------------ parse.c, apply.c

/// Reads a whole deck file. The script is to be reset whatever the outcome.
hirl_status_t hirl_deck_parse_file(const hirl_deck_t *deck, const deck_source_t *source,
                                   deck_script_t *script);

/// Reads "group%key" or "group%key(2)", the first `size` bytes of an override, into `target`.
hirl_status_t hirl_deck_parse_target(const hirl_deck_t *deck, const deck_source_t *source,
                                     size_t size, deck_assign_t *target);

/// Reads the value of an override or a default, from offset `at` of the source on. The script is to be reset whatever
/// the outcome.
hirl_status_t hirl_deck_parse_value(const hirl_deck_t *deck, const deck_source_t *source, size_t at,
                                    const deck_assign_t *target, deck_script_t *script);

void hirl_deck_script_reset(deck_script_t *script);

/// Writes a script into a block and its state. After a failure both are in between; callers give a scratch copy.
hirl_status_t hirl_deck_apply(const hirl_deck_t *deck, const deck_source_t *source,
                              const deck_script_t *script, char *block, key_state_t *state);

/// "deck.nml:12:8", or what names the place in an override; returns buf.
enum { DECK_PLACE_MAX = 640 };
char *hirl_deck_place(const deck_source_t *source, size_t at, char buf[DECK_PLACE_MAX]);

/// Records a failure at a place of a source.
#define DECK_FAIL(source, at, fmt, ...)  \
    HIRL_FAIL(HIRL_ERR_DECK, "%s: " fmt, \
              hirl_deck_place((source), (at), (char[DECK_PLACE_MAX]){0}), __VA_ARGS__)

#endif
