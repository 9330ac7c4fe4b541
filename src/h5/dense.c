// Links and attributes that are too many, or too large, for an object's header: each is a message in a
// fractal heap, and a B-tree (version 2) lists where. Messages of more than some kB ("huge") lie in the
// file by themselves, listed by a B-tree of the heap.
#include "h5_impl.h"

#include <string.h>

enum {
    LINK_NAMES = 5,
    ATTRIBUTE_NAMES = 8,
    HUGE_OBJECTS = 1,
    HEAP_BYTES = 146,
    TREE_BYTES = 38,
    PREFIX_BYTES = 10, // of a tree's node: signature, version, kind; checksum
    ID_MAX = 64
};

// Bytes that HDF5 takes for numbers up to `most`.
static int bytes_for(uint64_t most) { return most ? (63 - __builtin_clzll(most)) / 8 + 1 : 1; }

// -------------------------------------------------------------------------------------- trees

typedef hirl_status_t (*record_fn_t)(void *user, hirl_h5_span_t record);

typedef struct tree {
    hirl_h5_t *file;
    int kind, n_record;                // bytes of a record
    uint64_t most[HIRL_H5_LEVELS_MAX]; // records of a node, by level
    int n_count,
        n_sum[HIRL_H5_LEVELS_MAX]; // bytes of a child's number of records, and of all below
    uint64_t n_found;
    record_fn_t take;
    void *user;
} tree_t;

// Sizes follow from the size of nodes, as the library computes them.
static hirl_status_t size_tree(tree_t *tree, uint64_t pos, uint64_t node, int depth) {
    const uint64_t record = (uint64_t)tree->n_record;
    HIRL_H5_REQUIRE(node >= 64 && node <= 1 << 24 && depth < HIRL_H5_LEVELS_MAX, tree->file, pos,
                    "a B-tree with nodes of %llu bytes and depth %d", (unsigned long long)node,
                    depth);
    uint64_t sum = tree->most[0] = (node - PREFIX_BYTES) / record;
    tree->n_count = bytes_for(tree->most[0]);
    tree->n_sum[0] = 0;
    for (int level = 1; level <= depth; level++) {
        const uint64_t pointer = 8 + (uint64_t)(tree->n_count + tree->n_sum[level - 1]);
        HIRL_H5_REQUIRE(node > PREFIX_BYTES + 2 * pointer + record, tree->file, pos,
                        "a B-tree whose nodes of %llu bytes have no room for a record",
                        (unsigned long long)node);
        tree->most[level] = (node - PREFIX_BYTES - pointer) / (record + pointer);
        HIRL_H5_REQUIRE(!__builtin_mul_overflow(sum, tree->most[level] + 1, &sum) &&
                            !__builtin_add_overflow(sum, tree->most[level], &sum),
                        tree->file, pos, "a B-tree of more records than can be");
        tree->n_sum[level] = bytes_for(sum);
    }
    return HIRL_OK;
}

static hirl_status_t walk_node(tree_t *tree, uint64_t pos, uint64_t n, int level) {
    hirl_h5_t *file = tree->file;
    hirl_h5_span_t span;
    const int n_sum = level > 0 ? tree->n_sum[level - 1] : 0;
    const uint64_t pointer = 8 + (uint64_t)(tree->n_count + n_sum);
    HIRL_H5_REQUIRE(n <= tree->most[level], file, pos,
                    "a B-tree's node of %llu records, expected at most %llu", (unsigned long long)n,
                    (unsigned long long)tree->most[level]);
    HIRL_H5_REQUIRE(n > 0, file, pos, "a B-tree's node without records");
    const uint64_t size = 6 + n * (uint64_t)tree->n_record + (level > 0 ? (n + 1) * pointer : 0);
    HIRL_TRY(hirl_h5_load_signed(file, pos, size + 4, level > 0 ? "BTIN" : "BTLF", 0,
                                 "a B-tree's node", &span));
    HIRL_TRY(hirl_h5_check_sum(file, span.at - 5, size, pos, "a B-tree's node"));
    const int kind = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(kind == tree->kind, file, pos + 5, "a B-tree's node of kind %d, expected %d",
                    kind, tree->kind);
    hirl_h5_span_t records = hirl_h5_take_span(&span, n * (uint64_t)tree->n_record);
    HIRL_TRY(hirl_h5_check_span(file, &span, "a B-tree's node"));
    for (uint64_t i = 0; i <= n; i++) { // in the order of the keys
        if (level > 0) {
            const uint64_t child = hirl_h5_take_u(&span, 8),
                           count = hirl_h5_take_u(&span, tree->n_count);
            hirl_h5_take(&span, (uint64_t)n_sum);
            HIRL_TRY(hirl_h5_check_span(file, &span, "a B-tree's node"));
            HIRL_TRY(walk_node(tree, child, count, level - 1));
        }
        if (i == n) break;
        HIRL_TRY(tree->take(tree->user, hirl_h5_take_span(&records, (uint64_t)tree->n_record)));
        tree->n_found++;
    }
    return HIRL_OK;
}

