// A lock that one process holds, by the kernel's byte-range locks: they end with the process and reach over most network file systems.
#include "hirl/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Who holds it, as written there; "another process" if that cannot be read.
static void read_holder(int fd, char *text, size_t size) {
    ssize_t n = pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    for (char *at = text; *at; ++at)
        if ((unsigned char)*at < ' ' || *at == 127) *at = '?';
    if (!text[0]) snprintf(text, size, "another process");
}

hirl_status_t hirl_lock_take(const char *path, int *fd_p) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char text[256], host[128] = "";
    *fd_p = -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fcntl(fd, F_OFD_SETLK, &whole) != 0) {
        int cause = errno;
        read_holder(fd, text, sizeof text);
        close(fd);
        HIRL_REQUIRE(cause != EAGAIN && cause != EACCES, HIRL_ERR_IO,
                     "%s: the folder is in use by %s. Wait for it, end it, or use another folder",
                     path, text);
        hirl_log_root(HIRL_LOG_WARN,
                      "%s: cannot be locked (%s): nothing keeps a second run out of this folder",
                      path, strerror(cause));
        return HIRL_OK;
    }
    gethostname(host, sizeof host - 1);
    int n = snprintf(text, sizeof text, "process %ld on %s\n", (long)getpid(), host);
    // For people only: the lock is held whether or not this can be written.
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        hirl_log_root(HIRL_LOG_WARN, "%s: cannot be written: %s", path, strerror(errno));
    *fd_p = fd;
    return HIRL_OK;
}

void hirl_lock_release(int *fd) {
    if (*fd < 0) return;
    if (ftruncate(*fd, 0) != 0) hirl_log_root(HIRL_LOG_DEBUG, "lock: %s", strerror(errno));
    close(*fd);
    *fd = -1;
}
