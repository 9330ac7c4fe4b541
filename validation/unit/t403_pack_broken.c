// test: ranks=1,2 timeout=60
// Sources that cannot be trusted and settings that make no sense: each is refused on all ranks with
// a message that says what and where, and leaves no shard behind.
#include "pack_util.h"

static hirl_world_t *world;

static void put_be(unsigned char *at, unsigned value) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(value >> (24 - 8 * i));
}

// A small IDX pair as it should be; the cases below each break one thing.
typedef struct idx {
    unsigned magic, n, height, width, label_magic, n_labels;
    long extra, label_extra; // bytes more or less than the header promises
    bool is_gzip;
    long gzip_cut;    // bytes taken off the compressed images
    long gzip_damage; // position of a byte of the compressed images that is changed, 0: none
} idx_t;

static const idx_t good = {
    .magic = 0x803, .n = 5, .height = 3, .width = 4, .label_magic = 0x801, .n_labels = 5};

static void write_idx(const char *folder, const idx_t *idx) {
    shell("rm -rf %s && mkdir -p %s", folder, folder);
    if (test_rank() == 0) {
        unsigned char bytes[4096] = {0};
        char path[2048];
        put_be(bytes, idx->magic);
        put_be(bytes + 4, idx->n);
        put_be(bytes + 8, idx->height);
        put_be(bytes + 12, idx->width);
        for (int i = 16; i < 4096; i++) bytes[i] = (unsigned char)(i * i / 7);
        size_t size = (size_t)(16 + 60 + idx->extra);
        snprintf(path, sizeof path, "%s/train-images-idx3-ubyte%s", folder,
                 idx->is_gzip ? ".gz" : "");
        if (idx->is_gzip) {
            save_gzip(path, bytes, size);
            file_bytes_t file = load_file(path);
            if (idx->gzip_damage) file.bytes[idx->gzip_damage] ^= 0x55;
            save_file(path, file.bytes, file.size - (size_t)idx->gzip_cut);
            free(file.bytes);
        } else {
            save_file(path, bytes, size);
        }
        put_be(bytes, idx->label_magic);
        put_be(bytes + 4, idx->n_labels);
        snprintf(path, sizeof path, "%s/train-labels-idx1-ubyte", folder);
        save_file(path, bytes, (size_t)(8 + 5 + idx->label_extra));
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
}

#define BROKEN(text_, status_, ...) \
    {                               \
        {.magic = 0x803,            \
         .n = 5,                    \
         .height = 3,               \
         .width = 4,                \
         .label_magic = 0x801,      \
         .n_labels = 5,             \
         __VA_ARGS__},              \
            status_, text_          \
    }

static void test_idx(void) {
    hirl_pack_cfg_t cfg = pack_cfg(test_path("idx"), "train", test_path("idx-shards"));
    // Designated initialisers that come later win; that is what the cases are made of.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverride-init"
    static const struct {
        idx_t idx;
        hirl_status_t status;
        const char *text;
    } broken[] = {
        BROKEN("begins with 0x00000d03, expected 0x00000803", HIRL_ERR_FORMAT, .magic = 0xd03),
        BROKEN("header says 0 images", HIRL_ERR_FORMAT, .n = 0),
        BROKEN("header says 4294967295 images", HIRL_ERR_FORMAT, .n = 0xffffffff),
        BROKEN("header says images of 0 x 3 pixels", HIRL_ERR_FORMAT, .width = 0),
        BROKEN("header says images of 4 x 70000 pixels", HIRL_ERR_FORMAT, .height = 70000),
        BROKEN("header says images of 65000 x 65000 pixels", HIRL_ERR_FORMAT, .height = 65000,
               .width = 65000),
        BROKEN("header says 134217728 images of 4 x 3 pixels, 76 bytes cannot hold them",
               HIRL_ERR_FORMAT, .n = 1 << 27),
        BROKEN("train-images-idx3-ubyte: ends early, 60 more bytes expected", HIRL_ERR_FORMAT,
               .extra = -60),
        BROKEN("train-images-idx3-ubyte: ends early, 1 more bytes expected", HIRL_ERR_FORMAT,
               .extra = -1),
        BROKEN("goes on after the 76 bytes that its header promises", HIRL_ERR_FORMAT, .extra = 1),
        BROKEN("ends early, 12 more bytes expected", HIRL_ERR_FORMAT, .extra = -72),
        BROKEN("begins with 0x00000803, expected 0x00000801", HIRL_ERR_FORMAT,
               .label_magic = 0x803),
        BROKEN("has 4 labels,", HIRL_ERR_FORMAT, .n_labels = 4),
        BROKEN("labels-idx1-ubyte: ends early, 2 more bytes expected", HIRL_ERR_FORMAT,
               .label_extra = -2),
        BROKEN("labels-idx1-ubyte: goes on after the 13 bytes", HIRL_ERR_FORMAT, .label_extra = 2),
        BROKEN("unexpected end of file; get it again", HIRL_ERR_FORMAT, .is_gzip = true,
               .gzip_cut = 30),
        BROKEN("unexpected end of file; get it again", HIRL_ERR_FORMAT, .is_gzip = true,
               .gzip_cut = 2),
        BROKEN("; get it again", HIRL_ERR_FORMAT, .is_gzip = true, .gzip_damage = 40),
    };
#pragma GCC diagnostic pop
    for (size_t c = 0; c < sizeof broken / sizeof *broken; c++) {
        write_idx(cfg.source, &broken[c].idx);
        CHECK_FAILS(hirl_data_pack(world, &cfg), broken[c].status, broken[c].text);
        CHECK_EQ_I(count_files(cfg.output, ""), 0);
    }
    // A gzip file whose checksum alone is wrong: everything can be inflated.
    idx_t damaged = good;
    damaged.is_gzip = true;
    write_idx(cfg.source, &damaged);
    if (test_rank() == 0) {
        char path[2048];
        snprintf(path, sizeof path, "%s/train-images-idx3-ubyte.gz", cfg.source);
        file_bytes_t file = load_file(path);
        file.bytes[file.size - 6] ^= 1;
        save_file(path, file.bytes, file.size);
        free(file.bytes);
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "more bytes expected: incorrect data check; get it again");
    CHECK_EQ_I(count_files(cfg.output, ""), 0);

    write_idx(cfg.source, &good);
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_EQ_I(count_files(cfg.output, ""), 1);
    snprintf(cfg.split, sizeof cfg.split, "val");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "has no file t10k-images-idx3-ubyte or");
    snprintf(cfg.split, sizeof cfg.split, "extra");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "files for 'train', 'val' and 'test' only");

    // Without labels, by the name of the file, a split may have any name.
    shell("rm %s/train-labels-idx1-ubyte", cfg.source);
    snprintf(cfg.source, sizeof cfg.source, "%s/train-images-idx3-ubyte", test_path("idx"));
    NEED_OK(hirl_data_pack(world, &cfg));
    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    char path[2048];
    snprintf(path, sizeof path, "%s/extra-00000.h5", cfg.output);
    NEED_OK(hirl_shard_set_open(world, path, &data, &set));
    CHECK_EQ_I(hirl_shard_set_n_classes(set), 0);
    int height = 0, width = 0;
    hirl_shard_set_image_size(set, 4, &height, &width);
    CHECK(height == 3 && width == 4);
    hirl_shard_set_close(&set);
}

