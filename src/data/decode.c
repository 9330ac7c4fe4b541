// Decoding of one stored sample to u8 [height, width, channels], as PIL would: JPEG by libturbojpeg
// (accurate DCT, fancy upsampling: the defaults of libjpeg), PNG by libpng (palettes expanded,
// alpha dropped, 16 bits cut to the upper 8), CMYK as Adobe stores it. Sizes are read from the
// image's own header and bounded before anything is allocated. Images that libjpeg only warns about
// are refused when the warning means lost data, as for truncated files.
#include "data_impl.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <turbojpeg.h>

enum { DECODER_TEXT_MAX = 256 };

// Pixels that a byte can hold at most, so that a small sample cannot ask for a
// large image. A Huffman code has a bit for each block of 64 pixels, and of all components one or two
// together are sampled at a quarter at least; arithmetic coding has no such bound. DEFLATE makes 1032
// bytes of one.
static const uint64_t JPEG_PIXELS_PER_BYTE = 8 * 64 * 4, DEFLATE_RATIO_MAX = 1032;

bool hirl_image_sniff(const uint8_t *bytes, size_t size, hirl_encoding_t *encoding_p) {
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (size >= sizeof png && memcmp(bytes, png, sizeof png) == 0) {
        *encoding_p = HIRL_ENCODING_PNG;
        return true;
    }
    if (size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff) {
        *encoding_p = HIRL_ENCODING_JPEG;
        return true;
    }
    return false;
}

void hirl_buffer_reset(hirl_buffer_t *buffer) {
    hirl_mem_free(buffer->data);
    buffer->data = NULL;
    buffer->size = 0;
}

hirl_status_t hirl_buffer_reserve(hirl_buffer_t *buffer, size_t size) {
    if (buffer->size >= size && buffer->data) return HIRL_OK;
    // Half as much again, so that a stream of ever larger images does not allocate for each.
    size_t grown = buffer->size + buffer->size / 2;
    size_t wanted = size > grown ? size : grown;
    hirl_buffer_reset(buffer);
    void *data = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_DATA, wanted, &data));
    buffer->data = data;
    buffer->size = wanted;
    return HIRL_OK;
}

// Checks sides that a header claims, and reserves room for `channels` of them. The sample's bytes can
// hold `n_most` pixels.
static hirl_status_t reserve_image(const char *what, int64_t height, int64_t width, int channels,
                                   uint64_t n_most, hirl_buffer_t *buffer) {
    HIRL_REQUIRE(height >= 1 && width >= 1 && height <= HIRL_IMAGE_SIDE_MAX &&
                     width <= HIRL_IMAGE_SIDE_MAX,
                 HIRL_ERR_FORMAT, "%s: header says %lld x %lld pixels, expected sides of 1 to %d",
                 what, (long long)width, (long long)height, HIRL_IMAGE_SIDE_MAX);
    size_t bytes = (size_t)height * (size_t)width * (size_t)channels; // < 2^35: no overflow
    HIRL_REQUIRE(bytes <= HIRL_IMAGE_BYTES_MAX, HIRL_ERR_FORMAT,
                 "%s: header says %lld x %lld pixels of %d channels, more than the %zu MiB allowed",
                 what, (long long)width, (long long)height, channels, HIRL_IMAGE_BYTES_MAX >> 20);
    HIRL_REQUIRE((uint64_t)height * (uint64_t)width <= n_most, HIRL_ERR_FORMAT,
                 "%s: header says %lld x %lld pixels, its bytes can hold %llu at most: it is cut "
                 "short",
                 what, (long long)width, (long long)height, (unsigned long long)n_most);
    return hirl_buffer_reserve(buffer, bytes);
}

// -------------------------------------------------------------------------------------- channels

static void rgb_to_gray(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + 3 * i;
        pixels[i] = (uint8_t)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 32768u) >> 16);
    }
}

// In place from the end: the source of a pixel is never behind its target.
static void gray_to_rgb(uint8_t *pixels, size_t n) {
    for (size_t i = n; i-- > 0;) {
        uint8_t gray = pixels[i];
        pixels[3 * i] = pixels[3 * i + 1] = pixels[3 * i + 2] = gray;
    }
}

// round(a * b / 255) in integers.
static inline unsigned mul_div_255(unsigned a, unsigned b) {
    unsigned product = a * b + 128;
    return (product + (product >> 8)) >> 8;
}

