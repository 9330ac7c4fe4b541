// The run's log: one JSON line per interval in metrics.jsonl and the same as TensorBoard's scalars, a report to look at, a progress bar on a terminal, plain
// lines elsewhere. Numbers in a line are means over the interval and over ranks. metrics.jsonl holds everything, the other files are made from it. A restart
// drops the lines beyond its checkpoint, so that no step appears twice, and goes on with the sums of the interval that the checkpoint fell into.

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "run_log_impl.h"
#include "train_impl.h"

enum { N_VALUES = 2 * HIRL_MAX_TERMS + 2, N_NAMED = 2 * HIRL_MAX_TERMS };

struct run_log {
    hirl_session_t *session;
    append_t metrics; // rank 0
    events_t *events; // rank 0
    char path[HIRL_DECK_TEXT_MAX + 32];
    int64_t n_steps, first_step, step;
    int64_t n_interval, n_skipped;
    double sum[N_VALUES]; // of the steps not skipped: losses, metrics, total, gradient norm
    char name[N_NAMED][HIRL_TERM_NAME_MAX + 8];
    step_times_t interval, total;
    double start, last_line;
    double last_loss;
    int64_t last_knn;  // step of the last evaluation in the file, -1: none
    int64_t open_step; // whose open interval is in the file
    bool is_open, is_report_due;
    double report_seconds, report_end; // what the last one took, and when it was written
    metrics_line_t *open;              // rank 0, until the first step: sums to go on with
    metrics_line_t line;               // scratch
    char text[METRICS_LINE_MAX];
};

// ---------------------------------------------------------------------------------------------- file

static double wall_time(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// What a file holds that a run finds.
typedef struct found {
    int64_t last_step; // -1: no line
    bool has_lines;
} found_t;

// Errors: HIRL_ERR_IO; a file that is absent has no lines.
static hirl_status_t open_to_read(const run_log_t *log, FILE **file_p) {
    *file_p = fopen(log->path, "r");
    HIRL_REQUIRE(*file_p || errno == ENOENT, HIRL_ERR_IO, "%s: cannot be read: %s", log->path,
                 strerror(errno));
    return HIRL_OK;
}

static hirl_status_t look(run_log_t *log, found_t *found_p) {
    FILE *file;
    hirl_status_t status = HIRL_OK;
    *found_p = (found_t){.last_step = -1};
    HIRL_TRY(open_to_read(log, &file));
    while (file && status == HIRL_OK && metrics_read(file, log->text)) {
        const metrics_line_t *line = &log->line;
        if (!metrics_parse(log->text, &log->line)) continue;
        if (line->kind == METRICS_STEPS && line->step > found_p->last_step)
            found_p->last_step = line->step;
        if (line->step > log->first_step) continue;
        if (line->kind == METRICS_KNN) log->last_knn = line->step;
        if (line->kind != METRICS_OPEN || line->step != log->first_step) continue;
        if (!log->open) status = HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &log->open);
        if (status == HIRL_OK) *log->open = *line;
    }
    if (file) fclose(file);
    return status;
}

// A line of less than an interval that ended a run is in the way of the whole one, once the run goes on.
static bool is_kept(const run_log_t *log, const metrics_line_t *line, int64_t without_knn) {
    bool is_superseded = log->open && log->first_step < log->n_steps &&
                         line->step == log->first_step && metrics_has(line, "partial_steps");
    return line->step <= log->first_step && !is_superseded &&
           !(line->kind == METRICS_KNN && line->step == without_knn);
}

// Rewrites the file without lines that this run will write, and without what is no line; leaves it alone if there are none of those.
static hirl_status_t keep_lines(run_log_t *log, int64_t without_knn) {
    hirl_text_t kept = {0};
    hirl_status_t status = HIRL_OK;
    FILE *file;
    HIRL_TRY(open_to_read(log, &file));
    if (!file) return HIRL_OK;
    while (status == HIRL_OK && metrics_read(file, log->text))
        if (metrics_parse(log->text, &log->line) && is_kept(log, &log->line, without_knn))
            status = hirl_text_append(&kept, "%s", log->text);
    bool is_changed = (size_t)ftello(file) != kept.size;
    fclose(file);
    if (status == HIRL_OK && is_changed)
        status = hirl_path_write_whole(log->path, kept.data ? kept.data : "", kept.size);
    hirl_text_reset(&kept);
    return status;
}

