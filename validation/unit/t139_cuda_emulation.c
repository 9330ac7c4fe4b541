// The emulated device itself: what it must catch is broken on purpose in child processes, which have to abort with the right message; what it
// promises (order of work, rounding, shuffles, libraries) is compared with plain definitions.
// test: backends=cuda timeout=120
#include <cuda_runtime_api.h>

#include "test.h"

#ifndef HIRL_CUDA_EMULATED

TEST_MAIN { SKIP("this build has no emulated device"); }

#else

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cublasLt.h>
#include <cudnn.h>

#include "cuda_emu/emu_test_kernels.h"

#define NEED_CUDA(call) NEED_CUDA_(call, #call)
#define NEED_CUDA_(call, text)                                                         \
    do {                                                                               \
        const cudaError_t code_ = (call);                                              \
        if (!CHECK_MSG(code_ == cudaSuccess, "%s: %s", text, cudaGetErrorName(code_))) \
            test_give_up();                                                            \
    } while (0)
#define CHECK_CUDA(call, want)                                                                  \
    do {                                                                                        \
        const cudaError_t got_ = (call);                                                        \
        CHECK_MSG(got_ == (want), "%s gave %s, want %s", #call, cudaGetErrorName(got_), #want); \
    } while (0)

// ---------------------------------------------------------------------------------------------- children

typedef void (*test_fn)(void);

/// Runs a function in a child, with NAME=VALUE set (or NULL). Returns how it ended; `text` gets the start of what it wrote to stderr.
static int run_child(test_fn function, const char *setting, char *text, size_t size) {
    int ends[2];
    text[0] = 0;
    fflush(stdout);
    if (pipe(ends) != 0) return -1;
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], 2);
        close(ends[0]);
        if (setting) {
            char name[64];
            const char *equals = strchr(setting, '=');
            snprintf(name, sizeof name, "%.*s", (int)(equals - setting), setting);
            setenv(name, equals + 1, 1);
        }
        const long before = test_.n_failed;
        function();
        fflush(stdout);
        _exit(test_.n_failed > before ? TEST_EXIT_FAIL : TEST_EXIT_PASS);
    }
    close(ends[1]);
    size_t n = 0;
    for (ssize_t got; n + 1 < size && (got = read(ends[0], text + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    text[n] = 0;
    close(ends[0]);
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

/// The function must end in an abort with both texts on stderr (the second may be NULL).
static void check_abort(test_fn function, const char *name, const char *setting, const char *part,
                        const char *more) {
    char text[4096];
    const int status = run_child(function, setting, text, sizeof text);
    CHECK_MSG(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT,
              "%s should have aborted (status %d): %s", name, status, text);
    CHECK_MSG(strstr(text, "emulated device: ") && strstr(text, part) &&
                  (!more || strstr(text, more)),
              "%s: want '%s'%s%s%s, got: %s", name, part, more ? " and '" : "", more ? more : "",
              more ? "'" : "", text);
}
#define CHECK_ABORT(function, part, more) check_abort(function, #function, NULL, part, more)
#define CHECK_ABORT_WITH(setting, function, part, more) \
    check_abort(function, #function, setting, part, more)

#ifdef __SANITIZE_ADDRESS__
#define CHECK_SANITIZED(function)                                           \
    do {                                                                    \
        char text_[4096];                                                   \
        const int status_ = run_child(function, NULL, text_, sizeof text_); \
        CHECK_MSG(status_ != 0 && strstr(text_, "use-after-poison") &&      \
                      strstr(text_, "in store_one"),                        \
                  "%s: status %d: %s", #function, status_, text_);          \
    } while (0)
#endif

/// The function's checks must hold in a child with this setting.
#define CHECK_CHILD(setting, function)                                                          \
    do {                                                                                        \
        char text_[4096];                                                                       \
        const int status_ = run_child(function, setting, text_, sizeof text_);                  \
        CHECK_MSG(WIFEXITED(status_) && WEXITSTATUS(status_) == 0, "%s with %s: status %d: %s", \
                  #function, (setting) ? (setting) : "nothing", status_, text_);                \
    } while (0)

static void *device(size_t bytes) {
    void *data = NULL;
    NEED_CUDA(cudaMalloc(&data, bytes));
    return data;
}
static void *upload(const void *from, size_t bytes) {
    void *data = device(bytes);
    NEED_CUDA(cudaMemcpy(data, from, bytes, cudaMemcpyHostToDevice));
    return data;
}
static void download(void *to, const void *from, size_t bytes) {
    NEED_CUDA(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost));
}
static void wait_all(void) { NEED_CUDA(cudaDeviceSynchronize()); }

// ---------------------------------------------------------------------------------------------- broken rules: kernels

static void bad_barrier_end(void) { emu_bad_barrier_end(NULL), wait_all(); }
static void bad_barrier_line(void) { emu_bad_barrier_line(NULL), wait_all(); }
static void bad_shuffle_ended(void) { emu_bad_shuffle_ended(NULL), wait_all(); }
static void bad_shuffle_barrier(void) { emu_bad_shuffle_barrier(NULL), wait_all(); }
static void bad_shuffle_caller(void) { emu_bad_shuffle_caller(NULL), wait_all(); }
static void bad_shuffle_partial(void) { emu_bad_shuffle_partial(NULL), wait_all(); }
static void bad_shuffle_source(void) { emu_bad_shuffle_source(NULL), wait_all(); }
static void bad_shuffle_mixed(void) { emu_bad_shuffle_mixed(NULL), wait_all(); }
static void bad_shuffle_width(void) { emu_bad_shuffle_width(NULL), wait_all(); }
static void bad_product_lane(void) { emu_bad_product_lane(NULL), wait_all(); }
static void bad_product_place(void) { emu_bad_product_place(NULL), wait_all(); }
static void bad_threads(void) { emu_launch_sizes(NULL, (dim3){1, 1, 1}, (dim3){1025, 1, 1}); }
static void bad_threads_product(void) {
    emu_launch_sizes(NULL, (dim3){1, 1, 1}, (dim3){32, 33, 1});
}
static void bad_no_threads(void) { emu_launch_sizes(NULL, (dim3){1, 1, 1}, (dim3){32, 0, 1}); }
static void bad_grid(void) { emu_launch_sizes(NULL, (dim3){0, 1, 1}, (dim3){32, 1, 1}); }
static void bad_grid_y(void) { emu_launch_sizes(NULL, (dim3){1, 65536, 1}, (dim3){32, 1, 1}); }
static void bad_shared(void) { emu_shared(NULL, 49153, 0, device(1)); }
static void bad_static_shared(void) { emu_bad_static_shared(NULL); }
static void bad_shared_attribute(void) {
    NEED_CUDA(emu_allow_shared(65536));
    emu_shared(NULL, 65536, 0, device(1)); // as allowed
    emu_shared(NULL, 65537, 0, device(1));
}
static void bad_shared_overflow(void) {
    emu_shared(NULL, 1000, 1008, device(1)); // 1000 round up to 1008
    wait_all();
}
static void bad_stack(void) {
    int *y = device(2 * sizeof(int));
    emu_recurse(NULL, 1000000, y);
    wait_all();
}

static void test_kernel_rules(void) {
    CHECK_ABORT(bad_barrier_end, "63 threads wait at __syncthreads, but 1 threads have ended",
                "in kernel barrier_end");
    CHECK_ABORT(bad_barrier_line, "divergent __syncthreads", "block (0,0,0), thread (0,0,0)");
    CHECK_ABORT(bad_shuffle_ended, "__shfl_xor_sync with mask 0xffffffff names lane 9",
                "thread (9,0,0) has ended");
    CHECK_ABORT(bad_shuffle_barrier, "names lane 9", "waits at __syncthreads");
    CHECK_ABORT(bad_shuffle_caller, "leaves out the calling lane 0", "in kernel shuffle_caller");
    CHECK_ABORT(bad_shuffle_partial, "names lanes that do not exist: this warp has 8 threads",
                NULL);
    CHECK_ABORT(bad_shuffle_source, "reads lane 16, which is not in its mask", NULL);
    CHECK_ABORT(bad_shuffle_mixed, "waits at __ballot_sync", "__shfl_xor_sync");
    CHECK_ABORT(bad_shuffle_width, "a shuffle of width 12", NULL);
    CHECK_ABORT(bad_product_lane, "names lane 9", "in kernel product_lane");
    CHECK_ABORT(bad_product_place, "load_matrix_sync at", "want multiples of 32 and of 16 bytes");
    CHECK_ABORT(bad_threads, "a block of (1025,1,1) threads", "kernel nothing");
    CHECK_ABORT(bad_threads_product, "a block of (32,33,1) threads", NULL);
    CHECK_ABORT(bad_no_threads, "a block of (32,0,1) threads", NULL);
    CHECK_ABORT(bad_grid, "a grid of (0,1,1) blocks", NULL);
    CHECK_ABORT(bad_grid_y, "a grid of (1,65536,1) blocks", NULL);
    CHECK_ABORT(bad_shared, "49153 bytes of dynamic shared memory; 49152 are allowed", NULL);
#ifndef __SANITIZE_ADDRESS__
    CHECK_ABORT(bad_static_shared, "49153 bytes of static shared memory", "too_much_shared");
#else
    (void)bad_static_shared;
#endif
    CHECK_ABORT(bad_shared_attribute, "65537 bytes of dynamic shared memory; 65536 are allowed",
                NULL);
    CHECK_ABORT(bad_shared_overflow, "touched byte 1008 of 1000 bytes of dynamic shared memory",
                "in kernel shared");
    CHECK_ABORT(bad_stack, "overflowed its stack", "thread (0,0,0)");
}

// ---------------------------------------------------------------------------------------------- broken rules: memory

static void bad_host_argument(void) {
    int on_stack[4];
    emu_fill(NULL, on_stack, 4, 1);
}
static void bad_freed_argument(void) {
    int *y = device(400);
    NEED_CUDA(cudaFree(y));
    emu_fill(NULL, y, 4, 1);
}
static void bad_far_write(void) {
    char *y = device(1000);
    emu_store(NULL, (size_t)(y + 5000), 1);
    wait_all();
}
static void bad_near_write(void) {
    char *y = device(1000);
    emu_store(NULL, (size_t)(y + 1002), 1);
    NEED_CUDA(cudaFree(y));
}
static void bad_near_write_paranoid(void) {
    char *y = device(1000);
    emu_store(NULL, (size_t)(y + 1002), 1);
    emu_fill(NULL, (int *)y, 4, 1);
    wait_all();
}
static void bad_write_before(void) {
    char *y = device(1000);
    emu_store(NULL, (size_t)(y - 3), 1);
    NEED_CUDA(cudaFree(y));
}
static void bad_late_write(void) {
    char *y = device(1000);
    NEED_CUDA(cudaFree(y));
    emu_store(NULL, (size_t)y, 1);
    wait_all();
}
static volatile int sink;
static void bad_host_read(void) {
    const int *y = device(1000);
    sink = y[5];
}
static void bad_host_write(void) {
    int *y = device(1000);
    emu_fill(NULL, y, 4, 1);
    wait_all(); // device memory was open meanwhile
    y[5] = 1;
}
static void bad_kind(void) {
    char host[16] = {0};
    (void)cudaMemcpy(device(16), host, 16, cudaMemcpyDeviceToDevice);
}
static void bad_direction(void) {
    char host[16] = {0};
    (void)cudaMemcpyAsync(host, device(16), 16, cudaMemcpyHostToDevice, NULL);
}
static void bad_copy_length(void) {
    char host[32] = {0};
    (void)cudaMemcpy((char *)device(16) + 4, host, 13, cudaMemcpyHostToDevice);
}
static void bad_pinned_length(void) {
    void *host = NULL;
    NEED_CUDA(cudaMallocHost(&host, 16));
    (void)cudaMemcpyAsync(device(32), host, 17, cudaMemcpyHostToDevice, NULL);
}
static void bad_set_length(void) { (void)cudaMemset(device(16), 0, 17); }
static void bad_double_free(void) {
    void *y = device(16);
    NEED_CUDA(cudaFree(y));
    (void)cudaFree(y);
}
static void bad_inner_free(void) { (void)cudaFree((char *)device(16) + 4); }
static void bad_host_free(void) {
    char host[4];
    (void)cudaFree(host);
}
static void bad_free_host(void) { (void)cudaFreeHost(device(16)); }
static void call_back(void *data) {
    (void)data;
    (void)cudaStreamSynchronize(NULL);
}
static void bad_callback(void) {
    NEED_CUDA(cudaLaunchHostFunc(NULL, call_back, NULL));
    wait_all();
}
static void touch(void *data) { *(int *)data = 1; }
static void bad_callback_access(void) {
    NEED_CUDA(cudaLaunchHostFunc(NULL, touch, device(4)));
    wait_all();
}
static void bad_stream(void) {
    cudaStream_t stream = NULL;
    NEED_CUDA(cudaStreamCreate(&stream));
    NEED_CUDA(cudaStreamDestroy(stream));
    emu_launch_sizes(stream, (dim3){1, 1, 1}, (dim3){1, 1, 1});
}

static void test_memory_rules(void) {
    CHECK_ABORT(bad_host_argument, "kernel fill: argument 1", "pageable host memory");
    CHECK_ABORT(bad_freed_argument, "kernel fill: argument 1",
                "into an allocation of 400 bytes that was freed");
    CHECK_ABORT(bad_far_write, "access to device address", "thread (3,0,0)");
#ifdef __SANITIZE_ADDRESS__
    // The sanitizer knows the red zones, and names the line that writes there.
    CHECK_SANITIZED(bad_near_write);
    CHECK_SANITIZED(bad_write_before);
    (void)bad_near_write_paranoid;
#else
    CHECK_ABORT(bad_near_write, "something wrote 2 bytes behind an allocation of 1000 bytes",
                "cudaFree");
    CHECK_ABORT_WITH("HIRL_EMU_PARANOID=1", bad_near_write_paranoid,
                     "something wrote 2 bytes behind", "in store_one");
    CHECK_ABORT(bad_write_before, "something wrote 3 bytes before an allocation of 1000 bytes",
                NULL);
#endif
    CHECK_ABORT(bad_late_write, "0 bytes into an allocation of 1000 bytes that was freed",
                "in kernel store_one");
    for (int i = 0; i < 2; ++i) {
        const char *setting = i == 0 ? "HIRL_EMU_PROTECT=keys" : "HIRL_EMU_PROTECT=pages";
        CHECK_ABORT_WITH(setting, bad_host_read, "host code touched device memory at",
                         "20 bytes into an allocation of 1000 bytes");
        CHECK_ABORT_WITH(setting, bad_host_write, "host code touched device memory at", NULL);
        CHECK_ABORT_WITH(setting, bad_callback_access, "host code touched device memory",
                         "in a host function");
    }
    CHECK_ABORT(bad_kind, "the kind says device to device, the addresses say host to device", NULL);
    CHECK_ABORT(bad_direction, "the kind says host to device, the addresses say device to host",
                NULL);
    CHECK_ABORT(bad_copy_length, "it ends 1 bytes too early", "cudaMemcpy");
    CHECK_ABORT(bad_pinned_length, "17 bytes at", "of which 16 are pinned memory");
    CHECK_ABORT(bad_set_length, "it ends 1 bytes too early", "cudaMemset");
    CHECK_ABORT(bad_double_free, "is not what cudaMalloc gave", "that was freed");
    CHECK_ABORT(bad_inner_free, "is not what cudaMalloc gave", "4 bytes into an allocation");
    CHECK_ABORT(bad_host_free, "is not what cudaMalloc gave", "pageable host memory");
    CHECK_ABORT(bad_free_host, "is not what cudaHostAlloc gave", "device memory");
    CHECK_ABORT(bad_callback, "cudaStreamSynchronize: called by a host function", NULL);
    CHECK_ABORT(bad_stream, "does not exist", "kernel nothing");
}

// ---------------------------------------------------------------------------------------------- settings

static void child_out_of_memory(void) {
    size_t n_free = 0, n_total = 0;
    NEED_CUDA(cudaMemGetInfo(&n_free, &n_total));
    CHECK(n_free == 1000000 && n_total == 1000000);
    void *first = device(600000), *second = NULL;
    CHECK_CUDA(cudaMalloc(&second, 600000), cudaErrorMemoryAllocation);
    CHECK(second == NULL);
    CHECK_CUDA(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
    CHECK_CUDA(cudaGetLastError(), cudaErrorMemoryAllocation);
    CHECK_CUDA(cudaGetLastError(), cudaSuccess);
    NEED_CUDA(cudaMemGetInfo(&n_free, &n_total));
    CHECK_EQ_I(n_free, 1000000 - (600000 + 511) / 512 * 512);
    NEED_CUDA(cudaFree(first));
    second = device(600000);
    NEED_CUDA(cudaFree(second));
    NEED_CUDA(cudaMemGetInfo(&n_free, &n_total));
    CHECK_EQ_I(n_free, 1000000);
}

static void child_no_device(void) {
    int n = 7;
    void *data = NULL;
    CHECK_CUDA(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    CHECK_EQ_I(n, 0);
    CHECK_CUDA(cudaMalloc(&data, 16), cudaErrorNoDevice);
    CHECK_CUDA(cudaSetDevice(0), cudaErrorNoDevice);
}

static void child_two_devices(void) {
    int n = 0, device_index = 7;
    NEED_CUDA(cudaGetDeviceCount(&n));
    CHECK_EQ_I(n, 2);
    CHECK_CUDA(cudaSetDevice(2), cudaErrorInvalidDevice);
    NEED_CUDA(cudaSetDevice(1));
    NEED_CUDA(cudaGetDevice(&device_index));
    CHECK_EQ_I(device_index, 1);
}

static void child_second_malloc_fails(void) {
    void *data[4] = {NULL};
    CHECK_CUDA(cudaMalloc(&data[0], 16), cudaSuccess);
    CHECK_CUDA(cudaMalloc(&data[1], 16), cudaErrorMemoryAllocation);
    CHECK_CUDA(cudaMalloc(&data[2], 16), cudaSuccess);
    CHECK_CUDA(cudaMalloc(&data[3], 16), cudaSuccess);
}
static void child_later_mallocs_fail(void) {
    void *data = NULL;
    CHECK_CUDA(cudaMalloc(&data, 16), cudaSuccess);
    CHECK_CUDA(cudaMalloc(&data, 16), cudaErrorMemoryAllocation);
    CHECK_CUDA(cudaMalloc(&data, 16), cudaErrorMemoryAllocation);
}
static void child_launch_fails(void) {
    int *y = device(16);
    emu_fill(NULL, y, 4, 1);
    CHECK_CUDA(cudaGetLastError(), cudaErrorLaunchOutOfResources);
    emu_fill(NULL, y, 4, 2);
    CHECK_CUDA(cudaGetLastError(), cudaSuccess);
    int host[4] = {0};
    download(host, y, sizeof host);
    CHECK_EQ_I(host[3], 2);
}
/// A fault while a kernel runs shows at the next wait, and nothing works afterwards.
static void child_kernel_fails(void) {
    int *y = device(16), host[4] = {0};
    void *more = NULL;
    emu_fill(NULL, y, 4, 1);
    emu_fill(NULL, y, 4, 2);
    CHECK_CUDA(cudaGetLastError(), cudaSuccess);
    CHECK_CUDA(cudaStreamSynchronize(NULL), cudaErrorIllegalAddress);
    CHECK_CUDA(cudaMalloc(&more, 16), cudaErrorIllegalAddress);
    CHECK_CUDA(cudaMemcpy(host, y, 16, cudaMemcpyDeviceToHost), cudaErrorIllegalAddress);
    CHECK_CUDA(cudaGetLastError(), cudaErrorIllegalAddress);
    CHECK_CUDA(cudaGetLastError(), cudaErrorIllegalAddress);
    CHECK_EQ_I(host[0], 0);
}

/// Without a wait the host sees old data if work is late, new data if it is early.
static int see_without_wait(void) {
    cudaStream_t stream = NULL;
    int *y = device(4 * sizeof(int)), *host = NULL;
    NEED_CUDA(cudaMallocHost((void **)&host, 4 * sizeof(int)));
    NEED_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    host[3] = -7;
    emu_fill(stream, y, 4, 5);
    NEED_CUDA(cudaMemcpyAsync(host, y, 4 * sizeof(int), cudaMemcpyDeviceToHost, stream));
    const int seen = host[3];
    NEED_CUDA(cudaStreamSynchronize(stream));
    CHECK_EQ_I(host[3], 5);
    NEED_CUDA(cudaStreamDestroy(stream));
    NEED_CUDA(cudaFreeHost(host));
    NEED_CUDA(cudaFree(y));
    return seen;
}
static void child_early(void) { CHECK_EQ_I(see_without_wait(), 5); }
static void child_random(void) {
    int n_old = 0, n_new = 0;
    for (int i = 0; i < 50; ++i) {
        const int seen = see_without_wait();
        n_old += seen == -7;
        n_new += seen == 5;
    }
    CHECK(n_old > 0 && n_new > 0 && n_old + n_new == 50);
}

static void test_settings(void) {
    CHECK_CHILD("HIRL_EMU_MEMORY=1000000", child_out_of_memory);
    CHECK_CHILD("HIRL_EMU_DEVICES=0", child_no_device);
    CHECK_CHILD("HIRL_EMU_DEVICES=2", child_two_devices);
    CHECK_CHILD("HIRL_EMU_FAIL=cudaMalloc:2", child_second_malloc_fails);
    CHECK_CHILD("HIRL_EMU_FAIL=cudaFree:1,cudaMalloc:2+", child_later_mallocs_fail);
    CHECK_CHILD("HIRL_EMU_FAIL=launch:1", child_launch_fails);
    CHECK_CHILD("HIRL_EMU_FAIL=kernel:2", child_kernel_fails);
    CHECK_CHILD("HIRL_EMU_ORDER=early", child_early);
    CHECK_CHILD("HIRL_EMU_ORDER=random:3", child_random);
    CHECK_ABORT_WITH("HIRL_EMU_ORDER=sideways", child_early, "HIRL_EMU_ORDER is 'sideways'", NULL);
    CHECK_ABORT_WITH("HIRL_EMU_FAIL=cudaMalloc", child_early, "want NAME:N", NULL);
}

// ---------------------------------------------------------------------------------------------- order of work

static void test_late(void) { CHECK_EQ_I(see_without_wait(), -7); }

/// Pageable memory is read when a copy is asked for, pinned memory when it runs.
static void test_staging(void) {
    int pageable = 1, *pinned = NULL, host[2] = {0};
    cudaStream_t stream = NULL;
    int *y = device(2 * sizeof(int));
    NEED_CUDA(cudaMallocHost((void **)&pinned, sizeof(int)));
    NEED_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    *pinned = 1;
    NEED_CUDA(cudaMemcpyAsync(y, &pageable, sizeof(int), cudaMemcpyHostToDevice, stream));
    NEED_CUDA(cudaMemcpyAsync(y + 1, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
    pageable = *pinned = 2;
    NEED_CUDA(cudaMemcpyAsync(host, y, sizeof host, cudaMemcpyDeviceToHost, stream));
    CHECK_EQ_I(host[0], 1); // a copy to pageable memory waits
    CHECK_EQ_I(host[1], 2);
    NEED_CUDA(cudaStreamDestroy(stream));
    NEED_CUDA(cudaFreeHost(pinned));
    NEED_CUDA(cudaFree(y));
}

/// What a second stream sees of the first one's work, with or without a dependency; legacy: through the default stream.
static int see_across(unsigned flags, bool has_event, bool is_legacy) {
    cudaStream_t first = NULL, second = NULL;
    cudaEvent_t event = NULL;
    int host[4] = {-1, -1, -1, -1};
    int *y = upload(host, sizeof host);
    NEED_CUDA(cudaStreamCreateWithFlags(&first, flags));
    if (!is_legacy) NEED_CUDA(cudaStreamCreateWithFlags(&second, flags));
    NEED_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    emu_fill(first, y, 4, 3);
    if (has_event) {
        NEED_CUDA(cudaEventRecord(event, first));
        NEED_CUDA(cudaStreamWaitEvent(second, event, 0));
    }
    emu_fill(first, y, 4, 4); // after the event: nobody waits for this
    NEED_CUDA(cudaMemcpyAsync(host, y, sizeof host, cudaMemcpyDeviceToHost, second));
    NEED_CUDA(cudaStreamSynchronize(second));
    const int seen = host[2];
    NEED_CUDA(cudaEventDestroy(event));
    NEED_CUDA(cudaStreamDestroy(first));
    if (!is_legacy) NEED_CUDA(cudaStreamDestroy(second));
    NEED_CUDA(cudaFree(y));
    return seen;
}

static void test_streams(void) {
    CHECK_EQ_I(see_across(cudaStreamNonBlocking, false, false), -1);
    CHECK_EQ_I(see_across(cudaStreamNonBlocking, true, false), 3);
    CHECK_EQ_I(see_across(cudaStreamDefault, false, false), -1);
    CHECK_EQ_I(see_across(cudaStreamNonBlocking, false, true), -1);
    CHECK_EQ_I(see_across(cudaStreamDefault, false, true), 4); // the legacy stream waits for all
}

static void test_events(void) {
    cudaStream_t stream = NULL;
    cudaEvent_t begin = NULL, end = NULL;
    float ms = -1;
    int *y = device(4 * sizeof(int));
    NEED_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    NEED_CUDA(cudaEventCreate(&begin));
    NEED_CUDA(cudaEventCreate(&end));
    CHECK_CUDA(cudaEventQuery(begin), cudaSuccess); // never recorded
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end), cudaErrorInvalidResourceHandle);
    NEED_CUDA(cudaEventRecord(begin, stream));
    emu_fill(stream, y, 4, 1);
    NEED_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end), cudaErrorNotReady);
    CHECK_CUDA(cudaStreamQuery(stream), cudaErrorNotReady);
    int n_polls = 0;
    while (n_polls < 100 && cudaEventQuery(end) == cudaErrorNotReady) ++n_polls;
    CHECK(n_polls > 0 && n_polls < 100);
    CHECK_CUDA(cudaStreamQuery(stream), cudaSuccess);
    (void)cudaGetLastError();
    NEED_CUDA(cudaEventElapsedTime(&ms, begin, end));
    CHECK(ms >= 0);
    NEED_CUDA(cudaEventDestroy(begin));
    CHECK_CUDA(cudaEventRecord(begin, stream), cudaErrorInvalidResourceHandle);
    (void)cudaGetLastError();
    NEED_CUDA(cudaEventDestroy(end));
    NEED_CUDA(cudaStreamDestroy(stream));
    NEED_CUDA(cudaFree(y));
}

static void test_graph(void) {
    cudaStream_t stream = NULL, other = NULL;
    cudaEvent_t event = NULL;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    int host[4] = {0, 0, 0, 0};
    int *x = upload(host, sizeof host), *y = upload(host, sizeof host);
    NEED_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    NEED_CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    NEED_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    // What would have the host wait, or take memory, breaks a capture, and so does a fork that does not come back.
    for (int i = 0; i < 6; ++i) {
        void *data = NULL;
        enum cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
        NEED_CUDA(cudaStreamBeginCapture(stream, i == 5 ? cudaStreamCaptureModeThreadLocal
                                                        : cudaStreamCaptureModeGlobal));
        emu_fill(stream, x, 4, 9);
        if (i == 0) CHECK_CUDA(cudaStreamSynchronize(stream), cudaErrorStreamCaptureUnsupported);
        if (i == 1) CHECK_CUDA(cudaMalloc(&data, 16), cudaErrorStreamCaptureUnsupported);
        if (i == 2)
            CHECK_CUDA(cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyHostToDevice, stream),
                       cudaErrorStreamCaptureUnsupported);
        if (i == 3) CHECK_CUDA(cudaMallocHost(&data, 16), cudaErrorStreamCaptureUnsupported);
        if (i == 4) {
            NEED_CUDA(cudaEventRecord(event, stream));
            NEED_CUDA(cudaStreamWaitEvent(other, event, 0));
        }
        if (i == 5) { // of this thread, which says that it knows
            NEED_CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
            NEED_CUDA(cudaMalloc(&data, 16));
            NEED_CUDA(cudaThreadExchangeStreamCaptureMode(&mode));
            NEED_CUDA(cudaStreamEndCapture(stream, &graph));
            NEED_CUDA(cudaGraphDestroy(graph));
            NEED_CUDA(cudaFree(data));
            continue;
        }
        CHECK_CUDA(cudaStreamEndCapture(stream, &graph),
                   i == 4 ? cudaErrorStreamCaptureUnjoined : cudaErrorStreamCaptureInvalidated);
        CHECK(graph == NULL && data == NULL);
        (void)cudaGetLastError();
    }
    CHECK_CUDA(cudaStreamWaitEvent(stream, event, 0), cudaErrorInvalidValue); // of an ended capture
    (void)cudaGetLastError();
    NEED_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    emu_fill(stream, x, 4, 9);
    NEED_CUDA(cudaEventRecord(event, stream));
    NEED_CUDA(cudaStreamWaitEvent(other, event, 0));
    NEED_CUDA(cudaMemcpyAsync(y, x, sizeof host, cudaMemcpyDeviceToDevice, other));
    NEED_CUDA(cudaEventRecord(event, other));
    NEED_CUDA(cudaStreamWaitEvent(stream, event, 0));
    NEED_CUDA(cudaStreamEndCapture(stream, &graph));
    NEED_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    download(host, y, sizeof host);
    CHECK_EQ_I(host[1], 0); // nothing has run
    for (int i = 0; i < 2; ++i) {
        NEED_CUDA(cudaMemset(x, 0, sizeof host));
        NEED_CUDA(cudaMemset(y, 0, sizeof host));
        wait_all();
        NEED_CUDA(cudaGraphLaunch(exec, stream));
        NEED_CUDA(cudaStreamSynchronize(stream));
        download(host, y, sizeof host);
        CHECK_EQ_I(host[1], 9);
    }
    NEED_CUDA(cudaGraphExecDestroy(exec));
    NEED_CUDA(cudaGraphDestroy(graph));
    NEED_CUDA(cudaEventDestroy(event));
    NEED_CUDA(cudaStreamDestroy(other));
    NEED_CUDA(cudaStreamDestroy(stream));
    NEED_CUDA(cudaFree(x));
    NEED_CUDA(cudaFree(y));
}

static void test_device(void) {
    struct cudaDeviceProp facts;
    int value = 0;
    NEED_CUDA(cudaGetDeviceProperties(&facts, 0));
    CHECK_EQ_S(facts.name, "emulated");
    NEED_CUDA(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0));
    CHECK_EQ_I(value, facts.multiProcessorCount);
    CHECK_EQ_S(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress");
    CHECK_EQ_S(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
    CHECK_CUDA(emu_allow_shared(232448), cudaSuccess);
    CHECK_CUDA(emu_allow_shared(232449), cudaErrorInvalidValue);
    CHECK_CUDA(cudaGetLastError(), cudaErrorInvalidValue);
    struct cudaPointerAttributes at;
    void *data = device(64);
    float host[16];
    NEED_CUDA(cudaPointerGetAttributes(&at, data));
    CHECK_EQ_I(at.type, cudaMemoryTypeDevice);
    NEED_CUDA(cudaPointerGetAttributes(&at, host));
    CHECK_EQ_I(at.type, cudaMemoryTypeUnregistered);
    download(host, data, sizeof host); // what was never written is NaN
    for (int i = 0; i < 16; ++i) CHECK(isnan(host[i]));
    NEED_CUDA(cudaFree(data));
    // Rows of 3 of 5 columns.
    const char from[15] = "abcdefghijklmno";
    char to[15] = {0};
    void *rows = device(9);
    NEED_CUDA(cudaMemcpy2DAsync(rows, 3, from + 1, 5, 3, 3, cudaMemcpyHostToDevice, NULL));
    NEED_CUDA(cudaMemcpy2D(to, 5, rows, 3, 3, 3, cudaMemcpyDeviceToHost));
    CHECK_BITS(to, "bcd\0\0ghi\0\0lmn\0\0", 15);
    CHECK_CUDA(cudaMemcpy2D(to, 2, rows, 3, 3, 3, cudaMemcpyDeviceToHost),
               cudaErrorInvalidPitchValue);
    (void)cudaGetLastError();
    NEED_CUDA(cudaFree(rows));
}

// ---------------------------------------------------------------------------------------------- kernels

static void test_indices(void) {
    const dim3 grid = {3, 2, 2}, block = {5, 3, 2};
    enum { N = 12 * 30 };
    unsigned *host = malloc(N * 6 * sizeof *host), *y = device(N * 6 * sizeof *host);
    emu_index(NULL, grid, block, y);
    download(host, y, N * 6 * sizeof *host);
    int n_bad = 0, i = 0;
    for (unsigned b = 0; b < 12; ++b)
        for (unsigned t = 0; t < 30; ++t, i += 6) {
            const unsigned want[6] = {b % 3, b / 3 % 2, b / 6, t % 5, t / 5 % 3, t / 15};
            n_bad += memcmp(want, host + i, sizeof want) != 0;
        }
    CHECK_EQ_I(n_bad, 0);
    NEED_CUDA(cudaFree(y));
    free(host);
}

/// One launch runs its threads in ascending order and the next one in descending order, so that code that needs one of them fails.
static void test_orders(void) {
    int host[2][64], found[2][64];
    for (int i = 0; i < 2; ++i) {
        int *counter = device(sizeof(int)), *y = device(sizeof host[0]);
        NEED_CUDA(cudaMemset(counter, 0, sizeof(int)));
        emu_order(NULL, 64, counter, y);
        download(host[i], y, sizeof host[0]);
        emu_missing_barrier(NULL, 64, y); // in the same order as emu_order of the next turn
        download(found[i], y, sizeof found[0]);
        emu_fill(NULL, y, 64, 0);
        wait_all();
        NEED_CUDA(cudaFree(counter));
        NEED_CUDA(cudaFree(y));
    }
    const int up = host[0][0] == 0 ? 0 : 1;
    for (int i = 0; i < 64; ++i) {
        CHECK_EQ_I(host[up][i], i);
        CHECK_EQ_I(host[1 - up][i], 63 - i);
    }
    int n_right[2] = {0, 0};
    for (int k = 0; k < 2; ++k)
        for (int i = 0; i < 64; ++i) n_right[k] += found[k][i] == 7;
    CHECK((n_right[0] == 64) != (n_right[1] == 64));
}

static void test_barriers(void) {
    enum { N = 1000, N_BLOCKS = 7, N_THREADS = 256 };
    float x[N_BLOCKS * N_THREADS], y[N_BLOCKS * N_THREADS];
    for (int i = 0; i < N_BLOCKS * N_THREADS; ++i) x[i] = (float)(i % 11);
    float *dx = upload(x, sizeof x), *dy = device(sizeof x);
    for (int turn = 0; turn < 2; ++turn) { // both orders
        emu_reverse(NULL, N, dx, dy);
        download(y, dy, N * sizeof *y);
        int n_bad = 0;
        for (int i = 0; i < N; ++i) n_bad += y[i] != x[N - 1 - i];
        CHECK_EQ_I(n_bad, 0);
        emu_block_sums(NULL, N_BLOCKS, N_THREADS, dx, dy);
        download(y, dy, N_BLOCKS * sizeof *y);
        for (int b = 0; b < N_BLOCKS; ++b) {
            float sum = 0; // small integers: exact in any order
            for (int i = 0; i < N_THREADS; ++i) sum += 2 * x[b * N_THREADS + i];
            CHECK_EQ_I(y[b], sum);
        }
        emu_fill(NULL, (int *)dy, 1, 0);
    }
    NEED_CUDA(cudaFree(dx));
    NEED_CUDA(cudaFree(dy));
}

/// No block sees what another one left in shared memory.
static void test_stale(void) {
#ifndef __SANITIZE_ADDRESS__
    int y[3] = {0}, *dy = device(sizeof y);
    emu_stale(NULL, 3, dy);
    download(y, dy, sizeof y);
    for (int i = 0; i < 3; ++i) CHECK_EQ_I(y[i], -1);
    NEED_CUDA(cudaFree(dy));
#endif
}

static void test_shuffles(void) {
    int x[32], y[128];
    for (int i = 0; i < 32; ++i) x[i] = 100 + i * i;
    int *dx = upload(x, sizeof x), *dy = device(sizeof y);
    for (int width = 1; width <= 32; width *= 2)
        for (int amount = 0; amount < 32; ++amount) {
            emu_shuffles(NULL, width, amount, dx, dy);
            download(y, dy, sizeof y);
            int n_bad = 0;
            for (int i = 0; i < 32; ++i) {
                const int first = i / width * width, inside = i - first;
                const int direct = first + amount % width;
                const int up = inside - amount >= 0 ? i - amount : i;
                const int down = inside + amount < width ? i + amount : i;
                const int other = i ^ amount;
                const int exchange = other < first + width ? other : i;
                n_bad += y[i] != x[direct] || y[32 + i] != x[up] || y[64 + i] != x[down] ||
                         y[96 + i] != x[exchange];
            }
            CHECK_EQ_I(n_bad, 0);
        }
    double wide[32], back[32];
    for (int i = 0; i < 32; ++i) wide[i] = 1.0 / (i + 1);
    double *dw = upload(wide, sizeof wide), *db = device(sizeof back);
    emu_shuffle_double(NULL, dw, db);
    download(back, db, sizeof back);
    for (int i = 0; i < 32; ++i) CHECK(back[i] == wide[i ^ 5]);
    emu_half_warps(NULL, dx, dy);
    download(y, dy, 32 * sizeof *y);
    int low = 0;
    for (int i = 0; i < 16; ++i) low += x[i];
    for (int i = 0; i < 32; ++i) CHECK_EQ_I(y[i], low + x[20]);
    NEED_CUDA(cudaFree(dw));
    NEED_CUDA(cudaFree(db));
    NEED_CUDA(cudaFree(dx));
    NEED_CUDA(cudaFree(dy));
}

static void test_votes(void) {
    unsigned y[4];
    int x[32];
    unsigned *dy = device(sizeof y);
    for (int pattern = 0; pattern < 4; ++pattern) {
        unsigned want = 0;
        for (int i = 0; i < 32; ++i) {
            x[i] = pattern == 0 ? 0 : pattern == 1 ? i % 3 == 0 : pattern == 2 ? i % 2 : 5;
            if (x[i]) want |= 1u << i;
        }
        int *dx = upload(x, sizeof x);
        emu_votes(NULL, dx, dy);
        download(y, dy, sizeof y);
        const unsigned odd = want & 0xaaaaaaaau;
        CHECK_EQ_I(y[0], want);
        CHECK_EQ_I(y[1], odd);
        CHECK_EQ_I(y[2], odd != 0);
        CHECK_EQ_I(y[3], odd == 0xaaaaaaaau);
        NEED_CUDA(cudaFree(dx));
    }
    NEED_CUDA(cudaFree(dy));
}

static void test_atomics(void) {
    enum { N_BLOCKS = 5, N_THREADS = 96, N = N_BLOCKS * N_THREADS };
    int y[6] = {0, 0, 0, -1, -1, 0};
    int *dy = upload(y, sizeof y);
    emu_atomics(NULL, N_BLOCKS, N_THREADS, dy);
    download(y, dy, sizeof y);
    float sum;
    memcpy(&sum, &y[2], sizeof sum);
    int most = 0;
    for (int i = 0; i < N; ++i) most = (i ^ 5) > most ? i ^ 5 : most;
    CHECK_EQ_I(y[0], N * (N - 1) / 2);
    CHECK_EQ_I(y[1], 2 * N);
    CHECK(sum == 0.5f * N);
    CHECK_EQ_I(y[3], most);
    CHECK(y[4] >= 0 && y[4] < N);
    CHECK_EQ_I(y[5], 1); // one thread was first
    NEED_CUDA(cudaFree(dy));
}

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/// bf16 by hand for halves, ties, overflow and NaN; by search for the nearest neighbour for other numbers.
static void test_bf16(void) {
    static const struct {
        uint32_t f32;
        uint16_t bf16;
    } table[] = {
        {0x00000000, 0x0000}, {0x80000000, 0x8000}, {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80},
        {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x3f807fff, 0x3f80}, {0xbf818000, 0xbf82},
        {0x7f7fffff, 0x7f80}, {0x7f7f7fff, 0x7f7f}, {0x7f7f8000, 0x7f80}, {0xff7fffff, 0xff80},
        {0x7f800000, 0x7f80}, {0xff800000, 0xff80}, {0x7f800001, 0x7fff}, {0xffc00000, 0x7fff},
        {0x7fffffff, 0x7fff}, {0x00000001, 0x0000}, {0x00008000, 0x0000}, {0x00018000, 0x0002},
        {0x00008001, 0x0001}, {0x80008001, 0x8001}, {0x007fffff, 0x0080}, {0x00010000, 0x0001},
    };
    enum { N_TABLE = (int)(sizeof table / sizeof table[0]), N = 4096 };
    static float x[N], back[N];
    static unsigned short y[N];
    hirl_rng_t rng = test_rng(1);
    for (int i = 0; i < N; ++i)
        x[i] = i < N_TABLE ? from_bits(table[i].f32)
                           : (float)(hirl_rng_normal(&rng) * pow(2, hirl_rng_range(&rng, -40, 40)));
    float *dx = upload(x, sizeof x), *db = device(sizeof back);
    unsigned short *dy = device(sizeof y);
    emu_bf16(NULL, N, dx, dy, db);
    download(y, dy, sizeof y);
    download(back, db, sizeof back);
    int n_bad = 0;
    for (int i = 0; i < N_TABLE; ++i)
        CHECK_MSG(y[i] == table[i].bf16, "0x%08x became 0x%04x, want 0x%04x", table[i].f32, y[i],
                  table[i].bf16);
    for (int i = N_TABLE; i < N; ++i) {
        const double error = fabs((double)x[i] - back[i]);
        const double above = fabs((double)x[i] - from_bits((uint32_t)(y[i] + 1) << 16));
        const double below = fabs((double)x[i] - from_bits((uint32_t)(y[i] - 1) << 16));
        n_bad += error > above || error > below || back[i] != from_bits((uint32_t)y[i] << 16);
    }
    CHECK_EQ_I(n_bad, 0);
    NEED_CUDA(cudaFree(dx));
    NEED_CUDA(cudaFree(dy));
    NEED_CUDA(cudaFree(db));
}

// Small integers, so that every order of sums gives the same bits. Columns 16.. are NaN.
static void test_warp_product(void) {
    unsigned short a[16 * 24], b[16 * 24];
    float c[256], y[256];
    double a_value[256], b_value[256];
    for (int i = 0; i < 16 * 24; ++i) {
        const int r = i / 24, k = i % 24;
        float x = (float)((r * 7 + k * 3) % 11 - 5), z = (float)((r * 5 + k * 9) % 13 - 6);
        uint32_t bits;
        if (k < 16) a_value[r * 16 + k] = (double)x, b_value[r * 16 + k] = (double)z;
        memcpy(&bits, &x, 4);
        a[i] = k < 16 ? (unsigned short)(bits >> 16) : 0x7fff;
        memcpy(&bits, &z, 4);
        b[i] = k < 16 ? (unsigned short)(bits >> 16) : 0x7fff;
    }
    for (int i = 0; i < 256; ++i) c[i] = (float)i;
    void *d_a = upload(a, sizeof a), *d_b = upload(b, sizeof b), *d_c = upload(c, sizeof c),
         *d_y = device(sizeof y);
    for (int is_column_major = 0; is_column_major < 2; ++is_column_major) {
        emu_product(NULL, d_a, d_b, d_c, is_column_major, d_y);
        download(y, d_y, sizeof y);
        for (int i = 0; i < 256; ++i) {
            const int r = i / 16, j = i % 16;
            double sum = (double)c[i];
            for (int k = 0; k < 16; ++k) sum += a_value[r * 16 + k] * b_value[j * 16 + k];
            CHECK_EQ_I(y[is_column_major ? j * 16 + r : i], 2 * sum);
        }
    }
    void *const all[] = {d_a, d_b, d_c, d_y};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) NEED_CUDA(cudaFree(all[i]));
}

static void test_arithmetic(void) {
    const float x[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 3e9f, -3e9f, NAN, 0.0f, -7.49f};
    const int rounded[] = {0, 2, 2, 0, -2, 2147483647, -2147483647 - 1, 0, 0, -7};
    enum { N = (int)(sizeof x / sizeof x[0]) };
    int y[4 * N];
    float *dx = upload(x, sizeof x);
    int *dy = device(sizeof y);
    emu_arithmetic(NULL, N, dx, dy);
    download(y, dy, sizeof y);
    for (int i = 0; i < N; ++i) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        int n_ones = 0, first = 0;
        for (int b = 31; b >= 0; --b)
            if (bits >> b & 1) ++n_ones, first = b + 1;
        CHECK_EQ_I(y[4 * i], rounded[i]);
        CHECK_EQ_I(y[4 * i + 1], n_ones);
        CHECK_EQ_I(y[4 * i + 2], first);
        CHECK_EQ_I((uint32_t)y[4 * i + 3], bits);
    }
    NEED_CUDA(cudaFree(dx));
    NEED_CUDA(cudaFree(dy));
}

// ---------------------------------------------------------------------------------------------- cuBLASLt

static uint16_t round_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
static float of_array(const void *x, bool is_bf16, int64_t i) {
    return is_bf16 ? from_bits((uint32_t)((const uint16_t *)x)[i] << 16) : ((const float *)x)[i];
}

/// A column-major product: D [m, n] = alpha op(A) op(B) + beta C.
typedef struct product {
    int m, n, k, trans_a, trans_b, pad; // pad: columns are this much longer than needed
    bool is_bf16_in, is_bf16_out;
    float alpha, beta;
    cublasLtEpilogue_t epilogue;
    int bias_type; // -1: not set
    cublasComputeType_t compute;
    uint32_t promised; // alignment of A, 0: what it has
} product_t;

/// Asks for one product in place; the arrays are device memory. Returns the heuristic's answer.
static cublasStatus_t ask_product(const product_t *p, const void *a, const void *b, void *d,
                                  const void *bias) {
    cublasLtHandle_t handle = NULL;
    cublasLtMatmulDesc_t desc = NULL;
    cublasLtMatrixLayout_t la = NULL, lb = NULL, ld = NULL;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result[2];
    const cudaDataType in = p->is_bf16_in ? CUDA_R_16BF : CUDA_R_32F;
    const cudaDataType out = p->is_bf16_out ? CUDA_R_16BF : CUDA_R_32F;
    const cublasOperation_t ta = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t tb = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int rows_a = p->trans_a ? p->k : p->m, rows_b = p->trans_b ? p->n : p->k;
    const uint32_t align = p->is_bf16_in ? 2 : 4, align_out = p->is_bf16_out ? 2 : 4;
    const uint32_t align_a = p->promised ? p->promised : align;
    const size_t limit = 1 << 20;
    int n_results = 0;
    bool is_good = cublasLtCreate(&handle) == CUBLAS_STATUS_SUCCESS;
    is_good = is_good && !cublasLtMatmulDescCreate(&desc, p->compute, CUDA_R_32F);
    is_good = is_good &&
              !cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &ta, sizeof ta);
    is_good = is_good &&
              !cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSB, &tb, sizeof tb);
    is_good = is_good && !cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                         &p->epilogue, sizeof p->epilogue);
    is_good = is_good && !cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                         &bias, sizeof bias);
    is_good = is_good && !cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
                                                         &p->bias_type, sizeof p->bias_type);
    is_good = is_good &&
              !cublasLtMatrixLayoutCreate(&la, in, (uint64_t)rows_a,
                                          (uint64_t)(p->trans_a ? p->m : p->k), rows_a + p->pad);
    is_good = is_good &&
              !cublasLtMatrixLayoutCreate(&lb, in, (uint64_t)rows_b,
                                          (uint64_t)(p->trans_b ? p->k : p->n), rows_b + p->pad);
    is_good = is_good &&
              !cublasLtMatrixLayoutCreate(&ld, out, (uint64_t)p->m, (uint64_t)p->n, p->m + p->pad);
    is_good = is_good && !cublasLtMatmulPreferenceCreate(&preference);
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        uint32_t value;
    } aligns[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_a},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_out},
                  {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_out}};
    for (int i = 0; i < 4; ++i)
        is_good = is_good && !cublasLtMatmulPreferenceSetAttribute(
                                 preference, aligns[i].name, &aligns[i].value, sizeof(uint32_t));
    is_good =
        is_good && !cublasLtMatmulPreferenceSetAttribute(
                       preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &limit, sizeof limit);
    CHECK(is_good);
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, desc, la, lb, ld, ld,
                                                                 preference, 2, result, &n_results);
    if (status == CUBLAS_STATUS_SUCCESS) {
        CHECK_EQ_I(n_results, 2);
        void *workspace = device(result[0].workspaceSize);
        CHECK_EQ_I(cublasLtMatmul(handle, desc, &p->alpha, a, la, b, lb, &p->beta, d, ld, d, ld,
                                  &result[0].algo, workspace, result[0].workspaceSize, NULL),
                   CUBLAS_STATUS_SUCCESS);
        NEED_CUDA(cudaFree(workspace));
    }
    (void)cublasLtMatmulPreferenceDestroy(preference);
    (void)cublasLtMatrixLayoutDestroy(la);
    (void)cublasLtMatrixLayoutDestroy(lb);
    (void)cublasLtMatrixLayoutDestroy(ld);
    (void)cublasLtMatmulDescDestroy(desc);
    (void)cublasLtDestroy(handle);
    return status;
}

