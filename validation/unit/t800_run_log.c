// Parts of the run's log: what counts as a line, files on a disk that is full, reports of odd and long runs.
// test: timeout=120
#include "../../src/train/run_log_impl.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "test.h"

// ------------------------------------------------------------------------------------ lines

static void test_lines(void) {
    static const struct {
        const char *text;
        bool is_line;
        metrics_kind_t kind;
    } cases[] = {
        {"{\"step\": 3, \"loss\": 1.5}\n", true, METRICS_STEPS},
        {"{\"step\": 3, \"loss\": null}\n", true, METRICS_STEPS},
        {"{\"step\":3,\"epoch\":1,\"knn_top1_k5\":7e1}", true, METRICS_KNN},
        {" { \"step\" : 0 , \"restart\" : true , \"who\" : \"a \\\" b\" } \r\n", true,
         METRICS_RESTART},
        {"{\"step\": 4, \"open_steps\": 2, \"open_loss\": 3}\n", true, METRICS_OPEN},
        {"{\"step\": 9007199254740991, \"x\": -1.5e-3, \"y\": false}\n", true, METRICS_OTHER},
        {"", false, 0},
        {"\n", false, 0},
        {"{}\n", false, 0},
        {"{\"loss\": 1}\n", false, 0},
        {"{\"step\": 3", false, 0},
        {"{\"step\": 3, \"loss\": 1.5", false, 0},
        {"{\"step\": 3, \"loss\": }\n", false, 0},
        {"{\"step\": 3 \"loss\": 1}\n", false, 0},
        {"{\"step\": 3} {\"step\": 4}\n", false, 0},
        {"{\"step\": 3, \"list\": [1, 2]}\n", false, 0},
        {"{\"step\": 3, \"in\": {\"x\": 1}}\n", false, 0},
        {"{\"step\": 3, \"open\": \"text}\n", false, 0},
        {"{\"step\": -1, \"loss\": 1}\n", false, 0},
        {"{\"step\": 1e300, \"loss\": 1}\n", false, 0},
        {"{\"step\": null, \"loss\": 1}\n", false, 0},
        {"{\"step\": nan, \"loss\": 1}\n", false, 0},
        {"{\"step\": true, \"loss\": 1}\n", false, 0},
        {"[3]\n", false, 0},
    };
    static metrics_line_t line;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        const bool is_line = metrics_parse(cases[i].text, &line);
        CHECK_MSG(is_line == cases[i].is_line, "%s is %s line", cases[i].text,
                  is_line ? "a" : "no");
        if (is_line)
            CHECK_MSG(line.kind == cases[i].kind, "%s is of kind %d", cases[i].text, line.kind);
    }
    NEED(metrics_parse("{\"step\": 12, \"a\": -2.5, \"b\": null, \"c\": true}", &line));
    CHECK_EQ_I(line.step, 12);
    CHECK_EQ_I(line.n, 4);
    CHECK(metrics_number(&line, "a", 7) == -2.5);
    CHECK(isnan(metrics_number(&line, "b", 7)) && metrics_number(&line, "c", 7) == 7);
    CHECK(metrics_has(&line, "c") && !metrics_has(&line, "d"));
}

static void test_many_pairs(void) {
    static metrics_line_t line;
    hirl_text_t text = {0};
    NEED_OK(hirl_text_append(&text, "{\"step\": 1"));
    for (int i = 0; i < 2 * METRICS_PAIRS_MAX; ++i)
        NEED_OK(hirl_text_append(&text, ", \"%*d\": %d", i == 5 ? 2 * METRICS_NAME_MAX : 1, i, i));
    NEED_OK(hirl_text_append(&text, "}"));
    CHECK(metrics_parse(text.data, &line));
    CHECK_EQ_I(line.n, METRICS_PAIRS_MAX);
    CHECK(metrics_number(&line, "4", -1) == 4 && !metrics_has(&line, "5"));
    CHECK(metrics_number(&line, "6", -1) == 6);
    hirl_text_reset(&text);
}

// ------------------------------------------------------------------------------------ a full disk

