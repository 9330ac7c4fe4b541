// The tape: variables, nodes, the backward pass. Operations are in the other files of this folder, each family's forward record beside its
// backward rule. The backward pass drops saved tensors and gradients as soon as they are used, which bounds the peak memory.

#include "tape_impl.h"

#include <string.h>

hirl_status_t hirl_tape_create(hirl_backend_t *backend, hirl_world_t *world, hirl_tape_t **tape_p) {
    hirl_tape_t *tape = NULL;
    HIRL_REQUIRE(backend && world && tape_p, HIRL_ERR_ARG,
                 "tape: backend, world and output are needed");
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &tape));
    tape->backend = backend;
    tape->world = world;
    *tape_p = tape;
    return HIRL_OK;
}

void hirl_tape_set_device(hirl_tape_t *tape, hirl_par_device_t *device) { tape->device = device; }
hirl_par_device_t *hirl_tape_device_view(const hirl_tape_t *tape) { return tape->device; }

static void node_reset(node_t *node) {
    for (int i = 0; i < NODE_SAVED; ++i) hirl_tensor_reset(&node->saved[i]);
}

static void var_recycle(hirl_var_t *var) {
    hirl_tape_t *tape = var->tape;
    hirl_tensor_reset(&var->value);
    hirl_tensor_reset(&var->grad);
    var->next = tape->free_vars;
    tape->free_vars = var;
}

void hirl_tape_reset(hirl_tape_t *tape) {
    for (int i = 0; i < tape->n_nodes; ++i) {
        for (int j = 0; j < tape->nodes[i].n_in; ++j) {
            hirl_var_t *in = tape->nodes[i].in[j];
            if (in && in->is_leaf) in->n_pending = 0;
        }
        node_reset(&tape->nodes[i]);
    }
    tape->n_nodes = 0;
    hirl_var_t *var = tape->recorded;
    tape->recorded = NULL;
    while (var) {
        hirl_var_t *next = var->next;
        var->is_recorded = false;
        var->requires_grad = false;
        if (!var->is_grad_kept) hirl_tensor_reset(&var->grad);
        if (var->n_handles == 0) var_recycle(var);
        var = next;
    }
}

void hirl_tape_destroy(hirl_tape_t **tape) {
    if (!tape || !*tape) return;
    hirl_tape_t *t = *tape;
    hirl_tape_reset(t);
    while (t->free_vars) {
        hirl_var_t *next = t->free_vars->next;
        hirl_mem_free(t->free_vars);
        t->free_vars = next;
    }
    hirl_par_device_destroy(&t->bn_device);
    hirl_world_destroy(&t->bn_world);
    hirl_mem_free(t->nodes);
    hirl_mem_free(t);
    *tape = NULL;
}

hirl_backend_t *hirl_tape_backend_view(hirl_tape_t *tape) { return tape->backend; }
hirl_world_t *hirl_tape_world_view(hirl_tape_t *tape) { return tape->world; }
void hirl_tape_begin_no_grad(hirl_tape_t *tape) { ++tape->no_grad_depth; }

void hirl_tape_end_no_grad(hirl_tape_t *tape) {
    HIRL_ASSERT(tape->no_grad_depth > 0);
    --tape->no_grad_depth;
}

void hirl_tape_set_leaf_ready(hirl_tape_t *tape, hirl_leaf_ready_t ready, void *ctx) {
    tape->leaf_ready = ready;
    tape->leaf_ready_ctx = ctx;
}

// ---------------------------------------------------------------------------------------------- variables

hirl_status_t var_new_own(hirl_tape_t *tape, hirl_tensor_t *value, hirl_var_t **var_p) {
    hirl_var_t *var = tape->free_vars;
    if (var) {
        tape->free_vars = var->next;
        memset(var, 0, sizeof *var);
    } else {
        hirl_status_t status = HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &var);
        if (status != HIRL_OK) {
            hirl_tensor_reset(value);
            return status;
        }
    }
    var->tape = tape;
    var->value = *value;
    *value = (hirl_tensor_t){0};
    var->n_handles = 1;
    *var_p = var;
    return HIRL_OK;
}

hirl_status_t hirl_var_create(hirl_tape_t *tape, const hirl_tensor_t *value, hirl_var_t **var_p) {
    hirl_tensor_t copy = hirl_tensor_retain(value);
    return var_new_own(tape, &copy, var_p);
}

