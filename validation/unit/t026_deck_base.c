// test: timeout=20
// A deck may come from anyone: a base deck that it names is a file, nothing that would be waited for
// or never ends, and no message carries control characters to a terminal.
#include "hirl/train.h"

#include "test.h"

static const hirl_group_t *const GROUPS[] = {&hirl_run_group};

static hirl_status_t read_with_base(const char *base) {
    char text[512];
    hirl_deck_t *deck = NULL;
    const int size = snprintf(text, sizeof text, "&run base = '%s' /\n", base);
    NEED_OK(hirl_deck_create(GROUPS, 1, &deck));
    const hirl_status_t status = hirl_deck_read_text(deck, "hostile.nml", text, (size_t)size);
    hirl_deck_destroy(&deck);
    return status;
}

static void test_base(void) {
    NEED(mkfifo(test_path("pipe.nml"), 0600) == 0);
    CHECK_FAILS(read_with_base(test_path("pipe.nml")), HIRL_ERR_IO,
                "is a pipe or device, expected a deck");
    CHECK_HAS(hirl_error_text_view(), "hostile.nml:1:6: '");
    CHECK_FAILS(read_with_base("/dev/zero"), HIRL_ERR_IO, "is a pipe or device");
    CHECK_FAILS(read_with_base(test_folder()), HIRL_ERR_IO, "is a folder");
}

static void test_message(void) {
    CHECK_FAILS(read_with_base("a\tb"), HIRL_ERR_IO, "cannot open deck 'a?b'");
    (void)HIRL_FAIL(HIRL_ERR_FORMAT, "%s", "\x1b]0;title\a\x7f two\nlines \xc3\xa9");
    CHECK_EQ_S(hirl_error_text_view(), "?]0;title?? two\nlines \xc3\xa9");
}

TEST_MAIN {
    RUN(test_base);
    RUN(test_message);
}
