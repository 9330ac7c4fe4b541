// The watchdog of a job. A thread per rank sends a heartbeat over TCP to the thread of rank 0, the hub, and hears the hub's. The hub ends the job when a
// rank's connection closes without a farewell (it died), when nothing comes from it (it is stopped, or its node is gone), or when ranks have
// waited for others for too long. MPI is the main thread's alone, and may be what hangs: the only call from here is MPI_Abort, with a deadline.
#include "par_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ADDRESS_MAX = 8, NODE_MAX_BYTES = 64, TEXT_MAX_BYTES = 48, LIST_MAX_BYTES = 256 };
static const double CONNECT_SECONDS = 10.0;

typedef enum message_kind { HELLO = 1, BEAT, FAREWELL, END } message_kind_t;

// Between processes of one program on one kind of machine: sent as it lies in memory.
typedef struct message {
    uint64_t token; // of this job; what has another is not of this job
    int32_t kind, rank;
    int64_t step;
    double seconds;
    char phase[TEXT_MAX_BYTES / 2];
    char call[TEXT_MAX_BYTES]; // empty: computes
} message_t;

// Where the hub listens.
typedef struct invitation {
    uint64_t token;
    int32_t n_addresses;
    struct sockaddr_storage addresses[ADDRESS_MAX];
} invitation_t;

typedef struct identity {
    char node[NODE_MAX_BYTES];
    int64_t pid;
    uint64_t pid_space; // pids of different name spaces are not comparable
} identity_t;

// The other end of a connection: any rank for the hub, the hub for any other rank.
typedef struct peer {
    int fd; // -1: none, or ended in good order
    int rank;
    double heard_at;
    message_t last;
    char buffer[sizeof(message_t)];
    size_t n_buffer;
    bool is_mute; // a message could not be sent whole: no more are
} peer_t;

struct hirl_watchdog {
    int rank, size;
    double timeout, period, limit;
    int exit_code; // of a job that is ended here
    int culprit;   // the rank because of which it is; -1: none is known
    uint64_t token;
    identity_t *identities; // [size]
    peer_t *peers;          // the hub: [size - 1]; others: [1]
    int n_peers;
    struct pollfd *polls; // [n_peers + 1]
    int wake;             // eventfd
    pthread_t thread;
    bool has_thread;
    atomic_bool is_ending;
    double ran_at;    // when the thread last looked
    double paused_at; // when it was last found to have been paused itself
};

// ------------------------------------------------------------------------------------ messages

static void fill_message(const hirl_watchdog_t *w, message_kind_t kind, message_t *message) {
    hirl_beat_t beat = hirl_beat_read();
    memset(message, 0, sizeof *message);
    message->token = w->token;
    message->kind = kind;
    message->rank = w->rank;
    message->step = beat.step;
    // A job that was paused as a whole has waited for nobody meanwhile.
    double since_pause = hirl_time_now() - w->paused_at;
    message->seconds = beat.seconds < since_pause ? beat.seconds : since_pause;
    snprintf(message->phase, sizeof message->phase, "%s", beat.phase ? beat.phase : "");
    // of a call as it is written, the name
    if (beat.call)
        snprintf(message->call, sizeof message->call, "%.*s", (int)strcspn(beat.call, "("),
                 beat.call);
}

static void send_message(peer_t *peer, const message_t *message) {
    if (peer->fd < 0 || peer->is_mute) return;
    ssize_t n = send(peer->fd, message, sizeof *message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0 && (size_t)n < sizeof *message) peer->is_mute = true;
}

