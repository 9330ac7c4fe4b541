// Matrix products, row operations and concatenation on the tape.

#include "tape_impl.h"

// saved: x, w, then y (RELU) or the value before the activation (GELU)
static hirl_status_t linear_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_backend_t *be = tape->backend;
    hirl_var_t *x = node->in[0], *w = node->in[1], *bias = node->in[2];
    hirl_tensor_t dz = {0}, dx = {0};
    hirl_status_t status = HIRL_OK;
    if (node->u.act == HIRL_ACT_NONE)
        dz = hirl_tensor_retain(dy);
    else
        HIRL_TRY(hirl_op_act_backward(be, node->u.act, &node->saved[2], dy, &dz));
    bool accumulate = w && leaf_begin_contribution(w);
    if (bias) leaf_begin_contribution(bias);
    HIRL_TRY_GOTO(hirl_op_linear_backward(be, &dz, &node->saved[0], &node->saved[1], accumulate,
                                          x ? &dx : NULL, w ? &w->grad : NULL,
                                          bias ? &bias->grad : NULL),
                  status, done);
    status = input_add_grad(x, &dx, false);
done:
    hirl_tensor_reset(&dz);
    return status;
}

hirl_status_t hirl_tape_linear(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t *w, hirl_var_t *bias,
                               hirl_act_t act, hirl_var_t **y_p) {
    hirl_tensor_t y = {0}, pre = {0};
    node_t *node;
    bool is_recorded = var_wants_grad(x) || var_wants_grad(w) || var_wants_grad(bias);
    HIRL_TRY(hirl_op_linear(tape->backend, &x->value, &w->value, bias ? &bias->value : NULL, act,
                            &y, is_recorded && act == HIRL_ACT_GELU ? &pre : NULL));
    hirl_status_t status =
        node_record(tape, linear_backward, (hirl_var_t *[]){x, w, bias}, 3, &y, y_p, &node);
    if (status == HIRL_OK && node) {
        node->u.act = act;
        node->saved[0] = hirl_tensor_retain(&x->value);
        node->saved[1] = hirl_tensor_retain(&w->value);
        if (act == HIRL_ACT_RELU) node->saved[2] = hirl_tensor_retain(&(*y_p)->value);
        if (act == HIRL_ACT_GELU) node->saved[2] = hirl_tensor_retain(&pre);
    }
    hirl_tensor_reset(&pre);
    return status;
}

static hirl_status_t matmul_const_backward(hirl_tape_t *tape, node_t *node,
                                           const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_gemm(tape->backend, false, false, 1.0f, dy, &node->saved[0], 0.0f, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_matmul_const(hirl_tape_t *tape, hirl_var_t *x, const hirl_tensor_t *b,
                                     hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_gemm(tape->backend, false, true, 1.0f, &x->value, b, 0.0f, &y));
    HIRL_TRY(node_record(tape, matmul_const_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) node->saved[0] = hirl_tensor_retain(b);
    return HIRL_OK;
}

// dy arrives as [N, 1]
static hirl_status_t row_dot_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t flat = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_tensor_reshape(dy, hirl_shape_1(dy->shape.dim[0]), &flat));
    for (int i = 0; i < 2; ++i) {
        hirl_tensor_t dx = {0};
        if (!node->in[i]) continue;
        HIRL_TRY_GOTO(hirl_op_row_scale(tape->backend, &flat, &node->saved[1 - i], false, &dx),
                      status, done);
        HIRL_TRY_GOTO(input_add_grad(node->in[i], &dx, false), status, done);
    }
done:
    hirl_tensor_reset(&flat);
    return status;
}

hirl_status_t hirl_tape_row_dot(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2,
                                hirl_var_t **y_p) {
    hirl_tensor_t flat = {0}, y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_row_dot(tape->backend, &x1->value, &x2->value, &flat));
    hirl_status_t status = hirl_tensor_reshape(&flat, hirl_shape_2(flat.shape.dim[0], 1), &y);
    hirl_tensor_reset(&flat);
    HIRL_TRY(status);
    HIRL_TRY(node_record(tape, row_dot_backward, (hirl_var_t *[]){x1, x2}, 2, &y, y_p, &node));
    if (node) {
        node->saved[0] = hirl_tensor_retain(&x1->value);
        node->saved[1] = hirl_tensor_retain(&x2->value);
    }
    return HIRL_OK;
}

static hirl_status_t concat_columns_backward(hirl_tape_t *tape, node_t *node,
                                             const hirl_tensor_t *dy) {
    hirl_tensor_t d[2] = {{0}, {0}};
    hirl_status_t status = hirl_op_split_columns(
        tape->backend, dy, node->u.n_first, node->in[0] ? &d[0] : NULL, node->in[1] ? &d[1] : NULL);
    for (int i = 0; i < 2; ++i) {
        if (status == HIRL_OK) status = input_add_grad(node->in[i], &d[i], false);
        hirl_tensor_reset(&d[i]);
    }
    return status;
}

hirl_status_t hirl_tape_concat_columns(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2,
                                       hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_concat_columns(tape->backend, &x1->value, &x2->value, &y));
    HIRL_TRY(
        node_record(tape, concat_columns_backward, (hirl_var_t *[]){x1, x2}, 2, &y, y_p, &node));
    if (node) node->u.n_first = x1->value.shape.dim[1];
    return HIRL_OK;
}

static hirl_status_t gather_rows_backward(hirl_tape_t *tape, node_t *node,
                                          const hirl_tensor_t *dy) {
    hirl_var_t *x = node->in[0];
    hirl_tensor_t dx = {0};
    if (x->is_leaf)
        return hirl_op_gather_rows_backward(tape->backend, dy, &node->saved[0],
                                            leaf_begin_contribution(x), &x->grad);
    HIRL_TRY(hirl_backend_tensor(tape->backend, node->saved[1].shape, HIRL_F32, &dx));
    hirl_status_t status =
        hirl_op_gather_rows_backward(tape->backend, dy, &node->saved[0], false, &dx);
    if (status == HIRL_OK) return var_add_grad(x, &dx, false);
    hirl_tensor_reset(&dx);
    return status;
}

hirl_status_t hirl_tape_gather_rows(hirl_tape_t *tape, hirl_var_t *x, const hirl_tensor_t *index,
                                    hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_gather_rows(tape->backend, &x->value, index, &y));
    HIRL_TRY(node_record(tape, gather_rows_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) {
        node->saved[0] = hirl_tensor_retain(index);
        node->saved[1].shape = x->value.shape;
    }
    return HIRL_OK;
}
