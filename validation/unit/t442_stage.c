// test: ranks=1,2 timeout=60
// Shards copied to the node: the same samples, found again by the next run, made anew when the original
// changed; read where they are when there is no room or the copy is not what was read.
#include "pack_util.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>

#include "../../src/data/data_impl.h"

static hirl_world_t *world;
static char shards[512], stage[512];

static void open_staged(const char *folder, hirl_shard_set_t **set_p) {
    hirl_data_cfg_t cfg = data_cfg("mmap");
    snprintf(cfg.stage, sizeof cfg.stage, "%s", folder);
    cfg.verify = true;
    NEED_OK(hirl_shard_set_open(world, shards, &cfg, set_p));
}

static int n_copies(const char *folder) {
    NEED_OK(hirl_par_barrier(world));
    const int n = is_there(folder) ? count_files(folder, ".h5") : 0;
    // Nothing half done stays behind.
    if (is_there(folder)) CHECK_EQ_I(count_files(folder, "") - n, 0);
    NEED_OK(hirl_par_barrier(world));
    return n;
}

static void check_same(hirl_shard_set_t *set) {
    hirl_shard_set_t *plain = NULL;
    hirl_buffer_t a = {0}, b = {0};
    hirl_data_cfg_t cfg = data_cfg("mmap");
    NEED_OK(hirl_shard_set_open(world, shards, &cfg, &plain));
    const int64_t n = hirl_shard_set_n_samples(plain);
    CHECK_EQ_I(hirl_shard_set_n_samples(set), n);
    for (int64_t i = 0; i < n; i++) {
        hirl_sample_t x, y;
        NEED_OK(hirl_shard_set_read(plain, i, &a, &x));
        NEED_OK(hirl_shard_set_read(set, i, &b, &y)); // checksum included
        CHECK(x.size == y.size && memcmp(x.bytes, y.bytes, x.size) == 0 && x.label == y.label);
    }
    hirl_buffer_reset(&a);
    hirl_buffer_reset(&b);
    hirl_shard_set_close(&plain);
}

static ino_t inode_of_first(const char *folder) {
    struct dirent *entry;
    DIR *dir = opendir(folder);
    ino_t found = 0;
    while ((entry = readdir(dir)) != NULL)
        if (entry->d_name[0] != '.' && (found == 0 || entry->d_ino < found)) found = entry->d_ino;
    closedir(dir);
    return found;
}

static void test_copies(void) {
    hirl_shard_set_t *set = NULL;
    CHECK_EQ_I(n_copies(stage), 0);
    open_staged(stage, &set);
    const int n = n_copies(stage);
    CHECK_EQ_I(n, count_files(shards, ".h5"));
    CHECK(n >= 2);
    check_same(set);
    hirl_shard_set_close(&set);
    // Found again.
    const ino_t inode = inode_of_first(stage);
    open_staged(stage, &set);
    check_same(set);
    CHECK_EQ_I(n_copies(stage), n);
    CHECK(inode_of_first(stage) == inode);
    hirl_shard_set_close(&set);
    // A copy that was cut short is made again.
    shell("for f in %s/*.h5; do truncate -s 100 $f; break; done", stage);
    open_staged(stage, &set);
    check_same(set);
    hirl_shard_set_close(&set);
    // A changed original is another file.
    shell("touch -d 2001-01-01 %s/*.h5", shards);
    open_staged(stage, &set);
    CHECK_EQ_I(n_copies(stage), 2 * n);
    hirl_shard_set_close(&set);
}

static void test_no_room(void) {
    hirl_shard_set_t *set = NULL;
    char folder[600];
    struct rlimit before, limit;
    if (test_size() > 1) return; // MPI's own shared memory between ranks is in files, too
    snprintf(folder, sizeof folder, "%s-none", stage);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 2 << 20; // a file cannot grow beyond this: as if the disk were full
    signal(SIGXFSZ, SIG_IGN);
    NEED_OK(hirl_par_barrier(world));
    setrlimit(RLIMIT_FSIZE, &limit);
    open_staged(folder, &set);
    setrlimit(RLIMIT_FSIZE, &before);
    // The last of three shards is smaller than that.
    CHECK_EQ_I(n_copies(folder), 1);
    check_same(set);
    hirl_shard_set_close(&set);
}

static void test_wrong_copy(void) {
    hirl_shard_set_t *set = NULL;
    char folder[600];
    snprintf(folder, sizeof folder, "%s-wrong", stage);
    setenv("HIRL_FAULT", "stage:1", 1);
    open_staged(folder, &set);
    unsetenv("HIRL_FAULT");
    // Each rank's first copy failed.
    CHECK_EQ_I(n_copies(folder), count_files(shards, ".h5") - test_size());
    check_same(set);
    hirl_shard_set_close(&set);
}

// What a killed run left is removed; what another one is still writing, or is no copy, stays.
static void test_remains(void) {
    hirl_shard_set_t *set = NULL;
    char folder[600], path[640];
    snprintf(folder, sizeof folder, "%s-remains", stage);
    snprintf(path, sizeof path, "%s/2-train.h5.part22", folder);
    shell("mkdir -p %s && cd %s && touch 1-train.h5.part11 2-train.h5.part22 3.partly", folder,
          folder);
    const int held = open(path, O_RDONLY);
    CHECK(held >= 0 && flock(held, LOCK_SH) == 0);
    NEED_OK(hirl_par_barrier(world));
    open_staged(folder, &set);
    NEED_OK(hirl_par_barrier(world));
    CHECK_EQ_I(count_files(folder, ".part11"), 0);
    CHECK_EQ_I(count_files(folder, ".part22"), 1);
    CHECK_EQ_I(count_files(folder, ".partly"), 1);
    close(held);
    hirl_shard_set_close(&set);
}

static void test_no_folder(void) {
    hirl_shard_set_t *set = NULL;
    hirl_data_cfg_t cfg = data_cfg("mmap");
    snprintf(cfg.stage, sizeof cfg.stage, "/proc/nowhere");
    CHECK_FAILS(hirl_shard_set_open(world, shards, &cfg, &set), HIRL_ERR_IO, "/proc/nowhere");
    CHECK(set == NULL);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_log_setup(HIRL_LOG_ERROR, test_rank());
    snprintf(shards, sizeof shards, "%.400s/shards", test_folder());
    snprintf(stage, sizeof stage, "%.400s/stage", test_folder());
    hirl_pack_cfg_t pack = pack_cfg(FASHION, "val", shards);
    pack.shard_mib = 3; // three shards
    NEED_OK(hirl_data_pack(world, &pack));
    RUN(test_copies);
    RUN(test_no_room);
    RUN(test_wrong_copy);
    RUN(test_remains);
    RUN(test_no_folder);
    hirl_world_destroy(&world);
}
