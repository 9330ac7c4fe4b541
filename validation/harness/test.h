/// @file test.h
/// What every C test is made of. A test is one file with one body:
///
///     // test: ranks=1,2 backends=ref,cpu timeout=30
///     #include "test.h"
///
///     static void test_sum(void) { CHECK_EQ_I(1 + 1, 2); }
///
///     TEST_MAIN { RUN(test_sum); }
///
/// The line of facts is explained in run.sh. Checks go on after a failure, except those that begin with NEED. A test
/// fails on all ranks if a check failed on one, or if memory counted by hirl_mem_* is still held at the end.
#ifndef HIRL_TEST_H
#define HIRL_TEST_H

#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <mpi.h>

#include "hirl/base.h"

enum { TEST_EXIT_PASS = 0, TEST_EXIT_FAIL = 1, TEST_EXIT_SKIP = 77, TEST_MAX_PRINTED = 50 };

/// The state of this process's test; tests read rank, size and the arguments.
typedef struct test_state {
    const char *name;
    const char *backend; // first argument; "" if none
    int argc;            // arguments as given, argv[0] included
    char **argv;
    int rank, size;
    bool has_mpi;
    long n_checks, n_failed;
    uint64_t seed;
    bool is_seed_printed;
    char folder[512];
} test_state_t;

static test_state_t test_ = {.size = 1};

#define TEST_INLINE __attribute__((unused)) static

TEST_INLINE const char *test_backend(void) { return test_.backend; }
TEST_INLINE int test_rank(void) { return test_.rank; }
TEST_INLINE int test_size(void) { return test_.size; }
TEST_INLINE int test_argc(void) { return test_.argc; }
TEST_INLINE char **test_argv(void) { return test_.argv; }

// ------------------------------------------------------------------------------------ beginning and end

/// MPI is started if the runner or mpirun started this process; code under test may start it otherwise.
TEST_INLINE void test_begin(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/'), *ranks = getenv("HIRL_TEST_RANKS");
    setvbuf(stdout, NULL, _IOLBF, 0);
    test_.name = slash ? slash + 1 : argv[0];
    test_.argc = argc;
    test_.argv = argv;
    test_.backend = argc > 1 ? argv[1] : "";
    test_.seed = 20240229;
    if (getenv("HIRL_TEST_SEED")) test_.seed = strtoull(getenv("HIRL_TEST_SEED"), NULL, 0);
    if (getenv("OMPI_COMM_WORLD_SIZE") || (ranks && atoi(ranks) > 1)) {
        int provided = 0;
        MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
        MPI_Comm_rank(MPI_COMM_WORLD, &test_.rank);
        MPI_Comm_size(MPI_COMM_WORLD, &test_.size);
        test_.has_mpi = true;
        if (ranks && atoi(ranks) != test_.size) {
            printf("%s: started on %d ranks, want %s\n", test_.name, test_.size, ranks);
            MPI_Abort(MPI_COMM_WORLD, TEST_EXIT_FAIL);
        }
    }
}

