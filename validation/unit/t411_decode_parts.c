// test: timeout=120
// A part of a JPEG decoded alone has the pixels of the whole picture, whatever the subsampling, scan
// order and scale; shrunk pictures are means of the full ones; what is asked for is checked.
#include "pack_util.h"

#include "../../src/data/data_impl.h"

#include <turbojpeg.h>

enum { HEIGHT = 205, WIDTH = 307 };

// A picture with smooth parts, edges and noise in all channels, so that a pixel taken from the wrong
// place, or upsampled from the wrong neighbours, shows.
static void draw(uint8_t *pixels, int channels, bool is_smooth) {
    hirl_rng_t rng = test_rng(7);
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++) {
            for (int c = 0; c < channels; c++) {
                double value = 128 + 60 * sin(0.031 * x + c) + 50 * cos(0.023 * y - 0.7 * c);
                if (!is_smooth) {
                    value += (x / 13 + y / 9) % 2 ? 25 : -25;
                    value += hirl_rng_range(&rng, -30, 30);
                }
                pixels[(y * WIDTH + x) * channels + c] = (uint8_t)(value < 0     ? 0
                                                                   : value > 255 ? 255
                                                                                 : value);
            }
        }
    }
}

static hirl_sample_t to_jpeg(const uint8_t *pixels, int channels, int subsampling, int flags,
                             int quality) {
    tjhandle handle = tjInitCompress();
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    const int format = channels == 1 ? TJPF_GRAY : channels == 3 ? TJPF_RGB : TJPF_CMYK;
    NEED(handle && tjCompress2(handle, pixels, WIDTH, WIDTH * channels, HEIGHT, format, &bytes,
                               &size, subsampling, quality, flags) == 0);
    tjDestroy(handle);
    return (hirl_sample_t){.bytes = bytes,
                           .size = size,
                           .height = HEIGHT,
                           .width = WIDTH,
                           .encoding = HIRL_ENCODING_JPEG};
}

static size_t count_differing(const hirl_image_t *whole, const hirl_image_t *part,
                              const hirl_window_t *at) {
    size_t n = 0;
    const size_t row = (size_t)part->width * (size_t)part->channels;
    for (int y = 0; y < at->height; y++) {
        const uint8_t *in =
            whole->pixels + ((size_t)(at->top + y) * (size_t)whole->width + (size_t)at->left) *
                                (size_t)whole->channels;
        for (size_t i = 0; i < row; i++) n += in[i] != part->pixels[(size_t)y * row + i];
    }
    return n;
}

