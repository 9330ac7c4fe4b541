// IDX files (the MNIST family): one file of images, u8 [n, height, width], and one of labels, u8
// [n], each with a big-endian header, gzip or not. Found by their usual names, or given as the file
// of images.
#include "data_impl.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { MAGIC_IMAGES = 0x803, MAGIC_LABELS = 0x801, HEADER_IMAGES = 16, HEADER_LABELS = 8 };
// Bytes that gzip makes of one at most, so that a small file cannot ask for much memory.
enum { DEFLATE_RATIO_MAX = 1032 };

// "train-images-idx3-ubyte", also with a dot before idx3 as some archives have it.
static const char *const spellings[] = {"%s/%s-images-idx3-ubyte", "%s/%s-images-idx3-ubyte.gz",
                                        "%s/%s-images.idx3-ubyte", "%s/%s-images.idx3-ubyte.gz"};
enum { N_SPELLINGS = sizeof spellings / sizeof *spellings };

static bool find_images(const char *folder, const char *prefix, char path[PATH_MAX]) {
    for (int s = 0; s < N_SPELLINGS; s++) {
        if (hirl_text_format(path, PATH_MAX, spellings[s], folder, prefix) == HIRL_OK &&
            hirl_pack_is_file(path)) {
            return true;
        }
    }
    return false;
}

static const char *file_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool hirl_pack_is_idx(const char *path) {
    char found[PATH_MAX];
    if (hirl_pack_is_file(path)) return strstr(file_name(path), "idx3-ubyte") != NULL;
    return find_images(path, "train", found) || find_images(path, "t10k", found);
}

static hirl_status_t choose_images(const hirl_pack_cfg_t *cfg, char path[PATH_MAX]) {
    if (hirl_pack_is_file(cfg->source)) return hirl_text_format(path, PATH_MAX, "%s", cfg->source);
    HIRL_REQUIRE(hirl_pack_is_folder(cfg->source), HIRL_ERR_IO, "pack%%source: %s does not exist",
                 cfg->source);
    bool is_test = false;
    HIRL_TRY(hirl_pack_split_is_test(cfg, &is_test));
    const char *prefix = is_test ? "t10k" : "train";
    HIRL_REQUIRE(find_images(cfg->source, prefix, path), HIRL_ERR_IO,
                 "pack%%source: %s has no file %s-images-idx3-ubyte or %s-images-idx3-ubyte.gz",
                 cfg->source, prefix, prefix);
    return HIRL_OK;
}

// The file of labels has the name of the images' with two words changed; gzip or not on its own.
// An empty path means that there is none.
static hirl_status_t choose_labels(const char *images, char path[PATH_MAX]) {
    const char *name = file_name(images), *word = strstr(name, "images"),
               *kind = word ? strstr(word, "idx3") : NULL;
    path[0] = '\0';
    if (!kind) return HIRL_OK;
    const char *tail = kind + 4;
    size_t length = strlen(tail);
    if (length >= 3 && strcmp(tail + length - 3, ".gz") == 0) length -= 3;
    for (int is_gzip = 0; is_gzip < 2; is_gzip++) {
        HIRL_TRY(hirl_text_format(path, PATH_MAX, "%.*slabels%.*sidx1%.*s%s", (int)(word - images),
                                  images, (int)(kind - word - 6), word + 6, (int)length, tail,
                                  is_gzip ? ".gz" : ""));
        if (hirl_pack_is_file(path)) return HIRL_OK;
    }
    path[0] = '\0';
    return HIRL_OK;
}

