// dataset.html: what was packed, at one look. Everything is in the page (styles, drawings, thumbnails), and it needs no scripts. What is shown is read from
// the index alone, but for thumbnails and the encodings of mixed shards.
#include "hirl/data_clip.h"
#include "hirl/data_preview.h"

#include "augment_impl.h"
#include "data_impl.h"
#include "picture_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_ENCODINGS = 5,
    SNIFFED_MOST = 20000, // samples of mixed shards whose signature is read
    THUMB = 64,           // pixels
    THUMBS_MOST = 2000,   // in the whole page
    PAGE_MOST = 16 << 20, // bytes, then there are no more thumbnails
    SHARDS_SHOWN = 200,
    NAMES_SHOWN = 12,
    N_BINS = 32,
    SIDES = 65536 // image sides are 16 bits
};

typedef struct page {
    hirl_text_t text;
    hirl_status_t status;
} page_t;

// After a failure nothing more is added.
#define PUT(page, ...)                                                     \
    do {                                                                   \
        if ((page)->status == HIRL_OK)                                     \
            (page)->status = hirl_text_append(&(page)->text, __VA_ARGS__); \
    } while (0)

static void put_escaped(page_t *page, const char *text) {
    if (page->status == HIRL_OK) page->status = hirl_text_append_html(&page->text, text);
}

// A row of the label tree: a class, a super-class, or, as the last one, what has no label.
typedef struct node {
    int64_t count[HIRL_DATASET_SPLITS_MAX]; // of itself
    int64_t total[HIRL_DATASET_SPLITS_MAX]; // with all below it
    int first_child, next;                  // -1: none
    bool is_parent;
} node_t;

typedef struct split_facts {
    int64_t n, n_bytes;
    int64_t side[2][SIDES]; // images of each height, each width
    int64_t encoding[N_ENCODINGS], n_sniffed;
    int64_t n_alike; // neighbours with the same label
} split_facts_t;

typedef struct facts {
    const hirl_dataset_split_t *split;
    int n_splits;
    const hirl_preview_cfg_t *preview;
    const hirl_shard_set_t *tree; // the first set with names
    int n_rows;                   // of the tree, without that of the unlabelled
    node_t *node;                 // [n_rows + 1]
    split_facts_t *of[HIRL_DATASET_SPLITS_MAX];
    int n_thumbs;   // of a class
    int64_t *thumb; // [n_rows + 1, n_thumbs], -1: none
    int64_t most;   // largest count of a class
    hirl_augment_t *augment;
    hirl_buffer_t bytes, pixels, fitted;
} facts_t;

// ------------------------------------------------------------------------------------ facts

static const char *name_of(const facts_t *facts, int row) {
    return hirl_shard_set_class_name_view(facts->tree, row);
}

static int row_of(const facts_t *facts, int32_t label) {
    return label >= 0 && label < facts->n_rows ? label : facts->n_rows;
}

static hirl_status_t heed_signals(void) {
    HIRL_REQUIRE(!hirl_signal_cancels(), HIRL_ERR_INTERRUPTED, "signal %d", hirl_signal_cancels());
    return HIRL_OK;
}

// Signatures of a mixed shard, evenly spread if there are many.
static hirl_status_t sniff(facts_t *facts, int s, int64_t first, int64_t n) {
    split_facts_t *of = facts->of[s];
    const int64_t n_wanted = n < SNIFFED_MOST ? n : SNIFFED_MOST;
    for (int64_t i = 0; i < n_wanted; i++) {
        hirl_sample_t sample;
        const int64_t index = first + (int64_t)((double)i * (double)n / (double)n_wanted);
        hirl_status_t status =
            hirl_shard_set_read(facts->split[s].set, index, &facts->bytes, &sample);
        if (status == HIRL_ERR_FORMAT) continue; // damaged: the loader will say so
        HIRL_TRY(status);
        if ((size_t)sample.encoding < N_ENCODINGS) of->encoding[sample.encoding]++;
        of->n_sniffed++;
    }
    return hirl_shard_set_check_files(facts->split[s].set);
}

static hirl_status_t count_encodings(facts_t *facts, int s) {
    static const int known[HIRL_SHARD_ENCODING_COUNT] = {[HIRL_SHARD_RAW] = HIRL_ENCODING_RAW,
                                                         [HIRL_SHARD_JPEG] = HIRL_ENCODING_JPEG,
                                                         [HIRL_SHARD_PNG] = HIRL_ENCODING_PNG,
                                                         [HIRL_SHARD_FRAMES] =
                                                             HIRL_ENCODING_FRAMES};
    const hirl_shard_set_t *set = facts->split[s].set;
    int64_t first = 0, n;
    hirl_shard_encoding_t encoding;
    for (int i = 0; i < hirl_shard_set_n_shards(set); i++, first += n) {
        (void)hirl_shard_set_shard_view(set, i, &n, &encoding);
        HIRL_TRY(heed_signals());
        if (encoding == HIRL_SHARD_MIXED)
            HIRL_TRY(sniff(facts, s, first, n));
        else
            facts->of[s]->encoding[known[encoding]] += n;
    }
    return HIRL_OK;
}

