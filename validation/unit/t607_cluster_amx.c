// The first pass in bfloat16 changes no bit: nearest rows and top-k lists with it and without it,
// on data that makes it easy, hard and useless: rows far apart, nearly alike, equal, of very
// different norms, too large, too small.
// test: ranks=1 timeout=120
#include "../../src/cluster/cluster_impl.h"

#include "test.h"

typedef enum kind {
    NORMAL,
    MIXTURE,
    ALIKE,
    EQUAL,
    NORMS,
    INTEGERS,
    LARGE,
    SMALL,
    SUBNORMAL,
    ZERO,
    N_KINDS
} kind_t;
static const char *const kind_names[] = {"normal",   "mixture", "alike", "equal",     "norms",
                                         "integers", "large",   "small", "subnormal", "zero"};

static float *make(kind_t kind, int64_t n, int d, uint64_t index) {
    float *x = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n * d, &x));
    test_fill_normal(x, n * d, 100 * (uint64_t)kind + index);
    hirl_rng_t rng = test_rng(77), own = test_rng(1000 + index);
    float *centre = NULL;
    NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, 20 * d, &centre));
    for (int64_t i = 0; i < 20 * d; i++)
        centre[i] = (float)hirl_rng_normal(&rng); // the same for rows and packed rows
    for (int64_t i = 0; i < n; i++) {
        const float *c = centre + hirl_rng_below(&own, 20) * d;
        const float norm = (float)exp(hirl_rng_range(&own, -7, 7));
        for (int j = 0; j < d; j++) {
            float *v = x + i * d + j;
            switch (kind) {
                case MIXTURE: *v = c[j] + 0.2f * *v; break;
                case ALIKE: *v = centre[j] + 1e-4f * *v; break;
                case EQUAL: *v = centre[j % 7]; break;
                case NORMS: *v *= norm; break;
                case INTEGERS: *v = roundf(*v); break;
                case LARGE: *v *= 1e15f; break;
                case SMALL: *v *= 1e-15f; break;
                case SUBNORMAL: *v = i % 2 ? *v * 1e-39f : *v; break;
                case ZERO: *v = i % 3 ? 0 : *v; break;
                default: break;
            }
        }
    }
    hirl_mem_free(centre);
    return x;
}

static void check_nearest(kind_t kind, int64_t n, int d, int64_t k) {
    float *x = make(kind, n, d, 1), *c = make(kind, k, d, 2);
    int32_t *index[2];
    for (int amx = 0; amx < 2; amx++) {
        hirl_panels_t panels;
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &index[amx]));
        NEED_OK(hirl_panels_init(&panels, k + 50, d, true, amx));
        CHECK((panels.amx != NULL) == (amx == 1));
        hirl_panels_pack(&panels, x,
                         n < k ? n : k); // other rows before: nothing may be left of them
        hirl_panels_pack(&panels, c, k);
        hirl_panels_nearest(&panels, x, n, index[amx]);
        hirl_panels_reset(&panels);
    }
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n; i++) n_wrong += index[0][i] != index[1][i];
    CHECK_MSG(n_wrong == 0, "nearest, %s, n %lld d %d k %lld: %lld of the rows differ",
              kind_names[kind], (long long)n, d, (long long)k, (long long)n_wrong);
    hirl_mem_free(index[0]);
    hirl_mem_free(index[1]);
    hirl_mem_free(c);
    hirl_mem_free(x);
}

static void check_topk(kind_t kind, int64_t n_query, int64_t n, int d, int64_t k) {
    float *bank = make(kind, n, d, 3), *query = make(kind, n_query, d, 4);
    uint64_t *keys[2];
    hirl_panels_t panels;
    hirl_tiles_t tiles;
    NEED_OK(hirl_panels_init(&panels, n_query, d, false, false));
    NEED_OK(hirl_tiles_init(&tiles, n, d));
    hirl_panels_pack(&panels, query, n_query);
    hirl_tiles_pack(&tiles, bank, n);
    for (int amx = 0; amx < 2; amx++) {
        NEED_OK(HIRL_ALLOC(HIRL_MEM_GENERAL, n_query * k, &keys[amx]));
        NEED_OK(hirl_topk_search(&panels, bank, n, amx ? &tiles : NULL, 5000, k, keys[amx]));
    }
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n_query * k; i++) n_wrong += keys[0][i] != keys[1][i];
    CHECK_MSG(n_wrong == 0, "top-k, %s, queries %lld n %lld d %d k %lld: %lld keys differ",
              kind_names[kind], (long long)n_query, (long long)n, d, (long long)k,
              (long long)n_wrong);
    hirl_mem_free(keys[0]);
    hirl_mem_free(keys[1]);
    hirl_tiles_reset(&tiles);
    hirl_panels_reset(&panels);
    hirl_mem_free(query);
    hirl_mem_free(bank);
}

static void test_nearest(void) {
    for (kind_t kind = 0; kind < N_KINDS; kind++) {
        check_nearest(kind, 700, 64, 200);
        check_nearest(kind, 129, 17, 33);
        check_nearest(kind, 1, 16, 1);
        check_nearest(kind, 300, 130, 15);
        check_nearest(kind, 40, 1000, 50);
    }
}

static void test_topk(void) {
    for (kind_t kind = 0; kind < N_KINDS; kind++) {
        check_topk(kind, 70, 3000, 64, 20);
        check_topk(kind, 33, 1000, 17, 300);
        check_topk(kind, 1, 1, 16, 1);
        check_topk(kind, 40, 31, 45, 31);
        check_topk(kind, 5, 20000, 20, 7); // the bank is cut for the threads
        check_topk(kind, 1100, 500, 33, 5);
    }
}

TEST_MAIN {
    if (!hirl_amx_is_usable(64)) SKIP("this processor or build has no AMX");
    RUN(test_nearest);
    RUN(test_topk);
}