static void *random_array(int64_t n, bool is_bf16, uint64_t index) {
    float *x = malloc((size_t)n * sizeof *x);
    test_fill_uniform(x, n, -1, 1, index);
    if (is_bf16)
        for (int64_t i = 0; i < n; ++i) ((uint16_t *)x)[i] = round_bf16(x[i]);
    return x;
}

static void check_product(const product_t *p) {
    const int rows_a = p->trans_a ? p->k : p->m, rows_b = p->trans_b ? p->n : p->k;
    const int lda = rows_a + p->pad, ldb = rows_b + p->pad, ldd = p->m + p->pad;
    const int64_t na = (int64_t)lda * (p->trans_a ? p->m : p->k);
    const int64_t nb = (int64_t)ldb * (p->trans_b ? p->k : p->n), nd = (int64_t)ldd * p->n;
    const size_t in = p->is_bf16_in ? 2 : 4, out = p->is_bf16_out ? 2 : 4;
    void *a = random_array(na, p->is_bf16_in, 2), *b = random_array(nb, p->is_bf16_in, 3);
    void *d = random_array(nd, p->is_bf16_out, 4), *bias = random_array(p->m, p->is_bf16_out, 5);
    void *got = malloc((size_t)nd * out);
    void *da = upload(a, (size_t)na * in), *db = upload(b, (size_t)nb * in);
    void *dd = upload(d, (size_t)nd * out), *dbias = upload(bias, (size_t)p->m * out);
    CHECK_EQ_I(ask_product(p, da, db, dd, dbias), CUBLAS_STATUS_SUCCESS);
    download(got, dd, (size_t)nd * out);
    // k products of up to 1, in f32, then one rounding to bf16; TF32 rounds both factors to 10 bits.
    const bool is_tf32 = p->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const double abs = p->k * (is_tf32 ? 1.0 / 1024 : 1e-7) + 1e-6,
                 rel = p->is_bf16_out ? 1.0 / 256 : 1e-6;
    int n_bad = 0;
    for (int j = 0; j < p->n; ++j)
        for (int i = 0; i < p->m + p->pad; ++i) {
            const int64_t at = (int64_t)j * ldd + i;
            if (i >= p->m) { // between columns nothing is written
                n_bad += of_array(got, p->is_bf16_out, at) != of_array(d, p->is_bf16_out, at);
                continue;
            }
            double sum = 0;
            for (int k = 0; k < p->k; ++k)
                sum += (double)of_array(a, p->is_bf16_in,
                                        p->trans_a ? (int64_t)i * lda + k : (int64_t)k * lda + i) *
                       of_array(b, p->is_bf16_in,
                                p->trans_b ? (int64_t)k * ldb + j : (int64_t)j * ldb + k);
            double want = p->alpha * sum;
            if (p->beta != 0) want += p->beta * of_array(d, p->is_bf16_out, at);
            if (p->epilogue & CUBLASLT_EPILOGUE_BIAS) want += of_array(bias, p->is_bf16_out, i);
            if (p->epilogue & CUBLASLT_EPILOGUE_RELU && want < 0) want = 0;
            n_bad += !test_is_close(of_array(got, p->is_bf16_out, at), want, rel, abs);
        }
    CHECK_MSG(n_bad == 0, "product %d x %d x %d %d%d bf16 %d%d epilogue %d: %d wrong", p->m, p->n,
              p->k, p->trans_a, p->trans_b, p->is_bf16_in, p->is_bf16_out, (int)p->epilogue, n_bad);
    NEED_CUDA(cudaFree(da));
    NEED_CUDA(cudaFree(db));
    NEED_CUDA(cudaFree(dd));
    NEED_CUDA(cudaFree(dbias));
    free(a), free(b), free(d), free(bias), free(got);
}

