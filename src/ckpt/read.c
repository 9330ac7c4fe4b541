// Opening: the listing of a file's arrays, the checks of a checkpoint, and reading an array. Arrays
// of a checkpoint lie in one piece each, so that they are read and verified with pread at the
// offset that HDF5 gives, after that offset was checked against the file's size.
#include "ckpt_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "folder_impl.h"

// Packed arrays of a general file may unfold to this many times the file's size: DEFLATE reaches
// 1032.
static const double UNFOLD_MAX = 2048;

// Objects that are looked at, at most: an array takes more bytes of a file than these, and no
// program has so many.
enum { OBJECT_BYTES_MIN = 16, OBJECTS_MAX = 1 << 20 };

// ------------------------------------------------------------------------------------ types

// Numbers of other widths, or with bits that do not count, go through conversions of HDF5 that
// trust the file.
static bool is_plain(hid_t type) {
    const size_t size = H5Tget_size(type);
    return (size == 1 || size == 2 || size == 4 || size == 8) &&
           H5Tget_precision(type) == 8 * size && H5Tget_offset(type) == 0;
}

static bool is_plain_integer(hid_t type) {
    return H5Tget_class(type) == H5T_INTEGER && is_plain(type);
}

// Single and double precision, and the two forms of half precision.
static bool is_plain_real(hid_t type) {
    size_t sign = 0, exponent = 0, n_exponent = 0, mantissa = 0, n_mantissa = 0;
    if (H5Tget_class(type) != H5T_FLOAT || !is_plain(type)) return false;
    if (H5Tget_fields(type, &sign, &exponent, &n_exponent, &mantissa, &n_mantissa) < 0)
        return false;
    const size_t bits = 8 * H5Tget_size(type);
    const bool is_known = (bits == 16 && (n_exponent == 5 || n_exponent == 8)) ||
                          (bits == 32 && n_exponent == 8) || (bits == 64 && n_exponent == 11);
    return is_known && sign == bits - 1 && mantissa == 0 && exponent == n_mantissa &&
           n_exponent + n_mantissa == bits - 1;
}

// ------------------------------------------------------------------------------------ attributes

static hirl_status_t open_attribute(hid_t object, const char *path, const char *of,
                                    const char *name, hid_t *attribute_p) {
    HIRL_REQUIRE(H5Aexists(object, name) > 0, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' of %s is missing", path, name, of);
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    HIRL_TRY_H5(attribute, "%s: cannot open attribute '%s' of %s", path, name, of);
    hid_t space = H5Aget_space(attribute);
    const hssize_t n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    if (space >= 0) H5Sclose(space);
    if (n != 1) {
        H5Aclose(attribute);
        return HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' of %s has %lld values, expected 1",
                         path, name, of, (long long)n);
    }
    *attribute_p = attribute;
    return HIRL_OK;
}

// `memory_type` is that of a 64-bit integer.
static hirl_status_t read_integer(hid_t object, const char *path, const char *of, const char *name,
                                  hid_t memory_type, void *value_p) {
    hid_t attribute = H5I_INVALID_HID;
    hirl_status_t status = HIRL_OK;
    uint64_t value = 0;
    HIRL_TRY(open_attribute(object, path, of, name, &attribute));
    hid_t type = H5Aget_type(attribute);
    if (type < 0 || !is_plain_integer(type)) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' of %s is no integer", path, name, of);
        goto done;
    }
    HIRL_TRY_H5_GOTO(H5Aread(attribute, memory_type, &value), status, done,
                     "%s: cannot read attribute '%s' of %s", path, name, of);
    memcpy(value_p, &value, sizeof value);
done:
    if (type >= 0) H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

static hirl_status_t read_text(hid_t object, const char *path, const char *name, char **text_p) {
    hid_t attribute = H5I_INVALID_HID;
    hirl_status_t status = HIRL_OK;
    char *text = NULL;
    HIRL_TRY(open_attribute(object, path, "the file", name, &attribute));
    hid_t type = H5Aget_type(attribute);
    // A text of variable length would be allocated by HDF5 before its size could be refused.
    if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' is no text of fixed length", path, name);
        goto done;
    }
    const size_t size = H5Tget_size(type);
    if (size > HIRL_CKPT_TEXT_MAX) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' has %zu bytes, expected at most %d",
                           path, name, size, HIRL_CKPT_TEXT_MAX);
        goto done;
    }
    HIRL_TRY_GOTO(hirl_mem_calloc(HIRL_MEM_GENERAL, size + 1, 1, (void **)&text), status, done);
    if (H5Aread(attribute, type, text) < 0) {
        status = HIRL_FAIL_H5("%s: cannot read attribute '%s'", path, name);
        hirl_mem_free(text);
        goto done;
    }
    *text_p = text;
