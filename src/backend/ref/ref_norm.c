// Batch norm over groups of samples (Ioffe and Szegedy 2015), layer norm (Ba et al. 2016), L2 normalisation. Two-pass variances.

#include "ref_impl.h"

hirl_status_t ref_bn_stats(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                           hirl_tensor_t *mean, hirl_tensor_t *var) {
    int64_t c = last_axis(x), rows = hirl_tensor_count(x) / c / n_groups;
    (void)be;
    for (int64_t g = 0; g < n_groups; ++g)
        for (int64_t k = 0; k < c; ++k) {
            double sum = 0, squares = 0;
            for (int64_t i = 0; i < rows; ++i) sum += get(x, (g * rows + i) * c + k);
            double m = sum / (double)rows;
            for (int64_t i = 0; i < rows; ++i)
                squares +=
                    (get(x, (g * rows + i) * c + k) - m) * (get(x, (g * rows + i) * c + k) - m);
            set(mean, g * c + k, m);
            set(var, g * c + k, squares / (double)rows);
        }
    return HIRL_OK;
}

static double xhat(const hirl_tensor_t *x, int64_t at, int64_t stat, const hirl_tensor_t *mean,
                   const hirl_tensor_t *var, float eps) {
    return (get(x, at) - get(mean, stat)) / sqrt(get(var, stat) + (double)eps);
}

hirl_status_t ref_bn_apply(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                           const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                           const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                           const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y) {
    int64_t c = last_axis(x), group = hirl_tensor_count(x) / n_groups;
    (void)be;
    for (int64_t at = 0; at < hirl_tensor_count(x); ++at) {
        int64_t k = at % c;
        double z = xhat(x, at, at / group * c + k, mean, var, eps) * (gamma ? get(gamma, k) : 1.0) +
                   (beta ? get(beta, k) : 0.0);
        if (residual) z += get(residual, at);
        set(y, at, has_relu && !(z > 0) ? 0.0 : z);
    }
    return HIRL_OK;
}

static double masked(const hirl_tensor_t *dy, const hirl_tensor_t *y, int64_t at) {
    return !y || get(y, at) > 0 ? get(dy, at) : 0.0;
}

hirl_status_t ref_bn_backward_sums(hirl_backend_t *be, const hirl_tensor_t *dy,
                                   const hirl_tensor_t *y, const hirl_tensor_t *x, int64_t n_groups,
                                   const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                                   hirl_tensor_t *sum_dz, hirl_tensor_t *sum_dz_xhat) {
    int64_t c = last_axis(x), group = hirl_tensor_count(x) / n_groups;
    (void)be;
    for (int64_t stat = 0; stat < n_groups * c; ++stat) {
        double sum = 0, sum_xhat = 0;
        for (int64_t at = stat / c * group + stat % c; at < (stat / c + 1) * group; at += c) {
            double dz = masked(dy, y, at);
            sum += dz;
            sum_xhat += dz * xhat(x, at, stat, mean, var, eps);
        }
        set(sum_dz, stat, sum);
        set(sum_dz_xhat, stat, sum_xhat);
    }
    return HIRL_OK;
}

hirl_status_t ref_bn_backward_apply(hirl_backend_t *be, const hirl_tensor_t *dy,
                                    const hirl_tensor_t *y, const hirl_tensor_t *x,
                                    int64_t n_groups, const hirl_tensor_t *mean,
                                    const hirl_tensor_t *var, float eps, const hirl_tensor_t *gamma,
                                    const hirl_tensor_t *mean_dz, const hirl_tensor_t *mean_dz_xhat,
                                    hirl_tensor_t *dx, hirl_tensor_t *dresidual) {
    int64_t c = last_axis(x), group = hirl_tensor_count(x) / n_groups;
    (void)be;
    for (int64_t at = 0; at < hirl_tensor_count(x); ++at) {
        int64_t k = at % c, stat = at / group * c + k;
        double dz = masked(dy, y, at), d = dz;
        if (mean_dz)
            d -= get(mean_dz, stat) + xhat(x, at, stat, mean, var, eps) * get(mean_dz_xhat, stat);
        set(dx, at, d * (gamma ? get(gamma, k) : 1.0) / sqrt(get(var, stat) + (double)eps));
        if (dresidual) set(dresidual, at, dz);
    }
    return HIRL_OK;
}

hirl_status_t ref_bn_combine(hirl_backend_t *be, const hirl_tensor_t *parts, hirl_tensor_t *mean,
                             hirl_tensor_t *var) {
    (void)be;
    const int64_t n_parts = parts->shape.dim[0], n_channels = parts->shape.dim[2];
    for (int64_t c = 0; c < n_channels; ++c) {
        double m = 0, v = 0;
        for (int64_t p = 0; p < n_parts; ++p) m += get(parts, 2 * p * n_channels + c);
        m /= (double)n_parts;
        for (int64_t p = 0; p < n_parts; ++p) {
            const double d = get(parts, 2 * p * n_channels + c) - m;
            v += get(parts, (2 * p + 1) * n_channels + c) + d * d;
        }
        set(mean, c, m);
        set(var, c, v / (double)n_parts);
    }
    return HIRL_OK;
}

