// Data sets in the folders and lists that they are published as. Splits and labels are those of
// the usual protocols: CUB-200-2011 and Cars-196 train on the first half of their classes and
// evaluate on the second; Stanford Online Products and In-shop have lists of both; VOC 2007 has a
// list a class, and several classes an image.
#include "data_impl.h"

#include <stdlib.h>
#include <string.h>

enum { CUB_CLASSES = 200, CARS_CLASSES = 196, IDS_MAX = 1000000 };

// -------------------------------------------------------------------------------------- places

// The folder that has `marker` in it: pack%source, or one of `inner` in it.
static hirl_status_t find_root(const hirl_pack_cfg_t *cfg, const char *const *inner, int n_inner,
                               const char *marker, char root[PATH_MAX]) {
    char path[PATH_MAX];
    for (int i = -1; i < n_inner; i++) {
        HIRL_TRY(hirl_text_format(root, PATH_MAX, "%s%s%s", cfg->source, i < 0 ? "" : "/",
                                  i < 0 ? "" : inner[i]));
        HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", root, marker));
        if (hirl_pack_is_folder(path) || hirl_pack_is_file(path)) return HIRL_OK;
    }
    return HIRL_FAIL(
        HIRL_ERR_IO,
        "pack%%source: there is no %s/%s, nor one in its folder %s: pack%%format = '%s' "
        "expects the data set as it is published",
        cfg->source, marker, inner[n_inner - 1], cfg->format);
}

// Which of the names pack%split is.
static hirl_status_t find_split(const hirl_pack_cfg_t *cfg, const char *const *names, int n,
                                int *split_p) {
    char all[256] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(cfg->split, names[i]) == 0) {
            *split_p = i;
            return HIRL_OK;
        }
        const size_t at = strlen(all);
        HIRL_TRY(hirl_text_format(all + at, sizeof all - at, "%s'%s'",
                                  i == 0      ? ""
                                  : i + 1 < n ? ", "
                                              : " or ",
                                  names[i]));
    }
    return HIRL_FAIL(HIRL_ERR_DECK, "pack%%split is '%s', and format '%s' has %s", cfg->split,
                     cfg->format, all);
}

static hirl_status_t find_half(const hirl_pack_cfg_t *cfg, bool *is_second_p) {
    static const char *const names[] = {"train", "val", "test"};
    int split = 0;
    HIRL_TRY(find_split(cfg, names, 3, &split));
    *is_second_p = split > 0;
    return HIRL_OK;
}

static hirl_status_t keep_half(hirl_pack_source_t *source, int n_classes, bool is_second) {
    bool *is_wanted = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, source->n, &is_wanted));
    for (int64_t i = 0; i < source->n; i++)
        is_wanted[i] = (source->item[i].label >= n_classes / 2) == is_second;
    hirl_pack_keep_wanted(source, is_wanted);
    hirl_mem_free(is_wanted);
    return HIRL_OK;
}

static hirl_status_t broken_line(const hirl_lines_t *lines, hirl_span_t line,
                                 const char *expected) {
    return HIRL_FAIL(HIRL_ERR_FORMAT, "%s:%lld: '%.*s', expected %s", lines->path,
                     (long long)lines->number, (int)(line.size < 200 ? line.size : 200), line.text,
                     expected);
}

static hirl_status_t add_path(hirl_pack_entries_t *entries, const hirl_lines_t *lines,
                              hirl_span_t path, int64_t label) {
    hirl_pack_entry_t *entry = NULL;
    if (path.size >= PATH_MAX) return broken_line(lines, path, "a shorter path");
    HIRL_TRY(hirl_pack_entries_add(entries, path.text, path.size, &entry));
    entry->label = (int32_t)label;
    return HIRL_OK;
}

// ------------------------------------------------------------------------------- CUB-200-2011

