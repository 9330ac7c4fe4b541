// TensorBoard's event file. Framing (TFRecord): length u64, masked CRC-32C of it, bytes, masked CRC-32C of those, all little-endian. The bytes are a message
// Event in protobuf's wire format: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary, 7 session_log; Summary: 1 repeated value;
// Summary.Value: 1 tag string, 2 simple_value float; SessionLog: 1 status, 1 = START.
//
// Each start of a run writes a new file with all that metrics.jsonl has kept, under a name that sorts behind the earlier ones, and empties those: a TensorBoard
// that is watching goes on to the new name, and the START in it makes it forget the steps that it read before.

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "run_log_impl.h"

enum { SUMMARY_MAX = METRICS_PAIRS_MAX * (METRICS_NAME_MAX + 32), EVENT_MAX = SUMMARY_MAX + 64 };
enum { HEAD_SIZE = 40 }; // bytes of the first record, which tells the version
static const char prefix[] = "events.out.tfevents.", suffix[] = ".hirl";

// A message under construction; nothing is added beyond its room.
typedef struct bytes {
    uint8_t *data;
    size_t n, capacity;
} bytes_t;

struct events {
    append_t file;
    uint32_t crc_of[256];
    uint8_t summary[SUMMARY_MAX], event[EVENT_MAX], record[EVENT_MAX + 16];
    double time; // of the line before
};

// ------------------------------------------------------------------------------------ wire format

static void put_raw(bytes_t *bytes, const void *data, size_t n) {
    if (n > bytes->capacity - bytes->n) return;
    memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
}

static void put_varint(bytes_t *bytes, uint64_t value) {
    uint8_t out[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7) out[n++] = (uint8_t)(value | 0x80);
    out[n++] = (uint8_t)value;
    put_raw(bytes, out, n);
}

// Little-endian, whatever the machine is.
static void put_fixed(bytes_t *bytes, uint64_t value, size_t n) {
    uint8_t out[8];
    for (size_t i = 0; i < n; ++i) out[i] = (uint8_t)(value >> 8 * i);
    put_raw(bytes, out, n);
}

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
static void put_key(bytes_t *bytes, int field, int wire) {
    put_varint(bytes, (uint64_t)(field << 3 | wire));
}

static void put_double(bytes_t *bytes, int field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(bytes, field, WIRE_FIXED64);
    put_fixed(bytes, bits, 8);
}

static void put_float(bytes_t *bytes, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_key(bytes, field, WIRE_FIXED32);
    put_fixed(bytes, bits, 4);
}

static void put_int(bytes_t *bytes, int field, int64_t value) {
    put_key(bytes, field, WIRE_VARINT);
    put_varint(bytes, (uint64_t)value);
}

static void put_bytes(bytes_t *bytes, int field, const void *data, size_t n) {
    put_key(bytes, field, WIRE_BYTES);
    put_varint(bytes, n);
    put_raw(bytes, data, n);
}

static size_t varint_size(uint64_t value) {
    size_t n = 1;
    for (; value >= 0x80; value >>= 7) ++n;
    return n;
}

// Whole or not at all.
static void put_scalar(bytes_t *summary, const char *tag, double value) {
    uint8_t data[METRICS_NAME_MAX + 32];
    bytes_t message = {data, 0, sizeof data};
    put_bytes(&message, 1, tag, strlen(tag));
    put_float(&message, 2, (float)value);
    if (summary->n + 1 + varint_size(message.n) + message.n > summary->capacity) return;
    put_bytes(summary, 1, message.data, message.n);
}

// ------------------------------------------------------------------------------------ records

// The remainders of Castagnoli's polynomial, bits reversed.
static void fill_crc(uint32_t crc_of[256]) {
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
        crc_of[i] = crc;
    }
}

