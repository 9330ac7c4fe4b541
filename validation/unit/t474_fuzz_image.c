// The kept corpus of the fuzz target for samples (pictures and parts of them, EXIF data, clips):
// inputs that once went wrong, and some of each form.
// test: timeout=60
#define HIRL_FUZZ_REPLAY
#include "../fuzz/fuzz_image.c"

TEST_MAIN {
    fuzz_replay("validation/fuzz/corpus/image");
    hirl_world_destroy(&world);
}