// images/<number>.<name>/<image>: a class is the rank of its folder.
hirl_status_t hirl_pack_find_cub(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    static const char *const inner[] = {"CUB_200_2011"};
    char root[PATH_MAX];
    bool is_second = false;
    hirl_pack_cfg_t folder = *cfg;
    HIRL_TRY(find_half(cfg, &is_second));
    HIRL_TRY(find_root(cfg, inner, 1, "images", root));
    HIRL_TRY(hirl_text_format(folder.source, sizeof folder.source, "%s/images", root));
    HIRL_TRY(hirl_text_format(folder.classes, sizeof folder.classes, "top"));
    HIRL_TRY(hirl_pack_find_folder(&folder, source));
    HIRL_REQUIRE(source->classes.n == CUB_CLASSES, HIRL_ERR_FORMAT,
                 "%s has %d folders of classes, CUB-200-2011 has %d", folder.source,
                 source->classes.n, CUB_CLASSES);
    return keep_half(source, CUB_CLASSES, is_second);
}

// --------------------------------------------------------------------- Stanford Online Products

// A line "image_id class_id super_class_id path", behind a header.
typedef struct product {
    int64_t class_id, super_id;
    hirl_span_t path;
} product_t;

static hirl_status_t parse_product(const hirl_lines_t *lines, hirl_span_t line,
                                   product_t *product) {
    hirl_span_t rest = line, image, class_id, super_id;
    int64_t number;
    const bool is_good = hirl_span_take_word(&rest, &image) &&
                         hirl_span_number(image, 0, INT64_MAX, &number) &&
                         hirl_span_take_word(&rest, &class_id) &&
                         hirl_span_number(class_id, 1, IDS_MAX, &product->class_id) &&
                         hirl_span_take_word(&rest, &super_id) &&
                         hirl_span_number(super_id, 1, IDS_MAX, &product->super_id) &&
                         hirl_span_take_word(&rest, &product->path);
    return is_good ? HIRL_OK : broken_line(lines, line, "'image_id class_id super_class_id path'");
}

// What both lists say of classes: those of training and of evaluation are different ones, and
// share a table, so that sets can be compared.
typedef struct products {
    int32_t *super;    // [n_classes], 0: there is no such class
    int64_t n_classes; // largest class_id
    hirl_text_t *name; // [n_supers] the folder of its images
    int64_t n_supers, super_capacity, name_capacity;
} products_t;

static void products_reset(products_t *products) {
    for (int64_t s = 0; s < products->n_supers; s++) hirl_text_reset(&products->name[s]);
    hirl_mem_free(products->super);
    hirl_mem_free(products->name);
}

static hirl_status_t note_product(products_t *products, const hirl_lines_t *lines,
                                  const product_t *product) {
    const int64_t c = product->class_id - 1, s = product->super_id,
                  largest = product->class_id > s ? product->class_id : s;
    // Classes are counted from 1; a short list that names a late one would ask for much memory.
    HIRL_REQUIRE(largest <= (int64_t)lines->size, HIRL_ERR_FORMAT,
                 "%s:%lld: class or super-class %lld, expected fewer in a list of %zu bytes",
                 lines->path, (long long)lines->number, (long long)largest, lines->size);
    if (c >= products->n_classes) {
        HIRL_TRY(hirl_pack_grow(&products->super, &products->super_capacity, c + 1,
                                sizeof *products->super));
        while (products->n_classes <= c) products->super[products->n_classes++] = 0;
    }
    if (s > products->n_supers) {
        HIRL_TRY(
            hirl_pack_grow(&products->name, &products->name_capacity, s, sizeof *products->name));
        while (products->n_supers < s) products->name[products->n_supers++] = (hirl_text_t){0};
    }
    HIRL_REQUIRE(products->super[c] == 0 || products->super[c] == s, HIRL_ERR_FORMAT,
                 "%s:%lld: class %lld is of super-class %lld here, and of %d before", lines->path,
                 (long long)lines->number, (long long)c + 1, (long long)s, products->super[c]);
    products->super[c] = (int32_t)s;
    const char *slash = memchr(product->path.text, '/', product->path.size);
    if (products->name[s - 1].size > 0 || !slash) return HIRL_OK;
    if (slash - product->path.text > NAME_MAX)
        return broken_line(lines, product->path, "a folder with a shorter name");
    return hirl_text_append(&products->name[s - 1], "%.*s", (int)(slash - product->path.text),
                            product->path.text);
}

