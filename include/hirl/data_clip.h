/// @file data_clip.h
/// Clips of a video: which frames they take, where their crops lie, and the frames of one video as the bytes of one sample. Nothing here is collective,
/// allocates, or reads files.
#ifndef HIRL_DATA_CLIP_H
#define HIRL_DATA_CLIP_H

#include "hirl/data.h"

#ifdef __cplusplus
extern "C" {
#endif

/// &clip: what samples of videos are.
typedef struct hirl_clip_cfg {
    int64_t frames, stride, repeats; // frames = 0: images
    bool loops;
} hirl_clip_cfg_t;
extern const hirl_group_t hirl_clip_group;

/// A deck's clips; n_frames = 0 for images.
hirl_clip_spec_t hirl_clip_spec_of(const hirl_clip_cfg_t *cfg);

enum { HIRL_CLIP_FRAMES_MAX = 1024, HIRL_FRAMES_MAX = 1 << 20 };

/// Errors: HIRL_ERR_ARG (1..1024 frames, a stride of at least 1, a span that does not fit 31 bits).
hirl_status_t hirl_clip_check(const hirl_clip_spec_t *clip);

/// Training: frames [n_frames] of a clip that begins anywhere, all places equally likely, in a video of `n` frames. A function of (seed, epoch,
/// sample index, repeat), where `repeat` counts the clips taken of one video in one epoch.
void hirl_clip_draw(const hirl_clip_spec_t *clip, int64_t n, uint64_t seed, int64_t epoch,
                    int64_t index, int repeat, int32_t *frames);

/// Evaluation: clip k of n_clips, which lie evenly over the video, the first at its beginning and the last at its end; a single one in the middle.
void hirl_clip_place(const hirl_clip_spec_t *clip, int64_t n, int k, int n_clips, int32_t *frames);

/// Evaluation: crop k of n_crops of size x size pixels, which slide along the longer side as clips do along time, in the middle of the shorter one. The
/// frame (already resized) must hold it.
hirl_window_t hirl_clip_crop(int height, int width, int size, int k, int n_crops);

// ---------------------------------------------------------------------------------------------- frames of one sample
//
// Encoded frames (JPEG, PNG, WebP) lie back to back behind an index, all numbers little-endian:
//   u8[8] "hirlclip", u32 version (1), u32 n, u32 height, u32 width, u64 end[n] of each frame, counted from the first frame's first byte,
//   u64 XXH64 of all that comes before it.

/// The frames of a sample; valid as long as its bytes are.
typedef struct hirl_frames {
    const uint8_t *bytes; // of the first frame
    const uint8_t *ends;  // u64 [n], not aligned
    int64_t n;
    int height, width;
} hirl_frames_t;

/// Bytes of the index of n frames.
size_t hirl_frames_index_size(int64_t n);
/// Writes the index of frames with these sizes to out[hirl_frames_index_size(n)]. Errors: HIRL_ERR_ARG (no frame, an empty one, sides).
hirl_status_t hirl_frames_write_index(const int64_t *sizes, int64_t n, int height, int width,
                                      uint8_t *out);
/// Checks the index of a sample; believes nothing of it. Errors: HIRL_ERR_FORMAT with what was found and what was expected.
hirl_status_t hirl_frames_read_index(const uint8_t *bytes, size_t size, hirl_frames_t *frames_p);
/// Frame i (0 <= i < n) as a sample to decode. Errors: HIRL_ERR_FORMAT if it is none of these.
hirl_status_t hirl_frames_sample(const hirl_frames_t *frames, int64_t i, hirl_sample_t *sample_p);

/// What stands for a sample where one picture of it is wanted: an image itself, the first frame of a video. Errors: HIRL_ERR_FORMAT.
hirl_status_t hirl_sample_still(const hirl_sample_t *sample, hirl_sample_t *still_p);

/// Number in a frame's file name: the last digits before its extension (12 of "clip-3/img_00012.jpg"). False if there are none or more than 15.
bool hirl_frame_number(const char *name, int64_t *number_p);

#ifdef __cplusplus
}
#endif
#endif