static product_t plain_product(int m, int n, int k) {
    return (product_t){.m = m,
                       .n = n,
                       .k = k,
                       .alpha = 1,
                       .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                       .bias_type = -1,
                       .compute = CUBLAS_COMPUTE_32F};
}

static void test_products(void) {
    static const int sizes[][3] = {
        {1, 1, 1}, {3, 5, 7}, {33, 4, 129}, {64, 70, 300}, {130, 37, 65}};
    for (int s = 0; s < 5; ++s)
        for (int t = 0; t < 4; ++t)
            for (int types = 0; types < 3; ++types) {
                product_t p = plain_product(sizes[s][0], sizes[s][1], sizes[s][2]);
                p.trans_a = t & 1;
                p.trans_b = t >> 1;
                p.pad = s % 2 * 3;
                p.is_bf16_in = types > 0;
                p.is_bf16_out = types > 1;
                p.alpha = t == 1 ? 0.5f : 1;
                p.beta = t == 2 ? 1 : t == 3 ? -0.25f : 0;
                check_product(&p);
            }
    for (int is_bf16 = 0; is_bf16 < 2; ++is_bf16)
        for (int e = 0; e < 3; ++e) {
            product_t p = plain_product(48, 20, 33);
            p.is_bf16_in = p.is_bf16_out = is_bf16;
            p.epilogue = e == 0   ? CUBLASLT_EPILOGUE_BIAS
                         : e == 1 ? CUBLASLT_EPILOGUE_RELU
                                  : CUBLASLT_EPILOGUE_RELU_BIAS;
            check_product(&p);
        }
    product_t p = plain_product(32, 32, 64);
    p.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    check_product(&p);
}

