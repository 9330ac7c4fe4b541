/// Memory that nothing counts and nobody frees is found by the sanitizer's build.
// test: timeout=60 sanitize=only expect="LeakSanitizer: detected memory leaks"
#include "test.h"

TEST_MAIN {
    char *volatile forgotten = malloc(100);
    CHECK(forgotten != NULL);
    forgotten = NULL;
}
