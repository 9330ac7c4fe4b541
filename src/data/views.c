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

// A list for which one item counts for all views.
#define ROW_EACH(field, default_text, min, max, unit, help) \
    ROW_REALS(field, default_text, min, max, unit, help " One item for all views, or one per view.")

static const hirl_key_t views_keys[] = {
    HIRL_ROW_INT_LIST(hirl_views_cfg_t, crop_size, "224", 1, 8192, "pixels",
                      "Side of each view. One item: as many views of that size as the method "
                      "wants; more items: one view each."),
    HIRL_ROW_TEXT(hirl_views_cfg_t, crop, "'random_resized'",
                  "random_resized|resize_random|resize_center|resize",
                  "How views are cut: a random part of the image, resized; the image with its "
                  "shorter side resized (resize) and a black margin (padding), of which a random "
                  "window is shown; the same without margin, the central window; the whole image, "
                  "resized. What lies beyond the image is black."),
    ROW_INT(
        resize, "0", 0, 8192, "pixels",
        "crop = 'resize_random', 'resize_center': the shorter side becomes this; 0: as stored."),
    ROW_INT(padding, "0", 0, 8191, "pixels",
            "crop = 'resize_random': black margin on each side, narrower than the view."),
    ROW_EACH(crop_scale_min, "0.2", 1e-6, 1, "share of the area",
             "crop = 'random_resized': smallest area."),
    ROW_EACH(crop_scale_max, "1", 1e-6, 1, "share of the area",
             "crop = 'random_resized': largest area."),
    ROW_REALS(crop_ratio, "0.75,1.3333333333333333", 1e-3, 1e3, "width / height",
              "crop = 'random_resized': smallest and largest aspect ratio; the logarithm is drawn "
              "uniformly."),
    HIRL_ROW_INT_LIST(hirl_views_cfg_t, drawn_as, "-1", -1, HIRL_MAX_VIEWS - 1, "views",
                      "View, counted from 0, whose random numbers this view takes: -1,0 shows the "
                      "same rectangle twice, in two sizes or filters; -1: its own."),
    {"interpolation", HIRL_KEY_TEXT_LIST, offsetof(hirl_views_cfg_t, interpolation),
     offsetof(hirl_views_cfg_t, n_interpolation), "'bilinear'", 0, 0, "bilinear|bicubic|lanczos",
     "",
     "Antialiased filter that resizes; RandAugment turns and shears with it. One item for all "
     "views, or one per view."},
    ROW_EACH(flip_prob, "0.5", 0, 1, "", "Probability of mirroring left and right."),
    ROW_INT(rand_augment, "0", 0, HIRL_MAX_RAND_AUGMENT, "operations",
            "RandAugment: operations drawn for a view, from autocontrast, equalise, invert, "
            "rotate, posterise, solarise, solarise-add, colour, contrast, brightness, sharpness, "
            "and shears and translations in x and y, all growing with the magnitude; 0: none. "
            "timm's 'rand-m9-mstd0.5-inc1' is 2."),
    ROW_REAL(rand_augment_magnitude, "9", 0, 10, "RandAugment: mean of the magnitude."),
    ROW_REAL(rand_augment_std, "0.5", 0, 100,
             "RandAugment: standard deviation of the magnitude, which is kept within 0..10."),
    ROW_REAL(rand_augment_prob, "0.5", 0, 1,
             "RandAugment: probability that an operation drawn is done."),
    ROW_EACH(rotate_degrees, "0", 0, 180, "degrees",
             "The view is turned by an angle within -+ this (nearest pixel, black corners); 0: "
             "off."),
    HIRL_ROW_BOOL(hirl_views_cfg_t, gray_first, ".false.",
                  "Grayscale comes before colour jitter (MoCo v1, NPID), whose saturation and hue "
                  "then do nothing to grey views."),
    ROW_EACH(jitter_prob, "0.8", 0, 1, "", "Probability of colour jitter."),
    ROW_EACH(brightness, "0.4", 0, 10, "",
             "Jitter: the image is multiplied by a factor within 1 -+ this; 0: off."),
    ROW_EACH(contrast, "0.4", 0, 10, "",
             "Jitter: distances from the mean grey are multiplied by 1 -+ this; 0: off."),
    ROW_EACH(saturation, "0.4", 0, 10, "",
             "Jitter: distances from the pixel's grey are multiplied by 1 -+ this; 0: off. No "
             "effect on grey images."),
    ROW_EACH(hue, "0.1", 0, 0.5, "",
             "Jitter: the hue is turned by up to this share of the circle; 0: off. No effect on "
             "grey images."),
    ROW_EACH(gray_prob, "0.2", 0, 1, "", "Probability of turning colours into grey."),
    ROW_EACH(posterize_prob, "0", 0, 1, "", "Probability of keeping only posterize_bits."),
    ROW_INT(posterize_bits, "4", 1, 8, "bits", "Leading bits of a value that posterise keeps."),
    ROW_EACH(autocontrast_prob, "0", 0, 1, "",
             "Probability of stretching each channel to the whole range."),
    ROW_EACH(equalize_prob, "0", 0, 1, "", "Probability of equalising each channel's histogram."),
    ROW_EACH(blur_prob, "0.5", 0, 1, "", "Probability of Gaussian blur."),
    ROW_REALS(blur_sigma, "0.1,2", 0, 100, "pixels",
              "Smallest and largest standard deviation of the blur."),
    ROW_EACH(solarize_prob, "0", 0, 1, "", "Probability of inverting values from 128 on."),
    ROW_REAL(lighting_std, "0", 0, 100,
             "AlexNet's lighting: multiples of the principal components of ImageNet's colours with "
             "this standard deviation are added; usually 0.1. No effect on grey images."),
    ROW_EACH(erase_prob, "0", 0, 1, "",
             "Random erasing: probability of filling a rectangle with normal noise, after "
             "normalisation."),
    ROW_REALS(erase_area, "0.02,0.3333333333333333", 1e-6, 1, "share of the area",
              "Random erasing: smallest and largest rectangle."),
    ROW_REALS(erase_ratio, "0.3,3.3333333333333335", 1e-3, 1e3, "height / width",
              "Random erasing: smallest and largest aspect ratio; the logarithm is drawn "
              "uniformly."),
    HIRL_ROW_TEXT(hirl_views_cfg_t, maker, "'auto'", "auto|loader|backend",
                  "Who makes the views of training: the loader's threads, or the backend that "
                  "computes (run%device), to which decoded images then go; both give the same "
                  "bits. auto: the backend where it is a GPU, for images; clips of videos are the "
                  "loader's. Evaluations use the loader."),
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
        "Order: crop, flip, RandAugment, rotation, colour jitter, grayscale, posterise, "
        "autocontrast, equalise, blur, solarise, normalise with lighting, random erasing. Of a "
        "recipe that flips elsewhere the views are the same.",
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

// The lists of which one item counts for all views.
typedef struct each {
    const char *name;
    int n;
} each_t;
#define EACH(field) \
    { #field, cfg->n_##field }
#define ITEM(field) cfg->field[cfg->n_##field == 1 ? 0 : v]

static hirl_status_t check_lists(const hirl_views_cfg_t *cfg, int n_views) {
    const each_t each[] = {
        EACH(crop_scale_min), EACH(crop_scale_max),    EACH(drawn_as),      EACH(interpolation),
        EACH(flip_prob),      EACH(rotate_degrees),    EACH(jitter_prob),   EACH(brightness),
        EACH(contrast),       EACH(saturation),        EACH(hue),           EACH(gray_prob),
        EACH(posterize_prob), EACH(autocontrast_prob), EACH(equalize_prob), EACH(blur_prob),
        EACH(solarize_prob),  EACH(erase_prob)};
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++)
        HIRL_TRY(check_length(each[i].name, each[i].n, n_views));
    HIRL_TRY(check_pair("crop_ratio", cfg->n_crop_ratio, cfg->crop_ratio));
    HIRL_TRY(check_pair("blur_sigma", cfg->n_blur_sigma, cfg->blur_sigma));
    HIRL_TRY(check_pair("erase_area", cfg->n_erase_area, cfg->erase_area));
    return check_pair("erase_ratio", cfg->n_erase_ratio, cfg->erase_ratio);
}

static hirl_crop_t crop_kind(const char *name) {
    return strcmp(name, "resize_random") == 0   ? HIRL_CROP_RESIZE_RANDOM
           : strcmp(name, "resize_center") == 0 ? HIRL_CROP_RESIZE_CENTER
           : strcmp(name, "resize") == 0        ? HIRL_CROP_RESIZE
                                                : HIRL_CROP_RANDOM_RESIZED;
}

// Rules between the keys of one view.
static hirl_status_t check_view(const hirl_view_spec_t *spec, int v) {
    HIRL_REQUIRE(spec->scale[0] <= spec->scale[1], HIRL_ERR_DECK,
                 "view %d: views%%crop_scale_min = %g is above views%%crop_scale_max = %g", v,
                 spec->scale[0], spec->scale[1]);
    HIRL_REQUIRE(spec->padding < spec->size, HIRL_ERR_DECK,
                 "view %d: views%%padding = %d; must be less than views%%crop_size = %d, or a view "
                 "could show nothing of the image",
                 v, spec->padding, spec->size);
    HIRL_REQUIRE(!spec->is_lanczos || spec->rand_augment == 0, HIRL_ERR_DECK,
                 "view %d: views%%interpolation = 'lanczos' only resizes; views%%rand_augment also "
                 "turns and shears: use 'bicubic'",
                 v);
    return HIRL_OK;
}

// Keys that this way of cutting does not look at must not be set to something.
static hirl_status_t check_crop(const hirl_views_cfg_t *cfg) {
    const hirl_crop_t crop = crop_kind(cfg->crop);
    const bool is_window = crop == HIRL_CROP_RESIZE_RANDOM || crop == HIRL_CROP_RESIZE_CENTER;
    HIRL_REQUIRE(cfg->resize == 0 || is_window, HIRL_ERR_DECK,
                 "views%%resize = %lld has no effect with views%%crop = '%s'; want 'resize_random' "
                 "or 'resize_center'",
                 (long long)cfg->resize, cfg->crop);
    HIRL_REQUIRE(cfg->padding == 0 || crop == HIRL_CROP_RESIZE_RANDOM, HIRL_ERR_DECK,
                 "views%%padding = %lld has no effect with views%%crop = '%s'; want "
                 "'resize_random'",
                 (long long)cfg->padding, cfg->crop);
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
    HIRL_TRY(check_lists(cfg, n_views));
    HIRL_TRY(check_crop(cfg));

    hirl_view_spec_t made[HIRL_MAX_VIEWS];
    for (int v = 0; v < n_views; v++) {
        made[v] = (hirl_view_spec_t){
            .size = (int)ITEM(crop_size),
            .crop = crop_kind(cfg->crop),
            .resize = (int)cfg->resize,
            .padding = (int)cfg->padding,
            .drawn_as = (int)ITEM(drawn_as) + 1,
            .scale = {ITEM(crop_scale_min), ITEM(crop_scale_max)},
            .ratio = {cfg->crop_ratio[0], cfg->crop_ratio[1]},
            .is_bicubic = strcmp(ITEM(interpolation), "bicubic") == 0,
            .is_lanczos = strcmp(ITEM(interpolation), "lanczos") == 0,
            .flip_prob = ITEM(flip_prob),
            .rand_augment = (int)cfg->rand_augment,
            .rand_augment_magnitude = cfg->rand_augment_magnitude,
            .rand_augment_std = cfg->rand_augment_std,
            .rand_augment_prob = cfg->rand_augment_prob,
            .rotate_degrees = ITEM(rotate_degrees),
            .is_gray_first = cfg->gray_first,
            .jitter_prob = ITEM(jitter_prob),
            .brightness = ITEM(brightness),
            .contrast = ITEM(contrast),
            .saturation = ITEM(saturation),
            .hue = ITEM(hue),
            .gray_prob = ITEM(gray_prob),
            .posterize_prob = ITEM(posterize_prob),
            .posterize_bits = (int)cfg->posterize_bits,
            .autocontrast_prob = ITEM(autocontrast_prob),
            .equalize_prob = ITEM(equalize_prob),
            .blur_prob = ITEM(blur_prob),
            .blur_sigma = {cfg->blur_sigma[0], cfg->blur_sigma[1]},
            .solarize_prob = ITEM(solarize_prob),
            .lighting_std = cfg->lighting_std,
            .erase_prob = ITEM(erase_prob),
            .erase_area = {cfg->erase_area[0], cfg->erase_area[1]},
            .erase_ratio = {cfg->erase_ratio[0], cfg->erase_ratio[1]},
        };
        HIRL_REQUIRE(made[v].drawn_as <= v + 1, HIRL_ERR_DECK,
                     "view %d: views%%drawn_as = %d; want itself, a view before it, or -1", v,
                     made[v].drawn_as - 1);
        HIRL_TRY(check_view(&made[v], v));
    }
    memcpy(specs, made, (size_t)n_views * sizeof *specs);
    *n_views_p = n_views;
    return HIRL_OK;
}
