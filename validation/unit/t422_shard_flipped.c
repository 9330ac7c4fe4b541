// test: timeout=60 sanitize=no
// Damage in what HDF5 itself keeps in a shard. Its checksums see it; without them (the library's
// default form of files) it crashes over some of these changes. Not for the leak sanitizer: HDF5
// forgets memory when it refuses a block.
#include "pack_util.h"

#include <hdf5.h>

// Each byte of HDF5's own blocks ahead of the arrays, changed: refused, or without any effect.
static void test_flipped(void) {
    const char *path = test_path("shards/train-00000.h5"), *copy = test_path("flipped.h5");
    hirl_text_t whole = {0}, flipped = {0};
    NEED_OK(hirl_shard_describe(path, &whole));
    file_bytes_t file = load_file(path);
    hid_t h5 = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    haddr_t first = HADDR_UNDEF;
    const char *const names[] = {"/offset", "/height", "/name", "/data", "/checksum"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        hid_t object = H5Dopen2(h5, names[i], H5P_DEFAULT);
        if (H5Dget_offset(object) < first) first = H5Dget_offset(object);
        H5Dclose(object);
    }
    H5Fclose(h5);
    NEED(first > 100 && first < file.size);
    long n_refused = 0, n_changed = 0;
    for (haddr_t at = 0; at < first; at += 5) {
        file.bytes[at] ^= 0x11;
        save_file(copy, file.bytes, file.size);
        file.bytes[at] ^= 0x11;
        hirl_text_reset(&flipped);
        if (hirl_shard_describe(copy, &flipped) != HIRL_OK) {
            n_refused++;
        } else {
            const char *a = strchr(whole.data, '\n'), *b = strchr(flipped.data, '\n');
            n_changed += strcmp(a, b) != 0; // behind the first line, which has the path
        }
    }
    printf("%ld of %llu changes refused\n", n_refused, (unsigned long long)(first + 4) / 5);
    CHECK(n_refused > 0 && n_changed == 0);
    free(file.bytes);
    hirl_text_reset(&whole);
    hirl_text_reset(&flipped);
}

TEST_MAIN {
    hirl_world_t *world = NULL;
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    hirl_pack_cfg_t cfg = pack_cfg(IMAGES, "train", test_path("shards"));
    NEED_OK(hirl_data_pack(world, &cfg));
    RUN(test_flipped);
    hirl_world_destroy(&world);
}
