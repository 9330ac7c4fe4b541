/// The emulated NCCL: collectives of device memory by MPI, run on streams like other work. The communicator is a duplicate of
/// MPI_COMM_WORLD, so its ranks are that one's. Ranks compare what they are about to do before they do it; sums are
/// taken in the order of ranks. Communicators that must not block answer ncclInProgress once to every request.
///
/// Unlike the real library's, this work needs the host thread of every rank: a rank that waited in MPI for another one, while that
/// one waits for a collective here, would wait for ever. So the program's own calls of MPI that may wait run first what streams hold.
#include "nccl.h"

#include "emu.h"
#include "emu_math.h"

// Not MPI's old C++ interface, which is a library of its own.
#define OMPI_SKIP_MPICXX 1
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <vector>

using namespace hirl_emu;

struct ncclComm {
    int size, rank;
    MPI_Comm mpi; // MPI_COMM_NULL: one rank without MPI. Given back by MPI_Finalize
    bool is_blocking, is_in_progress;
    uint64_t n_operations;
    char text[200];
};

namespace {

std::set<ncclComm_t> comms;
MPI_Comm world = MPI_COMM_NULL; // made once
thread_local int group_depth = 0;

enum class op { all_reduce, reduce, reduce_scatter, all_gather, broadcast, send, receive };
const char *const op_text[] = {"ncclAllReduce", "ncclReduce", "ncclReduceScatter", "ncclAllGather",
                               "ncclBroadcast", "ncclSend",   "ncclRecv"};

struct request {
    op is;
    const void *from;
    void *to;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t reduction;
    int root; // or peer
    ncclComm_t comm;
    cudaStream_t stream;
};
thread_local std::vector<request> group;

size_t size_of(ncclDataType_t type) {
    switch (type) {
        case ncclInt8:
        case ncclUint8: return 1;
        case ncclBfloat16:
        case ncclFloat16: return 2;
        case ncclInt32:
        case ncclUint32:
        case ncclFloat32: return 4;
        default: return 8;
    }
}

/// Waits without keeping a core from the others, and tells once when that takes long.
void wait_all(std::vector<MPI_Request> &requests, const char *what) {
    const time_t start = time(nullptr);
    bool is_told = false;
    for (int is_done = 0;;) {
        PMPI_Testall((int)requests.size(), requests.data(), &is_done, MPI_STATUSES_IGNORE);
        if (is_done) return;
        sched_yield();
        if (!is_told && time(nullptr) - start > 30) {
            fprintf(stderr, "emulated device: %s has waited for other ranks for 30 s\n", what);
            is_told = true;
        }
    }
}

void check_thread(const ncclComm &comm, const char *what) {
    if (comm.size == 1) return;
    int level = MPI_THREAD_SINGLE, is_main = 0;
    MPI_Query_thread(&level);
    MPI_Is_thread_main(&is_main);
    if (level < MPI_THREAD_SERIALIZED && !is_main)
        fail("%s: runs on a thread that may not call MPI; wait for its stream on the main thread",
             what);
}

/// Everyone's `bytes` bytes, in the order of ranks.
void gather(const void *own, size_t bytes, void *all, const ncclComm &comm, const char *what) {
    if (comm.size == 1) {
        memcpy(all, own, bytes);
        return;
    }
    std::vector<MPI_Request> requests(1);
    PMPI_Iallgather(own, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, comm.mpi, &requests[0]);
    wait_all(requests, what);
}

/// Aborts unless all ranks are about to do the same.
void compare(const request &r) {
    struct {
        uint64_t number, op, count, type, reduction, root;
    } own = {r.comm->n_operations++, (uint64_t)r.is,        (uint64_t)r.count,
             (uint64_t)r.type,       (uint64_t)r.reduction, (uint64_t)r.root};
    std::vector<decltype(own)> all((size_t)r.comm->size);
    gather(&own, sizeof own, all.data(), *r.comm, op_text[(int)r.is]);
    for (size_t i = 0; i < all.size(); ++i)
        if (memcmp(&all[i], &own, sizeof own) != 0)
            fail(
                "rank %d calls %s number %llu of %llu items of type %llu, rank %zu calls %s number "
                "%llu of %llu items of type %llu",
                r.comm->rank, op_text[own.op], (unsigned long long)own.number,
                (unsigned long long)own.count, (unsigned long long)own.type, i, op_text[all[i].op],
                (unsigned long long)all[i].number, (unsigned long long)all[i].count,
                (unsigned long long)all[i].type);
}

template <typename T> T combine(ncclRedOp_t reduction, T a, T b) {
    switch (reduction) {
        case ncclProd: return (T)(a * b);
        case ncclMax: return a < b ? b : a;
        case ncclMin: return b < a ? b : a;
        default: return (T)(a + b);
    }
}

template <typename T>
void reduce_typed(ncclRedOp_t reduction, const T *all, size_t stride, size_t count, int size,
                  T *to) {
    for (size_t i = 0; i < count; ++i) {
        T sum = all[i];
        for (int r = 1; r < size; ++r) sum = combine(reduction, sum, all[(size_t)r * stride + i]);
        to[i] = reduction == ncclAvg ? (T)(sum / (T)size) : sum;
    }
}

/// to[i] = all[0][i] op all[1][i] op ...; rows of `all` are `stride` items apart.
void reduce_rows(const request &r, const void *all, size_t stride, size_t count, void *to) {
    const int size = r.comm->size;
    switch (r.type) {
        case ncclInt8:
            return reduce_typed(r.reduction, (const int8_t *)all, stride, count, size,
                                (int8_t *)to);
        case ncclUint8:
            return reduce_typed(r.reduction, (const uint8_t *)all, stride, count, size,
                                (uint8_t *)to);
        case ncclInt32:
            return reduce_typed(r.reduction, (const int32_t *)all, stride, count, size,
                                (int32_t *)to);
        case ncclUint32:
            return reduce_typed(r.reduction, (const uint32_t *)all, stride, count, size,
                                (uint32_t *)to);
        case ncclInt64:
            return reduce_typed(r.reduction, (const int64_t *)all, stride, count, size,
                                (int64_t *)to);
        case ncclUint64:
            return reduce_typed(r.reduction, (const uint64_t *)all, stride, count, size,
                                (uint64_t *)to);
        case ncclFloat32:
            return reduce_typed(r.reduction, (const float *)all, stride, count, size, (float *)to);
        case ncclFloat64:
            return reduce_typed(r.reduction, (const double *)all, stride, count, size,
                                (double *)to);
        case ncclBfloat16: {
            std::vector<float> wide((size_t)size * count), sum(count);
            for (int k = 0; k < size; ++k)
                for (size_t i = 0; i < count; ++i)
                    wide[(size_t)k * count + i] =
                        from_bf16(((const uint16_t *)all)[(size_t)k * stride + i]);
            reduce_typed(r.reduction, wide.data(), count, count, size, sum.data());
            for (size_t i = 0; i < count; ++i) ((uint16_t *)to)[i] = to_bf16(sum[i]);
            return;
        }
        default: fail("%s: data type %d", op_text[(int)r.is], (int)r.type);
    }
}

void run(const request &r) {
    const char *what = op_text[(int)r.is];
    const size_t item = size_of(r.type), size = (size_t)r.comm->size;
    const size_t own_count = r.count * (r.is == op::reduce_scatter ? size : 1);
    compare(r);
    // Pieces of 16 MiB from every rank; messages go through host memory.
    const size_t piece = std::max((size_t)1, ((size_t)16 << 20) / item);
    std::vector<char> own(std::min(own_count, piece) * item),
        all(std::min(own_count, piece) * item * size);
    if (r.is == op::reduce_scatter) {
        own.resize(std::min(r.count, piece) * item);
        all.resize(own.size() * size);
    }
    for (size_t done = 0; done < r.count; done += piece) {
        const size_t n = std::min(piece, r.count - done);
        if (r.is == op::reduce_scatter) {
            // Each part of the array in turn; everyone keeps the own one.
            for (size_t part = 0; part < size; ++part) {
                memcpy(own.data(), (const char *)r.from + (part * r.count + done) * item, n * item);
                gather(own.data(), n * item, all.data(), *r.comm, what);
                if ((int)part == r.comm->rank)
                    reduce_rows(r, all.data(), n, n, (char *)r.to + done * item);
            }
            continue;
        }
        if (r.is == op::broadcast && r.comm->rank != r.root)
            memset(own.data(), 0, n * item);
        else
            memcpy(own.data(), (const char *)r.from + done * item, n * item);
        gather(own.data(), n * item, all.data(), *r.comm, what);
        switch (r.is) {
            case op::reduce:
                if (r.comm->rank != r.root) break;
                [[fallthrough]];
            case op::all_reduce:
                reduce_rows(r, all.data(), n, n, (char *)r.to + done * item);
                break;
            case op::broadcast:
                memcpy((char *)r.to + done * item, all.data() + (size_t)r.root * n * item,
                       n * item);
                break;
            default:
                for (size_t k = 0; k < size; ++k)
                    memcpy((char *)r.to + (k * r.count + done) * item, all.data() + k * n * item,
                           n * item);
        }
    }
}

/// A rank alone sends to itself: the n-th message goes to the n-th receive.
void run_own_messages(const std::vector<request> &all) {
    std::vector<const request *> sends, receives;
    for (const request &r : all) (r.is == op::send ? sends : receives).push_back(&r);
    if (sends.size() != receives.size())
        fail("%zu messages of a rank to itself, and %zu receives", sends.size(), receives.size());
    for (size_t i = 0; i < sends.size(); ++i) {
        if (sends[i]->count != receives[i]->count || sends[i]->type != receives[i]->type)
            fail("a message of %zu items and a receive of %zu", sends[i]->count,
                 receives[i]->count);
        memcpy(receives[i]->to, sends[i]->from, sends[i]->count * size_of(sends[i]->type));
    }
}

/// Sends and receives of one group, which may need each other.
void run_messages(const std::vector<request> &all) {
    if (all.front().comm->size == 1) return run_own_messages(all);
    std::vector<std::vector<char>> buffers(all.size());
    std::vector<MPI_Request> requests(all.size());
    for (size_t i = 0; i < all.size(); ++i) {
        const request &r = all[i];
        const size_t bytes = r.count * size_of(r.type);
        buffers[i].resize(bytes);
        if (r.is == op::send) {
            memcpy(buffers[i].data(), r.from, bytes);
            PMPI_Isend(buffers[i].data(), (int)bytes, MPI_BYTE, r.root, 0, r.comm->mpi,
                       &requests[i]);
        } else {
            PMPI_Irecv(buffers[i].data(), (int)bytes, MPI_BYTE, r.root, 0, r.comm->mpi,
                       &requests[i]);
        }
    }
    wait_all(requests, "ncclSend and ncclRecv");
    for (size_t i = 0; i < all.size(); ++i)
        if (all[i].is == op::receive) memcpy(all[i].to, buffers[i].data(), buffers[i].size());
}

ncclResult_t answer(ncclComm_t comm) {
    if (comm->is_blocking) return ncclSuccess;
    comm->is_in_progress = true;
    return ncclInProgress;
}

ncclResult_t refuse(ncclComm_t comm, ncclResult_t result, const char *text) {
    snprintf(comm->text, sizeof comm->text, "%s", text);
    return result;
}

ncclResult_t ask(const request &r, bool is_failing) {
    const char *what = op_text[(int)r.is];
    if (comms.count(r.comm) == 0) return ncclInvalidArgument;
    if (is_failing) return refuse(r.comm, ncclSystemError, "as HIRL_EMU_FAIL asks");
    if (sticky_error() != cudaSuccess)
        return refuse(r.comm, ncclUnhandledCudaError, cudaGetErrorString(sticky_error()));
    if (r.comm->is_in_progress)
        return refuse(r.comm, ncclInvalidUsage, "the request before is in progress");
    if ((unsigned)r.type > ncclBfloat16 || r.type == ncclFloat16 ||
        (unsigned)r.reduction >= ncclNumOps || r.root < 0 || r.root >= r.comm->size ||
        !is_stream(r.stream))
        return refuse(r.comm, ncclInvalidArgument, "type, operation, root or stream");
    const size_t bytes = r.count * size_of(r.type), size = (size_t)r.comm->size;
    const size_t to_bytes = bytes * (r.is == op::all_gather ? size : 1);
    const bool is_root = r.comm->rank == r.root;
    if (r.is != op::receive && (r.is != op::broadcast || is_root))
        require_device(r.from, bytes * (r.is == op::reduce_scatter ? size : 1), what);
    if (r.is != op::send && (r.is != op::reduce || is_root)) require_device(r.to, to_bytes, what);
    if (group_depth > 0) {
        group.push_back(r);
        return ncclSuccess;
    }
    if (r.is == op::send || r.is == op::receive)
        enqueue(r.stream, what, [=]() {
            check_thread(*r.comm, what);
            run_messages({r});
        });
    else
        enqueue(r.stream, what, [=]() {
            check_thread(*r.comm, what);
            run(r);
        });
    return answer(r.comm);
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
    if (version == nullptr) return ncclInvalidArgument;
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    entry e("ncclGetUniqueId");
    if (id == nullptr) return ncclInvalidArgument;
    if (e.is_failing()) return ncclSystemError;
    static unsigned n_ids;
    memset(id->internal, 0, sizeof id->internal);
    snprintf(id->internal, sizeof id->internal, "emulated %ld %u", (long)getpid(), ++n_ids);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    entry e("ncclCommInitRank");
    if (comm == nullptr || n_ranks < 1 || rank < 0 || rank >= n_ranks) return ncclInvalidArgument;
    if (config != nullptr && (config->magic != 0xcafebeef || config->size < sizeof *config))
        return ncclInvalidArgument;
    if (e.is_failing()) return ncclSystemError;
    int is_initialized = 0;
    MPI_Initialized(&is_initialized);
    if (n_ranks > 1 || is_initialized) {
        if (!is_initialized) return ncclSystemError;
        if (world == MPI_COMM_NULL) PMPI_Comm_dup(MPI_COMM_WORLD, &world);
        int world_size = 0, world_rank = 0;
        MPI_Comm_size(world, &world_size);
        MPI_Comm_rank(world, &world_rank);
        if (world_size != n_ranks || world_rank != rank)
            fail(
                "ncclCommInitRank: rank %d of %d; the emulation knows only MPI_COMM_WORLD's ranks, "
                "and this is %d of %d",
                rank, n_ranks, world_rank, world_size);
    }
    auto made = new ncclComm();
    made->size = n_ranks, made->rank = rank, made->mpi = world;
    made->is_blocking = config == nullptr || config->blocking != 0;
    std::vector<ncclUniqueId> all((size_t)n_ranks);
    gather(&id, sizeof id, all.data(), *made, "ncclCommInitRank");
    for (int i = 0; i < n_ranks; ++i)
        if (memcmp(&all[(size_t)i], &id, sizeof id) != 0 || id.internal[0] == 0)
            fail("ncclCommInitRank: ranks %d and %d have different ids", rank, i);
    comms.insert(made);
    *comm = made;
    return answer(made);
}
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int n_ranks, ncclUniqueId id, int rank) {
    return ncclCommInitRankConfig(comm, n_ranks, id, rank, nullptr);
}

