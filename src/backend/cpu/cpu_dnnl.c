/// Everything that knows oneDNN: its engine, memory layouts, and operations, which are created once per set of shapes and kept.
/// Written for the C API of version 2 (2.6 or later); version 3 has no operation descriptors and opaque memory descriptors, so
/// another file of this kind would serve it. Scratchpads come from the backend's pool; looking up an operation allocates nothing.
#include "cpu_impl.h"

#include <dnnl.h>
#include <dnnl_debug.h>

#include <stdio.h>
#include <string.h>

#if DNNL_VERSION_MAJOR != 2 || DNNL_VERSION_MINOR < 6
#error "this file wants oneDNN 2.6 or later of version 2"
#endif

#define HIRL_TRY_DNNL(expr)                                                                       \
    do {                                                                                          \
        const dnnl_status_t try_dnnl_ = (expr);                                                   \
        if (try_dnnl_ != dnnl_success)                                                            \
            return HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to %s", dnnl_status2str(try_dnnl_), \
                             #expr);                                                              \
    } while (0)

enum { KEY_LENGTH = 16, MAX_ARGS = 6, N_BUCKETS = 1024, MAX_DIMENSIONS = 4 };

/// What tells operations apart; unused places are 0.
typedef struct key {
    int64_t value[KEY_LENGTH];
} op_key_t;

typedef struct layout {
    cpu_layout_t view; // first: a pointer to one is a pointer to the other
    dnnl_memory_desc_t md;
    uint64_t hash;
    struct layout *next;
} layout_t;

typedef struct primitive {
    cpu_primitive_t view; // first
    op_key_t key;
    dnnl_primitive_t handle;
    int n_args; // the scratchpad is the last one
    dnnl_exec_arg_t args[MAX_ARGS];
    size_t scratch_bytes;
    struct primitive *next;
} primitive_t;

struct cpu_dnnl {
    const hirl_allocator_t *allocator;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int lanes; // channels per block
    layout_t *layouts[N_BUCKETS];
    primitive_t *primitives[N_BUCKETS];
};

// ---------------------------------------------------------------------------------------------- life

hirl_status_t hirl_cpu_dnnl_create(const hirl_allocator_t *allocator, cpu_dnnl_t **dnnl_p) {
    const dnnl_version_t *version = dnnl_version();
    HIRL_REQUIRE(
        version->major == 2 && version->minor >= 6, HIRL_ERR_DNNL,
        "oneDNN is version %d.%d.%d, but this program was built for 2.6 or later of version 2",
        version->major, version->minor, version->patch);
    cpu_dnnl_t *dnnl = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &dnnl));
    dnnl->allocator = allocator;
    dnnl->lanes = dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx512_mic ? 16 : 8;
    dnnl_status_t status = dnnl_engine_create(&dnnl->engine, dnnl_cpu, 0);
    if (status == dnnl_success)
        status = dnnl_stream_create(&dnnl->stream, dnnl->engine, dnnl_stream_default_flags);
    if (status != dnnl_success) {
        hirl_cpu_dnnl_destroy(&dnnl);
        return HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to making a CPU engine and stream",
                         dnnl_status2str(status));
    }
    *dnnl_p = dnnl;
    return HIRL_OK;
}

static void destroy_primitive(primitive_t *primitive) {
    if (!primitive) return;
    for (int i = 0; i < primitive->n_args; ++i)
        if (primitive->args[i].memory) dnnl_memory_destroy(primitive->args[i].memory);
    if (primitive->handle) dnnl_primitive_destroy(primitive->handle);
    hirl_mem_free(primitive);
}

void hirl_cpu_dnnl_destroy(cpu_dnnl_t **dnnl_p) {
    cpu_dnnl_t *dnnl = dnnl_p ? *dnnl_p : NULL;
    if (!dnnl) return;
    *dnnl_p = NULL;
    for (int i = 0; i < N_BUCKETS; ++i) {
        while (dnnl->primitives[i]) {
            primitive_t *next = dnnl->primitives[i]->next;
            destroy_primitive(dnnl->primitives[i]);
            dnnl->primitives[i] = next;
        }
        while (dnnl->layouts[i]) {
            layout_t *next = dnnl->layouts[i]->next;
            hirl_mem_free(dnnl->layouts[i]);
            dnnl->layouts[i] = next;
        }
    }
    if (dnnl->stream) dnnl_stream_destroy(dnnl->stream);
    if (dnnl->engine) dnnl_engine_destroy(dnnl->engine);
    hirl_mem_free(dnnl);
}

