// What a device does beside or after the host: uploads whose source is written again at once, uploads that run beside the operations into
// memory that is read by turns, times between marks, operations recorded as graphs. On the emulated device nothing runs before something
// waits for it, so that a missing order shows as the numbers of another round, and memory that a graph does not own as a wrong number.
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

// y = 2 x + z^2 by way of tensors that the operations make, and so take from the graph's memory.
static hirl_status_t work(const hirl_tensor_t *x, const hirl_tensor_t *z, hirl_tensor_t *y) {
    hirl_tensor_t square = {0}, sum = {0};
    hirl_status_t status = hirl_op_mul(be, z, z, &square);
    if (status == HIRL_OK) status = hirl_op_add(be, x, x, &sum);
    if (status == HIRL_OK) status = hirl_op_add(be, &sum, &square, y);
    hirl_tensor_reset(&square);
    hirl_tensor_reset(&sum);
    return status;
}

static hirl_graph_t *record(const hirl_tensor_t *x, const hirl_tensor_t *z, hirl_tensor_t *y) {
    hirl_graph_t *graph = NULL;
    NEED_OK(hirl_backend_capture_begin(be));
    NEED_OK(work(x, z, y));
    NEED_OK(hirl_backend_capture_end(be, &graph));
    return graph;
}

static void put(hirl_tensor_t *x, float value) {
    float host[N];
    for (int i = 0; i < N; i++) host[i] = value + (float)(i % 5);
    NEED_OK(hirl_backend_upload(be, host, x));
}

static int count_unequal(const hirl_tensor_t *y, float x, float z) {
    float host[N];
    int n = 0;
    NEED_OK(hirl_backend_download(be, y, host));
    for (int i = 0; i < N; i++) {
        const float a = x + (float)(i % 5), b = z + (float)(i % 5);
        n += host[i] != 2 * a + b * b;
    }
    return n;
}

static void test_graphs(void) {
    hirl_tensor_t x = tensor(N), z = tensor(N), y[2] = {tensor(N), tensor(N)};
    hirl_tensor_t other[4] = {{0}};
    hirl_graph_t *graph[2] = {NULL};
    put(&x, 1), put(&z, 2), put(&y[0], -1), put(&y[1], -2);
    graph[0] = record(&x, &z, &y[0]);
    graph[1] = record(&z, &x, &y[1]);
    CHECK(count_unequal(&y[0], 1, 2) > 0); // nothing has run
    // Memory taken after the recording, which must not be the graphs'.
    for (int i = 0; i < 4; i++) {
        other[i] = tensor(N);
        put(&other[i], (float)(100 * i));
    }
    // What changes from launch to launch are the numbers in the tensors.
    for (int i = 0; i < 3; i++) {
        put(&x, (float)(3 + i)), put(&z, (float)(7 - i));
        NEED_OK(hirl_graph_launch(graph[0]));
        NEED_OK(hirl_graph_launch(graph[1]));
        CHECK_EQ_I(count_unequal(&y[0], (float)(3 + i), (float)(7 - i)), 0);
        CHECK_EQ_I(count_unequal(&y[1], (float)(7 - i), (float)(3 + i)), 0);
    }
    for (int i = 0; i < 4; i++) {
        float got[N];
        NEED_OK(hirl_backend_download(be, &other[i], got));
        CHECK(got[0] == (float)(100 * i) && got[N - 1] == (float)(100 * i + (N - 1) % 5));
        hirl_tensor_reset(&other[i]);
    }
    const size_t with = hirl_backend_memory_used(be);
    hirl_graph_destroy(&graph[0]);
    put(&x, 11);
    NEED_OK(hirl_graph_launch(graph[1])); // still has its memory
    CHECK_EQ_I(count_unequal(&y[1], 5, 11), 0);
    hirl_graph_destroy(&graph[1]);
    hirl_graph_destroy(&graph[1]);
    CHECK(hirl_backend_memory_used(be) < with);
    for (int i = 0; i < 2; i++) hirl_tensor_reset(&y[i]);
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&z);
}

// What needs the host, and memory that a graph could not rely on; after each refusal all goes on as before.
static void test_refusals(void) {
    float host[N] = {0};
    double sum = 0;
    for (int i = 0; i < 7; i++) {
        hirl_tensor_t x = tensor(N), z = tensor(N), y = tensor(N), more = {0};
        hirl_graph_t *graph = NULL;
        put(&x, 1), put(&z, 2);
        NEED_OK(hirl_backend_capture_begin(be));
        NEED_OK(work(&x, &z, &y));
        if (i == 0)
            CHECK_FAILS(hirl_backend_upload(be, host, &x), HIRL_ERR_UNSUPPORTED, "host memory");
        if (i == 1)
            CHECK_FAILS(hirl_backend_download(be, &x, host), HIRL_ERR_UNSUPPORTED, "a download");
        if (i == 2)
            CHECK_FAILS(hirl_backend_synchronize(be), HIRL_ERR_UNSUPPORTED,
                        "a wait for the device");
        if (i == 3)
            CHECK_FAILS(hirl_op_sum_squares(be, &x, &sum), HIRL_ERR_UNSUPPORTED, "recorded");
        if (i == 4)
            CHECK_FAILS(hirl_backend_capture_begin(be), HIRL_ERR_UNSUPPORTED, "within a recording");
        if (i == 5) hirl_tensor_reset(&z);
        if (i == 6) more = tensor(N);
        if (i == 5)
            CHECK_FAILS(hirl_backend_capture_end(be, &graph), HIRL_ERR_UNSUPPORTED,
                        "memory from before the recording was given back");
        else if (i == 6)
            CHECK_FAILS(hirl_backend_capture_end(be, &graph), HIRL_ERR_UNSUPPORTED,
                        "still held after it");
        else
            CHECK_OK(hirl_backend_capture_end(be, NULL));
        CHECK(graph == NULL);
        if (i == 5) z = tensor(N);
        put(&x, 4), put(&z, 5);
        NEED_OK(work(&x, &z, &y));
        CHECK_EQ_I(count_unequal(&y, 4, 5), 0);
        hirl_tensor_reset(&more);
        hirl_tensor_reset(&x);
        hirl_tensor_reset(&y);
        hirl_tensor_reset(&z);
    }
}

TEST_MAIN {
    NEED_OK(hirl_backend_create(test_backend(), 0, &be));
    RUN(test_staged);
    RUN(test_beside);
    RUN(test_marks);
    if (hirl_backend_can_capture(be)) {
        RUN(test_graphs);
        RUN(test_refusals);
    } else {
        CHECK_FAILS(hirl_backend_capture_begin(be), HIRL_ERR_UNSUPPORTED, "cannot record");
    }
    hirl_backend_destroy(&be);
}
