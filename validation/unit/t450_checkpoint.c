// Checkpoints: what is written is read; names, types and shapes are compared; the newest are kept;
// what is described.
// test: timeout=60
#include "hirl/ckpt.h"

#include <dirent.h>

#include "test.h"

static float weight[3][4][5], large[300000];
static double moment[7];
static int32_t assign[11];
static int64_t pointer;
static unsigned char mask[9];

static const hirl_ckpt_array_t ARRAY[] = {
    {"/model/encoder_q.conv1.weight", HIRL_CKPT_F32, 3, {3, 4, 5}, weight},
    {"/model/encoder_q.fc.bias", HIRL_CKPT_F32, 1, {300000}, large},
    {"/optimizer/group 0/m", HIRL_CKPT_F64, 1, {7}, moment},
    {"/hierarchy/assign/0", HIRL_CKPT_I32, 2, {11, 1}, assign},
    {"/method/queue_ptr", HIRL_CKPT_I64, 0, {0}, &pointer},
    {"/method/mask", HIRL_CKPT_U8, 6, {1, 1, 3, 1, 3, 1}, mask},
    {"/method/empty", HIRL_CKPT_F32, 3, {2, 0, 5}, NULL},
};
enum { N_ARRAYS = 7 };
static const size_t BYTES[N_ARRAYS] = {240, 1200000, 56, 44, 8, 9, 0};

static hirl_ckpt_meta_t meta = {.step = 1234,
                                .epoch = 5,
                                .batch = 67,
                                .samples_seen = INT64_C(1) << 40,
                                .seed = -3,
                                .method = "mocov2",
                                .hierarchy = "hirl",
                                .deck = "&run\n  task = 'pretrain'\n/\n"};

static void fill(void) {
    hirl_rng_t rng = test_rng(0);
    for (int i = 0; i < 60; i++) (&weight[0][0][0])[i] = (float)hirl_rng_normal(&rng);
    for (int i = 0; i < 300000; i++) large[i] = (float)hirl_rng_normal(&rng);
    for (int i = 0; i < 7; i++) moment[i] = hirl_rng_normal(&rng);
    for (int i = 0; i < 11; i++) assign[i] = (int32_t)hirl_rng_u32(&rng);
    for (int i = 0; i < 9; i++) mask[i] = (unsigned char)i;
    pointer = INT64_MIN + 5;
    large[1] = NAN, large[2] = -0.0f, large[3] = INFINITY, large[4] = 1e-44f;
}

// Entries of a folder, the hidden ones too.
static int n_entries(const char *folder) {
    DIR *listing = opendir(folder);
    int n = -2;
    while (listing && readdir(listing)) n++;
    if (listing) closedir(listing);
    return n;
}

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static const char *file_of(const char *folder, long long step) {
    static char name[256];
    snprintf(name, sizeof name, "%s/checkpoint-%08lld.h5", folder, step);
    return test_path(name);
}

