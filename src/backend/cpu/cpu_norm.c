/// Batch norm and sums over channels: one pass over memory each, f32 arithmetic, sums collected in double.
/// Statistics: within a chunk of at most 256 rows (which stays in the first-level cache) the mean, then the squared deviations
/// from it; chunks are merged in double (Chan, Golub and LeVeque 1983), so nothing cancels whatever the mean.
#include "cpu_impl.h"
#include "cpu_slabs_impl.h"
#include "cpu_vector_impl.h"

#include <math.h>
#include <string.h>

enum { CHUNK_ROWS = 256, CHUNK_ELEMENTS = 1 << 13 };

/// Rows of a chunk: a plain chunk has all channels, and is read twice.
static int64_t rows_per_chunk(int64_t width) {
    int64_t rows = CHUNK_ELEMENTS / width;
    if (rows > CHUNK_ROWS) rows = CHUNK_ROWS;
    return rows < 16 ? 16 : rows;
}

// ---------------------------------------------------------------------------------------------- the shape of sums

/// Sums of two values per channel over one chunk of rows of up to 16 channels.
typedef enum sum_kind { SUM_MOMENTS, SUM_BACKWARD, SUM_PLAIN } sum_kind_t;

typedef struct sum_input {
    const void *x, *y, *dy; // SUM_BACKWARD: y may be NULL; the others: x alone
    const float *mean;      // SUM_BACKWARD: of the group
} sum_input_t;

/// Adds the vector at element i to the sums a and b.
CPU_INLINE void sum_vector(sum_kind_t kind, const sum_input_t *in, bool has_y, bool is_bf16,
                           int lanes, int64_t i, vf_t mean, vf_t *a, vf_t *b) {
    if (kind == SUM_PLAIN) {
        *a += vf_load(in->x, i, is_bf16, lanes);
    } else if (kind == SUM_MOMENTS) {
        const vf_t d = vf_load(in->x, i, is_bf16, lanes) - mean;
        *a += d;
        *b += d * d;
    } else {
        vf_t dz = vf_load(in->dy, i, is_bf16, lanes);
        if (has_y) dz = vf_where(vf_load(in->y, i, is_bf16, lanes) > 0, dz);
        *a += dz;
        *b += dz * (vf_load(in->x, i, is_bf16, lanes) - mean);
    }
}

CPU_INLINE void prefetch(const void *x, int64_t i, bool is_bf16) {
    if (is_bf16)
        __builtin_prefetch((const uint16_t *)x + i);
    else
        __builtin_prefetch((const float *)x + i);
}

/// One chunk. SUM_MOMENTS: mean and squared deviations from it; SUM_BACKWARD: dz and dz (x - mean); SUM_PLAIN: x. With n_columns
/// 1: `lanes` channels, rows summed in four chains; with 4: 64 channels, a chain each. Results: one vector per
/// column; the mean is first + rest, which f32 alone would round.
CPU_INLINE void sum_chunk(sum_kind_t kind, const sum_input_t *in, bool has_y, bool is_bf16,
                          int n_columns, int lanes, int64_t at, int64_t stride, int64_t n_rows,
                          int64_t channel, vf_t *first, vf_t *rest, vf_t *second) {
    enum { N_CHAINS = 4 };
    vf_t a[N_CHAINS] = {{0}, {0}, {0}, {0}}, b[N_CHAINS] = {{0}, {0}, {0}, {0}},
         mean[N_CHAINS] = {{0}, {0}, {0}, {0}};
    const int64_t chain_step = n_columns == 1 ? stride : CPU_VECTOR,
                  row_step = n_columns == 1 ? N_CHAINS : 1;
    const float inverse = 1.0f / (float)n_rows;
    int64_t r = 0;
    if (kind == SUM_MOMENTS) {
        for (; r + row_step <= n_rows; r += row_step)
            for (int j = 0; j < N_CHAINS; ++j)
                a[j] += vf_load(in->x, at + r * stride + j * chain_step, is_bf16, lanes);
        for (; r < n_rows; ++r) a[0] += vf_load(in->x, at + r * stride, is_bf16, lanes);
        if (n_columns == 1) a[0] = (a[0] + a[1]) + (a[2] + a[3]);
        for (int j = 0; j < N_CHAINS; ++j) {
            mean[j] = a[n_columns == 1 ? 0 : j] * inverse;
            if (j > 0) a[j] = (vf_t){0};
        }
        a[0] = (vf_t){0};
    } else if (kind == SUM_BACKWARD) {
        for (int j = 0; j < N_CHAINS; ++j)
            mean[j] = vf_load(in->mean, channel + (n_columns == 1 ? 0 : j * CPU_VECTOR), false,
                              CPU_VECTOR);
    }
    for (r = 0; r + row_step <= n_rows; r += row_step) {
        for (int j = 0; j < N_CHAINS; ++j) {
            const int64_t i = at + r * stride + j * chain_step;
            sum_vector(kind, in, has_y, is_bf16, lanes, i, mean[j], &a[j], &b[j]);
            // The next chunk comes from memory while this one is read for the second time.
            if (kind == SUM_MOMENTS) prefetch(in->x, i + n_rows * stride, is_bf16);
        }
    }
    for (; r < n_rows; ++r)
        sum_vector(kind, in, has_y, is_bf16, lanes, at + r * stride, mean[0], &a[0], &b[0]);
    for (int j = 0; j < n_columns; ++j) {
        const vf_t f = n_columns == 1 ? (a[0] + a[1]) + (a[2] + a[3]) : a[j],
                   s = n_columns == 1 ? (b[0] + b[1]) + (b[2] + b[3]) : b[j];
        // The rounded mean's own deviation corrects both moments.
        rest[j] = kind == SUM_MOMENTS ? f * inverse : (vf_t){0};
        first[j] = kind == SUM_MOMENTS ? mean[j] : f;
        second[j] = kind == SUM_MOMENTS ? s - rest[j] * rest[j] * (float)n_rows : s;
    }
}

