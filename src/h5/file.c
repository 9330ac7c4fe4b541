// Opening: the superblock, then one object after another, each once. Blocks of metadata are read into
// memory of their own, so that a file which changes meanwhile changes nothing that was checked.
#include "h5_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint8_t SIGNATURE[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
static const char REMEDY[] =
    "; files as h5py writes them by default are read, and h5repack writes a file anew";

// No program needs so much, and a hostile file shall not make one need it.
static const uint64_t LOADED_MAX = UINT64_C(1) << 28;
enum { OBJECTS_MAX = 1 << 20, LINKS_MAX = 1 << 20 };

hirl_status_t hirl_h5_fail(const char *file_name, int line, const char *func, const hirl_h5_t *file,
                           uint64_t pos, const char *fmt, ...) {
    char what[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return hirl_error_record(HIRL_ERR_FORMAT, file_name, line, func, "%s: byte %llu: %s",
                             file->path, (unsigned long long)pos, what);
}

hirl_status_t hirl_h5_check_span(const hirl_h5_t *file, const hirl_h5_span_t *span,
                                 const char *what) {
    HIRL_H5_REQUIRE(!span->is_short, file, span->pos, "%s ends before it is complete", what);
    return HIRL_OK;
}

hirl_status_t hirl_h5_grow(const hirl_h5_t *file, void *array_p, int n, int *room, size_t item) {
    if (n < *room) return HIRL_OK;
    HIRL_REQUIRE(*room <= INT_MAX / 4, HIRL_ERR_FORMAT, "%s: it has too many parts", file->path);
    const int more = *room ? *room + *room / 2 : 16;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)more * item, array_p));
    *room = more;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- bytes

hirl_status_t hirl_h5_fetch(const hirl_h5_t *file, uint64_t pos, uint64_t size, const char *what,
                            void *out) {
    HIRL_H5_REQUIRE(pos <= file->end && size <= file->end - pos, file, pos,
                    "%s of %llu bytes should be here, but the file has %llu bytes", what,
                    (unsigned long long)size, (unsigned long long)file->end);
    uint8_t *at = out;
    while (size > 0) {
        const size_t part = size < 1 << 30 ? (size_t)size : (size_t)1 << 30;
        const ssize_t n = pread(file->fd, at, part, (off_t)pos);
        if (n < 0 && errno == EINTR) continue;
        HIRL_REQUIRE(n >= 0, HIRL_ERR_IO, "%s: byte %llu: cannot read %s: %s", file->path,
                     (unsigned long long)pos, what, strerror(errno));
        HIRL_H5_REQUIRE(n > 0, file, pos, "the file was cut short while it was read");
        at += n;
        pos += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return HIRL_OK;
}

hirl_status_t hirl_h5_load(hirl_h5_t *file, uint64_t pos, uint64_t size, const char *what,
                           hirl_h5_span_t *span_p) {
    uint8_t *bytes = NULL;
    HIRL_H5_REQUIRE(pos != HIRL_H5_NOWHERE, file, file->end, "%s is nowhere in the file", what);
    HIRL_H5_REQUIRE(pos <= file->end && size <= file->end - pos, file, pos,
                    "%s of %llu bytes should be here, but the file has %llu bytes", what,
                    (unsigned long long)size, (unsigned long long)file->end);
    HIRL_H5_REQUIRE(
        size <= file->end - file->loaded, file, pos,
        "with %s of %llu bytes, blocks of metadata are more than the file: some are used twice",
        what, (unsigned long long)size);
    HIRL_H5_REQUIRE(size <= LOADED_MAX - file->loaded, file, pos,
                    "with %s of %llu bytes, metadata is more than %llu MiB", what,
                    (unsigned long long)size, (unsigned long long)LOADED_MAX >> 20);
    HIRL_TRY(
        hirl_h5_grow(file, &file->blocks, file->n_blocks, &file->block_room, sizeof *file->blocks));
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, (size_t)size, (void **)&bytes));
    file->blocks[file->n_blocks++] = (hirl_h5_block_t){pos, size, bytes};
    file->loaded += size;
    HIRL_TRY(hirl_h5_fetch(file, pos, size, what, bytes));
    *span_p = (hirl_h5_span_t){.at = bytes, .left = (size_t)size, .pos = pos};
    return HIRL_OK;
}

