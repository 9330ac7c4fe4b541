/// @file pack_util.h
/// What the tests of packing and of shards share: whole files, settings, and worlds.
#ifndef HIRL_PACK_UTIL_H
#define HIRL_PACK_UTIL_H

#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <zlib.h>

#include "hirl/data.h"

#define FASHION "/usr/share/datasets/fashion-mnist"
#define IMAGES "validation/reference/pack/images"

/// A file in memory; free(bytes).
typedef struct file_bytes {
    unsigned char *bytes;
    size_t size;
} file_bytes_t;

TEST_INLINE file_bytes_t load_file(const char *path) {
    file_bytes_t file = {NULL, 0};
    FILE *stream = fopen(path, "rb");
    if (!stream) {
        CHECK_MSG(false, "%s: %s", path, strerror(errno));
        return file;
    }
    fseek(stream, 0, SEEK_END);
    file.size = (size_t)ftell(stream);
    rewind(stream);
    file.bytes = malloc(file.size + 1);
    NEED(fread(file.bytes, 1, file.size, stream) == file.size);
    file.bytes[file.size] = '\0';
    fclose(stream);
    return file;
}

TEST_INLINE void save_file(const char *path, const void *bytes, size_t size) {
    FILE *stream = fopen(path, "wb");
    NEED(stream != NULL);
    NEED(fwrite(bytes, 1, size, stream) == size);
    NEED(fclose(stream) == 0);
}

TEST_INLINE void save_gzip(const char *path, const void *bytes, size_t size) {
    gzFile stream = gzopen(path, "wb1");
    NEED(stream != NULL);
    NEED(gzwrite(stream, bytes, (unsigned)size) == (int)size);
    NEED(gzclose(stream) == Z_OK);
}

TEST_INLINE bool is_there(const char *path) { return access(path, F_OK) == 0; }

/// Number of files in a folder whose names end so.
TEST_INLINE int count_files(const char *folder, const char *tail) {
    int n = 0;
    DIR *dir = opendir(folder);
    NEED(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name), wanted = strlen(tail);
        n += length >= wanted && strcmp(entry->d_name + length - wanted, tail) == 0 &&
             entry->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

/// Every file of one folder has its equal in the other, byte for byte.
TEST_INLINE void check_same_folders(const char *a, const char *b) {
    CHECK_EQ_I(count_files(a, ""), count_files(b, ""));
    DIR *dir = opendir(a);
    NEED(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        if (entry->d_name[0] == '.') continue;
        char a_path[2048], b_path[2048];
        snprintf(a_path, sizeof a_path, "%s/%s", a, entry->d_name);
        snprintf(b_path, sizeof b_path, "%s/%s", b, entry->d_name);
        file_bytes_t x = load_file(a_path), y = load_file(b_path);
        CHECK_MSG(x.size == y.size && memcmp(x.bytes, y.bytes, x.size) == 0, "%s and %s differ",
                  a_path, b_path);
        free(x.bytes);
        free(y.bytes);
    }
    closedir(dir);
}

TEST_INLINE hirl_pack_cfg_t pack_cfg(const char *source, const char *split, const char *output) {
    hirl_pack_cfg_t cfg = {.shard_mib = 1024};
    snprintf(cfg.source, sizeof cfg.source, "%s", source);
    snprintf(cfg.format, sizeof cfg.format, "auto");
    snprintf(cfg.split, sizeof cfg.split, "%s", split);
    snprintf(cfg.output, sizeof cfg.output, "%s", output);
    return cfg;
}

TEST_INLINE hirl_data_cfg_t data_cfg(const char *access) {
    hirl_data_cfg_t cfg = {.verify = true};
    snprintf(cfg.access, sizeof cfg.access, "%s", access);
    return cfg;
}

/// A shell command that must succeed; rank 0 runs it.
__attribute__((unused, format(printf, 1, 2))) static void shell(const char *format, ...) {
    if (test_rank() == 0) {
        char command[4096];
        va_list args;
        va_start(args, format);
        vsnprintf(command, sizeof command, format, args);
        va_end(args);
        CHECK_MSG(system(command) == 0, "%s", command);
    }
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
}

/// All bytes of an IDX file behind its header, read by zlib; free(bytes).
TEST_INLINE file_bytes_t load_idx(const char *path, size_t header) {
    file_bytes_t file = {malloc(64 << 20), 0};
    gzFile stream = gzopen(path, "rb");
    NEED(stream != NULL);
    unsigned char skipped[16];
    NEED(gzread(stream, skipped, (unsigned)header) == (int)header);
    int n = gzread(stream, file.bytes, 64 << 20);
    NEED(n > 0);
    file.size = (size_t)n;
    gzclose(stream);
    return file;
}

#endif
