// The index of one shard: everything but its images, read by HDF5 and checked before anything is
// used. Nothing in the file is trusted: each size, count and position is compared with the size of
// the file first, so that no allocation is larger than a multiple of it.
#include "data_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CLASSES_MAX = 10000000, CLASS_WIDTH_MAX = 4096 };

static const char *const encoding_texts[HIRL_SHARD_ENCODING_COUNT] = {"raw", "jpeg", "png",
                                                                      "mixed"};

const char *hirl_shard_encoding_text(hirl_shard_encoding_t encoding) {
    return encoding_texts[encoding];
}

void hirl_class_table_reset(hirl_class_table_t *table) {
    hirl_mem_free(table->name);
    hirl_mem_free(table->parent);
    memset(table, 0, sizeof *table);
}

void hirl_shard_index_reset(hirl_shard_index_t *index) {
    hirl_mem_free(index->offset);
    hirl_mem_free(index->height);
    hirl_mem_free(index->width);
    hirl_mem_free(index->channels);
    hirl_mem_free(index->label);
    hirl_mem_free(index->checksum);
    hirl_class_table_reset(&index->classes);
    memset(index, 0, sizeof *index);
}

// -------------------------------------------------------------------------------------- objects

// All of an object lies in this file as it is: nothing is unfolded or taken from elsewhere. Asked
// before anything else, since HDF5 would open the files that a virtual object names.
static hirl_status_t check_layout(hid_t object, const char *path, const char *name) {
    hid_t plist = H5Dget_create_plist(object);
    HIRL_TRY_H5(plist, path, name);
    const H5D_layout_t layout = H5Pget_layout(plist);
    const int n_filters = H5Pget_nfilters(plist), n_external = H5Pget_external_count(plist);
    H5Pclose(plist);
    const bool is_plain = layout == H5D_CONTIGUOUS || layout == H5D_COMPACT;
    HIRL_REQUIRE(is_plain && n_filters == 0 && n_external == 0, HIRL_ERR_FORMAT,
                 "shard %s: %s is %s with %d filters and %d external files, expected contiguous "
                 "without either",
                 path, name,
                 layout == H5D_CHUNKED   ? "chunked"
                 : layout == H5D_VIRTUAL ? "virtual"
                                         : "laid out",
                 n_filters, n_external);
    return HIRL_OK;
}

// The bytes of `n` elements are in the file, so that no more can be asked for than it has. The
// position is negative where there is none: nothing is stored, or it is part of the header.
static hirl_status_t find_storage(hid_t object, const char *path, const char *name, int64_t n,
                                  int64_t file_size, int64_t *pos_p) {
    *pos_p = -1;
    if (n == 0) return HIRL_OK;
    hid_t type = H5Dget_type(object);
    const size_t width = H5Tget_size(type);
    H5Tclose(type);
    const hsize_t stored = H5Dget_storage_size(object);
    const haddr_t pos = H5Dget_offset(object);
    HIRL_REQUIRE(width > 0 && n <= INT64_MAX / (int64_t)width, HIRL_ERR_FORMAT,
                 "shard %s: %s claims %lld elements of %zu bytes", path, name, (long long)n, width);
    const int64_t bytes = n * (int64_t)width;
    HIRL_REQUIRE(stored == (hsize_t)bytes, HIRL_ERR_FORMAT,
                 "shard %s: %s has %llu of %lld bytes on disk, it was not written to its end", path,
                 name, (unsigned long long)stored, (long long)bytes);
    const haddr_t from = pos == HADDR_UNDEF ? 0 : pos;
    HIRL_REQUIRE(from <= (haddr_t)file_size && bytes <= file_size - (int64_t)from, HIRL_ERR_FORMAT,
                 "shard %s: %s needs bytes %llu to %llu, the file has %lld: it is truncated", path,
                 name, (unsigned long long)from, (unsigned long long)(from + (haddr_t)bytes),
                 (long long)file_size);
    if (pos != HADDR_UNDEF) *pos_p = (int64_t)pos;
    return HIRL_OK;
}