void hirl_cpu_dnnl_describe(char *buf, size_t size) {
    static const struct {
        dnnl_cpu_isa_t isa;
        const char *name;
    } names[] = {{dnnl_cpu_isa_sse41, "sse41"},
                 {dnnl_cpu_isa_avx, "avx"},
                 {dnnl_cpu_isa_avx2, "avx2"},
                 {dnnl_cpu_isa_avx2_vnni, "avx2_vnni"},
                 {dnnl_cpu_isa_avx512_core, "avx512_core"},
                 {dnnl_cpu_isa_avx512_core_vnni, "avx512_core_vnni"},
                 {dnnl_cpu_isa_avx512_core_bf16, "avx512_core_bf16"},
                 {dnnl_cpu_isa_avx512_core_amx, "avx512_core_amx"}};
    const dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    const char *name = "best instruction set";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        if (names[i].isa == isa) name = names[i].name;
    const dnnl_version_t *version = dnnl_version();
    snprintf(buf, size, "oneDNN %d.%d.%d, %s", version->major, version->minor, version->patch,
             name);
}

bool hirl_cpu_has_bf16(const cpu_ctx_t *ctx) { return ctx->dnnl->lanes == 16; }

// ---------------------------------------------------------------------------------------------- layouts

static dnnl_data_type_t dnnl_type(hirl_dtype_t dtype) {
    return dtype == HIRL_BF16 ? dnnl_bf16 : dnnl_f32;
}

static uint64_t hash_of(const dnnl_memory_desc_t *md) {
    const dnnl_blocking_desc_t *blocking = &md->format_desc.blocking;
    int64_t value[3 * MAX_DIMENSIONS + 4] = {md->ndims, (int64_t)md->data_type,
                                             (int64_t)md->format_kind, blocking->inner_nblks};
    for (int i = 0; i < md->ndims && i < MAX_DIMENSIONS; ++i) {
        value[4 + 3 * i] = md->dims[i];
        value[5 + 3 * i] = md->padded_dims[i];
        value[6 + 3 * i] = md->format_kind == dnnl_blocked ? blocking->strides[i] : 0;
    }
    return hirl_hash64(value, sizeof value);
}

/// True if elements lie in memory as in [N, H, W, C] without gaps. Axes of length 1 may have any stride.
static bool is_plain_image(const dnnl_memory_desc_t *md) {
    const dnnl_blocking_desc_t *blocking = &md->format_desc.blocking;
    if (md->ndims != 4 || md->format_kind != dnnl_blocked || blocking->inner_nblks != 0 ||
        md->offset0 != 0 || md->extra.flags != dnnl_memory_extra_flag_none)
        return false;
    static const int order[4] = {1, 3, 2, 0}; // C fastest, then W, H, N
    int64_t stride = 1;
    for (int i = 0; i < 4; ++i) {
        const int axis = order[i];
        if (md->padded_dims[axis] != md->dims[axis]) return false;
        if (md->dims[axis] > 1 && blocking->strides[axis] != stride) return false;
        stride *= md->dims[axis];
    }
    return true;
}

/// Channels per block if md is [N][C / lanes][H][W][lanes] without gaps, else 0.
static int lanes_of(const dnnl_memory_desc_t *md) {
    const dnnl_blocking_desc_t *blocking = &md->format_desc.blocking;
    if (md->ndims != 4 || md->format_kind != dnnl_blocked || blocking->inner_nblks != 1 ||
        blocking->inner_idxs[0] != 1 || md->offset0 != 0 ||
        md->extra.flags != dnnl_memory_extra_flag_none)
        return 0;
    const int64_t lanes = blocking->inner_blks[0];
    if (lanes != 8 && lanes != 16) return 0;
    const int64_t padded = (md->dims[1] + lanes - 1) / lanes * lanes;
    if (md->padded_dims[1] != padded || md->padded_dims[0] != md->dims[0] ||
        md->padded_dims[2] != md->dims[2] || md->padded_dims[3] != md->dims[3])
        return 0;
    const int64_t w = lanes, h = w * md->dims[3], c = h * md->dims[2], n = c * (padded / lanes);
    const dnnl_dim_t *strides = blocking->strides;
    return strides[3] == w && strides[2] == h && strides[1] == c && strides[0] == n ? (int)lanes
                                                                                    : 0;
}

