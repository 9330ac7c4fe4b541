/// @file fuzz.h
/// What the fuzz targets share: checks that end the process, a scratch folder in memory, and the two
/// ways to run a target: under libFuzzer (`make fuzz`), or over the kept corpus as a test
/// (HIRL_FUZZ_REPLAY, needs no libFuzzer).
///
/// A target defines fuzz_begin(), fuzz_one() and fuzz_write_seeds(). With HIRL_FUZZ_SEEDS=FOLDER in
/// the environment it writes its own seeds there before it starts.
#ifndef HIRL_FUZZ_H
#define HIRL_FUZZ_H

#ifdef HIRL_FUZZ_REPLAY
#include "test.h"
#endif

#include <dirent.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hirl/base.h"

static void fuzz_begin(void);
static void fuzz_one(const uint8_t *data, size_t size);
static void fuzz_write_seeds(void);

#define FUZZ_INLINE __attribute__((unused)) static

// ------------------------------------------------------------------------------------ checks

__attribute__((unused, noreturn, format(printf, 3, 4))) static void
fuzz_fail(const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nlast failure: %s (%s)\n", hirl_error_text_view(), hirl_error_place_view());
    va_end(args);
    abort();
}

/// What must hold for every input, hostile or not; the fuzzer keeps an input for which it does not.
#define FUZZ_CHECK(cond, ...)                                    \
    do {                                                         \
        if (!(cond)) fuzz_fail(__FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

/// Messages go to terminals and logs: no control characters but the ends of lines.
FUZZ_INLINE bool fuzz_is_printable(const char *text, bool has_lines) {
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if ((c < 0x20 && !(has_lines && c == '\n')) || c == 0x7f) return false;
    }
    return true;
}

/// A refusal has a cause that can be shown.
FUZZ_INLINE void fuzz_check_refusal(hirl_status_t status) {
    FUZZ_CHECK(status != HIRL_ERR_INTERNAL, "an internal error");
    FUZZ_CHECK(hirl_error_status() == status, "status '%s' was not recorded",
               hirl_status_text(status));
    FUZZ_CHECK(hirl_error_text_view()[0], "no message");
    FUZZ_CHECK(fuzz_is_printable(hirl_error_text_view(), true), "control characters in a message");
}

// ------------------------------------------------------------------------------------ files

static char fuzz_folder[256];

FUZZ_INLINE const char *fuzz_path(const char *name) {
    static char path[4][512];
    static int next;
    char *buf = path[next++ % 4];
    snprintf(buf, sizeof path[0], "%s/%s", fuzz_folder, name);
    return buf;
}

FUZZ_INLINE void fuzz_save(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    FUZZ_CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0, "cannot write %s",
               path);
}

/// A file as a block of exactly its size; free() it.
FUZZ_INLINE uint8_t *fuzz_load(const char *path, size_t *size_p) {
    FILE *file = fopen(path, "rb");
    FUZZ_CHECK(file && fseek(file, 0, SEEK_END) == 0, "cannot read %s", path);
    *size_p = (size_t)ftell(file);
    rewind(file);
    uint8_t *data = malloc(*size_p ? *size_p : 1);
    FUZZ_CHECK(data && fread(data, 1, *size_p, file) == *size_p, "cannot read %s", path);
    fclose(file);
    return data;
}

FUZZ_INLINE void fuzz_save_seed(const char *name, const void *data, size_t size) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", getenv("HIRL_FUZZ_SEEDS"), name);
    fuzz_save(path, data, size);
}

FUZZ_INLINE int fuzz_remove_entry(const char *path, const struct stat *found, int kind,
                                  struct FTW *place) {
    (void)found, (void)kind, (void)place;
    (void)remove(path);
    return 0;
}

FUZZ_INLINE void fuzz_remove_folder(void) {
    (void)nftw(fuzz_folder, fuzz_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void fuzz_set_up(void) {
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/hirl-fuzz.XXXXXX", base);
    FUZZ_CHECK(mkdtemp(fuzz_folder), "cannot make %s", fuzz_folder);
    atexit(fuzz_remove_folder);
    fuzz_begin();
    if (getenv("HIRL_FUZZ_SEEDS")) fuzz_write_seeds();
}

// ------------------------------------------------------------------------------------ running

#ifdef HIRL_FUZZ_REPLAY

static int fuzz_by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

/// Runs the target over all files of a folder; a check that fails ends the test.
FUZZ_INLINE void fuzz_replay(const char *folder) {
    struct dirent **list = NULL;
    char path[1024];
    fuzz_set_up();
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    const int n = scandir(folder, &list, NULL, fuzz_by_name);
    int n_replayed = 0;
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (list[i]->d_name[0] != '.') {
            size_t size = 0;
            uint8_t *data = fuzz_load(path, &size);
            fprintf(stderr, "%s, %zu bytes\n", path, size);
            fuzz_one(data, size);
            free(data);
            n_replayed++;
            CHECK_EQ_I(hirl_mem_held(HIRL_MEM_KIND_COUNT), held);
        }
        free(list[i]);
    }
    free(list);
    printf("%d inputs of %s replayed\n", n_replayed, folder);
    CHECK(n_replayed > 0);
}

#else

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    fuzz_set_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static size_t held = SIZE_MAX;
    if (held == SIZE_MAX) held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    fuzz_one(data, size);
    FUZZ_CHECK(hirl_mem_held(HIRL_MEM_KIND_COUNT) == held, "%zu bytes are held, expected %zu",
               hirl_mem_held(HIRL_MEM_KIND_COUNT), held);
    return 0;
}

#endif
#endif
