/// @file data.h
/// Data sets of sharded HDF5 files: packing, reading, augmentation (by the loader's threads, or by a backend), and the loader that hands
/// out whole batches ahead of time.
/// HDF5's library is called only by the thread that packs; worker threads read `/data` by mmap or pread.
#ifndef HIRL_DATA_H
#define HIRL_DATA_H

#include "hirl/backend.h"
#include "hirl/deck.h"
#include "hirl/par.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_MAX_VIEWS = 16, HIRL_MAX_CHANNELS = 4 };

// ---------------------------------------------------------------------------------------------- deck groups

/// &data: where samples come from and how they are read.
typedef struct hirl_data_cfg {
    char train[HIRL_DECK_TEXT_MAX];  // shards of the training split: file, folder or glob
    char val[HIRL_DECK_TEXT_MAX];    // shards of the evaluation queries; '' if none
    char access[HIRL_DECK_TEXT_MAX]; // 'mmap' | 'pread'
    int64_t n_threads;               // loader threads per rank; 0: as many as CPUs of the rank
    int64_t n_ahead;                 // batches prepared ahead
    int64_t channels;                // 1 or 3: images are converted; 0: as stored
    bool verify;                     // check each sample's checksum when it is read
    char decode[HIRL_DECK_TEXT_MAX]; // 'exact' | 'scaled'
    char stage[HIRL_DECK_TEXT_MAX];  // folder of the node for copies of the shards; '' if none
    int64_t window;                  // samples that are shuffled together; 0: all
    bool read_ahead;                 // tell the system which samples come next
    double max_bad_fraction;         // share of undecodable samples tolerated before the run stops
    double mean[HIRL_DECK_LIST_MAX]; // per-channel normalisation, after scaling to [0, 1]
    int n_mean;
    double std[HIRL_DECK_LIST_MAX];
    int n_std;
} hirl_data_cfg_t;
extern const hirl_group_t hirl_data_group;

/// &views: the augmented views of one sample. A list with one item counts for all views.
/// Order of the operations: crop, flip, RandAugment, rotation, [grayscale if gray_first], colour jitter, grayscale, posterise,
/// autocontrast, equalise, blur, solarise, normalise with lighting, random erasing. The flip commutes with all but the first
/// three, so that recipes which flip elsewhere have the same views.
typedef struct hirl_views_cfg {
    int64_t crop_size
        [HIRL_DECK_LIST_MAX]; // pixels; its length is the number of views (one item: the method's number)
    int n_crop_size;
    char
        crop[HIRL_DECK_TEXT_MAX]; // 'random_resized' | 'resize_random' | 'resize_center' | 'resize'
    int64_t resize;  // resize_random, resize_center: the shorter side becomes this first; 0: stays
    int64_t padding; // resize_random: black pixels on each side
    double crop_scale_min[HIRL_DECK_LIST_MAX],
        crop_scale_max[HIRL_DECK_LIST_MAX]; // share of the area
    int n_crop_scale_min, n_crop_scale_max;
    double crop_ratio[HIRL_DECK_LIST_MAX]; // width / height: min, max
    int n_crop_ratio;
    int64_t drawn_as[HIRL_DECK_LIST_MAX]; // view whose random numbers are taken; -1: own ones
    int n_drawn_as;
    char interpolation[HIRL_DECK_LIST_MAX]
                      [HIRL_DECK_TEXT_MAX]; // 'bilinear' | 'bicubic' | 'lanczos'
    int n_interpolation;
    double flip_prob[HIRL_DECK_LIST_MAX];
    int n_flip_prob;
    int64_t rand_augment; // RandAugment: operations per view; 0: none
    double rand_augment_magnitude, rand_augment_std, rand_augment_prob;
    double rotate_degrees[HIRL_DECK_LIST_MAX];
    int n_rotate_degrees;
    bool gray_first;
    double jitter_prob[HIRL_DECK_LIST_MAX], brightness[HIRL_DECK_LIST_MAX],
        contrast[HIRL_DECK_LIST_MAX], saturation[HIRL_DECK_LIST_MAX], hue[HIRL_DECK_LIST_MAX];
    int n_jitter_prob, n_brightness, n_contrast, n_saturation, n_hue;
    double gray_prob[HIRL_DECK_LIST_MAX];
    int n_gray_prob;
    double posterize_prob[HIRL_DECK_LIST_MAX];
    int n_posterize_prob;
    int64_t posterize_bits;
    double autocontrast_prob[HIRL_DECK_LIST_MAX], equalize_prob[HIRL_DECK_LIST_MAX];
    int n_autocontrast_prob, n_equalize_prob;
    double blur_prob[HIRL_DECK_LIST_MAX];
    int n_blur_prob;
    double blur_sigma[HIRL_DECK_LIST_MAX]; // pixels: min, max
    int n_blur_sigma;
    double solarize_prob[HIRL_DECK_LIST_MAX];
    int n_solarize_prob;
    double lighting_std;
    double erase_prob[HIRL_DECK_LIST_MAX];
    int n_erase_prob;
    double erase_area[HIRL_DECK_LIST_MAX], erase_ratio[HIRL_DECK_LIST_MAX]; // min, max
    int n_erase_area, n_erase_ratio;
    char
        maker[HIRL_DECK_TEXT_MAX]; // 'auto' | 'loader' | 'backend': who makes the views of training
    // evaluation transform: resize the shorter side, centre crop; 0: leave as stored
    int64_t eval_resize, eval_crop;
    char eval_interpolation[HIRL_DECK_TEXT_MAX];
} hirl_views_cfg_t;
extern const hirl_group_t hirl_views_group;

