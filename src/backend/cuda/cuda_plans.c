/// Plans of cuBLASLt and cuDNN by shape: a table of keys (bytes) to whatever the maker wants to keep. It only grows; a training
/// run has some hundreds. And the stopwatch by which plans are chosen.
#include "cuda_impl.h"

#include <math.h>
#include <string.h>

typedef struct entry {
    struct entry *next;
    uint64_t hash;
    size_t key_bytes;
    void *key, *plan;
    void (*destroy)(void *plan);
} entry_t;

enum { N_PLACES = 1024 };

struct cuda_plans {
    entry_t *place[N_PLACES];
};

hirl_status_t hirl_cuda_plans_create(cuda_ctx_t *ctx, cuda_plans_t **plans_p) {
    HIRL_TRY_CUBLAS(cublasLtCreate(&ctx->blas));
    HIRL_TRY_CUDNN(cudnnCreate(&ctx->dnn));
    HIRL_TRY_CUDNN(cudnnSetStream(ctx->dnn, ctx->stream));
    return HIRL_ALLOC(HIRL_MEM_GENERAL, 1, plans_p);
}

static void entry_destroy(entry_t *entry) {
    entry->destroy(entry->plan);
    hirl_mem_free(entry->key);
    hirl_mem_free(entry);
}

void hirl_cuda_plans_destroy(cuda_plans_t **plans_p) {
    if (!plans_p || !*plans_p) return;
    for (int i = 0; i < N_PLACES; ++i)
        for (entry_t *entry = (*plans_p)->place[i], *next; entry; entry = next) {
            next = entry->next;
            entry_destroy(entry);
        }
    hirl_mem_free(*plans_p);
    *plans_p = NULL;
}

void *hirl_cuda_plans_find(const cuda_plans_t *plans, const void *key, size_t key_bytes) {
    const uint64_t hash = hirl_hash64(key, key_bytes);
    for (const entry_t *entry = plans->place[hash % N_PLACES]; entry; entry = entry->next)
        if (entry->hash == hash && entry->key_bytes == key_bytes &&
            memcmp(entry->key, key, key_bytes) == 0)
            return entry->plan;
    return NULL;
}

hirl_status_t hirl_cuda_plans_keep(cuda_plans_t *plans, const void *key, size_t key_bytes,
                                   void *plan, void (*destroy)(void *plan)) {
    entry_t *entry = NULL;
    void *copy = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &entry);
    if (status == HIRL_OK) status = hirl_mem_alloc(HIRL_MEM_GENERAL, key_bytes, &copy);
    if (status != HIRL_OK) {
        hirl_mem_free(entry);
        destroy(plan);
        return status;
    }
    memcpy(copy, key, key_bytes);
    const uint64_t hash = hirl_hash64(key, key_bytes);
    *entry = (entry_t){.next = plans->place[hash % N_PLACES],
                       .hash = hash,
                       .key_bytes = key_bytes,
                       .key = copy,
                       .plan = plan,
                       .destroy = destroy};
    plans->place[hash % N_PLACES] = entry;
    return HIRL_OK;
}

// ---------------------------------------------------------------------------------------------- timing

bool hirl_cuda_may_time(const cuda_ctx_t *ctx) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    if (ctx->is_deterministic) return false;
    return cudaStreamIsCapturing(ctx->stream, &capture) == cudaSuccess &&
           capture == cudaStreamCaptureStatusNone;
}

hirl_status_t hirl_cuda_time(cuda_ctx_t *ctx, bool (*run)(void *self), void *self, float *ms_p) {
    enum { N_RUNS = 5 };
    cudaEvent_t event[2] = {NULL, NULL};
    hirl_status_t status = HIRL_OK;
    float ms = INFINITY;
    for (int i = 0; i < 2; ++i)
        HIRL_TRY_CUDA_GOTO(cudaEventCreateWithFlags(&event[i], cudaEventDefault), status, done);
    bool is_good = run(self); // loads code and fills caches
    HIRL_TRY_CUDA_GOTO(cudaEventRecord(event[0], ctx->stream), status, done);
    for (int i = 0; is_good && i < N_RUNS; ++i) is_good = run(self);
    HIRL_TRY_CUDA_GOTO(cudaEventRecord(event[1], ctx->stream), status, done);
    HIRL_TRY_CUDA_GOTO(cudaEventSynchronize(event[1]), status, done);
    if (is_good) {
        HIRL_TRY_CUDA_GOTO(cudaEventElapsedTime(&ms, event[0], event[1]), status, done);
        ms /= N_RUNS;
    }
    *ms_p = ms;
done:
    for (int i = 0; i < 2; ++i)
        if (event[i]) (void)cudaEventDestroy(event[i]);
    return status;
}
