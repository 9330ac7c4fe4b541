// One view of a decoded image: draws, crop, operations in their order, normalisation.
// The order of the draws is fixed whatever the probabilities, so that changing one setting leaves the others' draws
// alone. The first part of the stream: flip; jitter; its order; brightness, contrast, saturation, hue;
// grayscale; blur; sigma; solarise; then the crop: up to ten times area and log-ratio, and top and
// left of the first that fits. The second: rotation, posterise, autocontrast, equalise, lighting,
// erasing, the window of a resized image, RandAugment, the erased rectangle. The third: the noise.
// The flip is done first, by mirroring the resampling table: it costs nothing, and all later operations of the usual
// recipes are the same for all pixels or symmetric, so that its place makes no difference.
// After grayscale the three channels are one; it is carried once and written three times.
#include "augment_impl.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "clones_impl.h"

enum { N_CROP_TRIES = 10, PART_MORE = 1, PART_NOISE = 2, SOLARIZE_FROM = 128 };

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
    hirl_scratch_reset(&self->spare);
    hirl_scratch_reset(&self->words);
    hirl_scratch_reset(&self->places);
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

// torchvision's Resize(int): the shorter side becomes `resize`, the longer is truncated; 0: as it is.
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

// First pixel of the window along an axis; an image that is smaller than the window, with its margin, lies
// somewhere on black.
static int draw_window(int size, int padding, int window, hirl_rng_t *rng) {
    const int first = -padding, last = size + padding - window;
    const int low = first < last ? first : last, high = first < last ? last : first;
    return low + (int)hirl_rng_below(rng, high - low + 1);
}

// CenterCrop's: of black beyond the image the smaller half lies in front.
static int central_window(int size, int window) {
    return window > size ? -((window - size) / 2) : (int)rint((size - window) / 2.0);
}

static void draw_more(const hirl_view_spec_t *spec, int height, int width, hirl_rng_t *rng,
                      hirl_view_draws_t *draws) {
    draws->degrees = hirl_rng_range(rng, -spec->rotate_degrees, spec->rotate_degrees);
    draws->is_posterized = draw_coin(rng, spec->posterize_prob);
    draws->has_autocontrast = draw_coin(rng, spec->autocontrast_prob);
    draws->is_equalized = draw_coin(rng, spec->equalize_prob);
    for (int i = 0; i < 3; i++) draws->lighting[i] = spec->lighting_std * hirl_rng_normal(rng);
    draws->is_erased = draw_coin(rng, spec->erase_prob);
    if (spec->crop == HIRL_CROP_RESIZE_RANDOM || spec->crop == HIRL_CROP_RESIZE_CENTER)
        resized_size(height, width, spec->resize, &draws->resized_height, &draws->resized_width);
    if (spec->crop == HIRL_CROP_RESIZE_RANDOM) {
        draws->window_y = draw_window(draws->resized_height, spec->padding, spec->size, rng);
        draws->window_x = draw_window(draws->resized_width, spec->padding, spec->size, rng);
    } else if (spec->crop == HIRL_CROP_RESIZE_CENTER) {
        draws->window_y = central_window(draws->resized_height, spec->size);
        draws->window_x = central_window(draws->resized_width, spec->size);
    }
    hirl_rand_augment_draw(spec, rng, draws->rand_augment);
    if (draws->is_erased) hirl_erase_draw(spec, rng, &draws->erase);
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
    if (spec->crop == HIRL_CROP_RANDOM_RESIZED) {
        draw_crop(spec, height, width, rng, &draws);
    } else {
        draws.height = height;
        draws.width = width;
    }
    hirl_rng_t more = hirl_rng_part(rng, PART_MORE);
    draws.noise = hirl_rng_part(rng, PART_NOISE);
    draw_more(spec, height, width, &more, &draws);
    *draws_p = draws;
}

// ------------------------------------------------------------------------------------ recipes

// Principal components of ImageNet's colours, a column each, and the roots of their variances as AlexNet's lighting
// scales them (Krizhevsky et al., 2012, section 4.1).
static const double lighting_axis[3][3] = {
    {-0.5675, 0.7192, 0.4009}, {-0.5808, -0.0045, -0.8140}, {-0.5836, -0.6948, 0.4203}};
static const double lighting_scale[3] = {0.2175, 0.0188, 0.0045};

