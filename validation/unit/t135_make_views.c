// Views made by a backend against those of the loader's threads, bit for bit: random views of images of many sizes, with all that &views can
// ask for; each operation by itself, and one after the other; filters longer than a block's shared memory has rows for, views wider than
// a blur block; recipes that cannot be are refused.
// test: backends=ref,cuda timeout=180
#include "hirl/backend.h"

#include "test.h"

#include "../../src/data/augment_impl.h"

static hirl_backend_t *be;
static hirl_augment_t *augment;
static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};

// Smooth shapes with noise on them, so that blends saturate in some places and not in others.
static void fill_image(uint8_t *pixels, int height, int width, int channels, uint64_t number) {
    hirl_rng_t rng = test_rng(number);
    const double turn = hirl_rng_range(&rng, 0, 6.28), high = hirl_rng_range(&rng, 60, 200);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++) {
                const double wave = sin(turn + 7.0 * x / width * (c + 1)) * cos(5.0 * y / height);
                const double value = 128 + high * wave + hirl_rng_range(&rng, -30, 30);
                *pixels++ = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
            }
}

// One batch: image, specification and draws of each view.
enum { MAX_BATCH = 32 };
typedef struct batch {
    int n, size, channels;
    hirl_view_recipe_t recipe[MAX_BATCH];
    hirl_view_spec_t spec[MAX_BATCH];
    hirl_view_draws_t draws[MAX_BATCH];
    hirl_buffer_t pixels;
    size_t used;
} batch_t;

static void batch_begin(batch_t *b, int size, int channels) {
    memset(b, 0, sizeof *b);
    b->size = size;
    b->channels = channels;
    b->used = 3; // images begin anywhere
}

static void batch_add(batch_t *b, int height, int width, const hirl_view_spec_t *spec,
                      const hirl_view_draws_t *draws) {
    const size_t bytes = (size_t)height * (size_t)width * (size_t)b->channels;
    NEED(b->n < MAX_BATCH);
    NEED_OK(hirl_mem_realloc(HIRL_MEM_DATA, b->used + bytes, (void **)&b->pixels.data));
    fill_image(b->pixels.data + b->used, height, width, b->channels, 1000 + (uint64_t)b->n);
    b->spec[b->n] = *spec;
    b->spec[b->n].size = b->size;
    b->draws[b->n] = *draws;
    hirl_view_write_recipe(&b->spec[b->n], draws, height, width, (int64_t)b->used,
                           &b->recipe[b->n]);
    b->n++;
    b->used += bytes;
}

// Makes the batch's views in both ways and compares them.
static void batch_check(batch_t *b, const char *what) {
    const int64_t row = (int64_t)b->size * b->size * b->channels, count = b->n * row;
    hirl_tensor_t pixels = {0}, y = {0};
    float *got = NULL, *want = NULL;
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1((int64_t)b->used), HIRL_U8, &pixels));
    NEED_OK(hirl_backend_upload(be, b->pixels.data, &pixels));
    NEED_OK(hirl_op_make_views(be, &pixels, b->recipe, b->n, b->size, b->channels, mean, std, &y));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_DATA, count, &got));
    NEED_OK(HIRL_ALLOC(HIRL_MEM_DATA, row, &want));
    NEED_OK(hirl_backend_download(be, &y, got));
    int64_t n_bad = 0;
    double worst = 0;
    for (int i = 0; i < b->n; i++) {
        const hirl_image_t image = {b->pixels.data + b->recipe[i].offset, b->recipe[i].height,
                                    b->recipe[i].width, b->channels};
        NEED_OK(hirl_view_apply(augment, &image, &b->spec[i], &b->draws[i], mean, std, want));
        int64_t n_here = 0;
        for (int64_t j = 0; j < row; j++) {
            if (memcmp(&got[i * row + j], &want[j], sizeof *want) == 0) continue;
            n_here++;
            worst = fmax(worst, fabs((double)got[i * row + j] - (double)want[j]) * 255.0 *
                                    (double)std[j % b->channels]);
        }
        if (n_here > 0)
            printf("%s, view %d of a %d x %d image: %lld of %lld values differ\n", what, i,
                   image.height, image.width, (long long)n_here, (long long)row);
        n_bad += n_here;
    }
    CHECK_MSG(n_bad == 0, "%s: %lld of %lld values differ, by %.3g grey levels at most", what,
              (long long)n_bad, (long long)count, worst);
    hirl_tensor_reset(&pixels);
    hirl_tensor_reset(&y);
    hirl_mem_free(got);
    hirl_mem_free(want);
    hirl_mem_free(b->pixels.data);
}

