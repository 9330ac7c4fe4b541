/// @file amx.c
/// A first pass in bfloat16 on the matrix units of recent processors (AMX), some seven times as
/// fast as single precision, that says which products can matter at all; those alone are then
/// computed as everywhere else. The error of the first pass is bounded (margin_of), every product
/// within the bound goes into the second, and so the result has the same bits as without this file.
/// Where too many are within the bound (rows that are nearly alike), single precision does it all.

#include "cluster_impl.h"

#include "simd_impl.h"

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)

#include <math.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    TILE = 16,                // rows of a tile
    STEP = 32,                // columns of a tile: bfloat16
    TILE_ITEMS = TILE * STEP, // of 2 bytes
    CHUNK = 128,              // rows that stay in the first-level cache while others stream by
    MIN_COLUMNS = 16,         // fewer are not worth the padding to STEP
    BATCH = 8,                // pairs whose chains of multiply-adds are computed side by side
    PRODUCTS = 16             // and single products
};

// Above this norm, or below products of this size, flushed subnormal numbers could count.
#define MAX_NORM 0x1p16f
#define SLACK 1e-25f

bool hirl_amx_is_usable(int d) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    // The kernel grants tiles to a process that asks; asking again is free.
    return d >= MIN_COLUMNS &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

// Bound of |first pass - single precision| of a product less a number: rows whose norms have this
// product, a number of at most this size. Both rows are rounded to 8 bits (2^-9 each, and 2^-18);
// there are d additions there and d multiply-adds here of a relative error of 2^-24, and a
// subtraction each; doubled, since the unit's order of additions is its own.
static float margin_of(int d, float product, float number) {
    return product * (0x1.02p-8f + (float)d * 0x1p-22f) + number * 0x1p-22f + SLACK;
}

// ---------------------------------------------------------------------------------- tiles

hirl_status_t hirl_tiles_init(hirl_tiles_t *tiles, int64_t max_rows, int d) {
    const int64_t n_steps = (d + STEP - 1) / STEP;
    // An even number of tiles, as they are multiplied two by two.
    const int64_t n_tiles = (max_rows + 2 * TILE - 1) / (2 * TILE) * 2;
    hirl_tiles_t t = {.d = d, .n_steps = (int)n_steps};
    HIRL_REQUIRE(n_tiles < INT64_MAX / (2 * TILE_ITEMS) / n_steps, HIRL_ERR_ARG,
                 "%lld rows of %d columns do not fit into memory addresses", (long long)max_rows,
                 d);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_tiles * n_steps * TILE_ITEMS, &t.data));
    *tiles = t;
    return HIRL_OK;
}

void hirl_tiles_reset(hirl_tiles_t *tiles) {
    hirl_mem_free(tiles->data);
    *tiles = (hirl_tiles_t){0};
}

// Up to 16 rows (n of them; zeros for the others) as n_steps tiles. Returns the largest norm.
static float pack_rows(const float *rows, int64_t n, int d, int n_steps, uint16_t *to) {
    float max_norm_sq = 0;
    for (int64_t r = 0; r < TILE; r++) {
        __m512 sum = _mm512_setzero_ps();
        for (int s = 0; s < n_steps; s++) {
            const int at = s * STEP, left = r < n ? d - at : 0;
            const __mmask16 low = left >= 16 ? 0xffff : left > 0 ? (1u << left) - 1 : 0;
            const __mmask16 high = left >= 32 ? 0xffff : left > 16 ? (1u << (left - 16)) - 1 : 0;
            const float *from = rows + (r < n ? r * d + at : 0);
            const __m512 a = _mm512_maskz_loadu_ps(low, from);
            const __m512 b = _mm512_maskz_loadu_ps(high, from + (high ? 16 : 0));
            sum = _mm512_fmadd_ps(a, a, _mm512_fmadd_ps(b, b, sum));
            _mm512_store_si512(to + (int64_t)s * TILE_ITEMS + r * STEP,
                               (__m512i)_mm512_cvtne2ps_pbh(b, a));
        }
        const float norm_sq = _mm512_reduce_add_ps(sum);
        max_norm_sq = norm_sq > max_norm_sq ? norm_sq : max_norm_sq;
    }
    return sqrtf(max_norm_sq) * 1.001f; // whatever was rounded
}

