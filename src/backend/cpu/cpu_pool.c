/// Pooling: maximum by oneDNN in the layout of its input, global average by own loops.
/// The workspace of the maximum carries the layout in which the forward ran; otherwise it is oneDNN's own.
#include "cpu_impl.h"
#include "cpu_slabs_impl.h"
#include "cpu_vector_impl.h"

#include <string.h>

/// The layout in which an image is pooled: its own if it is plain or blocked, else plain; f32 where there is no other.
static hirl_status_t pooling_layout(cpu_ctx_t *ctx, const hirl_tensor_t *x,
                                    const cpu_layout_t **layout_p) {
    const hirl_dtype_t dtype = hirl_cpu_has_bf16(ctx) ? x->dtype : HIRL_F32;
    if (!x->layout || !cpu_layout_view(x)->lanes)
        return hirl_cpu_layout_plain(ctx, &x->shape, dtype, layout_p);
    *layout_p = cpu_layout_view(x);
    return x->dtype == dtype ? HIRL_OK
                             : hirl_cpu_layout_with_dtype(ctx, *layout_p, dtype, layout_p);
}

static hirl_shape_t pooled_shape(const hirl_pool_param_t *p, const hirl_shape_t *x) {
    return hirl_shape_4(x->dim[0], hirl_window_output(x->dim[1], p->kernel, p->stride, p->pad),
                        hirl_window_output(x->dim[2], p->kernel, p->stride, p->pad), x->dim[3]);
}

hirl_status_t hirl_max_pool_cpu(hirl_backend_t *be, const hirl_pool_param_t *p,
                                const hirl_tensor_t *x, hirl_tensor_t *y,
                                hirl_tensor_t *workspace) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const hirl_shape_t shape = pooled_shape(p, &x->shape);
    const cpu_layout_t *layout = NULL;
    const cpu_primitive_t *primitive = NULL;
    HIRL_TRY(pooling_layout(ctx, x, &layout));
    HIRL_TRY(hirl_cpu_pool_primitive(ctx, false, workspace != NULL, p, layout, &shape, &primitive));
    hirl_tensor_t source = {0}, work = {0}, winners = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_cpu_convert(ctx, x, layout, &source), status, done);
    HIRL_TRY_GOTO(hirl_cpu_result_begin(ctx, &shape, primitive->dst, x->dtype, y, &work), status,
                  done);
    if (workspace) {
        // At least a byte per element, so that it passes for a tensor of the output's shape.
        const size_t least = (size_t)hirl_shape_count(&shape);
        const size_t bytes =
            primitive->workspace_bytes > least ? primitive->workspace_bytes : least;
        HIRL_TRY_GOTO(hirl_storage_create(ctx->allocator, bytes, &winners.storage), status, done);
        winners.shape = shape;
        winners.dtype = HIRL_U8;
        winners.layout = layout->is_plain ? NULL : &layout->head;
    }
    status = hirl_cpu_pool_run(ctx, primitive, hirl_tensor_data(&source), hirl_tensor_data(&work),
                               workspace ? hirl_tensor_data(&winners) : NULL);
    status = hirl_cpu_result_end(ctx, status, x->dtype, &work, y);
    if (status == HIRL_OK && workspace) {
        *workspace = winners;
        memset(&winners, 0, sizeof winners);
    }
done:
    hirl_tensor_reset(&winners);
    hirl_tensor_reset(&work);
    hirl_tensor_reset(&source);
    return status;
}

hirl_status_t hirl_max_pool_backward_cpu(hirl_backend_t *be, const hirl_pool_param_t *p,
                                         const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                         const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const cpu_layout_t *layout = NULL;
    const cpu_primitive_t *primitive = NULL;
    const hirl_dtype_t dtype = hirl_cpu_has_bf16(ctx) ? dy->dtype : HIRL_F32;
    if (workspace->layout)
        layout = cpu_layout_view(workspace);
    else
        HIRL_TRY(hirl_cpu_layout_plain(ctx, x_shape, dtype, &layout));
    HIRL_REQUIRE(layout->dtype == dtype, HIRL_ERR_ARG,
                 "max_pool_backward: dy is %s, but the forward's input was %s",
                 hirl_dtype_name(dy->dtype), hirl_dtype_name(layout->dtype));
    HIRL_TRY(hirl_cpu_pool_primitive(ctx, true, true, p, layout, &dy->shape, &primitive));
    HIRL_REQUIRE(
        hirl_storage_bytes(workspace->storage) >= primitive->workspace_bytes, HIRL_ERR_ARG,
        "max_pool_backward: the workspace has %zu bytes, want %zu; it belongs to another pooling",
        hirl_storage_bytes(workspace->storage), primitive->workspace_bytes);
    hirl_tensor_t source = {0}, work = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_cpu_convert(ctx, dy, primitive->dst, &source), status, done);
    HIRL_TRY_GOTO(hirl_cpu_result_begin(ctx, x_shape, layout, dy->dtype, dx, &work), status, done);
    status = hirl_cpu_pool_run(ctx, primitive, hirl_tensor_data(&work), hirl_tensor_data(&source),
                               hirl_tensor_data(workspace));
    status = hirl_cpu_result_end(ctx, status, dy->dtype, &work, dx);
done:
    hirl_tensor_reset(&source);
    return status;
}

// ---------------------------------------------------------------------------------------------- global average

