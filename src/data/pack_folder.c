// Image folders: source/<class>/.../<image>. Classes are the sorted names of the first level; below
// it the order is that of torchvision's ImageFolder (folders by path, files by name, in byte
// order), so that indices and labels agree with it. Images without any class folder are packed
// without labels. Names that begin with a dot are left out.
#include "data_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { DEPTH_MAX = 64 };

typedef struct entry {
    int64_t path;                  // position in scan.text, later in the sorted names
    int32_t length, folder_length; // of the whole path, of the part before the last slash
    int32_t label;
} entry_t;

typedef struct scan {
    const char *root;
    char *text; // relative paths, NUL-terminated
    size_t text_size, text_capacity;
    entry_t *entry;
    int64_t n, capacity;
    int64_t n_other; // files that are no images by their name
    hirl_pack_progress_t progress;
} scan_t;

static bool is_image_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 ||
                   strcasecmp(dot, ".jpeg") == 0);
}

static hirl_status_t grow(void **array, int64_t *capacity, int64_t needed, size_t size) {
    if (needed <= *capacity) return HIRL_OK;
    int64_t wanted = needed > 2 * *capacity ? needed : 2 * *capacity;
    if (wanted < 1024) wanted = 1024;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_DATA, (size_t)wanted * size, array));
    *capacity = wanted;
    return HIRL_OK;
}

static hirl_status_t add_image(scan_t *scan, const char *folder, const char *name, int32_t label) {
    size_t before = strlen(folder), length = before + (before > 0) + strlen(name);
    int64_t text_capacity = (int64_t)scan->text_capacity;
    HIRL_TRY(
        grow((void **)&scan->text, &text_capacity, (int64_t)(scan->text_size + length + 1), 1));
    scan->text_capacity = (size_t)text_capacity;
    HIRL_TRY(grow((void **)&scan->entry, &scan->capacity, scan->n + 1, sizeof *scan->entry));
    char *at = scan->text + scan->text_size;
    HIRL_TRY(hirl_text_format(at, length + 1, "%s%s%s", folder, before ? "/" : "", name));
    scan->entry[scan->n++] =
        (entry_t){(int64_t)scan->text_size, (int32_t)length, (int32_t)before, label};
    scan->text_size += length + 1;
    if (scan->n % 1024 == 0) hirl_pack_progress_update(&scan->progress, scan->n);
    return HIRL_OK;
}

// Whether an entry is a folder, following links. What vanished or dangles counts as a file, and is
// reported when it is read.
static bool is_folder_entry(int folder_fd, const struct dirent *entry) {
    if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) return entry->d_type == DT_DIR;
    struct stat found;
    return fstatat(folder_fd, entry->d_name, &found, 0) == 0 && S_ISDIR(found.st_mode);
}

// Adds the images of root/<folder> and of all folders in it.
static hirl_status_t scan_folder(scan_t *scan, const char *folder, int32_t label, int depth) {
    HIRL_REQUIRE(depth <= DEPTH_MAX, HIRL_ERR_IO,
                 "%s/%s: more than %d folders deep; a link may lead back", scan->root, folder,
                 DEPTH_MAX);
    char path[PATH_MAX];
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", scan->root, folder));
    DIR *dir = opendir(path);
    HIRL_REQUIRE(dir, HIRL_ERR_IO, "folder %s: %s", path, strerror(errno));
    hirl_status_t status = HIRL_OK;
    const struct dirent *entry;
    errno = 0;
    while (status == HIRL_OK && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        status = hirl_pack_heed_signals();
        if (status != HIRL_OK) break;
        if (is_folder_entry(dirfd(dir), entry)) {
            char below[PATH_MAX];
            status = hirl_text_format(below, sizeof below, "%s/%s", folder, entry->d_name);
            if (status == HIRL_OK) status = scan_folder(scan, below, label, depth + 1);
        } else if (is_image_name(entry->d_name)) {
            status = add_image(scan, folder, entry->d_name, label);
        } else {
            scan->n_other++;
        }
        errno = 0;
    }
    if (status == HIRL_OK && errno)
        status = HIRL_FAIL(HIRL_ERR_IO, "folder %s: %s", path, strerror(errno));
    closedir(dir);
    return status;
}

// -------------------------------------------------------------------------------------- order

static int compare_bytes(const char *a, size_t a_size, const char *b, size_t b_size) {
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int compare_entries(const void *a_p, const void *b_p, void *text_p) {
    const entry_t *a = a_p, *b = b_p;
    const char *a_path = (const char *)text_p + a->path, *b_path = (const char *)text_p + b->path;
    if (a->label != b->label) return a->label < b->label ? -1 : 1;
    int order = compare_bytes(a_path, (size_t)a->folder_length, b_path, (size_t)b->folder_length);
    return order ? order : strcmp(a_path + a->folder_length, b_path + b->folder_length);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Sorts the images and hands them to the source.
static hirl_status_t deliver(scan_t *scan, hirl_pack_source_t *source) {
    qsort_r(scan->entry, (size_t)scan->n, sizeof *scan->entry, compare_entries, scan->text);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, scan->n, &source->item));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, scan->n + 1, &source->name_offset));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, scan->text_size, &source->name));
    for (int64_t i = 0; i < scan->n; i++) {
        const entry_t *entry = &scan->entry[i];
        memcpy(source->name + source->name_offset[i], scan->text + entry->path,
               (size_t)entry->length);
        source->name_offset[i + 1] = source->name_offset[i] + entry->length;
        source->item[i].label = entry->label;
    }
    source->n = scan->n;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------- first level

typedef struct first_level {
    char **folder, **image;
    int64_t n_folders, n_images, folder_capacity, image_capacity;
} first_level_t;

