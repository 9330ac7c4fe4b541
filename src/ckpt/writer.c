// Checkpoints off the critical path: snapshots of the state, and the thread that writes them one after the other.
#include "ckpt_impl.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

// ------------------------------------------------------------------------------------ snapshot

struct hirl_ckpt_snapshot {
    hirl_ckpt_meta_t meta; // its texts are the snapshot's
    hirl_ckpt_array_t *arrays;
    int n_arrays, n_room;
};

static hirl_status_t copy_text(const char *text, const char **copy_p) {
    void *copy = NULL;
    const size_t size = strlen(text) + 1;
    HIRL_TRY(hirl_mem_alloc(HIRL_MEM_GENERAL, size, &copy));
    memcpy(copy, text, size);
    *copy_p = copy;
    return HIRL_OK;
}

static void free_const(const void *memory) { hirl_mem_free((void *)(uintptr_t)memory); }

hirl_status_t hirl_ckpt_snapshot_create(const hirl_ckpt_meta_t *meta,
                                        hirl_ckpt_snapshot_t **snapshot_p) {
    hirl_ckpt_snapshot_t *snapshot = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &snapshot));
    snapshot->meta = *meta;
    snapshot->meta.method = snapshot->meta.hierarchy = snapshot->meta.deck = NULL;
    HIRL_TRY_GOTO(copy_text(meta->method, &snapshot->meta.method), status, err);
    HIRL_TRY_GOTO(copy_text(meta->hierarchy, &snapshot->meta.hierarchy), status, err);
    HIRL_TRY_GOTO(copy_text(meta->deck, &snapshot->meta.deck), status, err);
    *snapshot_p = snapshot;
    return HIRL_OK;
err:
    hirl_ckpt_snapshot_destroy(&snapshot);
    return status;
}

void hirl_ckpt_snapshot_destroy(hirl_ckpt_snapshot_t **snapshot) {
    if (!snapshot || !*snapshot) return;
    hirl_ckpt_snapshot_t *it = *snapshot;
    for (int i = 0; i < it->n_arrays; i++) {
        free_const(it->arrays[i].name);
        free_const(it->arrays[i].data);
    }
    hirl_mem_free(it->arrays);
    free_const(it->meta.method);
    free_const(it->meta.hierarchy);
    free_const(it->meta.deck);
    hirl_mem_free(it);
    *snapshot = NULL;
}

hirl_status_t hirl_ckpt_snapshot_add(hirl_ckpt_snapshot_t *snapshot, const char *name,
                                     hirl_ckpt_type_t type, int n_axes, const int64_t *shape,
                                     void **data_p) {
    hirl_ckpt_array_t array = {.type = type, .n_axes = n_axes};
    void *arrays = snapshot->arrays, *data = NULL;
    int64_t n_items = 0;
    HIRL_TRY(hirl_ckpt_count_items(name, type, n_axes, shape, &n_items));
    if (snapshot->n_arrays == snapshot->n_room) {
        const int n_room = snapshot->n_room ? 2 * snapshot->n_room : 256;
        HIRL_TRY(
            hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)n_room * sizeof array, (void **)&arrays));
        snapshot->arrays = arrays;
        snapshot->n_room = n_room;
    }
    HIRL_TRY(copy_text(name, &array.name));
    hirl_status_t status =
        hirl_mem_alloc(HIRL_MEM_PARAM, (size_t)n_items * hirl_ckpt_item_size(type), &data);
    if (status != HIRL_OK) {
        free_const(array.name);
        return status;
    }
    array.data = data;
    if (n_axes > 0) memcpy(array.shape, shape, (size_t)n_axes * sizeof *shape);
    snapshot->arrays[snapshot->n_arrays++] = array;
    *data_p = data;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ writer

enum { TEXT_MAX = 4096 };

struct hirl_ckpt_writer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    // under lock
    hirl_ckpt_snapshot_t *snapshot; // NULL: idle
    char folder[PATH_MAX];
    int64_t keep;
    bool is_ending;
    hirl_status_t outcome; // of the last write, until it is told
    char text[TEXT_MAX];
    double seconds;
};

