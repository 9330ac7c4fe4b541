/// The cpu backend: its state, its table, and the handling of layouts and working memory that its operations share.
#include "cpu_impl.h"

#include <omp.h>

#include <stdio.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------- state

static void cpu_close(void *state) {
    cpu_ctx_t *ctx = state;
    if (!ctx) return;
    hirl_cpu_dnnl_destroy(&ctx->dnnl);
    hirl_pool_destroy(&ctx->pool);
    hirl_mem_free(ctx);
}

static hirl_status_t cpu_open(const hirl_backend_options_t *options, void **ctx_p,
                              const hirl_allocator_t **allocator_p) {
    const int n_threads = options->n_threads;
    cpu_ctx_t *ctx = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &ctx));
    HIRL_TRY_GOTO(hirl_pool_create_host(&ctx->pool), status, err_close);
    ctx->allocator = hirl_pool_allocator_view(ctx->pool);
    ctx->n_threads = n_threads > 0 ? n_threads : omp_get_max_threads();
    // oneDNN asks OpenMP for the number of threads; it has no setting of its own.
    omp_set_num_threads(ctx->n_threads);
    HIRL_TRY_GOTO(hirl_cpu_dnnl_create(ctx->allocator, &ctx->dnnl), status, err_close);
    char library[128];
    hirl_cpu_dnnl_describe(library, sizeof library);
    snprintf(ctx->info, sizeof ctx->info, "cpu: %s, %d threads", library, ctx->n_threads);
    *ctx_p = ctx;
    *allocator_p = ctx->allocator;
    return HIRL_OK;
err_close:
    cpu_close(ctx);
    return status;
}

static const char *cpu_info_view(const void *ctx) { return ((const cpu_ctx_t *)ctx)->info; }
static size_t cpu_memory_used(const void *ctx) {
    return hirl_pool_used(((const cpu_ctx_t *)ctx)->pool);
}
static size_t cpu_memory_peak(const void *ctx) {
    return hirl_pool_peak(((const cpu_ctx_t *)ctx)->pool);
}

const hirl_backend_ops_t hirl_backend_ops_cpu = {
    .name = "cpu",
    .is_host = true,
    .has_layouts = true,
    .open = cpu_open,
    .close = cpu_close,
    .info_view = cpu_info_view,
    .memory_used = cpu_memory_used,
    .memory_peak = cpu_memory_peak,
    .to_plain = hirl_to_plain_cpu,
    .cast = hirl_cast_cpu,
    .to_layout_of = hirl_to_layout_of_cpu,
    .to_blocked = hirl_to_blocked_cpu,
    .fill = hirl_fill_cpu,
    .axpby = hirl_axpby_cpu,
    .add = hirl_add_cpu,
    .mul = hirl_mul_cpu,
    .gather_rows = hirl_gather_rows_cpu,
    .gather_rows_backward = hirl_gather_rows_backward_cpu,
    .concat_columns = hirl_concat_columns_cpu,
    .split_columns = hirl_split_columns_cpu,
    .conv2d = hirl_conv2d_cpu,
    .conv2d_backward_data = hirl_conv2d_backward_data_cpu,
    .conv2d_backward_weights = hirl_conv2d_backward_weights_cpu,
    .max_pool = hirl_max_pool_cpu,
    .max_pool_backward = hirl_max_pool_backward_cpu,
    .global_avg_pool = hirl_global_avg_pool_cpu,
    .global_avg_pool_backward = hirl_global_avg_pool_backward_cpu,
    .bn_combine = hirl_bn_combine_cpu,
    .fold_rows = hirl_fold_rows_cpu,
    .bn_stats = hirl_bn_stats_cpu,
    .bn_apply = hirl_bn_apply_cpu,
    .bn_backward_sums = hirl_bn_backward_sums_cpu,
    .bn_backward_apply = hirl_bn_backward_apply_cpu,
    .gemm = hirl_gemm_cpu,
    .linear = hirl_linear_cpu,
    .linear_backward = hirl_linear_backward_cpu,
    .act = hirl_act_cpu,
    .act_backward = hirl_act_backward_cpu,
    .l2_normalize = hirl_l2_normalize_cpu,
    .l2_normalize_backward = hirl_l2_normalize_backward_cpu,
    .row_dot = hirl_row_dot_cpu,
    .row_scale = hirl_row_scale_cpu,
    .layer_norm = hirl_layer_norm_cpu,
    .layer_norm_backward = hirl_layer_norm_backward_cpu,
    .softmax = hirl_softmax_cpu,
    .softmax_backward = hirl_softmax_backward_cpu,
    .dropout = hirl_dropout_cpu,
    .drop_path = hirl_drop_path_cpu,
    .attention = hirl_attention_cpu,
    .attention_backward = hirl_attention_backward_cpu,
    .cross_entropy = hirl_cross_entropy_cpu,
    .cross_entropy_backward = hirl_cross_entropy_backward_cpu,
    .path_loss = hirl_path_loss_cpu,
    .path_loss_backward = hirl_path_loss_backward_cpu,
    .update = hirl_update_cpu,
    .ema = hirl_ema_cpu,
    .sum_squares_of = hirl_sum_squares_of_cpu,
};

// ---------------------------------------------------------------------------------------------- working memory, layouts

hirl_status_t hirl_cpu_scratch(cpu_ctx_t *ctx, size_t bytes, void **data_p) {
    return ctx->allocator->alloc(ctx->allocator->ctx, bytes, data_p);
}

void hirl_cpu_scratch_free(cpu_ctx_t *ctx, size_t bytes, void *data) {
    if (data) ctx->allocator->free(ctx->allocator->ctx, data, bytes);
}

