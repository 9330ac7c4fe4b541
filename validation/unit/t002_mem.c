// Counted memory: alignment, clearing, overflow, balance and peak, from several threads.
// test: timeout=30
#include "hirl/base.h"

#include <pthread.h>

#include "test.h"

static bool is_zero(const unsigned char *x, size_t n) {
    while (n > 0 && x[n - 1] == 0) n--;
    return n == 0;
}

static void test_alloc(void) {
    const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1 << 20, (1 << 20) - 1, 5000000};
    for (int i = 0; i < 9; i++) {
        unsigned char *x = NULL, *y = NULL;
        const size_t before = hirl_mem_held(HIRL_MEM_DATA);
        NEED_OK(hirl_mem_alloc(HIRL_MEM_DATA, sizes[i], (void **)&x));
        memset(x, 0xa5, sizes[i]);
        NEED_OK(hirl_mem_calloc(HIRL_MEM_DATA, sizes[i], 1, (void **)&y));
        CHECK(x != NULL && y != NULL && x != y);
        CHECK_EQ_I((uintptr_t)x % 64, 0);
        CHECK_EQ_I((uintptr_t)y % 64, 0);
        CHECK(is_zero(y, sizes[i]));
        if (sizes[i] > 0) CHECK_EQ_I(hirl_mem_held(HIRL_MEM_DATA) - before, 2 * sizes[i]);
        CHECK(hirl_mem_held(HIRL_MEM_DATA) > before); // nothing is forgotten, not even nothing
        hirl_mem_free(x);
        // What was used before is cleared as well.
        hirl_mem_free(y);
        NEED_OK(hirl_mem_calloc(HIRL_MEM_DATA, 1, sizes[i], (void **)&y));
        CHECK(is_zero(y, sizes[i]));
        hirl_mem_free(y);
        CHECK_EQ_I(hirl_mem_held(HIRL_MEM_DATA), before);
    }
    hirl_mem_free(NULL);
}

static void test_refusals(void) {
    void *x = (void *)&x;
    CHECK_FAILS(hirl_mem_alloc(HIRL_MEM_PARAM, SIZE_MAX, &x), HIRL_ERR_MEMORY, "param");
    CHECK_FAILS(hirl_mem_alloc(HIRL_MEM_PARAM, PTRDIFF_MAX, &x), HIRL_ERR_MEMORY, "8.00 EiB");
    // 2^33 times 2^33 is 4 after overflow.
    CHECK_FAILS(hirl_mem_calloc(HIRL_MEM_PARAM, SIZE_MAX / 2 + 3, 2, &x), HIRL_ERR_MEMORY, "");
    CHECK_FAILS(HIRL_ALLOC(HIRL_MEM_PARAM, (int64_t)-1, (double **)&x), HIRL_ERR_MEMORY, "");
    CHECK_FAILS(hirl_mem_alloc(HIRL_MEM_KIND_COUNT, 8, &x), HIRL_ERR_ARG, "kind");
    CHECK_FAILS(hirl_mem_calloc((hirl_mem_kind_t)-1, 8, 1, &x), HIRL_ERR_ARG, "kind");
    CHECK(x == (void *)&x); // outputs are written on success only
}

static void test_realloc(void) {
    int *x = NULL;
    const size_t before = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    NEED_OK(hirl_mem_realloc(HIRL_MEM_GENERAL, 10 * sizeof *x, (void **)&x));
    for (int i = 0; i < 10; i++) x[i] = i;
    NEED_OK(hirl_mem_realloc(HIRL_MEM_GENERAL, 100000 * sizeof *x, (void **)&x));
    CHECK_EQ_I((uintptr_t)x % 64, 0);
    for (int i = 0; i < 10; i++) CHECK_EQ_I(x[i], i);
    NEED_OK(hirl_mem_realloc(HIRL_MEM_GENERAL, 3 * sizeof *x, (void **)&x));
    for (int i = 0; i < 3; i++) CHECK_EQ_I(x[i], i);
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_KIND_COUNT) - before, 12);
    int *old = x;
    CHECK_FAILS(hirl_mem_realloc(HIRL_MEM_GENERAL, SIZE_MAX, (void **)&x), HIRL_ERR_MEMORY, "");
    CHECK(x == old && x[2] == 2); // still held
    hirl_mem_free(x);
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_KIND_COUNT), before);
}

static void test_peak(void) {
    void *x = NULL, *y = NULL;
    hirl_mem_reset_peak();
    const size_t before = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    NEED_OK(hirl_mem_alloc(HIRL_MEM_CLUSTER, 1000, &x));
    NEED_OK(hirl_mem_alloc(HIRL_MEM_ACTIVATION, 500, &y));
    hirl_mem_free(x);
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_CLUSTER), 1000);
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_CLUSTER), 0);
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_ACTIVATION), 500);
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_KIND_COUNT), before + 1500);
    hirl_mem_reset_peak();
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_CLUSTER), 0);
    CHECK_EQ_I(hirl_mem_peak(HIRL_MEM_KIND_COUNT), before + 500);
    CHECK_EQ_I(hirl_mem_check_balance(), before + 500); // says so, and how much
    hirl_mem_free(y);
    CHECK_EQ_I(hirl_mem_check_balance(), before);
    CHECK_EQ_I(hirl_mem_held((hirl_mem_kind_t)99), 0);
}

static void *allocate_much(void *unused) {
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        void *x = NULL;
        if (hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)(i % 300), &x) != HIRL_OK) break;
        hirl_mem_free(x);
    }
    return NULL;
}

static void test_threads(void) {
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) NEED(pthread_create(&threads[i], NULL, allocate_much, NULL) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_WORKSPACE), 0);
    CHECK(hirl_mem_peak(HIRL_MEM_WORKSPACE) <= 4 * 300);
}

TEST_MAIN {
    RUN(test_alloc);
    RUN(test_refusals);
    RUN(test_realloc);
    RUN(test_peak);
    RUN(test_threads);
}
