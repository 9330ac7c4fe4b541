// Fuzz target: checkpoints and general files of arrays. An input that begins like an HDF5 file is
// one; anything else is a description (fuzz_h5.h) of how a checkpoint differs from a good one. Where
// only the completeness marker stands in the way, it is set to what the reader wants, as whoever means
// harm would do. What is opened is described, compared and read, array by array; every second input is
// opened as a general file of arrays instead.
#include "fuzz_h5.h"

#include "hirl/ckpt.h"

enum { READ_BYTES_MAX = 1 << 22 };

static fuzz_file_t good;
static const char OTHER[] = "/other", SECRET[] = "/secret";

// ------------------------------------------------------------------------------------ good files

static fuzz_object_t *add(const char *name, fuzz_type_t type, int n_axes, int64_t n, int64_t m) {
    fuzz_object_t *object = &good.object[good.n_objects++];
    *object = (fuzz_object_t){
        .name = name, .type = type, .n_axes = n_axes, .chunk = 2, .has_checksum = true};
    for (int i = 0; i < FUZZ_AXES_MAX; i++) object->shape[i] = i == 0 ? n : i == 1 ? m : 1;
    for (int i = 0; i < FUZZ_ITEMS_MAX; i++) object->item[i] = 3 * i - 7;
    return object;
}

static void make_good(void) {
    memset(&good, 0, sizeof good);
    add("/model/encoder_q.conv1.weight", FUZZ_F32, 2, 3, 4);
    add("/model/encoder_q.fc.bias", FUZZ_F32, 1, 5, 1);
    add("/method/queue_ptr", FUZZ_I64, 0, 1, 1);
    add("/optimizer/momentum", FUZZ_F64, 1, 6, 1);
    add("/state/mask", FUZZ_U8, 1, 7, 1);
    add("/state/empty", FUZZ_I32, 1, 0, 1);
    add("/state/label", FUZZ_I32, 2, 2, 2);
    const fuzz_attribute_t attribute[] = {
        {"format", "hirl-checkpoint", 0, FUZZ_TEXT, 0, 1, false},
        {"version", NULL, 1, FUZZ_I64, 0, 1, false},
        {"step", NULL, 12, FUZZ_I64, 0, 1, false},
        {"epoch", NULL, 2, FUZZ_I64, 0, 1, false},
        {"batch", NULL, 3, FUZZ_I64, 0, 1, false},
        {"samples_seen", NULL, 4, FUZZ_I64, 0, 1, false},
        {"seed", NULL, 5, FUZZ_I64, 0, 1, false},
        {"method", "mocov2", 0, FUZZ_TEXT, 0, 1, false},
        {"hierarchy", "hirl", 0, FUZZ_TEXT, 0, 1, false},
        {"deck", "&run\n  seed = 5\n/\n", 0, FUZZ_TEXT, 0, 1, false},
        {"build", "version = 1\n", 0, FUZZ_TEXT, 0, 1, false},
        {"complete", NULL, 0, FUZZ_U64, 0, 1, false}};
    good.n_attributes = (int)(sizeof attribute / sizeof *attribute);
    memcpy(good.attribute, attribute, sizeof attribute);
}

// Another file, for links: what it holds must never be listed.
static void make_other(void) {
    make_good();
    good.n_objects = 0;
    add(SECRET, FUZZ_F32, 1, 4, 1);
    add("/offset", FUZZ_F32, 1, 4, 1);
    FUZZ_CHECK(fuzz_write_file(fuzz_path("other.h5"), &good), "no other file");
}

// ------------------------------------------------------------------------------------ mending

