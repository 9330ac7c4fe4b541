// Inside of the augmentation: planar images, resampling tables, the draws of one view, and the
// kernels that the public functions and the tests share.
// Work images are planar: u8 [channels, height, stride] with stride a multiple of HIRL_PLANE_ALIGN, so that loops run over
// whole vectors. Columns width..stride-1 are there to be computed with and thrown away: nothing but a
// sum or a histogram need leave them out.
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
    hirl_filter_t filter;
    bool is_flipped, is_horizontal;
    int n_taps;     // per output; first[x] + n_taps <= in_size
    int n_padded;   // n_out rounded up to HIRL_PLANE_ALIGN; the padding has zero taps
    int32_t *first; // [n_padded]
    int32_t *coef;  // horizontal [n_taps, n_padded], vertical [n_out, n_taps]
    hirl_scratch_t memory;
} hirl_table_t;

struct hirl_augment {
    hirl_scratch_t image;                     // the planar image
    hirl_scratch_t spare;                     // where an operation that cannot work in place writes
    hirl_scratch_t words, places;             // of turning and shearing
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
    hirl_window_t given; // of the input: what the image holds, top and left being 0; no height: all
    int out_height, out_width; // size the input part is resized to
    int y0, x0, n_y, n_x;      // window of that size to be computed
    hirl_filter_t filter;
    bool is_flipped;
} hirl_resample_t;

/// Pillow's Image.resize of a crop into planes; n_y x n_x pixels, flipped left to right if asked.
/// `planes_p` stays valid until the next call with this scratch space.
hirl_status_t hirl_resample_planes(hirl_augment_t *augment, const hirl_image_t *image,
                                   const hirl_resample_t *how, hirl_planes_t *planes_p);

/// The part of the input that this reads. Errors: HIRL_ERR_MEMORY.
hirl_status_t hirl_resample_reach(hirl_augment_t *augment, const hirl_resample_t *how,
                                  hirl_window_t *reach_p);

/// A whole image as planes, and back.
hirl_status_t hirl_planes_load(hirl_augment_t *augment, const hirl_image_t *image,
                               hirl_planes_t *planes_p);
void hirl_planes_store(const hirl_planes_t *planes, uint8_t *out);

/// Room of the shape of *out for the result of an operation that cannot work in place on `planes`.
hirl_status_t hirl_planes_reserve_other(hirl_augment_t *augment, const hirl_planes_t *planes,
                                        hirl_planes_t *out);

