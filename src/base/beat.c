// Where the main thread is: a few atomics that a watchdog reads. Each is right by itself; together they may be of two moments.
#include "hirl/base.h"

#include <stdatomic.h>

static _Atomic int64_t current_step;
static _Atomic(const char *) current_phase = "start";
static _Atomic(const char *) current_call;
static _Atomic double changed_at; // when `current_call` was set or cleared
static int depth;                 // main thread

void hirl_beat_step(int64_t step) { atomic_store(&current_step, step); }

void hirl_beat_phase(const char *phase) { atomic_store(&current_phase, phase); }

static void change(const char *call) {
    atomic_store(&changed_at, hirl_time_now());
    atomic_store(&current_call, call);
}

void hirl_beat_enter(const char *call) {
    if (depth++ == 0) change(call);
}

void hirl_beat_leave(void) {
    if (--depth == 0) change(NULL);
}

hirl_beat_t hirl_beat_read(void) {
    double at = atomic_load(&changed_at);
    return (hirl_beat_t){.step = atomic_load(&current_step),
                         .phase = atomic_load(&current_phase),
                         .call = atomic_load(&current_call),
                         .seconds = at > 0 ? hirl_time_now() - at : 0};
}
