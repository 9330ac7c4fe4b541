// Opening: the listing of a file's arrays, the checks of a checkpoint, and reading an array. HDF5's
// library, which trusts what a file says of itself, is not asked. Arrays of a checkpoint lie in one
// piece each, so that they are read and verified with pread at their offset.
#include "ckpt_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "folder_impl.h"

// Packed arrays of a general file may unfold to this many times the file's size: DEFLATE reaches
// 1032.
static const double UNFOLD_MAX = 2048;

// ------------------------------------------------------------------------------------ attributes

static const hirl_h5_object_t *root_view(const hirl_ckpt_t *ckpt) {
    return hirl_h5_object_view(ckpt->file, 0);
}

// An attribute that must be there and hold one value.
static hirl_status_t find_attribute(const hirl_ckpt_t *ckpt, const hirl_h5_object_t *object,
                                    const char *of, const char *name,
                                    const hirl_h5_attribute_t **attribute_p) {
    const hirl_h5_attribute_t *found = hirl_h5_find_attribute_view(ckpt->file, object, name);
    HIRL_REQUIRE(found, HIRL_ERR_FORMAT, "%s: attribute '%s' of %s is missing", ckpt->path, name,
                 of);
    HIRL_REQUIRE(found->n_items == 1, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' of %s has %lld values, expected 1", ckpt->path, name, of,
                 (long long)found->n_items);
    *attribute_p = found;
    return HIRL_OK;
}

// `number` is a 64-bit integer.
static hirl_status_t read_integer(const hirl_ckpt_t *ckpt, const hirl_h5_object_t *object,
                                  const char *of, const char *name, hirl_h5_number_t number,
                                  void *value_p) {
    const hirl_h5_attribute_t *attribute = NULL;
    HIRL_TRY(find_attribute(ckpt, object, of, name, &attribute));
    HIRL_REQUIRE(attribute->type.form == HIRL_H5_INTEGER && !attribute->type.is_enum,
                 HIRL_ERR_FORMAT, "%s: attribute '%s' of %s is no integer", ckpt->path, name, of);
    if (hirl_h5_convert(ckpt->file, name, &attribute->type, attribute->bytes, 1, number, value_p) !=
        HIRL_OK) {
        return HIRL_FAIL(HIRL_ERR_FORMAT, "%s", hirl_error_text_view());
    }
    return HIRL_OK;
}

static hirl_status_t read_text(const hirl_ckpt_t *ckpt, const char *name, char **text_p) {
    const hirl_h5_attribute_t *attribute = NULL;
    char *text = NULL;
    HIRL_TRY(find_attribute(ckpt, root_view(ckpt), "the file", name, &attribute));
    HIRL_REQUIRE(attribute->type.form == HIRL_H5_TEXT, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is no text of fixed length", ckpt->path, name);
    const size_t size = attribute->type.size;
    HIRL_REQUIRE(size <= HIRL_CKPT_TEXT_MAX, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' has %zu bytes, expected at most %d", ckpt->path, name, size,
                 HIRL_CKPT_TEXT_MAX);
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_GENERAL, size + 1, 1, (void **)&text));
    memcpy(text, attribute->bytes, size);
    *text_p = text;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ listing

// Type of the file's numbers; false if they are none that an array can hold.
static bool find_type(const hirl_h5_type_t *type, hirl_ckpt_type_t *type_p) {
    if (type->form == HIRL_H5_REAL) {
        *type_p = type->size == 8 ? HIRL_CKPT_F64 : HIRL_CKPT_F32;
        return true;
    }
    if (type->form != HIRL_H5_INTEGER) return false;
    if (type->size == 1 && (!type->is_signed || type->is_enum)) { // NumPy's truth values are enums
        *type_p = HIRL_CKPT_U8;
    } else {
        *type_p =
            type->size < 4 || (type->size == 4 && type->is_signed) ? HIRL_CKPT_I32 : HIRL_CKPT_I64;
    }
    return true;
}

