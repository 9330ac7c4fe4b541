/// @file cluster_impl.h
/// What the files of src/cluster share: packed rows and the fused searches over them, FAISS's
/// random numbers, FAISS itself as a second engine, and checks that all ranks agree on.
#ifndef HIRL_CLUSTER_IMPL_H
#define HIRL_CLUSTER_IMPL_H

#include "hirl/cluster.h"

#include <string.h>

// ----------------------------------------------------------------------------------- rows (rows.c)

/// Squared norm, and squared distance of two rows; d columns. In double, with a fixed order of
/// additions.
double hirl_row_norm_sq(const float *x, int d);
double hirl_row_distance_sq(const float *x, const float *y, int d);

/// What is known of a set of rows after its check.
typedef struct hirl_rows_info {
    int64_t first;      // global index of this rank's first row
    int64_t n;          // rows of all ranks
    double max_abs;     // largest magnitude of all ranks' rows
    double max_norm_sq; // largest squared norm of all ranks' rows
} hirl_rows_info_t;

/// Checks the rows x [n_local, d] of all ranks: finite, and with squared norms that single
/// precision can hold with a margin (2^125); with `is_zero_error`, also that none is zero. `what`
/// names them in messages ("row", "query", ...). `mine` is this rank's status so far: a failure is
/// taken into the agreement. Collective. Errors: HIRL_ERR_NUMERIC.
hirl_status_t hirl_rows_check(hirl_world_t *world, hirl_status_t mine, const char *what,
                              const float *x, int64_t n_local, int d, bool is_zero_error,
                              hirl_rows_info_t *info_p);

/// The same for rows that are equal on all ranks. Not collective.
hirl_status_t hirl_rows_check_same(const char *what, const float *x, int64_t n, int d);

/// to = from / max(|from|, 1e-12), row by row; may be in place.
void hirl_rows_normalise(const float *from, int64_t n, int d, float *to);

/// All ranks must give the same n values. Collective. Errors: HIRL_ERR_ARG, naming the first that
/// differs.
hirl_status_t hirl_same_on_all_ranks(hirl_world_t *world, int n, const char *const *names,
                                     const int64_t *values);

/// Gathers n_local items of each rank, in rank order, into `shared` [n of all ranks], memory that
/// the ranks of a node share: written by node rank 0; the caller syncs. Collective. Needs 4 MiB of
/// scratch memory, whatever n.
hirl_status_t hirl_gather_on_nodes(hirl_world_t *world, const int32_t *local, int64_t n_local,
                                   int32_t *shared);

// ------------------------------------------------------------------------------------ fixed point

/// Power of two by which to multiply values of magnitude <= bound so that each, rounded to an
/// integer, keeps within 51 bits and n of them add up within 62. The unit of the sum is 1 / scale:
/// at most bound * 2^-50, and for more than 2^11 values bound * 2^-(61 - ceil(log2 n)), so 2^-40 of
/// the bound for 2^21 values and 2^-30 for 2^31. Integer sums do not depend on their order.
double hirl_fixed_scale(int64_t n, double bound);

/// The integer nearest to x (|x| <= 2^51), even on ties. Below 2^53 the unit of a double is 1: so
/// adding 1.5 * 2^52 leaves the integer in the low bits, in a way that every instruction set has
/// vectors for.
static inline int64_t hirl_fixed_round(double x) {
    const double shifted = x + 0x1.8p52;
    int64_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    return bits - INT64_C(0x4338000000000000);
}

// ------------------------------------------------------------------------------- panels (panels.c)

/// The first pass of the nearest-row search on AMX (amx.c).
typedef struct hirl_amx_nearest hirl_amx_nearest_t;

/// Rows packed for hirl_tile_multiply: panels of HIRL_TILE_COLS rows, transposed; zeros fill the
/// last one.
typedef struct hirl_panels {
    int64_t n;        // rows packed
    int64_t n_panels; // that hold them
    int64_t capacity; // panels allocated
    int d;
    float *data; // [capacity, d, HIRL_TILE_COLS]
    float *
        half_norm; // [capacity * HIRL_TILE_COLS]: half the squared norm, +inf beyond row n; or NULL
    hirl_amx_nearest_t *amx; // NULL: not used
} hirl_panels_t;

/// Panels for up to max_rows rows of d columns; has_norms: for hirl_panels_nearest. may_use_amx:
/// where there is such a unit, nearest rows are found faster, with the same bits.
hirl_status_t hirl_panels_init(hirl_panels_t *panels, int64_t max_rows, int d, bool has_norms,
                               bool may_use_amx);
