// Fuzz target: shards and the images in them. An input that begins like an HDF5 file is one; one that
// begins like a PNG or JPEG file is decoded; anything else is a description (fuzz_h5.h) of how a shard
// differs from a good one. What is opened is described and read to its last sample, mapped or by
// pread, and every image is decoded.
#include "fuzz_h5.h"
#include "fuzz_picture.h"

#include <png.h>
#include <turbojpeg.h>

#include "hirl/data_clip.h"

enum { DECODED_MAX = 8, IMAGE_MAX = 1024 };

static hirl_world_t *world;
static fuzz_file_t good;
static uint8_t png[IMAGE_MAX], jpeg[IMAGE_MAX];
static size_t png_size, jpeg_size;

// ------------------------------------------------------------------------------------ good files

static void make_images(void) {
    uint8_t pixels[8 * 8 * 3];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37);
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = 4, .height = 4, .format = PNG_FORMAT_RGB};
    png_alloc_size_t n_png = sizeof png;
    FUZZ_CHECK(png_image_write_to_memory(&image, png, &n_png, 0, pixels, 0, NULL), "no PNG");
    png_size = n_png;
    tjhandle handle = tjInitCompress();
    unsigned char *out = jpeg;
    unsigned long n_jpeg = sizeof jpeg;
    FUZZ_CHECK(handle && tjCompress2(handle, pixels, 8, 0, 8, TJPF_RGB, &out, &n_jpeg, TJSAMP_420,
                                     50, TJFLAG_NOREALLOC) == 0,
               "no JPEG: %s", tjGetErrorStr2(handle));
    jpeg_size = n_jpeg;
    tjDestroy(handle);
}

static void add(const char *name, fuzz_type_t type, int n, const int64_t *item) {
    fuzz_object_t *object = &good.object[good.n_objects++];
    *object = (fuzz_object_t){.name = name, .type = type, .n_axes = 1, .shape = {n}, .chunk = 2};
    for (int i = 1; i < FUZZ_AXES_MAX; i++) object->shape[i] = 1;
    for (int i = 0; item && i < n; i++) object->item[i] = item[i];
}

static fuzz_object_t *last(void) { return &good.object[good.n_objects - 1]; }

// Two images of a kind: raw ones of 2 x 3 and 2 x 2 x 3 pixels, or a JPEG and a PNG.
static void make_good(bool is_raw) {
    memset(&good, 0, sizeof good);
    const int64_t a = is_raw ? 6 : (int64_t)jpeg_size, b = is_raw ? 12 : (int64_t)png_size;
    const int64_t offset[] = {0, a, a + b}, height[] = {2, 2}, width[] = {3, 2},
                  channels[] = {1, 3}, label[] = {0, 2}, parent[] = {2, 2, -1},
                  name_offset[] = {0, 1, 2}, side[] = {8, 4}, colour[] = {3, 3};
    int64_t checksum[2];
    for (int i = 0; i < 18; i++) good.room[i] = (uint8_t)(i * 14);
    if (!is_raw) {
        memcpy(good.room, jpeg, jpeg_size);
        memcpy(good.room + jpeg_size, png, png_size);
    }
    checksum[0] = (int64_t)hirl_hash64(good.room, (size_t)a);
    checksum[1] = (int64_t)hirl_hash64(good.room + a, (size_t)b);
    add("/data", FUZZ_U8, (int)(a + b), NULL);
    last()->bytes = good.room;
    last()->n_bytes = sizeof good.room;
    add("/offset", FUZZ_I64, 3, offset);
    add("/height", FUZZ_I32, 2, is_raw ? height : side);
    add("/width", FUZZ_I32, 2, is_raw ? width : side);
    add("/channels", FUZZ_I32, 2, is_raw ? channels : colour);
    add("/label", FUZZ_I32, 2, label);
    add("/checksum", FUZZ_U64, 2, checksum);
    add("/name", FUZZ_U8, 2, NULL);
    last()->bytes = "ab";
    last()->n_bytes = 2;
    add("/name_offset", FUZZ_I64, 3, name_offset);
    add("/class_name", FUZZ_TEXT, 3, NULL);
    last()->bytes = "cat\0dogspet\0";
    last()->n_bytes = 12;
    last()->width = 4;
    add("/class_parent", FUZZ_I32, 3, parent);
    const fuzz_attribute_t attribute[] = {
        {"format", "hirl-shard", 0, FUZZ_TEXT, 0, 1, false},
        {"version", NULL, 1, FUZZ_I32, 0, 1, false},
        {"split", "train", 0, FUZZ_TEXT, 0, 1, false},
        {"n_samples", NULL, 2, FUZZ_I64, 0, 1, false},
        {"encoding", is_raw ? "raw" : "mixed", 0, FUZZ_TEXT, 0, 1, false},
        {"n_shards", NULL, 1, FUZZ_I64, 0, 1, false}};
    good.n_attributes = (int)(sizeof attribute / sizeof *attribute);
    memcpy(good.attribute, attribute, sizeof attribute);
}

