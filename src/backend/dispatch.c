/// hirl_op_*: the checks that all backends share, then the call of the backend's function.
/// A call_t lives for one operation. TAKE checks an input, GIVE an output (and allocates it where its layout is plain), NEED
/// anything else, RUN calls. A host backend without the operation runs `ref` on plain copies, which the call_t owns.
/// A failed operation gives back what it had allocated.
#include "backend_impl.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    F32 = 1 << HIRL_F32,
    I32 = 1 << HIRL_I32,
    ACTIVATION = 1 << HIRL_F32 | 1 << HIRL_BF16 | 1 << HIRL_F16,
    ANY_DTYPE = (1 << HIRL_DTYPE_COUNT) - 1,
    ANY_AXES = 0,
    IMAGE = 4,
    MATRIX = 2,
    VECTOR = 1,
    MAX_TEMP = 6,
    MAX_FRESH = HIRL_PATH_MAX_LEVELS + 2,
    N_TEXTS = 4,
    TEXT_BYTES = 160
};

typedef struct call {
    hirl_backend_t *be;
    const hirl_backend_ops_t *ops; // whose function runs: the backend's, or ref's
    const char *op;
    int n_temp, n_fresh, n_texts;
    hirl_tensor_t temp[MAX_TEMP];    // plain copies of inputs
    hirl_tensor_t *fresh[MAX_FRESH]; // outputs allocated here
    char texts[N_TEXTS][TEXT_BYTES];
} call_t;

static hirl_status_t call_end(call_t *call, hirl_status_t status) {
    for (int i = 0; i < call->n_temp; ++i) hirl_tensor_reset(&call->temp[i]);
    if (status != HIRL_OK)
        for (int i = 0; i < call->n_fresh; ++i) hirl_tensor_reset(call->fresh[i]);
    return status;
}

static bool is_activation_dtype(const hirl_backend_t *be, hirl_dtype_t dtype) {
    return (ACTIVATION >> dtype & 1) != 0 && hirl_backend_has_dtype(be, dtype);
}

/// Chooses the table. `slot` is the function's place in it.
static hirl_status_t call_begin(call_t *call, hirl_backend_t *be, const char *op, size_t slot) {
    HIRL_REQUIRE(be, HIRL_ERR_ARG, "%s: no backend given", op);
    call->be = be;
    call->ops = be->ops;
    call->op = op;
    call->n_temp = call->n_fresh = call->n_texts = 0;
    void *function = NULL;
    memcpy(&function, (const char *)be->ops + slot, sizeof function);
    if (function) return HIRL_OK;
    HIRL_REQUIRE(be->ops->is_host, HIRL_ERR_UNSUPPORTED, "backend '%s' has no operation '%s'",
                 be->ops->name, op);
    call->ops = &hirl_backend_ops_ref;
    if (!be->is_fallback_logged[slot / sizeof(void *)]) {
        be->is_fallback_logged[slot / sizeof(void *)] = true;
        hirl_log_rank(HIRL_LOG_WARN,
                      "backend '%s' has no operation '%s'; the slow reference one serves",
                      be->ops->name, op);
    }
    return HIRL_OK;
}

/// "[2, 3] bf16 nChw16c"; one of a few buffers of the call.
static const char *text_of(call_t *call, const hirl_tensor_t *x) {
    char *buf = call->texts[call->n_texts++ % N_TEXTS], shape[128];
    if (!hirl_tensor_is_set(x)) return "no tensor";
    snprintf(buf, TEXT_BYTES, "%.90s %s%s%.40s", hirl_shape_text(&x->shape, shape),
             hirl_dtype_name(x->dtype), x->layout ? " " : "", x->layout ? x->layout->name : "");
    return buf;
}

static const char *text_of_shape(call_t *call, const hirl_shape_t *shape) {
    return hirl_shape_text(shape, call->texts[call->n_texts++ % N_TEXTS]);
}

static hirl_status_t check_any(call_t *call, const char *name, const hirl_tensor_t *x, int dtypes,
                               int n_axes) {
    HIRL_REQUIRE(hirl_tensor_is_set(x), HIRL_ERR_ARG, "%s: %s is no tensor", call->op, name);
    HIRL_REQUIRE(dtypes >> x->dtype & 1, HIRL_ERR_ARG,
                 "%s: %s is %s, which this operation does not take", call->op, name,
                 text_of(call, x));
    HIRL_REQUIRE(x->dtype != HIRL_F16 || call->be->ops->has_f16, HIRL_ERR_UNSUPPORTED,
                 "%s: %s is %s, but backend '%s' has no f16; use bf16", call->op, name,
                 text_of(call, x), call->be->ops->name);
    HIRL_REQUIRE(n_axes == ANY_AXES || x->shape.n_axes == n_axes, HIRL_ERR_ARG,
                 "%s: %s is %s, want %d axes", call->op, name, text_of(call, x), n_axes);
    for (int i = 0; i < x->shape.n_axes; ++i)
        HIRL_REQUIRE(x->shape.dim[i] > 0, HIRL_ERR_ARG, "%s: %s is %s, which is empty", call->op,
                     name, text_of(call, x));
    const bool is_device = hirl_storage_space(x->storage) == HIRL_SPACE_DEVICE;
    HIRL_REQUIRE(is_device != call->be->ops->is_host, HIRL_ERR_ARG,
                 "%s: %s lies in %s memory, but backend '%s' works in %s memory", call->op, name,
                 is_device ? "device" : "host", call->be->ops->name, is_device ? "host" : "device");
    if (x->layout) {
        HIRL_REQUIRE(x->layout->owner == call->be->ctx, HIRL_ERR_ARG,
                     "%s: %s has layout %s of another backend than this '%s'; convert it there "
                     "with hirl_op_to_plain",
                     call->op, name, x->layout->name, call->be->ops->name);
    } else {
        const size_t bytes = (size_t)hirl_shape_count(&x->shape) * hirl_dtype_size(x->dtype);
        HIRL_REQUIRE(x->offset <= hirl_storage_bytes(x->storage) &&
                         bytes <= hirl_storage_bytes(x->storage) - x->offset,
                     HIRL_ERR_ARG, "%s: %s is %s at byte %zu of a storage of only %zu bytes",
                     call->op, name, text_of(call, x), x->offset, hirl_storage_bytes(x->storage));
    }
    return HIRL_OK;
}

static hirl_status_t check_plain(call_t *call, const char *name, const hirl_tensor_t *x, int dtypes,
                                 int n_axes) {
    HIRL_TRY(check_any(call, name, x, dtypes, n_axes));
    HIRL_REQUIRE(!x->layout, HIRL_ERR_ARG, "%s: %s is %s, want a plain tensor", call->op, name,
                 text_of(call, x));
    return HIRL_OK;
}

static hirl_status_t take_as_plain(call_t *call, const char *name, const hirl_tensor_t **x_p,
                                   int dtypes, int n_axes) {
    HIRL_TRY(check_any(call, name, *x_p, dtypes, n_axes));
    if (!(*x_p)->layout) return HIRL_OK;
    HIRL_REQUIRE(call->n_temp < MAX_TEMP, HIRL_ERR_INTERNAL, "%s: more than %d inputs to convert",
                 call->op, (int)MAX_TEMP);
    hirl_tensor_t *copy = &call->temp[call->n_temp];
    memset(copy, 0, sizeof *copy);
    HIRL_TRY(hirl_op_to_plain(call->be, *x_p, (*x_p)->dtype, copy));
    ++call->n_temp;
    *x_p = copy;
    return HIRL_OK;
}

static hirl_status_t take(call_t *call, const char *name, const hirl_tensor_t **x_p, int dtypes,
                          int n_axes) {
    return call->ops->has_layouts ? check_any(call, name, *x_p, dtypes, n_axes)
                                  : take_as_plain(call, name, x_p, dtypes, n_axes);
}

static hirl_status_t give(call_t *call, const char *name, hirl_tensor_t *y, hirl_shape_t shape,
                          hirl_dtype_t dtype, bool is_image) {
    HIRL_REQUIRE(y, HIRL_ERR_ARG, "%s: no output %s given", call->op, name);
    if (hirl_tensor_is_set(y)) {
        HIRL_TRY(check_plain(call, name, y, ANY_DTYPE, ANY_AXES));
        HIRL_REQUIRE(y->dtype == dtype && hirl_shape_equal(&y->shape, &shape), HIRL_ERR_ARG,
                     "%s: output %s is %s, want %s %s", call->op, name, text_of(call, y),
                     text_of_shape(call, &shape), hirl_dtype_name(dtype));
        return HIRL_OK;
    }
    if (is_image && call->ops->has_layouts) return HIRL_OK;
    HIRL_REQUIRE(call->n_fresh < MAX_FRESH, HIRL_ERR_INTERNAL, "%s: more than %d outputs", call->op,
                 (int)MAX_FRESH);
    HIRL_TRY(hirl_tensor_create(call->be->allocator, shape, dtype, y));
    call->fresh[call->n_fresh++] = y;
    return HIRL_OK;
}

/// Indices of a host backend: every `step`-th value, from `first` on, must be in [0, n).
static hirl_status_t check_indices(call_t *call, const char *name, const hirl_tensor_t *index,
                                   int64_t first, int64_t step, int64_t n) {
    if (!call->be->ops->is_host) return HIRL_OK;
    const int32_t *value = hirl_tensor_data(index);
    const int64_t count = hirl_tensor_count(index);
    for (int64_t i = first; i < count; i += step)
        HIRL_REQUIRE(value[i] >= 0 && value[i] < n, HIRL_ERR_ARG,
                     "%s: element %lld of %s is %d, want 0..%lld", call->op, (long long)i, name,
                     (int)value[i], (long long)(n - 1));
    return HIRL_OK;
}

#define PASS(expr)                                                         \
    do {                                                                   \
        const hirl_status_t pass_status_ = (expr);                         \
        if (pass_status_ != HIRL_OK) return call_end(&call, pass_status_); \
    } while (0)
