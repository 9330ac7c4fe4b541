// The pre-training loop: epochs, clustering at their start, steps, online KNN, checkpoints. Where a run stands is (step, epoch, batch); a batch's content is a
// function of the seed and that, so a restart needs nothing else from the input side.

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train_impl.h"

typedef struct trainer {
    hirl_session_t *s;
    hirl_loader_t *loader;
    const hirl_batch_t *next; // fetched during the step before its own; NULL: none
    hirl_reducer_t *reducer;
    run_log_t *log;
    hirl_progress_t at;
    int64_t n_batches; // per epoch
    int64_t n_steps;   // of the whole run
    int64_t saved_step, n_saves;
    double stall_seconds;                         // of training, by checkpoints
    int64_t n_skips, n_skips_in_row, n_rollbacks; // steps that were not finite
    int64_t n_overflows;                          // steps left out for the loss scale
    double lr;
    hirl_train_result_t result;
} trainer_t;

// ---------------------------------------------------------------------------------------------- epochs

static hirl_status_t extract_train(void *ctx, hirl_embed_kind_t kind, float **x_p,
                                   int64_t *n_local_p, int *d_p) {
    hirl_session_t *s = ctx;
    hirl_eval_ctx_t eval = hirl_session_eval_ctx(s);
    return hirl_eval_extract(&eval, s->train, kind, "clustering features", x_p, NULL, n_local_p,
                             d_p);
}

static hirl_status_t evaluate(trainer_t *t) {
    hirl_session_t *s = t->s;
    hirl_eval_ctx_t eval = hirl_session_eval_ctx(s);
    if (!s->val) return HIRL_OK;
    hirl_beat_phase("evaluation");
    HIRL_TRY(hirl_eval_knn(&eval, s->train, s->val, s->knn, &t->result.knn));
    t->result.has_knn = true;
    hirl_beat_phase("training");
    return run_log_knn(t->log, &t->at, (double)t->at.step / (double)t->n_batches, &t->result.knn);
}

// True every `every` epochs; fractions of an epoch fall on the nearest batch. 0: never.
static bool is_due(const trainer_t *t, double every_epochs) {
    int64_t every = llround(every_epochs * (double)t->n_batches);
    return every > 0 && t->at.step % every == 0;
}

// A checkpoint on the way: training waits for the copy of the state only.
static void save_begin(trainer_t *t) {
    double start = hirl_time_now(), stall;
    if (t->saved_step == t->at.step) return;
    hirl_session_save_begin(t->s, &t->at);
    t->saved_step = t->at.step;
    stall = hirl_time_now() - start;
    t->stall_seconds += stall;
    ++t->n_saves;
    hirl_log_root(HIRL_LOG_DEBUG, "checkpoint: step = %lld stall_seconds = %.3f",
                  (long long)t->at.step, stall);
}

