// Dropout and drop path on the tape. Nothing of a mask is kept: the backward draws it again from the same counter and indices, of which
// the nodes hold references.

#include "tape_impl.h"

static bool is_idle(const hirl_drop_t *drop) { return !drop || drop->p == 0; }

static void node_keep_draw(node_t *node, const hirl_drop_t *drop) {
    node->u.drop.p = drop->p;
    node->u.drop.site = drop->site;
    node->saved[0] = hirl_tensor_retain(drop->counter);
    node->saved[1] = hirl_tensor_retain(drop->index);
}

static hirl_drop_t node_draw(const node_t *node) {
    return (hirl_drop_t){.p = node->u.drop.p,
                         .site = node->u.drop.site,
                         .counter = &node->saved[0],
                         .index = &node->saved[1]};
}

static hirl_status_t dropout_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    const hirl_drop_t drop = node_draw(node);
    hirl_tensor_t dx = {0};
    HIRL_TRY(hirl_op_dropout(tape->backend, &drop, dy, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_dropout(hirl_tape_t *tape, const hirl_drop_t *drop, hirl_var_t *x,
                                hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    if (is_idle(drop)) {
        *y_p = hirl_var_retain(x);
        return HIRL_OK;
    }
    HIRL_TRY(hirl_op_dropout(tape->backend, drop, &x->value, &y));
    HIRL_TRY(node_record(tape, dropout_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node));
    if (node) node_keep_draw(node, drop);
    return HIRL_OK;
}

static hirl_status_t drop_path_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    const hirl_drop_t drop = node_draw(node);
    hirl_tensor_t dx = {0}, dresidual = {0};
    if (node->in[0]) {
        HIRL_TRY(hirl_op_drop_path(tape->backend, &drop, dy, NULL, &dx));
        HIRL_TRY(input_add_grad(node->in[0], &dx, false));
    }
    dresidual = hirl_tensor_retain(dy);
    return input_add_grad(node->in[1], &dresidual, true);
}

hirl_status_t hirl_tape_drop_path(hirl_tape_t *tape, const hirl_drop_t *drop, hirl_var_t *x,
                                  hirl_var_t *residual, hirl_var_t **y_p) {
    hirl_tensor_t y = {0};
    node_t *node;
    if (is_idle(drop)) return hirl_tape_add(tape, x, residual, y_p);
    HIRL_TRY(hirl_op_drop_path(tape->backend, drop, &x->value, &residual->value, &y));
    HIRL_TRY(
        node_record(tape, drop_path_backward, (hirl_var_t *[]){x, residual}, 2, &y, y_p, &node));
    if (node) node_keep_draw(node, drop);
    return HIRL_OK;
}
