/// @file ckpt.h
/// Checkpoints: one HDF5 file of named arrays and attributes, whole or absent, with a
/// checksum per array and a completeness marker written last. Independent of the number of ranks.
/// Knows nothing of models: callers give names and host arrays. To write, be the one thread of
/// the process that uses HDF5, whose library is not safe for threads; reading does not use it.
#ifndef HIRL_CKPT_H
#define HIRL_CKPT_H

#include "hirl/deck.h"
#include "hirl/par.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &checkpoint
typedef struct hirl_ckpt_cfg {
    char restart[HIRL_DECK_TEXT_MAX];   // 'auto' | 'none' | path of a checkpoint
    char init_from[HIRL_DECK_TEXT_MAX]; // checkpoint whose /model starts the parameters; '' none
    double every_epochs;                // 0: only at the end
    int64_t every_steps;                // 0: off
    int64_t keep;                       // newest complete ones kept
} hirl_ckpt_cfg_t;
extern const hirl_group_t hirl_ckpt_group;

/// Element types that a checkpoint can hold.
typedef enum hirl_ckpt_type {
    HIRL_CKPT_F32,
    HIRL_CKPT_F64,
    HIRL_CKPT_I32,
    HIRL_CKPT_I64,
    HIRL_CKPT_U8
} hirl_ckpt_type_t;

/// One array. Names are absolute paths "/model/encoder_q.conv1.weight".
typedef struct hirl_ckpt_array {
    const char *name;
    hirl_ckpt_type_t type;
    int n_axes;
    int64_t shape[6];
    const void *data; // row-major; NULL in listings
} hirl_ckpt_array_t;

/// The attributes of the file's root.
typedef struct hirl_ckpt_meta {
    int64_t step;  // optimiser steps done
    int64_t epoch; // epoch being trained (0-based)
    int64_t batch; // batches of that epoch done
    int64_t samples_seen;
    int64_t seed;
    const char *method;    // "mocov2"
    const char *hierarchy; // "hirl", "none"
    const char *deck;      // resolved deck text
} hirl_ckpt_meta_t;

/// Writes `<folder>/checkpoint-<step, 8 digits>.h5` through a temporary name, fsync, rename and
/// fsync of the folder, then removes complete ones beyond the `keep` newest. Called by rank 0 only;
/// not collective. Errors: HIRL_ERR_IO, HIRL_ERR_HDF5 (nothing is left behind).
hirl_status_t hirl_ckpt_write(const char *folder, const hirl_ckpt_meta_t *meta,
                              const hirl_ckpt_array_t *arrays, int n_arrays, int64_t keep);

/// What a writer that was killed has left to do: removes unfinished files and complete ones beyond the `keep` newest, if the
/// one of `step`, which is known to be whole, is the newest. What cannot be removed stays, with a warning.
void hirl_ckpt_tidy(const char *folder, int64_t step, int64_t keep);

/// A copy of a run's state, to be written while the run goes on.
typedef struct hirl_ckpt_snapshot hirl_ckpt_snapshot_t;
/// Copies `meta` and its texts. Not collective, like everything of snapshots and the writer.
hirl_status_t hirl_ckpt_snapshot_create(const hirl_ckpt_meta_t *meta,
                                        hirl_ckpt_snapshot_t **snapshot_p);
void hirl_ckpt_snapshot_destroy(hirl_ckpt_snapshot_t **snapshot);
/// Adds an array; the caller fills *data_p (owned by the snapshot). Errors: HIRL_ERR_MEMORY.
hirl_status_t hirl_ckpt_snapshot_add(hirl_ckpt_snapshot_t *snapshot, const char *name,
                                     hirl_ckpt_type_t type, int n_axes, const int64_t *shape,
                                     void **data_p);

