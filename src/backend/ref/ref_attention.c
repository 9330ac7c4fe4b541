// Attention, a row of probabilities at a time, and its gradient from these.

#include "ref_impl.h"

// Where things lie, for one problem and head.
typedef struct head {
    int64_t n_query, n_key, size;
    int64_t q, k, v, y;                 // element of row 0, column 0
    int64_t q_row, k_row, v_row, y_row; // from a row to the next
    int64_t bias, mask, lse;
} head_t;

static head_t head_at(const hirl_attention_param_t *p, const hirl_tensor_t *q,
                      const hirl_tensor_t *k, const hirl_tensor_t *v, const hirl_tensor_t *mask,
                      int64_t b, int64_t h) {
    head_t at = {.n_query = q->shape.dim[0] / p->n_batch,
                 .n_key = k->shape.dim[0] / p->n_batch,
                 .size = p->head_size,
                 .q_row = last_axis(q),
                 .k_row = last_axis(k),
                 .v_row = last_axis(v),
                 .y_row = p->n_heads * p->head_size};
    at.q = b * at.n_query * at.q_row + p->q_column + h * at.size;
    at.k = b * at.n_key * at.k_row + p->k_column + h * at.size;
    at.v = b * at.n_key * at.v_row + p->v_column + h * at.size;
    at.y = b * at.n_query * at.y_row + h * at.size;
    at.bias = h * at.n_query * at.n_key;
    at.mask = mask ? b % mask->shape.dim[0] * at.n_query * at.n_key : 0;
    at.lse = (b * p->n_heads + h) * at.n_query;
    return at;
}

static double dot(const hirl_tensor_t *x1, int64_t i, const hirl_tensor_t *x2, int64_t j,
                  int64_t n) {
    double sum = 0;
    for (int64_t d = 0; d < n; ++d) sum += get(x1, i + d) * get(x2, j + d);
    return sum;
}

// Probabilities [n_key] of query i; returns their lse, +inf where all are masked (and 0).
static double probabilities(const hirl_attention_param_t *p, const head_t *at, int64_t i,
                            const hirl_tensor_t *q, const hirl_tensor_t *k,
                            const hirl_tensor_t *bias, const hirl_tensor_t *mask, double *prob) {
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < at->n_key; ++j) {
        const int64_t square = i * at->n_key + j;
        prob[j] =
            (double)p->scale * dot(q, at->q + i * at->q_row, k, at->k + j * at->k_row, at->size);
        if (bias) prob[j] += get(bias, at->bias + square);
        if (mask) prob[j] += get(mask, at->mask + square);
        top = fmax(top, prob[j]);
    }
    if (top == -INFINITY) top = 0;
    for (int64_t j = 0; j < at->n_key; ++j) {
        prob[j] = exp(prob[j] - top);
        sum += prob[j];
    }
    if (sum == 0) return INFINITY;
    for (int64_t j = 0; j < at->n_key; ++j) prob[j] /= sum;
    return top + log(sum);
}

hirl_status_t ref_attention(hirl_backend_t *be, const hirl_attention_param_t *p,
                            const hirl_tensor_t *q, const hirl_tensor_t *k, const hirl_tensor_t *v,
                            const hirl_tensor_t *bias, const hirl_tensor_t *mask, hirl_tensor_t *y,
                            hirl_tensor_t *lse) {
    double *prob = NULL;
    (void)be;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, k->shape.dim[0] / p->n_batch, &prob));
    for (int64_t b = 0; b < p->n_batch; ++b)
        for (int64_t h = 0; h < p->n_heads; ++h) {
            const head_t at = head_at(p, q, k, v, mask, b, h);
            for (int64_t i = 0; i < at.n_query; ++i) {
                const double row_lse = probabilities(p, &at, i, q, k, bias, mask, prob);
                if (lse) set(lse, at.lse + i, row_lse);
                for (int64_t d = 0; d < at.size; ++d) {
                    double sum = 0;
                    for (int64_t j = 0; j < at.n_key; ++j)
                        sum += prob[j] * get(v, at.v + j * at.v_row + d);
                    set(y, at.y + i * at.y_row + d, sum);
                }
            }
        }
    hirl_mem_free(prob);
    return HIRL_OK;
}

