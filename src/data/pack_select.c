// What lists say of inputs that were found already: which of them are wanted (pack%subset), and
// what their labels are (pack%labels). Both name an input by its path, or by the name of its file.
#include "data_impl.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN_MAX = 3, COLUMNS_MAX = 256 };

// -------------------------------------------------------------------------------------- names

// What of a path is compared.
typedef enum part { PART_PATH, PART_NAME, PART_STEM, N_PARTS } part_t;

typedef struct names {
    const hirl_pack_source_t *source;
    int64_t *order[N_PARTS]; // [n] inputs sorted by that part; NULL until needed
} names_t;

static void names_reset(names_t *names) {
    for (int p = 0; p < N_PARTS; p++) hirl_mem_free(names->order[p]);
}

static hirl_span_t part_of(const hirl_pack_source_t *source, int64_t i, part_t part) {
    hirl_span_t span = {source->name + source->name_offset[i],
                        (size_t)(source->name_offset[i + 1] - source->name_offset[i])};
    if (part == PART_PATH) return span;
    for (size_t k = span.size; k-- > 0;) {
        if (span.text[k] != '/') continue;
        span = (hirl_span_t){span.text + k + 1, span.size - k - 1};
        break;
    }
    for (size_t k = span.size; part == PART_STEM && k-- > 1;) {
        if (span.text[k] != '.') continue;
        span.size = k;
        break;
    }
    return span;
}

typedef struct sorting {
    const hirl_pack_source_t *source;
    part_t part;
} sorting_t;

static int compare_inputs(const void *a_p, const void *b_p, void *sorting_p) {
    const sorting_t *sorting = sorting_p;
    const int64_t a = *(const int64_t *)a_p, b = *(const int64_t *)b_p;
    const int order = hirl_span_compare(part_of(sorting->source, a, sorting->part),
                                        part_of(sorting->source, b, sorting->part));
    return order ? order : (a > b) - (a < b);
}

static hirl_status_t sort_names(names_t *names, part_t part) {
    const int64_t n = names->source->n;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &names->order[part]));
    for (int64_t i = 0; i < n; i++) names->order[part][i] = i;
    sorting_t sorting = {names->source, part};
    qsort_r(names->order[part], (size_t)n, sizeof(int64_t), compare_inputs, &sorting);
    return HIRL_OK;
}

