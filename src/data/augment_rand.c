// RandAugment (Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space", 2020) with
// the operations that grow stronger with the magnitude, as timm's 'rand-m9-mstd0.5-inc1' has them:
// operations drawn with replacement from 15, each done with a probability, at a magnitude drawn
// from a normal distribution and kept within 0..10. Random erasing (Zhong et al., 2020) with its
// defaults.
#include "augment_impl.h"

#include <math.h>

enum { SOLARIZE_ADD_BELOW = 128, N_ERASE_TRIES = 10 };
static const double LEVEL_MAX = 10.0;

void hirl_rand_augment_draw(const hirl_view_spec_t *spec, hirl_rng_t *rng,
                            hirl_rand_draw_t draws[HIRL_MAX_RAND_AUGMENT]) {
    for (int i = 0; i < spec->rand_augment; i++) {
        hirl_rand_draw_t *draw = &draws[i];
        draw->op = (hirl_rand_op_t)hirl_rng_below(rng, HIRL_N_RAND_OPS);
        draw->is_done = hirl_rng_uniform(rng) < spec->rand_augment_prob;
        const double level =
            spec->rand_augment_magnitude + spec->rand_augment_std * hirl_rng_normal(rng);
        draw->level = level < 0.0 ? 0.0 : level > LEVEL_MAX ? LEVEL_MAX : level;
        draw->is_negative = hirl_rng_uniform(rng) < 0.5;
    }
}

// A copy of the values that `hirl_span_blend` mixes with is not needed where they are one number.
static void change_contrast(const hirl_planes_t *planes, double factor) {
    const int mean = hirl_planes_mean_luma(planes);
    hirl_span_blend(planes->data, (size_t)planes->channels * hirl_plane_size(planes), mean, factor);
}

// How strong an operation is.
typedef struct strength {
    double enhanced, degrees, shear, move;
    int n_bits, solarize_from, add;
} strength_t;

static strength_t strength_of(const hirl_rand_draw_t *draw) {
    const double share = draw->level / LEVEL_MAX, sign = draw->is_negative ? -1.0 : 1.0;
    return (strength_t){.enhanced = fmax(0.1, 1.0 + sign * (share * 0.9)),
                        .degrees = sign * (share * 30.0),
                        .shear = sign * (share * 0.3),
                        .move = sign * (share * 0.45),
                        .n_bits = 4 - (int)(share * 4),
                        .solarize_from = 256 - (int)(share * 256),
                        .add = (int)(share * 110)};
}

void hirl_rand_augment_write_op(const hirl_rand_draw_t *draw, int size, hirl_filter_t filter,
                                hirl_view_op_t *op_p) {
    const strength_t s = strength_of(draw);
    const hirl_view_op_t op[HIRL_N_RAND_OPS] = {
        [HIRL_RAND_AUTOCONTRAST] = {.kind = HIRL_VIEW_AUTOCONTRAST},
        [HIRL_RAND_EQUALIZE] = {.kind = HIRL_VIEW_EQUALIZE},
        [HIRL_RAND_INVERT] = {.kind = HIRL_VIEW_INVERT},
        [HIRL_RAND_ROTATE] = {.kind = HIRL_VIEW_TURN},
        [HIRL_RAND_POSTERIZE] = {.kind = HIRL_VIEW_POSTERIZE, .n = s.n_bits},
        [HIRL_RAND_SOLARIZE] = {.kind = HIRL_VIEW_SOLARIZE, .n = s.solarize_from},
        [HIRL_RAND_SOLARIZE_ADD] = {.kind = HIRL_VIEW_SOLARIZE_ADD, .n = s.add},
        [HIRL_RAND_COLOR] = {.kind = HIRL_VIEW_SATURATION, .value = s.enhanced},
        [HIRL_RAND_CONTRAST] = {.kind = HIRL_VIEW_CONTRAST, .value = s.enhanced},
        [HIRL_RAND_BRIGHTNESS] = {.kind = HIRL_VIEW_BRIGHTNESS, .value = s.enhanced},
        [HIRL_RAND_SHARPNESS] = {.kind = HIRL_VIEW_SHARPNESS, .value = s.enhanced},
        [HIRL_RAND_SHEAR_X] = {.kind = HIRL_VIEW_SHEAR_X, .value = s.shear},
        [HIRL_RAND_SHEAR_Y] = {.kind = HIRL_VIEW_SHEAR_Y, .value = s.shear},
        [HIRL_RAND_TRANSLATE_X] = {.kind = HIRL_VIEW_MOVE_X, .value = s.move * size},
        [HIRL_RAND_TRANSLATE_Y] = {.kind = HIRL_VIEW_MOVE_Y, .value = s.move * size},
    };
    *op_p = op[draw->op];
    op_p->filter = (uint8_t)filter;
    op_p->is_mean_shown = 1;
    if (draw->op == HIRL_RAND_ROTATE) hirl_turn_make(s.degrees, &op_p->value, &op_p->sine);
}

