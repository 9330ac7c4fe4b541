// The reference backend: its table, conversions and elementwise operations. Plain tensors in pooled host memory.

#include "ref_impl.h"

static hirl_status_t ref_open(const hirl_backend_options_t *options, void **ctx_p,
                              const hirl_allocator_t **allocator_p) {
    hirl_pool_t *pool = NULL;
    (void)options;
    HIRL_TRY(hirl_pool_create_host(&pool));
    *ctx_p = pool;
    *allocator_p = hirl_pool_allocator_view(pool);
    return HIRL_OK;
}

static void ref_close(void *ctx) {
    hirl_pool_t *pool = ctx;
    hirl_pool_destroy(&pool);
}

static const char *ref_info_view(const void *ctx) {
    (void)ctx;
    return "ref: plain C loops, one thread, sums in double";
}

static size_t ref_memory_used(const void *ctx) { return hirl_pool_used(ctx); }
static size_t ref_memory_peak(const void *ctx) { return hirl_pool_peak(ctx); }

// ---------------------------------------------------------------------------------------------- conversions

static hirl_status_t copy_elements(const hirl_tensor_t *x, hirl_tensor_t *y) {
    for (int64_t i = 0; i < hirl_tensor_count(x); ++i) set(y, i, get(x, i));
    return HIRL_OK;
}

static hirl_status_t ref_to_plain(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                                  hirl_tensor_t *y) {
    (void)be;
    (void)dtype;
    return copy_elements(x, y);
}

static hirl_status_t ref_to_layout_of(hirl_backend_t *be, const hirl_tensor_t *x,
                                      const hirl_tensor_t *like, hirl_tensor_t *y) {
    (void)be;
    (void)like;
    return copy_elements(x, y);
}

static hirl_status_t ref_to_blocked(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y) {
    (void)be;
    return copy_elements(x, y);
}

static hirl_status_t ref_fill(hirl_backend_t *be, float value, hirl_tensor_t *x) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(x); ++i) set(x, i, value);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- elementwise

static hirl_status_t ref_axpby(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                               hirl_tensor_t *y) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(x); ++i)
        set(y, i, (double)a * get(x, i) + (b != 0 ? (double)b * get(y, i) : 0.0));
    return HIRL_OK;
}

static hirl_status_t ref_add(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                             hirl_tensor_t *y) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(y); ++i) set(y, i, get(x1, i) + get(x2, i));
    return HIRL_OK;
}

static hirl_status_t ref_mul(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                             hirl_tensor_t *y) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(y); ++i) set(y, i, get(x1, i) * get(x2, i));
    return HIRL_OK;
}

static hirl_status_t ref_act(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                             hirl_tensor_t *y) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(x); ++i) set(y, i, activate(act, get(x, i)));
    return HIRL_OK;
}

static hirl_status_t ref_act_backward(hirl_backend_t *be, hirl_act_t act,
                                      const hirl_tensor_t *saved, const hirl_tensor_t *dy,
                                      hirl_tensor_t *dx) {
    (void)be;
    for (int64_t i = 0; i < hirl_tensor_count(dy); ++i) {
        double s = get(saved, i), slope = act == HIRL_ACT_RELU   ? s > 0
                                          : act == HIRL_ACT_GELU ? gelu_slope(s)
                                                                 : 1.0;
        set(dx, i, slope != 0 ? get(dy, i) * slope : 0.0);
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- rows and columns

static int64_t row_size(const hirl_tensor_t *x) { return hirl_tensor_count(x) / x->shape.dim[0]; }

static hirl_status_t ref_gather_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                                     const hirl_tensor_t *index, hirl_tensor_t *y) {
    int64_t row = row_size(x);
    (void)be;
    for (int64_t at = 0; at < hirl_tensor_count(y); ++at)
        set(y, at, get(x, get_i32(index)[at / row] * row + at % row));
    return HIRL_OK;
}

static hirl_status_t ref_gather_rows_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                              const hirl_tensor_t *index, bool accumulate,
                                              hirl_tensor_t *dx) {
    int64_t row = row_size(dy);
    (void)be;
    for (int64_t at = 0; !accumulate && at < hirl_tensor_count(dx); ++at) set(dx, at, 0);
    for (int64_t at = 0; at < hirl_tensor_count(dy); ++at)
        put(dx, get_i32(index)[at / row] * row + at % row, true, get(dy, at));
    return HIRL_OK;
}

