// MoCo v2 (Chen, Fan, Girshick, He 2020, "Improved baselines with momentum contrastive learning"; He et al. 2020 for queue, momentum encoder and
// shuffled batch norm). Loss: InfoNCE of a query against its key and a queue of earlier keys. Further views are local crops, queries against the same key.
// The shuffle is over the global micro-batch and drawn from (seed, step), so that results do not depend on the number of ranks. It moves images, and
// which go where is the host's to know: that is done before the forward pass, whose own work is then the same in each step.

#include <math.h>
#include <string.h>

#include "hirl/optim.h"
#include "ssl_impl.h"

typedef struct mocov2_cfg {
    int64_t dim, hidden_dim, queue;
    double momentum, temperature;
    bool shuffle;
    char local_weight[HIRL_DECK_TEXT_MAX];
} mocov2_cfg_t;

typedef struct encoder {
    hirl_registry_t *registry;
    hirl_resnet_t *backbone;
    hirl_mlp_t *head;
} encoder_t;

typedef struct mocov2 {
    hirl_method_ctx_t ctx;
    mocov2_cfg_t cfg;
    int64_t bn_group;
    encoder_t query, key;
    hirl_tensor_t queue; // f32 [K, D], rows of unit norm
    int64_t queue_pointer;
    int64_t n, n_global; // samples of a micro-batch, of this rank and of all
    int64_t generation;
    // In the backend's memory, and always at the same place:
    hirl_tensor_t zeros;        // i32 [n]: the key's column among the logits
    hirl_tensor_t pack, unpack; // i32 [n]: see route_t
    hirl_tensor_t shuffled;     // f32: view 1 of this rank's positions of the shuffled micro-batch
    hirl_tensor_t
        place; // i32 [n_global]: position of each row of the micro-batch among the shuffled
    hirl_tensor_t gathered; // f32 [n_global, D]: all ranks' keys of the micro-batch, as shuffled
    // f32 [batch, D]: keys of the step, one micro-batch after the other, each in order of its rows; entered into the queue after the update
    hirl_tensor_t new_keys;
    hirl_tensor_t order; // i32 [batch]: the row of new_keys that each row of the global batch has
} mocov2_t;

// ---------------------------------------------------------------------------------------------- creation

// Trained from drawn values, or the average that follows another and begins with its values.
static hirl_status_t encoder_create(mocov2_t *m, const char *prefix, const encoder_t *follows,
                                    encoder_t *encoder) {
    const hirl_model_cfg_t *model = hirl_deck_group_view(m->ctx.deck, "model");
    char head[HIRL_NAME_MAX];
    HIRL_TRY(hirl_text_format(head, sizeof head, "%sfc.", prefix));
    HIRL_TRY(hirl_registry_create(m->ctx.tape, &encoder->registry));
    HIRL_TRY(hirl_resnet_create(encoder->registry, prefix, model, m->ctx.in_channels,
                                &encoder->backbone));
    int dim = hirl_resnet_feature_dim(encoder->backbone);
    hirl_mlp_spec_t spec = {.in_dim = dim,
                            .hidden_dim = m->cfg.hidden_dim > 0 ? (int)m->cfg.hidden_dim : dim,
                            .out_dim = (int)m->cfg.dim,
                            .n_layers = 2,
                            .has_bn = false};
    HIRL_TRY(hirl_mlp_create(encoder->registry, head, &spec, &encoder->head));
    return follows ? hirl_registry_finalize_copy(encoder->registry, follows->registry)
                   : hirl_registry_finalize(encoder->registry, m->ctx.seed, true);
}

static void encoder_destroy(encoder_t *encoder) {
    hirl_mlp_destroy(&encoder->head);
    hirl_resnet_destroy(&encoder->backbone);
    hirl_registry_destroy(&encoder->registry);
}

// Queue of random unit vectors, row by row from (seed, row).
static hirl_status_t queue_create(mocov2_t *m) {
    hirl_backend_t *be = hirl_tape_backend_view(m->ctx.tape);
    int64_t k = m->cfg.queue, d = m->cfg.dim;
    float *host = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, k * d, &host));
    for (int64_t i = 0; i < k; ++i) {
        hirl_rng_t rng = hirl_rng_make(m->ctx.seed, HIRL_RNG_QUEUE, 0, (uint64_t)i, 0);
        double sum = 0;
        hirl_rng_normals(&rng, 0, d, 1.0, host + i * d);
        for (int64_t j = 0; j < d; ++j) sum += (double)host[i * d + j] * host[i * d + j];
        for (int64_t j = 0; j < d; ++j) host[i * d + j] = (float)(host[i * d + j] / sqrt(sum));
    }
    hirl_status_t status = hirl_backend_tensor(be, hirl_shape_2(k, d), HIRL_F32, &m->queue);
    if (status == HIRL_OK) status = hirl_backend_upload(be, host, &m->queue);
    hirl_mem_free(host);
    return status;
}

