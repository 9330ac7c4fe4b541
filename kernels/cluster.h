/// @file cluster.h
/// Launchers of clustering and nearest-neighbour search. A product of two rows is one chain of fused multiply-adds over the columns, in their
/// order, from zero; so it has the same bits as the host's, wherever and beside whatever it is computed.
#ifndef HIRL_KERNELS_CLUSTER_H
#define HIRL_KERNELS_CLUSTER_H

#include "kernels.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// index [n] = the row c_j of c [k, d] with the least half_norm_j - <x_i, c_j>, the lowest j of equal ones; value [n], which
/// may be NULL, that number. `scratch`: that many bytes, aligned to 16.
size_t hirl_k_nearest_rows_scratch(int64_t n, int64_t k);
cudaError_t hirl_k_nearest_rows(cudaStream_t stream, const float *x, int64_t n, const float *c,
                                const float *half_norm, int64_t k, int64_t d, void *scratch,
                                int32_t *index, float *value);

/// Lists of the best rows of a bank, as keys that order by score and then by falling row. A search goes through the bank in pieces of
/// rows: scan finds the candidates of a piece, select keeps the best of them and of those `held`, and after the last piece sort writes them down.
///
/// What a search keeps for its queries between pieces; nothing of it needs a value before the first.
typedef struct hirl_k_top {
    int64_t n_queries, k;
    int64_t piece;        // most rows of a piece
    float *threshold;     // [n_queries] what a product must exceed
    unsigned *n_fresh;    // [n_queries] candidates found
    uint64_t *fresh;      // [n_queries, piece] candidates
    uint64_t *held;       // [n_queries, k] the best so far, in any order
    uint64_t *held_after; // [n_queries, k] where select puts those; swap the two then
} hirl_k_top_t;

/// Rows [first, first + n) of the bank [*, d]. is_first: before anything is held; then all are candidates.
cudaError_t hirl_k_top_scan(cudaStream_t stream, const hirl_k_top_t *top, const float *query,
                            const float *bank, int64_t d, int64_t first, int64_t n, bool is_first);
/// n_seen: rows scanned so far, the last piece's n_last included.
cudaError_t hirl_k_top_select(cudaStream_t stream, const hirl_k_top_t *top, int64_t n_seen,
                              int64_t n_last);
/// score, index [n_queries, k]: the keys held (k of them each), best first.
cudaError_t hirl_k_top_sort(cudaStream_t stream, const hirl_k_top_t *top, float *score,
                            int32_t *index);

/// sum [k, d] += round(scale * x_i) over the rows of x [n, d] with index j, and count [k] += how many. Integers: in no order. |scale * x| <=
/// 2^51, scale a power of two. An index outside 0..k-1 is a fault, and its row is left out.
cudaError_t hirl_k_sum_rows(cudaStream_t stream, const float *x, const int32_t *index, int64_t n,
                            int64_t k, int64_t d, double scale, int64_t *sum, int64_t *count,
                            hirl_k_fault_t *fault);
/// total [1] += round(scale * |x_i - c_index(i)|^2) over the rows; distances in double, in the host's order of additions.
cudaError_t hirl_k_sum_distances(cudaStream_t stream, const float *x, const int32_t *index,
                                 int64_t n, const float *c, int64_t k, int64_t d, double scale,
                                 int64_t *total, hirl_k_fault_t *fault);

#ifdef __cplusplus
}
#endif
#endif
