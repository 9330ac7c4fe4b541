// test: ranks=1 timeout=60
// What is written from a deck: the resolved deck reads back to the same bits, as does its short form; the manual's
// examples are decks; the canonical values have the digits that printf gives.
#include "test.h"

#include "../deck/deck_cases.h"

static hirl_deck_t *make_deck(void) {
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    return deck;
}

// Both forms of a deck read back to the same structs, and write the same again.
static void check_round_trip(const hirl_deck_t *deck, const char *what) {
    for (int is_full = 0; is_full < 2; is_full++) {
        hirl_deck_t *again = make_deck();
        hirl_text_t text = {0}, other = {0};
        NEED_OK(hirl_deck_write_text(deck, is_full, &text));
        const hirl_status_t status = hirl_deck_read_text(again, "again.nml", text.data, text.size);
        CHECK_MSG(status == HIRL_OK, "deck '%s' written as '%s': %s", what, text.data,
                  hirl_error_text_view());
        for (int g = 0; g < CASE_N_GROUPS; g++) {
            const char *name = CASE_GROUPS[g]->name;
            // run%base is left out: the deck it names is in the deck that was written.
            const size_t skip = g == 0 ? offsetof(case_run_t, seed) : 0;
            const char *a = hirl_deck_group_view(deck, name),
                       *b = hirl_deck_group_view(again, name);
            CHECK_MSG(memcmp(a + skip, b + skip, CASE_GROUPS[g]->struct_size - skip) == 0,
                      "group %s of the deck '%s' differs when read back from '%s'", name, what,
                      text.data);
        }
        NEED_OK(hirl_deck_write_text(again, is_full, &other));
        CHECK_EQ_S(other.data, text.data);
        hirl_text_reset(&text);
        hirl_text_reset(&other);
        hirl_deck_destroy(&again);
    }
}

static void test_cases(void) {
    for (int i = 0; i < CASE_COUNT(GOOD_CASES); i++) {
        hirl_deck_t *deck = make_deck();
        NEED_OK(hirl_deck_read_text(deck, "t.nml", GOOD_CASES[i].deck, strlen(GOOD_CASES[i].deck)));
        check_round_trip(deck, GOOD_CASES[i].deck);
        hirl_deck_destroy(&deck);
    }
}

// Any bits of a double, given with 17 digits; any text.
static void test_random_values(void) {
    for (int round = 0; round < 60; round++) {
        hirl_rng_t rng = test_rng((uint64_t)round);
        hirl_deck_t *deck = make_deck();
        hirl_text_t text = {0};
        double want[HIRL_DECK_LIST_MAX];
        NEED_OK(hirl_text_append(&text, "&num r = "));
        const int n = 1 + (int)hirl_rng_below(&rng, HIRL_DECK_LIST_MAX);
        for (int i = 0; i < n; i++) {
            const uint64_t bits = hirl_rng_u64(&rng);
            memcpy(&want[i], &bits, sizeof bits);
            if (isnan(want[i])) want[i] = NAN;
            if (isinf(want[i])) want[i] = 1.0 / 3;
            NEED_OK(hirl_text_append(&text, "%s%.17g", i ? ",\n" : "", want[i]));
        }
        NEED_OK(hirl_text_append(&text, "\n/\n&txt s = '"));
        char want_text[HIRL_DECK_TEXT_MAX] = "";
        const int size = (int)hirl_rng_below(&rng, HIRL_DECK_TEXT_MAX);
        for (int i = 0; i < size; i++) {
            int c = 0x20 + (int)hirl_rng_below(&rng, 0xE0);
            if (c == 0x7F || (i == size - 1 && c == ' ')) c = '\'';
            want_text[i] = (char)c;
            NEED_OK(hirl_text_append(&text, c == '\'' ? "''" : "%c", c));
        }
        NEED_OK(hirl_text_append(&text, "' /\n"));
        NEED_OK(hirl_deck_read_text(deck, "t.nml", text.data, text.size));
        const case_num_t *num = hirl_deck_group_view(deck, "num");
        const case_txt_t *txt = hirl_deck_group_view(deck, "txt");
        CHECK_EQ_I(num->n_r, n);
        CHECK_BITS(num->r, want, (size_t)n * sizeof *want);
        CHECK_EQ_S(txt->s, want_text);
        check_round_trip(deck, text.data);
        hirl_text_reset(&text);
        hirl_deck_destroy(&deck);
    }
}

// Numbers are written as people would.
static void test_short_numbers(void) {
    hirl_deck_t *deck = make_deck();
    const char *text = "&num r = 3d-2, 0.1, 1e5, 100, 1d22, -0., .5 x = 1d-5 i=5 w = 30000, 10000 "
                       "/\n&txt need='it''s' /\n";
    NEED_OK(hirl_deck_read_text(deck, "t.nml", text, strlen(text)));
    hirl_text_t written = {0};
    NEED_OK(hirl_deck_write_text(deck, false, &written));
    CHECK_EQ_S(
        written.data,
        "! Resolved deck: the keys that differ from their defaults.\n\n&num\n  i = 5\n"
        "  x = 1e-05\n  w = 30000, 10000\n  r = 0.03, 0.1, 100000, 100, 1e+22, -0, 0.5\n/\n\n"
        "&txt\n  need = 'it''s'\n/\n");
    hirl_text_reset(&written);
    hirl_deck_destroy(&deck);
}

