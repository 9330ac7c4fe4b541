// Agreement on failure: one small reduction when all is well; texts travel only when something
// failed.
#include "par_impl.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 8192, PLACE_MAX = 256 };

typedef struct report {
    int32_t status;
    char text[TEXT_MAX];
    char place[PLACE_MAX]; // "src/deck/reader.c:120 hirl_deck_read"
} report_t;

static void fill_report(report_t *report, hirl_status_t mine) {
    // The thread's last record may be of a failure that was dealt with.
    bool is_recorded = hirl_error_status() == mine && hirl_error_text_view()[0];
    const char *text = is_recorded ? hirl_error_text_view() : hirl_status_text(mine);
    const char *place = is_recorded ? hirl_error_place_view() : "";
    memset(report, 0, sizeof *report);
    report->status = (int32_t)mine;
    memcpy(report->text, text, strnlen(text, TEXT_MAX - 1));
    memcpy(report->place, place, strnlen(place, PLACE_MAX - 1));
}

// Records the report here under the place where it arose.
static void record(report_t *report, const char *prefix) {
    const char *file = __FILE__, *func = __func__;
    int line = __LINE__;
    char *space = strrchr(report->place, ' ');
    if (space) *space = '\0';
    char *colon = space ? strrchr(report->place, ':') : NULL;
    if (colon) {
        *colon = '\0';
        file = report->place;
        line = atoi(colon + 1);
        func = space + 1;
    }
    hirl_error_record((hirl_status_t)report->status, file, line, func, "%s%s", prefix,
                      report->text);
}

hirl_status_t hirl_par_heed_signals(hirl_world_t *world) {
    int32_t number = hirl_signal_cancels();
    if (!hirl_signal_can_cancel()) return HIRL_OK;
    HIRL_TRY(hirl_par_all_reduce(world, &number, 1, HIRL_PAR_I32, HIRL_PAR_MAX));
    HIRL_REQUIRE(number == 0, HIRL_ERR_INTERRUPTED, "signal %d", number);
    return HIRL_OK;
}

hirl_status_t hirl_par_agree(hirl_world_t *world, hirl_status_t mine) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "%s: there is no world", __func__);
    int failing = mine == HIRL_OK ? world->size : world->rank, first = 0;
    HIRL_TRY_MPI(MPI_Allreduce(&failing, &first, 1, MPI_INT, MPI_MIN, world->comm));
    if (first == world->size) return HIRL_OK;

    hirl_status_t status;
    report_t *report = NULL, *own = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 2, &report));
    own = report + 1;
    fill_report(own, mine);
    *report = *own;
    HIRL_TRY_MPI_GOTO(MPI_Bcast(report, (int)sizeof *report, MPI_BYTE, first, world->comm), status,
                      err_free);
    int is_alike = report->status == own->status && strcmp(report->text, own->text) == 0;
    HIRL_TRY_MPI_GOTO(MPI_Allreduce(MPI_IN_PLACE, &is_alike, 1, MPI_INT, MPI_MIN, world->comm),
                      status, err_free);
    char prefix[32] = "";
    if (!is_alike)
        HIRL_TRY_GOTO(hirl_text_format(prefix, sizeof prefix, "rank %d: ", first), status,
                      err_free);
    status = (hirl_status_t)report->status;
    record(report, prefix);
err_free:
    hirl_mem_free(report);
    return status;
}
