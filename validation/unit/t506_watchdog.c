// The watchdog in good order: it hears all ranks, keeps quiet about one that is late by less than the limit, and ends with the world.
// What it does to jobs that hang is in validation/failure/watchdog.py.
// test: ranks=1,2,4 timeout=60
#include "hirl/par.h"

#include <unistd.h>

#include "test.h"

static void test_calm(hirl_world_t *world) {
    const double timeout = 3.0;
    NEED_OK(hirl_watchdog_start(world, timeout, 76));
    CHECK_OK(hirl_watchdog_start(world, timeout, 76)); // it runs already
    hirl_beat_phase("test");
    for (int64_t step = 0; step < 200; step++) {
        int32_t one = 1;
        hirl_beat_step(step);
        NEED_OK(hirl_par_all_reduce(world, &one, 1, HIRL_PAR_I32, HIRL_PAR_SUM));
        CHECK_EQ_I(one, hirl_world_size(world));
    }
    if (hirl_world_rank(world) == hirl_world_size(world) - 1) sleep(1); // the others wait
    CHECK_OK(hirl_par_barrier(world));
    if (hirl_world_rank(world) == 0) sleep(1); // the hub is late
    CHECK_OK(hirl_par_barrier(world));
}

static void test_beat(void) {
    hirl_beat_step(7);
    hirl_beat_phase("a phase");
    hirl_beat_enter("outer");
    hirl_beat_enter("inner");
    hirl_beat_leave();
    hirl_beat_t beat = hirl_beat_read();
    CHECK_EQ_I(beat.step, 7);
    CHECK_EQ_S(beat.phase, "a phase");
    CHECK_EQ_S(beat.call, "outer");
    usleep(20000);
    CHECK(hirl_beat_read().seconds >= 0.02);
    hirl_beat_leave();
    CHECK(hirl_beat_read().call == NULL && hirl_beat_read().seconds < 0.02);
}

TEST_MAIN {
    hirl_world_t *world = NULL, *second = NULL;
    RUN(test_beat);
    CHECK_FAILS(hirl_watchdog_start(NULL, 1, 76), HIRL_ERR_ARG, "timeout");
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    CHECK_FAILS(hirl_watchdog_start(world, 0, 76), HIRL_ERR_ARG, "timeout");
    CHECK_FAILS(hirl_watchdog_start(world, 1, 0), HIRL_ERR_ARG, "exit code");
    CHECK_FAILS(hirl_watchdog_start(world, 1, 128), HIRL_ERR_ARG, "exit code");
    test_calm(world);
    // Two at once, and an end while others are still at work.
    NEED_OK(hirl_world_create(NULL, NULL, &second));
    NEED_OK(hirl_watchdog_start(second, 3.0, 76));
    hirl_world_destroy(&second);
    CHECK_OK(hirl_par_barrier(world));
    hirl_world_destroy(&world);
}
