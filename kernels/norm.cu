/// Batch norm (Ioffe and Szegedy 2015) and layer norm (Ba et al. 2016). Memory-bound; bytes per element of x, with e = 4 (f32) or 2 (bf16):
///   bn_stats e; bn_apply 2e (3e with a residual); bn_backward_sums 2e (3e with y); bn_backward_apply 3e (+ e each for y and
///   dresidual); layer_norm 2e; layer_norm_backward 5e: dx takes 3e, dgamma and dbeta read dy and x again, by columns.
/// Column sums are taken in two stages whose shape depends on that of x alone: blocks of (columns x rows), then their partial
/// results in order, in double. Nothing cancels in variances: a thread's sums are of differences from the first of its own
/// n <= 256 rows, so that its sum of squares is at most n + 1 times the deviation it wants, whatever the data; threads are
/// merged by Chan, Golub and LeVeque (1983), with means relative to the group's first row.
#include "norm.h"
#include "row_device.h"

namespace hirl_k {

// ---------------------------------------------------------------------------------------------- columns

enum { THREADS = 256, TILE_PACKS = 32, MOST_ROWS = 256 };

/// How blocks cover a matrix by columns. Where n_channels is no multiple of a pack, `fold` rows are taken as one, whose columns are
/// the channels several times over; if they cannot be, packs have one item.
typedef struct columns {
    int n_channels, fold, items; // of a pack
    int n_columns;               // n_channels * fold
    int tx, ty;                  // threads of a block: packs of columns, rows
    int n_tiles;                 // blocks side by side
    int rows_per_block;
    int64_t n_rows; // of one group, folded
    int64_t n_chunks;
    int has_packed_params; // arrays by channel can be read in packs
} columns_t;

static int greatest_divisor(int a, int b) { return b == 0 ? a : greatest_divisor(b, a % b); }

/// Rows are shared out to about `n_blocks` blocks, `least` to `most` for each thread. The target is a constant that fills any
/// card of some hundred multiprocessors several times, not this card's: sums are to be the same on all.
static columns_t columns_of(int dtype, int64_t n_groups, int64_t n_rows, int64_t n_channels,
                            bool can_fold, int n_blocks, int least, int most) {
    columns_t c = {};
    const int items = dtype == HIRL_K_F32 ? pack_items<float>() : pack_items<bf16>();
    const int fold = items / greatest_divisor(items, (int)(n_channels % items));
    const bool is_packed = fold == 1 || (can_fold && n_rows % fold == 0);
    c.n_channels = (int)n_channels;
    c.fold = is_packed ? fold : 1;
    c.items = is_packed ? items : 1;
    c.n_columns = c.n_channels * c.fold;
    c.n_rows = n_rows / c.fold;
    const int n_packs = c.n_columns / c.items;
    c.n_tiles = (n_packs + TILE_PACKS - 1) / TILE_PACKS;
    c.tx = (n_packs + c.n_tiles - 1) / c.n_tiles;
    c.ty = THREADS / c.tx;
    int64_t rows = (c.n_rows * c.n_tiles * n_groups + (int64_t)c.ty * n_blocks - 1) /
                   ((int64_t)c.ty * n_blocks);
    rows = rows < least ? least : rows > most ? most : rows;
    c.rows_per_block = (int)rows * c.ty;
    c.n_chunks = (c.n_rows + c.rows_per_block - 1) / c.rows_per_block;
    return c;
}

static columns_t columns_of_sums(int dtype, int64_t n_groups, int64_t n_rows, int64_t n_channels,
                                 bool can_fold) {
    return columns_of(dtype, n_groups, n_rows, n_channels, can_fold, 1024, 4, MOST_ROWS);
}

static dim3 columns_grid(const columns_t &c, int64_t n_groups) {
    return dim3(grid_size(c.n_chunks * n_groups), (unsigned)c.n_tiles);
}

/// Two floats per chunk and column.
static size_t partial_bytes(const columns_t &c, int64_t n_groups) {
    return (size_t)(n_groups * c.n_chunks * c.n_columns) * 2 * sizeof(float);
}

static bool is_size(int64_t n_channels) { return n_channels > 0 && n_channels < (int64_t)1 << 24; }

/// Blocks of a multiprocessor that registers are to suffice for: fewer where a pack is eight values, and one only where loads go
/// one by one, which is the exception.
static constexpr int blocks_of(int wanted, int items, bool is_packed) {
    return items == 1 ? wanted : !is_packed ? 1 : items == 8 ? wanted - 1 : wanted;
}

/// One thread's place: its group, columns, and rows `row`, row + ty, ... (n of them; 0: nothing to do).
typedef struct place {
    int64_t group, chunk, row;
    int x, y, column, n;
} place_t;

static __device__ __forceinline__ place_t place_of(const columns_t &c) {
    place_t p;
    p.group = blockIdx.x / c.n_chunks;
    p.chunk = blockIdx.x - p.group * c.n_chunks;
    p.x = (int)threadIdx.x % c.tx;
    p.y = (int)threadIdx.x / c.tx;
    p.column = ((int)blockIdx.y * c.tx + p.x) * c.items;
    p.row = p.chunk * c.rows_per_block + p.y;
    const int64_t left = c.n_rows - p.chunk * c.rows_per_block;
    const int rows = left < c.rows_per_block ? (int)left : c.rows_per_block;
    p.n = p.y >= c.ty || p.column >= c.n_columns || p.y >= rows ? 0 : (rows - p.y - 1) / c.ty + 1;
    return p;
}

/// Values by channel for the V columns from `column` on; `otherwise` without an array. `values` is that of the group.
template <int V>
static __device__ __forceinline__ void load_params(const columns_t &c, const float *values,
                                                   int column, float otherwise, float (&v)[V]) {
    if (!values) {
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = otherwise;
    } else if (c.has_packed_params) {
        load_items<V, V % 4 == 0>(values + column, v);
    } else {
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = values[(column + i) % c.n_channels];
    }
}

static bool can_pack_params(const columns_t &c, const float *a, const float *b, const float *d,
                            const float *e) {
    return c.fold == 1 && c.items > 1 && is_packed(a) && is_packed(b) && is_packed(d) &&
           is_packed(e);
}

// ---------------------------------------------------------------------------------------------- first stage: mean and squared deviations

template <typename T, int V, bool IS_PACKED>
static __global__ void __launch_bounds__(THREADS, blocks_of(4, V, IS_PACKED))
    bn_stats_partial(const T *x, const columns_t c, float *partial) {
    __shared__ float mean[V][THREADS], squares[V][THREADS];
    __shared__ float count[THREADS];
    enum { AHEAD = 4 }; // rows under way at a time
    const place_t p = place_of(c);
    const int t = (int)threadIdx.x;
    const int64_t step = (int64_t)c.ty * c.n_columns;
    if (p.n > 0) {
        const T *group = x + p.group * c.n_rows * c.n_columns;
        const T *from = group + p.row * c.n_columns + p.column;
        float first[V], sum[V], square[V];
        neighbours<T, V, IS_PACKED> item[AHEAD];
        load_items<V, IS_PACKED>(from, first);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] = square[k] = 0;
        from += step; // the first row is no different from itself
        int i = 1;
        for (; i + AHEAD <= p.n; i += AHEAD) {
#pragma unroll
            for (int j = 0; j < AHEAD; ++j, from += step) item[j].fetch(from);
#pragma unroll
            for (int j = 0; j < AHEAD; ++j)
#pragma unroll
                for (int k = 0; k < V; ++k) {
                    const float d = item[j][k] - first[k];
                    sum[k] += d;
                    square[k] = fmaf(d, d, square[k]);
                }
        }
        for (; i < p.n; ++i, from += step) {
            item[0].fetch(from);
#pragma unroll
            for (int k = 0; k < V; ++k) {
                const float d = item[0][k] - first[k];
                sum[k] += d;
                square[k] = fmaf(d, d, square[k]);
            }
        }
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const float shift = first[k] - load(group + (p.column + k) % c.n_channels);
            const float m = sum[k] / (float)p.n;
            mean[k][t] = shift + m;
            squares[k][t] = fmaxf(square[k] - sum[k] * m, 0.0f);
        }
    }
    count[t] = (float)p.n;
    for (int n = c.ty; n > 1;) {
        const int half = (n + 1) / 2, other = t + half * c.tx;
        __syncthreads();
        if (p.n > 0 && p.y + half < n && count[other] > 0) {
            const float both = count[t] + count[other], share = count[other] / both;
#pragma unroll
            for (int k = 0; k < V; ++k) {
                const float d = mean[k][other] - mean[k][t];
                squares[k][t] += squares[k][other] + d * d * (count[t] * share);
                mean[k][t] += d * share;
            }
            count[t] = both;
        }
        n = half;
    }
    if (p.n > 0 && p.y == 0) {
        float *to = partial + blockIdx.x * 2 * (int64_t)c.n_columns + p.column;
#pragma unroll
        for (int k = 0; k < V; ++k) {
            to[k] = mean[k][t];
            to[c.n_columns + k] = squares[k][t];
        }
    }
}

