/// @file data_impl.h
/// What the shard, pack and decode files share: HDF5 calls that keep the library's own text, the
/// checked index of one shard, the writer of one shard, and the sources that pack reads. For
/// src/data alone.
#ifndef HIRL_DATA_IMPL_H
#define HIRL_DATA_IMPL_H

#include "hirl/data.h"
#include "hirl/h5.h"

#include <hdf5.h>
#include <limits.h>
#include <zlib.h>

enum {
    HIRL_IMAGE_SIDE_MAX = 65500, // libjpeg's own limit; sides fit 16 bits
    HIRL_SHARD_VERSION = 1,
    HIRL_SPLIT_TEXT_MAX = 64
};
#define HIRL_IMAGE_BYTES_MAX ((size_t)1 << 30) // of a decoded image, and of an encoded one

// -------------------------------------------------------------------------------------- decode.c

/// Tells PNG and JPEG by their signature; false for anything else.
bool hirl_image_sniff(const uint8_t *bytes, size_t size, hirl_encoding_t *encoding_p);

/// Grows a buffer to `size` bytes at least; its content is lost.
hirl_status_t hirl_buffer_reserve(hirl_buffer_t *buffer, size_t size);

// -------------------------------------------------------------------------------------- shard_h5.c

/// Keeps HDF5 from printing its errors; nests. Give the result of begin to end.
typedef struct hirl_data_h5_quiet {
    H5E_auto2_t func;
    void *data;
} hirl_data_h5_quiet_t;
hirl_data_h5_quiet_t hirl_data_h5_quiet_begin(void);
void hirl_data_h5_quiet_end(hirl_data_h5_quiet_t quiet);

/// Records HDF5's innermost error text behind "<path>: <what>".
hirl_status_t hirl_data_h5_fail(const char *file, int line, const char *func, const char *path,
                                const char *what);

/// For calls that answer a negative number on failure; `path` is the file, `what` says what was
/// tried.
#define HIRL_TRY_H5(expr, path, what)                                                           \
    do {                                                                                        \
        if ((expr) < 0) return hirl_data_h5_fail(__FILE__, __LINE__, __func__, (path), (what)); \
    } while (0)
#define HIRL_TRY_H5_GOTO(expr, path, what, status, label)                               \
    do {                                                                                \
        if ((expr) < 0) {                                                               \
            (status) = hirl_data_h5_fail(__FILE__, __LINE__, __func__, (path), (what)); \
            goto label;                                                                 \
        }                                                                               \
    } while (0)

/// Reads a text attribute of the root group (fixed length) into buf. HIRL_ERR_FORMAT if absent or no
/// such text.
hirl_status_t hirl_data_h5_read_text(const hirl_h5_t *file, const char *path, const char *name,
                                     char *buf, size_t size);
/// Reads an integer attribute of the root group.
hirl_status_t hirl_data_h5_read_int(const hirl_h5_t *file, const char *path, const char *name,
                                    int64_t *value_p);
/// True for integers of 1, 2, 4 or 8 bytes that use all their bits, and have no names.
bool hirl_data_h5_is_integer(const hirl_h5_type_t *type);
hirl_status_t hirl_data_h5_write_text(hid_t file, const char *path, const char *name,
                                      const char *text);
hirl_status_t hirl_data_h5_write_int(hid_t file, const char *path, const char *name, hid_t type,
                                     int64_t value);

// ----------------------------------------------------------------------------------- shard_index.c

/// How the samples of a shard are encoded; `mixed` holds JPEG and PNG, told apart by their
/// signatures, `frames` videos.
typedef enum hirl_shard_encoding {
    HIRL_SHARD_RAW,
    HIRL_SHARD_JPEG,
    HIRL_SHARD_PNG,
    HIRL_SHARD_MIXED,
    HIRL_SHARD_FRAMES,
    HIRL_SHARD_ENCODING_COUNT
} hirl_shard_encoding_t;
const char *hirl_shard_encoding_text(hirl_shard_encoding_t encoding);

