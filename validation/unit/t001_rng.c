// Random numbers: Philox against the known answers of Random123, streams that stay apart,
// distributions, and permutations that are bijections with all orders equally likely.
// test: timeout=60
#include "hirl/base.h"
#include "hirl/base_exact.h"

#include "test.h"

#include <float.h>

// The vectors "philox4x32 10" of Random123's kat_vectors.
static void test_known_answers(void) {
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int k = 0; k < 3; k++) {
        hirl_rng_t rng = {0};
        memcpy(rng.key, known[k].key, sizeof rng.key);
        memcpy(rng.counter, known[k].counter, sizeof rng.counter);
        for (int i = 0; i < 4; i++) CHECK_EQ_I(hirl_rng_u32(&rng), known[k].out[i]);
    }
}

// A second implementation of the stream rule, from the paper's round function.
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)c[0] * 0xD2511F53u, b = (uint64_t)c[2] * 0xCD9E8D57u;
        const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b,
                                  (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof next);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// What a stream is made of is part of the answers: a run of last year must repeat.
static void test_stream_rule(void) {
    const uint64_t seed = UINT64_C(0x123456789abcdef0), epoch = UINT64_C(0x1122334455667788);
    const uint64_t index = UINT64_C(0x99aabbccddeeff00);
    hirl_rng_t rng = hirl_rng_make(seed, HIRL_RNG_AUGMENT, epoch, index, 7);
    uint32_t key[4] = {HIRL_RNG_AUGMENT, 7, (uint32_t)epoch, (uint32_t)(epoch >> 32)};
    philox(key, (uint32_t)seed, (uint32_t)(seed >> 32));
    for (uint32_t block = 0; block < 3; block++) {
        uint32_t c[4] = {block, HIRL_RNG_AUGMENT, (uint32_t)index, (uint32_t)(index >> 32)};
        philox(c, key[0], key[1]);
        for (int i = 0; i < 4; i++) CHECK_EQ_I(hirl_rng_u32(&rng), c[i]);
    }
    // Purposes are stored in checkpoints' answers: append only.
    CHECK(HIRL_RNG_INIT == 1 && HIRL_RNG_ORDER == 2 && HIRL_RNG_AUGMENT == 3 &&
          HIRL_RNG_SHUFFLE == 4);
    CHECK(HIRL_RNG_QUEUE == 5 && HIRL_RNG_PATH == 6 && HIRL_RNG_CLUSTER == 7 &&
          HIRL_RNG_SPLIT == 8);
    // After 2^32 blocks the count goes on beside the purpose.
    rng = hirl_rng_make(1, HIRL_RNG_TEST, 2, 3, 4);
    const uint32_t first = rng.counter[1];
    rng.counter[0] = UINT32_MAX;
    (void)hirl_rng_u32(&rng);
    CHECK_EQ_I(rng.counter[0], 0);
    CHECK_EQ_I(rng.counter[1], first + 256);
}

static void test_streams_differ(void) {
    // Each argument, high words included, changes the stream; equal arguments repeat it.
    const uint64_t high = UINT64_C(1) << 40;
    hirl_rng_t streams[] = {
        hirl_rng_make(1, HIRL_RNG_TEST, 2, 3, 4),
        hirl_rng_make(9, HIRL_RNG_TEST, 2, 3, 4),
        hirl_rng_make(1 + high, HIRL_RNG_TEST, 2, 3, 4),
        hirl_rng_make(1, HIRL_RNG_ORDER, 2, 3, 4),
        hirl_rng_make(1, HIRL_RNG_TEST, 9, 3, 4),
        hirl_rng_make(1, HIRL_RNG_TEST, 2 + high, 3, 4),
        hirl_rng_make(1, HIRL_RNG_TEST, 2, 9, 4),
        hirl_rng_make(1, HIRL_RNG_TEST, 2, 3 + high, 4),
        hirl_rng_make(1, HIRL_RNG_TEST, 2, 3, 9),
    };
    enum { N = sizeof streams / sizeof streams[0] };
    uint64_t first[N];
    hirl_rng_t again = streams[0];
    for (int i = 0; i < N; i++) first[i] = hirl_rng_u64(&streams[i]);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < i; j++) CHECK(first[i] != first[j]);
    }
    CHECK(hirl_rng_u64(&again) == first[0]);
}

