// A session: backend, data sets, method and optimiser opened as the deck says.

#include <string.h>

#include "train_impl.h"

hirl_status_t hirl_session_check(const hirl_deck_t *deck) {
    const hirl_run_cfg_t *run = hirl_deck_group_view(deck, "run");
    const hirl_optim_cfg_t *optim = hirl_deck_group_view(deck, "optim");
    const hirl_model_cfg_t *model = hirl_deck_group_view(deck, "model");
    HIRL_REQUIRE(optim->batch % optim->accumulate == 0, HIRL_ERR_DECK,
                 "optim%%batch = %lld: must be a multiple of optim%%accumulate = %lld",
                 (long long)optim->batch, (long long)optim->accumulate);
    const int64_t micro = optim->batch / optim->accumulate;
    HIRL_REQUIRE(model->bn_group == 0 || model->bn_group >= micro || micro % model->bn_group == 0,
                 HIRL_ERR_DECK,
                 "model%%bn_group = %lld: must divide the optim%%batch / optim%%accumulate = %lld "
                 "samples of a micro-batch",
                 (long long)model->bn_group, (long long)micro);
    HIRL_REQUIRE(strcmp(run->precision, "f16") != 0 || strcmp(run->device, "cpu") != 0,
                 HIRL_ERR_DECK,
                 "run%%precision = 'f16': run%%device = 'cpu' has none; use 'bf16', or 'cuda'");
    return hirl_method_check(run->method, run->hierarchy, deck);
}

static hirl_dtype_t dtype_of(const hirl_run_cfg_t *run) {
    return strcmp(run->precision, "bf16") == 0  ? HIRL_BF16
           : strcmp(run->precision, "f16") == 0 ? HIRL_F16
                                                : HIRL_F32;
}

// Each rank's own part: what fails on one rank alone is agreed on before anything collective begins.
static hirl_status_t open_backend(hirl_session_t *s) {
    const hirl_method_ops_t *ops;
    int threads = (int)(s->run->threads > 0 ? s->run->threads : hirl_world_n_cpus(s->world));
    HIRL_TRY(hirl_method_find(s->run->method, &ops));
    const int n_devices = hirl_backend_n_devices(s->run->device);
    const hirl_backend_options_t options = {
        .n_threads = threads,
        .device = n_devices > 0 ? hirl_world_node_rank(s->world) % n_devices : 0,
        .is_deterministic = s->run->deterministic,
        .has_tf32 = s->run->tf32};
    HIRL_TRY(hirl_backend_open(s->run->device, &options, &s->backend));
    HIRL_REQUIRE(hirl_backend_has_dtype(s->backend, dtype_of(s->run)), HIRL_ERR_DECK,
                 "run%%precision = '%s': backend '%s' has none; use run%%precision = 'bf16', which "
                 "needs no scaled losses either, or run%%device = 'cuda'",
                 s->run->precision, hirl_backend_name(s->backend));
    HIRL_TRY(hirl_tape_create(s->backend, s->world, &s->tape));
    HIRL_TRY(hirl_views_resolve(s->views, ops->min_views, s->view, &s->n_views));
    s->makes_views = strcmp(s->views->maker, "backend") == 0 ||
                     (strcmp(s->views->maker, "auto") == 0 && s->clip->frames == 0 &&
                      hirl_backend_allocator_view(s->backend)->space == HIRL_SPACE_DEVICE);
    return HIRL_OK;
}

// Collective. The rank table says what was opened.
static hirl_status_t connect_devices(hirl_session_t *s) {
    HIRL_TRY(hirl_world_claim_device(s->world, hirl_backend_device_id_view(s->backend),
                                     s->run->allow_gpu_sharing));
    void *stream = hirl_backend_stream_view(s->backend);
    // NCCL takes no two ranks on one device: their gradients go through host memory.
    if (!stream || hirl_world_size(s->world) == 1 || s->run->allow_gpu_sharing) return HIRL_OK;
    HIRL_TRY(hirl_par_agree(s->world, hirl_par_device_create(s->world, stream, &s->device)));
    hirl_tape_set_device(s->tape, s->device);
    return HIRL_OK;
}

// Collective; all ranks get the same outcome.
static hirl_status_t open_data(hirl_session_t *s) {
    HIRL_REQUIRE(s->data->train[0], HIRL_ERR_DECK,
                 "data%%train: shards of the training set are needed");
    HIRL_TRY(hirl_shard_set_open(s->world, s->data->train, s->data, &s->train));
    if (!s->data->val[0]) return HIRL_OK;
    HIRL_TRY(hirl_shard_set_open(s->world, s->data->val, s->data, &s->val));
    return hirl_shard_set_check_classes(s->train, s->val);
}

