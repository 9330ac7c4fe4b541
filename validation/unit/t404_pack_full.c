// test: timeout=60
// A disk that fills up while shards are written, early, in the middle and at the very end: an error
// with the system's words, no shard and no rest of one, and a program that goes on and ends well.
#include "pack_util.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

static hirl_world_t *world;

// A mount namespace of our own, so that a small disk can be made of memory.
static bool isolate(void) {
    const int uid = (int)geteuid();
    if (uid == 0) {
        if (unshare(CLONE_NEWNS) != 0) return false;
    } else {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
        char map[64];
        int size = snprintf(map, sizeof map, "0 %d 1", uid);
        FILE *file = fopen("/proc/self/uid_map", "w");
        if (!file || fwrite(map, 1, (size_t)size, file) != (size_t)size || fclose(file) != 0)
            return false;
    }
    return mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

// Packs the source onto a disk of so many pages; true if they were enough.
static bool pack_on(hirl_pack_cfg_t *cfg, int64_t n_pages) {
    char options[64];
    snprintf(options, sizeof options, "size=%lld", (long long)n_pages * 4096);
    NEED(mount("none", cfg->output, "tmpfs", 0, options) == 0);
    hirl_status_t status = hirl_data_pack(world, cfg);
    if (status == HIRL_OK) {
        CHECK_EQ_I(count_files(cfg->output, ""), 1);
    } else {
        CHECK_HAS(hirl_error_text_view(), "No space left on device");
        CHECK_EQ_I(count_files(cfg->output, ""), 0);
    }
    NEED(umount(cfg->output) == 0);
    return status == HIRL_OK;
}

static void test_full(void) {
    // 700 kB of images: more than HDF5 keeps back for itself. 64 bytes an image make large arrays.
    enum { COUNT = 11000, BYTES = 64 };
    unsigned char *bytes = calloc(1, 16 + COUNT * BYTES);
    const unsigned char header[16] = {0, 0, 8, 3, 0, 0, COUNT >> 8, COUNT & 255,
                                      0, 0, 0, 8, 0, 0, 0,          8};
    memcpy(bytes, header, 16);
    for (int i = 0; i < COUNT * BYTES; i++) bytes[16 + i] = (unsigned char)(i * 7 + i / 1000);
    save_file(test_path("big-images-idx3-ubyte"), bytes, 16 + COUNT * BYTES);
    free(bytes);
    hirl_pack_cfg_t cfg = pack_cfg(test_path("big-images-idx3-ubyte"), "train", test_path("disk"));
    NEED(mkdir(cfg.output, 0777) == 0);

    // The pages that the shard needs: between those of its images, which are looked for beforehand,
    // and four times as many. Then some fewer, one by one near the end.
    int64_t least = COUNT * BYTES / 4096 + 1, low = least, high = 4 * least;
    CHECK(pack_on(&cfg, high));
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (pack_on(&cfg, middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    for (int64_t missing = 2; missing < 40 && high - missing > least;
         missing += missing < 8 ? 1 : 7) {
        CHECK(!pack_on(&cfg, high - missing));
    }
    NEED(mount("none", cfg.output, "tmpfs", 0, "size=8192") == 0);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO,
                "the shards need 687.50 KiB, 8.00 KiB are free");
    NEED(umount(cfg.output) == 0);

    struct rlimit old, small = {0};
    NEED(getrlimit(RLIMIT_FSIZE, &old) == 0);
    small = old;
    small.rlim_cur = 1 << 20;
    NEED(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "or raise 'ulimit -f'");
    NEED(setrlimit(RLIMIT_FSIZE, &old) == 0);
}

TEST_MAIN {
    if (!isolate()) SKIP("no mount namespace of our own: %s", strerror(errno));
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_full);
    hirl_world_destroy(&world);
}
