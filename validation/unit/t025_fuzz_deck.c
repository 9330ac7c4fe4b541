// The kept corpus of the fuzz target for decks: inputs that once went wrong, and some of each form.
// test: timeout=60
#define HIRL_FUZZ_REPLAY
#include "../fuzz/fuzz_deck.c"

TEST_MAIN { fuzz_replay("validation/fuzz/corpus/deck"); }
