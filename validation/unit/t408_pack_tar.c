// test: ranks=1,2 timeout=60 needs=python3-h5py,python3-pil,python3-numpy
// Tar archives as Python's tarfile writes them (ustar, pax, GNU), packed without being unpacked and
// compared with what tarfile reads; archives that are cut short, damaged or made to harm; and some
// hundred with changed bytes, which may be refused or not, but do no harm.
#include "pack_util.h"

enum { BLOCK = 512 };

static hirl_world_t *world;

static const char *python(void) {
    const char *name = getenv("PYTHON");
    return name && *name ? name : "/usr/bin/python3";
}

// Not inlined, so that the compiler does not compare the lengths of texts that it sees.
__attribute__((noinline)) static hirl_pack_cfg_t cfg_of(const char *source, const char *split,
                                                        const char *output) {
    return pack_cfg(source, split, output);
}

static void compare(const hirl_pack_cfg_t *cfg, const char *archives) {
    shell("%s validation/reference/pack/check_shards.py tar %s %s/%s-*.h5", python(), archives,
          cfg->output, cfg->split);
}

static void test_kinds(void) {
    static const char *const kinds[] = {"ustar", "pax", "gnu", "flat"};
    shell("mkdir -p %s && %s validation/reference/pack/make_tars.py " IMAGES " %s",
          test_path("tars"), python(), test_path("tars"));
    char path[2048];
    for (int k = 0; k < 4; k++) {
        snprintf(path, sizeof path, "%s/%s.tar", test_path("tars"), kinds[k]);
        hirl_pack_cfg_t cfg = cfg_of(path, kinds[k], test_path("shards"));
        NEED_OK(hirl_data_pack(world, &cfg));
        compare(&cfg, path);
        if (k == 3) break;
        snprintf(path, sizeof path, "%s/%s-skipped.txt", cfg.output, cfg.split);
        file_bytes_t skipped = load_file(path);
        CHECK_EQ_S((char *)skipped.bytes, "apple/empty.png\t0 bytes\n"
                                          "apple/link.png\ta link inside of an archive\n"
                                          "apple/hard.png\ta link inside of an archive\n");
        free(skipped.bytes);
    }
    // Several at once; flat ones with their own names as classes.
    snprintf(path, sizeof path, "%s/{gnu,pax}.tar", test_path("tars"));
    hirl_pack_cfg_t cfg = cfg_of(path, "two", test_path("shards"));
    NEED_OK(hirl_data_pack(world, &cfg));
    snprintf(path, sizeof path, "%s/gnu.tar,%s/pax.tar", test_path("tars"), test_path("tars"));
    compare(&cfg, path);
    shell("cd %s && mkdir flats && cp flat.tar flats/n02.tar && cp flat.tar flats/n01.tar",
          test_path("tars"));
    snprintf(path, sizeof path, "%s/flats/n*.tar", test_path("tars"));
    cfg = cfg_of(path, "flats", test_path("shards"));
    snprintf(cfg.classes, sizeof cfg.classes, "archive");
    NEED_OK(hirl_data_pack(world, &cfg));
    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    snprintf(path, sizeof path, "%s/flats-*.h5", cfg.output);
    NEED_OK(hirl_shard_set_open(world, path, &data, &set));
    CHECK_EQ_I(hirl_shard_set_n_samples(set), 4);
    CHECK_EQ_I(hirl_shard_set_label(set, 1), 0);
    CHECK_EQ_I(hirl_shard_set_label(set, 2), 1);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 1), "n02");
    hirl_shard_set_close(&set);
    snprintf(cfg.source, sizeof cfg.source, IMAGES);
    snprintf(cfg.split, sizeof cfg.split, "none");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "expected tar archives");
}

// -------------------------------------------------------------------------- archives made here

typedef struct builder {
    unsigned char bytes[64 * BLOCK];
    size_t size;
} builder_t;

static void seal(unsigned char *block) {
    unsigned sum = 0;
    memset(block + 148, ' ', 8);
    for (int i = 0; i < BLOCK; i++) sum += block[i];
    snprintf((char *)block + 148, 8, "%06o", sum);
}

static unsigned char *add(builder_t *tar, const char *name, char type, const void *data, size_t n) {
    unsigned char *block = tar->bytes + tar->size;
    memset(block, 0, BLOCK);
    snprintf((char *)block, 100, "%s", name);
    memcpy(block + 100, "0000644", 7);
    snprintf((char *)block + 124, 12, "%011o", (unsigned)n);
    block[156] = (unsigned char)type;
    memcpy(block + 257, "ustar\00000", 8);
    seal(block);
    memset(block + BLOCK, 0, (n + BLOCK - 1) / BLOCK * BLOCK);
    memcpy(block + BLOCK, data, n);
    tar->size += BLOCK + (n + BLOCK - 1) / BLOCK * BLOCK;
    return block;
}