void hirl_tiles_pack(hirl_tiles_t *tiles, const float *rows, int64_t n) {
    const int64_t n_tiles = (n + 2 * TILE - 1) / (2 * TILE) * 2;
    float max_norm = 0;
#pragma omp parallel for schedule(static) reduction(max : max_norm)
    for (int64_t t = 0; t < n_tiles; t++) {
        const int64_t left = n - t * TILE;
        const float norm = pack_rows(rows + (left > 0 ? t * TILE * tiles->d : 0), left, tiles->d,
                                     tiles->n_steps, tiles->data + t * tiles->n_steps * TILE_ITEMS);
        max_norm = norm > max_norm ? norm : max_norm;
    }
    tiles->max_norm = max_norm;
}

// The other operand: pairs of columns down, rows across. In place, tile by tile.
static void transpose_tiles(uint16_t *tiles, int64_t n) {
    for (int64_t t = 0; t < n; t++) {
        uint32_t from[TILE][TILE], *to = (uint32_t *)(void *)(tiles + t * TILE_ITEMS);
        memcpy(from, to, sizeof(from));
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < TILE; j++) to[i * TILE + j] = from[j][i];
    }
}

static void begin_tiles(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = TILE;
    }
    _tile_loadconfig(&config);
}

// Products of two by two tiles: [tile of a][tile of b][row of a][row of b].
typedef float products_t[2][2][TILE][TILE];

static inline void multiply(const uint16_t *a, const uint16_t *b, int n_steps, products_t product) {
    const uint16_t *a1 = a + (int64_t)n_steps * TILE_ITEMS, *b1 = b + (int64_t)n_steps * TILE_ITEMS;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int s = 0; s < n_steps; s++) {
        const int64_t at = (int64_t)s * TILE_ITEMS;
        _tile_loadd(4, a + at, 64);
        _tile_loadd(6, b + at, 64);
        _tile_loadd(7, b1 + at, 64);
        _tile_loadd(5, a1 + at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, product[0][0], 64);
    _tile_stored(1, product[0][1], 64);
    _tile_stored(2, product[1][0], 64);
    _tile_stored(3, product[1][1], 64);
}

// ---------------------------------------------------------------------------------- nearest

// What a thread works with. (Arrays of vectors are not local variables: where the address sanitizer
// looks for uses after return, GCC 12 aligns those to 32 bytes only.)
typedef struct nearest_work {
    _Alignas(64) products_t product;
    float value[BATCH][TILE]; // what the second pass computes
    float best[CHUNK];        // of each row: the largest of all packed rows
    float cut[CHUNK];         // and what may still be as good
    uint16_t *x;              // [CHUNK / TILE, n_steps] transposed tiles of the rows
    float *tile_max;          // [n_tiles, CHUNK] largest product - half norm over a tile
    uint32_t *pair_tile;      // [max_pairs] where the second pass looks: a tile
    uint8_t *pair_row;        // [max_pairs] and a row
    int64_t max_pairs;
} nearest_work_t;

struct hirl_amx_nearest {
    hirl_tiles_t tiles; // of the packed rows
    int n_threads;
    nearest_work_t *work; // [n_threads]
};

void hirl_amx_nearest_destroy(hirl_amx_nearest_t **amx) {
    if (!*amx) return;
    for (int t = 0; (*amx)->work && t < (*amx)->n_threads; t++) {
        nearest_work_t *w = &(*amx)->work[t];
        hirl_mem_free(w->x);
        hirl_mem_free(w->tile_max);
        hirl_mem_free(w->pair_tile);
        hirl_mem_free(w->pair_row);
    }
    hirl_mem_free((*amx)->work);
    hirl_tiles_reset(&(*amx)->tiles);
    hirl_mem_free(*amx);
    *amx = NULL;
}

