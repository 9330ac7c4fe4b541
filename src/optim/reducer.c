// Bucketed gradient reduction that overlaps the backward pass. Buckets are views of the gradient slabs, cut from their ends, since the last
// declared parameters are the first whose gradients are complete. All ranks run the same graph, so buckets fill in the same order everywhere.

#include "hirl/optim.h"

typedef struct bucket {
    int registry;
    int first_param, end_param; // [first, end) of the registry, buffers skipped
    int64_t offset, count;      // of the slab
    int n_params, n_missing;
    bool is_begun;
    hirl_par_request_t *request;
} bucket_t;

struct hirl_reducer {
    hirl_world_t *world;
    hirl_tape_t *tape;
    hirl_registry_t **registries;
    int n_registries;
    bucket_t *buckets;
    int n_buckets, capacity;
    int *bucket_of; // by leaf id
    int n_leaves;
    bool is_armed;
    double wait_seconds;
};

static hirl_status_t bucket_push(hirl_reducer_t *reducer, const bucket_t *bucket) {
    if (reducer->n_buckets == reducer->capacity) {
        int capacity = reducer->capacity ? 2 * reducer->capacity : 16;
        HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)capacity * sizeof *reducer->buckets,
                                  (void **)&reducer->buckets));
        reducer->capacity = capacity;
    }
    reducer->buckets[reducer->n_buckets++] = *bucket;
    return HIRL_OK;
}

static hirl_status_t cut_buckets(hirl_reducer_t *reducer, int registry, int64_t bucket_elements,
                                 int first_id) {
    hirl_registry_t *r = reducer->registries[registry];
    bucket_t bucket = {0};
    for (int i = hirl_registry_n_params(r) - 1; i >= 0; --i) {
        hirl_param_t *param = hirl_registry_param(r, i);
        if (param->is_buffer) continue;
        if (bucket.n_params == 0) bucket = (bucket_t){.registry = registry, .end_param = i + 1};
        bucket.count =
            bucket.n_params == 0 ? param->count : bucket.offset + bucket.count - param->offset;
        bucket.offset = param->offset;
        bucket.first_param = i;
        ++bucket.n_params;
        hirl_var_set_id(param->var, first_id + i);
        reducer->bucket_of[first_id + i] = reducer->n_buckets;
        if (bucket.count >= bucket_elements) {
            HIRL_TRY(bucket_push(reducer, &bucket));
            bucket = (bucket_t){0};
        }
    }
    return bucket.n_params ? bucket_push(reducer, &bucket) : HIRL_OK;
}

static hirl_status_t bucket_begin(hirl_reducer_t *reducer, bucket_t *bucket) {
    const hirl_tensor_t *slab = hirl_registry_grads_view(reducer->registries[bucket->registry]);
    bucket->is_begun = true;
    hirl_par_device_t *device = hirl_tape_device_view(reducer->tape);
    if (device)
        return hirl_par_device_all_reduce_begin(device, hirl_tensor_f32(slab) + bucket->offset,
                                                bucket->count);
    if (hirl_storage_space(slab->storage) == HIRL_SPACE_DEVICE) {
        hirl_tensor_t part = {0};
        HIRL_TRY(hirl_tensor_rows(slab, bucket->offset, bucket->count, &part));
        const hirl_status_t status = hirl_tape_sum_by_host(reducer->tape, reducer->world, &part);
        hirl_tensor_reset(&part);
        return status;
    }
    return hirl_par_all_reduce_begin(reducer->world, hirl_tensor_f32(slab) + bucket->offset,
                                     bucket->count, &bucket->request);
}

static hirl_status_t leaf_ready(void *ctx, int64_t id) {
    hirl_reducer_t *reducer = ctx;
    if (!reducer->is_armed) return HIRL_OK;
    bucket_t *bucket = &reducer->buckets[reducer->bucket_of[id]];
    if (--bucket->n_missing > 0) return HIRL_OK;
    return bucket_begin(reducer, bucket);
}

