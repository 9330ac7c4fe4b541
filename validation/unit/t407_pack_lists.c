// test: ranks=1,2 timeout=60 needs=python3-h5py,python3-pil,python3-numpy
// File lists with and without labels, subsets by name and by path, and labels from comma-separated
// values as Python's csv module reads them; and each of these with something wrong in it.
#include "pack_util.h"

#include "../../src/data/data_impl.h"

static hirl_world_t *world;

static void write_text(const char *path, const char *text) {
    if (test_rank() == 0) save_file(path, text, strlen(text));
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static void set(char key[HIRL_DECK_TEXT_MAX], const char *text) {
    snprintf(key, HIRL_DECK_TEXT_MAX, "%s", text);
}

// On two ranks alone: on one, this test is about what sanitizers see.
static void compare(const hirl_pack_cfg_t *cfg, const char *what) {
    const char *python = getenv("PYTHON");
    if (test_size() == 1) return;
    shell("%s validation/reference/pack/check_shards.py %s %s/%s-*.h5",
          python && *python ? python : "/usr/bin/python3", what, cfg->output, cfg->split);
}

static hirl_shard_set_t *open_set(const hirl_pack_cfg_t *cfg) {
    hirl_data_cfg_t data = data_cfg("mmap");
    data.channels = 3;
    hirl_shard_set_t *opened = NULL;
    NEED_OK(hirl_shard_set_open(world, cfg->output, &data, &opened));
    return opened;
}

static void check_labels(const hirl_pack_cfg_t *cfg, const int *label, int n) {
    hirl_shard_set_t *opened = open_set(cfg);
    CHECK_EQ_I(hirl_shard_set_n_samples(opened), n);
    for (int i = 0; i < n && i < hirl_shard_set_n_samples(opened); i++)
        CHECK_MSG(hirl_shard_set_label(opened, i) == label[i], "sample %d: label %d, want %d", i,
                  hirl_shard_set_label(opened, i), label[i]);
    hirl_shard_set_close(&opened);
}

static const char *path_of(const char *name) {
    static char path[4][2048];
    static int at;
    at = (at + 1) % 4;
    snprintf(path[at], sizeof path[at], "%s", test_path(name));
    return path[at];
}

// The keys that this and other tests set in the struct are there for users, too.
static void test_keys(void) {
    const hirl_group_t *const groups[] = {&hirl_pack_group};
    hirl_deck_t *deck = NULL;
    static const char *const assignments[] = {
        "pack%source=a",     "pack%output=b",     "pack%format=voc07",      "pack%list=c,d",
        "pack%subset=e",     "pack%labels=f",     "pack%label_columns=g,h", "pack%classes=archive",
        "pack%max_side=256", "pack%side=shorter", "pack%quality=75",        "pack%upright=.false."};
    NEED_OK(hirl_deck_create(groups, 1, &deck));
    const hirl_pack_cfg_t *cfg = hirl_deck_group_view(deck, "pack");
    CHECK(cfg->upright && cfg->quality == 90 && cfg->max_side == 0 && cfg->n_list == 0);
    CHECK_EQ_S(cfg->classes, "leaf");
    for (size_t i = 0; i < sizeof assignments / sizeof *assignments; i++)
        CHECK_OK(hirl_deck_override(deck, assignments[i]));
    CHECK(cfg->n_list == 2 && cfg->n_label_columns == 2 && cfg->max_side == 256);
    CHECK(!cfg->upright && cfg->quality == 75);
    CHECK_EQ_S(cfg->list[1], "d");
    CHECK_EQ_S(cfg->subset, "e");
    CHECK_EQ_S(cfg->labels, "f");
    CHECK_EQ_S(cfg->label_columns[0], "g");
    CHECK_EQ_S(cfg->side, "shorter");
    hirl_deck_destroy(&deck);
}

static void test_lists(void) {
    hirl_pack_cfg_t cfg = pack_cfg(IMAGES, "train", test_path("list"));
    cfg.overwrite = true;
    cfg.n_list = 1;
    set(cfg.list[0], path_of("a.txt"));
    write_text(cfg.list[0], "Banana/one.jpg 3\napple/rgb.png 0\napple/one.png 12\n");
    NEED_OK(hirl_data_pack(world, &cfg));
    char what[4096];
    snprintf(what, sizeof what, "list %s %s", IMAGES, cfg.list[0]);
    compare(&cfg, what);

    // Two lists, one without labels; blanks in a name, a leading '/', a missing file, CR LF.
    cfg.n_list = 2;
    set(cfg.list[1], path_of("b.txt"));
    set(cfg.source, path_of("images"));
    shell("cp -r " IMAGES " %s && cp " IMAGES "/apple/one.png '%s/apple/one 7.png'", cfg.source,
          cfg.source);
    write_text(cfg.list[0], "\xef\xbb\xbf/Banana/one.jpg 3\r\n\r\n./apple/one 7.png\t0\r\n"
                            "nowhere.png -1");
    write_text(cfg.list[1], "apple/one 7.png\napple/rgb.png  \n");
    NEED_OK(hirl_data_pack(world, &cfg));
    const int label[] = {3, 0, -1, -1};
    check_labels(&cfg, label, 4);
    CHECK_EQ_I(count_files(cfg.output, "skipped.txt"), 1);

    set(cfg.classes, "none");
    NEED_OK(hirl_data_pack(world, &cfg));
    const int none[] = {-1, -1, -1, -1};
    check_labels(&cfg, none, 4);
    set(cfg.classes, "leaf");

    write_text(cfg.list[0], "apple/rgb.png 0\napple/one.png\n");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "a.txt:2: 'apple/one.png', expected a path, a blank and a label of -1 to 9999999");
    write_text(cfg.list[0], "apple/rgb.png 10000000\n");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "a.txt:1: 'apple/rgb.png 10000000'");
    write_text(cfg.list[0], "");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "a.txt: empty");
    set(cfg.list[0], IMAGES "/apple/one.png");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "one.png: holds NUL bytes");
    set(cfg.list[0], path_of("none.txt"));
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "none.txt: No such file");
    set(cfg.format, "folder");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "pack%format is 'folder', expected");
    cfg.n_list = 0;
    set(cfg.format, "list");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "name the files of paths as pack%list");
}

