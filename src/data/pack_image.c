// What becomes of an image on its way into a shard. Most stay byte for byte. Those whose EXIF
// orientation says so are turned: without loss by libturbojpeg, which turns whole blocks of the
// coding, where all blocks are whole; else they are decoded, turned and encoded. Larger ones than
// pack%max_side are decoded, turned, resized and encoded. The result depends on the file and the
// settings alone: an image is made once to learn its size, and again when it is written.
#include "data_impl.h"

#include <string.h>
#include <turbojpeg.h>

enum { QUALITY = 90 };

// -------------------------------------------------------------------------------------- turning

// Pixel (y, x) of the turned image comes from first + y * down + x * right, in pixels of the image.
typedef struct walk {
    ptrdiff_t first, down, right;
} walk_t;

static walk_t walk_of(int orientation, ptrdiff_t height, ptrdiff_t width) {
    const ptrdiff_t row = width, last_row = (height - 1) * width, last = width - 1;
    switch (orientation) {
        case 2: return (walk_t){last, row, -1};             // mirrored
        case 3: return (walk_t){last_row + last, -row, -1}; // upside down
        case 4: return (walk_t){last_row, -row, 1};         // flipped top to bottom
        case 5: return (walk_t){0, 1, row};                 // transposed
        case 6: return (walk_t){last_row, 1, -row};         // turn it clockwise
        case 7: return (walk_t){last_row + last, -1, -row}; // about the other diagonal
        case 8: return (walk_t){last, -1, row};             // turn it counter-clockwise
        default: return (walk_t){0, row, 1};
    }
}

void hirl_pack_turn(const hirl_image_t *image, int orientation, uint8_t *out) {
    const walk_t walk = walk_of(orientation, image->height, image->width);
    const ptrdiff_t height = orientation >= 5 ? image->width : image->height,
                    width = orientation >= 5 ? image->height : image->width, n = image->channels;
    for (ptrdiff_t y = 0; y < height; y++) {
        const uint8_t *from = image->pixels + n * (walk.first + y * walk.down);
        for (ptrdiff_t x = 0; x < width; x++, from += n * walk.right, out += n)
            memcpy(out, from, (size_t)n);
    }
}

// The picture in a JPEG's blocks is upright now, and its EXIF data shall say so.
static void mark_upright(uint8_t *bytes, size_t size) {
    size_t at = 0;
    bool is_big_endian = false;
    if (hirl_exif_orientation(bytes, size, &at, &is_big_endian) == 1 || at == 0) return;
    bytes[at] = is_big_endian ? 0 : 1;
    bytes[at + 1] = is_big_endian ? 1 : 0;
}

// *is_done_p is false where that is not possible without loss.
static hirl_status_t turn_blocks(const hirl_sample_t *sample, int orientation, hirl_buffer_t *made,
                                 size_t *size_p, bool *is_done_p) {
    static const int operations[] = {TJXOP_NONE,   TJXOP_NONE,       TJXOP_HFLIP,
                                     TJXOP_ROT180, TJXOP_VFLIP,      TJXOP_TRANSPOSE,
                                     TJXOP_ROT90,  TJXOP_TRANSVERSE, TJXOP_ROT270};
    tjtransform transform = {.op = operations[orientation], .options = TJXOPT_PERFECT};
    unsigned char *out = NULL;
    unsigned long size = 0;
    *is_done_p = false;
    tjhandle handle = tjInitTransform();
    HIRL_REQUIRE(handle, HIRL_ERR_MEMORY, "JPEG: %s", tjGetErrorStr2(NULL));
    const int answer = tjTransform(handle, sample->bytes, (unsigned long)sample->size, 1, &out,
                                   &size, &transform, TJFLAG_LIMITSCANS);
    hirl_status_t status = HIRL_OK;
    if (answer == 0 && size > 0 && size <= HIRL_IMAGE_BYTES_MAX) {
        status = hirl_buffer_reserve(made, size);
        if (status == HIRL_OK) {
            memcpy(made->data, out, size);
            mark_upright(made->data, size);
            *size_p = size;
            *is_done_p = true;
        }
    }
    tjFree(out);
    tjDestroy(handle);
    return status;
}

// Whether the turned JPEG is one, of the size that it should have. It is decoded when it is made
// first; that the image itself could be says nothing of what was made of it.
static bool is_sound(const hirl_pack_stored_t *stored, hirl_buffer_t *buffer) {
    const hirl_sample_t sample = {.bytes = stored->bytes,
                                  .size = stored->size,
                                  .height = stored->height,
                                  .width = stored->width,
                                  .encoding = HIRL_ENCODING_JPEG};
    hirl_image_t image;
    return hirl_image_decode(&sample, 0, buffer, &image) == HIRL_OK;
}

// -------------------------------------------------------------------------------------- encoding

