/// @file data_preview.h
/// Data sets for the eye: a picture of what a deck's views look like, and a page about what was packed. One rank writes each; files are whole or absent.
#ifndef HIRL_DATA_PREVIEW_H
#define HIRL_DATA_PREVIEW_H

#include "hirl/data.h"
#include "hirl/data_mask.h"
#include "hirl/data_mix.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &preview: what is shown.
typedef struct hirl_preview_cfg {
    int64_t n_samples;             // rows of views.png
    char pick[HIRL_DECK_TEXT_MAX]; // 'order' | 'index'
    int64_t first, epoch;
    int64_t thumb;        // pixels
    int64_t class_thumbs; // images of each class in dataset.html
} hirl_preview_cfg_t;
extern const hirl_group_t hirl_preview_group;

/// What the contact sheet is made of; all HIRL_BORROW for the call.
typedef struct hirl_contact_sheet {
    const hirl_shard_set_t *set;
    const char *title;
    const hirl_data_cfg_t *data;
    const hirl_preview_cfg_t *preview;
    const hirl_view_spec_t *views;
    int n_views;
    const hirl_mask_spec_t *mask; // NULL: none
    const hirl_mix_cfg_t *mix;    // NULL: none
    hirl_clip_spec_t clip;        // of a set of videos: stills show the first frame
    uint64_t seed;
} hirl_contact_sheet_t;

/// A row for each sample: as stored, then each view as training's loader makes it in that epoch, de-normalised and, if there is a mask, with
/// what it hides in grey; then, if samples are mixed and shown in order, the first view mixed with that of its neighbour. Not collective. Errors: HIRL_ERR_DECK (no such sample, a sheet that is too large), HIRL_ERR_INTERRUPTED, those of the loader.
hirl_status_t hirl_contact_sheet_write(const hirl_contact_sheet_t *sheet, const char *path);

/// One split of a data set.
typedef struct hirl_dataset_split {
    const char *name, *pattern;
    const hirl_shard_set_t *set;
} hirl_dataset_split_t;

enum { HIRL_DATASET_SPLITS_MAX = 2 };

/// A page that needs nothing but itself: label tree with counts and thumbnails, sizes, encodings, shards, and what looks wrong. Sets that were
/// opened with &data's `verify` are also searched for copies. Not collective. Errors: HIRL_ERR_IO, HIRL_ERR_INTERRUPTED.
hirl_status_t hirl_dataset_page_write(const hirl_dataset_split_t *splits, int n_splits,
                                      const hirl_preview_cfg_t *preview, const char *path);

#ifdef __cplusplus
}
#endif
#endif
