// Pillow's Image.resize on a crop, bit for bit: antialiased triangle or cubic filter whose support
// grows with the reduction, taps rounded to 22 fractional bits, horizontal pass first, an 8-bit
// image between the passes.
// Only the crop is read and only the wanted window is computed. Tables depend on sizes alone and
// are cached per thread.
// Horizontal pass: a row is widened to one word per pixel (R | G << 8 | B << 16, or the grey
// level), so that one gathered word per tap serves all channels and the loop over outputs
// vectorises; vertical pass: plain rows times scalars.
#include "augment_impl.h"
#include "hirl/base_exact.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "clones_impl.h"

enum {
    COEF_BITS = 22,  // 32 bits less 8 of the pixel and 2 of headroom for negative lobes
    MAX_FIXED = 12,  // taps up to which the loops are unrolled by the compiler
    TAPS_AT_ONCE = 4 // beyond that
};

static inline int round_up(int n, int to) { return (n + to - 1) / to * to; }

hirl_status_t hirl_scratch_reserve(hirl_scratch_t *scratch, size_t size) {
    if (size <= scratch->size) return HIRL_OK;
    hirl_mem_free(scratch->data);
    scratch->data = NULL;
    scratch->size = 0;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_DATA, size, &scratch->data));
    scratch->size = size;
    return HIRL_OK;
}

void hirl_scratch_reset(hirl_scratch_t *scratch) {
    hirl_mem_free(scratch->data);
    scratch->data = NULL;
    scratch->size = 0;
}

