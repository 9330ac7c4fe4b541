// A folder of checkpoints: which there are, which may go. Files with other names are never touched.
#include "folder_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char PREFIX[] = "checkpoint-", SUFFIX[] = ".h5";

// The step in "checkpoint-<8 digits or more>.h5"; -1 for other names.
static int64_t step_of_name(const char *name) {
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0) return -1;
    const char *digits = name + sizeof PREFIX - 1;
    const size_t n = strspn(digits, "0123456789");
    // More digits than 8 only where they are needed: each step has one name.
    if (n < 8 || n > 18 || (n > 8 && digits[0] == '0')) return -1;
    return strcmp(digits + n, SUFFIX) == 0 ? (int64_t)strtoll(digits, NULL, 10) : -1;
}

static bool is_temporary(const char *name) {
    const size_t n = strlen(name);
    return strncmp(name, ".checkpoint-", 12) == 0 && n > 19 && strcmp(name + n - 7, ".h5.tmp") == 0;
}

static int newest_first(const void *a, const void *b) {
    const int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left < right) - (left > right);
}

hirl_status_t hirl_ckpt_folder_list(const char *folder, int64_t **steps_p, int *n_p) {
    *steps_p = NULL;
    *n_p = 0;
    DIR *listing = opendir(folder);
    if (!listing && errno == ENOENT) return HIRL_OK;
    HIRL_REQUIRE(listing, HIRL_ERR_IO, "folder %s: cannot list it: %s", folder, strerror(errno));
    void *steps = NULL;
    int n = 0, n_room = 0;
    hirl_status_t status = HIRL_OK;
    errno = 0;
    for (struct dirent *entry; (entry = readdir(listing)); errno = 0) {
        const int64_t step = step_of_name(entry->d_name);
        if (step < 0) continue;
        if (n == n_room) {
            n_room = n_room ? 2 * n_room : 16;
            HIRL_TRY_GOTO(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)n_room * sizeof step, &steps),
                          status, err_free);
        }
        ((int64_t *)steps)[n++] = step;
    }
    if (errno != 0) {
        status = HIRL_FAIL(HIRL_ERR_IO, "folder %s: cannot list it: %s", folder, strerror(errno));
        goto err_free;
    }
    closedir(listing);
    if (n > 0) qsort(steps, (size_t)n, sizeof(int64_t), newest_first);
    *steps_p = steps;
    *n_p = n;
    return HIRL_OK;

err_free:
    closedir(listing);
    hirl_mem_free(steps);
    return status;
}

void hirl_ckpt_folder_sync(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)fsync(fd); // some file systems refuse it for folders
    close(fd);
}

static void remove_file(const char *folder, const char *name, const char *what) {
    char path[PATH_MAX];
    if (hirl_text_format(path, sizeof path, "%s/%s", folder, name) != HIRL_OK) return;
    if (unlink(path) != 0 && errno != ENOENT) {
        hirl_log_rank(HIRL_LOG_WARN, "%s %s: cannot remove it: %s", what, path, strerror(errno));
    }
}

void hirl_ckpt_folder_remove_stale(const char *folder) {
    DIR *listing = opendir(folder);
    if (!listing) return;
    for (struct dirent *entry; (entry = readdir(listing));) {
        if (is_temporary(entry->d_name))
            remove_file(folder, entry->d_name, "unfinished checkpoint");
    }
    closedir(listing);
}

void hirl_ckpt_folder_keep(const char *folder, int64_t written, int64_t keep) {
    int64_t *steps = NULL, n_complete = 1; // the one just written
    int n = 0;
    if (hirl_ckpt_folder_list(folder, &steps, &n) != HIRL_OK) {
        hirl_log_rank(HIRL_LOG_WARN, "old checkpoints stay: %s", hirl_error_text_view());
        return;
    }
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX], name[64];
        hirl_ckpt_t *ckpt = NULL;
        if (steps[i] == written ||
            hirl_text_format(name, sizeof name, "checkpoint-%08lld.h5", (long long)steps[i]) !=
                HIRL_OK ||
            hirl_text_format(path, sizeof path, "%s/%s", folder, name) != HIRL_OK) {
            continue;
        }
        // What is not complete is no replacement for what is, and not ours to throw away.
        if (hirl_ckpt_open(path, false, &ckpt) != HIRL_OK) continue;
        hirl_ckpt_close(&ckpt);
        if (++n_complete > keep) remove_file(folder, name, "old checkpoint");
    }
    hirl_mem_free(steps);
}

void hirl_ckpt_tidy(const char *folder, int64_t step, int64_t keep) {
    int64_t *steps = NULL;
    int n = 0;
    hirl_ckpt_folder_remove_stale(folder);
    if (hirl_ckpt_folder_list(folder, &steps, &n) == HIRL_OK && n > 0 && steps[0] == step)
        hirl_ckpt_folder_keep(folder, step, keep);
    hirl_mem_free(steps);
}
