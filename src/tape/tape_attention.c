// Attention on the tape.

#include "tape_impl.h"

enum { SAVED_BIAS = 3, SAVED_MASK, SAVED_Y, SAVED_LSE };

// The place of a set tensor, or NULL.
static const hirl_tensor_t *set_or_null(const hirl_tensor_t *x) {
    return hirl_tensor_is_set(x) ? x : NULL;
}

// saved: q, k, v, bias, mask, y, lse. Inputs that are one variable have one gradient, written by slices.
static hirl_status_t attention_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t grad[4] = {{0}, {0}, {0}, {0}}, *output[4] = {NULL, NULL, NULL, NULL};
    const hirl_tensor_t *s = node->saved;
    hirl_status_t status = HIRL_OK;
    for (int i = 0; i < 4; ++i) {
        int owner = i;
        for (int j = 0; node->in[i] && j < i; ++j)
            if (node->in[j] == node->in[i] && owner == i) owner = j;
        if (node->in[i]) output[i] = &grad[owner];
    }
    HIRL_TRY_GOTO(hirl_op_attention_backward(
                      tape->backend, &node->u.attention, &s[0], &s[1], &s[2],
                      set_or_null(&s[SAVED_BIAS]), set_or_null(&s[SAVED_MASK]), &s[SAVED_Y],
                      &s[SAVED_LSE], dy, output[0], output[1], output[2], output[3]),
                  status, done);
    for (int i = 0; i < 4; ++i)
        if (output[i] == &grad[i])
            HIRL_TRY_GOTO(input_add_grad(node->in[i], &grad[i], false), status, done);
done:
    for (int i = 0; i < 4; ++i) hirl_tensor_reset(&grad[i]);
    return status;
}

hirl_status_t hirl_tape_attention(hirl_tape_t *tape, const hirl_attention_param_t *p, hirl_var_t *q,
                                  hirl_var_t *k, hirl_var_t *v, hirl_var_t *bias,
                                  const hirl_tensor_t *mask, hirl_var_t **y_p) {
    hirl_tensor_t y = {0}, lse = {0};
    node_t *node;
    const bool is_recorded =
        var_wants_grad(q) || var_wants_grad(k) || var_wants_grad(v) || var_wants_grad(bias);
    HIRL_TRY(hirl_op_attention(tape->backend, p, &q->value, &k->value, &v->value,
                               bias ? &bias->value : NULL, mask, &y, is_recorded ? &lse : NULL));
    hirl_status_t status =
        node_record(tape, attention_backward, (hirl_var_t *[]){q, k, v, bias}, 4, &y, y_p, &node);
    if (status == HIRL_OK && node) {
        const hirl_tensor_t *kept[] = {
            &q->value, &k->value,      &v->value, bias ? &bias->value : NULL,
            mask,      &(*y_p)->value, &lse};
        node->u.attention = *p;
        for (int i = 0; i <= SAVED_LSE; ++i)
            if (kept[i]) node->saved[i] = hirl_tensor_retain(kept[i]);
    }
    hirl_tensor_reset(&lse);
    return status;
}
