// From a script to group structs. Null values keep what an item was; a list given without a subscript is replaced, one
// given with a subscript keeps its other items; after each source a list's items must have no gap.
#include "deck_impl.h"

#include <string.h>

static void store(const hirl_key_t *key, char *base, int item, const deck_script_t *script,
                  const deck_value_t *value) {
    void *to = hirl_deck_item(key, base, item);
    switch (key_item_type(key)) {
        case HIRL_KEY_INT: *(int64_t *)to = value->integer; break;
        case HIRL_KEY_REAL: *(double *)to = value->real; break;
        case HIRL_KEY_BOOL: *(bool *)to = value->logical; break;
        default:
            memset(to, 0, HIRL_DECK_TEXT_MAX);
            memcpy(to, script->texts + value->text, strlen(script->texts + value->text));
            break;
    }
}

static void apply_assign(const hirl_key_t *key, const deck_assign_t *assign,
                         const deck_script_t *script, char *base, key_state_t *state) {
    const deck_value_t *values = script->values + assign->value;
    uint64_t named = 0, given = 0;
    for (size_t i = 0; i < assign->n_values; i++) {
        const int item = assign->first + (int)i * assign->stride;
        named |= UINT64_C(1) << item;
        if (values[i].is_null) continue;
        given |= UINT64_C(1) << item;
        store(key, base, item, script, &values[i]);
    }
    if (!given) return;
    const uint64_t kept = assign->has_subscript ? state->held : state->held & named;
    state->held = kept | given;
    state->is_set = true;
    if (!key_is_list(key)) return;
    // Items past the end are cleared, so that equal lists are equal bytes.
    for (int item = 0; item < HIRL_DECK_LIST_MAX; item++) {
        if (!(state->held >> item & 1))
            memset(hirl_deck_item(key, base, item), 0, hirl_deck_item_size(key));
    }
    *(int *)(void *)(base + key->count_offset) = hirl_deck_count(key, state);
}

hirl_status_t hirl_deck_apply(const hirl_deck_t *deck, const deck_source_t *source,
                              const deck_script_t *script, char *block, key_state_t *state) {
    for (size_t a = 0; a < script->n_assigns; a++) {
        const deck_assign_t *assign = &script->assigns[a];
        apply_assign(&deck->groups[assign->group]->keys[assign->key], assign, script,
                     group_base(deck, block, assign->group),
                     &state[deck->key0[assign->group] + assign->key]);
    }
    for (size_t a = 0; a < script->n_assigns; a++) {
        const deck_assign_t *assign = &script->assigns[a];
        const uint64_t held = state[deck->key0[assign->group] + assign->key].held;
        if ((held & (held + 1)) == 0) continue;
        return DECK_FAIL(source, assign->at,
                         "%s%%%s: items up to %d are given, but item %d has no value, expected a "
                         "list without gaps",
                         deck->group_names[assign->group],
                         deck->groups[assign->group]->keys[assign->key].name,
                         64 - __builtin_clzll(held), __builtin_ctzll(~held) + 1);
    }
    return HIRL_OK;
}