/// Adds a chunk of n rows to sums over n_before rows.
CPU_INLINE void merge_chunk(sum_kind_t kind, int64_t n_before, int64_t n, vf_t first, vf_t rest,
                            vf_t second, double *first_sum, double *second_sum) {
    const vd_pair_t f = vf_widen(first), e = vf_widen(rest), s = vf_widen(second);
    for (int half = 0; half < 2; ++half) {
        vd_t a, b;
        memcpy(&a, first_sum + 8 * half, sizeof a);
        memcpy(&b, second_sum + 8 * half, sizeof b);
        const vd_t df = half ? f.high : f.low, ds = half ? s.high : s.low;
        if (kind == SUM_MOMENTS) {
            const double all = (double)(n_before + n);
            const vd_t delta = (df - a) + (half ? e.high : e.low);
            a += delta * ((double)n / all);
            b += ds + delta * delta * ((double)n_before * (double)n / all);
        } else {
            a += df;
            b += ds;
        }
        memcpy(first_sum + 8 * half, &a, sizeof a);
        memcpy(second_sum + 8 * half, &b, sizeof b);
    }
}

/// The sums of one part and range of blocks, into first[channels] and second[channels].
CPU_INLINE void sum_part_of(sum_kind_t kind, const sum_input_t *in, bool has_y, bool is_bf16,
                            int lanes, const cpu_view_t *view, int64_t unit, int64_t n_units,
                            int64_t block, int64_t n_blocks, double *first, double *second) {
    vf_t f[4], e[4], s[4];
    if (lanes) { // blocked: units are samples
        memset(first + block * lanes, 0, (size_t)(n_blocks * lanes) * sizeof *first);
        memset(second + block * lanes, 0, (size_t)(n_blocks * lanes) * sizeof *second);
        for (int64_t u = 0; u < n_units; ++u) {
            for (int64_t k = block; k < block + n_blocks; ++k) {
                const int64_t at = ((unit + u) * view->n_blocks + k) * view->n_rows * lanes;
                for (int64_t r = 0; r < view->n_rows; r += CHUNK_ROWS) {
                    const int64_t n = view->n_rows - r < CHUNK_ROWS ? view->n_rows - r : CHUNK_ROWS;
                    sum_chunk(kind, in, has_y, is_bf16, 1, lanes, at + r * lanes, lanes, n,
                              k * lanes, f, e, s);
                    if (lanes == CPU_VECTOR) {
                        merge_chunk(kind, u * view->n_rows + r, n, f[0], e[0], s[0],
                                    first + k * lanes, second + k * lanes);
                    } else {
                        // Eight channels: the upper half of the vectors is another block's place.
                        double a[CPU_VECTOR] = {0}, b[CPU_VECTOR] = {0};
                        memcpy(a, first + k * lanes, (size_t)lanes * sizeof *a);
                        memcpy(b, second + k * lanes, (size_t)lanes * sizeof *b);
                        merge_chunk(kind, u * view->n_rows + r, n, f[0], e[0], s[0], a, b);
                        memcpy(first + k * lanes, a, (size_t)lanes * sizeof *a);
                        memcpy(second + k * lanes, b, (size_t)lanes * sizeof *b);
                    }
                }
            }
        }
        return;
    }
    memset(first, 0, (size_t)view->n_padded * sizeof *first);
    memset(second, 0, (size_t)view->n_padded * sizeof *second);
    const int64_t width = view->width, step = rows_per_chunk(width);
    for (int64_t r = 0; r < n_units; r += step) {
        const int64_t n = n_units - r < step ? n_units - r : step, at = (unit + r) * width;
        int64_t c = 0;
        for (; c + 4 * CPU_VECTOR <= width; c += 4 * CPU_VECTOR) {
            sum_chunk(kind, in, has_y, is_bf16, 4, CPU_VECTOR, at + c, width, n, c, f, e, s);
            for (int j = 0; j < 4; ++j)
                merge_chunk(kind, r, n, f[j], e[j], s[j], first + c + j * CPU_VECTOR,
                            second + c + j * CPU_VECTOR);
        }
        for (; c < width; c += CPU_VECTOR) {
            if (width - c >= CPU_VECTOR)
                sum_chunk(kind, in, has_y, is_bf16, 1, CPU_VECTOR, at + c, width, n, c, f, e, s);
            else
                sum_chunk(kind, in, has_y, is_bf16, 1, (int)(width - c), at + c, width, n, c, f, e,
                          s);
            merge_chunk(kind, r, n, f[0], e[0], s[0], first + c, second + c);
        }
    }
}

