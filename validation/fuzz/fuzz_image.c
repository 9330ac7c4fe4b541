// Fuzz target: what is done with the bytes of one sample: parts of JPEG, PNG, WebP and raw images, the EXIF
// orientation, images turned and resized for packing, the frames of a clip. The first six bytes of an
// input say what is asked for (request_t), the rest are the sample's.
#include "fuzz_picture.h"

#include <jpeglib.h>

#include "../../src/data/data_impl.h"
#include "hirl/data_clip.h"

// Larger pictures only take time: few bytes of arithmetic coding, or of WebP, make as many pixels as
// are allowed.
enum { HEAD = 6, UNBOUNDED_PIXELS_MAX = 1 << 20, FRAMES_DECODED = 4 };

typedef enum kind {
    KIND_JPEG,
    KIND_PNG,
    KIND_RAW,
    KIND_EXIF,
    KIND_TURN,
    KIND_CLIP,
    KIND_DRAW,
    KIND_WEBP,
    N_KINDS
} kind_t;

// Byte 0: the kind. Byte 1: two bits each of channels and shrinking, and the flags below. Bytes 2 to 5:
// top, left, height and width.
typedef struct request {
    kind_t kind;
    int channels, shrink;
    uint8_t flags, number[4];
} request_t;
enum {
    HAS_WINDOW = 16,
    IS_LITERAL = 32, // the numbers as they are, perhaps outside; else in 256ths of the picture
    IS_MENDED = 64,  // what guards the bytes is made right: checksums, the size of raw pixels
    HAS_SIDES = 128  // the shard knows the picture's sides
};

static hirl_world_t *world;

static request_t read_request(const uint8_t *head) {
    static const int channels[] = {3, 0, 1, 3};
    request_t request = {.kind = (kind_t)(head[0] % N_KINDS),
                         .channels = channels[head[1] & 3],
                         .shrink = 1 << (head[1] >> 2 & 3),
                         .flags = head[1]};
    memcpy(request.number, head + 2, sizeof request.number);
    // The others know no shrinking, and say so.
    if (request.kind == KIND_PNG || request.kind == KIND_RAW || request.kind == KIND_CLIP ||
        request.kind == KIND_WEBP)
        request.shrink = head[1] & IS_LITERAL ? request.shrink : 1;
    return request;
}

static uint8_t *copy_of(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    FUZZ_CHECK(copy, "no memory");
    memcpy(copy, data, size);
    return copy;
}

// ------------------------------------------------------------------------------------ parts

static hirl_window_t choose_window(const request_t *request, int height, int width) {
    const uint8_t *b = request->number;
    if (request->flags & IS_LITERAL)
        return (hirl_window_t){(int8_t)b[0], (int8_t)b[1], (int8_t)b[2], (int8_t)b[3]};
    const int top = b[0] * height / 256, left = b[1] * width / 256;
    return (hirl_window_t){top, left, 1 + b[2] * (height - top) / 257,
                           1 + b[3] * (width - left) / 257};
}

static bool is_inside(const hirl_window_t *window, int height, int width) {
    return window->top >= 0 && window->left >= 0 && window->height >= 1 && window->width >= 1 &&
           window->top + window->height <= height && window->left + window->width <= width;
}

static uint64_t unbounded_pixels(const hirl_sample_t *sample) {
    return sample->encoding == HIRL_ENCODING_JPEG || sample->encoding == HIRL_ENCODING_WEBP
               ? fuzz_unbounded_pixels(sample->bytes, sample->size)
               : 0;
}

// Decodes, and checks what holds of any outcome.
static hirl_status_t decode(const hirl_sample_t *sample, const request_t *request,
                            const hirl_window_t *window, hirl_buffer_t *buffer,
                            hirl_image_t *image) {
    const hirl_status_t status =
        hirl_image_decode_part(sample, request->channels, request->shrink, window, buffer, image);
    FUZZ_CHECK(buffer->size <= fuzz_pixel_bytes(sample->size) || unbounded_pixels(sample) > 0,
               "%zu bytes to decode %zu", buffer->size, sample->size);
    if (status != HIRL_OK) {
        fuzz_check_refusal(status);
        return status;
    }
    const size_t n = (size_t)image->height * (size_t)image->width * (size_t)image->channels;
    FUZZ_CHECK(n > 0 && n <= buffer->size && image->pixels == buffer->data,
               "an image outside its buffer");
    FUZZ_CHECK(request->channels ? image->channels == request->channels
                                 : image->channels == 1 || image->channels == 3,
               "%d channels", image->channels);
    FUZZ_CHECK(!window || (image->height == window->height && image->width == window->width),
               "a part of %d x %d pixels", image->width, image->height);
    (void)hirl_hash64(image->pixels, n);
    return HIRL_OK;
}

