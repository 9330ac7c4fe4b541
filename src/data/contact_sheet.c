// views.png: what training would see. The views come from a loader of its own, one sample a batch, so they are training's to the bit: which samples an
// epoch shows where depends neither on the batch nor on ranks.
#include "hirl/data_clip.h"
#include "hirl/data_preview.h"

#include "augment_impl.h"
#include "data_impl.h"
#include "picture_impl.h"

#include <math.h>
#include <string.h>

enum { MARGIN = 8, SIDE_MOST = 32767, PIXELS_MOST = 1 << 28, SAMPLES_MOST = 4096 };
static const uint32_t PAPER = 0xf6f7f9, INK = 0x1c2430, SOFT = 0x5b6675, HIDDEN = 0x80;

static const hirl_key_t preview_keys[] = {
    HIRL_ROW_INT(hirl_preview_cfg_t, n_samples, "16", 1, 4096, "samples", "Rows of views.png."),
    HIRL_ROW_TEXT(hirl_preview_cfg_t, pick, "'order'", "order|index",
                  "Which samples: 'order' shows what training sees at the positions from "
                  "preview%first on of the epoch's order, 'index' the samples from that number on "
                  "as they are stored."),
    HIRL_ROW_INT(hirl_preview_cfg_t, first, "0", 0, 1e15, "samples", "The first of them."),
    HIRL_ROW_INT(hirl_preview_cfg_t, epoch, "0", 0, 1e15, "epochs",
                 "Epoch whose views, masks and order are shown."),
    HIRL_ROW_INT(hirl_preview_cfg_t, thumb, "160", 16, 2048, "pixels",
                 "Side of the tiles: larger images are shrunk, smaller ones enlarged by whole "
                 "numbers."),
    HIRL_ROW_INT(hirl_preview_cfg_t, class_thumbs, "8", 0, 32, "samples",
                 "Images of each class in dataset.html, fewer where there are many classes."),
};
const hirl_group_t hirl_preview_group = {"preview", "What task 'preview' shows.", preview_keys,
                                         (int)(sizeof preview_keys / sizeof *preview_keys),
                                         sizeof(hirl_preview_cfg_t)};

typedef struct sheet {
    const hirl_contact_sheet_t *spec;
    hirl_canvas_t canvas;
    int box, scale, line; // pixels of a tile; of a letter's dot; of a line of text
    int n_columns, n_samples;
    bool has_masks, is_mixed;
    hirl_world_t *world; // this rank alone
    hirl_loader_t *loader;
    hirl_augment_t *augment;
    hirl_mask_maker_t *maker;
    uint8_t *mask;
    hirl_buffer_t bytes, decoded, pixels, fitted;
    hirl_buffer_t pair; // mixed: first views of two neighbours
} sheet_t;

static int column_left(const sheet_t *sheet, int column) {
    return MARGIN + column * (sheet->box + MARGIN);
}

static int row_top(const sheet_t *sheet, int row) {
    return MARGIN + 3 * sheet->line + MARGIN + row * (sheet->line + sheet->box + MARGIN);
}

// ------------------------------------------------------------------------------------ samples

// Positions of the wanted samples in the epoch's order.
static void find_positions(const sheet_t *sheet, int64_t *position) {
    const hirl_preview_cfg_t *preview = sheet->spec->preview;
    const int64_t n = hirl_shard_set_n_samples(sheet->spec->set);
    if (strcmp(preview->pick, "index") != 0) {
        for (int i = 0; i < sheet->n_samples; i++) position[i] = preview->first + i;
        return;
    }
    const hirl_order_t order =
        hirl_order_make(sheet->spec->seed, preview->epoch, n, sheet->spec->data->window);
    for (int64_t p = 0; p < n; p++) {
        const int64_t i = hirl_order_at(&order, p) - preview->first;
        if (i >= 0 && i < sheet->n_samples) position[i] = p;
    }
}

static hirl_status_t put_tile(sheet_t *sheet, int row, int column, const hirl_image_t *image,
                              const uint8_t *mask) {
    hirl_image_t fitted;
    HIRL_TRY(hirl_image_fit(sheet->augment, image, sheet->box, &sheet->fitted, &fitted));
    if (mask) {
        const int rows = sheet->spec->mask->grid[1], columns = sheet->spec->mask->grid[2];
        for (int y = 0; y < fitted.height; y++)
            for (int x = 0; x < fitted.width; x++) {
                const int64_t patch = (int64_t)y * rows / fitted.height * columns +
                                      (int64_t)x * columns / fitted.width;
                uint8_t *at = fitted.pixels + ((size_t)y * (size_t)fitted.width + (size_t)x) *
                                                  (size_t)fitted.channels;
                // A trace of what is hidden stays to be seen.
                for (int c = 0; mask[patch] && c < fitted.channels; c++)
                    at[c] = (uint8_t)((at[c] + 7 * HIDDEN + 4) / 8);
            }
    }
    hirl_canvas_image(&sheet->canvas, row_top(sheet, row) + sheet->line, column_left(sheet, column),
                      sheet->box, &fitted);
    return HIRL_OK;
}