// Sets the completeness marker to what the last message asks for. False if it is about something
// else. Not by HDF5, which the file may harm.
static bool mend(const char *path) {
    static const char NAME[] = "complete";
    static const size_t PLACES[] = {25, 40}; // of the value behind the name's begin, new and old
    unsigned long long found = 0, wanted = 0;
    const char *text = strstr(hirl_error_text_view(), "(marker ");
    if (!text || sscanf(text, "(marker %llx, expected %llx)", &found, &wanted) != 2) return false;
    size_t size = 0;
    uint8_t *data = fuzz_load(path, &size);
    bool is_set = false;
    for (size_t at = 0; at + 48 <= size && !is_set; at++) {
        if (memcmp(data + at, NAME, sizeof NAME) != 0) continue;
        for (int k = 0; k < 2 && !is_set; k++) {
            uint8_t *value = data + at + PLACES[k];
            is_set = mend_little(value, 8) == found;
            for (size_t i = 0; is_set && i < 8; i++) value[i] = (uint8_t)(wanted >> 8 * i);
        }
    }
    if (is_set) mend_h5(data, size);
    if (is_set) fuzz_save(path, data, size);
    free(data);
    return is_set;
}

// ------------------------------------------------------------------------------------ reading

// Reads one array as `type` into a block of exactly its size.
static void read_array(const hirl_ckpt_t *ckpt, const hirl_ckpt_array_t *array,
                       hirl_ckpt_type_t type) {
    static const size_t SIZES[] = {4, 8, 4, 8, 1};
    int64_t n = 1;
    for (int i = 0; i < array->n_axes; i++) {
        FUZZ_CHECK(array->shape[i] >= 0, "a negative axis");
        FUZZ_CHECK(!__builtin_mul_overflow(n, array->shape[i], &n) || n == 0, "a shape overflows");
    }
    if (n > READ_BYTES_MAX / 8) return;
    const size_t size = (size_t)n * SIZES[type];
    void *out = malloc(size ? size : 1);
    FUZZ_CHECK(out, "no memory");
    const hirl_status_t status =
        hirl_ckpt_read(ckpt, array->name, type, array->n_axes, array->shape, out);
    if (status == HIRL_OK) {
        (void)hirl_hash64(out, size);
    } else {
        fuzz_check_refusal(status);
    }
    free(out);
}

static void read_file(hirl_ckpt_t *ckpt, bool is_checkpoint) {
    int n = 0;
    const hirl_ckpt_array_t *array = hirl_ckpt_arrays_view(ckpt, &n);
    for (int i = 0; i < n; i++) {
        FUZZ_CHECK(array[i].name[0] == '/' && fuzz_is_printable(array[i].name, false),
                   "an array of a bad name");
        FUZZ_CHECK(!strstr(array[i].name, SECRET), "an array of another file");
        FUZZ_CHECK(hirl_ckpt_find_view(ckpt, array[i].name), "an array cannot be found");
        for (int type = HIRL_CKPT_F32; type <= HIRL_CKPT_U8; type++) {
            if (is_checkpoint && type != (int)array[i].type) continue;
            read_array(ckpt, &array[i], (hirl_ckpt_type_t)type);
        }
    }
    hirl_status_t status = hirl_ckpt_check(ckpt, "/model", array, n, false);
    FUZZ_CHECK(status == HIRL_OK, "a file does not fit itself");
    const hirl_ckpt_array_t wanted = {OTHER, HIRL_CKPT_F32, 1, {4}, NULL};
    status = hirl_ckpt_check(ckpt, "/", &wanted, 1, false);
    FUZZ_CHECK(status == HIRL_ERR_MISMATCH || status == HIRL_OK, "another status");
    float value[4];
    const int64_t four = 4;
    (void)hirl_ckpt_read(ckpt, OTHER, HIRL_CKPT_F32, 1, &four, value);
}

static void check_memory(size_t held, size_t file_size) {
    const size_t peak = hirl_mem_peak(HIRL_MEM_KIND_COUNT) - held;
    // A block of 4 MiB serves to verify; the rest goes with the file.
    FUZZ_CHECK(peak <= 64 * file_size + (6 << 20), "%zu bytes to open a file of %zu", peak,
               file_size);
}