// In a checkpoint the type is one of ours exactly.
static bool is_exact_type(const hirl_h5_type_t *type, hirl_ckpt_type_t *type_p) {
    if (type->is_big_endian || type->is_enum || !find_type(type, type_p)) return false;
    const bool is_unsigned = *type_p == HIRL_CKPT_U8;
    return hirl_ckpt_item_size(*type_p) == type->size && type->is_signed == !is_unsigned;
}

static hirl_status_t copy_shape(const hirl_ckpt_t *ckpt, const hirl_h5_object_t *object,
                                const char *name, hirl_ckpt_array_t *array) {
    HIRL_REQUIRE(object->n_axes <= HIRL_CKPT_AXES_MAX, HIRL_ERR_FORMAT,
                 "%s: array %s has %d axes, expected 0 to %d", ckpt->path, name, object->n_axes,
                 HIRL_CKPT_AXES_MAX);
    array->n_axes = object->n_axes;
    for (int i = 0; i < object->n_axes; i++) array->shape[i] = object->shape[i];
    return HIRL_OK;
}

// Chunks are unfolded one at a time, each in memory of its size, by filters that are sound.
static hirl_status_t check_chunks(const hirl_ckpt_t *ckpt, const hirl_h5_object_t *object,
                                  const char *name) {
    char size_text[32];
    HIRL_REQUIRE(object->n_chunk_axes == object->n_axes, HIRL_ERR_FORMAT,
                 "%s: array %s has %d axes and chunks of %d", ckpt->path, name, object->n_axes,
                 object->n_chunk_axes);
    HIRL_REQUIRE(
        (double)object->chunk_bytes <= UNFOLD_MAX * (double)ckpt->file_bytes, HIRL_ERR_FORMAT,
        "%s: array %s has chunks of %s, more than a file of %lld bytes can hold", ckpt->path, name,
        hirl_text_bytes(size_text, (double)object->chunk_bytes), (long long)ckpt->file_bytes);
    HIRL_REQUIRE(object->odd_filter == 0, HIRL_ERR_FORMAT,
                 "%s: array %s is packed by filter %d, expected gzip, shuffle or fletcher32",
                 ckpt->path, name, object->odd_filter);
    return HIRL_OK;
}

// Where the array's bytes are; refuses an array that the file cannot hold.
static hirl_status_t find_extent(const hirl_ckpt_t *ckpt, const hirl_h5_object_t *object,
                                 const hirl_ckpt_array_t *array, const char *name,
                                 hirl_ckpt_extent_t *extent) {
    const char *path = ckpt->path;
    if (hirl_ckpt_count_items(name, array->type, array->n_axes, array->shape, &extent->n_items) !=
        HIRL_OK) {
        return HIRL_FAIL(HIRL_ERR_FORMAT, "%s: %s", path, hirl_error_text_view());
    }
    extent->offset = -1;
    if (object->n_items == 0) extent->n_items = 0; // a "null" space
    if (extent->n_items == 0) return HIRL_OK;

    char size_text[32];
    const double bytes = (double)extent->n_items * (double)object->type.size;
    HIRL_REQUIRE(object->layout == HIRL_H5_CONTIGUOUS || !ckpt->is_checkpoint, HIRL_ERR_FORMAT,
                 "%s: array %s is not stored in one piece", path, name);
    if (object->layout == HIRL_H5_CHUNKED) {
        HIRL_REQUIRE(bytes <= UNFOLD_MAX * (double)ckpt->file_bytes, HIRL_ERR_FORMAT,
                     "%s: array %s claims %s, more than a file of %lld bytes can hold", path, name,
                     hirl_text_bytes(size_text, bytes), (long long)ckpt->file_bytes);
        return check_chunks(ckpt, object, name);
    }
    HIRL_REQUIRE((object->offset >= 0 || object->layout == HIRL_H5_COMPACT) &&
                     (double)object->n_stored == bytes,
                 HIRL_ERR_FORMAT,
                 "%s: array %s claims %s, which are not in this file of %lld bytes", path, name,
                 hirl_text_bytes(size_text, bytes), (long long)ckpt->file_bytes);
    if (object->layout == HIRL_H5_CONTIGUOUS) extent->offset = object->offset;
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

static hirl_status_t list_array(hirl_ckpt_t *ckpt, int number, const char *name) {
    const hirl_h5_object_t *object = hirl_h5_object_view(ckpt->file, number);
    hirl_ckpt_array_t array = {0};
    hirl_ckpt_extent_t extent = {.object = number};
    const bool is_known = ckpt->is_checkpoint ? is_exact_type(&object->type, &array.type)
                                              : find_type(&object->type, &array.type);
    if (!is_known && !ckpt->is_checkpoint) return HIRL_OK; // texts and records beside the numbers
    HIRL_REQUIRE(is_known, HIRL_ERR_FORMAT,
                 "%s: array %s: its type is none of f32, f64, i32, i64, u8 (little-endian)",
                 ckpt->path, name);
    HIRL_REQUIRE(object->layout != HIRL_H5_VIRTUAL && object->n_external == 0, HIRL_ERR_FORMAT,
                 "%s: array %s lies in other files; expected all data in this one", ckpt->path,
                 name);
    HIRL_TRY(copy_shape(ckpt, object, name, &array));
    HIRL_TRY(find_extent(ckpt, object, &array, name, &extent));
    if (ckpt->is_checkpoint)
        HIRL_TRY(read_integer(ckpt, object, name, "xxh64", HIRL_H5_U64, &extent.checksum));
    HIRL_TRY(grow_listing(ckpt));
    const size_t n_name = strlen(name) + 1;
    char *copy = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, n_name, (void **)&copy));
    array.name = memcpy(copy, name, n_name);
    ckpt->arrays[ckpt->n_arrays] = array;
    ckpt->extents[ckpt->n_arrays++] = extent;
    return HIRL_OK;
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

