/// @file augment.h
/// Launchers that make augmented views of decoded images: tables of filter taps; resampling with the operations that need no whole image;
/// rounds of what follows an operation that does, all views' first such part, then all views' second; blur; random erasing. Whichever
/// comes last for a view also normalises it.
/// Images are interleaved u8 [height, width, channels]; a view is [size, size, channels] with channels 1 or 3, size 1..8192.
/// The numbers in the records are checked by the caller.
#ifndef HIRL_KERNELS_AUGMENT_H
#define HIRL_KERNELS_AUGMENT_H

#include "kernels.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_K_VERTICAL, HIRL_K_HORIZONTAL };
enum { HIRL_K_BILINEAR, HIRL_K_BICUBIC, HIRL_K_LANCZOS, HIRL_K_NEAREST };

/// Operations on pixels by themselves.
enum {
    HIRL_K_BRIGHTNESS,
    HIRL_K_CONTRAST, // with the mean of the part's sum
    HIRL_K_SATURATION,
    HIRL_K_HUE, // n: added to H, 0..255
    HIRL_K_GRAY,
    HIRL_K_INVERT,
    HIRL_K_POSTERIZE,    // n: mask
    HIRL_K_SOLARIZE,     // n: first value that is inverted
    HIRL_K_SOLARIZE_ADD, // n: added below 128
    HIRL_K_LEVELS        // by the part's table
};
typedef struct hirl_k_tone {
    int32_t kind, n;
    float alpha; // factor, within +-10^4
} hirl_k_tone_t;

/// What is counted of a part's result: nothing, the sum of grey levels, histograms; and which table is made of these.
enum { HIRL_K_COUNT_NONE, HIRL_K_COUNT_SUM, HIRL_K_COUNT_LEVELS };
enum { HIRL_K_TABLE_NONE, HIRL_K_TABLE_AUTOCONTRAST, HIRL_K_TABLE_EQUALIZE };
/// Room for a view's counts in items of 4 bytes: sum [2] of 64 bits, or histograms [3, 256] and the table u8 [3, 256] made of them.
enum { HIRL_K_SUM_ITEMS = 2, HIRL_K_LEVELS_ITEMS = 3 * 256 + 3 * 256 / 4 };

/// Operations [first_tone, first_tone + n_tones), and what is counted of their result from item `count` of `counts` on.
typedef struct hirl_k_tones {
    int32_t first, n;
    int32_t counts_what;
    int32_t reserved;
    int64_t count;
} hirl_k_tones_t;

/// One view, as the kernels read it from device memory.
typedef struct hirl_k_view {
    int64_t first; // byte of `pixels` where the crop begins
    int64_t pitch; // bytes from one row of the image to the next
    int64_t table
        [2]; // item of `tables` where each axis' table begins: first [size], count [size], tap [n_taps, size]
    int64_t
        work; // byte of `work` where the view begins, a multiple of 16; -1: resampling finishes the view
    int32_t in_size[2];  // of the crop: height, width
    int32_t out_size[2]; // that it is resized to
    int32_t window[2];   // place in it of the view's first pixel; beyond it lies black
    int32_t n_taps[2];   // room in the table: min(in_size, hirl_k_view_taps)
    int32_t filter, is_flipped;
    hirl_k_tones_t tones;
    uint32_t radius;       // blur: whole part of the box's radius
    uint32_t inner, outer; // its weights, 24 fractional bits
    int32_t is_solarized;  // after blur, from 128 on
    float shift[3];        // added to the normalisation's offset
    int32_t reserved;
    int64_t blurred; // byte of `work` where blur finds the view
} hirl_k_view_t;

/// A map from the view's pixels to those of another; fixed: its numbers as 16.16, with the place of the first pixel.
typedef struct hirl_k_warp {
    double map[6];
    int32_t fixed[6];
    int32_t filter;
    uint8_t fill[4];
} hirl_k_warp_t;

/// What a round does to a view.
enum { HIRL_K_HERE = -1, HIRL_K_SHARPEN = -2 };
typedef struct hirl_k_part {
    int64_t from, to; // byte of `work`; to -1: the part finishes the view
    int32_t view;
    int32_t warp; // item of `warps`; or pixels stay where they are, or are sharpened
    float alpha;  // of sharpening
    int32_t table;
    int64_t count; // item of `counts`: what the part before has counted
    hirl_k_tones_t tones;
} hirl_k_part_t;

/// A rectangle of normal numbers.
typedef struct hirl_k_erase {
    int32_t view, top, left, height, width;
    uint32_t counter[3], key[2]; // of Philox; number i is made from block i
} hirl_k_erase_t;

/// A value v of channel c becomes v * scale[c] + offset[c].
typedef struct hirl_k_affine {
    float scale[3], offset[3];
} hirl_k_affine_t;

/// What all launchers get.
typedef struct hirl_k_views {
    const hirl_k_view_t *view; // [n]
    int64_t n;
    int size, channels;
    const hirl_k_tone_t *tone;
    const hirl_k_warp_t *warp;
    hirl_k_affine_t affine;
    int32_t *tables;
    uint32_t *counts; // all zero before the first launch
    uint8_t *work;
    float *y; // [n, size, size, channels]
} hirl_k_views_t;

/// Taps that an output can have at most.
int64_t hirl_k_view_taps(int64_t in_size, int64_t out_size, int filter);
/// Items of one axis' table.
static inline int64_t hirl_k_view_table(int64_t n_taps, int64_t size) {
    return (2 + n_taps) * size;
}

/// Fills the tables of all views as Pillow rounds them.
cudaError_t hirl_k_view_tables(cudaStream_t stream, const hirl_k_views_t *views);
/// Resamples all views and does their first operations. A view without work is finished in y; one with work goes there.
cudaError_t hirl_k_view_resample(cudaStream_t stream, const hirl_k_views_t *views,
                                 const uint8_t *pixels);
/// Makes the tables of the parts that have one.
cudaError_t hirl_k_view_levels(cudaStream_t stream, const hirl_k_views_t *views,
                               const hirl_k_part_t *part, int64_t n);
/// Does n parts, all HIRL_K_HERE, or none of them.
cudaError_t hirl_k_view_parts(cudaStream_t stream, const hirl_k_views_t *views,
                              const hirl_k_part_t *part, int64_t n, int is_here);
/// Blur of the views that list[0..n) names, which finishes them.
cudaError_t hirl_k_view_blur(cudaStream_t stream, const hirl_k_views_t *views, const int32_t *list,
                             int64_t n);
/// Erases n rectangles of finished views.
cudaError_t hirl_k_view_erase(cudaStream_t stream, const hirl_k_views_t *views,
                              const hirl_k_erase_t *erase, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