static hirl_status_t walk_tree(hirl_h5_t *file, uint64_t pos, int kind, int n_record,
                               record_fn_t take, void *user) {
    tree_t tree = {.file = file, .kind = kind, .n_record = n_record, .take = take, .user = user};
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load_signed(file, pos, TREE_BYTES, "BTHD", 0, "a B-tree", &span));
    HIRL_TRY(hirl_h5_check_sum(file, span.at - 5, TREE_BYTES - 4, pos, "a B-tree"));
    const int found = (int)hirl_h5_take_u(&span, 1);
    const uint64_t node = hirl_h5_take_u(&span, 4);
    const int n_found = (int)hirl_h5_take_u(&span, 2), depth = (int)hirl_h5_take_u(&span, 2);
    hirl_h5_take(&span, 2); // when nodes split and merge
    const uint64_t root = hirl_h5_take_u(&span, 8), n = hirl_h5_take_u(&span, 2),
                   n_all = hirl_h5_take_u(&span, 8);
    HIRL_H5_REQUIRE(found == kind && n_found == n_record, file, pos + 5,
                    "a B-tree of kind %d with records of %d bytes, expected %d and %d", found,
                    n_found, kind, n_record);
    HIRL_TRY(size_tree(&tree, pos, node, depth));
    if (root == HIRL_H5_NOWHERE || (n == 0 && n_all == 0)) return HIRL_OK;
    HIRL_TRY(walk_node(&tree, root, n, depth));
    HIRL_H5_REQUIRE(tree.n_found == n_all, file, pos, "a B-tree has %llu records, and says %llu",
                    (unsigned long long)tree.n_found, (unsigned long long)n_all);
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- heaps

// A direct block: the heap's bytes from `offset` on.
typedef struct piece {
    uint64_t offset;
    hirl_h5_span_t span;
} piece_t;

typedef struct huge {
    uint64_t id, address, size;
} huge_t;

typedef struct heap {
    hirl_h5_t *file;
    hirl_h5_loading_t *loading;
    uint64_t pos;
    bool is_links, has_sums;
    int n_id, n_offset, n_length; // bytes of an id, and of the parts of it
    uint64_t width, start, most_direct;
    int log_start, log_width, n_direct_rows;
    uint64_t huge_tree;
    piece_t *pieces; // by offset, as they are found in this order
    huge_t *huge;
    int n_pieces, piece_room, n_huge, huge_room;
} heap_t;