done:
    if (type >= 0) H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

// ------------------------------------------------------------------------------------ listing

typedef struct listing {
    hirl_ckpt_t *ckpt;
    int64_t n_objects;
    unsigned long fileno; // HDF5's number of this file
    hirl_status_t status;
} listing_t;

// Type of the file's numbers; false if they are none that an array can hold.
static bool find_type(hid_t type, hirl_ckpt_type_t *type_p) {
    const size_t size = H5Tget_size(type);
    if (is_plain_real(type)) {
        *type_p = size == 8 ? HIRL_CKPT_F64 : HIRL_CKPT_F32;
        return true;
    }
    if (H5Tget_class(type) == H5T_ENUM) { // NumPy's truth values are one
        hid_t base = H5Tget_super(type);
        const bool is_number = base >= 0 && is_plain_integer(base) && find_type(base, type_p);
        if (is_number && size == 1) *type_p = HIRL_CKPT_U8;
        if (base >= 0) H5Tclose(base);
        return is_number;
    }
    if (!is_plain_integer(type)) return false;
    const bool is_unsigned = H5Tget_sign(type) == H5T_SGN_NONE;
    if (size == 1 && is_unsigned) {
        *type_p = HIRL_CKPT_U8;
    } else {
        *type_p = size < 4 || (size == 4 && !is_unsigned) ? HIRL_CKPT_I32 : HIRL_CKPT_I64;
    }
    return true;
}

// In a checkpoint the type is one of ours exactly.
static bool is_exact_type(hid_t type, hirl_ckpt_type_t *type_p) {
    for (int i = HIRL_CKPT_F32; i <= HIRL_CKPT_U8; i++) {
        if (H5Tequal(type, hirl_ckpt_file_type((hirl_ckpt_type_t)i)) > 0) {
            *type_p = (hirl_ckpt_type_t)i;
            return true;
        }
    }
    return false;
}

static hirl_status_t read_shape(hid_t set, const char *path, const char *name,
                                hirl_ckpt_array_t *array) {
    hsize_t shape[H5S_MAX_RANK];
    hid_t space = H5Dget_space(set);
    HIRL_TRY_H5(space, "%s: array %s: cannot read its shape", path, name);
    hirl_status_t status = HIRL_OK;
    const H5S_class_t kind = H5Sget_simple_extent_type(space);
    const int n_axes = kind == H5S_SCALAR ? 0 : H5Sget_simple_extent_ndims(space);
    if ((kind != H5S_SIMPLE && kind != H5S_SCALAR) || n_axes < 0 || n_axes > HIRL_CKPT_AXES_MAX) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: array %s has %d axes, expected 0 to %d", path,
                           name, n_axes, HIRL_CKPT_AXES_MAX);
    } else if (n_axes > 0 && H5Sget_simple_extent_dims(space, shape, NULL) != n_axes) {
        status = HIRL_FAIL_H5("%s: array %s: cannot read its shape", path, name);
    }
    H5Sclose(space);
    HIRL_TRY(status);
    array->n_axes = n_axes;
    for (int i = 0; i < n_axes; i++) {
        HIRL_REQUIRE(shape[i] <= INT64_MAX, HIRL_ERR_FORMAT,
                     "%s: array %s: axis %d has length %llu", path, name, i,
                     (unsigned long long)shape[i]);
        array->shape[i] = (int64_t)shape[i];
    }
    return HIRL_OK;
}

// How an array is stored. Asked before its shape: HDF5 would open the files that a virtual array
// names.
static hirl_status_t find_layout(const hirl_ckpt_t *ckpt, hid_t set, const char *name,
                                 hid_t *plist_p, H5D_layout_t *layout_p) {
    hid_t plist = H5Dget_create_plist(set);
    HIRL_TRY_H5(plist, "%s: array %s: cannot read how it is stored", ckpt->path, name);
    const H5D_layout_t layout = H5Pget_layout(plist);
    const bool is_here =
        (layout == H5D_CONTIGUOUS || layout == H5D_COMPACT || layout == H5D_CHUNKED) &&
        H5Pget_external_count(plist) == 0;
    if (!is_here) {
        H5Pclose(plist);
        return HIRL_FAIL(HIRL_ERR_FORMAT,
                         "%s: array %s lies in other files; expected all data in this one",
                         ckpt->path, name);
    }
    *plist_p = plist;
    *layout_p = layout;
    return HIRL_OK;
}

