// FAISS's random numbers: the generator against the value that the C++ standard gives for
// std::mt19937, and permutations against those that FAISS made.
// test: ranks=1
#include "../../src/cluster/cluster_impl.h"

#include "test.h"

#include "../reference/cluster/reference.h"

static void test_generator(void) {
    hirl_twister_t t;
    uint32_t x = 0;
    hirl_twister_init(&t, 5489);
    for (int i = 0; i < 10000; i++) x = hirl_twister_u32(&t);
    CHECK_EQ_I(x, 4123659995); // [rand.predef]: the 10000th of a default-constructed mt19937
}

static void test_uniform(void) {
    hirl_twister_t t, u;
    double sum = 0;
    hirl_twister_init(&t, 1234);
    hirl_twister_init(&u, 1234);
    for (int i = 0; i < 100000; i++) {
        const float x = hirl_twister_uniform(&t);
        CHECK_CLOSE(x, hirl_twister_u32(&u) / 4294967296.0, 6e-8,
                    0); // one rounding to single precision
        sum += x;
    }
    CHECK_CLOSE(sum / 100000, 0.5, 0,
                5 * 0.2887 / sqrt(100000)); // five standard deviations of a mean
}

static void test_permutation(void) {
    enum { N = 1000 };
    int32_t *want = reference_read("permutation.i32", 2 * N, sizeof(int32_t)), got[N];
    const int64_t seeds[2] = {1234, 3 + 1 + 4 * INT64_C(15486557)};
    for (int i = 0; i < 2; i++) {
        hirl_twister_permute(got, N, N, seeds[i]);
        CHECK_BITS(got, want + i * N, sizeof(got));
        // The first items alone.
        hirl_twister_permute(got, N, 7, seeds[i]);
        CHECK_BITS(got, want + i * N, 7 * sizeof(*got));
    }
    hirl_twister_permute(got, 1, 1, 5);
    CHECK_EQ_I(got[0], 0);
    hirl_mem_free(want);
}

TEST_MAIN {
    RUN(test_generator);
    RUN(test_uniform);
    RUN(test_permutation);
}
