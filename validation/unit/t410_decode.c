// test: timeout=60
// Decoding against Pillow: PNG of every kind and JPEG, to RGB, to L and as stored; and what is no
// image, or claims sizes that it must not get, or was damaged anywhere.
#include "pack_util.h"

#include "../../src/data/data_impl.h"

enum { GIB = 1 << 30 };

static hirl_sample_t sample_of(const file_bytes_t *file) {
    hirl_sample_t sample = {.bytes = file->bytes, .size = file->size};
    NEED(hirl_image_sniff(sample.bytes, sample.size, &sample.encoding));
    return sample;
}

static void compare(const char *path, const hirl_sample_t *sample, int channels, int height,
                    int width, int expected, const unsigned char *pixels) {
    hirl_buffer_t buffer = {0};
    hirl_image_t image = {0};
    if (!CHECK_OK(hirl_image_decode(sample, channels, &buffer, &image))) return;
    CHECK_EQ_I(image.height, height);
    CHECK_EQ_I(image.width, width);
    CHECK_EQ_I(image.channels, expected);
    size_t n = (size_t)height * (size_t)width * (size_t)expected, n_bad = 0;
    int worst = 0;
    for (size_t i = 0; i < n; i++) {
        int apart = abs(image.pixels[i] - pixels[i]);
        n_bad += apart > 0;
        if (apart > worst) worst = apart;
    }
    // PNG is lossless. libjpeg-turbo keeps the results of its accurate DCT the same in all versions
    // and on all processors, so JPEG has to agree to the bit as well.
    CHECK_MSG(n_bad == 0, "%s to %d channels: %zu of %zu differ, by %d at most", path, channels,
              n_bad, n, worst);
    hirl_buffer_reset(&buffer);
}

static void test_against_pillow(void) {
    file_bytes_t blob = load_file("validation/reference/pack/expected.bin");
    FILE *list = fopen("validation/reference/pack/expected.txt", "r");
    NEED(list != NULL);
    char name[256], path[512];
    int height, width, channels, n = 0;
    size_t rgb, gray;
    while (fscanf(list, "%255s %d %d %d %zu %zu", name, &height, &width, &channels, &rgb, &gray) ==
           6) {
        snprintf(path, sizeof path, IMAGES "/%s", name);
        file_bytes_t file = load_file(path);
        hirl_sample_t sample = sample_of(&file);
        compare(name, &sample, 3, height, width, 3, blob.bytes + rgb);
        compare(name, &sample, 1, height, width, 1, blob.bytes + gray);
        compare(name, &sample, 0, height, width, channels,
                blob.bytes + (channels == 3 ? rgb : gray));
        sample.height = height;
        sample.width = width + 1;
        hirl_buffer_t buffer = {0};
        hirl_image_t image;
        CHECK_FAILS(hirl_image_decode(&sample, 0, &buffer, &image), HIRL_ERR_FORMAT,
                    "the shard says");
        hirl_buffer_reset(&buffer);
        free(file.bytes);
        n++;
    }
    CHECK_EQ_I(n, 26);
    fclose(list);
    free(blob.bytes);
}