static double lighting_shift(const double amount[3], int channel) {
    double shift = 0.0;
    for (int i = 0; i < 3; i++) shift += lighting_axis[channel][i] * lighting_scale[i] * amount[i];
    return shift;
}

static hirl_view_op_t *add_op(hirl_view_recipe_t *recipe, hirl_view_op_kind_t kind, double value) {
    hirl_view_op_t *op = &recipe->op[recipe->n_ops++];
    *op = (hirl_view_op_t){.kind = (int16_t)kind, .value = value};
    return op;
}

static void add_jitter(const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                       hirl_view_recipe_t *recipe) {
    const bool is_used[HIRL_N_JITTER] = {
        [HIRL_JITTER_BRIGHTNESS] = spec->brightness > 0,
        [HIRL_JITTER_CONTRAST] = spec->contrast > 0,
        [HIRL_JITTER_SATURATION] = spec->saturation > 0,
        [HIRL_JITTER_HUE] = spec->hue > 0,
    };
    for (int i = 0; i < HIRL_N_JITTER; i++) {
        const int kind = draws->order[i];
        if (is_used[kind]) add_op(recipe, (hirl_view_op_kind_t)kind, draws->factor[kind]);
    }
}

_Static_assert(HIRL_MAX_RAND_AUGMENT + 2 + HIRL_N_JITTER + 4 <= HIRL_VIEW_MAX_OPS,
               "a recipe has room for all that a view can be asked for");

void hirl_view_write_recipe(const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                            int height, int width, int64_t offset, hirl_view_recipe_t *recipe_p) {
    hirl_view_recipe_t recipe = {.offset = offset,
                                 .height = height,
                                 .width = width,
                                 .top = draws->top,
                                 .left = draws->left,
                                 .crop_height = draws->height,
                                 .crop_width = draws->width,
                                 .filter = (int32_t)hirl_view_filter(spec),
                                 .is_flipped = draws->is_flipped,
                                 .has_blur = draws->has_blur,
                                 .blur_sigma = draws->sigma,
                                 .is_solarized = draws->is_solarized,
                                 .noise = draws->noise};
    if (spec->crop == HIRL_CROP_RESIZE_RANDOM || spec->crop == HIRL_CROP_RESIZE_CENTER) {
        recipe.resized_height = draws->resized_height;
        recipe.resized_width = draws->resized_width;
        recipe.window_y = draws->window_y;
        recipe.window_x = draws->window_x;
    }
    for (int i = 0; i < spec->rand_augment; i++) {
        const hirl_rand_draw_t *draw = &draws->rand_augment[i];
        if (draw->is_done)
            hirl_rand_augment_write_op(draw, spec->size, hirl_view_filter(spec),
                                       &recipe.op[recipe.n_ops++]);
    }
    if (spec->rotate_degrees > 0) {
        hirl_view_op_t *op = add_op(&recipe, HIRL_VIEW_TURN, 0);
        op->filter = HIRL_FILTER_NEAREST;
        hirl_turn_make(draws->degrees, &op->value, &op->sine);
    }
    if (draws->is_gray && spec->is_gray_first) add_op(&recipe, HIRL_VIEW_GRAY, 0);
    if (draws->has_jitter) add_jitter(spec, draws, &recipe);
    if (draws->is_gray && !spec->is_gray_first) add_op(&recipe, HIRL_VIEW_GRAY, 0);
    if (draws->is_posterized) add_op(&recipe, HIRL_VIEW_POSTERIZE, 0)->n = spec->posterize_bits;
    if (draws->has_autocontrast) add_op(&recipe, HIRL_VIEW_AUTOCONTRAST, 0);
    if (draws->is_equalized) add_op(&recipe, HIRL_VIEW_EQUALIZE, 0);
    for (int c = 0; c < 3 && spec->lighting_std > 0; c++)
        recipe.shift[c] = lighting_shift(draws->lighting, c);
    if (draws->is_erased) {
        recipe.erase_top = draws->erase.top;
        recipe.erase_left = draws->erase.left;
        recipe.erase_height = draws->erase.height;
        recipe.erase_width = draws->erase.width;
    }
    *recipe_p = recipe;
}

// ------------------------------------------------------------------------------------ operations

