/// Cross entropy, and the semantic path discrimination loss of HIRL (Xu et al. 2022, eq. 3-5).
/// Cross entropy reads each logit once (4 bytes): maximum, sum of exponentials and rank of the target are found together; its backward
/// reads and writes each once (8 bytes). The path loss gathers n_negatives x n_levels similarities per sample; its backward also
/// writes all of dsimilarity (4 bytes per element), clearing and adding in one kernel.
/// Means are taken over rows in order of their number, in double. Probabilities of paths are in double, because 1 - P + 1e-6
/// would keep few digits of a P near 1.
#include "loss.h"
#include "row_device.h"

namespace hirl_k {

enum { BLOCK = 256 };

// ---------------------------------------------------------------------------------------------- cross entropy

/// Of row r: lse, and in scratch its loss [r] and whether it is right [n_rows + r].
template <int V, bool IS_PACKED, int ROW>
static __global__ void __launch_bounds__(row_block(ROW))
    cross_entropy_rows(const float *logits, float scale, const int32_t *target, int64_t n_rows,
                       int n, float *loss, float *lse, hirl_k_fault_t *fault) {
    __shared__ float scratch[33];
    __shared__ int counts[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    const float *x = logits + row * n;
    const int own_class = target[row];
    const bool has_target = own_class >= 0 && own_class < n;
    const float own = has_target ? x[own_class] : 0.0f;
    int n_not_less = 0;
    running_sum s;
    each_pack<ROW, V, 0>(n, [&](int, int column) {
        float v[V];
        load_items<V, IS_PACKED>(x + column, v);
#pragma unroll
        for (int k = 0; k < V; ++k) n_not_less += v[k] >= own;
        s.add<V>(v, scale);
    });
    s.merge<ROW>(scratch);
    n_not_less = row_sum<ROW>(n_not_less, counts);
    if (threadIdx.x % ROW == 0) {
        const float rest = logf(s.sum);
        lse[row] = s.top + rest;
        in_range(own_class, n, HIRL_K_FAULT_TARGET, row, fault);
        // the target's logit often is the largest: its distance from it first
        loss[row] = has_target ? rest - fmaf(scale, own, -s.top) : 0.0f;
        loss[n_rows + row] = has_target && n_not_less == 1 ? 1.0f : 0.0f; // itself
    }
}

/// One block.
static __global__ void __launch_bounds__(BLOCK)
    cross_entropy_mean(const float *rows, int64_t n_rows, float *loss, float *correct) {
    __shared__ double scratch[33];
    double total = 0, n_correct = 0;
    for (int64_t r = (int)threadIdx.x; r < n_rows; r += BLOCK) {
        total += (double)rows[r];
        n_correct += (double)rows[n_rows + r];
    }
    total = block_sum(total, scratch);
    n_correct = block_sum(n_correct, scratch);
    if (threadIdx.x == 0) {
        loss[0] = (float)(total / (double)n_rows);
        if (correct) correct[0] = (float)(n_correct / (double)n_rows);
    }
}

/// A thread takes V neighbours of one row. INDEX: unsigned where it can count the packs.
template <int V, bool IS_PACKED, typename INDEX>
static __global__ void __launch_bounds__(BLOCK)
    cross_entropy_backward_packs(const float *logits, float scale, const int32_t *target,
                                 const float *lse, const float *dloss, int64_t n_rows, int n,
                                 INDEX n_packs, float *dlogits, hirl_k_fault_t *fault) {
    const INDEX i = (INDEX)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= n_packs) return;
    const INDEX packs_per_row = (INDEX)(n / V), row = i / packs_per_row;
    const int column = (int)(i - row * packs_per_row) * V;
    const int64_t at = (int64_t)row * n + column;
    const int own = target[row];
    const bool has_target = own >= 0 && own < n;
    if (column == 0) in_range(own, n, HIRL_K_FAULT_TARGET, (int64_t)row, fault);
    const float factor = (float)((double)dloss[0] * (double)scale / (double)n_rows);
    const float shift = lse[row];
    float v[V];
    load_items<V, IS_PACKED>(logits + at, v);
#pragma unroll
    for (int k = 0; k < V; ++k) {
        const float p = expf(fmaf(scale, v[k], -shift));
        v[k] = has_target ? factor * (p - (column + k == own ? 1.0f : 0.0f)) : 0.0f;
    }
    store_items<V, IS_PACKED>(dlogits + at, v);
}

// ---------------------------------------------------------------------------------------------- paths

enum { PATH_TILE = 1024 };

#define PATH_EPS 1e-6

/// Are the nodes of a path, whose first is element `at` of its index array, nodes of their levels?
static __device__ __forceinline__ bool is_path(const hirl_k_paths_t &paths, const int32_t *path,
                                               hirl_k_fault_op_t op, int64_t at,
                                               hirl_k_fault_t *fault) {
    bool is_good = true;
    for (int l = 0; l < paths.n_levels; ++l)
        is_good = in_range(path[l], paths.n_nodes[l], op, at + l, fault) && is_good;
    return is_good;
}

static __device__ __forceinline__ bool is_same_path(const hirl_k_paths_t &paths, const int32_t *a,
                                                    const int32_t *b) {
    bool is_same = true;
    for (int l = 0; l < paths.n_levels; ++l) is_same = is_same && a[l] == b[l];
    return is_same;
}

/// P = prod_l (1 + u_l) / 2 along a path; *others: without level `without`.
static __device__ __forceinline__ double path_product(const hirl_k_paths_t &paths, int64_t sample,
                                                      const int32_t *path, int without,
                                                      double *others) {
    double whole = 1, rest = 1;
    for (int l = 0; l < paths.n_levels; ++l) {
        const float u = paths.similarity[l][sample * paths.n_nodes[l] + path[l]];
        const double factor = (1.0 + (double)u) / 2;
        whole *= factor;
        if (l != without) rest *= factor;
    }
    *others = rest;
    return whole;
}

/// A block per sample: terms[2 n] and [2 n + 1], its positive and its negative term.
static __global__ void __launch_bounds__(BLOCK)
    path_loss_samples(const __grid_constant__ hirl_k_paths_t paths, double *terms,
                      hirl_k_fault_t *fault) {
    __shared__ double scratch[33];
    const int64_t sample = blockIdx.x, m = paths.n_negatives;
    const int32_t *own = paths.positive + sample * paths.n_levels;
    const int32_t *negative = paths.negative + sample * m * paths.n_levels;
    const bool has_own = is_path(paths, own, HIRL_K_FAULT_POSITIVE, sample * paths.n_levels, fault);
    double sum = 0, n_kept = 0, unused;
    for (int64_t j = (int)threadIdx.x; j < m; j += BLOCK) {
        const int32_t *path = negative + j * paths.n_levels;
        if (!is_path(paths, path, HIRL_K_FAULT_NEGATIVE, (sample * m + j) * paths.n_levels,
                     fault) ||
            is_same_path(paths, own, path))
            continue;
        n_kept += 1;
        sum -= log(1.0 - path_product(paths, sample, path, -1, &unused) + PATH_EPS);
    }
    sum = block_sum(sum, scratch);
    n_kept = block_sum(n_kept, scratch);
    if (threadIdx.x == 0) {
        const double p = has_own ? path_product(paths, sample, own, -1, &unused) : 0;
        terms[2 * sample] = has_own ? -log(p + PATH_EPS) : 0;
        terms[2 * sample + 1] = has_own ? sum / (n_kept + PATH_EPS) : 0;
    }
}

/// One block.
static __global__ void __launch_bounds__(BLOCK)
    path_loss_mean(const double *samples, int64_t n_samples, float *loss, float *terms) {
    __shared__ double scratch[33];
    double plus = 0, minus = 0;
    for (int64_t n = (int)threadIdx.x; n < n_samples; n += BLOCK) {
        plus += samples[2 * n];
        minus += samples[2 * n + 1];
    }
    plus = block_sum(plus, scratch);
    minus = block_sum(minus, scratch);
    if (threadIdx.x == 0) {
        loss[0] = (float)((plus + minus) / (2.0 * (double)n_samples));
        if (terms) {
            terms[0] = (float)(plus / (double)n_samples);
            terms[1] = (float)(minus / (double)n_samples);
        }
    }
}

static __device__ void clear_row(float *row, int64_t n) {
    const int64_t head =
        ((16 - ((uintptr_t)row & 15)) & 15) / sizeof(float); // up to a multiple of 16 bytes
    const float zero[4] = {0, 0, 0, 0};
    for (int64_t i = (int)threadIdx.x; i < head && i < n; i += BLOCK) row[i] = 0;
    int64_t i = head + 4 * (int64_t)threadIdx.x;
    for (; i + 4 <= n; i += 4 * BLOCK) store_items<4, true>(row + i, zero);
    for (; i < n; ++i) row[i] = 0;
}

typedef struct path_rows {
    float *row[HIRL_K_PATH_LEVELS]; // [n_samples, n_nodes[l]]
} path_rows_t;

/// A block per sample and level: its row of dsimilarity. Several negatives may share a node. Their terms are sorted by (node, number),
/// `tile` of them at a time, and the first of each node adds up what follows: a sum in order of number.
static __global__ void __launch_bounds__(BLOCK, 4)
    path_loss_backward_rows(const __grid_constant__ hirl_k_paths_t paths, const float *dloss,
                            const __grid_constant__ path_rows_t outputs, int tile,
                            hirl_k_fault_t *fault) {
    __shared__ unsigned long long keys[PATH_TILE]; // node << 32 | place in `terms`
    __shared__ double terms[PATH_TILE];
    __shared__ int counts[33];
    const int level = (int)(blockIdx.x % (unsigned)paths.n_levels), t = (int)threadIdx.x;
    const int64_t sample = blockIdx.x / (unsigned)paths.n_levels, m = paths.n_negatives;
    const int32_t *own = paths.positive + sample * paths.n_levels;
    const int32_t *negative = paths.negative + sample * m * paths.n_levels;
    float *row = outputs.row[level] + sample * paths.n_nodes[level];
    const unsigned long long none = ~0ull;
    const double w = (double)dloss[0] / (2.0 * (double)paths.n_samples);
    const bool has_own = is_path(paths, own, HIRL_K_FAULT_POSITIVE, sample * paths.n_levels, fault);
    int n_kept = 0;
    clear_row(row, paths.n_nodes[level]);
    for (int64_t j = t; j < m; j += BLOCK) {
        const int32_t *path = negative + j * paths.n_levels;
        n_kept +=
            is_path(paths, path, HIRL_K_FAULT_NEGATIVE, (sample * m + j) * paths.n_levels, fault) &&
            !is_same_path(paths, own, path);
    }
    n_kept = block_sum(n_kept, counts); // the row is clear then, too
    if (!has_own) return;               // all threads alike
    const double share = w / ((double)n_kept + PATH_EPS);
    if (t == 0) {
        double others;
        const double p = path_product(paths, sample, own, level, &others);
        row[own[level]] = (float)(-w / 2 * others / (p + PATH_EPS));
    }
    for (int64_t first = 0; first < m; first += tile) {
        __syncthreads(); // the tile before is used up, its sums are written
        for (int i = t; i < tile; i += BLOCK) {
            const int32_t *path = negative + (first + i) * paths.n_levels;
            keys[i] = none;
            if (first + i >= m || is_same_path(paths, own, path)) continue;
            bool is_good = true; // what is not has been recorded
            for (int l = 0; l < paths.n_levels; ++l)
                is_good = is_good && path[l] >= 0 && path[l] < paths.n_nodes[l];
            if (!is_good) continue;
            double others;
            const double p = path_product(paths, sample, path, level, &others);
            terms[i] = share / 2 * others / (1.0 - p + PATH_EPS);
            keys[i] = (unsigned long long)(unsigned)path[level] << 32 | (unsigned)i;
        }
        // bitonic: runs of `run` are sorted, up and down in turn
        for (int run = 2; run <= tile; run *= 2)
            for (int apart = run / 2; apart > 0; apart /= 2) {
                __syncthreads();
                for (int i = t; i < tile / 2; i += BLOCK) {
                    const int a = 2 * i - (i & (apart - 1)), b = a + apart;
                    const unsigned long long at_a = keys[a], at_b = keys[b];
                    if ((at_a > at_b) == ((a & run) == 0)) {
                        keys[a] = at_b;
                        keys[b] = at_a;
                    }
                }
            }
        __syncthreads();
        for (int i = t; i < tile; i += BLOCK) {
            const unsigned long long key = keys[i], node = key >> 32;
            if (key == none || (i > 0 && keys[i - 1] >> 32 == node)) continue;
            double sum = 0;
            for (int j = i; j < tile && keys[j] >> 32 == node; ++j)
                sum += terms[(unsigned)(keys[j] & 0xffffffffu)];
            row[node] = (float)((double)row[node] + sum);
        }
    }
}

} // namespace hirl_k

