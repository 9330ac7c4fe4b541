// Every image operation, the evaluation transform and whole views against Pillow and torchvision:
// bit for bit, by CRC-32 of the result (validation/reference/augment). Draws: ranges, independence,
// uniform positions.
// test: ranks=1 timeout=120
#include "test.h"

#include <zlib.h>

#include "../../src/data/augment_impl.h"

enum { KIND_NOISE, KIND_PHOTO, KIND_EXTREME, KIND_ALL_COLOURS };
#define CASES "validation/reference/augment/cases.txt"

// ----------------------------------------------------------------------------- the script's images

static uint32_t mix(uint32_t i) {
    i = (i ^ i >> 16) * 0x7feb352du;
    i = (i ^ i >> 15) * 0x846ca68bu;
    return i ^ i >> 16;
}

static uint8_t pixel_at(int kind, int seed, int channels, int h, int w, int y, int x, int c) {
    static const uint8_t extremes[8] = {0, 255, 1, 254, 127, 128, 64, 0};
    const uint32_t noise = mix((uint32_t)((y * w + x) * channels + c) + 1000003u * (uint32_t)seed);
    if (kind == KIND_NOISE) return noise & 255;
    if (kind == KIND_EXTREME) return extremes[noise & 7];
    if (kind == KIND_ALL_COLOURS) return (uint8_t)((y * w + x) >> 8 * (2 - c));
    const int t = (x * (3 + c) * 256 / w + y * (5 - c) * 256 / h + 37 * seed) % 512;
    int a = t > 255 ? 511 - t : t;
    if ((x / 17 + y / 23) % 2 == 1) a = 255 - a;
    if ((x / 31 + y / 29) % 5 == 0)
        a = 40 + 60 * c;
    else
        a += (int)(noise & 15) - 8;
    return (uint8_t)(a < 0 ? 0 : a > 255 ? 255 : a);
}

// The last image made is kept: neighbouring cases share it.
static struct {
    int spec[5];
    uint8_t *pixels;
} kept;

static size_t image_bytes(const hirl_image_t *image) {
    return (size_t)image->height * (size_t)image->width * (size_t)image->channels;
}

static hirl_image_t make_image(int channels, int height, int width, int kind, int seed) {
    const int spec[5] = {channels, height, width, kind, seed};
    hirl_image_t image = {NULL, height, width, channels};
    if (!kept.pixels || memcmp(spec, kept.spec, sizeof spec) != 0) {
        free(kept.pixels);
        kept.pixels = malloc(image_bytes(&image));
        NEED(kept.pixels != NULL);
        memcpy(kept.spec, spec, sizeof spec);
        uint8_t *to = kept.pixels;
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++)
                for (int c = 0; c < channels; c++)
                    *to++ = pixel_at(kind, seed, channels, height, width, y, x, c);
    }
    image.pixels = malloc(image_bytes(&image));
    NEED(image.pixels != NULL);
    memcpy(image.pixels, kept.pixels, image_bytes(&image));
    return image;
}

static unsigned crc_of(const uint8_t *data, size_t n) { return (unsigned)crc32(0, data, (uInt)n); }

static void replace_pixels(hirl_image_t *image, uint8_t *pixels, int height, int width) {
    free(image->pixels);
    image->pixels = pixels;
    image->height = height;
    image->width = width;
}

// ------------------------------------------------------------------------------------ one case

static const float mean_[3] = {0.485f, 0.456f, 0.406f}, std_[3] = {0.229f, 0.224f, 0.225f};

// What the float image must have been in bytes; each value must be (byte / 255 - mean) / std to
// rounding.
static void to_bytes(const float *values, size_t n, int channels, const char *what,
                     uint8_t *bytes) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        const double mean = (double)mean_[i % (size_t)channels],
                     std = (double)std_[i % (size_t)channels];
        const double byte = rint(((double)values[i] * std + mean) * 255);
        bytes[i] = (uint8_t)byte;
        worst = fmax(worst, fabs((double)values[i] - (byte / 255 - mean) / std));
    }
    // Up to three roundings of numbers below 5: 3 * 4 * 2^-24.
    CHECK_MSG(worst < 7.2e-7, "%s: normalised values are off by up to %g", what, worst);
}

