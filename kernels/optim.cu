/// Parameter updates. Floors in bytes per parameter: sgd 20 (reads g, v, p; writes v, p), lars 28 (reads g, p for the norms first), adamw 28
/// (reads g, v, w, p; writes v, w, p), ema 12, sum of squares 4; tables take 16 bytes a piece. All state is f32, and a parameter's update is a few fused multiply-adds, a root and a division.
#include "optim.h"

#include "map.h"

using namespace hirl_k;

namespace {

// ---------------------------------------------------------------------------------------------- pieces

enum { THREADS = 256 };

/// Does f (map.h) to the elements of a piece, by one block.
template <bool is_packed_, typename F>
__device__ __forceinline__ void over_piece(const F &f, const hirl_k_piece_t &piece) {
    constexpr int N = is_packed_ ? 4 : 1, U = groups_under_way<N, F::n_inputs>();
    const int n_groups = piece.count / N, thread = (int)threadIdx.x;
    for (int first = thread; first < n_groups; first += THREADS * U) {
        float v[U][F::n_inputs][N];
#pragma unroll
        for (int k = 0; k < U; ++k) {
            const int group = first + k * THREADS;
            if (group < n_groups) f.template read<N>(piece.first + group * N, v[k]);
        }
#pragma unroll
        for (int k = 0; k < U; ++k) {
            const int group = first + k * THREADS;
            if (group < n_groups) f.template write<N>(piece.first + group * N, v[k]);
        }
    }
    if (N > 1 && n_groups * N + thread < piece.count) { // what is left of a group
        float rest[F::n_inputs][1];
        f.template read<1>(piece.first + n_groups * N + thread, rest);
        f.template write<1>(piece.first + n_groups * N + thread, rest);
    }
}

/// Sums over a piece of x(i)^2 for n values x(i) of each element i, all in double; in thread 0. A thread takes the same elements in the same order
/// whether they come in packs or one by one.
template <bool is_packed_, int n, typename F>
__device__ __forceinline__ void squares_of_piece(const F &f, const hirl_k_piece_t &piece,
                                                 double *scratch, double (&total)[n]) {
    double sum[n][4] = {};
    const int n_groups = piece.count / 4, thread = (int)threadIdx.x;
#pragma unroll 2
    for (int group = thread; group < n_groups; group += THREADS) {
        float x[n][4];
        f.template read<is_packed_>(piece.first + 4 * group, x);
#pragma unroll
        for (int k = 0; k < n; ++k)
#pragma unroll
            for (int j = 0; j < 4; ++j) sum[k][j] += (double)x[k][j] * (double)x[k][j];
    }
    if (4 * n_groups + thread < piece.count) {
        float x[n];
        f.read_one(piece.first + 4 * n_groups + thread, x);
#pragma unroll
        for (int k = 0; k < n; ++k) sum[k][0] += (double)x[k] * (double)x[k];
    }
#pragma unroll
    for (int k = 0; k < n; ++k)
        total[k] = block_sum((sum[k][0] + sum[k][1]) + (sum[k][2] + sum[k][3]), scratch);
}

template <bool is_packed_>
__device__ __forceinline__ void load_four(const float *x, float (&v)[4]) {
    if (is_packed_) {
        load_items(x, v);
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) v[j] = x[j];
    }
}

struct squares_op {
    const float *x;
    template <bool is_packed_> __device__ void read(int64_t at, float (&v)[1][4]) const {
        load_four<is_packed_>(x + at, v[0]);
    }
    __device__ void read_one(int64_t at, float (&v)[1]) const { v[0] = x[at]; }
};

template <bool is_packed_>
__global__ void piece_squares(hirl_k_table_t table, const float *x, double *part) {
    __shared__ double scratch[33];
    const squares_op f = {x};
    double total[1];
    squares_of_piece<is_packed_>(f, table.piece[blockIdx.x], scratch, total);
    if (threadIdx.x == 0) part[blockIdx.x] = total[0];
}

/// p and what its update begins with: g, or scale g + decay p.
struct norms_op {
    float scale, decay;
    const float *g, *p;
    template <bool is_packed_> __device__ void read(int64_t at, float (&v)[2][4]) const {
        load_four<is_packed_>(p + at, v[0]);
        load_four<is_packed_>(g + at, v[1]);
#pragma unroll
        for (int j = 0; j < 4; ++j) v[1][j] = scale * v[1][j] + decay * v[0][j];
    }
    __device__ void read_one(int64_t at, float (&v)[2]) const {
        v[0] = p[at];
        v[1] = scale * g[at] + decay * v[0];
    }
};

