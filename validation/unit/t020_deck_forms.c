// test: ranks=1 timeout=60
// Decks that are to be read, with the values they give, and decks that are to be refused, with the message and its place.
#include "test.h"

#include "../deck/deck_cases.h"

// The line "name = ..." of the values; `name` without group is in num.
static bool has_line(const char *values, const char *line, int size) {
    char want[1024];
    const bool has_group = memchr(line, '%', (size_t)size) != NULL;
    snprintf(want, sizeof want, "\n%s%.*s\n", has_group ? "" : "num%", size, line);
    return strstr(values, want) != NULL;
}

static void check_good(const good_case_t *good) {
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    hirl_status_t status = hirl_deck_read_text(deck, "t.nml", good->deck, strlen(good->deck));
    CHECK_MSG(status == HIRL_OK, "deck '%s': %s", good->deck, hirl_error_text_view());
    hirl_text_t values = {0};
    NEED_OK(hirl_text_append(&values, "\n"));
    NEED_OK(hirl_deck_write_values(deck, &values));
    for (const char *at = good->values; status == HIRL_OK && at;) {
        const char *end = strchr(at, ';');
        const int size = end ? (int)(end - at) : (int)strlen(at);
        CHECK_MSG(has_line(values.data, at, size), "deck '%s': no '%.*s' among the values%s",
                  good->deck, size, at, values.data);
        at = end ? end + 1 : NULL;
    }
    hirl_text_reset(&values);
    hirl_deck_destroy(&deck);
}

static void test_good(void) {
    for (int i = 0; i < CASE_COUNT(GOOD_CASES); i++) {
        if (GOOD_CASES[i].values) check_good(&GOOD_CASES[i]);
    }
}

static void test_bad(void) {
    for (int i = 0; i < CASE_COUNT(BAD_CASES); i++) {
        const bad_case_t *bad = &BAD_CASES[i];
        hirl_deck_t *deck = NULL;
        NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
        hirl_text_t before = {0}, after = {0};
        NEED_OK(hirl_deck_write_values(deck, &before));
        hirl_status_t status = hirl_deck_read_text(deck, "t.nml", bad->deck, strlen(bad->deck));
        CHECK_MSG(status == HIRL_ERR_DECK, "deck '%s' gave '%s' (%s)", bad->deck,
                  hirl_status_text(status), status ? hirl_error_text_view() : "");
        if (status != HIRL_OK) {
            CHECK_MSG(strstr(hirl_error_text_view(), bad->message),
                      "deck '%s': '%s', want something with '%s'", bad->deck,
                      hirl_error_text_view(), bad->message);
        }
        // Outputs are written on success only.
        NEED_OK(hirl_deck_write_values(deck, &after));
        CHECK_EQ_S(after.data, before.data);
        hirl_text_reset(&before);
        hirl_text_reset(&after);
        hirl_deck_destroy(&deck);
    }
}

// The struct's fields, not only what is written of them.
static void test_fields(void) {
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    const case_num_t *num = hirl_deck_group_view(deck, "num");
    const case_txt_t *txt = hirl_deck_group_view(deck, "TXT");
    NEED(num && txt);
    CHECK(hirl_deck_group_view(deck, "nothing") == NULL);
    CHECK_EQ_I(num->n, 10);
    CHECK_EQ_I(num->n_w, 3);
    CHECK_EQ_I(num->w[1], 10000);
    CHECK_EQ_I(num->n_v, 0);
    CHECK(num->m && !num->l);
    CHECK(num->tau == 0.07);
    CHECK_EQ_S(txt->s, "def");
    CHECK_EQ_S(txt->need, "");
    CHECK(!hirl_deck_is_set(deck, "num", "n"));
    const char *text = "&num n=20 w=7,8 l=T r=2*0.1 x= /\n&txt c='a','bc' /\n";
    NEED_OK(hirl_deck_read_text(deck, "t.nml", text, strlen(text)));
    CHECK_EQ_I(num->n, 20);
    CHECK_EQ_I(num->n_w, 2);
    CHECK_EQ_I(num->w[0], 7);
    CHECK_EQ_I(num->w[1], 8);
    CHECK_EQ_I(num->w[2], 0);
    CHECK_EQ_I(num->n_r, 2);
    CHECK(num->r[1] == 0.1 && num->l);
    CHECK_EQ_I(txt->n_c, 2);
    CHECK_EQ_S(txt->c[1], "bc");
    CHECK(hirl_deck_is_set(deck, "num", "n") && hirl_deck_is_set(deck, "NUM", "W"));
    CHECK(!hirl_deck_is_set(deck, "num", "x")); // a null value sets nothing
    CHECK(!hirl_deck_is_set(deck, "num", "j"));
    CHECK(!hirl_deck_is_set(deck, "num", "nothing") && !hirl_deck_is_set(deck, "nothing", "n"));
    hirl_deck_destroy(&deck);
    CHECK(deck == NULL);
    hirl_deck_destroy(&deck);
    hirl_deck_destroy(NULL);
}

