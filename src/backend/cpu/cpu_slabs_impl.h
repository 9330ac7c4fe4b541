/// Images and matrices as own kernels see them: slabs of `rows` rows of `width` neighbouring channels.
/// Blocked images have one slab per sample and block of 8 or 16 channels; plain ones (and matrices) are one slab of all pixels,
/// cut into pieces of whole rows. Sums cut the samples or rows of a group into parts whose number does not depend on the number of
/// threads, so neither do their bits.
#ifndef HIRL_CPU_SLABS_H
#define HIRL_CPU_SLABS_H

#include "cpu_impl.h"

typedef struct cpu_view {
    int64_t n_samples, n_rows; // pixels per sample
    int64_t n_channels;
    int64_t n_blocks, width; // plain: 1 and n_channels
    int64_t
        n_padded; // length of arrays of one value per channel: n_blocks * width, and room for a whole vector at its end
    bool is_blocked;
    bool is_bf16;
} cpu_view_t;

/// False for layouts that only oneDNN understands.
static inline bool cpu_view_of(const hirl_tensor_t *x, cpu_view_t *view_p) {
    const int n_axes = x->shape.n_axes;
    const int lanes = x->layout ? cpu_layout_view(x)->lanes : 0;
    if (x->layout && !lanes) return false;
    cpu_view_t view = {
        .n_samples = x->shape.dim[0], .n_rows = 1, .n_channels = x->shape.dim[n_axes - 1]};
    for (int i = 1; i < n_axes - 1; ++i) view.n_rows *= x->shape.dim[i];
    view.is_blocked = lanes > 0;
    view.width = lanes ? lanes : view.n_channels;
    view.n_blocks = lanes ? (view.n_channels + lanes - 1) / lanes : 1;
    view.n_padded = (view.n_blocks * view.width + 31) / 16 * 16;
    view.is_bf16 = x->dtype == HIRL_BF16;
    *view_p = view;
    return true;
}

/// A piece of a slab.
typedef struct cpu_piece {
    int64_t at; // first element
    int64_t n_rows;
    int64_t channel; // first channel
    int64_t group;
} cpu_piece_t;

enum { CPU_PIECE_ELEMENTS = 1 << 14 };

static inline int64_t cpu_rows_per_piece(const cpu_view_t *view) {
    const int64_t rows = CPU_PIECE_ELEMENTS / view->width;
    return rows < 1 ? 1 : rows;
}

static inline int64_t cpu_pieces_per_group(const cpu_view_t *view, int64_t n_groups) {
    const int64_t samples = view->n_samples / n_groups;
    if (view->is_blocked) return samples * view->n_blocks;
    const int64_t rows = cpu_rows_per_piece(view);
    return (samples * view->n_rows + rows - 1) / rows;
}

/// Piece `i` of n_groups * cpu_pieces_per_group, for elementwise work.
static inline cpu_piece_t cpu_piece_at(const cpu_view_t *view, int64_t n_groups, int64_t per_group,
                                       int64_t i) {
    cpu_piece_t piece = {.group = i / per_group};
    if (view->is_blocked) {
        piece.at = i * view->n_rows * view->width;
        piece.n_rows = view->n_rows;
        piece.channel = i % view->n_blocks * view->width;
    } else {
        const int64_t rows_of_group = view->n_samples / n_groups * view->n_rows,
                      step = cpu_rows_per_piece(view);
        const int64_t first = i % per_group * step;
        piece.at = (piece.group * rows_of_group + first) * view->width;
        piece.n_rows = rows_of_group - first < step ? rows_of_group - first : step;
    }
    return piece;
}

/// How sums are cut: each of n_groups groups into n_parts ranges of `n_units` units (samples if blocked, else rows), and for more threads
/// than parts into n_splits ranges of channel blocks, which changes no sum.
typedef struct cpu_parts {
    int64_t n_groups, n_parts, n_splits;
    int64_t units_per_group;
} cpu_parts_t;

static inline cpu_parts_t cpu_parts_of(const cpu_view_t *view, int64_t n_groups, int n_threads) {
    enum { MOST_PARTS = 64, LEAST_ROWS = 32 };
    cpu_parts_t parts = {.n_groups = n_groups, .n_splits = 1};
    parts.units_per_group = view->n_samples / n_groups * (view->is_blocked ? 1 : view->n_rows);
    parts.n_parts = view->is_blocked ? parts.units_per_group
                                     : (parts.units_per_group + LEAST_ROWS - 1) / LEAST_ROWS;
    const int64_t most = MOST_PARTS / n_groups > 1 ? MOST_PARTS / n_groups : 1;
    if (parts.n_parts > most) parts.n_parts = most;
    const int64_t wanted = 4 * (int64_t)n_threads;
    if (parts.n_parts * n_groups < wanted) {
        parts.n_splits = (wanted + parts.n_parts * n_groups - 1) / (parts.n_parts * n_groups);
        if (parts.n_splits > view->n_blocks) parts.n_splits = view->n_blocks;
    }
    return parts;
}

#endif
