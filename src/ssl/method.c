// The list of methods, creation with the hierarchy around it, and the tables of terms that a forward pass returns.

#include <string.h>

#include "hirl/data_clip.h"
#include "ssl_impl.h"

static const hirl_method_ops_t *const methods[] = {&ssl_mocov2_ops};

const hirl_method_ops_t *const *hirl_methods(int *n_p) {
    *n_p = (int)(sizeof methods / sizeof *methods);
    return methods;
}

hirl_status_t hirl_method_find(const char *name, const hirl_method_ops_t **ops_p) {
    const char *names[sizeof methods / sizeof *methods];
    int n = (int)(sizeof methods / sizeof *methods);
    for (int i = 0; i < n; ++i) {
        names[i] = methods[i]->name;
        if (strcmp(names[i], name) == 0) {
            *ops_p = methods[i];
            return HIRL_OK;
        }
    }
    int nearest = hirl_text_nearest(name, names, n);
    return HIRL_FAIL(HIRL_ERR_DECK, "run%%method = '%s': no such method; did you mean '%s'?", name,
                     names[nearest >= 0 ? nearest : 0]);
}

hirl_status_t hirl_method_check(const char *name, const char *hierarchy, const hirl_deck_t *deck) {
    const hirl_method_ops_t *ops;
    hirl_view_spec_t views[HIRL_MAX_VIEWS];
    int n_views;
    const hirl_clip_cfg_t *clip = hirl_deck_group_view(deck, "clip");
    HIRL_TRY(hirl_method_find(name, &ops));
    HIRL_REQUIRE(!clip || clip->frames == 0 || ops->takes_clips, HIRL_ERR_DECK,
                 "clip%%frames is %lld, and run%%method = '%s' learns from images: leave "
                 "clip%%frames at 0, and pack images",
                 (long long)clip->frames, name);
    HIRL_TRY(
        hirl_views_resolve(hirl_deck_group_view(deck, "views"), ops->min_views, views, &n_views));
    if (ops->check) HIRL_TRY(ops->check(deck));
    return strcmp(hierarchy, "hirl") == 0 ? ssl_hirl_check(deck, ops) : HIRL_OK;
}

hirl_status_t hirl_method_create(const char *name, const char *hierarchy,
                                 const hirl_method_ctx_t *ctx, hirl_method_t *method_p) {
    hirl_method_t method = {0}, outer = {0};
    HIRL_TRY(hirl_method_find(name, &method.ops));
    HIRL_REQUIRE(ctx->n_views >= method.ops->min_views, HIRL_ERR_DECK,
                 "run%%method = '%s' needs at least %d views, views%%crop_size gives %d", name,
                 method.ops->min_views, ctx->n_views);
    HIRL_TRY(method.ops->create(ctx, &method.self));
    if (strcmp(hierarchy, "hirl") == 0) {
        outer.ops = &ssl_hirl_ops;
        HIRL_TRY(ssl_hirl_create(ctx, &method, &outer.self));
        method = outer;
    }
    *method_p = method;
    return HIRL_OK;
}

void hirl_method_destroy(hirl_method_t *method) {
    if (method->ops) method->ops->destroy(&method->self);
    *method = (hirl_method_t){0};
}

hirl_status_t hirl_method_set_hierarchy(hirl_method_t *method, hirl_hierarchy_t *hierarchy) {
    if (method->ops != &ssl_hirl_ops) {
        hirl_hierarchy_destroy(&hierarchy);
        return HIRL_FAIL(HIRL_ERR_ARG, "a clustering was given, but run%%hierarchy = 'none'");
    }
    ssl_hirl_set_hierarchy(method->self, &hierarchy);
    return ssl_hirl_upload(method->self);
}

// ---------------------------------------------------------------------------------------------- terms

static hirl_status_t name_copy(char out[HIRL_TERM_NAME_MAX], const char *name) {
    return hirl_text_format(out, HIRL_TERM_NAME_MAX, "%s", name);
}

