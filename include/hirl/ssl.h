/// @file ssl.h
/// Self-supervised pre-training methods behind one table, and the hierarchy that decorates any of them.
/// All functions are collective over the world of the tape unless said otherwise: every rank calls them with its own part of the batch.
#ifndef HIRL_SSL_H
#define HIRL_SSL_H

#include "hirl/ckpt.h"
#include "hirl/cluster.h"
#include "hirl/data.h"
#include "hirl/nn.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_MAX_TERMS = 16, HIRL_MAX_REGISTRIES = 8, HIRL_TERM_NAME_MAX = 32 };

/// What a method is built from (all HIRL_BORROW).
typedef struct hirl_method_ctx {
    hirl_tape_t *tape;
    hirl_world_t *world;
    const hirl_deck_t *deck; // the method reads its own group and &model
    uint64_t seed;
    int in_channels;
    int n_views;        // views a sample has
    int64_t batch;      // global batch size
    int accumulate;     // micro-batches per step
    int64_t n_samples;  // of the training set (hierarchy)
    hirl_dtype_t dtype; // f32 or bf16 activations
} hirl_method_ctx_t;

/// Random draws given from outside instead of made by the method (probe); NULL members are drawn.
typedef struct hirl_draws {
    const int64_t *
        shuffle; // [B] permutation: position p of the shuffled global batch holds sample shuffle[p]
    const int32_t *negative; // [B, M, L] cluster of negative path j of sample n at level l
    int64_t n_negative;      // M
} hirl_draws_t;

/// One micro-batch of this rank. Methods take its views by hirl_step_input, wherever they lie.
typedef struct hirl_step {
    const hirl_batch_t *batch; // the rank's whole batch
    const hirl_tensor_t *
        view; // [n_views] f32 [n, size, width, channels], made by the backend; NULL: the batch holds the views
    int64_t first, n; // rows of it that make the micro-batch
    int micro, n_micro;
    int64_t step;              // optimiser steps done
    const hirl_draws_t *draws; // NULL: all drawn
} hirl_step_t;

/// Named loss terms and embeddings of a forward pass. Handles belong to the holder: hirl_terms_reset.
typedef struct hirl_terms {
    int n_losses;
    char loss_name[HIRL_MAX_TERMS][HIRL_TERM_NAME_MAX];
    hirl_var_t *loss[HIRL_MAX_TERMS]; // scalars [1], means over the micro-batch of this rank
    float loss_weight[HIRL_MAX_TERMS];
    int n_embeddings;
    char embedding_name[HIRL_MAX_TERMS][HIRL_TERM_NAME_MAX];
    hirl_var_t *embedding[HIRL_MAX_TERMS]; // [n, D]
    int n_metrics;
    char metric_name[HIRL_MAX_TERMS][HIRL_TERM_NAME_MAX];
    hirl_tensor_t metric[HIRL_MAX_TERMS]; // f32 [1]
} hirl_terms_t;
/// Each takes over the handle, also on failure (full table).
hirl_status_t hirl_terms_add_loss(hirl_terms_t *terms, const char *name, float weight,
                                  HIRL_OWN hirl_var_t *loss);
hirl_status_t hirl_terms_add_embedding(hirl_terms_t *terms, const char *name,
                                       HIRL_OWN hirl_var_t *embedding);
hirl_status_t hirl_terms_add_metric(hirl_terms_t *terms, const char *name,
                                    HIRL_OWN hirl_tensor_t *metric);
hirl_var_t *hirl_terms_find_embedding(const hirl_terms_t *terms,
                                      const char *name); // NULL if absent
void hirl_terms_reset(hirl_terms_t *terms);

/// Which vectors `embed` gives for un-augmented images.
typedef enum hirl_embed_kind {
    HIRL_EMBED_CLUSTER, // what the hierarchy clusters (MoCo v2: momentum encoder with its head, before L2 norm)
    HIRL_EMBED_FEATURE // what evaluations use (ResNet: global average pool of the online encoder)
} hirl_embed_kind_t;

/// State beyond parameters, written and read by one and the same function: `visit` copies out of `data` when saving and into it when loading.
typedef struct hirl_state {
    bool is_loading;
    void *ctx;
    /// A host array; when loading, every rank receives it. Names are absolute ("/method/queue_pointer").
    hirl_status_t (*visit)(void *ctx, const char *name, hirl_ckpt_type_t type, int n_axes,
                           const int64_t *shape, void *data);
    /// A plain f32 tensor of the backend.
    hirl_status_t (*visit_tensor)(void *ctx, const char *name, const hirl_tensor_t *tensor);
} hirl_state_t;

/// Gives the embeddings of this rank's contiguous part of the training set: x [n_local, d] (HIRL_MEM_CLUSTER, the caller frees).
typedef struct hirl_extractor {
    void *ctx;
    hirl_status_t (*extract)(void *ctx, hirl_embed_kind_t kind, float **x_p, int64_t *n_local_p,
                             int *d_p);
} hirl_extractor_t;

typedef struct hirl_method_ops hirl_method_ops_t;

/// A method in use: its table and its state.
typedef struct hirl_method {
    const hirl_method_ops_t *ops;
    void *self;
} hirl_method_t;

