/// Multi-head attention after Dao et al. 2022 and Dao 2023: a block has 64 rows of one problem and head, 16 a warp, and the tiles of the other side
/// pass through its shared memory; scores never leave the multiprocessor.
/// With P = B H Nq Nk D multiply-adds: forward 2 P; backward 3 P for dq, 4 P for dk and dv, 2 P for dbias where there is one, each of which
/// computes the scores again instead of adding to memory that blocks share, so that the order of all sums is fixed (the least would be
/// 5 P in all). Bytes: q, k, v, y, their gradients, bias and mask once each from device memory, lse and delta 4 each a row; the other side's
/// tiles once more per 64 rows, from the level-2 cache.
/// Scores are kept times log2(e), so that exp2 serves. Tiles of 64 columns up to heads of 64 columns, of 32 beyond.
#include "attention.h"
#include "attention_tiles.h"

namespace hirl_k {

enum { N_WARPS = 4, BLOCK = 32 * N_WARPS, BLOCK_ROWS = TILE_ROWS * N_WARPS, LEAST_BLOCKS = 1024 };
#define LOG2_E 1.44269504088896341f
#define LN_2 0.693147180559945309f

/// Columns of tiles for heads of up to SIZE columns.
template <int SIZE> __host__ __device__ constexpr int tile_columns() { return SIZE > 64 ? 32 : 64; }

/// Rows [first, first + N) of x, of n_rows, to a tile; zeros beyond these and beyond `size` columns. All threads take part.
template <typename T, int SIZE, int N, int ROW>
static __device__ __forceinline__ void load_tile(const T *x, int64_t stride, int first, int n_rows,
                                                 int size, T *tile) {
    constexpr int V = pack_items<T>();
    for (int i = (int)threadIdx.x; i < N * (SIZE / V); i += BLOCK) {
        const int r = i / (SIZE / V), c = i % (SIZE / V) * V;
        pack<T, V> part;
        if (first + r < n_rows && c < size) {
            part = *(const pack<T, V> *)(x + (first + r) * stride + c);
        } else {
#pragma unroll
            for (int k = 0; k < V; ++k) store(&part.item[k], 0.0f);
        }
        *(pack<T, V> *)(tile + r * ROW + c) = part;
    }
}

/// Sum and largest over the lanes that share rows.
template <int N_LANES> static __device__ __forceinline__ float lanes_sum(float x) {
#pragma unroll
    for (int bit = 1; bit < N_LANES; bit <<= 1) x += __shfl_xor_sync(0xffffffffu, x, bit);
    return x;
}
template <int N_LANES> static __device__ __forceinline__ float lanes_max(float x) {
#pragma unroll
    for (int bit = 1; bit < N_LANES; bit <<= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, bit));
    return x;
}