static void test_settings(void) {
    const hirl_pack_cfg_t base = pack_cfg(IMAGES, "train", test_path("settings"));
    const struct {
        const char *text;
        hirl_status_t status;
        const char *source, *format, *split, *output;
        int64_t shard_mib, n_holdout;
    } wrong[] = {
        {"pack%source is empty", HIRL_ERR_DECK, "", NULL, NULL, NULL, 0, 0},
        {"pack%source: /nowhere/at/all does not exist", HIRL_ERR_IO, "/nowhere/at/all", NULL, NULL,
         NULL, 0, 0},
        {"has none of the usual names", HIRL_ERR_DECK, IMAGES "/apple/one.png", NULL, NULL, NULL, 0,
         0},
        {"pack%format is 'zip', expected 'auto'", HIRL_ERR_DECK, NULL, "zip", NULL, NULL, 0, 0},
        {"has no file train-images-idx3-ubyte", HIRL_ERR_IO, NULL, "idx", NULL, NULL, 0, 0},
        {"has neither data_batch_%d.bin nor test_batch.bin", HIRL_ERR_IO, NULL, "cifar10", NULL,
         NULL, 0, 0},
        {"is not a folder", HIRL_ERR_IO, IMAGES "/apple/one.png", "folder", NULL, NULL, 0, 0},
        {"pack%split is '../x'", HIRL_ERR_DECK, NULL, NULL, "../x", NULL, 0, 0},
        {"pack%output is empty", HIRL_ERR_DECK, NULL, NULL, NULL, "", 0, 0},
        {"exists and is not a folder", HIRL_ERR_IO, NULL, NULL, NULL, IMAGES "/apple/one.png", 0,
         0},
        {"pack%shard_mib is -1", HIRL_ERR_DECK, NULL, NULL, NULL, NULL, -1, 0},
        {"pack%n_holdout is -1", HIRL_ERR_DECK, NULL, NULL, NULL, NULL, 0, -1},
        {"pack%n_holdout is 26, and there are 26 samples", HIRL_ERR_DECK, NULL, NULL, NULL, NULL, 0,
         26},
        {"the name of the split that pack%n_holdout makes", HIRL_ERR_DECK, NULL, NULL, "holdout",
         NULL, 0, 3},
    };
    for (size_t c = 0; c < sizeof wrong / sizeof *wrong; c++) {
        hirl_pack_cfg_t cfg = base;
        if (wrong[c].source) snprintf(cfg.source, sizeof cfg.source, "%s", wrong[c].source);
        if (wrong[c].format) snprintf(cfg.format, sizeof cfg.format, "%s", wrong[c].format);
        if (wrong[c].split) snprintf(cfg.split, sizeof cfg.split, "%s", wrong[c].split);
        if (wrong[c].output) snprintf(cfg.output, sizeof cfg.output, "%s", wrong[c].output);
        if (wrong[c].shard_mib) cfg.shard_mib = wrong[c].shard_mib;
        cfg.n_holdout = wrong[c].n_holdout;
        CHECK_FAILS(hirl_data_pack(world, &cfg), wrong[c].status, wrong[c].text);
    }
    CHECK_EQ_I(count_files(base.output, ""), 0);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_idx);
    RUN(test_settings);
    hirl_world_destroy(&world);
}