/// What is refused, and that the epilogue max(x, 0) turns NaN into 0 as the library's does.
static void test_product_answers(void) {
    product_t p = plain_product(8, 8, 8);
    float nan[64], got[64];
    for (int i = 0; i < 64; ++i) nan[i] = NAN;
    void *a = upload(nan, sizeof nan), *d = upload(nan, sizeof nan), *bias = upload(nan, 32);
    CHECK_EQ_I(ask_product(&p, a, a, d, bias), CUBLAS_STATUS_SUCCESS);
    download(got, d, sizeof got);
    CHECK(isnan(got[0]));
    p.epilogue = CUBLASLT_EPILOGUE_RELU;
    CHECK_EQ_I(ask_product(&p, a, a, d, bias), CUBLAS_STATUS_SUCCESS);
    download(got, d, sizeof got);
    CHECK(got[0] == 0);
    p.epilogue = CUBLASLT_EPILOGUE_BIAS;
    p.is_bf16_in = p.is_bf16_out = true;
    p.bias_type = CUDA_R_32F;
    CHECK_EQ_I(ask_product(&p, a, a, d, bias), CUBLAS_STATUS_NOT_SUPPORTED);
    p = plain_product(8, 8, 8);
    p.is_bf16_out = true;
    CHECK_EQ_I(ask_product(&p, a, a, d, bias), CUBLAS_STATUS_NOT_SUPPORTED);
    p = plain_product(8, 8, 8);
    p.compute = CUBLAS_COMPUTE_64F;
    CHECK_EQ_I(ask_product(&p, a, a, d, bias), CUBLAS_STATUS_NOT_SUPPORTED);
    p = plain_product(8, 8, 8);
    p.pad = -1; // columns would overlap
    CHECK_EQ_I(ask_product(&p, a, a, d, bias), CUBLAS_STATUS_INVALID_VALUE);
    NEED_CUDA(cudaFree(a));
    NEED_CUDA(cudaFree(d));
    NEED_CUDA(cudaFree(bias));
}

