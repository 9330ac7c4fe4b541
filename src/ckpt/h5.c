// HDF5's error text and properties, and the types, shapes and names of arrays.
#include "ckpt_impl.h"

#include <stdio.h>
#include <string.h>

enum { CAUSE_MAX = 768 };

void hirl_ckpt_h5_quiet(void) { H5Eset_auto2(H5E_DEFAULT, NULL, NULL); }

// Walked from the innermost failure outwards: the first one is the cause.
static herr_t keep_cause(unsigned n, const H5E_error2_t *error, void *data) {
    if (n == 0) {
        snprintf(data, CAUSE_MAX, "%s (in %s)", error->desc ? error->desc : "?",
                 error->func_name ? error->func_name : "?");
    }
    return 0;
}

hirl_status_t hirl_ckpt_fail_h5(const char *file, int line, const char *func, const char *fmt,
                                ...) {
    char what[1024], cause[CAUSE_MAX] = "no cause given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_cause, cause);
    H5Eclear2(H5E_DEFAULT);
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return hirl_error_record(HIRL_ERR_HDF5, file, line, func, "%s: HDF5: %s", what, cause);
}

size_t hirl_ckpt_item_size(hirl_ckpt_type_t type) {
    switch (type) {
        case HIRL_CKPT_F32:
        case HIRL_CKPT_I32: return 4;
        case HIRL_CKPT_F64:
        case HIRL_CKPT_I64: return 8;
        case HIRL_CKPT_U8: return 1;
    }
    return 0;
}

const char *hirl_ckpt_type_name(hirl_ckpt_type_t type) {
    switch (type) {
        case HIRL_CKPT_F32: return "f32";
        case HIRL_CKPT_F64: return "f64";
        case HIRL_CKPT_I32: return "i32";
        case HIRL_CKPT_I64: return "i64";
        case HIRL_CKPT_U8: return "u8";
    }
    return "?";
}

hid_t hirl_ckpt_file_type(hirl_ckpt_type_t type) {
    switch (type) {
        case HIRL_CKPT_F32: return H5T_IEEE_F32LE;
        case HIRL_CKPT_F64: return H5T_IEEE_F64LE;
        case HIRL_CKPT_I32: return H5T_STD_I32LE;
        case HIRL_CKPT_I64: return H5T_STD_I64LE;
        case HIRL_CKPT_U8: return H5T_STD_U8LE;
    }
    return H5I_INVALID_HID;
}

hid_t hirl_ckpt_memory_type(hirl_ckpt_type_t type) {
    switch (type) {
        case HIRL_CKPT_F32: return H5T_NATIVE_FLOAT;
        case HIRL_CKPT_F64: return H5T_NATIVE_DOUBLE;
        case HIRL_CKPT_I32: return H5T_NATIVE_INT32;
        case HIRL_CKPT_I64: return H5T_NATIVE_INT64;
        case HIRL_CKPT_U8: return H5T_NATIVE_UINT8;
    }
    return H5I_INVALID_HID;
}

hirl_status_t hirl_ckpt_count_items(const char *name, hirl_ckpt_type_t type, int n_axes,
                                    const int64_t *shape, int64_t *n_items_p) {
    const size_t item = hirl_ckpt_item_size(type);
    HIRL_REQUIRE(item > 0, HIRL_ERR_ARG, "array %s: type %d does not exist", name, (int)type);
    HIRL_REQUIRE(n_axes >= 0 && n_axes <= HIRL_CKPT_AXES_MAX, HIRL_ERR_ARG,
                 "array %s: %d axes, expected 0 to %d", name, n_axes, HIRL_CKPT_AXES_MAX);
    int64_t n_items = 1;
    bool is_empty = false;
    for (int i = 0; i < n_axes; i++) {
        HIRL_REQUIRE(shape[i] >= 0, HIRL_ERR_ARG, "array %s: axis %d has length %lld", name, i,
                     (long long)shape[i]);
        is_empty |= shape[i] == 0;
    }
    for (int i = 0; i < n_axes && !is_empty; i++) {
        HIRL_REQUIRE(n_items <= INT64_MAX / (int64_t)item / shape[i], HIRL_ERR_ARG,
                     "array %s: its shape asks for more bytes than memory can have", name);
        n_items *= shape[i];
    }
    *n_items_p = is_empty ? 0 : n_items;
    return HIRL_OK;
}