/// Collective over the ranks of `comm`; NCCL_SPLIT_NOCOLOR takes part and gets none.
ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *part,
                           ncclConfig_t *config) {
    entry e("ncclCommSplit");
    if (comms.count(comm) == 0 || part == nullptr || color < NCCL_SPLIT_NOCOLOR)
        return ncclInvalidArgument;
    if (comm->is_in_progress)
        return refuse(comm, ncclInvalidUsage, "the request before is in progress");
    if (e.is_failing()) return refuse(comm, ncclSystemError, "as HIRL_EMU_FAIL asks");
    auto made = new ncclComm();
    made->size = 1, made->rank = 0, made->mpi = MPI_COMM_NULL;
    if (comm->mpi != MPI_COMM_NULL) {
        PMPI_Comm_split(comm->mpi, color == NCCL_SPLIT_NOCOLOR ? MPI_UNDEFINED : color, key,
                        &made->mpi);
        if (made->mpi != MPI_COMM_NULL) {
            MPI_Comm_size(made->mpi, &made->size);
            MPI_Comm_rank(made->mpi, &made->rank);
        }
    }
    if (color == NCCL_SPLIT_NOCOLOR) {
        delete made;
        *part = nullptr;
        return answer(comm);
    }
    // The parent's settings, unless others are given.
    made->is_blocking = config == nullptr || config->blocking == NCCL_CONFIG_UNDEF_INT
                            ? comm->is_blocking
                            : config->blocking != 0;
    made->is_in_progress = !made->is_blocking;
    comms.insert(made);
    *part = made;
    return answer(comm);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    entry e("ncclCommFinalize");
    return comms.count(comm) == 0 ? ncclInvalidArgument : answer(comm);
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    entry e("ncclCommDestroy");
    if (comm == nullptr) return ncclSuccess;
    if (comms.erase(comm) == 0) return ncclInvalidArgument;
    // Work that was asked for still runs: its requests refer to the communicator.
    cudaDeviceSynchronize();
    delete comm;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
    entry e("ncclCommAbort");
    if (comm == nullptr) return ncclSuccess;
    if (comms.erase(comm) == 0) return ncclInvalidArgument;
    // Not freed: work that nobody waits for any more may still lie in a stream.
    static std::vector<ncclComm_t> aborted;
    aborted.push_back(comm);
    return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *async_error) {
    entry e("ncclCommGetAsyncError");
    if (comms.count(comm) == 0 || async_error == nullptr) return ncclInvalidArgument;
    *async_error = e.is_failing()         ? ncclRemoteError
                   : comm->is_in_progress ? ncclInProgress
                                          : ncclSuccess;
    comm->is_in_progress = false;
    return ncclSuccess;
}
ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    entry e("ncclCommCount");
    if (comms.count(comm) == 0) return ncclInvalidArgument;
    *count = comm->size;
    return ncclSuccess;
}
ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
    entry e("ncclCommCuDevice");
    if (comms.count(comm) == 0) return ncclInvalidArgument;
    *device = 0;
    return ncclSuccess;
}
ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    entry e("ncclCommUserRank");
    if (comms.count(comm) == 0) return ncclInvalidArgument;
    *rank = comm->rank;
    return ncclSuccess;
}
const char *ncclGetErrorString(ncclResult_t result) {
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return (unsigned)result < ncclNumResults ? texts[result] : "unknown result code";
}
const char *ncclGetLastError(ncclComm_t comm) {
    return comm != nullptr && comms.count(comm) != 0 ? comm->text : "";
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream) {
    entry e("ncclAllReduce");
    return ask({op::all_reduce, from, to, count, type, reduction, 0, comm, stream}, e.is_failing());
}
ncclResult_t ncclReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                        ncclRedOp_t reduction, int root, ncclComm_t comm, cudaStream_t stream) {
    entry e("ncclReduce");
    return ask({op::reduce, from, to, count, type, reduction, root, comm, stream}, e.is_failing());
}
ncclResult_t ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type,
                               ncclRedOp_t reduction, ncclComm_t comm, cudaStream_t stream) {
    entry e("ncclReduceScatter");
    return ask({op::reduce_scatter, from, to, count, type, reduction, 0, comm, stream},
               e.is_failing());
}
ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
    entry e("ncclAllGather");
    return ask({op::all_gather, from, to, count, type, ncclSum, 0, comm, stream}, e.is_failing());
}
ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    entry e("ncclBroadcast");
    return ask({op::broadcast, from, to, count, type, ncclSum, root, comm, stream}, e.is_failing());
}
ncclResult_t ncclBcast(void *data, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
    return ncclBroadcast(data, data, count, type, root, comm, stream);
}
ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
    entry e("ncclSend");
    return ask({op::send, from, nullptr, count, type, ncclSum, peer, comm, stream}, e.is_failing());
}
ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    entry e("ncclRecv");
    return ask({op::receive, nullptr, to, count, type, ncclSum, peer, comm, stream},
               e.is_failing());
}