hirl_status_t hirl_h5_load_signed(hirl_h5_t *file, uint64_t pos, uint64_t size,
                                  const char signature[5], int version, const char *what,
                                  hirl_h5_span_t *span_p) {
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load(file, pos, size, what, &span));
    const uint8_t *letters = hirl_h5_take(&span, 4);
    HIRL_H5_REQUIRE(letters && memcmp(letters, signature, 4) == 0, file, pos,
                    "%s should begin here with '%s', but does not", what, signature);
    const int found = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(found == version, file, pos + 4, "%s has version %d, expected %d", what, found,
                    version);
    *span_p = span;
    return HIRL_OK;
}

// The middle and the end of lookup3; words of a block of up to 12 bytes.
static void mix(uint32_t *a, uint32_t *b, uint32_t *c) {
#define TURN(x, k) ((x) << (k) | (x) >> (32 - (k)))
#define STEP(x, y, z, k) x -= z, x ^= TURN(z, k), z += y
    STEP(*a, *b, *c, 4);
    STEP(*b, *c, *a, 6);
    STEP(*c, *a, *b, 8);
    STEP(*a, *b, *c, 16);
    STEP(*b, *c, *a, 19);
    STEP(*c, *a, *b, 4);
#undef STEP
}

uint32_t hirl_h5_lookup3(const uint8_t *bytes, size_t n) {
    uint32_t a = 0xdeadbeef + (uint32_t)n, b = a, c = a;
    for (; n > 12; n -= 12, bytes += 12) {
        a += (uint32_t)hirl_h5_little(bytes, 4);
        b += (uint32_t)hirl_h5_little(bytes + 4, 4);
        c += (uint32_t)hirl_h5_little(bytes + 8, 4);
        mix(&a, &b, &c);
    }
    if (n == 0) return c;
    uint8_t last[12] = {0};
    memcpy(last, bytes, n);
    a += (uint32_t)hirl_h5_little(last, 4);
    b += (uint32_t)hirl_h5_little(last + 4, 4);
    c += (uint32_t)hirl_h5_little(last + 8, 4);
#define STEP(x, y, k) x ^= y, x -= TURN(y, k)
    STEP(c, b, 14);
    STEP(a, c, 11);
    STEP(b, a, 25);
    STEP(c, b, 16);
    STEP(a, c, 4);
    STEP(b, a, 14);
    STEP(c, b, 24);
#undef STEP
#undef TURN
    return c;
}

hirl_status_t hirl_h5_check_sum(const hirl_h5_t *file, const uint8_t *from, uint64_t n,
                                uint64_t pos, const char *what) {
    const uint32_t stored = (uint32_t)hirl_h5_little(from + n, 4),
                   found = hirl_h5_lookup3(from, (size_t)n);
    HIRL_H5_REQUIRE(stored == found, file, pos,
                    "%s is damaged: checksum %08x, expected the stored %08x", what, found, stored);
    return HIRL_OK;
}

static int by_position(const void *a, const void *b) {
    const hirl_h5_block_t *x = a, *y = b;
    return (x->pos > y->pos) - (x->pos < y->pos);
}

