// The loader against samples read, decoded and augmented one by one: the same bits on any number of
// ranks and threads, in any epoch, from any batch on; evaluation batches; undecodable samples. Batches that keep their pixels become
// the same views in the hands of the reference backend.
// test: ranks=1,2,4 timeout=90
#include "pack_util.h"

enum { N_GRAY = 203, N_EPOCHS = 3 };

static hirl_world_t *world;
static hirl_shard_set_t *gray, *color;
static hirl_backend_t *be;
static bool keeps_pixels; // of the training batches asked for

static hirl_data_cfg_t loader_cfg(int n_threads, int n_ahead) {
    hirl_data_cfg_t cfg = data_cfg("mmap");
    cfg.n_threads = n_threads;
    cfg.n_ahead = n_ahead;
    cfg.max_bad_fraction = 0.1;
    cfg.mean[0] = 0.4, cfg.std[0] = 0.3;
    cfg.n_mean = cfg.n_std = 1;
    return cfg;
}

static hirl_view_spec_t view_spec(int size) {
    return (hirl_view_spec_t){.size = size,
                              .scale = {0.2, 1},
                              .ratio = {0.75, 4.0 / 3.0},
                              .jitter_prob = 0.8,
                              .brightness = 0.4,
                              .contrast = 0.4,
                              .saturation = 0.4,
                              .hue = 0.1,
                              .gray_prob = 0.2,
                              .blur_prob = 0.5,
                              .blur_sigma = {0.1, 2},
                              .flip_prob = 0.5};
}

static hirl_view_spec_t views[2];
static hirl_loader_spec_t train_spec(int64_t batch) {
    views[0] = view_spec(28);
    views[1] = view_spec(17);
    return (hirl_loader_spec_t){.batch = batch,
                                .seed = test_seed(),
                                .is_train = true,
                                .keeps_pixels = keeps_pixels,
                                .views = views,
                                .n_views = 2};
}

static uint64_t hash_of(int64_t index, int32_t label, const float *const *view, const size_t *n,
                        int n_views) {
    uint64_t hash = (uint64_t)index * 31 + (uint64_t)(uint32_t)label;
    for (int v = 0; v < n_views; v++) hash = hash * 31 + hirl_hash64(view[v], n[v] * sizeof(float));
    return hash;
}

// Sample i of a batch, with everything that belongs to it.
static uint64_t hash_sample(const hirl_batch_t *batch, int64_t i) {
    const float *view[HIRL_MAX_VIEWS];
    hirl_tensor_t pixels = {0}, made[HIRL_MAX_VIEWS] = {{0}};
    size_t n[HIRL_MAX_VIEWS];
    if (batch->pixels)
        NEED_OK(hirl_tensor_wrap((void *)(uintptr_t)batch->pixels,
                                 hirl_shape_1(batch->n_pixel_bytes), HIRL_U8, &pixels));
    for (int v = 0; v < batch->n_views; v++) {
        n[v] = (size_t)batch->size[v] * (size_t)batch->width[v] * (size_t)batch->channels;
        if (batch->pixels) {
            NEED(batch->view[v] == NULL);
            NEED_OK(hirl_batch_make_view(be, batch, &pixels, v, i, 1, &made[v]));
            view[v] = hirl_tensor_f32(&made[v]);
        } else {
            view[v] = batch->view[v] + (size_t)i * n[v];
        }
    }
    const uint64_t hash = hash_of(batch->index[i], batch->label[i], view, n, batch->n_views);
    for (int v = 0; v < batch->n_views; v++) hirl_tensor_reset(&made[v]);
    hirl_tensor_reset(&pixels);
    return hash;
}

