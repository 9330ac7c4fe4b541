// test: backends=ref,cpu,cuda args="validation/ops/ops_table.txt" timeout=240
// Runs every line of the table of operations: outputs and gradients of the backend against ref, and gradients against central
// differences. Without a tape there are parameter updates and copies, which are compared with ref.
//
// Bounds. Parity, f32: 2e-5 of the tensor's largest magnitude: sums of up to 2000 products in another order, 2000 x 6e-8 at worst, far less in
// practice. bf16: 2e-2, that is 5 units of its last place (2^-8), since ref rounds once where a kernel may round an intermediate too. f16: the same
// number of its units, 5 x 2^-11 = 2.5e-3; lines of f16 are for the backends that have it, the others must refuse.
// Differences: 5e-3 of |gradient| |direction|: f32 outputs carry 6e-8, divided by the step 1e-2, and a third-order term of the step's square.
#include <ctype.h>

#include "hirl/tape.h"
#include "test.h"

enum { MAX_FIELDS = 24, MAX_INPUTS = 4 };

typedef struct line {
    char op[32];
    int n_fields;
    char key[MAX_FIELDS][16], value[MAX_FIELDS][16];
    const char *text;
} line_t;

static long field(const line_t *line, const char *key, long otherwise) {
    for (int i = 0; i < line->n_fields; ++i)
        if (strcmp(line->key[i], key) == 0) return strtol(line->value[i], NULL, 10);
    return otherwise;
}

static bool field_is(const line_t *line, const char *key, const char *value) {
    for (int i = 0; i < line->n_fields; ++i)
        if (strcmp(line->key[i], key) == 0) return strcmp(line->value[i], value) == 0;
    return false;
}

static hirl_dtype_t field_dtype(const line_t *line) {
    return field_is(line, "dtype", "bf16")  ? HIRL_BF16
           : field_is(line, "dtype", "f16") ? HIRL_F16
                                            : HIRL_F32;
}

static hirl_act_t field_act(const line_t *line) {
    return field_is(line, "act", "relu")   ? HIRL_ACT_RELU
           : field_is(line, "act", "gelu") ? HIRL_ACT_GELU
                                           : HIRL_ACT_NONE;
}

static bool parse(const char *text, line_t *line) {
    char copy[256], *save, *word;
    *line = (line_t){.text = text};
    snprintf(copy, sizeof copy, "%s", text);
    word = strtok_r(copy, " \t\n", &save);
    if (!word || word[0] == '#') return false;
    snprintf(line->op, sizeof line->op, "%s", word);
    while ((word = strtok_r(NULL, " \t\n", &save)) && line->n_fields < MAX_FIELDS) {
        char *equals = strchr(word, '=');
        if (!equals) continue;
        *equals = '\0';
        snprintf(line->key[line->n_fields], sizeof line->key[0], "%s", word);
        snprintf(line->value[line->n_fields++], sizeof line->value[0], "%s", equals + 1);
    }
    return true;
}

// -------------------------------------------------------------------------------------- values

// Differentiable inputs, in host memory, f32 [shape].
typedef struct inputs {
    int n;
    hirl_shape_t shape[MAX_INPUTS];
    float *value[MAX_INPUTS];
    bool is_image[MAX_INPUTS]; // follows the line's layout and dtype
    float offset[MAX_INPUTS], spread[MAX_INPUTS];
} inputs_t;

static void input_add(inputs_t *in, hirl_shape_t shape, bool is_image, float offset, float spread) {
    in->shape[in->n] = shape;
    in->is_image[in->n] = is_image;
    in->offset[in->n] = offset;
    in->spread[in->n++] = spread;
}

static hirl_shape_t image_shape(const line_t *l) {
    if (field(l, "h", 0) == 0) return hirl_shape_2(field(l, "n", 1), field(l, "c", 1));
    return hirl_shape_4(field(l, "n", 1), field(l, "h", 1), field(l, "w", 1), field(l, "c", 1));
}

static bool is_op(const line_t *l, const char *op) { return strcmp(l->op, op) == 0; }

// Attention over b problems of h heads of d columns, q queries and k keys (as many unless given); slices: qkv (of one matrix), kv (two
// matrices) or none (three); mask: how many masks.
typedef struct attention_line {
    hirl_attention_param_t p;
    int64_t n_query, n_key;
    int n_matrices;
    int64_t columns[3];
} attention_line_t;

