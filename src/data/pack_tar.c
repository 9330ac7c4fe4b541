// Tar archives (POSIX ustar and pax, GNU; not compressed): their members are read where they lie.
// Nothing in an archive is trusted: headers need their checksums, sizes are compared with the file,
// and names are never used to open anything. Names that begin with a dot are left out. Of members
// of the same path the last counts, as it would if the archive were unpacked.
#include "data_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, EXTENSION_BYTES_MAX = 1 << 20 };

// Fields of a header block: position and size.
enum {
    NAME = 0,
    NAME_SIZE = 100,
    SIZE = 124,
    SIZE_SIZE = 12,
    SUM = 148,
    SUM_SIZE = 8,
    TYPE = 156,
    MAGIC = 257,
    PREFIX = 345,
    PREFIX_SIZE = 155
};

static const struct {
    const char *bytes;
    size_t n;
    const char *name, *remedy;
} packings[] = {
    {"\x1f\x8b", 2, "gzip", "gzip -dk"},
    {"BZh", 3, "bzip2", "bzip2 -dk"},
    {"\xfd"
     "7zXZ",
     5, "xz", "xz -dk"},
    {"\x28\xb5\x2f\xfd", 4, "zstd", "zstd -d"},
};

// One archive while it is listed.
typedef struct archive {
    const char *path, *stem; // stem: of its name, for pack%classes = 'archive'; NULL otherwise
    size_t n_stem;
    int32_t number;
    int fd;
    int64_t size, at; // at: of the header now read
    hirl_buffer_t extension;
    // What extended headers say of the next member; has_size, has_name: they do.
    char name[PATH_MAX];
    int64_t member_size;
    bool has_name, has_size, is_long, is_sparse; // is_long: the name does not fit
    int64_t n_images, n_other;
    hirl_pack_entries_t *entries;
    hirl_pack_source_t *source;
} archive_t;

bool hirl_pack_is_tar(const char *path) {
    static const char *const tails[] = {".tar",    ".tar.gz",  ".tgz",  ".tar.bz2",
                                        ".tar.xz", ".tar.zst", ".tar.Z"};
    const size_t length = strlen(path);
    for (size_t t = 0; t < sizeof tails / sizeof *tails; t++) {
        const size_t n = strlen(tails[t]);
        if (length > n && strcasecmp(path + length - n, tails[t]) == 0)
            return !hirl_pack_is_folder(path);
    }
    return false;
}

// -------------------------------------------------------------------------------------- numbers

// Octal digits between blanks; or, with its first bit set, a number of base 256.
static bool parse_number(const uint8_t *field, size_t n, int64_t *value_p) {
    uint64_t value = 0;
    if (field[0] & 0x80) {
        for (size_t i = 0; i < n; i++) {
            if (value >> 55) return false;
            value = value << 8 | (i == 0 ? field[0] & 0x7f : field[i]);
        }
        *value_p = (int64_t)value;
        return true;
    }
    size_t i = 0;
    while (i < n && field[i] == ' ') i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++)
        value = value << 3 | (uint64_t)(field[i] - '0'); // 12 digits have 36 bits
    for (; i < n; i++) {
        if (field[i] != ' ' && field[i] != '\0') return false;
    }
    *value_p = (int64_t)value;
    return true;
}

// The checksum counts its own field as blanks. Some old programs summed signed bytes.
static bool has_right_sum(const uint8_t *block) {
    int64_t wanted = -1, sum = 0, signed_sum = 0;
    if (!parse_number(block + SUM, SUM_SIZE, &wanted)) return false;
    for (int i = 0; i < BLOCK; i++) {
        const uint8_t byte = i >= SUM && i < SUM + SUM_SIZE ? ' ' : block[i];
        sum += byte;
        signed_sum += (int8_t)byte;
    }
    return wanted == sum || wanted == signed_sum;
}

static bool is_zero(const uint8_t *block) {
    for (int i = 0; i < BLOCK; i++) {
        if (block[i]) return false;
    }
    return true;
}

// --------------------------------------------------------------------------- extended headers

static void set_name(archive_t *archive, const char *name, size_t n) {
    archive->has_name = true;
    archive->is_long = n >= sizeof archive->name;
    if (archive->is_long) n = sizeof archive->name - 1;
    memcpy(archive->name, name, n);
    archive->name[n] = '\0';
}

