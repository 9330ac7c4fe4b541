/// Element types and shapes: small values without memory of their own.
#include "hirl/tensor.h"

#include <stdio.h>
#include <string.h>

static const struct {
    size_t size;
    const char *name;
} dtype_facts[HIRL_DTYPE_COUNT] = {
    [HIRL_F32] = {4, "f32"}, [HIRL_BF16] = {2, "bf16"}, [HIRL_F16] = {2, "f16"},
    [HIRL_U8] = {1, "u8"},   [HIRL_I32] = {4, "i32"},   [HIRL_I64] = {8, "i64"},
};

size_t hirl_dtype_size(hirl_dtype_t dtype) {
    return (unsigned)dtype < HIRL_DTYPE_COUNT ? dtype_facts[dtype].size : 0;
}

const char *hirl_dtype_name(hirl_dtype_t dtype) {
    return (unsigned)dtype < HIRL_DTYPE_COUNT ? dtype_facts[dtype].name : "unknown";
}

hirl_shape_t hirl_shape_1(int64_t a) { return (hirl_shape_t){.n_axes = 1, .dim = {a}}; }
hirl_shape_t hirl_shape_2(int64_t a, int64_t b) {
    return (hirl_shape_t){.n_axes = 2, .dim = {a, b}};
}
hirl_shape_t hirl_shape_3(int64_t a, int64_t b, int64_t c) {
    return (hirl_shape_t){.n_axes = 3, .dim = {a, b, c}};
}
hirl_shape_t hirl_shape_4(int64_t a, int64_t b, int64_t c, int64_t d) {
    return (hirl_shape_t){.n_axes = 4, .dim = {a, b, c, d}};
}

int64_t hirl_shape_count(const hirl_shape_t *shape) {
    int64_t count = 1;
    for (int i = 0; i < shape->n_axes; ++i) count *= shape->dim[i];
    return count;
}

bool hirl_shape_equal(const hirl_shape_t *a, const hirl_shape_t *b) {
    if (a->n_axes != b->n_axes) return false;
    for (int i = 0; i < a->n_axes; ++i)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

char *hirl_shape_text(const hirl_shape_t *shape, char buf[128]) {
    int used = snprintf(buf, 128, "[");
    for (int i = 0; i < shape->n_axes && i < HIRL_MAX_AXES && used < 126; ++i)
        used += snprintf(buf + used, (size_t)(127 - used), i ? ", %lld" : "%lld",
                         (long long)shape->dim[i]);
    if (used > 126) used = 126; // absurd dimensions are cut short
    memcpy(buf + used, "]", 2);
    return buf;
}
