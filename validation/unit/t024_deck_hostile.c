// test: ranks=1 timeout=180
// Decks that nobody wrote: thousands of random mutations, and inputs of extreme size. Each is accepted or refused with a
// message that names a place in it; nothing is read outside of it, and what is accepted can be written and read again.
#include "test.h"

#include "../deck/deck_cases.h"

enum { N_MUTATIONS = 5000, N_OVERRIDES = 3000, DECK_MAX = 1 << 14 };

static const char *const DECK = "! A deck of many forms.\n&run\n  seed = 42 ! not 43\n/\n\n&num\n  "
                                "i=1, j = -2\n  n = 100 fx=3 e1 = 4\n  x = 1.5d-3 tau=.5\n"
                                "  inf = -inf,\n  w = 3*7, 4\n      5\n  v(1:5:2)=1,2,3 v(2)=9 "
                                "v(4)=8\n  r = 2*1.5, nan,\n  ! more\n"
                                "  2.5\n  l = T m = .false.\n/\n&txt s = 'it''s' mode=\"sqrt\"\n c "
                                "= 'a', \"b\",'c' 2*'d'\n need = '/data/x' count=7 /\n";

static hirl_deck_t *make_deck(void) {
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    return deck;
}

// "t.nml:line:column: ..." within a text of n_lines lines.
static bool names_place(const char *message, int n_lines) {
    int line = 0, column = 0, end = 0;
    if (sscanf(message, "t.nml:%d:%d: %n", &line, &column, &end) != 2 || end == 0) return false;
    return line >= 1 && line <= n_lines && column >= 1 && message[end] != '\0';
}

static int count_lines(const char *text, size_t size) {
    int n = 1;
    for (size_t i = 0; i < size; i++) n += text[i] == '\n';
    return n;
}

static bool is_printable(const char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F) return false;
    }
    return true;
}

// Reads from a block that ends where the text ends, so that the sanitizer sees whoever reads on.
static bool try_deck(const char *text, size_t size) {
    char *exact = malloc(size ? size : 1);
    NEED(exact != NULL);
    memcpy(exact, text, size);
    hirl_deck_t *deck = make_deck();
    const hirl_status_t status = hirl_deck_read_text(deck, "t.nml", exact, size);
    const int n_lines = count_lines(exact, size);
    free(exact);
    if (status != HIRL_OK) {
        CHECK_MSG(status == HIRL_ERR_DECK || status == HIRL_ERR_IO,
                  "status '%s' for the deck '%.*s'", hirl_status_text(status), (int)size, text);
        CHECK_MSG(names_place(hirl_error_text_view(), n_lines), "no place in '%s'",
                  hirl_error_text_view());
        CHECK_MSG(is_printable(hirl_error_text_view()), "control characters in '%s'",
                  hirl_error_text_view());
    } else {
        hirl_deck_t *again = make_deck();
        hirl_text_t written = {0};
        NEED_OK(hirl_deck_write_text(deck, true, &written));
        CHECK_OK(hirl_deck_read_text(again, "again.nml", written.data, written.size));
        CHECK_BITS(hirl_deck_group_view(again, "num"), hirl_deck_group_view(deck, "num"),
                   sizeof(case_num_t));
        CHECK_BITS(hirl_deck_group_view(again, "txt"), hirl_deck_group_view(deck, "txt"),
                   sizeof(case_txt_t));
        hirl_text_reset(&written);
        hirl_deck_destroy(&again);
    }
    hirl_deck_destroy(&deck);
    return status == HIRL_OK;
}

