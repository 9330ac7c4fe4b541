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
enum {
    GROUP_PANELS = 8,
    AMX_GROUP_PANELS = 16,
    GROUP_BYTES = 512 * 1024,
    GROUP_KEY_BYTES = 32 * 1024 * 1024, // of the keys that are held for them
    MIN_SEGMENT_ROWS = 4096,
    SEGMENT_UNIT = 32 // segments begin where tiles do
};

// Moves the k largest of n different keys to the front, in any order. Hoare's selection with a
// partition that has no unpredictable branch.
void hirl_topk_select(uint64_t *keys, int64_t n, int64_t k) {
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
    hirl_topk_select(keys, n, k);
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

static void candidates_reset(hirl_candidates_t *c) {
    hirl_mem_free(c->threshold);
    hirl_mem_free(c->n);
    hirl_mem_free(c->keys);
    hirl_mem_free(c->scratch);
    hirl_mem_free(c->margin);
    hirl_mem_free(c->amx_scratch);
    *c = (hirl_candidates_t){0};
}

// Three times k: each cut costs about 3k steps and lets the number of rows seen grow threefold.
// With AMX a cut leaves more than k.
static int64_t capacity_of(int64_t k, bool has_amx) { return (has_amx ? 4 : 3) * k + 64; }

static hirl_status_t candidates_init(hirl_candidates_t *c, int64_t n_panels, int d, int64_t k,
                                     bool has_amx) {
    const int64_t n_queries = n_panels * HIRL_TILE_COLS;
    hirl_status_t status;
    *c = (hirl_candidates_t){.k = k, .capacity = capacity_of(k, has_amx)};
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries, &c->threshold), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries, &c->n), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries * c->capacity, &c->keys), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, k, &c->scratch), status, err);
    if (!has_amx) return HIRL_OK;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_queries, &c->margin), status, err);
    HIRL_TRY_GOTO(hirl_mem_alloc(HIRL_MEM_CLUSTER, (size_t)hirl_amx_scratch_bytes(d, n_panels),
                                 &c->amx_scratch),
                  status, err);
    return HIRL_OK;
err:
    candidates_reset(c);
    return status;
}

// Rows come in rising order: a later one of equal score is never wanted, so passing means
// exceeding.
static void add_candidate(hirl_candidates_t *c, int query, float score, uint32_t index) {
    uint64_t *keys = c->keys + (int64_t)query * c->capacity;
    if (c->n[query] == c->capacity) {
        hirl_topk_select(keys, c->capacity, c->k);
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
static inline void scan_tile(hirl_candidates_t *c, int first_query, const float *rows,
                             size_t stride, const float *panel, int d, int first_row, int end_row,
                             int64_t index) {
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
static void scan_group(hirl_candidates_t *c, const hirl_panels_t *queries, int64_t first, int64_t n,
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

static cut_t make_cut(const hirl_panels_t *queries, int64_t n_bank, int64_t k, int n_threads,
                      bool has_amx) {
    const int64_t panel_bytes =
        queries->d * HIRL_TILE_COLS * (int64_t)(has_amx ? 2 : sizeof(float));
    const int64_t key_bytes = HIRL_TILE_COLS * capacity_of(k, has_amx) * (int64_t)sizeof(uint64_t);
    cut_t cut = {.group = has_amx ? AMX_GROUP_PANELS : GROUP_PANELS, .n_segments = 1};
    while (cut.group > 1 &&
           (cut.group * panel_bytes > GROUP_BYTES || cut.group * key_bytes > GROUP_KEY_BYTES ||
            queries->n_panels < 2 * cut.group * n_threads))
        cut.group /= 2;
    cut.n_groups = (queries->n_panels + cut.group - 1) / cut.group;
    const int64_t min_rows = 4 * k > MIN_SEGMENT_ROWS ? 4 * k : MIN_SEGMENT_ROWS;
    while (cut.n_groups * cut.n_segments < 2 * n_threads &&
           n_bank / (cut.n_segments + 1) >= min_rows)
        cut.n_segments++;
    cut.segment = (n_bank + cut.n_segments - 1) / cut.n_segments;
    cut.segment = (cut.segment + SEGMENT_UNIT - 1) / SEGMENT_UNIT * SEGMENT_UNIT;
    return cut;
}

// A search under way.
typedef struct search {
    const hirl_panels_t *queries;
    const float *bank;
    int64_t n_bank;
    const hirl_tiles_t *tiles;
    int64_t first_index, k;
    cut_t cut;
    int n_threads;
    hirl_candidates_t *candidates; // [n_threads]
    hirl_candidates_t *again;      // [n_threads] for one panel; with AMX only
    uint64_t *keys;                // [n queries, k]
    uint64_t *part;                // [n_segments, n queries, k], where there are several
    int64_t *n_part;               // [n_segments, n queries] keys in each list
} search_t;

static void search_reset(search_t *s) {
    for (int t = 0; s->candidates && t < s->n_threads; t++) candidates_reset(&s->candidates[t]);
    for (int t = 0; s->again && t < s->n_threads; t++) candidates_reset(&s->again[t]);
    hirl_mem_free(s->candidates);
    hirl_mem_free(s->again);
    hirl_mem_free(s->part);
    hirl_mem_free(s->n_part);
}

static hirl_status_t search_init(search_t *s) {
    const int d = s->queries->d;
    const int64_t n_lists = s->cut.n_segments * s->queries->n;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, s->n_threads, &s->candidates));
    for (int t = 0; t < s->n_threads; t++)
        HIRL_TRY(candidates_init(&s->candidates[t], s->cut.group, d, s->k, s->tiles != NULL));
    if (s->tiles) {
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, s->n_threads, &s->again));
        for (int t = 0; t < s->n_threads; t++)
            HIRL_TRY(candidates_init(&s->again[t], 1, d, s->k, false));
    }
    if (s->cut.n_segments == 1) return HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_lists * s->k, &s->part));
    return HIRL_ALLOC(HIRL_MEM_CLUSTER, n_lists, &s->n_part);
}

