// Pillow's GaussianBlur, bit for bit: three box filters of fractional radius along rows, then three
// along columns (Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box
// filtering", 2011, eqs. 7, 11, 14), each rounded to 8 bits, edges repeated. One pass is
//     out[x] = (ww * sum_{|d| <= r} in[x + d] + fw * (in[x - r - 1] + in[x + r + 1]) + 2^23) >> 24.
// A plane is worked on in 16-bit words (no packing between passes: 1.6 times faster than bytes),
// surrounded by margins that hold the repeated edges. A pass is then one loop over the whole plane,
// along rows (step 1) or columns (step = pitch); what it writes into the margins is replaced. Radii
// beyond those of usual views slide the sum instead.
#include "augment_impl.h"

#include <math.h>
#include <string.h>

#include "clones_impl.h"

enum { MAX_FIXED_RADIUS = 3, N_PASSES = 3 };

typedef struct box {
    int radius;  // whole part
    uint32_t ww; // weight of a pixel within the radius; 24 fractional bits
    uint32_t fw; // weight of the two beyond it
} box_t;

// Arithmetic in float where Pillow has it: the weights must come out the same.
static box_t box_make(double sigma) {
    const float sigma_f = (float)sigma;
    const float variance = sigma_f * sigma_f / N_PASSES;
    const float length = (float)sqrt(12.0 * variance + 1.0);
    const float whole = (float)floor((length - 1.0) / 2.0);
    float fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
    fraction /= 6 * (variance - (whole + 1) * (whole + 1));
    const float radius = whole + fraction;
    box_t box = {.radius = (int)radius};
    box.ww = (uint32_t)((float)(1u << 24) / (radius * 2 + 1));
    box.fw = ((1u << 24) - (uint32_t)(box.radius * 2 + 1) * box.ww) / 2;
    return box;
}

static inline uint16_t weigh(uint32_t sum, uint32_t far, uint32_t ww, uint32_t fw) {
    return (uint16_t)((sum * ww + far * fw + (1u << 23)) >> 24);
}

// A plane with margins: pixel (y, x) is data[y * pitch + x], readable from -margin to size + margin
// - 1 on both axes.
typedef struct field {
    uint16_t *data;
    int height, width, margin;
    ptrdiff_t pitch;
} field_t;

// ------------------------------------------------------------------------------------ passes

#define BOX_PASS(r)                                                                           \
    HIRL_CLONES __attribute__((noinline)) static void box_pass_##r(                           \
        const uint16_t *HIRL_RESTRICT in, uint16_t *HIRL_RESTRICT out, ptrdiff_t n,           \
        ptrdiff_t step, uint32_t ww, uint32_t fw) {                                           \
        for (ptrdiff_t i = 0; i < n; i++) {                                                   \
            uint16_t sum = in[i];                                                             \
            for (int d = 1; d <= r; d++)                                                      \
                sum = (uint16_t)(sum + in[i - d * step] + in[i + d * step]);                  \
            const uint16_t far = (uint16_t)(in[i - (r + 1) * step] + in[i + (r + 1) * step]); \
            out[i] = weigh(sum, far, ww, fw);                                                 \
        }                                                                                     \
    }
BOX_PASS(0)
BOX_PASS(1)
BOX_PASS(2)
BOX_PASS(3)
typedef void box_pass_fn_t(const uint16_t *in, uint16_t *out, ptrdiff_t n, ptrdiff_t step,
                           uint32_t ww, uint32_t fw);

static void slide_rows(const field_t *in, const field_t *out, box_t box) {
    const int r = box.radius;
    for (int y = 0; y < in->height; y++) {
        const uint16_t *from = in->data + y * in->pitch;
        uint16_t *to = out->data + y * out->pitch;
        uint32_t sum = 0;
        for (int d = -r - 1; d < r; d++) sum += from[d];
        for (int x = 0; x < in->width; x++) {
            sum += (uint32_t)from[x + r] - from[x - r - 1];
            to[x] = weigh(sum, (uint32_t)from[x - r - 1] + from[x + r + 1], box.ww, box.fw);
        }
    }
}