hirl_status_t hirl_var_create_leaf(hirl_tape_t *tape, const hirl_tensor_t *value,
                                   const hirl_tensor_t *grad, hirl_var_t **var_p) {
    HIRL_REQUIRE(hirl_tensor_is_plain(grad) && grad->dtype == HIRL_F32 &&
                     hirl_shape_equal(&value->shape, &grad->shape),
                 HIRL_ERR_ARG, "leaf: the gradient must be plain f32 of the value's shape");
    HIRL_TRY(hirl_var_create(tape, value, var_p));
    (*var_p)->grad = hirl_tensor_retain(grad);
    (*var_p)->is_leaf = true;
    (*var_p)->requires_grad = true;
    return HIRL_OK;
}

void hirl_var_set_id(hirl_var_t *leaf, int64_t id) { leaf->id = id; }
void hirl_var_clear_grad(hirl_var_t *leaf) { leaf->is_grad_set = false; }
bool hirl_var_has_grad(const hirl_var_t *leaf) { return leaf->is_grad_set; }
void hirl_var_set_grad_present(hirl_var_t *leaf, bool is_present) {
    leaf->is_grad_set = is_present;
}

hirl_var_t *hirl_var_retain(hirl_var_t *var) {
    if (var) ++var->n_handles;
    return var;
}

void hirl_var_release(hirl_var_t **var) {
    if (!var || !*var) return;
    hirl_var_t *v = *var;
    *var = NULL;
    HIRL_ASSERT(v->n_handles > 0);
    if (--v->n_handles > 0) return;
    if (v->is_recorded)
        hirl_tensor_reset(&v->value); // the node that made it still routes its gradient
    else
        var_recycle(v);
}

const hirl_tensor_t *hirl_var_value_view(const hirl_var_t *var) { return &var->value; }
bool hirl_var_requires_grad(const hirl_var_t *var) { return var_wants_grad(var); }
void hirl_var_keep_grad(hirl_var_t *var) { var->is_grad_kept = true; }
const hirl_tensor_t *hirl_var_grad_view(const hirl_var_t *var) { return &var->grad; }

hirl_status_t hirl_var_detach(hirl_tape_t *tape, hirl_var_t *var, hirl_var_t **detached_p) {
    return hirl_var_create(tape, &var->value, detached_p);
}

// ---------------------------------------------------------------------------------------------- recording

static hirl_status_t nodes_reserve(hirl_tape_t *tape) {
    if (tape->n_nodes < tape->nodes_capacity) return HIRL_OK;
    int capacity = tape->nodes_capacity ? 2 * tape->nodes_capacity : 256;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)capacity * sizeof *tape->nodes,
                              (void **)&tape->nodes));
    tape->nodes_capacity = capacity;
    return HIRL_OK;
}