static void finish(builder_t *tar) {
    memset(tar->bytes + tar->size, 0, 2 * BLOCK);
    tar->size += 2 * BLOCK;
}

static const char *archive_path(void) { return test_path("made.tar"); }

static void put(const builder_t *tar) {
    if (test_rank() == 0) save_file(archive_path(), tar->bytes, tar->size);
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static void refused(const builder_t *tar, const char *text) {
    hirl_pack_cfg_t cfg = pack_cfg(archive_path(), "train", test_path("refused"));
    put(tar);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, text);
    CHECK_EQ_I(count_files(cfg.output, ".h5"), 0);
}

static void build(builder_t *tar, const file_bytes_t *image) {
    tar->size = 0;
    (void)add(tar, "a/1.png", '0', image->bytes, image->size);
    (void)add(tar, "a/2.png", '0', image->bytes, image->size);
    finish(tar);
}

static void test_broken(void) {
    static builder_t tar;
    file_bytes_t image = load_file(IMAGES "/apple/one.png");
    unsigned char *second = tar.bytes + 2 * BLOCK;
    build(&tar, &image);
    tar.size = 2 * BLOCK + BLOCK + 10; // in the middle of the second image
    refused(&tar, "made.tar: a/2.png (header at byte 1024) has 69 bytes, 10 are left: the archive");
    tar.size = 3 * BLOCK - 1;
    refused(&tar, "ends at byte 1535 without the blocks of zeros that end a tar archive");
    build(&tar, &image);
    tar.size -= 2 * BLOCK;
    refused(&tar, "ends at byte 2048 without the blocks of zeros");
    tar.size = 0;
    refused(&tar, "ends at byte 0 without the blocks of zeros");
    build(&tar, &image);
    second[3] ^= 1;
    refused(&tar, "the header at byte 1024 has a wrong checksum: the archive is damaged");
    memset(tar.bytes, 'x', BLOCK);
    refused(&tar, "the header at byte 0 has a wrong checksum: it is no tar archive");

    // Sizes: more than the file, negative, near 2^63, no number.
    build(&tar, &image);
    memcpy(second + 124, "77777777777", 12);
    seal(second);
    refused(&tar, "a/2.png (header at byte 1024) has 8589934591 bytes, 1536 are left");
    memset(second + 124, 0xff, 12);
    seal(second);
    refused(&tar, "the header at byte 1024 has no size");
    memset(second + 124, 0xff, 12);
    second[124] = 0x80;
    memset(second + 125, 0, 3);
    second[128] = 0x7f;
    seal(second);
    refused(&tar, "has 9223372036854775807 bytes, 1536 are left");
    memcpy(second + 124, "0x000000001", 12);
    seal(second);
    refused(&tar, "the header at byte 1024 has no size");

    // Extended headers.
    static const char *const pax[] = {"",
                                      "x",
                                      "99 path=a\n",
                                      "9 path=a/1",
                                      "3 =\n",
                                      "12 path=a/b\n",
                                      "-5 path=a\n",
                                      "0 path=a\n",
                                      "18446744073709551615 path=a\n"};
    for (size_t i = 1; i < sizeof pax / sizeof *pax; i++) {
        tar.size = 0;
        (void)add(&tar, "x", 'x', pax[i], strlen(pax[i]));
        (void)add(&tar, "a/1.png", '0', image.bytes, image.size);
        finish(&tar);
        if (i == 4 || i == 5) continue; // "3 =" is too short, "12 path=a/b" is right
        refused(&tar, "the extended header at byte 0 is damaged");
    }
    tar.size = 0;
    (void)add(&tar, "x", 'x', "12 size=-1x\n", 12);
    finish(&tar);
    refused(&tar, "says size '-1x', expected a number");
    tar.size = 0;
    (void)add(&tar, "x", 'x', "27 size=99999999999999999\n", 27);
    (void)add(&tar, "a/1.png", '0', image.bytes, image.size);
    finish(&tar);
    refused(&tar, "the extended header at byte 0 is damaged"); // its length is 26
    tar.size = 0;
    (void)add(&tar, "x", 'x', "26 size=99999999999999999\n", 26);
    (void)add(&tar, "a/1.png", '0', image.bytes, image.size);
    finish(&tar);
    refused(&tar, "a/1.png (header at byte 1024) has 99999999999999999 bytes, 1536 are left");
    tar.size = 0;
    unsigned char *block = add(&tar, "L", 'L', image.bytes, image.size);
    memcpy(block + 124, "00010000000", 12);
    seal(block);
    tar.size = sizeof tar.bytes;
    refused(&tar, "an extended header (header at byte 0) has 2097152 bytes");

    // Paths that lead elsewhere, and types that are no files.
    tar.size = 0;
    (void)add(&tar, "../../etc/1.png", '0', image.bytes, image.size);
    (void)add(&tar, "/a/./b//2.png", '0', image.bytes, image.size);
    (void)add(&tar, "a/fifo.png", '6', "", 0);
    (void)add(&tar, "a/sparse.png", 'S', image.bytes, image.size);
    (void)add(&tar, "a/odd.png", 'Z', image.bytes, image.size);
    finish(&tar);
    put(&tar);
    hirl_pack_cfg_t cfg = pack_cfg(archive_path(), "train", test_path("odd"));
    NEED_OK(hirl_data_pack(world, &cfg));
    char path[2048];
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path);
    CHECK_EQ_S((char *)skipped.bytes, "../../etc/1.png\tits path leads out of the archive\n"
                                      "a/fifo.png\tnot a file: type 0x36\n"
                                      "a/sparse.png\ta sparse file\n"
                                      "a/odd.png\tnot a file: type 0x5a\n");
    free(skipped.bytes);
    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &set));
    CHECK_EQ_I(hirl_shard_set_n_samples(set), 1);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 0), "a/b");
    hirl_shard_set_close(&set);

    static const struct {
        const char *tool, *tail;
    } packings[] = {{"gzip", "gz"}, {"bzip2", "bz2"}, {"xz", "xz"}};
    for (int p = 0; p < 3; p++) {
        char command[64];
        snprintf(command, sizeof command, "command -v %s >/dev/null", packings[p].tool);
        if (system(command) != 0) continue;
        shell("%s -kf %s", packings[p].tool, archive_path());
        snprintf(cfg.source, sizeof cfg.source, "%s.%s", archive_path(), packings[p].tail);
        CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "shards are in the way");
        snprintf(cfg.split, sizeof cfg.split, "val");
        CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "is compressed by ");
        CHECK_HAS(hirl_error_text_view(), packings[p].tool);
        snprintf(cfg.split, sizeof cfg.split, "train");
    }
    free(image.bytes);
}

