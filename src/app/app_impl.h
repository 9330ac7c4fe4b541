/// @file app_impl.h
/// Tasks: each reads its groups of the deck, calls the modules below, and reports. For src/app alone.
#ifndef HIRL_APP_IMPL_H
#define HIRL_APP_IMPL_H

#include "hirl/app.h"
#include "hirl/train.h"

/// Exit codes of the program, documented in the README.
enum {
    APP_EXIT_OK = 0,
    APP_EXIT_FAILURE = 1,
    APP_EXIT_USAGE = 2,
    APP_EXIT_INTERRUPTED = 75, // a signal ended the run in good order: submit it again
    APP_EXIT_LOST = 76         // the watchdog ended the job, a rank or node being gone or hanging
};

/// Collective; `exit_code_p` is set on success.
typedef hirl_status_t (*app_task_run_t)(hirl_world_t *world, const hirl_deck_t *deck,
                                        int *exit_code_p);

typedef struct app_task {
    const char *name;
    const char *help;
    const char *const *groups;                       // whose required keys must be there; NULL ends
    hirl_status_t (*check)(const hirl_deck_t *deck); // rules between keys; NULL: none
    app_task_run_t run;
} app_task_t;

/// A task calls this with its status before it frees anything: shared memory and communicators are
/// freed by all ranks together, and ranks that go on would never come. Returns if all is well or all
/// ranks failed; a failure of this rank alone is printed and ends the job.
void app_settle(hirl_world_t *world, hirl_status_t status);

extern const app_task_t app_task_pack, app_task_pretrain, app_task_knn, app_task_probe,
    app_task_inspect, app_task_bench_input, app_task_preview;
extern const hirl_group_t app_probe_group, app_inspect_group, app_bench_input_group;

#endif
