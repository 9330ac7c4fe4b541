// The index of one shard: everything but its images, read and checked before anything is used. Nothing in the file is trusted: each size, count and position is compared with the size of
// the file first, so that no allocation is larger than a multiple of it.
#include "data_impl.h"

#include <string.h>

enum { CLASSES_MAX = HIRL_CLASSES_MAX, CLASS_WIDTH_MAX = 4096 };

static const char *const encoding_texts[HIRL_SHARD_ENCODING_COUNT] = {"raw", "jpeg", "png", "mixed",
                                                                      "frames"};

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
    hirl_mem_free(index->target);
    hirl_class_table_reset(&index->classes);
    memset(index, 0, sizeof *index);
}

// -------------------------------------------------------------------------------------- objects

// All of an object lies in this file as it is: nothing is unfolded or taken from elsewhere.
static hirl_status_t check_layout(const hirl_h5_object_t *object, const char *path,
                                  const char *name) {
    const bool is_plain = object->layout == HIRL_H5_CONTIGUOUS || object->layout == HIRL_H5_COMPACT;
    HIRL_REQUIRE(is_plain && object->n_filters == 0 && object->n_external == 0, HIRL_ERR_FORMAT,
                 "shard %s: %s is %s with %d filters and %d external files, expected contiguous "
                 "without either",
                 path, name,
                 object->layout == HIRL_H5_CHUNKED   ? "chunked"
                 : object->layout == HIRL_H5_VIRTUAL ? "virtual"
                                                     : "laid out",
                 object->n_filters, object->n_external);
    return HIRL_OK;
}

// The bytes of all elements are in the file, so that no more can be asked for than it has.
static hirl_status_t check_storage(const hirl_h5_object_t *object, const char *path,
                                   const char *name) {
    const int64_t n = object->n_items, width = (int64_t)object->type.size;
    if (n == 0) return HIRL_OK;
    HIRL_REQUIRE(width > 0 && n <= INT64_MAX / width, HIRL_ERR_FORMAT,
                 "shard %s: %s claims %lld elements of %lld bytes", path, name, (long long)n,
                 (long long)width);
    HIRL_REQUIRE(object->n_stored == n * width, HIRL_ERR_FORMAT,
                 "shard %s: %s has %lld of %lld bytes on disk, it was not written to its end", path,
                 name, (long long)object->n_stored, (long long)(n * width));
    return HIRL_OK;
}

// A data set of `n_axes` dimensions and of items of form `want`; `what` names the type in messages.
static hirl_status_t find_array(const hirl_h5_t *file, const char *path, const char *name,
                                hirl_h5_form_t want, const char *what, int n_axes,
                                const hirl_h5_object_t **object_p) {
    const hirl_h5_link_t *link = hirl_h5_find_link_view(file, name + 1);
    HIRL_REQUIRE(link, HIRL_ERR_FORMAT,
                 "shard %s: object %s is missing, every shard of version %d has it", path, name,
                 HIRL_SHARD_VERSION);
    HIRL_REQUIRE(link->object >= 0, HIRL_ERR_FORMAT,
                 "shard %s: %s is a link, expected an object of this file", path, name);
    const hirl_h5_object_t *object = hirl_h5_object_view(file, link->object);
    HIRL_REQUIRE(object->kind == HIRL_H5_ARRAY, HIRL_ERR_FORMAT, "shard %s: %s is no array", path,
                 name);
    HIRL_TRY(check_layout(object, path, name));
    HIRL_REQUIRE(object->n_axes == n_axes, HIRL_ERR_FORMAT,
                 "shard %s: %s has %d dimensions, expected %d", path, name, object->n_axes, n_axes);
    const bool is_known =
        want == HIRL_H5_INTEGER
            ? hirl_data_h5_is_integer(&object->type)
            : object->type.form == want ||
                  (want == HIRL_H5_TEXT && object->type.form == HIRL_H5_TEXT_VARIABLE);
    HIRL_REQUIRE(is_known, HIRL_ERR_FORMAT,
                 "shard %s: %s has elements of another type, expected %s", path, name, what);
    *object_p = object;
    return HIRL_OK;
}

static hirl_status_t find_object(const hirl_h5_t *file, const char *path, const char *name,
                                 hirl_h5_form_t want, const char *what,
                                 const hirl_h5_object_t **object_p) {
    return find_array(file, path, name, want, what, 1, object_p);
}

// Reads `n` integers into a new array of `size` bytes each.
static hirl_status_t read_integers(const hirl_h5_t *file, const hirl_shard_index_t *index,
                                   const char *name, hirl_h5_number_t number, size_t size,
                                   int64_t n, const char *reason, void *array_p) {
    const char *path = index->path;
    const hirl_h5_object_t *object = NULL;
    void *array = NULL;
    hirl_status_t status;
    HIRL_TRY(find_object(file, path, name, HIRL_H5_INTEGER, "integers", &object));
    HIRL_REQUIRE(object->n_items == n, HIRL_ERR_FORMAT,
                 "shard %s: %s has %lld elements, expected %lld (%s)", path, name,
                 (long long)object->n_items, (long long)n, reason);
    HIRL_TRY(check_storage(object, path, name));
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, size, &array));
    status = hirl_h5_read_numbers(file, name, object, number, array);
    if (status != HIRL_OK) {
        hirl_mem_free(array);
        // A number that does not fit is the shard's fault.
        return status == HIRL_ERR_MISMATCH
                   ? HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s", hirl_error_text_view())
                   : status;
    }
    *(void **)array_p = array;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- /data