static void write_one(hirl_ckpt_writer_t *writer) {
    const hirl_ckpt_snapshot_t *snapshot = writer->snapshot;
    const double start = hirl_time_now();
    const hirl_status_t status = hirl_ckpt_write(writer->folder, &snapshot->meta, snapshot->arrays,
                                                 snapshot->n_arrays, writer->keep);
    hirl_ckpt_snapshot_destroy(&(hirl_ckpt_snapshot_t *){writer->snapshot});
    pthread_mutex_lock(&writer->lock);
    writer->snapshot = NULL;
    writer->outcome = status;
    writer->seconds += hirl_time_now() - start;
    if (status != HIRL_OK) {
        const size_t n = strnlen(hirl_error_text_view(), TEXT_MAX - 1);
        memcpy(writer->text, hirl_error_text_view(), n);
        writer->text[n] = '\0';
    }
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

static void *work(void *argument) {
    hirl_ckpt_writer_t *writer = argument;
    for (;;) {
        pthread_mutex_lock(&writer->lock);
        while (!writer->snapshot && !writer->is_ending)
            pthread_cond_wait(&writer->changed, &writer->lock);
        const bool has_work = writer->snapshot != NULL;
        pthread_mutex_unlock(&writer->lock);
        if (!has_work) return NULL;
        write_one(writer);
    }
}

hirl_status_t hirl_ckpt_writer_create(hirl_ckpt_writer_t **writer_p) {
    hirl_ckpt_writer_t *writer = NULL;
    sigset_t all, before;
    hirl_ckpt_h5_quiet(); // HDF5 begins on the thread that called MPI
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &writer));
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->changed, NULL);
    sigfillset(&all); // signals are the main thread's
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int code = pthread_create(&writer->thread, NULL, work, writer);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        hirl_mem_free(writer);
        return HIRL_FAIL(HIRL_ERR_IO, "checkpoint writer: no thread can be started: %s",
                         strerror(code));
    }
    *writer_p = writer;
    return HIRL_OK;
}

void hirl_ckpt_writer_destroy(hirl_ckpt_writer_t **writer) {
    if (!writer || !*writer) return;
    pthread_mutex_lock(&(*writer)->lock);
    (*writer)->is_ending = true;
    pthread_cond_broadcast(&(*writer)->changed);
    pthread_mutex_unlock(&(*writer)->lock);
    pthread_join((*writer)->thread, NULL);
    pthread_cond_destroy(&(*writer)->changed);
    pthread_mutex_destroy(&(*writer)->lock);
    hirl_mem_free(*writer);
    *writer = NULL;
}

// With the lock held.
static void wait_idle(hirl_ckpt_writer_t *writer) {
    while (writer->snapshot) pthread_cond_wait(&writer->changed, &writer->lock);
}

void hirl_ckpt_writer_submit(hirl_ckpt_writer_t *writer, const char *folder,
                             hirl_ckpt_snapshot_t *snapshot, int64_t keep) {
    pthread_mutex_lock(&writer->lock);
    wait_idle(writer);
    const size_t n = strnlen(folder, PATH_MAX - 1);
    memcpy(writer->folder, folder, n);
    writer->folder[n] = '\0';
    writer->keep = keep;
    writer->snapshot = snapshot;
    pthread_cond_broadcast(&writer->changed);
    pthread_mutex_unlock(&writer->lock);
}

hirl_status_t hirl_ckpt_writer_wait(hirl_ckpt_writer_t *writer) {
    char text[TEXT_MAX];
    pthread_mutex_lock(&writer->lock);
    wait_idle(writer);
    const hirl_status_t outcome = writer->outcome;
    writer->outcome = HIRL_OK;
    memcpy(text, writer->text, sizeof text);
    pthread_mutex_unlock(&writer->lock);
    return outcome == HIRL_OK ? HIRL_OK : HIRL_FAIL(outcome, "%s", text);
}

double hirl_ckpt_writer_seconds(hirl_ckpt_writer_t *writer) {
    pthread_mutex_lock(&writer->lock);
    const double seconds = writer->seconds;
    pthread_mutex_unlock(&writer->lock);
    return seconds;
}
