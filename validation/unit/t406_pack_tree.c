// test: ranks=1,2 timeout=60
// Deeper image folders as a label tree (equal leaf names in different branches stay apart), labels
// left out, and some twenty-five damaged and odd files: those that Pillow cannot read are skipped
// with a reason, of the others the pixels are Pillow's (validation/reference/pack/make_odd.py).
#include "pack_util.h"

#define ODD "validation/reference/pack/odd"
#define ONE IMAGES "/apple/one.png"

static hirl_world_t *world;

typedef struct row {
    const char *name;
    int parent;
} row_t;

static hirl_shard_set_t *open_set(const hirl_pack_cfg_t *cfg) {
    hirl_data_cfg_t data = data_cfg("mmap");
    data.channels = 3;
    char path[2048];
    snprintf(path, sizeof path, "%s/%s-*.h5", cfg->output, cfg->split);
    hirl_shard_set_t *set = NULL;
    NEED_OK(hirl_shard_set_open(world, path, &data, &set));
    return set;
}

static void check_labels(const hirl_shard_set_t *set, const int *label, int n) {
    CHECK_EQ_I(hirl_shard_set_n_samples(set), n);
    for (int i = 0; i < n && i < hirl_shard_set_n_samples(set); i++)
        CHECK_MSG(hirl_shard_set_label(set, i) == label[i], "sample %d: label %d, want %d", i,
                  hirl_shard_set_label(set, i), label[i]);
}

static void test_tree(void) {
    hirl_pack_cfg_t cfg = pack_cfg(test_path("tree"), "train", test_path("tree-shards"));
    // Two leaves called 'small'; images beside folders; an empty leaf; loose, hidden and other files.
    static const char *const files[] = {
        "bird/owl/1.png",       "bird/owl/2.PNG",      "dog/small/1.JPEG", "dog/small/pug/1.jpg",
        "dog/small/pug/2.jpeg", "cat/small/1.png",     "fish/1.png",       "loose.png",
        "fish/.hidden.png",     "fish/._1.png",        "fish/notes.txt",   "._cat/small/9.png",
        ".git/1.png",           "cat-like/lynx/a.png", "cat/empty/"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bool is_folder = files[i][strlen(files[i]) - 1] == '/';
        shell("mkdir -p %s/$(dirname %s.) && %s %s/%s", cfg.source, files[i],
              is_folder ? "true" : "cp " ONE, cfg.source, files[i]);
    }
    NEED_OK(hirl_data_pack(world, &cfg));
    static const row_t rows[] = {
        {"bird/owl", 8},    {"cat/empty", 9},     {"cat/small", 9}, {"cat-like/lynx", 10},
        {"dog/small/.", 7}, {"dog/small/pug", 7}, {"fish", -1},     {"dog/small", 11},
        {"bird", -1},       {"cat", -1},          {"cat-like", -1}, {"dog", -1},
    };
    const int n_rows = sizeof rows / sizeof *rows;
    hirl_shard_set_t *set = open_set(&cfg);
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), n_rows);
    // '-' comes before '/': folders are in the order of their paths' bytes.
    static const int order[] = {0, 3, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11};
    for (int r = 0; r < n_rows; r++) {
        const row_t *want = &rows[order[r]];
        CHECK_EQ_S(hirl_shard_set_class_name_view(set, r), want->name);
        const int parent = hirl_shard_set_class_parent(set, r);
        CHECK_EQ_S(hirl_shard_set_class_name_view(set, parent),
                   want->parent < 0 ? "" : rows[want->parent].name);
    }
    const int label[] = {0, 0, 1, 3, 4, 5, 5, 6};
    check_labels(set, label, 8);
    hirl_shard_set_close(&set);
    char path[2048];
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path);
    CHECK_EQ_S((char *)skipped.bytes, "loose.png\tnot in the folder of a class\n");
    free(skipped.bytes);

    // The same images by their first folder, and without labels: then the loose one counts, too.
    cfg.overwrite = true;
    snprintf(cfg.classes, sizeof cfg.classes, "top");
    NEED_OK(hirl_data_pack(world, &cfg));
    set = open_set(&cfg);
    const int top[] = {0, 0, 1, 2, 3, 3, 3, 4};
    check_labels(set, top, 8);
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), 5);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 2), "cat-like");
    CHECK_EQ_I(hirl_shard_set_class_parent(set, 2), -1);
    hirl_shard_set_close(&set);
    snprintf(cfg.classes, sizeof cfg.classes, "none");
    NEED_OK(hirl_data_pack(world, &cfg));
    set = open_set(&cfg);
    const int none[] = {-1, -1, -1, -1, -1, -1, -1, -1, -1};
    check_labels(set, none, 9);
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), 0);
    hirl_shard_set_close(&set);
}

