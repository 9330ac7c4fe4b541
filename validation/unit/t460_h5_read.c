// The program's own reader of HDF5 files against HDF5's library: the same objects, links, attributes,
// types, shapes and bytes, in files of our writers, of h5py in its default and latest form, with
// groups and attributes of all sizes, and with holes where things were removed.
// test: timeout=300 needs=python3-h5py env=HDF5_USE_FILE_LOCKING=FALSE
#include "hirl/ckpt.h"
#include "hirl/h5.h"

#include <hdf5.h>

#include "test.h"

enum { BYTES_MAX = 1 << 22 };

// ------------------------------------------------------------------------------------ comparing

static uint8_t ours[BYTES_MAX], theirs[BYTES_MAX];
static long n_compared;

static void check_type(const hirl_h5_type_t *type, hid_t want) {
    const H5T_class_t class = H5Tget_class(want);
    const bool is_text = class == H5T_STRING, is_variable = is_text && H5Tis_variable_str(want) > 0;
    // HDF5 tells the size of a pointer in memory for texts of variable length.
    if (!is_variable && class != H5T_VLEN) CHECK_EQ_I(type->size, H5Tget_size(want));
    if (class == H5T_INTEGER) {
        CHECK(type->form == HIRL_H5_INTEGER || H5Tget_precision(want) != 8 * type->size);
        CHECK_EQ_I(type->is_signed, H5Tget_sign(want) == H5T_SGN_2);
    }
    if (class == H5T_FLOAT) CHECK(type->form == HIRL_H5_REAL);
    if (class == H5T_INTEGER || class == H5T_FLOAT)
        CHECK_EQ_I(type->is_big_endian, H5Tget_order(want) == H5T_ORDER_BE);
    if (class == H5T_ENUM) CHECK(type->is_enum);
    if (is_text) CHECK_EQ_I(type->form, is_variable ? HIRL_H5_TEXT_VARIABLE : HIRL_H5_TEXT);
    if (class == H5T_COMPOUND || class == H5T_REFERENCE) CHECK_EQ_I(type->form, HIRL_H5_OTHER);
}

// What HDF5 would take from elsewhere in the file is not read by ours.
static bool has_own_bytes(hid_t type) {
    return H5Tdetect_class(type, H5T_VLEN) == 0 && H5Tdetect_class(type, H5T_REFERENCE) == 0 &&
           !(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) > 0);
}

typedef struct walk {
    const hirl_h5_t *file;
    const hirl_h5_object_t *object;
    int n;
} walk_t;

static herr_t compare_attribute(hid_t at, const char *name, const H5A_info_t *info, void *data) {
    (void)info;
    walk_t *walk = data;
    const hirl_h5_attribute_t *found = hirl_h5_find_attribute_view(walk->file, walk->object, name);
    hid_t attribute = H5Aopen(at, name, H5P_DEFAULT), type = H5Aget_type(attribute),
          space = H5Aget_space(attribute);
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    walk->n++;
    if (!found) {
        CHECK_EQ_S("", name);
    } else {
        check_type(&found->type, type);
        CHECK_EQ_I(found->n_items, n);
        const size_t size = (size_t)n * H5Tget_size(type);
        if (has_own_bytes(type) && n > 0 && size <= BYTES_MAX) {
            NEED(H5Aread(attribute, type, theirs) >= 0);
            CHECK(memcmp(found->bytes, theirs, size) == 0);
            n_compared++;
        }
    }
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return 0;
}

static herr_t count_link(hid_t at, const char *name, const H5L_info_t *info, void *data) {
    (void)at;
    walk_t *walk = data;
    const hirl_h5_object_t *group = walk->object;
    walk->n++;
    for (int i = 0; i < group->n_links; i++) {
        // Most lists are in the same order.
        const hirl_h5_link_t *link =
            hirl_h5_link_view(walk->file, group->first_link + (walk->n - 1 + i) % group->n_links);
        if ((size_t)link->n_name != strlen(name) || memcmp(link->name, name, strlen(name)) != 0)
            continue;
        CHECK_EQ_I(link->object >= 0, info->type == H5L_TYPE_HARD);
        return 0;
    }
    CHECK_EQ_S("", name);
    return 0;
}

