// Task pack: a source becomes shards. What goes where is decided by all ranks alike from the sizes
// of all inputs, so the shards' content does not depend on the number of ranks; then each rank
// writes whole shards. All are written under temporary names first and get their own names when
// every rank has succeeded: a failure leaves the old ones in place. A finished one waits under a
// name that holds its fingerprint, so that a run that was ended goes on with what it had finished.
#include "data_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define HOLDOUT "holdout"
#define PART ".part"
enum { FINGERPRINT_DIGITS = 16 };
enum { SHARDS_MAX = 100000, SKIPPED_SHOWN_MAX = 10 };
static const double progress_every_s[2] = {10.0, 0.2}; // off a terminal, on one

// One split to be written.
typedef struct split_plan {
    const char *name, *taken_from;
    int64_t *order; // [n], inputs of the source
    int64_t n;
    int64_t *begin; // [n_shards+1], positions in order
    int64_t n_shards, n_bytes;
} split_plan_t;

// A rank's shards, in the order of next_shard.
typedef struct share {
    int64_t n;
    uint64_t *fingerprint; // [n]
    bool *is_finished;     // [n] before this run
    int64_t n_finished;    // of all ranks
    int64_t n_bytes;       // of their images
} share_t;

hirl_status_t hirl_pack_heed_signals(void) {
    HIRL_REQUIRE(!hirl_signal_cancels(), HIRL_ERR_INTERRUPTED, "signal %d", hirl_signal_cancels());
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- progress

void hirl_pack_progress_begin(hirl_pack_progress_t *progress, HIRL_BORROW const char *what,
                              int64_t total) {
    *progress = (hirl_pack_progress_t){what, total, hirl_time_now(), 0};
    progress->shown = progress->begun;
}

void hirl_pack_progress_update(hirl_pack_progress_t *progress, int64_t n_done) {
    double now = hirl_time_now();
    if (now - progress->shown < progress_every_s[hirl_log_is_terminal()]) return;
    progress->shown = now;
    char text[HIRL_DECK_TEXT_MAX], left[32];
    double rate = (double)n_done / (now - progress->begun);
    if (progress->total > 0 && rate > 0) {
        // Parts are alike in size, so rank 0's share stands for all.
        double share = 100.0 * (double)n_done / (double)progress->total;
        (void)hirl_text_format(text, sizeof text, "%s %.0f %%, %.0f/s, ETA %s", progress->what,
                               share, rate,
                               hirl_text_duration(left, (double)(progress->total - n_done) / rate));
    } else {
        (void)hirl_text_format(text, sizeof text, "%s %lld, %.0f/s", progress->what,
                               (long long)n_done, rate);
    }
    if (hirl_log_is_terminal()) {
        hirl_log_progress(text);
    } else {
        hirl_log_root(HIRL_LOG_INFO, "%s", text);
    }
}

void hirl_pack_progress_end(hirl_pack_progress_t *progress) {
    (void)progress;
    hirl_log_progress(NULL);
}

// -------------------------------------------------------------------------------------- deck

static bool is_split_name(const char *name) {
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t length = strlen(name);
    return length > 0 && length < HIRL_SPLIT_TEXT_MAX && strspn(name, letters) == length;
}

static hirl_status_t check_cfg(const hirl_pack_cfg_t *cfg) {
    HIRL_REQUIRE(is_split_name(cfg->split), HIRL_ERR_DECK,
                 "pack%%split is '%s', expected 1 to %d letters, digits, '_' or '-'", cfg->split,
                 HIRL_SPLIT_TEXT_MAX - 1);
    const char *classes = cfg->classes;
    HIRL_REQUIRE(!classes[0] || strcmp(classes, "leaf") == 0 || strcmp(classes, "top") == 0 ||
                     strcmp(classes, "archive") == 0 || strcmp(classes, "none") == 0,
                 HIRL_ERR_DECK,
                 "pack%%classes is '%s', expected 'leaf', 'top', 'archive' or 'none'", classes);
    HIRL_REQUIRE(
        !cfg->labels[0] || strcmp(classes, "none") != 0, HIRL_ERR_DECK,
        "pack%%labels names a file, and pack%%classes = 'none' leaves labels out: choose one");
    HIRL_REQUIRE(
        cfg->n_label_columns == 0 || (cfg->n_label_columns == 2 && cfg->labels[0]), HIRL_ERR_DECK,
        "pack%%label_columns has %d names: give two of the header of pack%%labels, that of "
        "the images and that of their labels",
        cfg->n_label_columns);
    HIRL_REQUIRE(cfg->output[0], HIRL_ERR_DECK,
                 "pack%%output is empty: name the folder that the shards go to");
    HIRL_REQUIRE(cfg->max_side >= 0 && cfg->max_side <= HIRL_IMAGE_SIDE_MAX, HIRL_ERR_DECK,
                 "pack%%max_side is %lld, expected 0 to %d", (long long)cfg->max_side,
                 HIRL_IMAGE_SIDE_MAX);
    HIRL_REQUIRE(cfg->quality >= 0 && cfg->quality <= 100, HIRL_ERR_DECK,
                 "pack%%quality is %lld, expected 1 to 100", (long long)cfg->quality);
    HIRL_REQUIRE(!cfg->side[0] || strcmp(cfg->side, "longer") == 0 ||
                     strcmp(cfg->side, "shorter") == 0,
                 HIRL_ERR_DECK, "pack%%side is '%s', expected 'longer' or 'shorter'", cfg->side);
    HIRL_REQUIRE(cfg->shard_mib >= 1 && cfg->shard_mib <= 1 << 20, HIRL_ERR_DECK,
                 "pack%%shard_mib is %lld, expected 1 to %d", (long long)cfg->shard_mib, 1 << 20);
    HIRL_REQUIRE(cfg->n_holdout >= 0, HIRL_ERR_DECK, "pack%%n_holdout is %lld, expected 0 or more",
                 (long long)cfg->n_holdout);
    HIRL_REQUIRE(cfg->n_holdout == 0 || strcmp(cfg->split, HOLDOUT) != 0, HIRL_ERR_DECK,
                 "pack%%split is '" HOLDOUT "', the name of the split that pack%%n_holdout makes");
    return HIRL_OK;
}

// ----------------------------------------------------------------------------------- names on disk

static hirl_status_t shard_path(const hirl_pack_cfg_t *cfg, const char *split, int64_t number,
                                const char *tail, char path[PATH_MAX]) {
    return hirl_text_format(path, PATH_MAX, "%s/%s-%05lld.h5%s", cfg->output, split,
                            (long long)number, tail);
}

static hirl_status_t finished_path(const hirl_pack_cfg_t *cfg, const char *split, int64_t number,
                                   uint64_t fingerprint, char path[PATH_MAX]) {
    char tail[sizeof PART + FINGERPRINT_DIGITS + 1];
    HIRL_TRY(hirl_text_format(tail, sizeof tail, PART "-%0*llx", FINGERPRINT_DIGITS,
                              (unsigned long long)fingerprint));
    return shard_path(cfg, split, number, tail, path);
}

// What a file "<split>-<digits>.h5<tail>" is, by its tail.
typedef enum name_kind {
    NAME_OTHER = 0,
    NAME_SHARD = 1,
    NAME_PART = 2,    // being written
    NAME_FINISHED = 4 // waits for the others
} name_kind_t;

static name_kind_t kind_of_name(const char *name, const char *split) {
    size_t length = strlen(split);
    if (strncmp(name, split, length) != 0 || name[length] != '-') return NAME_OTHER;
    name += length + 1;
    size_t digits = strspn(name, "0123456789");
    if (digits < 5 || strncmp(name + digits, ".h5", 3) != 0) return NAME_OTHER;
    const char *tail = name + digits + 3;
    if (!*tail) return NAME_SHARD;
    if (strncmp(tail, PART, sizeof PART - 1) != 0) return NAME_OTHER;
    tail += sizeof PART - 1;
    if (!*tail) return NAME_PART;
    return *tail == '-' && strspn(tail + 1, "0123456789abcdef") == FINGERPRINT_DIGITS &&
                   !tail[1 + FINGERPRINT_DIGITS]
               ? NAME_FINISHED
               : NAME_OTHER;
}

// Whether shards of split 'holdout' were taken from this one; then they belong to its old state.
static bool is_taken_from(const char *path, const char *split) {
    char text[HIRL_SPLIT_TEXT_MAX] = "";
    hirl_h5_t *file = NULL;
    if (hirl_h5_open(path, &file) == HIRL_OK) {
        if (hirl_h5_find_attribute_view(file, hirl_h5_object_view(file, 0), "taken_from"))
            (void)hirl_data_h5_read_text(file, path, "taken_from", text, sizeof text);
        hirl_h5_close(&file);
    }
    return strcmp(text, split) == 0;
}

// Counts files of these kinds that this run would replace, and removes them if asked to.
static hirl_status_t sweep_output(const hirl_pack_cfg_t *cfg, int kinds, bool is_removal,
                                  int64_t *n_p, char first[PATH_MAX]) {
    DIR *dir = opendir(cfg->output);
    HIRL_REQUIRE(dir, HIRL_ERR_IO, "folder %s: %s", cfg->output, strerror(errno));
    hirl_status_t status = HIRL_OK;
    int64_t n = 0;
    const struct dirent *entry;
    while (status == HIRL_OK && (entry = readdir(dir))) {
        int kind = kind_of_name(entry->d_name, cfg->split) & kinds;
        bool is_holdout = !kind && (kind = kind_of_name(entry->d_name, HOLDOUT) & kinds) != 0;
        if (!kind) continue;
        char path[PATH_MAX];
        status = hirl_text_format(path, sizeof path, "%s/%s", cfg->output, entry->d_name);
        if (status != HIRL_OK) break;
        if (is_holdout && cfg->n_holdout == 0 &&
            (kind != NAME_SHARD || !is_taken_from(path, cfg->split)))
            continue;
        if (n++ == 0 && first) memcpy(first, path, sizeof path);
        if (is_removal && unlink(path) != 0 && errno != ENOENT) {
            status = HIRL_FAIL(HIRL_ERR_IO, "%s: cannot remove it: %s", path, strerror(errno));
        }
    }
    closedir(dir);
    if (n_p) *n_p = n;
    return status;
}

// Rank 0: the folder is there, and nothing in it is in the way.
static hirl_status_t prepare_output(const hirl_pack_cfg_t *cfg) {
    HIRL_TRY(hirl_path_make_folder(cfg->output));
    int64_t n = 0;
    char first[PATH_MAX] = "";
    HIRL_TRY(sweep_output(cfg, NAME_SHARD, false, &n, first));
    HIRL_REQUIRE(n == 0 || cfg->overwrite, HIRL_ERR_IO,
                 "%s exists (%lld shards are in the way): set pack%%overwrite = .true. to replace "
                 "them, or choose "
                 "another pack%%output",
                 first, (long long)n);
    return sweep_output(cfg, NAME_PART, true, NULL, NULL);
}

// -------------------------------------------------------------------------------------- plan

// Puts the samples in order: as they come, or by a keyed permutation.
static hirl_status_t shuffle(const hirl_pack_cfg_t *cfg, uint64_t key, split_plan_t *plan) {
    if (!cfg->shuffle || plan->n == 0) return HIRL_OK;
    int64_t *shuffled = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, plan->n, &shuffled));
    hirl_permutation_t permutation =
        hirl_permutation_make((uint64_t)cfg->seed, HIRL_RNG_SPLIT, key, plan->n);
    for (int64_t i = 0; i < plan->n; i++)
        shuffled[i] = plan->order[hirl_permutation_at(&permutation, i)];
    hirl_mem_free(plan->order);
    plan->order = shuffled;
    return HIRL_OK;
}