// A few random edits: bytes changed, removed, put in, pieces repeated or taken from elsewhere.
static size_t mutate(char text[DECK_MAX], size_t size, hirl_rng_t *rng) {
    static const char BYTES[] = "&/=,!'\"*()%:$ \t\r\n0159.eEdD+-tTfFinfa_;\\\0\x01\x7f\xc3\xff";
    const int n_edits = 1 + (int)hirl_rng_below(rng, 4);
    for (int e = 0; e < n_edits && size > 0; e++) {
        const size_t at = (size_t)hirl_rng_below(rng, (int64_t)size);
        size_t n = 1 + (size_t)hirl_rng_below(rng, 12);
        const size_t from = (size_t)hirl_rng_below(rng, (int64_t)size);
        switch (hirl_rng_below(rng, 5)) {
            case 0: text[at] = BYTES[hirl_rng_below(rng, sizeof BYTES)]; break;
            case 1:
                if (n > size - at) n = size - at;
                memmove(text + at, text + at + n, size - at - n);
                size -= n;
                break;
            case 2:
                if (size + 1 > DECK_MAX) break;
                memmove(text + at + 1, text + at, size - at);
                text[at] = BYTES[hirl_rng_below(rng, sizeof BYTES)];
                size++;
                break;
            case 3:
                if (n > size - from) n = size - from;
                if (n > size - at) n = size - at;
                memmove(text + at, text + from, n);
                break;
            default:
                if (hirl_rng_below(rng, 8) == 0) size = at; // cut off
                break;
        }
    }
    return size;
}

static void test_mutations(void) {
    static char text[DECK_MAX];
    int n_accepted = 0;
    CHECK(try_deck(DECK, strlen(DECK)));
    for (int i = 0; i < N_MUTATIONS; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i);
        const int pick = (int)hirl_rng_below(&rng, 3);
        const char *from = DECK;
        if (pick == 1) from = GOOD_CASES[hirl_rng_below(&rng, CASE_COUNT(GOOD_CASES))].deck;
        if (pick == 2) from = BAD_CASES[hirl_rng_below(&rng, CASE_COUNT(BAD_CASES))].deck;
        size_t size = strlen(from);
        memcpy(text, from, size);
        size = mutate(text, size, &rng);
        n_accepted += try_deck(text, size);
    }
    printf("mutations = %d, accepted = %d\n", N_MUTATIONS, n_accepted);
    CHECK(n_accepted > N_MUTATIONS / 50 && n_accepted < N_MUTATIONS * 9 / 10);
}

static void test_overrides(void) {
    static const char *const FROM[] = {"num%w=1,2,3",     "num%x=1d-3",       "txt%c='a',b,\"c\"",
                                       "txt%s=some text", "num%v(1:3:2)=2*7", "num%l=T",
                                       "txt%mode=linear", "num%r=inf,2*nan"};
    static char text[DECK_MAX];
    hirl_deck_t *deck = make_deck();
    int n_accepted = 0;
    for (int i = 0; i < N_OVERRIDES; i++) {
        hirl_rng_t rng = test_rng(1000000 + (uint64_t)i);
        const char *from = FROM[hirl_rng_below(&rng, CASE_COUNT(FROM))];
        strcpy(text, from);
        const size_t size = mutate(text, strlen(from), &rng);
        char *exact = malloc(size + 1);
        NEED(exact != NULL);
        memcpy(exact, text, size);
        exact[size] = '\0';
        const hirl_status_t status = hirl_deck_override(deck, exact);
        n_accepted += status == HIRL_OK;
        CHECK(status == HIRL_OK || status == HIRL_ERR_DECK);
        if (status) CHECK_HAS(hirl_error_text_view(), "command line '");
        if (status) CHECK(is_printable(hirl_error_text_view()));
        free(exact);
    }
    hirl_text_t written = {0};
    NEED_OK(hirl_deck_write_text(deck, false, &written));
    hirl_deck_t *again = make_deck();
    CHECK_OK(hirl_deck_read_text(again, "again.nml", written.data, written.size));
    CHECK_BITS(hirl_deck_group_view(again, "txt"), hirl_deck_group_view(deck, "txt"),
               sizeof(case_txt_t));
    CHECK(n_accepted > N_OVERRIDES / 50 && n_accepted < N_OVERRIDES * 9 / 10);
    hirl_text_reset(&written);
    hirl_deck_destroy(&again);
    hirl_deck_destroy(&deck);
}

