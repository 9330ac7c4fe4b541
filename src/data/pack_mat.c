// MATLAB 5 files, as far as lists of annotations need them: variables at the top, packed by zlib or
// not, that are structs, cells, texts and numbers. Each element says its own size, which is compared
// with what is left of the one around it; nothing else of the file is believed.
#include "data_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_BYTES = 128, VERSION = 0x0100, VARIABLES_MAX = 1024 };
#define FILE_BYTES_MAX ((size_t)256 << 20)
#define UNPACKED_BYTES_MAX ((size_t)1 << 30)

// Types of elements.
enum {
    INT8 = 1,
    UINT8,
    INT16,
    UINT16,
    INT32,
    UINT32,
    SINGLE,
    DOUBLE = 9,
    INT64 = 12,
    UINT64,
    MATRIX,
    COMPRESSED,
    UTF8,
    UTF16
};

typedef struct element {
    uint32_t type;
    hirl_mat_part_t data;
} element_t;

struct hirl_mat {
    char path[PATH_MAX];
    bool is_swapped;
    uint8_t *file;
    size_t size;
    uint8_t *unpacked[VARIABLES_MAX];
    size_t n_unpacked_bytes;
    int n_unpacked;
};

static hirl_status_t damaged(const hirl_mat_t *mat, const char *what) {
    return HIRL_FAIL(HIRL_ERR_FORMAT, "%s: damaged: %s; get it again", mat->path, what);
}

static uint64_t read_unsigned(const hirl_mat_t *mat, const uint8_t *at, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) value = value << 8 | at[mat->is_swapped ? i : size - 1 - i];
    return value;
}

static uint32_t read_u32(const hirl_mat_t *mat, const uint8_t *at) {
    return (uint32_t)read_unsigned(mat, at, 4);
}

// Takes the next element off `rest`. Small ones share eight bytes with their data.
static hirl_status_t take_element(const hirl_mat_t *mat, hirl_mat_part_t *rest,
                                  element_t *element) {
    if (rest->size < 8) return damaged(mat, "an element of less than 8 bytes");
    const uint32_t first = read_u32(mat, rest->bytes);
    size_t size = first >> 16, begin = 4, whole = 8;
    element->type = first & 0xffff;
    if (size == 0) {
        size = read_u32(mat, rest->bytes + 4);
        begin = 8;
        element->type = first;
        if (size > rest->size - 8)
            return damaged(mat, "an element that goes on behind what holds it");
        whole = 8 + size;
        // All but packed ones are filled up to eight bytes; the last one may lack that.
        if (element->type != COMPRESSED) whole += (8 - size % 8) % 8;
        if (whole > rest->size) whole = rest->size;
    } else if (size > 4) {
        return damaged(mat, "a small element of more than 4 bytes");
    }
    element->data = (hirl_mat_part_t){rest->bytes + begin, size};
    rest->bytes += whole;
    rest->size -= whole;
    return HIRL_OK;
}

// The head of an array: its class, number of items and name.
static hirl_status_t parse_array(const hirl_mat_t *mat, hirl_mat_part_t part,
                                 hirl_mat_array_t *array) {
    element_t flags, shape, name;
    *array = (hirl_mat_array_t){0};
    if (part.size == 0) return HIRL_OK; // an empty item of a struct
    HIRL_TRY(take_element(mat, &part, &flags));
    if (flags.type != UINT32 || flags.data.size != 8) return damaged(mat, "an array without flags");
    HIRL_TRY(take_element(mat, &part, &shape));
    const size_t n_axes = shape.data.size / 4;
    if (shape.type != INT32 || shape.data.size % 4 || n_axes < 2 || n_axes > 32)
        return damaged(mat, "an array without shape");
    HIRL_TRY(take_element(mat, &part, &name));
    if (name.type != INT8) return damaged(mat, "an array without name");
    array->class = (int)(read_u32(mat, flags.data.bytes) & 0xff);
    array->n = 1;
    for (size_t i = 0; i < n_axes; i++) {
        const uint32_t n = read_u32(mat, shape.data.bytes + 4 * i);
        // Each item has a byte at least, or the array is of no use.
        if (n > INT32_MAX || array->n * (int64_t)n > (int64_t)UNPACKED_BYTES_MAX)
            return damaged(mat, "an array of more items than a file can hold");
        array->n *= (int64_t)n;
    }
    array->name = (hirl_span_t){(char *)(uintptr_t)name.data.bytes, name.data.size};
    array->rest = part;
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- file

static hirl_status_t unpack(hirl_mat_t *mat, hirl_mat_part_t packed, hirl_mat_part_t *part) {
    int64_t capacity = 0;
    uint8_t *out = NULL;
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)packed.bytes, .avail_in = (uInt)packed.size};
    HIRL_REQUIRE(inflateInit(&stream) == Z_OK, HIRL_ERR_MEMORY, "%s: cannot unpack it", mat->path);
    hirl_status_t status = HIRL_OK;
    int answer = Z_OK;
    size_t done = 0;
    while (status == HIRL_OK && answer == Z_OK) {
        status = hirl_pack_grow(&out, &capacity, (int64_t)done + (1 << 16), 1);
        if (status != HIRL_OK) break;
        const size_t room = (size_t)capacity - done;
        stream.next_out = out + done;
        stream.avail_out = (uInt)(room < (1u << 30) ? room : 1u << 30);
        answer = inflate(&stream, Z_NO_FLUSH);
        done = (size_t)stream.total_out;
        if (mat->n_unpacked_bytes + done > UNPACKED_BYTES_MAX)
            status = damaged(mat, "more than 1 GiB when unpacked");
    }
    if (status == HIRL_OK && answer != Z_STREAM_END)
        status = damaged(mat, stream.msg ? stream.msg : "a packed element ends early");
    inflateEnd(&stream);
    if (status != HIRL_OK) {
        hirl_mem_free(out);
        return status;
    }
    mat->n_unpacked_bytes += done;
    mat->unpacked[mat->n_unpacked++] = out;
    *part = (hirl_mat_part_t){out, done};
    return HIRL_OK;
}