// Messages that have arrived; false if the connection is closed.
static bool receive(hirl_watchdog_t *w, peer_t *peer) {
    for (;;) {
        ssize_t n = recv(peer->fd, peer->buffer + peer->n_buffer,
                         sizeof peer->buffer - peer->n_buffer, MSG_DONTWAIT);
        if (n == 0) return false;
        if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
        peer->n_buffer += (size_t)n;
        if (peer->n_buffer < sizeof peer->buffer) continue;
        message_t message;
        memcpy(&message, peer->buffer, sizeof message);
        peer->n_buffer = 0;
        if (message.token != w->token) return false;
        message.phase[sizeof message.phase - 1] = message.call[sizeof message.call - 1] = '\0';
        peer->heard_at = hirl_time_now();
        peer->last = message;
        if (message.kind == FAREWELL || message.kind == END) return true;
    }
}

// ------------------------------------------------------------------------------------ the end of a job

// A stopped process outlives its job where nothing else ends it: one on this node is killed.
static void kill_culprit(const hirl_watchdog_t *w) {
    const identity_t *mine = &w->identities[w->rank];
    const identity_t *other = &w->identities[w->culprit >= 0 ? w->culprit : w->rank];
    if (other != mine && other->pid_space == mine->pid_space && other->pid > 1 &&
        strcmp(other->node, mine->node) == 0)
        kill((pid_t)other->pid, SIGKILL);
}

// MPI_Abort may hang like anything else of a broken job.
static void *give_up_later(void *argument) {
    const hirl_watchdog_t *w = argument;
    sleep(3);
    kill_culprit(w);
    raise(SIGKILL);
    return NULL;
}

// The launcher ends all ranks, the culprit too. It is not killed before: the launcher would report that in place of our code.
static _Noreturn void end_process(hirl_watchdog_t *w, int culprit) {
    pthread_t thread;
    w->culprit = culprit < w->size ? culprit : -1;
    if (pthread_create(&thread, NULL, give_up_later, w) == 0)
        MPI_Abort(MPI_COMM_WORLD, w->exit_code);
    for (;;) raise(SIGKILL); // should it return
}

// The hub has printed why. `culprit` is -1 if no rank is known to hang.
static _Noreturn void end_job(hirl_watchdog_t *w, int culprit) {
    message_t message;
    fill_message(w, END, &message);
    message.step = culprit;
    for (int i = 0; i < w->n_peers; ++i) send_message(&w->peers[i], &message);
    usleep(200000); // for the others to hear it before the launcher ends them
    end_process(w, culprit);
}

static void describe_rank(const hirl_watchdog_t *w, int rank, char text[160]) {
    snprintf(text, 160, "rank %d (process %lld on node %s)", rank,
             (long long)w->identities[rank].pid, w->identities[rank].node);
}

static void describe_place(const message_t *last, char text[160]) {
    if (last->kind == 0) {
        snprintf(text, 160, "it has told nothing yet");
    } else if (last->call[0]) {
        snprintf(text, 160, "it was at step %lld, %s, in %s", (long long)last->step, last->phase,
                 last->call);
    } else {
        snprintf(text, 160, "it was at step %lld, %s", (long long)last->step, last->phase);
    }
}

static _Noreturn void report(hirl_watchdog_t *w, const peer_t *peer, const char *what) {
    char who[160], where[160];
    describe_rank(w, peer->rank, who);
    describe_place(&peer->last, where);
    hirl_log_rank(HIRL_LOG_ERROR, "watchdog: %s %s; %s. The job ends (run%%timeout = %g s)", who,
                  what, where, w->timeout);
    end_job(w, peer->rank);
}

// ------------------------------------------------------------------------------------ what is wrong

static void check_silence(hirl_watchdog_t *w, const peer_t *peer, double now) {
    char what[96];
    if (now - peer->heard_at <= w->limit) return;
    snprintf(what, sizeof what, "gave no sign of life for %.1f s: stopped, or its node is gone",
             now - peer->heard_at);
    report(w, peer, what);
}

