// The deck object: group structs at their defaults, files and overrides applied to a scratch copy and committed only if
// all went well, base decks read before the deck that names them.
#include "deck_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------------ create, destroy

static hirl_status_t lay_out(hirl_deck_t *deck, const hirl_group_t *const *groups, int n_groups) {
    deck->n_groups = n_groups;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_groups, &deck->groups));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_groups, &deck->key0));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_groups, &deck->group_names));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, n_groups, &deck->offset));
    for (int g = 0; g < n_groups; g++) {
        deck->groups[g] = groups[g];
        deck->group_names[g] = groups[g]->name;
        deck->key0[g] = deck->n_keys;
        deck->n_keys += groups[g]->n_keys;
        // As hirl_mem_alloc: whatever a struct holds is aligned.
        deck->offset[g] = deck->block_size;
        deck->block_size += (groups[g]->struct_size + 63) / 64 * 64;
    }
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->n_keys, &deck->key_names));
    for (int g = 0; g < n_groups; g++) {
        for (int k = 0; k < groups[g]->n_keys; k++)
            deck->key_names[deck->key0[g] + k] = groups[g]->keys[k].name;
    }
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->block_size, &deck->block));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->block_size, &deck->defaults));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->block_size, &deck->scratch));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->n_keys, &deck->state));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, deck->n_keys, &deck->default_state));
    return HIRL_ALLOC(HIRL_MEM_GENERAL, deck->n_keys, &deck->scratch_state);
}

static hirl_status_t set_default(hirl_deck_t *deck, int group, int key) {
    const hirl_key_t *row = &deck->groups[group]->keys[key];
    if (!row->default_text || (key_is_list(row) && !row->default_text[0])) return HIRL_OK;
    char name[2 * DECK_NAME_MAX + 2];
    snprintf(name, sizeof name, "%s%%%s", deck->group_names[group], row->name);
    const deck_source_t source = {SOURCE_DEFAULT, name, row->default_text,
                                  strlen(row->default_text)};
    const deck_assign_t target = {.group = group,
                                  .key = key,
                                  .stride = 1,
                                  .capacity = key_is_list(row) ? HIRL_DECK_LIST_MAX : 1};
    deck_script_t script = {0};
    hirl_status_t status = hirl_deck_parse_value(deck, &source, 0, &target, &script);
    if (status == HIRL_OK)
        status = hirl_deck_apply(deck, &source, &script, deck->defaults, deck->default_state);
    hirl_deck_script_reset(&script);
    deck->default_state[deck->key0[group] + key].is_set = false;
    // A wrong default is our mistake, not the deck's.
    if (status == HIRL_ERR_DECK)
        status = HIRL_FAIL(HIRL_ERR_INTERNAL, "%s", hirl_error_text_view());
    return status;
}

hirl_status_t hirl_deck_create(const hirl_group_t *const *groups, int n_groups,
                               hirl_deck_t **deck_p) {
    HIRL_REQUIRE(deck_p, HIRL_ERR_ARG, "no place to put the deck");
    HIRL_TRY(hirl_deck_check_tables(groups, n_groups));
    hirl_deck_t *deck = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, 1, &deck));
    hirl_status_t status;
    HIRL_TRY_GOTO(lay_out(deck, groups, n_groups), status, err_destroy);
    for (int g = 0; g < n_groups; g++) {
        for (int k = 0; k < groups[g]->n_keys; k++)
            HIRL_TRY_GOTO(set_default(deck, g, k), status, err_destroy);
    }
    memcpy(deck->block, deck->defaults, deck->block_size);
    memcpy(deck->state, deck->default_state, (size_t)deck->n_keys * sizeof *deck->state);
    *deck_p = deck;
    return HIRL_OK;
err_destroy:
    hirl_deck_destroy(&deck);
    return status;
}

static void free_files(hirl_deck_t *deck) {
    for (int i = 0; i < deck->n_files; i++) hirl_mem_free(deck->files[i]);
    hirl_mem_free(deck->files);
    deck->files = NULL;
    deck->n_files = 0;
}

