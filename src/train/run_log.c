// The run's log: one JSON line per interval in metrics.jsonl, a progress bar on a terminal, plain lines elsewhere. Numbers in a line are means over the
// interval and over ranks. A restart drops the lines beyond its checkpoint, so that no step appears twice.

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train_impl.h"

enum { N_VALUES = 2 * HIRL_MAX_TERMS + 2 };

struct run_log {
    hirl_session_t *session;
    FILE *file; // rank 0
    int64_t n_steps, first_step;
    int64_t n_interval;
    double sum[N_VALUES]; // losses, metrics, total, gradient norm
    step_times_t interval, total;
    double start, last_line;
    double last_loss;
};

// ---------------------------------------------------------------------------------------------- file

static int64_t line_step(const char *line) {
    const char *at = strstr(line, "\"step\": ");
    return at ? strtoll(at + 8, NULL, 10) : -1;
}

// Lines up to the step that the run starts from. A run that was done evaluates its last step once more: the line of that goes.
static bool is_kept(const char *line, int64_t first_step, int64_t n_steps) {
    int64_t step = line_step(line);
    bool is_evaluation = strstr(line, "\"samples_seen\": ") == NULL;
    return step >= 0 && step <= first_step && !(is_evaluation && step >= n_steps);
}

// Rewrites the file without lines that this run will write, and without a cut-off last line.
static hirl_status_t keep_lines(const char *path, int64_t first_step, int64_t n_steps) {
    hirl_text_t kept = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    hirl_status_t status = HIRL_OK;
    FILE *file = fopen(path, "r");
    if (!file)
        return errno == ENOENT
                   ? HIRL_OK
                   : HIRL_FAIL(HIRL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    while (status == HIRL_OK && (size = getline(&line, &capacity, file)) > 0)
        if (line[size - 1] == '\n' && is_kept(line, first_step, n_steps))
            status = hirl_text_append(&kept, "%s", line);
    fclose(file);
    free(line);
    if (status == HIRL_OK)
        status = hirl_path_write_whole(path, kept.data ? kept.data : "", kept.size);
    hirl_text_reset(&kept);
    return status;
}

static hirl_status_t open_file(run_log_t *log) {
    char path[HIRL_DECK_TEXT_MAX + 32];
    if (hirl_world_rank(log->session->world) != 0) return HIRL_OK;
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/metrics.jsonl", log->session->run->output));
    HIRL_TRY(keep_lines(path, log->first_step, log->n_steps));
    log->file = fopen(path, "a");
    HIRL_REQUIRE(log->file, HIRL_ERR_IO, "%s: cannot be opened for append: %s", path,
                 strerror(errno));
    return HIRL_OK;
}

hirl_status_t run_log_create(hirl_session_t *session, int64_t first_step, int64_t n_steps,
                             run_log_t **log_p) {
    run_log_t *log = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &log));
    log->session = session;
    log->first_step = first_step;
    log->n_steps = n_steps;
    log->start = hirl_time_now();
    log->last_loss = NAN;
    hirl_status_t status = hirl_par_agree(session->world, open_file(log));
    if (status != HIRL_OK) {
        run_log_destroy(&log);
        return status;
    }
    *log_p = log;
    return HIRL_OK;
}

void run_log_destroy(run_log_t **log) {
    if (!log || !*log) return;
    if ((*log)->file) fclose((*log)->file);
    hirl_mem_free(*log);
    *log = NULL;
}

static hirl_status_t write_line(run_log_t *log, hirl_text_t *text, hirl_status_t status) {
    if (status == HIRL_OK && log->file &&
        (fputs(text->data, log->file) < 0 || fflush(log->file) != 0))
        hirl_log_root(HIRL_LOG_WARN, "metrics.jsonl: a line could not be written: %s",
                      strerror(errno)); // the training goes on
    hirl_text_reset(text);
    return status;
}

// JSON has no NaN or infinity.
static hirl_status_t append_number(hirl_text_t *text, const char *name, double value) {
    return isfinite(value) ? hirl_text_append(text, ", \"%s\": %.8g", name, value)
                           : hirl_text_append(text, ", \"%s\": null", name);
}

// ---------------------------------------------------------------------------------------------- steps

static void add_times(step_times_t *sum, const step_times_t *times) {
    sum->data += times->data;
    sum->compute += times->compute;
    sum->reduce += times->reduce;
    sum->total += times->total;
}

static int64_t batch_size(const run_log_t *log) { return log->session->optim->batch; }

static void show(run_log_t *log, const hirl_progress_t *progress, double epoch, double lr,
                 double loss, double rate) {
    char eta[32], text[256], bar[21];
    double now = hirl_time_now(), elapsed = now - log->start;
    int64_t done = progress->step - log->first_step, left = log->n_steps - progress->step;
    const step_times_t *t = &log->total;
    hirl_text_duration(eta, done > 0 ? elapsed / (double)done * (double)left : 0);
    for (int i = 0; i < 20; ++i)
        bar[i] = (double)i < 20.0 * (double)progress->step / (double)log->n_steps ? '#' : '.';
    bar[20] = '\0';
    double inv = t->total > 0 ? 100.0 / t->total : 0;
    if (hirl_log_is_terminal()) {
        if (hirl_text_format(
                text, sizeof text,
                "[%s] epoch %.2f/%g  loss %.4f  %.0f images/s  eta %s  data %.0f%% comm %.0f%%",
                bar, epoch, log->session->schedule->epochs, loss, rate, eta, inv * t->data,
                inv * t->reduce) == HIRL_OK)
            hirl_log_progress(text);
        return;
    }
    if (log->last_line > 0 && now - log->last_line < 5.0 && left > 0) return;
    log->last_line = now;
    hirl_log_root(HIRL_LOG_INFO,
                  "step = %lld/%lld epoch = %.2f loss = %.4f lr = %.4g images_per_s = %.0f eta = "
                  "%s data = %.0f%% compute = %.0f%% comm = %.0f%%",
                  (long long)progress->step, (long long)log->n_steps, epoch, loss, lr, rate, eta,
                  inv * t->data, inv * t->compute, inv * t->reduce);
}

