// The operations beyond those of MoCo's views against Pillow and torchvision, bit for bit, by CRC-32 of the result
// (validation/reference/augment/make_ops.py): values and histograms, sharpness, turning and shearing,
// Lanczos, RandAugment's fifteen, windows of resized images, and whole views with all of them.
// Lighting to rounding; random erasing: noise within the rectangle alone, and rectangles
// distributed as the definition has them.
// test: ranks=1 timeout=120
#include "test.h"

#include <zlib.h>

#include "../../src/data/augment_impl.h"

#define CASES "validation/reference/augment/ops.txt"
static const uint8_t fills[2][3] = {{124, 124, 124}, {124, 116, 104}}; // of grey and RGB images
static const float mean_[3] = {0.485f, 0.456f, 0.406f}, std_[3] = {0.229f, 0.224f, 0.225f};

// ----------------------------------------------------------------------------- the script's images

static uint32_t mix(uint32_t i) {
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return i ^ i >> 16;
}

enum { KIND_NOISE, KIND_PHOTO, KIND_EXTREME };

static uint8_t pixel_at(int kind, int seed, int channels, int h, int w, int y, int x, int c) {
    static const uint8_t extremes[8] = {0, 255, 1, 254, 127, 128, 64, 0};
    const uint32_t noise = mix((uint32_t)((y * w + x) * channels + c) + 1000003u * (uint32_t)seed);
    if (kind == KIND_NOISE) return noise & 255;
    if (kind == KIND_EXTREME) return extremes[noise & 7];
    const int t = (x * (3 + c) * 256 / w + y * (5 - c) * 256 / h + 37 * seed) % 512;
    int a = t > 255 ? 511 - t : t;
    if ((x / 17 + y / 23) % 2 == 1) a = 255 - a;
    if ((x / 31 + y / 29) % 5 == 0)
        a = 40 + 60 * c;
    else
        a += (int)(noise & 15) - 8;
    return (uint8_t)(a < 0 ? 0 : a > 255 ? 255 : a);
}

static size_t image_bytes(const hirl_image_t *image) {
    return (size_t)image->height * (size_t)image->width * (size_t)image->channels;
}

static hirl_image_t make_image(int channels, int height, int width, int kind, int seed) {
    hirl_image_t image = {NULL, height, width, channels};
    NEED((image.pixels = malloc(image_bytes(&image))) != NULL);
    uint8_t *to = image.pixels;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                *to++ = pixel_at(kind, seed, channels, height, width, y, x, c);
    return image;
}

// ------------------------------------------------------------------------------------ one case

static unsigned crc_of(const uint8_t *data, size_t n) { return (unsigned)crc32(0, data, (uInt)n); }

// A view's values back to bytes; with this mean and deviation a value is byte / 255 to rounding.
static const float zero[3] = {0, 0, 0}, one[3] = {1, 1, 1};

static unsigned view_crc(hirl_augment_t *augment, const hirl_image_t *image,
                         const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                         const float *mean, const float *std) {
    const size_t n = (size_t)spec->size * (size_t)spec->size * (size_t)image->channels;
    float *values = malloc(n * sizeof *values);
    uint8_t *bytes = malloc(n);
    NEED(values != NULL && bytes != NULL);
    CHECK_OK(hirl_view_apply(augment, image, spec, draws, mean, std, values));
    for (size_t i = 0; i < n; i++) {
        const size_t c = i % (size_t)image->channels;
        const double value = ((double)values[i] * (double)std[c] + (double)mean[c]) * 255;
        bytes[i] = (uint8_t)lrint(value);
        if (fabs(value - bytes[i]) > 1e-3) CHECK_CLOSE(value, bytes[i], 0, 1e-3);
    }
    const unsigned crc = crc_of(bytes, n);
    free(values), free(bytes);
    return crc;
}

