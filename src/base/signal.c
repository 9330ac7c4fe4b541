// Signals that ask for a checkpoint and an orderly end. The handler only sets a flag; all ranks agree on it at the next step.

#include "hirl/base.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t caught;
static const int watched[] = {SIGTERM, SIGUSR1, SIGINT};
enum { N_WATCHED = 3 };
static struct sigaction previous[N_WATCHED];

static void on_signal(int number) {
    if (caught && number == SIGINT) {
        signal(SIGINT, SIG_DFL);
        raise(SIGINT);
    }
    caught = number;
}

hirl_status_t hirl_signal_begin(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    caught = 0;
    for (int i = 0; i < N_WATCHED; ++i)
        HIRL_REQUIRE(sigaction(watched[i], &action, &previous[i]) == 0, HIRL_ERR_INTERNAL,
                     "signal %d cannot be caught", watched[i]);
    return HIRL_OK;
}

void hirl_signal_end(void) {
    for (int i = 0; i < N_WATCHED; ++i) sigaction(watched[i], &previous[i], NULL);
}

int hirl_signal_caught(void) { return caught; }