void hirl_deck_destroy(hirl_deck_t **deck_p) {
    if (!deck_p || !*deck_p) return;
    hirl_deck_t *deck = *deck_p;
    free_files(deck);
    hirl_mem_free(deck->groups);
    hirl_mem_free(deck->key0);
    hirl_mem_free(deck->group_names);
    hirl_mem_free(deck->key_names);
    hirl_mem_free(deck->offset);
    hirl_mem_free(deck->block);
    hirl_mem_free(deck->defaults);
    hirl_mem_free(deck->scratch);
    hirl_mem_free(deck->state);
    hirl_mem_free(deck->default_state);
    hirl_mem_free(deck->scratch_state);
    hirl_mem_free(deck);
    *deck_p = NULL;
}

static void begin_change(hirl_deck_t *deck) {
    memcpy(deck->scratch, deck->block, deck->block_size);
    memcpy(deck->scratch_state, deck->state, (size_t)deck->n_keys * sizeof *deck->state);
}

// Views handed out stay valid: the structs keep their addresses.
static void commit_change(hirl_deck_t *deck) {
    memcpy(deck->block, deck->scratch, deck->block_size);
    memcpy(deck->state, deck->scratch_state, (size_t)deck->n_keys * sizeof *deck->state);
}

// ------------------------------------------------------------------------------------------ files

// A deck being read and the one that names it as its base.
typedef struct link {
    const deck_source_t *source;
    bool has_id; // false for a deck from memory
    dev_t device;
    ino_t inode;
    const struct link *derived;
    int n; // files of the chain so far
} link_t;

static hirl_status_t add_file(hirl_deck_t *deck, const char *path) {
    void *files = deck->files;
    HIRL_TRY(hirl_mem_realloc(HIRL_MEM_GENERAL, (size_t)(deck->n_files + 1) * sizeof *deck->files,
                              &files));
    deck->files = files;
    char *copy = NULL;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_GENERAL, strlen(path) + 1, &copy));
    strcpy(copy, path);
    deck->files[deck->n_files++] = copy;
    return HIRL_OK;
}

// Reads a whole file; `who` begins the message of a failure ("" or the place of the base's name).
static hirl_status_t load(const char *path, const char *who, char **data_p, size_t *size_p,
                          struct stat *info_p) {
    hirl_status_t status = HIRL_OK;
    void *data = NULL;
    size_t size = 0, room = 0;
    // A user may give a pipe; a pipe or device that a deck names would be waited for.
    const bool is_base = who[0] != '\0';
    const int fd = open(path, O_RDONLY | O_CLOEXEC | (is_base ? O_NONBLOCK : 0));
    FILE *file = fd >= 0 ? fdopen(fd, "rb") : NULL;
    if (!file) {
        const int cause = errno;
        if (fd >= 0) close(fd);
        return HIRL_FAIL(HIRL_ERR_IO, "%scannot open deck '%s': %s", who, path, strerror(cause));
    }
    if (fstat(fileno(file), info_p) != 0) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%scannot read deck '%s': %s", who, path, strerror(errno));
        goto err_close;
    }
    if (S_ISDIR(info_p->st_mode)) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%s'%s' is a folder, expected a deck", who, path);
        goto err_close;
    }
    if (is_base && !S_ISREG(info_p->st_mode)) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%s'%s' is a pipe or device, expected a deck", who, path);
        goto err_close;
    }
    for (;;) {
        if (size == room) {
            room = room ? 2 * room : 1 << 16;
            HIRL_TRY_GOTO(hirl_mem_realloc(HIRL_MEM_GENERAL, room, &data), status, err_close);
        }
        const size_t got = fread((char *)data + size, 1, room - size, file);
        size += got;
        if (got == 0) break;
        if (size > DECK_FILE_MAX) {
            status = HIRL_FAIL(HIRL_ERR_DECK,
                               "%s'%s' has more than %d MiB, expected a deck: a Fortran namelist",
                               who, path, DECK_FILE_MAX >> 20);
            goto err_close;
        }
    }
    if (ferror(file)) {
        status = HIRL_FAIL(HIRL_ERR_IO, "%scannot read deck '%s': %s", who, path, strerror(errno));
        goto err_close;
    }
    fclose(file);
    *data_p = data;
    *size_p = size;
    return HIRL_OK;
err_close:
    fclose(file);
    hirl_mem_free(data);
    return status;
}

