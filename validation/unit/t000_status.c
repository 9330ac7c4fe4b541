// Status codes, the record of the last failure, the macros that pass failures on; text helpers.
// test: timeout=30
#include "hirl/base.h"

#include <pthread.h>

#include "test.h"

static int n_undone;

static hirl_status_t fail_at_depth(int depth) {
    if (depth == 0) return HIRL_FAIL(HIRL_ERR_FORMAT, "shard %d: want %lld rows", 3, 7LL);
    HIRL_TRY(fail_at_depth(depth - 1));
    n_undone += 100; // must not be reached
    return HIRL_OK;
}

static hirl_status_t fail_and_undo(hirl_status_t inner) {
    hirl_status_t status;
    HIRL_TRY_GOTO(inner, status, err_undo);
    return HIRL_OK;
err_undo:
    n_undone++;
    return status;
}

static hirl_status_t require_positive(int n) {
    HIRL_REQUIRE(n > 0, HIRL_ERR_ARG, "n = %d, expected more than 0", n);
    return HIRL_OK;
}

static void test_macros(void) {
    hirl_error_reset();
    CHECK_EQ_S(hirl_error_text_view(), "");
    CHECK_EQ_S(hirl_error_place_view(), "");
    CHECK_EQ_I(hirl_error_status(), HIRL_OK);
    CHECK_EQ_I(fail_at_depth(3), HIRL_ERR_FORMAT);
    CHECK_EQ_S(hirl_error_text_view(), "shard 3: want 7 rows");
    CHECK_HAS(hirl_error_place_view(), "t000_status.c:");
    CHECK_HAS(hirl_error_place_view(), " fail_at_depth"); // where it arose, not where it passed
    CHECK_EQ_I(hirl_error_status(), HIRL_ERR_FORMAT);
    CHECK_EQ_I(fail_and_undo(HIRL_OK), HIRL_OK);
    CHECK_EQ_I(n_undone, 0);
    CHECK_EQ_I(fail_and_undo(HIRL_ERR_IO), HIRL_ERR_IO);
    CHECK_EQ_I(n_undone, 1);
    CHECK_OK(require_positive(1));
    CHECK_FAILS(require_positive(-4), HIRL_ERR_ARG, "n = -4");
}

static void test_record(void) {
    // The old text may be part of the new one.
    (void)HIRL_FAIL(HIRL_ERR_IO, "cause");
    CHECK_EQ_I(HIRL_FAIL(HIRL_ERR_DECK, "a.nml: %s", hirl_error_text_view()), HIRL_ERR_DECK);
    CHECK_EQ_S(hirl_error_text_view(), "a.nml: cause");
    // Too long: cut, and seen to be cut.
    char large[20000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    (void)HIRL_FAIL(HIRL_ERR_IO, "%s", large);
    const size_t n = strlen(hirl_error_text_view());
    CHECK(n > 4000 && n < 20000);
    CHECK_EQ_S(hirl_error_text_view() + n - 3, "...");
    // Paths of the build machine do not appear.
    (void)hirl_error_record(HIRL_ERR_IO, "/some/where/src/base/x.c", 12, "f", "t");
    CHECK_EQ_S(hirl_error_place_view(), "src/base/x.c:12 f");
    (void)hirl_error_record(HIRL_ERR_IO, "/usr/src/tree/src/base/x.c", 12, "f", "t");
    CHECK_EQ_S(hirl_error_place_view(), "src/base/x.c:12 f");
}

static void test_texts(void) {
    CHECK_EQ_S(hirl_status_text(HIRL_OK), "success");
    CHECK_EQ_S(hirl_status_text(HIRL_ERR_DECK), "invalid deck");
    for (int i = 0; i < HIRL_STATUS_COUNT; i++) {
        CHECK(hirl_status_text((hirl_status_t)i)[0]);
        for (int j = 0; j < i; j++) {
            CHECK(strcmp(hirl_status_text((hirl_status_t)i), hirl_status_text((hirl_status_t)j)) !=
                  0);
        }
    }
    CHECK(hirl_status_text(HIRL_STATUS_COUNT) != NULL);
    CHECK(hirl_status_text((hirl_status_t)-1) != NULL);
}

static void *other_thread(void *seen) {
    snprintf(seen, 64, "%s", hirl_error_text_view());
    (void)HIRL_FAIL(HIRL_ERR_IO, "of the other thread");
    return NULL;
}

static void test_threads(void) {
    (void)HIRL_FAIL(HIRL_ERR_IO, "of this thread");
    char seen[64] = "?";
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, other_thread, seen) == 0);
    pthread_join(thread, NULL);
    CHECK_EQ_S(seen, "");
    CHECK_EQ_S(hirl_error_text_view(), "of this thread");
}