static hirl_status_t check_overlaps(hirl_h5_t *file) {
    qsort(file->blocks, (size_t)file->n_blocks, sizeof *file->blocks, by_position);
    for (int i = 1; i < file->n_blocks; i++) {
        const hirl_h5_block_t *one = &file->blocks[i - 1], *next = &file->blocks[i];
        HIRL_H5_REQUIRE(next->pos - one->pos >= one->size, file, next->pos,
                        "a block of metadata begins within one of %llu bytes at byte %llu",
                        (unsigned long long)one->size, (unsigned long long)one->pos);
    }
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- objects

static size_t slot_of(const hirl_h5_t *file, uint64_t address) {
    uint64_t hash = address * UINT64_C(0x9e3779b97f4a7c15);
    size_t slot = (size_t)(hash >> 32) & (size_t)(file->table_size - 1);
    while (file->table[slot] && file->objects[file->table[slot] - 1].address != address) {
        slot = (slot + 1) & (size_t)(file->table_size - 1);
    }
    return slot;
}

static hirl_status_t grow_table(hirl_h5_t *file) {
    if (2 * (file->n_objects + 1) <= file->table_size) return HIRL_OK;
    hirl_mem_free(file->table);
    file->table = NULL;
    file->table_size = file->table_size ? 2 * file->table_size : 64;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, file->table_size, &file->table));
    for (int i = 0; i < file->n_objects; i++) {
        file->table[slot_of(file, file->objects[i].address)] = i + 1;
    }
    return HIRL_OK;
}

static hirl_status_t add_object(hirl_h5_t *file, uint64_t address, int link, int *object_p) {
    HIRL_TRY(grow_table(file));
    const size_t slot = slot_of(file, address);
    if (file->table[slot] == 0) {
        HIRL_REQUIRE(file->n_objects < OBJECTS_MAX, HIRL_ERR_FORMAT, "%s: more than %d objects",
                     file->path, OBJECTS_MAX);
        HIRL_TRY(hirl_h5_grow(file, &file->objects, file->n_objects, &file->object_room,
                              sizeof *file->objects));
        file->objects[file->n_objects++] =
            (hirl_h5_object_t){.address = address, .link = link, .offset = -1};
        file->table[slot] = file->n_objects;
    }
    *object_p = file->table[slot] - 1;
    return HIRL_OK;
}

hirl_status_t hirl_h5_add_link(hirl_h5_t *file, hirl_h5_loading_t *loading, const char *name,
                               size_t n_name, uint64_t address, uint64_t pos) {
    HIRL_H5_REQUIRE(n_name >= 1 && n_name < HIRL_H5_NAME_MAX, file, pos,
                    "the name of a link has %zu bytes, expected 1 to %d", n_name,
                    HIRL_H5_NAME_MAX - 1);
    HIRL_H5_REQUIRE(!memchr(name, '/', n_name) && !memchr(name, '\0', n_name), file, pos,
                    "the name of a link holds '/' or NUL");
    HIRL_REQUIRE(file->n_links < LINKS_MAX, HIRL_ERR_FORMAT, "%s: more than %d links", file->path,
                 LINKS_MAX);
    HIRL_TRY(
        hirl_h5_grow(file, &file->links, file->n_links, &file->link_room, sizeof *file->links));
    hirl_h5_link_t link = {name, (int)n_name, loading->index, -1};
    if (address != HIRL_H5_NOWHERE)
        HIRL_TRY(add_object(file, address, file->n_links, &link.object));
    if (loading->object.n_links++ == 0) loading->object.first_link = file->n_links;
    file->links[file->n_links++] = link;
    return HIRL_OK;
}

