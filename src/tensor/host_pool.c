/// The caching pool of host memory: good-fit with splitting and coalescing over a few large chunks (Masmano et al. 2004, TLSF,
/// with eight bins per power of two and a best-fit search inside the bin).
/// Small and large requests live in chunks of their own, so that long-lived vectors do not cut up the room of activations. A
/// free block borders on no other free block. Large chunks ask for huge pages. Not thread-safe.
#include "hirl/tensor.h"

#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(ptr, bytes) __asan_poison_memory_region((ptr), (bytes))
#define UNPOISON(ptr, bytes) __asan_unpoison_memory_region((ptr), (bytes))
#else
#define POISON(ptr, bytes) ((void)(ptr), (void)(bytes))
#define UNPOISON(ptr, bytes) ((void)(ptr), (void)(bytes))
#endif

enum { HEADER_BYTES = 64, SUB_BINS = 8, N_BINS = 64 * SUB_BINS, N_WORDS = N_BINS / 64 };

static const size_t SMALL_LIMIT = (size_t)128 << 10; // requests up to here go to the small arena
static const size_t HUGE_PAGE = (size_t)2 << 20;
static const uint64_t MAGIC_USED = UINT64_C(0x6869726c55736564);
static const uint64_t MAGIC_FREE = UINT64_C(0x6869726c46726565);

typedef struct chunk {
    struct chunk *next;
    size_t bytes; // of all its blocks
    struct block *first;
} chunk_t;

typedef struct block {
    uint64_t magic;
    size_t bytes; // with this header
    chunk_t *chunk;
    struct block *before, *after;           // neighbours in memory, NULL at a chunk's end
    struct block *free_before, *free_after; // neighbours in the bin while free
} block_t;
_Static_assert(sizeof(block_t) <= HEADER_BYTES, "the header must keep the data aligned");

typedef struct arena {
    chunk_t *chunks;
    size_t granule; // block sizes are multiples
    size_t chunk_least, chunk_most;
    bool is_large;
    uint64_t is_filled[N_WORDS]; // one bit per bin
    block_t *bins[N_BINS];
} arena_t;

struct hirl_host_pool {
    hirl_allocator_t allocator;
    arena_t small, large;
    size_t used, peak, held;
};

// ---------------------------------------------------------------------------------------------- bins

static int bin_of(size_t bytes) {
    const int e = 63 - __builtin_clzll(bytes); // bytes >= 64, so the shift below is fine
    return e * SUB_BINS + (int)((bytes >> (e - 3)) & (SUB_BINS - 1));
}

static void bin_insert(arena_t *arena, block_t *block) {
    const int bin = bin_of(block->bytes);
    block->magic = MAGIC_FREE;
    block->free_before = NULL;
    block->free_after = arena->bins[bin];
    if (block->free_after) block->free_after->free_before = block;
    arena->bins[bin] = block;
    arena->is_filled[bin / 64] |= UINT64_C(1) << (bin % 64);
}

static void bin_remove(arena_t *arena, block_t *block) {
    const int bin = bin_of(block->bytes);
    if (block->free_after) block->free_after->free_before = block->free_before;
    if (block->free_before) {
        block->free_before->free_after = block->free_after;
    } else {
        arena->bins[bin] = block->free_after;
        if (!arena->bins[bin]) arena->is_filled[bin / 64] &= ~(UINT64_C(1) << (bin % 64));
    }
}

/// The smallest block of the first bin that has one of `bytes` or more; NULL if there is none.
static block_t *find_fit(const arena_t *arena, size_t bytes) {
    int bin = bin_of(bytes);
    while (bin < N_BINS) {
        const uint64_t word = arena->is_filled[bin / 64] >> (bin % 64);
        if (!word) {
            bin = (bin / 64 + 1) * 64;
            continue;
        }
        bin += __builtin_ctzll(word);
        block_t *best = NULL;
        for (block_t *block = arena->bins[bin]; block; block = block->free_after)
            if (block->bytes >= bytes && (!best || block->bytes < best->bytes)) best = block;
        if (best) return best;
        ++bin;
    }
    return NULL;
}

// ---------------------------------------------------------------------------------------------- chunks

static hirl_status_t grow(hirl_host_pool_t *pool, arena_t *arena, size_t bytes) {
    // An eighth of what is held keeps the number of chunks, and so the loss at their ends, small.
    size_t size = pool->held / 8;
    if (size < arena->chunk_least) size = arena->chunk_least;
    if (size > arena->chunk_most) size = arena->chunk_most;
    if (size < bytes) size = bytes;
    size = (size + arena->granule - 1) / arena->granule * arena->granule;
    void *memory = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_ACTIVATION, size + HEADER_BYTES, &memory));
    if (arena->is_large) {
        const uintptr_t low = ((uintptr_t)memory + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
        const uintptr_t high = ((uintptr_t)memory + size + HEADER_BYTES) / HUGE_PAGE * HUGE_PAGE;
        // A hint: where the system has no huge pages all works the same, only slower.
        if (low < high) (void)madvise((void *)low, high - low, MADV_HUGEPAGE);
    }
    chunk_t *chunk = memory;
    block_t *block = (block_t *)(void *)((char *)memory + HEADER_BYTES);
    *chunk = (chunk_t){.next = arena->chunks, .bytes = size, .first = block};
    *block = (block_t){.bytes = size, .chunk = chunk};
    arena->chunks = chunk;
    pool->held += size;
    bin_insert(arena, block);
    POISON((char *)block + HEADER_BYTES, size - HEADER_BYTES);
    return HIRL_OK;
}

static void free_chunk(hirl_host_pool_t *pool, chunk_t *chunk) {
    pool->held -= chunk->bytes;
    UNPOISON(chunk, chunk->bytes + HEADER_BYTES);
    hirl_mem_free(chunk);
}

