/// @file h5_impl.h
/// What the files of src/h5 share: bytes that are taken one after another with their end in view, the
/// open file, and the blocks of metadata that were loaded from it.
#ifndef HIRL_H5_IMPL_H
#define HIRL_H5_IMPL_H

#include "hirl/h5.h"

#define HIRL_H5_NOWHERE UINT64_MAX // an address of nothing

enum { HIRL_H5_FILTERS_MAX = 32, HIRL_H5_LEVELS_MAX = 16 }; // levels of trees

// -------------------------------------------------------------------------------------- spans

/// Bytes that are left of a structure. What is taken beyond its end is 0 and remembered.
typedef struct hirl_h5_span {
    uint8_t *at;
    size_t left;
    uint64_t pos; // of `at` in the file
    bool is_short;
} hirl_h5_span_t;

/// The next `n` bytes; NULL if there are not so many.
static inline uint8_t *hirl_h5_take(hirl_h5_span_t *span, uint64_t n) {
    if (n > span->left) {
        span->is_short = true;
        span->left = 0;
        return NULL;
    }
    uint8_t *at = span->at;
    span->at += n;
    span->pos += n;
    span->left -= (size_t)n;
    return at;
}

/// A little-endian integer of `n` <= 8 bytes.
static inline uint64_t hirl_h5_little(const uint8_t *at, int n) {
    uint64_t value = 0;
    for (int i = n; i-- > 0;) value = value << 8 | at[i];
    return value;
}

static inline uint64_t hirl_h5_take_u(hirl_h5_span_t *span, int n) {
    const uint8_t *at = hirl_h5_take(span, (uint64_t)n);
    return at ? hirl_h5_little(at, n) : 0;
}

/// The next `n` bytes as a span of their own.
static inline hirl_h5_span_t hirl_h5_take_span(hirl_h5_span_t *span, uint64_t n) {
    hirl_h5_span_t part = {.pos = span->pos};
    part.at = hirl_h5_take(span, n);
    if (part.at)
        part.left = (size_t)n;
    else
        part.is_short = true;
    return part;
}

// -------------------------------------------------------------------------------------- the open file

/// A block of metadata; no two of a file overlap.
typedef struct hirl_h5_block {
    uint64_t pos, size;
    uint8_t *bytes;
} hirl_h5_block_t;

/// How the chunks of an array lie and are packed.
typedef struct hirl_h5_packing {
    uint64_t tree; // address of their B-tree, or HIRL_H5_NOWHERE
    bool is_known; // the index is such a B-tree
    uint32_t side[HIRL_H5_AXES_MAX];
    int n_filters;
    uint16_t filter[HIRL_H5_FILTERS_MAX];
} hirl_h5_packing_t;

struct hirl_h5 {
    char *path;
    int fd;
    int64_t size;    // bytes of the file
    uint64_t end;    // bytes of it that HDF5 uses
    uint64_t loaded; // bytes of all blocks
    hirl_h5_block_t *blocks;
    hirl_h5_object_t *objects;
    hirl_h5_link_t *links;
    hirl_h5_attribute_t *attributes;
    hirl_h5_packing_t *packings;
    int n_blocks, n_objects, n_links, n_attributes, n_packings;
    int block_room, object_room, link_room, attribute_room, packing_room;
    int *table; // objects by address: numbers + 1, open addressing
    int table_size;
};

/// An object that is being read.
typedef struct hirl_h5_loading {
    int index;
    hirl_h5_object_t object;
    hirl_h5_packing_t packing;
    bool has_space, has_type, has_layout, has_filters, is_group;
} hirl_h5_loading_t;

/// Records "<path>: byte <pos>: ..." as HIRL_ERR_FORMAT.
hirl_status_t hirl_h5_fail(const char *file_name, int line, const char *func, const hirl_h5_t *file,
                           uint64_t pos, const char *fmt, ...) HIRL_PRINTF_LIKE(6, 7);
#define HIRL_H5_FAIL(file, pos, ...) \
    hirl_h5_fail(__FILE__, __LINE__, __func__, (file), (pos), __VA_ARGS__)
#define HIRL_H5_REQUIRE(cond, file, pos, ...)                         \
    do {                                                              \
        if (!(cond)) return HIRL_H5_FAIL((file), (pos), __VA_ARGS__); \
    } while (0)

/// Fails if more was taken of a structure than it has.
hirl_status_t hirl_h5_check_span(const hirl_h5_t *file, const hirl_h5_span_t *span,
                                 const char *what);

/// Room for one more item in an array of the file.
hirl_status_t hirl_h5_grow(const hirl_h5_t *file, void *array_p, int n, int *room, size_t item);

/// Reads bytes [pos, pos + size) of the file, which has them.
hirl_status_t hirl_h5_fetch(const hirl_h5_t *file, uint64_t pos, uint64_t size, const char *what,
                            void *out);
/// Loads a block of metadata that is kept until close. That all blocks together are no more than the
/// file ends every circle of addresses.
hirl_status_t hirl_h5_load(hirl_h5_t *file, uint64_t pos, uint64_t size, const char *what,
                           hirl_h5_span_t *span_p);
/// Loads a block that begins with a signature of four letters and `version`, and takes these.
hirl_status_t hirl_h5_load_signed(hirl_h5_t *file, uint64_t pos, uint64_t size,
                                  const char signature[5], int version, const char *what,
                                  hirl_h5_span_t *span_p);
/// Compares the checksum of bytes [from, from + n) with that stored behind them.
hirl_status_t hirl_h5_check_sum(const hirl_h5_t *file, const uint8_t *from, uint64_t n,
                                uint64_t pos, const char *what);
/// Bob Jenkins's lookup3 (hashlittle), which metadata carries.
uint32_t hirl_h5_lookup3(const uint8_t *bytes, size_t n);

/// Adds a member of the group that is being read. `address` is HIRL_H5_NOWHERE for links by name.
hirl_status_t hirl_h5_add_link(hirl_h5_t *file, hirl_h5_loading_t *loading, const char *name,
                               size_t n_name, uint64_t address, uint64_t pos);

// -------------------------------------------------------------------------------------- parts

/// header.c: reads all messages of the object header at loading->object.address.
hirl_status_t hirl_h5_load_header(hirl_h5_t *file, hirl_h5_loading_t *loading);

/// message.c: takes one message of a header, and, for the two below, from a heap.
hirl_status_t hirl_h5_take_message(hirl_h5_t *file, hirl_h5_loading_t *loading, unsigned type,
                                   unsigned flags, hirl_h5_span_t span);
hirl_status_t hirl_h5_take_link(hirl_h5_t *file, hirl_h5_loading_t *loading, hirl_h5_span_t span);
hirl_status_t hirl_h5_take_attribute(hirl_h5_t *file, hirl_h5_loading_t *loading,
                                     hirl_h5_span_t span);

/// group.c: the members of a group in the old form.
hirl_status_t hirl_h5_load_group(hirl_h5_t *file, hirl_h5_loading_t *loading, uint64_t tree,
                                 uint64_t heap);

/// dense.c: links or attributes that a B-tree (version 2) lists in a fractal heap.
hirl_status_t hirl_h5_load_dense(hirl_h5_t *file, hirl_h5_loading_t *loading, uint64_t heap,
                                 uint64_t tree, bool is_links);

/// The whole number n for 2^n; -1 for other values.
static inline int hirl_h5_power_of_two(uint64_t value) {
    return value != 0 && (value & (value - 1)) == 0 ? __builtin_ctzll(value) : -1;
}

#endif
