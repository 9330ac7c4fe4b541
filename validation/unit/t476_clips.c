// Videos from folders of frames, packed and loaded: stored byte for byte in the order of their numbers; each clip of each batch is what the
// public functions make of its frames one by one, bit for bit, on any number of ranks and threads, with repeats, short videos and after a
// restart in the middle of an epoch; damaged videos; decks that do not fit.
// test: ranks=1,2 timeout=60
#include "pack_util.h"

#include <png.h>
#include <turbojpeg.h>

#include "hirl/app.h"
#include "hirl/data_clip.h"
#include "hirl/data_preview.h"
#include "hirl/ssl.h"

enum { HEIGHT = 72, WIDTH = 96, N_VIDEOS = 10, FRAMES_MOST = 40, SIZE = 20, N_VIEWS = 2 };

// Where their frames are, in order; as the set has them, which is by folder.
typedef struct video {
    const char *name; // class/video
    int label, n;
    char path[FRAMES_MOST][64]; // below the source
} video_t;

static video_t videos[N_VIDEOS] = {
    {"cat/long", 0, 0, {""}},    {"cat/one", 0, 0, {""}},   {"cat/short", 0, 0, {""}},
    {"dog/gaps", 1, 0, {""}},    {"dog/mixed", 1, 0, {""}}, {"dog/ties", 1, 0, {""}},
    {"dog/v6", 1, 0, {""}},      {"fox/v7", 2, 0, {""}},    {"fox/v8", 2, 0, {""}},
    {"fox/v9.of.2", 2, 0, {""}},
};

static hirl_world_t *world, *self;
static hirl_shard_set_t *set;
static char source[1024], shards[1024];

// ------------------------------------------------------------------------------------ a source

// Waves, of another phase in each frame.
static void draw_picture(int video, int frame, int height, int width, uint8_t *pixels) {
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            for (int c = 0; c < 3; c++)
                pixels[(y * width + x) * 3 + c] =
                    (uint8_t)(128 + 60 * sin(0.05 * x + c + video + 0.3 * frame) +
                              60 * cos(0.04 * y - c * video + 0.1 * frame));
        }
    }
}

static void write_picture(const char *path, int video, int frame, int height, int width,
                          bool is_gray) {
    uint8_t *pixels = malloc((size_t)height * (size_t)width * 3);
    draw_picture(video, frame, height, width, pixels);
    if (strstr(path, ".png")) {
        png_image image = {.version = PNG_IMAGE_VERSION,
                           .width = (png_uint_32)width,
                           .height = (png_uint_32)height,
                           .format = PNG_FORMAT_RGB};
        NEED(png_image_write_to_file(&image, path, 0, pixels, 0, NULL));
    } else {
        unsigned char *bytes = NULL;
        unsigned long size = 0;
        tjhandle handle = tjInitCompress();
        NEED(tjCompress2(handle, pixels, width, 0, height, TJPF_RGB, &bytes, &size,
                         is_gray ? TJSAMP_GRAY : TJSAMP_420, 90, 0) == 0);
        save_file(path, bytes, size);
        tjFree(bytes);
        tjDestroy(handle);
    }
    free(pixels);
}

