// A shard in words, for task inspect: its attributes, objects, sizes of images and samples of each
// class.
#include "data_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

// What the HDF5 iterators below hand on.
typedef struct describe {
    const char *path;
    hirl_text_t *text;
    hirl_status_t status;
} describe_t;

static hirl_status_t describe_attribute(hid_t file, const char *path, const char *name,
                                        hirl_text_t *text) {
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    HIRL_TRY_H5(attribute, path, name);
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    const bool is_text = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0,
               is_integer = hirl_data_h5_is_integer(type),
               is_one = H5Sget_simple_extent_npoints(space) == 1;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    char value[4096];
    // What a shard need not have may be anything.
    if (is_text && is_one &&
        hirl_data_h5_read_text(file, path, name, value, sizeof value) == HIRL_OK) {
        size_t length = strlen(value);
        while (length > 0 && value[length - 1] == '\n') value[--length] = '\0';
        for (char *at = value; *at; at++) {
            if (*at == '\n') *at = ';';
        }
        return hirl_text_append(text, "  %s = '%s'\n", name, value);
    }
    if (is_integer && is_one) {
        int64_t number = 0;
        HIRL_TRY(hirl_data_h5_read_int(file, path, name, &number));
        return hirl_text_append(text, "  %s = %lld\n", name, (long long)number);
    }
    return hirl_text_append(text, "  %s = (neither a text of fixed length nor an integer)\n", name);
}

static herr_t visit_attribute(hid_t file, const char *name, const H5A_info_t *info, void *data) {
    (void)info;
    describe_t *describe = data;
    describe->status = describe_attribute(file, describe->path, name, describe->text);
    return describe->status == HIRL_OK ? 0 : 1;
}

static hirl_status_t name_type(hid_t type, char *buf, size_t size) {
    size_t bytes = H5Tget_size(type);
    switch (H5Tget_class(type)) {
        case H5T_INTEGER:
            return hirl_text_format(buf, size, "%c%zu",
                                    H5Tget_sign(type) == H5T_SGN_NONE ? 'u' : 'i', 8 * bytes);
        case H5T_FLOAT: return hirl_text_format(buf, size, "f%zu", 8 * bytes);
        case H5T_STRING:
            return H5Tis_variable_str(type) > 0 ? hirl_text_format(buf, size, "text")
                                                : hirl_text_format(buf, size, "text(%zu)", bytes);
        default: return hirl_text_format(buf, size, "other");
    }
}

static hirl_status_t describe_object(hid_t file, const char *path, const char *name,
                                     hirl_text_t *text) {
    hid_t object =
        hirl_data_h5_is_own(file, name) ? H5Dopen2(file, name, H5P_DEFAULT) : H5I_INVALID_HID;
    if (object < 0) return hirl_text_append(text, "  /%-14s (not an array)\n", name);
    // HDF5 would open the files that a virtual object names.
    hid_t plist = H5Dget_create_plist(object);
    const bool is_virtual = plist < 0 || H5Pget_layout(plist) == H5D_VIRTUAL;
    H5Pclose(plist);
    if (is_virtual) {
        H5Dclose(object);
        return hirl_text_append(text, "  /%-14s (virtual)\n", name);
    }
    hid_t type = H5Dget_type(object), space = H5Dget_space(object);
    char type_name[32], shape[64 + 24 * H5S_MAX_RANK] = "";
    hsize_t dims[H5S_MAX_RANK];
    int rank = H5Sget_simple_extent_dims(space, dims, NULL);
    size_t at = 0;
    hirl_status_t status = name_type(type, type_name, sizeof type_name);
    for (int d = 0; status == HIRL_OK && d < rank; d++) {
        status = hirl_text_format(shape + at, sizeof shape - at, "%s%llu", d ? ", " : "",
                                  (unsigned long long)dims[d]);
        at = strlen(shape);
    }
    char bytes[32];
    double stored = (double)H5Dget_storage_size(object);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(object);
    HIRL_TRY(status);
    HIRL_REQUIRE(rank >= 0, HIRL_ERR_FORMAT, "shard %s: /%s has no shape", path, name);
    return hirl_text_append(text, "  /%-14s %-9s [%s], %s\n", name, type_name, shape,
                            hirl_text_bytes(bytes, stored));
}

static herr_t visit_object(hid_t file, const char *name, const H5L_info_t *info, void *data) {
    (void)info;
    describe_t *describe = data;
    describe->status = describe_object(file, describe->path, name, describe->text);
    return describe->status == HIRL_OK ? 0 : 1;
}

static hirl_status_t describe_file(const char *path, hirl_text_t *text) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    HIRL_TRY_H5(file, path, "cannot open the shard");
    describe_t describe = {path, text, HIRL_OK};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_text_append(text, "attributes\n"), status, done);
    HIRL_TRY_H5_GOTO(
        H5Aiterate2(file, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_attribute, &describe), path,
        "attributes", status, done);
    HIRL_TRY_GOTO(describe.status, status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "objects\n"), status, done);
    HIRL_TRY_H5_GOTO(H5Literate(file, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_object, &describe),
                     path, "objects", status, done);
    status = describe.status;