// Opens a one-dimensional data set of class `want`; `what` names the type in messages.
static hirl_status_t open_object(hid_t file, const char *path, const char *name, H5T_class_t want,
                                 const char *what, hid_t *object_p, int64_t *n_p) {
    HIRL_REQUIRE(H5Lexists(file, name, H5P_DEFAULT) > 0, HIRL_ERR_FORMAT,
                 "shard %s: object %s is missing, every shard of version %d has it", path, name,
                 HIRL_SHARD_VERSION);
    HIRL_REQUIRE(hirl_data_h5_is_own(file, name), HIRL_ERR_FORMAT,
                 "shard %s: %s is a link, expected an object of this file", path, name);
    hid_t object = H5Dopen2(file, name, H5P_DEFAULT);
    HIRL_TRY_H5(object, path, name);
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(check_layout(object, path, name), status, err_close);
    hid_t space = H5Dget_space(object), type = H5Dget_type(object);
    int rank = H5Sget_simple_extent_ndims(space);
    hsize_t n = 0;
    if (rank == 1) H5Sget_simple_extent_dims(space, &n, NULL);
    const bool is_known =
        want == H5T_INTEGER ? hirl_data_h5_is_integer(type) : H5Tget_class(type) == want;
    H5Sclose(space);
    H5Tclose(type);
    if (rank != 1) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s: %s has %d dimensions, expected 1", path,
                           name, rank);
    } else if (!is_known) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s: %s has elements of another type, expected %s",
                      path, name, what);
    } else if (n > INT64_MAX) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s: %s claims %llu elements", path, name,
                           (unsigned long long)n);
    }
    if (status != HIRL_OK) goto err_close;
    *object_p = object;
    *n_p = (int64_t)n;
    return HIRL_OK;

err_close:
    H5Dclose(object);
    return status;
}

// Reads `n` integers into a new array of `size` bytes each.
static hirl_status_t read_integers(hid_t file, const hirl_shard_index_t *index, const char *name,
                                   hid_t type, size_t size, int64_t n, const char *reason,
                                   void *array_p) {
    const char *path = index->path;
    hid_t object = H5I_INVALID_HID;
    int64_t found = 0;
    HIRL_TRY(open_object(file, path, name, H5T_INTEGER, "integers", &object, &found));
    hirl_status_t status = HIRL_OK;
    void *array = NULL;
    int64_t pos = 0;
    if (found != n) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s: %s has %lld elements, expected %lld (%s)",
                           path, name, (long long)found, (long long)n, reason);
        goto err;
    }
    HIRL_TRY_GOTO(find_storage(object, path, name, n, index->file_size, &pos), status, err);
    HIRL_TRY_GOTO(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, size, &array), status, err);
    HIRL_TRY_H5_GOTO(H5Dread(object, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, array), path, name,
                     status, err);
    H5Dclose(object);
    *(void **)array_p = array;
    return HIRL_OK;
err:
    hirl_mem_free(array);
    H5Dclose(object);
    return status;
}

// -------------------------------------------------------------------------------------- /data