static void first_level_reset(first_level_t *level) {
    for (int64_t i = 0; i < level->n_folders; i++) hirl_mem_free(level->folder[i]);
    for (int64_t i = 0; i < level->n_images; i++) hirl_mem_free(level->image[i]);
    hirl_mem_free(level->folder);
    hirl_mem_free(level->image);
}

static hirl_status_t add_name(char ***names, int64_t *n, int64_t *capacity, const char *name) {
    HIRL_TRY(grow((void **)names, capacity, *n + 1, sizeof **names));
    void *copy = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_DATA, strlen(name) + 1, &copy));
    (*names)[(*n)++] = strcpy(copy, name);
    return HIRL_OK;
}

static hirl_status_t list_first_level(scan_t *scan, first_level_t *level) {
    DIR *dir = opendir(scan->root);
    HIRL_REQUIRE(dir, HIRL_ERR_IO, "pack%%source: folder %s: %s", scan->root, strerror(errno));
    hirl_status_t status = HIRL_OK;
    const struct dirent *entry;
    errno = 0;
    while (status == HIRL_OK && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        if (is_folder_entry(dirfd(dir), entry)) {
            status =
                add_name(&level->folder, &level->n_folders, &level->folder_capacity, entry->d_name);
        } else if (is_image_name(entry->d_name)) {
            status =
                add_name(&level->image, &level->n_images, &level->image_capacity, entry->d_name);
        } else {
            scan->n_other++;
        }
        errno = 0;
    }
    if (status == HIRL_OK && errno)
        status = HIRL_FAIL(HIRL_ERR_IO, "folder %s: %s", scan->root, strerror(errno));
    closedir(dir);
    HIRL_TRY(status);
    HIRL_REQUIRE(level->n_folders <= 1000000, HIRL_ERR_FORMAT,
                 "folder %s has %lld folders, at most 1000000 classes", scan->root,
                 (long long)level->n_folders);
    if (level->n_folders)
        qsort(level->folder, (size_t)level->n_folders, sizeof(char *), compare_names);
    if (level->n_images)
        qsort(level->image, (size_t)level->n_images, sizeof(char *), compare_names);
    return HIRL_OK;
}

// Folders called train, val, test are not classes, whatever the first-level rule says.
static hirl_status_t refuse_splits(const char *root, const first_level_t *level) {
    static const char *const splits[] = {"train",      "training", "val",    "valid",
                                         "validation", "test",     "testing"};
    for (int64_t i = 0; i < level->n_folders; i++) {
        bool is_split = false;
        for (size_t s = 0; s < sizeof splits / sizeof *splits; s++) {
            if (strcasecmp(level->folder[i], splits[s]) == 0) is_split = true;
        }
        if (!is_split) return HIRL_OK;
    }
    HIRL_REQUIRE(
        level->n_folders == 0, HIRL_ERR_DECK,
        "pack%%source: the folders of %s are splits, not classes: name one of them, as in '%s/%s'",
        root, root, level->folder[0]);
    return HIRL_OK;
}

static hirl_status_t scan_classes(scan_t *scan, const first_level_t *level,
                                  hirl_pack_source_t *source) {
    HIRL_TRY(hirl_pack_make_classes((const char *const *)level->folder, (int)level->n_folders,
                                    &source->classes));
    int64_t n_empty = 0;
    const char *first_empty = NULL;
    for (int64_t c = 0; c < level->n_folders; c++) {
        int64_t before = scan->n;
        HIRL_TRY(scan_folder(scan, level->folder[c], (int32_t)c, 1));
        if (scan->n > before) continue;
        if (n_empty++ == 0) first_empty = level->folder[c];
    }
    if (n_empty) {
        hirl_log_root(HIRL_LOG_WARN, "pack: %lld of %lld classes have no images, the first is '%s'",
                      (long long)n_empty, (long long)level->n_folders, first_empty);
    }
    for (int64_t i = 0; i < level->n_images; i++) {
        source->n_skipped++;
        HIRL_TRY(hirl_pack_note_skipped(&source->skipped, level->image[i], strlen(level->image[i]),
                                        "not in the folder of a class"));
    }
    return HIRL_OK;
}

hirl_status_t hirl_pack_find_folder(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    HIRL_REQUIRE(hirl_pack_is_folder(cfg->source), HIRL_ERR_IO, "pack%%source: %s is not a folder",
                 cfg->source);
    HIRL_TRY(hirl_text_format(source->root, sizeof source->root, "%s", cfg->source));
    scan_t scan = {.root = source->root};
    hirl_pack_progress_begin(&scan.progress, "pack: list", 0);
    first_level_t level = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(list_first_level(&scan, &level), status, done);
    HIRL_TRY_GOTO(refuse_splits(scan.root, &level), status, done);
    if (level.n_folders > 0) {
        HIRL_TRY_GOTO(scan_classes(&scan, &level, source), status, done);
    } else {
        for (int64_t i = 0; i < level.n_images; i++) {
            HIRL_TRY_GOTO(add_image(&scan, "", level.image[i], -1), status, done);
        }
    }
    if (scan.n_other) {
        hirl_log_root(HIRL_LOG_INFO,
                      "pack: %lld files of %s are not called .png, .jpg or .jpeg and are left out",
                      (long long)scan.n_other, scan.root);
    }
    if (scan.n == 0) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "pack%%source: %s holds no files .png, .jpg or .jpeg",
                           scan.root);
        goto done;
    }
    status = deliver(&scan, source);
done:
    hirl_pack_progress_end(&scan.progress);
    first_level_reset(&level);
    hirl_mem_free(scan.text);
    hirl_mem_free(scan.entry);
    return status;
}
