// Writing: everything goes to a temporary name in the same folder and takes its place by a rename,
// so that a file is whole or absent at any moment. The marker of a checkpoint is written after the
// arrays have reached the disk.
#include "ckpt_impl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "driver_impl.h"
#include "folder_impl.h"

// ------------------------------------------------------------------------------------ attributes

static hirl_status_t write_attribute(hid_t object, const char *path, const char *name,
                                     hid_t file_type, hid_t memory_type, const void *value) {
    hirl_status_t status = HIRL_OK;
    hid_t space = H5Screate(H5S_SCALAR), attribute = H5I_INVALID_HID;
    HIRL_TRY_H5(space, "%s: cannot describe attribute %s", path, name);
    attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    HIRL_TRY_H5_GOTO(attribute, status, done, "%s: cannot make attribute %s", path, name);
    HIRL_TRY_H5_GOTO(H5Awrite(attribute, memory_type, value), status, done,
                     "%s: cannot write attribute %s", path, name);
done:
    if (attribute >= 0 && H5Aclose(attribute) < 0 && status == HIRL_OK) {
        status = HIRL_FAIL_H5("%s: cannot close attribute %s", path, name);
    }
    H5Sclose(space);
    return status;
}

static hirl_status_t write_integer(hid_t object, const char *path, const char *name,
                                   int64_t value) {
    return write_attribute(object, path, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value);
}

static hirl_status_t write_hash(hid_t object, const char *path, const char *name, uint64_t value) {
    return write_attribute(object, path, name, H5T_STD_U64LE, H5T_NATIVE_UINT64, &value);
}

static hirl_status_t write_text(hid_t object, const char *path, const char *name,
                                const char *text) {
    const size_t size = strlen(text);
    HIRL_REQUIRE(size <= HIRL_CKPT_TEXT_MAX, HIRL_ERR_ARG,
                 "%s: attribute %s: a text of %zu bytes, expected at most %d", path, name, size,
                 HIRL_CKPT_TEXT_MAX);
    hirl_status_t status = HIRL_OK;
    hid_t type = H5Tcopy(H5T_C_S1);
    HIRL_TRY_H5(type, "%s: cannot describe attribute %s", path, name);
    // HDF5 has no text of no bytes; readers drop the padding.
    HIRL_TRY_H5_GOTO(H5Tset_size(type, size ? size : 1), status, done,
                     "%s: cannot size attribute %s", path, name);
    HIRL_TRY_H5_GOTO(H5Tset_strpad(type, H5T_STR_NULLPAD), status, done,
                     "%s: cannot pad attribute %s", path, name);
    HIRL_TRY_H5_GOTO(H5Tset_cset(type, H5T_CSET_UTF8), status, done,
                     "%s: cannot encode attribute %s", path, name);
    status = write_attribute(object, path, name, type, type, text);
done:
    H5Tclose(type);
    return status;
}

static hirl_status_t write_meta(hid_t file, const char *path, const hirl_ckpt_meta_t *meta) {
    HIRL_TRY(write_text(file, path, "format", HIRL_CKPT_FORMAT));
    HIRL_TRY(write_integer(file, path, "version", HIRL_CKPT_VERSION));
    HIRL_TRY(write_integer(file, path, "step", meta->step));
    HIRL_TRY(write_integer(file, path, "epoch", meta->epoch));
    HIRL_TRY(write_integer(file, path, "batch", meta->batch));
    HIRL_TRY(write_integer(file, path, "samples_seen", meta->samples_seen));
    HIRL_TRY(write_integer(file, path, "seed", meta->seed));
    HIRL_TRY(write_text(file, path, "method", meta->method));
    HIRL_TRY(write_text(file, path, "hierarchy", meta->hierarchy));
    HIRL_TRY(write_text(file, path, "deck", meta->deck));
    return write_text(file, path, "build", hirl_build_info_text());
}

// ------------------------------------------------------------------------------------ arrays