#define LANES_CASES(kind, has_y, is_bf16)                                                          \
    do {                                                                                           \
        if (!view->is_blocked)                                                                     \
            sum_part_of(kind, in, has_y, is_bf16, 0, view, unit, n_units, block, n_blocks, first,  \
                        second);                                                                   \
        else if (view->width == 16)                                                                \
            sum_part_of(kind, in, has_y, is_bf16, 16, view, unit, n_units, block, n_blocks, first, \
                        second);                                                                   \
        else                                                                                       \
            sum_part_of(kind, in, has_y, is_bf16, 8, view, unit, n_units, block, n_blocks, first,  \
                        second);                                                                   \
    } while (0)

static void sum_part(sum_kind_t kind, const sum_input_t *in, const cpu_view_t *view, int64_t unit,
                     int64_t n_units, int64_t block, int64_t n_blocks, double *first,
                     double *second) {
    const bool has_y = in->y != NULL;
    if (kind == SUM_MOMENTS && view->is_bf16)
        LANES_CASES(SUM_MOMENTS, false, true);
    else if (kind == SUM_MOMENTS)
        LANES_CASES(SUM_MOMENTS, false, false);
    else if (kind == SUM_PLAIN && view->is_bf16)
        LANES_CASES(SUM_PLAIN, false, true);
    else if (kind == SUM_PLAIN)
        LANES_CASES(SUM_PLAIN, false, false);
    else if (has_y && view->is_bf16)
        LANES_CASES(SUM_BACKWARD, true, true);
    else if (has_y)
        LANES_CASES(SUM_BACKWARD, true, false);
    else if (view->is_bf16)
        LANES_CASES(SUM_BACKWARD, false, true);
    else
        LANES_CASES(SUM_BACKWARD, false, false);
}

/// Sums of all groups: first and second [n_groups][n_padded], in scratch memory that sums_end frees.
typedef struct sums {
    double *data;
    size_t bytes;
    cpu_parts_t parts;
    double *first, *second; // of the groups, valid until sums_end
} sums_t;

static hirl_status_t sums_begin(cpu_ctx_t *ctx, sum_kind_t kind, const cpu_view_t *view,
                                int64_t n_groups, const sum_input_t *in, const float *mean,
                                sums_t *sums) {
    const cpu_parts_t parts = cpu_parts_of(view, n_groups, ctx->n_threads);
    const int64_t n_padded = view->n_padded, n_slots = n_groups * parts.n_parts;
    sums->bytes = (size_t)(2 * n_slots * n_padded) * sizeof(double);
    sums->parts = parts;
    HIRL_TRY(hirl_cpu_scratch(ctx, sums->bytes, (void **)&sums->data));
    double *first = sums->data, *second = sums->data + n_slots * n_padded;
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static)
    for (int64_t i = 0; i < n_slots * parts.n_splits; ++i) {
        const int64_t slot = i / parts.n_splits, split = i % parts.n_splits,
                      group = slot / parts.n_parts, part = slot % parts.n_parts;
        const int64_t from = part * parts.units_per_group / parts.n_parts,
                      to = (part + 1) * parts.units_per_group / parts.n_parts;
        const int64_t block = split * view->n_blocks / parts.n_splits,
                      end = (split + 1) * view->n_blocks / parts.n_splits;
        sum_input_t input = *in;
        input.mean = mean ? mean + group * n_padded : NULL;
        sum_part(kind, &input, view, group * parts.units_per_group + from, to - from, block,
                 end - block, first + slot * n_padded, second + slot * n_padded);
    }
    // The parts are combined in order; the result takes the place of each group's first part.
    const int64_t rows_per_unit = view->is_blocked ? view->n_rows : 1;
