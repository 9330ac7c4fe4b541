/// @file tape.h
/// Define-by-run automatic differentiation. An operation runs at once; if an input needs a gradient, the tape appends a node that knows its
/// backward. Values live as long as someone needs them: the caller's handle, or a node that saved them; the backward pass frees as it goes.
///
/// Handles: every operation returns a `hirl_var_t *` that the caller releases with hirl_var_release as soon as it has no more use for it
/// (the graph keeps what it needs). Not collective except hirl_tape_batch_norm with groups that span ranks.
#ifndef HIRL_TAPE_H
#define HIRL_TAPE_H

#include "hirl/backend.h"
#include "hirl/par.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hirl_tape hirl_tape_t;
typedef struct hirl_var hirl_var_t;

/// backend and world are HIRL_BORROW.
hirl_status_t hirl_tape_create(hirl_backend_t *backend, hirl_world_t *world, hirl_tape_t **tape_p);
/// From here on, operations that need other ranks' values use `device` (HIRL_BORROW; NULL: MPI, by way of the host).
void hirl_tape_set_device(hirl_tape_t *tape, hirl_par_device_t *device);
/// Sums x (plain f32) over the ranks of `world`, in place, by way of the host: for devices that NCCL does not serve. Collective on world.
hirl_status_t hirl_tape_sum_by_host(hirl_tape_t *tape, hirl_world_t *world, hirl_tensor_t *x);
/// all [ranks, ...] = every rank's x [...], plain f32 both, in rank order; on the device where there is one, and there without the
/// host waiting. Nothing is recorded. Collective on the tape's world.
hirl_status_t hirl_tape_all_gather(hirl_tape_t *tape, const hirl_tensor_t *x, hirl_tensor_t *all);
/// That device, or NULL.
hirl_par_device_t *hirl_tape_device_view(const hirl_tape_t *tape);
void hirl_tape_destroy(hirl_tape_t **tape);
hirl_backend_t *hirl_tape_backend_view(hirl_tape_t *tape);
hirl_world_t *hirl_tape_world_view(hirl_tape_t *tape);

/// Between begin and end (they nest) nothing is recorded: for teachers and evaluation.
void hirl_tape_begin_no_grad(hirl_tape_t *tape);
void hirl_tape_end_no_grad(hirl_tape_t *tape);

/// A constant; takes a reference to the tensor.
hirl_status_t hirl_var_create(hirl_tape_t *tape, const hirl_tensor_t *value, hirl_var_t **var_p);
/// Called when the gradient of a leaf is complete in this backward pass.
typedef hirl_status_t (*hirl_leaf_ready_t)(void *ctx, int64_t id);
/// A leaf that wants a gradient: `grad` is plain f32 of the same shape and overwritten by the first contribution after hirl_var_clear_grad.
hirl_status_t hirl_var_create_leaf(hirl_tape_t *tape, const hirl_tensor_t *value,
                                   const hirl_tensor_t *grad, hirl_var_t **var_p);
/// Sets who is told about complete leaf gradients; NULL: nobody.
void hirl_tape_set_leaf_ready(hirl_tape_t *tape, hirl_leaf_ready_t ready, void *ctx);
void hirl_var_set_id(hirl_var_t *leaf, int64_t id);
/// Marks a leaf's gradient as absent; true from the first contribution on.
void hirl_var_clear_grad(hirl_var_t *leaf);
bool hirl_var_has_grad(const hirl_var_t *leaf);
/// Says what is so when something else than a backward pass has written a leaf's gradient: the launch of a recorded one.
void hirl_var_set_grad_present(hirl_var_t *leaf, bool is_present);

hirl_var_t *hirl_var_retain(hirl_var_t *var);
void hirl_var_release(hirl_var_t **var);
/// Valid until the handle is released.
const hirl_tensor_t *hirl_var_value_view(const hirl_var_t *var);
bool hirl_var_requires_grad(const hirl_var_t *var);
/// Keeps the gradient of a recorded variable beyond the backward pass, for hirl_var_grad_view (probes and tests).
void hirl_var_keep_grad(hirl_var_t *var);
const hirl_tensor_t *hirl_var_grad_view(const hirl_var_t *var);
/// Same value, no gradient.
hirl_status_t hirl_var_detach(hirl_tape_t *tape, hirl_var_t *var, hirl_var_t **detached_p);

/// A factor f32 [1] in the backend's memory by which hirl_tape_backward multiplies every weight when it runs, so that it may change between passes that
/// are otherwise the same. HIRL_BORROW until the tape's end or another is set; NULL: none.
void hirl_tape_set_loss_factor(hirl_tape_t *tape, const hirl_tensor_t *factor);
/// Back-propagates sum_i weight[i] * loss[i] (scalars, f32 [1]) and clears the tape. Between nodes, pending reductions of the world progress.
hirl_status_t hirl_tape_backward(hirl_tape_t *tape, hirl_var_t *const *loss, const float *weight,
                                 int n_losses);
/// Back-propagates a given gradient of one variable (same shape) and clears the tape.
hirl_status_t hirl_tape_backward_from(hirl_tape_t *tape, hirl_var_t *var,
                                      const hirl_tensor_t *gradient);
/// Forgets what was recorded.
void hirl_tape_reset(hirl_tape_t *tape);

