// A set of shards as one sequence of samples. Rank 0 reads and checks the indexes and
// broadcasts them, so that a job of many ranks opens each file's metadata once; every rank maps (or
// opens) the files and checks their sizes. After open nothing changes but what was reported: all
// reads are lock-free and may come from any thread. What is cut short while it is mapped reads as zeros; whoever reads asks
// hirl_shard_set_check_files afterwards.
#include "data_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHARDS_MAX = 100000 };

// One shard of a set; a plain value until its file is opened, so that it can be broadcast.
typedef struct shard {
    char path[PATH_MAX];
    char split[HIRL_SPLIT_TEXT_MAX];
    hirl_shard_encoding_t encoding;
    int64_t n, file_size;
    int fd;             // -1: mapped or not open
    const uint8_t *map; // the whole file, or NULL
} shard_t;

struct hirl_shard_set {
    int n_shards;
    shard_t *shard; // [n_shards]
    int64_t *first; // [n_shards+1], global index of each shard's first sample
    int64_t n;
    int64_t *pos; // [n + n_shards]: sample i of shard s is bytes [pos[i+s], pos[i+s+1]) of its file
    uint16_t *height, *width; // [n]
    uint8_t *channels;        // [n]
    int32_t *label;           // [n]
    uint64_t *checksum;       // [n], NULL unless verified
    atomic_uchar *reported;   // [n / 8 + 1], a bit for each bad sample that was reported
    hirl_class_table_t classes;
    int n_targets;
    int8_t *target; // [n, n_targets], NULL without targets
    int n_classes;
    int out_channels;
};

// -------------------------------------------------------------------------------------- names

typedef struct path_list {
    char **path;
    int n;
} path_list_t;

static void path_list_reset(path_list_t *list) {
    for (int i = 0; i < list->n; i++) hirl_mem_free(list->path[i]);
    hirl_mem_free(list->path);
    *list = (path_list_t){0};
}

static int compare_paths(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static hirl_status_t path_list_append(path_list_t *list, const char *path) {
    size_t size = strlen(path) + 1;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_DATA, (size_t)(list->n + 1) * sizeof *list->path,
                              (void **)&list->path));
    void *copy = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_DATA, size, &copy));
    memcpy(copy, path, size);
    list->path[list->n++] = copy;
    return HIRL_OK;
}

// Expands a pattern into sorted paths; byte order, whatever the locale says.
static hirl_status_t find_shards(const char *pattern, path_list_t *list, bool *is_folder_p) {
    HIRL_REQUIRE(pattern && pattern[0], HIRL_ERR_ARG, "no shards are named: the pattern is empty");
    struct stat found;
    bool exists = stat(pattern, &found) == 0;
    *is_folder_p = exists && S_ISDIR(found.st_mode);
    if (exists && !*is_folder_p) return path_list_append(list, pattern);

    char all[PATH_MAX];
    HIRL_TRY(hirl_text_format(all, sizeof all, *is_folder_p ? "%s/*.h5" : "%s", pattern));
    glob_t hits = {0};
    int answer = glob(all, GLOB_BRACE | GLOB_TILDE, NULL, &hits);
    hirl_status_t status = HIRL_OK;
    if (answer == GLOB_NOSPACE) {
        status = HIRL_FAIL(HIRL_ERR_MEMORY, "no memory to list %s", all);
    } else if (answer != 0 || hits.gl_pathc == 0) {
        status =
            *is_folder_p
                ? HIRL_FAIL(HIRL_ERR_IO, "folder %s holds no *.h5 files; task 'pack' makes shards",
                            pattern)
                : HIRL_FAIL(HIRL_ERR_IO, "no file matches %s; task 'pack' makes shards", pattern);
    } else if (hits.gl_pathc > SHARDS_MAX) {
        status = HIRL_FAIL(HIRL_ERR_ARG, "%s matches %zu files, a set has at most %d", all,
                           (size_t)hits.gl_pathc, SHARDS_MAX);
    }
    for (size_t i = 0; status == HIRL_OK && i < hits.gl_pathc; i++) {
        status = path_list_append(list, hits.gl_pathv[i]);
    }
    globfree(&hits);
    HIRL_TRY(status);
    qsort(list->path, (size_t)list->n, sizeof *list->path, compare_paths);
    return HIRL_OK;
}

