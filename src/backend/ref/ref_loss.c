// Cross entropy, and the semantic path discrimination loss of HIRL (Xu et al. 2022, eq. 3-5).

#include "ref_impl.h"

hirl_status_t ref_cross_entropy(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                const hirl_tensor_t *target, hirl_tensor_t *loss,
                                hirl_tensor_t *lse, hirl_tensor_t *correct) {
    int64_t n = logits->shape.dim[0], k = logits->shape.dim[1], n_correct = 0;
    double total = 0;
    (void)be;
    for (int64_t r = 0; r < n; ++r) {
        double top = -INFINITY, sum = 0, own = get(logits, r * k + get_i32(target)[r]);
        int64_t n_as_large = 0;
        for (int64_t i = 0; i < k; ++i) {
            top = fmax(top, (double)scale * get(logits, r * k + i));
            n_as_large += get(logits, r * k + i) >= own;
        }
        for (int64_t i = 0; i < k; ++i) sum += exp((double)scale * get(logits, r * k + i) - top);
        double value = top + log(sum);
        total += value - (double)scale * own;
        n_correct += n_as_large == 1;
        set(lse, r, value);
    }
    set(loss, 0, total / (double)n);
    if (correct) set(correct, 0, (double)n_correct / (double)n);
    return HIRL_OK;
}

hirl_status_t ref_cross_entropy_backward(hirl_backend_t *be, const hirl_tensor_t *logits,
                                         float scale, const hirl_tensor_t *target,
                                         const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                         hirl_tensor_t *dlogits) {
    int64_t n = logits->shape.dim[0], k = logits->shape.dim[1];
    double factor = get(dloss, 0) * (double)scale / (double)n;
    (void)be;
    for (int64_t at = 0; at < n * k; ++at) {
        double p = exp((double)scale * get(logits, at) - get(lse, at / k));
        set(dlogits, at, factor * (p - (at % k == get_i32(target)[at / k] ? 1.0 : 0.0)));
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- paths

static const double path_eps = 1e-6;

// prod over levels, without level `skip` (-1: none), of (1 + u_l) / 2 along a path
static double path_product(int n_levels, const hirl_tensor_t *const *u, int64_t sample,
                           const int32_t *path, int skip) {
    double product = 1;
    for (int l = 0; l < n_levels; ++l)
        if (l != skip) product *= (1.0 + get(u[l], sample * u[l]->shape.dim[1] + path[l])) / 2;
    return product;
}

static bool is_same_path(int n_levels, const int32_t *a, const int32_t *b) {
    return memcmp(a, b, (size_t)n_levels * sizeof *a) == 0;
}

static double kept_paths(int n_levels, const int32_t *positive, const int32_t *negative,
                         int64_t m) {
    double kept = 0;
    for (int64_t j = 0; j < m; ++j)
        kept += !is_same_path(n_levels, positive, negative + j * n_levels);
    return kept;
}

hirl_status_t ref_path_loss(hirl_backend_t *be, int n_levels,
                            const hirl_tensor_t *const *similarity, const hirl_tensor_t *positive,
                            const hirl_tensor_t *negative, hirl_tensor_t *loss,
                            hirl_tensor_t *terms) {
    int64_t b = positive->shape.dim[0], m = negative->shape.dim[1];
    double plus = 0, minus = 0;
    (void)be;
    for (int64_t n = 0; n < b; ++n) {
        const int32_t *own = get_i32(positive) + n * n_levels,
                      *others = get_i32(negative) + n * m * n_levels;
        double sum = 0;
        for (int64_t j = 0; j < m; ++j)
            if (!is_same_path(n_levels, own, others + j * n_levels))
                sum -= log(1.0 - path_product(n_levels, similarity, n, others + j * n_levels, -1) +
                           path_eps);
        plus -= log(path_product(n_levels, similarity, n, own, -1) + path_eps);
        minus += sum / (kept_paths(n_levels, own, others, m) + path_eps);
    }
    set(loss, 0, (plus + minus) / (2.0 * (double)b));
    if (terms) {
        set(terms, 0, plus / (double)b);
        set(terms, 1, minus / (double)b);
    }
    return HIRL_OK;
}

hirl_status_t ref_path_loss_backward(hirl_backend_t *be, int n_levels,
                                     const hirl_tensor_t *const *similarity,
                                     const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                     const hirl_tensor_t *dloss,
                                     hirl_tensor_t *const *dsimilarity) {
    int64_t b = positive->shape.dim[0], m = negative->shape.dim[1];
    double w = get(dloss, 0) / (2.0 * (double)b);
    (void)be;
    for (int l = 0; l < n_levels; ++l) {
        int64_t k = similarity[l]->shape.dim[1];
        double *row = NULL;
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, k, &row));
        for (int64_t n = 0; n < b; ++n) {
            const int32_t *own = get_i32(positive) + n * n_levels,
                          *others = get_i32(negative) + n * m * n_levels;
            double share = w / (kept_paths(n_levels, own, others, m) + path_eps);
            memset(row, 0, (size_t)k * sizeof *row);
            row[own[l]] -= w / 2 * path_product(n_levels, similarity, n, own, l) /
                           (path_product(n_levels, similarity, n, own, -1) + path_eps);
            for (int64_t j = 0; j < m; ++j) {
                const int32_t *path = others + j * n_levels;
                if (is_same_path(n_levels, own, path)) continue;
                row[path[l]] += share / 2 * path_product(n_levels, similarity, n, path, l) /
                                (1.0 - path_product(n_levels, similarity, n, path, -1) + path_eps);
            }
            for (int64_t i = 0; i < k; ++i) set(dsimilarity[l], n * k + i, row[i]);
        }
        hirl_mem_free(row);
    }
    return HIRL_OK;
}
