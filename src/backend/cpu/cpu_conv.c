/// Convolutions by oneDNN. Images stay in the layouts it prefers; weights are plain f32 slabs outside and are arranged (and cast)
/// in every call, because nobody tells when they change: for the 25 M weights of a ResNet-50 oneDNN takes 20 ms a pass (own
/// 16 x 16 transpositions: 22 ms), of a step of 7 s, so keeping arranged copies would gain nothing.
#include "cpu_impl.h"

/// The dtype in which a convolution of `dtype` is computed. Where the output is small, oneDNN 2.6's bf16 gradients are slower than
/// f32's with the conversions (32 images, one thread, AMX / f32): weights 7x7 512>512 k3 113 / 56 ms, 7x7 2048>512 k1 119 / 38,
/// 14x14 1024>2048 k1 s2 322 / 88, 28x28 512>1024 k1 s2 141 / 76; data 14x14 512>512 k3 s2 111 / 71. Elsewhere bf16 is 1.1 to 6
/// times as fast.
static hirl_dtype_t math_of(const cpu_ctx_t *ctx, cpu_conv_kind_t kind, const hirl_conv_param_t *p,
                            const hirl_shape_t *y, hirl_dtype_t dtype) {
    if (dtype == HIRL_F32 || !hirl_cpu_has_bf16(ctx)) return HIRL_F32;
    const int64_t n_pixels = y->dim[1] * y->dim[2];
    const bool is_strided = p->stride_h > 1 || p->stride_w > 1;
    if (kind == CPU_CONV_BACKWARD_WEIGHTS)
        return n_pixels <= 64 || (is_strided && n_pixels <= 256) ? HIRL_F32 : HIRL_BF16;
    if (kind == CPU_CONV_BACKWARD_DATA) return is_strided && n_pixels <= 64 ? HIRL_F32 : HIRL_BF16;
    return HIRL_BF16;
}

/// Plain f32 weights in the form that the primitive wants; *owned_p has to be freed if it is not NULL.
static hirl_status_t arrange_weights(cpu_ctx_t *ctx, const cpu_primitive_t *primitive,
                                     const hirl_tensor_t *w, void **data_p, void **owned_p) {
    const cpu_layout_t *plain = NULL;
    HIRL_TRY(hirl_cpu_layout_weights(ctx, &w->shape, &plain));
    if (primitive->weights == plain) {
        *data_p = hirl_tensor_data(w);
        *owned_p = NULL;
        return HIRL_OK;
    }
    void *data = NULL;
    HIRL_TRY(hirl_cpu_scratch(ctx, primitive->weights->bytes, &data));
    const hirl_status_t status =
        hirl_cpu_reorder(ctx, plain, hirl_tensor_data(w), primitive->weights, data);
    if (status != HIRL_OK) {
        hirl_cpu_scratch_free(ctx, primitive->weights->bytes, data);
        return status;
    }
    *data_p = *owned_p = data;
    return HIRL_OK;
}

hirl_status_t hirl_conv2d_cpu(hirl_backend_t *be, const hirl_conv_param_t *p,
                              const hirl_tensor_t *x, const hirl_tensor_t *w,
                              const hirl_tensor_t *bias, hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const hirl_shape_t shape = hirl_shape_4(
        x->shape.dim[0],
        hirl_window_output(x->shape.dim[1], (int)w->shape.dim[2], p->stride_h, p->pad_h),
        hirl_window_output(x->shape.dim[2], (int)w->shape.dim[3], p->stride_w, p->pad_w),
        w->shape.dim[0]);
    const cpu_primitive_t *primitive = NULL;
    HIRL_TRY(hirl_cpu_conv_primitive(ctx, CPU_CONV_FORWARD, p, &x->shape, &w->shape, &shape,
                                     math_of(ctx, CPU_CONV_FORWARD, p, &shape, x->dtype),
                                     bias != NULL, &primitive));
    hirl_tensor_t source = {0}, work = {0};
    void *weights = NULL, *owned = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_cpu_convert(ctx, x, primitive->src, &source), status, done);
    HIRL_TRY_GOTO(arrange_weights(ctx, primitive, w, &weights, &owned), status, done);
    HIRL_TRY_GOTO(hirl_cpu_result_begin(ctx, &shape, primitive->dst, x->dtype, y, &work), status,
                  done);
    status = hirl_cpu_conv_run(ctx, primitive, hirl_tensor_data(&source), weights,
                               bias ? hirl_tensor_f32(bias) : NULL, hirl_tensor_data(&work));
    status = hirl_cpu_result_end(ctx, status, x->dtype, &work, y);
