/// @file train.h
/// What a task needs to compute (session), the pre-training loop, and the run's log. Collective over the session's world unless said otherwise.
#ifndef HIRL_TRAIN_H
#define HIRL_TRAIN_H

#include "hirl/data_clip.h"
#include "hirl/eval.h"
#include "hirl/optim.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &run
typedef struct hirl_run_cfg {
    char task[HIRL_DECK_TEXT_MAX];
    char base[HIRL_DECK_TEXT_MAX]; // read by the deck reader
    char method[HIRL_DECK_TEXT_MAX];
    char hierarchy[HIRL_DECK_TEXT_MAX];
    char device[HIRL_DECK_TEXT_MAX];
    char precision[HIRL_DECK_TEXT_MAX];
    char output[HIRL_DECK_TEXT_MAX];
    char log_level[HIRL_DECK_TEXT_MAX];
    double timeout, loss_scale;
    int64_t seed, threads, log_every, max_steps, max_skips, max_rollbacks, loss_scale_steps;
    bool deterministic, tf32, graph, allow_gpu_sharing;
} hirl_run_cfg_t;
extern const hirl_group_t hirl_run_group;

/// The factor by which losses are multiplied before the backward pass of a training in f16, so that gradients do not fall below the smallest
/// f16; the optimiser divides by it. It halves at a step whose gradients are not finite (which is left out), and doubles after
/// `growth_steps` steps in a row whose are. Powers of two cost no bits. The same on all ranks, for it follows what they agreed on.
typedef struct hirl_loss_scale {
    bool is_on; // otherwise nothing is scaled
    double scale;
    int64_t n_good, growth_steps; // n_good: finite steps since the last change
    hirl_tensor_t factor;         // f32 [1], the scale where the backward pass reads it
} hirl_loss_scale_t;
/// At 1 nothing is left to lower. Beyond 2^24 a loss of 1 has left the range of f16 long since.
#define HIRL_LOSS_SCALE_LEAST 1.0
#define HIRL_LOSS_SCALE_MOST 16777216.0
/// Switches scaling on. Not collective, as all of these.
hirl_status_t hirl_loss_scale_begin(hirl_loss_scale_t *loss_scale, hirl_backend_t *backend,
                                    double scale, int64_t growth_steps);
void hirl_loss_scale_reset(hirl_loss_scale_t *loss_scale);
/// The scale; 1 where scaling is off.
double hirl_loss_scale_now(const hirl_loss_scale_t *loss_scale);
/// Whether gradients that are not finite may be the scale's fault.
bool hirl_loss_scale_can_fall(const hirl_loss_scale_t *loss_scale);
/// After a step: whether its gradients were finite, on all ranks.
hirl_status_t hirl_loss_scale_note(hirl_loss_scale_t *loss_scale, hirl_backend_t *backend,
                                   bool is_finite);
/// Saves or loads /loss_scale, f64 [scale, n_good]; nothing where scaling is off. Collective when loading.
hirl_status_t hirl_loss_scale_state(hirl_loss_scale_t *loss_scale, hirl_backend_t *backend,
                                    hirl_state_t *state);

/// Everything opened for a task. Members are NULL or zero until asked for.
typedef struct hirl_session {
    hirl_world_t *world;     // HIRL_BORROW
    const hirl_deck_t *deck; // HIRL_BORROW
    const hirl_run_cfg_t *run;
    const hirl_data_cfg_t *data;
    const hirl_views_cfg_t *views;
    const hirl_optim_cfg_t *optim;
    const hirl_schedule_cfg_t *schedule;
    const hirl_ckpt_cfg_t *ckpt;
    const hirl_knn_cfg_t *knn;
    const hirl_clip_cfg_t *clip;
    hirl_backend_t *backend;
    hirl_par_device_t *device; // of a device backend on more than one rank
    hirl_tape_t *tape;
    hirl_shard_set_t *train, *val; // val NULL if data%val = ''
    int n_views;
    hirl_view_spec_t view[HIRL_MAX_VIEWS];
    bool makes_views; // of training batches: the backend does, not the loader
    hirl_method_t method;
    int n_registries, n_trainable;
    hirl_registry_t *registry[HIRL_MAX_REGISTRIES]; // trainable first
    hirl_optimizer_t *optimizer;                    // pre-training and probe
    hirl_tensor_t scalars;        // f32: the step's losses and metrics, until they are read
    struct graphs *graphs;        // recorded passes; NULL: none yet
    struct input *input;          // batches on their way to the backend
    hirl_loss_scale_t loss_scale; // on in a training in f16
    hirl_ckpt_writer_t *writer;   // rank 0, from the first checkpoint on
} hirl_session_t;

/// Rules between keys of different groups that hold for any data and any number of ranks. Not collective. Errors: HIRL_ERR_DECK.
hirl_status_t hirl_session_check(const hirl_deck_t *deck);
/// Opens backend, data sets and method as the deck says; in_channels and n_samples come from the data set, or, when `in_channels` > 0, from the caller (probe).
hirl_status_t hirl_session_create(hirl_world_t *world, const hirl_deck_t *deck, int in_channels,
                                  int64_t n_samples, hirl_session_t **session_p);
void hirl_session_destroy(hirl_session_t **session);
hirl_eval_ctx_t hirl_session_eval_ctx(const hirl_session_t *session);