static hirl_status_t read_file(hirl_mat_t *mat) {
    HIRL_REQUIRE(hirl_pack_is_file(mat->path), HIRL_ERR_IO, "%s: no such file", mat->path);
    FILE *stream = fopen(mat->path, "rb");
    HIRL_REQUIRE(stream, HIRL_ERR_IO, "%s: %s", mat->path, strerror(errno));
    int64_t capacity = 0;
    hirl_status_t status = HIRL_OK;
    while (status == HIRL_OK && !feof(stream)) {
        status = hirl_pack_grow(&mat->file, &capacity, (int64_t)mat->size + (1 << 16), 1);
        if (status != HIRL_OK) break;
        mat->size += fread(mat->file + mat->size, 1, (size_t)capacity - mat->size, stream);
        if (ferror(stream)) status = HIRL_FAIL(HIRL_ERR_IO, "%s: %s", mat->path, strerror(errno));
        if (mat->size > FILE_BYTES_MAX)
            status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: more than %zu MiB", mat->path,
                               FILE_BYTES_MAX >> 20);
    }
    fclose(stream);
    return status;
}

static hirl_status_t check_head(hirl_mat_t *mat) {
    const uint8_t *head = mat->file;
    HIRL_REQUIRE(mat->size >= HEAD_BYTES && memcmp(head, "MATLAB ", 7) == 0, HIRL_ERR_FORMAT,
                 "%s: no MATLAB file", mat->path);
    mat->is_swapped = memcmp(head + 126, "MI", 2) == 0;
    HIRL_REQUIRE((mat->is_swapped || memcmp(head + 126, "IM", 2) == 0) &&
                     read_unsigned(mat, head + 124, 2) == VERSION,
                 HIRL_ERR_FORMAT,
                 "%s: '%.19s', expected a MATLAB 5 file; MATLAB writes one by save(..., '-v7')",
                 mat->path, (const char *)head);
    return HIRL_OK;
}

hirl_status_t hirl_mat_open(const char *path, hirl_mat_t **mat_p) {
    hirl_mat_t *mat = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &mat));
    hirl_status_t status = hirl_text_format(mat->path, sizeof mat->path, "%s", path);
    if (status == HIRL_OK) status = read_file(mat);
    if (status == HIRL_OK) status = check_head(mat);
    if (status != HIRL_OK) {
        hirl_mat_close(&mat);
        return status;
    }
    *mat_p = mat;
    return HIRL_OK;
}

void hirl_mat_close(hirl_mat_t **mat_p) {
    if (!mat_p || !*mat_p) return;
    for (int i = 0; i < (*mat_p)->n_unpacked; i++) hirl_mem_free((*mat_p)->unpacked[i]);
    hirl_mem_free((*mat_p)->file);
    hirl_mem_free(*mat_p);
    *mat_p = NULL;
}

// -------------------------------------------------------------------------------------- arrays

hirl_status_t hirl_mat_find(hirl_mat_t *mat, const char *name, hirl_mat_array_t *array,
                            bool *is_there_p) {
    hirl_mat_part_t rest = {mat->file + HEAD_BYTES, mat->size - HEAD_BYTES};
    *is_there_p = false;
    for (int n = 0; rest.size > 0; n++) {
        element_t element;
        HIRL_TRY(take_element(mat, &rest, &element));
        if (element.type == COMPRESSED) {
            if (n >= VARIABLES_MAX || mat->n_unpacked >= VARIABLES_MAX)
                return damaged(mat, "more variables than are read");
            hirl_mat_part_t part;
            HIRL_TRY(unpack(mat, element.data, &part));
            HIRL_TRY(take_element(mat, &part, &element));
        }
        if (element.type != MATRIX) continue;
        HIRL_TRY(parse_array(mat, element.data, array));
        if (!hirl_span_equals(array->name, name)) continue;
        *is_there_p = true;
        return HIRL_OK;
    }
    return HIRL_OK;
}