// ----------------------------------------------------------------------------- agreement of shards

static const char *class_row(const hirl_class_table_t *table, int i) {
    return table->name + (size_t)i * (size_t)table->width;
}

static int32_t class_parent(const hirl_class_table_t *table, int i) {
    return table->parent ? table->parent[i] : -1;
}

// Row of the first class that differs; -1 if the tables agree. The number of rows is compared by
// the caller.
static int first_difference(const hirl_class_table_t *a, const hirl_class_table_t *b) {
    for (int i = 0; i < a->n && i < b->n; i++) {
        if (strcmp(class_row(a, i), class_row(b, i)) != 0 ||
            class_parent(a, i) != class_parent(b, i))
            return i;
    }
    return -1;
}

static hirl_status_t check_same_classes(const hirl_class_table_t *a, const char *a_name,
                                        const hirl_class_table_t *b, const char *b_name) {
    int i = first_difference(a, b);
    HIRL_REQUIRE(i < 0, HIRL_ERR_MISMATCH,
                 "class %d is '%s' (parent %d) in %s and '%s' (parent %d) in %s", i,
                 class_row(a, i), class_parent(a, i), a_name, class_row(b, i), class_parent(b, i),
                 b_name);
    HIRL_REQUIRE(a->n == b->n, HIRL_ERR_MISMATCH, "%s has %d class names, %s has %d", a_name, a->n,
                 b_name, b->n);
    return HIRL_OK;
}

// All encodings of images by a format mix.
static hirl_shard_encoding_t kind_of(hirl_shard_encoding_t encoding) {
    return encoding == HIRL_SHARD_RAW || encoding == HIRL_SHARD_FRAMES ? encoding
                                                                       : HIRL_SHARD_MIXED;
}

static hirl_status_t check_shards_agree(const hirl_shard_index_t *index, int n, bool is_folder) {
    for (int s = 1; s < n; s++) {
        HIRL_REQUIRE(kind_of(index[s].encoding) == kind_of(index[0].encoding), HIRL_ERR_FORMAT,
                     "shard %s: encoding is '%s', expected what fits '%s' of %s: raw images, "
                     "encoded images and videos do not mix",
                     index[s].path, hirl_shard_encoding_text(index[s].encoding),
                     hirl_shard_encoding_text(index[0].encoding), index[0].path);
        HIRL_REQUIRE(index[s].n_targets == index[0].n_targets, HIRL_ERR_FORMAT,
                     "shard %s: /target has %d classes, %s has %d", index[s].path,
                     index[s].n_targets, index[0].path, index[0].n_targets);
        hirl_status_t status =
            check_same_classes(&index[0].classes, index[0].path, &index[s].classes, index[s].path);
        HIRL_REQUIRE(status == HIRL_OK, HIRL_ERR_FORMAT,
                     "shard %s: /class_name differs from other shards: %s", index[s].path,
                     hirl_error_text_view());
        HIRL_REQUIRE(
            !is_folder || strcmp(index[0].split, index[s].split) == 0, HIRL_ERR_FORMAT,
            "shard %s is of split '%s', %s of split '%s'; name one of them as '<folder>/%s-*.h5'",
            index[s].path, index[s].split, index[0].path, index[0].split, index[0].split);
    }
    return HIRL_OK;
}

// A lost shard would otherwise only be seen in the number of samples.
static void warn_of_missing(const hirl_shard_index_t *index, int n) {
    for (int s = 0; s < n; s++) {
        if (index[s].n_shards != index[0].n_shards || strcmp(index[s].split, index[0].split) != 0)
            return;
    }
    if (index[0].n_shards > n) {
        hirl_log_root(HIRL_LOG_WARN,
                      "data: split '%s' was packed into %lld shards, this set holds %d of them",
                      index[0].split, (long long)index[0].n_shards, n);
    }
}

