/// @file picture_impl.h
/// Pictures for people: a canvas with texts, images fitted into boxes, PNG and JPEG in memory. For src/data alone.
#ifndef HIRL_PICTURE_IMPL_H
#define HIRL_PICTURE_IMPL_H

#include "hirl/data.h"

enum { HIRL_GLYPH_HEIGHT = 7, HIRL_GLYPH_STEP = 6 }; // of a text at scale 1, in pixels

/// RGB, u8 [height, width, 3].
typedef struct hirl_canvas {
    uint8_t *pixels;
    int height, width;
} hirl_canvas_t;

/// A canvas filled with one colour (0xrrggbb). Errors: HIRL_ERR_MEMORY.
hirl_status_t hirl_canvas_init(hirl_canvas_t *canvas, int height, int width, uint32_t color);
void hirl_canvas_reset(hirl_canvas_t *canvas);
/// Writes ASCII (other bytes as '?'), cut to what fits into `width` pixels, with a last '~' where it is cut.
void hirl_canvas_text(hirl_canvas_t *canvas, int top, int left, int width, int scale,
                      uint32_t color, const char *text);
/// Puts an image of 1 or 3 channels into the middle of the box x box pixels at (top, left), which hold it.
void hirl_canvas_image(hirl_canvas_t *canvas, int top, int left, int box,
                       const hirl_image_t *image);

/// An image with sides of `box` at most: enlarged by a whole number, each pixel becoming a square, or shrunk (antialiased).
/// The pixels are in `buffer`.
hirl_status_t hirl_image_fit(hirl_augment_t *augment, const hirl_image_t *image, int box,
                             hirl_buffer_t *buffer, hirl_image_t *fitted_p);

/// Compresses u8 [height, width, 3] to `text` (its bytes). Errors: HIRL_ERR_MEMORY, HIRL_ERR_INTERNAL with the library's text.
hirl_status_t hirl_canvas_to_png(const hirl_canvas_t *canvas, hirl_text_t *text);
hirl_status_t hirl_canvas_to_jpeg(const hirl_canvas_t *canvas, int quality, hirl_text_t *text);

#endif