static void test_parts(void) {
    const struct {
        const char *name;
        int channels, subsampling, flags;
    } kinds[] = {
        {"4:4:4", 3, TJSAMP_444, 0},
        {"4:2:2", 3, TJSAMP_422, 0},
        {"4:2:0", 3, TJSAMP_420, 0},
        {"4:4:0", 3, TJSAMP_440, 0},
        {"4:1:1", 3, TJSAMP_411, 0},
        {"grey", 1, TJSAMP_GRAY, 0},
        {"grey of colour", 3, TJSAMP_GRAY, 0},
        {"CMYK 4:2:0", 4, TJSAMP_420, 0},
        {"progressive 4:2:0", 3, TJSAMP_420, TJFLAG_PROGRESSIVE},
        {"progressive 4:4:4", 3, TJSAMP_444, TJFLAG_PROGRESSIVE},
    };
    uint8_t *pixels = malloc((size_t)HEIGHT * WIDTH * 4);
    hirl_buffer_t whole_buffer = {0}, part_buffer = {0};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        draw(pixels, kinds[k].channels, false);
        hirl_sample_t sample =
            to_jpeg(pixels, kinds[k].channels, kinds[k].subsampling, kinds[k].flags, 90);
        for (int shrink = 1; shrink <= 8; shrink *= 2) {
            const int height = hirl_shrunk(HEIGHT, shrink), width = hirl_shrunk(WIDTH, shrink);
            hirl_image_t whole, part;
            NEED_OK(hirl_image_decode_part(&sample, 3, shrink, NULL, &whole_buffer, &whole));
            CHECK(whole.height == height && whole.width == width && whole.channels == 3);
            hirl_rng_t rng = test_rng((uint64_t)(100 * k) + (uint64_t)shrink);
            size_t n_bad = 0, n_bad_parts = 0;
            for (int trial = 0; trial < 40; trial++) {
                // Single pixels, slivers and nearly everything among them.
                hirl_window_t at;
                at.height = 1 + (int)hirl_rng_below(&rng, trial % 3 ? height : 3);
                at.width = 1 + (int)hirl_rng_below(&rng, trial % 5 ? width : 3);
                at.top = (int)hirl_rng_below(&rng, height - at.height + 1);
                at.left = (int)hirl_rng_below(&rng, width - at.width + 1);
                NEED_OK(hirl_image_decode_part(&sample, 3, shrink, &at, &part_buffer, &part));
                CHECK(part.height == at.height && part.width == at.width);
                const size_t n = count_differing(&whole, &part, &at);
                n_bad += n;
                n_bad_parts += n > 0;
            }
            CHECK_MSG(n_bad == 0, "%s at 1/%d: %zu of 40 parts differ, in %zu bytes", kinds[k].name,
                      shrink, n_bad_parts, n_bad);
        }
        tjFree((unsigned char *)sample.bytes);
    }
    hirl_buffer_reset(&whole_buffer);
    hirl_buffer_reset(&part_buffer);
    free(pixels);
}

// A transform of n x n values of a block of 8 x 8 keeps its lowest frequencies: for a smooth picture
// these are its means. One half for each of two roundings, and what the left-out frequencies hold:
// with these waves (at most 0.031 of a period a pixel) below one grey level at 1/8.
static void test_shrunk_are_means(void) {
    uint8_t *pixels = malloc((size_t)HEIGHT * WIDTH);
    draw(pixels, 1, true);
    hirl_sample_t sample = to_jpeg(pixels, 1, TJSAMP_GRAY, 0, 100);
    hirl_buffer_t buffer = {0};
    for (int shrink = 2; shrink <= 8; shrink *= 2) {
        hirl_image_t image;
        NEED_OK(hirl_image_decode_part(&sample, 1, shrink, NULL, &buffer, &image));
        double worst = 0;
        for (int y = 0; y < HEIGHT / shrink; y++) {
            for (int x = 0; x < WIDTH / shrink; x++) {
                double sum = 0;
                for (int i = 0; i < shrink * shrink; i++)
                    sum += pixels[(y * shrink + i / shrink) * WIDTH + x * shrink + i % shrink];
                const double apart =
                    fabs(sum / (shrink * shrink) - image.pixels[y * image.width + x]);
                worst = apart > worst ? apart : worst;
            }
        }
        CHECK_MSG(worst <= 2.0, "1/%d: %.2f grey levels from the mean", shrink, worst);
    }
    hirl_buffer_reset(&buffer);
    tjFree((unsigned char *)sample.bytes);
    free(pixels);
}

