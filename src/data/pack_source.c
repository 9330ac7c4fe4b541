// Sources of pack: which kind it is, the copy of a container that a node shares, and the check of
// every input. Rank 0 alone looks at folders and headers, so that a job of many ranks does not list
// a file system many times over; the others are told. A damaged container (IDX, CIFAR) is an error,
// since nothing in it can be trusted; a damaged image, or a record with an impossible label, is
// skipped and reported.
#include "data_impl.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static const char *const format_texts[HIRL_PACK_FORMAT_COUNT] = {
    "idx",    "cifar10", "cifar100", "folder", "list",   "tar",
    "frames", "cub",     "cars",     "sop",    "inshop", "voc07"};

const char *hirl_pack_format_text(hirl_pack_format_t format) { return format_texts[format]; }

bool hirl_pack_is_folder(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

bool hirl_pack_is_file(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISREG(found.st_mode);
}

hirl_status_t hirl_pack_split_is_test(const hirl_pack_cfg_t *cfg, bool *is_test_p) {
    bool is_test = strcmp(cfg->split, "val") == 0 || strcmp(cfg->split, "test") == 0;
    HIRL_REQUIRE(is_test || strcmp(cfg->split, "train") == 0, HIRL_ERR_DECK,
                 "pack%%split is '%s', and %s has files for 'train', 'val' and 'test' only; name a "
                 "file as pack%%source "
                 "to give its samples another split",
                 cfg->split, cfg->source);
    *is_test_p = is_test;
    return HIRL_OK;
}

hirl_status_t hirl_pack_note_skipped(hirl_text_t *skipped, const char *name, size_t name_size,
                                     const char *reason) {
    size_t begun = skipped->size;
    HIRL_TRY(hirl_text_append(skipped, "%.*s", (int)name_size, name));
    size_t middle = skipped->size;
    HIRL_TRY(hirl_text_append(skipped, "\t%s", reason));
    for (size_t i = begun; i < skipped->size; i++) {
        if (i != middle && iscntrl((unsigned char)skipped->data[i])) skipped->data[i] = '?';
    }
    return hirl_text_append(skipped, "\n");
}

hirl_status_t hirl_pack_make_classes(const char *const *names, int n, hirl_class_table_t *classes) {
    size_t width = 1;
    for (int i = 0; i < n; i++) {
        if (strlen(names[i]) + 1 > width) width = strlen(names[i]) + 1;
    }
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, (size_t)n * width, &classes->name));
    for (int i = 0; i < n; i++)
        memcpy(classes->name + (size_t)i * width, names[i], strlen(names[i]));
    classes->n = n;
    classes->width = (int)width;
    return HIRL_OK;
}

hirl_status_t hirl_pack_add_file(hirl_pack_source_t *source, const char *path,
                                 hirl_pack_file_t **file_p) {
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_DATA, (size_t)(source->n_files + 1) * sizeof *source->file,
                              (void **)&source->file));
    hirl_pack_file_t *file = &source->file[source->n_files];
    memset(file, 0, sizeof *file);
    HIRL_TRY(hirl_text_format(file->path, sizeof file->path, "%s", path));
    source->n_files++;
    *file_p = file;
    return HIRL_OK;
}

hirl_status_t hirl_pack_allocate_records(hirl_pack_source_t *source) {
    int64_t n = 0;
    for (int64_t f = 0; f < source->n_files; f++) n += source->file[f].size / source->stride;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &source->item));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n + 1, &source->name_offset));
    hirl_text_t names = {0};
    int64_t i = 0;
    for (int64_t f = 0; f < source->n_files; f++) {
        const char *slash = strrchr(source->file[f].path, '/');
        const char *file = slash ? slash + 1 : source->file[f].path;
        for (int64_t record = 0; record < source->file[f].size / source->stride; record++) {
            hirl_status_t status = hirl_text_append(&names, "%s#%lld", file, (long long)record);
            if (status != HIRL_OK) {
                hirl_text_reset(&names);
                return status;
            }
            source->name_offset[++i] = (int64_t)names.size;
        }
    }
    source->n = n;
    source->name = names.data; // a text's memory is hirl_mem_*'s
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- which kind

