/// @file run_log_impl.h
/// Parts of the run's log: files that grow by whole records, lines of metrics.jsonl, TensorBoard's event file, the report. For src/train and its tests;
/// all of it for rank 0 alone, not collective.
#ifndef HIRL_RUN_LOG_IMPL_H
#define HIRL_RUN_LOG_IMPL_H

#include <stdio.h>

#include "hirl/deck.h"

#ifdef __cplusplus
extern "C" {
#endif

// ------------------------------------------------------------------------------------ append

/// A file that only grows, by whole records. What finds no room is kept and tried again with the next record, so that nothing is missing once there is room.
typedef struct append {
    char path[HIRL_DECK_TEXT_MAX + 320];
    bool is_open;
    int fd;
    int64_t size; // bytes of whole records in the file
    bool is_torn; // more than that is in it
    bool is_failing;
    char *pending; // records not written yet
    size_t n_pending, capacity;
} append_t;

/// Opens `path` for append, new and empty if `is_new`. Errors: HIRL_ERR_IO.
hirl_status_t append_open(const char *path, bool is_new, append_t *append_p);
/// Never fails: the training goes on without its log; a warning says so once.
void append_record(append_t *append, const void *data, size_t n);
/// Brings all records to disk.
void append_sync(append_t *append);
/// {0} and closed ones are allowed.
void append_close(append_t *append);

// ------------------------------------------------------------------------------------ metrics

enum { METRICS_LINE_MAX = 1 << 16, METRICS_NAME_MAX = 64, METRICS_PAIRS_MAX = 192 };

/// One pair of a line; a null is a number that is not finite, and nothing else is a number.
typedef struct metrics_pair {
    char name[METRICS_NAME_MAX];
    bool is_number;
    double value;
} metrics_pair_t;

/// What a line tells of.
typedef enum metrics_kind {
    METRICS_STEPS,   // an interval of steps
    METRICS_KNN,     // an evaluation
    METRICS_RESTART, // the run was started again here
    METRICS_OPEN,    // sums of an interval that a checkpoint fell into
    METRICS_OTHER
} metrics_kind_t;

typedef struct metrics_line {
    metrics_kind_t kind;
    int64_t step;
    int n;
    metrics_pair_t pair[METRICS_PAIRS_MAX];
} metrics_line_t;

/// Reads the next line that is whole, with its newline, into `text` [METRICS_LINE_MAX]; passes over lines that are too long, cut off or hold a NUL.
bool metrics_read(FILE *file, char *text);
/// False if the text is not one flat JSON object with a step.
bool metrics_parse(const char *text, metrics_line_t *line_p);
/// The number of that name, `absent` if there is none.
double metrics_number(const metrics_line_t *line, const char *name, double absent);
bool metrics_has(const metrics_line_t *line, const char *name);

// ------------------------------------------------------------------------------------ events

/// A TensorBoard event file.
typedef struct events events_t;

/// Starts a new event file in `folder` with what the lines of `metrics_path` tell (none: no such file) and removes earlier ones written here:
/// the file is whole under its name or not there. Errors: HIRL_ERR_IO, HIRL_ERR_MEMORY.
hirl_status_t events_create(const char *folder, const char *metrics_path, events_t **events_p);
/// Adds what a line tells; lines without a scalar add nothing.
void events_add(events_t *events, const metrics_line_t *line);
void events_sync(events_t *events);
void events_destroy(events_t **events);

// ------------------------------------------------------------------------------------ report

/// What a report tells beside metrics.jsonl; all HIRL_BORROW, texts may be anything.
typedef struct report_info {
    const char *output, *method, *hierarchy;
    const char *device, *precision;
    const char *deck_short, *deck_full;
    int n_ranks;
    int64_t batch, n_steps;
    double epochs;
} report_info_t;

/// Writes a page with the charts of `metrics_path` to `path`, whole or not at all. Errors: HIRL_ERR_IO, HIRL_ERR_MEMORY.
hirl_status_t report_write(const char *metrics_path, const char *path, const report_info_t *info);

#ifdef __cplusplus
}
#endif
#endif
