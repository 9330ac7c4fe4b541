// Mixup, cutmix and smoothed labels against an independent implementation (validation/reference/masks); Gamma and Beta numbers against
// their distributions; the same samples however an epoch is split; settings and labels that do not fit.
// test: ranks=1 timeout=60
#include "test.h"

#include "hirl/app.h"
#include "hirl/data_mix.h"

#define CASES "validation/reference/masks/mix.txt"
enum { FLOATS_MAX = 8 * 8 * 8 * 3, N_DRAWS = 30000 };

static hirl_mix_cfg_t mix_cfg(double mixup, double cutmix) {
    return (hirl_mix_cfg_t){.mixup = mixup,
                            .cutmix = cutmix,
                            .prob = 1,
                            .switch_prob = 0.5,
                            .smoothing = 0.1,
                            .group = 4};
}

// The script's images: 16 bits in [-2, 2).
static void fill_images(float *x, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        uint32_t i = (uint32_t)k;
        i = (i ^ i >> 16) * 0x7feb352du;
        i = (i ^ i >> 15) * 0x846ca68bu;
        i = i ^ i >> 16;
        x[k] = (float)(i & 0xffff) / 16384 - 2;
    }
}

static int read_ints(FILE *file, const char *word, int n, int32_t *list) {
    char found[32];
    NEED(fscanf(file, "%31s", found) == 1 && strcmp(found, word) == 0);
    for (int i = 0; i < n; i++) NEED(fscanf(file, "%d", &list[i]) == 1);
    return n;
}

static void read_floats(FILE *file, const char *word, int n, float *list) {
    char found[32];
    NEED(fscanf(file, "%31s", found) == 1 && strcmp(found, word) == 0);
    for (int i = 0; i < n; i++) NEED(fscanf(file, "%f", &list[i]) == 1);
}

static void check_case(FILE *file, int *n_mixup, int *n_cutmix) {
    hirl_mix_cfg_t cfg;
    unsigned long long seed;
    long long group, epoch, first, n;
    int h, w, channels, n_classes;
    NEED(fscanf(file, "%lf %lf %lf %lf %lf %lld %llu %lld %lld %lld %d %d %d %d", &cfg.mixup,
                &cfg.cutmix, &cfg.prob, &cfg.switch_prob, &cfg.smoothing, &group, &seed, &epoch,
                &first, &n, &h, &w, &channels, &n_classes) == 14);
    cfg.group = group;
    int32_t label[8];
    read_ints(file, "label", (int)n, label);
    for (int64_t g = first / group; g <= (first + n - 1) / group; g++) {
        char word[8];
        double lambda;
        int is_cutmix, top, left, height, width;
        NEED(fscanf(file, "%7s %d %lf %d %d %d %d", word, &is_cutmix, &lambda, &top, &left, &height,
                    &width) == 7);
        const hirl_mix_draw_t draw = hirl_mix_draw(&cfg, seed, epoch, g, h, w);
        // The logarithms and exponentials of two C libraries may differ in the last bit.
        CHECK_CLOSE(draw.lambda, lambda, 1e-13, 0);
        CHECK(draw.is_cutmix == (is_cutmix != 0) && draw.top == top && draw.left == left &&
              draw.height == height && draw.width == width);
        *n_mixup += !is_cutmix && lambda < 1;
        *n_cutmix += is_cutmix;
    }
    static float images[FLOATS_MAX], want[FLOATS_MAX], target[8 * 8], want_target[8 * 8];
    const int64_t n_floats = n * h * w * channels;
    read_floats(file, "images", (int)n_floats, want);
    read_floats(file, "target", (int)n * n_classes, want_target);
    fill_images(images, n_floats);
    NEED_OK(hirl_mix_batch(&cfg, seed, epoch, first, n, h, w, channels, n_classes, label, images,
                           target));
    // Two products of numbers below 2 and their sum: each side within an ulp of 2 if lambda differed in a float's last bit.
    CHECK_CLOSE_F32(images, want, n_floats, 0, 4.8e-7);
    CHECK_CLOSE_F32(target, want_target, n * n_classes, 2e-7, 0);
}

static void test_reference(void) {
    FILE *file = fopen(CASES, "r");
    char word[64];
    int n_cases = 0, n_mixup = 0, n_cutmix = 0;
    NEED(file != NULL);
    NEED(fscanf(file, "#%*[^\n]") == 0);
    while (fscanf(file, "%63s", word) == 1) {
        NEED(strcmp(word, "case") == 0);
        check_case(file, &n_mixup, &n_cutmix);
        n_cases++;
    }
    fclose(file);
    CHECK_EQ_I(n_cases, 18);
    CHECK(n_mixup > 5 && n_cutmix > 5);
}

// ------------------------------------------------------------------------------------ split

