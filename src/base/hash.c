// XXH64 with seed 0; the values are stored in shards and checkpoints.
#include "hirl/base.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hirl_hash64(const void *data, size_t size) { return XXH64(data, size, 0); }
