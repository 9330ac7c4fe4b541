// Object headers: messages in a first block and in blocks that it goes on in. Version 1 has messages
// alone; version 2 has signatures and checksums.
#include "h5_impl.h"

#include <string.h>

enum { CONTINUED = 0x10, PARTS_MAX = 1024, HEAD_MAX = 6 + 16 + 4 + 8 };

// Where a header goes on.
typedef struct parts {
    uint64_t pos[PARTS_MAX], size[PARTS_MAX];
    int n;
} parts_t;

static hirl_status_t add_part(const hirl_h5_t *file, hirl_h5_span_t *body, parts_t *parts) {
    const uint64_t at = body->pos, pos = hirl_h5_take_u(body, 8), size = hirl_h5_take_u(body, 8);
    HIRL_TRY(hirl_h5_check_span(file, body, "a header's continuation"));
    HIRL_H5_REQUIRE(parts->n < PARTS_MAX, file, at, "a header goes on in more than %d blocks",
                    PARTS_MAX);
    parts->pos[parts->n] = pos;
    parts->size[parts->n++] = size;
    return HIRL_OK;
}

static hirl_status_t take_one(hirl_h5_t *file, hirl_h5_loading_t *loading, unsigned type,
                              unsigned flags, hirl_h5_span_t body, parts_t *parts) {
    HIRL_TRY(hirl_h5_check_span(file, &body, "a message of an object's header"));
    if (type == CONTINUED) return add_part(file, &body, parts);
    return hirl_h5_take_message(file, loading, type, flags, body);
}

// Messages of version 1 begin with type, size, flags and three bytes of nothing.
static hirl_status_t take_old(hirl_h5_t *file, hirl_h5_loading_t *loading, hirl_h5_span_t span,
                              parts_t *parts) {
    while (span.left > 0) {
        const unsigned type = (unsigned)hirl_h5_take_u(&span, 2);
        const uint64_t size = hirl_h5_take_u(&span, 2);
        const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
        hirl_h5_take(&span, 3);
        HIRL_TRY(hirl_h5_check_span(file, &span, "an object's header"));
        HIRL_TRY(take_one(file, loading, type, flags, hirl_h5_take_span(&span, size), parts));
    }
    return HIRL_OK;
}

static hirl_status_t load_old(hirl_h5_t *file, hirl_h5_loading_t *loading, const uint8_t *begun,
                              parts_t *parts) {
    const uint64_t pos = loading->object.address, size = hirl_h5_little(begun + 8, 4);
    hirl_h5_span_t span;
    HIRL_H5_REQUIRE(begun[0] == 1, file, pos, "an object's header has version %d, expected 1 or 2",
                    begun[0]);
    HIRL_TRY(hirl_h5_load(file, pos, 16 + size, "an object's header", &span));
    hirl_h5_take(&span, 16);
    HIRL_TRY(take_old(file, loading, span, parts));
    for (int i = 0; i < parts->n; i++) {
        HIRL_TRY(
            hirl_h5_load(file, parts->pos[i], parts->size[i], "a header's continuation", &span));
        HIRL_TRY(take_old(file, loading, span, parts));
    }
    return HIRL_OK;
}

// Messages of version 2 begin with type, size and flags, and two bytes more if their order is kept.
// What is too short for one more is a gap.
static hirl_status_t take_new(hirl_h5_t *file, hirl_h5_loading_t *loading, hirl_h5_span_t span,
                              bool has_order, parts_t *parts) {
    const size_t head = has_order ? 6 : 4;
    while (span.left >= head) {
        const unsigned type = (unsigned)hirl_h5_take_u(&span, 1);
        const uint64_t size = hirl_h5_take_u(&span, 2);
        const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
        if (has_order) hirl_h5_take(&span, 2);
        HIRL_TRY(take_one(file, loading, type, flags, hirl_h5_take_span(&span, size), parts));
    }
    return HIRL_OK;
}

static hirl_status_t load_new(hirl_h5_t *file, hirl_h5_loading_t *loading, const uint8_t *begun,
                              parts_t *parts) {
    const uint64_t pos = loading->object.address;
    hirl_h5_span_t span;
    HIRL_H5_REQUIRE(begun[4] == 2, file, pos + 4,
                    "an object's header has version %d, expected 1 or 2", begun[4]);
    const unsigned flags = begun[5];
    const bool has_order = flags & 4;
    const int n_length = 1 << (flags & 3);
    const uint64_t head = 6 + (flags & 0x20 ? 16u : 0u) + (flags & 0x10 ? 4u : 0u);
    const uint64_t size = hirl_h5_little(begun + head, n_length), skip = head + (uint64_t)n_length;
    HIRL_H5_REQUIRE(size <= file->end, file, pos + head, "an object's header of %llu bytes",
                    (unsigned long long)size);
    HIRL_TRY(hirl_h5_load(file, pos, skip + size + 4, "an object's header", &span));
    HIRL_TRY(hirl_h5_check_sum(file, span.at, skip + size, pos, "an object's header"));
    hirl_h5_take(&span, skip);
    span.left -= 4;
    HIRL_TRY(take_new(file, loading, span, has_order, parts));
    for (int i = 0; i < parts->n; i++) {
        HIRL_H5_REQUIRE(parts->size[i] >= 8, file, parts->pos[i],
                        "a header's continuation of %llu bytes",
                        (unsigned long long)parts->size[i]);
        HIRL_TRY(
            hirl_h5_load(file, parts->pos[i], parts->size[i], "a header's continuation", &span));
        HIRL_H5_REQUIRE(memcmp(span.at, "OCHK", 4) == 0, file, parts->pos[i],
                        "a header's continuation should begin here with 'OCHK', but does not");
        HIRL_TRY(hirl_h5_check_sum(file, span.at, parts->size[i] - 4, parts->pos[i],
                                   "a header's continuation"));
        hirl_h5_take(&span, 4);
        span.left -= 4;
        HIRL_TRY(take_new(file, loading, span, has_order, parts));
    }
    return HIRL_OK;
}

hirl_status_t hirl_h5_load_header(hirl_h5_t *file, hirl_h5_loading_t *loading) {
    const uint64_t pos = loading->object.address, left = pos < file->end ? file->end - pos : 0;
    parts_t parts; // 16 KiB: only what is used is set
    parts.n = 0;
    uint8_t begun[HEAD_MAX] = {0};
    // No header is shorter than 16 bytes; what a longer one lacks is seen when all of it is loaded.
    HIRL_TRY(hirl_h5_fetch(file, pos,
                           left > HEAD_MAX ? HEAD_MAX
                           : left > 16     ? left
                                           : 16,
                           "an object's header", begun));
    return memcmp(begun, "OHDR", 4) == 0 ? load_new(file, loading, begun, &parts)
                                         : load_old(file, loading, begun, &parts);
}