// Two videos of one frame, the JPEG and the PNG.
static void make_videos(void) {
    make_good(false);
    const int64_t sizes[] = {(int64_t)jpeg_size, (int64_t)png_size};
    const size_t index = hirl_frames_index_size(1), second = index + jpeg_size;
    FUZZ_CHECK(hirl_frames_write_index(&sizes[0], 1, 8, 8, good.room) == HIRL_OK &&
                   hirl_frames_write_index(&sizes[1], 1, 4, 4, good.room + second) == HIRL_OK,
               "no index");
    memcpy(good.room + index, jpeg, jpeg_size);
    memcpy(good.room + second + index, png, png_size);
    fuzz_object_t *data = &good.object[0], *offset = &good.object[1], *checksum = &good.object[6];
    data->shape[0] = (int64_t)(second + index + png_size);
    offset->item[1] = (int64_t)second;
    offset->item[2] = data->shape[0];
    checksum->item[0] = (int64_t)hirl_hash64(good.room, second);
    checksum->item[1] = (int64_t)hirl_hash64(good.room + second, index + png_size);
    good.attribute[4].text = "frames";
}

// ------------------------------------------------------------------------------------ reading

// Decoding may ask for what the pixels of a file of that size can need at most, and no more.
static void decode(const hirl_sample_t *sample, int channels) {
    hirl_buffer_t buffer = {0};
    hirl_image_t image;
    const hirl_status_t status = hirl_image_decode(sample, channels, &buffer, &image);
    if (status == HIRL_OK) {
        const size_t n = (size_t)image.height * (size_t)image.width * (size_t)image.channels;
        FUZZ_CHECK(n <= buffer.size && image.pixels == buffer.data, "an image outside its buffer");
        FUZZ_CHECK(channels == 0 || image.channels == channels, "%d channels", image.channels);
        (void)hirl_hash64(image.pixels, n);
    } else {
        fuzz_check_refusal(status);
    }
    FUZZ_CHECK(buffer.size <= fuzz_pixel_bytes(sample->size) ||
                   fuzz_unbounded_pixels(sample->bytes, sample->size) > 0,
               "%zu bytes to decode %zu", buffer.size, sample->size);
    hirl_buffer_reset(&buffer);
}

static void decode_image(const uint8_t *data, size_t size, hirl_encoding_t encoding) {
    uint8_t *copy = malloc(size);
    FUZZ_CHECK(copy, "no memory");
    memcpy(copy, data, size);
    if (encoding == HIRL_ENCODING_PNG) fuzz_mend_png(copy, size);
    const hirl_sample_t sample = {.bytes = copy, .size = size, .encoding = encoding};
    decode(&sample, size % 4 == 3 ? 3 : size % 4 == 1);
    free(copy);
}

// All frames of a video, if its index is believed.
static void decode_video(const hirl_sample_t *sample) {
    hirl_frames_t frames;
    hirl_sample_t frame;
    hirl_status_t status = hirl_frames_read_index(sample->bytes, sample->size, &frames);
    if (status != HIRL_OK) fuzz_check_refusal(status);
    for (int64_t i = 0; status == HIRL_OK && i < frames.n && i < DECODED_MAX; i++) {
        if (hirl_frames_sample(&frames, i, &frame) == HIRL_OK)
            decode(&frame, 3);
        else
            fuzz_check_refusal(HIRL_ERR_FORMAT);
    }
}

static void read_samples(const hirl_shard_set_t *set, bool is_verified) {
    const int64_t n = hirl_shard_set_n_samples(set);
    hirl_buffer_t buffer = {0};
    FUZZ_CHECK(n >= 1, "a set of %lld samples", (long long)n);
    for (int64_t i = 0; i < n; i++) {
        hirl_sample_t sample;
        const hirl_status_t status = hirl_shard_set_read(set, i, &buffer, &sample);
        if (status != HIRL_OK) {
            fuzz_check_refusal(status);
            continue;
        }
        // All of it is touched, whether or not the set has done so.
        if (!is_verified) (void)hirl_hash64(sample.bytes, sample.size);
        if (sample.encoding == HIRL_ENCODING_FRAMES) {
            decode_video(&sample);
            continue;
        }
        for (int channels = 0; channels <= 3 && i < DECODED_MAX; channels += channels ? 2 : 1)
            decode(&sample, channels);
    }
    for (int row = -1; row <= hirl_shard_set_n_class_names(set); row++) {
        (void)strlen(hirl_shard_set_class_name_view(set, row));
        (void)hirl_shard_set_class_parent(set, row);
    }
    hirl_buffer_reset(&buffer);
}

