/// @file views.c
/// Views of one synthetic image of 375 x 500 pixels on one thread: views [seconds per recipe]. A line per recipe: views per second of the
/// processor's time, and a hash of the views. validation/bench/views.py and
/// validation/invariance/instruction_sets.py build it for several instruction sets.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "hirl/data.h"

enum { HEIGHT = 375, WIDTH = 500, SIZE = 224, N_HASHED = 40 };

typedef struct recipe {
    const char *name;
    hirl_view_spec_t spec;
} recipe_t;

#define CROP .size = SIZE, .scale = {0.2, 1}, .ratio = {0.75, 4.0 / 3.0}, .flip_prob = 0.5
#define JITTER .brightness = 0.4, .contrast = 0.4, .saturation = 0.4, .hue = 0.1

static const recipe_t recipes[] = {
    {"moco",
     {CROP, JITTER, .jitter_prob = 0.8, .gray_prob = 0.2, .blur_prob = 0.5,
      .blur_sigma = {0.1, 2}}},
    {"crop", {CROP}},
    {"jitter", {CROP, JITTER, .jitter_prob = 1}},
    {"blur", {CROP, .blur_prob = 1, .blur_sigma = {0.1, 2}}},
    {"rand",
     {CROP, .is_bicubic = true, .rand_augment = 2, .rand_augment_magnitude = 9,
      .rand_augment_std = 0.5, .rand_augment_prob = 0.5, .erase_prob = 0.25,
      .erase_area = {0.02, 1.0 / 3}, .erase_ratio = {0.3, 1 / 0.3}}},
    {"rest",
     {CROP, JITTER, .is_lanczos = true, .jitter_prob = 0.5, .gray_prob = 0.3, .is_gray_first = true,
      .rotate_degrees = 10, .posterize_prob = 0.3, .posterize_bits = 4, .autocontrast_prob = 0.3,
      .equalize_prob = 0.3, .blur_prob = 0.3, .blur_sigma = {3, 9}, .solarize_prob = 0.3,
      .lighting_std = 0.1}},
};

static double seconds_used(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static hirl_status_t run(hirl_augment_t *augment, const hirl_image_t *image, const recipe_t *recipe,
                         double seconds, float *out) {
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    uint64_t hash = 0;
    double best = 0, used = 0;
    // The best of runs of N_HASHED views: other programs only ever make one slower.
    for (int round = 0; round == 0 || used < seconds; round++) {
        double from = seconds_used();
        for (int i = 0; i < N_HASHED; i++) {
            hirl_rng_t rng = hirl_rng_make(1, HIRL_RNG_TEST, 0, (uint64_t)i, 0);
            HIRL_TRY(hirl_augment_view(augment, image, &recipe->spec, &rng, mean, std, out));
            if (round == 0) hash = hash * 31 + hirl_hash64(out, SIZE * SIZE * 3 * sizeof *out);
        }
        from = seconds_used() - from;
        used += from;
        if (N_HASHED / from > best) best = N_HASHED / from;
    }
    printf("%s %.1f %016llx\n", recipe->name, best, (unsigned long long)hash);
    return HIRL_OK;
}

int main(int argc, char **argv) {
    const double seconds = argc > 1 ? atof(argv[1]) : 1;
    hirl_image_t image = {malloc(HEIGHT * WIDTH * 3), HEIGHT, WIDTH, 3};
    float *out = malloc(SIZE * SIZE * 3 * sizeof *out);
    hirl_augment_t *augment = NULL;
    if (!image.pixels || !out || hirl_augment_create(&augment) != HIRL_OK) return 1;
    uint32_t noise = 1;
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++) {
        noise = noise * 1664525u + 1013904223u;
        image.pixels[i] = (uint8_t)(i / 3 % WIDTH * 239 / WIDTH + (int)(noise >> 28));
    }
    hirl_status_t status = HIRL_OK;
    for (size_t i = 0; i < sizeof recipes / sizeof recipes[0] && status == HIRL_OK; i++)
        status = run(augment, &image, &recipes[i], seconds, out);
    hirl_augment_destroy(&augment);
    free(image.pixels), free(out);
    return status != HIRL_OK;
}