static hirl_status_t count_split(facts_t *facts, int s) {
    const hirl_shard_set_t *set = facts->split[s].set;
    split_facts_t *of = facts->of[s];
    of->n = hirl_shard_set_n_samples(set);
    for (int64_t i = 0; i < of->n; i++) {
        int height, width;
        const int32_t label = hirl_shard_set_label(set, i);
        hirl_shard_set_image_size(set, i, &height, &width);
        of->side[0][height & (SIDES - 1)]++;
        of->side[1][width & (SIDES - 1)]++;
        of->n_bytes += hirl_shard_set_stored_bytes(set, i);
        of->n_alike += i > 0 && label == hirl_shard_set_label(set, i - 1);
        facts->node[row_of(facts, label)].count[s]++;
    }
    return count_encodings(facts, s);
}

// Parents are later rows (the reader has seen to it), so sums are ready when they are passed on.
static void build_tree(facts_t *facts) {
    const hirl_shard_set_t *set = facts->tree;
    for (int row = 0; row <= facts->n_rows; row++) {
        node_t *node = &facts->node[row];
        node->first_child = node->next = -1;
        for (int s = 0; s < facts->n_splits; s++) {
            node->total[s] += node->count[s];
            if (row < facts->n_rows && node->count[s] > facts->most) facts->most = node->count[s];
        }
        const int parent = hirl_shard_set_class_parent(set, row);
        if (parent < 0) continue;
        facts->node[parent].is_parent = true;
        for (int s = 0; s < facts->n_splits; s++) facts->node[parent].total[s] += node->total[s];
    }
    for (int row = facts->n_rows - 1; row >= 0; row--) { // children in order
        const int parent = hirl_shard_set_class_parent(set, row);
        if (parent < 0) continue;
        facts->node[row].next = facts->node[parent].first_child;
        facts->node[parent].first_child = row;
    }
}

// Some samples of each class, evenly spread over the set.
static hirl_status_t choose_thumbs(facts_t *facts) {
    const int64_t n = facts->of[0]->n, wanted = facts->preview->class_thumbs;
    const int64_t share = THUMBS_MOST / (facts->n_rows + 1);
    const int n_thumbs = (int)(wanted < share ? wanted : share > 0 ? share : wanted > 0);
    int64_t *seen = NULL;
    facts->n_thumbs = n_thumbs;
    if (n_thumbs == 0) return HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, (int64_t)(facts->n_rows + 1) * n_thumbs, &facts->thumb));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 2 * ((int64_t)facts->n_rows + 1), &seen));
    int64_t *taken = seen + facts->n_rows + 1;
    for (int64_t i = 0; i < (int64_t)(facts->n_rows + 1) * n_thumbs; i++) facts->thumb[i] = -1;
    for (int64_t i = 0; i < n; i++) {
        const int row = row_of(facts, hirl_shard_set_label(facts->split[0].set, i));
        const int64_t count = facts->node[row].count[0], k = count < n_thumbs ? count : n_thumbs;
        const int64_t next = (2 * taken[row] + 1) * count / (2 * k);
        if (taken[row] < k && seen[row] == next)
            facts->thumb[(int64_t)row * n_thumbs + taken[row]++] = i;
        seen[row]++;
    }
    hirl_mem_free(seen);
    return HIRL_OK;
}

static hirl_status_t gather(facts_t *facts) {
    int n_rows = 0;
    facts->tree = facts->split[0].set;
    if (facts->n_splits > 1 && hirl_shard_set_n_class_names(facts->tree) == 0)
        facts->tree = facts->split[1].set;
    for (int s = 0; s < facts->n_splits; s++) {
        const int n_classes = hirl_shard_set_n_classes(facts->split[s].set);
        const int n_names = hirl_shard_set_n_class_names(facts->split[s].set);
        // A label alone may be large; what lies beyond a sane number of rows counts as unlabelled.
        if (n_classes > n_rows && n_classes <= 1 << 20) n_rows = n_classes;
        if (n_names > n_rows) n_rows = n_names;
    }
    facts->n_rows = n_rows;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, (int64_t)n_rows + 1, &facts->node));
    for (int s = 0; s < facts->n_splits; s++) {
        HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &facts->of[s]));
        HIRL_TRY(count_split(facts, s));
    }
    build_tree(facts);
    HIRL_TRY(hirl_augment_create(&facts->augment));
    return choose_thumbs(facts);
}