static hirl_status_t intern(cpu_ctx_t *ctx, const dnnl_memory_desc_t *md, bool is_image,
                            const cpu_layout_t **layout_p) {
    cpu_dnnl_t *dnnl = ctx->dnnl;
    const uint64_t hash = hash_of(md);
    layout_t **bucket = &dnnl->layouts[hash % N_BUCKETS];
    for (layout_t *layout = *bucket; layout; layout = layout->next) {
        if (layout->hash == hash && dnnl_memory_desc_equal(&layout->md, md)) {
            *layout_p = &layout->view;
            return HIRL_OK;
        }
    }
    layout_t *layout = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &layout));
    layout->md = *md;
    layout->hash = hash;
    layout->view.dtype = md->data_type == dnnl_bf16 ? HIRL_BF16 : HIRL_F32;
    layout->view.bytes = dnnl_memory_desc_get_size(md);
    layout->view.is_plain = is_image && is_plain_image(md);
    layout->view.lanes = is_image ? lanes_of(md) : 0;
    layout->view.head.owner = ctx;
    if (layout->view.lanes)
        snprintf(layout->view.head.name, sizeof layout->view.head.name, "nChw%dc",
                 layout->view.lanes);
    else
        snprintf(layout->view.head.name, sizeof layout->view.head.name, "%s",
                 layout->view.is_plain ? "plain" : "oneDNN's own");
    layout->next = *bucket;
    *bucket = layout;
    *layout_p = &layout->view;
    return HIRL_OK;
}

static const dnnl_memory_desc_t *md_of(const cpu_layout_t *layout) {
    return &((const layout_t *)(const void *)layout)->md;
}

/// oneDNN names the axes of an image N, C, H, W whatever the layout.
static void image_dims(const hirl_shape_t *shape, dnnl_dims_t dims) {
    dims[0] = shape->dim[0];
    dims[1] = shape->dim[3];
    dims[2] = shape->dim[1];
    dims[3] = shape->dim[2];
}

static hirl_status_t image_md(const hirl_shape_t *shape, hirl_dtype_t dtype, dnnl_format_tag_t tag,
                              dnnl_memory_desc_t *md_p) {
    dnnl_dims_t dims = {0};
    image_dims(shape, dims);
    HIRL_TRY_DNNL(dnnl_memory_desc_init_by_tag(md_p, 4, dims, dnnl_type(dtype), tag));
    return HIRL_OK;
}

hirl_status_t hirl_cpu_layout_plain(cpu_ctx_t *ctx, const hirl_shape_t *shape, hirl_dtype_t dtype,
                                    const cpu_layout_t **layout_p) {
    dnnl_memory_desc_t md;
    HIRL_TRY(image_md(shape, dtype, dnnl_nhwc, &md));
    return intern(ctx, &md, true, layout_p);
}

hirl_status_t hirl_cpu_layout_of(cpu_ctx_t *ctx, const hirl_tensor_t *x,
                                 const cpu_layout_t **layout_p) {
    if (!x->layout) return hirl_cpu_layout_plain(ctx, &x->shape, x->dtype, layout_p);
    *layout_p = cpu_layout_view(x);
    return HIRL_OK;
}

hirl_status_t hirl_cpu_layout_blocked(cpu_ctx_t *ctx, const hirl_shape_t *shape, hirl_dtype_t dtype,
                                      const cpu_layout_t **layout_p) {
    dnnl_memory_desc_t md;
    HIRL_TRY(image_md(shape, dtype, ctx->dnnl->lanes == 16 ? dnnl_nChw16c : dnnl_nChw8c, &md));
    return intern(ctx, &md, true, layout_p);
}

hirl_status_t hirl_cpu_layout_weights(cpu_ctx_t *ctx, const hirl_shape_t *shape,
                                      const cpu_layout_t **layout_p) {
    const dnnl_dims_t dims = {shape->dim[0], shape->dim[1], shape->dim[2], shape->dim[3]};
    dnnl_memory_desc_t md;
    HIRL_TRY_DNNL(dnnl_memory_desc_init_by_tag(&md, 4, dims, dnnl_f32, dnnl_oihw));
    return intern(ctx, &md, false, layout_p);
}

hirl_status_t hirl_cpu_layout_with_dtype(cpu_ctx_t *ctx, const cpu_layout_t *layout,
                                         hirl_dtype_t dtype, const cpu_layout_t **layout_p) {
    dnnl_memory_desc_t md = *md_of(layout);
    md.data_type = dnnl_type(dtype);
    return intern(ctx, &md, true, layout_p);
}

// ---------------------------------------------------------------------------------------------- operations in general

