// report.html: a page that needs nothing but itself. Charts are drawn here as SVG, so that they are there without scripts too; the script only adds values
// under the pointer and switches lines. Long runs are averaged into at most N_ROWS places of the x axis, with the range of what was averaged behind the line.

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "run_log_impl.h"

enum { N_ROWS = 1600, N_COLUMNS = 64, N_RESTARTS = 4096, N_COLORS = 8 };

// ------------------------------------------------------------------------------------ tables

typedef struct cell {
    double sum, low, high;
    int64_t n; // numbers that are finite
} cell_t;

// Values by step; neighbouring rows are merged when there is no room for more.
typedef struct table {
    int n_columns, n_rows;
    int64_t n_lines_per_row;
    char name[N_COLUMNS][METRICS_NAME_MAX];
    double last[N_COLUMNS], best[N_COLUMNS];
    int64_t best_step[N_COLUMNS];
    struct row {
        double step_sum;
        int64_t n_lines;
        cell_t cell[N_COLUMNS];
    } row[N_ROWS];
} table_t;

typedef struct run {
    table_t steps, knn;
    int n_restarts, n_marks;
    struct mark {
        int64_t step;
        double time, ranks;
    } mark[N_RESTARTS];
    int64_t last_step;
    double steps_per_epoch; // 0: unknown
    double first_time, last_time;
    double step_seconds, skipped;
    metrics_line_t line;
    char text[METRICS_LINE_MAX];
} run_t;

static int find_column(const table_t *table, const char *name) {
    for (int i = 0; i < table->n_columns; ++i)
        if (strcmp(table->name[i], name) == 0) return i;
    return -1;
}

static int find_or_add_column(table_t *table, const char *name) {
    int i = find_column(table, name);
    if (i >= 0 || table->n_columns == N_COLUMNS) return i;
    i = table->n_columns++;
    strcpy(table->name[i], name);
    table->last[i] = table->best[i] = NAN;
    return i;
}

static void merge_cell(cell_t *into, const cell_t *from) {
    if (from->n == 0) return;
    into->low = into->n ? fmin(into->low, from->low) : from->low;
    into->high = into->n ? fmax(into->high, from->high) : from->high;
    into->sum += from->sum;
    into->n += from->n;
}

static void halve(table_t *table) {
    for (int i = 0; i < N_ROWS / 2; ++i) {
        struct row *a = &table->row[2 * i], *b = a + 1;
        for (int j = 0; j < table->n_columns; ++j) merge_cell(&a->cell[j], &b->cell[j]);
        a->step_sum += b->step_sum;
        a->n_lines += b->n_lines;
        if (i > 0) table->row[i] = *a;
    }
    memset(&table->row[N_ROWS / 2], 0, (N_ROWS - N_ROWS / 2) * sizeof *table->row);
    table->n_rows = N_ROWS / 2;
    table->n_lines_per_row *= 2;
}

static void add_line(table_t *table, const metrics_line_t *line) {
    static const char *const no_value[] = {"step",          "time",          "samples_seen",
                                           "partial_steps", "skipped_steps", "epoch"};
    if (table->n_lines_per_row == 0) table->n_lines_per_row = 1;
    bool is_full =
        table->n_rows > 0 && table->row[table->n_rows - 1].n_lines >= table->n_lines_per_row;
    if (is_full && table->n_rows == N_ROWS) halve(table);
    if (is_full || table->n_rows == 0) ++table->n_rows;
    struct row *row = &table->row[table->n_rows - 1];
    row->step_sum += (double)line->step;
    ++row->n_lines;
    for (int i = 0; i < line->n; ++i) {
        const metrics_pair_t *pair = &line->pair[i];
        bool is_value = pair->is_number;
        for (size_t j = 0; j < sizeof no_value / sizeof *no_value; ++j)
            is_value = is_value && strcmp(pair->name, no_value[j]) != 0;
        int column = is_value ? find_or_add_column(table, pair->name) : -1;
        if (column < 0) continue;
        table->last[column] = pair->value;
        if (!isfinite(pair->value)) continue;
        cell_t cell = {pair->value, pair->value, pair->value, 1};
        merge_cell(&row->cell[column], &cell);
        if (!(table->best[column] >= pair->value)) {
            table->best[column] = pair->value;
            table->best_step[column] = line->step;
        }
    }
}

static void note_restart(run_t *run, const metrics_line_t *line) {
    ++run->n_restarts;
    if (run->n_marks == N_RESTARTS) return;
    run->mark[run->n_marks++] = (struct mark){.step = line->step,
                                              .time = metrics_number(line, "time", NAN),
                                              .ranks = metrics_number(line, "ranks", NAN)};
}