// What every position of an epoch must hold, made by one thread with nothing but the functions the
// loader is specified by.
static uint64_t *expect_epoch(const hirl_shard_set_t *set, int64_t epoch) {
    const int64_t n_set = hirl_shard_set_n_samples(set);
    const int channels = hirl_shard_set_channels(set);
    const hirl_loader_spec_t spec = train_spec(1);
    const float mean[3] = {0.4f, 0.4f, 0.4f}, std[3] = {0.3f, 0.3f, 0.3f};
    uint64_t *hash = malloc((size_t)n_set * sizeof *hash);
    hirl_augment_t *augment = NULL;
    hirl_buffer_t bytes = {0}, pixels = {0};
    NEED(hash != NULL);
    NEED_OK(hirl_augment_create(&augment));
    hirl_permutation_t order =
        hirl_permutation_make(spec.seed, HIRL_RNG_ORDER, (uint64_t)epoch, n_set);
    for (int64_t p = 0; p < n_set; p++) {
        const int64_t index = hirl_permutation_at(&order, p);
        hirl_sample_t sample;
        hirl_image_t image;
        NEED_OK(hirl_shard_set_read(set, index, &bytes, &sample));
        NEED_OK(hirl_image_decode(&sample, channels, &pixels, &image));
        float out[2][28 * 28 * 3];
        const float *view[2] = {out[0], out[1]};
        size_t n[2];
        for (int v = 0; v < 2; v++) {
            hirl_rng_t rng = hirl_rng_make(spec.seed, HIRL_RNG_AUGMENT, (uint64_t)epoch,
                                           (uint64_t)index, (uint32_t)v);
            n[v] = (size_t)(views[v].size * views[v].size * channels);
            NEED_OK(hirl_augment_view(augment, &image, &views[v], &rng, mean, std, out[v]));
        }
        hash[p] = hash_of(index, sample.label, view, n, 2);
    }
    hirl_augment_destroy(&augment);
    hirl_buffer_reset(&bytes);
    hirl_buffer_reset(&pixels);
    return hash;
}

// Takes one batch and compares it with the expectation. False at the end of the epoch.
static bool check_next(hirl_loader_t *loader, const uint64_t *want, int64_t batch, int64_t number) {
    const hirl_batch_t *got = NULL;
    NEED_OK(hirl_loader_next(loader, &got));
    if (!got) return false;
    const int64_t n = batch / test_size();
    CHECK_EQ_I(got->n, n);
    CHECK_EQ_I(got->number, number);
    CHECK(got->n_views == 2 && got->size[1] == 17 && got->width[1] == 17);
    CHECK((got->pixels != NULL) == keeps_pixels);
    CHECK((uintptr_t)got->view[0] % 64 == 0 && (uintptr_t)got->view[1] % 64 == 0);
    int64_t n_wrong = 0;
    for (int64_t i = 0; i < n; i++)
        n_wrong += hash_sample(got, i) != want[number * batch + test_rank() * n + i];
    CHECK_MSG(n_wrong == 0, "batch %lld: %lld of %lld samples differ", (long long)number,
              (long long)n_wrong, (long long)n);
    return true;
}

