/// The emulated CUDA runtime: device memory that host code cannot touch, streams whose work runs when something waits for
/// it, events, copies, graphs, and failures asked for by the environment.
#include "cuda_runtime_api.h"

#include "emu.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

namespace hirl_emu {
namespace {

struct allocation {
    char *pages; // first page
    size_t n_page_bytes;
    char *data;
    size_t bytes;
};

struct failure {
    std::string name;
    uint64_t n;
    bool and_later;
};

struct capture;

} // namespace
} // namespace hirl_emu

struct CUstream_st {
    struct dependency {
        std::shared_ptr<CUstream_st> stream;
        uint64_t ticket;
    };
    struct task {
        const char *name;
        std::function<void()> work;
        std::vector<dependency> dependencies;
    };
    unsigned flags = 0;
    uint64_t issued = 0, done = 0;
    std::deque<task> queue;
    std::vector<dependency> waits; // what the next task must wait for
    std::shared_ptr<hirl_emu::capture> capturing;
    bool is_origin = false; // of the capture
    uint64_t n_captured = 0,
             n_joined = 0; // its work in the capture, and how much of that another stream waits for
};

namespace hirl_emu {
namespace {

struct capture {
    cudaStreamCaptureMode mode;
    pid_t thread;
    bool is_broken = false, has_ended = false;
    std::vector<std::pair<const char *, std::function<void()>>> work;
};

/// One record of an event.
struct mark {
    std::shared_ptr<CUstream_st> stream;
    uint64_t ticket = 0;
    int64_t ns = 0;
    std::shared_ptr<capture> captured; // then ticket counts the stream's captured work
};

} // namespace
} // namespace hirl_emu

struct CUevent_st {
    unsigned flags;
    std::shared_ptr<hirl_emu::mark> last; // NULL: never recorded
};
struct CUgraph_st {
    std::shared_ptr<hirl_emu::capture> work;
};
struct CUgraphExec_st {
    std::shared_ptr<hirl_emu::capture> work;
};

namespace hirl_emu {
namespace {

enum class order { late, early, random };

struct device {
    std::recursive_mutex lock;
    bool is_ready = false;
    int n_devices = 1, n_multiprocessors = 4;
    order when = order::late;
    uint64_t random = 1;
    bool is_paranoid = false, is_traced = false;
    std::vector<failure> failures;
    std::map<std::string, uint64_t> n_calls;

    char *base = nullptr, *limit = nullptr, *next = nullptr; // reserved addresses
    size_t page = 4096, memory = 0, used = 0;
    int pkey = -1;
    std::atomic<int> n_opened{0};
    std::map<uintptr_t, allocation> live, freed; // by first page
    std::map<uintptr_t, size_t> pinned;
    std::map<uintptr_t, size_t> pinned_pages;          // those we own: mapped bytes
    std::vector<std::pair<char *, size_t>> given_back; // pinned pages that work may still use
    pid_t main_thread = 0;                             // the first that called
    struct sigaction old_segv, old_bus;

