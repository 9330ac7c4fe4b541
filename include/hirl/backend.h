/// @file backend.h
/// A compute backend as everyone above src/backend sees it: choose one by name, move data, run operations.
///
/// Conventions of every operation below:
/// - Images are [N, H, W, C], convolution weights [O, I, kH, kW], matrices [rows, columns]; all in the backend's memory.
/// - An output parameter `hirl_tensor_t *y` that is "no tensor" ({0}) is allocated by the operation, which sets shape, dtype and
///   layout as it likes; one that holds storage must be plain, have the right shape and dtype, and is written to.
///   "In place" outputs are documented as such.
/// - Image inputs may have any layout of this backend; vectors, matrices and parameters are plain. Mixed layouts are converted inside.
/// - Image and activation tensors are f32, bf16 or, where hirl_backend_has_dtype says so, f16; parameters, statistics, losses and parameter gradients are f32; indices are i32.
/// - bf16 and f16 inputs are multiplied as they are, with weights rounded alike and f32 accumulation. An output has the dtype of the first input unless it says otherwise.
/// - `accumulate` adds to the output instead of overwriting it.
/// Not collective. Errors: HIRL_ERR_ARG (shapes, dtypes), HIRL_ERR_MEMORY, HIRL_ERR_DNNL / HIRL_ERR_CUDA, HIRL_ERR_UNSUPPORTED.
#ifndef HIRL_BACKEND_H
#define HIRL_BACKEND_H

#include "hirl/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hirl_backend hirl_backend_t;

typedef struct hirl_backend_options {
    int n_threads; // OpenMP threads of this rank (cpu); 0 for OpenMP's default
    int device;    // 0..n_devices-1 (cuda)
    bool
        is_deterministic; // only algorithms that give the same bits every time (cuda; cpu always does)
    bool has_tf32;        // f32 products may be rounded to TF32 (cuda)
} hirl_backend_options_t;

/// Opens 'ref', 'cpu', 'cuda' or 'auto' (the best one built in that has a device). `options` may be NULL: all zero.
hirl_status_t hirl_backend_open(const char *name, const hirl_backend_options_t *options,
                                hirl_backend_t **backend_p);
/// The same with nothing but a number of threads.
hirl_status_t hirl_backend_create(const char *name, int n_threads, hirl_backend_t **backend_p);
/// Devices that this process sees for the backend that hirl_backend_open(name) would take: 1 for host backends, 0 where a backend of
/// devices has none or is not built in.
int hirl_backend_n_devices(const char *name);
void hirl_backend_destroy(hirl_backend_t **backend);
const char *hirl_backend_name(const hirl_backend_t *backend);
/// Whether images and activations may have this dtype: f32 and bf16 everywhere, f16 not on `cpu`, whose kernels have none.
bool hirl_backend_has_dtype(const hirl_backend_t *backend, hirl_dtype_t dtype);
/// One line of facts: library version, instruction set, threads. Valid as long as the backend.
const char *hirl_backend_info_view(const hirl_backend_t *backend);
/// What tells this backend's device from every other of the node, as text; "" for host backends. Valid as long as the backend.
const char *hirl_backend_device_id_view(const hirl_backend_t *backend);
/// The stream that all operations of a device backend go to, for communication in order with them (hirl_par_device_create); NULL for
/// host backends.
void *hirl_backend_stream_view(const hirl_backend_t *backend);
/// The backend's caching pool, for tensors that outlive an operation.
const hirl_allocator_t *hirl_backend_allocator_view(const hirl_backend_t *backend);
/// Host memory that uploads read as it is (pinned); NULL for host backends, which any memory serves. May be used from any thread, until the
/// backend is destroyed. An upload from there may go on after hirl_backend_upload has returned: what it reads must stay until the
/// backend has been waited for, by hirl_backend_synchronize or a download.
const hirl_allocator_t *hirl_backend_host_allocator_view(const hirl_backend_t *backend);
size_t hirl_backend_memory_used(const hirl_backend_t *backend);
size_t hirl_backend_memory_peak(const hirl_backend_t *backend);
/// Names of the backends built in, and how many.
const char *const *hirl_backend_names(int *n_p);

// ---------------------------------------------------------------------------------------------- moving data

/// Plain tensor of the backend's memory, not cleared.
hirl_status_t hirl_backend_tensor(hirl_backend_t *be, hirl_shape_t shape, hirl_dtype_t dtype,
                                  hirl_tensor_t *tensor_p);
