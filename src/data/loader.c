// The loader: worker threads that read, decode and augment samples into a ring of batches ahead of
// the trainer.
// What a sample looks like depends on (seed, epoch, index, view) alone, and where it stands on the
// epoch's permutation: threads only decide when it is made. Workers draw tickets (batch, sample) in
// order, so the oldest incomplete batch is finished first; training runs on into the next epoch
// without a pause. All shared state is guarded by one mutex, taken once per few samples; batch
// buffers are written without it by the ticket's owner and read once all tickets are done.
// Views are drawn before anything is decoded, from the size in the shards' index: only the part of an image that they show is decoded,
// once for all of them.
// A loader that keeps pixels decodes to bytes and leaves the views, drawn as ever, to a backend. Where each image of a batch goes is
// laid out from the sizes in the shards' index when the batch is begun; an image that came out larger, because it stands in for
// an undecodable one, waits apart and is put behind the others when the batch is handed out.
// A sample of a set of videos becomes n_repeats rows of the batch, and each view of a row is a clip of its own, whose frames are
// decoded and shown one after the other, by one draw.
// Batches carry running numbers q; batch q lives in slot q mod n_slots. Nothing is allocated after
// start but what scratch buffers grow by.
#include "augment_impl.h"
#include "data_impl.h"
#include "hirl/data_clip.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_TICKETS = 8,          // samples a worker takes at a time at most
    PIXEL_ALIGN = 16,         // bytes, of kept images
    LAID_OUT_MOST = 64 << 20, // bytes
    ERROR_TEXT = 1024,        // room for a worker's failure
    MAX_THREADS = 1024,
    HELD_MOST = 2 // batches that a consumer may hold
};

// One batch being prepared or handed out.
typedef struct slot {
    int64_t q;
    int64_t epoch, number, n; // n samples, n_repeats rows each
    int64_t n_left;           // samples not made yet
    int64_t *index;
    int32_t *label;
    float *view[HIRL_MAX_VIEWS];
    // keeps_pixels:
    hirl_view_recipe_t *recipe[HIRL_MAX_VIEWS];
    hirl_buffer_t pixels;
    int64_t n_bytes;      // of it in use
    int64_t *place;       // [n_local + 1] where each image may lie
    hirl_buffer_t *apart; // [n_local] images that do not fit there; mostly empty
    hirl_status_t status; // of the first sample (in order) that failed
    int64_t failed;
    char text[ERROR_TEXT];
} slot_t;

// How a sample becomes views: the picture, shrunk or not, its part that is decoded, and what is drawn
// of it, in coordinates of the picture.
typedef struct plan {
    int first_view, end_view; // that it is about
    uint32_t stream;          // of random numbers, of view 0; the others follow
    int shrink, height, width;
    hirl_window_t part;
    hirl_view_draws_t draws[HIRL_MAX_VIEWS];
} plan_t;

typedef struct worker {
    hirl_loader_t *loader;
    pthread_t thread;
    hirl_augment_t *augment;
    hirl_buffer_t bytes, pixels;
    plan_t plan;
    int32_t *frames;             // [n_frames] of a clip
    hirl_loader_counts_t counts; // of the tickets in work; seconds and sums only
} worker_t;

struct hirl_loader {
    const hirl_shard_set_t *set;
    // What is wanted; constant after creation.
    bool is_train, keeps_pixels, may_shrink;
    const hirl_allocator_t *pixel_memory; // or NULL
    uint64_t seed;
    int64_t n_set; // samples of the set
    // Of the set (eval) or of each global batch (train), this rank's first sample and their number.
    int64_t first, n_part;
    int64_t batch;     // train: samples of a global batch
    int64_t n_local;   // samples of a whole batch of this rank
    int64_t n_repeats; // rows of a batch that are made of one sample
    int64_t n_batches; // per epoch
    int n_views, channels;
    int height[HIRL_MAX_VIEWS], width[HIRL_MAX_VIEWS];
    bool has_clips;
    hirl_clip_spec_t clip; // one frame if the samples are images
    size_t frame_floats[HIRL_MAX_VIEWS], view_floats[HIRL_MAX_VIEWS]; // per row
    hirl_view_spec_t views[HIRL_MAX_VIEWS];
    int eval_resize, eval_crop;
    bool eval_is_bicubic;
    float mean[3], std[3];
    double max_bad_fraction;
    int64_t tickets; // samples taken at a time
    int64_t window;
    bool reads_ahead;

    int n_slots, n_threads, n_started;
    slot_t *slots;
    worker_t *workers;

    pthread_mutex_t lock;
    pthread_cond_t work;  // workers: there may be something to do
    pthread_cond_t ready; // the consumer: a batch is complete, or the workers have paused
    bool has_sync, is_stopping, is_paused, is_running;
    int n_busy;
    hirl_order_t order; // of order_epoch, for laying out
    int64_t order_epoch;
    // Batch q_first is batch number_first of epoch_first.
    int64_t q_first, epoch_first, number_first;
    int64_t q_end;          // no batch from here on is prepared
    int64_t q_take, i_take; // next ticket
    int64_t q_next;         // next batch to hand out
    int may_hold, n_held;   // batches before q_next that are still in use
    int64_t number_now;     // of batch q_next within its epoch
    hirl_batch_t handed[HELD_MOST];
    int64_t *bad; // undecodable samples known so far
    int64_t n_bad, bad_capacity;
    hirl_loader_counts_t counts;
};

// ------------------------------------------------------------------------------------ samples

