// One view of a decoded image: draws, crop, operations in their order, normalisation.
// The order of the draws is fixed whatever the probabilities, so that changing one setting leaves
// the others' draws alone: flip; jitter; its order; brightness, contrast, saturation, hue;
// grayscale; blur; sigma; solarise; then the crop: up to ten times area and log-ratio, and top and
// left of the first that fits.
// The flip is done first, by mirroring the resampling table: every later operation is the same for
// all pixels or symmetric, so the result is the same bit for bit, and it costs nothing.
// After grayscale the three channels are one; it is carried once and written three times.
#include "augment_impl.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { N_CROP_TRIES = 10 };

hirl_status_t hirl_augment_create(hirl_augment_t **augment_p) {
    hirl_augment_t *augment = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &augment));
    *augment_p = augment;
    return HIRL_OK;
}

void hirl_augment_destroy(hirl_augment_t **augment) {
    if (*augment == NULL) return;
    hirl_augment_t *self = *augment;
    hirl_scratch_reset(&self->image);
    hirl_scratch_reset(&self->tall);
    hirl_scratch_reset(&self->row);
    hirl_scratch_reset(&self->sums);
    hirl_scratch_reset(&self->blur);
    hirl_scratch_reset(&self->weights);
    for (int i = 0; i < HIRL_TABLE_SLOTS; i++) {
        hirl_scratch_reset(&self->tables[0][i].memory);
        hirl_scratch_reset(&self->tables[1][i].memory);
    }
    hirl_mem_free(self);
    *augment = NULL;
}

// ------------------------------------------------------------------------------------ draws

bool hirl_crop_fit(int height, int width, double share, double ratio, int *crop_height_p,
                   int *crop_width_p) {
    const double area = (double)height * (double)width * share;
    const double crop_width = rint(sqrt(area * ratio)), crop_height = rint(sqrt(area / ratio));
    if (!(crop_width > 0 && crop_width <= width && crop_height > 0 && crop_height <= height))
        return false;
    *crop_height_p = (int)crop_height;
    *crop_width_p = (int)crop_width;
    return true;
}

void hirl_crop_central(int height, int width, const double ratio[2], hirl_view_draws_t *draws_p) {
    const double in_ratio = (double)width / (double)height;
    int crop_height = height, crop_width = width;
    if (in_ratio < ratio[0])
        crop_height = (int)rint(width / ratio[0]);
    else if (in_ratio > ratio[1])
        crop_width = (int)rint(height * ratio[1]);
    // A sliver may round to nothing or, in the last bit, to more than the image.
    crop_height = crop_height < 1 ? 1 : crop_height > height ? height : crop_height;
    crop_width = crop_width < 1 ? 1 : crop_width > width ? width : crop_width;
    draws_p->height = crop_height;
    draws_p->width = crop_width;
    draws_p->top = (height - crop_height) / 2;
    draws_p->left = (width - crop_width) / 2;
}

static void draw_crop(const hirl_view_spec_t *spec, int height, int width, hirl_rng_t *rng,
                      hirl_view_draws_t *draws) {
    const double log_ratio[2] = {log(spec->ratio[0]), log(spec->ratio[1])};
    for (int i = 0; i < N_CROP_TRIES; i++) {
        const double share = hirl_rng_range(rng, spec->scale[0], spec->scale[1]);
        const double ratio = exp(hirl_rng_range(rng, log_ratio[0], log_ratio[1]));
        if (hirl_crop_fit(height, width, share, ratio, &draws->height, &draws->width)) {
            draws->top = (int)hirl_rng_below(rng, height - draws->height + 1);
            draws->left = (int)hirl_rng_below(rng, width - draws->width + 1);
            return;
        }
    }
    hirl_crop_central(height, width, spec->ratio, draws);
}

static bool draw_coin(hirl_rng_t *rng, double probability) {
    return hirl_rng_uniform(rng) < probability;
}

void hirl_view_draw(const hirl_view_spec_t *spec, int height, int width, hirl_rng_t *rng,
                    hirl_view_draws_t *draws_p) {
    hirl_view_draws_t draws = {0};
    draws.is_flipped = draw_coin(rng, spec->flip_prob);
    draws.has_jitter = draw_coin(rng, spec->jitter_prob);
    // The k-th of the 4! orders, as a Fisher-Yates shuffle with the digits of k in the factorial
    // base.
    int64_t k = hirl_rng_below(rng, 24);
    for (int i = 0; i < HIRL_N_JITTER; i++) draws.order[i] = i;
    for (int i = HIRL_N_JITTER - 1; i > 0; i--) {
        const int j = (int)(k % (i + 1)), kept = draws.order[i];
        k /= i + 1;
        draws.order[i] = draws.order[j];
        draws.order[j] = kept;
    }
    const double amplitude[3] = {spec->brightness, spec->contrast, spec->saturation};
    for (int i = 0; i < 3; i++) {
        draws.factor[i] = hirl_rng_range(rng, fmax(0.0, 1.0 - amplitude[i]), 1.0 + amplitude[i]);
    }
    draws.factor[HIRL_JITTER_HUE] = hirl_rng_range(rng, -spec->hue, spec->hue);
    draws.is_gray = draw_coin(rng, spec->gray_prob);
    draws.has_blur = draw_coin(rng, spec->blur_prob);
    draws.sigma = hirl_rng_range(rng, spec->blur_sigma[0], spec->blur_sigma[1]);
    draws.is_solarized = draw_coin(rng, spec->solarize_prob);
    draw_crop(spec, height, width, rng, &draws);
    *draws_p = draws;
}

