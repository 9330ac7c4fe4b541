/// @file backend_ops.h
/// For those who write a backend: the table of operations that a backend fills, and what may be taken for granted in them.
///
/// The hirl_op_* of backend.h are thin: they check every argument once for all backends and call the table's function of the
/// same name and signature. So a function of the table may rely on:
/// - all pointers, axes, shapes, dtypes and scalars being as backend.h says; every dimension is at least 1;
///   a layout, where there is one, is this backend's own, and only tensors of four axes have one;
/// - on host backends, indices and targets being in range (device backends check them in their kernels);
/// - outputs that are always plain having storage: vectors, matrices, scalars, and everything of to_plain, gather_*,
///   concat_*, split_*, global_avg_pool, bn_stats, bn_backward_sums, bn_combine, fold_rows, gemm, linear*, l2_*, row_*, layer_norm*, softmax*,
///   attention*, cross_entropy*, path_loss*, make_views, nearest_rows, top_rows, sum_*;
/// - recipes of views being possible: images within `pixels`, crops within images, jitter without repetition;
/// - image outputs (cast, to_layout_of, to_blocked, add, mul, conv2d.y, conv2d_backward_data.dx, max_pool.y,
///   max_pool_backward.dx, global_avg_pool_backward.dx, bn_apply.y, bn_backward_apply.dx and .dresidual, act.y,
///   act_backward.dx) either having plain storage of the right shape and dtype, or being {0}: then the function
///   allocates. A backend with `has_layouts` false never sees {0}: every output has plain storage, and so has
///   max_pool.workspace (i32, the shape of y);
/// - bn_backward_apply.dx possibly being the same tensor as dy.
/// A function writes outputs on success only and keeps no reference. On failure the caller resets what was allocated.
///
/// A function pointer that is NULL: a host backend falls back to `ref` (inputs and outputs become plain, logged once), another one
/// answers HIRL_ERR_UNSUPPORTED. These may not be NULL in a backend with layouts: to_plain, to_layout_of, to_blocked, fill, axpby,
/// cast, act and bn_backward_apply; and max_pool and max_pool_backward go together, because their workspace is private. For the sake of the
/// fallback, functions of `ref` use `be` for nothing but hirl_backend_tensor and hirl_backend_allocator_view.
#ifndef HIRL_BACKEND_OPS_H
#define HIRL_BACKEND_OPS_H

#include "hirl/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hirl_backend_ops hirl_backend_ops_t;

/// The head of every layout record; a backend embeds it as the first member of its own.
struct hirl_layout {
    const void *owner; // the state of the backend that made it, which tells foreign layouts apart
    char name[48];     // "nChw16c", for messages
};

struct hirl_segments {
    const hirl_backend_t *be;
    int64_t n, end; // end: elements that a slab must have at least
    hirl_segment_t *segment;
    hirl_tensor_t packed; // a device backend's own form of them, u8
    int64_t n_pieces;     // likewise, for its use
};

enum { HIRL_N_MARKS = 4 };

struct hirl_backend_ops {
    const char *name;
    bool
        is_host; // tensors live in host memory: the dispatch may look at indices, copy, and fall back to `ref`
    bool has_layouts; // makes tensors with opaque layouts
    bool has_f16;     // images and activations may be f16

    /// Makes the backend's state. *allocator_p lives as long as the state.
    hirl_status_t (*open)(const hirl_backend_options_t *options, void **ctx_p,
                          const hirl_allocator_t **allocator_p);
    /// Waits, then frees the state. All tensors must have been reset.
    void (*close)(void *ctx);
    /// One line of facts, valid as long as the state.
    const char *(*info_view)(const void *ctx);
    size_t (*memory_used)(const void *ctx);
    size_t (*memory_peak)(const void *ctx);
    /// Devices that this process sees; NULL: one.
    int (*n_devices)(void);
    /// NULL on host backends.
    const char *(*device_id_view)(const void *ctx);
    void *(*stream_view)(const void *ctx);
    const hirl_allocator_t *(*host_allocator_view)(const void *ctx);

