/// @file fuzz_h5.h
/// HDF5 files from bytes, for the targets that read them: a description of objects and attributes
/// that is written by HDF5 itself, so that values reach the reader's checks instead of being stopped
/// by the library's; and images of files.
///
/// A description is a sequence of records of 8 bytes: operation, object, index, selector, and a
/// 32-bit number. Each changes one thing of a good file, which the target gives as a table.
#ifndef HIRL_FUZZ_H5_H
#define HIRL_FUZZ_H5_H

#include "fuzz.h"
#include "mend_h5.h"

#include <hdf5.h>

enum {
    FUZZ_OBJECTS_MAX = 16,
    FUZZ_ATTRIBUTES_MAX = 16,
    FUZZ_ITEMS_MAX = 64,
    FUZZ_AXES_MAX = 8,
    FUZZ_TEXT_MAX = 4096,
    FUZZ_PATCHES_MAX = 16,
    FUZZ_FILE_MAX = 64 << 20
};

typedef enum fuzz_kind {
    FUZZ_SET,
    FUZZ_ABSENT,
    FUZZ_GROUP,
    FUZZ_SOFT_LINK,     // to another object of the file
    FUZZ_SOFT_NOWHERE,  // to nothing
    FUZZ_EXTERNAL_LINK, // to an object of another file
    FUZZ_HARD_CYCLE,    // the root group, below itself
    FUZZ_NAMED_TYPE,
    FUZZ_KIND_COUNT
} fuzz_kind_t;

typedef enum fuzz_layout {
    FUZZ_CONTIGUOUS,
    FUZZ_COMPACT,
    FUZZ_CHUNKED,
    FUZZ_EXTERNAL, // bytes lie in another file
    FUZZ_VIRTUAL,  // a view of another file's data set
    FUZZ_LAYOUT_COUNT
} fuzz_layout_t;

/// Types as a record selects them; the first ones are those of good files.
typedef enum fuzz_type {
    FUZZ_U8,
    FUZZ_I32,
    FUZZ_I64,
    FUZZ_U64,
    FUZZ_F32,
    FUZZ_F64,
    FUZZ_TEXT, // fixed length, `width`
    FUZZ_I16BE,
    FUZZ_I128,     // an integer of 16 bytes
    FUZZ_ODD_INT,  // precision and offset of their own
    FUZZ_ODD_REAL, // fields of their own
    FUZZ_VARIABLE_TEXT,
    FUZZ_SEQUENCE, // of variable length
    FUZZ_ENUM,
    FUZZ_COMPOUND,
    FUZZ_OPAQUE,
    FUZZ_ARRAY,
    FUZZ_REFERENCE,
    FUZZ_TYPE_COUNT
} fuzz_type_t;

typedef struct fuzz_object {
    const char *name; // "/offset"
    fuzz_type_t type;
    int n_axes;
    int64_t shape[FUZZ_AXES_MAX];
    int64_t item[FUZZ_ITEMS_MAX]; // values, for integers and reals
    const void *bytes;            // or these, `n_bytes`, for u8 and texts
    size_t n_bytes;
    int width; // of a text
    fuzz_kind_t kind;
    fuzz_layout_t layout;
    int64_t chunk;
    unsigned filters;  // bits: deflate, shuffle, fletcher32, scaleoffset, nbit
    bool is_unwritten; // storage is never allocated
    bool has_checksum; // an attribute `xxh64` of the bytes, a right one unless:
    bool is_checksum_wrong;
    int n_odd; // for odd types: offset, precision
} fuzz_object_t;

typedef struct fuzz_attribute {
    const char *name;
    const char *text; // NULL: a number
    int64_t value;
    fuzz_type_t type;
    int width; // of a text; 0: as long as it is
    int n;     // values
    bool is_absent;
} fuzz_attribute_t;

typedef struct fuzz_file {
    fuzz_object_t object[FUZZ_OBJECTS_MAX];
    int n_objects;
    fuzz_attribute_t attribute[FUZZ_ATTRIBUTES_MAX];
    int n_attributes;
    int n_depth;                      // groups within groups
    int64_t user_block;               // bytes ahead of HDF5's own
    bool is_old;                      // the format of HDF5 1.6, without checksums
    int64_t cut;                      // bytes taken off the end
    int n_extra;                      // attributes of further names
    uint32_t patch[FUZZ_PATCHES_MAX]; // position << 8 | byte, put over the finished file
    int n_patches;
    uint8_t room[FUZZ_TEXT_MAX]; // room for a target's own bytes
} fuzz_file_t;