// Where /data lies, if it is one plain run of bytes within the file.
static hirl_status_t find_data(const hirl_h5_t *file, hirl_shard_index_t *index) {
    const char *path = index->path;
    const hirl_h5_object_t *object = NULL;
    HIRL_TRY(find_object(file, path, "/data", HIRL_H5_INTEGER, "bytes (u8)", &object));
    HIRL_REQUIRE(object->type.size == 1, HIRL_ERR_FORMAT,
                 "shard %s: /data has elements of %u bytes, expected u8", path, object->type.size);
    HIRL_REQUIRE(object->layout == HIRL_H5_CONTIGUOUS, HIRL_ERR_FORMAT,
                 "shard %s: /data is compact, expected contiguous", path);
    HIRL_REQUIRE(object->n_items >= 1, HIRL_ERR_FORMAT, "shard %s: /data is empty", path);
    HIRL_TRY(check_storage(object, path, "/data"));
    HIRL_REQUIRE(object->offset >= 0, HIRL_ERR_FORMAT, "shard %s: /data is nowhere in the file",
                 path);
    index->data_pos = object->offset;
    index->data_size = object->n_items;
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

static hirl_status_t read_class_names(const hirl_h5_t *file, hirl_shard_index_t *index) {
    const char *path = index->path;
    const hirl_h5_object_t *object = NULL;
    HIRL_TRY(find_object(file, path, "/class_name", HIRL_H5_TEXT, "fixed-length texts", &object));
    HIRL_REQUIRE(
        object->type.form != HIRL_H5_TEXT_VARIABLE, HIRL_ERR_FORMAT,
        "shard %s: /class_name has texts of variable length, expected fixed length (NumPy: "
        "dtype 'S32')",
        path);
    const int64_t n = object->n_items;
    const size_t width = object->type.size;
    HIRL_REQUIRE(n >= 1 && n <= CLASSES_MAX && width >= 1 && width <= CLASS_WIDTH_MAX &&
                     n * (int64_t)width <= index->file_size,
                 HIRL_ERR_FORMAT,
                 "shard %s: /class_name claims %lld texts of %zu bytes in a file of %lld", path,
                 (long long)n, width, (long long)index->file_size);
    HIRL_TRY(check_storage(object, path, "/class_name"));
    char *stored = NULL, *name = NULL;
    hirl_status_t status;
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, width, (void **)&stored));
    HIRL_TRY_GOTO(hirl_h5_read(file, "/class_name", object, stored), status, done);
    // One byte more than stored: texts that fill their row get their NUL.
    HIRL_TRY_GOTO(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, width + 1, (void **)&name), status,
                  done);
    for (int64_t i = 0; i < n; i++) {
        char *row = name + i * (int64_t)(width + 1);
        memcpy(row, stored + i * (int64_t)width, strnlen(stored + i * (int64_t)width, width));
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
    hirl_mem_free(stored);
    return status;
}

static hirl_status_t read_classes(const hirl_h5_t *file, hirl_shard_index_t *index) {
    const char *path = index->path;
    bool has_parent = hirl_h5_find_link_view(file, "class_parent") != NULL;
    if (!hirl_h5_find_link_view(file, "class_name")) {
        HIRL_REQUIRE(!has_parent, HIRL_ERR_FORMAT,
                     "shard %s: /class_parent comes without /class_name", path);
        return HIRL_OK;
    }
    HIRL_TRY(read_class_names(file, index));
    if (!has_parent) return HIRL_OK;
    hirl_class_table_t *classes = &index->classes;
    HIRL_TRY(read_integers(file, index, "/class_parent", HIRL_H5_I32, sizeof(int32_t), classes->n,
                           "one for each /class_name", &classes->parent));
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

// -------------------------------------------------------------------------------------- targets

// Samples that can be of several classes have a row of them each. Shards need not have any.
static hirl_status_t read_targets(const hirl_h5_t *file, hirl_shard_index_t *index) {
    const char *path = index->path, *name = "/target";
    const hirl_h5_object_t *object = NULL;
    int32_t *wide = NULL;
    hirl_status_t status;
    if (!hirl_h5_find_link_view(file, name + 1)) return HIRL_OK;
    HIRL_TRY(find_array(file, path, name, HIRL_H5_INTEGER, "integers (i8)", 2, &object));
    const int64_t n = index->n, n_targets = object->shape[1];
    HIRL_REQUIRE(object->shape[0] == n && n_targets >= 1 && n_targets <= HIRL_TARGETS_MAX &&
                     (index->classes.n == 0 || n_targets <= index->classes.n),
                 HIRL_ERR_FORMAT,
                 "shard %s: %s is [%lld, %lld], expected [%lld, 1 to %d] (samples, classes)", path,
                 name, (long long)object->shape[0], (long long)n_targets, (long long)n,
                 index->classes.n ? index->classes.n : HIRL_TARGETS_MAX);
    HIRL_TRY(check_storage(object, path, name));
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n * (size_t)n_targets, sizeof *wide,
                             (void **)&wide));
    HIRL_TRY_GOTO(hirl_h5_read_numbers(file, name, object, HIRL_H5_I32, wide), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, n * n_targets, &index->target), status, done);
    for (int64_t i = 0; i < n * n_targets; i++) {
        if (wide[i] < -1 || wide[i] > 1) {
            status =
                HIRL_FAIL(HIRL_ERR_FORMAT,
                          "shard %s sample %lld: /target of class %lld is %d, expected -1, 0 or 1",
                          path, (long long)(i / n_targets), (long long)(i % n_targets), wide[i]);
            goto done;
        }
        index->target[i] = (int8_t)wide[i];
    }
    index->n_targets = (int)n_targets;
