// run%task = 'bench_input': runs the loader alone, as training would, and says what it can feed.
// Batches that were prepared before the clock started are not counted.

#include <string.h>

#include "app_impl.h"
#include "hirl/data_clip.h"

typedef struct bench_input_cfg {
    double seconds;
    char transform[HIRL_DECK_TEXT_MAX];
} bench_input_cfg_t;

typedef struct bench {
    hirl_world_t *world;
    hirl_shard_set_t *set;
    hirl_loader_t *loader;
    double seconds;
    int64_t epoch, n_samples;
    hirl_loader_counts_t counts;
} bench_t;

// The next batch, epoch after epoch.
static hirl_status_t next_batch(bench_t *b, int64_t *n_p) {
    const hirl_batch_t *batch;
    HIRL_TRY(hirl_loader_next(b->loader, &batch));
    if (batch == NULL) {
        HIRL_TRY(hirl_loader_begin_epoch(b->loader, ++b->epoch, 0));
        HIRL_TRY(hirl_loader_next(b->loader, &batch));
    }
    HIRL_REQUIRE(batch, HIRL_ERR_DECK, "rank %d has no samples: use fewer ranks",
                 hirl_world_rank(b->world));
    *n_p = batch->n;
    return HIRL_OK;
}

static hirl_status_t measure(bench_t *b, double seconds, int64_t n_ahead) {
    int64_t n;
    HIRL_TRY(hirl_loader_begin_epoch(b->loader, 0, 0));
    for (int64_t i = 0; i <= n_ahead; ++i) HIRL_TRY(next_batch(b, &n));
    const hirl_loader_counts_t before = hirl_loader_counts(b->loader);
    const double begin = hirl_time_now();
    double shown = begin;
    do {
        HIRL_TRY(next_batch(b, &n));
        b->n_samples += n;
        b->seconds = hirl_time_now() - begin;
        if (begin + b->seconds > shown + 5) {
            shown = begin + b->seconds;
            hirl_log_root(HIRL_LOG_INFO, "bench_input: %.0f of %.0f s, rank 0: %.1f samples/s",
                          b->seconds, seconds, (double)b->n_samples / b->seconds);
        }
    } while (b->seconds < seconds && hirl_signal_cancels() == 0);
    hirl_loader_counts_t after = hirl_loader_counts(b->loader);
    after.wait_s -= before.wait_s;
    after.work_s -= before.work_s;
    after.read_s -= before.read_s;
    after.decode_s -= before.decode_s;
    after.views_s -= before.views_s;
    after.n_samples -= before.n_samples;
    after.n_bytes -= before.n_bytes;
    after.n_pixels -= before.n_pixels;
    after.n_pixels_decoded -= before.n_pixels_decoded;
    b->counts = after;
    return HIRL_OK;
}