// The next frame of a video, whose file is called so.
__attribute__((format(printf, 2, 3))) static void add_frame(int v, const char *format, ...) {
    char name[40], path[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    video_t *video = &videos[v];
    NEED(video->n < FRAMES_MOST);
    snprintf(video->path[video->n], sizeof video->path[0], "%s/%s", video->name, name);
    snprintf(path, sizeof path, "%s/%s", source, video->path[video->n]);
    if (test_rank() == 0)
        write_picture(path, v, video->n, HEIGHT, WIDTH, strstr(name, "gray") != NULL);
    video->n++;
}

static void make_source(void) {
    for (int v = 0; v < N_VIDEOS; v++) shell("mkdir -p %s/%s", source, videos[v].name);
    for (int f = 0; f < 40; f++) add_frame(0, "frame_%05d.jpg", f + 1);
    add_frame(1, "0.jpg");
    for (int f = 0; f < 5; f++) add_frame(2, "%d.jpeg", f);
    // Not in the order of their names, and not all numbers.
    for (int f = 0; f < 23; f++) add_frame(3, "f%d.png", 3 * f + f / 7);
    for (int f = 0; f < 12; f++) add_frame(4, f % 3 ? "img_%d.jpg" : "img_%d.PNG.png", f);
    add_frame(5, "a_1.jpg");
    add_frame(5, "b_1.png");
    for (int f = 2; f < 20; f++) add_frame(5, f == 7 ? "gray_%d.jpg" : "0-%03d.jpg", f);
    for (int v = 6; v < N_VIDEOS; v++)
        for (int f = 0; f < 17 + v; f++) add_frame(v, "%08d.JPG", f);
    // Left out: an image without a number, other files, what begins with a dot.
    shell("cp %s/cat/one/0.jpg %s/cat/one/cover.jpg; echo 3 > %s/cat/one/7.txt; "
          "cp %s/cat/one/0.jpg %s/cat/one/.5.jpg",
          source, source, source, source, source);
}

static hirl_pack_cfg_t frames_cfg(const char *from, const char *to) {
    hirl_pack_cfg_t cfg = pack_cfg(from, "train", to);
    snprintf(cfg.format, sizeof cfg.format, "frames");
    cfg.upright = true;
    return cfg;
}

static hirl_data_cfg_t load_cfg(int n_threads) {
    hirl_data_cfg_t cfg = data_cfg("mmap");
    cfg.verify = false;
    cfg.n_threads = n_threads;
    cfg.n_ahead = n_threads;
    cfg.channels = 3;
    cfg.max_bad_fraction = 0.5;
    cfg.mean[0] = 0.45, cfg.std[0] = 0.225;
    cfg.n_mean = cfg.n_std = 1;
    return cfg;
}
static const float mean[3] = {0.45f, 0.45f, 0.45f}, std[3] = {0.225f, 0.225f, 0.225f};

// ------------------------------------------------------------------------------------ stored

static void test_stored(void) {
    hirl_buffer_t bytes = {0};
    NEED(hirl_shard_set_n_samples(set) == N_VIDEOS);
    CHECK(hirl_shard_set_has_videos(set));
    CHECK_EQ_I(hirl_shard_set_n_classes(set), 3);
    CHECK_EQ_S(hirl_shard_set_class_name_view(set, 2), "fox");
    for (int v = 0; v < N_VIDEOS; v++) {
        hirl_sample_t sample, frame;
        hirl_frames_t frames;
        NEED_OK(hirl_shard_set_read(set, v, &bytes, &sample));
        CHECK(sample.encoding == HIRL_ENCODING_FRAMES && sample.label == videos[v].label);
        CHECK(sample.height == HEIGHT && sample.width == WIDTH && sample.channels == 3);
        NEED_OK(hirl_frames_read_index(sample.bytes, sample.size, &frames));
        NEED(frames.n == videos[v].n && frames.height == HEIGHT && frames.width == WIDTH);
        for (int f = 0; f < frames.n; f++) {
            char path[2048];
            snprintf(path, sizeof path, "%s/%s", source, videos[v].path[f]);
            file_bytes_t file = load_file(path);
            NEED_OK(hirl_frames_sample(&frames, f, &frame));
            CHECK_MSG(frame.size == file.size && memcmp(frame.bytes, file.bytes, file.size) == 0,
                      "frame %d is not %s", f, videos[v].path[f]);
            free(file.bytes);
        }
        NEED_OK(hirl_sample_still(&sample, &sample));
        CHECK(sample.encoding != HIRL_ENCODING_FRAMES && sample.label == videos[v].label);
    }
    hirl_buffer_reset(&bytes);
    if (test_rank() > 0) return;
    char path[2048];
    hirl_text_t text = {0};
    snprintf(path, sizeof path, "%s/train-00000.h5", shards);
    CHECK_OK(hirl_shard_describe(path, &text));
    CHECK_HAS(text.data, "encoding = 'frames'");
    CHECK_HAS(text.data, "source_format = 'frames'");
    CHECK_HAS(text.data, "height = 72 to 72");
    hirl_text_reset(&text);
    snprintf(path, sizeof path, "%s/train-skipped.txt", shards);
    CHECK(!is_there(path));
    // The same on one rank.
    hirl_pack_cfg_t cfg = frames_cfg(source, test_path("alone"));
    CHECK_OK(hirl_data_pack(self, &cfg));
    check_same_folders(shards, test_path("alone"));
}

// ------------------------------------------------------------------------------------ loaded

static hirl_view_spec_t views[N_VIEWS];

static hirl_loader_spec_t train_spec(int64_t batch, hirl_clip_spec_t clip, int n_repeats) {
    for (int v = 0; v < N_VIEWS; v++)
        views[v] = (hirl_view_spec_t){.size = SIZE - 3 * v,
                                      .scale = {0.5, 1},
                                      .ratio = {0.75, 4.0 / 3.0},
                                      .is_bicubic = v == 0,
                                      .flip_prob = 0.5,
                                      .jitter_prob = v ? 0.8 : 0,
                                      .brightness = 0.4,
                                      .hue = 0.1,
                                      .blur_sigma = {0.1, 2},
                                      .erase_prob = v ? 0.5 : 0,
                                      .erase_area = {0.05, 0.3},
                                      .erase_ratio = {0.3, 3.3}};
    return (hirl_loader_spec_t){.batch = batch,
                                .seed = test_seed(),
                                .is_train = true,
                                .views = views,
                                .n_views = N_VIEWS,
                                .clip = clip,
                                .n_repeats = n_repeats};
}

// One frame as it lies in the source.
static void load_frame(int video, int frame, hirl_buffer_t *pixels, hirl_image_t *image) {
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", source, videos[video].path[frame]);
    file_bytes_t file = load_file(path);
    const hirl_sample_t sample = {.bytes = file.bytes,
                                  .size = file.size,
                                  .encoding = file.bytes[0] == 0xff ? HIRL_ENCODING_JPEG
                                                                    : HIRL_ENCODING_PNG};
    NEED_OK(hirl_image_decode(&sample, 3, pixels, image));
    free(file.bytes);
}

// Clip `number` of sample `index`, made of `video`.
static bool is_clip(const hirl_loader_spec_t *spec, int64_t epoch, int64_t index, int video,
                    int number, int v, const float *got) {
    const size_t floats = (size_t)views[v].size * (size_t)views[v].size * 3;
    int32_t frames[64];
    static float want[SIZE * SIZE * 3];
    hirl_augment_t *augment = NULL;
    hirl_buffer_t pixels = {0};
    hirl_image_t image;
    bool is_same = true;
    NEED_OK(hirl_augment_create(&augment));
    hirl_clip_draw(&spec->clip, videos[video].n, spec->seed, epoch, index, number, frames);
    for (int f = 0; f < spec->clip.n_frames; f++) {
        load_frame(video, frames[f], &pixels, &image);
        hirl_rng_t rng = hirl_rng_make(spec->seed, HIRL_RNG_AUGMENT, (uint64_t)epoch,
                                       (uint64_t)index, (uint32_t)number);
        NEED_OK(hirl_augment_view(augment, &image, &views[v], &rng, mean, std, want));
        is_same = is_same && memcmp(want, got + (size_t)f * floats, floats * sizeof *got) == 0;
    }
    hirl_augment_destroy(&augment);
    hirl_buffer_reset(&pixels);
    return is_same;
}

// One batch, all of it. `stand_in`: which video is shown for an index; NULL: itself.
static void check_batch(const hirl_loader_spec_t *spec, const hirl_batch_t *batch, int size,
                        int rank, int64_t epoch, const int *stand_in) {
    const int repeats = spec->n_repeats > 0 ? spec->n_repeats : 1;
    const hirl_order_t order = hirl_order_make(spec->seed, epoch, N_VIDEOS, 0);
    const int64_t per_batch = spec->batch / repeats, mine = per_batch / size;
    NEED(batch->n == mine * repeats && batch->has_clips && batch->channels == 3);
    CHECK_EQ_I(batch->n_frames, spec->clip.n_frames);
    const hirl_shape_t shape = hirl_batch_view_shape(batch, 1, batch->n);
    CHECK(shape.n_axes == 5 && shape.dim[0] == batch->n && shape.dim[4] == 3);
    CHECK(shape.dim[1] == spec->clip.n_frames && shape.dim[2] == views[1].size);
    for (int64_t i = 0; i < batch->n; i++) {
        const int64_t index =
            hirl_order_at(&order, batch->number * per_batch + rank * mine + i / repeats);
        const int video = stand_in ? stand_in[index] : (int)index;
        CHECK_EQ_I(batch->index[i], index);
        CHECK_EQ_I(batch->label[i], videos[video].label);
        for (int v = 0; v < N_VIEWS; v++) {
            const size_t floats =
                (size_t)batch->size[v] * (size_t)batch->size[v] * 3 * (size_t)spec->clip.n_frames;
            const int number = (int)(i % repeats) * N_VIEWS + v;
            CHECK_MSG(
                is_clip(spec, epoch, index, video, number, v, batch->view[v] + (size_t)i * floats),
                "epoch %lld batch %lld row %lld view %d differs", (long long)epoch,
                (long long)batch->number, (long long)i, v);
        }
    }
}

static void check_training(int64_t batch_size, hirl_clip_spec_t clip, int n_repeats,
                           int n_threads) {
    const hirl_loader_spec_t spec = train_spec(batch_size, clip, n_repeats);
    const hirl_data_cfg_t cfg = load_cfg(n_threads);
    const int64_t n_batches = N_VIDEOS * (n_repeats > 0 ? n_repeats : 1) / batch_size;
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
    CHECK_EQ_I(hirl_loader_n_batches(loader), n_batches);
    // The second epoch from its second batch on, which a restart does.
    for (int epoch = 0; epoch < 2; epoch++) {
        NEED_OK(hirl_loader_begin_epoch(loader, epoch, epoch));
        for (int64_t b = epoch; b < n_batches; b++) {
            NEED_OK(hirl_loader_next(loader, &batch));
            NEED(batch != NULL);
            CHECK_EQ_I(batch->number, b);
            check_batch(&spec, batch, test_size(), test_rank(), epoch, NULL);
        }
        NEED_OK(hirl_loader_next(loader, &batch));
        CHECK(batch == NULL);
    }
    const hirl_loader_counts_t counts = hirl_loader_counts(loader);
    CHECK(counts.n_bad == 0 && counts.n_samples >= (2 * n_batches - 1) * batch_size / test_size());
    // Crops of half the area and more; PNGs are decoded whole before the part is taken.
    CHECK(counts.n_pixels_decoded < counts.n_pixels && counts.n_bytes > 0);
    hirl_loader_destroy(&loader);
}

static void test_training(void) {
    const hirl_clip_spec_t usual = {6, 3, false}, looping = {9, 5, true}, still = {1, 1, false};
    check_training(4, usual, 0, 1);
    check_training(4, usual, 1, 3);
    check_training(8, looping, 2, 2);
    check_training(4, still, 1, 2);
}

// Whole frames, the middle clip.
static void test_evaluation(void) {
    const hirl_clip_spec_t clip = {5, 4, false};
    const hirl_loader_spec_t spec = {.batch = 3,
                                     .eval_resize = 30,
                                     .eval_crop = 24,
                                     .eval_is_bicubic = true,
                                     .clip = clip,
                                     .n_repeats = 4};
    const hirl_data_cfg_t cfg = load_cfg(2);
    const size_t floats = 24 * 24 * 3;
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    hirl_augment_t *augment = NULL;
    hirl_buffer_t pixels = {0};
    static float want[24 * 24 * 3];
    int n = 0;
    NEED_OK(hirl_augment_create(&augment));
    NEED_OK(hirl_loader_create(world, set, &cfg, &spec, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    for (;;) {
        NEED_OK(hirl_loader_next(loader, &batch));
        if (!batch) break;
        for (int64_t i = 0; i < batch->n; i++, n++) {
            const int64_t index = N_VIDEOS * test_rank() / test_size() + n;
            int32_t frames[5];
            CHECK_EQ_I(batch->index[i], index);
            hirl_clip_place(&clip, videos[index].n, 0, 1, frames);
            for (int f = 0; f < 5; f++) {
                hirl_image_t image;
                load_frame((int)index, frames[f], &pixels, &image);
                NEED_OK(hirl_augment_eval(augment, &image, 30, 24, true, mean, std, want));
                CHECK_BITS(batch->view[0] + ((size_t)i * 5 + (size_t)f) * floats, want,
                           floats * sizeof *want);
            }
        }
    }
    CHECK_EQ_I(n, N_VIDEOS / test_size());
    hirl_loader_destroy(&loader);
    hirl_augment_destroy(&augment);
    hirl_buffer_reset(&pixels);
}

static float *load_scaled(const char *decode, int n_threads, hirl_loader_counts_t *counts_p) {
    const hirl_clip_spec_t clip = {4, 2, false};
    const hirl_loader_spec_t spec = train_spec(N_VIDEOS, clip, 1);
    hirl_data_cfg_t cfg = load_cfg(n_threads);
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    const size_t bytes = (size_t)N_VIDEOS * 4 * SIZE * SIZE * 3 * sizeof(float);
    float *out = malloc(bytes);
    snprintf(cfg.decode, sizeof cfg.decode, "%s", decode);
    NEED(out != NULL);
    NEED_OK(hirl_loader_create(self, set, &cfg, &spec, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    NEED_OK(hirl_loader_next(loader, &batch));
    memcpy(out, batch->view[0], bytes);
    *counts_p = hirl_loader_counts(loader);
    hirl_loader_destroy(&loader);
    return out;
}

static void test_scaled(void) {
    const size_t n = (size_t)N_VIDEOS * 4 * SIZE * SIZE * 3;
    hirl_loader_counts_t counts, one;
    float *exact = load_scaled("exact", 2, &counts), *scaled = load_scaled("scaled", 1, &one),
          *again = load_scaled("scaled", 3, &counts);
    CHECK_BITS(scaled, again, n * sizeof *scaled);
    // JPEG frames at 1/2, PNG frames as they are.
    const double pixels = (double)one.n_pixels / (double)one.n_samples;
    CHECK_MSG(pixels < 0.5 * 2 * 4 * HEIGHT * WIDTH, "%.0f pixels a clip", pixels);
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)exact[i] - (double)scaled[i]) * 0.225 * 255);
    // An edge moves by up to two pixels of the full picture, over which the waves change by
    // 2 x 60 x 0.05 a direction; the cubic filter goes 1/4 beyond, and rounding takes one level.
    CHECK_MSG(worst > 0 && worst <= 14, "apart by %.1f grey levels", worst);
    free(exact);
    free(scaled);
    free(again);
}

// ------------------------------------------------------------------------------------ damage

static void flip_bytes(const char *path, int64_t at, int n) {
    FILE *file = fopen(path, "r+b");
    NEED(file != NULL);
    for (int i = 0; i < n; i++) {
        fseek(file, (long)(at + i), SEEK_SET);
        const int byte = fgetc(file);
        fseek(file, (long)(at + i), SEEK_SET);
        fputc(byte ^ 0x5a, file);
    }
    NEED(fclose(file) == 0);
}

// Video 3 has a wrong index, video 8 no frame that decodes, the last one has lost one of its frames.
static void damage_shard(const char *path) {
    file_bytes_t file = load_file(path);
    int video = 0;
    for (size_t at = 0; at + 40 < file.size && video < N_VIDEOS; at++) {
        if (memcmp(file.bytes + at, "hirlclip", 8) != 0) continue;
        const size_t frames = at + hirl_frames_index_size(videos[video].n);
        if (video == 3) flip_bytes(path, (int64_t)at + 30, 1);
        if (video == 8) {
            flip_bytes(path, (int64_t)frames, 4);
            for (int f = 1; f < videos[8].n; f++) {
                uint64_t end = 0;
                memcpy(&end, file.bytes + at + 24 + 8 * (size_t)(f - 1), 8);
                flip_bytes(path, (int64_t)(frames + end), 4);
            }
        }
        video++;
    }
    CHECK_EQ_I(video, N_VIDEOS);
    free(file.bytes);
}

static void test_damaged_shard(void) {
    static const int stand_in[N_VIDEOS] = {0, 1, 2, 4, 4, 5, 6, 7, 9, 9};
    const hirl_clip_spec_t clip = {4, 2, true};
    hirl_loader_spec_t spec = train_spec(5, clip, 1);
    hirl_data_cfg_t cfg = load_cfg(2);
    hirl_shard_set_t *bad = NULL;
    hirl_loader_t *loader = NULL;
    const hirl_batch_t *batch = NULL;
    char path[2048], folder[1024];
    snprintf(folder, sizeof folder, "%s/bad", test_folder());
    snprintf(path, sizeof path, "%s/train-00000.h5", folder);
    shell("mkdir -p %s && cp %s/train-00000.h5 %s", folder, shards, folder);
    if (test_rank() == 0) damage_shard(path);
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    NEED_OK(hirl_shard_set_open(world, folder, &cfg, &bad));
    NEED_OK(hirl_loader_create(self, bad, &cfg, &spec, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 3, 0));
    for (int b = 0; b < 2; b++) {
        NEED_OK(hirl_loader_next(loader, &batch));
        check_batch(&spec, batch, 1, 0, 3, stand_in);
    }
    CHECK_EQ_I(hirl_loader_counts(loader).n_bad, 2);
    hirl_loader_destroy(&loader);
    cfg.max_bad_fraction = 0.1;
    NEED_OK(hirl_loader_create(self, bad, &cfg, &spec, &loader));
    NEED_OK(hirl_loader_begin_epoch(loader, 0, 0));
    hirl_status_t status = HIRL_OK;
    for (int b = 0; b < 2 && status == HIRL_OK; b++) status = hirl_loader_next(loader, &batch);
    CHECK_EQ_I(status, HIRL_ERR_FORMAT);
    CHECK_HAS(hirl_error_text_view(), "2 of 10 samples cannot be used");
    hirl_loader_destroy(&loader);
    hirl_shard_set_close(&bad);
}

// Videos that are not packed, each for its reason.
static void test_damaged_source(void) {
    char in[1024], out[1024], path[2048];
    snprintf(in, sizeof in, "%s/odd", test_folder());
    snprintf(out, sizeof out, "%s/odd-out", test_folder());
    shell("mkdir -p %s/a && cp -r %s/fox/v7 %s/a/good && cd %s/a && for v in cut empty large text; "
          "do cp -r good $v; done && mkdir none unnumbered && cp good/00000000.JPG "
          "unnumbered/cover.jpg && truncate -s 300 cut/00000003.JPG && "
          "truncate -s 0 empty/00000005.JPG && echo not an image > text/00000000.JPG",
          in, source, in, in);
    snprintf(path, sizeof path, "%s/a/large/00000002.JPG", in);
    if (test_rank() == 0) write_picture(path, 0, 0, HEIGHT, WIDTH + 8, false);
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    hirl_pack_cfg_t cfg = frames_cfg(in, out);
    NEED_OK(hirl_data_pack(world, &cfg));
    if (test_rank() == 0) {
        snprintf(path, sizeof path, "%s/train-skipped.txt", out);
        file_bytes_t list = load_file(path);
        const char *text = (const char *)list.bytes;
        CHECK_HAS(text, "a/cut\t00000003.JPG: JPEG: ");
        CHECK_HAS(text, "a/empty\t00000005.JPG: 0 bytes, expected 1 to ");
        CHECK_HAS(text, "a/large\t00000002.JPG is 104 x 72 pixels, the first frame (00000000.JPG) "
                        "96 x 72; all must be alike");
        CHECK_HAS(text, "a/none\tno frames: it holds no file");
        CHECK_HAS(text, "a/text\t00000000.JPG: none of JPEG, PNG and WebP");
        CHECK_HAS(text,
                  "a/unnumbered\tno frames: it holds no file .png, .jpg, .jpeg or .webp whose name "
                  "has a number (1 without)");
        int n = 0;
        for (const char *at = text; (at = strchr(at, '\n')); at++) n++;
        CHECK_EQ_I(n, 6);
        free(list.bytes);
    }
    hirl_shard_set_t *odd = NULL;
    const hirl_data_cfg_t data = load_cfg(1);
    NEED_OK(hirl_shard_set_open(world, out, &data, &odd));
    CHECK_EQ_I(hirl_shard_set_n_samples(odd), 1);
    hirl_shard_set_close(&odd);

    snprintf(cfg.output, sizeof cfg.output, "%.400s/odd-none", test_folder());
    snprintf(cfg.source, sizeof cfg.source, "%.400s/a/good", in);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "holds 24 frames itself");
    snprintf(cfg.source, sizeof cfg.source, "%.400s/a/none", in);
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_FORMAT, "no folder of numbered frames");
    cfg.max_side = 64;
    CHECK_FAILS(hirl_data_pack(world, &cfg), HIRL_ERR_DECK, "frames are kept byte for byte");
}