/// Which problem, head and rows a block has; blocks of one head follow each other, so that they find its tiles in the cache.
struct place {
    int64_t batch;
    int head, first;
};
static __device__ __forceinline__ place own_place(const hirl_k_attention_t &p, int n_rows) {
    const unsigned n_blocks = (unsigned)(n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const unsigned rest = blockIdx.x / n_blocks;
    place at;
    at.first = (int)(blockIdx.x % n_blocks) * BLOCK_ROWS;
    at.head = (int)(rest % (unsigned)p.n_heads);
    at.batch = rest / (unsigned)p.n_heads;
    return at;
}

/// Bias and mask of one problem and head.
struct extra {
    const float *bias, *mask;
    __device__ __forceinline__ extra(const hirl_k_attention_t &p, int64_t batch, int head) {
        const int64_t square = (int64_t)p.n_query * p.n_key;
        bias = p.bias ? p.bias + head * square : nullptr;
        mask = p.mask ? p.mask + batch % p.n_mask * square : nullptr;
    }
    /// The score of query i and key j, times log2(e), from their product.
    __device__ __forceinline__ float score(const hirl_k_attention_t &p, float product, int i,
                                           int j) const {
        const int64_t at = (int64_t)i * p.n_key + j;
        float more = 0;
        if (bias) more = bias[at];
        if (mask) more += mask[at];
        return product * (p.scale * LOG2_E) + more * LOG2_E;
    }
};

// ---------------------------------------------------------------------------------------------- forward

template <typename T, int SIZE> static size_t forward_shared() {
    constexpr int COLUMNS = tile_columns<SIZE>();
    typedef tiles<T, SIZE, COLUMNS> t;
    return sizeof(T) * t::ROW * (BLOCK_ROWS + 2 * COLUMNS) +
           sizeof(float) * t::SCORE_ROW * BLOCK_ROWS;
}

/// With m the largest score so far, l = sum exp(s - m) and o = sum exp(s - m) v: a tile with a larger score scales both (online soft-max).
template <typename T, int SIZE>
static __global__ void __launch_bounds__(BLOCK, 2)
    attention_forward(hirl_k_attention_t p, T *y, float *lse) {
    constexpr int COLUMNS = tile_columns<SIZE>();
    typedef tiles<T, SIZE, COLUMNS> t;
    HIRL_DYNAMIC_SHARED(T, q_tile);
    T *k_tile = q_tile + BLOCK_ROWS * t::ROW, *v_tile = k_tile + COLUMNS * t::ROW;
    const int warp = (int)threadIdx.x / 32, size = p.head_size;
    float *buffer = (float *)(v_tile + COLUMNS * t::ROW) + warp * TILE_ROWS * t::SCORE_ROW;
    const place at = own_place(p, p.n_query);
    const extra more(p, at.batch, at.head);
    const int first_row = at.first + warp * TILE_ROWS; // of the warp
    const int64_t column = (int64_t)at.head * size;
    const T *k = (const T *)p.k + at.batch * p.n_key * p.k_row + column;
    const T *v = (const T *)p.v + at.batch * p.n_key * p.v_row + column;
    load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)p.q + at.batch * p.n_query * p.q_row + column,
                                           p.q_row, at.first, p.n_query, size, q_tile);
    float top[t::N_ROWS], total[t::N_ROWS];
    typename t::sum o;
    o.clear();
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r) {
        top[r] = -INFINITY;
        total[r] = 0;
    }
    for (int first = 0; first < p.n_key; first += COLUMNS) {
        const int n_columns = min(COLUMNS, p.n_key - first);
        __syncthreads();
        load_tile<T, SIZE, COLUMNS, t::ROW>(k, p.k_row, first, p.n_key, size, k_tile);
        load_tile<T, SIZE, COLUMNS, t::ROW>(v, p.v_row, first, p.n_key, size, v_tile);
        __syncthreads();
        if (first_row >= p.n_query) continue;
        float s[t::N_ROWS][t::N_COLUMNS], factor[t::N_ROWS];
        t::scores(q_tile + warp * TILE_ROWS * t::ROW, k_tile, size, n_columns, buffer, s);
        int is_moved = 0;
#pragma unroll
        for (int r = 0; r < t::N_ROWS; ++r) {
            const int i = min(first_row + t::row(r), p.n_query - 1);
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < t::N_COLUMNS; ++j) {
                s[r][j] = t::column(j) < n_columns ? more.score(p, s[r][j], i, first + t::column(j))
                                                   : -INFINITY;
                most = fmaxf(most, s[r][j]);
            }
            most = fmaxf(top[r], lanes_max<t::N_LANES>(most));
            const float base = most == -INFINITY ? 0 : most; // all masked so far
            factor[r] = exp2f(top[r] - base);
            is_moved |= most != top[r];
            top[r] = most;
            float part = 0;
#pragma unroll
            for (int j = 0; j < t::N_COLUMNS; ++j) {
                s[r][j] = exp2f(s[r][j] - base);
                part += s[r][j];
            }
            total[r] = fmaf(total[r], factor[r], lanes_sum<t::N_LANES>(part));
        }
        if (__any_sync(0xffffffffu, is_moved)) o.scale(factor, buffer);
        t::put(s, buffer);
        o.add(buffer, v_tile, n_columns, size);
    }
    if (first_row >= p.n_query) return;
    float inverse[t::N_ROWS];
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r) {
        const int i = first_row + t::row(r);
        inverse[r] = total[r] == 0 ? 0 : 1.0f / total[r];
        if (lse && i < p.n_query && own_lane() % t::N_LANES == 0)
            lse[(at.batch * p.n_heads + at.head) * p.n_query + i] =
                total[r] == 0 ? INFINITY : fmaf(top[r], LN_2, logf(total[r]));
    }
    const int64_t y_row = (int64_t)p.n_heads * size;
    o.write(inverse, buffer, y + (at.batch * p.n_query + first_row) * y_row + column, y_row,
            p.n_query - first_row, size);
}