hirl_status_t hirl_planes_reserve_other(hirl_augment_t *augment, const hirl_planes_t *planes,
                                        hirl_planes_t *out) {
    hirl_scratch_t *room = planes->data == augment->image.data ? &augment->spare : &augment->image;
    HIRL_TRY(hirl_scratch_reserve(room, (size_t)out->channels * hirl_plane_size(out)));
    out->data = room->data;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ tables

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys' cubic convolution kernel with a = -1/2 (Keys, "Cubic convolution interpolation", 1981). The
// order of the operations matters: taps are rounded, and must round as Pillow's do.
static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

// With a sine that kernels have too: their taps must be these.
static double sinc(double x) {
    if (x == 0.0) return 1.0;
    return hirl_exact_sin_pi(x) / (M_PI * x);
}

static double lanczos3(double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

typedef struct kernel {
    double support;
    double (*weight)(double x);
} kernel_t;

static const kernel_t kernels[] = {
    [HIRL_FILTER_BILINEAR] = {1.0, triangle},
    [HIRL_FILTER_BICUBIC] = {2.0, cubic},
    [HIRL_FILTER_LANCZOS] = {3.0, lanczos3},
};

static int32_t fixed_point(double weight) {
    return (int32_t)((weight < 0 ? -0.5 : 0.5) + weight * (double)(1 << COEF_BITS));
}

// First input pixel and number of taps of one output.
static int tap_range(double center, double support, int in_size, int *n_p) {
    int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
    if (low < 0) low = 0;
    if (high > in_size) high = in_size;
    *n_p = high - low;
    return low;
}

static hirl_status_t table_fill(hirl_augment_t *augment, hirl_table_t *table) {
    const int in_size = table->in_size, n_out = table->n_out;
    const bool is_identity = table->in_size == table->out_size;
    const double scale = (double)in_size / table->out_size;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const kernel_t *kernel = &kernels[table->filter];
    const double support = kernel->support * filter_scale, inverse = 1.0 / filter_scale;

    int n_taps = 1;
    for (int i = 0; i < n_out && !is_identity; i++) {
        int n;
        tap_range((table->out_first + i + 0.5) * scale, support, in_size, &n);
        if (n > n_taps) n_taps = n;
    }
    const int n_padded = round_up(n_out, HIRL_PLANE_ALIGN);
    const size_t n_coef = (size_t)n_taps * (size_t)n_padded;
    HIRL_TRY(hirl_scratch_reserve(&table->memory, ((size_t)n_padded + n_coef) * sizeof(int32_t)));
    HIRL_TRY(hirl_scratch_reserve(&augment->weights, (size_t)n_taps * sizeof(double)));
    double *weights = augment->weights.data;
    table->n_taps = n_taps;
    table->n_padded = n_padded;
    table->first = table->memory.data;
    table->coef = table->first + n_padded;
    memset(table->first, 0, ((size_t)n_padded + n_coef) * sizeof(int32_t));

    const ptrdiff_t tap_step = table->is_horizontal ? n_padded : 1,
                    out_step = table->is_horizontal ? 1 : n_taps;
    for (int i = 0; i < n_out; i++) {
        const int at = table->is_flipped ? n_out - 1 - i : i;
        int32_t *coef = table->coef + at * out_step;
        if (is_identity) {
            table->first[at] = table->out_first + i;
            coef[0] = 1 << COEF_BITS;
            continue;
        }
        const double center = (table->out_first + i + 0.5) * scale;
        int n, low = tap_range(center, support, in_size, &n);
        double sum = 0.0;
        for (int k = 0; k < n; k++) {
            const double x = (k + low - center + 0.5) * inverse;
            weights[k] = kernel->weight(x);
            sum += weights[k];
        }
        // Every output gets n_taps taps; at the end of the axis they begin earlier, with zeros.
        const int shift = low + n_taps > in_size ? low + n_taps - in_size : 0;
        table->first[at] = low - shift;
        for (int k = 0; k < n; k++) {
            const double weight = sum != 0.0 ? weights[k] / sum : weights[k];
            coef[(k + shift) * tap_step] = fixed_point(weight);
        }
    }
    return HIRL_OK;
}

hirl_status_t hirl_table_make(hirl_augment_t *augment, int in_size, int out_size, int out_first,
                              int n_out, hirl_filter_t filter, bool is_flipped, bool is_horizontal,
                              const hirl_table_t **table_p) {
    // Each axis has its own slots: both tables of a pass must stay. Neighbouring sizes fall into
    // different slots, so that all tables of small images stay too.
    const uint32_t slot =
        (uint32_t)in_size + 32u * is_flipped + 16u * (uint32_t)filter + 7u * (uint32_t)out_size;
    hirl_table_t *table = &augment->tables[is_horizontal][slot % HIRL_TABLE_SLOTS];
    if (table->n_taps == 0 || table->in_size != in_size || table->out_size != out_size ||
        table->out_first != out_first || table->n_out != n_out || table->filter != filter ||
        table->is_flipped != is_flipped || table->is_horizontal != is_horizontal) {
        table->n_taps = 0; // not valid until filled
        table->in_size = in_size;
        table->out_size = out_size;
        table->out_first = out_first;
        table->n_out = n_out;
        table->filter = filter;
        table->is_flipped = is_flipped;
        table->is_horizontal = is_horizontal;
        HIRL_TRY(table_fill(augment, table));
    }
    *table_p = table;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ passes

static inline uint8_t clip8(int32_t sum) {
    int32_t value = sum >> COEF_BITS;
    value = value < 0 ? 0 : value;
    return (uint8_t)(value > 255 ? 255 : value);
}

typedef uint8_t bytes16_t __attribute__((vector_size(16)));

// Four pixels at a time: 16 bytes are read, of which 12 are theirs. A crop takes a tenth less time
// than byte by byte.
HIRL_CLONES static void widen_rgb(const uint8_t *HIRL_RESTRICT in, uint32_t *HIRL_RESTRICT row,
                                  int n) {
    const bool is_little_endian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
    const bytes16_t zero = {0};
    int x = 0;
    for (; is_little_endian && x + 6 <= n; x += 4) {
        bytes16_t pixels;
        memcpy(&pixels, in + 3 * x, sizeof pixels);
        pixels = __builtin_shufflevector(pixels, zero, 0, 1, 2, 16, 3, 4, 5, 16, 6, 7, 8, 16, 9, 10,
                                         11, 16);
        memcpy(row + x, &pixels, sizeof pixels);
    }
    for (; x < n; x++) {
        row[x] = (uint32_t)in[3 * x] | (uint32_t)in[3 * x + 1] << 8 | (uint32_t)in[3 * x + 2] << 16;
    }
}

HIRL_CLONES static void widen_gray(const uint8_t *HIRL_RESTRICT in, uint32_t *HIRL_RESTRICT row,
                                   int n) {
    for (int x = 0; x < n; x++) row[x] = in[x];
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

// One output row; n_taps and n_channels are constants wherever this is called.
ALWAYS_INLINE void horizontal_row(const uint32_t *HIRL_RESTRICT row,
                                  const int32_t *HIRL_RESTRICT first,
                                  const int32_t *HIRL_RESTRICT coef, int n, int n_taps,
                                  int n_channels, uint8_t *HIRL_RESTRICT r,
                                  uint8_t *HIRL_RESTRICT g, uint8_t *HIRL_RESTRICT b) {
    for (int x = 0; x < n; x++) {
        int32_t sum_r = 1 << (COEF_BITS - 1), sum_g = sum_r, sum_b = sum_r;
        for (int k = 0; k < n_taps; k++) {
            const uint32_t pixel = row[first[x] + k];
            const int32_t c = coef[k * n + x];
            if (n_channels == 1) {
                sum_r += (int32_t)pixel * c;
            } else {
                sum_r += (int32_t)(pixel & 255) * c;
                sum_g += (int32_t)(pixel >> 8 & 255) * c;
                sum_b += (int32_t)(pixel >> 16) * c;
            }
        }
        r[x] = clip8(sum_r);
        if (n_channels == 3) {
            g[x] = clip8(sum_g);
            b[x] = clip8(sum_b);
        }
    }
}

// Any number of taps: partial sums in memory.
HIRL_CLONES static void horizontal_row_long(const uint32_t *HIRL_RESTRICT row,
                                            const hirl_table_t *table, int n_channels,
                                            int32_t *HIRL_RESTRICT sums, uint8_t *const out[3]) {
    const int n = table->n_padded, n_taps = table->n_taps;
    const int32_t *HIRL_RESTRICT first = table->first;
    for (int c = 0; c < n_channels; c++) {
        const int shift = 8 * c;
        for (int x = 0; x < n; x++) sums[x] = 1 << (COEF_BITS - 1);
        int k = 0;
        for (; k + TAPS_AT_ONCE <= n_taps; k += TAPS_AT_ONCE) {
            const int32_t *HIRL_RESTRICT coef = table->coef + (size_t)k * (size_t)n;
            for (int x = 0; x < n; x++) {
                int32_t sum = sums[x];
                for (int j = 0; j < TAPS_AT_ONCE; j++) {
                    sum += (int32_t)(row[first[x] + k + j] >> shift & 255) * coef[j * n + x];
                }
                sums[x] = sum;
            }
        }
        for (; k < n_taps; k++) {
            const int32_t *HIRL_RESTRICT coef = table->coef + (size_t)k * (size_t)n;
            for (int x = 0; x < n; x++)
                sums[x] += (int32_t)(row[first[x] + k] >> shift & 255) * coef[x];
        }
        uint8_t *HIRL_RESTRICT to = out[c];
        for (int x = 0; x < n; x++) to[x] = clip8(sums[x]);
    }
}

// One function per number of taps, not inlined: in one large function the compiler gives up
// vectorising them.
typedef void horizontal_fn_t(const uint32_t *row, const hirl_table_t *table, uint8_t *const out[3]);
#define HORIZONTAL(taps)                                                                         \
    HIRL_CLONES __attribute__((noinline)) static void horizontal_gray_##taps(                    \
        const uint32_t *row, const hirl_table_t *table, uint8_t *const out[3]) {                 \
        horizontal_row(row, table->first, table->coef, table->n_padded, taps, 1, out[0], NULL,   \
                       NULL);                                                                    \
    }                                                                                            \
    HIRL_CLONES __attribute__((noinline)) static void horizontal_rgb_##taps(                     \
        const uint32_t *row, const hirl_table_t *table, uint8_t *const out[3]) {                 \
        horizontal_row(row, table->first, table->coef, table->n_padded, taps, 3, out[0], out[1], \
                       out[2]);                                                                  \
    }
#define FOR_FIXED_TAPS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
FOR_FIXED_TAPS(HORIZONTAL)

#define HORIZONTAL_ROW(taps) {horizontal_gray_##taps, horizontal_rgb_##taps},
static horizontal_fn_t *const horizontal_fixed[MAX_FIXED][2] = {FOR_FIXED_TAPS(HORIZONTAL_ROW)};

// Rows of the image from `top` on. Its column 0 is column `image_left` of the input.
static void horizontal_pass(hirl_augment_t *augment, const hirl_image_t *image, int top,
                            int image_left, const hirl_window_t *reach, const hirl_table_t *table,
                            const hirl_planes_t *tall) {
    uint32_t *row = augment->row.data;
    const int left = reach->left - image_left;
    const int channels = image->channels;
    horizontal_fn_t *fixed =
        table->n_taps <= MAX_FIXED ? horizontal_fixed[table->n_taps - 1][channels == 3] : NULL;
    for (int y = 0; y < tall->height; y++) {
        const uint8_t *in =
            image->pixels +
            ((size_t)(top + y) * (size_t)image->width + (size_t)left) * (size_t)channels;
        uint8_t *out[3] = {NULL, NULL, NULL};
        for (int c = 0; c < channels; c++) out[c] = hirl_plane_row_view(tall, c, y);
        if (channels == 1)
            widen_gray(in, row + reach->left, reach->width);
        else
            widen_rgb(in, row + reach->left, reach->width);
        if (fixed != NULL)
            fixed(row, table, out);
        else
            horizontal_row_long(row, table, channels, augment->sums.data, out);
    }
}

ALWAYS_INLINE void vertical_row(const uint8_t *HIRL_RESTRICT in, size_t stride,
                                const int32_t *HIRL_RESTRICT coef, int n, int n_taps,
                                uint8_t *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) {
        int32_t sum = 1 << (COEF_BITS - 1);
        for (int k = 0; k < n_taps; k++)
            sum += (int32_t)in[(size_t)k * stride + (size_t)x] * coef[k];
        out[x] = clip8(sum);
    }
}

HIRL_CLONES static void vertical_row_long(const uint8_t *HIRL_RESTRICT in, size_t stride,
                                          const int32_t *HIRL_RESTRICT coef, int n, int n_taps,
                                          int32_t *HIRL_RESTRICT sums, uint8_t *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) sums[x] = 1 << (COEF_BITS - 1);
    int k = 0;
    for (; k + TAPS_AT_ONCE <= n_taps; k += TAPS_AT_ONCE) {
        for (int x = 0; x < n; x++) {
            int32_t sum = sums[x];
            for (int j = 0; j < TAPS_AT_ONCE; j++) {
                sum += (int32_t)in[(size_t)(k + j) * stride + (size_t)x] * coef[k + j];
            }
            sums[x] = sum;
        }
    }
    for (; k < n_taps; k++) {
        for (int x = 0; x < n; x++)
            sums[x] += (int32_t)in[(size_t)k * stride + (size_t)x] * coef[k];
    }
    for (int x = 0; x < n; x++) out[x] = clip8(sums[x]);
}

