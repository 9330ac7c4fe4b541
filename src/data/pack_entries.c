// The list of inputs that rank 0 makes before any is opened, and the classes that their folders
// stand for. Order within a class is that of torchvision's ImageFolder: folders by path, files by
// name, in byte order; for folders of one level indices and labels agree with it.
#include "data_impl.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CLASSES_MAX = 1000000 };

hirl_status_t hirl_pack_grow(void *array_p, int64_t *capacity, int64_t needed, size_t size) {
    if (needed <= *capacity) return HIRL_OK;
    int64_t wanted = needed > 2 * *capacity ? needed : 2 * *capacity;
    if (wanted < 1024) wanted = 1024;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_DATA, (size_t)wanted * size, array_p));
    *capacity = wanted;
    return HIRL_OK;
}

bool hirl_pack_is_image_name(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 ||
                   strcasecmp(dot, ".jpeg") == 0 || strcasecmp(dot, ".webp") == 0);
}

hirl_status_t hirl_pack_entries_add(hirl_pack_entries_t *entries, const char *path, size_t length,
                                    hirl_pack_entry_t **entry_p) {
    HIRL_REQUIRE(length > 0 && length < PATH_MAX, HIRL_ERR_FORMAT,
                 "a path of %zu bytes, expected 1 to %d: '%.64s...'", length, PATH_MAX - 1, path);
    HIRL_TRY(hirl_pack_grow(&entries->text, &entries->text_capacity,
                            entries->n_text + (int64_t)length + 1, 1));
    HIRL_TRY(hirl_pack_grow(&entries->entry, &entries->capacity, entries->n + 1,
                            sizeof *entries->entry));
    char *at = entries->text + entries->n_text;
    memcpy(at, path, length);
    at[length] = '\0';
    const char *slash = strrchr(at, '/');
    hirl_pack_entry_t *entry = &entries->entry[entries->n++];
    *entry = (hirl_pack_entry_t){.path = entries->n_text,
                                 .length = (int32_t)length,
                                 .folder_length = slash ? (int32_t)(slash - at) : 0,
                                 .label = -1};
    entries->n_text += (int64_t)length + 1;
    if (entry_p) *entry_p = entry;
    return HIRL_OK;
}

hirl_status_t hirl_pack_entries_deliver(const hirl_pack_entries_t *entries,
                                        hirl_pack_source_t *source) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, entries->n, &source->item));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, entries->n + 1, &source->name_offset));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, entries->n_text, &source->name));
    for (int64_t i = 0; i < entries->n; i++) {
        const hirl_pack_entry_t *entry = &entries->entry[i];
        memcpy(source->name + source->name_offset[i], entries->text + entry->path,
               (size_t)entry->length);
        source->name_offset[i + 1] = source->name_offset[i] + entry->length;
        source->item[i].label = entry->label;
        source->item[i].archive = entry->archive;
        source->item[i].at = entry->at;
        source->item[i].n_source = entry->size;
    }
    source->n = entries->n;
    return HIRL_OK;
}

void hirl_pack_entries_reset(hirl_pack_entries_t *entries) {
    hirl_mem_free(entries->text);
    hirl_mem_free(entries->entry);
    memset(entries, 0, sizeof *entries);
}

// -------------------------------------------------------------------------------------- order

// A piece of a path; not terminated.
typedef struct span {
    const char *text;
    size_t size;
} span_t;

