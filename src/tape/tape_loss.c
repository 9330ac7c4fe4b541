// Losses on the tape: cross entropy and the semantic path discrimination loss.

#include "tape_impl.h"

// saved: logits, target, lse
static hirl_status_t cross_entropy_backward(hirl_tape_t *tape, node_t *node,
                                            const hirl_tensor_t *dy) {
    hirl_tensor_t *s = node->saved, d = {0};
    HIRL_TRY(
        hirl_op_cross_entropy_backward(tape->backend, &s[0], node->u.scale, &s[1], &s[2], dy, &d));
    return input_add_grad(node->in[0], &d, false);
}

hirl_status_t hirl_tape_cross_entropy(hirl_tape_t *tape, hirl_var_t *logits, float scale,
                                      const hirl_tensor_t *target, hirl_var_t **loss_p,
                                      hirl_tensor_t *correct_p) {
    hirl_tensor_t loss = {0}, lse = {0};
    node_t *node;
    HIRL_TRY(hirl_op_cross_entropy(tape->backend, &logits->value, scale, target, &loss, &lse,
                                   correct_p));
    hirl_status_t status = node_record(tape, cross_entropy_backward, (hirl_var_t *[]){logits}, 1,
                                       &loss, loss_p, &node);
    if (status == HIRL_OK && node) {
        node->u.scale = scale;
        node->saved[0] = hirl_tensor_retain(&logits->value);
        node->saved[1] = hirl_tensor_retain(target);
        node->saved[2] = hirl_tensor_retain(&lse);
    }
    hirl_tensor_reset(&lse);
    return status;
}

// saved: similarity of each level, then positive and negative paths
static hirl_status_t path_loss_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    int n = node->u.n_levels;
    const hirl_tensor_t *similarity[HIRL_PATH_MAX_LEVELS] = {NULL};
    hirl_tensor_t d[HIRL_PATH_MAX_LEVELS] = {{0}}, *d_p[HIRL_PATH_MAX_LEVELS] = {NULL};
    for (int l = 0; l < n; ++l) {
        similarity[l] = &node->saved[l];
        d_p[l] = &d[l];
    }
    hirl_status_t status = hirl_op_path_loss_backward(tape->backend, n, similarity, &node->saved[n],
                                                      &node->saved[n + 1], dy, d_p);
    for (int l = 0; l < n; ++l) {
        if (status == HIRL_OK) status = input_add_grad(node->in[l], &d[l], false);
        hirl_tensor_reset(&d[l]);
    }
    return status;
}

hirl_status_t hirl_tape_path_loss(hirl_tape_t *tape, int n_levels, hirl_var_t *const *similarity,
                                  const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                  hirl_var_t **loss_p, hirl_tensor_t *terms_p) {
    hirl_tensor_t loss = {0};
    const hirl_tensor_t *value[HIRL_PATH_MAX_LEVELS];
    node_t *node;
    HIRL_REQUIRE(n_levels >= 1 && n_levels <= HIRL_PATH_MAX_LEVELS, HIRL_ERR_ARG,
                 "path loss: 1 to %d levels, got %d", HIRL_PATH_MAX_LEVELS, n_levels);
    for (int l = 0; l < n_levels; ++l) value[l] = &similarity[l]->value;
    HIRL_TRY(hirl_op_path_loss(tape->backend, n_levels, value, positive, negative, &loss, terms_p));
    HIRL_TRY(node_record(tape, path_loss_backward, similarity, n_levels, &loss, loss_p, &node));
    if (node) {
        node->u.n_levels = n_levels;
        for (int l = 0; l < n_levels; ++l) node->saved[l] = hirl_tensor_retain(value[l]);
        node->saved[n_levels] = hirl_tensor_retain(positive);
        node->saved[n_levels + 1] = hirl_tensor_retain(negative);
    }
    return HIRL_OK;
}