static void test_changed(void) {
    static builder_t tar;
    file_bytes_t image = load_file(IMAGES "/apple/one.png");
    hirl_pack_cfg_t cfg = pack_cfg(archive_path(), "train", test_path("changed"));
    cfg.overwrite = true;
    hirl_rng_t rng = test_rng(0);
    int n_packed = 0, n_trials = 80;
    for (int i = 0; i < n_trials; i++) {
        tar.size = 0;
        (void)add(&tar, "x", 'x', "16 path=b/3.png\n", 16);
        (void)add(&tar, "a/1.png", '0', image.bytes, image.size);
        (void)add(&tar, "L", 'L', "a/long.png", 11);
        (void)add(&tar, "a/2.png", '0', image.bytes, image.size);
        finish(&tar);
        // A byte or two of a header or of what extends it; then its checksum is right again.
        for (int k = 0; k <= i % 2; k++) {
            static const int fields[] = {0, 3, 124, 126, 135, 148, 156, 257, 345};
            const size_t block = (size_t)hirl_rng_below(&rng, 8),
                         field = (size_t)hirl_rng_below(&rng, 9),
                         at = block % 2 ? (size_t)hirl_rng_below(&rng, 17) : (size_t)fields[field];
            tar.bytes[block * BLOCK + at] = (unsigned char)hirl_rng_u32(&rng);
            if (block % 2 == 0) seal(tar.bytes + block * BLOCK);
        }
        put(&tar);
        hirl_status_t status = hirl_data_pack(world, &cfg);
        CHECK_MSG(status == HIRL_OK || status == HIRL_ERR_FORMAT, "trial %d: %s", i,
                  hirl_error_text_view());
        n_packed += status == HIRL_OK;
    }
    CHECK_MSG(n_packed > 10 && n_packed < n_trials - 10, "%d of %d were packed", n_packed,
              n_trials);
    free(image.bytes);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    if (test_size() > 1) RUN(test_kinds);
    if (test_size() == 1) RUN(test_broken);
    if (test_size() == 1) RUN(test_changed);
    hirl_world_destroy(&world);
}
