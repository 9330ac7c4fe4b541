// Masks over patches, and the group &mask.
// Draws of a mask, in this order, from the stream (seed, HIRL_RNG_MASK, epoch, index, view); they are part of the answers:
//   random, patch   a uniform number for each unit, row-major; of two equal ones the first counts as smaller
//   *_ibot          one of the ratios (where there are several); its deviation (where it has one)
//   random_ibot     a uniform number for each patch; the largest are hidden
//   block*          for each try: area, logarithm of the aspect and, if the rectangle fits, top and left
// Rectangles: while the count is below what is wanted, up to ten tries with R = what is missing, at most max_patches: the area is uniform
// between min_patches and R (which may be the smaller one), sides are rounded half to even and must be less than the grid's; a
// rectangle that hides 1 to R patches more is taken. Ten tries in vain end the mask, or if it is to be exact are begun again.
#include "hirl/data_mask.h"

#include <math.h>
#include <string.h>

// An exact mask whose rectangles do not come to an end is filled patch by patch: with the default aspects and areas it takes
// some ten rounds, and a deck may ask for areas that never fit.
enum { N_TRIES = 10, N_ROUNDS_MOST = 1000 };

#define ROW_INT(field, default_text, min, max, unit, help) \
    HIRL_ROW_INT(hirl_mask_cfg_t, field, default_text, min, max, unit, help)
#define ROW_REAL(field, default_text, min, max, unit, help) \
    HIRL_ROW_REAL(hirl_mask_cfg_t, field, default_text, min, max, unit, help)

static const hirl_key_t mask_keys[] = {
    HIRL_ROW_TEXT(hirl_mask_cfg_t, kind, "'none'", "none|random|patch|block|block_ibot|random_ibot",
                  "How hidden patches are chosen. random: MAE and Hiera, trunc(M (1 - ratio)) of M "
                  "units stay. patch: SimMIM, ceil(M ratio) units are hidden. block: BEiT and CAE, "
                  "rectangles until n_masked patches are hidden. block_ibot: rectangles until the "
                  "share of one of the ratios is hidden. random_ibot: that many single patches."),
    HIRL_ROW_INT_LIST(hirl_mask_cfg_t, grid, "14,14", 1, 4096, "patches",
                      "Rows and columns of patches; three items: frames, rows, columns of a clip."),
    HIRL_ROW_INT_LIST(hirl_mask_cfg_t, unit, "1", 1, 4096, "patches",
                      "random, patch: sides of the units that are hidden or shown as a whole; one "
                      "item, or one for each axis. SimMIM: grid = 48,48, unit = 8. Hiera's units "
                      "as one patch each: grid = 7,7, or 8,7,7 for clips."),
    HIRL_ROW_REAL_LIST(hirl_mask_cfg_t, ratio, "0.75", 0, 1, "",
                       "Share that is hidden. For iBOT a list, one of which is taken for each "
                       "mask: 0,0.3 hides nothing in half of the views."),
    HIRL_ROW_REAL_LIST(hirl_mask_cfg_t, ratio_var, "0", 0, 1, "",
                       "iBOT: the ratio is drawn uniformly within this distance; one item for all "
                       "ratios, or one for each: 0,0.2."),
    ROW_INT(n_masked, "75", 0, 1e6, "patches", "block: patches to hide."),
    ROW_INT(min_patches, "0", 0, 1e6, "patches",
            "Blocks: smallest area of a rectangle; 0: the square of a third of the grid's shorter "
            "side, 16 for 14."),
    ROW_INT(max_patches, "0", 0, 1e6, "patches",
            "Blocks: largest area of a rectangle; 0: what is missing."),
    ROW_REAL(min_aspect, "0.3", 1e-3, 1e3, "height / width",
             "Blocks: smallest aspect ratio; the logarithm is drawn uniformly."),
    ROW_REAL(max_aspect, "0", 0, 1e3, "height / width",
             "Blocks: largest aspect ratio; 0: the inverse of the smallest."),
    HIRL_ROW_BOOL(hirl_mask_cfg_t, exact, ".true.",
                  "block: go on until exactly n_masked patches are hidden, as CAE does; .false.: "
                  "end after ten rectangles in a row that do not fit, as BEiT in HIRL does, which "
                  "leaves a third of the masks with a few less."),
};

