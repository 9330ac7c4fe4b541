// test: ranks=1 timeout=60
// Where a deck comes from: files, chains of base decks, overrides from the command line, and what is required of it all.
#include "test.h"

#include "../deck/deck_cases.h"

static hirl_deck_t *make_deck(void) {
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(CASE_GROUPS, CASE_N_GROUPS, &deck));
    return deck;
}

static const char *write_deck(const char *name, const char *text) {
    const char *path = test_path(name);
    FILE *file = fopen(path, "wb");
    NEED(file != NULL);
    NEED(fputs(text, file) >= 0 && fclose(file) == 0);
    return path;
}

// ------------------------------------------------------------------------------------------ files

static void test_base(void) {
    NEED(mkdir(test_path("sub"), 0777) == 0);
    write_deck("sub/root.nml",
               "&num i=1 j=1 n=11 w=1,2,3,4 r(1:2)=1,2 /\n&txt s='root' c='a','b','c' /\n");
    write_deck("sub/middle.nml", "&run base='root.nml' /\n&num j=2 w=5,6 r(2)=7 /\n");
    const char *top = write_deck(
        "top.nml", "&num n=33 w(2)= r(3)=9 /\n&run base='sub/middle.nml' seed=9 /\n&txt c='z' /\n");
    hirl_deck_t *deck = make_deck();
    NEED_OK(hirl_deck_read_file(deck, top));
    const case_num_t *num = hirl_deck_group_view(deck, "num");
    const case_txt_t *txt = hirl_deck_group_view(deck, "txt");
    const case_run_t *run = hirl_deck_group_view(deck, "run");
    CHECK_EQ_I(num->i, 1);
    CHECK_EQ_I(num->j, 2);
    CHECK_EQ_I(num->n, 33);
    CHECK_EQ_I(num->n_w, 2);
    CHECK_EQ_I(num->w[1], 6);
    CHECK_EQ_I(num->n_r, 3);
    CHECK(num->r[0] == 1 && num->r[1] == 7 && num->r[2] == 9);
    CHECK_EQ_S(txt->s, "root");
    CHECK_EQ_I(txt->n_c, 1);
    CHECK_EQ_S(txt->c[0], "z");
    CHECK_EQ_S(txt->c[1], "");
    CHECK_EQ_I(run->seed, 9);
    CHECK_EQ_S(run->base, "sub/middle.nml");
    CHECK(hirl_deck_is_set(deck, "num", "i") && !hirl_deck_is_set(deck, "num", "x"));
    hirl_text_t text = {0};
    NEED_OK(hirl_deck_write_text(deck, false, &text));
    CHECK(strstr(text.data, "base") == NULL && strstr(text.data, ".nml") == NULL);
    hirl_deck_t *again = make_deck();
    NEED_OK(hirl_deck_read_text(again, "again.nml", text.data, text.size));
    CHECK_BITS(hirl_deck_group_view(again, "num"), num, sizeof *num);
    CHECK_BITS(hirl_deck_group_view(again, "txt"), txt, sizeof *txt);
    hirl_deck_destroy(&again);
    hirl_text_reset(&text);
    hirl_deck_destroy(&deck);
}

static void test_base_failures(void) {
    hirl_deck_t *deck = make_deck();
    const char *path = write_deck("lost.nml", "&run\n  base = 'nowhere.nml' /\n");
    CHECK_FAILS(hirl_deck_read_file(deck, path), HIRL_ERR_IO, "lost.nml:2:3: cannot open deck '");
    CHECK_HAS(hirl_error_text_view(), "/nowhere.nml': No such file or directory");
    path = write_deck("self.nml", "&run base='self.nml' /\n");
    CHECK_FAILS(hirl_deck_read_file(deck, path), HIRL_ERR_DECK,
                "self.nml:1:6: base decks go round in a circle: ");
    write_deck("one.nml", "&run base='two.nml' /\n");
    path = write_deck("two.nml", "&run base='./one.nml' /\n");
    CHECK_FAILS(hirl_deck_read_file(deck, path), HIRL_ERR_DECK,
                "one.nml:1:6: base decks go round in a circle");
    CHECK_HAS(hirl_error_text_view(), "two.nml <- ");
    for (int i = 0; i < 20; i++) {
        char name[32], text[64];
        snprintf(name, sizeof name, "chain%d.nml", i);
        snprintf(text, sizeof text, i < 19 ? "&run base='chain%d.nml' /\n" : "&num i=5 /\n", i + 1);
        write_deck(name, text);
    }
    CHECK_FAILS(hirl_deck_read_file(deck, test_path("chain0.nml")), HIRL_ERR_DECK,
                "a chain of more than 16 decks");
    CHECK_OK(hirl_deck_read_file(deck, test_path("chain4.nml")));
    CHECK_EQ_I(((const case_num_t *)hirl_deck_group_view(deck, "num"))->i, 5);
    // A mistake in the base is reported there, and nothing of either deck stays.
    write_deck("wrong.nml", "&num i=6\n  n=x /\n");
    path = write_deck("uses_wrong.nml", "&run base='wrong.nml' /\n&num j=7 /\n");
    CHECK_FAILS(hirl_deck_read_file(deck, path), HIRL_ERR_DECK, "wrong.nml:2:5: num%n: found 'x'");
    CHECK_EQ_I(((const case_num_t *)hirl_deck_group_view(deck, "num"))->i, 5);
    path = write_deck("uses_folder.nml", "&run base='.' /\n");
    CHECK_FAILS(hirl_deck_read_file(deck, path), HIRL_ERR_IO, "is a folder, expected a deck");
    // No base: an empty name, or a null value.
    CHECK_OK(hirl_deck_read_file(deck, write_deck("none.nml", "&run base='' /\n")));
    CHECK_OK(hirl_deck_read_file(deck, write_deck("null.nml", "&run base= seed=3 /\n")));
    hirl_deck_destroy(&deck);
}

