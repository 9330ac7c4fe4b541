// Fault points: places where a test can make the program fail or be killed. HIRL_FAULT names them and says at which pass.
#include "hirl/base.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_POINTS = 16, NAME_MAX_BYTES = 48 };

typedef struct point {
    char name[NAME_MAX_BYTES];
    long n_passes;
} point_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static point_t points[N_POINTS]; // under lock

// Passes of the point so far, with this one; 0 if there is no room to count them.
static long count_pass(const char *name) {
    long n = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < N_POINTS; ++i) {
        if (!points[i].name[0]) memcpy(points[i].name, name, strlen(name) + 1);
        if (strcmp(points[i].name, name) != 0) continue;
        n = ++points[i].n_passes;
        break;
    }
    pthread_mutex_unlock(&lock);
    return n;
}

bool hirl_fault(const char *name) {
    const char *at = getenv("HIRL_FAULT");
    const size_t n_name = strlen(name);
    if (!at || n_name >= NAME_MAX_BYTES) return false;
    const long pass = count_pass(name);
    while (at) {
        if (strncmp(at, name, n_name) == 0 && at[n_name] == ':' &&
            strtol(at + n_name + 1, NULL, 10) == pass)
            return true;
        at = strchr(at, ',');
        if (at) ++at;
    }
    return false;
}

void hirl_fault_hang(const char *name) {
    if (!hirl_fault(name)) return;
    for (;;) pause();
}

void hirl_fault_kill(const char *name) {
    if (hirl_fault(name)) raise(SIGKILL);
}
