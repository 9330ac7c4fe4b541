// test: ranks=1,2 timeout=60
// Sets of several shards as one sequence of samples: mapped and read, by many threads, named by
// file, folder and pattern; damaged bytes, mixed splits and classes, lost files.
#include "pack_util.h"

static hirl_world_t *world;

enum { COUNT = 500, SIDE = 64 };

// Pixel p of sample i; sizes and labels tell samples apart as well.
static unsigned char value(int i, int p) {
    return (unsigned char)(((unsigned)(i * SIDE * SIDE + p) * 2654435761u) >> 21);
}

// An IDX pair of COUNT images of 64 x 64: 1.95 MiB, two shards of at most 1 MiB.
static void write_source(const char *folder, const char *prefix, int first) {
    shell("mkdir -p %s", folder);
    if (test_rank() == 0) {
        unsigned char *bytes = malloc(16 + COUNT * SIDE * SIDE), labels[8 + COUNT];
        const unsigned char header[16] = {0, 0, 8, 3,    0, 0, COUNT >> 8, COUNT & 255,
                                          0, 0, 0, SIDE, 0, 0, 0,          SIDE};
        memcpy(bytes, header, 16);
        memcpy(labels, (unsigned char[8]){0, 0, 8, 1, 0, 0, COUNT >> 8, COUNT & 255}, 8);
        for (int i = 0; i < COUNT; i++) {
            for (int p = 0; p < SIDE * SIDE; p++) {
                bytes[16 + i * SIDE * SIDE + p] = value(first + i, p);
            }
            labels[8 + i] = (unsigned char)((first + i) % 7);
        }
        char path[2048];
        snprintf(path, sizeof path, "%s/%s-images-idx3-ubyte", folder, prefix);
        save_file(path, bytes, 16 + COUNT * SIDE * SIDE);
        snprintf(path, sizeof path, "%s/%s-labels-idx1-ubyte", folder, prefix);
        save_file(path, labels, 8 + COUNT);
        free(bytes);
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static bool is_sample(const hirl_shard_set_t *set, int64_t i, hirl_buffer_t *buffer) {
    hirl_sample_t sample;
    if (hirl_shard_set_read(set, i, buffer, &sample) != HIRL_OK) return false;
    bool is_right = sample.size == SIDE * SIDE && sample.height == SIDE && sample.width == SIDE &&
                    sample.channels == 1 && sample.encoding == HIRL_ENCODING_RAW &&
                    sample.label == i % 7 && hirl_shard_set_label(set, i) == i % 7;
    for (int p = 0; is_right && p < SIDE * SIDE; p++) {
        is_right = sample.bytes[p] == value((int)i, p);
    }
    return is_right;
}

static void check_set(const char *pattern, const char *access) {
    hirl_data_cfg_t cfg = data_cfg(access);
    hirl_shard_set_t *set = NULL;
    double begun = hirl_time_now();
    NEED_OK(hirl_shard_set_open(world, pattern, &cfg, &set));
    if (test_rank() == 0) printf("opened in %.1f ms\n", 1e3 * (hirl_time_now() - begun));
    CHECK_EQ_I(hirl_shard_set_n_samples(set), COUNT);
    CHECK_EQ_I(hirl_shard_set_n_classes(set), 7);
    CHECK_EQ_I(hirl_shard_set_channels(set), 1);
    int n_wrong = 0;
#pragma omp parallel num_threads(4) reduction(+ : n_wrong)
    {
        hirl_buffer_t buffer = {0};
#pragma omp for schedule(dynamic, 1)
        for (int k = 0; k < 4 * COUNT; k++) {
            n_wrong += !is_sample(set, (int64_t)k * 173 % COUNT, &buffer);
        }
        hirl_buffer_reset(&buffer);
    }
    CHECK_EQ_I(n_wrong, 0);
    char place[HIRL_DECK_TEXT_MAX];
    // 256 images of 4 KiB fill 1 MiB.
    CHECK_HAS(hirl_shard_set_place(set, 255, place), "/train-00000.h5 sample 255");
    CHECK_HAS(hirl_shard_set_place(set, 256, place), "/train-00001.h5 sample 0");
    CHECK_HAS(hirl_shard_set_place(set, COUNT, place), "sample 500 of 500");
    hirl_shard_set_close(&set);
    CHECK(set == NULL);
    hirl_shard_set_close(&set);
}

static hirl_status_t try_open(const char *pattern) {
    hirl_data_cfg_t cfg = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    hirl_status_t status = hirl_shard_set_open(world, pattern, &cfg, &set);
    hirl_shard_set_close(&set);
    return status;
}

static void test_patterns(void) {
    const char *shards = test_path("shards");
    char pattern[2048];
    check_set(shards, "mmap");
    check_set(shards, "pread");
    snprintf(pattern, sizeof pattern, "%s/train-*.h5", shards);
    check_set(pattern, "mmap");
    snprintf(pattern, sizeof pattern, "%s/train-0000{1,0}.h5", shards); // sorted all the same
    check_set(pattern, "pread");

    snprintf(pattern, sizeof pattern, "%s/val-*.h5", shards);
    CHECK_FAILS(try_open(pattern), HIRL_ERR_IO, "no file matches ");
    CHECK_FAILS(try_open(""), HIRL_ERR_ARG, "the pattern is empty");
    CHECK_FAILS(try_open(test_path("source")), HIRL_ERR_IO, "holds no *.h5 files; task 'pack'");
    CHECK_FAILS(try_open(test_path("source/train-images-idx3-ubyte")), HIRL_ERR_FORMAT,
                "not an HDF5 file");
    hirl_data_cfg_t cfg = data_cfg("paper");
    hirl_shard_set_t *set = NULL;
    CHECK_FAILS(hirl_shard_set_open(world, shards, &cfg, &set), HIRL_ERR_DECK,
                "data%access is 'paper'");
    cfg = data_cfg("mmap");
    cfg.channels = 2;
    CHECK_FAILS(hirl_shard_set_open(world, shards, &cfg, &set), HIRL_ERR_DECK,
                "data%channels is 2");
}

// A byte that changed on disk is noticed when it is read, if that is asked for.
static void test_damage(void) {
    shell("cp -r %s %s", test_path("shards"), test_path("damaged"));
    if (test_rank() == 0) {
        const char *path = test_path("damaged/train-00001.h5");
        file_bytes_t file = load_file(path);
        unsigned char *at = file.bytes;
        // Sample 256 + 3, found by its pixels.
        unsigned char image[SIDE * SIDE];
        for (int p = 0; p < SIDE * SIDE; p++) image[p] = value(259, p);
        at = memmem(file.bytes, file.size, image, sizeof image);
        NEED(at != NULL);
        at[1000] ^= 4;
        save_file(path, file.bytes, file.size);
        free(file.bytes);
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    const char *const access[] = {"mmap", "pread"};
    for (int a = 0; a < 2; a++) {
        hirl_data_cfg_t cfg = data_cfg(access[a]);
        hirl_shard_set_t *set = NULL;
        hirl_buffer_t buffer = {0};
        hirl_sample_t sample;
        NEED_OK(hirl_shard_set_open(world, test_path("damaged"), &cfg, &set));
        CHECK(is_sample(set, 258, &buffer) && is_sample(set, 260, &buffer));
        CHECK_FAILS(hirl_shard_set_read(set, 259, &buffer, &sample), HIRL_ERR_FORMAT,
                    "/train-00001.h5 sample 3: checksum is ");
        hirl_shard_set_close(&set);
        cfg.verify = false;
        NEED_OK(hirl_shard_set_open(world, test_path("damaged"), &cfg, &set));
        CHECK_OK(hirl_shard_set_read(set, 259, &buffer, &sample));
        hirl_shard_set_close(&set);
        hirl_buffer_reset(&buffer);
    }
    // Cut short after it was opened: reading reports it where mapping could not.
    hirl_data_cfg_t cfg = data_cfg("pread");
    hirl_shard_set_t *set = NULL;
    hirl_buffer_t buffer = {0};
    hirl_sample_t sample;
    NEED_OK(hirl_shard_set_open(world, test_path("damaged"), &cfg, &set));
    shell("truncate -s 4000 %s", test_path("damaged/train-00001.h5"));
    CHECK_FAILS(hirl_shard_set_read(set, 300, &buffer, &sample), HIRL_ERR_IO,
                "the file was cut short");
    hirl_shard_set_close(&set);
    hirl_buffer_reset(&buffer);
}

static void test_disagreement(void) {
    const char *mixed = test_path("mixed");
    char pattern[2048];
    shell("mkdir -p %s && cp %s/* %s", mixed, test_path("shards"), mixed);
    hirl_pack_cfg_t cfg = pack_cfg(test_path("source"), "val", mixed);
    write_source(cfg.source, "t10k", COUNT);
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_FAILS(try_open(mixed), HIRL_ERR_FORMAT, "is of split 'val', ");
    CHECK_HAS(hirl_error_text_view(), "name one of them as '<folder>/train-*.h5'");
    snprintf(pattern, sizeof pattern, "%s/*.h5", mixed); // a pattern that says so joins splits
    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    NEED_OK(hirl_shard_set_open(world, pattern, &data, &set));
    hirl_buffer_t buffer = {0};
    CHECK_EQ_I(hirl_shard_set_n_samples(set), 2 * COUNT);
    CHECK(is_sample(set, COUNT, &buffer) && is_sample(set, 2 * COUNT - 1, &buffer));
    hirl_shard_set_close(&set);
    hirl_buffer_reset(&buffer);

    // Encoded images do not mix with raw ones; classes have to be the same.
    const char *images = test_path("images");
    cfg = pack_cfg(IMAGES, "one", images);
    NEED_OK(hirl_data_pack(world, &cfg));
    shell("cp %s/train-00000.h5 %s/raw.h5", test_path("shards"), images);
    snprintf(pattern, sizeof pattern, "%s/*.h5", images);
    CHECK_FAILS(try_open(pattern), HIRL_ERR_FORMAT,
                "raw.h5: encoding is 'raw', expected what fits 'mixed'");
    shell("rm %s/raw.h5 && mkdir -p %s && cp -r " IMAGES "/* %s && mv %s/apple %s/pear", images,
          test_path("pears"), test_path("pears"), test_path("pears"), test_path("pears"));
    cfg = pack_cfg(test_path("pears"), "two", images);
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_FAILS(try_open(pattern), HIRL_ERR_FORMAT, "class 1 is 'apple' (parent -1) in ");

    hirl_shard_set_t *apples = NULL, *pears = NULL;
    data.channels = 3;
    snprintf(pattern, sizeof pattern, "%s/one-00000.h5", images);
    NEED_OK(hirl_shard_set_open(world, pattern, &data, &apples));
    snprintf(pattern, sizeof pattern, "%s/two-00000.h5", images);
    NEED_OK(hirl_shard_set_open(world, pattern, &data, &pears));
    CHECK_OK(hirl_shard_set_check_classes(apples, apples));
    CHECK_FAILS(hirl_shard_set_check_classes(apples, pears), HIRL_ERR_MISMATCH,
                "class 1 is 'apple'");
    hirl_shard_set_close(&apples);
    hirl_shard_set_close(&pears);
}

static void test_describe(void) {
    const char *path = test_path("shards/train-00000.h5");
    hirl_text_t text = {0};
    NEED_OK(hirl_shard_describe(path, &text));
    const char *const parts[] = {"split = 'train'",
                                 "n_samples = 256",
                                 "n_shards = 2",
                                 "source_format = 'idx'",
                                 "/data           u8        [1048576], 1.00 MiB",
                                 "/checksum       u64       [256]",
                                 "height = 64 to 64",
                                 "bytes = 4096 to 4096",
                                 "0: 37 samples"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) CHECK_HAS(text.data, parts[i]);
    hirl_text_reset(&text);
    CHECK(hirl_shard_is_shard(path));
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_pack_cfg_t cfg = pack_cfg(test_path("source"), "train", test_path("shards"));
    cfg.shard_mib = 1;
    write_source(cfg.source, "train", 0);
    NEED_OK(hirl_data_pack(world, &cfg));
    RUN(test_patterns);
    RUN(test_describe);
    RUN(test_damage);
    RUN(test_disagreement);
    hirl_world_destroy(&world);
}
