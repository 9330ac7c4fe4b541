// Augmented views as Pillow (RandAugment, random erasing: timm) makes them, written from its definitions with no thought of speed, and
// apart from src/data, whose results they are compared with. A view is an interleaved u8 image [side, side, channels] until it is normalised.

#include "ref_impl.h"

#include "hirl/base_exact.h"

typedef struct image {
    uint8_t *data;
    int height, width, channels;
} image_t;

static uint8_t *pixel(const image_t *im, int y, int x) {
    return im->data + ((int64_t)y * im->width + x) * im->channels;
}

static uint8_t clip8(int64_t value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

static void swap(image_t *a, image_t *b) {
    const image_t kept = *a;
    *a = *b;
    *b = kept;
}

static int clamp(int i, int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

// ---------------------------------------------------------------------------------------------- resize

static double sinc(double x) { return x == 0 ? 1 : hirl_exact_sin_pi(x) / (M_PI * x); }

static double filter(int kind, double x) {
    const double a = -0.5;
    if (kind == HIRL_FILTER_LANCZOS) return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    x = fabs(x);
    if (kind == HIRL_FILTER_BILINEAR) return x < 1 ? 1 - x : 0;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Weights of the input samples [*low_p, *low_p + *n_p) for output i, 22 fractional bits, into `weight` (room for all n_in of them).
static void weights(int kind, int n_in, int n_out, int i, double *real, int32_t *weight, int *low_p,
                    int *n_p) {
    const double scale = (double)n_in / n_out, stretch = scale > 1 ? scale : 1;
    const double support = (kind == HIRL_FILTER_LANCZOS   ? 3
                            : kind == HIRL_FILTER_BICUBIC ? 2
                                                          : 1) *
                           stretch;
    const double center = (i + 0.5) * scale, inverse = 1.0 / stretch;
    int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
    double sum = 0;
    if (low < 0) low = 0;
    if (high > n_in) high = n_in;
    for (int k = low; k < high; ++k) {
        real[k - low] = filter(kind, (k - center + 0.5) * inverse);
        sum += real[k - low];
    }
    for (int k = 0; k < high - low; ++k) {
        const double w = (sum != 0 ? real[k] / sum : real[k]) * (1 << 22);
        weight[k] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
    *low_p = low;
    *n_p = high - low;
}

// Resizes along x (is_row) or along y to n_resized; sizes alike are left alone, as Pillow does. `out` shows this from item `first` on, and
// black beyond it.
static void resize_axis(int kind, bool is_row, const image_t *in, int n_resized, int first,
                        double *real, int32_t *weight, image_t *out) {
    const int n_in = is_row ? in->width : in->height, n_out = is_row ? out->width : out->height;
    const int n_across = is_row ? in->height : in->width;
    for (int o = 0; o < n_out; ++o) {
        const int i = first + o;
        int low = i, n = i >= 0 && i < n_resized ? 1 : 0;
        weight[0] = 1 << 22;
        if (n && n_in != n_resized) weights(kind, n_in, n_resized, i, real, weight, &low, &n);
        for (int j = 0; j < n_across; ++j)
            for (int c = 0; c < in->channels; ++c) {
                int64_t sum = 1 << 21;
                for (int k = low; k < low + n; ++k)
                    sum +=
                        (int64_t)weight[k - low] * (is_row ? pixel(in, j, k) : pixel(in, k, j))[c];
                (is_row ? pixel(out, j, o) : pixel(out, o, j))[c] = clip8(sum >> 22);
            }
    }
}

static void flip(image_t *im, image_t *other) {
    for (int y = 0; y < im->height; ++y)
        for (int x = 0; x < im->width; ++x)
            memcpy(pixel(other, y, im->width - 1 - x), pixel(im, y, x), (size_t)im->channels);
}

// ---------------------------------------------------------------------------------------------- colours

static int luma(const uint8_t *p) {
    return (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
}

// Image.blend towards `value` from `other`: float arithmetic, cut off.
static uint8_t blend(int other, int value, float alpha) {
    const float product = alpha * (float)(value - other);
    return clip8((int64_t)((float)other + product));
}

static void brightness(image_t *im, float alpha) {
    for (int64_t i = 0; i < (int64_t)im->height * im->width * im->channels; ++i)
        im->data[i] = blend(0, im->data[i], alpha);
}

static void contrast(image_t *im, float alpha) {
    const int64_t n = (int64_t)im->height * im->width;
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += im->channels == 3 ? luma(im->data + 3 * i) : im->data[i];
    const int mean = (int)((double)sum / (double)n + 0.5);
    for (int64_t i = 0; i < n * im->channels; ++i) im->data[i] = blend(mean, im->data[i], alpha);
}

static void saturation(image_t *im, float alpha) {
    for (int64_t i = 0; i < (int64_t)im->height * im->width && im->channels == 3; ++i) {
        uint8_t *p = im->data + 3 * i;
        const int gray = luma(p);
        for (int c = 0; c < 3; ++c) p[c] = blend(gray, p[c], alpha);
    }
}

// Through 8-bit HSV and back: Pillow's convert('HSV'), a shift of H modulo 256, convert('RGB').
static void turn_hue(uint8_t *p, int shift) {
    const int r = p[0], g = p[1], b = p[2];
    const int high = r > g ? (r > b ? r : b) : (g > b ? g : b);
    const int low = r < g ? (r < b ? r : b) : (g < b ? g : b);
    int hue = 0, strength = 0;
    if (high > low) {
        const float range = (float)(high - low), to_r = (float)(high - r) / range,
                    to_g = (float)(high - g) / range, to_b = (float)(high - b) / range;
        float h = to_b - to_g;
        if (r != high)
            h = g == high ? (float)(2.0 + (double)to_r - (double)to_b)
                          : (float)(4.0 + (double)to_g - (double)to_r);
        h = (float)fmod((double)h / 6.0 + 1.0, 1.0);
        hue = clip8((int64_t)((double)h * 255.0));
        strength = clip8((int64_t)((double)(range / (float)high) * 255.0));
    }
    hue = (hue + shift) & 255;
    const double sixth = hue * 6.0 / 255.0, s = strength / 255.0;
    const int sector = (int)floor(sixth);
    const float part = (float)(sixth - sector);
    const uint8_t v = (uint8_t)high, x = clip8((int64_t)round(high * (1.0 - s))),
                  q = clip8((int64_t)round(high * (1.0 - s * (double)part))),
                  t = clip8((int64_t)round(high * (1.0 - s * (1.0 - (double)part))));
    const uint8_t wheel[6][3] = {{v, t, x}, {q, v, x}, {x, v, t}, {x, q, v}, {t, x, v}, {v, x, q}};
    for (int c = 0; c < 3; ++c) p[c] = wheel[sector % 6][c];
}

static void hue(image_t *im, double shift) {
    const int turn = (int)((shift < -1 ? -1 : shift > 1 ? 1 : shift) * 255.0) & 255;
    for (int64_t i = 0; i < (int64_t)im->height * im->width && im->channels == 3; ++i)
        turn_hue(im->data + 3 * i, turn);
}

static void grayscale(image_t *im) {
    for (int64_t i = 0; i < (int64_t)im->height * im->width && im->channels == 3; ++i)
        memset(im->data + 3 * i, luma(im->data + 3 * i), 3);
}

// ---------------------------------------------------------------------------------------------- values

// Values v become table[c][v].
static void replace(image_t *im, int c, const uint8_t table[256]) {
    for (int64_t i = c; i < (int64_t)im->height * im->width * im->channels; i += im->channels)
        im->data[i] = table[im->data[i]];
}

static void count(const image_t *im, int c, int64_t n[256]) {
    memset(n, 0, 256 * sizeof *n);
    for (int64_t i = c; i < (int64_t)im->height * im->width * im->channels; i += im->channels)
        ++n[im->data[i]];
}

// ImageOps.autocontrast.
static void autocontrast(image_t *im) {
    for (int c = 0; c < im->channels; ++c) {
        int64_t n[256];
        uint8_t table[256];
        int low = 0, high = 255;
        count(im, c, n);
        while (low < 255 && n[low] == 0) ++low;
        while (high > 0 && n[high] == 0) --high;
        if (high <= low) continue;
        const double scale = 255.0 / (high - low), offset = -low * scale;
        for (int v = 0; v < 256; ++v) {
            const double scaled = v * scale;
            table[v] = clip8((int64_t)(scaled + offset));
        }
        replace(im, c, table);
    }
}

// ImageOps.equalize.
static void equalize(image_t *im) {
    for (int c = 0; c < im->channels; ++c) {
        int64_t n[256], sum = 0;
        uint8_t table[256];
        int last = 255;
        count(im, c, n);
        while (last > 0 && n[last] == 0) --last;
        const int64_t step = ((int64_t)im->height * im->width - n[last]) / 255;
        if (step == 0) continue;
        sum = step / 2;
        for (int v = 0; v < 256; ++v) {
            table[v] = clip8(sum / step);
            sum += n[v];
        }
        replace(im, c, table);
    }
}

// A table of one value each.
static void change_values(image_t *im, const hirl_view_op_t *op) {
    uint8_t table[256];
    for (int v = 0; v < 256; ++v) {
        int to = v;
        if (op->kind == HIRL_VIEW_INVERT) to = 255 - v;
        if (op->kind == HIRL_VIEW_POSTERIZE) to = v & (0xff00 >> op->n);
        if (op->kind == HIRL_VIEW_SOLARIZE) to = v < op->n ? v : 255 - v;
        if (op->kind == HIRL_VIEW_SOLARIZE_ADD) to = v < 128 ? v + op->n : v;
        table[v] = clip8(to);
    }
    for (int c = 0; c < im->channels; ++c) replace(im, c, table);
}

// ImageEnhance.Sharpness: blended from its 3 x 3 filter, which leaves the edges alone.
static void sharpen(image_t *im, image_t *other, float alpha) {
    for (int y = 0; y < im->height; ++y)
        for (int x = 0; x < im->width; ++x)
            for (int c = 0; c < im->channels; ++c) {
                int sum = 0;
                pixel(other, y, x)[c] = pixel(im, y, x)[c];
                if (y == 0 || x == 0 || y == im->height - 1 || x == im->width - 1) continue;
                for (int k = 0; k < 9; ++k)
                    sum += pixel(im, y + k / 3 - 1, x + k % 3 - 1)[c] * (k == 4 ? 5 : 1);
                pixel(other, y, x)[c] = blend((2 * sum + 13) / 26, pixel(im, y, x)[c], alpha);
            }
}

// ---------------------------------------------------------------------------------------------- places

// The affine map of an operation, from the output's pixels to the input's.
static void affine_map(const hirl_view_op_t *op, int side, double m[6]) {
    const double none[6] = {1, 0, 0, 0, 1, 0}, c = op->value, s = op->sine, half = side / 2.0;
    memcpy(m, none, sizeof none);
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
}

static int fixed_point(double value) { return (int)floor(value * 65536 + 0.5); }

// Pillow's nearest pixel: in 16.16 fixed point unless the map only scales and moves. False: outside.
static bool nearest(const image_t *im, const double m[6], int x, int y, uint8_t *out) {
    int column, row;
    if (m[1] == 0 && m[3] == 0) {
        const double px = m[2] + m[0] * 0.5 + m[0] * x, py = m[5] + m[4] * 0.5 + m[4] * y;
        column = px < 0 ? -1 : (int)px;
        row = py < 0 ? -1 : (int)py;
    } else {
        column = (fixed_point(m[2] + m[0] * 0.5 + m[1] * 0.5) + y * fixed_point(m[1]) +
                  x * fixed_point(m[0])) >>
                 16;
        row = (fixed_point(m[5] + m[3] * 0.5 + m[4] * 0.5) + y * fixed_point(m[4]) +
               x * fixed_point(m[3])) >>
              16;
    }
    if (column < 0 || row < 0 || column >= im->width || row >= im->height) return false;
    memcpy(out, pixel(im, row, column), (size_t)im->channels);
    return true;
}

static double between(const double v[4], double t, bool is_bicubic) {
    if (!is_bicubic) return v[1] + (v[2] - v[1]) * t;
    const double p2 = v[2] - v[0], p3 = 2 * (v[0] - v[1]) + v[2] - v[3],
                 p4 = v[1] - v[0] - v[2] + v[3];
    return v[1] + t * (p2 + t * (p3 + t * p4));
}

// The same between pixels, in double.
static bool interpolated(const image_t *im, const double m[6], bool is_bicubic, int x, int y,
                         uint8_t *out) {
    double px = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2],
           py = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
    if (px < 0 || px >= im->width || py < 0 || py >= im->height) return false;
    px -= 0.5;
    py -= 0.5;
    const int column = (int)floor(px), row = (int)floor(py);
    for (int c = 0; c < im->channels; ++c) {
        double line[4];
        for (int j = 0; j < 4; ++j) {
            double v[4];
            for (int i = 0; i < 4; ++i)
                v[i] =
                    pixel(im, clamp(row + j - 1, im->height), clamp(column + i - 1, im->width))[c];
            line[j] = between(v, px - column, is_bicubic);
        }
        const double value = between(line, py - row, is_bicubic);
        out[c] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    return true;
}

static void warp(image_t *im, image_t *other, const hirl_view_op_t *op, const float *mean) {
    double m[6];
    affine_map(op, im->width, m);
    for (int y = 0; y < im->height; ++y)
        for (int x = 0; x < im->width; ++x) {
            uint8_t *out = pixel(other, y, x);
            const bool is_seen =
                op->filter == HIRL_FILTER_NEAREST
                    ? nearest(im, m, x, y, out)
                    : interpolated(im, m, op->filter == HIRL_FILTER_BICUBIC, x, y, out);
            for (int c = 0; c < im->channels && !is_seen; ++c) {
                const double level = rint(255.0 * (double)mean[c]);
                out[c] = (uint8_t)(!op->is_mean_shown || level < 0 ? 0 : level > 255 ? 255 : level);
            }
        }
}

// ---------------------------------------------------------------------------------------------- blur

// One box filter of fractional radius along one axis, edges repeated, 24 fractional bits.
static void box(const image_t *in, bool is_row, int radius, uint32_t inner, uint32_t outer,
                image_t *out) {
    for (int y = 0; y < in->height; ++y)
        for (int x = 0; x < in->width; ++x)
            for (int c = 0; c < in->channels; ++c) {
                uint64_t sum = 1 << 23;
                for (int d = -radius - 1; d <= radius + 1; ++d) {
                    const uint8_t *p = is_row ? pixel(in, y, clamp(x + d, in->width))
                                              : pixel(in, clamp(y + d, in->height), x);
                    sum += (uint64_t)p[c] * (d < -radius || d > radius ? outer : inner);
                }
                pixel(out, y, x)[c] = (uint8_t)(sum >> 24);
            }
}

// GaussianBlur: three boxes along each axis (Gwosdek et al. 2011), their radius in Pillow's float arithmetic.
static void blur(image_t *im, image_t *other, double sigma) {
    const float s = (float)sigma, variance = s * s / 3;
    const float length = (float)sqrt(12.0 * (double)variance + 1.0);
    const float whole = (float)floor(((double)length - 1.0) / 2.0);
    float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
    part /= 6 * (variance - (whole + 1) * (whole + 1));
    const float radius = whole + part;
    const int r = (int)radius;
    const uint32_t inner = (uint32_t)((float)(1 << 24) / (radius * 2 + 1));
    const uint32_t outer = ((1u << 24) - (uint32_t)(2 * r + 1) * inner) / 2;
    for (int pass = 0; pass < 6; ++pass) {
        box(im, pass < 3, r, inner, outer, other);
        swap(im, other);
    }
}

// ---------------------------------------------------------------------------------------------- views

static float limited(double factor) {
    return (float)(factor < -1e4 ? -1e4 : factor > 1e4 ? 1e4 : factor);
}

static void apply(const hirl_view_op_t *op, const float *mean, image_t *im, image_t *other) {
    switch ((hirl_view_op_kind_t)op->kind) {
        case HIRL_VIEW_BRIGHTNESS: brightness(im, limited(op->value)); break;
        case HIRL_VIEW_CONTRAST: contrast(im, limited(op->value)); break;
        case HIRL_VIEW_SATURATION: saturation(im, limited(op->value)); break;
        case HIRL_VIEW_HUE: hue(im, op->value); break;
        case HIRL_VIEW_GRAY: grayscale(im); break;
        case HIRL_VIEW_INVERT:
        case HIRL_VIEW_POSTERIZE:
        case HIRL_VIEW_SOLARIZE:
        case HIRL_VIEW_SOLARIZE_ADD: change_values(im, op); break;
        case HIRL_VIEW_AUTOCONTRAST: autocontrast(im); break;
        case HIRL_VIEW_EQUALIZE: equalize(im); break;
        case HIRL_VIEW_SHARPNESS:
            sharpen(im, other, limited(op->value));
            swap(im, other);
            break;
        case HIRL_VIEW_TURN:
        case HIRL_VIEW_SHEAR_X:
        case HIRL_VIEW_SHEAR_Y:
        case HIRL_VIEW_MOVE_X:
        case HIRL_VIEW_MOVE_Y:
            warp(im, other, op, mean);
            swap(im, other);
            break;
        case HIRL_VIEW_N_KINDS: break;
    }
}

// `im` and `other` [side, side], `wide` [crop_height, side].
static void make_view(const hirl_view_recipe_t *r, const float *mean, const image_t *crop,
                      double *real, int32_t *weight, image_t *wide, image_t *im, image_t *other) {
    const hirl_view_op_t solarize = {.kind = HIRL_VIEW_SOLARIZE, .n = 128};
    const bool is_window = r->resized_height > 0;
    resize_axis(r->filter, true, crop, is_window ? r->resized_width : im->width,
                is_window ? r->window_x : 0, real, weight, wide);
    resize_axis(r->filter, false, wide, is_window ? r->resized_height : im->height,
                is_window ? r->window_y : 0, real, weight, im);
    if (r->is_flipped) {
        flip(im, other);
        swap(im, other);
    }
    for (int i = 0; i < r->n_ops; ++i) apply(&r->op[i], mean, im, other);
    if (r->has_blur) blur(im, other, r->blur_sigma);
    if (r->is_solarized) apply(&solarize, mean, im, other);
}

static void normalize(const hirl_view_recipe_t *r, const image_t *im, const float *mean,
                      const float *std, float *y) {
    const int64_t c = im->channels, n = (int64_t)im->height * im->width * c;
    for (int64_t i = 0; i < n; ++i) {
        const double shift = c == 3 ? r->shift[i % c] : 0;
        const float scale = (float)(1.0 / (255.0 * (double)std[i % c]));
        float offset = (float)(-(double)mean[i % c] / (double)std[i % c]);
        offset += (float)(shift / (double)std[i % c]);
        const float product = (float)im->data[i] * scale;
        y[i] = product + offset;
    }
    const int64_t line = r->erase_width * c;
    for (int64_t row = 0; row < r->erase_height; ++row)
        hirl_rng_normals(&r->noise, row * line, line, 1.0,
                         y + ((r->erase_top + row) * im->width + r->erase_left) * c);
}

static hirl_status_t one_view(const uint8_t *pixels, const hirl_view_recipe_t *r, int size,
                              int channels, const float *mean, const float *std, float *y) {
    const int64_t c = channels, n_in = (int64_t)r->crop_height * r->crop_width * c,
                  n_wide = (int64_t)r->crop_height * size * c, n_out = (int64_t)size * size * c;
    const int most = r->crop_height > r->crop_width ? r->crop_height : r->crop_width;
    uint8_t *bytes = NULL;
    double *real = NULL;
    int32_t *weight = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, n_in + n_wide + 2 * n_out, &bytes), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, most, &real), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_WORKSPACE, most, &weight), status, done);
    image_t crop = {bytes, r->crop_height, r->crop_width, channels},
            wide = {bytes + n_in, r->crop_height, size, channels},
            im = {bytes + n_in + n_wide, size, size, channels},
            other = {bytes + n_in + n_wide + n_out, size, size, channels};
    for (int row = 0; row < r->crop_height; ++row)
        memcpy(pixel(&crop, row, 0),
               pixels + r->offset + ((int64_t)(r->top + row) * r->width + r->left) * c,
               (size_t)(r->crop_width * c));
    make_view(r, mean, &crop, real, weight, &wide, &im, &other);
    normalize(r, &im, mean, std, y);
done:
    hirl_mem_free(bytes);
    hirl_mem_free(real);
    hirl_mem_free(weight);
    return status;
}

hirl_status_t ref_make_views(hirl_backend_t *be, const hirl_tensor_t *pixels,
                             const hirl_view_recipe_t *recipes, int64_t n, int size, int channels,
                             const float *mean, const float *std, hirl_tensor_t *y) {
    const int64_t row = (int64_t)size * size * channels;
    (void)be;
    for (int64_t i = 0; i < n; ++i)
        HIRL_TRY(one_view(hirl_tensor_data(pixels), &recipes[i], size, channels, mean, std,
                          hirl_tensor_f32(y) + i * row));
    return HIRL_OK;
}
