// The file driver that checkpoints are written through.
#ifndef HIRL_CKPT_DRIVER_IMPL_H
#define HIRL_CKPT_DRIVER_IMPL_H

#include <hdf5.h>

#include "hirl/base.h"

/// A file being written. init with hirl_ckpt_sink_init; the caller keeps it until HDF5 has closed
/// the file.
typedef struct hirl_ckpt_sink {
    int fd;
    int cause; // errno of the first write that failed; 0: none. Later writes are dropped.
    hid_t driver;
} hirl_ckpt_sink_t;

/// Creates the file `temporary`. `path` stands for it in messages. Errors: HIRL_ERR_IO,
/// HIRL_ERR_HDF5.
hirl_status_t hirl_ckpt_sink_init(hirl_ckpt_sink_t *sink, const char *temporary, const char *path);

/// Makes file access properties use the sink.
hirl_status_t hirl_ckpt_sink_attach(hirl_ckpt_sink_t *sink, hid_t access, const char *path);

/// Fails if a write failed.
hirl_status_t hirl_ckpt_sink_check(const hirl_ckpt_sink_t *sink, const char *path);

/// Checks, and brings what was written to the disk.
hirl_status_t hirl_ckpt_sink_sync(hirl_ckpt_sink_t *sink, const char *path);

/// Closes the descriptor and forgets the driver.
void hirl_ckpt_sink_reset(hirl_ckpt_sink_t *sink);

#endif
