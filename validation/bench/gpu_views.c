/// @file gpu_views.c
/// Times augmented views on a backend: gpu_views BACKEND N HEIGHT WIDTH SIZE ROUNDS RECIPE. Two views of SIZE x SIZE of each of N colour images,
/// with the draws of `moco` (v2), or of `rand` (MAE's fine-tuning: RandAugment and random erasing). validation/bench/gpu_views.py
/// prints what comes of it.
///     upload_seconds = ...      the N images as bytes, from memory that the backend gives for it
///     views_seconds = ...       2 N views on the backend, recipes included; the best of ROUNDS
///     thread_seconds = ...      the same 2 N views by one thread of the loader's, taken from a part of them
///     same_bits = yes           all of that part are the loader's
#include "hirl/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/data/augment_impl.h"

static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
static const hirl_view_spec_t moco = {.scale = {0.2, 1},
                                      .ratio = {0.75, 4.0 / 3.0},
                                      .jitter_prob = 0.8,
                                      .brightness = 0.4,
                                      .contrast = 0.4,
                                      .saturation = 0.4,
                                      .hue = 0.1,
                                      .gray_prob = 0.2,
                                      .blur_prob = 0.5,
                                      .blur_sigma = {0.1, 2},
                                      .flip_prob = 0.5};
static const hirl_view_spec_t rand_augment = {.scale = {0.08, 1},
                                              .ratio = {0.75, 4.0 / 3.0},
                                              .is_bicubic = true,
                                              .flip_prob = 0.5,
                                              .rand_augment = 2,
                                              .rand_augment_magnitude = 9,
                                              .rand_augment_std = 0.5,
                                              .rand_augment_prob = 0.5,
                                              .erase_prob = 0.25,
                                              .erase_area = {0.02, 1.0 / 3.0},
                                              .erase_ratio = {0.3, 10.0 / 3.0}};
enum { MOST_BY_THREAD = 64 };

typedef struct bench {
    hirl_backend_t *be;
    int64_t n; // images
    int height, width, rounds;
    hirl_view_spec_t spec;
    size_t image_bytes;
    uint8_t *images;            // [n], of `memory`
    hirl_view_recipe_t *recipe; // [2 n]
    hirl_view_draws_t *draws;
    hirl_tensor_t pixels, view;
} bench_t;

static hirl_status_t make_images(bench_t *b) {
    const hirl_allocator_t *memory = hirl_backend_host_allocator_view(b->be);
    const size_t bytes = (size_t)b->n * b->image_bytes;
    HIRL_TRY(memory ? memory->alloc(memory->ctx, bytes, (void **)&b->images)
                    : hirl_mem_alloc(HIRL_MEM_DATA, bytes, (void **)&b->images));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 2 * b->n, &b->recipe));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 2 * b->n, &b->draws));
    for (int64_t i = 0; i < b->n; i++) {
        hirl_rng_t rng = hirl_rng_make(1, HIRL_RNG_TEST, 0, (uint64_t)i, 0);
        uint8_t *pixel = b->images + (size_t)i * b->image_bytes;
        const uint32_t tint = hirl_rng_u32(&rng);
        for (size_t k = 0; k < b->image_bytes; k++)
            pixel[k] = (uint8_t)((k >> 4 ^ k / (size_t)(3 * b->width)) + (tint >> 8 * (k % 3)));
        for (int64_t j = i; j < 2 * b->n; j += b->n) {
            hirl_view_draw(&b->spec, b->height, b->width, &rng, &b->draws[j]);
            hirl_view_write_recipe(&b->spec, &b->draws[j], b->height, b->width,
                                   (int64_t)((size_t)i * b->image_bytes), &b->recipe[j]);
        }
    }
    return HIRL_OK;
}

static hirl_status_t time_backend(bench_t *b) {
    double upload = 1e30, views = 1e30;
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_1(b->n * (int64_t)b->image_bytes), HIRL_U8,
                                 &b->pixels));
    HIRL_TRY(hirl_backend_tensor(b->be, hirl_shape_4(2 * b->n, b->spec.size, b->spec.size, 3),
                                 HIRL_F32, &b->view));
    // The first round also fetches memory and loads kernels.
    for (int i = 0; i <= b->rounds; i++) {
        const double start = hirl_time_now();
        HIRL_TRY(hirl_backend_upload(b->be, b->images, &b->pixels));
        HIRL_TRY(hirl_backend_synchronize(b->be));
        const double middle = hirl_time_now();
        HIRL_TRY(hirl_op_make_views(b->be, &b->pixels, b->recipe, 2 * b->n, b->spec.size, 3, mean,
                                    std, &b->view));
        HIRL_TRY(hirl_backend_synchronize(b->be));
        const double end = hirl_time_now();
        if (i > 0 && middle - start < upload) upload = middle - start;
        if (i > 0 && end - middle < views) views = end - middle;
    }
    printf("upload_seconds = %.6f\nviews_seconds = %.6f\n", upload, views);
    return HIRL_OK;
}

