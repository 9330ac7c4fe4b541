// The caching pool: blocks do not overlap, are aligned, come back, join, and are handed out again; a repeated pattern asks the
// system for nothing.
// test: timeout=60
#include "hirl/tensor.h"

#include "test.h"

enum { KIB = 1 << 10, MIB = 1 << 20 };

static hirl_pool_t *pool;
static const hirl_allocator_t *allocator;

static void begin(void) {
    NEED_OK(hirl_pool_create_host(&pool));
    allocator = hirl_pool_allocator_view(pool);
}

static void *take(size_t bytes) {
    void *data = NULL;
    NEED_OK(allocator->alloc(allocator->ctx, bytes, &data));
    return data;
}

static void give(void *data, size_t bytes) { allocator->free(allocator->ctx, data, bytes); }

// Random sizes in random order, each block full of its own number.
static void test_random(void) {
    enum { N = 200, STEPS = 20000 };
    begin();
    unsigned char *block[N] = {0};
    size_t bytes[N] = {0}, used = 0;
    hirl_rng_t rng = test_rng(1);
    int n_overlapping = 0, n_misaligned = 0;
    for (int step = 0; step < STEPS; step++) {
        const int i = (int)hirl_rng_below(&rng, N);
        if (block[i]) {
            for (size_t k = 0; k<bytes[i]; k += bytes[i]> 64 ? bytes[i] / 64 : 1)
                n_overlapping += block[i][k] != (unsigned char)i;
            n_overlapping += bytes[i] > 0 && block[i][bytes[i] - 1] != (unsigned char)i;
            give(block[i], bytes[i]);
            used -= bytes[i];
            block[i] = NULL;
        } else {
            // From nothing to 1 MiB, small sizes more often.
            const double power = hirl_rng_range(&rng, 0, 20);
            bytes[i] = (size_t)exp2(power) - 1;
            block[i] = take(bytes[i]);
            n_misaligned += (uintptr_t)block[i] % 64 != 0;
            memset(block[i], i, bytes[i]);
            used += bytes[i];
        }
        if (step % 1000 == 0)
            CHECK(hirl_pool_used(pool) >= used && hirl_pool_held(pool) >= hirl_pool_used(pool));
    }
    CHECK_EQ_I(n_overlapping, 0);
    CHECK_EQ_I(n_misaligned, 0);
    for (int i = 0; i < N; i++)
        if (block[i]) give(block[i], bytes[i]);
    CHECK_EQ_I(hirl_pool_used(pool), 0);
    CHECK(hirl_pool_peak(pool) > 0);
    // All blocks joined again, so every chunk is whole and can go.
    hirl_pool_trim(pool);
    CHECK_EQ_I(hirl_pool_held(pool), 0);
    hirl_pool_destroy(&pool);
    CHECK(pool == NULL);
}

// What was freed in pieces serves one large request, without growth.
static void test_joining(void) {
    begin();
    void *block[8];
    for (int i = 0; i < 8; i++) block[i] = take(MIB);
    const size_t held = hirl_pool_held(pool);
    const int order[8] = {3, 1, 4, 0, 6, 5, 2, 7};
    for (int i = 0; i < 8; i++) give(block[order[i]], MIB);
    void *whole = take(7 * MIB + MIB / 2);
    CHECK_EQ_I(hirl_pool_held(pool), held);
    give(whole, 7 * MIB + MIB / 2);
    hirl_pool_destroy(&pool);
}

// The best of the free blocks is taken, so that a step's sizes find the places of the step before.
static void test_fit(void) {
    begin();
    void *a = take(600 * KIB), *hold1 = take(200 * KIB), *b = take(300 * KIB),
         *hold2 = take(200 * KIB);
    give(a, 600 * KIB);
    give(b, 300 * KIB);
    void *c = take(290 * KIB);
    CHECK(c == b); // not from the larger gap
    void *d = take(600 * KIB);
    CHECK(d == a);
    give(c, 290 * KIB);
    give(d, 600 * KIB);
    give(hold1, 200 * KIB);
    give(hold2, 200 * KIB);
    hirl_pool_destroy(&pool);
}

// Activations are kept and then released backwards, with temporary tensors in between, as in training.
static void test_steady(void) {
    enum { LAYERS = 40 };
    begin();
    size_t held = 0, peak = 0, live = 0, live_peak = 0;
    for (int step = 0; step < 5; step++) {
        void *saved[LAYERS];
        for (int i = 0; i < LAYERS; i++) {
            const size_t bytes = (size_t)(8 * MIB) >> (i / 10);
            saved[i] = take(bytes);
            live += bytes;
            void *scratch = take(bytes / 3);
            if (live + bytes / 3 > live_peak) live_peak = live + bytes / 3;
            give(scratch, bytes / 3);
        }
        for (int i = LAYERS - 1; i >= 0; i--) {
            const size_t bytes = (size_t)(8 * MIB) >> (i / 10);
            void *gradient = take(bytes), *other = take(bytes);
            if (live + 2 * bytes > live_peak) live_peak = live + 2 * bytes;
            give(saved[i], bytes);
            live -= bytes;
            give(gradient, bytes);
            give(other, bytes);
        }
        if (step == 0) {
            held = hirl_pool_held(pool);
            peak = hirl_pool_peak(pool);
            // What is held beyond the peak of what lives is lost to the ends of chunks: an eighth at each growth.
            CHECK_MSG((double)held < 1.2 * (double)live_peak, "held %zu, live %zu", held,
                      live_peak);
        }
    }
    CHECK_EQ_I(hirl_pool_held(pool), held);
    CHECK_EQ_I(hirl_pool_peak(pool), peak);
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_ACTIVATION), held); // counted as what it is for
    hirl_pool_destroy(&pool);
}

static void test_limits(void) {
    begin();
    void *none = NULL;
    CHECK_FAILS(allocator->alloc(allocator->ctx, SIZE_MAX, &none), HIRL_ERR_MEMORY,
                "cannot allocate");
    CHECK(none == NULL);
    void *empty = take(0), *other = take(0);
    CHECK(empty && other && empty != other);
    give(empty, 0);
    give(other, 0);
    give(NULL, 0);
    CHECK_EQ_I(hirl_pool_used(pool), 0);
    hirl_pool_destroy(&pool);
    hirl_pool_destroy(&pool);
}

TEST_MAIN {
    RUN(test_random);
    RUN(test_joining);
    RUN(test_fit);
    RUN(test_steady);
    RUN(test_limits);
}
