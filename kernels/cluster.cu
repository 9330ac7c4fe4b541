/// Nearest rows, lists of best rows, and sums by cluster. Products are made in tiles of 128 x 128 whose 64 chains per thread stay in registers, and
/// what is wanted of them is found there: no product is written. Floors: n k d fused multiply-adds for the searches, 4 d bytes per
/// row for the sums (and 8 d of integer additions).
///
/// A tile's rows come through shared memory in steps of 8 columns, transposed, two steps deep: one is read while the next is on its way. A
/// row there has 132 places, so that the transposing stores of a warp meet no bank twice. Each block goes on from the fastest memory
/// that holds the other operand: a thousand centroids of 128 columns are 0.5 MB, which the second-level cache has.
///
/// cuBLAS's single-precision products use the same units (without TF32), but their order of additions is their own; and
/// the block of n x k products would be written and read.
#include "cluster.h"

#include "device.h"

using namespace hirl_k;

namespace {

enum { TILE = 128, STEP = 8, PITCH = TILE + 4, THREADS = 256, PER_THREAD = 8, LANES = 8 };

typedef unsigned long long word;

/// Two steps of both operands: [step][column][row].
struct tiles {
    float a[2][STEP][PITCH], b[2][STEP][PITCH];
};

/// Columns [column, column + 4) of a row, zeros beyond the matrix [n, d].
template <bool IS_PACKED>
__device__ __forceinline__ void fetch(const float *x, int64_t row, int64_t n, int64_t d,
                                      int64_t column, float (&v)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = 0;
    if (row >= n) return;
    const float *from = x + row * d + column;
    if (IS_PACKED) {
        if (column >= d) return;
        const pack<float, 4> p = *reinterpret_cast<const pack<float, 4> *>(from);
#pragma unroll
        for (int i = 0; i < 4; ++i) v[i] = p.item[i];
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (column + i < d) v[i] = from[i];
    }
}

__device__ __forceinline__ void put(float (&step)[STEP][PITCH], int column, int row,
                                    const float (&v)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) step[column + i][row] = v[i];
}

/// Four rows from `row` on and four from 64 further.
__device__ __forceinline__ void take(const float (&column)[PITCH], int row,
                                     float (&v)[PER_THREAD]) {
    const pack<float, 4> low = *reinterpret_cast<const pack<float, 4> *>(&column[row]);
    const pack<float, 4> high = *reinterpret_cast<const pack<float, 4> *>(&column[row + TILE / 2]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        v[i] = low.item[i];
        v[4 + i] = high.item[i];
    }
}

/// Row or column i of a thread's eight by eight products within the tile; `place` is the thread's, 0..15.
__device__ __forceinline__ int inside(int place, int i) {
    return place * 4 + (i & 3) + (i >> 2) * (TILE / 2);
}

/// product[i][j] = <row of a, row of b>: rows of a from `a_row` on and of b from `b_row` on. All threads of the block.
template <bool IS_PACKED>
__device__ __forceinline__ void multiply(tiles &s, const float *a, int64_t a_row, int64_t n_a,
                                         const float *b, int64_t b_row, int64_t n_b, int64_t d,
                                         float (&product)[PER_THREAD][PER_THREAD]) {
    const int row = (int)threadIdx.x / 2, column = (int)threadIdx.x % 2 * 4;
    const int a_place = (int)threadIdx.x / 16, b_place = (int)threadIdx.x % 16;
    float next_a[4], next_b[4];
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) product[i][j] = 0;
    fetch<IS_PACKED>(a, a_row + row, n_a, d, column, next_a);
    fetch<IS_PACKED>(b, b_row + row, n_b, d, column, next_b);
    __syncthreads(); // the last tile's steps may still be read
    put(s.a[0], column, row, next_a);
    put(s.b[0], column, row, next_b);
    __syncthreads();
    int at = 0;
    for (int64_t p = 0; p < d; p += STEP) {
        const bool has_next = p + STEP < d;
        if (has_next) {
            fetch<IS_PACKED>(a, a_row + row, n_a, d, p + STEP + column, next_a);
            fetch<IS_PACKED>(b, b_row + row, n_b, d, p + STEP + column, next_b);
        }
#pragma unroll
        for (int q = 0; q < STEP; ++q) {
            float x[PER_THREAD], y[PER_THREAD];
            take(s.a[at][q], a_place * 4, x);
            take(s.b[at][q], b_place * 4, y);
#pragma unroll
            for (int i = 0; i < PER_THREAD; ++i)
#pragma unroll
                for (int j = 0; j < PER_THREAD; ++j)
                    product[i][j] = fmaf(x[i], y[j], product[i][j]);
        }
        if (has_next) {
            put(s.a[at ^ 1], column, row, next_a);
            put(s.b[at ^ 1], column, row, next_b);
            __syncthreads();
            at ^= 1;
        }
    }
}

