// test: timeout=300
// HDF5 files whose metadata was forged, with right checksums. First a table: each kind of lie is
// refused and named. Then bytes of small files in the old and the new format are changed: each file
// is refused, or read to its end without a memory error, in bounded memory. `make check` takes a
// sample, with the address sanitizer as well; HIRL_H5_ALL=9 changes each byte in 9 ways, and
// HIRL_H5_ALL=255 in all.
#include "hirl/ckpt.h"
#include "hirl/h5.h"

#include <fcntl.h>
#include <hdf5.h>

#include "../fuzz/mend_h5.h"
#include "test.h"

enum { IMAGE_MAX = 1 << 16 };

// A file in memory; `pristine` is how it was written.
typedef struct image {
    const char *name;
    uint8_t pristine[IMAGE_MAX], bytes[IMAGE_MAX];
    size_t size;
} image_t;

static image_t old, new;

// ------------------------------------------------------------------------------------ files

static void put_attribute(hid_t at, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t made = H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    NEED(made >= 0 && H5Awrite(made, type, value) >= 0);
    H5Aclose(made);
    H5Sclose(space);
}

static void put_array(hid_t at, const char *name, hid_t type, hid_t plist, const void *value) {
    const hsize_t shape[2] = {3, 4};
    hid_t space = H5Screate_simple(2, shape, NULL);
    hid_t set = H5Dcreate2(at, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    NEED(set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

// Every structure that the reader knows, in few bytes.
static void write_file(const char *path, bool is_new) {
    static const int64_t value[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, -12};
    static char large[5000];
    const hsize_t chunk[2] = {2, 3};
    const int number = 7;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), create = H5Pcreate(H5P_FILE_CREATE);
    hid_t chunked = H5Pcreate(H5P_DATASET_CREATE), compact = H5Pcreate(H5P_DATASET_CREATE);
    hid_t text = H5Tcopy(H5T_C_S1), long_text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 5);
    H5Tset_size(long_text, sizeof large);
    if (is_new) {
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
        H5Pset_attr_phase_change(create, 0, 0);
    }
    H5Pset_chunk(chunked, 2, chunk);
    H5Pset_shuffle(chunked);
    H5Pset_deflate(chunked, 6);
    H5Pset_fletcher32(chunked);
    H5Pset_layout(compact, H5D_COMPACT);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
    NEED(file >= 0);
    put_attribute(file, "number", H5T_STD_I32LE, &number);
    put_attribute(file, "text", text, "abcd");
    if (is_new) put_attribute(file, "large", long_text, large); // by itself, listed by its heap
    put_array(file, "plain", H5T_STD_I64LE, H5P_DEFAULT, value);
    put_array(file, "compact", H5T_STD_I64LE, compact, value);
    put_array(file, "chunked", H5T_STD_I64LE, chunked, value);
    H5Lcreate_soft("/plain", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    for (int i = 0; i < 20; i++) { // several symbol nodes; or a heap with a table, and a tree
        char name[48];
        snprintf(name, sizeof name, "a longer name of number %d", i);
        H5Lcreate_hard(file, "plain", group, name, H5P_DEFAULT, H5P_DEFAULT);
    }
    H5Gclose(group);
    H5Fclose(file);
    H5Tclose(text);
    H5Tclose(long_text);
    H5Pclose(access);
    H5Pclose(create);
    H5Pclose(chunked);
    H5Pclose(compact);
}

static void make_image(image_t *image, const char *name, bool is_new) {
    image->name = name;
    write_file(test_path(name), is_new);
    FILE *file = fopen(test_path(name), "rb");
    NEED(file != NULL);
    image->size = fread(image->pristine, 1, IMAGE_MAX, file);
    fclose(file);
    NEED(image->size > 0 && image->size < IMAGE_MAX);
    memcpy(image->bytes, image->pristine, image->size);
    mend_h5(image->bytes, image->size);
    CHECK(memcmp(image->bytes, image->pristine, image->size) == 0); // nothing to mend
}

static int forged = -1; // descriptor of the file that images are written to

static void save_image(const image_t *image, size_t size) {
    if (forged < 0) forged = open(test_path("forged.h5"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    NEED(forged >= 0 && pwrite(forged, image->bytes, size, 0) == (ssize_t)size);
    NEED(ftruncate(forged, (off_t)size) == 0);
}

// ------------------------------------------------------------------------------------ places

static uint64_t value_at(const image_t *image, size_t at, int n) {
    return mend_little(image->pristine + at, n);
}

// Position of an object's header.
static size_t header_of(const image_t *image, const char *name) {
    H5O_info_t info;
    hid_t file = H5Fopen(test_path(image->name), H5F_ACC_RDONLY, H5P_DEFAULT);
    NEED(file >= 0 && H5Oget_info_by_name(file, name, &info, H5P_DEFAULT) >= 0);
    H5Fclose(file);
    return (size_t)info.addr;
}

// Position of the body of the n-th message of a kind, in a header and the blocks that it goes on in.
static size_t message_of(const image_t *image, const char *name, unsigned kind, int n) {
    const uint8_t *bytes = image->pristine;
    size_t part = header_of(image, name), at, end, next = 0;
    const bool is_new = memcmp(bytes + part, "OHDR", 4) == 0;
    const unsigned flags = is_new ? bytes[part + 5] : 0;
    const size_t head = !is_new ? 8 : flags & 4 ? 6 : 4;
    if (is_new) {
        const int n_length = 1 << (flags & 3);
        at = part + 6 + (flags & 0x20 ? 16u : 0u) + (flags & 0x10 ? 4u : 0u);
        end = at + (size_t)n_length + (size_t)value_at(image, at, n_length);
        at += (size_t)n_length;
    } else {
        at = part + 16;
        end = at + (size_t)value_at(image, part + 8, 4);
    }
    for (;;) {
        while (at + head <= end) {
            const unsigned found = (unsigned)value_at(image, at, is_new ? 1 : 2);
            const size_t size = (size_t)value_at(image, at + (is_new ? 1 : 2), 2);
            if (found == kind && n-- == 0) return at + head;
            if (found == 0x10) {
                next = (size_t)value_at(image, at + head, 8);
                part = next + (size_t)value_at(image, at + head + 8, 8);
            }
            at += head + size;
        }
        if (next == 0) break;
        at = next + (is_new ? 4 : 0);
        end = part - (is_new ? 4 : 0);
        next = 0;
    }
    printf("%s has no message of kind %u\n", name, kind);
    NEED(false);
    return 0;
}

// ------------------------------------------------------------------------------------ reading

static long n_read, n_refused;

static void check_message(void) {
    for (const char *at = hirl_error_text_view(); *at; at++) {
        if ((unsigned char)*at < 0x20) CHECK_EQ_I(*at, 0x20);
    }
}

// Opens the forged file and reads all of it; whatever it says, no more memory than it has bytes for.
static void read_forged(size_t size) {
    static double out[1 << 16];
    hirl_ckpt_t *file = NULL;
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    hirl_mem_reset_peak();
    hirl_status_t status = hirl_arrays_open(test_path("forged.h5"), &file);
    n_refused += status != HIRL_OK;
    if (status == HIRL_OK) {
        int n = 0;
        const hirl_ckpt_array_t *array = hirl_ckpt_arrays_view(file, &n);
        for (int i = 0; i < n; i++) {
            int64_t n_items = 1;
            bool is_small = true;
            for (int axis = 0; axis < array[i].n_axes; axis++)
                is_small &= !__builtin_mul_overflow(n_items, array[i].shape[axis], &n_items);
            if (!is_small || n_items > 1 << 16) continue;
            status = hirl_ckpt_read(file, array[i].name, HIRL_CKPT_F64, array[i].n_axes,
                                    array[i].shape, out);
            n_read += status == HIRL_OK;
            if (status != HIRL_OK) check_message();
        }
        hirl_ckpt_close(&file);
    } else {
        CHECK_EQ_I(status, HIRL_ERR_FORMAT);
        check_message();
    }
    // A chunk and its packed form have room for what gzip can make of the file.
    const size_t peak = hirl_mem_peak(HIRL_MEM_KIND_COUNT) - held,
                 most = 3 * 1040 * size + (1 << 20);
    if (peak > most) CHECK_EQ_I(peak, most);
    CHECK_EQ_I(hirl_mem_held(HIRL_MEM_KIND_COUNT), held);
}

// ------------------------------------------------------------------------------------ table

enum { SPACE = 1, LINK_INFO = 2, TYPE = 3, FILL = 5, LINK = 6, LAYOUT = 8, FILTERS = 11 };
enum { ATTRIBUTE = 12, SYMBOLS = 17, ATTRIBUTE_INFO = 21 };
static const uint64_t NOWHERE = UINT64_MAX;

static void put(image_t *image, size_t at, uint64_t value, int n) {
    NEED(at + (size_t)n <= image->size);
    for (int i = 0; i < n; i++) image->bytes[at + (size_t)i] = (uint8_t)(value >> 8 * i);
}

static void check_refused(image_t *image, bool is_mended, const char *text) {
    hirl_h5_t *file = NULL;
    if (is_mended) mend_h5(image->bytes, image->size);
    save_image(image, image->size);
    CHECK_FAILS(hirl_h5_open(test_path("forged.h5"), &file), HIRL_ERR_FORMAT, text);
    CHECK_HAS(hirl_error_text_view(), "forged.h5: ");
    CHECK(file == NULL);
    hirl_h5_close(&file);
    memcpy(image->bytes, image->pristine, image->size);
}

// Puts `value` of `n` bytes at a position, makes the checksums right, and wants a refusal.
static void refuse(image_t *image, size_t at, uint64_t value, int n, const char *text) {
    put(image, at, value, n);
    check_refused(image, true, text);
}

static void test_superblock(void) {
    refuse(&old, 0, 0x88, 1, "not an HDF5 file");
    refuse(&old, 8, 4, 1, "byte 8: the superblock has version 4, expected 0 to 3");
    refuse(&old, 13, 4, 1, "addresses and sizes of 4 and 8 bytes, expected 8");
    refuse(&old, 24, 512, 8, "its addresses begin at 512, expected 0");
    refuse(&old, 40, 1 << 20, 8, "truncated file: it should have 1048576 bytes");
    refuse(&old, 40, 95, 8, "it claims to end at byte 95");
    refuse(&old, 48, 96, 8, "one of several that belong together");
    refuse(&old, 64, NOWHERE, 8, "an object's header of 16 bytes should be here, but the file has");
    refuse(&old, 64, old.size, 8, "should be here, but the file has");
    refuse(&old, 64, 0, 8, "an object's header has version 137, expected 1 or 2");
    refuse(&old, 64, header_of(&old, "plain"), 8, "the root object is no group");
    refuse(&new, 20, 48, 8, "byte 20: the superblock has an extension");
    refuse(&new, 28, new.size + 1, 8, "truncated file");
    refuse(&new, 36, 4, 8, "an object's header");
    put(&new, 11, 2, 1);
    check_refused(&new, false, "byte 0: the superblock is damaged: checksum");
    // A user block is named.
    memmove(old.bytes + 512, old.pristine, old.size - 512);
    memset(old.bytes, 0, 512);
    check_refused(&old, false, "HDF5 begins at byte 512, behind a user block");
    // Version 3 knows whether its writer came to the end.
    put(&new, 8, 3, 1);
    put(&new, 11, 5, 1);
    check_refused(&new, true, "its writer was stopped");
}

static void test_header(void) {
    const size_t at = header_of(&old, "plain"), fill = message_of(&old, "plain", FILL, 0) - 8;
    refuse(&old, at, 3, 1, "an object's header has version 3, expected 1 or 2");
    refuse(&old, at + 8, UINT32_MAX, 4, "an object's header of 4294967311 bytes should be here");
    refuse(&old, at + 8, 20, 4, "ends before it is complete");
    refuse(&old, at + 16 + 2, 0xffff, 2, "a message of an object's header ends before");
    put(&old, fill + 4, 0x80, 1);
    refuse(&old, fill, 0x99, 2, "a message of kind 153, which is not known");
    refuse(&old, fill, SPACE, 2, "an object has a second shape");
    refuse(&old, fill, TYPE, 2, "an object has a second type");
    refuse(&old, message_of(&old, "chunked", FILTERS, 0) - 8, LAYOUT, 2, "");
    refuse(&old, message_of(&old, "plain", SPACE, 0) - 4, 2, 1, "is shared by objects");
    // A header that goes on in itself, at its beginning and in its middle.
    for (int i = 0; i < 2; i++) {
        put(&old, fill, 0x10, 2);
        put(&old, fill + 2, 16, 2);
        put(&old, fill + 8, at + (i ? 16 : 0), 8);
        put(&old, fill + 16, 24, 8);
        check_refused(&old, true, "");
    }
    refuse(&new, header_of(&new, "plain") + 4, 1, 1, "an object's header has version 1");
    refuse(&new, header_of(&new, "plain") + 5, 3, 1, "an object's header");
    put(&new, message_of(&new, "plain", SPACE, 0) + 8, 1, 1);
    check_refused(&new, false, "an object's header is damaged: checksum");
}

static void test_messages(void) {
    size_t at = message_of(&old, "plain", SPACE, 0);
    refuse(&old, at, 3, 1, "a shape has version 3");
    refuse(&old, at + 1, 33, 1, "a shape of 33 axes");
    refuse(&old, at + 1, 32, 1, "a shape ends before it is complete");
    refuse(&old, at + 8, UINT64_C(1) << 63, 8, "axis 0 of a shape has length 9223372036854775808");
    refuse(&new, message_of(&new, "plain", SPACE, 0) + 3, 3, 1, "a shape of kind 3 with 2 axes");
    refuse(&new, message_of(&new, "plain", SPACE, 0) + 3, 0, 1, "a shape of kind 0 with 2 axes");
    at = message_of(&old, "plain", TYPE, 0);
    refuse(&old, at, 0x50, 1, "a type has version 5");
    refuse(&old, at + 4, 0, 4, "a type of no bytes");
    at = message_of(&old, "plain", LAYOUT, 0);
    refuse(&old, at, 2, 1, "a layout has version 2, expected 3 or 4");
    refuse(&old, at + 1, 4, 1, "a layout of kind 4");
    refuse(&old, at + 2, old.size - 95, 8, "an array claims bytes");
    refuse(&old, at + 2, NOWHERE - 1, 8, "an array claims bytes");
    refuse(&old, at + 10, UINT64_C(1) << 40, 8, "it is truncated");
    refuse(&old, at + 10, NOWHERE, 8, "it is truncated");
    refuse(&old, message_of(&old, "compact", LAYOUT, 0) + 2, 0xffff, 2, "a layout ends before");
    at = message_of(&old, "chunked", LAYOUT, 0);
    refuse(&old, at + 2, 34, 1, "chunks of 33 axes");
    refuse(&old, at + 2, 1, 1, "chunks of 0 axes");
    refuse(&old, at + 11, 0, 4, "axis 0 of chunks has length 0");
    at = message_of(&old, "chunked", FILTERS, 0);
    refuse(&old, at, 3, 1, "filters have version 3");
    refuse(&old, at + 1, 33, 1, "33 filters, expected at most 32");
    refuse(&old, at + 1, 32, 1, "filters ends before it is complete");
    refuse(&old, at + 8 + 6, 0xffff, 2, "filters ends before it is complete");
    at = message_of(&old, "/", ATTRIBUTE, 0);
    refuse(&old, at, 4, 1, "an attribute has version 4");
    refuse(&old, at + 2, 0, 2, "the name of an attribute has 0 bytes");
    refuse(&old, at + 2, 0xffff, 2, "an attribute ends before it is complete");
    refuse(&old, at + 2, 6, 2,
           "the name of an attribute has 6 bytes, expected 1 to 1023 and a NUL");
    refuse(&old, at + 4, 4, 2, "a type ends before it is complete");
    refuse(&old, at + 6, 2, 2, "a shape ends before it is complete");
    refuse(&old, at + 8 + 8 + 4, 1 << 20, 4, "an attribute ends before it is complete");
}

static void test_old_groups(void) {
    const size_t symbols = message_of(&old, "group", SYMBOLS, 0);
    const size_t tree = (size_t)value_at(&old, symbols, 8),
                 heap = (size_t)value_at(&old, symbols + 8, 8),
                 node = (size_t)value_at(&old, tree + 32, 8);
    refuse(&old, symbols, heap, 8, "a B-tree's node should begin here with 'TREE'");
    refuse(&old, symbols, NOWHERE, 8, "a B-tree's node of 8 bytes should be here");
    refuse(&old, symbols + 8, tree, 8, "a local heap should begin here with 'HEAP'");
    refuse(&old, symbols + 8, NOWHERE, 8, "a local heap is nowhere in the file");
    refuse(&old, tree + 4, 1, 1, "a B-tree's node has version 1, expected 0");
    refuse(&old, tree + 5, 16, 1, "a B-tree's node of level 16, expected 15");
    refuse(&old, tree + 5, 1, 1, "should begin here with 'TREE'");
    refuse(&old, tree + 6, 0xffff, 2, "a B-tree's node of 1048592 bytes should be here");
    refuse(&old, tree + 32, NOWHERE, 8, "a symbol node of 8 bytes should be here");
    refuse(&old, tree + 48, node, 8, "begins within one of"); // the same node twice
    put(&old, tree + 5, 1, 1);                                // a tree that is its own child
    put(&old, tree + 32, tree, 8);
    check_refused(&old, true, "a B-tree's node of level 1, expected 0");
    refuse(&old, node + 4, 2, 1, "a symbol node has version 2");
    refuse(&old, node + 6, 0xffff, 2, "a symbol node of 2621408 bytes should be here");
    refuse(&old, node + 8, 1 << 20, 8, "a name at byte 1048576 of");
    refuse(&old, node + 8, 0, 8, "the name of a link has 0 bytes");
    refuse(&old, node + 16, NOWHERE, 8, "a link leads to an object that is nowhere");
    refuse(&old, heap + 8, UINT64_C(1) << 40, 8, "the names of a group of 1099511627776 bytes");
    refuse(&old, heap + 8, 4, 8, "a name at byte 8 of 4 bytes of names");
    refuse(&old, heap + 24, 8, 8, "");
    // Names without an end, and with a way into other groups.
    const size_t names = (size_t)value_at(&old, heap + 24, 8),
                 name = names + (size_t)value_at(&old, node + 8, 8);
    refuse(&old, name + 1, '/', 1, "the name of a link holds '/' or NUL");
    memset(old.bytes + name, 'x', names + (size_t)value_at(&old, heap + 8, 8) - name);
    check_refused(&old, true, "the name of a link is longer than");
}

static void test_new_groups(void) {
    const size_t link = message_of(&new, "/", LINK, 0);
    const size_t info = message_of(&new, "group", LINK_INFO, 0),
                 heap = (size_t)value_at(&new, info + 2, 8),
                 tree = (size_t)value_at(&new, info + 10, 8),
                 leaf = (size_t)value_at(&new, tree + 16, 8),
                 root = (size_t)value_at(&new, heap + 132, 8);
    refuse(&new, link, 2, 1, "a link has version 2");
    refuse(&new, link + 2, 0, 1, "the name of a link has 0 bytes");
    refuse(&new, link + 2, 200, 1, "a link ends before it is complete");
    refuse(&new, link + 4, '/', 1, "the name of a link holds '/' or NUL");
    refuse(&new, link + 4, 0, 1, "the name of a link holds '/' or NUL");
    refuse(&new, info, 1, 1, "information on links has version 1");
    refuse(&new, info + 2, tree, 8, "a fractal heap should begin here with 'FRHP'");
    refuse(&new, info + 10, heap, 8, "a B-tree should begin here with 'BTHD'");
    refuse(&new, info + 10, NOWHERE, 8, "a B-tree is nowhere in the file");
    refuse(&new, tree + 5, 8, 1, "a B-tree of kind 8 with records of 11 bytes, expected 5 and 11");
    refuse(&new, tree + 6, 20, 4, "a B-tree with nodes of 20 bytes");
    refuse(&new, tree + 10, 12, 2, "a B-tree of kind 5 with records of 12 bytes");
    refuse(&new, tree + 12, 16, 2, "a B-tree with nodes of 512 bytes and depth 16");
    refuse(&new, tree + 12, 1, 2, "should begin here with 'BTIN'");
    refuse(&new, tree + 24, 0xffff, 2, "a B-tree's node of 65535 records, expected at most");
    refuse(&new, tree + 24, 0, 2, "a B-tree's node without records");
    refuse(&new, tree + 26, 21, 8, "a B-tree has 20 records, and says 21");
    refuse(&new, leaf + 5, 8, 1, "a B-tree's node of kind 8, expected 5");
    refuse(&new, leaf + 6 + 4, 0x40, 1, "a heap's object of version 1");
    refuse(&new, leaf + 6 + 4, 0x30, 1, "a heap's object of unknown kind");
    refuse(&new, leaf + 6 + 4, 0x10, 1, "a heap has no large objects, but one is listed");
    refuse(&new, leaf + 6 + 4, 0x2f, 1, "a small object of a heap ends before");
    refuse(&new, leaf + 6 + 5, 0, 4, "a heap has no object of"); // in the block's head
    refuse(&new, leaf + 6 + 5, UINT32_MAX, 4, "a heap has no object of");
    refuse(&new, leaf + 6 + 9, 0xffff, 2, "a heap has no object of 65535 bytes");
    put(&new, leaf + 6, 5, 1);
    check_refused(&new, false, "a B-tree's node is damaged: checksum");
    refuse(&new, heap + 5, 65, 2, "with ids of 65 bytes");
    refuse(&new, heap + 5, 8, 2, "a B-tree of kind 5 with records of 11 bytes, expected 5 and 12");
    refuse(&new, heap + 7, 1, 2, "a fractal heap is packed");
    refuse(&new, heap + 110, 3, 2, "a fractal heap of 3 blocks a row");
    refuse(&new, heap + 112, 16, 8, "a fractal heap of 4 blocks a row, 16 to");
    refuse(&new, heap + 120, 1, 8, "to 1 bytes");
    refuse(&new, heap + 128, 65, 2, "in 65 bits");
    refuse(&new, heap + 132, leaf, 8, "should begin here with 'FH");
    refuse(&new, heap + 140, 60, 2, "a heap of 60 rows of blocks");
    const bool is_table = memcmp(new.pristine + root, "FHIB", 4) == 0;
    CHECK(is_table); // the names need more than one block
    const size_t block = (size_t)value_at(&new, root + 17, 8);
    refuse(&new, root + 5, 1, 8, "a heap's table of blocks belongs elsewhere");
    refuse(&new, root + 25, block, 8, "a heap's block is that of byte 0"); // a block twice
    refuse(&new, block + 5, 1, 8, "a heap's block is that of byte 0 of the heap at 1");
    put(&new, block + 30, 1, 1);
    check_refused(&new, false, "a heap's block is damaged: checksum");
}

static void test_attributes(void) {
    const size_t info = message_of(&new, "/", ATTRIBUTE_INFO, 0),
                 heap = (size_t)value_at(&new, info + 2, 8),
                 tree = (size_t)value_at(&new, info + 10, 8),
                 leaf = (size_t)value_at(&new, tree + 16, 8),
                 huge = (size_t)value_at(&new, heap + 22, 8),
                 huge_leaf = (size_t)value_at(&new, huge + 16, 8);
    int n_large = 0;
    refuse(&new, info, 1, 1, "information on attributes has version 1");
    for (size_t i = 0; i < 3; i++) {
        const size_t record = leaf + 6 + 17 * i;
        refuse(&new, record + 8, 2, 1, "an attribute is shared by objects");
        if (new.pristine[record] != 0x10) continue;
        refuse(&new, record + 1, 9, 1, "large object 9 is not in its heap");
        n_large++;
    }
    CHECK_EQ_I(n_large, 1);
    refuse(&new, heap + 22, NOWHERE, 8, "a heap has no large objects, but one is listed");
    refuse(&new, huge_leaf + 6, new.size, 8, "a large attribute of");
    refuse(&new, huge_leaf + 14, UINT64_C(1) << 40, 8, "a large attribute of 1099511627776 bytes");
    refuse(&new, huge_leaf + 14, 6, 8, "an attribute ends before it is complete");
    refuse(&new, huge_leaf + 6, 48, 8, ""); // the root's header as an attribute
}

// Chunks are looked at when they are read.
static void refuse_chunk(size_t at, uint64_t value, int n, const char *text) {
    hirl_ckpt_t *file = NULL;
    double out[12];
    put(&old, at, value, n);
    save_image(&old, old.size);
    NEED_OK(hirl_arrays_open(test_path("forged.h5"), &file));
    CHECK_FAILS(hirl_ckpt_read(file, "/chunked", HIRL_CKPT_F64, 2, (const int64_t[]){3, 4}, out),
                HIRL_ERR_FORMAT, text);
    hirl_ckpt_close(&file);
    memcpy(old.bytes, old.pristine, old.size);
}

static void test_chunks(void) {
    const size_t tree = (size_t)value_at(&old, message_of(&old, "chunked", LAYOUT, 0) + 3, 8),
                 key = tree + 24, child = key + 32, chunk = (size_t)value_at(&old, child, 8);
    refuse_chunk(tree, 0, 1, "a B-tree of chunks should be here");
    refuse_chunk(tree + 4, 0, 1, "a B-tree of chunks should be here");
    refuse_chunk(tree + 5, 16, 1, "a B-tree's node of level 16");
    refuse_chunk(tree + 5, 1, 1, "a B-tree of chunks should be here");
    refuse_chunk(tree + 6, 0, 2, "a B-tree's node without entries");
    refuse_chunk(tree + 6, 0xffff, 2, "a B-tree's node of");
    refuse_chunk(tree + 6, 3, 2, "has 3 of 4 chunks, it was not written to its end");
    refuse_chunk(key, 0, 4, "a packed chunk of 0 bytes");
    refuse_chunk(key, UINT32_MAX, 4, "a packed chunk of 4294967295 bytes");
    refuse_chunk(key, value_at(&old, key, 4) - 1, 4, "a chunk is damaged");
    refuse_chunk(key + 4, 2, 4, "a chunk has");            // not unpacked
    refuse_chunk(key + 8, 1, 8, "a chunk at 1 of axis 0"); // not on the grid
    refuse_chunk(key + 8, 4, 8, "a chunk at 4 of axis 0, which has 3");
    refuse_chunk(key + 16, 3, 8, "a chunk is there twice");
    refuse_chunk(child, old.size - 1, 8, "a chunk of");
    refuse_chunk(child, NOWHERE, 8, "a chunk of");
    refuse_chunk(chunk + 20, ~value_at(&old, chunk + 20, 1), 1, "a chunk is damaged");
}

// ------------------------------------------------------------------------------------ bytes

// How many ways each byte is to be changed in; 0: a sample.
static int n_all(void) {
    const char *all = getenv("HIRL_H5_ALL");
    return !all ? 0 : atoi(all) == 255 ? 255 : 9;
}

// Bytes of a file, changed; what of it is refused, what is read.
static void change_bytes(image_t *image, int step) {
    static const uint8_t FLIPS[] = {1, 2, 4, 8, 16, 32, 64, 128, 0xff};
    const int n_ways = n_all() ? n_all() : (int)sizeof FLIPS;
    long n = 0;
    n_read = n_refused = 0;
    for (size_t at = 0; at < image->size; at += (size_t)(n_all() ? 1 : step)) {
        for (int i = 0; i < n_ways; i++, n++) {
            memcpy(image->bytes, image->pristine, image->size);
            image->bytes[at] ^= n_ways == 255 ? (uint8_t)(i + 1) : FLIPS[i];
            mend_h5(image->bytes, image->size);
            save_image(image, image->size);
            read_forged(image->size);
        }
    }
    memcpy(image->bytes, image->pristine, image->size);
    printf("%s: %ld changes, %ld refused at opening, %ld arrays read\n", image->name, n, n_refused,
           n_read);
    CHECK(n_refused > n / 20 && n_read > n);
}

// Cut at any length.
static void cut(image_t *image) {
    n_refused = 0;
    for (size_t size = 0; size < image->size; size++) {
        save_image(image, size);
        read_forged(size);
    }
    CHECK_EQ_I(n_refused, (long)image->size);
}

static void test_bytes(void) {
#ifdef __SANITIZE_ADDRESS__
    const int step = 29;
#else
    const int step = 5;
#endif
    change_bytes(&old, step);
    change_bytes(&new, step);
    cut(&old);
    cut(&new);
}

// Several bytes at once, drawn at random.
static void test_random(void) {
    hirl_rng_t rng = hirl_rng_make(test_seed(), HIRL_RNG_TEST, 0, 461, 0);
    const int n = n_all() ? 100000 : 2000;
    n_read = n_refused = 0;
    for (int i = 0; i < n; i++) {
        image_t *image = i % 2 ? &new : &old;
        memcpy(image->bytes, image->pristine, image->size);
        for (int k = (int)hirl_rng_below(&rng, 4); k >= 0; k--) {
            const size_t at = (size_t)hirl_rng_below(&rng, (int64_t)image->size - 8);
            if (hirl_rng_below(&rng, 2)) { // one address, or a piece, in place of another
                const size_t from = (size_t)hirl_rng_below(&rng, (int64_t)image->size - 8);
                memcpy(image->bytes + at / 8 * 8, image->pristine + from / 8 * 8, 8);
            } else {
                image->bytes[at] = (uint8_t)hirl_rng_below(&rng, 256);
            }
        }
        mend_h5(image->bytes, image->size);
        save_image(image, image->size);
        read_forged(image->size);
        memcpy(image->bytes, image->pristine, image->size);
    }
    printf("%d random changes, %ld refused at opening, %ld arrays read\n", n, n_refused, n_read);
    CHECK(n_refused > n / 20 && n_read > n);
}

TEST_MAIN {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    make_image(&old, "old.h5", false);
    make_image(&new, "new.h5", true);
    printf("old format %zu bytes, new format %zu\n", old.size, new.size);
    RUN(test_superblock);
    RUN(test_header);
    RUN(test_messages);
    RUN(test_old_groups);
    RUN(test_new_groups);
    RUN(test_attributes);
    RUN(test_chunks);
    RUN(test_bytes);
    RUN(test_random);
    if (forged >= 0) close(forged);
}