static hirl_status_t open_method(hirl_session_t *s, int in_channels, int64_t n_samples) {
    int64_t parts = hirl_world_size(s->world) * s->optim->accumulate;
    HIRL_REQUIRE(
        s->optim->batch % parts == 0, HIRL_ERR_DECK,
        "optim%%batch = %lld: must be a multiple of ranks x optim%%accumulate = %d x %lld = %lld",
        (long long)s->optim->batch, hirl_world_size(s->world), (long long)s->optim->accumulate,
        (long long)parts);
    hirl_method_ctx_t ctx = {.tape = s->tape,
                             .world = s->world,
                             .deck = s->deck,
                             .seed = (uint64_t)s->run->seed,
                             .in_channels = in_channels,
                             .n_views = s->n_views,
                             .batch = s->optim->batch,
                             .accumulate = (int)s->optim->accumulate,
                             .n_samples = n_samples,
                             .dtype = dtype_of(s->run)};
    HIRL_TRY(hirl_method_create(s->run->method, s->run->hierarchy, &ctx, &s->method));
    s->n_registries = s->method.ops->registries(s->method.self, s->registry);
    while (s->n_trainable < s->n_registries &&
           hirl_registry_is_trainable(s->registry[s->n_trainable]))
        ++s->n_trainable;
    return hirl_optimizer_create(s->optim, s->backend, s->registry, s->n_trainable, &s->optimizer);
}

static hirl_status_t session_open(hirl_session_t *s, int in_channels, int64_t n_samples) {
    HIRL_TRY(hirl_par_agree(s->world, open_backend(s)));
    HIRL_TRY(connect_devices(s));
    if (in_channels <= 0) {
        HIRL_TRY(open_data(s));
        in_channels = hirl_shard_set_channels(s->train);
        n_samples = hirl_shard_set_n_samples(s->train);
    }
    return hirl_par_agree(s->world, open_method(s, in_channels, n_samples));
}

hirl_status_t hirl_session_create(hirl_world_t *world, const hirl_deck_t *deck, int in_channels,
                                  int64_t n_samples, hirl_session_t **session_p) {
    hirl_session_t *s = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &s));
    s->world = world;
    s->deck = deck;
    s->run = hirl_deck_group_view(deck, "run");
    s->data = hirl_deck_group_view(deck, "data");
    s->views = hirl_deck_group_view(deck, "views");
    s->optim = hirl_deck_group_view(deck, "optim");
    s->schedule = hirl_deck_group_view(deck, "schedule");
    s->ckpt = hirl_deck_group_view(deck, "checkpoint");
    s->knn = hirl_deck_group_view(deck, "knn");
    s->clip = hirl_deck_group_view(deck, "clip");
    hirl_status_t status = session_open(s, in_channels, n_samples);
    if (status != HIRL_OK) {
        hirl_session_destroy(&s);
        return status;
    }
    *session_p = s;
    return HIRL_OK;
}

void hirl_session_destroy(hirl_session_t **session) {
    if (!session || !*session) return;
    hirl_session_t *s = *session;
    hirl_ckpt_writer_destroy(&s->writer);
    graphs_destroy(&s->graphs); // before the communicators that they use
    input_destroy(&s->input);
    hirl_tensor_reset(&s->scalars);
    hirl_loss_scale_reset(&s->loss_scale);
    hirl_optimizer_destroy(&s->optimizer);
    hirl_method_destroy(&s->method);
    hirl_shard_set_close(&s->train);
    hirl_shard_set_close(&s->val);
    hirl_tape_destroy(&s->tape);
    hirl_par_device_destroy(&s->device);
    hirl_backend_destroy(&s->backend);
    hirl_mem_free(s);
    *session = NULL;
}

hirl_eval_ctx_t hirl_session_eval_ctx(const hirl_session_t *s) {
    int64_t batch = s->optim->batch / hirl_world_size(s->world);
    return (hirl_eval_ctx_t){.world = s->world,
                             .tape = s->tape,
                             .method = &s->method,
                             .data = s->data,
                             .views = s->views,
                             .clip = hirl_clip_spec_of(s->clip),
                             .batch = batch < 512 ? batch : 512};
}

// ---------------------------------------------------------------------------------------------- deck

