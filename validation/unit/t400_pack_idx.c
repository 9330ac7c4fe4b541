// test: ranks=1,2 timeout=120
// Fashion-MNIST as shards: the same bytes on any number of ranks, the pixels and labels of the
// files, a random order and a held-out part that together hold every sample once, and what happens
// to older shards.
#include "pack_util.h"

#include <hdf5.h>

static hirl_world_t *world;

// Position in the IDX file of each sample of a shard, from its name
// "train-images-idx3-ubyte.gz#17".
static int64_t *read_positions(const char *path, int64_t *n_p) {
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t name = H5Dopen2(file, "/name", H5P_DEFAULT),
          offset = H5Dopen2(file, "/name_offset", H5P_DEFAULT);
    hsize_t n_bytes = H5Dget_storage_size(name), n = H5Dget_storage_size(offset) / 8;
    char *text = calloc(n_bytes + 1, 1);
    int64_t *from = calloc(n, 8), *position = calloc(n, 8);
    NEED(H5Dread(name, H5T_NATIVE_CHAR, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) >= 0);
    NEED(H5Dread(offset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, from) >= 0);
    const char start[] = "train-images-idx3-ubyte.gz#";
    for (hsize_t i = 0; i + 1 < n; i++) {
        NEED(strncmp(text + from[i], start, strlen(start)) == 0);
        position[i] = atoll(text + from[i] + strlen(start));
    }
    free(text);
    free(from);
    H5Dclose(name);
    H5Dclose(offset);
    H5Fclose(file);
    *n_p = (int64_t)n - 1;
    return position;
}

// Checks the shards of one split against the source, and marks the samples that it holds.
static void check_split(const char *folder, const char *split, int n_shards,
                        const unsigned char *pixel, const unsigned char *label, bool *is_seen,
                        int64_t *n_ordered) {
    char path[2048];
    snprintf(path, sizeof path, "%s/%s-*.h5", folder, split);
    hirl_data_cfg_t cfg = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    hirl_world_t *self = NULL;
    NEED_OK(hirl_world_create_self(&self));
    NEED_OK(hirl_shard_set_open(self, path, &cfg, &set));
    CHECK_EQ_I(hirl_shard_set_channels(set), 1);
    CHECK_EQ_I(hirl_shard_set_n_classes(set), 10);
    int64_t at = 0, before = -1;
    hirl_buffer_t buffer = {0};
    for (int s = 0; s < n_shards; s++) {
        int64_t n = 0;
        snprintf(path, sizeof path, "%s/%s-%05d.h5", folder, split, s);
        int64_t *position = read_positions(path, &n);
        long n_wrong = 0;
        for (int64_t i = 0; i < n; i++, at++) {
            hirl_sample_t sample;
            NEED_OK(hirl_shard_set_read(set, at, &buffer, &sample));
            NEED(position[i] >= 0 && position[i] < 60000 && sample.size == 784);
            n_wrong += memcmp(sample.bytes, pixel + 784 * position[i], 784) != 0;
            n_wrong += sample.label != label[position[i]];
            n_wrong += is_seen[position[i]]; // twice
            is_seen[position[i]] = true;
            *n_ordered += position[i] > before;
            before = position[i];
        }
        CHECK_EQ_I(n_wrong, 0);
        free(position);
    }
    CHECK_EQ_I(at, hirl_shard_set_n_samples(set));
    hirl_buffer_reset(&buffer);
    hirl_shard_set_close(&set);
    hirl_world_destroy(&self);
}