/// Host to backend and back, same dtype, plain, hirl_tensor_count elements.
hirl_status_t hirl_backend_upload(hirl_backend_t *be, const void *host,
                                  const hirl_tensor_t *tensor);
/// Seconds that the calling thread has spent in uploads since the backend was opened; copies that go on after the call are not in it.
double hirl_backend_upload_seconds(const hirl_backend_t *be);
hirl_status_t hirl_backend_download(hirl_backend_t *be, const hirl_tensor_t *tensor, void *host);
/// Waits until everything asked so far is done.
hirl_status_t hirl_backend_synchronize(hirl_backend_t *be);

/// Uploads that run beside the operations, into memory that is read for a while and then written again: begin (once for each tensor),
/// end, operations that read them, release, begin ... Devices only: host backends answer HIRL_ERR_UNSUPPORTED.
typedef struct hirl_upload hirl_upload_t;
/// `be` is borrowed.
hirl_status_t hirl_upload_create(hirl_backend_t *be, hirl_upload_t **upload_p);
/// Waits for copies under way. Tensors must live until then.
void hirl_upload_destroy(hirl_upload_t **upload);
/// Begins a copy to a plain tensor, which starts when all is done that was asked for before the last release. From memory of
/// hirl_backend_host_allocator_view the host does not wait, and the source must stay until the copy is done: until something asked
/// for after the end has been waited for, or the upload is destroyed.
hirl_status_t hirl_upload_begin(hirl_upload_t *upload, const void *host,
                                const hirl_tensor_t *tensor);
/// Operations asked for from here on come after the copies; the host does not wait.
hirl_status_t hirl_upload_end(hirl_upload_t *upload);
/// No operation that is asked for from here on, until the next end, reads the tensors. To be called before the first begin, too, and
/// whenever a tensor got other memory.
hirl_status_t hirl_upload_release(hirl_upload_t *upload);

/// Between these, what lies in slab[0..n) (plain f32, parameters) does not change, and the backend may keep what its operations make of them
/// (rounded to 16 bits, in another order) for those that follow: at most 4 bytes for each weight that is used. Not nested. Errors:
/// HIRL_ERR_ARG (begun twice, more than 16 slabs).
hirl_status_t hirl_backend_weights_begin(hirl_backend_t *be, const hirl_tensor_t *const *slab,
                                         int n);
void hirl_backend_weights_end(hirl_backend_t *be); // also where nothing was begun

/// Operations with their arguments, recorded once and asked for again as one piece (a CUDA graph). They read and write the memory that
/// they were recorded with, whatever it holds when the graph runs.
typedef struct hirl_graph hirl_graph_t;
/// False where nothing can be recorded: host backends.
bool hirl_backend_can_capture(const hirl_backend_t *be);
/// Until the end, operations are recorded and not run; tensors that they make lie in memory that only graphs use, and must all be reset
/// before the end. What needs the host fails with HIRL_ERR_UNSUPPORTED: uploads, downloads, synchronize, sums to the host, make_views.
/// Waits for what was asked for, and gives cached memory back to the device.
hirl_status_t hirl_backend_capture_begin(hirl_backend_t *be);
/// Ends the recording. graph_p NULL: it is dropped, as after a failure, which leaves nothing behind. `be` must outlive the graph. Errors: what
/// could not be recorded; tensors from before the recording that were reset in it, or tensors of the recording that were not.
hirl_status_t hirl_backend_capture_end(hirl_backend_t *be, hirl_graph_t **graph_p);
/// Asks for what was recorded. Graphs of a backend share memory, so that tensors of a recording hold nothing once another graph ran.
hirl_status_t hirl_graph_launch(hirl_graph_t *graph);
/// Waits for the operations.
void hirl_graph_destroy(hirl_graph_t **graph);

/// Puts mark 0..3 between the operations asked for before and after it, wherever it was before; for times that operations take.
hirl_status_t hirl_backend_mark(hirl_backend_t *be, int mark);
/// Seconds from one mark to a later one, after a wait for that.
hirl_status_t hirl_backend_mark_seconds(hirl_backend_t *be, int from, int to, double *seconds_p);

