// test: ranks=1 timeout=120 needs=gfortran sanitize=no
// The same decks read by gfortran: a program written from the key tables must get the same values from every deck that we
// accept, those of the tables of cases and many made at random, and must refuse what the cases say it refuses.
#include "test.h"

#include "../deck/deck_cases.h"

#include <ctype.h>

enum { N_RANDOM = 1500, OUTPUT_MAX = 1 << 16 };

// The reader, compiled with gfortran's extensions and without: a compiler's options reach into its library.
static char program[2][1100];

static bool write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "wb");
    if (!file) return false;
    const bool is_ok = fputs(text, file) >= 0;
    return fclose(file) == 0 && is_ok;
}

static void build_programs(void) {
    hirl_deck_t *deck = NULL;
    hirl_text_t text = {0};
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    NEED_OK(hirl_deck_write_fortran(deck, NULL, &text));
    char source[1024], command[4096];
    snprintf(source, sizeof source, "%s", test_path("reader.f90"));
    NEED(write_file(source, text.data));
    for (int i = 0; i < 2; i++) {
        snprintf(program[i], sizeof program[i], "%s", test_path(i ? "reader_f2008" : "reader_gnu"));
        snprintf(command, sizeof command, "gfortran -std=%s -J %s -o %s %s", i ? "f2008" : "gnu",
                 test_folder(), program[i], source);
        NEED(system(command) == 0);
    }
    hirl_text_reset(&text);
    hirl_deck_destroy(&deck);
}

// Runs the Fortran program on a deck; false if it refuses. What it prints goes to `output`.
static bool read_with_gfortran(int which, const char *deck, char output[OUTPUT_MAX]) {
    static char path[1024], command[4096];
    snprintf(path, sizeof path, "%s", test_path("t.nml"));
    NEED(write_file(path, deck));
    snprintf(command, sizeof command, "%s %s 2>/dev/null", program[which], path);
    FILE *pipe = popen(command, "r");
    NEED(pipe != NULL);
    const size_t size = fread(output, 1, OUTPUT_MAX - 1, pipe);
    output[size] = '\0';
    return pclose(pipe) == 0;
}

// True if both printed the same, except that gfortran knows no list's length and prints items left over from the default.
static bool is_same(const char *ours, const char *theirs) {
    while (*ours && *theirs) {
        const size_t n = strcspn(ours, "\n"), m = strcspn(theirs, "\n");
        if (n > m || memcmp(ours, theirs, n) != 0 ||
            (m > n && theirs[n] != ',' && theirs[n - 1] != '=')) {
            printf("ours: %.*s\ngfortran: %.*s\n", (int)n, ours, (int)m, theirs);
            return false;
        }
        ours += n + (ours[n] != '\0');
        theirs += m + (theirs[m] != '\0');
    }
    return !*ours && !*theirs;
}

// Reads a deck with both; true if we accept it.
static bool compare(const char *text) {
    static char output[OUTPUT_MAX];
    hirl_deck_t *deck = NULL;
    hirl_text_t values = {0};
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    const bool is_ok = hirl_deck_read_text(deck, "t.nml", text, strlen(text)) == HIRL_OK;
    if (is_ok) {
        NEED_OK(hirl_deck_write_values(deck, &values));
        for (int which = 0; which < 2; which++) {
            const bool is_read = read_with_gfortran(which, text, output);
            CHECK_MSG(is_read, "gfortran refuses the deck '%s': %s", text, output);
            CHECK_MSG(!is_read || is_same(values.data, output),
                      "gfortran reads other values from '%s'", text);
        }
    }
    hirl_text_reset(&values);
    hirl_deck_destroy(&deck);
    return is_ok;
}

static void test_good(void) {
    for (int i = 0; i < CASE_COUNT(GOOD_CASES); i++) {
        if (!GOOD_CASES[i].values) continue;
        // gfortran wants the last line ended.
        char text[2048];
        snprintf(text, sizeof text, "%s\n", GOOD_CASES[i].deck);
        CHECK_MSG(compare(text), "deck '%s' is refused", text);
    }
}

static void test_bad(void) {
    static char output[OUTPUT_MAX];
    for (int i = 0; i < CASE_COUNT(BAD_CASES); i++) {
        const bad_case_t *bad = &BAD_CASES[i];
        for (int which = 0; which < 2 && bad->gfortran != UNASKED; which++) {
            const bool want = bad->gfortran == TAKES || (bad->gfortran == STANDARD && which == 0);
            const bool is_read = read_with_gfortran(which, bad->deck, output);
            CHECK_MSG(is_read == want, "gfortran %s the deck '%s'", is_read ? "takes" : "refuses",
                      bad->deck);
        }
    }
}

// ------------------------------------------------------------------------------------ random decks

static const char *pick(hirl_rng_t *rng, const char *const *from, int n) {
    return from[hirl_rng_below(rng, n)];
}
#define PICK(rng, table) pick(rng, table, CASE_COUNT(table))

static const char *const INT_VALUES[] = {"1",   "-3",  "+7",  "42",  "007",
                                         "2*5", "3*8", "1*4", "100", "9"};
static const char *const REAL_VALUES[] = {"1",        "-3.5",   ".5",    "2.",    "1d2",   "1E-3",
                                          "inf",      "-inf",   "nan",   "2*1.5", "1.5-3", "+4q0",
                                          "INFINITY", "NaN(1)", "1*inf", "0.1",   "2*nan"};
