// Writes that do not end: killed at any moment, or on a disk that is full. The older checkpoint
// stays, the newer is whole or absent, and the next write cleans up.
// test: timeout=240
#include "hirl/ckpt.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "test.h"

enum { N = 500000 };
static float weight[N];
static char deck[200001]; // so long that HDF5 must look at it again while it writes

static hirl_status_t write_step(const char *folder, int64_t step, int n_arrays) {
    static char names[64][32];
    hirl_ckpt_array_t arrays[64];
    const hirl_ckpt_meta_t meta = {step, 0, 0, step, 1, "mocov2", "none", deck};
    for (int i = 0; i < n_arrays; i++) {
        snprintf(names[i], sizeof names[i], "/model/layer%02d.weight", i);
        arrays[i] = (hirl_ckpt_array_t){names[i], HIRL_CKPT_F32, 1, {N / n_arrays}, weight};
    }
    return hirl_ckpt_write(folder, &meta, arrays, n_arrays, 2);
}

static int n_temporary(const char *folder, int *n_all_p) {
    int n = 0;
    *n_all_p = 0;
    DIR *listing = opendir(folder);
    for (struct dirent *entry; (entry = readdir(listing));) {
        n += strstr(entry->d_name, ".tmp") != NULL;
        *n_all_p += entry->d_name[0] != '.' || strstr(entry->d_name, ".tmp") != NULL;
    }
    closedir(listing);
    return n;
}

static void test_killed(void) {
    const char *folder = test_path("killed");
    int n_found_temporary = 0, n_all = 0;
    hirl_rng_t rng = test_rng(0);
    int64_t before = 1;
    NEED_OK(write_step(folder, before, 20));
    for (int round = 0; round < 30; round++) {
        const pid_t child = fork();
        NEED(child >= 0);
        if (child == 0) {
            for (int64_t step = before + 1;; step++) {
                if (write_step(folder, step, 20) != HIRL_OK) _exit(1);
            }
        }
        usleep((useconds_t)hirl_rng_below(&rng, 120000));
        kill(child, SIGKILL);
        int status = 0;
        NEED(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status)); // it did not fail by itself
        n_found_temporary += n_temporary(folder, &n_all);
        hirl_ckpt_t *ckpt = NULL;
        NEED_OK(hirl_ckpt_open_newest(folder, &ckpt));
        NEED(ckpt != NULL);
        const int64_t found = hirl_ckpt_meta_view(ckpt)->step;
        CHECK(found >= before);
        float out[N / 20];
        NEED_OK(hirl_ckpt_read(ckpt, "/model/layer19.weight", HIRL_CKPT_F32, 1, (int64_t[]){N / 20},
                               out));
        CHECK_BITS(out, weight, sizeof out);
        hirl_ckpt_close(&ckpt);
        before = found;
    }
    printf("30 kills, %d in the middle of a file, %lld steps\n", n_found_temporary,
           (long long)before);
    CHECK(n_found_temporary > 0); // else the test has not seen what it is about
    NEED_OK(write_step(folder, before + 1, 20));
    CHECK_EQ_I(n_temporary(folder, &n_all), 0);
    CHECK_EQ_I(n_all, 2);
}

// Every limit on the file's size stands for a disk that gets full at another moment.
static void test_full_disk(void) {
    const char *folder = test_path("full");
    int n_all = 0, n_failed = 0, n_bad = 0;
    struct rlimit old, small;
    struct stat whole;
    NEED_OK(write_step(folder, 1, 60));
    NEED(stat(test_path("full/checkpoint-00000001.h5"), &whole) == 0);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (long limit = 1; limit < whole.st_size; limit += limit < 4096 ? 511 : 39989) {
        small = old;
        small.rlim_cur = (rlim_t)limit;
        setrlimit(RLIMIT_FSIZE, &small);
        const hirl_status_t status = write_step(folder, 2, 60);
        setrlimit(RLIMIT_FSIZE, &old);
        n_failed++;
        n_bad += status != HIRL_ERR_IO || !strstr(hirl_error_text_view(), "File too large") ||
                 n_temporary(folder, &n_all) != 0 || n_all != 1;
    }
    CHECK(n_failed > 50);
    CHECK_EQ_I(n_bad, 0);
    // The process is none the worse for it.
    hirl_ckpt_t *ckpt = NULL;
    NEED_OK(write_step(folder, 3, 60));
    NEED_OK(hirl_ckpt_open_newest(folder, &ckpt));
    CHECK_EQ_I(hirl_ckpt_meta_view(ckpt)->step, 3);
    hirl_ckpt_close(&ckpt);
    const hirl_ckpt_array_t array = {"/x", HIRL_CKPT_F32, 1, {N}, weight};
    small = old;
    small.rlim_cur = 100000;
    setrlimit(RLIMIT_FSIZE, &small);
    const hirl_status_t status = hirl_arrays_write(test_path("full/out.h5"), &array, 1);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_FAILS(status, HIRL_ERR_IO, "out.h5: cannot write it: File too large");
    CHECK_EQ_I(n_temporary(folder, &n_all), 0);
    CHECK_EQ_I(n_all, 2);
}

TEST_MAIN {
    test_fill_normal(weight, N, 0);
    memset(deck, 'd', sizeof deck - 1);
    RUN(test_killed);
    RUN(test_full_disk);
}
