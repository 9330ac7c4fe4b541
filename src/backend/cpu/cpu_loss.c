/// Losses. Cross entropy reads each row of logits twice (the second time from the cache) and the backward reads it once more;
/// sums over rows are in double and in the order of the rows.
#include "cpu_impl.h"
#include "cpu_vector_impl.h"

#include <math.h>
#include <string.h>

// ---------------------------------------------------------------------------------------------- cross entropy

/// Facts of one row of scaled logits: log of the sum of exponentials, and how many logits are no less than the target's.
static void read_row(const float *row, int64_t width, float scale, int32_t target, double *lse_p,
                     int64_t *n_not_less_p) {
    const float of_target = row[target];
    vf_t largest = vf_set(-INFINITY);
    vi_t count = {0};
    int64_t i = 0;
    for (; i + CPU_VECTOR <= width; i += CPU_VECTOR) {
        const vf_t x = vf_load(row, i, false, CPU_VECTOR), s = x * scale;
        largest = vf_select(s > largest, s, largest);
        count -= x >= of_target;
    }
    float most = -INFINITY;
    int64_t n_not_less = 0;
    for (int l = 0; l < CPU_VECTOR; ++l) {
        most = largest[l] > most ? largest[l] : most;
        n_not_less += count[l];
    }
    for (; i < width; ++i) {
        most = row[i] * scale > most ? row[i] * scale : most;
        n_not_less += row[i] >= of_target;
    }
    const float shift = most == -INFINITY ? 0 : most;
    double sum = 0;
    vf_t part = {0};
    for (i = 0; i + CPU_VECTOR <= width; i += CPU_VECTOR) {
        part += vf_exp(vf_load(row, i, false, CPU_VECTOR) * scale - shift);
        if (i / CPU_VECTOR % 64 == 63) {
            sum += vf_sum(part);
            part = (vf_t){0};
        }
    }
    if (i < width) {
        const vf_t e = vf_exp(vf_load(row, i, false, (int)(width - i)) * scale - shift);
        for (int l = 0; l < (int)(width - i); ++l) part[l] += e[l];
    }
    sum += vf_sum(part);
    *lse_p = (double)shift + log(sum);
    *n_not_less_p = n_not_less;
}

hirl_status_t hirl_cross_entropy_cpu(hirl_backend_t *be, const hirl_tensor_t *logits, float scale,
                                     const hirl_tensor_t *target, hirl_tensor_t *loss,
                                     hirl_tensor_t *lse, hirl_tensor_t *correct) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = logits->shape.dim[0], width = logits->shape.dim[1];
    const float *x = hirl_tensor_f32(logits);
    const int32_t *t = hirl_tensor_data(target);
    float *log_sum = hirl_tensor_f32(lse);
    double *terms = NULL;
    const size_t bytes = (size_t)n * 2 * sizeof *terms;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&terms));
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static) if (n * width > 1 << 13)
    for (int64_t r = 0; r < n; ++r) {
        double value = 0;
        int64_t n_not_less = 0;
        read_row(x + r * width, width, scale, t[r], &value, &n_not_less);
        log_sum[r] = (float)value;
        terms[2 * r] = value - (double)(x[r * width + t[r]] * scale);
        terms[2 * r + 1] = n_not_less == 1; // itself
    }
    double sum = 0, n_correct = 0;
    for (int64_t r = 0; r < n; ++r) {
        sum += terms[2 * r];
        n_correct += terms[2 * r + 1];
    }
    hirl_tensor_f32(loss)[0] = (float)(sum / (double)n);
    if (correct) hirl_tensor_f32(correct)[0] = (float)(n_correct / (double)n);
    hirl_cpu_scratch_free(ctx, bytes, terms);
    return HIRL_OK;
}