static double share(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

// Collective. Rates of the ranks add up; the slowest one is what training would wait for.
static hirl_status_t report(const bench_t *b, int n_threads) {
    const hirl_loader_counts_t *c = &b->counts;
    const double rate = (double)b->n_samples / b->seconds;
    double sum[] = {rate,
                    (double)n_threads,
                    c->work_s,
                    c->read_s,
                    c->decode_s,
                    c->views_s,
                    (double)c->n_samples,
                    (double)c->n_bytes,
                    (double)c->n_pixels,
                    (double)c->n_pixels_decoded,
                    (double)c->n_bytes / b->seconds,
                    (double)c->n_bad};
    double slowest = rate;
    char bytes[32], rate_bytes[32];
    HIRL_TRY(hirl_par_all_reduce(b->world, &slowest, 1, HIRL_PAR_F64, HIRL_PAR_MIN));
    HIRL_TRY(hirl_par_all_reduce(b->world, sum, (int64_t)(sizeof sum / sizeof *sum), HIRL_PAR_F64,
                                 HIRL_PAR_SUM));
    hirl_log_root(HIRL_LOG_INFO,
                  "bench_input: samples_per_s = %.1f (slowest rank %.1f) ranks = %d threads = %.0f "
                  "thread_ms_per_sample = %.3f",
                  sum[0], slowest, hirl_world_size(b->world), sum[1], 1e3 * sum[2] / sum[6]);
    hirl_log_root(HIRL_LOG_INFO,
                  "bench_input: read = %.1f %% decode = %.1f %% views = %.1f %% of the threads' "
                  "work; decoded = %.1f %% of all pixels",
                  share(sum[3], sum[2]), share(sum[4], sum[2]), share(sum[5], sum[2]),
                  share(sum[9], sum[8]));
    hirl_log_root(HIRL_LOG_INFO,
                  "bench_input: read_per_s = %s bytes_per_sample = %s pixels_per_sample = %.0f "
                  "undecodable = %.0f",
                  hirl_text_bytes(rate_bytes, sum[10]), hirl_text_bytes(bytes, sum[7] / sum[6]),
                  sum[8] / sum[6], sum[11]);
    return HIRL_OK;
}

static hirl_status_t open_loader(bench_t *b, const hirl_deck_t *deck, bool is_train) {
    const hirl_run_cfg_t *run = hirl_deck_group_view(deck, "run");
    const hirl_data_cfg_t *data = hirl_deck_group_view(deck, "data");
    const hirl_views_cfg_t *views = hirl_deck_group_view(deck, "views");
    const hirl_optim_cfg_t *optim = hirl_deck_group_view(deck, "optim");
    const hirl_clip_cfg_t *clip = hirl_deck_group_view(deck, "clip");
    const hirl_method_ops_t *method;
    hirl_view_spec_t view[HIRL_MAX_VIEWS];
    int n_views;
    HIRL_TRY(hirl_method_find(run->method, &method));
    HIRL_TRY(hirl_views_resolve(views, method->min_views, view, &n_views));
    HIRL_TRY(hirl_shard_set_open(b->world, data->train, data, &b->set));
    const hirl_loader_spec_t spec = {
        .batch = is_train ? optim->batch : optim->batch / hirl_world_size(b->world),
        .seed = (uint64_t)run->seed,
        .is_train = is_train,
        .keeps_pixels = is_train && strcmp(views->maker, "backend") == 0,
        .views = view,
        .n_views = n_views,
        .eval_resize = (int)views->eval_resize,
        .eval_crop = (int)views->eval_crop,
        .eval_is_bicubic = strcmp(views->eval_interpolation, "bicubic") == 0,
        .clip = hirl_clip_spec_of(clip),
        .n_repeats = (int)clip->repeats};
    HIRL_TRY(
        hirl_par_agree(b->world, hirl_loader_create(b->world, b->set, data, &spec, &b->loader)));
    hirl_log_root(HIRL_LOG_INFO,
                  "bench_input: %lld samples, batch = %lld, %d views a sample made for %s",
                  (long long)hirl_shard_set_n_samples(b->set), (long long)optim->batch,
                  is_train ? n_views : 1,
                  !is_train           ? "evaluation"
                  : spec.keeps_pixels ? "training by the backend: decoded only"
                                      : "training");
    if (clip->frames > 0)
        hirl_log_root(HIRL_LOG_INFO,
                      "bench_input: samples are clips of %lld frames, every %lld-th of a video, "
                      "%lld of each at a time",
                      (long long)clip->frames, (long long)clip->stride,
                      is_train ? (long long)clip->repeats : 1LL);
    return HIRL_OK;
}

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    const bench_input_cfg_t *cfg = hirl_deck_group_view(deck, "bench_input");
    const hirl_data_cfg_t *data = hirl_deck_group_view(deck, "data");
    bench_t b = {.world = world};
    const int n_threads = data->n_threads > 0 ? (int)data->n_threads : hirl_world_n_cpus(world);
    HIRL_TRY(hirl_signal_begin(HIRL_SIGNAL_CANCELS));
    hirl_status_t status = open_loader(&b, deck, strcmp(cfg->transform, "train") == 0);
    if (status == HIRL_OK) status = hirl_par_agree(world, measure(&b, cfg->seconds, data->n_ahead));
    if (status == HIRL_OK) status = report(&b, n_threads);
    hirl_loader_destroy(&b.loader);
    app_settle(world, status);
    hirl_shard_set_close(&b.set);
    *exit_code_p = hirl_signal_caught() ? APP_EXIT_INTERRUPTED : APP_EXIT_OK;
    hirl_signal_end();
    return status;
}

static const hirl_key_t keys[] = {
    HIRL_ROW_REAL(bench_input_cfg_t, seconds, "10", 0.01, 86400, "s",
                  "How long batches are taken, after those that were prepared ahead."),
    HIRL_ROW_TEXT(bench_input_cfg_t, transform, "'train'", "train|eval",
                  "What the loader makes of data%train: the views of training (run%method and "
                  "&views say how many), or the evaluation transform."),
};
const hirl_group_t app_bench_input_group = {"bench_input", "Task 'bench_input': the loader alone.",
                                            keys, 2, sizeof(bench_input_cfg_t)};

static const char *const groups[] = {"run", "data", "views", "bench_input", NULL};
const app_task_t app_task_bench_input = {
    "bench_input", "run the loader alone: samples/s, share of decoding, bytes/s", groups, NULL,
    run};
