// Writes one shard. Its bytes depend on the samples, their order and the header alone: no times are
// kept, and nothing depends on ranks or threads. Inputs are read in blocks by several threads; HDF5
// is called by the calling thread only. /data begins at a page, so that a mapping of the file
// aligns it.
#include "data_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK_BYTES = 16 << 20, PAGE_BYTES = 4096, ALIGN_FROM_BYTES = 65536 };

// What is written beside the images; all of it in the order of the shard.
typedef struct columns {
    int64_t *offset, *name_offset; // [n+1]
    int32_t *height, *width, *channels, *label;
    uint64_t *checksum;
    char *name;
    int8_t *target; // [n, n_targets], or NULL
} columns_t;

static void columns_reset(columns_t *columns) {
    hirl_mem_free(columns->offset);
    hirl_mem_free(columns->name_offset);
    hirl_mem_free(columns->height);
    hirl_mem_free(columns->width);
    hirl_mem_free(columns->channels);
    hirl_mem_free(columns->label);
    hirl_mem_free(columns->checksum);
    hirl_mem_free(columns->name);
    hirl_mem_free(columns->target);
}

// Everything but the checksums, which are made while the images are copied.
static hirl_status_t columns_fill(columns_t *columns, const hirl_pack_source_t *source,
                                  const int64_t *order, int64_t n) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n + 1, &columns->offset));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n + 1, &columns->name_offset));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &columns->height));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &columns->width));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &columns->channels));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &columns->label));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &columns->checksum));
    for (int64_t i = 0; i < n; i++) {
        const hirl_pack_item_t *item = &source->item[order[i]];
        columns->offset[i + 1] = columns->offset[i] + item->size;
        columns->height[i] = item->height;
        columns->width[i] = item->width;
        columns->channels[i] = item->channels;
        columns->label[i] = item->label;
        const int64_t *name = source->name_offset + order[i];
        columns->name_offset[i + 1] = columns->name_offset[i] + name[1] - name[0];
    }
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, columns->name_offset[n], &columns->name));
    for (int64_t i = 0; i < n; i++) {
        int64_t at = columns->name_offset[i];
        memcpy(columns->name + at, source->name + source->name_offset[order[i]],
               (size_t)(columns->name_offset[i + 1] - at));
    }
    if (!source->target) return HIRL_OK;
    const int64_t n_targets = source->n_targets;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n * n_targets, &columns->target));
    for (int64_t i = 0; i < n; i++)
        memcpy(columns->target + i * n_targets, source->target + order[i] * n_targets,
               (size_t)n_targets);
    return HIRL_OK;
}

static hirl_shard_encoding_t common_encoding(const hirl_pack_source_t *source, const int64_t *order,
                                             int64_t n) {
    int32_t first = source->item[order[0]].encoding;
    for (int64_t i = 1; i < n; i++) {
        if (source->item[order[i]].encoding != first) return HIRL_SHARD_MIXED;
    }
    switch (first) {
        case HIRL_ENCODING_RAW: return HIRL_SHARD_RAW;
        case HIRL_ENCODING_JPEG: return HIRL_SHARD_JPEG;
        case HIRL_ENCODING_PNG: return HIRL_SHARD_PNG;
        case HIRL_ENCODING_FRAMES: return HIRL_SHARD_FRAMES;
        default: return HIRL_SHARD_MIXED;
    }
}

// -------------------------------------------------------------------------------------- objects

// One data set: all are created first, and written when HDF5 has put their descriptions on disk.
typedef struct object {
    const char *name;
    hid_t stored, given; // types
    int64_t n;
    const void *values; // NULL: written block by block
    hid_t id;
    int64_t n_columns; // 0: of one dimension
} object_t;

enum {
    OFFSET,
    HEIGHT,
    WIDTH,
    CHANNELS,
    LABEL,
    NAME,
    NAME_OFFSET,
    DATA,
    CHECKSUM,
    CLASS,
    PARENT,
    TARGET,
    N_OBJECTS
};

