// test: ranks=1,2 timeout=60 needs=python3-h5py,python3-pil,python3-numpy
// CUB-200-2011, Cars-196, Stanford Online Products, In-shop and VOC 2007: tiny trees in their
// layouts, packed split by split and compared by h5py with what Python makes of the same lists
// (validation/reference/pack/layouts.py); lists with something wrong in them; MATLAB files cut short
// and changed byte by byte.
#include "pack_util.h"

#define MATLAB "validation/reference/pack/cars"

static hirl_world_t *world;

static void python(const char *command, const char *arguments) {
    const char *name = getenv("PYTHON");
    shell("%s validation/reference/pack/%s %s", name && *name ? name : "/usr/bin/python3", command,
          arguments);
}

static hirl_pack_cfg_t layout_cfg(const char *format, const char *split) {
    char source[256], output[256];
    snprintf(source, sizeof source, "%s/%s", test_path("trees"), format);
    snprintf(output, sizeof output, "%s/%s-%s", test_path("shards"), format, split);
    hirl_pack_cfg_t cfg = pack_cfg(source, split, output);
    snprintf(cfg.format, sizeof cfg.format, "%s", format);
    cfg.upright = true;
    return cfg;
}

static void test_layouts(void) {
    static const char *const splits[][6] = {{"cub", "train", "val"},
                                            {"cars", "train", "test"},
                                            {"sop", "train", "val"},
                                            {"inshop", "train", "query", "gallery"},
                                            {"voc07", "train", "val", "trainval", "test"}};
    char arguments[2048];
    for (size_t l = 0; l < sizeof splits / sizeof *splits; l++) {
        for (int s = 1; splits[l][s]; s++) {
            hirl_pack_cfg_t cfg = layout_cfg(splits[l][0], splits[l][s]);
            NEED_OK(hirl_data_pack(world, &cfg));
            CHECK_EQ_I(count_files(cfg.output, "skipped.txt"), 0);
        }
    }
    snprintf(arguments, sizeof arguments, "%s %s", test_path("trees"), test_path("shards"));
    python("layouts.py check", arguments);

    // Sets of both halves name the same classes; targets as a set hands them out, on all ranks.
    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *a = NULL, *b = NULL;
    hirl_pack_cfg_t cfg = layout_cfg("sop", "train");
    NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &a));
    cfg = layout_cfg("sop", "val");
    NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &b));
    CHECK_OK(hirl_shard_set_check_classes(a, b));
    CHECK_EQ_I(hirl_shard_set_n_targets(a), 0);
    hirl_shard_set_close(&a);
    hirl_shard_set_close(&b);
    cfg = layout_cfg("voc07", "test");
    NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &a));
    CHECK_EQ_I(hirl_shard_set_n_targets(a), 20);
    CHECK_EQ_I(hirl_shard_set_n_classes(a), 0);
    int n_seen[3] = {0};
    for (int64_t i = 0; i < hirl_shard_set_n_samples(a); i++) {
        for (int c = 0; c < 20; c++) n_seen[1 + hirl_shard_set_target_view(a, i)[c]]++;
    }
    CHECK_EQ_I(n_seen[0] + n_seen[1] + n_seen[2], 100);
    CHECK(n_seen[0] > 20 && n_seen[1] > 5 && n_seen[2] > 5);
    hirl_shard_set_close(&a);
    // Without labels there are no targets; with a subset they stay with their images.
    cfg.overwrite = true;
    snprintf(cfg.classes, sizeof cfg.classes, "none");
    NEED_OK(hirl_data_pack(world, &cfg));
    NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &a));
    CHECK_EQ_I(hirl_shard_set_n_targets(a), 0);
    hirl_shard_set_close(&a);
}