static void check_set(const hirl_shard_set_t *set, int64_t batch) {
    static const int n_threads[] = {1, 2, 3, 8}, n_ahead[] = {1, 3, 2, 5};
    const int64_t n_set = hirl_shard_set_n_samples(set), n_batches = n_set / batch;
    uint64_t *want[N_EPOCHS];
    for (int e = 0; e < N_EPOCHS; e++) want[e] = expect_epoch(set, e);
    CHECK(want[0][0] != want[1][0] && want[1][0] != want[2][0]);
    for (int t = 0; t < 4; t++) {
        const hirl_data_cfg_t cfg = loader_cfg(n_threads[t], n_ahead[t]);
        const hirl_loader_spec_t spec = train_spec(batch);
        hirl_loader_t *loader = NULL;
        NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
        CHECK_EQ_I(hirl_loader_n_batches(loader), n_batches);
        for (int e = 0; e < N_EPOCHS; e++) {
            NEED_OK(hirl_loader_begin_epoch(loader, e, 0));
            for (int64_t b = 0; b < n_batches; b++) CHECK(check_next(loader, want[e], batch, b));
            CHECK(!check_next(loader, want[e], batch, n_batches));
            CHECK(!check_next(loader, want[e], batch, n_batches));
        }
        // Epochs followed each other without dropping work: only what is ahead was made besides.
        const hirl_loader_counts_t counts = hirl_loader_counts(loader);
        const int64_t n_local = batch / test_size(), n_used = N_EPOCHS * n_batches * n_local;
        CHECK(counts.n_samples >= n_used &&
              counts.n_samples <= n_used + cfg.n_ahead * n_local + n_local);
        CHECK(counts.wait_s >= 0 && counts.work_s > 0 && counts.n_bad == 0);

        // In the middle of an epoch, backwards, forwards, at the end, and where it stands anyway.
        static const int jumps[][2] = {{1, 1}, {0, 2}, {2, 0}, {2, 0}, {1, 2}};
        for (size_t j = 0; j < sizeof jumps / sizeof *jumps; j++) {
            const int e = jumps[j][0];
            const int64_t b = jumps[j][1];
            NEED_OK(hirl_loader_begin_epoch(loader, e, b));
            CHECK(check_next(loader, want[e], batch, b));
        }
        NEED_OK(hirl_loader_begin_epoch(loader, 0, n_batches));
        CHECK(!check_next(loader, want[0], batch, n_batches));
        NEED_OK(hirl_loader_begin_epoch(loader, 1, 0));
        CHECK(check_next(loader, want[1], batch, 0));

        // A batch in use survives a jump, until the next one is asked for.
        const hirl_batch_t *held = NULL;
        NEED_OK(hirl_loader_next(loader, &held));
        const uint64_t before = hash_sample(held, 0);
        NEED_OK(hirl_loader_begin_epoch(loader, 2, 0));
        usleep(20000); // time for the workers to fill what they may
        CHECK(hash_sample(held, 0) == before);
        CHECK(check_next(loader, want[2], batch, 0));
        CHECK_FAILS(hirl_loader_begin_epoch(loader, 0, n_batches + 1), HIRL_ERR_ARG,
                    "want a batch");
        hirl_loader_destroy(&loader);
        CHECK(loader == NULL);
    }

    // Two batches may be held: both stay while the workers go on, also over a jump; the third takes the place of the first.
    {
        const hirl_data_cfg_t cfg = loader_cfg(2, 1);
        hirl_loader_spec_t spec = train_spec(batch);
        hirl_loader_t *loader = NULL;
        const hirl_batch_t *held[2] = {NULL, NULL}, *third = NULL;
        uint64_t before[2];
        spec.n_held = 3;
        CHECK_FAILS(hirl_loader_create(world, set, &cfg, &spec, &loader), HIRL_ERR_ARG,
                    "2 at most");
        spec.n_held = 2;
        NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
        NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
        for (int i = 0; i < 2; i++) {
            NEED_OK(hirl_loader_next(loader, &held[i]));
            before[i] = hash_sample(held[i], 0);
            usleep(20000);
        }
        NEED(held[0] != held[1] && held[0]->number == 0 && held[1]->number == 1);
        NEED_OK(hirl_loader_begin_epoch(loader, 2, 0));
        usleep(20000);
        for (int i = 0; i < 2; i++) CHECK(hash_sample(held[i], 0) == before[i]);
        NEED_OK(hirl_loader_next(loader, &third));
        usleep(20000);
        CHECK(third->number == 0 && hash_sample(held[1], 0) == before[1]);
        hirl_loader_destroy(&loader);
    }

    // A fresh loader that begins where another stopped.
    const hirl_data_cfg_t cfg = loader_cfg(2, 2);
    const hirl_loader_spec_t spec = train_spec(batch);
    hirl_loader_t *loader = NULL;
    NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
    const hirl_batch_t *none = NULL;
    CHECK_FAILS(hirl_loader_next(loader, &none), HIRL_ERR_ARG, "no epoch");
    NEED_OK(hirl_loader_begin_epoch(loader, 1, 1));
    for (int64_t b = 1; b < n_batches; b++) CHECK(check_next(loader, want[1], batch, b));
    CHECK(!check_next(loader, want[1], batch, n_batches));
    hirl_loader_destroy(&loader);
    hirl_loader_destroy(&loader);
    for (int e = 0; e < N_EPOCHS; e++) free(want[e]);
}