// Masked as the format wants it, because a CRC over bytes that hold their own CRC is a poor one.
static uint32_t masked_crc(const events_t *events, const uint8_t *data, size_t n) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; ++i) crc = events->crc_of[(crc ^ data[i]) & 0xFF] ^ crc >> 8;
    crc = ~crc;
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void write_event(events_t *events, const bytes_t *event) {
    bytes_t record = {events->record, 0, sizeof events->record};
    put_fixed(&record, event->n, 8);
    put_fixed(&record, masked_crc(events, record.data, 8), 4);
    put_raw(&record, event->data, event->n);
    put_fixed(&record, masked_crc(events, event->data, event->n), 4);
    append_record(&events->file, record.data, record.n);
}

// Says what the file is, and that what was read under other names starts anew.
static void write_head(events_t *events) {
    static const char version[] = "brain.Event:2";
    uint8_t start[2];
    bytes_t session = {start, 0, sizeof start};
    bytes_t event = {events->event, 0, sizeof events->event};
    put_double(&event, 1, events->time);
    put_bytes(&event, 3, version, sizeof version - 1);
    write_event(events, &event);
    event.n = 0;
    put_int(&session, 1, 1);
    put_double(&event, 1, events->time);
    put_bytes(&event, 7, session.data, session.n);
    write_event(events, &event);
}

// ------------------------------------------------------------------------------------ scalars

static bool starts_with(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

static void add_pair(bytes_t *summary, const metrics_line_t *line, const metrics_pair_t *pair) {
    static const char *const no_scalar[] = {"step", "time", "samples_seen", "partial_steps"};
    static const char *const share_of[] = {"data", "h2d", "compute", "comm"};
    char tag[METRICS_NAME_MAX + 8];
    double value = pair->value;
    const char *group = "train/", *name = pair->name;
    if (!pair->is_number) return;
    // An interval of steps that ends here has told the epoch.
    if (line->kind == METRICS_KNN && strcmp(name, "epoch") == 0) return;
    for (size_t i = 0; i < sizeof no_scalar / sizeof *no_scalar; ++i)
        if (strcmp(name, no_scalar[i]) == 0) return;
    if (starts_with(name, "knn_")) {
        group = "knn/";
        name += 4;
    } else if (strcmp(name, "images_per_s") == 0) {
        group = "time/";
    } else if (strcmp(name, "t_step") == 0) {
        group = "time/";
        name = "step_seconds";
    } else if (starts_with(name, "t_")) {
        for (size_t i = 0; i < sizeof share_of / sizeof *share_of; ++i) {
            if (strcmp(name + 2, share_of[i]) != 0) continue;
            value /= metrics_number(line, "t_step", NAN);
            if (hirl_text_format(tag, sizeof tag, "time/%s_share", share_of[i]) == HIRL_OK)
                put_scalar(summary, tag, value);
            return;
        }
    }
    if (hirl_text_format(tag, sizeof tag, "%s%s", group, name) == HIRL_OK)
        put_scalar(summary, tag, value);
}

void events_add(events_t *events, const metrics_line_t *line) {
    bytes_t summary = {events->summary, 0, sizeof events->summary};
    bytes_t event = {events->event, 0, sizeof events->event};
    if (line->kind == METRICS_OPEN || line->kind == METRICS_RESTART) return;
    for (int i = 0; i < line->n; ++i) add_pair(&summary, line, &line->pair[i]);
    if (summary.n == 0) return;
    double time = metrics_number(line, "time", events->time);
    if (isfinite(time)) events->time = time;
    put_double(&event, 1, events->time);
    put_int(&event, 2, line->step);
    put_bytes(&event, 5, summary.data, summary.n);
    write_event(events, &event);
}

// ------------------------------------------------------------------------------------ files

static bool is_ours(const char *name) {
    size_t n = strlen(name), n_suffix = sizeof suffix - 1;
    return starts_with(name, prefix) && n >= n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

// The file written here that sorts last but for `without`; "" if there is none.
static void find_newest(const char *folder, const char *without, char name[NAME_MAX + 1]) {
    DIR *dir = opendir(folder);
    name[0] = '\0';
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        if (is_ours(entry->d_name) && strcmp(entry->d_name, without) != 0 &&
            strcmp(entry->d_name, name) > 0)
            snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
    if (dir) closedir(dir);
}

static bool cut_or_remove(int folder_fd, const char *name, bool is_cut) {
    struct stat found;
    if (!is_cut || fstatat(folder_fd, name, &found, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(found.st_mode) || found.st_size < HEAD_SIZE)
        return unlinkat(folder_fd, name, 0) == 0;
    int fd = openat(folder_fd, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    bool is_done = fd >= 0 && ftruncate(fd, HEAD_SIZE) == 0;
    if (fd >= 0) close(fd);
    return is_done;
}

// Of the earlier files the newest is cut to its version, and stays until the next start: a TensorBoard without its data server opens by name what it is
// reading, and gets no further if that is gone.
static void retire_others(const char *folder, const char *keep) {
    char newest[NAME_MAX + 1];
    find_newest(folder, keep, newest);
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));)
        if (is_ours(entry->d_name) && strcmp(entry->d_name, keep) != 0 &&
            !cut_or_remove(dirfd(dir), entry->d_name, strcmp(entry->d_name, newest) == 0))
            hirl_log_root(HIRL_LOG_WARN,
                          "%s/%s: cannot be emptied (%s); TensorBoard will show its steps too",
                          folder, entry->d_name, strerror(errno));
    if (dir) {
        (void)fsync(dirfd(dir));
        closedir(dir);
    }
}

// Sorts behind the earlier ones even if the clock was set back.
static hirl_status_t make_name(const char *folder, char *name, size_t size) {
    char host[256] = "", newest[NAME_MAX + 1];
    find_newest(folder, "", newest);
    long long now = (long long)time(NULL), least = 1;
    if (newest[0]) least = strtoll(newest + sizeof prefix - 1, NULL, 10) + 1;
    if (least < 1 || least > 9999999999LL) least = 1; // ten digits, so that they sort
    if (gethostname(host, sizeof host - 1) != 0 || !host[0] || strchr(host, '/'))
        strcpy(host, "host");
    return hirl_text_format(name, size, "%s%010lld.%s.%ld%s", prefix, now > least ? now : least,
                            host, (long)getpid(), suffix);
}

static hirl_status_t copy_lines(events_t *events, const char *path) {
    metrics_line_t *line = NULL;
    char *text = NULL;
    hirl_status_t status = HIRL_OK;
    FILE *file = fopen(path, "r");
    if (!file)
        return errno == ENOENT
                   ? HIRL_OK
                   : HIRL_FAIL(HIRL_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &line), status, done);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_GENERAL, METRICS_LINE_MAX, &text), status, done);
    while (metrics_read(file, text))
        if (metrics_parse(text, line)) events_add(events, line);