/// &pack: how shards are built.
typedef struct hirl_pack_cfg {
    char source
        [HIRL_DECK_TEXT_MAX]; // image folder, or the folder (or files) of an IDX or CIFAR data set
    char format
        [HIRL_DECK_TEXT_MAX]; // 'auto' | 'idx' | 'cifar10' | 'cifar100' | 'folder' | 'list' | 'tar' | 'frames' | 'cub' ...
    char split
        [HIRL_DECK_TEXT_MAX]; // 'train' | 'val' ... : name of the split; selects the IDX/CIFAR files
    char list[HIRL_DECK_LIST_MAX][HIRL_DECK_TEXT_MAX]; // files with lines 'path label'
    int n_list;
    char subset[HIRL_DECK_TEXT_MAX]; // file of the names to keep; '' for all
    char labels[HIRL_DECK_TEXT_MAX]; // CSV of labels by name; '' for those of the source
    char label_columns[HIRL_DECK_LIST_MAX]
                      [HIRL_DECK_TEXT_MAX]; // name and label; none: the first two
    int n_label_columns;
    char classes
        [HIRL_DECK_TEXT_MAX]; // 'leaf' | 'top' | 'archive' | 'none': which folder is an image's class
    int64_t max_side;         // larger images are resized and encoded again; 0: none
    char side[HIRL_DECK_TEXT_MAX];   // 'longer' | 'shorter': which side that is
    int64_t quality;                 // of JPEG
    bool upright;                    // turn images as their EXIF orientation says
    char output[HIRL_DECK_TEXT_MAX]; // folder the shards go to
    int64_t shard_mib;               // size of a shard at most
    int64_t n_holdout; // samples moved, by a keyed random choice, to a split called 'holdout'
    int64_t seed;
    bool shuffle;   // shuffled once on disk
    bool overwrite; // replace existing shards of the split
} hirl_pack_cfg_t;
extern const hirl_group_t hirl_pack_group;

// ---------------------------------------------------------------------------------------------- shards

