// Fuzz target: decks. The input is cut at each byte 0x1e: the first piece is a deck, a further one
// that holds '&' is a base deck (1.nml, 2.nml, ... in the order they come), all others are overrides
// for the command line. What is accepted must be written and read back to the same values, and
// whatever is refused must say why in words that a terminal can show.
#include "fuzz.h"

#include "../../src/app/app_impl.h"

enum { SEPARATOR = 0x1e, PIECES_MAX = 16 };

static const hirl_group_t *const *groups;
static int n_groups;

static void fuzz_begin(void) { groups = hirl_app_groups(&n_groups); }

static hirl_deck_t *make_deck(void) {
    hirl_deck_t *deck = NULL;
    FUZZ_CHECK(hirl_deck_create(groups, n_groups, &deck) == HIRL_OK, "no deck");
    return deck;
}

// All values, without the base deck's name, which a resolved deck leaves out.
static void write_values(const hirl_deck_t *deck, hirl_text_t *text) {
    FUZZ_CHECK(hirl_deck_write_values(deck, text) == HIRL_OK, "values cannot be written");
    char *line = strstr(text->data, "run%base =");
    FUZZ_CHECK(line, "no run%%base");
    char *end = strchr(line, '\n');
    memmove(line, end, strlen(end) + 1);
}

static void check_round_trip(const hirl_deck_t *deck, bool is_full) {
    hirl_text_t text = {0}, values = {0}, again_values = {0}, changes = {0};
    hirl_deck_t *again = make_deck();
    FUZZ_CHECK(hirl_deck_write_text(deck, is_full, &text) == HIRL_OK, "deck cannot be written");
    FUZZ_CHECK(hirl_deck_read_text(again, "again.nml", text.data, text.size) == HIRL_OK,
               "a written deck is refused:\n%s", text.data);
    write_values(deck, &values);
    write_values(again, &again_values);
    FUZZ_CHECK(strcmp(values.data, again_values.data) == 0, "values differ after writing:\n%s",
               text.data);
    FUZZ_CHECK(hirl_deck_changes(again, "same.nml", text.data, &changes) == HIRL_OK,
               "a deck cannot be compared with itself");
    FUZZ_CHECK(changes.size == 0, "a deck differs from itself: %s", changes.data);
    hirl_text_reset(&text);
    hirl_text_reset(&values);
    hirl_text_reset(&again_values);
    hirl_text_reset(&changes);
    hirl_deck_destroy(&again);
}

static void check_refused(hirl_status_t status) {
    fuzz_check_refusal(status);
    FUZZ_CHECK(status == HIRL_ERR_DECK || status == HIRL_ERR_IO, "status '%s'",
               hirl_status_text(status));
    FUZZ_CHECK(fuzz_is_printable(hirl_error_text_view(), false), "a message of several lines");
}

static hirl_status_t override(hirl_deck_t *deck, const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    FUZZ_CHECK(text, "no memory");
    memcpy(text, data, size);
    text[size] = '\0';
    const hirl_status_t status = hirl_deck_override(deck, text);
    free(text);
    return status;
}

static void check_accepted(const hirl_deck_t *deck, bool is_full) {
    hirl_text_t fortran = {0};
    check_round_trip(deck, is_full);
    FUZZ_CHECK(hirl_deck_write_fortran(deck, "deck.nml", &fortran) == HIRL_OK,
               "the Fortran program cannot be written");
    hirl_text_reset(&fortran);
    for (int g = 0; g < n_groups; g++) {
        const hirl_status_t status = hirl_deck_require_group(deck, groups[g]->name);
        if (status != HIRL_OK) check_refused(status);
    }
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const uint8_t *piece[PIECES_MAX];
    size_t piece_size[PIECES_MAX];
    int n_pieces = 0, n_bases = 0;
    for (size_t at = 0; at <= size && n_pieces < PIECES_MAX; at++) {
        const uint8_t *end = at < size ? memchr(data + at, SEPARATOR, size - at) : NULL;
        piece[n_pieces] = data + at;
        piece_size[n_pieces] = end ? (size_t)(end - data) - at : size - at;
        at += piece_size[n_pieces++];
    }
    for (int i = 1; i < n_pieces; i++) {
        char name[16];
        if (!memchr(piece[i], '&', piece_size[i])) continue;
        snprintf(name, sizeof name, "%d.nml", ++n_bases);
        fuzz_save(fuzz_path(name), piece[i], piece_size[i]);
    }
    hirl_deck_t *deck = make_deck();
    hirl_status_t status;
    if (n_bases > 0) { // a file, so that base decks are found beside it
        fuzz_save(fuzz_path("0.nml"), piece[0], piece_size[0]);
        status = hirl_deck_read_file(deck, fuzz_path("0.nml"));
    } else {
        // Ends where the block ends: the sanitizer sees whoever reads on.
        char *text = malloc(piece_size[0] ? piece_size[0] : 1);
        FUZZ_CHECK(text, "no memory");
        memcpy(text, piece[0], piece_size[0]);
        status = hirl_deck_read_text(deck, "fuzz.nml", text, piece_size[0]);
        free(text);
    }
    bool is_changed = status == HIRL_OK;
    if (status != HIRL_OK) check_refused(status);
    for (int i = 1; i < n_pieces; i++) {
        if (memchr(piece[i], '&', piece_size[i])) continue;
        status = override(deck, piece[i], piece_size[i]);
        if (status != HIRL_OK) check_refused(status);
        is_changed |= status == HIRL_OK;
    }
    if (is_changed) check_accepted(deck, size % 2 == 0); // either form, for speed
    hirl_deck_destroy(&deck);
    for (int i = 0; n_bases > 0 && i <= n_bases; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.nml", i);
        (void)unlink(fuzz_path(name));
    }
}

// Every key at its default, and the same after a base deck and overrides.
static void fuzz_write_seeds(void) {
    hirl_deck_t *deck = make_deck();
    hirl_text_t text = {0}, chain = {0};
    FUZZ_CHECK(hirl_deck_write_text(deck, true, &text) == HIRL_OK, "deck cannot be written");
    fuzz_save_seed("full", text.data, text.size);
    FUZZ_CHECK(hirl_text_append(&chain,
                                "&run base = '1.nml' /\n%c&run seed = 7 base = '2.nml'\n/\n%c"
                                "&hirl num_cluster = 3000, 2*200 /\n%coptim%%lr=1d-3%c"
                                "views%%crop_size(2:3)=96,96%crun%%output=a b/'c'",
                                SEPARATOR, SEPARATOR, SEPARATOR, SEPARATOR, SEPARATOR) == HIRL_OK,
               "no memory");
    fuzz_save_seed("chain", chain.data, chain.size);
    hirl_text_reset(&text);
    hirl_text_reset(&chain);
    hirl_deck_destroy(&deck);
}
