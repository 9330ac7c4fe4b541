/// @file tensor.h
/// Storage (reference-counted memory that an allocator gave) and tensors (views of it: shape, element type, layout tag).
/// No arithmetic. Not collective; not thread-safe: one thread drives the engine.
#ifndef HIRL_TENSOR_H
#define HIRL_TENSOR_H

#include "hirl/base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_MAX_AXES = 6 };

typedef enum hirl_dtype {
    HIRL_F32,
    HIRL_BF16,
    HIRL_F16,
    HIRL_U8,
    HIRL_I32,
    HIRL_I64,
    HIRL_DTYPE_COUNT
} hirl_dtype_t;

/// Bytes of one element, and its name ("f32").
size_t hirl_dtype_size(hirl_dtype_t dtype);
const char *hirl_dtype_name(hirl_dtype_t dtype);

typedef struct hirl_shape {
    int n_axes;
    int64_t dim[HIRL_MAX_AXES];
} hirl_shape_t;

/// Shapes of one to four axes.
hirl_shape_t hirl_shape_1(int64_t a);
hirl_shape_t hirl_shape_2(int64_t a, int64_t b);
hirl_shape_t hirl_shape_3(int64_t a, int64_t b, int64_t c);
hirl_shape_t hirl_shape_4(int64_t a, int64_t b, int64_t c, int64_t d);
/// Product of the dimensions (1 without axes).
int64_t hirl_shape_count(const hirl_shape_t *shape);
bool hirl_shape_equal(const hirl_shape_t *a, const hirl_shape_t *b);
/// "[256, 32, 32, 64]"; returns buf.
char *hirl_shape_text(const hirl_shape_t *shape, char buf[128]);

/// Where memory lies.
typedef enum hirl_space { HIRL_SPACE_HOST, HIRL_SPACE_PINNED, HIRL_SPACE_DEVICE } hirl_space_t;

/// Gives and takes blocks; a backend owns one. `alloc` returns memory aligned to 64 bytes at least.
typedef struct hirl_allocator {
    hirl_space_t space;
    void *ctx;
    hirl_status_t (*alloc)(void *ctx, size_t bytes, void **data_p);
    void (*free)(void *ctx, void *data, size_t bytes);
} hirl_allocator_t;

/// Where a pool gets its large chunks from: `take` gives memory aligned to the granule at least, or fails and says what was asked and what is held.
typedef struct hirl_pool_source {
    hirl_space_t space;
    size_t granule; // alignment of blocks: a divisor of 4096, 64 at least
    void *ctx;
    hirl_status_t (*take)(void *ctx, size_t bytes, void **memory_p);
    void (*give)(void *ctx, void *memory, size_t bytes);
} hirl_pool_source_t;

/// A caching pool: blocks are kept by size class and handed out again, so that a training loop in its steady state allocates
/// nothing. It never touches the memory.
typedef struct hirl_pool hirl_pool_t;
/// `source` is copied, its ctx borrowed for the pool's life.
hirl_status_t hirl_pool_create(const hirl_pool_source_t *source, hirl_pool_t **pool_p);
/// Over host memory with huge pages, counted as HIRL_MEM_ACTIVATION.
hirl_status_t hirl_pool_create_host(hirl_pool_t **pool_p);
/// All blocks must have come back.
void hirl_pool_destroy(hirl_pool_t **pool);
/// Valid as long as the pool.
const hirl_allocator_t *hirl_pool_allocator_view(hirl_pool_t *pool);
/// Bytes handed out now, at most so far, and held (handed out or cached).
size_t hirl_pool_used(const hirl_pool_t *pool);
size_t hirl_pool_peak(const hirl_pool_t *pool);
size_t hirl_pool_held(const hirl_pool_t *pool);
/// Gives cached chunks back to the source; a kept pool's stay, also when the source refuses more.
void hirl_pool_trim(hirl_pool_t *pool);
void hirl_pool_set_kept(hirl_pool_t *pool, bool is_kept);
/// Blocks that have come back so far.
uint64_t hirl_pool_n_given(const hirl_pool_t *pool);

typedef struct hirl_storage hirl_storage_t;

/// New storage with one reference. `allocator` is borrowed for the storage's life.
hirl_status_t hirl_storage_create(const hirl_allocator_t *allocator, size_t bytes,
                                  hirl_storage_t **storage_p);
/// Storage over memory that the caller keeps alive (HIRL_BORROW).
hirl_status_t hirl_storage_wrap(void *data, size_t bytes, hirl_space_t space,
                                hirl_storage_t **storage_p);
hirl_storage_t *hirl_storage_retain(hirl_storage_t *storage);
/// Drops one reference and sets *storage NULL; NULL allowed.
void hirl_storage_release(hirl_storage_t **storage);
void *hirl_storage_data(const hirl_storage_t *storage);
size_t hirl_storage_bytes(const hirl_storage_t *storage);
hirl_space_t hirl_storage_space(const hirl_storage_t *storage);

/// A memory layout that only the backend that made it understands; interned, so equal layouts are equal pointers. NULL is plain row-major.
typedef struct hirl_layout hirl_layout_t;

/// A view: a small value. It holds one reference to its storage from hirl_tensor_create / _retain / an op until hirl_tensor_reset.
/// {0} is "no tensor".
typedef struct hirl_tensor {
    hirl_storage_t *storage;
    size_t offset; // bytes; 0 unless the layout is plain
    hirl_shape_t shape;
    hirl_dtype_t dtype;
    const hirl_layout_t *layout; // NULL: plain
} hirl_tensor_t;

/// Plain tensor on new storage.
hirl_status_t hirl_tensor_create(const hirl_allocator_t *allocator, hirl_shape_t shape,
                                 hirl_dtype_t dtype, hirl_tensor_t *tensor_p);
/// Plain tensor over the caller's memory (HIRL_BORROW).
hirl_status_t hirl_tensor_wrap(void *data, hirl_shape_t shape, hirl_dtype_t dtype,
                               hirl_tensor_t *tensor_p);
/// Another view of the same elements (one more reference).
hirl_tensor_t hirl_tensor_retain(const hirl_tensor_t *tensor);
/// Drops the reference and clears the view.
void hirl_tensor_reset(hirl_tensor_t *tensor);
/// Same elements under another shape; plain only. Takes a reference. Errors: HIRL_ERR_ARG.
hirl_status_t hirl_tensor_reshape(const hirl_tensor_t *tensor, hirl_shape_t shape,
                                  hirl_tensor_t *view_p);
/// Rows [first, first + n) of axis 0; plain only. Takes a reference. Errors: HIRL_ERR_ARG.
hirl_status_t hirl_tensor_rows(const hirl_tensor_t *tensor, int64_t first, int64_t n,
                               hirl_tensor_t *view_p);
/// First byte; NULL for no tensor.
void *hirl_tensor_data(const hirl_tensor_t *tensor);
float *hirl_tensor_f32(const hirl_tensor_t *tensor); // checks dtype in debug builds
static inline bool hirl_tensor_is_set(const hirl_tensor_t *tensor) {
    return tensor && tensor->storage;
}
static inline bool hirl_tensor_is_plain(const hirl_tensor_t *tensor) {
    return tensor->layout == NULL;
}
int64_t hirl_tensor_count(const hirl_tensor_t *tensor);

#ifdef __cplusplus
}
#endif
#endif
