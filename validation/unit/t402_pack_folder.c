// test: ranks=1,2 timeout=60
// Image folders as shards: files byte for byte in torchvision's order, labels by sorted class
// names ('top'), damaged files skipped with a reason and listed, the same shards on any number of ranks,
// and folders that cannot be packed.
#include "pack_util.h"

static hirl_world_t *world;

// The good files of the tree that make_tree builds, in the order in which ImageFolder lists them.
typedef struct expected {
    const char *path;
    int label;
} expected_t;

static const expected_t expected[] = {
    {"Banana/cmyk.jpg", 0},
    {"Banana/gray.jpg", 0},
    {"Banana/one.jpg", 0},
    {"Banana/optimized.jpg", 0},
    {"Banana/progressive.JPEG", 0},
    {"Banana/rgb420.jpeg", 0},
    {"Banana/rgb422.JPG", 0},
    {"Banana/rgb444.jpg", 0},
    {"Banana/rubbish.jpg", 0},
    {"apple/bilevel.png", 1},
    {"apple/gray.png", 1},
    {"apple/gray16.png", 1},
    {"apple/gray2.png", 1},
    {"apple/gray4.png", 1},
    {"apple/gray4_interlaced.png", 1},
    {"apple/gray_alpha.png", 1},
    {"apple/one.png", 1},
    {"apple/palette.png", 1},
    {"apple/palette_transparent.png", 1},
    {"apple/rgb.png", 1},
    {"apple/rgb16.png", 1},
    {"apple/rgb_interlaced.png", 1},
    {"apple/rgb_trns.png", 1},
    {"apple/rgba.png", 1},
    // Folders by path, in byte order: "cherry/tart" < "cherry/tart-b" < "cherry/tart/deep".
    {"cherry/sour.png", 3},
    {"cherry/tart/png_inside.JPEG", 3},
    {"cherry/tart-b/z.png", 3},
    {"cherry/tart/deep/a.png", 3},
    {"link/one.png", 4},
};
enum { N_EXPECTED = sizeof expected / sizeof *expected };

static void make_tree(const char *root) {
    shell("mkdir -p %s && cp -r " IMAGES "/* %s", root, root);
    shell(
        "cd %s && mkdir -p blank cherry/tart/deep cherry/tart-b .hidden && cp cherry/sour.png "
        "cherry/tart/deep/a.png && "
        "cp cherry/sour.png cherry/tart-b/z.png && mkdir -p ../linked && cp apple/one.png "
        "../linked/ && "
        "ln -sfn ../linked link && cp apple/one.png .hidden/ && cp apple/one.png apple/.dot.png && "
        "echo notes >apple/README.txt",
        root);
    // Damaged ones: empty, cut short, another format, another name, a dangling link, a picture
    // without a class.
    shell(
        "cd %s && : >apple/broken_empty.png && head -c 300 apple/rgb.png >apple/broken_cut.png && "
        "head -c 700 Banana/rgb444.jpg >Banana/broken_cut.jpg && printf 'GIF89a...' "
        ">Banana/broken_gif.jpg && "
        "ln -sfn nowhere.png cherry/broken_link.png && "
        "mkfifo cherry/broken_pipe.png && cp apple/one.png loose.png && "
        "head -c 64 apple/rgb.png >\"apple/broken\tname\n.png\"",
        root);
}

static const char *skipped_lines =
    "loose.png\tnot in the folder of a class\n"
    "Banana/broken_cut.jpg\tJPEG: no end marker: the file is cut short\n"
    "Banana/broken_gif.jpg\tno PNG, JPEG or WebP: 9 bytes that begin with 47 49 46\n"
    "apple/broken?name?.png\tPNG: file ends early\n"
    "apple/broken_cut.png\tPNG: file ends early\n"
    "apple/broken_empty.png\t0 bytes, expected 1 to 1073741824\n"
    "cherry/broken_link.png\tcannot be opened: No such file or directory\n"
    "cherry/broken_pipe.png\tnot a file\n";

static void check_sample(const hirl_shard_set_t *set, int64_t i, const char *root,
                         const expected_t *want) {
    hirl_buffer_t buffer = {0}, decoded = {0};
    hirl_sample_t sample;
    hirl_image_t image;
    NEED_OK(hirl_shard_set_read(set, i, &buffer, &sample));
    CHECK_EQ_I(sample.label, want->label);
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", root, want->path);
    file_bytes_t file = load_file(path);
    CHECK_MSG(file.size == sample.size && memcmp(file.bytes, sample.bytes, file.size) == 0,
              "sample %lld is not the file %s", (long long)i, want->path);
    if (CHECK_OK(hirl_image_decode(&sample, 0, &decoded, &image))) {
        CHECK_EQ_I(image.channels, sample.channels);
        CHECK_EQ_I(image.height, sample.height);
        CHECK_EQ_I(image.width, sample.width);
    }
    free(file.bytes);
    hirl_buffer_reset(&buffer);
    hirl_buffer_reset(&decoded);
}