/// Where a run stands.
typedef struct hirl_progress {
    int64_t step;  // optimiser steps done
    int64_t epoch; // epoch under way
    int64_t batch; // batches of it done
    int64_t samples_seen;
} hirl_progress_t;

/// Copies the session's state and writes it to `<output>/checkpoints` in the background, after what is still being written. A
/// failure is a warning, now or at the next call: the state in memory goes on.
void hirl_session_save_begin(hirl_session_t *session, const hirl_progress_t *progress);
/// Waits for the background; true if the last checkpoint begun is on disk. Before anything else that uses HDF5.
bool hirl_session_save_wait(hirl_session_t *session);
/// Writes the state and waits for it. Errors are agreed on.
hirl_status_t hirl_session_save(hirl_session_t *session, const hirl_progress_t *progress);
/// Loads everything from an open checkpoint (rank 0's handle; NULL elsewhere) and sets progress. Errors: HIRL_ERR_MISMATCH with the lists of names.
hirl_status_t hirl_session_load(hirl_session_t *session, const hirl_ckpt_t *ckpt,
                                hirl_progress_t *progress_p);
/// Loads parameters and buffers alone from `path`: what the file lacks is an error, what it has too much (heads of another method) is logged.
/// `with_state` also loads the method's own state (queue) if the file has it.
hirl_status_t hirl_session_load_model(hirl_session_t *session, const char *path, bool with_state);
/// Restarts as checkpoint%restart says; *progress_p stays zero when there is nothing to restart from.
hirl_status_t hirl_session_restart(hirl_session_t *session, hirl_progress_t *progress_p,
                                   bool *is_restarted_p);

/// One optimiser step on a rank's batch: before_step, forward and backward of each micro-batch, reduction, update, after_step.
typedef struct hirl_step_result {
    int n_losses;
    float loss_weight[HIRL_MAX_TERMS];
    char loss_name[HIRL_MAX_TERMS][HIRL_TERM_NAME_MAX];
    double loss[HIRL_MAX_TERMS]; // this rank's means
    int n_metrics;
    char metric_name[HIRL_MAX_TERMS][HIRL_TERM_NAME_MAX];
    double metric[HIRL_MAX_TERMS];
    double total;      // weighted sum of the losses
    double grad_norm;  // of the losses, unscaled
    double loss_scale; // what they were multiplied by meanwhile; 1 where nothing is scaled
    bool is_overflow;  // not finite but for the loss scale, which has been lowered: no failure
    bool
        is_finite; // on all ranks; otherwise nothing was updated, and the state is that of before the step
    bool is_finite_here; // this rank's losses
    int signal;          // the largest that a rank caught, 0: none
    // seconds that a device stood still: before its batch was uploaded; until `while_busy` returned. On hosts 0
    double upload_seconds, fetch_seconds;
} hirl_step_result_t;
/// What a caller may look at between backward and update (probe); NULL: nobody.
typedef hirl_status_t (*hirl_step_watch_t)(void *ctx, const hirl_terms_t *terms, int micro);
typedef struct hirl_step_request {
    const hirl_batch_t *batch;
    const hirl_tensor_t *
        view; // [n_views] of the whole batch, f32 in the backend's memory; NULL: as the batch has them
    int64_t step;
    double epoch; // fractional
    double lr;
    const hirl_draws_t *draws;
    hirl_step_watch_t after_forward;  // each micro-batch, before its backward pass
    hirl_step_watch_t after_backward; // once, gradients reduced; terms NULL
    void *watch_ctx;
    /// While a device computes, before the host waits for it (not called on host backends); may be NULL: fetch and upload what comes next.
    hirl_status_t (*while_busy)(void *ctx);
    void *busy_ctx;
} hirl_step_request_t;
/// Begins to move a batch to the device, for the step after the one under way (while_busy) or the next one; it must stay until its step is
/// done. On host backends nothing. Not collective.
hirl_status_t hirl_session_upload(hirl_session_t *session, const hirl_batch_t *batch);
/// Waits for and forgets what was begun, before batches become invalid whose steps do not come.
void hirl_session_upload_drop(hirl_session_t *session);
hirl_status_t hirl_session_step(hirl_session_t *session, hirl_reducer_t *reducer,
                                const hirl_step_request_t *request, hirl_step_result_t *result_p);

/// Puts the newest checkpoint's state in place; where the run stands (`step`, for the message) is the caller's. Errors: HIRL_ERR_NUMERIC if there is none.
hirl_status_t hirl_session_roll_back(hirl_session_t *session, int64_t step,
                                     hirl_progress_t *saved_p);

/// How a training ended.
typedef struct hirl_train_result {
    hirl_progress_t progress;
    bool is_interrupted; // by a signal: checkpoint written, to be continued
    double train_seconds, total_seconds;
    double loss;
    bool has_knn;
    hirl_knn_result_t knn;
} hirl_train_result_t;
/// Pre-trains as the deck says: restart, epochs, online KNN, checkpoints, log. Ends early at a signal (SIGTERM, SIGUSR1, SIGINT) or run%max_steps, with a checkpoint.
hirl_status_t hirl_train_run(hirl_session_t *session, hirl_train_result_t *result_p);

#ifdef __cplusplus
}
#endif
#endif
