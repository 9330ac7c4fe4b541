// Decoding of one stored sample, or of a part of it, to u8 [height, width, channels], as PIL would.
// Sizes are read from the image's own header and bounded before anything is allocated.
#include "decode_impl.h"

#include <string.h>

bool hirl_image_sniff(const uint8_t *bytes, size_t size, hirl_encoding_t *encoding_p) {
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (size >= sizeof png && memcmp(bytes, png, sizeof png) == 0) {
        *encoding_p = HIRL_ENCODING_PNG;
        return true;
    }
    if (size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff) {
        *encoding_p = HIRL_ENCODING_JPEG;
        return true;
    }
    if (size >= 16 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBPVP8", 7) == 0) {
        *encoding_p = HIRL_ENCODING_WEBP;
        return true;
    }
    return false;
}

void hirl_buffer_reset(hirl_buffer_t *buffer) {
    hirl_mem_free(buffer->data);
    buffer->data = NULL;
    buffer->size = 0;
}

hirl_status_t hirl_buffer_reserve(hirl_buffer_t *buffer, size_t size) {
    if (buffer->size >= size && buffer->data) return HIRL_OK;
    // Half as much again, so that a stream of ever larger images does not allocate for each.
    size_t grown = buffer->size + buffer->size / 2;
    size_t wanted = size > grown ? size : grown;
    hirl_buffer_reset(buffer);
    void *data = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_DATA, wanted, &data));
    buffer->data = data;
    buffer->size = wanted;
    return HIRL_OK;
}

hirl_status_t hirl_decode_check_size(const char *what, const hirl_sample_t *sample, int64_t height,
                                     int64_t width, int channels, uint64_t n_most) {
    HIRL_REQUIRE(height >= 1 && width >= 1 && height <= HIRL_IMAGE_SIDE_MAX &&
                     width <= HIRL_IMAGE_SIDE_MAX,
                 HIRL_ERR_FORMAT, "%s: header says %lld x %lld pixels, expected sides of 1 to %d",
                 what, (long long)width, (long long)height, HIRL_IMAGE_SIDE_MAX);
    size_t bytes = (size_t)height * (size_t)width * (size_t)channels; // < 2^35: no overflow
    HIRL_REQUIRE(bytes <= HIRL_IMAGE_BYTES_MAX, HIRL_ERR_FORMAT,
                 "%s: header says %lld x %lld pixels of %d channels, more than the %zu MiB allowed",
                 what, (long long)width, (long long)height, channels, HIRL_IMAGE_BYTES_MAX >> 20);
    HIRL_REQUIRE((uint64_t)height * (uint64_t)width <= n_most, HIRL_ERR_FORMAT,
                 "%s: header says %lld x %lld pixels, its bytes can hold %llu at most: it is cut "
                 "short",
                 what, (long long)width, (long long)height, (unsigned long long)n_most);
    // Height 0: the caller does not know the size.
    HIRL_REQUIRE(sample->height == 0 || (sample->height == height && sample->width == width),
                 HIRL_ERR_FORMAT, "the image is %lld x %lld pixels, the shard says %d x %d",
                 (long long)width, (long long)height, sample->width, sample->height);
    return HIRL_OK;
}

