// Fuzz target: what describes a data set to pack. The first byte of an input says what it is (kinds[]),
// the second how it is packed (the flags below), the rest is a tar archive, a list, a table, records or
// their labels, beside images and files that are in order. What is accepted is read to its last input.
#include "fuzz_picture.h"

#include <errno.h>
#include <sys/stat.h>

#include "../../src/data/data_impl.h"

enum { SIZE_MOST = 1 << 16, INPUTS_READ = 16, RECORDS_MAX = 8, BLOCK = 512 };
enum {
    IS_TEST = 4,   // split 'val'; beside it two bits for pack%classes
    HAS_NAMES = 8, // columns are named
    IS_RESIZED = 16,
    IS_GZIP = 32,
    IS_MENDED = 64, // checksums are made right
    IS_OTHER = 128  // the other form of a kind: CIFAR-100, bytes as they are
};

typedef struct request {
    uint8_t flags;
    uint8_t *bytes;
    size_t size;
    hirl_pack_cfg_t cfg;
} request_t;

static hirl_world_t *world;

// ------------------------------------------------------------------------------------ files

static const char *path_in(const char *folder, const char *name) {
    static char path[2][1024];
    static int next;
    char *buf = path[next++ % 2];
    snprintf(buf, sizeof path[0], "%s/%s/%s", fuzz_folder, folder, name);
    return buf;
}

static void make_folder(const char *name) {
    FUZZ_CHECK(mkdir(fuzz_path(name), 0700) == 0 || errno == EEXIST, "no folder %s", name);
}

static void copy_image(const char *from, const char *folder, const char *name) {
    char path[256];
    size_t size = 0;
    snprintf(path, sizeof path, "validation/reference/pack/images/%s", from);
    uint8_t *bytes = fuzz_load(path, &size);
    fuzz_save(path_in(folder, name), bytes, size);
    free(bytes);
}

static void set_text(char *field, const char *text) {
    FUZZ_CHECK(hirl_text_format(field, HIRL_DECK_TEXT_MAX, "%s", text) == HIRL_OK, "a long path");
}

static void set_source(request_t *request, const char *format, const char *folder) {
    set_text(request->cfg.format, format);
    set_text(request->cfg.source, fuzz_path(folder));
}

static void save_packed(const char *path, const request_t *request) {
    if (!(request->flags & IS_GZIP)) {
        fuzz_save(path, request->bytes, request->size);
        return;
    }
    gzFile stream = gzopen(path, "wb");
    FUZZ_CHECK(stream &&
                   gzwrite(stream, request->bytes, (unsigned)request->size) == (int)request->size,
               "cannot write %s", path);
    gzclose(stream);
}

// Two files in one input are parted by a form feed; without one both are the same.
static void save_pair(const char *first, const char *second, const request_t *request) {
    const uint8_t *b = request->bytes, *cut = request->size ? memchr(b, '\f', request->size) : NULL;
    const size_t n = cut ? (size_t)(cut - b) : request->size;
    fuzz_save(first, b, n);
    fuzz_save(second, cut ? cut + 1 : b, cut ? request->size - n - 1 : n);
}

// ------------------------------------------------------------------------------------ kinds

// In an input each row of zeros is a zero and their number less one: archives are small, and most of
// what is changed means something.
static void unpack_zeros(request_t *request) {
    uint8_t *out = malloc(SIZE_MOST);
    FUZZ_CHECK(out, "no memory");
    size_t n = 0;
    for (size_t i = 0; i < request->size && n + 256 <= SIZE_MOST; i++) {
        const size_t n_zeros = request->bytes[i]       ? 0
                               : i + 1 < request->size ? request->bytes[i + 1] + (size_t)1
                                                       : 1;
        memset(out + n, request->bytes[i], n_zeros ? n_zeros : 1);
        n += n_zeros ? n_zeros : 1;
        i += n_zeros > 0;
    }
    free(request->bytes);
    request->bytes = out;
    request->size = n;
}