// A shard takes samples as long as it stays within pack%shard_mib, and one at least.
static hirl_status_t cut_shards(const hirl_pack_cfg_t *cfg, const hirl_pack_source_t *source,
                                split_plan_t *plan) {
    int64_t most = cfg->shard_mib << 20, size = 0;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, plan->n + 1, &plan->begin));
    for (int64_t i = 0; i < plan->n; i++) {
        int64_t item = source->item[plan->order[i]].size;
        if (i == 0 || size + item > most) {
            plan->begin[plan->n_shards++] = i;
            size = 0;
        }
        size += item;
        plan->n_bytes += item;
    }
    plan->begin[plan->n_shards] = plan->n;
    HIRL_REQUIRE(plan->n_shards <= SHARDS_MAX, HIRL_ERR_DECK,
                 "pack%%shard_mib = %lld makes %lld shards, at most %d", (long long)cfg->shard_mib,
                 (long long)plan->n_shards, SHARDS_MAX);
    return HIRL_OK;
}

// The images alone must fit; what comes to them is small, and a full disk is an error later on.
static hirl_status_t check_space(const hirl_pack_cfg_t *cfg, int64_t n_bytes) {
    struct statvfs disk;
    if (statvfs(cfg->output, &disk) != 0 || disk.f_blocks == 0) {
        return HIRL_OK; // not told by every file system
    }
    double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
    char want[32], have[32];
    HIRL_REQUIRE((double)n_bytes <= free_bytes, HIRL_ERR_IO, "%s: the shards need %s, %s are free",
                 cfg->output, hirl_text_bytes(want, (double)n_bytes),
                 hirl_text_bytes(have, free_bytes));
    return HIRL_OK;
}