static void release(facts_t *facts) {
    for (int s = 0; s < facts->n_splits; s++) hirl_mem_free(facts->of[s]);
    hirl_mem_free(facts->node);
    hirl_mem_free(facts->thumb);
    hirl_augment_destroy(&facts->augment);
    hirl_buffer_reset(&facts->bytes);
    hirl_buffer_reset(&facts->pixels);
    hirl_buffer_reset(&facts->fitted);
}

// ------------------------------------------------------------------------------------ copies

typedef struct copy {
    uint64_t checksum;
    int32_t label, split;
} copy_t;

static int compare_copies(const void *a, const void *b) {
    const copy_t *x = a, *y = b;
    if (x->checksum != y->checksum) return x->checksum > y->checksum ? 1 : -1;
    return (x->split > y->split) - (x->split < y->split);
}

typedef struct copies {
    bool are_known;
    int64_t n_spare[HIRL_DATASET_SPLITS_MAX]; // samples that an earlier one of the split equals
    int64_t n_torn;                           // samples whose equals have another label
    int64_t n_leaked;                         // samples of the second split that the first has, too
} copies_t;

static hirl_status_t find_copies(const facts_t *facts, copies_t *copies) {
    copy_t *list = NULL;
    int64_t n = 0, n_all = 0;
    for (int s = 0; s < facts->n_splits; s++) n_all += facts->of[s]->n;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n_all, &list));
    copies->are_known = true;
    for (int s = 0; s < facts->n_splits; s++)
        for (int64_t i = 0; i < facts->of[s]->n; i++, n++) {
            list[n].split = s;
            list[n].label = hirl_shard_set_label(facts->split[s].set, i);
            copies->are_known = copies->are_known &&
                                hirl_shard_set_checksum(facts->split[s].set, i, &list[n].checksum);
        }
    if (copies->are_known) qsort(list, (size_t)n, sizeof *list, compare_copies);
    for (int64_t i = 0, end; copies->are_known && i < n; i = end) {
        int64_t n_of[HIRL_DATASET_SPLITS_MAX] = {0};
        bool is_torn = false;
        for (end = i; end < n && list[end].checksum == list[i].checksum; end++) {
            n_of[list[end].split]++;
            is_torn = is_torn || list[end].label != list[i].label;
        }
        for (int s = 0; s < facts->n_splits; s++)
            copies->n_spare[s] += n_of[s] > 1 ? n_of[s] - 1 : 0;
        copies->n_torn += is_torn ? end - i : 0;
        copies->n_leaked += n_of[0] > 0 ? n_of[1] : 0;
    }
    hirl_mem_free(list);
    return HIRL_OK;
}

// ------------------------------------------------------------------------------------ what looks wrong

static void begin_finding(page_t *page, int *n_p, const char *id) {
    PUT(page, "%s<li id=\"%s\">", *n_p == 0 ? "<ul class=\"findings\">" : "", id);
    ++*n_p;
}

static void put_row_name(page_t *page, const facts_t *facts, int row) {
    const char *name = name_of(facts, row);
    if (name[0])
        put_escaped(page, name);
    else
        PUT(page, "class %d", row);
}

// Classes of split s without a sample (is_alone: which the first split has).
static void put_empty(page_t *page, const facts_t *facts, int s, int *n_p) {
    int64_t n_empty = 0, n_classes = 0;
    for (int row = 0; row < facts->n_rows; row++) {
        const node_t *node = &facts->node[row];
        if (node->is_parent) continue;
        n_classes++;
        n_empty += node->count[s] == 0;
    }
    if (n_empty == 0 || facts->of[s]->n == facts->node[facts->n_rows].count[s]) return;
    begin_finding(page, n_p, s == 0 ? "empty-0" : "empty-1");
    PUT(page, "%lld of %lld classes %s no sample in %s: ", (long long)n_empty, (long long)n_classes,
        n_empty == 1 ? "has" : "have", facts->split[s].name);
    int n_shown = 0;
    for (int row = 0; row < facts->n_rows && n_shown < NAMES_SHOWN; row++) {
        if (facts->node[row].is_parent || facts->node[row].count[s] > 0) continue;
        PUT(page, "%s", n_shown++ ? ", " : "");
        put_row_name(page, facts, row);
    }
    PUT(page, "%s.</li>", n_empty > n_shown ? ", &hellip;" : "");
}

