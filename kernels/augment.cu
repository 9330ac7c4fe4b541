/// Augmented views, bit for bit those of the host's threads: integers wherever Pillow has integers, and its float and double arithmetic
/// with every product rounded by itself (`times`; nvcc would fuse it with a sum).
/// Floors a view of P = size^2 C bytes: resampling reads the crop once (a tile's edges twice) and writes P to `work`, or 4 P to y;
/// contrast reads P and writes P or 4 P; blur reads P and writes P, then reads P and writes 4 P. What a block works on is staged in
/// shared memory, so that rows are stored in whole words.
#include "augment.h"

#include "device.h"

using namespace hirl_k;

namespace {

enum {
    COEF_BITS = 22,
    TILE = 32,      // side of an output tile: its columns are the lanes of a warp
    THREADS = 256,  // eight warps
    TALL_ROWS = 96, // input rows of a tile at a time
    PATCH = 1024,   // pixels of a colour block
    MOST_BLOCKS = 1 << 30,
    SHARED = 48 << 10, // of a blur block
    ROWS_AT_ONCE = 16  // at most, of a blur block
};

/// A product that is rounded before it goes into a sum. Elsewhere the compiler is told not to fuse.
__device__ __forceinline__ float times(float a, float b) {
#ifdef __CUDACC__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}
__device__ __forceinline__ double times(double a, double b) {
#ifdef __CUDACC__
    return __dmul_rn(a, b);
#else
    return a * b;
#endif
}

__device__ __forceinline__ int clamp255(int value) {
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

// ---------------------------------------------------------------------------------------------- tables

/// Triangle, or the cubic kernel with a = -1/2 (Keys 1981), in the order of operations that Pillow has.
__device__ double filter(bool is_bicubic, double x) {
    const double a = -0.5;
    x = fabs(x);
    if (!is_bicubic) return x < 1.0 ? 1.0 - x : 0.0;
    if (x < 1.0) return times(times(times(a + 2.0, x) - (a + 3.0), x), x) + 1.0;
    if (x < 2.0) return times(times(times(x - 5.0, x) + 8.0, x) - 4.0, a);
    return 0.0;
}

/// A thread an output: block (x, y, z) has outputs, axis, view.
__global__ void __launch_bounds__(THREADS)
    fill_tables(const hirl_k_view_t *view, int64_t n_views, int size, int32_t *tables) {
    const int axis = (int)blockIdx.y;
    const int i = (int)(blockIdx.x * THREADS + threadIdx.x);
    if (i >= size) return;
    for (int64_t v = blockIdx.z; v < n_views; v += gridDim.z) {
        const hirl_k_view_t &w = view[v];
        const int in_size = w.in_size[axis];
        const int at = axis == HIRL_K_HORIZONTAL && w.is_flipped ? size - 1 - i : i;
        int32_t *first = tables + w.table[axis], *count = first + size, *tap = count + size;
        if (in_size == size) {
            first[at] = i;
            count[at] = 1;
            tap[at] = 1 << COEF_BITS;
            continue;
        }
        const double scale = (double)in_size / size, stretch = scale < 1.0 ? 1.0 : scale;
        const double support = w.is_bicubic ? 2.0 * stretch : stretch, inverse = 1.0 / stretch;
        const double center = times(i + 0.5, scale);
        int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
        if (low < 0) low = 0;
        if (high > in_size) high = in_size;
        const int n = high - low < w.n_taps[axis] ? high - low : w.n_taps[axis];
        double sum = 0.0;
        for (int k = 0; k < n; ++k)
            sum += filter(w.is_bicubic, times(k + low - center + 0.5, inverse));
        first[at] = low;
        count[at] = n;
        for (int k = 0; k < n; ++k) {
            double weight = filter(w.is_bicubic, times(k + low - center + 0.5, inverse));
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

/// Operations [begin, end) of the view's jitter; `mean` is contrast's. The view is the same for the whole block.
template <int C>
__device__ __forceinline__ void jitter(const hirl_k_view_t &w, int begin, int end, int mean,
                                       int (&p)[C]) {
    for (int i = begin; i < end; ++i) {
        const float alpha = w.alpha[i];
        const int op = w.jitter[i];
        if (op == HIRL_K_HUE) {
            if constexpr (C == 3) turn_hue(p, w.turn);
        } else if (op != HIRL_K_SATURATION || C == 3) {
            const int other = op == HIRL_K_BRIGHTNESS ? 0 : op == HIRL_K_CONTRAST ? mean : luma(p);
#pragma unroll
            for (int c = 0; c < C; ++c) p[c] = blend(other, p[c], alpha);
        }
    }
}

template <int C> __device__ __forceinline__ void grayscale(int (&p)[C]) {
    const int gray = luma(p);
#pragma unroll
    for (int c = 0; c < C; ++c) p[c] = gray;
}

__device__ __forceinline__ int solarize(int value) { return value < 128 ? value : 255 - value; }

// ---------------------------------------------------------------------------------------------- storing

__device__ __forceinline__ float normalized(const hirl_k_affine_t &a, int c, int value) {
    const float scale = c == 0 ? a.scale[0] : c == 1 ? a.scale[1] : a.scale[2];
    const float offset = c == 0 ? a.offset[0] : c == 1 ? a.offset[1] : a.offset[2];
    return times((float)value, scale) + offset;
}

/// n bytes of a row from shared memory, which begin at channel 0; threads `lane`, lane + step, ...
template <int C>
__device__ __forceinline__ void store_floats(const uint8_t *from, int n, const hirl_k_affine_t &a,
                                             int lane, int step, float *y) {
    for (int i = lane; i < n; i += step) y[i] = normalized(a, C == 1 ? 0 : i % C, from[i]);
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
             const int32_t *tables, hirl_k_affine_t affine, uint8_t *work, unsigned long long *sums,
             float *y) {
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
        const bool has_contrast = w.n_early < w.n_jitter;
        const bool is_finished = w.work < 0;
        int gray_sum = 0;
#pragma unroll 1
        for (int row = warp; row < n_rows && has_column; row += N_WARPS) {
            uint8_t *mine = tall + (row * TILE + lane) * C;
            int p[C];
#pragma unroll
            for (int c = 0; c < C; ++c) p[c] = mine[c];
            jitter(w, 0, w.n_early, 0, p);
            if (has_contrast) {
                gray_sum += luma(p);
            } else {
                if (w.is_gray) grayscale(p);
                if (is_finished && w.is_solarized)
#pragma unroll
                    for (int c = 0; c < C; ++c) p[c] = solarize(p[c]);
            }
#pragma unroll
            for (int c = 0; c < C; ++c) mine[c] = (uint8_t)p[c];
        }
        if (has_contrast) {
            const int total = block_sum(gray_sum, scratch);
            if (threadIdx.x == 0) atomicAdd(&sums[v], (unsigned long long)total);
        }
        __syncthreads();
        for (int row = warp; row < n_rows; row += N_WARPS) {
            const int64_t at = ((int64_t)(y0 + row) * size + x0) * C;
            const uint8_t *from = tall + row * TILE * C;
            if (is_finished)
                store_floats<C>(from, n_columns * C, affine, lane, 32,
                                y + v * size * size * C + at);
            else
                copy_bytes(from, n_columns * C, size * C % 4 == 0, lane, 32, work + w.work + at);
        }
        __syncthreads(); // `tall` is written again
    }
}

// ---------------------------------------------------------------------------------------------- colours after contrast

template <int C>
__global__ void __launch_bounds__(THREADS)
    color(const hirl_k_view_t *view, const int32_t *list, int size, int64_t n_patches,
          hirl_k_affine_t affine, const unsigned long long *sums, uint8_t *work, float *y) {
    __shared__ __align__(16) uint8_t patch[PATCH * C];
    const int n_pixels = size * size, patches_a_view = (n_pixels + PATCH - 1) / PATCH;
    for (int64_t unit = blockIdx.x; unit < n_patches; unit += gridDim.x) {
        const int64_t v = list[unit / patches_a_view];
        const int begin = (int)(unit % patches_a_view) * PATCH;
        const int n = min((int)PATCH, n_pixels - begin);
        const hirl_k_view_t &w = view[v];
        uint8_t *mine = work + w.work + (int64_t)begin * C; // a multiple of 16
        copy_bytes(mine, n * C, true, (int)threadIdx.x, THREADS, patch);
        const int mean = (int)((double)sums[v] / (double)n_pixels + 0.5);
        const bool has_blur = w.inner != 0;
        __syncthreads();
        for (int i = (int)threadIdx.x; i < n; i += THREADS) {
            int p[C];
#pragma unroll
            for (int c = 0; c < C; ++c) p[c] = patch[i * C + c];
            jitter(w, w.n_early, w.n_jitter, mean, p);
            if (w.is_gray) grayscale(p);
            if (!has_blur && w.is_solarized)
#pragma unroll
                for (int c = 0; c < C; ++c) p[c] = solarize(p[c]);
#pragma unroll
            for (int c = 0; c < C; ++c) patch[i * C + c] = (uint8_t)p[c];
        }
        __syncthreads();
        if (has_blur)
            copy_bytes(patch, n * C, true, (int)threadIdx.x, THREADS, mine);
        else
            store_floats<C>(patch, n * C, affine, (int)threadIdx.x, THREADS,
                            y + (v * n_pixels + begin) * C);
        __syncthreads(); // `patch` is written again
    }
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
        uint8_t *mine = work + w.work + (int64_t)y0 * line;
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
        const uint8_t *in = work + w.work + b0;
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
            const int value = w.is_solarized ? solarize(from[i]) : from[i];
            y[(v * size + row) * line + b0 + column] =
                normalized(affine, C == 1 ? 0 : (b0 + column) % C, value);
        }
        __syncthreads(); // the strip is written again
    }
}

template <int C>
cudaError_t run_blur(cudaStream_t stream, const hirl_k_view_t *view, const int32_t *list, int64_t n,
                     int size, const hirl_k_affine_t *affine, uint8_t *work, float *y) {
    const int line = size * C;
    int rows = SHARED / 2 / line, log_width = 5;
    rows = rows > ROWS_AT_ONCE ? (int)ROWS_AT_ONCE : rows;
    while ((2 * size) << log_width > SHARED) --log_width;
    const int64_t n_rows = n * ((size + rows - 1) / rows);
    const int64_t n_strips = n * (((line - 1) >> log_width) + 1);
    HIRL_LAUNCH((blur_rows<C>), hirl_k_blocks(n_rows, 1, MOST_BLOCKS), THREADS,
                (size_t)(2 * rows * line), stream, view, list, size, rows, n_rows, work);
    HIRL_LAUNCH((blur_columns<C>), hirl_k_blocks(n_strips, 1, MOST_BLOCKS), THREADS,
                (size_t)(2 * size) << log_width, stream, view, list, size, log_width, n_strips,
                *affine, (const uint8_t *)work, y);
    return hirl_k_end(stream);
}

} // namespace

// ---------------------------------------------------------------------------------------------- launchers

int64_t hirl_k_view_taps(int64_t in_size, int64_t out_size, int is_bicubic) {
    if (in_size == out_size) return 1;
    const double scale = (double)in_size / (double)out_size;
    const double support = (is_bicubic ? 2.0 : 1.0) * (scale < 1.0 ? 1.0 : scale);
    const int64_t n = (int64_t)(2.0 * support) + 2; // an interval that long holds no more integers
    return n < in_size ? n : in_size;
}

cudaError_t hirl_k_view_tables(cudaStream_t stream, const hirl_k_view_t *view, int64_t n, int size,
                               int32_t *tables) {
    const dim3 grid(hirl_k_blocks(size, THREADS, MOST_BLOCKS), 2, hirl_k_blocks(n, 1, 65535));
    HIRL_LAUNCH(fill_tables, grid, THREADS, 0, stream, view, n, size, tables);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_view_resample(cudaStream_t stream, const uint8_t *pixels,
                                 const hirl_k_view_t *view, int64_t n, int size, int channels,
                                 const int32_t *tables, const hirl_k_affine_t *affine,
                                 uint8_t *work, unsigned long long *sums, float *y) {
    const int64_t across = (size + TILE - 1) / TILE, n_tiles = n * across * across;
    const unsigned blocks = hirl_k_blocks(n_tiles, 1, MOST_BLOCKS);
    if (channels == 1)
        HIRL_LAUNCH(resample<1>, blocks, THREADS, 0, stream, pixels, view, size, n_tiles, tables,
                    *affine, work, sums, y);
    else
        HIRL_LAUNCH(resample<3>, blocks, THREADS, 0, stream, pixels, view, size, n_tiles, tables,
                    *affine, work, sums, y);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_view_color(cudaStream_t stream, const hirl_k_view_t *view, const int32_t *list,
                              int64_t n, int size, int channels, const hirl_k_affine_t *affine,
                              const unsigned long long *sums, uint8_t *work, float *y) {
    const int64_t n_patches = n * (((int64_t)size * size + PATCH - 1) / PATCH);
    const unsigned blocks = hirl_k_blocks(n_patches, 1, MOST_BLOCKS);
    if (channels == 1)
        HIRL_LAUNCH(color<1>, blocks, THREADS, 0, stream, view, list, size, n_patches, *affine,
                    sums, work, y);
    else
        HIRL_LAUNCH(color<3>, blocks, THREADS, 0, stream, view, list, size, n_patches, *affine,
                    sums, work, y);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_view_blur(cudaStream_t stream, const hirl_k_view_t *view, const int32_t *list,
                             int64_t n, int size, int channels, const hirl_k_affine_t *affine,
                             uint8_t *work, float *y) {
    return channels == 1 ? run_blur<1>(stream, view, list, n, size, affine, work, y)
                         : run_blur<3>(stream, view, list, n, size, affine, work, y);
}
