/// Augmented views: the recipes become the kernels' records, which go to the device in one piece. A view's operations become parts: one
/// ends where the next operation needs to know the whole view (contrast, autocontrast, equalise) or takes pixels from elsewhere
/// (sharpness, turning, shearing, moving). The first part of each view is done as it is resampled, the second parts of all views in
/// the first round, and so on. Needless work is left out here: a view is in memory as bytes only while a later kernel needs the whole
/// of it.
#include "cuda_impl.h"

#include "kernels/augment.h"

#include <math.h>
#include <string.h>

_Static_assert((int)HIRL_VIEW_BRIGHTNESS == HIRL_K_BRIGHTNESS &&
                   (int)HIRL_VIEW_CONTRAST == HIRL_K_CONTRAST &&
                   (int)HIRL_VIEW_SATURATION == HIRL_K_SATURATION &&
                   (int)HIRL_VIEW_HUE == HIRL_K_HUE && (int)HIRL_VIEW_GRAY == HIRL_K_GRAY &&
                   (int)HIRL_VIEW_INVERT == HIRL_K_INVERT &&
                   (int)HIRL_VIEW_POSTERIZE == HIRL_K_POSTERIZE &&
                   (int)HIRL_VIEW_SOLARIZE == HIRL_K_SOLARIZE &&
                   (int)HIRL_VIEW_SOLARIZE_ADD == HIRL_K_SOLARIZE_ADD,
               "kernels number the operations alike");
_Static_assert((int)HIRL_FILTER_BILINEAR == HIRL_K_BILINEAR &&
                   (int)HIRL_FILTER_BICUBIC == HIRL_K_BICUBIC &&
                   (int)HIRL_FILTER_LANCZOS == HIRL_K_LANCZOS &&
                   (int)HIRL_FILTER_NEAREST == HIRL_K_NEAREST,
               "kernels number the filters alike");

enum { ALIGN = 256, SOLARIZE_FROM = 128, N_KEYS = 2 * HIRL_VIEW_MAX_OPS };

/// A part, and when it is done: round * 2, and 1 more if pixels are taken from elsewhere.
typedef struct planned {
    int32_t key;
    hirl_k_part_t part;
} planned_t;