// The hub: have ranks waited too long, and for whom? `mine` is the hub's own state.
static void check_waiting(hirl_watchdog_t *w, const message_t *mine) {
    const message_t *longest = NULL, *late = NULL;
    char who[160], late_who[160], where[160];
    for (int i = -1; i < w->n_peers; ++i) {
        const message_t *at = i < 0 ? mine : &w->peers[i].last;
        if (i >= 0 && w->peers[i].fd < 0) return; // it ended: the others will, too
        if (at->call[0] && at->seconds > w->limit && (!longest || at->seconds > longest->seconds))
            longest = at;
        if (!at->call[0] && (!late || at->seconds > late->seconds)) late = at;
    }
    if (!longest) return;
    describe_rank(w, longest->rank, who);
    if (!late) {
        // All wait: for each other, or for a network that has lost a message. One that came a moment ago may resolve it.
        for (int i = -1; i < w->n_peers; ++i)
            if ((i < 0 ? mine : &w->peers[i].last)->seconds <= w->limit) return;
        hirl_log_rank(HIRL_LOG_ERROR,
                      "watchdog: all ranks wait for each other: %s for %.1f s at step %lld, %s, in "
                      "%s. The job ends (run%%timeout = %g s)",
                      who, longest->seconds, (long long)longest->step, longest->phase,
                      longest->call, w->timeout);
        end_job(w, -1);
    }
    describe_rank(w, late->rank, late_who);
    describe_place(late, where);
    hirl_log_rank(HIRL_LOG_ERROR,
                  "watchdog: %s waits for %s: for %.1f s in %s, step %lld. As to the late one, %s "
                  "for %.1f s. The job ends (run%%timeout = %g s)",
                  who, late_who, longest->seconds, longest->call, (long long)longest->step, where,
                  late->seconds, w->timeout);
    end_job(w, late->rank);
}

// Another rank has found what is wrong, and has said so: for the hub, that it was stopped itself.
static void obey(hirl_watchdog_t *w, const peer_t *peer) {
    if (peer->last.kind == END) end_process(w, (int)peer->last.step);
}

// The lowest rank that is left speaks first, and ends the others.
static _Noreturn void lose_hub(hirl_watchdog_t *w, const peer_t *hub, const char *what) {
    usleep((useconds_t)(w->rank < 50 ? w->rank : 50) * 50000);
    report(w, hub, what);
}

static void serve(hirl_watchdog_t *w, peer_t *peer, bool is_ready, double now) {
    if (peer->fd < 0) return;
    bool is_open = !is_ready || receive(w, peer);
    obey(w, peer);
    if (peer->last.kind == FAREWELL) {
        close(peer->fd);
        peer->fd = -1;
        return;
    }
    if (!is_open) {
        if (w->rank != 0) lose_hub(w, peer, "died: its connection closed");
        report(w, peer, "died: its connection closed");
    }
    check_silence(w, peer, now);
}

static void look(hirl_watchdog_t *w) {
    double now = hirl_time_now();
    message_t mine;
    // Paused itself, for instance with the whole job: nobody else's silence means anything.
    if (now - w->ran_at > 4 * w->period + 1.0) {
        w->paused_at = now;
        for (int i = 0; i < w->n_peers; ++i) w->peers[i].heard_at = now;
    }
    w->ran_at = now;
    fill_message(w, BEAT, &mine);
    for (int i = 0; i < w->n_peers; ++i) {
        serve(w, &w->peers[i], w->polls[i].revents != 0, now);
        send_message(&w->peers[i], &mine);
    }
    if (w->rank == 0) check_waiting(w, &mine);
}

static void *work(void *argument) {
    hirl_watchdog_t *w = argument;
    double next = hirl_time_now();
    while (!atomic_load(&w->is_ending)) {
        for (int i = 0; i < w->n_peers; ++i)
            w->polls[i] = (struct pollfd){.fd = w->peers[i].fd, .events = POLLIN};
        w->polls[w->n_peers] = (struct pollfd){.fd = w->wake, .events = POLLIN};
        double left = next - hirl_time_now();
        poll(w->polls, (nfds_t)w->n_peers + 1, left > 0 ? (int)(left * 1000) + 1 : 0);
        if (atomic_load(&w->is_ending)) break;
        bool is_due = hirl_time_now() >= next, is_news = false;
        for (int i = 0; i < w->n_peers; ++i)
            is_news |= (w->polls[i].revents & (POLLHUP | POLLERR)) != 0;
        // Heartbeats are read once a period; what is more urgent, at once.
        if (!is_due && !is_news) {
            for (int i = 0; i < w->n_peers; ++i)
                if (w->polls[i].revents) serve(w, &w->peers[i], true, hirl_time_now());
            continue;
        }
        look(w);
        if (is_due) next = hirl_time_now() + w->period;
    }
    return NULL;
}

