/// The caching pool: good-fit with splitting and coalescing over a few large chunks (Masmano et al. 2004, TLSF, with eight bins per power of
/// two and a best-fit search inside the bin).
/// Small and large requests live in chunks of their own, so that long-lived vectors do not cut up the room of activations. A free
/// block borders on no other free block. Records of blocks lie apart from the memory, which the host may be unable to touch; they are
/// recycled, so that a steady state allocates nothing. Not thread-safe.
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

enum {
    SUB_BINS = 8,
    N_BINS = 64 * SUB_BINS,
    N_WORDS = N_BINS / 64,
    RECORDS_AT_ONCE = 128,
    LARGE_GRANULE = 4096
};

static const size_t SMALL_LIMIT = (size_t)128 << 10; // requests up to here go to the small arena
static const size_t HUGE_PAGE = (size_t)2 << 20;

typedef struct block block_t;

typedef struct chunk {
    struct chunk *next;
    char *memory;
    size_t bytes;
    block_t *first;
} chunk_t;

struct block {
    char *memory;
    size_t bytes;
    bool is_free;
    chunk_t *chunk;
    block_t *before, *after; // neighbours in memory, NULL at a chunk's end
    block_t *free_before,
        *free_after;    // neighbours in the bin while free; free_after also links spare records
    block_t *next_held; // in the same place of the table while handed out
};

typedef struct records {
    struct records *next;
    block_t block[RECORDS_AT_ONCE];
} records_t;

typedef struct arena {
    chunk_t *chunks;
    size_t granule; // block sizes are multiples
    size_t chunk_least, chunk_most;
    uint64_t is_filled[N_WORDS]; // one bit per bin
    block_t *bins[N_BINS];
} arena_t;

struct hirl_pool {
    hirl_allocator_t allocator;
    hirl_pool_source_t source;
    arena_t small, large;
    size_t used, peak, held;
    uint64_t n_given;
    bool is_kept;
    records_t *records;
    block_t *spare;
    block_t **table; // blocks handed out, by address
    size_t table_size, n_held;
};

// ---------------------------------------------------------------------------------------------- records

static hirl_status_t record_take(hirl_pool_t *pool, block_t **block_p) {
    if (!pool->spare) {
        records_t *records = NULL;
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &records));
        records->next = pool->records;
        pool->records = records;
        for (int i = 0; i < RECORDS_AT_ONCE; ++i) {
            records->block[i].free_after = pool->spare;
            pool->spare = &records->block[i];
        }
    }
    *block_p = pool->spare;
    pool->spare = pool->spare->free_after;
    return HIRL_OK;
}

static void record_give(hirl_pool_t *pool, block_t *block) {
    block->free_after = pool->spare;
    pool->spare = block;
}

static size_t table_place(const hirl_pool_t *pool, const void *memory) {
    return (size_t)(((uint64_t)(uintptr_t)memory >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> 32) &
           (pool->table_size - 1);
}

static void table_insert(hirl_pool_t *pool, block_t *block) {
    block_t **place = &pool->table[table_place(pool, block->memory)];
    block->next_held = *place;
    *place = block;
    ++pool->n_held;
}

/// Makes room for one more.
static hirl_status_t table_reserve(hirl_pool_t *pool) {
    if (pool->n_held < pool->table_size) return HIRL_OK;
    const size_t old_size = pool->table_size;
    block_t **old = pool->table, **table = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, (int64_t)(old_size ? 2 * old_size : 1024), &table));
    pool->table = table;
    pool->table_size = old_size ? 2 * old_size : 1024;
    pool->n_held = 0;
    for (size_t i = 0; i < old_size; ++i)
        for (block_t *block = old[i], *next; block; block = next) {
            next = block->next_held;
            table_insert(pool, block);
        }
    hirl_mem_free(old);
    return HIRL_OK;
}

static block_t *table_remove(hirl_pool_t *pool, const void *memory) {
    if (!pool->table_size) return NULL;
    for (block_t **link = &pool->table[table_place(pool, memory)]; *link;
         link = &(*link)->next_held) {
        block_t *block = *link;
        if (block->memory != memory) continue;
        *link = block->next_held;
        --pool->n_held;
        return block;
    }
    return NULL;
}

// ---------------------------------------------------------------------------------------------- bins

static int bin_of(size_t bytes) {
    const int e = 63 - __builtin_clzll(bytes); // bytes >= 64, so the shift below is fine
    return e * SUB_BINS + (int)((bytes >> (e - 3)) & (SUB_BINS - 1));
}

static void bin_insert(arena_t *arena, block_t *block) {
    const int bin = bin_of(block->bytes);
    block->is_free = true;
    block->free_before = NULL;
    block->free_after = arena->bins[bin];
    if (block->free_after) block->free_after->free_before = block;
    arena->bins[bin] = block;
    arena->is_filled[bin / 64] |= UINT64_C(1) << (bin % 64);
}