// ------------------------------------------------------------------------------------ refused

static void test_refused(void) {
    const hirl_clip_spec_t clip = {4, 2, false}, none = {0}, wrong = {2000, 1, false};
    const hirl_data_cfg_t cfg = load_cfg(1);
    hirl_loader_t *loader = NULL;
    hirl_loader_spec_t spec = train_spec(4, none, 1);
    CHECK_FAILS(hirl_loader_create(world, set, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "sample 0 is a video, as all of its set are, and clip%frames is 0");
    spec = train_spec(4, wrong, 1);
    CHECK_FAILS(hirl_loader_create(world, set, &cfg, &spec, &loader), HIRL_ERR_ARG,
                "a clip of 2000 frames");
    spec = train_spec(4, clip, 1);
    spec.keeps_pixels = true;
    CHECK_FAILS(hirl_loader_create(world, set, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "views%maker = 'backend'");
    spec = train_spec(4, clip, 3);
    CHECK_FAILS(hirl_loader_create(world, set, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "clip%repeats = 3: want a multiple of");
    // Images.
    char out[1024], pattern[4096];
    hirl_shard_set_t *images = NULL, *both = NULL;
    snprintf(out, sizeof out, "%s/images", test_folder());
    hirl_pack_cfg_t pack = pack_cfg(source, "train", out);
    NEED_OK(hirl_data_pack(world, &pack));
    NEED_OK(hirl_shard_set_open(world, out, &cfg, &images));
    CHECK(!hirl_shard_set_has_videos(images));
    spec = train_spec(4, clip, 1);
    CHECK_FAILS(hirl_loader_create(world, images, &cfg, &spec, &loader), HIRL_ERR_DECK,
                "clip%frames is 4, and ");
    snprintf(pattern, sizeof pattern, "{%s,%s}/*.h5", shards, out);
    CHECK_FAILS(hirl_shard_set_open(world, pattern, &cfg, &both), HIRL_ERR_FORMAT,
                "raw images, encoded images and videos do not mix");
    hirl_shard_set_close(&images);
}

static void test_deck(void) {
    int n_groups;
    const hirl_group_t *const *groups = hirl_app_groups(&n_groups);
    hirl_deck_t *deck = NULL;
    NEED_OK(hirl_deck_create(groups, n_groups, &deck));
    const hirl_clip_cfg_t *clip = hirl_deck_group_view(deck, "clip");
    CHECK(clip->frames == 0 && clip->stride == 4 && clip->repeats == 1 && !clip->loops);
    CHECK_OK(hirl_method_check("mocov2", "none", deck));
    CHECK_OK(hirl_deck_override(deck, "clip%frames=16"));
    CHECK_OK(hirl_deck_override(deck, "clip%stride=2"));
    CHECK_OK(hirl_deck_override(deck, "clip%loops=.true."));
    const hirl_clip_spec_t spec = hirl_clip_spec_of(clip);
    CHECK(spec.n_frames == 16 && spec.stride == 2 && spec.loops);
    CHECK_FAILS(hirl_method_check("mocov2", "none", deck), HIRL_ERR_DECK,
                "clip%frames is 16, and run%method = 'mocov2' learns from images");
    hirl_deck_destroy(&deck);
}

// A sheet of stills, and the page of the set.
static void test_preview(void) {
    if (test_rank() > 0) return;
    hirl_data_cfg_t cfg = load_cfg(1);
    hirl_shard_set_t *alone = NULL;
    cfg.verify = true;
    NEED_OK(hirl_shard_set_open(self, shards, &cfg, &alone));
    hirl_preview_cfg_t preview = {.n_samples = 4, .thumb = 48, .class_thumbs = 2};
    snprintf(preview.pick, sizeof preview.pick, "order");
    const hirl_loader_spec_t spec = train_spec(1, (hirl_clip_spec_t){3, 2, false}, 1);
    const hirl_contact_sheet_t sheet = {.set = alone,
                                        .title = "",
                                        .data = &cfg,
                                        .preview = &preview,
                                        .views = views,
                                        .n_views = N_VIEWS,
                                        .seed = test_seed(),
                                        .clip = spec.clip};
    const hirl_dataset_split_t split = {.name = "train", .pattern = shards, .set = alone};
    CHECK_OK(hirl_contact_sheet_write(&sheet, test_path("views.png")));
    CHECK_OK(hirl_dataset_page_write(&split, 1, &preview, test_path("page.html")));
    file_bytes_t page = load_file(test_path("page.html"));
    CHECK_HAS((const char *)page.bytes, "video");
    CHECK_HAS((const char *)page.bytes, "alt=\"2 samples\"");
    free(page.bytes);
    hirl_shard_set_close(&alone);
}

TEST_MAIN {
    NEED_OK(hirl_world_create(NULL, NULL, &world));
    NEED_OK(hirl_world_create_self(&self));
    hirl_log_setup(HIRL_LOG_WARN, test_rank());
    snprintf(source, sizeof source, "%.500s/in", test_folder());
    snprintf(shards, sizeof shards, "%.500s/shards", test_folder());
    make_source();
    if (test_size() > 1) MPI_Barrier(MPI_COMM_WORLD);
    const hirl_pack_cfg_t pack = frames_cfg(source, shards);
    const hirl_data_cfg_t cfg = load_cfg(1);
    NEED_OK(hirl_data_pack(world, &pack));
    NEED_OK(hirl_shard_set_open(world, shards, &cfg, &set));
    RUN(test_stored);
    RUN(test_training);
    RUN(test_evaluation);
    RUN(test_scaled);
    RUN(test_damaged_shard);
    RUN(test_damaged_source);
    RUN(test_refused);
    RUN(test_deck);
    RUN(test_preview);
    hirl_shard_set_close(&set);
    hirl_world_destroy(&self);
    hirl_world_destroy(&world);
}