// What a step works in, and what of it is the same in every step.
static hirl_status_t places_create(mocov2_t *m) {
    hirl_backend_t *be = hirl_tape_backend_view(m->ctx.tape);
    const int64_t batch = m->ctx.batch, d = m->cfg.dim, n = m->n;
    const int64_t size = hirl_world_size(m->ctx.world), n_micro = m->ctx.accumulate;
    int32_t *host = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(n), HIRL_I32, &m->zeros));
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(n), HIRL_I32, &m->pack));
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(n), HIRL_I32, &m->unpack));
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(m->n_global), HIRL_I32, &m->place));
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_2(m->n_global, d), HIRL_F32, &m->gathered));
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_2(batch, d), HIRL_F32, &m->new_keys));
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(batch), HIRL_I32, &m->order));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, batch, &host));
    HIRL_TRY_GOTO(hirl_backend_upload(be, host, &m->zeros), status, done);
    for (int64_t r = 0; r < size; ++r)
        for (int64_t micro = 0; micro < n_micro; ++micro)
            for (int64_t i = 0; i < n; ++i)
                host[(r * n_micro + micro) * n + i] = (int32_t)((micro * size + r) * n + i);
    status = hirl_backend_upload(be, host, &m->order);
done:
    hirl_mem_free(host);
    return status;
}

static void mocov2_destroy(void **self) {
    if (!self || !*self) return;
    mocov2_t *m = *self;
    hirl_tensor_t *const all[] = {&m->queue, &m->zeros,    &m->pack,     &m->unpack, &m->shuffled,
                                  &m->place, &m->gathered, &m->new_keys, &m->order};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) hirl_tensor_reset(all[i]);
    encoder_destroy(&m->query);
    encoder_destroy(&m->key);
    hirl_mem_free(m);
    *self = NULL;
}

// What hirl%train_emb may name.
static const char *const mocov2_embeddings[] = {"cnn", NULL};

static hirl_status_t mocov2_check(const hirl_deck_t *deck) {
    const mocov2_cfg_t *cfg = hirl_deck_group_view(deck, "mocov2");
    const hirl_optim_cfg_t *optim = hirl_deck_group_view(deck, "optim");
    HIRL_REQUIRE(cfg->queue % optim->batch == 0, HIRL_ERR_DECK,
                 "mocov2%%queue = %lld: must be a multiple of optim%%batch = %lld",
                 (long long)cfg->queue, (long long)optim->batch);
    return HIRL_OK;
}

static hirl_status_t mocov2_create(const hirl_method_ctx_t *ctx, void **self_p) {
    mocov2_t *m = NULL;
    void *self;
    hirl_status_t status = HIRL_OK;
    const mocov2_cfg_t *cfg = hirl_deck_group_view(ctx->deck, "mocov2");
    const hirl_model_cfg_t *model = hirl_deck_group_view(ctx->deck, "model");
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &m));
    self = m;
    m->ctx = *ctx;
    m->cfg = *cfg;
    m->bn_group = model->bn_group;
    m->n_global = ctx->batch / ctx->accumulate;
    m->n = m->n_global / hirl_world_size(ctx->world);
    HIRL_TRY_GOTO(encoder_create(m, "encoder_q.", NULL, &m->query), status, err);
    HIRL_TRY_GOTO(encoder_create(m, "encoder_k.", &m->query, &m->key), status, err);
    HIRL_TRY_GOTO(queue_create(m), status, err);
    HIRL_TRY_GOTO(places_create(m), status, err);
    *self_p = m;
    return HIRL_OK;
err:
    mocov2_destroy(&self);
    return status;
}

static int mocov2_registries(void *self, hirl_registry_t *out[HIRL_MAX_REGISTRIES]) {
    mocov2_t *m = self;
    out[0] = m->query.registry;
    out[1] = m->key.registry;
    return 2;
}

