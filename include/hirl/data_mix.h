/// @file data_mix.h
/// Mixup (Zhang et al., "mixup: beyond empirical risk minimization", 2018) and cutmix (Yun et al., "CutMix", 2019) of a batch, with soft
/// labels. Two neighbours of the epoch's order are mixed with one another, and `group` samples in a row share what is drawn; the
/// order being random, this is what reversing a batch gives, but it does not depend on how batches are split over ranks: a rank needs an even number
/// of samples from an even position on. Nothing here is collective.
#ifndef HIRL_DATA_MIX_H
#define HIRL_DATA_MIX_H

#include "hirl/deck.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &mix: mixed samples for training with labels.
typedef struct hirl_mix_cfg {
    double mixup, cutmix; // both parameters of the Beta distribution; 0: off
    double prob, switch_prob;
    double smoothing;
    int64_t group; // samples
} hirl_mix_cfg_t;
extern const hirl_group_t hirl_mix_group;

/// What a group of samples shares: x = lambda x + (1 - lambda) other or, in the box alone, x = other.
typedef struct hirl_mix_draw {
    bool is_cutmix;
    double lambda;                // share of the sample itself; 1: nothing is mixed
    int top, left, height, width; // cutmix: box
} hirl_mix_draw_t;

/// Errors: HIRL_ERR_DECK.
hirl_status_t hirl_mix_check(const hirl_mix_cfg_t *cfg);

/// Draw of the group of samples [group cfg->group, (group + 1) cfg->group) of an epoch's order, for images of height x width: a function of its
/// arguments alone.
hirl_mix_draw_t hirl_mix_draw(const hirl_mix_cfg_t *cfg, uint64_t seed, int64_t epoch,
                              int64_t group, int height, int width);

/// Mixes the samples at positions [first, first + n) of the epoch's order: images f32 [n, height, width, channels] in place, label [n] to
/// target f32 [n, n_classes] with `smoothing` (1 - s + s / K for the label, s / K for others). Allocates nothing. Errors: HIRL_ERR_ARG
/// (first or n odd), HIRL_ERR_FORMAT (a label outside 0..n_classes-1).
hirl_status_t hirl_mix_batch(const hirl_mix_cfg_t *cfg, uint64_t seed, int64_t epoch, int64_t first,
                             int64_t n, int height, int width, int channels, int n_classes,
                             const int32_t *label, float *images, float *target);

/// Gamma(shape, 1) as its logarithm, by Marsaglia and Tsang ("A simple method for generating gamma variables", 2000): finite for any shape > 0.
double hirl_mix_log_gamma(hirl_rng_t *rng, double shape);
/// Beta(alpha, alpha), in [0, 1].
double hirl_mix_beta(hirl_rng_t *rng, double alpha);

#ifdef __cplusplus
}
#endif
#endif
