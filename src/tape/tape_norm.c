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
    if (tape->bn_world && tape->bn_world_ranks != *n_ranks_p) {
        hirl_par_device_destroy(&tape->bn_device);
        hirl_world_destroy(&tape->bn_world);
    }
    if (!tape->bn_world) {
        HIRL_TRY(hirl_world_split(tape->world, (int)*n_ranks_p, &tape->bn_world));
        tape->bn_world_ranks = *n_ranks_p;
    }
    if (tape->device && !tape->bn_device)
        HIRL_TRY(hirl_par_device_split(tape->device, tape->bn_world, &tape->bn_device));
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- ranks of a group

// Where tensors lie in host memory they go through MPI as they are, on devices through NCCL, and without it by way of the host.
static bool is_on_host(const hirl_tape_t *tape) {
    return hirl_backend_allocator_view(tape->backend)->space != HIRL_SPACE_DEVICE;
}

// all [ranks of world, ...] from each rank's x [...]; `device`: of that world, or NULL.
static hirl_status_t gather_ranks(hirl_tape_t *tape, hirl_world_t *world, hirl_par_device_t *device,
                                  const hirl_tensor_t *x, hirl_tensor_t *all) {
    const int64_t n = hirl_tensor_count(x), n_all = hirl_tensor_count(all);
    if (is_on_host(tape))
        return hirl_par_all_gather(world, hirl_tensor_f32(x), n, HIRL_PAR_F32,
                                   hirl_tensor_f32(all));
    if (device)
        return hirl_par_device_all_gather(device, hirl_tensor_f32(x), n, hirl_tensor_f32(all));
    float *host = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n + n_all, &host));
    hirl_status_t status = hirl_backend_download(tape->backend, x, host);
    if (status == HIRL_OK) status = hirl_par_all_gather(world, host, n, HIRL_PAR_F32, host + n);
    if (status == HIRL_OK) status = hirl_backend_upload(tape->backend, host + n, all);
    hirl_mem_free(host);
    return status;
}

hirl_status_t hirl_tape_all_gather(hirl_tape_t *tape, const hirl_tensor_t *x, hirl_tensor_t *all) {
    HIRL_REQUIRE(hirl_tensor_is_plain(x) && x->dtype == HIRL_F32 && hirl_tensor_is_plain(all) &&
                     all->dtype == HIRL_F32 &&
                     hirl_tensor_count(all) == hirl_tensor_count(x) * hirl_world_size(tape->world),
                 HIRL_ERR_ARG, "all-gather: want plain f32, and room for %d times %lld elements",
                 hirl_world_size(tape->world), (long long)hirl_tensor_count(x));
    return gather_ranks(tape, tape->world, tape->device, x, all);
}

hirl_status_t hirl_tape_sum_by_host(hirl_tape_t *tape, hirl_world_t *world, hirl_tensor_t *x) {
    const int64_t n = hirl_tensor_count(x);
    float *host = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n, &host));
    hirl_status_t status = hirl_backend_download(tape->backend, x, host);
    if (status == HIRL_OK) status = hirl_par_all_reduce(world, host, n, HIRL_PAR_F32, HIRL_PAR_SUM);
    if (status == HIRL_OK) status = hirl_backend_upload(tape->backend, host, x);
    hirl_mem_free(host);
    return status;
}

// Sums x over the ranks, in place.
static hirl_status_t sum_ranks(hirl_tape_t *tape, hirl_tensor_t *x) {
    const int64_t n = hirl_tensor_count(x);
    if (is_on_host(tape))
        return hirl_par_all_reduce(tape->bn_world, hirl_tensor_f32(x), n, HIRL_PAR_F32,
                                   HIRL_PAR_SUM);
    if (tape->bn_device) return hirl_par_device_all_reduce(tape->bn_device, hirl_tensor_f32(x), n);
    return hirl_tape_sum_by_host(tape, tape->bn_world, x);
}

