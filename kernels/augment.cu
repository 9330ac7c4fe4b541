/// Augmented views, bit for bit those of the host's threads: integers wherever Pillow has integers, and its float and double arithmetic
/// with every product rounded by itself (`times`; nvcc would fuse it with a sum).
/// Floors a view of P = size^2 C bytes: resampling reads the crop once (a tile's edges twice) and writes P to `work`, or 4 P to y; a part
/// of a round reads P and writes P or 4 P (contrast, autocontrast, equalise, sharpness, turning, shearing and moving begin a part; what a
/// whole view must be known for is counted as the part before is written, at no pass of its own); blur reads P and writes P, then reads P
/// and writes 4 P; erasing writes 4 bytes a number. What a block works on is staged in shared memory, so that rows are stored in whole
/// words.
#include "augment.h"

#include "device.h"
#include "exact.h"
#include "philox.h"

using namespace hirl_k;

namespace {

enum {
    COEF_BITS = 22,
    TILE = 32,      // side of an output tile: its columns are the lanes of a warp
    THREADS = 256,  // eight warps
    TALL_ROWS = 96, // input rows of a tile at a time
    PATCH = 1024,   // pixels of a block of a part
    LEVELS = 256,
    MOST_BLOCKS = 1 << 30,
    SHARED = 48 << 10, // of a blur block
    ROWS_AT_ONCE = 16  // at most, of a blur block
};

__device__ __forceinline__ int clamp255(int value) {
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

// ---------------------------------------------------------------------------------------------- tables

__device__ double sinc(double x) {
    return x == 0.0 ? 1.0 : exact_sin_pi(x) / times(3.14159265358979323846, x);
}

/// Triangle, the cubic kernel with a = -1/2 (Keys 1981), or Lanczos' of three lobes, in the order of operations that Pillow has.
__device__ double filter(int kind, double x) {
    const double a = -0.5;
    if (kind == HIRL_K_LANCZOS) return x >= -3.0 && x < 3.0 ? times(sinc(x), sinc(x / 3.0)) : 0.0;
    x = fabs(x);
    if (kind == HIRL_K_BILINEAR) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return times(times(times(a + 2.0, x) - (a + 3.0), x), x) + 1.0;
    if (x < 2.0) return times(times(times(x - 5.0, x) + 8.0, x) - 4.0, a);
    return 0.0;
}

__host__ __device__ inline double filter_support(int kind) {
    return kind == HIRL_K_LANCZOS ? 3.0 : kind == HIRL_K_BICUBIC ? 2.0 : 1.0;
}

/// A thread an output: block (x, y, z) has outputs, axis, view. Outputs beyond the image have no taps; their rows still rise.
__global__ void __launch_bounds__(THREADS)
    fill_tables(const hirl_k_view_t *view, int64_t n_views, int size, int32_t *tables) {
    const int axis = (int)blockIdx.y;
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= size) return;
    for (int64_t v = blockIdx.z; v < n_views; v += gridDim.z) {
        const hirl_k_view_t &w = view[v];
        const int in_size = w.in_size[axis], out_size = w.out_size[axis];
        const int at = axis == HIRL_K_HORIZONTAL && w.is_flipped ? size - 1 - i : i;
        const int place = w.window[axis] + i;
        int32_t *first = tables + w.table[axis], *count = first + size, *tap = count + size;
        if (place < 0 || place >= out_size) {
            first[at] = place < 0 ? 0 : in_size;
            count[at] = 0;
            continue;
        }
        if (in_size == out_size) {
            first[at] = place;
            count[at] = 1;
            tap[at] = 1 << COEF_BITS;
            continue;
        }
        const double scale = (double)in_size / out_size, stretch = scale < 1.0 ? 1.0 : scale;
        const double support = times(filter_support(w.filter), stretch), inverse = 1.0 / stretch;
        const double center = times(place + 0.5, scale);
        int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
        if (low < 0) low = 0;
        if (high > in_size) high = in_size;
        const int n = high - low < w.n_taps[axis] ? high - low : w.n_taps[axis];
        double sum = 0.0;
        for (int k = 0; k < n; ++k) sum += filter(w.filter, times(k + low - center + 0.5, inverse));
        first[at] = low;
        count[at] = n;
        for (int k = 0; k < n; ++k) {
            double weight = filter(w.filter, times(k + low - center + 0.5, inverse));
            if (sum != 0.0) weight /= sum;
            tap[(int64_t)k * size + at] =
                (int32_t)((weight < 0 ? -0.5 : 0.5) + times(weight, (double)(1 << COEF_BITS)));
        }
    }
}

// ---------------------------------------------------------------------------------------------- colours

template <int C> __device__ __forceinline__ int luma(const int (&p)[C]) {
    return C == 1 ? p[0] : (19595 * p[0] + 38470 * p[C / 2] + 7471 * p[C - 1] + 0x8000) >> 16;
}

__device__ __forceinline__ int blend(int other, int value, float alpha) {
    return clamp255((int)((float)other + times(alpha, (float)(value - other))));
}

/// value * (1 - saturation / 255 * weight / 255), rounded; the product is below 2^24, hence exact.
__device__ __forceinline__ int hsv_channel(int value, int saturation, int weight) {
    return (int)(times((float)(value * (65025 - saturation * weight)), 1.0f / 65025.0f) + 0.5f);
}

/// Through 8-bit HSV and back. Hue is a place on the hexagon of colours in sixths, an odd corner minus or plus the share of the
/// middle channel; on the way back each channel's distance from the value is a trapezium over the hue in 1/255 of a sixth.
__device__ void turn_hue(int (&p)[3], int turn_by) {
    const int red = p[0], green = p[1], blue = p[2];
    const int high = max(red, max(green, blue)), low = min(red, min(green, blue));
    const int range = high - low, middle = red + green + blue - high - low;
    const float share = (float)(high - middle) / (float)(range > 0 ? range : 1);
    const bool is_red = red == high, is_green = green == high;
    const bool is_falling = is_red ? blue == low : is_green ? red == low : green == low;
    const float corner = (is_red ? 0.0f : is_green ? 2.0f : 4.0f) + (is_falling ? 1.0f : -1.0f);
    float turn = (corner + (is_falling ? -share : share)) / 6.0f;
    turn = turn < 0.0f ? turn + 1.0f : turn;
    const int hue = range > 0 ? (int)times(turn, 255.0f) : 0;
    const int saturation = (int)times((float)range / (float)(high > 0 ? high : 1), 255.0f);
    const int sixth = 6 * ((hue + turn_by) & 255);
    p[0] = hsv_channel(high, saturation, clamp255(510 - abs(sixth - 765)));
    p[1] = hsv_channel(high, saturation, clamp255(abs(sixth - 510) - 255));
    p[2] = hsv_channel(high, saturation, clamp255(abs(sixth - 1020) - 255));
}

__device__ __forceinline__ int solarize(int value, int from) {
    return value < from ? value : 255 - value;
}

/// What the first operation of a part may need of the whole view.
struct whole {
    int mean;
    const uint8_t *levels; // [C, 256]
};

/// n operations, the same for the whole block; `known` where HAS_WHOLE.
template <int C, bool HAS_WHOLE>
__device__ __forceinline__ void change(const hirl_k_tone_t *tone, int n, const whole &known,
                                       int (&p)[C]) {
#pragma unroll 1
    for (int i = 0; i < n; ++i) {
        const hirl_k_tone_t t = tone[i];
        if (t.kind <= HIRL_K_SATURATION) {
            int other = t.kind == HIRL_K_BRIGHTNESS ? 0 : luma(p);
            if constexpr (HAS_WHOLE)
                if (t.kind == HIRL_K_CONTRAST) other = known.mean;
#pragma unroll
            for (int c = 0; c < C; ++c) p[c] = blend(other, p[c], t.alpha);
        } else if (t.kind == HIRL_K_HUE) {
            if constexpr (C == 3) turn_hue(p, t.n);
        } else {
            const int gray = luma(p);
#pragma unroll
            for (int c = 0; c < C; ++c) {
                const int value = p[c];
                if (t.kind == HIRL_K_GRAY) p[c] = gray;
                if (t.kind == HIRL_K_INVERT) p[c] = 255 - value;
                if (t.kind == HIRL_K_POSTERIZE) p[c] = value & t.n;
                if (t.kind == HIRL_K_SOLARIZE) p[c] = solarize(value, t.n);
                if (t.kind == HIRL_K_SOLARIZE_ADD)
                    p[c] = value < 128 ? clamp255(value + t.n) : value;
                if constexpr (HAS_WHOLE)
                    if (t.kind == HIRL_K_LEVELS) p[c] = known.levels[c * LEVELS + value];
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------- counting
// Whole numbers: any order gives the same.

template <int C> __device__ __forceinline__ void clear(uint32_t *levels) {
    for (int i = (int)threadIdx.x; i < C * LEVELS; i += THREADS) levels[i] = 0;
}

template <int C>
__device__ __forceinline__ void count(int what, const int (&p)[C], int &gray_sum,
                                      uint32_t *levels) {
    if (what == HIRL_K_COUNT_SUM) gray_sum += luma(p);
    if (what == HIRL_K_COUNT_LEVELS)
#pragma unroll
        for (int c = 0; c < C; ++c) atomicAdd(&levels[c * LEVELS + p[c]], 1u);
}

/// Adds a block's counts to the view's; `levels` after a barrier.
template <int C>
__device__ __forceinline__ void add_counts(const hirl_k_tones_t &tones, int gray_sum,
                                           const uint32_t *levels, int *scratch, uint32_t *counts) {
    uint32_t *mine = counts + tones.count;
    if (tones.counts_what == HIRL_K_COUNT_SUM) {
        const int total = block_sum(gray_sum, scratch);
        if (threadIdx.x == 0)
            atomicAdd(reinterpret_cast<unsigned long long *>(mine), (unsigned long long)total);
    }
    if (tones.counts_what == HIRL_K_COUNT_LEVELS)
        for (int i = (int)threadIdx.x; i < C * LEVELS; i += THREADS)
            if (levels[i] > 0) atomicAdd(&mine[i], levels[i]);
}

// ---------------------------------------------------------------------------------------------- storing

/// What normalises a view.
__device__ __forceinline__ hirl_k_affine_t own_affine(const hirl_k_affine_t &a,
                                                      const hirl_k_view_t &w) {
    hirl_k_affine_t own = a;
#pragma unroll
    for (int c = 0; c < 3; ++c) own.offset[c] += w.shift[c];
    return own;
}

/// Item c without an address, which registers lack.
__device__ __forceinline__ float pick(const float (&x)[3], int c) {
    return c == 0 ? x[0] : c == 1 ? x[1] : x[2];
}

/// n bytes of a row from shared memory, which begin at channel 0; threads `lane`, lane + step, ...
template <int C>
__device__ __forceinline__ void store_floats(const uint8_t *from, int n, const hirl_k_affine_t &own,
                                             int lane, int step, float *y) {
    for (int i = lane; i < n; i += step) {
        const int c = C == 1 ? 0 : i % C;
        y[i] = times((float)from[i], pick(own.scale, c)) + pick(own.offset, c);
    }
}

/// Copies n bytes between shared and global memory; in words where both sides allow it.
__device__ __forceinline__ void copy_bytes(const uint8_t *from, int n, bool is_aligned, int lane,
                                           int step, uint8_t *to) {
    const int n_words = is_aligned ? n / 4 : 0;
    for (int i = lane; i < n_words; i += step)
        reinterpret_cast<uint32_t *>(to)[i] = reinterpret_cast<const uint32_t *>(from)[i];
    for (int i = 4 * n_words + lane; i < n; i += step) to[i] = from[i];
}

// ---------------------------------------------------------------------------------------------- resampling

/// A block makes a tile of 32 x 32 outputs, lane by column. As many input rows as `tall` holds are resampled along x into it, then
/// added to the sums along y, until the tile has seen all its rows: no size of image or filter is too large.
template <int C>
__global__ void __launch_bounds__(THREADS, 3)
    resample(const uint8_t *pixels, const hirl_k_view_t *view, int size, int64_t n_tiles,
             const int32_t *tables, const hirl_k_tone_t *tone, hirl_k_affine_t affine,
             uint8_t *work, uint32_t *counts, float *y) {
    constexpr int N_WARPS = THREADS / 32, N_OWN = TILE / N_WARPS;
    __shared__ __align__(16) uint8_t tall[TALL_ROWS * TILE * C];
    __shared__ int scratch[33];
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const int tiles_across = (size + TILE - 1) / TILE;
    const int64_t tiles_a_view = (int64_t)tiles_across * tiles_across;
    for (int64_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
        const int64_t v = tile / tiles_a_view;
        const int place = (int)(tile - v * tiles_a_view);
        const int y0 = place / tiles_across * TILE, x0 = place % tiles_across * TILE;
        const int n_rows = min(TILE, size - y0), n_columns = min(TILE, size - x0);
        const hirl_k_view_t &w = view[v];
        const int32_t *first_y = tables + w.table[HIRL_K_VERTICAL], *count_y = first_y + size,
                      *tap_y = count_y + size;
        const int32_t *first_x = tables + w.table[HIRL_K_HORIZONTAL] + x0;
        const bool has_column = lane < n_columns;
        const int at_x = has_column ? first_x[lane] : 0;
        const int n_x = has_column ? first_x[size + lane] : 0;
        const int32_t *tap_x = first_x + 2 * (int64_t)size + lane;

        int sum[N_OWN][C];
#pragma unroll
        for (int j = 0; j < N_OWN; ++j)
#pragma unroll
            for (int c = 0; c < C; ++c) sum[j][c] = 1 << (COEF_BITS - 1);
        const int row_end = first_y[y0 + n_rows - 1] + count_y[y0 + n_rows - 1];
        for (int base = first_y[y0]; base < row_end; base += TALL_ROWS) {
            const int n_tall = min((int)TALL_ROWS, row_end - base);
            for (int r = warp; r < n_tall && has_column; r += N_WARPS) {
                const uint8_t *in = pixels + w.first + (base + r) * w.pitch + (int64_t)at_x * C;
                int part[C];
#pragma unroll
                for (int c = 0; c < C; ++c) part[c] = 1 << (COEF_BITS - 1);
#pragma unroll 2
                for (int k = 0; k < n_x; ++k) {
                    const int tap = tap_x[(int64_t)k * size];
#pragma unroll
                    for (int c = 0; c < C; ++c) part[c] += in[k * C + c] * tap;
                }
#pragma unroll
                for (int c = 0; c < C; ++c)
                    tall[(r * TILE + lane) * C + c] = (uint8_t)clamp255(part[c] >> COEF_BITS);
            }
            __syncthreads();
#pragma unroll
            for (int j = 0; j < N_OWN; ++j) {
                const int row = warp + j * N_WARPS;
                if (row >= n_rows || !has_column) continue;
                const int from = first_y[y0 + row] - base, n_y = count_y[y0 + row];
                const int k_end = min(n_y, n_tall - from);
#pragma unroll 2
                for (int k = max(0, -from); k < k_end; ++k) {
                    const int tap = tap_y[(int64_t)k * size + y0 + row];
#pragma unroll
                    for (int c = 0; c < C; ++c)
                        sum[j][c] += tall[((from + k) * TILE + lane) * C + c] * tap;
                }
            }
            __syncthreads();
        }

        // Each lane's pixels wait in shared memory, so that the colours are one loop and not N_OWN copies of their code.
#pragma unroll
        for (int j = 0; j < N_OWN; ++j)
#pragma unroll
            for (int c = 0; c < C; ++c)
                tall[((warp + j * N_WARPS) * TILE + lane) * C + c] =
                    (uint8_t)clamp255(sum[j][c] >> COEF_BITS);
        const hirl_k_tones_t &tones = w.tones;
        // Behind the tile.
        uint32_t *levels = reinterpret_cast<uint32_t *>(tall + TILE * TILE * C);
        if (tones.counts_what == HIRL_K_COUNT_LEVELS) {
            clear<C>(levels);
            __syncthreads();
        }
        const bool is_finished = w.work < 0;
        const whole nothing = {0, nullptr};
        int gray_sum = 0;
#pragma unroll 1
        for (int row = warp; row < n_rows && has_column; row += N_WARPS) {
            uint8_t *mine = tall + (row * TILE + lane) * C;
            int p[C];
#pragma unroll
            for (int c = 0; c < C; ++c) p[c] = mine[c];
            change<C, false>(tone + tones.first, tones.n, nothing, p);
            count<C>(tones.counts_what, p, gray_sum, levels);
#pragma unroll
            for (int c = 0; c < C; ++c) mine[c] = (uint8_t)p[c];
        }
        __syncthreads();
        add_counts<C>(tones, gray_sum, levels, scratch, counts);
        const hirl_k_affine_t own = own_affine(affine, w);
        for (int row = warp; row < n_rows; row += N_WARPS) {
            const int64_t at = ((int64_t)(y0 + row) * size + x0) * C;
            const uint8_t *from = tall + row * TILE * C;
            if (is_finished)
                store_floats<C>(from, n_columns * C, own, lane, 32, y + v * size * size * C + at);
            else
                copy_bytes(from, n_columns * C, size * C % 4 == 0, lane, 32, work + w.work + at);
        }
        __syncthreads(); // `tall` is written again
    }
}

// ---------------------------------------------------------------------------------------------- levels

/// A block a part, a thread a level: the table that the part's first operation looks values up in.
template <int C>
__global__ void __launch_bounds__(LEVELS)
    make_levels(const hirl_k_part_t *part, int64_t n_parts, int n_pixels, uint32_t *counts) {
    __shared__ int sums[2][LEVELS];
    __shared__ int ends[2]; // highest level that is there, and 255 less the lowest
    const int level = (int)threadIdx.x;
    for (int64_t i = blockIdx.x; i < n_parts; i += gridDim.x) {
        const int table = part[i].table;
        if (table == HIRL_K_TABLE_NONE) continue;
        uint32_t *mine = counts + part[i].count;
        uint8_t *to = reinterpret_cast<uint8_t *>(mine + 3 * LEVELS);
        for (int c = 0; c < C; ++c) {
            const int n = (int)mine[c * LEVELS + level];
            int value = level;
            if (level < 2) ends[level] = 0;
            sums[0][level] = n;
            __syncthreads();
            if (n > 0) {
                atomicMax(&ends[0], level);
                atomicMax(&ends[1], LEVELS - 1 - level);
            }
            int now = 0; // sums up to each level
            for (int step = 1; step < LEVELS; step *= 2) {
                sums[1 - now][level] =
                    sums[now][level] + (level >= step ? sums[now][level - step] : 0);
                __syncthreads();
                now = 1 - now;
            }
            const int high = ends[0], low = LEVELS - 1 - ends[1];
            const int n_high = (int)mine[c * LEVELS + high];
            if (table == HIRL_K_TABLE_AUTOCONTRAST && high > low) {
                const double scale = 255.0 / (high - low), offset = times((double)-low, scale);
                value = clamp255((int)(times((double)level, scale) + offset));
            }
            // Each of 255 steps holds as many pixels; those of the brightest level do not count.
            const int step = (n_pixels - n_high) / 255;
            if (table == HIRL_K_TABLE_EQUALIZE && step > 0)
                value = clamp255((step / 2 + sums[now][level] - n) / step);
            to[c * LEVELS + level] = (uint8_t)value;
            __syncthreads(); // sums and ends are written again
        }
    }
}

// ---------------------------------------------------------------------------------------------- other places

/// Sharpness: blended from the mean of 3 x 3 pixels in which the central one counts five times; the edges stay.
template <int C>
__device__ __forceinline__ void sharpen(const uint8_t *in, int size, int x, int y, float alpha,
                                        int (&p)[C]) {
    const uint8_t *at = in + ((int64_t)y * size + x) * C;
    const int line = size * C;
    const bool is_inside = x > 0 && y > 0 && x < size - 1 && y < size - 1;
#pragma unroll
    for (int c = 0; c < C; ++c) {
        const uint8_t *q = at + c;
        p[c] = q[0];
        if (!is_inside) continue;
        const int sum = q[-line - C] + q[-line] + q[-line + C] + q[-C] + 5 * q[0] + q[C] +
                        q[line - C] + q[line] + q[line + C];
        p[c] = blend((2 * sum + 13) / 26, p[c], alpha);
    }
}

/// Through the middle two of four points, Keys' parameter a = -1 (another than the resizing filter's).
__device__ __forceinline__ double cubic(double a, double b, double c, double d, double t) {
    const double p2 = c - a, p3 = times(2.0, a - b) + c - d, p4 = b - a - c + d;
    return b + times(t, p2 + times(t, p3 + times(t, p4)));
}

__device__ __forceinline__ int within(int i, int size) {
    return i < 0 ? 0 : i >= size ? size - 1 : i;
}

/// Pillow's nearest pixel: in 16.16 fixed point, or by the map itself where it only scales and moves. -1: outside.
__device__ __forceinline__ int nearest(const hirl_k_warp_t &w, int size, int x, int y) {
    int column = (w.fixed[2] + x * w.fixed[0] + y * w.fixed[1]) >> 16,
        row = (w.fixed[5] + x * w.fixed[3] + y * w.fixed[4]) >> 16;
    if (w.map[1] == 0.0 && w.map[3] == 0.0) {
        const double px = w.map[2] + times(w.map[0], 0.5) + times(w.map[0], (double)x),
                     py = w.map[5] + times(w.map[4], 0.5) + times(w.map[4], (double)y);
        column = px < 0.0 ? -1 : (int)px;
        row = py < 0.0 ? -1 : (int)py;
    }
    const bool is_seen = column >= 0 && row >= 0 && column < size && row < size;
    return is_seen ? row * size + column : -1;
}

/// The pixel of another place that an affine map shows at (x, y), as Pillow's Image.transform finds it.
template <int C>
__device__ __forceinline__ void warp_pixel(const uint8_t *in, const hirl_k_warp_t &w, int size,
                                           int x, int y, int (&p)[C]) {
#pragma unroll
    for (int c = 0; c < C; ++c) p[c] = w.fill[c];
    if (w.filter == HIRL_K_NEAREST) {
        const int at = nearest(w, size, x, y);
        if (at >= 0)
#pragma unroll
            for (int c = 0; c < C; ++c) p[c] = in[(int64_t)at * C + c];
        return;
    }
    double px = times(w.map[0], x + 0.5) + times(w.map[1], y + 0.5) + w.map[2],
           py = times(w.map[3], x + 0.5) + times(w.map[4], y + 0.5) + w.map[5];
    if (!(px >= 0.0 && px < size && py >= 0.0 && py < size)) return;
    px -= 0.5;
    py -= 0.5;
    const int column = (int)floor(px), row = (int)floor(py);
    const double dx = px - column, dy = py - row;
    int at[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) at[i] = within(column - 1 + i, size) * C;
    if (w.filter == HIRL_K_BILINEAR) {
        const uint8_t *up = in + (int64_t)within(row, size) * size * C,
                      *down = in + (int64_t)within(row + 1, size) * size * C;
#pragma unroll
        for (int c = 0; c < C; ++c) {
            const double a = up[at[1] + c], b = down[at[1] + c];
            const double above = a + times(up[at[2] + c] - a, dx),
                         below = b + times(down[at[2] + c] - b, dx);
            p[c] = (int)(above + times(below - above, dy));
        }
        return;
    }
#pragma unroll
    for (int c = 0; c < C; ++c) {
        double line[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const uint8_t *q = in + (int64_t)within(row - 1 + j, size) * size * C + c;
            line[j] = cubic(q[at[0]], q[at[1]], q[at[2]], q[at[3]], dx);
        }
        const double value = cubic(line[0], line[1], line[2], line[3], dy);
        p[c] = (int)(value < 0.0 ? 0.0 : value > 255.0 ? 255.0 : value);
    }
}

// ---------------------------------------------------------------------------------------------- parts

/// Pixels stay where they are (IS_HERE), or are taken from the whole of `from`, which is not `to` then.
template <int C, bool IS_HERE>
__global__ void __launch_bounds__(THREADS, IS_HERE ? 5 : 2)
    do_parts(const hirl_k_view_t *view, const hirl_k_part_t *part, const hirl_k_warp_t *warp,
             const hirl_k_tone_t *tone, int size, int64_t n_patches, hirl_k_affine_t affine,
             uint32_t *counts, uint8_t *work, float *y) {
    __shared__ __align__(16) uint8_t patch[PATCH * C];
    __shared__ uint32_t levels[C * LEVELS];
    __shared__ __align__(4) uint8_t table[C * LEVELS];
    __shared__ int scratch[33];
    const int n_pixels = size * size, patches_a_view = (n_pixels + PATCH - 1) / PATCH;
    for (int64_t unit = blockIdx.x; unit < n_patches; unit += gridDim.x) {
        const hirl_k_part_t &own = part[unit / patches_a_view];
        const int begin = (int)(unit % patches_a_view) * PATCH;
        const int n = min((int)PATCH, n_pixels - begin);
        const hirl_k_tones_t &tones = own.tones;
        const uint8_t *in = work + own.from;
        whole known = {0, table};
        if (IS_HERE)
            copy_bytes(in + (int64_t)begin * C, n * C, true, (int)threadIdx.x, THREADS, patch);
        if (own.table != HIRL_K_TABLE_NONE)
            copy_bytes(reinterpret_cast<const uint8_t *>(counts + own.count + 3 * LEVELS),
                       C * LEVELS, true, (int)threadIdx.x, THREADS, table);
        else if (own.count >= 0)
            known.mean =
                (int)((double)*reinterpret_cast<const unsigned long long *>(counts + own.count) /
                          (double)n_pixels +
                      0.5);
        if (tones.counts_what == HIRL_K_COUNT_LEVELS) clear<C>(levels);
        __syncthreads();
        int gray_sum = 0;
#pragma unroll 1
        for (int i = (int)threadIdx.x; i < n; i += THREADS) {
            int p[C];
            if constexpr (IS_HERE) {
#pragma unroll
                for (int c = 0; c < C; ++c) p[c] = patch[i * C + c];
            } else {
                const int at_y = (begin + i) / size, at_x = begin + i - at_y * size;
                if (own.warp == HIRL_K_SHARPEN)
                    sharpen(in, size, at_x, at_y, own.alpha, p);
                else
                    warp_pixel(in, warp[own.warp], size, at_x, at_y, p);
            }
            change<C, true>(tone + tones.first, tones.n, known, p);
            count<C>(tones.counts_what, p, gray_sum, levels);
#pragma unroll
            for (int c = 0; c < C; ++c) patch[i * C + c] = (uint8_t)p[c];
        }
        __syncthreads();
        add_counts<C>(tones, gray_sum, levels, scratch, counts);
        if (own.to >= 0)
            copy_bytes(patch, n * C, true, (int)threadIdx.x, THREADS,
                       work + own.to + (int64_t)begin * C); // a multiple of 16
        else
            store_floats<C>(patch, n * C, own_affine(affine, view[own.view]), (int)threadIdx.x,
                            THREADS, y + ((int64_t)own.view * n_pixels + begin) * C);
        __syncthreads(); // `patch` is written again
    }
}

template <int C>
cudaError_t run_parts(cudaStream_t stream, const hirl_k_views_t &v, const hirl_k_part_t *part,
                      int64_t n, bool is_here) {
    const int64_t n_patches = n * (((int64_t)v.size * v.size + PATCH - 1) / PATCH);
    const unsigned blocks = hirl_k_blocks(n_patches, 1, MOST_BLOCKS);
    if (is_here)
        HIRL_LAUNCH((do_parts<C, true>), blocks, THREADS, 0, stream, v.view, part, v.warp, v.tone,
                    v.size, n_patches, v.affine, v.counts, v.work, v.y);
    else
        HIRL_LAUNCH((do_parts<C, false>), blocks, THREADS, 0, stream, v.view, part, v.warp, v.tone,
                    v.size, n_patches, v.affine, v.counts, v.work, v.y);
    return hirl_k_end(stream);
}

// ---------------------------------------------------------------------------------------------- blur
// Pillow's GaussianBlur: three boxes of fractional radius along rows, then three along columns, each rounded to 8 bits, edges repeated. The
// three passes over a line stay in shared memory.

/// The box around item i of a line of n items, `step` bytes apart.
__device__ __forceinline__ uint8_t box(const uint8_t *line, int step, int i, int n,
                                       const hirl_k_view_t &w) {
    const int r = (int)w.radius;
    uint32_t sum = line[i * step];
    uint32_t far = 0;
    if (i > r && i + r + 1 < n) {
        for (int d = 1; d <= r; ++d) sum += line[(i - d) * step] + line[(i + d) * step];
        far = line[(i - r - 1) * step] + line[(i + r + 1) * step];
    } else {
        for (int d = 1; d <= r; ++d)
            sum += line[max(i - d, 0) * step] + line[min(i + d, n - 1) * step];
        far = line[max(i - r - 1, 0) * step] + line[min(i + r + 1, n - 1) * step];
    }
    return (uint8_t)((sum * w.inner + far * w.outer + (1u << 23)) >> 24);
}

template <int C>
__global__ void __launch_bounds__(THREADS)
    blur_rows(const hirl_k_view_t *view, const int32_t *list, int size, int rows_at_once,
              int64_t n_units, uint8_t *work) {
    HIRL_DYNAMIC_SHARED(uint8_t, lines);
    const int units_a_view = (size + rows_at_once - 1) / rows_at_once, line = size * C;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    const bool is_aligned = line % 4 == 0;
    for (int64_t unit = blockIdx.x; unit < n_units; unit += gridDim.x) {
        const hirl_k_view_t &w = view[list[unit / units_a_view]];
        const int y0 = (int)(unit % units_a_view) * rows_at_once;
        const int n_rows = min(rows_at_once, size - y0);
        uint8_t *mine = work + w.blurred + (int64_t)y0 * line;
        uint8_t *from = lines, *to = lines + rows_at_once * line;
        copy_bytes(mine, n_rows * line, is_aligned, (int)threadIdx.x, THREADS, from);
        for (int pass = 0; pass < 3; ++pass) {
            __syncthreads();
            for (int row = warp; row < n_rows; row += THREADS / 32)
                for (int b = lane; b < line; b += 32)
                    to[row * line + b] = box(from + row * line + b % C, C, b / C, size, w);
            uint8_t *const swap = from;
            from = to;
            to = swap;
        }
        __syncthreads();
        copy_bytes(from, n_rows * line, is_aligned, (int)threadIdx.x, THREADS, mine);
        __syncthreads(); // the lines are written again
    }
}

/// A block has a strip of 2^log_width columns of bytes, of all rows.
template <int C>
__global__ void __launch_bounds__(THREADS)
    blur_columns(const hirl_k_view_t *view, const int32_t *list, int size, int log_width,
                 int64_t n_units, hirl_k_affine_t affine, const uint8_t *work, float *y) {
    HIRL_DYNAMIC_SHARED(uint8_t, strip);
    const int width = 1 << log_width, line = size * C;
    const int units_a_view = (line + width - 1) >> log_width, n = size << log_width;
    const bool has_words = line % 4 == 0 && width % 4 == 0;
    for (int64_t unit = blockIdx.x; unit < n_units; unit += gridDim.x) {
        const int64_t v = list[unit / units_a_view];
        const hirl_k_view_t &w = view[v];
        const int b0 = (int)(unit % units_a_view) << log_width;
        const int n_columns = min(width, line - b0);
        const uint8_t *in = work + w.blurred + b0;
        uint8_t *from = strip, *to = strip + n;
        if (has_words) {
            // Rows are whole words then, and so is what a strip has of them.
            for (int i = (int)threadIdx.x; i < n / 4; i += THREADS) {
                const int row = 4 * i >> log_width, column = 4 * i & (width - 1);
                if (column < n_columns)
                    reinterpret_cast<uint32_t *>(from)[i] =
                        *reinterpret_cast<const uint32_t *>(in + (int64_t)row * line + column);
            }
        } else {
            for (int i = (int)threadIdx.x; i < n; i += THREADS) {
                const int row = i >> log_width, column = i & (width - 1);
                if (column < n_columns) from[i] = in[(int64_t)row * line + column];
            }
        }
        for (int pass = 0; pass < 3; ++pass) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < n; i += THREADS)
                to[i] = box(from + (i & (width - 1)), width, i >> log_width, size, w);
            uint8_t *const swap = from;
            from = to;
            to = swap;
        }
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += THREADS) {
            const int row = i >> log_width, column = i & (width - 1);
            if (column >= n_columns) continue;
            const int value = w.is_solarized ? solarize(from[i], 128) : from[i];
            const int c = C == 1 ? 0 : (b0 + column) % C;
            y[(v * size + row) * line + b0 + column] =
                times((float)value, pick(affine.scale, c)) + (pick(affine.offset, c) + w.shift[c]);
        }
        __syncthreads(); // the strip is written again
    }
}

template <int C>
cudaError_t run_blur(cudaStream_t stream, const hirl_k_views_t &v, const int32_t *list, int64_t n) {
    const int line = v.size * C;
    int rows = SHARED / 2 / line, log_width = 5;
    rows = rows > ROWS_AT_ONCE ? (int)ROWS_AT_ONCE : rows;
    while ((2 * v.size) << log_width > SHARED) --log_width;
    const int64_t n_rows = n * ((v.size + rows - 1) / rows);
    const int64_t n_strips = n * (((line - 1) >> log_width) + 1);
    HIRL_LAUNCH((blur_rows<C>), hirl_k_blocks(n_rows, 1, MOST_BLOCKS), THREADS,
                (size_t)(2 * rows * line), stream, v.view, list, v.size, rows, n_rows, v.work);
    HIRL_LAUNCH((blur_columns<C>), hirl_k_blocks(n_strips, 1, MOST_BLOCKS), THREADS,
                (size_t)(2 * v.size) << log_width, stream, v.view, list, v.size, log_width,
                n_strips, v.affine, (const uint8_t *)v.work, v.y);
    return hirl_k_end(stream);
}

// ---------------------------------------------------------------------------------------------- erasing

__device__ __forceinline__ double uniform(uint32_t low, uint32_t high) {
    return (double)(((uint64_t)high << 32 | low) >> 11) * 0x1p-53;
}

/// Numbers of hirl_rng_normals, one a thread; block (x, y) has numbers, rectangle.
__global__ void __launch_bounds__(THREADS)
    erase_views(const hirl_k_erase_t *erase, int64_t n_erased, int size, int channels, float *y) {
    for (int64_t e = blockIdx.y; e < n_erased; e += gridDim.y) {
        const hirl_k_erase_t &own = erase[e];
        const int line = own.width * channels, n = own.height * line;
        float *to = y + (((int64_t)own.view * size + own.top) * size + own.left) * channels;
        for (int i = (int)(blockIdx.x * THREADS + threadIdx.x); i < n;
             i += (int)gridDim.x * THREADS) {
            const words w = philox((uint32_t)i, own.counter[0], own.counter[1], own.counter[2],
                                   own.key[0], own.key[1]);
            const double radius = sqrt(-2.0 * exact_log(1.0 - uniform(w.v[0], w.v[1]))),
                         cosine = -exact_sin_pi(times(2.0, uniform(w.v[2], w.v[3])) - 0.5);
            const int row = i / line;
            to[(int64_t)row * size * channels + i - row * line] = (float)times(radius, cosine);
        }
    }
}

} // namespace

// ---------------------------------------------------------------------------------------------- launchers

int64_t hirl_k_view_taps(int64_t in_size, int64_t out_size, int filter) {
    if (in_size == out_size) return 1;
    const double scale = (double)in_size / (double)out_size;
    const double support = filter_support(filter) * (scale < 1.0 ? 1.0 : scale);
    const int64_t n = (int64_t)(2.0 * support) + 2; // an interval that long holds no more integers
    return n < in_size ? n : in_size;
}

cudaError_t hirl_k_view_tables(cudaStream_t stream, const hirl_k_views_t *views) {
    const dim3 grid(hirl_k_blocks(views->size, THREADS, MOST_BLOCKS), 2,
                    hirl_k_blocks(views->n, 1, 65535));
    HIRL_LAUNCH(fill_tables, grid, THREADS, 0, stream, views->view, views->n, views->size,
                views->tables);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_view_resample(cudaStream_t stream, const hirl_k_views_t *views,
                                 const uint8_t *pixels) {
    const hirl_k_views_t &v = *views;
    const int64_t across = (v.size + TILE - 1) / TILE, n_tiles = v.n * across * across;
    const unsigned blocks = hirl_k_blocks(n_tiles, 1, MOST_BLOCKS);
    if (v.channels == 1)
        HIRL_LAUNCH(resample<1>, blocks, THREADS, 0, stream, pixels, v.view, v.size, n_tiles,
                    (const int32_t *)v.tables, v.tone, v.affine, v.work, v.counts, v.y);
    else
        HIRL_LAUNCH(resample<3>, blocks, THREADS, 0, stream, pixels, v.view, v.size, n_tiles,
                    (const int32_t *)v.tables, v.tone, v.affine, v.work, v.counts, v.y);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_view_levels(cudaStream_t stream, const hirl_k_views_t *views,
                               const hirl_k_part_t *part, int64_t n) {
    const unsigned blocks = hirl_k_blocks(n, 1, MOST_BLOCKS);
    if (views->channels == 1)
        HIRL_LAUNCH(make_levels<1>, blocks, LEVELS, 0, stream, part, n, views->size * views->size,
                    views->counts);
    else
        HIRL_LAUNCH(make_levels<3>, blocks, LEVELS, 0, stream, part, n, views->size * views->size,
                    views->counts);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_view_parts(cudaStream_t stream, const hirl_k_views_t *views,
                              const hirl_k_part_t *part, int64_t n, int is_here) {
    return views->channels == 1 ? run_parts<1>(stream, *views, part, n, is_here != 0)
                                : run_parts<3>(stream, *views, part, n, is_here != 0);
}

cudaError_t hirl_k_view_blur(cudaStream_t stream, const hirl_k_views_t *views, const int32_t *list,
                             int64_t n) {
    return views->channels == 1 ? run_blur<1>(stream, *views, list, n)
                                : run_blur<3>(stream, *views, list, n);
}

cudaError_t hirl_k_view_erase(cudaStream_t stream, const hirl_k_views_t *views,
                              const hirl_k_erase_t *erase, int64_t n) {
    const int64_t most = (int64_t)views->size * views->size * views->channels;
    const dim3 grid(hirl_k_blocks(most, THREADS, 64), hirl_k_blocks(n, 1, 65535));
    HIRL_LAUNCH(erase_views, grid, THREADS, 0, stream, erase, n, views->size, views->channels,
                views->y);
    return hirl_k_end(stream);
}