/// Encoding of one sample. A shard's attribute `encoding` is 'raw', 'jpeg', 'png', 'mixed': JPEG,
/// PNG and WebP, told apart by their signatures; or 'frames': each sample is a video, see data_clip.h.
typedef enum hirl_encoding {
    HIRL_ENCODING_RAW,
    HIRL_ENCODING_JPEG,
    HIRL_ENCODING_PNG,
    HIRL_ENCODING_WEBP,  // in shards that are 'mixed'; needs a build with libwebp
    HIRL_ENCODING_FRAMES // no image: its frames are
} hirl_encoding_t;

/// One sample as stored. `bytes` is valid until the set is closed (mmap) or the next read with the same buffer (pread).
typedef struct hirl_sample {
    const uint8_t *bytes;
    size_t size;
    int height, width, channels; // as stored; of a frame
    hirl_encoding_t encoding;
    int32_t label; // -1: unknown
} hirl_sample_t;

/// A growing buffer that belongs to one thread.
typedef struct hirl_buffer {
    uint8_t *data;
    size_t size;
} hirl_buffer_t;
void hirl_buffer_reset(hirl_buffer_t *buffer);

typedef struct hirl_shard_set hirl_shard_set_t;

/// Packs a source into shards, in parallel over ranks, with progress; corrupt inputs are reported and skipped, and
/// listed in `<output>/<split>-skipped.txt`. Shards are whole or absent. HIRL_ERR_INTERRUPTED when a signal cancels: what is
/// finished then waits for the next call with the same source and settings. Collective.
hirl_status_t hirl_data_pack(hirl_world_t *world, const hirl_pack_cfg_t *cfg);

/// Opens every shard matched by `pattern` (file, folder or glob; sorted by name) and checks it: format, version, sizes, offsets, counts.
/// Collective; all ranks get the same outcome. Errors: HIRL_ERR_IO, HIRL_ERR_FORMAT naming shard, object and expectation.
hirl_status_t hirl_shard_set_open(hirl_world_t *world, const char *pattern,
                                  const hirl_data_cfg_t *cfg, hirl_shard_set_t **set_p);
void hirl_shard_set_close(hirl_shard_set_t **set);

// Not collective, thread-safe:
int64_t hirl_shard_set_n_samples(const hirl_shard_set_t *set);
int hirl_shard_set_n_classes(const hirl_shard_set_t *set); // 1 + largest label; 0 without labels
int hirl_shard_set_channels(const hirl_shard_set_t *set);  // after conversion as &data asks
int32_t hirl_shard_set_label(const hirl_shard_set_t *set, int64_t index);
/// Samples that can be of several classes: the number of these, 0 if each has one label at most.
int hirl_shard_set_n_targets(const hirl_shard_set_t *set);
/// [n_targets]: 1 the class is present, -1 it is absent, 0 it is present but too difficult to count. Valid
/// until the set is closed; NULL without targets.
const int8_t *hirl_shard_set_target_view(const hirl_shard_set_t *set, int64_t index);
/// Label tree: rows 0, 1, ... name the classes (row = label) and, behind them, their
/// super-classes. No rows without names.
int hirl_shard_set_n_class_names(const hirl_shard_set_t *set);
/// Name of a row, valid until the set is closed; "" if there is none.
const char *hirl_shard_set_class_name_view(const hirl_shard_set_t *set, int row);
/// Row of the super-class, -1 if there is none.
int32_t hirl_shard_set_class_parent(const hirl_shard_set_t *set, int row);
/// Labels mean the same in both sets, as far as their class names tell. Errors: HIRL_ERR_MISMATCH
/// naming the first class that differs.
hirl_status_t hirl_shard_set_check_classes(const hirl_shard_set_t *a, const hirl_shard_set_t *b);
/// True if each sample is a video, false if each is an image.
bool hirl_shard_set_has_videos(const hirl_shard_set_t *set);
/// Height and width as stored.
void hirl_shard_set_image_size(const hirl_shard_set_t *set, int64_t index, int *height_p,
                               int *width_p);