template <bool is_packed_>
__global__ void piece_norms(hirl_k_momentum_t c, hirl_k_table_t table, const float *g,
                            const float *p, double *norms) {
    __shared__ double scratch[33];
    const hirl_k_piece_t piece = table.piece[blockIdx.x];
    const hirl_k_segment_t segment = table.segment[piece.segment];
    if (!segment.is_adapted) return; // the whole block: nobody asks for these
    const float decay = c.rule == HIRL_K_RULE_LARS_JOINT ? segment.weight_decay : 0.0f;
    const norms_op f = {c.grad_scale, decay, g, p};
    double total[2];
    squares_of_piece<is_packed_>(f, piece, scratch, total);
    if (threadIdx.x == 0) {
        norms[2 * blockIdx.x] = total[0];
        norms[2 * blockIdx.x + 1] = total[1];
    }
}

// ---------------------------------------------------------------------------------------------- updates

/// inner = 1, outer = lr: SGD.
struct momentum_op {
    enum { n_inputs = 3 };
    float scale, decay, inner, outer, momentum;
    bool is_nesterov;
    const float *g;
    float *v, *p;
    template <int N> __device__ void read(int64_t at, float (&in)[3][N]) const {
        load_items(g + at, in[0]);
        load_items(v + at, in[1]);
        load_items(p + at, in[2]);
    }
    template <int N> __device__ void write(int64_t at, const float (&in)[3][N]) const {
        float speed[N], out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float slope = inner * (scale * in[0][i] + decay * in[2][i]);
            speed[i] = momentum * in[1][i] + slope;
            out[i] = in[2][i] - outer * (is_nesterov ? slope + momentum * speed[i] : speed[i]);
        }
        store_items(v + at, speed);
        store_items(p + at, out);
    }
};

/// |p| and |g| of a segment from its pieces, in their order; the same in all threads.
__device__ __forceinline__ void norms_of_segment(const hirl_k_segment_t &segment,
                                                 const double *norms, double *scratch,
                                                 double (&norm)[2]) {
    double sum[2] = {0, 0};
    for (int i = (int)threadIdx.x; i < segment.n_pieces; i += THREADS) {
        const double *of = norms + 2 * ((int64_t)segment.first_piece + i);
        sum[0] += of[0];
        sum[1] += of[1];
    }
    norm[0] = sqrt(block_sum(sum[0], scratch));
    norm[1] = sqrt(block_sum(sum[1], scratch));
}

template <bool is_packed_>
__global__ void update_by_momentum(hirl_k_momentum_t c, hirl_k_table_t table, const double *norms,
                                   const float *g, float *v, float *p) {
    __shared__ double scratch[33];
    const hirl_k_piece_t piece = table.piece[blockIdx.x];
    const hirl_k_segment_t segment = table.segment[piece.segment];
    float decay = segment.weight_decay;
    double rate = 1;
    if (norms && segment.is_adapted) {
        double norm[2];
        norms_of_segment(segment, norms, scratch, norm);
        const double rest =
            c.rule == HIRL_K_RULE_LARS_JOINT ? 0.0 : (double)decay * norm[0] + (double)c.eps;
        if (norm[0] != 0 && norm[1] != 0)
            rate = (double)c.trust * norm[0] / (norm[1] + rest);
        else if (c.rule == HIRL_K_RULE_LARC)
            decay = 0;
    }
    const bool is_inside = c.rule == HIRL_K_RULE_LARS; // lr, of the momentum
    const momentum_op f = {c.grad_scale,
                           decay,
                           (float)(is_inside ? rate * (double)c.lr : rate),
                           is_inside ? 1.0f : c.lr,
                           c.momentum,
                           c.is_nesterov,
                           g,
                           v,
                           p};
    over_piece<is_packed_>(f, piece);
}

struct adamw_op {
    enum { n_inputs = 4 };
    float scale, beta1, rest1, beta2, rest2, decay, rate, root, eps;
    const float *g;
    float *v, *w, *p;
    template <int N> __device__ void read(int64_t at, float (&in)[4][N]) const {
        load_items(g + at, in[0]);
        load_items(v + at, in[1]);
        load_items(w + at, in[2]);
        load_items(p + at, in[3]);
    }
    template <int N> __device__ void write(int64_t at, const float (&in)[4][N]) const {
        float first[N], second[N], out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float slope = scale * in[0][i];
            first[i] = beta1 * in[1][i] + rest1 * slope;
            second[i] = beta2 * in[2][i] + rest2 * (slope * slope);
            // p - decay p in one rounding: 1 - decay would keep few bits of a small decay.
            out[i] = fmaf(-decay, in[3][i], in[3][i]) -
                     rate * first[i] / (sqrtf(second[i]) * root + eps);
        }
        store_items(v + at, first);
        store_items(w + at, second);
        store_items(p + at, out);
    }
};