static void test_split(void) {
    enum { N = 24, H = 6, W = 5, C = 3, K = 4, F = H * W * C };
    static float whole[N * F], parts[N * F], target[N * K], part_target[N * K];
    int32_t label[N];
    const hirl_mix_cfg_t cfg = mix_cfg(0.8, 1.0);
    for (int i = 0; i < N; i++) label[i] = i % K;
    fill_images(whole, N * F);
    NEED_OK(hirl_mix_batch(&cfg, test_seed(), 5, 48, N, H, W, C, K, label, whole, target));
    static const int n_parts[] = {2, 3, 4, 6, 12};
    for (int p = 0; p < 5; p++) {
        const int n = N / n_parts[p];
        fill_images(parts, N * F);
        for (int r = n_parts[p] - 1; r >= 0; r--)
            NEED_OK(hirl_mix_batch(&cfg, test_seed(), 5, 48 + r * n, n, H, W, C, K, label + r * n,
                                   parts + r * n * F, part_target + r * n * K));
        CHECK_BITS(parts, whole, sizeof whole);
        CHECK_BITS(part_target, target, sizeof target);
    }
    // Every target is a distribution; off and probability 0 leave images alone.
    for (int i = 0; i < N; i++) {
        double sum = 0;
        for (int k = 0; k < K; k++) sum += (double)target[i * K + k];
        CHECK_CLOSE(sum, 1, 1e-6, 0);
    }
    hirl_mix_cfg_t off = mix_cfg(0, 0);
    for (int k = 0; k < 2; k++) {
        fill_images(whole, N * F);
        fill_images(parts, N * F);
        NEED_OK(hirl_mix_batch(&off, test_seed(), 5, 48, N, H, W, C, K, label, parts, target));
        CHECK_BITS(parts, whole, sizeof whole);
        CHECK_CLOSE((double)target[0], 0.925, 1e-6, 0);
        CHECK_CLOSE((double)target[1], 0.025, 1e-6, 0);
        off = mix_cfg(0.8, 1);
        off.prob = 0;
    }
}

// ------------------------------------------------------------------------------------ distributions

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Kolmogorov and Smirnov's distance, times sqrt(N): above 2.2 once in 8000 tests, 2 exp(-2 2.2^2).
static void check_distribution(const char *what, double *x, double (*cdf)(double)) {
    double worst = 0;
    qsort(x, N_DRAWS, sizeof *x, compare_doubles);
    for (int i = 0; i < N_DRAWS; i++) {
        const double f = cdf(x[i]);
        worst = fmax(worst, fmax(fabs(f - (double)i / N_DRAWS), fabs(f - (i + 1.0) / N_DRAWS)));
    }
    worst *= sqrt(N_DRAWS);
    CHECK_MSG(worst < 2.2, "%s: distance %.2f", what, worst);
}

static double gamma_half(double log_x) { return erf(sqrt(exp(log_x))); }
static double gamma_one(double log_x) { return -expm1(-exp(log_x)); }
static double gamma_three(double log_x) {
    const double x = exp(log_x);
    return 1 - exp(-x) * (1 + x + x * x / 2);
}
static double beta_half(double x) { return 2 / 3.14159265358979323846 * asin(sqrt(x)); }
static double beta_one(double x) { return x; }
static double beta_three(double x) { return x * x * x * (10 - 15 * x + 6 * x * x); }

// Beta(0.8, 0.8), with x = sin(t)^2: density (sin t cos t)^0.6, by Simpson's rule on a table.
enum { N_STEPS = 4000 };
static double integral[N_STEPS + 1];
static double density(double t) { return pow(fabs(sin(t) * cos(t)), 0.6); }
static void fill_integral(void) {
    const double step = asin(1) / N_STEPS;
    for (int i = 0; i < N_STEPS; i++) {
        const double t = i * step;
        integral[i + 1] =
            integral[i] + (density(t) + 4 * density(t + step / 2) + density(t + step)) * step / 6;
    }
}
static double beta_four_fifths(double x) {
    const double at = asin(sqrt(x)) / asin(1) * N_STEPS;
    const int i = at < N_STEPS ? (int)at : N_STEPS - 1;
    return (integral[i] + (at - i) * (integral[i + 1] - integral[i])) / integral[N_STEPS];
}