// 'auto', or one of the formats in a message that names them all.
static hirl_status_t check_format(const hirl_pack_cfg_t *cfg) {
    if (strcmp(cfg->format, "auto") == 0 || !cfg->format[0]) return HIRL_OK;
    char all[512] = "'auto'";
    for (int f = 0; f < HIRL_PACK_FORMAT_COUNT; f++) {
        const size_t at = strlen(all);
        HIRL_TRY(hirl_text_format(all + at, sizeof all - at, "%s'%s'",
                                  f + 1 < HIRL_PACK_FORMAT_COUNT ? ", " : " or ", format_texts[f]));
    }
    return HIRL_FAIL(HIRL_ERR_DECK, "pack%%format is '%s', expected %s", cfg->format, all);
}

static hirl_status_t tell_format(const hirl_pack_cfg_t *cfg, hirl_pack_format_t *format_p) {
    HIRL_REQUIRE(cfg->source[0], HIRL_ERR_DECK,
                 "pack%%source is empty: name a folder of images, or of IDX or CIFAR files");
    for (int f = 0; f < HIRL_PACK_FORMAT_COUNT; f++) {
        if (strcmp(cfg->format, format_texts[f]) == 0) {
            *format_p = (hirl_pack_format_t)f;
            HIRL_REQUIRE((f == HIRL_PACK_LIST) == (cfg->n_list > 0), HIRL_ERR_DECK,
                         cfg->n_list > 0
                             ? "pack%%list is given, and pack%%format is '%s', expected 'list'"
                             : "pack%%format is '%s': name the files of paths as pack%%list",
                         cfg->format);
            return HIRL_OK;
        }
    }
    HIRL_TRY(check_format(cfg));
    hirl_pack_format_t format = HIRL_PACK_FOLDER;
    if (cfg->n_list > 0) {
        format = HIRL_PACK_LIST;
    } else if (hirl_pack_is_tar(cfg->source)) {
        format = HIRL_PACK_TAR;
    } else if (hirl_pack_is_idx(cfg->source)) {
        format = HIRL_PACK_IDX;
    } else if (!hirl_pack_is_cifar(cfg->source, &format)) {
        HIRL_REQUIRE(hirl_pack_is_folder(cfg->source),
                     hirl_pack_is_file(cfg->source) ? HIRL_ERR_DECK : HIRL_ERR_IO,
                     hirl_pack_is_file(cfg->source)
                         ? "pack%%source: %s has none of the usual names of IDX and CIFAR files; "
                           "say pack%%format"
                         : "pack%%source: %s does not exist",
                     cfg->source);
    }
    *format_p = format;
    return HIRL_OK;
}

static hirl_status_t find_on_root(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    HIRL_TRY(tell_format(cfg, &source->format));
    HIRL_REQUIRE(strcmp(cfg->classes, "archive") != 0 || source->format == HIRL_PACK_TAR,
                 HIRL_ERR_DECK,
                 "pack%%classes is 'archive', and pack%%source: %s is of format '%s', expected tar "
                 "archives",
                 cfg->source, format_texts[source->format]);
    switch (source->format) {
        case HIRL_PACK_IDX: HIRL_TRY(hirl_pack_find_idx(cfg, source)); break;
        case HIRL_PACK_FOLDER: HIRL_TRY(hirl_pack_find_folder(cfg, source)); break;
        case HIRL_PACK_CUB: HIRL_TRY(hirl_pack_find_cub(cfg, source)); break;
        case HIRL_PACK_CARS: HIRL_TRY(hirl_pack_find_cars(cfg, source)); break;
        case HIRL_PACK_SOP: HIRL_TRY(hirl_pack_find_sop(cfg, source)); break;
        case HIRL_PACK_INSHOP: HIRL_TRY(hirl_pack_find_inshop(cfg, source)); break;
        case HIRL_PACK_VOC07: HIRL_TRY(hirl_pack_find_voc07(cfg, source)); break;
        case HIRL_PACK_TAR: HIRL_TRY(hirl_pack_find_tar(cfg, source)); break;
        case HIRL_PACK_FRAMES: HIRL_TRY(hirl_pack_find_frames(cfg, source)); break;
        case HIRL_PACK_LIST: HIRL_TRY(hirl_pack_find_list(cfg, source)); break;
        default: HIRL_TRY(hirl_pack_find_cifar(cfg, source));
    }
    HIRL_REQUIRE(source->n > 0, HIRL_ERR_FORMAT, "pack%%source: %s holds no samples", cfg->source);
    HIRL_REQUIRE(
        cfg->max_side == 0 || source->stride == 0, HIRL_ERR_DECK,
        "pack%%max_side is %lld, and the images of %s are raw pixels, which are not resized: "
        "leave it out",
        (long long)cfg->max_side, cfg->source);
    if (strcmp(cfg->classes, "none") == 0) {
        for (int64_t i = 0; i < source->n; i++) source->item[i].label = -1;
        hirl_class_table_reset(&source->classes);
        hirl_mem_free(source->target);
        source->target = NULL;
        source->n_targets = 0;
    }
    HIRL_TRY(hirl_pack_apply_labels(cfg, source));
    return hirl_pack_apply_subset(cfg, source);
}