static primitive_t *find_primitive(const cpu_dnnl_t *dnnl, const op_key_t *key, uint64_t hash) {
    primitive_t *primitive = dnnl->primitives[hash % N_BUCKETS];
    while (primitive && memcmp(&primitive->key, key, sizeof *key) != 0) primitive = primitive->next;
    return primitive;
}

typedef struct argument {
    int index; // DNNL_ARG_...
    const dnnl_memory_desc_t *md;
} argument_t;

/// Makes the operation of `pd` with the arguments given (md NULL ends the list) and keeps it under `key`. Destroys pd.
static hirl_status_t keep_primitive(cpu_ctx_t *ctx, const op_key_t *key, uint64_t hash,
                                    dnnl_primitive_desc_t pd, const argument_t *arguments,
                                    primitive_t **primitive_p) {
    cpu_dnnl_t *dnnl = ctx->dnnl;
    primitive_t *primitive = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &primitive);
    if (status != HIRL_OK) {
        dnnl_primitive_desc_destroy(pd);
        return status;
    }
    primitive->key = *key;
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    primitive->scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
    dnnl_status_t error = dnnl_primitive_create(&primitive->handle, pd);
    for (int i = 0; error == dnnl_success && arguments[i].md; ++i) {
        primitive->args[i].arg = arguments[i].index;
        error = dnnl_memory_create(&primitive->args[i].memory, arguments[i].md, dnnl->engine,
                                   DNNL_MEMORY_NONE);
        primitive->n_args = i + 1;
    }
    if (error == dnnl_success && primitive->scratch_bytes > 0) {
        dnnl_exec_arg_t *arg = &primitive->args[primitive->n_args++];
        arg->arg = DNNL_ARG_SCRATCHPAD;
        error = dnnl_memory_create(&arg->memory, scratch, dnnl->engine, DNNL_MEMORY_NONE);
    }
    dnnl_primitive_desc_destroy(pd);
    if (error != dnnl_success) {
        destroy_primitive(primitive);
        return HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to creating an operation",
                         dnnl_status2str(error));
    }
    primitive->next = dnnl->primitives[hash % N_BUCKETS];
    dnnl->primitives[hash % N_BUCKETS] = primitive;
    *primitive_p = primitive;
    return HIRL_OK;
}

/// Runs with memory `data`, one pointer for each argument in the order of keep_primitive.
static hirl_status_t run(cpu_ctx_t *ctx, const primitive_t *primitive, void *const *data) {
    const int n_data = primitive->n_args - (primitive->scratch_bytes > 0);
    void *scratch = NULL;
    for (int i = 0; i < n_data; ++i)
        HIRL_TRY_DNNL(dnnl_memory_set_data_handle(primitive->args[i].memory, data[i]));
    if (primitive->scratch_bytes > 0) {
        HIRL_TRY(hirl_cpu_scratch(ctx, primitive->scratch_bytes, &scratch));
        const dnnl_status_t error =
            dnnl_memory_set_data_handle(primitive->args[n_data].memory, scratch);
        if (error != dnnl_success) {
            hirl_cpu_scratch_free(ctx, primitive->scratch_bytes, scratch);
            return HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to a scratchpad",
                             dnnl_status2str(error));
        }
    }
    dnnl_status_t error = dnnl_primitive_execute(primitive->handle, ctx->dnnl->stream,
                                                 primitive->n_args, primitive->args);
    if (error == dnnl_success) error = dnnl_stream_wait(ctx->dnnl->stream);
    hirl_cpu_scratch_free(ctx, primitive->scratch_bytes, scratch);
    HIRL_REQUIRE(error == dnnl_success, HIRL_ERR_DNNL, "oneDNN says '%s' to running an operation",
                 dnnl_status2str(error));
    return HIRL_OK;
}

/// Attributes that all operations share: the scratchpad is ours. The caller destroys them.
static hirl_status_t make_attributes(dnnl_primitive_attr_t *attr_p) {
    HIRL_TRY_DNNL(dnnl_primitive_attr_create(attr_p));
    const dnnl_status_t error =
        dnnl_primitive_attr_set_scratchpad_mode(*attr_p, dnnl_scratchpad_mode_user);
    if (error == dnnl_success) return HIRL_OK;
    dnnl_primitive_attr_destroy(*attr_p);
    return HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to a scratchpad mode",
                     dnnl_status2str(error));
}