static hirl_status_t read_products(const char *path, products_t *products,
                                   hirl_pack_entries_t *entries) {
    hirl_lines_t lines;
    hirl_span_t line;
    product_t product;
    HIRL_TRY(hirl_lines_open(path, &lines));
    hirl_status_t status = HIRL_OK;
    (void)hirl_lines_next(&lines, &line); // the header
    while (status == HIRL_OK && hirl_lines_next(&lines, &line)) {
        status = parse_product(&lines, line, &product);
        if (status == HIRL_OK) status = note_product(products, &lines, &product);
        if (status == HIRL_OK && entries)
            status = add_path(entries, &lines, product.path, product.class_id - 1);
    }
    hirl_lines_close(&lines);
    return status;
}

// Classes are called by their numbers, super-classes by the folders of their images.
static hirl_status_t make_product_classes(const products_t *products, hirl_class_table_t *classes) {
    const int64_t n = products->n_classes + products->n_supers;
    size_t width = 24;
    for (int64_t s = 0; s < products->n_supers; s++) {
        if (products->name[s].size + 1 > width) width = products->name[s].size + 1;
    }
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)n, width, (void **)&classes->name));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, n, &classes->parent));
    classes->n = (int)n;
    classes->width = (int)width;
    for (int64_t i = 0; i < n; i++) {
        char *row = classes->name + (size_t)i * width;
        const int64_t s = i - products->n_classes;
        classes->parent[i] = -1;
        if (s < 0) {
            HIRL_TRY(hirl_text_format(row, width, "%lld", (long long)i + 1));
            if (products->super[i])
                classes->parent[i] = (int32_t)(products->n_classes + products->super[i] - 1);
        } else if (products->name[s].size > 0) {
            memcpy(row, products->name[s].data, products->name[s].size);
        } else {
            HIRL_TRY(hirl_text_format(row, width, "super %lld", (long long)s + 1));
        }
    }
    return HIRL_OK;
}

hirl_status_t hirl_pack_find_sop(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    static const char *const inner[] = {"Stanford_Online_Products"};
    static const char *const lists[] = {"Ebay_train.txt", "Ebay_test.txt"};
    char path[PATH_MAX];
    bool is_second = false;
    products_t products = {0};
    hirl_pack_entries_t entries = {0};
    hirl_status_t status;
    HIRL_TRY(find_half(cfg, &is_second));
    HIRL_TRY(find_root(cfg, inner, 1, lists[is_second], source->root));
    for (int l = 0; l < 2; l++) {
        HIRL_TRY_GOTO(hirl_text_format(path, sizeof path, "%s/%s", source->root, lists[l]), status,
                      done);
        HIRL_TRY_GOTO(read_products(path, &products, l == is_second ? &entries : NULL), status,
                      done);
    }
    HIRL_TRY_GOTO(make_product_classes(&products, &source->classes), status, done);
    status = hirl_pack_entries_deliver(&entries, source);
done:
    products_reset(&products);
    hirl_pack_entries_reset(&entries);
    return status;
}

// ---------------------------------------------------------------------------------- In-shop

// A line "name item_id status" of list_eval_partition.txt.
typedef struct item {
    hirl_span_t path, id;
    int64_t number;  // behind the last '_' of the id
    int64_t in_line; // for messages
    bool is_wanted;
} item_t;