static void add(run_t *run, const metrics_line_t *line, int64_t *last_interval) {
    double epoch = metrics_number(line, "epoch", NAN), time = metrics_number(line, "time", NAN);
    if (epoch > 1e-9 && epoch < 1e9) run->steps_per_epoch = (double)line->step / epoch;
    if (isfinite(time) && !isfinite(run->first_time)) run->first_time = time;
    if (isfinite(time)) run->last_time = time;
    if (line->step > run->last_step) run->last_step = line->step;
    if (line->kind == METRICS_RESTART) note_restart(run, line);
    if (line->kind == METRICS_KNN) add_line(&run->knn, line);
    if (line->kind != METRICS_STEPS) return;
    add_line(&run->steps, line);
    double seconds = metrics_number(line, "t_step", 0) * (double)(line->step - *last_interval);
    if (seconds > 0 && isfinite(seconds)) run->step_seconds += seconds;
    double skipped = metrics_number(line, "skipped_steps", 0);
    if (skipped > 0 && isfinite(skipped)) run->skipped += skipped;
    *last_interval = line->step;
}

static hirl_status_t read_run(run_t *run, const char *path) {
    int64_t last_interval = 0;
    run->first_time = run->last_time = NAN;
    FILE *file = fopen(path, "r");
    HIRL_REQUIRE(file, HIRL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    while (metrics_read(file, run->text))
        if (metrics_parse(run->text, &run->line)) add(run, &run->line, &last_interval);
    fclose(file);
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ page

// Text under construction; after a failure nothing more is added.
typedef struct page {
    hirl_text_t text;
    hirl_status_t status;
} page_t;

static void put_text(page_t *page, const char *text) {
    if (page->status == HIRL_OK) page->status = hirl_text_append(&page->text, "%s", text);
}

HIRL_PRINTF_LIKE(2, 3) static void put(page_t *page, const char *fmt, ...) {
    char piece[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof piece)
        page->status = HIRL_FAIL(HIRL_ERR_INTERNAL, "a piece of %d bytes is too long", n);
    put_text(page, piece);
}

// A text of anyone's, as text.
static void put_escaped(page_t *page, const char *text) {
    if (page->status == HIRL_OK) page->status = hirl_text_append_html(&page->text, text);
}

static void put_number(page_t *page, double value, int digits) {
    if (!isfinite(value))
        put_text(page, "&ndash;");
    else if (fabs(value) >= 1e4 && fabs(value) < 1e15)
        put(page, "%.0f", value);
    else
        put(page, "%.*g", digits, value);
}

static void put_time(page_t *page, double seconds) {
    char text[64];
    struct tm parts;
    time_t whole = isfinite(seconds) && fabs(seconds) < 1e11 ? (time_t)seconds : -1;
    if (whole < 0 || !gmtime_r(&whole, &parts) ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
        put_text(page, "&ndash;");
    else
        put_text(page, text);
}

// ------------------------------------------------------------------------------------ axes

enum { WIDTH = 640, HEIGHT = 280, LEFT = 58, RIGHT = 12, TOP = 12, BOTTOM = 40, MAX_TICKS = 12 };

typedef struct axis {
    double low, high; // exponents of ten if is_log
    bool is_log;
    int n_ticks, digits; // digits after the point
    double tick[MAX_TICKS];
} axis_t;

static double position(const axis_t *axis, double value) {
    double at = axis->is_log ? log10(fmax(value, 1e-300)) : value;
    return (at - axis->low) / (axis->high - axis->low);
}

// Ticks at 1, 2 or 5 times a power of ten; the axis ends at the data or at ticks.
static axis_t linear_axis(double low, double high, int n_wanted, bool ends_at_ticks) {
    bool is_empty = !(low <= high);
    low = is_empty ? 0 : fmin(fmax(low, -1e300), 1e300);
    high = is_empty ? 1 : fmin(fmax(high, -1e300), 1e300);
    axis_t axis = {.low = low, .high = high};
    double size = fmax(fabs(low), fabs(high));
    if (!(high - low > fmax(1e-9 * size, 1e-290))) {
        double margin = size > 1e-280 ? 0.1 * size : 1;
        axis.low -= margin;
        axis.high += margin;
    }
    double rough = (axis.high - axis.low) / n_wanted, power = pow(10, floor(log10(rough)));
    double step = rough <= power       ? power
                  : rough <= 2 * power ? 2 * power
                  : rough <= 5 * power ? 5 * power
                                       : 10 * power;
    double first = ceil(axis.low / step - 1e-9), last = floor(axis.high / step + 1e-9);
    if (ends_at_ticks) {
        first = floor(axis.low / step + 1e-9);
        last = ceil(axis.high / step - 1e-9);
        axis.low = first * step;
        axis.high = last * step;
    }
    for (double i = first; i <= last && axis.n_ticks < MAX_TICKS; ++i)
        axis.tick[axis.n_ticks++] = i * step;
    double decimals = -floor(log10(step) + 1e-9);
    axis.digits = decimals > 0 ? (int)decimals : 0;
    return axis;
}

static axis_t log_axis(double low, double high) {
    axis_t axis = {
        .is_log = true, .low = floor(log10(low) + 1e-9), .high = ceil(log10(high) - 1e-9)};
    if (axis.high <= axis.low) axis.high = axis.low + 1;
    int n = (int)(axis.high - axis.low), stride = n / 8 + 1;
    for (int i = 0; i <= n && axis.n_ticks < MAX_TICKS; i += stride)
        axis.tick[axis.n_ticks++] = pow(10, axis.low + i);
    return axis;
}

// ------------------------------------------------------------------------------------ charts

typedef enum chart_kind { CHART_LINES, CHART_POINTS, CHART_STACK } chart_kind_t;

typedef struct chart {
    const char *id, *title;
    const table_t *table;
    chart_kind_t kind;
    bool from_zero, may_be_log;
    double high; // of the y axis, 0: that of the data
    int n;
    int column[N_COLUMNS];
    char label[N_COLUMNS][METRICS_NAME_MAX];
    axis_t x, y;
} chart_t;

static double row_x(const run_t *run, const struct row *row) {
    double step = row->step_sum / (double)row->n_lines;
    return run->steps_per_epoch > 0 ? step / run->steps_per_epoch : step;
}

static double px(const chart_t *chart, double x) {
    return LEFT + (WIDTH - LEFT - RIGHT) * position(&chart->x, x);
}

// Kept within reach of the plot, which clips: far outside values make no huge coordinates.
static double py(const chart_t *chart, double y) {
    double at = fmin(fmax(position(&chart->y, y), -1), 2);
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - at);
}

static double mean_of(const struct row *row, int column) {
    return row->cell[column].n ? row->cell[column].sum / (double)row->cell[column].n : NAN;
}

static void fit_axes(chart_t *chart, const run_t *run) {
    double low = INFINITY, high = -INFINITY, end = (double)run->last_step;
    if (run->steps_per_epoch > 0) end /= run->steps_per_epoch;
    chart->x = linear_axis(0, end, 7, false);
    for (int i = 0; i < chart->table->n_rows; ++i) {
        for (int j = 0; j < chart->n; ++j) {
            double y = mean_of(&chart->table->row[i], chart->column[j]);
            if (!isfinite(y)) continue;
            low = fmin(low, y);
            high = fmax(high, y);
        }
    }
    bool is_log = chart->may_be_log && low > 1e-30 && high / low > 50 && high < 1e30;
    if (chart->from_zero && !is_log) low = fmin(low, 0);
    if (chart->high > 0) high = chart->high;
    chart->y = is_log ? log_axis(low, high) : linear_axis(low, high, 5, true);
}

static void put_tick(page_t *page, const axis_t *axis, double value) {
    double size = fmax(fabs(axis->low), fabs(axis->high));
    if (axis->is_log || size >= 1e6 || axis->digits > 6)
        put(page, "%.3g", value);
    else
        put(page, "%.*f", axis->digits, fabs(value) < 1e-12 * size ? 0 : value);
}

static void put_axes(page_t *page, const chart_t *chart, const run_t *run) {
    double bottom = HEIGHT - BOTTOM;
    put_text(page, "<g class=\"axis\">");
    for (int i = 0; i < chart->y.n_ticks; ++i) {
        double y = py(chart, chart->y.tick[i]);
        put(page, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">",
            LEFT, y, WIDTH - RIGHT, LEFT - 6, y + 4);
        put_tick(page, &chart->y, chart->y.tick[i]);
        put_text(page, "</text>");
    }
    for (int i = 0; i < chart->x.n_ticks; ++i) {
        double x = px(chart, chart->x.tick[i]);
        put(page,
            "<path class=\"tick\" d=\"M%.1f %.1fv5\"/><text class=\"x\" x=\"%.1f\" y=\"%.1f\">", x,
            bottom, x, bottom + 17);
        put_tick(page, &chart->x, chart->x.tick[i]);
        put_text(page, "</text>");
    }
    put(page,
        "<path class=\"tick\" d=\"M%d %.1fH%d\"/><text class=\"x\" x=\"%d\" y=\"%d\">%s</text>",
        LEFT, bottom, WIDTH - RIGHT, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5,
        run->steps_per_epoch > 0 ? "epoch" : "step");
    put_text(page, "</g>");
}

static void put_restarts(page_t *page, const chart_t *chart, const run_t *run) {
    double before = -1;
    if (run->n_marks == 0) return;
    put_text(page, "<path class=\"restart\" d=\"");
    for (int i = 0; i < run->n_marks; ++i) {
        double step = (double)run->mark[i].step;
        double x = px(chart, run->steps_per_epoch > 0 ? step / run->steps_per_epoch : step);
        if (fabs(x - before) < 0.5) continue;
        put(page, "M%.1f %dV%d", x, TOP, HEIGHT - BOTTOM);
        before = x;
    }
    put_text(page, "\"/>");
}

static void put_point(page_t *page, double x, double y) { put(page, "%.2f,%.2f ", x, y); }

// The range of what one place stands for.
static void put_band(page_t *page, const chart_t *chart, const run_t *run, int column) {
    const table_t *table = chart->table;
    if (table->n_lines_per_row < 2) return;
    for (int i = 0; i < table->n_rows;) {
        int end = i;
        while (end < table->n_rows && table->row[end].cell[column].n) ++end;
        if (end > i + 1) {
            put_text(page, "<polygon class=\"band\" points=\"");
            for (int j = i; j < end; ++j)
                put_point(page, px(chart, row_x(run, &table->row[j])),
                          py(chart, table->row[j].cell[column].high));
            for (int j = end - 1; j >= i; --j)
                put_point(page, px(chart, row_x(run, &table->row[j])),
                          py(chart, table->row[j].cell[column].low));
            put_text(page, "\"/>");
        }
        i = end + 1;
    }
}

// One polyline for each stretch without a gap.
static void put_lines(page_t *page, const chart_t *chart, const run_t *run, int column) {
    const table_t *table = chart->table;
    bool is_open = false;
    for (int i = 0; i < table->n_rows; ++i) {
        double y = mean_of(&table->row[i], column);
        if (isfinite(y) && !is_open) put_text(page, "<polyline points=\"");
        if (!isfinite(y) && is_open) put_text(page, "\"/>");
        is_open = isfinite(y);
        if (is_open) put_point(page, px(chart, row_x(run, &table->row[i])), py(chart, y));
    }
    if (is_open) put_text(page, "\"/>");
    if (chart->kind != CHART_POINTS && table->n_rows > 1) return;
    for (int i = 0; i < table->n_rows; ++i) {
        double y = mean_of(&table->row[i], column);
        if (isfinite(y))
            put(page, "<circle cx=\"%.2f\" cy=\"%.2f\" r=\"%g\"/>",
                px(chart, row_x(run, &table->row[i])), py(chart, y),
                table->n_rows > 60 ? 1.5 : 3.0);
    }
}

static double share_below(const chart_t *chart, const struct row *row, int n) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += fmax(mean_of(row, chart->column[i]), 0);
    return sum;
}

// Layer `i` of a stack of shares of t_step; what is left to the whole is the last one's.
static void put_layer(page_t *page, const chart_t *chart, const run_t *run, int i) {
    const table_t *table = chart->table;
    int whole = find_column(table, "t_step");
    for (int pass = 0; pass < 2; ++pass) {
        put_text(page, pass == 0 ? "<polygon points=\"" : "<polyline points=\"");
        for (int j = 0; j < (pass == 0 ? 2 : 1) * table->n_rows; ++j) {
            bool is_back = j >= table->n_rows;
            const struct row *row = &table->row[is_back ? 2 * table->n_rows - 1 - j : j];
            double all = whole >= 0 ? mean_of(row, whole) : NAN;
            double share = share_below(chart, row, is_back ? i : i + 1) / all;
            share = all > 0 && isfinite(share) ? fmin(share, 1) : 0;
            put_point(page, px(chart, row_x(run, row)), py(chart, 100 * share));
        }
        put_text(page, "\"/>");
    }
}

static void put_legend(page_t *page, const chart_t *chart) {
    if (chart->n == 1 && chart->kind == CHART_LINES) return; // the title says it
    put_text(page, "<p class=\"legend\">");
    for (int i = 0; i < chart->n; ++i) {
        put(page, "<button type=\"button\" class=\"c%d\" data-series=\"%d\">", i % N_COLORS, i);
        put_escaped(page, chart->label[i]);
        put_text(page, "</button>");
    }
    put_text(page, "</p>");
}

static void put_chart(page_t *page, chart_t *chart, const run_t *run) {
    if (chart->n == 0 || chart->table->n_rows == 0) return;
    fit_axes(chart, run);
    put_text(page, "<figure class=\"chart\" id=\"chart-");
    put_escaped(page, chart->id);
    put_text(page, "\"><figcaption>");
    put_escaped(page, chart->title);
    put(page, "</figcaption><svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    put_escaped(page, chart->title);
    put(page,
        "\" data-x=\"%.17g %.17g\" data-y=\"%.17g %.17g\" data-log=\"%d\" data-stack=\"%d\" "
        "data-epoch=\"%.17g\"><clipPath id=\"clip-",
        chart->x.low, chart->x.high, chart->y.low, chart->y.high, chart->y.is_log,
        chart->kind == CHART_STACK, run->steps_per_epoch);
    put_escaped(page, chart->id);
    put(page, "\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>", LEFT - 4,
        TOP - 4, WIDTH - LEFT - RIGHT + 8, HEIGHT - TOP - BOTTOM + 8);
    put_axes(page, chart, run);
    put_text(page, "<g clip-path=\"url(#clip-");
    put_escaped(page, chart->id);
    put_text(page, ")\">");
    for (int i = 0; i < chart->n; ++i) {
        put(page, "<g class=\"series c%d%s%s\" data-name=\"", i % N_COLORS,
            chart->kind == CHART_STACK ? " layer" : "", i >= N_COLORS ? " dashed" : "");
        put_escaped(page, chart->label[i]);
        put_text(page, "\">");
        if (chart->kind == CHART_STACK) {
            put_layer(page, chart, run, i);
        } else {
            put_band(page, chart, run, chart->column[i]);
            put_lines(page, chart, run, chart->column[i]);
        }
        put_text(page, "</g>");
    }
    put_restarts(page, chart, run);
    put_text(page, "</g></svg>");
    put_legend(page, chart);
    put_text(page, "</figure>\n");
}

static void chart_add(chart_t *chart, int column, const char *label) {
    if (column < 0 || chart->n == N_COLUMNS) return;
    chart->column[chart->n] = column;
    snprintf(chart->label[chart->n++], METRICS_NAME_MAX, "%s", label);
}

static bool starts_with(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

// Terms first, so that their colours do not depend on how many there are; then the sum.
static void put_losses(page_t *page, const run_t *run) {
    const table_t *table = &run->steps;
    chart_t chart = {.id = "loss", .title = "Loss", .table = table};
    for (int i = 0; i < table->n_columns; ++i)
        if (starts_with(table->name[i], "loss_")) chart_add(&chart, i, table->name[i] + 5);
    if (chart.n != 1) chart_add(&chart, find_column(table, "loss"), "total");
    put_chart(page, &chart, run);
}

static void put_one(page_t *page, const run_t *run, const char *name, const char *id,
                    const char *title, bool from_zero, bool may_be_log) {
    chart_t chart = {.id = id,
                     .title = title,
                     .table = &run->steps,
                     .from_zero = from_zero,
                     .may_be_log = may_be_log};
    chart_add(&chart, find_column(&run->steps, name), name);
    put_chart(page, &chart, run);
}

static void put_shares(page_t *page, const run_t *run) {
    const table_t *table = &run->steps;
    chart_t chart = {.id = "time",
                     .title = "Where a step's time goes (%)",
                     .table = table,
                     .kind = CHART_STACK,
                     .from_zero = true,
                     .high = 100};
    if (find_column(table, "t_step") < 0) return;
    chart_add(&chart, find_column(table, "t_compute"), "compute");
    chart_add(&chart, find_column(table, "t_h2d"), "upload");
    chart_add(&chart, find_column(table, "t_comm"), "communication");
    chart_add(&chart, find_column(table, "t_data"), "data");
    put_chart(page, &chart, run);
}

static void put_knn(page_t *page, const run_t *run) {
    chart_t chart = {
        .id = "knn", .title = "KNN top-1 (%)", .table = &run->knn, .kind = CHART_POINTS};
    for (int i = 0; i < run->knn.n_columns; ++i) {
        char label[METRICS_NAME_MAX];
        if (!starts_with(run->knn.name[i], "knn_top1_k")) continue;
        snprintf(label, sizeof label, "k = %.48s", run->knn.name[i] + 10);
        chart_add(&chart, i, label);
    }
    put_chart(page, &chart, run);
}

// What a method measures beside its losses, a chart each.
static void put_others(page_t *page, const run_t *run) {
    static const char *const shown[] = {"lr", "loss", "images_per_s", "grad_norm", "loss_", "t_"};
    const table_t *table = &run->steps;
    for (int i = 0; i < table->n_columns; ++i) {
        const char *name = table->name[i];
        char id[METRICS_NAME_MAX + 8];
        bool is_shown = false;
        for (size_t j = 0; j < sizeof shown / sizeof *shown; ++j)
            is_shown =
                is_shown || (j < 4 ? strcmp(name, shown[j]) == 0 : starts_with(name, shown[j]));
        if (is_shown) continue;
        snprintf(id, sizeof id, "metric-%d", i);
        put_one(page, run, name, id, name, false, false);
    }
}

// ------------------------------------------------------------------------------------ tables of the page

static void put_row(page_t *page, const char *name) {
    put_text(page, "<tr><th>");
    put_escaped(page, name);
    put_text(page, "</th><td>");
}

static void put_tile(page_t *page, const char *name) {
    put_text(page, "<div><dt>");
    put_escaped(page, name);
    put_text(page, "</dt><dd>");
}

static void put_tiles(page_t *page, const run_t *run, const report_info_t *info) {
    char text[32];
    int loss = find_column(&run->steps, "loss"), rate = find_column(&run->steps, "images_per_s");
    put_text(page, "<dl class=\"tiles\">");
    put_tile(page, "step");
    put(page, "%lld<small> of %lld</small></dd></div>", (long long)run->last_step,
        (long long)info->n_steps);
    if (run->steps_per_epoch > 0) {
        put_tile(page, "epoch");
        put(page, "%.2f<small> of %g</small></dd></div>",
            (double)run->last_step / run->steps_per_epoch, info->epochs);
    }
    put_tile(page, "loss");
    put_number(page, loss >= 0 ? run->steps.last[loss] : NAN, 5);
    put_text(page, "</dd></div>");
    for (int i = 0, best = -1; i <= run->knn.n_columns; ++i) {
        bool is_end = i == run->knn.n_columns;
        if (!is_end && starts_with(run->knn.name[i], "knn_top1_k") &&
            (best < 0 || run->knn.best[i] > run->knn.best[best]))
            best = i;
        if (!is_end || best < 0) continue;
        put_tile(page, "best KNN top-1");
        put(page, "%.2f %%<small> k = %.40s</small></dd></div>", run->knn.best[best],
            run->knn.name[best] + 10);
    }
    put_tile(page, "images/s");
    put_number(page, rate >= 0 ? run->steps.last[rate] : NAN, 4);
    put_text(page, "</dd></div>");
    put_tile(page, "time in steps");
    put(page, "%s</dd></div>", hirl_text_duration(text, run->step_seconds));
    put_tile(page, "restarts");
    put(page, "%d</dd></div>", run->n_restarts);
    if (run->skipped > 0) {
        put_tile(page, "steps not finite");
        put(page, "%.0f</dd></div>", run->skipped);
    }
    put_text(page, "</dl>\n");
}

static void put_results(page_t *page, const run_t *run) {
    put_text(page,
             "<section><h2>Results</h2><table id=\"results\"><thead><tr><th></th><td>last</td>"
             "<td>best</td><td>at step</td></tr></thead><tbody>");
    for (int i = 0; i < run->knn.n_columns; ++i) {
        put_row(page, run->knn.name[i]);
        put_number(page, run->knn.last[i], 4);
        put_text(page, "</td><td>");
        put_number(page, run->knn.best[i], 4);
        put(page, "</td><td>%lld</td></tr>", (long long)run->knn.best_step[i]);
    }
    for (int i = 0; i < run->steps.n_columns; ++i) {
        if (starts_with(run->steps.name[i], "t_")) continue;
        put_row(page, run->steps.name[i]);
        put_number(page, run->steps.last[i], 5);
        put_text(page, "</td><td></td><td></td></tr>");
    }
    put_text(page, "</tbody></table></section>\n");
}

static void put_run(page_t *page, const run_t *run, const report_info_t *info) {
    put_text(page, "<section><h2>Run</h2><table id=\"run\"><tbody>");
    put_row(page, "method");
    put_escaped(page, info->method);
    put_text(page, ", hierarchy ");
    put_escaped(page, info->hierarchy);
    put_text(page, "</td></tr>");
    put_row(page, "batch");
    put(page, "%lld images on %d ranks, device ", (long long)info->batch, info->n_ranks);
    put_escaped(page, info->device);
    put_text(page, ", ");
    put_escaped(page, info->precision);
    put_text(page, "</td></tr>");
    put_row(page, "first line");
    put_time(page, run->first_time);
    put_text(page, "</td></tr>");
    put_row(page, "last line");
    put_time(page, run->last_time);
    put_text(page, "</td></tr>");
    int first = run->n_marks > 8 ? run->n_marks - 8 : 0;
    for (int i = first; i < run->n_marks; ++i) {
        put_row(page, "restart");
        put(page, "from step %lld", (long long)run->mark[i].step);
        if (isfinite(run->mark[i].ranks)) put(page, " on %.0f ranks", run->mark[i].ranks);
        put_text(page, ", ");
        put_time(page, run->mark[i].time);
        put_text(page, "</td></tr>");
    }
    if (first > 0) {
        put_row(page, "");
        put(page, "and %d restarts before</td></tr>", run->n_restarts - (run->n_marks - first));
    }
    put_text(page, "</tbody></table></section>\n");
}

static void put_build(page_t *page) {
    put_text(page, "<section><h2>Program</h2><table id=\"build\"><tbody>");
    for (const char *at = hirl_build_info_text(); *at;) {
        char line[1024];
        size_t n = strcspn(at, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), at);
        char *value = strstr(line, " = ");
        if (value) {
            *value = '\0';
            put_row(page, line);
            put_escaped(page, value + 3);
            put_text(page, "</td></tr>");
        }
        at += n + (at[n] == '\n');
    }
    put_text(page, "</tbody></table></section>\n");
}

static void put_deck(page_t *page, const char *id, const char *title, const char *deck,
                     bool is_open) {
    put(page, "<details%s><summary>%s</summary><pre id=\"%s\">", is_open ? " open" : "", title, id);
    put_escaped(page, deck);
    put_text(page, "</pre></details>\n");
}

// ------------------------------------------------------------------------------------ fixed parts

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<style>\n"
    ":root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2430; "
    "--soft: #5b6675; --line: #e1e5ea; --mark: #b4234a;\n"
    "  --c0: #2563eb; --c1: #c2620a; --c2: #08875b; --c3: #a21caf; --c4: #0e7490; --c5: #b91c1c; "
    "--c6: #6d5bd0; --c7: #5f6f12; }\n"
    "@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b2129; "
    "--ink: #e6eaf0; --soft: #9aa6b5; --line: #303945; --mark: #ff7d9c;\n"
    "  --c0: #6ea8ff; --c1: #f5a34a; --c2: #4cd3a0; --c3: #e58af0; --c4: #5fd0e6; --c5: #ff8b8b; "
    "--c6: #b1a4ff; --c7: #c3d35a; } }\n"
    "* { box-sizing: border-box; }\n"
    "body { margin: 0 auto; max-width: 1500px; padding: 24px; background: var(--page); "
    "color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }\n"
    "h1 { margin: 0; font-size: 26px; overflow-wrap: anywhere; } h2 { margin: 0 0 8px; "
    "font-size: 16px; } .sub { margin: 2px 0 18px; color: var(--soft); }\n"
    ".tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 18px; }\n"
    ".tiles div { padding: 10px 16px; } .tiles dt { color: var(--soft); font-size: 13px; }\n"
    ".tiles dd { margin: 0; font-size: 21px; font-variant-numeric: tabular-nums; }\n"
    ".tiles small { color: var(--soft); font-size: 13px; }\n"
    ".charts, .tables { display: grid; gap: 16px; margin-bottom: 16px; align-items: start; "
    "grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }\n"
    "figure, section, details, .tiles div { margin: 0; background: var(--card); "
    "border: 1px solid var(--line); border-radius: 10px; }\n"
    "figure { position: relative; padding: 12px 12px 8px; } figcaption { font-weight: 600; "
    "padding-left: 6px; } section, details { padding: 14px 18px; overflow: auto; }\n"
    "svg { display: block; width: 100%; height: auto; touch-action: pan-y; }\n"
    ".axis text { fill: var(--soft); font: 13px system-ui, sans-serif; "
    "font-variant-numeric: tabular-nums; } text.y { text-anchor: end; } "
    "text.x { text-anchor: middle; }\n"
    ".grid { stroke: var(--line); } .tick { stroke: var(--soft); fill: none; }\n"
    ".restart { stroke: var(--mark); stroke-dasharray: 4 3; fill: none; }\n"
    ".series polyline { fill: none; stroke: var(--c); stroke-width: 1.7; stroke-linejoin: round; "
    "}\n"
    ".series circle { fill: var(--c); } .band { fill: var(--c); opacity: .18; }\n"
    ".dashed polyline { stroke-dasharray: 6 3; } .layer polygon { fill: var(--c); opacity: .55; } "
    ".layer polyline { stroke-width: 1; }\n"
    ".c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } "
    ".c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); } "
    ".c6 { --c: var(--c6); } .c7 { --c: var(--c7); }\n"
    ".legend { margin: 2px 0 0; padding-left: 6px; display: flex; flex-wrap: wrap; gap: 2px 14px; "
    "}\n"
    ".legend button { all: unset; cursor: pointer; font-size: 13px; color: var(--soft); } "
    ".legend button::before { content: ''; display: inline-block; width: 12px; height: 12px; "
    "border-radius: 3px; margin-right: 6px; vertical-align: -1px; background: var(--c); }\n"
    ".legend button:focus-visible { outline: 2px solid var(--c); outline-offset: 2px; }\n"
    ".legend .off { text-decoration: line-through; opacity: .5; } .hidden { display: none; }\n"
    ".cross { stroke: var(--soft); stroke-dasharray: 2 2; }\n"
    ".tip { position: absolute; pointer-events: none; z-index: 1; padding: 6px 10px; "
    "background: var(--card); border: 1px solid var(--line); border-radius: 6px; font-size: 12px; "
    "white-space: pre; box-shadow: 0 2px 8px #0003; font-variant-numeric: tabular-nums; }\n"
    "table { border-collapse: collapse; width: 100%; font-size: 14px; } "
    "th { text-align: left; font-weight: 500; color: var(--soft); padding: 3px 14px 3px 0; "
    "white-space: nowrap; vertical-align: top; } td { padding: 3px 0; overflow-wrap: anywhere; } "
    "#results td { text-align: right; padding-left: 14px; } thead td { color: var(--soft); }\n"
    "tr + tr { border-top: 1px solid var(--line); } details { margin-bottom: 16px; } "
    "summary { cursor: pointer; font-weight: 600; } pre { overflow: auto; font-size: 13px; }\n"
    "</style>\n<title>";

// Values under the pointer are read off the drawn points; legends switch lines.
static const char script[] =
    "<script>\n'use strict';\n"
    "const LEFT = 58, RIGHT = 628, TOP = 12, BOTTOM = 240, NS = 'http://www.w3.org/2000/svg';\n"
    "function pair(text) { return text.split(' ').map(Number); }\n"
    "for (const figure of document.querySelectorAll('figure.chart')) {\n"
    "  const svg = figure.querySelector('svg'), [x0, x1] = pair(svg.dataset.x);\n"
    "  const [y0, y1] = pair(svg.dataset.y), isLog = svg.dataset.log === '1';\n"
    "  const isStack = svg.dataset.stack === '1', perEpoch = Number(svg.dataset.epoch);\n"
    "  const series = [...svg.querySelectorAll('.series')].map((group) => ({ group,\n"
    "    name: group.dataset.name,\n"
    "    points: [...group.querySelectorAll('polyline')].flatMap((line) =>\n"
    "      line.getAttribute('points').trim().split(/\\s+/).map((p) => p.split(',').map(Number))) "
    "}));\n"
    "  const cross = document.createElementNS(NS, 'line'), tip = document.createElement('div');\n"
    "  cross.setAttribute('class', 'cross hidden'); cross.setAttribute('y1', TOP);\n"
    "  cross.setAttribute('y2', BOTTOM); svg.append(cross);\n"
    "  tip.className = 'tip hidden'; figure.append(tip);\n"
    "  const toX = (px) => x0 + (px - LEFT) / (RIGHT - LEFT) * (x1 - x0);\n"
    "  const toY = (py) => { const y = y0 + (BOTTOM - py) / (BOTTOM - TOP) * (y1 - y0);\n"
    "    return isLog ? 10 ** y : y; };\n"
    "  function nearest(points, px) {\n"
    "    let a = 0, b = points.length - 1;\n"
    "    while (b - a > 1) { const m = (a + b) >> 1; if (points[m][0] < px) a = m; else b = m; }\n"
    "    return px - points[a][0] < points[b][0] - px ? points[a] : points[b];\n"
    "  }\n"
    "  function hide() { cross.classList.add('hidden'); tip.classList.add('hidden'); }\n"
    "  svg.addEventListener('pointerleave', hide);\n"
    "  svg.addEventListener('pointermove', (event) => {\n"
    "    const box = svg.getBoundingClientRect(), scale = 640 / box.width;\n"
    "    const shown = series.filter((s) => s.points.length && "
    "!s.group.classList.contains('hidden'));\n"
    "    if (!shown.length) return hide();\n"
    "    const at = nearest(shown[0].points, (event.clientX - box.left) * scale)[0];\n"
    "    const x = toX(at), lines = [perEpoch > 0\n"
    "      ? `epoch ${x.toFixed(2)}, step ${Math.round(x * perEpoch)}` : `step "
    "${Math.round(x)}`];\n"
    "    let below = 0;\n"
    "    for (const s of isStack ? series : shown) {\n"
    "      const p = nearest(s.points, at);\n"
    "      if (Math.abs(p[0] - at) > 2) continue;\n"
    "      const y = toY(p[1]);\n"
    "      lines.push(`${s.name}: ${(isStack ? Math.max(y - below, 0) : y).toPrecision(4)}`);\n"
    "      below = y;\n"
    "    }\n"
    "    cross.setAttribute('x1', at); cross.setAttribute('x2', at);\n"
    "    cross.classList.remove('hidden'); tip.classList.remove('hidden');\n"
    "    tip.textContent = lines.join('\\n');\n"
    "    const left = at / scale + box.left - figure.getBoundingClientRect().left;\n"
    "    tip.style.top = '44px';\n"
    "    tip.style.left = `${at > 340 ? left - tip.offsetWidth - 12 : left + 12}px`;\n"
    "  });\n"
    "  for (const button of figure.querySelectorAll('.legend button')) {\n"
    "    button.setAttribute('aria-pressed', 'true');\n"
    "    button.addEventListener('click', () => {\n"
    "      const isOff = button.classList.toggle('off');\n"
    "      series[button.dataset.series].group.classList.toggle('hidden', isOff);\n"
    "      button.setAttribute('aria-pressed', String(!isOff));\n"
    "    });\n"
    "  }\n"
    "}\n"
    "document.documentElement.dataset.ready = 'yes';\n"
    "</script>\n";

static void put_page(page_t *page, const run_t *run, const report_info_t *info) {
    put_text(page, head);
    put_escaped(page, info->output);
    put_text(page, "</title></head>\n<body>\n<h1>");
    put_escaped(page, info->output);
    put_text(page, "</h1>\n<p class=\"sub\">");
    put_escaped(page, info->method);
    put_text(page, ", hierarchy ");
    put_escaped(page, info->hierarchy);
    put_text(page, ". Up to ");
    put_time(page, run->last_time);
    put_text(page, run->n_restarts ? ". Dashed lines are restarts.</p>\n" : ".</p>\n");
    put_tiles(page, run, info);
    put_text(page, "<div class=\"charts\">\n");
    if (run->steps.n_rows == 0 && run->knn.n_rows == 0)
        put_text(page, "<p>Nothing is logged yet.</p>\n");
    put_losses(page, run);
    put_knn(page, run);
    put_one(page, run, "lr", "lr", "Learning rate", true, false);
    put_one(page, run, "images_per_s", "rate", "Images per second", true, false);
    put_shares(page, run);
    put_one(page, run, "grad_norm", "grad", "Gradient norm", true, true);
    put_others(page, run);
    put_text(page, "</div>\n<div class=\"tables\">\n");
    put_results(page, run);
    put_run(page, run, info);
    put_build(page);
    put_text(page, "</div>\n");
    put_deck(page, "deck-short", "Deck: what differs from the defaults", info->deck_short, true);
    put_deck(page, "deck-full", "Deck: every key", info->deck_full, false);
    put_text(page, script);
    put_text(page, "</body></html>\n");
}

hirl_status_t report_write(const char *metrics_path, const char *path, const report_info_t *info) {
    run_t *run = NULL;
    page_t page = {.status = HIRL_OK};
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &run));
    hirl_status_t status = read_run(run, metrics_path);
    if (status == HIRL_OK) {
        put_page(&page, run, info);
        status = page.status;
    }
    if (status == HIRL_OK) status = hirl_path_write_whole(path, page.text.data, page.text.size);
    hirl_text_reset(&page.text);
    hirl_mem_free(run);
    return status;
}
