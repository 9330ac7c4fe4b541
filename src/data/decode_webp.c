// Decoding of WebP by libwebp, where the build has it, as PIL does: alpha dropped, lossy and lossless.
// Animations are refused. A picture is decoded whole; its sides are at most 16383.
#include "decode_impl.h"

#ifdef HIRL_HAS_WEBP
#include <webp/decode.h>

static const char *status_text(VP8StatusCode code) {
    switch (code) {
        case VP8_STATUS_OUT_OF_MEMORY: return "out of memory";
        case VP8_STATUS_UNSUPPORTED_FEATURE: return "unsupported feature";
        case VP8_STATUS_NOT_ENOUGH_DATA: return "file ends early";
        default: return "damaged";
    }
}

hirl_status_t hirl_decode_webp(const hirl_sample_t *sample, int least, hirl_buffer_t *buffer,
                               hirl_image_t *image) {
    WebPDecoderConfig config;
    HIRL_REQUIRE(WebPInitDecoderConfig(&config), HIRL_ERR_INTERNAL,
                 "WebP: the library is another version than at build time");
    VP8StatusCode code = WebPGetFeatures(sample->bytes, sample->size, &config.input);
    HIRL_REQUIRE(code == VP8_STATUS_OK, HIRL_ERR_FORMAT, "WebP: %s", status_text(code));
    HIRL_REQUIRE(!config.input.has_animation, HIRL_ERR_FORMAT,
                 "WebP: an animation, expected a picture");
    const int height = config.input.height, width = config.input.width;
    // Lossless coding has no bound for the pixels of a byte.
    HIRL_TRY(
        hirl_decode_check_size("WebP", sample, height, width, least > 3 ? least : 3, UINT64_MAX));
    const size_t size = (size_t)height * (size_t)width * 3;
    HIRL_TRY(hirl_buffer_reserve(buffer, size));
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = buffer->data;
    config.output.u.RGBA.stride = width * 3;
    config.output.u.RGBA.size = size;
    code = WebPDecode(sample->bytes, sample->size, &config);
    WebPFreeDecBuffer(&config.output);
    HIRL_REQUIRE(code == VP8_STATUS_OK, HIRL_ERR_FORMAT, "WebP: %s", status_text(code));
    *image = (hirl_image_t){buffer->data, height, width, 3};
    return HIRL_OK;
}

#else

hirl_status_t hirl_decode_webp(const hirl_sample_t *sample, int least, hirl_buffer_t *buffer,
                               hirl_image_t *image) {
    (void)sample, (void)least, (void)buffer, (void)image;
    return HIRL_FAIL(HIRL_ERR_FORMAT, "WebP: this program was built without libwebp");
}

#endif