static void bad_product_alignment(void) {
    product_t p = plain_product(4, 4, 4);
    p.promised = 16;
    char *a = device(128);
    (void)ask_product(&p, a + 4, device(64), device(64), NULL);
}
static void bad_product_length(void) {
    const product_t p = plain_product(4, 4, 4);
    (void)ask_product(&p, device(64), device(60), device(64), NULL);
}
static void bad_product_overlap(void) {
    const product_t p = plain_product(4, 4, 4);
    float *a = device(120);
    (void)ask_product(&p, a, device(64), a + 14, NULL);
}
static void bad_product_host(void) {
    const product_t p = plain_product(4, 4, 4);
    float a[16];
    (void)ask_product(&p, a, device(64), device(64), NULL);
}

// ---------------------------------------------------------------------------------------------- cuDNN

typedef struct conv {
    int kind; // 0 forward, 1 data, 2 filter
    int64_t n, c, h, w, filters, kh, kw;
    int64_t step, pad, dilation;
    bool is_bf16, is_nchw;
    float alpha, beta;
} conv_t;

static int64_t out_size(const conv_t *p, int64_t size, int64_t kernel) {
    return (size + 2 * p->pad - (kernel - 1) * p->dilation - 1) / p->step + 1;
}

static void strides_of(const int64_t dim[4], bool is_nchw, int64_t stride[4]) {
    if (is_nchw) {
        stride[3] = 1, stride[2] = dim[3], stride[1] = dim[3] * dim[2];
        stride[0] = stride[1] * dim[1];
    } else {
        stride[1] = 1, stride[3] = dim[1], stride[2] = dim[1] * dim[3];
        stride[0] = stride[2] * dim[2];
    }
}