// ------------------------------------------------------------------------------ telling the others

static hirl_status_t broadcast_bytes(hirl_world_t *world, void *data, int64_t n) {
    return n > 0 ? hirl_par_broadcast(world, data, n, HIRL_PAR_U8, 0) : HIRL_OK;
}

static hirl_status_t allocate_received(hirl_pack_source_t *source, int64_t name_bytes,
                                       bool has_parent, int64_t skipped_bytes) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, source->n, &source->item));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, name_bytes, &source->name));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, source->n + 1, &source->name_offset));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, source->n_files, &source->file));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, (int64_t)source->classes.n * source->classes.width,
                        &source->classes.name));
    if (has_parent) HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, source->classes.n, &source->classes.parent));
    if (source->n_targets > 0)
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, source->n * source->n_targets, &source->target));
    if (skipped_bytes == 0) return HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, skipped_bytes + 1, &source->skipped.data));
    source->skipped.size = (size_t)skipped_bytes;
    source->skipped.capacity = (size_t)skipped_bytes + 1;
    return HIRL_OK;
}

static hirl_status_t broadcast_source(hirl_world_t *world, hirl_pack_source_t *source) {
    if (hirl_world_size(world) == 1) return HIRL_OK;
    bool is_root = hirl_world_rank(world) == 0;
    int64_t told[] = {source->format,
                      source->n,
                      is_root ? source->name_offset[source->n] : 0,
                      source->n_files,
                      source->classes.n,
                      source->classes.width,
                      source->classes.parent != NULL,
                      (int64_t)source->skipped.size,
                      source->n_skipped,
                      source->stride,
                      source->label_bytes,
                      source->is_planar,
                      source->n_targets};
    HIRL_TRY(hirl_par_broadcast(world, told, sizeof told / sizeof *told, HIRL_PAR_I64, 0));
    hirl_status_t status = HIRL_OK;
    if (!is_root) {
        source->format = (hirl_pack_format_t)told[0];
        source->n = told[1];
        source->n_files = told[3];
        source->classes.n = (int)told[4];
        source->classes.width = (int)told[5];
        source->n_skipped = told[8];
        source->stride = told[9];
        source->label_bytes = told[10];
        source->is_planar = told[11] != 0;
        source->n_targets = (int)told[12];
        status = allocate_received(source, told[2], told[6] != 0, told[7]);
    }
    HIRL_TRY(hirl_par_agree(world, status));
    HIRL_TRY(broadcast_bytes(world, source->root, sizeof source->root));
    HIRL_TRY(broadcast_bytes(world, source->item, source->n * (int64_t)sizeof *source->item));
    HIRL_TRY(broadcast_bytes(world, source->name, told[2]));
    HIRL_TRY(broadcast_bytes(world, source->name_offset,
                             (source->n + 1) * (int64_t)sizeof *source->name_offset));
    HIRL_TRY(broadcast_bytes(world, source->file, source->n_files * (int64_t)sizeof *source->file));
    HIRL_TRY(broadcast_bytes(world, source->classes.name, told[4] * told[5]));
    if (told[6])
        HIRL_TRY(
            broadcast_bytes(world, source->classes.parent, told[4] * (int64_t)sizeof(int32_t)));
    HIRL_TRY(broadcast_bytes(world, source->target, source->n * source->n_targets));
    return broadcast_bytes(world, source->skipped.data, told[7]);
}