// The sample as it is in the shard, and the line above its row.
static hirl_status_t put_stored(sheet_t *sheet, int row, int64_t index) {
    static const char *const encodings[] = {"raw", "JPEG", "PNG", "WebP", "video"};
    const hirl_shard_set_t *set = sheet->spec->set;
    const int top = row_top(sheet, row), left = column_left(sheet, 0);
    const int32_t label = hirl_shard_set_label(set, index);
    char caption[2 * HIRL_DECK_TEXT_MAX];
    const char *encoding = "";
    hirl_sample_t sample;
    hirl_image_t image;
    hirl_status_t status = hirl_shard_set_read(set, index, &sheet->bytes, &sample);
    if (status == HIRL_OK) {
        if ((size_t)sample.encoding < sizeof encodings / sizeof *encodings)
            encoding = encodings[sample.encoding];
        status = hirl_sample_still(&sample, &sample);
    }
    if (status == HIRL_OK) {
        status = hirl_image_decode(&sample, hirl_shard_set_channels(set), &sheet->decoded, &image);
    }
    if (status == HIRL_OK)
        status = put_tile(sheet, row, 0, &image, NULL);
    else if (status == HIRL_ERR_FORMAT)
        hirl_canvas_text(&sheet->canvas, top + sheet->line + sheet->box / 2, left, sheet->box,
                         sheet->scale, INK, "cannot be decoded");
    HIRL_TRY(hirl_shard_set_check_files(set));
    if (status != HIRL_ERR_FORMAT) HIRL_TRY(status);
    int height, width;
    hirl_shard_set_image_size(set, index, &height, &width);
    const char *name = hirl_shard_set_class_name_view(set, label);
    (void)hirl_text_format(caption, sizeof caption, "%lld: label %d%s%.200s, %dx%d %s",
                           (long long)index, label, name[0] ? " " : "", name, height, width,
                           encoding);
    const int end =
        sheet->is_mixed ? column_left(sheet, sheet->n_columns - 1) : sheet->canvas.width;
    hirl_canvas_text(&sheet->canvas, top, left, end - left - MARGIN, sheet->scale, INK, caption);
    return HIRL_OK;
}

// The loader's floats of one view as bytes again.
static hirl_status_t denormalize(sheet_t *sheet, const hirl_batch_t *batch, int v,
                                 const float *values, hirl_image_t *image) {
    const int channels = batch->channels;
    const size_t n = (size_t)batch->size[v] * (size_t)batch->width[v] * (size_t)channels;
    HIRL_TRY(hirl_buffer_reserve(&sheet->pixels, n));
    for (size_t i = 0; i < n; i++) {
        const size_t c = i % (size_t)channels;
        const double value =
            ((double)values[i] * (double)batch->std[c] + (double)batch->mean[c]) * 255;
        sheet->pixels.data[i] = (uint8_t)nearbyint(fmin(fmax(value, 0), 255));
    }
    *image = (hirl_image_t){sheet->pixels.data, batch->size[v], batch->width[v], channels};
    return HIRL_OK;
}