static unsigned run_view(hirl_augment_t *augment, const hirl_image_t *image, const double *p) {
    hirl_view_spec_t spec = {.size = (int)p[0],
                             .is_bicubic = p[1] != 0,
                             .is_gray_first = p[4] != 0,
                             .contrast = 0.4,
                             .saturation = 0.4,
                             .posterize_bits = 3,
                             .rotate_degrees = p[12] != 0 ? 20 : 0,
                             .rand_augment = (int)p[17]};
    hirl_view_draws_t draws = {.is_flipped = p[2] != 0,
                               .is_gray = p[3] != 0,
                               .has_jitter = p[5] != 0,
                               .order = {HIRL_JITTER_CONTRAST, HIRL_JITTER_HUE,
                                         HIRL_JITTER_SATURATION, HIRL_JITTER_BRIGHTNESS},
                               .is_posterized = p[8] != 0,
                               .has_autocontrast = p[9] != 0,
                               .is_equalized = p[10] != 0,
                               .is_solarized = p[11] != 0,
                               .degrees = p[12],
                               .top = (int)p[13],
                               .left = (int)p[14],
                               .height = (int)p[15],
                               .width = (int)p[16]};
    draws.factor[HIRL_JITTER_CONTRAST] = p[6];
    draws.factor[HIRL_JITTER_SATURATION] = p[7];
    for (int i = 0; i < spec.rand_augment; i++) {
        draws.rand_augment[i] = (hirl_rand_draw_t){.op = (hirl_rand_op_t)p[18 + 3 * i],
                                                   .is_done = true,
                                                   .level = p[19 + 3 * i],
                                                   .is_negative = p[20 + 3 * i] != 0};
    }
    // RandAugment fills with the mean: 123.7, 116.3, 103.5.
    return view_crc(augment, image, &spec, &draws, mean_, std_);
}

static unsigned run_window(hirl_augment_t *augment, const hirl_image_t *image, const double *p,
                           bool is_central) {
    hirl_view_spec_t spec = {.size = (int)p[1],
                             .resize = (int)p[0],
                             .crop =
                                 is_central ? HIRL_CROP_RESIZE_CENTER : HIRL_CROP_RESIZE_RANDOM};
    hirl_view_draws_t draws;
    hirl_rng_t rng = test_rng(0);
    hirl_view_draw(&spec, image->height, image->width, &rng, &draws);
    CHECK(draws.top == 0 && draws.left == 0 && draws.height == image->height &&
          draws.width == image->width);
    if (!is_central)
        draws.window_y = (int)p[2], draws.window_x = (int)p[3], draws.is_flipped = p[4] != 0;
    return view_crc(augment, image, &spec, &draws, zero, one);
}

static unsigned run_planes(hirl_augment_t *augment, const char *op, const double *p,
                           const hirl_image_t *image) {
    hirl_planes_t planes;
    CHECK_OK(hirl_planes_load(augment, image, &planes));
    // What lies beyond the width must not matter.
    for (int c = 0; c < planes.channels; c++)
        for (int y = 0; y < planes.height; y++)
            memset(hirl_plane_row_view(&planes, c, y) + planes.width, 7 * y + 1,
                   (size_t)(planes.stride - planes.width));
    const size_t n = (size_t)planes.channels * hirl_plane_size(&planes);
    const uint8_t *fill = fills[image->channels == 3];
    if (strcmp(op, "posterize") == 0)
        hirl_span_posterize(planes.data, n, (int)p[0]);
    else if (strcmp(op, "invert") == 0)
        hirl_span_invert(planes.data, n);
    else if (strcmp(op, "solarize_add") == 0)
        hirl_span_solarize_add(planes.data, n, (int)p[0], 128);
    else if (strcmp(op, "equalize") == 0)
        hirl_planes_equalize(&planes);
    else if (strcmp(op, "autocontrast") == 0)
        hirl_planes_autocontrast(&planes);
    else if (strcmp(op, "sharpness") == 0)
        CHECK_OK(hirl_planes_sharpness(augment, &planes, p[0]));
    else if (strcmp(op, "rotate") == 0)
        CHECK_OK(hirl_planes_rotate(augment, &planes, p[0], (hirl_filter_t)p[1], fill));
    else if (strcmp(op, "affine") == 0)
        CHECK_OK(hirl_planes_affine(augment, &planes, p, (hirl_filter_t)p[6], fill));
    else if (strcmp(op, "rand") == 0) {
        const hirl_rand_draw_t draw = {(hirl_rand_op_t)p[0], true, p[1], p[2] != 0};
        CHECK_OK(hirl_rand_augment_apply(augment, &planes, &draw, (hirl_filter_t)p[3], fill));
    } else
        NEED(!"known operation");
    uint8_t *out = malloc(image_bytes(image));
    NEED(out != NULL);
    hirl_planes_store(&planes, out);
    const unsigned crc = crc_of(out, image_bytes(image));
    free(out);
    return crc;
}