// Adobe writes CMYK inverted, and so do all others by now. PIL: R = (255 - K) - C (255 - K) / 255.
static void inverted_cmyk_to_rgb(uint8_t *pixels, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + 4 * i;
        unsigned light = p[3];
        uint8_t rgb[3];
        for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)(light - mul_div_255(255u - p[c], light));
        memcpy(pixels + 3 * i, rgb, 3);
    }
}

// -------------------------------------------------------------------------------------- JPEG

typedef struct jpeg_frame {
    int height, width, channels;
    bool is_arithmetic;
    size_t after; // position behind the frame header
} jpeg_frame_t;

// Finds the frame header. The library's own function also wants a subsampling that it has a name
// for, and fails on others that it can decode.
static hirl_status_t find_jpeg_frame(const uint8_t *bytes, size_t size, jpeg_frame_t *frame) {
    size_t at = 2;
    while (at + 4 <= size) {
        HIRL_REQUIRE(bytes[at] == 0xff, HIRL_ERR_FORMAT,
                     "JPEG: byte %zu is 0x%02x, expected a marker (0xff)", at, bytes[at]);
        unsigned marker = bytes[at + 1];
        if (marker == 0xff) { // fill byte
            at++;
            continue;
        }
        at += 2;
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue; // without length
        HIRL_REQUIRE(marker != 0xd9 && marker != 0xda, HIRL_ERR_FORMAT,
                     "JPEG: marker 0x%02x at byte %zu comes before any frame header", marker,
                     at - 2);
        size_t length = (size_t)bytes[at] << 8 | bytes[at + 1];
        HIRL_REQUIRE(length >= 2 && length <= size - at, HIRL_ERR_FORMAT,
                     "JPEG: segment 0x%02x at byte %zu has %zu bytes, %zu are left", marker, at - 2,
                     length, size - at);
        bool is_frame =
            marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
        if (is_frame) {
            HIRL_REQUIRE(length >= 8, HIRL_ERR_FORMAT,
                         "JPEG: frame header of %zu bytes, expected 8 or more", length);
            frame->height = bytes[at + 3] << 8 | bytes[at + 4];
            frame->width = bytes[at + 5] << 8 | bytes[at + 6];
            frame->channels = bytes[at + 7];
            frame->is_arithmetic = marker > 0xc8;
            frame->after = at + length;
            return HIRL_OK;
        }
        at += length;
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT, "JPEG: no frame header in %zu bytes", size);
}

static bool has_end_marker(const uint8_t *bytes, size_t from, size_t size) {
    for (size_t at = size; at >= from + 2; at--) {
        if (bytes[at - 2] == 0xff && bytes[at - 1] == 0xd9) return true;
    }
    return false;
}

// libjpeg keeps the first of several warnings. These mean that all pixels are there: rubbish
// between segments, and revisions of JFIF or Adobe markers that the library does not know.
static bool is_harmless(const char *warning) {
    return strstr(warning, "extraneous bytes before marker") || strstr(warning, "JFIF revision") ||
           strstr(warning, "Adobe color transform");
}