// `variant`: mapped or by pread, verified or not; one for each input, since opening is slow.
static void open_shard(const char *path, size_t file_size, int variant) {
    hirl_data_cfg_t cfg = {.verify = variant % 2 == 0, .channels = variant == 3 ? 0 : 3};
    strcpy(cfg.access, variant < 2 ? "mmap" : "pread");
    hirl_shard_set_t *set = NULL;
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    hirl_mem_reset_peak();
    hirl_status_t status = hirl_shard_set_open(world, path, &cfg, &set);
    const size_t peak = hirl_mem_peak(HIRL_MEM_KIND_COUNT) - held;
    FUZZ_CHECK(peak <= 64 * file_size + (1 << 20), "%zu bytes to open a file of %zu", peak,
               file_size);
    if (status == HIRL_OK) {
        read_samples(set, cfg.verify);
        hirl_shard_set_close(&set);
    } else {
        fuzz_check_refusal(status);
        FUZZ_CHECK(!set, "a set in spite of a failure");
    }
    hirl_text_t text = {0};
    status = hirl_shard_describe(path, &text);
    if (status == HIRL_OK) {
        FUZZ_CHECK(fuzz_is_printable(text.data, true), "control characters in a description");
        FUZZ_CHECK(text.size <= 64 * file_size + (1 << 16), "a description of %zu bytes",
                   text.size);
    } else {
        fuzz_check_refusal(status);
    }
    hirl_text_reset(&text);
    (void)hirl_shard_is_shard(path);
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const char *path = fuzz_path("shard.h5");
    size_t file_size = size;
    int variant = (int)(size % 4);
    if (size >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff) {
        decode_image(data, size, HIRL_ENCODING_JPEG);
        return;
    }
    if (size >= 4 && memcmp(data, "\x89PNG", 4) == 0) {
        decode_image(data, size, HIRL_ENCODING_PNG);
        return;
    }
    const bool is_image = fuzz_write_image(path, data, size);
    if (!is_image) {
        variant = size > 0 ? data[0] / 2 % 4 : 0;
        make_good(size == 0 || data[0] % 2 == 0);
        for (size_t at = 1; at + 8 <= size; at += 8) fuzz_apply(&good, data + at);
        if (!fuzz_write_file(path, &good)) return;
        free(fuzz_load(path, &file_size));
    }
    open_shard(path, file_size, variant);
}

static void fuzz_begin(void) {
    FUZZ_CHECK(hirl_world_create(NULL, NULL, &world) == HIRL_OK, "no world");
    hirl_log_setup(HIRL_LOG_ERROR, 0);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    make_images();
    // Another file, for links: what it holds must never be read.
    make_good(true);
    FUZZ_CHECK(fuzz_write_file(fuzz_path("other.h5"), &good), "no other file");
    // Mending changes nothing where nothing is broken, or images would not get far.
    size_t size = 0;
    uint8_t *image = fuzz_load(fuzz_path("other.h5"), &size), *copy = malloc(size);
    FUZZ_CHECK(copy, "no memory");
    memcpy(copy, image, size);
    mend_h5(copy, size);
    FUZZ_CHECK(memcmp(copy, image, size) == 0, "mending changes a good file");
    free(copy);
    free(image);
}

static void fuzz_write_seeds(void) {
    size_t size = 0;
    for (int is_raw = 0; is_raw < 2; is_raw++) {
        for (int is_old = 0; is_old < 2; is_old++) {
            make_good(is_raw);
            good.is_old = is_old;
            FUZZ_CHECK(fuzz_write_file(fuzz_path("seed.h5"), &good), "no seed");
            uint8_t *image = fuzz_load(fuzz_path("seed.h5"), &size);
            char name[32];
            snprintf(name, sizeof name, "%s%s.h5", is_raw ? "raw" : "mixed", is_old ? "_old" : "");
            fuzz_save_seed(name, image, size);
            free(image);
        }
    }
    make_videos();
    FUZZ_CHECK(fuzz_write_file(fuzz_path("seed.h5"), &good), "no seed");
    uint8_t *videos = fuzz_load(fuzz_path("seed.h5"), &size);
    fuzz_save_seed("videos.h5", videos, size);
    free(videos);
    fuzz_save_seed("image.png", png, png_size);
    fuzz_save_seed("image.jpg", jpeg, jpeg_size);
    // One record of each operation; the fuzzer puts them together.
    for (int operation = 0; operation < 24; operation++) {
        const uint8_t record[9] = {0, (uint8_t)operation, (uint8_t)operation, 1, 1, 65, 3, 0, 0};
        char name[32];
        snprintf(name, sizeof name, "record_%02d", operation);
        fuzz_save_seed(name, record, sizeof record);
    }
}