// Chunks are unfolded one at a time, each in memory of its size, by filters that are sound.
static hirl_status_t check_chunks(const hirl_ckpt_t *ckpt, hid_t plist, const char *name,
                                  int n_axes, size_t stored_item) {
    hsize_t chunk[H5S_MAX_RANK];
    const int n_chunk_axes = H5Pget_chunk(plist, H5S_MAX_RANK, chunk);
    HIRL_REQUIRE(n_chunk_axes == n_axes, HIRL_ERR_FORMAT,
                 "%s: array %s has %d axes and chunks of %d", ckpt->path, name, n_axes,
                 n_chunk_axes);
    char size_text[32];
    double bytes = (double)stored_item;
    for (int i = 0; i < n_axes; i++) bytes *= (double)chunk[i];
    HIRL_REQUIRE(bytes <= UNFOLD_MAX * (double)ckpt->file_bytes, HIRL_ERR_FORMAT,
                 "%s: array %s has chunks of %s, more than a file of %lld bytes can hold",
                 ckpt->path, name, hirl_text_bytes(size_text, bytes), (long long)ckpt->file_bytes);
    const int n_filters = H5Pget_nfilters(plist);
    for (int i = 0; i < n_filters; i++) {
        unsigned flags = 0, values[8];
        size_t n_values = sizeof values / sizeof *values;
        const H5Z_filter_t filter =
            H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, values, 0, NULL, NULL);
        HIRL_REQUIRE(filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE ||
                         filter == H5Z_FILTER_FLETCHER32,
                     HIRL_ERR_FORMAT,
                     "%s: array %s is packed by filter %d, expected gzip, shuffle or fletcher32",
                     ckpt->path, name, (int)filter);
    }
    return HIRL_OK;
}

// Where the array's bytes are; refuses an array that the file cannot hold.
static hirl_status_t find_extent(const hirl_ckpt_t *ckpt, hid_t set, const hirl_ckpt_array_t *array,
                                 const char *name, hid_t plist, H5D_layout_t layout,
                                 size_t stored_item, hirl_ckpt_extent_t *extent) {
    const char *path = ckpt->path;
    if (hirl_ckpt_count_items(name, array->type, array->n_axes, array->shape, &extent->n_items) !=
        HIRL_OK) {
        return HIRL_FAIL(HIRL_ERR_FORMAT, "%s: %s", path, hirl_error_text_view());
    }
    extent->offset = -1;
    if (extent->n_items == 0) return HIRL_OK;

    char size_text[32];
    const double bytes = (double)extent->n_items * (double)stored_item;
    HIRL_REQUIRE(layout == H5D_CONTIGUOUS || !ckpt->is_checkpoint, HIRL_ERR_FORMAT,
                 "%s: array %s is not stored in one piece", path, name);
    if (layout == H5D_CHUNKED) {
        HIRL_REQUIRE(bytes <= UNFOLD_MAX * (double)ckpt->file_bytes, HIRL_ERR_FORMAT,
                     "%s: array %s claims %s, more than a file of %lld bytes can hold", path, name,
                     hirl_text_bytes(size_text, bytes), (long long)ckpt->file_bytes);
        return check_chunks(ckpt, plist, name, array->n_axes, stored_item);
    }
    const bool is_contiguous = layout == H5D_CONTIGUOUS;
    const haddr_t offset = is_contiguous ? H5Dget_offset(set) : 0;
    HIRL_REQUIRE(offset != HADDR_UNDEF && bytes <= (double)ckpt->file_bytes &&
                     H5Dget_storage_size(set) == (hsize_t)extent->n_items * stored_item &&
                     offset <= (haddr_t)(ckpt->file_bytes - extent->n_items * (int64_t)stored_item),
                 HIRL_ERR_FORMAT,
                 "%s: array %s claims %s, which are not in this file of %lld bytes", path, name,
                 hirl_text_bytes(size_text, bytes), (long long)ckpt->file_bytes);
    if (is_contiguous) extent->offset = (int64_t)offset;
    return HIRL_OK;
}

static hirl_status_t grow_listing(hirl_ckpt_t *ckpt) {
    if (ckpt->n_arrays < ckpt->n_room) return HIRL_OK;
    HIRL_REQUIRE(ckpt->n_room <= INT_MAX / 2, HIRL_ERR_FORMAT, "%s: too many arrays", ckpt->path);
    const int n_room = ckpt->n_room ? 2 * ckpt->n_room : 64;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)n_room * sizeof *ckpt->arrays,
                              (void **)&ckpt->arrays));
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)n_room * sizeof *ckpt->extents,
                              (void **)&ckpt->extents));
    ckpt->n_room = n_room;
    return HIRL_OK;
}

