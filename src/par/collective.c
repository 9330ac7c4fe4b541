// Barrier, broadcast, gathers, scan, and the all-reduce of integers. Counts are 64-bit: what
// exceeds an int is done in pieces. Ways of doing it are chosen from arguments that are equal on
// all ranks, or need no agreement (point-to-point), so that ranks never take different ones.
#include "par_impl.h"

#include <limits.h>
#include <string.h>

size_t hirl_par_item_size(hirl_par_type_t type) {
    switch (type) {
        case HIRL_PAR_U8: return 1;
        case HIRL_PAR_I32:
        case HIRL_PAR_F32: return 4;
        case HIRL_PAR_I64:
        case HIRL_PAR_F64: return 8;
    }
    return 0;
}

MPI_Datatype hirl_par_mpi_type(hirl_par_type_t type) {
    switch (type) {
        case HIRL_PAR_U8: return MPI_UINT8_T;
        case HIRL_PAR_I32: return MPI_INT32_T;
        case HIRL_PAR_I64: return MPI_INT64_T;
        case HIRL_PAR_F32: return MPI_FLOAT;
        case HIRL_PAR_F64: return MPI_DOUBLE;
    }
    return MPI_DATATYPE_NULL;
}

hirl_status_t hirl_par_check_args(const hirl_world_t *world, const char *what, const void *data,
                                  int64_t n, hirl_par_type_t type) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "%s: there is no world", what);
    size_t size = hirl_par_item_size(type);
    HIRL_REQUIRE(size > 0, HIRL_ERR_ARG, "%s: type %d does not exist", what, (int)type);
    HIRL_REQUIRE(n >= 0 && (uint64_t)n <= PTRDIFF_MAX / size, HIRL_ERR_ARG,
                 "%s: %lld items are not a possible count", what, (long long)n);
    HIRL_REQUIRE(n == 0 || data, HIRL_ERR_ARG, "%s: no memory is given for %lld items", what,
                 (long long)n);
    return HIRL_OK;
}

#ifdef HIRL_DEBUG
hirl_status_t hirl_par_check_alike(hirl_world_t *world, const char *what, int64_t n, int type,
                                   int extra) {
    // The largest value and the largest negated value agree only if all values do.
    int64_t seen[8] = {(int64_t)(hirl_hash64(what, strlen(what)) >> 2), n, type, extra};
    for (int i = 0; i < 4; i++) seen[4 + i] = -seen[i];
    HIRL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, seen, 8, MPI_INT64_T, MPI_MAX, world->comm));
    for (int i = 0; i < 4; i++) {
        HIRL_REQUIRE(seen[i] == -seen[4 + i], HIRL_ERR_INTERNAL,
                     "ranks disagree in a collective call: rank %d calls %s with n = %lld, type = "
                     "%d, extra = %d",
                     world->rank, what, (long long)n, type, extra);
    }
    return HIRL_OK;
}
#endif

hirl_status_t hirl_par_barrier(hirl_world_t *world) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "%s: there is no world", __func__);
    HIRL_TRY(hirl_par_check_alike(world, __func__, 0, 0, 0));
    HIRL_TRY_MPI(MPI_Barrier(world->comm));
    return HIRL_OK;
}

// Items of the piece that begins at `done`.
static int piece_items(int64_t n, int64_t done) {
    return (int)(n - done < HIRL_PAR_PIECE_ITEMS ? n - done : HIRL_PAR_PIECE_ITEMS);
}

