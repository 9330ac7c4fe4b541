// Nearest rows, best rows, sums by cluster. Exact: other backends give the same bits.

#include "ref_impl.h"

#include <stdlib.h>

// One chain of fused multiply-adds, as backend.h says.
static float product(const float *x, const float *y, int64_t d) {
    float sum = 0;
    for (int64_t j = 0; j < d; ++j) sum = fmaf(x[j], y[j], sum);
    return sum;
}

hirl_status_t ref_nearest_rows(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *c,
                               const hirl_tensor_t *half_norm, hirl_tensor_t *index,
                               hirl_tensor_t *value) {
    const int64_t d = x->shape.dim[1], k = c->shape.dim[0];
    const float *row = hirl_tensor_data(x), *centre = hirl_tensor_data(c);
    const float *half = hirl_tensor_data(half_norm);
    (void)be;
    for (int64_t i = 0; i < x->shape.dim[0]; ++i) {
        float best = INFINITY;
        int32_t best_index = 0;
        for (int64_t j = 0; j < k; ++j) {
            const float distance = half[j] - product(row + i * d, centre + j * d, d);
            if (!(distance < best)) continue;
            best = distance;
            best_index = (int32_t)j;
        }
        ((int32_t *)hirl_tensor_data(index))[i] = best_index;
        if (value) ((float *)hirl_tensor_data(value))[i] = best;
    }
    return HIRL_OK;
}

typedef struct scored {
    float score;
    int32_t index;
} scored_t;

static int compare(const void *a, const void *b) {
    const scored_t *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

hirl_status_t ref_top_rows(hirl_backend_t *be, const hirl_tensor_t *query,
                           const hirl_tensor_t *bank, int64_t k, int64_t piece,
                           hirl_tensor_t *score, hirl_tensor_t *index) {
    const int64_t d = query->shape.dim[1], n = bank->shape.dim[0];
    const float *q = hirl_tensor_data(query), *row = hirl_tensor_data(bank);
    scored_t *all = NULL;
    (void)be;
    (void)piece;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n, &all));
    for (int64_t i = 0; i < query->shape.dim[0]; ++i) {
        for (int64_t j = 0; j < n; ++j) {
            all[j].score = product(q + i * d, row + j * d, d) + 0.0f; // -0 and +0 are one score
            all[j].index = (int32_t)j;
        }
        qsort(all, (size_t)n, sizeof *all, compare);
        for (int64_t j = 0; j < k; ++j) {
            ((float *)hirl_tensor_data(score))[i * k + j] = all[j].score;
            ((int32_t *)hirl_tensor_data(index))[i * k + j] = all[j].index;
        }
    }
    hirl_mem_free(all);
    return HIRL_OK;
}

// To the nearest integer, even on ties, which is the processor's mode unless someone changed it.
static int64_t rounded(double x) { return (int64_t)nearbyint(x); }

hirl_status_t ref_sum_rows(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *index,
                           double scale, bool accumulate, hirl_tensor_t *sum,
                           hirl_tensor_t *count) {
    const int64_t d = x->shape.dim[1], k = sum->shape.dim[0];
    int64_t *to = hirl_tensor_data(sum), *n = hirl_tensor_data(count);
    (void)be;
    if (!accumulate) {
        memset(to, 0, (size_t)(k * d) * sizeof *to);
        memset(n, 0, (size_t)k * sizeof *n);
    }
    for (int64_t i = 0; i < x->shape.dim[0]; ++i) {
        const int64_t cluster = get_i32(index)[i];
        for (int64_t j = 0; j < d; ++j) to[cluster * d + j] += rounded(get(x, i * d + j) * scale);
        ++n[cluster];
    }
    return HIRL_OK;
}

hirl_status_t ref_sum_distances(hirl_backend_t *be, const hirl_tensor_t *x,
                                const hirl_tensor_t *index, const hirl_tensor_t *c, double scale,
                                bool accumulate, hirl_tensor_t *total) {
    const int64_t d = x->shape.dim[1];
    int64_t sum = 0, *to = hirl_tensor_data(total);
    (void)be;
    for (int64_t i = 0; i < x->shape.dim[0]; ++i) {
        double s[8] = {0};
        for (int64_t j = 0; j < d; ++j) {
            const double t = get(x, i * d + j) - get(c, get_i32(index)[i] * d + j);
            s[j % 8] += t * t;
        }
        sum += rounded((((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))) * scale);
    }
    *to = sum + (accumulate ? *to : 0);
    return HIRL_OK;
}
