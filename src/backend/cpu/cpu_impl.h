/// What the files of the cpu backend share. Only cpu_dnnl.c knows oneDNN; the other files see layouts and primitives.
/// Own kernels treat an image as slabs (cpu_slabs.h) and vectors (cpu_vector.h).
#ifndef HIRL_CPU_IMPL_H
#define HIRL_CPU_IMPL_H

#include "hirl/backend_ops.h"

typedef struct cpu_dnnl cpu_dnnl_t;

typedef struct cpu_ctx {
    hirl_pool_t *pool;
    const hirl_allocator_t *allocator; // of the pool
    int n_threads;
    cpu_dnnl_t *dnnl;
    char info[256];
} cpu_ctx_t;

static inline cpu_ctx_t *cpu_ctx(const hirl_backend_t *be) { return hirl_backend_ctx(be); }

// ---------------------------------------------------------------------------------------------- layouts

/// A memory layout of an image or of convolution weights; interned in cpu_dnnl.c. An image tensor carries `head`, or NULL if
/// is_plain.
typedef struct cpu_layout {
    hirl_layout_t head;
    hirl_dtype_t dtype;
    size_t bytes;  // with padding
    bool is_plain; // [N, H, W, C] row-major
    int lanes; // 8 or 16: [N][C / lanes][H][W][lanes], zeros in the channels beyond C; 0: plain, or of no known form
} cpu_layout_t;

static inline const cpu_layout_t *cpu_layout_view(const hirl_tensor_t *x) {
    return (const cpu_layout_t *)(const void *)x->layout;
}

/// The layout record of an image (4 axes), plain or not.
hirl_status_t hirl_cpu_layout_of(cpu_ctx_t *ctx, const hirl_tensor_t *x,
                                 const cpu_layout_t **layout_p);
/// Plain layout of an image of this shape.
hirl_status_t hirl_cpu_layout_plain(cpu_ctx_t *ctx, const hirl_shape_t *shape, hirl_dtype_t dtype,
                                    const cpu_layout_t **layout_p);
/// Blocks of 16 channels (8 without AVX-512).
hirl_status_t hirl_cpu_layout_blocked(cpu_ctx_t *ctx, const hirl_shape_t *shape, hirl_dtype_t dtype,
                                      const cpu_layout_t **layout_p);
/// Plain f32 convolution weights [O, I, kH, kW].
hirl_status_t hirl_cpu_layout_weights(cpu_ctx_t *ctx, const hirl_shape_t *shape,
                                      const cpu_layout_t **layout_p);
/// Same arrangement, other element type.
hirl_status_t hirl_cpu_layout_with_dtype(cpu_ctx_t *ctx, const cpu_layout_t *layout,
                                         hirl_dtype_t dtype, const cpu_layout_t **layout_p);
/// Copies elements between two layouts of the same dimensions, converting dtypes.
hirl_status_t hirl_cpu_reorder(cpu_ctx_t *ctx, const cpu_layout_t *from, const void *x,
                               const cpu_layout_t *to, void *y);

// ---------------------------------------------------------------------------------------------- tensors

/// New tensor of this shape in this layout (an image's).
hirl_status_t hirl_cpu_tensor(cpu_ctx_t *ctx, const hirl_shape_t *shape, const cpu_layout_t *layout,
                              hirl_tensor_t *y_p);
/// `x` in `layout` (its dtype may differ): another reference to x if it is so already, else a converted copy.
hirl_status_t hirl_cpu_convert(cpu_ctx_t *ctx, const hirl_tensor_t *x, const cpu_layout_t *layout,
                               hirl_tensor_t *y_p);
/// `x` arranged as `like`, which has x's shape and dtype: another reference, or a copy.
hirl_status_t hirl_cpu_convert_like(cpu_ctx_t *ctx, const hirl_tensor_t *x,
                                    const hirl_tensor_t *like, hirl_tensor_t *y_p);
/// An output for elementwise work in the arrangement of `like`, with dtype `dtype`: *work_p is a new tensor if y is {0}, a reference to y if y is given
/// and arranged alike, else a new tensor that cpu_output_end copies into y.
hirl_status_t hirl_cpu_output_begin(cpu_ctx_t *ctx, const hirl_tensor_t *like, hirl_dtype_t dtype,
                                    const hirl_tensor_t *y, hirl_tensor_t *work_p);
/// Same with a layout.
hirl_status_t hirl_cpu_output_begin_in(cpu_ctx_t *ctx, const hirl_shape_t *shape,
                                       const cpu_layout_t *layout, const hirl_tensor_t *y,
                                       hirl_tensor_t *work_p);