// -------------------------------------------------------------------------------------- containers

// zlib's own text of the last failure, without the path that it puts before it; NULL if none.
static const char *inflate_error(gzFile stream, const char *path) {
    int cause = Z_OK;
    const char *text = gzerror(stream, &cause);
    if (cause == Z_OK || cause == Z_STREAM_END) return NULL;
    if (cause == Z_ERRNO) return strerror(errno);
    size_t length = strlen(path);
    return strncmp(text, path, length) == 0 && strncmp(text + length, ": ", 2) == 0
               ? text + length + 2
               : text;
}

hirl_status_t hirl_pack_inflate(gzFile stream, const char *path, int64_t n, uint8_t *out) {
    const int64_t piece = 1 << 26;
    for (int64_t done = 0; done < n;) {
        HIRL_TRY(hirl_pack_heed_signals());
        int got = gzread(stream, out + done, (unsigned)(n - done < piece ? n - done : piece));
        const char *text = inflate_error(stream, path);
        HIRL_REQUIRE(got >= 0 && !text, HIRL_ERR_FORMAT,
                     "%s: damaged, %lld more bytes expected: %s; get it again", path,
                     (long long)(n - done), text ? text : "no cause given");
        HIRL_REQUIRE(got > 0, HIRL_ERR_FORMAT,
                     "%s: ends early, %lld more bytes expected; get it again", path,
                     (long long)(n - done));
        done += got;
    }
    return HIRL_OK;
}

hirl_status_t hirl_pack_inflate_end(gzFile stream, const char *path, int64_t n) {
    uint8_t more;
    int got = gzread(stream, &more, 1);
    const char *text = inflate_error(stream, path);
    HIRL_REQUIRE(got >= 0 && !text, HIRL_ERR_FORMAT, "%s: damaged: %s; get it again", path,
                 text ? text : "no cause given");
    HIRL_REQUIRE(got == 0, HIRL_ERR_FORMAT,
                 "%s: goes on after the %lld bytes that its header promises", path, (long long)n);
    return HIRL_OK;
}

// Reads the records of one file behind its header.
static hirl_status_t load_file(const hirl_pack_file_t *file, uint8_t *out) {
    gzFile stream = gzopen(file->path, "rb");
    HIRL_REQUIRE(stream, HIRL_ERR_IO, "%s: %s", file->path, strerror(errno));
    gzbuffer(stream, 1 << 18);
    hirl_status_t status = HIRL_OK;
    uint8_t header[64];
    HIRL_TRY_GOTO(hirl_pack_inflate(stream, file->path, file->skip, header), status, done);
    HIRL_TRY_GOTO(hirl_pack_inflate(stream, file->path, file->size, out), status, done);
    HIRL_TRY_GOTO(hirl_pack_inflate_end(stream, file->path, file->skip + file->size), status, done);
done:
    gzclose(stream);
    return status;
}

// One copy per node, read by the node's first rank. Collective.
static hirl_status_t load_content(hirl_world_t *world, hirl_pack_source_t *source) {
    int64_t size = 0;
    for (int64_t f = 0; f < source->n_files; f++) size += source->file[f].size;
    void *content = NULL;
    HIRL_TRY(hirl_par_shared_create(world, (size_t)size, &source->shared, &content));
    source->content = content;
    hirl_status_t status = HIRL_OK;
    if (hirl_world_node_rank(world) == 0) {
        uint8_t *out = content;
        for (int64_t f = 0; status == HIRL_OK && f < source->n_files; f++) {
            status = load_file(&source->file[f], out);
            out += source->file[f].size;
        }
    }
    HIRL_TRY(hirl_par_agree(world, status));
    return hirl_par_shared_sync(source->shared);
}

// ------------------------------------------------------------------------------------- image files