static void test_tree(void) {
    const char *root = test_path("tree");
    make_tree(root);
    hirl_pack_cfg_t cfg = pack_cfg(root, "train", test_path("shards"));
    snprintf(cfg.classes, sizeof cfg.classes, "top");
    NEED_OK(hirl_data_pack(world, &cfg));

    char path[2048];
    snprintf(path, sizeof path, "%s/train-skipped.txt", cfg.output);
    file_bytes_t skipped = load_file(path);
    CHECK_EQ_S((char *)skipped.bytes, skipped_lines);
    free(skipped.bytes);

    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    snprintf(path, sizeof path, "%s/train-00000.h5", cfg.output);
    CHECK_FAILS(hirl_shard_set_open(world, path, &data, &set), HIRL_ERR_DECK,
                "grey and colour images: set it to 3 or 1");
    data.channels = 3;
    NEED_OK(hirl_shard_set_open(world, path, &data, &set));
    CHECK_EQ_I(hirl_shard_set_channels(set), 3);
    CHECK_EQ_I(hirl_shard_set_n_classes(set), 5);
    const char *const names[] = {"Banana", "apple", "blank", "cherry", "link"};
    CHECK_EQ_I(hirl_shard_set_n_class_names(set), 5);
    for (int c = 0; c < 5; c++) CHECK_EQ_S(hirl_shard_set_class_name_view(set, c), names[c]);
    CHECK_EQ_I(hirl_shard_set_n_samples(set), N_EXPECTED);
    for (int i = 0; i < N_EXPECTED && i < hirl_shard_set_n_samples(set); i++)
        check_sample(set, i, root, &expected[i]);
    hirl_shard_set_close(&set);

    hirl_text_t text = {0};
    NEED_OK(hirl_shard_describe(path, &text));
    CHECK_HAS(text.data, "encoding = 'mixed'");
    CHECK_HAS(text.data, "3 'cherry': 4 samples");
    CHECK_HAS(text.data, "/class_name");
    hirl_text_reset(&text);

    // Each sample in a shard of its own kind, on one rank and on all: the same bytes.
    if (test_rank() == 0) {
        hirl_world_t *self = NULL;
        NEED_OK(hirl_world_create_self(&self));
        hirl_pack_cfg_t again = cfg;
        snprintf(again.output, sizeof again.output, "%s", test_path("again"));
        NEED_OK(hirl_data_pack(self, &again));
        check_same_folders(cfg.output, again.output);
        hirl_world_destroy(&self);
    }
}

// Only PNG, only JPEG: the encoding says so. Pictures without folders: no labels.
static void test_flat(void) {
    const char *const classes[] = {"apple", "Banana"}, *const encodings[] = {"encoding = 'png'",
                                                                             "encoding = 'jpeg'"};
    for (int c = 0; c < 2; c++) {
        char source[256], path[2048];
        snprintf(source, sizeof source, IMAGES "/%s", classes[c]);
        hirl_pack_cfg_t cfg = pack_cfg(source, "train", test_path(classes[c]));
        NEED_OK(hirl_data_pack(world, &cfg));
        hirl_data_cfg_t data = data_cfg("pread");
        data.channels = 1;
        hirl_shard_set_t *set = NULL;
        NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &set));
        CHECK_EQ_I(hirl_shard_set_n_samples(set), c == 0 ? 15 : 9);
        CHECK_EQ_I(hirl_shard_set_n_classes(set), 0);
        CHECK_EQ_I(hirl_shard_set_n_class_names(set), 0);
        CHECK_EQ_I(hirl_shard_set_label(set, 0), -1);
        hirl_shard_set_close(&set);
        snprintf(path, sizeof path, "%s/train-00000.h5", cfg.output);
        hirl_text_t text = {0};
        NEED_OK(hirl_shard_describe(path, &text));
        CHECK_HAS(text.data, encodings[c]);
        CHECK_HAS(text.data, "unlabelled: ");
        hirl_text_reset(&text);
    }
}

static void test_refused(void) {
    hirl_pack_cfg_t cfg = pack_cfg(test_path("splits"), "train", test_path("refused"));
    shell("mkdir -p %s/train/a %s/val/a && cp " IMAGES "/apple/one.png %s/train/a/", cfg.source,
          cfg.source, cfg.source);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "are splits, not classes: name one of them, as in '");
    CHECK_HAS(hirl_error_text_view(), "splits/train'");

    shell("mkdir -p %s/none/a && echo x >%s/none/a/x.txt", cfg.source, cfg.source);
    snprintf(cfg.classes, sizeof cfg.classes, "leave");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "pack%classes is 'leave', expected 'leaf', 'top', 'archive' or 'none'");
    cfg.classes[0] = '\0';
    snprintf(cfg.source, sizeof cfg.source, "%s/none", test_path("splits"));
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "holds no files .png, .jpg, .jpeg or .webp");

    shell("echo x >%s/a/x.png; echo y >%s/a/y.png", cfg.source, cfg.source);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "nothing to pack: all 2 inputs of");
    CHECK_HAS(hirl_error_text_view(),
              "a/x.png: no PNG, JPEG or WebP: 2 bytes that begin with 78 0a 00");
    CHECK_EQ_I(count_files(cfg.output, ".h5"), 0);
    CHECK_EQ_I(count_files(cfg.output, "train-skipped.txt"), 1);

    shell("cp " IMAGES "/apple/one.png %s/a/ && ln -sfn . %s/a/loop", cfg.source, cfg.source);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_IO, "Too many levels of symbolic links");
    shell("rm %s/a/loop", cfg.source);
    cfg.n_holdout = 1;
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "pack%n_holdout is 1, and there are 1 samples");
    cfg.n_holdout = 0;
    NEED_OK(hirl_data_pack(world, &cfg));
    CHECK_EQ_I(count_files(cfg.output, ".h5"), 1);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    RUN(test_tree);
    RUN(test_flat);
    RUN(test_refused);
    hirl_world_destroy(&world);
}