static void test_round_trip(void) {
    const char *folder = test_path("round/trip");
    NEED_OK(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 3));
    CHECK_EQ_I(n_entries(folder), 1);
    for (int verify = 0; verify < 2; verify++) {
        hirl_ckpt_t *ckpt = NULL;
        int n = -1;
        NEED_OK(hirl_ckpt_open(file_of("round/trip", 1234), verify, &ckpt));
        const hirl_ckpt_meta_t *got = hirl_ckpt_meta_view(ckpt);
        CHECK_EQ_I(got->step, 1234);
        CHECK_EQ_I(got->epoch, 5);
        CHECK_EQ_I(got->batch, 67);
        CHECK_EQ_I(got->samples_seen, INT64_C(1) << 40);
        CHECK_EQ_I(got->seed, -3);
        CHECK_EQ_S(got->method, "mocov2");
        CHECK_EQ_S(got->hierarchy, "hirl");
        CHECK_EQ_S(got->deck, meta.deck);
        CHECK_EQ_S(hirl_ckpt_path_view(ckpt), file_of("round/trip", 1234));
        const hirl_ckpt_array_t *list = hirl_ckpt_arrays_view(ckpt, &n);
        NEED(n == N_ARRAYS);
        for (int i = 0; i < n; i++) {
            CHECK(list[i].data == NULL);
            if (i > 0) CHECK(strcmp(list[i - 1].name, list[i].name) < 0);
        }
        for (int i = 0; i < N_ARRAYS; i++) {
            static unsigned char out[sizeof large + 1];
            const hirl_ckpt_array_t *found = hirl_ckpt_find_view(ckpt, ARRAY[i].name);
            NEED(found != NULL);
            CHECK_EQ_S(found->name, ARRAY[i].name);
            CHECK_EQ_I(found->type, ARRAY[i].type);
            CHECK_EQ_I(found->n_axes, ARRAY[i].n_axes);
            for (int k = 0; k < found->n_axes; k++) CHECK_EQ_I(found->shape[k], ARRAY[i].shape[k]);
            memset(out, 0x77, sizeof out);
            NEED_OK(hirl_ckpt_read(ckpt, ARRAY[i].name, ARRAY[i].type, ARRAY[i].n_axes,
                                   ARRAY[i].shape, out));
            if (BYTES[i] > 0) CHECK_BITS(out, ARRAY[i].data, BYTES[i]);
            CHECK_EQ_I(out[BYTES[i]], 0x77); // nothing beyond
        }
        CHECK(hirl_ckpt_find_view(ckpt, "/model") == NULL);
        CHECK(hirl_ckpt_find_view(ckpt, "/model/encoder_q.conv1") == NULL);
        hirl_ckpt_close(&ckpt);
        CHECK(ckpt == NULL);
    }
    hirl_ckpt_close(NULL);
    CHECK(hirl_ckpt_is_checkpoint(file_of("round/trip", 1234)));
    CHECK(!hirl_ckpt_is_checkpoint(folder));
    CHECK(!hirl_ckpt_is_checkpoint(test_path("none")));
}

// Equal content gives equal files: a restarted run's checkpoints can be compared byte by byte.
static void test_repeats(void) {
    static char a[2000000], b[2000000];
    NEED_OK(hirl_ckpt_write(test_path("r1"), &meta, ARRAY, N_ARRAYS, 3));
    usleep(1100000); // HDF5's times have a resolution of one second
    NEED_OK(hirl_ckpt_write(test_path("r2"), &meta, ARRAY, N_ARRAYS, 3));
    FILE *file = fopen(file_of("r1", 1234), "rb");
    const size_t n = fread(a, 1, sizeof a, file);
    fclose(file);
    file = fopen(file_of("r2", 1234), "rb");
    const size_t m = fread(b, 1, sizeof b, file);
    fclose(file);
    CHECK(n == m && n > 1200000 && n < sizeof a);
    CHECK_BITS(a, b, n);
}