hirl_status_t hirl_rand_augment_apply(hirl_augment_t *augment, hirl_planes_t *planes,
                                      const hirl_rand_draw_t *draw, hirl_filter_t filter,
                                      const uint8_t fill[3]) {
    const size_t plane = hirl_plane_size(planes), n = plane * (size_t)planes->channels;
    uint8_t *data = planes->data;
    const strength_t s = strength_of(draw);
    switch (draw->op) {
        case HIRL_RAND_AUTOCONTRAST: hirl_planes_autocontrast(planes); return HIRL_OK;
        case HIRL_RAND_EQUALIZE: hirl_planes_equalize(planes); return HIRL_OK;
        case HIRL_RAND_INVERT: hirl_span_invert(data, n); return HIRL_OK;
        case HIRL_RAND_ROTATE: return hirl_planes_rotate(augment, planes, s.degrees, filter, fill);
        case HIRL_RAND_POSTERIZE: hirl_span_posterize(data, n, s.n_bits); return HIRL_OK;
        case HIRL_RAND_SOLARIZE: hirl_span_solarize(data, n, s.solarize_from); return HIRL_OK;
        case HIRL_RAND_SOLARIZE_ADD:
            hirl_span_solarize_add(data, n, s.add, SOLARIZE_ADD_BELOW);
            return HIRL_OK;
        case HIRL_RAND_COLOR:
            if (planes->channels == 3)
                hirl_span_saturation(data, data + plane, data + 2 * plane, plane, s.enhanced);
            return HIRL_OK;
        case HIRL_RAND_CONTRAST: change_contrast(planes, s.enhanced); return HIRL_OK;
        case HIRL_RAND_BRIGHTNESS: hirl_span_blend(data, n, 0, s.enhanced); return HIRL_OK;
        case HIRL_RAND_SHARPNESS: return hirl_planes_sharpness(augment, planes, s.enhanced);
        case HIRL_RAND_SHEAR_X:
            return hirl_planes_affine(augment, planes, (const double[6]){1, s.shear, 0, 0, 1, 0},
                                      filter, fill);
        case HIRL_RAND_SHEAR_Y:
            return hirl_planes_affine(augment, planes, (const double[6]){1, 0, 0, s.shear, 1, 0},
                                      filter, fill);
        case HIRL_RAND_TRANSLATE_X:
            return hirl_planes_affine(augment, planes,
                                      (const double[6]){1, 0, s.move * planes->width, 0, 1, 0},
                                      filter, fill);
        case HIRL_RAND_TRANSLATE_Y:
            return hirl_planes_affine(augment, planes,
                                      (const double[6]){1, 0, 0, 0, 1, s.move * planes->height},
                                      filter, fill);
        case HIRL_N_RAND_OPS: break;
    }
    return HIRL_FAIL(HIRL_ERR_INTERNAL, "RandAugment has no operation %d", (int)draw->op);
}

// ------------------------------------------------------------------------------------ random erasing

void hirl_erase_draw(const hirl_view_spec_t *spec, hirl_rng_t *rng, hirl_erase_t *erase_p) {
    hirl_erase_t erase = {0};
    const double area = (double)spec->size * spec->size;
    const double log_ratio[2] = {log(spec->erase_ratio[0]), log(spec->erase_ratio[1])};
    for (int i = 0; i < N_ERASE_TRIES; i++) {
        const double share = hirl_rng_range(rng, spec->erase_area[0], spec->erase_area[1]);
        const double ratio = exp(hirl_rng_range(rng, log_ratio[0], log_ratio[1]));
        const double height = rint(sqrt(share * area * ratio)),
                     width = rint(sqrt(share * area / ratio));
        if (!(height < spec->size && width < spec->size)) continue;
        erase.height = (int)height;
        erase.width = (int)width;
        erase.top = (int)hirl_rng_below(rng, spec->size - erase.height + 1);
        erase.left = (int)hirl_rng_below(rng, spec->size - erase.width + 1);
        break;
    }
    *erase_p = erase;
}

// The noise is made in whole runs, since a run's beginning and end cost as much as its middle.
void hirl_erase_apply(const hirl_erase_t *erase, const hirl_rng_t *noise, int size, int channels,
                      float *out) {
    enum { RUN = 4096 };
    float run[RUN];
    const int64_t row = (int64_t)erase->width * channels, n = row * erase->height;
    float *to = out + ((int64_t)erase->top * size + erase->left) * channels;
    int64_t x = 0;
    for (int64_t at = 0; at < n; at += RUN) {
        const int64_t m = n - at < RUN ? n - at : RUN;
        hirl_rng_normals(noise, at, m, 1.0, run);
        for (int64_t i = 0; i < m; i++) {
            to[x++] = run[i];
            if (x < row) continue;
            x = 0;
            to += (int64_t)size * channels;
        }
    }
}