// As a disk with room for that many bytes a file.
static void limit_files(rlim_t n_bytes) {
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = n_bytes < limit.rlim_max ? n_bytes : limit.rlim_max;
    NEED(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static int64_t size_of(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 ? (int64_t)found.st_size : -1;
}

static void test_full(void) {
    const char *path = test_path("grows");
    append_t file = {0};
    char record[100];
    NEED_OK(append_open(path, false, &file));
    for (int i = 0; i < 10; ++i) {
        memset(record, 'a' + i, sizeof record);
        if (i == 4) limit_files(450); // half of the fifth record fits
        if (i == 7) limit_files(RLIM_INFINITY);
        append_record(&file, record, sizeof record);
        // Whole records always, and all of them as soon as there is room.
        CHECK_EQ_I(size_of(path), i < 4 || i >= 7 ? 100 * (i + 1) : 400);
    }
    append_sync(&file);
    append_close(&file);
    append_record(&file, record, sizeof record);
    CHECK_EQ_I(size_of(path), 1000);
    FILE *read = fopen(path, "r");
    NEED(read != NULL);
    bool is_right = true;
    for (int i = 0; i < 1000; ++i) is_right = is_right && fgetc(read) == 'a' + i / 100;
    CHECK(is_right);
    fclose(read);

    NEED_OK(append_open(path, false, &file));
    CHECK_EQ_I(file.size, 1000);
    limit_files(1050);
    append_record(&file, record, sizeof record);
    append_close(&file); // with a warning
    CHECK_EQ_I(size_of(path), 1000);
    limit_files(RLIM_INFINITY);
    NEED_OK(append_open(path, true, &file));
    append_close(&file);
    CHECK_EQ_I(size_of(path), 0);
    CHECK_FAILS(append_open(test_path("none/grows"), false, &file), HIRL_ERR_IO, "none/grows");
}

// ------------------------------------------------------------------------------------ reports

static const report_info_t info = {.output = "<script>alert(1)</script>",
                                   .method = "a \"quoted\" & <i>",
                                   .hierarchy = "none",
                                   .device = "cpu",
                                   .precision = "f32",
                                   .deck_short = "</pre><script>alert(2)</script>",
                                   .deck_full = "",
                                   .n_ranks = 3,
                                   .batch = 64,
                                   .n_steps = 100,
                                   .epochs = 2};

// The report of these lines; the caller frees it.
static char *report_of(const char *lines) {
    const char *metrics = test_path("metrics.jsonl"), *path = test_path("report.html");
    char *page = NULL;
    NEED_OK(hirl_path_write_whole(metrics, lines, strlen(lines)));
    NEED_OK(report_write(metrics, path, &info));
    FILE *file = fopen(path, "r");
    NEED(file != NULL);
    const size_t n = (size_t)size_of(path);
    NEED((page = malloc(n + 1)) != NULL);
    CHECK(fread(page, 1, n, file) == n);
    page[n] = '\0';
    fclose(file);
    CHECK(n > 8 && strcmp(page + n - 8, "</html>\n") == 0);
    CHECK(!strstr(page, "alert(1)</script>") && !strstr(page, "alert(2)</script>"));
    CHECK_HAS(page, "&lt;script&gt;alert(2)");
    CHECK_HAS(page, "a &quot;quoted&quot; &amp; &lt;i&gt;");
    return page;
}

// No coordinate is NaN or infinite: those words follow a blank, a quote or a comma.
static bool has_odd_numbers(const char *page) {
    static const char *const odd[] = {" nan", "\"nan", ",nan", "-nan",
                                      " inf", "\"inf", ",inf", "-inf"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; ++i)
        if (strstr(page, odd[i])) return true;
    return false;
}

static void test_odd_reports(void) {
    static const char *const cases[] = {
        "",
        "no line\n",
        "{\"step\": 1, \"epoch\": 0.1, \"loss\": null, \"lr\": null, \"t_step\": null}\n",
        "{\"step\": 0, \"epoch\": 0, \"loss\": 0, \"lr\": 0, \"t_step\": 0, \"t_data\": 0}\n",
        "{\"step\": 5, \"loss\": 1e308, \"grad_norm\": 1e-308}\n"
        "{\"step\": 6, \"loss\": -1e308, \"grad_norm\": 1e308}\n",
        "{\"step\": 5, \"loss\": 1e999, \"lr\": -1e999, \"time\": 1e999, \"epoch\": 1e999}\n",
        "{\"step\": 5, \"loss\": 5e-324, \"time\": 1e300, \"epoch\": 5e-324, \"t_step\": 1e300}\n",
        "{\"step\": 5, \"loss\": 1, \"<script>alert(1)</script>\": 3}\n",
        "{\"step\": 5, \"knn_top1_k20\": 50, \"knn_top1_k\\\"\": 4, \"knn_top1_k<b>\": 3}\n",
        "{\"step\": 5, \"restart\": true, \"ranks\": 1e300}\n{\"step\": 2, \"restart\": true}\n",
        "{\"step\": 9007199254740991, \"loss\": 3, \"epoch\": 1e-9}\n{\"step\": 1, \"loss\": 2}\n",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        char *page = report_of(cases[i]);
        CHECK_MSG(!has_odd_numbers(page), "case %zu: NaN or infinity in the page", i);
        CHECK_MSG(i > 1 || strstr(page, "Nothing is logged yet"), "case %zu: nothing is logged", i);
        if (i == 7) CHECK_HAS(page, "&lt;script&gt;alert(1)&lt;/script&gt;");
        free(page);
    }
    CHECK_FAILS(report_write(test_path("absent"), test_path("report.html"), &info), HIRL_ERR_IO,
                "absent");
}

static void test_many_columns(void) {
    hirl_text_t text = {0};
    for (int i = 0; i < 300; ++i)
        NEED_OK(
            hirl_text_append(&text, "{\"step\": %d, \"loss\": 1, \"metric_%d\": %d}\n", i, i, i));
    for (int i = 0; i < 6000; ++i)
        NEED_OK(hirl_text_append(&text, "{\"step\": %d, \"restart\": true}\n", 300 + i));
    char *page = report_of(text.data);
    CHECK_HAS(page, "metric_40");
    CHECK_HAS(page, "<dd>6000</dd>");
    CHECK(strlen(page) < 8u << 20);
    free(page);
    hirl_text_reset(&text);
}

// A run of 20000 lines: few points, each the mean of its lines, with their range behind it.
static void test_long(void) {
    enum { N = 20000 };
    hirl_text_t text = {0};
    for (int i = 1; i <= N; ++i) // 0, 2, 4, 6 in turn around a mean of 3
        NEED_OK(hirl_text_append(&text, "{\"step\": %d, \"epoch\": %g, \"loss\": %d}\n", i,
                                 i / 100.0, 2 * (i % 4)));
    const clock_t begin = clock();
    char *page = report_of(text.data);
    // 6 us a line seen; for one with a sanitizer fifty times that.
    CHECK((double)(clock() - begin) / CLOCKS_PER_SEC < 6.0);
    CHECK(strlen(page) < 1u << 20);
    CHECK_HAS(page, "class=\"band\"");
    const char *at = strstr(page, "<polyline points=\"");
    NEED(at != NULL);
    at += strlen("<polyline points=\"");
    int n_points = 0, n_apart = 0;
    double x, y, before = 0;
    for (int n; sscanf(at, "%lf,%lf %n", &x, &y, &n) == 2; at += n, ++n_points) {
        CHECK_MSG(x > before, "point %d: x = %g after %g", n_points, x, before);
        before = x;
        // All means are 3: the axis is around that, and the line in the middle of its 228 pixels from 12 on.
        if (fabs(y - (12 + 228 / 2.0)) > 0.01) ++n_apart;
    }
    CHECK_EQ_I(n_apart, 0);
    CHECK(n_points >= 800 && n_points <= 1600);
    CHECK(before <= 628.0 && before > 627.0);
    free(page);
    hirl_text_reset(&text);
}

TEST_MAIN {
    RUN(test_lines);
    RUN(test_many_pairs);
    RUN(test_full);
    RUN(test_odd_reports);
    RUN(test_many_columns);
    RUN(test_long);
}
