// The outside world: h5py reads our files, and we read what h5py writes; what it writes to deceive
// is refused.
// test: timeout=120 needs=python3-h5py env=HDF5_USE_FILE_LOCKING=FALSE
#include "hirl/ckpt.h"

#include "test.h"

// Runs a Python script in the test's folder; false if it fails.
static bool run_python(const char *script) {
    const char *python = getenv("PYTHON");
    char command[2048];
    NEED_OK(hirl_path_write_whole(test_path("script.py"), script, strlen(script)));
    snprintf(command, sizeof command, "cd '%s' && LD_PRELOAD= '%s' script.py", test_folder(),
             python && *python ? python : "/usr/bin/python3");
    return system(command) == 0;
}

static float weight[6] = {1, 2.5f, -3, 4, 5, 1e-30f};
static double big[2] = {1e300, -2};
static int32_t label[3] = {-1, 0, 7};
static int64_t index_[2] = {INT64_MAX, -5};
static unsigned char mask[4] = {0, 255, 3, 4};
static const hirl_ckpt_array_t ARRAY[] = {
    {"/model/encoder_q.conv1.weight", HIRL_CKPT_F32, 2, {2, 3}, weight},
    {"/a/b/c", HIRL_CKPT_F64, 1, {2}, big},
    {"/label", HIRL_CKPT_I32, 3, {1, 3, 1}, label},
    {"/index", HIRL_CKPT_I64, 0, {0}, index_},
    {"/mask/0", HIRL_CKPT_U8, 1, {4}, mask},
    {"/empty", HIRL_CKPT_F32, 2, {0, 3}, NULL},
};

static void test_ours(void) {
    const hirl_ckpt_meta_t meta = {12, 3, 4, 5, -6, "mocov2", "hirl", "&run\n/\n"};
    NEED_OK(hirl_ckpt_write(test_folder(), &meta, ARRAY, 6, 1));
    NEED_OK(hirl_arrays_write(test_path("out.h5"), ARRAY, 6));
    CHECK(run_python("import h5py\n"
                     "with h5py.File('checkpoint-00000012.h5') as f:\n"
                     "    state = {k: v[()] for k, v in f['model'].items()}\n"
                     "assert list(state) == ['encoder_q.conv1.weight'], state\n"));
    CHECK(run_python(
        "import h5py, numpy as np\n"
        "for name in 'checkpoint-00000012.h5', 'out.h5':\n"
        "    f = h5py.File(name, 'r')\n"
        "    w = f['model']['encoder_q.conv1.weight'][()]\n"
        "    assert w.dtype == np.float32 and w.shape == (2, 3)\n"
        "    assert w.tolist() == np.float32([[1, 2.5, -3], [4, 5, 1e-30]]).tolist()\n"
        "    assert f['a/b/c'].dtype == np.float64 and f['a/b/c'][()].tolist() == [1e300, -2]\n"
        "    assert f['label'].dtype == np.int32 and f['label'][()].tolist() == [[[-1], [0], "
        "[7]]]\n"
        "    assert f['index'].dtype == np.int64 and f['index'][()] == 2**63 - 1\n"
        "    assert f['mask/0'].dtype == np.uint8 and f['mask/0'][()].tolist() == [0, 255, 3, 4]\n"
        "    assert f['empty'].shape == (0, 3)\n"
        "f = h5py.File('checkpoint-00000012.h5', 'r')\n"
        "a = f.attrs\n"
        "assert [int(a[k]) for k in ('version', 'step', 'epoch', 'batch', 'samples_seen', 'seed')] "
        "== "
        "[1, 12, 3, 4, 5, -6]\n"
        "assert a['format'] == b'hirl-checkpoint' and a['method'] == b'mocov2'\n"
        "assert a['hierarchy'] == b'hirl' and a['deck'] == b'&run\\n/\\n' and 'complete' in a\n"
        "assert len(a['build']) > 0\n"));
    // A checkpoint that h5py changes afterwards is not the one that was written.
    CHECK(run_python("import h5py, shutil\n"
                     "for name in 'step', 'marker', 'gone', 'more', 'type', 'value':\n"
                     "    shutil.copy('checkpoint-00000012.h5', name + '.h5')\n"
                     "h5py.File('step.h5', 'r+').attrs.modify('step', 13)\n"
                     "del h5py.File('marker.h5', 'r+').attrs['complete']\n"
                     "del h5py.File('gone.h5', 'r+')['label']\n"
                     "f = h5py.File('more.h5', 'r+')\n"
                     "f['x'] = [1.0]\n"
                     "f['x'].attrs['xxh64'] = 5\n"
                     "f = h5py.File('type.h5', 'r+')\n"
                     "c = f['label'].attrs['xxh64']\n"
                     "del f['label']\n"
                     "f['label'] = [[[-1.5], [0], [7]]]\n"
                     "f['label'].attrs['xxh64'] = c\n"
                     "h5py.File('value.h5', 'r+')['label'][0, 1, 0] = 4\n"));
    hirl_ckpt_t *ckpt = NULL;
    CHECK_FAILS(hirl_ckpt_open(test_path("step.h5"), true, &ckpt), HIRL_ERR_FORMAT, "were changed");
    CHECK_FAILS(hirl_ckpt_open(test_path("marker.h5"), true, &ckpt), HIRL_ERR_FORMAT,
                "not complete");
    CHECK_FAILS(hirl_ckpt_open(test_path("gone.h5"), true, &ckpt), HIRL_ERR_FORMAT, "were changed");
    CHECK_FAILS(hirl_ckpt_open(test_path("more.h5"), true, &ckpt), HIRL_ERR_FORMAT, "were changed");
    CHECK_FAILS(hirl_ckpt_open(test_path("type.h5"), true, &ckpt), HIRL_ERR_FORMAT, "were changed");
    CHECK_FAILS(hirl_ckpt_open(test_path("value.h5"), true, &ckpt), HIRL_ERR_FORMAT,
                "array /label is damaged");
    CHECK(ckpt == NULL);
}