static int mocov2_embed_dim(void *self, hirl_embed_kind_t kind) {
    mocov2_t *m = self;
    return kind == HIRL_EMBED_FEATURE ? hirl_resnet_feature_dim(m->query.backbone)
                                      : (int)m->cfg.dim;
}

// Query: forward and twice that backward; key: forward.
static double mocov2_step_flops(void *self, const hirl_batch_t *batch) {
    mocov2_t *m = self;
    double flops = 0;
    for (int v = 0; v < batch->n_views; ++v)
        flops += (v == 1 ? 1.0 : 3.0) *
                 hirl_resnet_flops(m->query.backbone, batch->size[v], batch->width[v]);
    return flops;
}

// ---------------------------------------------------------------------------------------------- keys

// `step` is NULL outside training.
static hirl_forward_t forward_context(const mocov2_t *m, const hirl_step_t *step) {
    return (hirl_forward_t){.tape = m->ctx.tape,
                            .is_training = step != NULL,
                            .bn_group = m->bn_group,
                            .dtype = m->ctx.dtype,
                            .micro = step ? step->micro : 0,
                            .n_micro = step ? step->n_micro : 0};
}

static hirl_status_t encode(const mocov2_t *m, const encoder_t *encoder, const hirl_forward_t *fw,
                            hirl_var_t *x, hirl_var_t **y_p) {
    (void)m;
    hirl_var_t *features = NULL;
    HIRL_TRY(hirl_resnet_forward(encoder->backbone, fw, x, &features));
    hirl_status_t status = hirl_mlp_forward(encoder->head, fw, features, y_p);
    hirl_var_release(&features);
    return status;
}

// The samples that this rank encodes: position p of the shuffled micro-batch holds row shuffle[p] of it.
typedef struct shuffle {
    int64_t n, n_global;
    hirl_permutation_t permutation;
    const int64_t *given; // or NULL
} shuffle_t;

// Within one group for the whole batch the order does not matter.
static bool is_shuffling(const mocov2_t *m) {
    return m->cfg.shuffle && m->bn_group != 0 && m->bn_group < m->n_global;
}

static int64_t shuffle_at(const shuffle_t *s, int64_t position) {
    return s->given ? s->given[position] : hirl_permutation_at(&s->permutation, position);
}

static shuffle_t shuffle_make(const mocov2_t *m, const hirl_step_t *step) {
    uint64_t id = (uint64_t)(step->step * step->n_micro + step->micro);
    return (shuffle_t){.n = m->n,
                       .n_global = m->n_global,
                       .permutation =
                           hirl_permutation_make(m->ctx.seed, HIRL_RNG_SHUFFLE, id, m->n_global),
                       .given = step->draws ? step->draws->shuffle : NULL};
}

// How rows travel to their places: this rank's in the order pack[n] of their new positions; those that came, by sender, are put in order
// by unpack[n]. Rows to and from each rank.
typedef struct route {
    int32_t *pack, *unpack;
    int64_t *sent, *received; // [size]
} route_t;

static void route_reset(route_t *route) {
    hirl_mem_free(route->pack);
    hirl_mem_free(route->sent);
    *route = (route_t){0};
}

static hirl_status_t route_make(const mocov2_t *m, const shuffle_t *s, route_t *route) {
    int size = hirl_world_size(m->ctx.world), rank = hirl_world_rank(m->ctx.world);
    int64_t *next = NULL, n_packed = 0;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, 2 * s->n, &route->pack), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, 3 * size, &route->sent), status, err);
    route->unpack = route->pack + s->n;
    route->received = route->sent + size;
    next = route->sent + 2 * size;
    for (int64_t p = 0; p < s->n_global; ++p) {
        int64_t source = shuffle_at(s, p);
        if (source / s->n == rank) {
            route->pack[n_packed++] = (int32_t)(source - rank * s->n);
            ++route->sent[p / s->n];
        }
        if (p / s->n == rank) ++route->received[source / s->n];
    }
    for (int r = 1; r < size; ++r) next[r] = next[r - 1] + route->received[r - 1];
    for (int64_t i = 0; i < s->n; ++i)
        route->unpack[i] = (int32_t)next[shuffle_at(s, rank * s->n + i) / s->n]++;
    return HIRL_OK;
err:
    route_reset(route);
    return status;
}

static void rows_copy(const float *in, const int32_t *index, int64_t n, int64_t row, float *out) {
    for (int64_t i = 0; i < n; ++i)
        memcpy(out + i * row, in + index[i] * row, (size_t)row * sizeof *out);
}

