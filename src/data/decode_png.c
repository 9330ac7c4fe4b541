// Decoding of PNG by libpng, as PIL does: palettes expanded, alpha dropped, 16 bits cut to the upper 8.
// A picture is always decoded to its end, where its checksums are.
#include "decode_impl.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

enum { DECODER_TEXT_MAX = 256 };

// Bytes that DEFLATE makes of one at most, so that a small sample cannot ask for a large image.
static const uint64_t DEFLATE_RATIO_MAX = 1032;

typedef struct png_input {
    const uint8_t *bytes;
    size_t size, at;
    char warning[DECODER_TEXT_MAX / 2], text[DECODER_TEXT_MAX];
} png_input_t;

static void png_take(png_structp png, png_bytep out, size_t n) {
    png_input_t *input = png_get_io_ptr(png);
    if (n > input->size - input->at) png_error(png, "file ends early");
    memcpy(out, input->bytes + input->at, n);
    input->at += n;
}

// libpng warns of the cause ("Image width exceeds user limit in IHDR") and then fails ("Invalid
// IHDR data").
static void png_failed(png_structp png, png_const_charp text) {
    png_input_t *input = png_get_error_ptr(png);
    snprintf(input->text, sizeof input->text, input->warning[0] ? "%s (%s)" : "%s", text,
             input->warning);
    png_longjmp(png, 1);
}

// Alone a warning is harmless: profiles, times and texts that are malformed do not touch the
// pixels.
static void png_warned(png_structp png, png_const_charp text) {
    png_input_t *input = png_get_error_ptr(png);
    snprintf(input->warning, sizeof input->warning, "%s", text);
}

// The part that libpng may leave by longjmp: no local variable is needed after that.
static hirl_status_t read_png(png_structp png, png_infop info, const hirl_sample_t *sample,
                              int least, hirl_buffer_t *buffer, hirl_image_t *image) {
    if (setjmp(png_jmpbuf(png))) {
        const png_input_t *input = png_get_error_ptr(png);
        return HIRL_FAIL(HIRL_ERR_FORMAT, "PNG: %s", input->text);
    }
    png_read_info(png, info);
    png_uint_32 height = png_get_image_height(png, info), width = png_get_image_width(png, info);
    int color = png_get_color_type(png, info);
    int n = color & PNG_COLOR_MASK_COLOR ? 3 : 1;
    const png_input_t *input = png_get_io_ptr(png);
    const uint64_t bits = (uint64_t)png_get_bit_depth(png, info) * png_get_channels(png, info);
    const int most = n > least ? n : least;
    HIRL_TRY(hirl_decode_check_size("PNG", sample, height, width, most,
                                    8 * DEFLATE_RATIO_MAX * input->size / bits));
    HIRL_TRY(hirl_buffer_reserve(buffer, (size_t)height * (size_t)width * (size_t)most));

    if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (color == PNG_COLOR_TYPE_GRAY) png_set_expand_gray_1_2_4_to_8(png);
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    int n_passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    size_t row = (size_t)width * (size_t)n;
    if (png_get_rowbytes(png, info) != row) png_error(png, "unexpected layout of rows");
    for (int pass = 0; pass < n_passes; pass++) {
        for (size_t y = 0; y < height; y++) png_read_row(png, buffer->data + y * row, NULL);
    }
    png_read_end(png, NULL);
    *image = (hirl_image_t){buffer->data, (int)height, (int)width, n};
    return HIRL_OK;
}

hirl_status_t hirl_decode_png(const hirl_sample_t *sample, int least, hirl_buffer_t *buffer,
                              hirl_image_t *image) {
    png_input_t input = {.bytes = sample->bytes, .size = sample->size};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &input, png_failed, png_warned);
    HIRL_REQUIRE(png, HIRL_ERR_MEMORY, "PNG: no decoder: %s", input.text);
    png_infop info = png_create_info_struct(png);
    hirl_status_t status = HIRL_OK;
    if (info) {
        png_set_user_limits(png, HIRL_IMAGE_SIDE_MAX, HIRL_IMAGE_SIDE_MAX);
        png_set_read_fn(png, &input, png_take);
        status = read_png(png, info, sample, least, buffer, image);
    } else {
        status = HIRL_FAIL(HIRL_ERR_MEMORY, "PNG: no decoder: %s", input.text);
    }
    png_destroy_read_struct(&png, info ? &info : NULL, NULL);
    return status;
}
