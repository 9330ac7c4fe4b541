/// The backend object: opening one by name, its facts, and moving data in and out of its memory.
#include "backend_impl.h"

#include <string.h>

static hirl_status_t open_one(const hirl_backend_ops_t *ops, const hirl_backend_options_t *options,
                              hirl_backend_t **backend_p) {
    hirl_backend_t *be = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &be));
    const hirl_status_t status = ops->open(options, &be->ctx, &be->allocator);
    if (status != HIRL_OK) {
        hirl_mem_free(be);
        return status;
    }
    be->ops = ops;
    *backend_p = be;
    return HIRL_OK;
}

hirl_status_t hirl_backend_create(const char *name, int n_threads, hirl_backend_t **backend_p) {
    return hirl_backend_open(name, &(hirl_backend_options_t){.n_threads = n_threads}, backend_p);
}

int hirl_backend_n_devices(const char *name) {
    for (int i = 0; i < hirl_backend_registry_count; ++i) {
        const hirl_backend_ops_t *ops = hirl_backend_registry[i];
        const int n = ops->n_devices ? ops->n_devices() : 1;
        if (strcmp(name, hirl_backend_registry_names[i]) == 0) return n;
        if (strcmp(name, "auto") == 0 && n > 0) return n;
    }
    return 0;
}

hirl_status_t hirl_backend_open(const char *name, const hirl_backend_options_t *options,
                                hirl_backend_t **backend_p) {
    static const hirl_backend_options_t none;
    if (!options) options = &none;
    const int n_threads = options->n_threads;
    HIRL_REQUIRE(name && backend_p, HIRL_ERR_ARG, "backend: name and output must be given");
    HIRL_REQUIRE(n_threads >= 0 && n_threads <= 4096, HIRL_ERR_ARG,
                 "backend '%s': %d threads, want 0 (default) .. 4096", name, n_threads);
    if (strcmp(name, "auto") == 0) {
        for (int i = 0; i < hirl_backend_registry_count; ++i) {
            if (open_one(hirl_backend_registry[i], options, backend_p) == HIRL_OK) return HIRL_OK;
            hirl_log_root(HIRL_LOG_DEBUG, "backend '%s' does not open here: %s",
                          hirl_backend_registry_names[i], hirl_error_text_view());
        }
        return HIRL_FAIL(HIRL_ERR_UNSUPPORTED,
                         "no backend opens on this machine; the last one said: %s",
                         hirl_error_text_view());
    }
    for (int i = 0; i < hirl_backend_registry_count; ++i)
        if (strcmp(name, hirl_backend_registry_names[i]) == 0)
            return open_one(hirl_backend_registry[i], options, backend_p);
    const int nearest =
        hirl_text_nearest(name, hirl_backend_registry_names, hirl_backend_registry_count);
    hirl_text_t list = {0};
    hirl_status_t status = hirl_text_append(&list, "auto");
    for (int i = 0; i < hirl_backend_registry_count && status == HIRL_OK; ++i)
        status = hirl_text_append(&list, ", %s", hirl_backend_registry_names[i]);
    status = HIRL_FAIL(
        HIRL_ERR_ARG, "backend '%s' is not built in (built in: %s)%s%s%s%s", name,
        list.data ? list.data : "", strcmp(name, "cuda") == 0 ? "; build with make CUDA=1" : "",
        nearest >= 0 ? "; did you mean '" : "",
        nearest >= 0 ? hirl_backend_registry_names[nearest] : "", nearest >= 0 ? "'?" : "");
    hirl_text_reset(&list);
    return status;
}

void hirl_backend_destroy(hirl_backend_t **backend) {
    if (!backend || !*backend) return;
    (*backend)->ops->close((*backend)->ctx);
    hirl_mem_free(*backend);
    *backend = NULL;
}

const char *hirl_backend_name(const hirl_backend_t *backend) { return backend->ops->name; }

bool hirl_backend_has_dtype(const hirl_backend_t *backend, hirl_dtype_t dtype) {
    return dtype == HIRL_F32 || dtype == HIRL_BF16 || (dtype == HIRL_F16 && backend->ops->has_f16);
}
const char *hirl_backend_info_view(const hirl_backend_t *backend) {
    return backend->ops->info_view(backend->ctx);
}
const char *hirl_backend_device_id_view(const hirl_backend_t *backend) {
    return backend->ops->device_id_view ? backend->ops->device_id_view(backend->ctx) : "";
}
void *hirl_backend_stream_view(const hirl_backend_t *backend) {
    return backend->ops->stream_view ? backend->ops->stream_view(backend->ctx) : NULL;
}
const hirl_allocator_t *hirl_backend_allocator_view(const hirl_backend_t *backend) {
    return backend->allocator;
}
const hirl_allocator_t *hirl_backend_host_allocator_view(const hirl_backend_t *backend) {
    return backend->ops->host_allocator_view ? backend->ops->host_allocator_view(backend->ctx)
                                             : NULL;
}
size_t hirl_backend_memory_used(const hirl_backend_t *backend) {
    return backend->ops->memory_used(backend->ctx);
}
size_t hirl_backend_memory_peak(const hirl_backend_t *backend) {
    return backend->ops->memory_peak(backend->ctx);
}
void *hirl_backend_ctx(const hirl_backend_t *be) { return be->ctx; }