// HDF5 does not survive the limit that a shell may set on the size of files.
static hirl_status_t check_file_limit(const hirl_pack_source_t *source, const split_plan_t *plan) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return HIRL_OK;
    for (int64_t s = 0; s < plan->n_shards; s++) {
        // Arrays of 48 bytes a sample, its name, its image; and room for HDF5 itself.
        double bytes = 1 << 20;
        for (int64_t i = plan->begin[s]; i < plan->begin[s + 1]; i++) {
            const int64_t *name = source->name_offset + plan->order[i];
            bytes += 48.0 + source->n_targets +
                     (double)(name[1] - name[0] + source->item[plan->order[i]].size);
        }
        char want[32], have[32];
        HIRL_REQUIRE(bytes <= (double)limit.rlim_cur, HIRL_ERR_IO,
                     "shards have up to %s, files may have %s here: set pack%%shard_mib lower, or "
                     "raise 'ulimit -f'",
                     hirl_text_bytes(want, bytes), hirl_text_bytes(have, (double)limit.rlim_cur));
    }
    return HIRL_OK;
}

// Chooses what is held out, then orders and cuts both splits. Keys of HIRL_RNG_SPLIT: 0 choice, 1
// and 2 order.
static hirl_status_t make_plan(const hirl_pack_cfg_t *cfg, const hirl_pack_source_t *source,
                               split_plan_t plan[2]) {
    int64_t n_good = 0, *good = NULL;
    bool *is_held = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, source->n, &good), status, done);
    for (int64_t i = 0; i < source->n; i++) {
        if (source->item[i].is_good) good[n_good++] = i;
    }
    if (n_good == 0) {
        // a line of the list: name, tab, reason
        const char *name = source->skipped.data ? source->skipped.data : "";
        const size_t n_name = strcspn(name, "\t\n");
        const char *reason = name + n_name + (name[n_name] == '\t');
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT,
                      "nothing to pack: all %lld inputs of %s are bad (%s/%s-skipped.txt); the "
                      "first: %.*s: %.*s",
                      (long long)source->n_skipped, cfg->source, cfg->output, cfg->split,
                      (int)n_name, name, (int)strcspn(reason, "\n"), reason);
        goto done;
    }
    if (cfg->n_holdout >= n_good) {
        status = HIRL_FAIL(HIRL_ERR_DECK, "pack%%n_holdout is %lld, and there are %lld samples",
                           (long long)cfg->n_holdout, (long long)n_good);
        goto done;
    }
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, n_good, &is_held), status, done);
    hirl_permutation_t choice =
        hirl_permutation_make((uint64_t)cfg->seed, HIRL_RNG_SPLIT, 0, n_good);
    for (int64_t i = 0; i < cfg->n_holdout; i++) is_held[hirl_permutation_at(&choice, i)] = true;

    plan[0].name = cfg->split;
    plan[1].name = HOLDOUT;
    plan[1].taken_from = cfg->split;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, n_good - cfg->n_holdout, &plan[0].order), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, cfg->n_holdout, &plan[1].order), status, done);
    for (int64_t i = 0; i < n_good; i++) {
        split_plan_t *to = &plan[is_held[i]];
        to->order[to->n++] = good[i];
    }
    for (int p = 0; p < 2; p++) {
        HIRL_TRY_GOTO(shuffle(cfg, (uint64_t)p + 1, &plan[p]), status, done);
        HIRL_TRY_GOTO(cut_shards(cfg, source, &plan[p]), status, done);
        HIRL_TRY_GOTO(check_file_limit(source, &plan[p]), status, done);
    }