static hirl_status_t parse_item(const hirl_lines_t *lines, hirl_span_t line, int split,
                                item_t *item, bool *is_counted_p) {
    static const char *const states[] = {"train", "query", "gallery"};
    hirl_span_t rest = line, state = {NULL, 0};
    size_t from = 0;
    bool is_good = hirl_span_take_word(&rest, &item->path) &&
                   hirl_span_take_word(&rest, &item->id) && hirl_span_take_word(&rest, &state);
    for (size_t i = 0; is_good && i < item->id.size; i++) {
        if (item->id.text[i] == '_') from = i + 1;
    }
    is_good = is_good && hirl_span_number((hirl_span_t){item->id.text + from, item->id.size - from},
                                          0, INT64_MAX, &item->number);
    int s = 0;
    while (is_good && s < 3 && !hirl_span_equals(state, states[s])) s++;
    if (!is_good || s == 3)
        return broken_line(lines, line,
                           "'image item_id status', the status 'train', 'query' or "
                           "'gallery'");
    item->is_wanted = s == split;
    item->in_line = lines->number;
    // Labels count the items of training, or those of both parts of the evaluation.
    *is_counted_p = (s == 0) == (split == 0);
    return HIRL_OK;
}

static int compare_items(const void *a_p, const void *b_p) {
    const int64_t a = ((const item_t *)a_p)->number, b = ((const item_t *)b_p)->number;
    return (a > b) - (a < b);
}

typedef struct items {
    item_t *item; // [n] in the order of lines
    int64_t n, capacity;
    item_t *class; // [n_classes] one of each number, sorted
    int64_t n_classes;
} items_t;

static hirl_status_t read_items(hirl_lines_t *lines, int split, items_t *items) {
    hirl_span_t line;
    int64_t n_promised = 0, n_lines = 0;
    HIRL_REQUIRE(hirl_lines_next(lines, &line) && hirl_span_number(line, 1, INT64_MAX, &n_promised),
                 HIRL_ERR_FORMAT, "%s:1: expected the number of images", lines->path);
    (void)hirl_lines_next(lines, &line); // the header
    for (; hirl_lines_next(lines, &line); n_lines++) {
        bool is_counted = false;
        HIRL_TRY(hirl_pack_grow(&items->item, &items->capacity, items->n + 1, sizeof *items->item));
        HIRL_TRY(parse_item(lines, line, split, &items->item[items->n], &is_counted));
        items->n += is_counted;
    }
    HIRL_REQUIRE(n_lines == n_promised, HIRL_ERR_FORMAT,
                 "%s: %lld images are listed, %lld promised: it is cut short, get it again",
                 lines->path, (long long)n_lines, (long long)n_promised);
    return HIRL_OK;
}

static hirl_status_t label_items(const hirl_lines_t *lines, items_t *items,
                                 hirl_pack_source_t *source, hirl_pack_entries_t *entries) {
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, items->n, &items->class));
    memcpy(items->class, items->item, (size_t)items->n * sizeof *items->class);
    qsort(items->class, (size_t)items->n, sizeof *items->class, compare_items);
    for (int64_t i = 0; i < items->n; i++) {
        if (i == 0 || compare_items(&items->class[i], &items -> class[items->n_classes - 1]))
            items->class[items->n_classes++] = items->class[i];
    }
    HIRL_REQUIRE(items->n_classes <= IDS_MAX, HIRL_ERR_FORMAT, "%s: %lld items, at most %d",
                 lines->path, (long long)items->n_classes, IDS_MAX);
    size_t width = 1;
    for (int64_t c = 0; c < items->n_classes; c++) {
        if (items->class[c].id.size + 1 > width) width = items->class[c].id.size + 1;
    }
    HIRL_REQUIRE(width <= 4096, HIRL_ERR_FORMAT, "%s: an item_id of %zu bytes", lines->path, width);
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, (size_t)items->n_classes, width,
                             (void **)&source->classes.name));
    source->classes.n = (int)items->n_classes;
    source->classes.width = (int)width;
    for (int64_t c = 0; c < items->n_classes; c++)
        memcpy(source->classes.name + (size_t)c * width, items->class[c].id.text,
               items->class[c].id.size);
    for (int64_t i = 0; i < items->n; i++) {
        if (!items->item[i].is_wanted) continue;
        const item_t *found = bsearch(&items->item[i], items->class, (size_t)items->n_classes,
                                      sizeof *items->class, compare_items);
        HIRL_TRY(add_path(entries, lines, items->item[i].path, found - items->class));
    }
    return HIRL_OK;
}

