// test: timeout=60
// Files of arrays that are made to harm: they go deeper than the stack, round in circles that HDF5
// cannot see, lead into other files by the form of a name, or ask for conversions and memory that
// nothing in them needs. Written by HDF5, some with bytes changed afterwards.
#include "hirl/ckpt.h"

#include <hdf5.h>

#include "test.h"

#ifdef __SANITIZE_ADDRESS__
// HDF5 forgets what it read when a file is refused; what we hold is counted by hirl_mem_*.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }
#endif

static hid_t begin(const char *name) {
    hid_t file = H5Fcreate(test_path(name), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    NEED(file >= 0);
    return file;
}

static void write_array(hid_t at, const char *name, hid_t type, hid_t plist, float value) {
    const hsize_t n = 4, most = H5S_UNLIMITED;
    const float values[4] = {value, value, value, value};
    hid_t space = H5Screate_simple(1, &n, plist == H5P_DEFAULT ? NULL : &most);
    hid_t set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    NEED(set >= 0);
    NEED(plist != H5P_DEFAULT ||
         H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

// Position of an object's header in the file.
static long address_of(hid_t file, const char *name) {
    H5O_info_t info;
    NEED(H5Oget_info_by_name(file, name, &info, H5P_DEFAULT) >= 0);
    return (long)info.addr;
}

static void put_bytes(const char *name, long at, const void *bytes, size_t size) {
    FILE *file = fopen(test_path(name), "r+b");
    NEED(file && fseek(file, at, SEEK_SET) == 0 && fwrite(bytes, 1, size, file) == size);
    NEED(fclose(file) == 0);
}

static void check_refused(const char *name, const char *text) {
    hirl_ckpt_t *file = NULL;
    hirl_mem_reset_peak();
    CHECK_FAILS(hirl_arrays_open(test_path(name), &file), HIRL_ERR_FORMAT, text);
    CHECK_HAS(hirl_error_text_view(), name);
    CHECK(file == NULL);
    CHECK(hirl_mem_peak(HIRL_MEM_KIND_COUNT) < (size_t)4 << 20);
}

// However many ways lead to an object, it is looked at once.
static void check_empty(const char *name) {
    hirl_ckpt_t *file = NULL;
    int n = -1;
    NEED_OK(hirl_arrays_open(test_path(name), &file));
    (void)hirl_ckpt_arrays_view(file, &n);
    CHECK_EQ_I(n, 0);
    hirl_ckpt_close(&file);
}

// HDF5 calls itself once for each group within a group.
static void test_deep(void) {
    hid_t file = begin("deep.h5"), at = file;
    for (int i = 0; i < 3000; i++) {
        hid_t next = H5Gcreate2(at, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        NEED(next >= 0);
        if (at != file) H5Gclose(at);
        at = next;
    }
    H5Gclose(at);
    H5Fclose(file);
    check_refused("deep.h5", "is longer than 511 bytes");
}

enum { COUNT_AT = 4 }; // of the number of links, in an object header of version 1

// A group that holds itself, and says that one link alone leads to it.
static void test_circle(void) {
    const uint32_t one = 1;
    hid_t file = begin("circle.h5");
    hid_t group = H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    NEED(H5Lcreate_hard(file, "g", group, "loop", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    NEED(H5Lcreate_hard(file, "g", group, "again", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    const long at = address_of(file, "g");
    H5Gclose(group);
    H5Fclose(file);
    put_bytes("circle.h5", at + COUNT_AT, &one, 4);
    check_empty("circle.h5");
}

// Nine groups with eight links each to the next one: 8^9 ways to the last.
static void test_many(void) {
    enum { DEPTH = 9, WIDTH = 8 };
    const uint32_t one = 1;
    char name[32], link[32];
    long at[DEPTH + 1];
    hid_t file = begin("many.h5");
    for (int i = DEPTH; i >= 0; i--) {
        snprintf(name, sizeof name, "g%d", i);
        H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        at[i] = address_of(file, name);
        for (int k = 0; i < DEPTH && k < WIDTH; k++) {
            snprintf(name, sizeof name, "g%d", i + 1);
            snprintf(link, sizeof link, "g%d/%d", i, k);
            NEED(H5Lcreate_hard(file, name, file, link, H5P_DEFAULT, H5P_DEFAULT) >= 0);
        }
    }
    H5Fclose(file);
    for (int i = 0; i <= DEPTH; i++) put_bytes("many.h5", at[i] + COUNT_AT, &one, 4);
    check_empty("many.h5");
}

// A name with '/' in it, which no program can give: by it HDF5 would follow the link to another file.
static void test_name(void) {
    hid_t file = begin("secret.h5");
    write_array(file, "y", H5T_IEEE_F32LE, H5P_DEFAULT, 99);
    H5Fclose(file);
    file = begin("name.h5");
    write_array(file, "x_y", H5T_IEEE_F32LE, H5P_DEFAULT, 1);
    NEED(H5Lcreate_external("secret.h5", "/", file, "x", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    FILE *stream = fopen(test_path("name.h5"), "rb");
    char bytes[8192];
    NEED(stream != NULL);
    const size_t size = fread(bytes, 1, sizeof bytes, stream);
    fclose(stream);
    int n_found = 0; // a former table of names may be left over
    for (size_t i = 0; i + 3 <= size; i++) {
        if (memcmp(bytes + i, "x_y", 3) != 0) continue;
        put_bytes("name.h5", (long)i + 1, "/", 1);
        n_found++;
    }
    NEED(n_found > 0);

    // HDF5's own walk goes by the name, and comes to the other file's array.
    check_refused("name.h5", "the name of a link holds '/'");
}

static void test_chunks(void) {
    const hsize_t large = 1 << 28, small = 2;
    for (int c = 0; c < 3; c++) {
        hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
        H5Pset_chunk(plist, 1, c == 0 ? &large : &small);
        if (c == 1) H5Pset_scaleoffset(plist, H5Z_SO_INT, 0);
        if (c == 2) H5Pset_nbit(plist);
        hid_t file = begin("chunks.h5");
        write_array(file, "x", c == 1 ? H5T_STD_I32LE : H5T_IEEE_F32LE, plist, 0);
        H5Fclose(file);
        H5Pclose(plist);
        check_refused("chunks.h5", c == 0   ? "array /x has chunks of 1.0"
                                   : c == 1 ? "is packed by filter 6, expected gzip"
                                            : "is packed by filter 5, expected gzip");
    }
}

// Numbers of a form that no computer calculates with are passed over, as texts are.
static void test_types(void) {
    hirl_ckpt_t *arrays = NULL;
    hid_t file = begin("types.h5"), odd = H5Tcopy(H5T_STD_I32LE), real = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_precision(odd, 13);
    H5Tset_offset(odd, 7);
    H5Tset_fields(real, 31, 20, 11, 0, 20);
    write_array(file, "odd", odd, H5P_DEFAULT, 1);
    write_array(file, "real", real, H5P_DEFAULT, 1);
    write_array(file, "plain", H5T_IEEE_F32BE, H5P_DEFAULT, 1);
    H5Tclose(odd);
    H5Tclose(real);
    H5Fclose(file);
    NEED_OK(hirl_arrays_open(test_path("types.h5"), &arrays));
    int n = 0;
    CHECK_EQ_S(hirl_ckpt_arrays_view(arrays, &n)->name, "/plain");
    CHECK_EQ_I(n, 1);
    hirl_ckpt_close(&arrays);
}

// A terminal must not obey what a checkpoint says.
static void test_described(void) {
    const int64_t value = 1;
    const hirl_ckpt_array_t array = {"/x", HIRL_CKPT_I64, 0, {0}, &value};
    const hirl_ckpt_meta_t meta = {1, 2, 3, 4, 5, "moco\x1b[2J", "none", "&run\n\a/\n"};
    hirl_text_t text = {0};
    NEED_OK(hirl_ckpt_write(test_path("bell"), &meta, &array, 1, 1));
    NEED_OK(hirl_ckpt_describe(test_path("bell/checkpoint-00000001.h5"), &text));
    CHECK_HAS(text.data, "method = moco?[2J\n");
    CHECK_HAS(text.data, "    &run\n    ?/\n");
    CHECK(!strchr(text.data, '\x1b') && !strchr(text.data, '\a'));
    hirl_text_reset(&text);
}

TEST_MAIN {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    RUN(test_deep);
    RUN(test_circle);
    RUN(test_many);
    RUN(test_name);
    RUN(test_chunks);
    RUN(test_types);
    RUN(test_described);
}