using namespace hirl_k;

// ---------------------------------------------------------------------------------------------- launchers

size_t hirl_k_cross_entropy_scratch(int64_t n_rows) { return (size_t)n_rows * 2 * sizeof(float); }

template <int V, bool IS_PACKED>
static void cross_entropy_launch(cudaStream_t stream, const float *logits, float scale,
                                 const int32_t *target, int64_t n_rows, int n, float *rows,
                                 float *lse, hirl_k_fault_t *fault) {
#define DO(ROW)                                                                                    \
    HIRL_LAUNCH((cross_entropy_rows<V, IS_PACKED, ROW>), row_grid(n_rows, ROW), row_block(ROW), 0, \
                stream, logits, scale, target, n_rows, n, rows, lse, fault)
    if (n <= 1024)
        DO(32);
    else if (n <= 8192)
        DO(256);
    else
        DO(1024);
#undef DO
}

cudaError_t hirl_k_cross_entropy(cudaStream_t stream, const float *logits, float scale,
                                 const int32_t *target, int64_t n_rows, int64_t n_classes,
                                 void *scratch, float *loss, float *lse, float *correct,
                                 hirl_k_fault_t *fault) {
    if (n_classes < 1 || n_classes >= (int64_t)1 << 30) return cudaErrorInvalidValue;
    const int n = (int)n_classes;
    float *rows = (float *)scratch;
#define DO(T, V, IS_PACKED) \
    cross_entropy_launch<V, IS_PACKED>(stream, logits, scale, target, n_rows, n, rows, lse, fault)
    HIRL_BY_ACCESS(float, row_items<float>(n), is_packed(logits), DO);
#undef DO
    HIRL_LAUNCH(cross_entropy_mean, 1, BLOCK, 0, stream, rows, n_rows, loss, correct);
    return hirl_k_end(stream);
}

