// HIRL (Xu et al. 2022, "HIRL: A general framework for hierarchical image representation learning"): a decorator for any method. It clusters the
// training set into a hierarchy at set epochs, gives each level a projection head, and adds the semantic path discrimination loss (eq. 3-5).
// Negative paths are drawn from (seed, step, position in the global batch), so that they do not depend on the number of ranks.

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ssl_impl.h"

typedef struct hirl {
    hirl_method_ctx_t ctx;
    hirl_hirl_cfg_t cfg;
    hirl_method_t inner;
    int n_levels;
    int dim;
    int64_t bn_group;
    hirl_registry_t *registry;
    hirl_mlp_t *projection[HIRL_MAX_LEVELS];
    hirl_hierarchy_t *hierarchy; // NULL before the first clustering
    hirl_tensor_t centroid[HIRL_MAX_LEVELS];
    hirl_tensor_t positive, negative; // i32 [n, L], [n, M, L]: paths of the micro-batch
    int64_t clustered_epoch;          // -1: never
    int64_t generation;
} hirl_t;

static void hirl_destroy(void **self) {
    if (!self || !*self) return;
    hirl_t *h = *self;
    for (int l = 0; l < HIRL_MAX_LEVELS; ++l) {
        hirl_mlp_destroy(&h->projection[l]);
        hirl_tensor_reset(&h->centroid[l]);
    }
    hirl_tensor_reset(&h->positive);
    hirl_tensor_reset(&h->negative);
    hirl_registry_destroy(&h->registry);
    hirl_hierarchy_destroy(&h->hierarchy);
    hirl_method_destroy(&h->inner);
    hirl_mem_free(h);
    *self = NULL;
}

static hirl_status_t check_levels(const hirl_hirl_cfg_t *cfg) {
    HIRL_REQUIRE(cfg->n_num_cluster >= 1 && cfg->n_num_cluster <= HIRL_MAX_LEVELS, HIRL_ERR_DECK,
                 "hirl%%num_cluster: 1 to %d levels, got %d", HIRL_MAX_LEVELS, cfg->n_num_cluster);
    for (int l = 1; l < cfg->n_num_cluster; ++l)
        HIRL_REQUIRE(cfg->num_cluster[l] <= cfg->num_cluster[l - 1], HIRL_ERR_DECK,
                     "hirl%%num_cluster(%d) = %lld: above the %lld of the finer level before it, "
                     "whose centroids it clusters",
                     l + 1, (long long)cfg->num_cluster[l], (long long)cfg->num_cluster[l - 1]);
    return HIRL_OK;
}

static bool has_embedding(const hirl_method_ops_t *ops, const char *name) {
    for (const char *const *e = ops->embeddings; e && *e; ++e)
        if (strcmp(*e, name) == 0) return true;
    return false;
}

hirl_status_t ssl_hirl_check(const hirl_deck_t *deck, const hirl_method_ops_t *inner) {
    const hirl_hirl_cfg_t *cfg = hirl_deck_group_view(deck, "hirl");
    HIRL_REQUIRE(has_embedding(inner, cfg->train_emb), HIRL_ERR_DECK,
                 "hirl%%train_emb = '%s': method %s has no such embedding; it has '%s'",
                 cfg->train_emb, inner->name,
                 inner->embeddings && inner->embeddings[0] ? inner->embeddings[0] : "");
    return check_levels(cfg);
}

static hirl_status_t check_samples(const hirl_hirl_cfg_t *cfg, int64_t n_samples) {
    HIRL_REQUIRE(n_samples <= 0 || cfg->num_cluster[0] <= n_samples, HIRL_ERR_DECK,
                 "hirl%%num_cluster(1) = %lld: the training set has only %lld samples to cluster",
                 (long long)cfg->num_cluster[0], (long long)n_samples);
    return HIRL_OK;
}

