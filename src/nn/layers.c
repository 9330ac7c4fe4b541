// Layers that encoders and heads share. Batch norm: eps 1e-5, momentum 0.1, as torch.nn.BatchNorm.

#include "nn_impl.h"

hirl_status_t norm_layer_declare(hirl_registry_t *registry, const char *prefix, int64_t channels,
                                 hirl_init_t weight_init, norm_layer_t *layer) {
    hirl_shape_t c = hirl_shape_1(channels);
    HIRL_TRY(
        hirl_registry_add(registry, prefix, "weight", c, weight_init, 0, false, &layer->weight));
    HIRL_TRY(
        hirl_registry_add(registry, prefix, "bias", c, HIRL_INIT_ZERO, 0, false, &layer->bias));
    HIRL_TRY(hirl_registry_add(registry, prefix, "running_mean", c, HIRL_INIT_ZERO, 0, true,
                               &layer->running_mean));
    return hirl_registry_add(registry, prefix, "running_var", c, HIRL_INIT_ONE, 0, true,
                             &layer->running_var);
}

// Momentum m of a whole step, split over its n micro-batches so that r becomes (1 - m) r + m / n (s_1 + ... + s_n): each later one shrinks what
// was added before it, hence m_i = (m / n) / (1 - (n - i) m / n), i = 1..n.
static float running_momentum(const hirl_forward_t *fw) {
    const float momentum = 0.1f;
    if (fw->n_micro <= 1) return momentum;
    float share = momentum / (float)fw->n_micro;
    return share / (1.0f - share * (float)(fw->n_micro - 1 - fw->micro));
}

hirl_status_t norm_layer_forward(const norm_layer_t *layer, const hirl_forward_t *fw, hirl_var_t *x,
                                 hirl_var_t *residual, bool has_relu, hirl_var_t **y_p) {
    hirl_bn_args_t args = {.is_training = fw->is_training,
                           .group = fw->bn_group,
                           .eps = 1e-5f,
                           .momentum = running_momentum(fw),
                           .running_mean = layer->running_mean->value,
                           .running_var = layer->running_var->value};
    return hirl_tape_batch_norm(fw->tape, &args, x, layer->weight->var, layer->bias->var, residual,
                                has_relu, y_p);
}

hirl_status_t conv_norm_declare(hirl_registry_t *registry, const char *conv_prefix,
                                const char *norm_prefix, int64_t in, int64_t out, int kernel,
                                int stride, hirl_init_t norm_init, conv_norm_t *layer) {
    layer->conv = (hirl_conv_param_t){
        .stride_h = stride, .stride_w = stride, .pad_h = kernel / 2, .pad_w = kernel / 2};
    HIRL_TRY(hirl_registry_add(registry, conv_prefix, "weight",
                               hirl_shape_4(out, in, kernel, kernel),
                               HIRL_INIT_KAIMING_NORMAL_FAN_OUT, 0, false, &layer->weight));
    return norm_layer_declare(registry, norm_prefix, out, norm_init, &layer->norm);
}

hirl_status_t conv_norm_forward(const conv_norm_t *layer, const hirl_forward_t *fw, hirl_var_t *x,
                                hirl_var_t *residual, bool has_relu, hirl_var_t **y_p) {
    hirl_var_t *z = NULL;
    HIRL_TRY(hirl_tape_conv2d(fw->tape, &layer->conv, x, layer->weight->var, NULL, &z));
    hirl_status_t status = norm_layer_forward(&layer->norm, fw, z, residual, has_relu, y_p);
    hirl_var_release(&z);
    return status;
}