// ---------------------------------------------------------------------------------------------- first stage: sums of dz and dz xhat

typedef enum sums_kind { SUMS_BATCH, SUMS_LAYER } sums_kind_t;

/// SUMS_BATCH: sums of dz and dz (x - mean[channel]); SUMS_LAYER: of dy and dy (x - mean[row]) rstd[row], and y is NULL.
template <typename T, int V, bool IS_PACKED, sums_kind_t KIND>
static __global__ void __launch_bounds__(THREADS, blocks_of(3, V, IS_PACKED))
    sums_partial(const T *dy, const T *y, const T *x, const columns_t c, const float *mean,
                 const float *rstd, float *partial) {
    __shared__ float sums[V][THREADS], products[V][THREADS];
    enum { AHEAD = 2 };
    const place_t p = place_of(c);
    const int t = (int)threadIdx.x;
    const int64_t step = (int64_t)c.ty * c.n_columns;
    typedef neighbours<T, V, IS_PACKED> some_t;
    float sum[V], product[V], center[V];
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] = product[k] = 0;
    load_params<V>(c, KIND == SUMS_BATCH && p.n > 0 ? mean + p.group * c.n_channels : nullptr,
                   p.column, 0, center);
    int64_t at = (p.group * c.n_rows + p.row) * c.n_columns + p.column, row = p.row;
    const auto add = [&](const some_t &grad, const some_t &here, const some_t &out,
                         int64_t of_row) {
        float m = 0, r = 0;
        if (KIND == SUMS_LAYER) {
            m = mean[of_row];
            r = rstd[of_row];
        }
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const float dz = !y || out[k] > 0 ? grad[k] : 0.0f;
            sum[k] += dz;
            product[k] =
                fmaf(dz, KIND == SUMS_LAYER ? (here[k] - m) * r : here[k] - center[k], product[k]);
        }
    };
    int i = 0;
    for (; i + AHEAD <= p.n; i += AHEAD, at += AHEAD * step, row += AHEAD * c.ty) {
        some_t grad[AHEAD], here[AHEAD], out[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            grad[j].fetch(dy + at + j * step);
            here[j].fetch(x + at + j * step);
            out[j].fetch_if(y != nullptr, y + at + j * step);
        }
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) add(grad[j], here[j], out[j], row + j * c.ty);
    }
    for (; i < p.n; ++i, at += step, row += c.ty) {
        some_t grad, here, out;
        grad.fetch(dy + at);
        here.fetch(x + at);
        out.fetch_if(y != nullptr, y + at);
        add(grad, here, out, row);
    }