static hirl_status_t create_object(hid_t file, const char *path, object_t *object) {
    const hsize_t dims[] = {(hsize_t)object->n, (hsize_t)object->n_columns};
    hid_t space = H5Screate_simple(object->n_columns ? 2 : 1, dims, NULL);
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(plist, H5D_CONTIGUOUS);
    H5Pset_fill_time(plist, H5D_FILL_TIME_NEVER);
    H5Pset_alloc_time(plist, H5D_ALLOC_TIME_EARLY);
    H5Pset_obj_track_times(plist, false);
    object->id =
        H5Dcreate2(file, object->name, object->stored, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    hirl_status_t status = HIRL_OK;
    // Asked for at once: each further call of HDF5 would forget the cause.
    HIRL_TRY_H5_GOTO(object->id, path, object->name, status, done);
done:
    H5Pclose(plist);
    H5Sclose(space);
    return status;
}

static hirl_status_t write_object(const char *path, const object_t *object) {
    HIRL_TRY_H5(H5Dwrite(object->id, object->given, H5S_ALL, H5S_ALL, H5P_DEFAULT, object->values),
                path, object->name);
    return HIRL_OK;
}

static const char *classes_text(const hirl_pack_cfg_t *cfg) {
    return cfg->classes[0] ? cfg->classes : "leaf";
}

static const char *side_text(const hirl_pack_cfg_t *cfg) {
    return cfg->side[0] ? cfg->side : "longer";
}

static hirl_status_t write_attributes(hid_t file, const char *path,
                                      const hirl_shard_header_t *header, int64_t n,
                                      hirl_shard_encoding_t encoding, const char *format) {
    const hirl_pack_cfg_t *cfg = header->cfg;
    HIRL_TRY(hirl_data_h5_write_text(file, path, "format", "hirl-shard"));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "version", H5T_STD_I32LE, HIRL_SHARD_VERSION));
    HIRL_TRY(hirl_data_h5_write_text(file, path, "split", header->split));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "n_samples", H5T_STD_I64LE, n));
    HIRL_TRY(hirl_data_h5_write_text(file, path, "encoding", hirl_shard_encoding_text(encoding)));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "number", H5T_STD_I64LE, header->number));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "n_shards", H5T_STD_I64LE, header->n_shards));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "n_split_samples", H5T_STD_I64LE,
                                    header->n_split_samples));
    HIRL_TRY(hirl_data_h5_write_text(file, path, "source", cfg->source));
    HIRL_TRY(hirl_data_h5_write_text(file, path, "source_format", format));
    HIRL_TRY(hirl_data_h5_write_text(file, path, "classes", classes_text(cfg)));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "max_side", H5T_STD_I64LE, cfg->max_side));
    HIRL_TRY(hirl_data_h5_write_text(file, path, "side", side_text(cfg)));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "quality", H5T_STD_I64LE, cfg->quality));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "is_upright", H5T_STD_I32LE, cfg->upright));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "seed", H5T_STD_I64LE, cfg->seed));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "is_shuffled", H5T_STD_I32LE, cfg->shuffle));
    HIRL_TRY(hirl_data_h5_write_int(file, path, "n_holdout", H5T_STD_I64LE, cfg->n_holdout));
    if (header->taken_from)
        HIRL_TRY(hirl_data_h5_write_text(file, path, "taken_from", header->taken_from));
    return hirl_data_h5_write_text(file, path, "software", hirl_build_info_text());
}

// -------------------------------------------------------------------------------------- images

