// Copies of shards in a folder of each node (data%stage): a file system that many nodes share is read
// once per node, and what is read again and again lies on the node's own disk.
// The ranks of a node share the files out. A copy is read back from the disk and compared by checksum
// before it gets its name, which tells the original's path, size and time of change: a later run on the
// node finds it, and a changed original makes a new one. Copying goes on in short turns between which
// all ranks meet, so that the watchdog sees them alive and rank 0 can tell how far they are.
// What cannot be copied is read where it is, with a warning.
#include "data_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART ".part" // and the number of the process: a copy under way

enum { BLOCK = 4 << 20 }; // bytes
static const double TURN_SECONDS = 1, SHOW_SECONDS = 10;

typedef struct stager {
    const char *folder;
    const hirl_stage_file_t *file;
    int n, step;        // this rank's files are first, first + step, ...
    int at;             // file in work, or the next one
    uint8_t *is_staged; // [n], shared by the ranks of the node
    char (*copy)[PATH_MAX];
    // The file in work:
    int in, out; // -1: none
    char part[PATH_MAX + 32];
    int64_t pos;      // bytes copied, or read back
    bool is_checking; // copied; now read back
    uint64_t hash, read_hash;
    uint8_t *block;
    int64_t n_left; // bytes of the file in work and of those after it
} stager_t;

// The copy's name. Errors: HIRL_ERR_IO when the original cannot be looked at.
static hirl_status_t name_copy(const char *folder, const hirl_stage_file_t *file,
                               char copy[PATH_MAX]) {
    struct stat found;
    char path[PATH_MAX], key[PATH_MAX + 80];
    HIRL_REQUIRE(realpath(file->path, path) && stat(path, &found) == 0, HIRL_ERR_IO, "%s: %s",
                 file->path, strerror(errno));
    const int n = snprintf(key, sizeof key, "%s %lld %lld.%09ld", path, (long long)found.st_size,
                           (long long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec);
    const char *slash = strrchr(path, '/');
    return hirl_text_format(copy, PATH_MAX, "%s/%016llx-%s", folder,
                            (unsigned long long)hirl_hash64(key, (size_t)n),
                            slash ? slash + 1 : path);
}

static bool is_whole(const char *path, int64_t size) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISREG(found.st_mode) && found.st_size == size;
}

static void close_files(stager_t *s) {
    if (s->in >= 0) close(s->in);
    if (s->out >= 0) {
        close(s->out);
        unlink(s->part); // gone already if all went well
    }
    s->in = s->out = -1;
}

// Removes what processes that were killed have left half done: nobody holds its lock. One that cannot be removed is in nobody's way.
static void sweep(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return;
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        const char *part = strstr(entry->d_name, PART);
        if (!part || strspn(part + strlen(PART), "0123456789") != strlen(part + strlen(PART)))
            continue;
        const int fd = openat(dirfd(dir), entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
            unlinkat(dirfd(dir), entry->d_name, 0) == 0)
            hirl_log_rank(HIRL_LOG_INFO, "stage: removed %s/%s, left by a run that was killed",
                          folder, entry->d_name);
        if (fd >= 0) close(fd);
    }
    closedir(dir);
}