// Records "<length> <key>=<value>\n" of a pax header; length counts all of a record.
static hirl_status_t read_pax(archive_t *archive, hirl_span_t text) {
    while (text.size > 0 && text.text[0] != '\0') {
        const char *blank = memchr(text.text, ' ', text.size);
        int64_t length = 0;
        const size_t n_digits = blank ? (size_t)(blank - text.text) : 0;
        const bool is_record =
            blank &&
            hirl_span_number((hirl_span_t){text.text, n_digits}, (int64_t)n_digits + 3,
                             (int64_t)text.size, &length) &&
            text.text[length - 1] == '\n';
        const char *key = blank ? blank + 1 : NULL;
        const char *equals = is_record ? memchr(key, '=', (size_t)length - n_digits - 1) : NULL;
        HIRL_REQUIRE(equals, HIRL_ERR_FORMAT,
                     "%s: the extended header at byte %lld is damaged: %zu bytes from its end no "
                     "record '<length> <key>=<value>' begins",
                     archive->path, (long long)archive->at, text.size);
        const hirl_span_t name = {text.text + n_digits + 1, (size_t)(equals - key)};
        const size_t skip = n_digits + 1 + name.size + 1;
        const hirl_span_t value = {text.text + skip, (size_t)length - 1 - skip};
        if (hirl_span_equals(name, "path")) {
            set_name(archive, value.text, value.size);
        } else if (hirl_span_equals(name, "size")) {
            archive->has_size = hirl_span_number(value, 0, INT64_MAX, &archive->member_size);
            HIRL_REQUIRE(archive->has_size, HIRL_ERR_FORMAT,
                         "%s: the extended header at byte %lld says size '%.*s', expected a number",
                         archive->path, (long long)archive->at,
                         (int)(value.size < 40 ? value.size : 40), value.text);
        } else if (name.size > 11 && memcmp(name.text, "GNU.sparse.", 11) == 0) {
            archive->is_sparse = true;
        }
        text.text += length;
        text.size -= (size_t)length;
    }
    return HIRL_OK;
}

// A member that says something of the next one.
static hirl_status_t read_extension(archive_t *archive, char type, int64_t size) {
    HIRL_REQUIRE(size <= EXTENSION_BYTES_MAX, HIRL_ERR_FORMAT,
                 "%s: the extended header at byte %lld has %lld bytes, at most %d", archive->path,
                 (long long)archive->at, (long long)size, EXTENSION_BYTES_MAX);
    HIRL_TRY(hirl_buffer_reserve(&archive->extension, (size_t)size + 1));
    char *text = (char *)archive->extension.data;
    HIRL_TRY(hirl_file_read_at(archive->fd, archive->path, archive->at + BLOCK,
                               archive->extension.data, (size_t)size));
    text[size] = '\0';
    if (type == 'x') return read_pax(archive, (hirl_span_t){text, (size_t)size});
    if (type == 'L') set_name(archive, text, strlen(text));
    return HIRL_OK; // 'g': settings of the whole archive; 'K': where a link leads
}

// -------------------------------------------------------------------------------------- members

static void name_member(archive_t *archive, const uint8_t *block) {
    const char *name = (const char *)block + NAME, *prefix = (const char *)block + PREFIX;
    char text[NAME_SIZE + PREFIX_SIZE + 2];
    size_t n = 0;
    // GNU's own form has other things in the place of the prefix.
    if (memcmp(block + MAGIC, "ustar\0", 6) == 0 && prefix[0]) {
        n = strnlen(prefix, PREFIX_SIZE);
        memcpy(text, prefix, n);
        text[n++] = '/';
    }
    const size_t length = strnlen(name, NAME_SIZE);
    memcpy(text + n, name, length);
    set_name(archive, text, n + length);
}

typedef enum place { PLACE_GOOD, PLACE_HIDDEN, PLACE_ABOVE } place_t;

// Takes '.', empty parts and a leading '/' out of a path.
static place_t simplify(char *path) {
    place_t place = PLACE_GOOD;
    char *out = path;
    for (const char *at = path; *at;) {
        const size_t n = strcspn(at, "/");
        const bool is_same = n == 0 || (n == 1 && at[0] == '.');
        if (n == 2 && at[0] == '.' && at[1] == '.') return PLACE_ABOVE;
        if (!is_same && at[0] == '.') place = PLACE_HIDDEN;
        if (!is_same) {
            if (out > path) *out++ = '/';
            memmove(out, at, n);
            out += n;
        }
        at += n + (at[n] == '/');
    }
    *out = '\0';
    return place;
}