typedef void vertical_fn_t(const uint8_t *in, size_t stride, const int32_t *coef, int n,
                           uint8_t *out);
#define VERTICAL(taps)                                                                \
    HIRL_CLONES __attribute__((noinline)) static void vertical_##taps(                \
        const uint8_t *in, size_t stride, const int32_t *coef, int n, uint8_t *out) { \
        vertical_row(in, stride, coef, n, taps, out);                                 \
    }
FOR_FIXED_TAPS(VERTICAL)

#define VERTICAL_ROW(taps) vertical_##taps,
static vertical_fn_t *const vertical_fixed[MAX_FIXED] = {FOR_FIXED_TAPS(VERTICAL_ROW)};

static void vertical_pass(hirl_augment_t *augment, const hirl_planes_t *tall,
                          const hirl_table_t *table, int first_row, const hirl_planes_t *out) {
    const size_t stride = (size_t)tall->stride;
    const int n = tall->stride;
    vertical_fn_t *fixed = table->n_taps <= MAX_FIXED ? vertical_fixed[table->n_taps - 1] : NULL;
    for (int c = 0; c < out->channels; c++) {
        for (int y = 0; y < out->height; y++) {
            const uint8_t *in = hirl_plane_row_view(tall, c, table->first[y] - first_row);
            const int32_t *coef = table->coef + (size_t)y * (size_t)table->n_taps;
            uint8_t *to = hirl_plane_row_view(out, c, y);
            if (fixed != NULL)
                fixed(in, stride, coef, n, to);
            else
                vertical_row_long(in, stride, coef, n, table->n_taps, augment->sums.data, to);
        }
    }
}

