// What a step reads. A device has places for two batches, which take turns: while a step computes on one, the images or views of the
// next are uploaded to the other. In host memory views are read where they lie, and images are copied when the step begins.

#include <string.h>

#include "train_impl.h"

typedef struct place {
    hirl_upload_t *upload;
    const hirl_batch_t *batch;          // HIRL_BORROW; NULL: none was begun, or its step has come
    hirl_tensor_t room;                 // u8, of images, with room to spare
    hirl_tensor_t pixels;               // the part of it that the batch takes
    hirl_tensor_t view[HIRL_MAX_VIEWS]; // f32 [n, size, width, channels], made by the loader
} place_t;

struct input {
    hirl_session_t *s;
    bool is_device;
    place_t place[2];
    int now; // the step's
};

hirl_status_t input_create(hirl_session_t *s, input_t **input_p) {
    input_t *input = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &input));
    input->s = s;
    input->is_device = hirl_backend_allocator_view(s->backend)->space == HIRL_SPACE_DEVICE;
    hirl_status_t status = HIRL_OK;
    for (int i = 0; status == HIRL_OK && input->is_device && i < 2; ++i)
        status = hirl_upload_create(s->backend, &input->place[i].upload);
    if (status != HIRL_OK) {
        input_destroy(&input);
        return status;
    }
    *input_p = input;
    return HIRL_OK;
}

void input_destroy(input_t **input) {
    if (!*input) return;
    for (int i = 0; i < 2; ++i) {
        place_t *place = &(*input)->place[i];
        hirl_upload_destroy(&place->upload);
        hirl_tensor_reset(&place->pixels);
        hirl_tensor_reset(&place->room);
        for (int v = 0; v < HIRL_MAX_VIEWS; ++v) hirl_tensor_reset(&place->view[v]);
    }
    hirl_mem_free(*input);
    *input = NULL;
}

// ---------------------------------------------------------------------------------------------- uploads

// Memory that is taken may still be in use by operations asked for before, which the upload then has to wait for.
static hirl_status_t pixels_begin(input_t *input, place_t *place, const hirl_batch_t *batch) {
    const int64_t n = batch->n_pixel_bytes;
    hirl_tensor_reset(&place->pixels);
    if (!hirl_tensor_is_set(&place->room) || place->room.shape.dim[0] < n) {
        hirl_tensor_reset(&place->room);
        HIRL_TRY(
            hirl_backend_tensor(input->s->backend, hirl_shape_1(n + n / 4), HIRL_U8, &place->room));
        HIRL_TRY(hirl_upload_release(place->upload));
    }
    HIRL_TRY(hirl_tensor_rows(&place->room, 0, n, &place->pixels));
    return hirl_upload_begin(place->upload, batch->pixels, &place->pixels);
}

static hirl_status_t views_begin(input_t *input, place_t *place, const hirl_batch_t *batch) {
    for (int v = 0; v < batch->n_views; ++v) {
        hirl_shape_t shape = hirl_batch_view_shape(batch, v, batch->n);
        hirl_tensor_t *view = &place->view[v];
        if (!hirl_tensor_is_set(view) || !hirl_shape_equal(&view->shape, &shape)) {
            hirl_tensor_reset(view);
            HIRL_TRY(hirl_backend_tensor(input->s->backend, shape, HIRL_F32, view));
            HIRL_TRY(hirl_upload_release(place->upload));
        }
        HIRL_TRY(hirl_upload_begin(place->upload, batch->view[v], view));
    }
    return HIRL_OK;
}

static hirl_status_t begin(input_t *input, place_t *place, const hirl_batch_t *batch) {
    HIRL_TRY(batch->pixels ? pixels_begin(input, place, batch) : views_begin(input, place, batch));
    place->batch = batch;
    return HIRL_OK;
}

hirl_status_t hirl_session_upload(hirl_session_t *s, const hirl_batch_t *batch) {
    if (!s->input) HIRL_TRY(input_create(s, &s->input));
    if (!s->input->is_device) return HIRL_OK;
    return begin(s->input, &s->input->place[1 - s->input->now], batch);
}

void hirl_session_upload_drop(hirl_session_t *s) { input_destroy(&s->input); }

// ---------------------------------------------------------------------------------------------- a step

hirl_status_t input_take(hirl_session_t *s, const hirl_step_request_t *request) {
    const hirl_batch_t *batch = request->batch;
    if (!s->input) HIRL_TRY(input_create(s, &s->input));
    input_t *input = s->input;
    place_t *place = &input->place[input->now = 1 - input->now];
    if (!input->is_device) {
        hirl_tensor_reset(&place->pixels);
        return batch->pixels ? hirl_batch_upload(s->backend, batch, &place->pixels) : HIRL_OK;
    }
    if (!request->view && place->batch != batch) HIRL_TRY(begin(input, place, batch));
    place->batch = NULL;
    HIRL_TRY(hirl_backend_mark(s->backend, MARK_UPLOAD_WANTED));
    HIRL_TRY(hirl_upload_end(place->upload));
    return hirl_backend_mark(s->backend, MARK_UPLOAD_DONE);
}

hirl_status_t input_views(hirl_session_t *s, const hirl_step_request_t *request, int64_t first,
                          int64_t n, hirl_tensor_t view[HIRL_MAX_VIEWS], bool *are_made_p) {
    const place_t *place = &s->input->place[s->input->now];
    const hirl_batch_t *batch = request->batch;
    const hirl_tensor_t *whole = request->view ? request->view : place->view;
    *are_made_p = s->input->is_device || batch->pixels || request->view;
    for (int v = 0; *are_made_p && v < batch->n_views; ++v) {
        hirl_tensor_t rows = {0};
        if (batch->pixels && !request->view) {
            HIRL_TRY(
                hirl_batch_make_view(s->backend, batch, &place->pixels, v, first, n, &view[v]));
        } else if (!hirl_tensor_is_set(&view[v])) {
            HIRL_TRY(hirl_tensor_rows(&whole[v], first, n, &view[v]));
        } else {
            HIRL_TRY(hirl_tensor_rows(&whole[v], first, n, &rows));
            hirl_status_t status = hirl_op_to_plain(s->backend, &rows, HIRL_F32, &view[v]);
            hirl_tensor_reset(&rows);
            HIRL_TRY(status);
        }
    }
    return HIRL_OK;
}

hirl_status_t input_release(hirl_session_t *s) {
    place_t *place = &s->input->place[s->input->now];
    if (s->input->is_device) return hirl_upload_release(place->upload);
    hirl_tensor_reset(&place->pixels);
    return HIRL_OK;
}
