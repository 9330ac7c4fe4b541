/// @file ref_impl.h
/// The reference backend's functions: plain, slow, obvious loops with sums in double, the oracle of every parity test. Every output has
/// plain storage (backend_ops.h). Elements are read and written through `get` and `set`, whatever their dtype.
#ifndef HIRL_REF_IMPL_H
#define HIRL_REF_IMPL_H

#include <math.h>
#include <string.h>

#include "hirl/backend_ops.h"

static inline float bf16_to_f32(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/// Rounds to nearest, ties to even; NaN stays NaN.
static inline uint16_t f32_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// IEEE 754 binary16: 65504 is the largest, 2^-14 the smallest of full precision, 2^-24 the smallest.
static inline float f16_to_f32(uint16_t bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31;
    const uint32_t mantissa = bits & 1023;
    uint32_t wide = sign | (exponent + 112) << 23 | mantissa << 13;
    float value;
    if (exponent == 0) return (float)(sign ? -1.0 : 1.0) * (float)mantissa * 0x1p-24f;
    if (exponent == 31) wide = sign | 0x7f800000 | mantissa << 13;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/// Rounds to nearest, ties to even, from 65520 on to infinity; NaN stays NaN.
static inline uint16_t f32_to_f16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (isnan(value)) return (uint16_t)(sign | 0x7e00);
    if (size >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (size < 0x38800000) return (uint16_t)(sign | (uint32_t)nearbyintf(fabsf(value) * 0x1p24f));
    return (uint16_t)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
}

static inline float half_to_f32(hirl_dtype_t dtype, uint16_t bits) {
    return dtype == HIRL_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}
static inline uint16_t f32_to_half(hirl_dtype_t dtype, float value) {
    return dtype == HIRL_F16 ? f32_to_f16(value) : f32_to_bf16(value);
}
static inline bool is_half(const hirl_tensor_t *x) {
    return x->dtype == HIRL_BF16 || x->dtype == HIRL_F16;
}

static inline double get(const hirl_tensor_t *x, int64_t i) {
    const void *data = hirl_tensor_data(x);
    return is_half(x) ? half_to_f32(x->dtype, ((const uint16_t *)data)[i])
                      : ((const float *)data)[i];
}

static inline void set(const hirl_tensor_t *x, int64_t i, double value) {
    void *data = hirl_tensor_data(x);
    if (is_half(x))
        ((uint16_t *)data)[i] = f32_to_half(x->dtype, (float)value);
    else
        ((float *)data)[i] = (float)value;
}

/// x[i] = value, or x[i] += value.
static inline void put(const hirl_tensor_t *x, int64_t i, bool accumulate, double value) {
    set(x, i, accumulate ? get(x, i) + value : value);
}

/// A weight as the multiplication with `like` sees it: rounded to 16 bits when the activations have them.
static inline double get_weight(const hirl_tensor_t *w, int64_t i, const hirl_tensor_t *like) {
    double value = get(w, i);
    return is_half(like) ? half_to_f32(like->dtype, f32_to_half(like->dtype, (float)value)) : value;
}

static inline int64_t last_axis(const hirl_tensor_t *x) {
    return x->shape.dim[x->shape.n_axes - 1];
}
static inline const int32_t *get_i32(const hirl_tensor_t *x) { return hirl_tensor_data(x); }

static inline double gelu(double x) { return 0.5 * x * (1.0 + erf(x * M_SQRT1_2)); }
static inline double gelu_slope(double x) {
    return 0.5 * (1.0 + erf(x * M_SQRT1_2)) + x * exp(-0.5 * x * x) * 0.5 * M_2_SQRTPI * M_SQRT1_2;
}
static inline double activate(hirl_act_t act, double x) {
    if (act == HIRL_ACT_RELU) return x > 0 ? x : 0;
    return act == HIRL_ACT_GELU ? gelu(x) : x;
}

// Functions of the table, as backend.h describes them.
hirl_status_t ref_conv2d(hirl_backend_t *be, const hirl_conv_param_t *p, const hirl_tensor_t *x,
                         const hirl_tensor_t *w, const hirl_tensor_t *bias, hirl_tensor_t *y);
hirl_status_t ref_conv2d_backward_data(hirl_backend_t *be, const hirl_conv_param_t *p,
                                       const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                       const hirl_shape_t *x_shape, hirl_tensor_t *dx);
hirl_status_t ref_conv2d_backward_weights(hirl_backend_t *be, const hirl_conv_param_t *p,
                                          const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                          bool accumulate, hirl_tensor_t *dw, hirl_tensor_t *dbias);
hirl_status_t ref_max_pool(hirl_backend_t *be, const hirl_pool_param_t *p, const hirl_tensor_t *x,
                           hirl_tensor_t *y, hirl_tensor_t *workspace);
hirl_status_t ref_max_pool_backward(hirl_backend_t *be, const hirl_pool_param_t *p,
                                    const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                    const hirl_shape_t *x_shape, hirl_tensor_t *dx);
hirl_status_t ref_global_avg_pool(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y);
hirl_status_t ref_global_avg_pool_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                           const hirl_tensor_t *like, hirl_tensor_t *dx);

hirl_status_t ref_bn_stats(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                           hirl_tensor_t *mean, hirl_tensor_t *var);
hirl_status_t ref_bn_apply(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                           const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                           const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                           const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y);
hirl_status_t ref_bn_backward_sums(hirl_backend_t *be, const hirl_tensor_t *dy,
                                   const hirl_tensor_t *y, const hirl_tensor_t *x, int64_t n_groups,
                                   const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                                   hirl_tensor_t *sum_dz, hirl_tensor_t *sum_dz_xhat);
hirl_status_t ref_bn_backward_apply(hirl_backend_t *be, const hirl_tensor_t *dy,
                                    const hirl_tensor_t *y, const hirl_tensor_t *x,
                                    int64_t n_groups, const hirl_tensor_t *mean,
                                    const hirl_tensor_t *var, float eps, const hirl_tensor_t *gamma,
                                    const hirl_tensor_t *mean_dz, const hirl_tensor_t *mean_dz_xhat,
                                    hirl_tensor_t *dx, hirl_tensor_t *dresidual);
hirl_status_t ref_bn_combine(hirl_backend_t *be, const hirl_tensor_t *parts, hirl_tensor_t *mean,
                             hirl_tensor_t *var);
hirl_status_t ref_fold_rows(hirl_backend_t *be, float scale, const hirl_tensor_t *x, float keep,
                            hirl_tensor_t *y);
hirl_status_t ref_update(hirl_backend_t *be, const hirl_update_t *update,
                         const hirl_segments_t *segments, const hirl_tensor_t *g, hirl_tensor_t *v,
                         hirl_tensor_t *w, hirl_tensor_t *p);
hirl_status_t ref_ema(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y);
hirl_status_t ref_sum_squares_of(hirl_backend_t *be, int n, const hirl_segments_t *const *segments,
                                 const hirl_tensor_t *const *x, double *sum_p);
hirl_status_t ref_dropout(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                          hirl_tensor_t *y);
hirl_status_t ref_drop_path(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                            const hirl_tensor_t *residual, hirl_tensor_t *y);
hirl_status_t ref_layer_norm(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                             const hirl_tensor_t *beta, float eps, hirl_tensor_t *y,
                             hirl_tensor_t *mean, hirl_tensor_t *rstd);
hirl_status_t ref_layer_norm_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                      const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                      const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                      bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dgamma,
                                      hirl_tensor_t *dbeta);