static void test_content(void) {
    hirl_pack_cfg_t cfg = pack_cfg(FASHION, "train", test_path("shuffled"));
    cfg.shard_mib = 4;
    cfg.n_holdout = 5000;
    cfg.seed = 7;
    cfg.shuffle = true;
    NEED_OK(hirl_data_pack(world, &cfg));
    // 55000 and 5000 images of 784 bytes, 5349 in 4 MiB.
    CHECK_EQ_I(count_files(cfg.output, ".h5"), 11 + 1);
    CHECK_EQ_I(count_files(cfg.output, ".part") + count_files(cfg.output, ".txt"), 0);

    file_bytes_t pixel = load_idx(FASHION "/train-images-idx3-ubyte.gz", 16);
    file_bytes_t label = load_idx(FASHION "/train-labels-idx1-ubyte.gz", 8);
    bool *is_seen = calloc(60000, 1);
    int64_t n_ordered = 0, n_seen = 0;
    check_split(cfg.output, "train", 11, pixel.bytes, label.bytes, is_seen, &n_ordered);
    check_split(cfg.output, "holdout", 1, pixel.bytes, label.bytes, is_seen, &n_ordered);
    for (int i = 0; i < 60000; i++) n_seen += is_seen[i];
    CHECK_EQ_I(n_seen, 60000);
    // In random order half of the samples come later in the file than the one before: 30000 of
    // 60000, deviation sqrt(60000 / 12) = 71; six of them leave one false alarm in 10^9.
    CHECK_MSG(llabs(n_ordered - 30000) < 6 * 71, "%lld of 60000 in order", (long long)n_ordered);
    free(is_seen);
    free(pixel.bytes);
    free(label.bytes);

    if (test_rank() == 0) {
        hirl_world_t *self = NULL;
        hirl_pack_cfg_t again = cfg;
        NEED_OK(hirl_world_create_self(&self));
        snprintf(again.output, sizeof again.output, "%s", test_path("alone"));
        NEED_OK(hirl_data_pack(self, &again));
        check_same_folders(cfg.output, again.output);
        hirl_world_destroy(&self);
    }
}

static void test_order_kept(void) {
    hirl_pack_cfg_t cfg = pack_cfg(FASHION, "train", test_path("plain"));
    NEED_OK(hirl_data_pack(world, &cfg));
    file_bytes_t pixel = load_idx(FASHION "/train-images-idx3-ubyte.gz", 16);
    file_bytes_t label = load_idx(FASHION "/train-labels-idx1-ubyte.gz", 8);
    bool *is_seen = calloc(60000, 1);
    int64_t n_ordered = 0;
    check_split(cfg.output, "train", 1, pixel.bytes, label.bytes, is_seen, &n_ordered);
    CHECK_EQ_I(n_ordered, 60000);
    free(is_seen);
    free(pixel.bytes);
    free(label.bytes);
}

static void test_older_shards(void) {
    hirl_pack_cfg_t cfg = pack_cfg(FASHION, "val", test_path("older"));
    cfg.shard_mib = 1;
    cfg.n_holdout = 1500;
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_EQ_I(count_files(cfg.output, ".h5"), 7 + 2);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "set pack%overwrite = .true.");
    CHECK_HAS(hirl_error_text_view(), "(9 shards are in the way)");

    // Fewer and larger shards leave none of the old ones behind, nor a held-out part that the new
    // split has as well.
    cfg.overwrite = true;
    cfg.shard_mib = 1024;
    cfg.n_holdout = 0;
    shell("touch %s/val-00003.h5.part %s/val-skipped.txt", cfg.output, cfg.output);
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_EQ_I(count_files(cfg.output, ""), 1);

    // Another split of the same folder, and its held-out part, are left alone.
    hirl_pack_cfg_t other = pack_cfg(FASHION, "train", cfg.output);
    other.n_holdout = 100;
    NEED_OK(hirl_data_pack(world, &other));
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_EQ_I(count_files(cfg.output, ""), 3);

    // A source that fails does not touch what is there.
    other.overwrite = true;
    snprintf(other.source, sizeof other.source, "%s", test_path("nothing"));
    CHECK_FAILS(hirl_data_pack(world, &other), HIRL_ERR_IO, "does not exist");
    CHECK_EQ_I(count_files(cfg.output, ""), 3);
}

TEST_MAIN {
    if (!is_there(FASHION "/train-images-idx3-ubyte.gz"))
        SKIP("no " FASHION " (package dataset-fashion-mnist)");
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_content);
    RUN(test_order_kept);
    RUN(test_older_shards);
    hirl_world_destroy(&world);
}
