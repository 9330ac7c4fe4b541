// Learning-rate rules and schedules.

#include "hirl/optim.h"

#include <math.h>
#include <string.h>

double hirl_optim_scaled_lr(const hirl_optim_cfg_t *cfg) {
    double ratio = (double)cfg->batch / 256.0;
    if (strcmp(cfg->lr_rule, "linear") == 0) return cfg->lr * ratio;
    if (strcmp(cfg->lr_rule, "sqrt") == 0) return cfg->lr * sqrt(ratio);
    return cfg->lr;
}

double hirl_schedule_lr(const hirl_schedule_cfg_t *cfg, double lr, double t) {
    if (cfg->per_epoch) t = floor(t);
    if (t < cfg->warmup_epochs)
        return cfg->warmup_lr + (lr - cfg->warmup_lr) * t / cfg->warmup_epochs;
    if (strcmp(cfg->shape, "cosine") == 0) {
        double span = cfg->epochs - cfg->warmup_epochs;
        double share = span > 0 ? fmin((t - cfg->warmup_epochs) / span, 1.0) : 1.0;
        return cfg->min_lr + 0.5 * (lr - cfg->min_lr) * (1.0 + cos(acos(-1.0) * share));
    }
    if (strcmp(cfg->shape, "step") == 0)
        for (int i = 0; i < cfg->n_step_epochs; ++i)
            if (t >= cfg->step_epochs[i]) lr *= cfg->step_factor;
    return lr;
}

static const hirl_key_t schedule_keys[] = {
    HIRL_ROW_REAL(hirl_schedule_cfg_t, epochs, "200", 0, 1e9, "epochs",
                  "Length of the training; fractions are allowed."),
    HIRL_ROW_TEXT(hirl_schedule_cfg_t, shape, "'cosine'", "cosine|step|constant",
                  "Course of the learning rate after the warm-up."),
    HIRL_ROW_BOOL(
        hirl_schedule_cfg_t, per_epoch, ".false.",
        "Change the learning rate once an epoch (as published for MoCo v2) instead of every step."),
    HIRL_ROW_REAL(hirl_schedule_cfg_t, warmup_epochs, "0", 0, 1e9, "epochs",
                  "Linear rise from warmup_lr to the learning rate."),
    HIRL_ROW_REAL(hirl_schedule_cfg_t, warmup_lr, "0", 0, 1e6, "",
                  "Learning rate at the start of the warm-up; not scaled by the batch size."),
    HIRL_ROW_REAL(hirl_schedule_cfg_t, min_lr, "0", 0, 1e6, "",
                  "Learning rate at the end of the cosine; not scaled by the batch size."),
    HIRL_ROW_REAL_LIST(hirl_schedule_cfg_t, step_epochs, "", 0, 1e9, "epochs",
                       "Epochs at which shape = 'step' multiplies the learning rate."),
    HIRL_ROW_REAL(hirl_schedule_cfg_t, step_factor, "0.1", 0, 1e3, "", "Factor of shape = 'step'."),
};

const hirl_group_t hirl_schedule_group = {
    "schedule", "Length of the training and course of the learning rate.", schedule_keys,
    sizeof schedule_keys / sizeof *schedule_keys, sizeof(hirl_schedule_cfg_t)};
