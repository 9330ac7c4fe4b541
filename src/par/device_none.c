// Communication of device memory in a build without CUDA: there is none. Another file of the same functions stands in for this one with
// CUDA=1.
#include "par_impl.h"

static hirl_status_t fail(void) {
    return HIRL_FAIL(HIRL_ERR_UNSUPPORTED,
                     "this program was built without NCCL; build with make CUDA=1");
}

hirl_status_t hirl_par_device_create(hirl_world_t *world, void *stream,
                                     hirl_par_device_t **device_p) {
    (void)world, (void)stream, (void)device_p;
    return fail();
}

void hirl_par_device_destroy(hirl_par_device_t **device) { (void)device; }

hirl_status_t hirl_par_device_all_reduce_begin(hirl_par_device_t *device, float *d_data,
                                               int64_t n) {
    (void)device, (void)d_data, (void)n;
    return fail();
}

hirl_status_t hirl_par_device_all_reduce_end(hirl_par_device_t *device) {
    (void)device;
    return fail();
}

hirl_status_t hirl_par_device_all_reduce(hirl_par_device_t *device, float *d_data, int64_t n) {
    (void)device, (void)d_data, (void)n;
    return fail();
}

hirl_status_t hirl_par_device_all_gather(hirl_par_device_t *device, const float *d_in, int64_t n,
                                         float *d_out) {
    (void)device, (void)d_in, (void)n, (void)d_out;
    return fail();
}

hirl_status_t hirl_par_device_all_to_all_v(hirl_par_device_t *device, const float *d_in,
                                           const int64_t *send_counts, float *d_out,
                                           const int64_t *recv_counts) {
    (void)device, (void)d_in, (void)send_counts, (void)d_out, (void)recv_counts;
    return fail();
}

hirl_status_t hirl_par_device_split(hirl_par_device_t *device, hirl_world_t *group,
                                    hirl_par_device_t **group_p) {
    (void)device, (void)group, (void)group_p;
    return fail();
}