#pragma unroll
    for (int k = 0; k < V; ++k) {
        sums[k][t] = sum[k];
        products[k][t] = product[k];
    }
    for (int n = c.ty; n > 1;) {
        const int half = (n + 1) / 2, other = t + half * c.tx;
        __syncthreads();
        if (p.y + half < n) {
#pragma unroll
            for (int k = 0; k < V; ++k) {
                sums[k][t] += sums[k][other];
                products[k][t] += products[k][other];
            }
        }
        n = half;
    }
    if (p.n > 0 && p.y == 0) {
        float *to = partial + blockIdx.x * 2 * (int64_t)c.n_columns + p.column;
#pragma unroll
        for (int k = 0; k < V; ++k) {
            to[k] = sums[k][t];
            to[c.n_columns + k] = products[k][t];
        }
    }
}

// ---------------------------------------------------------------------------------------------- second stage

/// A block's threads: `slices` for each of THREADS / slices channels.
static int slices_of(const columns_t &c) {
    int slices = 1;
    while (slices < 32 && slices * 2 <= c.n_chunks * c.fold) slices *= 2;
    return slices;
}
static unsigned slices_grid(const columns_t &c, int64_t n_groups, int slices) {
    const int width = THREADS / slices;
    return grid_size(n_groups * ((c.n_channels + width - 1) / width));
}

/// One thread's channel and its part of the partial results.
typedef struct slice {
    int64_t group;
    int channel, index;
} slice_t;