static hirl_status_t encode_jpeg(const hirl_image_t *image, int quality, hirl_buffer_t *made,
                                 size_t *size_p) {
    const int sampling = image->channels == 1 ? TJSAMP_GRAY : TJSAMP_420;
    const unsigned long most = tjBufSize(image->width, image->height, sampling);
    HIRL_REQUIRE(most != (unsigned long)-1, HIRL_ERR_FORMAT, "JPEG: %s", tjGetErrorStr2(NULL));
    HIRL_TRY(hirl_buffer_reserve(made, most));
    tjhandle handle = tjInitCompress();
    HIRL_REQUIRE(handle, HIRL_ERR_MEMORY, "JPEG: %s", tjGetErrorStr2(NULL));
    unsigned char *out = made->data;
    unsigned long size = most;
    hirl_status_t status = HIRL_OK;
    if (tjCompress2(handle, image->pixels, image->width, 0, image->height,
                    image->channels == 1 ? TJPF_GRAY : TJPF_RGB, &out, &size, sampling, quality,
                    TJFLAG_ACCURATEDCT | TJFLAG_NOREALLOC) != 0)
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "JPEG: cannot be encoded: %s", tjGetErrorStr2(handle));
    tjDestroy(handle);
    *size_p = size;
    return status;
}

// The sides that an image gets; false if it keeps its own.
static bool fit_sides(const hirl_pack_cfg_t *cfg, int *height, int *width) {
    const int longer = *height > *width ? *height : *width,
              shorter = *height > *width ? *width : *height,
              side = strcmp(cfg->side, "shorter") == 0 ? shorter : longer;
    const int64_t most = cfg->max_side;
    if (most == 0 || side <= most) return false;
    int *const sides[] = {height, width};
    for (int s = 0; s < 2; s++) {
        const int64_t scaled = (2 * *sides[s] * most + side) / (2 * (int64_t)side);
        *sides[s] = scaled > 0 ? (int)scaled : 1;
    }
    return true;
}

static size_t bytes_of(const hirl_image_t *image) {
    return (size_t)image->height * (size_t)image->width * (size_t)image->channels;
}

// Turns, resizes and encodes decoded pixels.
static hirl_status_t make_anew(const hirl_pack_cfg_t *cfg, hirl_image_t image, int orientation,
                               hirl_pack_scratch_t *scratch, hirl_pack_stored_t *stored) {
    if (orientation != 1) {
        HIRL_TRY(hirl_buffer_reserve(&scratch->turned, bytes_of(&image)));
        hirl_pack_turn(&image, orientation, scratch->turned.data);
        image = (hirl_image_t){scratch->turned.data, stored->height, stored->width, image.channels};
    }
    hirl_image_t small = image;
    if (fit_sides(cfg, &small.height, &small.width)) {
        if (!scratch->augment) HIRL_TRY(hirl_augment_create(&scratch->augment));
        HIRL_TRY(hirl_buffer_reserve(&scratch->resized, bytes_of(&small)));
        small.pixels = scratch->resized.data;
        HIRL_TRY(hirl_image_resize_crop(scratch->augment, &image, 0, 0, image.height, image.width,
                                        small.height, small.width, true, small.pixels));
    }
    HIRL_TRY(encode_jpeg(&small, cfg->quality ? (int)cfg->quality : QUALITY, &scratch->made,
                         &stored->size));
    stored->bytes = scratch->made.data;
    stored->height = small.height;
    stored->width = small.width;
    stored->channels = small.channels;
    stored->encoding = HIRL_ENCODING_JPEG;
    stored->made = HIRL_PACK_ENCODED;
    return HIRL_OK;
}

hirl_status_t hirl_pack_make_image(const hirl_pack_cfg_t *cfg, const hirl_sample_t *sample,
                                   const hirl_image_t *image, hirl_pack_scratch_t *scratch,
                                   hirl_pack_stored_t *stored_p) {
    hirl_image_t decoded;
    if (image) {
        decoded = *image;
    } else {
        HIRL_TRY(hirl_image_decode(sample, 0, &scratch->decoded, &decoded));
    }
    size_t at = 0;
    bool is_big_endian = false, is_done = false;
    const int orientation =
        cfg->upright && sample->encoding == HIRL_ENCODING_JPEG
            ? hirl_exif_orientation(sample->bytes, sample->size, &at, &is_big_endian)
            : 1;
    const bool is_swapped = orientation >= 5;
    hirl_pack_stored_t stored = {.bytes = sample->bytes,
                                 .size = sample->size,
                                 .height = is_swapped ? decoded.width : decoded.height,
                                 .width = is_swapped ? decoded.height : decoded.width,
                                 .channels = decoded.channels,
                                 .encoding = sample->encoding,
                                 .made = HIRL_PACK_KEPT};
    int height = stored.height, width = stored.width;
    const bool is_large = fit_sides(cfg, &height, &width);
    if (orientation != 1 && !is_large) {
        HIRL_TRY(turn_blocks(sample, orientation, &scratch->made, &stored.size, &is_done));
        if (is_done) {
            stored.bytes = scratch->made.data;
            stored.made = HIRL_PACK_TURNED;
            is_done = is_sound(&stored, &scratch->turned);
        }
    }
    if (is_large || (orientation != 1 && !is_done))
        HIRL_TRY(make_anew(cfg, decoded, orientation, scratch, &stored));
    *stored_p = stored;
    return HIRL_OK;
}
