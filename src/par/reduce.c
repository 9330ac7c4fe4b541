// Reductions of floating-point items in a fixed order, blocking and under way. Each item is
// combined in rank order, 32-bit sums in 64-bit arithmetic rounded once: its bits depend on the
// ranks' inputs alone, not on the array's length, on how it is cut into buckets, or on the
// algorithm that an MPI library prefers (whose maximum of a NaN may even differ between ranks; here
// NaN wins). Rank r owns a segment of each piece: all send it their part, it combines them, and
// sends the result to all. That moves the fewest bytes possible. Messages are point-to-point with a
// tag for each reduction, so that ranks may advance several reductions in different orders.
#include "par_impl.h"

#include <math.h>
#include <sched.h>
#include <string.h>

// At a time PIECE_BYTES are reduced, which bounds the buffers and is large against a message's
// latency. Up to GATHER_BYTES every rank fetches all and combines them itself: one collective of
// short messages. BLOCK_ITEMS accumulators stay in the first-level cache.
enum { PIECE_BYTES = 8 << 20, GATHER_BYTES = 32 << 10, BLOCK_ITEMS = 1024 };

struct hirl_par_request {
    hirl_par_request_t *next;
    char *data;
    int64_t n;
    hirl_par_type_t type;
    hirl_par_op_t op;
    int64_t piece_begin, piece_n; // the piece at work
    int stage;                    // 0: parts travel to their owner, 1: results travel back, 2: done
    int tag;
    MPI_Request *messages; // [2 * (size - 1)]
    MPI_Status *statuses;  // [2 * (size - 1)]
    int n_messages;
    char *parts; // [size - 1][my segment of a piece], in rank order without mine
    size_t parts_bytes;
};

// ------------------------------------------------------------------------------------ combine

static double combine(double a, double b, hirl_par_op_t op) {
    if (op == HIRL_PAR_SUM) return a + b;
    if (isnan(a)) return a;
    if (isnan(b)) return b;
    return op == HIRL_PAR_MIN ? (b < a ? b : a) : (b > a ? b : a);
}

// out[i] = part 0 [i] op part 1 [i] op ..., where part `mine` is `own` and the others follow each
// other in `others`. `own` may be `out`.
#define DEFINE_COMBINE(name, real_t)                                                            \
    static void name(real_t *out, const real_t *own, const real_t *others, int size, int mine,  \
                     int64_t n, hirl_par_op_t op) {                                             \
        const int64_t n_blocks = (n + BLOCK_ITEMS - 1) / BLOCK_ITEMS;                           \
        _Pragma("omp parallel for schedule(static) if (n_blocks > 64)") for (int64_t block = 0; \
                                                                             block < n_blocks;  \
                                                                             block++) {         \
            const int64_t begin = block * BLOCK_ITEMS;                                          \
            const int64_t n_items = n - begin < BLOCK_ITEMS ? n - begin : BLOCK_ITEMS;          \
            double sum[BLOCK_ITEMS];                                                            \
            for (int part = 0; part < size; part++) {                                           \
                const real_t *in =                                                              \
                    part == mine ? own : others + (int64_t)(part - (part > mine)) * n;          \
                in += begin;                                                                    \
                if (part == 0) {                                                                \
                    for (int64_t i = 0; i < n_items; i++) sum[i] = (double)in[i];               \
                } else if (op == HIRL_PAR_SUM) {                                                \
                    for (int64_t i = 0; i < n_items; i++) sum[i] += (double)in[i];              \
                } else {                                                                        \
                    for (int64_t i = 0; i < n_items; i++)                                       \
                        sum[i] = combine(sum[i], (double)in[i], op);                            \
                }                                                                               \
            }                                                                                   \
            for (int64_t i = 0; i < n_items; i++) out[begin + i] = (real_t)sum[i];              \
        }                                                                                       \
    }
DEFINE_COMBINE(combine_f32, float)
DEFINE_COMBINE(combine_f64, double)
#undef DEFINE_COMBINE

static void combine_parts(void *out, const void *own, const void *others, int size, int mine,
                          int64_t n, hirl_par_type_t type, hirl_par_op_t op) {
    if (type == HIRL_PAR_F32) {
        combine_f32(out, own, others, size, mine, n, op);
    } else {
        combine_f64(out, own, others, size, mine, n, op);
    }
}

// ------------------------------------------------------------------------------------ stages

// Segment of rank r in a piece of n items.
static int64_t segment_begin(int64_t n, int size, int r) {
    return n / size * r + (n % size < r ? n % size : r);
}

static int64_t segment_items(int64_t n, int size, int r) { return n / size + (r < n % size); }

static int take_tag(hirl_world_t *world) {
    int tag = HIRL_PAR_TAG_REDUCE + world->next_tag;
    world->next_tag = (world->next_tag + 1) % world->n_tags;
    return tag;
}