static void test_subset(void) {
    hirl_pack_cfg_t cfg = pack_cfg(IMAGES, "train", test_path("subset"));
    cfg.overwrite = true;
    set(cfg.subset, path_of("1percent.txt"));
    // Names, paths, a path with a label; one of them twice. Labels stay those of the whole.
    write_text(cfg.subset, "sour.png\nrgb.png\nBanana/one.jpg 77\nrgb.png\n");
    NEED_OK(hirl_data_pack(world, &cfg));
    const int label[] = {0, 1, 2};
    check_labels(&cfg, label, 3);
    hirl_shard_set_t *opened = open_set(&cfg);
    CHECK_EQ_S(hirl_shard_set_class_name_view(opened, 1), "apple");
    hirl_shard_set_close(&opened);

    write_text(cfg.subset, "rgb.png\nno.png\nBanana/rgb.png\n\nx y\nz\n");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "pack%subset: 4 lines of ");
    CHECK_HAS(hirl_error_text_view(),
              "line 2 'no.png', line 3 'Banana/rgb.png', line 5 'x y', ...");
    write_text(cfg.subset, "\n");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "names nothing: it is empty");
    set(cfg.source, path_of("twice"));
    shell("mkdir -p %s/a %s/b && cp " IMAGES "/apple/one.png %s/a && cp " IMAGES
          "/apple/one.png %s/b",
          cfg.source, cfg.source, cfg.source, cfg.source);
    write_text(cfg.subset, "one.png\n");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "1percent.txt:1: 'one.png' is the name of 2 inputs, 'a/one.png' and 'b/one.png'");
    write_text(cfg.subset, "b/one.png\n");
    NEED_OK(hirl_data_pack(world, &cfg));
    const int second[] = {1};
    check_labels(&cfg, second, 1);

    // Records of a container.
    if (test_rank() == 0) {
        unsigned char bytes[4 * 3073] = {0};
        for (int i = 0; i < 4; i++) bytes[i * 3073] = (unsigned char)(7 - i);
        char path[2048];
        shell("mkdir -p %s", path_of("c10"));
        snprintf(path, sizeof path, "%s/data_batch_1.bin", path_of("c10"));
        save_file(path, bytes, sizeof bytes);
    } else {
        shell("true");
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    set(cfg.source, path_of("c10"));
    write_text(cfg.subset, "data_batch_1.bin#3\ndata_batch_1.bin#1\n");
    NEED_OK(hirl_data_pack(world, &cfg));
    const int record[] = {6, 4};
    check_labels(&cfg, record, 2);
}