static void rows_to_floats(const mocov2_t *m, route_t *route, int64_t row) {
    for (int r = 0; r < hirl_world_size(m->ctx.world); ++r) {
        route->sent[r] *= row;
        route->received[r] *= row;
    }
}

// Sends rows [n, row] of all ranks to their places in the shuffled order.
static hirl_status_t shuffle_rows(const mocov2_t *m, const shuffle_t *s, const float *in,
                                  int64_t row, float *out) {
    float *packed = NULL, *received = NULL;
    route_t route = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(route_make(m, s, &route), status, done);
    if (hirl_world_size(m->ctx.world) == 1) {
        // in order of the receiving positions already
        rows_copy(in, route.pack, s->n, row, out);
        goto done;
    }
    HIRL_TRY_GOTO(
        hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)(s->n * row) * sizeof *packed, (void **)&packed),
        status, done);
    HIRL_TRY_GOTO(hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)(s->n * row) * sizeof *received,
                                 (void **)&received),
                  status, done);
    rows_to_floats(m, &route, row);
    rows_copy(in, route.pack, s->n, row, packed);
    HIRL_TRY_GOTO(hirl_par_all_to_all_v(m->ctx.world, packed, route.sent, received, route.received,
                                        HIRL_PAR_F32),
                  status, done);
    rows_copy(received, route.unpack, s->n, row, out);
done:
    hirl_mem_free(packed);
    hirl_mem_free(received);
    route_reset(&route);
    return status;
}

// The same from device to device.
static hirl_status_t shuffle_on_device(mocov2_t *m, const shuffle_t *s, const hirl_tensor_t *in) {
    hirl_backend_t *be = hirl_tape_backend_view(m->ctx.tape);
    hirl_tensor_t packed = {0}, received = {0};
    route_t route = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(route_make(m, s, &route));
    HIRL_TRY_GOTO(hirl_backend_upload(be, route.pack, &m->pack), status, done);
    if (hirl_world_size(m->ctx.world) == 1) {
        // in order of the receiving positions already
        status = hirl_op_gather_rows(be, in, &m->pack, &m->shuffled);
        goto done;
    }
    HIRL_TRY_GOTO(hirl_backend_upload(be, route.unpack, &m->unpack), status, done);
    HIRL_TRY_GOTO(hirl_op_gather_rows(be, in, &m->pack, &packed), status, done);
    rows_to_floats(m, &route, hirl_tensor_count(in) / s->n);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, in->shape, HIRL_F32, &received), status, done);
    HIRL_TRY_GOTO(hirl_par_device_all_to_all_v(hirl_tape_device_view(m->ctx.tape),
                                               hirl_tensor_f32(&packed), route.sent,
                                               hirl_tensor_f32(&received), route.received),
                  status, done);
    status = hirl_op_gather_rows(be, &received, &m->unpack, &m->shuffled);
done:
    hirl_tensor_reset(&packed);
    hirl_tensor_reset(&received);
    route_reset(&route);
    return status;
}

// The same from views that may lie in the backend's memory, by way of the host.
static hirl_status_t shuffle_by_host(mocov2_t *m, const shuffle_t *s, const hirl_step_t *step) {
    hirl_backend_t *be = hirl_tape_backend_view(m->ctx.tape);
    int64_t count = hirl_tensor_count(&m->shuffled), row = count / step->n;
    bool is_host = hirl_backend_allocator_view(be)->space == HIRL_SPACE_HOST;
    float *images = NULL, *shuffled = NULL;
    hirl_status_t status = HIRL_OK;
    if (!is_host)
        HIRL_TRY_GOTO(
            hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)count * sizeof(float), (void **)&shuffled),
            status, done);
    if (step->view) {
        HIRL_TRY_GOTO(
            hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)count * sizeof(float), (void **)&images),
            status, done);
        HIRL_TRY_GOTO(hirl_backend_download(be, &step->view[1], images), status, done);
    }
    HIRL_TRY_GOTO(shuffle_rows(m, s, images ? images : step->batch->view[1] + step->first * row,
                               row, is_host ? hirl_tensor_f32(&m->shuffled) : shuffled),
                  status, done);
    if (!is_host) status = hirl_backend_upload(be, shuffled, &m->shuffled);
done:
    hirl_mem_free(images);
    hirl_mem_free(shuffled);
    return status;
}