bool may_pack(const float *x, const float *y, int64_t d) {
    return d % 4 == 0 && is_packed(x) && is_packed(y);
}

/// A float's bits as an unsigned number of the same order; -0 and +0 are one.
__device__ __forceinline__ unsigned rising_bits(float x) {
    const unsigned bits = __float_as_uint(x + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_rising_bits(unsigned bits) {
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---------------------------------------------------------------------------------------------- nearest rows

/// A block takes 128 rows and a range of the centroids' tiles. With several ranges each writes (value, index) as a rising word to
/// part [ranges, n], which join takes the least of.
template <bool IS_PACKED>
__global__ void __launch_bounds__(THREADS, 2)
    nearest(const float *x, int64_t n, const float *c, const float *half_norm, int64_t k, int64_t d,
            int64_t tiles_per_range, word *part, int32_t *index, float *value) {
    __shared__ tiles s;
    const int x_place = (int)threadIdx.x / 16, c_place = (int)threadIdx.x % 16;
    const int64_t first_row = (int64_t)blockIdx.x * TILE;
    const int64_t begin = (int64_t)blockIdx.y * tiles_per_range * TILE;
    const int64_t end = begin + tiles_per_range * TILE < k ? begin + tiles_per_range * TILE : k;
    float best[PER_THREAD], product[PER_THREAD][PER_THREAD];
    int best_index[PER_THREAD];
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        best[i] = INFINITY;
        best_index[i] = 0x7fffffff;
    }
    for (int64_t column = begin; column < end; column += TILE) {
        multiply<IS_PACKED>(s, x, first_row, n, c, column, k, d, product);
        // A thread meets its centroids in rising order, so an equal older one stays.
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) {
            const int64_t at = column + inside(c_place, j);
            const float half = at < k ? half_norm[at] : INFINITY;
#pragma unroll
            for (int i = 0; i < PER_THREAD; ++i) {
                const float distance = half - product[i][j];
                if (distance < best[i]) {
                    best[i] = distance;
                    best_index[i] = (int)at;
                }
            }
        }
    }
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        for (int offset = 8; offset > 0; offset >>= 1) {
            const float other = __shfl_xor_sync(0xffffffffu, best[i], offset);
            const int other_index = __shfl_xor_sync(0xffffffffu, best_index[i], offset);
            if (other < best[i] || (other == best[i] && other_index < best_index[i])) {
                best[i] = other;
                best_index[i] = other_index;
            }
        }
        const int64_t row = first_row + inside(x_place, i);
        if (c_place != 0 || row >= n) continue;
        if (part) {
            part[blockIdx.y * n + row] = (word)rising_bits(best[i]) << 32 | (unsigned)best_index[i];
        } else {
            index[row] = best_index[i];
            if (value) value[row] = best[i];
        }
    }
}

__global__ void join(const word *part, int64_t n, int64_t n_ranges, int32_t *index, float *value) {
    const int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n) return;
    word best = part[row];
    for (int64_t r = 1; r < n_ranges; ++r) {
        const word other = part[r * n + row];
        if (other < best) best = other;
    }
    index[row] = (int32_t)(best & 0xffffffffu);
    if (value) value[row] = from_rising_bits((unsigned)(best >> 32));
}

/// Few rows would leave most of a card idle: then the centroids are divided too. Any division gives the same answer.
int64_t ranges_of(int64_t n, int64_t k) {
    enum { WANTED_BLOCKS = 1024 };
    const int64_t row_tiles = ceil_div(n, TILE), column_tiles = ceil_div(k, TILE);
    const int64_t wanted = ceil_div(WANTED_BLOCKS, row_tiles);
    const int64_t most = wanted < column_tiles ? wanted : column_tiles;
    return ceil_div(column_tiles, ceil_div(column_tiles, most));
}

