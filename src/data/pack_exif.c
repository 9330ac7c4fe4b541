// The one thing that packing wants to know of a JPEG's EXIF data: how the camera was held. Every
// position is compared with the end of what holds it before a byte is read.
#include "data_impl.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };

// A TIFF structure; positions count from its beginning.
typedef struct tiff {
    const uint8_t *bytes;
    size_t size;
    bool is_big_endian;
} tiff_t;

static unsigned read_u16(const tiff_t *tiff, size_t at) {
    const uint8_t *b = tiff->bytes + at;
    return tiff->is_big_endian ? (unsigned)b[0] << 8 | b[1] : (unsigned)b[1] << 8 | b[0];
}

static uint32_t read_u32(const tiff_t *tiff, size_t at) {
    const uint32_t a = read_u16(tiff, at), b = read_u16(tiff, at + 2);
    return tiff->is_big_endian ? a << 16 | b : b << 16 | a;
}

// Looks for the tag in the first directory.
static int find_tag(const tiff_t *tiff, size_t *at_p) {
    if (tiff->size < 8 || read_u16(tiff, 2) != 42) return 1;
    const size_t begin = read_u32(tiff, 4);
    if (begin < 8 || begin > tiff->size || tiff->size - begin < 2) return 1;
    const size_t n = read_u16(tiff, begin), most = (tiff->size - begin - 2) / 12;
    for (size_t i = 0; i < n && i < most; i++) {
        const size_t entry = begin + 2 + 12 * i;
        if (read_u16(tiff, entry) != TAG_ORIENTATION) continue;
        const unsigned type = read_u16(tiff, entry + 2);
        if (read_u32(tiff, entry + 4) != 1 || (type != TYPE_SHORT && type != TYPE_LONG)) return 1;
        const uint32_t value =
            type == TYPE_SHORT ? read_u16(tiff, entry + 8) : read_u32(tiff, entry + 8);
        if (value < 1 || value > 8) return 1;
        // The two bytes that hold a small value.
        *at_p = entry + 8 + (type == TYPE_LONG && tiff->is_big_endian ? 2 : 0);
        return (int)value;
    }
    return 1;
}

int hirl_exif_orientation(const uint8_t *bytes, size_t size, size_t *at_p, bool *is_big_endian_p) {
    *at_p = 0;
    *is_big_endian_p = false;
    if (size < 4 || bytes[0] != 0xff || bytes[1] != 0xd8) return 1;
    for (size_t at = 2; size - at >= 4;) {
        if (bytes[at] != 0xff) return 1;
        const unsigned marker = bytes[at + 1];
        if (marker == 0xff) { // fill byte
            at++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) return 1;
        const size_t length = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) { // without length
            at += 2;
            continue;
        }
        if (length < 2 || length > size - at - 2) return 1;
        const uint8_t *data = bytes + at + 4;
        if (marker == 0xe1 && length >= 2 + 6 && memcmp(data, "Exif\0\0", 6) == 0) {
            tiff_t tiff = {data + 6, length - 2 - 6, false};
            if (tiff.size < 8) return 1;
            tiff.is_big_endian = memcmp(tiff.bytes, "MM", 2) == 0;
            if (!tiff.is_big_endian && memcmp(tiff.bytes, "II", 2) != 0) return 1;
            size_t found = 0;
            const int orientation = find_tag(&tiff, &found);
            if (found > 0) *at_p = (size_t)(tiff.bytes - bytes) + found;
            *is_big_endian_p = tiff.is_big_endian;
            return orientation;
        }
        at += 2 + length;
    }
    return 1;
}
