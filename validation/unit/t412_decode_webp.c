// test: timeout=60
// WebP against Pillow, whole and in parts; animations, cut and damaged files are refused. A build without
// libwebp says so.
#include "pack_util.h"

#include "../../src/data/data_impl.h"

#define FOLDER "validation/reference/pack/webp"

static hirl_sample_t sample_of(const file_bytes_t *file) {
    hirl_sample_t sample = {.bytes = file->bytes, .size = file->size};
    NEED(hirl_image_sniff(sample.bytes, sample.size, &sample.encoding));
    CHECK(sample.encoding == HIRL_ENCODING_WEBP);
    return sample;
}

#ifdef HIRL_HAS_WEBP

static void test_against_pillow(void) {
    file_bytes_t blob = load_file(FOLDER "/expected.bin");
    FILE *list = fopen(FOLDER "/expected.txt", "r");
    NEED(list != NULL);
    char name[256], path[512];
    int height, width, n = 0;
    size_t at = 0;
    hirl_buffer_t buffer = {0};
    while (fscanf(list, "%255s %d %d", name, &height, &width) == 3) {
        snprintf(path, sizeof path, FOLDER "/%s", name);
        file_bytes_t file = load_file(path);
        hirl_sample_t sample = sample_of(&file);
        hirl_image_t image;
        NEED_OK(hirl_image_decode(&sample, 3, &buffer, &image));
        CHECK(image.height == height && image.width == width && image.channels == 3);
        // libwebp's pixels are the same in all versions and on all processors.
        CHECK_BITS(image.pixels, blob.bytes + at, (size_t)height * (size_t)width * 3);
        if (height > 4) {
            const hirl_window_t part = {2, 3, height - 3, width - 5};
            size_t n_bad = 0;
            NEED_OK(hirl_image_decode_part(&sample, 3, 1, &part, &buffer, &image));
            for (int y = 0; y < part.height; y++)
                n_bad += memcmp(image.pixels + (size_t)y * (size_t)part.width * 3,
                                blob.bytes + at + ((size_t)(y + 2) * (size_t)width + 3) * 3,
                                (size_t)part.width * 3) != 0;
            CHECK_EQ_I(n_bad, 0);
        }
        at += (size_t)height * (size_t)width * 3;
        free(file.bytes);
        n++;
    }
    CHECK_EQ_I(n, 5);
    CHECK_EQ_I((long)at, (long)blob.size);
    fclose(list);
    hirl_buffer_reset(&buffer);
    free(blob.bytes);
}

static void test_refused(void) {
    hirl_buffer_t buffer = {0};
    hirl_image_t image;
    file_bytes_t file = load_file(FOLDER "/animation.webp");
    hirl_sample_t sample = sample_of(&file);
    CHECK_FAILS(hirl_image_decode(&sample, 3, &buffer, &image), HIRL_ERR_FORMAT, "an animation");
    CHECK_FAILS(hirl_image_decode_part(&sample, 3, 2, NULL, &buffer, &image), HIRL_ERR_ARG,
                "cannot be decoded at 1/2");
    free(file.bytes);

    static const char *const names[] = {"lossy", "lossless", "lossy-alpha"};
    hirl_rng_t rng = test_rng(3);
    for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "/%s.webp", names[f]);
        file = load_file(path);
        int n_passed = 0, n_refused = 0;
        for (size_t size = 16; size < file.size; size++) {
            unsigned char *copy = malloc(size); // so that reading behind it is seen
            memcpy(copy, file.bytes, size);
            sample = sample_of(&(file_bytes_t){copy, size});
            hirl_error_reset();
            n_passed += hirl_image_decode(&sample, 3, &buffer, &image) == HIRL_OK;
            CHECK(hirl_error_text_view()[0] != '\0');
            free(copy);
        }
        CHECK_MSG(n_passed == 0, "%s: %d cut copies passed", names[f], n_passed);
        unsigned char *copy = malloc(file.size);
        for (int trial = 0; trial < 500; trial++) {
            memcpy(copy, file.bytes, file.size);
            for (int k = 0; k < 3; k++)
                copy[16 + hirl_rng_below(&rng, (int64_t)file.size - 16)] =
                    (unsigned char)hirl_rng_below(&rng, 256);
            sample = sample_of(&(file_bytes_t){copy, file.size});
            hirl_error_reset();
            if (hirl_image_decode(&sample, 3, &buffer, &image) == HIRL_OK) continue;
            CHECK(hirl_error_text_view()[0] != '\0');
            n_refused++;
        }
        CHECK_MSG(n_refused > 5, "%s: only %d of 500 damaged copies were refused", names[f],
                  n_refused);
        free(copy);
        free(file.bytes);
    }
    hirl_buffer_reset(&buffer);
}

TEST_MAIN {
    RUN(test_against_pillow);
    RUN(test_refused);
}

#else

TEST_MAIN {
    hirl_buffer_t buffer = {0};
    hirl_image_t image;
    file_bytes_t file = load_file(FOLDER "/lossy.webp");
    hirl_sample_t sample = sample_of(&file);
    CHECK_FAILS(hirl_image_decode(&sample, 3, &buffer, &image), HIRL_ERR_FORMAT,
                "built without libwebp");
    free(file.bytes);
}

#endif
