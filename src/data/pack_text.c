// Texts that lists and tables of labels are made of, in memory as a whole. Nothing is said about
// their encoding but that they hold no NUL bytes.
#include "data_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_BYTES_MAX ((size_t)4 << 30)

int hirl_span_compare(hirl_span_t a, hirl_span_t b) {
    const size_t n = a.size < b.size ? a.size : b.size;
    const int order = n ? memcmp(a.text, b.text, n) : 0;
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

bool hirl_span_equals(hirl_span_t span, const char *text) {
    return strlen(text) == span.size && memcmp(span.text, text, span.size) == 0;
}

bool hirl_span_number(hirl_span_t span, int64_t least, int64_t most, int64_t *value_p) {
    size_t i = span.size > 0 && span.text[0] == '-';
    const bool is_negative = i == 1;
    if (span.size == i || span.size - i > 18) return false;
    int64_t value = 0;
    for (; i < span.size; i++) {
        if (span.text[i] < '0' || span.text[i] > '9') return false;
        value = 10 * value + (span.text[i] - '0');
    }
    if (is_negative) value = -value;
    if (value < least || value > most) return false;
    *value_p = value;
    return true;
}

// -------------------------------------------------------------------------------------- lines

static hirl_status_t read_stream(FILE *stream, hirl_lines_t *lines) {
    int64_t capacity = 0;
    while (!feof(stream)) {
        HIRL_TRY(hirl_pack_grow(&lines->text, &capacity, (int64_t)lines->size + (1 << 16), 1));
        lines->size += fread(lines->text + lines->size, 1, (size_t)capacity - lines->size, stream);
        HIRL_REQUIRE(!ferror(stream), HIRL_ERR_IO, "%s: %s", lines->path, strerror(errno));
        HIRL_REQUIRE(lines->size <= TEXT_BYTES_MAX, HIRL_ERR_FORMAT,
                     "%s: more than %zu bytes of text", lines->path, TEXT_BYTES_MAX);
    }
    HIRL_REQUIRE(lines->size == 0 || !memchr(lines->text, '\0', lines->size), HIRL_ERR_FORMAT,
                 "%s: holds NUL bytes, expected a text", lines->path);
    return HIRL_OK;
}

hirl_status_t hirl_lines_open(HIRL_BORROW const char *path, hirl_lines_t *lines) {
    *lines = (hirl_lines_t){.path = path};
    HIRL_REQUIRE(hirl_pack_is_file(path), HIRL_ERR_IO, "%s: %s", path,
                 access(path, F_OK) == 0 ? "not a file" : strerror(errno));
    FILE *stream = fopen(path, "r");
    HIRL_REQUIRE(stream, HIRL_ERR_IO, "%s: %s", path, strerror(errno));
    hirl_status_t status = read_stream(stream, lines);
    fclose(stream);
    if (status != HIRL_OK) {
        hirl_lines_close(lines);
        return status;
    }
    if (lines->size >= 3 && memcmp(lines->text, "\xef\xbb\xbf", 3) == 0) lines->at = 3;
    return HIRL_OK;
}

void hirl_lines_close(hirl_lines_t *lines) {
    hirl_mem_free(lines->text);
    *lines = (hirl_lines_t){0};
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static hirl_span_t trim(hirl_span_t span) {
    while (span.size > 0 && is_blank(span.text[span.size - 1])) span.size--;
    while (span.size > 0 && is_blank(span.text[0])) span.text++, span.size--;
    return span;
}

bool hirl_lines_next(hirl_lines_t *lines, hirl_span_t *line_p) {
    while (lines->at < lines->size) {
        char *begin = lines->text + lines->at;
        const char *end = memchr(begin, '\n', lines->size - lines->at);
        const size_t size = end ? (size_t)(end - begin) : lines->size - lines->at;
        lines->at += size + (end != NULL);
        lines->number++;
        *line_p = trim((hirl_span_t){begin, size});
        if (line_p->size > 0) return true;
    }
    return false;
}

bool hirl_span_split_last(hirl_span_t line, hirl_span_t *before_p, hirl_span_t *after_p) {
    for (size_t i = line.size; i-- > 0;) {
        if (!is_blank(line.text[i])) continue;
        *after_p = (hirl_span_t){line.text + i + 1, line.size - i - 1};
        *before_p = trim((hirl_span_t){line.text, i});
        return true;
    }
    return false;
}

bool hirl_span_take_word(hirl_span_t *line, hirl_span_t *word_p) {
    *line = trim(*line);
    size_t n = 0;
    while (n < line->size && !is_blank(line->text[n])) n++;
    *word_p = (hirl_span_t){line->text, n};
    line->text += n;
    line->size -= n;
    return n > 0;
}

// -------------------------------------------------------------------------------------- CSV

// A field in quotes; two quotes inside stand for one. Leaves `at` behind the last quote.
static hirl_status_t take_quoted(hirl_lines_t *lines, hirl_span_t *field) {
    const int64_t begun = lines->number;
    char *out = lines->text + ++lines->at;
    *field = (hirl_span_t){out, 0};
    for (; lines->at < lines->size; lines->at++) {
        const char c = lines->text[lines->at];
        if (c == '"') {
            lines->at++;
            const bool is_double = lines->at < lines->size && lines->text[lines->at] == '"';
            if (!is_double) return HIRL_OK;
        }
        lines->number += c == '\n';
        out[field->size++] = c;
    }
    return HIRL_FAIL(HIRL_ERR_FORMAT, "%s:%lld: a quote is opened and not closed", lines->path,
                     (long long)begun);
}

static void take_plain(hirl_lines_t *lines, hirl_span_t *field) {
    char *begin = lines->text + lines->at;
    size_t n = 0;
    while (lines->at + n < lines->size && begin[n] != ',' && begin[n] != '\n') n++;
    lines->at += n;
    *field = trim((hirl_span_t){begin, n});
}

hirl_status_t hirl_csv_next(hirl_lines_t *lines, hirl_span_t *field, int most, int *n_p) {
    *n_p = 0;
    while (lines->at < lines->size &&
           (lines->text[lines->at] == '\n' ||
            (lines->text[lines->at] == '\r' && lines->at + 1 < lines->size &&
             lines->text[lines->at + 1] == '\n'))) {
        lines->number += lines->text[lines->at++] == '\n';
    }
    if (lines->at == lines->size) return HIRL_OK;
    const int64_t begun = ++lines->number; // lines inside of quotes count from here
    for (int n = 0;; n++) {
        hirl_span_t found;
        if (lines->at < lines->size && lines->text[lines->at] == '"') {
            HIRL_TRY(take_quoted(lines, &found));
            while (lines->at < lines->size && is_blank(lines->text[lines->at])) lines->at++;
        } else {
            take_plain(lines, &found);
        }
        if (n < most) field[(*n_p)++] = found;
        const bool is_end = lines->at == lines->size;
        const char c = is_end ? '\n' : lines->text[lines->at];
        HIRL_REQUIRE(c == ',' || c == '\n', HIRL_ERR_FORMAT,
                     "%s:%lld: '%c' behind a quoted field, expected ',' or the end of the line",
                     lines->path, (long long)begun, c);
        lines->at += !is_end;
        if (c == '\n') return HIRL_OK;
    }
}