static const char *const BOOL_VALUES[] = {"T", "F",    ".true.", ".false.", "t",
                                          "f", "true", ".f",     "1*T"};
static const char *const TEXT_VALUES[] = {
    "'a'",     "\"b\"",   "'it''s'", "''",    "'a,b'",
    "'x y /'", "'!'",     "2*'r'",   "' = '", "\"say \"\"it\"\"\"",
    "'tr  '",  "1*\"q\"", "'&'",     "'$a'"};
static const char *const ANY_VALUES[] = {"2*",  "1*",  "3*", "",  "*", "4 5", "x",
                                         "'t'", "1.5", "T",  "-", "/", "&",   "5*9"};
static const char *const SEPARATORS[] = {" ",
                                         ",",
                                         ", ",
                                         " ,",
                                         "\n",
                                         ",\n",
                                         " , \n ",
                                         "\t",
                                         "\r\n",
                                         "  ",
                                         ",,",
                                         ", ,",
                                         " ! it's\n",
                                         "! c\n",
                                         ",\n! c\n",
                                         "\n! c, d\n",
                                         ",! c\n",
                                         ", ! c\n",
                                         "\n,",
                                         ",,,",
                                         ",\n,",
                                         "\n\n",
                                         " \n \n ! c\n\n! d\n "};
static const char *const EQUALS[] = {
    "=", " = ", "= ", " =", "=\n", "\n=", "=\t", " =\n ! c\n", "= ! c\n", "=,", "= ,"};
static const char *const SUBSCRIPTS[] = {"",         "",     "",     "(2)",     "(1:2)", "(2:3)",
                                         "(:)",      "(2:)", "(:2)", "(1:3:2)", "( 2)",  "(2 )",
                                         "(3:1:-1)", "(1)",  "(3)",  "(1: 2)",  "(+2)",  "(4)"};

static void add(hirl_text_t *text, const char *piece) {
    NEED_OK(hirl_text_append(text, "%s", piece));
}

static void add_value(hirl_text_t *text, hirl_key_type_t type, hirl_rng_t *rng) {
    if (hirl_rng_below(rng, 30) == 0) {
        add(text, PICK(rng, ANY_VALUES));
        return;
    }
    switch (type) {
        case HIRL_KEY_INT:
        case HIRL_KEY_INT_LIST: add(text, PICK(rng, INT_VALUES)); break;
        case HIRL_KEY_REAL:
        case HIRL_KEY_REAL_LIST: add(text, PICK(rng, REAL_VALUES)); break;
        case HIRL_KEY_BOOL: add(text, PICK(rng, BOOL_VALUES)); break;
        default: add(text, PICK(rng, TEXT_VALUES)); break;
    }
}

static bool is_list(hirl_key_type_t type) {
    return type == HIRL_KEY_INT_LIST || type == HIRL_KEY_REAL_LIST || type == HIRL_KEY_TEXT_LIST;
}

static void make_deck(hirl_text_t *text, hirl_rng_t *rng) {
    const int n_groups = 1 + (int)hirl_rng_below(rng, 2);
    for (int g = 0; g < n_groups; g++) {
        const hirl_group_t *group = CASE_GROUPS[1 + hirl_rng_below(rng, CASE_N_GROUPS - 1)];
        if (hirl_rng_below(rng, 6) == 0) add(text, "! it's a comment & more\n\n");
        NEED_OK(hirl_text_append(text, "&%s", group->name));
        add(text, hirl_rng_below(rng, 2) ? " " : "\n ");
        const int n_keys = (int)hirl_rng_below(rng, 5);
        for (int i = 0; i < n_keys; i++) {
            const hirl_key_t *key = &group->keys[hirl_rng_below(rng, group->n_keys)];
            add(text, key->name);
            if (is_list(key->type)) add(text, PICK(rng, SUBSCRIPTS));
            add(text, hirl_rng_below(rng, 3) ? "=" : PICK(rng, EQUALS));
            const int n_values =
                is_list(key->type) ? (int)hirl_rng_below(rng, 5) : hirl_rng_below(rng, 8) != 0;
            for (int v = 0; v < n_values; v++) {
                if (v) add(text, hirl_rng_below(rng, 3) ? ", " : PICK(rng, SEPARATORS));
                add_value(text, key->type, rng);
            }
            add(text, PICK(rng, SEPARATORS));
        }
        add(text, hirl_rng_below(rng, 3) ? "/\n" : "/ ! end\n");
    }
}

static void test_random(void) {
    int n_accepted = 0;
    for (int i = 0; i < N_RANDOM; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i);
        hirl_text_t text = {0};
        make_deck(&text, &rng);
        n_accepted += compare(text.data);
        hirl_text_reset(&text);
    }
    printf("random decks = %d, accepted = %d\n", N_RANDOM, n_accepted);
    CHECK(n_accepted > N_RANDOM / 5);
}

TEST_MAIN {
    if (system("gfortran --version >/dev/null 2>&1") != 0) SKIP("gfortran is not installed");
    build_programs();
    RUN(test_good);
    // What is refused, and how nulls are counted around comments, changes between releases; 12 is what the cases say.
    if (system("gfortran -dumpversion | grep -q '^12'") == 0) {
        RUN(test_bad);
    } else {
        printf("gfortran is not of release 12: what it refuses is not compared\n");
    }
    RUN(test_random);
}