const char *const *hirl_backend_names(int *n_p) {
    if (n_p) *n_p = hirl_backend_registry_count;
    return hirl_backend_registry_names;
}

// ---------------------------------------------------------------------------------------------- moving data

hirl_status_t hirl_backend_tensor(hirl_backend_t *be, hirl_shape_t shape, hirl_dtype_t dtype,
                                  hirl_tensor_t *tensor_p) {
    HIRL_REQUIRE(be, HIRL_ERR_ARG, "tensor: no backend given");
    return hirl_tensor_create(be->allocator, shape, dtype, tensor_p);
}

static hirl_status_t require_plain(const hirl_backend_t *be, const char *what,
                                   const hirl_tensor_t *tensor, const void *host) {
    HIRL_REQUIRE(be && hirl_tensor_is_set(tensor), HIRL_ERR_ARG, "%s: no backend or tensor given",
                 what);
    char text[128];
    HIRL_REQUIRE(hirl_tensor_is_plain(tensor), HIRL_ERR_ARG,
                 "%s: %s has an opaque layout; convert it with hirl_op_to_plain first", what,
                 hirl_shape_text(&tensor->shape, text));
    HIRL_REQUIRE(host || hirl_tensor_count(tensor) == 0, HIRL_ERR_ARG, "%s: host memory is NULL",
                 what);
    return HIRL_OK;
}

static size_t bytes_of(const hirl_tensor_t *tensor) {
    return (size_t)hirl_tensor_count(tensor) * hirl_dtype_size(tensor->dtype);
}

static hirl_status_t upload(hirl_backend_t *be, const void *host, const hirl_tensor_t *tensor) {
    if (be->ops->upload) return be->ops->upload(be, host, tensor);
    HIRL_REQUIRE(be->ops->is_host, HIRL_ERR_UNSUPPORTED, "backend '%s' cannot upload",
                 be->ops->name);
    if (bytes_of(tensor) > 0) memcpy(hirl_tensor_data(tensor), host, bytes_of(tensor));
    return HIRL_OK;
}

hirl_status_t hirl_backend_upload(hirl_backend_t *be, const void *host,
                                  const hirl_tensor_t *tensor) {
    HIRL_TRY(require_plain(be, "upload", tensor, host));
    const double begin = hirl_time_now();
    HIRL_TRY(upload(be, host, tensor));
    be->upload_seconds += hirl_time_now() - begin;
    return HIRL_OK;
}

double hirl_backend_upload_seconds(const hirl_backend_t *be) { return be->upload_seconds; }

hirl_status_t hirl_backend_download(hirl_backend_t *be, const hirl_tensor_t *tensor, void *host) {
    HIRL_TRY(require_plain(be, "download", tensor, host));
    if (be->ops->download) return be->ops->download(be, tensor, host);
    HIRL_REQUIRE(be->ops->is_host, HIRL_ERR_UNSUPPORTED, "backend '%s' cannot download",
                 be->ops->name);
    if (bytes_of(tensor) > 0) memcpy(host, hirl_tensor_data(tensor), bytes_of(tensor));
    return HIRL_OK;
}

hirl_status_t hirl_backend_synchronize(hirl_backend_t *be) {
    HIRL_REQUIRE(be, HIRL_ERR_ARG, "synchronize: no backend given");
    return be->ops->synchronize ? be->ops->synchronize(be) : HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- beside the operations

struct hirl_upload {
    hirl_backend_t *be; // HIRL_BORROW
    void *state;        // the backend's
};

hirl_status_t hirl_upload_create(hirl_backend_t *be, hirl_upload_t **upload_p) {
    hirl_upload_t *upload = NULL;
    HIRL_REQUIRE(be && upload_p, HIRL_ERR_ARG, "upload: backend and output must be given");
    HIRL_REQUIRE(be->ops->upload_create, HIRL_ERR_UNSUPPORTED,
                 "backend '%s' has no uploads beside its operations", be->ops->name);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &upload));
    upload->be = be;
    const hirl_status_t status = be->ops->upload_create(be, &upload->state);
    if (status != HIRL_OK) {
        hirl_mem_free(upload);
        return status;
    }
    *upload_p = upload;
    return HIRL_OK;
}

