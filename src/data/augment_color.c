// Pixel operations with Pillow's 8-bit rounding: ImageEnhance's blends (float arithmetic,
// truncated, clipped), the luma of convert('L'), ImageOps.solarize and the hue shift through 8-bit
// HSV.
// Every loop is free of branches on pixels so that it vectorises. The hue arithmetic is a
// rearrangement of colorsys-like formulas in float and double: each intermediate byte agrees with
// Pillow's for all 2^24 colours (see t43).
#include "augment_impl.h"

#include <math.h>

#include "clones_impl.h"

enum { CHUNK = 1024 }; // pixels taken apart at a time by the interleaved versions

static inline int clamp255(int value) {
    value = value < 0 ? 0 : value;
    return value > 255 ? 255 : value;
}

// ITU-R 601: (299 R + 587 G + 114 B) / 1000 in 16-bit fixed point, rounded.
static inline int luma(int r, int g, int b) {
    return (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16;
}

// Beyond +-512 every difference saturates; the limit keeps the conversion to int defined.
static inline float blend_factor(double factor) { return (float)fmin(fmax(factor, -1e4), 1e4); }

static inline uint8_t blend(int other, int value, float alpha) {
    return (uint8_t)clamp255((int)((float)other + alpha * (float)(value - other)));
}

HIRL_CLONES void hirl_span_blend(uint8_t *data, size_t n, int other, double factor) {
    const float alpha = blend_factor(factor);
    for (size_t i = 0; i < n; i++) data[i] = blend(other, data[i], alpha);
}

HIRL_CLONES void hirl_span_saturation(uint8_t *HIRL_RESTRICT r, uint8_t *HIRL_RESTRICT g,
                                      uint8_t *HIRL_RESTRICT b, size_t n, double factor) {
    const float alpha = blend_factor(factor);
    for (size_t i = 0; i < n; i++) {
        const int gray = luma(r[i], g[i], b[i]);
        r[i] = blend(gray, r[i], alpha);
        g[i] = blend(gray, g[i], alpha);
        b[i] = blend(gray, b[i], alpha);
    }
}

// value * (1 - saturation / 255 * weight / 255), rounded; the product is below 2^24, hence exact in
// float.
static inline uint8_t hsv_channel(int value, int saturation, int weight) {
    return (uint8_t)(int)((float)(value * (65025 - saturation * weight)) * (1.0f / 65025.0f) +
                          0.5f);
}

HIRL_CLONES void hirl_span_hue(uint8_t *HIRL_RESTRICT r, uint8_t *HIRL_RESTRICT g,
                               uint8_t *HIRL_RESTRICT b, size_t n, double shift) {
    const int add = (int)(fmin(fmax(shift, -1.0), 1.0) * 255.0) & 255; // truncated, modulo 256
    for (size_t i = 0; i < n; i++) {
        const int red = r[i], green = g[i], blue = b[i];
        int high = red > green ? red : green, low = red < green ? red : green;
        high = high > blue ? high : blue;
        low = low < blue ? low : blue;
        const int range = high - low, middle = red + green + blue - high - low;

        // Position on the hexagon, in sixths: an odd corner minus or plus the share of the middle
        // channel.
        const float share = (float)(high - middle) / (float)(range > 0 ? range : 1);
        const bool is_red = red == high, is_green = green == high;
        const bool is_falling = is_red ? blue == low : is_green ? red == low : green == low;
        const float corner = is_red     ? (is_falling ? 1.0f : -1.0f)
                             : is_green ? (is_falling ? 3.0f : 1.0f)
                                        : (is_falling ? 5.0f : 3.0f);
        float turn = (corner + (is_falling ? -share : share)) / 6.0f;
        turn = turn < 0.0f ? turn + 1.0f : turn;
        const int hue = range > 0 ? (int)(turn * 255.0f) : 0;
        const int saturation = (int)((float)range / (float)(high > 0 ? high : 1) * 255.0f);

        // Back, with the shifted hue in 1/255 of a sixth: each channel's distance from the value is
        // a trapezium.
        const int sixth = 6 * ((hue + add) & 255);
        const int at_red = sixth > 765 ? sixth - 765 : 765 - sixth;
        const int at_green = sixth > 510 ? sixth - 510 : 510 - sixth;
        const int at_blue = sixth > 1020 ? sixth - 1020 : 1020 - sixth;
        r[i] = hsv_channel(high, saturation, clamp255(510 - at_red));
        g[i] = hsv_channel(high, saturation, clamp255(at_green - 255));
        b[i] = hsv_channel(high, saturation, clamp255(at_blue - 255));
    }
}

HIRL_CLONES void hirl_span_luma(const uint8_t *r, const uint8_t *g, const uint8_t *b, size_t n,
                                uint8_t *out) {
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)luma(r[i], g[i], b[i]);
}

// Sums are taken in blocks whose 32-bit partial sums cannot overflow.
enum { SUM_BLOCK = 1 << 16 };