// What one problem and head add: dk, dv [n_key, size] and dbias in double.
typedef struct sums {
    double *prob, *slope; // [n_key]
    double *dk, *dv;      // [n_key, size]
    double *dbias;        // [H, n_query, n_key]
} sums_t;

// With P the probabilities and dP = dy v^T: dS = P (dP - sum_j P dP); dq = scale dS k, dk = scale dS^T q, dv = P^T dy, dbias = dS.
static void backward_head(const hirl_attention_param_t *p, const head_t *at, const hirl_tensor_t *q,
                          const hirl_tensor_t *k, const hirl_tensor_t *v, const hirl_tensor_t *bias,
                          const hirl_tensor_t *mask, const hirl_tensor_t *dy, hirl_tensor_t *dq,
                          sums_t *s) {
    memset(s->dk, 0, (size_t)(at->n_key * at->size) * sizeof *s->dk);
    memset(s->dv, 0, (size_t)(at->n_key * at->size) * sizeof *s->dv);
    for (int64_t i = 0; i < at->n_query; ++i) {
        const int64_t q_i = at->q + i * at->q_row, y_i = at->y + i * at->y_row;
        double mean = 0;
        probabilities(p, at, i, q, k, bias, mask, s->prob);
        for (int64_t j = 0; j < at->n_key; ++j) {
            s->slope[j] = dot(dy, y_i, v, at->v + j * at->v_row, at->size);
            mean += s->prob[j] * s->slope[j];
        }
        for (int64_t j = 0; j < at->n_key; ++j) {
            const double ds = s->prob[j] * (s->slope[j] - mean);
            s->slope[j] = ds;
            if (s->dbias) s->dbias[at->bias + i * at->n_key + j] += ds;
            for (int64_t d = 0; d < at->size; ++d) {
                s->dk[j * at->size + d] += (double)p->scale * ds * get(q, q_i + d);
                s->dv[j * at->size + d] += s->prob[j] * get(dy, y_i + d);
            }
        }
        for (int64_t d = 0; dq && d < at->size; ++d) {
            double sum = 0;
            for (int64_t j = 0; j < at->n_key; ++j)
                sum += s->slope[j] * get(k, at->k + j * at->k_row + d);
            set(dq, q_i + d, (double)p->scale * sum);
        }
    }
}

hirl_status_t ref_attention_backward(hirl_backend_t *be, const hirl_attention_param_t *p,
                                     const hirl_tensor_t *q, const hirl_tensor_t *k,
                                     const hirl_tensor_t *v, const hirl_tensor_t *bias,
                                     const hirl_tensor_t *mask, const hirl_tensor_t *y,
                                     const hirl_tensor_t *lse, const hirl_tensor_t *dy,
                                     hirl_tensor_t *dq, hirl_tensor_t *dk, hirl_tensor_t *dv,
                                     hirl_tensor_t *dbias) {
    const int64_t n_key = k->shape.dim[0] / p->n_batch, count = n_key * p->head_size;
    sums_t s = {0};
    hirl_status_t status = HIRL_OK;
    (void)be, (void)y, (void)lse; // the oracle needs neither
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n_key, &s.prob), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n_key, &s.slope), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, count, &s.dk), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, count, &s.dv), status, done);
    if (dbias)
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, hirl_tensor_count(dbias), &s.dbias), status,
                      done);
    for (int64_t b = 0; b < p->n_batch; ++b)
        for (int64_t h = 0; h < p->n_heads; ++h) {
            const head_t at = head_at(p, q, k, v, mask, b, h);
            backward_head(p, &at, q, k, v, bias, mask, dy, dq, &s);
            for (int64_t i = 0; i < count; ++i) {
                const int64_t j = i / at.size, d = i % at.size;
                if (dk) set(dk, at.k + j * at.k_row + d, s.dk[i]);
                if (dv) set(dv, at.v + j * at.v_row + d, s.dv[i]);
            }
        }
    for (int64_t i = 0; dbias && i < hirl_tensor_count(dbias); ++i) set(dbias, i, s.dbias[i]);
done:
    hirl_mem_free(s.prob);
    hirl_mem_free(s.slope);
    hirl_mem_free(s.dk);
    hirl_mem_free(s.dv);
    hirl_mem_free(s.dbias);
    return status;
}