static hirl_view_spec_t full_spec(bool is_bicubic) {
    return (hirl_view_spec_t){.scale = {0.08, 1},
                              .ratio = {0.75, 4.0 / 3.0},
                              .is_bicubic = is_bicubic,
                              .jitter_prob = 0.8,
                              .brightness = 0.4,
                              .contrast = 0.4,
                              .saturation = 0.4,
                              .hue = 0.1,
                              .gray_prob = 0.2,
                              .blur_prob = 0.5,
                              .blur_sigma = {0.1, 2.0},
                              .solarize_prob = 0.2,
                              .flip_prob = 0.5};
}

static hirl_view_draws_t whole(int height, int width) {
    return (hirl_view_draws_t){
        .order = {0, 1, 2, 3}, .factor = {1, 1, 1, 0}, .height = height, .width = width};
}

// ---------------------------------------------------------------------------------------------- views

static void test_random(int size, int n, bool is_bicubic, int channels) {
    static const int sides[][2] = {{28, 28},  {97, 61}, {32, 32}, {375, 500},
                                   {200, 31}, {1, 1},   {3, 250}, {96, 96}};
    static batch_t b;
    char what[80];
    batch_begin(&b, size, channels);
    for (int i = 0; i < n; i++) {
        const int *side = sides[i % (int)(sizeof sides / sizeof sides[0])];
        const hirl_view_spec_t spec = full_spec(is_bicubic);
        hirl_rng_t rng = hirl_rng_make(test_seed(), HIRL_RNG_AUGMENT, (uint64_t)size, (uint64_t)i,
                                       (uint32_t)(channels + is_bicubic));
        hirl_view_draws_t draws;
        hirl_view_draw(&spec, side[0], side[1], &rng, &draws);
        batch_add(&b, side[0], side[1], &spec, &draws);
    }
    snprintf(what, sizeof what, "%s, %d channels, size %d", is_bicubic ? "bicubic" : "bilinear",
             channels, size);
    batch_check(&b, what);
}

// All 24 orders of jitter with strong factors; and each operation alone.
static void test_operations(int channels) {
    static batch_t b;
    const hirl_view_spec_t spec = full_spec(false);
    batch_begin(&b, 37, channels);
    for (int k = 0; k < 24; k++) {
        hirl_view_draws_t draws = whole(40, 50);
        int left[4] = {0, 1, 2, 3}, digits = k;
        for (int i = 4; i > 0; i--) {
            const int j = digits % i;
            digits /= i;
            draws.order[4 - i] = left[j];
            left[j] = left[i - 1];
        }
        draws.has_jitter = true;
        draws.factor[HIRL_JITTER_BRIGHTNESS] = 0.5 + 0.06 * k;
        draws.factor[HIRL_JITTER_CONTRAST] = 1.9 - 0.07 * k;
        draws.factor[HIRL_JITTER_SATURATION] = 0.1 * k;
        draws.factor[HIRL_JITTER_HUE] = -0.5 + k / 24.0;
        batch_add(&b, 40, 50, &spec, &draws);
    }
    batch_check(&b, "orders of jitter");

    batch_begin(&b, 45, channels);
    for (int op = 0; op < HIRL_N_JITTER; op++)
        for (int strong = 0; strong < 2; strong++) {
            hirl_view_spec_t one = spec;
            hirl_view_draws_t draws = whole(45, 45);
            one.brightness = op == HIRL_JITTER_BRIGHTNESS;
            one.contrast = op == HIRL_JITTER_CONTRAST;
            one.saturation = op == HIRL_JITTER_SATURATION;
            one.hue = op == HIRL_JITTER_HUE;
            draws.has_jitter = true;
            draws.factor[op] = op == HIRL_JITTER_HUE ? (strong ? 0.37 : 0.0) : strong ? 2.6 : 0.3;
            batch_add(&b, 45, 45, &one, &draws);
        }
    for (int i = 0; i < 12; i++) {
        static const double sigma[8] = {0, 0.1, 0.77, 1.3, 2, 3.1, 9, 60};
        hirl_view_draws_t draws = whole(30, 61);
        draws.has_blur = i < 8;
        draws.sigma = sigma[i % 8];
        draws.is_gray = i == 8 || i == 3;
        draws.is_solarized = i == 9 || i == 4;
        draws.is_flipped = i == 10 || i == 5 || i == 11;
        draws.has_jitter = i == 11;
        batch_add(&b, 30, 61, &spec, &draws);
    }
    batch_check(&b, "single operations");
}

