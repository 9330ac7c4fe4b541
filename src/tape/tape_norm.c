// Batch norm with groups of samples (SyncBN where a group spans ranks), layer norm, L2 normalisation.
//
// A group is a run of consecutive samples of the global batch, so that results do not depend on how the batch is split over ranks. Between ranks
// the means and variances of equal parts are combined as mean = avg(mean_r), var = avg(var_r) + avg((mean_r - mean)^2), in rank order, in double.

#include "tape_impl.h"

// ---------------------------------------------------------------------------------------------- group geometry

static hirl_status_t bn_geometry(hirl_tape_t *tape, int64_t n_local, int64_t group,
                                 int64_t *n_groups_p, int64_t *n_ranks_p) {
    int64_t size = hirl_world_size(tape->world);
    if (group == 0) group = n_local * size;
    if (group <= n_local) {
        HIRL_REQUIRE(n_local % group == 0, HIRL_ERR_ARG,
                     "batch norm: model%%bn_group = %lld does not divide the %lld samples of this "
                     "rank's batch",
                     (long long)group, (long long)n_local);
        *n_groups_p = n_local / group;
        *n_ranks_p = 1;
        return HIRL_OK;
    }
    HIRL_REQUIRE(group % n_local == 0 && size % (group / n_local) == 0, HIRL_ERR_ARG,
                 "batch norm: model%%bn_group = %lld must be a multiple of the rank's batch of "
                 "%lld whose ranks divide the %lld ranks",
                 (long long)group, (long long)n_local, (long long)size);
    *n_groups_p = 1;
    *n_ranks_p = group / n_local;
    if (tape->bn_world && tape->bn_world_ranks != *n_ranks_p) hirl_world_destroy(&tape->bn_world);
    if (!tape->bn_world) {
        HIRL_TRY(hirl_world_split(tape->world, (int)*n_ranks_p, &tape->bn_world));
        tape->bn_world_ranks = *n_ranks_p;
    }
    return HIRL_OK;
}

// Combines this rank's mean and var [1, C] with those of the other ranks of the group.
static hirl_status_t bn_combine(hirl_tape_t *tape, int64_t n_ranks, hirl_tensor_t *mean,
                                hirl_tensor_t *var) {
    int64_t c = hirl_tensor_count(mean);
    float *all = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_WORKSPACE, (n_ranks + 1) * 2 * c, &all);
    if (status != HIRL_OK) return status;
    float *mine = all + n_ranks * 2 * c;
    HIRL_TRY_GOTO(hirl_backend_download(tape->backend, mean, mine), status, done);
    HIRL_TRY_GOTO(hirl_backend_download(tape->backend, var, mine + c), status, done);
    HIRL_TRY_GOTO(hirl_par_all_gather(tape->bn_world, mine, 2 * c, HIRL_PAR_F32, all), status,
                  done);
    for (int64_t i = 0; i < c; ++i) {
        double m = 0, v = 0;
        for (int64_t r = 0; r < n_ranks; ++r) m += all[r * 2 * c + i];
        m /= (double)n_ranks;
        for (int64_t r = 0; r < n_ranks; ++r) {
            double d = all[r * 2 * c + i] - m;
            v += all[r * 2 * c + c + i] + d * d;
        }
        mine[i] = (float)m;
        mine[c + i] = (float)(v / (double)n_ranks);
    }
    HIRL_TRY_GOTO(hirl_backend_upload(tape->backend, mine, mean), status, done);
    HIRL_TRY_GOTO(hirl_backend_upload(tape->backend, mine + c, var), status, done);
done:
    hirl_mem_free(all);
    return status;
}

// Sums two vectors [1, C] over the ranks of the group, in place.
static hirl_status_t bn_sum_ranks(hirl_tape_t *tape, hirl_tensor_t *a, hirl_tensor_t *b) {
    int64_t c = hirl_tensor_count(a);
    float *both = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_WORKSPACE, 2 * c, &both);
    if (status != HIRL_OK) return status;
    HIRL_TRY_GOTO(hirl_backend_download(tape->backend, a, both), status, done);
    HIRL_TRY_GOTO(hirl_backend_download(tape->backend, b, both + c), status, done);
    HIRL_TRY_GOTO(hirl_par_all_reduce(tape->bn_world, both, 2 * c, HIRL_PAR_F32, HIRL_PAR_SUM),
                  status, done);
    HIRL_TRY_GOTO(hirl_backend_upload(tape->backend, both, a), status, done);
    HIRL_TRY_GOTO(hirl_backend_upload(tape->backend, both + c, b), status, done);
done:
    hirl_mem_free(both);
    return status;
}

