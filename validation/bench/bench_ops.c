// Speed of single operations at the shapes of ResNet-18 (32x32 images, batch 256) and ResNet-50 (224x224, batch 32): bench_ops [BACKEND] [TEXT] [REPEATS].
// Prints one line per operation whose text contains TEXT: best and median milliseconds of the wall clock, processor time per thread, and GF/s (convolutions,
// products, attention) or GB/s (the rest: bytes that must be read and written at least once). On a busy machine processor time is the steadier figure.

#include "hirl/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <omp.h>

static hirl_backend_t *be;
static const char *filter = "";
static int repeats = 5;

#define MUST(expr)                                                          \
    do {                                                                    \
        if ((expr) != HIRL_OK) {                                            \
            fprintf(stderr, "%s: %s (%s)\n", #expr, hirl_error_text_view(), \
                    hirl_error_place_view());                               \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double wall[64], cpu[64];
static double wall_start, cpu_start;
static bool is_wanted(const char *what) { return strstr(what, filter) != NULL; }
static void begin(void) {
    wall_start = hirl_time_now();
    cpu_start = cpu_now();
}
static void end(int i) {
    wall[i] = hirl_time_now() - wall_start;
    cpu[i] = (cpu_now() - cpu_start) / omp_get_max_threads();
}
static void report(const char *what, double work, const char *unit) {
    qsort(wall, (size_t)repeats, sizeof *wall, compare);
    qsort(cpu, (size_t)repeats, sizeof *cpu, compare);
    printf("%-58s best %8.2f ms  median %8.2f ms  cpu %8.2f ms  %8.1f %s (cpu %.1f)\n", what,
           1e3 * wall[0], 1e3 * wall[repeats / 2], 1e3 * cpu[0], 1e-9 * work / wall[0], unit,
           1e-9 * work / cpu[0]);
    fflush(stdout);
}

/// Times BODY; the first run, which makes primitives and fills the pool, does not count. UNDO runs after each, untimed.
#define TIME(what, work, unit, BODY, UNDO)          \
    do {                                            \
        if (is_wanted(what)) {                      \
            for (int i_ = -1; i_ < repeats; ++i_) { \
                begin();                            \
                BODY;                               \
                if (i_ >= 0) end(i_);               \
                UNDO;                               \
            }                                       \
            report(what, work, unit);               \
        }                                           \
    } while (0)

static hirl_tensor_t tensor(hirl_shape_t shape, hirl_dtype_t dtype) {
    hirl_tensor_t plain = {0}, x = {0};
    const int64_t n = hirl_shape_count(&shape);
    float *host = malloc((size_t)n * sizeof *host);
    uint32_t state = 12345;
    if (!host) exit(1);
    for (int64_t i = 0; i < n; ++i) {
        state = state * 1664525u + 1013904223u;
        host[i] = (float)(int32_t)state * 0x1p-31f;
    }
    MUST(hirl_backend_tensor(be, shape, HIRL_F32, &plain));
    MUST(hirl_backend_upload(be, host, &plain));
    free(host);
    if (dtype == HIRL_F32) return plain;
    MUST(hirl_op_cast(be, &plain, dtype, &x));
    hirl_tensor_reset(&plain);
    return x;
}

static void bench_conv(const char *net, int n, int size, int in, int out, int kernel, int stride,
                       hirl_dtype_t dtype) {
    const hirl_conv_param_t p = {stride, stride, kernel / 2, kernel / 2};
    char what[128];
    snprintf(what, sizeof what, "%s conv %s %dx%d %d>%d k%d s%d", net, hirl_dtype_name(dtype), size,
             size, in, out, kernel, stride);
    const char *const phases[] = {" forward", " data", " weights"};
    bool is_any = false;
    for (int i = 0; i < 3; ++i) {
        char text[160];
        snprintf(text, sizeof text, "%s%s", what, phases[i]);
        is_any |= is_wanted(text);
    }
    if (!is_any) return;
    hirl_tensor_t plain = tensor(hirl_shape_4(n, size, size, in), dtype), x = {0}, y = {0},
                  dx = {0};
    hirl_tensor_t w = tensor(hirl_shape_4(out, in, kernel, kernel), HIRL_F32), dw = {0};
    MUST(hirl_backend_tensor(be, w.shape, HIRL_F32, &dw));
    MUST(hirl_op_conv2d(be, &p, &plain, &w, NULL, &y));
    // What a network's layers see: all but the first read what a convolution before them wrote.
    if (in <= 4) {
        x = hirl_tensor_retain(&plain);
    } else {
        MUST(hirl_op_conv2d_backward_data(be, &p, &y, &w, &plain.shape, &dx));
        MUST(hirl_op_to_layout_of(be, &plain, &dx, &x));
        hirl_tensor_reset(&dx);
    }
    hirl_tensor_reset(&plain);
    const double flops = 2.0 * (double)hirl_tensor_count(&y) * in * kernel * kernel;
    char text[160];
    snprintf(text, sizeof text, "%s%s", what, phases[0]);
    hirl_tensor_t out_y = {0};
    TIME(text, flops, "GF/s", MUST(hirl_op_conv2d(be, &p, &x, &w, NULL, &out_y)),
         hirl_tensor_reset(&out_y));
    snprintf(text, sizeof text, "%s%s", what, phases[1]);
    TIME(text, flops, "GF/s", MUST(hirl_op_conv2d_backward_data(be, &p, &y, &w, &x.shape, &dx)),
         hirl_tensor_reset(&dx));
    snprintf(text, sizeof text, "%s%s", what, phases[2]);
    TIME(text, flops, "GF/s",
         MUST(hirl_op_conv2d_backward_weights(be, &p, &x, &y, false, &dw, NULL)), (void)0);
    hirl_tensor_reset(&x);
    hirl_tensor_reset(&y);
    hirl_tensor_reset(&w);
    hirl_tensor_reset(&dw);
}

static void bench_norm(const char *net, int n, int size, int channels, bool has_residual,
                       hirl_dtype_t dtype) {
    char what[128], text[160];
    snprintf(what, sizeof what, "%s norm %s %dx%d %d%s", net, hirl_dtype_name(dtype), size, size,
             channels, has_residual ? " residual" : "");
    bool is_any = false;
    const char *const phases[] = {" stats", " apply", " sums", " backward"};
    for (int i = 0; i < 4; ++i) {
        snprintf(text, sizeof text, "%s%s", what, phases[i]);
        is_any |= is_wanted(text);
    }
    if (!is_any) return;
    // In the layout that a 3x3 convolution leaves.
    const hirl_conv_param_t p = {1, 1, 1, 1};
    hirl_tensor_t plain = tensor(hirl_shape_4(n, size, size, channels), dtype), x = {0}, y = {0},
                  dy = {0}, dx = {0}, dz = {0}, like = {0};
    hirl_tensor_t w = tensor(hirl_shape_4(channels, channels, 3, 3), HIRL_F32);
    hirl_tensor_t gamma = tensor(hirl_shape_1(channels), HIRL_F32), mean = {0}, var = {0}, s1 = {0},
                  s2 = {0};
    MUST(hirl_op_conv2d(be, &p, &plain, &w, NULL, &like));
    MUST(hirl_op_to_layout_of(be, &plain, &like, &x));
    hirl_tensor_reset(&plain);
    hirl_tensor_reset(&w);
    hirl_tensor_t residual = hirl_tensor_retain(&like);
    MUST(hirl_op_to_layout_of(be, &like, &x, &dy));
    const double bytes = (double)hirl_tensor_count(&x) * (double)hirl_dtype_size(dtype);
    const hirl_tensor_t *r = has_residual ? &residual : NULL;
    MUST(hirl_op_bn_stats(be, &x, 1, &mean, &var));
    MUST(hirl_op_bn_apply(be, &x, 1, &mean, &var, 1e-5f, &gamma, &gamma, r, true, &y));
    MUST(hirl_op_bn_backward_sums(be, &dy, &y, &x, 1, &mean, &var, 1e-5f, &s1, &s2));
    snprintf(text, sizeof text, "%s%s", what, phases[0]);
    TIME(text, bytes, "GB/s", MUST(hirl_op_bn_stats(be, &x, 1, &mean, &var)), (void)0);
    hirl_tensor_reset(&y);
    snprintf(text, sizeof text, "%s%s", what, phases[1]);
    TIME(text, bytes * (has_residual ? 3 : 2), "GB/s",
         MUST(hirl_op_bn_apply(be, &x, 1, &mean, &var, 1e-5f, &gamma, &gamma, r, true, &y)),
         hirl_tensor_reset(&y));
    MUST(hirl_op_bn_apply(be, &x, 1, &mean, &var, 1e-5f, &gamma, &gamma, r, true, &y));
    snprintf(text, sizeof text, "%s%s", what, phases[2]);
    TIME(text, bytes * 3, "GB/s",
         MUST(hirl_op_bn_backward_sums(be, &dy, &y, &x, 1, &mean, &var, 1e-5f, &s1, &s2)), (void)0);
    snprintf(text, sizeof text, "%s%s", what, phases[3]);
    TIME(text, bytes * (has_residual ? 5 : 4), "GB/s",
         MUST(hirl_op_bn_backward_apply(be, &dy, &y, &x, 1, &mean, &var, 1e-5f, &gamma, &s1, &s2,
                                        &dx, has_residual ? &dz : NULL)),
         (hirl_tensor_reset(&dx), hirl_tensor_reset(&dz)));
    hirl_tensor_t *const all[] = {&x, &y, &dy, &like, &residual, &gamma, &mean, &var, &s1, &s2};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) hirl_tensor_reset(all[i]);
}

static void bench_pool(hirl_dtype_t dtype) {
    char text[160];
    snprintf(text, sizeof text, "r50 pool %s 112x112 64 forward backward", hirl_dtype_name(dtype));
    if (filter[0] && !strstr(text, filter) && !strstr(filter, "pool")) return;
    const hirl_pool_param_t p = {3, 2, 1};
    hirl_tensor_t plain = tensor(hirl_shape_4(32, 112, 112, 64), dtype), x = {0}, y = {0}, ws = {0},
                  dx = {0}, like = {0};
    const hirl_conv_param_t c = {1, 1, 1, 1};
    hirl_tensor_t w = tensor(hirl_shape_4(64, 64, 3, 3), HIRL_F32);
    MUST(hirl_op_conv2d(be, &c, &plain, &w, NULL, &like));
    MUST(hirl_op_to_layout_of(be, &plain, &like, &x));
    const double bytes = (double)hirl_tensor_count(&x) * (double)hirl_dtype_size(dtype);
    snprintf(text, sizeof text, "r50 pool %s 112x112 64 forward", hirl_dtype_name(dtype));
    TIME(text, bytes * 1.25, "GB/s", MUST(hirl_op_max_pool(be, &p, &x, &y, &ws)),
         (hirl_tensor_reset(&y), hirl_tensor_reset(&ws)));
    MUST(hirl_op_max_pool(be, &p, &x, &y, &ws));
    snprintf(text, sizeof text, "r50 pool %s 112x112 64 backward", hirl_dtype_name(dtype));
    TIME(text, bytes * 1.25, "GB/s",
         MUST(hirl_op_max_pool_backward(be, &p, &y, &ws, &x.shape, &dx)), hirl_tensor_reset(&dx));
    hirl_tensor_t *const all[] = {&plain, &x, &y, &ws, &like, &w};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) hirl_tensor_reset(all[i]);
}

