/// Conversions and elementwise operations. Tensors of one layout are worked through as they lie in memory, padding included
/// (0 stays 0 in all of them); of mixed layouts one is converted first.
/// All are bound by memory traffic: measured times are in cpu_norm.c, whose kernels have the same form.
#include "cpu_impl.h"
#include "cpu_vector_impl.h"

#include <string.h>

enum {
    LEAST_PARALLEL = 1 << 15
}; // elements from which a second thread pays (fork and join cost 2-5 us)

/// Runs BODY for i = first element of each full vector, then once for the rest, with a constant number of `lanes`.
#define FOR_VECTORS(ctx, count, BODY)                       \
    do {                                                    \
        const int64_t n_full_ = (count) / CPU_VECTOR;       \
        const int threads_ = (ctx)->n_threads;              \
        const bool is_parallel_ = (count) > LEAST_PARALLEL; \
        CPU_PARALLEL                                        \
        for (int64_t v_ = 0; v_ < n_full_; ++v_) {          \
            const int64_t i = v_ * CPU_VECTOR;              \
            const int lanes = CPU_VECTOR;                   \
            BODY;                                           \
        }                                                   \
        if ((count) % CPU_VECTOR) {                         \
            const int64_t i = n_full_ * CPU_VECTOR;         \
            const int lanes = (int)((count) % CPU_VECTOR);  \
            BODY;                                           \
        }                                                   \
    } while (0)

// ---------------------------------------------------------------------------------------------- conversions

CPU_INLINE void cast_flat(const cpu_ctx_t *ctx, int64_t count, const void *x, bool x_bf16, void *y,
                          bool y_bf16) {
    FOR_VECTORS(ctx, count, vf_store(y, i, y_bf16, lanes, vf_load(x, i, x_bf16, lanes)));
}

static void copy_flat(const cpu_ctx_t *ctx, int64_t count, const void *x, hirl_dtype_t x_dtype,
                      void *y, hirl_dtype_t y_dtype) {
    if (x_dtype == HIRL_F32 && y_dtype == HIRL_F32)
        cast_flat(ctx, count, x, false, y, false);
    else if (x_dtype == HIRL_F32)
        cast_flat(ctx, count, x, false, y, true);
    else if (y_dtype == HIRL_F32)
        cast_flat(ctx, count, x, true, y, false);
    else // bits as they are
        memcpy(y, x, (size_t)count * sizeof(uint16_t));
}

hirl_status_t hirl_to_plain_cpu(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                                hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    if (!x->layout) {
        copy_flat(ctx, hirl_tensor_count(x), hirl_tensor_data(x), x->dtype, hirl_tensor_data(y),
                  dtype);
        return HIRL_OK;
    }
    const cpu_layout_t *to = NULL;
    HIRL_TRY(hirl_cpu_layout_of(ctx, y, &to));
    return hirl_cpu_reorder(ctx, cpu_layout_view(x), hirl_tensor_data(x), to, hirl_tensor_data(y));
}

hirl_status_t hirl_cast_cpu(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                            hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    hirl_tensor_t work = {0};
    HIRL_TRY(hirl_cpu_output_begin(ctx, x, dtype, y, &work));
    copy_flat(ctx, hirl_cpu_stored_count(x), hirl_tensor_data(x), x->dtype, hirl_tensor_data(&work),
              dtype);
    return hirl_cpu_output_end(ctx, HIRL_OK, &work, y);
}

/// Always a copy: a caller may write to the result.
static hirl_status_t copy_to(cpu_ctx_t *ctx, const hirl_tensor_t *x, const cpu_layout_t *layout,
                             hirl_tensor_t *y) {
    hirl_tensor_t work = {0};
    const cpu_layout_t *from = NULL;
    HIRL_TRY(hirl_cpu_layout_of(ctx, x, &from));
    HIRL_TRY(hirl_cpu_output_begin_in(ctx, &x->shape, layout, y, &work));
    hirl_status_t status = HIRL_OK;
    if (from == layout)
        copy_flat(ctx, hirl_cpu_stored_count(x), hirl_tensor_data(x), x->dtype,
                  hirl_tensor_data(&work), x->dtype);
    else
        status = hirl_cpu_reorder(ctx, from, hirl_tensor_data(x), layout, hirl_tensor_data(&work));
    return hirl_cpu_output_end(ctx, status, &work, y);
}