/// Writes snapshots in a thread of its own, one at a time. While it is busy no other thread of the process may use HDF5.
typedef struct hirl_ckpt_writer hirl_ckpt_writer_t;
/// Errors: HIRL_ERR_MEMORY, HIRL_ERR_IO (no thread can be started).
hirl_status_t hirl_ckpt_writer_create(hirl_ckpt_writer_t **writer_p);
/// Waits for what is being written.
void hirl_ckpt_writer_destroy(hirl_ckpt_writer_t **writer);
/// Waits until the writer is idle, then hands the snapshot over; as hirl_ckpt_write. What became of the one before is told by
/// hirl_ckpt_writer_wait only if it is called first.
void hirl_ckpt_writer_submit(hirl_ckpt_writer_t *writer, const char *folder,
                             HIRL_OWN hirl_ckpt_snapshot_t *snapshot, int64_t keep);
/// Waits until the writer is idle. Returns, once, the outcome of the last write; HIRL_OK if there was none since.
hirl_status_t hirl_ckpt_writer_wait(hirl_ckpt_writer_t *writer);
/// Seconds spent writing so far.
double hirl_ckpt_writer_seconds(hirl_ckpt_writer_t *writer);

/// An open checkpoint. Not collective.
typedef struct hirl_ckpt hirl_ckpt_t;

/// Opens a file and checks format, version, marker and (`verify`) every checksum. Errors:
/// HIRL_ERR_IO, HIRL_ERR_FORMAT with file, array and expectation.
hirl_status_t hirl_ckpt_open(const char *path, bool verify, hirl_ckpt_t **ckpt_p);
/// Opens the newest complete checkpoint of a folder, falling back (with a warning) to older ones
/// when one fails its checks; *ckpt_p = NULL if there is none. Errors: HIRL_ERR_FORMAT if there are
/// some but none is whole: to start anew would overwrite what may still be saved.
hirl_status_t hirl_ckpt_open_newest(const char *folder, hirl_ckpt_t **ckpt_p);
void hirl_ckpt_close(hirl_ckpt_t **ckpt);

/// Valid until close.
const hirl_ckpt_meta_t *hirl_ckpt_meta_view(const hirl_ckpt_t *ckpt);
const char *hirl_ckpt_path_view(const hirl_ckpt_t *ckpt);

/// Listing of all arrays (data NULL), sorted by name; valid until close.
const hirl_ckpt_array_t *hirl_ckpt_arrays_view(const hirl_ckpt_t *ckpt, int *n_p);
/// The array of that name in the listing, NULL if there is none.
const hirl_ckpt_array_t *hirl_ckpt_find_view(const hirl_ckpt_t *ckpt, const char *name);

/// Reads an array whose type and shape must match. Errors: HIRL_ERR_MISMATCH (name, shape found,
/// shape wanted).
hirl_status_t hirl_ckpt_read(const hirl_ckpt_t *ckpt, const char *name, hirl_ckpt_type_t type,
                             int n_axes, const int64_t *shape, void *out);

/// Compares wanted arrays with those below `prefix` in the file and fails with one message that
/// lists missing, extra and mis-shaped names (each list, first 20 and a count). `allow_extra`
/// ignores extra ones.
hirl_status_t hirl_ckpt_check(const hirl_ckpt_t *ckpt, const char *prefix,
                              const hirl_ckpt_array_t *wanted, int n_wanted, bool allow_extra);

/// Names, types, shapes, sizes, step, deck of a checkpoint to `text`.
hirl_status_t hirl_ckpt_describe(const char *path, hirl_text_t *text);
/// True if the file is an HDF5 file whose `format` attribute is 'hirl-checkpoint'.
bool hirl_ckpt_is_checkpoint(const char *path);

// General HDF5 array files for the probe and feature files (same type set, no marker or checksum
// demanded):

/// Writes arrays (names may have groups) to `path`, whole or absent.
hirl_status_t hirl_arrays_write(const char *path, const hirl_ckpt_array_t *arrays, int n_arrays);
/// Opens any HDF5 file of arrays for hirl_ckpt_find_view / hirl_ckpt_read / hirl_ckpt_close;
/// numeric types are converted (f64 to f32, integers to any width or to floating point; an integer
/// that the wanted type cannot hold is an error, never clipped). Texts and records are passed over.
/// Errors: HIRL_ERR_FORMAT for an array that lies in other files or claims more than the file can
/// hold.
hirl_status_t hirl_arrays_open(const char *path, hirl_ckpt_t **file_p);

#ifdef __cplusplus
}
#endif
#endif