// What the header says of where an array's bytes are, compared with the file.
static hirl_status_t settle_array(hirl_h5_t *file, hirl_h5_loading_t *loading) {
    hirl_h5_object_t *object = &loading->object;
    if (object->layout == HIRL_H5_CONTIGUOUS && object->offset >= 0) {
        HIRL_H5_REQUIRE((uint64_t)object->offset <= file->end &&
                            (uint64_t)object->n_stored <= file->end - (uint64_t)object->offset,
                        file, object->address,
                        "an array claims bytes %llu to %llu, the file has %llu: it is truncated",
                        (unsigned long long)object->offset,
                        (unsigned long long)object->offset + (unsigned long long)object->n_stored,
                        (unsigned long long)file->end);
    }
    if (object->layout != HIRL_H5_CHUNKED) return HIRL_OK;
    uint64_t bytes = object->type.size;
    for (int i = 0; i < object->n_chunk_axes; i++) {
        if (__builtin_mul_overflow(bytes, (uint64_t)loading->packing.side[i], &bytes))
            bytes = UINT64_MAX;
    }
    object->chunk_bytes = bytes;
    HIRL_TRY(hirl_h5_grow(file, &file->packings, file->n_packings, &file->packing_room,
                          sizeof *file->packings));
    object->packing = file->n_packings;
    file->packings[file->n_packings++] = loading->packing;
    return HIRL_OK;
}

static hirl_status_t load_object(hirl_h5_t *file, int index) {
    hirl_h5_loading_t loading = {.index = index, .object = file->objects[index]};
    loading.packing.tree = HIRL_H5_NOWHERE;
    HIRL_TRY(hirl_h5_load_header(file, &loading));
    hirl_h5_object_t *object = &loading.object;
    const bool is_array = loading.has_space && loading.has_type && loading.has_layout;
    HIRL_H5_REQUIRE(!is_array || !loading.is_group, file, object->address,
                    "an object is an array and a group in one");
    object->kind = is_array ? HIRL_H5_ARRAY : loading.is_group ? HIRL_H5_GROUP : HIRL_H5_TYPE;
    HIRL_H5_REQUIRE(index > 0 || loading.is_group, file, object->address,
                    "the root object is no group");
    if (is_array) HIRL_TRY(settle_array(file, &loading));
    file->objects[index] = *object;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- superblock

// A signature further on means a file with a user block, which MATLAB writes.
static hirl_status_t fail_signature(const hirl_h5_t *file) {
    uint8_t found[8];
    for (uint64_t pos = 512; pos < file->end && file->end - pos >= 8 && pos < 1 << 20; pos *= 2) {
        HIRL_TRY(hirl_h5_fetch(file, pos, 8, "a signature", found));
        HIRL_REQUIRE(memcmp(found, SIGNATURE, 8) != 0, HIRL_ERR_FORMAT,
                     "%s: HDF5 begins at byte %llu, behind a user block; expected it at the "
                     "beginning (h5unjam takes the block off)",
                     file->path, (unsigned long long)pos);
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT, "%s: not an HDF5 file (%lld bytes)", file->path,
                     (long long)file->size);
}

static hirl_status_t check_superblock(hirl_h5_t *file, uint64_t base, uint64_t end) {
    HIRL_REQUIRE(base == 0, HIRL_ERR_FORMAT, "%s: its addresses begin at %llu, expected 0%s",
                 file->path, (unsigned long long)base, REMEDY);
    HIRL_REQUIRE(end <= (uint64_t)file->size, HIRL_ERR_FORMAT,
                 "%s: truncated file: it should have %llu bytes, there are %lld", file->path,
                 (unsigned long long)end, (long long)file->size);
    // What lies behind is not the format's.
    HIRL_REQUIRE(end >= file->loaded, HIRL_ERR_FORMAT, "%s: it claims to end at byte %llu",
                 file->path, (unsigned long long)end);
    file->end = end;
    return HIRL_OK;
}

// Versions 0 and 1: sizes of addresses at 13; K of trees from 16; then addresses.
static hirl_status_t read_old_superblock(hirl_h5_t *file, int version, uint64_t *root_p) {
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load(file, 0, version == 0 ? 96 : 100, "the superblock", &span));
    hirl_h5_take(&span, 13);
    const int n_offset = (int)hirl_h5_take_u(&span, 1), n_length = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(n_offset == 8 && n_length == 8, file, 13,
                    "addresses and sizes of %d and %d bytes, expected 8%s", n_offset, n_length,
                    REMEDY);
    hirl_h5_take(&span, version == 0 ? 9 : 13);
    const uint64_t base = hirl_h5_take_u(&span, 8);
    hirl_h5_take(&span, 8); // free space
    const uint64_t end = hirl_h5_take_u(&span, 8), driver = hirl_h5_take_u(&span, 8);
    HIRL_H5_REQUIRE(driver == HIRL_H5_NOWHERE, file, span.pos - 8,
                    "the file is one of several that belong together%s", REMEDY);
    hirl_h5_take(&span, 8); // the root's name
    *root_p = hirl_h5_take_u(&span, 8);
    HIRL_TRY(hirl_h5_check_span(file, &span, "the superblock"));
    return check_superblock(file, base, end);
}

