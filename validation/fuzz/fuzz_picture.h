/// @file fuzz_picture.h
/// What the fuzz targets that decode pictures share.
#ifndef HIRL_FUZZ_PICTURE_H
#define HIRL_FUZZ_PICTURE_H

#include "fuzz.h"

#include <zlib.h>

#include "hirl/data.h"

#ifdef HIRL_HAS_WEBP
#include <webp/decode.h>
#endif

/// Most pixels that a frame header for arithmetic coding claims, anywhere among the bytes; 0 if there is
/// none. That coding is the one that has no bound of pixels per byte.
FUZZ_INLINE uint64_t fuzz_arithmetic_pixels(const uint8_t *bytes, size_t size) {
    uint64_t most = 0;
    for (size_t i = 1; i + 7 < size; i++) {
        if (bytes[i - 1] != 0xff || bytes[i] <= 0xc8 || bytes[i] >= 0xd0) continue;
        const uint64_t height = (uint64_t)bytes[i + 4] << 8 | bytes[i + 5],
                       width = (uint64_t)bytes[i + 6] << 8 | bytes[i + 7];
        if (height * width > most) most = height * width;
    }
    return most;
}

/// Pixels that a WebP picture claims; 0 if it is none. Its codings have no bound of that kind, either.
FUZZ_INLINE uint64_t fuzz_webp_pixels(const uint8_t *bytes, size_t size) {
#ifdef HIRL_HAS_WEBP
    int height = 0, width = 0;
    if (WebPGetInfo(bytes, size, &width, &height)) // with or without what a file has around it
        return (uint64_t)height * (uint64_t)width;
#else
    (void)bytes, (void)size;
#endif
    return 0;
}

/// Pixels of a picture that may have many for a byte.
FUZZ_INLINE uint64_t fuzz_unbounded_pixels(const uint8_t *bytes, size_t size) {
    const uint64_t webp = fuzz_webp_pixels(bytes, size);
    return webp ? webp : fuzz_arithmetic_pixels(bytes, size);
}

/// A PNG's checksums are made right, or the decoder would see little of it.
FUZZ_INLINE void fuzz_mend_png(uint8_t *bytes, size_t size) {
    for (size_t at = 8; at + 12 <= size;) {
        const size_t n = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 |
                         (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (n > size - at - 12) return;
        const uint32_t sum = (uint32_t)crc32(crc32(0, NULL, 0), bytes + at + 4, (uInt)n + 4);
        for (int i = 0; i < 4; i++) bytes[at + 8 + n + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + n;
    }
}

/// Bytes that the pixels of a file of that size can need at most: of a PNG of one bit a pixel, packed
/// by DEFLATE, each becomes three.
FUZZ_INLINE size_t fuzz_pixel_bytes(size_t size) { return (size_t)24 * 1032 * size; }

#endif