// y [C] = keep y + scale * sum over the rows of stat [n_groups, C]
static hirl_status_t sum_groups(hirl_backend_t *be, const hirl_tensor_t *stat, float scale,
                                float keep, hirl_tensor_t *y) {
    for (int64_t g = 0; g < stat->shape.dim[0]; ++g) {
        hirl_tensor_t row = {0}, flat = {0};
        HIRL_TRY(hirl_tensor_rows(stat, g, 1, &row));
        hirl_status_t status = hirl_tensor_reshape(&row, y->shape, &flat);
        if (status == HIRL_OK) status = hirl_op_axpby(be, scale, &flat, g == 0 ? keep : 1.0f, y);
        hirl_tensor_reset(&flat);
        hirl_tensor_reset(&row);
        HIRL_TRY(status);
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- batch norm

// saved: x, y (ReLU only), mean, var, gamma
static hirl_status_t batch_norm_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_backend_t *be = tape->backend;
    hirl_tensor_t *s = node->saved;
    const hirl_tensor_t *y = node->u.bn.has_relu ? &s[1] : NULL;
    const hirl_tensor_t *gamma = hirl_tensor_is_set(&s[4]) ? &s[4] : NULL;
    hirl_var_t *dgamma = node->in[1], *dbeta = node->in[2];
    hirl_tensor_t sum_dz = {0}, sum_dz_xhat = {0}, dx = {0}, dresidual = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_op_bn_backward_sums(be, dy, y, &s[0], node->u.bn.n_groups, &s[2], &s[3],
                                           node->u.bn.eps, &sum_dz, &sum_dz_xhat),
                  status, done);
    if (dgamma)
        HIRL_TRY_GOTO(sum_groups(be, &sum_dz_xhat, 1.0f,
                                 leaf_begin_contribution(dgamma) ? 1.0f : 0.0f, &dgamma->grad),
                      status, done);
    if (dbeta)
        HIRL_TRY_GOTO(sum_groups(be, &sum_dz, 1.0f, leaf_begin_contribution(dbeta) ? 1.0f : 0.0f,
                                 &dbeta->grad),
                      status, done);
    if (node->u.bn.is_training) {
        if (node->u.bn.n_ranks > 1)
            HIRL_TRY_GOTO(bn_sum_ranks(tape, &sum_dz, &sum_dz_xhat), status, done);
        float inv = (float)(1.0 / node->u.bn.count);
        HIRL_TRY_GOTO(hirl_op_axpby(be, inv, &sum_dz, 0.0f, &sum_dz), status, done);
        HIRL_TRY_GOTO(hirl_op_axpby(be, inv, &sum_dz_xhat, 0.0f, &sum_dz_xhat), status, done);
    }
    if (node->in[0] || node->in[3]) {
        bool is_training = node->u.bn.is_training;
        HIRL_TRY_GOTO(hirl_op_bn_backward_apply(be, dy, y, &s[0], node->u.bn.n_groups, &s[2], &s[3],
                                                node->u.bn.eps, gamma, is_training ? &sum_dz : NULL,
                                                is_training ? &sum_dz_xhat : NULL, &dx,
                                                node->in[3] ? &dresidual : NULL),
                      status, done);
        HIRL_TRY_GOTO(input_add_grad(node->in[0], &dx, false), status, done);
        if (node->in[3])
            HIRL_TRY_GOTO(input_add_grad(node->in[3], &dresidual, false), status, done);
    }
done:
    hirl_tensor_reset(&sum_dz);
    hirl_tensor_reset(&sum_dz_xhat);
    hirl_tensor_reset(&dx);
    hirl_tensor_reset(&dresidual);
    return status;
}