static int compare_spans(span_t a, span_t b) {
    int order = memcmp(a.text, b.text, a.size < b.size ? a.size : b.size);
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

// The folder of an entry; of an empty one, itself.
static span_t folder_of(const hirl_pack_entry_t *entry, const char *text) {
    return (span_t){text + entry->path,
                    (size_t)(entry->is_folder ? entry->length : entry->folder_length)};
}

static span_t top_of(span_t folder) {
    const char *slash = memchr(folder.text, '/', folder.size);
    return (span_t){folder.text, slash ? (size_t)(slash - folder.text) : folder.size};
}

static int compare_by_folder(const void *a_p, const void *b_p, void *text) {
    const hirl_pack_entry_t *a = a_p, *b = b_p;
    int order = compare_spans(folder_of(a, text), folder_of(b, text));
    if (order) return order;
    const char *a_path = (const char *)text + a->path, *b_path = (const char *)text + b->path;
    order = strcmp(a_path, b_path);
    // The same path twice stays in the order in which it was found.
    return order ? order : (a->path > b->path) - (a->path < b->path);
}

static int compare_by_top(const void *a_p, const void *b_p, void *text) {
    const hirl_pack_entry_t *a = a_p, *b = b_p;
    int order = compare_spans(top_of(folder_of(a, text)), top_of(folder_of(b, text)));
    return order ? order : compare_by_folder(a_p, b_p, text);
}

// -------------------------------------------------------------------------------------- classes

static int depth_of(span_t path) {
    int depth = 0;
    for (size_t i = 0; i < path.size; i++) depth += path.text[i] == '/';
    return depth;
}

// The deepest first, so that a super-class comes behind all that are in it.
static int compare_supers(const void *a_p, const void *b_p) {
    const span_t *a = a_p, *b = b_p;
    int a_depth = depth_of(*a), b_depth = depth_of(*b);
    return a_depth != b_depth ? b_depth - a_depth : compare_spans(*a, *b);
}

static bool parent_folder(span_t folder, span_t *parent) {
    for (size_t i = folder.size; i-- > 0;) {
        if (folder.text[i] != '/') continue;
        *parent = (span_t){folder.text, i};
        return true;
    }
    return false;
}

typedef struct tree {
    span_t *folder; // [n] of each class
    int64_t n, capacity;
    span_t *super; // [n_supers] folders that hold folders
    int64_t n_supers, super_capacity;
} tree_t;

static void tree_reset(tree_t *tree) {
    hirl_mem_free(tree->folder);
    hirl_mem_free(tree->super);
}

// Row of a super-class; -1 if there is none.
static int32_t find_super(const tree_t *tree, span_t folder) {
    if (tree->n_supers == 0) return -1;
    const span_t *found =
        bsearch(&folder, tree->super, (size_t)tree->n_supers, sizeof folder, compare_supers);
    return found ? (int32_t)(tree->n + (found - tree->super)) : -1;
}

static hirl_status_t add_supers(tree_t *tree) {
    for (int64_t c = 0; c < tree->n; c++) {
        span_t at = tree->folder[c];
        while (parent_folder(at, &at)) {
            HIRL_TRY(hirl_pack_grow(&tree->super, &tree->super_capacity, tree->n_supers + 1,
                                    sizeof *tree->super));
            tree->super[tree->n_supers++] = at;
        }
    }
    if (tree->n_supers == 0) return HIRL_OK;
    qsort(tree->super, (size_t)tree->n_supers, sizeof *tree->super, compare_supers);
    int64_t n = 1;
    for (int64_t s = 1; s < tree->n_supers; s++) {
        if (compare_supers(&tree->super[s], &tree->super[n - 1])) tree->super[n++] = tree->super[s];
    }
    tree->n_supers = n;
    return HIRL_OK;
}

static hirl_status_t make_table(const tree_t *tree, hirl_class_table_t *classes) {
    int64_t n = tree->n + tree->n_supers;
    size_t width = 1;
    for (int64_t i = 0; i < n; i++) {
        span_t folder = i < tree->n ? tree->folder[i] : tree->super[i - tree->n];
        if (folder.size + sizeof "/." > width) width = folder.size + sizeof "/.";
    }
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, width, (void **)&classes->name));
    if (tree->n_supers) HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &classes->parent));
    for (int64_t i = 0; i < n; i++) {
        span_t folder = i < tree->n ? tree->folder[i] : tree->super[i - tree->n], above;
        char *row = classes->name + (size_t)i * width;
        memcpy(row, folder.text, folder.size);
        int32_t parent = parent_folder(folder, &above) ? find_super(tree, above) : -1;
        int32_t self = i < tree->n ? find_super(tree, folder) : -1;
        if (self >= 0) memcpy(row + folder.size, "/.", 2);
        if (classes->parent) classes->parent[i] = self >= 0 ? self : parent;
    }
    classes->n = (int)n;
    classes->width = (int)width;
    return HIRL_OK;
}

// Gives consecutive entries of one folder (or of one first folder) a label.
static hirl_status_t label_groups(hirl_pack_entries_t *entries, bool is_top, tree_t *tree) {
    int64_t n_empty = 0, of_class = 0;
    span_t first_empty = {0};
    for (int64_t i = 0; i < entries->n; i++) {
        hirl_pack_entry_t *entry = &entries->entry[i];
        span_t folder = folder_of(entry, entries->text);
        if (is_top) folder = top_of(folder);
        if (tree->n == 0 || compare_spans(folder, tree->folder[tree->n - 1]) != 0) {
            HIRL_TRY(
                hirl_pack_grow(&tree->folder, &tree->capacity, tree->n + 1, sizeof *tree->folder));
            tree->folder[tree->n++] = folder;
            of_class = 0;
        }
        of_class += !entry->is_folder;
        entry->label = (int32_t)(tree->n - 1);
        const hirl_pack_entry_t *next = entry + 1;
        bool is_last = i + 1 == entries->n;
        if (!is_last) {
            span_t other = folder_of(next, entries->text);
            is_last = compare_spans(folder, is_top ? top_of(other) : other) != 0;
        }
        if (is_last && of_class == 0 && n_empty++ == 0) first_empty = folder;
    }
    if (n_empty) {
        hirl_log_root(
            HIRL_LOG_WARN, "pack: %lld of %lld classes have no images, the first is '%.*s'",
            (long long)n_empty, (long long)tree->n, (int)first_empty.size, first_empty.text);
    }
    return HIRL_OK;
}

