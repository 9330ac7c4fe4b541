/// @file par.h
/// The MPI world: start and end, node-local ranks, reductions and gathers of host
/// memory, agreement on failure. Every function is collective over the world's communicator unless
/// its comment says otherwise, and is called by the thread that created the world
/// (MPI_THREAD_FUNNELED).
#ifndef HIRL_PAR_H
#define HIRL_PAR_H

#include <mpi.h>

#include "hirl/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hirl_world hirl_world_t;

/// Element type of a collective.
typedef enum hirl_par_type {
    HIRL_PAR_U8,
    HIRL_PAR_I32,
    HIRL_PAR_I64,
    HIRL_PAR_F32,
    HIRL_PAR_F64
} hirl_par_type_t;
typedef enum hirl_par_op { HIRL_PAR_SUM, HIRL_PAR_MIN, HIRL_PAR_MAX } hirl_par_op_t;

/// Initialises MPI (if it is not yet) and describes the world. argc/argv may be NULL. Also works as
/// a single process without mpirun.
hirl_status_t hirl_world_create(int *argc, char ***argv, hirl_world_t **world_p);

/// Finalises MPI if create initialised it.
void hirl_world_destroy(hirl_world_t **world);

/// Ends all ranks at once. Not collective; does not return.
void hirl_world_abort(hirl_world_t *world, int exit_code);

/// Starts this job's watchdog: a thread per rank tells rank 0's where its rank is, over TCP. A rank that dies, stops, or keeps the
/// others waiting ends the job within `timeout` seconds, with a message that names rank, node, step and call, and with `exit_code`
/// (1..127). Ranks that cannot reach rank 0 switch it off, with a warning. Ends with the world. Collective. Errors: HIRL_ERR_ARG,
/// HIRL_ERR_MEMORY, HIRL_ERR_MPI.
hirl_status_t hirl_watchdog_start(hirl_world_t *world, double timeout, int exit_code);

// Not collective:
int hirl_world_rank(const hirl_world_t *world);
int hirl_world_size(const hirl_world_t *world);
int hirl_world_node_rank(const hirl_world_t *world); // rank within the node
int hirl_world_node_size(const hirl_world_t *world);
int hirl_world_n_nodes(const hirl_world_t *world);
// CPUs this process may run on, shared fairly: floor(cpuset / ranks that share it), >= 1
int hirl_world_n_cpus(const hirl_world_t *world);
MPI_Comm hirl_world_comm_view(const hirl_world_t *world);

/// A world whose communicator is this rank alone (for tasks that work on their own rows). Not
/// collective.
hirl_status_t hirl_world_create_self(hirl_world_t **world_p);

/// A world over consecutive groups of `group_size` ranks (must divide the size): ranks
/// [g*group_size, (g+1)*group_size).
hirl_status_t hirl_world_split(hirl_world_t *world, int group_size, hirl_world_t **group_p);

/// Logs one line per rank: rank, node, device, cpus.
hirl_status_t hirl_world_log_table(hirl_world_t *world, const char *device);

hirl_status_t hirl_par_barrier(hirl_world_t *world);
/// In place. Floating-point items are combined in rank order, f32 sums in f64 rounded once: an
/// item's bits depend on the ranks' inputs alone, not on n or on how an array is cut; a NaN of any
/// rank wins in min and max. n may exceed INT_MAX.
hirl_status_t hirl_par_all_reduce(hirl_world_t *world, void *data, int64_t n, hirl_par_type_t type,
                                  hirl_par_op_t op);
hirl_status_t hirl_par_broadcast(hirl_world_t *world, void *data, int64_t n, hirl_par_type_t type,
                                 int root);
/// Every rank gives n items; out holds size * n in rank order.
hirl_status_t hirl_par_all_gather(hirl_world_t *world, const void *in, int64_t n,
                                  hirl_par_type_t type, void *out);
/// Rank r gives counts[r] items (the same table on all ranks); out holds their concatenation.
hirl_status_t hirl_par_all_gather_v(hirl_world_t *world, const void *in, const int64_t *counts,
                                    hirl_par_type_t type, void *out);
/// Sends send_counts[r] items to rank r from `in` (in rank order), receives recv_counts[r] from it
/// into `out`.
hirl_status_t hirl_par_all_to_all_v(hirl_world_t *world, const void *in, const int64_t *send_counts,
                                    void *out, const int64_t *recv_counts, hirl_par_type_t type);
/// Exclusive prefix sum and total of one value per rank.
hirl_status_t hirl_par_scan_i64(hirl_world_t *world, int64_t value, int64_t *before_p,
                                int64_t *total_p);

