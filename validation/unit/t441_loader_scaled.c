// test: timeout=60
// data%decode = 'scaled': large photographs are decoded at 1/2 or 1/4, give nearly the views of the
// exact way, and the same ones for any number of threads and whoever makes them. Small crops are left alone.
#include "pack_util.h"

#include <turbojpeg.h>

enum { N = 8, HEIGHT = 300, WIDTH = 400, SIZE = 40 };

static hirl_world_t *world;
static hirl_backend_t *be;
static hirl_shard_set_t *set;

// Waves of at most 0.04 rad a pixel.
static void make_photographs(void) {
    char path[1024];
    uint8_t *pixels = malloc((size_t)HEIGHT * WIDTH * 3);
    tjhandle handle = tjInitCompress();
    snprintf(path, sizeof path, "%s/in/a", test_folder());
    shell("mkdir -p %s", path);
    for (int i = 0; i < N; i++) {
        for (int y = 0; y < HEIGHT; y++) {
            for (int x = 0; x < WIDTH; x++) {
                for (int c = 0; c < 3; c++)
                    pixels[(y * WIDTH + x) * 3 + c] =
                        (uint8_t)(128 + 60 * sin(0.04 * x + c + i) + 60 * cos(0.03 * y - c * i));
            }
        }
        unsigned char *bytes = NULL;
        unsigned long size = 0;
        NEED(tjCompress2(handle, pixels, WIDTH, 0, HEIGHT, TJPF_RGB, &bytes, &size, TJSAMP_420, 95,
                         0) == 0);
        snprintf(path, sizeof path, "%s/in/a/%d.jpg", test_folder(), i);
        save_file(path, bytes, size);
        tjFree(bytes);
    }
    tjDestroy(handle);
    free(pixels);
}

static hirl_loader_spec_t spec_of(hirl_view_spec_t *view, double smallest, bool keeps_pixels) {
    *view = (hirl_view_spec_t){.size = SIZE,
                               .scale = {smallest, smallest < 0.1 ? 0.1 : 1},
                               .ratio = {0.75, 4.0 / 3.0},
                               .flip_prob = 0.5,
                               .blur_sigma = {0.1, 2}};
    return (hirl_loader_spec_t){.batch = N,
                                .seed = test_seed(),
                                .is_train = true,
                                .keeps_pixels = keeps_pixels,
                                .views = view,
                                .n_views = 1};
}

// One epoch's only batch, u8 scale.
static void load(const char *decode, double smallest, int n_threads, bool keeps_pixels, float *out,
                 hirl_loader_counts_t *counts_p) {
    hirl_data_cfg_t cfg = data_cfg("mmap");
    hirl_view_spec_t view;
    const hirl_loader_spec_t spec = spec_of(&view, smallest, keeps_pixels);
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    cfg.n_threads = n_threads;
    cfg.n_ahead = 1;
    cfg.mean[0] = 0, cfg.std[0] = 1.0 / 255, cfg.n_mean = cfg.n_std = 1;
    snprintf(cfg.decode, sizeof cfg.decode, "%s", decode);
    NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    NEED_OK(hirl_loader_next(loader, &batch));
    const size_t n = (size_t)N * SIZE * SIZE * 3;
    if (keeps_pixels) {
        hirl_tensor_t pixels = {0}, made = {0};
        NEED_OK(hirl_batch_upload(be, batch, &pixels));
        NEED_OK(hirl_batch_make_view(be, batch, &pixels, 0, 0, N, &made));
        memcpy(out, hirl_tensor_f32(&made), n * sizeof *out);
        hirl_tensor_reset(&made);
        hirl_tensor_reset(&pixels);
    } else {
        memcpy(out, batch->view[0], n * sizeof *out);
    }
    *counts_p = hirl_loader_counts(loader);
    hirl_loader_destroy(&loader);
}