// ------------------------------------------------------------------------------------ connections

static void set_options(int fd) {
    int on = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static socklen_t address_size(const struct sockaddr_storage *address) {
    return address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in);
}

// Addresses of this node that others may reach; a job of one node needs the loopback alone.
static void list_addresses(bool is_one_node, in_port_t port, invitation_t *invitation) {
    struct ifaddrs *all = NULL;
    struct sockaddr_in loopback = {
        .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (!is_one_node && getifaddrs(&all) == 0) {
        for (struct ifaddrs *at = all; at && invitation->n_addresses < ADDRESS_MAX - 1;
             at = at->ifa_next) {
            if (!at->ifa_addr || !(at->ifa_flags & IFF_UP) || (at->ifa_flags & IFF_LOOPBACK) ||
                at->ifa_addr->sa_family != AF_INET)
                continue;
            struct sockaddr_in address;
            memcpy(&address, at->ifa_addr, sizeof address);
            address.sin_port = port;
            memcpy(&invitation->addresses[invitation->n_addresses++], &address, sizeof address);
        }
        freeifaddrs(all);
    }
    memcpy(&invitation->addresses[invitation->n_addresses++], &loopback, sizeof loopback);
}

static int listen_somewhere(bool is_one_node, in_port_t *port_p) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr =
                                      htonl(is_one_node ? INADDR_LOOPBACK : INADDR_ANY)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        close(fd);
        return -1;
    }
    *port_p = address.sin_port;
    return fd;
}

static bool wait_ready(int fd, short events, double until) {
    for (;;) {
        double left = until - hirl_time_now();
        struct pollfd one = {.fd = fd, .events = events};
        int n = left > 0 ? poll(&one, 1, (int)(left * 1000) + 1) : 0;
        if (n > 0) return true;
        if (n == 0 || errno != EINTR) return false;
    }
}

static bool read_hello(int fd, uint64_t token, double until, message_t *message) {
    size_t n = 0;
    while (n < sizeof *message) {
        if (!wait_ready(fd, POLLIN, until)) return false;
        ssize_t got = recv(fd, (char *)message + n, sizeof *message - n, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (got > 0) n += (size_t)got;
    }
    return message->token == token && message->kind == HELLO;
}

static void add_peer(hirl_watchdog_t *w, int fd, int rank) {
    w->peers[w->n_peers++] = (peer_t){.fd = fd, .rank = rank, .heard_at = hirl_time_now()};
}

// The hub: all ranks that call in time.
static void accept_ranks(hirl_watchdog_t *w, int listener, double until) {
    bool *is_here = calloc((size_t)w->size, sizeof *is_here);
    while (is_here && w->n_peers < w->size - 1 && wait_ready(listener, POLLIN, until)) {
        message_t hello;
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) continue;
        set_options(fd);
        double patience = hirl_time_now() + 1.0; // with a stranger that says nothing
        if (!read_hello(fd, w->token, patience < until ? patience : until, &hello) ||
            hello.rank < 1 || hello.rank >= w->size || is_here[hello.rank]) {
            close(fd);
            continue;
        }
        is_here[hello.rank] = true;
        add_peer(w, fd, hello.rank);
        fill_message(w, HELLO, &hello);
        send_message(&w->peers[w->n_peers - 1], &hello);
    }
    free(is_here);
}