static void test_train_gray(void) { check_set(gray, 32); }
static void test_train_color(void) { check_set(color, 8); }

static void test_kept_pixels(void) {
    keeps_pixels = true;
    check_set(gray, 32);
    check_set(color, 8);
    const hirl_data_cfg_t cfg = loader_cfg(2, 2);
    const hirl_loader_spec_t spec = train_spec(8);
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    hirl_tensor_t pixels = {0}, view = {0};
    NEED_OK(hirl_loader_create(world, color, &cfg, &spec, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    NEED_OK(hirl_loader_next(loader, &batch));
    NEED_OK(hirl_batch_upload(be, batch, &pixels));
    // All rows at once are the rows one by one.
    NEED_OK(hirl_batch_make_view(be, batch, &pixels, 1, 0, batch->n, &view));
    for (int64_t i = 0; i < batch->n; i++) {
        hirl_tensor_t one = {0};
        NEED_OK(hirl_batch_make_view(be, batch, &pixels, 1, i, 1, &one));
        CHECK_BITS(hirl_tensor_f32(&one), hirl_tensor_f32(&view) + i * 17 * 17 * 3,
                   17 * 17 * 3 * sizeof(float));
        hirl_tensor_reset(&one);
    }
    hirl_tensor_reset(&view);
    CHECK_FAILS(hirl_batch_make_view(be, batch, &pixels, 1, 1, batch->n, &view), HIRL_ERR_ARG,
                "of a batch of");
    CHECK_FAILS(hirl_batch_make_view(be, batch, &pixels, 2, 0, 1, &view), HIRL_ERR_ARG,
                "view 2 of 2");
    hirl_tensor_reset(&pixels);
    hirl_loader_destroy(&loader);
    keeps_pixels = false;
    const hirl_loader_spec_t made = train_spec(8);
    NEED_OK(hirl_loader_create(world, color, &cfg, &made, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    NEED_OK(hirl_loader_next(loader, &batch));
    CHECK(batch->pixels == NULL && batch->view[0] != NULL);
    CHECK_FAILS(hirl_batch_upload(be, batch, &pixels), HIRL_ERR_ARG, "no pixels");
    CHECK_FAILS(hirl_batch_make_view(be, batch, &pixels, 0, 0, 1, &view), HIRL_ERR_ARG,
                "no recipes");
    hirl_loader_destroy(&loader);
}

// Another seed is another order and other views; views of one sample differ.
static void test_seed_matters(void) {
    const hirl_data_cfg_t cfg = loader_cfg(2, 1);
    uint64_t hash[2];
    for (int k = 0; k < 2; k++) {
        hirl_loader_spec_t spec = train_spec(4);
        views[1] = views[0];
        spec.seed += (uint64_t)k;
        hirl_loader_t *loader = NULL;
        const hirl_batch_t *batch = NULL;
        NEED_OK(hirl_loader_create(world, gray, &cfg, &spec, &loader));
        NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
        NEED_OK(hirl_loader_next(loader, &batch));
        NEED(batch != NULL);
        hash[k] = hash_sample(batch, 0);
        CHECK(memcmp(batch->view[0], batch->view[1], 28 * 28 * sizeof(float)) != 0);
        hirl_loader_destroy(&loader);
    }
    CHECK(hash[0] != hash[1]);
}

// ------------------------------------------------------------------------------------ evaluation

static void test_eval(void) {
    const hirl_data_cfg_t cfg = loader_cfg(3, 2);
    const hirl_loader_spec_t spec = {.batch = 10};
    const int64_t first = N_GRAY * test_rank() / test_size(),
                  n = N_GRAY * (test_rank() + 1) / test_size() - first;
    hirl_loader_t *loader = NULL;
    NEED_OK(hirl_loader_create(world, gray, &cfg, &spec, &loader));
    CHECK_EQ_I(hirl_loader_n_batches(loader), (n + 9) / 10);
    hirl_buffer_t bytes = {0};
    for (int round = 0; round < 2; round++) {
        int64_t at = 0, n_wrong = 0;
        NEED_OK(hirl_loader_begin_epoch(loader, round, 0));
        for (const hirl_batch_t *batch;; at += batch->n) {
            NEED_OK(hirl_loader_next(loader, &batch));
            if (!batch) break;
            CHECK_EQ_I(batch->n, n - at < 10 ? n - at : 10);
            CHECK(batch->n_views == 1 && batch->size[0] == 28 && batch->width[0] == 28);
            for (int64_t i = 0; i < batch->n; i++) {
                hirl_sample_t sample;
                NEED_OK(hirl_shard_set_read(gray, first + at + i, &bytes, &sample));
                n_wrong += batch->index[i] != first + at + i || batch->label[i] != sample.label;
                const float *view = batch->view[0] + i * 28 * 28;
                // Raw pixels, normalised: (p / 255 - 0.4) / 0.3 within two roundings of numbers
                // below 2.
                for (int k = 0; k < 28 * 28; k++)
                    n_wrong += fabs((double)view[k] - (sample.bytes[k] / 255.0 - 0.4) / 0.3) > 4e-7;
            }
        }
        CHECK_EQ_I(at, n);
        CHECK_EQ_I(n_wrong, 0);
    }
    hirl_buffer_reset(&bytes);
    hirl_loader_destroy(&loader);

    // Images of many sizes: a crop makes them alike, without one they are refused.
    hirl_loader_spec_t many = {.batch = 5, .eval_resize = 20, .eval_crop = 16};
    NEED_OK(hirl_loader_create(world, color, &cfg, &many, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    int64_t seen = 0;
    for (const hirl_batch_t *batch;; seen += batch->n) {
        NEED_OK(hirl_loader_next(loader, &batch));
        if (!batch) break;
        CHECK(batch->size[0] == 16 && batch->width[0] == 16 && batch->channels == 3);
    }
    CHECK_EQ_I(seen, hirl_shard_set_n_samples(color) * (test_rank() + 1) / test_size() -
                         hirl_shard_set_n_samples(color) * test_rank() / test_size());
    hirl_loader_destroy(&loader);
    many.eval_crop = 0;
    CHECK_FAILS(hirl_loader_create(world, color, &cfg, &many, &loader), HIRL_ERR_DECK,
                "views%eval_crop");
}

// ------------------------------------------------------------------------------------ bad samples

// Changes one byte of sample `index` in its shard.
static void damage(const char *shard, const hirl_shard_set_t *set, int64_t index) {
    hirl_buffer_t buffer = {0};
    hirl_sample_t sample;
    NEED_OK(hirl_shard_set_read(set, index, &buffer, &sample));
    file_bytes_t file = load_file(shard);
    unsigned char *at = memmem(file.bytes, file.size, sample.bytes, sample.size);
    NEED(at != NULL);
    at[sample.size / 2] ^= 0x20;
    save_file(shard, file.bytes, file.size);
    free(file.bytes);
    hirl_buffer_reset(&buffer);
}

static void test_bad_samples(void) {
    char good[1024], bad[1024];
    snprintf(good, sizeof good, "%s/gray/train-00000.h5", test_folder());
    snprintf(bad, sizeof bad, "%s/bad-00000.h5", test_folder());
    shell("cp %s %s", good, bad);
    if (test_rank() == 0) {
        damage(bad, gray, 7);
        damage(bad, gray, 8);
        damage(bad, gray, N_GRAY - 1);
    }
    hirl_data_cfg_t cfg = loader_cfg(3, 2);
    cfg.max_bad_fraction = 0.02; // 4 of 203
    hirl_shard_set_t *set = NULL;
    NEED_OK(hirl_par_barrier(world));
    NEED_OK(hirl_shard_set_open(world, bad, &cfg, &set));
    hirl_world_t *self = NULL;
    NEED_OK(hirl_world_create_self(&self));

    // Each rank sees all samples: the damaged ones show their successors, keep their indices.
    char log[1024];
    snprintf(log, sizeof log, "%s/log-%d.txt", test_folder(), test_rank());
    NEED_OK(hirl_log_open_file(log));
    const hirl_loader_spec_t eval = {.batch = 50};
    hirl_loader_t *loader = NULL, *whole = NULL;
    NEED_OK(hirl_loader_create(self, set, &cfg, &eval, &loader));
    NEED_OK(hirl_loader_create(self, gray, &cfg, &eval, &whole));
    static float all[N_GRAY][28 * 28];
    static int32_t label[N_GRAY];
    const hirl_batch_t *batch = NULL;
    NEED_OK(hirl_loader_begin_epoch(whole, 0, 0));
    for (int64_t at = 0; at < N_GRAY; at += batch->n) {
        NEED_OK(hirl_loader_next(whole, &batch));
        memcpy(all[at], batch->view[0], (size_t)batch->n * sizeof all[0]);
        memcpy(&label[at], batch->label, (size_t)batch->n * sizeof label[0]);
    }
    hirl_loader_destroy(&whole);
    for (int round = 0; round < 2; round++) {
        int n_wrong = 0;
        NEED_OK(hirl_loader_begin_epoch(loader, round, 0));
        for (int64_t at = 0; at < N_GRAY; at += batch->n) {
            NEED_OK(hirl_loader_next(loader, &batch));
            for (int64_t i = 0; i < batch->n; i++) {
                const int64_t k = at + i, shown = k == 7 || k == 8 ? 9 : k == N_GRAY - 1 ? 0 : k;
                n_wrong += batch->index[i] != k || batch->label[i] != label[shown];
                n_wrong += memcmp(batch->view[0] + i * 784, all[shown], sizeof all[0]) != 0;
            }
        }
        CHECK_EQ_I(n_wrong, 0);
        CHECK_EQ_I(hirl_loader_counts(loader).n_bad, 3);
    }
    hirl_loader_destroy(&loader);
    NEED_OK(hirl_log_open_file(NULL));
    file_bytes_t text = load_file(log);
    CHECK_HAS((char *)text.bytes, "bad-00000.h5 sample 7: checksum");
    CHECK_HAS((char *)text.bytes, "bad-00000.h5 sample 8 is shown in its place");
    const char *once = strstr((char *)text.bytes, "sample 202: checksum");
    CHECK(once != NULL && strstr(once + 1, "sample 202: checksum") == NULL);
    free(text.bytes);

    // In training the order is kept, and the failure of a worker reaches the trainer with its text.
    const hirl_loader_spec_t train = train_spec(100);
    uint64_t hash[2];
    for (int k = 0; k < 2; k++) {
        cfg.n_threads = k == 0 ? 1 : 4;
        NEED_OK(hirl_loader_create(self, set, &cfg, &train, &loader));
        NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
        hash[k] = 0;
        for (int b = 0; b < 2; b++) {
            NEED_OK(hirl_loader_next(loader, &batch));
            for (int64_t i = 0; i < batch->n; i++) hash[k] = hash[k] * 31 + hash_sample(batch, i);
        }
        hirl_loader_destroy(&loader);
    }
    CHECK(hash[0] == hash[1]);
    cfg.max_bad_fraction = 0.011; // two are too few
    for (int n_threads = 1; n_threads <= 4; n_threads += 3) {
        cfg.n_threads = n_threads;
        NEED_OK(hirl_loader_create(self, set, &cfg, &eval, &loader));
        NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
        hirl_status_t status = HIRL_OK;
        int n_good = 0;
        while (status == HIRL_OK && n_good < 10) {
            status = hirl_loader_next(loader, &batch);
            n_good += status == HIRL_OK;
        }
        CHECK_EQ_I(status, HIRL_ERR_FORMAT);
        CHECK_HAS(hirl_error_text_view(), "data%max_bad_fraction");
        CHECK_HAS(hirl_error_text_view(), "3 of 203");
        CHECK_HAS(hirl_error_text_view(), "bad-00000.h5 sample");
        // With more threads any of the batches may hold the last straw.
        if (n_threads == 1) CHECK_EQ_I(n_good, 4);
        CHECK_FAILS(hirl_loader_next(loader, &batch), HIRL_ERR_FORMAT, "max_bad_fraction");
        hirl_loader_destroy(&loader);
    }
    hirl_world_destroy(&self);
    hirl_shard_set_close(&set);
}

// An undecodable image whose place is taken by a larger one, and by a smaller one.
static void test_bad_sizes(void) {
    char bad[1024];
    snprintf(bad, sizeof bad, "%s/bad-color", test_folder());
    shell("cp -r %s/color %s", test_folder(), bad);
    const int64_t n = hirl_shard_set_n_samples(color);
    int n_larger = 0, n_smaller = 0, n_damaged = 0;
    for (int64_t i = 0; i + 1 < n && n_damaged < 6; i++) {
        int height[2], width[2];
        for (int k = 0; k < 2; k++) hirl_shard_set_image_size(color, i + k, &height[k], &width[k]);
        const int area[2] = {height[0] * width[0], height[1] * width[1]};
        int *count = area[1] > area[0] ? &n_larger : area[1] < area[0] ? &n_smaller : NULL;
        if (count == NULL || *count == 3) continue;
        ++*count;
        n_damaged++;
        char file[1100];
        snprintf(file, sizeof file, "%s/train-00000.h5", bad);
        if (test_rank() == 0) damage(file, color, i);
        i++; // what stands in stays whole
    }
    NEED(n_larger >= 1 && n_smaller >= 1);
    hirl_data_cfg_t cfg = loader_cfg(2, 2);
    cfg.channels = 3;
    cfg.max_bad_fraction = 0.9;
    hirl_shard_set_t *set = NULL;
    hirl_world_t *self = NULL;
    NEED_OK(hirl_par_barrier(world));
    NEED_OK(hirl_shard_set_open(world, bad, &cfg, &set));
    NEED_OK(hirl_world_create_self(&self));
    uint64_t hash[3][64];
    int64_t n_seen = 0;
    for (int k = 0; k < 3; k++) {
        keeps_pixels = k > 0;
        cfg.n_threads = k == 2 ? 4 : 1;
        const hirl_loader_spec_t spec = train_spec(8);
        hirl_loader_t *loader = NULL;
        const hirl_batch_t *batch = NULL;
        NEED_OK(hirl_loader_create(self, set, &cfg, &spec, &loader));
        for (int round = 0; round < 2; round++) {
            // The second round drops what was prepared, images that wait apart with it.
            NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
            n_seen = 0;
            for (int64_t b = 0; b < hirl_loader_n_batches(loader) && b < 8; b++) {
                NEED_OK(hirl_loader_next(loader, &batch));
                for (int64_t i = 0; i < batch->n; i++) hash[k][n_seen++] = hash_sample(batch, i);
                if (round == 0 && b == 0) break;
            }
        }
        CHECK(hirl_loader_counts(loader).n_bad >= 1);
        hirl_loader_destroy(&loader);
    }
    keeps_pixels = false;
    CHECK_BITS(hash[0], hash[1], (size_t)n_seen * sizeof hash[0][0]);
    CHECK_BITS(hash[0], hash[2], (size_t)n_seen * sizeof hash[0][0]);
    hirl_world_destroy(&self);
    hirl_shard_set_close(&set);
}

static void test_errors(void) {
    hirl_data_cfg_t cfg = loader_cfg(1, 1);
    hirl_loader_spec_t spec = train_spec(32);
    hirl_loader_t *loader = NULL;
    spec.batch = 0;
    CHECK_FAILS(hirl_loader_create(world, gray, &cfg, &spec, &loader), HIRL_ERR_DECK, "batch is 0");
    spec.batch = 256;
    CHECK_FAILS(hirl_loader_create(world, gray, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "203 samples, fewer than one batch of 256");
    if (test_size() > 1) {
        spec.batch = 33;
        CHECK_FAILS(hirl_loader_create(world, gray, &cfg, &spec, &loader), HIRL_ERR_DECK,
                    "not divisible");
    }
    spec.batch = 32;
    cfg.n_mean = 3;
    CHECK_FAILS(hirl_loader_create(world, gray, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "data%mean has 3 items");
    cfg.n_mean = 1;
    cfg.n_std = 2;
    CHECK_FAILS(hirl_loader_create(world, color, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "data%std has 2 items");
    cfg.n_std = 1;
    cfg.std[0] = 0;
    CHECK_FAILS(hirl_loader_create(world, gray, &cfg, &spec, &loader), HIRL_ERR_DECK, "data%std");
    cfg.std[0] = 1;
    spec.n_views = 17;
    CHECK_FAILS(hirl_loader_create(world, gray, &cfg, &spec, &loader), HIRL_ERR_ARG, "17 views");
    CHECK(loader == NULL);
}

// ------------------------------------------------------------------------------------ data

static void make_gray(void) {
    char source[1024], output[1024];
    snprintf(source, sizeof source, "%s/idx", test_folder());
    snprintf(output, sizeof output, "%s/gray", test_folder());
    shell("mkdir -p %s", source);
    if (test_rank() == 0) {
        static unsigned char images[16 + N_GRAY * 784] = {0, 0, 8, 3,  0, 0, 0, N_GRAY,
                                                          0, 0, 0, 28, 0, 0, 0, 28};
        unsigned char labels[8 + N_GRAY] = {0, 0, 8, 1, 0, 0, 0, N_GRAY};
        hirl_rng_t rng = test_rng(1);
        for (int i = 0; i < N_GRAY; i++) {
            labels[8 + i] = (unsigned char)(i % 10);
            for (int k = 0; k < 784; k++)
                images[16 + i * 784 + k] = (unsigned char)hirl_rng_u32(&rng);
        }
        char path[1100];
        snprintf(path, sizeof path, "%s/train-images-idx3-ubyte.gz", source);
        save_gzip(path, images, sizeof images);
        snprintf(path, sizeof path, "%s/train-labels-idx1-ubyte.gz", source);
        save_gzip(path, labels, sizeof labels);
    }
    hirl_pack_cfg_t pack = pack_cfg(source, "train", output);
    hirl_data_cfg_t cfg = loader_cfg(1, 1);
    NEED_OK(hirl_par_barrier(world));
    NEED_OK(hirl_data_pack(world, &pack));
    NEED_OK(hirl_shard_set_open(world, output, &cfg, &gray));
    CHECK_EQ_I(hirl_shard_set_n_samples(gray), N_GRAY);
}

static void make_color(void) {
    char output[1024];
    snprintf(output, sizeof output, "%s/color", test_folder());
    hirl_pack_cfg_t pack = pack_cfg(IMAGES, "train", output);
    hirl_data_cfg_t cfg = loader_cfg(1, 1);
    cfg.channels = 3;
    snprintf(cfg.access, sizeof cfg.access, "pread");
    NEED_OK(hirl_data_pack(world, &pack));
    NEED_OK(hirl_shard_set_open(world, output, &cfg, &color));
    NEED(hirl_shard_set_n_samples(color) >= 24);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, test_rank());
    NEED_OK(hirl_backend_create("ref", 1, &be));
    make_gray();
    make_color();
    RUN(test_train_gray);
    RUN(test_train_color);
    RUN(test_kept_pixels);
    RUN(test_seed_matters);
    RUN(test_eval);
    RUN(test_bad_samples);
    RUN(test_bad_sizes);
    RUN(test_errors);
    hirl_shard_set_close(&gray);
    hirl_shard_set_close(&color);
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}