// Inputs called so: n of them from *first on, in the order of that part.
static hirl_status_t find_part(names_t *names, part_t part, hirl_span_t wanted, int64_t *first_p,
                               int64_t *n_p) {
    if (!names->order[part]) HIRL_TRY(sort_names(names, part));
    const int64_t *order = names->order[part];
    int64_t low = 0, high = names->source->n; // the first that is not before it
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (hirl_span_compare(part_of(names->source, order[middle], part), wanted) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    int64_t n = 0;
    while (low + n < names->source->n &&
           hirl_span_compare(part_of(names->source, order[low + n], part), wanted) == 0)
        n++;
    *first_p = low;
    *n_p = n;
    return HIRL_OK;
}

// The inputs meant by a line, `inputs` until the next call: by path, else by the name of the file.
static hirl_status_t find_inputs(names_t *names, hirl_span_t wanted, bool has_stems,
                                 const int64_t **inputs_p, int64_t *n_p) {
    while (wanted.size > 1 && wanted.text[0] == '.' && wanted.text[1] == '/')
        wanted = (hirl_span_t){wanted.text + 2, wanted.size - 2};
    const int n_parts = memchr(wanted.text, '/', wanted.size) ? 1 : has_stems ? 3 : 2;
    *n_p = 0;
    for (int part = 0; part < n_parts && *n_p == 0; part++) {
        int64_t first = 0;
        HIRL_TRY(find_part(names, (part_t)part, wanted, &first, n_p));
        *inputs_p = names->order[part] + first;
    }
    return HIRL_OK;
}

// -------------------------------------------------------------------------------------- subset

// Lines that match nothing, the first of which are shown.
typedef struct misses {
    char text[1024];
    int64_t n;
} misses_t;

static void note_miss(misses_t *misses, int64_t number, hirl_span_t line) {
    if (misses->n++ >= SHOWN_MAX) return;
    const size_t at = strlen(misses->text);
    (void)hirl_text_format(misses->text + at, sizeof misses->text - at, "%sline %lld '%.*s'",
                           at ? ", " : "", (long long)number,
                           (int)(line.size < 200 ? line.size : 200), line.text);
}

static hirl_status_t mark_line(names_t *names, const hirl_lines_t *lines, hirl_span_t line,
                               bool *is_wanted, misses_t *misses) {
    const int64_t *inputs = NULL;
    int64_t n = 0, label;
    hirl_span_t path, after;
    HIRL_TRY(find_inputs(names, line, false, &inputs, &n));
    if (n == 0 && hirl_span_split_last(line, &path, &after) &&
        hirl_span_number(after, INT64_MIN, INT64_MAX, &label))
        HIRL_TRY(find_inputs(names, path, false, &inputs, &n));
    if (n == 0) note_miss(misses, lines->number, line);
    if (n > 1) {
        const hirl_span_t a = part_of(names->source, inputs[0], PART_PATH),
                          b = part_of(names->source, inputs[1], PART_PATH);
        // A list may hold the same path twice.
        HIRL_REQUIRE(hirl_span_compare(a, b) == 0, HIRL_ERR_FORMAT,
                     "%s:%lld: '%.*s' is the name of %lld inputs, '%.*s' and '%.*s' among them: "
                     "write paths",
                     lines->path, (long long)lines->number, (int)line.size, line.text, (long long)n,
                     (int)a.size, a.text, (int)b.size, b.text);
    }
    for (int64_t i = 0; i < n; i++) is_wanted[inputs[i]] = true;
    return HIRL_OK;
}

void hirl_pack_keep_wanted(hirl_pack_source_t *source, const bool *is_wanted) {
    int64_t n = 0, at = 0;
    for (int64_t i = 0; i < source->n; i++) {
        if (!is_wanted[i]) source->item[i].is_good = 0;
        if (!is_wanted[i] || source->stride > 0) continue;
        const int64_t from = source->name_offset[i], size = source->name_offset[i + 1] - from;
        memmove(source->name + at, source->name + from, (size_t)size);
        source->item[n] = source->item[i];
        const size_t n_targets = (size_t)source->n_targets;
        if (source->target)
            memmove(source->target + (size_t)n * n_targets, source->target + (size_t)i * n_targets,
                    n_targets);
        source->name_offset[n++] = at;
        at += size;
    }
    if (source->stride > 0) return;
    source->name_offset[n] = at;
    source->n = n;
}

hirl_status_t hirl_pack_apply_subset(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    if (!cfg->subset[0]) return HIRL_OK;
    hirl_lines_t lines;
    hirl_span_t line;
    names_t names = {.source = source};
    misses_t misses = {.n = 0};
    bool *is_wanted = NULL;
    int64_t n_wanted = 0;
    hirl_status_t status = hirl_lines_open(cfg->subset, &lines);
    HIRL_REQUIRE(status == HIRL_OK, status, "pack%%subset: %s", hirl_error_text_view());
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, source->n, &is_wanted), status, done);
    while (hirl_lines_next(&lines, &line))
        HIRL_TRY_GOTO(mark_line(&names, &lines, line, is_wanted, &misses), status, done);
    if (misses.n > 0) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "pack%%subset: %lld lines of %s name nothing in %s: %s%s",
                      (long long)misses.n, cfg->subset, cfg->source, misses.text,
                      misses.n > SHOWN_MAX ? ", ..." : "");
        goto done;
    }
    for (int64_t i = 0; i < source->n; i++) n_wanted += is_wanted[i];
    if (n_wanted == 0) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "pack%%subset: %s names nothing: it is empty", cfg->subset);
        goto done;
    }
    hirl_log_root(HIRL_LOG_INFO, "pack: %lld of %lld inputs are in %s", (long long)n_wanted,
                  (long long)source->n, cfg->subset);
    hirl_pack_keep_wanted(source, is_wanted);
done:
    hirl_mem_free(is_wanted);
    names_reset(&names);
    hirl_lines_close(&lines);
    return status;
}

// -------------------------------------------------------------------------------------- labels

typedef struct table {
    hirl_lines_t lines;
    int name_column, label_column;
    hirl_span_t *row; // [n, 2]: image, label
    int64_t *number;  // [n] line
    int64_t n, row_capacity, number_capacity;
    hirl_span_t *name; // [n_names] of classes, sorted; none: labels are numbers
    int64_t n_names;
} table_t;

static void table_reset(table_t *table) {
    hirl_lines_close(&table->lines);
    hirl_mem_free(table->row);
    hirl_mem_free(table->number);
    hirl_mem_free(table->name);
}