/// The table a method fills; entries marked optional may be NULL.
struct hirl_method_ops {
    const char *name;          // 'mocov2'
    const char *help;          // one sentence with the paper
    const hirl_group_t *group; // its deck group
    int min_views;
    bool takes_clips; // views are f32 [n, frames, H, W, C]; false: of images alone
    const char *const
        *embeddings; // names that `forward` gives, what a hierarchy can train on; NULL ends
    /// Rules between keys of a deck that hold for any data and any number of ranks (optional). Not collective.
    hirl_status_t (*check)(const hirl_deck_t *deck);
    hirl_status_t (*create)(const hirl_method_ctx_t *ctx, void **self_p);
    void (*destroy)(void **self);
    /// Its registries: trainable ones first. Not collective.
    int (*registries)(void *self, hirl_registry_t *out[HIRL_MAX_REGISTRIES]);
    int (*embed_dim)(void *self, hirl_embed_kind_t kind);
    /// Floating-point operations of a training step per sample (forward and backward, all views), for the log. Not collective.
    double (*step_flops)(void *self, const hirl_batch_t *batch);
    /// Start of an epoch (optional): may ask for embeddings of the whole training set.
    hirl_status_t (*begin_epoch)(void *self, int64_t epoch, const hirl_extractor_t *extractor);
    /// Before the forward pass of a step's first micro-batch (optional): EMA, schedules. `progress` in [0, 1).
    hirl_status_t (*before_step)(void *self, int64_t step, double progress);
    /// Before the forward pass of each micro-batch (optional): here goes what depends on step->step, on samples, draws and schedules,
    /// into tensors that keep their places from one step to the next.
    hirl_status_t (*before_forward)(void *self, const hirl_step_t *step);
    /// Losses, metrics and embeddings of a micro-batch. A device may run it once, record what it asks for, backward pass included, and
    /// from then on launch the record alone (run%graph); so it has to be work of the backend alone, the same in each step of equal
    /// micro-batch number:
    /// - it takes views by hirl_step_input, and of `step` nothing else than n, micro and n_micro: the rest belongs into before_forward;
    /// - numbers that change come in tensors that keep their memory (a random step counter, say), not as arguments;
    /// - what it leaves for later steps lies in tensors of before; it makes no tensor that outlives it but its terms, and resets none;
    /// - nothing goes to or comes from the host, and nothing is asked of other ranks but by the tape;
    /// - it changes nothing on the host that a later step looks at.
    /// Where one of these cannot be, the record fails, the log says why, and steps run as before; what no check finds is wrong silently.
    hirl_status_t (*forward)(void *self, const hirl_step_t *step, hirl_terms_t *terms);
    /// A number that is another one whenever `forward` would do other work than in the last step, or with other memory (optional; NULL: never).
    /// Not collective, but the same on all ranks.
    int64_t (*generation)(void *self);
    /// After the optimiser's update (optional): queue.
    hirl_status_t (*after_step)(void *self, int64_t step);
    /// One un-augmented batch x f32 [n, H, W, C] to vectors [n, D], evaluation mode, nothing recorded.
    hirl_status_t (*embed)(void *self, hirl_embed_kind_t kind, hirl_var_t *x, hirl_var_t **y_p);
    /// Checkpoint state beyond the registries (optional).
    hirl_status_t (*state)(void *self, hirl_state_t *state);
};

/// Methods built in. Not collective.
const hirl_method_ops_t *const *hirl_methods(int *n_p);
/// Errors: HIRL_ERR_DECK naming the nearest method.
hirl_status_t hirl_method_find(const char *name, const hirl_method_ops_t **ops_p);

/// &hirl
typedef struct hirl_hirl_cfg {
    int64_t num_cluster[HIRL_DECK_LIST_MAX];
    int n_num_cluster;
    int64_t num_neg_path;
    char train_emb[HIRL_DECK_TEXT_MAX];
    int64_t num_mlp_layer;
    double cluster_warmup_epoch, cluster_every_epochs;
    int64_t cluster_iter, cluster_redo;
    double weight;
} hirl_hirl_cfg_t;
extern const hirl_group_t hirl_hirl_group;

/// What can be said of a deck before data are opened and ranks are known: the method's own rules, those of its views and
/// of the hierarchy. Not collective. Errors: HIRL_ERR_DECK.
hirl_status_t hirl_method_check(const char *name, const char *hierarchy, const hirl_deck_t *deck);
/// Creates method `name` and, for hierarchy 'hirl', wraps it.
hirl_status_t hirl_method_create(const char *name, const char *hierarchy,
                                 const hirl_method_ctx_t *ctx, hirl_method_t *method_p);
void hirl_method_destroy(hirl_method_t *method);
/// Gives the 'hirl' decorator a clustering from outside (probe); takes it over. Errors: HIRL_ERR_ARG when the method has no hierarchy.
hirl_status_t hirl_method_set_hierarchy(hirl_method_t *method,
                                        HIRL_OWN hirl_hierarchy_t *hierarchy);

/// View v of the micro-batch as a variable.
hirl_status_t hirl_step_input(hirl_tape_t *tape, const hirl_step_t *step, int v, hirl_var_t **x_p);
/// Shape of view v of the micro-batch: [n, size, width, channels].
hirl_shape_t hirl_step_shape(const hirl_step_t *step, int v);
/// Rows [first, first + n) of a view as a variable on the tape's backend: wrapped where the backend computes in host memory, copied otherwise.
hirl_status_t hirl_input_var(hirl_tape_t *tape, const float *host, int64_t first,
                             hirl_shape_t shape, hirl_var_t **x_p);

#ifdef __cplusplus
}
#endif
#endif