done:
    hirl_cpu_scratch_free(ctx, primitive->weights->bytes, owned);
    hirl_tensor_reset(&source);
    return status;
}

hirl_status_t hirl_conv2d_backward_data_cpu(hirl_backend_t *be, const hirl_conv_param_t *p,
                                            const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                            const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const cpu_primitive_t *primitive = NULL;
    HIRL_TRY(hirl_cpu_conv_primitive(ctx, CPU_CONV_BACKWARD_DATA, p, x_shape, &w->shape, &dy->shape,
                                     math_of(ctx, CPU_CONV_BACKWARD_DATA, p, &dy->shape, dy->dtype),
                                     false, &primitive));
    hirl_tensor_t source = {0}, work = {0};
    void *weights = NULL, *owned = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_cpu_convert(ctx, dy, primitive->dst, &source), status, done);
    HIRL_TRY_GOTO(arrange_weights(ctx, primitive, w, &weights, &owned), status, done);
    HIRL_TRY_GOTO(hirl_cpu_result_begin(ctx, x_shape, primitive->src, dy->dtype, dx, &work), status,
                  done);
    status = hirl_cpu_conv_run(ctx, primitive, hirl_tensor_data(&work), weights, NULL,
                               hirl_tensor_data(&source));
    status = hirl_cpu_result_end(ctx, status, dy->dtype, &work, dx);
done:
    hirl_cpu_scratch_free(ctx, primitive->weights->bytes, owned);
    hirl_tensor_reset(&source);
    return status;
}

/// dw (+)= the gradient that lies in the primitive's layout.
static hirl_status_t deliver_gradient(cpu_ctx_t *ctx, const cpu_layout_t *from,
                                      const void *gradient, const cpu_layout_t *plain,
                                      bool accumulate, float *dw) {
    if (!accumulate) return hirl_cpu_reorder(ctx, from, gradient, plain, dw);
    float *sum = NULL;
    HIRL_TRY(hirl_cpu_scratch(ctx, plain->bytes, (void **)&sum));
    const hirl_status_t status = hirl_cpu_reorder(ctx, from, gradient, plain, sum);
    if (status == HIRL_OK) {
        const int64_t count = (int64_t)(plain->bytes / sizeof(float));
#pragma omp parallel for simd num_threads(ctx->n_threads) schedule(static)
        for (int64_t i = 0; i < count; ++i) dw[i] += sum[i];
    }
    hirl_cpu_scratch_free(ctx, plain->bytes, sum);
    return status;
}

hirl_status_t hirl_conv2d_backward_weights_cpu(hirl_backend_t *be, const hirl_conv_param_t *p,
                                               const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                               bool accumulate, hirl_tensor_t *dw,
                                               hirl_tensor_t *dbias) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const cpu_primitive_t *primitive = NULL;
    const cpu_layout_t *plain = NULL;
    HIRL_TRY(hirl_cpu_conv_primitive(
        ctx, CPU_CONV_BACKWARD_WEIGHTS, p, &x->shape, &dw->shape, &dy->shape,
        math_of(ctx, CPU_CONV_BACKWARD_WEIGHTS, p, &dy->shape, x->dtype), false, &primitive));
    HIRL_TRY(hirl_cpu_layout_weights(ctx, &dw->shape, &plain));
    const bool is_direct = primitive->weights == plain && !accumulate;
    hirl_tensor_t source = {0}, output = {0};
    void *gradient = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_cpu_convert(ctx, x, primitive->src, &source), status, done);
    HIRL_TRY_GOTO(hirl_cpu_convert(ctx, dy, primitive->dst, &output), status, done);
    if (!is_direct)
        HIRL_TRY_GOTO(hirl_cpu_scratch(ctx, primitive->weights->bytes, &gradient), status, done);
    HIRL_TRY_GOTO(hirl_cpu_conv_run(ctx, primitive, hirl_tensor_data(&source),
                                    is_direct ? hirl_tensor_data(dw) : gradient, NULL,
                                    hirl_tensor_data(&output)),
                  status, done);
    if (!is_direct)
        HIRL_TRY_GOTO(deliver_gradient(ctx, primitive->weights, gradient, plain, accumulate,
                                       hirl_tensor_f32(dw)),
                      status, done);
    if (dbias)
        HIRL_TRY_GOTO(hirl_cpu_channel_sums(ctx, &output, accumulate, hirl_tensor_f32(dbias)),
                      status, done);
done:
    hirl_cpu_scratch_free(ctx, primitive->weights->bytes, gradient);
    hirl_tensor_reset(&source);
    hirl_tensor_reset(&output);
    return status;
}
