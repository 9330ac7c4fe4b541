/// Around matrix products and convolutions. Floors in bytes per element, f32 | bf16: weights packed 8 | 6 and unpacked 8 | 6
/// (accumulating 12 | 10), bias 8 | 4, epilogue 8 | 4 (with `pre` 12 | 6), column sums 4 | 2.
///
/// Packing transposes [n_in, n_taps] to [n_taps, n_in] for each output channel, through shared memory, so that both sides are
/// read and written in order. Rows there have an odd length, so that neither side meets a bank twice, and 128 taps at most, so that
/// a block has neighbours in both orders where there are many (images that are transposed for cuDNN).
#include "matrix.h"

#include "act.h"
#include "columns.h"

using namespace hirl_k;

namespace {

template <typename T> struct bias_op {
    enum { n_inputs = 1 };
    const float *bias;
    T *y;
    int64_t n_columns;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        load_items(y + at, v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        float b[N];
        load_items(bias + at % n_columns, b);
#pragma unroll
        for (int i = 0; i < N; ++i) b[i] += v[0][i];
        store_items(y + at, b);
    }
};

template <typename T, int ACT> struct epilogue_op {
    enum { n_inputs = 1 };
    const T *x;
    const float *bias;
    T *y, *pre;
    int64_t n_columns;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        load_items(x + at, v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        float b[N];
        if (bias) {
            load_items(bias + at % n_columns, b);
        } else {
#pragma unroll
            for (int i = 0; i < N; ++i) b[i] = 0;
        }
#pragma unroll
        for (int i = 0; i < N; ++i) b[i] += v[0][i];
        if (pre) store_items(pre + at, b);
#pragma unroll
        for (int i = 0; i < N; ++i) b[i] = activate<ACT>(b[i]);
        store_items(y + at, b);
    }
};

// ---------------------------------------------------------------------------------------------- weights

enum { THREADS = 256, TILE = 4096 };
constexpr int64_t most_taps = 128;

/// A block takes `n_in_here` input channels and `n_taps_here` taps of one output channel.
struct weights_plan {
    int64_t n_in, n_taps;
    int64_t n_in_blocks, n_taps_blocks;
    int n_in_here, n_taps_here, pitch;
};

weights_plan plan_weights(int64_t n_in, int64_t n_taps) {
    weights_plan p;
    p.n_in = n_in;
    p.n_taps = n_taps;
    p.n_taps_here = (int)(n_taps < most_taps ? n_taps : most_taps);
    p.pitch = p.n_taps_here | 1;
    p.n_taps_blocks = (n_taps + p.n_taps_here - 1) / p.n_taps_here;
    p.n_in_blocks = (n_in + TILE / p.pitch - 1) / (TILE / p.pitch);
    p.n_in_here = (int)((n_in + p.n_in_blocks - 1) / p.n_in_blocks);
    return p;
}

/// Where a block's part of the weights begins and how large it is.
struct weights_part {
    int64_t out, in, tap;
    int n_in, n_taps;
    __device__ explicit weights_part(const weights_plan &p) {
        const int64_t rest = blockIdx.x / p.n_taps_blocks;
        tap = blockIdx.x % p.n_taps_blocks * p.n_taps_here;
        in = rest % p.n_in_blocks * p.n_in_here;
        out = rest / p.n_in_blocks;
        n_in = (int)(p.n_in - in < p.n_in_here ? p.n_in - in : p.n_in_here);
        n_taps = (int)(p.n_taps - tap < p.n_taps_here ? p.n_taps - tap : p.n_taps_here);
    }
};

template <typename T> __global__ void pack_weights(const float *w, weights_plan p, T *packed) {
    __shared__ float tile[TILE];
    const weights_part part(p);
    const float *from = w + (part.out * p.n_in + part.in) * p.n_taps + part.tap;
    for (int t = (int)threadIdx.x; t < part.n_in * part.n_taps; t += THREADS) {
        const int i = t / part.n_taps, k = t - i * part.n_taps;
        tile[i * p.pitch + k] = from[i * p.n_taps + k];
    }
    __syncthreads();
    T *to = packed + (part.out * p.n_taps + part.tap) * p.n_in + part.in;
    for (int t = (int)threadIdx.x; t < part.n_in * part.n_taps; t += THREADS) {
        const int k = t / part.n_in, i = t - k * part.n_in;
        store(to + k * p.n_in + i, tile[i * p.pitch + k]);
    }
}

template <typename T>
__global__ void unpack_weights(const T *packed, weights_plan p, bool accumulate, float *w) {
    __shared__ float tile[TILE];
    const weights_part part(p);
    const T *from = packed + (part.out * p.n_taps + part.tap) * p.n_in + part.in;
    for (int t = (int)threadIdx.x; t < part.n_in * part.n_taps; t += THREADS) {
        const int k = t / part.n_in, i = t - k * part.n_in;
        tile[i * p.pitch + k] = load(from + k * p.n_in + i);
    }
    __syncthreads();
    float *to = w + (part.out * p.n_in + part.in) * p.n_taps + part.tap;
    for (int t = (int)threadIdx.x; t < part.n_in * part.n_taps; t += THREADS) {
        const int i = t / part.n_taps, k = t - i * part.n_taps;
        const float value = tile[i * p.pitch + k];
        float *at = to + i * p.n_taps + k;
        *at = accumulate ? *at + value : value;
    }
}

unsigned weights_blocks(const weights_plan &p, int64_t n_out) {
    return (unsigned)(n_out * p.n_in_blocks * p.n_taps_blocks);
}

} // namespace

