/// @file h5.h
/// Reads HDF5 files that nobody vouches for; HDF5's own library, which believes what a file says of itself, only writes.
/// Every address, size and count is compared with what there is before it is used, blocks of metadata may not overlap,
/// checksums are verified, and what is claimed costs no more memory than the file has bytes for.
///
/// What is read (HDF5 File Format Specification 3.0) is what h5py writes by default and with libver='latest', but for a user
/// block, an extended superblock, shared messages, chunk indices of HDF5 1.10, filters but gzip, shuffle and fletcher32,
/// and items but integers, IEEE reals and texts of fixed length. These are refused by name, or listed and not read;
/// links by name are never followed. Bytes of arrays may overlap: they are only read.
/// Not collective. An open file belongs to one thread at a time.
#ifndef HIRL_H5_H
#define HIRL_H5_H

#include "hirl/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HIRL_H5_AXES_MAX = 32,
    HIRL_H5_NAME_MAX = 1024 // of one link or attribute, with the NUL
};

/// What the items of an array or attribute are.
typedef enum hirl_h5_form {
    HIRL_H5_INTEGER,       // of 1, 2, 4 or 8 bytes, all bits of which count
    HIRL_H5_REAL,          // IEEE half (or bfloat16), single, double
    HIRL_H5_TEXT,          // of fixed length
    HIRL_H5_TEXT_VARIABLE, // of variable length; not read
    HIRL_H5_OTHER          // not read
} hirl_h5_form_t;

typedef struct hirl_h5_type {
    hirl_h5_form_t form;
    uint32_t size; // bytes of an item; 0: not known
    bool is_signed, is_big_endian;
    bool is_enum;   // its integers have names
    int n_exponent; // bits, of reals
} hirl_h5_type_t;

typedef enum hirl_h5_kind {
    HIRL_H5_GROUP,
    HIRL_H5_ARRAY,
    HIRL_H5_TYPE // or anything else
} hirl_h5_kind_t;

typedef enum hirl_h5_layout {
    HIRL_H5_CONTIGUOUS,
    HIRL_H5_COMPACT, // in the object's header
    HIRL_H5_CHUNKED,
    HIRL_H5_VIRTUAL // in other arrays
} hirl_h5_layout_t;

/// An attribute; belongs to the open file.
typedef struct hirl_h5_attribute {
    const char *name;
    hirl_h5_type_t type;
    int64_t n_items;   // 1 for a scalar, 0 for none
    const void *bytes; // n_items * type.size of them, as stored; NULL if there are none
} hirl_h5_attribute_t;

/// An object. Each is listed once, whatever number of links lead to it. Object 0 is the root group.
typedef struct hirl_h5_object {
    hirl_h5_kind_t kind;
    int first_link, n_links; // of a group
    int first_attribute, n_attributes;
    // Of arrays:
    hirl_h5_type_t type;
    int n_axes;
    int64_t shape[HIRL_H5_AXES_MAX];
    int64_t n_items; // INT64_MAX: more than can be
    hirl_h5_layout_t layout;
    int64_t offset;       // of the bytes of a contiguous array, which are in the file; -1: none
    int64_t n_stored;     // bytes of a contiguous or compact array
    uint64_t chunk_bytes; // of a chunked array; UINT64_MAX: more than can be
    int n_chunk_axes;
    int n_filters, odd_filter; // odd_filter: the first that is not read; 0: none
    int n_external;            // files that the bytes lie in
    // Where it is, for messages and for reading it.
    uint64_t address;
    int link; // the first that leads here; -1: the root
    const uint8_t *compact;
    int packing;
} hirl_h5_object_t;

/// A member of a group.
typedef struct hirl_h5_link {
    const char *name; // n_name bytes, none of them NUL or '/'; not terminated
    int n_name;
    int group, object; // object -1: a link by name, to this file or another; never followed
} hirl_h5_link_t;

/// What numbers are read as.
typedef enum hirl_h5_number {
    HIRL_H5_F32,
    HIRL_H5_F64,
    HIRL_H5_I32,
    HIRL_H5_I64,
    HIRL_H5_U64,
    HIRL_H5_U8
} hirl_h5_number_t;

typedef struct hirl_h5 hirl_h5_t;

/// Opens a file and reads all of its metadata. Errors: HIRL_ERR_IO (it cannot be read, is no regular
/// file), HIRL_ERR_FORMAT (what was found at which byte, and what was expected).
hirl_status_t hirl_h5_open(const char *path, hirl_h5_t **file_p);
/// Whatever was viewed ends with it.
void hirl_h5_close(hirl_h5_t **file);

int64_t hirl_h5_file_size(const hirl_h5_t *file);
/// The descriptor, for reading at an array's offset; valid until close.
int hirl_h5_descriptor(const hirl_h5_t *file);

int hirl_h5_n_objects(const hirl_h5_t *file);
const hirl_h5_object_t *hirl_h5_object_view(const hirl_h5_t *file, int object);
const hirl_h5_link_t *hirl_h5_link_view(const hirl_h5_t *file, int link);
/// All attributes of an object, object->n_attributes of them.
const hirl_h5_attribute_t *hirl_h5_attributes_view(const hirl_h5_t *file,
                                                   const hirl_h5_object_t *object);
/// NULL: there is none of that name.
const hirl_h5_attribute_t *hirl_h5_find_attribute_view(const hirl_h5_t *file,
                                                       const hirl_h5_object_t *object,
                                                       const char *name);
/// The root group's member of that name (without '/'); NULL: there is none.
const hirl_h5_link_t *hirl_h5_find_link_view(const hirl_h5_t *file, const char *name);
/// "/group/name" of an object. Errors: HIRL_ERR_FORMAT if it does not fit.
hirl_status_t hirl_h5_path(const hirl_h5_t *file, int object, char *buf, size_t size);

/// Items of an attribute or array as numbers. Integers become reals by rounding; what an integer
/// type cannot hold, and reals as integers, are errors. `name` stands for it in messages. Errors:
/// HIRL_ERR_MISMATCH.
hirl_status_t hirl_h5_convert(const hirl_h5_t *file, const char *name, const hirl_h5_type_t *type,
                              const void *stored, int64_t n, hirl_h5_number_t number, void *out);

/// Reads an array's n_items * type.size bytes as they are stored, chunks put together. The caller has
/// decided that so much memory may be taken. Errors: HIRL_ERR_FORMAT (a part is missing, damaged or
/// packed in a way that is not read), HIRL_ERR_IO, HIRL_ERR_MEMORY.
hirl_status_t hirl_h5_read(const hirl_h5_t *file, const char *name, const hirl_h5_object_t *array,
                           void *out);
/// Both: reads an array as numbers.
hirl_status_t hirl_h5_read_numbers(const hirl_h5_t *file, const char *name,
                                   const hirl_h5_object_t *array, hirl_h5_number_t number,
                                   void *out);

#ifdef __cplusplus
}
#endif
#endif