/// Label tree of a set: the classes first (label = row), then their super-classes. Rows are
/// NUL-padded to `width`.
typedef struct hirl_class_table {
    int n;
    int width;       // bytes of a row, with at least one NUL
    char *name;      // [n, width]
    int32_t *parent; // [n], -1: none; NULL: the set has no super-classes
} hirl_class_table_t;
void hirl_class_table_reset(hirl_class_table_t *table);

/// All of a shard but its images, checked; arrays belong to it.
typedef struct hirl_shard_index {
    char path[PATH_MAX];
    char split[HIRL_SPLIT_TEXT_MAX];
    hirl_shard_encoding_t encoding;
    int64_t n;
    int64_t file_size, data_pos, data_size; // bytes; data_pos counts from the beginning of the file
    int64_t n_shards;                       // of its split; 0 when the shard does not say
    int64_t *offset;                        // [n+1], relative to data_pos
    int32_t *height, *width, *channels, *label; // [n]
    uint64_t *checksum;                         // [n]
    hirl_class_table_t classes;
    int n_targets;
    int8_t *target; // [n, n_targets] or NULL: -1 absent, 0 left out of account, 1 present
} hirl_shard_index_t;

/// What a set knows of its files and stored samples. Not collective, thread-safe.
int hirl_shard_set_n_shards(const hirl_shard_set_t *set);
/// Path of shard `s`, valid until the set is closed, with its samples and their encoding.
const char *hirl_shard_set_shard_view(const hirl_shard_set_t *set, int s, int64_t *n_p,
                                      hirl_shard_encoding_t *encoding_p);
int64_t hirl_shard_set_stored_bytes(const hirl_shard_set_t *set, int64_t index);
/// False if the set was opened without &data's `verify`.
bool hirl_shard_set_checksum(const hirl_shard_set_t *set, int64_t index, uint64_t *checksum_p);

/// Reads and checks the index of one shard. Not collective. Errors: HIRL_ERR_IO, HIRL_ERR_FORMAT.
hirl_status_t hirl_shard_index_read(const hirl_h5_t *file, const char *path,
                                    hirl_shard_index_t *index);
hirl_status_t hirl_shard_index_load(const char *path, hirl_shard_index_t *index);
void hirl_shard_index_reset(hirl_shard_index_t *index);

// -------------------------------------------------------------------------------------- stage.c

typedef struct hirl_stage_file {
    const char *path; // HIRL_BORROW
    int64_t size;
} hirl_stage_file_t;

/// Brings copies of files to a folder of each node; local[i] is where this rank reads file i: the copy, or the file itself where
/// there is none (a warning). The same files on all ranks. Collective. Errors: HIRL_ERR_IO (the folder), HIRL_ERR_INTERRUPTED.
hirl_status_t hirl_stage_files(hirl_world_t *world, const char *folder,
                               const hirl_stage_file_t *file, int n, char (*local)[PATH_MAX]);

// -------------------------------------------------------------------------------------- pack_*.c

/// What becomes of an image's bytes.
typedef enum hirl_pack_made {
    HIRL_PACK_KEPT,   // as they are
    HIRL_PACK_TURNED, // without loss
    HIRL_PACK_ENCODED // decoded, turned or resized, and encoded as JPEG
} hirl_pack_made_t;

/// What is known about one input before it is written; a plain value that travels between ranks as
/// bytes.
typedef struct hirl_pack_item {
    int64_t size;      // bytes as they will be stored
    int64_t n_source;  // images: bytes of the file or member; videos: frames
    int64_t at;        // position of a member's bytes in its archive; 0: a file of its own
    int32_t archive;   // file[archive] of the source holds it
    uint64_t checksum; // images, videos: of the file, member or frames as checked; else 0
    int32_t height, width, channels; // of a frame
    int32_t label;
    int32_t encoding; // hirl_encoding_t
    int32_t is_good;  // 0: skipped
    int32_t made;     // hirl_pack_made_t
} hirl_pack_item_t;