// The formula of L at its edges, and grey spread to three channels.
static void test_raw(void) {
    const uint8_t rgb[12] = {255, 255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255}, gray[2] = {7, 250};
    hirl_sample_t sample = {rgb, 12, 2, 2, 3, HIRL_ENCODING_RAW, 0};
    hirl_buffer_t buffer = {0};
    hirl_image_t image;
    NEED_OK(hirl_image_decode(&sample, 1, &buffer, &image));
    CHECK_EQ_I(image.channels, 1);
    // round(0.299 255), round(0.587 255), round(0.114 255)
    const uint8_t l[4] = {255, 76, 150, 29};
    CHECK_BITS(image.pixels, l, 4);
    NEED_OK(hirl_image_decode(&sample, 3, &buffer, &image));
    CHECK_BITS(image.pixels, rgb, 12);
    sample = (hirl_sample_t){gray, 2, 1, 2, 1, HIRL_ENCODING_RAW, 0};
    NEED_OK(hirl_image_decode(&sample, 3, &buffer, &image));
    const uint8_t spread[6] = {7, 7, 7, 250, 250, 250};
    CHECK_BITS(image.pixels, spread, 6);
    sample.width = 3;
    CHECK_FAILS(hirl_image_decode(&sample, 3, &buffer, &image), HIRL_ERR_FORMAT,
                "has 2 bytes, expected 3");
    CHECK_FAILS(hirl_image_decode(&sample, 2, &buffer, &image), HIRL_ERR_ARG,
                "2 channels, expected 0, 1 or 3");
    sample.bytes = buffer.data;
    CHECK_FAILS(hirl_image_decode(&sample, 3, &buffer, &image), HIRL_ERR_ARG, "lies in the buffer");
    sample = (hirl_sample_t){gray, 0, 1, 2, 1, HIRL_ENCODING_PNG, 0};
    CHECK_FAILS(hirl_image_decode(&sample, 3, &buffer, &image), HIRL_ERR_FORMAT, "empty");
    hirl_buffer_reset(&buffer);
}

static void put_be(uint8_t *at, unsigned value, int n) {
    for (int i = 0; i < n; i++) at[i] = (uint8_t)(value >> (8 * (n - 1 - i)));
}

static void check_refused(const file_bytes_t *file, const char *text) {
    hirl_sample_t sample = sample_of(file);
    hirl_buffer_t buffer = {0};
    hirl_image_t image;
    hirl_mem_reset_peak();
    CHECK_FAILS(hirl_image_decode(&sample, 3, &buffer, &image), HIRL_ERR_FORMAT, text);
    CHECK_MSG(hirl_mem_peak(HIRL_MEM_DATA) <= 24 * 1032 * file->size,
              "%s: %zu bytes were allocated", text, hirl_mem_peak(HIRL_MEM_DATA));
    hirl_buffer_reset(&buffer);
}

static void test_hostile_sizes(void) {
    file_bytes_t png = load_file(IMAGES "/apple/rgb.png"),
                 jpeg = load_file(IMAGES "/Banana/rgb444.jpg");
    const struct {
        unsigned height, width;
        const char *text;
    } png_case[] = {{65501, 1, "Image height exceeds user limit"},
                    {1, 0x7fffffff, "Image width exceeds user limit"},
                    {0, 5, "Image height is zero"},
                    {10000, 10000, "its bytes can hold"},
                    {60000, 60000, "more than the 1024 MiB allowed"}};
    for (size_t c = 0; c < sizeof png_case / sizeof *png_case; c++) {
        put_be(png.bytes + 16, png_case[c].width, 4);
        put_be(png.bytes + 20, png_case[c].height, 4);
        put_be(png.bytes + 29, (unsigned)crc32(0, png.bytes + 12, 17), 4);
        check_refused(&png, png_case[c].text);
    }
    put_be(png.bytes + 16, 17, 4); // as it was, but for the checksum
    check_refused(&png, "CRC error");

    size_t frame = 2;
    while (jpeg.bytes[frame + 1] != 0xc0)
        frame += 2 + (size_t)(jpeg.bytes[frame + 2] << 8 | jpeg.bytes[frame + 3]);
    const struct {
        unsigned height, width;
        const char *text;
    } jpeg_case[] = {{65535, 10, "65535 pixels, expected sides of 1 to 65500"},
                     {0, 10, "header says 10 x 0 pixels"},
                     {65500, 65500, "more than the 1024 MiB allowed"},
                     {10000, 10000, "its bytes can hold"},
                     {60, 2000, "JPEG: "}}; // larger than its data: they end early
    for (size_t c = 0; c < sizeof jpeg_case / sizeof *jpeg_case; c++) {
        put_be(jpeg.bytes + frame + 5, jpeg_case[c].height, 2);
        put_be(jpeg.bytes + frame + 7, jpeg_case[c].width, 2);
        check_refused(&jpeg, jpeg_case[c].text);
    }
    put_be(jpeg.bytes + frame + 9, 2, 1);
    put_be(jpeg.bytes + frame + 5, 37, 2);
    check_refused(&jpeg, "2 components, expected 1, 3 or 4");
    free(png.bytes);
    free(jpeg.bytes);
}

