// What a device does beside or after the host: uploads whose source is written again at once, uploads that run beside the operations into
// memory that is read by turns, times between marks. On the emulated device nothing runs before something waits for it, so that a
// missing order shows as the numbers of another round.
// test: backends=ref,cuda timeout=60
#include "hirl/backend.h"

#include "test.h"

enum { N = 3000, N_SMALL = 1200, N_ROUNDS = 6 };

static hirl_backend_t *be;

static hirl_tensor_t tensor(int64_t n) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(be, hirl_shape_1(n), HIRL_F32, &x));
    return x;
}

static void fill(float *x, int64_t n, int number) {
    for (int64_t i = 0; i < n; i++) x[i] = (float)(number * 10000 + i % 7919);
}

// Elements of x that are not what fill(number) writes, times `factor`.
static int64_t count_bad(const hirl_tensor_t *x, int number, float factor) {
    const int64_t n = hirl_tensor_count(x);
    float *got = calloc((size_t)n, sizeof *got), *want = calloc((size_t)n, sizeof *want);
    int64_t n_bad = 0;
    fill(want, n, number);
    NEED_OK(hirl_backend_download(be, x, got));
    for (int64_t i = 0; i < n; i++) n_bad += got[i] != factor * want[i];
    free(got), free(want);
    return n_bad;
}

// More than the staging memory holds, all from one place that is written again after each call, and sizes beyond it.
static void test_staged(void) {
    static float host[N];
    static hirl_tensor_t x[N_SMALL];
    for (int i = 0; i < N_SMALL; i++) {
        x[i] = tensor(1 + (i * 37) % N);
        fill(host, hirl_tensor_count(&x[i]), i);
        NEED_OK(hirl_backend_upload(be, host, &x[i]));
    }
    fill(host, N, -1);
    int64_t n_bad = 0;
    for (int i = 0; i < N_SMALL; i++) {
        n_bad += count_bad(&x[i], i, 1);
        hirl_tensor_reset(&x[i]);
    }
    CHECK_EQ_I(n_bad, 0);
    const int64_t large[] = {1 << 19, 3 << 20, 5 << 20, 1 << 18}; // floats; staging takes 16 MiB
    for (int i = 0; i < 4; i++) {
        float *big = calloc((size_t)large[i], sizeof *big);
        hirl_tensor_t y = tensor(large[i]);
        fill(big, large[i], i);
        NEED_OK(hirl_backend_upload(be, big, &y));
        memset(big, 0, (size_t)large[i] * sizeof *big);
        CHECK_EQ_I(count_bad(&y, i, 1), 0);
        hirl_tensor_reset(&y);
        free(big);
    }
}

// Two places by turns, as a training has them: each round reads one of them twice, while the other is uploaded.
static void test_beside(void) {
    const hirl_allocator_t *memory = hirl_backend_host_allocator_view(be);
    float *host[N_ROUNDS] = {NULL};
    hirl_tensor_t place[2] = {{0}}, y[N_ROUNDS] = {{0}};
    hirl_upload_t *upload[2] = {NULL};
    if (!memory) {
        CHECK_FAILS(hirl_upload_create(be, &upload[0]), HIRL_ERR_UNSUPPORTED, "no uploads beside");
        return;
    }
    for (int i = 0; i < 2; i++) {
        place[i] = tensor(N);
        NEED_OK(hirl_upload_create(be, &upload[i]));
        NEED_OK(hirl_upload_release(upload[i]));
    }
    for (int r = 0; r < N_ROUNDS; r++) {
        NEED_OK(memory->alloc(memory->ctx, N * sizeof(float), (void **)&host[r]));
        fill(host[r], N, r);
    }
    NEED_OK(hirl_upload_begin(upload[0], host[0], &place[0]));
    for (int r = 0; r < N_ROUNDS; r++) {
        const int now = r % 2, next = 1 - now;
        NEED_OK(hirl_upload_end(upload[now]));
        if (r + 1 < N_ROUNDS) NEED_OK(hirl_upload_begin(upload[next], host[r + 1], &place[next]));
        y[r] = tensor(N);
        NEED_OK(hirl_op_axpby(be, 1, &place[now], 0, &y[r]));
        NEED_OK(hirl_op_axpby(be, 1, &place[now], 1, &y[r]));
        NEED_OK(hirl_upload_release(upload[now]));
    }
    for (int r = 0; r < N_ROUNDS; r++) CHECK_EQ_I(count_bad(&y[r], r, 2), 0);

    // A copy that waits for a release; its end is the destruction, after which the source is free.
    NEED_OK(hirl_op_axpby(be, 3, &place[1], 0, &y[0]));
    NEED_OK(hirl_upload_release(upload[1]));
    NEED_OK(hirl_upload_begin(upload[1], host[2], &place[1]));
    hirl_upload_destroy(&upload[1]);
    memset(host[2], 0, N * sizeof(float));
    CHECK_EQ_I(count_bad(&y[0], N_ROUNDS - 1, 3), 0);
    CHECK_EQ_I(count_bad(&place[1], 2, 1), 0);
    // Pageable memory is read before the call returns.
    static float plain[N];
    fill(plain, N, 77);
    NEED_OK(hirl_upload_release(upload[0]));
    NEED_OK(hirl_upload_begin(upload[0], plain, &place[0]));
    memset(plain, 0, sizeof plain);
    NEED_OK(hirl_upload_end(upload[0]));
    CHECK_EQ_I(count_bad(&place[0], 77, 1), 0);
    hirl_upload_destroy(&upload[0]);
    hirl_upload_destroy(&upload[0]);
    for (int r = 0; r < N_ROUNDS; r++) {
        memory->free(memory->ctx, host[r], N * sizeof(float));
        hirl_tensor_reset(&y[r]);
    }
    for (int i = 0; i < 2; i++) hirl_tensor_reset(&place[i]);
}

static void test_marks(void) {
    hirl_tensor_t x = tensor(N);
    double near = -1, far = -1;
    NEED_OK(hirl_backend_mark(be, 0));
    NEED_OK(hirl_op_fill(be, 1, &x));
    NEED_OK(hirl_backend_mark(be, 1));
    for (int i = 0; i < 100; i++) NEED_OK(hirl_op_axpby(be, 1, &x, 0.5f, &x));
    NEED_OK(hirl_backend_mark(be, 3));
    NEED_OK(hirl_backend_mark_seconds(be, 0, 1, &near));
    NEED_OK(hirl_backend_mark_seconds(be, 0, 3, &far));
    CHECK(near >= 0 && far > near && far < 60);
    CHECK_FAILS(hirl_backend_mark(be, 4), HIRL_ERR_ARG, "mark 4, want 0..3");
    CHECK_FAILS(hirl_backend_mark_seconds(be, 0, -1, &far), HIRL_ERR_ARG, "marks 0 and -1");
    hirl_tensor_reset(&x);
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 0, &be));
    RUN(test_staged);
    RUN(test_beside);
    RUN(test_marks);
    hirl_backend_destroy(&be);
}