// Makes the groups that the array lies in. HDF5 would make them with the time of day.
static hirl_status_t make_groups(hid_t file, const char *path, hid_t links, hid_t groups,
                                 const char *name) {
    char part[HIRL_CKPT_NAME_MAX];
    strcpy(part, name);
    for (char *at = strchr(part + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        const htri_t is_there = H5Lexists(file, part, H5P_DEFAULT);
        HIRL_TRY_H5(is_there, "%s: cannot make array %s: %s is no group", path, name, part);
        if (is_there == 0) {
            hid_t group = H5Gcreate2(file, part, links, groups, H5P_DEFAULT);
            HIRL_TRY_H5(group, "%s: cannot make group %s", path, part);
            HIRL_TRY_H5(H5Gclose(group), "%s: cannot close group %s", path, part);
        }
        *at = '/';
    }
    return HIRL_OK;
}

static hirl_status_t write_array(hid_t file, const char *path, hid_t links, hid_t layout,
                                 const hirl_ckpt_array_t *array, uint64_t *checksum_p) {
    hirl_status_t status = HIRL_OK;
    int64_t n_items = 0;
    hsize_t shape[HIRL_CKPT_AXES_MAX];
    hid_t set = H5I_INVALID_HID;
    HIRL_TRY(
        hirl_ckpt_count_items(array->name, array->type, array->n_axes, array->shape, &n_items));
    for (int i = 0; i < array->n_axes; i++) shape[i] = (hsize_t)array->shape[i];
    hid_t space =
        array->n_axes ? H5Screate_simple(array->n_axes, shape, NULL) : H5Screate(H5S_SCALAR);
    HIRL_TRY_H5(space, "%s: cannot describe array %s", path, array->name);
    set = H5Dcreate2(file, array->name, hirl_ckpt_file_type(array->type), space, links, layout,
                     H5P_DEFAULT);
    HIRL_TRY_H5_GOTO(set, status, done, "%s: cannot make array %s", path, array->name);
    if (n_items > 0) {
        HIRL_TRY_H5_GOTO(H5Dwrite(set, hirl_ckpt_memory_type(array->type), H5S_ALL, H5S_ALL,
                                  H5P_DEFAULT, array->data),
                         status, done, "%s: cannot write array %s", path, array->name);
    }
    uint64_t checksum =
        hirl_hash64(array->data, (size_t)n_items * hirl_ckpt_item_size(array->type));
    HIRL_TRY_GOTO(write_hash(set, path, "xxh64", checksum), status, done);
    *checksum_p = checksum;
done:
    if (set >= 0 && H5Dclose(set) < 0 && status == HIRL_OK) {
        status = HIRL_FAIL_H5("%s: cannot close array %s", path, array->name);
    }
    H5Sclose(space);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const hirl_ckpt_array_t *)a)->name, ((const hirl_ckpt_array_t *)b)->name);
}

// A sorted copy of the list, whose names are good and different.
static hirl_status_t sort_arrays(const char *path, const hirl_ckpt_array_t *arrays, int n_arrays,
                                 hirl_ckpt_array_t **sorted_p, int64_t *bytes_p) {
    HIRL_REQUIRE(n_arrays >= 0 && (arrays || n_arrays == 0), HIRL_ERR_ARG,
                 "%s: a list of %d arrays cannot be", path, n_arrays);
    int64_t bytes = 0;
    for (int i = 0; i < n_arrays; i++) {
        int64_t n_items = 0;
        HIRL_REQUIRE(
            hirl_ckpt_is_name(arrays[i].name), HIRL_ERR_ARG,
            "%s: '%s' cannot name an array; expected '/part/part' of printable characters, "
            "no part empty, '.' or '..', less than %d bytes",
            path, arrays[i].name ? arrays[i].name : "(null)", HIRL_CKPT_NAME_MAX);
        HIRL_TRY(hirl_ckpt_count_items(arrays[i].name, arrays[i].type, arrays[i].n_axes,
                                       arrays[i].shape, &n_items));
        HIRL_REQUIRE(arrays[i].data || n_items == 0, HIRL_ERR_ARG, "%s: array %s has no data", path,
                     arrays[i].name);
        n_items *= (int64_t)hirl_ckpt_item_size(arrays[i].type);
        HIRL_REQUIRE(!__builtin_add_overflow(bytes, n_items, &bytes), HIRL_ERR_ARG,
                     "%s: the arrays ask for more bytes than a file can have", path);
    }
    hirl_ckpt_array_t *sorted = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_arrays, &sorted));
    if (n_arrays > 0) {
        memcpy(sorted, arrays, (size_t)n_arrays * sizeof *arrays);
        qsort(sorted, (size_t)n_arrays, sizeof *sorted, by_name);
    }
    for (int i = 1; i < n_arrays; i++) {
        if (strcmp(sorted[i - 1].name, sorted[i].name) == 0) {
            hirl_status_t status =
                HIRL_FAIL(HIRL_ERR_ARG, "%s: array %s is given twice", path, sorted[i].name);
            hirl_mem_free(sorted);
            return status;
        }
    }
    *sorted_p = sorted;
    *bytes_p = bytes;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ file

