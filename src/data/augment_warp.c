// Pillow's Image.transform with an affine map and Image.rotate, bit for bit: output pixel (x, y) shows the input at
//     (m0 (x + 1/2) + m1 (y + 1/2) + m2, m3 (x + 1/2) + m4 (y + 1/2) + m5),
// pixels whose place lies outside are filled. Nearest: in 16.16 fixed point, or by running sums
// where the map only scales and moves. Bilinear and bicubic: in double, beyond the edges the edge.
// All read a copy of the image with a word per pixel and the edges repeated around it, so that loops
// gather whole words and have no branches.
#include "augment_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clones_impl.h"

enum { MARGIN = 2, FIXED_BITS = 16 };
static const double FIXED_MAX = 32768.0; // coordinates whose 16.16 form fits 32 bits

// Where the pixels of one output row come from.
typedef struct places {
    int32_t *at;     // index of the first word (or pixel) that is read
    double *dx, *dy; // bilinear, bicubic: distance from the pixel at the left, above
    int32_t *column; // nearest, where the map only scales and moves
    int32_t *seen;   // 0: outside
} places_t;

// ------------------------------------------------------------------------------------ nearest

static int32_t fixed(double value) {
    return (int32_t)floor(value * (double)(1 << FIXED_BITS) + 0.5);
}

static inline int scaled_coordinate(double value) { return value < 0.0 ? -1 : (int)value; }

// Takes one row's pixels from their words.
HIRL_CLONES static void nearest_row(const uint32_t *HIRL_RESTRICT words,
                                    const int32_t *HIRL_RESTRICT at,
                                    const int32_t *HIRL_RESTRICT seen, int n, int shift, int fill,
                                    uint8_t *HIRL_RESTRICT out) {
    for (int x = 0; x < n; x++) {
        const int value = (int)(words[at[x]] >> shift & 255);
        out[x] = (uint8_t)(seen[x] ? value : fill);
    }
}

// Places of a row in 16.16 fixed point; the map keeps them below 2^31.
HIRL_CLONES static void find_turned(int32_t x_first, int32_t y_first, int32_t x_step,
                                    int32_t y_step, int width, int height, int32_t pitch,
                                    int32_t *HIRL_RESTRICT at, int32_t *HIRL_RESTRICT seen) {
    for (int x = 0; x < width; x++) {
        const int32_t column = (x_first + x * x_step) >> FIXED_BITS,
                      row = (y_first + x * y_step) >> FIXED_BITS;
        seen[x] = (column >= 0) & (column < width) & (row >= 0) & (row < height);
        at[x] = seen[x] ? (row + MARGIN) * pitch + column + MARGIN : 0;
    }
}

static void find_scaled(int row, int height, const int32_t *column, int width, int32_t pitch,
                        int32_t *at, int32_t *seen) {
    const bool is_row = row >= 0 && row < height;
    for (int x = 0; x < width; x++) {
        seen[x] = is_row && column[x] >= 0 && column[x] < width;
        at[x] = seen[x] ? (row + MARGIN) * pitch + column[x] + MARGIN : 0;
    }
}

static void warp_nearest(const hirl_planes_t *in, const hirl_planes_t *out, const double m[6],
                         const uint32_t *words, int32_t pitch, const places_t *places,
                         const uint8_t fill[3]) {
    const bool is_scaled = m[1] == 0.0 && m[3] == 0.0;
    int32_t *column = places->column;
    double place = m[2] + m[0] * 0.5;
    for (int x = 0; x < in->width && is_scaled; x++, place += m[0])
        column[x] = scaled_coordinate(place);
    place = m[5] + m[4] * 0.5;
    const int32_t x_step = fixed(m[0]), y_step = fixed(m[3]);
    int32_t x_first = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5),
            y_first = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
    for (int y = 0; y < in->height; y++) {
        if (is_scaled) {
            find_scaled(scaled_coordinate(place), in->height, column, in->width, pitch, places->at,
                        places->seen);
            place += m[4];
        } else {
            find_turned(x_first, y_first, x_step, y_step, in->width, in->height, pitch, places->at,
                        places->seen);
            x_first += fixed(m[1]);
            y_first += fixed(m[4]);
        }
        for (int c = 0; c < in->channels; c++) {
            nearest_row(words, places->at, places->seen, in->width, 8 * c, fill[c],
                        hirl_plane_row_view(out, c, y));
        }
    }
}

// ------------------------------------------------------------------------------------ bilinear, bicubic

