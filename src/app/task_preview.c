// run%task = 'preview': a picture of the views that a deck makes, and a page about the data set. Ranks open the shards together; rank 0 writes.

#include <string.h>

#include "app_impl.h"
#include "hirl/data_clip.h"
#include "hirl/data_preview.h"

typedef struct preview {
    hirl_dataset_split_t split[HIRL_DATASET_SPLITS_MAX];
    hirl_shard_set_t *set[HIRL_DATASET_SPLITS_MAX];
    char pattern[HIRL_DATASET_SPLITS_MAX][2 * HIRL_DECK_TEXT_MAX + 16];
    int n_splits;
    bool is_packed; // what the deck's &pack made
    hirl_view_spec_t views[HIRL_MAX_VIEWS];
    int n_views;
    hirl_mask_spec_t mask;
} preview_t;

static hirl_status_t resolve(const hirl_deck_t *deck, preview_t *preview) {
    const hirl_run_cfg_t *run = hirl_deck_group_view(deck, "run");
    const hirl_method_ops_t *method;
    HIRL_TRY(hirl_method_find(run->method, &method));
    HIRL_TRY(hirl_views_resolve(hirl_deck_group_view(deck, "views"), method->min_views,
                                preview->views, &preview->n_views));
    HIRL_TRY(hirl_mix_check(hirl_deck_group_view(deck, "mix")));
    return hirl_mask_resolve(hirl_deck_group_view(deck, "mask"), &preview->mask);
}

// A deck that packs and names no data shows what it has packed.
static hirl_status_t name_splits(const hirl_deck_t *deck, preview_t *preview) {
    const hirl_data_cfg_t *data = hirl_deck_group_view(deck, "data");
    const hirl_pack_cfg_t *pack = hirl_deck_group_view(deck, "pack");
    preview->is_packed = !data->train[0] && hirl_deck_is_set(deck, "pack", "output");
    HIRL_REQUIRE(data->train[0] || preview->is_packed, HIRL_ERR_DECK,
                 "data%%train: shards of the training set are needed");
    HIRL_TRY(preview->is_packed ? hirl_text_format(preview->pattern[0], sizeof preview->pattern[0],
                                                   "%s/%s-*.h5", pack->output, pack->split)
                                : hirl_text_format(preview->pattern[0], sizeof preview->pattern[0],
                                                   "%s", data->train));
    preview->split[0] = (hirl_dataset_split_t){.name = "train", .pattern = preview->pattern[0]};
    preview->n_splits = 1;
    if (preview->is_packed || !data->val[0]) return HIRL_OK;
    HIRL_TRY(hirl_text_format(preview->pattern[1], sizeof preview->pattern[1], "%s", data->val));
    preview->split[1] = (hirl_dataset_split_t){.name = "val", .pattern = preview->pattern[1]};
    preview->n_splits = 2;
    return HIRL_OK;
}

static hirl_status_t check(const hirl_deck_t *deck) {
    preview_t preview;
    HIRL_TRY(resolve(deck, &preview));
    return name_splits(deck, &preview);
}

// Collective. Checksums come along, to find copies.
static hirl_status_t open_splits(hirl_world_t *world, const hirl_deck_t *deck, preview_t *preview) {
    hirl_data_cfg_t data = *(const hirl_data_cfg_t *)hirl_deck_group_view(deck, "data");
    data.verify = true;
    // A deck that only packs says nothing of channels, and a folder may hold grey and colour images.
    if (preview->is_packed && data.channels == 0) data.channels = 3;
    for (int s = 0; s < preview->n_splits; s++) {
        HIRL_TRY(hirl_shard_set_open(world, preview->pattern[s], &data, &preview->set[s]));
        preview->split[s].set = preview->set[s];
    }
    return HIRL_OK;
}

// Rank 0's part.
static hirl_status_t write_files(const hirl_deck_t *deck, const preview_t *preview) {
    const hirl_run_cfg_t *run = hirl_deck_group_view(deck, "run");
    hirl_clip_spec_t clip = hirl_clip_spec_of(hirl_deck_group_view(deck, "clip"));
    // A sheet shows the first frame of a clip; a deck that only packs says nothing of clips.
    if (preview->is_packed && clip.n_frames == 0)
        clip.n_frames = hirl_shard_set_has_videos(preview->split[0].set);
    const hirl_contact_sheet_t sheet = {.set = preview->split[0].set,
                                        .title = preview->split[0].pattern,
                                        .data = hirl_deck_group_view(deck, "data"),
                                        .preview = hirl_deck_group_view(deck, "preview"),
                                        .views = preview->views,
                                        .n_views = preview->n_views,
                                        .mask = &preview->mask,
                                        .mix = hirl_deck_group_view(deck, "mix"),
                                        .clip = clip,
                                        .seed = (uint64_t)run->seed};
    char views[HIRL_DECK_TEXT_MAX + 32], page[HIRL_DECK_TEXT_MAX + 32];
    HIRL_TRY(hirl_path_make_folder(run->output));
    HIRL_TRY(hirl_text_format(views, sizeof views, "%s/views.png", run->output));
    HIRL_TRY(hirl_text_format(page, sizeof page, "%s/dataset.html", run->output));
    HIRL_TRY(hirl_contact_sheet_write(&sheet, views));
    hirl_log_root(HIRL_LOG_INFO, "preview: views = %s", views);
    HIRL_TRY(hirl_dataset_page_write(preview->split, preview->n_splits, sheet.preview, page));
    hirl_log_root(HIRL_LOG_INFO, "preview: data set = %s", page);
    return HIRL_OK;
}

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    preview_t preview = {0};
    HIRL_TRY(hirl_signal_begin(HIRL_SIGNAL_CANCELS));
    hirl_status_t status = resolve(deck, &preview);
    if (status == HIRL_OK) status = name_splits(deck, &preview);
    status = hirl_par_agree(world, status);
    if (status == HIRL_OK) status = open_splits(world, deck, &preview);
    if (status == HIRL_OK)
        status = hirl_par_agree(world, hirl_world_rank(world) == 0 ? write_files(deck, &preview)
                                                                   : HIRL_OK);
    for (int s = 0; s < HIRL_DATASET_SPLITS_MAX; s++) hirl_shard_set_close(&preview.set[s]);
    hirl_signal_end();
    *exit_code_p = status == HIRL_ERR_INTERRUPTED ? APP_EXIT_INTERRUPTED : APP_EXIT_OK;
    if (status != HIRL_ERR_INTERRUPTED) return status;
    hirl_log_root(HIRL_LOG_WARN, "%s: the preview ends without its files; run it again",
                  hirl_error_text_view());
    return HIRL_OK;
}

static const char *const groups[] = {"run", "data", "views", NULL};
const app_task_t app_task_preview = {
    "preview", "show a deck's views (views.png) and what data sets hold (dataset.html)", groups,
    check, run};