// ---------------------------------------------------------------------------------------------- backward

/// delta [n_batch, n_heads, n_query] = <dy, y> of the row and head, which is sum_j P dP. Eight lanes a row.
template <typename T>
static __global__ void __launch_bounds__(BLOCK)
    attention_delta(const T *y, const T *dy, int64_t n, int n_heads, int n_query, int size,
                    float *delta) {
    constexpr int V = pack_items<T>();
    const int64_t at = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / 8;
    const int64_t own = at < n ? at : n - 1; // row * n_heads + head
    float sum = 0;
    for (int c = own_lane() % 8 * V; c < size; c += 8 * V) {
        const pack<T, V> a = *(const pack<T, V> *)(y + own * size + c),
                         b = *(const pack<T, V> *)(dy + own * size + c);
#pragma unroll
        for (int i = 0; i < V; ++i) sum = fmaf(load(&a.item[i]), load(&b.item[i]), sum);
    }
    sum = lanes_sum<8>(sum);
    if (at >= n || own_lane() % 8 != 0) return;
    const int64_t row = at / n_heads;
    delta[(row / n_query * n_heads + at % n_heads) * n_query + row % n_query] = sum;
}

template <typename T, int SIZE> static size_t backward_shared() {
    constexpr int COLUMNS = tile_columns<SIZE>();
    typedef tiles<T, SIZE, COLUMNS> t;
    return sizeof(T) * t::ROW * 2 * (BLOCK_ROWS + COLUMNS) +
           sizeof(float) * (t::SCORE_ROW * BLOCK_ROWS + 2 * COLUMNS);
}

/// What the kernels of the backward read beside hirl_k_attention_t.
struct backward {
    const void *dy;
    const float *lse, *delta;
};

/// dS = P (dP - delta) of the warp's queries [first_row, ..) and the keys [first, ..) of a tile, from q, dy, k and v tiles.
template <typename T, int SIZE, int COLUMNS>
static __device__ __forceinline__ void
score_slopes(const hirl_k_attention_t &p, const extra &more, const T *q_tile, const T *dy_tile,
             const T *k_tile, const T *v_tile, int first_row, int first, int n_columns,
             const float *lse2, const float *delta, float *buffer,
             float (&d)[tiles<T, SIZE, COLUMNS>::N_ROWS][tiles<T, SIZE, COLUMNS>::N_COLUMNS]) {
    typedef tiles<T, SIZE, COLUMNS> t;
    float s[t::N_ROWS][t::N_COLUMNS];
    t::scores(q_tile, k_tile, p.head_size, n_columns, buffer, s);
    t::scores(dy_tile, v_tile, p.head_size, n_columns, buffer, d);
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r) {
        const int i = min(first_row + t::row(r), p.n_query - 1);
#pragma unroll
        for (int j = 0; j < t::N_COLUMNS; ++j) {
            const int c = t::column(j);
            d[r][j] = c < n_columns ? exp2f(more.score(p, s[r][j], i, first + c) - lse2[r]) *
                                          (d[r][j] - delta[r])
                                    : 0;
        }
    }
}

