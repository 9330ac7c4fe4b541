/// Reference-counted storage and the tensors that view it.
/// The record of a storage in host memory lies in front of its bytes, in the same block of the allocator, so that making a
/// tensor in a training loop asks nobody but the caching pool for memory. Device memory keeps its records on the host.
#include "hirl/tensor.h"

#include <string.h>

struct hirl_storage {
    const hirl_allocator_t *allocator; // NULL: wrapped memory of someone else
    void *data;
    size_t bytes;
    int64_t n_references;
    hirl_space_t space;
    bool is_inline; // the record is the head of the allocator's block
};

enum { RECORD_BYTES = 64 }; // keeps the data aligned to 64 bytes
_Static_assert(sizeof(struct hirl_storage) <= RECORD_BYTES, "the record must fit its place");

// ---------------------------------------------------------------------------------------------- storage

hirl_status_t hirl_storage_create(const hirl_allocator_t *allocator, size_t bytes,
                                  hirl_storage_t **storage_p) {
    HIRL_REQUIRE(allocator && storage_p, HIRL_ERR_ARG,
                 "storage: allocator and output must be given");
    HIRL_REQUIRE(bytes <= SIZE_MAX - RECORD_BYTES, HIRL_ERR_ARG, "storage: %zu bytes are too many",
                 bytes);
    hirl_storage_t *storage = NULL;
    void *block = NULL;
    const bool is_inline = allocator->space != HIRL_SPACE_DEVICE;
    if (is_inline) {
        HIRL_TRY(allocator->alloc(allocator->ctx, bytes + RECORD_BYTES, &block));
        storage = block;
        *storage = (hirl_storage_t){.data = (char *)block + RECORD_BYTES, .is_inline = true};
    } else {
        void *record = NULL;
        HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, sizeof *storage, &record));
        const hirl_status_t status = allocator->alloc(allocator->ctx, bytes, &block);
        if (status != HIRL_OK) {
            hirl_mem_free(record);
            return status;
        }
        storage = record;
        *storage = (hirl_storage_t){.data = block};
    }
    storage->allocator = allocator;
    storage->bytes = bytes;
    storage->n_references = 1;
    storage->space = allocator->space;
    *storage_p = storage;
    return HIRL_OK;
}

hirl_status_t hirl_storage_wrap(void *data, size_t bytes, hirl_space_t space,
                                hirl_storage_t **storage_p) {
    HIRL_REQUIRE(storage_p && (data || bytes == 0), HIRL_ERR_ARG,
                 "storage: memory of %zu bytes to wrap is NULL", bytes);
    void *record = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, sizeof(hirl_storage_t), &record));
    hirl_storage_t *storage = record;
    *storage = (hirl_storage_t){.data = data, .bytes = bytes, .n_references = 1, .space = space};
    *storage_p = storage;
    return HIRL_OK;
}

hirl_storage_t *hirl_storage_retain(hirl_storage_t *storage) {
    if (storage) ++storage->n_references;
    return storage;
}

void hirl_storage_release(hirl_storage_t **storage_p) {
    hirl_storage_t *storage = storage_p ? *storage_p : NULL;
    if (!storage) return;
    *storage_p = NULL;
    HIRL_ASSERT(storage->n_references > 0);
    if (--storage->n_references > 0) return;
    const hirl_allocator_t *allocator = storage->allocator;
    if (storage->is_inline) {
        allocator->free(allocator->ctx, storage, storage->bytes + RECORD_BYTES);
    } else {
        if (allocator) allocator->free(allocator->ctx, storage->data, storage->bytes);
        hirl_mem_free(storage);
    }
}

void *hirl_storage_data(const hirl_storage_t *storage) { return storage ? storage->data : NULL; }
size_t hirl_storage_bytes(const hirl_storage_t *storage) { return storage ? storage->bytes : 0; }
hirl_space_t hirl_storage_space(const hirl_storage_t *storage) {
    return storage ? storage->space : HIRL_SPACE_HOST;
}

// ---------------------------------------------------------------------------------------------- tensors

static hirl_status_t bytes_of(const hirl_shape_t *shape, hirl_dtype_t dtype, size_t *bytes_p) {
    HIRL_REQUIRE((unsigned)dtype < HIRL_DTYPE_COUNT, HIRL_ERR_ARG, "tensor: unknown dtype %d",
                 (int)dtype);
    HIRL_REQUIRE(shape->n_axes >= 0 && shape->n_axes <= HIRL_MAX_AXES, HIRL_ERR_ARG,
                 "tensor: %d axes, want 0..%d", shape->n_axes, HIRL_MAX_AXES);
    char text[128];
    size_t bytes = hirl_dtype_size(dtype);
    for (int i = 0; i < shape->n_axes; ++i) {
        HIRL_REQUIRE(shape->dim[i] >= 0, HIRL_ERR_ARG, "tensor: negative dimension in %s",
                     hirl_shape_text(shape, text));
        HIRL_REQUIRE(
            !__builtin_mul_overflow(bytes, (size_t)shape->dim[i], &bytes) && bytes <= PTRDIFF_MAX,
            HIRL_ERR_ARG, "tensor: shape %s has too many elements", hirl_shape_text(shape, text));
    }
    *bytes_p = bytes;
    return HIRL_OK;
}