// ------------------------------------------------------------------------------------ records

static const int64_t FUZZ_SPECIAL[] = {0,
                                       1,
                                       -1,
                                       2,
                                       3,
                                       7,
                                       8,
                                       255,
                                       256,
                                       65535,
                                       65536,
                                       65500,
                                       65501,
                                       INT32_MAX,
                                       INT32_MIN,
                                       UINT32_MAX,
                                       INT64_MAX,
                                       INT64_MIN,
                                       1LL << 62,
                                       1LL << 61,
                                       1LL << 60,
                                       1LL << 40,
                                       1LL << 32,
                                       (1LL << 32) + 1,
                                       1 << 24,
                                       1 << 30,
                                       10000000,
                                       9999999,
                                       4096,
                                       4097,
                                       -(1LL << 62),
                                       1000000};

/// The value of a record: a special one, one given, or one near what was there.
FUZZ_INLINE int64_t fuzz_value(const uint8_t record[8], int64_t before) {
    int32_t raw;
    memcpy(&raw, record + 4, sizeof raw);
    const unsigned selector = record[3];
    if (selector < 64) return FUZZ_SPECIAL[selector % 32];
    if (selector < 128) return raw;
    return (int64_t)((uint64_t)before + (uint64_t)(int64_t)(int8_t)record[4]);
}

/// Applies one record.
FUZZ_INLINE void fuzz_apply(fuzz_file_t *file, const uint8_t record[8]) {
    fuzz_object_t *object = &file->object[record[1] % file->n_objects];
    fuzz_attribute_t *attribute = &file->attribute[record[1] % file->n_attributes];
    const int index = record[2];
    switch (record[0] % 24) {
        case 0:
            object->item[index % FUZZ_ITEMS_MAX] =
                fuzz_value(record, object->item[index % FUZZ_ITEMS_MAX]);
            break;
        case 1:
            object->shape[index % FUZZ_AXES_MAX] =
                fuzz_value(record, object->shape[index % FUZZ_AXES_MAX]);
            break;
        case 2: object->n_axes = index % (FUZZ_AXES_MAX + 1); break;
        case 3: object->type = (fuzz_type_t)(index % FUZZ_TYPE_COUNT); break;
        case 4: object->width = (int)(fuzz_value(record, object->width) & 0xffff); break;
        case 5: object->kind = (fuzz_kind_t)(index % FUZZ_KIND_COUNT); break;
        case 6: object->layout = (fuzz_layout_t)(index % FUZZ_LAYOUT_COUNT); break;
        case 7: object->chunk = fuzz_value(record, object->chunk); break;
        case 8: object->filters = (unsigned)index; break;
        case 9: object->is_unwritten = index % 2; break;
        case 10:
            object->has_checksum = index % 4 != 0;
            object->is_checksum_wrong = index % 4 == 1;
            break;
        case 11: object->n_odd = record[4]; break;
        case 12: attribute->value = fuzz_value(record, attribute->value); break;
        case 13: attribute->type = (fuzz_type_t)(index % FUZZ_TYPE_COUNT); break;
        case 14: attribute->width = (int)(fuzz_value(record, attribute->width) & 0xffff); break;
        case 15: attribute->n = index % 4; break;
        case 16: attribute->is_absent = index % 2; break;
        case 17: {
            static const char *const texts[] = {"",           "raw",   "jpeg", "png",
                                                "mixed",      "train", "none", "x\x1b[2J",
                                                "hirl-shard", "a/../b"};
            attribute->text = texts[index % (int)(sizeof texts / sizeof *texts)];
            break;
        }
        case 18: file->n_depth = record[4] + index % 2 * 64; break; // slow to write
        case 19: file->user_block = index % 2 ? 512 : 0; break;
        case 20: file->is_old = index % 2; break;
        case 21: file->cut = record[4]; break;
        case 22: file->n_extra = index % 40; break;
        default:
            if (file->n_patches < FUZZ_PATCHES_MAX)
                file->patch[file->n_patches++] =
                    (uint32_t)record[2] << 24 >> 8 | (uint32_t)record[3] << 8 | record[4];
            break;
    }
}

// ------------------------------------------------------------------------------------ writing

/// The file that links lead to. A buffer of its own: many links to it must not overwrite other paths.
FUZZ_INLINE const char *fuzz_other(void) {
    static char path[512];
    if (!path[0]) snprintf(path, sizeof path, "%s/other.h5", fuzz_folder);
    return path;
}

