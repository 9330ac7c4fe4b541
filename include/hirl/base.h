/// @file base.h
/// Status and error text, logging, counted memory, counter-based random numbers, time
/// and small string helpers. Needs only libc (and Random123's headers in the implementation).
/// Everything here is "not collective". The only mutable globals of the program live behind this
/// header: log level and sink, last error per thread, memory counters.
#ifndef HIRL_BASE_H
#define HIRL_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define HIRL_RESTRICT __restrict__
#define HIRL_PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define HIRL_RESTRICT
#define HIRL_PRINTF_LIKE(fmt, args)
#endif

/// Marks in prototypes: who owns a pointer after the call.
#define HIRL_COPY   // callee copies what the pointer names
#define HIRL_BORROW // callee keeps the pointer; the caller must keep it alive
#define HIRL_OWN    // ownership moves to the callee

// ------------------------------------------------------------------------------------ status

/// Every status code with its text; one list makes the enum and the texts.
#define HIRL_STATUS_LIST(X)                       \
    X(OK, "success")                              \
    X(ERR_ARG, "invalid argument")                \
    X(ERR_DECK, "invalid deck")                   \
    X(ERR_IO, "input/output error")               \
    X(ERR_FORMAT, "invalid file content")         \
    X(ERR_MISMATCH, "file does not fit this run") \
    X(ERR_MEMORY, "out of memory")                \
    X(ERR_MPI, "MPI error")                       \
    X(ERR_HDF5, "HDF5 error")                     \
    X(ERR_DNNL, "oneDNN error")                   \
    X(ERR_FAISS, "FAISS error")                   \
    X(ERR_CUDA, "CUDA error")                     \
    X(ERR_NUMERIC, "numerical failure")           \
    X(ERR_UNSUPPORTED, "not supported")           \
    X(ERR_INTERRUPTED, "interrupted")             \
    X(ERR_INTERNAL, "internal error")

typedef enum hirl_status {
#define HIRL_STATUS_ENUM(name, text) HIRL_##name,
    HIRL_STATUS_LIST(HIRL_STATUS_ENUM)
#undef HIRL_STATUS_ENUM
        HIRL_STATUS_COUNT
} hirl_status_t;

/// Text of a status code, e.g. "invalid deck". Never NULL.
const char *hirl_status_text(hirl_status_t status);

/// Records the cause of a failure for this thread (file, line, function, formatted text) and
/// returns `status`.
hirl_status_t hirl_error_record(hirl_status_t status, const char *file, int line, const char *func,
                                const char *fmt, ...) HIRL_PRINTF_LIKE(5, 6);

/// The text of the last recorded failure of this thread; "" if none. Valid until the next failure
/// of this thread.
const char *hirl_error_text_view(void);

/// "src/deck/reader.c:120 hirl_deck_read" of the last failure of this thread; "" if none.
const char *hirl_error_place_view(void);

/// Status of the last recorded failure of this thread.
hirl_status_t hirl_error_status(void);

/// Forgets this thread's last failure.
void hirl_error_reset(void);

#define HIRL_FAIL(code, ...) hirl_error_record((code), __FILE__, __LINE__, __func__, __VA_ARGS__)

/// Passes a failure on to the caller.
#define HIRL_TRY(expr)                                            \
    do {                                                          \
        hirl_status_t hirl_try_status_ = (expr);                  \
        if (hirl_try_status_ != HIRL_OK) return hirl_try_status_; \
    } while (0)

/// Passes a failure on through a label that undoes; `status` is the variable that label returns.
#define HIRL_TRY_GOTO(expr, status, label)   \
    do {                                     \
        (status) = (expr);                   \
        if ((status) != HIRL_OK) goto label; \
    } while (0)

/// For callers' arguments and decks; always on.
#define HIRL_REQUIRE(cond, code, ...)                       \
    do {                                                    \
        if (!(cond)) return HIRL_FAIL((code), __VA_ARGS__); \
    } while (0)