hirl_status_t hirl_tensor_create(const hirl_allocator_t *allocator, hirl_shape_t shape,
                                 hirl_dtype_t dtype, hirl_tensor_t *tensor_p) {
    HIRL_REQUIRE(tensor_p, HIRL_ERR_ARG, "tensor: no output given");
    size_t bytes = 0;
    HIRL_TRY(bytes_of(&shape, dtype, &bytes));
    hirl_storage_t *storage = NULL;
    HIRL_TRY(hirl_storage_create(allocator, bytes, &storage));
    *tensor_p = (hirl_tensor_t){.storage = storage, .shape = shape, .dtype = dtype};
    return HIRL_OK;
}

hirl_status_t hirl_tensor_wrap(void *data, hirl_shape_t shape, hirl_dtype_t dtype,
                               hirl_tensor_t *tensor_p) {
    HIRL_REQUIRE(tensor_p, HIRL_ERR_ARG, "tensor: no output given");
    size_t bytes = 0;
    HIRL_TRY(bytes_of(&shape, dtype, &bytes));
    hirl_storage_t *storage = NULL;
    HIRL_TRY(hirl_storage_wrap(data, bytes, HIRL_SPACE_HOST, &storage));
    *tensor_p = (hirl_tensor_t){.storage = storage, .shape = shape, .dtype = dtype};
    return HIRL_OK;
}

hirl_tensor_t hirl_tensor_retain(const hirl_tensor_t *tensor) {
    hirl_storage_retain(tensor->storage);
    return *tensor;
}

void hirl_tensor_reset(hirl_tensor_t *tensor) {
    if (!tensor) return;
    hirl_storage_release(&tensor->storage);
    memset(tensor, 0, sizeof *tensor);
}

hirl_status_t hirl_tensor_reshape(const hirl_tensor_t *tensor, hirl_shape_t shape,
                                  hirl_tensor_t *view_p) {
    HIRL_REQUIRE(hirl_tensor_is_set(tensor) && view_p, HIRL_ERR_ARG, "reshape: no tensor given");
    char from[128], to[128];
    HIRL_REQUIRE(!tensor->layout, HIRL_ERR_ARG,
                 "reshape: %s has an opaque layout; convert it with hirl_op_to_plain",
                 hirl_shape_text(&tensor->shape, from));
    size_t bytes = 0;
    HIRL_TRY(bytes_of(&shape, tensor->dtype, &bytes));
    HIRL_REQUIRE(hirl_shape_count(&shape) == hirl_shape_count(&tensor->shape), HIRL_ERR_ARG,
                 "reshape: %s and %s differ in their number of elements",
                 hirl_shape_text(&tensor->shape, from), hirl_shape_text(&shape, to));
    hirl_tensor_t view = hirl_tensor_retain(tensor);
    view.shape = shape;
    *view_p = view;
    return HIRL_OK;
}

hirl_status_t hirl_tensor_rows(const hirl_tensor_t *tensor, int64_t first, int64_t n,
                               hirl_tensor_t *view_p) {
    HIRL_REQUIRE(hirl_tensor_is_set(tensor) && view_p, HIRL_ERR_ARG, "rows: no tensor given");
    char text[128];
    HIRL_REQUIRE(!tensor->layout, HIRL_ERR_ARG,
                 "rows: %s has an opaque layout; convert it with hirl_op_to_plain",
                 hirl_shape_text(&tensor->shape, text));
    HIRL_REQUIRE(tensor->shape.n_axes >= 1, HIRL_ERR_ARG, "rows: the tensor has no axis");
    const int64_t n_rows = tensor->shape.dim[0];
    HIRL_REQUIRE(first >= 0 && n >= 0 && first <= n_rows && n <= n_rows - first, HIRL_ERR_ARG,
                 "rows: [%lld, %lld + %lld) lies outside of %s", (long long)first, (long long)first,
                 (long long)n, hirl_shape_text(&tensor->shape, text));
    const int64_t row = n_rows > 0 ? hirl_shape_count(&tensor->shape) / n_rows : 0;
    hirl_tensor_t view = hirl_tensor_retain(tensor);
    view.offset += (size_t)(first * row) * hirl_dtype_size(tensor->dtype);
    view.shape.dim[0] = n;
    *view_p = view;
    return HIRL_OK;
}

void *hirl_tensor_data(const hirl_tensor_t *tensor) {
    return hirl_tensor_is_set(tensor) ? (char *)tensor->storage->data + tensor->offset : NULL;
}

float *hirl_tensor_f32(const hirl_tensor_t *tensor) {
    HIRL_ASSERT(!hirl_tensor_is_set(tensor) || tensor->dtype == HIRL_F32);
    return hirl_tensor_data(tensor);
}

int64_t hirl_tensor_count(const hirl_tensor_t *tensor) {
    return hirl_tensor_is_set(tensor) ? hirl_shape_count(&tensor->shape) : 0;
}