#define BEGIN(fn) \
    call_t call;  \
    HIRL_TRY(call_begin(&call, be, #fn, offsetof(hirl_backend_ops_t, fn)))
#define NEED(cond, ...)                                                            \
    do {                                                                           \
        if (!(cond)) return call_end(&call, HIRL_FAIL(HIRL_ERR_ARG, __VA_ARGS__)); \
    } while (0)
#define NEED_FINITE(value) NEED(isfinite(value), "%s: %s is %g", call.op, #value, (double)(value))
#define TAKE(x, dtypes, n_axes) PASS(take(&call, #x, &(x), (dtypes), (n_axes)))
#define TAKE_PLAIN(x, dtypes, n_axes) PASS(check_plain(&call, #x, (x), (dtypes), (n_axes)))
#define TAKE_VECTOR(x, n)                                                        \
    do {                                                                         \
        TAKE_PLAIN(x, F32, VECTOR);                                              \
        NEED((x)->shape.dim[0] == (n), "%s: %s is %s, want [%lld]", call.op, #x, \
             text_of(&call, x), (long long)(n));                                 \
    } while (0)
#define TAKE_MATRIX(x, rows, columns)                                                              \
    do {                                                                                           \
        TAKE_PLAIN(x, F32, MATRIX);                                                                \
        NEED((x)->shape.dim[0] == (rows) && (x)->shape.dim[1] == (columns),                        \
             "%s: %s is %s, want [%lld, %lld]", call.op, #x, text_of(&call, x), (long long)(rows), \
             (long long)(columns));                                                                \
    } while (0)
#define NEED_SAME(x1, x2)                                                            \
    NEED(hirl_shape_equal(&(x1)->shape, &(x2)->shape) && (x1)->dtype == (x2)->dtype, \
         "%s: %s is %s but %s is %s", call.op, #x1, text_of(&call, x1), #x2, text_of(&call, x2))
#define GIVE(y, y_shape, y_dtype) PASS(give(&call, #y, (y), (y_shape), (y_dtype), false))
#define GIVE_IMAGE(y, y_shape, y_dtype) PASS(give(&call, #y, (y), (y_shape), (y_dtype), true))
#define NEED_GIVEN(accumulate, y)                                                               \
    NEED(!(accumulate) || hirl_tensor_is_set(y), "%s: accumulates into %s, which is no tensor", \
         call.op, #y)
#define RUN(fn, ...) return call_end(&call, call.ops->fn(be, __VA_ARGS__))

// ---------------------------------------------------------------------------------------------- moving data

hirl_status_t hirl_op_to_plain(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                               hirl_tensor_t *y) {
    BEGIN(to_plain);
    PASS(check_any(&call, "x", x, ACTIVATION, ANY_AXES));
    NEED(is_activation_dtype(be, dtype), "to_plain: backend '%s' cannot convert to %s, want f32%s",
         hirl_backend_name(be), hirl_dtype_name(dtype),
         hirl_backend_has_dtype(be, HIRL_F16) ? ", bf16 or f16" : " or bf16");
    GIVE(y, x->shape, dtype);
    RUN(to_plain, x, dtype, y);
}

hirl_status_t hirl_op_cast(hirl_backend_t *be, const hirl_tensor_t *x, hirl_dtype_t dtype,
                           hirl_tensor_t *y) {
    BEGIN(cast);
    TAKE(x, ACTIVATION, ANY_AXES);
    NEED(is_activation_dtype(be, dtype), "cast: backend '%s' cannot convert to %s, want f32%s",
         hirl_backend_name(be), hirl_dtype_name(dtype),
         hirl_backend_has_dtype(be, HIRL_F16) ? ", bf16 or f16" : " or bf16");
    GIVE_IMAGE(y, x->shape, dtype);
    RUN(cast, x, dtype, y);
}

hirl_status_t hirl_op_to_layout_of(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *like, hirl_tensor_t *y) {
    BEGIN(to_layout_of);
    TAKE(x, ACTIVATION, ANY_AXES);
    TAKE(like, ACTIVATION, ANY_AXES);
    NEED_SAME(x, like);
    GIVE_IMAGE(y, x->shape, x->dtype);
    RUN(to_layout_of, x, like, y);
}

hirl_status_t hirl_op_to_blocked(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y) {
    BEGIN(to_blocked);
    TAKE(x, ACTIVATION, ANY_AXES);
    GIVE_IMAGE(y, x->shape, x->dtype);
    RUN(to_blocked, x, y);
}

hirl_status_t hirl_op_fill(hirl_backend_t *be, float value, hirl_tensor_t *x) {
    BEGIN(fill);
    PASS(check_any(&call, "x", x, ACTIVATION, ANY_AXES));
    RUN(fill, value, x);
}

hirl_status_t hirl_op_axpby(hirl_backend_t *be, float a, const hirl_tensor_t *x, float b,
                            hirl_tensor_t *y) {
    BEGIN(axpby);
    NEED_FINITE(a);
    NEED_FINITE(b);
    TAKE(x, ACTIVATION, ANY_AXES);
    PASS(check_any(&call, "y", y, ACTIVATION, ANY_AXES));
    NEED(hirl_shape_equal(&x->shape, &y->shape), "axpby: x is %s but y is %s", text_of(&call, x),
         text_of(&call, y));
    RUN(axpby, a, x, b, y);
}

hirl_status_t hirl_op_add(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                          hirl_tensor_t *y) {
    BEGIN(add);
    TAKE(x1, ACTIVATION, ANY_AXES);
    TAKE(x2, ACTIVATION, ANY_AXES);
    NEED_SAME(x1, x2);
    GIVE_IMAGE(y, x1->shape, x1->dtype);
    RUN(add, x1, x2, y);
}

hirl_status_t hirl_op_mul(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                          hirl_tensor_t *y) {
    BEGIN(mul);
    TAKE(x1, ACTIVATION, ANY_AXES);
    TAKE(x2, ACTIVATION, ANY_AXES);
    NEED_SAME(x1, x2);
    GIVE_IMAGE(y, x1->shape, x1->dtype);
    RUN(mul, x1, x2, y);
}

hirl_status_t hirl_op_gather_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                                  const hirl_tensor_t *index, hirl_tensor_t *y) {
    BEGIN(gather_rows);
    TAKE(x, F32, ANY_AXES);
    TAKE_PLAIN(index, I32, VECTOR);
    NEED(x->shape.n_axes >= 1, "gather_rows: x is %s, which has no rows", text_of(&call, x));
    PASS(check_indices(&call, "index", index, 0, 1, x->shape.dim[0]));
    hirl_shape_t shape = x->shape;
    shape.dim[0] = index->shape.dim[0];
    GIVE(y, shape, HIRL_F32);
    RUN(gather_rows, x, index, y);
}

hirl_status_t hirl_op_gather_rows_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                           const hirl_tensor_t *index, bool accumulate,
                                           hirl_tensor_t *dx) {
    BEGIN(gather_rows_backward);
    TAKE(dy, F32, ANY_AXES);
    TAKE_PLAIN(index, I32, VECTOR);
    // How many rows x had is known from dx alone, so dx must be given.
    NEED(hirl_tensor_is_set(dx), "gather_rows_backward: dx must be given");
    TAKE_PLAIN(dx, F32, ANY_AXES);
    hirl_shape_t shape = dx->shape;
    NEED(shape.n_axes >= 1, "gather_rows_backward: dx is %s, which has no rows",
         text_of(&call, dx));
    shape.dim[0] = index->shape.dim[0];
    NEED(hirl_shape_equal(&shape, &dy->shape), "gather_rows_backward: dy is %s, want %s",
         text_of(&call, dy), text_of_shape(&call, &shape));
    PASS(check_indices(&call, "index", index, 0, 1, dx->shape.dim[0]));
    RUN(gather_rows_backward, dy, index, accumulate, dx);
}

hirl_status_t hirl_op_concat_columns(hirl_backend_t *be, const hirl_tensor_t *x1,
                                     const hirl_tensor_t *x2, hirl_tensor_t *y) {
    BEGIN(concat_columns);
    TAKE_PLAIN(x1, F32, MATRIX);
    TAKE_PLAIN(x2, F32, MATRIX);
    NEED(x1->shape.dim[0] == x2->shape.dim[0], "concat_columns: x1 is %s but x2 is %s",
         text_of(&call, x1), text_of(&call, x2));
    GIVE(y, hirl_shape_2(x1->shape.dim[0], x1->shape.dim[1] + x2->shape.dim[1]), HIRL_F32);
    RUN(concat_columns, x1, x2, y);
}

hirl_status_t hirl_op_split_columns(hirl_backend_t *be, const hirl_tensor_t *y, int64_t n_first,
                                    hirl_tensor_t *x1, hirl_tensor_t *x2) {
    BEGIN(split_columns);
    TAKE_PLAIN(y, F32, MATRIX);
    NEED(n_first > 0 && n_first < y->shape.dim[1],
         "split_columns: %lld first columns of y, which is %s", (long long)n_first,
         text_of(&call, y));
    NEED(x1 || x2, "split_columns: no output given");
    if (x1) GIVE(x1, hirl_shape_2(y->shape.dim[0], n_first), HIRL_F32);
    if (x2) GIVE(x2, hirl_shape_2(y->shape.dim[0], y->shape.dim[1] - n_first), HIRL_F32);
    RUN(split_columns, y, n_first, x1, x2);
}

// ---------------------------------------------------------------------------------------------- convolution, pooling

/// Checks x [N, H, W, I] against w [O, I, kH, kW] and gives y's shape.
static hirl_status_t conv_shape(call_t *call, const hirl_conv_param_t *p, const hirl_shape_t *x,
                                const hirl_shape_t *w, hirl_shape_t *y_p) {
    HIRL_REQUIRE(p, HIRL_ERR_ARG, "%s: no parameters given", call->op);
    HIRL_REQUIRE(
        p->stride_h > 0 && p->stride_w > 0 && p->pad_h >= 0 && p->pad_w >= 0, HIRL_ERR_ARG,
        "%s: stride %d x %d, padding %d x %d; want strides of at least 1 and no negative padding",
        call->op, p->stride_h, p->stride_w, p->pad_h, p->pad_w);
    HIRL_REQUIRE(x->n_axes == 4, HIRL_ERR_ARG, "%s: x is %s, want [N, H, W, C]", call->op,
                 text_of_shape(call, x));
    for (int i = 0; i < 4; ++i) {
        HIRL_REQUIRE(x->dim[i] > 0 && x->dim[i] <= INT32_MAX && w->dim[i] <= INT32_MAX,
                     HIRL_ERR_ARG, "%s: x is %s and w is %s; every dimension must be 1..2^31-1",
                     call->op, text_of_shape(call, x), text_of_shape(call, w));
    }
    HIRL_REQUIRE(x->dim[3] == w->dim[1], HIRL_ERR_ARG,
                 "%s: x is %s, but w is %s [O, I, kH, kW], which wants %lld channels", call->op,
                 text_of_shape(call, x), text_of_shape(call, w), (long long)w->dim[1]);
    const int64_t height = hirl_window_output(x->dim[1], (int)w->dim[2], p->stride_h, p->pad_h);
    const int64_t width = hirl_window_output(x->dim[2], (int)w->dim[3], p->stride_w, p->pad_w);
    HIRL_REQUIRE(height > 0 && width > 0, HIRL_ERR_ARG,
                 "%s: w %s is larger than x %s with padding %d x %d", call->op,
                 text_of_shape(call, w), text_of_shape(call, x), p->pad_h, p->pad_w);
    *y_p = hirl_shape_4(x->dim[0], height, width, w->dim[0]);
    return HIRL_OK;
}

hirl_status_t hirl_op_conv2d(hirl_backend_t *be, const hirl_conv_param_t *p, const hirl_tensor_t *x,
                             const hirl_tensor_t *w, const hirl_tensor_t *bias, hirl_tensor_t *y) {
    BEGIN(conv2d);
    TAKE(x, ACTIVATION, IMAGE);
    TAKE_PLAIN(w, F32, 4);
    hirl_shape_t shape;
    PASS(conv_shape(&call, p, &x->shape, &w->shape, &shape));
    if (bias) TAKE_VECTOR(bias, w->shape.dim[0]);
    GIVE_IMAGE(y, shape, x->dtype);
    RUN(conv2d, p, x, w, bias, y);
}

hirl_status_t hirl_op_conv2d_backward_data(hirl_backend_t *be, const hirl_conv_param_t *p,
                                           const hirl_tensor_t *dy, const hirl_tensor_t *w,
                                           const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    BEGIN(conv2d_backward_data);
    TAKE(dy, ACTIVATION, IMAGE);
    TAKE_PLAIN(w, F32, 4);
    NEED(x_shape, "conv2d_backward_data: no shape of x given");
    hirl_shape_t shape;
    PASS(conv_shape(&call, p, x_shape, &w->shape, &shape));
    NEED(hirl_shape_equal(&shape, &dy->shape), "conv2d_backward_data: dy is %s, want %s",
         text_of(&call, dy), text_of_shape(&call, &shape));
    GIVE_IMAGE(dx, *x_shape, dy->dtype);
    RUN(conv2d_backward_data, p, dy, w, x_shape, dx);
}

hirl_status_t hirl_op_conv2d_backward_weights(hirl_backend_t *be, const hirl_conv_param_t *p,
                                              const hirl_tensor_t *x, const hirl_tensor_t *dy,
                                              bool accumulate, hirl_tensor_t *dw,
                                              hirl_tensor_t *dbias) {
    BEGIN(conv2d_backward_weights);
    TAKE(x, ACTIVATION, IMAGE);
    TAKE(dy, ACTIVATION, IMAGE);
    NEED(x->dtype == dy->dtype, "conv2d_backward_weights: x is %s but dy is %s", text_of(&call, x),
         text_of(&call, dy));
    TAKE_PLAIN(dw, F32, 4); // its size is not known otherwise, so it must be given
    hirl_shape_t shape;
    PASS(conv_shape(&call, p, &x->shape, &dw->shape, &shape));
    NEED(hirl_shape_equal(&shape, &dy->shape), "conv2d_backward_weights: dy is %s, want %s",
         text_of(&call, dy), text_of_shape(&call, &shape));
    if (dbias) {
        NEED_GIVEN(accumulate, dbias);
        GIVE(dbias, hirl_shape_1(dw->shape.dim[0]), HIRL_F32);
    }
    RUN(conv2d_backward_weights, p, x, dy, accumulate, dw, dbias);
}

static hirl_status_t pool_shape(call_t *call, const hirl_pool_param_t *p, const hirl_shape_t *x,
                                hirl_shape_t *y_p) {
    HIRL_REQUIRE(p, HIRL_ERR_ARG, "%s: no parameters given", call->op);
    // More padding than half a kernel could make a window of padding alone.
    HIRL_REQUIRE(p->kernel > 0 && p->stride > 0 && p->pad >= 0 && 2 * (int64_t)p->pad <= p->kernel,
                 HIRL_ERR_ARG,
                 "%s: kernel %d, stride %d, padding %d; want positive sizes and a padding of at "
                 "most half the kernel",
                 call->op, p->kernel, p->stride, p->pad);
    HIRL_REQUIRE(x->n_axes == 4, HIRL_ERR_ARG, "%s: x is %s, want [N, H, W, C]", call->op,
                 text_of_shape(call, x));
    for (int i = 0; i < 4; ++i)
        HIRL_REQUIRE(x->dim[i] > 0 && x->dim[i] <= INT32_MAX, HIRL_ERR_ARG,
                     "%s: x is %s; every dimension must be 1..2^31-1", call->op,
                     text_of_shape(call, x));
    const int64_t height = hirl_window_output(x->dim[1], p->kernel, p->stride, p->pad);
    const int64_t width = hirl_window_output(x->dim[2], p->kernel, p->stride, p->pad);
    HIRL_REQUIRE(height > 0 && width > 0, HIRL_ERR_ARG,
                 "%s: kernel %d is larger than x %s with padding %d", call->op, p->kernel,
                 text_of_shape(call, x), p->pad);
    *y_p = hirl_shape_4(x->dim[0], height, width, x->dim[3]);
    return HIRL_OK;
}

hirl_status_t hirl_op_max_pool(hirl_backend_t *be, const hirl_pool_param_t *p,
                               const hirl_tensor_t *x, hirl_tensor_t *y, hirl_tensor_t *workspace) {
    BEGIN(max_pool);
    TAKE(x, ACTIVATION, IMAGE);
    hirl_shape_t shape;
    PASS(pool_shape(&call, p, &x->shape, &shape));
    GIVE_IMAGE(y, shape, x->dtype);
    NEED(!hirl_tensor_is_set(workspace),
         "max_pool: the workspace must be {0} or NULL; it is allocated here");
    if (workspace) GIVE_IMAGE(workspace, shape, HIRL_I32);
    RUN(max_pool, p, x, y, workspace);
}

hirl_status_t hirl_op_max_pool_backward(hirl_backend_t *be, const hirl_pool_param_t *p,
                                        const hirl_tensor_t *dy, const hirl_tensor_t *workspace,
                                        const hirl_shape_t *x_shape, hirl_tensor_t *dx) {
    BEGIN(max_pool_backward);
    TAKE(dy, ACTIVATION, IMAGE);
    PASS(check_any(&call, "workspace", workspace, ANY_DTYPE, ANY_AXES));
    NEED(x_shape, "max_pool_backward: no shape of x given");
    hirl_shape_t shape;
    PASS(pool_shape(&call, p, x_shape, &shape));
    NEED(hirl_shape_equal(&shape, &dy->shape), "max_pool_backward: dy is %s, want %s",
         text_of(&call, dy), text_of_shape(&call, &shape));
    GIVE_IMAGE(dx, *x_shape, dy->dtype);
    RUN(max_pool_backward, p, dy, workspace, x_shape, dx);
}

hirl_status_t hirl_op_global_avg_pool(hirl_backend_t *be, const hirl_tensor_t *x,
                                      hirl_tensor_t *y) {
    BEGIN(global_avg_pool);
    TAKE(x, ACTIVATION, IMAGE);
    GIVE(y, hirl_shape_2(x->shape.dim[0], x->shape.dim[3]), HIRL_F32);
    RUN(global_avg_pool, x, y);
}

hirl_status_t hirl_op_global_avg_pool_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                               const hirl_tensor_t *like, hirl_tensor_t *dx) {
    BEGIN(global_avg_pool_backward);
    TAKE(like, ACTIVATION, IMAGE);
    TAKE_MATRIX(dy, like->shape.dim[0], like->shape.dim[3]);
    GIVE_IMAGE(dx, like->shape, like->dtype);
    RUN(global_avg_pool_backward, dy, like, dx);
}

// ---------------------------------------------------------------------------------------------- batch norm

/// x is [N, H, W, C] or [N, C], and n_groups divides N.
static hirl_status_t check_groups(call_t *call, const hirl_tensor_t *x, int64_t n_groups) {
    HIRL_REQUIRE(x->shape.n_axes == 4 || x->shape.n_axes == 2, HIRL_ERR_ARG,
                 "%s: x is %s, want [N, H, W, C] or [N, C]", call->op, text_of(call, x));
    HIRL_REQUIRE(n_groups > 0 && x->shape.dim[0] % n_groups == 0, HIRL_ERR_ARG,
                 "%s: x is %s, which is not %lld equal groups", call->op, text_of(call, x),
                 (long long)n_groups);
    return HIRL_OK;
}

static int64_t channels_of(const hirl_tensor_t *x) { return x->shape.dim[x->shape.n_axes - 1]; }

hirl_status_t hirl_op_bn_stats(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                               hirl_tensor_t *mean, hirl_tensor_t *var) {
    BEGIN(bn_stats);
    TAKE(x, ACTIVATION, ANY_AXES);
    PASS(check_groups(&call, x, n_groups));
    GIVE(mean, hirl_shape_2(n_groups, channels_of(x)), HIRL_F32);
    GIVE(var, hirl_shape_2(n_groups, channels_of(x)), HIRL_F32);
    RUN(bn_stats, x, n_groups, mean, var);
}

hirl_status_t hirl_op_bn_apply(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                               const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                               const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                               const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y) {
    BEGIN(bn_apply);
    TAKE(x, ACTIVATION, ANY_AXES);
    PASS(check_groups(&call, x, n_groups));
    const int64_t n_channels = channels_of(x);
    TAKE_MATRIX(mean, n_groups, n_channels);
    TAKE_MATRIX(var, n_groups, n_channels);
    NEED(isfinite(eps) && eps >= 0, "bn_apply: eps is %g", (double)eps);
    if (gamma) TAKE_VECTOR(gamma, n_channels);
    if (beta) TAKE_VECTOR(beta, n_channels);
    if (residual) {
        TAKE(residual, ACTIVATION, ANY_AXES);
        NEED_SAME(residual, x);
    }
    GIVE_IMAGE(y, x->shape, x->dtype);
    RUN(bn_apply, x, n_groups, mean, var, eps, gamma, beta, residual, has_relu, y);
}

hirl_status_t hirl_op_bn_backward_sums(hirl_backend_t *be, const hirl_tensor_t *dy,
                                       const hirl_tensor_t *y, const hirl_tensor_t *x,
                                       int64_t n_groups, const hirl_tensor_t *mean,
                                       const hirl_tensor_t *var, float eps, hirl_tensor_t *sum_dz,
                                       hirl_tensor_t *sum_dz_xhat) {
    BEGIN(bn_backward_sums);
    TAKE(x, ACTIVATION, ANY_AXES);
    PASS(check_groups(&call, x, n_groups));
    TAKE(dy, ACTIVATION, ANY_AXES);
    NEED_SAME(dy, x);
    if (y) {
        TAKE(y, ACTIVATION, ANY_AXES);
        NEED_SAME(y, x);
    }
    const int64_t n_channels = channels_of(x);
    TAKE_MATRIX(mean, n_groups, n_channels);
    TAKE_MATRIX(var, n_groups, n_channels);
    NEED(isfinite(eps) && eps >= 0, "bn_backward_sums: eps is %g", (double)eps);
    GIVE(sum_dz, hirl_shape_2(n_groups, n_channels), HIRL_F32);
    GIVE(sum_dz_xhat, hirl_shape_2(n_groups, n_channels), HIRL_F32);
    RUN(bn_backward_sums, dy, y, x, n_groups, mean, var, eps, sum_dz, sum_dz_xhat);
}

hirl_status_t hirl_op_bn_backward_apply(hirl_backend_t *be, const hirl_tensor_t *dy,
                                        const hirl_tensor_t *y, const hirl_tensor_t *x,
                                        int64_t n_groups, const hirl_tensor_t *mean,
                                        const hirl_tensor_t *var, float eps,
                                        const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz,
                                        const hirl_tensor_t *mean_dz_xhat, hirl_tensor_t *dx,
                                        hirl_tensor_t *dresidual) {
    BEGIN(bn_backward_apply);
    TAKE(x, ACTIVATION, ANY_AXES);
    PASS(check_groups(&call, x, n_groups));
    TAKE(dy, ACTIVATION, ANY_AXES);
    NEED_SAME(dy, x);
    if (y) {
        TAKE(y, ACTIVATION, ANY_AXES);
        NEED_SAME(y, x);
    }
    const int64_t n_channels = channels_of(x);
    TAKE_MATRIX(mean, n_groups, n_channels);
    TAKE_MATRIX(var, n_groups, n_channels);
    NEED(isfinite(eps) && eps >= 0, "bn_backward_apply: eps is %g", (double)eps);
    if (gamma) TAKE_VECTOR(gamma, n_channels);
    NEED(!mean_dz == !mean_dz_xhat, "bn_backward_apply: mean_dz and mean_dz_xhat go together");
    if (mean_dz) {
        TAKE_MATRIX(mean_dz, n_groups, n_channels);
        TAKE_MATRIX(mean_dz_xhat, n_groups, n_channels);
    }
    const bool is_in_place = hirl_tensor_is_set(dx) && dx->storage == dy->storage &&
                             dx->offset == dy->offset && dx->layout == dy->layout;
    if (is_in_place)
        NEED_SAME(dx, dy);
    else
        GIVE_IMAGE(dx, x->shape, x->dtype);
    if (dresidual) {
        NEED(!is_in_place || !hirl_tensor_is_set(dresidual) || dresidual->storage != dx->storage,
             "bn_backward_apply: dx and dresidual are the same tensor");
        GIVE_IMAGE(dresidual, x->shape, x->dtype);
    }
    RUN(bn_backward_apply, dy, y, x, n_groups, mean, var, eps, gamma, mean_dz, mean_dz_xhat, dx,
        dresidual);
}

hirl_status_t hirl_op_bn_combine(hirl_backend_t *be, const hirl_tensor_t *parts,
                                 hirl_tensor_t *mean, hirl_tensor_t *var) {
    BEGIN(bn_combine);
    TAKE_PLAIN(parts, F32, 3);
    NEED(parts->shape.dim[1] == 2, "bn_combine: parts is %s, want [n_parts, 2, C]",
         text_of(&call, parts));
    GIVE(mean, hirl_shape_2(1, parts->shape.dim[2]), HIRL_F32);
    GIVE(var, hirl_shape_2(1, parts->shape.dim[2]), HIRL_F32);
    RUN(bn_combine, parts, mean, var);
}

hirl_status_t hirl_op_fold_rows(hirl_backend_t *be, float scale, const hirl_tensor_t *x, float keep,
                                hirl_tensor_t *y) {
    BEGIN(fold_rows);
    NEED_FINITE(scale);
    NEED_FINITE(keep);
    TAKE_PLAIN(x, F32, MATRIX);
    NEED(hirl_tensor_is_set(y), "fold_rows: y must be given");
    TAKE_VECTOR(y, x->shape.dim[1]);
    RUN(fold_rows, scale, x, keep, y);
}

// ---------------------------------------------------------------------------------------------- matrices, activations

hirl_status_t hirl_op_gemm(hirl_backend_t *be, bool trans_a, bool trans_b, float alpha,
                           const hirl_tensor_t *a, const hirl_tensor_t *b, float beta,
                           hirl_tensor_t *c) {
    BEGIN(gemm);
    NEED_FINITE(alpha);
    NEED_FINITE(beta);
    TAKE_PLAIN(a, ACTIVATION, MATRIX);
    TAKE_PLAIN(b, ACTIVATION, MATRIX);
    const int64_t m = a->shape.dim[trans_a ? 1 : 0], k = a->shape.dim[trans_a ? 0 : 1];
    const int64_t n = b->shape.dim[trans_b ? 0 : 1];
    NEED(b->shape.dim[trans_b ? 1 : 0] == k && a->dtype == b->dtype,
         "gemm: a is %s%s and b is %s%s, which do not multiply", text_of(&call, a),
         trans_a ? " transposed" : "", text_of(&call, b), trans_b ? " transposed" : "");
    NEED_GIVEN(beta != 0, c);
    GIVE(c, hirl_shape_2(m, n),
         hirl_tensor_is_set(c) && c->dtype == HIRL_F32 ? HIRL_F32 : a->dtype);
    RUN(gemm, trans_a, trans_b, alpha, a, b, beta, c);
}

hirl_status_t hirl_op_linear(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *w,
                             const hirl_tensor_t *bias, hirl_act_t act, hirl_tensor_t *y,
                             hirl_tensor_t *pre) {
    BEGIN(linear);
    TAKE_PLAIN(x, ACTIVATION, MATRIX);
    TAKE_PLAIN(w, F32, MATRIX);
    NEED(x->shape.dim[1] == w->shape.dim[1], "linear: x is %s [N, I] but w is %s [O, I]",
         text_of(&call, x), text_of(&call, w));
    NEED(act == HIRL_ACT_NONE || act == HIRL_ACT_RELU || act == HIRL_ACT_GELU,
         "linear: unknown activation %d", (int)act);
    if (bias) TAKE_VECTOR(bias, w->shape.dim[0]);
    const hirl_shape_t shape = hirl_shape_2(x->shape.dim[0], w->shape.dim[0]);
    GIVE(y, shape, x->dtype);
    if (act != HIRL_ACT_GELU) pre = NULL; // y is enough for the backward of the others
    if (pre) GIVE(pre, shape, x->dtype);
    RUN(linear, x, w, bias, act, y, pre);
}

hirl_status_t hirl_op_linear_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                      const hirl_tensor_t *x, const hirl_tensor_t *w,
                                      bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dw,
                                      hirl_tensor_t *dbias) {
    BEGIN(linear_backward);
    TAKE_PLAIN(dy, ACTIVATION, MATRIX);
    const int64_t n = dy->shape.dim[0], n_out = dy->shape.dim[1];
    if (dx) {
        TAKE_PLAIN(w, F32, MATRIX);
        NEED(w->shape.dim[0] == n_out, "linear_backward: dy is %s [N, O] but w is %s [O, I]",
             text_of(&call, dy), text_of(&call, w));
        GIVE(dx, hirl_shape_2(n, w->shape.dim[1]), dy->dtype);
    }
    if (dw) {
        TAKE_PLAIN(x, ACTIVATION, MATRIX);
        NEED(x->shape.dim[0] == n && x->dtype == dy->dtype,
             "linear_backward: dy is %s [N, O] but x is %s [N, I]", text_of(&call, dy),
             text_of(&call, x));
        NEED(!dx || x->shape.dim[1] == w->shape.dim[1],
             "linear_backward: x is %s [N, I] but w is %s [O, I]", text_of(&call, x),
             text_of(&call, w));
        NEED_GIVEN(accumulate, dw);
        GIVE(dw, hirl_shape_2(n_out, x->shape.dim[1]), HIRL_F32);
    }
    if (dbias) {
        NEED_GIVEN(accumulate, dbias);
        GIVE(dbias, hirl_shape_1(n_out), HIRL_F32);
    }
    RUN(linear_backward, dy, x, w, accumulate, dx, dw, dbias);
}

