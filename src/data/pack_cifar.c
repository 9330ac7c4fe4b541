// CIFAR-10 and CIFAR-100 in their binary form: records of one (or coarse and fine) label byte and
// 3072 bytes of planes R, G, B of 32 x 32. Class names come from the text files of the same folder;
// for CIFAR-100 the super-classes are the parents of the classes.
#include "data_impl.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    SIDE = 32,
    PIXEL_BYTES = 3 * SIDE * SIDE,
    RECORD_MAX = PIXEL_BYTES + 2,
    BATCHES_MAX = 99,
    LINE_BYTES = 256
};

// What tells the two data sets apart.
typedef struct kind {
    hirl_pack_format_t format;
    const char *folder;       // name inside the published archive
    const char *train, *test; // file names; %d counts batches from 1
    int n_classes, n_super_classes;
    const char *class_file, *super_class_file;
} kind_t;

static const kind_t kinds[] = {
    {HIRL_PACK_CIFAR10, "cifar-10-batches-bin", "data_batch_%d.bin", "test_batch.bin", 10, 0,
     "batches.meta.txt", NULL},
    {HIRL_PACK_CIFAR100, "cifar-100-binary", "train.bin", "test.bin", 100, 20,
     "fine_label_names.txt", "coarse_label_names.txt"},
};

static const kind_t *kind_of(hirl_pack_format_t format) {
    return &kinds[format == HIRL_PACK_CIFAR100];
}

// "<folder>/<name of batch `number`>" if there is such a file.
static bool find_file(const char *folder, const char *name, int number, char path[PATH_MAX]) {
    const char *percent = strstr(name, "%d");
    hirl_status_t status;
    if (percent) {
        status = hirl_text_format(path, PATH_MAX, "%s/%.*s%d%s", folder, (int)(percent - name),
                                  name, number, percent + 2);
    } else {
        status = hirl_text_format(path, PATH_MAX, "%s/%s", folder, name);
    }
    return status == HIRL_OK && hirl_pack_is_file(path);
}

// The folder that holds the files: the one named, or the archive's inside it.
static bool find_folder(const char *path, const kind_t *kind, char folder[PATH_MAX]) {
    char file[PATH_MAX];
    const char *const forms[] = {"%s", "%s/%s"};
    for (int f = 0; f < 2; f++) {
        if (hirl_text_format(folder, PATH_MAX, forms[f], path, kind->folder) != HIRL_OK) continue;
        if (find_file(folder, kind->test, 0, file)) return true;
        for (int b = 1; b <= BATCHES_MAX; b++) {
            if (find_file(folder, kind->train, b, file)) return true;
        }
    }
    return false;
}

static bool has_name(const char *path, const char *name) {
    const char *slash = strrchr(path, '/'), *percent = strchr(name, '%');
    slash = slash ? slash + 1 : path;
    return percent ? strncmp(slash, name, (size_t)(percent - name)) == 0 : strcmp(slash, name) == 0;
}

bool hirl_pack_is_cifar(const char *path, hirl_pack_format_t *format_p) {
    char folder[PATH_MAX];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        bool is_one = hirl_pack_is_folder(path)
                          ? find_folder(path, &kinds[k], folder)
                          : has_name(path, kinds[k].train) || has_name(path, kinds[k].test);
        if (!is_one) continue;
        *format_p = kinds[k].format;
        return true;
    }
    return false;
}

// -------------------------------------------------------------------------------------- files