// Where /data lies, if it is one plain run of bytes within the file.
static hirl_status_t find_data(hid_t file, hirl_shard_index_t *index) {
    const char *path = index->path;
    hid_t object = H5I_INVALID_HID;
    int64_t n = 0, pos = -1;
    HIRL_TRY(open_object(file, path, "/data", H5T_INTEGER, "bytes (u8)", &object, &n));
    hid_t type = H5Dget_type(object), plist = H5Dget_create_plist(object);
    size_t width = H5Tget_size(type);
    H5D_layout_t layout = H5Pget_layout(plist);
    H5Pclose(plist);
    H5Tclose(type);
    hirl_status_t status = find_storage(object, path, "/data", n, index->file_size, &pos);
    H5Dclose(object);
    HIRL_REQUIRE(width == 1, HIRL_ERR_FORMAT,
                 "shard %s: /data has elements of %zu bytes, expected u8", path, width);
    HIRL_REQUIRE(layout == H5D_CONTIGUOUS, HIRL_ERR_FORMAT,
                 "shard %s: /data is compact, expected contiguous", path);
    HIRL_REQUIRE(n >= 1, HIRL_ERR_FORMAT, "shard %s: /data is empty", path);
    HIRL_TRY(status);
    HIRL_REQUIRE(pos >= 0, HIRL_ERR_FORMAT, "shard %s: /data is nowhere in the file", path);
    index->data_pos = pos;
    index->data_size = n;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- samples

static hirl_status_t check_offsets(const hirl_shard_index_t *index) {
    const int64_t *offset = index->offset;
    HIRL_REQUIRE(offset[0] == 0, HIRL_ERR_FORMAT, "shard %s: /offset[0] is %lld, expected 0",
                 index->path, (long long)offset[0]);
    for (int64_t i = 0; i < index->n; i++) {
        HIRL_REQUIRE(offset[i + 1] > offset[i] && offset[i + 1] <= index->data_size,
                     HIRL_ERR_FORMAT,
                     "shard %s sample %lld: /offset runs from %lld to %lld, expected to grow and "
                     "to end within the "
                     "%lld bytes of /data",
                     index->path, (long long)i, (long long)offset[i], (long long)offset[i + 1],
                     (long long)index->data_size);
        HIRL_REQUIRE((uint64_t)(offset[i + 1] - offset[i]) <= HIRL_IMAGE_BYTES_MAX, HIRL_ERR_FORMAT,
                     "shard %s sample %lld: %lld bytes, more than the %zu MiB allowed", index->path,
                     (long long)i, (long long)(offset[i + 1] - offset[i]),
                     HIRL_IMAGE_BYTES_MAX >> 20);
    }
    HIRL_REQUIRE(offset[index->n] == index->data_size, HIRL_ERR_FORMAT,
                 "shard %s: /offset ends at %lld, expected the %lld bytes of /data", index->path,
                 (long long)offset[index->n], (long long)index->data_size);
    return HIRL_OK;
}

static hirl_status_t check_samples(const hirl_shard_index_t *index) {
    bool is_raw = index->encoding == HIRL_SHARD_RAW;
    for (int64_t i = 0; i < index->n; i++) {
        int32_t height = index->height[i], width = index->width[i], channels = index->channels[i];
        HIRL_REQUIRE(height >= 1 && height <= HIRL_IMAGE_SIDE_MAX && width >= 1 &&
                         width <= HIRL_IMAGE_SIDE_MAX,
                     HIRL_ERR_FORMAT,
                     "shard %s sample %lld: /height, /width are %d, %d, expected 1 to %d",
                     index->path, (long long)i, height, width, HIRL_IMAGE_SIDE_MAX);
        HIRL_REQUIRE(channels == 1 || channels == 3, HIRL_ERR_FORMAT,
                     "shard %s sample %lld: /channels is %d, expected 1 or 3", index->path,
                     (long long)i, channels);
        int64_t size = index->offset[i + 1] - index->offset[i];
        HIRL_REQUIRE(
            !is_raw || size == (int64_t)height * width * channels, HIRL_ERR_FORMAT,
            "shard %s sample %lld: %lld bytes, expected %d x %d x %d = %lld for raw pixels",
            index->path, (long long)i, (long long)size, height, width, channels,
            (long long)height * width * channels);
        int32_t label = index->label[i];
        HIRL_REQUIRE(label >= -1 && label < CLASSES_MAX, HIRL_ERR_FORMAT,
                     "shard %s sample %lld: /label is %d, expected -1 (unknown) to %d", index->path,
                     (long long)i, label, CLASSES_MAX - 1);
        HIRL_REQUIRE(index->classes.n == 0 || label < index->classes.n, HIRL_ERR_FORMAT,
                     "shard %s sample %lld: /label is %d, /class_name has %d classes", index->path,
                     (long long)i, label, index->classes.n);
    }
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- classes

static hirl_status_t read_class_names(hid_t file, hirl_shard_index_t *index) {
    const char *path = index->path;
    hid_t object = H5I_INVALID_HID;
    int64_t n = 0;
    HIRL_TRY(open_object(file, path, "/class_name", H5T_STRING, "fixed-length texts", &object, &n));
    hid_t type = H5Dget_type(object);
    size_t width = H5Tget_size(type);
    bool is_variable = H5Tis_variable_str(type) > 0;
    hid_t memory_type = H5Tcopy(H5T_C_S1);
    hirl_status_t status = HIRL_OK;
    void *name = NULL;
    int64_t pos = 0;
    if (is_variable) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "shard %s: /class_name has texts of variable length, expected fixed "
                           "length (NumPy: dtype 'S32')",
                           path);
        goto done;
    }
    if (n < 1 || n > CLASSES_MAX || width < 1 || width > CLASS_WIDTH_MAX ||
        n * (int64_t)width > index->file_size) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "shard %s: /class_name claims %lld texts of %zu bytes in a file of %lld",
                           path, (long long)n, width, (long long)index->file_size);
        goto done;
    }
    HIRL_TRY_GOTO(find_storage(object, path, "/class_name", n, index->file_size, &pos), status,
                  done);
    // One byte more than stored: texts that fill their row get their NUL.
    H5Tset_size(memory_type, width + 1);
    H5Tset_cset(memory_type, H5Tget_cset(type));
    HIRL_TRY_GOTO(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, width + 1, &name), status, done);
    HIRL_TRY_H5_GOTO(H5Dread(object, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, name), path,
                     "/class_name", status, done);
    for (int64_t i = 0; i < n; i++) {
        char *row = (char *)name + i * (int64_t)(width + 1);
        row[width] = '\0';
        if (row[0] == '\0') {
            status = HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s: /class_name[%lld] is empty", path,
                               (long long)i);
            goto done;
        }
    }
    index->classes.n = (int)n;
    index->classes.width = (int)width + 1;
    index->classes.name = name;
    name = NULL;