hirl_status_t hirl_op_act(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *x,
                          hirl_tensor_t *y) {
    BEGIN(act);
    NEED(act == HIRL_ACT_NONE || act == HIRL_ACT_RELU || act == HIRL_ACT_GELU,
         "act: unknown activation %d", (int)act);
    TAKE(x, ACTIVATION, ANY_AXES);
    GIVE_IMAGE(y, x->shape, x->dtype);
    RUN(act, act, x, y);
}

hirl_status_t hirl_op_act_backward(hirl_backend_t *be, hirl_act_t act, const hirl_tensor_t *saved,
                                   const hirl_tensor_t *dy, hirl_tensor_t *dx) {
    BEGIN(act_backward);
    NEED(act == HIRL_ACT_NONE || act == HIRL_ACT_RELU || act == HIRL_ACT_GELU,
         "act_backward: unknown activation %d", (int)act);
    TAKE(dy, ACTIVATION, ANY_AXES);
    if (act == HIRL_ACT_NONE) {
        saved = dy; // nothing is read from it
    } else {
        TAKE(saved, ACTIVATION, ANY_AXES);
        NEED_SAME(saved, dy);
    }
    GIVE_IMAGE(dx, dy->shape, dy->dtype);
    RUN(act_backward, act, saved, dy, dx);
}

