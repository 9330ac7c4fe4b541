/// Counted memory that is still held at the end fails the test.
// test: timeout=60 sanitize=no expect="bytes still held at the end"
#include "test.h"

TEST_MAIN {
    void *forgotten = NULL;
    CHECK_OK(hirl_mem_alloc(HIRL_MEM_GENERAL, 100, &forgotten));
}