/// Plain copy of `x` with dtype `dtype` (f32, bf16, f16): layout and dtype conversion.
hirl_status_t hirl_op_to_plain(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                               hirl_tensor_t *y);
/// dtype conversion that keeps the layout.
hirl_status_t hirl_op_cast(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                           hirl_tensor_t *y);
/// x in the layout of `like` (same shape and dtype as x).
hirl_status_t hirl_op_to_layout_of(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *like, hirl_tensor_t *y);
/// x in the opaque layout that the backend's convolutions prefer for this shape (a plain copy where there is none); used by layout tests.
hirl_status_t hirl_op_to_blocked(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y);
/// x[:] = value; plain or opaque.
hirl_status_t hirl_op_fill(hirl_backend_t *be, float value, hirl_tensor_t *x);
/// y = a x + b y in place; same shape; f32/bf16/f16 (arithmetic in f32); layouts may differ; x may be y. b = 0 overwrites y, whatever it held (NaN too).
hirl_status_t hirl_op_axpby(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                            hirl_tensor_t *y);
/// y = x1 + x2 / y = x1 * x2 (same shapes).
hirl_status_t hirl_op_add(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                          hirl_tensor_t *y);
hirl_status_t hirl_op_mul(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                          hirl_tensor_t *y);
/// Rows index[0..n) of x [R, ...] -> y [n, ...]; f32. Backward: dx[index[i]] += dy[i] in order of i (deterministic); dx is cleared first unless accumulate.
hirl_status_t hirl_op_gather_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                                  const hirl_tensor_t *index, hirl_tensor_t *y);
hirl_status_t hirl_op_gather_rows_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                           const hirl_tensor_t *index, bool accumulate,
                                           hirl_tensor_t *dx);
/// [x1 | x2] along the last axis of matrices; f32. split: the inverse (outputs may be NULL).
hirl_status_t hirl_op_concat_columns(hirl_backend_t *be, const hirl_tensor_t *x1,
                                     const hirl_tensor_t *x2, hirl_tensor_t *y);
hirl_status_t hirl_op_split_columns(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                    hirl_tensor_t *x1, hirl_tensor_t *x2);

// ---------------------------------------------------------------------------------------------- convolution, pooling

typedef struct hirl_conv_param {
    int stride_h, stride_w, pad_h, pad_w;
} hirl_conv_param_t;

/// y = conv(x, w) (+ bias [O], may be NULL).
hirl_status_t hirl_op_conv2d(hirl_backend_t *be, const hirl_conv_param_t *p, const hirl_tensor_t *x,
                             const hirl_tensor_t *w, const hirl_tensor_t *bias, hirl_tensor_t *y);
/// dx [x_shape] from dy and w; dtype of dy.
hirl_status_t hirl_op_conv2d_backward_data(hirl_backend_t *be, const hirl_conv_param_t *p,
                                           const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                           const hirl_shape_t *x_shape, hirl_tensor_t *dx);
/// dw (f32, plain, given), dbias (f32 [O], may be NULL).
hirl_status_t hirl_op_conv2d_backward_weights(hirl_backend_t *be, const hirl_conv_param_t *p,
                                              const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                              bool accumulate, hirl_tensor_t *dw,
                                              hirl_tensor_t *dbias);

typedef struct hirl_pool_param {
    int kernel, stride, pad;
} hirl_pool_param_t;
/// Max pooling (padding never wins). `workspace` (allocated by the forward, opaque) says which element won; NULL when no backward follows.
hirl_status_t hirl_op_max_pool(hirl_backend_t *be, const hirl_pool_param_t *p,
                               const hirl_tensor_t *x, hirl_tensor_t *y, hirl_tensor_t *workspace);
hirl_status_t hirl_op_max_pool_backward(hirl_backend_t *be, const hirl_pool_param_t *p,
                                        const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                        const hirl_shape_t *x_shape, hirl_tensor_t *dx);
/// Mean over H and W: x [N, H, W, C] -> y [N, C], f32 plain. Backward: dx has layout, shape and dtype of `like` (the forward's x).
hirl_status_t hirl_op_global_avg_pool(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y);
hirl_status_t hirl_op_global_avg_pool_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                               const hirl_tensor_t *like, hirl_tensor_t *dx);

// ---------------------------------------------------------------------------------------------- batch norm
// x is [N, H, W, C] or [N, C]; groups are N / n_groups consecutive samples each. Statistics are f32 [n_groups, C].
// Communication between ranks (SyncBN) happens between the calls, in the caller.