static void open_checkpoint(const char *path, size_t file_size, bool is_mended) {
    hirl_ckpt_t *ckpt = NULL;
    hirl_text_t text = {0};
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    hirl_mem_reset_peak();
    hirl_status_t status = hirl_ckpt_open(path, true, &ckpt);
    if (status != HIRL_OK && is_mended && mend(path)) status = hirl_ckpt_open(path, true, &ckpt);
    check_memory(held, file_size);
    if (status == HIRL_OK) {
        const hirl_ckpt_meta_t *meta = hirl_ckpt_meta_view(ckpt);
        (void)(strlen(meta->method) + strlen(meta->hierarchy) + strlen(meta->deck));
        read_file(ckpt, true);
        hirl_ckpt_close(&ckpt);
    } else {
        fuzz_check_refusal(status);
        FUZZ_CHECK(!ckpt, "a checkpoint in spite of a failure");
    }
    status = hirl_ckpt_describe(path, &text);
    if (status == HIRL_OK) {
        FUZZ_CHECK(fuzz_is_printable(text.data, true), "control characters in a description");
        FUZZ_CHECK(hirl_ckpt_is_checkpoint(path), "a checkpoint is none");
    } else {
        fuzz_check_refusal(status);
    }
    hirl_text_reset(&text);
}

static void open_arrays(const char *path, size_t file_size) {
    hirl_ckpt_t *file = NULL;
    const size_t held = hirl_mem_held(HIRL_MEM_KIND_COUNT);
    hirl_mem_reset_peak();
    const hirl_status_t status = hirl_arrays_open(path, &file);
    check_memory(held, file_size);
    if (status == HIRL_OK) {
        read_file(file, false);
        hirl_ckpt_close(&file);
    } else {
        fuzz_check_refusal(status);
        FUZZ_CHECK(!file, "a file in spite of a failure");
    }
}

static void fuzz_one(const uint8_t *data, size_t size) {
    const char *path = fuzz_path("checkpoint.h5");
    size_t file_size = size;
    const bool is_image = fuzz_write_image(path, data, size);
    if (!is_image) {
        make_good();
        for (size_t at = 1; at + 8 <= size; at += 8) fuzz_apply(&good, data + at);
        if (!fuzz_write_file(path, &good)) return;
        free(fuzz_load(path, &file_size));
    }
    // One way of opening for each input, since it is slow.
    if (size > 0 && (is_image ? size : data[0]) % 2 == 1) {
        open_arrays(path, file_size);
    } else {
        open_checkpoint(path, file_size, !is_image);
    }
}

static void fuzz_begin(void) {
    hirl_log_setup(HIRL_LOG_ERROR, 0);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    make_other();
}

static void fuzz_write_seeds(void) {
    size_t size = 0;
    const char *path = fuzz_path("seed.h5");
    hirl_ckpt_t *ckpt = NULL;
    for (int is_old = 0; is_old < 2; is_old++) {
        make_good();
        good.is_old = is_old;
        FUZZ_CHECK(fuzz_write_file(path, &good), "no seed");
        (void)hirl_ckpt_open(path, true, &ckpt);
        FUZZ_CHECK(mend(path) && hirl_ckpt_open(path, true, &ckpt) == HIRL_OK,
                   "the good checkpoint is refused");
        hirl_ckpt_close(&ckpt);
        uint8_t *image = fuzz_load(path, &size);
        fuzz_save_seed(is_old ? "old.h5" : "new.h5", image, size);
        image = realloc(image, size + 1);
        FUZZ_CHECK(image, "no memory");
        image[size] = 0;
        fuzz_save_seed(is_old ? "old_1.h5" : "new_1.h5", image, size + 1);
        free(image);
    }
    // One record of each operation; the fuzzer puts them together.
    for (int operation = 0; operation < 24; operation++) {
        const uint8_t record[9] = {
            (uint8_t)(operation % 2), (uint8_t)operation, (uint8_t)operation, 1, 1, 65, 3, 0, 0};
        char name[32];
        snprintf(name, sizeof name, "record_%02d", operation);
        fuzz_save_seed(name, record, sizeof record);
    }
}