    /// NULL on host backends: memcpy, and nothing to wait for.
    hirl_status_t (*upload)(hirl_backend_t *be, const void *host, const hirl_tensor_t *tensor);
    hirl_status_t (*download)(hirl_backend_t *be, const hirl_tensor_t *tensor, void *host);
    hirl_status_t (*synchronize)(hirl_backend_t *be);
    /// See hirl_upload_t; all or none. The state is the backend's own.
    hirl_status_t (*upload_create)(hirl_backend_t *be, void **state_p);
    void (*upload_destroy)(hirl_backend_t *be, void *state);
    hirl_status_t (*upload_begin)(hirl_backend_t *be, void *state, const void *host,
                                  const hirl_tensor_t *tensor);
    hirl_status_t (*upload_end)(hirl_backend_t *be, void *state);
    hirl_status_t (*upload_release)(hirl_backend_t *be, void *state);
    /// See hirl_backend_weights_begin; both or none.
    hirl_status_t (*weights_begin)(hirl_backend_t *be, const hirl_tensor_t *const *slab, int n);
    void (*weights_end)(hirl_backend_t *be);
    /// See hirl_graph_t; all or none. *allocator_p: the backend's from here on.
    hirl_status_t (*capture_begin)(hirl_backend_t *be, const hirl_allocator_t **allocator_p);
    hirl_status_t (*capture_end)(hirl_backend_t *be, const hirl_allocator_t **allocator_p,
                                 void **graph_p);
    hirl_status_t (*graph_launch)(hirl_backend_t *be, void *graph);
    void (*graph_destroy)(hirl_backend_t *be, void *graph);
    /// NULL where operations are done when they return.
    hirl_status_t (*mark)(hirl_backend_t *be, int mark);
    hirl_status_t (*mark_seconds)(hirl_backend_t *be, int from, int to, double *seconds_p);

    hirl_status_t (*to_plain)(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                              hirl_tensor_t *y);
    hirl_status_t (*cast)(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                          hirl_tensor_t *y);
    hirl_status_t (*to_layout_of)(hirl_backend_t *be, const hirl_tensor_t *x,
                                  const hirl_tensor_t *like, hirl_tensor_t *y);
    hirl_status_t (*to_blocked)(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y);
    hirl_status_t (*fill)(hirl_backend_t *be, float value, hirl_tensor_t *x);
    hirl_status_t (*axpby)(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                           hirl_tensor_t *y);
    hirl_status_t (*add)(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                         hirl_tensor_t *y);
    hirl_status_t (*mul)(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                         hirl_tensor_t *y);
    hirl_status_t (*gather_rows)(hirl_backend_t *be, const hirl_tensor_t *x,
                                 const hirl_tensor_t *index, hirl_tensor_t *y);
    hirl_status_t (*gather_rows_backward)(hirl_backend_t *be, const hirl_tensor_t *dy,
                                          const hirl_tensor_t *index, bool accumulate,
                                          hirl_tensor_t *dx);
    hirl_status_t (*concat_columns)(hirl_backend_t *be, const hirl_tensor_t *x1,
                                    const hirl_tensor_t *x2, hirl_tensor_t *y);
    hirl_status_t (*split_columns)(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                   hirl_tensor_t *x1,
                                   hirl_tensor_t *x2); // x1 or x2 may be NULL

    hirl_status_t (*conv2d)(hirl_backend_t *be, const hirl_conv_param_t *p, const hirl_tensor_t *x,
                            const hirl_tensor_t *w, const hirl_tensor_t *bias, hirl_tensor_t *y);
    hirl_status_t (*conv2d_backward_data)(hirl_backend_t *be, const hirl_conv_param_t *p,
                                          const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                          const hirl_shape_t *x_shape, hirl_tensor_t *dx);
    hirl_status_t (*conv2d_backward_weights)(hirl_backend_t *be, const hirl_conv_param_t *p,
                                             const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                             bool accumulate, hirl_tensor_t *dw,
                                             hirl_tensor_t *dbias);
    hirl_status_t (*max_pool)(hirl_backend_t *be, const hirl_pool_param_t *p,
                              const hirl_tensor_t *x, hirl_tensor_t *y, hirl_tensor_t *workspace);
    hirl_status_t (*max_pool_backward)(hirl_backend_t *be, const hirl_pool_param_t *p,
                                       const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                       const hirl_shape_t *x_shape, hirl_tensor_t *dx);
    hirl_status_t (*global_avg_pool)(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y);
    hirl_status_t (*global_avg_pool_backward)(hirl_backend_t *be, const hirl_tensor_t *dy,
                                              const hirl_tensor_t *like, hirl_tensor_t *dx);