ncclResult_t ncclGroupStart(void) {
    entry e("ncclGroupStart");
    ++group_depth;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd(void) {
    entry e("ncclGroupEnd");
    if (group_depth == 0) return ncclInvalidUsage;
    if (--group_depth > 0) return ncclSuccess;
    const std::vector<request> asked = std::move(group);
    group.clear();
    if (asked.empty()) return ncclSuccess;
    std::vector<request> messages;
    for (const request &r : asked)
        if (r.is == op::send || r.is == op::receive)
            messages.push_back(r);
        else
            enqueue(r.stream, op_text[(int)r.is], [=]() {
                check_thread(*r.comm, op_text[(int)r.is]);
                run(r);
            });
    if (!messages.empty())
        enqueue(messages.front().stream, "ncclSend and ncclRecv", [=]() {
            check_thread(*messages.front().comm, "ncclSend and ncclRecv");
            run_messages(messages);
        });
    return answer(asked.front().comm);
}

// ---------------------------------------------------------------------------------------------- MPI, as the program calls it

#define HIRL_EMU_MPI(name, types, names) \
    int MPI_##name types {               \
        run_before_mpi();                \
        return PMPI_##name names;        \
    }
HIRL_EMU_MPI(Allreduce, (const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c),
             (in, out, n, t, op, c))
