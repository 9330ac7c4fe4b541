// &views: the distribution of the augmented views, and how its lists become one specification per
// view.
#include "hirl/data.h"

#include <string.h>

// The defaults are those of MoCo v2 on ImageNet (Chen et al., "Improved baselines with momentum
// contrastive learning", 2020) with the evaluation transform that is usual with it.
#define ROW_INT(field, default_text, min, max, unit, help) \
    HIRL_ROW_INT(hirl_views_cfg_t, field, default_text, min, max, unit, help)
#define ROW_REAL(field, default_text, min, max, help) \
    HIRL_ROW_REAL(hirl_views_cfg_t, field, default_text, min, max, "", help)
#define ROW_REALS(field, default_text, min, max, unit, help) \
    HIRL_ROW_REAL_LIST(hirl_views_cfg_t, field, default_text, min, max, unit, help)

static const hirl_key_t views_keys[] = {
    HIRL_ROW_INT_LIST(hirl_views_cfg_t, crop_size, "224", 1, 8192, "pixels",
                      "Side of each view's random resized crop. One item: as many views of that "
                      "size as the method "
                      "wants; more items: one view each."),
    ROW_REALS(crop_scale_min, "0.2", 1e-6, 1, "share of the area",
              "Smallest area of the crop. One item for all views, or one per view."),
    ROW_REALS(crop_scale_max, "1", 1e-6, 1, "share of the area",
              "Largest area of the crop. One item for all views, or one per view."),
    ROW_REALS(crop_ratio, "0.75,1.3333333333333333", 1e-3, 1e3, "width / height",
              "Smallest and largest aspect ratio of the crop; the logarithm is drawn uniformly."),
    HIRL_ROW_TEXT(hirl_views_cfg_t, interpolation, "'bilinear'", "bilinear|bicubic",
                  "Antialiased filter that resizes the crop."),
    ROW_REAL(jitter_prob, "0.8", 0, 1, "Probability of colour jitter."),
    ROW_REAL(brightness, "0.4", 0, 10,
             "Jitter: the image is multiplied by a factor within 1 -+ this; 0: off."),
    ROW_REAL(contrast, "0.4", 0, 10,
             "Jitter: distances from the mean grey are multiplied by 1 -+ this; 0: off."),
    ROW_REAL(saturation, "0.4", 0, 10,
             "Jitter: distances from the pixel's grey are multiplied by 1 -+ this; 0: off. No "
             "effect on grey images."),
    ROW_REAL(hue, "0.1", 0, 0.5,
             "Jitter: the hue is turned by up to this share of the circle; 0: off. No effect on "
             "grey images."),
    ROW_REAL(gray_prob, "0.2", 0, 1, "Probability of turning colours into grey."),
    ROW_REALS(blur_prob, "0.5", 0, 1, "",
              "Probability of Gaussian blur. One item for all views, or one per view."),
    ROW_REALS(blur_sigma, "0.1,2", 0, 100, "pixels",
              "Smallest and largest standard deviation of the blur."),
    ROW_REALS(
        solarize_prob, "0", 0, 1, "",
        "Probability of inverting values from 128 on. One item for all views, or one per view."),
    ROW_REAL(flip_prob, "0.5", 0, 1, "Probability of mirroring left and right."),
    HIRL_ROW_TEXT(hirl_views_cfg_t, maker, "'auto'", "auto|loader|backend",
                  "Who makes the views of training: the loader's threads, or the backend that "
                  "computes (run%device), to which decoded images then go; both give the same "
                  "bits. auto: the backend where it is a GPU. Evaluations use the loader."),
    ROW_INT(eval_resize, "256", 0, 8192, "pixels",
            "Evaluation: the shorter side is resized to this; 0: left as stored."),
    ROW_INT(eval_crop, "224", 0, 8192, "pixels",
            "Evaluation: side of the central crop; 0: none, then all images must have one size."),
    HIRL_ROW_TEXT(hirl_views_cfg_t, eval_interpolation, "'bilinear'", "bilinear|bicubic",
                  "Antialiased filter of the evaluation's resize."),
};

const hirl_group_t hirl_views_group = {
    .name = "views",
    .help =
        "Augmented views of a sample and the evaluation transform, with torchvision's semantics on "
        "PIL images. "
        "Order: random resized crop, colour jitter, grayscale, blur, solarise, flip, normalise.",
    .keys = views_keys,
    .n_keys = (int)(sizeof views_keys / sizeof views_keys[0]),
    .struct_size = sizeof(hirl_views_cfg_t),
};