hirl_status_t hirl_pack_find_inshop(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    static const char *const inner[] = {"Inshop_Clothes"};
    static const char *const splits[] = {"train", "query", "gallery"};
    static const char list[] = "Eval/list_eval_partition.txt";
    char root[PATH_MAX], path[PATH_MAX];
    int split = 0;
    HIRL_TRY(find_split(cfg, splits, 3, &split));
    HIRL_TRY(find_root(cfg, inner, 1, list, root));
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", root, list));
    HIRL_TRY(hirl_text_format(source->root, sizeof source->root, "%s/Img", root));
    hirl_lines_t lines;
    items_t items = {0};
    hirl_pack_entries_t entries = {0};
    HIRL_TRY(hirl_lines_open(path, &lines));
    hirl_status_t status;
    HIRL_TRY_GOTO(read_items(&lines, split, &items), status, done);
    HIRL_TRY_GOTO(label_items(&lines, &items, source, &entries), status, done);
    status = hirl_pack_entries_deliver(&entries, source);
done:
    hirl_mem_free(items.item);
    hirl_mem_free(items.class);
    hirl_pack_entries_reset(&entries);
    hirl_lines_close(&lines);
    return status;
}

// ---------------------------------------------------------------------------------- VOC 2007

static const char *const voc_classes[] = {
    "aeroplane", "bicycle",     "bird",  "boat",        "bottle", "bus",      "car",
    "cat",       "chair",       "cow",   "diningtable", "dog",    "horse",    "motorbike",
    "person",    "pottedplant", "sheep", "sofa",        "train",  "tvmonitor"};
enum { VOC_CLASSES = sizeof voc_classes / sizeof *voc_classes };

// A line "<image> <target>" of a class's list.
static hirl_status_t parse_target(const hirl_lines_t *lines, hirl_span_t line, hirl_span_t *image,
                                  int64_t *target) {
    hirl_span_t rest = line, value;
    const bool is_good = hirl_span_take_word(&rest, image) && hirl_span_take_word(&rest, &value) &&
                         hirl_span_number(value, -1, 1, target);
    return is_good ? HIRL_OK : broken_line(lines, line, "an image and -1, 0 or 1");
}

// The list of the first class says which images there are.
static hirl_status_t add_voc_images(hirl_lines_t *lines, hirl_pack_entries_t *entries) {
    hirl_span_t line, image;
    int64_t target;
    char path[PATH_MAX];
    while (hirl_lines_next(lines, &line)) {
        HIRL_TRY(parse_target(lines, line, &image, &target));
        if (image.size > 255) return broken_line(lines, line, "a shorter name");
        HIRL_TRY(hirl_text_format(path, sizeof path, "JPEGImages/%.*s.jpg", (int)image.size,
                                  image.text));
        HIRL_TRY(add_path(entries, lines, (hirl_span_t){path, strlen(path)}, -1));
    }
    lines->at = 0;
    lines->number = 0;
    return HIRL_OK;
}