#pragma omp parallel for collapse(2) num_threads(ctx->n_threads) \
    schedule(static) if (n_slots * n_padded > 1 << 14)
    for (int64_t group = 0; group < n_groups; ++group) {
        for (int64_t c0 = 0; c0 < n_padded; c0 += CPU_VECTOR) {
            double *a = first + group * parts.n_parts * n_padded + c0,
                   *b = second + group * parts.n_parts * n_padded + c0;
            int64_t n_before = parts.units_per_group / parts.n_parts * rows_per_unit;
            for (int64_t part = 1; part < parts.n_parts; ++part) {
                const int64_t from = part * parts.units_per_group / parts.n_parts,
                              to = (part + 1) * parts.units_per_group / parts.n_parts;
                const int64_t n = (to - from) * rows_per_unit;
                const double share = (double)n / (double)(n_before + n),
                             weight = (double)n_before * share;
                const double *f = a + part * n_padded, *s = b + part * n_padded;
                for (int j = 0; j < CPU_VECTOR; ++j) {
                    if (kind == SUM_MOMENTS) {
                        const double delta = f[j] - a[j];
                        a[j] += delta * share;
                        b[j] += s[j] + delta * delta * weight;
                    } else {
                        a[j] += f[j];
                        b[j] += s[j];
                    }
                }
                n_before += n;
            }
        }
    }
    sums->first = first;
    sums->second = second;
    return HIRL_OK;
}

/// Values of a group in the arrays of sums_begin.
static const double *of_group(const sums_t *sums, const cpu_view_t *view, const double *values,
                              int64_t group) {
    return values + group * sums->parts.n_parts * view->n_padded;
}

static void sums_end(cpu_ctx_t *ctx, sums_t *sums) {
    hirl_cpu_scratch_free(ctx, sums->bytes, sums->data);
}

/// A known form of x: another reference, or a plain copy of what only oneDNN understands.
static hirl_status_t known_form(cpu_ctx_t *ctx, const hirl_tensor_t *x, cpu_view_t *view_p,
                                hirl_tensor_t *known_p) {
    if (cpu_view_of(x, view_p)) {
        *known_p = hirl_tensor_retain(x);
        return HIRL_OK;
    }
    const cpu_layout_t *plain = NULL;
    HIRL_TRY(hirl_cpu_layout_plain(ctx, &x->shape, x->dtype, &plain));
    HIRL_TRY(hirl_cpu_convert(ctx, x, plain, known_p));
    (void)cpu_view_of(known_p, view_p);
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- sums

hirl_status_t hirl_cpu_channel_sums(cpu_ctx_t *ctx, const hirl_tensor_t *x, bool accumulate,
                                    float *sum) {
    cpu_view_t view;
    hirl_tensor_t known = {0};
    sums_t sums = {0};
    HIRL_TRY(known_form(ctx, x, &view, &known));
    const sum_input_t in = {.x = hirl_tensor_data(&known)};
    const hirl_status_t status = sums_begin(ctx, SUM_PLAIN, &view, 1, &in, NULL, &sums);
    if (status == HIRL_OK)
        for (int64_t c = 0; c < view.n_channels; ++c)
            sum[c] = (float)(sums.first[c] + (accumulate ? (double)sum[c] : 0));
    sums_end(ctx, &sums);
    hirl_tensor_reset(&known);
    return status;
}

hirl_status_t hirl_bn_stats_cpu(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                                hirl_tensor_t *mean, hirl_tensor_t *var) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    cpu_view_t view;
    hirl_tensor_t known = {0};
    sums_t sums = {0};
    HIRL_TRY(known_form(ctx, x, &view, &known));
    const sum_input_t in = {.x = hirl_tensor_data(&known)};
    const hirl_status_t status = sums_begin(ctx, SUM_MOMENTS, &view, n_groups, &in, NULL, &sums);
    if (status == HIRL_OK) {
        const double n = (double)(view.n_samples / n_groups * view.n_rows);
        for (int64_t g = 0; g < n_groups; ++g) {
            const double *m = of_group(&sums, &view, sums.first, g),
                         *s = of_group(&sums, &view, sums.second, g);
            float *mean_of = hirl_tensor_f32(mean) + g * view.n_channels,
                  *var_of = hirl_tensor_f32(var) + g * view.n_channels;
            for (int64_t c = 0; c < view.n_channels; ++c) {
                mean_of[c] = (float)m[c];
                // A chunk's correction can leave -1e-40 of constant channels; NaN has to stay.
                var_of[c] = s[c] < 0 ? 0.0f : (float)(s[c] / n);
            }
        }
    }
    sums_end(ctx, &sums);
    hirl_tensor_reset(&known);
    return status;
}

/// One value per group and channel, computed in double from statistics and parameters: [n_groups][n_padded] each, zeros in the
/// padding, so that padded channels of the output are 0.
typedef struct factors {
    float *data;
    size_t bytes;
    float *mean, *a, *b, *c;
} factors_t;

static hirl_status_t factors_begin(cpu_ctx_t *ctx, const cpu_view_t *view, int64_t n_groups,
                                   factors_t *factors) {
    const int64_t count = n_groups * view->n_padded;
    factors->bytes = (size_t)(4 * count) * sizeof(float);
    HIRL_TRY(hirl_cpu_scratch(ctx, factors->bytes, (void **)&factors->data));
    memset(factors->data, 0, factors->bytes);
    factors->mean = factors->data;
    factors->a = factors->data + count;
    factors->b = factors->data + 2 * count;
    factors->c = factors->data + 3 * count;
    return HIRL_OK;
}