const hirl_group_t hirl_mask_group = {
    "mask", "Patches of a view that a method hides from the encoder.", mask_keys,
    (int)(sizeof mask_keys / sizeof *mask_keys), sizeof(hirl_mask_cfg_t)};

// ------------------------------------------------------------------------------------ resolve

static hirl_mask_kind_t kind_of(const char *name) {
    static const char *const names[] = {"none",  "random",     "patch",
                                        "block", "block_ibot", "random_ibot"};
    for (int i = 0; i < 6; ++i)
        if (strcmp(name, names[i]) == 0) return (hirl_mask_kind_t)i;
    return HIRL_MASK_NONE;
}

static bool is_of_blocks(hirl_mask_kind_t kind) {
    return kind == HIRL_MASK_BLOCK || kind == HIRL_MASK_BLOCK_IBOT;
}

static bool is_of_ibot(hirl_mask_kind_t kind) {
    return kind == HIRL_MASK_BLOCK_IBOT || kind == HIRL_MASK_RANDOM_IBOT;
}

static hirl_status_t resolve_grid(const hirl_mask_cfg_t *cfg, hirl_mask_spec_t *spec) {
    const int skipped = HIRL_MASK_AXES - cfg->n_grid;
    const bool has_units = spec->kind == HIRL_MASK_RANDOM || spec->kind == HIRL_MASK_PATCH;
    HIRL_REQUIRE(cfg->n_grid == 2 || cfg->n_grid == 3, HIRL_ERR_DECK,
                 "mask%%grid has %d items; want 2 (rows, columns) or 3 (frames, rows, columns)",
                 cfg->n_grid);
    HIRL_REQUIRE(cfg->n_unit == 1 || cfg->n_unit == cfg->n_grid, HIRL_ERR_DECK,
                 "mask%%unit has %d items; want 1, or one for each of the %d axes of mask%%grid",
                 cfg->n_unit, cfg->n_grid);
    HIRL_REQUIRE(cfg->n_grid == 2 || !is_of_blocks(spec->kind), HIRL_ERR_DECK,
                 "mask%%grid has 3 items, but mask%%kind = '%s' covers images alone; want rows, "
                 "columns",
                 cfg->kind);
    spec->n_patches = spec->n_units = 1;
    for (int a = 0; a < HIRL_MASK_AXES; ++a) {
        const int64_t side = a < skipped ? 1 : cfg->grid[a - skipped];
        const int64_t unit = a < skipped ? 1 : cfg->unit[cfg->n_unit == 1 ? 0 : a - skipped];
        HIRL_REQUIRE(unit == 1 || has_units, HIRL_ERR_DECK,
                     "mask%%unit = %lld, but mask%%kind = '%s' hides single patches; want 1",
                     (long long)unit, cfg->kind);
        HIRL_REQUIRE(side % unit == 0, HIRL_ERR_DECK,
                     "mask%%grid has %lld patches along an axis, mask%%unit %lld; want a multiple",
                     (long long)side, (long long)unit);
        spec->grid[a] = (int)side;
        spec->unit[a] = (int)unit;
        spec->n_patches *= side; // three sides of 4096 at most
        spec->n_units *= side / unit;
    }
    HIRL_REQUIRE(spec->n_patches <= HIRL_MASK_PATCHES_MAX, HIRL_ERR_DECK,
                 "mask%%grid has %lld patches; at most %d are possible", (long long)spec->n_patches,
                 HIRL_MASK_PATCHES_MAX);
    return HIRL_OK;
}

