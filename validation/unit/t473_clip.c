// Frames of clips against an independent implementation (validation/reference/masks), all places equally likely; crops along the longer
// side; the index of packed frames: written and read back, every cut and every flipped bit refused, forged ones with right checksums too.
// test: ranks=1 timeout=60
#include "pack_util.h"

#include "hirl/data_clip.h"

#define CASES "validation/reference/masks/clips.txt"

static void test_reference(void) {
    FILE *file = fopen(CASES, "r");
    char line[1024], kind[16];
    int n_cases = 0;
    NEED(file != NULL);
    while (fgets(line, sizeof line, file)) {
        if (line[0] == '#') continue;
        long long n, a, b, c = 0, d = 0;
        int loops, used = 0, got = 0;
        hirl_clip_spec_t clip = {0};
        int32_t frames[64];
        NEED(sscanf(line, "%15s %lld %d %d %d%n", kind, &n, &clip.n_frames, &clip.stride, &loops,
                    &used) == 5);
        clip.loops = loops != 0;
        CHECK_OK(hirl_clip_check(&clip));
        if (strcmp(kind, "draw") == 0) {
            NEED(sscanf(line + used, "%lld %lld %lld %lld :%n", &a, &b, &c, &d, &got) == 4);
            hirl_clip_draw(&clip, n, (uint64_t)a, b, c, (int)d, frames);
        } else {
            NEED(sscanf(line + used, "%lld %lld :%n", &a, &b, &got) == 2);
            hirl_clip_place(&clip, n, (int)a, (int)b, frames);
        }
        char *at = line + used + got;
        bool is_same = true;
        for (int i = 0; i < clip.n_frames; i++)
            is_same = is_same && strtol(at, &at, 10) == frames[i];
        CHECK_MSG(is_same && strspn(at, " \n") == strlen(at), "%d, %d, ...: %s", frames[0],
                  frames[clip.n_frames > 1], line);
        n_cases++;
    }
    fclose(file);
    CHECK_EQ_I(n_cases, 240);
}

static void test_places(void) {
    // 11 places for the beginning: each in N / 11 of N clips, within five standard deviations.
    const hirl_clip_spec_t clip = {16, 4, false};
    enum { N = 22000, N_PLACES = 11 };
    int count[N_PLACES] = {0};
    int32_t frames[16], again[16];
    for (int i = 0; i < N; i++) {
        hirl_clip_draw(&clip, 61 + N_PLACES - 1, test_seed(), i % 5, i, i % 3, frames);
        NEED(frames[0] >= 0 && frames[0] < N_PLACES && frames[15] == frames[0] + 60);
        count[frames[0]]++;
    }
    for (int i = 0; i < N_PLACES; i++)
        CHECK_MSG(abs(count[i] - N / N_PLACES) < 5 * 43, "place %d: %d", i, count[i]);
    // Of one video the clips of repeats and epochs are different ones.
    int n_same = 0;
    for (int i = 0; i < 100; i++) {
        hirl_clip_draw(&clip, 10000, test_seed(), 0, i, 0, frames);
        hirl_clip_draw(&clip, 10000, test_seed(), 0, i, 1, again);
        n_same += frames[0] == again[0];
        hirl_clip_draw(&clip, 10000, test_seed(), 1, i, 0, again);
        n_same += frames[0] == again[0];
    }
    CHECK(n_same < 3);
    hirl_clip_spec_t wrong = {0, 4, false};
    CHECK_EQ_I(hirl_clip_check(&wrong), HIRL_ERR_ARG);
    wrong = (hirl_clip_spec_t){16, 0, false};
    CHECK_EQ_I(hirl_clip_check(&wrong), HIRL_ERR_ARG);
    wrong = (hirl_clip_spec_t){1024, 1 << 30, false};
    CHECK_EQ_I(hirl_clip_check(&wrong), HIRL_ERR_ARG);
}

