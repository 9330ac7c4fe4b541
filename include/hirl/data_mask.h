/// @file data_mask.h
/// Masks over the patches of an image, or of a clip, for masked image modelling: MAE, SimMIM, BEiT, iBOT, Hiera. A mask is a function of
/// (seed, epoch, sample index, view) alone: threads and ranks may make it in any order. Nothing here is collective.
#ifndef HIRL_DATA_MASK_H
#define HIRL_DATA_MASK_H

#include "hirl/deck.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &mask: which patches of a view are hidden.
typedef struct hirl_mask_cfg {
    char kind[HIRL_DECK_TEXT_MAX];    // 'none' | 'random' | 'patch' | 'block' | 'block_ibot' |
                                      // 'random_ibot'
    int64_t grid[HIRL_DECK_LIST_MAX]; // patches: rows, columns; or frames, rows, columns
    int n_grid;
    int64_t unit[HIRL_DECK_LIST_MAX]; // patches that are hidden or shown together, along each axis
    int n_unit;
    double ratio[HIRL_DECK_LIST_MAX]; // share of the patches that is hidden
    int n_ratio;
    double ratio_var[HIRL_DECK_LIST_MAX];
    int n_ratio_var;
    int64_t n_masked;                 // block: patches to hide
    int64_t min_patches, max_patches; // blocks: of one rectangle
    double min_aspect, max_aspect;
    bool exact;
} hirl_mask_cfg_t;
extern const hirl_group_t hirl_mask_group;

typedef enum hirl_mask_kind {
    HIRL_MASK_NONE,
    HIRL_MASK_RANDOM,
    HIRL_MASK_PATCH,
    HIRL_MASK_BLOCK,
    HIRL_MASK_BLOCK_IBOT,
    HIRL_MASK_RANDOM_IBOT
} hirl_mask_kind_t;

enum { HIRL_MASK_AXES = 3, HIRL_MASK_RATIOS_MAX = 8, HIRL_MASK_PATCHES_MAX = 1 << 20 };

/// &mask resolved. A plain value.
typedef struct hirl_mask_spec {
    hirl_mask_kind_t kind;
    int grid[HIRL_MASK_AXES]; // frames (1 for images), rows, columns
    int unit[HIRL_MASK_AXES];
    int64_t n_patches; // of a mask: the product of grid
    int64_t n_units;   // random, patch: what is drawn
    int64_t n_hidden;  // random, patch: units; block: patches
    int n_ratios;      // ibot: one of them is taken, all equally likely
    double ratio[HIRL_MASK_RATIOS_MAX], ratio_var[HIRL_MASK_RATIOS_MAX];
    double min_patches, max_patches; // of a rectangle
    double log_aspect[2];            // least and largest logarithm of height / width
    bool is_exact;
} hirl_mask_spec_t;

/// Errors: HIRL_ERR_DECK naming the key that does not fit and what would.
hirl_status_t hirl_mask_resolve(const hirl_mask_cfg_t *cfg, hirl_mask_spec_t *spec_p);

/// Masked patches of every mask; -1 where masks differ in it.
int64_t hirl_mask_count(const hirl_mask_spec_t *spec);

/// Makes masks of one specification; belongs to one thread at a time.
typedef struct hirl_mask_maker hirl_mask_maker_t;
hirl_status_t hirl_mask_maker_create(HIRL_COPY const hirl_mask_spec_t *spec,
                                     hirl_mask_maker_t **maker_p);
void hirl_mask_maker_destroy(hirl_mask_maker_t **maker);

/// One mask, u8 [frames, rows, columns], 1: hidden. Allocates nothing.
/// `random` (He et al., "Masked autoencoders are scalable vision learners", 2022; Ryali et al., "Hiera", 2023): a uniform number for each unit in
/// row-major order, the K = trunc(M (1 - ratio)) smallest stay. `patch` (Xie et al., "SimMIM", 2022): as many as are not ceil(M ratio).
/// `block` (Bao et al., "BEiT", 2022) and `block_ibot` (Zhou et al., "iBOT", 2022): rectangles, see mask.c.
void hirl_mask_make(hirl_mask_maker_t *maker, uint64_t seed, int64_t epoch, int64_t index, int view,
                    uint8_t *mask);
/// The masks of samples index[0..n), u8 [n, frames, rows, columns].
void hirl_mask_make_batch(hirl_mask_maker_t *maker, uint64_t seed, int64_t epoch,
                          const int64_t *index, int64_t n, int view, uint8_t *mask);

/// Numbers of the patches whose mask is `value` (0 or 1), in row-major order; `list` has room for all of them. Returns how many there are.
int64_t hirl_mask_list(const uint8_t *mask, int64_t n_patches, int value, int32_t *list);

#ifdef __cplusplus
}
#endif
#endif