// Rank 0. `without_knn`: the step whose evaluation goes, -1: none.
static hirl_status_t open_files(run_log_t *log, int64_t without_knn) {
    append_close(&log->metrics);
    events_destroy(&log->events);
    HIRL_TRY(keep_lines(log, without_knn));
    HIRL_TRY(append_open(log->path, false, &log->metrics));
    return events_create(log->session->run->output, log->path, &log->events);
}

// What a kill left of files that were being written whole; nobody writes one now.
static void remove_temporaries(const char *folder) {
    static const char *const begin[] = {".deck.", ".metrics.jsonl-", ".report.html-"};
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        size_t n = strlen(entry->d_name);
        bool is_temporary = n > 4 && strcmp(entry->d_name + n - 4, ".tmp") == 0;
        for (size_t i = 0; is_temporary && i < sizeof begin / sizeof *begin; ++i)
            if (strncmp(entry->d_name, begin[i], strlen(begin[i])) == 0)
                (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir) closedir(dir);
}

// A line is built as text, and goes to all files.
static hirl_status_t write_line(run_log_t *log, hirl_text_t *text, hirl_status_t status) {
    if (status == HIRL_OK) status = hirl_text_append(text, ", \"time\": %.3f}\n", wall_time());
    if (status == HIRL_OK && log->metrics.is_open) {
        append_record(&log->metrics, text->data, text->size);
        if (metrics_parse(text->data, &log->line)) events_add(log->events, &log->line);
    }
    hirl_text_reset(text);
    return status;
}

static hirl_status_t write_restart(run_log_t *log, const found_t *found) {
    hirl_text_t text = {0};
    int64_t n_lost = found->last_step > log->first_step ? found->last_step - log->first_step : 0;
    hirl_status_t status = hirl_text_append(
        &text, "{\"step\": %lld, \"restart\": true, \"steps_again\": %lld, \"ranks\": %d",
        (long long)log->first_step, (long long)n_lost, hirl_world_size(log->session->world));
    return write_line(log, &text, status);
}

static hirl_status_t open_log(run_log_t *log) {
    found_t found;
    if (hirl_world_rank(log->session->world) != 0) return HIRL_OK;
    HIRL_TRY(hirl_text_format(log->path, sizeof log->path, "%s/metrics.jsonl",
                              log->session->run->output));
    remove_temporaries(log->session->run->output);
    HIRL_TRY(look(log, &found));
    HIRL_TRY(open_files(log, -1));
    bool is_again = log->first_step > 0 || found.last_step >= 0;
    return is_again && log->first_step < log->n_steps ? write_restart(log, &found) : HIRL_OK;
}

// The interval that a checkpoint fell into goes on. Its sums are rank 0's alone from here on, as only sums over ranks are looked at.
static hirl_status_t resume_interval(run_log_t *log) {
    hirl_world_t *world = log->session->world;
    if (log->open) {
        double n = metrics_number(log->open, "open_steps", 0);
        double skipped = metrics_number(log->open, "open_skipped", 0);
        log->n_interval = n >= 1 && n < 1e15 ? (int64_t)n : 0;
        log->n_skipped = skipped >= 1 && skipped <= n ? (int64_t)skipped : 0;
        log->interval = (step_times_t){.data = metrics_number(log->open, "open_t_data", 0),
                                       .upload = metrics_number(log->open, "open_t_h2d", 0),
                                       .compute = metrics_number(log->open, "open_t_compute", 0),
                                       .reduce = metrics_number(log->open, "open_t_comm", 0),
                                       .total = metrics_number(log->open, "open_t_step", 0)};
    }
    HIRL_TRY(hirl_par_broadcast(world, &log->n_interval, 1, HIRL_PAR_I64, 0));
    return hirl_par_broadcast(world, &log->n_skipped, 1, HIRL_PAR_I64, 0);
}