    std::shared_ptr<CUstream_st> legacy;
    std::map<CUstream_st *, std::shared_ptr<CUstream_st>> streams;
    std::vector<std::shared_ptr<CUstream_st>> destroyed; // with work left
    std::set<CUevent_st *> events;
    std::unordered_map<const void *, int> shared_limits;
    std::vector<std::shared_ptr<capture>> captures; // under way
    cudaError_t sticky = cudaSuccess;
    bool is_in_host_function = false;
} d;

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
thread_local int opened_depth = 0;
thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
thread_local running *now = nullptr;

constexpr unsigned char new_byte = 0xff;
constexpr unsigned char zone_bytes[2] = {0xb5, 0xff}; // NaN in f32 and bf16

// ---------------------------------------------------------------------------------------------- protection
// Protection keys open device memory to one thread for the price of an instruction; without them pages are switched.

#if defined(__x86_64__)
unsigned read_pkru() {
    unsigned value, high;
    asm volatile("rdpkru" : "=a"(value), "=d"(high) : "c"(0));
    return value;
}
void write_pkru(unsigned value) {
    asm volatile("wrpkru" : : "a"(value), "c"(0), "d"(0) : "memory");
}
void set_access(bool is_open) {
    const unsigned denied = 3u << (2 * d.pkey), value = read_pkru();
    write_pkru(is_open ? value & ~denied : value | denied);
}
int new_key() {
    const char *want = getenv("HIRL_EMU_PROTECT");
    if (want != nullptr && strcmp(want, "pages") == 0) return -1;
    return (int)syscall(SYS_pkey_alloc, 0, 1 /* PKEY_DISABLE_ACCESS */);
}
#else
void set_access(bool) {}
int new_key() { return -1; }
#endif

void protect_pages(bool is_open) {
    for (const auto &item : d.live)
        if (mprotect(item.second.pages, item.second.n_page_bytes,
                     is_open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
            fail("mprotect: %s", strerror(errno));
}

void set_open(bool is_open) {
    if (d.pkey >= 0)
        set_access(is_open);
    else if (is_open ? d.n_opened++ == 0 : --d.n_opened == 0)
        protect_pages(is_open);
}

/// The other way round: host functions of a stream run without device memory.
struct closed {
    closed() {
        if (opened_depth > 0) set_open(false);
    }
    ~closed() {
        if (opened_depth > 0) set_open(true);
    }
};

// ---------------------------------------------------------------------------------------------- faults

void print_context() {
    char text[600];
    describe_thread(text, sizeof text);
    if (text[0] != 0)
        fputs(text, stderr);
    else if (now != nullptr)
        fprintf(stderr, "  in %s\n", now->what);
}

void on_fault(int signal, siginfo_t *info, void *context) {
    const char *at = (const char *)info->si_addr;
    char text[200];
    if (at >= d.base && at < d.limit) {
        if (opened_depth > 0 && !d.is_in_host_function)
            fprintf(stderr, "emulated device: access to device address %p: %s\n", (const void *)at,
                    describe(at));
        else
            fprintf(stderr, "emulated device: host code touched device memory at %p, %s\n",
                    (const void *)at, describe(at));
        print_context();
        fflush(stderr);
        abort();
    }
    if (describe_guard(at, text, sizeof text)) {
        fprintf(stderr, "emulated device: a kernel %s\n", text);
        print_context();
        fflush(stderr);
        abort();
    }
    if (opened_depth > 0) {
        fprintf(stderr, "emulated device: access to address %p, which is no device memory\n",
                (const void *)at);
        print_context();
        fflush(stderr);
    }
    struct sigaction *old = signal == SIGSEGV ? &d.old_segv : &d.old_bus;
    if ((old->sa_flags & SA_SIGINFO) != 0 && old->sa_sigaction != nullptr) {
        old->sa_sigaction(signal, info, context);
        return;
    }
    if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
        old->sa_handler(signal);
        return;
    }
    struct sigaction plain = {};
    plain.sa_handler = SIG_DFL;
    sigaction(signal, &plain, nullptr); // the access is repeated and ends the program
}

/// The handler needs its own stack: a kernel's may be what overflowed.
struct alternate_stack {
    void *at;
    static constexpr size_t bytes = 128 << 10;
    alternate_stack() : at(malloc(bytes)) {
        stack_t s = {};
        s.ss_sp = at, s.ss_size = bytes;
        stack_t old;
        if (at == nullptr || sigaltstack(nullptr, &old) != 0 || (old.ss_flags & SS_DISABLE) == 0)
            return;
        sigaltstack(&s, nullptr);
        is_set = true;
    }
    ~alternate_stack() {
        if (is_set) {
            stack_t s = {};
            s.ss_flags = SS_DISABLE;
            sigaltstack(&s, nullptr);
        }
        free(at);
    }
    bool is_set = false;
};

// ---------------------------------------------------------------------------------------------- setting up

uint64_t env_number(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    if (text == nullptr || text[0] == 0) return otherwise;
    char *end;
    const uint64_t value = strtoull(text, &end, 10);
    if (*end != 0) fail("%s is '%s', want a number", name, text);
    return value;
}

void read_failures() {
    const char *text = getenv("HIRL_EMU_FAIL");
    if (text == nullptr) return;
    std::string all(text);
    for (size_t at = 0; at < all.size();) {
        const size_t end = std::min(all.find(',', at), all.size());
        const std::string item = all.substr(at, end - at);
        const size_t colon = item.find(':');
        char *rest;
        const uint64_t n =
            colon == std::string::npos ? 0 : strtoull(item.c_str() + colon + 1, &rest, 10);
        if (n == 0 || (*rest != 0 && strcmp(rest, "+") != 0))
            fail("HIRL_EMU_FAIL is '%s', want NAME:N or NAME:N+", text);
        d.failures.push_back({item.substr(0, colon), n, *rest == '+'});
        at = end + 1;
    }
}

void set_up() {
    d.is_ready = true;
    d.main_thread = gettid();
    d.n_devices = (int)env_number("HIRL_EMU_DEVICES", 1);
    d.n_multiprocessors = (int)env_number("HIRL_EMU_MULTIPROCESSORS", 4);
    d.is_paranoid = env_number("HIRL_EMU_PARANOID", 0) != 0;
    d.is_traced = env_number("HIRL_EMU_TRACE", 0) != 0;
    d.page = (size_t)sysconf(_SC_PAGESIZE);
    d.memory =
        env_number("HIRL_EMU_MEMORY",
                   std::min((uint64_t)8 << 30, (uint64_t)sysconf(_SC_PHYS_PAGES) * d.page / 2));
    const char *when = getenv("HIRL_EMU_ORDER");
    if (when != nullptr && strcmp(when, "early") == 0)
        d.when = order::early;
    else if (when != nullptr && strncmp(when, "random", 6) == 0) {
        d.when = order::random;
        if (when[6] == ':') d.random = strtoull(when + 7, nullptr, 10) * 2 + 1;
    } else if (when != nullptr && strcmp(when, "late") != 0)
        fail("HIRL_EMU_ORDER is '%s', want late, early, random or random:SEED", when);
    read_failures();
    const size_t reserved = std::max((size_t)256 << 30, 4 * d.memory);
    void *at =
        mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) fail("%zu bytes of addresses: %s", reserved, strerror(errno));
    d.base = (char *)at, d.limit = d.base + reserved, d.next = d.base;
    d.pkey = new_key();
    d.legacy = std::make_shared<CUstream_st>();
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &d.old_segv);
    sigaction(SIGBUS, &action, &d.old_bus);
}

int64_t
    clock_ns; // the device's own clock: what ran takes no other time than what is told by spend()

uint64_t next_random() {
    d.random ^= d.random << 13, d.random ^= d.random >> 7, d.random ^= d.random << 17;
    return d.random;
}

// ---------------------------------------------------------------------------------------------- memory

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

void fill_zone(char *at, const char *end) {
    for (; at < end; ++at) *at = (char)zone_bytes[(uintptr_t)at & 1];
}

void check_zone(const allocation &a, const char *at, const char *end, const char *when) {
    for (; at < end; ++at)
        if (*at != (char)zone_bytes[(uintptr_t)at & 1]) {
            const ptrdiff_t offset = at - a.data;
            if (offset < 0)
                fail("%s: something wrote %td bytes before an allocation of %zu bytes at %p", when,
                     -offset, a.bytes, (void *)a.data);
            fail("%s: something wrote %td bytes behind an allocation of %zu bytes at %p", when,
                 offset - (ptrdiff_t)a.bytes, a.bytes, (void *)a.data);
        }
}

void check_zones(const allocation &a, const char *when) {
    ASAN_UNPOISON_MEMORY_REGION(a.pages, a.n_page_bytes);
    check_zone(a, a.pages, a.data, when);
    check_zone(a, a.data + a.bytes, a.pages + a.n_page_bytes, when);
    ASAN_POISON_MEMORY_REGION(a.pages, (size_t)(a.data - a.pages));
    ASAN_POISON_MEMORY_REGION(a.data + a.bytes,
                              (size_t)(a.pages + a.n_page_bytes - a.data) - a.bytes);
}

/// Addresses for n bytes and a guard page behind; addresses are used again as late as possible.
char *find_addresses(size_t n) {
    for (int turn = 0; turn < 2; ++turn) {
        while (d.next + n + 2 * d.page <= d.limit) {
            char *at = d.next + d.page; // a guard in front
            auto after = d.live.lower_bound((uintptr_t)d.next);
            if (after != d.live.begin()) {
                const allocation &before = std::prev(after)->second;
                if (before.pages + before.n_page_bytes > d.next) {
                    d.next = before.pages + before.n_page_bytes;
                    continue;
                }
            }
            if (after != d.live.end() && after->second.pages < at + n + d.page) {
                d.next = after->second.pages + after->second.n_page_bytes;
                continue;
            }
            d.next = at + n;
            return at;
        }
        d.next = d.base;
    }
    return nullptr;
}

const allocation *find(const std::map<uintptr_t, allocation> &in, const void *ptr) {
    auto after = in.upper_bound((uintptr_t)ptr);
    return after == in.begin() ? nullptr : &std::prev(after)->second;
}

// ---------------------------------------------------------------------------------------------- work

void run_task(CUstream_st &stream) {
    CUstream_st::task t = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (d.sticky == cudaSuccess) {
        if (d.is_traced) fprintf(stderr, "emulated device: %s\n", t.name);
        running r(t.name);
        opened o;
        t.work();
        clock_ns += 1000;
        if (d.is_paranoid)
            for (const auto &item : d.live) check_zones(item.second, t.name);
    }
    ++stream.done;
}

/// Runs the stream's work up to `ticket`, and what that depends on, no more.
void run_until(const std::shared_ptr<CUstream_st> &stream, uint64_t ticket) {
    if (stream->done >= ticket) return;
    opened o;
    std::vector<CUstream_st::dependency> goals{{stream, ticket}};
    while (!goals.empty()) {
        const CUstream_st::dependency goal = goals.back();
        if (goal.stream->done >= goal.ticket) {
            goals.pop_back();
            continue;
        }
        bool is_free = true;
        for (const auto &dep : goal.stream->queue.front().dependencies)
            if (dep.stream->done < dep.ticket) {
                goals.push_back(dep);
                is_free = false;
                break;
            }
        if (is_free) run_task(*goal.stream);
    }
}

void forget_drained() {
    for (size_t i = 0; i < d.destroyed.size();)
        if (d.destroyed[i]->queue.empty())
            d.destroyed.erase(d.destroyed.begin() + (ptrdiff_t)i);
        else
            ++i;
}

void run_all() {
    for (auto item = d.streams.rbegin(); item != d.streams.rend(); ++item)
        run_until(item->second, item->second->issued);
    for (const auto &stream : d.destroyed) run_until(stream, stream->issued);
    run_until(d.legacy, d.legacy->issued);
    forget_drained();
}

/// With the random order any call may find that some work is done by now.
void run_some() {
    if (d.when != order::random || !d.captures.empty()) return;
    std::vector<std::shared_ptr<CUstream_st>> all{d.legacy};
    for (const auto &item : d.streams) all.push_back(item.second);
    const auto &stream = all[next_random() % all.size()];
    const uint64_t left = stream->issued - stream->done;
    if (left > 0 && next_random() % 2 == 0)
        run_until(stream, stream->done + 1 + next_random() % left);
}

std::shared_ptr<CUstream_st> stream_of(cudaStream_t handle) {
    if (handle == nullptr || handle == cudaStreamLegacy) return d.legacy;
    auto item = d.streams.find(handle);
    return item == d.streams.end() ? nullptr : item->second;
}

void wait_for(const std::shared_ptr<CUstream_st> &stream) { run_until(stream, stream->issued); }

void add_dependency(CUstream_st::task &t, const std::shared_ptr<CUstream_st> &on) {
    if (on->done < on->issued) t.dependencies.push_back({on, on->issued});
}

void add_task(const std::shared_ptr<CUstream_st> &stream, const char *name,
              std::function<void()> work) {
    if (stream->capturing != nullptr) {
        stream->capturing->work.emplace_back(name, std::move(work));
        ++stream->n_captured;
        return;
    }
    CUstream_st::task t{name, std::move(work), std::move(stream->waits)};
    stream->waits.clear();
    // The legacy stream waits for all that do not opt out, and they for it.
    if (stream == d.legacy) {
        for (const auto &item : d.streams)
            if ((item.second->flags & cudaStreamNonBlocking) == 0) add_dependency(t, item.second);
        for (const auto &old : d.destroyed)
            if ((old->flags & cudaStreamNonBlocking) == 0) add_dependency(t, old);
    } else if ((stream->flags & cudaStreamNonBlocking) == 0) {
        add_dependency(t, d.legacy);
    }
    stream->queue.push_back(std::move(t));
    ++stream->issued;
    constexpr uint64_t most = 1 << 14; // a real queue is finite too
    if (d.when == order::early)
        wait_for(stream);
    else if (stream->issued - stream->done > most)
        run_until(stream, stream->issued - most / 2);
}

/// Whether a call that a capture forbids meets one; that one is then broken.
bool breaks_capture() {
    bool is_broken = false;
    for (const auto &c : d.captures)
        if (thread_mode != cudaStreamCaptureModeRelaxed &&
            c->mode != cudaStreamCaptureModeRelaxed &&
            (c->mode == cudaStreamCaptureModeGlobal || c->thread == gettid()))
            is_broken = c->is_broken = true;
    return is_broken;
}

} // namespace

