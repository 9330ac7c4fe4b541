/// Warp-wide matrix products (nvcuda::wmma) for the emulated device: 16 x 16 x 16, bf16 or f16 with f32 sums.
/// A fragment's elements are dealt to the lanes in a scrambled order, another one for each kind: only what the interface promises works, that is
/// the same treatment of all elements, and element by element between fragments of one type. Loads and stores wait for nobody,
/// so that a missing __syncwarp shows; a product meets all 32 lanes. Addresses that are no multiple of 32 bytes and rows that are
/// none of 16 abort. A product is summed in double and rounded once.
#ifndef HIRL_EMU_MMA_H
#define HIRL_EMU_MMA_H

#include "cuda_bf16.h"
#include "cuda_fp16.h"

#ifdef __cplusplus

#include <stdint.h>

// Kernels call these in unrolled loops, and the compiler would spend its time on copies.
#define HIRL_EMU_OUT_OF_LINE __attribute__((noinline)) inline

namespace hirl_emu {

[[noreturn]] void fail_matrix(const char *what, const void *ptr, unsigned row_bytes,
                              const char *file, int line);

/// What lanes bring to a product.
struct product_part {
    const void *a, *b; // eight elements each
    const float *c;
    float *d;
};
inline product_part product_parts[32][32]; // [warp][lane]

inline float wide(__nv_bfloat16 x) { return __bfloat162float(x); }
inline float wide(__half x) { return __half2float(x); }

/// Element `i` of a lane's eight: its place in the row-major 16 x 16 matrix. Odd factors deal out each once.
constexpr int place_of_item(int factor, int lane, int i) {
    return ((i * 32 + lane) * factor + 5) & 255;
}

template <typename T>
inline void check_matrix(const char *what, const T *ptr, unsigned row, const char *file, int line) {
    const unsigned row_bytes = row * (unsigned)sizeof(T);
    if (((uintptr_t)ptr & 31) != 0 || (row_bytes & 15) != 0)
        fail_matrix(what, ptr, row_bytes, file, line);
}

} // namespace hirl_emu

namespace nvcuda {
namespace wmma {

struct matrix_a {
    static constexpr int factor = 37;
};
struct matrix_b {
    static constexpr int factor = 101;
};
struct accumulator {
    static constexpr int factor = 59;
};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    static_assert(M == 16 && N == 16 && K == 16, "the emulation has 16 x 16 x 16");
    static constexpr int num_elements = 8;
    T x[num_elements];
};

template <typename Use, typename T, typename Layout, typename V>
inline void fill_fragment(fragment<Use, 16, 16, 16, T, Layout> &f, V value) {
    for (T &item : f.x) item = value;
}

/// matrix_a and matrix_b say their layout themselves.
template <typename Use, typename T, typename Layout>
HIRL_EMU_OUT_OF_LINE void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout> &f, const T *from,
                                           unsigned row, HIRL_EMU_HERE) {
    hirl_emu::check_matrix("load_matrix_sync", from, row, file, line);
    for (int i = 0; i < f.num_elements; ++i) {
        const int at = hirl_emu::place_of_item(Use::factor, hirl_emu::lane(), i);
        const int r = at / 16, c = at % 16;
        f.x[i] =
            std::is_same_v<Layout, row_major> ? from[r * (int)row + c] : from[c * (int)row + r];
    }
}
template <typename T>
HIRL_EMU_OUT_OF_LINE void load_matrix_sync(fragment<accumulator, 16, 16, 16, T> &f, const T *from,
                                           unsigned row, layout_t layout, HIRL_EMU_HERE) {
    hirl_emu::check_matrix("load_matrix_sync", from, row, file, line);
    for (int i = 0; i < f.num_elements; ++i) {
        const int at = hirl_emu::place_of_item(accumulator::factor, hirl_emu::lane(), i);
        const int r = at / 16, c = at % 16;
        f.x[i] = layout == mem_row_major ? from[r * (int)row + c] : from[c * (int)row + r];
    }
}
template <typename T>
HIRL_EMU_OUT_OF_LINE void store_matrix_sync(T *to, const fragment<accumulator, 16, 16, 16, T> &f,
                                            unsigned row, layout_t layout, HIRL_EMU_HERE) {
    hirl_emu::check_matrix("store_matrix_sync", to, row, file, line);
    for (int i = 0; i < f.num_elements; ++i) {
        const int at = hirl_emu::place_of_item(accumulator::factor, hirl_emu::lane(), i);
        const int r = at / 16, c = at % 16;
        (layout == mem_row_major ? to[r * (int)row + c] : to[c * (int)row + r]) = f.x[i];
    }
}

/// d = a b + c. One lane works for all, between two meetings.
template <typename T, typename LayoutA, typename LayoutB>
HIRL_EMU_OUT_OF_LINE void mma_sync(fragment<accumulator, 16, 16, 16, float> &d,
                                   const fragment<matrix_a, 16, 16, 16, T, LayoutA> &a,
                                   const fragment<matrix_b, 16, 16, 16, T, LayoutB> &b,
                                   const fragment<accumulator, 16, 16, 16, float> &c,
                                   HIRL_EMU_HERE) {
    const int lane = hirl_emu::lane();
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    hirl_emu::product_part *const part = hirl_emu::product_parts[thread / 32];
    part[lane] = {a.x, b.x, c.x, d.x};
    hirl_emu::meet(hirl_emu::warp_op::sync, 0xffffffffu, 0, false, nullptr, 0, file, line);
    if (lane == 0) {
        float left[256], right[256];
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 8; ++i) {
                left[hirl_emu::place_of_item(matrix_a::factor, l, i)] =
                    hirl_emu::wide(((const T *)part[l].a)[i]);
                right[hirl_emu::place_of_item(matrix_b::factor, l, i)] =
                    hirl_emu::wide(((const T *)part[l].b)[i]);
            }
        double product[256] = {0};
        for (int r = 0; r < 16; ++r)
            for (int k = 0; k < 16; ++k)
                for (int j = 0; j < 16; ++j)
                    product[r * 16 + j] += (double)left[r * 16 + k] * (double)right[k * 16 + j];
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 8; ++i) {
                const int at = hirl_emu::place_of_item(accumulator::factor, l, i);
                part[l].d[i] = (float)((double)part[l].c[i] + product[at]);
            }
    }
    hirl_emu::meet(hirl_emu::warp_op::sync, 0xffffffffu, 0, false, nullptr, 0, file, line);
}

} // namespace wmma
} // namespace nvcuda

#endif
#endif
