// The messages of object headers that tell what an object is: shape, type, layout, filters, links and
// attributes. All others are passed over: nothing of them is needed, so nothing of them is read.
#include "h5_impl.h"

#include <string.h>

enum {
    SPACE = 0x01,
    LINK_INFO = 0x02,
    TYPE = 0x03,
    LINK = 0x06,
    EXTERNAL = 0x07,
    LAYOUT = 0x08,
    FILTERS = 0x0b,
    ATTRIBUTE = 0x0c,
    SYMBOLS = 0x11,
    ATTRIBUTE_INFO = 0x15,
    KNOWN_LAST = 0x17
};
enum { IS_SHARED = 0x02, MUST_BE_KNOWN = 0x80 };

// -------------------------------------------------------------------------------------- space

// What a space says; scalars have no axes and one item, "null" spaces none.
typedef struct space {
    int n_axes;
    int64_t shape[HIRL_H5_AXES_MAX];
    int64_t n_items;
} space_t;

static hirl_status_t take_space(const hirl_h5_t *file, hirl_h5_span_t span, space_t *space) {
    const uint64_t pos = span.pos;
    const int version = (int)hirl_h5_take_u(&span, 1), n_axes = (int)hirl_h5_take_u(&span, 1);
    hirl_h5_take(&span, 1); // whether there are largest sizes, which are not needed
    HIRL_H5_REQUIRE(version == 1 || version == 2, file, pos, "a shape has version %d", version);
    int kind = n_axes == 0 ? 0 : 1;
    if (version == 1)
        hirl_h5_take(&span, 5);
    else
        kind = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(n_axes <= HIRL_H5_AXES_MAX, file, pos + 1, "a shape of %d axes", n_axes);
    HIRL_H5_REQUIRE(kind <= 2 && (kind == 1) == (n_axes > 0), file, pos,
                    "a shape of kind %d with %d axes", kind, n_axes);
    space->n_axes = n_axes;
    space->n_items = kind == 2 ? 0 : 1;
    bool is_empty = kind == 2, is_huge = false;
    for (int i = 0; i < n_axes; i++) {
        const uint64_t length = hirl_h5_take_u(&span, 8);
        HIRL_H5_REQUIRE(length <= INT64_MAX, file, pos, "axis %d of a shape has length %llu", i,
                        (unsigned long long)length);
        space->shape[i] = (int64_t)length;
        is_empty |= length == 0;
        is_huge |=
            !is_huge && __builtin_mul_overflow(space->n_items, (int64_t)length, &space->n_items);
    }
    if (is_huge) space->n_items = INT64_MAX;
    if (is_empty) space->n_items = 0;
    return hirl_h5_check_span(file, &span, "a shape");
}

// -------------------------------------------------------------------------------------- type

static bool is_whole(uint32_t size, unsigned offset, unsigned precision) {
    return (size == 1 || size == 2 || size == 4 || size == 8) && offset == 0 &&
           precision == 8 * size;
}

static void take_integer(hirl_h5_span_t *span, unsigned bits, hirl_h5_type_t *type) {
    const unsigned offset = (unsigned)hirl_h5_take_u(span, 2),
                   precision = (unsigned)hirl_h5_take_u(span, 2);
    type->is_big_endian = bits & 1;
    type->is_signed = bits & 8;
    if (is_whole(type->size, offset, precision)) type->form = HIRL_H5_INTEGER;
}

// IEEE's forms alone: sign, exponent and mantissa side by side, the first bit of the mantissa implied.
static void take_real(hirl_h5_span_t *span, unsigned bits, hirl_h5_type_t *type) {
    const unsigned offset = (unsigned)hirl_h5_take_u(span, 2),
                   precision = (unsigned)hirl_h5_take_u(span, 2),
                   exponent = (unsigned)hirl_h5_take_u(span, 1),
                   n_exponent = (unsigned)hirl_h5_take_u(span, 1),
                   mantissa = (unsigned)hirl_h5_take_u(span, 1),
                   n_mantissa = (unsigned)hirl_h5_take_u(span, 1);
    const uint64_t bias = hirl_h5_take_u(span, 4);
    const unsigned n = 8 * type->size, sign = bits >> 8 & 0xff;
    const bool is_known = (n == 16 && (n_exponent == 5 || n_exponent == 8)) ||
                          (n == 32 && n_exponent == 8) || (n == 64 && n_exponent == 11);
    if (!is_whole(type->size, offset, precision) || !is_known || sign != n - 1 || mantissa != 0 ||
        exponent != n_mantissa || n_exponent + n_mantissa != n - 1 ||
        bias != (UINT64_C(1) << (n_exponent - 1)) - 1 || (bits >> 4 & 3) != 2 || bits & 0x40)
        return;
    type->is_big_endian = bits & 1;
    type->is_signed = true;
    type->n_exponent = (int)n_exponent;
    type->form = HIRL_H5_REAL;
}

