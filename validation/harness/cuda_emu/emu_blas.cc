/// The emulated cuBLASLt. It refuses what the library's documentation does not promise (bias vectors of another type than the
/// output, empty matrices), aborts where the library would read or write elsewhere, fills its workspace with garbage, and gives
/// the epilogue max(x, 0) as the library does: NaN becomes 0. TF32 products round their inputs. HIRL_EMU_BLAS_EPILOGUES=0 refuses
/// epilogues. The heuristic offers two algorithms, the second without a workspace; see spend() in emu.h for their times.
#include "cublasLt.h"

#include "emu.h"
#include "emu_math.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <set>
#include <vector>

using namespace hirl_emu;

struct cublasLtContext {
    int unused;
};

namespace {

constexpr uint64_t desc_mark = 0x6465736300000001, layout_mark = 0x6c61796f00000001,
                   preference_mark = 0x7072656600000001, algo_mark = 0x616c676f00000001;

// What the opaque structs hold.
struct desc {
    uint64_t mark;
    int32_t compute, scale, pointer_mode, trans_a, trans_b;
    uint32_t epilogue;
    const void *bias;
    int32_t bias_type;
    int64_t bias_stride;
    void *aux;
    int64_t aux_ld, aux_stride;
    int32_t aux_type;
};
static_assert(sizeof(desc) <= sizeof(cublasLtMatmulDescOpaque_t), "the opaque struct is too small");
struct layout {
    uint64_t mark;
    uint32_t type;
    int32_t order;
    uint64_t rows, columns;
    int64_t ld;
    int32_t n_batches;
    int64_t stride;
};
static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t),
              "the opaque struct is too small");
struct preference {
    uint64_t mark, workspace;
    uint32_t align[4];
};
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t),
              "the opaque struct is too small");
struct algo {
    uint64_t mark, workspace, hash;
    uint16_t align[4];
    int32_t index; // from 1
};
static_assert(sizeof(algo) <= sizeof(cublasLtMatmulAlgo_t), "the opaque struct is too small");

std::set<cublasLtHandle_t> handles;

desc *check(cublasLtMatmulDesc_t d) {
    return d != nullptr && ((desc *)d)->mark == desc_mark ? (desc *)d : nullptr;
}
layout *check(cublasLtMatrixLayout_t l) {
    return l != nullptr && ((layout *)l)->mark == layout_mark ? (layout *)l : nullptr;
}
preference *check(cublasLtMatmulPreference_t p) {
    return p != nullptr && ((preference *)p)->mark == preference_mark ? (preference *)p : nullptr;
}

format format_of(uint32_t type) {
    return type == CUDA_R_16BF ? format::bf16 : type == CUDA_R_16F ? format::f16 : format::f32;
}
int64_t item_bytes(uint32_t type) { return hirl_emu::item_bytes(format_of(type)); }
/// Distances of rows and columns.
int64_t row_step(const layout &l) { return l.order == CUBLASLT_ORDER_ROW ? l.ld : 1; }
int64_t column_step(const layout &l) { return l.order == CUBLASLT_ORDER_ROW ? 1 : l.ld; }
/// Bytes from the first to behind the last element of all batches.
size_t extent(const layout &l) {
    const int64_t last = (int64_t)(l.rows - 1) * row_step(l) +
                         (int64_t)(l.columns - 1) * column_step(l) +
                         (int64_t)(l.n_batches - 1) * l.stride;
    return (size_t)((last + 1) * item_bytes(l.type));
}

struct sizes {
    int64_t m, n, k;
};