static __device__ __forceinline__ slice_t slice_of(const columns_t &c, int slices) {
    const int width = THREADS / slices, n_tiles = (c.n_channels + width - 1) / width;
    slice_t s;
    s.group = (int)blockIdx.x / n_tiles;
    s.index = (int)threadIdx.x / width;
    s.channel = ((int)blockIdx.x % n_tiles) * width + (int)threadIdx.x % width;
    return s;
}

/// Sums a and b over slices; the threads of slice 0 have the result. All threads take part.
static __device__ __forceinline__ void slices_sum(int slices, double *scratch, double *a,
                                                  double *b) {
    const int t = (int)threadIdx.x;
    scratch[t] = *a;
    scratch[THREADS + t] = *b;
    for (int half = slices / 2; half > 0; half /= 2) {
        const int reach = half * (THREADS / slices);
        __syncthreads();
        if (t < reach) {
            scratch[t] += scratch[t + reach];
            scratch[THREADS + t] += scratch[THREADS + t + reach];
        }
    }
    *a = scratch[t];
    *b = scratch[THREADS + t];
}

/// Partial means are small numbers, relative to the group's first row, and their squares are exact in double: plain sums will do.
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    bn_stats_finish(const T *x, const columns_t c, int slices, const float *partial, float *mean,
                    float *var) {
    __shared__ double scratch[2 * THREADS];
    const slice_t s = slice_of(c, slices);
    const bool is_channel = s.channel < c.n_channels;
    const int64_t n_partials = c.n_chunks * c.fold;
    double sum = 0, squares = 0;
#pragma unroll 4
    for (int64_t i = is_channel ? s.index : n_partials; i < n_partials; i += slices) {
        const int64_t chunk = c.fold == 1 ? i : i / c.fold;
        const int column = (int)(i - chunk * c.fold) * c.n_channels + s.channel;
        const float *from = partial + (s.group * c.n_chunks + chunk) * 2 * c.n_columns + column;
        const int64_t left = c.n_rows - chunk * c.rows_per_block;
        const double n = left < c.rows_per_block ? (double)left : (double)c.rows_per_block;
        const double m = from[0];
        sum += n * m;
        squares += (double)from[c.n_columns] + n * m * m;
    }
    slices_sum(slices, scratch, &sum, &squares);
    if (is_channel && s.index == 0) {
        const double n = (double)(c.n_rows * c.fold), m = sum / n;
        const double v = (squares - sum * m) / n;
        const int64_t at = s.group * c.n_channels + s.channel;
        mean[at] = (float)(m + load(x + s.group * c.n_rows * c.n_columns + s.channel));
        var[at] = v < 0 ? 0.0f : (float)v; // NaN stays
    }
}

/// SUMS_BATCH: the second sum is multiplied by 1 / sqrt(var + eps).
template <sums_kind_t KIND>
static __global__ void __launch_bounds__(THREADS)
    sums_finish(const columns_t c, int slices, const float *partial, const float *var, float eps,
                int accumulate, float *sum_dz, float *sum_dz_xhat) {
    __shared__ double scratch[2 * THREADS];
    const slice_t s = slice_of(c, slices);
    const bool is_channel = s.channel < c.n_channels;
    const int64_t n_partials = c.n_chunks * c.fold;
    double sum = 0, product = 0;
#pragma unroll 4
    for (int64_t i = is_channel ? s.index : n_partials; i < n_partials; i += slices) {
        const int64_t chunk = c.fold == 1 ? i : i / c.fold;
        const int column = (int)(i - chunk * c.fold) * c.n_channels + s.channel;
        const float *from = partial + (s.group * c.n_chunks + chunk) * 2 * c.n_columns + column;
        sum += (double)from[0];
        product += (double)from[c.n_columns];
    }
    slices_sum(slices, scratch, &sum, &product);
    if (is_channel && s.index == 0) {
        const int64_t at = s.group * c.n_channels + s.channel;
        if (KIND == SUMS_BATCH) product /= sqrt((double)var[at] + (double)eps);
        sum_dz[at] = (float)(sum + (accumulate ? (double)sum_dz[at] : 0.0));
        sum_dz_xhat[at] = (float)(product + (accumulate ? (double)sum_dz_xhat[at] : 0.0));
    }
}

// ---------------------------------------------------------------------------------------------- batch norm, element by element