static void compare(const hirl_image_t *whole, const hirl_window_t *at, const hirl_image_t *part) {
    const size_t n = (size_t)part->channels, row = (size_t)part->width * n;
    FUZZ_CHECK(whole->channels == part->channels, "%d channels of %d", part->channels,
               whole->channels);
    for (int y = 0; y < part->height; y++) {
        const uint8_t *in =
            whole->pixels + (size_t)(at->top + y) * (size_t)whole->width * n + (size_t)at->left * n;
        FUZZ_CHECK(memcmp(in, part->pixels + (size_t)y * row, row) == 0,
                   "row %d of part %d x %d at (%d, %d) of %d x %d pixels is not that of the whole",
                   y, at->width, at->height, at->left, at->top, whole->width, whole->height);
    }
}

// Whatever the whole picture is, its part is; damage that spoils the whole may lie outside of it.
static void decode_part(const hirl_sample_t *sample, const request_t *request) {
    hirl_buffer_t whole_buffer = {0}, buffer = {0};
    hirl_image_t whole = {0}, part;
    if (unbounded_pixels(sample) > UNBOUNDED_PIXELS_MAX) return;
    const bool is_whole = decode(sample, request, NULL, &whole_buffer, &whole) == HIRL_OK;
    if (request->flags & HAS_WINDOW) {
        const int height = is_whole ? whole.height : 64, width = is_whole ? whole.width : 64;
        const hirl_window_t window = choose_window(request, height, width);
        const hirl_status_t status = decode(sample, request, &window, &buffer, &part);
        if (is_whole && !is_inside(&window, height, width)) {
            FUZZ_CHECK(status == HIRL_ERR_ARG, "a part outside of the picture");
        } else if (is_whole) {
            FUZZ_CHECK(status == HIRL_OK, "a part of a good picture is refused");
            compare(&whole, &window, &part);
        }
    }
    hirl_buffer_reset(&whole_buffer);
    hirl_buffer_reset(&buffer);
}

static void fuzz_encoded(const request_t *request, uint8_t *bytes, size_t size) {
    hirl_sample_t sample = {.bytes = bytes, .size = size, .label = -1};
    sample.encoding = request->kind == KIND_PNG    ? HIRL_ENCODING_PNG
                      : request->kind == KIND_WEBP ? HIRL_ENCODING_WEBP
                                                   : HIRL_ENCODING_JPEG;
    if (request->flags & HAS_SIDES) {
        sample.height = 40;
        sample.width = 72;
    }
    if (request->kind == KIND_PNG && (request->flags & IS_MENDED)) fuzz_mend_png(bytes, size);
    decode_part(&sample, request);
}

static void fuzz_raw(const request_t *request, const uint8_t *bytes, size_t size) {
    if (size < 3) return;
    hirl_sample_t sample = {.bytes = bytes + 3,
                            .size = size - 3,
                            .height = bytes[0],
                            .width = bytes[1],
                            .channels = bytes[2] % 5,
                            .encoding = HIRL_ENCODING_RAW};
    if ((request->flags & IS_MENDED) && sample.width > 0 && sample.channels > 0) {
        sample.height = (int)sample.size / sample.width / sample.channels;
        sample.size = (size_t)(sample.height * sample.width * sample.channels);
    }
    decode_part(&sample, request);
}

// ------------------------------------------------------------------------------------ packing