/// The table for these sizes, made unless it is there already. Valid until the next call for the
/// same axis.
/// Errors: HIRL_ERR_MEMORY.
hirl_status_t hirl_table_make(hirl_augment_t *augment, int in_size, int out_size, int out_first,
                              int n_out, hirl_filter_t filter, bool is_flipped, bool is_horizontal,
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
void hirl_span_posterize(uint8_t *data, size_t n, int bits); // 0..8 bits are kept
void hirl_span_invert(uint8_t *data, size_t n);
void hirl_span_solarize_add(uint8_t *data, size_t n, int add, int threshold);

// --------------------------------------------------------------------------- operations on planes

/// Grey mean of ImageEnhance.Contrast.
int hirl_planes_mean_luma(const hirl_planes_t *planes);
void hirl_planes_autocontrast(const hirl_planes_t *planes);
void hirl_planes_equalize(const hirl_planes_t *planes);
hirl_status_t hirl_planes_sharpness(hirl_augment_t *augment, hirl_planes_t *planes, double factor);

/// Image.transform with an affine map m from the output's pixels to the input's; places outside show
/// `fill`, an item per channel. Errors: HIRL_ERR_ARG if the map leads too far away.
hirl_status_t hirl_planes_affine(hirl_augment_t *augment, hirl_planes_t *planes, const double m[6],
                                 hirl_filter_t filter, const uint8_t fill[3]);
/// The cosine and sine by which Image.rotate turns.
void hirl_turn_make(double degrees, double *cosine_p, double *sine_p);
/// Image.rotate about the centre, counter-clockwise.
hirl_status_t hirl_planes_rotate(hirl_augment_t *augment, hirl_planes_t *planes, double degrees,
                                 hirl_filter_t filter, const uint8_t fill[3]);

typedef enum hirl_rand_op {
    HIRL_RAND_AUTOCONTRAST,
    HIRL_RAND_EQUALIZE,
    HIRL_RAND_INVERT,
    HIRL_RAND_ROTATE,
    HIRL_RAND_POSTERIZE,
    HIRL_RAND_SOLARIZE,
    HIRL_RAND_SOLARIZE_ADD,
    HIRL_RAND_COLOR,
    HIRL_RAND_CONTRAST,
    HIRL_RAND_BRIGHTNESS,
    HIRL_RAND_SHARPNESS,
    HIRL_RAND_SHEAR_X,
    HIRL_RAND_SHEAR_Y,
    HIRL_RAND_TRANSLATE_X,
    HIRL_RAND_TRANSLATE_Y,
    HIRL_N_RAND_OPS
} hirl_rand_op_t;

typedef struct hirl_rand_draw {
    hirl_rand_op_t op;
    bool is_done;
    double level;     // 0..10
    bool is_negative; // where the direction is drawn: the other one
} hirl_rand_draw_t;

void hirl_rand_augment_draw(const hirl_view_spec_t *spec, hirl_rng_t *rng,
                            hirl_rand_draw_t draws[HIRL_MAX_RAND_AUGMENT]);
hirl_status_t hirl_rand_augment_apply(hirl_augment_t *augment, hirl_planes_t *planes,
                                      const hirl_rand_draw_t *draw, hirl_filter_t filter,
                                      const uint8_t fill[3]);
/// The same as an operation of a recipe, of a view of size x size.
void hirl_rand_augment_write_op(const hirl_rand_draw_t *draw, int size, hirl_filter_t filter,
                                hirl_view_op_t *op_p);

/// A rectangle of the view; empty when no try fitted.
typedef struct hirl_erase {
    int top, left, height, width;
} hirl_erase_t;

void hirl_erase_draw(const hirl_view_spec_t *spec, hirl_rng_t *rng, hirl_erase_t *erase_p);
/// Fills the rectangle of a view f32 [size, size, channels] with normal numbers of a fresh stream.
void hirl_erase_apply(const hirl_erase_t *erase, const hirl_rng_t *noise, int size, int channels,
                      float *out);

// ------------------------------------------------------------------------------- draws of one view

/// Everything that is random about a view. Whatever is zero is left out.
typedef struct hirl_view_draws {
    bool is_flipped, has_jitter, is_gray, has_blur, is_solarized;
    int order[HIRL_N_JITTER];     // the jitter operations in the order they are done
    double factor[HIRL_N_JITTER]; // of each operation; of hue: the shift
    double sigma;
    int top, left, height, width; // part of the image that the view is made from
    // HIRL_CROP_RESIZE_RANDOM and _CENTER: what that part is resized to, and the first pixel of the
    // window in it; beyond it lies black
    int resized_height, resized_width, window_y, window_x;
    bool is_posterized, has_autocontrast, is_equalized, is_erased;
    double degrees;
    hirl_rand_draw_t rand_augment[HIRL_MAX_RAND_AUGMENT];
    double lighting[3]; // of each principal component
    hirl_erase_t erase;
    hirl_rng_t noise; // of random erasing
} hirl_view_draws_t;

static inline hirl_filter_t hirl_view_filter(const hirl_view_spec_t *spec) {
    return spec->is_lanczos   ? HIRL_FILTER_LANCZOS
           : spec->is_bicubic ? HIRL_FILTER_BICUBIC
                              : HIRL_FILTER_BILINEAR;
}

/// Draws a view of a height x width image; see augment.c for the order of the draws.
void hirl_view_draw(const hirl_view_spec_t *spec, int height, int width, hirl_rng_t *rng,
                    hirl_view_draws_t *draws_p);

/// Size of a crop with this share of the area and this aspect ratio; false if it does not fit.
bool hirl_crop_fit(int height, int width, double share, double ratio, int *crop_height_p,
                   int *crop_width_p);
/// Crop taken when no try fits: the central one with the nearest allowed ratio.
void hirl_crop_central(int height, int width, const double ratio[2], hirl_view_draws_t *draws_p);

/// The draws as a recipe for backends; the image begins at byte `offset`. `spec` has its size. Operations that the specification leaves out are left out.
void hirl_view_write_recipe(const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                            int height, int width, int64_t offset, hirl_view_recipe_t *recipe_p);

/// Makes the view that `draws` describes.
hirl_status_t hirl_view_apply(hirl_augment_t *augment, const hirl_image_t *image,
                              const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                              const float *mean, const float *std, float *out);

/// Size of the evaluation transform's output.
void hirl_eval_size(int height, int width, int resize, int crop, int *out_height_p,
                    int *out_width_p);
/// The part of a height x width picture that the evaluation transform reads. Errors as hirl_augment_eval.
hirl_status_t hirl_eval_window(hirl_augment_t *augment, int height, int width, int resize, int crop,
                               bool is_bicubic, hirl_window_t *part_p);
/// hirl_augment_eval of a height x width picture of which `image` is a part that holds hirl_eval_window: the same bits.
hirl_status_t hirl_augment_eval_part(hirl_augment_t *augment, const hirl_image_t *image,
                                     const hirl_window_t *part, int height, int width, int resize,
                                     int crop, bool is_bicubic, const float *mean, const float *std,
                                     float *out);

#ifdef __cplusplus
}
#endif
#endif