/// dq = scale dS k.
template <typename T, int SIZE>
static __global__ void __launch_bounds__(BLOCK, 2)
    attention_backward_q(hirl_k_attention_t p, backward from, T *dq) {
    constexpr int COLUMNS = tile_columns<SIZE>();
    typedef tiles<T, SIZE, COLUMNS> t;
    HIRL_DYNAMIC_SHARED(T, q_tile);
    T *dy_tile = q_tile + BLOCK_ROWS * t::ROW, *k_tile = dy_tile + BLOCK_ROWS * t::ROW,
      *v_tile = k_tile + COLUMNS * t::ROW;
    const int warp = (int)threadIdx.x / 32, size = p.head_size;
    float *buffer = (float *)(v_tile + COLUMNS * t::ROW) + warp * TILE_ROWS * t::SCORE_ROW;
    const place at = own_place(p, p.n_query);
    const extra more(p, at.batch, at.head);
    const int first_row = at.first + warp * TILE_ROWS;
    const int64_t column = (int64_t)at.head * size, y_row = (int64_t)p.n_heads * size;
    const int64_t row = at.batch * p.n_query;
    const T *k = (const T *)p.k + at.batch * p.n_key * p.k_row + column;
    const T *v = (const T *)p.v + at.batch * p.n_key * p.v_row + column;
    load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)p.q + row * p.q_row + column, p.q_row,
                                           at.first, p.n_query, size, q_tile);
    load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)from.dy + row * y_row + column, y_row,
                                           at.first, p.n_query, size, dy_tile);
    float lse2[t::N_ROWS], delta[t::N_ROWS], scale[t::N_ROWS];
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r) {
        const int64_t i = (at.batch * p.n_heads + at.head) * p.n_query +
                          min(first_row + t::row(r), p.n_query - 1);
        lse2[r] = from.lse[i] * LOG2_E;
        delta[r] = from.delta[i];
        scale[r] = p.scale;
    }
    typename t::sum sum;
    sum.clear();
    for (int first = 0; first < p.n_key; first += COLUMNS) {
        const int n_columns = min(COLUMNS, p.n_key - first);
        __syncthreads();
        load_tile<T, SIZE, COLUMNS, t::ROW>(k, p.k_row, first, p.n_key, size, k_tile);
        load_tile<T, SIZE, COLUMNS, t::ROW>(v, p.v_row, first, p.n_key, size, v_tile);
        __syncthreads();
        if (first_row >= p.n_query) continue;
        float d[t::N_ROWS][t::N_COLUMNS];
        score_slopes<T, SIZE, COLUMNS>(p, more, q_tile + warp * TILE_ROWS * t::ROW,
                                       dy_tile + warp * TILE_ROWS * t::ROW, k_tile, v_tile,
                                       first_row, first, n_columns, lse2, delta, buffer, d);
        t::put(d, buffer);
        sum.add(buffer, k_tile, n_columns, size);
    }
    if (first_row >= p.n_query) return;
    sum.write(scale, buffer, dq + (row + first_row) * p.q_row + column, p.q_row,
              p.n_query - first_row, size);
}

/// dk = scale dS^T q and dv = P^T dy: the block has keys, and tiles of queries pass. Either may be NULL.
template <typename T, int SIZE>
static __global__ void __launch_bounds__(BLOCK, 2)
    attention_backward_kv(hirl_k_attention_t p, backward from, T *dk, T *dv) {
    constexpr int COLUMNS = tile_columns<SIZE>();
    typedef tiles<T, SIZE, COLUMNS> t;
    HIRL_DYNAMIC_SHARED(T, k_tile);
    T *v_tile = k_tile + BLOCK_ROWS * t::ROW, *q_tile = v_tile + BLOCK_ROWS * t::ROW,
      *dy_tile = q_tile + COLUMNS * t::ROW;
    float *lse2 = (float *)(dy_tile + COLUMNS * t::ROW), *delta = lse2 + COLUMNS;
    const int warp = (int)threadIdx.x / 32, size = p.head_size;
    float *buffer = delta + COLUMNS + warp * TILE_ROWS * t::SCORE_ROW;
    const place at = own_place(p, p.n_key);
    const extra more(p, at.batch, at.head);
    const int first_row = at.first + warp * TILE_ROWS;
    const int64_t column = (int64_t)at.head * size, y_row = (int64_t)p.n_heads * size;
    const int64_t row = at.batch * p.n_key;
    const int64_t line = (at.batch * p.n_heads + at.head) * p.n_query;
    const T *q = (const T *)p.q + at.batch * p.n_query * p.q_row + column;
    const T *dy = (const T *)from.dy + at.batch * p.n_query * y_row + column;
    load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)p.k + row * p.k_row + column, p.k_row,
                                           at.first, p.n_key, size, k_tile);
    load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)p.v + row * p.v_row + column, p.v_row,
                                           at.first, p.n_key, size, v_tile);
    typename t::sum k_sum, v_sum;
    k_sum.clear();
    v_sum.clear();
    for (int first = 0; first < p.n_query; first += COLUMNS) {
        const int n_columns = min(COLUMNS, p.n_query - first);
        __syncthreads();
        load_tile<T, SIZE, COLUMNS, t::ROW>(q, p.q_row, first, p.n_query, size, q_tile);
        load_tile<T, SIZE, COLUMNS, t::ROW>(dy, y_row, first, p.n_query, size, dy_tile);
        for (int i = (int)threadIdx.x; i < n_columns; i += BLOCK) {
            lse2[i] = from.lse[line + first + i] * LOG2_E;
            delta[i] = from.delta[line + first + i];
        }
        __syncthreads();
        if (first_row >= p.n_key) continue;
        float s[t::N_ROWS][t::N_COLUMNS], d[t::N_ROWS][t::N_COLUMNS];
        t::scores(k_tile + warp * TILE_ROWS * t::ROW, q_tile, size, n_columns, buffer, s);
        t::scores(v_tile + warp * TILE_ROWS * t::ROW, dy_tile, size, n_columns, buffer, d);
#pragma unroll
        for (int r = 0; r < t::N_ROWS; ++r) {
            const int j = min(first_row + t::row(r), p.n_key - 1);
#pragma unroll
            for (int l = 0; l < t::N_COLUMNS; ++l) {
                const int c = t::column(l);
                if (c < n_columns) {
                    s[r][l] = exp2f(more.score(p, s[r][l], first + c, j) - lse2[c]);
                    d[r][l] = s[r][l] * (d[r][l] - delta[c]);
                } else {
                    s[r][l] = d[r][l] = 0;
                }
            }
        }
        t::put(s, buffer);
        v_sum.add(buffer, dy_tile, n_columns, size);
        t::put(d, buffer);
        k_sum.add(buffer, q_tile, n_columns, size);
    }
    if (first_row >= p.n_key) return;
    float scale[t::N_ROWS], one[t::N_ROWS];
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r) {
        scale[r] = p.scale;
        one[r] = 1;
    }
    if (dk)
        k_sum.write(scale, buffer, dk + (row + first_row) * p.k_row + column, p.k_row,
                    p.n_key - first_row, size);
    if (dv)
        v_sum.write(one, buffer, dv + (row + first_row) * p.v_row + column, p.v_row,
                    p.n_key - first_row, size);
}