hirl_status_t hirl_par_all_reduce(hirl_world_t *world, void *data, int64_t n, hirl_par_type_t type,
                                  hirl_par_op_t op) {
    HIRL_TRY(hirl_par_check_args(world, __func__, data, n, type));
    HIRL_REQUIRE(op == HIRL_PAR_SUM || op == HIRL_PAR_MIN || op == HIRL_PAR_MAX, HIRL_ERR_ARG,
                 "%s: operation %d does not exist", __func__, (int)op);
    HIRL_TRY(hirl_par_check_alike(world, __func__, n, (int)type, (int)op));
    if (world->size == 1) return HIRL_OK;
    if (type == HIRL_PAR_F32 || type == HIRL_PAR_F64)
        return hirl_par_reduce_ordered(world, data, n, type, op);
    // Integers give the same bits in any order.
    MPI_Op mpi_op = op == HIRL_PAR_SUM ? MPI_SUM : op == HIRL_PAR_MIN ? MPI_MIN : MPI_MAX;
    for (int64_t done = 0; done < n; done += HIRL_PAR_PIECE_ITEMS) {
        char *at = (char *)data + (size_t)done * hirl_par_item_size(type);
        HIRL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, at, piece_items(n, done), hirl_par_mpi_type(type),
                                   mpi_op, world->comm));
    }
    return HIRL_OK;
}

static hirl_status_t broadcast(hirl_world_t *world, char *data, int64_t n, hirl_par_type_t type,
                               int root) {
    for (int64_t done = 0; done < n; done += HIRL_PAR_PIECE_ITEMS) {
        HIRL_TRY_MPI(MPI_Bcast(data + (size_t)done * hirl_par_item_size(type), piece_items(n, done),
                               hirl_par_mpi_type(type), root, world->comm));
    }
    return HIRL_OK;
}

hirl_status_t hirl_par_broadcast(hirl_world_t *world, void *data, int64_t n, hirl_par_type_t type,
                                 int root) {
    HIRL_TRY(hirl_par_check_args(world, __func__, data, n, type));
    HIRL_REQUIRE(root >= 0 && root < world->size, HIRL_ERR_ARG,
                 "%s: root %d is not one of %d ranks", __func__, root, world->size);
    HIRL_TRY(hirl_par_check_alike(world, __func__, n, (int)type, root));
    return world->size == 1 ? HIRL_OK : broadcast(world, data, n, type, root);
}

// One broadcast per rank: for totals whose displacements do not fit an int.
static hirl_status_t gather_by_broadcast(hirl_world_t *world, const char *in, const int64_t *counts,
                                         int64_t n, hirl_par_type_t type, char *out) {
    size_t item = hirl_par_item_size(type);
    for (int r = 0; r < world->size; r++) {
        int64_t count = counts ? counts[r] : n;
        if (r == world->rank && in != out && count > 0) memcpy(out, in, (size_t)count * item);
        HIRL_TRY(broadcast(world, out, count, type, r));
        out += (size_t)count * item;
    }
    return HIRL_OK;
}

hirl_status_t hirl_par_all_gather(hirl_world_t *world, const void *in, int64_t n,
                                  hirl_par_type_t type, void *out) {
    HIRL_TRY(hirl_par_check_args(world, __func__, in, n, type));
    HIRL_TRY(hirl_par_check_args(world, __func__, out, n, type));
    HIRL_TRY(hirl_par_check_alike(world, __func__, n, (int)type, 0));
    size_t item = hirl_par_item_size(type);
    HIRL_REQUIRE((uint64_t)n <= PTRDIFF_MAX / item / (size_t)world->size, HIRL_ERR_ARG,
                 "%s: %d ranks with %lld items each do not fit into memory", __func__, world->size,
                 (long long)n);
    if (n > HIRL_PAR_PIECE_ITEMS / world->size)
        return gather_by_broadcast(world, in, NULL, n, type, out);
    // MPI does not allow the two buffers to overlap.
    bool is_in_place = in == (char *)out + (size_t)world->rank * (size_t)n * item;
    HIRL_TRY_MPI(MPI_Allgather(is_in_place ? MPI_IN_PLACE : in, (int)n, hirl_par_mpi_type(type),
                               out, (int)n, hirl_par_mpi_type(type), world->comm));
    return HIRL_OK;
}

