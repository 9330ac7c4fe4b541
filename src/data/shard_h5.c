// HDF5 calls that shards need more than once, with the library's own error text kept. Called by one
// thread only.
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

bool hirl_data_h5_has_attribute(hid_t file, const char *name) { return H5Aexists(file, name) > 0; }

// Integers of other widths, or with bits that do not count, go through conversions of HDF5 that
// trust the file.
bool hirl_data_h5_is_integer(hid_t type) {
    const size_t size = H5Tget_size(type);
    return H5Tget_class(type) == H5T_INTEGER &&
           (size == 1 || size == 2 || size == 4 || size == 8) &&
           H5Tget_precision(type) == 8 * size && H5Tget_offset(type) == 0;
}

bool hirl_data_h5_is_own(hid_t file, const char *name) {
    H5L_info_t info;
    return H5Lget_info(file, name, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
}

// Opens an attribute that must be there and hold one value.
static hirl_status_t open_attribute(hid_t file, const char *path, const char *name,
                                    hid_t *attribute_p) {
    HIRL_REQUIRE(hirl_data_h5_has_attribute(file, name), HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is missing", path, name);
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT);
    HIRL_TRY_H5(attribute, path, name);
    hid_t space = H5Aget_space(attribute);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    if (n != 1) {
        H5Aclose(attribute);
        return HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' has %lld values, expected 1", path,
                         name, (long long)n);
    }
    *attribute_p = attribute;
    return HIRL_OK;
}

static hirl_status_t read_fixed_text(hid_t attribute, hid_t type, const char *path,
                                     const char *name, char *buf, size_t size) {
    size_t stored = H5Tget_size(type);
    HIRL_REQUIRE(stored > 0 && stored <= 65536, HIRL_ERR_FORMAT,
                 "%s: attribute '%s' is a text of %zu bytes", path, name, stored);
    void *text = NULL;
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, stored + 1, 1, &text));
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_H5_GOTO(H5Aread(attribute, type, text), path, name, status, done);
    status = hirl_text_format(buf, size, "%s", (char *)text);
done:
    hirl_mem_free(text);
    return status;
}

hirl_status_t hirl_data_h5_read_text(hid_t file, const char *path, const char *name, char *buf,
                                     size_t size) {
    hid_t attribute = H5I_INVALID_HID;
    HIRL_TRY(open_attribute(file, path, name, &attribute));
    hid_t type = H5Aget_type(attribute);
    hirl_status_t status = HIRL_OK;
    if (H5Tget_class(type) != H5T_STRING) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' is no text", path, name);
    } else if (H5Tis_variable_str(type) != 0) {
        // HDF5 would allocate what the attribute claims, and copy what another place of the file
        // claims into that.
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "%s: attribute '%s' is a text of variable length, expected fixed length "
                           "(h5py: numpy.bytes_)",
                           path, name);
    } else {
        status = read_fixed_text(attribute, type, path, name, buf, size);
    }
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

hirl_status_t hirl_data_h5_read_int(hid_t file, const char *path, const char *name,
                                    int64_t *value_p) {
    hid_t attribute = H5I_INVALID_HID;
    HIRL_TRY(open_attribute(file, path, name, &attribute));
    hid_t type = H5Aget_type(attribute);
    hirl_status_t status = HIRL_OK;
    int64_t value = 0;
    if (!hirl_data_h5_is_integer(type)) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: attribute '%s' is no integer", path, name);
        goto done;
    }
    HIRL_TRY_H5_GOTO(H5Aread(attribute, H5T_NATIVE_INT64, &value), path, name, status, done);
    *value_p = value;
done:
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

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
