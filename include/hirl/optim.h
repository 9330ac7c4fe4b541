/// @file optim.h
/// Optimisers over registries, learning-rate schedules, and the bucketed gradient reduction that overlaps the backward pass.
#ifndef HIRL_OPTIM_H
#define HIRL_OPTIM_H

#include "hirl/nn.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &optim. Batch sizes are global.
typedef struct hirl_optim_cfg {
    char name[HIRL_DECK_TEXT_MAX]; // 'sgd' | 'adamw' | 'lars'
    double lr;                     // base learning rate
    char lr_rule
        [HIRL_DECK_TEXT_MAX]; // 'none' | 'linear' (x batch / 256) | 'sqrt' (x sqrt(batch / 256))
    double momentum, weight_decay, beta1, beta2, eps, trust;
    char lars_form[HIRL_DECK_TEXT_MAX]; // 'lars' | 'larc' | 'joint'
    bool nesterov;
    bool decay_1d;      // weight decay also on biases and norms
    bool adapt_1d;      // LARS also on biases and norms
    double clip_grad;   // global L2 norm; 0: off
    int64_t batch;      // global batch size
    int64_t accumulate; // micro-batches per step
    double bucket_mib;  // gradient bucket
} hirl_optim_cfg_t;
extern const hirl_group_t hirl_optim_group;

/// &schedule
typedef struct hirl_schedule_cfg {
    double epochs;
    char shape[HIRL_DECK_TEXT_MAX]; // 'cosine' | 'step' | 'constant'
    bool per_epoch;                 // learning rate changes per epoch instead of per step
    double warmup_epochs, warmup_lr, min_lr;
    double step_epochs[HIRL_DECK_LIST_MAX];
    int n_step_epochs;
    double step_factor;
} hirl_schedule_cfg_t;
extern const hirl_group_t hirl_schedule_group;

/// lr after the batch-size rule.
double hirl_optim_scaled_lr(const hirl_optim_cfg_t *cfg);
/// Learning rate at fractional epoch t (0-based). lr is the scaled one; min_lr and warmup_lr are not scaled.
double hirl_schedule_lr(const hirl_schedule_cfg_t *cfg, double lr, double t);

typedef struct hirl_optimizer hirl_optimizer_t;
/// Optimises all trainable registries given (HIRL_BORROW), as PyTorch's: parameters without a gradient in a step are skipped.
hirl_status_t hirl_optimizer_create(const hirl_optim_cfg_t *cfg, hirl_backend_t *backend,
                                    hirl_registry_t *const *registries, int n,
                                    hirl_optimizer_t **optimizer_p);
void hirl_optimizer_destroy(hirl_optimizer_t **optimizer);
/// Global L2 norm of all present gradients (double, fixed order): what a step on a device waits for, once.
hirl_status_t hirl_optimizer_grad_norm(hirl_optimizer_t *optimizer, double *norm_p);
/// One update, of gradients times `grad_scale` (clipping); on a device, all of it is asked for without waiting.
hirl_status_t hirl_optimizer_step(hirl_optimizer_t *optimizer, double lr, double grad_scale);
/// Calls visit for every state array ("/optimizer/momentum/encoder_q.conv1.weight", f32 tensor of the parameter's shape) and the per-parameter step counts.
typedef hirl_status_t (*hirl_state_visit_t)(void *ctx, const char *name,
                                            const hirl_tensor_t *tensor);
hirl_status_t hirl_optimizer_visit(hirl_optimizer_t *optimizer, hirl_state_visit_t visit,
                                   void *ctx);
/// Step counts of all parameters (0: never updated), in registry order, for checkpoints.
int64_t *hirl_optimizer_step_counts(hirl_optimizer_t *optimizer, int64_t *n_p);

/// Sums gradients over ranks in buckets, each started as soon as its last gradient is complete. Buckets run from the end of a slab to its start, which is about the order of the backward pass.
typedef struct hirl_reducer hirl_reducer_t;
/// Attaches to the tape's leaf-ready call. Gradients in device memory go through the tape's device (hirl_tape_set_device), or without one
/// by way of the host and without overlap. Collective.
hirl_status_t hirl_reducer_create(hirl_world_t *world, hirl_tape_t *tape, double bucket_mib,
                                  hirl_registry_t *const *registries, int n,
                                  hirl_reducer_t **reducer_p);
void hirl_reducer_destroy(hirl_reducer_t **reducer);
/// Before the backward pass of the last micro-batch of a step (earlier ones only accumulate). Collective.
hirl_status_t hirl_reducer_begin(hirl_reducer_t *reducer);
/// After it: reduces what is left (a bucket's absent gradients count as zero; buckets without any are skipped, alike on all ranks because all run the same
/// graph) and waits. Collective.
hirl_status_t hirl_reducer_end(hirl_reducer_t *reducer);
/// Seconds spent waiting in hirl_reducer_end so far.
double hirl_reducer_wait_seconds(const hirl_reducer_t *reducer);

#ifdef __cplusplus
}
#endif
#endif