static hirl_status_t list_array(hirl_ckpt_t *ckpt, hid_t set, haddr_t address, const char *name) {
    hirl_ckpt_array_t array = {0};
    hirl_ckpt_extent_t extent = {.address = address};
    hid_t plist = H5I_INVALID_HID;
    H5D_layout_t layout = H5D_LAYOUT_ERROR;
    hid_t type = H5Dget_type(set);
    HIRL_TRY_H5(type, "%s: array %s: cannot read its type", ckpt->path, name);
    const bool is_known =
        ckpt->is_checkpoint ? is_exact_type(type, &array.type) : find_type(type, &array.type);
    const size_t stored_item = H5Tget_size(type);
    H5Tclose(type);
    if (!is_known && !ckpt->is_checkpoint) return HIRL_OK; // texts and records beside the numbers
    HIRL_REQUIRE(is_known, HIRL_ERR_FORMAT,
                 "%s: array %s: its type is none of f32, f64, i32, i64, u8 (little-endian)",
                 ckpt->path, name);
    HIRL_TRY(find_layout(ckpt, set, name, &plist, &layout));
    hirl_status_t status = read_shape(set, ckpt->path, name, &array);
    if (status == HIRL_OK)
        status = find_extent(ckpt, set, &array, name, plist, layout, stored_item, &extent);
    H5Pclose(plist);
    HIRL_TRY(status);
    if (ckpt->is_checkpoint) {
        HIRL_TRY(read_integer(set, ckpt->path, name, "xxh64", H5T_NATIVE_UINT64, &extent.checksum));
    }
    HIRL_TRY(grow_listing(ckpt));
    const size_t n_name = strlen(name) + 1;
    char *copy = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, n_name, (void **)&copy));
    array.name = memcpy(copy, name, n_name);
    ckpt->arrays[ckpt->n_arrays] = array;
    ckpt->extents[ckpt->n_arrays++] = extent;
    return HIRL_OK;
}

static hirl_status_t list_object(hirl_ckpt_t *ckpt, hid_t root, haddr_t address,
                                 const char *relative) {
    char name[HIRL_CKPT_NAME_MAX];
    if (hirl_text_format(name, sizeof name, "/%s", relative) != HIRL_OK ||
        !hirl_ckpt_is_name(name)) {
        return HIRL_FAIL(
            HIRL_ERR_FORMAT,
            "%s: an array's name is longer than %d bytes or has unprintable characters", ckpt->path,
            HIRL_CKPT_NAME_MAX - 1);
    }
    // By its place: a name that holds '/' would lead elsewhere, to another file even.
    hid_t set = H5Oopen_by_addr(root, address);
    HIRL_TRY_H5(set, "%s: cannot open array %s", ckpt->path, name);
    hirl_status_t status = list_array(ckpt, set, address, name);
    H5Oclose(set);
    return status;
}

// Called for each object that hard links reach; links to other files are not followed. HDF5 calls
// itself for a group within a group, and sees a circle only where the file's own counts of links
// tell: the length of names and the number of objects end what these would not.
static herr_t visit(hid_t root, const char *relative, const H5O_info_t *info, void *data) {
    listing_t *listing = data;
    const hirl_ckpt_t *ckpt = listing->ckpt;
    if (strlen(relative) >= HIRL_CKPT_NAME_MAX - 1) {
        listing->status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "%s: the name of an array or group is longer than %d bytes",
                      ckpt->path, HIRL_CKPT_NAME_MAX - 1);
        return 1;
    }
    if (++listing->n_objects > OBJECTS_MAX ||
        listing->n_objects > ckpt->file_bytes / OBJECT_BYTES_MIN) {
        listing->status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "%s: it lists more objects than %lld bytes can hold",
                      ckpt->path, (long long)ckpt->file_bytes);
        return 1;
    }
    // HDF5 goes by names here too, and one that holds '/' may lead away.
    if (info->fileno != listing->fileno) {
        listing->status = HIRL_FAIL(HIRL_ERR_FORMAT,
                                    "%s: the name of an object leads to another file", ckpt->path);
        return 1;
    }
    if (info->type != H5O_TYPE_DATASET) return 0;
    listing->status = list_object(listing->ckpt, root, info->addr, relative);
    return listing->status == HIRL_OK ? 0 : 1; // 1 ends the walk
}

static int by_array_name(const void *a, const void *b) {
    return strcmp(((const hirl_ckpt_array_t *)a)->name, ((const hirl_ckpt_array_t *)b)->name);
}

typedef struct both {
    hirl_ckpt_array_t array;
    hirl_ckpt_extent_t extent;
} both_t;

static hirl_status_t sort_listing(hirl_ckpt_t *ckpt) {
    both_t *both = NULL; // its first member is the array, by which it is sorted
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, ckpt->n_arrays, &both));
    for (int i = 0; i < ckpt->n_arrays; i++) {
        both[i] = (both_t){ckpt->arrays[i], ckpt->extents[i]};
    }
    qsort(both, (size_t)ckpt->n_arrays, sizeof *both, by_array_name);
    for (int i = 0; i < ckpt->n_arrays; i++) {
        ckpt->arrays[i] = both[i].array;
        ckpt->extents[i] = both[i].extent;
    }
    hirl_mem_free(both);
    return HIRL_OK;
}

