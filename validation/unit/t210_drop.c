// Dropout and drop path: masks against a second implementation of the random numbers (validation/reference/masks/drop.txt) and values
// against ref bit for bit, at any address and number of threads; shares of what is kept; that masks of other steps,
// sites, samples and seeds are independent; batches cut anywhere; the tape; what is refused.
//
// Bounds. A count of n independent events of probability q is within 5 sqrt(n q (1 - q)) of n q but for 6e-7 of all seeds (n q (1 - q) > 1000
// here, so the normal law holds). Values: none, a product or a fused sum rounds once everywhere.
// test: backends=ref,cpu,cuda timeout=60
#include "hirl/tape.h"

#include <zlib.h>

#include "test.h"

enum { MOST_SAMPLES = 512 };

typedef struct draw {
    double p;
    unsigned long long seed, step;
    unsigned site;
    int64_t n, size;
    int64_t index[MOST_SAMPLES];
} draw_t;

static hirl_backend_t *be, *ref;

static hirl_tensor_t numbers(hirl_backend_t *backend, const int64_t *value, int64_t n) {
    hirl_tensor_t x = {0};
    NEED_OK(hirl_backend_tensor(backend, hirl_shape_1(n), HIRL_I64, &x));
    NEED_OK(hirl_backend_upload(backend, value, &x));
    return x;
}

// `data` in storage of which the first `skip` elements are left out.
static hirl_tensor_t placed(hirl_backend_t *backend, const float *data, hirl_shape_t shape,
                            hirl_dtype_t dtype, int64_t skip) {
    hirl_tensor_t wide = {0}, base = {0}, part = {0}, x = {0};
    const int64_t count = hirl_shape_count(&shape);
    NEED_OK(hirl_backend_tensor(backend, shape, HIRL_F32, &wide));
    NEED_OK(hirl_backend_upload(backend, data, &wide));
    NEED_OK(hirl_backend_tensor(backend, hirl_shape_1(count + skip), dtype, &base));
    NEED_OK(hirl_tensor_rows(&base, skip, count, &part));
    NEED_OK(hirl_tensor_reshape(&part, shape, &x));
    NEED_OK(hirl_op_axpby(backend, 1, &wide, 0, &x));
    hirl_tensor_reset(&wide);
    hirl_tensor_reset(&base);
    hirl_tensor_reset(&part);
    return x;
}

static float *drawn(int64_t n, uint64_t id) {
    float *x = malloc((size_t)n * sizeof *x);
    NEED(x != NULL);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.5f + (float)((i * 7919 + (int64_t)id * 104729) % 10007) / 8192;
    return x;
}

typedef enum kind { DROPOUT, PATH, PATH_WITH_RESIDUAL } kind_t;

// The result as f32, freed by the caller.
static float *run(hirl_backend_t *backend, kind_t kind, const draw_t *d, hirl_dtype_t dtype,
                  int64_t skip, bool is_in_place) {
    const hirl_shape_t shape = hirl_shape_2(d->n, d->size);
    const int64_t counter[2] = {(int64_t)d->seed, (int64_t)d->step}, count = d->n * d->size;
    float *data = drawn(count, 1), *other = drawn(count, 2),
          *host = malloc((size_t)count * sizeof *host);
    hirl_tensor_t x = placed(backend, data, shape, dtype, skip), y = {0}, plain = {0};
    hirl_tensor_t residual = placed(backend, other, shape, dtype, skip);
    hirl_tensor_t t1 = numbers(backend, counter, 2), t2 = numbers(backend, d->index, d->n);
    const hirl_drop_t drop = {.p = (float)d->p, .site = d->site, .counter = &t1, .index = &t2};
    NEED(host != NULL);
    if (is_in_place) y = hirl_tensor_retain(kind == PATH_WITH_RESIDUAL ? &residual : &x);
    if (kind == DROPOUT)
        NEED_OK(hirl_op_dropout(backend, &drop, &x, &y));
    else
        NEED_OK(hirl_op_drop_path(backend, &drop, &x, kind == PATH_WITH_RESIDUAL ? &residual : NULL,
                                  &y));
    NEED_OK(hirl_op_to_plain(backend, &y, HIRL_F32, &plain));
    NEED_OK(hirl_backend_download(backend, &plain, host));
    hirl_tensor_t *const all[] = {&x, &y, &plain, &residual, &t1, &t2};
    for (int i = 0; i < 6; i++) hirl_tensor_reset(all[i]);
    free(data);
    free(other);
    return host;
}

static draw_t plain_draw(double p, int64_t n, int64_t size) {
    draw_t d = {.p = p, .seed = 11, .step = 7, .site = 2, .n = n, .size = size};
    NEED(n <= MOST_SAMPLES);
    for (int64_t i = 0; i < n; i++) d.index[i] = 100 + 3 * i;
    return d;
}