static void test_mismatch(void) {
    hirl_ckpt_t *ckpt = NULL;
    float out[60] = {7};
    NEED_OK(hirl_ckpt_write(test_path("m"), &meta, ARRAY, N_ARRAYS, 3));
    NEED_OK(hirl_ckpt_open(file_of("m", 1234), true, &ckpt));
    const char *name = "/model/encoder_q.conv1.weight";
    CHECK_FAILS(hirl_ckpt_read(ckpt, name, HIRL_CKPT_F32, 3, (int64_t[]){3, 5, 4}, out),
                HIRL_ERR_MISMATCH, "has shape [3, 4, 5], this run wants [3, 5, 4]");
    CHECK_FAILS(hirl_ckpt_read(ckpt, name, HIRL_CKPT_F32, 1, (int64_t[]){60}, out),
                HIRL_ERR_MISMATCH, name);
    CHECK_FAILS(hirl_ckpt_read(ckpt, name, HIRL_CKPT_F64, 3, ARRAY[0].shape, out),
                HIRL_ERR_MISMATCH, "type f32, this run wants f64");
    CHECK_FAILS(hirl_ckpt_read(ckpt, name, HIRL_CKPT_I32, 3, ARRAY[0].shape, out),
                HIRL_ERR_MISMATCH, "");
    CHECK_FAILS(hirl_ckpt_read(ckpt, "/model/encoder_q.conv1.weigth", HIRL_CKPT_F32, 3,
                               ARRAY[0].shape, out),
                HIRL_ERR_MISMATCH, "the nearest name is /model/encoder_q.conv1.weight");
    CHECK(out[0] == 7);

    // Everything that is there.
    CHECK_OK(hirl_ckpt_check(ckpt, "/model", ARRAY, 2, false));
    CHECK_OK(hirl_ckpt_check(ckpt, "/model/", ARRAY, 2, false));
    CHECK_OK(hirl_ckpt_check(ckpt, "/", ARRAY, N_ARRAYS, false));
    CHECK_OK(hirl_ckpt_check(ckpt, "", ARRAY, N_ARRAYS, false));
    CHECK_OK(hirl_ckpt_check(ckpt, "/mod", NULL, 0, false)); // a part of a name is no prefix
    // One missing, one extra, one of another shape, one of another type.
    hirl_ckpt_array_t wanted[N_ARRAYS];
    memcpy(wanted, ARRAY, sizeof wanted);
    wanted[1].name = "/model/encoder_q.fc.bias2";
    wanted[0].shape[2] = 6;
    wanted[2].type = HIRL_CKPT_F32;
    CHECK_FAILS(
        hirl_ckpt_check(ckpt, "/", wanted, N_ARRAYS, false), HIRL_ERR_MISMATCH,
        "2 of another shape or type: /model/encoder_q.conv1.weight (f32 [3, 4, 5], wanted f32 "
        "[3, 4, 6]), /optimizer/group 0/m (f64 [7], wanted f32 [7]); 1 missing from the file: "
        "/model/encoder_q.fc.bias2; 1 unknown to this run: /model/encoder_q.fc.bias");
    CHECK_FAILS(hirl_ckpt_check(ckpt, "/model", ARRAY, 1, false), HIRL_ERR_MISMATCH, "1 unknown");
    CHECK_OK(hirl_ckpt_check(ckpt, "/model", ARRAY, 1, true));
    CHECK_FAILS(hirl_ckpt_check(ckpt, "/", wanted, N_ARRAYS, true), HIRL_ERR_MISMATCH, "1 missing");
    CHECK(!strstr(hirl_error_text_view(), "unknown"));
    hirl_ckpt_close(&ckpt);
}

// Long lists are cut at 20 names, with a count.
static void test_long_lists(void) {
    enum { N = 50 };
    static char names[N][64];
    hirl_ckpt_array_t many[N];
    hirl_ckpt_t *ckpt = NULL;
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "/model/block.%02d.weight", i);
        many[i] = (hirl_ckpt_array_t){names[i], HIRL_CKPT_F32, 1, {7}, moment};
    }
    NEED_OK(hirl_ckpt_write(test_path("l"), &meta, many, N, 3));
    NEED_OK(hirl_ckpt_open(file_of("l", 1234), true, &ckpt));
    CHECK_FAILS(hirl_ckpt_check(ckpt, "/model", NULL, 0, false), HIRL_ERR_MISMATCH,
                "50 unknown to this run: /model/block.00.weight, ");
    CHECK_HAS(hirl_error_text_view(), "/model/block.19.weight, and 30 more");
    hirl_ckpt_close(&ckpt);
}