HIRL_EMU_MPI(Allgather,
             (const void *in, int n, MPI_Datatype t, void *out, int m, MPI_Datatype u, MPI_Comm c),
             (in, n, t, out, m, u, c))
HIRL_EMU_MPI(Allgatherv,
             (const void *in, int n, MPI_Datatype t, void *out, const int m[], const int at[],
              MPI_Datatype u, MPI_Comm c),
             (in, n, t, out, m, at, u, c))
HIRL_EMU_MPI(Gather,
             (const void *in, int n, MPI_Datatype t, void *out, int m, MPI_Datatype u, int root,
              MPI_Comm c),
             (in, n, t, out, m, u, root, c))
HIRL_EMU_MPI(Alltoall,
             (const void *in, int n, MPI_Datatype t, void *out, int m, MPI_Datatype u, MPI_Comm c),
             (in, n, t, out, m, u, c))
HIRL_EMU_MPI(Bcast, (void *data, int n, MPI_Datatype t, int root, MPI_Comm c),
             (data, n, t, root, c))
HIRL_EMU_MPI(Barrier, (MPI_Comm c), (c))
HIRL_EMU_MPI(Ibarrier, (MPI_Comm c, MPI_Request *request), (c, request))
HIRL_EMU_MPI(Irecv,
             (void *data, int n, MPI_Datatype t, int from, int tag, MPI_Comm c,
              MPI_Request *request),
             (data, n, t, from, tag, c, request))

} // extern "C"
