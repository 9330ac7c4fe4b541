// One optimiser step: micro-batches, reduction overlapped with the last backward pass, finiteness and clipping decided after the reduction so
// that all ranks decide alike, update, and what follows it.

#include <math.h>
#include <string.h>

#include "train_impl.h"

enum { ROW = 2 * HIRL_MAX_TERMS }; // floats of a micro-batch in s->scalars: losses, metrics

// Copies a scalar to its place among the step's, to be read with the others at the end.
static hirl_status_t scalar_keep(hirl_session_t *s, const hirl_tensor_t *value, int micro, int at) {
    hirl_tensor_t place = {0};
    HIRL_TRY(hirl_tensor_rows(&s->scalars, (int64_t)micro * ROW + at, 1, &place));
    hirl_status_t status = hirl_op_to_plain(s->backend, value, HIRL_F32, &place);
    hirl_tensor_reset(&place);
    return status;
}

static hirl_status_t terms_keep(hirl_session_t *s, const hirl_terms_t *terms, int micro) {
    for (int i = 0; i < terms->n_losses; ++i)
        HIRL_TRY(scalar_keep(s, hirl_var_value_view(terms->loss[i]), micro, i));
    for (int i = 0; i < terms->n_metrics; ++i)
        HIRL_TRY(scalar_keep(s, &terms->metric[i], micro, HIRL_MAX_TERMS + i));
    return HIRL_OK;
}

// What the step's terms are called and how they count; every micro-batch has the same.
static void terms_name(const hirl_terms_t *terms, hirl_step_result_t *result) {
    result->n_losses = terms->n_losses;
    result->n_metrics = terms->n_metrics;
    memcpy(result->loss_name, terms->loss_name, sizeof result->loss_name);
    memcpy(result->loss_weight, terms->loss_weight, sizeof result->loss_weight);
    memcpy(result->metric_name, terms->metric_name, sizeof result->metric_name);
}

// One transfer for all micro-batches.
static hirl_status_t scalars_read(hirl_session_t *s, hirl_step_result_t *result) {
    int n_micro = (int)s->optim->accumulate;
    float *host = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, hirl_tensor_count(&s->scalars), &host));
    hirl_status_t status = hirl_backend_download(s->backend, &s->scalars, host);
    for (int micro = 0; status == HIRL_OK && micro < n_micro; ++micro) {
        const float *row = host + micro * ROW;
        for (int i = 0; i < result->n_losses; ++i) {
            double value = row[i];
            result->loss[i] += value / n_micro;
            result->total += value * result->loss_weight[i] / n_micro;
        }
        for (int i = 0; i < result->n_metrics; ++i)
            result->metric[i] += (double)row[HIRL_MAX_TERMS + i] / n_micro;
    }
    hirl_mem_free(host);
    return status;
}

// A micro-batch's forward and backward pass, and after the last the reduction.
typedef struct pass {
    hirl_session_t *s;
    hirl_reducer_t *reducer;
    const hirl_step_request_t *request;
    hirl_step_t step;
    hirl_tensor_t
        *view; // [HIRL_MAX_VIEWS] handles that need not outlive the forward pass; NULL: they do
} pass_t;