void hirl_upload_destroy(hirl_upload_t **upload) {
    if (!upload || !*upload) return;
    (*upload)->be->ops->upload_destroy((*upload)->be, (*upload)->state);
    hirl_mem_free(*upload);
    *upload = NULL;
}

hirl_status_t hirl_upload_begin(hirl_upload_t *upload, const void *host,
                                const hirl_tensor_t *tensor) {
    hirl_backend_t *be = upload->be;
    HIRL_TRY(require_plain(be, "upload", tensor, host));
    return be->ops->upload_begin(be, upload->state, host, tensor);
}

hirl_status_t hirl_upload_end(hirl_upload_t *upload) {
    return upload->be->ops->upload_end(upload->be, upload->state);
}

hirl_status_t hirl_upload_release(hirl_upload_t *upload) {
    return upload->be->ops->upload_release(upload->be, upload->state);
}

hirl_status_t hirl_backend_weights_begin(hirl_backend_t *be, const hirl_tensor_t *const *slab,
                                         int n) {
    HIRL_REQUIRE(be && (slab || n == 0) && n >= 0, HIRL_ERR_ARG, "weights: %d slabs", n);
    for (int i = 0; i < n; ++i)
        HIRL_REQUIRE(hirl_tensor_is_set(slab[i]) && slab[i]->dtype == HIRL_F32, HIRL_ERR_ARG,
                     "weights: slab %d has no f32 storage", i);
    return be->ops->weights_begin ? be->ops->weights_begin(be, slab, n) : HIRL_OK;
}

void hirl_backend_weights_end(hirl_backend_t *be) {
    if (be->ops->weights_end) be->ops->weights_end(be);
}

struct hirl_graph {
    hirl_backend_t *be; // HIRL_BORROW
    void *state;        // the backend's
};

bool hirl_backend_can_capture(const hirl_backend_t *be) { return be->ops->capture_begin != NULL; }

hirl_status_t hirl_backend_capture_begin(hirl_backend_t *be) {
    HIRL_REQUIRE(be && be->ops->capture_begin, HIRL_ERR_UNSUPPORTED,
                 "backend '%s' cannot record operations", be ? be->ops->name : "");
    return be->ops->capture_begin(be, &be->allocator);
}

hirl_status_t hirl_backend_capture_end(hirl_backend_t *be, hirl_graph_t **graph_p) {
    hirl_graph_t *graph = NULL;
    hirl_status_t status = graph_p ? HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &graph) : HIRL_OK;
    // The recording ends in any case.
    const hirl_status_t ended =
        be->ops->capture_end(be, &be->allocator, graph ? &graph->state : NULL);
    if (status == HIRL_OK) status = ended;
    if (status != HIRL_OK) {
        hirl_mem_free(graph);
        return status;
    }
    if (!graph) return HIRL_OK;
    graph->be = be;
    *graph_p = graph;
    return HIRL_OK;
}

hirl_status_t hirl_graph_launch(hirl_graph_t *graph) {
    return graph->be->ops->graph_launch(graph->be, graph->state);
}

void hirl_graph_destroy(hirl_graph_t **graph) {
    if (!graph || !*graph) return;
    (*graph)->be->ops->graph_destroy((*graph)->be, (*graph)->state);
    hirl_mem_free(*graph);
    *graph = NULL;
}

hirl_status_t hirl_backend_mark(hirl_backend_t *be, int mark) {
    HIRL_REQUIRE(be && mark >= 0 && mark < HIRL_N_MARKS, HIRL_ERR_ARG, "mark %d, want 0..%d", mark,
                 HIRL_N_MARKS - 1);
    if (be->ops->mark) return be->ops->mark(be, mark);
    be->mark[mark] = hirl_time_now();
    return HIRL_OK;
}

hirl_status_t hirl_backend_mark_seconds(hirl_backend_t *be, int from, int to, double *seconds_p) {
    HIRL_REQUIRE(be && from >= 0 && from < HIRL_N_MARKS && to >= 0 && to < HIRL_N_MARKS,
                 HIRL_ERR_ARG, "marks %d and %d, want 0..%d", from, to, HIRL_N_MARKS - 1);
    if (be->ops->mark_seconds) return be->ops->mark_seconds(be, from, to, seconds_p);
    *seconds_p = be->mark[to] - be->mark[from];
    return HIRL_OK;
}