hirl_status_t node_record(hirl_tape_t *tape, node_backward_t backward, hirl_var_t *const *in,
                          int n_in, hirl_tensor_t *value, hirl_var_t **out_p, node_t **node_p) {
    *node_p = NULL;
    HIRL_TRY(var_new_own(tape, value, out_p));
    bool is_wanted = false;
    for (int i = 0; i < n_in; ++i) is_wanted = is_wanted || var_wants_grad(in[i]);
    if (!is_wanted) return HIRL_OK;
    hirl_status_t status = nodes_reserve(tape);
    if (status != HIRL_OK) {
        hirl_var_release(out_p);
        return status;
    }
    node_t *node = &tape->nodes[tape->n_nodes++];
    memset(node, 0, sizeof *node);
    node->backward = backward;
    node->out = *out_p;
    node->n_in = n_in;
    for (int i = 0; i < n_in; ++i) {
        if (!var_wants_grad(in[i])) continue;
        node->in[i] = in[i];
        if (in[i]->is_leaf) ++in[i]->n_pending;
    }
    (*out_p)->requires_grad = true;
    (*out_p)->is_recorded = true;
    (*out_p)->next = tape->recorded;
    tape->recorded = *out_p;
    *node_p = node;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- gradients

hirl_status_t var_add_grad(hirl_var_t *var, hirl_tensor_t *grad, bool is_shared) {
    hirl_backend_t *be = var->tape->backend;
    hirl_status_t status = HIRL_OK;
    if (!var->is_grad_set) {
        hirl_tensor_reset(&var->grad);
        var->grad = *grad;
        *grad = (hirl_tensor_t){0};
        var->is_grad_set = true;
        var->is_grad_shared = is_shared;
        return HIRL_OK;
    }
    if (!var->is_grad_shared) {
        status = hirl_op_axpby(be, 1.0f, grad, 1.0f, &var->grad);
    } else if (!is_shared && hirl_shape_equal(&grad->shape, &var->grad.shape)) {
        status = hirl_op_axpby(be, 1.0f, &var->grad, 1.0f,
                               grad); // the newcomer is ours alone: add into it
        if (status == HIRL_OK) {
            hirl_tensor_reset(&var->grad);
            var->grad = *grad;
            *grad = (hirl_tensor_t){0};
            var->is_grad_shared = false;
        }
    } else {
        hirl_tensor_t sum = {0};
        status = hirl_op_add(be, &var->grad, grad, &sum);
        if (status == HIRL_OK) {
            hirl_tensor_reset(&var->grad);
            var->grad = sum;
            var->is_grad_shared = false;
        }
    }
    hirl_tensor_reset(grad);
    return status;
}

hirl_status_t input_add_grad(hirl_var_t *in, hirl_tensor_t *grad, bool is_shared) {
    if (!in) {
        hirl_tensor_reset(grad);
        return HIRL_OK;
    }
    if (!in->is_leaf) return var_add_grad(in, grad, is_shared);
    float keep = leaf_begin_contribution(in) ? 1.0f : 0.0f;
    hirl_status_t status = hirl_op_axpby(in->tape->backend, 1.0f, grad, keep, &in->grad);
    hirl_tensor_reset(grad);
    return status;
}

static hirl_status_t node_finish_leaves(hirl_tape_t *tape, node_t *node) {
    for (int i = 0; i < node->n_in; ++i) {
        hirl_var_t *in = node->in[i];
        if (!in || !in->is_leaf) continue;
        if (--in->n_pending == 0 && in->is_grad_set && tape->leaf_ready)
            HIRL_TRY(tape->leaf_ready(tape->leaf_ready_ctx, in->id));
    }
    return HIRL_OK;
}

static hirl_status_t node_run(hirl_tape_t *tape, node_t *node) {
    hirl_var_t *out = node->out;
    if (out->is_grad_set) {
        hirl_tensor_t dy = hirl_tensor_retain(&out->grad);
        if (!out->is_grad_kept) hirl_tensor_reset(&out->grad);
        hirl_status_t status = node->backward(tape, node, &dy);
        hirl_tensor_reset(&dy);
        HIRL_TRY(status);
    }
    node_reset(node);
    return node_finish_leaves(tape, node);
}

// Runs the nodes from the last to the first, then clears the tape.
static hirl_status_t run_nodes(hirl_tape_t *tape, hirl_status_t status) {
    for (int i = tape->n_nodes - 1; status == HIRL_OK && i >= 0; --i) {
        status = node_run(tape, &tape->nodes[i]);
        if (status == HIRL_OK) status = hirl_par_progress(tape->world);
    }
    hirl_tape_reset(tape);
    return status;
}

void hirl_tape_set_loss_factor(hirl_tape_t *tape, const hirl_tensor_t *factor) {
    tape->loss_factor = factor;
}

static hirl_status_t seed_loss(hirl_tape_t *tape, hirl_var_t *loss, float weight) {
    hirl_tensor_t seed = {0}, scaled = {0};
    if (!loss->is_recorded) return HIRL_OK; // depends on no parameter
    HIRL_TRY(hirl_backend_tensor(tape->backend, hirl_shape_1(1), HIRL_F32, &seed));
    hirl_status_t status = hirl_op_fill(tape->backend, weight, &seed);
    if (status == HIRL_OK && tape->loss_factor) {
        status = hirl_op_mul(tape->backend, &seed, tape->loss_factor, &scaled);
        hirl_tensor_reset(&seed);
        seed = scaled;
    }
    if (status == HIRL_OK) return var_add_grad(loss, &seed, false);
    hirl_tensor_reset(&seed);
    return status;
}

hirl_status_t hirl_tape_backward(hirl_tape_t *tape, hirl_var_t *const *loss, const float *weight,
                                 int n_losses) {
    hirl_status_t status = HIRL_OK;
    for (int i = 0; status == HIRL_OK && i < n_losses; ++i)
        status = seed_loss(tape, loss[i], weight[i]);
    return run_nodes(tape, status);
}

hirl_status_t hirl_tape_backward_from(hirl_tape_t *tape, hirl_var_t *var,
                                      const hirl_tensor_t *gradient) {
    hirl_tensor_t seed = hirl_tensor_retain(gradient);
    return run_nodes(tape,
                     input_add_grad(var->is_recorded || var->is_leaf ? var : NULL, &seed, true));
}