// ------------------------------------------------------------------------------------ masks and values

static bool read_draw(char *text, draw_t *d, bool *is_path, long *n_kept, unsigned *crc) {
    char *save, *word = strtok_r(text, " \n", &save);
    if (!word || word[0] == '#') return false;
    *is_path = strcmp(word, "drop_path") == 0;
    d->p = strtod(strtok_r(NULL, " ", &save), NULL);
    d->seed = strtoull(strtok_r(NULL, " ", &save), NULL, 10);
    d->step = strtoull(strtok_r(NULL, " ", &save), NULL, 10);
    d->site = (unsigned)strtoul(strtok_r(NULL, " ", &save), NULL, 10);
    d->n = strtoll(strtok_r(NULL, " ", &save), NULL, 10);
    d->size = strtoll(strtok_r(NULL, " ", &save), NULL, 10);
    NEED(d->n >= 1 && d->n <= MOST_SAMPLES);
    for (int64_t i = 0; i < d->n; i++) d->index[i] = strtoll(strtok_r(NULL, " ", &save), NULL, 10);
    *n_kept = strtol(strtok_r(NULL, " ", &save), NULL, 10);
    *crc = (unsigned)strtoul(strtok_r(NULL, " \n", &save), NULL, 16);
    return true;
}

static void check_mask(const draw_t *d, bool is_path, long n_kept, unsigned crc, int line) {
    float *y = run(be, is_path ? PATH : DROPOUT, d, HIRL_F32, 0, false);
    const int64_t n = is_path ? d->n : d->n * d->size;
    unsigned char *kept = malloc((size_t)n);
    long n_ones = 0;
    NEED(kept != NULL);
    for (int64_t i = 0; i < n; i++) n_ones += kept[i] = y[is_path ? i * d->size : i] != 0;
    CHECK_MSG(n_ones == n_kept && crc32(0, kept, (unsigned)n) == crc,
              "line %d of drop.txt: %ld kept, want %ld, or others", line, n_ones, n_kept);
    free(kept);
    free(y);
}

static void check_values(const draw_t *d) {
    for (int kind = DROPOUT; kind <= PATH_WITH_RESIDUAL; kind++)
        for (int dtype = 0; dtype < 3; dtype++) {
            const hirl_dtype_t type = dtype == 2 ? HIRL_F16 : dtype == 1 ? HIRL_BF16 : HIRL_F32;
            if (!hirl_backend_has_dtype(be, type)) continue;
            float *want = run(ref, (kind_t)kind, d, type, 0, false);
            for (int64_t skip = 0; skip < 2; skip++) {
                float *got = run(be, (kind_t)kind, d, type, skip, skip == 1);
                CHECK_BITS(got, want, (size_t)(d->n * d->size) * sizeof *got);
                free(got);
            }
            free(want);
        }
}

static void test_masks(void) {
    static char text[1 << 14];
    FILE *file = fopen("validation/reference/masks/drop.txt", "r");
    int n_lines = 0;
    NEED(file != NULL);
    while (fgets(text, sizeof text, file)) {
        draw_t d;
        bool is_path;
        long n_kept;
        unsigned crc;
        ++n_lines;
        if (!read_draw(text, &d, &is_path, &n_kept, &crc)) continue;
        check_mask(&d, is_path, n_kept, crc, n_lines);
        if (is_path && n_lines <= 18) check_values(&d);
    }
    CHECK_EQ_I(n_lines, 65);
    fclose(file);
}

// What is kept is scaled so that the mean stays, exactly.
static void test_scale(void) {
    const draw_t d = plain_draw(0.75, 3, 100);
    float *x = drawn(300, 1), *residual = drawn(300, 2);
    float *y = run(be, DROPOUT, &d, HIRL_F32, 0, false);
    for (int i = 0; i < 300; i++) CHECK(y[i] == 0 || y[i] == 4 * x[i]);
    free(y);
    y = run(be, PATH_WITH_RESIDUAL, &d, HIRL_F32, 0, false);
    for (int i = 0; i < 300; i++) CHECK(y[i] == residual[i] || y[i] == fmaf(4, x[i], residual[i]));
    free(y);
    free(x);
    free(residual);
}

// ------------------------------------------------------------------------------------ chance

static int64_t count_kept(const float *y, int64_t n) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++) count += y[i] != 0;
    return count;
}

static void check_count(int64_t count, int64_t n, double q, const char *what) {
    const double off = (double)count - (double)n * q, bound = 5 * sqrt((double)n * q * (1 - q));
    CHECK_MSG(fabs(off) <= bound, "%s: %.0f from the mean of %lld events of %g, bound %.0f", what,
              off, (long long)n, q, bound);
}