// Folders called train, val, test are not classes, whatever their place says.
static hirl_status_t refuse_splits(const char *place, const hirl_pack_entries_t *entries) {
    static const char *const splits[] = {"train",      "training", "val",    "valid",
                                         "validation", "test",     "testing"};
    for (int64_t i = 0; i < entries->n; i++) {
        span_t top = top_of(folder_of(&entries->entry[i], entries->text));
        bool is_split = false;
        for (size_t s = 0; s < sizeof splits / sizeof *splits; s++) {
            if (strlen(splits[s]) == top.size && strncasecmp(top.text, splits[s], top.size) == 0)
                is_split = true;
        }
        if (!is_split) return HIRL_OK;
    }
    span_t top = top_of(folder_of(&entries->entry[0], entries->text));
    return HIRL_FAIL(HIRL_ERR_DECK,
                     "pack%%source: the folders of %s are splits, not classes: name one of them, "
                     "as in '%s/%.*s'",
                     place, place, (int)top.size, top.text);
}

// Takes out entries of no folder, which sorting has put first.
static hirl_status_t drop_loose(hirl_pack_entries_t *entries, hirl_pack_source_t *source) {
    int64_t n = 0;
    for (; n < entries->n; n++) {
        const hirl_pack_entry_t *entry = &entries->entry[n];
        if (folder_of(entry, entries->text).size > 0) break;
        source->n_skipped++;
        HIRL_TRY(hirl_pack_note_skipped(&source->skipped, entries->text + entry->path,
                                        (size_t)entry->length, "not in the folder of a class"));
    }
    entries->n -= n;
    memmove(entries->entry, entries->entry + n, (size_t)entries->n * sizeof *entries->entry);
    return HIRL_OK;
}

// Of members of the same path the last counts, as it would if the archive were unpacked.
static void drop_replaced(hirl_pack_entries_t *entries) {
    int64_t n = 0;
    for (int64_t i = 0; i < entries->n; i++) {
        const hirl_pack_entry_t *entry = &entries->entry[i], *next = entry + 1;
        const bool is_replaced =
            i + 1 < entries->n && entry->at > 0 && next->archive == entry->archive &&
            strcmp(entries->text + entry->path, entries->text + next->path) == 0;
        if (!is_replaced) entries->entry[n++] = *entry;
    }
    if (n < entries->n) {
        hirl_log_root(HIRL_LOG_WARN,
                      "pack: %lld members of archives are left out, a later one has the same path",
                      (long long)(entries->n - n));
    }
    entries->n = n;
}

static void drop_folders(hirl_pack_entries_t *entries) {
    int64_t n = 0;
    for (int64_t i = 0; i < entries->n; i++) {
        if (!entries->entry[i].is_folder) entries->entry[n++] = entries->entry[i];
    }
    entries->n = n;
}

hirl_status_t hirl_pack_entries_label(const hirl_pack_cfg_t *cfg, const char *place,
                                      hirl_pack_entries_t *entries, hirl_pack_source_t *source) {
    if (entries->n == 0) return HIRL_OK;
    // The name of its archive is an image's first folder.
    bool is_top = strcmp(cfg->classes, "top") == 0 || strcmp(cfg->classes, "archive") == 0;
    bool is_flat = true;
    for (int64_t i = 0; i < entries->n; i++)
        is_flat = is_flat && folder_of(&entries->entry[i], entries->text).size == 0;
    qsort_r(entries->entry, (size_t)entries->n, sizeof *entries->entry,
            is_top ? compare_by_top : compare_by_folder, entries->text);
    drop_replaced(entries);
    if (is_flat) return HIRL_OK;
    if (strcmp(cfg->classes, "none") == 0) {
        drop_folders(entries);
        return HIRL_OK;
    }
    HIRL_TRY(drop_loose(entries, source));
    HIRL_TRY(refuse_splits(place, entries));
    tree_t tree = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(label_groups(entries, is_top, &tree), status, done);
    if (!is_top) HIRL_TRY_GOTO(add_supers(&tree), status, done);
    if (tree.n + tree.n_supers > CLASSES_MAX) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "%s has %lld folders, at most %d classes and super-classes",
                      place, (long long)(tree.n + tree.n_supers), CLASSES_MAX);
        goto done;
    }
    HIRL_TRY_GOTO(make_table(&tree, &source->classes), status, done);
    drop_folders(entries);
    status = HIRL_OK;
done:
    tree_reset(&tree);
    return status;
}