// -------------------------------------------------------------------------------------- open

// Allocates all arrays for set->n_shards shards and set->n samples.
static hirl_status_t allocate(hirl_shard_set_t *set, bool is_verified) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n_shards, &set->shard));
    for (int s = 0; s < set->n_shards; s++) set->shard[s].fd = -1;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n_shards + 1, &set->first));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n + set->n_shards, &set->pos));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n, &set->height));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n, &set->width));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n, &set->channels));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n, &set->label));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n / 8 + 1, &set->reported));
    if (is_verified) HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, set->n, &set->checksum));
    // Each shard's own fits memory, and they are as many.
    if (set->n_targets)
        HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)set->n, (size_t)set->n_targets,
                                 (void **)&set->target));
    return HIRL_OK;
}

// Appends one shard's index to the arrays.
static void append_index(hirl_shard_set_t *set, int s, const hirl_shard_index_t *index) {
    shard_t *shard = &set->shard[s];
    memcpy(shard->path, index->path, sizeof shard->path);
    memcpy(shard->split, index->split, sizeof shard->split);
    shard->encoding = index->encoding;
    shard->n = index->n;
    shard->file_size = index->file_size;
    int64_t first = set->first[s];
    set->first[s + 1] = first + index->n;
    int64_t *pos = set->pos + first + s;
    for (int64_t i = 0; i <= index->n; i++) pos[i] = index->data_pos + index->offset[i];
    for (int64_t i = 0; i < index->n; i++) {
        set->height[first + i] = (uint16_t)index->height[i];
        set->width[first + i] = (uint16_t)index->width[i];
        set->channels[first + i] = (uint8_t)index->channels[i];
    }
    memcpy(set->label + first, index->label, (size_t)index->n * sizeof *set->label);
    if (set->target)
        memcpy(set->target + first * set->n_targets, index->target,
               (size_t)index->n * (size_t)set->n_targets);
    if (set->checksum)
        memcpy(set->checksum + first, index->checksum, (size_t)index->n * sizeof *set->checksum);
}

// Rank 0's part.
static hirl_status_t load_on_root(const char *pattern, bool is_verified, hirl_shard_set_t *set) {
    path_list_t list = {0};
    hirl_shard_index_t *index = NULL;
    bool is_folder = false;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(find_shards(pattern, &list, &is_folder), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, list.n, &index), status, done);
    set->n_shards = list.n;
    for (int s = 0; s < list.n; s++) {
        HIRL_TRY_GOTO(hirl_shard_index_load(list.path[s], &index[s]), status, done);
        set->n += index[s].n; // each at most the size of a file
    }
    HIRL_TRY_GOTO(check_shards_agree(index, list.n, is_folder), status, done);
    warn_of_missing(index, list.n);
    set->n_targets = index[0].n_targets;
    HIRL_TRY_GOTO(allocate(set, is_verified), status, done);
    set->classes = index[0].classes;
    index[0].classes = (hirl_class_table_t){0};
    for (int s = 0; s < list.n; s++) {
        append_index(set, s, &index[s]);
        hirl_shard_index_reset(&index[s]);
    }
done:
    if (index) {
        for (int s = 0; s < list.n; s++) hirl_shard_index_reset(&index[s]);
    }
    hirl_mem_free(index);
    path_list_reset(&list);
    return status;
}

static hirl_status_t broadcast_bytes(hirl_world_t *world, void *data, int64_t n, size_t size) {
    return hirl_par_broadcast(world, data, n * (int64_t)size, HIRL_PAR_U8, 0);
}

