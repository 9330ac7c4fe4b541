// Elementwise operations, conversions and softmax on the tape.

#include "tape_impl.h"

static hirl_status_t act_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_act_backward(tape->backend, node->u.act, &node->saved[0], dy, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_act(hirl_tape_t *tape, hirl_act_t act, hirl_var_t *x, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_REQUIRE(act != HIRL_ACT_NONE, HIRL_ERR_ARG, "act: no activation given");
    HIRL_TRY(hirl_op_act(tape->backend, act, &x->value, &y));
    HIRL_TRY(node_record(tape, act_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) {
        node->u.act = act;
        node->saved[0] = hirl_tensor_retain(act == HIRL_ACT_RELU ? &(*y_p)->value : &x->value);
    }
    return HIRL_OK;
}

// Both inputs get the same tensor: marked as shared, so that neither adds into it.
static hirl_status_t add_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    (void)tape;
    for (int i = 0; i < 2; ++i) {
        hirl_tensor_t d = hirl_tensor_retain(dy);
        HIRL_TRY(input_add_grad(node->in[i], &d, true));
    }
    return HIRL_OK;
}

hirl_status_t hirl_tape_add(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_add(tape->backend, &x1->value, &x2->value, &y));
    return node_record(tape, add_backward, (hirl_var_t *[]){x1, x2}, 2, &y, y_p, &node);
}

static hirl_status_t mul_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    for (int i = 0; i < 2; ++i) {
        hirl_tensor_t d = {0};
        if (!node->in[i]) continue;
        HIRL_TRY(hirl_op_mul(tape->backend, dy, &node->saved[1 - i], &d));
        HIRL_TRY(input_add_grad(node->in[i], &d, false));
    }
    return HIRL_OK;
}

hirl_status_t hirl_tape_mul(hirl_tape_t *tape, hirl_var_t *x1, hirl_var_t *x2, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_mul(tape->backend, &x1->value, &x2->value, &y));
    HIRL_TRY(node_record(tape, mul_backward, (hirl_var_t *[]){x1, x2}, 2, &y, y_p, &node));
    if (node) {
        node->saved[0] = hirl_tensor_retain(&x1->value);
        node->saved[1] = hirl_tensor_retain(&x2->value);
    }
    return HIRL_OK;
}

static hirl_status_t cast_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_cast(tape->backend, dy, node->saved[0].dtype, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_cast(hirl_tape_t *tape, hirl_var_t *x, hirl_dtype_t dtype,
                             hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    if (x->value.dtype == dtype) {
        *y_p = hirl_var_retain(x);
        return HIRL_OK;
    }
    HIRL_TRY(hirl_op_cast(tape->backend, &x->value, dtype, &y));
    HIRL_TRY(node_record(tape, cast_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) node->saved[0].dtype = x->value.dtype;
    return HIRL_OK;
}

// The gradient stays plain: consumers convert where they must.
static hirl_status_t to_plain_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    (void)tape;
    hirl_tensor_t dx = hirl_tensor_retain(dy);
    return input_add_grad(node->in[0], &dx, true);
}

hirl_status_t hirl_tape_to_plain(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    if (hirl_tensor_is_plain(&x->value)) {
        *y_p = hirl_var_retain(x);
        return HIRL_OK;
    }
    HIRL_TRY(hirl_op_to_plain(tape->backend, &x->value, x->value.dtype, &y));
    return node_record(tape, to_plain_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node);
}

static hirl_status_t softmax_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_softmax_backward(tape->backend, &node->saved[0], dy, node->u.scale, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_softmax(hirl_tape_t *tape, hirl_var_t *x, float scale, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    HIRL_TRY(hirl_op_softmax(tape->backend, &x->value, scale, &y));
    HIRL_TRY(node_record(tape, softmax_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) {
        node->u.scale = scale;
        node->saved[0] = hirl_tensor_retain(&(*y_p)->value);
    }
    return HIRL_OK;
}
