// Dynamic loss scaling for f16 (Micikevicius et al. 2018, section 3.2), by the rules of PyTorch's GradScaler.

#include <math.h>

#include "hirl/train.h"

static hirl_status_t put_factor(hirl_loss_scale_t *l, hirl_backend_t *be) {
    const float factor = (float)l->scale;
    return hirl_backend_upload(be, &factor, &l->factor);
}

hirl_status_t hirl_loss_scale_begin(hirl_loss_scale_t *l, hirl_backend_t *be, double scale,
                                    int64_t growth_steps) {
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(1), HIRL_F32, &l->factor));
    l->scale = (double)(float)scale; // what the device multiplies by
    l->growth_steps = growth_steps;
    l->n_good = 0;
    l->is_on = true;
    return put_factor(l, be);
}

void hirl_loss_scale_reset(hirl_loss_scale_t *l) {
    hirl_tensor_reset(&l->factor);
    *l = (hirl_loss_scale_t){0};
}

double hirl_loss_scale_now(const hirl_loss_scale_t *l) { return l->is_on ? l->scale : 1.0; }

bool hirl_loss_scale_can_fall(const hirl_loss_scale_t *l) {
    return l->is_on && l->scale > HIRL_LOSS_SCALE_LEAST;
}

hirl_status_t hirl_loss_scale_note(hirl_loss_scale_t *l, hirl_backend_t *be, bool is_finite) {
    const double old = l->scale;
    if (!l->is_on) return HIRL_OK;
    if (!is_finite) {
        l->scale = fmax(HIRL_LOSS_SCALE_LEAST, old * 0.5);
        l->n_good = 0;
    } else if (++l->n_good >= l->growth_steps) {
        l->scale = fmin(HIRL_LOSS_SCALE_MOST, old * 2);
        l->n_good = 0;
    }
    return l->scale == old ? HIRL_OK : put_factor(l, be);
}

hirl_status_t hirl_loss_scale_state(hirl_loss_scale_t *l, hirl_backend_t *be, hirl_state_t *state) {
    const int64_t n = 2;
    double value[2] = {l->scale, (double)l->n_good};
    if (!l->is_on) return HIRL_OK;
    HIRL_TRY(state->visit(state->ctx, "/loss_scale", HIRL_CKPT_F64, 1, &n, value));
    if (!state->is_loading) return HIRL_OK;
    HIRL_REQUIRE(
        value[0] >= HIRL_LOSS_SCALE_LEAST && value[0] <= HIRL_LOSS_SCALE_MOST &&
            value[0] == (double)(float)value[0] && value[1] >= 0 && value[1] < 1e15 &&
            value[1] == floor(value[1]),
        HIRL_ERR_FORMAT,
        "checkpoint: /loss_scale is [%g, %g], want a scale in %g..%g and a number of steps",
        value[0], value[1], HIRL_LOSS_SCALE_LEAST, HIRL_LOSS_SCALE_MOST);
    l->scale = value[0];
    l->n_good = (int64_t)value[1];
    return put_factor(l, be);
}
