// Status codes and the record of each thread's last failure. The first function that knows the
// cause records it here; callers only pass the code on. The text may be built from the previous
// record (hirl_error_text_view() as an argument), so it is formatted aside before it replaces that
// record.
#include "hirl/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 8192, PLACE_MAX = 256 };

typedef struct failure {
    hirl_status_t status;
    char text[TEXT_MAX];
    char place[PLACE_MAX];
} failure_t;

static _Thread_local failure_t last_failure;

const char *hirl_status_text(hirl_status_t status) {
    switch (status) {
#define STATUS_CASE(name, text) \
    case HIRL_##name: return text;
        HIRL_STATUS_LIST(STATUS_CASE)
#undef STATUS_CASE
        case HIRL_STATUS_COUNT: break;
    }
    return "unknown status";
}

// The part of a path from "src/" on, so that messages do not depend on where the tree was built.
static const char *strip_root(const char *file) {
    const char *found = NULL;
    for (const char *at = strstr(file, "src/"); at; at = strstr(at + 1, "src/")) {
        if (at == file || at[-1] == '/') found = at;
    }
    return found ? found : file;
}

hirl_status_t hirl_error_record(hirl_status_t status, const char *file, int line, const char *func,
                                const char *fmt, ...) {
    static _Thread_local char fresh[TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    if (n < 0) {
        strcpy(fresh, "(text of the failure could not be formatted)");
    } else if ((size_t)n >= sizeof fresh) {
        strcpy(fresh + sizeof fresh - 4, "...");
    }
    // Texts out of files go into messages, and messages to terminals: nothing there may command
    // them.
    for (char *at = fresh; *at; at++) {
        if (((unsigned char)*at < 0x20 && *at != '\n') || *at == 0x7f) *at = '?';
    }
    memcpy(last_failure.text, fresh, strlen(fresh) + 1);
    snprintf(last_failure.place, sizeof last_failure.place, "%s:%d %s", strip_root(file), line,
             func);
    last_failure.status = status;
    return status;
}

const char *hirl_error_text_view(void) { return last_failure.text; }

const char *hirl_error_place_view(void) { return last_failure.place; }

hirl_status_t hirl_error_status(void) { return last_failure.status; }

void hirl_error_reset(void) {
    last_failure.status = HIRL_OK;
    last_failure.text[0] = '\0';
    last_failure.place[0] = '\0';
}

void hirl_assert_failed(const char *file, int line, const char *func, const char *cond) {
    hirl_log_rank(HIRL_LOG_ERROR, "%s:%d %s: internal error: '%s' does not hold", strip_root(file),
                  line, func, cond);
    abort();
}