static hirl_status_t broadcast_set(hirl_world_t *world, bool is_verified, hirl_shard_set_t *set) {
    int64_t counts[6] = {
        set->n_shards, set->n, set->classes.n, set->classes.width, set->classes.parent != NULL,
        set->n_targets};
    HIRL_TRY(hirl_par_broadcast(world, counts, 6, HIRL_PAR_I64, 0));
    hirl_status_t status = HIRL_OK;
    if (hirl_world_rank(world) != 0) {
        set->n_shards = (int)counts[0];
        set->n = counts[1];
        set->classes.n = (int)counts[2];
        set->classes.width = (int)counts[3];
        set->n_targets = (int)counts[5];
        status = allocate(set, is_verified);
        if (status == HIRL_OK) {
            status = HIRL_ALLOC(HIRL_MEM_DATA, counts[2] * counts[3], &set->classes.name);
        }
        if (status == HIRL_OK && counts[4])
            status = HIRL_ALLOC(HIRL_MEM_DATA, counts[2], &set->classes.parent);
    }
    HIRL_TRY(hirl_par_agree(world, status));
    if (hirl_world_size(world) == 1) return HIRL_OK;
    HIRL_TRY(broadcast_bytes(world, set->shard, set->n_shards, sizeof *set->shard));
    HIRL_TRY(broadcast_bytes(world, set->first, set->n_shards + 1, sizeof *set->first));
    HIRL_TRY(broadcast_bytes(world, set->pos, set->n + set->n_shards, sizeof *set->pos));
    HIRL_TRY(broadcast_bytes(world, set->height, set->n, sizeof *set->height));
    HIRL_TRY(broadcast_bytes(world, set->width, set->n, sizeof *set->width));
    HIRL_TRY(broadcast_bytes(world, set->channels, set->n, sizeof *set->channels));
    HIRL_TRY(broadcast_bytes(world, set->label, set->n, sizeof *set->label));
    if (set->target) HIRL_TRY(broadcast_bytes(world, set->target, set->n, (size_t)set->n_targets));
    if (is_verified) HIRL_TRY(broadcast_bytes(world, set->checksum, set->n, sizeof *set->checksum));
    if (counts[2]) HIRL_TRY(broadcast_bytes(world, set->classes.name, counts[2] * counts[3], 1));
    if (counts[4])
        HIRL_TRY(
            broadcast_bytes(world, set->classes.parent, counts[2], sizeof *set->classes.parent));
    return HIRL_OK;
}

static hirl_status_t open_file(shard_t *shard, const char *path, bool is_mapped) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        int cause = errno;
        return HIRL_FAIL(HIRL_ERR_IO, "shard %s: %s%s", shard->path, strerror(cause),
                         cause == EMFILE ? "; raise 'ulimit -n' or set data%access = 'mmap'" : "");
    }
    struct stat found;
    hirl_status_t status = HIRL_OK;
    if (fstat(fd, &found) != 0 || found.st_size != shard->file_size) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "shard %s: %lld bytes here, %lld on rank 0: not the same file",
                           shard->path, (long long)found.st_size, (long long)shard->file_size);
    } else if (is_mapped) {
        void *map = mmap(NULL, (size_t)shard->file_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            status = HIRL_FAIL(
                HIRL_ERR_IO,
                "shard %s: cannot map %lld bytes: %s; data%%access = 'pread' reads without "
                "mapping",
                shard->path, (long long)shard->file_size, strerror(errno));
        } else {
            shard->map = map;
            status = hirl_map_guard(map, (size_t)shard->file_size);
        }
    }
    if (is_mapped || status != HIRL_OK) {
        close(fd);
    } else {
        shard->fd = fd;
    }
    return status;
}

static hirl_status_t open_files(hirl_shard_set_t *set, bool is_mapped) {
    for (int s = 0; s < set->n_shards; s++)
        HIRL_TRY(open_file(&set->shard[s], set->shard[s].path, is_mapped));
    return HIRL_OK;
}

// The same with copies on the node. Collective.
static hirl_status_t open_copies(hirl_world_t *world, const char *folder, hirl_shard_set_t *set,
                                 bool is_mapped) {
    hirl_stage_file_t *file = NULL;
    char(*local)[PATH_MAX] = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_DATA, set->n_shards, &file);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_DATA, set->n_shards, &local);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, done);
    for (int s = 0; s < set->n_shards; s++)
        file[s] = (hirl_stage_file_t){set->shard[s].path, set->shard[s].file_size};
    HIRL_TRY_GOTO(hirl_stage_files(world, folder, file, set->n_shards, local), status, done);
    for (int s = 0; s < set->n_shards && status == HIRL_OK; s++)
        status = open_file(&set->shard[s], local[s], is_mapped);