static attention_line_t attention_line(const line_t *l) {
    attention_line_t a = {.p = {field(l, "b", 1), field(l, "h", 1), field(l, "d", 16), 0, 0, 0, 1},
                          .n_query = field(l, "q", 1),
                          .n_key = field(l, "k", field(l, "q", 1))};
    const int64_t width = a.p.n_heads * a.p.head_size;
    a.p.scale = 1 / sqrtf((float)a.p.head_size);
    for (int i = 0; i < 3; ++i) a.columns[i] = width;
    a.n_matrices = 3;
    if (field_is(l, "slices", "qkv")) {
        a.p.k_column = width;
        a.p.v_column = 2 * width;
        a.columns[0] = 3 * width;
        a.n_matrices = 1;
    } else if (field_is(
                   l, "slices",
                   "kv")) { // the first 8 columns of both and the last of the second are nobody's
        a.p.q_column = a.p.k_column = 8;
        a.p.v_column = 8 + width;
        a.columns[0] = 8 + width;
        a.columns[1] = 16 + 2 * width;
        a.n_matrices = 2;
    }
    return a;
}

// What inputs an operation takes.
static bool describe_inputs(const line_t *l, inputs_t *in) {
    hirl_shape_t image = image_shape(l);
    long n = field(l, "n", 1), d = field(l, "d", 1), c = field(l, "c", 1);
    if (is_op(l, "conv2d")) {
        input_add(in, image, true, 0, 1);
        input_add(in, hirl_shape_4(field(l, "o", 1), c, field(l, "k", 1), field(l, "k", 1)), false,
                  0, 0.5f);
        if (field(l, "bias", 0)) input_add(in, hirl_shape_1(field(l, "o", 1)), false, 0, 1);
    } else if (is_op(l, "max_pool") || is_op(l, "global_avg_pool") || is_op(l, "act") ||
               is_op(l, "cast") || is_op(l, "to_plain")) {
        input_add(in, image, true, 0, 1);
    } else if (is_op(l, "batch_norm")) {
        input_add(in, image, true, 0.3f, 1);
        if (field(l, "affine", 1)) {
            input_add(in, hirl_shape_1(c), false, 1, 0.3f);
            input_add(in, hirl_shape_1(c), false, 0, 0.3f);
        }
        if (field(l, "residual", 0)) input_add(in, image, true, 0, 1);
    } else if (is_op(l, "layer_norm")) {
        input_add(in, hirl_shape_2(n, d), true, 0.5f, 1);
        input_add(in, hirl_shape_1(d), false, 1, 0.3f);
        input_add(in, hirl_shape_1(d), false, 0, 0.3f);
    } else if (is_op(l, "attention")) {
        const attention_line_t a = attention_line(l);
        for (int i = 0; i < a.n_matrices; ++i)
            input_add(in, hirl_shape_2(a.p.n_batch * (i ? a.n_key : a.n_query), a.columns[i]), true,
                      0, 1);
        if (field(l, "bias", 0))
            input_add(in, hirl_shape_3(a.p.n_heads, a.n_query, a.n_key), false, 0, 1);
    } else if (is_op(l, "linear")) {
        input_add(in, hirl_shape_2(n, field(l, "i", 1)), true, 0, 1);
        input_add(in, hirl_shape_2(field(l, "o", 1), field(l, "i", 1)), false, 0, 0.5f);
        if (field(l, "bias", 0)) input_add(in, hirl_shape_1(field(l, "o", 1)), false, 0, 1);
    } else if (is_op(l, "matmul_const") || is_op(l, "l2_normalize") || is_op(l, "softmax") ||
               is_op(l, "cross_entropy")) {
        input_add(in, hirl_shape_2(n, d), false, 0.1f, 1);
    } else if (is_op(l, "row_dot")) {
        input_add(in, hirl_shape_2(n, d), false, 0, 1);
        input_add(in, hirl_shape_2(n, d), false, 0, 1);
    } else if (is_op(l, "add") || is_op(l, "mul")) {
        input_add(in, image, true, 0, 1);
        input_add(in, image, true, 0, 1);
    } else if (is_op(l, "concat_columns")) {
        input_add(in, hirl_shape_2(n, field(l, "a", 1)), false, 0, 1);
        input_add(in, hirl_shape_2(n, field(l, "b", 1)), false, 0, 1);
    } else if (is_op(l, "gather_rows")) {
        input_add(in, hirl_shape_2(field(l, "r", 1), d), false, 0, 1);
    } else if (is_op(l, "path_loss")) {
        const char *key[] = {"k0", "k1", "k2"};
        for (int i = 0; i < 3 && field(l, key[i], 0); ++i)
            input_add(in, hirl_shape_2(field(l, "b", 1), field(l, key[i], 1)), false, 0, 0.9f);
    } else if (is_op(l, "dropout") || is_op(l, "drop_path")) {
        for (int i = 0; i < (is_op(l, "dropout") ? 1 : 2); ++i)
            input_add(in, d > 1 ? hirl_shape_2(n, d) : image, true, 0, 1);
    } else {
        return false;
    }
    return true;
}