static hirl_status_t take_type(const hirl_h5_t *file, hirl_h5_span_t *span, hirl_h5_type_t *type) {
    const uint64_t pos = span->pos;
    const unsigned begun = (unsigned)hirl_h5_take_u(span, 1),
                   bits = (unsigned)hirl_h5_take_u(span, 3), version = begun >> 4;
    *type = (hirl_h5_type_t){.form = HIRL_H5_OTHER, .size = (uint32_t)hirl_h5_take_u(span, 4)};
    HIRL_TRY(hirl_h5_check_span(file, span, "a type"));
    HIRL_H5_REQUIRE(version >= 1 && version <= 4, file, pos,
                    "a type has version %u, expected 1 to 4", version);
    HIRL_H5_REQUIRE(type->size > 0, file, pos + 4, "a type of no bytes");
    switch (begun & 0xf) {
        case 0: take_integer(span, bits, type); break;
        case 1: take_real(span, bits, type); break;
        case 3: type->form = HIRL_H5_TEXT; break;
        case 8: { // names for integers; NumPy's truth values are such
            hirl_h5_type_t base = {.form = HIRL_H5_OTHER};
            const unsigned inner = (unsigned)hirl_h5_take_u(span, 1),
                           inner_bits = (unsigned)hirl_h5_take_u(span, 3);
            base.size = (uint32_t)hirl_h5_take_u(span, 4);
            if ((inner & 0xf) == 0) take_integer(span, inner_bits, &base);
            if (base.form == HIRL_H5_INTEGER && base.size == type->size) {
                *type = base;
                type->is_enum = true;
            }
            break;
        }
        case 9:
            if ((bits & 0xf) == 1) type->form = HIRL_H5_TEXT_VARIABLE;
            break;
        default: break;
    }
    return hirl_h5_check_span(file, span, "a type");
}

// -------------------------------------------------------------------------------------- layout

static hirl_status_t take_contiguous(const hirl_h5_t *file, hirl_h5_span_t *span,
                                     hirl_h5_object_t *object) {
    const uint64_t pos = span->pos, address = hirl_h5_take_u(span, 8),
                   size = hirl_h5_take_u(span, 8);
    object->layout = HIRL_H5_CONTIGUOUS;
    if (address == HIRL_H5_NOWHERE) return HIRL_OK;
    HIRL_H5_REQUIRE(address <= file->end && size <= file->end - address, file, pos,
                    "an array claims bytes %llu to %llu, the file has %llu: it is truncated",
                    (unsigned long long)address, (unsigned long long)(address + size),
                    (unsigned long long)file->end);
    object->offset = (int64_t)address;
    object->n_stored = (int64_t)size;
    return HIRL_OK;
}