static void test_keep(void) {
    const char *folder = strdup(test_path("keep"));
    for (int64_t step = 100; step <= 500; step += 100) {
        meta.step = step;
        NEED_OK(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 3));
        CHECK_EQ_I(n_entries(folder), step < 300 ? step / 100 : 3);
    }
    CHECK(!exists(file_of("keep", 200)) && exists(file_of("keep", 300)));
    // Beyond 8 digits the order is that of numbers.
    meta.step = 123456789;
    NEED_OK(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 3));
    CHECK(!exists(file_of("keep", 300)) && exists(file_of("keep", 400)));
    hirl_ckpt_t *ckpt = NULL;
    NEED_OK(hirl_ckpt_open_newest(folder, &ckpt));
    CHECK_EQ_I(hirl_ckpt_meta_view(ckpt)->step, 123456789);
    hirl_ckpt_close(&ckpt);
    // Files of other names stay, those of killed writes go; a broken one counts as none.
    const char *others[] = {"keep/checkpoint-12.h5",
                            "keep/checkpoint-00000001.h5.bak",
                            "keep/notes",
                            "keep/checkpoint-000000001.h5",
                            "keep/.checkpoint-00000450.h5.tmp",
                            "keep/checkpoint-00000450.h5"};
    for (int i = 0; i < 6; i++) NEED_OK(hirl_path_write_whole(test_path(others[i]), "x", 1));
    meta.step = 600;
    NEED_OK(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 3));
    for (int i = 0; i < 6; i++) CHECK_EQ_I(exists(test_path(others[i])), i != 4);
    CHECK(exists(file_of("keep", 123456789)) && exists(file_of("keep", 600)));
    CHECK(exists(file_of("keep", 500)) && !exists(file_of("keep", 400)));
    // The one just written stays, even if it is not the newest and the only one to keep.
    meta.step = 7;
    NEED_OK(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 1));
    CHECK(exists(file_of("keep", 7)) && !exists(file_of("keep", 600)));
    // The same step again takes the place of the one before.
    meta.epoch = 99;
    NEED_OK(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 1));
    NEED_OK(hirl_ckpt_open(file_of("keep", 7), true, &ckpt));
    CHECK_EQ_I(hirl_ckpt_meta_view(ckpt)->epoch, 99);
    hirl_ckpt_close(&ckpt);
    // What a killed writer leaves goes at the next start, but not on the word of an older checkpoint.
    for (meta.step = 100; meta.step <= 400; meta.step += 100)
        NEED_OK(hirl_ckpt_write(test_path("tidy"), &meta, ARRAY, N_ARRAYS, 99));
    NEED_OK(hirl_path_write_whole(test_path("tidy/.checkpoint-00000500.h5.tmp"), "x", 1));
    hirl_ckpt_tidy(test_path("tidy"), 300, 2);
    CHECK(exists(file_of("tidy", 100)) && exists(file_of("tidy", 400)));
    CHECK(!exists(test_path("tidy/.checkpoint-00000500.h5.tmp")));
    hirl_ckpt_tidy(test_path("tidy"), 400, 2);
    CHECK(!exists(file_of("tidy", 200)) && exists(file_of("tidy", 300)));
    CHECK(exists(file_of("tidy", 400)));
    meta.step = 1234;
    meta.epoch = 5;
    free((void *)(uintptr_t)folder);
}

static void test_newest(void) {
    hirl_ckpt_t *ckpt = NULL;
    NEED_OK(hirl_ckpt_open_newest(test_path("not there"), &ckpt));
    CHECK(ckpt == NULL);
    NEED_OK(hirl_path_make_folder(test_path("void")));
    NEED_OK(hirl_ckpt_open_newest(test_path("void"), &ckpt));
    CHECK(ckpt == NULL);
    NEED_OK(hirl_path_write_whole(test_path("plain"), "x", 1));
    CHECK_FAILS(hirl_ckpt_open_newest(test_path("plain"), &ckpt), HIRL_ERR_IO, "plain");
}