static hirl_status_t ref_concat_columns(hirl_backend_t *be, const hirl_tensor_t *x1,
                                        const hirl_tensor_t *x2, hirl_tensor_t *y) {
    int64_t a = last_axis(x1), b = last_axis(x2);
    (void)be;
    for (int64_t r = 0; r < y->shape.dim[0]; ++r) {
        for (int64_t i = 0; i < a; ++i) set(y, r * (a + b) + i, get(x1, r * a + i));
        for (int64_t i = 0; i < b; ++i) set(y, r * (a + b) + a + i, get(x2, r * b + i));
    }
    return HIRL_OK;
}

static hirl_status_t ref_split_columns(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                       hirl_tensor_t *x1, hirl_tensor_t *x2) {
    int64_t width = last_axis(y), b = width - n_first;
    (void)be;
    for (int64_t r = 0; r < y->shape.dim[0]; ++r) {
        for (int64_t i = 0; x1 && i < n_first; ++i) set(x1, r * n_first + i, get(y, r * width + i));
        for (int64_t i = 0; x2 && i < b; ++i) set(x2, r * b + i, get(y, r * width + n_first + i));
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- table

const hirl_backend_ops_t hirl_backend_ops_ref = {
    .name = "ref",
    .is_host = true,
    .has_layouts = false,
    .has_f16 = true,
    .open = ref_open,
    .close = ref_close,
    .info_view = ref_info_view,
    .memory_used = ref_memory_used,
    .memory_peak = ref_memory_peak,
    .to_plain = ref_to_plain,
    .cast = ref_to_plain,
    .to_layout_of = ref_to_layout_of,
    .to_blocked = ref_to_blocked,
    .fill = ref_fill,
    .axpby = ref_axpby,
    .add = ref_add,
    .mul = ref_mul,
    .gather_rows = ref_gather_rows,
    .gather_rows_backward = ref_gather_rows_backward,
    .concat_columns = ref_concat_columns,
    .split_columns = ref_split_columns,
    .conv2d = ref_conv2d,
    .conv2d_backward_data = ref_conv2d_backward_data,
    .conv2d_backward_weights = ref_conv2d_backward_weights,
    .max_pool = ref_max_pool,
    .max_pool_backward = ref_max_pool_backward,
    .global_avg_pool = ref_global_avg_pool,
    .global_avg_pool_backward = ref_global_avg_pool_backward,
    .bn_combine = ref_bn_combine,
    .fold_rows = ref_fold_rows,
    .bn_stats = ref_bn_stats,
    .bn_apply = ref_bn_apply,
    .bn_backward_sums = ref_bn_backward_sums,
    .bn_backward_apply = ref_bn_backward_apply,
    .gemm = ref_gemm,
    .linear = ref_linear,
    .linear_backward = ref_linear_backward,
    .act = ref_act,
    .act_backward = ref_act_backward,
    .l2_normalize = ref_l2_normalize,
    .l2_normalize_backward = ref_l2_normalize_backward,
    .row_dot = ref_row_dot,
    .row_scale = ref_row_scale,
    .layer_norm = ref_layer_norm,
    .layer_norm_backward = ref_layer_norm_backward,
    .softmax = ref_softmax,
    .softmax_backward = ref_softmax_backward,
    .dropout = ref_dropout,
    .drop_path = ref_drop_path,
    .attention = ref_attention,
    .attention_backward = ref_attention_backward,
    .cross_entropy = ref_cross_entropy,
    .cross_entropy_backward = ref_cross_entropy_backward,
    .path_loss = ref_path_loss,
    .path_loss_backward = ref_path_loss_backward,
    .make_views = ref_make_views,
    .update = ref_update,
    .ema = ref_ema,
    .sum_squares_of = ref_sum_squares_of,
    .nearest_rows = ref_nearest_rows,
    .top_rows = ref_top_rows,
    .sum_rows = ref_sum_rows,
    .sum_distances = ref_sum_distances,
};