/// (x - mean) is formed first: x scale + shift would cancel where the mean is large.
template <typename T, int V, bool IS_PACKED>
static __global__ void __launch_bounds__(THREADS, blocks_of(4, V, IS_PACKED))
    bn_apply_rows(const T *x, const columns_t c, const float *mean, const float *var, float eps,
                  const float *gamma, const float *beta, const T *residual, int has_relu, T *y) {
    enum { AHEAD = 2 };
    const place_t p = place_of(c);
    if (p.n == 0) return;
    typedef neighbours<T, V, IS_PACKED> some_t;
    float center[V], scale[V], shift[V], factor[V];
    load_params<V>(c, mean + p.group * c.n_channels, p.column, 0, center);
    load_params<V>(c, var + p.group * c.n_channels, p.column, 0, scale);
    load_params<V>(c, gamma, p.column, 1, factor);
    load_params<V>(c, beta, p.column, 0, shift);
#pragma unroll
    for (int k = 0; k < V; ++k) scale[k] = factor[k] / sqrtf(scale[k] + eps);
    const int64_t step = (int64_t)c.ty * c.n_columns;
    int64_t at = (p.group * c.n_rows + p.row) * c.n_columns + p.column;
    const auto finish = [&](int64_t to, const some_t &in, const some_t &add) {
        float out[V];
#pragma unroll
        for (int k = 0; k < V; ++k) {
            out[k] = fmaf(in[k] - center[k], scale[k], shift[k]);
            if (residual) out[k] += add[k];
            if (has_relu) out[k] = out[k] <= 0 ? 0.0f : out[k]; // NaN stays
        }
        store_items<V, IS_PACKED>(y + to, out);
    };
    int i = 0;
    for (; i + AHEAD <= p.n; i += AHEAD, at += AHEAD * step) {
        some_t in[AHEAD], add[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            in[j].fetch(x + at + j * step);
            add[j].fetch_if(residual != nullptr, residual + at + j * step);
        }
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) finish(at + j * step, in[j], add[j]);
    }
    for (; i < p.n; ++i, at += step) {
        some_t in, add;
        in.fetch(x + at);
        add.fetch_if(residual != nullptr, residual + at);
        finish(at, in, add);
    }
}

/// x is read only where statistics depend on it.
template <typename T, int V, bool IS_PACKED>
static __global__ void __launch_bounds__(THREADS, blocks_of(3, V, IS_PACKED))
    bn_backward_rows(const T *dy, const T *y, const T *x, const columns_t c, const float *mean,
                     const float *var, float eps, const float *gamma, const float *mean_dz,
                     const float *mean_dz_xhat, T *dx, T *dresidual) {
    enum { AHEAD = 2 };
    const place_t p = place_of(c);
    if (p.n == 0) return;
    const bool has_stats = mean_dz != nullptr;
    const int64_t stat = p.group * c.n_channels;
    typedef neighbours<T, V, IS_PACKED> some_t;
    float center[V], scale[V], shift[V], slope[V];
    load_params<V>(c, var + stat, p.column, 0, slope);
    load_params<V>(c, gamma, p.column, 1, scale);
#pragma unroll
    for (int k = 0; k < V; ++k) {
        slope[k] = 1.0f / sqrtf(slope[k] + eps);
        scale[k] *= slope[k];
    }
    float product[V];
    load_params<V>(c, has_stats ? mean + stat : nullptr, p.column, 0, center);
    load_params<V>(c, has_stats ? mean_dz + stat : nullptr, p.column, 0, shift);
    load_params<V>(c, has_stats ? mean_dz_xhat + stat : nullptr, p.column, 0, product);
#pragma unroll
    for (int k = 0; k < V; ++k) slope[k] *= product[k];
    const int64_t step = (int64_t)c.ty * c.n_columns;
    int64_t at = (p.group * c.n_rows + p.row) * c.n_columns + p.column;
    const auto finish = [&](int64_t to, const some_t &grad, const some_t &out, const some_t &in) {
        float dz[V], d[V];
#pragma unroll
        for (int k = 0; k < V; ++k) {
            dz[k] = !y || out[k] > 0 ? grad[k] : 0.0f;
            d[k] = dz[k];
            if (has_stats) d[k] -= fmaf(in[k] - center[k], slope[k], shift[k]);
            d[k] *= scale[k];
        }
        store_items<V, IS_PACKED>(dx + to, d);
        if (dresidual) store_items<V, IS_PACKED>(dresidual + to, dz);
    };
    int i = 0;
    for (; i + AHEAD <= p.n; i += AHEAD, at += AHEAD * step) {
        some_t grad[AHEAD], out[AHEAD], in[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) {
            grad[j].fetch(dy + at + j * step);
            out[j].fetch_if(y != nullptr, y + at + j * step);
            in[j].fetch_if(has_stats, x + at + j * step);
        }
#pragma unroll
        for (int j = 0; j < AHEAD; ++j) finish(at + j * step, grad[j], out[j], in[j]);
    }
    for (; i < p.n; ++i, at += step) {
        some_t grad, out, in;
        grad.fetch(dy + at);
        out.fetch_if(y != nullptr, y + at);
        in.fetch_if(has_stats, x + at);
        finish(at, grad, out, in);
    }
}