static void test_chance(void) {
    enum { N = 4, SIZE = 8192 };
    static const double p[] = {0.1, 0.5, 0.9};
    for (int k = 0; k < 3; k++) {
        draw_t d = plain_draw(p[k], N, SIZE);
        float *y = run(be, DROPOUT, &d, HIRL_F32, 0, false);
        const double both = p[k] * p[k] + (1 - p[k]) * (1 - p[k]);
        int64_t n_same = 0;
        check_count(count_kept(y, N * SIZE), N * SIZE, 1 - p[k], "share that is kept");
        for (int i = 0; i < N * SIZE / 2; i++) n_same += (y[i] != 0) == (y[i + N * SIZE / 2] != 0);
        check_count(n_same, N * SIZE / 2, both, "samples that agree");
        for (int i = n_same = 0; i + 1 < N * SIZE; i += 2) n_same += (y[i] != 0) == (y[i + 1] != 0);
        check_count(n_same, N * SIZE / 2, both, "neighbours that agree");
        for (int what = 0; what < 3; what++) {
            draw_t other = d;
            if (what == 0) other.step++;
            if (what == 1) other.site++;
            if (what == 2) other.seed++;
            float *z = run(be, DROPOUT, &other, HIRL_F32, 0, false);
            for (int i = n_same = 0; i < N * SIZE; i++) n_same += (y[i] != 0) == (z[i] != 0);
            check_count(n_same, N * SIZE, both,
                        what == 0   ? "steps that agree"
                        : what == 1 ? "sites that agree"
                                    : "seeds that agree");
            free(z);
        }
        free(y);
    }
    int64_t n_kept = 0;
    for (int step = 0; step < 20; step++) {
        draw_t d = plain_draw(0.2, 500, 1);
        d.step = (unsigned)step;
        float *y = run(be, PATH, &d, HIRL_F32, 0, false);
        n_kept += count_kept(y, 500);
        free(y);
    }
    check_count(n_kept, 10000, 0.8, "samples whose path is kept");
}

// Ranks and micro-batches cut a batch; what a sample gets stays.
static void test_parts(void) {
    const draw_t whole = plain_draw(0.4, 6, 1000);
    for (int kind = DROPOUT; kind <= PATH; kind++) {
        float *want = run(be, (kind_t)kind, &whole, HIRL_F32, 0, false);
        for (int first = 0; first < 6; first += 2) {
            draw_t part = whole;
            part.n = 2;
            for (int i = 0; i < 2; i++) part.index[i] = whole.index[first + i];
            float *got = run(be, (kind_t)kind, &part, HIRL_F32, 0, false);
            for (int i = 0; i < 2000; i++) // the data of both begin alike
                CHECK((got[i] != 0) == (want[first * 1000 + i] != 0));
            free(got);
        }
        free(want);
    }
}

// ------------------------------------------------------------------------------------ tape