/// part [n_parts, n_heads, n_query, n_key] = dS summed over a range of problems, in their order: a block has a tile of one range and head.
template <typename T, int SIZE>
static __global__ void __launch_bounds__(BLOCK, 2)
    attention_backward_bias(hirl_k_attention_t p, backward from, int n_parts, float *part) {
    constexpr int COLUMNS = tile_columns<SIZE>();
    typedef tiles<T, SIZE, COLUMNS> t;
    HIRL_DYNAMIC_SHARED(T, q_tile);
    T *dy_tile = q_tile + BLOCK_ROWS * t::ROW, *k_tile = dy_tile + BLOCK_ROWS * t::ROW,
      *v_tile = k_tile + COLUMNS * t::ROW;
    const int warp = (int)threadIdx.x / 32, size = p.head_size;
    float *buffer = (float *)(v_tile + COLUMNS * t::ROW) + warp * TILE_ROWS * t::SCORE_ROW;
    const unsigned n_across = (unsigned)(p.n_key + COLUMNS - 1) / COLUMNS;
    const int first = (int)(blockIdx.x % n_across) * COLUMNS;
    const unsigned rest = blockIdx.x / n_across;
    const unsigned n_down = (unsigned)(p.n_query + BLOCK_ROWS - 1) / BLOCK_ROWS;
    const int block_first = (int)(rest % n_down) * BLOCK_ROWS;
    const int head = (int)(rest / n_down % (unsigned)p.n_heads);
    const int64_t own_part = rest / n_down / (unsigned)p.n_heads;
    const int first_row = block_first + warp * TILE_ROWS, n_columns = min(COLUMNS, p.n_key - first);
    const int64_t column = (int64_t)head * size, y_row = (int64_t)p.n_heads * size;
    float sum[t::N_ROWS][t::N_COLUMNS];
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r)
#pragma unroll
        for (int j = 0; j < t::N_COLUMNS; ++j) sum[r][j] = 0;
    const int64_t end = (own_part + 1) * p.n_batch / n_parts;
    for (int64_t b = own_part * p.n_batch / n_parts; b < end; ++b) {
        const extra more(p, b, head);
        __syncthreads();
        load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)p.q + b * p.n_query * p.q_row + column,
                                               p.q_row, block_first, p.n_query, size, q_tile);
        load_tile<T, SIZE, BLOCK_ROWS, t::ROW>((const T *)from.dy + b * p.n_query * y_row + column,
                                               y_row, block_first, p.n_query, size, dy_tile);
        load_tile<T, SIZE, COLUMNS, t::ROW>((const T *)p.k + b * p.n_key * p.k_row + column,
                                            p.k_row, first, p.n_key, size, k_tile);
        load_tile<T, SIZE, COLUMNS, t::ROW>((const T *)p.v + b * p.n_key * p.v_row + column,
                                            p.v_row, first, p.n_key, size, v_tile);
        __syncthreads();
        if (first_row >= p.n_query) continue;
        float lse2[t::N_ROWS], delta[t::N_ROWS], d[t::N_ROWS][t::N_COLUMNS];
