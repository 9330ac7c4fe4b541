/// @file train_impl.h
/// The run's log, for src/train alone.
#ifndef HIRL_TRAIN_IMPL_H
#define HIRL_TRAIN_IMPL_H

#include "hirl/train.h"

/// Time a step's parts took, in seconds.
typedef struct step_times {
    double data, compute, reduce, total;
} step_times_t;

/// metrics.jsonl, progress bar and plain lines of a run. Rank 0 writes; `run_log_step` is collective at log steps.
typedef struct run_log run_log_t;
/// Opens `<output>/metrics.jsonl`; lines beyond `first_step` (from before a restart) are dropped.
hirl_status_t run_log_create(hirl_session_t *session, int64_t first_step, int64_t n_steps,
                             run_log_t **log_p);
void run_log_destroy(run_log_t **log);
hirl_status_t run_log_step(run_log_t *log, const hirl_progress_t *progress, double epoch, double lr,
                           const hirl_step_result_t *result, const step_times_t *times);
hirl_status_t run_log_knn(run_log_t *log, const hirl_progress_t *progress, double epoch,
                          const hirl_knn_result_t *result);
/// The mean loss of the last interval logged, and total times.
double run_log_last_loss(const run_log_t *log);
step_times_t run_log_total_times(const run_log_t *log);

#endif