// One line of a list replaced; what packing says then.
static void check_list(const char *format, const char *split, const char *list, const char *edit,
                       hirl_status_t code, const char *text) {
    hirl_pack_cfg_t cfg = layout_cfg(format, split);
    cfg.overwrite = true;
    shell("cd %s/%s && cp %s saved && sed -i '%s' %s", test_path("trees"), format, list, edit,
          list);
    CHECK_FAILS(hirl_data_pack(world, &cfg), code, text);
    shell("cd %s/%s && mv saved %s", test_path("trees"), format, list);
}

static void test_lists(void) {
    static const char voc[] = "VOCdevkit/VOC2007/ImageSets/Main/cat_val.txt";
    static const char sop[] = "Stanford_Online_Products/Ebay_test.txt";
    static const char shop[] = "Inshop_Clothes/Eval/list_eval_partition.txt";
    check_list("voc07", "val", voc, "2s/.*/000001 2/", HIRL_ERR_FORMAT,
               "cat_val.txt:2: '000001 2', expected an image and -1, 0 or 1");
    check_list(
        "voc07", "val", voc, "2s/.*/zzz 1/", HIRL_ERR_FORMAT,
        "cat_val.txt:2: image 'zzz', expected the images of aeroplane_val.txt in their order");
    check_list("voc07", "val", voc, "5d", HIRL_ERR_FORMAT, "cat_val.txt: 4 images, aeroplane_val");
    check_list("voc07", "val", voc, "5p", HIRL_ERR_FORMAT, "cat_val.txt:6: image");
    check_list("sop", "train", sop, "3s/.*/7 0 1 a.jpg/", HIRL_ERR_FORMAT,
               "Ebay_test.txt:3: '7 0 1 a.jpg', expected 'image_id class_id super_class_id path'");
    check_list("sop", "train", sop, "3s/.*/7 1000001 1 a.jpg/", HIRL_ERR_FORMAT, "expected 'image");
    // Some dozens of bytes shall not ask for a table of a million classes, nor of endless names.
    check_list("sop", "train", sop, "3s/.*/7 1000000 1 a.jpg/", HIRL_ERR_FORMAT,
               "Ebay_test.txt:3: class or super-class 1000000, expected fewer in a list of ");
    check_list("sop", "train", sop, "3s/.*/7 1 1000000 a.jpg/", HIRL_ERR_FORMAT,
               "Ebay_test.txt:3: class or super-class 1000000, expected fewer in a list of ");
    check_list("sop", "train", sop, "3s|.*|7 20 9 x/a.jpg|;3{:a;s|x/|xx/|;/x\\{256\\}/!ba}",
               HIRL_ERR_FORMAT, "expected a folder with a shorter name");
    check_list("sop", "train", sop, "3s/.*/7 1 3 a.jpg/", HIRL_ERR_FORMAT,
               "Ebay_test.txt:3: class 1 is of super-class 3 here, and of 2 before");
    check_list("inshop", "query", shop, "9d", HIRL_ERR_FORMAT,
               "23 images are listed, 24 promised: it is cut short");
    check_list("inshop", "query", shop, "1s/.*/many/", HIRL_ERR_FORMAT,
               ":1: expected the number of images");
    check_list("inshop", "query", shop, "9s/[a-z]*$/val/", HIRL_ERR_FORMAT,
               "list_eval_partition.txt:9: 'img/WOMEN");
    hirl_pack_cfg_t cfg = layout_cfg("inshop", "val");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "pack%split is 'val', and format 'inshop' has 'train', 'query' or 'gallery'");
    cfg = layout_cfg("voc07", "vol");
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK,
                "has 'train', 'val', 'trainval' or 'test'");
    cfg = layout_cfg("cub", "val");
    cfg.overwrite = true;
    shell("rm -r %s/cub/CUB_200_2011/images/200.*", test_path("trees"));
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT,
                "has 199 folders of classes, CUB-200-2011 has 200");
    snprintf(cfg.source, sizeof cfg.source, "%s", test_path("trees"));
    CHECK_FAILS(
        hirl_data_pack(world, &cfg), HIRL_ERR_IO,
        "trees/images, nor one in its folder CUB_200_2011: pack%format = 'cub' expects the");
}