static void test_distributions(void) {
    static double x[N_DRAWS];
    static const struct {
        const char *name;
        bool is_beta;
        double shape;
        double (*cdf)(double);
    } cases[] = {{"Gamma(1/2)", false, 0.5, gamma_half},
                 {"Gamma(1)", false, 1, gamma_one},
                 {"Gamma(3)", false, 3, gamma_three},
                 {"Beta(1/2)", true, 0.5, beta_half},
                 {"Beta(0.8)", true, 0.8, beta_four_fifths},
                 {"Beta(1)", true, 1, beta_one},
                 {"Beta(3)", true, 3, beta_three}};
    fill_integral();
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        hirl_rng_t rng = test_rng(k);
        for (int i = 0; i < N_DRAWS; i++)
            x[i] = cases[k].is_beta ? hirl_mix_beta(&rng, cases[k].shape)
                                    : hirl_mix_log_gamma(&rng, cases[k].shape);
        check_distribution(cases[k].name, x, cases[k].cdf);
    }
    // The check can fail: numbers of Beta(1) are none of Beta(0.8).
    double worst = 0;
    for (int i = 0; i < 100; i++)
        worst = fmax(worst, fabs(beta_four_fifths(i / 100.0) - i / 100.0));
    CHECK(worst * sqrt(N_DRAWS) > 4);
    // Shapes whose Gamma numbers vanish in a double still give 0 or 1 or something between, equally often.
    hirl_rng_t rng = test_rng(99);
    int n_low = 0;
    for (int i = 0; i < 1000; i++) {
        const double value = hirl_mix_beta(&rng, 1e-4);
        CHECK(value >= 0 && value <= 1);
        n_low += value < 0.5;
    }
    CHECK_MSG(abs(n_low - 500) < 80, "%d of 1000 are low", n_low); // five times sqrt(1000) / 2
}

static void test_shares(void) {
    hirl_mix_cfg_t cfg = mix_cfg(0.8, 1);
    cfg.prob = 0.6, cfg.switch_prob = 0.25;
    enum { N = 20000, SIDE = 64 };
    int n_none = 0, n_cutmix = 0;
    double area = 0;
    for (int g = 0; g < N; g++) {
        const hirl_mix_draw_t draw = hirl_mix_draw(&cfg, test_seed(), 0, g, SIDE, SIDE);
        n_none += !draw.is_cutmix && draw.lambda == 1;
        n_cutmix += draw.is_cutmix;
        area += draw.is_cutmix ? 1 - draw.lambda : 0;
        CHECK(draw.top >= 0 && draw.left >= 0 && draw.height >= 0 && draw.width >= 0 &&
              draw.top + draw.height <= SIDE && draw.left + draw.width <= SIDE);
    }
    // Binomial: five times sqrt(N p (1 - p)).
    CHECK(abs(n_none - 8000) < 5 * 70 && abs(n_cutmix - 3000) < 5 * 51);
    // A side s with a uniform centre keeps s (1 - s / 4) in the mean of an axis; with s^2 = u uniform the area is E u (1 - sqrt(u) / 4)^2 =
    // 1/2 - 1/5 + 1/48. Sides are cut to even numbers of 64 pixels: up to 2 x 2 / 64 less.
    const double mean = area / n_cutmix, wanted = 0.5 - 0.2 + 1.0 / 48;
    CHECK_MSG(mean < wanted + 0.02 && mean > wanted - 0.06, "%.3f, want %.3f", mean, wanted);
}

// ------------------------------------------------------------------------------------ refused

static void test_refused(void) {
    hirl_mix_cfg_t cfg = mix_cfg(0.8, 1);
    float images[4] = {0}, target[8];
    int32_t label[4] = {0, 1, 1, 0};
    cfg.group = 3;
    CHECK_EQ_I(hirl_mix_check(&cfg), HIRL_ERR_DECK);
    CHECK_HAS(hirl_error_text_view(), "mix%group = 3; want an even number");
    cfg.group = 2;
    CHECK_OK(hirl_mix_check(&cfg));
    CHECK_EQ_I(hirl_mix_batch(&cfg, 0, 0, 1, 2, 1, 1, 1, 2, label, images, target), HIRL_ERR_ARG);
    CHECK_EQ_I(hirl_mix_batch(&cfg, 0, 0, 2, 3, 1, 1, 1, 2, label, images, target), HIRL_ERR_ARG);
    CHECK_HAS(hirl_error_text_view(), "samples [2, 5)");
    label[1] = 2;
    CHECK_EQ_I(hirl_mix_batch(&cfg, 0, 0, 2, 2, 1, 1, 1, 2, label, images, target),
               HIRL_ERR_FORMAT);
    label[1] = -1;
    CHECK_EQ_I(hirl_mix_batch(&cfg, 0, 0, 2, 2, 1, 1, 1, 2, label, images, target),
               HIRL_ERR_FORMAT);
    CHECK_HAS(hirl_error_text_view(), "label -1; want 0 to 1");
    int n;
    const hirl_group_t *const *groups = hirl_app_groups(&n);
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(groups, n, &deck));
    const hirl_mix_cfg_t *read = hirl_deck_group_view(deck, "mix");
    CHECK(read->mixup == 0 && read->cutmix == 0 && read->group == 128);
    CHECK_OK(hirl_mix_check(read));
    hirl_deck_destroy(&deck);
}

TEST_MAIN {
    RUN(test_reference);
    RUN(test_split);
    RUN(test_distributions);
    RUN(test_shares);
    RUN(test_refused);
}