static void factors_end(cpu_ctx_t *ctx, factors_t *factors) {
    hirl_cpu_scratch_free(ctx, factors->bytes, factors->data);
}

hirl_status_t hirl_bn_backward_sums_cpu(hirl_backend_t *be, const hirl_tensor_t *dy,
                                        const hirl_tensor_t *y, const hirl_tensor_t *x,
                                        int64_t n_groups, const hirl_tensor_t *mean,
                                        const hirl_tensor_t *var, float eps, hirl_tensor_t *sum_dz,
                                        hirl_tensor_t *sum_dz_xhat) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    cpu_view_t view;
    hirl_tensor_t known = {0}, gradient = {0}, output = {0};
    factors_t factors = {0};
    sums_t sums = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(known_form(ctx, x, &view, &known), status, done);
    HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, dy, &known, &gradient), status, done);
    if (y) HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, y, &known, &output), status, done);
    HIRL_TRY_GOTO(factors_begin(ctx, &view, n_groups, &factors), status, done);
    for (int64_t g = 0; g < n_groups; ++g)
        memcpy(factors.mean + g * view.n_padded, hirl_tensor_f32(mean) + g * view.n_channels,
               (size_t)view.n_channels * sizeof(float));
    const sum_input_t in = {.x = hirl_tensor_data(&known),
                            .y = y ? hirl_tensor_data(&output) : NULL,
                            .dy = hirl_tensor_data(&gradient)};
    HIRL_TRY_GOTO(sums_begin(ctx, SUM_BACKWARD, &view, n_groups, &in, factors.mean, &sums), status,
                  done);
    for (int64_t g = 0; g < n_groups; ++g) {
        const double *f = of_group(&sums, &view, sums.first, g),
                     *s = of_group(&sums, &view, sums.second, g);
        for (int64_t c = 0; c < view.n_channels; ++c) {
            const int64_t i = g * view.n_channels + c;
            hirl_tensor_f32(sum_dz)[i] = (float)f[c];
            hirl_tensor_f32(sum_dz_xhat)[i] =
                (float)(s[c] / sqrt((double)hirl_tensor_f32(var)[i] + (double)eps));
        }
    }
done:
    sums_end(ctx, &sums);
    factors_end(ctx, &factors);
    hirl_tensor_reset(&known);
    hirl_tensor_reset(&gradient);
    hirl_tensor_reset(&output);
    return status;
}

// ---------------------------------------------------------------------------------------------- elementwise halves

/// Outputs from this size on go past the caches: whatever reads them next would find only their end there.
static const size_t STREAM_BYTES = (size_t)24 << 20;

/// Stores that bypass the caches need whole, aligned vectors, and gain nothing where the output has just been read, nor with
/// bf16's vectors of half a cache line.
static bool is_streamed(const cpu_view_t *view, const hirl_tensor_t *to, const void *also_read) {
    const size_t element = hirl_dtype_size(to->dtype);
    const size_t bytes = (size_t)hirl_cpu_stored_count(to) * element;
    return to->dtype == HIRL_F32 && bytes >= STREAM_BYTES && view->width % CPU_VECTOR == 0 &&
           hirl_tensor_data(to) != also_read &&
           (uintptr_t)hirl_tensor_data(to) % (CPU_VECTOR * element) == 0;
}

CPU_INLINE void put(void *y, int64_t at, bool is_bf16, int lanes, bool is_stream, vf_t x) {
    if (is_stream)
        vf_stream(y, at, is_bf16, x);
    else
        vf_store(y, at, is_bf16, lanes, x);
}

typedef struct apply {
    const void *x, *residual;
    void *y;
} apply_t;

/// y = act((x - mean) a + b (+ residual)).
CPU_INLINE void apply_vector(const apply_t *t, int64_t at, bool is_bf16, int lanes,
                             bool has_residual, bool has_relu, bool is_stream, vf_t mean, vf_t a,
                             vf_t b) {
    vf_t z = (vf_load(t->x, at, is_bf16, lanes) - mean) * a + b;
    if (has_residual) z += vf_load(t->residual, at, is_bf16, lanes);
    put(t->y, at, is_bf16, lanes, is_stream, has_relu ? vf_relu(z) : z);
}