static hirl_status_t list_arrays(hirl_ckpt_t *ckpt) {
    H5O_info_t own;
    HIRL_TRY_H5(H5Oget_info2(ckpt->file, &own, H5O_INFO_BASIC), "%s: cannot look at it",
                ckpt->path);
    listing_t listing = {ckpt, 0, own.fileno, HIRL_OK};
    const herr_t code =
        H5Ovisit2(ckpt->file, H5_INDEX_NAME, H5_ITER_NATIVE, visit, &listing, H5O_INFO_BASIC);
    HIRL_TRY(listing.status);
    HIRL_TRY_H5(code, "%s: cannot list its arrays", ckpt->path);
    return ckpt->n_arrays > 0 ? sort_listing(ckpt) : HIRL_OK;
}

// ------------------------------------------------------------------------------------ open

// The descriptor behind the open file, valid while it is open.
static hirl_status_t descriptor_view(const hirl_ckpt_t *ckpt, int *fd_p) {
    void *handle = NULL;
    HIRL_TRY_H5(H5Fget_vfd_handle(ckpt->file, H5P_DEFAULT, &handle), "%s: it has no descriptor",
                ckpt->path);
    *fd_p = *(const int *)handle;
    return HIRL_OK;
}

static hirl_status_t open_file(const char *path, bool is_checkpoint, hirl_ckpt_t **ckpt_p) {
    struct stat found;
    hirl_status_t status;
    hirl_ckpt_t *ckpt = NULL;
    hid_t properties = H5I_INVALID_HID;
    HIRL_REQUIRE(path && path[0], HIRL_ERR_ARG, "the file to open has no name");
    HIRL_REQUIRE(stat(path, &found) == 0, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    HIRL_REQUIRE(S_ISREG(found.st_mode), HIRL_ERR_IO, "%s: not a file", path);
    HIRL_REQUIRE(access(path, R_OK) == 0, HIRL_ERR_IO, "%s: cannot read it: %s", path,
                 strerror(errno));
    hirl_ckpt_h5_quiet();
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &ckpt));
    ckpt->file = H5I_INVALID_HID;
    ckpt->is_checkpoint = is_checkpoint;
    ckpt->file_bytes = (int64_t)found.st_size;
    HIRL_TRY_GOTO(hirl_mem_alloc(HIRL_MEM_GENERAL, strlen(path) + 1, (void **)&ckpt->path), status,
                  err_close);
    strcpy(ckpt->path, path);
    HIRL_TRY_GOTO(hirl_ckpt_h5_access(false, &properties), status, err_close);
    ckpt->file = H5Fopen(path, H5F_ACC_RDONLY, properties);
    // Told at once: the next call of HDF5 forgets the cause.
    if (ckpt->file < 0) {
        (void)HIRL_FAIL_H5("%s: not an HDF5 file, or a damaged one", path);
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s", hirl_error_text_view());
    }
    H5Pclose(properties);
    if (ckpt->file < 0) goto err_close;
    *ckpt_p = ckpt;
    return HIRL_OK;

err_close:
    hirl_ckpt_close(&ckpt);
    return status;
}

static hirl_status_t read_meta(hirl_ckpt_t *ckpt) {
    const char *path = ckpt->path;
    hid_t file = ckpt->file;
    char *format = NULL;
    int64_t version = 0;
    HIRL_REQUIRE(H5Aexists(file, "format") > 0, HIRL_ERR_FORMAT,
                 "%s: an HDF5 file, but not a checkpoint of this program (it has no attribute "
                 "'format')",
                 path);
    HIRL_TRY(read_text(file, path, "format", &format));
    const bool is_ours = strcmp(format, HIRL_CKPT_FORMAT) == 0;
    hirl_status_t status = HIRL_OK;
    if (!is_ours) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: its format is '%.64s', expected '%s'", path,
                           format, HIRL_CKPT_FORMAT);
    }
    hirl_mem_free(format);
    HIRL_TRY(status);
    HIRL_TRY(read_integer(file, path, "the file", "version", H5T_NATIVE_INT64, &version));
    HIRL_REQUIRE(
        version == HIRL_CKPT_VERSION, HIRL_ERR_FORMAT,
        "%s: format version %lld, expected %d: use the program that wrote it, or a newer one", path,
        (long long)version, HIRL_CKPT_VERSION);
    HIRL_REQUIRE(H5Aexists(file, "complete") > 0, HIRL_ERR_FORMAT,
                 "%s: it is not complete (its writer was stopped); expected attribute 'complete'",
                 path);
    struct {
        const char *name;
        int64_t *value_p;
    } integers[] = {{"step", &ckpt->meta.step},
                    {"epoch", &ckpt->meta.epoch},
                    {"batch", &ckpt->meta.batch},
                    {"samples_seen", &ckpt->meta.samples_seen},
                    {"seed", &ckpt->meta.seed}};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        HIRL_TRY(read_integer(file, path, "the file", integers[i].name, H5T_NATIVE_INT64,
                              integers[i].value_p));
    }
    HIRL_TRY(read_text(file, path, "method", &ckpt->method));
    HIRL_TRY(read_text(file, path, "hierarchy", &ckpt->hierarchy));
    HIRL_TRY(read_text(file, path, "deck", &ckpt->deck));
    HIRL_TRY(read_text(file, path, "build", &ckpt->build));
    ckpt->meta.method = ckpt->method;
    ckpt->meta.hierarchy = ckpt->hierarchy;
    ckpt->meta.deck = ckpt->deck;
    return HIRL_OK;
}