/// Mean over the pixels of one sample and up to 16 neighbouring channels.
CPU_INLINE vf_t mean_of_pixels(const void *x, int64_t at, int64_t n_rows, int64_t stride,
                               bool is_bf16, int lanes) {
    vf_t a = {0}, b = {0};
    int64_t r = 0;
    for (; r + 2 <= n_rows; r += 2) {
        a += vf_load(x, at + r * stride, is_bf16, lanes);
        b += vf_load(x, at + (r + 1) * stride, is_bf16, lanes);
    }
    if (r < n_rows) a += vf_load(x, at + r * stride, is_bf16, lanes);
    return (a + b) / (float)n_rows;
}

CPU_INLINE void average_all(const cpu_ctx_t *ctx, const cpu_view_t *view, const void *x, float *y,
                            bool is_bf16) {
    const int64_t n_columns = (view->n_channels + CPU_VECTOR - 1) / CPU_VECTOR;
    const int64_t per_column =
        CPU_VECTOR / (view->is_blocked ? view->width : CPU_VECTOR); // blocks of 8: two
#pragma omp parallel for collapse(2) num_threads(ctx->n_threads) schedule(static)
    for (int64_t n = 0; n < view->n_samples; ++n) {
        for (int64_t column = 0; column < n_columns; ++column) {
            float *out = y + n * view->n_channels;
            const int64_t c = column * CPU_VECTOR;
            if (!view->is_blocked) {
                const int64_t at = n * view->n_rows * view->width + c;
                if (view->width - c >= CPU_VECTOR)
                    vf_store(out, c, false, CPU_VECTOR,
                             mean_of_pixels(x, at, view->n_rows, view->width, is_bf16, CPU_VECTOR));
                else
                    vf_store(out, c, false, (int)(view->width - c),
                             mean_of_pixels(x, at, view->n_rows, view->width, is_bf16,
                                            (int)(view->width - c)));
                continue;
            }
            for (int64_t block = column * per_column;
                 block < (column + 1) * per_column && block < view->n_blocks; ++block) {
                const int64_t at = (n * view->n_blocks + block) * view->n_rows * view->width,
                              first = block * view->width;
                const vf_t mean = view->width == 16
                                      ? mean_of_pixels(x, at, view->n_rows, 16, is_bf16, 16)
                                      : mean_of_pixels(x, at, view->n_rows, 8, is_bf16, 8);
                const int64_t left = view->n_channels - first;
                vf_store(out, first, false, (int)(left < view->width ? left : view->width), mean);
            }
        }
    }
}

hirl_status_t hirl_global_avg_pool_cpu(hirl_backend_t *be, const hirl_tensor_t *x,
                                       hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    cpu_view_t view;
    hirl_tensor_t known = {0};
    if (cpu_view_of(x, &view)) {
        known = hirl_tensor_retain(x);
    } else {
        const cpu_layout_t *plain = NULL;
        HIRL_TRY(hirl_cpu_layout_plain(ctx, &x->shape, x->dtype, &plain));
        HIRL_TRY(hirl_cpu_convert(ctx, x, plain, &known));
        (void)cpu_view_of(&known, &view);
    }
    if (view.is_bf16)
        average_all(ctx, &view, hirl_tensor_data(&known), hirl_tensor_f32(y), true);
    else
        average_all(ctx, &view, hirl_tensor_data(&known), hirl_tensor_f32(y), false);
    hirl_tensor_reset(&known);
    return HIRL_OK;
}

CPU_INLINE void spread_all(const cpu_ctx_t *ctx, const cpu_view_t *view, const float *dy, void *dx,
                           bool is_bf16) {
    const float share = 1.0f / (float)view->n_rows;
#pragma omp parallel for collapse(2) num_threads(ctx->n_threads) schedule(static)
    for (int64_t n = 0; n < view->n_samples; ++n) {
        for (int64_t block = 0; block < view->n_blocks; ++block) {
            const int64_t at = (n * view->n_blocks + block) * view->n_rows * view->width;
            // A blocked image has one block of channels here, a plain one all of them.
            for (int64_t c = 0; c < view->width; c += CPU_VECTOR) {
                const int64_t first = block * view->width + c, left = view->n_channels - first;
                const int lanes =
                    (int)(view->width - c < CPU_VECTOR ? view->width - c : CPU_VECTOR);
                const vf_t value = vf_load(dy, n * view->n_channels + first, false,
                                           (int)(left < lanes ? (left < 0 ? 0 : left) : lanes)) *
                                   share;
                if (lanes == CPU_VECTOR)
                    for (int64_t r = 0; r < view->n_rows; ++r)
                        vf_store(dx, at + r * view->width + c, is_bf16, CPU_VECTOR, value);
                else
                    for (int64_t r = 0; r < view->n_rows; ++r)
                        vf_store(dx, at + r * view->width + c, is_bf16, lanes, value);
            }
        }
    }
}

hirl_status_t hirl_global_avg_pool_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *dy,
                                                const hirl_tensor_t *like, hirl_tensor_t *dx) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    cpu_view_t view;
    hirl_tensor_t work = {0};
    if (cpu_view_of(like, &view)) {
        HIRL_TRY(hirl_cpu_output_begin(ctx, like, like->dtype, dx, &work));
    } else {
        HIRL_TRY(hirl_tensor_create(ctx->allocator, like->shape, like->dtype, &work));
        (void)cpu_view_of(&work, &view);
    }
    if (view.is_bf16)
        spread_all(ctx, &view, hirl_tensor_f32(dy), hirl_tensor_data(&work), true);
    else
        spread_all(ctx, &view, hirl_tensor_f32(dy), hirl_tensor_data(&work), false);
    return hirl_cpu_output_end(ctx, HIRL_OK, &work, dx);
}