// ---------------------------------------------------------------------------------------------- layer norm

/// Differences from the row's first element, so that its mean keeps its last bits whatever its size.
template <typename T, int V, bool IS_PACKED, int ROW, int KEPT>
static __global__ void __launch_bounds__(row_block(ROW))
    layer_norm_rows(const T *x, int64_t n_rows, int n, const float *gamma, const float *beta,
                    float eps, T *y, float *mean, float *rstd) {
    __shared__ float scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    row_part<T, ROW, V, IS_PACKED, KEPT> in(x + row * n, n);
    const float first = load(x + row * n);
    float sum = 0, squares = 0;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&v)[V] = in.at(p, column);
#pragma unroll
        for (int k = 0; k < V; ++k) sum += v[k] - first;
    });
    const float m = row_sum<ROW>(sum, scratch) / (float)n;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&v)[V] = in.at(p, column);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            const float d = v[k] - first - m;
            squares = fmaf(d, d, squares);
        }
    });
    const float inv = 1.0f / sqrtf(row_sum<ROW>(squares, scratch) / (float)n + eps);
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        const float(&v)[V] = in.at(p, column);
        float scale[V], shift[V], out[V];
        load_items<V, IS_PACKED>(gamma + column, scale);
        load_items<V, IS_PACKED>(beta + column, shift);
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = fmaf((v[k] - first - m) * inv, scale[k], shift[k]);
        store_items<V, IS_PACKED>(y + row * n + column, out);
    });
    if (threadIdx.x % ROW == 0) {
        mean[row] = first + m;
        rstd[row] = inv;
    }
}

template <typename T, int V, bool IS_PACKED, int ROW, int KEPT>
static __global__ void __launch_bounds__(row_block(ROW))
    layer_norm_backward_rows(const T *dy, const T *x, int64_t n_rows, int n, const float *gamma,
                             const float *mean, const float *rstd, T *dx) {
    __shared__ float scratch[33];
    const int64_t row = own_row<ROW>(n_rows);
    if (row < 0) return;
    row_part<T, ROW, V, IS_PACKED, KEPT> grad(dy + row * n, n), in(x + row * n, n);
    const float m = mean[row], inv = rstd[row];
    float sum = 0, product = 0;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        float(&g)[V] = grad.at(p, column), (&h)[V] = in.at(p, column);
        float scale[V];
        load_items<V, IS_PACKED>(gamma + column, scale);
#pragma unroll
        for (int k = 0; k < V; ++k) {
            g[k] *= scale[k];
            h[k] = (h[k] - m) * inv;
            sum += g[k];
            product = fmaf(g[k], h[k], product);
        }
    });
    const float a = row_sum<ROW>(sum, scratch) / (float)n;
    const float b = row_sum<ROW>(product, scratch) / (float)n;
    each_pack<ROW, V, KEPT>(n, [&](int p, int column) {
        float(&g)[V] = grad.at(p, column), (&h)[V] = in.at(p, column);
        if constexpr (KEPT == 0) { // read again, as they came
            float scale[V];
            load_items<V, IS_PACKED>(gamma + column, scale);
#pragma unroll
            for (int k = 0; k < V; ++k) {
                g[k] *= scale[k];
                h[k] = (h[k] - m) * inv;
            }
        }
        float out[V];
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = inv * (g[k] - a - h[k] * b);
        store_items<V, IS_PACKED>(dx + row * n + column, out);
    });
}

} // namespace hirl_k

using namespace hirl_k;

// ---------------------------------------------------------------------------------------------- launchers

size_t hirl_k_bn_scratch(int dtype, int64_t n_groups, int64_t n_rows, int64_t n_channels) {
    return partial_bytes(columns_of_sums(dtype, n_groups, n_rows, n_channels, true), n_groups);
}