// Each object that hard links reach, by the first name that leads to it; links by name are not
// followed.
static hirl_status_t list_arrays(hirl_ckpt_t *ckpt) {
    char name[HIRL_CKPT_NAME_MAX];
    for (int i = 0; i < hirl_h5_n_objects(ckpt->file); i++) {
        HIRL_TRY(hirl_h5_path(ckpt->file, i, name, sizeof name));
        if (hirl_h5_object_view(ckpt->file, i)->kind != HIRL_H5_ARRAY) continue;
        HIRL_REQUIRE(hirl_ckpt_is_name(name), HIRL_ERR_FORMAT,
                     "%s: the name of an array has unprintable characters, or a part '.' or '..'",
                     ckpt->path);
        HIRL_TRY(list_array(ckpt, i, name));
    }
    if (ckpt->n_arrays == 0) return HIRL_OK;
    HIRL_TRY(sort_listing(ckpt));
    for (int i = 1; i < ckpt->n_arrays; i++) {
        HIRL_REQUIRE(strcmp(ckpt->arrays[i - 1].name, ckpt->arrays[i].name) != 0, HIRL_ERR_FORMAT,
                     "%s: array %s is there twice", ckpt->path, ckpt->arrays[i].name);
    }
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ open

static hirl_status_t open_file(const char *path, bool is_checkpoint, hirl_ckpt_t **ckpt_p) {
    hirl_status_t status;
    hirl_ckpt_t *ckpt = NULL;
    HIRL_REQUIRE(path && path[0], HIRL_ERR_ARG, "the file to open has no name");
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &ckpt));
    ckpt->is_checkpoint = is_checkpoint;
    HIRL_TRY_GOTO(hirl_mem_alloc(HIRL_MEM_GENERAL, strlen(path) + 1, (void **)&ckpt->path), status,
                  err_close);
    strcpy(ckpt->path, path);
    HIRL_TRY_GOTO(hirl_h5_open(path, &ckpt->file), status, err_close);
    ckpt->file_bytes = hirl_h5_file_size(ckpt->file);
    *ckpt_p = ckpt;
    return HIRL_OK;

err_close:
    hirl_ckpt_close(&ckpt);
    return status;
}