hirl_status_t ssl_hirl_create(const hirl_method_ctx_t *ctx, hirl_method_t *inner, void **self_p) {
    hirl_t *h = NULL;
    void *self;
    const hirl_model_cfg_t *model = hirl_deck_group_view(ctx->deck, "model");
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_PARAM, 1, &h);
    if (status != HIRL_OK) {
        hirl_method_destroy(inner);
        return status;
    }
    self = h;
    h->inner = *inner;
    h->ctx = *ctx;
    h->cfg = *(const hirl_hirl_cfg_t *)hirl_deck_group_view(ctx->deck, "hirl");
    h->n_levels = h->cfg.n_num_cluster;
    h->dim = inner->ops->embed_dim(inner->self, HIRL_EMBED_CLUSTER);
    h->bn_group = model->bn_group;
    h->clustered_epoch = -1;
    HIRL_TRY_GOTO(check_samples(&h->cfg, ctx->n_samples), status, err);
    HIRL_TRY_GOTO(hirl_registry_create(ctx->tape, &h->registry), status, err);
    hirl_registry_set_optional(h->registry);
    for (int l = 0; l < h->n_levels; ++l) {
        char prefix[HIRL_NAME_MAX];
        hirl_mlp_spec_t spec = {.in_dim = h->dim,
                                .hidden_dim = h->dim,
                                .out_dim = h->dim,
                                .n_layers = (int)h->cfg.num_mlp_layer,
                                .has_bn = true};
        HIRL_TRY_GOTO(hirl_text_format(prefix, sizeof prefix, "projection.%d.", l), status, err);
        HIRL_TRY_GOTO(hirl_mlp_create(h->registry, prefix, &spec, &h->projection[l]), status, err);
    }
    HIRL_TRY_GOTO(hirl_registry_finalize(h->registry, ctx->seed, true), status, err);
    *self_p = h;
    return HIRL_OK;
err:
    hirl_destroy(&self);
    return status;
}

static int hirl_registries(void *self, hirl_registry_t *out[HIRL_MAX_REGISTRIES]) {
    hirl_t *h = self;
    hirl_registry_t *inner[HIRL_MAX_REGISTRIES];
    int n = h->inner.ops->registries(h->inner.self, inner), n_out = 0;
    for (int i = 0; i < n; ++i)
        if (hirl_registry_is_trainable(inner[i])) out[n_out++] = inner[i];
    out[n_out++] = h->registry;
    for (int i = 0; i < n; ++i)
        if (!hirl_registry_is_trainable(inner[i])) out[n_out++] = inner[i];
    return n_out;
}

static int hirl_embed_dim(void *self, hirl_embed_kind_t kind) {
    hirl_t *h = self;
    return h->inner.ops->embed_dim(h->inner.self, kind);
}

static double hirl_step_flops(void *self, const hirl_batch_t *batch) {
    hirl_t *h = self;
    return h->inner.ops->step_flops(h->inner.self, batch);
}

// ---------------------------------------------------------------------------------------------- clustering

// To `tensor`, whose place stays as long as its shape does.
static hirl_status_t put(hirl_t *h, const void *host, hirl_shape_t shape, hirl_dtype_t dtype,
                         hirl_tensor_t *tensor) {
    hirl_backend_t *be = hirl_tape_backend_view(h->ctx.tape);
    if (!hirl_tensor_is_set(tensor) || !hirl_shape_equal(&tensor->shape, &shape)) {
        hirl_tensor_reset(tensor);
        ++h->generation;
        HIRL_TRY(hirl_backend_tensor(be, shape, dtype, tensor));
    }
    return hirl_backend_upload(be, host, tensor);
}

hirl_status_t ssl_hirl_upload(void *self) {
    hirl_t *h = self;
    HIRL_REQUIRE(
        h->hierarchy->n_levels == h->n_levels && h->hierarchy->d == h->dim, HIRL_ERR_MISMATCH,
        "clustering of %d levels and dimension %d; this run has %d levels and dimension %d",
        h->hierarchy->n_levels, h->hierarchy->d, h->n_levels, h->dim);
    for (int l = 0; l < h->n_levels; ++l)
        HIRL_TRY(put(h, h->hierarchy->centroid[l], hirl_shape_2(h->hierarchy->k[l], h->dim),
                     HIRL_F32, &h->centroid[l]));
    return HIRL_OK;
}