static void test_crops(void) {
    for (int k = 0; k < 3; k++) {
        hirl_window_t wide = hirl_clip_crop(224, 298, 224, k, 3);
        hirl_window_t tall = hirl_clip_crop(320, 256, 224, k, 3);
        CHECK(wide.top == 0 && wide.left == 37 * k && wide.height == 224 && wide.width == 224);
        CHECK(tall.top == 48 * k && tall.left == 16);
    }
    const hirl_window_t one = hirl_clip_crop(224, 299, 224, 0, 1);
    CHECK(one.top == 0 && one.left == 37);
}

// ------------------------------------------------------------------------------------ frames

static file_bytes_t pack_files(const char *const *paths, int n, int height, int width) {
    file_bytes_t all = {NULL, hirl_frames_index_size(n)}, file[8];
    int64_t sizes[8];
    for (int i = 0; i < n; i++) {
        file[i] = load_file(paths[i]);
        sizes[i] = (int64_t)file[i].size;
        all.size += file[i].size;
    }
    NEED((all.bytes = malloc(all.size)) != NULL);
    NEED_OK(hirl_frames_write_index(sizes, n, height, width, all.bytes));
    unsigned char *to = all.bytes + hirl_frames_index_size(n);
    for (int i = 0; i < n; i++) {
        memcpy(to, file[i].bytes, file[i].size);
        to += file[i].size;
        free(file[i].bytes);
    }
    return all;
}

static void test_round_trip(void) {
    static const char *const paths[] = {IMAGES "/Banana/rgb444.jpg", IMAGES "/Banana/rgb444.jpg",
                                        IMAGES "/Banana/rgb444.jpg"};
    int height = 0, width = 0;
    file_bytes_t one = load_file(paths[0]);
    for (size_t i = 2; i + 9 < one.size && height == 0; i++) // the frame header of a baseline JPEG
        if (one.bytes[i] == 0xff && one.bytes[i + 1] == 0xc0) {
            height = one.bytes[i + 5] << 8 | one.bytes[i + 6];
            width = one.bytes[i + 7] << 8 | one.bytes[i + 8];
        }
    file_bytes_t all = pack_files(paths, 3, height, width);
    hirl_frames_t frames;
    NEED_OK(hirl_frames_read_index(all.bytes, all.size, &frames));
    CHECK(frames.n == 3 && frames.height == height && frames.width == width);
    hirl_buffer_t buffer = {0}, apart = {0};
    for (int i = 0; i < 3; i++) {
        hirl_sample_t sample, alone = {.bytes = one.bytes,
                                       .size = one.size,
                                       .height = height,
                                       .width = width,
                                       .encoding = HIRL_ENCODING_JPEG};
        hirl_image_t image, wanted;
        NEED_OK(hirl_frames_sample(&frames, i, &sample));
        CHECK(sample.size == one.size && sample.encoding == HIRL_ENCODING_JPEG);
        CHECK_BITS(sample.bytes, one.bytes, one.size);
        NEED_OK(hirl_image_decode(&sample, 3, &buffer, &image));
        NEED_OK(hirl_image_decode(&alone, 3, &apart, &wanted));
        CHECK(image.height == height && image.width == width);
        CHECK_BITS(image.pixels, wanted.pixels, (size_t)height * (size_t)width * 3);
    }
    hirl_sample_t sample;
    CHECK_EQ_I(hirl_frames_sample(&frames, 3, &sample), HIRL_ERR_ARG);
    hirl_buffer_reset(&buffer);
    hirl_buffer_reset(&apart);
    free(all.bytes);
    free(one.bytes);
}

// A small sample with `n` frames of a byte each; its last byte is the memory's last.
static file_bytes_t make_small(int n) {
    int64_t sizes[16];
    file_bytes_t all = {NULL, hirl_frames_index_size(n) + (size_t)n};
    for (int i = 0; i < n; i++) sizes[i] = 1;
    NEED((all.bytes = calloc(1, all.size)) != NULL);
    NEED_OK(hirl_frames_write_index(sizes, n, 5, 7, all.bytes));
    return all;
}