// Packs the cars with these bytes as their MATLAB file.
static hirl_status_t pack_cars(const hirl_pack_cfg_t *cfg, const void *bytes, size_t size) {
    char path[2048];
    snprintf(path, sizeof path, "%s/cars196/cars_annos.mat", cfg->source);
    if (test_rank() == 0) save_file(path, bytes, size);
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    return hirl_data_pack(world, cfg);
}

static void test_matlab(void) {
    hirl_pack_cfg_t cfg = layout_cfg("cars", "train");
    cfg.overwrite = true;
    file_bytes_t packed = load_file(MATLAB "/packed.mat"), plain = load_file(MATLAB "/plain.mat");
    // Not packed, with doubles: the same samples.
    NEED_OK(pack_cars(&cfg, plain.bytes, plain.size));
    hirl_data_cfg_t data = data_cfg("mmap");
    hirl_shard_set_t *set = NULL;
    NEED_OK(hirl_shard_set_open(world, cfg.output, &data, &set));
    CHECK_EQ_I(hirl_shard_set_n_samples(set), 5);
    CHECK_EQ_I(hirl_shard_set_label(set, 1), 97);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 97), "Citro\xc3\xabn 2CV 1990");
    hirl_shard_set_close(&set);

    CHECK_FAILS(pack_cars(&cfg, "x", 1), HIRL_ERR_FORMAT, "cars_annos.mat: no MATLAB file");
    plain.bytes[125] = 2;
    CHECK_FAILS(pack_cars(&cfg, plain.bytes, plain.size), HIRL_ERR_FORMAT,
                "expected a MATLAB 5 file; MATLAB writes one by save(..., '-v7')");
    plain.bytes[125] = 1;
    CHECK_FAILS(pack_cars(&cfg, plain.bytes, 128), HIRL_ERR_FORMAT,
                "has no variable 'annotations'");
    // Cut anywhere, the file is refused as damaged, or its second variable is not there.
    int n_good = 0, n_trials = 0;
    for (size_t size = 129; size < plain.size; size += size < 900 ? 37 : 1511, n_trials++) {
        hirl_status_t status = pack_cars(&cfg, plain.bytes, size);
        CHECK_MSG(status == HIRL_OK || status == HIRL_ERR_FORMAT, "%zu bytes: %s", size,
                  hirl_error_text_view());
        n_good += status == HIRL_OK;
    }
    CHECK_MSG(n_good < n_trials / 2, "%d of %d were packed", n_good, n_trials);
    for (size_t size = 140; size < packed.size; size += 251)
        CHECK(pack_cars(&cfg, packed.bytes, size) != HIRL_ERR_INTERNAL);
    CHECK_FAILS(pack_cars(&cfg, packed.bytes, 400), HIRL_ERR_FORMAT, "damaged: ");
    // Changed bytes, in what describes the first annotations.
    hirl_rng_t rng = test_rng(0);
    for (int trial = 0; trial < 60; trial++) {
        const size_t at = 128 + (size_t)hirl_rng_below(&rng, 900);
        const unsigned char old = plain.bytes[at];
        plain.bytes[at] = (unsigned char)hirl_rng_u32(&rng);
        hirl_status_t status = pack_cars(&cfg, plain.bytes, plain.size);
        CHECK_MSG(status == HIRL_OK || status == HIRL_ERR_FORMAT, "byte %zu is %d: %s", at,
                  plain.bytes[at], hirl_error_text_view());
        plain.bytes[at] = old;
    }
    free(packed.bytes);
    free(plain.bytes);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    python("layouts.py make", test_path("trees"));
    if (test_size() > 1) RUN(test_layouts);
    if (test_size() == 1) RUN(test_lists);
    if (test_size() == 1) RUN(test_matlab);
    hirl_world_destroy(&world);
}