static hirl_status_t read_targets(hirl_lines_t *lines, int class, const char *first_list,
                                  hirl_pack_source_t *source) {
    static const char before[] = "JPEGImages/", after[] = ".jpg";
    hirl_span_t line, image;
    int64_t target, n = 0;
    while (hirl_lines_next(lines, &line)) {
        HIRL_TRY(parse_target(lines, line, &image, &target));
        const int64_t at = n < source->n ? source->name_offset[n] : 0,
                      size = n < source->n ? source->name_offset[n + 1] - at : 0;
        const bool is_same =
            size == (int64_t)(sizeof before - 1 + image.size + sizeof after - 1) &&
            memcmp(source->name + at + sizeof before - 1, image.text, image.size) == 0;
        HIRL_REQUIRE(is_same, HIRL_ERR_FORMAT,
                     "%s:%lld: image '%.*s', expected the images of %s in their order", lines->path,
                     (long long)lines->number, (int)image.size, image.text, first_list);
        source->target[n++ * VOC_CLASSES + class] = (int8_t)target;
    }
    HIRL_REQUIRE(n == source->n, HIRL_ERR_FORMAT, "%s: %lld images, %s has %lld", lines->path,
                 (long long)n, first_list, (long long)source->n);
    return HIRL_OK;
}

static hirl_status_t read_voc_class(const hirl_pack_cfg_t *cfg, int class, const char *first_list,
                                    hirl_pack_source_t *source) {
    char path[PATH_MAX];
    hirl_lines_t lines;
    hirl_pack_entries_t entries = {0};
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/ImageSets/Main/%s_%s.txt", source->root,
                              voc_classes[class], cfg->split));
    HIRL_TRY(hirl_lines_open(path, &lines));
    if (class == 0) {
        HIRL_TRY_GOTO(add_voc_images(&lines, &entries), status, done);
        HIRL_TRY_GOTO(hirl_pack_entries_deliver(&entries, source), status, done);
        HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, source->n * VOC_CLASSES, &source->target), status,
                      done);
        source->n_targets = VOC_CLASSES;
    }
    status = read_targets(&lines, class, first_list, source);
done:
    hirl_pack_entries_reset(&entries);
    hirl_lines_close(&lines);
    return status;
}

hirl_status_t hirl_pack_find_voc07(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    static const char *const inner[] = {"VOC2007", "VOCdevkit/VOC2007"};
    static const char *const splits[] = {"train", "val", "trainval", "test"};
    char first_list[128];
    int split = 0;
    HIRL_TRY(find_split(cfg, splits, 4, &split));
    HIRL_TRY(find_root(cfg, inner, 2, "ImageSets/Main", source->root));
    HIRL_TRY(
        hirl_text_format(first_list, sizeof first_list, "%s_%s.txt", voc_classes[0], cfg->split));
    for (int c = 0; c < VOC_CLASSES; c++) HIRL_TRY(read_voc_class(cfg, c, first_list, source));
    return hirl_pack_make_classes(voc_classes, VOC_CLASSES, &source->classes);
}

// ---------------------------------------------------------------------------------- Cars-196

// Which of a struct's fields are meant.
static hirl_status_t find_fields(const char *path, hirl_mat_part_t names, size_t width,
                                 const char *const *wanted, int n_wanted, int *field,
                                 int *n_fields_p) {
    *n_fields_p = (int)(names.size / width);
    for (int w = 0; w < n_wanted; w++) {
        field[w] = -1;
        for (int f = 0; f < *n_fields_p; f++) {
            const char *name = (const char *)names.bytes + (size_t)f * width;
            if (strnlen(name, width) == strlen(wanted[w]) &&
                memcmp(name, wanted[w], strlen(wanted[w])) == 0)
                field[w] = f;
        }
        HIRL_REQUIRE(field[w] >= 0, HIRL_ERR_FORMAT, "%s: 'annotations' has no field '%s'", path,
                     wanted[w]);
    }
    return HIRL_OK;
}

