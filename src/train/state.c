// A session's state to and from checkpoints. Rank 0 reads and writes files; what it reads is broadcast. Names: /model/<parameter or buffer>,
// /optimizer/<kind>/<parameter>, /optimizer/step_count, /loss_scale in f16, and what the method's `state` visits.

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hirl/train.h"

// ---------------------------------------------------------------------------------------------- saving

typedef struct saver {
    hirl_backend_t *backend;
    hirl_ckpt_snapshot_t *snapshot;
} saver_t;

static size_t type_size(hirl_ckpt_type_t type) {
    static const size_t size[] = {[HIRL_CKPT_F32] = 4,
                                  [HIRL_CKPT_F64] = 8,
                                  [HIRL_CKPT_I32] = 4,
                                  [HIRL_CKPT_I64] = 8,
                                  [HIRL_CKPT_U8] = 1};
    return size[type];
}

static int64_t count_of(int n_axes, const int64_t *shape) {
    int64_t n = 1;
    for (int i = 0; i < n_axes; ++i) n *= shape[i];
    return n;
}

static hirl_status_t save_array(void *ctx, const char *name, hirl_ckpt_type_t type, int n_axes,
                                const int64_t *shape, void *data) {
    const saver_t *saver = ctx;
    void *copy;
    HIRL_TRY(hirl_ckpt_snapshot_add(saver->snapshot, name, type, n_axes, shape, &copy));
    memcpy(copy, data, (size_t)count_of(n_axes, shape) * type_size(type));
    return HIRL_OK;
}

static hirl_status_t save_tensor(void *ctx, const char *name, const hirl_tensor_t *tensor) {
    const saver_t *saver = ctx;
    void *copy;
    HIRL_TRY(hirl_ckpt_snapshot_add(saver->snapshot, name, HIRL_CKPT_F32, tensor->shape.n_axes,
                                    tensor->shape.dim, &copy));
    HIRL_TRY(hirl_backend_download(saver->backend, tensor, copy));
    const float *x = copy;
    int64_t n = hirl_tensor_count(tensor), n_bad = 0;
    for (int64_t i = 0; i < n; ++i) n_bad += !(fabsf(x[i]) <= FLT_MAX);
    HIRL_REQUIRE(n_bad == 0, HIRL_ERR_NUMERIC,
                 "%lld of %lld values of %s are not finite: nothing to restart from",
                 (long long)n_bad, (long long)n, name);
    return HIRL_OK;
}

typedef hirl_status_t (*visit_tensor_t)(void *ctx, const char *name, const hirl_tensor_t *tensor);

static hirl_status_t visit_model(hirl_session_t *s, visit_tensor_t visit, void *ctx) {
    for (int r = 0; r < s->n_registries; ++r) {
        for (int i = 0; i < hirl_registry_n_params(s->registry[r]); ++i) {
            const hirl_param_t *param = hirl_registry_param(s->registry[r], i);
            char name[HIRL_NAME_MAX + 16];
            HIRL_TRY(hirl_text_format(name, sizeof name, "/model/%s", param->name));
            HIRL_TRY(visit(ctx, name, &param->value));
        }
    }
    return HIRL_OK;
}

// Everything beyond /model.
static hirl_status_t visit_rest(hirl_session_t *s, hirl_state_t *state) {
    int64_t n;
    int64_t *counts = hirl_optimizer_step_counts(s->optimizer, &n);
    HIRL_TRY(hirl_optimizer_visit(s->optimizer, state->visit_tensor, state->ctx));
    HIRL_TRY(state->visit(state->ctx, "/optimizer/step_count", HIRL_CKPT_I64, 1, &n, counts));
    return s->method.ops->state ? s->method.ops->state(s->method.self, state) : HIRL_OK;
}

static hirl_status_t checkpoint_folder(const hirl_session_t *s,
                                       char folder[HIRL_DECK_TEXT_MAX + 16]) {
    return hirl_text_format(folder, HIRL_DECK_TEXT_MAX + 16, "%s/checkpoints", s->run->output);
}