static hirl_status_t decode_jpeg(const uint8_t *bytes, size_t size, int least,
                                 hirl_buffer_t *buffer, hirl_image_t *image) {
    jpeg_frame_t frame = {0};
    HIRL_TRY(find_jpeg_frame(bytes, size, &frame));
    int n = frame.channels;
    HIRL_REQUIRE(n == 1 || n == 3 || n == 4, HIRL_ERR_FORMAT,
                 "JPEG: %d components, expected 1, 3 or 4", n);
    const uint64_t n_most = frame.is_arithmetic ? UINT64_MAX : JPEG_PIXELS_PER_BYTE * size;
    HIRL_TRY(
        reserve_image("JPEG", frame.height, frame.width, n > least ? n : least, n_most, buffer));

    tjhandle handle = tjInitDecompress();
    HIRL_REQUIRE(handle, HIRL_ERR_MEMORY, "JPEG: %s", tjGetErrorStr2(NULL));
    // Given both sides the library never writes beyond them, whatever another header of the file
    // says.
    int format = n == 1 ? TJPF_GRAY : n == 3 ? TJPF_RGB : TJPF_CMYK;
    int answer = tjDecompress2(handle, bytes, (unsigned long)size, buffer->data, frame.width,
                               frame.width * n, frame.height, format,
                               TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS);
    hirl_status_t status = HIRL_OK;
    if (answer != 0) {
        const char *text = tjGetErrorStr2(handle);
        bool is_complete = tjGetErrorCode(handle) == TJERR_WARNING && is_harmless(text) &&
                           has_end_marker(bytes, frame.after, size);
        if (!is_complete) status = HIRL_FAIL(HIRL_ERR_FORMAT, "JPEG: %s", text);
    }
    tjDestroy(handle);
    HIRL_TRY(status);
    if (n == 4) {
        inverted_cmyk_to_rgb(buffer->data, (size_t)frame.height * (size_t)frame.width);
        n = 3;
    }
    *image = (hirl_image_t){buffer->data, frame.height, frame.width, n};
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- PNG

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
static hirl_status_t read_png(png_structp png, png_infop info, int least, hirl_buffer_t *buffer,
                              hirl_image_t *image) {
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
    HIRL_TRY(reserve_image("PNG", height, width, n > least ? n : least,
                           8 * DEFLATE_RATIO_MAX * input->size / bits, buffer));

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

static hirl_status_t decode_png(const uint8_t *bytes, size_t size, int least, hirl_buffer_t *buffer,
                                hirl_image_t *image) {
    png_input_t input = {.bytes = bytes, .size = size};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &input, png_failed, png_warned);
    HIRL_REQUIRE(png, HIRL_ERR_MEMORY, "PNG: no decoder: %s", input.text);
    png_infop info = png_create_info_struct(png);
    hirl_status_t status = HIRL_OK;
    if (info) {
        png_set_user_limits(png, HIRL_IMAGE_SIDE_MAX, HIRL_IMAGE_SIDE_MAX);
        png_set_read_fn(png, &input, png_take);
        status = read_png(png, info, least, buffer, image);
    } else {
        status = HIRL_FAIL(HIRL_ERR_MEMORY, "PNG: no decoder: %s", input.text);
    }
    png_destroy_read_struct(&png, info ? &info : NULL, NULL);
    return status;
}

// -------------------------------------------------------------------------------------- all

static hirl_status_t copy_raw(const hirl_sample_t *sample, int least, hirl_buffer_t *buffer,
                              hirl_image_t *image) {
    int n = sample->channels;
    HIRL_REQUIRE(n == 1 || n == 3, HIRL_ERR_FORMAT, "raw image of %d channels, expected 1 or 3", n);
    size_t bytes = (size_t)sample->height * (size_t)sample->width * (size_t)n;
    HIRL_REQUIRE(sample->height < 1 || sample->width < 1 || sample->size == bytes, HIRL_ERR_FORMAT,
                 "raw image of %d x %d x %d has %zu bytes, expected %zu", sample->height,
                 sample->width, n, sample->size, bytes);
    HIRL_TRY(reserve_image("raw image", sample->height, sample->width, n > least ? n : least,
                           sample->size, buffer));
    memcpy(buffer->data, sample->bytes, bytes);
    *image = (hirl_image_t){buffer->data, sample->height, sample->width, n};
    return HIRL_OK;
}

hirl_status_t hirl_image_decode(const hirl_sample_t *sample, int channels, hirl_buffer_t *buffer,
                                hirl_image_t *image_p) {
    HIRL_REQUIRE(channels == 0 || channels == 1 || channels == 3, HIRL_ERR_ARG,
                 "%d channels, expected 0, 1 or 3", channels);
    HIRL_REQUIRE(sample->bytes && sample->size > 0, HIRL_ERR_FORMAT, "the sample is empty");
    HIRL_REQUIRE(sample->bytes != buffer->data, HIRL_ERR_ARG,
                 "the sample lies in the buffer to decode into");

    hirl_image_t image = {0};
    switch (sample->encoding) {
        case HIRL_ENCODING_RAW: HIRL_TRY(copy_raw(sample, channels, buffer, &image)); break;
        case HIRL_ENCODING_JPEG:
            HIRL_TRY(decode_jpeg(sample->bytes, sample->size, channels, buffer, &image));
            break;
        case HIRL_ENCODING_PNG:
            HIRL_TRY(decode_png(sample->bytes, sample->size, channels, buffer, &image));
            break;
        default: return HIRL_FAIL(HIRL_ERR_ARG, "unknown encoding %d", (int)sample->encoding);
    }
    // Height 0: the caller does not know the size.
    HIRL_REQUIRE(sample->height == 0 ||
                     (sample->height == image.height && sample->width == image.width),
                 HIRL_ERR_FORMAT, "the image is %d x %d pixels, the shard says %d x %d",
                 image.width, image.height, sample->width, sample->height);
    size_t n = (size_t)image.height * (size_t)image.width;
    if (image.channels == 3 && channels == 1) {
        rgb_to_gray(image.pixels, n);
        image.channels = 1;
    } else if (image.channels == 1 && channels == 3) {
        gray_to_rgb(image.pixels, n);
        image.channels = 3;
    }
    *image_p = image;
    return HIRL_OK;
}
