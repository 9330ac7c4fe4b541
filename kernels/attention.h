/// @file attention.h
/// Multi-head attention without its matrix of scores: online soft-max forward, and a backward that computes the scores again.
#ifndef HIRL_KERNELS_ATTENTION_H
#define HIRL_KERNELS_ATTENTION_H

#include "kernels.h"

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// n_batch problems of n_heads heads. Row i of problem b of q lies at q + (b n_query + i) q_row, its head h at column h head_size from
/// there; k and v alike with n_key. The first columns are in the pointers. head_size is a multiple of 8 in 16..128; rows are multiples of 8
/// elements and pointers of 16 bytes.
typedef struct hirl_k_attention {
    int dtype; // hirl_k_dtype_t of q, k, v, y and their gradients
    int64_t n_batch, n_mask;
    int n_heads, head_size, n_query, n_key;
    float scale;
    const void *q, *k, *v;
    int64_t q_row, k_row, v_row;
    const float *bias; // [n_heads, n_query, n_key]; NULL: none
    const float *mask; // [n_mask, n_query, n_key], that of problem b: b mod n_mask; NULL: none
} hirl_k_attention_t;

/// y [n_batch n_query, n_heads head_size]; lse [n_batch, n_heads, n_query], may be NULL.
cudaError_t hirl_k_attention(cudaStream_t stream, const hirl_k_attention_t *p, void *y, float *lse);

/// Bytes of working memory of the backward, which wants it aligned to 16.
size_t hirl_k_attention_scratch(const hirl_k_attention_t *p, int has_dbias);
/// dq, dk and dv lie as q, k and v do; each may be NULL, as may dbias [n_heads, n_query, n_key].
cudaError_t hirl_k_attention_backward(cudaStream_t stream, const hirl_k_attention_t *p,
                                      const void *y, const float *lse, const void *dy,
                                      void *scratch, void *dq, void *dk, void *dv, float *dbias);

#ifdef __cplusplus
}
#endif
#endif