cudaError_t hirl_k_bn_stats(cudaStream_t stream, int dtype, const void *x, int64_t n_groups,
                            int64_t n_rows, int64_t n_channels, void *scratch, float *mean,
                            float *var) {
    if (!is_size(n_channels)) return cudaErrorInvalidValue;
    const columns_t c = columns_of_sums(dtype, n_groups, n_rows, n_channels, true);
    const int slices = slices_of(c);
    float *partial = (float *)scratch;
#define DO(T, V, IS_PACKED)                                                                 \
    HIRL_LAUNCH((bn_stats_partial<T, V, IS_PACKED>), columns_grid(c, n_groups), THREADS, 0, \
                stream, (const T *)x, c, partial)
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, c.items, is_packed(x), DO);
        HIRL_LAUNCH((bn_stats_finish<T>), slices_grid(c, n_groups, slices), THREADS, 0, stream,
                    (const T *)x, c, slices, partial, mean, var);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    return hirl_k_end(stream);
}

/// Elementwise kernels: few rows for each thread, so that small images fill a card too, but enough to repay its parameters.
static columns_t columns_of_apply(int dtype, int64_t n_groups, int64_t n_rows, int64_t n_channels) {
    return columns_of(dtype, n_groups, n_rows, n_channels, true, 4096, 2, 32);
}

cudaError_t hirl_k_bn_apply(cudaStream_t stream, int dtype, const void *x, int64_t n_groups,
                            int64_t n_rows, int64_t n_channels, const float *mean, const float *var,
                            float eps, const float *gamma, const float *beta, const void *residual,
                            int has_relu, void *y) {
    if (!is_size(n_channels)) return cudaErrorInvalidValue;
    columns_t c = columns_of_apply(dtype, n_groups, n_rows, n_channels);
    c.has_packed_params = can_pack_params(c, mean, var, gamma, beta);
    const bool can_pack = is_packed(x) && is_packed(residual) && is_packed(y);
#define DO(T, V, IS_PACKED)                                                                      \
    HIRL_LAUNCH((bn_apply_rows<T, V, IS_PACKED>), columns_grid(c, n_groups), THREADS, 0, stream, \
                (const T *)x, c, mean, var, eps, gamma, beta, (const T *)residual, has_relu,     \
                (T *)y)
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, c.items, can_pack, DO);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    return hirl_k_end(stream);
}

cudaError_t hirl_k_bn_backward_sums(cudaStream_t stream, int dtype, const void *dy, const void *y,
                                    const void *x, int64_t n_groups, int64_t n_rows,
                                    int64_t n_channels, const float *mean, const float *var,
                                    float eps, void *scratch, float *sum_dz, float *sum_dz_xhat) {
    if (!is_size(n_channels)) return cudaErrorInvalidValue;
    columns_t c = columns_of_sums(dtype, n_groups, n_rows, n_channels, true);
    c.has_packed_params = can_pack_params(c, mean, mean, mean, mean);
    const int slices = slices_of(c);
    const bool can_pack = is_packed(dy) && is_packed(y) && is_packed(x);
    float *partial = (float *)scratch;
#define DO(T, V, IS_PACKED)                                                                      \
    HIRL_LAUNCH((sums_partial<T, V, IS_PACKED, SUMS_BATCH>), columns_grid(c, n_groups), THREADS, \
                0, stream, (const T *)dy, (const T *)y, (const T *)x, c, mean,                   \
                (const float *)nullptr, partial)
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, c.items, can_pack, DO);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    HIRL_LAUNCH((sums_finish<SUMS_BATCH>), slices_grid(c, n_groups, slices), THREADS, 0, stream, c,
                slices, partial, var, eps, 0, sum_dz, sum_dz_xhat);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_bn_backward_apply(cudaStream_t stream, int dtype, const void *dy, const void *y,
                                     const void *x, int64_t n_groups, int64_t n_rows,
                                     int64_t n_channels, const float *mean, const float *var,
                                     float eps, const float *gamma, const float *mean_dz,
                                     const float *mean_dz_xhat, void *dx, void *dresidual) {
    if (!is_size(n_channels)) return cudaErrorInvalidValue;
    columns_t c = columns_of_apply(dtype, n_groups, n_rows, n_channels);
    c.has_packed_params = can_pack_params(c, mean, var, gamma, mean_dz) && is_packed(mean_dz_xhat);
    const bool can_pack =
        is_packed(dy) && is_packed(y) && is_packed(x) && is_packed(dx) && is_packed(dresidual);
#define DO(T, V, IS_PACKED)                                                                  \
    HIRL_LAUNCH((bn_backward_rows<T, V, IS_PACKED>), columns_grid(c, n_groups), THREADS, 0,  \
                stream, (const T *)dy, (const T *)y, (const T *)x, c, mean, var, eps, gamma, \
                mean_dz, mean_dz_xhat, (T *)dx, (T *)dresidual)
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, c.items, can_pack, DO);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    return hirl_k_end(stream);
}

