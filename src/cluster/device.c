/// @file device.c
/// Clustering and search with a backend's operations: rows stay in the device's memory, centroids and queries go there, and sums and lists come
/// back. Products are the same chains of fused multiply-adds and sums the same integers as on the processor, so all results
/// have the same bits (where the processor has fused multiply-adds, see simd_impl.h).

#include "cluster_impl.h"

enum { LEAST_ROWS = 1024 }; // fewer at once would keep no device busy

hirl_backend_t *hirl_cluster_device_of(hirl_backend_t *be) {
    return be && hirl_backend_allocator_view(be)->space == HIRL_SPACE_DEVICE ? be : NULL;
}

// ------------------------------------------------------------------------------------ rows

void hirl_device_rows_reset(hirl_device_rows_t *rows) {
    hirl_tensor_reset(&rows->data);
    *rows = (hirl_device_rows_t){0};
}

// Memory for as many rows as there is room for.
static hirl_status_t find_room(hirl_device_rows_t *rows) {
    rows->piece = rows->n;
    for (;;) {
        const hirl_status_t status = hirl_backend_tensor(
            rows->be, hirl_shape_2(rows->piece, rows->d), HIRL_F32, &rows->data);
        if (status != HIRL_ERR_MEMORY || rows->piece <= LEAST_ROWS) return status;
        rows->piece = rows->piece / 2 > LEAST_ROWS ? rows->piece / 2 : LEAST_ROWS;
    }
}

hirl_status_t hirl_device_rows_init(hirl_device_rows_t *rows, hirl_backend_t *be, const char *what,
                                    const float *x, int64_t n, int d, int64_t reserve) {
    hirl_device_rows_t r = {.be = be, .host = x, .n = n, .d = d};
    hirl_tensor_t reserved = {0};
    hirl_status_t status = HIRL_OK;
    if (n > 0) {
        // What is given back stays with the backend, for the work to come.
        HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(reserve / 4 + 1), HIRL_F32, &reserved));
        status = find_room(&r);
        hirl_tensor_reset(&reserved);
        HIRL_TRY(status);
        if (r.piece == n) HIRL_TRY_GOTO(hirl_backend_upload(be, x, &r.data), status, err);
        const double row_bytes = (double)d * sizeof(float);
        char all[32], piece[32];
        hirl_log_rank(
            r.piece < n ? HIRL_LOG_WARN : HIRL_LOG_DEBUG,
            "%s on the device: %lld rows, %s, in %lld pieces of %s%s", what, (long long)n,
            hirl_text_bytes(all, (double)n * row_bytes), (long long)((n + r.piece - 1) / r.piece),
            hirl_text_bytes(piece, (double)r.piece * row_bytes),
            r.piece < n ? " that are sent anew for each pass, as its memory holds no more" : "");
    }
    *rows = r;
    return HIRL_OK;
err:
    hirl_device_rows_reset(&r);
    return status;
}

hirl_status_t hirl_device_rows_take(const hirl_device_rows_t *rows, int64_t first,
                                    hirl_tensor_t *view_p) {
    const int64_t n = rows->n - first < rows->piece ? rows->n - first : rows->piece;
    hirl_tensor_t view = {0};
    HIRL_TRY(hirl_tensor_rows(&rows->data, 0, n, &view));
    if (rows->piece < rows->n) {
        const hirl_status_t status =
            hirl_backend_upload(rows->be, rows->host + first * rows->d, &view);
        if (status != HIRL_OK) {
            hirl_tensor_reset(&view);
            return status;
        }
    }
    *view_p = view;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ centroids

void hirl_device_centroids_reset(hirl_device_centroids_t *c) {
    hirl_tensor_reset(&c->data);
    hirl_tensor_reset(&c->half_norm);
    hirl_mem_free(c->host_half_norm);
    *c = (hirl_device_centroids_t){0};
}

hirl_status_t hirl_device_centroids_init(hirl_device_centroids_t *c, hirl_backend_t *be, int64_t k,
                                         int d) {
    hirl_device_centroids_t made = {.be = be};
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_2(k, d), HIRL_F32, &made.data), status, err);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(k), HIRL_F32, &made.half_norm), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k, &made.host_half_norm), status, err);
    *c = made;
    return HIRL_OK;
err:
    hirl_device_centroids_reset(&made);
    return status;
}