// ---------------------------------------------------------------------------------------------- for the other files

void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("emulated device: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    print_context();
    fflush(stderr);
    abort();
}

entry::entry(const char *name) : is_failing_(false) {
    d.lock.lock();
    static thread_local alternate_stack own_stack;
    (void)own_stack;
    if (!d.is_ready) set_up();
    if (d.is_in_host_function && strcmp(name, "cudaGetErrorString") != 0)
        fail("%s: called by a host function of a stream", name);
    if (!d.failures.empty()) {
        const uint64_t n = ++d.n_calls[name];
        for (const failure &f : d.failures)
            if (f.name == name && (n == f.n || (f.and_later && n > f.n))) is_failing_ = true;
    }
    if (d.pkey >= 0 && opened_depth == 0)
        set_access(false); // a new thread inherits its parent's state
}
entry::~entry() { d.lock.unlock(); }

opened::opened() {
    if (opened_depth++ == 0) set_open(true);
}
opened::~opened() {
    if (--opened_depth == 0) set_open(false);
}

running::running(const char *what_) : what(what_), outer(now) { now = this; }
running::~running() { now = outer; }

place place_of(const void *ptr) {
    if (ptr == nullptr) return place::none;
    const char *at = (const char *)ptr;
    if (at >= d.base && at < d.limit) {
        const allocation *a = find(d.live, ptr);
        // The end of an allocation may be the first byte of its guard.
        return a != nullptr && at >= a->data && at <= a->data + a->bytes ? place::device
                                                                         : place::wild;
    }
    auto after = d.pinned.upper_bound((uintptr_t)ptr);
    if (after != d.pinned.begin()) {
        const auto &item = *std::prev(after);
        if ((uintptr_t)ptr <= item.first + item.second) return place::pinned;
    }
    return place::host;
}