static void test_distributions(void) {
    enum { N = 400000 };
    hirl_rng_t rng = test_rng(1);
    double sum = 0, square = 0, low = 1, high = 0;
    for (int i = 0; i < N; i++) {
        const double u = hirl_rng_uniform(&rng);
        sum += u;
        square += u * u;
        low = fmin(low, u);
        high = fmax(high, u);
    }
    // Bounds: five standard deviations of the mean of N draws (6e-7 in all); 1/12 and 4/45 are the
    // variances.
    CHECK(low >= 0 && high < 1 && low < 1e-4 && high > 1 - 1e-4);
    CHECK_CLOSE(sum / N, 0.5, 0, 5 * sqrt(1.0 / 12 / N));
    CHECK_CLOSE(square / N, 1.0 / 3, 0, 5 * sqrt(4.0 / 45 / N));

    double moment[5] = {0};
    for (int i = 0; i < N; i++) {
        const double x = hirl_rng_normal(&rng);
        for (int k = 1; k < 5; k++) moment[k] += pow(x, k) / N;
    }
    // Variances of the moments 1 to 4 of N(0, 1): 1, 2, 15, 96.
    CHECK_CLOSE(moment[1], 0, 0, 5 * sqrt(1.0 / N));
    CHECK_CLOSE(moment[2], 1, 0, 5 * sqrt(2.0 / N));
    CHECK_CLOSE(moment[3], 0, 0, 5 * sqrt(15.0 / N));
    CHECK_CLOSE(moment[4], 3, 0, 5 * sqrt(96.0 / N));

    // Many at a time: the same numbers (4 units in the last place of a double may become one of a float), at any split.
    static float many[1000], part[700];
    hirl_rng_t fresh = hirl_rng_make(3, HIRL_RNG_INIT, 1, 4, 1), one = fresh;
    hirl_rng_normals(&fresh, 0, 1000, 0.5, many);
    for (int i = 0; i < 1000; i++) CHECK_CLOSE(many[i], 0.5 * hirl_rng_normal(&one), 1.2e-7, 1e-15);
    hirl_rng_normals(&fresh, 255, 700, 0.5, part);
    CHECK(memcmp(part, many + 255, sizeof part) == 0);
    // On all machines: the hash is that of the numbers worked out with 120 bits (Python, mpmath) and rounded to float.
    const uint64_t hash = hirl_hash64(many, sizeof many);
    CHECK_MSG(hash == UINT64_C(0x486f7b3a6eb4d535), "1000 normal numbers have hash %016llx",
              (unsigned long long)hash);

    // A remainder of 64 bits without rejection would draw the upper third with probability 1/4.
    const int64_t n = INT64_C(3) << 61;
    int count[3] = {0};
    for (int i = 0; i < 30000; i++) {
        const int64_t x = hirl_rng_below(&rng, n);
        NEED(x >= 0 && x < n);
        count[x / (n / 3)]++;
    }
    for (int i = 0; i < 3; i++) CHECK_CLOSE(count[i], 10000, 0, 5 * sqrt(10000.0 * 2 / 3));
    CHECK_EQ_I(hirl_rng_below(&rng, 1), 0);
    for (int i = 0; i < 1000; i++) {
        const double x = hirl_rng_range(&rng, 1, nextafter(1, 2));
        CHECK(x == 1); // the sum would round up to the open end half of the time
    }
    CHECK(hirl_rng_range(&rng, 2, 2) == 2);
}

static void test_bijection(void) {
    const int64_t sizes[] = {1, 2, 3, 4, 5, 17, 64, 65, 1000, 4097, 60000, 1281167};
    for (int k = 0; k < (int)(sizeof sizes / sizeof sizes[0]); k++) {
        const int64_t n = sizes[k];
        unsigned char *seen = NULL;
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &seen));
        const hirl_permutation_t p = hirl_permutation_make(test_seed(), HIRL_RNG_ORDER, 3, n);
        int64_t n_new = 0;
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = hirl_permutation_at(&p, i);
            if (at >= 0 && at < n && !seen[at]) n_new++, seen[at] = 1;
        }
        CHECK_EQ_I(n_new, n);
        hirl_mem_free(seen);
    }
    // Sizes that no array could hold: only the range can be looked at.
    const int64_t huge = (INT64_C(1) << 62) + 12345;
    const hirl_permutation_t p = hirl_permutation_make(test_seed(), HIRL_RNG_ORDER, 0, huge);
    for (int64_t i = 0; i < 1000; i++) {
        const int64_t at = hirl_permutation_at(&p, i * (huge / 1000));
        CHECK(at >= 0 && at < huge);
    }
}

static void test_epochs_differ(void) {
    // Two independent orders of n agree in one place on average (variance 1): 12 is far beyond
    // chance, and so is none over all pairs of 16 epochs.
    enum { N = 5000, EPOCHS = 16 };
    int n_all = 0, n_fixed = 0;
    for (uint64_t a = 0; a < EPOCHS; a++) {
        const hirl_permutation_t p = hirl_permutation_make(test_seed(), HIRL_RNG_ORDER, a, N);
        for (int64_t i = 0; i < N; i++) n_fixed += hirl_permutation_at(&p, i) == i;
        for (uint64_t b = 0; b < a; b++) {
            const hirl_permutation_t q = hirl_permutation_make(test_seed(), HIRL_RNG_ORDER, b, N);
            int n = 0;
            for (int64_t i = 0; i < N; i++) {
                n += hirl_permutation_at(&p, i) == hirl_permutation_at(&q, i);
            }
            CHECK(n <= 12);
            n_all += n;
        }
    }
    CHECK_CLOSE(n_all, 120, 0, 5 * sqrt(120.0));
    CHECK_CLOSE(n_fixed, EPOCHS, 0, 5 * sqrt((double)EPOCHS));
    const hirl_permutation_t p = hirl_permutation_make(1, HIRL_RNG_ORDER, 0, N),
                             q = hirl_permutation_make(1, HIRL_RNG_SHUFFLE, 0, N),
                             r = hirl_permutation_make(2, HIRL_RNG_ORDER, 0, N);
    int n_same = 0;
    for (int64_t i = 0; i < N; i++) {
        n_same += hirl_permutation_at(&p, i) == hirl_permutation_at(&q, i);
        n_same += hirl_permutation_at(&p, i) == hirl_permutation_at(&r, i);
    }
    CHECK(n_same <= 20);
}

