/// @file augment.h
/// Launchers that make augmented views of decoded images: tables of filter taps, resampling with the colours that need no
/// whole image, the other colours, and blur; whichever comes last for a view also normalises it.
/// Images are interleaved u8 [height, width, channels]; a view is [size, size, channels] with channels 1 or 3, size 1..8192.
/// The numbers in hirl_k_view_t are checked by the caller.
#ifndef HIRL_KERNELS_AUGMENT_H
#define HIRL_KERNELS_AUGMENT_H

#include "kernels.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_K_BRIGHTNESS, HIRL_K_CONTRAST, HIRL_K_SATURATION, HIRL_K_HUE, HIRL_K_N_JITTER };
enum { HIRL_K_VERTICAL, HIRL_K_HORIZONTAL };

/// One view, as the kernels read it from device memory.
typedef struct hirl_k_view {
    int64_t first; // byte of `pixels` where the crop begins
    int64_t pitch; // bytes from one row of the image to the next
    int64_t table
        [2]; // item of `tables` where each axis' table begins: first [size], count [size], tap [n_taps, size]
    int64_t
        work; // byte of `work` where the view begins, a multiple of 16; -1: resampling finishes the view
    int32_t in_size[2]; // of the crop: height, width
    int32_t n_taps[2];  // room in the table: min(in_size, hirl_k_view_taps)
    int32_t n_jitter,
        n_early; // operations, and how many of them come before contrast (all without contrast)
    int32_t jitter[HIRL_K_N_JITTER];
    float alpha[HIRL_K_N_JITTER]; // factor of each operation, within +-10^4
    int32_t turn;                 // hue: added to H, 0..255
    uint32_t radius;              // blur: whole part of the box's radius
    uint32_t inner, outer;        // its weights, 24 fractional bits; inner 0: no blur
    int32_t is_bicubic, is_flipped, is_gray, is_solarized;
} hirl_k_view_t;

/// A value v of channel c becomes v * scale[c] + offset[c].
typedef struct hirl_k_affine {
    float scale[3], offset[3];
} hirl_k_affine_t;

/// Taps that an output can have at most.
int64_t hirl_k_view_taps(int64_t in_size, int64_t out_size, int is_bicubic);
/// Items of one axis' table.
static inline int64_t hirl_k_view_table(int64_t n_taps, int64_t size) {
    return (2 + n_taps) * size;
}

/// Fills the tables of n views as Pillow rounds them.
cudaError_t hirl_k_view_tables(cudaStream_t stream, const hirl_k_view_t *view, int64_t n, int size,
                               int32_t *tables);
/// Resamples n views and does their early jitter. A view without work is finished in y; one with work goes there, and if it has contrast,
/// the sum of its grey levels is added to sums[view].
cudaError_t hirl_k_view_resample(cudaStream_t stream, const uint8_t *pixels,
                                 const hirl_k_view_t *view, int64_t n, int size, int channels,
                                 const int32_t *tables, const hirl_k_affine_t *affine,
                                 uint8_t *work, unsigned long long *sums, float *y);
/// Contrast and what follows it, for the views that list[0..n) names. A view with blur stays in `work`, others are finished.
cudaError_t hirl_k_view_color(cudaStream_t stream, const hirl_k_view_t *view, const int32_t *list,
                              int64_t n, int size, int channels, const hirl_k_affine_t *affine,
                              const unsigned long long *sums, uint8_t *work, float *y);
/// Blur of the views that list[0..n) names, which finishes them.
cudaError_t hirl_k_view_blur(cudaStream_t stream, const hirl_k_view_t *view, const int32_t *list,
                             int64_t n, int size, int channels, const hirl_k_affine_t *affine,
                             uint8_t *work, float *y);

#ifdef __cplusplus
}
#endif
#endif