static hirl_status_t read_new_superblock(hirl_h5_t *file, int version, uint64_t *root_p) {
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load(file, 0, 48, "the superblock", &span));
    HIRL_TRY(hirl_h5_check_sum(file, span.at, 44, 0, "the superblock"));
    hirl_h5_take(&span, 9);
    const int n_offset = (int)hirl_h5_take_u(&span, 1), n_length = (int)hirl_h5_take_u(&span, 1);
    const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(n_offset == 8 && n_length == 8, file, 9,
                    "addresses and sizes of %d and %d bytes, expected 8%s", n_offset, n_length,
                    REMEDY);
    HIRL_H5_REQUIRE(version < 3 || flags == 0, file, 11,
                    "the file is being written, or its writer was stopped (h5clear -s makes it "
                    "readable if it is whole)");
    const uint64_t base = hirl_h5_take_u(&span, 8), extension = hirl_h5_take_u(&span, 8),
                   end = hirl_h5_take_u(&span, 8);
    HIRL_H5_REQUIRE(extension == HIRL_H5_NOWHERE, file, 20,
                    "the superblock has an extension (shared messages, pages, cache images), "
                    "which is not read%s",
                    REMEDY);
    *root_p = hirl_h5_take_u(&span, 8);
    return check_superblock(file, base, end);
}

static hirl_status_t read_superblock(hirl_h5_t *file, uint64_t *root_p) {
    uint8_t begun[9];
    file->end = (uint64_t)file->size;
    if (file->size < (int64_t)sizeof begun) return fail_signature(file);
    HIRL_TRY(hirl_h5_fetch(file, 0, sizeof begun, "the superblock", begun));
    if (memcmp(begun, SIGNATURE, 8) != 0) return fail_signature(file);
    const int version = begun[8];
    HIRL_H5_REQUIRE(version <= 3, file, 8, "the superblock has version %d, expected 0 to 3%s",
                    version, REMEDY);
    return version < 2 ? read_old_superblock(file, version, root_p)
                       : read_new_superblock(file, version, root_p);
}

// -------------------------------------------------------------------------------------- open

static hirl_status_t open_descriptor(hirl_h5_t *file) {
    struct stat found;
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe would wait for ever
    HIRL_REQUIRE(file->fd >= 0, HIRL_ERR_IO, "%s: %s", file->path, strerror(errno));
    HIRL_REQUIRE(fstat(file->fd, &found) == 0 && S_ISREG(found.st_mode), HIRL_ERR_IO,
                 "%s: not a file", file->path);
    file->size = (int64_t)found.st_size;
    return HIRL_OK;
}

hirl_status_t hirl_h5_open(const char *path, hirl_h5_t **file_p) {
    hirl_h5_t *file = NULL;
    hirl_status_t status;
    uint64_t root = 0;
    int object = 0;
    HIRL_REQUIRE(path && path[0], HIRL_ERR_ARG, "the file to open has no name");
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &file));
    file->fd = -1;
    HIRL_TRY_GOTO(hirl_mem_alloc(HIRL_MEM_GENERAL, strlen(path) + 1, (void **)&file->path), status,
                  err_close);
    strcpy(file->path, path);
    HIRL_TRY_GOTO(open_descriptor(file), status, err_close);
    HIRL_TRY_GOTO(read_superblock(file, &root), status, err_close);
    HIRL_TRY_GOTO(add_object(file, root, -1, &object), status, err_close);
    // Grows while it is walked: groups add what they hold.
    for (int i = 0; i < file->n_objects; i++) {
        HIRL_TRY_GOTO(load_object(file, i), status, err_close);
    }
    HIRL_TRY_GOTO(check_overlaps(file), status, err_close);
    *file_p = file;
    return HIRL_OK;

