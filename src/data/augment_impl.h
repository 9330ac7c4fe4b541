// Inside of the augmentation: planar images, resampling tables, the draws of one view, and the
// kernels that the public functions and the tests share.
// Work images are planar: u8 [channels, height, stride] with stride a multiple of HIRL_PLANE_ALIGN,
// so that every loop runs over whole vectors. Columns width..stride-1 are zero after resampling and
// stay so through the colour operations up to contrast (each maps black to black), which therefore
// may average over whole planes; later they hold rubbish.
#ifndef HIRL_AUGMENT_IMPL_H
#define HIRL_AUGMENT_IMPL_H

#include "hirl/data.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HIRL_PLANE_ALIGN = 32, // pixels; also the granularity of table rows
    HIRL_TABLE_SLOTS = 64  // resampling tables kept per axis
};

typedef struct hirl_planes {
    uint8_t *data;
    int channels, height, width, stride;
} hirl_planes_t;

static inline size_t hirl_plane_size(const hirl_planes_t *planes) {
    return (size_t)planes->height * (size_t)planes->stride;
}

static inline uint8_t *hirl_plane_row_view(const hirl_planes_t *planes, int channel, int y) {
    return planes->data + (size_t)channel * hirl_plane_size(planes) +
           (size_t)y * (size_t)planes->stride;
}

// A scratch buffer that only grows.
typedef struct hirl_scratch {
    void *data;
    size_t size;
} hirl_scratch_t;

/// At least `size` bytes, content undefined.
hirl_status_t hirl_scratch_reserve(hirl_scratch_t *scratch, size_t size);
void hirl_scratch_reset(hirl_scratch_t *scratch);

// ------------------------------------------------------------------------------------ resampling

/// Filter taps along one axis: out[x] = clip((2^21 + sum_k coef[x][k] in[first[x] + k]) >> 22).
typedef struct hirl_table {
    int in_size, out_size; // of the whole axis
    int out_first, n_out;  // window of it that the table describes
    bool is_bicubic, is_flipped, is_horizontal;
    int n_taps;     // per output; first[x] + n_taps <= in_size
    int n_padded;   // n_out rounded up to HIRL_PLANE_ALIGN; the padding has zero taps
    int32_t *first; // [n_padded]
    int32_t *coef;  // horizontal [n_taps, n_padded], vertical [n_out, n_taps]
    hirl_scratch_t memory;
} hirl_table_t;

struct hirl_augment {
    hirl_scratch_t image;                     // the planar image
    hirl_scratch_t tall;                      // after the horizontal pass
    hirl_scratch_t row;                       // one input row, a word per pixel
    hirl_scratch_t sums;                      // accumulators of one output row
    hirl_scratch_t blur;                      // two planes in words, with margins
    hirl_scratch_t weights;                   // filter weights in double while a table is made
    hirl_table_t tables[2][HIRL_TABLE_SLOTS]; // vertical, horizontal
};

/// What part of the resized image is wanted, and how.
typedef struct hirl_resample {
    int top, left, height, width; // of the input, in the image
    int out_height, out_width;    // size the input part is resized to
    int y0, x0, n_y, n_x;         // window of that size to be computed
    bool is_bicubic, is_flipped;
} hirl_resample_t;

/// Pillow's Image.resize of a crop into planes; n_y x n_x pixels, flipped left to right if asked.
/// `planes_p` stays valid until the next call with this scratch space.
hirl_status_t hirl_resample_planes(hirl_augment_t *augment, const hirl_image_t *image,
                                   const hirl_resample_t *how, hirl_planes_t *planes_p);

/// The table for these sizes, made unless it is there already. Valid until the next call for the
/// same axis.
/// Errors: HIRL_ERR_MEMORY.
hirl_status_t hirl_table_make(hirl_augment_t *augment, int in_size, int out_size, int out_first,
                              int n_out, bool is_bicubic, bool is_flipped, bool is_horizontal,
                              const hirl_table_t **table_p);

// ------------------------------------------------------------------------------- kernels on planes
// `r`, `g`, `b` are n bytes each, in place.

void hirl_span_blend(uint8_t *data, size_t n, int other,
                     double factor); // other + factor * (data - other)
void hirl_span_saturation(uint8_t *r, uint8_t *g, uint8_t *b, size_t n, double factor);
void hirl_span_hue(uint8_t *r, uint8_t *g, uint8_t *b, size_t n, double shift);
void hirl_span_luma(const uint8_t *r, const uint8_t *g, const uint8_t *b, size_t n, uint8_t *luma);
int64_t hirl_span_sum(const uint8_t *data, size_t n);
int64_t hirl_span_sum_luma(const uint8_t *r, const uint8_t *g, const uint8_t *b, size_t n);
void hirl_span_solarize(uint8_t *data, size_t n, int threshold);

/// Integer mean as ImageEnhance.Contrast takes it.
int hirl_contrast_mean(int64_t sum, int64_t n);

/// Box-filter approximation of a Gaussian, in place.
hirl_status_t hirl_blur_planes(hirl_augment_t *augment, const hirl_planes_t *planes, double sigma);

// ------------------------------------------------------------------------------- draws of one view

/// Everything that is random about a view.
typedef struct hirl_view_draws {
    bool is_flipped, has_jitter, is_gray, has_blur, is_solarized;
    int order[HIRL_N_JITTER];     // the jitter operations in the order they are done
    double factor[HIRL_N_JITTER]; // of each operation; of hue: the shift
    double sigma;
    int top, left, height, width; // crop
} hirl_view_draws_t;

/// Draws a view of a height x width image; see augment.c for the order of the draws.
void hirl_view_draw(const hirl_view_spec_t *spec, int height, int width, hirl_rng_t *rng,
                    hirl_view_draws_t *draws_p);

/// Size of a crop with this share of the area and this aspect ratio; false if it does not fit.
bool hirl_crop_fit(int height, int width, double share, double ratio, int *crop_height_p,
                   int *crop_width_p);
/// Crop taken when no try fits: the central one with the nearest allowed ratio.
void hirl_crop_central(int height, int width, const double ratio[2], hirl_view_draws_t *draws_p);

/// The draws as a recipe for backends; the image begins at byte `offset`. Operations that the specification leaves out are left out.
void hirl_view_write_recipe(const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                            int height, int width, int64_t offset, hirl_view_recipe_t *recipe_p);

/// Makes the view that `draws` describes.
hirl_status_t hirl_view_apply(hirl_augment_t *augment, const hirl_image_t *image,
                              const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                              const float *mean, const float *std, float *out);

/// Size of the evaluation transform's output.
void hirl_eval_size(int height, int width, int resize, int crop, int *out_height_p,
                    int *out_width_p);

#ifdef __cplusplus
}
#endif
#endif