done:
    hirl_mem_free(file);
    hirl_mem_free(local);
    return status;
}

// What can be said of all samples together.
static hirl_status_t summarise(const hirl_data_cfg_t *cfg, hirl_shard_set_t *set) {
    int32_t largest = -1;
    int least = set->channels[0], most = set->channels[0];
    for (int64_t i = 0; i < set->n; i++) {
        if (set->label[i] > largest) largest = set->label[i];
        if (set->channels[i] < least) least = set->channels[i];
        if (set->channels[i] > most) most = set->channels[i];
    }
    set->n_classes = largest + 1;
    set->out_channels = cfg->channels ? (int)cfg->channels : most;
    HIRL_REQUIRE(cfg->channels || least == most, HIRL_ERR_DECK,
                 "data%%channels is 0 (as stored), and the set holds grey and colour images: set "
                 "it to 3 or 1");
    return HIRL_OK;
}

hirl_status_t hirl_shard_set_open(hirl_world_t *world, const char *pattern,
                                  const hirl_data_cfg_t *cfg, hirl_shard_set_t **set_p) {
    bool is_mapped = strcmp(cfg->access, "pread") != 0;
    HIRL_REQUIRE(!is_mapped || !cfg->access[0] || strcmp(cfg->access, "mmap") == 0, HIRL_ERR_DECK,
                 "data%%access is '%s', expected 'mmap' or 'pread'", cfg->access);
    HIRL_REQUIRE(cfg->channels == 0 || cfg->channels == 1 || cfg->channels == 3, HIRL_ERR_DECK,
                 "data%%channels is %lld, expected 0, 1 or 3", (long long)cfg->channels);
    hirl_shard_set_t *set = NULL;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_DATA, 1, &set);
    if (status == HIRL_OK && hirl_world_rank(world) == 0)
        status = load_on_root(pattern, cfg->verify, set);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, err);
    HIRL_TRY_GOTO(broadcast_set(world, cfg->verify, set), status, err);
    status =
        cfg->stage[0] ? open_copies(world, cfg->stage, set, is_mapped) : open_files(set, is_mapped);
    if (status == HIRL_OK) status = summarise(cfg, set);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, err);
    *set_p = set;
    return HIRL_OK;
err:
    hirl_shard_set_close(&set);
    return status;
}

void hirl_shard_set_close(hirl_shard_set_t **set_p) {
    if (!set_p || !*set_p) return;
    hirl_shard_set_t *set = *set_p;
    for (int s = 0; set->shard && s < set->n_shards; s++) {
        if (set->shard[s].map) hirl_map_unguard(set->shard[s].map);
        if (set->shard[s].map)
            munmap((void *)(uintptr_t)set->shard[s].map, (size_t)set->shard[s].file_size);
        if (set->shard[s].fd >= 0) close(set->shard[s].fd);
    }
    hirl_mem_free(set->shard);
    hirl_mem_free(set->first);
    hirl_mem_free(set->pos);
    hirl_mem_free(set->height);
    hirl_mem_free(set->width);
    hirl_mem_free(set->channels);
    hirl_mem_free(set->label);
    hirl_mem_free(set->checksum);
    hirl_mem_free(set->reported);
    hirl_mem_free(set->target);
    hirl_class_table_reset(&set->classes);
    hirl_mem_free(set);
    *set_p = NULL;
}

// -------------------------------------------------------------------------------------- read

int64_t hirl_shard_set_n_samples(const hirl_shard_set_t *set) { return set->n; }

int hirl_shard_set_n_classes(const hirl_shard_set_t *set) { return set->n_classes; }