FUZZ_INLINE hid_t fuzz_make_type(fuzz_type_t type, int width, int n_odd) {
    hid_t made = H5I_INVALID_HID;
    const hsize_t two = 2;
    switch (type) {
        case FUZZ_I32: return H5Tcopy(H5T_STD_I32LE);
        case FUZZ_I64: return H5Tcopy(H5T_STD_I64LE);
        case FUZZ_U64: return H5Tcopy(H5T_STD_U64LE);
        case FUZZ_F32: return H5Tcopy(H5T_IEEE_F32LE);
        case FUZZ_F64: return H5Tcopy(H5T_IEEE_F64LE);
        case FUZZ_I16BE: return H5Tcopy(H5T_STD_I16BE);
        case FUZZ_TEXT:
            made = H5Tcopy(H5T_C_S1);
            H5Tset_size(made, width > 0 ? (size_t)width : 1);
            H5Tset_strpad(made, H5T_STR_NULLPAD); // may fill its row without a NUL
            return made;
        case FUZZ_I128:
            made = H5Tcopy(H5T_STD_I64LE);
            H5Tset_size(made, 16);
            H5Tset_precision(made, 128);
            return made;
        case FUZZ_ODD_INT:
            made = H5Tcopy(H5T_STD_I32LE);
            H5Tset_precision(made, (size_t)(1 + n_odd % 16));
            H5Tset_offset(made, (size_t)(n_odd / 16));
            return made;
        case FUZZ_ODD_REAL:
            made = H5Tcopy(H5T_IEEE_F32LE);
            H5Tset_fields(made, 31, 20, 11, 0, 20);
            H5Tset_precision(made, 32);
            H5Tset_ebias(made, (size_t)n_odd);
            return made;
        case FUZZ_VARIABLE_TEXT:
            made = H5Tcopy(H5T_C_S1);
            H5Tset_size(made, H5T_VARIABLE);
            return made;
        case FUZZ_SEQUENCE: return H5Tvlen_create(H5T_STD_I32LE);
        case FUZZ_ENUM: {
            const int zero = 0, one = 1;
            made = H5Tenum_create(H5T_NATIVE_INT);
            H5Tenum_insert(made, "FALSE", &zero);
            H5Tenum_insert(made, "TRUE", &one);
            return made;
        }
        case FUZZ_COMPOUND:
            made = H5Tcreate(H5T_COMPOUND, 8);
            H5Tinsert(made, "a", 0, H5T_STD_I32LE);
            H5Tinsert(made, "b", 4, H5T_IEEE_F32LE);
            return made;
        case FUZZ_OPAQUE: return H5Tcreate(H5T_OPAQUE, width > 0 ? (size_t)width : 1);
        case FUZZ_ARRAY: return H5Tarray_create2(H5T_STD_I32LE, 1, &two);
        case FUZZ_REFERENCE: return H5Tcopy(H5T_STD_REF_OBJ);
        default: return H5Tcopy(H5T_STD_U8LE);
    }
}