static hirl_status_t pass_run(void *ctx, hirl_step_result_t *named) {
    pass_t *pass = ctx;
    hirl_session_t *s = pass->s;
    const hirl_step_request_t *request = pass->request;
    const int n_micro = pass->step.n_micro, micro = pass->step.micro;
    const bool is_last = micro == n_micro - 1;
    hirl_terms_t terms = {0};
    float weight[HIRL_MAX_TERMS];
    hirl_status_t status = HIRL_OK;
    if (is_last) HIRL_TRY(hirl_reducer_begin(pass->reducer));
    HIRL_TRY_GOTO(hirl_registries_hold(s->backend, s->registry, s->n_registries), status, done);
    HIRL_TRY_GOTO(s->method.ops->forward(s->method.self, &pass->step, &terms), status, done);
    // what the backward pass needs of them, the tape holds
    for (int v = 0; pass->view && v < HIRL_MAX_VIEWS; ++v) hirl_tensor_reset(&pass->view[v]);
    // means over the ranks' micro-batches: gradients are summed over ranks and micro-batches
    for (int i = 0; i < terms.n_losses; ++i)
        weight[i] = terms.loss_weight[i] / (float)(n_micro * hirl_world_size(s->world));
    if (request->after_forward)
        HIRL_TRY_GOTO(request->after_forward(request->watch_ctx, &terms, micro), status, done);
    // only the loss handles are needed from here on
    for (int i = 0; i < terms.n_embeddings; ++i) hirl_var_release(&terms.embedding[i]);
    terms.n_embeddings = 0;
    HIRL_TRY_GOTO(hirl_tape_backward(s->tape, terms.loss, weight, terms.n_losses), status, done);
    terms_name(&terms, named);
    HIRL_TRY_GOTO(terms_keep(s, &terms, micro), status, done);
    if (is_last) status = hirl_reducer_end(pass->reducer);
done:
    hirl_backend_weights_end(s->backend);
    hirl_terms_reset(&terms);
    if (status != HIRL_OK) hirl_tape_reset(s->tape);
    return status;
}

static hirl_status_t micro_batch(hirl_session_t *s, hirl_reducer_t *reducer,
                                 const hirl_step_request_t *request, int micro, bool has_graphs,
                                 hirl_step_result_t *result) {
    int n_micro = (int)s->optim->accumulate;
    int64_t n = request->batch->n / n_micro;
    hirl_tensor_t view[HIRL_MAX_VIEWS] = {{0}};
    pass_t pass = {.s = s,
                   .reducer = reducer,
                   .request = request,
                   .step = {.batch = request->batch,
                            .first = micro * n,
                            .n = n,
                            .micro = micro,
                            .n_micro = n_micro,
                            .step = request->step,
                            .draws = request->draws},
                   .view = has_graphs ? NULL : view};
    hirl_status_t status = HIRL_OK;
    bool are_made = has_graphs;
    HIRL_TRY_GOTO(has_graphs ? graphs_views(s, request, pass.step.first, n, view)
                             : input_views(s, request, pass.step.first, n, view, &are_made),
                  status, done);
    if (are_made) pass.step.view = view;
    if (s->method.ops->before_forward)
        HIRL_TRY_GOTO(s->method.ops->before_forward(s->method.self, &pass.step), status, done);
    status = has_graphs
                 ? graphs_run(s, micro, &(graphs_work_t){.run = pass_run, .ctx = &pass}, result)
                 : pass_run(&pass, result);
done:
    for (int v = 0; v < HIRL_MAX_VIEWS; ++v) hirl_tensor_reset(&view[v]);
    return status;
}

static hirl_status_t micro_batches(hirl_session_t *s, hirl_reducer_t *reducer,
                                   const hirl_step_request_t *request, hirl_step_result_t *result) {
    int n_micro = (int)s->optim->accumulate;
    bool has_graphs = false;
    if (!hirl_tensor_is_set(&s->scalars))
        HIRL_TRY(hirl_backend_tensor(s->backend, hirl_shape_1((int64_t)n_micro * ROW), HIRL_F32,
                                     &s->scalars));
    HIRL_TRY(graphs_begin_step(s, request, &has_graphs));
    HIRL_TRY(input_take(s, request));
    for (int micro = 0; micro < n_micro; ++micro)
        HIRL_TRY(micro_batch(s, reducer, request, micro, has_graphs, result));
    return input_release(s);
}

static bool is_device(const hirl_session_t *s) {
    return hirl_backend_allocator_view(s->backend)->space == HIRL_SPACE_DEVICE;
}

// The caller's turn, while the device has work.
static hirl_status_t use_wait(hirl_session_t *s, const hirl_step_request_t *request) {
    HIRL_TRY(hirl_backend_mark(s->backend, MARK_ASKED));
    HIRL_TRY(request->while_busy(request->busy_ctx));
    return hirl_backend_mark(s->backend, MARK_FETCHED);
}