static void run_case(hirl_augment_t *augment, const char *op, char *rest, hirl_image_t *image) {
    double p[32];
    int n = 0, used = 0;
    while (n < 32 && sscanf(rest, " %lf%n", &p[n], &used) == 1 && strchr(" \n", rest[used])) {
        // The CRC is the last word, and may look like a number.
        if (strspn(rest + used, " \n") == strlen(rest + used)) break;
        rest += used;
        n++;
    }
    unsigned want = 0, got = 0;
    NEED(sscanf(rest, " %x", &want) == 1);
    const bool is_levels = strcmp(op, "equalize") == 0 || strcmp(op, "autocontrast") == 0;
    if (is_levels && n == 2) { // squeezed to [low, high]
        for (size_t i = 0; i < image_bytes(image); i++)
            image->pixels[i] = (uint8_t)(p[0] + image->pixels[i] * (int)(p[1] - p[0]) / 255);
    }
    if (strcmp(op, "view") == 0) {
        got = run_view(augment, image, p);
    } else if (strcmp(op, "window") == 0 || strcmp(op, "center") == 0) {
        got = run_window(augment, image, p, strcmp(op, "center") == 0);
    } else if (strcmp(op, "lanczos") == 0) {
        const size_t size = (size_t)p[4] * (size_t)p[5] * (size_t)image->channels;
        uint8_t *out = malloc(size);
        NEED(out != NULL);
        CHECK_OK(hirl_image_resize_crop(augment, image, (int)p[0], (int)p[1], (int)p[2], (int)p[3],
                                        (int)p[4], (int)p[5], HIRL_FILTER_LANCZOS, out));
        got = crc_of(out, size);
        free(out);
    } else {
        got = run_planes(augment, op, p, image);
    }
    CHECK_MSG(got == want,
              "%s of a %d x %d image of %d channels, parameters %g %g %g %g %g %g %g: CRC %08x, "
              "want %08x",
              op, image->height, image->width, image->channels, n > 0 ? p[0] : 0, n > 1 ? p[1] : 0,
              n > 2 ? p[2] : 0, n > 3 ? p[3] : 0, n > 4 ? p[4] : 0, n > 5 ? p[5] : 0,
              n > 6 ? p[6] : 0, got, want);
}

// ------------------------------------------------------------------------------------ lighting, erasing

static void check_lighting(hirl_augment_t *augment, const char *rest) {
    double amount[3], want[3];
    NEED(sscanf(rest, "%lf %lf %lf %lf %lf %lf", &amount[0], &amount[1], &amount[2], &want[0],
                &want[1], &want[2]) == 6);
    uint8_t pixels[4 * 4 * 3];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(5 * i);
    const hirl_image_t image = {pixels, 4, 4, 3};
    hirl_view_spec_t spec = {.size = 4, .crop = HIRL_CROP_RESIZE, .lighting_std = 0.1};
    hirl_view_draws_t draws = {.height = 4, .width = 4};
    memcpy(draws.lighting, amount, sizeof amount);
    float lit[48];
    CHECK_OK(hirl_view_apply(augment, &image, &spec, &draws, mean_, std_, lit));
    for (size_t i = 0; i < 48; i++) {
        const double plain = (pixels[i] / 255.0 + want[i % 3] - (double)mean_[i % 3]);
        // Five roundings of numbers below 5, and the reference's own in single precision.
        CHECK_CLOSE(lit[i], plain / (double)std_[i % 3], 0, 2e-6);
    }
}

static hirl_view_spec_t erase_spec(int size) {
    return (hirl_view_spec_t){.size = size,
                              .crop = HIRL_CROP_RESIZE,
                              .erase_prob = 0.25,
                              .erase_area = {0.02, 1.0 / 3},
                              .erase_ratio = {0.3, 1 / 0.3}};
}

// Five standard errors of the difference of two means.
static void check_erase_moments(const char *rest) {
    enum { N = 20000 };
    int size, n_theirs;
    char name[16];
    double mean, deviation, sum = 0;
    NEED(sscanf(rest, "%d %15s %d %lf %lf", &size, name, &n_theirs, &mean, &deviation) == 5);
    const hirl_view_spec_t spec = erase_spec(size);
    int n = 0;
    for (int i = 0; i < N; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i);
        hirl_erase_t e;
        hirl_erase_draw(&spec, &rng, &e);
        if (e.height == 0) continue;
        n++;
        CHECK(e.top >= 0 && e.left >= 0 && e.top + e.height <= size && e.left + e.width <= size);
        sum += strcmp(name, "area") == 0        ? (double)e.height * e.width
               : strcmp(name, "log_ratio") == 0 ? log((double)e.height / e.width)
               : strcmp(name, "top") == 0       ? e.top
                                                : e.left;
    }
    CHECK_MSG(fabs(sum / n - mean) <= 5 * deviation * sqrt(1.0 / n + 1.0 / n_theirs),
              "mean %s of erased rectangles in %d: %g, want %g", name, size, sum / n, mean);
}