// View 1 of this rank's positions in the shuffled order goes to m->shuffled.
static hirl_status_t keys_shuffle(mocov2_t *m, const hirl_step_t *step, const shuffle_t *shuffle) {
    hirl_tape_t *tape = m->ctx.tape;
    hirl_shape_t shape = hirl_step_shape(step, 1);
    if (!hirl_tensor_is_set(&m->shuffled) || !hirl_shape_equal(&m->shuffled.shape, &shape)) {
        hirl_tensor_reset(&m->shuffled);
        ++m->generation;
        HIRL_TRY(hirl_backend_tensor(hirl_tape_backend_view(tape), shape, HIRL_F32, &m->shuffled));
    }
    bool stays = step->view && (hirl_world_size(m->ctx.world) == 1 || hirl_tape_device_view(tape));
    return stays ? shuffle_on_device(m, shuffle, &step->view[1])
                 : shuffle_by_host(m, shuffle, step);
}

static hirl_status_t mocov2_before_forward(void *self, const hirl_step_t *step) {
    mocov2_t *m = self;
    shuffle_t shuffle = shuffle_make(m, step);
    int32_t *place = NULL;
    HIRL_REQUIRE(step->n == m->n, HIRL_ERR_INTERNAL,
                 "mocov2: a micro-batch of %lld samples, expected %lld", (long long)step->n,
                 (long long)m->n);
    if (!is_shuffling(m)) return HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, m->n_global, &place));
    for (int64_t p = 0; p < m->n_global; ++p) place[shuffle_at(&shuffle, p)] = (int32_t)p;
    hirl_status_t status =
        hirl_backend_upload(hirl_tape_backend_view(m->ctx.tape), place, &m->place);
    hirl_mem_free(place);
    HIRL_TRY(status);
    return keys_shuffle(m, step, &shuffle);
}

// Keys of all ranks in order of the micro-batch's rows, [n_global, D], from this rank's k [n, D] of the shuffled ones.
static hirl_status_t keys_gather(mocov2_t *m, const hirl_tensor_t *k, hirl_tensor_t *all) {
    hirl_tape_t *tape = m->ctx.tape;
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    bool is_alone = hirl_world_size(m->ctx.world) == 1;
    if (!is_shuffling(m))
        return is_alone ? hirl_op_to_plain(be, k, HIRL_F32, all)
                        : hirl_tape_all_gather(tape, k, all);
    if (is_alone) return hirl_op_gather_rows(be, k, &m->place, all);
    HIRL_TRY(hirl_tape_all_gather(tape, k, &m->gathered));
    return hirl_op_gather_rows(be, &m->gathered, &m->place, all);
}

// k = nrm(f_k(view 1)) of this rank's rows, by way of the shuffled order; all ranks' keys go to new_keys.
static hirl_status_t keys_encode(mocov2_t *m, const hirl_step_t *step, hirl_tensor_t *keys) {
    hirl_tape_t *tape = m->ctx.tape;
    hirl_forward_t fw = forward_context(m, step);
    hirl_var_t *x = NULL, *z = NULL, *k = NULL;
    hirl_tensor_t all = {0};
    hirl_status_t status = HIRL_OK;
    hirl_tape_begin_no_grad(tape);
    HIRL_TRY_GOTO(is_shuffling(m) ? hirl_var_create(tape, &m->shuffled, &x)
                                  : hirl_step_input(tape, step, 1, &x),
                  status, done);
    // Where a batch lies in host memory its place is free for the query's activations.
    if (hirl_backend_allocator_view(hirl_tape_backend_view(tape))->space == HIRL_SPACE_HOST)
        hirl_tensor_reset(&m->shuffled);
    HIRL_TRY_GOTO(encode(m, &m->key, &fw, x, &z), status, done);
    HIRL_TRY_GOTO(hirl_tape_l2_normalize(tape, z, &k), status, done);
    HIRL_TRY_GOTO(hirl_tensor_rows(&m->new_keys, step->micro * m->n_global, m->n_global, &all),
                  status, done);
    HIRL_TRY_GOTO(keys_gather(m, hirl_var_value_view(k), &all), status, done);
    status = hirl_tensor_rows(&all, hirl_world_rank(m->ctx.world) * m->n, m->n, keys);
done:
    hirl_tape_end_no_grad(tape);
    hirl_tensor_reset(&all);
    hirl_var_release(&x);
    hirl_var_release(&z);
    hirl_var_release(&k);
    return status;
}