static hirl_status_t write_arrays(hid_t file, const hirl_ckpt_sink_t *sink, const char *path,
                                  const hirl_ckpt_array_t *sorted, uint64_t *checksums,
                                  int n_arrays) {
    hirl_status_t status = HIRL_OK;
    hid_t links = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE);
    hid_t groups = H5Pcreate(H5P_GROUP_CREATE);
    if (links < 0 || layout < 0 || groups < 0) {
        status = HIRL_FAIL_H5("%s: cannot make properties", path);
        goto done;
    }
    HIRL_TRY_H5_GOTO(H5Pset_char_encoding(links, H5T_CSET_UTF8), status, done,
                     "%s: cannot ask for UTF-8", path);
    HIRL_TRY_H5_GOTO(H5Pset_layout(layout, H5D_CONTIGUOUS), status, done,
                     "%s: cannot ask for contiguous arrays", path);
    HIRL_TRY_H5_GOTO(H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER), status, done,
                     "%s: cannot switch filling off", path);
    // Equal content gives equal files.
    HIRL_TRY_H5_GOTO(H5Pset_obj_track_times(layout, false), status, done,
                     "%s: cannot switch times off", path);
    HIRL_TRY_H5_GOTO(H5Pset_obj_track_times(groups, false), status, done,
                     "%s: cannot switch times off", path);
    for (int i = 0; i < n_arrays; i++) {
        HIRL_TRY_GOTO(make_groups(file, path, links, groups, sorted[i].name), status, done);
        HIRL_TRY_GOTO(write_array(file, path, links, layout, &sorted[i], &checksums[i]), status,
                      done);
        HIRL_TRY_GOTO(hirl_ckpt_sink_check(sink, path), status, done);
        if (i == n_arrays / 2) hirl_fault_kill("checkpoint_half");
    }
done:
    if (groups >= 0) H5Pclose(groups);
    if (links >= 0) H5Pclose(links);
    if (layout >= 0) H5Pclose(layout);
    return status;
}

static hirl_status_t create_file(hirl_ckpt_sink_t *sink, const char *path, hid_t *file_p) {
    hid_t access = H5I_INVALID_HID, creation = H5I_INVALID_HID, file = H5I_INVALID_HID;
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_ckpt_h5_access(&access), status, done);
    HIRL_TRY_GOTO(hirl_ckpt_sink_attach(sink, access, path), status, done);
    creation = H5Pcreate(H5P_FILE_CREATE);
    HIRL_TRY_H5_GOTO(creation, status, done, "%s: cannot make properties", path);
    HIRL_TRY_H5_GOTO(H5Pset_obj_track_times(creation, false), status, done,
                     "%s: cannot switch times off", path);
    // Attributes outside the root's header may be longer than 64 KiB, which a deck can be.
    HIRL_TRY_H5_GOTO(H5Pset_attr_phase_change(creation, 0, 0), status, done,
                     "%s: cannot choose how attributes are stored", path);
    file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    HIRL_TRY_H5_GOTO(file, status, done, "%s: cannot create it", path);
    *file_p = file;
done:
    if (creation >= 0) H5Pclose(creation);
    if (access >= 0) H5Pclose(access);
    return status;
}

// Fills the file; `meta` is NULL for a general file.
static hirl_status_t write_content(hirl_ckpt_sink_t *sink, const char *path,
                                   const hirl_ckpt_meta_t *meta, const hirl_ckpt_array_t *sorted,
                                   int n_arrays) {
    hid_t file = H5I_INVALID_HID;
    uint64_t *checksums = NULL, digest = 0;
    hirl_status_t status;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_arrays, &checksums));
    HIRL_TRY_GOTO(create_file(sink, path, &file), status, done);
    if (meta) HIRL_TRY_GOTO(write_meta(file, path, meta), status, done);
    HIRL_TRY_GOTO(write_arrays(file, sink, path, sorted, checksums, n_arrays), status, done);
    if (meta) {
        HIRL_TRY_H5_GOTO(H5Fflush(file, H5F_SCOPE_GLOBAL), status, done,
                         "%s: cannot bring it to disk", path);
        HIRL_TRY_GOTO(hirl_ckpt_sink_sync(sink, path), status, done);
        HIRL_TRY_GOTO(
            hirl_ckpt_digest(meta, hirl_build_info_text(), sorted, checksums, n_arrays, &digest),
            status, done);
        HIRL_TRY_GOTO(write_hash(file, path, "complete", digest), status, done);
    }
done:
    if (file >= 0 && H5Fclose(file) < 0 && status == HIRL_OK) {
        status = HIRL_FAIL_H5("%s: cannot close it", path);
    }
    hirl_mem_free(checksums);
    return status;
}