static void test_reference(void) {
    hirl_augment_t *augment = NULL;
    NEED_OK(hirl_augment_create(&augment));
    FILE *file = fopen(CASES, "r");
    NEED(file != NULL);
    char line[1024], op[32];
    int n_done = 0;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') continue;
        int used = 0, at = 0, c, h, w, kind, seed;
        NEED(sscanf(line, "%31s%n", op, &used) == 1);
        if (strcmp(op, "rotations") == 0) continue; // t434
        n_done++;
        if (strcmp(op, "lighting") == 0) {
            check_lighting(augment, line + used);
        } else if (strcmp(op, "erase") == 0) {
            check_erase_moments(line + used);
        } else {
            NEED(sscanf(line + used, "%d %d %d %d %d%n", &c, &h, &w, &kind, &seed, &at) == 5);
            hirl_image_t image = make_image(c, h, w, kind, seed);
            run_case(augment, op, line + used + at, &image);
            free(image.pixels);
        }
    }
    fclose(file);
    hirl_augment_destroy(&augment);
    CHECK_MSG(n_done >= 2100, "only %d cases in %s", n_done, CASES);
    printf("%d cases agree with Pillow and torchvision unless said otherwise\n", n_done);
}

static void test_erase(void) {
    enum { SIZE = 96 };
    hirl_augment_t *augment = NULL;
    NEED_OK(hirl_augment_create(&augment));
    hirl_image_t image = make_image(3, SIZE, SIZE, KIND_PHOTO, 1);
    static float out[2][SIZE * SIZE * 3];
    const hirl_view_spec_t spec = erase_spec(SIZE);
    hirl_view_spec_t plain = spec;
    plain.erase_prob = 0;
    double sum = 0, squares = 0;
    int64_t n_noise = 0;
    int n_erased = 0, n_wrong = 0;
    for (int i = 0; i < 400; i++) {
        hirl_view_draws_t d;
        hirl_rng_t rng = test_rng((uint64_t)i), again = rng;
        hirl_view_draw(&spec, SIZE, SIZE, &rng, &d);
        n_erased += d.is_erased;
        if (!d.is_erased) continue;
        CHECK_OK(hirl_view_apply(augment, &image, &spec, &d, mean_, std_, out[0]));
        CHECK_OK(hirl_augment_view(augment, &image, &plain, &again, mean_, std_, out[1]));
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++)
                for (int c = 0; c < 3; c++) {
                    const float value = out[0][(y * SIZE + x) * 3 + c];
                    const bool is_inside = y >= d.erase.top && y < d.erase.top + d.erase.height &&
                                           x >= d.erase.left && x < d.erase.left + d.erase.width;
                    if (!is_inside) {
                        n_wrong += value != out[1][(y * SIZE + x) * 3 + c];
                        continue;
                    }
                    sum += (double)value, squares += (double)value * (double)value, n_noise++;
                }
        // The same stream gives the same noise.
        memcpy(out[1], out[0], sizeof out[0]);
        CHECK_OK(hirl_view_apply(augment, &image, &spec, &d, mean_, std_, out[0]));
        CHECK_BITS(out[0], out[1], sizeof out[0]);
    }
    CHECK_EQ_I(n_wrong, 0);
    CHECK_CLOSE(n_erased, 100, 0, 5 * sqrt(400 * 0.25 * 0.75));
    CHECK_CLOSE(sum / (double)n_noise, 0, 0, 5 / sqrt((double)n_noise));
    CHECK_CLOSE(squares / (double)n_noise, 1, 0, 5 * sqrt(2.0 / (double)n_noise));
    free(image.pixels);
    hirl_augment_destroy(&augment);
}

// ------------------------------------------------------------------------------------ draws

