// Operations on values and histograms with the rounding of Pillow's ImageOps, and the sharpness of
// ImageEnhance: posterise, invert, solarise-add, autocontrast, equalise. Where three channels have
// become one, each is done once: equal channels have equal histograms.
#include "augment_impl.h"

#include <string.h>

#include "clones_impl.h"

enum { LEVELS = 256 };

static inline int clamp255(int value) {
    value = value < 0 ? 0 : value;
    return value > 255 ? 255 : value;
}

// ------------------------------------------------------------------------------------ values

HIRL_CLONES void hirl_span_posterize(uint8_t *data, size_t n, int bits) {
    const uint8_t mask = (uint8_t)(0xff00 >> bits);
    for (size_t i = 0; i < n; i++) data[i] &= mask;
}

HIRL_CLONES void hirl_span_invert(uint8_t *data, size_t n) {
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)~data[i];
}

HIRL_CLONES void hirl_span_solarize_add(uint8_t *data, size_t n, int add, int threshold) {
    for (size_t i = 0; i < n; i++) {
        const int value = data[i];
        data[i] = (uint8_t)(value < threshold ? clamp255(value + add) : value);
    }
}

// ------------------------------------------------------------------------------------ histograms

// Four histograms side by side: neighbouring pixels are often equal, and a counter that has just
// been written is slow to read back.
static void count_levels(const hirl_planes_t *planes, int channel, int64_t count[LEVELS]) {
    uint32_t part[4][LEVELS] = {{0}};
    for (int y = 0; y < planes->height; y++) {
        const uint8_t *row = hirl_plane_row_view(planes, channel, y);
        int x = 0;
        for (; x + 4 <= planes->width; x += 4) {
            part[0][row[x]]++;
            part[1][row[x + 1]]++;
            part[2][row[x + 2]]++;
            part[3][row[x + 3]]++;
        }
        for (; x < planes->width; x++) part[0][row[x]]++;
    }
    for (int i = 0; i < LEVELS; i++)
        count[i] = (int64_t)part[0][i] + part[1][i] + part[2][i] + part[3][i];
}

static void replace_levels(const hirl_planes_t *planes, int channel, const uint8_t to[LEVELS]) {
    uint8_t *data = hirl_plane_row_view(planes, channel, 0);
    const size_t n = hirl_plane_size(planes);
    for (size_t i = 0; i < n; i++) data[i] = to[data[i]];
}

void hirl_planes_autocontrast(const hirl_planes_t *planes) {
    for (int c = 0; c < planes->channels; c++) {
        int64_t count[LEVELS];
        count_levels(planes, c, count);
        int low = 0, high = LEVELS - 1;
        while (low < high && count[low] == 0) low++;
        while (high > low && count[high] == 0) high--;
        if (high <= low) continue;
        const double scale = 255.0 / (high - low), offset = -low * scale;
        uint8_t to[LEVELS];
        for (int i = 0; i < LEVELS; i++) to[i] = (uint8_t)clamp255((int)(i * scale + offset));
        replace_levels(planes, c, to);
    }
}

void hirl_planes_equalize(const hirl_planes_t *planes) {
    const int64_t n = (int64_t)planes->height * planes->width;
    for (int c = 0; c < planes->channels; c++) {
        int64_t count[LEVELS];
        count_levels(planes, c, count);
        int last = LEVELS - 1;
        while (last > 0 && count[last] == 0) last--;
        // Each of 255 steps holds as many pixels; those of the brightest level do not count.
        const int64_t step = (n - count[last]) / 255;
        if (step == 0) continue;
        int64_t sum = step / 2;
        uint8_t to[LEVELS];
        for (int i = 0; i < LEVELS; i++) {
            to[i] = (uint8_t)(sum / step > 255 ? 255 : sum / step);
            sum += count[i];
        }
        replace_levels(planes, c, to);
    }
}

// ------------------------------------------------------------------------------------ sharpness

// One row; `up` and `down` are its neighbours. The blurred value is the mean of the 3 x 3 pixels, in which the central
// one counts five times, rounded: never on a tie, since 13 is odd, so whole numbers agree with
// Pillow's floats. 20165 / 2^19 = 1 / 26 closely enough for the numbers up to 26 * 255 + 13.
HIRL_CLONES static void sharpen_row(const uint8_t *HIRL_RESTRICT up,
                                    const uint8_t *HIRL_RESTRICT row,
                                    const uint8_t *HIRL_RESTRICT down, int n, float alpha,
                                    uint8_t *HIRL_RESTRICT out) {
    out[0] = row[0];
    for (int x = 1; x < n - 1; x++) {
        const uint32_t sum = (uint32_t)up[x - 1] + up[x] + up[x + 1] + row[x - 1] + 5u * row[x] +
                             row[x + 1] + down[x - 1] + down[x] + down[x + 1];
        const int smooth = (int)((2 * sum + 13) * 20165u >> 19);
        out[x] = (uint8_t)clamp255((int)((float)smooth + alpha * (float)(row[x] - smooth)));
    }
    out[n - 1] = row[n - 1];
}

hirl_status_t hirl_planes_sharpness(hirl_augment_t *augment, hirl_planes_t *planes, double factor) {
    if (planes->height < 3 || planes->width < 3) return HIRL_OK; // Pillow's filter leaves these
    const float alpha = (float)(factor > 1e4 ? 1e4 : factor < -1e4 ? -1e4 : factor);
    hirl_planes_t out = *planes;
    HIRL_TRY(hirl_planes_reserve_other(augment, planes, &out));
    const int last = planes->height - 1;
    for (int c = 0; c < planes->channels; c++) {
        for (int y = 1; y < last; y++) {
            const uint8_t *row = hirl_plane_row_view(planes, c, y);
            sharpen_row(row - planes->stride, row, row + planes->stride, planes->width, alpha,
                        hirl_plane_row_view(&out, c, y));
        }
        const size_t stride = (size_t)planes->stride;
        memcpy(hirl_plane_row_view(&out, c, 0), hirl_plane_row_view(planes, c, 0), stride);
        memcpy(hirl_plane_row_view(&out, c, last), hirl_plane_row_view(planes, c, last), stride);
    }
    *planes = out;
    return HIRL_OK;
}