hirl_status_t hirl_op_l2_normalize(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                                   hirl_tensor_t *norm) {
    BEGIN(l2_normalize);
    TAKE_PLAIN(x, F32, MATRIX);
    GIVE(y, x->shape, HIRL_F32);
    GIVE(norm, hirl_shape_1(x->shape.dim[0]), HIRL_F32);
    RUN(l2_normalize, x, y, norm);
}

hirl_status_t hirl_op_l2_normalize_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                            const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                            hirl_tensor_t *dx) {
    BEGIN(l2_normalize_backward);
    TAKE_PLAIN(y, F32, MATRIX);
    TAKE_VECTOR(norm, y->shape.dim[0]);
    TAKE_PLAIN(dy, F32, MATRIX);
    NEED_SAME(dy, y);
    GIVE(dx, y->shape, HIRL_F32);
    RUN(l2_normalize_backward, y, norm, dy, dx);
}

hirl_status_t hirl_op_row_dot(hirl_backend_t *be, const hirl_tensor_t *x1, const hirl_tensor_t *x2,
                              hirl_tensor_t *y) {
    BEGIN(row_dot);
    TAKE_PLAIN(x1, F32, MATRIX);
    TAKE_PLAIN(x2, F32, MATRIX);
    NEED_SAME(x1, x2);
    GIVE(y, hirl_shape_1(x1->shape.dim[0]), HIRL_F32);
    RUN(row_dot, x1, x2, y);
}