hirl_status_t hirl_par_all_gather_v(hirl_world_t *world, const void *in, const int64_t *counts,
                                    hirl_par_type_t type, void *out) {
    HIRL_REQUIRE(world && counts, HIRL_ERR_ARG, "%s: world or counts are missing", __func__);
    int64_t total = 0, before = 0;
    for (int r = 0; r < world->size; r++) {
        HIRL_REQUIRE(counts[r] >= 0 && !__builtin_add_overflow(total, counts[r], &total),
                     HIRL_ERR_ARG, "%s: %lld items of rank %d are not a possible count", __func__,
                     (long long)counts[r], r);
        if (r < world->rank) before += counts[r];
    }
    HIRL_TRY(hirl_par_check_args(world, __func__, out, total, type));
    HIRL_TRY(hirl_par_check_args(world, __func__, in, counts[world->rank], type));
    for (int r = 0; r < world->size; r++)
        HIRL_TRY(hirl_par_check_alike(world, __func__, counts[r], (int)type, r));
    if (total > HIRL_PAR_PIECE_ITEMS) return gather_by_broadcast(world, in, counts, 0, type, out);

    hirl_status_t status;
    int *layout = NULL; // counts, then displacements
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 2 * (int64_t)world->size, &layout));
    int *displacement = layout + world->size;
    for (int r = 0; r < world->size; r++) {
        layout[r] = (int)counts[r];
        displacement[r] = r ? displacement[r - 1] + layout[r - 1] : 0;
    }
    bool is_in_place = in == (char *)out + (size_t)before * hirl_par_item_size(type);
    MPI_Datatype mpi_type = hirl_par_mpi_type(type);
    HIRL_TRY_MPI_GOTO(MPI_Allgatherv(is_in_place ? MPI_IN_PLACE : in, layout[world->rank], mpi_type,
                                     out, layout, displacement, mpi_type, world->comm),
                      status, err_free_layout);
    status = HIRL_OK;
err_free_layout:
    hirl_mem_free(layout);
    return status;
}

#ifdef HIRL_DEBUG
// What rank r receives from us must be what it expects.
static hirl_status_t check_counts(hirl_world_t *world, const int64_t *send_counts,
                                  const int64_t *recv_counts) {
    int64_t *found = NULL;
    hirl_status_t status;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, world->size, &found));
    HIRL_TRY_MPI_GOTO(MPI_Alltoall(send_counts, 1, MPI_INT64_T, found, 1, MPI_INT64_T, world->comm),
                      status, err_free);
    status = HIRL_OK;
    for (int r = 0; r < world->size && status == HIRL_OK; r++) {
        if (found[r] != recv_counts[r]) {
            status = HIRL_FAIL(HIRL_ERR_INTERNAL,
                               "rank %d sends %lld items to rank %d, which expects %lld", r,
                               (long long)found[r], world->rank, (long long)recv_counts[r]);
        }
    }
err_free:
    hirl_mem_free(found);
    status = hirl_par_agree(world, status);
    return status;
}
#endif

static int64_t n_pieces(int64_t n) {
    return n / HIRL_PAR_PIECE_ITEMS + (n % HIRL_PAR_PIECE_ITEMS != 0);
}

