/// @file reference.h
/// Reads the arrays that make_reference.py wrote. Include after test.h.
#ifndef HIRL_CLUSTER_REFERENCE_H
#define HIRL_CLUSTER_REFERENCE_H

enum {
    REF_N = 3000,
    REF_D = 24,
    REF_K = 50,
    REF_LEVELS = 3,
    REF_QUERIES = 500,
    REF_LIST = 50,
    REF_CLASSES = 20
};

/// The file's n items of `size` bytes, in counted memory; the test ends if it does not hold exactly
/// so many.
TEST_INLINE void *reference_read(const char *name, int64_t n, size_t size) {
    char path[256];
    void *data = NULL;
    snprintf(path, sizeof(path), "validation/reference/cluster/%s", name);
    FILE *file = fopen(path, "rb");
    if (!CHECK_MSG(file != NULL, "cannot open %s from the folder of this run", path))
        test_give_up();
    NEED_OK(hirl_mem_alloc(HIRL_MEM_GENERAL, (size_t)n * size + 1, &data));
    const size_t got = fread(data, 1, (size_t)n * size + 1, file);
    fclose(file);
    if (!CHECK_MSG(got == (size_t)n * size, "%s has %zu bytes (or more), want %zu", path, got,
                   (size_t)n * size))
        test_give_up();
    return data;
}

#endif