void ssl_hirl_set_hierarchy(void *self, hirl_hierarchy_t **hierarchy) {
    hirl_t *h = self;
    hirl_hierarchy_destroy(&h->hierarchy);
    h->hierarchy = *hierarchy;
    *hierarchy = NULL;
    h->clustered_epoch = 0;
}

static bool is_cluster_epoch(const hirl_t *h, int64_t epoch) {
    if ((double)epoch < h->cfg.cluster_warmup_epoch) return false;
    return h->clustered_epoch < 0 ||
           (double)(epoch - h->clustered_epoch) >= h->cfg.cluster_every_epochs;
}

// Adds to what the clustering found why it is so.
static hirl_status_t fail_features(int64_t epoch) {
    char found[512];
    snprintf(found, sizeof found, "%s", hirl_error_text_view());
    return HIRL_FAIL(
        HIRL_ERR_NUMERIC,
        "epoch %lld: the features cannot be clustered (%s): the training has diverged. "
        "Lower optim%%lr, or set optim%%clip_grad",
        (long long)epoch, found);
}

static hirl_status_t hirl_begin_epoch(void *self, int64_t epoch,
                                      const hirl_extractor_t *extractor) {
    hirl_t *h = self;
    float *x = NULL;
    int64_t n_local = 0;
    int d = 0;
    hirl_hierarchy_t *hierarchy = NULL;
    hirl_hierarchy_cfg_t cfg = {.n_levels = h->n_levels,
                                .n_iter = (int)h->cfg.cluster_iter,
                                .n_redo = (int)h->cfg.cluster_redo,
                                .max_points_per_centroid = 1000,
                                .min_points_per_centroid = 10,
                                .is_verbose = false,
                                .backend =
                                    hirl_cluster_device_of(hirl_tape_backend_view(h->ctx.tape))};
    if (h->inner.ops->begin_epoch)
        HIRL_TRY(h->inner.ops->begin_epoch(h->inner.self, epoch, extractor));
    if (!is_cluster_epoch(h, epoch)) return HIRL_OK;
    double start = hirl_time_now();
    for (int l = 0; l < h->n_levels; ++l) cfg.k[l] = h->cfg.num_cluster[l];
    HIRL_TRY(extractor->extract(extractor->ctx, HIRL_EMBED_CLUSTER, &x, &n_local, &d));
    double extracted = hirl_time_now();
    hirl_status_t status = hirl_hierarchy_create(h->ctx.world, x, n_local, d, &cfg, &hierarchy);
    hirl_mem_free(x);
    if (status == HIRL_ERR_NUMERIC) return fail_features(epoch);
    HIRL_TRY(status);
    hirl_log_root(HIRL_LOG_INFO,
                  "hierarchy: epoch = %lld levels = %d extract_seconds = %.2f cluster_seconds = "
                  "%.2f objective = %.6g",
                  (long long)epoch, h->n_levels, extracted - start, hirl_time_now() - extracted,
                  hierarchy->objective[0]);
    ssl_hirl_set_hierarchy(h, &hierarchy);
    h->clustered_epoch = epoch;
    return ssl_hirl_upload(h);
}

// ---------------------------------------------------------------------------------------------- semantic loss