static hirl_status_t write_step(run_log_t *log, const hirl_progress_t *progress, double epoch,
                                double lr, const hirl_step_result_t *result, const double *mean) {
    hirl_text_t text = {0};
    const step_times_t *t = &log->interval;
    double n = (double)log->n_interval, rate = n * (double)batch_size(log) / t->total;
    hirl_status_t status = hirl_text_append(
        &text, "{\"step\": %lld, \"epoch\": %.6f, \"samples_seen\": %lld, \"lr\": %.8g",
        (long long)progress->step, epoch, (long long)progress->samples_seen, lr);
    for (int i = 0; status == HIRL_OK && i < result->n_losses; ++i) {
        char name[HIRL_TERM_NAME_MAX + 8];
        status = hirl_text_format(name, sizeof name, "loss_%s", result->loss_name[i]);
        if (status == HIRL_OK) status = append_number(&text, name, mean[i]);
    }
    for (int i = 0; status == HIRL_OK && i < result->n_metrics; ++i)
        status = append_number(&text, result->metric_name[i], mean[HIRL_MAX_TERMS + i]);
    if (status == HIRL_OK) status = append_number(&text, "loss", mean[2 * HIRL_MAX_TERMS]);
    if (status == HIRL_OK) status = append_number(&text, "grad_norm", mean[2 * HIRL_MAX_TERMS + 1]);
    if (status == HIRL_OK) status = append_number(&text, "images_per_s", rate);
    if (status == HIRL_OK)
        status = hirl_text_append(
            &text, ", \"t_data\": %.6f, \"t_compute\": %.6f, \"t_comm\": %.6f, \"t_step\": %.6f}\n",
            t->data / n, t->compute / n, t->reduce / n, t->total / n);
    return write_line(log, &text, status);
}

hirl_status_t run_log_step(run_log_t *log, const hirl_progress_t *progress, double epoch, double lr,
                           const hirl_step_result_t *result, const step_times_t *times) {
    double mean[N_VALUES];
    hirl_world_t *world = log->session->world;
    for (int i = 0; i < result->n_losses; ++i) log->sum[i] += result->loss[i];
    for (int i = 0; i < result->n_metrics; ++i) log->sum[HIRL_MAX_TERMS + i] += result->metric[i];
    log->sum[2 * HIRL_MAX_TERMS] += result->total;
    log->sum[2 * HIRL_MAX_TERMS + 1] += result->grad_norm;
    ++log->n_interval;
    add_times(&log->interval, times);
    add_times(&log->total, times);
    bool is_last = progress->step >= log->n_steps;
    if (progress->step % log->session->run->log_every != 0 && !is_last) return HIRL_OK;
    memcpy(mean, log->sum, sizeof mean);
    HIRL_TRY(hirl_par_all_reduce(world, mean, N_VALUES, HIRL_PAR_F64, HIRL_PAR_SUM));
    for (int i = 0; i < N_VALUES; ++i) mean[i] /= (double)log->n_interval * hirl_world_size(world);
    log->last_loss = mean[2 * HIRL_MAX_TERMS];
    if (hirl_world_rank(world) == 0) {
        HIRL_TRY(write_step(log, progress, epoch, lr, result, mean));
        show(log, progress, epoch, lr, log->last_loss,
             (double)(log->n_interval * batch_size(log)) / log->interval.total);
    }
    memset(log->sum, 0, sizeof log->sum);
    log->interval = (step_times_t){0};
    log->n_interval = 0;
    return HIRL_OK;
}

hirl_status_t run_log_knn(run_log_t *log, const hirl_progress_t *progress, double epoch,
                          const hirl_knn_result_t *result) {
    hirl_text_t text = {0};
    hirl_status_t status = hirl_text_append(&text, "{\"step\": %lld, \"epoch\": %.6f",
                                            (long long)progress->step, epoch);
    for (int i = 0; status == HIRL_OK && i < result->n_k; ++i) {
        hirl_log_root(HIRL_LOG_INFO, "knn: epoch = %.2f k = %lld top1 = %.2f top5 = %.2f", epoch,
                      (long long)result->k[i], result->top1[i], result->top5[i]);
        status = hirl_text_append(&text, ", \"knn_top1_k%lld\": %.4f, \"knn_top5_k%lld\": %.4f",
                                  (long long)result->k[i], result->top1[i], (long long)result->k[i],
                                  result->top5[i]);
    }
    if (status == HIRL_OK) status = hirl_text_append(&text, "}\n");
    return write_line(log, &text, status);
}

double run_log_last_loss(const run_log_t *log) { return log->last_loss; }
step_times_t run_log_total_times(const run_log_t *log) { return log->total; }
