// Shapes, reference counts, views, and what is refused.
// test: timeout=30
#include "hirl/tensor.h"

#include "test.h"

static void test_shapes(void) {
    const hirl_shape_t a = hirl_shape_4(2, 3, 4, 5), b = hirl_shape_4(2, 3, 4, 6),
                       c = hirl_shape_1(120);
    char text[128];
    CHECK_EQ_I(hirl_shape_count(&a), 120);
    CHECK(hirl_shape_equal(&a, &a));
    CHECK(!hirl_shape_equal(&a, &b));
    CHECK(!hirl_shape_equal(&a, &c));
    CHECK_EQ_S(hirl_shape_text(&a, text), "[2, 3, 4, 5]");
    CHECK_EQ_S(hirl_shape_text(&(hirl_shape_t){0}, text), "[]");
    CHECK_EQ_I(hirl_shape_count(&(hirl_shape_t){0}), 1);
    hirl_shape_t huge = {.n_axes = HIRL_MAX_AXES};
    for (int i = 0; i < HIRL_MAX_AXES; i++) huge.dim[i] = INT64_MIN;
    CHECK(strlen(hirl_shape_text(&huge, text)) < sizeof text); // cut, not overrun
    const struct {
        hirl_dtype_t dtype;
        const char *name;
        size_t size;
    } dtypes[] = {{HIRL_F32, "f32", 4}, {HIRL_BF16, "bf16", 2}, {HIRL_F16, "f16", 2},
                  {HIRL_U8, "u8", 1},   {HIRL_I32, "i32", 4},   {HIRL_I64, "i64", 8}};
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        CHECK_EQ_S(hirl_dtype_name(dtypes[i].dtype), dtypes[i].name);
        CHECK_EQ_I(hirl_dtype_size(dtypes[i].dtype), dtypes[i].size);
    }
}

// An allocator that counts, in host memory or in what poses as a device's.
typedef struct counts {
    int n_given, n_taken;
    size_t bytes;
    bool is_failing;
} counts_t;

static hirl_status_t counting_alloc(void *ctx, size_t bytes, void **data_p) {
    counts_t *counts = ctx;
    if (counts->is_failing) return HIRL_FAIL(HIRL_ERR_MEMORY, "no memory today");
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_WORKSPACE, bytes, data_p));
    counts->n_given++;
    counts->bytes += bytes;
    return HIRL_OK;
}

static void counting_free(void *ctx, void *data, size_t bytes) {
    counts_t *counts = ctx;
    counts->n_taken++;
    counts->bytes -= bytes;
    hirl_mem_free(data);
}

static void test_references(void) {
    for (int space = HIRL_SPACE_HOST; space <= HIRL_SPACE_DEVICE; space++) {
        counts_t counts = {0};
        const hirl_allocator_t allocator = {(hirl_space_t)space, &counts, counting_alloc,
                                            counting_free};
        hirl_tensor_t x = {0};
        NEED_OK(hirl_tensor_create(&allocator, hirl_shape_2(3, 5), HIRL_BF16, &x));
        CHECK_EQ_I(counts.n_given, 1);
        CHECK_EQ_I(hirl_storage_bytes(x.storage), 30);
        CHECK_EQ_I(hirl_storage_space(x.storage), space);
        CHECK_EQ_I((uintptr_t)hirl_tensor_data(&x) % 64, 0);
        CHECK_EQ_I(hirl_tensor_count(&x), 15);
        CHECK(hirl_tensor_is_plain(&x));
        hirl_tensor_t y = hirl_tensor_retain(&x);
        hirl_tensor_reset(&x);
        CHECK(!hirl_tensor_is_set(&x));
        CHECK_EQ_I(counts.n_taken, 0); // y still holds it
        hirl_tensor_reset(&y);
        CHECK_EQ_I(counts.n_taken, 1);
        CHECK_EQ_I(counts.bytes, 0); // the same number of bytes came back
        hirl_tensor_reset(&y);
        CHECK_EQ_I(counts.n_taken, 1);
        counts.is_failing = true;
        CHECK_FAILS(hirl_tensor_create(&allocator, hirl_shape_1(4), HIRL_F32, &x), HIRL_ERR_MEMORY,
                    "no memory today");
        CHECK(!hirl_tensor_is_set(&x));
    }
    CHECK(hirl_tensor_data(&(hirl_tensor_t){0}) == NULL);
    CHECK_EQ_I(hirl_tensor_count(&(hirl_tensor_t){0}), 0);
}