static hirl_status_t load_direct(heap_t *heap, uint64_t pos, uint64_t size, uint64_t offset) {
    hirl_h5_t *file = heap->file;
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load_signed(file, pos, size, "FHDB", 0, "a heap's block", &span));
    hirl_h5_span_t whole = {.at = span.at - 5, .left = span.left + 5, .pos = pos};
    const uint64_t owner = hirl_h5_take_u(&span, 8), own = hirl_h5_take_u(&span, heap->n_offset);
    if (heap->has_sums) {
        uint8_t *sum = hirl_h5_take(&span, 4);
        HIRL_TRY(hirl_h5_check_span(file, &span, "a heap's block"));
        const uint32_t stored = (uint32_t)hirl_h5_little(sum, 4);
        memset(sum, 0, 4); // as it was when the checksum was made
        const uint32_t found = hirl_h5_lookup3(whole.at, whole.left);
        HIRL_H5_REQUIRE(stored == found, file, pos,
                        "a heap's block is damaged: checksum %08x, expected the stored %08x", found,
                        stored);
    }
    HIRL_TRY(hirl_h5_check_span(file, &span, "a heap's block"));
    HIRL_H5_REQUIRE(owner == heap->pos && own == offset, file, pos,
                    "a heap's block is that of byte %llu of the heap at %llu, expected %llu and "
                    "%llu",
                    (unsigned long long)own, (unsigned long long)owner, (unsigned long long)offset,
                    (unsigned long long)heap->pos);
    HIRL_TRY(
        hirl_h5_grow(file, &heap->pieces, heap->n_pieces, &heap->piece_room, sizeof *heap->pieces));
    // Objects do not begin in the block's head, but count from its first byte.
    heap->pieces[heap->n_pieces++] = (piece_t){offset + (uint64_t)(span.at - whole.at), span};
    return HIRL_OK;
}

// Rows of blocks: the first two of blocks of the smallest size, each later one of blocks twice as
// large as those before. Beyond the largest direct size they are of blocks like this one.
static hirl_status_t load_indirect(heap_t *heap, uint64_t pos, int n_rows, uint64_t offset,
                                   int depth) {
    hirl_h5_t *file = heap->file;
    hirl_h5_span_t span;
    HIRL_H5_REQUIRE(n_rows >= 1 && depth < 8 && n_rows + heap->log_start + heap->log_width <= 48,
                    file, pos, "a heap of %d rows of blocks", n_rows);
    const uint64_t n_child = (uint64_t)n_rows * heap->width,
                   size = 13 + (uint64_t)heap->n_offset + 8 * n_child;
    HIRL_TRY(
        hirl_h5_load_signed(file, pos, size + 4, "FHIB", 0, "a heap's table of blocks", &span));
    HIRL_TRY(hirl_h5_check_sum(file, span.at - 5, size, pos, "a heap's table of blocks"));
    const uint64_t owner = hirl_h5_take_u(&span, 8), own = hirl_h5_take_u(&span, heap->n_offset);
    HIRL_H5_REQUIRE(owner == heap->pos && own == offset, file, pos,
                    "a heap's table of blocks belongs elsewhere");
    for (int row = 0; row < n_rows; row++) {
        const uint64_t bytes = heap->start << (row ? row - 1 : 0);
        for (uint64_t i = 0; i < heap->width; i++, offset += bytes) {
            const uint64_t child = hirl_h5_take_u(&span, 8);
            HIRL_TRY(hirl_h5_check_span(file, &span, "a heap's table of blocks"));
            if (child == HIRL_H5_NOWHERE) continue;
            HIRL_TRY(row < heap->n_direct_rows
                         ? load_direct(heap, child, bytes, offset)
                         : load_indirect(heap, child, row - heap->log_width, offset, depth + 1));
        }
    }
    return HIRL_OK;
}