/// mean and biased variance of each group and channel (no cancellation: shifted or two-pass sums).
hirl_status_t hirl_op_bn_stats(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                               hirl_tensor_t *mean, hirl_tensor_t *var);
/// y = act( (x - mean) / sqrt(var + eps) * gamma + beta (+ residual) ); gamma, beta [C] may be NULL (no affine); residual may be NULL, same shape as x; relu or not.
/// With n_groups 1 and running statistics this is inference.
hirl_status_t hirl_op_bn_apply(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                               const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                               const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                               const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y);
/// With dz = dy where y > 0 (or dy without relu; y may then be NULL): sum_dz and sum_dz_xhat [n_groups, C], xhat = (x - mean) / sqrt(var + eps).
hirl_status_t hirl_op_bn_backward_sums(hirl_backend_t *be, const hirl_tensor_t *dy,
                                       const hirl_tensor_t *y, const hirl_tensor_t *x,
                                       int64_t n_groups, const hirl_tensor_t *mean,
                                       const hirl_tensor_t *var, float eps, hirl_tensor_t *sum_dz,
                                       hirl_tensor_t *sum_dz_xhat);
/// dx = gamma / sqrt(var + eps) * ( dz - mean_dz - xhat * mean_dz_xhat ), where mean_* [n_groups, C] are the sums divided by the samples x pixels of the (global) group;
/// both NULL: statistics were constants (inference). dresidual = dz (NULL if there was no residual). dx may be "in place" of dy: pass dx = dy's tensor with same layout.
hirl_status_t hirl_op_bn_backward_apply(hirl_backend_t *be, const hirl_tensor_t *dy,
                                        const hirl_tensor_t *y, const hirl_tensor_t *x,
                                        int64_t n_groups, const hirl_tensor_t *mean,
                                        const hirl_tensor_t *var, float eps,
                                        const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz,
                                        const hirl_tensor_t *mean_dz_xhat, hirl_tensor_t *dx,
                                        hirl_tensor_t *dresidual);

/// Statistics of a group from those of its equal parts, parts f32 [n_parts, 2, C] (a part's means, then its variances): mean [1, C] = average of the
/// means, var [1, C] = average of var + (part's mean - mean)^2; in double, in the order of the parts (Chan, Golub and LeVeque 1983).
hirl_status_t hirl_op_bn_combine(hirl_backend_t *be, const hirl_tensor_t *parts,
                                 hirl_tensor_t *mean, hirl_tensor_t *var);
/// y [C] = keep y + scale * sum over the rows of x [R, C], in the order of the rows; keep = 0 overwrites y. y must be given.
hirl_status_t hirl_op_fold_rows(hirl_backend_t *be, float scale, const hirl_tensor_t *x, float keep,
                                hirl_tensor_t *y);

// ---------------------------------------------------------------------------------------------- matrices, activations

typedef enum hirl_act {
    HIRL_ACT_NONE,
    HIRL_ACT_RELU,
    HIRL_ACT_GELU
} hirl_act_t; // GELU: exact (erf)

/// c = alpha op(a) op(b) + beta c; op is transposition when asked. a, b both f32, bf16 or f16; c f32 when given so, else of their dtype.
hirl_status_t hirl_op_gemm(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                           const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                           hirl_tensor_t *c);
/// y [N, O] = act( x [N, I] w [O, I]^T + bias [O] ); w f32 (rounded inside for x of 16 bits); `pre` (may be NULL) receives the value before a GELU, for the backward.
hirl_status_t hirl_op_linear(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                             const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                             hirl_tensor_t *pre);
/// dx = dy w; dw (+)= dy^T x; dbias (+)= column sums of dy. dx, dw, dbias may be NULL.
hirl_status_t hirl_op_linear_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                      const hirl_tensor_t *x, const hirl_tensor_t *w,
                                      bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw,
                                      hirl_tensor_t *dbias);
/// Elementwise activation; backward takes y for RELU and x for GELU in `saved`.
hirl_status_t hirl_op_act(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                          hirl_tensor_t *y);
hirl_status_t hirl_op_act_backward(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *saved,
                                   const hirl_tensor_t *dy, hirl_tensor_t *dx);

/// y = x / max(|x|_2, 1e-12) per row; norm [N] receives max(|x|_2, 1e-12). f32.
hirl_status_t hirl_op_l2_normalize(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                                   hirl_tensor_t *norm);
/// dx = (dy - y <y, dy>) / norm; where the norm was clamped: dy / 1e-12.
hirl_status_t hirl_op_l2_normalize_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                            const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                            hirl_tensor_t *dx);
/// y [N] = <x1_n, x2_n>; f32.
hirl_status_t hirl_op_row_dot(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                              hirl_tensor_t *y);
/// y [N, D] = s [N] * x [N, D] (+ y when accumulate).
hirl_status_t hirl_op_row_scale(hirl_backend_t *be, const hirl_tensor_t *s, const hirl_tensor_t *x,
                                bool accumulate, hirl_tensor_t *y);

