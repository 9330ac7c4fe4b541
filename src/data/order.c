// The order of an epoch: a keyed permutation of all samples, or of windows of them.
// With a window, the set is cut into blocks of consecutive samples, N_BLOCKS to a window; a permutation
// of the blocks says which ones a window holds, and one of its own mixes its samples. Reads of one time
// then fall on a few stretches of the shards, which disks and parallel file systems can read ahead.
// What is left over behind the last whole block belongs to the last window. All of it is a function of
// (seed, epoch, position) in O(1) memory.
#include "hirl/data.h"

enum { N_BLOCKS = 16 };

hirl_order_t hirl_order_make(uint64_t seed, int64_t epoch, int64_t n, int64_t window) {
    hirl_order_t order = {.seed = seed, .epoch = epoch, .n = n};
    if (window > 0 && window < n) order.block = window < N_BLOCKS ? 1 : window / N_BLOCKS;
    order.permutation = hirl_permutation_make(seed, HIRL_RNG_ORDER, (uint64_t)epoch,
                                              order.block > 0 ? n / order.block : n);
    return order;
}

int64_t hirl_order_at(const hirl_order_t *order, int64_t position) {
    if (order->block == 0) return hirl_permutation_at(&order->permutation, position);
    const int64_t n_whole = order->n / order->block; // blocks
    const int64_t window = N_BLOCKS * order->block, last = (n_whole - 1) / N_BLOCKS;
    int64_t w = position / window;
    w = w < last ? w : last;
    const int64_t n_blocks = w < last ? N_BLOCKS : n_whole - last * N_BLOCKS;
    const int64_t n_inside = w < last ? window : order->n - last * window;
    // Epochs stay below 2^32, and so do windows.
    const uint64_t key = (uint64_t)order->epoch | (uint64_t)(w + 1) << 32;
    const hirl_permutation_t inside =
        hirl_permutation_make(order->seed, HIRL_RNG_ORDER, key, n_inside);
    const int64_t i = hirl_permutation_at(&inside, position - w * window), j = i / order->block;
    if (j >= n_blocks) return n_whole * order->block + (i - n_blocks * order->block);
    return hirl_permutation_at(&order->permutation, w * N_BLOCKS + j) * order->block +
           i % order->block;
}