hirl_status_t hirl_terms_add_loss(hirl_terms_t *terms, const char *name, float weight,
                                  hirl_var_t *loss) {
    if (terms->n_losses == HIRL_MAX_TERMS) {
        hirl_var_release(&loss);
        return HIRL_FAIL(HIRL_ERR_INTERNAL, "more than %d loss terms", HIRL_MAX_TERMS);
    }
    int i = terms->n_losses++;
    terms->loss[i] = loss;
    terms->loss_weight[i] = weight;
    return name_copy(terms->loss_name[i], name);
}

hirl_status_t hirl_terms_add_embedding(hirl_terms_t *terms, const char *name,
                                       hirl_var_t *embedding) {
    if (terms->n_embeddings == HIRL_MAX_TERMS) {
        hirl_var_release(&embedding);
        return HIRL_FAIL(HIRL_ERR_INTERNAL, "more than %d embeddings", HIRL_MAX_TERMS);
    }
    int i = terms->n_embeddings++;
    terms->embedding[i] = embedding;
    return name_copy(terms->embedding_name[i], name);
}

hirl_status_t hirl_terms_add_metric(hirl_terms_t *terms, const char *name, hirl_tensor_t *metric) {
    if (terms->n_metrics == HIRL_MAX_TERMS) {
        hirl_tensor_reset(metric);
        return HIRL_FAIL(HIRL_ERR_INTERNAL, "more than %d metrics", HIRL_MAX_TERMS);
    }
    int i = terms->n_metrics++;
    terms->metric[i] = *metric;
    *metric = (hirl_tensor_t){0};
    return name_copy(terms->metric_name[i], name);
}

hirl_var_t *hirl_terms_find_embedding(const hirl_terms_t *terms, const char *name) {
    for (int i = 0; i < terms->n_embeddings; ++i)
        if (strcmp(terms->embedding_name[i], name) == 0) return terms->embedding[i];
    return NULL;
}

void hirl_terms_reset(hirl_terms_t *terms) {
    for (int i = 0; i < terms->n_losses; ++i) hirl_var_release(&terms->loss[i]);
    for (int i = 0; i < terms->n_embeddings; ++i) hirl_var_release(&terms->embedding[i]);
    for (int i = 0; i < terms->n_metrics; ++i) hirl_tensor_reset(&terms->metric[i]);
    *terms = (hirl_terms_t){0};
}

// ---------------------------------------------------------------------------------------------- inputs

hirl_status_t hirl_input_var(hirl_tape_t *tape, const float *host, int64_t first,
                             hirl_shape_t shape, hirl_var_t **x_p) {
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    hirl_tensor_t x = {0};
    int64_t row = hirl_shape_count(&shape) / (shape.dim[0] > 0 ? shape.dim[0] : 1);
    const float *rows = host + first * row;
    hirl_status_t status;
    if (hirl_backend_allocator_view(be)->space == HIRL_SPACE_HOST) {
        status = hirl_tensor_wrap((void *)(uintptr_t)rows, shape, HIRL_F32, &x);
    } else {
        status = hirl_backend_tensor(be, shape, HIRL_F32, &x);
        if (status == HIRL_OK) status = hirl_backend_upload(be, rows, &x);
    }
    if (status == HIRL_OK) status = hirl_var_create(tape, &x, x_p);
    hirl_tensor_reset(&x);
    return status;
}

hirl_shape_t hirl_step_shape(const hirl_step_t *step, int v) {
    return hirl_batch_view_shape(step->batch, v, step->n);
}

hirl_status_t hirl_step_input(hirl_tape_t *tape, const hirl_step_t *step, int v, hirl_var_t **x_p) {
    if (step->view) return hirl_var_create(tape, &step->view[v], x_p);
    return hirl_input_var(tape, step->batch->view[v], step->first, hirl_step_shape(step, v), x_p);
}