// c_0 uniform over leaves, c_l = parent of c_(l-1): paths [n, M, L] of the micro-batch.
static hirl_status_t paths_draw(const hirl_t *h, const hirl_step_t *step, int64_t n_negative,
                                int32_t *negative) {
    const hirl_hierarchy_t *tree = h->hierarchy;
    int64_t first = hirl_world_rank(h->ctx.world) * step->batch->n + step->first;
    for (int64_t i = 0; i < step->n; ++i) {
        hirl_rng_t rng = hirl_rng_make(h->ctx.seed, HIRL_RNG_PATH, (uint64_t)step->step,
                                       (uint64_t)(first + i), 0);
        for (int64_t j = 0; j < n_negative; ++j) {
            int32_t *path = negative + (i * n_negative + j) * h->n_levels;
            path[0] = (int32_t)hirl_rng_below(&rng, tree->k[0]);
            for (int l = 1; l < h->n_levels; ++l) path[l] = tree->parent[l - 1][path[l - 1]];
        }
    }
    return HIRL_OK;
}

// Positive paths [n, L] and negative paths [n, M, L] go to the backend.
static hirl_status_t paths_put(hirl_t *h, const hirl_step_t *step) {
    const hirl_draws_t *draws = step->draws && step->draws->negative ? step->draws : NULL;
    int64_t m = draws ? draws->n_negative : h->cfg.num_neg_path, n = step->n;
    int n_levels = h->n_levels;
    int32_t *host = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_WORKSPACE, (size_t)(n * (m + 1) * n_levels) * sizeof *host,
                            (void **)&host));
    int32_t *host_positive = host + n * m * n_levels;
    for (int64_t i = 0; i < n; ++i)
        for (int l = 0; l < n_levels; ++l)
            host_positive[i * n_levels + l] =
                h->hierarchy->assign[l][step->batch->index[step->first + i]];
    if (draws) {
        int64_t first = hirl_world_rank(h->ctx.world) * step->batch->n + step->first;
        memcpy(host, draws->negative + first * m * n_levels,
               (size_t)(n * m * n_levels) * sizeof *host);
    } else {
        HIRL_TRY_GOTO(paths_draw(h, step, m, host), status, done);
    }
    HIRL_TRY_GOTO(put(h, host_positive, hirl_shape_2(n, n_levels), HIRL_I32, &h->positive), status,
                  done);
    status = put(h, host, hirl_shape_3(n, m, n_levels), HIRL_I32, &h->negative);
done:
    hirl_mem_free(host);
    return status;
}

static hirl_status_t hirl_before_forward(void *self, const hirl_step_t *step) {
    hirl_t *h = self;
    if (h->inner.ops->before_forward) HIRL_TRY(h->inner.ops->before_forward(h->inner.self, step));
    return h->hierarchy ? paths_put(h, step) : HIRL_OK;
}

// u_l = nrm(proj_l(e)) C_l^T for every cluster of level l.
static hirl_status_t level_similarity(const hirl_t *h, const hirl_step_t *step, int level,
                                      hirl_var_t *e, hirl_var_t **u_p) {
    hirl_tape_t *tape = h->ctx.tape;
    hirl_forward_t fw = {.tape = tape,
                         .is_training = true,
                         .bn_group = h->bn_group,
                         .dtype = HIRL_F32,
                         .micro = step->micro,
                         .n_micro = step->n_micro};
    hirl_var_t *y = NULL, *s = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_mlp_forward(h->projection[level], &fw, e, &y), status, done);
    HIRL_TRY_GOTO(hirl_tape_l2_normalize(tape, y, &s), status, done);
    status = hirl_tape_matmul_const(tape, s, &h->centroid[level], u_p);
done:
    hirl_var_release(&y);
    hirl_var_release(&s);
    return status;
}

static hirl_status_t hirl_forward(void *self, const hirl_step_t *step, hirl_terms_t *terms) {
    hirl_t *h = self;
    hirl_var_t *u[HIRL_MAX_LEVELS] = {NULL}, *loss = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(h->inner.ops->forward(h->inner.self, step, terms));
    if (!h->hierarchy) return HIRL_OK;
    hirl_var_t *e = hirl_terms_find_embedding(terms, h->cfg.train_emb);
    HIRL_REQUIRE(e, HIRL_ERR_INTERNAL, "method %s gave no embedding '%s'", h->inner.ops->name,
                 h->cfg.train_emb);
    for (int l = 0; l < h->n_levels; ++l)
        HIRL_TRY_GOTO(level_similarity(h, step, l, e, &u[l]), status, done);
    HIRL_TRY_GOTO(
        hirl_tape_path_loss(h->ctx.tape, h->n_levels, u, &h->positive, &h->negative, &loss, NULL),
        status, done);
    status = hirl_terms_add_loss(terms, "semantic", (float)h->cfg.weight, loss);
done:
    for (int l = 0; l < h->n_levels; ++l) hirl_var_release(&u[l]);
    return status;
}

