/// Elementwise operations: each reads its inputs once and writes its output once, so the floor is the bytes of the arrays over the
/// memory's bandwidth: per element, f32 | bf16,
///     fill 4 | 2;  cast 4 + 2;  axpby 12 | 6 (b = 0: 8 | 4);  add, mul 12 | 6;  act 8 | 4;  act_backward 12 | 6
/// Arithmetic is in f32 with one rounding at the end. GELU's erf and exp are some 50 instructions per element, below what an element's
/// bytes take on the cards this was written for.
#include "elementwise.h"

#include "act.h"
#include "map.h"

using namespace hirl_k;

namespace {

template <typename T> struct fill_op {
    enum { n_inputs = 1 };
    float value;
    T *x;
    template <int N> __device__ void read(int64_t, float (&v)[1][N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) v[0][i] = value;
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        store_items(x + at, v[0]);
    }
};

/// y = a x.
template <typename TX, typename TY> struct scale_op {
    enum { n_inputs = 1 };
    float a;
    const TX *x;
    TY *y;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        load_items(x + at, v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        float out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = a * v[0][i];
        store_items(y + at, out);
    }
};

template <typename TX, typename TY> struct axpby_op {
    enum { n_inputs = 2 };
    float a, b;
    const TX *x;
    TY *y;
    template <int N> __device__ void read(int64_t at, float (&v)[2][N]) const {
        load_items(x + at, v[0]);
        load_items(y + at, v[1]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[2][N]) const {
        float out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = a * v[0][i] + b * v[1][i];
        store_items(y + at, out);
    }
};

template <typename T, bool is_product> struct pair_op {
    enum { n_inputs = 2 };
    const T *x1, *x2;
    T *y;
    template <int N> __device__ void read(int64_t at, float (&v)[2][N]) const {
        load_items(x1 + at, v[0]);
        load_items(x2 + at, v[1]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[2][N]) const {
        float out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = is_product ? v[0][i] * v[1][i] : v[0][i] + v[1][i];
        store_items(y + at, out);
    }
};

template <typename T, int ACT> struct act_op {
    enum { n_inputs = 1 };
    const T *x;
    T *y;
    template <int N> __device__ void read(int64_t at, float (&v)[1][N]) const {
        load_items(x + at, v[0]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[1][N]) const {
        float out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = activate<ACT>(v[0][i]);
        store_items(y + at, out);
    }
};

template <typename T, int ACT> struct act_backward_op {
    enum { n_inputs = 2 };
    const T *saved, *dy;
    T *dx;
    template <int N> __device__ void read(int64_t at, float (&v)[2][N]) const {
        load_items(saved + at, v[0]);
        load_items(dy + at, v[1]);
    }
    template <int N> __device__ void write(int64_t at, const float (&v)[2][N]) const {
        float out[N];
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float slope = act_slope<ACT>(v[0][i]);
            out[i] = slope != 0.0f ? v[1][i] * slope : 0.0f;
        }
        store_items(dx + at, out);
    }
};

template <bool is_product>
cudaError_t pair(cudaStream_t stream, const void *x1, const void *x2, int dtype, int64_t n,
                 void *y) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        const pair_op<T, is_product> f = {(const T *)x1, (const T *)x2, (T *)y};
        return map<group_items<T>()>(stream, f, n, true, f.x1, f.x2, f.y);
    });
}

cudaError_t scale(cudaStream_t stream, float a, const void *x, int x_dtype, void *y, int y_dtype,
                  int64_t n) {
    return with_dtype(x_dtype, [&](auto x_type) {
        typedef decltype(x_type) TX;
        return with_dtype(y_dtype, [&](auto y_type) {
            typedef decltype(y_type) TY;
            const scale_op<TX, TY> f = {a, (const TX *)x, (TY *)y};
            return map<group_items<TX, TY>()>(stream, f, n, true, f.x, f.y);
        });
    });
}

} // namespace

cudaError_t hirl_k_fill(cudaStream_t stream, float value, int64_t n, void *x, int dtype) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        const fill_op<T> f = {value, (T *)x};
        return map<group_items<T>()>(stream, f, n, true, f.x);
    });
}

cudaError_t hirl_k_cast(cudaStream_t stream, const void *x, int x_dtype, void *y, int y_dtype,
                        int64_t n) {
    return scale(stream, 1.0f, x, x_dtype, y, y_dtype, n);
}

cudaError_t hirl_k_axpby(cudaStream_t stream, float a, const void *x, int x_dtype, float b, void *y,
                         int y_dtype, int64_t n) {
    if (b == 0.0f) return scale(stream, a, x, x_dtype, y, y_dtype, n);
    return with_dtype(x_dtype, [&](auto x_type) {
        typedef decltype(x_type) TX;
        return with_dtype(y_dtype, [&](auto y_type) {
            typedef decltype(y_type) TY;
            const axpby_op<TX, TY> f = {a, b, (const TX *)x, (TY *)y};
            return map<group_items<TX, TY>()>(stream, f, n, true, f.x, f.y);
        });
    });
}

cudaError_t hirl_k_add(cudaStream_t stream, const void *x1, const void *x2, int dtype, int64_t n,
                       void *y) {
    return pair<false>(stream, x1, x2, dtype, n, y);
}

cudaError_t hirl_k_mul(cudaStream_t stream, const void *x1, const void *x2, int dtype, int64_t n,
                       void *y) {
    return pair<true>(stream, x1, x2, dtype, n, y);
}

cudaError_t hirl_k_act(cudaStream_t stream, int act, const void *x, int dtype, int64_t n, void *y) {
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        return with_act(act, [&](auto which) {
            const act_op<T, decltype(which)::value> f = {(const T *)x, (T *)y};
            return map<group_items<T>()>(stream, f, n, true, f.x, f.y);
        });
    });
}

cudaError_t hirl_k_act_backward(cudaStream_t stream, int act, const void *saved, const void *dy,
                                int dtype, int64_t n, void *dx) {
    if (act == HIRL_K_ACT_NONE) return hirl_k_cast(stream, dy, dtype, dx, dtype, n);
    return with_dtype(dtype, [&](auto type) {
        typedef decltype(type) T;
        return with_act(act, [&](auto which) {
            const act_backward_op<T, decltype(which)::value> f = {(const T *)saved, (const T *)dy,
                                                                  (T *)dx};
            return map<group_items<T>()>(stream, f, n, true, f.saved, f.dy, f.dx);
        });
    });
}