static void put_sum(uint8_t *block) {
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++) sum += block[i];
    snprintf((char *)block + 148, 8, "%06o", sum);
}

static void mend_tar(uint8_t *bytes, size_t size) {
    for (size_t at = 0; at + BLOCK <= size;) {
        uint8_t *block = bytes + at;
        size_t n = 0;
        bool is_zero = true;
        for (int i = 0; i < BLOCK; i++) is_zero = is_zero && block[i] == 0;
        if (is_zero) return;
        put_sum(block);
        for (int i = 124; i < 136 && block[i] >= '0' && block[i] <= '7'; i++)
            n = n << 3 | (size_t)(block[i] - '0');
        if (block[156] >= '1' && block[156] <= '6') n = 0;
        if (n > size) return;
        at += BLOCK + (n + BLOCK - 1) / BLOCK * BLOCK;
    }
}

static void use_tar(request_t *request) {
    if (!(request->flags & IS_OTHER)) unpack_zeros(request);
    if (request->flags & IS_MENDED) mend_tar(request->bytes, request->size);
    fuzz_save(fuzz_path("a.tar"), request->bytes, request->size);
    set_source(request, "tar", "a.tar");
}

static void use_list(request_t *request) {
    set_source(request, "list", "images");
    fuzz_save(fuzz_path("list.txt"), request->bytes, request->size);
    set_text(request->cfg.list[0], fuzz_path("list.txt"));
    request->cfg.n_list = 1;
}

static void use_subset(request_t *request) {
    set_source(request, "folder", "images");
    fuzz_save(fuzz_path("subset.txt"), request->bytes, request->size);
    set_text(request->cfg.subset, fuzz_path("subset.txt"));
}

static void use_labels(request_t *request) {
    set_source(request, "folder", "images");
    fuzz_save(fuzz_path("labels.csv"), request->bytes, request->size);
    set_text(request->cfg.labels, fuzz_path("labels.csv"));
    if (!(request->flags & HAS_NAMES)) return;
    set_text(request->cfg.label_columns[0], "image");
    set_text(request->cfg.label_columns[1], "label");
    request->cfg.n_label_columns = 2;
}

static void use_idx(request_t *request, const char *name) {
    const char *gzip = request->flags & IS_GZIP ? ".gz" : "";
    char path[64];
    set_source(request, "idx", "idx");
    set_text(request->cfg.split, "train");
    static const uint8_t images[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0,
                                     0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3},
                         labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 1, 0};
    static const char *const names[] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"};
    for (int f = 0; f < 2; f++) {
        snprintf(path, sizeof path, "%s.gz", names[f]);
        (void)unlink(path_in("idx", path));
        fuzz_save(path_in("idx", names[f]), f ? labels : images, f ? sizeof labels : sizeof images);
    }
    (void)unlink(path_in("idx", name));
    snprintf(path, sizeof path, "%s%s", name, gzip);
    save_packed(path_in("idx", path), request);
}

static void use_idx_images(request_t *request) { use_idx(request, "train-images-idx3-ubyte"); }
static void use_idx_labels(request_t *request) { use_idx(request, "train-labels-idx1-ubyte"); }

// Records of black pixels, with the label bytes of the input.
static void save_records(const char *path, size_t n_labels, const uint8_t *bytes, size_t size) {
    const size_t stride = n_labels + 3072, n = size / n_labels;
    uint8_t *out = calloc(RECORDS_MAX, stride);
    FUZZ_CHECK(out, "no memory");
    const size_t n_records = n < RECORDS_MAX ? n : RECORDS_MAX;
    for (size_t i = 0; i < n_records; i++) memcpy(out + i * stride, bytes + i * n_labels, n_labels);
    fuzz_save(path, out, n_records * stride);
    free(out);
}