// ---------------------------------------------------------------------------------------------- the rest passes through

static hirl_status_t hirl_before_step(void *self, int64_t step, double progress) {
    hirl_t *h = self;
    return h->inner.ops->before_step ? h->inner.ops->before_step(h->inner.self, step, progress)
                                     : HIRL_OK;
}

// The first clustering adds a loss, and counts with its centroids; later ones go to the same memory.
static int64_t hirl_generation(void *self) {
    hirl_t *h = self;
    return h->generation + (h->inner.ops->generation ? h->inner.ops->generation(h->inner.self) : 0);
}

static hirl_status_t hirl_after_step(void *self, int64_t step) {
    hirl_t *h = self;
    return h->inner.ops->after_step ? h->inner.ops->after_step(h->inner.self, step) : HIRL_OK;
}

static hirl_status_t hirl_embed(void *self, hirl_embed_kind_t kind, hirl_var_t *x,
                                hirl_var_t **y_p) {
    hirl_t *h = self;
    return h->inner.ops->embed(h->inner.self, kind, x, y_p);
}

// A clustering that was in use continues to be used after a restart, wherever in the epoch that is.
static hirl_status_t hierarchy_state(hirl_t *h, hirl_state_t *state) {
    for (int l = 0; l < h->n_levels; ++l) {
        char name[HIRL_NAME_MAX];
        int64_t shape[2] = {h->hierarchy->k[l], h->dim};
        HIRL_TRY(hirl_text_format(name, sizeof name, "/hierarchy/centroid/%d", l));
        HIRL_TRY(
            state->visit(state->ctx, name, HIRL_CKPT_F32, 2, shape, h->hierarchy->centroid[l]));
        int32_t *assign = (int32_t *)(uintptr_t)h->hierarchy->assign[l], *copy = NULL;
        shape[0] = h->hierarchy->n;
        HIRL_TRY(hirl_text_format(name, sizeof name, "/hierarchy/assign/%d", l));
        if (state->is_loading) {
            HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, h->hierarchy->n, &copy));
            hirl_status_t status = state->visit(state->ctx, name, HIRL_CKPT_I32, 1, shape, copy);
            if (status == HIRL_OK && hirl_world_node_rank(h->ctx.world) == 0)
                memcpy(hirl_hierarchy_assign_of(h->hierarchy, l), copy,
                       (size_t)h->hierarchy->n * sizeof *copy);
            for (int64_t i = 0; status == HIRL_OK && i < h->hierarchy->n; ++i)
                if (copy[i] < 0 || copy[i] >= h->hierarchy->k[l])
                    status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s[%lld] = %d: expected 0 to %lld", name,
                                       (long long)i, copy[i], (long long)h->hierarchy->k[l] - 1);
            hirl_mem_free(copy);
            HIRL_TRY(status);
        } else {
            HIRL_TRY(state->visit(state->ctx, name, HIRL_CKPT_I32, 1, shape, assign));
        }
        if (l == h->n_levels - 1) continue;
        shape[0] = h->hierarchy->k[l];
        HIRL_TRY(hirl_text_format(name, sizeof name, "/hierarchy/parent/%d", l));
        HIRL_TRY(state->visit(state->ctx, name, HIRL_CKPT_I32, 1, shape, h->hierarchy->parent[l]));
        for (int64_t i = 0; i < shape[0]; ++i)
            HIRL_REQUIRE(h->hierarchy->parent[l][i] >= 0 &&
                             h->hierarchy->parent[l][i] < h->hierarchy->k[l + 1],
                         HIRL_ERR_FORMAT, "%s[%lld] = %d: expected 0 to %lld", name, (long long)i,
                         h->hierarchy->parent[l][i], (long long)h->hierarchy->k[l + 1] - 1);
    }
    return state->is_loading ? hirl_par_shared_sync(h->hierarchy->shared) : HIRL_OK;
}