// Reads inputs order[from..to) to their places in `block`, and makes their checksums.
static hirl_status_t read_block(const hirl_pack_source_t *source, const int64_t *order,
                                int64_t from, int64_t to, const columns_t *columns, int n_threads,
                                hirl_pack_scratch_t *scratch, uint8_t *block) {
    hirl_status_t status = HIRL_OK;
    int64_t failed = INT64_MAX;
    char text[2048] = ""; // failures are recorded per thread
#pragma omp parallel for schedule(dynamic, 8) num_threads(n_threads)
    for (int64_t i = from; i < to; i++) {
        uint8_t *out = block + (columns->offset[i] - columns->offset[from]);
        hirl_status_t mine =
            hirl_pack_source_read(source, order[i], &scratch[omp_get_thread_num()], out);
        if (mine == HIRL_OK) {
            columns->checksum[i] =
                hirl_hash64(out, (size_t)(columns->offset[i + 1] - columns->offset[i]));
            continue;
        }
#pragma omp critical(hirl_pack_read_failed)
        if (i < failed) {
            failed = i;
            status = mine;
            (void)hirl_text_format(text, sizeof text, "%s", hirl_error_text_view());
        }
    }
    return status == HIRL_OK ? HIRL_OK : HIRL_FAIL(status, "%s", text);
}

static hirl_status_t write_slab(hid_t object, const char *path, int64_t from, int64_t n,
                                const uint8_t *block) {
    hsize_t start = (hsize_t)from, count = (hsize_t)n;
    hid_t space = H5Dget_space(object), memory = H5Screate_simple(1, &count, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &count, NULL);
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_H5_GOTO(H5Dwrite(object, H5T_NATIVE_UINT8, memory, space, H5P_DEFAULT, block), path,
                     "/data", status, done);
done:
    H5Sclose(memory);
    H5Sclose(space);
    return status;
}

static hirl_status_t write_images(hid_t object, const char *path, const hirl_pack_source_t *source,
                                  const int64_t *order, int64_t n, const columns_t *columns,
                                  int n_threads, hirl_pack_progress_t *progress, int64_t *n_done) {
    hirl_buffer_t block = {0};
    hirl_pack_scratch_t *scratch = NULL; // [n_threads]
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_threads, &scratch));
    for (int64_t from = 0, to; from < n; from = to) {
        to = from + 1;
        while (to < n && columns->offset[to + 1] - columns->offset[from] <= BLOCK_BYTES) to++;
        int64_t bytes = columns->offset[to] - columns->offset[from];
        HIRL_TRY_GOTO(hirl_pack_heed_signals(), status, done);
        HIRL_TRY_GOTO(hirl_buffer_reserve(&block, (size_t)bytes), status, done);
        HIRL_TRY_GOTO(read_block(source, order, from, to, columns, n_threads, scratch, block.data),
                      status, done);
        HIRL_TRY_GOTO(write_slab(object, path, columns->offset[from], bytes, block.data), status,
                      done);
        *n_done += to - from;
        hirl_pack_progress_update(progress, *n_done);
    }
done:
    for (int t = 0; t < n_threads; t++) hirl_pack_scratch_reset(&scratch[t]);
    hirl_mem_free(scratch);
    hirl_buffer_reset(&block);
    return status;
}

// -------------------------------------------------------------------------------------- all

// HDF5 cannot close a file that it cannot write to: it crashes at the program's end over a handle
// that it kept. So its own blocks are written while the file is small, and when the disk is full
// after that, only our arrays fail.
static hirl_status_t create_objects(hid_t file, const char *path, object_t *object) {
    for (int i = 0; i < N_OBJECTS; i++) {
        if (object[i].name) HIRL_TRY(create_object(file, path, &object[i]));
    }
    HIRL_TRY_H5(H5Fflush(file, H5F_SCOPE_GLOBAL), path, "cannot write the shard");
    return HIRL_OK;
}