static hirl_status_t work_init(nearest_work_t *w, int64_t n_tiles, int n_steps) {
    // A pair takes about twice the time that a tile's products take in single precision: beyond a
    // quarter of all pairs there is little left to win.
    w->max_pairs = CHUNK + n_tiles * CHUNK / 4;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, (int64_t)CHUNK / TILE * n_steps * TILE_ITEMS, &w->x));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_tiles * CHUNK, &w->tile_max));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, w->max_pairs, &w->pair_tile));
    return HIRL_ALLOC(HIRL_MEM_CLUSTER, w->max_pairs, &w->pair_row);
}

hirl_status_t hirl_amx_nearest_create(int64_t max_rows, int d, hirl_amx_nearest_t **amx_p) {
    hirl_amx_nearest_t *amx;
    hirl_status_t status;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, 1, &amx));
    amx->n_threads = omp_get_max_threads();
    HIRL_TRY_GOTO(hirl_tiles_init(&amx->tiles, max_rows, d), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, amx->n_threads, &amx->work), status, err);
    for (int t = 0; t < amx->n_threads; t++)
        HIRL_TRY_GOTO(work_init(&amx->work[t], (max_rows + 2 * TILE - 1) / (2 * TILE) * 2,
                                amx->tiles.n_steps),
                      status, err);
    *amx_p = amx;
    return HIRL_OK;
err:
    hirl_amx_nearest_destroy(&amx);
    return status;
}

void hirl_amx_nearest_pack(hirl_amx_nearest_t *amx, const float *rows, int64_t n) {
    hirl_tiles_pack(&amx->tiles, rows, n);
}

// First pass of a chunk: tile_max and best.
static void first_pass(const hirl_panels_t *panels, nearest_work_t *w) {
    const int n_steps = panels->amx->tiles.n_steps;
    const int64_t tile_items = (int64_t)n_steps * TILE_ITEMS;
    float *best = w->best;
    for (int i = 0; i < CHUNK; i++) best[i] = -INFINITY;
    for (int64_t q = 0; q < panels->n_panels; q++) {
        const float *half_norm = panels->half_norm + q * HIRL_TILE_COLS;
        for (int x = 0; x < CHUNK / TILE; x += 2) {
            multiply(panels->amx->tiles.data + 2 * q * tile_items, w->x + x * tile_items, n_steps,
                     w->product);
            for (int i = 0; i < 2; i++) {
                for (int j = 0; j < 2; j++) {
                    __m512 max = _mm512_set1_ps(-INFINITY);
                    for (int r = 0; r < TILE; r++)
                        max = _mm512_max_ps(max,
                                            _mm512_sub_ps(_mm512_load_ps(w->product[i][j][r]),
                                                          _mm512_set1_ps(half_norm[i * TILE + r])));
                    const int at = (x + j) * TILE;
                    _mm512_store_ps(w->tile_max + (2 * q + i) * CHUNK + at, max);
                    _mm512_store_ps(best + at, _mm512_max_ps(max, _mm512_load_ps(best + at)));
                }
            }
        }
    }
}

// Rows and tiles that may hold the nearest: within the margin of the best. -1: too many.
static int64_t list_pairs(const hirl_panels_t *panels, nearest_work_t *w) {
    int64_t n = 0;
    for (int64_t t = 0; t < 2 * panels->n_panels; t++) {
        for (int at = 0; at < CHUNK; at += TILE) {
            uint32_t mask = _mm512_cmp_ps_mask(_mm512_load_ps(w->tile_max + t * CHUNK + at),
                                               _mm512_load_ps(w->cut + at), _CMP_GE_OQ);
            if (n + TILE > w->max_pairs) return -1;
            for (; mask; mask &= mask - 1) {
                w->pair_tile[n] = (uint32_t)t;
                w->pair_row[n++] = (uint8_t)(at + __builtin_ctz(mask));
            }
        }
    }
    return n;
}

