// Signals that ask for an orderly end. The handler only sets a flag; ranks agree on it where they can end.

#include "hirl/base.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t caught;
static bool can_cancel;
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

hirl_status_t hirl_signal_begin(hirl_signal_use_t use) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    caught = 0;
    can_cancel = use == HIRL_SIGNAL_CANCELS;
    for (int i = 0; i < N_WATCHED; ++i)
        HIRL_REQUIRE(sigaction(watched[i], &action, &previous[i]) == 0, HIRL_ERR_INTERNAL,
                     "signal %d cannot be caught", watched[i]);
    return HIRL_OK;
}

void hirl_signal_end(void) {
    can_cancel = false;
    for (int i = 0; i < N_WATCHED; ++i) sigaction(watched[i], &previous[i], NULL);
}

int hirl_signal_caught(void) { return caught; }

bool hirl_signal_can_cancel(void) { return can_cancel; }

int hirl_signal_cancels(void) { return can_cancel ? caught : 0; }