hirl_status_t hirl_device_centroids_load(hirl_device_centroids_t *c, const float *centroids) {
    const int64_t k = c->data.shape.dim[0];
    const int d = (int)c->data.shape.dim[1];
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < k; i++)
        c->host_half_norm[i] = (float)(hirl_row_norm_sq(centroids + i * d, d) / 2);
    HIRL_TRY(hirl_backend_upload(c->be, centroids, &c->data));
    return hirl_backend_upload(c->be, c->host_half_norm, &c->half_norm);
}

hirl_status_t hirl_device_assign(hirl_backend_t *be, const float *x, int64_t n, int d,
                                 const float *centroids, int64_t k, int32_t *assign) {
    hirl_device_centroids_t c = {0};
    hirl_device_rows_t rows = {0};
    hirl_tensor_t index = {0}, view = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_device_centroids_init(&c, be, k, d), status, end);
    HIRL_TRY_GOTO(hirl_device_centroids_load(&c, centroids), status, end);
    HIRL_TRY_GOTO(hirl_device_rows_init(&rows, be, "rows to assign", x, n, d,
                                        HIRL_DEVICE_RESERVE + n * (int64_t)sizeof(int32_t)),
                  status, end);
    for (int64_t first = 0; first < n; first += rows.piece) {
        HIRL_TRY_GOTO(hirl_device_rows_take(&rows, first, &view), status, end);
        HIRL_TRY_GOTO(hirl_op_nearest_rows(be, &view, &c.data, &c.half_norm, &index, NULL), status,
                      end);
        HIRL_TRY_GOTO(hirl_backend_download(be, &index, assign + first), status, end);
        hirl_tensor_reset(&index);
        hirl_tensor_reset(&view);
    }
end:
    hirl_tensor_reset(&index);
    hirl_tensor_reset(&view);
    hirl_device_rows_reset(&rows);
    hirl_device_centroids_reset(&c);
    return status;
}

// ------------------------------------------------------------------------------------ Lloyd's iteration

struct hirl_device_lloyd {
    hirl_backend_t *be;
    hirl_device_rows_t rows;
    hirl_device_centroids_t centroids;
    hirl_tensor_t index;             // [rows.piece]
    hirl_tensor_t sum, count, total; // i64 [k, d], [k], [1]
};

void hirl_device_lloyd_destroy(hirl_device_lloyd_t **lloyd) {
    if (!*lloyd) return;
    hirl_device_rows_reset(&(*lloyd)->rows);
    hirl_device_centroids_reset(&(*lloyd)->centroids);
    hirl_tensor_reset(&(*lloyd)->index);
    hirl_tensor_reset(&(*lloyd)->sum);
    hirl_tensor_reset(&(*lloyd)->count);
    hirl_tensor_reset(&(*lloyd)->total);
    hirl_mem_free(*lloyd);
    *lloyd = NULL;
}

hirl_status_t hirl_device_lloyd_create(hirl_backend_t *be, const float *x, int64_t n, int d,
                                       int64_t k, hirl_device_lloyd_t **lloyd_p) {
    hirl_device_lloyd_t *l = NULL;
    hirl_status_t status;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, 1, &l));
    l->be = be;
    HIRL_TRY_GOTO(hirl_device_centroids_init(&l->centroids, be, k, d), status, err);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_2(k, d), HIRL_I64, &l->sum), status, err);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(k), HIRL_I64, &l->count), status, err);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(1), HIRL_I64, &l->total), status, err);
    HIRL_TRY_GOTO(hirl_device_rows_init(&l->rows, be, "rows to cluster", x, n, d,
                                        HIRL_DEVICE_RESERVE + n * (int64_t)sizeof(int32_t)),
                  status, err);
    if (n > 0)
        HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(l->rows.piece), HIRL_I32, &l->index),
                      status, err);
    *lloyd_p = l;
    return HIRL_OK;
err:
    hirl_device_lloyd_destroy(&l);
    return status;
}

// Adds rows [first, first + a piece) to the sums.
static hirl_status_t add_piece(hirl_device_lloyd_t *l, int64_t first, double scale,
                               double objective_scale) {
    hirl_tensor_t x = {0}, index = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_device_rows_take(&l->rows, first, &x), status, end);
    HIRL_TRY_GOTO(hirl_tensor_rows(&l->index, 0, x.shape.dim[0], &index), status, end);
    HIRL_TRY_GOTO(
        hirl_op_nearest_rows(l->be, &x, &l->centroids.data, &l->centroids.half_norm, &index, NULL),
        status, end);
    HIRL_TRY_GOTO(hirl_op_sum_rows(l->be, &x, &index, scale, first > 0, &l->sum, &l->count), status,
                  end);
    if (objective_scale > 0)
        HIRL_TRY_GOTO(hirl_op_sum_distances(l->be, &x, &index, &l->centroids.data, objective_scale,
                                            first > 0, &l->total),
                      status, end);