static void set_cifar(request_t *request) {
    const bool is_100 = request->flags & IS_OTHER;
    set_source(request, is_100 ? "cifar100" : "cifar10", is_100 ? "cifar100" : "cifar10");
    set_text(request->cfg.split, "train");
    (void)unlink(path_in("cifar10", "batches.meta.txt"));
    (void)unlink(path_in("cifar100", "fine_label_names.txt"));
    (void)unlink(path_in("cifar100", "coarse_label_names.txt"));
}

static void use_cifar(request_t *request) {
    set_cifar(request);
    const bool is_100 = request->flags & IS_OTHER;
    const char *path =
        is_100 ? path_in("cifar100", "train.bin") : path_in("cifar10", "data_batch_1.bin");
    if (request->flags & IS_MENDED) {
        save_records(path, is_100 ? 2 : 1, request->bytes, request->size);
    } else {
        fuzz_save(path, request->bytes, request->size);
    }
}

static void use_cifar_names(request_t *request) {
    static const uint8_t labels[] = {3, 7, 0, 1, 19, 99};
    set_cifar(request);
    if (request->flags & IS_OTHER) {
        save_records(path_in("cifar100", "train.bin"), 2, labels, sizeof labels);
        save_pair(path_in("cifar100", "fine_label_names.txt"),
                  path_in("cifar100", "coarse_label_names.txt"), request);
    } else {
        save_records(path_in("cifar10", "data_batch_1.bin"), 1, labels, 4);
        fuzz_save(path_in("cifar10", "batches.meta.txt"), request->bytes, request->size);
    }
}

static void use_products(request_t *request) {
    set_source(request, "sop", "images");
    save_pair(path_in("images", "Ebay_train.txt"), path_in("images", "Ebay_test.txt"), request);
}

static void use_inshop(request_t *request) {
    static const char *const splits[] = {"train", "query", "gallery", "val"};
    set_source(request, "inshop", "inshop");
    set_text(request->cfg.split, splits[request->flags >> 3 & 3]);
    fuzz_save(path_in("inshop", "Eval/list_eval_partition.txt"), request->bytes, request->size);
}

static void use_voc(request_t *request) {
    static const char *const classes[] = {
        "aeroplane", "bicycle",     "bird",  "boat",        "bottle", "bus",      "car",
        "cat",       "chair",       "cow",   "diningtable", "dog",    "horse",    "motorbike",
        "person",    "pottedplant", "sheep", "sofa",        "train",  "tvmonitor"};
    set_source(request, "voc07", "voc");
    set_text(request->cfg.split, "trainval");
    for (int c = 1; c < 20; c++) {
        char name[64], first[1024];
        snprintf(name, sizeof name, "ImageSets/Main/%s_trainval.txt", classes[c]);
        snprintf(first, sizeof first, "%s",
                 path_in("voc", "ImageSets/Main/aeroplane_trainval.txt"));
        save_pair(first, path_in("voc", name), request);
    }
}

// Behind a header that is in order; variables may be packed into one element.
static void use_cars(request_t *request) {
    uint8_t *out = malloc(SIZE_MOST + 4096);
    FUZZ_CHECK(out, "no memory");
    const bool is_literal = request->flags & IS_OTHER;
    size_t n = is_literal ? 0 : 128;
    memset(out, ' ', 128);
    memcpy(out, "MATLAB 5.0 MAT-file", 19);
    const bool is_swapped = request->flags & HAS_NAMES;
    memcpy(out + 124, is_swapped ? "\1\0MI" : "\0\1IM", 4);
    // "\1\0MI" is the version 0x0100 of a big-endian file.
    unpack_zeros(request);
    if (request->flags & IS_GZIP) {
        uLongf packed = 4096 + SIZE_MOST - 136;
        FUZZ_CHECK(compress2(out + n + 8, &packed, request->bytes, request->size, 6) == Z_OK,
                   "cannot pack");
        for (int i = 0; i < 4; i++) {
            const int shift = 8 * (is_swapped ? 3 - i : i);
            out[n + (size_t)i] = (uint8_t)(15 >> shift);
            out[n + 4 + (size_t)i] = (uint8_t)(packed >> shift);
        }
        n += 8 + packed;
    } else {
        memcpy(out + n, request->bytes, request->size);
        n += request->size;
    }
    fuzz_save(path_in("cars", "cars_annos.mat"), out, n);
    free(out);
    set_source(request, "cars", "cars");
}

