// An HDF5 file driver that writes to a descriptor and keeps failures to itself. After a failed
// write (a full disk) HDF5 1.10 cannot close the file, keeps half of it in memory and crashes when
// the process ends. Here HDF5 sees every write succeed; the first cause is kept, later writes are
// dropped, and the writer asks after each array. The descriptor stays open after HDF5's close, so
// that the very file that was written is synced.
#include "driver_impl.h"

#include "ckpt_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

// What HDF5 holds; its first member is HDF5's own.
typedef struct open_file {
    H5FD_t base;
    hirl_ckpt_sink_t *sink;
    haddr_t end_allocated, end_written;
} open_file_t;

enum { WRITE_MAX = 1 << 30 }; // Linux writes at most 2^31 - 4096 bytes at a time

static H5FD_t *driver_open(const char *name, unsigned flags, hid_t access, haddr_t max_address) {
    (void)name, (void)flags, (void)max_address;
    hirl_ckpt_sink_t *const *sink = H5Pget_driver_info(access);
    void *file = NULL;
    if (!sink || hirl_mem_calloc(HIRL_MEM_GENERAL, 1, sizeof(open_file_t), &file) != HIRL_OK)
        return NULL;
    ((open_file_t *)file)->sink = *sink;
    return file;
}

static herr_t driver_close(H5FD_t *base) {
    hirl_mem_free(base);
    return 0;
}

static herr_t driver_query(const H5FD_t *base, unsigned long *flags) {
    (void)base;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
             H5FD_FEAT_AGGREGATE_SMALLDATA;
    return 0;
}

static haddr_t driver_get_eoa(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return ((const open_file_t *)base)->end_allocated;
}

static herr_t driver_set_eoa(H5FD_t *base, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((open_file_t *)base)->end_allocated = address;
    return 0;
}

static haddr_t driver_get_eof(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return ((const open_file_t *)base)->end_written;
}

// What was never written reads as zero, as in any file with a hole.
static herr_t driver_read(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address,
                          size_t size, void *out) {
    (void)type, (void)transfer;
    char *at = out;
    while (size > 0) {
        const ssize_t n = pread(((open_file_t *)base)->sink->fd, at, size, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        at += n;
        address += (haddr_t)n;
        size -= (size_t)n;
    }
    memset(at, 0, size);
    return 0;
}

static herr_t driver_write(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address,
                           size_t size, const void *data) {
    (void)type, (void)transfer;
    open_file_t *file = (open_file_t *)base;
    hirl_ckpt_sink_t *sink = file->sink;
    const char *at = data;
    if (address + size > file->end_written) file->end_written = address + size;
    while (size > 0 && sink->cause == 0) {
        const ssize_t n = pwrite(sink->fd, at, size < WRITE_MAX ? size : WRITE_MAX, (off_t)address);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            sink->cause = n < 0 ? errno : EIO;
            break;
        }
        at += n;
        address += (haddr_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static herr_t driver_truncate(H5FD_t *base, hid_t transfer, hbool_t is_closing) {
    (void)transfer, (void)is_closing;
    open_file_t *file = (open_file_t *)base;
    if (file->end_written == file->end_allocated) return 0;
    if (file->sink->cause == 0 && ftruncate(file->sink->fd, (off_t)file->end_allocated) != 0) {
        file->sink->cause = errno;
    }
    file->end_written = file->end_allocated;
    return 0;
}

static const H5FD_class_t DRIVER = {
#ifdef H5FD_CLASS_VERSION
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)600, // HDF5 keeps 512 and above for programs' own drivers
#endif
    .name = "hirl_sink",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(hirl_ckpt_sink_t *),
    .open = driver_open,
    .close = driver_close,
    .query = driver_query,
    .get_eoa = driver_get_eoa,
    .set_eoa = driver_set_eoa,
    .get_eof = driver_get_eof,
    .read = driver_read,
    .write = driver_write,
    .truncate = driver_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

hirl_status_t hirl_ckpt_sink_init(hirl_ckpt_sink_t *sink, const char *temporary, const char *path) {
    const int fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "%s: cannot create it: %s", path, strerror(errno));
    *sink = (hirl_ckpt_sink_t){.fd = fd, .driver = H5FDregister(&DRIVER)};
    if (sink->driver < 0) {
        close(fd);
        return HIRL_FAIL_H5("%s: cannot register the file driver", path);
    }
    return HIRL_OK;
}

hirl_status_t hirl_ckpt_sink_attach(hirl_ckpt_sink_t *sink, hid_t access, const char *path) {
    HIRL_TRY_H5(H5Pset_driver(access, sink->driver, &sink), "%s: cannot choose the file driver",
                path);
    return HIRL_OK;
}

hirl_status_t hirl_ckpt_sink_check(const hirl_ckpt_sink_t *sink, const char *path) {
    HIRL_REQUIRE(sink->cause == 0, HIRL_ERR_IO, "%s: cannot write it: %s", path,
                 strerror(sink->cause));
    return HIRL_OK;
}

hirl_status_t hirl_ckpt_sink_sync(hirl_ckpt_sink_t *sink, const char *path) {
    HIRL_TRY(hirl_ckpt_sink_check(sink, path));
    HIRL_REQUIRE(fsync(sink->fd) == 0, HIRL_ERR_IO, "%s: cannot bring it to disk: %s", path,
                 strerror(errno));
    return HIRL_OK;
}

void hirl_ckpt_sink_reset(hirl_ckpt_sink_t *sink) {
    H5FDunregister(sink->driver);
    close(sink->fd);
    *sink = (hirl_ckpt_sink_t){.fd = -1, .driver = H5I_INVALID_HID};
}