// `words` begins at pixel (-MARGIN, -MARGIN).
static void pack_words(const hirl_planes_t *in, uint32_t *words, ptrdiff_t pitch) {
    for (int y = 0; y < in->height; y++) {
        uint32_t *row = words + (y + MARGIN) * pitch + MARGIN;
        const uint8_t *r = hirl_plane_row_view(in, 0, y);
        if (in->channels == 3) {
            const uint8_t *g = hirl_plane_row_view(in, 1, y), *b = hirl_plane_row_view(in, 2, y);
            for (int x = 0; x < in->width; x++)
                row[x] = (uint32_t)r[x] | (uint32_t)g[x] << 8 | (uint32_t)b[x] << 16;
        } else {
            for (int x = 0; x < in->width; x++) row[x] = r[x];
        }
        for (int d = 1; d <= MARGIN; d++) {
            row[-d] = row[0];
            row[in->width - 1 + d] = row[in->width - 1];
        }
    }
    const size_t bytes = (size_t)pitch * sizeof *words;
    uint32_t *first = words + MARGIN * pitch, *last = first + (in->height - 1) * pitch;
    for (int d = 1; d <= MARGIN; d++) {
        memcpy(first - d * pitch, first, bytes);
        memcpy(last + d * pitch, last, bytes);
    }
}

// Places of one row; `back` is how far left of and above a pixel the filter begins.
HIRL_CLONES static void find_places(const double *HIRL_RESTRICT m, int width, int height, int y,
                                    ptrdiff_t pitch, int back, int32_t *HIRL_RESTRICT at,
                                    double *HIRL_RESTRICT dx, double *HIRL_RESTRICT dy,
                                    int32_t *HIRL_RESTRICT seen) {
    const double right = width, bottom = height, row = y + 0.5;
    const int32_t step = (int32_t)pitch, origin = (MARGIN - back) * (step + 1);
    for (int x = 0; x < width; x++) {
        double px = m[0] * (x + 0.5) + m[1] * row + m[2];
        double py = m[3] * (x + 0.5) + m[4] * row + m[5];
        const bool is_seen = (px >= 0.0) & (px < right) & (py >= 0.0) & (py < bottom);
        px = px < 0.0 ? 0.0 : px;
        px = px > right ? right : px;
        py = py < 0.0 ? 0.0 : py;
        py = py > bottom ? bottom : py;
        px -= 0.5;
        py -= 0.5;
        int32_t column = (int32_t)px, line = (int32_t)py;
        column -= px < column ? 1 : 0;
        line -= py < line ? 1 : 0;
        seen[x] = is_seen ? 1 : 0;
        dx[x] = px - column;
        dy[x] = py - line;
        at[x] = origin + line * step + column;
    }
}

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE double bilinear(double a, double b, double d) { return a + (b - a) * d; }

// Through the middle two of four points, Keys' parameter a = -1 (another than the resizing filter's).
ALWAYS_INLINE double bicubic(double a, double b, double c, double d, double t) {
    const double p2 = c - a, p3 = 2 * (a - b) + c - d, p4 = b - a - c + d;
    return b + t * (p2 + t * (p3 + t * p4));
}

ALWAYS_INLINE double channel_of(uint32_t word, int shift) {
    return (double)(int32_t)(word >> shift & 255);
}

HIRL_CLONES static void bilinear_row(const uint32_t *HIRL_RESTRICT words, ptrdiff_t pitch,
                                     const int32_t *HIRL_RESTRICT at,
                                     const double *HIRL_RESTRICT dx, const double *HIRL_RESTRICT dy,
                                     const int32_t *HIRL_RESTRICT seen, int n, int shift, int fill,
                                     uint8_t *HIRL_RESTRICT out) {
    const uint32_t *below = words + pitch;
    for (int x = 0; x < n; x++) {
        const int32_t i = at[x];
        const double up =
            bilinear(channel_of(words[i], shift), channel_of(words[i + 1], shift), dx[x]);
        const double down =
            bilinear(channel_of(below[i], shift), channel_of(below[i + 1], shift), dx[x]);
        const int value = (int)bilinear(up, down, dy[x]);
        out[x] = (uint8_t)(seen[x] ? value : fill);
    }
}

HIRL_CLONES static void bicubic_row(const uint32_t *HIRL_RESTRICT words, ptrdiff_t pitch,
                                    const int32_t *HIRL_RESTRICT at, const double *HIRL_RESTRICT dx,
                                    const double *HIRL_RESTRICT dy,
                                    const int32_t *HIRL_RESTRICT seen, int n, int shift, int fill,
                                    uint8_t *HIRL_RESTRICT out) {
    const uint32_t *row1 = words + pitch, *row2 = row1 + pitch, *row3 = row2 + pitch;
#define ROW(words)                                                            \
    bicubic(channel_of((words)[i], shift), channel_of((words)[i + 1], shift), \
            channel_of((words)[i + 2], shift), channel_of((words)[i + 3], shift), t)
    for (int x = 0; x < n; x++) {
        const int32_t i = at[x];
        const double t = dx[x];
        double value = bicubic(ROW(words), ROW(row1), ROW(row2), ROW(row3), dy[x]);
        value = value < 0.0 ? 0.0 : value > 255.0 ? 255.0 : value;
        out[x] = (uint8_t)(seen[x] ? (int)value : fill);
    }
#undef ROW
}

