// Times the MoCo v2 training step of hirl.x on synthetic images: step BACKBONE STEM SIZE BATCH STEPS [PRECISION].
// Prints `step_seconds = <best>` `step_median = <median>` `peak_mib = <peak resident memory>`; validation/bench/step.py compares them with PyTorch.

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "hirl/app.h"
#include "hirl/train.h"

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static hirl_status_t bench(hirl_world_t *world, char **argv) {
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
    int n = snprintf(
        text, sizeof text,
        "&run task='pretrain' method='mocov2' precision='%s' /\n&model backbone='%s' stem='%s' /\n"
        "&views crop_size=%d /\n&optim batch=%d lr=0.03 /\n&mocov2 queue=%d /\n",
        argv[6] ? argv[6] : "f32", argv[1], argv[2], size, batch, 16384 / batch * batch);
    HIRL_TRY(hirl_deck_read_text(deck, "bench", text, (size_t)n));
    HIRL_TRY(hirl_session_create(world, deck, 3, 0, &s));
    HIRL_TRY(hirl_reducer_create(world, s->device, s->tape, 4, s->registry, s->n_trainable, &reducer));
    hirl_batch_t b = {.n = batch,
                      .index = index,
                      .n_views = 2,
                      .size = {size, size},
                      .width = {size, size},
                      .channels = 3,
                      .view = {images, images + count}};
    for (int i = -1; i < steps; ++i) { // the first step makes primitives and fills the pool
        hirl_step_result_t result;
        double start = hirl_time_now();
        hirl_step_request_t request = {.batch = &b, .step = i + 1, .lr = 0.03};
        HIRL_TRY(hirl_session_step(s, reducer, &request, &result));
        if (i >= 0) seconds[i] = hirl_time_now() - start;
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    qsort(seconds, (size_t)steps, sizeof *seconds, compare);
    printf("step_seconds = %.6f\nstep_median = %.6f\npeak_mib = %.1f\n", seconds[0],
           seconds[steps / 2], (double)usage.ru_maxrss / 1024.0);
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
        fprintf(stderr, "usage: step BACKBONE STEM SIZE BATCH STEPS [PRECISION]\n");
        return 2;
    }
    hirl_status_t status = hirl_world_create(&argc, &argv, &world);
    hirl_log_setup(HIRL_LOG_WARN, 0);
    if (status == HIRL_OK) status = bench(world, argv);
    if (status != HIRL_OK)
        fprintf(stderr, "%s (%s)\n", hirl_error_text_view(), hirl_error_place_view());
    hirl_world_destroy(&world);
    return status != HIRL_OK;
}