// ---------------------------------------------------------------------------------------------- best rows

/// Key of hirl_k_top: the greater, the better.
__device__ __forceinline__ word key_of(float score, int64_t row) {
    return (word)rising_bits(score) << 32 | (unsigned)~(unsigned)row;
}

/// Rows come in rising order: a later one of equal score is never wanted, so passing means exceeding.
template <bool IS_PACKED>
__global__ void __launch_bounds__(THREADS, 2)
    scan(hirl_k_top_t top, const float *query, const float *bank, int64_t d, int64_t first,
         int64_t end, bool is_first) {
    __shared__ tiles s;
    const int q_place = (int)threadIdx.x / 16, b_place = (int)threadIdx.x % 16;
    const int64_t first_query = (int64_t)blockIdx.y * TILE;
    const int64_t first_row = first + (int64_t)blockIdx.x * TILE;
    float product[PER_THREAD][PER_THREAD];
    multiply<IS_PACKED>(s, query, first_query, top.n_queries, bank, first_row, end, d, product);
#pragma unroll
    for (int i = 0; i < PER_THREAD; ++i) {
        const int64_t q = first_query + inside(q_place, i);
        if (q >= top.n_queries) continue;
        const float threshold = is_first ? 0 : top.threshold[q];
        word *fresh = reinterpret_cast<word *>(top.fresh) + q * top.piece;
#pragma unroll
        for (int j = 0; j < PER_THREAD; ++j) {
            const int64_t row = first_row + inside(b_place, j);
            if (row >= end || !(is_first || product[i][j] > threshold)) continue;
            const int64_t place = is_first ? row - first : (int64_t)atomicAdd(&top.n_fresh[q], 1u);
            fresh[place] = key_of(product[i][j], row);
        }
    }
}

/// What a block shares while it selects.
struct best_shared {
    unsigned count[256];  // keys by digit
    unsigned warp_sum[8]; // of eight warps
    unsigned digit, rest; // what was found
    unsigned n_out;
};

/// Finds the digit of the `wanted`-th largest key, given how many keys have each; `rest`: its place among those of the digit. One
/// thread per digit, the largest first.
__device__ void find_digit(best_shared &s, unsigned wanted) {
    const int t = (int)threadIdx.x, lane = t & 31, warp = t >> 5;
    const unsigned own = s.count[255 - t];
    unsigned sum = own;
    for (int offset = 1; offset < 32; offset <<= 1) {
        const unsigned other = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += other;
    }
    if (lane == 31) s.warp_sum[warp] = sum;
    __syncthreads();
    for (int w = 0; w < warp; ++w) sum += s.warp_sum[w];
    if (sum - own < wanted && wanted <= sum) {
        s.digit = (unsigned)(255 - t);
        s.rest = wanted - (sum - own);
    }
    __syncthreads();
}

/// A block per query: of the keys held and fresh, the `wanted` largest; digit by digit from the top.
__global__ void keep_best(hirl_k_top_t top, int64_t n_held, int64_t n_first, int64_t wanted) {
    __shared__ best_shared s;
    const int64_t q = blockIdx.x;
    const word *held = reinterpret_cast<const word *>(top.held) + q * top.k;
    const word *fresh = reinterpret_cast<const word *>(top.fresh) + q * top.piece;
    word *out = reinterpret_cast<word *>(top.held_after) + q * top.k;
    // Of the first piece all rows are there, uncounted.
    const int64_t n_fresh = n_first ? n_first : (int64_t)top.n_fresh[q];
    const int64_t n = n_held + n_fresh;
    const int t = (int)threadIdx.x;
    word prefix = 0, mask = 0; // keys of the same leading digits as the one that is looked for
    unsigned rest = (unsigned)wanted;
    for (int shift = 56; shift >= 0 && n > wanted; shift -= 8) {
        s.count[t] = 0;
        __syncthreads();
        for (int64_t i = t; i < n; i += THREADS) {
            const word key = i < n_held ? held[i] : fresh[i - n_held];
            if ((key & mask) == prefix) atomicAdd(&s.count[(unsigned)(key >> shift) & 255u], 1u);
        }
        __syncthreads();
        find_digit(s, rest);
        prefix |= (word)s.digit << shift;
        mask |= (word)255 << shift;
        rest = s.rest;
        // The score is known, and all with it are wanted: their rows need no look.
        const bool is_done = shift <= 32 && s.count[s.digit] == rest;
        __syncthreads();
        if (is_done) break;
    }
    if (t == 0) s.n_out = 0;
    __syncthreads();
    for (int64_t i = t; i < n; i += THREADS) {
        const word key = i < n_held ? held[i] : fresh[i - n_held];
        if (key >= prefix) out[atomicAdd(&s.n_out, 1u)] = key;
    }
    // Less than is wanted there is only where products are not numbers.
    for (int64_t i = n + t; i < wanted; i += THREADS) out[i] = 0;
    if (t == 0) {
        top.n_fresh[q] = 0;
        if (wanted == top.k && n > wanted)
            top.threshold[q] = from_rising_bits((unsigned)(prefix >> 32));
        else if (n_first)
            top.threshold[q] = -INFINITY;
    }
}