/// After reads: have pages of mapped files turned out unreadable? Errors: HIRL_ERR_IO naming the file. From any thread.
hirl_status_t hirl_shard_set_check_files(const hirl_shard_set_t *set);
/// Reads sample `index` (0 <= index < n_samples). Errors: HIRL_ERR_IO, HIRL_ERR_FORMAT (checksum) naming shard and sample.
hirl_status_t hirl_shard_set_read(const hirl_shard_set_t *set, int64_t index, hirl_buffer_t *buffer,
                                  hirl_sample_t *sample_p);
/// Tells the system that a sample is read soon; returns at once. Small samples are not worth it.
void hirl_shard_set_will_read(const hirl_shard_set_t *set, int64_t index);
/// True at the first call for a sample: several loaders, one after the other, meet a bad one, which is
/// reported once. Thread-safe.
bool hirl_shard_set_begin_report(const hirl_shard_set_t *set, int64_t index);
/// "shard.h5 sample 17" for messages; returns buf.
char *hirl_shard_set_place(const hirl_shard_set_t *set, int64_t index,
                           char buf[HIRL_DECK_TEXT_MAX]);

/// Prints what a shard holds (names, types, shapes, attributes, class counts) to `text`. Errors: as open; HIRL_ERR_FORMAT if it is no shard.
hirl_status_t hirl_shard_describe(const char *path, hirl_text_t *text);
/// True if the file is an HDF5 file whose `format` attribute is 'hirl-shard'.
bool hirl_shard_is_shard(const char *path);

// ---------------------------------------------------------------------------------------------- images and views

/// A decoded image, u8 [height, width, channels], rows dense.
typedef struct hirl_image {
    uint8_t *pixels;
    int height, width, channels;
} hirl_image_t;

/// Decodes (or copies) a sample to `channels` (1, 3; 0: as stored) into `buffer`; RGB to grey is PIL's L = (19595 R + 38470 G + 7471 B + 32768) >> 16.
/// Errors: HIRL_ERR_FORMAT with the decoder's own text.
hirl_status_t hirl_image_decode(const hirl_sample_t *sample, int channels, hirl_buffer_t *buffer,
                                hirl_image_t *image_p);

/// A rectangle of pixels.
typedef struct hirl_window {
    int top, left, height, width;
} hirl_window_t;

/// Decodes a part only (NULL: all), of the picture shrunk to 1/`shrink` (JPEG: 1, 2, 4, 8; else 1), which is hirl_shrunk(side, shrink)
/// high and wide. At 1/1 the pixels are those of the whole picture, bit for bit. Damage outside of the part may stay unseen, but not a missing end.
hirl_status_t hirl_image_decode_part(const hirl_sample_t *sample, int channels, int shrink,
                                     const hirl_window_t *window, hirl_buffer_t *buffer,
                                     hirl_image_t *image_p);
static inline int hirl_shrunk(int side, int shrink) { return (side + shrink - 1) / shrink; }

/// How a view is cut from the image.
typedef enum hirl_crop {
    HIRL_CROP_RANDOM_RESIZED, // a random rectangle, resized to the view
    HIRL_CROP_RESIZE_RANDOM, // shorter side resized, black margin, a random window of the view's size
    HIRL_CROP_RESIZE_CENTER, // shorter side resized, the central window
    HIRL_CROP_RESIZE         // the whole image, resized to the view
} hirl_crop_t;

/// One view's distribution (a row of &views resolved for that view). Whatever is zero is left out.
typedef struct hirl_view_spec {
    int size; // pixels, square
    double scale[2], ratio[2];
    bool is_bicubic;
    double jitter_prob, brightness, contrast, saturation, hue;
    double gray_prob, blur_prob, blur_sigma[2], solarize_prob, flip_prob;
    bool is_lanczos; // instead of is_bicubic
    bool is_gray_first;
    hirl_crop_t crop;
    int resize, padding; // HIRL_CROP_RESIZE_...
    int drawn_as;        // k > 0: draws what view k - 1 draws
    double rotate_degrees, posterize_prob, autocontrast_prob, equalize_prob;
    int posterize_bits;
    int rand_augment; // operations, at most HIRL_MAX_RAND_AUGMENT
    double rand_augment_magnitude, rand_augment_std, rand_augment_prob;
    double lighting_std;
    double erase_prob, erase_area[2], erase_ratio[2];
} hirl_view_spec_t;
enum { HIRL_MAX_RAND_AUGMENT = 8 };