static hirl_status_t find_column(const table_t *table, const hirl_span_t *header, int n,
                                 const char *wanted, int *column_p) {
    char all[512] = "";
    for (int c = 0; c < n; c++) {
        if (hirl_span_equals(header[c], wanted)) {
            *column_p = c;
            return HIRL_OK;
        }
        const size_t at = strlen(all);
        if (at + header[c].size + 8 < sizeof all)
            HIRL_TRY(hirl_text_format(all + at, sizeof all - at, "%s'%.*s'", at ? ", " : "",
                                      (int)header[c].size, header[c].text));
    }
    return HIRL_FAIL(HIRL_ERR_DECK,
                     "pack%%label_columns: %s has no column '%s', its header names %s",
                     table->lines.path, wanted, all);
}

static hirl_status_t read_header(const hirl_pack_cfg_t *cfg, table_t *table) {
    hirl_span_t header[COLUMNS_MAX];
    int n = 0;
    HIRL_TRY(hirl_csv_next(&table->lines, header, COLUMNS_MAX, &n));
    HIRL_REQUIRE(n >= 2, HIRL_ERR_FORMAT,
                 "%s:%lld: %d columns, expected a header with two at least, separated by commas",
                 table->lines.path, (long long)table->lines.number, n);
    table->label_column = 1;
    if (cfg->n_label_columns == 0) return HIRL_OK;
    HIRL_TRY(find_column(table, header, n, cfg->label_columns[0], &table->name_column));
    return find_column(table, header, n, cfg->label_columns[1], &table->label_column);
}

static hirl_status_t read_rows(table_t *table) {
    hirl_span_t field[COLUMNS_MAX];
    const int last =
        table->name_column > table->label_column ? table->name_column : table->label_column;
    for (int n = 0;;) {
        HIRL_TRY(hirl_csv_next(&table->lines, field, COLUMNS_MAX, &n));
        if (n == 0) return HIRL_OK;
        HIRL_REQUIRE(n > last, HIRL_ERR_FORMAT, "%s:%lld: %d columns, expected %d or more",
                     table->lines.path, (long long)table->lines.number, n, last + 1);
        const hirl_span_t name = field[table->name_column], label = field[table->label_column];
        HIRL_REQUIRE(name.size > 0 && label.size > 0, HIRL_ERR_FORMAT, "%s:%lld: the %s is empty",
                     table->lines.path, (long long)table->lines.number,
                     name.size > 0 ? "label" : "image");
        HIRL_TRY(hirl_pack_grow(&table->row, &table->row_capacity, 2 * (table->n + 1),
                                sizeof *table->row));
        HIRL_TRY(hirl_pack_grow(&table->number, &table->number_capacity, table->n + 1,
                                sizeof *table->number));
        table->row[2 * table->n] = name;
        table->row[2 * table->n + 1] = label;
        table->number[table->n++] = table->lines.number;
    }
}

static int compare_spans(const void *a, const void *b) {
    return hirl_span_compare(*(const hirl_span_t *)a, *(const hirl_span_t *)b);
}

// Unless all labels are numbers they are names of classes.
static hirl_status_t collect_names(table_t *table) {
    bool is_number = true;
    int64_t value;
    for (int64_t r = 0; is_number && r < table->n; r++)
        is_number = hirl_span_number(table->row[2 * r + 1], -1, HIRL_CLASSES_MAX - 1, &value);
    if (is_number) return HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, table->n, &table->name));
    for (int64_t r = 0; r < table->n; r++) table->name[r] = table->row[2 * r + 1];
    qsort(table->name, (size_t)table->n, sizeof *table->name, compare_spans);
    int64_t n = 0;
    for (int64_t r = 0; r < table->n; r++) {
        if (n == 0 || compare_spans(&table->name[r], &table->name[n - 1]))
            table->name[n++] = table->name[r];
    }
    table->n_names = n;
    HIRL_REQUIRE(n < 1000000, HIRL_ERR_FORMAT, "%s: %lld names of classes, at most 1000000",
                 table->lines.path, (long long)n);
    return HIRL_OK;
}