static hirl_status_t time_thread(bench_t *b, hirl_augment_t *augment, float *got, float *want) {
    const int64_t row = (int64_t)b->spec.size * b->spec.size * 3,
                  n = 2 * b->n < MOST_BY_THREAD ? 2 * b->n : MOST_BY_THREAD;
    hirl_tensor_t rows = {0};
    double seconds = 0;
    bool is_same = true;
    HIRL_TRY(hirl_tensor_rows(&b->view, 0, n, &rows));
    const hirl_status_t status = hirl_backend_download(b->be, &rows, got);
    hirl_tensor_reset(&rows);
    HIRL_TRY(status);
    // Once to warm up: tables are kept.
    for (int round = 0; round < 2; round++) {
        const double start = hirl_time_now();
        for (int64_t i = 0; i < n; i++) {
            const hirl_image_t image = {b->images + b->recipe[i].offset, b->height, b->width, 3};
            HIRL_TRY(hirl_view_apply(augment, &image, &b->spec, &b->draws[i], mean, std,
                                     want + i * row));
        }
        seconds = hirl_time_now() - start;
    }
    is_same = memcmp(got, want, (size_t)(n * row) * sizeof *got) == 0;
    printf("thread_seconds = %.6f\nsame_bits = %s\n", seconds * (double)(2 * b->n) / (double)n,
           is_same ? "yes" : "no");
    return HIRL_OK;
}

static hirl_status_t run(bench_t *b, char **argv) {
    hirl_augment_t *augment = NULL;
    float *got = NULL;
    b->n = atoll(argv[2]);
    b->height = atoi(argv[3]);
    b->width = atoi(argv[4]);
    b->spec = strcmp(argv[7], "rand") == 0 ? rand_augment : moco;
    b->spec.size = atoi(argv[5]);
    b->rounds = atoi(argv[6]);
    HIRL_REQUIRE(strcmp(argv[7], "rand") == 0 || strcmp(argv[7], "moco") == 0, HIRL_ERR_ARG,
                 "recipe '%s': want moco or rand", argv[7]);
    HIRL_REQUIRE(b->n >= 1 && b->height >= 1 && b->width >= 1 && b->spec.size >= 1 &&
                     b->rounds >= 1 && b->height <= 8192 && b->width <= 8192,
                 HIRL_ERR_ARG, "sizes must be at least 1, sides at most 8192");
    b->image_bytes = (size_t)b->height * (size_t)b->width * 3;
    HIRL_TRY(hirl_backend_create(argv[1], 0, &b->be));
    printf("device = %s\n", hirl_backend_info_view(b->be));
    HIRL_TRY(make_images(b));
    HIRL_TRY(time_backend(b));
    const int64_t floats = (int64_t)MOST_BY_THREAD * b->spec.size * b->spec.size * 3;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 2 * floats, &got));
    hirl_status_t status = hirl_augment_create(&augment);
    if (status == HIRL_OK) status = time_thread(b, augment, got, got + floats);
    hirl_augment_destroy(&augment);
    hirl_mem_free(got);
    return status;
}

static void reset(bench_t *b) {
    const hirl_allocator_t *memory = b->be ? hirl_backend_host_allocator_view(b->be) : NULL;
    hirl_tensor_reset(&b->pixels);
    hirl_tensor_reset(&b->view);
    if (memory && b->images)
        memory->free(memory->ctx, b->images, (size_t)b->n * b->image_bytes);
    else if (!memory)
        hirl_mem_free(b->images);
    hirl_mem_free(b->recipe);
    hirl_mem_free(b->draws);
    hirl_backend_destroy(&b->be);
}

int main(int argc, char **argv) {
    bench_t b = {0};
    const hirl_status_t status =
        argc == 8
            ? run(&b, argv)
            : HIRL_FAIL(HIRL_ERR_ARG,
                        "want BACKEND N HEIGHT WIDTH SIZE ROUNDS RECIPE, got %d words", argc - 1);
    if (status != HIRL_OK) fprintf(stderr, "gpu_views: %s\n", hirl_error_text_view());
    reset(&b);
    return status != HIRL_OK;
}
