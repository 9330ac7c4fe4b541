/// @file topk.c
/// Exact top-k by inner product: tiles of bank rows against packed queries, whose products are
/// compared with each query's threshold while they are still in registers; the few that pass go to
/// a buffer per query, which is cut back to its k best when full. A score and an index make one
/// key, so the order is total and no tie is left to chance.

#include "cluster_impl.h"
#include "simd_impl.h"

#include <math.h>
#include <omp.h>
#include <string.h>

// Panels that a thread keeps busy with one pass over its rows of the bank: enough that the bank's
// rows come from memory slowly, few enough that panels and thresholds stay in the second-level
// cache.
enum { GROUP_PANELS = 8, GROUP_BYTES = 512 * 1024, MIN_SEGMENT_ROWS = 4096 };

uint64_t hirl_key_make(float score, uint32_t index) {
    const float plus_zero = score + 0.0f; // -0 and +0 are one score
    uint32_t bits;
    memcpy(&bits, &plus_zero, sizeof(bits));
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~index;
}

float hirl_key_score(uint64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    float score;
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    memcpy(&score, &bits, sizeof(score));
    return score;
}

uint32_t hirl_key_index(uint64_t key) { return ~(uint32_t)key; }

// Moves the k largest of n different keys to the front, in any order. Hoare's selection with a
// partition that has no unpredictable branch.
static void select_largest(uint64_t *keys, int64_t n, int64_t k) {
    int64_t low = 0, high = n; // the boundary is still to be found in [low, high)
    while (high - low > 1 && k > low && k < high) {
        const uint64_t a = keys[low], b = keys[low + (high - low) / 2], c = keys[high - 1];
        const uint64_t max_ab = a > b ? a : b, min_ab = a > b ? b : a;
        const uint64_t pivot = c > max_ab ? max_ab : (c < min_ab ? min_ab : c);
        int64_t n_larger = low;
        for (int64_t i = low; i < high; i++) {
            const uint64_t key = keys[i];
            keys[i] = keys[n_larger];
            keys[n_larger] = key;
            n_larger += key >= pivot;
        }
        // keys[low .. n_larger) >= pivot: at least one of them, and not all unless the pivot is the
        // smallest.
        if (n_larger > k) {
            if (n_larger == high) {
                // The pivot is the smallest: it goes last and is settled.
                for (int64_t i = low; i < high; i++) {
                    if (keys[i] == pivot) {
                        keys[i] = keys[high - 1];
                        keys[high - 1] = pivot;
                        break;
                    }
                }
                high--;
            } else {
                high = n_larger;
            }
        } else {
            low = n_larger;
        }
    }
}

void hirl_topk_merge(const uint64_t *a, int64_t n_a, const uint64_t *b, int64_t n_b, uint64_t *out,
                     int64_t n_out) {
    int64_t i = 0, j = 0, at = 0;
    while (at < n_out && i < n_a && j < n_b) {
        const bool is_a = a[i] > b[j];
        out[at++] = is_a ? a[i] : b[j];
        i += is_a;
        j += !is_a;
    }
    while (at < n_out && i < n_a) out[at++] = a[i++];
    while (at < n_out && j < n_b) out[at++] = b[j++];
}

void hirl_topk_sort(uint64_t *keys, int64_t n, int64_t k, uint64_t *scratch) {
    select_largest(keys, n, k);
    if (k > n) k = n;
    uint64_t *from = keys, *to = scratch;
    for (int64_t width = 1; width < k; width *= 2) {
        for (int64_t i = 0; i < k; i += 2 * width) {
            const int64_t mid = i + width < k ? i + width : k;
            const int64_t end = mid + width < k ? mid + width : k;
            hirl_topk_merge(from + i, mid - i, from + mid, end - mid, to + i, end - i);
        }
        uint64_t *const t = from;
        from = to;
        to = t;
    }
    if (from != keys) memcpy(keys, from, (size_t)k * sizeof(*keys));
}

// What a thread works with: buffers of the queries of one group.
typedef struct candidates {
    int64_t k, capacity;
    float *threshold;  // [group queries] a product must exceed it
    int64_t *n;        // [group queries] keys held
    uint64_t *keys;    // [group queries, capacity]
    uint64_t *scratch; // [k]
} candidates_t;