hirl_status_t run_log_create(hirl_session_t *session, int64_t first_step, int64_t n_steps,
                             run_log_t **log_p) {
    run_log_t *log = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &log));
    log->session = session;
    log->first_step = log->step = log->open_step = first_step;
    log->n_steps = n_steps;
    log->start = hirl_time_now();
    log->last_loss = NAN;
    log->last_knn = -1;
    hirl_status_t status = hirl_par_agree(session->world, open_log(log));
    if (status == HIRL_OK) status = resume_interval(log);
    if (status != HIRL_OK) {
        run_log_destroy(&log);
        return status;
    }
    log->is_open = true;
    *log_p = log;
    return HIRL_OK;
}

// The page is made from the file; what fails here is no reason to end a training.
static void write_report(run_log_t *log) {
    const hirl_session_t *s = log->session;
    hirl_text_t deck[2] = {{0}, {0}};
    char path[HIRL_DECK_TEXT_MAX + 32];
    double begin = hirl_time_now();
    hirl_status_t status = HIRL_OK;
    if (!log->metrics.is_open) return;
    for (int i = 0; status == HIRL_OK && i < 2; ++i)
        status = hirl_deck_write_text(s->deck, i > 0, &deck[i]);
    report_info_t info = {.output = s->run->output,
                          .method = s->run->method,
                          .hierarchy = s->run->hierarchy,
                          .device = s->run->device,
                          .precision = s->run->precision,
                          .deck_short = deck[0].data ? deck[0].data : "",
                          .deck_full = deck[1].data ? deck[1].data : "",
                          .n_ranks = hirl_world_size(s->world),
                          .batch = s->optim->batch,
                          .n_steps = log->n_steps,
                          .epochs = s->schedule->epochs};
    if (status == HIRL_OK)
        status = hirl_text_format(path, sizeof path, "%s/report.html", s->run->output);
    if (status == HIRL_OK) status = report_write(log->path, path, &info);
    if (status != HIRL_OK)
        hirl_log_root(HIRL_LOG_WARN, "the report is not written: %s", hirl_error_text_view());
    hirl_text_reset(&deck[0]);
    hirl_text_reset(&deck[1]);
    log->is_report_due = false;
    log->report_end = hirl_time_now();
    log->report_seconds = log->report_end - begin;
    hirl_log_root(HIRL_LOG_DEBUG, "report: seconds = %.3f", log->report_seconds);
}

// At the first step after an epoch, when what follows an epoch is in the file too. At most a hundredth of the time goes into reports.
static void report_if_due(run_log_t *log) {
    if (log->is_report_due && hirl_time_now() - log->report_end > 100 * log->report_seconds)
        write_report(log);
}

void run_log_destroy(run_log_t **log) {
    if (!log || !*log) return;
    if ((*log)->is_open) write_report(*log);
    append_close(&(*log)->metrics);
    events_destroy(&(*log)->events);
    hirl_mem_free((*log)->open);
    hirl_mem_free(*log);
    *log = NULL;
}

// JSON has no NaN or infinity.
static hirl_status_t append_number(hirl_text_t *text, const char *name, double value) {
    return isfinite(value) ? hirl_text_append(text, ", \"%s\": %.8g", name, value)
                           : hirl_text_append(text, ", \"%s\": null", name);
}

// With all its bits.
static hirl_status_t append_exact(hirl_text_t *text, const char *name, double value) {
    return isfinite(value) ? hirl_text_append(text, ", \"open_%s\": %.17g", name, value)
                           : hirl_text_append(text, ", \"open_%s\": null", name);
}

// ---------------------------------------------------------------------------------------------- steps