// What the further operations draw comes from a part of the stream of its own.
static void test_draws(void) {
    enum { N = 20000 };
    hirl_view_spec_t spec = {.size = 32,
                             .scale = {0.2, 1},
                             .ratio = {0.75, 4.0 / 3.0},
                             .jitter_prob = 0.8,
                             .brightness = 0.4,
                             .flip_prob = 0.5};
    hirl_view_spec_t more = spec;
    more.rotate_degrees = 10;
    more.posterize_prob = 0.3, more.autocontrast_prob = 0.2, more.equalize_prob = 0.1;
    more.rand_augment = 2, more.rand_augment_magnitude = 9;
    more.rand_augment_std = 0.5, more.rand_augment_prob = 0.5;
    more.lighting_std = 0.1;
    more.erase_prob = 0.25, more.erase_area[0] = 0.02, more.erase_area[1] = 0.33;
    more.erase_ratio[0] = 0.3, more.erase_ratio[1] = 3.3;
    int n_other = 0, n_outside = 0, n_done = 0, n_negative = 0, n_op[HIRL_N_RAND_OPS] = {0};
    int n_pair = 0, n_post = 0, n_auto = 0, n_equal = 0, n_clipped = 0;
    double level = 0, degrees = 0, light = 0;
    for (int i = 0; i < N; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i), again = rng;
        hirl_view_draws_t a, b;
        hirl_view_draw(&spec, 100, 80, &rng, &a);
        hirl_view_draw(&more, 100, 80, &again, &b);
        n_other += a.is_flipped != b.is_flipped || a.factor[0] != b.factor[0] || a.top != b.top ||
                   a.width != b.width || a.has_jitter != b.has_jitter;
        n_other += a.is_erased || a.degrees != 0 || a.lighting[0] != 0 || a.is_equalized;
        n_outside += !(b.degrees >= -10 && b.degrees < 10);
        degrees += b.degrees, light += b.lighting[1] * b.lighting[1];
        n_post += b.is_posterized, n_auto += b.has_autocontrast, n_equal += b.is_equalized;
        for (int k = 0; k < 2; k++) {
            const hirl_rand_draw_t *d = &b.rand_augment[k];
            n_done += d->is_done, n_negative += d->is_negative, n_op[d->op]++;
            n_outside += !(d->level >= 0 && d->level <= 10);
            n_clipped += d->level == 10;
            level += d->level;
        }
        n_pair += b.rand_augment[0].op == b.rand_augment[1].op; // with replacement
    }
    CHECK_EQ_I(n_other, 0);
    CHECK_EQ_I(n_outside, 0);
    // Five standard deviations each. A magnitude N(9, 1/2) reaches the limit with probability
    // Phi(-2) = 0.02275, by which its mean is less: 9 - 0.5 (phi(2) - 2 Phi(-2)) = 8.99575.
    CHECK_CLOSE(n_post, 0.3 * N, 0, 5 * sqrt(N * 0.21));
    CHECK_CLOSE(n_auto, 0.2 * N, 0, 5 * sqrt(N * 0.16));
    CHECK_CLOSE(n_equal, 0.1 * N, 0, 5 * sqrt(N * 0.09));
    CHECK_CLOSE(n_done, N, 0, 5 * sqrt(N * 0.5));
    CHECK_CLOSE(n_negative, N, 0, 5 * sqrt(N * 0.5));
    CHECK_CLOSE(n_pair, N / 15.0, 0, 5 * sqrt(N / 15.0));
    CHECK_CLOSE(n_clipped, 2 * N * 0.02275, 0, 5 * sqrt(2 * N * 0.02275));
    CHECK_CLOSE(level / (2 * N), 8.99575, 0, 5 * 0.5 / sqrt(2.0 * N));
    CHECK_CLOSE(degrees / N, 0, 0, 5 * 20 / sqrt(12.0 * N));
    CHECK_CLOSE(light / N, 0.01, 0, 5 * 0.01 * sqrt(2.0 / N));
    for (int i = 0; i < HIRL_N_RAND_OPS; i++)
        CHECK_CLOSE(n_op[i], 2 * N / 15.0, 0, 5 * sqrt(2 * N / 15.0));
}

// Windows reach every position and no other, also where the image is smaller than the view.
static void test_windows(void) {
    static const struct {
        int height, width, resize, padding, low[2], high[2];
    } cases[] = {
        {32, 32, 0, 4, {-4, -4}, {4, 4}},
        {30, 40, 0, 0, {-2, 0}, {0, 8}},
        {20, 30, 0, 3, {-9, -3}, {-3, 1}},
        {80, 60, 36, 0, {0, 0}, {16, 4}},
    };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        const hirl_view_spec_t spec = {.size = 32,
                                       .crop = HIRL_CROP_RESIZE_RANDOM,
                                       .resize = cases[k].resize,
                                       .padding = cases[k].padding};
        int low[2] = {99, 99}, high[2] = {-99, -99};
        for (int i = 0; i < 2000; i++) {
            hirl_rng_t rng = test_rng((uint64_t)i);
            hirl_view_draws_t d;
            hirl_view_draw(&spec, cases[k].height, cases[k].width, &rng, &d);
            const int at[2] = {d.window_y, d.window_x};
            for (int axis = 0; axis < 2; axis++) {
                low[axis] = at[axis] < low[axis] ? at[axis] : low[axis];
                high[axis] = at[axis] > high[axis] ? at[axis] : high[axis];
            }
            CHECK(d.top == 0 && d.left == 0 && d.height == cases[k].height &&
                  d.width == cases[k].width);
        }
        for (int axis = 0; axis < 2; axis++) {
            CHECK_EQ_I(low[axis], cases[k].low[axis]);
            CHECK_EQ_I(high[axis], cases[k].high[axis]);
        }
    }
}

