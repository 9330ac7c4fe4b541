// Counted, 64-byte aligned host memory. Every block is preceded by a 64-byte header that names its
// kind and size, so that free needs only the pointer and the balance of each kind is known at any
// time. Counters are atomic: loader and checkpoint threads allocate too.
#include "hirl/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGNMENT = 64,
    N_COUNTERS = HIRL_MEM_KIND_COUNT + 1, // the last one counts all kinds
    LAZY_ZERO_BYTES =
        1 << 20 // from here on calloc, whose fresh pages are zeroed (and placed) at first touch
};

static const uint64_t MAGIC_HELD = UINT64_C(0x68697248656c6421);
static const uint64_t MAGIC_FREED = UINT64_C(0x6869724672656521);

typedef struct header {
    uint64_t magic;
    size_t bytes;
    void *raw; // what free() wants
    hirl_mem_kind_t kind;
} header_t;
_Static_assert(sizeof(header_t) <= ALIGNMENT, "the header fits in front of an aligned block");

static atomic_size_t held[N_COUNTERS];
static atomic_size_t peak[N_COUNTERS];

static const char *const KIND_NAME[] = {"general",   "param", "activation",
                                        "workspace", "data",  "cluster"};
_Static_assert(sizeof KIND_NAME / sizeof KIND_NAME[0] == HIRL_MEM_KIND_COUNT,
               "a name for each kind");

static void count_up(int counter, size_t bytes) {
    size_t now = atomic_fetch_add(&held[counter], bytes) + bytes;
    size_t top = atomic_load(&peak[counter]);
    while (now > top && !atomic_compare_exchange_weak(&peak[counter], &top, now)) {}
}

static hirl_status_t fail_memory(hirl_mem_kind_t kind, double bytes) {
    char asked[32], all[32], own[32];
    return HIRL_FAIL(HIRL_ERR_MEMORY,
                     "cannot allocate %s of %s memory; this process holds %s of it and %s in all; "
                     "use more ranks or "
                     "nodes, or a smaller batch or model",
                     hirl_text_bytes(asked, bytes), KIND_NAME[kind],
                     hirl_text_bytes(own, (double)hirl_mem_held(kind)),
                     hirl_text_bytes(all, (double)hirl_mem_held(HIRL_MEM_KIND_COUNT)));
}

static hirl_status_t allocate(hirl_mem_kind_t kind, size_t bytes, bool is_zero, void **ptr_p) {
    HIRL_REQUIRE((unsigned)kind < HIRL_MEM_KIND_COUNT, HIRL_ERR_ARG,
                 "memory kind %d does not exist", (int)kind);
    if (bytes > PTRDIFF_MAX - 2 * ALIGNMENT) return fail_memory(kind, (double)bytes);
    char *raw = NULL;
    char *user = NULL;
    if (is_zero && bytes >= LAZY_ZERO_BYTES) {
        raw = calloc(1, bytes + 2 * ALIGNMENT);
        if (!raw) return fail_memory(kind, (double)bytes);
        user = raw + ALIGNMENT;
        user += (ALIGNMENT - (uintptr_t)user % ALIGNMENT) % ALIGNMENT;
    } else {
        void *block = NULL;
        if (posix_memalign(&block, ALIGNMENT, bytes + ALIGNMENT) != 0)
            return fail_memory(kind, (double)bytes);
        raw = block;
        user = raw + ALIGNMENT;
        if (is_zero) memset(user, 0, bytes);
    }
    header_t *header = (header_t *)(void *)(user - ALIGNMENT);
    *header = (header_t){.magic = MAGIC_HELD, .bytes = bytes, .raw = raw, .kind = kind};
    // An empty block counts one byte, so that a forgotten one still upsets the balance.
    count_up((int)kind, bytes ? bytes : 1);
    count_up(HIRL_MEM_KIND_COUNT, bytes ? bytes : 1);
    *ptr_p = user;
    return HIRL_OK;
}

hirl_status_t hirl_mem_alloc(hirl_mem_kind_t kind, size_t bytes, void **ptr_p) {
    return allocate(kind, bytes, false, ptr_p);
}

hirl_status_t hirl_mem_calloc(hirl_mem_kind_t kind, size_t n, size_t size, void **ptr_p) {
    HIRL_REQUIRE((unsigned)kind < HIRL_MEM_KIND_COUNT, HIRL_ERR_ARG,
                 "memory kind %d does not exist", (int)kind);
    if (size != 0 && n > SIZE_MAX / size) return fail_memory(kind, (double)n * (double)size);
    return allocate(kind, n * size, true, ptr_p);
}

hirl_status_t hirl_mem_realloc(hirl_mem_kind_t kind, size_t bytes, void **ptr_p) {
    if (!*ptr_p) return allocate(kind, bytes, false, ptr_p);
    const header_t *old = (const header_t *)(const void *)((const char *)*ptr_p - ALIGNMENT);
    HIRL_ASSERT(old->magic == MAGIC_HELD);
    void *fresh = NULL;
    HIRL_TRY(allocate(kind, bytes, false, &fresh));
    memcpy(fresh, *ptr_p, old->bytes < bytes ? old->bytes : bytes);
    hirl_mem_free(*ptr_p);
    *ptr_p = fresh;
    return HIRL_OK;
}

void hirl_mem_free(void *ptr) {
    if (!ptr) return;
    header_t *header = (header_t *)(void *)((char *)ptr - ALIGNMENT);
    if (header->magic != MAGIC_HELD) {
        // Freeing it would corrupt the heap and hide the place of the mistake.
        hirl_log_rank(HIRL_LOG_ERROR, "internal error: memory at %p is freed %s", ptr,
                      header->magic == MAGIC_FREED ? "twice" : "but was not allocated here");
        HIRL_ASSERT(header->magic == MAGIC_HELD);
        return;
    }
    size_t bytes = header->bytes ? header->bytes : 1;
    atomic_fetch_sub(&held[header->kind], bytes);
    atomic_fetch_sub(&held[HIRL_MEM_KIND_COUNT], bytes);
    header->magic = MAGIC_FREED;
    free(header->raw);
}

size_t hirl_mem_held(hirl_mem_kind_t kind) {
    return (unsigned)kind <= HIRL_MEM_KIND_COUNT ? atomic_load(&held[kind]) : 0;
}

size_t hirl_mem_peak(hirl_mem_kind_t kind) {
    return (unsigned)kind <= HIRL_MEM_KIND_COUNT ? atomic_load(&peak[kind]) : 0;
}

void hirl_mem_reset_peak(void) {
    for (int i = 0; i < N_COUNTERS; i++) atomic_store(&peak[i], atomic_load(&held[i]));
}

size_t hirl_mem_check_balance(void) {
    for (int kind = 0; kind < HIRL_MEM_KIND_COUNT; kind++) {
        size_t bytes = atomic_load(&held[kind]);
        if (bytes == 0) continue;
        hirl_log_rank(HIRL_LOG_ERROR, "internal error: %zu bytes of %s memory were never freed",
                      bytes, KIND_NAME[kind]);
    }
    return atomic_load(&held[HIRL_MEM_KIND_COUNT]);
}
