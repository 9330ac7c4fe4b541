/// @file mend_h5.h
/// Makes the checksums of a changed HDF5 file right again, as whoever means harm would do, so that
/// changes reach the reader's own checks. Written apart from the reader, whose checksums it so checks.
#ifndef HIRL_MEND_H5_H
#define HIRL_MEND_H5_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MEND_INLINE __attribute__((unused)) static

/// Jenkins's lookup3, which HDF5 takes for the checksums of its metadata.
MEND_INLINE uint32_t mend_lookup3(const uint8_t *data, size_t size) {
    uint32_t x[3] = {0xdeadbeef + (uint32_t)size, 0, 0};
    x[1] = x[2] = x[0];
#define MEND_ROTATE(v, k) ((v) << (k) | (v) >> (32 - (k)))
    while (size > 12) {
        static const int turn[6] = {4, 6, 8, 16, 19, 4};
        for (size_t i = 0; i < 12; i++) x[i / 4] += (uint32_t)data[i] << 8 * (i % 4);
        for (int i = 0; i < 6; i++) {
            uint32_t *a = &x[i % 3], *b = &x[(i + 1) % 3], *c = &x[(i + 2) % 3];
            *a -= *c;
            *a ^= MEND_ROTATE(*c, turn[i]);
            *c += *b;
        }
        data += 12;
        size -= 12;
    }
    if (size == 0) return x[2];
    for (size_t i = 0; i < size; i++) x[i / 4] += (uint32_t)data[i] << 8 * (i % 4);
    static const int turn[7] = {14, 11, 25, 16, 4, 14, 24};
    for (int i = 0; i < 7; i++) { // c b, a c, b a, c b, ...
        uint32_t *to = &x[(2 + i) % 3], *from = &x[(1 + i) % 3];
        *to ^= *from;
        *to -= MEND_ROTATE(*from, turn[i]);
    }
#undef MEND_ROTATE
    return x[2];
}

MEND_INLINE uint64_t mend_little(const uint8_t *at, int n) {
    uint64_t value = 0;
    for (int i = n; i-- > 0;) value = value << 8 | at[i];
    return value;
}

// Puts the checksum of data[from, from + n) behind it.
MEND_INLINE void mend_at(uint8_t *data, size_t size, uint64_t from, uint64_t n) {
    if (from > size || n > size - from || size - from - n < 4) return;
    const uint32_t sum = mend_lookup3(data + from, (size_t)n);
    for (size_t i = 0; i < 4; i++) data[from + n + i] = (uint8_t)(sum >> 8 * i);
}

// An object's header of version 2 with the blocks that it goes on in.
MEND_INLINE void mend_header(uint8_t *data, size_t size, size_t at) {
    const unsigned flags = data[at + 5];
    size_t body = at + 6 + (flags & 0x20 ? 16u : 0u) + (flags & 0x10 ? 4u : 0u);
    const int n_length = 1 << (flags & 3);
    if (body + (size_t)n_length > size) return;
    const uint64_t length = mend_little(data + body, n_length);
    body += (size_t)n_length;
    if (length > size - body) return;
    const size_t end = body + (size_t)length, head = flags & 4 ? 6 : 4;
    for (size_t m = body; m + head <= end;) {
        const size_t n = mend_little(data + m + 1, 2);
        if (data[m] == 0x10 && n >= 16 && m + head + 16 <= end) {
            const uint64_t block_size = mend_little(data + m + head + 8, 8);
            if (block_size >= 8)
                mend_at(data, size, mend_little(data + m + head, 8), block_size - 4);
        }
        m += head + n;
    }
    mend_at(data, size, at, end - at);
}

// A B-tree (version 2) and its root, if that is a leaf.
MEND_INLINE void mend_tree(uint8_t *data, size_t size, size_t at) {
    mend_at(data, size, at, 34);
    if (size - at < 38 || mend_little(data + at + 12, 2) != 0) return;
    mend_at(data, size, mend_little(data + at + 16, 8),
            6 + mend_little(data + at + 24, 2) * mend_little(data + at + 10, 2));
}

// A block of a fractal heap, whose checksum is made with itself as zero.
MEND_INLINE void mend_block(uint8_t *data, size_t size, uint64_t at, uint64_t n, uint64_t head) {
    if (at > size || n > size - at || head + 4 > n) return;
    memset(data + at + head, 0, 4);
    const uint32_t sum = mend_lookup3(data + at, (size_t)n);
    for (size_t i = 0; i < 4; i++) data[at + head + i] = (uint8_t)(sum >> 8 * i);
}

// A fractal heap with its first table and the blocks that it lists.
MEND_INLINE void mend_heap(uint8_t *data, size_t size, size_t at) {
    mend_at(data, size, at, 142);
    if (size - at < 146) return;
    const uint64_t width = mend_little(data + at + 110, 2), start = mend_little(data + at + 112, 8),
                   root = mend_little(data + at + 132, 8), n_rows = mend_little(data + at + 140, 2),
                   head = 13 + (mend_little(data + at + 128, 2) + 7) / 8;
    const int has_sums = data[at + 9] & 2;
    if (n_rows == 0) {
        if (has_sums) mend_block(data, size, root, start, head);
        return;
    }
    const uint64_t n = head + 8 * width * n_rows;
    if (n_rows > 40 || root > size || n > size - root) return;
    for (uint64_t i = 0; i < width * n_rows && has_sums; i++) {
        const uint64_t row = i / width;
        mend_block(data, size, mend_little(data + root + head + 8 * i, 8),
                   start << (row ? row - 1 : 0), head);
    }
    mend_at(data, size, root, n);
}

/// Makes the checksums of superblocks, object headers, heaps and small trees right, where their sizes
/// are told by themselves.
MEND_INLINE void mend_h5(uint8_t *data, size_t size) {
    for (size_t at = 0; at + 12 <= size; at++) {
        if (data[at] != 0x89 && data[at] != 'O' && data[at] != 'B' && data[at] != 'F') continue;
        if (memcmp(data + at, "\x89HDF\r\n\x1a\n", 8) == 0 &&
            (data[at + 8] == 2 || data[at + 8] == 3))
            mend_at(data, size, at, 44);
        if (memcmp(data + at, "OHDR", 4) == 0) mend_header(data, size, at);
        if (memcmp(data + at, "BTHD", 4) == 0) mend_tree(data, size, at);
        if (memcmp(data + at, "FRHP", 4) == 0) mend_heap(data, size, at);
    }
}

#endif