static hirl_status_t make_path(const hirl_pack_source_t *source, int64_t i, char path[PATH_MAX]) {
    int64_t at = source->name_offset[i], size = source->name_offset[i + 1] - at;
    return hirl_text_format(path, PATH_MAX, "%s/%.*s", source->root, (int)size, source->name + at);
}

void hirl_pack_scratch_reset(hirl_pack_scratch_t *scratch) {
    hirl_buffer_reset(&scratch->encoded);
    hirl_buffer_reset(&scratch->decoded);
    hirl_buffer_reset(&scratch->turned);
    hirl_buffer_reset(&scratch->resized);
    hirl_buffer_reset(&scratch->made);
    hirl_augment_destroy(&scratch->augment);
    if (scratch->archive_path[0]) close(scratch->archive_fd);
    scratch->archive_path[0] = '\0';
}

static hirl_status_t check_size(int64_t size) {
    HIRL_REQUIRE(size >= 1 && (uint64_t)size <= HIRL_IMAGE_BYTES_MAX, HIRL_ERR_FORMAT,
                 "%lld bytes, expected 1 to %zu", (long long)size, HIRL_IMAGE_BYTES_MAX);
    return HIRL_OK;
}

hirl_status_t hirl_pack_open_image(const char *path, int *fd_p, int64_t *size_p) {
    // Without O_NONBLOCK a pipe among the files would hold up everything.
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "cannot be opened: %s", strerror(errno));
    struct stat found;
    hirl_status_t status = HIRL_OK;
    if (fstat(fd, &found) != 0) {
        status = HIRL_FAIL(HIRL_ERR_IO, "cannot be opened: %s", strerror(errno));
    } else if (!S_ISREG(found.st_mode)) {
        status = HIRL_FAIL(HIRL_ERR_IO, "not a file");
    } else {
        status = check_size((int64_t)found.st_size);
    }
    if (status != HIRL_OK) {
        close(fd);
        return status;
    }
    *fd_p = fd;
    *size_p = (int64_t)found.st_size;
    return HIRL_OK;
}

// A thread reads many members of one archive, one after the other.
static hirl_status_t open_archive(const char *path, hirl_pack_scratch_t *scratch) {
    if (strcmp(scratch->archive_path, path) == 0) return HIRL_OK;
    if (scratch->archive_path[0]) close(scratch->archive_fd);
    scratch->archive_path[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "archive %s: cannot be opened: %s", path, strerror(errno));
    scratch->archive_fd = fd;
    return hirl_text_format(scratch->archive_path, sizeof scratch->archive_path, "%s", path);
}

// Reads the file or member of an input to scratch->encoded, as it is.
static hirl_status_t load_image(const hirl_pack_source_t *source, int64_t i,
                                hirl_pack_scratch_t *scratch, int64_t *size_p) {
    const hirl_pack_item_t *item = &source->item[i];
    if (item->at > 0) {
        HIRL_TRY(check_size(item->n_source));
        HIRL_TRY(open_archive(source->file[item->archive].path, scratch));
        HIRL_TRY(hirl_buffer_reserve(&scratch->encoded, (size_t)item->n_source));
        HIRL_TRY(hirl_file_read_at(scratch->archive_fd, NULL, item->at, scratch->encoded.data,
                                   (size_t)item->n_source));
        *size_p = item->n_source;
        return HIRL_OK;
    }
    char path[PATH_MAX];
    HIRL_TRY(make_path(source, i, path));
    int fd = -1;
    HIRL_TRY(hirl_pack_open_image(path, &fd, size_p));
    hirl_status_t status = hirl_buffer_reserve(&scratch->encoded, (size_t)*size_p);
    if (status == HIRL_OK)
        status = hirl_file_read_at(fd, NULL, 0, scratch->encoded.data, (size_t)*size_p);
    close(fd);
    return status;
}