hirl_status_t hirl_par_all_to_all_v(hirl_world_t *world, const void *in, const int64_t *send_counts,
                                    void *out, const int64_t *recv_counts, hirl_par_type_t type) {
    HIRL_REQUIRE(world && send_counts && recv_counts, HIRL_ERR_ARG,
                 "%s: world or counts are missing", __func__);
    const int size = world->size, rank = world->rank;
    int64_t send_total = 0, recv_total = 0, n_requests = 0;
    for (int r = 0; r < size; r++) {
        HIRL_REQUIRE(send_counts[r] >= 0 &&
                         !__builtin_add_overflow(send_total, send_counts[r], &send_total) &&
                         recv_counts[r] >= 0 &&
                         !__builtin_add_overflow(recv_total, recv_counts[r], &recv_total),
                     HIRL_ERR_ARG,
                     "%s: %lld items to and %lld items from rank %d are not possible counts",
                     __func__, (long long)send_counts[r], (long long)recv_counts[r], r);
        if (r != rank) n_requests += n_pieces(send_counts[r]) + n_pieces(recv_counts[r]);
    }
    HIRL_TRY(hirl_par_check_args(world, __func__, in, send_total, type));
    HIRL_TRY(hirl_par_check_args(world, __func__, out, recv_total, type));
    HIRL_REQUIRE(send_counts[rank] == recv_counts[rank], HIRL_ERR_ARG,
                 "%s: rank %d sends %lld items to itself but expects %lld", __func__, rank,
                 (long long)send_counts[rank], (long long)recv_counts[rank]);
    HIRL_REQUIRE(n_requests <= INT_MAX, HIRL_ERR_ARG, "%s: %lld messages are too many", __func__,
                 (long long)n_requests);
#ifdef HIRL_DEBUG
    HIRL_TRY(check_counts(world, send_counts, recv_counts));
#endif

    // Direct messages rather than MPI_Alltoallv: its int displacements would need all ranks to
    // agree on a second way.
    const size_t item = hirl_par_item_size(type);
    const MPI_Datatype mpi_type = hirl_par_mpi_type(type);
    hirl_status_t status;
    MPI_Request *requests = NULL;
    int n = 0;
    MPI_Status *statuses = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_requests, &requests));
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, n_requests, &statuses), status, err_free_requests);
    const char *from = in;
    char *to = out;
    for (int r = 0; r < size; r++) {
        for (int64_t done = 0; r != rank && done < recv_counts[r]; done += HIRL_PAR_PIECE_ITEMS) {
            HIRL_TRY_MPI_GOTO(MPI_Irecv(to + (size_t)done * item, piece_items(recv_counts[r], done),
                                        mpi_type, r, HIRL_PAR_TAG_ALL_TO_ALL, world->direct,
                                        &requests[n]),
                              status, err_broken);
            n++;
        }
        to += (size_t)recv_counts[r] * item;
    }
    to = out;
    for (int r = 0; r < size; r++) {
        if (r < rank) to += (size_t)recv_counts[r] * item;
        if (r == rank && send_counts[r] > 0) memcpy(to, from, (size_t)send_counts[r] * item);
        for (int64_t done = 0; r != rank && done < send_counts[r]; done += HIRL_PAR_PIECE_ITEMS) {
            HIRL_TRY_MPI_GOTO(MPI_Isend(from + (size_t)done * item,
                                        piece_items(send_counts[r], done), mpi_type, r,
                                        HIRL_PAR_TAG_ALL_TO_ALL, world->direct, &requests[n]),
                              status, err_broken);
            n++;
        }
        from += (size_t)send_counts[r] * item;
    }
    hirl_beat_enter("MPI_Waitall of an all-to-all");
    int code = MPI_Waitall(n, requests, statuses);
    hirl_beat_leave();
    if (code != MPI_SUCCESS) {
        status =
            hirl_par_fail_messages(code, n, statuses, "MPI_Waitall", __FILE__, __LINE__, __func__);
        goto err_broken;
    }
    hirl_mem_free(statuses);
    hirl_mem_free(requests);
    return HIRL_OK;

err_broken:
    world->is_broken = true;
    hirl_mem_free(statuses);
err_free_requests:
    hirl_mem_free(requests);
    return status;
}

hirl_status_t hirl_par_scan_i64(hirl_world_t *world, int64_t value, int64_t *before_p,
                                int64_t *total_p) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "%s: there is no world", __func__);
    hirl_status_t status;
    int64_t *values = NULL, before = 0, total = 0;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, world->size, &values));
    HIRL_TRY_GOTO(hirl_par_all_gather(world, &value, 1, HIRL_PAR_I64, values), status, err_free);
    for (int r = 0; r < world->size; r++) {
        if (r == world->rank) before = total;
        if (__builtin_add_overflow(total, values[r], &total)) {
            status = HIRL_FAIL(
                HIRL_ERR_ARG, "%s: the sum over ranks exceeds 63 bits at rank %d, which gives %lld",
                __func__, r, (long long)values[r]);
            goto err_free;
        }
    }
    if (before_p) *before_p = before;
    if (total_p) *total_p = total;
err_free:
    hirl_mem_free(values);
    return status;
}