int hirl_shard_set_channels(const hirl_shard_set_t *set) { return set->out_channels; }

int32_t hirl_shard_set_label(const hirl_shard_set_t *set, int64_t index) {
    return set->label[index];
}

int hirl_shard_set_n_targets(const hirl_shard_set_t *set) { return set->n_targets; }

const int8_t *hirl_shard_set_target_view(const hirl_shard_set_t *set, int64_t index) {
    return set->target ? set->target + index * set->n_targets : NULL;
}

int hirl_shard_set_n_class_names(const hirl_shard_set_t *set) { return set->classes.n; }

const char *hirl_shard_set_class_name_view(const hirl_shard_set_t *set, int row) {
    return row >= 0 && row < set->classes.n ? class_row(&set->classes, row) : "";
}

int32_t hirl_shard_set_class_parent(const hirl_shard_set_t *set, int row) {
    return row >= 0 && row < set->classes.n ? class_parent(&set->classes, row) : -1;
}

hirl_status_t hirl_shard_set_check_classes(const hirl_shard_set_t *a, const hirl_shard_set_t *b) {
    if (a->classes.n == 0 || b->classes.n == 0) return HIRL_OK;
    return check_same_classes(&a->classes, a->shard[0].path, &b->classes, b->shard[0].path);
}

bool hirl_shard_set_has_videos(const hirl_shard_set_t *set) {
    return set->shard[0].encoding == HIRL_SHARD_FRAMES;
}

void hirl_shard_set_image_size(const hirl_shard_set_t *set, int64_t index, int *height_p,
                               int *width_p) {
    *height_p = set->height[index];
    *width_p = set->width[index];
}