hirl_status_t hirl_tape_batch_norm(hirl_tape_t *tape, const hirl_bn_args_t *args, hirl_var_t *x,
                                   hirl_var_t *gamma, hirl_var_t *beta, hirl_var_t *residual,
                                   bool has_relu, hirl_var_t **y_p) {
    hirl_backend_t *be = tape->backend;
    const hirl_shape_t *shape = &x->value.shape;
    int64_t c = shape->dim[shape->n_axes - 1], n_groups = 1, n_ranks = 1;
    double count = 0;
    hirl_tensor_t mean = {0}, var = {0}, y = {0};
    hirl_status_t status = HIRL_OK;
    node_t *node;
    if (args->is_training) {
        HIRL_TRY(bn_geometry(tape, shape->dim[0], args->group, &n_groups, &n_ranks));
        count = (double)(hirl_shape_count(shape) / c / n_groups * n_ranks);
        HIRL_REQUIRE(
            count > 1, HIRL_ERR_ARG,
            "batch norm: more than one value per channel is needed in training; got groups of one");
        HIRL_TRY(hirl_op_bn_stats(be, &x->value, n_groups, &mean, &var));
        if (n_ranks > 1) HIRL_TRY_GOTO(bn_combine(tape, n_ranks, &mean, &var), status, done);
        float m = args->momentum, share = m / (float)n_groups;
        hirl_tensor_t running_mean = args->running_mean, running_var = args->running_var;
        HIRL_TRY_GOTO(sum_groups(be, &mean, share, 1.0f - m, &running_mean), status, done);
        HIRL_TRY_GOTO(
            sum_groups(be, &var, (float)(share * count / (count - 1)), 1.0f - m, &running_var),
            status, done);
    } else {
        HIRL_TRY(hirl_tensor_reshape(&args->running_mean, hirl_shape_2(1, c), &mean));
        HIRL_TRY_GOTO(hirl_tensor_reshape(&args->running_var, hirl_shape_2(1, c), &var), status,
                      done);
    }
    HIRL_TRY_GOTO(hirl_op_bn_apply(be, &x->value, n_groups, &mean, &var, args->eps,
                                   gamma ? &gamma->value : NULL, beta ? &beta->value : NULL,
                                   residual ? &residual->value : NULL, has_relu, &y),
                  status, done);
    HIRL_TRY_GOTO(node_record(tape, batch_norm_backward, (hirl_var_t *[]){x, gamma, beta, residual},
                              4, &y, y_p, &node),
                  status, done);
    if (node) {
        node->u.bn.eps = args->eps;
        node->u.bn.n_groups = n_groups;
        node->u.bn.n_ranks = n_ranks;
        node->u.bn.count = count;
        node->u.bn.has_relu = has_relu;
        node->u.bn.is_training = args->is_training;
        node->saved[0] = hirl_tensor_retain(&x->value);
        if (has_relu) node->saved[1] = hirl_tensor_retain(&(*y_p)->value);
        node->saved[2] = hirl_tensor_retain(&mean);
        node->saved[3] = hirl_tensor_retain(&var);
        if (gamma) node->saved[4] = hirl_tensor_retain(&gamma->value);
    }
done:
    hirl_tensor_reset(&mean);
    hirl_tensor_reset(&var);
    return status;
}

// ---------------------------------------------------------------------------------------------- layer norm, L2

// saved: x, gamma, mean, rstd
static hirl_status_t layer_norm_backward(hirl_tape_t *tape, node_t *node, const hirl_tensor_t *dy) {
    hirl_tensor_t *s = node->saved, dx = {0};
    hirl_var_t *gamma = node->in[1], *beta = node->in[2];
    bool accumulate = gamma && leaf_begin_contribution(gamma);
    if (beta) leaf_begin_contribution(beta);
    HIRL_TRY(hirl_op_layer_norm_backward(tape->backend, dy, &s[0], &s[1], &s[2], &s[3], accumulate,
                                         &dx, gamma ? &gamma->grad : NULL,
                                         beta ? &beta->grad : NULL));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_layer_norm(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t *gamma,
                                   hirl_var_t *beta, float eps, hirl_var_t **y_p) {
    hirl_tensor_t y = {0}, mean = {0}, rstd = {0};
    node_t *node;
    HIRL_TRY(hirl_op_layer_norm(tape->backend, &x->value, &gamma->value, &beta->value, eps, &y,
                                &mean, &rstd));
    hirl_status_t status =
        node_record(tape, layer_norm_backward, (hirl_var_t *[]){x, gamma, beta}, 3, &y, y_p, &node);
    if (status == HIRL_OK && node) {
        node->saved[0] = hirl_tensor_retain(&x->value);
        node->saved[1] = hirl_tensor_retain(&gamma->value);
        node->saved[2] = hirl_tensor_retain(&mean);
        node->saved[3] = hirl_tensor_retain(&rstd);
    }
    hirl_tensor_reset(&mean);
    hirl_tensor_reset(&rstd);
    return status;
}

static hirl_status_t l2_normalize_backward(hirl_tape_t *tape, node_t *node,
                                           const hirl_tensor_t *dy) {
    hirl_tensor_t dx = {0};
    HIRL_TRY(
        hirl_op_l2_normalize_backward(tape->backend, &node->saved[0], &node->saved[1], dy, &dx));
    return input_add_grad(node->in[0], &dx, false);
}

hirl_status_t hirl_tape_l2_normalize(hirl_tape_t *tape, hirl_var_t *x, hirl_var_t **y_p) {
    hirl_tensor_t y = {0}, norm = {0};
    node_t *node;
    HIRL_TRY(hirl_op_l2_normalize(tape->backend, &x->value, &y, &norm));
    hirl_status_t status =
        node_record(tape, l2_normalize_backward, (hirl_var_t *[]){x}, 1, &y, y_p, &node);
    if (status == HIRL_OK && node) {
        node->saved[0] = hirl_tensor_retain(&(*y_p)->value);
        node->saved[1] = hirl_tensor_retain(&norm);
    }
    hirl_tensor_reset(&norm);
    return status;
}