static hirl_status_t take_snapshot(hirl_session_t *s, const hirl_progress_t *progress,
                                   hirl_ckpt_snapshot_t **snapshot_p) {
    saver_t saver = {.backend = s->backend};
    hirl_text_t deck = {0};
    hirl_state_t state = {
        .is_loading = false, .ctx = &saver, .visit = save_array, .visit_tensor = save_tensor};
    hirl_status_t status = hirl_deck_write_text(s->deck, true, &deck);
    hirl_ckpt_meta_t meta = {.step = progress->step,
                             .epoch = progress->epoch,
                             .batch = progress->batch,
                             .samples_seen = progress->samples_seen,
                             .seed = s->run->seed,
                             .method = s->run->method,
                             .hierarchy = s->run->hierarchy,
                             .deck = deck.data ? deck.data : ""};
    if (status == HIRL_OK) status = hirl_ckpt_snapshot_create(&meta, &saver.snapshot);
    hirl_text_reset(&deck);
    HIRL_TRY(status);
    HIRL_TRY_GOTO(visit_model(s, save_tensor, &saver), status, err);
    HIRL_TRY_GOTO(visit_rest(s, &state), status, err);
    HIRL_TRY_GOTO(hirl_loss_scale_state(&s->loss_scale, s->backend, &state), status, err);
    *snapshot_p = saver.snapshot;
    return HIRL_OK;
err:
    hirl_ckpt_snapshot_destroy(&saver.snapshot);
    return status;
}

static hirl_status_t begin_save(hirl_session_t *s, const hirl_progress_t *progress) {
    char folder[HIRL_DECK_TEXT_MAX + 16];
    hirl_ckpt_snapshot_t *snapshot = NULL;
    HIRL_TRY(checkpoint_folder(s, folder));
    if (!s->writer) HIRL_TRY(hirl_ckpt_writer_create(&s->writer));
    HIRL_TRY(take_snapshot(s, progress, &snapshot));
    hirl_ckpt_writer_submit(s->writer, folder, snapshot, s->ckpt->keep);
    return HIRL_OK;
}

// The state in memory is worth more than the missing file: training goes on to the next attempt.
static void warn_of_failure(void) {
    hirl_log_root(HIRL_LOG_WARN,
                  "a checkpoint could not be written: %s. The run goes on; the next "
                  "one is tried when it is due",
                  hirl_error_text_view());
}

void hirl_session_save_begin(hirl_session_t *s, const hirl_progress_t *progress) {
    if (hirl_world_rank(s->world) != 0) return;
    if (s->writer && hirl_ckpt_writer_wait(s->writer) != HIRL_OK) warn_of_failure();
    if (begin_save(s, progress) != HIRL_OK) warn_of_failure();
}

hirl_status_t hirl_session_save(hirl_session_t *s, const hirl_progress_t *progress) {
    hirl_status_t status = HIRL_OK;
    if (hirl_world_rank(s->world) == 0) {
        if (s->writer && hirl_ckpt_writer_wait(s->writer) != HIRL_OK) warn_of_failure();
        status = begin_save(s, progress);
        if (status == HIRL_OK) status = hirl_ckpt_writer_wait(s->writer);
    }
    return hirl_par_agree(s->world, status);
}

bool hirl_session_save_wait(hirl_session_t *s) {
    int32_t is_written = !s->writer || hirl_ckpt_writer_wait(s->writer) == HIRL_OK;
    if (!is_written) warn_of_failure();
    return hirl_par_broadcast(s->world, &is_written, 1, HIRL_PAR_I32, 0) == HIRL_OK && is_written;
}

// ---------------------------------------------------------------------------------------------- loading

typedef struct loader {
    hirl_session_t *session;
    const hirl_ckpt_t *ckpt; // rank 0
    bool skip_absent;        // leave alone what the file does not have
} loader_t;

// Rank 0 reads, all agree, all receive.
static hirl_status_t load_array(void *ctx, const char *name, hirl_ckpt_type_t type, int n_axes,
                                const int64_t *shape, void *data) {
    loader_t *loader = ctx;
    hirl_world_t *world = loader->session->world;
    int32_t is_present = loader->ckpt && hirl_ckpt_find_view(loader->ckpt, name) != NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_par_broadcast(world, &is_present, 1, HIRL_PAR_I32, 0));
    if (!is_present && loader->skip_absent) return HIRL_OK;
    if (loader->ckpt) status = hirl_ckpt_read(loader->ckpt, name, type, n_axes, shape, data);
    HIRL_TRY(hirl_par_agree(world, status));
    return hirl_par_broadcast(world, data, count_of(n_axes, shape) * (int64_t)type_size(type),
                              HIRL_PAR_U8, 0);
}