// `sums` [width] holds the window of each column.
HIRL_CLONES static void slide_columns(const field_t *in, const field_t *out, box_t box,
                                      uint32_t *HIRL_RESTRICT sums) {
    const int r = box.radius, width = in->width;
    const ptrdiff_t pitch = in->pitch;
    memset(sums, 0, (size_t)width * sizeof *sums);
    for (int d = -r - 1; d < r; d++) {
        for (int x = 0; x < width; x++) sums[x] += in->data[d * pitch + x];
    }
    for (int y = 0; y < in->height; y++) {
        const uint16_t *left = in->data + (y - r - 1) * pitch, *enter = in->data + (y + r) * pitch;
        uint16_t *HIRL_RESTRICT to = out->data + y * pitch;
        for (int x = 0; x < width; x++) {
            sums[x] += (uint32_t)enter[x] - left[x];
            to[x] = weigh(sums[x], (uint32_t)left[x] + enter[x + pitch], box.ww, box.fw);
        }
    }
}

// ------------------------------------------------------------------------------------ margins

static void repeat_sides(const field_t *field) {
    for (int y = 0; y < field->height; y++) {
        uint16_t *row = field->data + y * field->pitch;
        for (int d = 1; d <= field->margin; d++) {
            row[-d] = row[0];
            row[field->width - 1 + d] = row[field->width - 1];
        }
    }
}

static void repeat_ends(const field_t *field) {
    const size_t bytes = (size_t)field->width * sizeof *field->data;
    uint16_t *last = field->data + (field->height - 1) * field->pitch;
    for (int d = 1; d <= field->margin; d++) {
        memcpy(field->data - d * field->pitch, field->data, bytes);
        memcpy(last + d * field->pitch, last, bytes);
    }
}

HIRL_CLONES static void widen(const uint8_t *HIRL_RESTRICT in, int n, uint16_t *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) out[x] = in[x];
}

HIRL_CLONES static void narrow(const uint16_t *HIRL_RESTRICT in, int n,
                               uint8_t *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) out[x] = (uint8_t)in[x];
}

static void blur_field(field_t *field, field_t *other, box_t box, uint32_t *sums) {
    static box_pass_fn_t *const fixed[MAX_FIXED_RADIUS + 1] = {box_pass_0, box_pass_1, box_pass_2,
                                                               box_pass_3};
    const ptrdiff_t n = field->height * field->pitch;
    for (int pass = 0; pass < 2 * N_PASSES; pass++) {
        const bool is_along_rows = pass < N_PASSES;
        if (is_along_rows)
            repeat_sides(field);
        else
            repeat_ends(field);
        if (box.radius <= MAX_FIXED_RADIUS) {
            fixed[box.radius](field->data, other->data, n, is_along_rows ? 1 : field->pitch, box.ww,
                              box.fw);
        } else if (is_along_rows) {
            slide_rows(field, other, box);
        } else {
            slide_columns(field, other, box, sums);
        }
        uint16_t *const swap = field->data;
        field->data = other->data;
        other->data = swap;
    }
}

hirl_status_t hirl_blur_planes(hirl_augment_t *augment, const hirl_planes_t *planes, double sigma) {
    HIRL_REQUIRE(sigma >= 0.0 && sigma <= 1000.0, HIRL_ERR_ARG,
                 "blur sigma is %g, want 0..1000 pixels", sigma);
    const box_t box = box_make(sigma);
    const int height = planes->height, width = planes->width, margin = box.radius + 1;
    const size_t pitch = ((size_t)width + 2 * (size_t)margin + 15) / 16 * 16;
    // One more row: a pass over all rows at step 1 ends a margin beyond the last.
    const size_t words = ((size_t)height + 2 * (size_t)margin + 1) * pitch;
    const size_t bytes = (2 * words * sizeof(uint16_t) + 63) / 64 * 64;
    HIRL_TRY(hirl_scratch_reserve(&augment->blur, bytes + (size_t)width * sizeof(uint32_t)));
    uint16_t *const room = augment->blur.data;
    uint32_t *const sums = (uint32_t *)((char *)augment->blur.data + bytes);
    const size_t origin = (size_t)margin * pitch + (size_t)margin;
    for (int c = 0; c < planes->channels; c++) {
        field_t field = {room + origin, height, width, margin, (ptrdiff_t)pitch}, other = field;
        other.data += words;
        for (int y = 0; y < height; y++)
            widen(hirl_plane_row_view(planes, c, y), width, field.data + y * field.pitch);
        blur_field(&field, &other, box, sums);
        for (int y = 0; y < height; y++)
            narrow(field.data + y * field.pitch, width, hirl_plane_row_view(planes, c, y));
    }
    return HIRL_OK;
}