// ------------------------------------------------------------------------------------ whole images

static hirl_status_t make_tables(hirl_augment_t *augment, const hirl_resample_t *how,
                                 const hirl_table_t **down_p, const hirl_table_t **across_p) {
    HIRL_REQUIRE(
        how->n_y > 0 && how->n_x > 0 && how->y0 >= 0 && how->x0 >= 0 &&
            how->y0 <= how->out_height - how->n_y && how->x0 <= how->out_width - how->n_x &&
            how->out_width <= INT_MAX - HIRL_PLANE_ALIGN,
        HIRL_ERR_ARG, "window of %d x %d at (%d, %d) lies outside of the resized %d x %d image",
        how->n_y, how->n_x, how->y0, how->x0, how->out_height, how->out_width);
    HIRL_TRY(hirl_table_make(augment, how->height, how->out_height, how->y0, how->n_y, how->filter,
                             false, false, down_p));
    return hirl_table_make(augment, how->width, how->out_width, how->x0, how->n_x, how->filter,
                           how->is_flipped, true, across_p);
}

// What the outputs of an axis read; first[] rises, or falls where the output is flipped.
static int reach_of(const hirl_table_t *table, int *n_p) {
    const int a = table->first[0], b = table->first[table->n_out - 1];
    *n_p = (a < b ? b : a) + table->n_taps - (a < b ? a : b);
    return a < b ? a : b;
}