HIRL_CLONES int64_t hirl_span_sum(const uint8_t *data, size_t n) {
    int64_t total = 0;
    for (size_t at = 0; at < n; at += SUM_BLOCK) {
        const size_t end = n - at < SUM_BLOCK ? n : at + SUM_BLOCK;
        uint32_t sum = 0;
        for (size_t i = at; i < end; i++) sum += data[i];
        total += sum;
    }
    return total;
}

HIRL_CLONES int64_t hirl_span_sum_luma(const uint8_t *r, const uint8_t *g, const uint8_t *b,
                                       size_t n) {
    int64_t total = 0;
    for (size_t at = 0; at < n; at += SUM_BLOCK) {
        const size_t end = n - at < SUM_BLOCK ? n : at + SUM_BLOCK;
        uint32_t sum = 0;
        for (size_t i = at; i < end; i++) sum += (uint32_t)luma(r[i], g[i], b[i]);
        total += sum;
    }
    return total;
}

HIRL_CLONES void hirl_span_solarize(uint8_t *data, size_t n, int threshold) {
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(data[i] < threshold ? data[i] : 255 - data[i]);
}

int hirl_contrast_mean(int64_t sum, int64_t n) { return (int)((double)sum / (double)n + 0.5); }

// ------------------------------------------------------------------------------ interleaved images

static size_t n_pixels(const hirl_image_t *image) {
    return (size_t)image->height * (size_t)image->width;
}

typedef struct chunk {
    uint8_t r[CHUNK], g[CHUNK], b[CHUNK];
} chunk_t;

static void chunk_load(chunk_t *chunk, const uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        chunk->r[i] = pixels[3 * i];
        chunk->g[i] = pixels[3 * i + 1];
        chunk->b[i] = pixels[3 * i + 2];
    }
}

static void chunk_store(const chunk_t *chunk, uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        pixels[3 * i] = chunk->r[i];
        pixels[3 * i + 1] = chunk->g[i];
        pixels[3 * i + 2] = chunk->b[i];
    }
}

static inline size_t chunk_size(size_t n, size_t at) { return n - at < CHUNK ? n - at : CHUNK; }

void hirl_image_brightness(hirl_image_t *image, double factor) {
    hirl_span_blend(image->pixels, n_pixels(image) * (size_t)image->channels, 0, factor);
}

void hirl_image_contrast(hirl_image_t *image, double factor) {
    const size_t n = n_pixels(image);
    int64_t sum = 0;
    if (image->channels == 3) {
        chunk_t chunk;
        for (size_t at = 0; at < n; at += CHUNK) {
            const size_t m = chunk_size(n, at);
            chunk_load(&chunk, image->pixels + 3 * at, m);
            sum += hirl_span_sum_luma(chunk.r, chunk.g, chunk.b, m);
        }
    } else {
        sum = hirl_span_sum(image->pixels, n);
    }
    if (n > 0) {
        hirl_span_blend(image->pixels, n * (size_t)image->channels,
                        hirl_contrast_mean(sum, (int64_t)n), factor);
    }
}

void hirl_image_saturation(hirl_image_t *image, double factor) {
    if (image->channels != 3) return;
    chunk_t chunk;
    const size_t n = n_pixels(image);
    for (size_t at = 0; at < n; at += CHUNK) {
        const size_t m = chunk_size(n, at);
        chunk_load(&chunk, image->pixels + 3 * at, m);
        hirl_span_saturation(chunk.r, chunk.g, chunk.b, m, factor);
        chunk_store(&chunk, image->pixels + 3 * at, m);
    }
}

void hirl_image_hue(hirl_image_t *image, double shift) {
    if (image->channels != 3) return;
    chunk_t chunk;
    const size_t n = n_pixels(image);
    for (size_t at = 0; at < n; at += CHUNK) {
        const size_t m = chunk_size(n, at);
        chunk_load(&chunk, image->pixels + 3 * at, m);
        hirl_span_hue(chunk.r, chunk.g, chunk.b, m, shift);
        chunk_store(&chunk, image->pixels + 3 * at, m);
    }
}

void hirl_image_grayscale(hirl_image_t *image) {
    if (image->channels != 3) return;
    const size_t n = n_pixels(image);
    for (size_t i = 0; i < n; i++) {
        uint8_t *pixel = image->pixels + 3 * i;
        const uint8_t gray = (uint8_t)luma(pixel[0], pixel[1], pixel[2]);
        pixel[0] = pixel[1] = pixel[2] = gray;
    }
}

void hirl_image_solarize(hirl_image_t *image, int threshold) {
    hirl_span_solarize(image->pixels, n_pixels(image) * (size_t)image->channels, threshold);
}

void hirl_image_flip(hirl_image_t *image) {
    const int channels = image->channels;
    for (int y = 0; y < image->height; y++) {
        uint8_t *row = image->pixels + (size_t)y * (size_t)image->width * (size_t)channels;
        for (int left = 0, right = image->width - 1; left < right; left++, right--) {
            for (int c = 0; c < channels; c++) {
                uint8_t *a = row + (size_t)left * (size_t)channels + c,
                        *b = row + (size_t)right * (size_t)channels + c;
                const uint8_t kept = *a;
                *a = *b;
                *b = kept;
            }
        }
    }
}