void hirl_view_write_recipe(const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                            int height, int width, int64_t offset, hirl_view_recipe_t *recipe_p) {
    const bool is_used[HIRL_N_JITTER] = {
        [HIRL_JITTER_BRIGHTNESS] = spec->brightness > 0,
        [HIRL_JITTER_CONTRAST] = spec->contrast > 0,
        [HIRL_JITTER_SATURATION] = spec->saturation > 0,
        [HIRL_JITTER_HUE] = spec->hue > 0,
    };
    hirl_view_recipe_t recipe = {.offset = offset,
                                 .height = height,
                                 .width = width,
                                 .top = draws->top,
                                 .left = draws->left,
                                 .crop_height = draws->height,
                                 .crop_width = draws->width,
                                 .blur_sigma = draws->sigma,
                                 .is_bicubic = spec->is_bicubic,
                                 .is_flipped = draws->is_flipped,
                                 .is_gray = draws->is_gray,
                                 .has_blur = draws->has_blur,
                                 .is_solarized = draws->is_solarized};
    for (int i = 0; i < HIRL_N_JITTER && draws->has_jitter; i++) {
        const int op = draws->order[i];
        if (!is_used[op]) continue;
        recipe.jitter[recipe.n_jitter] = op;
        recipe.factor[recipe.n_jitter++] = draws->factor[op];
    }
    *recipe_p = recipe;
}

// ------------------------------------------------------------------------------------ operations

static void jitter(const hirl_planes_t *planes, const hirl_view_spec_t *spec,
                   const hirl_view_draws_t *draws) {
    const size_t plane = hirl_plane_size(planes), n = plane * (size_t)planes->channels;
    const bool is_rgb = planes->channels == 3;
    uint8_t *r = planes->data, *g = r + (is_rgb ? plane : 0), *b = g + (is_rgb ? plane : 0);
    for (int i = 0; i < HIRL_N_JITTER; i++) {
        const double factor = draws->factor[draws->order[i]];
        switch (draws->order[i]) {
            case HIRL_JITTER_BRIGHTNESS:
                if (spec->brightness > 0) hirl_span_blend(r, n, 0, factor);
                break;
            case HIRL_JITTER_CONTRAST:
                if (spec->contrast > 0) {
                    // Columns beyond the width are still black and add nothing to the sum.
                    const int64_t sum =
                        is_rgb ? hirl_span_sum_luma(r, g, b, plane) : hirl_span_sum(r, plane);
                    const int mean =
                        hirl_contrast_mean(sum, (int64_t)planes->height * planes->width);
                    hirl_span_blend(r, n, mean, factor);
                }
                break;
            case HIRL_JITTER_SATURATION:
                if (spec->saturation > 0 && is_rgb) hirl_span_saturation(r, g, b, plane, factor);
                break;
            case HIRL_JITTER_HUE:
                // Not skipped for a shift of zero: the way through HSV rounds.
                if (spec->hue > 0 && is_rgb) hirl_span_hue(r, g, b, plane, factor);
                break;
        }
    }
}

// (value / 255 - mean) / std as one multiplication and one addition.
typedef struct affine {
    float scale[3], offset[3];
} affine_t;

static affine_t affine_make(const float *mean, const float *std, int channels) {
    affine_t affine;
    for (int c = 0; c < channels; c++) {
        affine.scale[c] = (float)(1.0 / (255.0 * (double)std[c]));
        affine.offset[c] = (float)(-(double)mean[c] / (double)std[c]);
    }
    return affine;
}

static void write_gray(const uint8_t *HIRL_RESTRICT in, int n, float scale, float offset,
                       float *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) out[x] = (float)in[x] * scale + offset;
}