static void bin_remove(arena_t *arena, block_t *block) {
    const int bin = bin_of(block->bytes);
    block->is_free = false;
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

static size_t round_up(size_t bytes, size_t granule) {
    return (bytes + granule - 1) / granule * granule;
}

/// Asks the source for `size` bytes; where that is refused, for no more than the `bytes` that are needed, and then once more without
/// the chunks that nobody uses. The last refusal's text stays.
static hirl_status_t source_take(hirl_pool_t *pool, size_t bytes, size_t *size, void **memory_p) {
    hirl_status_t status = pool->source.take(pool->source.ctx, *size, memory_p);
    if (status == HIRL_OK) return HIRL_OK;
    *size = bytes;
    status = pool->source.take(pool->source.ctx, *size, memory_p);
    if (status == HIRL_OK) return HIRL_OK;
    const size_t held = pool->held;
    hirl_pool_trim(pool);
    return pool->held < held ? pool->source.take(pool->source.ctx, *size, memory_p) : status;
}

static hirl_status_t grow(hirl_pool_t *pool, arena_t *arena, size_t bytes) {
    // An eighth of what is held keeps the number of chunks, and so the loss at their ends, small.
    size_t size = pool->held / 8;
    if (size < arena->chunk_least) size = arena->chunk_least;
    if (size > arena->chunk_most) size = arena->chunk_most;
    if (size < bytes) size = bytes;
    size = round_up(size, arena->granule);
    chunk_t *chunk = NULL;
    block_t *block = NULL;
    void *memory = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &chunk));
    hirl_status_t status = record_take(pool, &block);
    if (status == HIRL_OK) {
        status = source_take(pool, bytes, &size, &memory);
        if (status != HIRL_OK) record_give(pool, block);
    }
    if (status != HIRL_OK) {
        hirl_mem_free(chunk);
        return status;
    }
    *chunk = (chunk_t){.next = arena->chunks, .memory = memory, .bytes = size, .first = block};
    *block = (block_t){.memory = memory, .bytes = size, .chunk = chunk};
    arena->chunks = chunk;
    pool->held += size;
    bin_insert(arena, block);
    if (pool->source.space != HIRL_SPACE_DEVICE) POISON(memory, size);
    return HIRL_OK;
}

static void free_chunk(hirl_pool_t *pool, chunk_t *chunk) {
    pool->held -= chunk->bytes;
    if (pool->source.space != HIRL_SPACE_DEVICE) UNPOISON(chunk->memory, chunk->bytes);
    pool->source.give(pool->source.ctx, chunk->memory, chunk->bytes);
    record_give(pool, chunk->first);
    hirl_mem_free(chunk);
}

// ---------------------------------------------------------------------------------------------- the allocator

static hirl_status_t pool_alloc(void *ctx, size_t bytes, void **data_p) {
    hirl_pool_t *pool = ctx;
    HIRL_REQUIRE(bytes <= PTRDIFF_MAX / 2, HIRL_ERR_MEMORY, "cannot allocate %zu bytes", bytes);
    arena_t *arena = bytes <= SMALL_LIMIT ? &pool->small : &pool->large;
    const size_t need = round_up(bytes ? bytes : 1, arena->granule);
    HIRL_TRY(table_reserve(pool));
    block_t *rest = NULL, *block = find_fit(arena, need);
    if (!block) {
        HIRL_TRY(grow(pool, arena, need));
        block = find_fit(arena, need);
    }
    if (block->bytes - need >= 2 * arena->granule) HIRL_TRY(record_take(pool, &rest));
    bin_remove(arena, block);
    if (rest) {
        *rest = (block_t){.memory = block->memory + need,
                          .bytes = block->bytes - need,
                          .chunk = block->chunk,
                          .before = block,
                          .after = block->after};
        if (rest->after) rest->after->before = rest;
        block->after = rest;
        block->bytes = need;
        bin_insert(arena, rest);
    }
    table_insert(pool, block);
    pool->used += block->bytes;
    if (pool->used > pool->peak) pool->peak = pool->used;
    if (pool->source.space != HIRL_SPACE_DEVICE) UNPOISON(block->memory, bytes);
    *data_p = block->memory;
    return HIRL_OK;
}

/// Joins `block` with the free block behind it.
static void absorb(hirl_pool_t *pool, arena_t *arena, block_t *block) {
    block_t *next = block->after;
    bin_remove(arena, next);
    block->bytes += next->bytes;
    block->after = next->after;
    if (block->after) block->after->before = block;
    record_give(pool, next);
}

