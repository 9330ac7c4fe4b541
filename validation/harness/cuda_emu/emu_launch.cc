/// Kernels of the emulated device: a fiber per thread of a block, barriers, warp functions, dynamic shared memory.
/// One host thread runs one block at a time. A fiber that never waits needs no stack of its own: the next thread of its
/// warp goes on where it ended, so kernels without barriers cost little more than their calls.
#include "cuda_runtime.h"

#include "emu.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves what a call must preserve, stores the stack pointer at *from, goes on with the stack `to`. The indirect jump is
// predicted better than a return to another place than the last call's.
extern "C" void hirl_emu_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(
    .text
    .globl hirl_emu_switch
    .type hirl_emu_switch, @function
hirl_emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    pop %rcx
    jmp *%rcx
    .size hirl_emu_switch, .-hirl_emu_switch
)");
constexpr size_t n_saved = 7; // words, the last is where to go on
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl hirl_emu_switch
    .type hirl_emu_switch, %function
hirl_emu_switch:
    sub sp, sp, #176
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp d8, d9, [sp, #80]
    stp d10, d11, [sp, #96]
    stp d12, d13, [sp, #112]
    stp d14, d15, [sp, #128]
    stp x29, x30, [sp, #160]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp d8, d9, [sp, #80]
    ldp d10, d11, [sp, #96]
    ldp d12, d13, [sp, #112]
    ldp d14, d15, [sp, #128]
    ldp x29, x30, [sp, #160]
    add sp, sp, #176
    br x30
    .size hirl_emu_switch, .-hirl_emu_switch
)");
constexpr size_t n_saved = 22;
#else
#error "no context switch for this processor"
#endif

namespace hirl_emu {

namespace {

constexpr int max_threads = 1024, max_warps = max_threads / 32;
constexpr size_t stack_bytes = 256 << 10, guard_bytes = 64 << 10;
constexpr size_t shared_area = 256 << 10;

enum class state : unsigned char { fresh, ready, barrier, warp, done };

struct stack {
    char *bottom; // above the guard
    void *fake;   // the sanitizer's
};

struct fiber {
    void *sp;
    stack *on;
    uint3 index;
    state is;
    // Where it waits, and what it brought.
    warp_op op;
    bool predicate;
    int source;
    unsigned mask, result;
    void *value;
    size_t size;
    const char *file;
    int line;
};

struct machine {
    fiber fibers[max_threads];
    unsigned ready[max_warps], waiting[max_warps], at_barrier[max_warps], done[max_warps];
    int n_threads, n_warps;
    bool is_descending;
    fiber *current; // NULL outside of kernels
    void *scheduler_sp;
    call *work;
    const char *name, *file;
    int line;
    char *shared_end; // a guard follows
    char *shared;
    size_t shared_bytes;
    std::vector<stack *> stacks; // free ones
    std::vector<stack *> all_stacks;
    unsigned long n_launches;
#ifdef __SANITIZE_ADDRESS__
    void *scheduler_fake;
    const void *scheduler_bottom;
    size_t scheduler_size;
#endif
} m;

const char *op_text(warp_op op) {
    switch (op) {
        case warp_op::sync: return "__syncwarp";
        case warp_op::ballot: return "__ballot_sync";
        case warp_op::any: return "__any_sync";
        case warp_op::all: return "__all_sync";
        case warp_op::shfl: return "__shfl_sync";
        case warp_op::shfl_up: return "__shfl_up_sync";
        case warp_op::shfl_down: return "__shfl_down_sync";
        case warp_op::shfl_xor: return "__shfl_xor_sync";
    }
    return "?";
}

stack *new_stack() {
    if (!m.stacks.empty()) {
        stack *s = m.stacks.back();
        m.stacks.pop_back();
        return s;
    }
    void *at = mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED || mprotect(at, guard_bytes, PROT_NONE) != 0)
        fail("no memory for the stack of a kernel's thread");
    stack *s = new stack{(char *)at + guard_bytes, nullptr};
    m.all_stacks.push_back(s);
    return s;
}

extern "C" void hirl_emu_fiber_main();

/// Lets a thread that has not begun begin on `on` when it is switched to.
void prepare(fiber &f, stack *on) {
    f.on = on;
    f.is = state::ready;
    on->fake = nullptr;
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(on->bottom, stack_bytes); // the last fiber here never returned
#endif
    // Stacks lie at multiples of a page: without different offsets their tops would share the same few cache lines.
    const size_t colour = (size_t)(&f - m.fibers) % 61 * 64;
    uintptr_t top = ((uintptr_t)on->bottom + stack_bytes - 256 - colour) & ~(uintptr_t)63;
#if defined(__x86_64__)
    top -= 8; // as after a call
    *(void **)top = nullptr;
#endif
    void **frame = (void **)top - n_saved;
    for (size_t i = 0; i < n_saved; ++i) frame[i] = nullptr;
    frame[n_saved - 1] = (void *)&hirl_emu_fiber_main;
    f.sp = frame;
}

inline void enter(fiber &f) {
    m.current = &f;
    threadIdx = f.index;
}

/// The next thread of this warp that can go on, or NULL.
inline fiber *pick(int warp) {
    const unsigned ready = m.ready[warp];
    if (ready == 0) return nullptr;
    const int lane = m.is_descending ? 31 - __builtin_clz(ready) : __builtin_ctz(ready);
    return &m.fibers[warp * 32 + lane];
}

/// Leaves `from` (NULL: the scheduler) for `to` (NULL: the scheduler).
inline void switch_to(fiber *from, fiber *to, bool is_last) {
    void *nowhere;
    void **save = is_last ? &nowhere : from != nullptr ? &from->sp : &m.scheduler_sp;
    if (to != nullptr) {
        if (to->is == state::fresh) prepare(*to, new_stack());
        enter(*to);
    }
#ifdef __SANITIZE_ADDRESS__
    void **fake = is_last ? nullptr : from != nullptr ? &from->on->fake : &m.scheduler_fake;
    if (to != nullptr)
        __sanitizer_start_switch_fiber(fake, to->on->bottom, stack_bytes);
    else
        __sanitizer_start_switch_fiber(fake, m.scheduler_bottom, m.scheduler_size);
#endif
    hirl_emu_switch(save, to != nullptr ? to->sp : m.scheduler_sp);
#ifdef __SANITIZE_ADDRESS__
    if (from == nullptr)
        __sanitizer_finish_switch_fiber(m.scheduler_fake, nullptr, nullptr);
    else
        __sanitizer_finish_switch_fiber(from->on->fake, nullptr, nullptr);
#endif
}

/// Waits: another thread of the warp goes on, else the scheduler.
inline void park(fiber &me) { switch_to(&me, pick((int)(&me - m.fibers) >> 5), false); }

extern "C" void hirl_emu_fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    // The first switch to a stack comes from the scheduler's stack or from another fiber's.
    const void *bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (m.scheduler_bottom == nullptr) m.scheduler_bottom = bottom, m.scheduler_size = size;
#endif
    for (;;) {
        m.work->run();
        fiber &me = *m.current;
        const int i = (int)(&me - m.fibers), warp = i >> 5;
        const unsigned bit = 1u << (i & 31);
        me.is = state::done;
        m.ready[warp] &= ~bit;
        m.done[warp] |= bit;
        fiber *next = pick(warp);
        if (next != nullptr && next->is == state::fresh) {
            next->on = me.on;
            next->is = state::ready;
            enter(*next);
            continue;
        }
        m.stacks.push_back(me.on);
        switch_to(&me, next, true);
    }
}

void warp_text(char *text, size_t size, int i) {
    const fiber &f = m.fibers[i];
    const uint3 t = f.index;
    const int n = snprintf(text, size, "thread (%u,%u,%u) ", t.x, t.y, t.z);
    if (f.is == state::done)
        snprintf(text + n, size - (size_t)n, "has ended");
    else if (f.is == state::barrier)
        snprintf(text + n, size - (size_t)n, "waits at __syncthreads, %s:%d", f.file, f.line);
    else if (f.is == state::warp)
        snprintf(text + n, size - (size_t)n, "waits at %s with mask 0x%08x, %s:%d", op_text(f.op),
                 f.mask, f.file, f.line);
    else
        snprintf(text + n, size - (size_t)n, "still runs");
}

/// Why the warp function that `me` waits at can never be complete: another lane of its mask is elsewhere.
[[noreturn]] void fail_meeting(const fiber &me, int other) {
    char text[400];
    warp_text(text, sizeof text, other);
    enter(m.fibers[&me - m.fibers]);
    fail("%s:%d: %s with mask 0x%08x names lane %d, but %s", me.file, me.line, op_text(me.op),
         me.mask, other & 31, text);
}

void run_warp(int warp) {
    while (m.ready[warp] != 0) switch_to(nullptr, pick(warp), false);
    if (m.waiting[warp] == 0) return;
    // Nobody can go on, and some lanes wait for others.
    const fiber &me = m.fibers[warp * 32 + __builtin_ctz(m.waiting[warp])];
    for (unsigned mask = me.mask; mask != 0; mask &= mask - 1) {
        const int other = warp * 32 + __builtin_ctz(mask);
        const fiber &f = m.fibers[other];
        if (f.is != state::warp || f.op != me.op || f.mask != me.mask) fail_meeting(me, other);
    }
    fail("%s:%d: %s: lanes wait for each other", me.file, me.line, op_text(me.op));
}

/// All threads have ended or wait at a barrier: true if they may go on.
bool pass_barrier() {
    int n_done = 0, n_waiting = 0, first = -1, ended = -1;
    for (int w = 0; w < m.n_warps; ++w) {
        n_done += __builtin_popcount(m.done[w]);
        n_waiting += __builtin_popcount(m.at_barrier[w]);
        if (first < 0 && m.at_barrier[w] != 0) first = w * 32 + __builtin_ctz(m.at_barrier[w]);
        if (ended < 0 && m.done[w] != 0) ended = w * 32 + __builtin_ctz(m.done[w]);
    }
    if (n_waiting == 0) return false;
    fiber &me = m.fibers[first];
    if (n_done != 0) {
        enter(me);
        const uint3 t = m.fibers[ended].index;
        fail(
            "%s:%d: %d threads wait at __syncthreads, but %d threads have ended, thread (%u,%u,%u) "
            "among them",
            me.file, me.line, n_waiting, n_done, t.x, t.y, t.z);
    }
    for (int i = 0; i < m.n_threads; ++i) {
        fiber &f = m.fibers[i];
        if (f.line != me.line || (f.file != me.file && strcmp(f.file, me.file) != 0)) {
            enter(me);
            fail("%s:%d: divergent __syncthreads: thread (%u,%u,%u) waits at %s:%d", me.file,
                 me.line, f.index.x, f.index.y, f.index.z, f.file, f.line);
        }
        f.is = state::ready;
    }
    for (int w = 0; w < m.n_warps; ++w) {
        m.ready[w] = m.at_barrier[w];
        m.at_barrier[w] = 0;
    }
    return true;
}

void run_block() {
    uint3 index = {0, 0, 0};
    for (int i = 0; i < m.n_threads; ++i) {
        m.fibers[i].index = index;
        m.fibers[i].is = state::fresh;
        if (++index.x == blockDim.x) {
            index.x = 0;
            if (++index.y == blockDim.y) index.y = 0, ++index.z;
        }
    }
    for (int w = 0; w < m.n_warps; ++w) {
        const int n = m.n_threads - w * 32;
        m.ready[w] = n >= 32 ? 0xffffffffu : (1u << n) - 1;
        m.waiting[w] = m.at_barrier[w] = m.done[w] = 0;
    }
    do {
        if (m.is_descending)
            for (int w = m.n_warps - 1; w >= 0; --w) run_warp(w);
        else
            for (int w = 0; w < m.n_warps; ++w) run_warp(w);
        m.is_descending = !m.is_descending;
    } while (pass_barrier());
    m.current = nullptr;
}

void make_shared_area() {
    char *at = (char *)mmap(nullptr, shared_area + 2 * guard_bytes, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == (char *)MAP_FAILED ||
        mprotect(at + guard_bytes, shared_area, PROT_READ | PROT_WRITE) != 0)
        fail("no memory for shared memory");
    m.shared_end = at + guard_bytes + shared_area;
}

void run_grid(const char *name, const char *file, int line, const void *func, dim3 grid, dim3 block,
              size_t shared, call *work) {
    if (m.shared_end == nullptr) make_shared_area();
    m.name = name, m.file = file, m.line = line, m.work = work;
#ifdef __SANITIZE_ADDRESS__
    m.scheduler_bottom = nullptr; // another host thread may have run the last kernel
#endif
    blockDim = block, gridDim = grid;
    m.n_threads = (int)(block.x * block.y * block.z);
    m.n_warps = (m.n_threads + 31) / 32;
    m.shared_bytes = shared;
    m.shared = m.shared_end - ((shared + 15) & ~(size_t)15);
    const bool is_backwards = ++m.n_launches % 2 == 0;
    m.is_descending = is_backwards;
    const uint64_t n = (uint64_t)grid.x * grid.y * grid.z;
#ifdef __SANITIZE_ADDRESS__
    const std::vector<shared_variable> variables; // their symbols include red zones
    (void)func;
#else
    const std::vector<shared_variable> &variables = shared_of(func);
#endif
    for (uint64_t i = 0; i < n; ++i) {
        const uint64_t b = is_backwards ? n - 1 - i : i;
        blockIdx.x = (unsigned)(b % grid.x);
        blockIdx.y = (unsigned)(b / grid.x % grid.y);
        blockIdx.z = (unsigned)(b / grid.x / grid.y);
        for (const shared_variable &v : variables) memset(v.data, 0xff, v.bytes);
        if (shared > 0) memset(m.shared, 0xff, (size_t)(m.shared_end - m.shared));
        run_block();
    }
    m.work = nullptr;
    m.name = nullptr;
}

/// A launch's name without the parentheses that protect its commas. Never freed: messages refer to it.
const char *plain_name(const char *name) {
    const size_t n = strlen(name);
    if (n < 2 || name[0] != '(' || name[n - 1] != ')') return name;
    static std::vector<std::pair<const char *, std::string *>> names;
    for (const auto &known : names)
        if (known.first == name) return known.second->c_str();
    names.emplace_back(name, new std::string(name + 1, n - 2));
    return names.back().second->c_str();
}

} // namespace

// ---------------------------------------------------------------------------------------------- what kernels call

void *dynamic_shared() { return m.shared; }

int lane() {
    if (m.current == nullptr) fail("a warp function was called outside of a kernel");
    return (int)(m.current - m.fibers) & 31;
}

void fail_width(int width, const char *file, int line) {
    fail("%s:%d: a shuffle of width %d: want a power of two up to 32", file, line, width);
}

void fail_matrix(const char *what, const void *ptr, unsigned row_bytes, const char *file,
                 int line) {
    fail("%s:%d: %s at %p with rows of %u bytes: want multiples of 32 and of 16 bytes", file, line,
         what, ptr, row_bytes);
}

void barrier(const char *file, int line) {
    if (m.current == nullptr) fail("%s:%d: __syncthreads outside of a kernel", file, line);
    fiber &me = *m.current;
    const int i = (int)(&me - m.fibers);
    me.is = state::barrier;
    me.file = file, me.line = line;
    m.ready[i >> 5] &= ~(1u << (i & 31));
    m.at_barrier[i >> 5] |= 1u << (i & 31);
    park(me);
}

unsigned meet(warp_op op, unsigned mask, int source, bool predicate, void *value, size_t size,
              const char *file, int line) {
    if (m.current == nullptr) fail("%s:%d: %s outside of a kernel", file, line, op_text(op));
    fiber &me = *m.current;
    const int i = (int)(&me - m.fibers), warp = i >> 5;
    const unsigned bit = 1u << (i & 31);
    if ((mask & bit) == 0)
        fail("%s:%d: %s with mask 0x%08x, which leaves out the calling lane %d", file, line,
             op_text(op), mask, i & 31);
    const int n_lanes = m.n_threads - warp * 32;
    if (n_lanes < 32 && (mask >> n_lanes) != 0)
        fail("%s:%d: %s with mask 0x%08x names lanes that do not exist: this warp has %d threads",
             file, line, op_text(op), mask, n_lanes);
    if (op >= warp_op::shfl && (mask >> source & 1u) == 0)
        fail("%s:%d: %s reads lane %d, which is not in its mask 0x%08x", file, line, op_text(op),
             source, mask);
    me.op = op, me.mask = mask, me.source = source, me.predicate = predicate;
    me.value = value, me.size = size, me.file = file, me.line = line;
    const unsigned away = mask & (m.done[warp] | m.at_barrier[warp]);
    if (away != 0) fail_meeting(me, warp * 32 + __builtin_ctz(away));
    if (((m.waiting[warp] | bit) & mask) != mask) {
        me.is = state::warp;
        m.ready[warp] &= ~bit;
        m.waiting[warp] |= bit;
        park(me);
        return me.result;
    }
    // The last to come serves all.
    fiber *const lanes = &m.fibers[warp * 32];
    unsigned votes = 0;
    alignas(16) char brought[32][16];
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
        const int k = __builtin_ctz(rest);
        const fiber &f = lanes[k];
        if (f.op != op || f.mask != mask || f.size != size || f.line != line) {
            me.is = state::warp;
            fail_meeting(me, warp * 32 + k);
        }
        if (f.predicate) votes |= 1u << k;
        if (size == 4)
            memcpy(brought[k], f.value, 4);
        else if (size > 0)
            memcpy(brought[k], f.value, size);
    }
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
        fiber &f = lanes[__builtin_ctz(rest)];
        if (size == 4)
            memcpy(f.value, brought[f.source], 4);
        else if (size > 0)
            memcpy(f.value, brought[f.source], size);
        f.result = votes;
        f.is = state::ready;
    }
    m.waiting[warp] &= ~mask;
    m.ready[warp] |= mask;
    return votes;
}

// ---------------------------------------------------------------------------------------------- launches

void check_argument(const char *name, const char *file, int line, int position, const void *ptr) {
    const place where = place_of(ptr);
    if (where == place::none || where == place::device || where == place::pinned) return;
    fail("%s:%d: kernel %s: argument %d, %p, lies in %s (%s); kernels take device or pinned memory",
         file, line, plain_name(name), position, ptr, place_text(where), describe(ptr));
}

void launch(const char *name, const char *file, int line, const void *func, dim3 grid, dim3 block,
            size_t shared, cudaStream_t stream, call *work) {
    std::shared_ptr<call> held(work);
    entry e("launch");
    name = plain_name(name);
    const uint64_t n_threads = (uint64_t)block.x * block.y * block.z;
    if (n_threads == 0 || n_threads > max_threads || block.z > 64)
        fail("%s:%d: kernel %s: a block of (%u,%u,%u) threads; want 1 to 1024 in all, z up to 64",
             file, line, name, block.x, block.y, block.z);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535)
        fail("%s:%d: kernel %s: a grid of (%u,%u,%u) blocks; want at least one, up to "
             "(2147483647,65535,65535)",
             file, line, name, grid.x, grid.y, grid.z);
    const size_t allowed = allowed_shared(func);
    if (shared > allowed)
        fail("%s:%d: kernel %s: %zu bytes of dynamic shared memory; %zu are allowed%s", file, line,
             name, shared, allowed,
             allowed < most_shared ? " (cudaFuncSetAttribute allows up to 232448)" : "");
    size_t fixed = 0;
    for (const shared_variable &v : shared_of(func)) fixed += v.bytes;
    if (fixed > default_shared || fixed + shared > most_shared)
        fail("%s:%d: kernel %s: %zu bytes of static shared memory beside %zu of dynamic; 49152 are "
             "allowed, and 232448 in all",
             file, line, name, fixed, shared);
    if (!is_stream(stream))
        fail("%s:%d: kernel %s: the stream %p does not exist", file, line, name, (void *)stream);
    if (sticky_error() != cudaSuccess) {
        remember(sticky_error());
        return;
    }
    if (e.is_failing()) {
        remember(cudaErrorLaunchOutOfResources);
        return;
    }
    remember(enqueue(stream, name, [=]() {
        entry inner("kernel");
        if (inner.is_failing())
            set_sticky_error(cudaErrorIllegalAddress);
        else
            run_grid(name, file, line, func, grid, block, shared, held.get());
    }));
}

void describe_thread(char *text, size_t size) {
    text[0] = 0;
    if (m.name == nullptr) return;
    int n = snprintf(text, size, "  in kernel %s (launched at %s:%d), block (%u,%u,%u)", m.name,
                     m.file, m.line, blockIdx.x, blockIdx.y, blockIdx.z);
    if (m.current != nullptr && n > 0 && (size_t)n < size)
        n += snprintf(text + n, size - (size_t)n, ", thread (%u,%u,%u)", m.current->index.x,
                      m.current->index.y, m.current->index.z);
    if (n > 0 && (size_t)n + 1 < size) text[n] = '\n', text[n + 1] = 0;
}

bool describe_guard(const void *addr, char *text, size_t size) {
    const char *at = (const char *)addr;
    if (m.shared_end != nullptr && at >= m.shared_end - shared_area - guard_bytes &&
        at < m.shared_end + guard_bytes) {
        snprintf(text, size, "touched byte %td of %zu bytes of dynamic shared memory",
                 at - m.shared, m.shared_bytes);
        return true;
    }
    for (const stack *s : m.all_stacks)
        if (at < s->bottom && at >= s->bottom - guard_bytes) {
            snprintf(text, size, "overflowed its stack of %zu bytes", stack_bytes);
            return true;
        }
    return false;
}

} // namespace hirl_emu

void __trap() { hirl_emu::fail("__trap"); }