CPU_INLINE void apply_piece(const apply_t *t, const cpu_view_t *view, const cpu_piece_t *piece,
                            const float *mean, const float *a, const float *b, bool is_bf16,
                            int block, bool has_residual, bool has_relu, bool is_stream) {
    if (block) {
        const vf_t vm = vf_load(mean, 0, false, CPU_VECTOR), va = vf_load(a, 0, false, CPU_VECTOR),
                   vb = vf_load(b, 0, false, CPU_VECTOR);
        for (int64_t r = 0; r < piece->n_rows; ++r)
            apply_vector(t, piece->at + r * block, is_bf16, block, has_residual, has_relu,
                         is_stream, vm, va, vb);
        return;
    }
    const int64_t width = view->width;
    for (int64_t r = 0; r < piece->n_rows; ++r) {
        const int64_t at = piece->at + r * width;
        int64_t c = 0;
        for (; c + CPU_VECTOR <= width; c += CPU_VECTOR)
            apply_vector(t, at + c, is_bf16, CPU_VECTOR, has_residual, has_relu, is_stream,
                         vf_load(mean, c, false, CPU_VECTOR), vf_load(a, c, false, CPU_VECTOR),
                         vf_load(b, c, false, CPU_VECTOR));
        if (c < width)
            apply_vector(t, at + c, is_bf16, (int)(width - c), has_residual, has_relu, false,
                         vf_load(mean, c, false, CPU_VECTOR), vf_load(a, c, false, CPU_VECTOR),
                         vf_load(b, c, false, CPU_VECTOR));
    }
}

CPU_INLINE void apply_all(const cpu_ctx_t *ctx, const cpu_view_t *view, int64_t n_groups,
                          const factors_t *factors, const apply_t *t, bool is_stream, bool is_bf16,
                          int block, bool has_residual, bool has_relu) {
    const int64_t per_group = cpu_pieces_per_group(view, n_groups);
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static)
    for (int64_t i = 0; i < n_groups * per_group; ++i) {
        const cpu_piece_t piece = cpu_piece_at(view, n_groups, per_group, i);
        const int64_t f = piece.group * view->n_padded + piece.channel;
        const float *mean = factors->mean + f, *a = factors->a + f, *b = factors->b + f;
        if (is_stream && block != 8) {
            apply_piece(t, view, &piece, mean, a, b, is_bf16, block, has_residual, has_relu, true);
            vf_fence();
        } else {
            apply_piece(t, view, &piece, mean, a, b, is_bf16, block, has_residual, has_relu, false);
        }
    }
}

/// Chooses the specialised loop: FN(is_bf16, block) with constants.
#define SPECIALISE(view, FN)                                            \
    do {                                                                \
        const int block_ = (view)->is_blocked ? (int)(view)->width : 0; \
        if ((view)->is_bf16) {                                          \
            if (block_ == 16)                                           \
                FN(true, 16);                                           \
            else if (block_ == 8)                                       \
                FN(true, 8);                                            \
            else                                                        \
                FN(true, 0);                                            \
        } else {                                                        \
            if (block_ == 16)                                           \
                FN(false, 16);                                          \
            else if (block_ == 8)                                       \
                FN(false, 8);                                           \
            else                                                        \
                FN(false, 0);                                           \
        }                                                               \
    } while (0)

hirl_status_t hirl_bn_apply_cpu(hirl_backend_t *be, const hirl_tensor_t *x, int64_t n_groups,
                                const hirl_tensor_t *mean, const hirl_tensor_t *var, float eps,
                                const hirl_tensor_t *gamma, const hirl_tensor_t *beta,
                                const hirl_tensor_t *residual, bool has_relu, hirl_tensor_t *y) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    cpu_view_t view;
    hirl_tensor_t known = {0}, other = {0}, work = {0};
    factors_t factors = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(known_form(ctx, x, &view, &known), status, done);
    if (residual) HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, residual, &known, &other), status, done);
    HIRL_TRY_GOTO(factors_begin(ctx, &view, n_groups, &factors), status, done);
    for (int64_t g = 0; g < n_groups; ++g) {
        for (int64_t c = 0; c < view.n_channels; ++c) {
            const int64_t i = g * view.n_channels + c, f = g * view.n_padded + c;
            factors.mean[f] = hirl_tensor_f32(mean)[i];
            factors.a[f] = (float)((gamma ? (double)hirl_tensor_f32(gamma)[c] : 1) /
                                   sqrt((double)hirl_tensor_f32(var)[i] + (double)eps));
            factors.b[f] = beta ? hirl_tensor_f32(beta)[c] : 0.0f;
        }
    }
    HIRL_TRY_GOTO(hirl_cpu_output_begin(ctx, &known, x->dtype, y, &work), status, done);
    const apply_t t = {hirl_tensor_data(&known), residual ? hirl_tensor_data(&other) : NULL,
                       hirl_tensor_data(&work)};
    const bool is_stream = is_streamed(&view, &work, t.x);
#define APPLY_RR(is_bf16, block) \
    apply_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, true, true)
#define APPLY_R(is_bf16, block) \
    apply_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, true, false)
#define APPLY_A(is_bf16, block) \
    apply_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, false, true)
#define APPLY(is_bf16, block) \
    apply_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, false, false)
    if (residual && has_relu)
        SPECIALISE(&view, APPLY_RR);
    else if (residual)
        SPECIALISE(&view, APPLY_R);
    else if (has_relu)
        SPECIALISE(&view, APPLY_A);
    else
        SPECIALISE(&view, APPLY);
    status = hirl_cpu_output_end(ctx, status, &work, y);
