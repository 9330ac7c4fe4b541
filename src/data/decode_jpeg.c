// Decoding of JPEG by libjpeg with the accurate DCT and fancy upsampling, its defaults and PIL's.
// Of a part of a picture only the rows that hold it are transformed, and of these only the blocks:
// what lies below is not even read. Upsampling looks a pixel beyond a block, so the part is decoded
// with a margin of columns of blocks, which are not handed out (of rows the library sees to it):
// pixels are those of the whole picture, bit for bit. Shrunk pictures come from smaller transforms.
// An image that libjpeg only warns about is refused when the warning means lost data. Since a part
// need not meet the damage, a file that is cut short is told by its missing end marker beforehand.
#include "decode_impl.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

enum {
    SCANS_MOST = 500, // a progressive file can ask for any number of passes over the picture
    TEXT_MAX = JMSG_LENGTH_MAX
};

// Pixels that a byte can hold at most, so that a small sample cannot ask for a large image. A
// Huffman code has a bit for each block of 64 pixels, and of all components one or two together are
// sampled at a quarter at least; arithmetic coding has no such bound.
static const uint64_t PIXELS_PER_BYTE = 8 * 64 * 4;

// ------------------------------------------------------------------------------------ frame header

typedef struct frame {
    int height, width, channels;
    bool is_arithmetic;
    size_t after; // position behind the frame header
} frame_t;