static hirl_status_t read_meta(hirl_ckpt_t *ckpt) {
    const char *path = ckpt->path;
    const hirl_h5_object_t *root = root_view(ckpt);
    char *format = NULL;
    int64_t version = 0;
    HIRL_REQUIRE(hirl_h5_find_attribute_view(ckpt->file, root, "format"), HIRL_ERR_FORMAT,
                 "%s: an HDF5 file, but not a checkpoint of this program (it has no attribute "
                 "'format')",
                 path);
    HIRL_TRY(read_text(ckpt, "format", &format));
    const bool is_ours = strcmp(format, HIRL_CKPT_FORMAT) == 0;
    hirl_status_t status = HIRL_OK;
    if (!is_ours) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: its format is '%.64s', expected '%s'", path,
                           format, HIRL_CKPT_FORMAT);
    }
    hirl_mem_free(format);
    HIRL_TRY(status);
    HIRL_TRY(read_integer(ckpt, root, "the file", "version", HIRL_H5_I64, &version));
    HIRL_REQUIRE(
        version == HIRL_CKPT_VERSION, HIRL_ERR_FORMAT,
        "%s: format version %lld, expected %d: use the program that wrote it, or a newer one", path,
        (long long)version, HIRL_CKPT_VERSION);
    HIRL_REQUIRE(hirl_h5_find_attribute_view(ckpt->file, root, "complete"), HIRL_ERR_FORMAT,
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
        HIRL_TRY(read_integer(ckpt, root, "the file", integers[i].name, HIRL_H5_I64,
                              integers[i].value_p));
    }
    HIRL_TRY(read_text(ckpt, "method", &ckpt->method));
    HIRL_TRY(read_text(ckpt, "hierarchy", &ckpt->hierarchy));
    HIRL_TRY(read_text(ckpt, "deck", &ckpt->deck));
    HIRL_TRY(read_text(ckpt, "build", &ckpt->build));
    ckpt->meta.method = ckpt->method;
    ckpt->meta.hierarchy = ckpt->hierarchy;
    ckpt->meta.deck = ckpt->deck;
    return HIRL_OK;
}

static hirl_status_t check_marker(const hirl_ckpt_t *ckpt) {
    uint64_t marker = 0, digest = 0, *checksums = NULL;
    HIRL_TRY(read_integer(ckpt, root_view(ckpt), "the file", "complete", HIRL_H5_U64, &marker));
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
    const int fd = hirl_h5_descriptor(ckpt->file);
    void *chunk = NULL;
    hirl_status_t status = HIRL_OK;
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
    hirl_h5_close(&it->file);
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
    const bool is_it = hirl_h5_find_attribute_view(ckpt->file, root_view(ckpt), "format") &&
                       read_text(ckpt, "format", &format) == HIRL_OK &&
                       strcmp(format, HIRL_CKPT_FORMAT) == 0;
    hirl_mem_free(format);
    hirl_ckpt_close(&ckpt);
    return is_it;
}

// ------------------------------------------------------------------------------------ read

static bool is_integer(hirl_ckpt_type_t type) {
    return type == HIRL_CKPT_I32 || type == HIRL_CKPT_I64 || type == HIRL_CKPT_U8;
}

static hirl_h5_number_t number_of(hirl_ckpt_type_t type) {
    switch (type) {
        case HIRL_CKPT_F32: return HIRL_H5_F32;
        case HIRL_CKPT_F64: return HIRL_H5_F64;
        case HIRL_CKPT_I32: return HIRL_H5_I32;
        case HIRL_CKPT_I64: return HIRL_H5_I64;
        default: return HIRL_H5_U8;
    }
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
    if (!ckpt->is_checkpoint) {
        return hirl_h5_read_numbers(ckpt->file, name,
                                    hirl_h5_object_view(ckpt->file, ckpt->extents[i].object),
                                    number_of(type), out);
    }
    const int fd = hirl_h5_descriptor(ckpt->file);
    const size_t size = (size_t)n_items * hirl_ckpt_item_size(type);
    HIRL_TRY(read_bytes(ckpt, fd, name, ckpt->extents[i].offset, out, size));
    return check_sum(ckpt, i, hirl_hash64(out, size));
}