/// Hands *work to y (or copies it there) if status is HIRL_OK, and drops it. Returns status, or why the copy failed.
hirl_status_t hirl_cpu_output_end(cpu_ctx_t *ctx, hirl_status_t status, hirl_tensor_t *work,
                                  hirl_tensor_t *y);
/// The same for a result that may be computed in another dtype than it is given out in (`dtype`): then it becomes plain.
hirl_status_t hirl_cpu_result_begin(cpu_ctx_t *ctx, const hirl_shape_t *shape,
                                    const cpu_layout_t *layout, hirl_dtype_t dtype,
                                    const hirl_tensor_t *y, hirl_tensor_t *work_p);
hirl_status_t hirl_cpu_result_end(cpu_ctx_t *ctx, hirl_status_t status, hirl_dtype_t dtype,
                                  hirl_tensor_t *work, hirl_tensor_t *y);
/// Elements in memory, padding included.
int64_t hirl_cpu_stored_count(const hirl_tensor_t *x);
/// Working memory from the pool; cpu_scratch_free takes what it gave.
hirl_status_t hirl_cpu_scratch(cpu_ctx_t *ctx, size_t bytes, void **data_p);
void hirl_cpu_scratch_free(cpu_ctx_t *ctx, size_t bytes, void *data);

// ---------------------------------------------------------------------------------------------- oneDNN

hirl_status_t hirl_cpu_dnnl_create(const hirl_allocator_t *allocator, cpu_dnnl_t **dnnl_p);
void hirl_cpu_dnnl_destroy(cpu_dnnl_t **dnnl);
/// "oneDNN 2.6.3, avx512_core_amx".
void hirl_cpu_dnnl_describe(char *buf, size_t size);

/// Whether oneDNN multiplies bf16 on this processor.
bool hirl_cpu_has_bf16(const cpu_ctx_t *ctx);

/// An operation of oneDNN for one set of shapes, created once and kept.
typedef struct cpu_primitive {
    const cpu_layout_t *src, *weights,
        *dst; // as it wants them; of the gradients in backward operations; NULL: not an image
    size_t workspace_bytes; // max pooling
} cpu_primitive_t;

typedef enum cpu_conv_kind {
    CPU_CONV_FORWARD,
    CPU_CONV_BACKWARD_DATA,
    CPU_CONV_BACKWARD_WEIGHTS
} cpu_conv_kind_t;
/// x [N, H, W, I], w [O, I, kH, kW], y [N, OH, OW, O].
hirl_status_t hirl_cpu_conv_primitive(cpu_ctx_t *ctx, cpu_conv_kind_t kind,
                                      const hirl_conv_param_t *p, const hirl_shape_t *x,
                                      const hirl_shape_t *w, const hirl_shape_t *y,
                                      hirl_dtype_t dtype, bool has_bias,
                                      const cpu_primitive_t **primitive_p);
/// All arguments lie in the primitive's layouts; bias may be NULL.
hirl_status_t hirl_cpu_conv_run(cpu_ctx_t *ctx, const cpu_primitive_t *primitive, void *src,
                                void *weights, const float *bias, void *dst);

/// Max pooling in the layout of x; its backward (`is_backward`) reads the same workspace. Without workspace (inference): has_workspace false.
hirl_status_t hirl_cpu_pool_primitive(cpu_ctx_t *ctx, bool is_backward, bool has_workspace,
                                      const hirl_pool_param_t *p, const cpu_layout_t *x_layout,
                                      const hirl_shape_t *y, const cpu_primitive_t **primitive_p);
hirl_status_t hirl_cpu_pool_run(cpu_ctx_t *ctx, const cpu_primitive_t *primitive, void *src,
                                void *dst, void *workspace);

/// c [m, n] = op(a) op(b), row-major. f32: alpha and beta as in BLAS. bf16 inputs (beta 0, alpha 1): c f32 or bf16.
hirl_status_t hirl_cpu_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                             float alpha, const float *a, const float *b, float beta, float *c);
/// The same of matrices whose rows, as they are stored, begin so many elements after each other. One thread where it is called by several.
hirl_status_t hirl_cpu_sgemm_rows(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                                  float alpha, const float *a, int64_t a_row, const float *b,
                                  int64_t b_row, float beta, float *c, int64_t c_row);