// Posts the messages of the request's stage. Peers are visited from rank + 1 on, so that not all
// begin with the same one.
static hirl_status_t post_stage(hirl_world_t *world, hirl_par_request_t *request) {
    const int size = world->size, rank = world->rank;
    const size_t item = hirl_par_item_size(request->type);
    const MPI_Datatype mpi_type = hirl_par_mpi_type(request->type);
    char *piece = request->data + (size_t)request->piece_begin * item;
    const int64_t n = request->piece_n, n_mine = segment_items(n, size, rank);
    request->n_messages = 0;
    for (int i = 1; i < size; i++) {
        int peer = (rank + size - i) % size;
        int64_t n_items = request->stage == 0 ? n_mine : segment_items(n, size, peer);
        char *to = request->stage == 0
                       ? request->parts + (size_t)(peer - (peer > rank)) * (size_t)n_mine * item
                       : piece + (size_t)segment_begin(n, size, peer) * item;
        if (n_items == 0) continue;
        HIRL_TRY_MPI(MPI_Irecv(to, (int)n_items, mpi_type, peer, request->tag, world->direct,
                               &request->messages[request->n_messages]));
        request->n_messages++;
    }
    for (int i = 1; i < size; i++) {
        int peer = (rank + i) % size;
        int owner = request->stage == 0 ? peer : rank;
        int64_t n_items = segment_items(n, size, owner);
        if (n_items == 0) continue;
        HIRL_TRY_MPI(MPI_Isend(piece + (size_t)segment_begin(n, size, owner) * item, (int)n_items,
                               mpi_type, peer, request->tag, world->direct,
                               &request->messages[request->n_messages]));
        request->n_messages++;
    }
    return HIRL_OK;
}

static hirl_status_t begin_piece(hirl_world_t *world, hirl_par_request_t *request) {
    int64_t left = request->n - request->piece_begin;
    int64_t most = PIECE_BYTES / (int64_t)hirl_par_item_size(request->type);
    request->piece_n = left < most ? left : most;
    request->stage = left > 0 ? 0 : 2;
    return left > 0 ? post_stage(world, request) : HIRL_OK;
}

// Moves the request on as far as it can go without waiting; *has_moved_p says whether it did.
static hirl_status_t advance(hirl_world_t *world, hirl_par_request_t *request, bool *has_moved_p) {
    while (request->stage < 2) {
        int is_complete = 0;
        int code =
            MPI_Testall(request->n_messages, request->messages, &is_complete, request->statuses);
        if (code != MPI_SUCCESS) {
            return hirl_par_fail_messages(code, request->n_messages, request->statuses,
                                          "MPI_Testall", __FILE__, __LINE__, __func__);
        }
        if (!is_complete) return HIRL_OK;
        *has_moved_p = true;
        if (request->stage == 0) {
            // All parts of my segment are here, and my parts of the others' segments have left.
            size_t item = hirl_par_item_size(request->type);
            int64_t begin =
                request->piece_begin + segment_begin(request->piece_n, world->size, world->rank);
            char *mine = request->data + (size_t)begin * item;
            combine_parts(mine, mine, request->parts, world->size, world->rank,
                          segment_items(request->piece_n, world->size, world->rank), request->type,
                          request->op);
            request->stage = 1;
            HIRL_TRY(post_stage(world, request));
        } else {
            request->piece_begin += request->piece_n;
            HIRL_TRY(begin_piece(world, request));
        }
    }
    return HIRL_OK;
}

static hirl_status_t advance_all(hirl_world_t *world, bool *has_moved_p) {
    HIRL_REQUIRE(!world->is_broken, HIRL_ERR_MPI,
                 "an earlier message failed; this run cannot go on");
    for (hirl_par_request_t *request = world->pending; request; request = request->next) {
        hirl_status_t status = advance(world, request, has_moved_p);
        if (status != HIRL_OK) {
            world->is_broken = true;
            return status;
        }
    }
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ requests

static void free_request(hirl_par_request_t *request) {
    hirl_mem_free(request->messages);
    hirl_mem_free(request->statuses);
    hirl_mem_free(request->parts);
    hirl_mem_free(request);
}

// A request with room for `parts_bytes`. One that ended is used again: a step allocates nothing
// after the first.
static hirl_status_t take_request(hirl_world_t *world, size_t parts_bytes,
                                  hirl_par_request_t **request_p) {
    hirl_status_t status;
    hirl_par_request_t *request = world->spare;
    if (request) {
        // The smallest that is large enough, else the first.
        hirl_par_request_t **best = NULL;
        for (hirl_par_request_t **at = &world->spare; *at; at = &(*at)->next) {
            if ((*at)->parts_bytes >= parts_bytes &&
                (!best || (*at)->parts_bytes < (*best)->parts_bytes))
                best = at;
        }
        if (!best) best = &world->spare;
        request = *best;
        *best = request->next;
    } else {
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_WORKSPACE, 1, &request));
        HIRL_TRY_GOTO(
            HIRL_ALLOC(HIRL_MEM_WORKSPACE, 2 * (int64_t)(world->size - 1), &request->messages),
            status, err_free);
        HIRL_TRY_GOTO(
            HIRL_ALLOC(HIRL_MEM_WORKSPACE, 2 * (int64_t)(world->size - 1), &request->statuses),
            status, err_free);
    }
    if (request->parts_bytes < parts_bytes) {
        hirl_mem_free(request->parts);
        request->parts = NULL;
        request->parts_bytes = 0;
        HIRL_TRY_GOTO(hirl_mem_alloc(HIRL_MEM_WORKSPACE, parts_bytes, (void **)&request->parts),
                      status, err_free);
        request->parts_bytes = parts_bytes;
    }
    request->next = NULL;
    *request_p = request;
    return HIRL_OK;