hirl_status_t hirl_op_row_scale(hirl_backend_t *be, const hirl_tensor_t *s, const hirl_tensor_t *x,
                                bool accumulate, hirl_tensor_t *y) {
    BEGIN(row_scale);
    TAKE_PLAIN(x, ACTIVATION, MATRIX);
    TAKE_VECTOR(s, x->shape.dim[0]);
    NEED_GIVEN(accumulate, y);
    GIVE(y, x->shape, x->dtype);
    RUN(row_scale, s, x, accumulate, y);
}

hirl_status_t hirl_op_layer_norm(hirl_backend_t *be, const hirl_tensor_t *x,
                                 const hirl_tensor_t *gamma, const hirl_tensor_t *beta, float eps,
                                 hirl_tensor_t *y, hirl_tensor_t *mean, hirl_tensor_t *rstd) {
    BEGIN(layer_norm);
    TAKE_PLAIN(x, ACTIVATION, MATRIX);
    const int64_t n_rows = x->shape.dim[0];
    TAKE_VECTOR(gamma, x->shape.dim[1]);
    TAKE_VECTOR(beta, x->shape.dim[1]);
    NEED(isfinite(eps) && eps >= 0, "layer_norm: eps is %g", (double)eps);
    GIVE(y, x->shape, x->dtype);
    GIVE(mean, hirl_shape_1(n_rows), HIRL_F32);
    GIVE(rstd, hirl_shape_1(n_rows), HIRL_F32);
    RUN(layer_norm, x, gamma, beta, eps, y, mean, rstd);
}

hirl_status_t hirl_op_layer_norm_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                          const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                          const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                          bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dgamma,
                                          hirl_tensor_t *dbeta) {
    BEGIN(layer_norm_backward);
    TAKE_PLAIN(x, ACTIVATION, MATRIX);
    TAKE_PLAIN(dy, ACTIVATION, MATRIX);
    NEED_SAME(dy, x);
    const int64_t n_columns = x->shape.dim[1];
    TAKE_VECTOR(gamma, n_columns);
    TAKE_VECTOR(mean, x->shape.dim[0]);
    TAKE_VECTOR(rstd, x->shape.dim[0]);
    NEED_GIVEN(accumulate, dgamma);
    NEED_GIVEN(accumulate, dbeta);
    GIVE(dx, x->shape, x->dtype);
    GIVE(dgamma, hirl_shape_1(n_columns), HIRL_F32);
    GIVE(dbeta, hirl_shape_1(n_columns), HIRL_F32);
    RUN(layer_norm_backward, dy, x, gamma, mean, rstd, accumulate, dx, dgamma, dbeta);
}

hirl_status_t hirl_op_softmax(hirl_backend_t *be, const hirl_tensor_t *x, float scale,
                              hirl_tensor_t *y) {
    BEGIN(softmax);
    NEED_FINITE(scale);
    TAKE_PLAIN(x, F32, MATRIX);
    GIVE(y, x->shape, HIRL_F32);
    RUN(softmax, x, scale, y);
}

hirl_status_t hirl_op_softmax_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                       const hirl_tensor_t *dy, float scale, hirl_tensor_t *dx) {
    BEGIN(softmax_backward);
    NEED_FINITE(scale);
    TAKE_PLAIN(y, F32, MATRIX);
    TAKE_PLAIN(dy, F32, MATRIX);
    NEED_SAME(dy, y);
    GIVE(dx, y->shape, HIRL_F32);
    RUN(softmax_backward, y, dy, scale, dx);
}

// ---------------------------------------------------------------------------------------------- random masks

static hirl_status_t check_drop(call_t *call, const hirl_drop_t *drop, const hirl_tensor_t *x) {
    HIRL_REQUIRE(drop, HIRL_ERR_ARG, "%s: no draw given", call->op);
    HIRL_REQUIRE(drop->p >= 0 && drop->p < 1, HIRL_ERR_ARG, "%s: p is %g, want 0 <= p < 1",
                 call->op, (double)drop->p);
    HIRL_TRY(check_plain(call, "counter", drop->counter, 1 << HIRL_I64, VECTOR));
    HIRL_REQUIRE(drop->counter->shape.dim[0] == 2, HIRL_ERR_ARG,
                 "%s: counter is %s, want [2]: seed, step", call->op, text_of(call, drop->counter));
    HIRL_TRY(check_plain(call, "index", drop->index, 1 << HIRL_I64, VECTOR));
    const int64_t n = drop->index->shape.dim[0];
    HIRL_REQUIRE(x->shape.n_axes >= 1 && x->shape.dim[0] % n == 0, HIRL_ERR_ARG,
                 "%s: x is %s, whose rows are not those of %lld samples", call->op,
                 text_of(call, x), (long long)n);
    HIRL_REQUIRE(hirl_tensor_count(x) / n <= INT64_C(4) << 32, HIRL_ERR_UNSUPPORTED,
                 "%s: x is %s, want at most 2^34 elements a sample", call->op, text_of(call, x));
    return HIRL_OK;
}

hirl_status_t hirl_op_dropout(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                              hirl_tensor_t *y) {
    BEGIN(dropout);
    PASS(take_as_plain(&call, "x", &x, ACTIVATION, ANY_AXES));
    PASS(check_drop(&call, drop, x));
    GIVE(y, x->shape, x->dtype);
    RUN(dropout, drop, x, y);
}

hirl_status_t hirl_op_drop_path(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                                const hirl_tensor_t *residual, hirl_tensor_t *y) {
    BEGIN(drop_path);
    PASS(take_as_plain(&call, "x", &x, ACTIVATION, ANY_AXES));
    PASS(check_drop(&call, drop, x));
    if (residual) {
        PASS(take_as_plain(&call, "residual", &residual, ACTIVATION, ANY_AXES));
        NEED_SAME(residual, x);
    }
    GIVE(y, x->shape, x->dtype);
    RUN(drop_path, drop, x, residual, y);
}

// ---------------------------------------------------------------------------------------------- attention

/// One of q, k, v: its slice lies inside the rows, in steps that all backends can read at once.
static hirl_status_t check_slice(call_t *call, const hirl_attention_param_t *p, const char *name,
                                 const hirl_tensor_t *x, int64_t column, hirl_dtype_t dtype) {
    HIRL_TRY(check_plain(call, name, x, 1 << dtype, MATRIX));
    const int64_t width = p->n_heads * p->head_size, n_columns = x->shape.dim[1];
    HIRL_REQUIRE(x->shape.dim[0] % p->n_batch == 0, HIRL_ERR_ARG,
                 "%s: %s is %s, whose rows are not those of %lld problems", call->op, name,
                 text_of(call, x), (long long)p->n_batch);
    HIRL_REQUIRE(column >= 0 && column % 8 == 0 && n_columns % 8 == 0 && column <= n_columns &&
                     width <= n_columns - column,
                 HIRL_ERR_ARG,
                 "%s: %s is %s, want room for %lld heads of %lld columns from column %lld on, and "
                 "multiples of 8",
                 call->op, name, text_of(call, x), (long long)p->n_heads, (long long)p->head_size,
                 (long long)column);
    return HIRL_OK;
}