done:
    hirl_mem_free(good);
    hirl_mem_free(is_held);
    return status;
}

static void plan_reset(split_plan_t *plan) {
    hirl_mem_free(plan->order);
    hirl_mem_free(plan->begin);
}

// -------------------------------------------------------------------------------------- write

// Shards of both splits are numbered through; rank r has every size-th of them.
static bool next_shard(const split_plan_t plan[2], int64_t *at, int size, int *p, int64_t *shard) {
    *at += size;
    int64_t s = *at;
    *p = s >= plan[0].n_shards;
    *shard = *p ? s - plan[0].n_shards : s;
    return *shard < plan[*p].n_shards;
}

static hirl_shard_header_t header_of(const hirl_pack_cfg_t *cfg, const split_plan_t *split,
                                     int64_t shard) {
    return (hirl_shard_header_t){split->name,     split->taken_from, shard,
                                 split->n_shards, split->n,          cfg};
}

static void share_reset(share_t *share) {
    hirl_mem_free(share->fingerprint);
    hirl_mem_free(share->is_finished);
}

// Which of this rank's shards an earlier run has finished.
static hirl_status_t find_finished(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                                   const hirl_pack_source_t *source, const split_plan_t plan[2],
                                   share_t *share) {
    int rank = hirl_world_rank(world), size = hirl_world_size(world), p = 0;
    int64_t shard = 0, i = 0;
    char path[PATH_MAX];
    for (int64_t at = rank - size; next_shard(plan, &at, size, &p, &shard);) share->n++;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, share->n, &share->fingerprint));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, share->n, &share->is_finished));
    for (int64_t at = rank - size; next_shard(plan, &at, size, &p, &shard); i++) {
        const split_plan_t *split = &plan[p];
        hirl_shard_header_t header = header_of(cfg, split, shard);
        HIRL_TRY(hirl_pack_heed_signals());
        HIRL_TRY(hirl_shard_fingerprint(&header, source, split->order + split->begin[shard],
                                        split->begin[shard + 1] - split->begin[shard],
                                        &share->fingerprint[i]));
        HIRL_TRY(finished_path(cfg, split->name, shard, share->fingerprint[i], path));
        if (!hirl_pack_is_file(path)) continue;
        share->is_finished[i] = true;
        share->n_finished++;
        for (int64_t j = split->begin[shard]; j < split->begin[shard + 1]; j++)
            share->n_bytes += source->item[split->order[j]].size;
    }
    return HIRL_OK;
}