// Values in [offset - spread, offset + spread), none within `h` of zero, where ReLU has its kink, and, for pooling, none within 4 h of
// another: a shuffled lattice.
static void draw_inputs(const line_t *l, inputs_t *in) {
    for (int i = 0; i < in->n; ++i) {
        int64_t count = hirl_shape_count(&in->shape[i]);
        hirl_rng_t rng = hirl_rng_make(7, HIRL_RNG_TEST, 1, (uint64_t)i, 0);
        hirl_permutation_t lattice = hirl_permutation_make(7, HIRL_RNG_TEST, (uint64_t)i, count);
        bool is_lattice = is_op(l, "max_pool");
        in->value[i] = malloc((size_t)count * sizeof(float));
        for (int64_t j = 0; j < count; ++j) {
            double u = is_lattice ? ((double)hirl_permutation_at(&lattice, j) + 0.5) / (double)count
                                  : hirl_rng_uniform(&rng);
            double v = in->offset[i] + in->spread[i] * (2 * u - 1);
            if (!is_lattice && fabs(v) < 0.03) v = v < 0 ? -0.03 : 0.03;
            in->value[i][j] = (float)v;
        }
    }
}

// -------------------------------------------------------------------------------------- running one line

typedef struct result {
    int64_t n_out;
    float *out;
    float *grad[MAX_INPUTS];
} result_t;

static void result_reset(const inputs_t *in, result_t *r) {
    free(r->out);
    for (int i = 0; i < in->n; ++i) free(r->grad[i]);
    *r = (result_t){0};
}

static hirl_status_t constant(hirl_backend_t *be, hirl_shape_t shape, uint64_t id, float spread,
                              hirl_tensor_t *t) {
    int64_t count = hirl_shape_count(&shape);
    float *host = malloc((size_t)count * sizeof(float));
    hirl_rng_t rng = hirl_rng_make(7, HIRL_RNG_TEST, 2, id, 0);
    for (int64_t i = 0; i < count; ++i) host[i] = (float)hirl_rng_range(&rng, -spread, spread);
    hirl_status_t status = hirl_backend_tensor(be, shape, HIRL_F32, t);
    if (status == HIRL_OK) status = hirl_backend_upload(be, host, t);
    free(host);
    return status;
}

static hirl_status_t indices(hirl_backend_t *be, hirl_shape_t shape, uint64_t id,
                             const int64_t *limit, int n_limits, hirl_tensor_t *t) {
    int64_t count = hirl_shape_count(&shape);
    int32_t *host = malloc((size_t)count * sizeof *host);
    hirl_rng_t rng = hirl_rng_make(7, HIRL_RNG_TEST, 3, id, 0);
    for (int64_t i = 0; i < count; ++i)
        host[i] = (int32_t)hirl_rng_below(&rng, limit[i % n_limits]);
    hirl_status_t status = hirl_backend_tensor(be, shape, HIRL_I32, t);
    if (status == HIRL_OK) status = hirl_backend_upload(be, host, t);
    free(host);
    return status;
}

// Dropout and drop path of seed 5, step 9, samples 1000, 1001, ...
static hirl_status_t apply_drop(hirl_tape_t *tape, const line_t *l, hirl_var_t **x,
                                hirl_var_t **y_p) {
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    const int64_t n = field(l, "samples", field(l, "n", 1)), counter[2] = {5, 9};
    int64_t index[64];
    hirl_tensor_t t1 = {0}, t2 = {0};
    hirl_status_t status = HIRL_OK;
    NEED(n <= 64);
    for (int64_t i = 0; i < n; ++i) index[i] = 1000 + i;
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(2), HIRL_I64, &t1), status, done);
    HIRL_TRY_GOTO(hirl_backend_upload(be, counter, &t1), status, done);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(n), HIRL_I64, &t2), status, done);
    HIRL_TRY_GOTO(hirl_backend_upload(be, index, &t2), status, done);
    const hirl_drop_t drop = {
        .p = (float)field(l, "p", 0) / 100, .site = 3, .counter = &t1, .index = &t2};
    status = is_op(l, "dropout") ? hirl_tape_dropout(tape, &drop, x[0], y_p)
                                 : hirl_tape_drop_path(tape, &drop, x[0], x[1], y_p);