typedef struct kind {
    const char *name;
    void (*use)(request_t *request);
} kind_t;
static const kind_t kinds[] = {
    {"tar", use_tar},        {"list", use_list},
    {"subset", use_subset},  {"labels", use_labels},
    {"idx", use_idx_images}, {"idx_labels", use_idx_labels},
    {"cifar", use_cifar},    {"cifar_names", use_cifar_names},
    {"sop", use_products},   {"inshop", use_inshop},
    {"voc", use_voc},        {"cars", use_cars},
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

// ------------------------------------------------------------------------------------ checks

static void check_classes(const hirl_class_table_t *classes) {
    FUZZ_CHECK(classes->n >= 0 && (classes->n == 0 || classes->width >= 1), "%d classes of %d",
               classes->n, classes->width);
    for (int c = 0; c < classes->n; c++) {
        const char *row = classes->name + (size_t)c * (size_t)classes->width;
        FUZZ_CHECK(memchr(row, '\0', (size_t)classes->width), "the name of class %d has no end", c);
        // Super-classes come behind what is in them, so that no way goes round.
        const int32_t parent = classes->parent ? classes->parent[c] : -1;
        FUZZ_CHECK(parent == -1 || (parent > c && parent < classes->n), "class %d is in %d of %d",
                   c, parent, classes->n);
    }
}

static void check_skipped(const hirl_pack_source_t *source) {
    int64_t n = 0;
    for (size_t i = 0; i < source->skipped.size; i++) {
        const unsigned char c = (unsigned char)source->skipped.data[i];
        n += c == '\n';
        FUZZ_CHECK((c >= 0x20 && c != 0x7f) || c == '\n' || c == '\t',
                   "a control character in the list of skipped inputs");
    }
    FUZZ_CHECK(n == source->n_skipped, "%lld lines for %lld skipped inputs", (long long)n,
               (long long)source->n_skipped);
}

static void check_item(const hirl_pack_source_t *source, int64_t i) {
    const hirl_pack_item_t *item = &source->item[i];
    FUZZ_CHECK(source->name_offset[i] <= source->name_offset[i + 1], "input %lld has no name",
               (long long)i);
    (void)hirl_hash64(source->name + source->name_offset[i],
                      (size_t)(source->name_offset[i + 1] - source->name_offset[i]));
    const int64_t n_labels = source->classes.n ? source->classes.n : HIRL_CLASSES_MAX;
    FUZZ_CHECK(item->label >= -1 && item->label < n_labels, "label %d of %lld", item->label,
               (long long)n_labels);
    FUZZ_CHECK(item->at == 0 || (item->archive < source->n_files &&
                                 item->at + item->n_source <= source->file[item->archive].size),
               "input %lld is outside of its archive", (long long)i);
    FUZZ_CHECK(!item->is_good || (item->size >= 1 && item->height >= 1 && item->width >= 1),
               "input %lld is good and empty", (long long)i);
}

static void read_inputs(const hirl_pack_source_t *source) {
    hirl_pack_scratch_t scratch = {.archive_fd = -1};
    for (int64_t i = 0; i < source->n; i++) {
        const hirl_pack_item_t *item = &source->item[i];
        check_item(source, i);
        if (!item->is_good || i >= INPUTS_READ) continue;
        uint8_t *out = malloc((size_t)item->size);
        FUZZ_CHECK(out, "no memory");
        const hirl_status_t status = hirl_pack_source_read(source, i, &scratch, out);
        FUZZ_CHECK(status == HIRL_OK, "good input %lld cannot be read", (long long)i);
        const hirl_sample_t sample = {
            out,         (size_t)item->size, item->height,
            item->width, item->channels,     (hirl_encoding_t)item->encoding,
            item->label};
        hirl_buffer_t buffer = {0};
        hirl_image_t image;
        FUZZ_CHECK(hirl_image_decode(&sample, 0, &buffer, &image) == HIRL_OK,
                   "good input %lld cannot be decoded", (long long)i);
        hirl_buffer_reset(&buffer);
        free(out);
    }
    hirl_pack_scratch_reset(&scratch);
}

// ------------------------------------------------------------------------------------ all

static void fuzz_one(const uint8_t *data, size_t size) {
    static const char *const classes[] = {"leaf", "top", "none", "archive"};
    if (size < 2 || size > SIZE_MOST) return;
    request_t request = {.flags = data[1], .size = size - 2};
    request.bytes = malloc(size);
    FUZZ_CHECK(request.bytes, "no memory");
    memcpy(request.bytes, data + 2, request.size);
    set_text(request.cfg.classes, classes[data[1] & 3]);
    set_text(request.cfg.split, data[1] & IS_TEST ? "val" : "train");
    set_text(request.cfg.side, "longer");
    request.cfg.upright = true;
    request.cfg.max_side = request.flags & IS_RESIZED ? 8 : 0;
    kinds[data[0] % N_KINDS].use(&request);

    hirl_pack_source_t source;
    hirl_mem_reset_peak();
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    const hirl_status_t status = hirl_pack_source_open(world, &request.cfg, &source);
    if (status == HIRL_OK) {
        FUZZ_CHECK(source.n >= 1, "%lld inputs", (long long)source.n);
        check_classes(&source.classes);
        check_skipped(&source);
        read_inputs(&source);
        hirl_pack_source_reset(&source);
    } else {
        fuzz_check_refusal(status);
    }
    // As of images (fuzz_image.c), and what lists and threads have whatever the size.
    const size_t peak = hirl_mem_peak(HIRL_MEM_KIND_COUNT) - held;
    FUZZ_CHECK(peak <= 16 * fuzz_pixel_bytes(request.size) + (4 << 20) ||
                   fuzz_unbounded_pixels(request.bytes, request.size) > 0,
               "%zu bytes for a file of %zu", peak, request.size);
    free(request.bytes);
}

static void fuzz_begin(void) {
    FUZZ_CHECK(hirl_world_create(NULL, NULL, &world) == HIRL_OK, "no world");
    hirl_log_setup(HIRL_LOG_ERROR, 0);
    static const char *const folders[] = {
        "images",         "images/apple", "images/Banana", "idx",
        "cifar10",        "cifar100",     "inshop",        "inshop/Eval",
        "inshop/Img",     "voc",          "voc/ImageSets", "voc/ImageSets/Main",
        "voc/JPEGImages", "cars",         "cars/car_ims"};
    for (size_t f = 0; f < sizeof folders / sizeof *folders; f++) make_folder(folders[f]);
    copy_image("apple/one.png", "images/apple", "one.png");
    copy_image("apple/gray2.png", "images/apple", "two.png");
    copy_image("Banana/one.jpg", "images/Banana", "one.jpg");
    copy_image("Banana/one.jpg", "images/Banana", "x,y.jpg");
    copy_image("Banana/one.jpg", "inshop/Img", "a.jpg");
    copy_image("Banana/one.jpg", "voc/JPEGImages", "000001.jpg");
    copy_image("Banana/one.jpg", "voc/JPEGImages", "000002.jpg");
    copy_image("Banana/one.jpg", "cars/car_ims", "000001.jpg");
}

// ------------------------------------------------------------------------------------ seeds

typedef struct seed {
    uint8_t bytes[8192];
    size_t n;
} seed_t;

static void put(seed_t *seed, const void *bytes, size_t n) {
    FUZZ_CHECK(seed->n + n <= sizeof seed->bytes, "a large seed");
    memcpy(seed->bytes + seed->n, bytes, n);
    seed->n += n;
}

static uint8_t number_of(const char *kind) {
    for (int k = 0; k < N_KINDS; k++) {
        if (strcmp(kinds[k].name, kind) == 0) return (uint8_t)k;
    }
    fuzz_fail(__FILE__, __LINE__, "no kind '%s'", kind);
}

static void save(const char *kind, const char *more, uint8_t flags, const void *bytes, size_t n) {
    seed_t seed = {.bytes = {number_of(kind), flags}, .n = 2};
    char name[64];
    put(&seed, bytes, n);
    snprintf(name, sizeof name, "%s%s", kind, more);
    fuzz_save_seed(name, seed.bytes, seed.n);
}

static void save_text(const char *kind, const char *more, uint8_t flags, const char *text) {
    save(kind, more, flags, text, strlen(text));
}

static void save_zeros_packed(const char *kind, const char *more, uint8_t flags,
                              const seed_t *plain) {
    seed_t seed = {.n = 0};
    for (size_t i = 0; i < plain->n; i++) {
        uint8_t pair[2] = {plain->bytes[i], 0};
        while (pair[0] == 0 && pair[1] < 255 && i + 1 < plain->n && plain->bytes[i + 1] == 0)
            pair[1]++, i++;
        put(&seed, pair, pair[0] ? 1 : 2);
    }
    save(kind, more, flags, seed.bytes, seed.n);
}

static void put_member(seed_t *tar, char type, const char *name, const void *bytes, size_t n) {
    uint8_t block[BLOCK] = {0};
    snprintf((char *)block, 100, "%s", name);
    memcpy(block + 100, "0000644\0000000000\0000000000", 24);
    snprintf((char *)block + 124, 12, "%011o", (unsigned)n);
    snprintf((char *)block + 136, 12, "%011o", 0u);
    block[156] = (uint8_t)type;
    memcpy(block + 257, type == 'L' ? "ustar  " : "ustar\00000", 8);
    put_sum(block);
    put(tar, block, BLOCK);
    put(tar, bytes, n);
    const uint8_t zeros[BLOCK] = {0};
    put(tar, zeros, (BLOCK - n % BLOCK) % BLOCK);
}

static void write_tars(void) {
    static const uint8_t end[2 * BLOCK] = {0};
    static const char pax[] = "23 path=pax/a/path.png\n11 size=69\n29 GNU.sparse.name=something\n";
    size_t size = 0;
    uint8_t *one = fuzz_load("validation/reference/pack/images/apple/one.png", &size);
    for (int k = 0; k < 4; k++) {
        seed_t tar = {.n = 0};
        if (k == 0) put_member(&tar, '5', "apple/", "", 0);
        // The third record makes it a sparse file, which is left out.
        if (k == 1) put_member(&tar, 'x', "pax", pax, 23 + 11);
        if (k == 2) put_member(&tar, 'L', "././@LongLink", "gnu/a/long/path.png", 20);
        if (k == 3) put_member(&tar, 'x', "pax", pax, sizeof pax - 1);
        put_member(&tar, '0', "./apple/one.png", one, size);
        put_member(&tar, k == 1 ? '2' : '0', "apple/../two.png", "", 0);
        put(&tar, end, sizeof end);
        const char *const names[] = {"_ustar", "_pax", "_gnu", "_sparse"};
        save_zeros_packed("tar", names[k], (uint8_t)(IS_MENDED | (k == 0 ? 3 : 0)), &tar);
    }
    free(one);
}

static void put_u32(seed_t *mat, uint32_t value) {
    const uint8_t b[] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                         (uint8_t)(value >> 24)};
    put(mat, b, 4);
}