// Mistakes in the tables are found when a deck is made.
static void test_tables(void) {
    typedef struct bad {
        int64_t a;
        double b;
        char c[HIRL_DECK_TEXT_MAX];
    } bad_t;
#define TABLE(message, ...)                                                                     \
    do {                                                                                        \
        const hirl_key_t keys[] = {__VA_ARGS__};                                                \
        const hirl_group_t group = {"bad", "Mistakes.", keys, CASE_COUNT(keys), sizeof(bad_t)}; \
        const hirl_group_t *const groups[] = {&group};                                          \
        hirl_deck_t *deck = NULL;                                                               \
        CHECK_FAILS(hirl_deck_create(groups, 1, &deck), HIRL_ERR_INTERNAL, message);            \
        CHECK(deck == NULL);                                                                    \
    } while (0)
    TABLE("default of bad%a in its key table: bad%a: found '1.5'",
          HIRL_ROW_INT(bad_t, a, "1.5", 0, 9, "", ""));
    TABLE("found '10' (out of range), expected an integer, 0 to 9",
          HIRL_ROW_INT(bad_t, a, "10", 0, 9, "", ""));
    TABLE("key 'a' allows no number", HIRL_ROW_INT(bad_t, a, "1", 9, 0, "", ""));
    TABLE("key 'a' appears twice", HIRL_ROW_INT(bad_t, a, "1", 0, 9, "", ""),
          HIRL_ROW_INT(bad_t, a, "1", 0, 9, "", ""));
    TABLE("found 'y', expected one of 'x'", HIRL_ROW_TEXT(bad_t, c, "'y'", "x", ""));
    TABLE("cannot have its group's name", {"bad", HIRL_KEY_INT, 0, 0, "1", 0, 9, NULL, "", ""});
    TABLE("'Upper' is not a lower-case Fortran name",
          {"Upper", HIRL_KEY_INT, 0, 0, "1", 0, 9, NULL, "", ""});
    TABLE("'_a' is not a lower-case Fortran name",
          {"_a", HIRL_KEY_INT, 0, 0, "1", 0, 9, NULL, "", ""});
    TABLE("lies outside its struct",
          {"a", HIRL_KEY_INT, sizeof(bad_t) - 4, 0, "1", 0, 9, NULL, "", ""});
    TABLE("lies outside its struct", {"a", HIRL_KEY_INT_LIST, 24, 0, "1", 0, 9, NULL, "", ""});
    TABLE("a Fortran reader takes it for a logical value",
          {"t", HIRL_KEY_INT, 0, 0, "1", 0, 9, NULL, "", ""},
          {"l", HIRL_KEY_BOOL, 8, 0, "F", 0, 0, NULL, "", ""});
    TABLE("has choices but is no text",
          {"b", HIRL_KEY_REAL, offsetof(bad_t, b), 0, "1", 0, 9, "x|y", "", ""});
    TABLE("has no closing ' on its line",
          {"c", HIRL_KEY_TEXT, offsetof(bad_t, c), 0, "'x", 0, 0, NULL, "", ""});
#undef TABLE
    hirl_deck_t *deck = NULL;
    CHECK_FAILS(hirl_deck_create(NULL, 0, &deck), HIRL_ERR_ARG, "at least one group");
    const hirl_group_t *const twice[] = {&CASE_NUM, &CASE_NUM};
    CHECK_FAILS(hirl_deck_create(twice, 2, &deck), HIRL_ERR_INTERNAL, "group 'num' has two tables");
}

TEST_MAIN {
    RUN(test_good);
    RUN(test_bad);
    RUN(test_fields);
    RUN(test_tables);
}