static hirl_status_t resolve_ratio(const hirl_mask_cfg_t *cfg, hirl_mask_spec_t *spec) {
    const int most = is_of_ibot(spec->kind) ? HIRL_MASK_RATIOS_MAX : 1;
    HIRL_REQUIRE(cfg->n_ratio >= 1 && cfg->n_ratio <= most, HIRL_ERR_DECK,
                 "mask%%ratio has %d items; mask%%kind = '%s' takes 1%s", cfg->n_ratio, cfg->kind,
                 most > 1 ? " to 8" : "");
    HIRL_REQUIRE(cfg->n_ratio_var == 1 || (most > 1 && cfg->n_ratio_var == cfg->n_ratio),
                 HIRL_ERR_DECK, "mask%%ratio_var has %d items for %d of mask%%ratio; want 1%s",
                 cfg->n_ratio_var, cfg->n_ratio, most > 1 ? ", or one for each" : "");
    spec->n_ratios = cfg->n_ratio;
    for (int i = 0; i < cfg->n_ratio; ++i) {
        const double ratio = cfg->ratio[i], var = cfg->ratio_var[cfg->n_ratio_var == 1 ? 0 : i];
        HIRL_REQUIRE(var == 0 || most > 1, HIRL_ERR_DECK,
                     "mask%%ratio_var = %g, but mask%%kind = '%s' hides a fixed share; want 0", var,
                     cfg->kind);
        // 0.2 is no binary fraction: 0.3 - 0.3 may come out a little below 0.
        HIRL_REQUIRE(ratio - var > -1e-9 && ratio + var < 1 + 1e-9, HIRL_ERR_DECK,
                     "mask%%ratio = %g with mask%%ratio_var = %g leaves [0, 1]", ratio, var);
        spec->ratio[i] = ratio;
        spec->ratio_var[i] = var;
    }
    const double m = (double)spec->n_units;
    if (spec->kind == HIRL_MASK_RANDOM)
        spec->n_hidden = spec->n_units - (int64_t)trunc(m * (1 - spec->ratio[0]));
    if (spec->kind == HIRL_MASK_PATCH) spec->n_hidden = (int64_t)ceil(m * spec->ratio[0]);
    return HIRL_OK;
}

static hirl_status_t resolve_blocks(const hirl_mask_cfg_t *cfg, hirl_mask_spec_t *spec) {
    const int rows = spec->grid[1], columns = spec->grid[2], side = rows < columns ? rows : columns;
    const double highest = cfg->max_aspect > 0 ? cfg->max_aspect : 1 / cfg->min_aspect;
    HIRL_REQUIRE(rows > 1 && columns > 1, HIRL_ERR_DECK,
                 "mask%%grid = %d, %d is too small for mask%%kind = '%s'; want 2 rows and columns "
                 "at least",
                 rows, columns, cfg->kind);
    HIRL_REQUIRE(cfg->min_aspect <= highest, HIRL_ERR_DECK,
                 "mask%%min_aspect = %g is above mask%%max_aspect = %g", cfg->min_aspect, highest);
    spec->min_patches = (double)cfg->min_patches;
    if (cfg->min_patches == 0) spec->min_patches = fmax(side / 3, 1) * fmax(side / 3, 1);
    spec->max_patches = cfg->max_patches > 0 ? (double)cfg->max_patches : (double)spec->n_patches;
    HIRL_REQUIRE(cfg->max_patches == 0 || spec->min_patches <= spec->max_patches, HIRL_ERR_DECK,
                 "mask%%max_patches = %lld is below mask%%min_patches = %g",
                 (long long)cfg->max_patches, spec->min_patches);
    spec->log_aspect[0] = log(cfg->min_aspect);
    spec->log_aspect[1] = log(highest);
    if (spec->kind != HIRL_MASK_BLOCK) return HIRL_OK;
    HIRL_REQUIRE(cfg->n_masked <= spec->n_patches, HIRL_ERR_DECK,
                 "mask%%n_masked = %lld, but mask%%grid has %lld patches; want no more",
                 (long long)cfg->n_masked, (long long)spec->n_patches);
    spec->n_hidden = cfg->n_masked;
    spec->is_exact = cfg->exact;
    return HIRL_OK;
}

hirl_status_t hirl_mask_resolve(const hirl_mask_cfg_t *cfg, hirl_mask_spec_t *spec_p) {
    hirl_mask_spec_t spec = {.kind = kind_of(cfg->kind)};
    HIRL_TRY(resolve_grid(cfg, &spec));
    if (spec.kind != HIRL_MASK_NONE && spec.kind != HIRL_MASK_BLOCK)
        HIRL_TRY(resolve_ratio(cfg, &spec));
    if (is_of_blocks(spec.kind)) HIRL_TRY(resolve_blocks(cfg, &spec));
    *spec_p = spec;
    return HIRL_OK;
}