typedef enum hirl_pack_format {
    HIRL_PACK_IDX,
    HIRL_PACK_CIFAR10,
    HIRL_PACK_CIFAR100,
    HIRL_PACK_FOLDER,
    HIRL_PACK_LIST,
    HIRL_PACK_TAR,
    HIRL_PACK_FRAMES,
    HIRL_PACK_CUB,
    HIRL_PACK_CARS,
    HIRL_PACK_SOP,
    HIRL_PACK_INSHOP,
    HIRL_PACK_VOC07,
    HIRL_PACK_FORMAT_COUNT
} hirl_pack_format_t;
const char *hirl_pack_format_text(hirl_pack_format_t format);

/// A file whose bytes [skip, skip + size) are records of a container, gzip or not; or an archive.
typedef struct hirl_pack_file {
    char path[PATH_MAX];
    int64_t skip, size; // skip <= 64
} hirl_pack_file_t;

/// An opened source: all inputs in their canonical order, the same on every rank.
typedef struct hirl_pack_source {
    const hirl_pack_cfg_t *cfg; // borrowed
    hirl_pack_format_t format;
    char root[PATH_MAX]; // folder that the names are relative to
    int64_t n;
    hirl_pack_item_t *item; // [n]
    char *name;             // paths relative to root, back to back
    int64_t *name_offset;   // [n+1]
    hirl_class_table_t classes;
    int n_targets;
    int8_t *target;      // [n, n_targets] or NULL, as in a shard
    hirl_text_t skipped; // "path<TAB>reason" lines in canonical order, the same on every rank
    int64_t n_skipped;
    hirl_pack_file_t *file; // of records, or archives
    int64_t n_files;
    // IDX, CIFAR: the records of all files, one copy per node
    hirl_par_shared_t *shared;
    const uint8_t *content;
    int64_t stride;      // bytes from one record to the next; 0: the inputs are images
    int64_t label_bytes; // ahead of the pixels of a record
    bool is_planar;      // [C, H, W]; stored as [H, W, C]
} hirl_pack_source_t;

/// Finds and reads the containers or lists the folder, and checks every input. Collective.
hirl_status_t hirl_pack_source_open(hirl_world_t *world, const hirl_pack_cfg_t *cfg,
                                    hirl_pack_source_t *source);
void hirl_pack_source_reset(hirl_pack_source_t *source);

/// What one thread needs to read inputs; all zero before its first use.
typedef struct hirl_pack_scratch {
    hirl_buffer_t encoded, decoded, turned, resized, made;
    hirl_augment_t *augment;
    int archive_fd; // open if archive_path is not empty
    char archive_path[PATH_MAX];
} hirl_pack_scratch_t;
void hirl_pack_scratch_reset(hirl_pack_scratch_t *scratch);

/// An image as it is to be stored.
typedef struct hirl_pack_stored {
    const uint8_t *bytes; // the input's own, or in the scratch space
    size_t size;
    int height, width, channels;
    hirl_encoding_t encoding;
    hirl_pack_made_t made;
} hirl_pack_stored_t;

/// Turns and resizes an encoded image as pack%upright and pack%max_side say; the same bytes each time.
/// `sample` lies in scratch->encoded, its pixels in scratch->decoded (NULL: they are decoded when they
/// are needed).
hirl_status_t hirl_pack_make_image(const hirl_pack_cfg_t *cfg, const hirl_sample_t *sample,
                                   const hirl_image_t *image, hirl_pack_scratch_t *scratch,
                                   hirl_pack_stored_t *stored_p);

/// The orientation in a JPEG's EXIF data, 1 to 8; 1 if it has none. *at_p: position of its value, 0: none;
/// *is_big_endian_p: how the value is written. Reads no byte outside, whatever the file says.
int hirl_exif_orientation(const uint8_t *bytes, size_t size, size_t *at_p, bool *is_big_endian_p);

/// Turns an image as an orientation wants it shown; `out` has room for it, and has its sides swapped
/// from 5 on.
void hirl_pack_turn(const hirl_image_t *image, int orientation, uint8_t *out);

/// Copies input `i` as it is to be stored: item[i].size bytes. Not collective, thread-safe.
hirl_status_t hirl_pack_source_read(const hirl_pack_source_t *source, int64_t i,
                                    hirl_pack_scratch_t *scratch, uint8_t *out);