hirl_status_t hirl_cross_entropy_backward_cpu(hirl_backend_t *be, const hirl_tensor_t *logits,
                                              float scale, const hirl_tensor_t *target,
                                              const hirl_tensor_t *lse, const hirl_tensor_t *dloss,
                                              hirl_tensor_t *dlogits) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const int64_t n = logits->shape.dim[0], width = logits->shape.dim[1];
    const float *x = hirl_tensor_f32(logits), *log_sum = hirl_tensor_f32(lse);
    const int32_t *t = hirl_tensor_data(target);
    float *to = hirl_tensor_f32(dlogits);
    const float factor = (float)((double)hirl_tensor_f32(dloss)[0] * (double)scale / (double)n);
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static) if (n * width > 1 << 13)
    for (int64_t r = 0; r < n; ++r) {
        const float *row = x + r * width;
        float *out = to + r * width;
        const float shift = log_sum[r];
        int64_t i = 0;
        for (; i + CPU_VECTOR <= width; i += CPU_VECTOR)
            vf_store(out, i, false, CPU_VECTOR,
                     vf_exp(vf_load(row, i, false, CPU_VECTOR) * scale - shift) * factor);
        if (i < width) {
            const int lanes = (int)(width - i);
            vf_store(out, i, false, lanes,
                     vf_exp(vf_load(row, i, false, lanes) * scale - shift) * factor);
        }
        out[t[r]] -= factor;
    }
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- paths

static const double PATH_EPS = 1e-6;

typedef struct paths {
    int n_levels;
    int64_t n_samples, n_negatives;
    const float *similarity[HIRL_PATH_MAX_LEVELS];
    int64_t width[HIRL_PATH_MAX_LEVELS];
    const int32_t *positive, *negative;
} paths_t;

static paths_t paths_of(int n_levels, const hirl_tensor_t *const *similarity,
                        const hirl_tensor_t *positive, const hirl_tensor_t *negative) {
    paths_t paths = {.n_levels = n_levels,
                     .n_samples = positive->shape.dim[0],
                     .n_negatives = negative->shape.dim[1]};
    for (int l = 0; l < n_levels; ++l) {
        paths.similarity[l] = hirl_tensor_f32(similarity[l]);
        paths.width[l] = similarity[l]->shape.dim[1];
    }
    paths.positive = hirl_tensor_data(positive);
    paths.negative = hirl_tensor_data(negative);
    return paths;
}

/// P = prod_l (1 + u_l) / 2 of the path `node`, with the factors.
static double path_probability(const paths_t *paths, int64_t sample, const int32_t *node,
                               double factor[HIRL_PATH_MAX_LEVELS]) {
    double p = 1;
    for (int l = 0; l < paths->n_levels; ++l) {
        factor[l] = (1 + (double)paths->similarity[l][sample * paths->width[l] + node[l]]) / 2;
        p *= factor[l];
    }
    return p;
}

static bool is_same_path(const paths_t *paths, const int32_t *a, const int32_t *b) {
    for (int l = 0; l < paths->n_levels; ++l)
        if (a[l] != b[l]) return false;
    return true;
}

static int64_t count_kept(const paths_t *paths, const int32_t *positive, const int32_t *negatives) {
    int64_t n = 0;
    for (int64_t j = 0; j < paths->n_negatives; ++j)
        n += !is_same_path(paths, positive, negatives + j * paths->n_levels);
    return n;
}