static hirl_status_t check_marker(const hirl_ckpt_t *ckpt) {
    uint64_t marker = 0, digest = 0, *checksums = NULL;
    HIRL_TRY(
        read_integer(ckpt->file, ckpt->path, "the file", "complete", H5T_NATIVE_UINT64, &marker));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, ckpt->n_arrays, &checksums));
    for (int i = 0; i < ckpt->n_arrays; i++) checksums[i] = ckpt->extents[i].checksum;
    hirl_status_t status = hirl_ckpt_digest(&ckpt->meta, ckpt->build, ckpt->arrays, checksums,
                                            ckpt->n_arrays, &digest);
    hirl_mem_free(checksums);
    HIRL_TRY(status);
    HIRL_REQUIRE(marker == digest, HIRL_ERR_FORMAT,
                 "%s: its attributes or its list of arrays were changed after it was written "
                 "(marker %016llx, expected %016llx)",
                 ckpt->path, (unsigned long long)marker, (unsigned long long)digest);
    return HIRL_OK;
}

static hirl_status_t read_bytes(const hirl_ckpt_t *ckpt, int fd, const char *name, int64_t offset,
                                void *out, size_t size) {
    char *at = out;
    while (size > 0) {
        const ssize_t n = pread(fd, at, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        HIRL_REQUIRE(n >= 0, HIRL_ERR_IO, "%s: array %s: cannot read it: %s", ckpt->path, name,
                     strerror(errno));
        HIRL_REQUIRE(n > 0, HIRL_ERR_FORMAT, "%s: array %s: the file ends %zu bytes before it",
                     ckpt->path, name, size);
        at += n;
        offset += n;
        size -= (size_t)n;
    }
    return HIRL_OK;
}

static hirl_status_t check_sum(const hirl_ckpt_t *ckpt, int i, uint64_t found) {
    HIRL_REQUIRE(found == ckpt->extents[i].checksum, HIRL_ERR_FORMAT,
                 "%s: array %s is damaged: checksum %016llx, expected %016llx", ckpt->path,
                 ckpt->arrays[i].name, (unsigned long long)found,
                 (unsigned long long)ckpt->extents[i].checksum);
    return HIRL_OK;
}

static hirl_status_t verify_arrays(const hirl_ckpt_t *ckpt) {
    int fd = -1;
    void *chunk = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(descriptor_view(ckpt, &fd));
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, HIRL_CKPT_CHUNK_BYTES, &chunk));
    for (int i = 0; i < ckpt->n_arrays; i++) {
        XXH64_state_t state;
        XXH64_reset(&state, 0);
        int64_t left =
            ckpt->extents[i].n_items * (int64_t)hirl_ckpt_item_size(ckpt->arrays[i].type);
        int64_t offset = ckpt->extents[i].offset;
        while (left > 0) {
            const size_t n = left < HIRL_CKPT_CHUNK_BYTES ? (size_t)left : HIRL_CKPT_CHUNK_BYTES;
            HIRL_TRY_GOTO(read_bytes(ckpt, fd, ckpt->arrays[i].name, offset, chunk, n), status,
                          done);
            XXH64_update(&state, chunk, n);
            offset += (int64_t)n;
            left -= (int64_t)n;
        }
        HIRL_TRY_GOTO(check_sum(ckpt, i, XXH64_digest(&state)), status, done);
    }
done:
    hirl_mem_free(chunk);
    return status;
}