hirl_status_t hirl_reducer_create(hirl_world_t *world, hirl_tape_t *tape, double bucket_mib,
                                  hirl_registry_t *const *registries, int n,
                                  hirl_reducer_t **reducer_p) {
    hirl_reducer_t *r = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &r));
    r->world = world;
    r->tape = tape;
    r->n_registries = n;
    for (int i = 0; i < n; ++i) r->n_leaves += hirl_registry_n_params(registries[i]);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, n, &r->registries), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, r->n_leaves, &r->bucket_of), status, err);
    for (int i = 0, first_id = 0; i < n; ++i) {
        r->registries[i] = registries[i];
        HIRL_TRY_GOTO(
            cut_buckets(r, i, (int64_t)(bucket_mib * 1048576.0 / sizeof(float)), first_id), status,
            err);
        first_id += hirl_registry_n_params(registries[i]);
    }
    if (hirl_world_size(world) > 1) hirl_tape_set_leaf_ready(tape, leaf_ready, r);
    *reducer_p = r;
    return HIRL_OK;
err:
    hirl_reducer_destroy(&r);
    return status;
}

void hirl_reducer_destroy(hirl_reducer_t **reducer) {
    if (!reducer || !*reducer) return;
    hirl_reducer_t *r = *reducer;
    hirl_tape_set_leaf_ready(r->tape, NULL, NULL);
    hirl_mem_free(r->buckets);
    hirl_mem_free(r->bucket_of);
    hirl_mem_free(r->registries);
    hirl_mem_free(r);
    *reducer = NULL;
}

hirl_status_t hirl_reducer_begin(hirl_reducer_t *reducer) {
    for (int i = 0; i < reducer->n_buckets; ++i) {
        reducer->buckets[i].n_missing = reducer->buckets[i].n_params;
        reducer->buckets[i].is_begun = false;
    }
    reducer->is_armed = true;
    return HIRL_OK;
}

// Clears what nobody contributed to in a bucket that others did; true if anything is there to reduce.
static hirl_status_t bucket_complete(hirl_reducer_t *reducer, bucket_t *bucket, bool *has_any_p) {
    hirl_registry_t *r = reducer->registries[bucket->registry];
    *has_any_p = false;
    for (int i = bucket->first_param; i < bucket->end_param; ++i) {
        hirl_param_t *param = hirl_registry_param(r, i);
        if (!param->is_buffer && hirl_var_has_grad(param->var)) *has_any_p = true;
    }
    for (int i = bucket->first_param; *has_any_p && i < bucket->end_param; ++i) {
        hirl_param_t *param = hirl_registry_param(r, i);
        if (!param->is_buffer && !hirl_var_has_grad(param->var))
            HIRL_TRY(hirl_op_fill(hirl_tape_backend_view(reducer->tape), 0.0f, &param->grad));
    }
    return HIRL_OK;
}

hirl_status_t hirl_reducer_end(hirl_reducer_t *reducer) {
    reducer->is_armed = false;
    if (hirl_world_size(reducer->world) == 1) return HIRL_OK;
    double start = hirl_time_now();
    for (int i = 0; i < reducer->n_buckets; ++i) {
        bucket_t *bucket = &reducer->buckets[i];
        bool has_any = false;
        if (bucket->is_begun) continue;
        HIRL_TRY(bucket_complete(reducer, bucket, &has_any));
        if (has_any) HIRL_TRY(bucket_begin(reducer, bucket));
    }
    hirl_par_device_t *device = hirl_tape_device_view(reducer->tape);
    if (device) HIRL_TRY(hirl_par_device_all_reduce_end(device));
    for (int i = 0; i < reducer->n_buckets; ++i)
        if (reducer->buckets[i].request)
            HIRL_TRY(hirl_par_all_reduce_end(reducer->world, &reducer->buckets[i].request));
    reducer->wait_seconds += hirl_time_now() - start;
    return HIRL_OK;
}

double hirl_reducer_wait_seconds(const hirl_reducer_t *reducer) { return reducer->wait_seconds; }