static hirl_status_t open_files(stager_t *s) {
    const hirl_stage_file_t *file = &s->file[s->at];
    snprintf(s->part, sizeof s->part, "%s" PART "%ld", s->copy[s->at], (long)getpid());
    s->in = open(file->path, O_RDONLY | O_CLOEXEC);
    HIRL_REQUIRE(s->in >= 0, HIRL_ERR_IO, "%s: %s", file->path, strerror(errno));
    s->out = open(s->part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    HIRL_REQUIRE(s->out >= 0, HIRL_ERR_IO, "%s: %s", s->part, strerror(errno));
    // Tells others of the node that this copy is being made. The kernel lets go of it when the process ends, however it ends.
    HIRL_REQUIRE(flock(s->out, LOCK_EX | LOCK_NB) == 0, HIRL_ERR_IO, "%s: cannot lock it: %s",
                 s->part, strerror(errno));
    // No room is better found before the copying than after it.
    const int error = posix_fallocate(s->out, 0, file->size);
    HIRL_REQUIRE(error == 0 || error == EOPNOTSUPP || error == EINVAL, HIRL_ERR_IO,
                 "%s: cannot have %lld bytes: %s", s->part, (long long)file->size, strerror(error));
    (void)posix_fadvise(s->in, 0, 0, POSIX_FADV_SEQUENTIAL);
    s->pos = 0;
    s->hash = s->read_hash = 0;
    s->is_checking = false;
    return HIRL_OK;
}

static hirl_status_t write_all(int fd, const uint8_t *from, size_t n, int64_t pos,
                               const char *path) {
    size_t done = 0;
    while (done < n) {
        const ssize_t put = pwrite(fd, from + done, n - done, pos + (int64_t)done);
        if (put < 0 && errno == EINTR) continue;
        HIRL_REQUIRE(put > 0, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
        done += (size_t)put;
    }
    return HIRL_OK;
}

// The checksum of a file is that of the chain of its blocks'.
static uint64_t chain(uint64_t hash, const uint8_t *block, size_t n) {
    const uint64_t link[2] = {hash, hirl_hash64(block, n)};
    return hirl_hash64(link, sizeof link);
}

// One block further; `*is_done_p` when the copy has its name.
static hirl_status_t advance(stager_t *s, bool *is_done_p) {
    const hirl_stage_file_t *file = &s->file[s->at];
    const int64_t left = file->size - s->pos;
    const size_t n = (size_t)(left < BLOCK ? left : BLOCK);
    *is_done_p = false;
    if (n > 0 && !s->is_checking) {
        HIRL_TRY(hirl_file_read_at(s->in, file->path, s->pos, s->block, n));
        HIRL_TRY(write_all(s->out, s->block, n, s->pos, s->part));
        s->hash = chain(s->hash, s->block, n);
    } else if (n > 0) {
        HIRL_TRY(hirl_file_read_at(s->out, s->part, s->pos, s->block, n));
        s->read_hash = chain(s->read_hash, s->block, n);
    }
    s->pos += (int64_t)n;
    if (s->pos < file->size) return HIRL_OK;
    if (!s->is_checking) {
        HIRL_REQUIRE(fsync(s->out) == 0, HIRL_ERR_IO, "%s: %s", s->part, strerror(errno));
        // Not what memory still holds of it.
        (void)posix_fadvise(s->out, 0, 0, POSIX_FADV_DONTNEED);
        s->is_checking = true;
        s->pos = 0;
        return HIRL_OK;
    }
    HIRL_REQUIRE(!hirl_fault("stage") && s->hash == s->read_hash, HIRL_ERR_IO,
                 "%s: the copy's checksum is %016llx, the original's %016llx", s->part,
                 (unsigned long long)s->read_hash, (unsigned long long)s->hash);
    HIRL_REQUIRE(rename(s->part, s->copy[s->at]) == 0, HIRL_ERR_IO, "%s: %s", s->copy[s->at],
                 strerror(errno));
    *is_done_p = true;
    return HIRL_OK;
}

// Works for a turn. Failures are warnings: the file stays where it is.
static void take_turn(stager_t *s) {
    const double begin = hirl_time_now();
    while (s->at < s->n && hirl_time_now() - begin < TURN_SECONDS) {
        const hirl_stage_file_t *file = &s->file[s->at];
        bool is_done = s->in < 0 && is_whole(s->copy[s->at], file->size);
        hirl_status_t status = HIRL_OK;
        if (!is_done && s->in < 0) status = open_files(s);
        if (!is_done && status == HIRL_OK) status = advance(s, &is_done);
        if (!is_done && status == HIRL_OK) continue;
        if (status != HIRL_OK)
            hirl_log_rank(HIRL_LOG_WARN, "%s; %s is read where it is", hirl_error_text_view(),
                          file->path);
        s->is_staged[s->at] = is_done;
        s->n_left -= file->size;
        close_files(s);
        s->at += s->step;
    }
}

// Bytes that this rank has not copied yet.
static double bytes_left(const stager_t *s) {
    const int64_t copied = s->in < 0 ? 0 : s->is_checking ? s->file[s->at].size : s->pos;
    return (double)(s->n_left - copied);
}

// Collective: turns until no rank has anything left.
static hirl_status_t copy_all(hirl_world_t *world, stager_t *s) {
    double total = (double)s->n_left, shown = hirl_time_now();
    const double begin = shown;
    char done_text[32], total_text[32], eta[32];
    HIRL_TRY(hirl_par_all_reduce(world, &total, 1, HIRL_PAR_F64, HIRL_PAR_SUM));
    for (;;) {
        take_turn(s);
        double left[3] = {bytes_left(s), s->at < s->n, hirl_signal_cancels() != 0};
        HIRL_TRY(hirl_par_all_reduce(world, left, 3, HIRL_PAR_F64, HIRL_PAR_SUM));
        if (left[1] == 0) return HIRL_OK;
        HIRL_REQUIRE(left[2] == 0, HIRL_ERR_INTERRUPTED, "a signal came while shards were copied");
        const double now = hirl_time_now(), done = total - left[0];
        if (now - shown < SHOW_SECONDS) continue;
        shown = now;
        hirl_text_duration(eta, done > 0 ? (now - begin) * left[0] / done : 0);
        hirl_log_root(HIRL_LOG_INFO, "stage: %s of %s copied, eta %s",
                      hirl_text_bytes(done_text, done), hirl_text_bytes(total_text, total), eta);
    }
}

hirl_status_t hirl_stage_files(hirl_world_t *world, const char *folder,
                               const hirl_stage_file_t *file, int n, char (*local)[PATH_MAX]) {
    stager_t s = {.folder = folder, .file = file, .n = n, .copy = local, .in = -1, .out = -1};
    hirl_par_shared_t *shared = NULL;
    const double begin = hirl_time_now();
    s.step = hirl_world_node_size(world);
    s.at = hirl_world_node_rank(world);
    hirl_status_t status = hirl_path_make_folder(folder);
    if (status == HIRL_OK && s.at == 0) sweep(folder);
    HIRL_TRY(hirl_par_agree(world, status));
    HIRL_TRY(hirl_par_shared_create(world, (size_t)n, &shared, (void **)&s.is_staged));
    status = HIRL_ALLOC(HIRL_MEM_DATA, BLOCK, &s.block);
    for (int i = 0; i < n && status == HIRL_OK; i++) status = name_copy(folder, &file[i], local[i]);
    for (int i = s.at; i < n; i += s.step) s.n_left += file[i].size;
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, done);
    HIRL_TRY_GOTO(copy_all(world, &s), status, done);
    HIRL_TRY_GOTO(hirl_par_shared_sync(shared), status, done);
    int n_staged = 0;
    for (int i = 0; i < n; i++) {
        n_staged += s.is_staged[i];
        if (!s.is_staged[i]) snprintf(local[i], PATH_MAX, "%s", file[i].path);
    }
    hirl_log_root(HIRL_LOG_INFO, "stage: %d of %d shards of this node are in %s after %.1f s",
                  n_staged, n, folder, hirl_time_now() - begin);
done:
    close_files(&s);
    hirl_mem_free(s.block);
    hirl_par_shared_destroy(&shared);
    return status;
}