static hirl_status_t write_temporary(const char *temporary, const char *path,
                                     const hirl_ckpt_meta_t *meta, const hirl_ckpt_array_t *sorted,
                                     int n_arrays) {
    hirl_ckpt_sink_t sink;
    HIRL_TRY(hirl_ckpt_sink_init(&sink, temporary, path));
    hirl_status_t status = write_content(&sink, path, meta, sorted, n_arrays);
    // A failed write is the cause of whatever HDF5 met after it.
    if (sink.cause != 0) status = hirl_ckpt_sink_check(&sink, path);
    if (status == HIRL_OK) status = hirl_ckpt_sink_sync(&sink, path);
    hirl_ckpt_sink_reset(&sink);
    if (status != HIRL_OK) unlink(temporary);
    return status;
}

// A disk that is too small is named before anything is written.
static hirl_status_t check_room(const char *folder, const char *path, int64_t bytes, int n_arrays) {
    struct statvfs disk;
    if (statvfs(folder, &disk) != 0) return HIRL_OK; // the write itself will tell
    const double need = (double)bytes + 1024.0 * n_arrays + 65536;
    const double room = (double)disk.f_bavail * (double)disk.f_frsize;
    char need_text[32], room_text[32];
    HIRL_REQUIRE(need <= room, HIRL_ERR_IO, "%s: it needs %s, but its disk has room for %s", path,
                 hirl_text_bytes(need_text, need), hirl_text_bytes(room_text, room));
    return HIRL_OK;
}

static hirl_status_t write_whole(const char *folder, const char *temporary, const char *path,
                                 const hirl_ckpt_meta_t *meta, const hirl_ckpt_array_t *arrays,
                                 int n_arrays) {
    hirl_ckpt_array_t *sorted = NULL;
    int64_t bytes = 0;
    hirl_status_t status;
    hirl_ckpt_h5_quiet();
    HIRL_TRY(sort_arrays(path, arrays, n_arrays, &sorted, &bytes));
    HIRL_TRY_GOTO(check_room(folder, path, bytes, n_arrays), status, done);
    HIRL_TRY_GOTO(write_temporary(temporary, path, meta, sorted, n_arrays), status, done);
    if (meta) hirl_fault_kill("checkpoint_rename");
    if (rename(temporary, path) != 0) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%s: cannot move it into place: %s", path, strerror(errno));
        unlink(temporary);
        goto done;
    }
    hirl_ckpt_folder_sync(folder);
done:
    hirl_mem_free(sorted);
    return status;
}

hirl_status_t hirl_ckpt_write(const char *folder, const hirl_ckpt_meta_t *meta,
                              const hirl_ckpt_array_t *arrays, int n_arrays, int64_t keep) {
    char path[PATH_MAX], temporary[PATH_MAX];
    HIRL_REQUIRE(folder && folder[0], HIRL_ERR_ARG, "the folder of checkpoints has no name");
    HIRL_REQUIRE(meta && meta->method && meta->hierarchy && meta->deck, HIRL_ERR_ARG,
                 "%s: a checkpoint needs method, hierarchy and deck", folder);
    HIRL_REQUIRE(meta->step >= 0, HIRL_ERR_ARG, "%s: a checkpoint of step %lld", folder,
                 (long long)meta->step);
    HIRL_REQUIRE(keep >= 1, HIRL_ERR_ARG,
                 "%s: checkpoint%%keep = %lld, expected 1 or more: the one just written stays",
                 folder, (long long)keep);
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/checkpoint-%08lld.h5", folder,
                              (long long)meta->step));
    HIRL_TRY(hirl_text_format(temporary, sizeof temporary, "%s/.checkpoint-%08lld.h5.tmp", folder,
                              (long long)meta->step));
    HIRL_TRY(hirl_path_make_folder(folder));
    hirl_ckpt_folder_remove_stale(folder);
    HIRL_TRY(write_whole(folder, temporary, path, meta, arrays, n_arrays));
    hirl_fault_kill("checkpoint_keep");
    hirl_ckpt_folder_keep(folder, meta->step, keep);
    return HIRL_OK;
}

hirl_status_t hirl_arrays_write(const char *path, const hirl_ckpt_array_t *arrays, int n_arrays) {
    char folder[PATH_MAX], temporary[PATH_MAX];
    HIRL_REQUIRE(path && path[0], HIRL_ERR_ARG, "a file of arrays has no name");
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    HIRL_REQUIRE(name[0], HIRL_ERR_ARG, "%s: a file of arrays, but this names a folder", path);
    HIRL_TRY(hirl_text_format(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 2,
                              slash ? path : "./"));
    HIRL_TRY(hirl_text_format(temporary, sizeof temporary, "%s.%s-%ld.tmp", folder, name,
                              (long)getpid()));
    HIRL_TRY(hirl_path_make_folder(folder));
    return write_whole(folder, temporary, path, NULL, arrays, n_arrays);
}
