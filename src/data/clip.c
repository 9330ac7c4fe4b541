// Clips of a video: see data_clip.h.
// A clip begins at one of n - span + 1 places: drawn for training, spread evenly for evaluation. Of a video that is too short there is one place, 0, and
// frames beyond its end are its last one or, if it loops, those of its beginning again.
#include "hirl/data_clip.h"

#include "data_impl.h"

#include <string.h>

enum { MAGIC = 8, HEADER = MAGIC + 4 * 4, FRAME_VERSION = 1, DIGITS_MOST = 15 };
static const char magic[MAGIC + 1] = "hirlclip";

static const hirl_key_t clip_keys[] = {
    HIRL_ROW_INT(hirl_clip_cfg_t, frames, "0", 0, HIRL_CLIP_FRAMES_MAX, "frames",
                 "Frames of a clip, such as 16; 0: images. Shards that were packed with "
                 "pack%format = 'frames' need it, others must not have it."),
    HIRL_ROW_INT(hirl_clip_cfg_t, stride, "4", 1, 65536, "frames",
                 "From one frame of a clip to the next; a clip spans (frames - 1) stride + 1 "
                 "frames of its video. In training it begins anywhere, all places equally likely; "
                 "in evaluation it lies in the middle."),
    HIRL_ROW_BOOL(hirl_clip_cfg_t, loops, ".false.",
                  "A video that is shorter than a clip begins again; .false.: its last frame "
                  "stays."),
    HIRL_ROW_INT(hirl_clip_cfg_t, repeats, "1", 1, 256, "clips",
                 "Training: clips taken of a video each time it is read. They follow one another "
                 "in the batch, and optim%batch counts clips: an epoch has that many fewer videos "
                 "a batch. MAE on Kinetics takes 4."),
};

const hirl_group_t hirl_clip_group = {"clip", "Clips of videos.", clip_keys,
                                      (int)(sizeof clip_keys / sizeof *clip_keys),
                                      sizeof(hirl_clip_cfg_t)};

hirl_clip_spec_t hirl_clip_spec_of(const hirl_clip_cfg_t *cfg) {
    return (hirl_clip_spec_t){
        .n_frames = (int)cfg->frames, .stride = (int)cfg->stride, .loops = cfg->loops};
}

static int64_t span_of(const hirl_clip_spec_t *clip) {
    return (int64_t)(clip->n_frames - 1) * clip->stride + 1;
}

hirl_status_t hirl_clip_check(const hirl_clip_spec_t *clip) {
    HIRL_REQUIRE(clip->n_frames >= 1 && clip->n_frames <= HIRL_CLIP_FRAMES_MAX, HIRL_ERR_ARG,
                 "a clip of %d frames; want 1 to %d", clip->n_frames, HIRL_CLIP_FRAMES_MAX);
    HIRL_REQUIRE(clip->stride >= 1 && span_of(clip) <= INT32_MAX, HIRL_ERR_ARG,
                 "%d frames with a stride of %d; want a stride of at least 1, and a span of at "
                 "most %d frames",
                 clip->n_frames, clip->stride, INT32_MAX);
    return HIRL_OK;
}

static int64_t last_start(const hirl_clip_spec_t *clip, int64_t n) {
    const int64_t rest = n - span_of(clip);
    return rest > 0 ? rest : 0;
}

static void list_frames(const hirl_clip_spec_t *clip, int64_t n, int64_t start, int32_t *frames) {
    for (int i = 0; i < clip->n_frames; i++) {
        const int64_t at = start + (int64_t)i * clip->stride;
        frames[i] = (int32_t)(at < n ? at : clip->loops ? at % n : n - 1);
    }
}

void hirl_clip_draw(const hirl_clip_spec_t *clip, int64_t n, uint64_t seed, int64_t epoch,
                    int64_t index, int repeat, int32_t *frames) {
    hirl_rng_t rng =
        hirl_rng_make(seed, HIRL_RNG_CLIP, (uint64_t)epoch, (uint64_t)index, (uint32_t)repeat);
    list_frames(clip, n, hirl_rng_below(&rng, last_start(clip, n) + 1), frames);
}

