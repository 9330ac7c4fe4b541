// Convolution and pooling on the tape.

#include "tape_impl.h"

// dx = conv^T(dy, w), dw = x * dy, db = sum of dy; the weights' gradient comes last so that dx's consumers are not kept waiting in memory.
static hirl_status_t conv2d_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_backend_t *be = tape->backend;
    hirl_var_t *w = node->in[1], *bias = node->in[2];
    const hirl_tensor_t *x = &node->saved[0], *weight = &node->saved[1];
    if (w) {
        bool accumulate = leaf_begin_contribution(w);
        if (bias) leaf_begin_contribution(bias);
        HIRL_TRY(hirl_op_conv2d_backward_weights(be, &node->u.conv, x, dy, accumulate, &w->grad,
                                                 bias ? &bias->grad : NULL));
    }
    if (node->in[0]) {
        hirl_tensor_t dx = {0};
        HIRL_TRY(hirl_op_conv2d_backward_data(be, &node->u.conv, dy, weight, &x->shape, &dx));
        HIRL_TRY(input_add_grad(node->in[0], &dx, false));
    }
    return HIRL_OK;
}

hirl_status_t hirl_tape_conv2d(hirl_tape_t *tape, const hirl_conv_param_t *p, hirl_var_t *x,
                               hirl_var_t *w, hirl_var_t *bias, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(
        hirl_op_conv2d(tape->backend, p, &x->value, &w->value, bias ? &bias->value : NULL, &y));
    HIRL_TRY(node_record(tape, conv2d_backward, (hirl_var_t *[]){x, w, bias}, 3, &y, y_p, &node));
    if (node) {
        node->u.conv = *p;
        node->saved[0] = hirl_tensor_retain(&x->value);
        node->saved[1] = hirl_tensor_retain(&w->value);
    }
    return HIRL_OK;
}

static hirl_status_t max_pool_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_max_pool_backward(tape->backend, &node->u.pool, dy, &node->saved[0],
                                       &node->saved[1].shape, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_max_pool(hirl_tape_t *tape, const hirl_pool_param_t *p, hirl_var_t *x,
                                 hirl_var_t **y_p) {
    hirl_tensor_t y = {0}, workspace = {0};
    node_t *node;
    HIRL_TRY(
        hirl_op_max_pool(tape->backend, p, &x->value, &y, var_wants_grad(x) ? &workspace : NULL));
    hirl_status_t status =
        node_record(tape, max_pool_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node);
    if (status == HIRL_OK && node) {
        node->u.pool = *p;
        node->saved[0] = hirl_tensor_retain(&workspace);
        node->saved[1].shape = x->value.shape; // the shape alone: x itself is not needed
    }
    hirl_tensor_reset(&workspace);
    return status;
}

static hirl_status_t global_avg_pool_backward(hirl_tape_t *tape, node_t *node,
                                              const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_global_avg_pool_backward(tape->backend, dy, &node->saved[0], &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_global_avg_pool(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_global_avg_pool(tape->backend, &x->value, &y));
    HIRL_TRY(node_record(tape, global_avg_pool_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) node->saved[0] = hirl_tensor_retain(&x->value);
    return HIRL_OK;
}