err_close:
    hirl_h5_close(&file);
    return status;
}

void hirl_h5_close(hirl_h5_t **file) {
    if (!file || !*file) return;
    hirl_h5_t *it = *file;
    if (it->fd >= 0) close(it->fd);
    for (int i = 0; i < it->n_blocks; i++) hirl_mem_free(it->blocks[i].bytes);
    hirl_mem_free(it->blocks);
    hirl_mem_free(it->objects);
    hirl_mem_free(it->links);
    hirl_mem_free(it->attributes);
    hirl_mem_free(it->packings);
    hirl_mem_free(it->table);
    hirl_mem_free(it->path);
    hirl_mem_free(it);
    *file = NULL;
}

// -------------------------------------------------------------------------------------- look

int64_t hirl_h5_file_size(const hirl_h5_t *file) { return file->size; }

int hirl_h5_descriptor(const hirl_h5_t *file) { return file->fd; }

int hirl_h5_n_objects(const hirl_h5_t *file) { return file->n_objects; }

const hirl_h5_object_t *hirl_h5_object_view(const hirl_h5_t *file, int object) {
    return &file->objects[object];
}

const hirl_h5_link_t *hirl_h5_link_view(const hirl_h5_t *file, int link) {
    return &file->links[link];
}

const hirl_h5_attribute_t *hirl_h5_attributes_view(const hirl_h5_t *file,
                                                   const hirl_h5_object_t *object) {
    return object->n_attributes > 0 ? &file->attributes[object->first_attribute] : NULL;
}

const hirl_h5_attribute_t *hirl_h5_find_attribute_view(const hirl_h5_t *file,
                                                       const hirl_h5_object_t *object,
                                                       const char *name) {
    for (int i = 0; i < object->n_attributes; i++) {
        const hirl_h5_attribute_t *attribute = &file->attributes[object->first_attribute + i];
        if (strcmp(attribute->name, name) == 0) return attribute;
    }
    return NULL;
}

const hirl_h5_link_t *hirl_h5_find_link_view(const hirl_h5_t *file, const char *name) {
    const hirl_h5_object_t *root = &file->objects[0];
    const size_t n = strlen(name);
    for (int i = 0; i < root->n_links; i++) {
        const hirl_h5_link_t *link = &file->links[root->first_link + i];
        if ((size_t)link->n_name == n && memcmp(link->name, name, n) == 0) return link;
    }
    return NULL;
}

// From the end to the beginning: groups come before what they hold, so this ends at the root.
hirl_status_t hirl_h5_path(const hirl_h5_t *file, int object, char *buf, size_t size) {
    size_t n = 0;
    for (int i = object; file->objects[i].link >= 0;) {
        const hirl_h5_link_t *link = &file->links[file->objects[i].link];
        n += 1 + (size_t)link->n_name;
        HIRL_REQUIRE(n < size, HIRL_ERR_FORMAT,
                     "%s: the name of an array or group is longer than %zu bytes", file->path,
                     size - 1);
        i = link->group;
    }
    if (n == 0) return hirl_text_format(buf, size, "/");
    buf[n] = '\0';
    for (int i = object; file->objects[i].link >= 0;) {
        const hirl_h5_link_t *link = &file->links[file->objects[i].link];
        n -= (size_t)link->n_name;
        memcpy(buf + n, link->name, (size_t)link->n_name);
        buf[--n] = '/';
        i = link->group;
    }
    return HIRL_OK;
}
