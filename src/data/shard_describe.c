// A shard in words, for task inspect: its attributes, objects, sizes of images and samples of each
// class.
#include "data_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static hirl_status_t describe_attribute(const hirl_h5_t *file, const char *path,
                                        const hirl_h5_attribute_t *attribute, hirl_text_t *text) {
    const char *name = attribute->name;
    const bool is_text = attribute->type.form == HIRL_H5_TEXT,
               is_integer = hirl_data_h5_is_integer(&attribute->type),
               is_one = attribute->n_items == 1;
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
    int64_t number = 0;
    if (is_integer && is_one && hirl_data_h5_read_int(file, path, name, &number) == HIRL_OK)
        return hirl_text_append(text, "  %s = %lld\n", name, (long long)number);
    return hirl_text_append(text, "  %s = (neither a text of fixed length nor an integer)\n", name);
}

static hirl_status_t name_type(const hirl_h5_type_t *type, char *buf, size_t size) {
    switch (type->form) {
        case HIRL_H5_INTEGER:
            return hirl_text_format(buf, size, "%c%u", type->is_signed ? 'i' : 'u', 8 * type->size);
        case HIRL_H5_REAL: return hirl_text_format(buf, size, "f%u", 8 * type->size);
        case HIRL_H5_TEXT: return hirl_text_format(buf, size, "text(%u)", type->size);
        case HIRL_H5_TEXT_VARIABLE: return hirl_text_format(buf, size, "text");
        default: return hirl_text_format(buf, size, "other");
    }
}

static hirl_status_t describe_object(const hirl_h5_t *file, const hirl_h5_link_t *link,
                                     hirl_text_t *text) {
    const hirl_h5_object_t *object =
        link->object >= 0 ? hirl_h5_object_view(file, link->object) : NULL;
    if (!object || object->kind != HIRL_H5_ARRAY) {
        return hirl_text_append(text, "  /%-14.*s (not an array)\n", link->n_name, link->name);
    }
    if (object->layout == HIRL_H5_VIRTUAL)
        return hirl_text_append(text, "  /%-14.*s (virtual)\n", link->n_name, link->name);
    char type_name[32], shape[64 + 24 * HIRL_H5_AXES_MAX] = "", bytes[32];
    size_t at = 0;
    HIRL_TRY(name_type(&object->type, type_name, sizeof type_name));
    for (int i = 0; i < object->n_axes; i++) {
        HIRL_TRY(hirl_text_format(shape + at, sizeof shape - at, "%s%lld", i ? ", " : "",
                                  (long long)object->shape[i]));
        at = strlen(shape);
    }
    return hirl_text_append(
        text, "  /%-14.*s %-9s [%s], %s\n", link->n_name, link->name, type_name, shape,
        object->layout == HIRL_H5_CHUNKED ? "in chunks"
                                          : hirl_text_bytes(bytes, (double)object->n_stored));
}

static hirl_status_t describe_file(const hirl_h5_t *file, const char *path, hirl_text_t *text) {
    const hirl_h5_object_t *root = hirl_h5_object_view(file, 0);
    const hirl_h5_attribute_t *attribute = hirl_h5_attributes_view(file, root);
    HIRL_TRY(hirl_text_append(text, "attributes\n"));
    for (int i = 0; i < root->n_attributes; i++) {
        HIRL_TRY(describe_attribute(file, path, &attribute[i], text));
    }
    HIRL_TRY(hirl_text_append(text, "objects\n"));
    for (int i = 0; i < root->n_links; i++) {
        HIRL_TRY(describe_object(file, hirl_h5_link_view(file, root->first_link + i), text));
    }
    return HIRL_OK;
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

// How many samples have this target.
static int64_t count_targets(const hirl_shard_index_t *index, int label, int value) {
    int64_t n = 0;
    for (int64_t i = 0; i < index->n; i++)
        n += index->target[i * index->n_targets + label] == value;
    return n;
}

static hirl_status_t describe_class(const hirl_shard_index_t *index, int label, int64_t count,
                                    hirl_text_t *text) {
    const hirl_class_table_t *classes = &index->classes;
    const bool is_named = label < classes->n;
    const char *name = is_named ? classes->name + (size_t)label * (size_t)classes->width : "";
    HIRL_TRY(hirl_text_append(text, "  %d%s%s%s: %lld samples", label, name[0] ? " '" : "", name,
                              name[0] ? "'" : "", (long long)count));
    if (is_named && classes->parent && classes->parent[label] >= 0)
        HIRL_TRY(hirl_text_append(text, ", of class %d", classes->parent[label]));
    if (label < index->n_targets)
        HIRL_TRY(hirl_text_append(text, ", in %lld, difficult in %lld",
                                  (long long)count_targets(index, label, 1),
                                  (long long)count_targets(index, label, 0)));
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
        status = describe_class(index, c, i - begun, text);
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
    hirl_shard_index_t index = {0};
    hirl_h5_t *file = NULL;
    size_t begun = text->size;
    char bytes[32];
    hirl_status_t status;
    HIRL_TRY(hirl_h5_open(path, &file));
    HIRL_TRY_GOTO(hirl_shard_index_read(file, path, &index), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "shard %s, %s\n", path,
                                   hirl_text_bytes(bytes, (double)index.file_size)),
                  status, done);
    HIRL_TRY_GOTO(describe_file(file, path, text), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "samples\n"), status, done);
    HIRL_TRY_GOTO(describe_range("height", index.height, index.n, text), status, done);
    HIRL_TRY_GOTO(describe_range("width", index.width, index.n, text), status, done);
    HIRL_TRY_GOTO(describe_range("channels", index.channels, index.n, text), status, done);
    HIRL_TRY_GOTO(describe_bytes(&index, text), status, done);
    status = describe_classes(&index, text);
done:
    if (text->data) replace_controls(text->data + begun, text->size - begun);
    hirl_shard_index_reset(&index);
    hirl_h5_close(&file);
    return status;
}

bool hirl_shard_is_shard(const char *path) {
    char format[64] = "";
    hirl_h5_t *file = NULL;
    if (hirl_h5_open(path, &file) != HIRL_OK) return false;
    (void)hirl_data_h5_read_text(file, path, "format", format, sizeof format);
    hirl_h5_close(&file);
    return strcmp(format, "hirl-shard") == 0;
}