// Reads and decodes one image; fills its item. The failure's text is the reason why it is skipped.
static hirl_status_t check_image(const hirl_pack_source_t *source, int64_t i,
                                 hirl_pack_scratch_t *scratch, hirl_pack_item_t *item) {
    int64_t size = 0;
    HIRL_TRY(load_image(source, i, scratch, &size));
    const uint8_t *b = scratch->encoded.data;
    hirl_sample_t sample = {.bytes = b, .size = (size_t)size};
    HIRL_REQUIRE(hirl_image_sniff(b, sample.size, &sample.encoding), HIRL_ERR_FORMAT,
                 "no PNG, JPEG or WebP: %lld bytes that begin with %02x %02x %02x", (long long)size,
                 b[0], size > 1 ? b[1] : 0, size > 2 ? b[2] : 0);
    hirl_image_t image = {0};
    HIRL_TRY(hirl_image_decode(&sample, 0, &scratch->decoded, &image));
    hirl_pack_stored_t stored;
    HIRL_TRY(hirl_pack_make_image(source->cfg, &sample, &image, scratch, &stored));
    item->size = (int64_t)stored.size;
    item->n_source = size;
    item->checksum = hirl_hash64(b, sample.size);
    item->height = stored.height;
    item->width = stored.width;
    item->channels = stored.channels;
    item->encoding = (int32_t)stored.encoding;
    item->made = (int32_t)stored.made;
    item->is_good = 1;
    return HIRL_OK;
}

static hirl_status_t check_input(const hirl_pack_source_t *source, int64_t i,
                                 hirl_pack_scratch_t *scratch, hirl_pack_item_t *item) {
    if (source->format != HIRL_PACK_FRAMES) return check_image(source, i, scratch, item);
    char path[PATH_MAX];
    HIRL_TRY(make_path(source, i, path));
    return hirl_pack_check_video(path, scratch, item);
}

// Checks inputs [from, to), n_before others being done; reason[i - from] tells why one is bad. Fails
// only where going on makes no sense.
static hirl_status_t check_range(const hirl_pack_source_t *source, int64_t from, int64_t to,
                                 int n_threads, hirl_pack_progress_t *progress, int64_t n_before,
                                 char **reason) {
    hirl_pack_scratch_t *scratch = NULL; // [n_threads]
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_threads, &scratch));
    atomic_llong n_done = n_before;
    atomic_bool is_out_of_memory = false;
#pragma omp parallel for schedule(dynamic, 16) num_threads(n_threads)
    for (int64_t i = from; i < to; i++) {
        if (is_out_of_memory || hirl_signal_cancels()) continue;
        int thread = omp_get_thread_num();
        hirl_status_t status = check_input(source, i, &scratch[thread], &source->item[i]);
        if (status != HIRL_OK && status != HIRL_ERR_MEMORY) {
            const char *text = hirl_error_text_view();
            void *copy = NULL;
            status = hirl_mem_alloc(HIRL_MEM_DATA, strlen(text) + 1, &copy);
            if (status == HIRL_OK) reason[i - from] = strcpy(copy, text);
        }
        if (status == HIRL_ERR_MEMORY) is_out_of_memory = true;
        long long done = ++n_done;
        if (thread == 0) hirl_pack_progress_update(progress, done);
    }
    for (int t = 0; t < n_threads; t++) hirl_pack_scratch_reset(&scratch[t]);
    hirl_mem_free(scratch);
    HIRL_REQUIRE(!is_out_of_memory, HIRL_ERR_MEMORY,
                 "not enough memory to decode %d images at a time", n_threads);
    return hirl_pack_heed_signals();
}

// This rank's lines of the list of skipped inputs, in order.
static hirl_status_t list_skipped(const hirl_pack_source_t *source, int64_t from, int64_t to,
                                  char **reason, hirl_text_t *lines, int64_t *n_p) {
    for (int64_t i = from; i < to; i++) {
        if (!reason[i - from]) continue;
        int64_t at = source->name_offset[i];
        HIRL_TRY(hirl_pack_note_skipped(
            lines, source->name + at, (size_t)(source->name_offset[i + 1] - at), reason[i - from]));
        (*n_p)++;
    }
    return HIRL_OK;
}