// A TIFF structure is wrapped into the beginning of a JPEG, or the bytes are such a beginning.
static void fuzz_exif(const request_t *request, const uint8_t *bytes, size_t size) {
    size_t at = 0, n = size;
    bool is_big_endian = false;
    uint8_t *copy;
    if (request->flags & IS_MENDED) {
        const size_t length = (size < 65527 ? size : 65527) + 2 + 6;
        n = 4 + length;
        copy = malloc(n);
        FUZZ_CHECK(copy, "no memory");
        const uint8_t head[] = {0xff, 0xd8, 0xff, 0xe1, (uint8_t)(length >> 8), (uint8_t)length};
        memcpy(copy, head, sizeof head);
        memcpy(copy + sizeof head, "Exif\0", 6);
        memcpy(copy + sizeof head + 6, bytes, n - sizeof head - 6);
    } else {
        copy = copy_of(bytes, size);
    }
    const int orientation = hirl_exif_orientation(copy, n, &at, &is_big_endian);
    FUZZ_CHECK(orientation >= 1 && orientation <= 8, "orientation %d", orientation);
    FUZZ_CHECK(at > 0 || orientation == 1, "orientation %d comes from nowhere", orientation);
    if (at > 0) {
        FUZZ_CHECK(at + 2 <= n, "orientation at byte %zu of %zu", at, n);
        const int stored = copy[at + is_big_endian] + 256 * copy[at + !is_big_endian];
        FUZZ_CHECK(stored == orientation, "%d is stored, orientation is %d", stored, orientation);
    }
    free(copy);
}

static bool is_upright(const hirl_pack_stored_t *stored) {
    size_t at = 0;
    bool is_big_endian = false;
    return hirl_exif_orientation(stored->bytes, stored->size, &at, &is_big_endian) == 1;
}

// Turned and resized, twice: packing makes an image to learn its size, and again to write it.
static void fuzz_turn(const request_t *request, const uint8_t *bytes, size_t size) {
    hirl_sample_t sample = {.bytes = bytes, .size = size};
    hirl_pack_scratch_t scratch = {.archive_fd = -1};
    hirl_image_t image;
    hirl_pack_stored_t stored;
    hirl_pack_cfg_t cfg = {
        .upright = true, .max_side = request->number[0] % 128, .quality = request->number[1] % 101};
    strcpy(cfg.side, request->number[2] % 2 ? "shorter" : "longer");
    if (!hirl_image_sniff(bytes, size, &sample.encoding) ||
        unbounded_pixels(&sample) > UNBOUNDED_PIXELS_MAX)
        return;
    hirl_status_t status = hirl_image_decode(&sample, 0, &scratch.decoded, &image);
    if (status == HIRL_OK) {
        const int height = image.height, width = image.width;
        status = hirl_pack_make_image(&cfg, &sample, &image, &scratch, &stored);
        FUZZ_CHECK(status == HIRL_OK, "a good picture cannot be made upright");
        FUZZ_CHECK(stored.size > 0 && is_upright(&stored), "what was made is not upright");
        FUZZ_CHECK(stored.made != HIRL_PACK_KEPT || (stored.bytes == bytes && stored.size == size),
                   "what is kept is not what it was");
        FUZZ_CHECK(stored.made == HIRL_PACK_ENCODED ||
                       (stored.height == height && stored.width == width) ||
                       (stored.height == width && stored.width == height),
                   "%d x %d pixels become %d x %d", width, height, stored.width, stored.height);
        const int side = (stored.height < stored.width) == (request->number[2] % 2 != 0)
                             ? stored.height
                             : stored.width;
        FUZZ_CHECK(cfg.max_side == 0 || side <= cfg.max_side, "a side of %d pixels", side);
        const uint64_t hash = hirl_hash64(stored.bytes, stored.size);
        hirl_pack_stored_t again;
        FUZZ_CHECK(hirl_pack_make_image(&cfg, &sample, NULL, &scratch, &again) == HIRL_OK &&
                       again.size == stored.size && hirl_hash64(again.bytes, again.size) == hash,
                   "made again it differs");
        const hirl_sample_t made = {
            again.bytes, again.size, again.height, again.width, again.channels, again.encoding, -1};
        hirl_buffer_t buffer = {0};
        FUZZ_CHECK(hirl_image_decode(&made, 0, &buffer, &image) == HIRL_OK &&
                       image.channels == again.channels,
                   "what was made cannot be decoded");
        hirl_buffer_reset(&buffer);
    } else {
        fuzz_check_refusal(status);
    }
    hirl_pack_scratch_reset(&scratch);
}

// ------------------------------------------------------------------------------------ clips

static void mend_clip(uint8_t *bytes, size_t size) {
    if (size < 32) return;
    const size_t n = (size_t)bytes[12] | (size_t)bytes[13] << 8, hashed = 24 + 8 * n;
    if (hashed + 8 > size) return;
    const uint64_t sum = hirl_hash64(bytes, hashed);
    for (int i = 0; i < 8; i++) bytes[hashed + (size_t)i] = (uint8_t)(sum >> 8 * i);
}

