// Videos as folders of frames: each folder that holds numbered images is one sample, called by its
// path, and its class is up to pack_entries.c as if that path were an image's. Frames follow the
// last numbers in their names, those of the same number their names; gaps do not matter, and images
// without a number are left out. Only the folders are known to all ranks: frames are listed when a
// video is checked and again when it is written, and its checksum tells if they have changed since.
#include "data_impl.h"
#include "hirl/data_clip.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// -------------------------------------------------------------------------------------- one video

typedef struct frame {
    int64_t number;
    int64_t name; // position in the list's text
} frame_t;

typedef struct frame_list {
    char *text; // names of the files, NUL-terminated
    int64_t n_text, text_capacity;
    frame_t *frame;
    int64_t n, capacity;
    int64_t *size; // [n] bytes
    int64_t n_left_out;
} frame_list_t;

static void frame_list_reset(frame_list_t *list) {
    hirl_mem_free(list->text);
    hirl_mem_free(list->frame);
    hirl_mem_free(list->size);
}

static int compare_frames(const void *a_p, const void *b_p, void *text) {
    const frame_t *a = a_p, *b = b_p;
    if (a->number != b->number) return a->number < b->number ? -1 : 1;
    return strcmp((const char *)text + a->name, (const char *)text + b->name);
}

static hirl_status_t add_frame(void *ctx, const char *name, bool is_folder) {
    frame_list_t *list = ctx;
    const int64_t length = (int64_t)strlen(name) + 1;
    int64_t number;
    if (is_folder || !hirl_pack_is_image_name(name)) return HIRL_OK;
    if (!hirl_frame_number(name, &number)) {
        list->n_left_out++;
        return HIRL_OK;
    }
    HIRL_REQUIRE(list->n < HIRL_FRAMES_MAX, HIRL_ERR_FORMAT, "more than %d frames",
                 HIRL_FRAMES_MAX);
    HIRL_TRY(hirl_pack_grow(&list->text, &list->text_capacity, list->n_text + length, 1));
    HIRL_TRY(hirl_pack_grow(&list->frame, &list->capacity, list->n + 1, sizeof *list->frame));
    memcpy(list->text + list->n_text, name, (size_t)length);
    list->frame[list->n++] = (frame_t){number, list->n_text};
    list->n_text += length;
    return HIRL_OK;
}

static hirl_status_t list_frames(const char *folder, frame_list_t *list) {
    HIRL_TRY(hirl_pack_list(folder, add_frame, list));
    HIRL_REQUIRE(list->n > 0, HIRL_ERR_FORMAT,
                 "no frames: it holds no file .png, .jpg, .jpeg or .webp whose name has a number "
                 "(%lld without)",
                 (long long)list->n_left_out);
    qsort_r(list->frame, (size_t)list->n, sizeof *list->frame, compare_frames, list->text);
    return HIRL_ALLOC(HIRL_MEM_DATA, list->n, &list->size);
}

// Room for `size` bytes; what is there stays.
static hirl_status_t grow(hirl_buffer_t *buffer, size_t size) {
    if (size <= buffer->size) return HIRL_OK;
    const size_t grown = buffer->size + buffer->size / 2, wanted = size > grown ? size : grown;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_DATA, wanted, (void **)&buffer->data));
    buffer->size = wanted;
    return HIRL_OK;
}

// Reads one frame behind the `used` bytes of the buffer.
static hirl_status_t append_frame(const char *folder, const char *name, hirl_buffer_t *buffer,
                                  size_t used, int64_t *size_p) {
    char path[PATH_MAX];
    int fd = -1;
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", folder, name));
    HIRL_TRY(hirl_pack_open_image(path, &fd, size_p));
    hirl_status_t status = HIRL_OK;
    if (used + (size_t)*size_p > HIRL_IMAGE_BYTES_MAX)
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "up to this frame the video has %zu bytes, at most %zu are allowed: "
                           "cut it into several folders",
                           used + (size_t)*size_p, HIRL_IMAGE_BYTES_MAX);
    if (status == HIRL_OK) status = grow(buffer, used + (size_t)*size_p);
    if (status == HIRL_OK)
        status = hirl_file_read_at(fd, NULL, 0, buffer->data + used, (size_t)*size_p);
    close(fd);
    return status;
}