static hirl_status_t add_file(hirl_pack_source_t *source, const char *path) {
    struct stat found;
    HIRL_REQUIRE(stat(path, &found) == 0, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    HIRL_REQUIRE(S_ISREG(found.st_mode), HIRL_ERR_IO, "%s: not a file", path);
    HIRL_REQUIRE(found.st_size > 0 && found.st_size % source->stride == 0, HIRL_ERR_FORMAT,
                 "%s: %lld bytes, expected a multiple of %lld (%lld whole records and %lld bytes): "
                 "get it again",
                 path, (long long)found.st_size, (long long)source->stride,
                 (long long)(found.st_size / source->stride),
                 (long long)(found.st_size % source->stride));
    hirl_pack_file_t *file = NULL;
    HIRL_TRY(hirl_pack_add_file(source, path, &file));
    file->size = (int64_t)found.st_size;
    return HIRL_OK;
}

static hirl_status_t add_matches(hirl_pack_source_t *source, const char *pattern) {
    glob_t hits = {0};
    int answer = glob(pattern, 0, NULL, &hits);
    hirl_status_t status = HIRL_OK;
    if (answer != 0 || hits.gl_pathc == 0)
        status = HIRL_FAIL(HIRL_ERR_IO, "pack%%source: no file matches %s", pattern);
    for (size_t i = 0; status == HIRL_OK && i < hits.gl_pathc; i++)
        status = add_file(source, hits.gl_pathv[i]);
    globfree(&hits);
    return status;
}

// Lists the files of the split; `folder` is where the class names are.
static hirl_status_t add_files(const hirl_pack_cfg_t *cfg, const kind_t *kind,
                               hirl_pack_source_t *source, char folder[PATH_MAX]) {
    if (!hirl_pack_is_folder(cfg->source)) {
        const char *slash = strrchr(cfg->source, '/');
        HIRL_TRY(hirl_text_format(folder, PATH_MAX, "%.*s", slash ? (int)(slash - cfg->source) : 1,
                                  slash ? cfg->source : "."));
        return add_matches(source, cfg->source);
    }
    bool is_test = false;
    HIRL_TRY(hirl_pack_split_is_test(cfg, &is_test));
    HIRL_REQUIRE(find_folder(cfg->source, kind, folder), HIRL_ERR_IO,
                 "pack%%source: %s has neither %s nor %s", cfg->source, kind->train, kind->test);
    const char *name = is_test ? kind->test : kind->train;
    char path[PATH_MAX];
    int n_batches = strchr(name, '%') ? BATCHES_MAX : 1;
    for (int b = 1; b <= n_batches; b++) {
        if (find_file(folder, name, b, path)) HIRL_TRY(add_file(source, path));
    }
    HIRL_REQUIRE(source->n_files > 0, HIRL_ERR_IO, "pack%%source: %s has no %s for split '%s'",
                 folder, name, cfg->split);
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- names

typedef struct lines {
    char text[200][LINE_BYTES];
    const char *line[200];
    int n;
} lines_t;

// Appends the first `n` lines that are not empty; *is_there_p is false if there is no such file.
static hirl_status_t read_lines(const char *folder, const char *name, int n, lines_t *lines,
                                bool *is_there_p) {
    char path[PATH_MAX];
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", folder, name));
    FILE *file = fopen(path, "r");
    *is_there_p = file != NULL;
    if (!file) return HIRL_OK;
    int before = lines->n;
    while (lines->n < before + n && fgets(lines->text[lines->n], LINE_BYTES, file)) {
        char *text = lines->text[lines->n];
        text[strcspn(text, "\r\n")] = '\0';
        if (text[0]) {
            lines->line[lines->n] = text;
            lines->n++;
        }
    }
    fclose(file);
    HIRL_REQUIRE(lines->n == before + n, HIRL_ERR_FORMAT, "%s: %d names, expected %d", path,
                 lines->n - before, n);
    return HIRL_OK;
}

static hirl_status_t read_class_names(const char *folder, const kind_t *kind,
                                      hirl_pack_source_t *source) {
    lines_t *lines = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &lines));
    hirl_status_t status = HIRL_OK;
    bool is_there = false, has_super = false;
    HIRL_TRY_GOTO(read_lines(folder, kind->class_file, kind->n_classes, lines, &is_there), status,
                  done);
    if (!is_there) {
        hirl_log_root(HIRL_LOG_WARN, "pack: %s has no %s, classes are packed without names", folder,
                      kind->class_file);
        goto done;
    }
    if (kind->super_class_file) {
        HIRL_TRY_GOTO(
            read_lines(folder, kind->super_class_file, kind->n_super_classes, lines, &has_super),
            status, done);
    }
    HIRL_TRY_GOTO(hirl_pack_make_classes(lines->line, lines->n, &source->classes), status, done);
    if (has_super) {
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, lines->n, &source->classes.parent), status, done);
        for (int i = 0; i < lines->n; i++) source->classes.parent[i] = -1;
    }