static void fuzz_clip(const request_t *request, uint8_t *bytes, size_t size) {
    hirl_frames_t frames;
    if (request->flags & IS_MENDED) mend_clip(bytes, size);
    hirl_status_t status = hirl_frames_read_index(bytes, size, &frames);
    if (status != HIRL_OK) {
        fuzz_check_refusal(status);
        return;
    }
    FUZZ_CHECK(frames.n >= 1 && (size_t)frames.n < size, "%lld frames", (long long)frames.n);
    const uint8_t *end = frames.bytes;
    for (int64_t i = 0; i < frames.n; i++) {
        hirl_sample_t sample = {.size = 0};
        status = hirl_frames_sample(&frames, i, &sample);
        if (status != HIRL_OK) {
            fuzz_check_refusal(status);
            end = NULL;
            continue;
        }
        FUZZ_CHECK(!end || sample.bytes == end, "frame %lld does not follow", (long long)i);
        end = sample.bytes + sample.size;
        FUZZ_CHECK(sample.bytes > bytes && end <= bytes + size, "frame %lld is outside",
                   (long long)i);
        if (i < FRAMES_DECODED) decode_part(&sample, request);
    }
    FUZZ_CHECK(!end || end == bytes + size, "bytes behind the last frame");
}

static void fuzz_draw(const request_t *request, const uint8_t *bytes, size_t size) {
    char name[64];
    int64_t number = -1;
    const size_t n_name = size < sizeof name - 1 ? size : sizeof name - 1;
    memcpy(name, bytes, n_name);
    name[n_name] = '\0';
    if (hirl_frame_number(name, &number))
        FUZZ_CHECK(number >= 0 && number < 1000000000000000, "frame %lld", (long long)number);
    const uint8_t *b = request->number;
    const hirl_clip_spec_t clip = {b[0] << (b[3] % 4), (int)((uint32_t)b[1] << (b[3] / 4 % 32)),
                                   request->flags & IS_LITERAL};
    hirl_status_t status = hirl_clip_check(&clip);
    if (status != HIRL_OK) {
        fuzz_check_refusal(status);
        return;
    }
    int32_t *frames = malloc((size_t)clip.n_frames * sizeof *frames);
    FUZZ_CHECK(frames, "no memory");
    const int64_t n = 1 + (b[2] << (request->flags & 15)) % HIRL_FRAMES_MAX;
    for (int k = 0; k < 4; k++) {
        if (k == 0) hirl_clip_draw(&clip, n, 1, b[3], b[2], 0, frames);
        if (k > 0) hirl_clip_place(&clip, n, k - 1, 3, frames);
        for (int i = 0; i < clip.n_frames; i++)
            FUZZ_CHECK(frames[i] >= 0 && frames[i] < n, "frame %d of %lld", frames[i],
                       (long long)n);
    }
    free(frames);
}

// ------------------------------------------------------------------------------------ all

static void fuzz_one(const uint8_t *data, size_t size) {
    if (size < HEAD) return;
    const request_t request = read_request(data);
    const size_t n = size - HEAD;
    uint8_t *bytes = copy_of(data + HEAD, n);
    hirl_mem_reset_peak();
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    switch (request.kind) {
        case KIND_JPEG:
        case KIND_WEBP:
        case KIND_PNG: fuzz_encoded(&request, bytes, n); break;
        case KIND_RAW: fuzz_raw(&request, bytes, n); break;
        case KIND_EXIF: fuzz_exif(&request, bytes, n); break;
        case KIND_TURN: fuzz_turn(&request, bytes, n); break;
        case KIND_CLIP: fuzz_clip(&request, bytes, n); break;
        default: fuzz_draw(&request, bytes, n);
    }
    // The whole and a part; when packing, the picture, turned, and in single precision to resize it.
    const size_t peak = hirl_mem_peak(HIRL_MEM_KIND_COUNT) - held;
    FUZZ_CHECK(peak <= 16 * fuzz_pixel_bytes(n) + (1 << 20) || fuzz_unbounded_pixels(bytes, n) > 0,
               "%zu bytes for a sample of %zu", peak, n);
    free(bytes);
}

static void fuzz_begin(void) {
    FUZZ_CHECK(hirl_world_create(NULL, NULL, &world) == HIRL_OK, "no world");
    hirl_log_setup(HIRL_LOG_ERROR, 0);
}

// ------------------------------------------------------------------------------------ seeds