static void test_arguments(void) {
    const char *folder = strdup(test_path("bad"));
    hirl_ckpt_array_t array = ARRAY[0];
    const char *names[] = {"",           "/",     "model/x", "/model//x", "/model/",
                           "/model/./x", "/../x", "/a\nb",   "/a\x7f",    NULL};
    char large_name[600];
    memset(large_name, 'n', sizeof large_name - 1);
    large_name[0] = '/';
    large_name[sizeof large_name - 1] = '\0';
    for (int i = 0; i < 11; i++) {
        array.name = i < 10 ? names[i] : large_name;
        CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_ARG,
                    "cannot name an array");
    }
    const hirl_ckpt_array_t twice[2] = {ARRAY[0], ARRAY[0]};
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, twice, 2, 3), HIRL_ERR_ARG, "given twice");
    hirl_ckpt_array_t below[2] = {ARRAY[0], ARRAY[1]}; // an array cannot be a folder too
    below[0].name = "/model/x";
    below[1].name = "/model/x/y";
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, below, 2, 3), HIRL_ERR_HDF5, "/model/x/y");
    array = ARRAY[0];
    array.n_axes = 7;
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_ARG, "7 axes");
    array = ARRAY[0];
    array.shape[1] = -4;
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_ARG, "axis 1 has length -4");
    array.shape[1] = INT64_MAX / 8;
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_ARG, "more bytes");
    array.shape[0] = array.shape[2] = 1;
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_IO, "its disk has room for");
    array = ARRAY[0];
    array.type = (hirl_ckpt_type_t)17;
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_ARG, "type 17");
    array = ARRAY[0];
    array.data = NULL;
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, &array, 1, 3), HIRL_ERR_ARG, "no data");
    CHECK_FAILS(hirl_ckpt_write(folder, &meta, ARRAY, N_ARRAYS, 0), HIRL_ERR_ARG, "keep");
    CHECK_FAILS(hirl_ckpt_write("", &meta, ARRAY, N_ARRAYS, 1), HIRL_ERR_ARG, "folder");
    CHECK_EQ_I(n_entries(folder), 0); // nothing is left behind
    free((void *)(uintptr_t)folder);
    NEED_OK(hirl_path_write_whole(test_path("plain file"), "x", 1));
    CHECK_FAILS(hirl_ckpt_write(test_path("plain file"), &meta, ARRAY, N_ARRAYS, 1), HIRL_ERR_IO,
                "not a folder");
    // Without arrays there is still a checkpoint.
    hirl_ckpt_t *ckpt = NULL;
    int n = -1;
    NEED_OK(hirl_ckpt_write(test_path("bare"), &meta, NULL, 0, 1));
    NEED_OK(hirl_ckpt_open_newest(test_path("bare"), &ckpt));
    (void)hirl_ckpt_arrays_view(ckpt, &n);
    CHECK_EQ_I(n, 0);
    CHECK(hirl_ckpt_find_view(ckpt, "/x") == NULL);
    CHECK_FAILS(hirl_ckpt_read(ckpt, "/x", HIRL_CKPT_F32, 0, NULL, &n), HIRL_ERR_MISMATCH, "/x");
    hirl_ckpt_close(&ckpt);
}

// A deck beyond 64 KiB, which HDF5's usual attributes cannot hold, and empty texts.
static void test_texts(void) {
    static char deck[200001];
    hirl_ckpt_meta_t other = meta;
    for (int i = 0; i < 200000; i++) deck[i] = (char)(i % 80 ? 'a' + i % 26 : '\n');
    other.deck = deck;
    other.hierarchy = "";
    hirl_ckpt_t *ckpt = NULL;
    NEED_OK(hirl_ckpt_write(test_path("t"), &other, ARRAY, N_ARRAYS, 1));
    NEED_OK(hirl_ckpt_open(file_of("t", 1234), true, &ckpt));
    CHECK_EQ_S(hirl_ckpt_meta_view(ckpt)->deck, deck);
    CHECK_EQ_S(hirl_ckpt_meta_view(ckpt)->hierarchy, "");
    hirl_ckpt_close(&ckpt);
}

static void test_describe(void) {
    hirl_text_t text = {0};
    NEED_OK(hirl_ckpt_write(test_path("d"), &meta, ARRAY, N_ARRAYS, 1));
    NEED_OK(hirl_ckpt_describe(file_of("d", 1234), &text));
    CHECK_HAS(text.data, "method = mocov2\n");
    CHECK_HAS(text.data, "step = 1234\n");
    CHECK_HAS(text.data, "/model/encoder_q.conv1.weight  f32  [3, 4, 5]             240 B\n");
    CHECK_HAS(text.data, "7 arrays, 1.14 MiB\n");
    CHECK_HAS(text.data, "    &run\n      task = 'pretrain'\n    /\n");
    hirl_text_reset(&text);
    CHECK_FAILS(hirl_ckpt_describe(test_path("none"), &text), HIRL_ERR_IO, "No such file");
    CHECK(text.data == NULL);
}

TEST_MAIN {
    fill();
    RUN(test_round_trip);
    RUN(test_repeats);
    RUN(test_mismatch);
    RUN(test_long_lists);
    RUN(test_keep);
    RUN(test_newest);
    RUN(test_arguments);
    RUN(test_texts);
    RUN(test_describe);
}