static void add_times(step_times_t *sum, const step_times_t *times) {
    sum->data += times->data;
    sum->upload += times->upload;
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

// Names of the sums, in their order; "" has none. Sums that a restart goes on with are known by name: another order or more terms do no harm.
static hirl_status_t name_sums(run_log_t *log, const hirl_step_result_t *result) {
    for (int i = 0; i < result->n_losses; ++i)
        HIRL_TRY(
            hirl_text_format(log->name[i], sizeof log->name[i], "loss_%s", result->loss_name[i]));
    for (int i = 0; i < result->n_metrics; ++i)
        HIRL_TRY(hirl_text_format(log->name[HIRL_MAX_TERMS + i], sizeof log->name[i], "%s",
                                  result->metric_name[i]));
    return HIRL_OK;
}

static const char *sum_name(const run_log_t *log, int i) {
    if (i < N_NAMED) return log->name[i];
    return i == N_NAMED ? "loss" : "grad_norm";
}

// Means over ranks are in the file, and sums over ranks are wanted.
static void resume_sums(run_log_t *log) {
    char name[sizeof log->name[0] + 8];
    for (int i = 0; log->open && i < N_VALUES; ++i)
        if (sum_name(log, i)[0] &&
            hirl_text_format(name, sizeof name, "open_%s", sum_name(log, i)) == HIRL_OK)
            log->sum[i] = metrics_number(log->open, name, 0) * hirl_world_size(log->session->world);
    hirl_mem_free(log->open);
    log->open = NULL;
}

static hirl_status_t mean_sums(const run_log_t *log, double mean[N_VALUES]) {
    hirl_world_t *world = log->session->world;
    memcpy(mean, log->sum, sizeof log->sum);
    HIRL_TRY(hirl_par_all_reduce(world, mean, N_VALUES, HIRL_PAR_F64, HIRL_PAR_SUM));
    for (int i = 0; i < N_VALUES; ++i) mean[i] /= hirl_world_size(world);
    return HIRL_OK;
}

static hirl_status_t write_step(run_log_t *log, const hirl_progress_t *progress, double epoch,
                                double lr, const double *mean, bool is_partial) {
    hirl_text_t text = {0};
    const step_times_t *t = &log->interval;
    double n = (double)log->n_interval, n_done = (double)(log->n_interval - log->n_skipped);
    double rate = n * (double)batch_size(log) / t->total;
    hirl_status_t status = hirl_text_append(
        &text, "{\"step\": %lld, \"epoch\": %.6f, \"samples_seen\": %lld, \"lr\": %.8g",
        (long long)progress->step, epoch, (long long)progress->samples_seen, lr);
    for (int i = 0; status == HIRL_OK && i < N_VALUES; ++i)
        if (sum_name(log, i)[0]) status = append_number(&text, sum_name(log, i), mean[i] / n_done);
    if (status == HIRL_OK && log->session->loss_scale.is_on)
        status = append_number(&text, "loss_scale", log->session->loss_scale.scale);
    if (status == HIRL_OK) status = append_number(&text, "images_per_s", rate);
    if (status == HIRL_OK)
        status = hirl_text_append(&text,
                                  ", \"t_data\": %.6f, \"t_h2d\": %.6f, \"t_compute\": %.6f, "
                                  "\"t_comm\": %.6f, \"t_step\": %.6f",
                                  t->data / n, t->upload / n, t->compute / n, t->reduce / n,
                                  t->total / n);
    if (status == HIRL_OK && log->n_skipped > 0)
        status = hirl_text_append(&text, ", \"skipped_steps\": %lld", (long long)log->n_skipped);
    if (status == HIRL_OK && is_partial)
        status = hirl_text_append(&text, ", \"partial_steps\": %lld", (long long)log->n_interval);
    return write_line(log, &text, status);
}

static void add_values(run_log_t *log, const hirl_step_result_t *result) {
    for (int i = 0; i < result->n_losses; ++i) log->sum[i] += result->loss[i];
    for (int i = 0; i < result->n_metrics; ++i) log->sum[HIRL_MAX_TERMS + i] += result->metric[i];
    log->sum[N_NAMED] += result->total;
    log->sum[N_NAMED + 1] += result->grad_norm;
}

hirl_status_t run_log_step(run_log_t *log, const hirl_progress_t *progress, double epoch, double lr,
                           const hirl_step_result_t *result, const step_times_t *times) {
    double mean[N_VALUES];
    HIRL_TRY(name_sums(log, result));
    resume_sums(log);
    report_if_due(log);
    log->is_report_due = log->is_report_due || progress->batch == 0;
    if (result->is_finite)
        add_values(log, result);
    else
        ++log->n_skipped;
    log->step = progress->step;
    ++log->n_interval;
    add_times(&log->interval, times);
    add_times(&log->total, times);
    bool is_last = progress->step >= log->n_steps;
    bool is_whole = progress->step % log->session->run->log_every == 0;
    if (!is_whole && !is_last) return HIRL_OK;
    HIRL_TRY(mean_sums(log, mean));
    log->last_loss = mean[N_NAMED] / (double)(log->n_interval - log->n_skipped);
    if (hirl_world_rank(log->session->world) == 0) {
        HIRL_TRY(write_step(log, progress, epoch, lr, mean, !is_whole));
        show(log, progress, epoch, lr, log->last_loss,
             (double)(log->n_interval * batch_size(log)) / log->interval.total);
    }
    if (!is_whole) return HIRL_OK; // a later run may go on with it
    memset(log->sum, 0, sizeof log->sum);
    log->interval = (step_times_t){0};
    log->n_interval = log->n_skipped = 0;
    return HIRL_OK;
}

hirl_status_t run_log_knn(run_log_t *log, const hirl_progress_t *progress, double epoch,
                          const hirl_knn_result_t *result) {
    hirl_text_t text = {0};
    // a run that was done evaluates its last step once more
    if (log->metrics.is_open && log->last_knn == progress->step)
        HIRL_TRY(open_files(log, progress->step));
    log->last_knn = progress->step;
    hirl_status_t status = hirl_text_append(&text, "{\"step\": %lld, \"epoch\": %.6f",
                                            (long long)progress->step, epoch);
    for (int i = 0; status == HIRL_OK && i < result->n_k; ++i) {
        hirl_log_root(HIRL_LOG_INFO, "knn: epoch = %.2f k = %lld top1 = %.2f top5 = %.2f", epoch,
                      (long long)result->k[i], result->top1[i], result->top5[i]);
        status = hirl_text_append(&text, ", \"knn_top1_k%lld\": %.4f, \"knn_top5_k%lld\": %.4f",
                                  (long long)result->k[i], result->top1[i], (long long)result->k[i],
                                  result->top5[i]);
    }
    return write_line(log, &text, status);
}

static hirl_status_t write_open(run_log_t *log, const double *mean) {
    hirl_text_t text = {0};
    const step_times_t *t = &log->interval;
    hirl_status_t status = hirl_text_append(&text, "{\"step\": %lld, \"open_steps\": %lld",
                                            (long long)log->step, (long long)log->n_interval);
    if (status == HIRL_OK && log->n_skipped > 0)
        status = hirl_text_append(&text, ", \"open_skipped\": %lld", (long long)log->n_skipped);
    for (int i = 0; status == HIRL_OK && i < N_VALUES; ++i)
        if (sum_name(log, i)[0]) status = append_exact(&text, sum_name(log, i), mean[i]);
    if (status == HIRL_OK) status = append_exact(&text, "t_data", t->data);
    if (status == HIRL_OK) status = append_exact(&text, "t_h2d", t->upload);
    if (status == HIRL_OK) status = append_exact(&text, "t_compute", t->compute);
    if (status == HIRL_OK) status = append_exact(&text, "t_comm", t->reduce);
    if (status == HIRL_OK) status = append_exact(&text, "t_step", t->total);
    return write_line(log, &text, status);
}

hirl_status_t run_log_flush(run_log_t *log) {
    double mean[N_VALUES];
    if (log->n_interval > 0 && log->step > log->open_step) {
        log->open_step = log->step;
        HIRL_TRY(mean_sums(log, mean));
        if (hirl_world_rank(log->session->world) == 0) HIRL_TRY(write_open(log, mean));
    }
    append_sync(&log->metrics);
    events_sync(log->events);
    return HIRL_OK;
}

double run_log_last_loss(const run_log_t *log) { return log->last_loss; }
step_times_t run_log_total_times(const run_log_t *log) { return log->total; }