static hirl_status_t load_tensor(void *ctx, const char *name, const hirl_tensor_t *tensor) {
    loader_t *loader = ctx;
    hirl_backend_t *be = loader->session->backend;
    float *host = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)hirl_tensor_count(tensor) * sizeof *host,
                            (void **)&host));
    hirl_status_t status = hirl_backend_download(be, tensor, host); // stays if the file may lack it
    if (status == HIRL_OK)
        status =
            load_array(ctx, name, HIRL_CKPT_F32, tensor->shape.n_axes, tensor->shape.dim, host);
    if (status == HIRL_OK) status = hirl_backend_upload(be, host, tensor);
    hirl_mem_free(host);
    return status;
}

// True if the file has no name of the registry, and may have none; says so.
static bool is_left_out(const hirl_registry_t *registry, const hirl_ckpt_t *ckpt) {
    char name[HIRL_NAME_MAX + 16];
    int n = hirl_registry_n_params(registry);
    if (!hirl_registry_is_optional(registry) || n == 0) return false;
    for (int i = 0; i < n; ++i) {
        const hirl_param_t *param = hirl_registry_param((hirl_registry_t *)registry, i);
        snprintf(name, sizeof name, "/model/%s", param->name);
        if (hirl_ckpt_find_view(ckpt, name)) return false;
    }
    hirl_log_root(HIRL_LOG_WARN, "%s lacks /model/%s and %d more: they start as drawn",
                  hirl_ckpt_path_view(ckpt),
                  hirl_registry_param((hirl_registry_t *)registry, 0)->name, n - 1);
    return true;
}

// One message that lists all names of /model that are missing, extra or of another shape; the model alone may have more
// names in the file, and lack what is optional.
static hirl_status_t check_names(hirl_session_t *s, const hirl_ckpt_t *ckpt, bool is_model_alone) {
    hirl_ckpt_array_t *wanted = NULL;
    char(*names)[HIRL_NAME_MAX + 16] = NULL;
    int n = 0, at = 0;
    hirl_status_t status = HIRL_OK;
    for (int r = 0; r < s->n_registries; ++r) n += hirl_registry_n_params(s->registry[r]);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &wanted), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &names), status, done);
    for (int r = 0; r < s->n_registries; ++r) {
        if (is_model_alone && is_left_out(s->registry[r], ckpt)) continue;
        for (int i = 0; i < hirl_registry_n_params(s->registry[r]); ++i, ++at) {
            const hirl_param_t *param = hirl_registry_param(s->registry[r], i);
            HIRL_TRY_GOTO(hirl_text_format(names[at], sizeof names[at], "/model/%s", param->name),
                          status, done);
            wanted[at] = (hirl_ckpt_array_t){
                .name = names[at], .type = HIRL_CKPT_F32, .n_axes = param->shape.n_axes};
            memcpy(wanted[at].shape, param->shape.dim, sizeof param->shape.dim);
        }
    }
    status = hirl_ckpt_check(ckpt, "/model/", wanted, at, is_model_alone);
done:
    hirl_mem_free(wanted);
    hirl_mem_free(names);
    return status;
}

static hirl_status_t check_meta(const hirl_session_t *s, const hirl_ckpt_t *ckpt) {
    const hirl_ckpt_meta_t *meta = hirl_ckpt_meta_view(ckpt);
    HIRL_REQUIRE(strcmp(meta->method, s->run->method) == 0 &&
                     strcmp(meta->hierarchy, s->run->hierarchy) == 0,
                 HIRL_ERR_MISMATCH,
                 "%s: written by run%%method = '%s', run%%hierarchy = '%s'; this run has '%s', "
                 "'%s'. Use another run%%output",
                 hirl_ckpt_path_view(ckpt), meta->method, meta->hierarchy, s->run->method,
                 s->run->hierarchy);
    HIRL_REQUIRE(meta->seed == s->run->seed, HIRL_ERR_MISMATCH,
                 "%s: written with run%%seed = %lld; this run has %lld", hirl_ckpt_path_view(ckpt),
                 (long long)meta->seed, (long long)s->run->seed);
    return HIRL_OK;
}