static const char THEIRS[] =
    "import h5py, numpy as np\n"
    "f = h5py.File('theirs.h5', 'w')\n"
    "f['f16'] = np.float16([1.5, -2, np.inf])\n"
    "f['f64'] = np.array([1 / 3, 1e-50, 1e300])\n"
    "f['be'] = np.array([1.25, 2], dtype='>f4')\n"
    "for t in 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8':\n"
    "    f[t] = np.array([0, 1, 100], dtype=t)\n"
    "f['negative'] = np.int64([-1])\n"
    "f['wide'] = np.int64([2**31])\n"
    "f['exact'] = np.int64([2**24, -3])\n"
    "f['inexact'] = np.int64([2**24 + 1])\n"
    "f['flag'] = np.array([True, False])\n"
    "f['name'] = 'a text'\n"
    "f['record'] = np.zeros(3, dtype=[('a', 'i4'), ('b', 'f4')])\n"
    "f['scalar'] = np.float32(4.5)\n"
    "f.create_dataset('views/0', data=np.arange(24, dtype='f4').reshape(2, 3, 2, 2), "
    "compression='gzip')\n"
    "f.create_dataset('chunked', data=np.arange(1000), chunks=(17,), shuffle=True)\n"
    "f['soft'] = h5py.SoftLink('/scalar')\n"
    "f['dangling'] = h5py.SoftLink('/nowhere')\n"
    "f['outside'] = h5py.ExternalLink('secret.h5', '/x')\n"
    "f['views/again'] = f['views']\n" // a folder that holds itself
    "h5py.File('secret.h5', 'w')['x'] = [1.0]\n";