int64_t hirl_cpu_stored_count(const hirl_tensor_t *x) {
    return x->layout ? (int64_t)(cpu_layout_view(x)->bytes / hirl_dtype_size(x->dtype))
                     : hirl_tensor_count(x);
}

hirl_status_t hirl_cpu_tensor(cpu_ctx_t *ctx, const hirl_shape_t *shape, const cpu_layout_t *layout,
                              hirl_tensor_t *y_p) {
    if (layout->is_plain) return hirl_tensor_create(ctx->allocator, *shape, layout->dtype, y_p);
    hirl_storage_t *storage = NULL;
    HIRL_TRY(hirl_storage_create(ctx->allocator, layout->bytes, &storage));
    *y_p = (hirl_tensor_t){
        .storage = storage, .shape = *shape, .dtype = layout->dtype, .layout = &layout->head};
    return HIRL_OK;
}

hirl_status_t hirl_cpu_convert(cpu_ctx_t *ctx, const hirl_tensor_t *x, const cpu_layout_t *layout,
                               hirl_tensor_t *y_p) {
    if (x->dtype == layout->dtype && (layout->is_plain ? !x->layout : x->layout == &layout->head)) {
        *y_p = hirl_tensor_retain(x);
        return HIRL_OK;
    }
    const cpu_layout_t *from = NULL;
    HIRL_TRY(hirl_cpu_layout_of(ctx, x, &from));
    hirl_tensor_t y = {0};
    HIRL_TRY(hirl_cpu_tensor(ctx, &x->shape, layout, &y));
    const hirl_status_t status =
        hirl_cpu_reorder(ctx, from, hirl_tensor_data(x), layout, hirl_tensor_data(&y));
    if (status != HIRL_OK) {
        hirl_tensor_reset(&y);
        return status;
    }
    *y_p = y;
    return HIRL_OK;
}

hirl_status_t hirl_cpu_convert_like(cpu_ctx_t *ctx, const hirl_tensor_t *x,
                                    const hirl_tensor_t *like, hirl_tensor_t *y_p) {
    if (x->layout == like->layout) {
        *y_p = hirl_tensor_retain(x);
        return HIRL_OK;
    }
    const cpu_layout_t *layout = NULL;
    HIRL_TRY(hirl_cpu_layout_of(ctx, like, &layout));
    return hirl_cpu_convert(ctx, x, layout, y_p);
}

hirl_status_t hirl_cpu_output_begin_in(cpu_ctx_t *ctx, const hirl_shape_t *shape,
                                       const cpu_layout_t *layout, const hirl_tensor_t *y,
                                       hirl_tensor_t *work_p) {
    if (hirl_tensor_is_set(y) && (layout->is_plain ? !y->layout : y->layout == &layout->head)) {
        *work_p = hirl_tensor_retain(y);
        return HIRL_OK;
    }
    return hirl_cpu_tensor(ctx, shape, layout, work_p);
}

hirl_status_t hirl_cpu_output_begin(cpu_ctx_t *ctx, const hirl_tensor_t *like, hirl_dtype_t dtype,
                                    const hirl_tensor_t *y, hirl_tensor_t *work_p) {
    if (!like->layout) {
        if (hirl_tensor_is_set(y) && !y->layout) {
            *work_p = hirl_tensor_retain(y);
            return HIRL_OK;
        }
        if (!hirl_tensor_is_set(y))
            return hirl_tensor_create(ctx->allocator, like->shape, dtype, work_p);
    }
    const cpu_layout_t *layout = NULL;
    HIRL_TRY(hirl_cpu_layout_of(ctx, like, &layout));
    if (layout->dtype != dtype) HIRL_TRY(hirl_cpu_layout_with_dtype(ctx, layout, dtype, &layout));
    return hirl_cpu_output_begin_in(ctx, &like->shape, layout, y, work_p);
}

hirl_status_t hirl_cpu_output_end(cpu_ctx_t *ctx, hirl_status_t status, hirl_tensor_t *work,
                                  hirl_tensor_t *y) {
    if (status == HIRL_OK && !hirl_tensor_is_set(y)) {
        *y = *work;
        memset(work, 0, sizeof *work);
        return HIRL_OK;
    }
    if (status == HIRL_OK && (y->storage != work->storage || y->layout != work->layout)) {
        const cpu_layout_t *from = NULL, *to = NULL;
        status = hirl_cpu_layout_of(ctx, work, &from);
        if (status == HIRL_OK) status = hirl_cpu_layout_of(ctx, y, &to);
        if (status == HIRL_OK)
            status = hirl_cpu_reorder(ctx, from, hirl_tensor_data(work), to, hirl_tensor_data(y));
    }
    hirl_tensor_reset(work);
    return status;
}

hirl_status_t hirl_cpu_result_begin(cpu_ctx_t *ctx, const hirl_shape_t *shape,
                                    const cpu_layout_t *layout, hirl_dtype_t dtype,
                                    const hirl_tensor_t *y, hirl_tensor_t *work_p) {
    if (layout->dtype == dtype) return hirl_cpu_output_begin_in(ctx, shape, layout, y, work_p);
    return hirl_cpu_tensor(ctx, shape, layout, work_p);
}

hirl_status_t hirl_cpu_result_end(cpu_ctx_t *ctx, hirl_status_t status, hirl_dtype_t dtype,
                                  hirl_tensor_t *work, hirl_tensor_t *y) {
    if (status == HIRL_OK && work->dtype != dtype) {
        const cpu_layout_t *plain = NULL;
        hirl_tensor_t converted = {0};
        status = hirl_cpu_layout_plain(ctx, &work->shape, dtype, &plain);
        if (status == HIRL_OK) status = hirl_cpu_convert(ctx, work, plain, &converted);
        hirl_tensor_reset(work);
        *work = converted;
    }
    return hirl_cpu_output_end(ctx, status, work, y);
}
