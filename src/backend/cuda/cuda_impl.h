/// What the files of the cuda backend share: its state, error wrappers, working memory, and the functions of its table.
/// Images are plain [N, H, W, C] here, which is what cuDNN calls NHWC: there are no opaque layouts. All work goes to one compute
/// stream, in order; a function returns when the work is asked for. Memory that is given back is used again in stream
/// order. What kernels found wrong with their input (hirl_k_fault_t) is told at the next download or synchronize.
#ifndef HIRL_CUDA_IMPL_H
#define HIRL_CUDA_IMPL_H

#include "hirl/backend_ops.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include "kernels/kernels.h"

typedef struct cuda_plans cuda_plans_t;     // of cuBLASLt and cuDNN, by shape
typedef struct cuda_staging cuda_staging_t; // pinned memory on the way to the device
typedef struct cuda_weights cuda_weights_t; // forms of parameters

typedef struct cuda_ctx {
    hirl_pool_t *pool;                 // caching; gives blocks again in stream order
    hirl_pool_t *graph_pool;           // of what graphs recorded; NULL until the first
    const hirl_allocator_t *allocator; // of the one in use
    bool is_capturing;                 // operations are recorded, not run
    int n_graphs;
    uint64_t n_given_before; // blocks given back to the pool before the recording
    hirl_allocator_t host;   // of pinned memory
    int device;
    int n_multiprocessors;
    bool is_deterministic;          // choose only algorithms that give the same bits every time
    bool has_tf32;                  // f32 products may be rounded to TF32
    cudaStream_t stream;            // compute
    cudaStream_t copy_stream;       // of uploads beside it; NULL until the first
    cudaEvent_t mark[HIRL_N_MARKS]; // NULL: never set
    hirl_k_fault_t *fault;          // pinned host memory, which kernels reach by the same address
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;
    cuda_plans_t *plans;
    cuda_staging_t *staging;
    cuda_weights_t *weights;
    char device_id[40];
    char info[256];
} cuda_ctx_t;

static inline cuda_ctx_t *cuda_ctx(const hirl_backend_t *be) { return hirl_backend_ctx(be); }

// ---------------------------------------------------------------------------------------------- errors

hirl_status_t hirl_cuda_fail(cudaError_t code, const char *what, const char *file, int line,
                             const char *func);
hirl_status_t hirl_cuda_fail_blas(cublasStatus_t code, const char *what, const char *file, int line,
                                  const char *func);
hirl_status_t hirl_cuda_fail_dnn(cudnnStatus_t code, const char *what, const char *file, int line,
                                 const char *func);

