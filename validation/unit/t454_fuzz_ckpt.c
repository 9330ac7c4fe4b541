// The kept corpus of the fuzz target for checkpoints and general files of arrays: inputs that once
// went wrong, and some of each form.
// test: timeout=120
#define HIRL_FUZZ_REPLAY
#include "../fuzz/fuzz_ckpt.c"

#ifdef __SANITIZE_ADDRESS__
// HDF5 forgets the headers that it cannot decode; what we hold is counted by hirl_mem_*.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5\n"; }
#endif

TEST_MAIN { fuzz_replay("validation/fuzz/corpus/ckpt"); }
