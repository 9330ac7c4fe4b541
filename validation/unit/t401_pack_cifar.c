// test: ranks=1,2 timeout=60
// Synthetic CIFAR-10 and CIFAR-100 batches: planes become pixels, labels, class names and
// super-classes are kept, records with impossible labels are skipped and listed.
#include "pack_util.h"

enum { SIDE = 32, PIXELS = SIDE * SIDE };

static hirl_world_t *world;

// Value of one sample's channel c at (y, x): any rule that tells all of them apart will do.
static unsigned char value(int sample, int c, int y, int x) {
    return (unsigned char)(sample * 31 + c * 101 + y * 7 + x * 3 + (y * x) % 5);
}

// Writes `n` records with the given label bytes (n_labels each), the first of them being sample
// `first`.
static void write_batch(const char *path, int first, int n, int n_labels,
                        const unsigned char *labels) {
    if (test_rank() == 0) {
        size_t stride = 3 * PIXELS + (size_t)n_labels;
        unsigned char *bytes = malloc((size_t)n * stride), *at = bytes;
        for (int i = 0; i < n; i++) {
            for (int l = 0; l < n_labels; l++) *at++ = labels[i * n_labels + l];
            for (int c = 0; c < 3; c++) {
                for (int p = 0; p < PIXELS; p++) *at++ = value(first + i, c, p / SIDE, p % SIDE);
            }
        }
        save_file(path, bytes, (size_t)n * stride);
        free(bytes);
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static hirl_shard_set_t *open_split(const hirl_pack_cfg_t *cfg) {
    char pattern[2048];
    snprintf(pattern, sizeof pattern, "%s/%s-*.h5", cfg->output, cfg->split);
    hirl_data_cfg_t data = data_cfg("pread");
    hirl_shard_set_t *set = NULL;
    NEED_OK(hirl_shard_set_open(world, pattern, &data, &set));
    return set;
}

// The set holds these samples with these labels, pixel by pixel.
static void check_samples(const hirl_shard_set_t *set, const int *sample, const int *label, int n) {
    CHECK_EQ_I(hirl_shard_set_n_samples(set), n);
    CHECK_EQ_I(hirl_shard_set_channels(set), 3);
    hirl_buffer_t buffer = {0}, decoded = {0};
    for (int i = 0; i < n; i++) {
        hirl_sample_t stored;
        hirl_image_t image;
        NEED_OK(hirl_shard_set_read(set, i, &buffer, &stored));
        NEED_OK(hirl_image_decode(&stored, 0, &decoded, &image));
        CHECK_EQ_I(stored.label, label[i]);
        CHECK_EQ_I(hirl_shard_set_label(set, i), label[i]);
        NEED(image.height == SIDE && image.width == SIDE && image.channels == 3);
        int n_wrong = 0;
        for (int p = 0; p < 3 * PIXELS; p++) {
            n_wrong += image.pixels[p] != value(sample[i], p % 3, p / 3 / SIDE, p / 3 % SIDE);
        }
        CHECK_EQ_I(n_wrong, 0);
    }
    hirl_buffer_reset(&buffer);
    hirl_buffer_reset(&decoded);
}

static void test_cifar10(void) {
    const char *root = test_path("c10");
    shell("mkdir -p %s/cifar-10-batches-bin", root);
    char path[2048];
    const unsigned char first[3] = {4, 9, 0}, second[3] = {200, 1, 10}, test[2] = {3, 2};
    snprintf(path, sizeof path, "%s/cifar-10-batches-bin/data_batch_1.bin", root);
    write_batch(path, 0, 3, 1, first);
    snprintf(path, sizeof path, "%s/cifar-10-batches-bin/data_batch_2.bin", root);
    write_batch(path, 3, 3, 1, second);
    snprintf(path, sizeof path, "%s/cifar-10-batches-bin/test_batch.bin", root);
    write_batch(path, 50, 2, 1, test);

    hirl_pack_cfg_t cfg = pack_cfg(root, "train", test_path("c10-shards"));
    NEED_OK(hirl_data_pack(world, &cfg));
    hirl_shard_set_t *set = open_split(&cfg);
    check_samples(set, (int[]){0, 1, 2, 4}, (int[]){4, 9, 0, 1}, 4);
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), 0); // no batches.meta.txt
    hirl_shard_set_close(&set);
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path);
    CHECK_EQ_S((char *)skipped.bytes, "data_batch_2.bin#0\tlabel 200, expected less than 10\n"
                                      "data_batch_2.bin#2\tlabel 10, expected less than 10\n");
    free(skipped.bytes);

    if (test_rank() == 0) {
        snprintf(path, sizeof path, "%s/cifar-10-batches-bin/batches.meta.txt", root);
        const char names[] =
            "airplane\nautomobile\r\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
        save_file(path, names, strlen(names));
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    snprintf(cfg.split, sizeof cfg.split, "test");
    NEED_OK(hirl_data_pack(world, &cfg));
    set = open_split(&cfg);
    check_samples(set, (int[]){50, 51}, (int[]){3, 2}, 2);
    CHECK_EQ_I(hirl_shard_set_n_classes(set), 4);
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), 10);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 1), "automobile");
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 9), "truck");
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 10), "");
    CHECK_EQ_I(hirl_shard_set_class_parent(set, 9), -1);
    hirl_shard_set_close(&set);

    // One file by its name, into a split of any name.
    snprintf(cfg.source, sizeof cfg.source, "%s/cifar-10-batches-bin/data_batch_*.bin", root);
    snprintf(cfg.format, sizeof cfg.format, "cifar10");
    snprintf(cfg.split, sizeof cfg.split, "extra");
    NEED_OK(hirl_data_pack(world, &cfg));
    set = open_split(&cfg);
    check_samples(set, (int[]){0, 1, 2, 4}, (int[]){4, 9, 0, 1}, 4);
    hirl_shard_set_close(&set);
}