// ---------------------------------------------------------------------------------------------- step

static hirl_status_t mocov2_before_step(void *self, int64_t step, double progress) {
    mocov2_t *m = self;
    (void)step;
    (void)progress;
    return hirl_registry_ema(m->query.registry, (float)m->cfg.momentum, m->key.registry);
}

// InfoNCE (He et al. 2020, eq. 1): cross entropy of [q k, q Q^T] / T with the key in column 0.
static hirl_status_t info_nce(mocov2_t *m, hirl_var_t *q, hirl_var_t *k, hirl_var_t **loss_p,
                              hirl_tensor_t *correct_p) {
    hirl_tape_t *tape = m->ctx.tape;
    hirl_var_t *positive = NULL, *negative = NULL, *logits = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_tape_row_dot(tape, q, k, &positive), status, done);
    HIRL_TRY_GOTO(hirl_tape_matmul_const(tape, q, &m->queue, &negative), status, done);
    HIRL_TRY_GOTO(hirl_tape_concat_columns(tape, positive, negative, &logits), status, done);
    hirl_var_release(&negative);
    status = hirl_tape_cross_entropy(tape, logits, (float)(1.0 / m->cfg.temperature), &m->zeros,
                                     loss_p, correct_p);
done:
    hirl_var_release(&positive);
    hirl_var_release(&negative);
    hirl_var_release(&logits);
    return status;
}

// Encodes view v with the query encoder; adds its loss under `name`, and for view 0 the embeddings.
static hirl_status_t query_term(mocov2_t *m, const hirl_step_t *step, int v, float weight,
                                hirl_var_t *k, hirl_terms_t *terms) {
    hirl_tape_t *tape = m->ctx.tape;
    hirl_forward_t fw = forward_context(m, step);
    hirl_var_t *x = NULL, *z = NULL, *q = NULL, *loss = NULL;
    hirl_tensor_t correct = {0};
    char name[HIRL_TERM_NAME_MAX] = "moco";
    hirl_status_t status = HIRL_OK;
    if (v > 0) HIRL_TRY(hirl_text_format(name, sizeof name, "moco_local%d", v - 2));
    HIRL_TRY_GOTO(hirl_step_input(tape, step, v, &x), status, done);
    HIRL_TRY_GOTO(encode(m, &m->query, &fw, x, &z), status, done);
    HIRL_TRY_GOTO(hirl_tape_l2_normalize(tape, z, &q), status, done);
    HIRL_TRY_GOTO(info_nce(m, q, k, &loss, v == 0 ? &correct : NULL), status, done);
    HIRL_TRY_GOTO(hirl_terms_add_loss(terms, name, weight, loss), status, done);
    if (v == 0) {
        HIRL_TRY_GOTO(hirl_terms_add_metric(terms, "moco_accuracy", &correct), status, done);
        HIRL_TRY_GOTO(hirl_terms_add_embedding(terms, "cnn", hirl_var_retain(z)), status, done);
        HIRL_TRY_GOTO(hirl_terms_add_embedding(terms, "q", hirl_var_retain(q)), status, done);
        HIRL_TRY_GOTO(hirl_terms_add_embedding(terms, "k", hirl_var_retain(k)), status, done);
    }
done:
    hirl_var_release(&x);
    hirl_var_release(&z);
    hirl_var_release(&q);
    return status;
}

// Keys first: what the key encoder needs is free again before the query's activations are kept.
static hirl_status_t mocov2_forward(void *self, const hirl_step_t *step, hirl_terms_t *terms) {
    mocov2_t *m = self;
    hirl_tensor_t keys = {0};
    hirl_var_t *k = NULL;
    int n_local = step->batch->n_views - 2;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(keys_encode(m, step, &keys), status, done);
    HIRL_TRY_GOTO(hirl_var_create(m->ctx.tape, &keys, &k), status, done);
    HIRL_TRY_GOTO(query_term(m, step, 0, 1.0f, k, terms), status, done);
    float weight =
        strcmp(m->cfg.local_weight, "sum") == 0 ? 1.0f : 1.0f / (float)(n_local > 0 ? n_local : 1);
    for (int v = 2; v < step->batch->n_views; ++v)
        HIRL_TRY_GOTO(query_term(m, step, v, weight, k, terms), status, done);
done:
    hirl_tensor_reset(&keys);
    hirl_var_release(&k);
    return status;
}

