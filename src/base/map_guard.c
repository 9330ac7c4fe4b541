// Mapped files whose pages may go away. The handler of SIGBUS puts a page of zeros in the place of one that cannot be read and counts it;
// whoever reads asks for the count afterwards. What does not lie in a guarded mapping ends the process, as ever.
#include "hirl/base.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// Never freed: the handler may walk the list at any moment. A node whose size is 0 can be used again.
typedef struct guarded {
    _Atomic uintptr_t start;
    _Atomic size_t size;
    struct guarded *next;
} guarded_t;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // of changes
static _Atomic(guarded_t *) guarded_list;
static _Atomic int64_t n_faults;
static long page_size;          // set before the handler
static bool has_handler;        // under lock
static struct sigaction before; // under lock, then the handler's

static bool is_guarded(uintptr_t at) {
    for (const guarded_t *one = atomic_load(&guarded_list); one; one = one->next) {
        const uintptr_t start = atomic_load(&one->start);
        if (at >= start && at - start < atomic_load(&one->size)) return true;
    }
    return false;
}

// mmap is a plain system call here, and errno is the interrupted code's.
static void on_bus_error(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    void *page = (void *)(at - at % (uintptr_t)page_size);
    if (is_guarded(at) && mmap(page, (size_t)page_size, PROT_READ,
                               MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page) {
        atomic_fetch_add(&n_faults, 1);
        return;
    }
    sigaction(SIGBUS, &before, NULL); // the access is tried again, and ends the process
}

// With the lock held.
static bool install(void) {
    struct sigaction action;
    if (has_handler) return true;
    page_size = sysconf(_SC_PAGESIZE);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    has_handler = sigaction(SIGBUS, &action, &before) == 0;
    return has_handler;
}

hirl_status_t hirl_map_guard(const void *start, size_t size) {
    hirl_status_t status = HIRL_OK;
    pthread_mutex_lock(&lock);
    guarded_t *one = atomic_load(&guarded_list);
    while (one && atomic_load(&one->size) != 0) one = one->next;
    if (!install()) {
        status = HIRL_FAIL(HIRL_ERR_INTERNAL, "SIGBUS cannot be caught");
    } else if (one) {
        atomic_store(&one->start, (uintptr_t)start);
        atomic_store(&one->size, size);
    } else {
        // Not counted memory: it stays to the end.
        one = calloc(1, sizeof *one);
        if (one) {
            atomic_store(&one->start, (uintptr_t)start);
            atomic_store(&one->size, size);
            one->next = atomic_load(&guarded_list);
            atomic_store(&guarded_list, one);
        } else {
            status = HIRL_FAIL(HIRL_ERR_MEMORY, "no memory to guard a mapped file");
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

void hirl_map_unguard(const void *start) {
    pthread_mutex_lock(&lock);
    for (guarded_t *one = atomic_load(&guarded_list); one; one = one->next)
        if (atomic_load(&one->size) != 0 && atomic_load(&one->start) == (uintptr_t)start) {
            atomic_store(&one->size, 0);
            break;
        }
    pthread_mutex_unlock(&lock);
}

int64_t hirl_map_faults(void) { return atomic_load(&n_faults); }