static hirl_status_t make_classes(const table_t *table, hirl_class_table_t *classes) {
    hirl_class_table_reset(classes);
    if (table->n_names == 0) return HIRL_OK;
    size_t width = 1;
    for (int64_t c = 0; c < table->n_names; c++) {
        if (table->name[c].size + 1 > width) width = table->name[c].size + 1;
    }
    HIRL_REQUIRE(width <= 4096, HIRL_ERR_FORMAT,
                 "%s: the name of a class has %zu bytes, at most %d", table->lines.path, width - 1,
                 4095);
    HIRL_TRY(
        hirl_mem_calloc(HIRL_MEM_DATA, (size_t)table->n_names, width, (void **)&classes->name));
    for (int64_t c = 0; c < table->n_names; c++)
        memcpy(classes->name + (size_t)c * width, table->name[c].text, table->name[c].size);
    classes->n = (int)table->n_names;
    classes->width = (int)width;
    return HIRL_OK;
}

static int32_t label_of_row(const table_t *table, int64_t r) {
    int64_t value = -1;
    const hirl_span_t *label = &table->row[2 * r + 1];
    if (table->n_names > 0) {
        const hirl_span_t *found =
            bsearch(label, table->name, (size_t)table->n_names, sizeof *table->name, compare_spans);
        return (int32_t)(found - table->name);
    }
    (void)hirl_span_number(*label, -1, HIRL_CLASSES_MAX - 1, &value);
    return (int32_t)value;
}

static hirl_status_t label_inputs(const table_t *table, const hirl_pack_cfg_t *cfg,
                                  hirl_pack_source_t *source) {
    names_t names = {.source = source};
    int64_t *row = NULL, n_idle = 0, n_without = 0, first_without = -1;
    hirl_status_t status;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, source->n, &row), status, done);
    for (int64_t i = 0; i < source->n; i++) {
        source->item[i].label = -1;
        row[i] = -1;
    }
    for (int64_t r = 0; r < table->n; r++) {
        const int64_t *inputs = NULL;
        int64_t n = 0;
        HIRL_TRY_GOTO(find_inputs(&names, table->row[2 * r], true, &inputs, &n), status, done);
        n_idle += n == 0;
        const int32_t label = label_of_row(table, r);
        for (int64_t k = 0; k < n; k++) {
            const int64_t i = inputs[k];
            if (row[i] >= 0 && source->item[i].label != label) {
                status =
                    HIRL_FAIL(HIRL_ERR_FORMAT, "%s:%lld: '%.*s' has another label in line %lld",
                              cfg->labels, (long long)table->number[r], (int)table->row[2 * r].size,
                              table->row[2 * r].text, (long long)table->number[row[i]]);
                goto done;
            }
            row[i] = r;
            source->item[i].label = label;
        }
    }
    for (int64_t i = 0; i < source->n; i++) {
        if (row[i] < 0 && n_without++ == 0) first_without = i;
    }
    if (n_without == source->n) {
        status = HIRL_FAIL(HIRL_ERR_FORMAT,
                           "pack%%labels: no row of %s names an image of %s; line %lld names "
                           "'%.*s', an image is called '%.*s'",
                           cfg->labels, cfg->source, (long long)table->number[0],
                           (int)table->row[0].size, table->row[0].text,
                           (int)(source->name_offset[1] - source->name_offset[0]), source->name);
        goto done;
    }
    if (n_without || n_idle) {
        const int64_t at = n_without ? source->name_offset[first_without] : 0;
        hirl_log_root(HIRL_LOG_WARN,
                      "pack: %lld of %lld images have no row in %s and no label%s%.*s; %lld of its "
                      "%lld rows name no image",
                      (long long)n_without, (long long)source->n, cfg->labels,
                      n_without ? ", the first is " : "",
                      n_without ? (int)(source->name_offset[first_without + 1] - at) : 0,
                      source->name + at, (long long)n_idle, (long long)table->n);
    }
done:
    hirl_mem_free(row);
    names_reset(&names);
    return status;
}

hirl_status_t hirl_pack_apply_labels(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    if (!cfg->labels[0]) return HIRL_OK;
    table_t table = {0};
    hirl_status_t status = hirl_lines_open(cfg->labels, &table.lines);
    HIRL_REQUIRE(status == HIRL_OK, status, "pack%%labels: %s", hirl_error_text_view());
    HIRL_TRY_GOTO(read_header(cfg, &table), status, done);
    HIRL_TRY_GOTO(read_rows(&table), status, done);
    if (table.n == 0) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT, "pack%%labels: %s has a header and no rows", cfg->labels);
        goto done;
    }
    HIRL_TRY_GOTO(collect_names(&table), status, done);
    HIRL_TRY_GOTO(make_classes(&table, &source->classes), status, done);
    status = label_inputs(&table, cfg, source);
done:
    table_reset(&table);
    return status;
}