    hirl_status_t (*bn_stats)(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                              hirl_tensor_t *mean, hirl_tensor_t *var);
    hirl_status_t (*bn_apply)(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                              const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                              const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                              const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y);
    hirl_status_t (*bn_backward_sums)(hirl_backend_t *be, const hirl_tensor_t *dy,
                                      const hirl_tensor_t *y, const hirl_tensor_t *x,
                                      int64_t n_groups, const hirl_tensor_t *mean,
                                      const hirl_tensor_t *var, float eps, hirl_tensor_t *sum_dz,
                                      hirl_tensor_t *sum_dz_xhat);
    hirl_status_t (*bn_backward_apply)(hirl_backend_t *be, const hirl_tensor_t *dy,
                                       const hirl_tensor_t *y, const hirl_tensor_t *x,
                                       int64_t n_groups, const hirl_tensor_t *mean,
                                       const hirl_tensor_t *var, float eps,
                                       const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz,
                                       const hirl_tensor_t *mean_dz_xhat, hirl_tensor_t *dx,
                                       hirl_tensor_t *dresidual); // dresidual may be NULL

    hirl_status_t (*bn_combine)(hirl_backend_t *be, const hirl_tensor_t *parts, hirl_tensor_t *mean,
                                hirl_tensor_t *var);
    hirl_status_t (*fold_rows)(hirl_backend_t *be, float scale, const hirl_tensor_t *x, float keep,
                               hirl_tensor_t *y);

    hirl_status_t (*gemm)(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                          const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                          hirl_tensor_t *c); // beta 0: c may hold anything, NaN too
    hirl_status_t (*linear)(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                            const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                            hirl_tensor_t *pre); // pre is NULL unless act is GELU; bias may be NULL
    hirl_status_t (*linear_backward)(hirl_backend_t *be, const hirl_tensor_t *dy,
                                     const hirl_tensor_t *x, const hirl_tensor_t *w,
                                     bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw,
                                     hirl_tensor_t *dbias);
    hirl_status_t (*act)(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                         hirl_tensor_t *y);
    hirl_status_t (*act_backward)(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *saved,
                                  const hirl_tensor_t *dy, hirl_tensor_t *dx);
    hirl_status_t (*l2_normalize)(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                                  hirl_tensor_t *norm);
    hirl_status_t (*l2_normalize_backward)(hirl_backend_t *be, const hirl_tensor_t *y,
                                           const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                           hirl_tensor_t *dx);
    hirl_status_t (*row_dot)(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                             hirl_tensor_t *y);
    hirl_status_t (*row_scale)(hirl_backend_t *be, const hirl_tensor_t *s, const hirl_tensor_t *x,
                               bool accumulate, hirl_tensor_t *y);
    hirl_status_t (*layer_norm)(hirl_backend_t *be, const hirl_tensor_t *x,
                                const hirl_tensor_t *gamma, const hirl_tensor_t *beta, float eps,
                                hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd);
    hirl_status_t (*layer_norm_backward)(hirl_backend_t *be, const hirl_tensor_t *dy,
                                         const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                         const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                         bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dgamma,
                                         hirl_tensor_t *dbeta); // accumulate: dgamma and dbeta
    hirl_status_t (*softmax)(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                             hirl_tensor_t *y);
    hirl_status_t (*softmax_backward)(hirl_backend_t *be, const hirl_tensor_t *y,
                                      const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx);
    hirl_status_t (*attention)(hirl_backend_t *be, const hirl_attention_param_t *p,
                               const hirl_tensor_t *q, const hirl_tensor_t *k,
                               const hirl_tensor_t *v, const hirl_tensor_t *bias,
                               const hirl_tensor_t *mask, hirl_tensor_t *y, hirl_tensor_t *lse);
    hirl_status_t (*attention_backward)(hirl_backend_t *be, const hirl_attention_param_t *p,
                                        const hirl_tensor_t *q, const hirl_tensor_t *k,
                                        const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                        const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                        const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                        hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                        hirl_tensor_t *dbias);

    hirl_status_t (*dropout)(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                             hirl_tensor_t *y);
    hirl_status_t (*drop_path)(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                               const hirl_tensor_t *residual, hirl_tensor_t *y); // residual: NULL

    hirl_status_t (*cross_entropy)(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                   const hirl_tensor_t *target, hirl_tensor_t *loss,
                                   hirl_tensor_t *lse,
                                   hirl_tensor_t *correct); // correct may be NULL
    hirl_status_t (*cross_entropy_backward)(hirl_backend_t *be, const hirl_tensor_t *logits,
                                            float scale, const hirl_tensor_t *target,
                                            const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                            hirl_tensor_t *dlogits);
    hirl_status_t (*path_loss)(hirl_backend_t *be, int n_levels,
                               const hirl_tensor_t *const *similarity,
                               const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                               hirl_tensor_t *loss, hirl_tensor_t *terms); // terms may be NULL
    hirl_status_t (*path_loss_backward)(hirl_backend_t *be, int n_levels,
                                        const hirl_tensor_t *const *similarity,
                                        const hirl_tensor_t *positive,
                                        const hirl_tensor_t *negative, const hirl_tensor_t *dloss,
                                        hirl_tensor_t *const *dsimilarity);