static hirl_status_t find_frame(const uint8_t *bytes, size_t size, frame_t *frame) {
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

// ------------------------------------------------------------------------------------ the library

typedef struct reader {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    char text[TEXT_MAX]; // of the error, or of the first warning that means lost data
} reader_t;

static void fail(j_common_ptr jpeg) {
    reader_t *reader = jpeg->client_data;
    if (reader->text[0] == '\0') jpeg->err->format_message(jpeg, reader->text);
    longjmp(reader->escape, 1);
}

// Harmless: rubbish between segments, and revisions of JFIF or Adobe markers that the library does
// not know. Everything else means pixels that are not there.
static void warn(j_common_ptr jpeg, int level) {
    reader_t *reader = jpeg->client_data;
    const int code = jpeg->err->msg_code;
    if (level >= 0 || code == JWRN_EXTRANEOUS_DATA || code == JWRN_JFIF_MAJOR ||
        code == JWRN_ADOBE_XFORM)
        return;
    if (reader->text[0] == '\0') jpeg->err->format_message(jpeg, reader->text);
}

static void print_nothing(j_common_ptr jpeg) { (void)jpeg; }

static void watch(j_common_ptr jpeg) {
    reader_t *reader = jpeg->client_data;
    if (reader->jpeg.input_scan_number <= SCANS_MOST) return;
    snprintf(reader->text, sizeof reader->text, "more than %d scans", SCANS_MOST);
    fail(jpeg);
}

// The columns [*left_p, *left_p + *width_p) are those that come out.
static void crop_columns(reader_t *reader, const hirl_window_t *window, int *left_p, int *width_p) {
    j_decompress_ptr jpeg = &reader->jpeg;
    // Where the last scans of a progressive file are missing, blocks are smoothed by the two around.
    const int n_columns = jpeg->progressive_mode ? 1 + 2 : 1;
    const int margin = n_columns * jpeg->max_h_samp_factor * jpeg->min_DCT_scaled_size;
    const int out_width = (int)jpeg->output_width;
    int left = window->left - margin, right = window->left + window->width + margin;
    left = left < 0 ? 0 : left;
    right = right > out_width ? out_width : right;
    *left_p = 0;
    *width_p = out_width;
    if (right - left + margin >= out_width) return; // nothing to gain
    JDIMENSION first = (JDIMENSION)left, n = (JDIMENSION)(right - left);
    jpeg_crop_scanline(jpeg, &first, &n);
    *left_p = (int)first;
    *width_p = (int)n;
}

// The part that the library may leave by longjmp: no local variable is needed after that.
static hirl_status_t read_part(reader_t *reader, const hirl_sample_t *sample, const frame_t *frame,
                               int n, int shrink, const hirl_window_t *part, uint8_t *out,
                               uint8_t *row) {
    j_decompress_ptr jpeg = &reader->jpeg;
    const hirl_window_t window = *part;
    if (setjmp(reader->escape)) return HIRL_FAIL(HIRL_ERR_FORMAT, "JPEG: %s", reader->text);
    jpeg_create_decompress(jpeg);
    reader->progress.progress_monitor = watch;
    jpeg->progress = &reader->progress;
    jpeg_mem_src(jpeg, sample->bytes, (unsigned long)sample->size);
    jpeg_read_header(jpeg, TRUE);
    // Another frame header of the file may say something else.
    HIRL_REQUIRE((int)jpeg->image_height == frame->height &&
                     (int)jpeg->image_width == frame->width &&
                     jpeg->num_components == frame->channels,
                 HIRL_ERR_FORMAT, "JPEG: two frame headers differ");
    jpeg->out_color_space = n == 1 ? JCS_GRAYSCALE : n == 3 ? JCS_RGB : JCS_CMYK;
    jpeg->scale_num = 1;
    jpeg->scale_denom = (unsigned)shrink;
    jpeg_start_decompress(jpeg);
    const int out_height = (int)jpeg->output_height, out_width = (int)jpeg->output_width;
    HIRL_REQUIRE(out_height == hirl_shrunk(frame->height, shrink) &&
                     out_width == hirl_shrunk(frame->width, shrink) && jpeg->output_components == n,
                 HIRL_ERR_INTERNAL, "JPEG: unexpected size %d x %d x %d", out_width, out_height,
                 jpeg->output_components);
    int left, width;
    crop_columns(reader, &window, &left, &width);
    if (window.top > 0) jpeg_skip_scanlines(jpeg, (JDIMENSION)window.top);
    const size_t pitch = (size_t)window.width * (size_t)n;
    const bool is_direct = left == window.left && width == window.width;
    while ((int)jpeg->output_scanline < window.top + window.height) {
        const int y = (int)jpeg->output_scanline - window.top;
        uint8_t *to = y >= 0 && is_direct ? out + (size_t)y * pitch : row;
        const unsigned n_rows = jpeg_read_scanlines(jpeg, &to, 1);
        HIRL_REQUIRE(n_rows == 1, HIRL_ERR_FORMAT, "JPEG: a row is missing");
        if (y >= 0 && !is_direct)
            memcpy(out + (size_t)y * pitch, row + (size_t)(window.left - left) * (size_t)n, pitch);
    }
    // What follows the last row of a whole picture may be damaged, too.
    if (window.top + window.height == out_height) jpeg_finish_decompress(jpeg);
    HIRL_REQUIRE(reader->text[0] == '\0', HIRL_ERR_FORMAT, "JPEG: %s", reader->text);
    return HIRL_OK;
}

hirl_status_t hirl_decode_jpeg(const hirl_sample_t *sample, int least, int shrink,
                               const hirl_window_t *window, hirl_buffer_t *buffer,
                               hirl_image_t *image) {
    const uint8_t *bytes = sample->bytes;
    const size_t size = sample->size;
    frame_t frame = {0};
    HIRL_TRY(find_frame(bytes, size, &frame));
    int n = frame.channels;
    HIRL_REQUIRE(n == 1 || n == 3 || n == 4, HIRL_ERR_FORMAT,
                 "JPEG: %d components, expected 1, 3 or 4", n);
    const uint64_t n_most = frame.is_arithmetic ? UINT64_MAX : PIXELS_PER_BYTE * size;
    HIRL_TRY(hirl_decode_check_size("JPEG", sample, frame.height, frame.width,
                                    n > least ? n : least, n_most));
    HIRL_REQUIRE(has_end_marker(bytes, frame.after, size), HIRL_ERR_FORMAT,
                 "JPEG: no end marker: the file is cut short");
    hirl_window_t part;
    HIRL_TRY(hirl_decode_place(window, hirl_shrunk(frame.height, shrink),
                               hirl_shrunk(frame.width, shrink), &part));
    const size_t n_pixels = (size_t)part.height * (size_t)part.width;
    const size_t room = n_pixels * (size_t)(n > least ? n : least);
    HIRL_TRY(hirl_buffer_reserve(buffer, room + (size_t)frame.width * (size_t)n));

    reader_t reader = {0};
    reader.jpeg.err = jpeg_std_error(&reader.errors);
    reader.errors.error_exit = fail;
    reader.errors.emit_message = warn;
    reader.errors.output_message = print_nothing;
    reader.jpeg.client_data = &reader;
    const hirl_status_t status =
        read_part(&reader, sample, &frame, n, shrink, &part, buffer->data, buffer->data + room);
    jpeg_destroy_decompress(&reader.jpeg);
    HIRL_TRY(status);
    if (n == 4) {
        hirl_inverted_cmyk_to_rgb(buffer->data, n_pixels);
        n = 3;
    }
    *image = (hirl_image_t){buffer->data, part.height, part.width, n};
    return HIRL_OK;
}