// Pixels of sample i against Pillow's.
static void check_pixels(const hirl_shard_set_t *set, int64_t i, const char *name, int height,
                         int width, int channels, const unsigned char *want) {
    hirl_buffer_t buffer = {0}, decoded = {0};
    hirl_sample_t sample;
    hirl_image_t image;
    NEED_OK(hirl_shard_set_read(set, i, &buffer, &sample));
    CHECK_EQ_I(sample.channels, channels);
    if (CHECK_OK(hirl_image_decode(&sample, 3, &decoded, &image))) {
        CHECK_MSG(image.height == height && image.width == width, "%s: %d x %d", name, image.width,
                  image.height);
        size_t n = 3 * (size_t)height * (size_t)width, n_other = 0;
        for (size_t p = 0; p < n; p++) n_other += image.pixels[p] != want[p];
        CHECK_MSG(n_other == 0, "%s: %zu of %zu values differ", name, n_other, n);
    }
    hirl_buffer_reset(&buffer);
    hirl_buffer_reset(&decoded);
}

static void test_odd(void) {
    hirl_pack_cfg_t cfg = pack_cfg(ODD, "train", test_path("odd"));
    NEED_OK(hirl_data_pack(world, &cfg));
    hirl_shard_set_t *set = open_set(&cfg);
    char path[2048], line[256], name[64], verdict[16];
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path), pixels = load_file(ODD ".bin");
    FILE *table = fopen(ODD ".txt", "r");
    NEED(table != NULL);
    int64_t n_good = 0, n_bad = 0;
    while (fgets(line, sizeof line, table)) {
        int height, width, channels;
        size_t at;
        NEED(sscanf(line, "%63s %15s %d %d %d %zu", name, verdict, &height, &width, &channels,
                    &at) == 6);
        char begun[80];
        snprintf(begun, sizeof begun, "%s\t", name);
        const char *found = strstr((char *)skipped.bytes, begun);
        bool is_bad = strcmp(verdict, "bad") == 0 || strncmp(name, "other_", 6) == 0;
        CHECK_MSG(is_bad == (found != NULL), "%s is %s, and %s", name, verdict,
                  found ? "was skipped" : "was packed");
        if (found) CHECK_MSG(strcspn(found + strlen(begun), "\n") > 10, "%s: no reason", name);
        n_bad += is_bad;
        if (is_bad || n_good >= hirl_shard_set_n_samples(set)) continue;
        // Both lists are in the order of bytes.
        check_pixels(set, n_good++, name, height, width, channels, pixels.bytes + at);
    }
    fclose(table);
    CHECK_EQ_I(hirl_shard_set_n_samples(set), n_good);
    CHECK(n_good >= 10 && n_bad >= 10);
    free(skipped.bytes);
    free(pixels.bytes);
    hirl_shard_set_close(&set);
}

// A program without libwebp says so of each; one that has it takes all but animations.
static void test_webp(void) {
    hirl_pack_cfg_t cfg = pack_cfg("validation/reference/pack/webp", "train", test_path("webp"));
    char path[2048];
#ifdef HIRL_HAS_WEBP
    NEED_OK(hirl_data_pack(world, &cfg));
    hirl_shard_set_t *set = open_set(&cfg);
    CHECK_EQ_I(hirl_shard_set_n_samples(set), 5);
    hirl_shard_set_close(&set);
    const char *reason = "animation.webp\tWebP: an animation, expected a picture\n";
#else
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "built without libwebp");
    const char *reason = "animation.webp\tWebP: this program was built without libwebp\n";
#endif
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path);
    CHECK_HAS((char *)skipped.bytes, reason);
    free(skipped.bytes);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_tree);
    RUN(test_odd);
    RUN(test_webp);
    hirl_world_destroy(&world);
}