/// All that forward and backward read.
static hirl_status_t check_attention(call_t *call, const hirl_attention_param_t *p,
                                     const hirl_tensor_t *q, const hirl_tensor_t *k,
                                     const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                     const hirl_tensor_t *mask) {
    HIRL_REQUIRE(p, HIRL_ERR_ARG, "%s: no parameters given", call->op);
    HIRL_REQUIRE(p->n_batch > 0 && p->n_heads > 0 && p->n_heads < 1 << 20, HIRL_ERR_ARG,
                 "%s: %lld problems of %lld heads", call->op, (long long)p->n_batch,
                 (long long)p->n_heads);
    HIRL_REQUIRE(
        p->head_size >= 16 && p->head_size <= 128 && p->head_size % 8 == 0, HIRL_ERR_ARG,
        "%s: heads of %lld columns, want a multiple of 8 in 16..128; choose another number "
        "of heads",
        call->op, (long long)p->head_size);
    HIRL_REQUIRE(isfinite(p->scale), HIRL_ERR_ARG, "%s: scale is %g", call->op, (double)p->scale);
    HIRL_TRY(check_plain(call, "q", q, ACTIVATION, MATRIX));
    HIRL_TRY(check_slice(call, p, "q", q, p->q_column, q->dtype));
    HIRL_TRY(check_slice(call, p, "k", k, p->k_column, q->dtype));
    HIRL_TRY(check_slice(call, p, "v", v, p->v_column, q->dtype));
    HIRL_REQUIRE(k->shape.dim[0] == v->shape.dim[0], HIRL_ERR_ARG,
                 "%s: k is %s but v is %s, want as many rows", call->op, text_of(call, k),
                 text_of(call, v));
    const int64_t n_query = q->shape.dim[0] / p->n_batch, n_key = k->shape.dim[0] / p->n_batch;
    HIRL_REQUIRE(n_query < INT32_MAX / 2 && n_key < INT32_MAX / 2, HIRL_ERR_ARG,
                 "%s: %lld queries and %lld keys a problem", call->op, (long long)n_query,
                 (long long)n_key);
    const hirl_shape_t square = hirl_shape_3(p->n_heads, n_query, n_key);
    if (bias) {
        HIRL_TRY(check_plain(call, "bias", bias, F32, 3));
        HIRL_REQUIRE(hirl_shape_equal(&bias->shape, &square), HIRL_ERR_ARG,
                     "%s: bias is %s, want %s", call->op, text_of(call, bias),
                     text_of_shape(call, &square));
    }
    if (mask) {
        HIRL_TRY(check_plain(call, "mask", mask, F32, 3));
        HIRL_REQUIRE(p->n_batch % mask->shape.dim[0] == 0 && mask->shape.dim[1] == n_query &&
                         mask->shape.dim[2] == n_key,
                     HIRL_ERR_ARG, "%s: mask is %s, want [W, %lld, %lld], W a divisor of %lld",
                     call->op, text_of(call, mask), (long long)n_query, (long long)n_key,
                     (long long)p->n_batch);
    }
    return HIRL_OK;
}

hirl_status_t hirl_op_attention(hirl_backend_t *be, const hirl_attention_param_t *p,
                                const hirl_tensor_t *q, const hirl_tensor_t *k,
                                const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                const hirl_tensor_t *mask, hirl_tensor_t *y, hirl_tensor_t *lse) {
    BEGIN(attention);
    PASS(check_attention(&call, p, q, k, v, bias, mask));
    const int64_t n_rows = q->shape.dim[0];
    GIVE(y, hirl_shape_2(n_rows, p->n_heads * p->head_size), q->dtype);
    if (lse) GIVE(lse, hirl_shape_3(p->n_batch, p->n_heads, n_rows / p->n_batch), HIRL_F32);
    RUN(attention, p, q, k, v, bias, mask, y, lse);
}

/// The gradients of q, k and v: outputs that share a tensor have slices of their own, and a new tensor is 0 outside them.
static hirl_status_t give_slices(call_t *call, const hirl_attention_param_t *p,
                                 hirl_tensor_t *const output[3],
                                 const hirl_tensor_t *const input[3]) {
    static const char *const names[] = {"dq", "dk", "dv"};
    const int64_t column[] = {p->q_column, p->k_column, p->v_column};
    const int64_t width = p->n_heads * p->head_size;
    for (int i = 0; i < 3; ++i) {
        if (!output[i]) continue;
        const bool is_new = !hirl_tensor_is_set(output[i]);
        HIRL_TRY(give(call, names[i], output[i], input[i]->shape, input[i]->dtype, false));
        int64_t n_written = width;
        for (int j = 0; j < 3; ++j) {
            if (j == i || !output[j] ||
                (output[j] != output[i] &&
                 (!hirl_tensor_is_set(output[j]) ||
                  hirl_tensor_data(output[j]) != hirl_tensor_data(output[i]))))
                continue;
            n_written += width;
            HIRL_REQUIRE(column[i] + width <= column[j] || column[j] + width <= column[i],
                         HIRL_ERR_ARG,
                         "%s: %s and %s share a tensor, but columns %lld.. and %lld.. of %lld "
                         "overlap",
                         call->op, names[i], names[j], (long long)column[i], (long long)column[j],
                         (long long)width);
        }
        if (is_new && n_written < input[i]->shape.dim[1])
            HIRL_TRY(hirl_op_fill(call->be, 0, output[i]));
    }
    return HIRL_OK;
}

hirl_status_t hirl_op_attention_backward(hirl_backend_t *be, const hirl_attention_param_t *p,
                                         const hirl_tensor_t *q, const hirl_tensor_t *k,
                                         const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                         const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                         const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                         hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                         hirl_tensor_t *dbias) {
    BEGIN(attention_backward);
    PASS(check_attention(&call, p, q, k, v, bias, mask));
    const int64_t n_rows = q->shape.dim[0], n_query = n_rows / p->n_batch;
    const hirl_shape_t out = hirl_shape_2(n_rows, p->n_heads * p->head_size),
                       rows = hirl_shape_3(p->n_batch, p->n_heads, n_query);
    TAKE_PLAIN(y, 1 << q->dtype, MATRIX);
    TAKE_PLAIN(dy, 1 << q->dtype, MATRIX);
    NEED_SAME(dy, y);
    NEED(hirl_shape_equal(&y->shape, &out), "attention_backward: y is %s, want %s",
         text_of(&call, y), text_of_shape(&call, &out));
    TAKE_PLAIN(lse, F32, 3);
    NEED(hirl_shape_equal(&lse->shape, &rows), "attention_backward: lse is %s, want %s",
         text_of(&call, lse), text_of_shape(&call, &rows));
    NEED(dq || dk || dv || dbias, "attention_backward: no output given");
    NEED(bias || !dbias, "attention_backward: dbias without bias");
    PASS(
        give_slices(&call, p, (hirl_tensor_t *[]){dq, dk, dv}, (const hirl_tensor_t *[]){q, k, v}));
    if (dbias) GIVE(dbias, bias->shape, HIRL_F32);
    RUN(attention_backward, p, q, k, v, bias, mask, y, lse, dy, dq, dk, dv, dbias);
}

// ---------------------------------------------------------------------------------------------- losses

/// Logits [N, K] and a target [N] below K.
static hirl_status_t check_target(call_t *call, const hirl_tensor_t *logits,
                                  const hirl_tensor_t *target) {
    HIRL_TRY(check_plain(call, "logits", logits, F32, MATRIX));
    HIRL_TRY(check_plain(call, "target", target, I32, VECTOR));
    HIRL_REQUIRE(target->shape.dim[0] == logits->shape.dim[0], HIRL_ERR_ARG,
                 "%s: logits are %s but target is %s", call->op, text_of(call, logits),
                 text_of(call, target));
    return check_indices(call, "target", target, 0, 1, logits->shape.dim[1]);
}

hirl_status_t hirl_op_cross_entropy(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                    const hirl_tensor_t *target, hirl_tensor_t *loss,
                                    hirl_tensor_t *lse, hirl_tensor_t *correct) {
    BEGIN(cross_entropy);
    NEED_FINITE(scale);
    PASS(check_target(&call, logits, target));
    GIVE(loss, hirl_shape_1(1), HIRL_F32);
    GIVE(lse, hirl_shape_1(logits->shape.dim[0]), HIRL_F32);
    if (correct) GIVE(correct, hirl_shape_1(1), HIRL_F32);
    RUN(cross_entropy, logits, scale, target, loss, lse, correct);
}

hirl_status_t hirl_op_cross_entropy_backward(hirl_backend_t *be, const hirl_tensor_t *logits,
                                             float scale, const hirl_tensor_t *target,
                                             const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                             hirl_tensor_t *dlogits) {
    BEGIN(cross_entropy_backward);
    NEED_FINITE(scale);
    PASS(check_target(&call, logits, target));
    TAKE_VECTOR(lse, logits->shape.dim[0]);
    TAKE_VECTOR(dloss, 1);
    GIVE(dlogits, logits->shape, HIRL_F32);
    RUN(cross_entropy_backward, logits, scale, target, lse, dloss, dlogits);
}

