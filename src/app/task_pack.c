// run%task = 'pack': builds shards from images.

#include "app_impl.h"

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    HIRL_TRY(hirl_signal_begin(HIRL_SIGNAL_CANCELS));
    hirl_status_t status = hirl_data_pack(world, hirl_deck_group_view(deck, "pack"));
    hirl_signal_end();
    *exit_code_p = status == HIRL_ERR_INTERRUPTED ? APP_EXIT_INTERRUPTED : APP_EXIT_OK;
    return status == HIRL_ERR_INTERRUPTED ? HIRL_OK : status;
}

static const char *const groups[] = {"run", "pack", NULL};
const app_task_t app_task_pack = {
    "pack", "build HDF5 shards from image folders, lists, tar archives and published data sets",
    groups, NULL, run};