static void set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t n, const void *values) {
    CHECK_EQ_I(cudnnBackendSetAttribute(d, name, type, n, values), CUDNN_STATUS_SUCCESS);
}
static cudnnBackendDescriptor_t make(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t d = NULL;
    CHECK_EQ_I(cudnnBackendCreateDescriptor(type, &d), CUDNN_STATUS_SUCCESS);
    return d;
}

static cudnnBackendDescriptor_t make_tensor(int64_t id, const int64_t dim[4], bool is_bf16,
                                            bool is_nchw) {
    int64_t stride[4];
    const int64_t alignment = 16;
    const cudnnDataType_t type = is_bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    strides_of(dim, is_nchw, stride);
    cudnnBackendDescriptor_t d = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    CHECK_EQ_I(cudnnBackendFinalize(d), CUDNN_STATUS_SUCCESS);
    return d;
}

enum { MAX_PARTS = 8 };
typedef struct graph {
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t part[MAX_PARTS]; // x, w, y, convolution, operation, graph
} graph_t;

static cudnnStatus_t make_graph(const conv_t *p, int64_t more_rows, graph_t *g) {
    static const int alpha[] = {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA};
    static const int names[3][4] = {
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC}};
    static const cudnnBackendDescriptorType_t types[] = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR};
    const int64_t x[4] = {p->n, p->c, p->h, p->w}, w[4] = {p->filters, p->c, p->kh, p->kw};
    const int64_t y[4] = {p->n, p->filters, out_size(p, p->h, p->kh) + more_rows,
                          out_size(p, p->w, p->kw)};
    const int64_t two = 2, step[2] = {p->step, p->step}, pad[2] = {p->pad, p->pad};
    const int64_t dilation[2] = {p->dilation, p->dilation};
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    CHECK_EQ_I(cudnnCreate(&g->handle), CUDNN_STATUS_SUCCESS);
    g->part[0] = make_tensor(1, x, p->is_bf16, p->is_nchw);
    g->part[1] = make_tensor(2, w, p->is_bf16, p->is_nchw);
    g->part[2] = make_tensor(3, y, p->is_bf16, p->is_nchw);
    cudnnBackendDescriptor_t c = g->part[3] = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    set(c, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &two);
    set(c, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
    set(c, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(c, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
    set(c, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad);
    set(c, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    set(c, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, step);
    CHECK_EQ_I(cudnnBackendFinalize(c), CUDNN_STATUS_SUCCESS);
    cudnnBackendDescriptor_t o = g->part[4] = make(types[p->kind]);
    for (int i = 0; i < 4; ++i)
        set(o, (cudnnBackendAttributeName_t)names[p->kind][i], CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
            &g->part[i]);
    set(o, (cudnnBackendAttributeName_t)alpha[p->kind], CUDNN_TYPE_FLOAT, 1, &p->alpha);
    set(o, (cudnnBackendAttributeName_t)(alpha[p->kind] + 1), CUDNN_TYPE_FLOAT, 1, &p->beta);
    const cudnnStatus_t status = cudnnBackendFinalize(o);
    if (status != CUDNN_STATUS_SUCCESS) return status;
    g->part[5] = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(g->part[5], CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &o);
    set(g->part[5], CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
    CHECK_EQ_I(cudnnBackendFinalize(g->part[5]), CUDNN_STATUS_SUCCESS);
    return CUDNN_STATUS_SUCCESS;
}
static void reset_graph(graph_t *g) {
    for (int i = 0; i < MAX_PARTS; ++i)
        if (g->part[i]) (void)cudnnBackendDestroyDescriptor(g->part[i]);
    (void)cudnnDestroy(g->handle);
}

/// A finished plan of the engine with this number, or NULL and why.
static cudnnBackendDescriptor_t make_plan(const graph_t *g, int64_t index, cudnnStatus_t *status) {
    cudnnBackendDescriptor_t engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendDescriptor_t config = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    cudnnBackendDescriptor_t plan = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    set(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g->part[5]);
    set(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &index);
    CHECK_EQ_I(cudnnBackendFinalize(engine), CUDNN_STATUS_SUCCESS);
    set(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    CHECK_EQ_I(cudnnBackendFinalize(config), CUDNN_STATUS_SUCCESS);
    set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &g->handle);
    set(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    *status = cudnnBackendFinalize(plan);
    (void)cudnnBackendDestroyDescriptor(engine);
    (void)cudnnBackendDestroyDescriptor(config);
    if (*status == CUDNN_STATUS_SUCCESS) return plan;
    (void)cudnnBackendDestroyDescriptor(plan);
    return NULL;
}

static cudnnStatus_t execute(const graph_t *g, cudnnBackendDescriptor_t plan, void *const data[3],
                             void *workspace) {
    const int64_t ids[3] = {1, 2, 3};
    cudnnBackendDescriptor_t pack = make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
    set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, data);
    set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    CHECK_EQ_I(cudnnBackendFinalize(pack), CUDNN_STATUS_SUCCESS);
    const cudnnStatus_t status = cudnnBackendExecute(g->handle, plan, pack);
    (void)cudnnBackendDestroyDescriptor(pack);
    return status;
}

/// The convolution by its definition, in double.
static void define(const conv_t *p, void *const host[3], double *want) {
    const int64_t x[4] = {p->n, p->c, p->h, p->w}, w[4] = {p->filters, p->c, p->kh, p->kw};
    const int64_t y[4] = {p->n, p->filters, out_size(p, p->h, p->kh), out_size(p, p->w, p->kw)};
    int64_t sx[4], sw[4], sy[4];
    strides_of(x, p->is_nchw, sx);
    strides_of(w, p->is_nchw, sw);
    strides_of(y, p->is_nchw, sy);
    for (int64_t n = 0; n < p->n; ++n)
        for (int64_t f = 0; f < p->filters; ++f)
            for (int64_t i = 0; i < y[2]; ++i)
                for (int64_t j = 0; j < y[3]; ++j)
                    for (int64_t c = 0; c < p->c; ++c)
                        for (int64_t r = 0; r < p->kh; ++r)
                            for (int64_t s = 0; s < p->kw; ++s) {
                                const int64_t h = i * p->step - p->pad + r * p->dilation;
                                const int64_t v = j * p->step - p->pad + s * p->dilation;
                                if (h < 0 || h >= p->h || v < 0 || v >= p->w) continue;
                                const int64_t at[3] = {
                                    n * sx[0] + c * sx[1] + h * sx[2] + v * sx[3],
                                    f * sw[0] + c * sw[1] + r * sw[2] + s * sw[3],
                                    n * sy[0] + f * sy[1] + i * sy[2] + j * sy[3]};
                                const int out = p->kind == 0 ? 2 : p->kind == 1 ? 0 : 1;
                                double product = 1;
                                for (int k = 0; k < 3; ++k)
                                    if (k != out) product *= of_array(host[k], p->is_bf16, at[k]);
                                want[at[out]] += p->alpha * product;
                            }
}

static void check_conv(const conv_t *p, int64_t engine) {
    const int64_t oh = out_size(p, p->h, p->kh), ow = out_size(p, p->w, p->kw);
    const int64_t count[3] = {p->n * p->c * p->h * p->w, p->filters * p->c * p->kh * p->kw,
                              p->n * p->filters * oh * ow};
    const size_t item = p->is_bf16 ? 2 : 4;
    const int out = p->kind == 0 ? 2 : p->kind == 1 ? 0 : 1;
    graph_t g = {0};
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    void *host[3], *data[3], *workspace = NULL;
    int64_t n = 0, bytes = 0;
    NEED(make_graph(p, 0, &g) == CUDNN_STATUS_SUCCESS);
    cudnnBackendDescriptor_t plan = make_plan(&g, engine, &status);
    NEED(plan != NULL);
    CHECK_EQ_I(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                        CUDNN_TYPE_INT64, 1, &n, &bytes),
               CUDNN_STATUS_SUCCESS);
    CHECK_EQ_I(bytes > 0, engine == 4);
    if (bytes > 0) workspace = device((size_t)bytes);
    for (int i = 0; i < 3; ++i) {
        host[i] = random_array(count[i], p->is_bf16, 6 + (uint64_t)i);
        data[i] = upload(host[i], (size_t)count[i] * item);
    }
    double *want = calloc((size_t)count[out], sizeof *want);
    for (int64_t i = 0; i < count[out]; ++i)
        want[i] = p->beta != 0 ? p->beta * of_array(host[out], p->is_bf16, i) : 0;
    define(p, host, want);
    CHECK_EQ_I(execute(&g, plan, data, workspace), CUDNN_STATUS_SUCCESS);
    void *got = malloc((size_t)count[out] * item);
    download(got, data[out], (size_t)count[out] * item);
    // Terms of a sum: k of up to 1, in f32 (TF32 rounds both factors to 10 bits), then one rounding.
    const double terms = (double)(p->kind == 0   ? p->c * p->kh * p->kw
                                  : p->kind == 1 ? p->filters * p->kh * p->kw
                                                 : p->n * oh * ow);
    const bool is_tf32 = engine <= 2 && !p->is_bf16;
    const double abs = terms * (is_tf32 ? 1.0 / 1024 : 1e-7) + 1e-6,
                 rel = p->is_bf16 ? 1.0 / 256 : 1e-6;
    int n_bad = 0;
    for (int64_t i = 0; i < count[out]; ++i)
        n_bad += !test_is_close(of_array(got, p->is_bf16, i), want[i], rel, abs);
    CHECK_MSG(n_bad == 0, "kind %d, engine %lld, bf16 %d: %d of %lld wrong", p->kind,
              (long long)engine, p->is_bf16, n_bad, (long long)count[out]);
    for (int i = 0; i < 3; ++i) {
        NEED_CUDA(cudaFree(data[i]));
        free(host[i]);
    }
    if (workspace) NEED_CUDA(cudaFree(workspace));
    free(want), free(got);
    (void)cudnnBackendDestroyDescriptor(plan);
    reset_graph(&g);
}

static const conv_t CONV = {.n = 3,
                            .c = 5,
                            .h = 9,
                            .w = 8,
                            .filters = 6,
                            .kh = 3,
                            .kw = 2,
                            .step = 1,
                            .pad = 1,
                            .dilation = 1,
                            .alpha = 1};

static void test_convolutions(void) {
    for (int kind = 0; kind < 3; ++kind)
        for (int variant = 0; variant < 6; ++variant) {
            conv_t p = CONV;
            p.kind = kind;
            p.is_bf16 = variant == 1 || variant == 2;
            p.is_nchw = variant == 2;
            p.step = variant == 3 ? 2 : 1;
            p.pad = variant == 4 ? 0 : 1;
            p.dilation = variant == 4 ? 2 : 1;
            p.alpha = variant == 5 ? 0.5f : 1;
            p.beta = variant == 5 ? 2 : 0;
            for (int64_t engine = 1; engine <= 5; ++engine)
                if (engine == 1 || engine >= 4) check_conv(&p, engine);
        }
    conv_t p = CONV; // channels that engine 2 takes
    p.c = 8;
    p.filters = 16;
    check_conv(&p, 2);
}

static void test_convolution_answers(void) {
    graph_t g = {0};
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    char text[256];
    conv_t p = CONV;
    // A wrong output shape, and the reason in words.
    CHECK_EQ_I(make_graph(&p, 1, &g), CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH);
    cudnnGetLastErrorString(text, sizeof text);
    CHECK_HAS(text, "the output has 10, want 9");
    reset_graph(&g);
    g = (graph_t){0};
    NEED(make_graph(&p, 0, &g) == CUDNN_STATUS_SUCCESS);
    // Engines: what the heuristic offers, which notes they have, which plan is refused.
    cudnnBackendDescriptor_t heuristic = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR), config[8];
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t n = 0;
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
        &g.part[5]);
    CHECK_EQ_I(cudnnBackendFinalize(heuristic), CUDNN_STATUS_BAD_PARAM); // the mode is missing
    set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    CHECK_EQ_I(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &n, NULL),
               CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
    CHECK_EQ_I(cudnnBackendFinalize(heuristic), CUDNN_STATUS_SUCCESS);
    for (int i = 0; i < 8; ++i) config[i] = make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    CHECK_EQ_I(cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 8, &n, config),
               CUDNN_STATUS_SUCCESS);
    CHECK_EQ_I(n, 4);
    cudnnBackendDescriptor_t engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnnBackendNumericalNote_t notes[4];
    CHECK_EQ_I(cudnnBackendGetAttribute(config[0], CUDNN_ATTR_ENGINECFG_ENGINE,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine),
               CUDNN_STATUS_SUCCESS);
    CHECK_EQ_I(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                        CUDNN_TYPE_NUMERICAL_NOTE, 4, &n, notes),
               CUDNN_STATUS_SUCCESS);
    CHECK(n == 2 && notes[1] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    CHECK(make_plan(&g, 2, &status) == NULL);
    CHECK_EQ_I(status, CUDNN_STATUS_NOT_SUPPORTED_SHAPE);
    // Pointers: alignment, a missing workspace.
    void *data[3] = {device(1 << 16), device(1 << 16), device(1 << 16)};
    cudnnBackendDescriptor_t plan = make_plan(&g, 4, &status);
    NEED(plan != NULL);
    CHECK_EQ_I(execute(&g, plan, data, NULL), CUDNN_STATUS_BAD_PARAM_NULL_POINTER);
    void *workspace = device(1 << 16), *shifted[3] = {(char *)data[0] + 4, data[1], data[2]};
    CHECK_EQ_I(execute(&g, plan, shifted, workspace), CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER);
    CHECK_EQ_I(execute(&g, plan, data, workspace), CUDNN_STATUS_SUCCESS);
    wait_all();
    // Attributes: unknown ones, wrong types, changes of finished descriptors.
    const float one = 1;
    cudnnBackendDescriptor_t tensor = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    CHECK_EQ_I(cudnnBackendSetAttribute(tensor, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_FLOAT,
                                        1, &one),
               CUDNN_STATUS_NOT_SUPPORTED);
    CHECK_EQ_I(
        cudnnBackendSetAttribute(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_FLOAT, 1, &one),
        CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE);
    CHECK_EQ_I(cudnnBackendFinalize(tensor), CUDNN_STATUS_BAD_PARAM);
    CHECK_EQ_I(cudnnBackendSetAttribute(g.part[5], CUDNN_ATTR_OPERATIONGRAPH_OPS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &g.part[4]),
               CUDNN_STATUS_BAD_PARAM);
    CHECK_EQ_I(cudnnBackendSetAttribute(make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR),
                                        CUDNN_ATTR_OPERATIONGRAPH_OPS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &tensor),
               CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED);
    for (int i = 0; i < 8; ++i) (void)cudnnBackendDestroyDescriptor(config[i]);
    (void)cudnnBackendDestroyDescriptor(engine);
    (void)cudnnBackendDestroyDescriptor(tensor);
    (void)cudnnBackendDestroyDescriptor(heuristic);
    (void)cudnnBackendDestroyDescriptor(plan);
    for (int i = 0; i < 3; ++i) NEED_CUDA(cudaFree(data[i]));
    NEED_CUDA(cudaFree(workspace));
    reset_graph(&g);
}