hirl_status_t hirl_to_layout_of_cpu(hirl_backend_t *be, const hirl_tensor_t *x,
                                    const hirl_tensor_t *like, hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    if (!x->layout && !like->layout) return hirl_cast_cpu(be, x, x->dtype, y);
    const cpu_layout_t *layout = NULL;
    HIRL_TRY(hirl_cpu_layout_of(ctx, like, &layout));
    return copy_to(ctx, x, layout, y);
}

hirl_status_t hirl_to_blocked_cpu(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    if (x->shape.n_axes != 4) return hirl_cast_cpu(be, x, x->dtype, y);
    const cpu_layout_t *layout = NULL;
    HIRL_TRY(hirl_cpu_layout_blocked(ctx, &x->shape, x->dtype, &layout));
    return copy_to(ctx, x, layout, y);
}

// ---------------------------------------------------------------------------------------------- in place

CPU_INLINE void fill_flat(const cpu_ctx_t *ctx, int64_t count, float value, void *x, bool is_bf16) {
    const vf_t v = vf_set(value);
    FOR_VECTORS(ctx, count, vf_store(x, i, is_bf16, lanes, v));
}

hirl_status_t hirl_fill_cpu(hirl_backend_t *be, float value, hirl_tensor_t *x) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const bool is_bf16 = x->dtype == HIRL_BF16;
    if (x->layout && value != 0 && hirl_cpu_stored_count(x) != hirl_tensor_count(x)) {
        // Padding must stay 0, so the value goes there by way of a plain tensor.
        hirl_tensor_t plain = {0};
        HIRL_TRY(hirl_tensor_create(ctx->allocator, x->shape, x->dtype, &plain));
        hirl_status_t status = hirl_fill_cpu(be, value, &plain);
        const cpu_layout_t *from = NULL;
        if (status == HIRL_OK) status = hirl_cpu_layout_of(ctx, &plain, &from);
        if (status == HIRL_OK)
            status = hirl_cpu_reorder(ctx, from, hirl_tensor_data(&plain), cpu_layout_view(x),
                                      hirl_tensor_data(x));
        hirl_tensor_reset(&plain);
        return status;
    }
    if (is_bf16)
        fill_flat(ctx, hirl_cpu_stored_count(x), value, hirl_tensor_data(x), true);
    else
        fill_flat(ctx, hirl_cpu_stored_count(x), value, hirl_tensor_data(x), false);
    return HIRL_OK;
}

CPU_INLINE void axpby_flat(const cpu_ctx_t *ctx, int64_t count, float a, const void *x, bool x_bf16,
                           float b, void *y, bool y_bf16) {
    if (b == 0) // y may hold anything
        FOR_VECTORS(ctx, count, vf_store(y, i, y_bf16, lanes, vf_load(x, i, x_bf16, lanes) * a));
    else
        FOR_VECTORS(ctx, count,
                    vf_store(y, i, y_bf16, lanes,
                             vf_load(x, i, x_bf16, lanes) * a + vf_load(y, i, y_bf16, lanes) * b));
}