static void test_shapes(void) {
    static batch_t b;
    hirl_view_spec_t spec = full_spec(true);
    hirl_view_draws_t draws = whole(1200, 901);
    draws.is_flipped = true;
    draws.has_jitter = draws.has_blur = true;
    draws.sigma = 1.5;
    batch_begin(&b, 7, 3);
    batch_add(&b, 1200, 901, &spec, &draws);
    spec.is_bicubic = false;
    batch_add(&b, 1200, 901, &spec, &draws);
    batch_check(&b, "long filters");
    batch_begin(&b, 1, 3);
    batch_add(&b, 1200, 901, &spec, &draws);
    batch_check(&b, "one pixel");
    draws.height = 20, draws.width = 33, draws.top = 7, draws.left = 4;
    batch_begin(&b, 801, 1);
    batch_add(&b, 40, 50, &spec, &draws);
    batch_check(&b, "wide views");
    batch_begin(&b, 412, 3);
    batch_add(&b, 40, 50, &spec, &draws);
    batch_check(&b, "views of few rows a block");
}

// ---------------------------------------------------------------------------------------------- all operations

// RandAugment's operations one by one, both ways and at several levels, by both filters.
static void test_rand_augment(int size, int channels) {
    static batch_t b;
    for (int k = 0; k < 2; k++) {
        hirl_view_spec_t spec = full_spec(k == 1);
        spec.rand_augment = 1;
        batch_begin(&b, size, channels);
        for (int op = 0; op < HIRL_N_RAND_OPS; op++)
            for (int is_negative = 0; is_negative < 2; is_negative++) {
                hirl_view_draws_t draws = whole(40, 50);
                draws.rand_augment[0] = (hirl_rand_draw_t){.op = (hirl_rand_op_t)op,
                                                           .is_done = true,
                                                           .level = op % 4 == 0   ? 10
                                                                    : op % 4 == 1 ? 9.3
                                                                    : op % 4 == 2 ? 3.7
                                                                                  : 0.4,
                                                           .is_negative = is_negative != 0};
                draws.is_flipped = op % 2 == 0;
                batch_add(&b, 40, 50, &spec, &draws);
            }
        batch_check(&b, k ? "RandAugment, bicubic" : "RandAugment, bilinear");
    }
}

// Turns to the very corner, where places are sums and not fixed-point numbers.
static void test_turns(int channels) {
    static const double degrees[] = {0, 90, 180, -90, 45, 2, -2, 179.999999, 1e-14, 30};
    static batch_t b;
    hirl_view_spec_t spec = full_spec(false);
    spec.rotate_degrees = 180;
    batch_begin(&b, 33, channels);
    for (int i = 0; i < 10; i++) {
        hirl_view_draws_t draws = whole(20, 61);
        draws.degrees = degrees[i];
        draws.is_gray = draws.has_jitter = i == 5;
        batch_add(&b, 20, 61, &spec, &draws);
    }
    batch_check(&b, "turns");
}