// A list of one item counts for all views.
static hirl_status_t check_length(const char *name, int n, int n_views) {
    HIRL_REQUIRE(n == 1 || n == n_views, HIRL_ERR_DECK,
                 "views%%%s has %d items for %d views; want 1 (for all views) or %d", name, n,
                 n_views, n_views);
    return HIRL_OK;
}

static hirl_status_t check_pair(const char *name, int n, const double *pair) {
    HIRL_REQUIRE(n == 2, HIRL_ERR_DECK,
                 "views%%%s has %d items; want 2: the smallest and the largest value", name, n);
    HIRL_REQUIRE(pair[0] <= pair[1], HIRL_ERR_DECK,
                 "views%%%s = %g,%g; the smallest value comes first", name, pair[0], pair[1]);
    return HIRL_OK;
}

hirl_status_t hirl_views_resolve(const hirl_views_cfg_t *cfg, int min_views,
                                 hirl_view_spec_t specs[HIRL_MAX_VIEWS], int *n_views_p) {
    HIRL_REQUIRE(min_views >= 1 && min_views <= HIRL_MAX_VIEWS, HIRL_ERR_ARG,
                 "%d views asked for; want 1..%d", min_views, HIRL_MAX_VIEWS);
    HIRL_REQUIRE(cfg->n_crop_size >= 1, HIRL_ERR_DECK,
                 "views%%crop_size is empty; want the side of the views");
    const int n_views = cfg->n_crop_size == 1 ? min_views : cfg->n_crop_size;
    HIRL_REQUIRE(n_views >= min_views, HIRL_ERR_DECK,
                 "views%%crop_size has %d items, the method needs %d views; want 1 item (for all "
                 "views) or at least %d",
                 n_views, min_views, min_views);
    HIRL_REQUIRE(n_views <= HIRL_MAX_VIEWS, HIRL_ERR_DECK,
                 "views%%crop_size has %d items; at most %d views are possible", n_views,
                 HIRL_MAX_VIEWS);
    HIRL_TRY(check_length("crop_scale_min", cfg->n_crop_scale_min, n_views));
    HIRL_TRY(check_length("crop_scale_max", cfg->n_crop_scale_max, n_views));
    HIRL_TRY(check_length("blur_prob", cfg->n_blur_prob, n_views));
    HIRL_TRY(check_length("solarize_prob", cfg->n_solarize_prob, n_views));
    HIRL_TRY(check_pair("crop_ratio", cfg->n_crop_ratio, cfg->crop_ratio));
    HIRL_TRY(check_pair("blur_sigma", cfg->n_blur_sigma, cfg->blur_sigma));

    hirl_view_spec_t made[HIRL_MAX_VIEWS];
    for (int v = 0; v < n_views; v++) {
        const double scale_min = cfg->crop_scale_min[cfg->n_crop_scale_min == 1 ? 0 : v];
        const double scale_max = cfg->crop_scale_max[cfg->n_crop_scale_max == 1 ? 0 : v];
        HIRL_REQUIRE(scale_min <= scale_max, HIRL_ERR_DECK,
                     "view %d: views%%crop_scale_min = %g is above views%%crop_scale_max = %g", v,
                     scale_min, scale_max);
        made[v] = (hirl_view_spec_t){
            .size = (int)cfg->crop_size[cfg->n_crop_size == 1 ? 0 : v],
            .scale = {scale_min, scale_max},
            .ratio = {cfg->crop_ratio[0], cfg->crop_ratio[1]},
            .is_bicubic = strcmp(cfg->interpolation, "bicubic") == 0,
            .jitter_prob = cfg->jitter_prob,
            .brightness = cfg->brightness,
            .contrast = cfg->contrast,
            .saturation = cfg->saturation,
            .hue = cfg->hue,
            .gray_prob = cfg->gray_prob,
            .blur_prob = cfg->blur_prob[cfg->n_blur_prob == 1 ? 0 : v],
            .blur_sigma = {cfg->blur_sigma[0], cfg->blur_sigma[1]},
            .solarize_prob = cfg->solarize_prob[cfg->n_solarize_prob == 1 ? 0 : v],
            .flip_prob = cfg->flip_prob,
        };
    }
    memcpy(specs, made, (size_t)n_views * sizeof *specs);
    *n_views_p = n_views;
    return HIRL_OK;
}