done:
    H5Fclose(file);
    return status;
}

// -------------------------------------------------------------------------------------- samples

static hirl_status_t describe_range(const char *name, const int32_t *value, int64_t n,
                                    hirl_text_t *text) {
    int32_t least = value[0], most = value[0];
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (value[i] < least) least = value[i];
        if (value[i] > most) most = value[i];
        sum += value[i];
    }
    return hirl_text_append(text, "  %s = %d to %d, mean %.1f\n", name, least, most,
                            sum / (double)n);
}

static hirl_status_t describe_bytes(const hirl_shard_index_t *index, hirl_text_t *text) {
    int64_t least = index->offset[1] - index->offset[0], most = least;
    for (int64_t i = 0; i < index->n; i++) {
        int64_t size = index->offset[i + 1] - index->offset[i];
        if (size < least) least = size;
        if (size > most) most = size;
    }
    return hirl_text_append(text, "  bytes = %lld to %lld, mean %.1f\n", (long long)least,
                            (long long)most, (double)index->data_size / (double)index->n);
}

static int compare_labels(const void *a, const void *b) {
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static hirl_status_t describe_class(const hirl_class_table_t *classes, int label, int64_t count,
                                    hirl_text_t *text) {
    const bool is_named = label < classes->n;
    const char *name = is_named ? classes->name + (size_t)label * (size_t)classes->width : "";
    HIRL_TRY(hirl_text_append(text, "  %d%s%s%s: %lld samples", label, name[0] ? " '" : "", name,
                              name[0] ? "'" : "", (long long)count));
    if (is_named && classes->parent && classes->parent[label] >= 0)
        HIRL_TRY(hirl_text_append(text, ", of class %d", classes->parent[label]));
    return hirl_text_append(text, "\n");
}

// Classes with a name, and others that occur: a label alone may be large in a small file.
static hirl_status_t describe_classes(const hirl_shard_index_t *index, hirl_text_t *text) {
    const hirl_class_table_t *classes = &index->classes;
    int32_t *label = NULL;
    int64_t i = 0;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, index->n, &label));
    memcpy(label, index->label, (size_t)index->n * sizeof *label);
    qsort(label, (size_t)index->n, sizeof *label, compare_labels);
    while (i < index->n && label[i] < 0) i++;
    hirl_status_t status =
        hirl_text_append(text, "classes\n  unlabelled: %lld samples\n", (long long)i);
    for (int c = 0; status == HIRL_OK && (c < classes->n || i < index->n); c++) {
        if (c >= classes->n) c = label[i];
        const int64_t begun = i;
        while (i < index->n && label[i] == c) i++;
        status = describe_class(classes, c, i - begun, text);
    }
    hirl_mem_free(label);
    return status;
}

// Names in a file may hold anything; a terminal shall not obey them.
static void replace_controls(char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '\n' && iscntrl((unsigned char)text[i])) text[i] = '?';
    }
}

hirl_status_t hirl_shard_describe(const char *path, hirl_text_t *text) {
    hirl_shard_index_t index;
    HIRL_TRY(hirl_shard_index_load(path, &index));
    size_t begun = text->size;
    char bytes[32];
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_text_append(text, "shard %s, %s\n", path,
                                   hirl_text_bytes(bytes, (double)index.file_size)),
                  status, done);
    hirl_data_h5_quiet_t quiet = hirl_data_h5_quiet_begin();
    status = describe_file(path, text);
    hirl_data_h5_quiet_end(quiet);
    HIRL_TRY_GOTO(status, status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "samples\n"), status, done);
    HIRL_TRY_GOTO(describe_range("height", index.height, index.n, text), status, done);
    HIRL_TRY_GOTO(describe_range("width", index.width, index.n, text), status, done);
    HIRL_TRY_GOTO(describe_range("channels", index.channels, index.n, text), status, done);
    HIRL_TRY_GOTO(describe_bytes(&index, text), status, done);
    status = describe_classes(&index, text);
done:
    if (text->data) replace_controls(text->data + begun, text->size - begun);
    hirl_shard_index_reset(&index);
    return status;
}

bool hirl_shard_is_shard(const char *path) {
    hirl_data_h5_quiet_t quiet = hirl_data_h5_quiet_begin();
    char format[64] = "";
    struct stat found;
    if (stat(path, &found) == 0 && S_ISREG(found.st_mode) && H5Fis_hdf5(path) > 0) {
        hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        if (file >= 0) {
            (void)hirl_data_h5_read_text(file, path, "format", format, sizeof format);
            H5Fclose(file);
        }
    }
    hirl_data_h5_quiet_end(quiet);
    return strcmp(format, "hirl-shard") == 0;
}