// The shard that holds sample `index`.
static int find_shard(const hirl_shard_set_t *set, int64_t index) {
    int low = 0, high = set->n_shards; // first[low] <= index < first[high]
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (set->first[middle] <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

int hirl_shard_set_n_shards(const hirl_shard_set_t *set) { return set->n_shards; }

const char *hirl_shard_set_shard_view(const hirl_shard_set_t *set, int s, int64_t *n_p,
                                      hirl_shard_encoding_t *encoding_p) {
    *n_p = set->shard[s].n;
    *encoding_p = set->shard[s].encoding;
    return set->shard[s].path;
}

int64_t hirl_shard_set_stored_bytes(const hirl_shard_set_t *set, int64_t index) {
    const int64_t *pos = &set->pos[index + find_shard(set, index)];
    return pos[1] - pos[0];
}

bool hirl_shard_set_checksum(const hirl_shard_set_t *set, int64_t index, uint64_t *checksum_p) {
    if (!set->checksum) return false;
    *checksum_p = set->checksum[index];
    return true;
}

bool hirl_shard_set_begin_report(const hirl_shard_set_t *set, int64_t index) {
    const unsigned char bit = (unsigned char)(1u << index % 8);
    return !(atomic_fetch_or(&set->reported[index / 8], bit) & bit);
}

char *hirl_shard_set_place(const hirl_shard_set_t *set, int64_t index,
                           char buf[HIRL_DECK_TEXT_MAX]) {
    buf[0] = '\0';
    if (index < 0 || index >= set->n) {
        (void)hirl_text_format(buf, HIRL_DECK_TEXT_MAX, "sample %lld of %lld", (long long)index,
                               (long long)set->n);
        return buf;
    }
    int s = find_shard(set, index);
    const char *path = set->shard[s].path;
    // A path that is too long keeps its end, which tells more.
    size_t length = strlen(path), most = HIRL_DECK_TEXT_MAX - 32;
    if (length > most) path += length - most;
    (void)hirl_text_format(buf, HIRL_DECK_TEXT_MAX, "%s sample %lld", path,
                           (long long)(index - set->first[s]));
    return buf;
}

hirl_status_t hirl_shard_set_check_files(const hirl_shard_set_t *set) {
    if (hirl_map_faults() == 0) return HIRL_OK;
    for (int s = 0; s < set->n_shards; s++) {
        const shard_t *shard = &set->shard[s];
        struct stat now;
        if (!shard->map) continue;
        HIRL_REQUIRE(stat(shard->path, &now) == 0, HIRL_ERR_IO,
                     "shard %s: gone while it was in use: %s", shard->path, strerror(errno));
        HIRL_REQUIRE(now.st_size >= shard->file_size, HIRL_ERR_IO,
                     "shard %s: cut short while it was in use: %lld bytes now, %lld when it was "
                     "opened. Put it back and start again: the run continues from its checkpoint",
                     shard->path, (long long)now.st_size, (long long)shard->file_size);
    }
    return HIRL_FAIL(HIRL_ERR_IO,
                     "%lld pages of mapped shards (%s, ...) cannot be read: see the system's log "
                     "for errors of their disk",
                     (long long)hirl_map_faults(), set->n_shards > 0 ? set->shard[0].path : "");
}

void hirl_shard_set_will_read(const hirl_shard_set_t *set, int64_t index) {
    // Several of these lie on a page, and pages around one that is read come with it.
    enum { WORTH_IT = 16384 };
    const int s = find_shard(set, index);
    const shard_t *shard = &set->shard[s];
    const int64_t pos = set->pos[index + s], size = set->pos[index + s + 1] - pos;
    if (size < WORTH_IT) return;
    if (shard->map) {
        const int64_t page = sysconf(_SC_PAGESIZE), first = pos / page * page;
        (void)madvise((void *)(uintptr_t)(shard->map + first), (size_t)(pos + size - first),
                      MADV_WILLNEED);
    } else {
        (void)posix_fadvise(shard->fd, pos, size, POSIX_FADV_WILLNEED);
    }
}

hirl_status_t hirl_shard_set_read(const hirl_shard_set_t *set, int64_t index, hirl_buffer_t *buffer,
                                  hirl_sample_t *sample_p) {
    HIRL_REQUIRE(index >= 0 && index < set->n, HIRL_ERR_ARG, "sample %lld, expected 0 to %lld",
                 (long long)index, (long long)set->n - 1);
    int s = find_shard(set, index);
    const shard_t *shard = &set->shard[s];
    int64_t pos = set->pos[index + s];
    hirl_sample_t sample = {.size = (size_t)(set->pos[index + s + 1] - pos),
                            .height = set->height[index],
                            .width = set->width[index],
                            .channels = set->channels[index],
                            .label = set->label[index]};
    if (shard->map) {
        sample.bytes = shard->map + pos;
    } else {
        HIRL_TRY(hirl_buffer_reserve(buffer, sample.size));
        HIRL_TRY(hirl_file_read_at(shard->fd, shard->path, pos, buffer->data, sample.size));
        sample.bytes = buffer->data;
    }
    char place[HIRL_DECK_TEXT_MAX];
    if (set->checksum) {
        uint64_t found = hirl_hash64(sample.bytes, sample.size);
        HIRL_REQUIRE(found == set->checksum[index], HIRL_ERR_FORMAT,
                     "shard %s: checksum is %016llx, expected %016llx: its bytes have changed "
                     "since it was packed",
                     hirl_shard_set_place(set, index, place), (unsigned long long)found,
                     (unsigned long long)set->checksum[index]);
    }
    switch (shard->encoding) {
        case HIRL_SHARD_JPEG: sample.encoding = HIRL_ENCODING_JPEG; break;
        case HIRL_SHARD_PNG: sample.encoding = HIRL_ENCODING_PNG; break;
        case HIRL_SHARD_FRAMES: sample.encoding = HIRL_ENCODING_FRAMES; break;
        case HIRL_SHARD_MIXED:
            HIRL_REQUIRE(hirl_image_sniff(sample.bytes, sample.size, &sample.encoding),
                         HIRL_ERR_FORMAT, "shard %s: no signature of JPEG, PNG or WebP",
                         hirl_shard_set_place(set, index, place));
            break;
        default: sample.encoding = HIRL_ENCODING_RAW;
    }
    *sample_p = sample;
    return HIRL_OK;
}