hirl_status_t hirl_path_loss_cpu(hirl_backend_t *be, int n_levels,
                                 const hirl_tensor_t *const *similarity,
                                 const hirl_tensor_t *positive, const hirl_tensor_t *negative,
                                 hirl_tensor_t *loss, hirl_tensor_t *terms) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    const paths_t paths = paths_of(n_levels, similarity, positive, negative);
    double *halves = NULL;
    const size_t bytes = (size_t)paths.n_samples * 2 * sizeof *halves;
    HIRL_TRY(hirl_cpu_scratch(ctx, bytes, (void **)&halves));
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static)
    for (int64_t n = 0; n < paths.n_samples; ++n) {
        double factor[HIRL_PATH_MAX_LEVELS], sum = 0;
        const int32_t *own = paths.positive + n * n_levels,
                      *others = paths.negative + n * paths.n_negatives * n_levels;
        int64_t n_kept = 0;
        for (int64_t j = 0; j < paths.n_negatives; ++j) {
            if (is_same_path(&paths, own, others + j * n_levels)) continue;
            sum -= log(1 - path_probability(&paths, n, others + j * n_levels, factor) + PATH_EPS);
            ++n_kept;
        }
        halves[2 * n] = -log(path_probability(&paths, n, own, factor) + PATH_EPS);
        halves[2 * n + 1] = sum / ((double)n_kept + PATH_EPS);
    }
    double first = 0, second = 0;
    for (int64_t n = 0; n < paths.n_samples; ++n) {
        first += halves[2 * n];
        second += halves[2 * n + 1];
    }
    hirl_cpu_scratch_free(ctx, bytes, halves);
    first /= (double)paths.n_samples;
    second /= (double)paths.n_samples;
    hirl_tensor_f32(loss)[0] = (float)((first + second) / 2);
    if (terms) {
        hirl_tensor_f32(terms)[0] = (float)first;
        hirl_tensor_f32(terms)[1] = (float)second;
    }
    return HIRL_OK;
}

/// Adds weight * dP/du_l to the gradients of the nodes of one path; products without one factor are formed directly.
static void add_path(const paths_t *paths, int64_t sample, const int32_t *node,
                     const double factor[HIRL_PATH_MAX_LEVELS], double weight,
                     float *const gradient[HIRL_PATH_MAX_LEVELS]) {
    for (int l = 0; l < paths->n_levels; ++l) {
        double rest = weight / 2;
        for (int m = 0; m < paths->n_levels; ++m)
            if (m != l) rest *= factor[m];
        gradient[l][sample * paths->width[l] + node[l]] += (float)rest;
    }
}

hirl_status_t hirl_path_loss_backward_cpu(hirl_backend_t *be, int n_levels,
                                          const hirl_tensor_t *const *similarity,
                                          const hirl_tensor_t *positive,
                                          const hirl_tensor_t *negative, const hirl_tensor_t *dloss,
                                          hirl_tensor_t *const *dsimilarity) {
    const cpu_ctx_t *ctx = cpu_ctx(be);
    const paths_t paths = paths_of(n_levels, similarity, positive, negative);
    float *gradient[HIRL_PATH_MAX_LEVELS] = {0};
    for (int l = 0; l < n_levels; ++l) gradient[l] = hirl_tensor_f32(dsimilarity[l]);
    const double share = (double)hirl_tensor_f32(dloss)[0] / (2 * (double)paths.n_samples);
    // A sample's row of every gradient belongs to one thread.
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static)
    for (int64_t n = 0; n < paths.n_samples; ++n) {
        double factor[HIRL_PATH_MAX_LEVELS];
        for (int l = 0; l < n_levels; ++l)
            memset(gradient[l] + n * paths.width[l], 0, (size_t)paths.width[l] * sizeof(float));
        const int32_t *own = paths.positive + n * n_levels,
                      *others = paths.negative + n * paths.n_negatives * n_levels;
        const double p = path_probability(&paths, n, own, factor);
        add_path(&paths, n, own, factor, -share / (p + PATH_EPS), gradient);
        const double of_each = share / ((double)count_kept(&paths, own, others) + PATH_EPS);
        for (int64_t j = 0; j < paths.n_negatives; ++j) {
            const int32_t *node = others + j * n_levels;
            if (is_same_path(&paths, own, node)) continue;
            const double q = path_probability(&paths, n, node, factor);
            add_path(&paths, n, node, factor, of_each / (1 - q + PATH_EPS), gradient);
        }
    }
    return HIRL_OK;
}