static hirl_status_t check_on_root(hirl_session_t *s, const hirl_ckpt_t *ckpt) {
    if (!ckpt) return HIRL_OK;
    HIRL_TRY(check_meta(s, ckpt));
    return check_names(s, ckpt, false);
}

hirl_status_t hirl_session_load(hirl_session_t *s, const hirl_ckpt_t *ckpt,
                                hirl_progress_t *progress_p) {
    loader_t loader = {.session = s, .ckpt = ckpt};
    hirl_state_t state = {
        .is_loading = true, .ctx = &loader, .visit = load_array, .visit_tensor = load_tensor};
    int64_t at[4] = {0};
    HIRL_TRY(hirl_par_agree(s->world, check_on_root(s, ckpt)));
    HIRL_TRY(visit_model(s, load_tensor, &loader));
    HIRL_TRY(visit_rest(s, &state));
    loader.skip_absent = true; // of a run in f32 or bf16 until then
    HIRL_TRY(hirl_loss_scale_state(&s->loss_scale, s->backend, &state));
    if (ckpt) {
        const hirl_ckpt_meta_t *meta = hirl_ckpt_meta_view(ckpt);
        at[0] = meta->step;
        at[1] = meta->epoch;
        at[2] = meta->batch;
        at[3] = meta->samples_seen;
    }
    HIRL_TRY(hirl_par_broadcast(s->world, at, 4, HIRL_PAR_I64, 0));
    HIRL_REQUIRE(at[0] >= 0 && at[1] >= 0 && at[2] >= 0 && at[3] >= 0, HIRL_ERR_FORMAT,
                 "checkpoint: negative step, epoch, batch or samples");
    *progress_p =
        (hirl_progress_t){.step = at[0], .epoch = at[1], .batch = at[2], .samples_seen = at[3]};
    return HIRL_OK;
}

hirl_status_t hirl_session_load_model(hirl_session_t *s, const char *path, bool with_state) {
    loader_t loader = {.session = s, .skip_absent = true}; // what must be there is checked by name
    hirl_ckpt_t *ckpt = NULL;
    hirl_status_t status = HIRL_OK;
    if (hirl_world_rank(s->world) == 0) {
        status = hirl_ckpt_is_checkpoint(path) ? hirl_ckpt_open(path, true, &ckpt)
                                               : hirl_arrays_open(path, &ckpt);
        if (status == HIRL_OK) status = check_names(s, ckpt, true);
    }
    HIRL_TRY_GOTO(hirl_par_agree(s->world, status), status, done);
    loader.ckpt = ckpt;
    HIRL_TRY_GOTO(visit_model(s, load_tensor, &loader), status, done);
    if (with_state && s->method.ops->state) {
        hirl_state_t state = {
            .is_loading = true, .ctx = &loader, .visit = load_array, .visit_tensor = load_tensor};
        status = s->method.ops->state(s->method.self, &state);
    }
done:
    hirl_ckpt_close(&ckpt);
    return status;
}

static hirl_status_t open_on_root(const hirl_session_t *s, hirl_ckpt_t **ckpt_p) {
    char folder[HIRL_DECK_TEXT_MAX + 16];
    if (hirl_world_rank(s->world) != 0) return HIRL_OK;
    if (strcmp(s->ckpt->restart, "auto") != 0)
        return hirl_ckpt_open(s->ckpt->restart, true, ckpt_p);
    HIRL_TRY(checkpoint_folder(s, folder));
    return hirl_ckpt_open_newest(folder, ckpt_p);
}

// Checkpoints beyond where this run starts are of another one: the next restart would take them for this run's, and `keep` would count them.
static hirl_status_t check_later_on_root(const hirl_session_t *s, int64_t step) {
    char folder[HIRL_DECK_TEXT_MAX + 16];
    hirl_ckpt_t *ckpt = NULL;
    hirl_status_t status = HIRL_OK;
    if (hirl_world_rank(s->world) != 0 || strcmp(s->ckpt->restart, "auto") == 0) return HIRL_OK;
    HIRL_TRY(checkpoint_folder(s, folder));
    HIRL_TRY(hirl_ckpt_open_newest(folder, &ckpt));
    if (ckpt && hirl_ckpt_meta_view(ckpt)->step > step)
        status = HIRL_FAIL(HIRL_ERR_MISMATCH,
                           "%s: written by another run, beyond step %lld where checkpoint%%restart "
                           "= '%s' lets this one start. Use another "
                           "run%%output, or remove that folder's checkpoints",
                           hirl_ckpt_path_view(ckpt), (long long)step, s->ckpt->restart);
    hirl_ckpt_close(&ckpt);
    return status;
}

