// Rotations against NumPy's rot90 (validation/reference/augment/make_ops.py), bit for bit; cells and the places of their patches; both
// on batches, where they depend on sample, epoch and seed alone.
// test: ranks=1
#include "test.h"

#include <zlib.h>

#include "hirl/data.h"

#define CASES "validation/reference/augment/ops.txt"

static float *ramp(size_t n) {
    float *x = malloc(n * sizeof *x);
    NEED(x != NULL);
    for (size_t i = 0; i < n; i++) x[i] = (float)i;
    return x;
}

static void test_rotations(void) {
    FILE *file = fopen(CASES, "r");
    NEED(file != NULL);
    char line[1024];
    int n_done = 0, size, channels;
    unsigned want;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "rotations %d %d %x", &size, &channels, &want) != 3) continue;
        const size_t n = (size_t)(size * size * channels);
        float *view = ramp(n), *out = ramp(4 * n);
        hirl_view_rotations(view, size, channels, out);
        const unsigned got = (unsigned)crc32(0, (const Bytef *)out, (uInt)(4 * n * sizeof *out));
        CHECK_MSG(got == want, "%d x %d x %d: CRC %08x, want %08x", size, size, channels, got,
                  want);
        free(view), free(out);
        n_done++;
    }
    fclose(file);
    CHECK_EQ_I(n_done, 4);
}

// Where a patch of a ramp was taken; -1 if it is none.
static int place_of(const float *patch, int side, int size, int channels) {
    const int first = (int)patch[0];
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side * channels; x++)
            if (patch[y * side * channels + x] != (float)(first + y * size * channels + x))
                return -1;
    return first / channels;
}

static void test_cells(void) {
    enum { SIZE = 255, CHANNELS = 3, CELL = 85, N = 600 };
    const hirl_cells_spec_t spec = {3, 64};
    float *view = ramp(SIZE * SIZE * CHANNELS);
    float *out = ramp(9 * 64 * 64 * CHANNELS);
    int n_outside = 0, n_at[2][22] = {{0}};
    for (int i = 0; i < N; i++) {
        hirl_rng_t rng = test_rng((uint64_t)i);
        NEED_OK(hirl_view_cells(view, SIZE, CHANNELS, &spec, &rng, out));
        for (int q = 0; q < 9; q++) {
            const int place = place_of(out + (size_t)q * 64 * 64 * CHANNELS, 64, SIZE, CHANNELS);
            const int y = place / SIZE - q / 3 * CELL, x = place % SIZE - q % 3 * CELL;
            if (place < 0 || y < 0 || y > 21 || x < 0 || x > 21)
                n_outside++;
            else
                n_at[0][y]++, n_at[1][x]++;
        }
    }
    CHECK_EQ_I(n_outside, 0);
    // All 22 offsets are equally likely: five standard deviations.
    for (int axis = 0; axis < 2; axis++)
        for (int k = 0; k < 22; k++)
            CHECK_CLOSE(n_at[axis][k], 9.0 * N / 22, 0, 5 * sqrt(9.0 * N / 22));
    free(view), free(out);
}

static void test_batch(void) {
    enum { N = 3, SIZE = 12, CHANNELS = 1, VIEW = SIZE * SIZE * CHANNELS };
    const int64_t index[N] = {7, 3, 9}, swapped[N] = {3, 7, 9};
    float *views = ramp(N * VIEW);
    hirl_batch_t batch = {.n = N,
                          .index = index,
                          .n_views = 1,
                          .size = {SIZE},
                          .width = {SIZE},
                          .channels = CHANNELS,
                          .view = {views}};
    static float all[N * 4 * VIEW], one[4 * VIEW], cells[2][N * 4 * 4 * 4];
    NEED_OK(hirl_batch_rotations(&batch, 0, all));
    for (int i = 0; i < N; i++) {
        hirl_view_rotations(views + i * VIEW, SIZE, CHANNELS, one);
        CHECK_BITS(all + i * 4 * VIEW, one, sizeof one);
    }

    const hirl_cells_spec_t spec = {2, 4};
    enum { CELLS = 4 * 4 * 4 };
    NEED_OK(hirl_batch_cells(&batch, 0, &spec, 5, 1, cells[0]));
    batch.index = swapped;
    for (int k = 0; k < VIEW; k++) { // the samples change places
        const float kept = views[k];
        views[k] = views[VIEW + k];
        views[VIEW + k] = kept;
    }
    NEED_OK(hirl_batch_cells(&batch, 0, &spec, 5, 1, cells[1]));
    CHECK_BITS(cells[0], cells[1] + CELLS, CELLS * sizeof(float));
    CHECK_BITS(cells[0] + CELLS, cells[1], CELLS * sizeof(float));
    CHECK_BITS(cells[0] + 2 * CELLS, cells[1] + 2 * CELLS, CELLS * sizeof(float));
    NEED_OK(hirl_batch_cells(&batch, 0, &spec, 5, 2, cells[0]));
    CHECK(memcmp(cells[0], cells[1], sizeof cells[0]) != 0);
    NEED_OK(hirl_batch_cells(&batch, 0, &spec, 6, 1, cells[0]));
    CHECK(memcmp(cells[0], cells[1], sizeof cells[0]) != 0);

    const hirl_cells_spec_t large = {2, 7};
    CHECK_FAILS(hirl_batch_cells(&batch, 0, &large, 5, 1, cells[0]), HIRL_ERR_ARG, "at most 6");
    CHECK_FAILS(hirl_batch_rotations(&batch, 1, all), HIRL_ERR_ARG, "view 1 of a batch of 1");
    batch.width[0] = 11;
    CHECK_FAILS(hirl_batch_rotations(&batch, 0, all), HIRL_ERR_ARG, "want a square");
    batch.view[0] = NULL;
    CHECK_FAILS(hirl_batch_cells(&batch, 0, &spec, 5, 1, cells[0]), HIRL_ERR_ARG,
                "views%maker = 'loader'");
    free(views);
}

TEST_MAIN {
    RUN(test_rotations);
    RUN(test_cells);
    RUN(test_batch);
}