/// Finds the best implementation of an operation descriptor.
static hirl_status_t make_pd(cpu_ctx_t *ctx, const_dnnl_op_desc_t desc,
                             const_dnnl_primitive_desc_t hint, const char *what,
                             dnnl_primitive_desc_t *pd_p) {
    dnnl_primitive_attr_t attr = NULL;
    HIRL_TRY(make_attributes(&attr));
    const dnnl_status_t error =
        dnnl_primitive_desc_create(pd_p, desc, attr, ctx->dnnl->engine, hint);
    dnnl_primitive_attr_destroy(attr);
    HIRL_REQUIRE(error == dnnl_success, HIRL_ERR_DNNL, "oneDNN says '%s' to %s",
                 dnnl_status2str(error), what);
    return HIRL_OK;
}

enum { KEY_REORDER = 100, KEY_POOL = 200, KEY_MATMUL = 300 }; // convolutions are 0, 1, 2

hirl_status_t hirl_cpu_reorder(cpu_ctx_t *ctx, const cpu_layout_t *from, const void *x,
                               const cpu_layout_t *to, void *y) {
    const op_key_t key = {{KEY_REORDER, (int64_t)(intptr_t)from, (int64_t)(intptr_t)to}};
    const uint64_t hash = hirl_hash64(&key, sizeof key);
    primitive_t *primitive = find_primitive(ctx->dnnl, &key, hash);
    if (!primitive) {
        dnnl_primitive_attr_t attr = NULL;
        HIRL_TRY(make_attributes(&attr));
        dnnl_primitive_desc_t pd = NULL;
        const dnnl_status_t error = dnnl_reorder_primitive_desc_create(
            &pd, md_of(from), ctx->dnnl->engine, md_of(to), ctx->dnnl->engine, attr);
        dnnl_primitive_attr_destroy(attr);
        HIRL_REQUIRE(error == dnnl_success, HIRL_ERR_DNNL,
                     "oneDNN says '%s' to a reorder from %s to %s", dnnl_status2str(error),
                     from->head.name, to->head.name);
        const argument_t arguments[] = {
            {DNNL_ARG_FROM, md_of(from)}, {DNNL_ARG_TO, md_of(to)}, {0, NULL}};
        HIRL_TRY(keep_primitive(ctx, &key, hash, pd, arguments, &primitive));
    }
    void *data[] = {(void *)(uintptr_t)x, y}; // oneDNN does not write to what it reads from
    return run(ctx, primitive, data);
}

// ---------------------------------------------------------------------------------------------- convolution

/// Winograd's F(4x4, 3x3) (Lavin and Gray 2016) needs a quarter of the products and pays where there are enough tiles of 4x4
/// outputs, few of them cut by the border, and channels enough to hide its transforms. Measured with one thread against the
/// direct form (forward / data / weights, times as fast): 256 x 32x32 x 64: 1.6 / 2.5 / 2.1; 256 x 16x16 x 128: 1.9 / 2.0 / 2.2;
/// 256 x 4x4 x 512: 1.8 / 1.8 / 3.2; 32 x 56x56 x 64: 2.0 / 2.4 / 2.3; 32 x 14x14 x 256: 2.5 / 2.0 / 1.6; 32 x 7x7 x 512:
/// 1.5 / 1.0 / 2.3; below the limits 0.1 to 1.1. Root mean square error against double: forward 1e-6 (direct 2e-7),
/// weights 6e-7 (direct 1e-6).
static bool is_winograd_faster(const hirl_conv_param_t *p, const hirl_shape_t *w,
                               const hirl_shape_t *y) {
    if (w->dim[2] != 3 || w->dim[3] != 3 || p->stride_h != 1 || p->stride_w != 1 || p->pad_h != 1 ||
        p->pad_w != 1)
        return false;
    const int64_t rows = (y->dim[1] + 3) / 4, columns = (y->dim[2] + 3) / 4,
                  n_tiles = y->dim[0] * rows * columns;
    const double used = (double)(y->dim[1] * y->dim[2]) / (double)(16 * rows * columns);
    const int64_t channels = w->dim[0] < w->dim[1] ? w->dim[0] : w->dim[1];
    if (channels >= 64) return used >= 0.7 && n_tiles >= 96;
    return channels >= 32 && used >= 0.9 && n_tiles >= 256;
}

/// Shapes and formats of a convolution; those to be chosen by the library are `any`.
typedef struct conv_formats {
    dnnl_memory_desc_t src, weights, gradient, bias, dst;
    dnnl_dims_t strides, pad;
    bool has_bias;
    char what[128];
} conv_formats_t;