// Notes an undecodable sample; fails when there are too many. Takes the lock.
static hirl_status_t note_bad(hirl_loader_t *loader, int64_t index, int64_t instead,
                              const char *cause) {
    hirl_status_t status = HIRL_OK;
    bool is_new = true;
    int64_t n_bad = 0;
    pthread_mutex_lock(&loader->lock);
    for (int64_t i = 0; i < loader->n_bad && is_new; i++) is_new = loader->bad[i] != index;
    if (is_new && loader->n_bad == loader->bad_capacity) {
        const int64_t capacity = loader->bad_capacity ? 2 * loader->bad_capacity : 64;
        status = hirl_mem_realloc(HIRL_MEM_DATA, (size_t)capacity * sizeof *loader->bad,
                                  (void **)&loader->bad);
        if (status == HIRL_OK) loader->bad_capacity = capacity;
    }
    if (status == HIRL_OK) {
        if (is_new) loader->bad[loader->n_bad++] = index;
        n_bad = loader->n_bad;
    }
    pthread_mutex_unlock(&loader->lock);
    HIRL_TRY(status);

    char place[HIRL_DECK_TEXT_MAX], other[HIRL_DECK_TEXT_MAX];
    hirl_shard_set_place(loader->set, index, place);
    // What reads names the sample in its text, what decodes does not know it.
    const char *colon = ": ";
    if (strstr(cause, place) != NULL) place[0] = '\0', colon = "";
    if (hirl_shard_set_begin_report(loader->set, index)) {
        hirl_log_rank(HIRL_LOG_WARN, "%s%s%s; %s is shown in its place", place, colon, cause,
                      hirl_shard_set_place(loader->set, instead, other));
    }
    HIRL_REQUIRE((double)n_bad <= loader->max_bad_fraction * (double)loader->n_set, HIRL_ERR_FORMAT,
                 "%lld of %lld samples cannot be used, more than data%%max_bad_fraction = %g "
                 "allows; the last: %s%s%s",
                 (long long)n_bad, (long long)loader->n_set, loader->max_bad_fraction, place, colon,
                 cause);
    return HIRL_OK;
}

// The view whose random numbers view v takes.
static int drawn_view(const hirl_loader_t *loader, int v) {
    const int drawn_as = loader->views[v].drawn_as;
    return drawn_as > 0 ? drawn_as - 1 : v;
}

// Draws the views that sample `index` has in an epoch, of a picture of this size.
static void draw_views(const hirl_loader_t *loader, int64_t epoch, int64_t index, plan_t *plan) {
    for (int v = plan->first_view; v < plan->end_view; v++) {
        const uint32_t stream = plan->stream + (uint32_t)drawn_view(loader, v);
        hirl_rng_t rng =
            hirl_rng_make(loader->seed, HIRL_RNG_AUGMENT, (uint64_t)epoch, (uint64_t)index, stream);
        hirl_view_draw(&loader->views[v], plan->height, plan->width, &rng, &plan->draws[v]);
    }
}

static void cover(plan_t *plan) {
    int top = plan->height, left = plan->width, bottom = 0, right = 0;
    for (int v = plan->first_view; v < plan->end_view; v++) {
        const hirl_view_draws_t *d = &plan->draws[v];
        top = d->top < top ? d->top : top;
        left = d->left < left ? d->left : left;
        bottom = d->top + d->height > bottom ? d->top + d->height : bottom;
        right = d->left + d->width > right ? d->left + d->width : right;
    }
    plan->part = (hirl_window_t){top, left, bottom - top, right - left};
}

// True if every view still has to be made smaller from a picture shrunk to 1/shrink.
static bool is_large_enough(const hirl_loader_t *loader, const plan_t *plan, int shrink) {
    for (int v = plan->first_view; v < plan->end_view; v++) {
        const hirl_view_draws_t *d = &plan->draws[v];
        const int size = loader->views[v].size;
        const int to_height = d->resized_height > 0 ? d->resized_height : size;
        const int to_width = d->resized_width > 0 ? d->resized_width : size;
        if (d->height / shrink < to_height || d->width / shrink < to_width) return false;
    }
    return true;
}

// Both edges of a crop go to the nearest pixel of the shrunk picture.
static void shrink_edges(int *first, int *n, int side, int shrink) {
    int end = (*first + *n + shrink / 2) / shrink;
    end = end < side ? end : side;
    *first = (*first + shrink / 2) / shrink;
    *n = end - *first;
}

// What is decoded of a height x width image shown as training sample `index`, and drawn from it. A picture is
// shrunk as far as all crops of it are resized to something smaller anyway.
static void make_plan(const hirl_loader_t *loader, int64_t epoch, int64_t index, int height,
                      int width, bool may_shrink, plan_t *plan) {
    plan->shrink = 1;
    plan->height = height;
    plan->width = width;
    draw_views(loader, epoch, index, plan);
    for (int shrink = 8; may_shrink && shrink > 1 && plan->shrink == 1; shrink /= 2) {
        if (is_large_enough(loader, plan, shrink)) plan->shrink = shrink;
    }
    if (plan->shrink > 1) {
        plan->height = hirl_shrunk(height, plan->shrink);
        plan->width = hirl_shrunk(width, plan->shrink);
        for (int v = plan->first_view; v < plan->end_view; v++) {
            hirl_view_draws_t *d = &plan->draws[v];
            shrink_edges(&d->top, &d->height, plan->height, plan->shrink);
            shrink_edges(&d->left, &d->width, plan->width, plan->shrink);
        }
    }
    cover(plan);
}

// The worker's plan of a sample, for training or evaluation.
static hirl_status_t plan_sample(worker_t *worker, int64_t epoch, int64_t index, int height,
                                 int width, bool may_shrink) {
    const hirl_loader_t *loader = worker->loader;
    plan_t *plan = &worker->plan;
    if (loader->is_train) {
        make_plan(loader, epoch, index, height, width, may_shrink, plan);
        return HIRL_OK;
    }
    plan->shrink = 1;
    plan->height = height;
    plan->width = width;
    return hirl_eval_window(worker->augment, height, width, loader->eval_resize, loader->eval_crop,
                            loader->eval_is_bicubic, &plan->part);
}

static hirl_status_t read_sample(worker_t *worker, int64_t at, hirl_sample_t *sample_p) {
    const double begin = hirl_time_now();
    hirl_sample_t sample;
    HIRL_TRY(hirl_shard_set_read(worker->loader->set, at, &worker->bytes, &sample));
    worker->counts.read_s += hirl_time_now() - begin;
    HIRL_REQUIRE(sample.height > 0 && sample.width > 0, HIRL_ERR_FORMAT,
                 "the shard says %d x %d pixels", sample.width, sample.height);
    *sample_p = sample;
    return HIRL_OK;
}

// Decodes an image or frame as far as the worker's plan says.
static hirl_status_t decode(worker_t *worker, const hirl_sample_t *sample, hirl_image_t *image_p) {
    hirl_loader_counts_t *counts = &worker->counts;
    const plan_t *plan = &worker->plan;
    const double begin = hirl_time_now();
    const hirl_status_t status = hirl_image_decode_part(
        sample, worker->loader->channels, plan->shrink, &plan->part, &worker->pixels, image_p);
    counts->decode_s += hirl_time_now() - begin;
    HIRL_TRY(status);
    counts->n_bytes += (int64_t)sample->size;
    counts->n_pixels += (int64_t)plan->height * plan->width;
    counts->n_pixels_decoded += (int64_t)image_p->height * image_p->width;
    return HIRL_OK;
}

