// Reading arrays. Chunks are listed by a B-tree (version 1), each is unpacked to its own size and no
// further, and each must be there once.
#include "h5_impl.h"

#include <string.h>
#include <zlib.h>

enum { DEFLATE = 1, SHUFFLE = 2, FLETCHER32 = 3 };

// Chunks may unfold to this many times the file's size, all together: DEFLATE reaches 1032.
static const double UNFOLD_MAX = 1040;

// -------------------------------------------------------------------------------------- filters

// Sums of 16-bit words, big-endian, as HDF5 takes them; an odd byte at the end is a high one.
static uint32_t fletcher32(const uint8_t *bytes, size_t n) {
    uint32_t one = 0, two = 0;
    for (size_t i = 0; i < n; i += 2) {
        one = (one + ((uint32_t)bytes[i] << 8 | (i + 1 < n ? bytes[i + 1] : 0u))) % 65535;
        two = (two + one) % 65535;
    }
    return two << 16 | one;
}

// HDF5's sums are the same but for the two forms of zero, 0 and 65535.
static bool is_same_sum(uint32_t a, uint32_t b) {
    return (a >> 16) % 65535 == (b >> 16) % 65535 && (a & 0xffff) % 65535 == (b & 0xffff) % 65535;
}

static void unshuffle(const uint8_t *from, uint8_t *to, size_t n, size_t item) {
    const size_t n_items = n / item;
    for (size_t i = 0; i < n_items; i++) {
        for (size_t b = 0; b < item; b++) to[i * item + b] = from[b * n_items + i];
    }
    memcpy(to + n_items * item, from + n_items * item, n - n_items * item);
}

// A chunk on its way from the file to the array, in two blocks of memory by turns.
typedef struct unpacking {
    const hirl_h5_t *file;
    const char *name; // of the array
    const hirl_h5_object_t *array;
    const hirl_h5_packing_t *packing;
    uint64_t pos;        // of the chunk
    size_t room;         // bytes of each block
    uint8_t *now, *next; // what there is, and where it goes
    size_t n;            // bytes of what there is
    uint8_t *seen;       // a bit for each chunk
    uint64_t n_seen, n_chunks;
    uint64_t n_per_axis[HIRL_H5_AXES_MAX];
    uint8_t *out;
} unpacking_t;

static void swap_blocks(unpacking_t *it, size_t n) {
    uint8_t *other = it->now;
    it->now = it->next;
    it->next = other;
    it->n = n;
}

// `most` bytes can come of it at most: the chunk, and checksums that were added before.
static hirl_status_t inflate_chunk(unpacking_t *it, size_t most) {
    uLongf n = (uLongf)most;
    uLong n_packed = (uLong)it->n;
    const int code = uncompress2(it->next, &n, it->now, &n_packed);
    HIRL_H5_REQUIRE(code == Z_OK, it->file, it->pos,
                    "array %s: a chunk is damaged: gzip: %s, or more than %zu bytes", it->name,
                    zError(code), most);
    swap_blocks(it, n);
    return HIRL_OK;
}