    hirl_status_t (*make_views)(hirl_backend_t *be, const hirl_tensor_t *pixels,
                                const hirl_view_recipe_t *recipes, int64_t n, int size,
                                int channels, const float *mean, const float *std,
                                hirl_tensor_t *y);

    /// NULL on host backends: makes segments->packed of segments->segment.
    hirl_status_t (*pack_segments)(hirl_backend_t *be, hirl_segments_t *segments);
    hirl_status_t (*update)(hirl_backend_t *be, const hirl_update_t *update,
                            const hirl_segments_t *segments, const hirl_tensor_t *g,
                            hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p);
    hirl_status_t (*ema)(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y);
    hirl_status_t (*sum_squares_of)(hirl_backend_t *be, int n,
                                    const hirl_segments_t *const *segments,
                                    const hirl_tensor_t *const *x, double *sum_p);

    hirl_status_t (*nearest_rows)(hirl_backend_t *be, const hirl_tensor_t *x,
                                  const hirl_tensor_t *c, const hirl_tensor_t *half_norm,
                                  hirl_tensor_t *index,
                                  hirl_tensor_t *value); // value may be NULL
    hirl_status_t (*top_rows)(hirl_backend_t *be, const hirl_tensor_t *query,
                              const hirl_tensor_t *bank, int64_t k, int64_t piece,
                              hirl_tensor_t *score, hirl_tensor_t *index);
    hirl_status_t (*sum_rows)(hirl_backend_t *be, const hirl_tensor_t *x,
                              const hirl_tensor_t *index, double scale, bool accumulate,
                              hirl_tensor_t *sum, hirl_tensor_t *count);
    hirl_status_t (*sum_distances)(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *index, const hirl_tensor_t *c, double scale,
                                   bool accumulate, hirl_tensor_t *total);
};

/// The state that the table's `open` made.
void *hirl_backend_ctx(const hirl_backend_t *be);

/// Height or width of a convolution's or pooling's output; 0 if the kernel is larger than the padded input.
static inline int64_t hirl_window_output(int64_t size, int kernel, int stride, int pad) {
    const int64_t span = size + 2 * (int64_t)pad - kernel;
    return span < 0 ? 0 : span / stride + 1;
}

/// What a segment's update by momentum multiplies: v = momentum v + inner (g' + weight_decay p), p -= outer v.
typedef struct hirl_rates {
    double inner, outer, weight_decay;
} hirl_rates_t;
/// |p| and |g'|, or for LARS_JOINT |g' + wd p|, where the rule wants them.
static inline hirl_rates_t hirl_update_rates(const hirl_update_t *u, const hirl_segment_t *s,
                                             double norm_p, double norm_g) {
    const bool has_rate = u->rule != HIRL_RULE_SGD && s->is_adapted && norm_p != 0 && norm_g != 0;
    const double rest =
        u->rule == HIRL_RULE_LARS_JOINT ? 0 : (double)s->weight_decay * norm_p + (double)u->eps;
    const double rate = has_rate ? (double)u->trust * norm_p / (norm_g + rest) : 1.0;
    hirl_rates_t rates = {rate, (double)u->lr, (double)s->weight_decay};
    if (u->rule == HIRL_RULE_LARC && s->is_adapted && !has_rate) rates.weight_decay = 0;
    if (u->rule == HIRL_RULE_LARS) {
        rates.inner *= (double)u->lr;
        rates.outer = 1;
    }
    return rates;
}

/// Numbers below this are dropped: p * 2^32, rounded up. What is kept is multiplied by the scale, 1 / (1 - p).
static inline uint32_t hirl_drop_threshold(float p) {
    const double exact = (double)p * 4294967296.0;
    const uint32_t low = (uint32_t)exact;
    return low < exact ? low + 1 : low;
}
static inline float hirl_drop_scale(float p) { return (float)(1.0 / (1.0 - (double)p)); }

/// The plain host loops; serves every parity test and the fallback of host backends.
extern const hirl_backend_ops_t hirl_backend_ops_ref;
/// oneDNN and OpenMP.
extern const hirl_backend_ops_t hirl_backend_ops_cpu;
/// CUDA; in builds with CUDA=1 alone.
extern const hirl_backend_ops_t hirl_backend_ops_cuda;

#ifdef __cplusplus
}
#endif
#endif
