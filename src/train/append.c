// Files that grow by whole records: a record that was written in part is cut off again, and kept until there is room for it.

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "run_log_impl.h"

// More than that is not kept: hours of lines.
enum { PENDING_MAX = 16 << 20 };

hirl_status_t append_open(const char *path, bool is_new, append_t *append_p) {
    append_t append = {0};
    struct stat found;
    HIRL_TRY(hirl_text_format(append.path, sizeof append.path, "%s", path));
    append.fd =
        open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (is_new ? O_TRUNC : 0), 0666);
    HIRL_REQUIRE(append.fd >= 0, HIRL_ERR_IO, "%s: cannot be opened for append: %s", path,
                 strerror(errno));
    if (fstat(append.fd, &found) != 0) {
        hirl_status_t status =
            HIRL_FAIL(HIRL_ERR_IO, "%s: its size is unknown: %s", path, strerror(errno));
        close(append.fd);
        return status;
    }
    append.size = (int64_t)found.st_size;
    append.is_open = true;
    *append_p = append;
    return HIRL_OK;
}

// All of it, or nothing with errno set.
static bool write_all(append_t *append, const char *data, size_t n) {
    size_t done = 0;
    if (append->is_torn && ftruncate(append->fd, (off_t)append->size) != 0) return false;
    append->is_torn = false;
    while (done < n) {
        ssize_t now = write(append->fd, data + done, n - done);
        if (now < 0 && errno == EINTR) continue;
        if (now <= 0) {
            int cause = now < 0 ? errno : ENOSPC;
            append->is_torn = done > 0 && ftruncate(append->fd, (off_t)append->size) != 0;
            errno = cause;
            return false;
        }
        done += (size_t)now;
    }
    append->size += (int64_t)n;
    return true;
}

static bool keep(append_t *append, const void *data, size_t n) {
    size_t need = append->n_pending + n;
    if (need > PENDING_MAX) return false;
    if (need > append->capacity) {
        void *grown = append->pending;
        if (hirl_mem_realloc(HIRL_MEM_GENERAL, 2 * need, &grown) != HIRL_OK) return false;
        append->pending = grown;
        append->capacity = 2 * need;
    }
    memcpy(append->pending + append->n_pending, data, n);
    append->n_pending = need;
    return true;
}

static void write_pending(append_t *append) {
    if (append->n_pending == 0 || !write_all(append, append->pending, append->n_pending)) return;
    append->n_pending = 0;
    append->is_failing = false;
    hirl_log_root(HIRL_LOG_INFO, "%s: is written again, with all that was kept back", append->path);
}

void append_record(append_t *append, const void *data, size_t n) {
    if (!append->is_open || n == 0) return;
    if (append->n_pending == 0 && write_all(append, data, n)) return;
    int cause = errno;
    if (!keep(append, data, n))
        hirl_log_root(HIRL_LOG_WARN, "%s: a record is lost: no room for it", append->path);
    if (!append->is_failing)
        hirl_log_root(HIRL_LOG_WARN,
                      "%s: a record could not be written: %s. It is kept and tried again with the "
                      "next one",
                      append->path, strerror(cause));
    else
        write_pending(append);
    if (append->n_pending > 0) append->is_failing = true;
}

void append_sync(append_t *append) {
    if (!append->is_open) return;
    write_pending(append);
    // Pipes and some file systems refuse the call.
    (void)fdatasync(append->fd);
}

void append_close(append_t *append) {
    if (append->is_open) {
        write_pending(append);
        if (append->n_pending > 0)
            hirl_log_root(HIRL_LOG_WARN, "%s: its last %zu bytes found no room", append->path,
                          append->n_pending);
        close(append->fd);
    }
    hirl_mem_free(append->pending);
    *append = (append_t){0};
}