hirl_status_t ref_l2_normalize(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                               hirl_tensor_t *norm);
hirl_status_t ref_l2_normalize_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                        const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                        hirl_tensor_t *dx);

hirl_status_t ref_gemm(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                       const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                       hirl_tensor_t *c);
hirl_status_t ref_linear(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                         const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                         hirl_tensor_t *pre);
hirl_status_t ref_linear_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                  const hirl_tensor_t *x, const hirl_tensor_t *w, bool accumulate,
                                  hirl_tensor_t *dx, hirl_tensor_t *dw, hirl_tensor_t *dbias);
hirl_status_t ref_row_dot(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                          hirl_tensor_t *y);
hirl_status_t ref_row_scale(hirl_backend_t *be, const hirl_tensor_t *s, const hirl_tensor_t *x,
                            bool accumulate, hirl_tensor_t *y);
hirl_status_t ref_softmax(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                          hirl_tensor_t *y);
hirl_status_t ref_softmax_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                   const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx);
// ref_attention.c
hirl_status_t ref_attention(hirl_backend_t *be, const hirl_attention_param_t *p,
                            const hirl_tensor_t *q, const hirl_tensor_t *k, const hirl_tensor_t *v,
                            const hirl_tensor_t *bias, const hirl_tensor_t *mask, hirl_tensor_t *y,
                            hirl_tensor_t *lse);
hirl_status_t ref_attention_backward(hirl_backend_t *be, const hirl_attention_param_t *p,
                                     const hirl_tensor_t *q, const hirl_tensor_t *k,
                                     const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                     const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                     const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                     hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                     hirl_tensor_t *dbias);

hirl_status_t ref_cross_entropy(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                const hirl_tensor_t *target, hirl_tensor_t *loss,
                                hirl_tensor_t *lse, hirl_tensor_t *correct);
hirl_status_t ref_cross_entropy_backward(hirl_backend_t *be, const hirl_tensor_t *logits,
                                         float scale, const hirl_tensor_t *target,
                                         const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                         hirl_tensor_t *dlogits);
hirl_status_t ref_path_loss(hirl_backend_t *be, int n_levels,
                            const hirl_tensor_t *const *similarity, const hirl_tensor_t *positive,
                            const hirl_tensor_t *negative, hirl_tensor_t *loss,
                            hirl_tensor_t *terms);
hirl_status_t ref_path_loss_backward(hirl_backend_t *be, int n_levels,
                                     const hirl_tensor_t *const *similarity,
                                     const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                     const hirl_tensor_t *dloss, hirl_tensor_t *const *dsimilarity);

hirl_status_t ref_nearest_rows(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *c,
                               const hirl_tensor_t *half_norm, hirl_tensor_t *index,
                               hirl_tensor_t *value);
hirl_status_t ref_top_rows(hirl_backend_t *be, const hirl_tensor_t *query,
                           const hirl_tensor_t *bank, int64_t k, int64_t piece,
                           hirl_tensor_t *score, hirl_tensor_t *index);
hirl_status_t ref_sum_rows(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *index,
                           double scale, bool accumulate, hirl_tensor_t *sum, hirl_tensor_t *count);
hirl_status_t ref_sum_distances(hirl_backend_t *be, const hirl_tensor_t *x,
                                const hirl_tensor_t *index, const hirl_tensor_t *c, double scale,
                                bool accumulate, hirl_tensor_t *total);
hirl_status_t ref_make_views(hirl_backend_t *be, const hirl_tensor_t *pixels,
                             const hirl_view_recipe_t *recipes, int64_t n, int size, int channels,
                             const float *mean, const float *std, hirl_tensor_t *y);

#endif