template <int V, bool IS_PACKED>
static void cross_entropy_backward_launch(cudaStream_t stream, const float *logits, float scale,
                                          const int32_t *target, const float *lse,
                                          const float *dloss, int64_t n_rows, int n, float *dlogits,
                                          hirl_k_fault_t *fault) {
    const int64_t n_packs = n_rows * (n / V);
    const unsigned grid = grid_size((n_packs + BLOCK - 1) / BLOCK);
    if (n_packs < (int64_t)1 << 31)
        HIRL_LAUNCH((cross_entropy_backward_packs<V, IS_PACKED, unsigned>), grid, BLOCK, 0, stream,
                    logits, scale, target, lse, dloss, n_rows, n, (unsigned)n_packs, dlogits,
                    fault);
    else
        HIRL_LAUNCH((cross_entropy_backward_packs<V, IS_PACKED, int64_t>), grid, BLOCK, 0, stream,
                    logits, scale, target, lse, dloss, n_rows, n, n_packs, dlogits, fault);
}

cudaError_t hirl_k_cross_entropy_backward(cudaStream_t stream, const float *logits, float scale,
                                          const int32_t *target, const float *lse,
                                          const float *dloss, int64_t n_rows, int64_t n_classes,
                                          float *dlogits, hirl_k_fault_t *fault) {
    if (n_classes < 1 || n_classes >= (int64_t)1 << 30) return cudaErrorInvalidValue;
    const int n = (int)n_classes;
    const bool can_pack = is_packed(logits) && is_packed(dlogits);
#define DO(T, V, IS_PACKED)                                                                        \
    cross_entropy_backward_launch<V, IS_PACKED>(stream, logits, scale, target, lse, dloss, n_rows, \
                                                n, dlogits, fault)
    HIRL_BY_ACCESS(float, row_items<float>(n), can_pack, DO);
#undef DO
    return hirl_k_end(stream);
}

