// A folder of checkpoints: which there are, which may go.
#ifndef HIRL_CKPT_FOLDER_IMPL_H
#define HIRL_CKPT_FOLDER_IMPL_H

#include "hirl/ckpt.h"

/// Steps of the checkpoints in a folder, newest first; HIRL_OWN: free *steps_p with hirl_mem_free.
/// No folder: none.
hirl_status_t hirl_ckpt_folder_list(const char *folder, int64_t **steps_p, int *n_p);

/// Brings the folder's names to disk, where the file system can.
void hirl_ckpt_folder_sync(const char *folder);

/// Removes temporary files of writes that were killed. Failures are warnings.
void hirl_ckpt_folder_remove_stale(const char *folder);

/// Removes complete checkpoints but the `keep` newest and that of step `written`. Failures are
/// warnings: the checkpoint that was just written is good.
void hirl_ckpt_folder_keep(const char *folder, int64_t written, int64_t keep);

#endif