static void test_labels(void) {
    hirl_pack_cfg_t cfg = pack_cfg(IMAGES, "train", test_path("labels"));
    cfg.overwrite = true;
    set(cfg.labels, path_of("labels.csv"));
    // Quotes, doubled quotes, commas and line ends in quotes, CR LF, empty lines, a byte-order mark.
    write_text(cfg.labels, "\xef\xbb\xbfsize,\"the image\",kind\r\n"
                           "1,apple/rgb.png,\"a \"\"red\"\" one, \r\nlarge\"\r\n\r\n"
                           "2,one.jpg,\"plain\"\r\n3,sour,plain\n\"4\",nowhere.png,zebra\n"
                           "5,gray.jpg,\"\xc3\xa9tat\"");
    cfg.n_label_columns = 2;
    set(cfg.label_columns[0], "the image");
    set(cfg.label_columns[1], "kind");
    NEED_OK(hirl_data_pack(world, &cfg));
    char what[4096];
    snprintf(what, sizeof what, "csv %s %s 'the image' kind", IMAGES, cfg.labels);
    compare(&cfg, what);
    hirl_shard_set_t *opened = open_set(&cfg);
    CHECK_EQ_I(hirl_shard_set_n_class_names(opened), 4);
    CHECK_EQ_I(hirl_shard_set_class_parent(opened, 0), -1);
    hirl_shard_set_close(&opened);

    // Numbers, from the first two columns.
    cfg.n_label_columns = 0;
    write_text(cfg.labels, "id,label\nrgb,3\nrgba,-1\napple/one.png,12\n");
    NEED_OK(hirl_data_pack(world, &cfg));
    snprintf(what, sizeof what, "csv %s %s id label", IMAGES, cfg.labels);
    compare(&cfg, what);

    static const struct {
        const char *text, *error;
        hirl_status_t code;
    } wrong[] = {
        {"", ":0: 0 columns, expected a header with two at least", HIRL_ERR_FORMAT},
        {"id\nrgb\n", ":1: 1 columns, expected a header", HIRL_ERR_FORMAT},
        {"id,label\n", "has a header and no rows", HIRL_ERR_FORMAT},
        {"id,label\nrgb,1\n\nrgba\n", "labels.csv:4: 1 columns, expected 2", HIRL_ERR_FORMAT},
        {"id,label\nrgb,\n", "labels.csv:2: the label is empty", HIRL_ERR_FORMAT},
        {"id,label\n\"rgb,1\nrgba,2\n", "labels.csv:2: a quote is opened and not closed",
         HIRL_ERR_FORMAT},
        {"id,label\n\"rgb\"x,1\n", "labels.csv:2: 'x' behind a quoted field", HIRL_ERR_FORMAT},
        {"id,label\nx,1\ny,2\n", "no row of", HIRL_ERR_FORMAT},
        {"id,label\nrgb,1\nrgb.png,2\n", "labels.csv:3: 'rgb.png' has another label in line 2",
         HIRL_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_text(cfg.labels, wrong[i].text);
        CHECK_FAILS(hirl_data_pack(world, &cfg), wrong[i].code, wrong[i].error);
    }
    write_text(cfg.labels, "id,label\nrgb,1\n");
    cfg.n_label_columns = 2;
    set(cfg.label_columns[0], "id");
    set(cfg.label_columns[1], "class");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "has no column 'class', its header names 'id', 'label'");
    cfg.n_label_columns = 1;
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "pack%label_columns has 1 names");
    cfg.n_label_columns = 0;
    set(cfg.classes, "none");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "choose one");
}

// Tables of random quotes, commas, line ends and letters: each is read to its end or refused, and
// every field lies in the text.
static void test_random(void) {
    static const char letters[] = "\"\",,\n\r ab1\xef\xbb\xbf";
    const char *path = path_of("random.csv");
    hirl_rng_t rng = test_rng(0);
    int n_refused = 0, n_trials = 500;
    for (int trial = 0; trial < n_trials; trial++) {
        char text[64];
        const size_t size = (size_t)hirl_rng_below(&rng, sizeof text);
        for (size_t i = 0; i < size; i++)
            text[i] = letters[hirl_rng_below(&rng, sizeof letters - 1)];
        save_file(path, text, size);
        hirl_lines_t lines;
        hirl_span_t field[8];
        NEED_OK(hirl_lines_open(path, &lines));
        hirl_status_t status;
        int n = 0, n_records = 0;
        while ((status = hirl_csv_next(&lines, field, 8, &n)) == HIRL_OK && n > 0) {
            CHECK(++n_records <= 64 && n <= 8);
            for (int f = 0; f < n; f++)
                CHECK(field[f].text >= lines.text &&
                      field[f].text + field[f].size <= lines.text + lines.size);
        }
        CHECK(status == HIRL_OK || status == HIRL_ERR_FORMAT);
        n_refused += status != HIRL_OK;
        hirl_lines_close(&lines);
    }
    CHECK_MSG(n_refused > 20 && n_refused < n_trials - 20, "%d of %d refused", n_refused, n_trials);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_keys);
    RUN(test_lists);
    RUN(test_subset);
    RUN(test_labels);
    if (test_size() == 1) RUN(test_random);
    hirl_world_destroy(&world);
}
