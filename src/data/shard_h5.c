// Attributes of shards. They are read by this program's own reader, and written by HDF5, with the
// library's own error text kept; HDF5 is called by one thread only.
#include "data_impl.h"

#include <stdio.h>
#include <string.h>

enum { H5_TEXT_MAX = 512 };

hirl_data_h5_quiet_t hirl_data_h5_quiet_begin(void) {
    hirl_data_h5_quiet_t quiet = {NULL, NULL};
    H5Eget_auto2(H5E_DEFAULT, &quiet.func, &quiet.data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return quiet;
}

void hirl_data_h5_quiet_end(hirl_data_h5_quiet_t quiet) {
    H5Eset_auto2(H5E_DEFAULT, quiet.func, quiet.data);
}

// Walked from the innermost failure outwards; the first one tells the cause. For failed reads and
// writes that is a long line of numbers, with the system's own words somewhere in it.
static herr_t keep_first(unsigned n, const H5E_error2_t *error, void *data) {
    if (n > 0) return 0;
    const char begun[] = "error message = '", *words = strstr(error->desc, begun);
    size_t length = strlen(error->desc);
    if (words) {
        words += strlen(begun);
        length = strcspn(words, "'");
    } else {
        words = error->desc;
    }
    snprintf(data, H5_TEXT_MAX, "%.*s (in %s)", (int)length, words, error->func_name);
    return 0;
}

hirl_status_t hirl_data_h5_fail(const char *file, int line, const char *func, const char *path,
                                const char *what) {
    char text[H5_TEXT_MAX] = "no cause given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, text);
    // Network file systems without locks fail like this.
    const char *remedy =
        strstr(text, "lock") ? "; HDF5_USE_FILE_LOCKING=FALSE in the environment avoids locks" : "";
    return hirl_error_record(HIRL_ERR_HDF5, file, line, func, "%s: %s: HDF5: %s%s", path, what,
                             text, remedy);
}

// -------------------------------------------------------------------------------------- reading

// An attribute of the root group that must be there and hold one value.
static hirl_status_t find_attribute(const hirl_h5_t *file, const char *path, const char *name,
                                    const hirl_h5_attribute_t **attribute_p) {
    const hirl_h5_attribute_t *found =
        hirl_h5_find_attribute_view(file, hirl_h5_object_view(file, 0), name);
    HIRL_REQUIRE(found, HIRL_ERR_FORMAT, "%s: attribute '%s' is missing", path, name);
    HIRL_REQUIRE(found->n_items == 1, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' has %lld values, expected 1", path, name,
                 (long long)found->n_items);
    *attribute_p = found;
    return HIRL_OK;
}

hirl_status_t hirl_data_h5_read_text(const hirl_h5_t *file, const char *path, const char *name,
                                     char *buf, size_t size) {
    const hirl_h5_attribute_t *attribute = NULL;
    HIRL_TRY(find_attribute(file, path, name, &attribute));
    HIRL_REQUIRE(attribute->type.form != HIRL_H5_TEXT_VARIABLE, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is a text of variable length, expected fixed length "
                 "(h5py: numpy.bytes_)",
                 path, name);
    HIRL_REQUIRE(attribute->type.form == HIRL_H5_TEXT, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is no text", path, name);
    HIRL_REQUIRE(attribute->type.size <= 65536, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is a text of %u bytes", path, name, attribute->type.size);
    return hirl_text_format(buf, size, "%.*s", (int)attribute->type.size,
                            (const char *)attribute->bytes);
}

bool hirl_data_h5_is_integer(const hirl_h5_type_t *type) {
    return type->form == HIRL_H5_INTEGER && !type->is_enum;
}

hirl_status_t hirl_data_h5_read_int(const hirl_h5_t *file, const char *path, const char *name,
                                    int64_t *value_p) {
    const hirl_h5_attribute_t *attribute = NULL;
    HIRL_TRY(find_attribute(file, path, name, &attribute));
    HIRL_REQUIRE(hirl_data_h5_is_integer(&attribute->type), HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is no integer", path, name);
    if (hirl_h5_convert(file, name, &attribute->type, attribute->bytes, 1, HIRL_H5_I64, value_p) !=
        HIRL_OK) {
        return HIRL_FAIL(HIRL_ERR_FORMAT, "%s", hirl_error_text_view());
    }
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- writing

// Writes one value of a type; closes nothing of the caller's.
static hirl_status_t write_attribute(hid_t file, const char *path, const char *name, hid_t stored,
                                     hid_t given, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_H5_GOTO(attribute, path, name, status, done);
    HIRL_TRY_H5_GOTO(H5Awrite(attribute, given, value), path, name, status, done);
done:
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return status;
}

hirl_status_t hirl_data_h5_write_text(hid_t file, const char *path, const char *name,
                                      const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    hirl_status_t status = write_attribute(file, path, name, type, type, text);
    H5Tclose(type);
    return status;
}

hirl_status_t hirl_data_h5_write_int(hid_t file, const char *path, const char *name, hid_t type,
                                     int64_t value) {
    return write_attribute(file, path, name, type, H5T_NATIVE_INT64, &value);
}