/// A block per query. A key's place is the number of those above it.
__global__ void sort_lists(hirl_k_top_t top, float *score, int32_t *index) {
    enum { AT_ONCE = 4 * THREADS };
    __shared__ word others[AT_ONCE];
    const int64_t q = blockIdx.x, k = top.k;
    const word *keys = reinterpret_cast<const word *>(top.held) + q * k;
    for (int64_t begin = 0; begin < k; begin += THREADS) {
        const int64_t i = begin + threadIdx.x;
        const word key = i < k ? keys[i] : 0;
        int64_t place = 0;
        for (int64_t from = 0; from < k; from += AT_ONCE) {
            const int n = k - from < AT_ONCE ? (int)(k - from) : (int)AT_ONCE;
            __syncthreads();
            for (int j = (int)threadIdx.x; j < n; j += THREADS) others[j] = keys[from + j];
            __syncthreads();
            for (int j = 0; j < n; ++j)
                place += others[j] > key || (others[j] == key && from + j < i);
        }
        if (i >= k) continue;
        score[q * k + place] = from_rising_bits((unsigned)(key >> 32));
        index[q * k + place] = (int32_t) ~(unsigned)key;
    }
}

// ---------------------------------------------------------------------------------------------- sums

/// The integer nearest to x, even on ties; |x| <= 2^51. Below 2^53 the unit of a double is 1: adding 1.5 * 2^52 leaves the integer in
/// the low bits. (A fused multiply-add with the scale, a power of two, changes nothing.)
__device__ __forceinline__ word fixed_round(double x) {
    return (word)(__double_as_longlong(x + 6755399441055744.0) - 0x4338000000000000ll);
}

/// A warp per row, its lanes over the columns.
__global__ void sum_rows(const float *x, const int32_t *index, int64_t n, int64_t k, int64_t d,
                         double scale, word *sum, word *count, hirl_k_fault_t *fault) {
    const int lane = (int)threadIdx.x & 31;
    const int64_t n_warps = (int64_t)gridDim.x * (THREADS / 32);
    for (int64_t row = (int64_t)blockIdx.x * (THREADS / 32) + (threadIdx.x >> 5); row < n;
         row += n_warps) {
        const int64_t cluster = index[row];
        if (!in_range(cluster, k, HIRL_K_FAULT_SUM, row, fault)) continue;
        for (int64_t j = lane; j < d; j += 32)
            atomicAdd(&sum[cluster * d + j], fixed_round((double)x[row * d + j] * scale));
        if (lane == 0) atomicAdd(&count[cluster], (word)1);
    }
}

/// Eight lanes per row: lane i adds up columns i, i + 8, ..., and then the lanes are added in the host's order.
__global__ void sum_distances(const float *x, const int32_t *index, int64_t n, const float *c,
                              int64_t k, int64_t d, double scale, word *total,
                              hirl_k_fault_t *fault) {
    __shared__ word scratch[33];
    const int lane = (int)threadIdx.x % LANES;
    const int64_t n_groups = (int64_t)gridDim.x * (THREADS / LANES);
    word sum = 0;
    for (int64_t base = (int64_t)blockIdx.x * (THREADS / LANES); base < n; base += n_groups) {
        const int64_t row = base + threadIdx.x / LANES;
        const int64_t cluster = row < n ? index[row] : 0;
        const bool is_good = row < n && in_range(cluster, k, HIRL_K_FAULT_SUM, row, fault);
        double s = 0;
        for (int64_t j = lane; is_good && j < d; j += LANES) {
            const double difference = (double)x[row * d + j] - (double)c[cluster * d + j];
            s = __dadd_rn(s, __dmul_rn(difference, difference));
        }
        for (int offset = 4; offset > 0; offset >>= 1)
            s = __dadd_rn(s, __shfl_xor_sync(0xffffffffu, s, offset));
        if (is_good && lane == 0) sum += fixed_round(s * scale);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0 && sum) atomicAdd(total, sum);
}

} // namespace