/// Layer norm over the last axis of x [R, C], biased variance; mean and rstd [R] are kept for the backward; gamma, beta [C].
hirl_status_t hirl_op_layer_norm(hirl_backend_t *be, const hirl_tensor_t *x,
                                 const hirl_tensor_t *gamma, const hirl_tensor_t *beta, float eps,
                                 hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd);
hirl_status_t hirl_op_layer_norm_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                          const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                          const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                          bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dgamma,
                                          hirl_tensor_t *dbeta);
/// Row-wise softmax of scale * x, f32.
hirl_status_t hirl_op_softmax(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                              hirl_tensor_t *y);
hirl_status_t hirl_op_softmax_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                       const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx);

// ---------------------------------------------------------------------------------------------- random masks
// A mask is not kept: it is a function of its draw alone, the same bits on every backend, and on any number of ranks and threads. The backward draws it again.

/// What a mask depends on. Sample b of a batch has the stream hirl_rng_make(seed, HIRL_RNG_DROPOUT, step, index[b], site); a number of
/// hirl_rng_u32 keeps what it stands for if it is not below p * 2^32. Kernels read seed, step and indices from the device, so a
/// recorded sequence of kernels can be run again for another step.
typedef struct hirl_drop {
    float p;       // share that is dropped, 0 <= p < 1
    uint32_t site; // which of a step's draws: each layer, branch and view has its own
    const hirl_tensor_t *counter; // i64 [2]: seed, step; the same from the forward to the backward
    const hirl_tensor_t *index;   // i64 [B]: global indices of the batch's samples; likewise
} hirl_drop_t;

/// Dropout (Srivastava et al. 2014): y = x / (1 - p) where kept, else 0. x, y [R, ...], R a multiple of B: the rows are B samples of
/// R / B rows each, and element i of a sample has number i of its stream. y may be x. The gradient is the same of dy.
hirl_status_t hirl_op_dropout(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                              hirl_tensor_t *y);
/// Drop path (Huang et al. 2016, stochastic depth): y = residual + x / (1 - p) in one rounding for samples that are kept, else residual; number 0
/// of a sample's stream decides. Shapes as of dropout; residual may be NULL (0), and of a dropped sample x is not read. y may be
/// x or residual. The gradient of x is the same of dy without residual, that of residual is dy.
hirl_status_t hirl_op_drop_path(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                                const hirl_tensor_t *residual, hirl_tensor_t *y);

// ---------------------------------------------------------------------------------------------- attention

/// n_batch problems (samples, windows) of n_heads heads of head_size columns: a multiple of 8 in 16..128. A tensor has one stride, so slices of
/// packed matrices are said by their first columns, multiples of 8: in the output [B N, 3 H D] of a q|k|v product these are 0, H D and 2 H D,
/// and the one tensor is given as q, as k and as v.
typedef struct hirl_attention_param {
    int64_t n_batch, n_heads, head_size; // B, H, D
    int64_t q_column, k_column,
        v_column; // where head 0 begins in the rows of q, k and v; head h follows h D columns later
    float scale;
} hirl_attention_param_t;

/// Multi-head attention (Vaswani et al. 2017, eq. 1): with s_ij = scale <q_i, k_j> + bias[h, i, j] + mask[b mod W, i, j], per problem b and head h,
/// y_i = sum_j exp(s_ij - lse_i) v_j, lse_i = log sum_j exp(s_ij). q: matrix of B Nq rows, k and v: of B Nk rows, all of one dtype, a
/// multiple of 8 columns. bias f32 [H, Nq, Nk] (relative positions) and mask f32 [W, Nq, Nk] (W divides B; -inf allowed) may be NULL.
/// y [B Nq, H D]: heads side by side; lse f32 [B, H, Nq] is all that the backward needs beside it, and may be NULL when none follows.
/// A row that is masked throughout has y = 0, lse = +inf and no gradient. Devices hold no Nq x Nk matrix (Dao et al. 2022).
hirl_status_t hirl_op_attention(hirl_backend_t *be, const hirl_attention_param_t *p,
                                const hirl_tensor_t *q, const hirl_tensor_t *k,
                                const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                const hirl_tensor_t *mask, hirl_tensor_t *y, hirl_tensor_t *lse);