hirl_status_t hirl_mat_take_array(const hirl_mat_t *mat, hirl_mat_part_t *rest,
                                  hirl_mat_array_t *array) {
    element_t element;
    HIRL_TRY(take_element(mat, rest, &element));
    if (element.type != MATRIX) return damaged(mat, "an item that is no array");
    return parse_array(mat, element.data, array);
}

hirl_status_t hirl_mat_fields(const hirl_mat_t *mat, hirl_mat_array_t *array,
                              hirl_mat_part_t *names, size_t *width_p) {
    element_t width, list;
    if (array->class != HIRL_MAT_STRUCT) return damaged(mat, "no struct where one is expected");
    HIRL_TRY(take_element(mat, &array->rest, &width));
    if (width.type != INT32 || width.data.size != 4) return damaged(mat, "a struct without names");
    HIRL_TRY(take_element(mat, &array->rest, &list));
    *width_p = read_u32(mat, width.data.bytes);
    if (list.type != INT8 || *width_p < 1 || *width_p > 1024 || list.data.size % *width_p)
        return damaged(mat, "a struct with broken names");
    *names = list.data;
    return HIRL_OK;
}

hirl_status_t hirl_mat_number(const hirl_mat_t *mat, const hirl_mat_array_t *array,
                              int64_t *value_p) {
    static const uint8_t sizes[] = {
        [INT8] = 1,   [UINT8] = 1,  [INT16] = 2,  [UINT16] = 2, [INT32] = 4,
        [UINT32] = 4, [SINGLE] = 4, [DOUBLE] = 8, [INT64] = 8,  [UINT64] = 8};
    hirl_mat_part_t rest = array->rest;
    element_t element;
    if (array->n != 1) return damaged(mat, "several numbers where one is expected");
    HIRL_TRY(take_element(mat, &rest, &element));
    const size_t size = element.type < sizeof sizes ? sizes[element.type] : 0;
    if (size == 0 || element.data.size != size)
        return damaged(mat, "no number where one is expected");
    const uint64_t bits = read_unsigned(mat, element.data.bytes, size);
    if (element.type == SINGLE || element.type == DOUBLE) {
        double value;
        float narrow;
        const uint32_t low = (uint32_t)bits;
        memcpy(&value, &bits, 8);
        memcpy(&narrow, &low, 4);
        if (element.type == SINGLE) value = (double)narrow;
        if (!(fabs(value) < 9e15) || value != floor(value))
            return damaged(mat, "a fraction where a number of items is expected");
        *value_p = (int64_t)value;
    } else {
        const bool is_signed = element.type == INT8 || element.type == INT16 ||
                               element.type == INT32 || element.type == INT64;
        const int unused = 64 - 8 * (int)size;
        *value_p = is_signed ? (int64_t)(bits << unused) >> unused : (int64_t)bits;
    }
    return HIRL_OK;
}

hirl_status_t hirl_mat_text(const hirl_mat_t *mat, const hirl_mat_array_t *array, char *buf,
                            size_t size) {
    hirl_mat_part_t rest = array->rest;
    element_t element = {0};
    size_t n = 0;
    if (array->class != HIRL_MAT_CHAR) return damaged(mat, "no text where one is expected");
    if (array->n > 0) HIRL_TRY(take_element(mat, &rest, &element));
    const size_t step = element.type == UINT16 || element.type == UTF16 ? 2 : 1;
    if (array->n > 0 && step == 1 && element.type != INT8 && element.type != UINT8 &&
        element.type != UTF8)
        return damaged(mat, "a text of unknown letters");
    for (size_t i = 0; i + step <= element.data.size; i += step) {
        const unsigned c = (unsigned)read_unsigned(mat, element.data.bytes + i, step);
        const bool is_plain = c < 0x80 || step == 1; // others become UTF-8
        if (c == 0 || (step == 2 && c >= 0xd800 && c < 0xe000))
            return damaged(mat, "a text with letters that are none");
        if (n + 3 >= size) return damaged(mat, "a text that is too long");
        if (is_plain) {
            buf[n++] = (char)c;
        } else if (c < 0x800) {
            buf[n++] = (char)(0xc0 | c >> 6);
            buf[n++] = (char)(0x80 | (c & 0x3f));
        } else {
            buf[n++] = (char)(0xe0 | c >> 12);
            buf[n++] = (char)(0x80 | (c >> 6 & 0x3f));
            buf[n++] = (char)(0x80 | (c & 0x3f));
        }
    }
    buf[n] = '\0';
    return HIRL_OK;
}