static void candidates_reset(candidates_t *c) {
    hirl_mem_free(c->threshold);
    hirl_mem_free(c->n);
    hirl_mem_free(c->keys);
    hirl_mem_free(c->scratch);
    *c = (candidates_t){0};
}

static hirl_status_t candidates_init(candidates_t *c, int64_t n_queries, int64_t k) {
    hirl_status_t status;
    // Three times k: each cut costs about 3k steps and lets the number of rows seen grow threefold.
    *c = (candidates_t){.k = k, .capacity = 3 * k > k + 64 ? 3 * k : k + 64};
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries, &c->threshold), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries, &c->n), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries * c->capacity, &c->keys), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k, &c->scratch), status, err);
    return HIRL_OK;
err:
    candidates_reset(c);
    return status;
}

// Rows come in rising order: a later one of equal score is never wanted, so passing means
// exceeding.
static void add_candidate(candidates_t *c, int query, float score, uint32_t index) {
    uint64_t *keys = c->keys + (int64_t)query * c->capacity;
    if (c->n[query] == c->capacity) {
        select_largest(keys, c->capacity, c->k);
        uint64_t least = keys[0];
        for (int64_t i = 1; i < c->k; i++) least = keys[i] < least ? keys[i] : least;
        c->n[query] = c->k;
        c->threshold[query] = hirl_key_score(least);
        if (!(score > c->threshold[query])) return;
    }
    keys[c->n[query]++] = hirl_key_make(score, index);
}

// One tile of bank rows against one panel. first_row is the tile's first row that counts; row r has
// index + r.
static inline void scan_tile(candidates_t *c, int first_query, const float *rows, size_t stride,
                             const float *panel, int d, int first_row, int end_row, int64_t index) {
    hirl_vf_t product[HIRL_TILE_ROWS][2];
    hirl_tile_multiply(rows, stride, panel, d, product);
    hirl_vf_t max[2] = {product[0][0], product[0][1]};
#pragma GCC unroll 16
    for (int r = 1; r < HIRL_TILE_ROWS; r++) {
        max[0] = hirl_vf_max(max[0], product[r][0]);
        max[1] = hirl_vf_max(max[1], product[r][1]);
    }
    for (int half = 0; half < 2; half++) {
        const int query = first_query + half * HIRL_LANES;
        if (!hirl_vf_greater(max[half], hirl_vf_load(c->threshold + query))) continue;
        for (int r = first_row; r < end_row; r++) {
            uint32_t mask = hirl_vf_greater(product[r][half], hirl_vf_load(c->threshold + query));
            for (; mask; mask &= mask - 1) {
                const int lane = __builtin_ctz(mask);
                add_candidate(c, query + lane, product[r][half][lane], (uint32_t)(index + r));
            }
        }
    }
}

// All rows [begin, end) of the bank against the panels [first, first + n).
static void scan_group(candidates_t *c, const hirl_panels_t *queries, int64_t first, int64_t n,
                       const float *bank, int64_t n_bank, int64_t begin, int64_t end,
                       int64_t first_index) {
    const int d = queries->d;
    const int64_t step = n_bank < HIRL_TILE_ROWS ? 1 : HIRL_TILE_ROWS;
    const size_t stride = n_bank < HIRL_TILE_ROWS ? 0 : (size_t)d;
    for (int64_t q = 0; q < n * HIRL_TILE_COLS; q++) {
        c->threshold[q] = first * HIRL_TILE_COLS + q < queries->n ? -INFINITY : INFINITY;
        c->n[q] = 0;
    }
    for (int64_t i = begin; i < end; i += step) {
        // The last tile is moved back over rows that are done already, or on to the next segment's.
        const int64_t at = i + step <= n_bank ? i : n_bank - step;
        const int first_row = (int)(i - at);
        const int end_row = (int)((i + step < end ? i + step : end) - at);
        for (int64_t q = 0; q < n; q++)
            scan_tile(c, (int)(q * HIRL_TILE_COLS), bank + at * d, stride,
                      queries->data + (size_t)(first + q) * HIRL_TILE_COLS * (size_t)d, d,
                      first_row, end_row, first_index + at);
    }
}

// How the work is cut: groups of panels, and segments of the bank where there are too few groups
// for the threads.
typedef struct cut {
    int64_t group, n_groups;
    int64_t segment, n_segments;
} cut_t;