static hirl_status_t write_all(hid_t file, const char *path, const hirl_shard_header_t *header,
                               const hirl_pack_source_t *source, const int64_t *order, int64_t n,
                               int n_threads, hirl_pack_progress_t *progress, int64_t *n_done) {
    columns_t columns = {0};
    const hirl_class_table_t *classes = &source->classes;
    hid_t i32 = H5T_STD_I32LE, i64 = H5T_STD_I64LE, u8 = H5T_STD_U8LE;
    hid_t text = H5Tcopy(H5T_C_S1);
    hirl_status_t status = HIRL_OK;
    HIRL_TRY_GOTO(columns_fill(&columns, source, order, n), status, done);
    hirl_shard_encoding_t encoding = common_encoding(source, order, n);
    HIRL_TRY_GOTO(
        write_attributes(file, path, header, n, encoding, hirl_pack_format_text(source->format)),
        status, done);
    object_t object[N_OBJECTS] = {
        [OFFSET] = {"/offset", i64, H5T_NATIVE_INT64, n + 1, columns.offset, 0, 0},
        [HEIGHT] = {"/height", i32, H5T_NATIVE_INT32, n, columns.height, 0, 0},
        [WIDTH] = {"/width", i32, H5T_NATIVE_INT32, n, columns.width, 0, 0},
        [CHANNELS] = {"/channels", i32, H5T_NATIVE_INT32, n, columns.channels, 0, 0},
        [LABEL] = {"/label", i32, H5T_NATIVE_INT32, n, columns.label, 0, 0},
        [NAME] = {"/name", u8, H5T_NATIVE_UINT8, columns.name_offset[n], columns.name, 0, 0},
        [NAME_OFFSET] = {"/name_offset", i64, H5T_NATIVE_INT64, n + 1, columns.name_offset, 0, 0},
        [DATA] = {"/data", u8, H5T_NATIVE_UINT8, columns.offset[n], NULL, 0, 0},
        [CHECKSUM] = {"/checksum", H5T_STD_U64LE, H5T_NATIVE_UINT64, n, columns.checksum, 0, 0},
    };
    if (classes->n > 0) {
        H5Tset_size(text, (size_t)classes->width);
        H5Tset_cset(text, H5T_CSET_UTF8);
        object[CLASS] = (object_t){"/class_name", text, text, classes->n, classes->name, 0, 0};
    }
    if (classes->parent) {
        object[PARENT] =
            (object_t){"/class_parent", i32, H5T_NATIVE_INT32, classes->n, classes->parent, 0, 0};
    }
    if (columns.target) {
        object[TARGET] = (object_t){"/target", H5T_STD_I8LE,     H5T_NATIVE_INT8, n, columns.target,
                                    0,         source->n_targets};
    }
    HIRL_TRY_GOTO(create_objects(file, path, object), status, done);
    // The checksums are made from the images as they go by.
    HIRL_TRY_GOTO(write_images(object[DATA].id, path, source, order, n, &columns, n_threads,
                               progress, n_done),
                  status, done);
    for (int i = 0; i < N_OBJECTS; i++) {
        if (object[i].values) HIRL_TRY_GOTO(write_object(path, &object[i]), status, done);
    }
done:
    H5Tclose(text);
    columns_reset(&columns);
    return status;
}

// ----------------------------------------------------------------------------------- fingerprint

static uint64_t hash_of(const void *data, int64_t n, size_t size) {
    return n > 0 ? hirl_hash64(data, (size_t)n * size) : 0;
}

// Of what write_attributes writes.
static hirl_status_t hash_header(const hirl_shard_header_t *header,
                                 const hirl_pack_source_t *source, uint64_t *hash_p) {
    const hirl_pack_cfg_t *cfg = header->cfg;
    hirl_text_t text = {0};
    HIRL_TRY(hirl_text_append(
        &text, "%d\n%s\n%s\n%lld %lld %lld\n%s\n%s\n%s\n%lld %d %lld %d %lld\n", HIRL_SHARD_VERSION,
        header->split, header->taken_from ? header->taken_from : "", (long long)header->number,
        (long long)header->n_shards, (long long)header->n_split_samples, cfg->source,
        hirl_pack_format_text(source->format), classes_text(cfg), (long long)cfg->seed,
        cfg->shuffle, (long long)cfg->n_holdout, source->is_planar, (long long)source->stride));
    hirl_status_t status =
        hirl_text_append(&text, "%lld %s %lld %d\n%s", (long long)cfg->max_side, side_text(cfg),
                         (long long)cfg->quality, cfg->upright, hirl_build_info_text());
    if (status != HIRL_OK) {
        hirl_text_reset(&text);
        return status;
    }
    *hash_p = hirl_hash64(text.data, text.size);
    hirl_text_reset(&text);
    return HIRL_OK;
}

