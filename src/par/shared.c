// Memory shared by the ranks of a node: an MPI-3 shared window that the node's first rank holds, or
// plain memory where a node has one rank. The window is open (lock_all) for its whole life; sync
// orders the plain loads and stores.
#include "par_impl.h"

#include <string.h>

enum { ALIGNMENT = 64 };

struct hirl_par_shared {
    MPI_Comm node; // the world's, which outlives this
    MPI_Win window;
    void *plain; // instead of a window
};

// A failure of one node-local rank is a failure of all. Collective on the node.
static hirl_status_t agree_on_node(MPI_Comm node, hirl_status_t mine, size_t bytes) {
    int has_failed = mine != HIRL_OK, any_failed = 0;
    HIRL_TRY_MPI(MPI_Allreduce(&has_failed, &any_failed, 1, MPI_INT, MPI_MAX, node));
    if (mine != HIRL_OK) return mine;
    HIRL_REQUIRE(!any_failed, HIRL_ERR_MPI,
                 "another rank of this node could not share %zu bytes with it", bytes);
    return HIRL_OK;
}

static hirl_status_t open_window(hirl_world_t *world, size_t bytes, MPI_Win *window_p,
                                 char **base_p) {
    MPI_Aint mine = world->node_rank == 0 ? (MPI_Aint)(bytes + ALIGNMENT) : 0, found = 0;
    int unit = 1;
    char *base = NULL;
    hirl_status_t status = HIRL_OK;
    int code = MPI_Win_allocate_shared(mine, 1, MPI_INFO_NULL, world->node, &base, window_p);
    if (code != MPI_SUCCESS) {
        char text[32];
        *window_p = MPI_WIN_NULL;
        status = hirl_par_fail_mpi(code, "MPI_Win_allocate_shared", __FILE__, __LINE__, __func__);
        status = HIRL_FAIL(
            status,
            "cannot share %s between the %d ranks of this node (is /dev/shm large enough?): %s",
            hirl_text_bytes(text, (double)bytes), world->node_size, hirl_error_text_view());
    }
    HIRL_TRY(agree_on_node(world->node, status, bytes));
    HIRL_TRY_MPI(MPI_Win_set_errhandler(*window_p, MPI_ERRORS_RETURN));
    HIRL_TRY_MPI(MPI_Win_shared_query(*window_p, 0, &found, &unit, &base));
    // Ranks map the memory at different addresses, all at page borders: rank 0's shift suits all of
    // them.
    int shift = (int)((ALIGNMENT - (uintptr_t)base % ALIGNMENT) % ALIGNMENT);
    HIRL_TRY_MPI(MPI_Bcast(&shift, 1, MPI_INT, 0, world->node));
    HIRL_TRY_MPI(MPI_Win_lock_all(MPI_MODE_NOCHECK, *window_p));
    *base_p = base + shift;
    return HIRL_OK;
}

hirl_status_t hirl_par_shared_create(hirl_world_t *world, size_t bytes,
                                     hirl_par_shared_t **shared_p, void **ptr_p) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "%s: there is no world", __func__);
    int64_t size[2] = {(int64_t)bytes, -(int64_t)bytes};
    HIRL_REQUIRE(bytes <= PTRDIFF_MAX - ALIGNMENT, HIRL_ERR_ARG, "%s: %zu bytes are too many",
                 __func__, bytes);
    if (world->node_size > 1) {
        HIRL_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, size, 2, MPI_INT64_T, MPI_MAX, world->node));
        HIRL_REQUIRE(size[0] == -size[1], HIRL_ERR_ARG,
                     "%s: the ranks of a node ask for different sizes, from %lld to %lld bytes",
                     __func__, (long long)-size[1], (long long)size[0]);
    }
    hirl_status_t status;
    hirl_par_shared_t *shared = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &shared));
    shared->node = world->node;
    shared->window = MPI_WIN_NULL;
    if (world->node_size == 1) {
        HIRL_TRY_GOTO(hirl_mem_calloc(HIRL_MEM_GENERAL, bytes, 1, &shared->plain), status,
                      err_destroy);
        *ptr_p = shared->plain;
    } else {
        char *base = NULL;
        HIRL_TRY_GOTO(open_window(world, bytes, &shared->window, &base), status, err_destroy);
        if (world->node_rank == 0) memset(base, 0, bytes);
        HIRL_TRY_GOTO(hirl_par_shared_sync(shared), status, err_destroy);
        *ptr_p = base;
    }
    *shared_p = shared;
    return HIRL_OK;

err_destroy:
    hirl_mem_free(shared->plain);
    hirl_mem_free(shared); // a window that is half made is left to MPI: freeing it is collective
    return status;
}

hirl_status_t hirl_par_shared_sync(hirl_par_shared_t *shared) {
    HIRL_REQUIRE(shared, HIRL_ERR_ARG, "%s: there is no shared memory", __func__);
    if (shared->window == MPI_WIN_NULL) return HIRL_OK;
    HIRL_TRY_MPI(MPI_Win_sync(shared->window));
    HIRL_TRY_MPI(MPI_Barrier(shared->node));
    HIRL_TRY_MPI(MPI_Win_sync(shared->window));
    return HIRL_OK;
}

void hirl_par_shared_destroy(hirl_par_shared_t **shared) {
    if (!shared || !*shared) return;
    if ((*shared)->window != MPI_WIN_NULL) {
        MPI_Win_unlock_all((*shared)->window);
        MPI_Win_free(&(*shared)->window);
    }
    hirl_mem_free((*shared)->plain);
    hirl_mem_free(*shared);
    *shared = NULL;
}
