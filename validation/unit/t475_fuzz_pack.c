// The kept corpus of the fuzz target for what describes a data set to pack: inputs that once went
// wrong, and some of each form.
// test: timeout=60
#define HIRL_FUZZ_REPLAY
#include "../fuzz/fuzz_pack.c"

TEST_MAIN {
    fuzz_replay("validation/fuzz/corpus/pack");
    hirl_world_destroy(&world);
}