static hirl_status_t make_conv_pd(cpu_ctx_t *ctx, cpu_conv_kind_t kind, dnnl_alg_kind_t algorithm,
                                  const conv_formats_t *f, dnnl_primitive_desc_t *pd_p) {
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t forward = NULL;
    HIRL_TRY_DNNL(dnnl_convolution_forward_desc_init(
        &desc, dnnl_forward_training, algorithm, &f->src, &f->weights,
        f->has_bias ? &f->bias : NULL, &f->dst, f->strides, f->pad, f->pad));
    HIRL_TRY(make_pd(ctx, &desc, NULL, f->what, &forward));
    if (kind == CPU_CONV_FORWARD) {
        *pd_p = forward;
        return HIRL_OK;
    }
    const dnnl_status_t error =
        kind == CPU_CONV_BACKWARD_DATA
            ? dnnl_convolution_backward_data_desc_init(&desc, algorithm, &f->src, &f->weights,
                                                       &f->dst, f->strides, f->pad, f->pad)
            : dnnl_convolution_backward_weights_desc_init(&desc, algorithm, &f->src, &f->gradient,
                                                          NULL, &f->dst, f->strides, f->pad,
                                                          f->pad);
    const hirl_status_t status =
        error == dnnl_success ? make_pd(ctx, &desc, forward, f->what, pd_p)
                              : HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to the gradient of %s",
                                          dnnl_status2str(error), f->what);
    dnnl_primitive_desc_destroy(forward);
    return status;
}

hirl_status_t hirl_cpu_conv_primitive(cpu_ctx_t *ctx, cpu_conv_kind_t kind,
                                      const hirl_conv_param_t *p, const hirl_shape_t *x,
                                      const hirl_shape_t *w, const hirl_shape_t *y,
                                      hirl_dtype_t dtype, bool has_bias,
                                      const cpu_primitive_t **primitive_p) {
    const op_key_t key = {{kind, dtype, has_bias, x->dim[0], x->dim[1], x->dim[2], x->dim[3],
                           w->dim[0], w->dim[2], w->dim[3], p->stride_h, p->stride_w, p->pad_h,
                           p->pad_w}};
    const uint64_t hash = hirl_hash64(&key, sizeof key);
    primitive_t *primitive = find_primitive(ctx->dnnl, &key, hash);
    if (primitive) {
        *primitive_p = &primitive->view;
        return HIRL_OK;
    }

    conv_formats_t f = {
        .strides = {p->stride_h, p->stride_w}, .pad = {p->pad_h, p->pad_w}, .has_bias = has_bias};
    const dnnl_dims_t weight_dims = {w->dim[0], w->dim[1], w->dim[2], w->dim[3]},
                      bias_dims = {w->dim[0]};
    HIRL_TRY(image_md(x, dtype, dnnl_format_tag_any, &f.src));
    HIRL_TRY(image_md(y, dtype, dnnl_format_tag_any, &f.dst));
    HIRL_TRY_DNNL(dnnl_memory_desc_init_by_tag(&f.weights, 4, weight_dims, dnnl_type(dtype),
                                               dnnl_format_tag_any));
    HIRL_TRY_DNNL(
        dnnl_memory_desc_init_by_tag(&f.gradient, 4, weight_dims, dnnl_f32, dnnl_format_tag_any));
    HIRL_TRY_DNNL(dnnl_memory_desc_init_by_tag(&f.bias, 1, bias_dims, dnnl_f32, dnnl_a));
    snprintf(f.what, sizeof f.what,
             "a convolution: %s, %lldx%lldx%lldx%lld (NHWC) to %lld channels, kernel %lldx%lld",
             hirl_dtype_name(dtype), (long long)x->dim[0], (long long)x->dim[1],
             (long long)x->dim[2], (long long)x->dim[3], (long long)w->dim[0], (long long)w->dim[2],
             (long long)w->dim[3]);
    dnnl_primitive_desc_t pd = NULL;
    hirl_status_t status = HIRL_ERR_UNSUPPORTED;
    if (dtype == HIRL_F32 && is_winograd_faster(p, w, y)) {
        status = make_conv_pd(ctx, kind, dnnl_convolution_winograd, &f, &pd);
        if (status != HIRL_OK) hirl_error_reset(); // not on this processor
    }
    if (status != HIRL_OK) HIRL_TRY(make_conv_pd(ctx, kind, dnnl_convolution_direct, &f, &pd));

    static const struct {
        dnnl_query_t src, weights, dst;
        int src_arg, weights_arg, dst_arg;
    } roles[] = {
        [CPU_CONV_FORWARD] = {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md,
                              DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST},
        [CPU_CONV_BACKWARD_DATA] = {dnnl_query_diff_src_md, dnnl_query_weights_md,
                                    dnnl_query_diff_dst_md, DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS,
                                    DNNL_ARG_DIFF_DST},
        [CPU_CONV_BACKWARD_WEIGHTS] = {dnnl_query_src_md, dnnl_query_diff_weights_md,
                                       dnnl_query_diff_dst_md, DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS,
                                       DNNL_ARG_DIFF_DST},
    };
    const dnnl_memory_desc_t *src_md = dnnl_primitive_desc_query_md(pd, roles[kind].src, 0);
    const dnnl_memory_desc_t *weights_md = dnnl_primitive_desc_query_md(pd, roles[kind].weights, 0);
    const dnnl_memory_desc_t *dst_md = dnnl_primitive_desc_query_md(pd, roles[kind].dst, 0);
    const cpu_layout_t *src_layout = NULL, *weights_layout = NULL, *dst_layout = NULL;
    status = intern(ctx, src_md, true, &src_layout);
    if (status == HIRL_OK) status = intern(ctx, weights_md, false, &weights_layout);
    if (status == HIRL_OK) status = intern(ctx, dst_md, true, &dst_layout);
    if (status != HIRL_OK) {
        dnnl_primitive_desc_destroy(pd);
        return status;
    }
    const argument_t arguments[] = {{roles[kind].src_arg, src_md},
                                    {roles[kind].weights_arg, weights_md},
                                    {roles[kind].dst_arg, dst_md},
                                    {DNNL_ARG_BIAS, has_bias ? &f.bias : NULL},
                                    {0, NULL}};
    HIRL_TRY(keep_primitive(ctx, &key, hash, pd, arguments, &primitive));
    primitive->view =
        (cpu_primitive_t){.src = src_layout, .weights = weights_layout, .dst = dst_layout};
    *primitive_p = &primitive->view;
    return HIRL_OK;
}