hirl_status_t hirl_axpby_cpu(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                             hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    hirl_tensor_t source = {0};
    if (!x->layout && !y->layout) {
        source = hirl_tensor_retain(x);
    } else {
        const cpu_layout_t *layout = NULL;
        HIRL_TRY(hirl_cpu_layout_of(ctx, y, &layout));
        if (x->dtype != y->dtype)
            HIRL_TRY(hirl_cpu_layout_with_dtype(ctx, layout, x->dtype, &layout));
        HIRL_TRY(hirl_cpu_convert(ctx, x, layout, &source));
    }
    const int64_t count = hirl_cpu_stored_count(y);
    const void *from = hirl_tensor_data(&source);
    void *to = hirl_tensor_data(y);
    const bool x_bf16 = x->dtype == HIRL_BF16, y_bf16 = y->dtype == HIRL_BF16;
    if (x_bf16 && y_bf16)
        axpby_flat(ctx, count, a, from, true, b, to, true);
    else if (x_bf16)
        axpby_flat(ctx, count, a, from, true, b, to, false);
    else if (y_bf16)
        axpby_flat(ctx, count, a, from, false, b, to, true);
    else
        axpby_flat(ctx, count, a, from, false, b, to, false);
    hirl_tensor_reset(&source);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- two inputs

typedef enum binary { BINARY_ADD, BINARY_MUL, BINARY_RELU_BACKWARD, BINARY_GELU_BACKWARD } binary_t;

CPU_INLINE vf_t binary_of(binary_t kind, vf_t a, vf_t b) {
    if (kind == BINARY_ADD) return a + b;
    if (kind == BINARY_MUL) return a * b;
    if (kind == BINARY_RELU_BACKWARD) return vf_where(a > 0, b);
    return vf_gelu_slope(a) * b;
}

CPU_INLINE void binary_flat(const cpu_ctx_t *ctx, binary_t kind, int64_t count, const void *x1,
                            const void *x2, void *y, bool is_bf16) {
    FOR_VECTORS(
        ctx, count,
        vf_store(y, i, is_bf16, lanes,
                 binary_of(kind, vf_load(x1, i, is_bf16, lanes), vf_load(x2, i, is_bf16, lanes))));
}

static void binary_any(const cpu_ctx_t *ctx, binary_t kind, int64_t count, const void *x1,
                       const void *x2, void *y, bool is_bf16) {
#define CASE(k)                                           \
    case k:                                               \
        if (is_bf16)                                      \
            binary_flat(ctx, k, count, x1, x2, y, true);  \
        else                                              \
            binary_flat(ctx, k, count, x1, x2, y, false); \
        break
    switch (kind) {
        CASE(BINARY_ADD);
        CASE(BINARY_MUL);
        CASE(BINARY_RELU_BACKWARD);
        CASE(BINARY_GELU_BACKWARD);
    }
#undef CASE
}

static hirl_status_t binary_op(hirl_backend_t *be, binary_t kind, const hirl_tensor_t *x1,
                               const hirl_tensor_t *x2, hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    // An opaque layout leads: it is what the next convolution wants.
    const hirl_tensor_t *like = x1->layout ? x1 : x2;
    hirl_tensor_t a = {0}, b = {0}, work = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, x1, like, &a), status, done);
    HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, x2, like, &b), status, done);
    HIRL_TRY_GOTO(hirl_cpu_output_begin(ctx, like, x1->dtype, y, &work), status, done);
    binary_any(ctx, kind, hirl_cpu_stored_count(&a), hirl_tensor_data(&a), hirl_tensor_data(&b),
               hirl_tensor_data(&work), x1->dtype == HIRL_BF16);
    status = hirl_cpu_output_end(ctx, status, &work, y);
done:
    hirl_tensor_reset(&a);
    hirl_tensor_reset(&b);
    return status;
}

hirl_status_t hirl_add_cpu(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                           hirl_tensor_t *y) {
    return binary_op(be, BINARY_ADD, x1, x2, y);
}

hirl_status_t hirl_mul_cpu(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                           hirl_tensor_t *y) {
    return binary_op(be, BINARY_MUL, x1, x2, y);
}

hirl_status_t hirl_act_backward_cpu(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *saved,
                                    const hirl_tensor_t *dy, hirl_tensor_t *dx) {
    if (act == HIRL_ACT_NONE) return hirl_cast_cpu(be, dy, dy->dtype, dx);
    return binary_op(be, act == HIRL_ACT_RELU ? BINARY_RELU_BACKWARD : BINARY_GELU_BACKWARD, saved,
                     dy, dx);
}

// ---------------------------------------------------------------------------------------------- activation

CPU_INLINE void act_flat(const cpu_ctx_t *ctx, hirl_act_t act, int64_t count, const void *x,
                         void *y, bool is_bf16) {
    if (act == HIRL_ACT_RELU)
        FOR_VECTORS(ctx, count,
                    vf_store(y, i, is_bf16, lanes, vf_relu(vf_load(x, i, is_bf16, lanes))));
    else
        FOR_VECTORS(ctx, count,
                    vf_store(y, i, is_bf16, lanes, vf_gelu(vf_load(x, i, is_bf16, lanes))));
}

hirl_status_t hirl_act_cpu(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                           hirl_tensor_t *y) {
    if (act == HIRL_ACT_NONE) return hirl_cast_cpu(be, x, x->dtype, y);
    cpu_ctx_t *ctx = cpu_ctx(be);
    hirl_tensor_t work = {0};
    HIRL_TRY(hirl_cpu_output_begin(ctx, x, x->dtype, y, &work));
    const int64_t count = hirl_cpu_stored_count(x);
    const void *from = hirl_tensor_data(x);
    void *to = hirl_tensor_data(&work);
    if (x->dtype == HIRL_BF16) {
        if (act == HIRL_ACT_RELU)
            act_flat(ctx, HIRL_ACT_RELU, count, from, to, true);
        else
            act_flat(ctx, HIRL_ACT_GELU, count, from, to, true);
    } else {
        if (act == HIRL_ACT_RELU)
            act_flat(ctx, HIRL_ACT_RELU, count, from, to, false);
        else
            act_flat(ctx, HIRL_ACT_GELU, count, from, to, false);
    }
    return hirl_cpu_output_end(ctx, HIRL_OK, &work, y);
}