static bool may_shrink(const hirl_loader_t *loader, const hirl_sample_t *sample) {
    return loader->may_shrink && sample->encoding == HIRL_ENCODING_JPEG;
}

// Reads and decodes sample `at` as far as the plan that is made for it says.
static hirl_status_t read_image(worker_t *worker, int64_t epoch, int64_t index, int64_t at,
                                hirl_image_t *image_p, int32_t *label_p) {
    const hirl_loader_t *loader = worker->loader;
    hirl_sample_t sample;
    HIRL_TRY(read_sample(worker, at, &sample));
    HIRL_TRY(plan_sample(worker, epoch, index, sample.height, sample.width,
                         may_shrink(loader, &sample)));
    HIRL_TRY(decode(worker, &sample, image_p));
    *label_p = sample.label;
    return HIRL_OK;
}

static hirl_status_t make_eval_view(worker_t *worker, int64_t index, const hirl_image_t *image,
                                    float *out) {
    const hirl_loader_t *loader = worker->loader;
    const plan_t *plan = &worker->plan;
    int height, width;
    hirl_eval_size(plan->height, plan->width, loader->eval_resize, loader->eval_crop, &height,
                   &width);
    char place[HIRL_DECK_TEXT_MAX];
    HIRL_REQUIRE(height == loader->height[0] && width == loader->width[0], HIRL_ERR_FORMAT,
                 "%s becomes %d x %d, the others %d x %d: set views%%eval_crop",
                 hirl_shard_set_place(loader->set, index, place), height, width, loader->height[0],
                 loader->width[0]);
    return hirl_augment_eval_part(worker->augment, image, &plan->part, plan->height, plan->width,
                                  loader->eval_resize, loader->eval_crop, loader->eval_is_bicubic,
                                  loader->mean, loader->std, out);
}

// View v of an image or frame that was decoded by the worker's plan.
static hirl_status_t make_view(worker_t *worker, const hirl_image_t *image, int v, float *out) {
    const hirl_loader_t *loader = worker->loader;
    hirl_view_draws_t draws = worker->plan.draws[v];
    draws.top -= worker->plan.part.top;
    draws.left -= worker->plan.part.left;
    return hirl_view_apply(worker->augment, image, &loader->views[v], &draws, loader->mean,
                           loader->std, out);
}

// ------------------------------------------------------------------------------------ clips

// One frame of view v, whose part of the plan is drawn anew for each clip and way of decoding.
static hirl_status_t make_frame(worker_t *worker, const hirl_frames_t *frames, int64_t number,
                                int64_t epoch, int64_t index, float *out) {
    const hirl_loader_t *loader = worker->loader;
    plan_t *plan = &worker->plan;
    hirl_sample_t sample;
    hirl_image_t image;
    HIRL_TRY(hirl_frames_sample(frames, number, &sample));
    HIRL_TRY(plan_sample(worker, epoch, index, frames->height, frames->width,
                         may_shrink(loader, &sample)));
    const hirl_status_t status = decode(worker, &sample, &image);
    HIRL_REQUIRE(status == HIRL_OK, status, "frame %lld of %lld: %s", (long long)number,
                 (long long)frames->n, hirl_error_text_view());
    const double begin = hirl_time_now();
    HIRL_TRY(loader->is_train ? make_view(worker, &image, plan->first_view, out)
                              : make_eval_view(worker, index, &image, out));
    worker->counts.views_s += hirl_time_now() - begin;
    return HIRL_OK;
}

// The frames in worker->frames, each made once: those of a short video come several times.
static hirl_status_t make_clip(worker_t *worker, const hirl_frames_t *frames, int64_t epoch,
                               int64_t index, float *out) {
    const hirl_loader_t *loader = worker->loader;
    const int32_t *number = worker->frames;
    const size_t floats = loader->frame_floats[worker->plan.first_view];
    for (int f = 0; f < loader->clip.n_frames; f++, out += floats) {
        int same = 0;
        while (number[same] != number[f]) same++;
        if (same < f) {
            memcpy(out, out - (size_t)(f - same) * floats, floats * sizeof *out);
            continue;
        }
        HIRL_TRY(make_frame(worker, frames, number[f], epoch, index, out));
    }
    return HIRL_OK;
}