static void test_full(void) {
    hirl_deck_t *deck = make_deck();
    hirl_text_t text = {0};
    NEED_OK(hirl_deck_write_text(deck, true, &text));
    CHECK_HAS(text.data, "\n! Numbers.\n&num\n");
    CHECK_HAS(text.data, "  ! Some epochs. (integer in epochs, 1 to 100; default: 10)\n  n = 10\n");
    CHECK_HAS(text.data, "  ! One of a few. (text, one of 'none', 'linear', 'sqrt'; default: "
                         "'none')\n  mode = 'none'\n");
    CHECK_HAS(text.data, "; required)\n  ! need is required, and not given\n");
    CHECK_HAS(text.data, "; default: an empty list)\n  ! v is an empty list\n");
    CHECK(strstr(text.data, "base") == NULL);
    // All defaults: the short form is still a deck.
    text.size = 0;
    NEED_OK(hirl_deck_write_text(deck, false, &text));
    CHECK_HAS(text.data, "&run\n/\n");
    check_round_trip(deck, "defaults");
    hirl_text_reset(&text);
    hirl_deck_destroy(&deck);
}

static void test_values(void) {
    hirl_deck_t *deck = make_deck();
    const char *text = "&num x=0.1 r=1d100,-1d-300,inf,nan v=1,2 i=-7 l=T /\n";
    NEED_OK(hirl_deck_read_text(deck, "t.nml", text, strlen(text)));
    hirl_text_t values = {0};
    NEED_OK(hirl_deck_write_values(deck, &values));
    CHECK_HAS(values.data, "run%base = ''\nrun%seed = 1\nnum%i = -7\n");
    CHECK_HAS(values.data, "num%x = 1.0000000000000001E-001\n");
    CHECK_HAS(values.data, "num%r = 1.0000000000000000E+100, -1.0000000000000000E-300, inf, nan\n");
    CHECK_HAS(values.data, "num%v = 1, 2\nnum%w = 30000, 10000, 1000\n");
    CHECK_HAS(
        values.data,
        "num%l = T\nnum%m = T\ntxt%s = 'def'\ntxt%mode = 'none'\ntxt%need = (not set)\ntxt%c =\n");
    hirl_text_reset(&values);
    hirl_deck_destroy(&deck);
}

// Every key's description ends with an example that is a deck.
static void test_describe(void) {
    hirl_text_t text = {0};
    for (int g = 0; g < CASE_N_GROUPS; g++) {
        for (int k = 0; k < CASE_GROUPS[g]->n_keys; k++) {
            char what[256];
            snprintf(what, sizeof what, "%s%%%s", CASE_GROUPS[g]->name,
                     CASE_GROUPS[g]->keys[k].name);
            text.size = 0;
            NEED_OK(hirl_deck_describe(CASE_GROUPS, CASE_N_GROUPS, what, &text));
            CHECK(strncmp(text.data, what, strlen(what)) == 0);
            CHECK_HAS(text.data, CASE_GROUPS[g]->keys[k].help);
            const char *example = strrchr(text.data, '&');
            NEED(example != NULL);
            hirl_deck_t *deck = make_deck();
            CHECK_MSG(hirl_deck_read_text(deck, "example", example, strlen(example)) == HIRL_OK,
                      "%s: %s", what, hirl_error_text_view());
            hirl_deck_destroy(&deck);
        }
    }
    text.size = 0;
    NEED_OK(hirl_deck_describe(CASE_GROUPS, CASE_N_GROUPS, "num%w", &text));
    CHECK_EQ_S(
        text.data,
        "num%w\n  type      integers in clusters, 1 to 1000000000\n  default   30000,10000,1000\n"
        "  items     at most 64\n  Clusters of each level.\n  deck      &num w = 30000,10000,1000 "
        "/\n");
    text.size = 0;
    NEED_OK(hirl_deck_describe(CASE_GROUPS, CASE_N_GROUPS, "&TXT", &text));
    CHECK_EQ_S(
        text.data,
        "&txt\n  Texts.\n\n"
        "  s      'def'             text\n         Any text.\n"
        "  mode   'none'            text, one of 'none', 'linear', 'sqrt'\n         One of a few.\n"
        "  need   (required)        text\n         A text without a default.\n"
        "  c      an empty list     texts\n         Any texts.\n"
        "  count  0                 integer in samples, 0 to 1000000\n         A number among "
        "texts.\n");
    text.size = 0;
    NEED_OK(hirl_deck_describe(CASE_GROUPS, CASE_N_GROUPS, NULL, &text));
    for (int g = 0; g < CASE_N_GROUPS; g++) {
        for (int k = 0; k < CASE_GROUPS[g]->n_keys; k++)
            CHECK_HAS(text.data, CASE_GROUPS[g]->keys[k].name);
    }
    CHECK_FAILS(hirl_deck_describe(CASE_GROUPS, CASE_N_GROUPS, "nums", &text), HIRL_ERR_ARG,
                "the nearest is 'num'");
    CHECK_FAILS(hirl_deck_describe(CASE_GROUPS, CASE_N_GROUPS, "txt%modes", &text), HIRL_ERR_ARG,
                "group 'txt' has no key 'modes'; the nearest is 'mode'");
    hirl_text_reset(&text);
}

TEST_MAIN {
    RUN(test_cases);
    RUN(test_random_values);
    RUN(test_short_numbers);
    RUN(test_full);
    RUN(test_values);
    RUN(test_describe);
}
