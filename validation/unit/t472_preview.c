// views.png as Pillow reads it, against tiles made from the functions that a loader is specified by: images as stored, views, masks, mixed
// neighbours; by position and by index; grey and colour. What does not fit is refused.
// test: ranks=1 timeout=60 needs=python3-pil,python3-numpy
#include "pack_util.h"

#include "hirl/data_preview.h"

enum { BOX = 40, GAP = 8, LINE = 11, N = 5, EPOCH = 3, GRID = 5, SEED = 11 };

static hirl_world_t *world;

static hirl_view_spec_t view_spec(int size) {
    return (hirl_view_spec_t){.size = size,
                              .scale = {0.3, 1},
                              .ratio = {0.75, 4.0 / 3.0},
                              .jitter_prob = 0.8,
                              .brightness = 0.4,
                              .contrast = 0.4,
                              .saturation = 0.4,
                              .hue = 0.1,
                              .gray_prob = 0.2,
                              .flip_prob = 0.5};
}

static hirl_preview_cfg_t preview_cfg(const char *pick, int64_t first) {
    hirl_preview_cfg_t cfg = {.n_samples = N, .first = first, .epoch = EPOCH, .thumb = BOX};
    snprintf(cfg.pick, sizeof cfg.pick, "%s", pick);
    return cfg;
}

static hirl_mask_spec_t mask_spec(void) {
    hirl_mask_cfg_t cfg = {.kind = "random",
                           .grid = {GRID, GRID},
                           .n_grid = 2,
                           .unit = {1},
                           .n_unit = 1,
                           .ratio = {0.5},
                           .n_ratio = 1,
                           .n_ratio_var = 1,
                           .min_aspect = 1};
    hirl_mask_spec_t spec;
    NEED_OK(hirl_mask_resolve(&cfg, &spec));
    return spec;
}

// A tile that the picture must hold: place and size, how far pixels may be apart, then RGB.
static void write_tile(FILE *tiles, int row, int column, int height, int width, int channels,
                       const uint8_t *pixels, int apart) {
    const int times = BOX / (height > width ? height : width), h = height * times,
              w = width * times;
    const int32_t place[5] = {GAP + 3 * LINE + GAP + row * (LINE + BOX + GAP) + LINE +
                                  (BOX - h) / 2,
                              GAP + column * (BOX + GAP) + (BOX - w) / 2, h, w, apart};
    NEED(times >= 1);
    fwrite(place, sizeof place, 1, tiles);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int c = 0; c < 3; c++)
                fputc(pixels[(y / times * width + x / times) * channels + (channels == 1 ? 0 : c)],
                      tiles);
}

static float first_view[N][BOX * BOX * 3];

static void write_row(FILE *tiles, const hirl_shard_set_t *set, hirl_augment_t *augment,
                      const hirl_view_spec_t *views, const hirl_mask_spec_t *mask_of, int row,
                      int64_t index) {
    const float zero[3] = {0, 0, 0}, one[3] = {1, 1, 1};
    const int channels = hirl_shard_set_channels(set);
    hirl_buffer_t bytes = {0}, pixels = {0};
    hirl_sample_t sample;
    hirl_image_t image;
    hirl_mask_maker_t *maker = NULL;
    NEED_OK(hirl_shard_set_read(set, index, &bytes, &sample));
    NEED_OK(hirl_image_decode(&sample, channels, &pixels, &image));
    if (image.height <= BOX && image.width <= BOX)
        write_tile(tiles, row, 0, image.height, image.width, channels, image.pixels, 0);
    NEED_OK(hirl_mask_maker_create(mask_of, &maker));
    for (int v = 0; v < 2; v++) {
        static float view[BOX * BOX * 3];
        static uint8_t shown[BOX * BOX * 3], mask[GRID * GRID];
        const int size = views[v].size, n = size * size * channels;
        hirl_rng_t rng = hirl_rng_make(SEED, HIRL_RNG_AUGMENT, EPOCH, (uint64_t)index, (uint32_t)v);
        NEED_OK(hirl_augment_view(augment, &image, &views[v], &rng, zero, one, view));
        if (v == 0) memcpy(first_view[row], view, (size_t)n * sizeof *view);
        for (int i = 0; i < n; i++) shown[i] = (uint8_t)rint((double)view[i] * 255);
        write_tile(tiles, row, 1 + 2 * v, size, size, channels, shown, 0);
        hirl_mask_make(maker, SEED, EPOCH, index, v, mask);
        for (int i = 0; i < n; i++) {
            const int y = i / channels / size, x = i / channels % size;
            if (mask[y * GRID / size * GRID + x * GRID / size])
                shown[i] = (uint8_t)((shown[i] + 7 * 128 + 4) / 8);
        }
        write_tile(tiles, row, 2 + 2 * v, size, size, channels, shown, 0);
    }
    hirl_mask_maker_destroy(&maker);
    hirl_buffer_reset(&bytes);
    hirl_buffer_reset(&pixels);
}