int hirl_planes_mean_luma(const hirl_planes_t *planes) {
    // Without columns beyond the width one span is the whole plane.
    const bool is_dense = planes->stride == planes->width;
    const int n_rows = is_dense ? 1 : planes->height;
    const size_t n = is_dense ? hirl_plane_size(planes) : (size_t)planes->width;
    int64_t sum = 0;
    for (int y = 0; y < n_rows; y++) {
        const uint8_t *row = hirl_plane_row_view(planes, 0, y);
        sum += planes->channels == 3 ? hirl_span_sum_luma(row, hirl_plane_row_view(planes, 1, y),
                                                          hirl_plane_row_view(planes, 2, y), n)
                                     : hirl_span_sum(row, n);
    }
    return hirl_contrast_mean(sum, (int64_t)planes->height * planes->width);
}

static void make_gray(hirl_planes_t *planes) {
    if (planes->channels != 3) return;
    const size_t plane = hirl_plane_size(planes);
    hirl_span_luma(planes->data, planes->data + plane, planes->data + 2 * plane, plane,
                   planes->data);
    planes->channels = 1;
}

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
                if (spec->contrast > 0)
                    hirl_span_blend(r, n, hirl_planes_mean_luma(planes), factor);
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
    affine_t affine = {{0}, {0}};
    for (int c = 0; c < channels; c++) {
        affine.scale[c] = (float)(1.0 / (255.0 * (double)std[c]));
        affine.offset[c] = (float)(-(double)mean[c] / (double)std[c]);
    }
    return affine;
}

HIRL_CLONES static void write_gray(const uint8_t *HIRL_RESTRICT in, int n, float scale,
                                   float offset, float *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) out[x] = (float)in[x] * scale + offset;
}