static int64_t mocov2_generation(void *self) { return ((const mocov2_t *)self)->generation; }

static hirl_status_t mocov2_after_step(void *self, int64_t step) {
    mocov2_t *m = self;
    hirl_tensor_t rows = {0};
    (void)step;
    HIRL_TRY(hirl_tensor_rows(&m->queue, m->queue_pointer, m->ctx.batch, &rows));
    hirl_status_t status =
        hirl_op_gather_rows(hirl_tape_backend_view(m->ctx.tape), &m->new_keys, &m->order, &rows);
    hirl_tensor_reset(&rows);
    m->queue_pointer = (m->queue_pointer + m->ctx.batch) % m->cfg.queue;
    return status;
}

static hirl_status_t mocov2_embed(void *self, hirl_embed_kind_t kind, hirl_var_t *x,
                                  hirl_var_t **y_p) {
    mocov2_t *m = self;
    hirl_forward_t fw = forward_context(m, NULL);
    hirl_tape_begin_no_grad(m->ctx.tape);
    hirl_status_t status = kind == HIRL_EMBED_FEATURE
                               ? hirl_resnet_forward(m->query.backbone, &fw, x, y_p)
                               : encode(m, &m->key, &fw, x, y_p);
    hirl_tape_end_no_grad(m->ctx.tape);
    return status;
}

static hirl_status_t mocov2_state(void *self, hirl_state_t *state) {
    mocov2_t *m = self;
    HIRL_TRY(state->visit_tensor(state->ctx, "/method/queue", &m->queue));
    HIRL_TRY(state->visit(state->ctx, "/method/queue_pointer", HIRL_CKPT_I64, 0, NULL,
                          &m->queue_pointer));
    HIRL_REQUIRE(m->queue_pointer >= 0 && m->queue_pointer < m->cfg.queue &&
                     m->queue_pointer % m->ctx.batch == 0,
                 HIRL_ERR_MISMATCH,
                 "/method/queue_pointer = %lld: expected a multiple of optim%%batch = %lld below "
                 "mocov2%%queue = %lld",
                 (long long)m->queue_pointer, (long long)m->ctx.batch, (long long)m->cfg.queue);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- tables

static const hirl_key_t mocov2_keys[] = {
    HIRL_ROW_INT(mocov2_cfg_t, dim, "128", 1, 65536, "", "Dimension of queries and keys."),
    HIRL_ROW_INT(mocov2_cfg_t, hidden_dim, "0", 0, 65536, "",
                 "Hidden width of the two-layer head; 0: the feature dimension."),
    HIRL_ROW_INT(mocov2_cfg_t, queue, "16384", 1, 1 << 26, "keys",
                 "Length of the queue of negatives, a multiple of optim%batch."),
    HIRL_ROW_REAL(mocov2_cfg_t, momentum, "0.999", 0, 1, "",
                  "Momentum of the key encoder's moving average."),
    HIRL_ROW_REAL(mocov2_cfg_t, temperature, "0.2", 1e-4, 1e4, "", "Temperature of the softmax."),
    HIRL_ROW_BOOL(mocov2_cfg_t, shuffle, ".true.",
                  "Encode keys in shuffled order, so that a query and its key never share batch "
                  "statistics of the same samples."),
    HIRL_ROW_TEXT(mocov2_cfg_t, local_weight, "'mean'", "sum|mean",
                  "Weight of the local crops' losses: each 1 (as published), or together 1."),
};

static const hirl_group_t mocov2_group = {"mocov2", "MoCo v2.", mocov2_keys,
                                          sizeof mocov2_keys / sizeof *mocov2_keys,
                                          sizeof(mocov2_cfg_t)};

const hirl_method_ops_t ssl_mocov2_ops = {
    .name = "mocov2",
    .help = "MoCo v2: contrast with a queue of keys from a momentum encoder (Chen et al. 2020).",
    .group = &mocov2_group,
    .min_views = 2,
    .embeddings = mocov2_embeddings,
    .check = mocov2_check,
    .create = mocov2_create,
    .destroy = mocov2_destroy,
    .registries = mocov2_registries,
    .embed_dim = mocov2_embed_dim,
    .step_flops = mocov2_step_flops,
    .before_step = mocov2_before_step,
    .before_forward = mocov2_before_forward,
    .forward = mocov2_forward,
    .generation = mocov2_generation,
    .after_step = mocov2_after_step,
    .embed = mocov2_embed,
    .state = mocov2_state,
};