static const hirl_key_t run_keys[] = {
    HIRL_ROW_TEXT(hirl_run_cfg_t, task, "'pretrain'",
                  "pack|pretrain|knn|probe|inspect|bench_input|preview", "What to do."),
    HIRL_ROW_TEXT(hirl_run_cfg_t, base, "''", NULL,
                  "Deck to start from, relative to this one; this deck's keys then override it."),
    HIRL_ROW_TEXT(hirl_run_cfg_t, method, "'mocov2'", NULL,
                  "Pre-training method; hirl.x --help lists them."),
    HIRL_ROW_TEXT(hirl_run_cfg_t, hierarchy, "'none'", "none|hirl", "Hierarchy around the method."),
    HIRL_ROW_TEXT(
        hirl_run_cfg_t, device, "'auto'", "auto|cpu|cuda|ref",
        "Backend: auto takes a GPU where the build and the machine have one; ref is the slow "
        "reference."),
    HIRL_ROW_TEXT(hirl_run_cfg_t, precision, "'f32'", "f32|bf16|f16",
                  "Images and activations of the encoder; weights, statistics, heads and losses "
                  "are f32 always. f16 (not on CPUs) trains with scaled losses."),
    HIRL_ROW_REAL(hirl_run_cfg_t, loss_scale, "65536", 1, 16777216, "",
                  "With precision f16: losses are multiplied by this before the backward pass, and "
                  "gradients divided after it. Halves at a step whose gradients are not finite, "
                  "which is left out and is no failure while this is above 1."),
    HIRL_ROW_INT(hirl_run_cfg_t, loss_scale_steps, "2000", 1, 1e12, "steps",
                 "The loss scale doubles after so many steps in a row with finite gradients."),
    HIRL_ROW_TEXT(hirl_run_cfg_t, output, "'run'", NULL,
                  "Folder of the run: decks, logs, report, checkpoints."),
    HIRL_ROW_TEXT(hirl_run_cfg_t, log_level, "'info'", "error|warn|info|debug|trace",
                  "What is logged."),
    HIRL_ROW_INT(hirl_run_cfg_t, seed, "0", 0, 9007199254740992.0, "",
                 "Seed of everything random."),
    HIRL_ROW_INT(hirl_run_cfg_t, threads, "0", 0, 4096, "threads",
                 "Compute threads per rank; 0: the rank's share of the CPUs it may use."),
    HIRL_ROW_BOOL(
        hirl_run_cfg_t, deterministic, ".true.",
        "On GPUs: only algorithms that give the same bits every time; needed for restarts "
        "that repeat a run's bits. Otherwise the fastest, timed when a shape is first met. On "
        "CPUs all do."),
    HIRL_ROW_BOOL(hirl_run_cfg_t, tf32, ".false.",
                  "On GPUs: products of f32 numbers may round them to TF32 (10 bits of mantissa)."),
    HIRL_ROW_BOOL(
        hirl_run_cfg_t, graph, ".true.",
        "On GPUs: record the forward and backward pass of a step, and launch it as one (a "
        "CUDA graph) instead of operation by operation, with the same bits. It takes "
        "memory of its own. Where it cannot be done, the log says why."),
    HIRL_ROW_BOOL(
        hirl_run_cfg_t, allow_gpu_sharing, ".false.",
        "Let ranks of a node share a GPU. NCCL does not: gradients then go through the host's "
        "memory and MPI, without overlap."),
    HIRL_ROW_INT(hirl_run_cfg_t, log_every, "10", 1, 1e9, "steps",
                 "Steps between lines of metrics.jsonl and points of TensorBoard's scalars."),
    HIRL_ROW_INT(hirl_run_cfg_t, max_steps, "0", 0, 1e15, "steps",
                 "Stop, with a checkpoint, when this many optimiser steps are done since the start "
                 "of the training; 0: no limit."),
    HIRL_ROW_REAL(hirl_run_cfg_t, timeout, "600", 0, 1e9, "s",
                  "A rank that dies, stops, or keeps the others waiting ends the job within this "
                  "time, with a message that names it; more than the longest time that one rank "
                  "works alone. 0: never."),
    HIRL_ROW_INT(
        hirl_run_cfg_t, max_skips, "3", 0, 1e9, "steps",
        "Steps in a row that are passed over because a loss or the gradient is not finite; "
        "one more, and the state goes back to the newest checkpoint."),
    HIRL_ROW_INT(hirl_run_cfg_t, max_rollbacks, "2", 0, 1e9, "",
                 "Times that the state may go back to a checkpoint before the run ends with an "
                 "error; the batches between stay unused."),
};

const hirl_group_t hirl_run_group = {"run", "The task and its surroundings.", run_keys,
                                     sizeof run_keys / sizeof *run_keys, sizeof(hirl_run_cfg_t)};