static void test_theirs(void) {
    hirl_ckpt_t *file = NULL;
    const int64_t one[] = {1}, two[] = {2}, three[] = {3};
    float f[24], scalar = 0;
    double d[3];
    int32_t i32[1000];
    int64_t i64[3];
    unsigned char u8[3];
    NEED(run_python(THEIRS));
    NEED_OK(hirl_arrays_open(test_path("theirs.h5"), &file));
    CHECK_OK(hirl_ckpt_read(file, "/f16", HIRL_CKPT_F32, 1, three, f));
    CHECK(f[0] == 1.5f && f[1] == -2 && f[2] == INFINITY);
    CHECK_OK(hirl_ckpt_read(file, "/f64", HIRL_CKPT_F32, 1, three, f));
    CHECK(f[0] == 1.0f / 3 && f[1] == 0 && f[2] == INFINITY); // rounded as a cast does
    CHECK_OK(hirl_ckpt_read(file, "/f64", HIRL_CKPT_F64, 1, three, d));
    CHECK(d[0] == 1.0 / 3 && d[1] == 1e-50 && d[2] == 1e300);
    CHECK_OK(hirl_ckpt_read(file, "/be", HIRL_CKPT_F32, 1, two, f));
    CHECK(f[0] == 1.25f && f[1] == 2);
    const char *integers[] = {"/i1", "/u1", "/i2", "/u2", "/i4", "/u4", "/i8", "/u8"};
    const hirl_ckpt_type_t types[] = {HIRL_CKPT_I32, HIRL_CKPT_U8,  HIRL_CKPT_I32, HIRL_CKPT_I32,
                                      HIRL_CKPT_I32, HIRL_CKPT_I64, HIRL_CKPT_I64, HIRL_CKPT_I64};
    for (int i = 0; i < 8; i++) {
        CHECK_EQ_I(hirl_ckpt_find_view(file, integers[i])->type, types[i]);
        CHECK_OK(hirl_ckpt_read(file, integers[i], HIRL_CKPT_I32, 1, three, i32));
        CHECK_OK(hirl_ckpt_read(file, integers[i], HIRL_CKPT_I64, 1, three, i64));
        CHECK_OK(hirl_ckpt_read(file, integers[i], HIRL_CKPT_U8, 1, three, u8));
        CHECK_OK(hirl_ckpt_read(file, integers[i], HIRL_CKPT_F32, 1, three, f));
        CHECK(i32[1] == 1 && i32[2] == 100 && i64[2] == 100 && u8[2] == 100 && f[2] == 100);
    }
    // What does not fit is refused, not clipped.
    CHECK_FAILS(hirl_ckpt_read(file, "/negative", HIRL_CKPT_U8, 1, one, u8), HIRL_ERR_MISMATCH,
                "cannot read /negative as u8: item 0 is -1");
    CHECK_FAILS(hirl_ckpt_read(file, "/wide", HIRL_CKPT_I32, 1, one, i32), HIRL_ERR_MISMATCH,
                "cannot read /wide as i32: item 0 is 2147483648");
    CHECK_OK(hirl_ckpt_read(file, "/inexact", HIRL_CKPT_F32, 1, one, f));
    CHECK(f[0] == 16777216); // rounded
    CHECK_OK(hirl_ckpt_read(file, "/exact", HIRL_CKPT_F32, 1, two, f));
    CHECK(f[0] == 16777216 && f[1] == -3);
    CHECK_FAILS(hirl_ckpt_read(file, "/f64", HIRL_CKPT_I32, 1, three, i32), HIRL_ERR_MISMATCH,
                "type f64, this run wants i32");
    CHECK_OK(hirl_ckpt_read(file, "/scalar", HIRL_CKPT_F32, 0, NULL, &scalar));
    CHECK(scalar == 4.5f);
    CHECK_OK(hirl_ckpt_read(file, "/views/0", HIRL_CKPT_F32, 4, (int64_t[]){2, 3, 2, 2}, f));
    for (int i = 0; i < 24; i++) CHECK(f[i] == (float)i);
    CHECK_OK(hirl_ckpt_read(file, "/chunked", HIRL_CKPT_I32, 1, (int64_t[]){1000}, i32));
    CHECK_EQ_I(i32[999], 999);
    // numpy's booleans are a mask of bytes.
    NEED(hirl_ckpt_find_view(file, "/flag") != NULL);
    CHECK_OK(hirl_ckpt_read(file, "/flag", HIRL_CKPT_U8, 1, two, u8));
    CHECK(u8[0] == 1 && u8[1] == 0);
    // Texts and records are passed over, links out of the file are not followed, and cycles end.
    CHECK(hirl_ckpt_find_view(file, "/name") == NULL);
    CHECK(hirl_ckpt_find_view(file, "/record") == NULL);
    CHECK(hirl_ckpt_find_view(file, "/outside") == NULL);
    CHECK(hirl_ckpt_find_view(file, "/soft") == NULL);
    int n = 0;
    (void)hirl_ckpt_arrays_view(file, &n);
    CHECK_EQ_I(n, 19);
    hirl_ckpt_close(&file);
}