static void test_scaled(void) {
    const size_t n = (size_t)N * SIZE * SIZE * 3;
    float *exact = malloc(n * sizeof *exact), *scaled = malloc(n * sizeof *scaled),
          *other = malloc(n * sizeof *other);
    hirl_loader_counts_t counts;
    load("exact", 0.5, 2, false, exact, &counts);
    CHECK_EQ_I(counts.n_pixels / counts.n_samples, HEIGHT * WIDTH);
    // Crops of half the area are at least 180 high: 1/4 leaves more than 40.
    load("scaled", 0.5, 1, false, scaled, &counts);
    CHECK_EQ_I(counts.n_pixels / counts.n_samples, HEIGHT / 4 * WIDTH / 4);
    CHECK(counts.n_pixels_decoded <= counts.n_pixels && counts.n_bytes > 0 && counts.decode_s > 0);
    double sum = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double apart = fabs((double)exact[i] - (double)scaled[i]);
        sum += apart;
        worst = apart > worst ? apart : worst;
    }
    // A crop's edges move by up to two pixels of the full picture, over which a wave changes by
    // 2 x 60 x 0.04 = 4.8 grey levels a direction; half a level is rounding.
    CHECK_MSG(worst <= 11 && sum / (double)n <= 2.5, "apart: mean %.2f, at most %.1f grey levels",
              sum / (double)n, worst);
    CHECK_MSG(worst > 0, "not a pixel differs: was it scaled?");
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        for (int keeps_pixels = 0; keeps_pixels <= 1; keeps_pixels++) {
            load("scaled", 0.5, n_threads, keeps_pixels, other, &counts);
            CHECK_BITS(other, scaled, n * sizeof *other);
        }
    }
    // Some crop of these is too small for any other scale: the exact views.
    load("scaled", 0.011, 2, false, scaled, &counts);
    load("exact", 0.011, 2, false, exact, &counts);
    int n_same = 0;
    for (int i = 0; i < N; i++) {
        const size_t at = (size_t)i * SIZE * SIZE * 3;
        n_same += memcmp(exact + at, scaled + at, (size_t)SIZE * SIZE * 3 * sizeof *exact) == 0;
    }
    CHECK_MSG(n_same > 0 && n_same < N, "%d of %d samples are exact", n_same, N);
    free(exact);
    free(scaled);
    free(other);
}

// drawn_as: the same rectangle, flipped alike, whatever the view's own number.
static void test_drawn_as(void) {
    for (int drawn_as = 0; drawn_as <= 1; drawn_as++) {
        hirl_data_cfg_t cfg = data_cfg("mmap");
        hirl_view_spec_t view[2];
        hirl_loader_spec_t spec = spec_of(&view[0], 0.2, false);
        hirl_loader_t *loader = NULL;
        const hirl_batch_t *batch = NULL;
        view[1] = view[0];
        view[1].drawn_as = drawn_as;
        spec.n_views = 2;
        cfg.n_threads = cfg.n_ahead = 1;
        cfg.mean[0] = 0, cfg.std[0] = 1, cfg.n_mean = cfg.n_std = 1;
        NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
        NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
        NEED_OK(hirl_loader_next(loader, &batch));
        const size_t n = (size_t)SIZE * SIZE * 3;
        int n_same = 0;
        for (size_t i = 0; i < N; i++)
            n_same +=
                memcmp(batch->view[0] + i * n, batch->view[1] + i * n, n * sizeof(float)) == 0;
        CHECK_EQ_I(n_same, drawn_as == 1 ? N : 0);
        hirl_loader_destroy(&loader);
    }
}

TEST_MAIN {
    char in[512], out[512];
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_WARN, test_rank());
    NEED_OK(hirl_backend_create("ref", 1, &be));
    make_photographs();
    snprintf(in, sizeof in, "%.400s/in", test_folder());
    snprintf(out, sizeof out, "%.400s/out", test_folder());
    const hirl_pack_cfg_t pack = pack_cfg(in, "train", out);
    hirl_data_cfg_t cfg = data_cfg("mmap");
    NEED_OK(hirl_data_pack(world, &pack));
    NEED_OK(hirl_shard_set_open(world, out, &cfg, &set));
    RUN(test_scaled);
    RUN(test_drawn_as);
    hirl_shard_set_close(&set);
    hirl_backend_destroy(&be);
    hirl_world_destroy(&world);
}
