/// Augmented views: the recipes become the kernels' records, which go to the device with the lists of the views that contrast and blur take.
/// Needless work is left out here: a view is in memory as bytes only while a later kernel needs the whole of it.
#include "cuda_impl.h"

#include "kernels/augment.h"

#include <math.h>
#include <string.h>

_Static_assert((int)HIRL_JITTER_BRIGHTNESS == HIRL_K_BRIGHTNESS &&
                   (int)HIRL_JITTER_CONTRAST == HIRL_K_CONTRAST &&
                   (int)HIRL_JITTER_SATURATION == HIRL_K_SATURATION &&
                   (int)HIRL_JITTER_HUE == HIRL_K_HUE && (int)HIRL_N_JITTER == HIRL_K_N_JITTER,
               "kernels number the operations alike");

enum { ALIGN = 256 };

/// What the launches need: sizes first, then one allocation on each side.
typedef struct plan {
    int64_t n, n_color, n_blur;
    int size, channels;
    int64_t table_items, work_bytes;
    hirl_k_view_t *view; // [n], then the lists: what goes to the device as it is
    int32_t *color, *blur;
    size_t record_bytes;
} plan_t;

static size_t aligned(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

/// The box of Pillow's GaussianBlur (Gwosdek et al. 2011), in its float arithmetic: the weights must come out the same.
static void set_box(double sigma, hirl_k_view_t *view) {
    const float sigma_f = (float)sigma, variance = sigma_f * sigma_f / 3;
    const float length = (float)sqrt(12.0 * (double)variance + 1.0);
    const float whole = (float)floor(((double)length - 1.0) / 2.0);
    float fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
    fraction /= 6 * (variance - (whole + 1) * (whole + 1));
    const float radius = whole + fraction;
    view->radius = (uint32_t)radius;
    view->inner = (uint32_t)((float)(1u << 24) / (radius * 2 + 1));
    view->outer = ((1u << 24) - (2 * view->radius + 1) * view->inner) / 2;
}

static double limited(double x, double most) { return x < -most ? -most : x > most ? most : x; }

/// Grey images have no saturation and no hue: those operations are dropped.
static void set_jitter(const hirl_view_recipe_t *r, int channels, hirl_k_view_t *view) {
    bool has_contrast = false;
    for (int i = 0; i < r->n_jitter; ++i) {
        const int op = r->jitter[i];
        if (channels == 1 && (op == HIRL_JITTER_SATURATION || op == HIRL_JITTER_HUE)) continue;
        if (op == HIRL_JITTER_CONTRAST) has_contrast = true;
        if (op == HIRL_JITTER_HUE) view->turn = (int)(limited(r->factor[i], 1.0) * 255.0) & 255;
        // Beyond this every difference saturates.
        view->alpha[view->n_jitter] = (float)limited(r->factor[i], 1e4);
        view->jitter[view->n_jitter++] = op;
        if (!has_contrast) view->n_early = view->n_jitter;
    }
}

static void add_view(plan_t *plan, const hirl_view_recipe_t *r, int64_t i) {
    hirl_k_view_t *view = &plan->view[i];
    const int64_t c = plan->channels, size = plan->size;
    memset(view, 0, sizeof *view);
    view->pitch = r->width * c;
    view->first = r->offset + r->top * view->pitch + r->left * c;
    view->in_size[HIRL_K_VERTICAL] = r->crop_height;
    view->in_size[HIRL_K_HORIZONTAL] = r->crop_width;
    for (int axis = 0; axis < 2; ++axis) {
        view->n_taps[axis] =
            (int32_t)hirl_k_view_taps(view->in_size[axis], plan->size, r->is_bicubic);
        view->table[axis] = plan->table_items;
        plan->table_items += hirl_k_view_table(view->n_taps[axis], plan->size);
    }
    set_jitter(r, plan->channels, view);
    view->is_bicubic = r->is_bicubic;
    view->is_flipped = r->is_flipped;
    view->is_gray = r->is_gray && plan->channels == 3;
    view->is_solarized = r->is_solarized;
    if (r->has_blur) set_box(r->blur_sigma, view);
    view->work = -1;
    if (view->n_early < view->n_jitter) plan->color[plan->n_color++] = (int32_t)i;
    if (r->has_blur) plan->blur[plan->n_blur++] = (int32_t)i;
    if (view->n_early < view->n_jitter || r->has_blur) {
        view->work = plan->work_bytes;
        plan->work_bytes += (size * size * c + 15) / 16 * 16;
    }
}

static hirl_status_t launch(cuda_ctx_t *ctx, const plan_t *plan, const uint8_t *pixels,
                            const hirl_k_affine_t *affine, float *y) {
    const size_t records = aligned(plan->record_bytes),
                 tables = aligned((size_t)plan->table_items * sizeof(int32_t)),
                 sums = aligned((size_t)plan->n * sizeof(unsigned long long)),
                 bytes = records + tables + sums + (size_t)plan->work_bytes;
    char *scratch = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, (void **)&scratch));
    // Lists lie behind the records, in the order of the plan's own memory.
    const hirl_k_view_t *view = (const hirl_k_view_t *)scratch;
    const int32_t *color = (const int32_t *)(view + plan->n), *blur = color + plan->n;
    int32_t *d_tables = (int32_t *)(scratch + records);
    unsigned long long *d_sums = (unsigned long long *)(scratch + records + tables);
    uint8_t *work = (uint8_t *)(scratch + records + tables + sums);
    HIRL_TRY_GOTO(hirl_cuda_copy_in(ctx, scratch, plan->view, plan->record_bytes), status, done);
    if (plan->n_color > 0)
        HIRL_TRY_CUDA_GOTO(cudaMemsetAsync(d_sums, 0, sums, ctx->stream), status, done);
    HIRL_TRY_CUDA_GOTO(hirl_k_view_tables(ctx->stream, view, plan->n, plan->size, d_tables), status,
                       done);
    HIRL_TRY_CUDA_GOTO(hirl_k_view_resample(ctx->stream, pixels, view, plan->n, plan->size,
                                            plan->channels, d_tables, affine, work, d_sums, y),
                       status, done);
    if (plan->n_color > 0)
        HIRL_TRY_CUDA_GOTO(hirl_k_view_color(ctx->stream, view, color, plan->n_color, plan->size,
                                             plan->channels, affine, d_sums, work, y),
                           status, done);
    if (plan->n_blur > 0)
        HIRL_TRY_CUDA_GOTO(hirl_k_view_blur(ctx->stream, view, blur, plan->n_blur, plan->size,
                                            plan->channels, affine, work, y),
                           status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_make_views_cuda(hirl_backend_t *be, const hirl_tensor_t *pixels,
                                   const hirl_view_recipe_t *recipes, int64_t n, int size,
                                   int channels, const float *mean, const float *std,
                                   hirl_tensor_t *y) {
    plan_t plan = {.n = n, .size = size, .channels = channels};
    hirl_k_affine_t affine = {{0}, {0}};
    for (int c = 0; c < channels; ++c) {
        affine.scale[c] = (float)(1.0 / (255.0 * (double)std[c]));
        affine.offset[c] = (float)(-(double)mean[c] / (double)std[c]);
    }
    plan.record_bytes = (size_t)n * (sizeof *plan.view + 2 * sizeof(int32_t));
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_WORKSPACE, plan.record_bytes, (void **)&plan.view));
    memset(plan.view, 0, plan.record_bytes);
    plan.color = (int32_t *)(plan.view + n);
    plan.blur = plan.color + n;
    for (int64_t i = 0; i < n; ++i) add_view(&plan, &recipes[i], i);
    const hirl_status_t status =
        launch(cuda_ctx(be), &plan, hirl_tensor_data(pixels), &affine, hirl_tensor_f32(y));
    hirl_mem_free(plan.view);
    return status;
}
