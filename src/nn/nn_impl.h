/// @file nn_impl.h
/// Pieces that encoders share: a batch-norm layer with its four arrays, and a convolution followed by one.
#ifndef HIRL_NN_IMPL_H
#define HIRL_NN_IMPL_H

#include "hirl/nn.h"

/// BatchNorm1d or 2d: weight, bias, running_mean, running_var under `prefix` ("layer1.0.bn1.").
typedef struct norm_layer {
    hirl_param_t *weight, *bias, *running_mean, *running_var;
} norm_layer_t;
hirl_status_t norm_layer_declare(hirl_registry_t *registry, const char *prefix, int64_t channels,
                                 hirl_init_t weight_init, norm_layer_t *layer);
/// residual may be NULL; y_p is a new handle.
hirl_status_t norm_layer_forward(const norm_layer_t *layer, const hirl_forward_t *fw, hirl_var_t *x,
                                 hirl_var_t *residual, bool has_relu, hirl_var_t **y_p);

/// Convolution without bias, then batch norm.
typedef struct conv_norm {
    hirl_param_t *weight;
    norm_layer_t norm;
    hirl_conv_param_t conv;
} conv_norm_t;
hirl_status_t conv_norm_declare(hirl_registry_t *registry, const char *conv_prefix,
                                const char *norm_prefix, int64_t in, int64_t out, int kernel,
                                int stride, hirl_init_t norm_init, conv_norm_t *layer);
hirl_status_t conv_norm_forward(const conv_norm_t *layer, const hirl_forward_t *fw, hirl_var_t *x,
                                hirl_var_t *residual, bool has_relu, hirl_var_t **y_p);

#endif