// The assignment of run%base that names a base deck, or NULL.
static const deck_assign_t *find_base(const hirl_deck_t *deck, const deck_script_t *script,
                                      const char **base_p) {
    for (size_t a = 0; a < script->n_assigns; a++) {
        const deck_assign_t *assign = &script->assigns[a];
        const hirl_key_t *key = &deck->groups[assign->group]->keys[assign->key];
        if (strcmp(deck->group_names[assign->group], "run") != 0 ||
            strcmp(key->name, "base") != 0 || key->type != HIRL_KEY_TEXT || assign->n_values != 1 ||
            script->values[assign->value].is_null) {
            continue;
        }
        *base_p = script->texts + script->values[assign->value].text;
        return (*base_p)[0] ? assign : NULL;
    }
    return NULL;
}

static hirl_status_t read_source(hirl_deck_t *deck, const link_t *link);

// Reads the base deck `base` that `assign` of link's source names, before that source is applied.
static hirl_status_t read_base(hirl_deck_t *deck, const link_t *link, const deck_assign_t *assign,
                               const char *base) {
    hirl_status_t status = HIRL_OK;
    hirl_text_t path = {0};
    char *data = NULL, who[DECK_PLACE_MAX + 8];
    size_t size = 0;
    struct stat info;
    const char *slash = strrchr(link->source->name, '/');
    const int n_folder = base[0] != '/' && slash ? (int)(slash - link->source->name) + 1 : 0;
    (void)hirl_deck_place(link->source, assign->at, who);
    strcat(who, ": ");
    HIRL_TRY_GOTO(hirl_text_append(&path, "%.*s%s", n_folder, link->source->name, base), status,
                  done);
    if (link->n >= DECK_CHAIN_MAX) {
        status =
            DECK_FAIL(link->source, assign->at,
                      "base deck '%s' makes a chain of more than %d decks", base, DECK_CHAIN_MAX);
        goto done;
    }
    HIRL_TRY_GOTO(load(path.data, who, &data, &size, &info), status, done);
    const deck_source_t source = {SOURCE_FILE, path.data, data, size};
    const link_t next = {&source, true, info.st_dev, info.st_ino, link, link->n + 1};
    for (const link_t *other = link; other; other = other->derived) {
        if (!other->has_id || other->device != info.st_dev || other->inode != info.st_ino) continue;
        hirl_text_t chain = {0};
        for (const link_t *each = &next; each && status == HIRL_OK; each = each->derived) {
            status =
                hirl_text_append(&chain, "%s%s", each == &next ? "" : " <- ", each->source->name);
        }
        if (status == HIRL_OK) {
            status = DECK_FAIL(link->source, assign->at, "base decks go round in a circle: %s",
                               chain.data);
        }
        hirl_text_reset(&chain);
        goto done;
    }
    status = read_source(deck, &next);
done:
    hirl_mem_free(data);
    hirl_text_reset(&path);
    return status;
}

static hirl_status_t read_source(hirl_deck_t *deck, const link_t *link) {
    deck_script_t script = {0};
    hirl_status_t status = hirl_deck_parse_file(deck, link->source, &script);
    const char *base = NULL;
    const deck_assign_t *assign = status == HIRL_OK ? find_base(deck, &script, &base) : NULL;
    if (assign) status = read_base(deck, link, assign, base);
    if (status == HIRL_OK) {
        status = hirl_deck_apply(deck, link->source, &script, deck->scratch, deck->scratch_state);
    }
    if (status == HIRL_OK) status = add_file(deck, link->source->name);
    hirl_deck_script_reset(&script);
    return status;
}

static hirl_status_t read_chain(hirl_deck_t *deck, const link_t *link) {
    HIRL_REQUIRE(!deck->has_override, HIRL_ERR_ARG,
                 "decks are read before overrides are given, not after");
    const int n_files = deck->n_files;
    begin_change(deck);
    const hirl_status_t status = read_source(deck, link);
    if (status == HIRL_OK) {
        commit_change(deck);
    } else {
        while (deck->n_files > n_files) hirl_mem_free(deck->files[--deck->n_files]);
    }
    return status;
}

hirl_status_t hirl_deck_read_file(hirl_deck_t *deck, const char *path) {
    HIRL_REQUIRE(deck && path, HIRL_ERR_ARG, "no deck, or no path");
    char *data = NULL;
    size_t size = 0;
    struct stat info;
    HIRL_TRY(load(path, "", &data, &size, &info));
    const deck_source_t source = {SOURCE_FILE, path, data, size};
    const link_t link = {&source, true, info.st_dev, info.st_ino, NULL, 1};
    const hirl_status_t status = read_chain(deck, &link);
    hirl_mem_free(data);
    return status;
}

