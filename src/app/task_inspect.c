// run%task = 'inspect': prints what a checkpoint or shard holds.

#include <stdio.h>

#include "app_impl.h"

typedef struct inspect_cfg {
    char path[HIRL_DECK_TEXT_MAX];
} inspect_cfg_t;

static hirl_status_t describe(const char *path, hirl_text_t *text) {
    if (hirl_ckpt_is_checkpoint(path)) return hirl_ckpt_describe(path, text);
    return hirl_shard_describe(path, text);
}

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    const inspect_cfg_t *cfg = hirl_deck_group_view(deck, "inspect");
    hirl_text_t text = {0};
    hirl_status_t status = HIRL_OK;
    if (hirl_world_rank(world) == 0) {
        status = describe(cfg->path, &text);
        if (status == HIRL_OK) fputs(text.data ? text.data : "", stdout);
        hirl_text_reset(&text);
    }
    *exit_code_p = APP_EXIT_OK;
    return hirl_par_agree(world, status);
}

static const hirl_key_t keys[] = {
    HIRL_ROW_TEXT(inspect_cfg_t, path, NULL, NULL, "Checkpoint or shard to describe."),
};
const hirl_group_t app_inspect_group = {"inspect", "What task 'inspect' looks at.", keys, 1,
                                        sizeof(inspect_cfg_t)};

static const char *const groups[] = {"inspect", NULL};
const app_task_t app_task_inspect = {
    "inspect", "print what a checkpoint or shard holds (or: hirl.x --inspect FILE)", groups, NULL,
    run};