/// Pass on a failed call of the CUDA runtime or of a launcher, of cuBLASLt, of cuDNN.
#define HIRL_TRY_CUDA(call)                                                         \
    do {                                                                            \
        const cudaError_t cuda_code_ = (call);                                      \
        if (cuda_code_ != cudaSuccess)                                              \
            return hirl_cuda_fail(cuda_code_, #call, __FILE__, __LINE__, __func__); \
    } while (0)
#define HIRL_TRY_CUDA_GOTO(call, status, label)                                         \
    do {                                                                                \
        const cudaError_t cuda_code_ = (call);                                          \
        if (cuda_code_ != cudaSuccess) {                                                \
            (status) = hirl_cuda_fail(cuda_code_, #call, __FILE__, __LINE__, __func__); \
            goto label;                                                                 \
        }                                                                               \
    } while (0)
#define HIRL_TRY_CUBLAS(call)                                                            \
    do {                                                                                 \
        const cublasStatus_t blas_code_ = (call);                                        \
        if (blas_code_ != CUBLAS_STATUS_SUCCESS)                                         \
            return hirl_cuda_fail_blas(blas_code_, #call, __FILE__, __LINE__, __func__); \
    } while (0)
#define HIRL_TRY_CUDNN(call)                                                           \
    do {                                                                               \
        const cudnnStatus_t dnn_code_ = (call);                                        \
        if (dnn_code_ != CUDNN_STATUS_SUCCESS)                                         \
            return hirl_cuda_fail_dnn(dnn_code_, #call, __FILE__, __LINE__, __func__); \
    } while (0)

// ---------------------------------------------------------------------------------------------- memory

/// Working memory from the pool, aligned to 256 bytes; scratch_free takes what it gave (NULL allowed) and may be called as soon as the
/// work that uses it is asked for.
hirl_status_t hirl_cuda_scratch(cuda_ctx_t *ctx, size_t bytes, void **data_p);
void hirl_cuda_scratch_free(cuda_ctx_t *ctx, size_t bytes, void *data);

hirl_status_t hirl_cuda_pool_create(cuda_ctx_t *ctx, hirl_pool_t **pool_p);
/// Fails with HIRL_ERR_UNSUPPORTED in a recording: `what` needs the host.
hirl_status_t hirl_cuda_capture_refuse(const cuda_ctx_t *ctx, const char *what);

hirl_status_t hirl_cuda_staging_create(cuda_staging_t **staging_p);
/// After the stream has been waited for.
void hirl_cuda_staging_destroy(cuda_staging_t **staging);
/// Copies host memory to the device, on the stream; `host` is free on return unless it is pinned. The host waits only for what is large.
hirl_status_t hirl_cuda_copy_in(cuda_ctx_t *ctx, void *to, const void *host, size_t bytes);

/// Devices that this process sees; 0 also where there is no driver.
int hirl_cuda_n_devices(void);

/// Plans of cuBLASLt and cuDNN, made once for a set of shapes and kept; opens ctx->blas and ctx->dnn (closed with the state).
hirl_status_t hirl_cuda_plans_create(cuda_ctx_t *ctx, cuda_plans_t **plans_p);
void hirl_cuda_plans_destroy(cuda_plans_t **plans);
/// The plan kept under `key` (bytes compared, so padding must be zero); NULL if there is none.
void *hirl_cuda_plans_find(const cuda_plans_t *plans, const void *key, size_t key_bytes);
/// Keeps `plan` (HIRL_OWN, freed by `destroy`) under a copy of `key`.
hirl_status_t hirl_cuda_plans_keep(cuda_plans_t *plans, const void *key, size_t key_bytes,
                                   void *plan, void (*destroy)(void *plan));

/// Weights in the form that an operation asked for.
typedef struct cuda_lent {
    void *data;
    size_t bytes; // of working memory that hirl_cuda_weights_give frees; 0: somebody else's
} cuda_lent_t;
hirl_status_t hirl_cuda_weights_create(cuda_weights_t **weights_p);
/// Before ctx->pool.
void hirl_cuda_weights_destroy(cuda_ctx_t *ctx);
/// Weights (plain f32) as numbers of `dtype`; is_packed: [O, I, kH, kW] in the order [O, kH, kW, I]. They are the weights themselves where
/// these fit, and aligned to 256 bytes where not.
hirl_status_t hirl_cuda_weights_take(cuda_ctx_t *ctx, const hirl_tensor_t *w, hirl_dtype_t dtype,
                                     bool is_packed, cuda_lent_t *lent_p);
/// As soon as the work that reads them is asked for; zeroed ones are allowed.
void hirl_cuda_weights_give(cuda_ctx_t *ctx, cuda_lent_t *lent);

/// Most working memory that one call of a library may ask for; it comes from the pool, and engines that want more are left out. cuBLAS:
/// what NVIDIA recommends for the largest of these cards (32 MiB, Hopper). cuDNN: enough for products of unfolded images,
/// little enough to leave the memory to activations.
#define HIRL_CUDA_BLAS_WORKSPACE ((size_t)32 << 20)
#define HIRL_CUDA_DNN_WORKSPACE ((size_t)2 << 30)

/// Algorithms that are timed against one another when a shape is first met, where the choice is free.
enum { HIRL_CUDA_N_TIMED = 4 };
/// Whether the choice is free: not where bits shall repeat (run%deterministic), for a timing can come out otherwise the next time, nor
/// while a graph is captured, when nothing may be waited for.
bool hirl_cuda_may_time(const cuda_ctx_t *ctx);
/// Milliseconds of one run(self) on the compute stream, as an average over a few runs after a first one that is not counted; infinite
/// if a run returns false. Waits for the stream. Runs must be repeatable.
hirl_status_t hirl_cuda_time(cuda_ctx_t *ctx, bool (*run)(void *self), void *self, float *ms_p);

/// Waits for the stream and tells what a kernel found wrong.
hirl_status_t hirl_cuda_wait(cuda_ctx_t *ctx);

/// What kernels call the dtypes of images and activations.
static inline int cuda_dtype_of(hirl_dtype_t dtype) {
    return dtype == HIRL_BF16 ? HIRL_K_BF16 : dtype == HIRL_F16 ? HIRL_K_F16 : HIRL_K_F32;
}
static inline int cuda_dtype(const hirl_tensor_t *x) { return cuda_dtype_of(x->dtype); }

// ---------------------------------------------------------------------------------------------- operations
// cuda_elementwise.c
hirl_status_t hirl_to_plain_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                                 hirl_tensor_t *y);
hirl_status_t hirl_cast_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                             hirl_tensor_t *y);
hirl_status_t hirl_to_layout_of_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                     const hirl_tensor_t *like, hirl_tensor_t *y);
hirl_status_t hirl_to_blocked_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y);
hirl_status_t hirl_fill_cuda(hirl_backend_t *be, float value, hirl_tensor_t *x);
hirl_status_t hirl_axpby_cuda(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                              hirl_tensor_t *y);
hirl_status_t hirl_add_cuda(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                            hirl_tensor_t *y);
hirl_status_t hirl_mul_cuda(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                            hirl_tensor_t *y);
hirl_status_t hirl_act_cuda(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                            hirl_tensor_t *y);
hirl_status_t hirl_act_backward_cuda(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *saved,
                                     const hirl_tensor_t *dy, hirl_tensor_t *dx);