static hirl_status_t sum_finished(hirl_world_t *world, share_t *share) {
    int64_t sums[] = {share->n_finished, share->n_bytes};
    HIRL_TRY(hirl_par_all_reduce(world, sums, 2, HIRL_PAR_I64, HIRL_PAR_SUM));
    share->n_finished = sums[0];
    share->n_bytes = sums[1];
    if (sums[0] > 0)
        hirl_log_root(HIRL_LOG_INFO, "pack: %lld shards were finished before and are kept",
                      (long long)sums[0]);
    return HIRL_OK;
}

static hirl_status_t finish_shard(const hirl_pack_cfg_t *cfg, const char *split, int64_t shard,
                                  uint64_t fingerprint, const char *part) {
    char path[PATH_MAX];
    HIRL_TRY(finished_path(cfg, split, shard, fingerprint, path));
    HIRL_REQUIRE(rename(part, path) == 0, HIRL_ERR_IO, "%s: cannot move it into place: %s", path,
                 strerror(errno));
    return HIRL_OK;
}

// A shard of each rank at a time, so that all end soon when one has to.
static hirl_status_t write_shards(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                                  const hirl_pack_source_t *source, const split_plan_t plan[2],
                                  const share_t *share) {
    int rank = hirl_world_rank(world), size = hirl_world_size(world), p = 0;
    int64_t shard = 0, mine = 0, n_done = 0, n_shards = plan[0].n_shards + plan[1].n_shards, i = 0;
    for (int64_t at = rank - size; next_shard(plan, &at, size, &p, &shard); i++) {
        if (!share->is_finished[i]) mine += plan[p].begin[shard + 1] - plan[p].begin[shard];
    }
    char what[HIRL_DECK_TEXT_MAX], path[PATH_MAX];
    HIRL_TRY(hirl_text_format(what, sizeof what, "pack %.64s: write", cfg->split));
    hirl_pack_progress_t progress;
    hirl_pack_progress_begin(&progress, what, mine);
    hirl_status_t status = HIRL_OK;
    int64_t at = rank - size;
    for (i = 0; status == HIRL_OK && i * size < n_shards; i++) {
        if (next_shard(plan, &at, size, &p, &shard) && !share->is_finished[i]) {
            const split_plan_t *split = &plan[p];
            hirl_shard_header_t header = header_of(cfg, split, shard);
            status = shard_path(cfg, split->name, shard, PART, path);
            if (status == HIRL_OK)
                status = hirl_shard_write(path, &header, source, split->order + split->begin[shard],
                                          split->begin[shard + 1] - split->begin[shard],
                                          hirl_world_n_cpus(world), &progress, &n_done);
            if (status == HIRL_OK)
                status = finish_shard(cfg, split->name, shard, share->fingerprint[i], path);
        }
        if (status == HIRL_OK) status = hirl_pack_heed_signals();
        status = hirl_par_agree(world, status);
    }
    hirl_pack_progress_end(&progress);
    return status;
}