int64_t hirl_mask_count(const hirl_mask_spec_t *spec) {
    switch (spec->kind) {
        case HIRL_MASK_NONE: return 0;
        case HIRL_MASK_RANDOM:
        case HIRL_MASK_PATCH: return spec->n_hidden * (spec->n_patches / spec->n_units);
        case HIRL_MASK_BLOCK: return spec->is_exact ? spec->n_hidden : -1;
        default: return -1;
    }
}

// ------------------------------------------------------------------------------------ make

struct hirl_mask_maker {
    hirl_mask_spec_t spec;
    double *noise, *sorted; // [n_patches]
    uint8_t *hidden;        // [n_patches] of units
};

hirl_status_t hirl_mask_maker_create(const hirl_mask_spec_t *spec, hirl_mask_maker_t **maker_p) {
    hirl_mask_maker_t *maker = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_DATA, 1, &maker));
    maker->spec = *spec;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, spec->n_patches, &maker->noise), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, spec->n_patches, &maker->sorted), status, err);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_DATA, spec->n_patches, &maker->hidden), status, err);
    *maker_p = maker;
    return HIRL_OK;
err:
    hirl_mask_maker_destroy(&maker);
    return status;
}

void hirl_mask_maker_destroy(hirl_mask_maker_t **maker) {
    if (!maker || !*maker) return;
    hirl_mem_free((*maker)->noise);
    hirl_mem_free((*maker)->sorted);
    hirl_mem_free((*maker)->hidden);
    hirl_mem_free(*maker);
    *maker = NULL;
}

