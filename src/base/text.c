// Text helpers, and the monotonic clock.
#include "hirl/base.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

double hirl_time_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

hirl_status_t hirl_text_format(char *buf, size_t size, const char *fmt, ...) {
    HIRL_REQUIRE(size > 0, HIRL_ERR_ARG, "a buffer of no bytes cannot hold a text");
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(buf, size, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < size) return HIRL_OK;
    hirl_status_t status = HIRL_FAIL(
        HIRL_ERR_ARG, "text of %d bytes does not fit into %zu: '%.64s...'", n, size - 1, buf);
    buf[0] = '\0';
    return status;
}

hirl_status_t hirl_text_append(hirl_text_t *text, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    hirl_status_t status = HIRL_OK;
    size_t room = text->capacity - text->size; // 0 for an empty text: vsnprintf then only counts
    int n = vsnprintf(room ? text->data + text->size : NULL, room, fmt, args);
    if (n < 0) {
        if (room) text->data[text->size] = '\0';
        status = HIRL_FAIL(HIRL_ERR_ARG, "text '%.64s' cannot be formatted", fmt);
    } else if ((size_t)n >= room) {
        size_t need = text->size + (size_t)n + 1;
        size_t capacity = need < 128 ? 128 : need + need / 2;
        void *data = text->data;
        status = hirl_mem_realloc(HIRL_MEM_GENERAL, capacity, &data);
        if (status == HIRL_OK) {
            text->data = data;
            text->capacity = capacity;
            vsnprintf(text->data + text->size, (size_t)n + 1, fmt, again);
        } else if (room) {
            text->data[text->size] = '\0';
        }
    }
    if (status == HIRL_OK) text->size += (size_t)n;
    va_end(again);
    va_end(args);
    return status;
}

// Bytes of the UTF-8 sequence that a text begins with; 0 if it is none. Overlong forms, surrogates and what lies beyond U+10FFFF are none.
static int utf8_length(const unsigned char *at) {
    static const unsigned least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const int n = at[0] < 0x80 ? 1 : at[0] < 0xc2 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    unsigned code = n < 2 ? at[0] : at[0] & (0x7fu >> n);
    if (at[0] > 0xf4) return 0;
    for (int i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0; // the final NUL, too
        code = code << 6 | (at[i] & 0x3f);
    }
    return n == 0 || code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0
                                                                                             : n;
}

hirl_status_t hirl_text_append_html(hirl_text_t *text, const char *any) {
    for (const unsigned char *at = (const unsigned char *)any; *at;) {
        const int n = utf8_length(at);
        const bool is_control = n == 1 && iscntrl(*at) && *at != '\n' && *at != '\t';
        const char *as = n == 0 || is_control ? "&#xfffd;"
                         : *at == '<'         ? "&lt;"
                         : *at == '>'         ? "&gt;"
                         : *at == '&'         ? "&amp;"
                         : *at == '"'         ? "&quot;"
                                              : NULL;
        HIRL_TRY(as ? hirl_text_append(text, "%s", as)
                    : hirl_text_append(text, "%.*s", n, (const char *)at));
        at += n > 0 ? n : 1;
    }
    return HIRL_OK;
}

void hirl_text_reset(hirl_text_t *text) {
    if (!text) return;
    hirl_mem_free(text->data);
    *text = (hirl_text_t){0};
}

enum { NEAREST_MAX = 256 }; // names longer than this are not compared

static bool is_same(char a, char b) {
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

// Edits (insert, delete, replace one character, swap two neighbours; ignoring case) that turn a into b.
static size_t edit_distance(const char *a, size_t n_a, const char *b, size_t n_b) {
    size_t rows[3][NEAREST_MAX + 1]; // those of i - 2, i - 1 and i, in turn
    for (size_t j = 0; j <= n_b; j++) rows[0][j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t best = above[j - 1] + (is_same(a[i - 1], b[j - 1]) ? 0 : 1);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            bool is_swap =
                i > 1 && j > 1 && is_same(a[i - 1], b[j - 2]) && is_same(a[i - 2], b[j - 1]);
            if (is_swap && above2[j - 2] + 1 < best) best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n_a % 3][n_b];
}

int hirl_text_nearest(const char *name, const char *const *candidates, int n_candidates) {
    size_t n_name = strlen(name);
    if (n_name > NEAREST_MAX) return -1;
    size_t best = n_name / 3 < 2 ? 2 : n_name / 3;
    int nearest = -1;
    for (int i = 0; i < n_candidates; i++) {
        if (!candidates[i]) continue;
        size_t n_other = strlen(candidates[i]);
        if (n_other > NEAREST_MAX) continue;
        size_t longer = n_name > n_other ? n_name : n_other;
        size_t distance = edit_distance(name, n_name, candidates[i], n_other);
        // With nothing in common no hint is better than a wrong one ("lr" is not a misspelt "wd").
        if (distance >= longer && longer > 0) continue;
        if (distance < best || (distance == best && nearest < 0)) {
            best = distance;
            nearest = i;
        }
    }
    return nearest;
}

char *hirl_text_bytes(char buf[32], double bytes) {
    static const char *const UNIT[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    int unit = 0;
    // 1023.995 would print as 1024.00
    while (fabs(bytes) >= (unit ? 1023.995 : 1023.5) && unit < 6) {
        bytes /= 1024;
        unit++;
    }
    snprintf(buf, 32, unit ? "%.2f %s" : "%.0f %s", bytes, UNIT[unit]);
    return buf;
}

char *hirl_text_duration(char buf[32], double seconds) {
    if (!(seconds >= 0) || seconds > 1e12) {
        snprintf(buf, 32, "-");
        return buf;
    }
    long long whole = llround(seconds);
    long long days = whole / 86400;
    int hours = (int)(whole / 3600 % 24), minutes = (int)(whole / 60 % 60),
        rest = (int)(whole % 60);
    if (days > 0) {
        snprintf(buf, 32, "%lldd %d:%02d:%02d", days, hours, minutes, rest);
    } else {
        snprintf(buf, 32, "%d:%02d:%02d", hours, minutes, rest);
    }
    return buf;
}