hirl_status_t hirl_cpu_matmul_bf16(cpu_ctx_t *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n,
                                   int64_t k, const void *a, const void *b, hirl_dtype_t c_dtype,
                                   void *c);

// ---------------------------------------------------------------------------------------------- operations, one file per family

#define CPU_OP(name, ...) hirl_status_t hirl_##name##_cpu(hirl_backend_t *be, __VA_ARGS__)
CPU_OP(to_plain, const hirl_tensor_t *x, hirl_dtype_t dtype, hirl_tensor_t *y);
CPU_OP(cast, const hirl_tensor_t *x, hirl_dtype_t dtype, hirl_tensor_t *y);
CPU_OP(to_layout_of, const hirl_tensor_t *x, const hirl_tensor_t *like, hirl_tensor_t *y);
CPU_OP(to_blocked, const hirl_tensor_t *x, hirl_tensor_t *y);
CPU_OP(fill, float value, hirl_tensor_t *x);
CPU_OP(axpby, float a, const hirl_tensor_t *x, float b, hirl_tensor_t *y);
CPU_OP(add, const hirl_tensor_t *x1, const hirl_tensor_t *x2, hirl_tensor_t *y);
CPU_OP(mul, const hirl_tensor_t *x1, const hirl_tensor_t *x2, hirl_tensor_t *y);
CPU_OP(act, hirl_act_t act, const hirl_tensor_t *x, hirl_tensor_t *y);
CPU_OP(act_backward, hirl_act_t act, const hirl_tensor_t *saved, const hirl_tensor_t *dy,
       hirl_tensor_t *dx);

CPU_OP(gather_rows, const hirl_tensor_t *x, const hirl_tensor_t *index, hirl_tensor_t *y);
CPU_OP(gather_rows_backward, const hirl_tensor_t *dy, const hirl_tensor_t *index, bool accumulate,
       hirl_tensor_t *dx);
CPU_OP(concat_columns, const hirl_tensor_t *x1, const hirl_tensor_t *x2, hirl_tensor_t *y);
CPU_OP(split_columns, const hirl_tensor_t *y, int64_t n_first, hirl_tensor_t *x1,
       hirl_tensor_t *x2);
CPU_OP(l2_normalize, const hirl_tensor_t *x, hirl_tensor_t *y, hirl_tensor_t *norm);
CPU_OP(l2_normalize_backward, const hirl_tensor_t *y, const hirl_tensor_t *norm,
       const hirl_tensor_t *dy, hirl_tensor_t *dx);
CPU_OP(row_dot, const hirl_tensor_t *x1, const hirl_tensor_t *x2, hirl_tensor_t *y);
CPU_OP(row_scale, const hirl_tensor_t *s, const hirl_tensor_t *x, bool accumulate,
       hirl_tensor_t *y);
CPU_OP(layer_norm, const hirl_tensor_t *x, const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
       float eps, hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd);
CPU_OP(layer_norm_backward, const hirl_tensor_t *dy, const hirl_tensor_t *x,
       const hirl_tensor_t *gamma, const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
       bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dgamma, hirl_tensor_t *dbeta);
CPU_OP(softmax, const hirl_tensor_t *x, float scale, hirl_tensor_t *y);
CPU_OP(softmax_backward, const hirl_tensor_t *y, const hirl_tensor_t *dy, float scale,
       hirl_tensor_t *dx);

CPU_OP(attention, const hirl_attention_param_t *p, const hirl_tensor_t *q, const hirl_tensor_t *k,
       const hirl_tensor_t *v, const hirl_tensor_t *bias, const hirl_tensor_t *mask,
       hirl_tensor_t *y, hirl_tensor_t *lse);
CPU_OP(attention_backward, const hirl_attention_param_t *p, const hirl_tensor_t *q,
       const hirl_tensor_t *k, const hirl_tensor_t *v, const hirl_tensor_t *bias,
       const hirl_tensor_t *mask, const hirl_tensor_t *y, const hirl_tensor_t *lse,
       const hirl_tensor_t *dy, hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
       hirl_tensor_t *dbias);

CPU_OP(conv2d, const hirl_conv_param_t *p, const hirl_tensor_t *x, const hirl_tensor_t *w,
       const hirl_tensor_t *bias, hirl_tensor_t *y);
CPU_OP(conv2d_backward_data, const hirl_conv_param_t *p, const hirl_tensor_t *dy,
       const hirl_tensor_t *w, const hirl_shape_t *x_shape, hirl_tensor_t *dx);