static void put_findings(page_t *page, const facts_t *facts, const copies_t *copies) {
    int n = 0;
    const hirl_dataset_split_t *split = facts->split;
    if (facts->n_splits == 2 &&
        hirl_shard_set_check_classes(split[0].set, split[1].set) != HIRL_OK) {
        begin_finding(page, &n, "names-differ");
        PUT(page, "Labels of %s and %s do not mean the same: ", split[0].name, split[1].name);
        put_escaped(page, hirl_error_text_view());
        PUT(page, ".</li>");
    }
    for (int s = 0; s < facts->n_splits; s++) {
        const split_facts_t *of = facts->of[s];
        const int64_t n_unlabelled = facts->node[facts->n_rows].count[s];
        if (n_unlabelled > 0) {
            begin_finding(page, &n, s == 0 ? "unlabelled-0" : "unlabelled-1");
            PUT(page, "%lld of %lld samples of %s have no label.</li>", (long long)n_unlabelled,
                (long long)of->n, split[s].name);
        }
        put_empty(page, facts, s, &n);
        int64_t least = INT64_MAX, most = 0, n_classes = 0, n_nameless = 0;
        double alike = 0;
        for (int row = 0; row < facts->n_rows; row++) {
            const int64_t count = facts->node[row].count[s];
            const double share = of->n ? (double)count / (double)of->n : 0;
            alike += share * share;
            if (count == 0) continue;
            n_classes++;
            n_nameless += !name_of(facts, row)[0];
            if (count < least) least = count;
            if (count > most) most = count;
        }
        if (n_nameless > 0 && n_nameless < n_classes) {
            begin_finding(page, &n, s == 0 ? "nameless-0" : "nameless-1");
            PUT(page, "%lld labels of %s have no name.</li>", (long long)n_nameless, split[s].name);
        }
        if (n_classes > 1 && most >= 10 * least) {
            begin_finding(page, &n, s == 0 ? "uneven-0" : "uneven-1");
            PUT(page, "Classes of %s are uneven: %lld to %lld samples.</li>", split[s].name,
                (long long)least, (long long)most);
        }
        const double seen = of->n > 1 ? (double)of->n_alike / (double)(of->n - 1) : 0;
        if (s == 0 && n_classes > 1 && seen > 0.5 + 0.5 * alike) {
            begin_finding(page, &n, "in-order");
            PUT(page,
                "%s is stored class by class (%.0f %% of neighbours have the same label); "
                "<code>pack%%shuffle</code> spares disks.</li>",
                split[s].name, 100 * seen);
        }
        if (copies->n_spare[s] > 0) {
            begin_finding(page, &n, s == 0 ? "copies-0" : "copies-1");
            PUT(page, "%lld samples of %s equal another one byte for byte.</li>",
                (long long)copies->n_spare[s], split[s].name);
        }
    }
    if (copies->n_torn > 0) {
        begin_finding(page, &n, "torn");
        PUT(page, "%lld samples have equals with another label.</li>", (long long)copies->n_torn);
    }
    if (copies->n_leaked > 0) {
        begin_finding(page, &n, "leaked");
        PUT(page, "%lld samples of %s are in %s, too.</li>", (long long)copies->n_leaked,
            split[1].name, split[0].name);
    }
    PUT(page, "%s", n ? "</ul>" : "<p id=\"fine\">Nothing looks wrong.</p>");
}

// ------------------------------------------------------------------------------------ classes

static void put_base64(page_t *page, const unsigned char *bytes, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char piece[4 * 256 + 1];
    size_t at = 0;
    for (size_t i = 0; i < n; i += 3) {
        const unsigned rest = (unsigned)(n - i < 3 ? n - i : 3);
        unsigned bits = (unsigned)bytes[i] << 16;
        if (rest > 1) bits |= (unsigned)bytes[i + 1] << 8;
        if (rest > 2) bits |= bytes[i + 2];
        for (unsigned k = 0; k < 4; k++)
            piece[at++] = k <= rest ? digits[bits >> (18 - 6 * k) & 63] : '=';
        if (at < sizeof piece - 1 && i + 3 < n) continue;
        piece[at] = '\0';
        PUT(page, "%s", piece);
        at = 0;
    }
}