// Chunks have one axis more than the array: the bytes of an item.
static hirl_status_t take_chunked(const hirl_h5_t *file, hirl_h5_span_t *span, int version,
                                  hirl_h5_loading_t *loading) {
    hirl_h5_packing_t *packing = &loading->packing;
    const uint64_t pos = span->pos;
    packing->is_known = version == 3;
    if (version == 4) hirl_h5_take(span, 1);
    const int n = (int)hirl_h5_take_u(span, 1);
    HIRL_H5_REQUIRE(n >= 2 && n <= HIRL_H5_AXES_MAX + 1, file, pos, "chunks of %d axes", n - 1);
    int n_side = 4;
    if (version == 3) packing->tree = hirl_h5_take_u(span, 8);
    if (version == 4) n_side = (int)hirl_h5_take_u(span, 1);
    HIRL_H5_REQUIRE(n_side >= 1 && n_side <= 8, file, pos, "lengths of %d bytes", n_side);
    for (int i = 0; i < n; i++) {
        const uint64_t side = hirl_h5_take_u(span, n_side);
        HIRL_H5_REQUIRE(span->is_short || (side >= 1 && side <= UINT32_MAX), file, pos,
                        "axis %d of chunks has length %llu", i, (unsigned long long)side);
        if (i < n - 1) packing->side[i] = (uint32_t)side;
    }
    loading->object.layout = HIRL_H5_CHUNKED;
    loading->object.n_chunk_axes = n - 1;
    return HIRL_OK;
}

static hirl_status_t take_layout(const hirl_h5_t *file, hirl_h5_span_t span,
                                 hirl_h5_loading_t *loading) {
    const uint64_t pos = span.pos;
    hirl_h5_object_t *object = &loading->object;
    const int version = (int)hirl_h5_take_u(&span, 1), kind = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(version == 3 || version == 4, file, pos,
                    "a layout has version %d, expected 3 or 4; h5repack writes the file anew",
                    version);
    switch (kind) {
        case 0:
            object->layout = HIRL_H5_COMPACT;
            object->n_stored = (int64_t)hirl_h5_take_u(&span, 2);
            object->compact = hirl_h5_take(&span, (uint64_t)object->n_stored);
            break;
        case 1: HIRL_TRY(take_contiguous(file, &span, object)); break;
        case 2: HIRL_TRY(take_chunked(file, &span, version, loading)); break;
        case 3: object->layout = HIRL_H5_VIRTUAL; break;
        default: return HIRL_H5_FAIL(file, pos + 1, "a layout of kind %d, expected 0 to 3", kind);
    }
    return hirl_h5_check_span(file, &span, "a layout");
}

static hirl_status_t take_filters(const hirl_h5_t *file, hirl_h5_span_t span,
                                  hirl_h5_loading_t *loading) {
    const uint64_t pos = span.pos;
    const int version = (int)hirl_h5_take_u(&span, 1), n = (int)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(version == 1 || version == 2, file, pos, "filters have version %d", version);
    HIRL_H5_REQUIRE(n <= HIRL_H5_FILTERS_MAX, file, pos + 1, "%d filters, expected at most %d", n,
                    HIRL_H5_FILTERS_MAX);
    if (version == 1) hirl_h5_take(&span, 6);
    for (int i = 0; i < n; i++) {
        const unsigned id = (unsigned)hirl_h5_take_u(&span, 2);
        const uint64_t n_name = version == 1 || id >= 256 ? hirl_h5_take_u(&span, 2) : 0;
        hirl_h5_take(&span, 2);
        const uint64_t n_values = hirl_h5_take_u(&span, 2);
        hirl_h5_take(&span, version == 1 ? (n_name + 7) / 8 * 8 : n_name);
        hirl_h5_take(&span, 4 * n_values + (version == 1 && n_values % 2 ? 4 : 0));
        loading->packing.filter[i] = (uint16_t)id;
        const bool is_read = id >= 1 && id <= 3; // gzip, shuffle, fletcher32
        if (!is_read && loading->object.odd_filter == 0)
            loading->object.odd_filter = id ? (int)id : -1;
    }
    loading->packing.n_filters = loading->object.n_filters = n;
    return hirl_h5_check_span(file, &span, "filters");
}

// Files that hold the bytes of an array; they are counted, not opened.
static hirl_status_t take_external(const hirl_h5_t *file, hirl_h5_span_t span,
                                   hirl_h5_object_t *object) {
    hirl_h5_take(&span, 6);
    object->n_external = (int)hirl_h5_take_u(&span, 2);
    if (object->n_external == 0) object->n_external = 1;
    return hirl_h5_check_span(file, &span, "a list of external files");
}

// -------------------------------------------------------------------------------------- links

