/// @file optim.h
/// Launchers of parameter updates, in place, on f32 slabs, and of sums of squares. An update runs over a table of pieces of its slabs, a
/// block for each, so that one launch serves all parameters.
#ifndef HIRL_KERNELS_OPTIM_H
#define HIRL_KERNELS_OPTIM_H

#include "kernels.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A part of a segment, for one block; the pieces of a segment are neighbours in the table.
enum { HIRL_K_PIECE = 8192 }; // elements of a piece at most
typedef struct hirl_k_piece {
    int64_t first;
    int32_t count, segment;
} hirl_k_piece_t;
typedef struct hirl_k_segment {
    int64_t lag;
    float weight_decay;
    int32_t is_adapted, first_piece, n_pieces;
} hirl_k_segment_t;
/// Both tables lie on the device. `is_aligned`: every piece begins at a multiple of 4 elements.
typedef struct hirl_k_table {
    const hirl_k_piece_t *piece;
    const hirl_k_segment_t *segment;
    int32_t n_pieces;
    bool is_aligned;
} hirl_k_table_t;

typedef enum hirl_k_rule { // as hirl_rule_t
    HIRL_K_RULE_SGD,
    HIRL_K_RULE_ADAMW,
    HIRL_K_RULE_LARS,
    HIRL_K_RULE_LARC,
    HIRL_K_RULE_LARS_JOINT
} hirl_k_rule_t;

/// See hirl_op_update. LARS in all its forms: `norms` [n_pieces, 2] holds what hirl_k_piece_norms found; else NULL.
typedef struct hirl_k_momentum {
    int32_t rule;
    float lr, grad_scale, momentum, trust, eps;
    bool is_nesterov;
} hirl_k_momentum_t;
cudaError_t hirl_k_momentum(cudaStream_t stream, const hirl_k_momentum_t *param,
                            const hirl_k_table_t *table, const double *norms, const float *g,
                            float *v, float *p);
/// For each piece of an adapted segment: sums of p^2 and of g^2 or, for LARS_JOINT, (grad_scale g + weight_decay p)^2.
cudaError_t hirl_k_piece_norms(cudaStream_t stream, const hirl_k_momentum_t *param,
                               const hirl_k_table_t *table, const float *g, const float *p,
                               double *norms);
/// v = beta1 v + rest1 g; w = beta2 w + rest2 g^2; p = p - decay p - rate v / (sqrt(w) * root + eps), where g is scaled by grad_scale,
/// rest = 1 - beta, decay = lr * weight decay, rate = lr / (1 - beta1^t), root = 1 / sqrt(1 - beta2^t), t = step - lag, made in double.
typedef struct hirl_k_adamw {
    float lr, grad_scale, beta1, beta2, eps;
    int64_t step;
} hirl_k_adamw_t;
cudaError_t hirl_k_adamw(cudaStream_t stream, const hirl_k_adamw_t *param,
                         const hirl_k_table_t *table, const float *g, float *v, float *w, float *p);
/// part[i] = sum of x^2 over piece i.
cudaError_t hirl_k_piece_squares(cudaStream_t stream, const hirl_k_table_t *table, const float *x,
                                 double *part);
/// *sum = sum of part[0..n), by one block.
cudaError_t hirl_k_sum_parts(cudaStream_t stream, const double *part, int64_t n, double *sum);
/// y = keep y + rest x.
cudaError_t hirl_k_ema(cudaStream_t stream, float keep, float rest, const float *x, int64_t n,
                       float *y);

#ifdef __cplusplus
}
#endif
#endif