// A view with everything is a function of its stream alone.
static void test_no_memory(void) {
    hirl_augment_t *used = NULL, *fresh = NULL;
    NEED_OK(hirl_augment_create(&used));
    static float out[2][96 * 96 * 3];
    hirl_image_t images[3] = {make_image(3, 130, 100, KIND_PHOTO, 5),
                              make_image(3, 33, 20, KIND_NOISE, 6),
                              make_image(1, 28, 28, KIND_PHOTO, 7)};
    hirl_view_spec_t spec = {.scale = {0.2, 1},
                             .ratio = {0.75, 4.0 / 3.0},
                             .jitter_prob = 0.8,
                             .brightness = 0.4,
                             .contrast = 0.4,
                             .saturation = 0.4,
                             .hue = 0.1,
                             .gray_prob = 0.2,
                             .blur_prob = 0.5,
                             .blur_sigma = {0.1, 2},
                             .flip_prob = 0.5,
                             .rotate_degrees = 5,
                             .posterize_prob = 0.3,
                             .posterize_bits = 4,
                             .equalize_prob = 0.3,
                             .autocontrast_prob = 0.3,
                             .lighting_std = 0.1,
                             .rand_augment = 2,
                             .rand_augment_magnitude = 9,
                             .rand_augment_std = 0.5,
                             .rand_augment_prob = 0.5,
                             .erase_prob = 0.3,
                             .erase_area = {0.02, 0.33},
                             .erase_ratio = {0.3, 3.3}};
    for (int i = 0; i < 120; i++) {
        spec.size = i % 4 == 0 ? 96 : 15 + i % 50;
        spec.is_bicubic = i % 3 == 0;
        spec.crop = (hirl_crop_t)(i % 5 % 4);
        spec.padding = spec.crop == HIRL_CROP_RESIZE_RANDOM ? 4 : 0;
        spec.resize = i % 2 && spec.crop != HIRL_CROP_RESIZE ? 40 : 0;
        const hirl_image_t *image = &images[i % 3];
        hirl_rng_t rng = test_rng((uint64_t)i), again = rng;
        NEED_OK(hirl_augment_create(&fresh));
        CHECK_OK(hirl_augment_view(used, image, &spec, &rng, mean_, std_, out[0]));
        CHECK_OK(hirl_augment_view(fresh, image, &spec, &again, mean_, std_, out[1]));
        hirl_augment_destroy(&fresh);
        CHECK_BITS(out[0], out[1],
                   sizeof(float) * (size_t)(spec.size * spec.size * image->channels));
    }
    for (int i = 0; i < 3; i++) free(images[i].pixels);
    hirl_augment_destroy(&used);
}

static void test_errors(void) {
    hirl_augment_t *augment = NULL;
    NEED_OK(hirl_augment_create(&augment));
    hirl_image_t image = make_image(3, 8, 8, KIND_NOISE, 1);
    hirl_planes_t planes;
    NEED_OK(hirl_planes_load(augment, &image, &planes));
    const double far[6] = {1, 0, 40000, 0, 1, 0}, shear[6] = {1, 0.1, 0, 0, 1, 0};
    CHECK_FAILS(hirl_planes_affine(augment, &planes, far, HIRL_FILTER_NEAREST, fills[1]),
                HIRL_ERR_ARG, "pixels or more away");
    CHECK_FAILS(hirl_planes_affine(augment, &planes, shear, HIRL_FILTER_LANCZOS, fills[1]),
                HIRL_ERR_ARG, "Lanczos");
    free(image.pixels);
    hirl_augment_destroy(&augment);
}

TEST_MAIN {
    RUN(test_reference);
    RUN(test_erase);
    RUN(test_draws);
    RUN(test_windows);
    RUN(test_no_memory);
    RUN(test_errors);
}
