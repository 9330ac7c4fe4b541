// Mixup, cutmix and label smoothing, and the group &mix.
// Draws of a group, in this order, from the stream (seed, HIRL_RNG_MIX, epoch, group, 0); they are part of the answers: whether it is mixed;
// whether by cutmix (where both are on); lambda; for cutmix the centre's row and column. The box has sides 2 (int(side sqrt(1 - lambda)) / 2)
// around the centre, cut at the image's edges, and lambda becomes the share of the image that it leaves.
#include "hirl/data_mix.h"

#include <math.h>
#include <string.h>

#define ROW_REAL(field, default_text, min, max, help) \
    HIRL_ROW_REAL(hirl_mix_cfg_t, field, default_text, min, max, "", help)

static const hirl_key_t mix_keys[] = {
    ROW_REAL(mixup, "0", 0, 1e3,
             "Mixup: the share is drawn from Beta(this, this); 0: off. Usual for transformers: "
             "0.8."),
    ROW_REAL(cutmix, "0", 0, 1e3,
             "Cutmix: the area left is drawn from Beta(this, this); 0: off. Usual: 1."),
    ROW_REAL(prob, "1", 0, 1, "Probability that a group is mixed at all."),
    ROW_REAL(switch_prob, "0.5", 0, 1, "Probability of cutmix where both are on."),
    ROW_REAL(smoothing, "0", 0, 1,
             "Label smoothing: this share of a label is spread over all classes. Usual: 0.1."),
    HIRL_ROW_INT(hirl_mix_cfg_t, group, "128", 2, 1e6, "samples",
                 "Consecutive samples of the epoch that share one draw, an even number. Two "
                 "neighbours each are mixed with one another."),
};

const hirl_group_t hirl_mix_group = {"mix", "Mixup, cutmix and label smoothing.", mix_keys,
                                     (int)(sizeof mix_keys / sizeof *mix_keys),
                                     sizeof(hirl_mix_cfg_t)};

hirl_status_t hirl_mix_check(const hirl_mix_cfg_t *cfg) {
    HIRL_REQUIRE(cfg->group >= 2 && cfg->group % 2 == 0, HIRL_ERR_DECK,
                 "mix%%group = %lld; want an even number: neighbours are mixed with one another",
                 (long long)cfg->group);
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ draws

double hirl_mix_log_gamma(hirl_rng_t *rng, double shape) {
    // Below 1: Gamma(shape) = Gamma(shape + 1) U^(1 / shape).
    const double boost = shape < 1 ? log(1 - hirl_rng_uniform(rng)) / shape : 0;
    const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double x = hirl_rng_normal(rng), t = 1 + c * x;
        if (t <= 0) continue;
        const double v = t * t * t, u = 1 - hirl_rng_uniform(rng);
        if (log(u) < 0.5 * x * x + d * (1 - v + log(v))) return log(d * v) + boost;
    }
}

double hirl_mix_beta(hirl_rng_t *rng, double alpha) {
    const double a = hirl_mix_log_gamma(rng, alpha), b = hirl_mix_log_gamma(rng, alpha);
    return 1 / (1 + exp(b - a));
}

static int clip(int value, int most) { return value < 0 ? 0 : value > most ? most : value; }