hirl_status_t hirl_cpu_conv_run(cpu_ctx_t *ctx, const cpu_primitive_t *primitive, void *src,
                                void *weights, const float *bias, void *dst) {
    void *data[] = {src, weights, dst, (void *)(uintptr_t)bias};
    return run(ctx, (const primitive_t *)(const void *)primitive, data);
}

// ---------------------------------------------------------------------------------------------- max pooling

hirl_status_t hirl_cpu_pool_primitive(cpu_ctx_t *ctx, bool is_backward, bool has_workspace,
                                      const hirl_pool_param_t *p, const cpu_layout_t *x_layout,
                                      const hirl_shape_t *y, const cpu_primitive_t **primitive_p) {
    const op_key_t key = {{KEY_POOL, is_backward, has_workspace, p->kernel, p->stride, p->pad,
                           (int64_t)(intptr_t)x_layout}};
    const uint64_t hash = hirl_hash64(&key, sizeof key);
    primitive_t *primitive = find_primitive(ctx->dnnl, &key, hash);
    if (primitive) {
        *primitive_p = &primitive->view;
        return HIRL_OK;
    }
    // The output and both gradients are arranged as the input, so that the backward needs no knowledge of the forward's choice.
    const dnnl_memory_desc_t *x_md = md_of(x_layout);
    dnnl_memory_desc_t y_md;
    HIRL_TRY(image_md(y, x_layout->dtype,
                      x_layout->lanes == 16  ? dnnl_nChw16c
                      : x_layout->lanes == 8 ? dnnl_nChw8c
                                             : dnnl_nhwc,
                      &y_md));
    const dnnl_dims_t strides = {p->stride, p->stride}, kernel = {p->kernel, p->kernel},
                      pad = {p->pad, p->pad};
    dnnl_pooling_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    HIRL_TRY_DNNL(dnnl_pooling_forward_desc_init(
        &desc, has_workspace ? dnnl_forward_training : dnnl_forward_inference, dnnl_pooling_max,
        x_md, &y_md, strides, kernel, pad, pad));
    HIRL_TRY(make_pd(ctx, &desc, NULL, "a max pooling", &pd));
    if (is_backward) {
        dnnl_primitive_desc_t forward = pd;
        const dnnl_status_t error = dnnl_pooling_backward_desc_init(
            &desc, dnnl_pooling_max, x_md, &y_md, strides, kernel, pad, pad);
        hirl_status_t status = HIRL_OK;
        if (error == dnnl_success)
            status = make_pd(ctx, &desc, forward, "the gradient of a max pooling", &pd);
        else
            status = HIRL_FAIL(HIRL_ERR_DNNL, "oneDNN says '%s' to the gradient of a max pooling",
                               dnnl_status2str(error));
        dnnl_primitive_desc_destroy(forward);
        HIRL_TRY(status);
    }
    const cpu_layout_t *y_layout = NULL;
    const hirl_status_t status = intern(ctx, &y_md, true, &y_layout);
    if (status != HIRL_OK) {
        dnnl_primitive_desc_destroy(pd);
        return status;
    }
    const dnnl_memory_desc_t *workspace =
        has_workspace ? dnnl_primitive_desc_query_md(pd, dnnl_query_workspace_md, 0) : NULL;
    const size_t workspace_bytes = workspace ? dnnl_memory_desc_get_size(workspace) : 0;
    const argument_t arguments[] = {{is_backward ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, x_md},
                                    {is_backward ? DNNL_ARG_DIFF_DST : DNNL_ARG_DST, &y_md},
                                    {DNNL_ARG_WORKSPACE, workspace_bytes > 0 ? workspace : NULL},
                                    {0, NULL}};
    HIRL_TRY(keep_primitive(ctx, &key, hash, pd, arguments, &primitive));
    primitive->view =
        (cpu_primitive_t){.src = x_layout, .dst = y_layout, .workspace_bytes = workspace_bytes};
    *primitive_p = &primitive->view;
    return HIRL_OK;
}