hirl_status_t hirl_gather_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                    const hirl_tensor_t *index, hirl_tensor_t *y);
hirl_status_t hirl_gather_rows_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                             const hirl_tensor_t *index, bool accumulate,
                                             hirl_tensor_t *dx);
hirl_status_t hirl_concat_columns_cuda(hirl_backend_t *be, const hirl_tensor_t *x1,
                                       const hirl_tensor_t *x2, hirl_tensor_t *y);
hirl_status_t hirl_split_columns_cuda(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                      hirl_tensor_t *x1, hirl_tensor_t *x2);
// cuda_pool_ops.c
hirl_status_t hirl_max_pool_cuda(hirl_backend_t *be, const hirl_pool_param_t *p,
                                 const hirl_tensor_t *x, hirl_tensor_t *y,
                                 hirl_tensor_t *workspace);
hirl_status_t hirl_max_pool_backward_cuda(hirl_backend_t *be, const hirl_pool_param_t *p,
                                          const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                          const hirl_shape_t *x_shape, hirl_tensor_t *dx);
hirl_status_t hirl_global_avg_pool_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                        hirl_tensor_t *y);
hirl_status_t hirl_global_avg_pool_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                                 const hirl_tensor_t *like, hirl_tensor_t *dx);
// cuda_norm.c
hirl_status_t hirl_bn_stats_cuda(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                                 hirl_tensor_t *mean, hirl_tensor_t *var);
hirl_status_t hirl_bn_apply_cuda(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                                 const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                                 const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                                 const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y);
hirl_status_t hirl_bn_backward_sums_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                         const hirl_tensor_t *y, const hirl_tensor_t *x,
                                         int64_t n_groups, const hirl_tensor_t *mean,
                                         const hirl_tensor_t *var, float eps, hirl_tensor_t *sum_dz,
                                         hirl_tensor_t *sum_dz_xhat);
hirl_status_t hirl_bn_backward_apply_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                          const hirl_tensor_t *y, const hirl_tensor_t *x,
                                          int64_t n_groups, const hirl_tensor_t *mean,
                                          const hirl_tensor_t *var, float eps,
                                          const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz,
                                          const hirl_tensor_t *mean_dz_xhat, hirl_tensor_t *dx,
                                          hirl_tensor_t *dresidual);
hirl_status_t hirl_layer_norm_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *gamma, const hirl_tensor_t *beta, float eps,
                                   hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd);