/// What the library answers to these descriptions.
cublasStatus_t judge(const desc &d, const layout &a, const layout &b, const layout &c,
                     const layout &out, sizes *s) {
    const layout *all[] = {&a, &b, &c, &out};
    for (const layout *l : all) {
        if (l->type != CUDA_R_32F && l->type != CUDA_R_16BF && l->type != CUDA_R_16F)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        if (l->rows == 0 || l->columns == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
        const uint64_t least = l->order == CUBLASLT_ORDER_ROW ? l->columns : l->rows;
        if (l->ld < (int64_t)least) return CUBLAS_STATUS_INVALID_VALUE;
        if (l->n_batches != a.n_batches) return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (d.scale != CUDA_R_32F || d.pointer_mode != CUBLASLT_POINTER_MODE_HOST)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d.compute != CUBLAS_COMPUTE_32F && d.compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
        d.compute != CUBLAS_COMPUTE_32F_FAST_TF32)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a.type != b.type || c.type != out.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (out.type != a.type && out.type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && a.type != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    s->m = (int64_t)(d.trans_a != CUBLAS_OP_N ? a.columns : a.rows);
    s->k = (int64_t)(d.trans_a != CUBLAS_OP_N ? a.rows : a.columns);
    s->n = (int64_t)(d.trans_b != CUBLAS_OP_N ? b.rows : b.columns);
    const int64_t kb = (int64_t)(d.trans_b != CUBLAS_OP_N ? b.columns : b.rows);
    if (kb != s->k || (int64_t)out.rows != s->m || (int64_t)out.columns != s->n ||
        c.rows != out.rows || c.columns != out.columns)
        return CUBLAS_STATUS_INVALID_VALUE;
    const char *epilogues = getenv("HIRL_EMU_BLAS_EPILOGUES");
    if (d.epilogue != CUBLASLT_EPILOGUE_DEFAULT && epilogues != nullptr && epilogues[0] == '0')
        return CUBLAS_STATUS_NOT_SUPPORTED;
    switch (d.epilogue) {
        case CUBLASLT_EPILOGUE_DEFAULT:
        case CUBLASLT_EPILOGUE_RELU:
        case CUBLASLT_EPILOGUE_GELU: return CUBLAS_STATUS_SUCCESS;
        case CUBLASLT_EPILOGUE_BIAS:
        case CUBLASLT_EPILOGUE_RELU_BIAS:
        case CUBLASLT_EPILOGUE_GELU_BIAS:
        case CUBLASLT_EPILOGUE_BGRADA:
        case CUBLASLT_EPILOGUE_BGRADB: break;
        case CUBLASLT_EPILOGUE_RELU_AUX:
        case CUBLASLT_EPILOGUE_RELU_AUX_BIAS:
        case CUBLASLT_EPILOGUE_DRELU:
        case CUBLASLT_EPILOGUE_DRELU_BGRAD:
            // A bit an element; columns begin at multiples of 128 bits.
            if (d.aux_ld < s->m || d.aux_ld % 128 != 0) return CUBLAS_STATUS_INVALID_VALUE;
            break;
        case CUBLASLT_EPILOGUE_GELU_AUX:
        case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
        case CUBLASLT_EPILOGUE_DGELU:
        case CUBLASLT_EPILOGUE_DGELU_BGRAD:
            if (d.aux_ld < s->m || d.aux_ld % 8 != 0) return CUBLAS_STATUS_INVALID_VALUE;
            break;
        default: return CUBLAS_STATUS_INVALID_VALUE;
    }
    // Epilogues want columns in order, and vectors of the output's type.
    if (out.order != CUBLASLT_ORDER_COL) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d.bias_type != -1 && (uint32_t)d.bias_type != out.type) return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

uint64_t hash_of(const desc &d, const layout &a, const layout &b, const layout &c,
                 const layout &out) {
    const int64_t values[] = {d.compute, d.trans_a, d.trans_b, (int64_t)d.epilogue, d.aux_ld};
    uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&](uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
    for (const int64_t v : values) add((uint64_t)v);
    for (const layout *l : {&a, &b, &c, &out}) {
        add(l->type), add((uint64_t)l->order), add(l->rows), add(l->columns);
        add((uint64_t)l->ld), add((uint64_t)l->n_batches), add((uint64_t)l->stride);
    }
    return hash;
}

struct product {
    desc d;
    layout a, b, c, out;
    sizes s;
    float alpha, beta;
    const void *a_data, *b_data, *c_data;
    void *out_data, *workspace;
    size_t workspace_bytes;
    int algorithm;
};

float gelu(float x) {
    const float inner = 0.7978845608f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
}
float gelu_slope(float x) {
    const float inner = 0.7978845608f * (x + 0.044715f * x * x * x), t = tanhf(inner);
    return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * 0.7978845608f * (1 + 3 * 0.044715f * x * x);
}

bool has_bias(uint32_t e) { return (e & CUBLASLT_EPILOGUE_BIAS) != 0; }
bool has_aux(uint32_t e) { return (e & 128) != 0; }
bool has_gradient(uint32_t e) {
    return (e & 16) != 0 || e == CUBLASLT_EPILOGUE_BGRADA || e == CUBLASLT_EPILOGUE_BGRADB;
}
bool is_bitmask(uint32_t e) { return has_aux(e) && (e & (2 | 8)) != 0; }

/// Element (i, j) of op(x) for x stored as `l`, rows and columns as the product sees them.
struct view {
    const void *data;
    format as;
    bool is_rounded;
    int64_t row, column;
    view(const layout &l, int trans, const void *data_, int64_t batch, bool is_tf32)
        : data((const char *)data_ + batch * l.stride * item_bytes(l.type)), as(format_of(l.type)),
          is_rounded(is_tf32), row(trans != CUBLAS_OP_N ? column_step(l) : row_step(l)),
          column(trans != CUBLAS_OP_N ? row_step(l) : column_step(l)) {}
    float at(int64_t i, int64_t j) const {
        const float x = load(data, as, i * row + j * column);
        return is_rounded ? to_tf32(x) : x;
    }
};

void run_batch(const product &p, int64_t batch) {
    const int64_t m = p.s.m, n = p.s.n, k = p.s.k;
    const bool is_tf32 = p.d.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const uint32_t e = p.d.epilogue;
    const view a(p.a, p.d.trans_a, p.a_data, batch, is_tf32),
        b(p.b, p.d.trans_b, p.b_data, batch, is_tf32);
    // Columns of the result as rows: [n, m] = op(B)^T [n, k] op(A)^T [k, m].
    std::vector<float> at((size_t)(k * m)), bt((size_t)(n * k)), result((size_t)(n * m));
#pragma omp parallel
    {
        opened o;
#pragma omp for schedule(static)
        for (int64_t l = 0; l < k; ++l)
            for (int64_t i = 0; i < m; ++i) at[(size_t)(l * m + i)] = a.at(i, l);
#pragma omp for schedule(static)
        for (int64_t j = 0; j < n; ++j)
            for (int64_t l = 0; l < k; ++l) bt[(size_t)(j * k + l)] = b.at(l, j);
    }
    multiply_parallel(n, m, k, bt.data(), k, 1, at.data(), m, result.data(), m, false);

    const format as_out = format_of(p.out.type);
    const int64_t c_first = batch * p.c.stride, out_first = batch * p.out.stride;
    const char *bias =
        has_bias(e) ? (const char *)p.d.bias + batch * p.d.bias_stride * item_bytes(p.out.type)
                    : nullptr;
    char *aux = nullptr;
    if (has_aux(e))
        aux = (char *)p.d.aux + batch * (is_bitmask(e) ? p.d.aux_stride / 8
                                                       : p.d.aux_stride * item_bytes(p.out.type));
#pragma omp parallel
    {
        opened o;
#pragma omp for schedule(static)
        for (int64_t j = 0; j < n; ++j)
            for (int64_t i = 0; i < m; ++i) {
                float x = p.alpha * result[(size_t)(j * m + i)];
                if (p.beta != 0)
                    x += p.beta *
                         load(p.c_data, as_out, c_first + i * row_step(p.c) + j * column_step(p.c));
                if (bias != nullptr) x += load(bias, as_out, i);
                const int64_t bit = j * p.d.aux_ld + i;
                if (e & CUBLASLT_EPILOGUE_RELU) {
                    if (aux != nullptr) {
                        const char one = (char)(1 << (bit & 7));
                        aux[bit >> 3] = (char)(x > 0 ? aux[bit >> 3] | one : aux[bit >> 3] & ~one);
                    }
                    x = x > 0 ? x : 0;
                } else if (e & CUBLASLT_EPILOGUE_GELU) {
                    if (aux != nullptr) store(aux, as_out, bit, x);
                    x = gelu(x);
                } else if (e & 8) {
                    if ((aux[bit >> 3] >> (bit & 7) & 1) == 0) x = 0;
                } else if (e & 64) {
                    x *= gelu_slope(load(aux, as_out, bit));
                }
                result[(size_t)(j * m + i)] = x;
                store(p.out_data, as_out, out_first + i * row_step(p.out) + j * column_step(p.out),
                      x);
            }
    }
    if (!has_gradient(e)) return;
    char *gradient = (char *)p.d.bias + batch * p.d.bias_stride * item_bytes(p.out.type);
    if (e == CUBLASLT_EPILOGUE_BGRADB)
        for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t l = 0; l < k; ++l) sum += b.at(l, j);
            store(gradient, as_out, j, (float)sum);
        }
    else
        for (int64_t i = 0; i < m; ++i) {
            double sum = 0;
            if (e == CUBLASLT_EPILOGUE_BGRADA)
                for (int64_t l = 0; l < k; ++l) sum += a.at(i, l);
            else
                for (int64_t j = 0; j < n; ++j) sum += result[(size_t)(j * m + i)];
            store(gradient, as_out, i, (float)sum);
        }
}