// ---------------------------------------------------------------------------------------------- operations (shapes as in backend.h)

hirl_status_t hirl_tape_conv2d(hirl_tape_t *tape, const hirl_conv_param_t *p, hirl_var_t *x,
                               hirl_var_t *w, hirl_var_t *bias, hirl_var_t **y_p);
hirl_status_t hirl_tape_max_pool(hirl_tape_t *tape, const hirl_pool_param_t *p, hirl_var_t *x,
                                 hirl_var_t **y_p);
hirl_status_t hirl_tape_global_avg_pool(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t **y_p);

typedef struct hirl_bn_args {
    bool is_training;
    int64_t
        group; // statistics over groups of this many consecutive samples of the *global* batch; 0: the whole global batch.
    // It must divide the rank's batch, or be a multiple of it whose ranks divide the world.
    float eps, momentum;
    hirl_tensor_t running_mean,
        running_var; // f32 [C], updated in training by the mean over this rank's groups (unbiased variance)
} hirl_bn_args_t;
/// Batch norm (Ioffe and Szegedy 2015) over N, H, W; then + residual; then ReLU. gamma and beta may be NULL, residual too. Collective over the ranks of a group
/// where groups span ranks, forward and backward.
hirl_status_t hirl_tape_batch_norm(hirl_tape_t *tape, const hirl_bn_args_t *args, hirl_var_t *x,
                                   hirl_var_t *gamma, hirl_var_t *beta, hirl_var_t *residual,
                                   bool has_relu, hirl_var_t **y_p);
hirl_status_t hirl_tape_layer_norm(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t *gamma,
                                   hirl_var_t *beta, float eps, hirl_var_t **y_p);
hirl_status_t hirl_tape_linear(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t *w, hirl_var_t *bias,
                               hirl_act_t act, hirl_var_t **y_p);
/// y [N, M] = x [N, D] b [M, D]^T, b constant.
hirl_status_t hirl_tape_matmul_const(hirl_tape_t *tape, hirl_var_t *x, const hirl_tensor_t *b,
                                     hirl_var_t **y_p);
hirl_status_t hirl_tape_act(hirl_tape_t *tape, hirl_act_t act, hirl_var_t *x, hirl_var_t **y_p);
hirl_status_t hirl_tape_add(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2, hirl_var_t **y_p);
hirl_status_t hirl_tape_mul(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2, hirl_var_t **y_p);
hirl_status_t hirl_tape_l2_normalize(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t **y_p);
/// y [N, 1].
hirl_status_t hirl_tape_row_dot(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2,
                                hirl_var_t **y_p);
hirl_status_t hirl_tape_concat_columns(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2,
                                       hirl_var_t **y_p);
hirl_status_t hirl_tape_gather_rows(hirl_tape_t *tape, hirl_var_t *x, const hirl_tensor_t *index,
                                    hirl_var_t **y_p);
hirl_status_t hirl_tape_softmax(hirl_tape_t *tape, hirl_var_t *x, float scale, hirl_var_t **y_p);
/// See hirl_op_dropout. drop NULL (inference) or p = 0: x itself. The counter's and indices' elements must not change before the backward pass.
hirl_status_t hirl_tape_dropout(hirl_tape_t *tape, const hirl_drop_t *drop, hirl_var_t *x,
                                hirl_var_t **y_p);
/// residual + drop_path(x); see hirl_op_drop_path. drop NULL (inference) or p = 0: residual + x. Likewise.
hirl_status_t hirl_tape_drop_path(hirl_tape_t *tape, const hirl_drop_t *drop, hirl_var_t *x,
                                  hirl_var_t *residual, hirl_var_t **y_p);
/// See hirl_op_attention: y [B Nq, H D]. A variable given as several of q, k and v (a packed one) gets one gradient. bias may be NULL; mask is a
/// constant and may be NULL. For the backward, only lse [B, H, Nq] is kept beside inputs and output.
hirl_status_t hirl_tape_attention(hirl_tape_t *tape, const hirl_attention_param_t *p, hirl_var_t *q,
                                  hirl_var_t *k, hirl_var_t *v, hirl_var_t *bias,
                                  const hirl_tensor_t *mask, hirl_var_t **y_p);
/// correct_p may be NULL; see hirl_op_cross_entropy.
hirl_status_t hirl_tape_cross_entropy(hirl_tape_t *tape, hirl_var_t *logits, float scale,
                                      const hirl_tensor_t *target, hirl_var_t **loss_p,
                                      hirl_tensor_t *correct_p);
/// terms_p (two halves) may be NULL; see hirl_op_path_loss.
hirl_status_t hirl_tape_path_loss(hirl_tape_t *tape, int n_levels, hirl_var_t *const *similarity,
                                  const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                  hirl_var_t **loss_p, hirl_tensor_t *terms_p);
/// dtype conversion with gradient.
hirl_status_t hirl_tape_cast(hirl_tape_t *tape, hirl_var_t *x, hirl_dtype_t dtype,
                             hirl_var_t **y_p);
/// Plain copy (or the same tensor when it is plain already), with gradient.
hirl_status_t hirl_tape_to_plain(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t **y_p);

#ifdef __cplusplus
}
#endif
#endif