static void write_rgb(const uint8_t *HIRL_RESTRICT r, const uint8_t *HIRL_RESTRICT g,
                      const uint8_t *HIRL_RESTRICT b, int n, const affine_t *affine,
                      float *HIRL_RESTRICT out) {
    const affine_t a = *affine;
    for (int x = 0; x < n; x++) {
        out[3 * x] = (float)r[x] * a.scale[0] + a.offset[0];
        out[3 * x + 1] = (float)g[x] * a.scale[1] + a.offset[1];
        out[3 * x + 2] = (float)b[x] * a.scale[2] + a.offset[2];
    }
}

// Writes rows of `channels` values per pixel to `out`, `pitch` floats apart; one plane serves all
// channels if there is but one.
static void normalize(const hirl_planes_t *planes, int channels, const affine_t *affine,
                      size_t pitch, float *out) {
    const int last = planes->channels - 1;
    for (int y = 0; y < planes->height; y++) {
        float *row = out + (size_t)y * pitch;
        const uint8_t *r = hirl_plane_row_view(planes, 0, y);
        if (channels == 1) {
            write_gray(r, planes->width, affine->scale[0], affine->offset[0], row);
        } else {
            write_rgb(r, hirl_plane_row_view(planes, last > 0 ? 1 : 0, y),
                      hirl_plane_row_view(planes, last, y), planes->width, affine, row);
        }
    }
}

// Interleaved pixels as they are, in runs that hold whole vectors of 1 and of 3 channels.
static void normalize_image(const hirl_image_t *image, const affine_t *affine, float *out) {
    enum { RUN = 48 };
    float scale[RUN], offset[RUN];
    const size_t channels = (size_t)image->channels;
    const size_t n = (size_t)image->height * (size_t)image->width * channels;
    for (size_t i = 0; i < RUN; i++) {
        scale[i] = affine->scale[i % channels];
        offset[i] = affine->offset[i % channels];
    }
    for (size_t at = 0; at < n; at += RUN) {
        const uint8_t *HIRL_RESTRICT in = image->pixels + at;
        float *HIRL_RESTRICT to = out + at;
        if (n - at >= RUN) {
            for (int i = 0; i < RUN; i++) to[i] = (float)in[i] * scale[i] + offset[i];
        } else {
            for (size_t i = 0; i < n - at; i++) to[i] = (float)in[i] * scale[i] + offset[i];
        }
    }
}

hirl_status_t hirl_view_apply(hirl_augment_t *augment, const hirl_image_t *image,
                              const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                              const float *mean, const float *std, float *out) {
    const hirl_resample_t how = {.top = draws->top,
                                 .left = draws->left,
                                 .height = draws->height,
                                 .width = draws->width,
                                 .out_height = spec->size,
                                 .out_width = spec->size,
                                 .n_y = spec->size,
                                 .n_x = spec->size,
                                 .is_bicubic = spec->is_bicubic,
                                 .is_flipped = draws->is_flipped};
    hirl_planes_t planes;
    HIRL_TRY(hirl_resample_planes(augment, image, &how, &planes));
    if (draws->has_jitter) jitter(&planes, spec, draws);
    if (draws->is_gray && planes.channels == 3) {
        const size_t plane = hirl_plane_size(&planes);
        hirl_span_luma(planes.data, planes.data + plane, planes.data + 2 * plane, plane,
                       planes.data);
        planes.channels = 1;
    }
    if (draws->has_blur) HIRL_TRY(hirl_blur_planes(augment, &planes, draws->sigma));
    if (draws->is_solarized) {
        hirl_span_solarize(planes.data, (size_t)planes.channels * hirl_plane_size(&planes), 128);
    }
    const affine_t affine = affine_make(mean, std, image->channels);
    normalize(&planes, image->channels, &affine, (size_t)spec->size * (size_t)image->channels, out);
    return HIRL_OK;
}

hirl_status_t hirl_augment_view(hirl_augment_t *augment, const hirl_image_t *image,
                                const hirl_view_spec_t *spec, hirl_rng_t *rng, const float *mean,
                                const float *std, float *out) {
    HIRL_REQUIRE(image->height > 0 && image->width > 0, HIRL_ERR_ARG, "image is empty (%d x %d)",
                 image->height, image->width);
    hirl_view_draws_t draws;
    hirl_view_draw(spec, image->height, image->width, rng, &draws);
    return hirl_view_apply(augment, image, spec, &draws, mean, std, out);
}

// ------------------------------------------------------------------------------------ evaluation

// torchvision's Resize(int): the shorter side becomes `resize`, the longer is truncated.
static void resized_size(int height, int width, int resize, int *height_p, int *width_p) {
    if (resize == 0) {
        *height_p = height;
        *width_p = width;
    } else if (width <= height) {
        *width_p = resize;
        *height_p = (int)((double)((int64_t)resize * height) / width);
    } else {
        *height_p = resize;
        *width_p = (int)((double)((int64_t)resize * width) / height);
    }
}

