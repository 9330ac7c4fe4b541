// Lines of metrics.jsonl: flat JSON objects with a step. The file may have been edited, or cut by a fault: what is no such line is passed over.

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run_log_impl.h"

bool metrics_read(FILE *file, char *text) {
    size_t n = 0;
    bool is_fine = true;
    int c;
    while ((c = getc_unlocked(file)) != EOF) {
        is_fine = is_fine && c != '\0' && n < METRICS_LINE_MAX - 1;
        if (is_fine) text[n++] = (char)c;
        if (c != '\n') continue;
        if (is_fine) {
            text[n] = '\0';
            return true;
        }
        n = 0;
        is_fine = true;
    }
    return false;
}

static const char *skip_space(const char *at) {
    while (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n') ++at;
    return at;
}

// The end of the text that begins after the quote at `at`; NULL if it has none.
static const char *end_of_text(const char *at) {
    for (++at; *at && *at != '"'; ++at)
        if (*at == '\\' && at[1]) ++at;
    return *at == '"' ? at : NULL;
}

// A number, null, true, false or text. NULL: something else.
static const char *parse_value(const char *at, metrics_pair_t *pair) {
    static const struct {
        const char *name;
        bool is_number;
    } word[] = {{"null", true}, {"true", false}, {"false", false}};
    pair->is_number = false;
    pair->value = NAN;
    if (*at == '"') {
        at = end_of_text(at);
        return at ? at + 1 : NULL;
    }
    for (size_t i = 0; i < sizeof word / sizeof *word; ++i) {
        size_t n = strlen(word[i].name);
        if (strncmp(at, word[i].name, n) != 0) continue;
        pair->is_number = word[i].is_number;
        return at + n;
    }
    if (*at != '-' && !isdigit((unsigned char)*at)) return NULL;
    char *end;
    pair->value = strtod(at, &end); // "-inf" too, which is written nowhere and does no harm
    pair->is_number = true;
    return end > at ? end : NULL;
}

static const char *parse_pair(const char *at, metrics_pair_t *pair) {
    const char *end;
    if (*at != '"' || !(end = end_of_text(at))) return NULL;
    size_t n = (size_t)(end - at - 1);
    bool is_short = n < sizeof pair->name;
    memcpy(pair->name, at + 1, is_short ? n : 0);
    pair->name[is_short ? n : 0] = '\0';
    at = skip_space(end + 1);
    return *at == ':' ? parse_value(skip_space(at + 1), pair) : NULL;
}

static metrics_kind_t kind_of(const metrics_line_t *line) {
    if (metrics_has(line, "restart")) return METRICS_RESTART;
    if (metrics_has(line, "open_steps")) return METRICS_OPEN;
    if (metrics_has(line, "loss")) return METRICS_STEPS;
    for (int i = 0; i < line->n; ++i)
        if (strncmp(line->pair[i].name, "knn_", 4) == 0) return METRICS_KNN;
    return METRICS_OTHER;
}

bool metrics_parse(const char *text, metrics_line_t *line_p) {
    metrics_pair_t beyond; // more pairs than there is room for are read all the same
    line_p->n = 0;
    const char *at = skip_space(text);
    if (*at++ != '{') return false;
    for (at = skip_space(at); *at != '}'; at = skip_space(at + 1)) {
        bool has_room = line_p->n < METRICS_PAIRS_MAX;
        metrics_pair_t *pair = has_room ? &line_p->pair[line_p->n] : &beyond;
        at = parse_pair(at, pair);
        if (!at) return false;
        if (has_room && pair->name[0]) ++line_p->n;
        at = skip_space(at);
        if (*at == '}') break;
        if (*at != ',') return false;
    }
    if (*skip_space(at + 1)) return false;
    double step = metrics_number(line_p, "step", -1);
    if (!(step >= 0 && step < 9007199254740992.0)) return false; // 2^53
    line_p->step = (int64_t)step;
    line_p->kind = kind_of(line_p);
    return true;
}

static const metrics_pair_t *find(const metrics_line_t *line, const char *name) {
    for (int i = 0; i < line->n; ++i)
        if (strcmp(line->pair[i].name, name) == 0) return &line->pair[i];
    return NULL;
}

double metrics_number(const metrics_line_t *line, const char *name, double absent) {
    const metrics_pair_t *pair = find(line, name);
    return pair && pair->is_number ? pair->value : absent;
}

bool metrics_has(const metrics_line_t *line, const char *name) { return find(line, name) != NULL; }