static void pool_free(void *ctx, void *data, size_t bytes) {
    hirl_pool_t *pool = ctx;
    if (!data) return;
    block_t *block = table_remove(pool, data);
    if (!block) {
        hirl_log_rank(HIRL_LOG_ERROR,
                      "internal error: pool memory at %p is freed twice or does not belong to a "
                      "pool",
                      data);
        HIRL_ASSERT(block != NULL);
        return;
    }
    HIRL_ASSERT(bytes <= block->bytes);
    arena_t *arena = bytes <= SMALL_LIMIT ? &pool->small : &pool->large;
    pool->used -= block->bytes;
    ++pool->n_given;
    if (pool->source.space != HIRL_SPACE_DEVICE) POISON(data, block->bytes);
    if (block->after && block->after->is_free) absorb(pool, arena, block);
    if (block->before && block->before->is_free) {
        block_t *before = block->before;
        bin_remove(arena, before);
        before->bytes += block->bytes;
        before->after = block->after;
        if (before->after) before->after->before = before;
        record_give(pool, block);
        block = before;
    }
    bin_insert(arena, block);
}

// ---------------------------------------------------------------------------------------------- public

hirl_status_t hirl_pool_create(const hirl_pool_source_t *source, hirl_pool_t **pool_p) {
    HIRL_REQUIRE(source && pool_p, HIRL_ERR_ARG, "pool: source and output must be given");
    HIRL_REQUIRE(source->granule >= 64 && LARGE_GRANULE % source->granule == 0, HIRL_ERR_ARG,
                 "pool: granule of %zu bytes, want a divisor of %d from 64 on", source->granule,
                 (int)LARGE_GRANULE);
    hirl_pool_t *pool = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &pool));
    pool->source = *source;
    pool->allocator = (hirl_allocator_t){
        .space = source->space, .ctx = pool, .alloc = pool_alloc, .free = pool_free};
    pool->small.granule = source->granule;
    pool->small.chunk_least = pool->small.chunk_most = (size_t)1 << 20;
    pool->large.granule = LARGE_GRANULE;
    pool->large.chunk_least = (size_t)8 << 20;
    pool->large.chunk_most = (size_t)1 << 30;
    *pool_p = pool;
    return HIRL_OK;
}

static hirl_status_t host_take(void *ctx, size_t bytes, void **memory_p) {
    (void)ctx;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_ACTIVATION, bytes, memory_p));
    const uintptr_t begin = (uintptr_t)*memory_p;
    const uintptr_t low = (begin + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const uintptr_t high = (begin + bytes) / HUGE_PAGE * HUGE_PAGE;
    // A hint: where the system has no huge pages all works the same, only slower.
    if (low < high) (void)madvise((void *)low, high - low, MADV_HUGEPAGE);
    return HIRL_OK;
}

static void host_give(void *ctx, void *memory, size_t bytes) {
    (void)ctx;
    (void)bytes;
    hirl_mem_free(memory);
}

hirl_status_t hirl_pool_create_host(hirl_pool_t **pool_p) {
    const hirl_pool_source_t source = {
        .space = HIRL_SPACE_HOST, .granule = 64, .take = host_take, .give = host_give};
    return hirl_pool_create(&source, pool_p);
}

void hirl_pool_destroy(hirl_pool_t **pool_p) {
    hirl_pool_t *pool = pool_p ? *pool_p : NULL;
    if (!pool) return;
    *pool_p = NULL;
    if (pool->used > 0) {
        // The tensors that still live point into it: keep it, so that they stay valid and the memory balance shows the leak.
        hirl_log_rank(HIRL_LOG_ERROR,
                      "internal error: %zu bytes of a pool are still in use at its end",
                      pool->used);
        return;
    }
    hirl_pool_trim(pool);
    for (records_t *records = pool->records, *next; records; records = next) {
        next = records->next;
        hirl_mem_free(records);
    }
    hirl_mem_free(pool->table);
    hirl_mem_free(pool);
}

const hirl_allocator_t *hirl_pool_allocator_view(hirl_pool_t *pool) { return &pool->allocator; }
size_t hirl_pool_used(const hirl_pool_t *pool) { return pool->used; }
size_t hirl_pool_peak(const hirl_pool_t *pool) { return pool->peak; }
size_t hirl_pool_held(const hirl_pool_t *pool) { return pool->held; }

static void trim_arena(hirl_pool_t *pool, arena_t *arena) {
    for (chunk_t **link = &arena->chunks; *link;) {
        chunk_t *chunk = *link;
        if (chunk->first->is_free && chunk->first->bytes == chunk->bytes) {
            bin_remove(arena, chunk->first);
            *link = chunk->next;
            free_chunk(pool, chunk);
        } else {
            link = &chunk->next;
        }
    }
}

void hirl_pool_set_kept(hirl_pool_t *pool, bool is_kept) { pool->is_kept = is_kept; }
uint64_t hirl_pool_n_given(const hirl_pool_t *pool) { return pool->n_given; }

void hirl_pool_trim(hirl_pool_t *pool) {
    if (pool->is_kept) return;
    trim_arena(pool, &pool->small);
    trim_arena(pool, &pool->large);
}