static void compare_array(const hirl_h5_t *file, const hirl_h5_object_t *object, hid_t set,
                          const char *name) {
    hsize_t shape[H5S_MAX_RANK];
    hid_t type = H5Dget_type(set), space = H5Dget_space(set), plist = H5Dget_create_plist(set);
    const int n_axes = H5Sget_simple_extent_dims(space, shape, NULL);
    const size_t size = (size_t)H5Sget_simple_extent_npoints(space) * H5Tget_size(type);
    if (H5Tcommitted(type) <= 0) check_type(&object->type, type);
    CHECK_EQ_I(object->n_axes, n_axes);
    for (int i = 0; i < n_axes && i < object->n_axes; i++)
        CHECK_EQ_I(object->shape[i], (int64_t)shape[i]);
    CHECK_EQ_I(object->n_items, H5Sget_simple_extent_npoints(space));
    const H5D_layout_t layout = H5Pget_layout(plist);
    CHECK_EQ_I(object->layout, layout == H5D_COMPACT   ? HIRL_H5_COMPACT
                               : layout == H5D_CHUNKED ? HIRL_H5_CHUNKED
                               : layout == H5D_VIRTUAL ? HIRL_H5_VIRTUAL
                                                       : HIRL_H5_CONTIGUOUS);
    CHECK_EQ_I(object->n_filters, H5Pget_nfilters(plist));
    if (layout == H5D_CONTIGUOUS && size > 0 && H5Dget_offset(set) != HADDR_UNDEF)
        CHECK_EQ_I(object->offset, (int64_t)H5Dget_offset(set));
    if (has_own_bytes(type) && size > 0 && size <= BYTES_MAX && layout != H5D_VIRTUAL &&
        object->n_external == 0) {
        const hirl_status_t status = hirl_h5_read(file, name, object, ours);
        if (status == HIRL_OK) {
            NEED(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, theirs) >= 0);
            CHECK(memcmp(ours, theirs, size) == 0);
            n_compared++;
        } else if (layout == H5D_CHUNKED) { // as only the latest form has them
            CHECK_HAS(hirl_error_text_view(), "are listed in a form of HDF5 1.10");
        } else if (strcmp(name, "/named") == 0) { // its type is an object of its own
            CHECK_HAS(hirl_error_text_view(), "/named is no array whose bytes are in this file");
        } else {
            CHECK_EQ_S(name, "/unwritten");
            CHECK_HAS(hirl_error_text_view(), "has 0 bytes for 16 items of 4");
        }
    }
    H5Pclose(plist);
    H5Sclose(space);
    H5Tclose(type);
}

// Compares all of a file. Returns the number of objects.
static int compare(const char *path) {
    hirl_h5_t *file = NULL;
    char name[4096];
    NEED_OK(hirl_h5_open(path, &file));
    hid_t h5 = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    NEED(h5 >= 0);
    const int n = hirl_h5_n_objects(file);
    for (int i = 0; i < n; i++) {
        const hirl_h5_object_t *object = hirl_h5_object_view(file, i);
        NEED_OK(hirl_h5_path(file, i, name, sizeof name));
        hid_t at = H5Oopen(h5, name, H5P_DEFAULT);
        NEED(at >= 0);
        walk_t walk = {file, object, 0};
        NEED(H5Aiterate2(at, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, compare_attribute, &walk) >= 0);
        CHECK_EQ_I(object->n_attributes, walk.n);
        const H5I_type_t kind = H5Iget_type(at);
        CHECK_EQ_I(object->kind, kind == H5I_GROUP     ? HIRL_H5_GROUP
                                 : kind == H5I_DATASET ? HIRL_H5_ARRAY
                                                       : HIRL_H5_TYPE);
        if (kind == H5I_GROUP) {
            walk.n = 0;
            NEED(H5Literate(at, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, count_link, &walk) >= 0);
            CHECK_EQ_I(object->n_links, walk.n);
        } else if (kind == H5I_DATASET) {
            compare_array(file, object, at, name);
        }
        H5Oclose(at);
    }
    H5Fclose(h5);
    hirl_h5_close(&file);
    return n;
}