/// Resolves &views into `n_views` specs (the method's number when crop_size has one item, else its length, which must be >= min_views).
/// Errors: HIRL_ERR_DECK naming the list whose length does not fit, or keys that do not go together.
hirl_status_t hirl_views_resolve(const hirl_views_cfg_t *cfg, int min_views,
                                 hirl_view_spec_t specs[HIRL_MAX_VIEWS], int *n_views_p);

/// Scratch space of one thread for augmentation.
typedef struct hirl_augment hirl_augment_t;
hirl_status_t hirl_augment_create(hirl_augment_t **augment_p);
void hirl_augment_destroy(hirl_augment_t **augment);

/// Makes one view of a decoded image with torchvision's PIL semantics, drawing from `rng`; writes normalised f32 [size, size, channels].
/// `mean`, `std` have one item per channel.
hirl_status_t hirl_augment_view(hirl_augment_t *augment, const hirl_image_t *image,
                                const hirl_view_spec_t *spec, hirl_rng_t *rng, const float *mean,
                                const float *std, float *out);

/// Evaluation transform: resize the shorter side to `resize` (0: keep), centre crop `crop` x `crop` (0: keep), normalise.
hirl_status_t hirl_augment_eval(hirl_augment_t *augment, const hirl_image_t *image, int resize,
                                int crop, bool is_bicubic, const float *mean, const float *std,
                                float *out);

/// Single operations, in place or into `out`, for tests against Pillow; u8 [H, W, C], C = 1 or 3. See augment.c for the rounding rules.
hirl_status_t hirl_image_resize_crop(hirl_augment_t *augment, const hirl_image_t *image, int top,
                                     int left, int height, int width, int out_height, int out_width,
                                     hirl_filter_t filter, uint8_t *out);
void hirl_image_brightness(hirl_image_t *image, double factor);
void hirl_image_contrast(hirl_image_t *image, double factor);
void hirl_image_saturation(hirl_image_t *image, double factor);
void hirl_image_hue(hirl_image_t *image, double shift); // shift in [-0.5, 0.5]
void hirl_image_grayscale(hirl_image_t *image);
hirl_status_t hirl_image_blur(hirl_augment_t *augment, hirl_image_t *image,
                              double sigma); // PIL GaussianBlur(radius = sigma)
void hirl_image_solarize(hirl_image_t *image, int threshold);
void hirl_image_flip(hirl_image_t *image);

// ---------------------------------------------------------------------------------------------- loader

/// The order in which an epoch of training shows n samples; a plain value. `window` > 0: only samples that near each other in
/// position are mixed, from 16 stretches of the set.
typedef struct hirl_order {
    uint64_t seed;
    int64_t epoch, n;
    int64_t block; // consecutive samples that stay in one window; 0: one permutation of all
    hirl_permutation_t permutation;
} hirl_order_t;
hirl_order_t hirl_order_make(uint64_t seed, int64_t epoch, int64_t n, int64_t window);
/// Sample at `position` (0 <= position < n).
int64_t hirl_order_at(const hirl_order_t *order, int64_t position);

/// Frames of a clip. It spans (n_frames - 1) stride + 1 frames of the video; see data_clip.h.
typedef struct hirl_clip_spec {
    int n_frames, stride; // 16 and 4 for Kinetics
    bool loops;           // a video that is shorter begins again; else its last frame stays
} hirl_clip_spec_t;