// Histograms that are one level, two, or many; all of them operations that know the whole view, one after the other.
static void test_levels(int size, int channels) {
    static const hirl_rand_op_t order[4] = {HIRL_RAND_EQUALIZE, HIRL_RAND_AUTOCONTRAST,
                                            HIRL_RAND_CONTRAST, HIRL_RAND_SHARPNESS};
    static batch_t b;
    hirl_view_spec_t spec = full_spec(true);
    spec.rand_augment = 4;
    spec.posterize_bits = 1;
    batch_begin(&b, size, channels);
    for (int i = 0; i < 24; i++) {
        const int side = i % 3 == 0 ? 1 : i % 3 == 1 ? 2 : 60;
        hirl_view_draws_t draws = whole(side, side);
        for (int k = 0; k < 4; k++)
            draws.rand_augment[k] = (hirl_rand_draw_t){
                .op = order[(i + k) % 4], .is_done = (i >> k & 1) == 0, .level = 5 + k};
        draws.is_equalized = i % 2 == 0;
        draws.has_autocontrast = i % 4 < 2;
        draws.is_posterized = i % 5 == 0;
        draws.has_blur = i % 6 == 1;
        draws.sigma = 1;
        draws.is_solarized = i % 7 == 2;
        batch_add(&b, side, side, &spec, &draws);
    }
    batch_check(&b, "levels");
}

// Windows of resized images: of those that are larger than the view, smaller, and as they are.
static void test_windows(int channels) {
    static const int resize[] = {0, 20, 45, 61, 33}, padding[] = {0, 4, 30};
    static batch_t b;
    batch_begin(&b, 33, channels);
    for (int i = 0; i < 30; i++) {
        const int height = 20 + 13 * (i % 4), width = 33 + 9 * (i % 3);
        hirl_view_spec_t spec = full_spec(i % 2 == 0);
        spec.size = 33;
        spec.is_lanczos = i % 7 == 3;
        spec.crop = i % 3 == 0 ? HIRL_CROP_RESIZE_CENTER : HIRL_CROP_RESIZE_RANDOM;
        spec.resize = resize[i % 5];
        spec.padding = spec.crop == HIRL_CROP_RESIZE_RANDOM ? padding[i / 2 % 3] : 0;
        hirl_rng_t rng =
            hirl_rng_make(test_seed(), HIRL_RNG_AUGMENT, 7, (uint64_t)i, (uint32_t)channels);
        hirl_view_draws_t draws;
        hirl_view_draw(&spec, height, width, &rng, &draws);
        batch_add(&b, height, width, &spec, &draws);
    }
    batch_check(&b, "windows");
}

// Everything at once, drawn.
static void test_everything(int size, int n, hirl_filter_t filter, int channels) {
    static const int sides[][2] = {{40, 56}, {97, 61}, {32, 32}, {200, 31}, {1, 1}, {150, 250}};
    static batch_t b;
    char what[80];
    batch_begin(&b, size, channels);
    for (int i = 0; i < n; i++) {
        const int *side = sides[i % (int)(sizeof sides / sizeof sides[0])];
        hirl_view_spec_t spec = full_spec(filter == HIRL_FILTER_BICUBIC);
        spec.size = size;
        spec.is_lanczos = filter == HIRL_FILTER_LANCZOS;
        spec.crop = (hirl_crop_t)(i % 4);
        spec.resize = size + 7;
        spec.is_gray_first = i % 3 == 0;
        spec.rotate_degrees = i % 5 == 0 ? 30 : 0;
        spec.posterize_prob = spec.autocontrast_prob = spec.equalize_prob = 0.3;
        spec.posterize_bits = 4;
        spec.rand_augment = spec.is_lanczos ? 0 : 2 + i % 3;
        spec.rand_augment_magnitude = 7;
        spec.rand_augment_std = 2;
        spec.rand_augment_prob = 0.8;
        spec.lighting_std = i % 2 == 0 ? 0.1 : 0;
        spec.erase_prob = 0.5;
        spec.erase_area[0] = 0.02;
        spec.erase_area[1] = 0.4;
        spec.erase_ratio[0] = 0.3;
        spec.erase_ratio[1] = 3.3;
        hirl_rng_t rng = hirl_rng_make(test_seed(), HIRL_RNG_AUGMENT, (uint64_t)size, (uint64_t)i,
                                       (uint32_t)(50 + channels + 8 * (int)filter));
        hirl_view_draws_t draws;
        hirl_view_draw(&spec, side[0], side[1], &rng, &draws);
        batch_add(&b, side[0], side[1], &spec, &draws);
    }
    snprintf(what, sizeof what, "everything, filter %d, %d channels, size %d", (int)filter,
             channels, size);
    batch_check(&b, what);
}