// ------------------------------------------------------------------------------------ our writers

static void test_ours(void) {
    enum { N = 700 };
    static hirl_ckpt_array_t array[N];
    static char name[N][64], deck[200000];
    static float value[64];
    for (int i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "/%s/encoder_q.layer%d.%d.weight",
                 i % 3 ? "model" : "optimizer", i % 4, i);
        array[i] = (hirl_ckpt_array_t){name[i], HIRL_CKPT_F32, 2, {1 + i % 8, 8}, value};
    }
    memset(deck, 'x', sizeof deck - 1);
    const hirl_ckpt_meta_t meta = {12, 3, 4, 5, -6, "mocov2", "hirl", deck};
    NEED_OK(hirl_ckpt_write(test_folder(), &meta, array, N, 1));
    CHECK_EQ_I(compare(test_path("checkpoint-00000012.h5")), N + 3);
    NEED_OK(hirl_arrays_write(test_path("arrays.h5"), array, N));
    CHECK_EQ_I(compare(test_path("arrays.h5")), N + 3);
    // The listing must be small beside the reading of what is listed.
    hirl_h5_t *file = NULL;
    const double begun = hirl_time_now();
    for (int i = 0; i < 20; i++) {
        NEED_OK(hirl_h5_open(test_path("checkpoint-00000012.h5"), &file));
        hirl_h5_close(&file);
    }
    printf("opening a checkpoint of %d arrays: %.2f ms\n", N, 50 * (hirl_time_now() - begun));
    CHECK_EQ_I(compare("validation/reference/mocov2/hirl_basic_expected.h5"), 216);
    CHECK(compare("validation/reference/mocov2/hirl_basic_init.h5") > 10);
    CHECK(compare("validation/reference/mocov2/hirl_basic_input.h5") > 5);
}

// ------------------------------------------------------------------------------------ h5py

static const char SCRIPT[] =
    "import h5py, numpy as np\n"
    "rng = np.random.default_rng(5)\n"
    "def fill(f, latest):\n"
    "    for t in 'i1', 'u1', 'i2', '>i4', 'u4', '>u8', 'i8', 'f2', '>f4', 'f8', '>f8':\n"
    "        f[t.replace('>', 'be_')] = rng.integers(0, 100, (3, 5)).astype(t)\n"
    "    f['scalar'] = np.float32(4.5)\n"
    "    f['flag'] = np.array([True, False])\n"
    "    f['text'] = np.array([b'ab', b'cde'])\n"
    "    f['variable'] = 'a text'\n"
    "    f['null'] = h5py.Empty('f4')\n"
    "    f['none'] = np.zeros((0, 3))\n"
    "    f['record'] = np.zeros(3, dtype=[('a', 'i4'), ('b', 'f4')])\n"
    "    f['complex'] = np.zeros(3, dtype='c8')\n"
    "    f['type'] = np.dtype('i4')\n"
    "    f.create_dataset('named', data=[1, 2], dtype=f['type'])\n"
    "    f['deep/er/and/deeper'] = np.arange(7)\n"
    "    f['soft'] = h5py.SoftLink('/i1')\n"
    "    f['outside'] = h5py.ExternalLink('other.h5', '/x')\n"
    "    f['again'] = f['i1']\n"
    "    f['deep/back'] = f['deep']\n"
    "    f.create_dataset('unwritten', (4, 4), 'f4')\n"
    "    for i, k in enumerate([dict(compression='gzip'), dict(shuffle=True),\n"
    "                           dict(compression='gzip', shuffle=True, fletcher32=True),\n"
    "                           dict(fletcher32=True)]):\n"
    "        data = rng.integers(0, 1000, (37, 11, 5)).astype('i4')\n"
    "        f.create_dataset('packed/%d' % i, data=data, chunks=(4, 11, 2), **k)\n"
    "    f.create_dataset('packed/large', data=rng.integers(0, 9, 100000), chunks=(101,))\n"
    "    f.create_dataset('packed/odd', data=rng.integers(0, 9, 99).astype('u1'), chunks=(33,),\n"
    "                     fletcher32=True)\n"
    "    f.create_dataset('packed/noise', data=rng.bytes(999), compression='gzip') if 0 else None\n"
    "    noise = np.frombuffer(rng.bytes(4000), 'u1')\n"
    "    f.create_dataset('packed/noise', data=noise, chunks=(1000,), compression='gzip')\n"
    "    for i in range(300):\n"
    "        f.create_group('many/group_%d' % (i * 7919 % 300))\n"
    "    for i in range(0, 300, 3):\n"
    "        del f['many/group_%d' % i]\n"
    "    for i in range(60):\n"
    "        f['scalar'].attrs['attribute %d' % i] = np.arange(i)\n"
    "    for i in range(0, 60, 3):\n"
    "        del f['scalar'].attrs['attribute %d' % i]\n"
    "    f.attrs['text'] = 'of variable length'\n"
    "    f.attrs['bytes'] = np.bytes_('of fixed length')\n"
    "    f.attrs['empty'] = h5py.Empty('i4')\n"
    "    f.attrs['matrix'] = np.eye(3)\n"
    "    if latest: f['u1'].attrs['large'] = np.arange(20000)\n"
    "for name in 'earliest', 'latest', 'v108':\n"
    "    with h5py.File(name + '.h5', 'w', libver=name if name != 'v108' else ('v108', 'v108')) as "
    "f:\n"
    "        fill(f, name != 'earliest')\n"
    "with h5py.File('order.h5', 'w', libver='latest', track_order=True) as f:\n"
    "    for i in range(40):\n"
    "        f['x%d' % (40 - i)] = [i]\n"
    "        f.attrs['y%d' % (40 - i)] = i\n"
    "with h5py.File('empty.h5', 'w') as f: pass\n";