FUZZ_INLINE void fuzz_write_attribute(hid_t object, const fuzz_attribute_t *attribute) {
    if (attribute->is_absent) return;
    const char *text = attribute->text ? attribute->text : "";
    const int width = attribute->width ? attribute->width : (int)strlen(text) + 1;
    hid_t type = fuzz_make_type(attribute->type, width, 0);
    const hsize_t n = (hsize_t)attribute->n;
    hid_t space = attribute->n == 1   ? H5Screate(H5S_SCALAR)
                  : attribute->n == 0 ? H5Screate(H5S_NULL)
                                      : H5Screate_simple(1, &n, NULL);
    hid_t made = H5Acreate2(object, attribute->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (made >= 0 && attribute->type == FUZZ_VARIABLE_TEXT) {
        const char *const each[4] = {text, text, text, text};
        H5Awrite(made, type, each);
    } else if (made >= 0 && attribute->type != FUZZ_SEQUENCE) {
        const size_t size = H5Tget_size(type) * 4;
        char *bytes = calloc(size + 8, 1);
        FUZZ_CHECK(bytes, "no memory");
        if (attribute->type == FUZZ_TEXT) {
            memcpy(bytes, text, strlen(text) < (size_t)width ? strlen(text) : (size_t)width);
        } else {
            memcpy(bytes, &attribute->value, 8); // little-endian, as most of the types
        }
        H5Awrite(made, type, bytes);
        free(bytes);
    }
    if (made >= 0) H5Aclose(made);
    H5Sclose(space);
    H5Tclose(type);
}

FUZZ_INLINE hid_t fuzz_make_properties(const fuzz_object_t *object, hid_t space) {
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    hsize_t chunk[FUZZ_AXES_MAX], one = 1;
    switch (object->layout) {
        case FUZZ_COMPACT: H5Pset_layout(plist, H5D_COMPACT); break;
        case FUZZ_CHUNKED:
            for (int i = 0; i < FUZZ_AXES_MAX; i++) {
                // Chunks beyond the shape need room to grow.
                chunk[i] = object->chunk > 0 ? (hsize_t)object->chunk : 1;
            }
            H5Pset_chunk(plist, object->n_axes, chunk);
            break;
        case FUZZ_EXTERNAL: H5Pset_external(plist, "/etc/passwd", 0, H5F_UNLIMITED); break;
        case FUZZ_VIRTUAL: {
            hid_t source = H5Screate_simple(1, &one, NULL);
            H5Pset_virtual(plist, space, fuzz_other(), "/offset", space);
            H5Sclose(source);
            break;
        }
        default: break;
    }
    if (object->layout == FUZZ_CHUNKED) {
        if (object->filters & 1) H5Pset_deflate(plist, 6);
        if (object->filters & 2) H5Pset_shuffle(plist);
        if (object->filters & 4) H5Pset_fletcher32(plist);
        if (object->filters & 8) H5Pset_scaleoffset(plist, H5Z_SO_INT, 0);
        if (object->filters & 16) H5Pset_nbit(plist);
    }
    if (object->is_unwritten) H5Pset_alloc_time(plist, H5D_ALLOC_TIME_LATE);
    return plist;
}

FUZZ_INLINE void fuzz_fill(const fuzz_object_t *object, char *bytes, int64_t n, size_t item) {
    if (object->bytes && (object->type == FUZZ_U8 || object->type == FUZZ_TEXT)) {
        const size_t size = (size_t)n * item;
        memcpy(bytes, object->bytes, size < object->n_bytes ? size : object->n_bytes);
        return;
    }
    for (int64_t i = 0; i < n && i < FUZZ_ITEMS_MAX; i++) {
        const float f32 = (float)object->item[i];
        const double f64 = (double)object->item[i];
        const void *value = object->type == FUZZ_F32   ? (const void *)&f32
                            : object->type == FUZZ_F64 ? (const void *)&f64
                                                       : (const void *)&object->item[i];
        memcpy(bytes + (size_t)i * item, value, item < 8 ? item : 8);
    }
}

FUZZ_INLINE void fuzz_write_set(hid_t file, hid_t links, const fuzz_object_t *object) {
    hsize_t shape[FUZZ_AXES_MAX], most[FUZZ_AXES_MAX];
    int64_t n = 1;
    for (int i = 0; i < object->n_axes; i++) {
        shape[i] = object->shape[i] > 0 ? (hsize_t)object->shape[i] : 0;
        most[i] = H5S_UNLIMITED;
        if (__builtin_mul_overflow(n, (int64_t)shape[i], &n) || n > 1 << 20) n = 1 << 20;
    }
    hid_t space =
        object->n_axes == 0
            ? H5Screate(H5S_SCALAR)
            : H5Screate_simple(object->n_axes, shape, object->layout == FUZZ_CHUNKED ? most : NULL);
    hid_t type = fuzz_make_type(object->type, object->width, object->n_odd);
    hid_t plist = fuzz_make_properties(object, space);
    const size_t item = H5Tget_size(type);
    // What has no room in the file is only claimed.
    const bool is_small = (int64_t)item * n <= 1 << 16 && n < 1 << 20;
    if (!is_small) H5Pset_alloc_time(plist, H5D_ALLOC_TIME_LATE);
    hid_t set = H5Dcreate2(file, object->name, type, space, links, plist, H5P_DEFAULT);
    const bool is_plain = object->type != FUZZ_VARIABLE_TEXT && object->type != FUZZ_SEQUENCE &&
                          object->layout <= FUZZ_CHUNKED && is_small && !object->is_unwritten;
    // HDF5's own packing by these two is not what is tested: their sets stay empty.
    const bool is_packed = object->layout == FUZZ_CHUNKED && (object->filters & 24);
    uint64_t checksum = hirl_hash64("", 0);
    const bool is_chunk_small = object->layout != FUZZ_CHUNKED || object->chunk <= 64;
    if (set >= 0 && is_plain && !is_packed && is_chunk_small && n > 0) {
        char *bytes = calloc((size_t)n * item + 8, 1);
        FUZZ_CHECK(bytes, "no memory");
        fuzz_fill(object, bytes, n, item);
        H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes);
        checksum = hirl_hash64(bytes, (size_t)n * item);
        free(bytes);
    }
    if (set >= 0 && object->has_checksum) {
        if (object->is_checksum_wrong) checksum++;
        const fuzz_attribute_t attribute = {"xxh64", NULL, (int64_t)checksum, FUZZ_U64, 0,
                                            1,       false};
        fuzz_write_attribute(set, &attribute);
    }
    if (set >= 0) H5Dclose(set);
    H5Pclose(plist);
    H5Tclose(type);
    H5Sclose(space);
}