// Puts the ranks' lists one behind the other, in canonical order because ranks check consecutive
// parts.
static hirl_status_t gather_skipped(hirl_world_t *world, hirl_pack_source_t *source,
                                    hirl_text_t *mine, int64_t n) {
    int size = hirl_world_size(world);
    int64_t *counts = NULL;
    char *all = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_par_agree(world, HIRL_ALLOC(HIRL_MEM_DATA, size, &counts)), status, done);
    int64_t bytes = (int64_t)mine->size, total = 0;
    HIRL_TRY_GOTO(hirl_par_all_gather(world, &bytes, 1, HIRL_PAR_I64, counts), status, done);
    for (int r = 0; r < size; r++) total += counts[r];
    HIRL_TRY_GOTO(hirl_par_all_reduce(world, &n, 1, HIRL_PAR_I64, HIRL_PAR_SUM), status, done);
    source->n_skipped += n;
    if (total == 0) goto done;
    HIRL_TRY_GOTO(hirl_par_agree(world, HIRL_ALLOC(HIRL_MEM_DATA, total + 1, &all)), status, done);
    HIRL_TRY_GOTO(hirl_par_all_gather_v(world, mine->data, counts, HIRL_PAR_U8, all), status, done);
    HIRL_TRY_GOTO(hirl_par_agree(world, hirl_text_append(&source->skipped, "%s", all)), status,
                  done);
done:
    hirl_mem_free(counts);
    hirl_mem_free(all);
    return status;
}

// Every rank checks its part [from, to) of the image files, in rounds, so that all end soon when one
// has to. Collective.
static hirl_status_t check_rounds(hirl_world_t *world, const hirl_pack_source_t *source,
                                  int64_t from, int64_t to, hirl_pack_progress_t *progress,
                                  char **reason) {
    const int64_t round = 2048, size = hirl_world_size(world), most = (source->n + size - 1) / size;
    for (int64_t done = 0; done < most; done += round) {
        int64_t at = from + done < to ? from + done : to, end = at + round < to ? at + round : to;
        hirl_status_t status = check_range(source, at, end, hirl_world_n_cpus(world), progress,
                                           at - from, reason + (at - from));
        HIRL_TRY(hirl_par_agree(world, status));
    }
    return HIRL_OK;
}

// All learn the outcome. Collective.
static hirl_status_t check_folder(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                                  hirl_pack_source_t *source) {
    int rank = hirl_world_rank(world), size = hirl_world_size(world);
    // Products of a number of files and of ranks stay far below 2^63.
    int64_t from = source->n * rank / size, to = source->n * (rank + 1) / size, n_bad = 0;
    char **reason = NULL;
    int64_t *counts = NULL;
    hirl_pack_item_t *all = NULL;
    hirl_text_t lines = {0};
    char what[HIRL_DECK_TEXT_MAX];
    HIRL_TRY(hirl_text_format(what, sizeof what, "pack %.64s: check", cfg->split));
    hirl_pack_progress_t progress;
    hirl_pack_progress_begin(&progress, what, to - from);

    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_DATA, to - from, &reason);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_DATA, size, &counts);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_DATA, source->n, &all);
    status = hirl_par_agree(world, status);
    if (status == HIRL_OK) status = check_rounds(world, source, from, to, &progress, reason);
    if (status == HIRL_OK) status = list_skipped(source, from, to, reason, &lines, &n_bad);
    hirl_pack_progress_end(&progress);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, done);
    HIRL_TRY_GOTO(gather_skipped(world, source, &lines, n_bad), status, done);

    int64_t item_bytes = (int64_t)sizeof *all;
    for (int r = 0; r < size; r++)
        counts[r] = (source->n * (r + 1) / size - source->n * r / size) * item_bytes;
    HIRL_TRY_GOTO(hirl_par_all_gather_v(world, source->item + from, counts, HIRL_PAR_U8, all),
                  status, done);
    hirl_pack_item_t *old = source->item;
    source->item = all;
    all = old;
done:
    for (int64_t i = 0; reason && i < to - from; i++) hirl_mem_free(reason[i]);
    hirl_mem_free(reason);
    hirl_mem_free(counts);
    hirl_mem_free(all);
    hirl_text_reset(&lines);
    return status;
}

// -------------------------------------------------------------------------------------- all

hirl_status_t hirl_pack_source_open(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                                    hirl_pack_source_t *source) {
    memset(source, 0, sizeof *source);
    source->cfg = cfg;
    hirl_status_t status = HIRL_OK;
    if (hirl_world_rank(world) == 0) status = find_on_root(cfg, source);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, err);
    HIRL_TRY_GOTO(broadcast_source(world, source), status, err);
    if (source->stride > 0) {
        HIRL_TRY_GOTO(load_content(world, source), status, err);
    } else {
        HIRL_TRY_GOTO(check_folder(world, cfg, source), status, err);
    }
    return HIRL_OK;