static void test_all(void) {
    for (int channels = 1; channels <= 3; channels += 2) {
        test_rand_augment(37, channels);
        test_turns(channels);
        test_levels(29, channels);
        test_windows(channels);
        test_everything(32, 32, HIRL_FILTER_BICUBIC, channels);
        test_everything(45, 24, HIRL_FILTER_LANCZOS, channels);
    }
    test_rand_augment(2, 3);
    test_rand_augment(3, 1);
    test_levels(1, 3);
    test_everything(97, 12, HIRL_FILTER_BILINEAR, 3);
}

// ---------------------------------------------------------------------------------------------- refusals

static void refuse(const hirl_view_recipe_t *recipe, const char *part) {
    hirl_tensor_t pixels = {0}, y = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(10 * 12 * 3), HIRL_U8, &pixels));
    CHECK_FAILS(hirl_op_make_views(be, &pixels, recipe, 1, 8, 3, mean, std, &y), HIRL_ERR_ARG,
                part);
    CHECK(!hirl_tensor_is_set(&y));
    hirl_tensor_reset(&pixels);
}

static void test_refusals(void) {
    const hirl_view_recipe_t good = {
        .height = 10, .width = 12, .crop_height = 10, .crop_width = 12};
    hirl_view_recipe_t r = good;
#define REFUSE(change, part) \
    do {                     \
        r = good;            \
        change;              \
        refuse(&r, part);    \
    } while (0)
    REFUSE(r.offset = 1, "outside of the 360 bytes");
    REFUSE(r.offset = -1, "outside of the 360 bytes");
    REFUSE(r.offset = INT64_MAX, "outside of the 360 bytes");
    REFUSE(r.height = 11, "outside of the 360 bytes");
    REFUSE(r.width = 0, "want sides of");
    REFUSE(r.width = 70000, "want sides of");
    REFUSE(r.top = 1, "crop 0 of 10 x 12 at (1, 0)");
    REFUSE(r.left = -1, "outside of its 10 x 12 image");
    REFUSE(r.crop_width = 13, "outside of its");
    REFUSE(r.crop_height = 0, "outside of its");
    REFUSE(r.filter = HIRL_FILTER_NEAREST, "resized by filter 3");
    REFUSE(r.resized_height = 5, "resized to 5 x 0");
    REFUSE((r.resized_height = r.resized_width = -1), "resized to -1 x -1");
    REFUSE(r.window_x = INT32_MIN, "window at (0, -2147483648)");
    REFUSE(r.n_ops = HIRL_VIEW_MAX_OPS + 1, "21 operations");
    REFUSE((r.n_ops = 2, r.op[1].kind = HIRL_VIEW_N_KINDS), "operation 1 of view 0 is of kind 17");
    REFUSE((r.n_ops = 1, r.op[0].value = NAN), "value nan");
#define REFUSE_OP(kind_, change, part) \
    REFUSE((r.n_ops = 1, r.op[0].kind = kind_, r.op[0].value = 1, change), part)
    REFUSE_OP(HIRL_VIEW_POSTERIZE, r.op[0].n = 9, "n = 9, want 0..8");
    REFUSE_OP(HIRL_VIEW_SOLARIZE, r.op[0].n = 257, "n = 257, want 0..256");
    REFUSE_OP(HIRL_VIEW_SOLARIZE_ADD, r.op[0].n = -1, "n = -1, want 0..255");
    REFUSE_OP(HIRL_VIEW_SHEAR_X, r.op[0].value = 2.5, "value 2.5, want it within +-2");
    REFUSE_OP(HIRL_VIEW_MOVE_Y, r.op[0].value = -20000, "want it within +-16384");
    REFUSE_OP(HIRL_VIEW_TURN, r.op[0].sine = 0.1, "cosine 1 and sine 0.1");
    REFUSE_OP(HIRL_VIEW_TURN, r.op[0].filter = HIRL_FILTER_LANCZOS, "has filter 2");
    REFUSE(r.shift[1] = INFINITY, "shifted by (0, inf, 0)");
    REFUSE((r.erase_height = 3, r.erase_width = 9), "erased 3 x 9 at (0, 0)");
    REFUSE((r.erase_height = 3, r.erase_width = 3, r.erase_top = 6), "outside of its 8 x 8");
    REFUSE((r.erase_height = 3, r.noise.n_left = 1), "has been drawn from");
    REFUSE((r.has_blur = true, r.blur_sigma = -1), "blur of -1");
    REFUSE((r.has_blur = true, r.blur_sigma = NAN), "blur of");
    hirl_tensor_t pixels = {0}, y = {0}, words = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(360), HIRL_U8, &pixels));
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(360), HIRL_I32, &words));
    const float zero[3] = {1, 0, 1};
    CHECK_FAILS(hirl_op_make_views(be, &pixels, &good, 1, 0, 3, mean, std, &y), HIRL_ERR_ARG,
                "side 0");
    CHECK_FAILS(hirl_op_make_views(be, &pixels, &good, 1, 9000, 3, mean, std, &y), HIRL_ERR_ARG,
                "side 9000");
    CHECK_FAILS(hirl_op_make_views(be, &pixels, &good, 1, 8, 2, mean, std, &y), HIRL_ERR_ARG,
                "2 channels");
    CHECK_FAILS(hirl_op_make_views(be, &pixels, &good, 0, 8, 3, mean, std, &y), HIRL_ERR_ARG,
                "0 recipes");
    CHECK_FAILS(hirl_op_make_views(be, &pixels, &good, 1, 8, 3, mean, zero, &y), HIRL_ERR_ARG,
                "std 0");
    CHECK_FAILS(hirl_op_make_views(be, &words, &good, 1, 8, 3, mean, std, &y), HIRL_ERR_ARG,
                "does not take");
    CHECK_OK(hirl_op_make_views(be, &pixels, &good, 1, 8, 3, mean, std, &y));
    hirl_tensor_reset(&y);
    hirl_tensor_reset(&pixels);
    hirl_tensor_reset(&words);
}

static void test_views(void) {
    test_random(32, 32, false, 1);
    test_random(32, 32, true, 3);
    test_random(96, 16, false, 3);
    test_random(33, 16, true, 1);
    test_random(224, 6, false, 3);
    test_random(224, 4, true, 3);
}

static void test_gray_operations(void) { test_operations(1); }
static void test_color_operations(void) { test_operations(3); }

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    NEED_OK(hirl_augment_create(&augment));
    RUN(test_views);
    RUN(test_gray_operations);
    RUN(test_color_operations);
    RUN(test_shapes);
    RUN(test_all);
    RUN(test_refusals);
    CHECK_EQ_I(hirl_backend_memory_used(be), 0);
    hirl_augment_destroy(&augment);
    hirl_backend_destroy(&be);
}