done:
    factors_end(ctx, &factors);
    hirl_tensor_reset(&known);
    hirl_tensor_reset(&other);
    return status;
}

typedef struct backward {
    const void *dy, *y, *x;
    void *dx, *dz;
} backward_t;

/// dx = a (dz - b - (x - mean) c), and dz itself.
CPU_INLINE void backward_vector(const backward_t *t, int64_t at, bool is_bf16, int lanes,
                                bool has_y, bool has_dz, bool is_stream, vf_t mean, vf_t a, vf_t b,
                                vf_t c) {
    vf_t dz = vf_load(t->dy, at, is_bf16, lanes);
    if (has_y) dz = vf_where(vf_load(t->y, at, is_bf16, lanes) > 0, dz);
    const vf_t d = ((dz - b) - (vf_load(t->x, at, is_bf16, lanes) - mean) * c) * a;
    put(t->dx, at, is_bf16, lanes, is_stream, d);
    if (has_dz) put(t->dz, at, is_bf16, lanes, is_stream, dz);
}

CPU_INLINE void backward_piece(const backward_t *t, const cpu_view_t *view,
                               const cpu_piece_t *piece, const float *mean, const float *a,
                               const float *b, const float *c, bool is_bf16, int block, bool has_y,
                               bool has_dz, bool is_stream) {
    if (block) {
        const vf_t vm = vf_load(mean, 0, false, CPU_VECTOR), va = vf_load(a, 0, false, CPU_VECTOR);
        const vf_t vb = vf_load(b, 0, false, CPU_VECTOR), vc = vf_load(c, 0, false, CPU_VECTOR);
        for (int64_t r = 0; r < piece->n_rows; ++r)
            backward_vector(t, piece->at + r * block, is_bf16, block, has_y, has_dz, is_stream, vm,
                            va, vb, vc);
        return;
    }
    const int64_t width = view->width;
    for (int64_t r = 0; r < piece->n_rows; ++r) {
        const int64_t at = piece->at + r * width;
        int64_t k = 0;
        for (; k + CPU_VECTOR <= width; k += CPU_VECTOR)
            backward_vector(t, at + k, is_bf16, CPU_VECTOR, has_y, has_dz, is_stream,
                            vf_load(mean, k, false, CPU_VECTOR), vf_load(a, k, false, CPU_VECTOR),
                            vf_load(b, k, false, CPU_VECTOR), vf_load(c, k, false, CPU_VECTOR));
        if (k < width)
            backward_vector(t, at + k, is_bf16, (int)(width - k), has_y, has_dz, false,
                            vf_load(mean, k, false, CPU_VECTOR), vf_load(a, k, false, CPU_VECTOR),
                            vf_load(b, k, false, CPU_VECTOR), vf_load(c, k, false, CPU_VECTOR));
    }
}

CPU_INLINE void backward_all(const cpu_ctx_t *ctx, const cpu_view_t *view, int64_t n_groups,
                             const factors_t *factors, const backward_t *t, bool is_stream,
                             bool is_bf16, int block, bool has_y, bool has_dz) {
    const int64_t per_group = cpu_pieces_per_group(view, n_groups);
#pragma omp parallel for num_threads(ctx->n_threads) schedule(static)
    for (int64_t i = 0; i < n_groups * per_group; ++i) {
        const cpu_piece_t piece = cpu_piece_at(view, n_groups, per_group, i);
        const int64_t f = piece.group * view->n_padded + piece.channel;
        const float *mean = factors->mean + f, *a = factors->a + f, *b = factors->b + f,
                    *c = factors->c + f;
        if (is_stream && block != 8) {
            backward_piece(t, view, &piece, mean, a, b, c, is_bf16, block, has_y, has_dz, true);
            vf_fence();
        } else {
            backward_piece(t, view, &piece, mean, a, b, c, is_bf16, block, has_y, has_dz, false);
        }
    }
}