typedef struct jpeg_kind {
    const char *name;
    int channels, h, v; // of the first component; the others are sampled once
    int restart;
    bool is_arithmetic, is_progressive;
    const jpeg_scan_info *scan;
    int n_scans, width;
} jpeg_kind_t;

// Scans that leave the picture unfinished: the decoder guesses what is missing from the blocks around.
static const jpeg_scan_info first_scans[] = {{3, {0, 1, 2}, 0, 0, 0, 1}, {1, {0}, 1, 5, 0, 2}},
                            one_by_one[] = {{1, {0}, 0, 63, 0, 0},
                                            {1, {1}, 0, 63, 0, 0},
                                            {1, {2}, 0, 63, 0, 0}};
static const jpeg_kind_t jpeg_kinds[] = {
    {"444", 3, 1, 1, 0, false, false, NULL, 0, 72},
    {"422", 3, 2, 1, 0, false, false, NULL, 0, 72},
    {"420", 3, 2, 2, 0, false, false, NULL, 0, 72},
    {"440", 3, 1, 2, 0, false, false, NULL, 0, 72},
    {"411", 3, 4, 1, 0, false, false, NULL, 0, 72},
    {"gray", 1, 1, 1, 0, false, false, NULL, 0, 72},
    {"cmyk", 4, 1, 1, 0, false, false, NULL, 0, 40},
    {"restart", 3, 2, 2, 2, false, false, NULL, 0, 72},
    {"progressive", 3, 2, 2, 0, false, true, NULL, 0, 72},
    {"unfinished", 3, 2, 2, 0, false, true, first_scans, 2, 200},
    {"one_by_one", 3, 2, 2, 0, false, false, one_by_one, 3, 72},
    {"arithmetic", 3, 2, 2, 0, true, false, NULL, 0, 72},
    {"arithmetic_progressive", 3, 2, 2, 0, true, true, NULL, 0, 72},
};

// A picture of `width` x 40 pixels: several blocks in all directions.
static size_t make_jpeg(const jpeg_kind_t *kind, int width, const uint8_t *exif, size_t n_exif,
                        uint8_t *out, size_t room) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = out;
    unsigned long size = room;
    uint8_t row[200 * 4];
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = (JDIMENSION)width;
    jpeg.image_height = 40;
    jpeg.input_components = kind->channels;
    jpeg.in_color_space = kind->channels == 1   ? JCS_GRAYSCALE
                          : kind->channels == 3 ? JCS_RGB
                                                : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 30, TRUE);
    jpeg.comp_info[0].h_samp_factor = kind->h;
    jpeg.comp_info[0].v_samp_factor = kind->v;
    jpeg.restart_interval = (unsigned)kind->restart;
    jpeg.arith_code = kind->is_arithmetic;
    jpeg.optimize_coding = !kind->is_arithmetic;
    if (kind->is_progressive) jpeg_simple_progression(&jpeg);
    if (kind->scan) {
        jpeg.scan_info = kind->scan;
        jpeg.num_scans = kind->n_scans;
    }
    jpeg_start_compress(&jpeg, TRUE);
    if (exif) jpeg_write_marker(&jpeg, JPEG_APP0 + 1, exif, (unsigned)n_exif);
    for (int y = 0; y < 40; y++) {
        for (int x = 0; x < width; x++) {
            for (int c = 0; c < kind->channels; c++)
                row[x * kind->channels + c] =
                    (uint8_t)(x * (3 + c) + y * (5 - c) + (x / 9 + y / 7) % 2 * 60);
        }
        JSAMPROW rows[] = {row};
        (void)jpeg_write_scanlines(&jpeg, rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    FUZZ_CHECK(bytes == out && size <= room, "a seed of %lu bytes", size);
    return size;
}

static void save(const char *name, const uint8_t head[HEAD], const uint8_t *bytes, size_t size) {
    uint8_t *seed = malloc(HEAD + size);
    FUZZ_CHECK(seed, "no memory");
    memcpy(seed, head, HEAD);
    memcpy(seed + HEAD, bytes, size);
    fuzz_save_seed(name, seed, HEAD + size);
    free(seed);
}

static void write_jpegs(void) {
    uint8_t bytes[4096];
    char name[64];
    for (size_t k = 0; k < sizeof jpeg_kinds / sizeof *jpeg_kinds; k++) {
        const size_t size =
            make_jpeg(&jpeg_kinds[k], jpeg_kinds[k].width, NULL, 0, bytes, sizeof bytes);
        // A part of 10 x 8 pixels in the middle, in various channels; some are shrunk.
        const uint8_t head[HEAD] = {
            KIND_JPEG, (uint8_t)(HAS_WINDOW | (k % 4) | (k % 5 == 4 ? 4 : 0)), 100, 120, 50, 30};
        snprintf(name, sizeof name, "jpeg_%s", jpeg_kinds[k].name);
        save(name, head, bytes, size);
    }
    // Turned without loss (whole blocks), turned anew, resized.
    for (int k = 0; k < 3; k++) {
        const uint8_t exif[] = {'E', 'x', 'i', 'f', 0,  0, 'M', 'M', 0, 42, 0, 0, 0,
                                8,   0,   1,   1,   18, 0, 3,   0,   0, 0,  1, 0, (uint8_t)(k + 5),
                                0,   0,   0,   0,   0,  0};
        const size_t size =
            make_jpeg(&jpeg_kinds[0], k == 1 ? 70 : 72, exif, sizeof exif, bytes, sizeof bytes);
        const uint8_t head[HEAD] = {KIND_TURN, 0, k == 2 ? 24 : 0, 0, 0, 0};
        snprintf(name, sizeof name, "turn_%d", k);
        save(name, head, bytes, size);
    }
}

static void write_pngs(void) {
    static const char *const names[] = {"bilevel", "gray2",     "gray4_interlaced",
                                        "gray16",  "palette",   "rgb_trns",
                                        "rgb16",   "gray_alpha"};
    char path[256], name[64];
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        size_t size = 0;
        snprintf(path, sizeof path, "validation/reference/pack/images/apple/%s.png", names[k]);
        uint8_t *bytes = fuzz_load(path, &size);
        const uint8_t head[HEAD] = {
            KIND_PNG, (uint8_t)(HAS_WINDOW | IS_MENDED | (k % 4)), 60, 90, 120, 60};
        snprintf(name, sizeof name, "png_%s", names[k]);
        save(name, head, bytes, size);
        free(bytes);
    }
}