static void test_nearest(void) {
    const char *const keys[] = {"lr", "wd", "momentum", "weight_decay", "warmup_epochs", "lr_rule"};
    const int n = 6;
    CHECK_EQ_I(hirl_text_nearest("momentm", keys, n), 2);
    CHECK_EQ_I(hirl_text_nearest("MOMENTUM", keys, n), 2);
    CHECK_EQ_I(hirl_text_nearest("weight_decy", keys, n), 3);
    CHECK_EQ_I(hirl_text_nearest("lr_rlue", keys, n), 5);
    CHECK_EQ_I(hirl_text_nearest("warmupepoch", keys, n), 4); // 2 edits of 11
    CHECK_EQ_I(hirl_text_nearest("lrr", keys, n), 0);
    CHECK_EQ_I(hirl_text_nearest("rl", keys, n), 0);  // two neighbours swapped: one edit
    CHECK_EQ_I(hirl_text_nearest("zz", keys, n), -1); // two edits, but nothing in common
    CHECK_EQ_I(hirl_text_nearest("temperature", keys, n), -1);
    CHECK_EQ_I(hirl_text_nearest("weighty_decays_", keys, n), 3); // 3 of 15: within a third
    CHECK_EQ_I(hirl_text_nearest("momxxx", keys, n), -1);         // 5 edits
    CHECK_EQ_I(hirl_text_nearest("lr", keys, 0), -1);
    char large[4000];
    memset(large, 'l', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    CHECK_EQ_I(hirl_text_nearest(large, keys, n), -1);
}

static void test_text(void) {
    char buf[8] = "keep";
    CHECK_OK(hirl_text_format(buf, sizeof buf, "%d", 1234567));
    CHECK_EQ_S(buf, "1234567");
    CHECK_FAILS(hirl_text_format(buf, sizeof buf, "%d", 12345678), HIRL_ERR_ARG, "does not fit");
    CHECK_EQ_S(buf, "");
    CHECK_FAILS(hirl_text_format(buf, 0, "x"), HIRL_ERR_ARG, "no bytes");

    hirl_text_t text = {0};
    CHECK_OK(hirl_text_append(&text, "%s", ""));
    CHECK_EQ_I(text.size, 0);
    char want[8000] = "";
    size_t n = 0;
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(hirl_text_append(&text, "%d,%c", i, 'a' + i % 26));
        n += (size_t)sprintf(want + n, "%d,%c", i, 'a' + i % 26);
    }
    CHECK_EQ_S(text.data, want);
    CHECK_EQ_I(text.size, n);
    hirl_text_reset(&text);
    CHECK(text.data == NULL && text.size == 0);
    hirl_text_reset(&text);
    hirl_text_reset(NULL);
}

static void test_html(void) {
    hirl_text_t text = {0};
    CHECK_OK(hirl_text_append_html(&text, "a<b> & \"c\"\n\t"));
    CHECK_EQ_S(text.data, "a&lt;b&gt; &amp; &quot;c&quot;\n\t");
    hirl_text_reset(&text);
    // UTF-8 of two, three and four bytes stays; cut, overlong, surrogate, too large and control bytes do not.
    CHECK_OK(hirl_text_append_html(&text, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"));
    CHECK_EQ_S(text.data, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    hirl_text_reset(&text);
    static const char *const wrong[] = {"\x01", "\x7f", "\x80", "\xff", "\xc3"};
    for (int i = 0; i < 5; i++) {
        CHECK_OK(hirl_text_append_html(&text, wrong[i]));
        CHECK_EQ_S(text.data, "&#xfffd;");
        hirl_text_reset(&text);
    }
    CHECK_OK(hirl_text_append_html(&text, "\xc1\x81.\xed\xa0\x80.\xf4\x90\x80\x80.\xe2\x82"));
    CHECK_EQ_S(text.data, "&#xfffd;&#xfffd;.&#xfffd;&#xfffd;&#xfffd;.&#xfffd;&#xfffd;&#xfffd;"
                          "&#xfffd;.&#xfffd;&#xfffd;");
    hirl_text_reset(&text);
}

static void test_numbers(void) {
    char buf[32];
    CHECK_EQ_S(hirl_text_bytes(buf, 0), "0 B");
    CHECK_EQ_S(hirl_text_bytes(buf, 1023), "1023 B");
    CHECK_EQ_S(hirl_text_bytes(buf, 1024), "1.00 KiB");
    CHECK_EQ_S(hirl_text_bytes(buf, 1.5 * 1024 * 1024 * 1024), "1.50 GiB");
    CHECK_EQ_S(hirl_text_bytes(buf, 1024.0 * 1024 - 1), "1.00 MiB"); // not 1024.00 KiB
    CHECK_EQ_S(hirl_text_bytes(buf, -2048), "-2.00 KiB");
    CHECK_EQ_S(hirl_text_duration(buf, 0), "0:00:00");
    CHECK_EQ_S(hirl_text_duration(buf, 59.6), "0:01:00");
    CHECK_EQ_S(hirl_text_duration(buf, 3723), "1:02:03");
    CHECK_EQ_S(hirl_text_duration(buf, 86400 + 3723), "1d 1:02:03");
    CHECK_EQ_S(hirl_text_duration(buf, NAN), "-");
    CHECK_EQ_S(hirl_text_duration(buf, INFINITY), "-");
    CHECK_EQ_S(hirl_text_duration(buf, -1), "-");
    const double before = hirl_time_now();
    usleep(2000);
    const double passed = hirl_time_now() - before;
    CHECK(passed >= 0.002 && passed < 5);
}

TEST_MAIN {
    RUN(test_macros);
    RUN(test_record);
    RUN(test_texts);
    RUN(test_threads);
    RUN(test_nearest);
    RUN(test_text);
    RUN(test_html);
    RUN(test_numbers);
}
