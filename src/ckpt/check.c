// What a checkpoint is compared with, how it is described, and the deck's group &checkpoint.
#include "ckpt_impl.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 20 };

// ------------------------------------------------------------------------------------ deck

static const hirl_key_t CHECKPOINT_KEYS[] = {
    HIRL_ROW_TEXT(hirl_ckpt_cfg_t, restart, "'auto'", NULL,
                  "'auto' goes on from the newest whole checkpoint of run%output, if there is one; "
                  "'none' starts anew; else the path of the checkpoint to go on from."),
    HIRL_ROW_TEXT(hirl_ckpt_cfg_t, init_from, "''", NULL,
                  "Checkpoint whose /model starts the parameters of a run that does not go on from "
                  "one of its own; '' for none."),
    HIRL_ROW_REAL(hirl_ckpt_cfg_t, every_epochs, "1", 0, 1e9, "epochs",
                  "Epochs between checkpoints; 0 writes one at the end only."),
    HIRL_ROW_INT(hirl_ckpt_cfg_t, every_steps, "0", 0, 1e15, "steps",
                 "Steps between checkpoints, beside those of every_epochs; 0 switches them off."),
    HIRL_ROW_INT(hirl_ckpt_cfg_t, keep, "3", 1, 1e9, "files",
                 "Newest complete checkpoints that are kept; older ones are removed."),
};

const hirl_group_t hirl_ckpt_group = {
    "checkpoint",
    "When checkpoints are written, how many are kept, and what a run starts from.",
    CHECKPOINT_KEYS,
    (int)(sizeof CHECKPOINT_KEYS / sizeof CHECKPOINT_KEYS[0]),
    sizeof(hirl_ckpt_cfg_t),
};

// ------------------------------------------------------------------------------------ check

// A list in the message: its first LIST_MAX items and their number.
typedef struct findings {
    hirl_text_t text;
    int n;
} findings_t;

static hirl_status_t add_finding(findings_t *findings, const char *name, const char *detail) {
    if (findings->n++ >= LIST_MAX) return HIRL_OK;
    return hirl_text_append(&findings->text, "%s%s%s", findings->n > 1 ? ", " : "", name, detail);
}

static hirl_status_t close_findings(const findings_t *findings, const char *title,
                                    hirl_text_t *message) {
    if (findings->n == 0) return HIRL_OK;
    HIRL_TRY(hirl_text_append(message, "; %d %s: %s", findings->n, title, findings->text.data));
    if (findings->n <= LIST_MAX) return HIRL_OK;
    return hirl_text_append(message, ", and %d more", findings->n - LIST_MAX);
}

static bool is_below(const char *name, const char *prefix) {
    size_t n = strlen(prefix);
    while (n > 0 && prefix[n - 1] == '/') n--;
    return strncmp(name, prefix, n) == 0 && name[n] == '/';
}

static hirl_status_t compare_one(const hirl_ckpt_t *ckpt, const hirl_ckpt_array_t *wanted,
                                 findings_t *missing, findings_t *misshaped) {
    const hirl_ckpt_array_t *found = hirl_ckpt_find_view(ckpt, wanted->name);
    if (!found) return add_finding(missing, wanted->name, "");
    bool is_alike = found->n_axes == wanted->n_axes && found->type == wanted->type;
    for (int i = 0; i < wanted->n_axes && is_alike; i++) {
        is_alike = found->shape[i] == wanted->shape[i];
    }
    if (is_alike) return HIRL_OK;
    char detail[400], found_text[160], wanted_text[160];
    HIRL_TRY(hirl_text_format(detail, sizeof detail, " (%s %s, wanted %s %s)",
                              hirl_ckpt_type_name(found->type),
                              hirl_ckpt_shape_text(found_text, found->n_axes, found->shape),
                              hirl_ckpt_type_name(wanted->type),
                              hirl_ckpt_shape_text(wanted_text, wanted->n_axes, wanted->shape)));
    return add_finding(misshaped, wanted->name, detail);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

// Arrays of the file below the prefix that nobody wants.
static hirl_status_t find_extra(const hirl_ckpt_t *ckpt, const char *prefix,
                                const hirl_ckpt_array_t *wanted, int n_wanted, findings_t *extra) {
    hirl_status_t status = HIRL_OK;
    const char **names = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_wanted, &names));
    for (int i = 0; i < n_wanted; i++) names[i] = wanted[i].name;
    if (n_wanted > 0) qsort(names, (size_t)n_wanted, sizeof *names, by_name);
    for (int i = 0; i < ckpt->n_arrays; i++) {
        const char *name = ckpt->arrays[i].name;
        if (!is_below(name, prefix)) continue;
        if (n_wanted > 0 && bsearch(&name, names, (size_t)n_wanted, sizeof *names, by_name))
            continue;
        HIRL_TRY_GOTO(add_finding(extra, name, ""), status, done);
    }
done:
    hirl_mem_free(names);
    return status;
}