// Puts the k-th smallest of x[0..n) (k from 0) at x[k], nothing larger before and nothing smaller behind it (Hoare's selection).
static double select_smallest(double *x, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    while (low < high) {
        const double pivot = x[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot) ++i;
            while (x[j] > pivot) --j;
            if (i > j) break;
            const double kept = x[i];
            x[i++] = x[j];
            x[j--] = kept;
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return x[k];
}

// Hides all of n but the n_shown with the smallest numbers.
static void hide_largest(hirl_mask_maker_t *maker, hirl_rng_t *rng, int64_t n, int64_t n_shown,
                         uint8_t *hidden) {
    double *noise = maker->noise;
    for (int64_t i = 0; i < n; ++i) noise[i] = hirl_rng_uniform(rng);
    memset(hidden, 1, (size_t)n);
    if (n_shown == 0) return;
    memcpy(maker->sorted, noise, (size_t)n * sizeof *noise);
    const double last = select_smallest(maker->sorted, n, n_shown - 1);
    int64_t n_equal = n_shown; // numbers equal to the last that still stay: the first ones
    for (int64_t i = 0; i < n; ++i) {
        hidden[i] = !(noise[i] < last);
        n_equal -= noise[i] < last;
    }
    for (int64_t i = 0; n_equal > 0; ++i) {
        if (noise[i] != last) continue;
        hidden[i] = 0;
        --n_equal;
    }
}

static void hide_units(hirl_mask_maker_t *maker, hirl_rng_t *rng, uint8_t *mask) {
    const hirl_mask_spec_t *spec = &maker->spec;
    const int *grid = spec->grid, *unit = spec->unit;
    const bool is_single = spec->n_units == spec->n_patches;
    uint8_t *hidden = is_single ? mask : maker->hidden;
    hide_largest(maker, rng, spec->n_units, spec->n_units - spec->n_hidden, hidden);
    if (is_single) return;
    const int rows = grid[1] / unit[1], columns = grid[2] / unit[2];
    for (int t = 0; t < grid[0]; ++t)
        for (int y = 0; y < grid[1]; ++y)
            for (int x = 0; x < grid[2]; ++x)
                *mask++ =
                    hidden[((int64_t)(t / unit[0]) * rows + y / unit[1]) * columns + x / unit[2]];
}

// One rectangle that hides 1 to `most` patches more; returns how many, 0 after ten tries in vain.
static int64_t hide_block(const hirl_mask_spec_t *spec, hirl_rng_t *rng, double most,
                          uint8_t *mask) {
    const int rows = spec->grid[1], columns = spec->grid[2];
    for (int i = 0; i < N_TRIES; ++i) {
        const double area = hirl_rng_range(rng, spec->min_patches, most);
        const double aspect = exp(hirl_rng_range(rng, spec->log_aspect[0], spec->log_aspect[1]));
        const double h = nearbyint(sqrt(area * aspect)), w = nearbyint(sqrt(area / aspect));
        if (!(h >= 1 && w >= 1 && h < rows && w < columns)) continue;
        const int height = (int)h, width = (int)w;
        const int top = (int)hirl_rng_below(rng, rows - height + 1);
        const int left = (int)hirl_rng_below(rng, columns - width + 1);
        int64_t n_new = (int64_t)height * width;
        for (int y = top; y < top + height; ++y)
            for (int x = left; x < left + width; ++x) n_new -= mask[(int64_t)y * columns + x];
        if (n_new == 0 || (double)n_new > most) continue;
        for (int y = top; y < top + height; ++y)
            memset(mask + (int64_t)y * columns + left, 1, (size_t)width);
        return n_new;
    }
    return 0;
}

// Hides any `n` of the patches that are left.
static void hide_any(const hirl_mask_spec_t *spec, hirl_rng_t *rng, int64_t n, uint8_t *mask) {
    for (; n > 0; --n) {
        int64_t n_left = 0, i = 0;
        for (int64_t j = 0; j < spec->n_patches; ++j) n_left += !mask[j];
        for (int64_t skip = hirl_rng_below(rng, n_left); mask[i] || skip-- > 0;) ++i;
        mask[i] = 1;
    }
}

static void hide_blocks(const hirl_mask_spec_t *spec, hirl_rng_t *rng, double wanted,
                        uint8_t *mask) {
    int64_t count = 0;
    int n_vain = 0;
    memset(mask, 0, (size_t)spec->n_patches);
    while ((double)count < wanted) {
        const int64_t n_new =
            hide_block(spec, rng, fmin(wanted - (double)count, spec->max_patches), mask);
        count += n_new;
        if (n_new > 0) continue;
        if (!spec->is_exact) return;
        if (++n_vain < N_ROUNDS_MOST) continue;
        hide_any(spec, rng, spec->n_hidden - count, mask);
        return;
    }
}

static double draw_wanted(const hirl_mask_spec_t *spec, hirl_rng_t *rng) {
    const int64_t i = spec->n_ratios > 1 ? hirl_rng_below(rng, spec->n_ratios) : 0;
    const double var = spec->ratio_var[i];
    double ratio = spec->ratio[i];
    if (var > 0) ratio = hirl_rng_range(rng, ratio - var, ratio + var);
    return fmin(fmax(ratio, 0), 1) * (double)spec->n_patches;
}

void hirl_mask_make(hirl_mask_maker_t *maker, uint64_t seed, int64_t epoch, int64_t index, int view,
                    uint8_t *mask) {
    const hirl_mask_spec_t *spec = &maker->spec;
    hirl_rng_t rng =
        hirl_rng_make(seed, HIRL_RNG_MASK, (uint64_t)epoch, (uint64_t)index, (uint32_t)view);
    switch (spec->kind) {
        case HIRL_MASK_NONE: memset(mask, 0, (size_t)spec->n_patches); return;
        case HIRL_MASK_RANDOM:
        case HIRL_MASK_PATCH: hide_units(maker, &rng, mask); return;
        case HIRL_MASK_BLOCK: hide_blocks(spec, &rng, (double)spec->n_hidden, mask); return;
        case HIRL_MASK_BLOCK_IBOT: hide_blocks(spec, &rng, draw_wanted(spec, &rng), mask); return;
        case HIRL_MASK_RANDOM_IBOT: {
            const int64_t n_hidden = (int64_t)floor(draw_wanted(spec, &rng));
            hide_largest(maker, &rng, spec->n_patches, spec->n_patches - n_hidden, mask);
            return;
        }
    }
}

void hirl_mask_make_batch(hirl_mask_maker_t *maker, uint64_t seed, int64_t epoch,
                          const int64_t *index, int64_t n, int view, uint8_t *mask) {
    for (int64_t i = 0; i < n; ++i)
        hirl_mask_make(maker, seed, epoch, index[i], view, mask + i * maker->spec.n_patches);
}

int64_t hirl_mask_list(const uint8_t *mask, int64_t n_patches, int value, int32_t *list) {
    int64_t n = 0;
    for (int64_t i = 0; i < n_patches; ++i)
        if (mask[i] == value) list[n++] = (int32_t)i;
    return n;
}