static hirl_status_t hirl_state(void *self, hirl_state_t *state) {
    hirl_t *h = self;
    if (h->inner.ops->state) HIRL_TRY(h->inner.ops->state(h->inner.self, state));
    HIRL_TRY(
        state->visit(state->ctx, "/hierarchy/epoch", HIRL_CKPT_I64, 0, NULL, &h->clustered_epoch));
    if (h->clustered_epoch < 0) return HIRL_OK;
    if (state->is_loading) {
        hirl_hierarchy_destroy(&h->hierarchy);
        HIRL_TRY(hirl_hierarchy_create_empty(h->ctx.world, h->n_levels, h->cfg.num_cluster, h->dim,
                                             h->ctx.n_samples, &h->hierarchy));
    }
    HIRL_TRY(hierarchy_state(h, state));
    return state->is_loading ? ssl_hirl_upload(h) : HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- tables

static const hirl_key_t hirl_keys[] = {
    HIRL_ROW_INT_LIST(hirl_hirl_cfg_t, num_cluster, "30000,10000,1000", 1, 1e9, "clusters",
                      "Clusters of each level, finest first."),
    HIRL_ROW_INT(hirl_hirl_cfg_t, num_neg_path, "1000", 1, 1e6, "paths",
                 "Negative paths sampled for each image."),
    HIRL_ROW_TEXT(hirl_hirl_cfg_t, train_emb, "'cnn'", "cnn|vit_cls",
                  "Embedding of the method that the projections take."),
    HIRL_ROW_INT(hirl_hirl_cfg_t, num_mlp_layer, "2", 1, 16, "layers",
                 "Linear layers of a projection head."),
    HIRL_ROW_REAL(hirl_hirl_cfg_t, cluster_warmup_epoch, "20", 0, 1e9, "epochs",
                  "First epoch (0-based) with a clustering and the semantic loss."),
    HIRL_ROW_REAL(hirl_hirl_cfg_t, cluster_every_epochs, "1", 1, 1e9, "epochs",
                  "Epochs between clusterings, rounded up to whole ones."),
    HIRL_ROW_INT(hirl_hirl_cfg_t, cluster_iter, "20", 1, 10000, "iterations",
                 "Lloyd iterations of a restart."),
    HIRL_ROW_INT(hirl_hirl_cfg_t, cluster_redo, "5", 1, 1000, "restarts",
                 "Restarts of K-means; the one with the lowest objective is kept."),
    HIRL_ROW_REAL(hirl_hirl_cfg_t, weight, "1", 0, 1e6, "",
                  "Weight of the semantic path discrimination loss."),
};

const hirl_group_t hirl_hirl_group = {"hirl", "The HIRL hierarchy (run%hierarchy = 'hirl').",
                                      hirl_keys, sizeof hirl_keys / sizeof *hirl_keys,
                                      sizeof(hirl_hirl_cfg_t)};

const hirl_method_ops_t ssl_hirl_ops = {
    .name = "hirl",
    .help = "Hierarchical path discrimination around a method (Xu et al. 2022).",
    .group = &hirl_hirl_group,
    .destroy = hirl_destroy,
    .registries = hirl_registries,
    .embed_dim = hirl_embed_dim,
    .step_flops = hirl_step_flops,
    .begin_epoch = hirl_begin_epoch,
    .before_step = hirl_before_step,
    .before_forward = hirl_before_forward,
    .forward = hirl_forward,
    .generation = hirl_generation,
    .after_step = hirl_after_step,
    .embed = hirl_embed,
    .state = hirl_state,
};