static void check_refused(const unsigned char *bytes, size_t size, const char *what) {
    hirl_frames_t frames;
    unsigned char *copy = malloc(size + !size); // its own block: reading beyond shows
    NEED(copy != NULL);
    memcpy(copy, bytes, size);
    CHECK_EQ_I(hirl_frames_read_index(copy, size, &frames), HIRL_ERR_FORMAT);
    if (what) CHECK_HAS(hirl_error_text_view(), what);
    free(copy);
}

static void put(unsigned char *to, uint64_t value, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) to[i] = (unsigned char)(value >> 8 * i);
}

static void forge(int at, uint64_t value, int n_bytes, const char *what) {
    file_bytes_t all = make_small(4);
    const size_t hashed = hirl_frames_index_size(4) - 8;
    put(all.bytes + at, value, n_bytes);
    put(all.bytes + hashed, hirl_hash64(all.bytes, hashed), 8);
    check_refused(all.bytes, all.size, what);
    free(all.bytes);
}

static void test_hostile(void) {
    file_bytes_t all = make_small(4);
    hirl_frames_t frames;
    hirl_sample_t sample;
    CHECK_OK(hirl_frames_read_index(all.bytes, all.size, &frames));
    CHECK_EQ_I(hirl_frames_sample(&frames, 0, &sample), HIRL_ERR_FORMAT);
    for (size_t size = 0; size < all.size; size++) check_refused(all.bytes, size, NULL);
    for (size_t bit = 0; bit < 8 * hirl_frames_index_size(4); bit++) {
        all.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        check_refused(all.bytes, all.size, NULL);
        all.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    free(all.bytes);
    // With right checksums: version, number, sides, ends.
    forge(8, 2, 4, "version 2, expected 1");
    forge(12, 0, 4, "0 frames in 68 bytes");
    forge(12, UINT32_MAX, 4, "4294967295 frames");
    forge(12, 5, 4, NULL); // its checksum lies elsewhere
    forge(16, 0, 4, "0 x 7 pixels");
    forge(20, 70000, 4, "5 x 70000 pixels");
    forge(24, 0, 8, "number 0 ends at byte 0, expected 1 to 4");
    forge(32, 1, 8, "number 1 ends at byte 1, expected 2 to 4");
    forge(32, UINT64_MAX, 8, "expected 2 to 4");
    forge(48, 5, 8, "number 3 ends at byte 5");
    const int64_t empty[2] = {3, 0}, large[1] = {INT64_MAX};
    uint8_t out[64];
    CHECK_EQ_I(hirl_frames_write_index(empty, 2, 5, 5, out), HIRL_ERR_ARG);
    CHECK_EQ_I(hirl_frames_write_index(large, 1, 5, 5, out), HIRL_ERR_ARG);
    CHECK_EQ_I(hirl_frames_write_index(empty, 0, 5, 5, out), HIRL_ERR_ARG);
    CHECK_EQ_I(hirl_frames_write_index(empty, 1, 0, 5, out), HIRL_ERR_ARG);
    // A byte behind the last frame belongs to nobody.
    all = make_small(4);
    NEED((all.bytes = realloc(all.bytes, all.size + 1)) != NULL);
    all.bytes[all.size] = 0;
    check_refused(all.bytes, all.size + 1, "the last of 4 ends at byte 4, expected 5");
    free(all.bytes);
}

static void test_names(void) {
    static const struct {
        const char *name;
        int64_t number; // -1: none
    } cases[] = {{"img_00012.jpg", 12},
                 {"clip-3/7.png", 7},
                 {"a/frame10_left.jpeg", 10},
                 {"12", 12},
                 {"v1.2/frame.jpg", -1},
                 {".5", -1},
                 {"123456789012345.jpg", 123456789012345},
                 {"1234567890123456.jpg", -1},
                 {"", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t number = -1;
        const bool has = hirl_frame_number(cases[i].name, &number);
        CHECK_MSG(has == (cases[i].number >= 0) && number == cases[i].number, "%s: %lld",
                  cases[i].name, (long long)number);
    }
}

TEST_MAIN {
    RUN(test_reference);
    RUN(test_places);
    RUN(test_crops);
    RUN(test_round_trip);
    RUN(test_hostile);
    RUN(test_names);
}