hirl_status_t hirl_deck_read_text(hirl_deck_t *deck, const char *name, const char *text,
                                  size_t size) {
    HIRL_REQUIRE(deck && name && (text || size == 0), HIRL_ERR_ARG, "no deck, or no text");
    const deck_source_t source = {SOURCE_FILE, name, text ? text : "", size};
    const link_t link = {.source = &source, .n = 1};
    return read_chain(deck, &link);
}

// ------------------------------------------------------------------------------------------ overrides

hirl_status_t hirl_deck_override(hirl_deck_t *deck, const char *assignment) {
    HIRL_REQUIRE(deck && assignment, HIRL_ERR_ARG, "no deck, or no assignment");
    const deck_source_t source = {SOURCE_OVERRIDE, assignment, assignment, strlen(assignment)};
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return DECK_FAIL(&source, source.size, "found no %s, expected group%%key=value", "'='");
    const size_t n_target = (size_t)(equals - assignment);
    deck_assign_t target = {0};
    HIRL_TRY(hirl_deck_parse_target(deck, &source, n_target, &target));
    const hirl_key_t *key = &deck->groups[target.group]->keys[target.key];
    if (strcmp(deck->group_names[target.group], "run") == 0 && strcmp(key->name, "base") == 0) {
        return DECK_FAIL(&source, target.at,
                         "run%%%s cannot be given on the command line, expected it in a deck",
                         key->name);
    }
    deck_script_t script = {0};
    hirl_status_t status;
    HIRL_TRY_GOTO(hirl_deck_parse_value(deck, &source, n_target + 1, &target, &script), status,
                  done);
    begin_change(deck);
    HIRL_TRY_GOTO(hirl_deck_apply(deck, &source, &script, deck->scratch, deck->scratch_state),
                  status, done);
    commit_change(deck);
    deck->has_override = true;
done:
    hirl_deck_script_reset(&script);
    return status;
}

// ------------------------------------------------------------------------------------------ questions

static int find_group(const hirl_deck_t *deck, const char *name) {
    return name ? hirl_deck_find_group(deck->groups, deck->n_groups, name, strlen(name)) : -1;
}

hirl_status_t hirl_deck_require_group(const hirl_deck_t *deck, const char *name) {
    HIRL_REQUIRE(deck && name, HIRL_ERR_ARG, "no deck, or no group");
    const int g = find_group(deck, name);
    HIRL_REQUIRE(g >= 0, HIRL_ERR_ARG, "group '%s' has no key table", name);
    const hirl_group_t *group = deck->groups[g];
    hirl_text_t missing = {0};
    hirl_status_t status = HIRL_OK;
    bool is_any_set = false;
    int n_missing = 0;
    for (int k = 0; k < group->n_keys && status == HIRL_OK; k++) {
        const hirl_key_t *key = &group->keys[k];
        is_any_set |= deck->state[deck->key0[g] + k].is_set;
        if (key->default_text || deck->state[deck->key0[g] + k].held) continue;
        status = hirl_text_append(&missing, "%s%s%%%s (", n_missing++ ? ", " : "", group->name,
                                  key->name);
        if (status == HIRL_OK) status = hirl_deck_append_expected(key, &missing);
        if (status == HIRL_OK) status = hirl_text_append(&missing, ")");
    }
    if (status == HIRL_OK && n_missing) {
        const char *file = deck->n_files ? deck->files[deck->n_files - 1] : "the deck";
        status = HIRL_FAIL(HIRL_ERR_DECK, "%s: group '%s' %s, expected %s", file, group->name,
                           is_any_set ? "lacks what has no default"
                                      : "is missing and has no default for some keys",
                           missing.data);
    }
    hirl_text_reset(&missing);
    return status;
}

const void *hirl_deck_group_view(const hirl_deck_t *deck, const char *name) {
    const int g = find_group(deck, name);
    return g < 0 ? NULL : group_base(deck, deck->block, g);
}

bool hirl_deck_is_set(const hirl_deck_t *deck, const char *group, const char *key) {
    const int g = find_group(deck, group);
    if (g < 0 || !key) return false;
    const int k = hirl_deck_find_key(deck->groups[g], key, strlen(key));
    return k >= 0 && deck->state[deck->key0[g] + k].is_set;
}