// A sample for the eye; false if it cannot be decoded.
static hirl_status_t load_thumb(facts_t *facts, int64_t index, hirl_image_t *fitted,
                                bool *is_there) {
    const hirl_shard_set_t *set = facts->split[0].set;
    hirl_sample_t sample;
    hirl_image_t image;
    int shrink = 1;
    *is_there = false;
    hirl_status_t status = hirl_shard_set_read(set, index, &facts->bytes, &sample);
    if (status == HIRL_OK) status = hirl_sample_still(&sample, &sample);
    if (status == HIRL_OK) {
        const int longer = sample.height > sample.width ? sample.height : sample.width;
        while (sample.encoding == HIRL_ENCODING_JPEG && shrink < 8 &&
               longer / (2 * shrink) >= 2 * THUMB)
            shrink *= 2;
        status = hirl_image_decode_part(&sample, hirl_shard_set_channels(set), shrink, NULL,
                                        &facts->pixels, &image);
    }
    HIRL_TRY(hirl_shard_set_check_files(set));
    if (status == HIRL_ERR_FORMAT) return HIRL_OK;
    HIRL_TRY(status);
    *is_there = true;
    return hirl_image_fit(facts->augment, &image, THUMB, &facts->fitted, fitted);
}

// Samples of a class side by side, one picture.
static hirl_status_t put_thumbs(page_t *page, facts_t *facts, int row) {
    const int64_t *thumb = facts->thumb + (int64_t)row * facts->n_thumbs;
    hirl_canvas_t canvas = {0};
    hirl_text_t jpeg = {0};
    hirl_status_t status = HIRL_OK;
    int n = 0;
    while (n < facts->n_thumbs && thumb[n] >= 0) n++;
    if (n == 0 || page->text.size > PAGE_MOST) return HIRL_OK;
    HIRL_TRY(heed_signals());
    HIRL_TRY(hirl_canvas_init(&canvas, THUMB, n * THUMB, 0x808080));
    for (int i = 0; i < n; i++) {
        hirl_image_t fitted;
        bool is_there;
        HIRL_TRY_GOTO(load_thumb(facts, thumb[i], &fitted, &is_there), status, done);
        if (is_there) hirl_canvas_image(&canvas, 0, i * THUMB, THUMB, &fitted);
    }
    HIRL_TRY_GOTO(hirl_canvas_to_jpeg(&canvas, 85, &jpeg), status, done);
    PUT(page, "<img alt=\"%d samples\" width=\"%d\" height=\"%d\" data-index=\"", n, n * THUMB,
        THUMB);
    for (int i = 0; i < n; i++) PUT(page, "%s%lld", i ? " " : "", (long long)thumb[i]);
    PUT(page, "\" src=\"data:image/jpeg;base64,");
    put_base64(page, (const unsigned char *)jpeg.data, jpeg.size);
    PUT(page, "\">");
done:
    hirl_text_reset(&jpeg);
    hirl_canvas_reset(&canvas);
    return status;
}

static void put_counts(page_t *page, const facts_t *facts, const int64_t *count, bool has_bars,
                       bool may_be_none) {
    PUT(page, "<span class=\"bars\">");
    for (int s = 0; has_bars && s < facts->n_splits; s++)
        PUT(page, "<i class=\"c%d\" style=\"width:%.2f%%\"></i>", s,
            facts->most ? 100.0 * (double)count[s] / (double)facts->most : 0.0);
    PUT(page, "</span>");
    for (int s = 0; s < facts->n_splits; s++)
        PUT(page, "<b class=\"%s\">%lld</b>", count[s] == 0 && !may_be_none ? "none" : "",
            (long long)count[s]);
}

static hirl_status_t put_node(page_t *page, facts_t *facts, int row) {
    const node_t *node = &facts->node[row];
    const bool is_class = row == facts->n_rows || !node->is_parent;
    const int64_t *count = is_class ? node->count : node->total;
    const char *tag = is_class ? "div" : "summary";
    if (!is_class) PUT(page, "<details open>");
    PUT(page, "<%s class=\"class\" data-row=\"%d\" data-counts=\"%lld", tag,
        row == facts->n_rows ? -1 : row, (long long)count[0]);
    if (facts->n_splits > 1) PUT(page, " %lld", (long long)count[1]);
    PUT(page, "\"><span class=\"name\">");
    if (row == facts->n_rows)
        PUT(page, "no label");
    else
        put_row_name(page, facts, row);
    if (row < facts->n_rows && name_of(facts, row)[0]) PUT(page, " <small>%d</small>", row);
    PUT(page, "</span>");
    put_counts(page, facts, count, is_class, row == facts->n_rows);
    PUT(page, "<span class=\"thumbs\">");
    if (is_class && facts->n_thumbs > 0) HIRL_TRY(put_thumbs(page, facts, row));
    PUT(page, "</span></%s>\n", tag);
    if (is_class) return HIRL_OK;
    for (int child = node->first_child; child >= 0; child = facts->node[child].next)
        HIRL_TRY(put_node(page, facts, child));
    PUT(page, "</details>\n");
    return HIRL_OK;
}