// All n! orders of few items equally often: chi-squared with n! - 1 degrees of freedom (mean n! -
// 1, variance twice that). Halves of two bits would fail: at n = 6 they give 3000 instead of 719.
static void test_orders(void) {
    for (int n = 2; n <= 6; n++) {
        int n_orders = 1;
        for (int i = 2; i <= n; i++) n_orders *= i;
        int count[720] = {0};
        for (int epoch = 0; epoch < 100 * n_orders; epoch++) {
            const hirl_permutation_t p =
                hirl_permutation_make(test_seed(), HIRL_RNG_SHUFFLE, (uint64_t)epoch, n);
            int64_t at[6];
            int code = 0;
            for (int i = 0; i < n; i++) at[i] = hirl_permutation_at(&p, i);
            for (int i = 0; i < n; i++) {
                int rank = 0;
                for (int j = i + 1; j < n; j++) rank += at[j] < at[i];
                code = code * (n - i) + rank;
            }
            count[code]++;
        }
        double chi2 = 0;
        for (int i = 0; i < n_orders; i++) chi2 += (count[i] - 100.0) * (count[i] - 100.0) / 100;
        CHECK_MSG(chi2 <= n_orders - 1 + 5 * sqrt(2.0 * n_orders), "n = %d: chi2 = %g of %d", n,
                  chi2, n_orders - 1);
    }
}

// Numbers by place are those of the sequence, however a range is cut, and beyond 2^32 of them.
static void test_words(void) {
    const hirl_rng_t fresh = hirl_rng_make(3, HIRL_RNG_TEST, 4, UINT64_C(5) << 33, 6);
    uint32_t want[400], got[400];
    hirl_rng_t rng = fresh;
    for (int i = 0; i < 400; i++) want[i] = hirl_rng_u32(&rng);
    for (int cut = 0; cut <= 400; cut += 7) {
        hirl_rng_words(&fresh, 0, cut, got);
        hirl_rng_words(&fresh, cut, 400 - cut, got + cut);
        CHECK_BITS(got, want, sizeof want);
    }
    hirl_rng_words(&fresh, INT64_C(4) * 0xfffffffe + 2, 6, got);
    rng = fresh;
    rng.counter[0] = 0xfffffffe;
    (void)hirl_rng_u64(&rng);
    for (int i = 0; i < 6; i++) CHECK_EQ_I(got[i], hirl_rng_u32(&rng));
}

// Against the C library in long double; zeros of the sine, and numbers near 1, are among them.
static void test_exact(void) {
    const long double pi = 3.14159265358979323846264338327950288L;
    hirl_rng_t rng = test_rng(5);
    double worst_sin = 0, worst_log = 0;
    for (int i = 0; i < 200000; i++) {
        const double x = i < 13 ? 0.5 * (i - 6) : hirl_rng_range(&rng, -3, 3);
        const double u = i < 60 ? ldexp(1, -i) : 1 - hirl_rng_uniform(&rng) * (i % 3 ? 1 : 1e-3);
        const long double sine = sinl(pi * (long double)x), log_u = logl((long double)u);
        worst_sin = fmax(worst_sin, (double)fabsl((long double)hirl_exact_sin_pi(x) - sine));
        worst_log = fmax(worst_log, (double)(fabsl((long double)hirl_exact_log(u) - log_u) /
                                             (fabsl(log_u) + LDBL_MIN)));
    }
    CHECK_MSG(worst_sin < 4e-16, "sine errs by %.3g", worst_sin);
    CHECK_MSG(worst_log < 2 * DBL_EPSILON, "logarithm errs by %.3g of its value", worst_log);
    CHECK(hirl_exact_log(1) == 0 && hirl_exact_sin_pi(1) == 0 && hirl_exact_sin_pi(-2) == 0);
}

TEST_MAIN {
    RUN(test_known_answers);
    RUN(test_words);
    RUN(test_stream_rule);
    RUN(test_streams_differ);
    RUN(test_distributions);
    RUN(test_exact);
    RUN(test_bijection);
    RUN(test_epochs_differ);
    RUN(test_orders);
}
