/// The checks of test.h: each passes on what is right and fails on what is wrong, on one rank and on two.
// test: ranks=1,2 args="first second" timeout=60
#include "test.h"

/// Passes if exactly the given checks fail; their messages are the test's own and not shown.
static void expect_failures(long want, void (*body)(void)) {
    const test_state_t before = test_;
    fflush(stdout);
    const int console = dup(STDOUT_FILENO);
    if (!freopen("/dev/null", "w", stdout)) abort();
    body();
    fflush(stdout);
    dup2(console, STDOUT_FILENO);
    close(console);
    clearerr(stdout);
    const long n_failed = test_.n_failed - before.n_failed;
    test_.n_failed = before.n_failed;
    CHECK_EQ_I(n_failed, want);
}

static void wrong_conditions(void) {
    CHECK(1 + 1 == 3);
    CHECK_MSG(0, "a text of %d", 1);
    CHECK_EQ_I(INT64_MAX, INT64_MAX - 1);
    CHECK_EQ_S("a", "b");
    CHECK_EQ_S("a", NULL);
    CHECK_HAS("abc", "ac");
}

static void right_conditions(void) {
    CHECK(1 + 1 == 2);
    CHECK_MSG(1, "unused %d", 1);
    CHECK_EQ_I(INT64_MIN, INT64_MIN);
    CHECK_EQ_S("a", "a");
    CHECK_HAS("abc", "bc");
}

static void wrong_numbers(void) {
    const float a[3] = {1, 2, 3}, b[3] = {1, 2.1F, 3}, bad[3] = {1, NAN, 3};
    const double c[2] = {0, INFINITY}, d[2] = {0, -INFINITY};
    CHECK_CLOSE(1.0, 1.1, 0.05, 0.01);
    CHECK_CLOSE(1.0, NAN, 1, 1);
    CHECK_CLOSE(NAN, NAN, 1, 1);
    CHECK_CLOSE(1.0, INFINITY, 1, 1);
    CHECK_CLOSE(INFINITY, -INFINITY, 1, 1);
    CHECK_CLOSE(0, 1e-30, 0.5, 0);
    CHECK_CLOSE_F32(a, b, 3, 0.01, 0);
    CHECK_CLOSE_F32(a, bad, 3, 1, 1);
    CHECK_CLOSE_F64(c, d, 2, 1, 1);
    CHECK_BITS("abc", "abd", 3);
    CHECK_BITS(&(double){0.0}, &(double){-0.0}, sizeof(double));
}

static void right_numbers(void) {
    const float a[3] = {1, 2, INFINITY}, b[3] = {1, 2.001F, INFINITY};
    CHECK_CLOSE(1.0, 1.04, 0.05, 0);
    CHECK_CLOSE(0, 1e-9, 0, 1e-8);
    CHECK_CLOSE(INFINITY, INFINITY, 0, 0);
    CHECK_CLOSE_F32(a, b, 3, 0.001, 0);
    CHECK_CLOSE_F64(NULL, NULL, 0, 0, 0);
    CHECK_BITS("abc", "abd", 2);
}

static hirl_status_t fail_for_test(void) { return HIRL_FAIL(HIRL_ERR_IO, "no disk %d", 7); }

static void wrong_statuses(void) {
    CHECK_OK(fail_for_test());
    CHECK_FAILS(HIRL_OK, HIRL_ERR_IO, "");
    CHECK_FAILS(fail_for_test(), HIRL_ERR_ARG, "no disk");
    CHECK_FAILS(fail_for_test(), HIRL_ERR_IO, "no disk 8");
}

static void right_statuses(void) {
    CHECK_OK(HIRL_OK);
    CHECK_FAILS(fail_for_test(), HIRL_ERR_IO, "no disk 7");
    CHECK_FAILS(fail_for_test(), HIRL_ERR_IO, NULL);
}

static void test_arguments(void) {
    const char *ranks = getenv("HIRL_TEST_RANKS");
    CHECK_EQ_I(test_argc(), 3);
    CHECK_EQ_S(test_argv()[2], "second");
    CHECK_EQ_S(test_backend(), "first");
    CHECK(ranks && atoi(ranks) == test_size());
    CHECK(test_rank() >= 0 && test_rank() < test_size());
}

static void test_helpers(void) {
    float x[64], y[64];
    struct stat st;
    test_fill_uniform(x, 64, -1, 1, 3);
    test_fill_uniform(y, 64, -1, 1, 3);
    CHECK_BITS(x, y, sizeof x);
    test_fill_normal(y, 64, 3);
    CHECK(memcmp(x, y, sizeof x) != 0);
    CHECK(stat(test_folder(), &st) == 0 && S_ISDIR(st.st_mode));
    CHECK_HAS(test_path("a/b"), "/a/b");
    FILE *file = fopen(test_path("left behind"), "w");
    CHECK(file != NULL);
    if (file) fclose(file);
}

static void expect_no_failures(void) {
    expect_failures(0, right_conditions);
    expect_failures(0, right_numbers);
    expect_failures(0, right_statuses);
}

static void expect_all_failures(void) {
    expect_failures(6, wrong_conditions);
    expect_failures(11, wrong_numbers);
    expect_failures(4, wrong_statuses);
}

TEST_MAIN {
    RUN(expect_no_failures);
    RUN(expect_all_failures);
    RUN(test_arguments);
    RUN(test_helpers);
}