// Gives this rank's shards their names.
static hirl_status_t rename_shards(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                                   const split_plan_t plan[2], const share_t *share) {
    int size = hirl_world_size(world), p = 0;
    int64_t shard = 0, i = 0;
    char from[PATH_MAX], to[PATH_MAX];
    for (int64_t at = hirl_world_rank(world) - size; next_shard(plan, &at, size, &p, &shard); i++) {
        HIRL_TRY(finished_path(cfg, plan[p].name, shard, share->fingerprint[i], from));
        HIRL_TRY(shard_path(cfg, plan[p].name, shard, "", to));
        HIRL_REQUIRE(rename(from, to) == 0, HIRL_ERR_IO, "%s: cannot move it into place: %s", to,
                     strerror(errno));
    }
    // The new names live in the folder; some file systems refuse this call and need none.
    int fd = open(cfg->output, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- report

// Rank 0 lists what was skipped; without any, an old list goes.
static hirl_status_t write_skipped(const hirl_pack_cfg_t *cfg, const hirl_pack_source_t *source) {
    char path[PATH_MAX];
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s-skipped.txt", cfg->output, cfg->split));
    if (source->n_skipped == 0) {
        HIRL_REQUIRE(unlink(path) == 0 || errno == ENOENT, HIRL_ERR_IO, "%s: cannot remove it: %s",
                     path, strerror(errno));
        return HIRL_OK;
    }
    HIRL_TRY(hirl_path_write_whole(path, source->skipped.data, source->skipped.size));
    const char *line = source->skipped.data;
    for (int64_t i = 0; i < source->n_skipped && i < SKIPPED_SHOWN_MAX; i++) {
        size_t length = strcspn(line, "\n"), name = strcspn(line, "\t");
        hirl_log_root(HIRL_LOG_WARN, "pack: skipped %.*s: %.*s", (int)name, line,
                      (int)(length - name - 1), line + name + 1);
        line += length + 1;
    }
    hirl_log_root(HIRL_LOG_WARN, "pack: %lld inputs were skipped, all are listed in %s",
                  (long long)source->n_skipped, path);
    return HIRL_OK;
}

static void report(const hirl_pack_cfg_t *cfg, const hirl_pack_source_t *source,
                   const split_plan_t plan[2], double seconds) {
    char bytes[32], taken[32];
    for (int p = 0; p < 2; p++) {
        if (plan[p].n == 0) continue;
        int n_classes = 0;
        for (int64_t i = 0; i < plan[p].n; i++) {
            int32_t label = source->item[plan[p].order[i]].label;
            if (label >= n_classes) n_classes = label + 1;
        }
        hirl_log_root(HIRL_LOG_INFO,
                      "pack: split = %s, samples = %lld, classes = %d, shards = %lld, size = %s, "
                      "folder = %s",
                      plan[p].name, (long long)plan[p].n, n_classes, (long long)plan[p].n_shards,
                      hirl_text_bytes(bytes, (double)plan[p].n_bytes), cfg->output);
    }
    int64_t n_made[3] = {0};
    for (int64_t i = 0; i < source->n; i++) {
        if (source->item[i].is_good) n_made[source->item[i].made]++;
    }
    if (n_made[HIRL_PACK_TURNED] + n_made[HIRL_PACK_ENCODED] > 0) {
        hirl_log_root(HIRL_LOG_INFO,
                      "pack: kept = %lld, turned without loss = %lld, encoded again = %lld",
                      (long long)n_made[HIRL_PACK_KEPT], (long long)n_made[HIRL_PACK_TURNED],
                      (long long)n_made[HIRL_PACK_ENCODED]);
    }
    double n = (double)(plan[0].n + plan[1].n);
    hirl_log_root(HIRL_LOG_INFO,
                  "pack: source = %s, format = %s, skipped = %lld, time = %s, samples/s = %.0f",
                  cfg->source, hirl_pack_format_text(source->format), (long long)source->n_skipped,
                  hirl_text_duration(taken, seconds), seconds > 0 ? n / seconds : 0.0);
}

// Everything that has a plan: the shards are written, and then take the place of the old ones.
static hirl_status_t carry_out(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                               const hirl_pack_source_t *source, const split_plan_t plan[2],
                               share_t *share) {
    bool is_root = hirl_world_rank(world) == 0;
    hirl_status_t status = find_finished(world, cfg, source, plan, share);
    HIRL_TRY(hirl_par_agree(world, status));
    HIRL_TRY(sum_finished(world, share));
    int64_t n_bytes = plan[0].n_bytes + plan[1].n_bytes - share->n_bytes;
    HIRL_TRY(hirl_par_agree(world, is_root ? check_space(cfg, n_bytes) : HIRL_OK));
    status = write_shards(world, cfg, source, plan, share);
    if (status == HIRL_OK) {
        status = is_root ? sweep_output(cfg, NAME_SHARD, true, NULL, NULL) : HIRL_OK;
        HIRL_TRY(hirl_par_agree(world, status));
        HIRL_TRY(hirl_par_agree(world, rename_shards(world, cfg, plan, share)));
    }
    // In the end this also removes what an earlier run with another plan had finished.
    if (is_root)
        (void)sweep_output(cfg,
                           status == HIRL_ERR_INTERRUPTED ? NAME_PART : NAME_PART | NAME_FINISHED,
                           true, NULL, NULL);
    return status;
}

// What was finished stays for a run that goes on, also if this one did not come to write.
static void report_interrupted(const hirl_pack_cfg_t *cfg) {
    int64_t n = 0;
    char cause[64];
    (void)hirl_text_format(cause, sizeof cause, "%.60s", hirl_error_text_view());
    (void)sweep_output(cfg, NAME_FINISHED, false, &n, NULL);
    hirl_log_root(
        HIRL_LOG_WARN,
        "%s: packing ends; %lld finished shards are kept in %s, and the same command goes "
        "on with them",
        cause, (long long)n, cfg->output);
}

hirl_status_t hirl_data_pack(hirl_world_t *world, const hirl_pack_cfg_t *cfg) {
    double begun = hirl_time_now();
    bool is_root = hirl_world_rank(world) == 0;
    hirl_pack_source_t source = {0};
    split_plan_t plan[2] = {{0}};
    share_t share = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(check_cfg(cfg));
    HIRL_TRY(hirl_par_agree(world, is_root ? prepare_output(cfg) : HIRL_OK));
    HIRL_TRY_GOTO(hirl_pack_source_open(world, cfg, &source), status, done);
    HIRL_TRY_GOTO(hirl_par_agree(world, is_root ? write_skipped(cfg, &source) : HIRL_OK), status,
                  done);
    HIRL_TRY_GOTO(hirl_par_agree(world, make_plan(cfg, &source, plan)), status, done);
    HIRL_TRY_GOTO(carry_out(world, cfg, &source, plan, &share), status, done);
    if (is_root) report(cfg, &source, plan, hirl_time_now() - begun);
done:
    if (is_root && status == HIRL_ERR_INTERRUPTED) report_interrupted(cfg);
    share_reset(&share);
    plan_reset(&plan[0]);
    plan_reset(&plan[1]);
    hirl_pack_source_reset(&source);
    return status;
}
