// Image folders: the images of a folder and of all folders in it. What the folders mean is up to
// pack_entries.c.
#include "data_impl.h"

#include <string.h>

typedef struct scan {
    hirl_pack_entries_t entries;
    int64_t n_images, n_other; // files that are images by their name, or not
    hirl_pack_progress_t progress;
} scan_t;

static hirl_status_t take_file(void *ctx, const char *path, const char *name, bool *is_taken_p) {
    scan_t *scan = ctx;
    *is_taken_p = hirl_pack_is_image_name(name);
    if (!*is_taken_p) {
        scan->n_other++;
        return HIRL_OK;
    }
    if (++scan->n_images % 1024 == 0) hirl_pack_progress_update(&scan->progress, scan->n_images);
    return hirl_pack_entries_add(&scan->entries, path, strlen(path), NULL);
}

// An empty folder is a class without images.
static hirl_status_t take_folder(void *ctx, const char *path, bool is_root, int64_t n_taken,
                                 int64_t n_folders) {
    scan_t *scan = ctx;
    hirl_pack_entry_t *added = NULL;
    if (is_root || n_taken + n_folders > 0) return HIRL_OK;
    HIRL_TRY(hirl_pack_entries_add(&scan->entries, path, strlen(path), &added));
    added->is_folder = true;
    return HIRL_OK;
}

hirl_status_t hirl_pack_find_folder(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    HIRL_REQUIRE(hirl_pack_is_folder(cfg->source), HIRL_ERR_IO, "pack%%source: %s is not a folder",
                 cfg->source);
    HIRL_TRY(hirl_text_format(source->root, sizeof source->root, "%s", cfg->source));
    scan_t scan = {0};
    const hirl_pack_walk_t walk = {
        .root = source->root, .ctx = &scan, .file = take_file, .folder = take_folder};
    hirl_pack_progress_begin(&scan.progress, "pack: list", 0);
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_pack_walk(&walk), status, done);
    if (scan.n_other) {
        hirl_log_root(
            HIRL_LOG_INFO,
            "pack: %lld files of %s are not called .png, .jpg, .jpeg or .webp and are left out",
            (long long)scan.n_other, source->root);
    }
    if (scan.n_images == 0) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "pack%%source: %s holds no files .png, .jpg, .jpeg or .webp",
                      source->root);
        goto done;
    }
    HIRL_TRY_GOTO(hirl_pack_entries_label(cfg, source->root, &scan.entries, source), status, done);
    status = hirl_pack_entries_deliver(&scan.entries, source);
done:
    hirl_pack_progress_end(&scan.progress);
    hirl_pack_entries_reset(&scan.entries);
    return status;
}
