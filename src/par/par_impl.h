// What the files of src/par share: the world, element types, and the wrapper around MPI calls.
// Invariant: every communicator returns its errors (MPI_ERRORS_RETURN), so that MPI's own text
// reaches the user.
#ifndef HIRL_PAR_IMPL_H
#define HIRL_PAR_IMPL_H

#include "hirl/par.h"

/// See watchdog.c.
typedef struct hirl_watchdog hirl_watchdog_t;
/// Tells the other watchdogs that this rank ends in good order, or with a message of its own, and stops.
void hirl_watchdog_destroy(hirl_watchdog_t **watchdog);
/// The same for a process that ends at once: nothing is waited for or freed.
void hirl_watchdog_farewell(hirl_watchdog_t *watchdog);

struct hirl_world {
    MPI_Comm comm;   // collectives
    MPI_Comm direct; // point-to-point messages of all_to_all_v and of reductions under way
    MPI_Comm node;   // the ranks of comm on this node
    int rank, size;
    int node_rank, node_size, n_nodes;
    int n_cpus;
    bool has_initialised; // this world called MPI_Init and so finalises
    bool is_broken;       // a message failed: its requests cannot be waited for
    int next_tag;         // of the next reduction; counts alike on all ranks
    int n_tags;
    hirl_watchdog_t *watchdog;   // of the world of all ranks, once started
    hirl_par_request_t *pending; // begun, not ended, oldest first
    hirl_par_request_t *spare;   // ended; their buffers serve the next reductions
};

enum {
    HIRL_PAR_TAG_ALL_TO_ALL = 0,
    HIRL_PAR_TAG_REDUCE = 1,       // first of the tags of reductions
    HIRL_PAR_PIECE_ITEMS = 1 << 25 // items per MPI call: with 8 bytes each, 256 MiB
};

/// Records MPI's own text of `code` for the call `what`; returns HIRL_ERR_MPI.
hirl_status_t hirl_par_fail_mpi(int code, const char *what, const char *file, int line,
                                const char *func);

/// The same for a call that completes `n` messages: MPI tells the cause in their statuses.
hirl_status_t hirl_par_fail_messages(int code, int n, const MPI_Status *statuses, const char *what,
                                     const char *file, int line, const char *func);

#define HIRL_TRY_MPI(call)                                                                 \
    do {                                                                                   \
        hirl_beat_enter(#call);                                                            \
        int hirl_mpi_code_ = (call);                                                       \
        hirl_beat_leave();                                                                 \
        if (hirl_mpi_code_ != MPI_SUCCESS)                                                 \
            return hirl_par_fail_mpi(hirl_mpi_code_, #call, __FILE__, __LINE__, __func__); \
    } while (0)

#define HIRL_TRY_MPI_GOTO(call, status, label)                                                 \
    do {                                                                                       \
        hirl_beat_enter(#call);                                                                \
        int hirl_mpi_code_ = (call);                                                           \
        hirl_beat_leave();                                                                     \
        if (hirl_mpi_code_ != MPI_SUCCESS) {                                                   \
            (status) = hirl_par_fail_mpi(hirl_mpi_code_, #call, __FILE__, __LINE__, __func__); \
            goto label;                                                                        \
        }                                                                                      \
    } while (0)

/// Bytes of one item; 0 for a type that does not exist.
size_t hirl_par_item_size(hirl_par_type_t type);
MPI_Datatype hirl_par_mpi_type(hirl_par_type_t type);

/// Checks the arguments that every collective has. Not collective.
hirl_status_t hirl_par_check_args(const hirl_world_t *world, const char *what, const void *data,
                                  int64_t n, hirl_par_type_t type);

/// Debug builds: fails unless (n, type, extra) agree on all ranks. Collective.
#ifdef HIRL_DEBUG
hirl_status_t hirl_par_check_alike(hirl_world_t *world, const char *what, int64_t n, int type,
                                   int extra);
#else
static inline hirl_status_t hirl_par_check_alike(hirl_world_t *world, const char *what, int64_t n,
                                                 int type, int extra) {
    (void)world, (void)what, (void)n, (void)type, (void)extra;
    return HIRL_OK;
}
#endif

/// Ends what is pending and frees the buffers of ended reductions.
void hirl_par_requests_reset(hirl_world_t *world);

/// Blocking ordered reduction of floating-point items; see reduce.c. Collective.
hirl_status_t hirl_par_reduce_ordered(hirl_world_t *world, void *data, int64_t n,
                                      hirl_par_type_t type, hirl_par_op_t op);

#endif