err:
    hirl_pack_source_reset(source);
    return status;
}

void hirl_pack_source_reset(hirl_pack_source_t *source) {
    hirl_mem_free(source->item);
    hirl_mem_free(source->name);
    hirl_mem_free(source->name_offset);
    hirl_mem_free(source->file);
    hirl_mem_free(source->target);
    hirl_class_table_reset(&source->classes);
    hirl_text_reset(&source->skipped);
    hirl_par_shared_destroy(&source->shared);
    memset(source, 0, sizeof *source);
}

static void interleave(const uint8_t *planes, size_t n_pixels, int channels, uint8_t *out) {
    for (size_t p = 0; p < n_pixels; p++) {
        for (int c = 0; c < channels; c++) *out++ = planes[(size_t)c * n_pixels + p];
    }
}

// The path of an input, for messages.
static void name_input(const hirl_pack_source_t *source, int64_t i, char name[PATH_MAX]) {
    const hirl_pack_item_t *item = &source->item[i];
    const int64_t at = source->name_offset[i];
    const int size = (int)(source->name_offset[i + 1] - at);
    const char *place = item->at > 0 ? source->file[item->archive].path : source->root;
    if (hirl_text_format(name, PATH_MAX, "%s%s%.*s", place, item->at > 0 ? ": " : "/", size,
                         source->name + at) != HIRL_OK)
        name[PATH_MAX - 1] = '\0';
}

static hirl_status_t read_image(const hirl_pack_source_t *source, int64_t i,
                                hirl_pack_scratch_t *scratch, uint8_t *out) {
    const hirl_pack_item_t *item = &source->item[i];
    char name[PATH_MAX];
    int64_t size = 0;
    const bool is_video = source->format == HIRL_PACK_FRAMES;
    name_input(source, i, name);
    hirl_status_t status = is_video ? hirl_pack_read_video(name, item, scratch, &size)
                                    : load_image(source, i, scratch, &size);
    HIRL_REQUIRE(status == HIRL_OK, status, "%s: %s", name, hirl_error_text_view());
    HIRL_REQUIRE(size == (is_video ? item->size : item->n_source) &&
                     hirl_hash64(scratch->encoded.data, (size_t)size) == item->checksum,
                 HIRL_ERR_IO,
                 "%s: changed since it was checked; pack again when nothing writes to the source",
                 name);
    hirl_pack_stored_t stored = {.bytes = scratch->encoded.data, .size = (size_t)size};
    if (item->made != HIRL_PACK_KEPT) {
        hirl_sample_t sample = {.bytes = scratch->encoded.data, .size = (size_t)size};
        (void)hirl_image_sniff(sample.bytes, sample.size, &sample.encoding);
        status = hirl_pack_make_image(source->cfg, &sample, NULL, scratch, &stored);
        HIRL_REQUIRE(status == HIRL_OK, status, "%s: %s", name, hirl_error_text_view());
    }
    // The same library makes the same bytes of the same file.
    HIRL_REQUIRE((int64_t)stored.size == item->size, HIRL_ERR_INTERNAL,
                 "%s: encoded to %zu bytes, and to %lld before", name, stored.size,
                 (long long)item->size);
    memcpy(out, stored.bytes, stored.size);
    return HIRL_OK;
}

hirl_status_t hirl_pack_source_read(const hirl_pack_source_t *source, int64_t i,
                                    hirl_pack_scratch_t *scratch, uint8_t *out) {
    if (source->stride == 0) return read_image(source, i, scratch, out);
    const hirl_pack_item_t *item = &source->item[i];
    const uint8_t *pixels = source->content + i * source->stride + source->label_bytes;
    if (source->is_planar) {
        interleave(pixels, (size_t)item->height * (size_t)item->width, item->channels, out);
    } else {
        memcpy(out, pixels, (size_t)item->size);
    }
    return HIRL_OK;
}