/// ViT's self-attention on the packed output of its q|k|v product, or on windows with relative positions.
static void bench_attention(const char *what, int64_t n_batch, int64_t n_heads, int64_t n,
                            int64_t head_size, bool has_bias, hirl_dtype_t dtype) {
    const char *const phases[] = {"forward", "backward"};
    char text[2][160];
    for (int i = 0; i < 2; ++i)
        snprintf(text[i], sizeof text[i], "attention %s %s %lldx%lldx%lldx%lld %s", what,
                 hirl_dtype_name(dtype), (long long)n_batch, (long long)n_heads, (long long)n,
                 (long long)head_size, phases[i]);
    if (!is_wanted(text[0]) && !is_wanted(text[1])) return;
    const int64_t width = n_heads * head_size;
    const hirl_attention_param_t p = {
        n_batch, n_heads, head_size, 0, width, 2 * width, 1.0f / sqrtf((float)head_size)};
    hirl_tensor_t x = tensor(hirl_shape_2(n_batch * n, 3 * width), dtype),
                  dy = tensor(hirl_shape_2(n_batch * n, width), dtype), y = {0}, lse = {0},
                  dx = {0}, bias = {0}, dbias = {0};
    if (has_bias) bias = tensor(hirl_shape_3(n_heads, n, n), HIRL_F32);
    const hirl_tensor_t *b = has_bias ? &bias : NULL;
    const double flops = 4.0 * (double)(n_batch * n * n * width);
    MUST(hirl_op_attention(be, &p, &x, &x, &x, b, NULL, &y, &lse));
    TIME(text[0], flops, "GF/s", MUST(hirl_op_attention(be, &p, &x, &x, &x, b, NULL, &y, &lse)),
         (void)0);
    TIME(text[1], 2.5 * flops, "GF/s",
         MUST(hirl_op_attention_backward(be, &p, &x, &x, &x, b, NULL, &y, &lse, &dy, &dx, &dx, &dx,
                                         has_bias ? &dbias : NULL)),
         (void)0);
    hirl_tensor_t *const all[] = {&x, &dy, &y, &lse, &dx, &bias, &dbias};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) hirl_tensor_reset(all[i]);
}