// One per kind of source, for rank 0 alone; each fills root, n, item (as far as it can without
// decoding), names, classes, skipped and files of `source`, whose format is set.
hirl_status_t hirl_pack_find_idx(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_cifar(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_folder(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_list(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_tar(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_frames(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);

// pack_walk.c: folders as their file system lists them.
typedef hirl_status_t (*hirl_pack_entry_visit_t)(void *ctx, const char *name, bool is_folder);
/// Calls visit for each name of a folder that does not begin with a dot. Texts of errors lack its path.
hirl_status_t hirl_pack_list(const char *path, hirl_pack_entry_visit_t visit, void *ctx);

typedef struct hirl_pack_walk {
    const char *root;
    void *ctx;
    /// `path` below the root; *is_taken_p (false) if the file is of the kind that is looked for.
    hirl_status_t (*file)(void *ctx, const char *path, const char *name, bool *is_taken_p);
    /// After all in it: how many files of it were taken, and how many folders it holds.
    hirl_status_t (*folder)(void *ctx, const char *path, bool is_root, int64_t n_taken,
                            int64_t n_folders);
} hirl_pack_walk_t;
/// Goes through the root and all folders below it.
hirl_status_t hirl_pack_walk(const hirl_pack_walk_t *walk);

// pack_frames.c: an input is a folder of frames, at `folder`.

/// Reads all frames and decodes each; fills the item. The failure's text is the reason why it is
/// skipped.
hirl_status_t hirl_pack_check_video(const char *folder, hirl_pack_scratch_t *scratch,
                                    hirl_pack_item_t *item);
/// Reads all frames again, as they are to be stored, to scratch->encoded.
hirl_status_t hirl_pack_read_video(const char *folder, const hirl_pack_item_t *item,
                                   hirl_pack_scratch_t *scratch, int64_t *size_p);

/// Opens a file of an image whose size is sane. Texts of errors lack its path.
hirl_status_t hirl_pack_open_image(const char *path, int *fd_p, int64_t *size_p);

// pack_layouts.c: data sets as they are published; each looks in pack%source and in the folder that
// its archive makes.
hirl_status_t hirl_pack_find_cub(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_cars(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_sop(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_inshop(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
hirl_status_t hirl_pack_find_voc07(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);

// Whether `path` (a folder or a file) is of that kind, by its usual names. CIFAR answers with the
// format.
bool hirl_pack_is_idx(const char *path);
bool hirl_pack_is_tar(const char *path);
bool hirl_pack_is_cifar(const char *path, hirl_pack_format_t *format_p);

/// Which of a data set's two usual splits is meant: 'val' and 'test' are the same. HIRL_ERR_DECK
/// for any other name than these and 'train'.
hirl_status_t hirl_pack_split_is_test(const hirl_pack_cfg_t *cfg, bool *is_test_p);

/// Appends a file to those of the source.
hirl_status_t hirl_pack_add_file(hirl_pack_source_t *source, const char *path,
                                 hirl_pack_file_t **file_p);

/// Allocates item and names for the containers' records: input i of file f is called "<file
/// name>#<i>".
hirl_status_t hirl_pack_allocate_records(hirl_pack_source_t *source);

// -------------------------------------------------------------------------------- pack_entries.c

/// One input that rank 0 has found.
typedef struct hirl_pack_entry {
    int64_t path;                  // position in the entries' text
    int32_t length, folder_length; // of the whole path, of the part before its last slash
    int32_t label;
    int32_t archive; // file[archive] of the source has its bytes [at, at + size); at 0: none
    int64_t at, size;
    bool is_folder; // a folder without images: it names a class, and is no input
} hirl_pack_entry_t;

/// A growing list of inputs.
typedef struct hirl_pack_entries {
    char *text; // relative paths, NUL-terminated
    int64_t n_text, text_capacity;
    hirl_pack_entry_t *entry;
    int64_t n, capacity;
} hirl_pack_entries_t;

/// True for names that end in .png, .jpg, .jpeg or .webp, in letters of any size.
bool hirl_pack_is_image_name(const char *name);

/// Appends a path relative to the source, without label; valid until the next call.
hirl_status_t hirl_pack_entries_add(hirl_pack_entries_t *entries, const char *path, size_t length,
                                    hirl_pack_entry_t **entry_p);

/// Sorts the entries and labels them by their folders, as pack%classes says; fills the class table.
/// Those outside of all folders, where others have one, are noted as skipped. `place` names the source
/// in messages.
hirl_status_t hirl_pack_entries_label(const hirl_pack_cfg_t *cfg, const char *place,
                                      hirl_pack_entries_t *entries, hirl_pack_source_t *source);

/// Hands the entries to the source as its items, in their order.
hirl_status_t hirl_pack_entries_deliver(const hirl_pack_entries_t *entries,
                                        hirl_pack_source_t *source);
void hirl_pack_entries_reset(hirl_pack_entries_t *entries);

/// Grows an array to `needed` items of `size` bytes at least.
hirl_status_t hirl_pack_grow(void *array_p, int64_t *capacity, int64_t needed, size_t size);

// ----------------------------------------------------------------------------------- pack_text.c

/// A piece of a text; not terminated.
typedef struct hirl_span {
    char *text;
    size_t size;
} hirl_span_t;
int hirl_span_compare(hirl_span_t a, hirl_span_t b);
bool hirl_span_equals(hirl_span_t span, const char *text);
/// The whole span as a decimal integer of at most `most`; false if it is none.
bool hirl_span_number(hirl_span_t span, int64_t least, int64_t most, int64_t *value_p);

/// A text file in memory, read line by line; lines may end in CR LF, a byte-order mark is passed over.
typedef struct hirl_lines {
    const char *path; // borrowed
    char *text;
    size_t size, at;
    int64_t number; // of the line given last, from 1
} hirl_lines_t;
/// Errors: HIRL_ERR_IO, HIRL_ERR_FORMAT (it holds NUL bytes, or is too large).
hirl_status_t hirl_lines_open(HIRL_BORROW const char *path, hirl_lines_t *lines);
void hirl_lines_close(hirl_lines_t *lines);
/// The next line that is not empty, without blanks at its ends; false at the end.
bool hirl_lines_next(hirl_lines_t *lines, hirl_span_t *line_p);
/// Splits a line at its last blank; false if it has none.
bool hirl_span_split_last(hirl_span_t line, hirl_span_t *before_p, hirl_span_t *after_p);
/// Takes the next word off a line; false if there is none.
bool hirl_span_take_word(hirl_span_t *line, hirl_span_t *word_p);

/// Reads the next record of comma-separated values (RFC 4180); fields beyond `most` are left out, empty
/// lines passed over. *n_p is 0 at the end. Fields are unquoted where they lie. Errors: HIRL_ERR_FORMAT
/// with file and line.
hirl_status_t hirl_csv_next(hirl_lines_t *lines, hirl_span_t *field, int most, int *n_p);

// ------------------------------------------------------------------------------------ pack_mat.c

/// Bytes of a MATLAB 5 file, or of what was unpacked from it.
typedef struct hirl_mat_part {
    const uint8_t *bytes;
    size_t size;
} hirl_mat_part_t;

enum { HIRL_MAT_CELL = 1, HIRL_MAT_STRUCT = 2, HIRL_MAT_CHAR = 4 };

/// An array of a MATLAB file; valid until that is closed.
typedef struct hirl_mat_array {
    int class; // HIRL_MAT_..., or that of numbers
    int64_t n; // items
    hirl_span_t name;
    hirl_mat_part_t rest; // its items: of a cell arrays, of a struct arrays behind its names
} hirl_mat_array_t;

typedef struct hirl_mat hirl_mat_t;

/// Reads a MATLAB 5 file. Errors, here and below: HIRL_ERR_IO, HIRL_ERR_FORMAT (no such file, or damaged).
hirl_status_t hirl_mat_open(const char *path, hirl_mat_t **mat_p);
void hirl_mat_close(hirl_mat_t **mat);
/// Finds a variable.
hirl_status_t hirl_mat_find(hirl_mat_t *mat, const char *name, hirl_mat_array_t *array,
                            bool *is_there_p);
/// Takes the next array off the items of a cell or struct.
hirl_status_t hirl_mat_take_array(const hirl_mat_t *mat, hirl_mat_part_t *rest,
                                  hirl_mat_array_t *array);
/// Takes the names of its fields off a struct: texts of `width` bytes, with a NUL if they are shorter.
hirl_status_t hirl_mat_fields(const hirl_mat_t *mat, hirl_mat_array_t *array,
                              hirl_mat_part_t *names, size_t *width_p);
/// The value of an array of one whole number.
hirl_status_t hirl_mat_number(const hirl_mat_t *mat, const hirl_mat_array_t *array,
                              int64_t *value_p);
/// A text, NUL-terminated.
hirl_status_t hirl_mat_text(const hirl_mat_t *mat, const hirl_mat_array_t *array, char *buf,
                            size_t size);

// --------------------------------------------------------------------------------- pack_select.c

/// Gives inputs the labels of pack%labels. Rank 0 alone.
hirl_status_t hirl_pack_apply_labels(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);
/// Keeps the inputs that pack%subset names. Rank 0 alone.
hirl_status_t hirl_pack_apply_subset(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source);

/// Keeps the inputs that are wanted [n]. Images that are not are never opened; records of containers
/// stay where they are.
void hirl_pack_keep_wanted(hirl_pack_source_t *source, const bool *is_wanted);

enum {
    HIRL_CLASSES_MAX = 10000000, // of shards
    HIRL_TARGETS_MAX = 65536     // classes of samples that can have several
};

/// Builds a class table of `n` names.
hirl_status_t hirl_pack_make_classes(const char *const *names, int n, hirl_class_table_t *classes);

/// Reads exactly `n` bytes of a file that is gzip or not. HIRL_ERR_FORMAT if it is damaged or too
/// short.
hirl_status_t hirl_pack_inflate(gzFile stream, const char *path, int64_t n, uint8_t *out);
/// Checks that a file ends here, after `n` bytes; reading to the end makes zlib verify its
/// checksum.
hirl_status_t hirl_pack_inflate_end(gzFile stream, const char *path, int64_t n);

bool hirl_pack_is_folder(const char *path);
bool hirl_pack_is_file(const char *path);

/// Appends one line to `skipped`; control characters become '?'.
hirl_status_t hirl_pack_note_skipped(hirl_text_t *skipped, const char *name, size_t name_size,
                                     const char *reason);

/// HIRL_ERR_INTERRUPTED once this rank has caught a signal that cancels. Not collective, thread-safe.
hirl_status_t hirl_pack_heed_signals(void);

/// Progress of a phase on rank 0; a text on a terminal, a line every ten seconds elsewhere.
typedef struct hirl_pack_progress {
    const char *what; // "pack train: check"
    int64_t total;    // of this rank; 0: unknown
    double begun, shown;
} hirl_pack_progress_t;
void hirl_pack_progress_begin(hirl_pack_progress_t *progress, HIRL_BORROW const char *what,
                              int64_t total);
void hirl_pack_progress_update(hirl_pack_progress_t *progress, int64_t n_done);
void hirl_pack_progress_end(hirl_pack_progress_t *progress);

// ----------------------------------------------------------------------------------- shard_write.c

/// What the attributes of a shard say besides its samples.
typedef struct hirl_shard_header {
    const char *split;
    const char *taken_from; // split this one was taken from, or NULL
    int64_t number, n_shards, n_split_samples;
    const hirl_pack_cfg_t *cfg;
} hirl_shard_header_t;

/// A number that two shards share if and, as far as a hash of 64 bits goes, only if their bytes are the
/// same. Not collective.
hirl_status_t hirl_shard_fingerprint(const hirl_shard_header_t *header,
                                     const hirl_pack_source_t *source, const int64_t *order,
                                     int64_t n, uint64_t *fingerprint_p);

/// Writes inputs order[0..n) of the source as one shard to `path` and brings it to disk. Not
/// collective. HIRL_ERR_INTERRUPTED when a signal cancels.
hirl_status_t hirl_shard_write(const char *path, const hirl_shard_header_t *header,
                               const hirl_pack_source_t *source, const int64_t *order, int64_t n,
                               int n_threads, hirl_pack_progress_t *progress, int64_t *n_done);

#endif