hirl_status_t hirl_cpu_pool_run(cpu_ctx_t *ctx, const cpu_primitive_t *primitive, void *src,
                                void *dst, void *workspace) {
    void *data[] = {src, dst, workspace};
    return run(ctx, (const primitive_t *)(const void *)primitive, data);
}

// ---------------------------------------------------------------------------------------------- matrices

hirl_status_t hirl_cpu_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                             float alpha, const float *a, const float *b, float beta, float *c) {
    return hirl_cpu_sgemm_rows(trans_a, trans_b, m, n, k, alpha, a, trans_a ? m : k, b,
                               trans_b ? k : n, beta, c, n);
}

hirl_status_t hirl_cpu_sgemm_rows(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                                  float alpha, const float *a, int64_t a_row, const float *b,
                                  int64_t b_row, float beta, float *c, int64_t c_row) {
    HIRL_TRY_DNNL(dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, a_row, b,
                             b_row, beta, c, c_row));
    return HIRL_OK;
}

hirl_status_t hirl_cpu_matmul_bf16(cpu_ctx_t *ctx, bool trans_a, bool trans_b, int64_t m, int64_t n,
                                   int64_t k, const void *a, const void *b, hirl_dtype_t c_dtype,
                                   void *c) {
    const op_key_t key = {{KEY_MATMUL, trans_a, trans_b, m, n, k, c_dtype}};
    const uint64_t hash = hirl_hash64(&key, sizeof key);
    primitive_t *primitive = find_primitive(ctx->dnnl, &key, hash);
    if (!primitive) {
        dnnl_memory_desc_t a_md, b_md, c_md;
        const dnnl_dims_t a_dims = {m, k}, b_dims = {k, n}, c_dims = {m, n};
        HIRL_TRY_DNNL(
            dnnl_memory_desc_init_by_tag(&a_md, 2, a_dims, dnnl_bf16, trans_a ? dnnl_ba : dnnl_ab));
        HIRL_TRY_DNNL(
            dnnl_memory_desc_init_by_tag(&b_md, 2, b_dims, dnnl_bf16, trans_b ? dnnl_ba : dnnl_ab));
        HIRL_TRY_DNNL(dnnl_memory_desc_init_by_tag(&c_md, 2, c_dims, dnnl_type(c_dtype), dnnl_ab));
        dnnl_matmul_desc_t desc;
        HIRL_TRY_DNNL(dnnl_matmul_desc_init(&desc, &a_md, &b_md, NULL, &c_md));
        dnnl_primitive_desc_t pd = NULL;
        HIRL_TRY(make_pd(ctx, &desc, NULL, "a bf16 matrix product", &pd));
        const argument_t arguments[] = {
            {DNNL_ARG_SRC, &a_md}, {DNNL_ARG_WEIGHTS, &b_md}, {DNNL_ARG_DST, &c_md}, {0, NULL}};
        HIRL_TRY(keep_primitive(ctx, &key, hash, pd, arguments, &primitive));
    }
    void *data[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c};
    return run(ctx, primitive, data);
}