// Keeps the first view of the first of two neighbours; at the second mixes both. A sample whose neighbour is not on the sheet is left out.
static hirl_status_t put_mixed(sheet_t *sheet, const hirl_batch_t *batch, int row,
                               int64_t position) {
    const hirl_mix_cfg_t *mix = sheet->spec->mix;
    const int64_t epoch = sheet->spec->preview->epoch;
    const int height = batch->size[0], width = batch->width[0], column = sheet->n_columns - 1;
    const size_t n = (size_t)height * (size_t)width * (size_t)batch->channels;
    const int32_t label[2] = {0, 1}; // of these the images do not depend
    const int half = (int)(position % 2);
    float target[4];
    char text[64];
    HIRL_TRY(hirl_buffer_reserve(&sheet->pair, 2 * n * sizeof(float)));
    float *pair = (float *)(void *)sheet->pair.data;
    memcpy(pair + (half ? n : 0), batch->view[0], n * sizeof(float));
    if (half == 0 || row == 0) return HIRL_OK;
    HIRL_TRY(hirl_mix_batch(mix, sheet->spec->seed, epoch, position - 1, 2, height, width,
                            batch->channels, 2, label, pair, target));
    const hirl_mix_draw_t draw =
        hirl_mix_draw(mix, sheet->spec->seed, epoch, position / mix->group, height, width);
    (void)hirl_text_format(text, sizeof text, draw.lambda == 1 ? "as it is" : "%s %.2f",
                           draw.is_cutmix ? "cutmix" : "mixup", draw.lambda);
    for (int i = 0; i < 2; i++) {
        hirl_image_t image;
        HIRL_TRY(denormalize(sheet, batch, 0, pair + (i ? n : 0), &image));
        HIRL_TRY(put_tile(sheet, row - 1 + i, column, &image, NULL));
        hirl_canvas_text(&sheet->canvas, row_top(sheet, row - 1 + i), column_left(sheet, column),
                         sheet->box, sheet->scale, SOFT, text);
    }
    return HIRL_OK;
}

static hirl_status_t put_row(sheet_t *sheet, int row, int64_t position) {
    const hirl_contact_sheet_t *spec = sheet->spec;
    const int64_t epoch = spec->preview->epoch;
    const hirl_batch_t *batch = NULL;
    HIRL_REQUIRE(!hirl_signal_cancels(), HIRL_ERR_INTERRUPTED, "signal %d", hirl_signal_cancels());
    if (row == 0 || strcmp(spec->preview->pick, "index") == 0)
        HIRL_TRY(hirl_loader_begin_epoch(sheet->loader, epoch, position));
    HIRL_TRY(hirl_loader_next(sheet->loader, &batch));
    HIRL_REQUIRE(batch != NULL, HIRL_ERR_INTERNAL, "no batch at %lld", (long long)position);
    const int64_t index = batch->index[0];
    HIRL_TRY(put_stored(sheet, row, index));
    for (int v = 0; v < spec->n_views; v++) {
        hirl_image_t image;
        const int column = 1 + v * (1 + sheet->has_masks);
        HIRL_TRY(denormalize(sheet, batch, v, batch->view[v], &image));
        HIRL_TRY(put_tile(sheet, row, column, &image, NULL));
        if (!sheet->has_masks) continue;
        hirl_mask_make(sheet->maker, spec->seed, epoch, index, v, sheet->mask);
        HIRL_TRY(put_tile(sheet, row, column + 1, &image, sheet->mask));
    }
    return sheet->is_mixed ? put_mixed(sheet, batch, row, position) : HIRL_OK;
}

// ------------------------------------------------------------------------------------ sheet

static hirl_status_t plan(sheet_t *sheet) {
    const hirl_contact_sheet_t *spec = sheet->spec;
    const hirl_preview_cfg_t *preview = spec->preview;
    const int64_t n_set = hirl_shard_set_n_samples(spec->set);
    HIRL_REQUIRE(preview->first < n_set, HIRL_ERR_DECK,
                 "preview%%first = %lld, but the set has %lld samples; want less",
                 (long long)preview->first, (long long)n_set);
    const int64_t n_left = n_set - preview->first;
    sheet->n_samples = (int)(preview->n_samples < n_left ? preview->n_samples : n_left);
    sheet->has_masks = spec->mask && spec->mask->kind != HIRL_MASK_NONE;
    sheet->is_mixed = spec->mix && (spec->mix->mixup > 0 || spec->mix->cutmix > 0) &&
                      strcmp(preview->pick, "index") != 0;
    sheet->n_columns = 1 + spec->n_views * (1 + sheet->has_masks) + sheet->is_mixed;
    sheet->box = (int)preview->thumb;
    sheet->scale = sheet->box >= 150 ? 2 : 1;
    sheet->line = (HIRL_GLYPH_HEIGHT + 4) * sheet->scale;
    const int64_t height = row_top(sheet, sheet->n_samples);
    const int64_t width = column_left(sheet, sheet->n_columns);
    HIRL_REQUIRE(height <= SIDE_MOST && width <= SIDE_MOST && height * width <= PIXELS_MOST,
                 HIRL_ERR_DECK,
                 "views.png would be %lld x %lld pixels, more than %d a side or %d in "
                 "all; want a smaller preview%%n_samples or preview%%thumb",
                 (long long)width, (long long)height, SIDE_MOST, PIXELS_MOST);
    return hirl_canvas_init(&sheet->canvas, (int)height, (int)width, PAPER);
}

