// Inputs of pretext tasks that are made from finished views without touching a value: the four
// rotations of rotation prediction (Gidaris et al., "Unsupervised representation learning by
// predicting image rotations", 2018) and the patches of relative location (Doersch et al., "Unsupervised
// visual representation learning by context prediction", 2015).
#include "hirl/data.h"

#include <string.h>

enum { PART_CELLS = 3 }; // of a view's random stream; the first three belong to the view itself

// ------------------------------------------------------------------------------------ rotations

void hirl_view_rotations(const float *view, int size, int channels, float *out) {
    const size_t row = (size_t)size * (size_t)channels, all = (size_t)size * row;
    const size_t bytes = (size_t)channels * sizeof *view;
    const int last = size - 1;
    memcpy(out, view, all * sizeof *view);
    for (int y = 0; y < size; y++) {
        for (int x = 0; x < size; x++) {
            const float *from = view + (size_t)y * row + (size_t)x * (size_t)channels;
            float *to = out + all; // counter-clockwise: the right edge comes to the top
            memcpy(to + (size_t)(last - x) * row + (size_t)y * (size_t)channels, from, bytes);
            to += all;
            memcpy(to + (size_t)(last - y) * row + (size_t)(last - x) * (size_t)channels, from,
                   bytes);
            to += all;
            memcpy(to + (size_t)x * row + (size_t)(last - y) * (size_t)channels, from, bytes);
        }
    }
}

// Views of a batch that lie on the host.
static hirl_status_t check_batch(const hirl_batch_t *batch, int v) {
    HIRL_REQUIRE(v >= 0 && v < batch->n_views, HIRL_ERR_ARG, "view %d of a batch of %d views", v,
                 batch->n_views);
    HIRL_REQUIRE(!batch->has_clips, HIRL_ERR_ARG, "view %d is a clip of %d frames; want images", v,
                 batch->n_frames);
    HIRL_REQUIRE(batch->view[v] != NULL, HIRL_ERR_ARG,
                 "view %d of the batch is still to be made by the backend; set views%%maker = "
                 "'loader'",
                 v);
    HIRL_REQUIRE(batch->size[v] == batch->width[v], HIRL_ERR_ARG,
                 "view %d is %d x %d; want a square", v, batch->size[v], batch->width[v]);
    return HIRL_OK;
}

static size_t view_floats(const hirl_batch_t *batch, int v) {
    return (size_t)batch->size[v] * (size_t)batch->size[v] * (size_t)batch->channels;
}

hirl_status_t hirl_batch_rotations(const hirl_batch_t *batch, int v, float *out) {
    HIRL_TRY(check_batch(batch, v));
    const size_t n = view_floats(batch, v);
    for (int64_t i = 0; i < batch->n; i++) {
        hirl_view_rotations(batch->view[v] + (size_t)i * n, batch->size[v], batch->channels,
                            out + (size_t)i * HIRL_N_ROTATIONS * n);
    }
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ cells

hirl_status_t hirl_view_cells(const float *view, int size, int channels,
                              const hirl_cells_spec_t *spec, hirl_rng_t *rng, float *out) {
    HIRL_REQUIRE(
        spec->n_side >= 1 && spec->patch >= 1 && spec->patch <= size / spec->n_side, HIRL_ERR_ARG,
        "patches of %d pixels do not fit into %d x %d cells of a view of %d: want at most "
        "%d",
        spec->patch, spec->n_side, spec->n_side, size, spec->n_side >= 1 ? size / spec->n_side : 0);
    const int cell = size / spec->n_side, n_places = cell - spec->patch + 1;
    const size_t row = (size_t)spec->patch * (size_t)channels;
    for (int i = 0; i < spec->n_side * spec->n_side; i++) {
        const int top = i / spec->n_side * cell + (int)hirl_rng_below(rng, n_places);
        const int left = i % spec->n_side * cell + (int)hirl_rng_below(rng, n_places);
        for (int y = 0; y < spec->patch; y++, out += row) {
            memcpy(out, view + ((size_t)(top + y) * (size_t)size + (size_t)left) * (size_t)channels,
                   row * sizeof *out);
        }
    }
    return HIRL_OK;
}

hirl_status_t hirl_batch_cells(const hirl_batch_t *batch, int v, const hirl_cells_spec_t *spec,
                               uint64_t seed, int64_t epoch, float *out) {
    HIRL_TRY(check_batch(batch, v));
    const size_t n_cells = (size_t)spec->n_side * (size_t)spec->n_side;
    const size_t floats =
        n_cells * (size_t)spec->patch * (size_t)spec->patch * (size_t)batch->channels;
    for (int64_t i = 0; i < batch->n; i++) {
        const hirl_rng_t stream = hirl_rng_make(seed, HIRL_RNG_AUGMENT, (uint64_t)epoch,
                                                (uint64_t)batch->index[i], (uint32_t)v);
        hirl_rng_t rng = hirl_rng_part(&stream, PART_CELLS);
        HIRL_TRY(hirl_view_cells(batch->view[v] + (size_t)i * view_floats(batch, v), batch->size[v],
                                 batch->channels, spec, &rng, out + (size_t)i * floats));
    }
    return HIRL_OK;
}