bool hirl_ckpt_is_name(const char *name) {
    if (!name || name[0] != '/' || strlen(name) >= HIRL_CKPT_NAME_MAX) return false;
    const char *part = name + 1;
    for (const char *at = part;; at++) {
        const unsigned char c = (unsigned char)*at;
        if (c == '/' || c == '\0') {
            const size_t n = (size_t)(at - part);
            if (n == 0 || (n == 1 && part[0] == '.') ||
                (n == 2 && part[0] == '.' && part[1] == '.')) {
                return false;
            }
            if (c == '\0') return true;
            part = at + 1;
        } else if (c < 0x20 || c == 0x7f) {
            return false;
        }
    }
}

char *hirl_ckpt_shape_text(char buf[160], int n_axes, const int64_t *shape) {
    size_t used = 1;
    strcpy(buf, "[");
    for (int i = 0; i < n_axes && i < HIRL_CKPT_AXES_MAX; i++) {
        used +=
            (size_t)snprintf(buf + used, 160 - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    }
    strcpy(buf + used, "]");
    return buf;
}

hirl_status_t hirl_ckpt_digest(const hirl_ckpt_meta_t *meta, const char *build,
                               const hirl_ckpt_array_t *arrays, const uint64_t *checksums,
                               int n_arrays, uint64_t *digest_p) {
    hirl_text_t text = {0};
    hirl_status_t status;
    char shape[160];
    HIRL_TRY_GOTO(hirl_text_append(&text, "%s %d\n%lld %lld %lld %lld %lld\n", HIRL_CKPT_FORMAT,
                                   HIRL_CKPT_VERSION, (long long)meta->step, (long long)meta->epoch,
                                   (long long)meta->batch, (long long)meta->samples_seen,
                                   (long long)meta->seed),
                  status, done);
    const char *texts[] = {meta->method, meta->hierarchy, meta->deck, build};
    for (int i = 0; i < 4; i++) {
        const size_t size = strlen(texts[i]);
        HIRL_TRY_GOTO(hirl_text_append(&text, "%zu %016llx\n", size,
                                       (unsigned long long)hirl_hash64(texts[i], size)),
                      status, done);
    }
    for (int i = 0; i < n_arrays; i++) {
        HIRL_TRY_GOTO(
            hirl_text_append(&text, "%s %s %s %016llx\n", arrays[i].name,
                             hirl_ckpt_type_name(arrays[i].type),
                             hirl_ckpt_shape_text(shape, arrays[i].n_axes, arrays[i].shape),
                             (unsigned long long)checksums[i]),
            status, done);
    }
    *digest_p = hirl_hash64(text.data, text.size);
done:
    hirl_text_reset(&text);
    return status;
}

hirl_status_t hirl_ckpt_h5_access(hid_t *access_p) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    HIRL_TRY_H5(access, "cannot make file access properties");
    hirl_status_t status = HIRL_OK;
#if H5_VERSION_GE(1, 10, 7)
    HIRL_TRY_H5_GOTO(H5Pset_file_locking(access, false, true), status, err_close,
                     "cannot switch file locks off");
#endif
    // Closing the file closes what is left open in it after a failure.
    HIRL_TRY_H5_GOTO(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), status, err_close,
                     "cannot set how files close");
    HIRL_TRY_H5_GOTO(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18), status,
                     err_close, "cannot choose the format's version");
    *access_p = access;
    return HIRL_OK;

err_close:
    H5Pclose(access);
    return status;
}