/// What the launches need: sizes first, then one allocation on each side.
typedef struct plan {
    int64_t n;
    int size, channels;
    uint8_t fill[4]; // 255 mean
    const float *std;
    int64_t table_items, work_bytes, count_items;
    int64_t n_tones, n_warps, n_parts, n_blur, n_erase;
    int64_t n_keyed[N_KEYS]; // parts of each key
    bool has_table[N_KEYS];
    // in `memory`
    hirl_k_view_t *view; // [n]
    hirl_k_tone_t *tone;
    hirl_k_warp_t *warp;
    hirl_k_erase_t *erase;
    planned_t *planned;
    int32_t *blur;
    // one after the other, as they go to the device
    char *records;
    size_t record_bytes;
    size_t at_tone, at_warp, at_part, at_erase, at_blur;
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

// ---------------------------------------------------------------------------------------------- operations

static int32_t fixed_point(double value) { return (int32_t)floor(value * 65536 + 0.5); }

/// Pillow's Image.rotate, and affine maps of one number.
static void add_warp(plan_t *plan, const hirl_view_op_t *op) {
    hirl_k_warp_t *warp = &plan->warp[plan->n_warps++];
    const double c = op->value, s = op->sine, half = plan->size / 2.0;
    double *m = warp->map;
    memset(warp, 0, sizeof *warp);
    m[0] = m[4] = 1;
    if (op->kind == HIRL_VIEW_SHEAR_X) m[1] = op->value;
    if (op->kind == HIRL_VIEW_SHEAR_Y) m[3] = op->value;
    if (op->kind == HIRL_VIEW_MOVE_X) m[2] = op->value;
    if (op->kind == HIRL_VIEW_MOVE_Y) m[5] = op->value;
    if (op->kind == HIRL_VIEW_TURN) {
        m[0] = m[4] = c;
        m[1] = s;
        m[3] = -s;
        m[2] = c * -half + s * -half + 0.0 + half;
        m[5] = -s * -half + c * -half + 0.0 + half;
    }
    for (int i = 0; i < 6; ++i) warp->fixed[i] = fixed_point(m[i]);
    warp->fixed[2] = fixed_point(m[2] + m[0] * 0.5 + m[1] * 0.5);
    warp->fixed[5] = fixed_point(m[5] + m[3] * 0.5 + m[4] * 0.5);
    warp->filter = op->filter;
    if (op->is_mean_shown) memcpy(warp->fill, plan->fill, sizeof warp->fill);
}

/// Operations that change nothing: colours of grey images, and what Pillow's filter leaves alone.
static bool is_needless(const plan_t *plan, const hirl_view_op_t *op) {
    const bool is_color =
        op->kind == HIRL_VIEW_SATURATION || op->kind == HIRL_VIEW_HUE || op->kind == HIRL_VIEW_GRAY;
    return (is_color && plan->channels == 1) || (op->kind == HIRL_VIEW_SHARPNESS && plan->size < 3);
}

static void add_tone(plan_t *plan, const hirl_view_op_t *op, hirl_k_tones_t *tones) {
    hirl_k_tone_t *tone = &plan->tone[plan->n_tones++];
    // Beyond this every difference saturates.
    *tone = (hirl_k_tone_t){op->kind, op->n, (float)limited(op->value, 1e4)};
    if (op->kind == HIRL_VIEW_HUE) tone->n = (int)(limited(op->value, 1.0) * 255.0) & 255;
    if (op->kind == HIRL_VIEW_POSTERIZE) tone->n = 0xff00 >> op->n & 255;
    if (op->kind == HIRL_VIEW_AUTOCONTRAST || op->kind == HIRL_VIEW_EQUALIZE)
        tone->kind = HIRL_K_LEVELS;
    ++tones->n;
}

/// The part that an operation begins.
static hirl_k_part_t begin_part(plan_t *plan, const hirl_view_op_t *op, int64_t view,
                                hirl_k_tones_t *before) {
    hirl_k_part_t part = {.view = (int32_t)view,
                          .warp = HIRL_K_HERE,
                          .count = -1,
                          .tones = {.first = (int32_t)plan->n_tones}};
    if (op->kind == HIRL_VIEW_SHARPNESS) {
        part.warp = HIRL_K_SHARPEN;
        part.alpha = (float)limited(op->value, 1e4);
        return part;
    }
    if (op->kind >= HIRL_VIEW_TURN) {
        part.warp = (int32_t)plan->n_warps;
        add_warp(plan, op);
        return part;
    }
    const bool is_sum = op->kind == HIRL_VIEW_CONTRAST;
    before->counts_what = is_sum ? HIRL_K_COUNT_SUM : HIRL_K_COUNT_LEVELS;
    before->count = part.count = plan->count_items;
    plan->count_items += is_sum ? HIRL_K_SUM_ITEMS : HIRL_K_LEVELS_ITEMS;
    part.table = is_sum                               ? HIRL_K_TABLE_NONE
                 : op->kind == HIRL_VIEW_AUTOCONTRAST ? HIRL_K_TABLE_AUTOCONTRAST
                                                      : HIRL_K_TABLE_EQUALIZE;
    add_tone(plan, op, &part.tones);
    return part;
}

/// Divides the view's operations into parts and says where each finds the view and leaves it.
static void add_parts(plan_t *plan, const hirl_view_recipe_t *r, int64_t i) {
    const hirl_view_op_t solarize = {.kind = HIRL_VIEW_SOLARIZE, .n = SOLARIZE_FROM};
    const int64_t bytes = (int64_t)plan->size * plan->size * plan->channels;
    const int64_t room = (bytes + 15) / 16 * 16;
    hirl_k_view_t *view = &plan->view[i];
    planned_t *parts = plan->planned + plan->n_parts;
    hirl_k_tones_t *tones = &view->tones;
    int n = 0, n_elsewhere = 0;
    tones->first = (int32_t)plan->n_tones;
    for (int j = 0; j < r->n_ops; ++j) {
        const hirl_view_op_t *op = &r->op[j];
        if (is_needless(plan, op)) continue;
        const bool is_whole = op->kind == HIRL_VIEW_CONTRAST ||
                              op->kind == HIRL_VIEW_AUTOCONTRAST || op->kind == HIRL_VIEW_EQUALIZE;
        if (!is_whole && op->kind < HIRL_VIEW_SHARPNESS) {
            add_tone(plan, op, tones);
            continue;
        }
        parts[n].part = begin_part(plan, op, i, tones);
        const bool is_elsewhere = parts[n].part.warp != HIRL_K_HERE;
        parts[n].key = 2 * n + is_elsewhere;
        n_elsewhere += is_elsewhere;
        ++plan->n_keyed[parts[n].key];
        if (parts[n].part.table != HIRL_K_TABLE_NONE) plan->has_table[parts[n].key] = true;
        tones = &parts[n++].part.tones;
    }
    if (r->is_solarized && !r->has_blur) add_tone(plan, &solarize, tones);
    view->work = -1;
    if (n == 0 && !r->has_blur) return;
    int64_t place = plan->work_bytes, other = place + room;
    plan->work_bytes += n_elsewhere > 0 ? 2 * room : room;
    view->work = place;
    for (int k = 0; k < n; ++k) {
        parts[k].part.from = place;
        if (parts[k].part.warp != HIRL_K_HERE) {
            place = other;
            other = parts[k].part.from;
        }
        parts[k].part.to = k == n - 1 && !r->has_blur ? -1 : place;
    }
    view->blurred = place;
    plan->n_parts += n;
}

// ---------------------------------------------------------------------------------------------- views

static void add_erase(plan_t *plan, const hirl_view_recipe_t *r, int64_t i) {
    plan->erase[plan->n_erase++] = (hirl_k_erase_t){
        .view = (int32_t)i,
        .top = r->erase_top,
        .left = r->erase_left,
        .height = r->erase_height,
        .width = r->erase_width,
        .counter = {r->noise.counter[1], r->noise.counter[2], r->noise.counter[3]},
        .key = {r->noise.key[0], r->noise.key[1]},
    };
}

static void add_view(plan_t *plan, const hirl_view_recipe_t *r, int64_t i) {
    hirl_k_view_t *view = &plan->view[i];
    const int64_t c = plan->channels;
    const bool is_window = r->resized_height > 0;
    view->pitch = r->width * c;
    view->first = r->offset + r->top * view->pitch + r->left * c;
    view->in_size[HIRL_K_VERTICAL] = r->crop_height;
    view->in_size[HIRL_K_HORIZONTAL] = r->crop_width;
    view->out_size[HIRL_K_VERTICAL] = is_window ? r->resized_height : plan->size;
    view->out_size[HIRL_K_HORIZONTAL] = is_window ? r->resized_width : plan->size;
    view->window[HIRL_K_VERTICAL] = is_window ? r->window_y : 0;
    view->window[HIRL_K_HORIZONTAL] = is_window ? r->window_x : 0;
    view->filter = r->filter;
    view->is_flipped = r->is_flipped;
    for (int axis = 0; axis < 2; ++axis) {
        view->n_taps[axis] =
            (int32_t)hirl_k_view_taps(view->in_size[axis], view->out_size[axis], r->filter);
        view->table[axis] = plan->table_items;
        plan->table_items += hirl_k_view_table(view->n_taps[axis], plan->size);
    }
    for (int k = 0; k < 3 && c == 3; ++k)
        view->shift[k] = (float)(r->shift[k] / (double)plan->std[k]);
    add_parts(plan, r, i);
    if (r->has_blur) {
        set_box(r->blur_sigma, view);
        view->is_solarized = r->is_solarized;
        plan->blur[plan->n_blur++] = (int32_t)i;
    }
    if (r->erase_height > 0 && r->erase_width > 0) add_erase(plan, r, i);
}

/// Room for all that the recipes may become; one allocation.
static hirl_status_t reserve(plan_t *plan, const hirl_view_recipe_t *recipes, char **memory_p) {
    const size_t n = (size_t)plan->n;
    size_t n_ops = 0;
    for (int64_t i = 0; i < plan->n; ++i) n_ops += (size_t)recipes[i].n_ops;
    const size_t view = aligned(n * sizeof *plan->view),
                 tone = aligned((n_ops + n) * sizeof *plan->tone),
                 warp = aligned(n_ops * sizeof *plan->warp),
                 erase = aligned(n * sizeof *plan->erase),
                 planned = aligned(n_ops * sizeof *plan->planned),
                 parts = aligned(n_ops * sizeof(hirl_k_part_t)),
                 blur = aligned(n * sizeof *plan->blur);
    const size_t sources = view + tone + warp + erase + planned + blur;
    char *memory = NULL;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_WORKSPACE, sources + view + tone + warp + parts + erase + blur,
                            (void **)&memory));
    plan->view = (hirl_k_view_t *)memory;
    plan->tone = (hirl_k_tone_t *)(memory + view);
    plan->warp = (hirl_k_warp_t *)(memory + view + tone);
    plan->erase = (hirl_k_erase_t *)(memory + view + tone + warp);
    plan->planned = (planned_t *)(memory + view + tone + warp + erase);
    plan->blur = (int32_t *)(memory + view + tone + warp + erase + planned);
    plan->records = memory + sources;
    memset(plan->view, 0, view);
    *memory_p = memory;
    return HIRL_OK;
}