static hirl_status_t open_sheet(sheet_t *sheet) {
    const hirl_contact_sheet_t *spec = sheet->spec;
    hirl_loader_spec_t wanted = {.batch = 1,
                                 .seed = spec->seed,
                                 .is_train = true,
                                 .views = spec->views,
                                 .n_views = spec->n_views,
                                 .clip = spec->clip};
    hirl_data_cfg_t data = *spec->data;
    data.max_bad_fraction = 1; // bad samples are to be seen
    HIRL_TRY(hirl_world_create_self(&sheet->world));
    HIRL_TRY(hirl_augment_create(&sheet->augment));
    HIRL_TRY(hirl_loader_create(sheet->world, spec->set, &data, &wanted, &sheet->loader));
    if (!sheet->has_masks) return HIRL_OK;
    HIRL_TRY(hirl_mask_maker_create(spec->mask, &sheet->maker));
    return HIRL_ALLOC(HIRL_MEM_DATA, spec->mask->n_patches, &sheet->mask);
}

static void close_sheet(sheet_t *sheet) {
    hirl_loader_destroy(&sheet->loader);
    hirl_augment_destroy(&sheet->augment);
    hirl_mask_maker_destroy(&sheet->maker);
    hirl_mem_free(sheet->mask);
    hirl_buffer_reset(&sheet->bytes);
    hirl_buffer_reset(&sheet->decoded);
    hirl_buffer_reset(&sheet->pixels);
    hirl_buffer_reset(&sheet->fitted);
    hirl_buffer_reset(&sheet->pair);
    hirl_canvas_reset(&sheet->canvas);
    hirl_world_destroy(&sheet->world);
}

static void put_headings(sheet_t *sheet) {
    const hirl_contact_sheet_t *spec = sheet->spec;
    const int width = sheet->canvas.width - 2 * MARGIN, top = MARGIN + 2 * sheet->line;
    char text[2 * HIRL_DECK_TEXT_MAX];
    hirl_canvas_text(&sheet->canvas, MARGIN, MARGIN, width, sheet->scale, INK, spec->title);
    (void)hirl_text_format(text, sizeof text, "seed %llu epoch %lld",
                           (unsigned long long)spec->seed, (long long)spec->preview->epoch);
    hirl_canvas_text(&sheet->canvas, MARGIN + sheet->line, MARGIN, width, sheet->scale, SOFT, text);
    hirl_canvas_text(&sheet->canvas, top, column_left(sheet, 0), sheet->box, sheet->scale, SOFT,
                     "stored");
    for (int v = 0; v < spec->n_views; v++) {
        const int column = 1 + v * (1 + sheet->has_masks);
        (void)hirl_text_format(text, sizeof text, "view %d: %d", v, spec->views[v].size);
        hirl_canvas_text(&sheet->canvas, top, column_left(sheet, column), sheet->box, sheet->scale,
                         SOFT, text);
        if (!sheet->has_masks) continue;
        (void)hirl_text_format(text, sizeof text, "mask %dx%d", spec->mask->grid[1],
                               spec->mask->grid[2]);
        hirl_canvas_text(&sheet->canvas, top, column_left(sheet, column + 1), sheet->box,
                         sheet->scale, SOFT, text);
    }
    if (sheet->is_mixed)
        hirl_canvas_text(&sheet->canvas, top, column_left(sheet, sheet->n_columns - 1), sheet->box,
                         sheet->scale, SOFT, "mixed view 0");
}

hirl_status_t hirl_contact_sheet_write(const hirl_contact_sheet_t *spec, const char *path) {
    sheet_t sheet = {.spec = spec};
    hirl_text_t png = {0};
    int64_t position[SAMPLES_MOST] = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_REQUIRE(spec->preview->n_samples <= SAMPLES_MOST, HIRL_ERR_DECK,
                 "preview%%n_samples = %lld; want %d at most", (long long)spec->preview->n_samples,
                 SAMPLES_MOST);
    HIRL_TRY_GOTO(plan(&sheet), status, done);
    HIRL_TRY_GOTO(open_sheet(&sheet), status, done);
    put_headings(&sheet);
    find_positions(&sheet, position);
    for (int i = 0; i < sheet.n_samples; i++)
        HIRL_TRY_GOTO(put_row(&sheet, i, position[i]), status, done);
    HIRL_TRY_GOTO(hirl_canvas_to_png(&sheet.canvas, &png), status, done);
    status = hirl_path_write_whole(path, png.data, png.size);
done:
    hirl_text_reset(&png);
    close_sheet(&sheet);
    return status;
}