static hirl_status_t put_classes(page_t *page, facts_t *facts) {
    const node_t *rest = &facts->node[facts->n_rows];
    PUT(page,
        "<section id=\"classes\" style=\"--thumbs: %dpx\"><h2>Classes</h2><div class=\"class "
        "head\"><span "
        "class=\"name\"></span><span class=\"bars\"></span>",
        facts->n_thumbs * THUMB);
    for (int s = 0; s < facts->n_splits; s++)
        PUT(page, "<b class=\"c%d\">%s</b>", s, facts->split[s].name);
    PUT(page, "<span class=\"thumbs\"></span></div>\n");
    for (int row = 0; row < facts->n_rows; row++)
        if (hirl_shard_set_class_parent(facts->tree, row) < 0) HIRL_TRY(put_node(page, facts, row));
    if (rest->count[0] > 0 || (facts->n_splits > 1 && rest->count[1] > 0))
        HIRL_TRY(put_node(page, facts, facts->n_rows));
    if (page->text.size > PAGE_MOST)
        PUT(page, "<p>Thumbnails end where the page became %d MiB large.</p>", PAGE_MOST >> 20);
    PUT(page, "</section>\n");
    return page->status;
}

// ------------------------------------------------------------------------------------ sizes

// The k-th smallest (k from 0) of what is counted.
static int side_at(const int64_t *count, int64_t k) {
    int side = 0;
    while (side < SIDES - 1 && k >= count[side]) k -= count[side++];
    return side;
}

// Bins are as wide as one another or, where sides differ much, in proportion to their place.
static void put_histogram(page_t *page, const facts_t *facts, int s, int axis) {
    const split_facts_t *of = facts->of[s];
    const int64_t *count = of->side[axis];
    const int low = side_at(count, 0), high = side_at(count, of->n - 1);
    if (low == high) return; // the table says it
    const bool is_log = low > 0 && high >= 8 * low;
    const int n_bins = high - low + 1 < N_BINS ? high - low + 1 : N_BINS;
    int64_t bin[N_BINS] = {0}, most = 0;
    int begin[N_BINS + 1];
    for (int i = 0; i <= n_bins; i++) {
        const double share = (double)i / n_bins;
        begin[i] = is_log ? (int)floor(low * pow((high + 1.0) / low, share) + 1e-9)
                          : low + (int)((int64_t)(high + 1 - low) * i / n_bins);
    }
    begin[n_bins] = high + 1;
    for (int i = 0; i < n_bins; i++) {
        for (int side = begin[i]; side < begin[i + 1]; side++) bin[i] += count[side];
        if (bin[i] > most) most = bin[i];
    }
    PUT(page,
        "<figure><figcaption>%s of %s</figcaption><svg viewBox=\"0 0 640 150\" role=\"img\" "
        "aria-label=\"%s of %s\" data-split=\"%d\" data-axis=\"%d\">",
        axis ? "Width" : "Height", facts->split[s].name, axis ? "Width" : "Height",
        facts->split[s].name, s, axis);
    for (int i = 0; i < n_bins; i++) {
        const double wide = 620.0 / n_bins, tall = 120.0 * (double)bin[i] / (double)most;
        PUT(page,
            "<rect class=\"c%d\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" "
            "data-n=\"%lld\"><title>%d",
            s, 10 + i * wide, 125 - tall, fmax(wide - 1, 0.5), tall, (long long)bin[i], begin[i]);
        if (begin[i + 1] - 1 > begin[i]) PUT(page, " to %d", begin[i + 1] - 1);
        PUT(page, " pixels: %lld images</title></rect>", (long long)bin[i]);
    }
    PUT(page,
        "<path class=\"tick\" d=\"M10 125H630\"/><text x=\"10\" y=\"143\">%d</text><text "
        "class=\"end\" x=\"630\" y=\"143\">%d pixels</text></svg></figure>\n",
        low, high);
}

