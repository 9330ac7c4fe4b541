// Times the MoCo v2 training step of hirl.x on synthetic images: step BACKBONE STEM SIZE BATCH STEPS [PRECISION [DEVICE [group%key=value ...]]].
// Prints `step_seconds = <best>` `step_median = <median>` `step_mean = <of all, none waited for>` `upload_seconds = <views to the device, not part of a step>`
// `device_mib` `peak_mib = <peak resident memory>`; validation/bench/step.py and gpu_step.py compare them with PyTorch.
// With HIRL_BENCH_PROFILE set, a profiler of CUDA sees the last step alone (validation/gpu/step_kernels.py).

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "hirl/app.h"
#include "hirl/train.h"

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// CUDA's profilers wait for this call, which only programs with CUDA have.
static void profile(const char *call) {
    int (*function)(void) = NULL;
    void *found = getenv("HIRL_BENCH_PROFILE") ? dlsym(RTLD_DEFAULT, call) : NULL;
    if (!found) return;
    memcpy(&function, &found, sizeof function);
    function();
}

// A device's views lie there before the first step, as PyTorch's do.
static hirl_status_t keep_views(hirl_session_t *s, const hirl_batch_t *b, hirl_tensor_t view[2]) {
    for (int v = 0; v < 2; ++v) {
        hirl_shape_t shape = hirl_shape_4(b->n, b->size[v], b->width[v], b->channels);
        HIRL_TRY(hirl_backend_tensor(s->backend, shape, HIRL_F32, &view[v]));
        HIRL_TRY(hirl_backend_upload(s->backend, b->view[v], &view[v]));
    }
    return HIRL_OK;
}

// Median of three copies of the batch's views into the backend's memory.
static hirl_status_t time_upload(hirl_backend_t *be, const float *images, int64_t count,
                                 double *seconds_p) {
    hirl_tensor_t t = {0};
    double seconds[3];
    HIRL_TRY(hirl_backend_tensor(be, hirl_shape_1(2 * count), HIRL_F32, &t));
    for (int i = 0; i < 3; ++i) {
        double start = hirl_time_now();
        hirl_status_t status = hirl_backend_upload(be, images, &t);
        if (status == HIRL_OK) status = hirl_backend_synchronize(be);
        seconds[i] = hirl_time_now() - start;
        if (status != HIRL_OK) {
            hirl_tensor_reset(&t);
            return status;
        }
    }
    hirl_tensor_reset(&t);
    qsort(seconds, 3, sizeof *seconds, compare);
    *seconds_p = seconds[1];
    return HIRL_OK;
}

static hirl_status_t bench(hirl_world_t *world, int argc, char **argv) {
    int n_groups, size = atoi(argv[3]), batch = atoi(argv[4]), steps = atoi(argv[5]);
    const hirl_group_t *const *groups = hirl_app_groups(&n_groups);
    hirl_deck_t *deck = NULL;
    hirl_session_t *s = NULL;
    hirl_reducer_t *reducer = NULL;
    char text[1024];
    double *seconds = calloc((size_t)steps, sizeof *seconds);
    int64_t count = (int64_t)batch * size * size * 3, *index = calloc((size_t)batch, sizeof *index);
    float *images = aligned_alloc(64, ((size_t)count * 2 * sizeof *images + 63) / 64 * 64);
    hirl_rng_t rng = hirl_rng_make(1, HIRL_RNG_TEST, 0, 0, 0);
    if (!seconds || !index || !images) return HIRL_FAIL(HIRL_ERR_MEMORY, "synthetic batch");
    for (int64_t i = 0; i < 2 * count; ++i) images[i] = (float)hirl_rng_range(&rng, -2, 2);
    HIRL_TRY(hirl_deck_create(groups, n_groups, &deck));
    int n = snprintf(text, sizeof text,
                     "&run task='pretrain' method='mocov2' precision='%s' device='%s' /\n&model "
                     "backbone='%s' stem='%s' /\n"
                     "&views crop_size=%d /\n&optim batch=%d lr=0.03 /\n&mocov2 queue=%d /\n",
                     argv[6] ? argv[6] : "f32", argv[6] && argv[7] ? argv[7] : "cpu", argv[1],
                     argv[2], size, batch, 16384 / batch * batch);
    HIRL_TRY(hirl_deck_read_text(deck, "bench", text, (size_t)n));
    for (int i = 8; i < argc; ++i) HIRL_TRY(hirl_deck_override(deck, argv[i]));
    HIRL_TRY(hirl_session_create(world, deck, 3, 0, &s));
    HIRL_TRY(hirl_reducer_create(world, s->tape, 4, s->registry, s->n_trainable, &reducer));
    hirl_batch_t b = {.n = batch,
                      .index = index,
                      .n_views = 2,
                      .size = {size, size},
                      .width = {size, size},
                      .channels = 3,
                      .view = {images, images + count}};
    double upload = 0, begin = 0;
    // The first step makes primitives and fills the pool; a device also needs some to reach its clock.
    const bool is_device = hirl_backend_stream_view(s->backend) != NULL;
    const int n_warm = is_device ? 4 : 1;
    hirl_tensor_t view[2] = {{0}};
    if (is_device) HIRL_TRY(keep_views(s, &b, view));
    for (int i = -n_warm; i < steps; ++i) {
        hirl_step_result_t result;
        if (i == 0 || i == steps - 1) HIRL_TRY(hirl_backend_synchronize(s->backend));
        if (i == 0) begin = hirl_time_now();
        if (i == steps - 1) profile("cudaProfilerStart");
        double start = hirl_time_now();
        hirl_step_request_t request = {
            .batch = &b, .view = is_device ? view : NULL, .step = i + n_warm, .lr = 0.03};
        HIRL_TRY(hirl_session_step(s, reducer, &request, &result));
        if (i >= 0) seconds[i] = hirl_time_now() - start;
    }
    HIRL_TRY(hirl_backend_synchronize(s->backend));
    double mean = (hirl_time_now() - begin) / steps;
    profile("cudaProfilerStop");
    HIRL_TRY(time_upload(s->backend, images, count, &upload));
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(seconds, (size_t)steps, sizeof *seconds, compare);
    printf("step_seconds = %.6f\nstep_median = %.6f\nstep_mean = %.6f\nupload_seconds = %.6f\n",
           seconds[0], seconds[steps / 2], mean, upload);
    printf("device_mib = %.1f\npeak_mib = %.1f\n",
           (double)hirl_backend_memory_peak(s->backend) / 1048576.0,
           (double)usage.ru_maxrss / 1024.0);
    for (int v = 0; v < 2; ++v) hirl_tensor_reset(&view[v]);
    hirl_reducer_destroy(&reducer);
    hirl_session_destroy(&s);
    hirl_deck_destroy(&deck);
    free(seconds);
    free(index);
    free(images);
    return HIRL_OK;
}

int main(int argc, char **argv) {
    hirl_world_t *world = NULL;
    if (argc < 6) {
        fprintf(stderr, "usage: step BACKBONE STEM SIZE BATCH STEPS [PRECISION [DEVICE "
                        "[group%%key=value ...]]]\n");
        return 2;
    }
    hirl_status_t status = hirl_world_create(&argc, &argv, &world);
    hirl_log_setup(HIRL_LOG_WARN, 0);
    if (status == HIRL_OK) status = bench(world, argc, argv);
    if (status != HIRL_OK)
        fprintf(stderr, "%s (%s)\n", hirl_error_text_view(), hirl_error_place_view());
    hirl_world_destroy(&world);
    return status != HIRL_OK;
}