static bool call_address(hirl_watchdog_t *w, const struct sockaddr_storage *address, double until) {
    message_t hello;
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), cause = 0;
    socklen_t size = sizeof cause;
    if (fd < 0) return false;
    set_options(fd);
    bool is_connected = connect(fd, (const struct sockaddr *)address, address_size(address)) == 0 ||
                        (errno == EINPROGRESS && wait_ready(fd, POLLOUT, until) &&
                         getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &size) == 0 && cause == 0);
    fill_message(w, HELLO, &hello);
    if (is_connected && send(fd, &hello, sizeof hello, MSG_NOSIGNAL) == (ssize_t)sizeof hello &&
        read_hello(fd, w->token, until, &hello)) {
        add_peer(w, fd, 0);
        return true;
    }
    close(fd);
    return false;
}

static void call_hub(hirl_watchdog_t *w, const invitation_t *invitation, double until) {
    bool is_same_node = strcmp(w->identities[0].node, w->identities[w->rank].node) == 0;
    int n = invitation->n_addresses;
    for (int i = 0; i < n; ++i) {
        // on the hub's node the loopback, which is last, is tried first, and elsewhere not at all
        int at = is_same_node ? (i + n - 1) % n : i;
        if (at == n - 1 && !is_same_node) continue;
        double patience = hirl_time_now() + CONNECT_SECONDS / 4;
        if (call_address(w, &invitation->addresses[at], patience < until ? patience : until))
            return;
    }
}

// ------------------------------------------------------------------------------------ life

static void identify(identity_t *identity) {
    struct stat space;
    char name[MPI_MAX_PROCESSOR_NAME + 1] = "";
    int n = 0;
    memset(identity, 0, sizeof *identity);
    MPI_Get_processor_name(name, &n);
    snprintf(identity->node, sizeof identity->node, "%.*s", NODE_MAX_BYTES - 1, name);
    identity->pid = getpid();
    identity->pid_space = stat("/proc/self/ns/pid", &space) == 0 ? (uint64_t)space.st_ino : 0;
}

static void free_watchdog(hirl_watchdog_t *w) {
    for (int i = 0; i < w->n_peers; ++i)
        if (w->peers[i].fd >= 0) close(w->peers[i].fd);
    if (w->wake >= 0) close(w->wake);
    hirl_mem_free(w->identities);
    hirl_mem_free(w->peers);
    hirl_mem_free(w->polls);
    hirl_mem_free(w);
}

static hirl_status_t allocate(hirl_world_t *world, double timeout, hirl_watchdog_t **w_p) {
    hirl_watchdog_t *w = NULL;
    hirl_status_t status;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &w));
    w->wake = -1;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, world->size, &w->identities), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, world->size, &w->peers), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, world->size + 1, &w->polls), status, err);
    w->rank = world->rank;
    w->size = world->size;
    w->timeout = timeout;
    // The job has ended within `timeout`: a few periods go by until the last sign is old enough, and the launcher takes
    // its time.
    w->period = timeout / 20 < 5.0 ? timeout / 20 : 5.0;
    w->limit = timeout - 3 * w->period - (timeout / 5 < 3.0 ? timeout / 5 : 3.0);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    w->ran_at = hirl_time_now();
    *w_p = w;
    return HIRL_OK;
err:
    free_watchdog(w);
    return status;
}