// The first views of two neighbours, mixed. Training mixes normalised floats: a rounding may fall the other way.
static void write_pair(FILE *tiles, const hirl_mix_cfg_t *mix, int row, int64_t position,
                       int channels) {
    const hirl_mix_draw_t draw = hirl_mix_draw(mix, SEED, EPOCH, position / 2, BOX, BOX);
    for (int k = 0; k < 2; k++) {
        const float *own = first_view[row + k], *other = first_view[row + 1 - k];
        static uint8_t shown[BOX * BOX * 3];
        for (int i = 0; i < BOX * BOX * channels; i++) {
            const int y = i / channels / BOX - draw.top, x = i / channels % BOX - draw.left;
            const bool is_boxed = y >= 0 && y < draw.height && x >= 0 && x < draw.width;
            const double share = draw.is_cutmix ? !is_boxed : draw.lambda;
            shown[i] =
                (uint8_t)rint(255 * (share * (double)own[i] + (1 - share) * (double)other[i]));
        }
        write_tile(tiles, row + k, 5, BOX, BOX, channels, shown, draw.is_cutmix ? 0 : 1);
    }
}

static void check_sheet(const hirl_shard_set_t *set, const hirl_data_cfg_t *data, const char *pick,
                        int64_t first) {
    const hirl_preview_cfg_t preview = preview_cfg(pick, first);
    const hirl_view_spec_t views[2] = {view_spec(BOX), view_spec(BOX / 2)};
    const hirl_mask_spec_t mask = mask_spec();
    const hirl_mix_cfg_t mix = {
        .mixup = 0.8, .cutmix = 1, .prob = 1, .switch_prob = 0.5, .group = 2};
    const hirl_contact_sheet_t sheet = {.set = set,
                                        .title = "a title with \xc3\xa4 and more than fits into it",
                                        .data = data,
                                        .preview = &preview,
                                        .views = views,
                                        .n_views = 2,
                                        .mask = &mask,
                                        .mix = &mix,
                                        .seed = SEED};
    char png[2048], expected[2048];
    snprintf(png, sizeof png, "%s", test_path("sheet.png"));
    snprintf(expected, sizeof expected, "%s", test_path("tiles"));
    NEED_OK(hirl_contact_sheet_write(&sheet, png));
    FILE *tiles = fopen(expected, "wb");
    hirl_augment_t *augment = NULL;
    NEED(tiles != NULL);
    NEED_OK(hirl_augment_create(&augment));
    const hirl_permutation_t order =
        hirl_permutation_make(SEED, HIRL_RNG_ORDER, EPOCH, hirl_shard_set_n_samples(set));
    for (int row = 0; row < N; row++)
        write_row(tiles, set, augment, views, &mask, row,
                  strcmp(pick, "index") == 0 ? first + row
                                             : hirl_permutation_at(&order, first + row));
    for (int row = first % 2 ? 1 : 0; row + 1 < N && strcmp(pick, "order") == 0; row += 2)
        write_pair(tiles, &mix, row, first + row, hirl_shard_set_channels(set));
    hirl_augment_destroy(&augment);
    NEED(fclose(tiles) == 0);
    const char *python = getenv("PYTHON");
    shell("%s validation/reference/masks/check_tiles.py %s %s",
          python && *python ? python : "/usr/bin/python3", png, expected);
}

static hirl_shard_set_t *open_images(const hirl_data_cfg_t *data) {
    hirl_shard_set_t *set = NULL;
    hirl_pack_cfg_t cfg = pack_cfg(IMAGES, "train", test_path("images"));
    cfg.overwrite = true;
    NEED_OK(hirl_data_pack(world, &cfg));
    char pattern[2048];
    snprintf(pattern, sizeof pattern, "%s/train-*.h5", test_path("images"));
    NEED_OK(hirl_shard_set_open(world, pattern, data, &set));
    return set;
}

static void test_sheets(void) {
    for (int channels = 1; channels <= 3; channels += 2) {
        hirl_data_cfg_t data = data_cfg("mmap");
        data.channels = channels;
        data.n_ahead = 2;
        data.n_threads = 2;
        data.n_mean = data.n_std = 1;
        data.mean[0] = 0.4;
        data.std[0] = 0.25;
        hirl_shard_set_t *set = open_images(&data);
        check_sheet(set, &data, "order", channels == 1 ? 13 : 0);
        if (channels == 3) check_sheet(set, &data, "index", 7);
        hirl_shard_set_close(&set);
    }
}

static void test_refused(void) {
    hirl_data_cfg_t data = data_cfg("mmap");
    data.channels = 3;
    data.n_ahead = 1;
    data.n_mean = data.n_std = 1;
    data.std[0] = 1;
    hirl_shard_set_t *set = open_images(&data);
    hirl_preview_cfg_t preview = preview_cfg("order", 26);
    const hirl_view_spec_t view = view_spec(16);
    const hirl_contact_sheet_t sheet = {
        .set = set, .title = "", .data = &data, .preview = &preview, .views = &view, .n_views = 1};
    const char *path = test_path("refused.png");
    CHECK_EQ_I(hirl_contact_sheet_write(&sheet, path), HIRL_ERR_DECK);
    CHECK_HAS(hirl_error_text_view(), "preview%first = 26, but the set has 26 samples");
    preview.first = 0, preview.thumb = 20000;
    CHECK_EQ_I(hirl_contact_sheet_write(&sheet, path), HIRL_ERR_DECK);
    CHECK_HAS(hirl_error_text_view(), "more than 32767");
    CHECK(!is_there(path));
    // Fewer samples than asked for, and no mask.
    preview = preview_cfg("order", 24);
    CHECK_OK(hirl_contact_sheet_write(&sheet, path));
    CHECK(is_there(path));
    hirl_shard_set_close(&set);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_sheets);
    RUN(test_refused);
    hirl_world_destroy(&world);
}
