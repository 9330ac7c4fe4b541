/// @file train_impl.h
/// A step's input, and the run's log, for src/train alone.
#ifndef HIRL_TRAIN_IMPL_H
#define HIRL_TRAIN_IMPL_H

#include "hirl/train.h"

/// What hirl_backend_mark marks of a step.
enum { MARK_UPLOAD_WANTED, MARK_UPLOAD_DONE, MARK_ASKED, MARK_FETCHED };

/// Where the batches of a session lie for its backend; s->input, made by the first that needs it.
typedef struct input input_t;
hirl_status_t input_create(hirl_session_t *s, input_t **input_p);
/// Waits for uploads under way.
void input_destroy(input_t **input);
/// Makes the request's batch, whose upload was begun or is begun now, that of the step: operations from here on may read it.
hirl_status_t input_take(hirl_session_t *s, const hirl_step_request_t *request);
/// Rows [first, first + n) of its views on the backend: a new handle for each that is {0}, else copied there. *are_made_p false: they stay
/// in the batch.
hirl_status_t input_views(hirl_session_t *s, const hirl_step_request_t *request, int64_t first,
                          int64_t n, hirl_tensor_t view[HIRL_MAX_VIEWS], bool *are_made_p);
/// Everything that reads the batch was asked for.
hirl_status_t input_release(hirl_session_t *s);

/// The forward and backward pass of a micro-batch, with the reduction after the last: it must be the same work in each step, apart from what
/// tensors hold, and write what the terms are called, no more, to `named`.
typedef struct graphs_work {
    hirl_status_t (*run)(void *ctx, hirl_step_result_t *named);
    void *ctx;
} graphs_work_t;
/// Passes recorded as graphs (run%graph); s->graphs, made by the first step that may use them.
typedef struct graphs graphs_t;
void graphs_destroy(graphs_t **graphs);
/// *are_used_p false: the step's passes are not to be run by graphs_run. Not collective, but decides alike on all ranks.
hirl_status_t graphs_begin_step(hirl_session_t *s, const hirl_step_request_t *request,
                                bool *are_used_p);
/// Handles of the views of a micro-batch, where graphs find them.
hirl_status_t graphs_views(hirl_session_t *s, const hirl_step_request_t *request, int64_t first,
                           int64_t n, hirl_tensor_t view[HIRL_MAX_VIEWS]);
/// Runs the work, operation by operation or as a graph, after before_forward. Collective while it records.
hirl_status_t graphs_run(hirl_session_t *s, int micro, const graphs_work_t *work,
                         hirl_step_result_t *named);

/// Time a step's parts took, in seconds.
typedef struct step_times {
    double data, upload, compute, reduce, total;
} step_times_t;

/// metrics.jsonl, TensorBoard's events, progress bar and plain lines of a run. Rank 0 writes; `run_log_step` is collective at log steps.
typedef struct run_log run_log_t;
/// Opens `<output>/metrics.jsonl` and an event file with the same content; lines beyond `first_step` (from before a restart) are dropped. Collective.
hirl_status_t run_log_create(hirl_session_t *session, int64_t first_step, int64_t n_steps,
                             run_log_t **log_p);
void run_log_destroy(run_log_t **log);
hirl_status_t run_log_step(run_log_t *log, const hirl_progress_t *progress, double epoch, double lr,
                           const hirl_step_result_t *result, const step_times_t *times);
hirl_status_t run_log_knn(run_log_t *log, const hirl_progress_t *progress, double epoch,
                          const hirl_knn_result_t *result);
/// To be called before a checkpoint of the last step logged can be seen under its name: all lines up to that step are on disk afterwards, with the sums of the
/// interval that is open, so that a restart goes on with them. Collective; what cannot be written is a warning.
hirl_status_t run_log_flush(run_log_t *log);
/// The mean loss of the last interval logged, and total times.
double run_log_last_loss(const run_log_t *log);
step_times_t run_log_total_times(const run_log_t *log);

#endif