#pragma unroll
        for (int r = 0; r < t::N_ROWS; ++r) {
            const int64_t i =
                (b * p.n_heads + head) * p.n_query + min(first_row + t::row(r), p.n_query - 1);
            lse2[r] = from.lse[i] * LOG2_E;
            delta[r] = from.delta[i];
        }
        score_slopes<T, SIZE, COLUMNS>(p, more, q_tile + warp * TILE_ROWS * t::ROW,
                                       dy_tile + warp * TILE_ROWS * t::ROW, k_tile, v_tile,
                                       first_row, first, n_columns, lse2, delta, buffer, d);
#pragma unroll
        for (int r = 0; r < t::N_ROWS; ++r)
#pragma unroll
            for (int j = 0; j < t::N_COLUMNS; ++j) sum[r][j] += d[r][j];
    }
    float *to = part + (own_part * p.n_heads + head) * p.n_query * p.n_key;
#pragma unroll
    for (int r = 0; r < t::N_ROWS; ++r) {
        const int i = first_row + t::row(r);
        if (i >= p.n_query) continue;
#pragma unroll
        for (int j = 0; j < t::N_COLUMNS; ++j)
            if (t::column(j) < n_columns)
                to[(int64_t)i * p.n_key + first + t::column(j)] = sum[r][j];
    }
}

/// sum [n] = the parts [n_parts, n] in their order.
static __global__ void __launch_bounds__(BLOCK)
    attention_fold(const float *part, int n_parts, int64_t n, float *sum) {
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * BLOCK) {
        float x = 0;
        for (int k = 0; k < n_parts; ++k) x += part[k * n + i];
        sum[i] = x;
    }
}

// ---------------------------------------------------------------------------------------------- launching

static int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// Ranges of problems of the sums for dbias: enough for some blocks a multiprocessor, whatever the card.
static int64_t count_parts(const hirl_k_attention_t &p) {
    const int64_t n_tiles =
        p.n_heads * ceil_div(p.n_query, BLOCK_ROWS) *
        ceil_div(p.n_key, p.head_size > 64 ? tile_columns<128>() : tile_columns<64>());
    const int64_t wanted = ceil_div(LEAST_BLOCKS, n_tiles);
    return wanted < p.n_batch ? wanted : p.n_batch;
}

/// Bytes of delta, at the front of the working memory.
static size_t delta_bytes(const hirl_k_attention_t &p) {
    return (size_t)ceil_div(p.n_batch * p.n_heads * p.n_query, 64) * 64 * sizeof(float);
}

/// Blocks for n_rows rows of all heads and problems; 0: more than a grid has.
static unsigned count_blocks(const hirl_k_attention_t &p, int n_rows) {
    const int64_t n_heads = ceil_div(n_rows, BLOCK_ROWS) * p.n_heads;
    return p.n_batch > INT32_MAX / n_heads ? 0 : (unsigned)(n_heads * p.n_batch);
}