hirl_status_t hirl_layer_norm_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                            const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                            const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                            bool accumulate, hirl_tensor_t *dx,
                                            hirl_tensor_t *dgamma, hirl_tensor_t *dbeta);
// cuda_group.c
hirl_status_t hirl_bn_combine_cuda(hirl_backend_t *be, const hirl_tensor_t *parts,
                                   hirl_tensor_t *mean, hirl_tensor_t *var);
hirl_status_t hirl_fold_rows_cuda(hirl_backend_t *be, float scale, const hirl_tensor_t *x,
                                  float keep, hirl_tensor_t *y);
// cuda_row.c
hirl_status_t hirl_l2_normalize_cuda(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                                     hirl_tensor_t *norm);
hirl_status_t hirl_l2_normalize_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *y,
                                              const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                              hirl_tensor_t *dx);
hirl_status_t hirl_row_dot_cuda(hirl_backend_t *be, const hirl_tensor_t *x1,
                                const hirl_tensor_t *x2, hirl_tensor_t *y);
hirl_status_t hirl_row_scale_cuda(hirl_backend_t *be, const hirl_tensor_t *s,
                                  const hirl_tensor_t *x, bool accumulate, hirl_tensor_t *y);
hirl_status_t hirl_softmax_cuda(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                                hirl_tensor_t *y);
hirl_status_t hirl_softmax_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *y,
                                         const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx);
// cuda_random.c
hirl_status_t hirl_dropout_cuda(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                                hirl_tensor_t *y);
hirl_status_t hirl_drop_path_cuda(hirl_backend_t *be, const hirl_drop_t *drop,
                                  const hirl_tensor_t *x, const hirl_tensor_t *residual,
                                  hirl_tensor_t *y);
// cuda_attention.c
hirl_status_t hirl_attention_cuda(hirl_backend_t *be, const hirl_attention_param_t *p,
                                  const hirl_tensor_t *q, const hirl_tensor_t *k,
                                  const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                  const hirl_tensor_t *mask, hirl_tensor_t *y, hirl_tensor_t *lse);
hirl_status_t hirl_attention_backward_cuda(hirl_backend_t *be, const hirl_attention_param_t *p,
                                           const hirl_tensor_t *q, const hirl_tensor_t *k,
                                           const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                           const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                           const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                           hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                           hirl_tensor_t *dbias);
// cuda_loss.c
hirl_status_t hirl_cross_entropy_cuda(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                      const hirl_tensor_t *target, hirl_tensor_t *loss,
                                      hirl_tensor_t *lse, hirl_tensor_t *correct);
hirl_status_t hirl_cross_entropy_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *logits,
                                               float scale, const hirl_tensor_t *target,
                                               const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                               hirl_tensor_t *dlogits);
hirl_status_t hirl_path_loss_cuda(hirl_backend_t *be, int n_levels,
                                  const hirl_tensor_t *const *similarity,
                                  const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                  hirl_tensor_t *loss, hirl_tensor_t *terms);
hirl_status_t hirl_path_loss_backward_cuda(hirl_backend_t *be, int n_levels,
                                           const hirl_tensor_t *const *similarity,
                                           const hirl_tensor_t *positive,
                                           const hirl_tensor_t *negative,
                                           const hirl_tensor_t *dloss,
                                           hirl_tensor_t *const *dsimilarity);
// cuda_optim.c
hirl_status_t hirl_pack_segments_cuda(hirl_backend_t *be, hirl_segments_t *segments);
hirl_status_t hirl_update_cuda(hirl_backend_t *be, const hirl_update_t *update,
                               const hirl_segments_t *segments, const hirl_tensor_t *g,
                               hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p);
hirl_status_t hirl_ema_cuda(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y);
hirl_status_t hirl_sum_squares_of_cuda(hirl_backend_t *be, int n,
                                       const hirl_segments_t *const *segments,
                                       const hirl_tensor_t *const *x, double *sum_p);
// cuda_matrix.c
hirl_status_t hirl_gemm_cuda(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                             const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                             hirl_tensor_t *c);
hirl_status_t hirl_linear_cuda(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                               const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                               hirl_tensor_t *pre);
hirl_status_t hirl_linear_backward_cuda(hirl_backend_t *be, const hirl_tensor_t *dy,
                                        const hirl_tensor_t *x, const hirl_tensor_t *w,
                                        bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw,
                                        hirl_tensor_t *dbias);