hirl_status_t hirl_h5_take_link(hirl_h5_t *file, hirl_h5_loading_t *loading, hirl_h5_span_t span) {
    const uint64_t pos = span.pos;
    const int version = (int)hirl_h5_take_u(&span, 1);
    const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(version == 1, file, pos, "a link has version %d, expected 1", version);
    const unsigned kind = flags & 8 ? (unsigned)hirl_h5_take_u(&span, 1) : 0;
    if (flags & 4) hirl_h5_take(&span, 8);
    if (flags & 16) hirl_h5_take(&span, 1);
    const uint64_t n_name = hirl_h5_take_u(&span, 1 << (flags & 3));
    const uint8_t *name = hirl_h5_take(&span, n_name);
    const uint64_t address = kind == 0 ? hirl_h5_take_u(&span, 8) : HIRL_H5_NOWHERE;
    HIRL_TRY(hirl_h5_check_span(file, &span, "a link"));
    HIRL_H5_REQUIRE(kind != 0 || address != HIRL_H5_NOWHERE, file, pos,
                    "a link leads to an object that is nowhere in the file");
    return hirl_h5_add_link(file, loading, (const char *)name, (size_t)n_name, address, pos);
}

// Where links or attributes are that are not in the header.
static hirl_status_t take_info(hirl_h5_t *file, hirl_h5_loading_t *loading, hirl_h5_span_t span,
                               bool is_links) {
    const char *what = is_links ? "information on links" : "information on attributes";
    const uint64_t pos = span.pos;
    const int version = (int)hirl_h5_take_u(&span, 1);
    const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(version == 0, file, pos, "%s has version %d, expected 0", what, version);
    if (flags & 1) hirl_h5_take(&span, is_links ? 8 : 2);
    const uint64_t heap = hirl_h5_take_u(&span, 8), tree = hirl_h5_take_u(&span, 8);
    HIRL_TRY(hirl_h5_check_span(file, &span, what));
    if (heap == HIRL_H5_NOWHERE) return HIRL_OK;
    return hirl_h5_load_dense(file, loading, heap, tree, is_links);
}

static hirl_status_t take_symbols(hirl_h5_t *file, hirl_h5_loading_t *loading,
                                  hirl_h5_span_t span) {
    const uint64_t tree = hirl_h5_take_u(&span, 8), heap = hirl_h5_take_u(&span, 8);
    HIRL_TRY(hirl_h5_check_span(file, &span, "a table of symbols"));
    return hirl_h5_load_group(file, loading, tree, heap);
}

// -------------------------------------------------------------------------------------- attributes