void hirl_panels_pack(hirl_panels_t *panels, const float *rows, int64_t n);
void hirl_panels_reset(hirl_panels_t *panels);
/// Bytes that init would allocate, but for some per thread.
double hirl_panels_bytes(int64_t max_rows, int d);

/// Index of the packed row nearest to each of n rows x [n, d]: lowest half_norm - product; the
/// lowest index on ties.
void hirl_panels_nearest(const hirl_panels_t *panels, const float *x, int64_t n, int32_t *index);

/// The same on the calling thread alone, without AMX, for n <= 128 rows.
void hirl_panels_nearest_serial(const hirl_panels_t *panels, const float *x, int64_t n,
                                int32_t *index);

// ---------------------------------------------------------------------------------- top-k (topk.c)

/// A score and a row index as one number: greater means higher score, or the same score and lower
/// index.
static inline uint64_t hirl_key_make(float score, uint32_t index) {
    const float plus_zero = score + 0.0f; // -0 and +0 are one score
    uint32_t bits;
    memcpy(&bits, &plus_zero, sizeof(bits));
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~index;
}

static inline float hirl_key_score(uint64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    float score;
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    memcpy(&score, &bits, sizeof(score));
    return score;
}

static inline uint32_t hirl_key_index(uint64_t key) { return ~(uint32_t)key; }

/// Rows in bfloat16, packed for AMX.
typedef struct hirl_tiles {
    int d, n_steps;
    float max_norm; // of the rows; not below it
    uint16_t *data;
} hirl_tiles_t;

/// The k largest products of each packed query with the rows of bank [n_bank, d], as keys [n
/// queries, k] in falling order; row i has index first_index + i. tiles: the bank packed for AMX,
/// or NULL; the result is the same. Needs k <= n_bank. Errors: HIRL_ERR_MEMORY.
hirl_status_t hirl_topk_search(const hirl_panels_t *queries, const float *bank, int64_t n_bank,
                               const hirl_tiles_t *tiles, int64_t first_index, int64_t k,
                               uint64_t *keys);

/// Moves the k largest of n different keys to the front, in any order.
void hirl_topk_select(uint64_t *keys, int64_t n, int64_t k);

/// Merges two falling lists and keeps the n_out largest; `out` must not overlap the inputs.
void hirl_topk_merge(const uint64_t *a, int64_t n_a, const uint64_t *b, int64_t n_b, uint64_t *out,
                     int64_t n_out);

/// The k largest keys of n to the front, in falling order; scratch [k].
void hirl_topk_sort(uint64_t *keys, int64_t n, int64_t k, uint64_t *scratch);

// ------------------------------------------------------------------------------------ AMX (amx.c)

/// True if this processor has the unit, this build can use it, the system lets this process, and
/// rows of d columns are worth it. All others below need that.
bool hirl_amx_is_usable(int d);

hirl_status_t hirl_tiles_init(hirl_tiles_t *tiles, int64_t max_rows, int d);
void hirl_tiles_pack(hirl_tiles_t *tiles, const float *rows, int64_t n);
void hirl_tiles_reset(hirl_tiles_t *tiles);

hirl_status_t hirl_amx_nearest_create(int64_t max_rows, int d, hirl_amx_nearest_t **amx_p);
void hirl_amx_nearest_pack(hirl_amx_nearest_t *amx, const float *rows, int64_t n);
void hirl_amx_nearest_search(const hirl_panels_t *panels, const float *x, int64_t n,
                             int32_t *index);
void hirl_amx_nearest_destroy(hirl_amx_nearest_t **amx);

/// What a thread knows of the queries of one group while it goes through the bank.
typedef struct hirl_candidates {
    int64_t k, capacity;
    float *threshold;  // [group queries] what a product must exceed (AMX: reach)
    int64_t *n;        // [group queries] keys held; AMX: -1 if the query must do without it
    uint64_t *keys;    // [group queries, capacity]
    uint64_t *scratch; // [k]
    float *margin;     // [group queries] AMX: bound of its error
    void *amx_scratch; // [hirl_amx_scratch_bytes]
} hirl_candidates_t;

int64_t hirl_amx_scratch_bytes(int d, int64_t n_panels);

/// Puts all of the bank's rows [begin, end) that can be among the k best of the queries of the n
/// panels from `first` on into c, with exact scores. begin: a multiple of 32.
void hirl_amx_scan(hirl_candidates_t *c, const hirl_panels_t *queries, int64_t first, int64_t n,
                   const hirl_tiles_t *tiles, const float *bank, int64_t begin, int64_t end,
                   int64_t first_index);

// ------------------------------------------------------------------------------- devices (device.c)
// None of these is collective.

/// Device memory that is left for nearest_rows beside the rows.
#define HIRL_DEVICE_RESERVE ((int64_t)4 << 20)