static void test_views(void) {
    float data[24];
    for (int i = 0; i < 24; i++) data[i] = (float)i;
    hirl_tensor_t x = {0}, rows = {0}, part = {0}, flat = {0};
    NEED_OK(hirl_tensor_wrap(data, hirl_shape_3(4, 2, 3), HIRL_F32, &x));
    CHECK(hirl_tensor_f32(&x) == data);
    NEED_OK(hirl_tensor_rows(&x, 1, 2, &rows));
    CHECK(hirl_tensor_f32(&rows) == data + 6);
    CHECK(hirl_shape_equal(&rows.shape, &(hirl_shape_t){3, {2, 2, 3}}));
    NEED_OK(hirl_tensor_rows(&rows, 1, 1, &part)); // a view of a view
    CHECK(hirl_tensor_f32(&part) == data + 12);
    NEED_OK(hirl_tensor_reshape(&rows, hirl_shape_2(3, 4), &flat));
    CHECK(hirl_tensor_f32(&flat) == data + 6);
    hirl_tensor_reset(&x);
    CHECK(hirl_tensor_f32(&part)[0] == 12); // views hold the storage
    hirl_tensor_t none = {0};
    CHECK_FAILS(hirl_tensor_reshape(&rows, hirl_shape_2(3, 5), &none), HIRL_ERR_ARG,
                "[2, 2, 3] and [3, 5]");
    CHECK_FAILS(hirl_tensor_rows(&rows, 1, 2, &none), HIRL_ERR_ARG,
                "[1, 1 + 2) lies outside of [2, 2, 3]");
    CHECK_FAILS(hirl_tensor_rows(&rows, -1, 1, &none), HIRL_ERR_ARG, "outside");
    CHECK_FAILS(hirl_tensor_rows(&rows, 1, INT64_MAX, &none), HIRL_ERR_ARG, "outside");
    CHECK_FAILS(hirl_tensor_wrap(NULL, hirl_shape_1(1), HIRL_F32, &none), HIRL_ERR_ARG, "NULL");
    CHECK(!hirl_tensor_is_set(&none));
    NEED_OK(hirl_tensor_rows(&rows, 2, 0, &none)); // no rows at the end are still rows
    CHECK_EQ_I(hirl_tensor_count(&none), 0);
    hirl_tensor_reset(&none);
    hirl_tensor_reset(&rows);
    hirl_tensor_reset(&part);
    hirl_tensor_reset(&flat);
}

static void test_sizes(void) {
    counts_t counts = {0};
    const hirl_allocator_t allocator = {HIRL_SPACE_HOST, &counts, counting_alloc, counting_free};
    hirl_tensor_t x = {0};
    // 2^31 x 2^31 x 4 bytes does not fit 64 bits; nor may any product that comes close.
    CHECK_FAILS(hirl_tensor_create(&allocator, hirl_shape_2(INT64_C(1) << 31, INT64_C(1) << 31),
                                   HIRL_F32, &x),
                HIRL_ERR_ARG, "too many elements");
    CHECK_FAILS(hirl_tensor_create(&allocator, hirl_shape_2(INT64_MAX, 2), HIRL_U8, &x),
                HIRL_ERR_ARG, "too many elements");
    CHECK_FAILS(hirl_tensor_create(&allocator, hirl_shape_2(-1, 2), HIRL_U8, &x), HIRL_ERR_ARG,
                "negative");
    CHECK_FAILS(hirl_tensor_create(&allocator, (hirl_shape_t){.n_axes = 7}, HIRL_U8, &x),
                HIRL_ERR_ARG, "7 axes");
    CHECK_FAILS(hirl_tensor_create(&allocator, hirl_shape_1(1), (hirl_dtype_t)99, &x), HIRL_ERR_ARG,
                "dtype 99");
    CHECK_EQ_I(counts.n_given, 0);
    NEED_OK(hirl_tensor_create(&allocator, hirl_shape_2(0, 5), HIRL_F32, &x));
    CHECK_EQ_I(hirl_tensor_count(&x), 0);
    hirl_tensor_reset(&x);
}

TEST_MAIN {
    RUN(test_shapes);
    RUN(test_references);
    RUN(test_views);
    RUN(test_sizes);
}