hirl_status_t hirl_ckpt_open(const char *path, bool verify, hirl_ckpt_t **ckpt_p) {
    hirl_ckpt_t *ckpt = NULL;
    hirl_status_t status;
    HIRL_TRY(open_file(path, true, &ckpt));
    HIRL_TRY_GOTO(read_meta(ckpt), status, err_close);
    HIRL_TRY_GOTO(list_arrays(ckpt), status, err_close);
    HIRL_TRY_GOTO(check_marker(ckpt), status, err_close);
    if (verify) HIRL_TRY_GOTO(verify_arrays(ckpt), status, err_close);
    *ckpt_p = ckpt;
    return HIRL_OK;

err_close:
    hirl_ckpt_close(&ckpt);
    return status;
}

hirl_status_t hirl_arrays_open(const char *path, hirl_ckpt_t **file_p) {
    hirl_ckpt_t *file = NULL;
    HIRL_TRY(open_file(path, false, &file));
    hirl_status_t status = list_arrays(file);
    if (status != HIRL_OK) {
        hirl_ckpt_close(&file);
        return status;
    }
    file->meta.method = file->meta.hierarchy = file->meta.deck = "";
    *file_p = file;
    return HIRL_OK;
}

hirl_status_t hirl_ckpt_open_newest(const char *folder, hirl_ckpt_t **ckpt_p) {
    int64_t *steps = NULL;
    int n = 0, i;
    hirl_ckpt_t *ckpt = NULL;
    HIRL_REQUIRE(folder && folder[0], HIRL_ERR_ARG, "the folder of checkpoints has no name");
    HIRL_TRY(hirl_ckpt_folder_list(folder, &steps, &n));
    hirl_status_t status = HIRL_OK;
    for (i = 0; i < n; i++) {
        char path[PATH_MAX];
        HIRL_TRY_GOTO(hirl_text_format(path, sizeof path, "%s/checkpoint-%08lld.h5", folder,
                                       (long long)steps[i]),
                      status, done);
        if (hirl_ckpt_open(path, true, &ckpt) == HIRL_OK) break;
        hirl_log_rank(HIRL_LOG_WARN, "%s%s", hirl_error_text_view(),
                      i + 1 < n ? "; falling back to the one before it" : "");
    }
    // To start anew in silence would overwrite what may still be saved.
    if (n > 0 && !ckpt) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT,
                      "folder %s: none of its %d checkpoints is whole, the newest because: %s; "
                      "move them away to start anew",
                      folder, n, hirl_error_text_view());
        goto done;
    }
    *ckpt_p = ckpt;
done:
    hirl_mem_free(steps);
    return status;
}

void hirl_ckpt_close(hirl_ckpt_t **ckpt) {
    if (!ckpt || !*ckpt) return;
    hirl_ckpt_t *it = *ckpt;
    if (it->file >= 0) H5Fclose(it->file);
    for (int i = 0; i < it->n_arrays; i++) hirl_mem_free((void *)(uintptr_t)it->arrays[i].name);
    hirl_mem_free(it->arrays);
    hirl_mem_free(it->extents);
    hirl_mem_free(it->method);
    hirl_mem_free(it->hierarchy);
    hirl_mem_free(it->deck);
    hirl_mem_free(it->build);
    hirl_mem_free(it->path);
    hirl_mem_free(it);
    *ckpt = NULL;
}

// ------------------------------------------------------------------------------------ look

const hirl_ckpt_meta_t *hirl_ckpt_meta_view(const hirl_ckpt_t *ckpt) { return &ckpt->meta; }

const char *hirl_ckpt_path_view(const hirl_ckpt_t *ckpt) { return ckpt->path; }

const hirl_ckpt_array_t *hirl_ckpt_arrays_view(const hirl_ckpt_t *ckpt, int *n_p) {
    if (n_p) *n_p = ckpt->n_arrays;
    return ckpt->arrays;
}

const hirl_ckpt_array_t *hirl_ckpt_find_view(const hirl_ckpt_t *ckpt, const char *name) {
    const hirl_ckpt_array_t key = {.name = name};
    if (ckpt->n_arrays == 0) return NULL;
    return bsearch(&key, ckpt->arrays, (size_t)ckpt->n_arrays, sizeof key, by_array_name);
}

bool hirl_ckpt_is_checkpoint(const char *path) {
    hirl_ckpt_t *ckpt = NULL;
    char *format = NULL;
    if (open_file(path, true, &ckpt) != HIRL_OK) return false;
    const bool is_it = H5Aexists(ckpt->file, "format") > 0 &&
                       read_text(ckpt->file, path, "format", &format) == HIRL_OK &&
                       strcmp(format, HIRL_CKPT_FORMAT) == 0;
    hirl_mem_free(format);
    hirl_ckpt_close(&ckpt);
    return is_it;
}

// ------------------------------------------------------------------------------------ read

static bool is_integer(hirl_ckpt_type_t type) {
    return type == HIRL_CKPT_I32 || type == HIRL_CKPT_I64 || type == HIRL_CKPT_U8;
}