/// Rows for operations of a backend: all in its memory, or a piece at a time.
typedef struct hirl_device_rows {
    hirl_backend_t *be;
    const float *host; // [n, d]; borrowed
    int64_t n;
    int d;
    int64_t piece;      // rows that `data` has room for
    hirl_tensor_t data; // [piece, d]; not set without rows
} hirl_device_rows_t;

/// `what` names them in the log. reserve: bytes of the backend's memory that they must leave.
hirl_status_t hirl_device_rows_init(hirl_device_rows_t *rows, hirl_backend_t *be, const char *what,
                                    const float *x, int64_t n, int d, int64_t reserve);
/// Rows [first, first + piece), fewer at the end, valid until the next take. first: a multiple of
/// `piece`. The caller resets the view.
hirl_status_t hirl_device_rows_take(const hirl_device_rows_t *rows, int64_t first,
                                    hirl_tensor_t *view_p);
void hirl_device_rows_reset(hirl_device_rows_t *rows);

/// Centroids and half their squared norms in a backend's memory.
typedef struct hirl_device_centroids {
    hirl_backend_t *be;
    hirl_tensor_t data, half_norm; // [k, d], [k]
    float *host_half_norm;         // [k]
} hirl_device_centroids_t;

hirl_status_t hirl_device_centroids_init(hirl_device_centroids_t *c, hirl_backend_t *be, int64_t k,
                                         int d);
hirl_status_t hirl_device_centroids_load(hirl_device_centroids_t *c, const float *centroids);
void hirl_device_centroids_reset(hirl_device_centroids_t *c);

/// assign [n]: nearest centroid of each row, as hirl_panels_nearest.
hirl_status_t hirl_device_assign(hirl_backend_t *be, const float *x, int64_t n, int d,
                                 const float *centroids, int64_t k, int32_t *assign);

/// Lloyd's sums over rows in a backend's memory.
typedef struct hirl_device_lloyd hirl_device_lloyd_t;
hirl_status_t hirl_device_lloyd_create(hirl_backend_t *be, const float *x, int64_t n, int d,
                                       int64_t k, hirl_device_lloyd_t **lloyd_p);
/// sum [k * d + k + 1]: fixed-point sums of the rows nearest to each centroid, their counts, and with
/// objective_scale > 0 the sum of their squared distances (else 0).
hirl_status_t hirl_device_lloyd_run(hirl_device_lloyd_t *lloyd, const float *centroids,
                                    double scale, double objective_scale, int64_t *sum);
void hirl_device_lloyd_destroy(hirl_device_lloyd_t **lloyd);

/// As hirl_topk_search, of queries [n, d].
hirl_status_t hirl_device_topk(const hirl_device_rows_t *bank, const float *query, int64_t n,
                               int64_t first_index, int64_t k, uint64_t *keys);

// -------------------------------------------------------------------------- FAISS's random numbers

/// The 32-bit Mersenne twister (Matsumoto and Nishimura 1998), which FAISS draws from.
typedef struct hirl_twister {
    uint32_t state[624];
    int next;
} hirl_twister_t;

void hirl_twister_init(hirl_twister_t *twister, uint32_t seed);
uint32_t hirl_twister_u32(hirl_twister_t *twister);
/// FAISS's uniform number: [0, 1], single precision.
float hirl_twister_uniform(hirl_twister_t *twister);
/// The first `n_wanted` items of FAISS's random permutation of 0..n-1 for this seed; the array has
/// n items.
void hirl_twister_permute(int32_t *permutation, int64_t n, int64_t n_wanted, int64_t seed);

// -------------------------------------------------------------------------- FAISS (faiss_engine.c)

/// An exact index of FAISS (IndexFlatL2 or IndexFlatIP).
typedef struct hirl_faiss_index hirl_faiss_index_t;

hirl_status_t hirl_faiss_create(int d, bool is_inner_product, hirl_faiss_index_t **index_p);
/// Replaces the content of the index by these rows.
hirl_status_t hirl_faiss_load(hirl_faiss_index_t *index, const float *rows, int64_t n);
/// Nearest row of each of n rows x.
hirl_status_t hirl_faiss_nearest(hirl_faiss_index_t *index, const float *x, int64_t n,
                                 int32_t *nearest);
/// As hirl_topk_search; which rows of equal score are kept at the end of a list is FAISS's choice.
hirl_status_t hirl_faiss_topk(hirl_faiss_index_t *index, const float *query, int64_t n,
                              int64_t first_index, int64_t k, uint64_t *keys);
void hirl_faiss_destroy(hirl_faiss_index_t **index);

#endif