static hirl_status_t check_paths(call_t *call, int n_levels, const hirl_tensor_t *const *similarity,
                                 const hirl_tensor_t *positive, const hirl_tensor_t *negative) {
    HIRL_REQUIRE(n_levels >= 1 && n_levels <= HIRL_PATH_MAX_LEVELS && similarity, HIRL_ERR_ARG,
                 "%s: %d levels, want 1..%d", call->op, n_levels, (int)HIRL_PATH_MAX_LEVELS);
    HIRL_TRY(check_plain(call, "positive", positive, I32, MATRIX));
    HIRL_TRY(check_plain(call, "negative", negative, I32, 3));
    const int64_t n = positive->shape.dim[0];
    HIRL_REQUIRE(positive->shape.dim[1] == n_levels && negative->shape.dim[0] == n &&
                     negative->shape.dim[2] == n_levels,
                 HIRL_ERR_ARG, "%s: positive is %s and negative is %s, want [B, %d] and [B, M, %d]",
                 call->op, text_of(call, positive), text_of(call, negative), n_levels, n_levels);
    for (int l = 0; l < n_levels; ++l) {
        HIRL_TRY(check_plain(call, "similarity", similarity[l], F32, MATRIX));
        HIRL_REQUIRE(similarity[l]->shape.dim[0] == n, HIRL_ERR_ARG,
                     "%s: similarity of level %d is %s, want %lld rows", call->op, l,
                     text_of(call, similarity[l]), (long long)n);
        HIRL_TRY(
            check_indices(call, "positive", positive, l, n_levels, similarity[l]->shape.dim[1]));
        HIRL_TRY(
            check_indices(call, "negative", negative, l, n_levels, similarity[l]->shape.dim[1]));
    }
    return HIRL_OK;
}

hirl_status_t hirl_op_path_loss(hirl_backend_t *be, int n_levels,
                                const hirl_tensor_t *const *similarity,
                                const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                hirl_tensor_t *loss, hirl_tensor_t *terms) {
    BEGIN(path_loss);
    PASS(check_paths(&call, n_levels, similarity, positive, negative));
    GIVE(loss, hirl_shape_1(1), HIRL_F32);
    if (terms) GIVE(terms, hirl_shape_1(2), HIRL_F32);
    RUN(path_loss, n_levels, similarity, positive, negative, loss, terms);
}

hirl_status_t hirl_op_path_loss_backward(hirl_backend_t *be, int n_levels,
                                         const hirl_tensor_t *const *similarity,
                                         const hirl_tensor_t *positive,
                                         const hirl_tensor_t *negative, const hirl_tensor_t *dloss,
                                         hirl_tensor_t *const *dsimilarity) {
    BEGIN(path_loss_backward);
    PASS(check_paths(&call, n_levels, similarity, positive, negative));
    TAKE_VECTOR(dloss, 1);
    NEED(dsimilarity, "path_loss_backward: no outputs given");
    for (int l = 0; l < n_levels; ++l)
        PASS(give(&call, "dsimilarity", dsimilarity[l], similarity[l]->shape, HIRL_F32, false));
    RUN(path_loss_backward, n_levels, similarity, positive, negative, dloss, dsimilarity);
}

// ---------------------------------------------------------------------------------------------- augmented views

static int64_t abs_64(int64_t x) { return x < 0 ? -x : x; }

// Operation j of view i.
static hirl_status_t check_view_op(const hirl_view_op_t *op, int64_t i, int j) {
    const bool is_warp = op->kind >= HIRL_VIEW_TURN;
    int most = 0;
    double limit = DBL_MAX;
    if (op->kind == HIRL_VIEW_POSTERIZE) most = 8;
    if (op->kind == HIRL_VIEW_SOLARIZE) most = 256;
    if (op->kind == HIRL_VIEW_SOLARIZE_ADD) most = 255;
    // Places of pixels must stay within 16 bits.
    if (op->kind == HIRL_VIEW_SHEAR_X || op->kind == HIRL_VIEW_SHEAR_Y) limit = 2;
    if (op->kind == HIRL_VIEW_MOVE_X || op->kind == HIRL_VIEW_MOVE_Y)
        limit = 2 * HIRL_VIEW_SIDE_MAX;
    HIRL_REQUIRE(op->kind >= 0 && op->kind < HIRL_VIEW_N_KINDS, HIRL_ERR_ARG,
                 "make_views: operation %d of view %lld is of kind %d, want 0..%d", j, (long long)i,
                 (int)op->kind, (int)HIRL_VIEW_N_KINDS - 1);
    HIRL_REQUIRE(op->n >= 0 && (most == 0 || op->n <= most), HIRL_ERR_ARG,
                 "make_views: operation %d of view %lld has n = %d, want 0..%d", j, (long long)i,
                 (int)op->n, most);
    HIRL_REQUIRE(fabs(op->value) <= limit, HIRL_ERR_ARG,
                 "make_views: operation %d of view %lld has value %g, want it within +-%g", j,
                 (long long)i, op->value, limit);
    HIRL_REQUIRE(
        op->kind != HIRL_VIEW_TURN || fabs(op->value * op->value + op->sine * op->sine - 1) < 1e-9,
        HIRL_ERR_ARG, "make_views: operation %d of view %lld turns by cosine %g and sine %g", j,
        (long long)i, op->value, op->sine);
    HIRL_REQUIRE(!is_warp || op->filter == HIRL_FILTER_BILINEAR ||
                     op->filter == HIRL_FILTER_BICUBIC || op->filter == HIRL_FILTER_NEAREST,
                 HIRL_ERR_ARG,
                 "make_views: operation %d of view %lld has filter %d; want nearest, bilinear or "
                 "bicubic",
                 j, (long long)i, (int)op->filter);
    return HIRL_OK;
}

static hirl_status_t check_recipe(const hirl_view_recipe_t *r, int64_t i, int size, int channels,
                                  int64_t n_bytes) {
    const int most = HIRL_VIEW_IMAGE_SIDE_MAX;
    HIRL_REQUIRE(r->height >= 1 && r->height <= most && r->width >= 1 && r->width <= most,
                 HIRL_ERR_ARG, "make_views: image %lld is %d x %d, want sides of 1..%d",
                 (long long)i, (int)r->height, (int)r->width, most);
    const int64_t bytes = (int64_t)r->height * r->width * channels;
    HIRL_REQUIRE(r->offset >= 0 && bytes <= n_bytes && r->offset <= n_bytes - bytes, HIRL_ERR_ARG,
                 "make_views: image %lld of %d x %d x %d at byte %lld lies outside of the %lld "
                 "bytes of pixels",
                 (long long)i, (int)r->height, (int)r->width, channels, (long long)r->offset,
                 (long long)n_bytes);
    HIRL_REQUIRE(r->top >= 0 && r->left >= 0 && r->crop_height >= 1 && r->crop_width >= 1 &&
                     r->crop_height <= r->height && r->crop_width <= r->width &&
                     r->top <= r->height - r->crop_height && r->left <= r->width - r->crop_width,
                 HIRL_ERR_ARG,
                 "make_views: crop %lld of %d x %d at (%d, %d) lies outside of its %d x %d image",
                 (long long)i, (int)r->crop_height, (int)r->crop_width, (int)r->top, (int)r->left,
                 (int)r->height, (int)r->width);
    HIRL_REQUIRE(r->filter >= 0 && r->filter <= HIRL_FILTER_LANCZOS, HIRL_ERR_ARG,
                 "make_views: view %lld is resized by filter %d, want bilinear, bicubic or Lanczos",
                 (long long)i, (int)r->filter);
    HIRL_REQUIRE(r->resized_height >= 0 && r->resized_width >= 0 &&
                     (r->resized_height > 0) == (r->resized_width > 0) &&
                     abs_64(r->window_y) <= INT32_MAX / 2 && abs_64(r->window_x) <= INT32_MAX / 2,
                 HIRL_ERR_ARG,
                 "make_views: view %lld is a window at (%d, %d) of an image resized to %d x %d",
                 (long long)i, (int)r->window_y, (int)r->window_x, (int)r->resized_height,
                 (int)r->resized_width);
    HIRL_REQUIRE(r->n_ops >= 0 && r->n_ops <= HIRL_VIEW_MAX_OPS, HIRL_ERR_ARG,
                 "make_views: view %lld has %d operations, want 0..%d", (long long)i, (int)r->n_ops,
                 (int)HIRL_VIEW_MAX_OPS);
    for (int j = 0; j < r->n_ops; ++j) HIRL_TRY(check_view_op(&r->op[j], i, j));
    HIRL_REQUIRE(!r->has_blur || (r->blur_sigma >= 0 && r->blur_sigma <= 1000), HIRL_ERR_ARG,
                 "make_views: view %lld has a blur of %g pixels, want 0..1000", (long long)i,
                 r->blur_sigma);
    HIRL_REQUIRE(isfinite(r->shift[0]) && isfinite(r->shift[1]) && isfinite(r->shift[2]),
                 HIRL_ERR_ARG, "make_views: view %lld is shifted by (%g, %g, %g)", (long long)i,
                 r->shift[0], r->shift[1], r->shift[2]);
    HIRL_REQUIRE(
        r->erase_height == 0 ||
            (r->erase_top >= 0 && r->erase_left >= 0 && r->erase_height >= 0 &&
             r->erase_width >= 0 && r->erase_height <= size && r->erase_width <= size &&
             r->erase_top <= size - r->erase_height && r->erase_left <= size - r->erase_width),
        HIRL_ERR_ARG,
        "make_views: the erased %d x %d at (%d, %d) of view %lld lies outside of its %d x %d",
        (int)r->erase_height, (int)r->erase_width, (int)r->erase_top, (int)r->erase_left,
        (long long)i, size, size);
    HIRL_REQUIRE(r->erase_height == 0 || (r->noise.counter[0] == 0 && r->noise.n_left == 0),
                 HIRL_ERR_ARG, "make_views: the noise of view %lld has been drawn from",
                 (long long)i);
    return HIRL_OK;
}

hirl_status_t hirl_op_make_views(hirl_backend_t *be, const hirl_tensor_t *pixels,
                                 const hirl_view_recipe_t *recipes, int64_t n, int size,
                                 int channels, const float *mean, const float *std,
                                 hirl_tensor_t *y) {
    BEGIN(make_views);
    TAKE_PLAIN(pixels, 1 << HIRL_U8, VECTOR);
    NEED(recipes && n >= 1 && n <= INT32_MAX, "make_views: %lld recipes given",
         recipes ? (long long)n : 0LL);
    NEED(size >= 1 && size <= HIRL_VIEW_SIDE_MAX, "make_views: views of side %d, want 1..%d", size,
         (int)HIRL_VIEW_SIDE_MAX);
    NEED(channels == 1 || channels == 3, "make_views: %d channels, want 1 or 3", channels);
    NEED(mean && std, "make_views: no mean or no std given");
    for (int c = 0; c < channels; ++c)
        NEED(isfinite(mean[c]) && isfinite(std[c]) && std[c] > 0,
             "make_views: channel %d has mean %g and std %g, want a std above 0", c,
             (double)mean[c], (double)std[c]);
    for (int64_t i = 0; i < n; ++i)
        PASS(check_recipe(&recipes[i], i, size, channels, pixels->shape.dim[0]));
    GIVE(y, hirl_shape_4(n, size, size, channels), HIRL_F32);
    RUN(make_views, pixels, recipes, n, size, channels, mean, std, y);
}

