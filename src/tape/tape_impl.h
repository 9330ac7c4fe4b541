/// @file tape_impl.h
/// Variables and nodes of the tape, for src/tape alone.
/// Invariants: nodes hold only variables that require a gradient; a variable that a node knows is freed when the tape is cleared; its value goes
/// with the caller's last handle, so a node that needs a value saves its own reference.
#ifndef HIRL_TAPE_IMPL_H
#define HIRL_TAPE_IMPL_H

#include "hirl/tape.h"

enum { NODE_INPUTS = 8, NODE_SAVED = 10 };

struct hirl_var {
    hirl_tape_t *tape;
    hirl_tensor_t value;
    hirl_tensor_t grad;
    int n_handles; // callers' references
    bool requires_grad;
    bool is_leaf;
    bool is_recorded;    // a node writes to or reads from it: freed by the tape
    bool is_grad_set;    // grad holds a contribution
    bool is_grad_shared; // grad's storage is also another variable's: never add in place
    bool is_grad_kept;
    int64_t id;
    int n_pending; // leaf: uses recorded whose backward has not run yet
    hirl_var_t *next;
};

typedef struct node node_t;
typedef hirl_status_t (*node_backward_t)(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy);

struct node {
    node_backward_t backward;
    hirl_var_t *out;
    hirl_var_t *in[NODE_INPUTS]; // NULL where no gradient is wanted
    int n_in;
    hirl_tensor_t saved[NODE_SAVED];
    union {
        hirl_conv_param_t conv;
        hirl_pool_param_t pool;
        struct {
            float eps;
            int64_t n_groups;
            int64_t n_ranks; // that share a group
            double count;    // samples x pixels of a (global) group
            bool has_relu, has_residual, is_training;
        } bn;
        struct {
            float p;
            uint32_t site;
        } drop;
        hirl_act_t act;
        float scale;
        hirl_attention_param_t attention;
        int64_t n_first;
        int n_levels;
    } u;
};

struct hirl_tape {
    hirl_backend_t *backend;
    hirl_world_t *world;
    node_t *nodes;
    int n_nodes, nodes_capacity;
    hirl_var_t *recorded; // list of variables that nodes know
    hirl_var_t *free_vars;
    int no_grad_depth;
    const hirl_tensor_t *loss_factor; // HIRL_BORROW; NULL: 1
    hirl_leaf_ready_t leaf_ready;
    void *leaf_ready_ctx;
    // ranks that share a batch-norm group, made on first use
    hirl_world_t *bn_world;
    int64_t bn_world_ranks;
    hirl_par_device_t *device;    // HIRL_BORROW; NULL: MPI
    hirl_par_device_t *bn_device; // of bn_world
};

static inline bool var_wants_grad(const hirl_var_t *var) {
    return var && var->requires_grad && var->tape->no_grad_depth == 0;
}

/// A variable over `value`, whose reference moves into it (also on failure).
hirl_status_t var_new_own(hirl_tape_t *tape, hirl_tensor_t *value, hirl_var_t **var_p);

/// Makes the output variable of an operation (the value's reference moves into it, also on failure) and, when `n_in` inputs include one that
/// wants a gradient, a node; *node_p is NULL otherwise and nothing need be saved.
hirl_status_t node_record(hirl_tape_t *tape, node_backward_t backward, hirl_var_t *const *in,
                          int n_in, hirl_tensor_t *value, hirl_var_t **out_p, node_t **node_p);

/// Adds `grad` (reference moves in, also on failure) to the gradient of a variable that is not a leaf.
hirl_status_t var_add_grad(hirl_var_t *var, hirl_tensor_t *grad, bool is_shared);

/// True if a leaf's gradient must be accumulated rather than overwritten; marks it as present.
static inline bool leaf_begin_contribution(hirl_var_t *leaf) {
    bool has = leaf->is_grad_set;
    leaf->is_grad_set = true;
    return has;
}

/// Routes a freshly computed gradient to an input, leaf or not (reference moves in, also on failure); ignored when in is NULL.
hirl_status_t input_add_grad(hirl_var_t *in, hirl_tensor_t *grad, bool is_shared);

#endif