static cut_t make_cut(const hirl_panels_t *queries, int64_t n_bank, int64_t k, int n_threads) {
    const int64_t panel_bytes = queries->d * HIRL_TILE_COLS * (int64_t)sizeof(float);
    cut_t cut = {.group = GROUP_PANELS, .n_segments = 1};
    while (cut.group > 1 &&
           (cut.group * panel_bytes > GROUP_BYTES || queries->n_panels < 2 * cut.group * n_threads))
        cut.group /= 2;
    cut.n_groups = (queries->n_panels + cut.group - 1) / cut.group;
    const int64_t min_rows = 4 * k > MIN_SEGMENT_ROWS ? 4 * k : MIN_SEGMENT_ROWS;
    while (cut.n_groups * cut.n_segments < 2 * n_threads &&
           n_bank / (cut.n_segments + 1) >= min_rows)
        cut.n_segments++;
    cut.segment = (n_bank + cut.n_segments - 1) / cut.n_segments;
    return cut;
}

hirl_status_t hirl_topk_search(const hirl_panels_t *queries, const float *bank, int64_t n_bank,
                               int64_t first_index, int64_t k, uint64_t *keys) {
    const int n_threads = omp_get_max_threads();
    const cut_t cut = make_cut(queries, n_bank, k, n_threads);
    const int64_t n_tasks = cut.n_groups * cut.n_segments;
    hirl_status_t status = HIRL_OK;
    uint64_t *part = NULL;           // [n_segments, n queries, k], where there are several
    int64_t *n_part = NULL;          // [n_segments, n queries] keys in each list
    candidates_t *candidates = NULL; // [n_threads]
    if (n_tasks == 0) return HIRL_OK;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_threads, &candidates), status, end);
    for (int t = 0; t < n_threads; t++)
        HIRL_TRY_GOTO(candidates_init(&candidates[t], cut.group * HIRL_TILE_COLS, k), status, end);
    if (cut.n_segments > 1) {
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, cut.n_segments * queries->n * k, &part), status,
                      end);
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, cut.n_segments * queries->n, &n_part), status,
                      end);
    }
#pragma omp parallel for schedule(dynamic) num_threads(n_threads)
    for (int64_t task = 0; task < n_tasks; task++) {
        candidates_t *c = &candidates[omp_get_thread_num()];
        const int64_t segment = task / cut.n_groups, first = task % cut.n_groups * cut.group;
        const int64_t n =
            first + cut.group <= queries->n_panels ? cut.group : queries->n_panels - first;
        const int64_t begin = segment * cut.segment;
        const int64_t end = begin + cut.segment < n_bank ? begin + cut.segment : n_bank;
        scan_group(c, queries, first, n, bank, n_bank, begin, end, first_index);
        for (int64_t q = 0; q < n * HIRL_TILE_COLS && first * HIRL_TILE_COLS + q < queries->n;
             q++) {
            const int64_t query = first * HIRL_TILE_COLS + q;
            const int64_t n_kept = c->n[q] < k ? c->n[q] : k;
            hirl_topk_sort(c->keys + q * c->capacity, c->n[q], k, c->scratch);
            const int64_t list = segment * queries->n + query;
            memcpy((part ? part : keys) + list * k, c->keys + q * c->capacity,
                   (size_t)n_kept * sizeof(*keys));
            if (n_part) n_part[list] = n_kept;
        }
    }
    if (part) {
        const int64_t n = queries->n;
#pragma omp parallel for schedule(static) num_threads(n_threads)
        for (int64_t query = 0; query < n; query++) {
            uint64_t *out = keys + query * k, *scratch = candidates[omp_get_thread_num()].scratch;
            int64_t n_out = 0;
            for (int64_t s = 0; s < cut.n_segments; s++) {
                const int64_t list = s * n + query;
                const int64_t n_merged = n_out + n_part[list] < k ? n_out + n_part[list] : k;
                hirl_topk_merge(out, n_out, part + list * k, n_part[list], scratch, n_merged);
                memcpy(out, scratch, (size_t)n_merged * sizeof(*out));
                n_out = n_merged;
            }
        }
    }
end:
    for (int t = 0; candidates && t < n_threads; t++) candidates_reset(&candidates[t]);
    hirl_mem_free(candidates);
    hirl_mem_free(n_part);
    hirl_mem_free(part);
    return status;
}