static void test_tape(void) {
    enum { N = 6, SIZE = 50 };
    const hirl_shape_t shape = hirl_shape_2(2 * N, SIZE / 2); // two rows a sample
    const int64_t counter[2] = {3, 4}, index[N] = {5, 1, 8, 9, 2, INT64_C(1) << 40};
    float *data = drawn(N * SIZE, 1), dy[N * SIZE], y[N * SIZE], dx[N * SIZE], dresidual[N * SIZE];
    hirl_world_t *world = NULL;
    hirl_tape_t *tape = NULL;
    hirl_tensor_t x = placed(be, data, shape, HIRL_F32, 0), gradient = {0}, grad[2] = {{0}};
    hirl_tensor_t t1 = numbers(be, counter, 2), t2 = numbers(be, index, N);
    hirl_drop_t drop = {.p = 0.5f, .site = 1, .counter = &t1, .index = &t2};
    hirl_var_t *leaf[2] = {NULL}, *out = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_tape_create(be, world, &tape));
    for (int i = 0; i < 2; i++) {
        NEED_OK(hirl_backend_tensor(be, shape, HIRL_F32, &grad[i]));
        NEED_OK(hirl_var_create_leaf(tape, &x, &grad[i], &leaf[i]));
    }
    for (int i = 0; i < N * SIZE; i++) dy[i] = (float)(1 + i);
    gradient = placed(be, dy, shape, HIRL_F32, 0);
    // The backward draws the forward's mask again; a draw of another site between them changes nothing.
    hirl_var_t *first = NULL, *second = NULL;
    NEED_OK(hirl_tape_dropout(tape, &drop, leaf[0], &first));
    drop.site = 2;
    NEED_OK(hirl_tape_drop_path(tape, &drop, first, leaf[1], &second));
    NEED_OK(hirl_backend_download(be, hirl_var_value_view(second), y));
    NEED_OK(hirl_tape_backward_from(tape, second, &gradient));
    NEED_OK(hirl_backend_download(be, &grad[0], dx));
    NEED_OK(hirl_backend_download(be, &grad[1], dresidual));
    int n_kept = 0;
    for (int i = 0; i < N * SIZE; i++) {
        n_kept += y[i] != data[i];
        CHECK(dresidual[i] == dy[i]);
        CHECK(dx[i] == (y[i] != data[i] ? 4 * dy[i] : 0));
    }
    CHECK_MSG(n_kept > 0 && n_kept < N * SIZE, "%d of %d kept", n_kept, N * SIZE);
    hirl_var_release(&first);
    hirl_var_release(&second);
    // Nothing to do.
    drop.p = 0;
    for (int i = 0; i < 2; i++) {
        const hirl_drop_t *none = i ? &drop : NULL;
        NEED_OK(hirl_tape_dropout(tape, none, leaf[0], &out));
        CHECK(out == leaf[0]);
        hirl_var_release(&out);
        NEED_OK(hirl_tape_drop_path(tape, none, leaf[0], leaf[1], &out));
        NEED_OK(hirl_backend_download(be, hirl_var_value_view(out), y));
        for (int j = 0; j < N * SIZE; j++) CHECK(y[j] == data[j] + data[j]);
        hirl_var_release(&out);
    }
    hirl_tape_reset(tape);
    for (int i = 0; i < 2; i++) {
        hirl_var_release(&leaf[i]);
        hirl_tensor_reset(&grad[i]);
    }
    hirl_tensor_t *const all[] = {&x, &gradient, &t1, &t2};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
    free(data);
    hirl_tape_destroy(&tape);
    hirl_world_destroy(&world);
}

// ------------------------------------------------------------------------------------ what is refused

static void test_refused(void) {
    const int64_t value[6] = {0};
    float data[60] = {0};
    hirl_tensor_t x = placed(be, data, hirl_shape_2(12, 5), HIRL_F32, 0), y = {0};
    hirl_tensor_t t1 = numbers(be, value, 2), t2 = numbers(be, value, 6),
                  t3 = numbers(be, value, 5);
    hirl_drop_t drop = {.p = 1, .counter = &t1, .index = &t2};
    CHECK_FAILS(hirl_op_dropout(be, &drop, &x, &y), HIRL_ERR_ARG, "p is 1, want 0 <= p < 1");
    drop.p = NAN;
    CHECK_FAILS(hirl_op_drop_path(be, &drop, &x, NULL, &y), HIRL_ERR_ARG, "p is ");
    drop = (hirl_drop_t){.p = 0.5f, .counter = &t2, .index = &t2};
    CHECK_FAILS(hirl_op_dropout(be, &drop, &x, &y), HIRL_ERR_ARG, "want [2]: seed, step");
    drop.counter = &x;
    CHECK_FAILS(hirl_op_dropout(be, &drop, &x, &y), HIRL_ERR_ARG, "counter is [12, 5] f32");
    drop = (hirl_drop_t){.p = 0.5f, .counter = &t1, .index = &t3};
    CHECK_FAILS(hirl_op_drop_path(be, &drop, &x, NULL, &y), HIRL_ERR_ARG,
                "rows are not those of 5 samples");
    drop.index = &t2;
    CHECK_FAILS(hirl_op_drop_path(be, &drop, &x, &t1, &y), HIRL_ERR_ARG, "residual is [2] i64");
    CHECK_FAILS(hirl_op_dropout(be, NULL, &x, &y), HIRL_ERR_ARG, "no draw given");
    CHECK(!hirl_tensor_is_set(&y));
    hirl_tensor_t *const all[] = {&x, &t1, &t2, &t3};
    for (int i = 0; i < 4; i++) hirl_tensor_reset(all[i]);
}

TEST_MAIN {
    const int most = strcmp(test_backend(), "cpu") == 0 ? 3 : 1;
    NEED_OK(hirl_backend_create("ref", 1, &ref));
    for (int n_threads = 1; n_threads <= most; n_threads++) {
        NEED_OK(hirl_backend_create(test_backend(), n_threads, &be));
        RUN(test_masks);
        RUN(test_scale);
        if (n_threads == 1) {
            RUN(test_chance);
            RUN(test_parts);
            RUN(test_tape);
            RUN(test_refused);
        }
        CHECK_EQ_I(hirl_backend_memory_used(be), 0);
        hirl_backend_destroy(&be);
    }
    hirl_backend_destroy(&ref);
}