static void put_sizes(page_t *page, const facts_t *facts) {
    PUT(page, "<section><h2>Sizes</h2><table id=\"sizes\"><thead><tr><th></th><td>least</td>"
              "<td>median</td><td>most</td></tr></thead><tbody>");
    for (int s = 0; s < facts->n_splits; s++)
        for (int axis = 0; axis < 2; axis++) {
            const split_facts_t *of = facts->of[s];
            PUT(page, "<tr><th>%s, %s</th><td>%d</td><td>%d</td><td>%d</td></tr>",
                facts->split[s].name, axis ? "width" : "height", side_at(of->side[axis], 0),
                side_at(of->side[axis], (of->n - 1) / 2), side_at(of->side[axis], of->n - 1));
        }
    PUT(page,
        "</tbody></table></section>\n<section><h2>Encodings</h2><table id=\"encodings\"><tbody>");
    for (int s = 0; s < facts->n_splits; s++) {
        static const char *const names[N_ENCODINGS] = {"raw", "JPEG", "PNG", "WebP", "video"};
        const split_facts_t *of = facts->of[s];
        int64_t n_known = 0;
        for (int e = 0; e < N_ENCODINGS; e++) n_known += of->encoding[e];
        for (int e = 0; e < N_ENCODINGS; e++) {
            if (of->encoding[e] == 0) continue;
            PUT(page, "<tr><th>%s, %s</th><td>%lld</td><td>%.1f %%</td></tr>", facts->split[s].name,
                names[e], (long long)of->encoding[e],
                100.0 * (double)of->encoding[e] / (double)n_known);
        }
        if (of->n_sniffed > 0 && n_known < of->n)
            PUT(page, "<tr><th>%s</th><td>%lld samples were looked at</td><td></td></tr>",
                facts->split[s].name, (long long)n_known);
    }
    PUT(page, "</tbody></table></section>\n");
}

static void put_shards(page_t *page, const facts_t *facts) {
    PUT(page, "<section><h2>Shards</h2><table id=\"shards\"><tbody>");
    for (int s = 0; s < facts->n_splits; s++) {
        const hirl_shard_set_t *set = facts->split[s].set;
        const int n = hirl_shard_set_n_shards(set);
        for (int i = 0; i < n && i < SHARDS_SHOWN; i++) {
            int64_t n_samples;
            hirl_shard_encoding_t encoding;
            const char *path = hirl_shard_set_shard_view(set, i, &n_samples, &encoding);
            PUT(page, "<tr><th>");
            put_escaped(page, path);
            PUT(page, "</th><td>%lld</td><td>%s</td></tr>", (long long)n_samples,
                hirl_shard_encoding_text(encoding));
        }
        if (n > SHARDS_SHOWN)
            PUT(page, "<tr><th>and %d more of %s</th><td></td><td></td></tr>", n - SHARDS_SHOWN,
                facts->split[s].name);
    }
    PUT(page, "</tbody></table></section>\n");
}

// ------------------------------------------------------------------------------------ page

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
    "style-src 'unsafe-inline'; img-src data:\">\n<style>\n"
    ":root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2430; "
    "--soft: #5b6675; --line: #e1e5ea; --mark: #b4234a; --c0: #2563eb; --c1: #c2620a; }\n"
    "@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1b2129; "
    "--ink: #e6eaf0; --soft: #9aa6b5; --line: #303945; --mark: #ff7d9c; --c0: #6ea8ff; "
    "--c1: #f5a34a; } }\n"
    "* { box-sizing: border-box; }\n"
    "body { margin: 0 auto; max-width: 1500px; padding: 24px; background: var(--page); "
    "color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }\n"
    "h1 { margin: 0; font-size: 26px; } h2 { margin: 0 0 8px; font-size: 16px; } "
    ".sub { margin: 2px 0 18px; color: var(--soft); overflow-wrap: anywhere; }\n"
    ".tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 0 0 18px; } "
    ".tiles div { padding: 10px 16px; } .tiles dt { color: var(--soft); font-size: 13px; } "
    ".tiles dd { margin: 0; font-size: 21px; font-variant-numeric: tabular-nums; }\n"
    "section, figure, .tiles div { margin: 0; background: var(--card); "
    "border: 1px solid var(--line); border-radius: 10px; } "
    "section { padding: 14px 18px; margin-bottom: 16px; overflow: auto; } "
    "figure { padding: 12px; } figcaption { font-weight: 600; }\n"
    ".cards { display: grid; gap: 16px; margin-bottom: 16px; align-items: start; "
    "grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); } "
    ".cards section { margin: 0; }\n"
    ".findings { margin: 0; padding-left: 18px; } .findings li::marker { color: var(--mark); }\n"
    ".class { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; "
    "padding: 3px 0; border-top: 1px solid var(--line); } .head { border: 0; "
    "color: var(--soft); }\n"
    ".name { flex: 1 1 16ch; overflow-wrap: anywhere; } small { color: var(--soft); } "
    ".bars { flex: 2 1 160px; } .bars i { display: block; height: 7px; margin: 1px 0; "
    "border-radius: 3px; }\n"
    ".class b { flex: 0 0 9ch; text-align: right; font-weight: 500; "
    "font-variant-numeric: tabular-nums; } .class .none { color: var(--mark); }\n"
    ".thumbs { flex: 0 0 var(--thumbs); max-width: 100%; } .class img { display: block; "
    "max-width: 100%; height: auto; border-radius: 4px; }\n"
    "details > :not(summary) { margin-left: 22px; } summary { cursor: pointer; font-weight: 600; } "
    "summary::before { content: '\\25b8'; } [open] > summary::before { content: '\\25be'; }\n"
    "i.c0 { background: var(--c0); } i.c1 { background: var(--c1); } b.c0 { color: var(--c0); } "
    "b.c1 { color: var(--c1); } rect.c0 { fill: var(--c0); } rect.c1 { fill: var(--c1); }\n"
    "svg { display: block; width: 100%; height: auto; } text { fill: var(--soft); "
    "font: 13px system-ui, sans-serif; } .end { text-anchor: end; } "
    ".tick { stroke: var(--soft); fill: none; }\n"
    "table { border-collapse: collapse; width: 100%; font-size: 14px; } th { text-align: left; "
    "font-weight: 500; color: var(--soft); padding: 3px 14px 3px 0; overflow-wrap: anywhere; } "
    "td { padding: 3px 0 3px 14px; text-align: right; font-variant-numeric: tabular-nums; } "
    "thead td { color: var(--soft); } tr + tr { border-top: 1px solid var(--line); }\n"
    "</style>\n<title>";

