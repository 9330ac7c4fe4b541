/// @file faiss_engine.c
/// FAISS's exact flat indexes through its C API: the second engine of K-means and KNN, and the
/// reference of the first. Its distances come from a BLAS whose rounding may change with the number
/// of rows in a call, so only the fused engine promises equal bits for all numbers of ranks and
/// threads.

#include "cluster_impl.h"

#include <faiss/c_api/IndexFlat_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <math.h>

// Queries per call: bounds the 64-bit labels that FAISS writes.
enum { CHUNK = 65536 };

#define HIRL_TRY_FAISS(expr)                                                           \
    do {                                                                               \
        if ((expr) != 0) return HIRL_FAIL(HIRL_ERR_FAISS, #expr ": %s", faiss_text()); \
    } while (0)

static const char *faiss_text(void) {
    const char *text = faiss_get_last_error();
    return text ? text : "no text";
}

struct hirl_faiss_index {
    FaissIndex *index;
    int d;
    float *score; // [n_scratch]
    idx_t *label; // [n_scratch]
    int64_t n_scratch;
};

hirl_status_t hirl_faiss_create(int d, bool is_inner_product, hirl_faiss_index_t **index_p) {
    hirl_faiss_index_t *index;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, 1, &index));
    index->d = d;
    const int rc = is_inner_product
                       ? faiss_IndexFlatIP_new_with((FaissIndexFlatIP **)&index->index, d)
                       : faiss_IndexFlatL2_new_with((FaissIndexFlatL2 **)&index->index, d);
    if (rc != 0) {
        const hirl_status_t status = HIRL_FAIL(
            HIRL_ERR_FAISS, "cannot create a flat index of %d columns: %s", d, faiss_text());
        index->index = NULL;
        hirl_faiss_destroy(&index);
        return status;
    }
    *index_p = index;
    return HIRL_OK;
}

void hirl_faiss_destroy(hirl_faiss_index_t **index) {
    if (!*index) return;
    if ((*index)->index) faiss_Index_free((*index)->index);
    hirl_mem_free((*index)->score);
    hirl_mem_free((*index)->label);
    hirl_mem_free(*index);
    *index = NULL;
}

hirl_status_t hirl_faiss_load(hirl_faiss_index_t *index, const float *rows, int64_t n) {
    HIRL_TRY_FAISS(faiss_Index_reset(index->index));
    HIRL_TRY_FAISS(faiss_Index_add(index->index, n, rows));
    return HIRL_OK;
}

static hirl_status_t search(hirl_faiss_index_t *index, const float *x, int64_t n, int64_t k) {
    if (n * k > index->n_scratch) {
        HIRL_TRY(hirl_mem_realloc(HIRL_MEM_CLUSTER, (size_t)(n * k) * sizeof(float),
                                  (void **)&index->score));
        HIRL_TRY(hirl_mem_realloc(HIRL_MEM_CLUSTER, (size_t)(n * k) * sizeof(idx_t),
                                  (void **)&index->label));
        index->n_scratch = n * k;
    }
    HIRL_TRY_FAISS(faiss_Index_search(index->index, n, x, k, index->score, index->label));
    for (int64_t i = 0; i < n * k; i++)
        HIRL_REQUIRE(index->label[i] >= 0, HIRL_ERR_FAISS,
                     "row %lld of a search has no neighbour %lld", (long long)(i / k),
                     (long long)(i % k));
    return HIRL_OK;
}

hirl_status_t hirl_faiss_nearest(hirl_faiss_index_t *index, const float *x, int64_t n,
                                 int32_t *nearest) {
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t n_chunk = n - i < CHUNK ? n - i : CHUNK;
        HIRL_TRY(search(index, x + i * index->d, n_chunk, 1));
        for (int64_t j = 0; j < n_chunk; j++) nearest[i + j] = (int32_t)index->label[j];
    }
    return HIRL_OK;
}

hirl_status_t hirl_faiss_topk(hirl_faiss_index_t *index, const float *query, int64_t n,
                              int64_t first_index, int64_t k, uint64_t *keys) {
    uint64_t *scratch;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, k, &scratch));
    hirl_status_t status = HIRL_OK;
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t n_chunk = n - i < CHUNK ? n - i : CHUNK;
        HIRL_TRY_GOTO(search(index, query + i * index->d, n_chunk, k), status, end);
        for (int64_t j = 0; j < n_chunk; j++) {
            uint64_t *list = keys + (i + j) * k;
            for (int64_t m = 0; m < k; m++)
                list[m] = hirl_key_make(index->score[j * k + m],
                                        (uint32_t)(first_index + index->label[j * k + m]));
            hirl_topk_sort(list, k, k, scratch);
        }
    }
end:
    hirl_mem_free(scratch);
    return status;
}