/// dq, dk, dv: shapes and columns of q, k, v; the same tensor may be given for those that are slices of one, if these do not overlap. Each may
/// be NULL. Columns outside the slices stay as they are in a given tensor and are 0 in a new one. dbias f32 [H, Nq, Nk] is the sum over
/// the problems in an order that depends on shapes alone; may be NULL.
hirl_status_t hirl_op_attention_backward(hirl_backend_t *be, const hirl_attention_param_t *p,
                                         const hirl_tensor_t *q, const hirl_tensor_t *k,
                                         const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                         const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                         const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                         hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                         hirl_tensor_t *dbias);

// ---------------------------------------------------------------------------------------------- losses

/// Cross entropy of softmax(scale * logits [N, K]) against target i32 [N]: loss [1] = mean over rows; lse [N] (of scaled logits) is kept;
/// correct [1], may be NULL: fraction of rows whose largest logit is the target's (ties count as wrong).
hirl_status_t hirl_op_cross_entropy(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                    const hirl_tensor_t *target, hirl_tensor_t *loss,
                                    hirl_tensor_t *lse, hirl_tensor_t *correct);
/// dlogits = dloss[0] * scale / N * (softmax - onehot); dloss f32 [1].
hirl_status_t hirl_op_cross_entropy_backward(hirl_backend_t *be, const hirl_tensor_t *logits,
                                             float scale, const hirl_tensor_t *target,
                                             const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                             hirl_tensor_t *dlogits);

enum { HIRL_PATH_MAX_LEVELS = 8 };
/// Semantic path discrimination loss (HIRL, Xu et al. 2022, eq. 3-5). similarity[l] f32 [B, K_l] = <s_l[n], C_l[k]>; positive i32 [B, L]; negative i32 [B, M, L].
/// P = prod_l (1 + u_l) / 2; a negative path that equals the positive one is left out; loss [1] = mean_n (-log(P+ + 1e-6) + mean over kept negatives of -log(1 - P- + 1e-6)) / 2.
/// terms [2], may be NULL: the positive and the negative half before the factor 1/2.
hirl_status_t hirl_op_path_loss(hirl_backend_t *be, int n_levels,
                                const hirl_tensor_t *const *similarity,
                                const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                hirl_tensor_t *loss, hirl_tensor_t *terms);
/// dsimilarity[l] (each {0} or given) = dloss[0] * d loss / d similarity[l].
hirl_status_t hirl_op_path_loss_backward(hirl_backend_t *be, int n_levels,
                                         const hirl_tensor_t *const *similarity,
                                         const hirl_tensor_t *positive,
                                         const hirl_tensor_t *negative, const hirl_tensor_t *dloss,
                                         hirl_tensor_t *const *dsimilarity);

// ---------------------------------------------------------------------------------------------- augmented views

/// Pillow's resampling filters: antialiased where an image is resized, interpolating where it is turned or sheared.
typedef enum hirl_filter {
    HIRL_FILTER_BILINEAR,
    HIRL_FILTER_BICUBIC,
    HIRL_FILTER_LANCZOS, // resizing only
    HIRL_FILTER_NEAREST  // turning and shearing only
} hirl_filter_t;

/// Colour jitter.
typedef enum hirl_jitter {
    HIRL_JITTER_BRIGHTNESS,
    HIRL_JITTER_CONTRAST,
    HIRL_JITTER_SATURATION,
    HIRL_JITTER_HUE,
    HIRL_N_JITTER
} hirl_jitter_t;

/// Operations on a view of 8 bits, as Pillow has them. Of a view of one channel, saturation, hue and grey change nothing.
typedef enum hirl_view_op_kind {
    HIRL_VIEW_BRIGHTNESS = HIRL_JITTER_BRIGHTNESS, // ImageEnhance: factor `value`
    HIRL_VIEW_CONTRAST = HIRL_JITTER_CONTRAST,
    HIRL_VIEW_SATURATION = HIRL_JITTER_SATURATION,
    HIRL_VIEW_HUE = HIRL_JITTER_HUE, // turned by `value` turns, through 8-bit HSV
    HIRL_VIEW_GRAY,
    HIRL_VIEW_INVERT,
    HIRL_VIEW_POSTERIZE,    // `n` of 0..8 bits stay
    HIRL_VIEW_SOLARIZE,     // values from `n` of 0..256 on are inverted
    HIRL_VIEW_SOLARIZE_ADD, // `n` of 0..255 is added to values below 128
    HIRL_VIEW_AUTOCONTRAST, // each channel is stretched to the whole range
    HIRL_VIEW_EQUALIZE,     // each channel's histogram
    HIRL_VIEW_SHARPNESS,    // ImageEnhance: factor `value`; nothing below 3 x 3 pixels
    HIRL_VIEW_TURN,         // about the centre, counter-clockwise; cosine and sine of the angle
    HIRL_VIEW_SHEAR_X,      // pixel (x, y) shows (x + value y, y); `value` within -+ 2
    HIRL_VIEW_SHEAR_Y,
    HIRL_VIEW_MOVE_X, // pixel (x, y) shows (x + value, y); `value` within -+ 16384 pixels
    HIRL_VIEW_MOVE_Y,
    HIRL_VIEW_N_KINDS
} hirl_view_op_kind_t;