hirl_mix_draw_t hirl_mix_draw(const hirl_mix_cfg_t *cfg, uint64_t seed, int64_t epoch,
                              int64_t group, int height, int width) {
    hirl_rng_t rng = hirl_rng_make(seed, HIRL_RNG_MIX, (uint64_t)epoch, (uint64_t)group, 0);
    hirl_mix_draw_t draw = {.lambda = 1};
    if (cfg->mixup <= 0 && cfg->cutmix <= 0) return draw;
    if (hirl_rng_uniform(&rng) >= cfg->prob) return draw;
    draw.is_cutmix = cfg->cutmix > 0;
    if (cfg->mixup > 0 && cfg->cutmix > 0)
        draw.is_cutmix = hirl_rng_uniform(&rng) < cfg->switch_prob;
    draw.lambda = hirl_mix_beta(&rng, draw.is_cutmix ? cfg->cutmix : cfg->mixup);
    if (!draw.is_cutmix) return draw;
    const double side = sqrt(1 - draw.lambda);
    const int half_y = (int)(height * side) / 2, half_x = (int)(width * side) / 2;
    const int y = (int)hirl_rng_below(&rng, height), x = (int)hirl_rng_below(&rng, width);
    draw.top = clip(y - half_y, height);
    draw.left = clip(x - half_x, width);
    draw.height = clip(y + half_y, height) - draw.top;
    draw.width = clip(x + half_x, width) - draw.left;
    draw.lambda = 1 - (double)draw.height * draw.width / ((double)height * width);
    return draw;
}

// ------------------------------------------------------------------------------------ batch

// Both of a pair at once: each is the other's partner.
static void mix_pixels(float *HIRL_RESTRICT a, float *HIRL_RESTRICT b, int64_t n, double lambda) {
    const float own = (float)lambda, other = (float)(1 - lambda);
    for (int64_t i = 0; i < n; ++i) {
        const float x = a[i], y = b[i];
        a[i] = x * own + y * other;
        b[i] = y * own + x * other;
    }
}

static void swap_box(float *HIRL_RESTRICT a, float *HIRL_RESTRICT b, const hirl_mix_draw_t *draw,
                     int width, int channels) {
    for (int y = draw->top; y < draw->top + draw->height; ++y) {
        const int64_t at = ((int64_t)y * width + draw->left) * channels;
        for (int64_t i = at; i < at + (int64_t)draw->width * channels; ++i) {
            const float x = a[i];
            a[i] = b[i];
            b[i] = x;
        }
    }
}

static void put_target(float *target, int n_classes, int32_t label, int32_t other, double lambda,
                       double smoothing) {
    const double off = smoothing / n_classes, on = 1 - smoothing + off;
    for (int k = 0; k < n_classes; ++k)
        target[k] =
            (float)((k == label ? on : off) * lambda + (k == other ? on : off) * (1 - lambda));
}

hirl_status_t hirl_mix_batch(const hirl_mix_cfg_t *cfg, uint64_t seed, int64_t epoch, int64_t first,
                             int64_t n, int height, int width, int channels, int n_classes,
                             const int32_t *label, float *images, float *target) {
    const int64_t floats = (int64_t)height * width * channels;
    HIRL_REQUIRE(first >= 0 && first % 2 == 0 && n % 2 == 0, HIRL_ERR_ARG,
                 "samples [%lld, %lld) are to be mixed; want even numbers: optim%%batch must be a "
                 "multiple of 2 x ranks x optim%%accumulate",
                 (long long)first, (long long)(first + n));
    for (int64_t i = 0; i < n; ++i)
        HIRL_REQUIRE(label[i] >= 0 && label[i] < n_classes, HIRL_ERR_FORMAT,
                     "sample %lld of the batch has label %d; want 0 to %d", (long long)i, label[i],
                     n_classes - 1);
    hirl_mix_draw_t draw = {.lambda = 1};
    int64_t group = -1;
    for (int64_t i = 0; i < n; i += 2) {
        if ((first + i) / cfg->group != group) {
            group = (first + i) / cfg->group;
            draw = hirl_mix_draw(cfg, seed, epoch, group, height, width);
        }
        float *a = images + i * floats, *b = a + floats;
        if (draw.is_cutmix)
            swap_box(a, b, &draw, width, channels);
        else if (draw.lambda != 1)
            mix_pixels(a, b, floats, draw.lambda);
        float *t = target + i * n_classes;
        put_target(t, n_classes, label[i], label[i + 1], draw.lambda, cfg->smoothing);
        put_target(t + n_classes, n_classes, label[i + 1], label[i], draw.lambda, cfg->smoothing);
    }
    return HIRL_OK;
}