static int n_parts; // evaluations that read less than the image

// The same bits from no more of the image than the transform says it reads, and not from less.
static void check_eval_part(hirl_augment_t *augment, const hirl_image_t *image, const double *p,
                            const float *want, size_t size) {
    const int resize = (int)p[0], crop = (int)p[1], channels = image->channels;
    const bool is_bicubic = p[2] != 0;
    hirl_window_t part;
    NEED_OK(
        hirl_eval_window(augment, image->height, image->width, resize, crop, is_bicubic, &part));
    CHECK(part.top >= 0 && part.left >= 0 && part.top + part.height <= image->height &&
          part.left + part.width <= image->width);
    n_parts += part.height < image->height || part.width < image->width;
    const size_t pitch = (size_t)part.width * (size_t)channels;
    uint8_t *pixels = malloc((size_t)part.height * pitch);
    float *got = malloc(size * sizeof *got);
    NEED(pixels && got);
    for (int y = 0; y < part.height; y++)
        memcpy(pixels + (size_t)y * pitch,
               image->pixels + ((size_t)(part.top + y) * (size_t)image->width + (size_t)part.left) *
                                   (size_t)channels,
               pitch);
    hirl_image_t seen = {pixels, part.height, part.width, channels};
    CHECK_OK(hirl_augment_eval_part(augment, &seen, &part, image->height, image->width, resize,
                                    crop, is_bicubic, mean_, std_, got));
    CHECK(memcmp(got, want, size * sizeof *got) == 0);
    seen.height--;
    part.height--;
    if (part.height > 0 && (resize > 0 || crop > 0))
        CHECK_FAILS(hirl_augment_eval_part(augment, &seen, &part, image->height, image->width,
                                           resize, crop, is_bicubic, mean_, std_, got),
                    HIRL_ERR_ARG, "lacks");
    free(pixels);
    free(got);
}

static void run_case(hirl_augment_t *augment, const char *op, char *rest, hirl_image_t *image) {
    double p[32];
    int n = 0, used = 0, height = image->height, width = image->width;
    while (n < 32 && sscanf(rest, " %lf%n", &p[n], &used) == 1 && strchr(" \n", rest[used])) {
        // The CRC is the last word, and may look like a number.
        if (strspn(rest + used, " \n") == strlen(rest + used)) break;
        rest += used;
        n++;
    }
    unsigned want = 0;
    NEED(sscanf(rest, " %x", &want) == 1);
    uint8_t *out = NULL;
    if (strcmp(op, "resize") == 0) {
        height = (int)p[4], width = (int)p[5];
        NEED((out = malloc((size_t)height * (size_t)width * (size_t)image->channels)) != NULL);
        CHECK_OK(hirl_image_resize_crop(augment, image, (int)p[0], (int)p[1], (int)p[2], (int)p[3],
                                        height, width, p[6] != 0, out));
    } else if (strcmp(op, "eval") == 0) {
        hirl_eval_size(height, width, (int)p[0], (int)p[1], &height, &width);
        CHECK_EQ_I(height, p[3]);
        CHECK_EQ_I(width, p[4]);
        const size_t size = (size_t)height * (size_t)width * (size_t)image->channels;
        float *values = malloc(size * sizeof *values);
        NEED((out = malloc(size)) != NULL && values != NULL);
        CHECK_OK(hirl_augment_eval(augment, image, (int)p[0], (int)p[1], p[2] != 0, mean_, std_,
                                   values));
        to_bytes(values, size, image->channels, op, out);
        check_eval_part(augment, image, p, values, size);
        free(values);
    } else if (strcmp(op, "view") == 0) {
        height = width = (int)p[0];
        hirl_view_draws_t draws = {.is_flipped = p[2] != 0,
                                   .has_jitter = p[3] != 0,
                                   .is_gray = p[12] != 0,
                                   .has_blur = p[13] != 0,
                                   .sigma = p[14],
                                   .is_solarized = p[15] != 0,
                                   .top = (int)p[16],
                                   .left = (int)p[17],
                                   .height = (int)p[18],
                                   .width = (int)p[19]};
        for (int i = 0; i < 4; i++) draws.order[i] = (int)p[4 + i], draws.factor[i] = p[8 + i];
        const hirl_view_spec_t spec = {.size = height,
                                       .is_bicubic = p[1] != 0,
                                       .brightness = 0.4,
                                       .contrast = 0.4,
                                       .saturation = 0.4,
                                       .hue = 0.1};
        const size_t size = (size_t)height * (size_t)width * (size_t)image->channels;
        float *values = malloc(size * sizeof *values);
        NEED((out = malloc(size)) != NULL && values != NULL);
        CHECK_OK(hirl_view_apply(augment, image, &spec, &draws, mean_, std_, values));
        to_bytes(values, size, image->channels, op, out);
        free(values);
    } else if (strcmp(op, "brightness") == 0)
        hirl_image_brightness(image, p[0]);
    else if (strcmp(op, "contrast") == 0)
        hirl_image_contrast(image, p[0]);
    else if (strcmp(op, "saturation") == 0)
        hirl_image_saturation(image, p[0]);
    else if (strcmp(op, "hue") == 0)
        hirl_image_hue(image, p[0]);
    else if (strcmp(op, "grayscale") == 0)
        hirl_image_grayscale(image);
    else if (strcmp(op, "flip") == 0)
        hirl_image_flip(image);
    else if (strcmp(op, "solarize") == 0)
        hirl_image_solarize(image, (int)p[0]);
    else if (strcmp(op, "blur") == 0)
        CHECK_OK(hirl_image_blur(augment, image, p[0]));
    else
        NEED(!"known operation");
    if (out) replace_pixels(image, out, height, width);
    const unsigned got = crc_of(image->pixels, image_bytes(image));
    CHECK_MSG(got == want,
              "%s of image %d %d %d kind %d seed %d, parameters %g %g %g...: CRC %08x, want %08x",
              op, kept.spec[0], kept.spec[1], kept.spec[2], kept.spec[3], kept.spec[4],
              n > 0 ? p[0] : 0, n > 1 ? p[1] : 0, n > 2 ? p[2] : 0, got, want);
}