// Second pass: half norm - product of BATCH pairs in single precision, by the chain of
// hirl_tile_multiply. Tiles come in rising order for each row, so an equal older one stays.
static void compute_pairs(const hirl_panels_t *panels, const uint32_t tile[BATCH],
                          const float *const row[BATCH], float value[BATCH][TILE]) {
    const int d = panels->d;
    const float *panel[BATCH];
    __m512 sum[BATCH];
    for (int i = 0; i < BATCH; i++) {
        panel[i] = panels->data + (int64_t)(tile[i] / 2) * HIRL_TILE_COLS * d + tile[i] % 2 * TILE;
        sum[i] = _mm512_setzero_ps();
    }
    for (int p = 0; p < d; p++) {
#pragma GCC unroll 8
        for (int i = 0; i < BATCH; i++)
            sum[i] =
                _mm512_fmadd_ps(_mm512_set1_ps(row[i][p]),
                                _mm512_load_ps(panel[i] + (int64_t)p * HIRL_TILE_COLS), sum[i]);
    }
    for (int i = 0; i < BATCH; i++)
        _mm512_store_ps(
            value[i],
            _mm512_sub_ps(_mm512_load_ps(panels->half_norm + (int64_t)tile[i] * TILE), sum[i]));
}

static void second_pass(const hirl_panels_t *panels, nearest_work_t *w, int64_t n_pairs,
                        const float *x, int64_t n, int32_t *index) {
    float *best = w->best; // of the second pass now
    for (int64_t i = 0; i < n; i++) {
        best[i] = INFINITY;
        index[i] = 0;
    }
    for (int64_t at = 0; at < n_pairs; at += BATCH) {
        uint32_t tile[BATCH];
        const float *row[BATCH];
        for (int i = 0; i < BATCH; i++) {
            const int64_t pair = at + i < n_pairs ? at + i : at;
            tile[i] = w->pair_tile[pair];
            row[i] = x + (int64_t)w->pair_row[pair] * panels->d;
        }
        compute_pairs(panels, tile, row, w->value);
        for (int i = 0; i < BATCH && at + i < n_pairs; i++) {
            const int r = w->pair_row[at + i];
            const __m512 value = _mm512_load_ps(w->value[i]);
            const float least = _mm512_reduce_min_ps(value);
            if (!(least < best[r])) continue;
            best[r] = least;
            index[r] = (int32_t)tile[i] * TILE +
                       __builtin_ctz(_mm512_cmp_ps_mask(value, _mm512_set1_ps(least), _CMP_EQ_OQ));
        }
    }
}

// False if single precision must do this chunk.
static bool nearest_chunk(const hirl_panels_t *panels, nearest_work_t *w, const float *x, int64_t n,
                          int32_t *index) {
    const hirl_tiles_t *tiles = &panels->amx->tiles;
    for (int t = 0; t < CHUNK / TILE; t++) {
        uint16_t *tile = w->x + (int64_t)t * tiles->n_steps * TILE_ITEMS;
        const int64_t left = n - t * TILE;
        const float norm = pack_rows(x + (left > 0 ? t * TILE * panels->d : 0), left, panels->d,
                                     tiles->n_steps, tile);
        if (norm > MAX_NORM) return false;
        transpose_tiles(tile, tiles->n_steps);
        const float margin =
            margin_of(panels->d, norm * tiles->max_norm, tiles->max_norm * tiles->max_norm);
        for (int r = 0; r < TILE; r++) w->cut[t * TILE + r] = 2.01f * margin;
    }
    first_pass(panels, w);
    for (int i = 0; i < CHUNK; i++) w->cut[i] = i < n ? w->best[i] - w->cut[i] : INFINITY;
    const int64_t n_pairs = list_pairs(panels, w);
    if (n_pairs < 0) return false;
    second_pass(panels, w, n_pairs, x, n, index);
    return true;
}

