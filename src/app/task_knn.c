// run%task = 'knn': weighted KNN of a checkpoint's features. The checkpoint is checkpoint%init_from, or else the newest of run%output; 'none' evaluates
// the untrained encoder and 'pixels' the raw images.

#include <string.h>

#include "app_impl.h"

static hirl_status_t load(hirl_session_t *s, hirl_world_t *world) {
    const char *from = s->ckpt->init_from;
    char folder[HIRL_DECK_TEXT_MAX + 32], path[HIRL_DECK_TEXT_MAX] = "";
    hirl_ckpt_t *ckpt = NULL;
    hirl_status_t status = HIRL_OK;
    if (strcmp(from, "none") == 0 || strcmp(from, "pixels") == 0) return HIRL_OK;
    if (from[0]) return hirl_session_load_model(s, from, false);
    if (hirl_world_rank(world) == 0) {
        status = hirl_text_format(folder, sizeof folder, "%s/checkpoints", s->run->output);
        if (status == HIRL_OK) status = hirl_ckpt_open_newest(folder, &ckpt);
        if (status == HIRL_OK && !ckpt)
            status = HIRL_FAIL(
                HIRL_ERR_IO,
                "%s: no complete checkpoint there; set run%%output or checkpoint%%init_from",
                folder);
        if (status == HIRL_OK)
            status = hirl_text_format(path, sizeof path, "%s", hirl_ckpt_path_view(ckpt));
        hirl_ckpt_close(&ckpt);
    }
    HIRL_TRY(hirl_par_agree(world, status));
    HIRL_TRY(hirl_par_broadcast(world, path, sizeof path, HIRL_PAR_U8, 0));
    hirl_log_root(HIRL_LOG_INFO, "checkpoint: %s", path);
    return hirl_session_load_model(s, path, false);
}

static hirl_status_t evaluate(hirl_session_t *s, hirl_world_t *world) {
    hirl_eval_ctx_t ctx = hirl_session_eval_ctx(s);
    hirl_knn_result_t result;
    bool is_pixels = strcmp(s->ckpt->init_from, "pixels") == 0;
    HIRL_REQUIRE(s->val, HIRL_ERR_DECK, "data%%val: shards of the query set are needed");
    HIRL_TRY(load(s, world));
    HIRL_TRY(is_pixels ? hirl_eval_knn_pixels(&ctx, s->train, s->val, s->knn, &result)
                       : hirl_eval_knn(&ctx, s->train, s->val, s->knn, &result));
    hirl_log_root(
        HIRL_LOG_INFO,
        "knn: bank = %lld queries = %lld d = %d extract_seconds = %.2f search_seconds = %.2f",
        (long long)result.n_bank, (long long)result.n_query, result.d, result.extract_seconds,
        result.search_seconds);
    for (int i = 0; i < result.n_k; ++i)
        hirl_log_root(HIRL_LOG_INFO, "knn: k = %lld top1 = %.2f top5 = %.2f",
                      (long long)result.k[i], result.top1[i], result.top5[i]);
    return HIRL_OK;
}

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    hirl_session_t *session = NULL;
    HIRL_TRY(hirl_signal_begin(HIRL_SIGNAL_CANCELS));
    HIRL_TRY(hirl_session_create(world, deck, 0, 0, &session));
    hirl_status_t status = evaluate(session, world);
    app_settle(world, status);
    hirl_session_destroy(&session);
    hirl_signal_end();
    *exit_code_p = status == HIRL_ERR_INTERRUPTED ? APP_EXIT_INTERRUPTED : APP_EXIT_OK;
    if (status != HIRL_ERR_INTERRUPTED) return status;
    hirl_log_root(HIRL_LOG_WARN, "%s: the evaluation ends without a result; run it again",
                  hirl_error_text_view());
    return HIRL_OK;
}

static const char *const groups[] = {"run", "data", "views", "model", "checkpoint", "knn", NULL};
const app_task_t app_task_knn = {
    "knn", "weighted KNN of data%val in data%train on a checkpoint's features", groups,
    hirl_session_check, run};