void hirl_eval_size(int height, int width, int resize, int crop, int *out_height_p,
                    int *out_width_p) {
    resized_size(height, width, resize, out_height_p, out_width_p);
    if (crop > 0) *out_height_p = *out_width_p = crop;
}

// CenterCrop along one axis: the part of the image of size `size` that is seen, and where it begins
// in the crop. A crop beyond the image is filled with black, the smaller half of it in front.
static void central_window(int size, int crop, int *first_p, int *n_p, int *before_p) {
    if (crop > size) {
        *first_p = 0;
        *n_p = size;
        *before_p = (crop - size) / 2;
    } else {
        *first_p = (int)rint((size - crop) / 2.0);
        *n_p = crop;
        *before_p = 0;
    }
}

hirl_status_t hirl_augment_eval(hirl_augment_t *augment, const hirl_image_t *image, int resize,
                                int crop, bool is_bicubic, const float *mean, const float *std,
                                float *out) {
    HIRL_REQUIRE(image->height > 0 && image->width > 0, HIRL_ERR_ARG, "image is empty (%d x %d)",
                 image->height, image->width);
    HIRL_REQUIRE(resize >= 0 && crop >= 0, HIRL_ERR_ARG,
                 "resize is %d and crop %d; neither may be negative", resize, crop);
    HIRL_REQUIRE(
        (double)resize * image->height <= INT_MAX && (double)resize * image->width <= INT_MAX,
        HIRL_ERR_ARG, "resizing the shorter side of a %d x %d image to %d goes beyond 2^31",
        image->height, image->width, resize);
    int height, width, before_y, before_x;
    resized_size(image->height, image->width, resize, &height, &width);
    hirl_resample_t how = {.height = image->height,
                           .width = image->width,
                           .out_height = height,
                           .out_width = width,
                           .is_bicubic = is_bicubic};
    const int out_height = crop > 0 ? crop : height, out_width = crop > 0 ? crop : width;
    central_window(height, out_height, &how.y0, &how.n_y, &before_y);
    central_window(width, out_width, &how.x0, &how.n_x, &before_x);

    const int channels = image->channels;
    const affine_t affine = affine_make(mean, std, channels);
    const bool is_kept = height == image->height && width == image->width && out_height == height &&
                         out_width == width;
    if (is_kept) {
        normalize_image(image, &affine, out);
        return HIRL_OK;
    }
    hirl_planes_t planes;
    HIRL_TRY(hirl_resample_planes(augment, image, &how, &planes));
    const size_t pitch = (size_t)out_width * (size_t)channels;
    if (how.n_y < out_height || how.n_x < out_width) {
        for (size_t i = 0; i < (size_t)out_height * pitch; i++)
            out[i] = affine.offset[i % (size_t)channels];
    }
    normalize(&planes, channels, &affine, pitch,
              out + (size_t)before_y * pitch + (size_t)before_x * (size_t)channels);
    return HIRL_OK;
}

// ------------------------------------------------------------------------------- single operations

static void interleave(const hirl_planes_t *planes, uint8_t *out) {
    const int channels = planes->channels;
    for (int y = 0; y < planes->height; y++) {
        for (int c = 0; c < channels; c++) {
            const uint8_t *in = hirl_plane_row_view(planes, c, y);
            uint8_t *to = out + (size_t)y * (size_t)planes->width * (size_t)channels + c;
            for (int x = 0; x < planes->width; x++) to[(size_t)x * (size_t)channels] = in[x];
        }
    }
}

hirl_status_t hirl_image_resize_crop(hirl_augment_t *augment, const hirl_image_t *image, int top,
                                     int left, int height, int width, int out_height, int out_width,
                                     bool is_bicubic, uint8_t *out) {
    const hirl_resample_t how = {.top = top,
                                 .left = left,
                                 .height = height,
                                 .width = width,
                                 .out_height = out_height,
                                 .out_width = out_width,
                                 .n_y = out_height,
                                 .n_x = out_width,
                                 .is_bicubic = is_bicubic};
    hirl_planes_t planes;
    HIRL_TRY(hirl_resample_planes(augment, image, &how, &planes));
    interleave(&planes, out);
    return HIRL_OK;
}

hirl_status_t hirl_image_blur(hirl_augment_t *augment, hirl_image_t *image, double sigma) {
    const hirl_resample_t whole = {.height = image->height,
                                   .width = image->width,
                                   .out_height = image->height,
                                   .out_width = image->width,
                                   .n_y = image->height,
                                   .n_x = image->width};
    hirl_planes_t planes;
    HIRL_TRY(hirl_resample_planes(augment, image, &whole, &planes));
    HIRL_TRY(hirl_blur_planes(augment, &planes, sigma));
    interleave(&planes, image->pixels);
    return HIRL_OK;
}