// Means of the crops that hirl_view_draw makes against those of torchvision: five standard errors
// of the difference.
static void check_moments(int height, int width, const char *name, int n_theirs, double mean,
                          double deviation) {
    enum { N = 20000 };
    const hirl_view_spec_t spec = {.size = 28, .scale = {0.2, 1}, .ratio = {0.75, 4.0 / 3.0}};
    double sum = 0;
    for (int i = 0; i < N; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i);
        hirl_view_draws_t d;
        hirl_view_draw(&spec, height, width, &rng, &d);
        sum += strcmp(name, "area") == 0 ? (double)d.height * d.width / ((double)height * width)
               : strcmp(name, "log_ratio") == 0 ? log((double)d.width / d.height)
               : strcmp(name, "top") == 0       ? d.top
                                                : d.left;
    }
    CHECK_MSG(fabs(sum / N - mean) <= 5 * deviation * sqrt(1.0 / N + 1.0 / n_theirs),
              "mean %s of %d x %d: %g, want %g", name, height, width, sum / N, mean);
}

static void test_reference(void) {
    hirl_augment_t *augment = NULL;
    NEED_OK(hirl_augment_create(&augment));
    FILE *file = fopen(CASES, "r");
    NEED(file != NULL);
    char line[1024], op[32];
    int n_done = 0, n_crops = 0;
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') continue;
        int used = 0, at = 0, c, h, w, kind, seed;
        NEED(sscanf(line, "%31s%n", op, &used) == 1);
        if (strcmp(op, "crop") == 0) {
            double share, ratio;
            int fits, want_h, want_w, got_h = 0, got_w = 0;
            NEED(sscanf(line + used, "%d %d %lf %lf %d %d %d", &h, &w, &share, &ratio, &fits,
                        &want_h, &want_w) == 7);
            CHECK_EQ_I(hirl_crop_fit(h, w, share, ratio, &got_h, &got_w), fits);
            if (fits)
                CHECK_MSG(got_h == want_h && got_w == want_w, "%s gave %d x %d", line, got_h,
                          got_w);
            n_crops++;
        } else if (strcmp(op, "central") == 0) {
            double ratio[2];
            int want[4];
            NEED(sscanf(line + used, "%d %d %lf %lf %d %d %d %d", &h, &w, &ratio[0], &ratio[1],
                        &want[0], &want[1], &want[2], &want[3]) == 8);
            hirl_view_draws_t draws;
            hirl_crop_central(h, w, ratio, &draws);
            CHECK_MSG(draws.top == want[0] && draws.left == want[1] && draws.height == want[2] &&
                          draws.width == want[3],
                      "%s gave %d %d %d %d", line, draws.top, draws.left, draws.height,
                      draws.width);
            n_crops++;
        } else if (strcmp(op, "moments") == 0) {
            char name[16];
            int n_theirs;
            double mean, deviation;
            NEED(sscanf(line + used, "%d %d %15s %d %lf %lf", &h, &w, name, &n_theirs, &mean,
                        &deviation) == 6);
            check_moments(h, w, name, n_theirs, mean, deviation);
        } else {
            NEED(sscanf(line + used, "%d %d %d %d %d%n", &c, &h, &w, &kind, &seed, &at) == 5);
#ifdef HIRL_DEBUG
            if (kind == KIND_ALL_COLOURS) continue; // 2^24 pixels take too long there
#endif
            hirl_image_t image = make_image(c, h, w, kind, seed);
            run_case(augment, op, line + used + at, &image);
            free(image.pixels);
            n_done++;
        }
    }
    CHECK(n_parts >= 10);
    fclose(file);
    free(kept.pixels);
    kept.pixels = NULL;
    hirl_augment_destroy(&augment);
    CHECK(augment == NULL);
    CHECK_MSG(n_done >= 1200 && n_crops >= 200, "only %d images and %d crops in %s", n_done,
              n_crops, CASES);
    printf("%d images and %d crops agree with Pillow and torchvision unless said otherwise\n",
           n_done, n_crops);
}