// A text of `size` bytes: `head`, then `piece` again and again.
static char *make_text(const char *head, const char *piece, size_t size) {
    char *text = malloc(size);
    NEED(text != NULL);
    const size_t n_head = strlen(head), n_piece = strlen(piece);
    for (size_t i = 0; i < size; i++)
        text[i] = i < n_head ? head[i] : piece[(i - n_head) % n_piece];
    return text;
}

static void check_size(const char *head, const char *piece, size_t size, const char *message) {
    char *text = make_text(head, piece, size);
    hirl_deck_t *deck = make_deck();
    const double begin = hirl_time_now();
    const hirl_status_t status = hirl_deck_read_text(deck, "t.nml", text, size);
    CHECK_MSG(message ? status == HIRL_ERR_DECK && strstr(hirl_error_text_view(), message)
                      : status == HIRL_OK,
              "%zu bytes of '%s': '%s', want '%s'", size, piece,
              status ? hirl_error_text_view() : "success", message ? message : "success");
    // Linear in the size: 16 MiB take well under a second; quadratic would take hours.
    CHECK(hirl_time_now() - begin < 30);
    CHECK(strlen(hirl_error_text_view()) < 4096);
    hirl_deck_destroy(&deck);
    free(text);
}

static void test_sizes(void) {
    const size_t max = 16 << 20;
    check_size("&num i=1 /\n", "\n", max, NULL);
    check_size("&num i=1 /\n", "! c\n", max, NULL);
    check_size("&num i=1 /\n", "\n", max + 1,
               "16777217 bytes, expected a deck of at most 16777216");
    check_size("&num i=1 /\n", "&num\n/\n", max - 4, NULL);
    check_size("&num v=", ",", 10000, "one null value too many");
    check_size("&num v=", "1 ", 10000, "one value too many");
    check_size("&num v=", "1\n", max, "one value too many");
    check_size("&num v=", "9", 10000, "(more than 64 bits hold)");
    check_size("&num x=", "9", 10000, "found '999999");
    check_size("&num x=1", " \n", max, "expected '/' to end it");
    check_size("&num l=T", "\n", max, "expected '/' to end it");
    check_size("&num i", "(", 10000, "the key takes one value");
    check_size("&num v(", "1", 10000, "out of range");
    check_size("&num ", "a", 10000, "has no key 'aaa");
    check_size("&", "num", 10000, "unknown group 'num");
    check_size("&txt s='", "''", 10000, "t.nml:1:8: txt%s: ");
    check_size("&txt s='", "x", 10000, "has no closing '");
    check_size("&num i=1 /", " ", 16384, NULL);
    check_size("&num i=1 /", " ", 16385, "t.nml:1:1: found a line of more than 16384 bytes");
    check_size("\n\n&num i=1 /\n", "y", 100000, "t.nml:4:1: found a line of more than");
    check_size("", "\x80", 1000, "outside of a group");
}

static void test_huge_files(void) {
    hirl_deck_t *deck = make_deck();
    CHECK_FAILS(hirl_deck_read_file(deck, "/dev/zero"), HIRL_ERR_DECK, "has more than 16 MiB");
    const char *path = test_path("zero.nml");
    FILE *file = fopen(path, "wb");
    NEED(file != NULL && fwrite("&num\0i=1 /\n", 1, 11, file) == 11 && fclose(file) == 0);
    CHECK_FAILS(hirl_deck_read_file(deck, path), HIRL_ERR_DECK,
                "zero.nml:1:5: found byte 0x00, expected text");
    CHECK_FAILS(hirl_deck_read_file(deck, test_argv()[0]), HIRL_ERR_DECK, "");
    hirl_deck_destroy(&deck);
}

TEST_MAIN {
    RUN(test_mutations);
    RUN(test_overrides);
    RUN(test_sizes);
    RUN(test_huge_files);
}
