// Folders, files that are whole or absent, and parts of open ones.
#include "hirl/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static hirl_status_t make_one(const char *folder, const char *path) {
    struct stat found;
    if (mkdir(folder, 0777) == 0) return HIRL_OK;
    int cause = errno;
    // Another rank may have made it meanwhile; read-only parents answer EROFS or EACCES for folders
    // that exist.
    if (stat(folder, &found) == 0) {
        HIRL_REQUIRE(S_ISDIR(found.st_mode), HIRL_ERR_IO,
                     "folder %s: %s exists and is not a folder", path, folder);
        return HIRL_OK;
    }
    return HIRL_FAIL(HIRL_ERR_IO, "folder %s: cannot make %s: %s", path, folder, strerror(cause));
}

hirl_status_t hirl_path_make_folder(const char *path) {
    HIRL_REQUIRE(path && path[0], HIRL_ERR_ARG, "the name of a folder is empty");
    char part[PATH_MAX];
    HIRL_TRY(hirl_text_format(part, sizeof part, "%s", path));
    for (char *at = part + 1; *at; at++) {
        if (*at != '/') continue;
        *at = '\0';
        HIRL_TRY(make_one(part, path));
        *at = '/';
    }
    return make_one(part, path);
}

static hirl_status_t write_content(int fd, const char *path, const char *data, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        HIRL_REQUIRE(n > 0, HIRL_ERR_IO, "%s: cannot write it: %s", path,
                     n < 0 ? strerror(errno) : "no progress");
        data += n;
        size -= (size_t)n;
    }
    HIRL_REQUIRE(fsync(fd) == 0, HIRL_ERR_IO, "%s: cannot bring it to disk: %s", path,
                 strerror(errno));
    return HIRL_OK;
}

hirl_status_t hirl_path_write_whole(const char *path, const void *data, size_t size) {
    static atomic_uint n_written; // keeps the temporary names of threads apart
    HIRL_REQUIRE(path && path[0], HIRL_ERR_ARG, "the name of a file is empty");
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char folder[PATH_MAX], temporary[PATH_MAX];
    if (slash) {
        HIRL_TRY(hirl_text_format(folder, sizeof folder, "%.*s", (int)(slash - path + 1), path));
    } else {
        HIRL_TRY(hirl_text_format(folder, sizeof folder, "./"));
    }
    HIRL_TRY(hirl_text_format(temporary, sizeof temporary, "%s.%s-%ld-%u.tmp", folder, name,
                              (long)getpid(), atomic_fetch_add(&n_written, 1)));

    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "%s: cannot create it: %s", path, strerror(errno));
    hirl_status_t status = write_content(fd, path, data, size);
    if (close(fd) != 0 && status == HIRL_OK) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%s: cannot close it: %s", path, strerror(errno));
    }
    if (status == HIRL_OK && rename(temporary, path) != 0) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%s: cannot move it into place: %s", path, strerror(errno));
    }
    if (status != HIRL_OK) {
        unlink(temporary);
        return status;
    }
    // The new name lives in the folder, which some file systems write back on their own time;
    // others refuse the call.
    int folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder_fd >= 0) {
        (void)fsync(folder_fd);
        close(folder_fd);
    }
    return HIRL_OK;
}

hirl_status_t hirl_file_read_at(int fd, const char *name, int64_t pos, void *out, size_t size) {
    for (size_t done = 0; done < size;) {
        const ssize_t n = pread(fd, (char *)out + done, size - done, pos + (int64_t)done);
        if (n < 0 && errno == EINTR) continue;
        HIRL_REQUIRE(n > 0, HIRL_ERR_IO, "%s%scannot read byte %lld: %s", name ? name : "",
                     name ? ": " : "", (long long)pos + (long long)done,
                     n < 0 ? strerror(errno) : "the file was cut short");
        done += (size_t)n;
    }
    return HIRL_OK;
}