static void test_cifar100(void) {
    const char *root = test_path("c100");
    shell("mkdir -p %s; i=0; while [ $i -lt 100 ]; do echo fine$i; i=$((i+1)); done "
          ">%s/fine_label_names.txt; "
          "i=0; while [ $i -lt 20 ]; do echo coarse$i; i=$((i+1)); done >%s/coarse_label_names.txt",
          root, root, root);
    char path[2048];
    const unsigned char labels[10] = {19, 99, 3, 0, 20, 5, 19, 98, 1, 255};
    snprintf(path, sizeof path, "%s/train.bin", root);
    write_batch(path, 7, 5, 2, labels);
    hirl_pack_cfg_t cfg = pack_cfg(root, "train", test_path("c100-shards"));
    NEED_OK(hirl_data_pack(world, &cfg));
    hirl_shard_set_t *set = open_split(&cfg);
    check_samples(set, (int[]){7, 8, 10}, (int[]){99, 0, 98}, 3);
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), 120);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 99), "fine99");
    CHECK_EQ_I(hirl_shard_set_class_parent(set, 99), 119);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 119), "coarse19");
    CHECK_EQ_I(hirl_shard_set_class_parent(set, 0), 103);
    CHECK_EQ_I(hirl_shard_set_class_parent(set, 1), -1); // no sample tells
    hirl_shard_set_close(&set);
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path);
    CHECK_EQ_S((char *)skipped.bytes, "train.bin#2\tcoarse label 20, expected less than 20\n"
                                      "train.bin#4\tlabel 255, expected less than 100\n");
    free(skipped.bytes);

    const unsigned char torn[4] = {19, 99, 18, 99};
    snprintf(path, sizeof path, "%s/train.bin", root);
    write_batch(path, 0, 2, 2, torn);
    cfg.overwrite = true;
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "train.bin#1: class 99 has super-class 18, and 19 in");
    shell("head -n 99 %s/fine_label_names.txt >%s/x && mv %s/x %s/fine_label_names.txt", root, root,
          root, root);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "fine_label_names.txt: 99 names, expected 100");
    shell("echo >>%s/train.bin", root);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "train.bin: 6149 bytes, expected a multiple of 3074 (2 whole records and 1 bytes)");
    snprintf(cfg.split, sizeof cfg.split, "val");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "has no test.bin for split 'val'");
    snprintf(cfg.split, sizeof cfg.split, "extra");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "pack%split is 'extra'");
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_cifar10);
    RUN(test_cifar100);
    hirl_world_destroy(&world);
}
