/// Parameters as kernels want them. They are f32, their masters; products of 16 bits take them rounded, and convolutions want [O, kH, kW, I].
/// Such forms are made once between hirl_backend_weights_begin and _end, and used by every operation in between: the forward and the
/// backward pass of all views, or all batches of an extraction. Bytes per weight and form: 6 (16 bits) or 8 (f32, reordered) when it
/// is made, none later; memory 2 or 4 until the end. What is no parameter, such as weights that an operation made, has its form made for each use.
#include "cuda_impl.h"

#include <stdint.h>
#include <string.h>

#include "kernels/elementwise.h"
#include "kernels/matrix.h"

enum { N_SLABS = 16, N_PLACES = 256 };

typedef struct form {
    struct form *next;
    const void *weights;
    int64_t count;
    hirl_dtype_t dtype;
    bool is_packed;
    size_t bytes;
    void *data;
} form_t;

struct cuda_weights {
    bool is_begun;
    int n_slabs;
    const char *first[N_SLABS], *end[N_SLABS]; // of the parameters
    form_t *place[N_PLACES];
};

hirl_status_t hirl_cuda_weights_create(cuda_weights_t **weights_p) {
    return HIRL_ALLOC(HIRL_MEM_GENERAL, 1, weights_p);
}

static void forget(cuda_ctx_t *ctx) {
    cuda_weights_t *weights = ctx->weights;
    for (int i = 0; i < N_PLACES; ++i)
        for (form_t *form; (form = weights->place[i]);) {
            weights->place[i] = form->next;
            hirl_cuda_scratch_free(ctx, form->bytes, form->data);
            hirl_mem_free(form);
        }
    weights->n_slabs = 0;
    weights->is_begun = false;
}

void hirl_cuda_weights_destroy(cuda_ctx_t *ctx) {
    if (!ctx->weights) return;
    forget(ctx);
    hirl_mem_free(ctx->weights);
    ctx->weights = NULL;
}

hirl_status_t hirl_weights_begin_cuda(hirl_backend_t *be, const hirl_tensor_t *const *slab, int n) {
    cuda_weights_t *weights = cuda_ctx(be)->weights;
    HIRL_REQUIRE(!weights->is_begun, HIRL_ERR_ARG, "weights: begun twice");
    HIRL_REQUIRE(n <= N_SLABS, HIRL_ERR_ARG, "weights: %d slabs, at most %d", n, (int)N_SLABS);
    weights->is_begun = true;
    weights->n_slabs = n;
    for (int i = 0; i < n; ++i) {
        weights->first[i] = hirl_tensor_data(slab[i]);
        weights->end[i] = weights->first[i] + (size_t)hirl_tensor_count(slab[i]) * sizeof(float);
    }
    return HIRL_OK;
}

void hirl_weights_end_cuda(hirl_backend_t *be) { forget(cuda_ctx(be)); }

static bool is_parameter(const cuda_weights_t *weights, const char *data) {
    for (int i = 0; i < weights->n_slabs; ++i)
        if (data >= weights->first[i] && data < weights->end[i]) return true;
    return false;
}

static cudaError_t make(cuda_ctx_t *ctx, const hirl_tensor_t *w, hirl_dtype_t dtype, bool is_packed,
                        void *out) {
    const int64_t *d = w->shape.dim;
    if (is_packed)
        return hirl_k_conv_weights_pack(ctx->stream, hirl_tensor_data(w), d[0], d[1], d[2] * d[3],
                                        out, cuda_dtype_of(dtype));
    return hirl_k_cast(ctx->stream, hirl_tensor_data(w), HIRL_K_F32, out, cuda_dtype_of(dtype),
                       hirl_tensor_count(w));
}

hirl_status_t hirl_cuda_weights_take(cuda_ctx_t *ctx, const hirl_tensor_t *w, hirl_dtype_t dtype,
                                     bool is_packed, cuda_lent_t *lent_p) {
    cuda_weights_t *weights = ctx->weights;
    void *data = hirl_tensor_data(w);
    form_t *form = NULL, **place = NULL;
    const int64_t count = hirl_tensor_count(w);
    *lent_p = (cuda_lent_t){.data = data};
    // One pixel's weights lie in the same order either way.
    if (is_packed && w->shape.dim[2] * w->shape.dim[3] == 1) is_packed = false;
    if (dtype == HIRL_F32 && !is_packed) return HIRL_OK;
    const size_t bytes = (size_t)count * hirl_dtype_size(dtype);
    if (is_parameter(weights, data)) {
        const uintptr_t address = (uintptr_t)data;
        place = &weights->place[(address >> 4 ^ address >> 12) % N_PLACES];
        for (form = *place; form; form = form->next)
            if (form->weights == data && form->count == count && form->dtype == dtype &&
                form->is_packed == is_packed) {
                lent_p->data = form->data;
                return HIRL_OK;
            }
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &form));
    }
    void *out = NULL;
    hirl_status_t status = hirl_cuda_scratch(ctx, bytes, &out);
    if (status == HIRL_OK) {
        const cudaError_t code = make(ctx, w, dtype, is_packed, out);
        if (code != cudaSuccess)
            status = hirl_cuda_fail(code, "weights", __FILE__, __LINE__, __func__);
    }
    if (status != HIRL_OK) {
        hirl_cuda_scratch_free(ctx, bytes, out);
        hirl_mem_free(form);
        return status;
    }
    lent_p->data = out;
    if (!form) {
        lent_p->bytes = bytes;
        return HIRL_OK;
    }
    *form = (form_t){.next = *place,
                     .weights = data,
                     .count = count,
                     .dtype = dtype,
                     .is_packed = is_packed,
                     .bytes = bytes,
                     .data = out};
    *place = form;
    return HIRL_OK;
}

void hirl_cuda_weights_give(cuda_ctx_t *ctx, cuda_lent_t *lent) {
    if (lent->bytes) hirl_cuda_scratch_free(ctx, lent->bytes, lent->data);
    *lent = (cuda_lent_t){0};
}