// Undoes the filters, last one first.
static hirl_status_t unpack_chunk(unpacking_t *it, uint32_t mask) {
    const hirl_h5_packing_t *packing = it->packing;
    const size_t whole = (size_t)it->array->chunk_bytes;
    for (int f = packing->n_filters; f-- > 0;) {
        if (mask >> f & 1) continue;
        size_t n_sums = 0; // checksums that filters before this one have added
        for (int k = 0; k < f; k++) {
            n_sums += packing->filter[k] == FLETCHER32 && !(mask >> k & 1) ? 4 : 0;
        }
        switch (packing->filter[f]) {
            case DEFLATE: HIRL_TRY(inflate_chunk(it, whole + n_sums)); break;
            case SHUFFLE:
                if (it->array->type.size <= 1) break;
                unshuffle(it->now, it->next, it->n, it->array->type.size);
                swap_blocks(it, it->n);
                break;
            default: { // FLETCHER32
                HIRL_H5_REQUIRE(it->n >= 4, it->file, it->pos, "array %s: a chunk without checksum",
                                it->name);
                const uint32_t stored = (uint32_t)hirl_h5_little(it->now + it->n - 4, 4),
                               found = fletcher32(it->now, it->n - 4);
                HIRL_H5_REQUIRE(is_same_sum(stored, found), it->file, it->pos,
                                "array %s: a chunk is damaged: checksum %08x, expected %08x",
                                it->name, found, stored);
                it->n -= 4;
            }
        }
    }
    HIRL_H5_REQUIRE(it->n == whole, it->file, it->pos,
                    "array %s: a chunk has %zu bytes, expected %zu", it->name, it->n, whole);
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- chunks

// Copies a chunk to its place; what of it lies beyond the array is left out.
static void place_chunk(const unpacking_t *it, const uint64_t *first) {
    const hirl_h5_object_t *array = it->array;
    const uint32_t *side = it->packing->side;
    const int last = array->n_axes - 1;
    const size_t item = array->type.size;
    uint64_t n[HIRL_H5_AXES_MAX], at[HIRL_H5_AXES_MAX] = {0};
    for (int i = 0; i <= last; i++) {
        const uint64_t left = (uint64_t)array->shape[i] - first[i];
        n[i] = left < side[i] ? left : side[i];
    }
    for (;;) {
        uint64_t from = 0, to = 0;
        for (int i = 0; i <= last; i++) {
            from = from * side[i] + at[i];
            to = to * (uint64_t)array->shape[i] + first[i] + at[i];
        }
        memcpy(it->out + to * item, it->now + from * item, (size_t)n[last] * item);
        int axis = last - 1;
        while (axis >= 0 && ++at[axis] == n[axis]) at[axis--] = 0;
        if (axis < 0) return;
    }
}

static hirl_status_t take_chunk(unpacking_t *it, uint64_t size, uint32_t mask,
                                const uint64_t *first, uint64_t pos) {
    const hirl_h5_object_t *array = it->array;
    uint64_t number = 0;
    it->pos = pos;
    for (int i = 0; i < array->n_axes; i++) {
        const uint32_t side = it->packing->side[i];
        HIRL_H5_REQUIRE(first[i] % side == 0 && first[i] < (uint64_t)array->shape[i], it->file, pos,
                        "array %s: a chunk at %llu of axis %d, which has %lld", it->name,
                        (unsigned long long)first[i], i, (long long)array->shape[i]);
        number = number * it->n_per_axis[i] + first[i] / side;
    }
    HIRL_H5_REQUIRE(!(it->seen[number / 8] >> number % 8 & 1), it->file, pos,
                    "array %s: a chunk is there twice", it->name);
    it->seen[number / 8] |= (uint8_t)(1 << number % 8);
    it->n_seen++;
    HIRL_H5_REQUIRE(size >= 1 && size <= it->room, it->file, pos,
                    "array %s: a packed chunk of %llu bytes, expected 1 to %zu", it->name,
                    (unsigned long long)size, it->room);
    HIRL_TRY(hirl_h5_fetch(it->file, pos, size, "a chunk", it->now));
    it->n = (size_t)size;
    HIRL_TRY(unpack_chunk(it, mask));
    place_chunk(it, first);
    return HIRL_OK;
}

// Each leaf has a chunk that was not there before, so that there are no more nodes than chunks allow.
static hirl_status_t take_node(unpacking_t *it, uint64_t pos, int level) {
    const hirl_h5_t *file = it->file;
    const int n_axes = it->array->n_axes;
    const uint64_t n_key = 8 + 8 * ((uint64_t)n_axes + 1);
    uint8_t begun[24], *bytes = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_h5_fetch(file, pos, sizeof begun, "a B-tree's node", begun));
    const uint64_t n = hirl_h5_little(begun + 6, 2), size = 24 + n * (n_key + 8);
    HIRL_H5_REQUIRE(memcmp(begun, "TREE", 4) == 0 && begun[4] == 1, file, pos,
                    "array %s: a B-tree of chunks should be here, but is not", it->name);
    HIRL_H5_REQUIRE(level < 0 ? begun[5] < HIRL_H5_LEVELS_MAX : begun[5] == level, file, pos + 5,
                    "array %s: a B-tree's node of level %d, expected %d", it->name, begun[5],
                    level < 0 ? HIRL_H5_LEVELS_MAX - 1 : level);
    HIRL_H5_REQUIRE(n > 0, file, pos + 6, "array %s: a B-tree's node without entries", it->name);
    HIRL_H5_REQUIRE(size <= file->end - pos, file, pos, "array %s: a B-tree's node of %llu bytes",
                    it->name, (unsigned long long)size);
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, (size_t)size, (void **)&bytes));
    HIRL_TRY_GOTO(hirl_h5_fetch(file, pos, size, "a B-tree's node", bytes), status, done);
    hirl_h5_span_t span = {.at = bytes, .left = (size_t)size, .pos = pos};
    hirl_h5_take(&span, 24);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t first[HIRL_H5_AXES_MAX];
        const uint64_t n_packed = hirl_h5_take_u(&span, 4);
        const uint32_t mask = (uint32_t)hirl_h5_take_u(&span, 4);
        for (int axis = 0; axis < n_axes; axis++) first[axis] = hirl_h5_take_u(&span, 8);
        hirl_h5_take(&span, 8);
        const uint64_t child = hirl_h5_take_u(&span, 8);
        HIRL_TRY_GOTO(begun[5] > 0 ? take_node(it, child, begun[5] - 1)
                                   : take_chunk(it, n_packed, mask, first, child),
                      status, done);
    }
