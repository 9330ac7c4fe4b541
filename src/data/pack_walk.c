// Walks through the folders of a source, as their file systems list them. Names that begin with a dot are left out; links are followed, a
// limited number of folders deep, for one may lead back.
#include "data_impl.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 64 };

// What vanished or dangles counts as a file, and is reported when it is read.
static bool is_folder_entry(int folder_fd, const struct dirent *entry) {
    if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) return entry->d_type == DT_DIR;
    struct stat found;
    return fstatat(folder_fd, entry->d_name, &found, 0) == 0 && S_ISDIR(found.st_mode);
}

hirl_status_t hirl_pack_list(const char *path, hirl_pack_entry_visit_t visit, void *ctx) {
    DIR *dir = opendir(path);
    HIRL_REQUIRE(dir, HIRL_ERR_IO, "cannot be opened: %s", strerror(errno));
    hirl_status_t status = HIRL_OK;
    const struct dirent *entry;
    errno = 0;
    while (status == HIRL_OK && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.') status = hirl_pack_heed_signals();
        if (status == HIRL_OK && entry->d_name[0] != '.')
            status = visit(ctx, entry->d_name, is_folder_entry(dirfd(dir), entry));
        errno = 0;
    }
    if (status == HIRL_OK && errno)
        status = HIRL_FAIL(HIRL_ERR_IO, "cannot be listed: %s", strerror(errno));
    closedir(dir);
    return status;
}

// One folder under way.
typedef struct place {
    const hirl_pack_walk_t *walk;
    const char *folder; // below the root
    int depth;
    int64_t n_taken, n_folders;
    bool is_inside; // a failure came from an entry, not from this folder
} place_t;

static hirl_status_t walk_folder(const hirl_pack_walk_t *walk, const char *folder, int depth);

static hirl_status_t walk_entry(void *ctx, const char *name, bool is_folder) {
    place_t *place = ctx;
    const hirl_pack_walk_t *walk = place->walk;
    char path[PATH_MAX];
    bool is_taken = false;
    place->is_inside = true;
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s%s%s", place->folder,
                              place->folder[0] ? "/" : "", name));
    if (is_folder) {
        place->n_folders++;
        HIRL_TRY(walk_folder(walk, path, place->depth + 1));
    } else {
        HIRL_TRY(walk->file(walk->ctx, path, name, &is_taken));
        place->n_taken += is_taken;
    }
    place->is_inside = false;
    return HIRL_OK;
}

static hirl_status_t walk_folder(const hirl_pack_walk_t *walk, const char *folder, int depth) {
    HIRL_REQUIRE(depth <= DEPTH_MAX, HIRL_ERR_IO,
                 "%s/%s: more than %d folders deep; a link may lead back", walk->root, folder,
                 DEPTH_MAX);
    char path[PATH_MAX];
    place_t place = {.walk = walk, .folder = folder, .depth = depth};
    HIRL_TRY(
        hirl_text_format(path, sizeof path, "%s%s%s", walk->root, folder[0] ? "/" : "", folder));
    const hirl_status_t status = hirl_pack_list(path, walk_entry, &place);
    HIRL_REQUIRE(status != HIRL_ERR_IO || place.is_inside, status, "%sfolder %s: %s",
                 depth == 0 ? "pack%source: " : "", path, hirl_error_text_view());
    HIRL_TRY(status);
    return walk->folder(walk->ctx, folder, depth == 0, place.n_taken, place.n_folders);
}

hirl_status_t hirl_pack_walk(const hirl_pack_walk_t *walk) { return walk_folder(walk, "", 0); }