static void test_files(void) {
    hirl_deck_t *deck = make_deck();
    CHECK_FAILS(hirl_deck_read_file(deck, test_path("missing.nml")), HIRL_ERR_IO,
                "No such file or directory");
    CHECK_FAILS(hirl_deck_read_file(deck, test_folder()), HIRL_ERR_IO, "is a folder");
    CHECK_FAILS(hirl_deck_read_file(deck, write_deck("empty.nml", "")), HIRL_ERR_DECK,
                "empty.nml:1:1: found no group");
    // A later file wins over an earlier one.
    CHECK_OK(hirl_deck_read_file(deck, write_deck("first.nml", "&num i=1 j=1 /\n")));
    CHECK_OK(hirl_deck_read_file(deck, write_deck("second.nml", "&num i=2 /\n")));
    const case_num_t *num = hirl_deck_group_view(deck, "num");
    CHECK_EQ_I(num->i, 2);
    CHECK_EQ_I(num->j, 1);
    CHECK_OK(hirl_deck_override(deck, "num%i=3"));
    CHECK_FAILS(hirl_deck_read_file(deck, test_path("first.nml")), HIRL_ERR_ARG,
                "before overrides");
    CHECK_EQ_I(num->i, 3);
    hirl_deck_destroy(&deck);
}

// ------------------------------------------------------------------------------------------ overrides