// Other formats give parts as well.
static void test_raw_and_png(void) {
    uint8_t *pixels = malloc((size_t)HEIGHT * WIDTH * 3);
    draw(pixels, 3, false);
    hirl_sample_t sample = {.bytes = pixels,
                            .size = (size_t)HEIGHT * WIDTH * 3,
                            .height = HEIGHT,
                            .width = WIDTH,
                            .channels = 3,
                            .encoding = HIRL_ENCODING_RAW};
    hirl_buffer_t whole_buffer = {0}, part_buffer = {0};
    hirl_image_t whole, part;
    hirl_window_t at = {11, 22, 33, 44};
    NEED_OK(hirl_image_decode(&sample, 3, &whole_buffer, &whole));
    NEED_OK(hirl_image_decode_part(&sample, 3, 1, &at, &part_buffer, &part));
    CHECK_EQ_I((long)count_differing(&whole, &part, &at), 0);
    NEED_OK(hirl_image_decode_part(&sample, 1, 1, &at, &part_buffer, &part));
    NEED_OK(hirl_image_decode(&sample, 1, &whole_buffer, &whole));
    CHECK_EQ_I((long)count_differing(&whole, &part, &at), 0);

    file_bytes_t file = load_file(IMAGES "/apple/gray4_interlaced.png");
    hirl_sample_t png = {.bytes = file.bytes, .size = file.size, .encoding = HIRL_ENCODING_PNG};
    NEED_OK(hirl_image_decode(&png, 3, &whole_buffer, &whole));
    at = (hirl_window_t){1, 2, whole.height - 3, whole.width - 4};
    NEED_OK(hirl_image_decode_part(&png, 3, 1, &at, &part_buffer, &part));
    CHECK_EQ_I((long)count_differing(&whole, &part, &at), 0);
    CHECK_FAILS(hirl_image_decode_part(&png, 3, 2, &at, &part_buffer, &part), HIRL_ERR_ARG,
                "cannot be decoded at 1/2");
    const hirl_window_t outside[] = {{-1, 0, 5, 5},
                                     {0, 0, whole.height + 1, 1},
                                     {whole.height - 1, 0, 2, 1},
                                     {0, 0, 0, 1},
                                     {INT_MAX, INT_MAX, INT_MAX, INT_MAX}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        CHECK_FAILS(hirl_image_decode_part(&png, 3, 1, &outside[i], &part_buffer, &part),
                    HIRL_ERR_ARG, "part ");
    }
    free(file.bytes);
    free(pixels);
    hirl_buffer_reset(&whole_buffer);
    hirl_buffer_reset(&part_buffer);
}

// Parts of files with bytes changed at random: no crash, an image of the size asked for or a text.
static void test_flipped(void) {
    uint8_t *pixels = malloc((size_t)HEIGHT * WIDTH * 3);
    draw(pixels, 3, false);
    for (int flags = 0; flags <= TJFLAG_PROGRESSIVE; flags += TJFLAG_PROGRESSIVE) {
        hirl_sample_t good = to_jpeg(pixels, 3, TJSAMP_420, flags, 60);
        unsigned char *copy = malloc(good.size);
        hirl_buffer_t buffer = {0};
        hirl_rng_t rng = test_rng(9);
        int n_refused = 0;
        for (int trial = 0; trial < 300; trial++) {
            memcpy(copy, good.bytes, good.size);
            for (int64_t k = hirl_rng_below(&rng, 4); k >= 0; k--) {
                // Half of them in the headers.
                const int64_t range = k % 2 ? (int64_t)good.size : 700;
                copy[2 + hirl_rng_below(&rng, range - 2)] =
                    (unsigned char)hirl_rng_below(&rng, 256);
            }
            hirl_sample_t sample = good;
            sample.bytes = copy;
            const hirl_window_t at = {(int)hirl_rng_below(&rng, HEIGHT - 60),
                                      (int)hirl_rng_below(&rng, WIDTH - 70), 60, 70};
            hirl_image_t image = {0};
            hirl_error_reset();
            if (hirl_image_decode_part(&sample, 3, 1, &at, &buffer, &image) == HIRL_OK) {
                CHECK(image.height == 60 && image.width == 70 && image.channels == 3);
            } else {
                CHECK(hirl_error_text_view()[0] != '\0');
                n_refused++;
            }
        }
        CHECK_MSG(n_refused > 15, "only %d of 300 damaged copies were refused", n_refused);
        hirl_buffer_reset(&buffer);
        free(copy);
        tjFree((unsigned char *)good.bytes);
    }
    free(pixels);
}

TEST_MAIN {
    RUN(test_parts);
    RUN(test_shrunk_are_means);
    RUN(test_raw_and_png);
    RUN(test_flipped);
}