/// For our own logic; debug builds only; `cond` must have no side effect.
#ifdef HIRL_DEBUG
#define HIRL_ASSERT(cond)                                                     \
    do {                                                                      \
        if (!(cond)) hirl_assert_failed(__FILE__, __LINE__, __func__, #cond); \
    } while (0)
#else
#define HIRL_ASSERT(cond) ((void)0)
#endif
void hirl_assert_failed(const char *file, int line, const char *func, const char *cond);

// ------------------------------------------------------------------------------------ log

typedef enum hirl_log_level {
    HIRL_LOG_ERROR,
    HIRL_LOG_WARN,
    HIRL_LOG_INFO,
    HIRL_LOG_DEBUG,
    HIRL_LOG_TRACE
} hirl_log_level_t;

/// Sets level and this process's rank (used to drop root-only lines and to prefix the others). Rank
/// 0 until called.
void hirl_log_setup(hirl_log_level_t level, int rank);

/// Also appends every line to `path` (opened for append); NULL closes the file. Errors:
/// HIRL_ERR_IO.
hirl_status_t hirl_log_open_file(const char *path);

/// One line on stderr (and in the log file) from any rank, prefixed with its level and rank.
void hirl_log_rank(hirl_log_level_t level, const char *fmt, ...) HIRL_PRINTF_LIKE(2, 3);

/// One line from rank 0 only; a no-op elsewhere. Payload as `key = value` where it is data. INFO
/// has no prefix.
void hirl_log_root(hirl_log_level_t level, const char *fmt, ...) HIRL_PRINTF_LIKE(2, 3);

/// A progress text that overwrites itself on a terminal (rank 0 only; nothing when stderr is not a
/// terminal). The next log line clears it. NULL or "" ends it.
void hirl_log_progress(const char *text);

/// True if rank 0's stderr is a terminal.
bool hirl_log_is_terminal(void);

// ------------------------------------------------------------------------------------ memory

/// What an allocation is for; each kind is counted.
typedef enum hirl_mem_kind {
    HIRL_MEM_GENERAL,
    HIRL_MEM_PARAM, // parameters, gradients, optimiser state
    HIRL_MEM_ACTIVATION,
    HIRL_MEM_WORKSPACE,
    HIRL_MEM_DATA,
    HIRL_MEM_CLUSTER,
    HIRL_MEM_KIND_COUNT
} hirl_mem_kind_t;

/// Allocates `bytes` (0 allowed), 64-byte aligned, not cleared. Errors: HIRL_ERR_MEMORY (what was
/// asked and held by kind).
hirl_status_t hirl_mem_alloc(hirl_mem_kind_t kind, size_t bytes, void **ptr_p);

/// Same, cleared to zero; checks n * size for overflow.
hirl_status_t hirl_mem_calloc(hirl_mem_kind_t kind, size_t n, size_t size, void **ptr_p);

/// Grows or shrinks *ptr_p (NULL allowed), keeping the content.
hirl_status_t hirl_mem_realloc(hirl_mem_kind_t kind, size_t bytes, void **ptr_p);

/// Frees what hirl_mem_* gave; NULL allowed.
void hirl_mem_free(void *ptr);

/// Bytes now held and the peak since start (or the last hirl_mem_reset_peak) of one kind;
/// HIRL_MEM_KIND_COUNT means all kinds.
size_t hirl_mem_held(hirl_mem_kind_t kind);
size_t hirl_mem_peak(hirl_mem_kind_t kind);
void hirl_mem_reset_peak(void);

/// Logs an error for every kind whose balance is not zero; returns the total bytes still held.
size_t hirl_mem_check_balance(void);

/// Allocate an array of `n` items and store it in `*(ptr_p)`.
#define HIRL_ALLOC(kind, n, ptr_p) \
    hirl_mem_calloc((kind), (size_t)(n), sizeof(**(ptr_p)), (void **)(ptr_p))

// -------------------------------------------------------------------------------- heartbeat

/// Where this process is, for a watchdog in another thread. The main thread alone writes; texts are static.
typedef struct hirl_beat {
    int64_t step;      // optimiser steps done
    const char *phase; // "training", "clustering", ...
    const char *call;  // what it waits for others in; NULL: it computes
    double seconds;    // for how long it has done so
} hirl_beat_t;
void hirl_beat_step(int64_t step);
void hirl_beat_phase(const char *phase);
/// Around whatever may wait for other ranks; pairs nest, and the outermost counts.
void hirl_beat_enter(const char *call);
void hirl_beat_leave(void);
/// From any thread.
hirl_beat_t hirl_beat_read(void);

// -------------------------------------------------------------------------------- locks

/// Takes the lock of the file `path` (made if it is not there) for this process, and writes host and pid into it for others to
/// read. The kernel gives it back when the process ends, however it does. A file system without locks gives a warning
/// and *fd_p = -1. Errors: HIRL_ERR_IO, naming who holds it.
hirl_status_t hirl_lock_take(const char *path, int *fd_p);
void hirl_lock_release(int *fd);

// -------------------------------------------------------------------------------- mapped files

/// From here on a page of [start, start + size), the mapping of a file, that cannot be read (the file was cut short, its disk
/// failed) reads as zeros and is counted, instead of ending the process by SIGBUS. Until hirl_map_unguard, which comes before munmap.
/// Errors: HIRL_ERR_MEMORY, HIRL_ERR_INTERNAL (the signal cannot be caught).
hirl_status_t hirl_map_guard(const void *start, size_t size);
void hirl_map_unguard(const void *start);
/// Pages that could not be read so far, in all mappings.
int64_t hirl_map_faults(void);

// -------------------------------------------------------------------------------- fault points

/// True at the n-th call with this name if the environment variable HIRL_FAULT holds "name:n" (several: separated by commas; n from
/// 1). For tests of what the program survives; without the variable nothing is looked up.
bool hirl_fault(const char *name);
/// Ends the process as SIGKILL does at such a call.
void hirl_fault_kill(const char *name);
/// Never returns from such a call.
void hirl_fault_hang(const char *name);

// -------------------------------------------------------------------------------- random numbers

/// What a random number is for; streams of different purposes never overlap. Values are part of the
/// answers: append only.
typedef enum hirl_rng_purpose {
    HIRL_RNG_INIT = 1,    // parameter initialisation
    HIRL_RNG_ORDER = 2,   // sample order
    HIRL_RNG_AUGMENT = 3, // view augmentation
    HIRL_RNG_SHUFFLE = 4, // shuffle-BN permutation
    HIRL_RNG_QUEUE = 5,   // initial queue
    HIRL_RNG_PATH = 6,    // negative paths
    HIRL_RNG_CLUSTER = 7, // clustering
    HIRL_RNG_SPLIT = 8,   // data splits
    HIRL_RNG_DROPOUT = 9, // dropout and drop path
    HIRL_RNG_MASK = 10,   // masks over patches
    HIRL_RNG_MIX = 11,    // mixup and cutmix
    HIRL_RNG_CLIP = 12,   // where a clip begins
    HIRL_RNG_TEST = 100
} hirl_rng_purpose_t;

/// A sequential stream of random numbers that is a pure function of its key (Philox 4x32-10, Salmon
/// et al. 2011). A plain value: copy and discard freely.
typedef struct hirl_rng {
    uint32_t key[2];
    uint32_t counter[4];
    uint32_t out[4];
    int n_left;
} hirl_rng_t;

/// Stream for (seed, purpose, epoch or step, global sample index or other id, view or level).
hirl_rng_t hirl_rng_make(uint64_t seed, hirl_rng_purpose_t purpose, uint64_t epoch, uint64_t index,
                         uint32_t view);

/// The part of the stream from block part * 2^32 on, whatever was drawn from `rng` so far; part 0 is its beginning. As good as a
/// fresh stream, and independent of the other parts.
hirl_rng_t hirl_rng_part(const hirl_rng_t *rng, uint32_t part);

uint32_t hirl_rng_u32(hirl_rng_t *rng);
uint64_t hirl_rng_u64(hirl_rng_t *rng);
double hirl_rng_uniform(hirl_rng_t *rng);                        // [0, 1), 53 bits
double hirl_rng_range(hirl_rng_t *rng, double low, double high); // [low, high)
int64_t hirl_rng_below(hirl_rng_t *rng, int64_t n);              // unbiased 0..n-1
double hirl_rng_normal(hirl_rng_t *rng);                         // N(0, 1), Box-Muller

/// x[i] = number first + i of hirl_rng_u32 on a fresh stream, i = 0..n-1. `rng` must be fresh from hirl_rng_make; 0 <= first,
/// first + n <= 2^34.
void hirl_rng_words(const hirl_rng_t *rng, int64_t first, int64_t n, uint32_t *x);

/// x[i] = scale * (normal number first + i of the stream), i = 0..n-1: the numbers of hirl_rng_normal on
/// a fresh stream up to the last bits of a double; the same bits on all machines and devices (hirl/base_exact.h), at any split
/// of a range into calls. `rng` must be fresh from hirl_rng_make; first + n < 2^32.
void hirl_rng_normals(const hirl_rng_t *rng, int64_t first, int64_t n, double scale, float *x);

/// Keyed permutation of 0..n-1 in O(1) memory: a cycle-walking Feistel network. A plain value.
typedef struct hirl_permutation {
    uint64_t n;
    uint64_t key[2];
    int half_bits;
} hirl_permutation_t;

hirl_permutation_t hirl_permutation_make(uint64_t seed, hirl_rng_purpose_t purpose, uint64_t epoch,
                                         int64_t n);
/// Image of position `i` (0 <= i < n).
int64_t hirl_permutation_at(const hirl_permutation_t *permutation, int64_t i);

// ------------------------------------------------------------------------------------ time, text

/// Monotonic seconds.
double hirl_time_now(void);

/// snprintf into a fixed buffer that reports truncation as HIRL_ERR_ARG.
hirl_status_t hirl_text_format(char *buf, size_t size, const char *fmt, ...) HIRL_PRINTF_LIKE(3, 4);

/// A growing text; init with {0}; data is NUL-terminated (or NULL when empty).
typedef struct hirl_text {
    char *data;
    size_t size;     // bytes used, without the NUL
    size_t capacity; // bytes allocated
} hirl_text_t;
hirl_status_t hirl_text_append(hirl_text_t *text, const char *fmt, ...) HIRL_PRINTF_LIKE(2, 3);
void hirl_text_reset(hirl_text_t *text);
/// Appends a text of anyone's as text of an HTML page: markup is escaped; what is neither UTF-8 nor printable becomes U+FFFD.
hirl_status_t hirl_text_append_html(hirl_text_t *text, const char *any);

/// Index of the candidate nearest to `name` by edit distance (case-insensitive), -1 if none is
/// within a third of its length (at least 2).
int hirl_text_nearest(const char *name, const char *const *candidates, int n_candidates);

/// Human-readable size, e.g. "1.50 GiB"; returns buf.
char *hirl_text_bytes(char buf[32], double bytes);
/// Human-readable duration, e.g. "1:02:03"; returns buf.
char *hirl_text_duration(char buf[32], double seconds);

/// mkdir -p. Errors: HIRL_ERR_IO.
hirl_status_t hirl_path_make_folder(const char *path);

/// Writes `size` bytes to `path` by way of a temporary name, fsync and rename, so that the file is
/// whole or absent.
hirl_status_t hirl_path_write_whole(const char *path, const void *data, size_t size);

/// Reads bytes [pos, pos + size) of an open file. `name` opens the text of an error; NULL: the caller adds it. Errors: HIRL_ERR_IO, also
/// where the file ends before them.
hirl_status_t hirl_file_read_at(int fd, const char *name, int64_t pos, void *out, size_t size);

/// XXH64 of a byte range (as stored in shards and checkpoints).
uint64_t hirl_hash64(const void *data, size_t size);

/// Version, build type, flags and library versions as `key = value` lines (generated at build
/// time).
const char *hirl_build_info_text(void);

// ------------------------------------------------------------------------------------ signals

/// What a signal means for the work at hand.
typedef enum hirl_signal_use {
    HIRL_SIGNAL_ASKS,   // who does it looks at hirl_signal_caught where it can end well
    HIRL_SIGNAL_CANCELS // it is given up wherever somebody looks at hirl_signal_cancels
} hirl_signal_use_t;
/// Begins to catch SIGTERM, SIGUSR1 and SIGINT, which ask for an orderly end; a second SIGINT ends the
/// program as usual. The handler only sets a flag. Errors: HIRL_ERR_INTERNAL.
hirl_status_t hirl_signal_begin(hirl_signal_use_t use);
/// Gives the signals back to who had them.
void hirl_signal_end(void);
/// The signal caught since begin, 0 if none.
int hirl_signal_caught(void);
/// True if the work was begun with HIRL_SIGNAL_CANCELS; the same on all ranks.
bool hirl_signal_can_cancel(void);
/// The same signal if it cancels, else 0. From any thread.
int hirl_signal_cancels(void);

#ifdef __cplusplus
}
#endif
#endif