static size_t add_record(plan_t *plan, const void *from, size_t bytes) {
    const size_t at = plan->record_bytes;
    if (bytes > 0) memcpy(plan->records + at, from, bytes);
    plan->record_bytes += (bytes + 15) / 16 * 16;
    return at;
}

/// Parts in the order of their keys.
static void add_sorted_parts(plan_t *plan) {
    int64_t at[N_KEYS], sum = 0;
    hirl_k_part_t *part = (hirl_k_part_t *)(plan->records + plan->record_bytes);
    for (int k = 0; k < N_KEYS; ++k) {
        at[k] = sum;
        sum += plan->n_keyed[k];
    }
    for (int64_t i = 0; i < plan->n_parts; ++i)
        part[at[plan->planned[i].key]++] = plan->planned[i].part;
    plan->at_part = plan->record_bytes;
    plan->record_bytes += ((size_t)plan->n_parts * sizeof *part + 15) / 16 * 16;
}

static void gather_records(plan_t *plan) {
    (void)add_record(plan, plan->view, (size_t)plan->n * sizeof *plan->view);
    plan->at_tone = add_record(plan, plan->tone, (size_t)plan->n_tones * sizeof *plan->tone);
    plan->at_warp = add_record(plan, plan->warp, (size_t)plan->n_warps * sizeof *plan->warp);
    add_sorted_parts(plan);
    plan->at_erase = add_record(plan, plan->erase, (size_t)plan->n_erase * sizeof *plan->erase);
    plan->at_blur = add_record(plan, plan->blur, (size_t)plan->n_blur * sizeof *plan->blur);
}