static void put_element(seed_t *mat, uint32_t type, const void *bytes, size_t n) {
    static const uint8_t zeros[8] = {0};
    put_u32(mat, type);
    put_u32(mat, (uint32_t)n);
    put(mat, bytes, n);
    put(mat, zeros, (8 - n % 8) % 8);
}

// Begins an array (class, 1 x n items, name); returns where its size belongs.
static size_t begin_array(seed_t *mat, uint32_t class, uint32_t n, const char *name) {
    const uint32_t flags[] = {class, 0}, shape[] = {1, n};
    put_u32(mat, 14);
    put_u32(mat, 0);
    const size_t begun = mat->n;
    put_element(mat, 6, flags, sizeof flags);
    put_element(mat, 5, shape, sizeof shape);
    put_element(mat, 1, name, strlen(name));
    return begun;
}

static void end_array(seed_t *mat, size_t begun) {
    const size_t n = mat->n - begun;
    mat->bytes[begun - 4] = (uint8_t)n;
    mat->bytes[begun - 3] = (uint8_t)(n >> 8);
}

static void write_cars(void) {
    seed_t mat = {.n = 0};
    const size_t list = begin_array(&mat, 2, 1, "annotations");
    put_u32(&mat, 4 << 16 | 5); // a small element: the width of a field's name
    put_u32(&mat, 17);
    put_element(&mat, 1, "relative_im_path\0class\0\0\0\0\0\0\0\0\0\0\0", 34);
    const size_t path = begin_array(&mat, 4, 18, "");
    put_element(&mat, 16, "car_ims/000001.jpg", 18);
    end_array(&mat, path);
    const size_t number = begin_array(&mat, 9, 1, "");
    put_element(&mat, 2, "\3", 1);
    end_array(&mat, number);
    end_array(&mat, list);
    save_zeros_packed("cars", "", 0, &mat);
    save_zeros_packed("cars", "_packed", IS_GZIP, &mat);
}