size_t hirl_k_nearest_rows_scratch(int64_t n, int64_t k) {
    const int64_t n_ranges = ranges_of(n, k);
    return n_ranges > 1 ? (size_t)(n_ranges * n) * sizeof(word) : 0;
}

cudaError_t hirl_k_nearest_rows(cudaStream_t stream, const float *x, int64_t n, const float *c,
                                const float *half_norm, int64_t k, int64_t d, void *scratch,
                                int32_t *index, float *value) {
    const int64_t n_ranges = ranges_of(n, k), range = ceil_div(ceil_div(k, TILE), n_ranges);
    word *part = n_ranges > 1 ? (word *)scratch : nullptr;
    const dim3 grid((unsigned)ceil_div(n, TILE), (unsigned)n_ranges);
    if (may_pack(x, c, d))
        HIRL_LAUNCH((nearest<true>), grid, THREADS, 0, stream, x, n, c, half_norm, k, d, range,
                    part, index, value);
    else
        HIRL_LAUNCH((nearest<false>), grid, THREADS, 0, stream, x, n, c, half_norm, k, d, range,
                    part, index, value);
    if (part)
        HIRL_LAUNCH(join, (unsigned)ceil_div(n, THREADS), THREADS, 0, stream, part, n, n_ranges,
                    index, value);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_top_scan(cudaStream_t stream, const hirl_k_top_t *top, const float *query,
                            const float *bank, int64_t d, int64_t first, int64_t n, bool is_first) {
    const dim3 grid((unsigned)ceil_div(n, TILE), (unsigned)ceil_div(top->n_queries, TILE));
    if (may_pack(query, bank, d))
        HIRL_LAUNCH((scan<true>), grid, THREADS, 0, stream, *top, query, bank, d, first, first + n,
                    is_first);
    else
        HIRL_LAUNCH((scan<false>), grid, THREADS, 0, stream, *top, query, bank, d, first, first + n,
                    is_first);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_top_select(cudaStream_t stream, const hirl_k_top_t *top, int64_t n_seen,
                              int64_t n_last) {
    const int64_t n_before = n_seen - n_last;
    const int64_t n_held = n_before < top->k ? n_before : top->k;
    const int64_t wanted = n_seen < top->k ? n_seen : top->k;
    HIRL_LAUNCH(keep_best, (unsigned)top->n_queries, THREADS, 0, stream, *top, n_held,
                n_before == 0 ? n_last : 0, wanted);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_top_sort(cudaStream_t stream, const hirl_k_top_t *top, float *score,
                            int32_t *index) {
    HIRL_LAUNCH(sort_lists, (unsigned)top->n_queries, THREADS, 0, stream, *top, score, index);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_sum_rows(cudaStream_t stream, const float *x, const int32_t *index, int64_t n,
                            int64_t k, int64_t d, double scale, int64_t *sum, int64_t *count,
                            hirl_k_fault_t *fault) {
    HIRL_LAUNCH(sum_rows, hirl_k_blocks(n, THREADS / 32, 65536), THREADS, 0, stream, x, index, n, k,
                d, scale, reinterpret_cast<word *>(sum), reinterpret_cast<word *>(count), fault);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_sum_distances(cudaStream_t stream, const float *x, const int32_t *index,
                                 int64_t n, const float *c, int64_t k, int64_t d, double scale,
                                 int64_t *total, hirl_k_fault_t *fault) {
    HIRL_LAUNCH(sum_distances, hirl_k_blocks(n, THREADS / LANES, 4096), THREADS, 0, stream, x,
                index, n, c, k, d, scale, reinterpret_cast<word *>(total), fault);
    return hirl_k_end(stream);
}