void hirl_amx_nearest_search(const hirl_panels_t *panels, const float *x, int64_t n,
                             int32_t *index) {
    // After a chunk that single precision had to do, so many more are likely to be alike.
    enum { PENALTY = 16 };
    const hirl_amx_nearest_t *amx = panels->amx;
    const int64_t d = panels->d, n_chunks = (n + CHUNK - 1) / CHUNK;
    const bool is_usable = amx->tiles.max_norm <= MAX_NORM;
#pragma omp parallel num_threads(amx->n_threads)
    {
        nearest_work_t *work = &amx->work[omp_get_thread_num()];
        int n_skip = is_usable ? 0 : INT32_MAX;
        begin_tiles();
#pragma omp for schedule(dynamic)
        for (int64_t chunk = 0; chunk < n_chunks; chunk++) {
            const int64_t begin = chunk * CHUNK, count = begin + CHUNK < n ? CHUNK : n - begin;
            if (n_skip > 0)
                n_skip--;
            else if (nearest_chunk(panels, work, x + begin * d, count, index + begin))
                continue;
            else
                n_skip = PENALTY;
            hirl_panels_nearest_serial(panels, x + begin * d, count, index + begin);
        }
        _tile_release();
    }
}

// ---------------------------------------------------------------------------------- top-k

