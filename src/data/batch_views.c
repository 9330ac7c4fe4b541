// Views made by a backend from a batch that keeps its pixels.
#include "hirl/data.h"

#include <string.h>

hirl_shape_t hirl_batch_view_shape(const hirl_batch_t *batch, int v, int64_t n) {
    hirl_shape_t shape = hirl_shape_4(n, batch->size[v], batch->width[v], batch->channels);
    if (!batch->has_clips) return shape;
    shape.n_axes = 5;
    memmove(shape.dim + 2, shape.dim + 1, 3 * sizeof *shape.dim);
    shape.dim[1] = batch->n_frames;
    return shape;
}

hirl_status_t hirl_batch_upload(hirl_backend_t *be, const hirl_batch_t *batch,
                                hirl_tensor_t *pixels_p) {
    HIRL_REQUIRE(batch->pixels != NULL, HIRL_ERR_ARG, "the batch has no pixels, but whole views");
    hirl_tensor_t pixels = {0};
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(batch->n_pixel_bytes), HIRL_U8, &pixels));
    const hirl_status_t status = hirl_backend_upload(be, batch->pixels, &pixels);
    if (status != HIRL_OK) {
        hirl_tensor_reset(&pixels);
        return status;
    }
    *pixels_p = pixels;
    return HIRL_OK;
}

hirl_status_t hirl_batch_make_view(hirl_backend_t *be, const hirl_batch_t *batch,
                                   const hirl_tensor_t *pixels, int v, int64_t first, int64_t n,
                                   hirl_tensor_t *view_p) {
    HIRL_REQUIRE(v >= 0 && v < batch->n_views && batch->recipe[v] != NULL, HIRL_ERR_ARG,
                 "view %d of %d: the batch has no recipes of it", v, batch->n_views);
    HIRL_REQUIRE(first >= 0 && n >= 1 && first <= batch->n - n, HIRL_ERR_ARG,
                 "rows %lld..%lld of a batch of %lld", (long long)first, (long long)(first + n - 1),
                 (long long)batch->n);
    return hirl_op_make_views(be, pixels, batch->recipe[v] + first, n, batch->size[v],
                              batch->channels, batch->mean, batch->std, view_p);
}