done:
    hirl_mem_free(name);
    H5Tclose(memory_type);
    H5Tclose(type);
    H5Dclose(object);
    return status;
}

static hirl_status_t read_classes(hid_t file, hirl_shard_index_t *index) {
    const char *path = index->path;
    bool has_parent = H5Lexists(file, "/class_parent", H5P_DEFAULT) > 0;
    if (H5Lexists(file, "/class_name", H5P_DEFAULT) <= 0) {
        HIRL_REQUIRE(!has_parent, HIRL_ERR_FORMAT,
                     "shard %s: /class_parent comes without /class_name", path);
        return HIRL_OK;
    }
    HIRL_TRY(read_class_names(file, index));
    if (!has_parent) return HIRL_OK;
    hirl_class_table_t *classes = &index->classes;
    HIRL_TRY(read_integers(file, index, "/class_parent", H5T_NATIVE_INT32, sizeof(int32_t),
                           classes->n, "one for each /class_name", &classes->parent));
    for (int i = 0; i < classes->n; i++) {
        // Parents come behind their children, so there is no circle.
        int32_t parent = classes->parent[i];
        HIRL_REQUIRE(parent == -1 || (parent > i && parent < classes->n), HIRL_ERR_FORMAT,
                     "shard %s: /class_parent[%d] is %d, expected -1 or a later row of /class_name "
                     "(%d to %d)",
                     path, i, parent, i + 1, classes->n - 1);
    }
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- all

static hirl_status_t read_header(hid_t file, hirl_shard_index_t *index) {
    const char *path = index->path;
    char text[HIRL_SPLIT_TEXT_MAX];
    int64_t version = 0;
    HIRL_TRY(hirl_data_h5_read_text(file, path, "format", text, sizeof text));
    HIRL_REQUIRE(strcmp(text, "hirl-shard") == 0, HIRL_ERR_FORMAT,
                 "%s is no shard: its attribute 'format' is '%s', expected 'hirl-shard'", path,
                 text);
    HIRL_TRY(hirl_data_h5_read_int(file, path, "version", &version));
    HIRL_REQUIRE(version == HIRL_SHARD_VERSION, HIRL_ERR_FORMAT,
                 "shard %s: format version %lld, this program reads version %d; pack it again",
                 path, (long long)version, HIRL_SHARD_VERSION);
    HIRL_TRY(hirl_data_h5_read_text(file, path, "split", index->split, sizeof index->split));
    HIRL_TRY(hirl_data_h5_read_int(file, path, "n_samples", &index->n));
    HIRL_TRY(hirl_data_h5_read_text(file, path, "encoding", text, sizeof text));
    for (int i = 0; i < HIRL_SHARD_ENCODING_COUNT; i++) {
        if (strcmp(text, encoding_texts[i]) != 0) continue;
        index->encoding = (hirl_shard_encoding_t)i;
        if (hirl_data_h5_has_attribute(file, "n_shards")) {
            HIRL_TRY(hirl_data_h5_read_int(file, path, "n_shards", &index->n_shards));
        }
        return HIRL_OK;
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT,
                     "shard %s: encoding is '%s', expected 'raw', 'jpeg', 'png' or 'mixed'", path,
                     text);
}

static hirl_status_t read_all(hid_t file, hirl_shard_index_t *index) {
    const char *path = index->path;
    HIRL_TRY(read_header(file, index));
    HIRL_TRY(find_data(file, index));
    // Each sample has a byte at least: this bounds all arrays by the size of the file.
    HIRL_REQUIRE(index->n >= 1 && index->n <= index->data_size, HIRL_ERR_FORMAT,
                 "shard %s: attribute 'n_samples' is %lld, expected 1 to %lld (the bytes of /data)",
                 path, (long long)index->n, (long long)index->data_size);
    const char *each = "one for each of attribute 'n_samples'",
               *more = "one more than attribute 'n_samples'";
    HIRL_TRY(read_integers(file, index, "/offset", H5T_NATIVE_INT64, 8, index->n + 1, more,
                           &index->offset));
    HIRL_TRY(check_offsets(index));
    HIRL_TRY(
        read_integers(file, index, "/height", H5T_NATIVE_INT32, 4, index->n, each, &index->height));
    HIRL_TRY(
        read_integers(file, index, "/width", H5T_NATIVE_INT32, 4, index->n, each, &index->width));
    HIRL_TRY(read_integers(file, index, "/channels", H5T_NATIVE_INT32, 4, index->n, each,
                           &index->channels));
    HIRL_TRY(
        read_integers(file, index, "/label", H5T_NATIVE_INT32, 4, index->n, each, &index->label));
    HIRL_TRY(read_integers(file, index, "/checksum", H5T_NATIVE_UINT64, 8, index->n, each,
                           &index->checksum));
    HIRL_TRY(read_classes(file, index));
    HIRL_TRY(check_samples(index));
    // Names are only counted here: training does not need them.
    hid_t object = H5I_INVALID_HID;
    int64_t n = 0;
    HIRL_TRY(open_object(file, path, "/name_offset", H5T_INTEGER, "integers", &object, &n));
    H5Dclose(object);
    HIRL_REQUIRE(n == index->n + 1, HIRL_ERR_FORMAT,
                 "shard %s: /name_offset has %lld elements, expected %lld (%s)", path, (long long)n,
                 (long long)index->n + 1, more);
    HIRL_TRY(open_object(file, path, "/name", H5T_INTEGER, "bytes (u8)", &object, &n));
    H5Dclose(object);
    return HIRL_OK;
}

static hirl_status_t load(const char *path, hirl_shard_index_t *index) {
    HIRL_TRY(hirl_text_format(index->path, sizeof index->path, "%s", path));
    // HDF5 would only say that it cannot open the file, not why.
    struct stat found;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe would wait for its writer
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "shard %s: %s", path, strerror(errno));
    int answer = fstat(fd, &found);
    close(fd);
    HIRL_REQUIRE(answer == 0 && S_ISREG(found.st_mode), HIRL_ERR_IO, "shard %s: not a file", path);
    index->file_size = (int64_t)found.st_size;
    htri_t is_hdf5 = H5Fis_hdf5(path);
    HIRL_REQUIRE(is_hdf5 > 0, HIRL_ERR_FORMAT, "shard %s: not an HDF5 file (%lld bytes)", path,
                 (long long)index->file_size);
    // Closing the file closes whatever is open in it.
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
    hirl_status_t status = HIRL_OK;
    if (file < 0) { // each further call of HDF5 would forget the cause
        hirl_data_h5_fail(__FILE__, __LINE__, __func__, path, "cannot open the shard");
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s", hirl_error_text_view());
    }
    H5Pclose(access);
    HIRL_TRY(status);
    status = read_all(file, index);
    H5Fclose(file);
    return status;
}

hirl_status_t hirl_shard_index_load(const char *path, hirl_shard_index_t *index) {
    memset(index, 0, sizeof *index);
    hirl_data_h5_quiet_t quiet = hirl_data_h5_quiet_begin();
    hirl_status_t status = load(path, index);
    hirl_data_h5_quiet_end(quiet);
    if (status != HIRL_OK) hirl_shard_index_reset(index);
    return status;
}