done:
    hirl_mem_free(wide);
    return status == HIRL_ERR_MISMATCH
               ? HIRL_FAIL(HIRL_ERR_FORMAT, "shard %s", hirl_error_text_view())
               : status;
}

// -------------------------------------------------------------------------------------- all

static hirl_status_t read_header(const hirl_h5_t *file, hirl_shard_index_t *index) {
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
        if (hirl_h5_find_attribute_view(file, hirl_h5_object_view(file, 0), "n_shards")) {
            HIRL_TRY(hirl_data_h5_read_int(file, path, "n_shards", &index->n_shards));
        }
        return HIRL_OK;
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT,
                     "shard %s: encoding is '%s', expected 'raw', 'jpeg', 'png', 'mixed' or "
                     "'frames'",
                     path, text);
}

static hirl_status_t read_all(const hirl_h5_t *file, hirl_shard_index_t *index) {
    const char *path = index->path;
    HIRL_TRY(read_header(file, index));
    HIRL_TRY(find_data(file, index));
    // Each sample has a byte at least: this bounds all arrays by the size of the file.
    HIRL_REQUIRE(index->n >= 1 && index->n <= index->data_size, HIRL_ERR_FORMAT,
                 "shard %s: attribute 'n_samples' is %lld, expected 1 to %lld (the bytes of /data)",
                 path, (long long)index->n, (long long)index->data_size);
    const char *each = "one for each of attribute 'n_samples'",
               *more = "one more than attribute 'n_samples'";
    HIRL_TRY(
        read_integers(file, index, "/offset", HIRL_H5_I64, 8, index->n + 1, more, &index->offset));
    HIRL_TRY(check_offsets(index));
    HIRL_TRY(read_integers(file, index, "/height", HIRL_H5_I32, 4, index->n, each, &index->height));
    HIRL_TRY(read_integers(file, index, "/width", HIRL_H5_I32, 4, index->n, each, &index->width));
    HIRL_TRY(
        read_integers(file, index, "/channels", HIRL_H5_I32, 4, index->n, each, &index->channels));
    HIRL_TRY(read_integers(file, index, "/label", HIRL_H5_I32, 4, index->n, each, &index->label));
    HIRL_TRY(
        read_integers(file, index, "/checksum", HIRL_H5_U64, 8, index->n, each, &index->checksum));
    HIRL_TRY(read_classes(file, index));
    HIRL_TRY(check_samples(index));
    HIRL_TRY(read_targets(file, index));
    // Names are only counted here: training does not need them.
    const hirl_h5_object_t *object = NULL;
    HIRL_TRY(find_object(file, path, "/name_offset", HIRL_H5_INTEGER, "integers", &object));
    HIRL_REQUIRE(object->n_items == index->n + 1, HIRL_ERR_FORMAT,
                 "shard %s: /name_offset has %lld elements, expected %lld (%s)", path,
                 (long long)object->n_items, (long long)index->n + 1, more);
    return find_object(file, path, "/name", HIRL_H5_INTEGER, "bytes (u8)", &object);
}

hirl_status_t hirl_shard_index_read(const hirl_h5_t *file, const char *path,
                                    hirl_shard_index_t *index) {
    memset(index, 0, sizeof *index);
    hirl_status_t status = hirl_text_format(index->path, sizeof index->path, "%s", path);
    index->file_size = hirl_h5_file_size(file);
    if (status == HIRL_OK) status = read_all(file, index);
    if (status != HIRL_OK) hirl_shard_index_reset(index);
    return status;
}

hirl_status_t hirl_shard_index_load(const char *path, hirl_shard_index_t *index) {
    hirl_h5_t *file = NULL;
    memset(index, 0, sizeof *index);
    HIRL_TRY(hirl_h5_open(path, &file));
    const hirl_status_t status = hirl_shard_index_read(file, path, index);
    hirl_h5_close(&file);
    return status;
}