// Two vectors [1, C] as one tensor [2, C], so that they travel together, and the views of its halves.
typedef struct twins {
    hirl_tensor_t both, half[2];
} twins_t;

static hirl_status_t twins_make(hirl_backend_t *be, int64_t n_channels, twins_t *twins) {
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_2(2, n_channels), HIRL_F32, &twins->both));
    for (int i = 0; i < 2; ++i) HIRL_TRY(hirl_tensor_rows(&twins->both, i, 1, &twins->half[i]));
    return HIRL_OK;
}

static void twins_reset(twins_t *twins) {
    for (int i = 0; i < 2; ++i) hirl_tensor_reset(&twins->half[i]);
    hirl_tensor_reset(&twins->both);
}

// Mean and variance [1, C] of a group of ranks from x, this rank's part of it.
static hirl_status_t bn_stats_ranks(hirl_tape_t *tape, const hirl_tensor_t *x, int64_t n_ranks,
                                    hirl_tensor_t *mean, hirl_tensor_t *var) {
    const int64_t c = x->shape.dim[x->shape.n_axes - 1];
    twins_t mine = {0};
    hirl_tensor_t parts = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(twins_make(tape->backend, c, &mine), status, done);
    HIRL_TRY_GOTO(hirl_op_bn_stats(tape->backend, x, 1, &mine.half[0], &mine.half[1]), status,
                  done);
    HIRL_TRY_GOTO(hirl_backend_tensor(tape->backend, hirl_shape_3(n_ranks, 2, c), HIRL_F32, &parts),
                  status, done);
    HIRL_TRY_GOTO(gather_ranks(tape, tape->bn_world, tape->bn_device, &mine.both, &parts), status,
                  done);
    status = hirl_op_bn_combine(tape->backend, &parts, mean, var);
done:
    twins_reset(&mine);
    hirl_tensor_reset(&parts);
    return status;
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
    twins_t twins = {0};
    hirl_status_t status = HIRL_OK;
    if (node->u.bn.n_ranks > 1) { // the two sums go to the other ranks together
        HIRL_TRY_GOTO(twins_make(be, s[2].shape.dim[1], &twins), status, done);
        sum_dz = hirl_tensor_retain(&twins.half[0]);
        sum_dz_xhat = hirl_tensor_retain(&twins.half[1]);
    }
    HIRL_TRY_GOTO(hirl_op_bn_backward_sums(be, dy, y, &s[0], node->u.bn.n_groups, &s[2], &s[3],
                                           node->u.bn.eps, &sum_dz, &sum_dz_xhat),
                  status, done);
    if (dgamma)
        HIRL_TRY_GOTO(hirl_op_fold_rows(be, 1.0f, &sum_dz_xhat,
                                        leaf_begin_contribution(dgamma) ? 1.0f : 0.0f,
                                        &dgamma->grad),
                      status, done);
    if (dbeta)
        HIRL_TRY_GOTO(hirl_op_fold_rows(be, 1.0f, &sum_dz,
                                        leaf_begin_contribution(dbeta) ? 1.0f : 0.0f, &dbeta->grad),
                      status, done);
    if (node->u.bn.is_training) {
        if (node->u.bn.n_ranks > 1) HIRL_TRY_GOTO(sum_ranks(tape, &twins.both), status, done);
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
    twins_reset(&twins);
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
        if (n_ranks > 1)
            HIRL_TRY(bn_stats_ranks(tape, &x->value, n_ranks, &mean, &var));
        else
            HIRL_TRY(hirl_op_bn_stats(be, &x->value, n_groups, &mean, &var));
        float m = args->momentum, share = m / (float)n_groups;
        hirl_tensor_t running_mean = args->running_mean, running_var = args->running_var;
        HIRL_TRY_GOTO(hirl_op_fold_rows(be, share, &mean, 1.0f - m, &running_mean), status, done);
        HIRL_TRY_GOTO(hirl_op_fold_rows(be, (float)(share * count / (count - 1)), &var, 1.0f - m,
                                        &running_var),
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