// Place k of n_places evenly over 0..last, rounded down; the only one is in the middle.
static int64_t place(int64_t last, int k, int n_places) {
    return n_places == 1 ? last / 2 : last * k / (n_places - 1);
}

void hirl_clip_place(const hirl_clip_spec_t *clip, int64_t n, int k, int n_clips, int32_t *frames) {
    list_frames(clip, n, place(last_start(clip, n), k, n_clips), frames);
}

hirl_window_t hirl_clip_crop(int height, int width, int size, int k, int n_crops) {
    HIRL_ASSERT(height >= size && width >= size);
    hirl_window_t crop = {.height = size, .width = size};
    crop.top = (int)(height > width ? place(height - size, k, n_crops) : (height - size) / 2);
    crop.left = (int)(height > width ? (width - size) / 2 : place(width - size, k, n_crops));
    return crop;
}

// ------------------------------------------------------------------------------------ frames

static void put_number(uint8_t *to, uint64_t value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t take_number(const uint8_t *from, int n_bytes) {
    uint64_t value = 0;
    for (int i = 0; i < n_bytes; i++) value |= (uint64_t)from[i] << 8 * i;
    return value;
}

size_t hirl_frames_index_size(int64_t n) { return HEADER + 8 * (size_t)n + 8; }

hirl_status_t hirl_frames_write_index(const int64_t *sizes, int64_t n, int height, int width,
                                      uint8_t *out) {
    HIRL_REQUIRE(n >= 1 && n <= HIRL_FRAMES_MAX, HIRL_ERR_ARG, "%lld frames; want 1 to %d",
                 (long long)n, HIRL_FRAMES_MAX);
    HIRL_REQUIRE(height >= 1 && width >= 1 && height <= HIRL_IMAGE_SIDE_MAX &&
                     width <= HIRL_IMAGE_SIDE_MAX,
                 HIRL_ERR_ARG, "frames of %d x %d pixels; want sides of 1 to %d", height, width,
                 HIRL_IMAGE_SIDE_MAX);
    uint64_t end = 0;
    for (int64_t i = 0; i < n; i++) {
        HIRL_REQUIRE(sizes[i] >= 1 && (uint64_t)sizes[i] <= HIRL_IMAGE_BYTES_MAX, HIRL_ERR_ARG,
                     "frame %lld has %lld bytes; want 1 to %zu", (long long)i, (long long)sizes[i],
                     HIRL_IMAGE_BYTES_MAX);
        end += (uint64_t)sizes[i];
        put_number(out + HEADER + 8 * i, end, 8);
    }
    memcpy(out, magic, MAGIC);
    put_number(out + MAGIC, FRAME_VERSION, 4);
    put_number(out + MAGIC + 4, (uint64_t)n, 4);
    put_number(out + MAGIC + 8, (uint64_t)height, 4);
    put_number(out + MAGIC + 12, (uint64_t)width, 4);
    const size_t hashed = HEADER + 8 * (size_t)n;
    put_number(out + hashed, hirl_hash64(out, hashed), 8);
    return HIRL_OK;
}

// The ends rise to the sample's own: every frame has bytes, and none lies outside.
static hirl_status_t check_ends(const hirl_frames_t *frames, uint64_t n_bytes) {
    uint64_t before = 0;
    for (int64_t i = 0; i < frames->n; i++) {
        const uint64_t end = take_number(frames->ends + 8 * i, 8);
        HIRL_REQUIRE(end > before && end <= n_bytes, HIRL_ERR_FORMAT,
                     "frames: number %lld ends at byte %llu, expected %llu to %llu", (long long)i,
                     (unsigned long long)end, (unsigned long long)before + 1,
                     (unsigned long long)n_bytes);
        before = end;
    }
    HIRL_REQUIRE(before == n_bytes, HIRL_ERR_FORMAT,
                 "frames: the last of %lld ends at byte %llu, expected %llu", (long long)frames->n,
                 (unsigned long long)before, (unsigned long long)n_bytes);
    return HIRL_OK;
}

hirl_status_t hirl_frames_read_index(const uint8_t *bytes, size_t size, hirl_frames_t *frames_p) {
    HIRL_REQUIRE(size >= HEADER + 8 && memcmp(bytes, magic, MAGIC) == 0, HIRL_ERR_FORMAT,
                 "frames: %zu bytes without the index that begins with '%s'", size, magic);
    const uint64_t version = take_number(bytes + MAGIC, 4), n = take_number(bytes + MAGIC + 4, 4);
    const uint64_t height = take_number(bytes + MAGIC + 8, 4);
    const uint64_t width = take_number(bytes + MAGIC + 12, 4);
    HIRL_REQUIRE(version == FRAME_VERSION, HIRL_ERR_FORMAT,
                 "frames: version %llu, expected %d; a newer program may read it",
                 (unsigned long long)version, FRAME_VERSION);
    HIRL_REQUIRE(n >= 1 && n <= HIRL_FRAMES_MAX && hirl_frames_index_size((int64_t)n) < size,
                 HIRL_ERR_FORMAT, "frames: %llu frames in %zu bytes, expected 1 to %d that fit",
                 (unsigned long long)n, size, HIRL_FRAMES_MAX);
    HIRL_REQUIRE(height >= 1 && width >= 1 && height <= HIRL_IMAGE_SIDE_MAX &&
                     width <= HIRL_IMAGE_SIDE_MAX,
                 HIRL_ERR_FORMAT, "frames: %llu x %llu pixels, expected sides of 1 to %d",
                 (unsigned long long)height, (unsigned long long)width, HIRL_IMAGE_SIDE_MAX);
    const size_t hashed = HEADER + 8 * (size_t)n;
    const uint64_t found = hirl_hash64(bytes, hashed), wanted = take_number(bytes + hashed, 8);
    HIRL_REQUIRE(found == wanted, HIRL_ERR_FORMAT,
                 "frames: the index has checksum %016llx, expected %016llx",
                 (unsigned long long)found, (unsigned long long)wanted);
    const hirl_frames_t frames = {.bytes = bytes + hashed + 8,
                                  .ends = bytes + HEADER,
                                  .n = (int64_t)n,
                                  .height = (int)height,
                                  .width = (int)width};
    HIRL_TRY(check_ends(&frames, size - hashed - 8));
    *frames_p = frames;
    return HIRL_OK;
}

hirl_status_t hirl_frames_sample(const hirl_frames_t *frames, int64_t i, hirl_sample_t *sample_p) {
    HIRL_REQUIRE(i >= 0 && i < frames->n, HIRL_ERR_ARG, "frame %lld, expected 0 to %lld",
                 (long long)i, (long long)frames->n - 1);
    const uint64_t begin = i > 0 ? take_number(frames->ends + 8 * (i - 1), 8) : 0;
    hirl_sample_t sample = {.bytes = frames->bytes + begin,
                            .size = (size_t)(take_number(frames->ends + 8 * i, 8) - begin),
                            .height = frames->height,
                            .width = frames->width,
                            .channels = 3,
                            .label = -1};
    HIRL_REQUIRE(hirl_image_sniff(sample.bytes, sample.size, &sample.encoding), HIRL_ERR_FORMAT,
                 "frame %lld of %lld: no signature of JPEG, PNG or WebP", (long long)i,
                 (long long)frames->n);
    *sample_p = sample;
    return HIRL_OK;
}

hirl_status_t hirl_sample_still(const hirl_sample_t *sample, hirl_sample_t *still_p) {
    const int32_t label = sample->label; // both may be one
    hirl_frames_t frames;
    if (sample->encoding != HIRL_ENCODING_FRAMES) {
        *still_p = *sample;
        return HIRL_OK;
    }
    HIRL_TRY(hirl_frames_read_index(sample->bytes, sample->size, &frames));
    HIRL_TRY(hirl_frames_sample(&frames, 0, still_p));
    still_p->label = label;
    return HIRL_OK;
}

bool hirl_frame_number(const char *name, int64_t *number_p) {
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    const char *dot = strrchr(base, '.'), *end = dot ? dot : base + strlen(base);
    while (end > base && !(end[-1] >= '0' && end[-1] <= '9')) end--;
    const char *begin = end;
    while (begin > base && begin[-1] >= '0' && begin[-1] <= '9') begin--;
    int64_t number = 0;
    if (begin == end || end - begin > DIGITS_MOST) return false;
    for (const char *at = begin; at < end; at++) number = 10 * number + (*at - '0');
    *number_p = number;
    return true;
}