// ---------------------------------------------------------------------------------------------- launches

static hirl_status_t launch_rounds(cuda_ctx_t *ctx, const plan_t *plan, const hirl_k_views_t *views,
                                   const hirl_k_part_t *part) {
    for (int key = 0; key < N_KEYS; part += plan->n_keyed[key++]) {
        const int64_t n = plan->n_keyed[key];
        if (n == 0) continue;
        if (plan->has_table[key]) HIRL_TRY_CUDA(hirl_k_view_levels(ctx->stream, views, part, n));
        HIRL_TRY_CUDA(hirl_k_view_parts(ctx->stream, views, part, n, key % 2 == 0));
    }
    return HIRL_OK;
}

static hirl_status_t launch(cuda_ctx_t *ctx, const plan_t *plan, const uint8_t *pixels,
                            const hirl_k_affine_t *affine, float *y) {
    const size_t records = aligned(plan->record_bytes),
                 tables = aligned((size_t)plan->table_items * sizeof(int32_t)),
                 counts = aligned((size_t)plan->count_items * sizeof(uint32_t)),
                 bytes = records + tables + counts + (size_t)plan->work_bytes;
    char *scratch = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_cuda_scratch(ctx, bytes, (void **)&scratch));
    const hirl_k_views_t views = {.view = (const hirl_k_view_t *)scratch,
                                  .n = plan->n,
                                  .size = plan->size,
                                  .channels = plan->channels,
                                  .tone = (const hirl_k_tone_t *)(scratch + plan->at_tone),
                                  .warp = (const hirl_k_warp_t *)(scratch + plan->at_warp),
                                  .affine = *affine,
                                  .tables = (int32_t *)(scratch + records),
                                  .counts = (uint32_t *)(scratch + records + tables),
                                  .work = (uint8_t *)(scratch + records + tables + counts),
                                  .y = y};
    HIRL_TRY_GOTO(hirl_cuda_copy_in(ctx, scratch, plan->records, plan->record_bytes), status, done);
    if (plan->count_items > 0)
        HIRL_TRY_CUDA_GOTO(cudaMemsetAsync(views.counts, 0, counts, ctx->stream), status, done);
    HIRL_TRY_CUDA_GOTO(hirl_k_view_tables(ctx->stream, &views), status, done);
    HIRL_TRY_CUDA_GOTO(hirl_k_view_resample(ctx->stream, &views, pixels), status, done);
    HIRL_TRY_GOTO(
        launch_rounds(ctx, plan, &views, (const hirl_k_part_t *)(scratch + plan->at_part)), status,
        done);
    if (plan->n_blur > 0)
        HIRL_TRY_CUDA_GOTO(hirl_k_view_blur(ctx->stream, &views,
                                            (const int32_t *)(scratch + plan->at_blur),
                                            plan->n_blur),
                           status, done);
    if (plan->n_erase > 0)
        HIRL_TRY_CUDA_GOTO(hirl_k_view_erase(ctx->stream, &views,
                                             (const hirl_k_erase_t *)(scratch + plan->at_erase),
                                             plan->n_erase),
                           status, done);