static void bench_rest(void) {
    char text[160];
    const int sizes[][3] = {{256, 512, 512}, {256, 16384, 128}, {256, 2048, 2048}};
    for (int dtype = HIRL_F32; dtype <= HIRL_BF16; ++dtype) {
        for (int i = 0; i < 3; ++i) {
            const int64_t n = sizes[i][0], out = sizes[i][1], in = sizes[i][2];
            hirl_tensor_t x = tensor(hirl_shape_2(n, in), (hirl_dtype_t)dtype),
                          w = tensor(hirl_shape_2(out, in), HIRL_F32);
            hirl_tensor_t b = tensor(hirl_shape_1(out), HIRL_F32), y = {0}, dx = {0}, dw = {0},
                          db = {0};
            snprintf(text, sizeof text, "linear %s %lldx%lld>%lld forward",
                     hirl_dtype_name((hirl_dtype_t)dtype), (long long)n, (long long)in,
                     (long long)out);
            TIME(text, 2.0 * (double)(n * in * out), "GF/s",
                 MUST(hirl_op_linear(be, &x, &w, &b, HIRL_ACT_RELU, &y, NULL)), (void)0);
            if (!hirl_tensor_is_set(&y))
                MUST(hirl_op_linear(be, &x, &w, &b, HIRL_ACT_RELU, &y, NULL));
            snprintf(text, sizeof text, "linear %s %lldx%lld>%lld backward",
                     hirl_dtype_name((hirl_dtype_t)dtype), (long long)n, (long long)in,
                     (long long)out);
            TIME(text, 4.0 * (double)(n * in * out), "GF/s",
                 MUST(hirl_op_linear_backward(be, &y, &x, &w, false, &dx, &dw, &db)), (void)0);
            hirl_tensor_t *const all[] = {&x, &w, &b, &y, &dx, &dw, &db};
            for (size_t k = 0; k < sizeof all / sizeof all[0]; ++k) hirl_tensor_reset(all[k]);
        }
    }
    for (int64_t k = 16385; k <= 65537; k += 49152) {
        hirl_tensor_t x = tensor(hirl_shape_2(256, k), HIRL_F32), target = {0}, loss = {0},
                      lse = {0}, correct = {0}, dx = {0};
        MUST(hirl_backend_tensor(be, hirl_shape_1(256), HIRL_I32, &target));
        int32_t zero[256] = {0};
        MUST(hirl_backend_upload(be, zero, &target));
        const double bytes = 4.0 * (double)hirl_tensor_count(&x);
        snprintf(text, sizeof text, "cross_entropy 256x%lld forward", (long long)k);
        TIME(text, bytes, "GB/s",
             MUST(hirl_op_cross_entropy(be, &x, 5, &target, &loss, &lse, &correct)), (void)0);
        if (!hirl_tensor_is_set(&lse))
            MUST(hirl_op_cross_entropy(be, &x, 5, &target, &loss, &lse, &correct));
        snprintf(text, sizeof text, "cross_entropy 256x%lld backward", (long long)k);
        TIME(text, 2 * bytes, "GB/s",
             MUST(hirl_op_cross_entropy_backward(be, &x, 5, &target, &lse, &loss, &dx)), (void)0);
        hirl_tensor_t *const all[] = {&x, &target, &loss, &lse, &correct, &dx};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; ++i) hirl_tensor_reset(all[i]);
    }
    const int64_t n = 25 << 20;
    hirl_tensor_t p = tensor(hirl_shape_1(n), HIRL_F32), g = tensor(hirl_shape_1(n), HIRL_F32),
                  v = tensor(hirl_shape_1(n), HIRL_F32);
    double sum = 0;
    hirl_segments_t *segments = NULL;
    hirl_update_t update = {.lr = 1e-3f, .grad_scale = 1, .momentum = 0.9f, .trust = 1e-3f};
    MUST(hirl_segments_create(be, &(hirl_segment_t){0, n, 0, 1e-4f, true}, 1, &segments));
    TIME("sgd 25M", 20.0 * (double)n, "GB/s",
         MUST(hirl_op_update(be, &update, segments, &g, &v, NULL, &p)), (void)0);
    update.rule = HIRL_RULE_LARS;
    TIME("lars 25M", 28.0 * (double)n, "GB/s",
         MUST(hirl_op_update(be, &update, segments, &g, &v, NULL, &p)), (void)0);
    hirl_segments_destroy(&segments);
    const int64_t counter[2] = {1, 2};
    int64_t sample[256];
    hirl_tensor_t rows = {0}, t1 = {0}, t2 = {0}, y = {0};
    for (int64_t i = 0; i < 256; ++i) sample[i] = i;
    MUST(hirl_tensor_reshape(&g, hirl_shape_2(256, n / 256), &rows));
    MUST(hirl_backend_tensor(be, hirl_shape_1(2), HIRL_I64, &t1));
    MUST(hirl_backend_upload(be, counter, &t1));
    MUST(hirl_backend_tensor(be, hirl_shape_1(256), HIRL_I64, &t2));
    MUST(hirl_backend_upload(be, sample, &t2));
    const hirl_drop_t drop = {.p = 0.1f, .counter = &t1, .index = &t2};
    TIME("dropout 25M", 8.0 * (double)n, "GB/s", MUST(hirl_op_dropout(be, &drop, &rows, &y)),
         (void)0);
    TIME("drop_path 25M", (4.0 + 4.0 + 0.9 * 4.0) * (double)n, "GB/s",
         MUST(hirl_op_drop_path(be, &drop, &rows, &y, &y)), (void)0);
    hirl_tensor_t *const dropped[] = {&rows, &t1, &t2, &y};
    for (int i = 0; i < 4; ++i) hirl_tensor_reset(dropped[i]);
    TIME("ema 25M", 12.0 * (double)n, "GB/s", MUST(hirl_op_ema(be, 0.99f, &g, &p)), (void)0);
    TIME("sum_squares 25M", 4.0 * (double)n, "GB/s", MUST(hirl_op_sum_squares(be, &g, &sum)),
         (void)0);
    TIME("axpby 25M", 12.0 * (double)n, "GB/s", MUST(hirl_op_axpby(be, 1, &g, 1, &p)), (void)0);
    TIME("gelu 25M", 8.0 * (double)n, "GB/s", MUST(hirl_op_act(be, HIRL_ACT_GELU, &g, &p)),
         (void)0);
    hirl_tensor_reset(&p);
    hirl_tensor_reset(&g);
    hirl_tensor_reset(&v);
}