TEST_INLINE int test_remove_one(const char *path, const struct stat *st, int flag,
                                struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

TEST_INLINE void test_clean(void) {
    if (test_.has_mpi) MPI_Barrier(MPI_COMM_WORLD);
    if (test_.folder[0] && test_.rank == 0)
        nftw(test_.folder, test_remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (test_.has_mpi) MPI_Finalize();
}

TEST_INLINE int test_end(void) {
    const size_t held = hirl_mem_check_balance();
    if (held != 0) {
        printf("rank %d: %zu bytes still held at the end\n", test_.rank, held);
        test_.n_failed++;
    }
    long count[2] = {test_.n_checks, test_.n_failed};
    if (test_.has_mpi) MPI_Allreduce(MPI_IN_PLACE, count, 2, MPI_LONG, MPI_SUM, MPI_COMM_WORLD);
    if (count[0] == 0) count[1]++;
    fflush(stdout);
    test_clean();
    if (test_.rank == 0) {
        printf("%s: %ld checks, %ld failed%s\n", test_.name, count[0], count[1],
               count[0] ? "" : " (a test without a check)");
    }
    return count[1] ? TEST_EXIT_FAIL : TEST_EXIT_PASS;
}

#define TEST_MAIN                     \
    static void test_body(void);      \
    int main(int argc, char **argv) { \
        test_begin(argc, argv);       \
        test_body();                  \
        return test_end();            \
    }                                 \
    static void test_body(void)

/// Calls a test function and names it if something in it failed.
#define RUN(function)                                                  \
    do {                                                               \
        const long test_before_ = test_.n_failed;                      \
        function();                                                    \
        if (test_.n_failed > test_before_)                             \
            printf("rank %d: %s: %ld failed\n", test_.rank, #function, \
                   test_.n_failed - test_before_);                     \
    } while (0)

/// Ends the test as skipped, with the reason. On several ranks all of them must get here.
#define SKIP(...)                \
    do {                         \
        test_clean();            \
        if (test_.rank == 0) {   \
            printf("skip: ");    \
            printf(__VA_ARGS__); \
            printf("\n");        \
        }                        \
        exit(TEST_EXIT_SKIP);    \
    } while (0)

// ------------------------------------------------------------------------------------ checks

/// Counts one check; prints where and what if it failed. Returns is_ok.
__attribute__((unused, format(printf, 4, 5))) static bool
test_check(bool is_ok, const char *file, int line, const char *format, ...) {
    test_.n_checks++;
    if (is_ok) return true;
    if (test_.n_failed++ >= TEST_MAX_PRINTED) return false;
    va_list args;
    va_start(args, format);
    char text[2048];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    printf("%s:%d: rank %d: %s%s\n", file, line, test_.rank, text,
           test_.n_failed == TEST_MAX_PRINTED ? " (further failures are only counted)" : "");
    return false;
}

#define TEST_CHECK_(ok, ...) test_check((ok), __FILE__, __LINE__, __VA_ARGS__)

/// Ends the whole test at once: going on would make no sense, and other ranks may wait for this one.
TEST_INLINE void test_give_up(void) {
    printf("rank %d: cannot go on\n", test_.rank);
    fflush(stdout);
    if (test_.has_mpi) MPI_Abort(MPI_COMM_WORLD, TEST_EXIT_FAIL);
    exit(test_end());
}

/// The condition holds.
#define CHECK(cond) TEST_CHECK_((cond), "%s", #cond)

/// The condition holds; with a text of one's own (printf) that says what went wrong.
#define CHECK_MSG(cond, ...) TEST_CHECK_((cond), __VA_ARGS__)

/// As CHECK, and the test ends if it does not hold.
#define NEED(cond)                        \
    do {                                  \
        if (!CHECK(cond)) test_give_up(); \
    } while (0)

/// Two integers are equal.
#define CHECK_EQ_I(a, b) test_check_eq_i((long long)(a), (long long)(b), #a, #b, __FILE__, __LINE__)
TEST_INLINE bool test_check_eq_i(long long a, long long b, const char *a_text, const char *b_text,
                                 const char *file, int line) {
    return test_check(a == b, file, line, "%s = %lld, %s = %lld", a_text, a, b_text, b);
}

/// Two numbers agree: |a - b| <= abs + rel max(|a|, |b|). NaN agrees with nothing; infinities agree with themselves.
#define CHECK_CLOSE(a, b, rel, abs) \
    test_check_close((a), (b), (rel), (abs), #a, #b, __FILE__, __LINE__)
TEST_INLINE bool test_is_close(double a, double b, double rel, double abs) {
    return a == b || fabs(a - b) <= abs + rel * fmax(fabs(a), fabs(b));
}
TEST_INLINE bool test_check_close(double a, double b, double rel, double abs, const char *a_text,
                                  const char *b_text, const char *file, int line) {
    // An infinite bound or an infinity beside a number would pass the comparison of the magnitudes.
    const bool is_ok = isfinite(a) && isfinite(b) ? test_is_close(a, b, rel, abs) : a == b;
    return test_check(is_ok, file, line,
                      "%s = %.9g, %s = %.9g, apart %.3g, want rel %.3g or abs %.3g", a_text, a,
                      b_text, b, fabs(a - b), rel, abs);
}

/// n numbers agree one by one (float or double arrays); counts as one check and prints the worst.
#define CHECK_CLOSE_F32(a, b, n, rel, abs) \
    test_check_close_n((a), NULL, (b), NULL, (n), (rel), (abs), #a, #b, __FILE__, __LINE__)
#define CHECK_CLOSE_F64(a, b, n, rel, abs) \
    test_check_close_n(NULL, (a), NULL, (b), (n), (rel), (abs), #a, #b, __FILE__, __LINE__)
TEST_INLINE bool test_check_close_n(const float *af, const double *ad, const float *bf,
                                    const double *bd, int64_t n, double rel, double abs,
                                    const char *a_text, const char *b_text, const char *file,
                                    int line) {
    int64_t n_bad = 0, worst = -1;
    double worst_excess = 0;
    for (int64_t i = 0; i < n; i++) {
        const double a = af ? (double)af[i] : ad[i], b = bf ? (double)bf[i] : bd[i];
        if (isfinite(a) && isfinite(b) ? test_is_close(a, b, rel, abs) : a == b) continue;
        n_bad++;
        const double excess =
            isfinite(a) && isfinite(b) ? fabs(a - b) - rel * fmax(fabs(a), fabs(b)) : INFINITY;
        if (worst < 0 || excess > worst_excess) worst = i, worst_excess = excess;
    }
    const double a = worst < 0 ? 0 : af ? (double)af[worst] : ad[worst];
    const double b = worst < 0 ? 0 : bf ? (double)bf[worst] : bd[worst];
    return test_check(
        n_bad == 0, file, line,
        "%s and %s: %lld of %lld apart; worst at %lld: %.9g, %.9g, want rel %.3g or abs %.3g",
        a_text, b_text, (long long)n_bad, (long long)n, (long long)worst, a, b, rel, abs);
}

/// Two byte ranges are the same, bit for bit.
#define CHECK_BITS(a, b, n_bytes) test_check_bits((a), (b), (n_bytes), #a, #b, __FILE__, __LINE__)
TEST_INLINE bool test_check_bits(const void *a, const void *b, size_t n_bytes, const char *a_text,
                                 const char *b_text, const char *file, int line) {
    size_t i = 0;
    while (i < n_bytes && ((const unsigned char *)a)[i] == ((const unsigned char *)b)[i]) i++;
    return test_check(i == n_bytes, file, line, "%s and %s differ from byte %zu of %zu on", a_text,
                      b_text, i, n_bytes);
}

/// Two texts are equal; a text holds another. NULL is never right.
#define CHECK_EQ_S(a, b) test_check_text((a), (b), true, #a, __FILE__, __LINE__)
#define CHECK_HAS(text, part) test_check_text((text), (part), false, #text, __FILE__, __LINE__)
TEST_INLINE bool test_check_text(const char *a, const char *b, bool is_whole, const char *a_text,
                                 const char *file, int line) {
    const bool is_ok = a && b && (is_whole ? strcmp(a, b) == 0 : strstr(a, b) != NULL);
    return test_check(is_ok, file, line, "%s is \"%s\", want %s\"%s\"", a_text, a ? a : "(null)",
                      is_whole ? "" : "something with ", b ? b : "(null)");
}

/// A call succeeds; prints the recorded cause if it does not.
#define CHECK_OK(call) test_check_status((call), HIRL_OK, NULL, #call, __FILE__, __LINE__)

/// As CHECK_OK, and the test ends if the call fails.
#define NEED_OK(call)                        \
    do {                                     \
        if (!CHECK_OK(call)) test_give_up(); \
    } while (0)

/// A call fails with this status, and the recorded cause holds this text ("" or NULL: any).
#define CHECK_FAILS(call, status, part) \
    test_check_status((call), (status), (part), #call, __FILE__, __LINE__)
TEST_INLINE bool test_check_status(hirl_status_t got, hirl_status_t want, const char *part,
                                   const char *call, const char *file, int line) {
    const char *cause = got == HIRL_OK ? "" : hirl_error_text_view();
    if (got != want) {
        return test_check(false, file, line, "%s gave '%s' (%s, at %s), want '%s'", call,
                          hirl_status_text(got), cause,
                          got == HIRL_OK ? "-" : hirl_error_place_view(), hirl_status_text(want));
    }
    return test_check(!part || strstr(cause, part), file, line,
                      "%s failed with \"%s\", want something with \"%s\"", call, cause,
                      part ? part : "");
}

// ------------------------------------------------------------------------------------ helpers

/// An empty folder, the same for all ranks, removed at the end. Collective at its first call.
TEST_INLINE const char *test_folder(void) {
    if (test_.folder[0]) return test_.folder;
    int is_ok = 1;
    if (test_.rank == 0) {
        const char *base = getenv("HIRL_TMP");
        if (!base || !*base) base = getenv("TMPDIR");
        snprintf(test_.folder, sizeof test_.folder, "%s/%s.XXXXXX", base && *base ? base : "/tmp",
                 test_.name);
        is_ok = mkdtemp(test_.folder) != NULL;
    }
    if (test_.has_mpi) {
        MPI_Bcast(&is_ok, 1, MPI_INT, 0, MPI_COMM_WORLD);
        MPI_Bcast(test_.folder, (int)sizeof test_.folder, MPI_CHAR, 0, MPI_COMM_WORLD);
    }
    if (!is_ok) {
        test_check(false, __FILE__, __LINE__, "cannot make the folder %s", test_.folder);
        test_.folder[0] = 0;
        test_give_up();
    }
    return test_.folder;
}

/// "<test folder>/<name>"; valid until the eighth call after this one.
TEST_INLINE const char *test_path(const char *name) {
    static char path[8][1024];
    static int next;
    char *buf = path[next++ % 8];
    snprintf(buf, sizeof path[0], "%s/%s", test_folder(), name);
    return buf;
}

/// The seed of this run: fixed, or HIRL_TEST_SEED. Printed once.
TEST_INLINE uint64_t test_seed(void) {
    if (!test_.is_seed_printed && test_.rank == 0)
        printf("seed = %llu\n", (unsigned long long)test_.seed);
    test_.is_seed_printed = true;
    return test_.seed;
}

/// Stream number `index` of random numbers; the same on every rank.
TEST_INLINE hirl_rng_t test_rng(uint64_t index) {
    return hirl_rng_make(test_seed(), HIRL_RNG_TEST, 0, index, 0);
}

/// Fills n floats with uniform numbers in [low, high), or with normal ones.
TEST_INLINE void test_fill_uniform(float *x, int64_t n, double low, double high, uint64_t index) {
    hirl_rng_t rng = test_rng(index);
    for (int64_t i = 0; i < n; i++) x[i] = (float)hirl_rng_range(&rng, low, high);
}
TEST_INLINE void test_fill_normal(float *x, int64_t n, uint64_t index) {
    hirl_rng_t rng = test_rng(index);
    for (int64_t i = 0; i < n; i++) x[i] = (float)hirl_rng_normal(&rng);
}

#endif
