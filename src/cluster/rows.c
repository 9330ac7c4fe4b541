/// @file rows.c
/// Checks and small operations on rows that live on all ranks: norms and distances in a fixed order
/// of additions, agreement on bad data and on arguments, fixed-point scales, gathers into
/// node-shared memory.

#include "cluster_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { LANES = 8, GATHER_ITEMS = 1 << 20 };

// Eight partial sums: a compiler may put them into one vector without changing any bit.
static double sum_lanes(const double *s) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

double hirl_row_norm_sq(const float *x, int d) {
    double s[LANES] = {0};
    int j = 0;
    for (; j + LANES <= d; j += LANES)
        for (int i = 0; i < LANES; i++) s[i] += (double)x[j + i] * (double)x[j + i];
    for (int i = 0; j + i < d; i++) s[i] += (double)x[j + i] * (double)x[j + i];
    return sum_lanes(s);
}

double hirl_row_distance_sq(const float *x, const float *y, int d) {
    double s[LANES] = {0};
    int j = 0;
    for (; j + LANES <= d; j += LANES)
        for (int i = 0; i < LANES; i++) {
            const double t = (double)x[j + i] - (double)y[j + i];
            s[i] += t * t;
        }
    for (int i = 0; j + i < d; i++) {
        const double t = (double)x[j + i] - (double)y[j + i];
        s[i] += t * t;
    }
    return sum_lanes(s);
}

static float max_abs_of(const float *x, int d) {
    float m[LANES] = {0};
    int j = 0;
    for (; j + LANES <= d; j += LANES)
        for (int i = 0; i < LANES; i++) m[i] = fabsf(x[j + i]) > m[i] ? fabsf(x[j + i]) : m[i];
    for (int i = 0; j + i < d; i++) m[i] = fabsf(x[j + i]) > m[i] ? fabsf(x[j + i]) : m[i];
    float max = m[0];
    for (int i = 1; i < LANES; i++) max = m[i] > max ? m[i] : max;
    return max;
}

// Half of what products and half norms need to stay finite in single precision.
#define MAX_NORM_SQ 0x1p125

// What is wrong with one row.
static hirl_status_t fail_row(const char *what, const float *x, int d, int64_t row) {
    for (int j = 0; j < d; j++) {
        HIRL_REQUIRE(!isnan(x[j]), HIRL_ERR_NUMERIC, "%s %lld, column %d: NaN", what,
                     (long long)row, j);
        HIRL_REQUIRE(!isinf(x[j]), HIRL_ERR_NUMERIC, "%s %lld, column %d: infinite", what,
                     (long long)row, j);
    }
    const double norm_sq = hirl_row_norm_sq(x, d);
    HIRL_REQUIRE(norm_sq > 0, HIRL_ERR_NUMERIC,
                 "%s %lld: all %d columns are zero, so it cannot be scaled to unit norm", what,
                 (long long)row, d);
    return HIRL_FAIL(HIRL_ERR_NUMERIC,
                     "%s %lld: norm %.3g, want at most %.3g (squared norms in single precision)",
                     what, (long long)row, sqrt(norm_sq), sqrt(MAX_NORM_SQ));
}

// The first bad row, or n; and the maxima.
static int64_t scan_rows(const float *x, int64_t n, int d, bool is_zero_error, double *max_abs_p,
                         double *max_norm_sq_p) {
    int64_t bad = n;
    double max_abs = 0, max_norm_sq = 0;
#pragma omp parallel for schedule(static) reduction(min : bad) reduction(max : max_abs, max_norm_sq)
    for (int64_t i = 0; i < n; i++) {
        const double norm_sq = hirl_row_norm_sq(x + i * d, d);
        // False also for NaN.
        const bool is_good = norm_sq <= MAX_NORM_SQ && !(is_zero_error && norm_sq == 0);
        if (!is_good && i < bad) bad = i;
        if (norm_sq > max_norm_sq) max_norm_sq = norm_sq;
        const double abs = max_abs_of(x + i * d, d);
        if (abs > max_abs) max_abs = abs;
    }
    *max_abs_p = max_abs;
    *max_norm_sq_p = max_norm_sq;
    return bad;
}