// ---------------------------------------------------------------------------------------------- the allocator

static size_t block_bytes_for(const arena_t *arena, size_t bytes) {
    return (bytes + HEADER_BYTES + arena->granule - 1) / arena->granule * arena->granule;
}

static hirl_status_t pool_alloc(void *ctx, size_t bytes, void **data_p) {
    hirl_host_pool_t *pool = ctx;
    HIRL_REQUIRE(bytes <= PTRDIFF_MAX / 2, HIRL_ERR_MEMORY, "cannot allocate %zu bytes", bytes);
    arena_t *arena = bytes <= SMALL_LIMIT ? &pool->small : &pool->large;
    const size_t need = block_bytes_for(arena, bytes);
    block_t *block = find_fit(arena, need);
    if (!block) {
        HIRL_TRY(grow(pool, arena, need));
        block = find_fit(arena, need);
    }
    bin_remove(arena, block);
    if (block->bytes - need >= 2 * arena->granule) {
        block_t *rest = (block_t *)(void *)((char *)block + need);
        UNPOISON(rest, HEADER_BYTES);
        *rest = (block_t){.bytes = block->bytes - need,
                          .chunk = block->chunk,
                          .before = block,
                          .after = block->after};
        if (rest->after) rest->after->before = rest;
        block->after = rest;
        block->bytes = need;
        bin_insert(arena, rest);
    }
    block->magic = MAGIC_USED;
    pool->used += block->bytes;
    if (pool->used > pool->peak) pool->peak = pool->used;
    UNPOISON((char *)block + HEADER_BYTES, bytes);
    *data_p = (char *)block + HEADER_BYTES;
    return HIRL_OK;
}

/// Joins `block` with the free block behind it.
static void absorb(arena_t *arena, block_t *block) {
    block_t *next = block->after;
    bin_remove(arena, next);
    block->bytes += next->bytes;
    block->after = next->after;
    if (block->after) block->after->before = block;
    POISON(next, HEADER_BYTES);
}

static void pool_free(void *ctx, void *data, size_t bytes) {
    hirl_host_pool_t *pool = ctx;
    if (!data) return;
    block_t *block = (block_t *)(void *)((char *)data - HEADER_BYTES);
    if (block->magic != MAGIC_USED) {
        hirl_log_rank(HIRL_LOG_ERROR, "internal error: pool memory at %p is freed %s", data,
                      block->magic == MAGIC_FREE ? "twice" : "but does not belong to a pool");
        HIRL_ASSERT(block->magic == MAGIC_USED);
        return;
    }
    HIRL_ASSERT(bytes + HEADER_BYTES <= block->bytes);
    arena_t *arena = bytes <= SMALL_LIMIT ? &pool->small : &pool->large;
    pool->used -= block->bytes;
    POISON(data, block->bytes - HEADER_BYTES);
    if (block->after && block->after->magic == MAGIC_FREE) absorb(arena, block);
    if (block->before && block->before->magic == MAGIC_FREE) {
        block->magic = MAGIC_FREE; // a second free of `data` is recognised
        block_t *before = block->before;
        bin_remove(arena, before);
        before->bytes += block->bytes;
        before->after = block->after;
        if (before->after) before->after->before = before;
        block = before;
    }
    bin_insert(arena, block);
}

// ---------------------------------------------------------------------------------------------- public

hirl_status_t hirl_host_pool_create(hirl_host_pool_t **pool_p) {
    HIRL_REQUIRE(pool_p, HIRL_ERR_ARG, "host pool: no output given");
    hirl_host_pool_t *pool = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &pool));
    pool->allocator = (hirl_allocator_t){
        .space = HIRL_SPACE_HOST, .ctx = pool, .alloc = pool_alloc, .free = pool_free};
    pool->small.granule = 64;
    pool->small.chunk_least = pool->small.chunk_most = (size_t)1 << 20;
    pool->large.granule = 4096;
    pool->large.chunk_least = (size_t)8 << 20;
    pool->large.chunk_most = (size_t)1 << 30;
    pool->large.is_large = true;
    *pool_p = pool;
    return HIRL_OK;
}

void hirl_host_pool_destroy(hirl_host_pool_t **pool_p) {
    hirl_host_pool_t *pool = pool_p ? *pool_p : NULL;
    if (!pool) return;
    *pool_p = NULL;
    if (pool->used > 0) {
        // The tensors that still live point into it: keep it, so that they stay valid and the memory balance shows the leak.
        hirl_log_rank(HIRL_LOG_ERROR,
                      "internal error: %zu bytes of a host pool are still in use at its end",
                      pool->used);
        return;
    }
    hirl_host_pool_trim(pool);
    hirl_mem_free(pool);
}

const hirl_allocator_t *hirl_host_pool_allocator_view(hirl_host_pool_t *pool) {
    return &pool->allocator;
}
size_t hirl_host_pool_used(const hirl_host_pool_t *pool) { return pool->used; }
size_t hirl_host_pool_peak(const hirl_host_pool_t *pool) { return pool->peak; }
size_t hirl_host_pool_held(const hirl_host_pool_t *pool) { return pool->held; }

static void trim_arena(hirl_host_pool_t *pool, arena_t *arena) {
    for (chunk_t **link = &arena->chunks; *link;) {
        chunk_t *chunk = *link;
        if (chunk->first->magic == MAGIC_FREE && chunk->first->bytes == chunk->bytes) {
            bin_remove(arena, chunk->first);
            *link = chunk->next;
            free_chunk(pool, chunk);
        } else {
            link = &chunk->next;
        }
    }
}

void hirl_host_pool_trim(hirl_host_pool_t *pool) {
    trim_arena(pool, &pool->small);
    trim_arena(pool, &pool->large);
}