/// The engine that does not repeat its bits does not; the others do.
static void test_determinism(void) {
    conv_t p = CONV;
    p.c = 64;
    p.filters = 64;
    const size_t bytes[3] = {3 * 64 * 72 * 4, 64 * 64 * 6 * 4, 3 * 64 * 9 * 9 * 4};
    for (int kind = 0; kind < 3; ++kind)
        for (int64_t engine = 1; engine <= 4; engine += 3) {
            graph_t g = {0};
            cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
            void *host = random_array(100000, false, 9), *data[3], *first, *second;
            p.kind = kind;
            const int out = kind == 0 ? 2 : kind == 1 ? 0 : 1;
            NEED(make_graph(&p, 0, &g) == CUDNN_STATUS_SUCCESS);
            cudnnBackendDescriptor_t plan = make_plan(&g, engine, &status);
            void *workspace = device(1 << 16);
            for (int i = 0; i < 3; ++i) data[i] = upload(host, bytes[i]);
            first = malloc(bytes[out]), second = malloc(bytes[out]);
            CHECK_EQ_I(execute(&g, plan, data, workspace), CUDNN_STATUS_SUCCESS);
            download(first, data[out], bytes[out]);
            CHECK_EQ_I(execute(&g, plan, data, workspace), CUDNN_STATUS_SUCCESS);
            download(second, data[out], bytes[out]);
            CHECK_EQ_I(memcmp(first, second, bytes[out]) == 0, engine == 4);
            for (int i = 0; i < 3; ++i) NEED_CUDA(cudaFree(data[i]));
            NEED_CUDA(cudaFree(workspace));
            free(host), free(first), free(second);
            (void)cudnnBackendDestroyDescriptor(plan);
            reset_graph(&g);
        }
}

TEST_MAIN {
    // Children first: they must not inherit a device, or threads, that this process has begun to use.
    RUN(test_kernel_rules);
    RUN(test_memory_rules);
    RUN(test_settings);
    CHECK_ABORT(bad_product_alignment, "A, 0x", "is not aligned to the 16 bytes");
    CHECK_ABORT(bad_product_length, "cublasLtMatmul: B: 64 bytes", "it ends 4 bytes too early");
    CHECK_ABORT(bad_product_overlap, "A and D overlap", NULL);
    CHECK_ABORT(bad_product_host, "cublasLtMatmul: A", "pageable host memory");
    RUN(test_device);
    RUN(test_late);
    RUN(test_staging);
    RUN(test_streams);
    RUN(test_events);
    RUN(test_graph);
    RUN(test_indices);
    RUN(test_orders);
    RUN(test_barriers);
    RUN(test_stale);
    RUN(test_shuffles);
    RUN(test_votes);
    RUN(test_atomics);
    RUN(test_bf16);
    RUN(test_arithmetic);
    RUN(test_warp_product);
    RUN(test_products);
    RUN(test_product_answers);
    RUN(test_convolutions);
    RUN(test_convolution_answers);
    RUN(test_determinism);
}

#endif