template <typename K> static cudaError_t allow_shared(K kernel, size_t bytes) {
    if (bytes <= 48 << 10) return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

template <typename T, int SIZE>
static cudaError_t run_forward(cudaStream_t stream, const hirl_k_attention_t &p, void *y,
                               float *lse) {
    const size_t bytes = forward_shared<T, SIZE>();
    const unsigned n_blocks = count_blocks(p, p.n_query);
    if (n_blocks == 0) return cudaErrorInvalidConfiguration;
    const cudaError_t code = allow_shared(attention_forward<T, SIZE>, bytes);
    if (code != cudaSuccess) return code;
    HIRL_LAUNCH((attention_forward<T, SIZE>), n_blocks, BLOCK, bytes, stream, p, (T *)y, lse);
    return hirl_k_end(stream);
}

template <typename T, int SIZE>
static cudaError_t run_backward(cudaStream_t stream, const hirl_k_attention_t &p, const void *y,
                                const float *lse, const void *dy, void *scratch, void *dq, void *dk,
                                void *dv, float *dbias) {
    const size_t bytes = backward_shared<T, SIZE>();
    const unsigned q_blocks = count_blocks(p, p.n_query), k_blocks = count_blocks(p, p.n_key);
    const int64_t n_rows = p.n_batch * p.n_heads * p.n_query;
    if (q_blocks == 0 || k_blocks == 0 || n_rows > (int64_t)INT32_MAX * (BLOCK / 8))
        return cudaErrorInvalidConfiguration;
    float *delta = (float *)scratch;
    const backward from = {dy, lse, delta};
    cudaError_t code = cudaSuccess;
    HIRL_LAUNCH((attention_delta<T>), (unsigned)ceil_div(n_rows, BLOCK / 8), BLOCK, 0, stream,
                (const T *)y, (const T *)dy, n_rows, p.n_heads, p.n_query, p.head_size, delta);
    if (dq) {
        code = allow_shared(attention_backward_q<T, SIZE>, bytes);
        if (code != cudaSuccess) return code;
        HIRL_LAUNCH((attention_backward_q<T, SIZE>), q_blocks, BLOCK, bytes, stream, p, from,
                    (T *)dq);
    }
    if (dk || dv) {
        code = allow_shared(attention_backward_kv<T, SIZE>, bytes);
        if (code != cudaSuccess) return code;
        HIRL_LAUNCH((attention_backward_kv<T, SIZE>), k_blocks, BLOCK, bytes, stream, p, from,
                    (T *)dk, (T *)dv);
    }
    if (dbias) {
        const int64_t n_parts = count_parts(p), n = (int64_t)p.n_heads * p.n_query * p.n_key;
        const int64_t n_blocks = n_parts * p.n_heads * ceil_div(p.n_query, BLOCK_ROWS) *
                                 ceil_div(p.n_key, tile_columns<SIZE>());
        float *part = n_parts > 1 ? (float *)((char *)scratch + delta_bytes(p)) : dbias;
        if (n_blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
        code = allow_shared(attention_backward_bias<T, SIZE>, bytes);
        if (code != cudaSuccess) return code;
        HIRL_LAUNCH((attention_backward_bias<T, SIZE>), (unsigned)n_blocks, BLOCK, bytes, stream, p,
                    from, (int)n_parts, part);
        if (n_parts > 1)
            HIRL_LAUNCH(attention_fold, hirl_k_blocks(n, BLOCK, 1 << 16), BLOCK, 0, stream,
                        (const float *)part, (int)n_parts, n, dbias);
    }
    return hirl_k_end(stream);
}

} // namespace hirl_k

using namespace hirl_k;

cudaError_t hirl_k_attention(cudaStream_t stream, const hirl_k_attention_t *p, void *y,
                             float *lse) {
    return with_dtype(p->dtype, [&](auto type) {
        typedef decltype(type) T;
        return p->head_size <= 64 ? run_forward<T, 64>(stream, *p, y, lse)
                                  : run_forward<T, 128>(stream, *p, y, lse);
    });
}

size_t hirl_k_attention_scratch(const hirl_k_attention_t *p, int has_dbias) {
    const int64_t n_parts = has_dbias ? count_parts(*p) : 0;
    return delta_bytes(*p) + (n_parts > 1 ? (size_t)(n_parts * p->n_heads) * (size_t)p->n_query *
                                                (size_t)p->n_key * sizeof(float)
                                          : 0);
}

cudaError_t hirl_k_attention_backward(cudaStream_t stream, const hirl_k_attention_t *p,
                                      const void *y, const float *lse, const void *dy,
                                      void *scratch, void *dq, void *dk, void *dv, float *dbias) {
    return with_dtype(p->dtype, [&](auto type) {
        typedef decltype(type) T;
        return p->head_size <= 64
                   ? run_backward<T, 64>(stream, *p, y, lse, dy, scratch, dq, dk, dv, dbias)
                   : run_backward<T, 128>(stream, *p, y, lse, dy, scratch, dq, dk, dv, dbias);
    });
}