template <bool is_packed_>
__global__ void update_by_adamw(hirl_k_adamw_t c, hirl_k_table_t table, const float *g, float *v,
                                float *w, float *p) {
    __shared__ float corrected[2];
    const hirl_k_piece_t piece = table.piece[blockIdx.x];
    const hirl_k_segment_t segment = table.segment[piece.segment];
    if (threadIdx.x == 0) {
        const double step = (double)(c.step - segment.lag);
        corrected[0] = (float)((double)c.lr / (1 - pow((double)c.beta1, step)));
        corrected[1] = (float)(1 / sqrt(1 - pow((double)c.beta2, step)));
    }
    __syncthreads();
    const adamw_op f = {c.grad_scale,
                        c.beta1,
                        (float)(1 - (double)c.beta1),
                        c.beta2,
                        (float)(1 - (double)c.beta2),
                        (float)((double)c.lr * (double)segment.weight_decay),
                        corrected[0],
                        corrected[1],
                        c.eps,
                        g,
                        v,
                        w,
                        p};
    over_piece<is_packed_>(f, piece);
}

struct ema_op {
    enum { n_inputs = 2 };
    float keep, rest;
    const float *x;
    float *y;
    template <int N> __device__ void read(int64_t at, float (&v)[2][N]) const {
        load_items(x + at, v[0]);
        load_items(y + at, v[1]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[2][N]) const {
        float out[N];
#pragma unroll
        // With x = y this is y again: keep + rest is 1, and what rounding rest x leaves is far below half a unit.
        for (int i = 0; i < N; ++i) out[i] = fmaf(keep, v[1][i], rest * v[0][i]);
        store_items(y + at, out);
    }
};

// ---------------------------------------------------------------------------------------------- sums of parts

__global__ void sum_of_parts(const double *part, int64_t n, double *sum) {
    __shared__ double scratch[33];
    double mine = 0;
    for (int64_t i = threadIdx.x; i < n; i += THREADS) mine += part[i];
    mine = block_sum(mine, scratch);
    if (threadIdx.x == 0) *sum = mine;
}

} // namespace

/// Whether all arrays may be accessed in packs wherever a piece begins.
template <typename... T> static bool is_packed_all(const hirl_k_table_t *table, const T *...array) {
    return table->is_aligned && (is_packed(array) && ...);
}

/// Launches kernel<true> or kernel<false>, a block for each piece.
#define LAUNCH_PIECES(kernel, packed, stream, table, ...)                             \
    do {                                                                              \
        const unsigned n_blocks_ = (unsigned)(table)->n_pieces;                       \
        if (packed)                                                                   \
            HIRL_LAUNCH((kernel<true>), n_blocks_, THREADS, 0, stream, __VA_ARGS__);  \
        else                                                                          \
            HIRL_LAUNCH((kernel<false>), n_blocks_, THREADS, 0, stream, __VA_ARGS__); \
    } while (0)

cudaError_t hirl_k_momentum(cudaStream_t stream, const hirl_k_momentum_t *param,
                            const hirl_k_table_t *table, const double *norms, const float *g,
                            float *v, float *p) {
    LAUNCH_PIECES(update_by_momentum, is_packed_all(table, g, v, p), stream, table, *param, *table,
                  norms, g, v, p);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_piece_norms(cudaStream_t stream, const hirl_k_momentum_t *param,
                               const hirl_k_table_t *table, const float *g, const float *p,
                               double *norms) {
    LAUNCH_PIECES(piece_norms, is_packed_all(table, g, p), stream, table, *param, *table, g, p,
                  norms);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_adamw(cudaStream_t stream, const hirl_k_adamw_t *param,
                         const hirl_k_table_t *table, const float *g, float *v, float *w,
                         float *p) {
    LAUNCH_PIECES(update_by_adamw, is_packed_all(table, g, v, w, p), stream, table, *param, *table,
                  g, v, w, p);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_piece_squares(cudaStream_t stream, const hirl_k_table_t *table, const float *x,
                                 double *part) {
    LAUNCH_PIECES(piece_squares, is_packed_all(table, x), stream, table, *table, x, part);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_sum_parts(cudaStream_t stream, const double *part, int64_t n, double *sum) {
    HIRL_LAUNCH(sum_of_parts, 1, THREADS, 0, stream, part, n, sum);
    return hirl_k_end(stream);
}

cudaError_t hirl_k_ema(cudaStream_t stream, float keep, float rest, const float *x, int64_t n,
                       float *y) {
    const ema_op f = {keep, rest, x, y};
    return map<4>(stream, f, n, true, x, y);
}