static void warp_smooth(const hirl_planes_t *in, const hirl_planes_t *out, const double m[6],
                        bool is_bicubic, const uint32_t *words, ptrdiff_t pitch,
                        const places_t *places, const uint8_t fill[3]) {
    for (int y = 0; y < in->height; y++) {
        find_places(m, in->width, in->height, y, pitch, is_bicubic, places->at, places->dx,
                    places->dy, places->seen);
        for (int c = 0; c < in->channels; c++) {
            (is_bicubic ? bicubic_row : bilinear_row)(words, pitch, places->at, places->dx,
                                                      places->dy, places->seen, in->width, 8 * c,
                                                      fill[c], hirl_plane_row_view(out, c, y));
        }
    }
}

// ------------------------------------------------------------------------------------ whole images

hirl_status_t hirl_planes_affine(hirl_augment_t *augment, hirl_planes_t *planes, const double m[6],
                                 hirl_filter_t filter, const uint8_t fill[3]) {
    HIRL_REQUIRE(filter != HIRL_FILTER_LANCZOS, HIRL_ERR_ARG,
                 "images can be turned and sheared by nearest, bilinear and bicubic, not by "
                 "Lanczos");
    for (int corner = 0; corner < 4; corner++) {
        const double x = corner & 1 ? planes->width : 0, y = corner & 2 ? planes->height : 0;
        HIRL_REQUIRE(fabs(x * m[0] + y * m[1] + m[2]) < FIXED_MAX &&
                         fabs(x * m[3] + y * m[4] + m[5]) < FIXED_MAX,
                     HIRL_ERR_ARG,
                     "the affine map takes a corner of a %d x %d image %g pixels or more away",
                     planes->height, planes->width, FIXED_MAX);
    }
    hirl_planes_t out = *planes;
    HIRL_TRY(hirl_planes_reserve_other(augment, planes, &out));
    const size_t width = (size_t)planes->width;
    HIRL_TRY(
        hirl_scratch_reserve(&augment->places, width * (2 * sizeof(double) + 3 * sizeof(int32_t))));
    places_t places;
    places.dx = augment->places.data;
    places.dy = places.dx + width;
    places.at = (int32_t *)(places.dy + width);
    places.column = places.at + width;
    places.seen = places.column + width;
    const size_t pitch = width + 2 * MARGIN;
    HIRL_TRY(hirl_scratch_reserve(&augment->words, ((size_t)planes->height + 2 * MARGIN) * pitch *
                                                       sizeof(uint32_t)));
    uint32_t *words = augment->words.data;
    pack_words(planes, words, (ptrdiff_t)pitch);
    if (filter == HIRL_FILTER_NEAREST)
        warp_nearest(planes, &out, m, words, (int32_t)pitch, &places, fill);
    else
        warp_smooth(planes, &out, m, filter == HIRL_FILTER_BICUBIC, words, (ptrdiff_t)pitch,
                    &places, fill);
    *planes = out;
    return HIRL_OK;
}

// To 15 decimals, as Python's round(): correctly rounded both ways.
static double round15(double value) {
    char text[32];
    snprintf(text, sizeof text, "%.15f", value);
    return strtod(text, NULL);
}

void hirl_turn_make(double degrees, double *cosine_p, double *sine_p) {
    double turn = fmod(degrees, 360.0);
    if (turn < 0.0) turn += 360.0;
    const double angle = -(turn * (M_PI / 180.0));
    *cosine_p = round15(cos(angle));
    *sine_p = round15(sin(angle));
}

hirl_status_t hirl_planes_rotate(hirl_augment_t *augment, hirl_planes_t *planes, double degrees,
                                 hirl_filter_t filter, const uint8_t fill[3]) {
    double c, s;
    hirl_turn_make(degrees, &c, &s);
    const double x = planes->width / 2.0, y = planes->height / 2.0;
    const double m[6] = {c, s, c * -x + s * -y + 0.0 + x, -s, c, -s * -x + c * -y + 0.0 + y};
    return hirl_planes_affine(augment, planes, m, filter, fill);
}