hirl_status_t hirl_decode_place(const hirl_window_t *window, int height, int width,
                                hirl_window_t *part_p) {
    if (window == NULL) {
        *part_p = (hirl_window_t){0, 0, height, width};
        return HIRL_OK;
    }
    const bool is_inside = window->top >= 0 && window->left >= 0 && window->height > 0 &&
                           window->width > 0 && window->top <= height - window->height &&
                           window->left <= width - window->width;
    HIRL_REQUIRE(is_inside, HIRL_ERR_ARG, "part %d x %d at (%d, %d) of an image of %d x %d pixels",
                 window->width, window->height, window->left, window->top, width, height);
    *part_p = *window;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- channels

static void rgb_to_gray(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + 3 * i;
        pixels[i] = (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
    }
}

// In place from the end: the source of a pixel is never behind its target.
static void gray_to_rgb(uint8_t *pixels, size_t n) {
    for (size_t i = n; i-- > 0;) {
        uint8_t gray = pixels[i];
        pixels[3 * i] = pixels[3 * i + 1] = pixels[3 * i + 2] = gray;
    }
}

// round(a * b / 255) in integers.
static inline unsigned mul_div_255(unsigned a, unsigned b) {
    unsigned product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

// Adobe writes CMYK inverted, and so do all others by now. PIL: R = (255 - K) - C (255 - K) / 255.
void hirl_inverted_cmyk_to_rgb(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + 4 * i;
        unsigned light = p[3];
        uint8_t rgb[3];
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(light - mul_div_255(255u - p[c], light));
        memcpy(pixels + 3 * i, rgb, 3);
    }
}

// Also in place: rows move to the front.
static void copy_window(const uint8_t *pixels, int width, int channels, const hirl_window_t *part,
                        uint8_t *out) {
    const size_t pitch = (size_t)width * (size_t)channels;
    const size_t row = (size_t)part->width * (size_t)channels;
    const uint8_t *in = pixels + (size_t)part->top * pitch + (size_t)part->left * (size_t)channels;
    for (int y = 0; y < part->height; y++)
        memmove(out + (size_t)y * row, in + (size_t)y * pitch, row);
}

// -------------------------------------------------------------------------------------- all

static hirl_status_t copy_raw(const hirl_sample_t *sample, int least, const hirl_window_t *window,
                              hirl_buffer_t *buffer, hirl_image_t *image) {
    const int n = sample->channels;
    HIRL_REQUIRE(n == 1 || n == 3, HIRL_ERR_FORMAT, "raw image of %d channels, expected 1 or 3", n);
    const size_t bytes = (size_t)sample->height * (size_t)sample->width * (size_t)n;
    HIRL_REQUIRE(sample->height < 1 || sample->width < 1 || sample->size == bytes, HIRL_ERR_FORMAT,
                 "raw image of %d x %d x %d has %zu bytes, expected %zu", sample->height,
                 sample->width, n, sample->size, bytes);
    const int most = n > least ? n : least;
    HIRL_TRY(hirl_decode_check_size("raw image", sample, sample->height, sample->width, most,
                                    sample->size));
    hirl_window_t part;
    HIRL_TRY(hirl_decode_place(window, sample->height, sample->width, &part));
    HIRL_TRY(hirl_buffer_reserve(buffer, (size_t)part.height * (size_t)part.width * (size_t)most));
    copy_window(sample->bytes, sample->width, n, &part, buffer->data);
    *image = (hirl_image_t){buffer->data, part.height, part.width, n};
    return HIRL_OK;
}

hirl_status_t hirl_image_decode_part(const hirl_sample_t *sample, int channels, int shrink,
                                     const hirl_window_t *window, hirl_buffer_t *buffer,
                                     hirl_image_t *image_p) {
    HIRL_REQUIRE(channels == 0 || channels == 1 || channels == 3, HIRL_ERR_ARG,
                 "%d channels, expected 0, 1 or 3", channels);
    HIRL_REQUIRE(sample->bytes && sample->size > 0, HIRL_ERR_FORMAT, "the sample is empty");
    HIRL_REQUIRE(sample->bytes != buffer->data, HIRL_ERR_ARG,
                 "the sample lies in the buffer to decode into");
    const bool can_shrink =
        sample->encoding == HIRL_ENCODING_JPEG && (shrink == 2 || shrink == 4 || shrink == 8);
    HIRL_REQUIRE(shrink == 1 || can_shrink, HIRL_ERR_ARG,
                 "an image of encoding %d cannot be decoded at 1/%d", (int)sample->encoding,
                 shrink);

    hirl_image_t image = {0};
    switch (sample->encoding) {
        case HIRL_ENCODING_RAW: HIRL_TRY(copy_raw(sample, channels, window, buffer, &image)); break;
        case HIRL_ENCODING_JPEG:
            HIRL_TRY(hirl_decode_jpeg(sample, channels, shrink, window, buffer, &image));
            break;
        case HIRL_ENCODING_WEBP:
        case HIRL_ENCODING_PNG: {
            HIRL_TRY(sample->encoding == HIRL_ENCODING_PNG
                         ? hirl_decode_png(sample, channels, buffer, &image)
                         : hirl_decode_webp(sample, channels, buffer, &image));
            hirl_window_t part;
            HIRL_TRY(hirl_decode_place(window, image.height, image.width, &part));
            copy_window(image.pixels, image.width, image.channels, &part, image.pixels);
            image.height = part.height;
            image.width = part.width;
            break;
        }
        case HIRL_ENCODING_FRAMES:
            return HIRL_FAIL(HIRL_ERR_ARG, "a video is no image: decode its frames");
        default: return HIRL_FAIL(HIRL_ERR_ARG, "unknown encoding %d", (int)sample->encoding);
    }
    const size_t n = (size_t)image.height * (size_t)image.width;
    if (image.channels == 3 && channels == 1) {
        rgb_to_gray(image.pixels, n);
        image.channels = 1;
    } else if (image.channels == 1 && channels == 3) {
        gray_to_rgb(image.pixels, n);
        image.channels = 3;
    }
    *image_p = image;
    return HIRL_OK;
}

hirl_status_t hirl_image_decode(const hirl_sample_t *sample, int channels, hirl_buffer_t *buffer,
                                hirl_image_t *image_p) {
    return hirl_image_decode_part(sample, channels, 1, NULL, buffer, image_p);
}