done:
    hirl_mem_free(bytes);
    return status;
}

static bool has_filter(const hirl_h5_packing_t *packing, uint16_t filter) {
    for (int i = 0; i < packing->n_filters; i++) {
        if (packing->filter[i] == filter) return true;
    }
    return false;
}

static hirl_status_t check_packing(const hirl_h5_t *file, const char *name,
                                   const hirl_h5_object_t *array,
                                   const hirl_h5_packing_t *packing) {
    HIRL_REQUIRE(packing->is_known, HIRL_ERR_FORMAT,
                 "%s: array %s: its chunks are listed in a form of HDF5 1.10 that is not read; "
                 "h5py's default and h5repack -l CONTI write ones that are",
                 file->path, name);
    HIRL_REQUIRE(array->odd_filter == 0, HIRL_ERR_FORMAT,
                 "%s: array %s is packed by filter %d, expected gzip, shuffle or fletcher32",
                 file->path, name, array->odd_filter);
    HIRL_REQUIRE(array->n_chunk_axes == array->n_axes, HIRL_ERR_FORMAT,
                 "%s: array %s has %d axes and chunks of %d", file->path, name, array->n_axes,
                 array->n_chunk_axes);
    HIRL_REQUIRE(array->chunk_bytes <= SIZE_MAX / 4 && packing->tree != HIRL_H5_NOWHERE,
                 HIRL_ERR_FORMAT, "%s: array %s was not written to its end", file->path, name);
    return HIRL_OK;
}

static hirl_status_t read_chunks(const hirl_h5_t *file, const char *name,
                                 const hirl_h5_object_t *array, void *out) {
    const hirl_h5_packing_t *packing = &file->packings[array->packing];
    unpacking_t it = {.file = file, .name = name, .array = array, .packing = packing, .out = out};
    hirl_status_t status;
    HIRL_TRY(check_packing(file, name, array, packing));
    it.n_chunks = 1;
    for (int i = 0; i < array->n_axes; i++) {
        const uint64_t side = packing->side[i];
        it.n_per_axis[i] =
            (uint64_t)array->shape[i] / side + ((uint64_t)array->shape[i] % side > 0);
        it.n_chunks *= it.n_per_axis[i]; // no more than there are items
    }
    // Chunks that are not packed take as many bytes of the file as of memory.
    const double most = has_filter(packing, DEFLATE) ? UNFOLD_MAX : 1;
    HIRL_REQUIRE((double)it.n_chunks * (double)array->chunk_bytes <= most * (double)file->size,
                 HIRL_ERR_FORMAT,
                 "%s: array %s has %llu chunks of %llu bytes, more than a file of %lld bytes can "
                 "hold",
                 file->path, name, (unsigned long long)it.n_chunks,
                 (unsigned long long)array->chunk_bytes, (long long)file->size);
    // gzip can make what cannot be packed a little longer.
    it.room = (size_t)array->chunk_bytes + (size_t)array->chunk_bytes / 512 + 256;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, it.n_chunks / 8 + 1, &it.seen), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, it.room, &it.now), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, it.room, &it.next), status, done);
    HIRL_TRY_GOTO(take_node(&it, packing->tree, -1), status, done);
    if (it.n_seen != it.n_chunks) {
        status = HIRL_FAIL(
            HIRL_ERR_FORMAT, "%s: array %s has %llu of %llu chunks, it was not written to its end",
            file->path, name, (unsigned long long)it.n_seen, (unsigned long long)it.n_chunks);
    }