typedef struct hirl_view_op {
    int16_t kind;          // hirl_view_op_kind_t
    uint8_t filter;        // turning, shearing, moving: hirl_filter_t
    uint8_t is_mean_shown; // these too: beyond the edges lies 255 mean, rounded; else black
    int32_t n;
    double value, sine; // sine: of turning
} hirl_view_op_t;

enum { HIRL_VIEW_SIDE_MAX = 8192, HIRL_VIEW_IMAGE_SIDE_MAX = 65500, HIRL_VIEW_MAX_OPS = 20 };

/// How one view is made from a decoded image u8 [height, width, channels], rows dense, that begins at byte `offset`. In this order:
typedef struct hirl_view_recipe {
    int64_t offset;
    int32_t height, width;
    int32_t top, left, crop_height, crop_width; // the part of the image that is resized
    int32_t resized_height, resized_width;      // to this; 0: to the view's size
    int32_t window_y, window_x; // first pixel of the view in it, then; beyond it lies black
    int32_t filter;             // hirl_filter_t of the resize
    int32_t n_ops;
    bool is_flipped; // the window, left to right
    hirl_view_op_t op[HIRL_VIEW_MAX_OPS];
    bool has_blur, is_solarized; // GaussianBlur, then values from 128 on inverted
    double blur_sigma;           // 0..1000 pixels
    double shift[3];             // added to (value / 255) of each channel before normalisation
    // random erasing of the normalised view: a rectangle of normal numbers; none: no height
    int32_t erase_top, erase_left, erase_height, erase_width;
    hirl_rng_t noise; // fresh; the rectangle shows its numbers (hirl_rng_normals) row by row
} hirl_view_recipe_t;

/// y f32 [n, size, size, channels]: one view a recipe. All up to solarising is rounded to 8 bits as torchvision and timm do on PIL images;
/// then (value / 255 + shift - mean) / std as value * scale + offset with scale = 1 / (255 std) and offset = -mean / std rounded to f32, to
/// which shift / std rounded to f32 is added. `pixels` u8 [bytes] holds the images; `recipes` [n], `mean` and `std`
/// [channels] are the host's. Channels are 1 or 3. All backends give the same bits.
hirl_status_t hirl_op_make_views(hirl_backend_t *be, const hirl_tensor_t *pixels,
                                 const hirl_view_recipe_t *recipes, int64_t n, int size,
                                 int channels, const float *mean, const float *std,
                                 hirl_tensor_t *y);

// ---------------------------------------------------------------------------------------------- parameter updates (f32 slabs, in place)

/// A parameter, or neighbours that are treated alike: elements [first, first + count) of a slab.
typedef struct hirl_segment {
    int64_t first, count;
    int64_t lag; // AdamW: steps of the update that it was not part of
    float weight_decay;
    bool is_adapted; // LARS: has a rate of its own
} hirl_segment_t;

/// A list of segments, also where the backend's kernels find it, so that one launch serves all of them.
typedef struct hirl_segments hirl_segments_t;
/// `segment` [n] is copied; rising, without overlap. It may be used with `be` alone, and destroyed as soon as the work is asked for.
hirl_status_t hirl_segments_create(hirl_backend_t *be, const hirl_segment_t *segment, int64_t n,
                                   hirl_segments_t **segments_p);
void hirl_segments_destroy(hirl_segments_t **segments);