// ---------------------------------------------------------------------------------------------- parameter updates

#define TAKE_SLAB(x, n)                                                                    \
    do {                                                                                   \
        TAKE_PLAIN(x, F32, ANY_AXES);                                                      \
        NEED(hirl_tensor_count(x) == (n), "%s: %s is %s, want %lld elements", call.op, #x, \
             text_of(&call, x), (long long)(n));                                           \
    } while (0)

static hirl_status_t check_segments(call_t *call, const hirl_segments_t *segments,
                                    const hirl_tensor_t *slab) {
    HIRL_REQUIRE(segments && segments->be == call->be, HIRL_ERR_ARG,
                 "%s: no segments given, or another backend's", call->op);
    HIRL_REQUIRE(segments->end <= hirl_tensor_count(slab), HIRL_ERR_ARG,
                 "%s: segments reach element %lld of a slab that is %s", call->op,
                 (long long)segments->end, text_of(call, slab));
    return HIRL_OK;
}

hirl_status_t hirl_op_update(hirl_backend_t *be, const hirl_update_t *update,
                             const hirl_segments_t *segments, const hirl_tensor_t *g,
                             hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p) {
    BEGIN(update);
    NEED(update, "update: no rule given");
    const hirl_update_t *u = update;
    const bool is_adamw = u->rule == HIRL_RULE_ADAMW;
    NEED(u->rule >= HIRL_RULE_SGD && u->rule <= HIRL_RULE_LARS_JOINT, "update: rule %d",
         (int)u->rule);
    NEED(isfinite(u->lr), "update: lr is %g", (double)u->lr);
    NEED(isfinite(u->grad_scale), "update: grad_scale is %g", (double)u->grad_scale);
    NEED(isfinite(u->eps) && u->eps >= 0, "update: eps is %g", (double)u->eps);
    NEED(is_adamw || isfinite(u->momentum), "update: momentum is %g", (double)u->momentum);
    NEED(is_adamw || isfinite(u->trust), "update: trust is %g", (double)u->trust);
    NEED(!is_adamw || (u->beta1 >= 0 && u->beta1 < 1 && u->beta2 >= 0 && u->beta2 < 1),
         "update: betas %g and %g, want [0, 1)", (double)u->beta1, (double)u->beta2);
    TAKE_PLAIN(p, F32, ANY_AXES);
    TAKE_SLAB(g, hirl_tensor_count(p));
    TAKE_SLAB(v, hirl_tensor_count(p));
    if (is_adamw) TAKE_SLAB(w, hirl_tensor_count(p));
    PASS(check_segments(&call, segments, p));
    for (int64_t i = 0; is_adamw && i < segments->n; ++i)
        NEED(u->step - segments->segment[i].lag >= 1,
             "update: step %lld of segment %lld, want 1 at least",
             (long long)(u->step - segments->segment[i].lag), (long long)i);
    RUN(update, update, segments, g, v, w, p);
}

hirl_status_t hirl_op_ema(hirl_backend_t *be, float m, const hirl_tensor_t *x, hirl_tensor_t *y) {
    BEGIN(ema);
    NEED_FINITE(m);
    TAKE_PLAIN(y, F32, ANY_AXES);
    TAKE_SLAB(x, hirl_tensor_count(y));
    RUN(ema, m, x, y);
}

hirl_status_t hirl_op_sum_squares_of(hirl_backend_t *be, int n,
                                     const hirl_segments_t *const *segments,
                                     const hirl_tensor_t *const *x, double *sum_p) {
    BEGIN(sum_squares_of);
    NEED(n >= 0 && (n == 0 || (segments && x)) && sum_p,
         "sum_squares_of: no slabs or no output given");
    for (int i = 0; i < n; ++i) {
        if (!segments[i]) continue;
        TAKE_PLAIN(x[i], F32, ANY_AXES);
        PASS(check_segments(&call, segments[i], x[i]));
    }
    RUN(sum_squares_of, n, segments, x, sum_p);
}

hirl_status_t hirl_op_sum_squares(hirl_backend_t *be, const hirl_tensor_t *x, double *sum_p) {
    HIRL_REQUIRE(be && x && hirl_tensor_is_set(x), HIRL_ERR_ARG,
                 "sum_squares: no backend or no tensor given");
    // A list of one, which needs no memory on hosts.
    hirl_segment_t all = {.count = hirl_tensor_count(x)};
    hirl_segments_t list = {.be = be, .segment = &all, .n = all.count > 0, .end = all.count};
    hirl_status_t status = HIRL_OK;
    if (list.n > 0 && be->ops->pack_segments) status = be->ops->pack_segments(be, &list);
    if (status == HIRL_OK)
        status = hirl_op_sum_squares_of(be, 1, (const hirl_segments_t *const[]){&list}, &x, sum_p);
    hirl_tensor_reset(&list.packed);
    return status;
}

// ---------------------------------------------------------------------------------------------- clusters and neighbours

/// More rows than an i32 can number.
#define NEED_NUMBERED(x)                                                                      \
    NEED((x)->shape.dim[0] < INT32_MAX, "%s: %s is %s, want fewer than %d rows", call.op, #x, \
         text_of(&call, x), INT32_MAX)
#define NEED_COLUMNS(x, like)                                                                 \
    NEED((x)->shape.dim[1] == (like)->shape.dim[1], "%s: %s is %s but %s is %s", call.op, #x, \
         text_of(&call, x), #like, text_of(&call, like))
#define NEED_INDEX(index, x)                                                                  \
    NEED((index)->shape.dim[0] == (x)->shape.dim[0], "%s: index is %s but %s is %s", call.op, \
         text_of(&call, index), #x, text_of(&call, x))

hirl_status_t hirl_op_nearest_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                                   const hirl_tensor_t *c, const hirl_tensor_t *half_norm,
                                   hirl_tensor_t *index, hirl_tensor_t *value) {
    BEGIN(nearest_rows);
    TAKE_PLAIN(x, F32, MATRIX);
    TAKE_PLAIN(c, F32, MATRIX);
    NEED_COLUMNS(c, x);
    NEED_NUMBERED(c);
    TAKE_VECTOR(half_norm, c->shape.dim[0]);
    GIVE(index, hirl_shape_1(x->shape.dim[0]), HIRL_I32);
    if (value) GIVE(value, hirl_shape_1(x->shape.dim[0]), HIRL_F32);
    RUN(nearest_rows, x, c, half_norm, index, value);
}

hirl_status_t hirl_op_top_rows(hirl_backend_t *be, const hirl_tensor_t *query,
                               const hirl_tensor_t *bank, int64_t k, int64_t piece,
                               hirl_tensor_t *score, hirl_tensor_t *index) {
    BEGIN(top_rows);
    TAKE_PLAIN(query, F32, MATRIX);
    TAKE_PLAIN(bank, F32, MATRIX);
    NEED_COLUMNS(bank, query);
    NEED_NUMBERED(bank);
    NEED(k >= 1 && k <= bank->shape.dim[0], "top_rows: %lld rows of bank, which is %s",
         (long long)k, text_of(&call, bank));
    NEED(piece >= 0, "top_rows: %lld rows at once", (long long)piece);
    GIVE(score, hirl_shape_2(query->shape.dim[0], k), HIRL_F32);
    GIVE(index, hirl_shape_2(query->shape.dim[0], k), HIRL_I32);
    RUN(top_rows, query, bank, k, piece, score, index);
}

hirl_status_t hirl_op_sum_rows(hirl_backend_t *be, const hirl_tensor_t *x,
                               const hirl_tensor_t *index, double scale, bool accumulate,
                               hirl_tensor_t *sum, hirl_tensor_t *count) {
    BEGIN(sum_rows);
    TAKE_PLAIN(x, F32, MATRIX);
    TAKE_PLAIN(index, I32, VECTOR);
    NEED_INDEX(index, x);
    NEED_FINITE(scale);
    // How many sums there are is known from the outputs alone, so they must be given.
    TAKE_PLAIN(sum, 1 << HIRL_I64, MATRIX);
    TAKE_PLAIN(count, 1 << HIRL_I64, VECTOR);
    NEED_COLUMNS(sum, x);
    NEED(count->shape.dim[0] == sum->shape.dim[0], "sum_rows: count is %s but sum is %s",
         text_of(&call, count), text_of(&call, sum));
    PASS(check_indices(&call, "index", index, 0, 1, sum->shape.dim[0]));
    RUN(sum_rows, x, index, scale, accumulate, sum, count);
}

hirl_status_t hirl_op_sum_distances(hirl_backend_t *be, const hirl_tensor_t *x,
                                    const hirl_tensor_t *index, const hirl_tensor_t *c,
                                    double scale, bool accumulate, hirl_tensor_t *total) {
    BEGIN(sum_distances);
    TAKE_PLAIN(x, F32, MATRIX);
    TAKE_PLAIN(index, I32, VECTOR);
    TAKE_PLAIN(c, F32, MATRIX);
    NEED_INDEX(index, x);
    NEED_COLUMNS(c, x);
    NEED_FINITE(scale);
    TAKE_PLAIN(total, 1 << HIRL_I64, VECTOR);
    NEED(total->shape.dim[0] == 1, "sum_distances: total is %s, want [1]", text_of(&call, total));
    PASS(check_indices(&call, "index", index, 0, 1, c->shape.dim[0]));
    RUN(sum_distances, x, index, c, scale, accumulate, total);
}
