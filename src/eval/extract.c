// Embeddings of a whole data set: each rank embeds its contiguous part, un-augmented, in evaluation mode.

#include "hirl/eval.h"

#include <string.h>

// ctx->method may be NULL: then an embedding is the flattened image.
static hirl_status_t embed_batch(const hirl_eval_ctx_t *ctx, hirl_embed_kind_t kind,
                                 const hirl_batch_t *batch, float **x_p, int64_t n_local,
                                 int64_t done, int *d_p) {
    hirl_backend_t *be = hirl_tape_backend_view(ctx->tape);
    hirl_shape_t shape = hirl_batch_view_shape(batch, 0, batch->n);
    hirl_var_t *x = NULL, *y = NULL;
    hirl_status_t status = HIRL_OK;
    int d = (int)(hirl_shape_count(&shape) / batch->n);
    if (ctx->method) {
        HIRL_TRY(hirl_input_var(ctx->tape, batch->view[0], 0, shape, &x));
        HIRL_TRY_GOTO(ctx->method->ops->embed(ctx->method->self, kind, x, &y), status, done);
        d = (int)hirl_var_value_view(y)->shape.dim[1];
    }
    if (!*x_p) {
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_local * d, x_p), status, done);
        *d_p = d;
    }
    if (y)
        status = hirl_backend_download(be, hirl_var_value_view(y), *x_p + done * d);
    else
        memcpy(*x_p + done * d, batch->view[0], (size_t)batch->n * (size_t)d * sizeof(float));
done:
    hirl_var_release(&x);
    hirl_var_release(&y);
    return status;
}

static void show_progress(const char *what, int64_t done, int64_t n, double start) {
    char text[160], eta[32];
    double elapsed = hirl_time_now() - start;
    if (!hirl_log_is_terminal()) return;
    hirl_text_duration(eta, done > 0 ? elapsed / (double)done * (double)(n - done) : 0);
    if (hirl_text_format(text, sizeof text, "%s %3.0f %%  %.0f images/s  eta %s", what,
                         100.0 * (double)done / (double)(n > 0 ? n : 1),
                         (double)done / (elapsed > 0 ? elapsed : 1), eta) == HIRL_OK)
        hirl_log_progress(text);
}

// No parameter changes while embeddings are made.
static hirl_status_t hold_parameters(const hirl_eval_ctx_t *ctx) {
    hirl_registry_t *registry[HIRL_MAX_REGISTRIES];
    if (!ctx->method) return HIRL_OK;
    const int n = ctx->method->ops->registries(ctx->method->self, registry);
    return hirl_registries_hold(hirl_tape_backend_view(ctx->tape), registry, n);
}

hirl_status_t hirl_eval_extract(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *set,
                                hirl_embed_kind_t kind, const char *what, float **x_p,
                                int32_t **label_p, int64_t *n_local_p, int *d_p) {
    int64_t n = hirl_shard_set_n_samples(set), size = hirl_world_size(ctx->world),
            rank = hirl_world_rank(ctx->world);
    int64_t n_local = n * (rank + 1) / size - n * rank / size, done = 0;
    hirl_loader_spec_t spec = {.batch = ctx->batch,
                               .is_train = false,
                               .n_views = 1,
                               .clip = ctx->clip,
                               .eval_resize = (int)ctx->views->eval_resize,
                               .eval_crop = (int)ctx->views->eval_crop,
                               .eval_is_bicubic =
                                   strcmp(ctx->views->eval_interpolation, "bicubic") == 0};
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    float *x = NULL;
    int32_t *label = NULL;
    int d = 0;
    double start = hirl_time_now();
    hirl_backend_t *be = hirl_tape_backend_view(ctx->tape);
    hirl_status_t status = HIRL_OK;
    HIRL_REQUIRE(n >= size, HIRL_ERR_ARG,
                 "%s: the data set has %lld samples, fewer than the %lld ranks", what, (long long)n,
                 (long long)size);
    HIRL_TRY(hold_parameters(ctx));
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_local, &label), status, err);
    HIRL_TRY_GOTO(hirl_loader_create(ctx->world, set, ctx->data, &spec, &loader), status, err);
    HIRL_TRY_GOTO(hirl_loader_begin_epoch(loader, 0, 0), status, err);
    // As many rounds on all ranks: one may have a batch less.
    for (int64_t round = 0; round * ctx->batch < (n + size - 1) / size; ++round) {
        HIRL_TRY_GOTO(hirl_par_heed_signals(ctx->world), status, err);
        HIRL_TRY_GOTO(hirl_loader_next(loader, &batch), status, err);
        if (!batch) continue;
        HIRL_TRY_GOTO(embed_batch(ctx, kind, batch, &x, n_local, done, &d), status, err);
        memcpy(label + done, batch->label, (size_t)batch->n * sizeof *label);
        done += batch->n;
        show_progress(what, done, n_local, start);
    }
    hirl_log_progress(NULL);
    if (done != n_local) {
        status = HIRL_FAIL(HIRL_ERR_INTERNAL, "%s: %lld of %lld samples came", what,
                           (long long)done, (long long)n_local);
        goto err;
    }
    hirl_loader_destroy(&loader);
    hirl_backend_weights_end(be);
    *x_p = x;
    *n_local_p = n_local;
    *d_p = d;
    if (label_p)
        *label_p = label;
    else
        hirl_mem_free(label);
    return HIRL_OK;
err:
    hirl_loader_destroy(&loader);
    hirl_backend_weights_end(be);
    hirl_mem_free(x);
    hirl_mem_free(label);
    return status;
}