// ------------------------------------------------------------------------------------ draws

static hirl_view_spec_t usual_spec(void) {
    return (hirl_view_spec_t){.size = 28,
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
                              .solarize_prob = 0.1,
                              .flip_prob = 0.5};
}

static void test_draws(void) {
    enum { N = 24000 };
    const hirl_view_spec_t spec = usual_spec();
    int n_flip = 0, n_jitter = 0, n_gray = 0, n_blur = 0, n_solar = 0, n_order[256] = {0},
        n_outside = 0, n_top[29] = {0};
    double sum_b = 0, sum_sigma = 0;
    for (int i = 0; i < N; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i);
        hirl_view_draws_t d;
        hirl_view_draw(&spec, 300, 400, &rng, &d);
        n_flip += d.is_flipped, n_jitter += d.has_jitter, n_gray += d.is_gray, n_blur += d.has_blur;
        n_solar += d.is_solarized;
        n_order[d.order[0] * 64 + d.order[1] * 16 + d.order[2] * 4 + d.order[3]]++;
        for (int k = 0; k < 3; k++) n_outside += !(d.factor[k] >= 0.6 && d.factor[k] < 1.4);
        n_outside +=
            !(d.factor[3] >= -0.1 && d.factor[3] < 0.1) || !(d.sigma >= 0.1 && d.sigma < 2);
        n_outside += d.top < 0 || d.left < 0 || d.top + d.height > 300 || d.left + d.width > 400;
        sum_b += d.factor[0], sum_sigma += d.sigma;
        // Same stream, another image and other probabilities: the draws before the crop stay.
        hirl_view_spec_t other = spec;
        other.blur_prob = 0, other.jitter_prob = 0, other.gray_prob = 1;
        rng = test_rng((uint64_t)i);
        hirl_view_draws_t e;
        hirl_view_draw(&other, 28, 28, &rng, &e);
        n_outside += e.is_flipped != d.is_flipped || e.factor[1] != d.factor[1] ||
                     e.is_solarized != d.is_solarized || e.has_blur || e.has_jitter || !e.is_gray;
        n_outside += e.top < 0 || e.left < 0 || e.top + e.height > 28 || e.left + e.width > 28;
        if (e.height == 14 && e.top <= 14) n_top[e.top]++;
    }
    CHECK_EQ_I(n_outside, 0);
    // Five standard deviations of a binomial count.
    CHECK_CLOSE(n_flip, 0.5 * N, 0, 5 * sqrt(N * 0.25));
    CHECK_CLOSE(n_jitter, 0.8 * N, 0, 5 * sqrt(N * 0.16));
    CHECK_CLOSE(n_gray, 0.2 * N, 0, 5 * sqrt(N * 0.16));
    CHECK_CLOSE(n_blur, 0.5 * N, 0, 5 * sqrt(N * 0.25));
    CHECK_CLOSE(n_solar, 0.1 * N, 0, 5 * sqrt(N * 0.09));
    int n_kinds = 0;
    for (int i = 0; i < 256; i++) {
        n_kinds += n_order[i] > 0;
        if (n_order[i] > 0) CHECK_CLOSE(n_order[i], N / 24.0, 0, 5 * sqrt(N / 24.0));
    }
    CHECK_EQ_I(n_kinds, 24);
    CHECK_CLOSE(sum_b / N, 1.0, 0, 5 * 0.8 / sqrt(12.0 * N));
    CHECK_CLOSE(sum_sigma / N, 1.05, 0, 5 * 1.9 / sqrt(12.0 * N));
    // Every position of a crop of half the height is reached.
    int n_positions = 0;
    for (int i = 0; i <= 14; i++) n_positions += n_top[i] > 0;
    CHECK_EQ_I(n_positions, 15);
}