/// With g' = grad_scale g and, per segment, its weight decay wd:
/// - SGD (PyTorch's): d = g' + wd p; v = momentum v + d; p -= lr (nesterov ? d + momentum v : v).
/// - AdamW (Loshchilov and Hutter 2019, PyTorch's): p -= lr wd p; moments v and w; bias correction for the segment's step, the update's (1-based)
///   less its lag; p -= lr vhat / (sqrt(what) + eps).
/// - LARS (You et al. 2017, algorithm 1; MMSelfSup's): d = r lr (g' + wd p) with r = trust |p| / (|g'| + wd |p| + eps), norms of the segment;
///   v = momentum v + d; p -= nesterov ? d + momentum v : v.
/// - LARC (apex's without clipping; SwAV's): the same r, but lr where SGD has it: d = r (g' + wd p), and v, p as SGD's; where a norm is 0,
///   d = g'.
/// - LARS_JOINT (MoCo v3's and MAE's probe): as LARC with r = trust |p| / |g' + wd p|.
/// r is 1 where a norm is 0 and in segments that are not adapted.
typedef enum hirl_rule {
    HIRL_RULE_SGD,
    HIRL_RULE_ADAMW,
    HIRL_RULE_LARS,
    HIRL_RULE_LARC,
    HIRL_RULE_LARS_JOINT
} hirl_rule_t;

typedef struct hirl_update {
    hirl_rule_t rule;
    float lr, grad_scale;
    float momentum, trust; // SGD and LARS; LARS
    float beta1, beta2;    // AdamW
    float eps;             // AdamW, LARS, LARC
    int64_t step;          // AdamW
    bool is_nesterov;      // SGD and LARS
} hirl_update_t;

/// Updates p in all segments; other elements stay. g, v, w, p are equally long plain slabs; w is NULL but for AdamW. Norms stay on the device: nothing
/// waits for anything.
hirl_status_t hirl_op_update(hirl_backend_t *be, const hirl_update_t *update,
                             const hirl_segments_t *segments, const hirl_tensor_t *g,
                             hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p);
/// y = m y + (1 - m) x.
hirl_status_t hirl_op_ema(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y);
/// Sum of squares in double (fixed order), to the host.
hirl_status_t hirl_op_sum_squares(hirl_backend_t *be, const hirl_tensor_t *x, double *sum_p);
/// The same of the elements in segments[i] of slab x[i], i = 0..n-1, with one transfer to the host. segments[i] may be NULL: none.
hirl_status_t hirl_op_sum_squares_of(hirl_backend_t *be, int n,
                                     const hirl_segments_t *const *segments,
                                     const hirl_tensor_t *const *x, double *sum_p);

// ---------------------------------------------------------------------------------------------- clusters and neighbours
// For devices; a host has faster ways of its own (cluster.h), whose results these have bit for bit. A product of two rows is one chain of fused
// multiply-adds in single precision over the columns, in their order, from zero. Rows are finite.

/// index i32 [n] = the row j of c [k, D] with the least half_norm[j] - <x_i, c_j>, the lowest of equal ones; value [n], may be NULL:
/// that number. x [n, D]; half_norm [k] f32, +inf allowed for rows that are never nearest.
hirl_status_t hirl_op_nearest_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *c, const hirl_tensor_t *half_norm,
                                   hirl_tensor_t *index, hirl_tensor_t *value);
/// score f32, index i32 [n, k]: the k largest products of each query [n, D] with rows of bank [m, D], falling; the lower index first of equal
/// ones (-0 counts, and is given, as 0). `piece`: bank rows that are taken at once, 0: as many as fit a working memory of 256 MiB.
hirl_status_t hirl_op_top_rows(hirl_backend_t *be, const hirl_tensor_t *query,
                               const hirl_tensor_t *bank, int64_t k, int64_t piece,
                               hirl_tensor_t *score, hirl_tensor_t *index);
/// In fixed point: sum i64 [k, D] = for each j the sum of round(scale * x_i) over the rows of x [n, D] with index i32 [n] j, ties to even;
/// count i64 [k] = how many those are. Both given. scale: a power of two with |scale * x| <= 2^51.
hirl_status_t hirl_op_sum_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                               const hirl_tensor_t *index, double scale, bool accumulate,
                               hirl_tensor_t *sum, hirl_tensor_t *count);
/// total i64 [1], given, = the sum of round(scale * |x_i - c_index[i]|^2); distances in double, eight partial sums over the columns
/// (j modulo 8), added as ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)).
hirl_status_t hirl_op_sum_distances(hirl_backend_t *be, const hirl_tensor_t *x,
                                    const hirl_tensor_t *index, const hirl_tensor_t *c,
                                    double scale, bool accumulate, hirl_tensor_t *total);

#ifdef __cplusplus
}
#endif
#endif