done:
    fclose(file);
    hirl_mem_free(line);
    hirl_mem_free(text);
    return status;
}

static hirl_status_t fill(events_t *events, const char *folder, const char *metrics_path) {
    char name[384], path[HIRL_DECK_TEXT_MAX + 320];
    HIRL_TRY(make_name(folder, name, sizeof name));
    // A name that no TensorBoard looks at, and always the same one: what a kill leaves is overwritten.
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/.events.new", folder));
    HIRL_TRY(append_open(path, true, &events->file));
    write_head(events);
    HIRL_TRY(copy_lines(events, metrics_path));
    append_sync(&events->file);
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", folder, name));
    HIRL_REQUIRE(rename(events->file.path, path) == 0, HIRL_ERR_IO,
                 "%s: cannot be moved into place: %s", path, strerror(errno));
    memcpy(events->file.path, path, sizeof path);
    retire_others(folder, name);
    return HIRL_OK;
}

hirl_status_t events_create(const char *folder, const char *metrics_path, events_t **events_p) {
    events_t *events = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &events));
    fill_crc(events->crc_of);
    events->time = (double)time(NULL);
    hirl_status_t status = fill(events, folder, metrics_path);
    if (status != HIRL_OK) {
        if (events->file.is_open) unlink(events->file.path);
        events_destroy(&events);
        return status;
    }
    *events_p = events;
    return HIRL_OK;
}

void events_sync(events_t *events) {
    if (events) append_sync(&events->file);
}

void events_destroy(events_t **events) {
    if (!events || !*events) return;
    append_close(&(*events)->file);
    hirl_mem_free(*events);
    *events = NULL;
}