void check_overlap(const void *x, size_t x_bytes, const void *y, size_t y_bytes, const char *what) {
    if ((const char *)x < (const char *)y + y_bytes && (const char *)y < (const char *)x + x_bytes)
        fail("cublasLtMatmul: %s overlap", what);
}

template <typename T> cublasStatus_t take(T *to, const void *value, size_t bytes) {
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, sizeof *to);
    return CUBLAS_STATUS_SUCCESS;
}
template <typename T>
cublasStatus_t give(const T &from, void *value, size_t bytes, size_t *written) {
    if (written != nullptr) *written = sizeof from;
    if (bytes == 0) return CUBLAS_STATUS_SUCCESS;
    if (bytes < sizeof from || value == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(value, &from, sizeof from);
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace

extern "C" {

size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }

#define STATUS_TEXTS(X)                                                 \
    X(CUBLAS_STATUS_SUCCESS, "success")                                 \
    X(CUBLAS_STATUS_NOT_INITIALIZED, "the library was not initialized") \
    X(CUBLAS_STATUS_ALLOC_FAILED, "the resource allocation failed")     \
    X(CUBLAS_STATUS_INVALID_VALUE, "an invalid value was passed")       \
    X(CUBLAS_STATUS_ARCH_MISMATCH, "the device lacks a feature")        \
    X(CUBLAS_STATUS_MAPPING_ERROR, "an access to GPU memory failed")    \
    X(CUBLAS_STATUS_EXECUTION_FAILED, "the GPU program failed")         \
    X(CUBLAS_STATUS_INTERNAL_ERROR, "an internal operation failed")     \
    X(CUBLAS_STATUS_NOT_SUPPORTED, "the operation is not supported")    \
    X(CUBLAS_STATUS_LICENSE_ERROR, "the license check failed")
const char *cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
#define STATUS_NAME(name, text) \
    case name: return #name;
        STATUS_TEXTS(STATUS_NAME)
    }
    return "unknown";
}
const char *cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
#define STATUS_TEXT(name, text) \
    case name: return text;
        STATUS_TEXTS(STATUS_TEXT)
    }
    return "unknown";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    entry e("cublasLtCreate");
    if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (e.is_failing()) return CUBLAS_STATUS_NOT_INITIALIZED;
    *handle = new cublasLtContext{0};
    handles.insert(*handle);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    entry e("cublasLtDestroy");
    if (handles.erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *p, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    entry e("cublasLtMatmulDescCreate");
    if (p == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (e.is_failing()) return CUBLAS_STATUS_ALLOC_FAILED;
    *p = new cublasLtMatmulDescOpaque_t();
    desc d = {};
    d.mark = desc_mark, d.compute = compute, d.scale = scale;
    d.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    d.bias_type = d.aux_type = -1;
    memcpy((void *)*p, &d, sizeof d);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t p) {
    desc *d = check(p);
    if (d == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    d->mark = 0;
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p,
                                              cublasLtMatmulDescAttributes_t attr,
                                              const void *value, size_t bytes) {
    entry e("cublasLtMatmulDescSetAttribute");
    desc *d = check(p);
    if (d == nullptr || value == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (e.is_failing()) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
        case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return take(&d->compute, value, bytes);
        case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return take(&d->scale, value, bytes);
        case CUBLASLT_MATMUL_DESC_POINTER_MODE: return take(&d->pointer_mode, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSA: return take(&d->trans_a, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB: return take(&d->trans_b, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return take(&d->epilogue, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return take(&d->bias, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE: return take(&d->bias_stride, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return take(&d->bias_type, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return take(&d->aux, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return take(&d->aux_ld, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE:
            return take(&d->aux_stride, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE: return take(&d->aux_type, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatmulDescGetAttribute(cublasLtMatmulDesc_t p,
                                              cublasLtMatmulDescAttributes_t attr, void *value,
                                              size_t bytes, size_t *written) {
    const desc *d = check(p);
    if (d == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
        case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE: return give(d->compute, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_SCALE_TYPE: return give(d->scale, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_POINTER_MODE: return give(d->pointer_mode, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_TRANSA: return give(d->trans_a, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_TRANSB: return give(d->trans_b, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return give(d->epilogue, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return give(d->bias, value, bytes, written);
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return give(d->bias_type, value, bytes, written);
        default: return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *p, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld) {
    entry e("cublasLtMatrixLayoutCreate");
    if (p == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (e.is_failing()) return CUBLAS_STATUS_ALLOC_FAILED;
    *p = new cublasLtMatrixLayoutOpaque_t();
    const layout l = {layout_mark, (uint32_t)type, CUBLASLT_ORDER_COL, rows, columns, ld, 1, 0};
    memcpy((void *)*p, &l, sizeof l);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t p) {
    layout *l = check(p);
    if (l == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    l->mark = 0;
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t p,
                                                cublasLtMatrixLayoutAttribute_t attr,
                                                const void *value, size_t bytes) {
    entry e("cublasLtMatrixLayoutSetAttribute");
    layout *l = check(p);
    if (l == nullptr || value == nullptr || e.is_failing()) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
        case CUBLASLT_MATRIX_LAYOUT_TYPE: return take(&l->type, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_ORDER: return take(&l->order, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_ROWS: return take(&l->rows, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_COLS: return take(&l->columns, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_LD: return take(&l->ld, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return take(&l->n_batches, value, bytes);
        case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return take(&l->stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutGetAttribute(cublasLtMatrixLayout_t p,
                                                cublasLtMatrixLayoutAttribute_t attr, void *value,
                                                size_t bytes, size_t *written) {
    const layout *l = check(p);
    if (l == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attr) {
        case CUBLASLT_MATRIX_LAYOUT_TYPE: return give(l->type, value, bytes, written);
        case CUBLASLT_MATRIX_LAYOUT_ORDER: return give(l->order, value, bytes, written);
        case CUBLASLT_MATRIX_LAYOUT_ROWS: return give(l->rows, value, bytes, written);
        case CUBLASLT_MATRIX_LAYOUT_COLS: return give(l->columns, value, bytes, written);
        case CUBLASLT_MATRIX_LAYOUT_LD: return give(l->ld, value, bytes, written);
        case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return give(l->n_batches, value, bytes, written);
        case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
            return give(l->stride, value, bytes, written);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    entry e("cublasLtMatmulPreferenceCreate");
    if (p == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    if (e.is_failing()) return CUBLAS_STATUS_ALLOC_FAILED;
    *p = new cublasLtMatmulPreferenceOpaque_t();
    const preference made = {preference_mark, 0, {256, 256, 256, 256}};
    memcpy((void *)*p, &made, sizeof made);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    preference *made = check(p);
    if (made == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
    made->mark = 0;
    delete p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *value, size_t bytes) {
    entry e("cublasLtMatmulPreferenceSetAttribute");
    preference *to = check(p);
    if (to == nullptr || value == nullptr || e.is_failing()) return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t ignored;
    switch (attr) {
        case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return take(&to->workspace, value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return take(&to->align[0], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return take(&to->align[1], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return take(&to->align[2], value, bytes);
        case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return take(&to->align[3], value, bytes);
        case CUBLASLT_MATMUL_PREF_SEARCH_MODE:
        case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return take(&ignored, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t dp,
                                              cublasLtMatrixLayout_t ap, cublasLtMatrixLayout_t bp,
                                              cublasLtMatrixLayout_t cp, cublasLtMatrixLayout_t op,
                                              cublasLtMatmulPreference_t pp, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *n_results) {
    entry e("cublasLtMatmulAlgoGetHeuristic");
    if (handles.count(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (e.is_failing()) return CUBLAS_STATUS_NOT_SUPPORTED;
    const desc *d = check(dp);
    const layout *a = check(ap), *b = check(bp), *c = check(cp), *out = check(op);
    const preference *p = check(pp);
    if (d == nullptr || a == nullptr || b == nullptr || c == nullptr || out == nullptr ||
        p == nullptr || n_wanted < 1 || results == nullptr || n_results == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    *n_results = 0;
    sizes s;
    const cublasStatus_t status = judge(*d, *a, *b, *c, *out, &s);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    const uint32_t types[4] = {a->type, b->type, c->type, out->type};
    algo made = {algo_mark, 0, hash_of(*d, *a, *b, *c, *out), {}, 0};
    for (int i = 0; i < 4; ++i) {
        if (p->align[i] < (uint32_t)item_bytes(types[i])) return CUBLAS_STATUS_NOT_SUPPORTED;
        made.align[i] = (uint16_t)std::min(p->align[i], (uint32_t)256);
    }
    // The first wants a workspace, the second none.
    const uint64_t workspaces[2] = {std::min(p->workspace, (uint64_t)4096), 0};
    for (int i = p->workspace == 0; i < 2 && *n_results < n_wanted; ++i) {
        cublasLtMatmulHeuristicResult_t *r = &results[(*n_results)++];
        memset((void *)r, 0, sizeof *r);
        made.workspace = r->workspaceSize = workspaces[i];
        made.index = i + 1;
        memcpy((void *)&r->algo, &made, sizeof made);
        r->state = CUBLAS_STATUS_SUCCESS;
        r->wavesCount = 1;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t dp, const void *alpha,
                              const void *a_data, cublasLtMatrixLayout_t ap, const void *b_data,
                              cublasLtMatrixLayout_t bp, const void *beta, const void *c_data,
                              cublasLtMatrixLayout_t cp, void *out_data, cublasLtMatrixLayout_t op,
                              const cublasLtMatmulAlgo_t *algo_p, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    entry e("cublasLtMatmul");
    if (handles.count(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (e.is_failing() || sticky_error() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
    const desc *d = check(dp);
    const layout *a = check(ap), *b = check(bp), *c = check(cp), *out = check(op);
    if (d == nullptr || a == nullptr || b == nullptr || c == nullptr || out == nullptr ||
        alpha == nullptr || beta == nullptr || !is_stream(stream))
        return CUBLAS_STATUS_INVALID_VALUE;
    product p = {*d, *a,     *b,     *c,     *out,     {},        0,
                 0,  a_data, b_data, c_data, out_data, workspace, workspace_bytes,
                 1};
    const cublasStatus_t status = judge(*d, *a, *b, *c, *out, &p.s);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
    const void *data[4] = {a_data, b_data, c_data, out_data};
    static const char *const names[4] = {"A", "B", "C", "D"};
    if (algo_p != nullptr) {
        algo chosen;
        memcpy(&chosen, algo_p, sizeof chosen);
        if (chosen.mark != algo_mark || chosen.hash != hash_of(*d, *a, *b, *c, *out))
            return CUBLAS_STATUS_INVALID_VALUE; // an algorithm for other shapes
        if (chosen.workspace > workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
        for (int i = 0; i < 4; ++i)
            if ((uintptr_t)data[i] % chosen.align[i] != 0)
                fail("cublasLtMatmul: %s, %p, is not aligned to the %u bytes that were promised "
                     "when "
                     "the algorithm was chosen",
                     names[i], data[i], chosen.align[i]);
        p.workspace_bytes = chosen.workspace;
        p.algorithm = chosen.index;
    } else {
        p.workspace_bytes = std::min(workspace_bytes, (size_t)4096);
    }
    memcpy(&p.alpha, alpha, sizeof p.alpha);
    memcpy(&p.beta, beta, sizeof p.beta);
    if (c_data == nullptr && p.beta == 0) p.c_data = out_data;
    require_device(a_data, extent(*a), "cublasLtMatmul: A");
    require_device(b_data, extent(*b), "cublasLtMatmul: B");
    require_device(out_data, extent(*out), "cublasLtMatmul: D");
    if (p.beta != 0) require_device(c_data, extent(*c), "cublasLtMatmul: C");
    if (p.workspace_bytes > 0) {
        require_device(workspace, p.workspace_bytes, "cublasLtMatmul: the workspace");
        if ((uintptr_t)workspace % 16 != 0)
            fail("cublasLtMatmul: the workspace, %p, is not aligned to 16 bytes", workspace);
        for (int i = 0; i < 4; ++i)
            check_overlap(workspace, p.workspace_bytes, data[i],
                          i == 2 && p.beta == 0 ? 0
                                                : extent(*(i == 0   ? a
                                                           : i == 1 ? b
                                                           : i == 2 ? c
                                                                    : out)),
                          "the workspace and a matrix");
    }
    check_overlap(a_data, extent(*a), out_data, extent(*out), "A and D");
    check_overlap(b_data, extent(*b), out_data, extent(*out), "B and D");
    if (p.beta != 0 && c_data != out_data)
        check_overlap(c_data, extent(*c), out_data, extent(*out), "C and D, which differ,");
    const int64_t item = item_bytes(out->type);
    if (has_bias(d->epilogue) || has_gradient(d->epilogue)) {
        const int64_t length = d->epilogue == CUBLASLT_EPILOGUE_BGRADB ? p.s.n : p.s.m;
        require_device(d->bias, (size_t)(((out->n_batches - 1) * d->bias_stride + length) * item),
                       "cublasLtMatmul: the bias");
        if ((uintptr_t)d->bias % 16 != 0) return CUBLAS_STATUS_INVALID_VALUE; // its widest access
    }
    if (has_aux(d->epilogue)) {
        const int64_t last = (out->n_batches - 1) * d->aux_stride + (p.s.n - 1) * d->aux_ld + p.s.m;
        require_device(d->aux, (size_t)(is_bitmask(d->epilogue) ? (last + 7) / 8 : last * item),
                       "cublasLtMatmul: the auxiliary output");
        if ((uintptr_t)d->aux % 16 != 0) return CUBLAS_STATUS_INVALID_VALUE;
    }
    enqueue(stream, "cublasLtMatmul", [p]() {
        if (p.workspace_bytes > 0) memset(p.workspace, 0xff, p.workspace_bytes);
        for (int64_t i = 0; i < p.out.n_batches; ++i) run_batch(p, i);
        spend_as_algorithm(p.algorithm);
    });
    return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