// All frames back to back, behind room for their index.
static hirl_status_t load_frames(const char *folder, frame_list_t *list, hirl_buffer_t *buffer,
                                 int64_t *size_p) {
    HIRL_TRY(list_frames(folder, list));
    size_t used = hirl_frames_index_size(list->n);
    HIRL_TRY(grow(buffer, used));
    for (int64_t i = 0; i < list->n; i++) {
        const char *name = list->text + list->frame[i].name;
        HIRL_TRY(hirl_pack_heed_signals());
        const hirl_status_t status = append_frame(folder, name, buffer, used, &list->size[i]);
        HIRL_REQUIRE(status == HIRL_OK, status, "%s: %s", name, hirl_error_text_view());
        used += (size_t)list->size[i];
    }
    *size_p = (int64_t)used;
    return HIRL_OK;
}

static hirl_status_t decode_frame(const uint8_t *bytes, int64_t size, hirl_buffer_t *buffer,
                                  hirl_image_t *image) {
    hirl_sample_t sample = {.bytes = bytes, .size = (size_t)size};
    HIRL_REQUIRE(hirl_image_sniff(bytes, sample.size, &sample.encoding), HIRL_ERR_FORMAT,
                 "none of JPEG, PNG and WebP: %lld bytes that begin with %02x %02x %02x",
                 (long long)size, bytes[0], size > 1 ? bytes[1] : 0, size > 2 ? bytes[2] : 0);
    return hirl_image_decode(&sample, 0, buffer, image);
}

// All frames have the first one's sides. Grey ones among others do not matter.
static hirl_status_t check_frames(const frame_list_t *list, hirl_pack_scratch_t *scratch,
                                  hirl_pack_item_t *item) {
    const uint8_t *bytes = scratch->encoded.data + hirl_frames_index_size(list->n);
    item->channels = 0;
    for (int64_t i = 0; i < list->n; i++) {
        const char *name = list->text + list->frame[i].name;
        hirl_image_t image = {0};
        HIRL_TRY(hirl_pack_heed_signals());
        const hirl_status_t status = decode_frame(bytes, list->size[i], &scratch->decoded, &image);
        HIRL_REQUIRE(status == HIRL_OK, status, "%s: %s", name, hirl_error_text_view());
        if (i == 0) {
            item->height = image.height;
            item->width = image.width;
        }
        HIRL_REQUIRE(image.height == item->height && image.width == item->width, HIRL_ERR_FORMAT,
                     "%s is %d x %d pixels, the first frame (%s) %d x %d; all must be alike", name,
                     image.width, image.height, list->text + list->frame[0].name, item->width,
                     item->height);
        if (image.channels > item->channels) item->channels = image.channels;
        bytes += list->size[i];
    }
    return HIRL_OK;
}

hirl_status_t hirl_pack_check_video(const char *folder, hirl_pack_scratch_t *scratch,
                                    hirl_pack_item_t *item) {
    frame_list_t list = {0};
    hirl_pack_item_t made = *item;
    int64_t size = 0;
    hirl_status_t status;
    HIRL_TRY_GOTO(load_frames(folder, &list, &scratch->encoded, &size), status, done);
    HIRL_TRY_GOTO(check_frames(&list, scratch, &made), status, done);
    HIRL_TRY_GOTO(
        hirl_frames_write_index(list.size, list.n, made.height, made.width, scratch->encoded.data),
        status, done);
    made.size = size;
    made.n_source = list.n;
    made.checksum = hirl_hash64(scratch->encoded.data, (size_t)size);
    made.encoding = HIRL_ENCODING_FRAMES;
    made.made = HIRL_PACK_KEPT;
    made.is_good = 1;
    *item = made;
done:
    frame_list_reset(&list);
    return status;
}