end:
    hirl_tensor_reset(&index);
    hirl_tensor_reset(&x);
    return status;
}

hirl_status_t hirl_device_lloyd_run(hirl_device_lloyd_t *l, const float *centroids, double scale,
                                    double objective_scale, int64_t *sum) {
    const int64_t n = l->rows.n, k = l->sum.shape.dim[0], d = l->sum.shape.dim[1];
    if (n == 0) {
        memset(sum, 0, (size_t)(k * d + k + 1) * sizeof(*sum));
        return HIRL_OK;
    }
    HIRL_TRY(hirl_device_centroids_load(&l->centroids, centroids));
    for (int64_t first = 0; first < n; first += l->rows.piece)
        HIRL_TRY(add_piece(l, first, scale, objective_scale));
    HIRL_TRY(hirl_backend_download(l->be, &l->sum, sum));
    HIRL_TRY(hirl_backend_download(l->be, &l->count, sum + k * d));
    sum[k * d + k] = 0;
    if (objective_scale > 0) HIRL_TRY(hirl_backend_download(l->be, &l->total, sum + k * d + k));
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ top-k

// Lists of the queries from the rows in memory: index of the first of them, keys [n, k].
static hirl_status_t search_piece(hirl_backend_t *be, const hirl_tensor_t *query,
                                  const hirl_tensor_t *bank, int64_t first_index, int64_t k,
                                  float *host_score, int32_t *host_index, uint64_t *keys) {
    hirl_tensor_t score = {0}, index = {0};
    hirl_status_t status;
    const int64_t n = query->shape.dim[0];
    HIRL_TRY_GOTO(hirl_op_top_rows(be, query, bank, k, 0, &score, &index), status, end);
    HIRL_TRY_GOTO(hirl_backend_download(be, &score, host_score), status, end);
    HIRL_TRY_GOTO(hirl_backend_download(be, &index, host_index), status, end);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n * k; i++)
        keys[i] = hirl_key_make(host_score[i], (uint32_t)(first_index + host_index[i]));
end:
    hirl_tensor_reset(&index);
    hirl_tensor_reset(&score);
    return status;
}

// keys [n, k]: of each list, n_held of them so far, and the n_part of part [n, n_part], the best.
static void merge_lists(uint64_t *keys, int64_t n, int64_t k, int64_t n_held, const uint64_t *part,
                        int64_t n_part, uint64_t *scratch) {
    const int64_t n_out = n_held + n_part < k ? n_held + n_part : k;
    for (int64_t q = 0; q < n; q++) {
        hirl_topk_merge(keys + q * k, n_held, part + q * n_part, n_part, scratch, n_out);
        memcpy(keys + q * k, scratch, (size_t)n_out * sizeof(*scratch));
    }
}

hirl_status_t hirl_device_topk(const hirl_device_rows_t *bank, const float *query, int64_t n,
                               int64_t first_index, int64_t k, uint64_t *keys) {
    hirl_backend_t *be = bank->be;
    hirl_tensor_t x = {0}, view = {0};
    float *score = NULL;
    int32_t *index = NULL;
    uint64_t *part = NULL, *scratch = NULL;
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_2(n, bank->d), HIRL_F32, &x), status, end);
    HIRL_TRY_GOTO(hirl_backend_upload(be, query, &x), status, end);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n * k, &score), status, end);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n * k, &index), status, end);
    if (bank->piece < bank->n) {
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n * k, &part), status, end);
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k, &scratch), status, end);
    }
    int64_t n_held = 0;
    for (int64_t first = 0; first < bank->n; first += bank->piece) {
        HIRL_TRY_GOTO(hirl_device_rows_take(bank, first, &view), status, end);
        const int64_t n_part = view.shape.dim[0] < k ? view.shape.dim[0] : k;
        HIRL_TRY_GOTO(search_piece(be, &x, &view, first_index + first, n_part, score, index,
                                   part ? part : keys),
                      status, end);
        if (part) merge_lists(keys, n, k, n_held, part, n_part, scratch);
        n_held = n_held + n_part < k ? n_held + n_part : k;
        hirl_tensor_reset(&view);
    }
end:
    hirl_mem_free(scratch);
    hirl_mem_free(part);
    hirl_mem_free(index);
    hirl_mem_free(score);
    hirl_tensor_reset(&view);
    hirl_tensor_reset(&x);
    return status;
}