// Makes all rows of sample `index`, the i-th of the slot, from video `at`.
static hirl_status_t make_clips(worker_t *worker, slot_t *slot, int64_t index, int64_t at,
                                int64_t i, int32_t *label_p) {
    const hirl_loader_t *loader = worker->loader;
    plan_t *plan = &worker->plan;
    hirl_sample_t sample;
    hirl_frames_t frames;
    HIRL_TRY(read_sample(worker, at, &sample));
    HIRL_TRY(hirl_frames_read_index(sample.bytes, sample.size, &frames));
    HIRL_REQUIRE(frames.height == sample.height && frames.width == sample.width, HIRL_ERR_FORMAT,
                 "frames of %d x %d pixels, the shard says %d x %d", frames.width, frames.height,
                 sample.width, sample.height);
    for (int64_t r = 0; r < loader->n_repeats; r++) {
        for (int v = 0; v < loader->n_views; v++) {
            plan->first_view = v;
            plan->end_view = v + 1;
            plan->stream = (uint32_t)(r * loader->n_views);
            if (loader->is_train)
                hirl_clip_draw(&loader->clip, frames.n, loader->seed, slot->epoch, index,
                               (int)plan->stream + drawn_view(loader, v), worker->frames);
            else
                hirl_clip_place(&loader->clip, frames.n, 0, 1, worker->frames);
            const size_t row = (size_t)(i * loader->n_repeats + r);
            HIRL_TRY(make_clip(worker, &frames, slot->epoch, index,
                               slot->view[v] + row * loader->view_floats[v]));
        }
    }
    *label_p = sample.label;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ any sample

// Reads and decodes sample `index`, the i-th of the slot, or, where that cannot be done, the next one of the set
// that can. Clips are made, too: what is damaged shows on the way.
static hirl_status_t load_sample(worker_t *worker, slot_t *slot, int64_t index, int64_t i,
                                 hirl_image_t *image_p, int32_t *label_p) {
    hirl_loader_t *loader = worker->loader;
    for (int64_t k = 0; k < loader->n_set; k++) {
        const int64_t at = (index + k) % loader->n_set;
        const hirl_status_t status =
            loader->has_clips ? make_clips(worker, slot, index, at, i, label_p)
                              : read_image(worker, slot->epoch, index, at, image_p, label_p);
        if (status == HIRL_OK) return HIRL_OK;
        HIRL_TRY(hirl_shard_set_check_files(loader->set)); // nothing wrong with the sample then
        if (status != HIRL_ERR_FORMAT) return status;
        char cause[HIRL_DECK_TEXT_MAX];
        snprintf(cause, sizeof cause, "%s", hirl_error_text_view());
        HIRL_TRY(note_bad(loader, at, (at + 1) % loader->n_set, cause));
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT, "none of the %lld samples of the set can be decoded",
                     (long long)loader->n_set);
}

// Index of sample i of a batch of this rank.
static int64_t sample_index(const hirl_loader_t *loader, const hirl_order_t *order, int64_t number,
                            int64_t i) {
    if (!loader->is_train) return loader->first + number * loader->n_local + i;
    return hirl_order_at(order, number * loader->batch + loader->first + i);
}

// Memory that a device may read.
static hirl_status_t take_memory(const hirl_loader_t *loader, size_t bytes, void **data_p) {
    const hirl_allocator_t *memory = loader->pixel_memory;
    return memory != NULL ? memory->alloc(memory->ctx, bytes, data_p)
                          : hirl_mem_alloc(HIRL_MEM_DATA, bytes, data_p);
}

static void give_memory(const hirl_loader_t *loader, size_t bytes, void *data) {
    const hirl_allocator_t *memory = loader->pixel_memory;
    if (memory == NULL)
        hirl_mem_free(data);
    else if (data != NULL)
        memory->free(memory->ctx, data, bytes);
}

static size_t view_bytes(const hirl_loader_t *loader, int v) {
    return (size_t)(loader->n_local * loader->n_repeats) * loader->view_floats[v] * sizeof(float);
}

static void free_pixels(const hirl_loader_t *loader, slot_t *slot) {
    give_memory(loader, slot->pixels.size, slot->pixels.data);
    slot->pixels = (hirl_buffer_t){0};
}

// Makes room for at least `size` bytes and some more, and keeps the first n_kept.
static hirl_status_t reserve_pixels(const hirl_loader_t *loader, slot_t *slot, size_t size,
                                    size_t n_kept) {
    const size_t grown = size + size / 8;
    void *data = NULL;
    if (size <= slot->pixels.size) return HIRL_OK;
    if (n_kept == 0) free_pixels(loader, slot);
    HIRL_TRY(take_memory(loader, grown, &data));
    if (n_kept > 0) memcpy(data, slot->pixels.data, n_kept);
    free_pixels(loader, slot);
    slot->pixels = (hirl_buffer_t){data, grown};
    return HIRL_OK;
}

// Where the images of a batch go; with the lock held. Workers see to it that there is room.
static void lay_out(hirl_loader_t *loader, slot_t *slot) {
    if (loader->order_epoch != slot->epoch) {
        loader->order_epoch = slot->epoch;
        loader->order = hirl_order_make(loader->seed, slot->epoch, loader->n_set, loader->window);
    }
    int64_t total = 0;
    for (int64_t i = 0; i < slot->n; i++) {
        const int64_t index = sample_index(loader, &loader->order, slot->number, i);
        int height, width;
        plan_t plan = {.end_view = loader->n_views};
        hirl_buffer_reset(&slot->apart[i]); // of a batch that was dropped
        hirl_shard_set_image_size(loader->set, index, &height, &width);
        // Of a shrunk picture it is less.
        make_plan(loader, slot->epoch, index, height, width, false, &plan);
        const int64_t bytes = (int64_t)plan.part.height * plan.part.width * loader->channels;
        slot->place[i] = total;
        // An image that large must decode before it is believed.
        if (bytes <= LAID_OUT_MOST) total += (bytes + PIXEL_ALIGN - 1) / PIXEL_ALIGN * PIXEL_ALIGN;
    }
    slot->place[slot->n] = slot->n_bytes = total;
    // A failure shows as a buffer that is too small.
    (void)reserve_pixels(loader, slot, (size_t)total + 1, 0);
}

// Keeps the pixels of the image, which is the part of the plan, and its views' recipes.
static hirl_status_t keep_pixels(const hirl_loader_t *loader, slot_t *slot,
                                 const hirl_image_t *image, const plan_t *plan, int64_t i) {
    const size_t bytes = (size_t)image->height * (size_t)image->width * (size_t)image->channels;
    HIRL_REQUIRE(slot->pixels.size > (size_t)slot->n_bytes, HIRL_ERR_MEMORY,
                 "cannot allocate %lld bytes for the images of a batch; use a smaller optim%%batch "
                 "or data%%n_ahead",
                 (long long)slot->n_bytes);
    uint8_t *to = slot->pixels.data + slot->place[i];
    if (bytes > (size_t)(slot->place[i + 1] - slot->place[i])) {
        HIRL_TRY(hirl_buffer_reserve(&slot->apart[i], bytes));
        to = slot->apart[i].data;
    }
    memcpy(to, image->pixels, bytes);
    for (int v = 0; v < loader->n_views; v++) {
        hirl_view_write_recipe(&loader->views[v], &plan->draws[v], image->height, image->width,
                               slot->place[i], &slot->recipe[v][i]);
    }
    return HIRL_OK;
}

// Puts the images that lie apart behind the others. The slot is complete and not handed out yet.
static hirl_status_t join_pixels(const hirl_loader_t *loader, slot_t *slot) {
    int64_t total = slot->n_bytes;
    for (int64_t i = 0; i < slot->n; i++) total += (int64_t)slot->apart[i].size;
    if (total == slot->n_bytes) return HIRL_OK;
    HIRL_TRY(reserve_pixels(loader, slot, (size_t)total, (size_t)slot->n_bytes));
    for (int64_t i = 0; i < slot->n; i++) {
        if (slot->apart[i].size == 0) continue;
        memcpy(slot->pixels.data + slot->n_bytes, slot->apart[i].data, slot->apart[i].size);
        for (int v = 0; v < loader->n_views; v++) slot->recipe[v][i].offset = slot->n_bytes;
        slot->n_bytes += (int64_t)slot->apart[i].size;
        hirl_buffer_reset(&slot->apart[i]);
    }
    return HIRL_OK;
}

// The same place of the batch that is begun when this one is handed out.
static void read_ahead(const hirl_loader_t *loader, const slot_t *slot, const hirl_order_t *order,
                       int64_t i) {
    const int64_t number = slot->number + loader->n_slots;
    if (number >= loader->n_batches || (!loader->is_train && number == loader->n_batches - 1))
        return;
    hirl_shard_set_will_read(loader->set, sample_index(loader, order, number, i));
}

static hirl_status_t make_sample(worker_t *worker, slot_t *slot, const hirl_order_t *order,
                                 int64_t i) {
    const hirl_loader_t *loader = worker->loader;
    const int64_t index = sample_index(loader, order, slot->number, i);
    plan_t *plan = &worker->plan;
    hirl_image_t image;
    int32_t label = -1;
    if (loader->reads_ahead) read_ahead(loader, slot, order, i);
    HIRL_TRY(load_sample(worker, slot, index, i, &image, &label));
    for (int64_t r = i * loader->n_repeats; r < (i + 1) * loader->n_repeats; r++) {
        slot->index[r] = index;
        slot->label[r] = label;
    }
    if (loader->has_clips) return HIRL_OK;
    const double begin = hirl_time_now();
    if (loader->keeps_pixels) {
        for (int v = 0; v < loader->n_views; v++) {
            plan->draws[v].top -= plan->part.top;
            plan->draws[v].left -= plan->part.left;
        }
        HIRL_TRY(keep_pixels(loader, slot, &image, plan, i));
    }
    for (int v = 0; !loader->keeps_pixels && v < loader->n_views; v++) {
        float *out = slot->view[v] + (size_t)i * loader->view_floats[v];
        HIRL_TRY(loader->is_train ? make_view(worker, &image, v, out)
                                  : make_eval_view(worker, index, &image, out));
    }
    worker->counts.views_s += hirl_time_now() - begin;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ workers

// True if there is a ticket; with the lock held.
static bool has_ticket(const hirl_loader_t *loader) {
    return loader->is_running && !loader->is_paused && loader->q_take < loader->q_end &&
           loader->q_take < loader->q_next - loader->n_held + loader->n_slots;
}

// Epoch and number of batch q; with the lock held.
static void locate(const hirl_loader_t *loader, int64_t q, int64_t *epoch_p, int64_t *number_p) {
    const int64_t offset = loader->number_first + (q - loader->q_first);
    *epoch_p = loader->epoch_first + offset / loader->n_batches;
    *number_p = offset % loader->n_batches;
}

// Takes samples [*from_p, *to_p) of the slot; with the lock held and a ticket there.
static slot_t *take_tickets(hirl_loader_t *loader, int64_t *from_p, int64_t *to_p) {
    slot_t *slot = &loader->slots[loader->q_take % loader->n_slots];
    if (loader->i_take == 0) {
        slot->q = loader->q_take;
        locate(loader, slot->q, &slot->epoch, &slot->number);
        slot->n = loader->n_local;
        if (!loader->is_train && slot->number == loader->n_batches - 1) {
            slot->n = loader->n_part - slot->number * loader->n_local;
        }
        slot->n_left = slot->n;
        slot->status = HIRL_OK;
        if (loader->keeps_pixels) lay_out(loader, slot);
    }
    *from_p = loader->i_take;
    *to_p = *from_p + loader->tickets < slot->n ? *from_p + loader->tickets : slot->n;
    loader->i_take = *to_p;
    if (*to_p == slot->n) {
        loader->q_take++;
        loader->i_take = 0;
    }
    return slot;
}

static void add_counts(hirl_loader_counts_t *sum, const hirl_loader_counts_t *more) {
    sum->read_s += more->read_s;
    sum->decode_s += more->decode_s;
    sum->views_s += more->views_s;
    sum->n_bytes += more->n_bytes;
    sum->n_pixels += more->n_pixels;
    sum->n_pixels_decoded += more->n_pixels_decoded;
}

static void *worker_main(void *arg) {
    worker_t *worker = arg;
    hirl_loader_t *loader = worker->loader;
    hirl_order_t order = {0};
    int64_t order_epoch = -1;
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->is_stopping && !has_ticket(loader))
            pthread_cond_wait(&loader->work, &loader->lock);
        if (loader->is_stopping) break;
        int64_t from, to;
        slot_t *slot = take_tickets(loader, &from, &to);
        loader->n_busy++;
        pthread_mutex_unlock(&loader->lock);

        const double begin = hirl_time_now();
        if (loader->is_train && slot->epoch != order_epoch) {
            order_epoch = slot->epoch;
            order = hirl_order_make(loader->seed, order_epoch, loader->n_set, loader->window);
        }
        hirl_status_t status = HIRL_OK;
        int64_t i = from;
        while (i < to && status == HIRL_OK) {
            status = make_sample(worker, slot, &order, i);
            if (status == HIRL_OK) status = hirl_shard_set_check_files(worker->loader->set);
            if (status == HIRL_OK) i++;
        }
        const double end = hirl_time_now();

        pthread_mutex_lock(&loader->lock);
        loader->counts.work_s += end - begin;
        loader->counts.n_samples += (i - from) * loader->n_repeats;
        add_counts(&loader->counts, &worker->counts);
        worker->counts = (hirl_loader_counts_t){0};
        if (status != HIRL_OK && (slot->status == HIRL_OK || i < slot->failed)) {
            slot->status = status;
            slot->failed = i;
            snprintf(slot->text, sizeof slot->text, "%s", hirl_error_text_view());
        }
        slot->n_left -= to - from;
        loader->n_busy--;
        if (slot->n_left == 0 || loader->is_paused) pthread_cond_signal(&loader->ready);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

static hirl_status_t start_workers(hirl_loader_t *loader) {
    // Signals are for the main thread, which knows what to do with them; what a mapped page that is gone raises is the
    // reader's own.
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (loader->n_started < loader->n_threads && error == 0) {
        worker_t *worker = &loader->workers[loader->n_started];
        error = pthread_create(&worker->thread, NULL, worker_main, worker);
        if (error == 0) loader->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    HIRL_REQUIRE(error == 0, HIRL_ERR_MEMORY,
                 "cannot start loader thread %d of %d: %s; set data%%n_threads",
                 loader->n_started + 1, loader->n_threads, strerror(error));
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ creation

static hirl_status_t set_normalization(hirl_loader_t *loader, const hirl_data_cfg_t *cfg) {
    const int channels = loader->channels;
    HIRL_REQUIRE(channels == 1 || channels == 3, HIRL_ERR_DECK,
                 "images have %d channels; set data%%channels to 1 or 3", channels);
    HIRL_REQUIRE(cfg->n_mean == 1 || cfg->n_mean == channels, HIRL_ERR_DECK,
                 "data%%mean has %d items; want 1, or one for each of the %d channels", cfg->n_mean,
                 channels);
    HIRL_REQUIRE(cfg->n_std == 1 || cfg->n_std == channels, HIRL_ERR_DECK,
                 "data%%std has %d items; want 1, or one for each of the %d channels", cfg->n_std,
                 channels);
    for (int c = 0; c < channels; c++) {
        loader->mean[c] = (float)cfg->mean[cfg->n_mean == 1 ? 0 : c];
        loader->std[c] = (float)cfg->std[cfg->n_std == 1 ? 0 : c];
        HIRL_REQUIRE(loader->std[c] > 0.0f, HIRL_ERR_DECK, "data%%std is %g; want more than 0",
                     (double)loader->std[c]);
    }
    return HIRL_OK;
}

static hirl_status_t plan_train(hirl_loader_t *loader, const hirl_world_t *world,
                                const hirl_loader_spec_t *spec) {
    const int64_t size = hirl_world_size(world), rank = hirl_world_rank(world);
    const int64_t n_repeats = loader->has_clips && spec->n_repeats > 0 ? spec->n_repeats : 1;
    HIRL_REQUIRE(spec->batch % size == 0, HIRL_ERR_DECK,
                 "batch of %lld samples is not divisible by %lld ranks; want a multiple",
                 (long long)spec->batch, (long long)size);
    HIRL_REQUIRE(spec->batch % (size * n_repeats) == 0, HIRL_ERR_DECK,
                 "batch of %lld clips on %lld ranks, and clip%%repeats = %lld: want a multiple of "
                 "%lld",
                 (long long)spec->batch, (long long)size, (long long)n_repeats,
                 (long long)(size * n_repeats));
    loader->n_repeats = n_repeats;
    loader->batch = spec->batch / n_repeats;
    HIRL_REQUIRE(loader->n_set >= loader->batch, HIRL_ERR_DECK,
                 "the training set has %lld samples, fewer than one batch of %lld",
                 (long long)loader->n_set, (long long)loader->batch);
    HIRL_REQUIRE(spec->n_views >= 1 && spec->n_views <= HIRL_MAX_VIEWS, HIRL_ERR_ARG,
                 "%d views; want 1..%d", spec->n_views, HIRL_MAX_VIEWS);
    loader->n_local = loader->n_part = loader->batch / size;
    loader->first = rank * loader->n_local;
    loader->n_batches = loader->n_set / loader->batch;
    loader->n_views = spec->n_views;
    for (int v = 0; v < spec->n_views; v++) {
        HIRL_REQUIRE(spec->views[v].size > 0, HIRL_ERR_ARG, "view %d has size %d", v,
                     spec->views[v].size);
        loader->views[v] = spec->views[v];
        loader->height[v] = loader->width[v] = spec->views[v].size;
    }
    return HIRL_OK;
}

static hirl_status_t plan_eval(hirl_loader_t *loader, const hirl_world_t *world,
                               const hirl_loader_spec_t *spec) {
    const int64_t size = hirl_world_size(world), rank = hirl_world_rank(world), n = loader->n_set;
    HIRL_REQUIRE(spec->eval_resize >= 0 && spec->eval_crop >= 0, HIRL_ERR_ARG,
                 "eval_resize is %d, eval_crop is %d", spec->eval_resize, spec->eval_crop);
    // n * r / size without overflow.
    loader->first = n / size * rank + n % size * rank / size;
    loader->n_part = n / size * (rank + 1) + n % size * (rank + 1) / size - loader->first;
    loader->n_local = spec->batch < loader->n_part ? spec->batch : loader->n_part;
    loader->n_batches =
        loader->n_part == 0 ? 0 : (loader->n_part + loader->n_local - 1) / loader->n_local;
    loader->n_views = 1;
    loader->eval_resize = spec->eval_resize;
    loader->eval_crop = spec->eval_crop;
    loader->eval_is_bicubic = spec->eval_is_bicubic;
    // Without a crop all images must come out alike. Every rank looks at all of them: all decide
    // alike.
    for (int64_t i = 0; i < (spec->eval_crop > 0 ? 1 : n); i++) {
        int height, width, out_height, out_width;
        hirl_shard_set_image_size(loader->set, i, &height, &width);
        hirl_eval_size(height, width, spec->eval_resize, spec->eval_crop, &out_height, &out_width);
        if (i == 0) {
            loader->height[0] = out_height;
            loader->width[0] = out_width;
        }
        char place[HIRL_DECK_TEXT_MAX];
        HIRL_REQUIRE(out_height == loader->height[0] && out_width == loader->width[0],
                     HIRL_ERR_DECK,
                     "%s becomes %d x %d, the first sample %d x %d; images of several sizes need "
                     "views%%eval_crop",
                     hirl_shard_set_place(loader->set, i, place), out_height, out_width,
                     loader->height[0], loader->width[0]);
    }
    return HIRL_OK;
}

// Images or clips, as the set has it.
static hirl_status_t plan_clips(hirl_loader_t *loader, const hirl_loader_spec_t *spec) {
    char place[HIRL_DECK_TEXT_MAX];
    const bool has_videos = hirl_shard_set_has_videos(loader->set);
    (void)hirl_shard_set_place(loader->set, 0, place);
    loader->has_clips = spec->clip.n_frames > 0;
    HIRL_REQUIRE(
        !has_videos || loader->has_clips, HIRL_ERR_DECK,
        "%s is a video, as all of its set are, and clip%%frames is 0: set it, such as to 16",
        place);
    HIRL_REQUIRE(
        has_videos || !loader->has_clips, HIRL_ERR_DECK,
        "clip%%frames is %d, and %s is an image, as all of its set are: leave clip%%frames "
        "at 0, or pack videos with pack%%format = 'frames'",
        spec->clip.n_frames, place);
    loader->n_repeats = 1;
    loader->clip = (hirl_clip_spec_t){.n_frames = 1, .stride = 1};
    if (!loader->has_clips) return HIRL_OK;
    HIRL_REQUIRE(!loader->keeps_pixels, HIRL_ERR_DECK,
                 "views%%maker = 'backend', and backends do not make views of clips; use 'auto' "
                 "or 'loader'");
    loader->clip = spec->clip;
    // A clip takes a few frames out of a video that may be large.
    loader->reads_ahead = false;
    return hirl_clip_check(&spec->clip);
}

static hirl_status_t create_slots(hirl_loader_t *loader) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, loader->n_slots, &loader->slots));
    const int64_t n_rows = loader->n_local * loader->n_repeats;
    size_t total = 0;
    for (int v = 0; v < loader->n_views; v++) {
        size_t bytes = sizeof(float);
        const size_t sides[5] = {(size_t)loader->height[v], (size_t)loader->width[v],
                                 (size_t)loader->channels, (size_t)loader->clip.n_frames,
                                 (size_t)n_rows};
        bool is_too_large = false;
        for (int i = 0; i < 5; i++) is_too_large |= __builtin_mul_overflow(bytes, sides[i], &bytes);
        HIRL_REQUIRE(!is_too_large, HIRL_ERR_DECK,
                     "a batch of %lld views of %d x %d x %d x %d does not fit into memory",
                     (long long)n_rows, loader->clip.n_frames, loader->height[v], loader->width[v],
                     loader->channels);
        loader->frame_floats[v] = sides[0] * sides[1] * sides[2];
        loader->view_floats[v] = sides[3] * loader->frame_floats[v];
        for (int s = 0; s < loader->n_slots; s++) {
            slot_t *slot = &loader->slots[s];
            HIRL_TRY(loader->keeps_pixels
                         ? HIRL_ALLOC(HIRL_MEM_DATA, loader->n_local, &slot->recipe[v])
                         : take_memory(loader, bytes, (void **)&slot->view[v]));
        }
        total += loader->keeps_pixels ? 0 : bytes;
    }
    for (int s = 0; s < loader->n_slots; s++) {
        loader->slots[s].q = -1;
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_rows, &loader->slots[s].index));
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_rows, &loader->slots[s].label));
        if (!loader->keeps_pixels) continue;
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, loader->n_local + 1, &loader->slots[s].place));
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, loader->n_local, &loader->slots[s].apart));
    }
    char text[32];
    hirl_log_root(HIRL_LOG_DEBUG, "loader: n_threads = %d, n_batches = %lld, buffers = %d x %s",
                  loader->n_threads, (long long)loader->n_batches, loader->n_slots,
                  hirl_text_bytes(text, (double)total));
    return HIRL_OK;
}

