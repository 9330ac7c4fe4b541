// The end of a failure that may be one rank's alone: apart from main.c, so that programs which link
// the tasks without it have it too.

#include "app_impl.h"

void app_settle(hirl_world_t *world, hirl_status_t status) {
    if (status == HIRL_OK || hirl_par_all_arrive(world, 2.0)) return;
    hirl_log_rank(HIRL_LOG_ERROR, "%s (%s)", hirl_error_text_view(), hirl_error_place_view());
    hirl_world_abort(world, APP_EXIT_FAILURE);
}