done:
    hirl_tensor_reset(&t1);
    hirl_tensor_reset(&t2);
    return status;
}

static hirl_status_t make_leaf(hirl_tape_t *tape, const line_t *l, const inputs_t *in, int i,
                               hirl_tensor_t *grad, hirl_var_t **leaf_p) {
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    hirl_tensor_t value = {0}, cast = {0}, blocked = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(hirl_backend_tensor(be, in->shape[i], HIRL_F32, &value), status, done);
    HIRL_TRY_GOTO(hirl_backend_upload(be, in->value[i], &value), status, done);
    HIRL_TRY_GOTO(hirl_backend_tensor(be, in->shape[i], HIRL_F32, grad), status, done);
    HIRL_TRY_GOTO(hirl_op_fill(be, NAN, grad), status, done); // a first contribution must overwrite
    if (in->is_image[i] && field_dtype(l) != HIRL_F32 && !is_op(l, "cast")) {
        HIRL_TRY_GOTO(hirl_op_cast(be, &value, field_dtype(l), &cast), status, done);
        hirl_tensor_reset(&value);
        value = cast;
    }
    if (in->is_image[i] && in->shape[i].n_axes == 4 && field_is(l, "layout", "blocked")) {
        HIRL_TRY_GOTO(hirl_op_to_blocked(be, &value, &blocked), status, done);
        hirl_tensor_reset(&value);
        value = blocked;
    }
    status = hirl_var_create_leaf(tape, &value, grad, leaf_p);
done:
    hirl_tensor_reset(&value);
    return status;
}