hirl_status_t hirl_loader_create(hirl_world_t *world, const hirl_shard_set_t *set,
                                 const hirl_data_cfg_t *cfg, const hirl_loader_spec_t *spec,
                                 hirl_loader_t **loader_p) {
    HIRL_REQUIRE(spec->batch >= 1, HIRL_ERR_DECK, "batch is %lld samples; want 1 or more",
                 (long long)spec->batch);
    HIRL_REQUIRE(cfg->n_ahead >= 1 && cfg->n_ahead <= 1024, HIRL_ERR_DECK,
                 "data%%n_ahead is %lld; want 1..1024", (long long)cfg->n_ahead);
    HIRL_REQUIRE(spec->n_held <= HELD_MOST, HIRL_ERR_ARG, "%d batches held; want %d at most",
                 spec->n_held, (int)HELD_MOST);
    HIRL_REQUIRE(cfg->n_threads >= 0 && cfg->n_threads <= MAX_THREADS, HIRL_ERR_DECK,
                 "data%%n_threads is %lld; want 0..%d", (long long)cfg->n_threads, MAX_THREADS);
    hirl_loader_t *loader = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &loader));
    hirl_status_t status = HIRL_OK;
    loader->set = set;
    loader->is_train = spec->is_train;
    loader->keeps_pixels = spec->is_train && spec->keeps_pixels;
    loader->pixel_memory = spec->pixel_memory;
    loader->window = cfg->window;
    loader->reads_ahead = cfg->read_ahead;
    loader->may_shrink = strcmp(cfg->decode, "scaled") == 0;
    loader->order_epoch = -1;
    loader->seed = spec->seed;
    loader->n_set = hirl_shard_set_n_samples(set);
    loader->channels = hirl_shard_set_channels(set);
    loader->max_bad_fraction = cfg->max_bad_fraction;
    loader->may_hold = spec->n_held > 1 ? spec->n_held : 1;
    loader->n_slots = (int)cfg->n_ahead + loader->may_hold;
    loader->n_threads = cfg->n_threads > 0 ? (int)cfg->n_threads : hirl_world_n_cpus(world);
    HIRL_TRY_GOTO(plan_clips(loader, spec), status, err_destroy);
    HIRL_TRY_GOTO(set_normalization(loader, cfg), status, err_destroy);
    HIRL_TRY_GOTO(spec->is_train ? plan_train(loader, world, spec) : plan_eval(loader, world, spec),
                  status, err_destroy);
    // Few enough that all threads share the last batch's work.
    const int64_t share = loader->n_local / (4 * (int64_t)loader->n_threads);
    loader->tickets = share < 1 ? 1 : share > MAX_TICKETS ? MAX_TICKETS : share;
    HIRL_TRY_GOTO(create_slots(loader), status, err_destroy);

    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, loader->n_threads, &loader->workers), status,
                  err_destroy);
    for (int i = 0; i < loader->n_threads; i++) {
        loader->workers[i].loader = loader;
        loader->workers[i].plan.end_view = loader->n_views;
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, loader->clip.n_frames, &loader->workers[i].frames),
                      status, err_destroy);
        HIRL_TRY_GOTO(hirl_augment_create(&loader->workers[i].augment), status, err_destroy);
    }
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->work, NULL);
    pthread_cond_init(&loader->ready, NULL);
    loader->has_sync = true;
    HIRL_TRY_GOTO(start_workers(loader), status, err_destroy);
    *loader_p = loader;
    return HIRL_OK;