// A number that the wanted integer type cannot hold ends the read; HDF5 would clip it.
static H5T_conv_ret_t refuse_clipping(H5T_conv_except_t what, hid_t from, hid_t to,
                                      void *from_value, void *to_value, void *data) {
    (void)what, (void)from, (void)from_value, (void)to_value, (void)data;
    return H5Tget_class(to) == H5T_INTEGER ? H5T_CONV_ABORT : H5T_CONV_UNHANDLED;
}

// Reads with HDF5's conversions.
static hirl_status_t read_converted(const hirl_ckpt_t *ckpt, int i, hirl_ckpt_type_t type,
                                    void *out) {
    const char *name = ckpt->arrays[i].name;
    hirl_status_t status = HIRL_OK;
    hid_t set = H5Oopen_by_addr(ckpt->file, ckpt->extents[i].address), transfer = H5I_INVALID_HID;
    HIRL_TRY_H5(set, "%s: cannot open array %s", ckpt->path, name);
    transfer = H5Pcreate(H5P_DATASET_XFER);
    HIRL_TRY_H5_GOTO(transfer, status, done, "%s: cannot make properties", ckpt->path);
    HIRL_TRY_H5_GOTO(H5Pset_type_conv_cb(transfer, refuse_clipping, NULL), status, done,
                     "%s: cannot watch conversions", ckpt->path);
    HIRL_TRY_H5_GOTO(H5Dread(set, hirl_ckpt_memory_type(type), H5S_ALL, H5S_ALL, transfer, out),
                     status, done, "%s: array %s: cannot read it as %s", ckpt->path, name,
                     hirl_ckpt_type_name(type));
done:
    if (transfer >= 0) H5Pclose(transfer);
    H5Oclose(set);
    return status;
}

static hirl_status_t fail_missing(const hirl_ckpt_t *ckpt, const char *name) {
    const char **names = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, ckpt->n_arrays, &names));
    for (int i = 0; i < ckpt->n_arrays; i++) names[i] = ckpt->arrays[i].name;
    const int nearest = hirl_text_nearest(name, names, ckpt->n_arrays);
    hirl_status_t status =
        HIRL_FAIL(HIRL_ERR_MISMATCH, "%s: there is no array %s%s%s", ckpt->path, name,
                  nearest >= 0 ? "; the nearest name is " : "", nearest >= 0 ? names[nearest] : "");
    hirl_mem_free(names);
    return status;
}

hirl_status_t hirl_ckpt_read(const hirl_ckpt_t *ckpt, const char *name, hirl_ckpt_type_t type,
                             int n_axes, const int64_t *shape, void *out) {
    HIRL_REQUIRE(ckpt && name, HIRL_ERR_ARG, "there is no file or no name to read");
    HIRL_REQUIRE(hirl_ckpt_item_size(type) > 0, HIRL_ERR_ARG, "array %s: type %d does not exist",
                 name, (int)type);
    const hirl_ckpt_array_t *array = hirl_ckpt_find_view(ckpt, name);
    if (!array) return fail_missing(ckpt, name);
    const int i = (int)(array - ckpt->arrays);
    bool is_alike = array->n_axes == n_axes;
    for (int axis = 0; axis < n_axes && is_alike; axis++)
        is_alike = array->shape[axis] == shape[axis];
    char found_text[160], wanted_text[160];
    HIRL_REQUIRE(is_alike, HIRL_ERR_MISMATCH, "%s: array %s has shape %s, this run wants %s",
                 ckpt->path, name, hirl_ckpt_shape_text(found_text, array->n_axes, array->shape),
                 hirl_ckpt_shape_text(wanted_text, n_axes, shape));
    const bool is_convertible =
        !ckpt->is_checkpoint && (is_integer(array->type) || !is_integer(type));
    HIRL_REQUIRE(array->type == type || is_convertible, HIRL_ERR_MISMATCH,
                 "%s: array %s has type %s, this run wants %s", ckpt->path, name,
                 hirl_ckpt_type_name(array->type), hirl_ckpt_type_name(type));
    const int64_t n_items = ckpt->extents[i].n_items;
    if (n_items == 0) return HIRL_OK;
    HIRL_REQUIRE(out, HIRL_ERR_ARG, "array %s: no memory is given to read it to", name);
    hirl_ckpt_h5_quiet();
    if (!ckpt->is_checkpoint) return read_converted(ckpt, i, type, out);
    int fd = -1;
    const size_t size = (size_t)n_items * hirl_ckpt_item_size(type);
    HIRL_TRY(descriptor_view(ckpt, &fd));
    HIRL_TRY(read_bytes(ckpt, fd, name, ckpt->extents[i].offset, out, size));
    return check_sum(ckpt, i, hirl_hash64(out, size));
}