const char *place_text(place where) {
    switch (where) {
        case place::none: return "no memory (NULL)";
        case place::host: return "pageable host memory";
        case place::pinned: return "pinned host memory";
        case place::device: return "device memory";
        case place::wild: return "no live device allocation";
    }
    return "?";
}

const char *describe(const void *ptr) {
    static thread_local char text[200];
    const char *at = (const char *)ptr;
    if (at < d.base || at >= d.limit) {
        snprintf(text, sizeof text, "not the device's");
        return text;
    }
    const allocation *a = find(d.live, ptr), *old = find(d.freed, ptr);
    if (a != nullptr && at < a->pages + a->n_page_bytes + d.page) {
        if (at < a->data)
            snprintf(text, sizeof text, "%td bytes before an allocation of %zu bytes", a->data - at,
                     a->bytes);
        else if (at >= a->data + a->bytes)
            snprintf(text, sizeof text, "%td bytes behind the end of an allocation of %zu bytes",
                     at - a->data - (ptrdiff_t)a->bytes, a->bytes);
        else
            snprintf(text, sizeof text, "%td bytes into an allocation of %zu bytes", at - a->data,
                     a->bytes);
    } else if (old != nullptr && at < old->pages + old->n_page_bytes) {
        snprintf(text, sizeof text, "%td bytes into an allocation of %zu bytes that was freed",
                 at - old->data, old->bytes);
    } else {
        auto after = d.live.upper_bound((uintptr_t)ptr);
        if (after != d.live.end() && after->second.pages - at <= (ptrdiff_t)d.page)
            snprintf(text, sizeof text, "%td bytes before an allocation of %zu bytes",
                     after->second.data - at, after->second.bytes);
        else
            snprintf(text, sizeof text, "in no allocation");
    }
    return text;
}

void require_device(const void *ptr, size_t bytes, const char *what) {
    if (bytes == 0) return;
    const place where = place_of(ptr);
    if (where == place::device) {
        const allocation *a = find(d.live, ptr);
        const size_t left = (size_t)(a->data + a->bytes - (const char *)ptr);
        if (bytes > left)
            fail("%s: %zu bytes at %p, %s: it ends %zu bytes too early", what, bytes, ptr,
                 describe(ptr), bytes - left);
        return;
    }
    if (where == place::pinned) {
        const auto &item = *std::prev(d.pinned.upper_bound((uintptr_t)ptr));
        const size_t left = item.first + item.second - (uintptr_t)ptr;
        if (bytes > left)
            fail("%s: %zu bytes at %p, of which %zu are pinned memory", what, bytes, ptr, left);
        return;
    }
    fail("%s: %p lies in %s (%s); want device memory", what, ptr, place_text(where), describe(ptr));
}

cudaError_t enqueue(cudaStream_t handle, const char *name, std::function<void()> work) {
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    add_task(stream, name, std::move(work));
    run_some();
    return cudaSuccess;
}

void spend(int64_t ns) { clock_ns += ns; }
void spend_as_algorithm(int index) {
    const char *text = getenv("HIRL_EMU_FASTEST");
    if (text != nullptr && atoi(text) != index) spend(5000);
}

void run_before_mpi() {
    const std::lock_guard<std::recursive_mutex> locked(d.lock);
    if (d.is_ready && gettid() == d.main_thread && !d.is_in_host_function && now == nullptr)
        run_all();
}

bool is_stream(cudaStream_t stream) { return stream_of(stream) != nullptr; }
void set_sticky_error(cudaError_t code) { d.sticky = code; }
cudaError_t sticky_error() { return d.sticky; }
cudaError_t remember(cudaError_t code) {
    if (code != cudaSuccess) last_error = code;
    return code;
}
bool is_paranoid() { return d.is_paranoid; }
int n_multiprocessors() { return d.n_multiprocessors; }
size_t allowed_shared(const void *func) {
    auto item = d.shared_limits.find(func);
    return item == d.shared_limits.end() ? default_shared
                                         : std::max(default_shared, (size_t)item->second);
}

} // namespace hirl_emu

// ---------------------------------------------------------------------------------------------- the interface

using namespace hirl_emu;

#define ENTER(name, code)                                     \
    entry entry_(name);                                       \
    if (d.n_devices == 0) return remember(cudaErrorNoDevice); \
    if (d.sticky != cudaSuccess) return remember(d.sticky);   \
    if (entry_.is_failing()) return remember(code)
#define WANT(condition, code) \
    if (!(condition)) return remember(code)
#define NOT_CAPTURING() WANT(!breaks_capture(), cudaErrorStreamCaptureUnsupported)