// Cut anywhere, an image is refused with a text. Only what ends behind the last pixel's data may
// pass.
static void test_truncated(void) {
    const char *const names[] = {"apple/rgb.png", "apple/gray4_interlaced.png",
                                 "Banana/rgb420.jpeg", "Banana/progressive.JPEG",
                                 "Banana/cmyk.jpg"};
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        char path[512];
        snprintf(path, sizeof path, IMAGES "/%s", names[f]);
        file_bytes_t file = load_file(path);
        hirl_buffer_t buffer = {0};
        long n_passed = 0, n_silent = 0;
        for (size_t size = 8; size < file.size; size++) {
            // An exact copy, so that reading beyond it is seen by the address sanitizer.
            unsigned char *copy = malloc(size);
            memcpy(copy, file.bytes, size);
            hirl_sample_t sample = sample_of(&(file_bytes_t){copy, size});
            hirl_image_t image;
            hirl_error_reset();
            n_passed += hirl_image_decode(&sample, 0, &buffer, &image) == HIRL_OK;
            n_silent += hirl_error_text_view()[0] == '\0';
            free(copy);
        }
        CHECK_MSG(n_passed == 0 && n_silent == 0,
                  "%s: %ld of %zu truncations passed, %ld had no text", names[f], n_passed,
                  file.size, n_silent);
        hirl_buffer_reset(&buffer);
        free(file.bytes);
    }
}

// Bytes changed at random: no crash, and either an image of some size or a text.
static void test_flipped(void) {
    const char *const names[] = {"apple/palette.png", "apple/rgb16.png", "Banana/progressive.JPEG",
                                 "Banana/gray.jpg", "Banana/cmyk.jpg"};
    hirl_rng_t rng = test_rng(1);
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        char path[512];
        snprintf(path, sizeof path, IMAGES "/%s", names[f]);
        file_bytes_t file = load_file(path);
        unsigned char *copy = malloc(file.size);
        hirl_buffer_t buffer = {0};
        long n_refused = 0, n_silent = 0;
        for (int trial = 0; trial < 400; trial++) {
            memcpy(copy, file.bytes, file.size);
            int n_flips = 1 + (int)hirl_rng_below(&rng, 4);
            for (int k = 0; k < n_flips; k++) {
                copy[8 + hirl_rng_below(&rng, (int64_t)file.size - 8)] =
                    (unsigned char)hirl_rng_below(&rng, 256);
            }
            hirl_sample_t sample = sample_of(&(file_bytes_t){copy, file.size});
            hirl_image_t image = {0};
            hirl_error_reset();
            bool is_ok = hirl_image_decode(&sample, 3, &buffer, &image) == HIRL_OK;
            if (is_ok) CHECK(image.height > 0 && image.width > 0 && image.channels == 3);
            n_refused += !is_ok;
            n_silent += !is_ok && hirl_error_text_view()[0] == '\0';
        }
        printf("%s: %ld of 400 damaged copies refused\n", names[f], n_refused);
        CHECK(n_refused > 0 && n_silent == 0);
        hirl_buffer_reset(&buffer);
        free(copy);
        free(file.bytes);
    }
}

static void test_sniff(void) {
    hirl_encoding_t encoding;
    CHECK(!hirl_image_sniff((const uint8_t *)"GIF89a..", 8, &encoding));
    CHECK(!hirl_image_sniff((const uint8_t *)"\x89PNG\r\n\x1a", 7, &encoding));
    CHECK(!hirl_image_sniff((const uint8_t *)"\xff\xd8", 2, &encoding));
    CHECK(!hirl_image_sniff((const uint8_t *)"", 0, &encoding));
    CHECK(hirl_image_sniff((const uint8_t *)"\xff\xd8\xff", 3, &encoding) &&
          encoding == HIRL_ENCODING_JPEG);
}

TEST_MAIN {
    RUN(test_against_pillow);
    RUN(test_raw);
    RUN(test_sniff);
    RUN(test_hostile_sizes);
    RUN(test_truncated);
    RUN(test_flipped);
}
