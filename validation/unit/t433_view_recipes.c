// &views can say every published recipe: decks as one would write them against a table of what each paper's or toolbox's
// pipeline is; and rules between keys are refused by name.
// test: ranks=1
#include "test.h"

#include "hirl/data.h"

static hirl_deck_t *deck;

static const hirl_views_cfg_t *read_views(const char *text) {
    static const hirl_group_t *const groups[] = {&hirl_views_group};
    hirl_deck_destroy(&deck);
    NEED_OK(hirl_deck_create(groups, 1, &deck));
    NEED_OK(hirl_deck_read_text(deck, "views.nml", text, strlen(text)));
    return hirl_deck_group_view(deck, "views");
}

// What the views from `first` to `last` of a recipe are. Probabilities that are left out are 0.
typedef struct want {
    int first, last, size;
    hirl_filter_t filter;
    double scale[2], flip, jitter, strength[4], gray, blur, solarize;
} want_t;

typedef struct recipe {
    const char *name, *text;
    int min_views, n_views;
    want_t view[3];
    // of all views
    hirl_crop_t crop;
    int resize, padding, rand_augment;
    double rotate, lighting, erase;
    bool is_gray_first, has_one_draw;
} recipe_t;

static const recipe_t recipes[] = {
    {.name = "MoCo v2, SimSiam, DenseCL",
     .text = "&views /",
     .min_views = 2,
     .n_views = 2,
     .view = {{0, 1, 224, 0, {0.2, 1}, 0.5, 0.8, {0.4, 0.4, 0.4, 0.1}, 0.2, 0.5, 0}}},
    {.name = "MoCo v1, NPID",
     .text = "&views jitter_prob = 1, hue = 0.4, blur_prob = 0, gray_first = .true. /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, 0, {0.2, 1}, 0.5, 1, {0.4, 0.4, 0.4, 0.4}, 0.2, 0, 0}},
     .is_gray_first = true},
    {.name = "SimCLR",
     .text = "&views crop_scale_min = 0.08, brightness = 0.8, contrast = 0.8, saturation = 0.8,\n"
             "hue = 0.2 /",
     .min_views = 2,
     .n_views = 2,
     .view = {{0, 1, 224, 0, {0.08, 1}, 0.5, 0.8, {0.8, 0.8, 0.8, 0.2}, 0.2, 0.5, 0}}},
    {.name = "BYOL, Barlow Twins",
     .text = "&views crop_scale_min = 0.08, interpolation = 'bicubic', saturation = 0.2,\n"
             "blur_prob = 1,0.1, solarize_prob = 0,0.2 /",
     .min_views = 2,
     .n_views = 2,
     .view =
         {{0, 0, 224, HIRL_FILTER_BICUBIC, {0.08, 1}, 0.5, 0.8, {0.4, 0.4, 0.2, 0.1}, 0.2, 1, 0},
          {1,
           1,
           224,
           HIRL_FILTER_BICUBIC,
           {0.08, 1},
           0.5,
           0.8,
           {0.4, 0.4, 0.2, 0.1},
           0.2,
           0.1,
           0.2}}},
    {.name = "MoCo v3",
     .text = "&views crop_scale_min = 0.08, saturation = 0.2, blur_prob = 1,0.1,\n"
             "solarize_prob = 0,0.2 /",
     .min_views = 2,
     .n_views = 2,
     .view = {{0, 0, 224, 0, {0.08, 1}, 0.5, 0.8, {0.4, 0.4, 0.2, 0.1}, 0.2, 1, 0},
              {1, 1, 224, 0, {0.08, 1}, 0.5, 0.8, {0.4, 0.4, 0.2, 0.1}, 0.2, 0.1, 0.2}}},
    {.name = "SwAV 2 + 6",
     .text = "&views crop_size = 2*224,6*96, crop_scale_min = 2*0.14,6*0.05,\n"
             "crop_scale_max = 2*1,6*0.14, brightness = 0.8, contrast = 0.8, saturation = 0.8,\n"
             "hue = 0.2 /",
     .min_views = 2,
     .n_views = 8,
     .view = {{0, 1, 224, 0, {0.14, 1}, 0.5, 0.8, {0.8, 0.8, 0.8, 0.2}, 0.2, 0.5, 0},
              {2, 7, 96, 0, {0.05, 0.14}, 0.5, 0.8, {0.8, 0.8, 0.8, 0.2}, 0.2, 0.5, 0}}},
    {.name = "DINO 2 + 10",
     .text = "&views crop_size = 2*224,10*96, crop_scale_min = 2*0.25,10*0.05,\n"
             "crop_scale_max = 2*1,10*0.25, interpolation = 'bicubic', saturation = 0.2,\n"
             "blur_prob = 1,0.1,10*0.5, solarize_prob = 0,0.2,10*0 /",
     .min_views = 2,
     .n_views = 12,
     .view =
         {{0, 0, 224, HIRL_FILTER_BICUBIC, {0.25, 1}, 0.5, 0.8, {0.4, 0.4, 0.2, 0.1}, 0.2, 1, 0},
          {1,
           1,
           224,
           HIRL_FILTER_BICUBIC,
           {0.25, 1},
           0.5,
           0.8,
           {0.4, 0.4, 0.2, 0.1},
           0.2,
           0.1,
           0.2},
          {2,
           11,
           96,
           HIRL_FILTER_BICUBIC,
           {0.05, 0.25},
           0.5,
           0.8,
           {0.4, 0.4, 0.2, 0.1},
           0.2,
           0.5,
           0}}},
    {.name = "HCSC, query and key and four locals of their own sizes",
     .text = "&views crop_size = 224,224,192,160,128,96,\n"
             "crop_scale_min = 0.2,0.2,0.172,0.143,0.114,0.086,\n"
             "crop_scale_max = 1,1,0.86,0.715,0.571,0.429 /",
     .min_views = 2,
     .n_views = 6,
     .view = {{0, 1, 224, 0, {0.2, 1}, 0.5, 0.8, {0.4, 0.4, 0.4, 0.1}, 0.2, 0.5, 0},
              {2, 2, 192, 0, {0.172, 0.86}, 0.5, 0.8, {0.4, 0.4, 0.4, 0.1}, 0.2, 0.5, 0},
              {5, 5, 96, 0, {0.086, 0.429}, 0.5, 0.8, {0.4, 0.4, 0.4, 0.1}, 0.2, 0.5, 0}}},
    {.name = "MAE, Hiera",
     .text = "&views interpolation = 'bicubic', jitter_prob = 0, gray_prob = 0, blur_prob = 0 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, HIRL_FILTER_BICUBIC, {0.2, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}}},
    {.name = "SimMIM",
     .text = "&views crop_size = 192, crop_scale_min = 0.67, jitter_prob = 0, gray_prob = 0,\n"
             "blur_prob = 0 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 192, 0, {0.67, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}}},
    {.name = "HIER",
     .text = "&views interpolation = 'bicubic', jitter_prob = 0, gray_prob = 0, blur_prob = 0,\n"
             "crop_scale_min = 0.08, eval_interpolation = 'bicubic' /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, HIRL_FILTER_BICUBIC, {0.08, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}}},
    {.name = "CAE's pictures",
     .text = "&views crop_size = 224,112, interpolation = 'bicubic','lanczos', jitter_prob = 0,\n"
             "gray_prob = 0, blur_prob = 0, crop_scale_min = 0.08, drawn_as = -1,0 /",
     .min_views = 2,
     .n_views = 2,
     .has_one_draw = true,
     .view = {{0, 0, 224, HIRL_FILTER_BICUBIC, {0.08, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0},
              {1, 1, 112, HIRL_FILTER_LANCZOS, {0.08, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}}},
    {.name = "DeepCluster, ODC",
     .text = "&views crop_scale_min = 0.08, rotate_degrees = 2, jitter_prob = 1, saturation = 1,\n"
             "hue = 0.5, blur_prob = 0 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, 0, {0.08, 1}, 0.5, 1, {0.4, 0.4, 1, 0.5}, 0.2, 0, 0}},
     .rotate = 2},
    {.name = "Rotation prediction",
     .text = "&views crop_scale_min = 0.08, jitter_prob = 0, gray_prob = 0, blur_prob = 0 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, 0, {0.08, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}}},
    {.name = "Relative location",
     .text = "&views crop = 'resize_random', resize = 292, crop_size = 255, gray_prob = 0.66,\n"
             "jitter_prob = 0, blur_prob = 0, flip_prob = 0 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 255, 0, {0.2, 1}, 0, 0, {0.4, 0.4, 0.4, 0.1}, 0.66, 0, 0}},
     .crop = HIRL_CROP_RESIZE_RANDOM,
     .resize = 292},
    {.name = "Hiera and MAE fine-tuning, rand-m9-mstd0.5-inc1",
     .text = "&views crop_scale_min = 0.08, interpolation = 'bicubic', jitter_prob = 0,\n"
             "gray_prob = 0, blur_prob = 0, rand_augment = 2, erase_prob = 0.25 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, HIRL_FILTER_BICUBIC, {0.08, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}},
     .rand_augment = 2,
     .erase = 0.25},
    {.name = "CIFAR",
     .text = "&views crop = 'resize_random', padding = 4, crop_size = 32, jitter_prob = 0,\n"
             "gray_prob = 0, blur_prob = 0 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 32, 0, {0.2, 1}, 0.5, 0, {0.4, 0.4, 0.4, 0.1}, 0, 0, 0}},
     .crop = HIRL_CROP_RESIZE_RANDOM,
     .padding = 4},
    {.name = "linear probe with AlexNet's lighting",
     .text = "&views crop_scale_min = 0.08, gray_prob = 0, blur_prob = 0, jitter_prob = 1,\n"
             "hue = 0, lighting_std = 0.1 /",
     .min_views = 1,
     .n_views = 1,
     .view = {{0, 0, 224, 0, {0.08, 1}, 0.5, 1, {0.4, 0.4, 0.4, 0}, 0, 0, 0}},
     .lighting = 0.1},
};

static void check_view(const recipe_t *r, const want_t *w, const hirl_view_spec_t *s, int v) {
    const hirl_filter_t filter = s->is_lanczos   ? HIRL_FILTER_LANCZOS
                                 : s->is_bicubic ? HIRL_FILTER_BICUBIC
                                                 : HIRL_FILTER_BILINEAR;
    CHECK_MSG(s->size == w->size && filter == w->filter && s->scale[0] == w->scale[0] &&
                  s->scale[1] == w->scale[1] && s->ratio[0] == 0.75 && s->ratio[1] == 4.0 / 3.0,
              "%s, view %d: crop", r->name, v);
    CHECK_MSG(s->jitter_prob == w->jitter && s->brightness == w->strength[0] &&
                  s->contrast == w->strength[1] && s->saturation == w->strength[2] &&
                  s->hue == w->strength[3],
              "%s, view %d: jitter", r->name, v);
    CHECK_MSG(s->flip_prob == w->flip && s->gray_prob == w->gray && s->blur_prob == w->blur &&
                  s->blur_sigma[0] == 0.1 && s->blur_sigma[1] == 2 &&
                  s->solarize_prob == w->solarize,
              "%s, view %d: flip, grayscale, blur or solarise", r->name, v);
    CHECK_MSG(s->crop == r->crop && s->resize == r->resize && s->padding == r->padding &&
                  s->rand_augment == r->rand_augment && s->rotate_degrees == r->rotate &&
                  s->lighting_std == r->lighting && s->erase_prob == r->erase &&
                  s->is_gray_first == r->is_gray_first && s->posterize_prob == 0 &&
                  s->equalize_prob == 0 && s->autocontrast_prob == 0 &&
                  s->drawn_as == (r->has_one_draw ? v : 0),
              "%s, view %d: further operations", r->name, v);
    // timm's defaults: rand-m9-mstd0.5, each operation with probability 1/2; 0.02..1/3, 0.3..1/0.3.
    CHECK(s->rand_augment_magnitude == 9 && s->rand_augment_std == 0.5 &&
          s->rand_augment_prob == 0.5);
    CHECK(s->erase_area[0] == 0.02 && s->erase_area[1] == 1.0 / 3 && s->erase_ratio[0] == 0.3 &&
          fabs(s->erase_ratio[1] - 1 / 0.3) < 1e-15);
}

static void test_recipes(void) {
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0]; i++) {
        const recipe_t *r = &recipes[i];
        hirl_view_spec_t specs[HIRL_MAX_VIEWS];
        int n = 0;
        NEED_OK(hirl_views_resolve(read_views(r->text), r->min_views, specs, &n));
        CHECK_MSG(n == r->n_views, "%s: %d views, want %d", r->name, n, r->n_views);
        for (size_t k = 0; k < 3 && r->view[k].size > 0; k++)
            for (int v = r->view[k].first; v <= r->view[k].last; v++)
                check_view(r, &r->view[k], &specs[v], v);
    }
}

// Each list may have one item or one per view.
static void test_lists(void) {
    hirl_view_spec_t s[HIRL_MAX_VIEWS];
    int n = 0;
    NEED_OK(hirl_views_resolve(
        read_views(
            "&views jitter_prob = 0.1,0.2, brightness = 1,2, contrast = 3,4,\n"
            "saturation = 5,6, hue = 0.3,0.4, gray_prob = 0.5,0.6, flip_prob = 0.7,0.8,\n"
            "interpolation = 'bicubic','bilinear', rotate_degrees = 1,2,\n"
            "posterize_prob = 0.11,0.12, posterize_bits = 3, autocontrast_prob = 0.13,0.14,\n"
            "equalize_prob = 0.15,0.16, erase_prob = 0.17,0.18, erase_area = 0.1,0.2,\n"
            "erase_ratio = 0.5,2, rand_augment = 3, rand_augment_magnitude = 7,\n"
            "rand_augment_std = 0.25, rand_augment_prob = 0.75 /"),
        2, s, &n));
    CHECK_EQ_I(n, 2);
    for (int v = 0; v < 2; v++) {
        CHECK(s[v].jitter_prob == 0.1 * (v + 1) && s[v].brightness == 1 + v &&
              s[v].contrast == 3 + v && s[v].saturation == 5 + v);
        CHECK_CLOSE(s[v].hue, 0.3 + 0.1 * v, 0, 1e-15);
        CHECK_CLOSE(s[v].gray_prob, 0.5 + 0.1 * v, 0, 1e-15);
        CHECK_CLOSE(s[v].flip_prob, 0.7 + 0.1 * v, 0, 1e-15);
        CHECK(s[v].is_bicubic == (v == 0) && s[v].rotate_degrees == 1 + v);
        CHECK_CLOSE(s[v].posterize_prob, 0.11 + 0.01 * v, 0, 1e-15);
        CHECK_CLOSE(s[v].autocontrast_prob, 0.13 + 0.01 * v, 0, 1e-15);
        CHECK_CLOSE(s[v].equalize_prob, 0.15 + 0.01 * v, 0, 1e-15);
        CHECK_CLOSE(s[v].erase_prob, 0.17 + 0.01 * v, 0, 1e-15);
        CHECK(s[v].posterize_bits == 3 && s[v].erase_area[1] == 0.2 && s[v].erase_ratio[0] == 0.5);
        CHECK(s[v].rand_augment == 3 && s[v].rand_augment_magnitude == 7 &&
              s[v].rand_augment_std == 0.25 && s[v].rand_augment_prob == 0.75);
    }
}

static void test_errors(void) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"&views jitter_prob = 3*0.5 /", "jitter_prob has 3 items for 2"},
        {"&views brightness = 3*0.5 /", "brightness has 3"},
        {"&views contrast = 3*0.5 /", "contrast has 3"},
        {"&views saturation = 3*0.5 /", "saturation has 3"},
        {"&views hue = 3*0.5 /", "hue has 3"},
        {"&views gray_prob = 3*0.5 /", "gray_prob has 3"},
        {"&views flip_prob = 3*0.5 /", "flip_prob has 3"},
        {"&views interpolation = 3*'bicubic' /", "interpolation has 3"},
        {"&views rotate_degrees = 3*1 /", "rotate_degrees has 3"},
        {"&views posterize_prob = 3*0.1 /", "posterize_prob has 3"},
        {"&views autocontrast_prob = 3*0.1 /", "autocontrast_prob has 3"},
        {"&views equalize_prob = 3*0.1 /", "equalize_prob has 3"},
        {"&views erase_prob = 3*0.1 /", "erase_prob has 3"},
        {"&views drawn_as = 3*0 /", "drawn_as has 3"},
        {"&views drawn_as = 1,0 /", "view 0: views%drawn_as = 1; want itself"},
        {"&views erase_area = 0.1 /", "erase_area has 1 items; want 2"},
        {"&views erase_ratio = 3,1 /", "erase_ratio = 3,1; the smallest"},
        {"&views resize = 256 /", "views%resize = 256 has no effect"},
        {"&views crop = 'resize_center', resize = 256, padding = 4 /",
         "views%padding = 4 has no effect"},
        {"&views crop = 'resize_random', padding = 32, crop_size = 64,32 /",
         "view 1: views%padding = 32; must be less"},
        {"&views interpolation = 'lanczos', rand_augment = 2 /", "'lanczos' only resizes"},
    };
    hirl_view_spec_t specs[HIRL_MAX_VIEWS];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int n = -1;
        const hirl_views_cfg_t *cfg = read_views(cases[i].text);
        CHECK_FAILS(hirl_views_resolve(cfg, 2, specs, &n), HIRL_ERR_DECK, cases[i].part);
        CHECK_EQ_I(n, -1);
    }
}

TEST_MAIN {
    RUN(test_recipes);
    RUN(test_lists);
    RUN(test_errors);
    hirl_deck_destroy(&deck);
}
