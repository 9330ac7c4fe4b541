// Dropout and drop path: every element asks its sample's stream.

#include "ref_impl.h"

static hirl_rng_t stream_of(const hirl_drop_t *drop, int64_t sample) {
    const int64_t *counter = hirl_tensor_data(drop->counter);
    const int64_t *index = hirl_tensor_data(drop->index);
    return hirl_rng_make((uint64_t)counter[0], HIRL_RNG_DROPOUT, (uint64_t)counter[1],
                         (uint64_t)index[sample], drop->site);
}

static bool is_kept(const hirl_drop_t *drop, hirl_rng_t *rng) {
    return hirl_rng_u32(rng) >= hirl_drop_threshold(drop->p);
}

hirl_status_t ref_dropout(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                          hirl_tensor_t *y) {
    const int64_t n = drop->index->shape.dim[0], size = hirl_tensor_count(x) / n;
    const double scale = hirl_drop_scale(drop->p);
    (void)be;
    for (int64_t b = 0; b < n; ++b) {
        hirl_rng_t rng = stream_of(drop, b);
        for (int64_t i = b * size; i < (b + 1) * size; ++i)
            set(y, i, is_kept(drop, &rng) ? scale * get(x, i) : 0.0);
    }
    return HIRL_OK;
}

hirl_status_t ref_drop_path(hirl_backend_t *be, const hirl_drop_t *drop, const hirl_tensor_t *x,
                            const hirl_tensor_t *residual, hirl_tensor_t *y) {
    const int64_t n = drop->index->shape.dim[0], size = hirl_tensor_count(x) / n;
    const float scale = hirl_drop_scale(drop->p);
    (void)be;
    for (int64_t b = 0; b < n; ++b) {
        hirl_rng_t rng = stream_of(drop, b);
        const bool is_path_kept = is_kept(drop, &rng);
        for (int64_t i = b * size; i < (b + 1) * size; ++i) {
            const float rest = residual ? (float)get(residual, i) : 0.0f;
            set(y, i, is_path_kept ? fmaf(scale, (float)get(x, i), rest) : rest);
        }
    }
    return HIRL_OK;
}
