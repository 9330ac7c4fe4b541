// Image folders: the images of a folder and of all folders in it. Names that begin with a dot are
// left out. What the folders mean is up to pack_entries.c.
#include "data_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 64 };

typedef struct scan {
    const char *root;
    hirl_pack_entries_t entries;
    int64_t n_images, n_other; // files that are images by their name, or not
    hirl_pack_progress_t progress;
} scan_t;

// What vanished or dangles counts as a file, and is reported when it is read.
bool hirl_pack_is_folder_entry(int folder_fd, const struct dirent *entry) {
    if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) return entry->d_type == DT_DIR;
    struct stat found;
    return fstatat(folder_fd, entry->d_name, &found, 0) == 0 && S_ISDIR(found.st_mode);
}

static hirl_status_t scan_folder(scan_t *scan, const char *folder, int depth);

// Takes up one name of a folder; *is_used_p if it is an image or a folder.
static hirl_status_t scan_name(scan_t *scan, const char *folder, bool is_folder, const char *name,
                               int depth, bool *is_used_p) {
    char path[PATH_MAX];
    *is_used_p = is_folder || hirl_pack_is_image_name(name);
    if (!*is_used_p) {
        scan->n_other++;
        return HIRL_OK;
    }
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s%s%s", folder, folder[0] ? "/" : "", name));
    if (is_folder) return scan_folder(scan, path, depth + 1);
    if (++scan->n_images % 1024 == 0) hirl_pack_progress_update(&scan->progress, scan->n_images);
    return hirl_pack_entries_add(&scan->entries, path, strlen(path), NULL);
}

// Adds the images of root/<folder> and of all folders in it.
static hirl_status_t scan_folder(scan_t *scan, const char *folder, int depth) {
    HIRL_REQUIRE(depth <= DEPTH_MAX, HIRL_ERR_IO,
                 "%s/%s: more than %d folders deep; a link may lead back", scan->root, folder,
                 DEPTH_MAX);
    char path[PATH_MAX];
    HIRL_TRY(
        hirl_text_format(path, sizeof path, "%s%s%s", scan->root, folder[0] ? "/" : "", folder));
    DIR *dir = opendir(path);
    HIRL_REQUIRE(dir, HIRL_ERR_IO, "%sfolder %s: %s", depth == 0 ? "pack%source: " : "", path,
                 strerror(errno));
    hirl_status_t status = HIRL_OK;
    const struct dirent *entry;
    bool is_empty = true, is_used;
    errno = 0;
    while (status == HIRL_OK && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        status = hirl_pack_heed_signals();
        if (status != HIRL_OK) break;
        status = scan_name(scan, folder, hirl_pack_is_folder_entry(dirfd(dir), entry),
                           entry->d_name, depth, &is_used);
        is_empty = is_empty && !is_used;
        errno = 0;
    }
    if (status == HIRL_OK && errno)
        status = HIRL_FAIL(HIRL_ERR_IO, "folder %s: %s", path, strerror(errno));
    closedir(dir);
    HIRL_TRY(status);
    if (!is_empty || depth == 0) return HIRL_OK;
    hirl_pack_entry_t *added = NULL;
    HIRL_TRY(hirl_pack_entries_add(&scan->entries, folder, strlen(folder), &added));
    added->is_folder = true;
    return HIRL_OK;
}

hirl_status_t hirl_pack_find_folder(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    HIRL_REQUIRE(hirl_pack_is_folder(cfg->source), HIRL_ERR_IO, "pack%%source: %s is not a folder",
                 cfg->source);
    HIRL_TRY(hirl_text_format(source->root, sizeof source->root, "%s", cfg->source));
    scan_t scan = {.root = source->root};
    hirl_pack_progress_begin(&scan.progress, "pack: list", 0);
    hirl_status_t status;
    HIRL_TRY_GOTO(scan_folder(&scan, "", 0), status, done);
    if (scan.n_other) {
        hirl_log_root(
            HIRL_LOG_INFO,
            "pack: %lld files of %s are not called .png, .jpg, .jpeg or .webp and are left out",
            (long long)scan.n_other, scan.root);
    }
    if (scan.n_images == 0) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "pack%%source: %s holds no files .png, .jpg, .jpeg or .webp", scan.root);
        goto done;
    }
    HIRL_TRY_GOTO(hirl_pack_entries_label(cfg, scan.root, &scan.entries, source), status, done);
    status = hirl_pack_entries_deliver(&scan.entries, source);
done:
    hirl_pack_progress_end(&scan.progress);
    hirl_pack_entries_reset(&scan.entries);
    return status;
}