done:
    hirl_mem_free(lines);
    return status;
}

// -------------------------------------------------------------------------------------- labels

static hirl_status_t skip_record(hirl_pack_source_t *source, int64_t i, const char *reason) {
    int64_t at = source->name_offset[i];
    source->item[i].is_good = 0;
    source->n_skipped++;
    return hirl_pack_note_skipped(&source->skipped, source->name + at,
                                  (size_t)(source->name_offset[i + 1] - at), reason);
}

// Takes the label bytes of record i.
static hirl_status_t take_label(const kind_t *kind, const uint8_t *bytes, int64_t i,
                                hirl_pack_source_t *source) {
    bool has_coarse = kind->n_super_classes > 0;
    int fine = has_coarse ? bytes[1] : bytes[0], coarse = has_coarse ? bytes[0] : 0;
    char reason[128];
    if (fine >= kind->n_classes) {
        HIRL_TRY(hirl_text_format(reason, sizeof reason, "label %d, expected less than %d", fine,
                                  kind->n_classes));
        return skip_record(source, i, reason);
    }
    if (has_coarse && coarse >= kind->n_super_classes) {
        HIRL_TRY(hirl_text_format(reason, sizeof reason, "coarse label %d, expected less than %d",
                                  coarse, kind->n_super_classes));
        return skip_record(source, i, reason);
    }
    source->item[i].label = fine;
    if (!source->classes.parent) return HIRL_OK;
    int32_t *parent = &source->classes.parent[fine], found = kind->n_classes + coarse;
    int64_t at = source->name_offset[i];
    HIRL_REQUIRE(*parent == -1 || *parent == found, HIRL_ERR_FORMAT,
                 "%.*s: class %d has super-class %d, and %d in records before: the file is damaged",
                 (int)(source->name_offset[i + 1] - at), source->name + at, fine, coarse,
                 *parent - kind->n_classes);
    *parent = found;
    return HIRL_OK;
}

static hirl_status_t read_labels(const kind_t *kind, const hirl_pack_file_t *file, int64_t first,
                                 hirl_pack_source_t *source) {
    FILE *stream = fopen(file->path, "rb");
    HIRL_REQUIRE(stream, HIRL_ERR_IO, "%s: %s", file->path, strerror(errno));
    hirl_status_t status = HIRL_OK;
    uint8_t record[RECORD_MAX];
    int64_t n = file->size / source->stride;
    for (int64_t i = 0; status == HIRL_OK && i < n; i++) {
        if (fread(record, (size_t)source->stride, 1, stream) != 1) {
            status = HIRL_FAIL(HIRL_ERR_IO, "%s: cannot read record %lld: %s", file->path,
                               (long long)i, ferror(stream) ? strerror(errno) : "file ends early");
        } else {
            status = take_label(kind, record, first + i, source);
        }
    }
    fclose(stream);
    return status;
}

hirl_status_t hirl_pack_find_cifar(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    const kind_t *kind = kind_of(source->format);
    source->label_bytes = kind->n_super_classes ? 2 : 1;
    source->stride = PIXEL_BYTES + source->label_bytes;
    source->is_planar = true;
    char folder[PATH_MAX];
    HIRL_TRY(add_files(cfg, kind, source, folder));
    HIRL_TRY(hirl_pack_allocate_records(source));
    HIRL_TRY(read_class_names(folder, kind, source));
    for (int64_t i = 0; i < source->n; i++) {
        source->item[i] = (hirl_pack_item_t){.size = PIXEL_BYTES,
                                             .height = SIDE,
                                             .width = SIDE,
                                             .channels = 3,
                                             .label = -1,
                                             .encoding = HIRL_ENCODING_RAW,
                                             .is_good = 1};
    }
    int64_t first = 0;
    for (int64_t f = 0; f < source->n_files; f++) {
        HIRL_TRY(read_labels(kind, &source->file[f], first, source));
        first += source->file[f].size / source->stride;
    }
    return HIRL_OK;
}