HIRL_CLONES static void write_rgb(const uint8_t *HIRL_RESTRICT r, const uint8_t *HIRL_RESTRICT g,
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
HIRL_CLONES static void normalize_image(const hirl_image_t *image, const affine_t *affine,
                                        float *out) {
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

static void add_lighting(affine_t *affine, const double amount[3], const float *std) {
    for (int c = 0; c < 3; c++)
        affine->offset[c] += (float)(lighting_shift(amount, c) / (double)std[c]);
}

static inline int max_int(int a, int b) { return a > b ? a : b; }
static inline int min_int(int a, int b) { return a < b ? a : b; }

// A window of size x size of the resized image, black beyond its edges, flipped as a whole.
static hirl_status_t cut_window(hirl_augment_t *augment, const hirl_image_t *image,
                                hirl_resample_t *how, int size, int window_y, int window_x,
                                hirl_planes_t *planes_p) {
    how->y0 = max_int(window_y, 0);
    how->x0 = max_int(window_x, 0);
    how->n_y = min_int(window_y + size, how->out_height) - how->y0;
    how->n_x = min_int(window_x + size, how->out_width) - how->x0;
    hirl_planes_t seen;
    HIRL_TRY(hirl_resample_planes(augment, image, how, &seen));
    if (how->n_y == size && how->n_x == size) {
        *planes_p = seen;
        return HIRL_OK;
    }
    hirl_planes_t out = {.channels = seen.channels, .height = size, .width = size};
    out.stride = (size + HIRL_PLANE_ALIGN - 1) / HIRL_PLANE_ALIGN * HIRL_PLANE_ALIGN;
    HIRL_TRY(hirl_planes_reserve_other(augment, &seen, &out));
    memset(out.data, 0, (size_t)out.channels * hirl_plane_size(&out));
    const int before_x = how->x0 - window_x, top = how->y0 - window_y,
              left = how->is_flipped ? size - before_x - how->n_x : before_x;
    for (int c = 0; c < out.channels; c++) {
        for (int y = 0; y < how->n_y; y++) {
            memcpy(hirl_plane_row_view(&out, c, top + y) + left, hirl_plane_row_view(&seen, c, y),
                   (size_t)how->n_x);
        }
    }
    *planes_p = out;
    return HIRL_OK;
}

static hirl_status_t cut_view(hirl_augment_t *augment, const hirl_image_t *image,
                              const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                              hirl_planes_t *planes_p) {
    hirl_resample_t how = {.top = draws->top,
                           .left = draws->left,
                           .height = draws->height,
                           .width = draws->width,
                           .filter = hirl_view_filter(spec),
                           .is_flipped = draws->is_flipped};
    if (spec->crop == HIRL_CROP_RESIZE_RANDOM || spec->crop == HIRL_CROP_RESIZE_CENTER) {
        how.out_height = draws->resized_height;
        how.out_width = draws->resized_width;
        return cut_window(augment, image, &how, spec->size, draws->window_y, draws->window_x,
                          planes_p);
    }
    how.out_height = how.out_width = how.n_y = how.n_x = spec->size;
    return hirl_resample_planes(augment, image, &how, planes_p);
}

hirl_status_t hirl_view_apply(hirl_augment_t *augment, const hirl_image_t *image,
                              const hirl_view_spec_t *spec, const hirl_view_draws_t *draws,
                              const float *mean, const float *std, float *out) {
    static const uint8_t black[3] = {0, 0, 0};
    hirl_planes_t planes;
    HIRL_TRY(cut_view(augment, image, spec, draws, &planes));
    if (spec->rand_augment > 0) {
        uint8_t fill[3];
        for (int c = 0; c < 3; c++) {
            const double level = rint(255.0 * (double)mean[c < image->channels ? c : 0]);
            fill[c] = (uint8_t)fmin(fmax(level, 0.0), 255.0);
        }
        for (int i = 0; i < spec->rand_augment; i++) {
            if (!draws->rand_augment[i].is_done) continue;
            HIRL_TRY(hirl_rand_augment_apply(augment, &planes, &draws->rand_augment[i],
                                             hirl_view_filter(spec), fill));
        }
    }
    if (spec->rotate_degrees > 0) {
        HIRL_TRY(hirl_planes_rotate(augment, &planes, draws->degrees, HIRL_FILTER_NEAREST, black));
    }
    if (draws->is_gray && spec->is_gray_first) make_gray(&planes);
    if (draws->has_jitter) jitter(&planes, spec, draws);
    if (draws->is_gray) make_gray(&planes);
    const size_t n = (size_t)planes.channels * hirl_plane_size(&planes);
    if (draws->is_posterized) hirl_span_posterize(planes.data, n, spec->posterize_bits);
    if (draws->has_autocontrast) hirl_planes_autocontrast(&planes);
    if (draws->is_equalized) hirl_planes_equalize(&planes);
    if (draws->has_blur) HIRL_TRY(hirl_blur_planes(augment, &planes, draws->sigma));
    if (draws->is_solarized) hirl_span_solarize(planes.data, n, SOLARIZE_FROM);
    affine_t affine = affine_make(mean, std, image->channels);
    if (spec->lighting_std > 0 && image->channels == 3) add_lighting(&affine, draws->lighting, std);
    normalize(&planes, image->channels, &affine, (size_t)spec->size * (size_t)image->channels, out);
    if (draws->is_erased)
        hirl_erase_apply(&draws->erase, &draws->noise, spec->size, image->channels, out);
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

void hirl_eval_size(int height, int width, int resize, int crop, int *out_height_p,
                    int *out_width_p) {
    resized_size(height, width, resize, out_height_p, out_width_p);
    if (crop > 0) *out_height_p = *out_width_p = crop;
}

// Where an evaluation's view lies in the resized picture, and the picture in the view.
typedef struct eval_plan {
    hirl_resample_t how;
    int out_height, out_width, before_y, before_x;
} eval_plan_t;

static hirl_status_t eval_plan_make(int height, int width, int resize, int crop, bool is_bicubic,
                                    eval_plan_t *plan_p) {
    HIRL_REQUIRE(height > 0 && width > 0, HIRL_ERR_ARG, "image is empty (%d x %d)", height, width);
    HIRL_REQUIRE(resize >= 0 && crop >= 0, HIRL_ERR_ARG,
                 "resize is %d and crop %d; neither may be negative", resize, crop);
    HIRL_REQUIRE((double)resize * height <= INT_MAX && (double)resize * width <= INT_MAX,
                 HIRL_ERR_ARG,
                 "resizing the shorter side of a %d x %d image to %d goes beyond 2^31", height,
                 width, resize);
    eval_plan_t plan = {.how = {.height = height,
                                .width = width,
                                .filter = is_bicubic ? HIRL_FILTER_BICUBIC : HIRL_FILTER_BILINEAR}};
    hirl_resample_t *how = &plan.how;
    resized_size(height, width, resize, &how->out_height, &how->out_width);
    plan.out_height = crop > 0 ? crop : how->out_height;
    plan.out_width = crop > 0 ? crop : how->out_width;
    const int window_y = central_window(how->out_height, plan.out_height),
              window_x = central_window(how->out_width, plan.out_width);
    how->y0 = max_int(window_y, 0);
    how->x0 = max_int(window_x, 0);
    how->n_y = min_int(plan.out_height, how->out_height);
    how->n_x = min_int(plan.out_width, how->out_width);
    plan.before_y = how->y0 - window_y;
    plan.before_x = how->x0 - window_x;
    *plan_p = plan;
    return HIRL_OK;
}

hirl_status_t hirl_eval_window(hirl_augment_t *augment, int height, int width, int resize, int crop,
                               bool is_bicubic, hirl_window_t *part_p) {
    eval_plan_t plan;
    HIRL_TRY(eval_plan_make(height, width, resize, crop, is_bicubic, &plan));
    return hirl_resample_reach(augment, &plan.how, part_p);
}

hirl_status_t hirl_augment_eval_part(hirl_augment_t *augment, const hirl_image_t *image,
                                     const hirl_window_t *part, int height, int width, int resize,
                                     int crop, bool is_bicubic, const float *mean, const float *std,
                                     float *out) {
    eval_plan_t plan;
    HIRL_TRY(eval_plan_make(height, width, resize, crop, is_bicubic, &plan));
    plan.how.given = *part;

    const int channels = image->channels;
    const affine_t affine = affine_make(mean, std, channels);
    const bool is_kept = plan.how.n_y == image->height && plan.how.n_x == image->width &&
                         plan.how.out_height == height && plan.how.out_width == width &&
                         plan.out_height == height && plan.out_width == width;
    if (is_kept) {
        normalize_image(image, &affine, out);
        return HIRL_OK;
    }
    hirl_planes_t planes;
    HIRL_TRY(hirl_resample_planes(augment, image, &plan.how, &planes));
    const size_t pitch = (size_t)plan.out_width * (size_t)channels;
    if (plan.how.n_y < plan.out_height || plan.how.n_x < plan.out_width) {
        for (size_t i = 0; i < (size_t)plan.out_height * pitch; i++)
            out[i] = affine.offset[i % (size_t)channels];
    }
    normalize(&planes, channels, &affine, pitch,
              out + (size_t)plan.before_y * pitch + (size_t)plan.before_x * (size_t)channels);
    return HIRL_OK;
}

hirl_status_t hirl_augment_eval(hirl_augment_t *augment, const hirl_image_t *image, int resize,
                                int crop, bool is_bicubic, const float *mean, const float *std,
                                float *out) {
    const hirl_window_t whole = {0, 0, image->height, image->width};
    return hirl_augment_eval_part(augment, image, &whole, image->height, image->width, resize, crop,
                                  is_bicubic, mean, std, out);
}

// ------------------------------------------------------------------------------- single operations

hirl_status_t hirl_planes_load(hirl_augment_t *augment, const hirl_image_t *image,
                               hirl_planes_t *planes_p) {
    const hirl_resample_t whole = {.height = image->height,
                                   .width = image->width,
                                   .out_height = image->height,
                                   .out_width = image->width,
                                   .n_y = image->height,
                                   .n_x = image->width};
    return hirl_resample_planes(augment, image, &whole, planes_p);
}

void hirl_planes_store(const hirl_planes_t *planes, uint8_t *out) {
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
                                     hirl_filter_t filter, uint8_t *out) {
    const hirl_resample_t how = {.top = top,
                                 .left = left,
                                 .height = height,
                                 .width = width,
                                 .out_height = out_height,
                                 .out_width = out_width,
                                 .n_y = out_height,
                                 .n_x = out_width,
                                 .filter = filter};
    hirl_planes_t planes;
    HIRL_TRY(hirl_resample_planes(augment, image, &how, &planes));
    hirl_planes_store(&planes, out);
    return HIRL_OK;
}

hirl_status_t hirl_image_blur(hirl_augment_t *augment, hirl_image_t *image, double sigma) {
    hirl_planes_t planes;
    HIRL_TRY(hirl_planes_load(augment, image, &planes));
    HIRL_TRY(hirl_blur_planes(augment, &planes, sigma));
    hirl_planes_store(&planes, image->pixels);
    return HIRL_OK;
}
