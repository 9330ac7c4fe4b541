// Forward and backward passes as graphs. After some steps of single operations, which choose algorithms and fill caches, each
// micro-batch's pass is recorded once and then launched as one piece. What the host would have done meanwhile is kept beside the graph: which
// gradients are present afterwards, and what the losses are called. Whatever stands in the way leads back to single operations, on
// all ranks alike, with a line in the log.

#include <stdio.h>
#include <string.h>

#include "train_impl.h"

enum {
    N_EAGER = 2,    // steps before the recording
    MICRO_MOST = 64 // graphs are kept in the device's memory
};

// Of one micro-batch; each has its own, since the running statistics' weights differ.
typedef struct recorded {
    hirl_graph_t *graph;      // NULL: not yet
    hirl_step_result_t named; // names and weights of its terms
    bool *before, *after;     // which leaves have a gradient
} recorded_t;

struct graphs {
    int n_micro, n_leaves;
    bool is_off, is_stale, is_told;
    int64_t generation; // the method's, which the graphs belong to
    int64_t step;       // under way
    int n_eager;
    recorded_t *recorded;               // [n_micro]
    bool *leaves;                       // [n_micro][2][n_leaves], then [n_leaves] to compare with
    hirl_tensor_t view[HIRL_MAX_VIEWS]; // f32 [n, ...]: where a pass finds its views
};

// ---------------------------------------------------------------------------------------------- making and ending

static int count_leaves(const hirl_session_t *s) {
    int n = 0;
    for (int i = 0; i < s->n_trainable; ++i) n += hirl_registry_n_params(s->registry[i]);
    return n;
}

static hirl_status_t graphs_create(hirl_session_t *s, graphs_t **graphs_p) {
    graphs_t *g = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &g));
    g->n_micro = (int)s->optim->accumulate;
    g->n_leaves = count_leaves(s);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, g->n_micro, &g->recorded), status, err);
    HIRL_TRY_GOTO(
        HIRL_ALLOC(HIRL_MEM_GENERAL, (int64_t)(2 * g->n_micro + 1) * g->n_leaves, &g->leaves),
        status, err);
    for (int i = 0; i < g->n_micro; ++i) {
        g->recorded[i].before = g->leaves + (int64_t)(2 * i + 1) * g->n_leaves;
        g->recorded[i].after = g->recorded[i].before + g->n_leaves;
    }
    *graphs_p = g;
    return HIRL_OK;
err:
    graphs_destroy(&g);
    return status;
}

static void drop(graphs_t *g) {
    for (int i = 0; g->recorded && i < g->n_micro; ++i) hirl_graph_destroy(&g->recorded[i].graph);
    g->is_stale = false;
    g->n_eager = 0;
}

void graphs_destroy(graphs_t **graphs) {
    graphs_t *g = *graphs;
    if (!g) return;
    *graphs = NULL;
    drop(g);
    for (int v = 0; v < HIRL_MAX_VIEWS; ++v) hirl_tensor_reset(&g->view[v]);
    hirl_mem_free(g->recorded);
    hirl_mem_free(g->leaves);
    hirl_mem_free(g);
}

// Why this session's steps are not recorded; NULL: they may be.
static const char *refusal(const hirl_session_t *s) {
    if (hirl_world_size(s->world) > 1 && !s->device)
        return "ranks share a GPU, so that gradients go by way of the host";
    if (s->optim->accumulate > MICRO_MOST) return "optim%accumulate is above 64";
    return NULL;
}