// Files that claim more than they hold, or take it from elsewhere.
static void test_hostile(void) {
    NEED(run_python(
        "import h5py, numpy as np\n"
        "def new(name):\n"
        "    return h5py.File(name + '.h5', 'w')\n"
        "new('sparse').create_dataset('x', (2**40, 1000), dtype='f4')\n"
        "new('chunks').create_dataset('x', (2**40, 1000), dtype='f4', chunks=(1024, 1000))\n"
        "new('overflow').create_dataset('x', (2**31, 2**31, 2**31), dtype='f8', "
        "chunks=(8, 8, 8))\n"
        "new('axes').create_dataset('x', (1,) * 7, dtype='f4')\n"
        "new('elsewhere').create_dataset('x', (4,), dtype='u1', "
        "external=[('/etc/passwd', 0, 4)])\n"
        "layout = h5py.VirtualLayout((1,), dtype='f8')\n"
        "layout[0:1] = h5py.VirtualSource('secret.h5', 'x', (1,))\n"
        "new('virtual').create_virtual_dataset('x', layout)\n"
        "new('name')['a\\nb'] = [1.0]\n"
        "new('long')['n' * 600] = [1.0]\n"));
    const struct {
        const char *name, *text;
    } cases[] = {{"sparse.h5", "/x claims 3.91 PiB, which are not in this file"},
                 {"chunks.h5", "/x claims 3.91 PiB, more than a file of"},
                 {"overflow.h5", "more bytes than memory"},
                 {"axes.h5", "7 axes, expected 0 to 6"},
                 {"elsewhere.h5", "lies in other files"},
                 {"virtual.h5", "lies in other files"},
                 {"name.h5", "unprintable"},
                 {"long.h5", "longer than"}};
    for (int i = 0; i < 8; i++) {
        hirl_ckpt_t *file = NULL;
        CHECK_FAILS(hirl_arrays_open(test_path(cases[i].name), &file), HIRL_ERR_FORMAT,
                    cases[i].text);
        CHECK_HAS(hirl_error_text_view(), cases[i].name);
        CHECK(file == NULL);
    }
    // The same in the clothes of a checkpoint.
    NEED(run_python("import h5py, numpy as np\n"
                    "def dress(name, **more):\n"
                    "    f = h5py.File(name + '.h5', 'w')\n"
                    "    a = f.attrs\n"
                    "    for k in 'step', 'epoch', 'batch', 'samples_seen', 'seed', 'complete':\n"
                    "        a[k] = np.int64(1)\n"
                    "    a['version'] = np.int64(1)\n"
                    "    for k in 'method', 'hierarchy', 'deck', 'build':\n"
                    "        a[k] = np.bytes_('x')\n"
                    "    a['format'] = np.bytes_('hirl-checkpoint')\n"
                    "    for k, v in more.items(): a[k] = v\n"
                    "    return f\n"
                    "dress('c0', version=np.int64(2))\n"
                    "dress('c1', step=1.5)\n"
                    "dress('c2', step=np.arange(3))\n"
                    "dress('c3', deck='variable')\n"
                    "dress('c4', deck=np.int64(3))\n"
                    "dress('c5', format=np.bytes_('hirl-shard'))\n"
                    "dress('c6').create_dataset('x', (2**40,), dtype='<f4')\n"
                    "dress('c7').create_dataset('x', (5,), dtype='<f4', chunks=(2,))\n"
                    "dress('c8')['x'] = np.array([1], '>f4')\n"
                    "dress('c9')['x'] = np.array([1], '<f4')\n"
                    "dress('c10')\n"));
    const char *texts[] = {"format version 2, expected 1",
                           "'step' of the file is no integer",
                           "'step' of the file has 3 values",
                           "'deck' is no text of fixed length",
                           "'deck' is no text",
                           "its format is 'hirl-shard', expected 'hirl-checkpoint'",
                           "/x claims",
                           "/x is not stored in one piece",
                           "/x: its type is none of",
                           "attribute 'xxh64' of /x is missing",
                           "were changed"};
    for (int i = 0; i < 11; i++) {
        hirl_ckpt_t *ckpt = NULL;
        char name[16];
        snprintf(name, sizeof name, "c%d.h5", i);
        CHECK_FAILS(hirl_ckpt_open(test_path(name), false, &ckpt), HIRL_ERR_FORMAT, texts[i]);
        CHECK(ckpt == NULL);
    }
}

TEST_MAIN {
    RUN(test_ours);
    RUN(test_theirs);
    RUN(test_hostile);
}
