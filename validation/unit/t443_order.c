// test: ranks=1,2 timeout=60
// The order of an epoch: every sample once, whatever the window; near positions lie in few stretches;
// all orders of a window occur; and the loader follows it on any number of ranks.
#include "pack_util.h"

static void test_every_sample_once(void) {
    const int64_t sizes[] = {1, 2, 15, 16, 17, 100, 1000, 4097};
    const int64_t windows[] = {0, 1, 2, 15, 16, 17, 64, 100, 999, 1000, 4096, 5000};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t n = sizes[s];
        unsigned char *seen = malloc((size_t)n);
        for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
            for (int64_t epoch = 0; epoch < 3; epoch++) {
                const hirl_order_t order = hirl_order_make(test_seed(), epoch, n, windows[w]);
                int64_t n_wrong = 0;
                memset(seen, 0, (size_t)n);
                for (int64_t p = 0; p < n; p++) {
                    const int64_t i = hirl_order_at(&order, p);
                    if (i < 0 || i >= n || seen[i]++) n_wrong++;
                }
                CHECK_MSG(n_wrong == 0, "n = %lld window = %lld: %lld samples twice or outside",
                          (long long)n, (long long)windows[w], (long long)n_wrong);
            }
        }
        free(seen);
    }
}

// Without a window it is the keyed permutation that runs have always had.
static void test_without_window(void) {
    const hirl_permutation_t want = hirl_permutation_make(test_seed(), HIRL_RNG_ORDER, 5, 1234);
    const hirl_order_t order = hirl_order_make(test_seed(), 5, 1234, 0);
    int n_wrong = 0;
    for (int64_t p = 0; p < 1234; p++)
        n_wrong += hirl_order_at(&order, p) != hirl_permutation_at(&want, p);
    CHECK_EQ_I(n_wrong, 0);
}

static int compare(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

// A window of 1600 samples comes from 16 stretches of 100: fewer if two of them touch.
static void test_stretches(void) {
    enum { N = 100000, WINDOW = 1600 };
    int64_t at[WINDOW];
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        const hirl_order_t order = hirl_order_make(test_seed(), epoch, N, WINDOW);
        for (int64_t w = 0; w < 20; w++) {
            for (int64_t p = 0; p < WINDOW; p++) at[p] = hirl_order_at(&order, w * WINDOW + p);
            int n_near = 0; // neighbours in the order that are neighbours in the set
            for (int64_t p = 1; p < WINDOW; p++) n_near += at[p] == at[p - 1] + 1;
            // One in 1600 by chance.
            CHECK_MSG(n_near <= 10, "%d samples follow each other as in the set", n_near);
            qsort(at, WINDOW, sizeof *at, compare);
            int n_stretches = 1;
            for (int64_t p = 1; p < WINDOW; p++) n_stretches += at[p] != at[p - 1] + 1;
            CHECK_MSG(n_stretches <= 16 && n_stretches >= 8, "%d stretches", n_stretches);
        }
    }
}

// Each sample of a small set comes first equally often: 6000 draws of 12, five standard deviations of
// sqrt(6000 / 12 * 11 / 12) = 21.4.
static void test_uniform(void) {
    enum { N = 12, N_EPOCHS = 6000 };
    int first[N] = {0};
    for (int64_t epoch = 0; epoch < N_EPOCHS; epoch++) {
        const hirl_order_t order = hirl_order_make(test_seed(), epoch, N, 6);
        first[hirl_order_at(&order, 0)]++;
    }
    for (int i = 0; i < N; i++)
        CHECK_MSG(abs(first[i] - N_EPOCHS / N) < 107, "sample %d was first %d times", i, first[i]);
}

static void test_loader(void) {
    char out[512];
    hirl_world_t *world;
    hirl_shard_set_t *set = NULL;
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, test_rank());
    snprintf(out, sizeof out, "%.400s/out", test_folder());
    const hirl_pack_cfg_t pack = pack_cfg(FASHION, "val", out);
    hirl_data_cfg_t cfg = data_cfg("mmap");
    NEED_OK(hirl_data_pack(world, &pack));
    NEED_OK(hirl_shard_set_open(world, out, &cfg, &set));
    cfg.window = 500;
    cfg.read_ahead = true;
    cfg.n_threads = 2;
    cfg.n_ahead = 2;
    cfg.mean[0] = 0.5, cfg.std[0] = 0.5, cfg.n_mean = cfg.n_std = 1;
    const hirl_view_spec_t view = {
        .size = 4, .scale = {0.2, 1}, .ratio = {0.75, 1.33}, .blur_sigma = {1, 1}};
    const hirl_loader_spec_t spec = {
        .batch = 64, .seed = test_seed(), .is_train = true, .views = &view, .n_views = 1};
    NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
    const int64_t n = 64 / test_size(), n_set = hirl_shard_set_n_samples(set);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        const hirl_order_t order = hirl_order_make(test_seed(), epoch, n_set, 500);
        int64_t n_wrong = 0, number = 3; // from the middle of the epoch on
        NEED_OK(hirl_loader_begin_epoch(loader, epoch, number));
        for (;; number++) {
            NEED_OK(hirl_loader_next(loader, &batch));
            if (!batch) break;
            for (int64_t i = 0; i < n; i++)
                n_wrong +=
                    batch->index[i] != hirl_order_at(&order, number * 64 + test_rank() * n + i);
        }
        CHECK_EQ_I(number, n_set / 64);
        CHECK_EQ_I(n_wrong, 0);
    }
    hirl_loader_destroy(&loader);
    hirl_shard_set_close(&set);
    hirl_world_destroy(&world);
}

TEST_MAIN {
    RUN(test_every_sample_once);
    RUN(test_without_window);
    RUN(test_stretches);
    RUN(test_uniform);
    RUN(test_loader);
}