FUZZ_INLINE void fuzz_write_object(hid_t file, hid_t links, const fuzz_object_t *object) {
    hid_t made = H5I_INVALID_HID;
    switch (object->kind) {
        case FUZZ_SET: fuzz_write_set(file, links, object); break;
        case FUZZ_GROUP:
            made = H5Gcreate2(file, object->name, links, H5P_DEFAULT, H5P_DEFAULT);
            if (made >= 0) H5Gclose(made);
            break;
        case FUZZ_SOFT_LINK:
            H5Lcreate_soft("/offset", file, object->name, links, H5P_DEFAULT);
            break;
        case FUZZ_SOFT_NOWHERE:
            H5Lcreate_soft("/./x", file, object->name, links, H5P_DEFAULT);
            break;
        case FUZZ_EXTERNAL_LINK:
            H5Lcreate_external(fuzz_other(), object->name, file, object->name, links, H5P_DEFAULT);
            break;
        case FUZZ_HARD_CYCLE:
            H5Lcreate_hard(file, "/", file, object->name, links, H5P_DEFAULT);
            break;
        case FUZZ_NAMED_TYPE:
            made = H5Tcopy(H5T_STD_I32LE);
            H5Tcommit2(file, object->name, made, links, H5P_DEFAULT, H5P_DEFAULT);
            H5Tclose(made);
            break;
        default: break;
    }
}

FUZZ_INLINE void fuzz_write_depth(hid_t file, int n) {
    hid_t at = file;
    for (int i = 0; i < n; i++) {
        hid_t next = H5Gcreate2(at, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (at != file) H5Gclose(at);
        if (next < 0) return;
        at = next;
    }
    if (at != file) H5Gclose(at);
}

/// Writes a description's file to `path`. False if HDF5 could not make it.
FUZZ_INLINE bool fuzz_write_file(const char *path, const fuzz_file_t *file) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    if (!file->is_old) H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    if (file->user_block) H5Pset_userblock(create, (hsize_t)file->user_block);
    hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    hid_t h5 = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
    H5Pclose(access);
    H5Pclose(create);
    if (h5 >= 0) {
        for (int i = 0; i < file->n_attributes; i++) fuzz_write_attribute(h5, &file->attribute[i]);
        for (int i = 0; i < file->n_extra; i++) {
            char name[16];
            snprintf(name, sizeof name, "x%d", i);
            const fuzz_attribute_t extra = {
                name, "\x1b]0;x", i, (fuzz_type_t)(i % FUZZ_TYPE_COUNT), 0, 1, false};
            fuzz_write_attribute(h5, &extra);
        }
        for (int i = 0; i < file->n_objects; i++) fuzz_write_object(h5, links, &file->object[i]);
        fuzz_write_depth(h5, file->n_depth);
    }
    H5Pclose(links);
    if (h5 < 0 || H5Fclose(h5) < 0) return false;
    size_t size = 0;
    uint8_t *data = fuzz_load(path, &size);
    for (int i = 0; i < file->n_patches; i++) {
        const size_t at = file->patch[i] >> 8;
        if (at < size) data[at] = (uint8_t)file->patch[i];
    }
    if (file->n_patches > 0) mend_h5(data, size);
    const size_t cut = (size_t)file->cut < size ? (size_t)file->cut : size;
    if (file->n_patches > 0 || cut > 0) fuzz_save(path, data, size - cut);
    free(data);
    return true;
}

/// True if the input is the image of a file, which `path` now holds. Its checksums are made right, or
/// changes would not get far.
FUZZ_INLINE bool fuzz_write_image(const char *path, const uint8_t *data, size_t size) {
    if (size < 9 || memcmp(data, "\x89HDF\r\n\x1a\n", 8) != 0) return false;
    uint8_t *copy = malloc(size);
    FUZZ_CHECK(copy, "no memory");
    memcpy(copy, data, size);
    mend_h5(copy, size);
    fuzz_save(path, copy, size);
    free(copy);
    return true;
}

#endif