static void fuzz_write_seeds(void) {
    static const uint8_t idx[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6},
                         idx_labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 7, 0};
    write_tars();
    write_cars();
    save_text("list", "_labels", 0, "apple/one.png 0\n./Banana/x,y.jpg 1\r\n/apple/none.png -1\n");
    save_text("list", "_paths", IS_RESIZED,
              "\xef\xbb\xbf"
              "apple/one.png\nBanana/one.jpg");
    save_text("subset", "", 0, "one.jpg\napple/two.png 1\n");
    save_text("subset", "_same", 1, "./apple/one.png\nBanana/one.jpg");
    save_text("labels", "", 0,
              "image,label\none.jpg,cat\n\"x,y.jpg\",\"a \"\"dog\"\"\"\ntwo,cat\n");
    save_text("labels", "_named", HAS_NAMES, "x,label,image\n,3,two.png\n1,7,apple/one.png\r\n");
    save("idx", "", 0, idx, sizeof idx);
    save("idx", "_gzip", IS_GZIP, idx, sizeof idx);
    save("idx_labels", "", IS_GZIP, idx_labels, sizeof idx_labels);
    save("cifar", "10", IS_MENDED, "\0\3\11\12", 4);
    save("cifar", "100", IS_MENDED | IS_OTHER, "\0\3\1\4\23\143", 6);
    save_text("cifar_names", "10", 0, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    save_text("sop", "", 0,
              "image_id class_id super_class_id path\n1 1 1 apple/one.png\n2 2 1 apple/two.png\n\f"
              "image_id class_id super_class_id path\n3 3 2 Banana/one.jpg\n");
    save_text("inshop", "", 0,
              "3\nimage_name item_id evaluation_status\na.jpg id_00000002 train\n"
              "b.jpg id_00000003 query\nc.jpg id_00000003 gallery\n");
    save_text("voc", "", 0, "000001 -1\n000002  1\n\f000001  0\n000002 -1\n");
}