// A view is a function of its stream alone: other images and sizes before it change nothing.
static void test_no_memory(void) {
    hirl_augment_t *used = NULL, *fresh = NULL;
    NEED_OK(hirl_augment_create(&used));
    hirl_view_spec_t spec = usual_spec();
    static float out[2][96 * 96 * 3];
    hirl_image_t big = make_image(3, 300, 200, KIND_PHOTO, 5),
                 small = make_image(3, 33, 20, KIND_NOISE, 6);
    hirl_image_t gray = make_image(1, 28, 28, KIND_PHOTO, 7);
    const hirl_image_t *const images[3] = {&big, &small, &gray};
    for (int i = 0; i < 60; i++) {
        spec.size = i % 4 == 0 ? 96 : 20 + i;
        spec.is_bicubic = i % 3 == 0;
        const hirl_image_t *image = images[i % 3];
        hirl_rng_t rng = test_rng((uint64_t)i), again = rng;
        NEED_OK(hirl_augment_create(&fresh));
        CHECK_OK(hirl_augment_view(used, image, &spec, &rng, mean_, std_, out[0]));
        CHECK_OK(hirl_augment_view(fresh, image, &spec, &again, mean_, std_, out[1]));
        hirl_augment_destroy(&fresh);
        CHECK_BITS(out[0], out[1],
                   sizeof(float) * (size_t)(spec.size * spec.size * image->channels));
    }
    free(big.pixels), free(small.pixels), free(gray.pixels), free(kept.pixels);
    kept.pixels = NULL;
    hirl_augment_destroy(&used);
    hirl_augment_destroy(&used);
}

static void test_errors(void) {
    hirl_augment_t *augment = NULL;
    NEED_OK(hirl_augment_create(&augment));
    uint8_t pixels[4 * 4 * 4] = {0}, out[64];
    hirl_image_t image = {pixels, 4, 4, 4};
    CHECK_FAILS(hirl_image_resize_crop(augment, &image, 0, 0, 4, 4, 2, 2, false, out), HIRL_ERR_ARG,
                "4 channels");
    image.channels = 3;
    CHECK_FAILS(hirl_image_resize_crop(augment, &image, 1, 0, 4, 4, 2, 2, false, out), HIRL_ERR_ARG,
                "outside");
    CHECK_FAILS(hirl_image_resize_crop(augment, &image, 0, 0, 0, 4, 2, 2, false, out), HIRL_ERR_ARG,
                "outside");
    CHECK_FAILS(hirl_image_resize_crop(augment, &image, 0, 0, 4, 4, 0, 2, false, out), HIRL_ERR_ARG,
                "0 x 2");
    CHECK_FAILS(hirl_image_blur(augment, &image, -1), HIRL_ERR_ARG, "sigma");
    hirl_augment_destroy(&augment);
}

TEST_MAIN {
    RUN(test_reference);
    RUN(test_draws);
    RUN(test_no_memory);
    RUN(test_errors);
}