err_destroy:
    hirl_loader_destroy(&loader);
    return status;
}

void hirl_loader_destroy(hirl_loader_t **loader) {
    hirl_loader_t *self = *loader;
    if (self == NULL) return;
    if (self->has_sync) {
        pthread_mutex_lock(&self->lock);
        self->is_stopping = true;
        pthread_cond_broadcast(&self->work);
        pthread_mutex_unlock(&self->lock);
        for (int i = 0; i < self->n_started; i++) pthread_join(self->workers[i].thread, NULL);
        pthread_cond_destroy(&self->ready);
        pthread_cond_destroy(&self->work);
        pthread_mutex_destroy(&self->lock);
    }
    for (int i = 0; self->workers != NULL && i < self->n_threads; i++) {
        hirl_augment_destroy(&self->workers[i].augment);
        hirl_buffer_reset(&self->workers[i].bytes);
        hirl_buffer_reset(&self->workers[i].pixels);
        hirl_mem_free(self->workers[i].frames);
    }
    for (int s = 0; self->slots != NULL && s < self->n_slots; s++) {
        slot_t *slot = &self->slots[s];
        for (int v = 0; v < self->n_views; v++) {
            give_memory(self, view_bytes(self, v), slot->view[v]);
            hirl_mem_free(slot->recipe[v]);
        }
        for (int64_t i = 0; slot->apart != NULL && i < self->n_local; i++)
            hirl_buffer_reset(&slot->apart[i]);
        free_pixels(self, slot);
        hirl_mem_free(slot->apart);
        hirl_mem_free(slot->place);
        hirl_mem_free(slot->index);
        hirl_mem_free(slot->label);
    }
    hirl_mem_free(self->slots);
    hirl_mem_free(self->workers);
    hirl_mem_free(self->bad);
    hirl_mem_free(self);
    *loader = NULL;
}