hirl_status_t hirl_resample_reach(hirl_augment_t *augment, const hirl_resample_t *how,
                                  hirl_window_t *reach_p) {
    const hirl_table_t *across, *down;
    HIRL_TRY(make_tables(augment, how, &down, &across));
    reach_p->top = reach_of(down, &reach_p->height);
    reach_p->left = reach_of(across, &reach_p->width);
    return HIRL_OK;
}

// The input lies in the image; or the image is the given part of the input.
static hirl_status_t check_input(const hirl_image_t *image, const hirl_resample_t *how) {
    const hirl_window_t *given = &how->given;
    HIRL_REQUIRE(image->channels == 1 || image->channels == 3, HIRL_ERR_ARG,
                 "image has %d channels; 1 or 3 can be augmented", image->channels);
    if (given->height == 0)
        HIRL_REQUIRE(how->top >= 0 && how->left >= 0 && how->height > 0 && how->width > 0 &&
                         how->top <= image->height - how->height &&
                         how->left <= image->width - how->width,
                     HIRL_ERR_ARG, "crop of %d x %d at (%d, %d) lies outside of the %d x %d image",
                     how->height, how->width, how->top, how->left, image->height, image->width);
    else
        HIRL_REQUIRE(how->top == 0 && how->left == 0 && given->height == image->height &&
                         given->width == image->width && given->top >= 0 && given->left >= 0 &&
                         given->top <= how->height - given->height &&
                         given->left <= how->width - given->width,
                     HIRL_ERR_ARG, "%d x %d pixels are no part at (%d, %d) of %d x %d",
                     image->height, image->width, given->top, given->left, how->height, how->width);
    return HIRL_OK;
}

hirl_status_t hirl_resample_planes(hirl_augment_t *augment, const hirl_image_t *image,
                                   const hirl_resample_t *how, hirl_planes_t *planes_p) {
    const hirl_table_t *across, *down;
    hirl_window_t reach;
    HIRL_TRY(check_input(image, how));
    HIRL_TRY(make_tables(augment, how, &down, &across));
    reach.top = reach_of(down, &reach.height);
    reach.left = reach_of(across, &reach.width);
    const bool is_part = how->given.height > 0;
    const int image_top = is_part ? how->given.top : -how->top, // of the input
        image_left = is_part ? how->given.left : -how->left;
    HIRL_REQUIRE(image_top <= reach.top && image_left <= reach.left &&
                     reach.top + reach.height <= image_top + image->height &&
                     reach.left + reach.width <= image_left + image->width,
                 HIRL_ERR_ARG, "the %d x %d part at (%d, %d) lacks some of the %d x %d at (%d, %d)",
                 image->height, image->width, image_top, image_left, reach.height, reach.width,
                 reach.top, reach.left);

    // The passes only visit the rows and columns that the window reads.
    const int first_row = reach.top, n_rows = reach.height;
    const hirl_planes_t tall_shape = {NULL, image->channels, n_rows, how->n_x, across->n_padded};
    const hirl_planes_t out_shape = {NULL, image->channels, how->n_y, how->n_x, across->n_padded};
    hirl_planes_t tall = tall_shape, out = out_shape;
    const size_t channels = (size_t)image->channels;
    HIRL_TRY(hirl_scratch_reserve(&augment->row, (size_t)how->width * sizeof(uint32_t)));
    HIRL_TRY(hirl_scratch_reserve(&augment->sums, (size_t)across->n_padded * sizeof(int32_t)));
    HIRL_TRY(hirl_scratch_reserve(&augment->tall, channels * hirl_plane_size(&tall)));
    HIRL_TRY(hirl_scratch_reserve(&augment->image, channels * hirl_plane_size(&out)));
    tall.data = augment->tall.data;
    out.data = augment->image.data;

    horizontal_pass(augment, image, first_row - image_top, image_left, &reach, across, &tall);
    vertical_pass(augment, &tall, down, first_row, &out);
    *planes_p = out;
    return HIRL_OK;
}