static uint32_t big_endian(const uint8_t *b) {
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

// Reads and checks the header of the images.
static hirl_status_t read_header(const char *path, int64_t dims[3]) {
    gzFile stream = gzopen(path, "rb");
    HIRL_REQUIRE(stream, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    uint8_t header[HEADER_IMAGES];
    hirl_status_t status = hirl_pack_inflate(stream, path, HEADER_IMAGES, header);
    gzclose(stream);
    HIRL_TRY(status);
    uint32_t magic = big_endian(header);
    HIRL_REQUIRE(
        magic == MAGIC_IMAGES, HIRL_ERR_FORMAT,
        "%s: begins with 0x%08x, expected 0x%08x (u8 of three dimensions): no IDX file of images",
        path, magic, MAGIC_IMAGES);
    for (int d = 0; d < 3; d++) dims[d] = big_endian(header + 4 + 4 * d);
    HIRL_REQUIRE(dims[0] >= 1 && dims[0] <= INT32_MAX, HIRL_ERR_FORMAT,
                 "%s: header says %lld images", path, (long long)dims[0]);
    HIRL_REQUIRE(dims[1] >= 1 && dims[2] >= 1 && dims[1] <= HIRL_IMAGE_SIDE_MAX &&
                     dims[2] <= HIRL_IMAGE_SIDE_MAX &&
                     (uint64_t)dims[1] * (uint64_t)dims[2] <= HIRL_IMAGE_BYTES_MAX,
                 HIRL_ERR_FORMAT,
                 "%s: header says images of %lld x %lld pixels, expected sides of 1 to %d", path,
                 (long long)dims[2], (long long)dims[1], HIRL_IMAGE_SIDE_MAX);
    struct stat found;
    HIRL_REQUIRE(stat(path, &found) == 0, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    HIRL_REQUIRE(
        dims[0] * dims[1] * dims[2] / DEFLATE_RATIO_MAX <= (int64_t)found.st_size, HIRL_ERR_FORMAT,
        "%s: header says %lld images of %lld x %lld pixels, %lld bytes cannot hold them: "
        "get it again",
        path, (long long)dims[0], (long long)dims[2], (long long)dims[1], (long long)found.st_size);
    return HIRL_OK;
}

static hirl_status_t read_labels(const char *path, const char *images, hirl_pack_source_t *source) {
    gzFile stream = gzopen(path, "rb");
    HIRL_REQUIRE(stream, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    uint8_t header[HEADER_LABELS], *label = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_pack_inflate(stream, path, HEADER_LABELS, header), status, done);
    uint32_t magic = big_endian(header), n = big_endian(header + 4);
    if (magic != MAGIC_LABELS) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "%s: begins with 0x%08x, expected 0x%08x (u8 of one dimension): no IDX "
                           "file of labels",
                           path, magic, MAGIC_LABELS);
    } else if (n != source->n) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s has %u labels, %s has %lld images", path, n, images,
                           (long long)source->n);
    }
    if (status != HIRL_OK) goto done;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, source->n, &label), status, done);
    HIRL_TRY_GOTO(hirl_pack_inflate(stream, path, source->n, label), status, done);
    HIRL_TRY_GOTO(hirl_pack_inflate_end(stream, path, HEADER_LABELS + source->n), status, done);
    for (int64_t i = 0; i < source->n; i++) source->item[i].label = label[i];
done:
    hirl_mem_free(label);
    gzclose(stream);
    return status;
}

hirl_status_t hirl_pack_find_idx(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    char images[PATH_MAX], labels[PATH_MAX];
    int64_t dims[3];
    HIRL_TRY(choose_images(cfg, images));
    HIRL_TRY(choose_labels(images, labels));
    HIRL_TRY(read_header(images, dims));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &source->file));
    source->n_files = 1;
    memcpy(source->file[0].path, images, sizeof images);
    source->file[0].skip = HEADER_IMAGES;
    source->file[0].size = dims[0] * dims[1] * dims[2]; // < 2^31 2^30
    source->stride = dims[1] * dims[2];
    HIRL_TRY(hirl_pack_allocate_records(source));
    for (int64_t i = 0; i < source->n; i++) {
        source->item[i] = (hirl_pack_item_t){.size = source->stride,
                                             .height = (int32_t)dims[1],
                                             .width = (int32_t)dims[2],
                                             .channels = 1,
                                             .label = -1,
                                             .encoding = HIRL_ENCODING_RAW,
                                             .is_good = 1};
    }
    if (labels[0]) return read_labels(labels, images, source);
    hirl_log_root(HIRL_LOG_WARN,
                  "pack: %s has no file of labels beside it, its samples are packed without",
                  images);
    return HIRL_OK;
}
