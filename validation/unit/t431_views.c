// &views: the defaults are MoCo v2's, lists become one specification per view, and what does not
// fit is refused by name.
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

static void test_defaults(void) {
    hirl_view_spec_t specs[HIRL_MAX_VIEWS];
    int n = 0;
    const hirl_views_cfg_t *cfg = read_views("&views /\n");
    NEED_OK(hirl_views_resolve(cfg, 2, specs, &n));
    CHECK_EQ_I(n, 2);
    for (int v = 0; v < n; v++) {
        const hirl_view_spec_t *s = &specs[v];
        CHECK(s->size == 224 && !s->is_bicubic && s->scale[0] == 0.2 && s->scale[1] == 1);
        CHECK(s->ratio[0] == 0.75 && s->ratio[1] == 4.0 / 3.0);
        CHECK(s->jitter_prob == 0.8 && s->brightness == 0.4 && s->contrast == 0.4);
        CHECK(s->saturation == 0.4 && s->hue == 0.1 && s->gray_prob == 0.2);
        CHECK(s->blur_prob == 0.5 && s->blur_sigma[0] == 0.1 && s->blur_sigma[1] == 2);
        CHECK(s->solarize_prob == 0 && s->flip_prob == 0.5);
    }
    CHECK(cfg->eval_resize == 256 && cfg->eval_crop == 224);
    CHECK_EQ_S(cfg->eval_interpolation, "bilinear");
}

static void test_lists(void) {
    hirl_view_spec_t specs[HIRL_MAX_VIEWS];
    int n = 0;
    NEED_OK(hirl_views_resolve(
        read_views(
            "&views crop_size = 2*224, 3*96, crop_scale_min = 0.25,0.25,3*0.05,\n"
            "crop_scale_max = 2*1,3*0.25, interpolation = 'bicubic', blur_prob = 1,0.1,3*0.5,\n"
            "solarize_prob = 0,0.2,3*0, jitter_prob = 0.3 /\n"),
        2, specs, &n));
    CHECK_EQ_I(n, 5);
    CHECK(specs[1].size == 224 && specs[2].size == 96 && specs[4].size == 96);
    CHECK(specs[1].scale[0] == 0.25 && specs[1].scale[1] == 1 && specs[4].scale[1] == 0.25);
    CHECK(specs[0].blur_prob == 1 && specs[1].blur_prob == 0.1 && specs[4].blur_prob == 0.5);
    CHECK(specs[0].solarize_prob == 0 && specs[1].solarize_prob == 0.2);
    CHECK(specs[3].is_bicubic && specs[3].jitter_prob == 0.3);
    NEED_OK(hirl_views_resolve(read_views("&views crop_size = 28 /\n"), 6, specs, &n));
    CHECK(n == 6 && specs[5].size == 28);
}

static void test_errors(void) {
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"&views crop_size = 224,96 /\n", "the method needs 3 views"},
        {"&views crop_size = 17*96 /\n", "at most 16"},
        {"&views crop_size = 4*96, crop_scale_min = 0.1,0.2 /\n",
         "crop_scale_min has 2 items for 4"},
        {"&views crop_size = 4*96, crop_scale_max = 3*0.2 /\n", "crop_scale_max has 3 items for 4"},
        {"&views crop_size = 4*96, blur_prob = 5*0.2 /\n", "blur_prob has 5 items for 4"},
        {"&views solarize_prob = 2*0.2 /\n", "solarize_prob has 2 items for 3"},
        {"&views crop_ratio = 1 /\n", "crop_ratio has 1 items; want 2"},
        {"&views crop_ratio = 2,1 /\n", "smallest value comes first"},
        {"&views blur_sigma = 2,0.1 /\n", "blur_sigma = 2,0.1"},
        {"&views crop_scale_max = 0.1 /\n", "crop_scale_min = 0.2 is above"},
    };
    hirl_view_spec_t specs[HIRL_MAX_VIEWS];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int n = -1;
        const hirl_views_cfg_t *cfg = read_views(cases[i].text);
        CHECK_FAILS(hirl_views_resolve(cfg, 3, specs, &n), HIRL_ERR_DECK, cases[i].part);
        CHECK_EQ_I(n, -1);
    }
    int n = 0;
    CHECK_FAILS(hirl_views_resolve(read_views("&views /\n"), 17, specs, &n), HIRL_ERR_ARG, "17");
}

TEST_MAIN {
    RUN(test_defaults);
    RUN(test_lists);
    RUN(test_errors);
    hirl_deck_destroy(&deck);
}
