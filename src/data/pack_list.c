// File lists: lines "path label", or "path" alone, of images below pack%source. The order is that
// of the lines.
#include "data_impl.h"

#include <string.h>

// A path as it is meant below pack%source: some lists begin theirs with '/' or './'.
static hirl_span_t below_source(hirl_span_t path) {
    for (;;) {
        size_t skip = path.size > 0 && path.text[0] == '/'                          ? 1
                      : path.size > 1 && path.text[0] == '.' && path.text[1] == '/' ? 2
                                                                                    : 0;
        if (skip == 0) return path;
        path.text += skip;
        path.size -= skip;
    }
}

static hirl_status_t add_line(const hirl_lines_t *lines, hirl_span_t line, bool is_labelled,
                              hirl_pack_entries_t *entries) {
    hirl_span_t path = line, label_text;
    int64_t label = -1;
    if (is_labelled) {
        const bool is_pair = hirl_span_split_last(line, &path, &label_text) &&
                             hirl_span_number(label_text, -1, HIRL_CLASSES_MAX - 1, &label);
        HIRL_REQUIRE(is_pair, HIRL_ERR_FORMAT,
                     "%s:%lld: '%.*s', expected a path, a blank and a label of -1 to %d, as in the "
                     "first line",
                     lines->path, (long long)lines->number,
                     (int)(line.size < 200 ? line.size : 200), line.text, HIRL_CLASSES_MAX - 1);
    }
    path = below_source(path);
    HIRL_REQUIRE(path.size > 0 && path.size < PATH_MAX, HIRL_ERR_FORMAT,
                 "%s:%lld: a path of %zu bytes, expected 1 to %d", lines->path,
                 (long long)lines->number, path.size, PATH_MAX - 1);
    hirl_pack_entry_t *entry = NULL;
    HIRL_TRY(hirl_pack_entries_add(entries, path.text, path.size, &entry));
    entry->label = (int32_t)label;
    return HIRL_OK;
}

static hirl_status_t add_list(const char *path, hirl_pack_entries_t *entries) {
    hirl_lines_t lines;
    HIRL_TRY(hirl_lines_open(path, &lines));
    hirl_span_t line, before, after;
    int64_t label;
    bool is_labelled = false;
    hirl_status_t status = HIRL_OK;
    for (int64_t n = 0; status == HIRL_OK && hirl_lines_next(&lines, &line); n++) {
        if (n == 0) {
            is_labelled = hirl_span_split_last(line, &before, &after) &&
                          hirl_span_number(after, INT64_MIN, INT64_MAX, &label);
        }
        status = add_line(&lines, line, is_labelled, entries);
        if (status == HIRL_OK && n % 4096 == 0) status = hirl_pack_heed_signals();
    }
    if (status == HIRL_OK && lines.number == 0)
        status = HIRL_FAIL(HIRL_ERR_FORMAT, "%s: empty, expected lines of paths", path);
    hirl_lines_close(&lines);
    return status;
}

hirl_status_t hirl_pack_find_list(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    HIRL_REQUIRE(hirl_pack_is_folder(cfg->source), HIRL_ERR_IO,
                 "pack%%source: %s is not a folder, which the paths of pack%%list lie below",
                 cfg->source);
    HIRL_TRY(hirl_text_format(source->root, sizeof source->root, "%s", cfg->source));
    hirl_pack_entries_t entries = {0};
    hirl_status_t status = HIRL_OK;
    for (int i = 0; status == HIRL_OK && i < cfg->n_list; i++)
        status = add_list(cfg->list[i], &entries);
    if (status == HIRL_OK) status = hirl_pack_entries_deliver(&entries, source);
    hirl_pack_entries_reset(&entries);
    return status;
}