// ------------------------------------------------------------------------------------ batches

int64_t hirl_loader_n_batches(const hirl_loader_t *loader) { return loader->n_batches; }

hirl_status_t hirl_loader_begin_epoch(hirl_loader_t *loader, int64_t epoch, int64_t first_batch) {
    HIRL_REQUIRE(epoch >= 0 && first_batch >= 0 && first_batch <= loader->n_batches, HIRL_ERR_ARG,
                 "epoch %lld begins at batch %lld; want a batch of 0..%lld", (long long)epoch,
                 (long long)first_batch, (long long)loader->n_batches);
    pthread_mutex_lock(&loader->lock);
    loader->number_now = first_batch;
    // Training goes on with the next epoch by itself: a finished epoch and the start of the next
    // are one place.
    const bool is_at_end = first_batch == loader->n_batches;
    const int64_t want_epoch = epoch + is_at_end, want_number = is_at_end ? 0 : first_batch;
    bool is_prepared = false;
    if (loader->is_running && loader->is_train) {
        int64_t has_epoch, has_number;
        locate(loader, loader->q_next, &has_epoch, &has_number);
        is_prepared = has_epoch == want_epoch && has_number == want_number;
    }
    if (!is_prepared) {
        loader->is_paused = true;
        while (loader->n_busy > 0) pthread_cond_wait(&loader->ready, &loader->lock);
        // Numbers go on from q_next, so that a batch the caller still holds keeps its slot.
        for (int s = 0; s < loader->n_slots; s++) loader->slots[s].q = -1;
        loader->q_first = loader->q_take = loader->q_next;
        loader->i_take = 0;
        loader->epoch_first = want_epoch;
        loader->number_first = want_number;
        loader->q_end = loader->is_train
                            ? INT64_MAX
                            : loader->q_first + (is_at_end ? 0 : loader->n_batches - first_batch);
        loader->is_paused = false;
        loader->is_running = true;
        pthread_cond_broadcast(&loader->work);
    }
    pthread_mutex_unlock(&loader->lock);
    return HIRL_OK;
}

