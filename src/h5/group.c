// Groups in the old form: a B-tree (version 1) whose leaves are symbol nodes, with the names in a local
// heap.
#include "h5_impl.h"

#include <string.h>

enum { SYMBOL_BYTES = 40, IS_BY_NAME = 2 };

typedef struct old_group {
    hirl_h5_t *file;
    hirl_h5_loading_t *loading;
    hirl_h5_span_t names; // the heap's bytes
} old_group_t;

static hirl_status_t load_heap(hirl_h5_t *file, uint64_t pos, hirl_h5_span_t *names) {
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_load_signed(file, pos, 32, "HEAP", 0, "a local heap", &span));
    hirl_h5_take(&span, 3);
    const uint64_t size = hirl_h5_take_u(&span, 8);
    hirl_h5_take(&span, 8); // what is free is not needed
    return hirl_h5_load(file, hirl_h5_take_u(&span, 8), size, "the names of a group", names);
}

static hirl_status_t take_symbol(old_group_t *group, hirl_h5_span_t *span) {
    hirl_h5_t *file = group->file;
    const uint64_t pos = span->pos, offset = hirl_h5_take_u(span, 8),
                   address = hirl_h5_take_u(span, 8), kind = hirl_h5_take_u(span, 4);
    hirl_h5_take(span, 20);
    HIRL_TRY(hirl_h5_check_span(file, span, "a symbol node"));
    HIRL_H5_REQUIRE(offset < group->names.left, file, pos,
                    "a name at byte %llu of %zu bytes of names", (unsigned long long)offset,
                    group->names.left);
    const char *name = (const char *)group->names.at + offset;
    const size_t left = group->names.left - (size_t)offset,
                 n_most = left < HIRL_H5_NAME_MAX ? left : HIRL_H5_NAME_MAX;
    const char *nul = memchr(name, '\0', n_most);
    HIRL_H5_REQUIRE(nul, file, group->names.pos + offset,
                    "the name of a link is longer than %zu bytes", n_most - 1);
    HIRL_H5_REQUIRE(kind == IS_BY_NAME || address != HIRL_H5_NOWHERE, file, pos,
                    "a link leads to an object that is nowhere in the file");
    return hirl_h5_add_link(file, group->loading, name, (size_t)(nul - name),
                            kind == IS_BY_NAME ? HIRL_H5_NOWHERE : address, pos);
}

static hirl_status_t take_symbols(old_group_t *group, uint64_t pos) {
    uint8_t begun[8];
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_fetch(group->file, pos, sizeof begun, "a symbol node", begun));
    const uint64_t n = hirl_h5_little(begun + 6, 2);
    HIRL_TRY(hirl_h5_load_signed(group->file, pos, 8 + n * SYMBOL_BYTES, "SNOD", 1, "a symbol node",
                                 &span));
    hirl_h5_take(&span, 3);
    for (uint64_t i = 0; i < n; i++) HIRL_TRY(take_symbol(group, &span));
    return HIRL_OK;
}

// A node: keys and children by turns. `level` is -1 for the root, which may have any.
static hirl_status_t take_node(old_group_t *group, uint64_t pos, int level) {
    hirl_h5_t *file = group->file;
    uint8_t begun[8];
    hirl_h5_span_t span;
    HIRL_TRY(hirl_h5_fetch(file, pos, sizeof begun, "a B-tree's node", begun));
    const uint64_t n = hirl_h5_little(begun + 6, 2);
    HIRL_TRY(hirl_h5_load_signed(file, pos, 24 + 16 * n + 8, "TREE", 0, "a B-tree's node", &span));
    const int found = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(level < 0 ? found < HIRL_H5_LEVELS_MAX : found == level, file, pos + 5,
                    "a B-tree's node of level %d, expected %d", found,
                    level < 0 ? HIRL_H5_LEVELS_MAX - 1 : level);
    HIRL_H5_REQUIRE(level < 0 || n > 0, file, pos + 6, "a B-tree's node without entries");
    hirl_h5_take(&span, 18); // number of entries, and both neighbours
    for (uint64_t i = 0; i < n; i++) {
        hirl_h5_take(&span, 8);
        const uint64_t child = hirl_h5_take_u(&span, 8);
        HIRL_TRY(found > 0 ? take_node(group, child, found - 1) : take_symbols(group, child));
    }
    return hirl_h5_check_span(file, &span, "a B-tree's node");
}

hirl_status_t hirl_h5_load_group(hirl_h5_t *file, hirl_h5_loading_t *loading, uint64_t tree,
                                 uint64_t heap) {
    old_group_t group = {file, loading, {0}};
    HIRL_TRY(load_heap(file, heap, &group.names));
    return take_node(&group, tree, -1);
}
