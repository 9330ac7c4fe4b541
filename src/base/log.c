// Log lines to stderr and, where a file is open, to that file. A line is formatted whole and handed
// to the kernel in one write, so that lines of several ranks and threads do not mix; a mutex keeps
// the progress text and the sink consistent. Logging never fails: a line that finds no room in the file
// is not in it at all, which the file says once there is room again.
#include "hirl/base.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int log_level = HIRL_LOG_INFO;
static atomic_int log_rank = 0;
static int file_descriptor = -1;       // under sink_lock
static long n_missing = 0;             // lines that the file lacks; under sink_lock
static bool progress_is_drawn = false; // under sink_lock

static const char *const LEVEL_NAME[] = {"error", "warning", "info", "debug", "trace"};
static const char ERASE_LINE[] = "\r\033[K";

static bool write_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        data += n;
        size -= (size_t)n;
    }
    return true;
}

// Whole or not at all; with the lock held.
static bool write_file(const char *data, size_t size) {
    const off_t end = lseek(file_descriptor, 0, SEEK_END); // fails for a pipe, which needs none
    if (write_all(file_descriptor, data, size)) return true;
    const int cause = errno;
    // A part that stays is as much as can be done.
    (void)!(end >= 0 && ftruncate(file_descriptor, end) != 0);
    errno = cause;
    return false;
}

// With the lock held.
static void write_file_line(const char *line, size_t size) {
    char note[160];
    if (n_missing > 0) {
        int n =
            snprintf(note, sizeof note,
                     "warning: %ld lines are missing here: they could not be written\n", n_missing);
        if (write_file(note, (size_t)n)) n_missing = 0;
    }
    if (n_missing == 0 && write_file(line, size)) return;
    if (n_missing++ > 0) return;
    int n = snprintf(note, sizeof note,
                     "warning: the log file cannot be written: %s. Lines that it lacks are here\n",
                     strerror(errno));
    write_all(STDERR_FILENO, note, (size_t)n);
}

void hirl_log_setup(hirl_log_level_t level, int rank) {
    atomic_store(&log_level, (int)level);
    atomic_store(&log_rank, rank);
}

hirl_status_t hirl_log_open_file(const char *path) {
    int fd = -1;
    if (path) {
        fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "log file %s: cannot open it for appending: %s", path,
                     strerror(errno));
    }
    pthread_mutex_lock(&sink_lock);
    int old = file_descriptor;
    file_descriptor = fd;
    n_missing = 0;
    pthread_mutex_unlock(&sink_lock);
    if (old >= 0) close(old);
    return HIRL_OK;
}

bool hirl_log_is_terminal(void) {
    return atomic_load(&log_rank) == 0 && isatty(STDERR_FILENO) == 1;
}

// `has_rank` adds the rank to the prefix.
static void log_line(hirl_log_level_t level, bool has_rank, const char *fmt, va_list args) {
    char prefix[64] = "";
    if (has_rank) {
        snprintf(prefix, sizeof prefix, "%s: rank %d: ", LEVEL_NAME[level], atomic_load(&log_rank));
    } else if (level != HIRL_LOG_INFO) {
        snprintf(prefix, sizeof prefix, "%s: ", LEVEL_NAME[level]);
    }

    // Not counted memory: a line about the memory balance must not change that balance.
    char small[1024];
    char *line = small;
    size_t n_prefix = strlen(prefix), room = sizeof small - 1;
    va_list again;
    va_copy(again, args);
    memcpy(line, prefix, n_prefix + 1);
    int n = vsnprintf(line + n_prefix, room - n_prefix, fmt, args);
    if (n > 0 && n_prefix + (size_t)n >= room) {
        char *large = malloc(n_prefix + (size_t)n + 2);
        if (large) {
            line = large;
            memcpy(line, prefix, n_prefix);
            vsnprintf(line + n_prefix, (size_t)n + 1, fmt, again);
        }
    }
    va_end(again);
    size_t size = strlen(line);
    if (size == 0 || line[size - 1] != '\n') line[size++] = '\n';

    pthread_mutex_lock(&sink_lock);
    if (progress_is_drawn) {
        write_all(STDERR_FILENO, ERASE_LINE, sizeof ERASE_LINE - 1);
        progress_is_drawn = false;
    }
    write_all(STDERR_FILENO, line, size);
    if (file_descriptor >= 0) write_file_line(line, size);
    pthread_mutex_unlock(&sink_lock);
    if (line != small) free(line);
}

void hirl_log_rank(hirl_log_level_t level, const char *fmt, ...) {
    if ((int)level > atomic_load(&log_level)) return;
    va_list args;
    va_start(args, fmt);
    log_line(level, true, fmt, args);
    va_end(args);
}

void hirl_log_root(hirl_log_level_t level, const char *fmt, ...) {
    if (atomic_load(&log_rank) != 0 || (int)level > atomic_load(&log_level)) return;
    va_list args;
    va_start(args, fmt);
    log_line(level, false, fmt, args);
    va_end(args);
}

// Bytes of `text` that fit in `n_columns` (one per code point); a longer line would wrap and could
// not be erased.
static size_t bytes_in_columns(const char *text, int n_columns) {
    size_t i = 0;
    for (int column = 0; text[i] && text[i] != '\n'; column++) {
        if (column == n_columns) break;
        do {
            i++;
        } while (((unsigned char)text[i] & 0xC0u) == 0x80u);
    }
    return i;
}

void hirl_log_progress(const char *text) {
    if (!hirl_log_is_terminal()) return;
    pthread_mutex_lock(&sink_lock);
    if (text && text[0]) {
        struct winsize window;
        int n_columns = 79;
        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1)
            n_columns = window.ws_col - 1;
        write_all(STDERR_FILENO, ERASE_LINE, sizeof ERASE_LINE - 1);
        write_all(STDERR_FILENO, text, bytes_in_columns(text, n_columns));
        progress_is_drawn = true;
    } else if (progress_is_drawn) {
        write_all(STDERR_FILENO, ERASE_LINE, sizeof ERASE_LINE - 1);
        progress_is_drawn = false;
    }
    pthread_mutex_unlock(&sink_lock);
}