// For the rest of the run. The graphs' memory is needed at once.
static hirl_status_t switch_off(graphs_t *g, hirl_log_level_t level, const char *why) {
    g->is_off = true;
    drop(g);
    hirl_log_root(level, "graphs: off, operations are launched one by one: %s", why);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- a step

static int64_t generation_of(const hirl_session_t *s) {
    return s->method.ops->generation ? s->method.ops->generation(s->method.self) : 0;
}

hirl_status_t graphs_begin_step(hirl_session_t *s, const hirl_step_request_t *request,
                                bool *are_used_p) {
    *are_used_p = false;
    // What is given from outside, or looked at between the passes, is not the same in each step.
    if (!s->run->graph || !hirl_backend_can_capture(s->backend) || request->draws ||
        request->after_forward)
        return HIRL_OK;
    if (!s->graphs) {
        HIRL_TRY(graphs_create(s, &s->graphs));
        const char *why = refusal(s);
        if (why) HIRL_TRY(switch_off(s->graphs, HIRL_LOG_INFO, why));
    }
    graphs_t *g = s->graphs;
    if (g->is_stale || g->generation != generation_of(s)) drop(g);
    g->step = request->step;
    g->generation = generation_of(s);
    for (int v = 0; g->is_off && v < HIRL_MAX_VIEWS; ++v) hirl_tensor_reset(&g->view[v]);
    *are_used_p = !g->is_off;
    return HIRL_OK;
}

hirl_status_t graphs_views(hirl_session_t *s, const hirl_step_request_t *request, int64_t first,
                           int64_t n, hirl_tensor_t view[HIRL_MAX_VIEWS]) {
    graphs_t *g = s->graphs;
    bool are_made = false;
    for (int v = 0; v < request->batch->n_views; ++v) {
        hirl_shape_t shape = hirl_batch_view_shape(request->batch, v, n);
        if (hirl_tensor_is_set(&g->view[v]) && hirl_shape_equal(&g->view[v].shape, &shape))
            continue;
        g->is_stale = true;
        hirl_tensor_reset(&g->view[v]);
        HIRL_TRY(hirl_backend_tensor(s->backend, shape, HIRL_F32, &g->view[v]));
    }
    HIRL_TRY(input_views(s, request, first, n, g->view, &are_made));
    for (int v = 0; v < request->batch->n_views; ++v) view[v] = hirl_tensor_retain(&g->view[v]);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- gradients' presence

static void leaves_read(const hirl_session_t *s, bool *has) {
    for (int i = 0; i < s->n_trainable; ++i)
        for (int j = 0; j < hirl_registry_n_params(s->registry[i]); ++j) {
            const hirl_param_t *param = hirl_registry_param(s->registry[i], j);
            *has++ = !param->is_buffer && hirl_var_has_grad(param->var);
        }
}

static void leaves_write(const hirl_session_t *s, const bool *has) {
    for (int i = 0; i < s->n_trainable; ++i)
        for (int j = 0; j < hirl_registry_n_params(s->registry[i]); ++j, ++has) {
            const hirl_param_t *param = hirl_registry_param(s->registry[i], j);
            if (!param->is_buffer) hirl_var_set_grad_present(param->var, *has);
        }
}

// ---------------------------------------------------------------------------------------------- a pass

// The recording holds for all ranks or for none.
static hirl_status_t agree(hirl_session_t *s, bool *is_fine) {
    int32_t all = *is_fine;
    HIRL_TRY(hirl_par_all_reduce(s->world, &all, 1, HIRL_PAR_I32, HIRL_PAR_MIN));
    *is_fine = all != 0;
    return HIRL_OK;
}

// Records the pass; *is_fine_p false: on some rank it cannot be, and all is as before.
static hirl_status_t record(hirl_session_t *s, recorded_t *r, const graphs_work_t *work,
                            bool *is_fine_p) {
    graphs_t *g = s->graphs;
    char why[512] = "another rank could not";
    leaves_read(s, r->before);
    memset(&r->named, 0, sizeof r->named);
    hirl_status_t status = hirl_backend_capture_begin(s->backend);
    if (status == HIRL_OK) {
        status = work->run(work->ctx, &r->named);
        if (status != HIRL_OK) snprintf(why, sizeof why, "%s", hirl_error_text_view());
        const hirl_status_t ended =
            hirl_backend_capture_end(s->backend, status == HIRL_OK ? &r->graph : NULL);
        if (status == HIRL_OK)
            status = ended;
        else
            status = HIRL_ERR_UNSUPPORTED;
        if (ended != HIRL_OK) snprintf(why, sizeof why, "%s", hirl_error_text_view());
    } else {
        snprintf(why, sizeof why, "%s", hirl_error_text_view());
    }
    leaves_read(s, r->after);
    *is_fine_p = status == HIRL_OK;
    HIRL_TRY(agree(s, is_fine_p));
    leaves_write(s, r->before);
    if (*is_fine_p) return HIRL_OK;
    if (status != HIRL_OK && hirl_world_rank(s->world) != 0)
        hirl_log_rank(HIRL_LOG_WARN, "graphs: %s", why);
    return switch_off(g, HIRL_LOG_WARN, why);
}

hirl_status_t graphs_run(hirl_session_t *s, int micro, const graphs_work_t *work,
                         hirl_step_result_t *named) {
    graphs_t *g = s->graphs;
    recorded_t *r = &g->recorded[micro];
    // Memory that this step's preparations moved is not the graphs'.
    if (g->generation != generation_of(s)) g->is_stale = true;
    if (g->is_off || g->is_stale || g->n_eager < N_EAGER * g->n_micro) {
        ++g->n_eager;
        return work->run(work->ctx, named);
    }
    if (!r->graph) {
        bool is_fine = false;
        HIRL_TRY(record(s, r, work, &is_fine));
        if (!is_fine) return work->run(work->ctx, named);
    }
    leaves_read(s, g->leaves);
    if (memcmp(g->leaves, r->before, (size_t)g->n_leaves * sizeof *g->leaves) != 0) {
        HIRL_TRY(
            switch_off(g, HIRL_LOG_WARN, "gradients are present that were absent, or reverse"));
        return work->run(work->ctx, named);
    }
    HIRL_TRY(hirl_graph_launch(r->graph));
    leaves_write(s, r->after);
    *named = r->named;
    if (!g->is_told && micro == g->n_micro - 1) {
        g->is_told = true;
        hirl_log_root(HIRL_LOG_INFO,
                      "graphs: forward and backward pass are launched as one from step %lld on",
                      (long long)g->step + 1);
    }
    return HIRL_OK;
}