hirl_status_t hirl_bn_backward_apply_cpu(hirl_backend_t *be, const hirl_tensor_t *dy,
                                         const hirl_tensor_t *y, const hirl_tensor_t *x,
                                         int64_t n_groups, const hirl_tensor_t *mean,
                                         const hirl_tensor_t *var, float eps,
                                         const hirl_tensor_t *gamma, const hirl_tensor_t *mean_dz,
                                         const hirl_tensor_t *mean_dz_xhat, hirl_tensor_t *dx,
                                         hirl_tensor_t *dresidual) {
    cpu_ctx_t *ctx = cpu_ctx(be);
    cpu_view_t view;
    hirl_tensor_t known = {0}, gradient = {0}, output = {0}, work = {0}, dz = {0};
    factors_t factors = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(known_form(ctx, x, &view, &known), status, done);
    HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, dy, &known, &gradient), status, done);
    if (y) HIRL_TRY_GOTO(hirl_cpu_convert_like(ctx, y, &known, &output), status, done);
    HIRL_TRY_GOTO(factors_begin(ctx, &view, n_groups, &factors), status, done);
    for (int64_t g = 0; g < n_groups; ++g) {
        for (int64_t c = 0; c < view.n_channels; ++c) {
            const int64_t i = g * view.n_channels + c, f = g * view.n_padded + c;
            const double rstd = 1 / sqrt((double)hirl_tensor_f32(var)[i] + (double)eps);
            factors.mean[f] = hirl_tensor_f32(mean)[i];
            factors.a[f] = (float)((gamma ? (double)hirl_tensor_f32(gamma)[c] : 1) * rstd);
            factors.b[f] = mean_dz ? hirl_tensor_f32(mean_dz)[i] : 0.0f;
            factors.c[f] =
                mean_dz ? (float)((double)hirl_tensor_f32(mean_dz_xhat)[i] * rstd) : 0.0f;
        }
    }
    HIRL_TRY_GOTO(hirl_cpu_output_begin(ctx, &known, x->dtype, dx, &work), status, done);
    if (dresidual)
        HIRL_TRY_GOTO(hirl_cpu_output_begin(ctx, &known, x->dtype, dresidual, &dz), status, done);
    const backward_t t = {hirl_tensor_data(&gradient), y ? hirl_tensor_data(&output) : NULL,
                          hirl_tensor_data(&known), hirl_tensor_data(&work),
                          dresidual ? hirl_tensor_data(&dz) : NULL};
    const bool is_stream =
        is_streamed(&view, &work, t.dy) && (!dresidual || is_streamed(&view, &dz, t.dy));
#define BACKWARD_YR(is_bf16, block) \
    backward_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, true, true)
#define BACKWARD_Y(is_bf16, block) \
    backward_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, true, false)
#define BACKWARD_R(is_bf16, block) \
    backward_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, false, true)
#define BACKWARD(is_bf16, block) \
    backward_all(ctx, &view, n_groups, &factors, &t, is_stream, is_bf16, block, false, false)
    if (y && dresidual)
        SPECIALISE(&view, BACKWARD_YR);
    else if (y)
        SPECIALISE(&view, BACKWARD_Y);
    else if (dresidual)
        SPECIALISE(&view, BACKWARD_R);
    else
        SPECIALISE(&view, BACKWARD);
    const bool is_new = !hirl_tensor_is_set(dx);
    status = hirl_cpu_output_end(ctx, status, &work, dx);
    if (dresidual) {
        status = hirl_cpu_output_end(ctx, status, &dz, dresidual);
        if (status != HIRL_OK && is_new) hirl_tensor_reset(dx);
    }
done:
    hirl_tensor_reset(&work);
    hirl_tensor_reset(&dz);
    factors_end(ctx, &factors);
    hirl_tensor_reset(&known);
    hirl_tensor_reset(&gradient);
    hirl_tensor_reset(&output);
    return status;
}

// ---------------------------------------------------------------------------------------------- statistics of groups

// Some kB: one thread.
hirl_status_t hirl_bn_combine_cpu(hirl_backend_t *be, const hirl_tensor_t *parts,
                                  hirl_tensor_t *mean, hirl_tensor_t *var) {
    (void)be;
    const int64_t n_parts = parts->shape.dim[0], n_channels = parts->shape.dim[2];
    const float *part = hirl_tensor_f32(parts);
    float *m = hirl_tensor_f32(mean), *v = hirl_tensor_f32(var);
    for (int64_t c = 0; c < n_channels; ++c) {
        double center = 0, spread = 0;
        for (int64_t p = 0; p < n_parts; ++p) center += (double)part[2 * p * n_channels + c];
        center /= (double)n_parts;
        for (int64_t p = 0; p < n_parts; ++p) {
            const double d = (double)part[2 * p * n_channels + c] - center;
            spread += (double)part[(2 * p + 1) * n_channels + c] + d * d;
        }
        m[c] = (float)center;
        v[c] = (float)(spread / (double)n_parts);
    }
    return HIRL_OK;
}

hirl_status_t hirl_fold_rows_cpu(hirl_backend_t *be, float scale, const hirl_tensor_t *x,
                                 float keep, hirl_tensor_t *y) {
    (void)be;
    const int64_t n_rows = x->shape.dim[0], n_columns = x->shape.dim[1];
    const float *row = hirl_tensor_f32(x);
    float *sum = hirl_tensor_f32(y);
    for (int64_t c = 0; c < n_columns; ++c)
        sum[c] = keep != 0 ? scale * row[c] + keep * sum[c] : scale * row[c];
    for (int64_t r = 1; r < n_rows; ++r) {
        row += n_columns;
        for (int64_t c = 0; c < n_columns; ++c) sum[c] = scale * row[c] + sum[c];
    }
    return HIRL_OK;
}