// The last one: it is on disk, or the run has failed.
static hirl_status_t save_end(trainer_t *t) {
    if (t->n_skips_in_row > 0 && t->at.step < t->n_steps) {
        hirl_session_save_wait(t->s);
        hirl_log_root(HIRL_LOG_WARN,
                      "no checkpoint of step %lld: the last steps were not finite, and "
                      "a restart must meet them again",
                      (long long)t->at.step);
        return HIRL_OK;
    }
    bool is_written = hirl_session_save_wait(t->s);
    if (is_written && t->saved_step == t->at.step) return HIRL_OK;
    HIRL_TRY(hirl_session_save(t->s, &t->at));
    t->saved_step = t->at.step;
    ++t->n_saves;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- steps

// All ranks stop together, whichever of them caught a signal.
static void note_signal(trainer_t *t, int number) {
    if (number == 0) return;
    t->result.is_interrupted = true;
    hirl_log_root(
        HIRL_LOG_WARN,
        "signal %d: writing a checkpoint after step %lld and ending; run again to continue", number,
        (long long)t->at.step);
}

// The samples of this rank, as far as a line is wide.
static void log_samples(const trainer_t *t, const hirl_step_result_t *result,
                        const hirl_batch_t *batch) {
    char list[512] = "";
    size_t used = 0;
    for (int64_t i = 0; i < batch->n && used + 24 < sizeof list; ++i)
        used +=
            (size_t)snprintf(list + used, sizeof list - used, " %lld", (long long)batch->index[i]);
    hirl_log_rank(HIRL_LOG_WARN, "step %lld: loss = %g of samples%s%s", (long long)t->at.step,
                  fabs(result->total), list, used + 24 < sizeof list ? "" : " ...");
}

// A step that is not finite changed nothing. A few of them are passed over; then the state goes back to the newest checkpoint, and the batches since
// then stay unused, so that the same ones do not lead to the same end; then the run ends. All ranks decide from the same numbers.
static hirl_status_t judge(trainer_t *t, const hirl_step_result_t *result,
                           const hirl_batch_t *batch) {
    hirl_progress_t saved;
    if (result->is_finite) {
        t->n_skips_in_row = 0;
        return HIRL_OK;
    }
    if (result->is_overflow) {
        ++t->n_overflows;
        hirl_log_root(HIRL_LOG_INFO,
                      "step %lld: gradients are not finite at a loss scale of %g; left out, the "
                      "scale is %g now",
                      (long long)t->at.step, result->loss_scale,
                      hirl_loss_scale_now(&t->s->loss_scale));
        return HIRL_OK;
    }
    ++t->n_skips;
    ++t->n_skips_in_row;
    if (!result->is_finite_here) log_samples(t, result, batch);
    hirl_log_root(
        HIRL_LOG_WARN,
        "step %lld: a loss or the gradient (norm %g) is not finite; passed over, %lld in a "
        "row, %lld in all",
        (long long)t->at.step, fabs(result->grad_norm), (long long)t->n_skips_in_row,
        (long long)t->n_skips);
    if (t->n_skips_in_row <= t->s->run->max_skips) return HIRL_OK;
    HIRL_REQUIRE(
        t->n_rollbacks < t->s->run->max_rollbacks, HIRL_ERR_NUMERIC,
        "step %lld: a loss or the gradient is not finite for the %lldth time in a row, after "
        "%lld returns to a checkpoint (run%%max_rollbacks). Lower optim%%lr, or set "
        "optim%%clip_grad",
        (long long)t->at.step, (long long)t->n_skips_in_row, (long long)t->n_rollbacks);
    HIRL_TRY(hirl_session_roll_back(t->s, t->at.step, &saved));
    ++t->n_rollbacks;
    t->n_skips_in_row = 0;
    hirl_log_root(
        HIRL_LOG_WARN,
        "the state goes back to the checkpoint of step %lld; the batches of steps %lld to "
        "%lld stay unused (%lld of %lld returns)",
        (long long)saved.step, (long long)saved.step + 1, (long long)t->at.step,
        (long long)t->n_rollbacks, (long long)t->s->run->max_rollbacks);
    return HIRL_OK;
}

// True if the epoch has a step after `step`, which is under way.
static bool has_next(const trainer_t *t) {
    const int64_t max_steps = t->s->run->max_steps, done = t->at.step + 1;
    return t->at.batch + 1 < t->n_batches && done < t->n_steps &&
           (max_steps == 0 || done < max_steps);
}

// The next batch is waited for and uploaded while the device computes.
static hirl_status_t fetch_next(void *ctx) {
    trainer_t *t = ctx;
    if (!has_next(t)) return HIRL_OK;
    HIRL_TRY(hirl_loader_next(t->loader, &t->next));
    return t->next ? hirl_session_upload(t->s, t->next) : HIRL_OK;
}

static hirl_status_t step(trainer_t *t, const hirl_batch_t *batch, double data_seconds) {
    hirl_session_t *s = t->s;
    hirl_step_result_t result;
    double epoch = (double)t->at.step / (double)t->n_batches, start = hirl_time_now(),
           waited = hirl_reducer_wait_seconds(t->reducer),
           uploaded = hirl_backend_upload_seconds(s->backend);
    hirl_step_request_t request = {.batch = batch,
                                   .step = t->at.step,
                                   .epoch = epoch,
                                   .lr = hirl_schedule_lr(s->schedule, t->lr, epoch),
                                   .while_busy = fetch_next,
                                   .busy_ctx = t};
    hirl_fault_hang("hang");
    HIRL_TRY(hirl_session_step(s, t->reducer, &request, &result));
    double compute = hirl_time_now() - start;
    // of waiting and uploads beside the computation only what the device stood still for
    step_times_t times = {.data = data_seconds + result.fetch_seconds,
                          .upload = hirl_backend_upload_seconds(s->backend) - uploaded +
                                    result.upload_seconds,
                          .reduce = hirl_reducer_wait_seconds(t->reducer) - waited,
                          .total = data_seconds + compute};
    times.compute = compute - times.reduce - times.upload - result.fetch_seconds;
    ++t->at.step;
    hirl_beat_step(t->at.step);
    ++t->at.batch;
    t->at.samples_seen += s->optim->batch;
    if (t->at.batch == t->n_batches) {
        ++t->at.epoch;
        t->at.batch = 0;
    }
    t->result.train_seconds += times.total;
    HIRL_TRY(judge(t, &result, batch));
    note_signal(t, result.signal);
    return run_log_step(t->log, &t->at, (double)t->at.step / (double)t->n_batches, request.lr,
                        &result, &times);
}

// Where the time of this process's steps went, as a mean over ranks, and what is the largest part of it. Waiting for data is worth a word long before
// that. Collective.
static hirl_status_t name_bottleneck(const trainer_t *t) {
    static const char *const name[] = {"data", "upload", "compute", "communication"};
    const step_times_t times = run_log_total_times(t->log);
    const hirl_loader_counts_t counts = hirl_loader_counts(t->loader);
    double sum[] = {times.data,    times.upload,    times.compute,  times.reduce, times.total,
                    counts.read_s, counts.decode_s, counts.views_s, counts.work_s};
    double slowest = times.data;
    enum { N = sizeof sum / sizeof *sum };
    HIRL_TRY(hirl_par_all_reduce(t->s->world, sum, N, HIRL_PAR_F64, HIRL_PAR_SUM));
    HIRL_TRY(hirl_par_all_reduce(t->s->world, &slowest, 1, HIRL_PAR_F64, HIRL_PAR_MAX));
    if (!(sum[4] > 0)) return HIRL_OK;
    const double inv = 100 / sum[4], work = 100 / fmax(sum[8], 1e-9);
    int largest = 0;
    for (int i = 1; i < 4; ++i) largest = sum[i] > sum[largest] ? i : largest;
    hirl_log_root(HIRL_LOG_INFO,
                  "bottleneck: %s (of a step: data %.1f %% upload %.1f %% compute %.1f %% "
                  "communication %.1f %%)",
                  name[largest], inv * sum[0], inv * sum[1], inv * sum[2], inv * sum[3]);
    if (inv * sum[0] > 10)
        hirl_log_root(HIRL_LOG_WARN,
                      "training waits for data: %.1f %% of a step, %.1f %% on the slowest rank; "
                      "the loader's threads spend %.0f %% of their work on reading, %.0f %% on "
                      "decoding, %.0f %% on views: see data%%n_threads, data%%decode, "
                      "views%%maker, and task 'bench_input'",
                      inv * sum[0], inv * slowest * hirl_world_size(t->s->world), work * sum[5],
                      work * sum[6], work * sum[7]);
    return HIRL_OK;
}

static bool is_finished(const trainer_t *t) {
    int64_t max_steps = t->s->run->max_steps;
    return t->at.step >= t->n_steps || (max_steps > 0 && t->at.step >= max_steps) ||
           t->result.is_interrupted;
}

static hirl_status_t run_epoch(trainer_t *t) {
    hirl_session_t *s = t->s;
    hirl_extractor_t extractor = {.ctx = s, .extract = extract_train};
    const hirl_batch_t *batch;
    // in the middle of an epoch the clustering came with the checkpoint
    hirl_beat_phase("start of an epoch");
    if (t->at.batch == 0 && s->method.ops->begin_epoch)
        HIRL_TRY(s->method.ops->begin_epoch(s->method.self, t->at.epoch, &extractor));
    hirl_beat_phase("training");
    HIRL_TRY(hirl_loader_begin_epoch(t->loader, t->at.epoch, t->at.batch));
    int64_t epoch = t->at.epoch;
    while (t->at.epoch == epoch && !is_finished(t)) {
        double start = hirl_time_now();
        batch = t->next;
        t->next = NULL;
        if (!batch) HIRL_TRY(hirl_loader_next(t->loader, &batch));
        HIRL_REQUIRE(batch, HIRL_ERR_INTERNAL, "epoch %lld ended after %lld of %lld batches",
                     (long long)epoch, (long long)t->at.batch, (long long)t->n_batches);
        if (t->at.step == 0) hirl_log_root(HIRL_LOG_DEBUG, "first batch ready");
        HIRL_TRY(step(t, batch, hirl_time_now() - start));
        bool is_save_due = is_due(t, s->ckpt->every_epochs) ||
                           (s->ckpt->every_steps > 0 && t->at.step % s->ckpt->every_steps == 0);
        if (is_due(t, s->knn->every_epochs) && t->at.step < t->n_steps) HIRL_TRY(evaluate(t));
        if (is_save_due) HIRL_TRY(run_log_flush(t->log));
        // what led to a step that is not finite is nothing to go back to
        if (is_save_due && t->n_skips_in_row == 0) save_begin(t);
    }
    if (t->next) hirl_session_upload_drop(s); // its step does not come
    t->next = NULL;
    // Steps of the first epoch tell enough to act on.
    if (epoch == 0 || is_finished(t)) HIRL_TRY(name_bottleneck(t));
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- run

static hirl_status_t open_loader(trainer_t *t) {
    hirl_session_t *s = t->s;
    hirl_loader_spec_t spec = {.batch = s->optim->batch,
                               .seed = (uint64_t)s->run->seed,
                               .is_train = true,
                               .keeps_pixels = s->makes_views,
                               .pixel_memory = hirl_backend_host_allocator_view(s->backend),
                               .n_held = hirl_backend_host_allocator_view(s->backend) ? 2 : 1,
                               .views = s->view,
                               .n_views = s->n_views,
                               .clip = hirl_clip_spec_of(s->clip),
                               .n_repeats = (int)s->clip->repeats};
    HIRL_TRY(hirl_loader_create(s->world, s->train, s->data, &spec, &t->loader));
    t->n_batches = hirl_loader_n_batches(t->loader);
    t->n_steps = llround(s->schedule->epochs * (double)t->n_batches);
    return HIRL_OK;
}

static void describe(const trainer_t *t) {
    hirl_session_t *s = t->s;
    char params[32];
    int64_t n = 0;
    for (int i = 0; i < s->n_trainable; ++i)
        for (int j = 0; j < hirl_registry_n_params(s->registry[i]); ++j)
            if (!hirl_registry_param(s->registry[i], j)->is_buffer)
                n += hirl_registry_param(s->registry[i], j)->count;
    hirl_log_root(HIRL_LOG_INFO, "backend: %s", hirl_backend_info_view(s->backend));
    hirl_log_root(HIRL_LOG_INFO, "data: train = %lld samples val = %lld samples channels = %d",
                  (long long)hirl_shard_set_n_samples(s->train),
                  s->val ? (long long)hirl_shard_set_n_samples(s->val) : 0LL,
                  hirl_shard_set_channels(s->train));
    hirl_log_root(HIRL_LOG_INFO, "views: made by %s",
                  s->makes_views ? "the backend" : "the loader's threads");
    hirl_log_root(
        HIRL_LOG_INFO,
        "model: trainable = %.3f M parameters (values, gradients and optimiser state take %s)",
        (double)n * 1e-6, hirl_text_bytes(params, 12.0 * (double)n));
    hirl_log_root(HIRL_LOG_INFO,
                  "training: steps = %lld epochs = %g batch = %lld on %d ranks x %lld "
                  "micro-batches lr = %.6g (base %g, rule %s)",
                  (long long)t->n_steps, s->schedule->epochs, (long long)s->optim->batch,
                  hirl_world_size(s->world), (long long)s->optim->accumulate, t->lr, s->optim->lr,
                  s->optim->lr_rule);
}

static hirl_status_t write_deck(const hirl_session_t *s, const char *name, bool is_full) {
    char path[HIRL_DECK_TEXT_MAX + 32];
    hirl_text_t text = {0};
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", s->run->output, name));
    hirl_status_t status = hirl_deck_write_text(s->deck, is_full, &text);
    if (status == HIRL_OK)
        status = hirl_path_write_whole(path, text.data ? text.data : "", text.size);
    hirl_text_reset(&text);
    return status;
}

// Only once the restart is accepted: a run that another deck was tried on keeps its own.
static hirl_status_t write_decks(const hirl_session_t *s) {
    if (hirl_world_rank(s->world) != 0) return HIRL_OK;
    HIRL_TRY(write_deck(s, "deck.full.nml", true));
    return write_deck(s, "deck.short.nml", false);
}

// What the evaluation would refuse is refused before the training.
static hirl_status_t check_knn(const hirl_session_t *s) {
    int64_t n = hirl_shard_set_n_samples(s->train);
    for (int i = 0; s->val && i < s->knn->n_k; ++i)
        HIRL_REQUIRE(s->knn->k[i] <= n, HIRL_ERR_DECK,
                     "knn%%k(%d) = %lld: the training set has only %lld samples", i + 1,
                     (long long)s->knn->k[i], (long long)n);
    return HIRL_OK;
}

static hirl_status_t begin_loss_scale(hirl_session_t *s) {
    if (strcmp(s->run->precision, "f16") != 0) return HIRL_OK;
    HIRL_TRY(hirl_loss_scale_begin(&s->loss_scale, s->backend, s->run->loss_scale,
                                   s->run->loss_scale_steps));
    hirl_tape_set_loss_factor(s->tape, &s->loss_scale.factor);
    return HIRL_OK;
}

static hirl_status_t start(trainer_t *t) {
    hirl_session_t *s = t->s;
    bool is_restarted = false;
    HIRL_TRY(check_knn(s));
    HIRL_TRY(hirl_par_agree(s->world, open_loader(t)));
    HIRL_TRY(hirl_par_agree(s->world, begin_loss_scale(s)));
    t->lr = hirl_optim_scaled_lr(s->optim);
    describe(t);
    HIRL_TRY(hirl_session_restart(s, &t->at, &is_restarted));
    if (!is_restarted && s->ckpt->init_from[0])
        HIRL_TRY(hirl_session_load_model(s, s->ckpt->init_from, false));
    HIRL_REQUIRE(t->at.step == t->at.epoch * t->n_batches + t->at.batch, HIRL_ERR_MISMATCH,
                 "checkpoint at step %lld, epoch %lld, batch %lld, but an epoch has %lld batches "
                 "here: the data set or optim%%batch changed. Use another run%%output",
                 (long long)t->at.step, (long long)t->at.epoch, (long long)t->at.batch,
                 (long long)t->n_batches);
    t->saved_step = is_restarted ? t->at.step : -1;
    HIRL_TRY(hirl_par_agree(s->world, write_decks(s)));
    HIRL_TRY(hirl_reducer_create(s->world, s->tape, s->optim->bucket_mib, s->registry,
                                 s->n_trainable, &t->reducer));
    int64_t last =
        s->run->max_steps > 0 && s->run->max_steps < t->n_steps ? s->run->max_steps : t->n_steps;
    if (t->at.step >= last)
        hirl_log_root(HIRL_LOG_WARN,
                      "nothing to train: the checkpoint is at step %lld of %lld; raise "
                      "schedule%%epochs or run%%max_steps to go on",
                      (long long)t->at.step, (long long)last);
    return run_log_create(s, t->at.step, last, &t->log);
}

static void final_table(const trainer_t *t) {
    const hirl_train_result_t *r = &t->result;
    char memory[32], total[32], train[32];
    step_times_t times = run_log_total_times(t->log);
    double inv = times.total > 0 ? 100.0 / times.total : 0;
    hirl_log_root(HIRL_LOG_INFO,
                  "----------------------------------------------------------------");
    hirl_log_root(HIRL_LOG_INFO, "method          %s, hierarchy %s", t->s->run->method,
                  t->s->run->hierarchy);
    hirl_log_root(HIRL_LOG_INFO, "steps           %lld of %lld (epoch %.2f of %g)",
                  (long long)t->at.step, (long long)t->n_steps,
                  (double)t->at.step / (double)t->n_batches, t->s->schedule->epochs);
    if (t->n_skips > 0)
        hirl_log_root(HIRL_LOG_INFO,
                      "not finite      %lld steps passed over, %lld returns to a checkpoint",
                      (long long)t->n_skips, (long long)t->n_rollbacks);
    if (t->s->loss_scale.is_on)
        hirl_log_root(HIRL_LOG_INFO, "loss scale      %g, %lld steps left out for it",
                      t->s->loss_scale.scale, (long long)t->n_overflows);
    if (isfinite(r->loss)) hirl_log_root(HIRL_LOG_INFO, "loss            %.4f", r->loss);
    hirl_log_root(
        HIRL_LOG_INFO,
        "time            %s, steps %s (data %.0f %%, compute %.0f %%, communication %.0f %%)",
        hirl_text_duration(total, r->total_seconds), hirl_text_duration(train, r->train_seconds),
        inv * times.data, inv * times.compute, inv * times.reduce);
    if (t->n_saves > 0 && t->s->writer)
        hirl_log_root(HIRL_LOG_INFO,
                      "checkpoints     %lld, %.1f s in the background, training waited %.2f s "
                      "(%.2f %%)",
                      (long long)t->n_saves, hirl_ckpt_writer_seconds(t->s->writer),
                      t->stall_seconds,
                      r->total_seconds > 0 ? 100.0 * t->stall_seconds / r->total_seconds : 0.0);
    hirl_log_root(HIRL_LOG_INFO, "peak memory     %s (rank 0)",
                  hirl_text_bytes(memory, (double)hirl_mem_peak(HIRL_MEM_KIND_COUNT)));
    for (int i = 0; r->has_knn && i < r->knn.n_k; ++i)
        hirl_log_root(HIRL_LOG_INFO, "knn k = %-6lld  top-1 %.2f %%  top-5 %.2f %%",
                      (long long)r->knn.k[i], r->knn.top1[i], r->knn.top5[i]);
    hirl_log_root(HIRL_LOG_INFO,
                  "----------------------------------------------------------------");
}

static hirl_status_t run(trainer_t *t) {
    while (!is_finished(t)) HIRL_TRY(run_epoch(t));
    HIRL_TRY(run_log_flush(t->log));
    HIRL_TRY(save_end(t));
    if (t->at.step >= t->n_steps) HIRL_TRY(evaluate(t));
    return HIRL_OK;
}

hirl_status_t hirl_train_run(hirl_session_t *session, hirl_train_result_t *result_p) {
    trainer_t t = {.s = session};
    double begin = hirl_time_now();
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(start(&t), status, done);
    HIRL_TRY_GOTO(run(&t), status, done);
    t.result.progress = t.at;
    t.result.total_seconds = hirl_time_now() - begin;
    t.result.loss = run_log_last_loss(t.log);
    final_table(&t);
    *result_p = t.result;
done:
    run_log_destroy(&t.log);
    hirl_reducer_destroy(&t.reducer);
    hirl_session_upload_drop(session); // it may be reading a batch of the loader's
    hirl_loader_destroy(&t.loader);
    return status;
}