hirl_status_t hirl_pack_read_video(const char *folder, const hirl_pack_item_t *item,
                                   hirl_pack_scratch_t *scratch, int64_t *size_p) {
    frame_list_t list = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(load_frames(folder, &list, &scratch->encoded, size_p), status, done);
    status = hirl_frames_write_index(list.size, list.n, item->height, item->width,
                                     scratch->encoded.data);
done:
    frame_list_reset(&list);
    return status;
}

// -------------------------------------------------------------------------------------- all videos

typedef struct scan {
    const char *root;
    hirl_pack_entries_t entries;
    int64_t n_videos, n_frames, n_left_out; // images without a number
    hirl_pack_progress_t progress;
} scan_t;

static hirl_status_t take_file(void *ctx, const char *path, const char *name, bool *is_taken_p) {
    scan_t *scan = ctx;
    int64_t number;
    (void)path;
    if (!hirl_pack_is_image_name(name)) return HIRL_OK;
    *is_taken_p = hirl_frame_number(name, &number);
    scan->n_left_out += !*is_taken_p;
    return HIRL_OK;
}

// A folder that holds neither frames nor folders is taken for a video that has lost its frames, and
// will be reported as one.
static hirl_status_t take_folder(void *ctx, const char *path, bool is_root, int64_t n_taken,
                                 int64_t n_folders) {
    scan_t *scan = ctx;
    HIRL_REQUIRE(!is_root || n_taken == 0, HIRL_ERR_FORMAT,
                 "pack%%source: %s holds %lld frames itself, expected a folder of each video in "
                 "it: name the folder above",
                 scan->root, (long long)n_taken);
    if (is_root || (n_taken == 0 && n_folders > 0)) return HIRL_OK;
    scan->n_frames += n_taken;
    scan->n_videos += n_taken > 0;
    hirl_pack_progress_update(&scan->progress, scan->n_videos);
    return hirl_pack_entries_add(&scan->entries, path, strlen(path), NULL);
}

hirl_status_t hirl_pack_find_frames(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    HIRL_REQUIRE(hirl_pack_is_folder(cfg->source), HIRL_ERR_IO,
                 "pack%%source: %s is not a folder, which those of the videos lie in", cfg->source);
    HIRL_REQUIRE(cfg->max_side == 0, HIRL_ERR_DECK,
                 "pack%%max_side is %lld, and frames are kept byte for byte: leave it out, and "
                 "make the frames smaller when they are taken from the videos",
                 (long long)cfg->max_side);
    HIRL_TRY(hirl_text_format(source->root, sizeof source->root, "%s", cfg->source));
    scan_t scan = {.root = source->root};
    const hirl_pack_walk_t walk = {
        .root = source->root, .ctx = &scan, .file = take_file, .folder = take_folder};
    hirl_pack_progress_begin(&scan.progress, "pack: list", 0);
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_pack_walk(&walk), status, done);
    if (scan.n_left_out) {
        hirl_log_root(HIRL_LOG_INFO,
                      "pack: %lld images of %s have no number in their names and are left out",
                      (long long)scan.n_left_out, scan.root);
    }
    if (scan.n_videos == 0) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "pack%%source: %s holds no folder of numbered frames (.png, .jpg, "
                           ".jpeg or .webp)",
                           scan.root);
        goto done;
    }
    hirl_log_root(HIRL_LOG_INFO, "pack: %lld videos with %lld frames were found",
                  (long long)scan.n_videos, (long long)scan.n_frames);
    HIRL_TRY_GOTO(hirl_pack_entries_label(cfg, scan.root, &scan.entries, source), status, done);
    status = hirl_pack_entries_deliver(&scan.entries, source);
done:
    hirl_pack_progress_end(&scan.progress);
    hirl_pack_entries_reset(&scan.entries);
    return status;
}