static hirl_status_t apply(hirl_tape_t *tape, const line_t *l, const inputs_t *in, hirl_var_t **x,
                           hirl_var_t **y_p) {
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    long n = field(l, "n", 1), d = field(l, "d", 1), c = field(l, "c", 1);
    hirl_tensor_t t1 = {0}, t2 = {0};
    hirl_status_t status = HIRL_OK;
    if (is_op(l, "conv2d")) {
        hirl_conv_param_t p = {(int)field(l, "stride", 1), (int)field(l, "stride", 1),
                               (int)field(l, "pad", 0), (int)field(l, "pad", 0)};
        return hirl_tape_conv2d(tape, &p, x[0], x[1], in->n > 2 ? x[2] : NULL, y_p);
    }
    if (is_op(l, "max_pool")) {
        hirl_pool_param_t p = {(int)field(l, "k", 2), (int)field(l, "stride", 1),
                               (int)field(l, "pad", 0)};
        return hirl_tape_max_pool(tape, &p, x[0], y_p);
    }
    if (is_op(l, "global_avg_pool")) return hirl_tape_global_avg_pool(tape, x[0], y_p);
    if (is_op(l, "batch_norm")) {
        hirl_bn_args_t args = {.is_training = field(l, "training", 1),
                               .group = n / field(l, "groups", 1),
                               .eps = 1e-5f,
                               .momentum = 0.1f};
        bool has_affine = field(l, "affine", 1), has_residual = field(l, "residual", 0);
        HIRL_TRY_GOTO(constant(be, hirl_shape_1(c), 50, 0.2f, &args.running_mean), status, bn);
        HIRL_TRY_GOTO(hirl_backend_tensor(be, hirl_shape_1(c), HIRL_F32, &args.running_var), status,
                      bn);
        HIRL_TRY_GOTO(hirl_op_fill(be, 0.7f, &args.running_var), status, bn);
        status = hirl_tape_batch_norm(
            tape, &args, x[0], has_affine ? x[1] : NULL, has_affine ? x[2] : NULL,
            has_residual ? x[has_affine ? 3 : 1] : NULL, field(l, "relu", 0), y_p);
    bn:
        hirl_tensor_reset(&args.running_mean);
        hirl_tensor_reset(&args.running_var);
        return status;
    }
    if (is_op(l, "layer_norm")) return hirl_tape_layer_norm(tape, x[0], x[1], x[2], 1e-6f, y_p);
    if (is_op(l, "attention")) {
        const attention_line_t a = attention_line(l);
        const int64_t n_masks = field(l, "mask", 0);
        if (n_masks) HIRL_TRY(constant(be, hirl_shape_3(n_masks, a.n_query, a.n_key), 65, 2, &t1));
        status = hirl_tape_attention(
            tape, &a.p, x[0], x[a.n_matrices > 1 ? 1 : 0], x[a.n_matrices - 1],
            field(l, "bias", 0) ? x[a.n_matrices] : NULL, n_masks ? &t1 : NULL, y_p);
        hirl_tensor_reset(&t1);
        return status;
    }
    if (is_op(l, "linear"))
        return hirl_tape_linear(tape, x[0], x[1], in->n > 2 ? x[2] : NULL, field_act(l), y_p);
    if (is_op(l, "dropout") || is_op(l, "drop_path")) return apply_drop(tape, l, x, y_p);
    if (is_op(l, "matmul_const")) {
        HIRL_TRY(constant(be, hirl_shape_2(field(l, "m", 1), d), 60, 1, &t1));
        status = hirl_tape_matmul_const(tape, x[0], &t1, y_p);
    } else if (is_op(l, "act")) {
        status = hirl_tape_act(tape, field_act(l), x[0], y_p);
    } else if (is_op(l, "add")) {
        status = hirl_tape_add(tape, x[0], x[1], y_p);
    } else if (is_op(l, "mul")) {
        status = hirl_tape_mul(tape, x[0], x[1], y_p);
    } else if (is_op(l, "l2_normalize")) {
        status = hirl_tape_l2_normalize(tape, x[0], y_p);
    } else if (is_op(l, "row_dot")) {
        status = hirl_tape_row_dot(tape, x[0], x[1], y_p);
    } else if (is_op(l, "concat_columns")) {
        status = hirl_tape_concat_columns(tape, x[0], x[1], y_p);
    } else if (is_op(l, "gather_rows")) {
        HIRL_TRY(indices(be, hirl_shape_1(n), 61, &(int64_t){field(l, "r", 1)}, 1, &t1));
        status = hirl_tape_gather_rows(tape, x[0], &t1, y_p);
    } else if (is_op(l, "softmax")) {
        status = hirl_tape_softmax(tape, x[0], (float)field(l, "scale", 1), y_p);
    } else if (is_op(l, "cross_entropy")) {
        HIRL_TRY(indices(be, hirl_shape_1(n), 62, &(int64_t){d}, 1, &t1));
        status = hirl_tape_cross_entropy(tape, x[0], (float)field(l, "scale", 1), &t1, y_p, NULL);
    } else if (is_op(l, "path_loss")) {
        int64_t limit[] = {field(l, "k0", 1), field(l, "k1", 1), field(l, "k2", 1)};
        long b = field(l, "b", 1);
        HIRL_TRY(indices(be, hirl_shape_2(b, in->n), 63, limit, in->n, &t1));
        HIRL_TRY_GOTO(indices(be, hirl_shape_3(b, field(l, "m", 1), in->n), 64, limit, in->n, &t2),
                      status, done);
        status = hirl_tape_path_loss(tape, in->n, x, &t1, &t2, y_p, NULL);
    } else if (is_op(l, "cast")) {
        status = hirl_tape_cast(tape, x[0], field_dtype(l), y_p);
    } else if (is_op(l, "to_plain")) {
        status = hirl_tape_to_plain(tape, x[0], y_p);
    } else {
        status = HIRL_FAIL(HIRL_ERR_ARG, "no operation '%s'", l->op);
    }
done:
    hirl_tensor_reset(&t1);
    hirl_tensor_reset(&t2);
    return status;
}

static hirl_status_t fetch(hirl_backend_t *be, const hirl_tensor_t *t, float **host_p) {
    hirl_tensor_t plain = {0};
    HIRL_TRY(hirl_op_to_plain(be, t, HIRL_F32, &plain));
    *host_p = malloc((size_t)hirl_tensor_count(t) * sizeof(float));
    hirl_status_t status = hirl_backend_download(be, &plain, *host_p);
    hirl_tensor_reset(&plain);
    return status;
}