int main(int argc, char **argv) {
    if (argc > 2) filter = argv[2];
    if (argc > 3) repeats = atoi(argv[3]) < 1 ? 1 : atoi(argv[3]) > 64 ? 64 : atoi(argv[3]);
    MUST(hirl_backend_create(argc > 1 ? argv[1] : "cpu", 0, &be));
    printf("%s; best of %d\n", hirl_backend_info_view(be), repeats);
    for (int dtype = HIRL_F32; dtype <= HIRL_BF16; ++dtype) {
        const hirl_dtype_t t = (hirl_dtype_t)dtype;
        const int r18[][5] = {{32, 3, 64, 3, 1},   {32, 64, 64, 3, 1},   {32, 64, 128, 3, 2},
                              {32, 64, 128, 1, 2}, {16, 128, 128, 3, 1}, {16, 128, 256, 3, 2},
                              {8, 256, 256, 3, 1}, {8, 256, 512, 3, 2},  {4, 512, 512, 3, 1}};
        const int r50[][5] = {{224, 3, 64, 7, 2},    {56, 64, 64, 1, 1},     {56, 64, 64, 3, 1},
                              {56, 64, 256, 1, 1},   {56, 256, 64, 1, 1},    {56, 256, 128, 1, 1},
                              {56, 128, 128, 3, 2},  {28, 128, 512, 1, 1},   {56, 256, 512, 1, 2},
                              {28, 512, 128, 1, 1},  {28, 128, 128, 3, 1},   {28, 512, 256, 1, 1},
                              {28, 256, 256, 3, 2},  {14, 256, 1024, 1, 1},  {28, 512, 1024, 1, 2},
                              {14, 1024, 256, 1, 1}, {14, 256, 256, 3, 1},   {14, 512, 512, 3, 2},
                              {7, 512, 2048, 1, 1},  {14, 1024, 2048, 1, 2}, {7, 2048, 512, 1, 1},
                              {7, 512, 512, 3, 1}};
        for (size_t i = 0; i < sizeof r18 / sizeof r18[0]; ++i)
            bench_conv("r18", 256, r18[i][0], r18[i][1], r18[i][2], r18[i][3], r18[i][4], t);
        for (int i = 0; i < 4; ++i) bench_norm("r18", 256, 32 >> i, 64 << i, i % 2, t);
        for (size_t i = 0; i < sizeof r50 / sizeof r50[0]; ++i)
            bench_conv("r50", 32, r50[i][0], r50[i][1], r50[i][2], r50[i][3], r50[i][4], t);
        bench_norm("r50", 32, 112, 64, false, t);
        for (int i = 0; i < 4; ++i) {
            bench_norm("r50", 32, 56 >> i, 64 << i, false, t);
            bench_norm("r50", 32, 56 >> i, 256 << i, true, t);
        }
        bench_pool(t);
        bench_attention("ViT", 32, 6, 197, 64, false, t);
        bench_attention("windows", 512, 4, 49, 32, true, t);
    }
    bench_rest();
    hirl_backend_destroy(&be);
    return 0;
}
