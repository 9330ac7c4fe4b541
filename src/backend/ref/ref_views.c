// Augmented views as Pillow makes them, written from its definitions with no thought of speed, and apart from src/data, whose
// results they are compared with. A view is an interleaved u8 image [side, side, channels] until it is normalised.

#include "ref_impl.h"

typedef struct image {
    uint8_t *data;
    int height, width, channels;
} image_t;

static uint8_t *pixel(const image_t *im, int y, int x) {
    return im->data + ((int64_t)y * im->width + x) * im->channels;
}

static uint8_t clip8(int64_t value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

static int clamp(int i, int n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

// ---------------------------------------------------------------------------------------------- resize

static double filter(bool is_bicubic, double x) {
    const double a = -0.5;
    x = fabs(x);
    if (!is_bicubic) return x < 1 ? 1 - x : 0;
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Weights of the input samples [*low_p, *low_p + *n_p) for output i, 22 fractional bits, into `weight` (room for all n_in of them).
static void weights(bool is_bicubic, int n_in, int n_out, int i, double *real, int32_t *weight,
                    int *low_p, int *n_p) {
    const double scale = (double)n_in / n_out, stretch = scale > 1 ? scale : 1;
    const double support = (is_bicubic ? 2 : 1) * stretch, center = (i + 0.5) * scale;
    const double inverse = 1.0 / stretch;
    int low = (int)(center - support + 0.5), high = (int)(center + support + 0.5);
    double sum = 0;
    if (low < 0) low = 0;
    if (high > n_in) high = n_in;
    for (int k = low; k < high; ++k) {
        real[k - low] = filter(is_bicubic, (k - center + 0.5) * inverse);
        sum += real[k - low];
    }
    for (int k = 0; k < high - low; ++k) {
        const double w = (sum != 0 ? real[k] / sum : real[k]) * (1 << 22);
        weight[k] = (int32_t)(w < 0 ? w - 0.5 : w + 0.5);
    }
    *low_p = low;
    *n_p = high - low;
}

// Resizes along x (is_row) or along y; sizes alike are left alone, as Pillow does.
static void resize_axis(bool is_bicubic, bool is_row, const image_t *in, double *real,
                        int32_t *weight, image_t *out) {
    const int n_in = is_row ? in->width : in->height, n_out = is_row ? out->width : out->height;
    const int n_across = is_row ? in->height : in->width;
    for (int i = 0; i < n_out; ++i) {
        int low = i, n = 1;
        weight[0] = 1 << 22;
        if (n_in != n_out) weights(is_bicubic, n_in, n_out, i, real, weight, &low, &n);
        for (int j = 0; j < n_across; ++j)
            for (int c = 0; c < in->channels; ++c) {
                int64_t sum = 1 << 21;
                for (int k = low; k < low + n; ++k)
                    sum +=
                        (int64_t)weight[k - low] * (is_row ? pixel(in, j, k) : pixel(in, k, j))[c];
                (is_row ? pixel(out, j, i) : pixel(out, i, j))[c] = clip8(sum >> 22);
            }
    }
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
        const image_t swap = *im;
        box(im, pass < 3, r, inner, outer, other);
        *im = *other;
        *other = swap;
    }
}

// ---------------------------------------------------------------------------------------------- views

static float limited(double factor) {
    return (float)(factor < -1e4 ? -1e4 : factor > 1e4 ? 1e4 : factor);
}

// `im` and `other` [side, side], `wide` [crop_height, side].
static void make_view(const hirl_view_recipe_t *r, const image_t *crop, double *real,
                      int32_t *weight, image_t *wide, image_t *im, image_t *other) {
    resize_axis(r->is_bicubic, true, crop, real, weight, wide);
    resize_axis(r->is_bicubic, false, wide, real, weight, im);
    for (int i = 0; i < r->n_jitter; ++i) {
        if (r->jitter[i] == HIRL_JITTER_BRIGHTNESS) brightness(im, limited(r->factor[i]));
        if (r->jitter[i] == HIRL_JITTER_CONTRAST) contrast(im, limited(r->factor[i]));
        if (r->jitter[i] == HIRL_JITTER_SATURATION) saturation(im, limited(r->factor[i]));
        if (r->jitter[i] == HIRL_JITTER_HUE) hue(im, r->factor[i]);
    }
    if (r->is_gray) grayscale(im);
    if (r->has_blur) blur(im, other, r->blur_sigma);
    for (int64_t i = 0; i < (int64_t)im->height * im->width * im->channels && r->is_solarized; ++i)
        if (im->data[i] >= 128) im->data[i] = (uint8_t)(255 - im->data[i]);
    if (r->is_flipped) {
        for (int y = 0; y < im->height; ++y)
            for (int x = 0; x < im->width; ++x)
                memcpy(pixel(other, y, im->width - 1 - x), pixel(im, y, x), (size_t)im->channels);
        *im = *other;
    }
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
    make_view(r, &crop, real, weight, &wide, &im, &other);
    for (int64_t i = 0; i < n_out; ++i) {
        const float scale = (float)(1.0 / (255.0 * (double)std[i % c])),
                    offset = (float)(-(double)mean[i % c] / (double)std[i % c]),
                    product = (float)im.data[i] * scale;
        y[i] = product + offset;
    }
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