// annotations(i).relative_im_path, .class; whether the authors meant it for training is passed over.
static hirl_status_t read_annotations(hirl_mat_t *mat, const char *path,
                                      hirl_pack_entries_t *entries) {
    static const char *const wanted[] = {"relative_im_path", "class"};
    hirl_mat_array_t list, item;
    hirl_mat_part_t names;
    size_t width = 1;
    bool is_there = false;
    int field[2], n_fields = 0;
    char text[1024] = "";
    HIRL_TRY(hirl_mat_find(mat, "annotations", &list, &is_there));
    HIRL_REQUIRE(is_there, HIRL_ERR_FORMAT, "%s: has no variable 'annotations'", path);
    HIRL_TRY(hirl_mat_fields(mat, &list, &names, &width));
    HIRL_TRY(find_fields(path, names, width, wanted, 2, field, &n_fields));
    for (int64_t i = 0; i < list.n; i++) {
        int64_t class = 0;
        for (int f = 0; f < n_fields; f++) {
            HIRL_TRY(hirl_mat_take_array(mat, &list.rest, &item));
            if (f == field[0]) HIRL_TRY(hirl_mat_text(mat, &item, text, sizeof text));
            if (f == field[1]) HIRL_TRY(hirl_mat_number(mat, &item, &class));
        }
        HIRL_REQUIRE(
            text[0] && class >= 1 && class <= CARS_CLASSES, HIRL_ERR_FORMAT,
            "%s: annotation %lld is of image '%s' and class %lld, expected a path and 1 to "
            "%d",
            path, (long long)i + 1, text, (long long)class, CARS_CLASSES);
        hirl_pack_entry_t *entry = NULL;
        HIRL_TRY(hirl_pack_entries_add(entries, text, strlen(text), &entry));
        entry->label = (int32_t) class - 1;
    }
    return HIRL_OK;
}

// class_names{c}; without, classes have no names.
static hirl_status_t read_car_names(hirl_mat_t *mat, const char *path,
                                    hirl_class_table_t *classes) {
    enum { WIDTH = 256 };
    hirl_mat_array_t list, item;
    bool is_there = false;
    HIRL_TRY(hirl_mat_find(mat, "class_names", &list, &is_there));
    if (!is_there) return HIRL_OK;
    HIRL_REQUIRE(list.class == HIRL_MAT_CELL && list.n == CARS_CLASSES, HIRL_ERR_FORMAT,
                 "%s: 'class_names' has %lld items, expected %d texts", path, (long long)list.n,
                 CARS_CLASSES);
    HIRL_TRY(hirl_mem_calloc(HIRL_MEM_DATA, CARS_CLASSES, WIDTH, (void **)&classes->name));
    classes->n = CARS_CLASSES;
    classes->width = WIDTH;
    for (int c = 0; c < CARS_CLASSES; c++) {
        char *row = classes->name + (size_t)c * WIDTH;
        HIRL_TRY(hirl_mat_take_array(mat, &list.rest, &item));
        HIRL_TRY(hirl_mat_text(mat, &item, row, WIDTH));
        HIRL_REQUIRE(row[0], HIRL_ERR_FORMAT, "%s: class %d has an empty name", path, c + 1);
    }
    return HIRL_OK;
}

hirl_status_t hirl_pack_find_cars(const hirl_pack_cfg_t *cfg, hirl_pack_source_t *source) {
    static const char *const inner[] = {"cars196"};
    static const char annotations[] = "cars_annos.mat";
    char path[PATH_MAX];
    bool is_second = false;
    hirl_mat_t *mat = NULL;
    hirl_pack_entries_t entries = {0};
    hirl_status_t status;
    HIRL_TRY(find_half(cfg, &is_second));
    HIRL_TRY(find_root(cfg, inner, 1, annotations, source->root));
    HIRL_TRY(hirl_text_format(path, sizeof path, "%s/%s", source->root, annotations));
    HIRL_TRY(hirl_mat_open(path, &mat));
    HIRL_TRY_GOTO(read_annotations(mat, path, &entries), status, done);
    HIRL_TRY_GOTO(read_car_names(mat, path, &source->classes), status, done);
    HIRL_TRY_GOTO(hirl_pack_entries_deliver(&entries, source), status, done);
    status = keep_half(source, CARS_CLASSES, is_second);
done:
    hirl_pack_entries_reset(&entries);
    hirl_mat_close(&mat);
    return status;
}