done:
    hirl_mem_free(it.seen);
    hirl_mem_free(it.now);
    hirl_mem_free(it.next);
    return status;
}

// -------------------------------------------------------------------------------------- arrays

// That the array's bytes can be in the file, asked before memory is taken for them.
static hirl_status_t check_bytes(const hirl_h5_t *file, const char *name,
                                 const hirl_h5_object_t *array) {
    int64_t bytes = 0;
    HIRL_REQUIRE(array->kind == HIRL_H5_ARRAY && array->type.size > 0 && array->n_external == 0 &&
                     array->layout != HIRL_H5_VIRTUAL,
                 HIRL_ERR_FORMAT, "%s: %s is no array whose bytes are in this file", file->path,
                 name);
    const bool is_huge = __builtin_mul_overflow(array->n_items, (int64_t)array->type.size, &bytes);
    if (array->layout == HIRL_H5_CHUNKED) {
        HIRL_REQUIRE(!is_huge && (double)bytes <= UNFOLD_MAX * (double)file->size, HIRL_ERR_FORMAT,
                     "%s: array %s claims %lld items of %u bytes, more than a file of %lld bytes "
                     "can hold",
                     file->path, name, (long long)array->n_items, array->type.size,
                     (long long)file->size);
        return HIRL_OK;
    }
    HIRL_REQUIRE(array->n_filters == 0, HIRL_ERR_FORMAT, "%s: array %s has filters without chunks",
                 file->path, name);
    HIRL_REQUIRE(!is_huge && array->n_stored == bytes, HIRL_ERR_FORMAT,
                 "%s: array %s has %lld bytes for %lld items of %u, it was not written to its end",
                 file->path, name, (long long)array->n_stored, (long long)array->n_items,
                 array->type.size);
    return HIRL_OK;
}

hirl_status_t hirl_h5_read(const hirl_h5_t *file, const char *name, const hirl_h5_object_t *array,
                           void *out) {
    if (array->n_items == 0) return HIRL_OK;
    HIRL_TRY(check_bytes(file, name, array));
    const uint64_t bytes = (uint64_t)array->n_stored;
    switch (array->layout) {
        case HIRL_H5_CHUNKED: return read_chunks(file, name, array, out);
        case HIRL_H5_COMPACT: memcpy(out, array->compact, (size_t)bytes); return HIRL_OK;
        default: return hirl_h5_fetch(file, (uint64_t)array->offset, bytes, "an array", out);
    }
}

hirl_status_t hirl_h5_read_numbers(const hirl_h5_t *file, const char *name,
                                   const hirl_h5_object_t *array, hirl_h5_number_t number,
                                   void *out) {
    void *stored = NULL;
    hirl_status_t status;
    if (array->n_items == 0) return HIRL_OK;
    HIRL_TRY(check_bytes(file, name, array));
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_GENERAL, (size_t)array->n_items, array->type.size, &stored));
    HIRL_TRY_GOTO(hirl_h5_read(file, name, array, stored), status, done);
    status = hirl_h5_convert(file, name, &array->type, stored, array->n_items, number, out);
done:
    hirl_mem_free(stored);
    return status;
}