// Where the run goes on, and what its deck has changed since.
static void log_restart(const hirl_session_t *s, const hirl_ckpt_t *ckpt,
                        const hirl_progress_t *progress) {
    const char *path = hirl_ckpt_path_view(ckpt);
    hirl_text_t changes = {0};
    hirl_log_root(HIRL_LOG_INFO, "restart: from = %s step = %lld epoch = %lld batch = %lld", path,
                  (long long)progress->step, (long long)progress->epoch,
                  (long long)progress->batch);
    if (hirl_deck_changes(s->deck, path, hirl_ckpt_meta_view(ckpt)->deck, &changes) != HIRL_OK)
        hirl_log_root(HIRL_LOG_WARN, "restart: the checkpoint's deck cannot be compared: %s",
                      hirl_error_text_view());
    for (char *line = changes.data; line && *line;) {
        size_t n = strcspn(line, "\n");
        hirl_log_root(HIRL_LOG_INFO, "restart: the deck changed: %.*s", (int)n, line);
        line += n + (line[n] == '\n');
    }
    hirl_text_reset(&changes);
}

static void tidy(const hirl_session_t *s, const hirl_progress_t *progress) {
    char folder[HIRL_DECK_TEXT_MAX + 16];
    if (checkpoint_folder(s, folder) == HIRL_OK)
        hirl_ckpt_tidy(folder, progress->step, s->ckpt->keep);
}

static hirl_status_t restart(hirl_session_t *s, hirl_progress_t *progress_p, bool *is_restarted_p) {
    hirl_ckpt_t *ckpt = NULL;
    *is_restarted_p = false;
    if (strcmp(s->ckpt->restart, "none") == 0) return HIRL_OK;
    hirl_status_t status = hirl_par_agree(s->world, open_on_root(s, &ckpt));
    int32_t is_found = ckpt != NULL;
    if (status == HIRL_OK) status = hirl_par_broadcast(s->world, &is_found, 1, HIRL_PAR_I32, 0);
    if (status == HIRL_OK && is_found) {
        status = hirl_session_load(s, ckpt, progress_p);
        if (status == HIRL_OK && ckpt) log_restart(s, ckpt, progress_p);
        if (status == HIRL_OK && ckpt && strcmp(s->ckpt->restart, "auto") == 0) tidy(s, progress_p);
        *is_restarted_p = status == HIRL_OK;
    }
    hirl_ckpt_close(&ckpt);
    return status;
}

hirl_status_t hirl_session_restart(hirl_session_t *s, hirl_progress_t *progress_p,
                                   bool *is_restarted_p) {
    HIRL_TRY(restart(s, progress_p, is_restarted_p));
    return hirl_par_agree(s->world, check_later_on_root(s, progress_p->step));
}

static hirl_status_t open_newest_on_root(const hirl_session_t *s, int64_t step,
                                         hirl_ckpt_t **ckpt_p) {
    char folder[HIRL_DECK_TEXT_MAX + 16];
    if (hirl_world_rank(s->world) != 0) return HIRL_OK;
    HIRL_TRY(checkpoint_folder(s, folder));
    HIRL_TRY(hirl_ckpt_open_newest(folder, ckpt_p));
    HIRL_REQUIRE(
        *ckpt_p, HIRL_ERR_NUMERIC,
        "step %lld: losses or gradients are not finite, and there is no checkpoint to go back to. "
        "Lower optim%%lr, set optim%%clip_grad, or write checkpoints more often "
        "(checkpoint%%every_steps)",
        (long long)step);
    return HIRL_OK;
}

hirl_status_t hirl_session_roll_back(hirl_session_t *s, int64_t step, hirl_progress_t *saved_p) {
    hirl_ckpt_t *ckpt = NULL;
    hirl_session_save_wait(s);
    hirl_status_t status = hirl_par_agree(s->world, open_newest_on_root(s, step, &ckpt));
    if (status == HIRL_OK) status = hirl_session_load(s, ckpt, saved_p);
    hirl_ckpt_close(&ckpt);
    return status;
}