static hirl_status_t load_heap(heap_t *heap) {
    hirl_h5_t *file = heap->file;
    const uint64_t pos = heap->pos;
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load_signed(file, pos, HEAP_BYTES, "FRHP", 0, "a fractal heap", &span));
    HIRL_TRY(hirl_h5_check_sum(file, span.at - 5, HEAP_BYTES - 4, pos, "a fractal heap"));
    heap->n_id = (int)hirl_h5_take_u(&span, 2);
    const uint64_t n_filter = hirl_h5_take_u(&span, 2);
    const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
    const uint64_t most_managed = hirl_h5_take_u(&span, 4);
    hirl_h5_take(&span, 8); // the next huge object's number
    heap->huge_tree = hirl_h5_take_u(&span, 8);
    hirl_h5_take(&span, 80); // what is free, and numbers of objects
    heap->width = hirl_h5_take_u(&span, 2);
    heap->start = hirl_h5_take_u(&span, 8);
    heap->most_direct = hirl_h5_take_u(&span, 8);
    const int n_bits = (int)hirl_h5_take_u(&span, 2);
    hirl_h5_take(&span, 2);
    const uint64_t root = hirl_h5_take_u(&span, 8);
    const int n_rows = (int)hirl_h5_take_u(&span, 2);
    HIRL_TRY(hirl_h5_check_span(file, &span, "a fractal heap"));
    HIRL_H5_REQUIRE(n_filter == 0, file, pos + 7, "a fractal heap is packed, which is not read");
    heap->log_start = hirl_h5_power_of_two(heap->start);
    heap->log_width = hirl_h5_power_of_two(heap->width);
    const int log_most = hirl_h5_power_of_two(heap->most_direct);
    HIRL_H5_REQUIRE(heap->log_start >= 5 && heap->log_width >= 0 && log_most >= heap->log_start &&
                        log_most <= 32 && n_bits >= 8 && n_bits <= 64 && most_managed >= 1 &&
                        heap->n_id >= 2 && heap->n_id <= ID_MAX,
                    file, pos,
                    "a fractal heap of %llu blocks a row, %llu to %llu bytes, in %d bits, with ids "
                    "of %d bytes",
                    (unsigned long long)heap->width, (unsigned long long)heap->start,
                    (unsigned long long)heap->most_direct, n_bits, heap->n_id);
    heap->has_sums = flags & 2;
    heap->n_direct_rows = log_most - heap->log_start + 2;
    heap->n_offset = (n_bits + 7) / 8;
    const int n_most = (log_most + 7) / 8, n_managed = bytes_for(most_managed);
    heap->n_length = n_most < n_managed ? n_most : n_managed;
    if (root == HIRL_H5_NOWHERE) return HIRL_OK;
    return n_rows == 0 ? load_direct(heap, root, heap->start, 0)
                       : load_indirect(heap, root, n_rows, 0, 0);
}

// -------------------------------------------------------------------------------------- objects

static hirl_status_t add_huge(void *user, hirl_h5_span_t record) {
    heap_t *heap = user;
    huge_t huge = {.address = hirl_h5_take_u(&record, 8), .size = hirl_h5_take_u(&record, 8)};
    huge.id = hirl_h5_take_u(&record, 8);
    HIRL_H5_REQUIRE(heap->n_huge == 0 || huge.id > heap->huge[heap->n_huge - 1].id, heap->file,
                    record.pos, "large object %llu is out of order", (unsigned long long)huge.id);
    HIRL_TRY(
        hirl_h5_grow(heap->file, &heap->huge, heap->n_huge, &heap->huge_room, sizeof *heap->huge));
    heap->huge[heap->n_huge++] = huge;
    return HIRL_OK;
}

