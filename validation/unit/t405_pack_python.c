// test: ranks=1,2 timeout=120 needs=python3-h5py,python3-pil,python3-numpy sanitize=no
// Shards of an IDX data set, of CIFAR batches and of an image folder, read back by h5py and
// compared with the sources as gzip, NumPy and Pillow read them.
#include "pack_util.h"

static hirl_world_t *world;

static void compare(const hirl_pack_cfg_t *cfg, const char *kind, const char *source,
                    const char *split) {
    const char *python = getenv("PYTHON");
    shell("%s validation/reference/pack/check_shards.py %s %s %s/%s-*.h5",
          python && *python ? python : "/usr/bin/python3", kind, source, cfg->output, split);
}

static void test_idx(void) {
    if (!is_there(FASHION "/t10k-images-idx3-ubyte.gz")) {
        if (test_rank() == 0) printf("no " FASHION ": IDX is left out\n");
        return;
    }
    hirl_pack_cfg_t cfg = pack_cfg(FASHION, "test", test_path("idx"));
    NEED_OK(hirl_data_pack(world, &cfg));
    compare(&cfg, "idx", FASHION " t10k", "test");
    cfg = pack_cfg(FASHION, "train", test_path("idx"));
    cfg.shard_mib = 8;
    cfg.shuffle = true;
    cfg.n_holdout = 1000;
    NEED_OK(hirl_data_pack(world, &cfg));
    compare(&cfg, "idx", FASHION " train", "train");
}

static void test_cifar(void) {
    shell("mkdir -p %s", test_path("c10"));
    if (test_rank() == 0) {
        hirl_rng_t rng = test_rng(0);
        for (int b = 1; b <= 2; b++) {
            unsigned char bytes[40 * 3073];
            for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)hirl_rng_u32(&rng);
            for (int i = 0; i < 40; i++) bytes[i * 3073] = (unsigned char)(i == 13 ? 77 : i % 10);
            char path[2048];
            snprintf(path, sizeof path, "%s/data_batch_%d.bin", test_path("c10"), b);
            save_file(path, bytes, sizeof bytes);
        }
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    hirl_pack_cfg_t cfg = pack_cfg(test_path("c10"), "train", test_path("c10-shards"));
    NEED_OK(hirl_data_pack(world, &cfg));
    compare(&cfg, "cifar", cfg.source, "train");
}

static void test_images(void) {
    hirl_pack_cfg_t cfg = pack_cfg(IMAGES, "train", test_path("images"));
    NEED_OK(hirl_data_pack(world, &cfg));
    compare(&cfg, "tree", IMAGES, "train");
    snprintf(cfg.classes, sizeof cfg.classes, "top");
    cfg.overwrite = true;
    NEED_OK(hirl_data_pack(world, &cfg));
    compare(&cfg, "folder", IMAGES, "train");
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_idx);
    RUN(test_cifar);
    RUN(test_images);
    hirl_world_destroy(&world);
}