/// A batch of this rank; it and all it points to are valid until the next hirl_loader_next (spec.n_held = 2: the one after that) or
/// hirl_loader_destroy.
typedef struct hirl_batch {
    int64_t n;      // samples of this rank; clips: clips, those of one video one after the other
    int64_t number; // global batch number within the epoch
    const int64_t *index; // [n] global sample indices; an undecodable sample keeps its own
    const int32_t *label; // [n] of the image shown
    int n_views;
    int size[HIRL_MAX_VIEWS]; // height of each view
    int width[HIRL_MAX_VIEWS];
    int channels;
    bool has_clips;
    int n_frames; // of each view; 1 for images
    float *view
        [HIRL_MAX_VIEWS]; // f32 [n, n_frames, size, width, channels], normalised; 64-byte aligned
    // keeps_pixels: what the views, then NULL, are made from
    const uint8_t *pixels; // decoded images, back to back
    int64_t n_pixel_bytes;
    const hirl_view_recipe_t *recipe[HIRL_MAX_VIEWS]; // [n] of each view
    const float *mean, *std;                          // [channels]
} hirl_batch_t;

/// Shape of n rows of view v: [n, size, width, channels], of clips [n, n_frames, size, width, channels].
hirl_shape_t hirl_batch_view_shape(const hirl_batch_t *batch, int v, int64_t n);

typedef struct hirl_loader_spec {
    int64_t batch; // global batch size (train), or batch per rank (eval); of videos it counts clips
    uint64_t seed;
    bool
        is_train; // train: epoch order by keyed permutation, incomplete last batch dropped, views augmented.
    // eval: this rank's contiguous part [N r / W, N (r+1) / W) in order, one un-augmented view, last batch short
    bool keeps_pixels; // train: images stay u8, and come with the recipes of their views
    const hirl_allocator_t *
        pixel_memory; // HIRL_BORROW, of any thread: of the images, or, without keeps_pixels, of the views; NULL: ordinary memory
    int n_held; // batches that the consumer may hold at a time: 1, which 0 means, or 2. The second is not one of data%n_ahead
    const hirl_view_spec_t *views; // train
    int n_views;
    int eval_resize, eval_crop;
    bool eval_is_bicubic;
    hirl_clip_spec_t clip; // sets of videos; n_frames = 0: images
    int n_repeats; // train: clips of each view taken of a video in an epoch; 0: one. Each makes a row of the batch
} hirl_loader_spec_t;

typedef struct hirl_loader hirl_loader_t;

/// Starts the worker threads of this rank. Sample order and augmentation are functions of (seed, epoch, index, view) only.
/// In training, rank r of W handles positions [bB + rB/W, bB + (r+1)B/W) of global batch b; B must be a multiple of W.
/// Clips: row r of sample's n_repeats is repeat r, and its view v is clip r n_views + v of that video (of a view with drawn_as, that
/// view's): its frames are hirl_clip_draw's for that number, its view stream is that number's, and all of its frames have the same draws. In evaluation a video shows one clip, of its middle.
/// Errors: HIRL_ERR_DECK (fewer samples than one batch, batch not divisible, mean/std length, videos without `clip` or images with it).
hirl_status_t hirl_loader_create(hirl_world_t *world, const hirl_shard_set_t *set,
                                 const hirl_data_cfg_t *cfg, const hirl_loader_spec_t *spec,
                                 hirl_loader_t **loader_p);
/// Stops the threads.
void hirl_loader_destroy(hirl_loader_t **loader);
/// Batches of an epoch (this rank's for eval).
int64_t hirl_loader_n_batches(const hirl_loader_t *loader);
/// Starts epoch `epoch` at batch `first_batch` (restart in the middle of an epoch). Drops what was prepared before.
hirl_status_t hirl_loader_begin_epoch(hirl_loader_t *loader, int64_t epoch, int64_t first_batch);
/// Waits for the next batch; `*batch_p` is NULL at the end of the epoch. Not collective. Undecodable samples are logged (shard and sample),
/// replaced by the next decodable sample of the set, and counted; beyond max_bad_fraction: HIRL_ERR_FORMAT.
hirl_status_t hirl_loader_next(hirl_loader_t *loader, const hirl_batch_t **batch_p);