/// An all-reduce under way; see hirl_par_all_reduce_begin.
typedef struct hirl_par_request hirl_par_request_t;
/// Begins an in-place f32 sum over ranks; `data` must stay untouched until the end. Begin in the
/// same order on all ranks.
hirl_status_t hirl_par_all_reduce_begin(hirl_world_t *world, float *data, int64_t n,
                                        hirl_par_request_t **request_p);
/// Lets pending requests make progress (called between backward steps). Not collective.
hirl_status_t hirl_par_progress(hirl_world_t *world);
/// Waits for and releases the request.
hirl_status_t hirl_par_all_reduce_end(hirl_world_t *world, hirl_par_request_t **request);

/// Agreement: every rank gives its own status; all return HIRL_OK or all return the failure of the
/// lowest failing rank, whose text is recorded on every rank (prefixed with that rank when not all
/// failed alike).
hirl_status_t hirl_par_agree(hirl_world_t *world, hirl_status_t mine);

/// Whether to go on: HIRL_ERR_INTERRUPTED on all ranks once one of them has caught a signal that cancels
/// (see hirl_signal_begin). Collective where signals cancel, else free.
hirl_status_t hirl_par_heed_signals(hirl_world_t *world);

/// True if all ranks call this within `seconds` of each other: for the end of a failed run, to tell
/// a failure that all share from a rank's own. After false, only hirl_world_abort may follow.
bool hirl_par_all_arrive(hirl_world_t *world, double seconds);

/// Claims the device with this id (the same text means the same device of the node; "" is none) for this rank. Errors: HIRL_ERR_ARG
/// on all ranks, naming the ranks that share one, unless `is_sharing_allowed`.
hirl_status_t hirl_world_claim_device(hirl_world_t *world, const char *id, bool is_sharing_allowed);

// ------------------------------------------------------------------------------------ device memory

/// Communication of device memory between the ranks' devices (NCCL), on a stream of its own beside the backend's. Host threads do
/// not wait: what is asked for later on the backend's stream sees the result.
typedef struct hirl_par_device hirl_par_device_t;
/// `stream`: the backend's (hirl_backend_stream_view), whose device is current. One per job; no two ranks may share a device. Errors:
/// HIRL_ERR_CUDA with NCCL's text, HIRL_ERR_UNSUPPORTED in a build without CUDA.
hirl_status_t hirl_par_device_create(hirl_world_t *world, void *stream,
                                     hirl_par_device_t **device_p);
void hirl_par_device_destroy(hirl_par_device_t **device);
/// Begins an in-place f32 sum of d_data [n] over ranks, after what is now on the backend's stream; the sum goes on beside later work of that stream. The
/// order of each sum is fixed by the number of ranks and the wiring of the machine.
hirl_status_t hirl_par_device_all_reduce_begin(hirl_par_device_t *device, float *d_data, int64_t n);
/// Later work of the backend's stream waits for all that was begun. Errors: a failure that NCCL found meanwhile.
hirl_status_t hirl_par_device_all_reduce_end(hirl_par_device_t *device);
/// Begin and end at once.
hirl_status_t hirl_par_device_all_reduce(hirl_par_device_t *device, float *d_data, int64_t n);
/// Every rank gives d_in [n]; d_out holds [size, n] in rank order.
hirl_status_t hirl_par_device_all_gather(hirl_par_device_t *device, const float *d_in, int64_t n,
                                         float *d_out);
/// d_in holds send_counts[r] floats for each rank r, d_out gets recv_counts[r] from each, both in rank order; counts are the host's [size].
hirl_status_t hirl_par_device_all_to_all_v(hirl_par_device_t *device, const float *d_in,
                                           const int64_t *send_counts, float *d_out,
                                           const int64_t *recv_counts);
/// The ranks of `group` (a split of the device's world; HIRL_BORROW), on the same streams as `device`, which must outlive it.
hirl_status_t hirl_par_device_split(hirl_par_device_t *device, hirl_world_t *group,
                                    hirl_par_device_t **group_p);

/// Memory shared by the ranks of a node: `bytes` visible to all node-local ranks at *ptr_p
/// (zeroed). Collective on the node.
typedef struct hirl_par_shared hirl_par_shared_t;
hirl_status_t hirl_par_shared_create(hirl_world_t *world, size_t bytes,
                                     hirl_par_shared_t **shared_p, void **ptr_p);
/// Makes writes of all node-local ranks visible to each other (barrier on the node).
hirl_status_t hirl_par_shared_sync(hirl_par_shared_t *shared);
void hirl_par_shared_destroy(hirl_par_shared_t **shared);

#ifdef __cplusplus
}
#endif
#endif