// Forward, and unless `is_forward_only` backward of a fixed gradient of y.
static hirl_status_t run(hirl_tape_t *tape, const line_t *l, const inputs_t *in,
                         bool is_forward_only, result_t *r) {
    hirl_backend_t *be = hirl_tape_backend_view(tape);
    hirl_var_t *x[MAX_INPUTS] = {NULL}, *y = NULL;
    hirl_tensor_t grad[MAX_INPUTS] = {{0}}, dy = {0}, dy_cast = {0};
    hirl_status_t status = HIRL_OK;
    *r = (result_t){0};
    for (int i = 0; i < in->n; ++i)
        HIRL_TRY_GOTO(make_leaf(tape, l, in, i, &grad[i], &x[i]), status, done);
    HIRL_TRY_GOTO(apply(tape, l, in, x, &y), status, done);
    r->n_out = hirl_tensor_count(hirl_var_value_view(y));
    HIRL_TRY_GOTO(fetch(be, hirl_var_value_view(y), &r->out), status, done);
    if (is_forward_only) goto done;
    HIRL_TRY_GOTO(constant(be, hirl_var_value_view(y)->shape, 70, 1, &dy), status, done);
    if (hirl_var_value_view(y)->dtype != HIRL_F32) {
        HIRL_TRY_GOTO(hirl_op_cast(be, &dy, hirl_var_value_view(y)->dtype, &dy_cast), status, done);
        hirl_tensor_reset(&dy);
        dy = dy_cast;
    }
    HIRL_TRY_GOTO(hirl_tape_backward_from(tape, y, &dy), status, done);
    for (int i = 0; i < in->n; ++i) HIRL_TRY_GOTO(fetch(be, &grad[i], &r->grad[i]), status, done);
done:
    hirl_tape_reset(tape);
    hirl_var_release(&y);
    for (int i = 0; i < in->n; ++i) {
        hirl_var_release(&x[i]);
        hirl_tensor_reset(&grad[i]);
    }
    hirl_tensor_reset(&dy);
    return status;
}

// -------------------------------------------------------------------------------------- checks

static double worst_difference(const float *a, const float *b, int64_t n) {
    double worst = 0, scale = 1e-6;
    for (int64_t i = 0; i < n; ++i) {
        double d = fabs((double)a[i] - b[i]);
        if (!(d <= worst)) worst = d; // NaN stays
        scale = fmax(scale, fabs((double)b[i]));
    }
    return worst / scale;
}

static void check_parity(const line_t *l, const inputs_t *in, const result_t *a,
                         const result_t *b) {
    const hirl_dtype_t dtype = field_dtype(l);
    double bound = dtype == HIRL_BF16 ? 2e-2 : dtype == HIRL_F16 ? 2.5e-3 : 2e-5;
    double d = worst_difference(a->out, b->out, b->n_out);
    CHECK_MSG(d <= bound, "%s: output differs from ref by %.2e, bound %.0e", l->text, d, bound);
    for (int i = 0; i < in->n; ++i) {
        d = worst_difference(a->grad[i], b->grad[i], hirl_shape_count(&in->shape[i]));
        CHECK_MSG(d <= bound, "%s: gradient of input %d differs from ref by %.2e, bound %.0e",
                  l->text, i, d, bound);
    }
}

// sum of dy * y, with the dy of `run`
static double weigh(const result_t *r) {
    hirl_rng_t rng = hirl_rng_make(7, HIRL_RNG_TEST, 2, 70, 0);
    double sum = 0;
    for (int64_t i = 0; i < r->n_out; ++i)
        sum += (double)(float)hirl_rng_range(&rng, -1, 1) * r->out[i];
    return sum;
}

// Along random directions of one input at a time.
static void check_differences(hirl_tape_t *tape, const line_t *l, inputs_t *in, const result_t *r) {
    for (int i = 0; i < in->n; ++i) {
        int64_t count = hirl_shape_count(&in->shape[i]);
        float *keep = in->value[i], *moved = malloc((size_t)count * sizeof(float));
        // pooling: a step below half the lattice's distance
        double h = is_op(l, "max_pool") ? 0.4 * in->spread[i] / (double)count : 1e-2;
        for (uint64_t trial = 0; trial < 2; ++trial) {
            double side[2], slope = 0, size = 0, grad = 0;
            for (int s = 0; s < 2; ++s) {
                result_t moved_result;
                hirl_rng_t rng = hirl_rng_make(7, HIRL_RNG_TEST, 4, (uint64_t)i, (uint32_t)trial);
                for (int64_t j = 0; j < count; ++j)
                    moved[j] = keep[j] + (float)(h * (s ? -1 : 1) * hirl_rng_range(&rng, -1, 1));
                in->value[i] = moved;
                NEED_OK(run(tape, l, in, true, &moved_result));
                in->value[i] = keep;
                side[s] = weigh(&moved_result);
                result_reset(in, &moved_result);
            }
            hirl_rng_t rng = hirl_rng_make(7, HIRL_RNG_TEST, 4, (uint64_t)i, (uint32_t)trial);
            for (int64_t j = 0; j < count; ++j) {
                double v = hirl_rng_range(&rng, -1, 1);
                slope += v * r->grad[i][j];
                size += v * v;
                grad += (double)r->grad[i][j] * r->grad[i][j];
            }
            double measured = (side[0] - side[1]) / (2 * h),
                   bound = 5e-3 * (sqrt(size * grad) + 1e-3);
            CHECK_MSG(fabs(measured - slope) <= bound,
                      "%s: input %d: slope %.6g, differences give %.6g, bound %.1e", l->text, i,
                      slope, measured, bound);
        }
        free(moved);
    }
}

