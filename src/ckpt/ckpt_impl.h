// What the files of src/ckpt share: the open file, array types, and the wrapper around HDF5 calls.
// Invariant: nothing that a file says (sizes, counts, names) is believed before it was checked.
#ifndef HIRL_CKPT_IMPL_H
#define HIRL_CKPT_IMPL_H

#include <hdf5.h>

#include "hirl/ckpt.h"
#include "hirl/h5.h"

#define HIRL_CKPT_FORMAT "hirl-checkpoint"

enum {
    HIRL_CKPT_VERSION = 1,
    HIRL_CKPT_AXES_MAX = 6,
    HIRL_CKPT_NAME_MAX = 512,       // with the NUL
    HIRL_CKPT_TEXT_MAX = 16 << 20,  // a text attribute; a full deck is near 100 KiB
    HIRL_CKPT_CHUNK_BYTES = 4 << 20 // read at a time to verify a checksum
};

/// What is known of an array beside its listing.
typedef struct hirl_ckpt_extent {
    int64_t offset; // of its bytes in the file; -1: not in one piece, or empty
    int64_t n_items;
    uint64_t checksum; // XXH64 of its bytes; checkpoints only
    int object;        // in the file
} hirl_ckpt_extent_t;

struct hirl_ckpt {
    hirl_h5_t *file;
    char *path;
    bool is_checkpoint; // else a general file: no marker, no checksums, types are converted
    int64_t file_bytes;
    hirl_ckpt_meta_t meta;
    char *method, *hierarchy, *deck, *build; // owned; meta borrows the first three
    int n_arrays, n_room;
    hirl_ckpt_array_t *arrays; // sorted by name; names are owned
    hirl_ckpt_extent_t *extents;
};

/// Ends automatic printing by HDF5; called on each way in.
void hirl_ckpt_h5_quiet(void);

/// Records "<text>: HDF5: <the library's own cause>" as HIRL_ERR_HDF5.
hirl_status_t hirl_ckpt_fail_h5(const char *file, int line, const char *func, const char *fmt, ...)
    HIRL_PRINTF_LIKE(4, 5);

#define HIRL_FAIL_H5(...) hirl_ckpt_fail_h5(__FILE__, __LINE__, __func__, __VA_ARGS__)

#define HIRL_TRY_H5(call, ...)                            \
    do {                                                  \
        if ((call) < 0) return HIRL_FAIL_H5(__VA_ARGS__); \
    } while (0)

#define HIRL_TRY_H5_GOTO(call, status, label, ...) \
    do {                                           \
        if ((call) < 0) {                          \
            (status) = HIRL_FAIL_H5(__VA_ARGS__);  \
            goto label;                            \
        }                                          \
    } while (0)

/// Bytes of an item; 0 for a type that does not exist.
size_t hirl_ckpt_item_size(hirl_ckpt_type_t type);
/// "f32" and the like.
const char *hirl_ckpt_type_name(hirl_ckpt_type_t type);
/// The type in files (little-endian) and in memory.
hid_t hirl_ckpt_file_type(hirl_ckpt_type_t type);
hid_t hirl_ckpt_memory_type(hirl_ckpt_type_t type);

/// Items of a shape. Errors: HIRL_ERR_ARG if an axis is negative or the bytes exceed memory's
/// range.
hirl_status_t hirl_ckpt_count_items(const char *name, hirl_ckpt_type_t type, int n_axes,
                                    const int64_t *shape, int64_t *n_items_p);

/// An absolute path of printable parts, none of them empty, "." or "..".
bool hirl_ckpt_is_name(const char *name);

/// "[64, 3, 7, 7]"; returns buf.
char *hirl_ckpt_shape_text(char buf[160], int n_axes, const int64_t *shape);

/// The value of the completeness marker: XXH64 of all attributes and of each array's name, type,
/// shape and checksum, so that the marker vouches for what the checksums of arrays do not cover.
/// Arrays sorted by name.
hirl_status_t hirl_ckpt_digest(const hirl_ckpt_meta_t *meta, const char *build,
                               const hirl_ckpt_array_t *arrays, const uint64_t *checksums,
                               int n_arrays, uint64_t *digest_p);

/// File access for writing: no locks (files are whole or absent, and not all network file systems have
/// locks), and headers with checksums of their own (HDF5 1.8 and later).
hirl_status_t hirl_ckpt_h5_access(hid_t *access_p);

#endif