// Two vectors of 16 into one whose items alternate.
static const _Alignas(64) uint16_t interleaved[2 * TILE] = {
    0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

// Panels of queries as the other operand of tiles: a panel has pairs of columns down and queries
// across already. Also the norm of each query.
static void pack_queries(const hirl_panels_t *queries, int64_t first, int64_t n, int n_steps,
                         uint16_t *to, float *norm) {
    const int d = queries->d;
    const __m512i interleave = _mm512_load_si512(interleaved);
    for (int64_t t = 0; t < 2 * n; t++) {
        const float *panel = queries->data + (first + t / 2) * HIRL_TILE_COLS * d + t % 2 * TILE;
        __m512 sum = _mm512_setzero_ps();
        for (int p = 0; p < n_steps * STEP; p += 2) {
            const float *from = panel + (int64_t)p * HIRL_TILE_COLS;
            const __m512 a = p < d ? _mm512_load_ps(from) : _mm512_setzero_ps();
            const __m512 b =
                p + 1 < d ? _mm512_load_ps(from + HIRL_TILE_COLS) : _mm512_setzero_ps();
            sum = _mm512_fmadd_ps(a, a, _mm512_fmadd_ps(b, b, sum));
            _mm512_store_si512(
                to + (t * n_steps * STEP + p) * TILE,
                _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
        }
        _mm512_storeu_ps(norm + t * TILE,
                         _mm512_mul_ps(_mm512_sqrt_ps(sum), _mm512_set1_ps(1.001f)));
    }
}

// Keeps what may be among the k best: the k best of the first pass, and what is within the margin
// of the last of them. Where that is too much to go on with, the query is given up.
static void cut_candidates(hirl_candidates_t *c, int64_t query) {
    uint64_t *keys = c->keys + query * c->capacity;
    if (c->n[query] <= c->k) return;
    hirl_topk_select(keys, c->n[query], c->k);
    uint64_t least = keys[0];
    for (int64_t i = 1; i < c->k; i++) least = keys[i] < least ? keys[i] : least;
    const float threshold = hirl_key_score(least) - 2.01f * c->margin[query];
    int64_t n = c->k;
    for (int64_t i = c->k; i < c->n[query]; i++) {
        const uint64_t key = keys[i];
        keys[n] = key;
        n += hirl_key_score(key) >= threshold;
    }
    c->n[query] = n;
    c->threshold[query] = threshold;
    if (n > c->capacity - c->capacity / 4) {
        c->n[query] = -1;
        c->threshold[query] = INFINITY;
    }
}

static void add_candidate(hirl_candidates_t *c, int64_t query, float score, uint32_t index) {
    if (c->n[query] == c->capacity) cut_candidates(c, query);
    if (c->n[query] < 0 || !(score >= c->threshold[query])) return;
    c->keys[query * c->capacity + c->n[query]++] = hirl_key_make(score, index);
}

// Two tiles of bank rows against a panel of queries.
static void scan_panel(hirl_candidates_t *c, const uint16_t *rows, const uint16_t *queries,
                       int n_steps, int64_t first_query, int n_rows, uint32_t index) {
    float(*product)[2][TILE][TILE] = *(products_t *)c->amx_scratch;
    multiply(rows, queries, n_steps, product);
    for (int half = 0; half < 2; half++) {
        const int64_t query = first_query + half * TILE;
        const __m512 threshold = _mm512_load_ps(c->threshold + query);
        for (int tile = 0; tile < 2; tile++) {
            float(*p)[TILE] = product[tile][half];
            __m512 max = _mm512_load_ps(p[0]);
            for (int r = 1; r < TILE; r++) max = _mm512_max_ps(max, _mm512_load_ps(p[r]));
            if (!_mm512_cmp_ps_mask(max, threshold, _CMP_GE_OQ)) continue;
            // Few pass: all comparisons first, four rows to a word, without a branch.
            uint64_t pass[TILE / 4];
            for (int r = 0; r < TILE; r += 4) {
                pass[r / 4] = 0;
                for (int i = 0; i < 4; i++) {
                    const __mmask16 mask =
                        _mm512_cmp_ps_mask(_mm512_load_ps(p[r + i]), threshold, _CMP_GE_OQ);
                    pass[r / 4] |= (uint64_t)mask << (TILE * i);
                }
            }
            for (int word = 0; word < TILE / 4; word++) {
                for (uint64_t bits = pass[word]; bits; bits &= bits - 1) {
                    const int bit = __builtin_ctzll(bits), lane = bit % TILE;
                    const int r = word * 4 + bit / TILE;
                    if (tile * TILE + r < n_rows)
                        add_candidate(c, query + lane, p[r][lane],
                                      index + (uint32_t)(tile * TILE + r));
                }
            }
        }
    }
}

// Single-precision products of a query with PRODUCTS bank rows, by the chain of
// hirl_tile_multiply.
static void compute_products(const float *query, int d, const float *const row[PRODUCTS],
                             float product[PRODUCTS]) {
    float sum[PRODUCTS] = {0};
    for (int p = 0; p < d; p++) {
#pragma GCC unroll 16
        for (int i = 0; i < PRODUCTS; i++) sum[i] = __builtin_fmaf(row[i][p], query[p], sum[i]);
    }
    memcpy(product, sum, sizeof(sum));
}

// Replaces the first pass's scores by those of single precision. query: [d] scratch.
static void finish_query(hirl_candidates_t *c, int64_t q, const hirl_panels_t *queries,
                         int64_t column, const float *bank, int64_t first_index, float *query) {
    const int d = queries->d;
    uint64_t *keys = c->keys + q * c->capacity;
    const float *panel =
        queries->data + column / HIRL_TILE_COLS * HIRL_TILE_COLS * d + column % HIRL_TILE_COLS;
    for (int p = 0; p < d; p++) query[p] = panel[(int64_t)p * HIRL_TILE_COLS];
    for (int64_t at = 0; at < c->n[q]; at += PRODUCTS) {
        const float *row[PRODUCTS];
        float product[PRODUCTS];
        for (int i = 0; i < PRODUCTS; i++) {
            // The rows are anywhere in the bank: ask for those of the next turn now.
            if (at + PRODUCTS + i < c->n[q]) {
                const int64_t next = hirl_key_index(keys[at + PRODUCTS + i]) - first_index;
                for (int p = 0; p < d; p += TILE) __builtin_prefetch(bank + next * d + p);
            }
            const uint64_t key = keys[at + i < c->n[q] ? at + i : at];
            row[i] = bank + (hirl_key_index(key) - first_index) * d;
        }
        compute_products(query, d, row, product);
        for (int i = 0; i < PRODUCTS && at + i < c->n[q]; i++)
            keys[at + i] = hirl_key_make(product[i], hirl_key_index(keys[at + i]));
    }
}

int64_t hirl_amx_scratch_bytes(int d, int64_t n_panels) {
    const int64_t n_steps = (d + STEP - 1) / STEP;
    return (int64_t)sizeof(products_t) +
           2 * n_panels * n_steps * TILE_ITEMS * (int64_t)sizeof(uint16_t) +
           n_steps * STEP * (int64_t)sizeof(float);
}

void hirl_amx_scan(hirl_candidates_t *c, const hirl_panels_t *queries, int64_t first, int64_t n,
                   const hirl_tiles_t *tiles, const float *bank, int64_t begin, int64_t end,
                   int64_t first_index) {
    const int n_steps = tiles->n_steps;
    const int64_t tile_items = (int64_t)n_steps * TILE_ITEMS;
    uint16_t *packed = (uint16_t *)(void *)((products_t *)c->amx_scratch + 1);
    float *query = (float *)(void *)(packed + 2 * n * tile_items);
    HIRL_ASSERT(begin % (2 * TILE) == 0);
    pack_queries(queries, first, n, n_steps, packed, c->margin);
    for (int64_t q = 0; q < n * HIRL_TILE_COLS; q++) {
        const bool is_used = first * HIRL_TILE_COLS + q < queries->n;
        const bool is_usable = c->margin[q] <= MAX_NORM && tiles->max_norm <= MAX_NORM;
        c->margin[q] = margin_of(tiles->d, c->margin[q] * tiles->max_norm, 0);
        c->threshold[q] = is_used && is_usable ? -INFINITY : INFINITY;
        c->n[q] = is_used && !is_usable ? -1 : 0;
    }
    begin_tiles();
    for (int64_t chunk = begin; chunk < end; chunk += CHUNK) {
        const int64_t chunk_end = chunk + CHUNK < end ? chunk + CHUNK : end;
        for (int64_t q = 0; q < n; q++) {
            for (int64_t i = chunk; i < chunk_end; i += 2 * TILE) {
                const int n_rows = (int)(chunk_end - i < 2 * TILE ? chunk_end - i : 2 * TILE);
                scan_panel(c, tiles->data + i / TILE * tile_items, packed + 2 * q * tile_items,
                           n_steps, q * HIRL_TILE_COLS, n_rows, (uint32_t)(first_index + i));
            }
        }
    }
    _tile_release();
    for (int64_t q = 0; q < n * HIRL_TILE_COLS && first * HIRL_TILE_COLS + q < queries->n; q++) {
        if (c->n[q] > 0) cut_candidates(c, q);
        if (c->n[q] > 0)
            finish_query(c, q, queries, first * HIRL_TILE_COLS + q, bank, first_index, query);
    }
}

#else

bool hirl_amx_is_usable(int d) {
    (void)d;
    return false;
}

// Nobody gets here: what follows is for those who found it usable.

#define NOT_HERE HIRL_FAIL(HIRL_ERR_INTERNAL, "this build has no matrix units")

hirl_status_t hirl_tiles_init(hirl_tiles_t *tiles, int64_t max_rows, int d) {
    (void)tiles, (void)max_rows, (void)d;
    return NOT_HERE;
}

void hirl_tiles_pack(hirl_tiles_t *tiles, const float *rows, int64_t n) {
    (void)tiles, (void)rows, (void)n;
}

void hirl_tiles_reset(hirl_tiles_t *tiles) { (void)tiles; }

hirl_status_t hirl_amx_nearest_create(int64_t max_rows, int d, hirl_amx_nearest_t **amx_p) {
    (void)max_rows, (void)d, (void)amx_p;
    return NOT_HERE;
}

void hirl_amx_nearest_pack(hirl_amx_nearest_t *amx, const float *rows, int64_t n) {
    (void)amx, (void)rows, (void)n;
}

void hirl_amx_nearest_search(const hirl_panels_t *panels, const float *x, int64_t n,
                             int32_t *index) {
    (void)panels, (void)x, (void)n, (void)index;
}

void hirl_amx_nearest_destroy(hirl_amx_nearest_t **amx) { (void)amx; }

int64_t hirl_amx_scratch_bytes(int d, int64_t n_panels) {
    (void)d, (void)n_panels;
    return 0;
}

void hirl_amx_scan(hirl_candidates_t *c, const hirl_panels_t *queries, int64_t first, int64_t n,
                   const hirl_tiles_t *tiles, const float *bank, int64_t begin, int64_t end,
                   int64_t first_index) {
    (void)c, (void)queries, (void)first, (void)n, (void)tiles, (void)bank, (void)begin, (void)end;
    (void)first_index;
}

#endif