// -------------------------------------------------------------------------------------- without a tape

enum { N_STATE = 4 };

// Segments of n/7, n/2 and the rest less a gap before it, decayed, adapted and late in their own ways.
static hirl_status_t apply_update(hirl_backend_t *be, const line_t *l, const hirl_tensor_t *g,
                                  hirl_tensor_t *v, hirl_tensor_t *w, hirl_tensor_t *p) {
    static const char *const rules[] = {"sgd", "adamw", "lars", "larc", "joint"};
    const int64_t n = hirl_tensor_count(p), a = n / 7, b = n / 2;
    const hirl_segment_t segment[] = {
        {0, a, 0, 0.05f, true}, {a, b, 2, 0.0f, false}, {a + b + 5, n - a - b - 5, 1, 0.01f, true}};
    hirl_update_t update = {.lr = 0.1f,
                            .grad_scale = 0.75f,
                            .momentum = 0.9f,
                            .trust = 0.02f,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .step = 4,
                            .is_nesterov = field(l, "nesterov", 0)};
    hirl_segments_t *segments = NULL;
    for (int i = 0; i < 5; ++i)
        if (field_is(l, "rule", rules[i])) update.rule = (hirl_rule_t)i;
    HIRL_TRY(hirl_segments_create(be, segment, 3, &segments));
    const hirl_status_t status = hirl_op_update(be, &update, segments, g, v, w, p);
    hirl_segments_destroy(&segments);
    return status;
}

static hirl_status_t run_update(hirl_backend_t *be, const line_t *l, float *out[N_STATE],
                                double *number) {
    hirl_shape_t shape = field(l, "c", 0) ? image_shape(l) : hirl_shape_1(field(l, "n", 1));
    hirl_tensor_t t[N_STATE] = {{0}}, blocked = {0};
    hirl_status_t status = HIRL_OK;
    for (int i = 0; i < N_STATE; ++i)
        HIRL_TRY_GOTO(constant(be, shape, 80 + (uint64_t)i, 1, &t[i]), status, done);
    *number = 0;
    if (is_op(l, "update")) {
        HIRL_TRY_GOTO(hirl_op_mul(be, &t[3], &t[3], &t[2]), status,
                      done); // second moments are not negative
        HIRL_TRY_GOTO(apply_update(be, l, &t[0], &t[1], &t[2], &t[3]), status, done);
    } else if (is_op(l, "ema")) {
        HIRL_TRY_GOTO(hirl_op_ema(be, 0.9f, &t[0], &t[1]), status, done);
    } else if (is_op(l, "fill")) {
        HIRL_TRY_GOTO(hirl_op_fill(be, 3.25f, &t[1]), status, done);
    } else if (is_op(l, "sum_squares")) {
        HIRL_TRY_GOTO(hirl_op_sum_squares(be, &t[0], number), status, done);
    } else if (is_op(l, "axpby")) {
        if (field_is(l, "layout", "blocked")) {
            HIRL_TRY_GOTO(hirl_op_to_blocked(be, &t[0], &blocked), status, done);
            hirl_tensor_reset(&t[0]);
            t[0] = blocked;
        }
        HIRL_TRY_GOTO(hirl_op_axpby(be, 0.5f, &t[0], -2.0f, &t[1]), status, done);
        HIRL_TRY_GOTO(hirl_op_fill(be, NAN, &t[2]), status, done);
        HIRL_TRY_GOTO(hirl_op_axpby(be, 2.0f, &t[0], 0.0f, &t[2]), status,
                      done); // b = 0 overwrites NaN
        HIRL_TRY_GOTO(hirl_op_axpby(be, 3.0f, &t[3], 0.5f, &t[3]), status, done); // onto itself
    }
    for (int i = 0; i < N_STATE; ++i) HIRL_TRY_GOTO(fetch(be, &t[i], &out[i]), status, done);
done:
    for (int i = 0; i < N_STATE; ++i) hirl_tensor_reset(&t[i]);
    return status;
}

