// run%task = 'pack': builds shards from images.

#include "app_impl.h"

static hirl_status_t run(hirl_world_t *world, const hirl_deck_t *deck, int *exit_code_p) {
    HIRL_TRY(hirl_data_pack(world, hirl_deck_group_view(deck, "pack")));
    *exit_code_p = APP_EXIT_OK;
    return HIRL_OK;
}

static const char *const groups[] = {"run", "pack", NULL};
const app_task_t app_task_pack = {
    "pack", "build HDF5 shards from IDX files, CIFAR binaries or an image folder", groups, NULL,
    run};