/// For HIRL_BY_ACCESS and HIRL_BY_WIDTH: the launch for one element type, access and width.
template <typename T, int V, bool IS_PACKED>
static void layer_norm_launch(cudaStream_t stream, const void *x, int64_t n_rows, int n,
                              const float *gamma, const float *beta, float eps, void *y,
                              float *mean, float *rstd) {
#define DO(ROW, KEPT)                                                                         \
    HIRL_LAUNCH((layer_norm_rows<T, V, IS_PACKED, ROW, KEPT>), row_grid(n_rows, ROW),         \
                row_block(ROW), 0, stream, (const T *)x, n_rows, n, gamma, beta, eps, (T *)y, \
                mean, rstd)
    HIRL_BY_WIDTH(n, DO);
#undef DO
}

cudaError_t hirl_k_layer_norm(cudaStream_t stream, int dtype, const void *x, int64_t n_rows,
                              int64_t n_columns, const float *gamma, const float *beta, float eps,
                              void *y, float *mean, float *rstd) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const int n = (int)n_columns;
    const bool can_pack = is_packed(x) && is_packed(gamma) && is_packed(beta) && is_packed(y);
#define DO(T, V, IS_PACKED) \
    layer_norm_launch<T, V, IS_PACKED>(stream, x, n_rows, n, gamma, beta, eps, y, mean, rstd)
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, row_items<T>(n), can_pack, DO);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    return hirl_k_end(stream);
}

size_t hirl_k_layer_norm_scratch(int dtype, int64_t n_rows, int64_t n_columns) {
    return partial_bytes(columns_of_sums(dtype, 1, n_rows, n_columns, false), 1);
}

template <typename T, int V, bool IS_PACKED>
static void layer_norm_backward_launch(cudaStream_t stream, const void *dy, const void *x,
                                       int64_t n_rows, int n, const float *gamma, const float *mean,
                                       const float *rstd, const columns_t &c, float *partial,
                                       void *dx) {
    // the sums first: dx may lie where dy does
    HIRL_LAUNCH((sums_partial<T, V, IS_PACKED, SUMS_LAYER>), columns_grid(c, 1), THREADS, 0, stream,
                (const T *)dy, (const T *)nullptr, (const T *)x, c, mean, rstd, partial);
#define DO(ROW, KEPT)                                                                           \
    HIRL_LAUNCH((layer_norm_backward_rows<T, V, IS_PACKED, ROW, KEPT>), row_grid(n_rows, ROW),  \
                row_block(ROW), 0, stream, (const T *)dy, (const T *)x, n_rows, n, gamma, mean, \
                rstd, (T *)dx)
    HIRL_BY_WIDTH(n, DO);
#undef DO
}

cudaError_t hirl_k_layer_norm_backward(cudaStream_t stream, int dtype, const void *dy,
                                       const void *x, int64_t n_rows, int64_t n_columns,
                                       const float *gamma, const float *mean, const float *rstd,
                                       int accumulate, void *scratch, void *dx, float *dgamma,
                                       float *dbeta) {
    if (!is_size(n_columns)) return cudaErrorInvalidValue;
    const columns_t c = columns_of_sums(dtype, 1, n_rows, n_columns, false);
    const int slices = slices_of(c), n = (int)n_columns;
    const bool can_pack = is_packed(dy) && is_packed(x) && is_packed(gamma) && is_packed(dx);
    float *partial = (float *)scratch;
#define DO(T, V, IS_PACKED)                                                                     \
    layer_norm_backward_launch<T, V, IS_PACKED>(stream, dy, x, n_rows, n, gamma, mean, rstd, c, \
                                                partial, dx)
    const cudaError_t code = with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_BY_ACCESS(T, c.items, can_pack, DO);
        return cudaSuccess;
    });
#undef DO
    if (code != cudaSuccess) return code;
    HIRL_LAUNCH((sums_finish<SUMS_LAYER>), slices_grid(c, 1, slices), THREADS, 0, stream, c, slices,
                partial, (const float *)nullptr, 0.0f, accumulate, dbeta, dgamma);
    return hirl_k_end(stream);
}