static bool run_python(const char *script) {
    const char *python = getenv("PYTHON");
    char command[2048];
    NEED_OK(hirl_path_write_whole(test_path("script.py"), script, strlen(script)));
    snprintf(command, sizeof command, "cd '%s' && LD_PRELOAD= '%s' script.py", test_folder(),
             python && *python ? python : "/usr/bin/python3");
    return system(command) == 0;
}

static void test_h5py(void) {
    NEED(run_python(SCRIPT));
    n_compared = 0;
    const int n = compare(test_path("earliest.h5"));
    CHECK(n > 230);
    const long n_earliest = n_compared;
    CHECK(n_earliest > 60);
    CHECK_EQ_I(compare(test_path("v108.h5")), n);
    CHECK_EQ_I(n_compared, 2 * n_earliest + 1); // the large attribute
    CHECK_EQ_I(compare(test_path("latest.h5")), n);
    CHECK_EQ_I(n_compared, 3 * n_earliest + 2 - 7); // without the chunked arrays
    CHECK_EQ_I(compare(test_path("order.h5")), 41);
    CHECK_EQ_I(compare(test_path("empty.h5")), 1);
}

// ------------------------------------------------------------------------------------ sizes

// So many links and attributes that trees and heaps have several levels.
static void test_many(void) {
    for (int is_new = 0; is_new < 2; is_new++) {
        const int n_links = 14000, n_attributes = is_new ? 3000 : 400;
        const char *path = test_path("many.h5");
        char name[64];
        hid_t access = H5Pcreate(H5P_FILE_ACCESS), space = H5Screate(H5S_SCALAR);
        if (is_new) H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
        hid_t group = H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        for (int i = 0; i < n_links; i++) {
            snprintf(name, sizeof name, "a link with a name of some length %d", i * 7919 % n_links);
            NEED(H5Lcreate_hard(file, "group", group, name, H5P_DEFAULT, H5P_DEFAULT) >= 0);
        }
        for (int i = 0; i < n_attributes; i++) {
            snprintf(name, sizeof name, "attribute %d", i);
            hid_t made = H5Acreate2(group, name, H5T_STD_I32BE, space, H5P_DEFAULT, H5P_DEFAULT);
            NEED(made >= 0 && H5Awrite(made, H5T_NATIVE_INT, &i) >= 0);
            H5Aclose(made);
        }
        H5Gclose(group);
        H5Sclose(space);
        H5Pclose(access);
        H5Fclose(file);
        CHECK_EQ_I(compare(path), 2);
    }
}