hirl_status_t hirl_rows_check(hirl_world_t *world, hirl_status_t mine, const char *what,
                              const float *x, int64_t n_local, int d, bool is_zero_error,
                              hirl_rows_info_t *info_p) {
    // Arguments first: with a wrong width there is no use in looking at the data.
    HIRL_TRY(hirl_par_agree(world, mine));
    hirl_rows_info_t info = {0};
    HIRL_TRY(hirl_par_scan_i64(world, n_local, &info.first, &info.n));
    double max[2];
    const int64_t bad = scan_rows(x, n_local, d, is_zero_error, &max[0], &max[1]);
    if (bad < n_local) mine = fail_row(what, x + bad * d, d, info.first + bad);
    HIRL_TRY(hirl_par_agree(world, mine));
    HIRL_TRY(hirl_par_all_reduce(world, max, 2, HIRL_PAR_F64, HIRL_PAR_MAX));
    info.max_abs = max[0];
    info.max_norm_sq = max[1];
    *info_p = info;
    return HIRL_OK;
}

hirl_status_t hirl_rows_check_same(const char *what, const float *x, int64_t n, int d) {
    double max_abs, max_norm_sq;
    const int64_t bad = scan_rows(x, n, d, false, &max_abs, &max_norm_sq);
    return bad < n ? fail_row(what, x + bad * d, d, bad) : HIRL_OK;
}

void hirl_rows_normalise(const float *from, int64_t n, int d, float *to) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const double inverse = 1 / fmax(sqrt(hirl_row_norm_sq(from + i * d, d)), 1e-12);
        for (int j = 0; j < d; j++) to[i * d + j] = (float)((double)from[i * d + j] * inverse);
    }
}

hirl_status_t hirl_same_on_all_ranks(hirl_world_t *world, int n, const char *const *names,
                                     const int64_t *values) {
    enum { MAX_VALUES = 24 };
    HIRL_REQUIRE(n <= MAX_VALUES, HIRL_ERR_INTERNAL, "%d values to compare, want at most %d", n,
                 MAX_VALUES);
    int64_t low[MAX_VALUES], high[MAX_VALUES];
    memcpy(low, values, (size_t)n * sizeof(*low));
    memcpy(high, values, (size_t)n * sizeof(*high));
    HIRL_TRY(hirl_par_all_reduce(world, low, n, HIRL_PAR_I64, HIRL_PAR_MIN));
    HIRL_TRY(hirl_par_all_reduce(world, high, n, HIRL_PAR_I64, HIRL_PAR_MAX));
    for (int i = 0; i < n; i++)
        HIRL_REQUIRE(low[i] == high[i], HIRL_ERR_ARG,
                     "%s differs between ranks (%lld to %lld), want the same on all", names[i],
                     (long long)low[i], (long long)high[i]);
    return HIRL_OK;
}

hirl_status_t hirl_gather_on_nodes(hirl_world_t *world, const int32_t *local, int64_t n_local,
                                   int32_t *shared) {
    const int size = hirl_world_size(world), rank = hirl_world_rank(world);
    const bool is_writer = hirl_world_node_rank(world) == 0;
    int64_t *counts = NULL;
    int32_t *piece = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &counts);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, GATHER_ITEMS, &piece);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, end);
    HIRL_TRY_GOTO(hirl_par_all_gather(world, &n_local, 1, HIRL_PAR_I64, counts), status, end);
    int64_t at = 0;
    for (int r = 0; r < size; r++) {
        for (int64_t i = 0; i < counts[r]; i += GATHER_ITEMS) {
            const int64_t n = counts[r] - i < GATHER_ITEMS ? counts[r] - i : GATHER_ITEMS;
            if (r == rank) memcpy(piece, local + i, (size_t)n * sizeof(*piece));
            HIRL_TRY_GOTO(hirl_par_broadcast(world, piece, n, HIRL_PAR_I32, r), status, end);
            if (is_writer) memcpy(shared + at, piece, (size_t)n * sizeof(*piece));
            at += n;
        }
    }
end:
    hirl_mem_free(piece);
    hirl_mem_free(counts);
    return status;
}

double hirl_fixed_scale(int64_t n, double bound) {
    int bound_bits = 0, n_bits = 0;
    if (!(bound > 0)) return 1;
    frexp(bound, &bound_bits); // bound < 2^bound_bits
    while (n_bits < 62 && ((int64_t)1 << n_bits) < n) n_bits++;
    return ldexp(1, (n_bits < 11 ? 51 : 62 - n_bits) - bound_bits);
}