static hirl_status_t skip_member(archive_t *archive, const char *reason) {
    archive->source->n_skipped++;
    return hirl_pack_note_skipped(&archive->source->skipped, archive->name, strlen(archive->name),
                                  reason);
}

static hirl_status_t add_member(archive_t *archive, char type, int64_t size) {
    char reason[64], path[2 * PATH_MAX];
    if (!hirl_pack_is_image_name(archive->name)) {
        archive->n_other++;
        return HIRL_OK;
    }
    const place_t place = simplify(archive->name);
    if (place == PLACE_HIDDEN) return HIRL_OK;
    if (place == PLACE_ABOVE) return skip_member(archive, "its path leads out of the archive");
    if (archive->is_long) return skip_member(archive, "its path is too long");
    if (type == '1' || type == '2') return skip_member(archive, "a link inside of an archive");
    if (archive->is_sparse || type == 'S') return skip_member(archive, "a sparse file");
    if (type != '0' && type != '\0' && type != '7') {
        HIRL_TRY(hirl_text_format(reason, sizeof reason, "not a file: type 0x%02x",
                                  (unsigned)(unsigned char)type));
        return skip_member(archive, reason);
    }
    if (size == 0) return skip_member(archive, "0 bytes");
    HIRL_TRY(hirl_text_format(path, sizeof path, "%.*s%s%s", (int)archive->n_stem,
                              archive->stem ? archive->stem : "", archive->stem ? "/" : "",
                              archive->name));
    if (strlen(path) >= PATH_MAX) return skip_member(archive, "its path is too long");
    hirl_pack_entry_t *entry = NULL;
    HIRL_TRY(hirl_pack_entries_add(archive->entries, path, strlen(path), &entry));
    entry->archive = archive->number;
    entry->at = archive->at + BLOCK;
    entry->size = size;
    archive->n_images++;
    return HIRL_OK;
}

// Takes up the member whose header is `block`; its bytes and padding are passed over.
static hirl_status_t read_member(archive_t *archive, const uint8_t *block) {
    int64_t size = 0;
    HIRL_REQUIRE(has_right_sum(block), HIRL_ERR_FORMAT,
                 "%s: the header at byte %lld has a wrong checksum: %s", archive->path,
                 (long long)archive->at,
                 archive->at == 0 ? "it is no tar archive"
                                  : "the archive is damaged, get it again");
    HIRL_REQUIRE(parse_number(block + SIZE, SIZE_SIZE, &size), HIRL_ERR_FORMAT,
                 "%s: the header at byte %lld has no size", archive->path, (long long)archive->at);
    const char type = (char)block[TYPE];
    const bool is_extension = type == 'x' || type == 'g' || type == 'L' || type == 'K';
    if (!is_extension && archive->has_size) size = archive->member_size;
    if (!is_extension && !archive->has_name) name_member(archive, block);
    // Links, folders and devices have no bytes, whatever their headers say.
    if (type >= '1' && type <= '6') size = 0;
    const int64_t left = archive->size - archive->at - BLOCK;
    HIRL_REQUIRE(
        size <= left, HIRL_ERR_FORMAT,
        "%s: %.200s (header at byte %lld) has %lld bytes, %lld are left: the archive is cut "
        "short, get it again",
        archive->path, is_extension ? "an extended header" : archive->name, (long long)archive->at,
        (long long)size, (long long)left);
    if (is_extension) {
        HIRL_TRY(read_extension(archive, type, size));
    } else {
        HIRL_TRY(add_member(archive, type, size));
        archive->has_name = archive->has_size = archive->is_long = archive->is_sparse = false;
    }
    archive->at += BLOCK + size;
    // At most a block, and size fits the file: no overflow.
    archive->at += (BLOCK - archive->at % BLOCK) % BLOCK;
    return HIRL_OK;
}

static hirl_status_t check_signature(const archive_t *archive) {
    uint8_t head[BLOCK] = {0};
    HIRL_TRY(hirl_file_read_at(archive->fd, archive->path, 0, head,
                               (size_t)(archive->size < BLOCK ? archive->size : BLOCK)));
    for (size_t p = 0; p < sizeof packings / sizeof *packings; p++) {
        HIRL_REQUIRE(memcmp(head, packings[p].bytes, packings[p].n) != 0, HIRL_ERR_FORMAT,
                     "%s is compressed by %s, and members are read where they lie: unpack that "
                     "first, '%s %s'",
                     archive->path, packings[p].name, packings[p].remedy, archive->path);
    }
    return HIRL_OK;
}