hirl_status_t hirl_loader_next(hirl_loader_t *loader, const hirl_batch_t **batch_p) {
    HIRL_REQUIRE(loader->is_running, HIRL_ERR_ARG, "no epoch was begun");
    pthread_mutex_lock(&loader->lock);
    if (loader->n_held == loader->may_hold) {
        loader->n_held--;
        pthread_cond_broadcast(&loader->work);
    }
    if (loader->number_now == loader->n_batches) {
        pthread_mutex_unlock(&loader->lock);
        *batch_p = NULL;
        return HIRL_OK;
    }
    slot_t *slot = &loader->slots[loader->q_next % loader->n_slots];
    if (!(slot->q == loader->q_next && slot->n_left == 0)) {
        const double begin = hirl_time_now();
        while (!(slot->q == loader->q_next && slot->n_left == 0))
            pthread_cond_wait(&loader->ready, &loader->lock);
        loader->counts.wait_s += hirl_time_now() - begin;
    }
    if (slot->status != HIRL_OK) {
        pthread_mutex_unlock(&loader->lock);
        // Complete, and never handed out: nobody writes to it any more.
        return HIRL_FAIL(slot->status, "%s", slot->text);
    }
    loader->n_held++;
    loader->q_next++;
    loader->number_now++;
    pthread_mutex_unlock(&loader->lock);

    if (loader->keeps_pixels) HIRL_TRY(join_pixels(loader, slot));

    hirl_batch_t *batch = &loader->handed[slot->q % loader->may_hold];
    *batch = (hirl_batch_t){.n = slot->n * loader->n_repeats,
                            .number = slot->number,
                            .index = slot->index,
                            .label = slot->label,
                            .n_views = loader->n_views,
                            .channels = loader->channels,
                            .has_clips = loader->has_clips,
                            .n_frames = loader->clip.n_frames,
                            .mean = loader->mean,
                            .std = loader->std};
    if (loader->keeps_pixels) {
        batch->pixels = slot->pixels.data;
        batch->n_pixel_bytes = slot->n_bytes;
    }
    for (int v = 0; v < loader->n_views; v++) {
        batch->size[v] = loader->height[v];
        batch->width[v] = loader->width[v];
        batch->view[v] = slot->view[v];
        batch->recipe[v] = slot->recipe[v];
    }
    *batch_p = batch;
    return HIRL_OK;
}

hirl_loader_counts_t hirl_loader_counts(hirl_loader_t *loader) {
    pthread_mutex_lock(&loader->lock);
    hirl_loader_counts_t counts = loader->counts;
    counts.n_bad = loader->n_bad;
    pthread_mutex_unlock(&loader->lock);
    return counts;
}