CPU_OP(conv2d_backward_weights, const hirl_conv_param_t *p, const hirl_tensor_t *x,
       const hirl_tensor_t *dy, bool accumulate, hirl_tensor_t *dw, hirl_tensor_t *dbias);
CPU_OP(max_pool, const hirl_pool_param_t *p, const hirl_tensor_t *x, hirl_tensor_t *y,
       hirl_tensor_t *workspace);
CPU_OP(max_pool_backward, const hirl_pool_param_t *p, const hirl_tensor_t *dy,
       const hirl_tensor_t *workspace, const hirl_shape_t *x_shape, hirl_tensor_t *dx);
CPU_OP(global_avg_pool, const hirl_tensor_t *x, hirl_tensor_t *y);
CPU_OP(global_avg_pool_backward, const hirl_tensor_t *dy, const hirl_tensor_t *like,
       hirl_tensor_t *dx);

CPU_OP(bn_combine, const hirl_tensor_t *parts, hirl_tensor_t *mean, hirl_tensor_t *var);
CPU_OP(fold_rows, float scale, const hirl_tensor_t *x, float keep, hirl_tensor_t *y);
CPU_OP(bn_stats, const hirl_tensor_t *x, int64_t n_groups, hirl_tensor_t *mean, hirl_tensor_t *var);
CPU_OP(bn_apply, const hirl_tensor_t *x, int64_t n_groups, const hirl_tensor_t *mean,
       const hirl_tensor_t *var, float eps, const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
       const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y);
CPU_OP(bn_backward_sums, const hirl_tensor_t *dy, const hirl_tensor_t *y, const hirl_tensor_t *x,
       int64_t n_groups, const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
       hirl_tensor_t *sum_dz, hirl_tensor_t *sum_dz_xhat);
CPU_OP(bn_backward_apply, const hirl_tensor_t *dy, const hirl_tensor_t *y, const hirl_tensor_t *x,
       int64_t n_groups, const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
       const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz, const hirl_tensor_t *mean_dz_xhat,
       hirl_tensor_t *dx, hirl_tensor_t *dresidual);
/// sum [C] (+)= the sum of x over all axes but the channels'; in double, in an order that does not depend on the threads.
hirl_status_t hirl_cpu_channel_sums(cpu_ctx_t *ctx, const hirl_tensor_t *x, bool accumulate,
                                    float *sum);

CPU_OP(gemm, bool trans_a, bool trans_b, float alpha, const hirl_tensor_t *a,
       const hirl_tensor_t *b, float beta, hirl_tensor_t *c);
CPU_OP(linear, const hirl_tensor_t *x, const hirl_tensor_t *w, const hirl_tensor_t *bias,
       hirl_act_t act, hirl_tensor_t *y, hirl_tensor_t *pre);
CPU_OP(linear_backward, const hirl_tensor_t *dy, const hirl_tensor_t *x, const hirl_tensor_t *w,
       bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw, hirl_tensor_t *dbias);

CPU_OP(dropout, const hirl_drop_t *drop, const hirl_tensor_t *x, hirl_tensor_t *y);
CPU_OP(drop_path, const hirl_drop_t *drop, const hirl_tensor_t *x, const hirl_tensor_t *residual,
       hirl_tensor_t *y);
CPU_OP(cross_entropy, const hirl_tensor_t *logits, float scale, const hirl_tensor_t *target,
       hirl_tensor_t *loss, hirl_tensor_t *lse, hirl_tensor_t *correct);
CPU_OP(cross_entropy_backward, const hirl_tensor_t *logits, float scale,
       const hirl_tensor_t *target, const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
       hirl_tensor_t *dlogits);
CPU_OP(path_loss, int n_levels, const hirl_tensor_t *const *similarity,
       const hirl_tensor_t *positive, const hirl_tensor_t *negative, hirl_tensor_t *loss,
       hirl_tensor_t *terms);
CPU_OP(path_loss_backward, int n_levels, const hirl_tensor_t *const *similarity,
       const hirl_tensor_t *positive, const hirl_tensor_t *negative, const hirl_tensor_t *dloss,
       hirl_tensor_t *const *dsimilarity);

CPU_OP(update, const hirl_update_t *update, const hirl_segments_t *segments, const hirl_tensor_t *g,
       hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p);
CPU_OP(ema, float m, const hirl_tensor_t *x, hirl_tensor_t *y);
CPU_OP(sum_squares_of, int n, const hirl_segments_t *const *segments, const hirl_tensor_t *const *x,
       double *sum_p);

#endif