hirl_status_t hirl_h5_take_attribute(hirl_h5_t *file, hirl_h5_loading_t *loading,
                                     hirl_h5_span_t span) {
    const uint64_t pos = span.pos;
    const int version = (int)hirl_h5_take_u(&span, 1);
    const unsigned flags = (unsigned)hirl_h5_take_u(&span, 1);
    HIRL_H5_REQUIRE(version >= 1 && version <= 3, file, pos,
                    "an attribute has version %d, expected 1 to 3", version);
    const uint64_t n_name = hirl_h5_take_u(&span, 2), n_type = hirl_h5_take_u(&span, 2),
                   n_space = hirl_h5_take_u(&span, 2);
    if (version == 3) hirl_h5_take(&span, 1);
    const uint64_t unit = version == 1 ? 8 : 1; // what parts are padded to
    const uint8_t *name = hirl_h5_take(&span, (n_name + unit - 1) / unit * unit);
    hirl_h5_span_t type = hirl_h5_take_span(&span, (n_type + unit - 1) / unit * unit),
                   shape = hirl_h5_take_span(&span, (n_space + unit - 1) / unit * unit);
    HIRL_TRY(hirl_h5_check_span(file, &span, "an attribute"));
    HIRL_H5_REQUIRE(
        n_name >= 2 && n_name <= HIRL_H5_NAME_MAX && name[0] && memchr(name, '\0', (size_t)n_name),
        file, pos, "the name of an attribute has %llu bytes, expected 1 to %d and a NUL",
        (unsigned long long)n_name, HIRL_H5_NAME_MAX - 1);
    hirl_h5_attribute_t attribute = {.name = (const char *)name, .type = {.form = HIRL_H5_OTHER}};
    // Types and shapes that lie in other objects are not looked for.
    if (version == 1 || (flags & 3) == 0) {
        space_t space;
        type.left = (size_t)n_type;
        shape.left = (size_t)n_space;
        HIRL_TRY(take_type(file, &type, &attribute.type));
        HIRL_TRY(take_space(file, shape, &space));
        attribute.n_items = space.n_items;
        uint64_t n_bytes = 0;
        HIRL_H5_REQUIRE(!__builtin_mul_overflow((uint64_t)space.n_items,
                                                (uint64_t)attribute.type.size, &n_bytes),
                        file, pos, "an attribute of %lld items of %u bytes",
                        (long long)space.n_items, attribute.type.size);
        attribute.bytes = hirl_h5_take(&span, n_bytes);
        HIRL_TRY(hirl_h5_check_span(file, &span, "an attribute"));
    }
    HIRL_TRY(hirl_h5_grow(file, &file->attributes, file->n_attributes, &file->attribute_room,
                          sizeof *file->attributes));
    if (loading->object.n_attributes++ == 0) loading->object.first_attribute = file->n_attributes;
    file->attributes[file->n_attributes++] = attribute;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- all

// Marks what an object may have once.
static hirl_status_t mark(const hirl_h5_t *file, bool *has, const hirl_h5_span_t *span,
                          const char *what) {
    HIRL_H5_REQUIRE(!*has, file, span->pos, "an object has a second %s", what);
    *has = true;
    return HIRL_OK;
}

static hirl_status_t take_object_space(const hirl_h5_t *file, hirl_h5_loading_t *loading,
                                       hirl_h5_span_t span) {
    space_t space;
    HIRL_TRY(mark(file, &loading->has_space, &span, "shape"));
    HIRL_TRY(take_space(file, span, &space));
    loading->object.n_axes = space.n_axes;
    loading->object.n_items = space.n_items;
    memcpy(loading->object.shape, space.shape, (size_t)space.n_axes * sizeof *space.shape);
    return HIRL_OK;
}

hirl_status_t hirl_h5_take_message(hirl_h5_t *file, hirl_h5_loading_t *loading, unsigned type,
                                   unsigned flags, hirl_h5_span_t span) {
    // A type that lies elsewhere leaves the array one of a type that is not read.
    if (type == TYPE && (flags & IS_SHARED)) {
        loading->object.type = (hirl_h5_type_t){.form = HIRL_H5_OTHER};
        return mark(file, &loading->has_type, &span, "type");
    }
    HIRL_H5_REQUIRE(type <= KNOWN_LAST || !(flags & MUST_BE_KNOWN), file, span.pos,
                    "an object's header has a message of kind %u, which is not known", type);
    switch (type) {
        case SPACE:
        case LINK_INFO:
        case LINK:
        case EXTERNAL:
        case LAYOUT:
        case FILTERS:
        case ATTRIBUTE:
        case SYMBOLS:
        case ATTRIBUTE_INFO: break;
        case TYPE:
            HIRL_TRY(mark(file, &loading->has_type, &span, "type"));
            return take_type(file, &span, &loading->object.type);
        default: return HIRL_OK;
    }
    HIRL_H5_REQUIRE(!(flags & IS_SHARED), file, span.pos,
                    "a message of kind %u is shared by objects, which is not read; h5repack writes "
                    "the file anew",
                    type);
    if (type == LINK_INFO || type == LINK || type == SYMBOLS) loading->is_group = true;
    switch (type) {
        case SPACE: return take_object_space(file, loading, span);
        case LINK_INFO: return take_info(file, loading, span, true);
        case LINK: return hirl_h5_take_link(file, loading, span);
        case EXTERNAL: return take_external(file, span, &loading->object);
        case LAYOUT:
            HIRL_TRY(mark(file, &loading->has_layout, &span, "layout"));
            return take_layout(file, span, loading);
        case FILTERS:
            HIRL_TRY(mark(file, &loading->has_filters, &span, "list of filters"));
            return take_filters(file, span, loading);
        case ATTRIBUTE: return hirl_h5_take_attribute(file, loading, span);
        case SYMBOLS: return take_symbols(file, loading, span);
        default: return take_info(file, loading, span, false);
    }
}