cudaError_t hirl_k_conv_weights_pack(cudaStream_t stream, const float *w, int64_t n_out,
                                     int64_t n_in, int64_t n_taps, void *packed, int dtype) {
    if (n_taps == 1 || n_in == 1)
        return hirl_k_cast(stream, w, HIRL_K_F32, packed, dtype, n_out * n_in * n_taps);
    const weights_plan p = plan_weights(n_in, n_taps);
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_LAUNCH((pack_weights<T>), weights_blocks(p, n_out), THREADS, 0, stream, w, p,
                    (T *)packed);
        return hirl_k_end(stream);
    });
}

cudaError_t hirl_k_conv_weights_unpack(cudaStream_t stream, const void *packed, int dtype,
                                       int64_t n_out, int64_t n_in, int64_t n_taps, bool accumulate,
                                       float *dw) {
    if (n_taps == 1 || n_in == 1)
        return hirl_k_axpby(stream, 1.0f, packed, dtype, accumulate ? 1.0f : 0.0f, dw, HIRL_K_F32,
                            n_out * n_in * n_taps);
    const weights_plan p = plan_weights(n_in, n_taps);
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        HIRL_LAUNCH((unpack_weights<T>), weights_blocks(p, n_out), THREADS, 0, stream,
                    (const T *)packed, p, accumulate, dw);
        return hirl_k_end(stream);
    });
}

cudaError_t hirl_k_bias_add(cudaStream_t stream, const float *bias, int64_t n_rows,
                            int64_t n_columns, void *y, int dtype) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        constexpr int N = group_items<T>();
        const bias_op<T> f = {bias, (T *)y, n_columns};
        return map<N>(stream, f, n_rows * n_columns, n_columns % N == 0 && is_packed(bias), f.y);
    });
}

cudaError_t hirl_k_linear_epilogue(cudaStream_t stream, const void *x, const float *bias, int act,
                                   int dtype, int64_t n_rows, int64_t n_columns, void *y,
                                   void *pre) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        return with_act(act, [&](auto which) {
            constexpr int N = group_items<T>();
            const epilogue_op<T, decltype(which)::value> f = {(const T *)x, bias, (T *)y, (T *)pre,
                                                              n_columns};
            return map<N>(stream, f, n_rows * n_columns,
                          !bias || (n_columns % N == 0 && is_packed(bias)), f.x, f.y, f.pre);
        });
    });
}

size_t hirl_k_column_sums_scratch(int64_t n_rows, int64_t n_columns) {
    const column_plan a = plan_columns(n_rows, n_columns, column_group<float>(n_columns), true);
    const column_plan b = plan_columns(n_rows, n_columns, column_group<bf16>(n_columns), true);
    return (size_t)(a.n_spans > b.n_spans ? a.n_spans : b.n_spans) * (size_t)n_columns *
           sizeof(float);
}

cudaError_t hirl_k_column_sums(cudaStream_t stream, const void *x, int dtype, int64_t n_rows,
                               int64_t n_columns, void *scratch, bool accumulate, float *sums) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        const column_plan p = plan_columns(n_rows, n_columns, column_group<T>(n_columns), true);
        const bool is_cut = p.n_spans > 1;
        launch_sum_columns<T>(stream, (const T *)x, 1, p, 1.0f, accumulate && !is_cut,
                              is_cut ? (float *)scratch : sums);
        if (is_cut) {
            const column_plan q =
                plan_columns(p.n_spans, n_columns, column_group<float>(n_columns), false);
            launch_sum_columns<float>(stream, (const float *)scratch, 1, q, 1.0f, accumulate, sums);
        }
        return hirl_k_end(stream);
    });
}
