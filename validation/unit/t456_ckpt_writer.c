// The checkpoint writer: what was copied is what is written, in order, while the state moves on; failures are told once; what is pending
// at the end is written.
// test: timeout=60
#include "hirl/ckpt.h"

#include <unistd.h>

#include "test.h"

enum { N = 20000, N_ARRAYS = 40, N_STEPS = 5 };
static float state[N_ARRAYS][N];

static void fill(int step) {
    for (int a = 0; a < N_ARRAYS; a++)
        for (int i = 0; i < N; i++) state[a][i] = (float)(step * 1000 + a + 0.5 * (i % 7));
}

static hirl_ckpt_snapshot_t *take(int step) {
    hirl_ckpt_snapshot_t *snapshot = NULL;
    char method[] = "mocov2", deck[] = "&run /\n", name[32];
    const hirl_ckpt_meta_t meta = {step, 0, step, step, 1, method, "none", deck};
    NEED_OK(hirl_ckpt_snapshot_create(&meta, &snapshot));
    method[0] = deck[0] = '?'; // the texts are copied, too
    for (int a = 0; a < N_ARRAYS; a++) {
        void *copy = NULL;
        snprintf(name, sizeof name, "/model/layer%02d", a);
        NEED_OK(hirl_ckpt_snapshot_add(snapshot, name, HIRL_CKPT_F32, 1, (int64_t[]){N}, &copy));
        memcpy(copy, state[a], sizeof state[a]);
    }
    return snapshot;
}

static void check_step(const char *folder, int step) {
    static float found[N];
    hirl_ckpt_t *ckpt = NULL;
    NEED_OK(hirl_ckpt_open_newest(folder, &ckpt));
    NEED(ckpt);
    CHECK_EQ_I(hirl_ckpt_meta_view(ckpt)->step, step);
    CHECK_EQ_S(hirl_ckpt_meta_view(ckpt)->method, "mocov2");
    CHECK_EQ_S(hirl_ckpt_meta_view(ckpt)->deck, "&run /\n");
    fill(step);
    for (int a = 0; a < N_ARRAYS; a += 13) {
        char name[32];
        snprintf(name, sizeof name, "/model/layer%02d", a);
        NEED_OK(hirl_ckpt_read(ckpt, name, HIRL_CKPT_F32, 1, (int64_t[]){N}, found));
        CHECK_BITS(found, state[a], sizeof found);
    }
    hirl_ckpt_close(&ckpt);
}

static void test_steps(void) {
    hirl_ckpt_writer_t *writer = NULL;
    const char *folder = test_path("steps");
    NEED_OK(hirl_ckpt_writer_create(&writer));
    CHECK_OK(hirl_ckpt_writer_wait(writer)); // nothing was written, nothing has failed
    for (int step = 1; step <= N_STEPS; step++) {
        fill(step);
        hirl_ckpt_writer_submit(writer, folder, take(step), 2);
        fill(-step); // training goes on
    }
    CHECK_OK(hirl_ckpt_writer_wait(writer));
    CHECK(hirl_ckpt_writer_seconds(writer) > 0);
    check_step(folder, N_STEPS);
    fill(N_STEPS + 1);
    hirl_ckpt_writer_submit(writer, folder, take(N_STEPS + 1), 2);
    hirl_ckpt_writer_destroy(&writer); // writes it first
    CHECK(writer == NULL);
    check_step(folder, N_STEPS + 1);
}

static void test_failure(void) {
    hirl_ckpt_writer_t *writer = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s", test_path("a_file"));
    FILE *file = fopen(path, "w");
    NEED(file);
    fclose(file);
    NEED_OK(hirl_ckpt_writer_create(&writer));
    hirl_ckpt_writer_submit(writer, path, take(1), 1);
    CHECK_FAILS(hirl_ckpt_writer_wait(writer), HIRL_ERR_IO, "a_file");
    CHECK_OK(hirl_ckpt_writer_wait(writer)); // told once
    fill(2);
    hirl_ckpt_writer_submit(writer, test_path("good"), take(2), 1);
    CHECK_OK(hirl_ckpt_writer_wait(writer));
    check_step(test_path("good"), 2);
    hirl_ckpt_writer_destroy(&writer);
}

static void test_bad_arrays(void) {
    hirl_ckpt_snapshot_t *snapshot = take(1);
    void *copy = NULL;
    CHECK_FAILS(
        hirl_ckpt_snapshot_add(snapshot, "/model/x", HIRL_CKPT_F32, 1, (int64_t[]){-1}, &copy),
        HIRL_ERR_ARG, "-1");
    hirl_ckpt_snapshot_destroy(&snapshot);
    CHECK(snapshot == NULL);
    hirl_ckpt_snapshot_destroy(&snapshot);
}

TEST_MAIN {
    RUN(test_steps);
    RUN(test_failure);
    RUN(test_bad_arrays);
}