hirl_status_t hirl_shard_fingerprint(const hirl_shard_header_t *header,
                                     const hirl_pack_source_t *source, const int64_t *order,
                                     int64_t n, uint64_t *fingerprint_p) {
    columns_t columns = {0};
    const hirl_class_table_t *classes = &source->classes;
    uint64_t hash_of_header;
    hirl_status_t status;
    HIRL_TRY(hash_header(header, source, &hash_of_header));
    HIRL_TRY_GOTO(columns_fill(&columns, source, order, n), status, done);
    // What an image file held was noted when it was checked.
    for (int64_t i = 0; i < n; i++)
        columns.checksum[i] =
            source->stride > 0
                ? hash_of(source->content + order[i] * source->stride, source->stride, 1)
                : source->item[order[i]].checksum;
    const uint64_t parts[] = {
        hash_of_header,
        hash_of(columns.offset, n + 1, sizeof *columns.offset),
        hash_of(columns.name_offset, n + 1, sizeof *columns.name_offset),
        hash_of(columns.name, columns.name_offset[n], 1),
        hash_of(columns.height, n, sizeof *columns.height),
        hash_of(columns.width, n, sizeof *columns.width),
        hash_of(columns.channels, n, sizeof *columns.channels),
        hash_of(columns.label, n, sizeof *columns.label),
        hash_of(columns.checksum, n, sizeof *columns.checksum),
        hash_of(classes->name, (int64_t)classes->n * classes->width, 1),
        classes->parent ? hash_of(classes->parent, classes->n, sizeof *classes->parent) : 0,
        columns.target ? hash_of(columns.target, n * source->n_targets, 1) : 0,
    };
    *fingerprint_p = hirl_hash64(parts, sizeof parts);
    status = HIRL_OK;
done:
    columns_reset(&columns);
    return status;
}

// ------------------------------------------------------------------------------------------ all

static hirl_status_t bring_to_disk(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    HIRL_REQUIRE(fd >= 0, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    int answer = fsync(fd), cause = errno;
    close(fd);
    HIRL_REQUIRE(answer == 0, HIRL_ERR_IO, "%s: cannot bring it to disk: %s", path,
                 strerror(cause));
    return HIRL_OK;
}

hirl_status_t hirl_shard_write(const char *path, const hirl_shard_header_t *header,
                               const hirl_pack_source_t *source, const int64_t *order, int64_t n,
                               int n_threads, hirl_pack_progress_t *progress, int64_t *n_done) {
    hirl_data_h5_quiet_t quiet = hirl_data_h5_quiet_begin();
    hid_t create = H5Pcreate(H5P_FILE_CREATE), access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_obj_track_times(create, false);
    // Since 1.8 HDF5's own blocks can carry checksums, so that damage is an error and no crash.
    // Few links and attributes stay in one such block.
    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    H5Pset_link_phase_change(create, N_OBJECTS, 0);
    H5Pset_attr_phase_change(create, 32, 0);
    H5Pset_alignment(access, ALIGN_FROM_BYTES, PAGE_BYTES);
    H5Pset_fclose_degree(access, H5F_CLOSE_STRONG);
    H5Pset_sieve_buf_size(access, 0); // write at once, and fail at once
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, create, access);
    hirl_status_t status = HIRL_OK;
    if (file < 0) {
        status = hirl_data_h5_fail(__FILE__, __LINE__, __func__, path, "cannot create the shard");
    } else {
        status = write_all(file, path, header, source, order, n, n_threads, progress, n_done);
        // Closes all objects as well.
        if (H5Fclose(file) < 0 && status == HIRL_OK) {
            status =
                hirl_data_h5_fail(__FILE__, __LINE__, __func__, path, "cannot close the shard");
        }
    }
    H5Pclose(create);
    H5Pclose(access);
    hirl_data_h5_quiet_end(quiet);
    HIRL_TRY(status);
    return bring_to_disk(path);
}