err_free:
    free_request(request);
    return status;
}

static hirl_status_t begin(hirl_world_t *world, void *data, int64_t n, hirl_par_type_t type,
                           hirl_par_op_t op, hirl_par_request_t **request_p) {
    HIRL_REQUIRE(!world->is_broken, HIRL_ERR_MPI,
                 "an earlier message failed; this run cannot go on");
    size_t item = hirl_par_item_size(type);
    int64_t most = PIECE_BYTES / (int64_t)item;
    int64_t n_mine = segment_items(n < most ? n : most, world->size, world->rank);
    hirl_par_request_t *request = NULL;
    HIRL_TRY(take_request(world, (size_t)n_mine * item * (size_t)(world->size - 1), &request));
    request->data = data;
    request->n = world->size > 1 ? n : 0;
    request->type = type;
    request->op = op;
    request->piece_begin = 0;
    request->tag = take_tag(world);
    hirl_par_request_t **last = &world->pending;
    while (*last) last = &(*last)->next;
    *last = request;
    hirl_status_t status = begin_piece(world, request);
    if (status != HIRL_OK) {
        world->is_broken = true; // its messages may be under way, so it stays with the world
        return status;
    }
    *request_p = request;
    return HIRL_OK;
}

hirl_status_t hirl_par_all_reduce_begin(hirl_world_t *world, float *data, int64_t n,
                                        hirl_par_request_t **request_p) {
    HIRL_TRY(hirl_par_check_args(world, __func__, data, n, HIRL_PAR_F32));
    HIRL_TRY(hirl_par_check_alike(world, __func__, n, HIRL_PAR_F32, HIRL_PAR_SUM));
    return begin(world, data, n, HIRL_PAR_F32, HIRL_PAR_SUM, request_p);
}

hirl_status_t hirl_par_progress(hirl_world_t *world) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "%s: there is no world", __func__);
    bool has_moved = false;
    return world->pending ? advance_all(world, &has_moved) : HIRL_OK;
}

// The others are advanced too: a rank that waits for one of them must not wait for us.
static hirl_status_t wait_for(hirl_world_t *world, const hirl_par_request_t *request) {
    while (request->stage < 2) {
        bool has_moved = false;
        HIRL_TRY(advance_all(world, &has_moved));
        if (!has_moved) sched_yield();
    }
    return HIRL_OK;
}

hirl_status_t hirl_par_all_reduce_end(hirl_world_t *world, hirl_par_request_t **request) {
    HIRL_REQUIRE(world && request && *request, HIRL_ERR_ARG, "%s: there is no request to end",
                 __func__);
    hirl_par_request_t **link = &world->pending;
    while (*link && *link != *request) link = &(*link)->next;
    HIRL_REQUIRE(*link, HIRL_ERR_ARG, "%s: the request does not belong to this world or has ended",
                 __func__);
    hirl_beat_enter("an all-reduce");
    hirl_status_t status = wait_for(world, *request);
    hirl_beat_leave();
    HIRL_TRY(status);
    *link = (*request)->next;
    (*request)->next = world->spare;
    world->spare = *request;
    *request = NULL;
    return HIRL_OK;
}

hirl_status_t hirl_par_reduce_ordered(hirl_world_t *world, void *data, int64_t n,
                                      hirl_par_type_t type, hirl_par_op_t op) {
    if (n == 0) return HIRL_OK;
    const size_t item = hirl_par_item_size(type);
    if ((uint64_t)n * item <= (size_t)GATHER_BYTES / (size_t)world->size) {
        // Part `size` is never mine: all parts come from the gathered ones.
        _Alignas(64) char all[GATHER_BYTES];
        HIRL_TRY_MPI(MPI_Allgather(data, (int)n, hirl_par_mpi_type(type), all, (int)n,
                                   hirl_par_mpi_type(type), world->comm));
        combine_parts(data, NULL, all, world->size, world->size, n, type, op);
        return HIRL_OK;
    }
    hirl_par_request_t *request = NULL;
    HIRL_TRY(begin(world, data, n, type, op, &request));
    return hirl_par_all_reduce_end(world, &request);
}

void hirl_par_requests_reset(hirl_world_t *world) {
    while (world->pending && !world->is_broken) {
        hirl_par_request_t *request = world->pending;
        if (hirl_par_all_reduce_end(world, &request) != HIRL_OK) break;
    }
    // Messages of a broken world may still write into its buffers: those are left to the end of the
    // process.
    while (world->spare) {
        hirl_par_request_t *request = world->spare;
        world->spare = request->next;
        free_request(request);
    }
}