// Lists the members up to the block of zeros that ends an archive.
static hirl_status_t list_members(archive_t *archive, hirl_pack_progress_t *progress) {
    uint8_t block[BLOCK];
    HIRL_TRY(check_signature(archive));
    while (archive->at + BLOCK <= archive->size) {
        HIRL_TRY(hirl_pack_heed_signals());
        HIRL_TRY(hirl_file_read_at(archive->fd, archive->path, archive->at, block, BLOCK));
        if (is_zero(block)) return HIRL_OK;
        HIRL_TRY(read_member(archive, block));
        hirl_pack_progress_update(progress, archive->entries->n);
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT,
                     "%s: ends at byte %lld without the blocks of zeros that end a tar archive: it "
                     "is cut short, get it again",
                     archive->path, (long long)archive->size);
}

static hirl_status_t list_archive(const hirl_pack_cfg_t *cfg, const char *path,
                                  hirl_pack_progress_t *progress, hirl_pack_entries_t *entries,
                                  int64_t *n_other, hirl_pack_source_t *source) {
    struct stat found;
    hirl_pack_file_t *file = NULL;
    HIRL_REQUIRE(hirl_pack_is_file(path), HIRL_ERR_IO, "pack%%source: %s is not a file", path);
    HIRL_TRY(hirl_pack_add_file(source, path, &file));
    archive_t archive = {.path = path,
                         .number = (int32_t)source->n_files - 1,
                         .entries = entries,
                         .source = source,
                         .fd = open(path, O_RDONLY | O_CLOEXEC)};
    HIRL_REQUIRE(archive.fd >= 0, HIRL_ERR_IO, "pack%%source: %s: %s", path, strerror(errno));
    hirl_status_t status = HIRL_OK;
    if (fstat(archive.fd, &found) != 0)
        status = HIRL_FAIL(HIRL_ERR_IO, "pack%%source: %s: %s", path, strerror(errno));
    archive.size = file->size = (int64_t)found.st_size;
    if (strcmp(cfg->classes, "archive") == 0) {
        const char *slash = strrchr(path, '/');
        archive.stem = slash ? slash + 1 : path;
        const char *dot = strrchr(archive.stem, '.');
        archive.n_stem = dot ? (size_t)(dot - archive.stem) : strlen(archive.stem);
    }
    if (status == HIRL_OK) status = list_members(&archive, progress);
    close(archive.fd);
    hirl_buffer_reset(&archive.extension);
    *n_other += archive.n_other;
    return status;
}

static hirl_status_t list_archives(const hirl_pack_cfg_t *cfg, hirl_pack_progress_t *progress,
                                   hirl_pack_entries_t *entries, int64_t *n_other,
                                   hirl_pack_source_t *source) {
    glob_t hits = {0};
    const int answer = glob(cfg->source, GLOB_BRACE | GLOB_TILDE, NULL, &hits);
    hirl_status_t status = HIRL_OK;
    if (answer != 0 || hits.gl_pathc == 0)
        status = HIRL_FAIL(HIRL_ERR_IO, "pack%%source: no file matches %s", cfg->source);
    for (size_t i = 0; status == HIRL_OK && i < hits.gl_pathc; i++)
        status = list_archive(cfg, hits.gl_pathv[i], progress, entries, n_other, source);
    globfree(&hits);
    return status;
}

hirl_status_t hirl_pack_find_tar(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    hirl_pack_entries_t entries = {0};
    hirl_pack_progress_t progress;
    int64_t n_other = 0;
    hirl_status_t status;
    hirl_pack_progress_begin(&progress, "pack: list", 0);
    HIRL_TRY_GOTO(list_archives(cfg, &progress, &entries, &n_other, source), status, done);
    if (n_other) {
        hirl_log_root(
            HIRL_LOG_INFO,
            "pack: %lld members of %s are not called .png, .jpg, .jpeg or .webp and are left out",
            (long long)n_other, cfg->source);
    }
    if (entries.n == 0) {
        status =
            HIRL_FAIL(HIRL_ERR_FORMAT,
                      "pack%%source: %s holds no members .png, .jpg, .jpeg or .webp", cfg->source);
        goto done;
    }
    HIRL_TRY_GOTO(hirl_pack_entries_label(cfg, cfg->source, &entries, source), status, done);
    status = hirl_pack_entries_deliver(&entries, source);
done:
    hirl_pack_progress_end(&progress);
    hirl_pack_entries_reset(&entries);
    return status;
}
