// run%task = 'pretrain': pre-trains an encoder, from the newest checkpoint of run%output if there is one.

#include "app_impl.h"

// The folder is this run's alone until the end: two that write one would mix their checkpoints and logs.
static hirl_status_t open_run_folder(hirl_world_t *world, const hirl_deck_t *deck, int *lock_p) {
    const hirl_run_cfg_t *cfg = hirl_deck_group_view(deck, "run");
    char path[HIRL_DECK_TEXT_MAX + 32];
    if (hirl_world_rank(world) != 0) return HIRL_OK;
    HIRL_TRY(hirl_path_make_folder(cfg->output));
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/.lock", cfg->output));
    HIRL_TRY(hirl_lock_take(path, lock_p));
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/log.txt", cfg->output));
    return hirl_log_open_file(path);
}

static hirl_status_t train(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    hirl_session_t *session = NULL;
    hirl_train_result_t result = {0};
    HIRL_TRY(hirl_signal_begin(
        HIRL_SIGNAL_ASKS)); // from here on a signal is answered after the next step
    HIRL_TRY(hirl_session_create(world, deck, 0, 0, &session));
    hirl_status_t status = hirl_world_log_table(world, hirl_backend_info_view(session->backend));
    if (status == HIRL_OK) status = hirl_train_run(session, &result);
    app_settle(world, status);
    hirl_session_destroy(&session);
    hirl_signal_end();
    *exit_code_p = result.is_interrupted ? APP_EXIT_INTERRUPTED : APP_EXIT_OK;
    return status;
}

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    int lock = -1;
    hirl_status_t status = hirl_par_agree(world, open_run_folder(world, deck, &lock));
    if (status == HIRL_OK) status = train(world, deck, exit_code_p);
    hirl_lock_release(&lock);
    return status;
}

static const char *const groups[] = {"run",      "data",       "views", "model", "optim",
                                     "schedule", "checkpoint", "knn",   NULL};
const app_task_t app_task_pretrain = {
    "pretrain", "pre-train an encoder; continues from the newest checkpoint in run%output", groups,
    hirl_session_check, run};