extern "C" {

cudaError_t cudaGetDeviceCount(int *count) {
    entry e("cudaGetDeviceCount");
    WANT(count != nullptr, cudaErrorInvalidValue);
    *count = d.n_devices;
    WANT(!e.is_failing(), cudaErrorInsufficientDriver);
    return d.n_devices == 0 ? remember(cudaErrorNoDevice) : cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    ENTER("cudaGetDevice", cudaErrorInitializationError);
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    ENTER("cudaSetDevice", cudaErrorInvalidDevice);
    WANT(device >= 0 && device < d.n_devices, cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) {
    ENTER("cudaSetDeviceFlags", cudaErrorInvalidValue);
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    ENTER("cudaGetDeviceProperties", cudaErrorInvalidDevice);
    WANT(p != nullptr, cudaErrorInvalidValue);
    WANT(device >= 0 && device < d.n_devices, cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated");
    memcpy(p->uuid.bytes, "emulated", 8);
    // Each process has devices of its own, unless they are to look like one that is shared.
    const uint32_t owner = (uint32_t)env_number("HIRL_EMU_OWNER", (uint64_t)getpid());
    memcpy(p->uuid.bytes + 8, &owner, sizeof owner);
    p->uuid.bytes[15] = (char)device;
    p->totalGlobalMem = d.memory;
    p->sharedMemPerBlock = default_shared;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->memPitch = 0x7fffffff;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = 9;
    p->multiProcessorCount = d.n_multiprocessors;
    p->canMapHostMemory = p->concurrentKernels = p->unifiedAddressing = 1;
    p->asyncEngineCount = 2;
    p->pciBusID = 1 + device;
    p->l2CacheSize = 4 << 20;
    p->memoryBusWidth = 64;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->sharedMemPerBlockOptin = most_shared;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device) {
    struct cudaDeviceProp p;
    const cudaError_t code = cudaGetDeviceProperties(&p, device);
    if (code != cudaSuccess) return code;
    ENTER("cudaDeviceGetAttribute", cudaErrorInvalidValue);
    switch (attr) {
        case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
        case cudaDevAttrMaxBlockDimX: *value = p.maxThreadsDim[0]; break;
        case cudaDevAttrMaxBlockDimY: *value = p.maxThreadsDim[1]; break;
        case cudaDevAttrMaxBlockDimZ: *value = p.maxThreadsDim[2]; break;
        case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
        case cudaDevAttrMaxGridDimY: *value = p.maxGridSize[1]; break;
        case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[2]; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
        case cudaDevAttrWarpSize: *value = p.warpSize; break;
        case cudaDevAttrMaxRegistersPerBlock: *value = p.regsPerBlock; break;
        case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
        case cudaDevAttrIntegrated: *value = 0; break;
        case cudaDevAttrPciBusId: *value = p.pciBusID; break;
        case cudaDevAttrPciDeviceId: *value = p.pciDeviceID; break;
        case cudaDevAttrPciDomainId: *value = p.pciDomainID; break;
        case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
        case cudaDevAttrUnifiedAddressing: *value = 1; break;
        case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
        case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
            *value = (int)p.sharedMemPerMultiprocessor;
            break;
        case cudaDevAttrMaxRegistersPerMultiprocessor: *value = p.regsPerMultiprocessor; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
        case cudaDevAttrMemoryPoolsSupported: *value = 0; break;
        default: return remember(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int len, int device) {
    ENTER("cudaDeviceGetPCIBusId", cudaErrorInvalidDevice);
    WANT(device >= 0 && device < d.n_devices, cudaErrorInvalidDevice);
    WANT(text != nullptr && len >= 13, cudaErrorInvalidValue);
    snprintf(text, (size_t)len, "0000:%02x:00.0", 1 + device);
    return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    ENTER("cudaDeviceGetStreamPriorityRange", cudaErrorInitializationError);
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize(void) {
    ENTER("cudaDeviceSynchronize", cudaErrorLaunchFailure);
    NOT_CAPTURING();
    run_all();
    return remember(d.sticky);
}
cudaError_t cudaDeviceReset(void) {
    entry e("cudaDeviceReset");
    run_all();
    d.sticky = cudaSuccess;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    entry e("cudaRuntimeGetVersion");
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    entry e("cudaDriverGetVersion");
    *version = d.n_devices == 0 ? 0 : CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void) {
    entry e("cudaGetLastError");
    const cudaError_t code = d.sticky != cudaSuccess ? d.sticky : last_error;
    last_error = cudaSuccess;
    return code;
}
cudaError_t cudaPeekAtLastError(void) {
    entry e("cudaPeekAtLastError");
    return d.sticky != cudaSuccess ? d.sticky : last_error;
}
const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define HIRL_EMU_ERROR_NAME(name, value, text) \
    case name: return #name;
        HIRL_EMU_CUDA_ERRORS(HIRL_EMU_ERROR_NAME)
#undef HIRL_EMU_ERROR_NAME
    }
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
#define HIRL_EMU_ERROR_TEXT(name, value, text) \
    case name: return text;
        HIRL_EMU_CUDA_ERRORS(HIRL_EMU_ERROR_TEXT)
#undef HIRL_EMU_ERROR_TEXT
    }
    return "unrecognized error code";
}

// ---------------------------------------------------------------------------------------------- memory

cudaError_t cudaMalloc(void **ptr, size_t bytes) {
    ENTER("cudaMalloc", cudaErrorMemoryAllocation);
    NOT_CAPTURING();
    WANT(ptr != nullptr, cudaErrorInvalidValue);
    run_some();
    if (bytes == 0) {
        *ptr = nullptr;
        return cudaSuccess;
    }
    WANT(bytes <= d.memory && round_up(bytes, 512) <= d.memory - d.used, cudaErrorMemoryAllocation);
    const size_t n = round_up(round_up(bytes, 256), d.page);
    allocation a{find_addresses(n), n, nullptr, bytes};
    WANT(a.pages != nullptr, cudaErrorMemoryAllocation);
    a.data = a.pages + n - round_up(bytes, 256); // what runs past the end meets the guard
    if (d.pkey >= 0 ? syscall(SYS_pkey_mprotect, a.pages, n, PROT_READ | PROT_WRITE, d.pkey) != 0
                    : mprotect(a.pages, n, PROT_READ | PROT_WRITE) != 0)
        return remember(cudaErrorMemoryAllocation);
    {
        opened o;
        fill_zone(a.pages, a.data);
        memset(a.data, new_byte, bytes);
        fill_zone(a.data + bytes, a.pages + n);
    }
    if (d.pkey < 0 && d.n_opened == 0) mprotect(a.pages, n, PROT_NONE);
    ASAN_POISON_MEMORY_REGION(a.pages, (size_t)(a.data - a.pages));
    ASAN_POISON_MEMORY_REGION(a.data + bytes, (size_t)(a.pages + n - a.data) - bytes);
    // What was freed at these addresses long ago is forgotten.
    for (auto old = d.freed.lower_bound((uintptr_t)a.pages);
         old != d.freed.end() && old->first < (uintptr_t)a.pages + n;)
        old = d.freed.erase(old);
    d.live[(uintptr_t)a.pages] = a;
    d.used += round_up(bytes, 512);
    *ptr = a.data;
    return cudaSuccess;
}

cudaError_t cudaFree(void *ptr) {
    ENTER("cudaFree", cudaErrorInvalidValue);
    NOT_CAPTURING();
    if (ptr == nullptr) return cudaSuccess;
    run_all();
    const allocation *found = find(d.live, ptr);
    if (found == nullptr || found->data != ptr)
        fail("cudaFree: %p is not what cudaMalloc gave: %s (%s)", ptr, place_text(place_of(ptr)),
             describe(ptr));
    const allocation a = *found;
    {
        opened o;
        check_zones(a, "cudaFree");
    }
    ASAN_UNPOISON_MEMORY_REGION(a.pages, a.n_page_bytes);
    d.live.erase((uintptr_t)a.pages);
    d.freed[(uintptr_t)a.pages] = a;
    d.used -= round_up(a.bytes, 512);
    // The pages go, so that any use of them is noticed.
    if (mmap(a.pages, a.n_page_bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        fail("cudaFree: %s", strerror(errno));
    return remember(d.sticky);
}

cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned) {
    ENTER("cudaHostAlloc", cudaErrorMemoryAllocation);
    NOT_CAPTURING();
    WANT(ptr != nullptr, cudaErrorInvalidValue);
    if (bytes == 0) {
        *ptr = nullptr;
        return cudaSuccess;
    }
    const size_t n = round_up(round_up(bytes, 256), d.page);
    char *pages = (char *)mmap(nullptr, n + 2 * d.page, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    WANT(pages != (char *)MAP_FAILED, cudaErrorMemoryAllocation);
    WANT(mprotect(pages + d.page, n, PROT_READ | PROT_WRITE) == 0, cudaErrorMemoryAllocation);
    char *data = pages + d.page + n - round_up(bytes, 256);
    memset(data, new_byte, bytes);
    d.pinned[(uintptr_t)data] = bytes;
    d.pinned_pages[(uintptr_t)data] = n + 2 * d.page;
    *ptr = data;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **ptr, size_t bytes) {
    { ENTER("cudaMallocHost", cudaErrorMemoryAllocation); }
    return cudaHostAlloc(ptr, bytes, 0);
}
cudaError_t cudaFreeHost(void *ptr) {
    ENTER("cudaFreeHost", cudaErrorInvalidValue);
    NOT_CAPTURING();
    if (ptr == nullptr) return cudaSuccess;
    // The real call waits for the device. Another thread than the main one must not run what may need MPI: the memory then stays until
    // the main one gives something back.
    if (gettid() == d.main_thread) run_all();
    auto item = d.pinned_pages.find((uintptr_t)ptr);
    if (item == d.pinned_pages.end())
        fail("cudaFreeHost: %p is not what cudaHostAlloc gave: %s (%s)", ptr,
             place_text(place_of(ptr)), describe(ptr));
    const size_t bytes = d.pinned[(uintptr_t)ptr], n = item->second - 2 * d.page;
    char *pages = (char *)ptr - (n - round_up(bytes, 256)) - d.page;
    d.pinned.erase((uintptr_t)ptr);
    d.pinned_pages.erase(item);
    d.given_back.emplace_back(pages, n + 2 * d.page);
    if (gettid() == d.main_thread) {
        for (const auto &old : d.given_back) munmap(old.first, old.second);
        d.given_back.clear();
    }
    return remember(d.sticky);
}
cudaError_t cudaHostRegister(void *ptr, size_t bytes, unsigned) {
    ENTER("cudaHostRegister", cudaErrorMemoryAllocation);
    WANT(ptr != nullptr && bytes > 0, cudaErrorInvalidValue);
    WANT(place_of(ptr) == place::host, cudaErrorHostMemoryAlreadyRegistered);
    d.pinned[(uintptr_t)ptr] = bytes;
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *ptr) {
    ENTER("cudaHostUnregister", cudaErrorInvalidValue);
    WANT(d.pinned.count((uintptr_t)ptr) == 1 && d.pinned_pages.count((uintptr_t)ptr) == 0,
         cudaErrorHostMemoryNotRegistered);
    run_all();
    d.pinned.erase((uintptr_t)ptr);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    ENTER("cudaMemGetInfo", cudaErrorInvalidValue);
    *free_bytes = d.memory - d.used;
    *total_bytes = d.memory;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *ptr) {
    ENTER("cudaPointerGetAttributes", cudaErrorInvalidValue);
    WANT(attributes != nullptr, cudaErrorInvalidValue);
    memset(attributes, 0, sizeof *attributes);
    switch (place_of(ptr)) {
        case place::device:
            attributes->type = cudaMemoryTypeDevice;
            attributes->devicePointer = (void *)(uintptr_t)ptr;
            break;
        case place::pinned:
            attributes->type = cudaMemoryTypeHost;
            attributes->devicePointer = attributes->hostPointer = (void *)(uintptr_t)ptr;
            break;
        default:
            attributes->type = cudaMemoryTypeUnregistered;
            attributes->device = -2;
            attributes->hostPointer = (void *)(uintptr_t)ptr;
    }
    return cudaSuccess;
}

} // extern "C"

namespace hirl_emu {
namespace {

bool is_device(const void *ptr, size_t bytes, const char *what, const char *side) {
    const place where = place_of(ptr);
    if (where == place::none) fail("%s: the %s is NULL", what, side);
    if (where == place::wild) fail("%s: the %s, %p: %s", what, side, ptr, describe(ptr));
    if (where != place::host) require_device(ptr, bytes, what);
    return where == place::device;
}

/// Aborts if the kind of a copy is not what its addresses are.
void check_kind(bool is_from_device, bool is_to_device, enum cudaMemcpyKind kind,
                const char *what) {
    static const char *const text[] = {"host to host", "host to device", "device to host",
                                       "device to device"};
    const int is = (is_from_device ? 2 : 0) + (is_to_device ? 1 : 0);
    if (kind == cudaMemcpyDefault || (int)kind == is) return;
    if ((unsigned)kind > 3) fail("%s: there is no kind %d", what, (int)kind);
    fail("%s: the kind says %s, the addresses say %s", what, text[kind], text[is]);
}

/// Copies rows; a plain copy has one. Blocking copies wait for what the host will look at or change next.
cudaError_t copy(const char *what, void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                 size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t handle,
                 bool is_blocking) {
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    WANT(width <= dst_pitch && width <= src_pitch, cudaErrorInvalidPitchValue);
    if (width == 0 || height == 0) return cudaSuccess;
    if (is_blocking) NOT_CAPTURING();
    const bool is_to_device = is_device(dst, dst_pitch * (height - 1) + width, what, "destination");
    const bool is_from_device = is_device(src, src_pitch * (height - 1) + width, what, "source");
    check_kind(is_from_device, is_to_device, kind, what);
    const bool is_from_pageable = place_of(src) == place::host,
               is_to_pageable = place_of(dst) == place::host;
    if (stream->capturing != nullptr && (is_from_pageable || is_to_pageable)) {
        stream->capturing->is_broken = true;
        return remember(cudaErrorStreamCaptureUnsupported);
    }
    std::shared_ptr<char> staged;
    if (is_from_pageable && is_to_device) {
        // The real runtime has read pageable memory before it returns.
        staged.reset((char *)malloc(width * height), free);
        if (staged == nullptr) fail("%s: no memory for a copy of %zu bytes", what, width * height);
        for (size_t i = 0; i < height; ++i)
            memcpy(staged.get() + i * width, (const char *)src + i * src_pitch, width);
        src = staged.get();
        src_pitch = width;
    }
    add_task(stream, what, [=]() {
        (void)staged;
        for (size_t i = 0; i < height; ++i)
            memmove((char *)dst + i * dst_pitch, (const char *)src + i * src_pitch, width);
    });
    const bool is_on_host = !is_to_device || !is_from_device;
    if ((is_blocking && is_on_host) || is_to_pageable || (is_from_pageable && !is_to_device))
        wait_for(stream);
    run_some();
    return remember(d.sticky);
}

cudaError_t set_bytes(const char *what, void *ptr, int value, size_t bytes, cudaStream_t handle) {
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    if (bytes == 0) return cudaSuccess;
    require_device(ptr, bytes, what);
    add_task(stream, what, [=]() { memset(ptr, value, bytes); });
    run_some();
    return cudaSuccess;
}

} // namespace
} // namespace hirl_emu

extern "C" {

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind) {
    ENTER("cudaMemcpy", cudaErrorInvalidValue);
    return copy("cudaMemcpy", dst, bytes, src, bytes, bytes, 1, kind, nullptr, true);
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    ENTER("cudaMemcpyAsync", cudaErrorInvalidValue);
    return copy("cudaMemcpyAsync", dst, bytes, src, bytes, bytes, 1, kind, stream, false);
}
cudaError_t cudaMemcpy2D(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind) {
    ENTER("cudaMemcpy2D", cudaErrorInvalidValue);
    return copy("cudaMemcpy2D", dst, dst_pitch, src, src_pitch, width, height, kind, nullptr, true);
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    ENTER("cudaMemcpy2DAsync", cudaErrorInvalidValue);
    return copy("cudaMemcpy2DAsync", dst, dst_pitch, src, src_pitch, width, height, kind, stream,
                false);
}
cudaError_t cudaMemset(void *ptr, int value, size_t bytes) {
    ENTER("cudaMemset", cudaErrorInvalidValue);
    NOT_CAPTURING();
    return set_bytes("cudaMemset", ptr, value, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void *ptr, int value, size_t bytes, cudaStream_t stream) {
    ENTER("cudaMemsetAsync", cudaErrorInvalidValue);
    return set_bytes("cudaMemsetAsync", ptr, value, bytes, stream);
}

// ---------------------------------------------------------------------------------------------- streams, events

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int) {
    ENTER("cudaStreamCreate", cudaErrorMemoryAllocation);
    WANT(stream != nullptr && flags <= cudaStreamNonBlocking, cudaErrorInvalidValue);
    auto made = std::make_shared<CUstream_st>();
    made->flags = flags;
    d.streams[made.get()] = made;
    *stream = made.get();
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    entry e("cudaStreamDestroy");
    auto item = d.streams.find(handle);
    WANT(item != d.streams.end(), cudaErrorInvalidResourceHandle);
    if (!item->second->queue.empty()) d.destroyed.push_back(item->second);
    d.streams.erase(item);
    return remember(d.sticky);
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    ENTER("cudaStreamSynchronize", cudaErrorLaunchFailure);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    if (stream->capturing != nullptr) {
        stream->capturing->is_broken = true;
        return remember(cudaErrorStreamCaptureUnsupported);
    }
    for (const auto &dep : stream->waits) run_until(dep.stream, dep.ticket);
    wait_for(stream);
    if (stream == d.legacy)
        for (const auto &item : d.streams)
            if ((item.second->flags & cudaStreamNonBlocking) == 0) wait_for(item.second);
    run_some();
    return remember(d.sticky);
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    ENTER("cudaStreamQuery", cudaErrorLaunchFailure);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    if (stream->capturing != nullptr) {
        stream->capturing->is_broken = true;
        return remember(cudaErrorStreamCaptureUnsupported);
    }
    if (stream->queue.empty()) return cudaSuccess;
    run_until(stream, stream->done + 1); // so that polling ends
    return remember(d.sticky != cudaSuccess ? d.sticky : cudaErrorNotReady);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
    ENTER("cudaStreamWaitEvent", cudaErrorInvalidResourceHandle);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr && d.events.count(event) == 1, cudaErrorInvalidResourceHandle);
    if (event->last == nullptr) return cudaSuccess;
    const hirl_emu::mark &last = *event->last;
    if (last.captured != nullptr) {
        WANT(!last.captured->has_ended, cudaErrorInvalidValue);
        if (stream->capturing != nullptr && stream->capturing != last.captured) {
            stream->capturing->is_broken = last.captured->is_broken = true;
            return remember(cudaErrorStreamCaptureIsolation);
        }
        if (stream->capturing == nullptr) stream->n_captured = stream->n_joined = 0;
        stream->capturing = last.captured; // joins, or has joined
        if (stream != last.stream) {
            ++stream->n_captured;
            last.stream->n_joined = std::max(last.stream->n_joined, last.ticket);
        }
        return cudaSuccess;
    }
    if (stream->capturing != nullptr) {
        stream->capturing->is_broken = true;
        return remember(cudaErrorStreamCaptureIsolation);
    }
    if (event->last->stream->done < event->last->ticket)
        stream->waits.push_back({event->last->stream, event->last->ticket});
    return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned *flags) {
    ENTER("cudaStreamGetFlags", cudaErrorInvalidResourceHandle);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    *flags = stream->flags;
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t fn, void *user_data) {
    ENTER("cudaLaunchHostFunc", cudaErrorInvalidValue);
    WANT(fn != nullptr, cudaErrorInvalidValue);
    return remember(enqueue(handle, "a host function", [=]() {
        closed c;
        d.is_in_host_function = true;
        fn(user_data);
        d.is_in_host_function = false;
    }));
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    ENTER("cudaEventCreate", cudaErrorMemoryAllocation);
    WANT(event != nullptr && flags < 8, cudaErrorInvalidValue);
    *event = new CUevent_st{flags, nullptr};
    d.events.insert(*event);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    entry e("cudaEventDestroy");
    WANT(d.events.erase(event) == 1, cudaErrorInvalidResourceHandle);
    delete event;
    return remember(d.sticky);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
    ENTER("cudaEventRecord", cudaErrorInvalidResourceHandle);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr && d.events.count(event) == 1, cudaErrorInvalidResourceHandle);
    auto made = std::make_shared<mark>();
    event->last = made;
    if (stream->capturing != nullptr) {
        made->captured = stream->capturing;
        made->stream = stream;
        made->ticket = stream->n_captured;
        return cudaSuccess;
    }
    made->stream = stream;
    made->ticket = stream->issued + 1;
    add_task(stream, "an event", [made]() { made->ns = clock_ns; });
    run_some();
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    ENTER("cudaEventQuery", cudaErrorLaunchFailure);
    WANT(d.events.count(event) == 1, cudaErrorInvalidResourceHandle);
    const std::shared_ptr<mark> last = event->last;
    if (last == nullptr) return cudaSuccess;
    WANT(last->captured == nullptr, cudaErrorStreamCaptureUnsupported);
    if (last->stream->done >= last->ticket) return cudaSuccess;
    run_until(last->stream, last->stream->done + 1);
    return remember(d.sticky != cudaSuccess ? d.sticky : cudaErrorNotReady);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    ENTER("cudaEventSynchronize", cudaErrorLaunchFailure);
    WANT(d.events.count(event) == 1, cudaErrorInvalidResourceHandle);
    const std::shared_ptr<mark> last = event->last;
    if (last == nullptr) return cudaSuccess;
    WANT(last->captured == nullptr, cudaErrorStreamCaptureUnsupported);
    run_until(last->stream, last->ticket);
    return remember(d.sticky);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    ENTER("cudaEventElapsedTime", cudaErrorInvalidResourceHandle);
    WANT(ms != nullptr, cudaErrorInvalidValue);
    for (const cudaEvent_t event : {start, end}) {
        WANT(d.events.count(event) == 1, cudaErrorInvalidResourceHandle);
        WANT(event->last != nullptr && event->last->stream != nullptr &&
                 (event->flags & cudaEventDisableTiming) == 0,
             cudaErrorInvalidResourceHandle);
        WANT(event->last->stream->done >= event->last->ticket, cudaErrorNotReady);
    }
    *ms = (float)((double)(end->last->ns - start->last->ns) * 1e-6);
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------- graphs
// Work in the order in which it was asked for; a graph runs as one piece.

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, enum cudaStreamCaptureMode mode) {
    ENTER("cudaStreamBeginCapture", cudaErrorStreamCaptureUnsupported);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    WANT(stream != d.legacy && stream->capturing == nullptr, cudaErrorStreamCaptureUnsupported);
    stream->capturing = std::make_shared<capture>();
    stream->capturing->mode = mode;
    stream->capturing->thread = gettid();
    stream->is_origin = true;
    stream->n_captured = stream->n_joined = 0;
    d.captures.push_back(stream->capturing);
    return cudaSuccess;
}
/// Ends the capture also where it answers an error.
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t *graph) {
    entry e("cudaStreamEndCapture");
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    WANT(stream->capturing != nullptr && stream->is_origin && graph != nullptr,
         cudaErrorInvalidValue);
    const std::shared_ptr<capture> ended = stream->capturing;
    WANT(ended->mode == cudaStreamCaptureModeRelaxed || ended->thread == gettid(),
         cudaErrorStreamCaptureWrongThread);
    bool is_joined = true;
    for (const auto &item : d.streams)
        if (item.second->capturing == ended) {
            if (item.second != stream && item.second->n_joined < item.second->n_captured)
                is_joined = false;
            item.second->capturing = nullptr;
        }
    stream->is_origin = false;
    ended->has_ended = true;
    d.captures.erase(std::find(d.captures.begin(), d.captures.end(), ended));
    *graph = nullptr;
    WANT(!ended->is_broken && !e.is_failing(), cudaErrorStreamCaptureInvalidated);
    WANT(is_joined, cudaErrorStreamCaptureUnjoined);
    *graph = new CUgraph_st{ended};
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    ENTER("cudaThreadExchangeStreamCaptureMode", cudaErrorInvalidValue);
    WANT(mode != nullptr, cudaErrorInvalidValue);
    std::swap(thread_mode, *mode);
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, enum cudaStreamCaptureStatus *status) {
    ENTER("cudaStreamIsCapturing", cudaErrorInvalidResourceHandle);
    const std::shared_ptr<CUstream_st> stream = stream_of(handle);
    WANT(stream != nullptr, cudaErrorInvalidResourceHandle);
    *status =
        stream->capturing != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    ENTER("cudaGraphInstantiate", cudaErrorMemoryAllocation);
    WANT(exec != nullptr && graph != nullptr, cudaErrorInvalidValue);
    *exec = new CUgraphExec_st{graph->work};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    ENTER("cudaGraphLaunch", cudaErrorLaunchOutOfResources);
    WANT(exec != nullptr, cudaErrorInvalidValue);
    WANT(stream_of(stream) == nullptr || stream_of(stream)->capturing == nullptr,
         cudaErrorNotSupported); // the real runtime would make it a part of the graph
    const std::shared_ptr<capture> work = exec->work;
    return remember(enqueue(stream, "a graph", [work]() {
        for (const auto &item : work->work) {
            running r(item.first);
            if (d.sticky == cudaSuccess) item.second();
        }
    }));
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    entry e("cudaGraphDestroy");
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    entry e("cudaGraphExecDestroy");
    delete exec;
    return cudaSuccess;
}

// ---------------------------------------------------------------------------------------------- functions

cudaError_t cudaFuncSetAttribute(const void *func, enum cudaFuncAttribute attr, int value) {
    ENTER("cudaFuncSetAttribute", cudaErrorInvalidValue);
    WANT(func != nullptr, cudaErrorInvalidDeviceFunction);
    if (attr == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        WANT(value >= 0 && (size_t)value <= most_shared, cudaErrorInvalidValue);
        d.shared_limits[func] = value;
    }
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *func) {
    ENTER("cudaFuncGetAttributes", cudaErrorInvalidDeviceFunction);
    WANT(attributes != nullptr && func != nullptr, cudaErrorInvalidValue);
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 90;
    attributes->maxDynamicSharedSizeBytes = (int)allowed_shared(func);
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n_blocks, const void *func,
                                                          int block_size, size_t dynamic_shared) {
    ENTER("cudaOccupancyMaxActiveBlocksPerMultiprocessor", cudaErrorInvalidValue);
    WANT(n_blocks != nullptr && func != nullptr && block_size > 0 && block_size <= 1024,
         cudaErrorInvalidValue);
    const size_t by_shared = (size_t)(228 << 10) / (dynamic_shared + 1024);
    *n_blocks = (int)std::min({(size_t)32, (size_t)(2048 / round_up((size_t)block_size, 32)),
                               dynamic_shared > allowed_shared(func) ? 0 : by_shared});
    return cudaSuccess;
}

} // extern "C"