static void test_overrides(void) {
    static const struct {
        const char *assignment, *line;
    } GOOD[] = {
        {"num%i=5", "num%i = 5"},
        {" NUM%I = 6 ", "num%i = 6"},
        {"num%x=1d-3", "num%x = 1.0000000000000000E-003"},
        {"num%x=-inf", "num%x = -inf"},
        {"num%l=T", "num%l = T"},
        {"num%m=false", "num%m = F"},
        {"num%w=100,20", "num%w = 100, 20"},
        {"num%w=7 8 9", "num%w = 7, 8, 9"},
        {"num%w(2)=5", "num%w = 7, 5, 9"},
        {"num%w(2:3)=4,3", "num%w = 7, 4, 3"},
        {"num%w=1,,2", "num%w = 1, 4, 2"},
        {"num%w=3*6", "num%w = 6, 6, 6"},
        {"txt%s=plain text", "txt%s = 'plain text'"},
        {"txt%s=it's a/b!c=d,e&f", "txt%s = 'it''s a/b!c=d,e&f'"},
        {"txt%s='quoted ''text'' '", "txt%s = 'quoted ''text'''"},
        {"txt%s=\"it's\"", "txt%s = 'it''s'"},
        {"txt%s=", "txt%s = ''"},
        {"txt%s=''", "txt%s = ''"},
        {"txt%s=2*x", "txt%s = '2*x'"},
        {"txt%mode=linear", "txt%mode = 'linear'"},
        {"txt%c=a,b c , 'd,e'", "txt%c = 'a', 'b c', 'd,e'"},
        {"txt%c=x,,z", "txt%c = 'x', 'b c', 'z'"},
        {"txt%c(2)=y", "txt%c = 'x', 'y', 'z'"},
        {"txt%c=one", "txt%c = 'one'"},
        {"txt%c=a,b,", "txt%c = 'a', 'b'"},
        {"txt%need=/data/x.h5", "txt%need = '/data/x.h5'"},
        {"txt%s=caf\xc3\xa9", "txt%s = 'caf\xc3\xa9'"},
    };
    static const struct {
        const char *assignment, *message;
    } BAD[] = {
        {"num%i", "command line 'num%i', column 6: found no '=', expected group%key=value"},
        {"i=5",
         "command line 'i=5', column 2: found no '%', expected group%key=value; is it num%i?"},
        {"", "found no '='"},
        {"=5", "found no '%', expected group%key=value"},
        {"num=5", "expected group%key=value"},
        {"num%=5", "found '=' after '%', expected a key of group 'num'"},
        {"nun%i=5", "command line 'nun%i=5', column 1: unknown group 'nun'"},
        {"num%ii=5", "command line 'num%ii=5', column 5: group 'num' has no key 'ii'"},
        {"num%seed=5", "there is run%seed"},
        {"num%i=5.5", "command line 'num%i=5.5', column 7: num%i: found '5.5' (a real number), "
                      "expected an integer"},
        {"num%i=", "column 7: num%i: found nothing after '=', expected an integer"},
        {"num%i=,", "found nothing after '='"},
        {"num%v=", "found nothing after '='"},
        {"txt%c=", "found nothing after '='"},
        {"num%i=5 6", "num%i: found a second value '6'"},
        {"num%i=5/", "num%i: found '5/'"},
        {"num%i=5!x", "num%i: found '5!x'"},
        {"num%i=5 j=6", "found a second value 'j=6'"},
        {"num%n=101", "(out of range), expected an integer in epochs, 1 to 100"},
        {"num%l=yes", "expected a logical value, T or F"},
        {"num%i(2)=5", "the key takes one value"},
        {"num%w(5)=5", "num%w: items up to 5 are given, but item 4 has no value"},
        {"num%w(2)=5,6", "one value too many"},
        {"num%w 5=3", "found '5' after the key, expected '='"},
        {"num%v=65*1", "found repeat count '65*'"},
        {"txt%mode=liner",
         "found 'liner', expected one of 'none', 'linear', 'sqrt'; the nearest is 'linear'"},
        {"txt%s='a' b", "found 'b' after the text, expected the end"},
        {"txt%s='a", "has no closing '"},
        {"txt%c='a' b", "found 'b' after the text, expected ',' or the end"},
        {"txt%s=a\nb", "a text of several lines"},
        {"txt%s=a\x01"
         "b",
         "found byte 0x01"},
        {"txt%s=see &num x", "where a Fortran program would see the group 'num' begin"},
        {"run%base=x.nml", "run%base cannot be given on the command line"},
    };
    hirl_deck_t *deck = make_deck();
    hirl_text_t values = {0};
    for (int i = 0; i < CASE_COUNT(GOOD); i++) {
        CHECK_OK(hirl_deck_override(deck, GOOD[i].assignment));
        values.size = 0;
        NEED_OK(hirl_deck_write_values(deck, &values));
        char line[256];
        snprintf(line, sizeof line, "\n%s\n", GOOD[i].line);
        CHECK_MSG(strstr(values.data, line), "override '%s': no '%s' among the values:\n%s",
                  GOOD[i].assignment, GOOD[i].line, values.data);
    }
    CHECK(hirl_deck_is_set(deck, "num", "i") && !hirl_deck_is_set(deck, "num", "j"));
    hirl_text_t after = {0};
    for (int i = 0; i < CASE_COUNT(BAD); i++) {
        const hirl_status_t status = hirl_deck_override(deck, BAD[i].assignment);
        CHECK_MSG(status == HIRL_ERR_DECK && strstr(hirl_error_text_view(), BAD[i].message),
                  "override '%s' gave '%s' (%s), want something with '%s'", BAD[i].assignment,
                  hirl_status_text(status), hirl_error_text_view(), BAD[i].message);
        after.size = 0;
        NEED_OK(hirl_deck_write_values(deck, &after));
        CHECK_EQ_S(after.data, values.data);
    }
    char text[HIRL_DECK_TEXT_MAX + 16] = "txt%s=";
    memset(text + 6, 'x', HIRL_DECK_TEXT_MAX - 1);
    CHECK_OK(hirl_deck_override(deck, text));
    text[6 + HIRL_DECK_TEXT_MAX - 1] = 'x';
    CHECK_FAILS(hirl_deck_override(deck, text), HIRL_ERR_DECK,
                "(512 bytes), expected a text in quotes of at most 511");
    hirl_text_reset(&values);
    hirl_text_reset(&after);
    hirl_deck_destroy(&deck);
}

static void test_require(void) {
    hirl_deck_t *deck = make_deck();
    CHECK_OK(hirl_deck_require_group(deck, "num"));
    CHECK_FAILS(hirl_deck_require_group(deck, "txt"), HIRL_ERR_DECK,
                "the deck: group 'txt' is missing and has no default for some keys, expected "
                "txt%need (a text");
    const char *text = "&txt s='a' need= /\n";
    NEED_OK(hirl_deck_read_text(deck, "t.nml", text, strlen(text)));
    CHECK_FAILS(hirl_deck_require_group(deck, "txt"), HIRL_ERR_DECK,
                "t.nml: group 'txt' lacks what has no default");
    CHECK_FAILS(hirl_deck_require_group(deck, "nothing"), HIRL_ERR_ARG,
                "group 'nothing' has no key table");
    NEED_OK(hirl_deck_override(deck, "txt%need="));
    CHECK_OK(hirl_deck_require_group(deck, "txt"));
    hirl_deck_destroy(&deck);
}

TEST_MAIN {
    RUN(test_base);
    RUN(test_base_failures);
    RUN(test_files);
    RUN(test_overrides);
    RUN(test_require);
}