hirl_status_t hirl_ckpt_check(const hirl_ckpt_t *ckpt, const char *prefix,
                              const hirl_ckpt_array_t *wanted, int n_wanted, bool allow_extra) {
    HIRL_REQUIRE(ckpt && prefix && (wanted || n_wanted == 0), HIRL_ERR_ARG,
                 "there is nothing to compare with");
    findings_t missing = {{0}, 0}, extra = {{0}, 0}, misshaped = {{0}, 0};
    hirl_text_t message = {0};
    hirl_status_t status = HIRL_OK;
    for (int i = 0; i < n_wanted; i++) {
        HIRL_TRY_GOTO(compare_one(ckpt, &wanted[i], &missing, &misshaped), status, done);
    }
    if (!allow_extra) {
        HIRL_TRY_GOTO(find_extra(ckpt, prefix, wanted, n_wanted, &extra), status, done);
    }
    if (missing.n + extra.n + misshaped.n == 0) goto done;
    HIRL_TRY_GOTO(hirl_text_append(&message, "%s: %s does not fit this run", ckpt->path, prefix),
                  status, done);
    HIRL_TRY_GOTO(close_findings(&misshaped, "of another shape or type", &message), status, done);
    HIRL_TRY_GOTO(close_findings(&missing, "missing from the file", &message), status, done);
    HIRL_TRY_GOTO(close_findings(&extra, "unknown to this run", &message), status, done);
    status = HIRL_FAIL(HIRL_ERR_MISMATCH, "%s", message.data);
done:
    hirl_text_reset(&missing.text);
    hirl_text_reset(&extra.text);
    hirl_text_reset(&misshaped.text);
    hirl_text_reset(&message);
    return status;
}

// ------------------------------------------------------------------------------------ describe

// Appends each line of `lines`, indented.
static hirl_status_t append_indented(hirl_text_t *text, const char *lines) {
    while (*lines) {
        const int n = (int)strcspn(lines, "\n");
        HIRL_TRY(hirl_text_append(text, "    %.*s\n", n, lines));
        lines += n;
        if (*lines == '\n') lines++;
    }
    return HIRL_OK;
}

static hirl_status_t describe_arrays(const hirl_ckpt_t *ckpt, hirl_text_t *text) {
    char shape[160], size[32];
    double total = 0;
    int n_width = 4;
    for (int i = 0; i < ckpt->n_arrays; i++) {
        const int n = (int)strlen(ckpt->arrays[i].name);
        if (n > n_width && n <= 64) n_width = n;
    }
    HIRL_TRY(hirl_text_append(text, "arrays:\n"));
    for (int i = 0; i < ckpt->n_arrays; i++) {
        const hirl_ckpt_array_t *array = &ckpt->arrays[i];
        const double bytes =
            (double)ckpt->extents[i].n_items * (double)hirl_ckpt_item_size(array->type);
        total += bytes;
        HIRL_TRY(hirl_text_append(text, "    %-*s  %-3s  %-20s  %s\n", n_width, array->name,
                                  hirl_ckpt_type_name(array->type),
                                  hirl_ckpt_shape_text(shape, array->n_axes, array->shape),
                                  hirl_text_bytes(size, bytes)));
    }
    return hirl_text_append(text, "    %d arrays, %s\n", ckpt->n_arrays,
                            hirl_text_bytes(size, total));
}

// Texts in a file may hold anything; a terminal shall not obey them.
static void replace_controls(char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '\n' && iscntrl((unsigned char)text[i])) text[i] = '?';
    }
}

hirl_status_t hirl_ckpt_describe(const char *path, hirl_text_t *text) {
    hirl_ckpt_t *ckpt = NULL;
    const size_t begun = text->size;
    char size[32];
    hirl_status_t status;
    HIRL_TRY(hirl_ckpt_open(path, false, &ckpt));
    const hirl_ckpt_meta_t *meta = &ckpt->meta;
    HIRL_TRY_GOTO(hirl_text_append(text,
                                   "%s: checkpoint, %s\nmethod = %s\nhierarchy = %s\nstep = %lld\n"
                                   "epoch = %lld\nbatch = %lld\nsamples_seen = %lld\nseed = %lld\n",
                                   path, hirl_text_bytes(size, (double)ckpt->file_bytes),
                                   meta->method, meta->hierarchy, (long long)meta->step,
                                   (long long)meta->epoch, (long long)meta->batch,
                                   (long long)meta->samples_seen, (long long)meta->seed),
                  status, done);
    HIRL_TRY_GOTO(describe_arrays(ckpt, text), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "written by:\n"), status, done);
    HIRL_TRY_GOTO(append_indented(text, ckpt->build), status, done);
    HIRL_TRY_GOTO(hirl_text_append(text, "deck:\n"), status, done);
    HIRL_TRY_GOTO(append_indented(text, meta->deck), status, done);
done:
    if (text->data) replace_controls(text->data + begun, text->size - begun);
    hirl_ckpt_close(&ckpt);
    return status;
}