static void write_webps(void) {
    static const char *const names[] = {"lossless-alpha", "lossy", "lossy-alpha", "animation"};
    char path[256], name[64];
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        size_t size = 0;
        snprintf(path, sizeof path, "validation/reference/pack/webp/%s.webp", names[k]);
        uint8_t *bytes = fuzz_load(path, &size);
        const uint8_t head[HEAD] = {KIND_WEBP, (uint8_t)(HAS_WINDOW | k), 60, 90, 120, 60};
        snprintf(name, sizeof name, "webp_%s", names[k]);
        save(name, head, bytes, size);
        free(bytes);
    }
}

static void write_others(void) {
    uint8_t raw[3 + 5 * 4 * 3] = {5, 4, 3}, clip[2048], bytes[1024];
    const uint8_t raw_head[HEAD] = {KIND_RAW, HAS_WINDOW | 2, 60, 90, 120, 60},
                  clip_head[HEAD] = {KIND_CLIP, HAS_WINDOW | IS_MENDED, 100, 120, 50, 30},
                  draw_head[HEAD] = {KIND_DRAW, 3, 16, 4, 100, 0};
    for (size_t i = 3; i < sizeof raw; i++) raw[i] = (uint8_t)(i * 37);
    save("raw", raw_head, raw, sizeof raw);
    static const uint8_t tiff[2][28] = {
        {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0},
        {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 4, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0}};
    for (int k = 0; k < 2; k++) {
        const uint8_t head[HEAD] = {KIND_EXIF, IS_MENDED, 0, 0, 0, 0};
        save(k ? "exif_big" : "exif_little", head, tiff[k], sizeof tiff[k]);
    }
    const size_t size = make_jpeg(&jpeg_kinds[5], 72, NULL, 0, bytes, sizeof bytes);
    const int64_t sizes[] = {(int64_t)size, (int64_t)size};
    const size_t index = hirl_frames_index_size(2);
    FUZZ_CHECK(hirl_frames_write_index(sizes, 2, 40, 72, clip) == HIRL_OK, "no index");
    memcpy(clip + index, bytes, size);
    memcpy(clip + index + size, bytes, size);
    save("clip", clip_head, clip, index + 2 * size);
    save("draw", draw_head, (const uint8_t *)"clip-3/img_00012.jpg", 20);
}

static void fuzz_write_seeds(void) {
    write_jpegs();
    write_pngs();
    write_webps();
    write_others();
}
