// test: timeout=60
// Shards that are broken in one thing each: every one is refused with a message that names the
// shard, the object, what was found and what was expected. They are written with HDF5 alone, as
// another program would.
#include "pack_util.h"

#include <hdf5.h>

static hirl_world_t *world;

// Three raw samples of 2 x 3, 1 x 5 and 2 x 2 x 3 bytes.
enum { N = 3, TOTAL = 6 + 5 + 12 };

// What goes into a shard; the cases below change one thing of a good one.
typedef struct shard {
    const char *format, *encoding; // NULL: not written
    int version, n_samples;
    bool is_version_text, is_chunked, is_compact, is_wide, is_float, is_2d, is_unwritten,
        is_external;
    const char *missing; // an object that is not written
    const char *shorter; // an object with one element less
    const char *packed;  // an object in chunks, by a filter
    const char *outside; // an object whose bytes are in another file
    const char *virtual; // an object that is a view of another file's
    const char *linked;  // an object that is a link to another file's
    const char *soft;    // an object that is a link to a name
    const char *odd;     // an object of integers that do not use all their bits
    const char *unwritten;
    int64_t offset[N + 1];
    int32_t height[N], width[N], channels[N], label[N];
    int n_classes;
    bool is_class_variable, has_parent;
    int32_t parent[3];
    int n_targets; // 0: no /target
    bool is_target_flat;
    int8_t target[N * 4];
    long cut; // bytes taken off the file's end
} shard_t;

static shard_t good(void) {
    return (shard_t){.format = "hirl-shard",
                     .encoding = "raw",
                     .version = 1,
                     .n_samples = N,
                     .offset = {0, 6, 11, 23},
                     .height = {2, 1, 2},
                     .width = {3, 5, 2},
                     .channels = {1, 1, 3},
                     .label = {0, -1, 1},
                     .n_classes = 3,
                     .has_parent = true,
                     .parent = {2, 2, -1},
                     .n_targets = 2,
                     .target = {1, -1, 0, 1, -1, -1}};
}