static hirl_status_t find_huge(heap_t *heap, hirl_h5_span_t id, hirl_h5_span_t *span_p) {
    hirl_h5_t *file = heap->file;
    const uint64_t pos = id.pos;
    if (heap->n_id >= 17) { // room for the place itself
        const uint64_t address = hirl_h5_take_u(&id, 8), size = hirl_h5_take_u(&id, 8);
        return hirl_h5_load(file, address, size, "a large attribute", span_p);
    }
    if (heap->n_huge == 0) {
        HIRL_H5_REQUIRE(heap->huge_tree != HIRL_H5_NOWHERE, file, pos,
                        "a heap has no large objects, but one is listed");
        HIRL_TRY(walk_tree(file, heap->huge_tree, HUGE_OBJECTS, 24, add_huge, heap));
    }
    const uint64_t wanted = hirl_h5_take_u(&id, heap->n_id - 1 < 8 ? heap->n_id - 1 : 8);
    int low = 0, high = heap->n_huge; // the first that is not below
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (heap->huge[middle].id < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    HIRL_H5_REQUIRE(low < heap->n_huge && heap->huge[low].id == wanted, file, pos,
                    "large object %llu is not in its heap", (unsigned long long)wanted);
    return hirl_h5_load(file, heap->huge[low].address, heap->huge[low].size, "a large attribute",
                        span_p);
}

static hirl_status_t find_managed(const heap_t *heap, hirl_h5_span_t id, hirl_h5_span_t *span_p) {
    const uint64_t pos = id.pos, offset = hirl_h5_take_u(&id, heap->n_offset),
                   size = hirl_h5_take_u(&id, heap->n_length);
    HIRL_TRY(hirl_h5_check_span(heap->file, &id, "the number of a heap's object"));
    int low = 0, high = heap->n_pieces; // the last piece that begins at or before the offset
    while (high - low > 1) {
        const int middle = low + (high - low) / 2;
        if (heap->pieces[middle].offset <= offset)
            low = middle;
        else
            high = middle;
    }
    const piece_t *piece = heap->n_pieces > 0 ? &heap->pieces[low] : NULL;
    HIRL_H5_REQUIRE(piece && offset >= piece->offset &&
                        offset - piece->offset <= piece->span.left &&
                        size <= piece->span.left - (offset - piece->offset),
                    heap->file, pos, "a heap has no object of %llu bytes at %llu",
                    (unsigned long long)size, (unsigned long long)offset);
    hirl_h5_span_t span = piece->span;
    hirl_h5_take(&span, offset - piece->offset);
    *span_p = hirl_h5_take_span(&span, size);
    return HIRL_OK;
}

// Where the object with this id is: in a block of the heap, by itself, or in the id.
static hirl_status_t find_object(heap_t *heap, hirl_h5_span_t id, hirl_h5_span_t *span_p) {
    const unsigned begun = (unsigned)hirl_h5_take_u(&id, 1);
    HIRL_H5_REQUIRE(begun >> 6 == 0, heap->file, id.pos, "a heap's object of version %u",
                    begun >> 6);
    switch (begun >> 4 & 3) {
        case 0: return find_managed(heap, id, span_p);
        case 1: return find_huge(heap, id, span_p);
        case 2:
            *span_p = hirl_h5_take_span(&id, (begun & 0xf) + 1);
            return hirl_h5_check_span(heap->file, &id, "a small object of a heap");
        default: return HIRL_H5_FAIL(heap->file, id.pos, "a heap's object of unknown kind");
    }
}

static hirl_status_t take_record(void *user, hirl_h5_span_t record) {
    heap_t *heap = user;
    hirl_h5_span_t object;
    if (heap->is_links) hirl_h5_take(&record, 4); // the name's hash
    hirl_h5_span_t id = hirl_h5_take_span(&record, (uint64_t)heap->n_id);
    HIRL_TRY(hirl_h5_check_span(heap->file, &id, "a B-tree's record"));
    if (!heap->is_links) {
        const unsigned flags = (unsigned)hirl_h5_take_u(&record, 1);
        HIRL_H5_REQUIRE((flags & 2) == 0, heap->file, record.pos,
                        "an attribute is shared by objects, which is not read");
    }
    HIRL_TRY(find_object(heap, id, &object));
    return heap->is_links ? hirl_h5_take_link(heap->file, heap->loading, object)
                          : hirl_h5_take_attribute(heap->file, heap->loading, object);
}

hirl_status_t hirl_h5_load_dense(hirl_h5_t *file, hirl_h5_loading_t *loading, uint64_t heap_pos,
                                 uint64_t tree_pos, bool is_links) {
    heap_t heap = {.file = file, .loading = loading, .pos = heap_pos, .is_links = is_links};
    hirl_status_t status;
    HIRL_TRY_GOTO(load_heap(&heap), status, done);
    // Records: hash and id; or id, flags, order and hash.
    HIRL_TRY_GOTO(walk_tree(file, tree_pos, is_links ? LINK_NAMES : ATTRIBUTE_NAMES,
                            is_links ? 4 + heap.n_id : heap.n_id + 9, take_record, &heap),
                  status, done);
done:
    hirl_mem_free(heap.pieces);
    hirl_mem_free(heap.huge);
    return status;
}
