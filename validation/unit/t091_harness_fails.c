/// A check that fails on the last rank alone fails the test.
// test: ranks=1,3 timeout=60 expect="1 failed"
#include "test.h"

TEST_MAIN { CHECK(test_rank() != test_size() - 1); }