static bool are_paths(const hirl_k_paths_t *paths) {
    bool is_good = paths->n_levels >= 1 && paths->n_levels <= HIRL_K_PATH_LEVELS &&
                   paths->n_samples >= 1 && paths->n_negatives >= 1;
    for (int l = 0; is_good && l < paths->n_levels; ++l) is_good = paths->n_nodes[l] >= 1;
    return is_good;
}

size_t hirl_k_path_loss_scratch(int64_t n_samples) {
    return (size_t)n_samples * 2 * sizeof(double);
}

cudaError_t hirl_k_path_loss(cudaStream_t stream, const hirl_k_paths_t *paths, void *scratch,
                             float *loss, float *terms, hirl_k_fault_t *fault) {
    if (!are_paths(paths)) return cudaErrorInvalidValue;
    double *samples = (double *)scratch;
    HIRL_LAUNCH(path_loss_samples, grid_size(paths->n_samples), BLOCK, 0, stream, *paths, samples,
                fault);
    HIRL_LAUNCH(path_loss_mean, 1, BLOCK, 0, stream, samples, paths->n_samples, loss, terms);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_path_loss_backward(cudaStream_t stream, const hirl_k_paths_t *paths,
                                      const float *dloss, float *const *dsimilarity,
                                      hirl_k_fault_t *fault) {
    if (!are_paths(paths)) return cudaErrorInvalidValue;
    path_rows_t outputs = {};
    for (int l = 0; l < paths->n_levels; ++l) outputs.row[l] = dsimilarity[l];
    int tile = 2;
    while (tile < PATH_TILE && tile < paths->n_negatives) tile *= 2;
    HIRL_LAUNCH(path_loss_backward_rows, grid_size(paths->n_samples * paths->n_levels), BLOCK, 0,
                stream, *paths, dloss, outputs, tile, fault);
    return hirl_k_end(stream);
}