static bool is_update(const line_t *l) {
    static const char *const ops[] = {"update", "ema", "fill", "sum_squares", "axpby"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; ++i)
        if (is_op(l, ops[i])) return true;
    return false;
}

static void check_update(hirl_backend_t *be, hirl_backend_t *ref, const line_t *l) {
    float *a[N_STATE] = {NULL}, *b[N_STATE] = {NULL};
    double na, nb;
    hirl_shape_t shape = field(l, "c", 0) ? image_shape(l) : hirl_shape_1(field(l, "n", 1));
    NEED_OK(run_update(be, l, a, &na));
    NEED_OK(run_update(ref, l, b, &nb));
    for (int i = 0; i < N_STATE; ++i) {
        double d = worst_difference(a[i], b[i], hirl_shape_count(&shape));
        CHECK_MSG(d <= 2e-5, "%s: array %d differs from ref by %.2e", l->text, i, d);
        free(a[i]);
        free(b[i]);
    }
    CHECK_MSG(fabs(na - nb) <= 1e-6 * fabs(nb), "%s: %.9g, ref %.9g", l->text, na, nb);
}

// -------------------------------------------------------------------------------------- table

static void check_line(hirl_tape_t *tape, hirl_tape_t *ref, const line_t *l) {
    inputs_t in = {0};
    result_t mine, oracle;
    if (is_update(l)) {
        check_update(hirl_tape_backend_view(tape), hirl_tape_backend_view(ref), l);
        return;
    }
    if (!(describe_inputs(l, &in))) {
        CHECK_MSG(0, "%s: no such operation", l->text);
        return;
    }
    draw_inputs(l, &in);
    if (!hirl_backend_has_dtype(hirl_tape_backend_view(tape), field_dtype(l))) {
        CHECK_MSG(run(tape, l, &in, false, &mine) != HIRL_OK &&
                      strstr(hirl_error_text_view(), "to f16, want f32 or bf16"),
                  "%s: not refused, or not told why: %s", l->text, hirl_error_text_view());
        hirl_error_reset();
        result_reset(&in, &mine);
        for (int i = 0; i < in.n; ++i) free(in.value[i]);
        return;
    }
    NEED_OK(run(tape, l, &in, false, &mine));
    NEED_OK(run(ref, l, &in, false, &oracle));
    check_parity(l, &in, &mine, &oracle);
    if (field_dtype(l) == HIRL_F32) check_differences(tape, l, &in, &mine);
    result_reset(&in, &mine);
    result_reset(&in, &oracle);
    for (int i = 0; i < in.n; ++i) free(in.value[i]);
}

static void test_table(void) {
    hirl_world_t *world = NULL;
    hirl_backend_t *be = NULL, *ref_be = NULL;
    hirl_tape_t *tape = NULL, *ref = NULL;
    char text[256];
    int n_lines = 0;
    FILE *file = fopen(test_argc() > 2 ? test_argv()[2] : "validation/ops/ops_table.txt", "r");
    NEED(file);
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_backend_create(test_backend(), 2, &be));
    NEED_OK(hirl_backend_create("ref", 1, &ref_be));
    NEED_OK(hirl_tape_create(be, world, &tape));
    NEED_OK(hirl_tape_create(ref_be, world, &ref));
    while (fgets(text, sizeof text, file)) {
        line_t line;
        text[strcspn(text, "\n")] = '\0';
        if (!parse(text, &line)) continue;
        ++n_lines;
        check_line(tape, ref, &line);
    }
    CHECK_MSG(n_lines > 60, "only %d lines in the table", n_lines);
    CHECK_MSG(hirl_backend_memory_used(be) == 0,
              "%zu bytes of the backend's memory were not given back",
              hirl_backend_memory_used(be));
    fclose(file);
    hirl_tape_destroy(&tape);
    hirl_tape_destroy(&ref);
    hirl_backend_destroy(&be);
    hirl_backend_destroy(&ref_be);
    hirl_world_destroy(&world);
}

TEST_MAIN { RUN(test_table); }