done:
    hirl_cuda_scratch_free(ctx, bytes, scratch);
    return status;
}

hirl_status_t hirl_make_views_cuda(hirl_backend_t *be, const hirl_tensor_t *pixels,
                                   const hirl_view_recipe_t *recipes, int64_t n, int size,
                                   int channels, const float *mean, const float *std,
                                   hirl_tensor_t *y) {
    plan_t plan = {.n = n, .size = size, .channels = channels, .std = std};
    hirl_k_affine_t affine = {{0}, {0}};
    char *memory = NULL;
    for (int c = 0; c < channels; ++c) {
        affine.scale[c] = (float)(1.0 / (255.0 * (double)std[c]));
        affine.offset[c] = (float)(-(double)mean[c] / (double)std[c]);
        plan.fill[c] = (uint8_t)fmin(fmax(rint(255.0 * (double)mean[c]), 0.0), 255.0);
    }
    HIRL_TRY(reserve(&plan, recipes, &memory));
    for (int64_t i = 0; i < n; ++i) add_view(&plan, &recipes[i], i);
    gather_records(&plan);
    const hirl_status_t status =
        launch(cuda_ctx(be), &plan, hirl_tensor_data(pixels), &affine, hirl_tensor_f32(y));
    hirl_mem_free(memory);
    return status;
}
