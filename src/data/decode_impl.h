/// @file decode_impl.h
/// What the decoders of the image formats share. For src/data alone.
#ifndef HIRL_DECODE_IMPL_H
#define HIRL_DECODE_IMPL_H

#include "data_impl.h"

/// Checks sides that an image's header claims, against what is possible and what the shard says. The
/// decoded image is to have `channels`, the sample's bytes can hold `n_most` pixels. HIRL_ERR_FORMAT.
hirl_status_t hirl_decode_check_size(const char *what, const hirl_sample_t *sample, int64_t height,
                                     int64_t width, int channels, uint64_t n_most);
/// The part of a height x width image that is wanted; NULL: all of it. HIRL_ERR_ARG if not inside.
hirl_status_t hirl_decode_place(const hirl_window_t *window, int height, int width,
                                hirl_window_t *part_p);
/// In place, as Adobe and by now everybody stores CMYK.
void hirl_inverted_cmyk_to_rgb(uint8_t *pixels, size_t n);

// Each decodes a sample of its format into `buffer`, with room for at least `least` channels a pixel.
// Errors: HIRL_ERR_FORMAT with the library's own text, HIRL_ERR_MEMORY.
hirl_status_t hirl_decode_jpeg(const hirl_sample_t *sample, int least, int shrink,
                               const hirl_window_t *window, hirl_buffer_t *buffer,
                               hirl_image_t *image);
hirl_status_t hirl_decode_webp(const hirl_sample_t *sample, int least, hirl_buffer_t *buffer,
                               hirl_image_t *image);
hirl_status_t hirl_decode_png(const hirl_sample_t *sample, int least, hirl_buffer_t *buffer,
                              hirl_image_t *image);

#endif