/// sums f32 [n_columns] (+)= column sums of x, seen as [n_rows, n_columns].
hirl_status_t hirl_cuda_column_sums(cuda_ctx_t *ctx, const hirl_tensor_t *x, int64_t n_rows,
                                    int64_t n_columns, bool accumulate, hirl_tensor_t *sums);
// cuda_augment.c
hirl_status_t hirl_make_views_cuda(hirl_backend_t *be, const hirl_tensor_t *pixels,
                                   const hirl_view_recipe_t *recipes, int64_t n, int size,
                                   int channels, const float *mean, const float *std,
                                   hirl_tensor_t *y);
// cuda_conv.c
hirl_status_t hirl_conv2d_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                               const hirl_tensor_t *x, const hirl_tensor_t *w,
                               const hirl_tensor_t *bias, hirl_tensor_t *y);
hirl_status_t hirl_conv2d_backward_data_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                                             const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                             const hirl_shape_t *x_shape, hirl_tensor_t *dx);
hirl_status_t hirl_conv2d_backward_weights_cuda(hirl_backend_t *be, const hirl_conv_param_t *p,
                                                const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                                bool accumulate, hirl_tensor_t *dw,
                                                hirl_tensor_t *dbias);
// cuda_cluster.c
hirl_status_t hirl_nearest_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                     const hirl_tensor_t *c, const hirl_tensor_t *half_norm,
                                     hirl_tensor_t *index, hirl_tensor_t *value);
hirl_status_t hirl_top_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *query,
                                 const hirl_tensor_t *bank, int64_t k, int64_t piece,
                                 hirl_tensor_t *score, hirl_tensor_t *index);
hirl_status_t hirl_sum_rows_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                 const hirl_tensor_t *index, double scale, bool accumulate,
                                 hirl_tensor_t *sum, hirl_tensor_t *count);
hirl_status_t hirl_sum_distances_cuda(hirl_backend_t *be, const hirl_tensor_t *x,
                                      const hirl_tensor_t *index, const hirl_tensor_t *c,
                                      double scale, bool accumulate, hirl_tensor_t *total);
// cuda_upload.c
hirl_status_t hirl_weights_begin_cuda(hirl_backend_t *be, const hirl_tensor_t *const *slab, int n);
void hirl_weights_end_cuda(hirl_backend_t *be);
hirl_status_t hirl_upload_cuda(hirl_backend_t *be, const void *host, const hirl_tensor_t *tensor);
hirl_status_t hirl_upload_create_cuda(hirl_backend_t *be, void **state_p);
void hirl_upload_destroy_cuda(hirl_backend_t *be, void *state);
hirl_status_t hirl_upload_begin_cuda(hirl_backend_t *be, void *state, const void *host,
                                     const hirl_tensor_t *tensor);
hirl_status_t hirl_upload_end_cuda(hirl_backend_t *be, void *state);
hirl_status_t hirl_upload_release_cuda(hirl_backend_t *be, void *state);
// cuda_graph.c
hirl_status_t hirl_capture_begin_cuda(hirl_backend_t *be, const hirl_allocator_t **allocator_p);
hirl_status_t hirl_capture_end_cuda(hirl_backend_t *be, const hirl_allocator_t **allocator_p,
                                    void **graph_p);
hirl_status_t hirl_graph_launch_cuda(hirl_backend_t *be, void *graph);
void hirl_graph_destroy_cuda(hirl_backend_t *be, void *graph);
// cuda_upload.c
hirl_status_t hirl_mark_cuda(hirl_backend_t *be, int mark);
hirl_status_t hirl_mark_seconds_cuda(hirl_backend_t *be, int from, int to, double *seconds_p);
// cuda_backend.c
hirl_status_t hirl_download_cuda(hirl_backend_t *be, const hirl_tensor_t *tensor, void *host);
hirl_status_t hirl_synchronize_cuda(hirl_backend_t *be);

#endif