static hirl_status_t times_read(hirl_session_t *s, bool has_fetched, hirl_step_result_t *result) {
    HIRL_TRY(hirl_backend_mark_seconds(s->backend, MARK_UPLOAD_WANTED, MARK_UPLOAD_DONE,
                                       &result->upload_seconds));
    return has_fetched ? hirl_backend_mark_seconds(s->backend, MARK_ASKED, MARK_FETCHED,
                                                   &result->fetch_seconds)
                       : HIRL_OK;
}

// What all ranks must decide alike: whether the step counts, and whether one of them was asked to end.
static hirl_status_t agree(hirl_session_t *s, hirl_step_result_t *result) {
    if (hirl_world_rank(s->world) == 0 && hirl_fault("loss")) result->total = NAN;
    if (hirl_world_rank(s->world) == 0 && hirl_fault("gradient")) result->grad_norm = INFINITY;
    result->is_finite_here = isfinite(result->total);
    int32_t flags[3] = {!result->is_finite_here, !isfinite(result->grad_norm),
                        hirl_signal_caught()};
    HIRL_TRY(hirl_par_all_reduce(s->world, flags, 3, HIRL_PAR_I32, HIRL_PAR_MAX));
    result->is_finite = flags[0] == 0 && flags[1] == 0;
    // A loss that is not finite is none of the scale's fault: it is scaled after it is computed.
    result->is_overflow =
        flags[0] == 0 && flags[1] != 0 && hirl_loss_scale_can_fall(&s->loss_scale);
    result->signal = flags[2];
    if (result->is_finite || result->is_overflow)
        HIRL_TRY(hirl_loss_scale_note(&s->loss_scale, s->backend, result->is_finite));
    return HIRL_OK;
}

hirl_status_t hirl_session_step(hirl_session_t *s, hirl_reducer_t *reducer,
                                const hirl_step_request_t *request, hirl_step_result_t *result_p) {
    hirl_step_result_t result = {0};
    double progress = s->schedule->epochs > 0 ? request->epoch / s->schedule->epochs : 0;
    for (int i = 0; i < s->n_trainable; ++i) hirl_registry_clear_grads(s->registry[i]);
    for (int i = 0; i < s->n_registries; ++i) HIRL_TRY(hirl_registry_keep_buffers(s->registry[i]));
    if (s->method.ops->before_step)
        HIRL_TRY(s->method.ops->before_step(s->method.self, request->step, progress));
    HIRL_TRY(micro_batches(s, reducer, request, &result));
    bool has_wait = request->while_busy && is_device(s);
    if (has_wait) HIRL_TRY(use_wait(s, request));
    if (request->after_backward) HIRL_TRY(request->after_backward(request->watch_ctx, NULL, 0));
    // Until here the host has waited for no device; now it does, once everything is asked for.
    HIRL_TRY(hirl_optimizer_grad_norm(s->optimizer, &result.grad_norm));
    result.loss_scale = hirl_loss_scale_now(&s->loss_scale);
    result.grad_norm /= result.loss_scale;
    HIRL_TRY(scalars_read(s, &result));
    if (is_device(s)) HIRL_TRY(times_read(s, has_wait, &result));
    HIRL_TRY(agree(s, &result));
    if (!result.is_finite) {
        for (int i = 0; i < s->n_registries; ++i)
            HIRL_TRY(hirl_registry_restore_buffers(s->registry[i]));
        *result_p = result;
        return HIRL_OK;
    }
    double scale =
        s->optim->clip_grad > 0 ? fmin(1.0, s->optim->clip_grad / (result.grad_norm + 1e-6)) : 1.0;
    HIRL_TRY(hirl_optimizer_step(s->optimizer, request->lr, scale / result.loss_scale));
    for (int i = 0; i < s->n_registries; ++i)
        HIRL_TRY(hirl_registry_average_buffers(s->registry[i], s->world));
    if (s->method.ops->after_step)
        HIRL_TRY(s->method.ops->after_step(s->method.self, request->step));
    *result_p = result;
    return HIRL_OK;
}