static void write_text(hid_t file, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    const bool is_variable = strncmp(text, "variable:", 9) == 0; // as h5py writes str
    H5Tset_size(type, is_variable ? H5T_VARIABLE : strlen(text));
    H5Tset_strpad(type, is_variable ? H5T_STR_NULLTERM : H5T_STR_NULLPAD); // as NumPy: no NUL
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    NEED(H5Awrite(attribute, type, is_variable ? (const void *)&text : text) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

static void write_int(hid_t file, const char *name, int value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, H5T_STD_I16BE, space, H5P_DEFAULT, H5P_DEFAULT);
    NEED(H5Awrite(attribute, H5T_NATIVE_INT, &value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

static bool is_named(const char *which, const char *name) {
    return which && strcmp(which, name) == 0;
}

static void write_array(hid_t file, const shard_t *shard, const char *name, hid_t type, hsize_t n,
                        const void *data) {
    if (shard->missing && strcmp(shard->missing, name) == 0) return;
    if (shard->shorter && strcmp(shard->shorter, name) == 0) n--;
    if (is_named(shard->linked, name)) {
        NEED(H5Lcreate_external("other.h5", name, file, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
        return;
    }
    if (is_named(shard->soft, name)) {
        NEED(H5Lcreate_soft("/offset", file, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
        return;
    }
    const int n_axes = is_named("/target", name) && !shard->is_target_flat ? 2 : 1;
    const hsize_t dims[2] = {n, (hsize_t)shard->n_targets}, chunk[2] = {2, 1};
    hid_t space = H5Screate_simple(n_axes, dims, NULL), stored = H5Tcopy(type),
          plist = H5Pcreate(H5P_DATASET_CREATE);
    if (is_named(shard->packed, name)) {
        H5Pset_chunk(plist, n_axes, chunk);
        H5Pset_deflate(plist, 4);
    }
    if (is_named(shard->outside, name)) H5Pset_external(plist, "data.bin", 0, H5F_UNLIMITED);
    if (is_named(shard->virtual, name)) H5Pset_virtual(plist, space, "other.h5", name, space);
    if (is_named(shard->odd, name)) H5Tset_precision(stored, 13);
    hid_t object = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    NEED(object >= 0);
    if (!is_named(shard->outside, name) && !is_named(shard->virtual, name) &&
        !is_named(shard->unwritten, name))
        NEED(H5Dwrite(object, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(object);
    H5Pclose(plist);
    H5Tclose(stored);
    H5Sclose(space);
}

static void write_data(hid_t file, const shard_t *shard) {
    if (shard->missing && strcmp(shard->missing, "/data") == 0) return;
    unsigned char bytes[2 * TOTAL];
    for (int i = 0; i < 2 * TOTAL; i++) bytes[i] = (unsigned char)(17 * i);
    hsize_t dims[2] = {TOTAL, 1}, chunk = 8;
    hid_t space = H5Screate_simple(shard->is_2d ? 2 : 1, dims, NULL),
          plist = H5Pcreate(H5P_DATASET_CREATE);
    if (shard->is_chunked) {
        H5Pset_chunk(plist, 1, &chunk);
        H5Pset_deflate(plist, 4);
    }
    if (shard->is_compact) H5Pset_layout(plist, H5D_COMPACT);
    if (shard->is_external) H5Pset_external(plist, "data.bin", 0, TOTAL);
    hid_t type = shard->is_wide ? H5T_STD_U16LE : shard->is_float ? H5T_IEEE_F32LE : H5T_STD_U8LE;
    hid_t object = H5Dcreate2(file, "/data", type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    NEED(object >= 0);
    if (!shard->is_unwritten && !shard->is_external) {
        NEED(H5Dwrite(object, H5T_NATIVE_UINT8, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) >= 0);
    }
    H5Dclose(object);
    H5Pclose(plist);
    H5Sclose(space);
}

static void write_classes(hid_t file, const shard_t *shard) {
    if (shard->n_classes == 0) return;
    const char fixed[3][4] = {"cat", "dogs", "pet"}, *const variable[3] = {"cat", "dogs", "pet"};
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, shard->is_class_variable ? H5T_VARIABLE : 4);
    H5Tset_strpad(type, H5T_STR_NULLPAD); // "dogs" fills its row, as NumPy writes it
    if (shard->is_class_variable) H5Tset_strpad(type, H5T_STR_NULLTERM);
    write_array(file, shard, "/class_name", type, (hsize_t)shard->n_classes,
                shard->is_class_variable ? (const void *)variable : (const void *)fixed);
    H5Tclose(type);
    if (shard->has_parent)
        write_array(file, shard, "/class_parent", H5T_NATIVE_INT32, (hsize_t)shard->n_classes,
                    shard->parent);
}

static void write_shard(const char *path, const shard_t *shard) {
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    NEED(file >= 0);
    if (shard->format) write_text(file, "format", shard->format);
    if (shard->is_version_text) {
        write_text(file, "version", "1");
    } else if (shard->version) {
        write_int(file, "version", shard->version);
    }
    write_text(file, "split", "train");
    write_int(file, "n_samples", shard->n_samples);
    if (shard->encoding) write_text(file, "encoding", shard->encoding);
    const uint64_t checksum[N + 1] = {1, 2, 3, 4};
    const int64_t name_offset[N + 1] = {0, 1, 2, 3};
    write_array(file, shard, "/offset", H5T_NATIVE_INT64, N + 1, shard->offset);
    write_array(file, shard, "/height", H5T_NATIVE_INT32, N, shard->height);
    write_array(file, shard, "/width", H5T_NATIVE_INT32, N, shard->width);
    write_array(file, shard, "/channels", H5T_NATIVE_INT32, N, shard->channels);
    write_array(file, shard, "/label", H5T_NATIVE_INT32, N, shard->label);
    write_array(file, shard, "/checksum", H5T_NATIVE_UINT64, N, checksum);
    write_array(file, shard, "/name", H5T_NATIVE_UINT8, 3, "abc");
    write_array(file, shard, "/name_offset", H5T_NATIVE_INT64, N + 1, name_offset);
    write_classes(file, shard);
    if (shard->n_targets) write_array(file, shard, "/target", H5T_NATIVE_INT8, N, shard->target);
    write_data(file, shard);
    H5Fclose(file);
    struct stat found;
    NEED(stat(path, &found) == 0);
    if (shard->cut) NEED(truncate(path, found.st_size - shard->cut) == 0);
}

static hirl_status_t open_one(const char *path, hirl_shard_set_t **set_p) {
    hirl_data_cfg_t cfg = data_cfg("mmap");
    cfg.channels = 3;
    return hirl_shard_set_open(world, path, &cfg, set_p);
}

static void check_refused(const shard_t *shard, const char *text) {
    const char *path = test_path("broken.h5");
    hirl_shard_set_t *set = NULL;
    write_shard(path, shard);
    hirl_mem_reset_peak();
    CHECK_FAILS(open_one(path, &set), HIRL_ERR_FORMAT, text);
    CHECK_HAS(hirl_error_text_view(), "broken.h5");
    CHECK(set == NULL);
    // Nothing that a file of a few kB claims may lead to large allocations.
    CHECK(hirl_mem_peak(HIRL_MEM_KIND_COUNT) < (size_t)1 << 20);
    hirl_text_t described = {0};
    CHECK_FAILS(hirl_shard_describe(path, &described), HIRL_ERR_FORMAT, text);
    hirl_text_reset(&described);
    hirl_shard_set_close(&set);
}

#define REFUSED(text, ...)           \
    do {                             \
        shard_t shard = good();      \
        __VA_ARGS__;                 \
        check_refused(&shard, text); \
    } while (0)

static void test_good(void) {
    shard_t shard = good();
    const char *path = test_path("good.h5");
    write_shard(path, &shard);
    hirl_shard_set_t *set = NULL;
    NEED_OK(open_one(path, &set));
    CHECK_EQ_I(hirl_shard_set_n_samples(set), 3);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 1), "dogs");
    CHECK_EQ_I(hirl_shard_set_class_parent(set, 1), 2);
    CHECK_EQ_I(hirl_shard_set_n_targets(set), 2);
    CHECK(memcmp(hirl_shard_set_target_view(set, 1), (int8_t[]){0, 1}, 2) == 0);
    hirl_text_t text = {0};
    NEED_OK(hirl_shard_describe(path, &text));
    CHECK_HAS(text.data, "1 'dogs': 1 samples, of class 2, in 1, difficult in 0");
    CHECK_HAS(text.data, "0 'cat': 1 samples, of class 2, in 1, difficult in 1");
    CHECK_HAS(text.data, "/target         i8        [3, 2], 6 B");
    hirl_text_reset(&text);
    hirl_buffer_t buffer = {0};
    hirl_sample_t sample;
    // Its checksums are wrong, and that is only seen when a sample is read.
    CHECK_FAILS(hirl_shard_set_read(set, 2, &buffer, &sample), HIRL_ERR_FORMAT,
                "good.h5 sample 2: checksum is ");
    CHECK_HAS(hirl_error_text_view(), "expected 0000000000000003");
    CHECK_FAILS(hirl_shard_set_read(set, 3, &buffer, &sample), HIRL_ERR_ARG,
                "sample 3, expected 0 to 2");
    CHECK_FAILS(hirl_shard_set_read(set, -1, &buffer, &sample), HIRL_ERR_ARG,
                "sample -1, expected 0 to 2");
    hirl_shard_set_close(&set);
    CHECK(hirl_shard_is_shard(path));
    CHECK(!hirl_shard_is_shard(test_path("none.h5")));
    CHECK(!hirl_shard_is_shard(IMAGES "/apple/one.png"));
}

// Targets are of all shards of a set, or of none; a shard need not have any.
static void test_targets(void) {
    hirl_shard_set_t *set = NULL;
    shard_t shard = good();
    char pattern[1024];
    write_shard(test_path("set-0.h5"), &shard);
    shard.target[3] = -1;
    write_shard(test_path("set-1.h5"), &shard);
    snprintf(pattern, sizeof pattern, "%s", test_path("set-*.h5"));
    NEED_OK(open_one(pattern, &set));
    CHECK(memcmp(hirl_shard_set_target_view(set, 4), (int8_t[]){0, -1}, 2) == 0);
    hirl_shard_set_close(&set);
    shard.n_targets = 0;
    write_shard(test_path("set-1.h5"), &shard);
    CHECK_FAILS(open_one(pattern, &set), HIRL_ERR_FORMAT, "set-1.h5: /target has 0 classes, ");
    NEED_OK(open_one(test_path("set-1.h5"), &set));
    CHECK_EQ_I(hirl_shard_set_n_targets(set), 0);
    CHECK(hirl_shard_set_target_view(set, 0) == NULL);
    hirl_shard_set_close(&set);
}

static void test_header(void) {
    REFUSED("attribute 'format' is missing", shard.format = NULL);
    REFUSED("is no shard: its attribute 'format' is 'other', expected 'hirl-shard'",
            shard.format = "other");
    CHECK(!hirl_shard_is_shard(test_path("broken.h5")));
    // HDF5 takes a text of variable length from where the file says, in a size that it says elsewhere.
    REFUSED("attribute 'format' is a text of variable length, expected fixed length",
            shard.format = "variable:hirl-shard");
    REFUSED("encoding is '?[2J', expected 'raw'", shard.encoding = "\x1b[2J");
    REFUSED("format version 2, this program reads version 1", shard.version = 2);
    REFUSED("attribute 'version' is missing", shard.version = 0);
    REFUSED("attribute 'version' is no integer", shard.is_version_text = true);
    REFUSED("encoding is 'webp', expected 'raw'", shard.encoding = "webp");
    REFUSED("attribute 'n_samples' is 0, expected 1 to 23", shard.n_samples = 0);
    REFUSED("attribute 'n_samples' is -5, expected 1 to 23", shard.n_samples = -5);
    REFUSED("/offset has 4 elements, expected 5 (one more than attribute 'n_samples')",
            shard.n_samples = 4);
}

static void test_objects(void) {
    static const char *const names[] = {"/data",     "/offset",   "/height",
                                        "/width",    "/channels", "/label",
                                        "/checksum", "/name",     "/name_offset"};
    char text[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(text, sizeof text, "object %s is missing", names[i]);
        REFUSED(text, shard.missing = names[i]);
    }
    REFUSED("/height has 2 elements, expected 3", shard.shorter = "/height");
    REFUSED("/label has 2 elements, expected 3", shard.shorter = "/label");
    REFUSED("/checksum has 2 elements, expected 3", shard.shorter = "/checksum");
    REFUSED("/name_offset has 3 elements, expected 4", shard.shorter = "/name_offset");
    REFUSED("/class_parent has 2 elements, expected 3", shard.shorter = "/class_parent");
    REFUSED("/class_parent comes without /class_name", shard.missing = "/class_name");
    REFUSED("/data is chunked with 1 filters", shard.is_chunked = true);
    REFUSED("/data is compact", shard.is_compact = true);
    REFUSED("1 external files", shard.is_external = true);
    REFUSED("/data has elements of 2 bytes, expected u8", shard.is_wide = true);
    REFUSED("/data has elements of another type, expected bytes", shard.is_float = true);
    REFUSED("/data has 2 dimensions, expected 1", shard.is_2d = true);
    REFUSED("/data has 0 of 23 bytes on disk, it was not written to its end",
            shard.is_unwritten = true);
}

// What HDF5 would take from elsewhere, unfold or convert is refused before it does so, in each object.
static void test_elsewhere(void) {
    static const char *const names[] = {"/offset", "/height",   "/width",      "/channels",
                                        "/label",  "/checksum", "/class_name", "/class_parent",
                                        "/target", "/name",     "/name_offset"};
    char text[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *name = names[i];
        snprintf(text, sizeof text, "%s is chunked with 1 filters", name);
        REFUSED(text, shard.packed = name);
        snprintf(text, sizeof text, "%s is laid out with 0 filters and 1 external files", name);
        REFUSED(text, shard.outside = name);
        snprintf(text, sizeof text, "%s is virtual", name);
        REFUSED(text, shard.virtual = name);
        snprintf(text, sizeof text, "%s is a link, expected an object of this file", name);
        REFUSED(text, shard.linked = name);
        REFUSED(text, if (i > 0) shard.soft = name; else shard.linked = name);
        if (i < 9) {
            snprintf(text, sizeof text, "%s has 0 of ", name);
            REFUSED(text, shard.unwritten = name);
        }
        if (strcmp(name, "/class_name") == 0) continue;
        snprintf(text, sizeof text, "%s has elements of another type", name);
        REFUSED(text, shard.odd = name);
    }
}

// A pipe in a folder of shards would wait for its writer for ever.
static void test_pipe(void) {
    hirl_shard_set_t *set = NULL;
    hirl_text_t text = {0};
    const char *path = test_path("pipe.h5");
    NEED(mkfifo(path, 0600) == 0);
    CHECK_FAILS(open_one(path, &set), HIRL_ERR_IO, "pipe.h5: not a file");
    CHECK_FAILS(hirl_shard_describe(path, &text), HIRL_ERR_IO, "pipe.h5: not a file");
    CHECK(!hirl_shard_is_shard(path));
    hirl_text_reset(&text);
}

// What is not of the format is described without being believed, and a label of millions in a file
// of some kB does not become a description of millions of lines.
static void test_described(void) {
    const char *path = test_path("described.h5");
    shard_t shard = good();
    shard.n_classes = 0;
    shard.label[0] = 9999999;
    write_shard(path, &shard);
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    write_text(file, "note", "variable:text");
    write_text(file, "bell", "a\ab");
    H5Lcreate_external("other.h5", "/x", file, "away", H5P_DEFAULT, H5P_DEFAULT);
    H5Fclose(file);
    hirl_text_t text = {0};
    hirl_mem_reset_peak();
    NEED_OK(hirl_shard_describe(path, &text));
    CHECK(hirl_mem_peak(HIRL_MEM_KIND_COUNT) < (size_t)1 << 20);
    CHECK_HAS(text.data, "9999999: 1 samples\n");
    CHECK_HAS(text.data, "note = (neither a text of fixed length nor an integer)");
    CHECK_HAS(text.data, "bell = 'a?b'");
    CHECK_HAS(text.data, "(not an array)");
    CHECK(text.size < 4096);
    hirl_text_reset(&text);
}

static void test_values(void) {
    REFUSED("/offset[0] is 1, expected 0", shard.offset[0] = 1);
    REFUSED("sample 1: /offset runs from 6 to 6", shard.offset[2] = 6);
    REFUSED("sample 1: /offset runs from 6 to -1", shard.offset[2] = -1);
    REFUSED("sample 2: /offset runs from 11 to 24", shard.offset[3] = 24);
    REFUSED("sample 2: /offset runs from 11 to 9223372036854775807", shard.offset[3] = INT64_MAX);
    REFUSED("/offset ends at 22, expected the 23 bytes of /data", shard.offset[3] = 22);
    REFUSED("sample 1: /height, /width are 0, 5", shard.height[1] = 0);
    REFUSED("sample 1: /height, /width are 1, 65501", shard.width[1] = 65501);
    REFUSED("sample 0: /channels is 2, expected 1 or 3", shard.channels[0] = 2);
    REFUSED("sample 0: 6 bytes, expected 2 x 4 x 1 = 8 for raw pixels", shard.width[0] = 4);
    REFUSED("sample 2: /label is -2, expected -1", shard.label[2] = -2);
    REFUSED("sample 2: /label is 3, /class_name has 3 classes", shard.label[2] = 3);
    REFUSED("sample 2: /label is 2147483647, expected", shard.label[2] = INT32_MAX);
    REFUSED("/class_name has texts of variable length", shard.is_class_variable = true);
    REFUSED("/class_parent[1] is 0, expected -1 or a later row", shard.parent[1] = 0);
    REFUSED("/class_parent[2] is 3, expected -1", shard.parent[2] = 3);
    REFUSED("sample 2: /target of class 1 is 2, expected -1, 0 or 1", shard.target[5] = 2);
    REFUSED("sample 0: /target of class 0 is -128, expected", shard.target[0] = -128);
    REFUSED("/target is [3, 4], expected [3, 1 to 3]", shard.n_targets = 4);
    REFUSED("/target is [2, 2], expected [3, 1 to 3]", shard.shorter = "/target");
    REFUSED("/target has 1 dimensions, expected 2", shard.is_target_flat = true);
}

// Cut at any length: HDF5 or the checks of /data see it. Nothing crashes, nothing passes.
static void test_cut(void) {
    shard_t shard = good();
    const char *path = test_path("cut.h5");
    write_shard(path, &shard);
    file_bytes_t whole = load_file(path);
    long n_passed = 0;
    for (size_t size = 0; size < whole.size;
         size += size < 600 || size + 64 > whole.size ? 1 : 101) {
        hirl_shard_set_t *set = NULL;
        save_file(path, whole.bytes, size);
        n_passed += open_one(path, &set) == HIRL_OK;
        hirl_shard_set_close(&set);
    }
    CHECK_EQ_I(n_passed, 0);
    save_file(path, whole.bytes, 0);
    hirl_shard_set_t *set = NULL;
    CHECK_FAILS(open_one(path, &set), HIRL_ERR_FORMAT, "cut.h5: not an HDF5 file (0 bytes)");
    save_file(path, whole.bytes, whole.size - 1);
    CHECK_FAILS(open_one(path, &set), HIRL_ERR_FORMAT, "cut.h5: truncated file: it should have ");
    free(whole.bytes);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    RUN(test_good);
    RUN(test_targets);
    RUN(test_header);
    RUN(test_objects);
    RUN(test_elsewhere);
    RUN(test_pipe);
    RUN(test_described);
    RUN(test_values);
    RUN(test_cut);
    hirl_world_destroy(&world);
}