static bool begin_thread(hirl_watchdog_t *w) {
    sigset_t all, before;
    sigfillset(&all); // signals are the main thread's
    pthread_sigmask(SIG_SETMASK, &all, &before);
    w->has_thread = pthread_create(&w->thread, NULL, work, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return w->has_thread;
}

// Collective: connects all ranks; the number of those connected is the same on all.
static hirl_status_t connect_all(hirl_world_t *world, hirl_watchdog_t *w, int64_t *n_connected_p) {
    invitation_t invitation = {0};
    identity_t mine;
    in_port_t port = 0;
    int listener = -1;
    bool is_one_node = world->n_nodes == 1;
    identify(&mine);
    HIRL_TRY(hirl_par_all_gather(world, &mine, (int64_t)sizeof mine, HIRL_PAR_U8, w->identities));
    if (w->rank == 0) {
        listener = listen_somewhere(is_one_node, &port);
        if (getrandom(&invitation.token, sizeof invitation.token, 0) < 0)
            invitation.token = (uint64_t)getpid();
        if (listener >= 0) list_addresses(is_one_node, port, &invitation);
    }
    hirl_status_t status =
        hirl_par_broadcast(world, &invitation, (int64_t)sizeof invitation, HIRL_PAR_U8, 0);
    w->token = invitation.token;
    // Nodes that know no address but their own loopback cannot meet: there is nothing to wait for.
    bool can_meet = is_one_node || invitation.n_addresses > 1;
    double until = hirl_time_now() + (can_meet ? CONNECT_SECONDS : 0);
    if (status == HIRL_OK && w->rank == 0 && listener >= 0) accept_ranks(w, listener, until);
    if (status == HIRL_OK && w->rank != 0 && can_meet) call_hub(w, &invitation, until);
    if (listener >= 0) close(listener);
    HIRL_TRY(status);
    *n_connected_p = w->rank == 0 ? 0 : w->n_peers;
    return hirl_par_all_reduce(world, n_connected_p, 1, HIRL_PAR_I64, HIRL_PAR_SUM);
}

hirl_status_t hirl_watchdog_start(hirl_world_t *world, double timeout, int exit_code) {
    hirl_watchdog_t *w = NULL;
    int64_t n_connected = 0;
    HIRL_REQUIRE(world && timeout > 0, HIRL_ERR_ARG, "watchdog: timeout = %g s", timeout);
    HIRL_REQUIRE(exit_code > 0 && exit_code < 128, HIRL_ERR_ARG, "watchdog: exit code = %d",
                 exit_code);
    if (world->size == 1 || world->watchdog) return HIRL_OK;
    hirl_status_t status = allocate(world, timeout, &w);
    HIRL_TRY(hirl_par_agree(world, status));
    w->exit_code = exit_code;
    status = connect_all(world, w, &n_connected);
    if (status != HIRL_OK) {
        free_watchdog(w);
        return status;
    }
    int32_t is_complete = n_connected == world->size - 1 && begin_thread(w);
    status = hirl_par_all_reduce(world, &is_complete, 1, HIRL_PAR_I32, HIRL_PAR_MIN);
    world->watchdog = w;
    if (status == HIRL_OK && is_complete) return HIRL_OK;
    hirl_watchdog_destroy(&world->watchdog);
    hirl_log_root(HIRL_LOG_WARN,
                  "watchdog: %lld of %d ranks cannot reach rank 0 over TCP: a rank that hangs will "
                  "not be noticed",
                  (long long)(world->size - 1 - n_connected), world->size - 1);
    return status;
}

void hirl_watchdog_farewell(hirl_watchdog_t *w) {
    message_t message;
    if (atomic_exchange(&w->is_ending, true)) return;
    fill_message(w, FAREWELL, &message);
    for (int i = 0; i < w->n_peers; ++i) send_message(&w->peers[i], &message);
}

void hirl_watchdog_destroy(hirl_watchdog_t **watchdog) {
    if (!watchdog || !*watchdog) return;
    hirl_watchdog_t *w = *watchdog;
    atomic_store(&w->is_ending, true);
    uint64_t one = 1;
    if (write(w->wake, &one, sizeof one) < 0) hirl_log_rank(HIRL_LOG_DEBUG, "watchdog: no wake-up");
    if (w->has_thread) pthread_join(w->thread, NULL);
    message_t message;
    fill_message(w, FAREWELL, &message);
    for (int i = 0; i < w->n_peers; ++i) send_message(&w->peers[i], &message);
    free_watchdog(w);
    *watchdog = NULL;
}