// ------------------------------------------------------------------------------------ numbers

// All halves, and numbers at the ends of their types, as HDF5 converts them.
static void test_numbers(void) {
    static uint16_t half[65536];
    static double want[65536], found[65536];
    static float want_f32[65536], found_f32[65536];
    const char *path = test_path("numbers.h5");
    const int64_t i64[] = {INT64_MIN, INT64_MIN + 1,   -1, 0, 1, (1LL << 53) + 1, (1LL << 24) + 1,
                           INT64_MAX, (1LL << 40) + 5, 3};
    const hsize_t n = 65536, n_i64 = 10;
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    hid_t space = H5Screate_simple(1, &n, NULL), few = H5Screate_simple(1, &n_i64, NULL);
    hid_t type = H5Tcopy(H5T_IEEE_F32LE), brain = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    H5Tset_fields(brain, 15, 7, 8, 0, 7);
    H5Tset_size(brain, 2);
    const hid_t types[] = {type, brain, H5T_STD_I64LE, H5T_STD_U64BE};
    const char *const names[] = {"half", "brain", "i64", "u64"};
    for (int t = 0; t < 4; t++) {
        hid_t set = H5Dcreate2(file, names[t], types[t], t < 2 ? space : few, H5P_DEFAULT,
                               H5P_DEFAULT, H5P_DEFAULT);
        NEED(set >= 0);
        NEED(H5Dwrite(set, types[t], H5S_ALL, H5S_ALL, H5P_DEFAULT,
                      t < 2 ? (const void *)half : (const void *)i64) >= 0);
        H5Dclose(set);
    }
    H5Fclose(file);
    hirl_h5_t *h5 = NULL;
    NEED_OK(hirl_h5_open(path, &h5));
    file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    for (int t = 0; t < 4; t++) {
        const hirl_h5_object_t *array =
            hirl_h5_object_view(h5, hirl_h5_find_link_view(h5, names[t])->object);
        hid_t set = H5Dopen2(file, names[t], H5P_DEFAULT);
        NEED(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, want) >= 0);
        NEED(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, want_f32) >= 0);
        NEED_OK(hirl_h5_read_numbers(h5, names[t], array, HIRL_H5_F64, found));
        NEED_OK(hirl_h5_read_numbers(h5, names[t], array, HIRL_H5_F32, found_f32));
        long n_differ = 0;
        for (int64_t i = 0; i < array->n_items; i++) {
            const bool is_nan = isnan(want[i]);
            n_differ += is_nan ? !isnan(found[i]) || !isnan(found_f32[i])
                               : want[i] != found[i] || want_f32[i] != found_f32[i];
        }
        CHECK_EQ_I(n_differ, 0);
        H5Dclose(set);
    }
    int32_t i32[16];
    int64_t back[16];
    const hirl_h5_object_t *array =
        hirl_h5_object_view(h5, hirl_h5_find_link_view(h5, "i64")->object);
    NEED_OK(hirl_h5_read_numbers(h5, "i64", array, HIRL_H5_I64, back));
    CHECK(memcmp(back, i64, sizeof i64) == 0);
    CHECK_FAILS(hirl_h5_read_numbers(h5, "i64", array, HIRL_H5_I32, i32), HIRL_ERR_MISMATCH,
                "cannot read i64 as i32: item 0 is -9223372036854775808");
    array = hirl_h5_object_view(h5, hirl_h5_find_link_view(h5, "half")->object);
    CHECK_FAILS(hirl_h5_read_numbers(h5, "half", array, HIRL_H5_I64, back), HIRL_ERR_MISMATCH,
                "half cannot be read as i64");
    H5Fclose(file);
    hirl_h5_close(&h5);
    H5Tclose(type);
    H5Tclose(brain);
    H5Sclose(space);
    H5Sclose(few);
}

TEST_MAIN {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    RUN(test_ours);
    RUN(test_h5py);
    RUN(test_many);
    RUN(test_numbers);
}