// The list of query q of a group goes where it belongs.
static void store_list(const search_t *s, hirl_candidates_t *c, int64_t q, int64_t segment,
                       int64_t query) {
    const int64_t n = c->n[q] < s->k ? c->n[q] : s->k, list = segment * s->queries->n + query;
    uint64_t *keys = c->keys + q * c->capacity;
    hirl_topk_sort(keys, c->n[q], s->k, c->scratch);
    memcpy((s->part ? s->part : s->keys) + list * s->k, keys, (size_t)n * sizeof(*keys));
    if (s->n_part) s->n_part[list] = n;
}

static void run_task(const search_t *s, int64_t task) {
    const hirl_panels_t *queries = s->queries;
    hirl_candidates_t *c = &s->candidates[omp_get_thread_num()];
    const int64_t segment = task / s->cut.n_groups, first = task % s->cut.n_groups * s->cut.group;
    const int64_t n_left = queries->n_panels - first,
                  n = n_left < s->cut.group ? n_left : s->cut.group;
    const int64_t begin = segment * s->cut.segment;
    const int64_t end = begin + s->cut.segment < s->n_bank ? begin + s->cut.segment : s->n_bank;
    if (s->tiles)
        hirl_amx_scan(c, queries, first, n, s->tiles, s->bank, begin, end, s->first_index);
    else
        scan_group(c, queries, first, n, s->bank, s->n_bank, begin, end, s->first_index);
    for (int64_t panel = 0; panel < n; panel++) {
        bool is_done_again = false;
        for (int64_t i = 0; i < HIRL_TILE_COLS; i++) {
            const int64_t q = panel * HIRL_TILE_COLS + i, query = first * HIRL_TILE_COLS + q;
            if (query >= queries->n) break;
            if (c->n[q] >= 0) {
                store_list(s, c, q, segment, query);
                continue;
            }
            // Too many rows were alike for AMX.
            hirl_candidates_t *again = &s->again[omp_get_thread_num()];
            if (!is_done_again)
                scan_group(again, queries, first + panel, 1, s->bank, s->n_bank, begin, end,
                           s->first_index);
            is_done_again = true;
            store_list(s, again, i, segment, query);
        }
    }
}

// Joins the lists of the segments.
static void join(const search_t *s) {
    const int64_t n = s->queries->n;
#pragma omp parallel for schedule(static) num_threads(s->n_threads)
    for (int64_t query = 0; query < n; query++) {
        uint64_t *out = s->keys + query * s->k,
                 *scratch = s->candidates[omp_get_thread_num()].scratch;
        int64_t n_out = 0;
        for (int64_t segment = 0; segment < s->cut.n_segments; segment++) {
            const int64_t list = segment * n + query;
            const int64_t n_both = n_out + s->n_part[list] < s->k ? n_out + s->n_part[list] : s->k;
            hirl_topk_merge(out, n_out, s->part + list * s->k, s->n_part[list], scratch, n_both);
            memcpy(out, scratch, (size_t)n_both * sizeof(*out));
            n_out = n_both;
        }
    }
}

hirl_status_t hirl_topk_search(const hirl_panels_t *queries, const float *bank, int64_t n_bank,
                               const hirl_tiles_t *tiles, int64_t first_index, int64_t k,
                               uint64_t *keys) {
    search_t s = {.queries = queries,
                  .bank = bank,
                  .n_bank = n_bank,
                  .tiles = tiles,
                  .first_index = first_index,
                  .k = k,
                  .n_threads = omp_get_max_threads(),
                  .keys = keys};
    hirl_status_t status;
    s.cut = make_cut(queries, n_bank, k, s.n_threads, tiles != NULL);
    HIRL_TRY_GOTO(search_init(&s), status, end);
    const int64_t n_tasks = s.cut.n_groups * s.cut.n_segments;
#pragma omp parallel for schedule(dynamic) num_threads(s.n_threads)
    for (int64_t task = 0; task < n_tasks; task++) run_task(&s, task);
    if (s.part) join(&s);
end:
    search_reset(&s);
    return status;
}