/// The images of a batch that keeps its pixels, u8 [bytes] in the backend's memory. If pixel_memory is the backend's own, the batch
/// must stay until the backend has been waited for. Not collective.
hirl_status_t hirl_batch_upload(hirl_backend_t *be, const hirl_batch_t *batch,
                                hirl_tensor_t *pixels_p);
/// Rows [first, first + n) of view v, f32 [n, size, width, channels], made by the backend from what hirl_batch_upload gave: the same bits as
/// a loader's that makes views itself. *view_p is {0}, and gets a new tensor, or has that shape. Not collective.
hirl_status_t hirl_batch_make_view(hirl_backend_t *be, const hirl_batch_t *batch,
                                   const hirl_tensor_t *pixels, int v, int64_t first, int64_t n,
                                   hirl_tensor_t *view_p);

// Sets of inputs that a pretext task makes from one view. The method asks for one view (min_views = 1), its deck says how that
// is cut (validation/unit/t433_view_recipes.c: 'Rotation prediction', 'Relative location'), and in its forward pass the method calls one of
// these on the rows of step->batch, then hirl_input_var on the result. They read views on the host: views%maker = 'loader'.

enum { HIRL_N_ROTATIONS = 4 };
/// The view f32 [size, size, channels] turned by 0, 90, 180 and 270 degrees counter-clockwise, which are the labels 0..3 of rotation
/// prediction: out [4, size, size, channels], the same numbers in other places.
void hirl_view_rotations(const float *view, int size, int channels, float *out);
/// View v of each sample of a batch of images: out f32 [n, 4, size, size, channels]. Not collective. Errors: HIRL_ERR_ARG.
hirl_status_t hirl_batch_rotations(const hirl_batch_t *batch, int v, float *out);

/// A view's n_side x n_side cells of size / n_side pixels, each shown by a patch at a uniformly random place in it. Relative
/// location: 3 and 64 of a view of 255; the patch in the middle (4) is paired with each of the others, whose order is the label.
typedef struct hirl_cells_spec {
    int n_side, patch;
} hirl_cells_spec_t;
/// out f32 [n_side * n_side, patch, patch, channels], cells in raster order. Errors: HIRL_ERR_ARG if the patch is larger than a cell.
hirl_status_t hirl_view_cells(const float *view, int size, int channels,
                              const hirl_cells_spec_t *spec, hirl_rng_t *rng, float *out);
/// View v of each sample of a batch: out f32 [n, n_side * n_side, patch, patch, channels]; places are functions of (seed, epoch, index, view).
/// Not collective. Errors: HIRL_ERR_ARG.
hirl_status_t hirl_batch_cells(const hirl_batch_t *batch, int v, const hirl_cells_spec_t *spec,
                               uint64_t seed, int64_t epoch, float *out);

/// What a loader has done since it was created; only ever grows.
typedef struct hirl_loader_counts {
    double wait_s; // seconds that hirl_loader_next has waited for workers
    double work_s; // seconds that the workers spent on samples, all threads together
    double read_s, decode_s, views_s; // of these: reading, decoding, making views or copying pixels
    int64_t n_samples; // samples or clips made, prepared ahead or dropped ones included
    int64_t n_bad;     // different samples of the set found undecodable
    int64_t n_bytes;   // of encoded images, or of the frames that were decoded
    int64_t n_pixels, n_pixels_decoded; // of the pictures, and of their parts that were decoded
} hirl_loader_counts_t;
/// Not collective; may be called at any time by the thread that calls hirl_loader_next.
hirl_loader_counts_t hirl_loader_counts(hirl_loader_t *loader);

#ifdef __cplusplus
}
#endif
#endif