hirl_status_t ref_fold_rows(hirl_backend_t *be, float scale, const hirl_tensor_t *x, float keep,
                            hirl_tensor_t *y) {
    (void)be;
    const int64_t n_rows = x->shape.dim[0], n_columns = x->shape.dim[1];
    for (int64_t c = 0; c < n_columns; ++c) {
        double sum = keep != 0 ? keep * get(y, c) : 0;
        for (int64_t r = 0; r < n_rows; ++r) sum += scale * get(x, r * n_columns + c);
        set(y, c, sum);
    }
    return HIRL_OK;
}

hirl_status_t ref_layer_norm(hirl_backend_t *be, const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                             const hirl_tensor_t *beta, float eps, hirl_tensor_t *y,
                             hirl_tensor_t *mean, hirl_tensor_t *rstd) {
    int64_t c = last_axis(x);
    (void)be;
    for (int64_t r = 0; r < hirl_tensor_count(x) / c; ++r) {
        double sum = 0, squares = 0;
        for (int64_t k = 0; k < c; ++k) sum += get(x, r * c + k);
        double m = sum / (double)c;
        for (int64_t k = 0; k < c; ++k)
            squares += (get(x, r * c + k) - m) * (get(x, r * c + k) - m);
        double inv = 1.0 / sqrt(squares / (double)c + (double)eps);
        for (int64_t k = 0; k < c; ++k)
            set(y, r * c + k, (get(x, r * c + k) - m) * inv * get(gamma, k) + get(beta, k));
        set(mean, r, m);
        set(rstd, r, inv);
    }
    return HIRL_OK;
}

hirl_status_t ref_layer_norm_backward(hirl_backend_t *be, const hirl_tensor_t *dy,
                                      const hirl_tensor_t *x, const hirl_tensor_t *gamma,
                                      const hirl_tensor_t *mean, const hirl_tensor_t *rstd,
                                      bool accumulate, hirl_tensor_t *dx, hirl_tensor_t *dgamma,
                                      hirl_tensor_t *dbeta) {
    int64_t c = last_axis(x), rows = hirl_tensor_count(x) / c;
    (void)be;
    for (int64_t r = 0; dx && r < rows; ++r) {
        double sum = 0, sum_xhat = 0;
        for (int64_t k = 0; k < c; ++k) {
            double g = get(dy, r * c + k) * get(gamma, k);
            sum += g;
            sum_xhat += g * (get(x, r * c + k) - get(mean, r)) * get(rstd, r);
        }
        for (int64_t k = 0; k < c; ++k) {
            double h = (get(x, r * c + k) - get(mean, r)) * get(rstd, r);
            set(dx, r * c + k,
                get(rstd, r) * (get(dy, r * c + k) * get(gamma, k) - sum / (double)c -
                                h * sum_xhat / (double)c));
        }
    }
    for (int64_t k = 0; k < c; ++k) {
        double sum = 0, sum_xhat = 0;
        for (int64_t r = 0; r < rows; ++r) {
            sum += get(dy, r * c + k);
            sum_xhat += get(dy, r * c + k) * (get(x, r * c + k) - get(mean, r)) * get(rstd, r);
        }
        if (dgamma) put(dgamma, k, accumulate, sum_xhat);
        if (dbeta) put(dbeta, k, accumulate, sum);
    }
    return HIRL_OK;
}

static const double smallest_norm = 1e-12;

hirl_status_t ref_l2_normalize(hirl_backend_t *be, const hirl_tensor_t *x, hirl_tensor_t *y,
                               hirl_tensor_t *norm) {
    int64_t d = last_axis(x);
    (void)be;
    for (int64_t r = 0; r < x->shape.dim[0]; ++r) {
        double sum = 0;
        for (int64_t k = 0; k < d; ++k) sum += get(x, r * d + k) * get(x, r * d + k);
        double length = fmax(sqrt(sum), smallest_norm);
        for (int64_t k = 0; k < d; ++k) set(y, r * d + k, get(x, r * d + k) / length);
        set(norm, r, length);
    }
    return HIRL_OK;
}

hirl_status_t ref_l2_normalize_backward(hirl_backend_t *be, const hirl_tensor_t *y,
                                        const hirl_tensor_t *norm, const hirl_tensor_t *dy,
                                        hirl_tensor_t *dx) {
    int64_t d = last_axis(y);
    (void)be;
    for (int64_t r = 0; r < y->shape.dim[0]; ++r) {
        double dot = 0, length = get(norm, r);
        bool is_clamped = (float)length == (float)smallest_norm;
        for (int64_t k = 0; k < d; ++k) dot += get(y, r * d + k) * get(dy, r * d + k);
        for (int64_t k = 0; k < d; ++k)
            set(dx, r * d + k,
                (get(dy, r * d + k) - (is_clamped ? 0.0 : get(y, r * d + k) * dot)) / length);
    }
    return HIRL_OK;
}
