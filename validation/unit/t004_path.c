// Folders, files that are whole or absent, and XXH64 against published values.
// test: timeout=30
#include "hirl/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>

#include "test.h"

static bool is_folder(const char *path) {
    struct stat found;
    return stat(path, &found) == 0 && S_ISDIR(found.st_mode);
}

static int n_entries(const char *folder) {
    DIR *listing = opendir(folder);
    int n = -2; // . and ..
    while (listing && readdir(listing)) n++;
    if (listing) closedir(listing);
    return n;
}

static bool holds(const char *path, const char *want, size_t size) {
    char got[256] = "";
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    const size_t n = fread(got, 1, sizeof got, file);
    fclose(file);
    return n == size && memcmp(got, want, size) == 0;
}

static void test_folders(void) {
    CHECK_OK(hirl_path_make_folder(test_path("a/b/c")));
    CHECK(is_folder(test_path("a/b/c")));
    CHECK_OK(hirl_path_make_folder(test_path("a/b/c")));
    CHECK_OK(hirl_path_make_folder(test_path("a//d/")));
    CHECK(is_folder(test_path("a/d")));
    CHECK_OK(hirl_path_make_folder("/"));
    CHECK_FAILS(hirl_path_make_folder(""), HIRL_ERR_ARG, "empty");
    CHECK_OK(hirl_path_write_whole(test_path("file"), "x", 1));
    CHECK_FAILS(hirl_path_make_folder(test_path("file")), HIRL_ERR_IO, "not a folder");
    CHECK_FAILS(hirl_path_make_folder(test_path("file/deeper")), HIRL_ERR_IO, "file");
    char large[9000];
    memset(large, 'a', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    CHECK_FAILS(hirl_path_make_folder(large), HIRL_ERR_ARG, "does not fit");
}

static void test_files(void) {
    const char *folder = test_path("files"), *path = test_path("files/deck.nml");
    NEED_OK(hirl_path_make_folder(folder));
    CHECK_OK(hirl_path_write_whole(path, "a\0b", 3));
    CHECK(holds(path, "a\0b", 3));
    CHECK_OK(hirl_path_write_whole(path, "newer", 5));
    CHECK(holds(path, "newer", 5));
    CHECK_OK(hirl_path_write_whole(path, NULL, 0));
    CHECK(holds(path, "", 0));
    CHECK_EQ_I(n_entries(folder), 1);

    // A name without a folder is of the current one.
    const int here = open(".", O_RDONLY | O_DIRECTORY);
    NEED(chdir(folder) == 0);
    CHECK_OK(hirl_path_write_whole("plain", "x", 1));
    NEED(fchdir(here) == 0);
    close(here);
    CHECK(holds(test_path("files/plain"), "x", 1));

    CHECK_FAILS(hirl_path_write_whole(test_path("no/such/x"), "x", 1), HIRL_ERR_IO, "no/such/x");
    CHECK_FAILS(hirl_path_write_whole("", "x", 1), HIRL_ERR_ARG, "empty");
    CHECK_FAILS(hirl_path_write_whole(folder, "x", 1), HIRL_ERR_IO, "into place");
    CHECK_EQ_I(n_entries(test_folder()), 3); // a, file, files, and no temporary file beside them
}

// A write that fails half way leaves the old content and nothing else.
static void test_full_disk(void) {
    const char *path = test_path("limited/x");
    NEED_OK(hirl_path_make_folder(test_path("limited")));
    NEED_OK(hirl_path_write_whole(path, "old", 3));
    static char large[100000];
    struct rlimit old, small;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 60000;
    setrlimit(RLIMIT_FSIZE, &small);
    const hirl_status_t status = hirl_path_write_whole(path, large, sizeof large);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK_FAILS(status, HIRL_ERR_IO, "limited/x: cannot write it: File too large");
    CHECK(holds(path, "old", 3));
    CHECK_EQ_I(n_entries(test_path("limited")), 1);
}

static void test_hash(void) {
    // From the xxHash project's documentation and its bindings.
    CHECK(hirl_hash64("", 0) == UINT64_C(0xef46db3751d8e999));
    CHECK(hirl_hash64(NULL, 0) == UINT64_C(0xef46db3751d8e999));
    CHECK(hirl_hash64("a", 1) == UINT64_C(0xd24ec4f1a98c6e5b));
    CHECK(hirl_hash64("abc", 3) == UINT64_C(0x44bc2cf5ad770999));
    const char *text = "Nobody inspects the spammish repetition";
    CHECK(hirl_hash64(text, strlen(text)) == UINT64_C(0xfbcea83c8a378bf1));
}

TEST_MAIN {
    RUN(test_folders);
    RUN(test_files);
    RUN(test_full_disk);
    RUN(test_hash);
}