static void put_tiles(page_t *page, const facts_t *facts) {
    int n_classes = 0;
    for (int row = 0; row < facts->n_rows; row++) n_classes += !facts->node[row].is_parent;
    PUT(page, "<dl class=\"tiles\"><div><dt>classes</dt><dd>%d</dd></div>", n_classes);
    if (n_classes < facts->n_rows)
        PUT(page, "<div><dt>super-classes</dt><dd>%d</dd></div>", facts->n_rows - n_classes);
    for (int s = 0; s < facts->n_splits; s++) {
        const split_facts_t *of = facts->of[s];
        char all[32], one[32];
        PUT(page,
            "<div><dt>%s, samples</dt><dd>%lld</dd></div><div><dt>%s, shards</dt><dd>%d</dd></div>"
            "<div><dt>%s, stored</dt><dd>%s<small> %s each</small></dd></div>",
            facts->split[s].name, (long long)of->n, facts->split[s].name,
            hirl_shard_set_n_shards(facts->split[s].set), facts->split[s].name,
            hirl_text_bytes(all, (double)of->n_bytes),
            hirl_text_bytes(one, of->n ? (double)of->n_bytes / (double)of->n : 0));
    }
    PUT(page, "</dl>\n");
}

static hirl_status_t put_page(page_t *page, facts_t *facts, const copies_t *copies) {
    PUT(page, "%s", head);
    put_escaped(page, facts->split[0].pattern);
    PUT(page, "</title></head>\n<body>\n<h1>Data set</h1>\n<p class=\"sub\">");
    for (int s = 0; s < facts->n_splits; s++) {
        PUT(page, "%s%s: ", s ? "; " : "", facts->split[s].name);
        put_escaped(page, facts->split[s].pattern);
    }
    PUT(page, "</p>\n");
    put_tiles(page, facts);
    PUT(page, "<section id=\"findings\"><h2>What to look at</h2>");
    put_findings(page, facts, copies);
    PUT(page, "</section>\n");
    HIRL_TRY(put_classes(page, facts));
    PUT(page, "<div class=\"cards\">\n");
    for (int s = 0; s < facts->n_splits; s++)
        for (int axis = 0; axis < 2; axis++) put_histogram(page, facts, s, axis);
    PUT(page, "</div>\n<div class=\"cards\">\n");
    put_sizes(page, facts);
    put_shards(page, facts);
    PUT(page, "</div>\n</body></html>\n");
    return page->status;
}

hirl_status_t hirl_dataset_page_write(const hirl_dataset_split_t *splits, int n_splits,
                                      const hirl_preview_cfg_t *preview, const char *path) {
    HIRL_REQUIRE(n_splits >= 1 && n_splits <= HIRL_DATASET_SPLITS_MAX, HIRL_ERR_ARG, "%d splits",
                 n_splits);
    facts_t facts = {.split = splits, .n_splits = n_splits, .preview = preview};
    copies_t copies = {0};
    page_t page = {.status = HIRL_OK};
    hirl_status_t status = gather(&facts);
    if (status == HIRL_OK) status = find_copies(&facts, &copies);
    if (status == HIRL_OK) status = put_page(&page, &facts, &copies);
    if (status == HIRL_OK) status = hirl_path_write_whole(path, page.text.data, page.text.size);
    hirl_text_reset(&page.text);
    release(&facts);
    return status;
}
