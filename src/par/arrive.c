// Tells a failure that all ranks share from one that is a rank's own: do all ranks come here soon?

#include <unistd.h>

#include "par_impl.h"

bool hirl_par_all_arrive(hirl_world_t *world, double seconds) {
    MPI_Request request;
    int is_done = 0;
    double start = hirl_time_now();
    if (world->size == 1) return true;
    // a non-blocking barrier never matches the blocking collective another rank may be waiting in
    if (MPI_Ibarrier(world->comm, &request) != MPI_SUCCESS) return false;
    while (!is_done && hirl_time_now() - start < seconds) {
        if (MPI_Test(&request, &is_done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
        if (!is_done) usleep(1000);
    }
    return is_done != 0;
}
