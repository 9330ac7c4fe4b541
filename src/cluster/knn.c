/// @file knn.c
/// Exact KNN over a bank that is spread over the ranks, and the weighted vote of Wu et al. 2018
/// ("Unsupervised Feature Learning via Non-Parametric Instance Discrimination"). Each rank keeps
/// its part of the bank; queries go round in chunks, every rank answers them from its part, and the
/// lists are merged by the queries' owner. Scores do not depend on the decomposition and lists are
/// totally ordered (score, then lower row), so neither does any result.

#include "cluster_impl.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

static const hirl_key_t knn_keys[] = {
    HIRL_ROW_INT_LIST(
        hirl_knn_cfg_t, k, "10,20,100,200", 1, 1e9, "neighbours",
        "Numbers of neighbours that vote; each gives its own accuracies, from one search with the "
        "largest."),
    HIRL_ROW_REAL(hirl_knn_cfg_t, temperature, "0.07", 1e-6, 1e6, "",
                  "T of the votes exp(s / T), where s is the cosine of query and neighbour."),
    HIRL_ROW_REAL(hirl_knn_cfg_t, every_epochs, "0", 0, 1e9, "epochs",
                  "Evaluates so often during pre-training; may be a fraction. 0: never."),
    HIRL_ROW_INT(hirl_knn_cfg_t, query_chunk, "4096", 1, 1e9, "samples",
                 "Queries of all ranks together that are sent round at once: bounds the memory of "
                 "a search."),
    HIRL_ROW_TEXT(
        hirl_knn_cfg_t, engine, "'fused'", "fused|faiss",
        "What searches: our fused products and selection, on the run's device if it has one; or "
        "FAISS's flat index on the processor (slower; as a reference)."),
};

const hirl_group_t hirl_knn_group = {
    .name = "knn",
    .help = "Weighted k-nearest-neighbour classification.",
    .keys = knn_keys,
    .n_keys = sizeof(knn_keys) / sizeof(*knn_keys),
    .struct_size = sizeof(hirl_knn_cfg_t),
};

// ------------------------------------------------------------------------------------ search

// A search under way. Tables of all ranks are the same on all of them.
typedef struct knn_search {
    hirl_world_t *world;
    hirl_cluster_engine_t engine;
    hirl_backend_t *be; // where the fused engine computes; NULL: here
    const float *bank, *query;
    int64_t n_bank_local, n_query_local;
    int d;
    int64_t k;
    int64_t first_bank, n_bank; // global index of the first local bank row; rows of all ranks
    int64_t share, n_rounds;    // queries that a rank sends per round
    int64_t *n_list;         // [size] neighbours that a rank finds per query: min(k, its bank rows)
    int64_t *n_query;        // [size] queries of a rank
    int64_t *query_items;    // [size] items of the gather of queries
    int64_t *send, *receive; // [size] items of the exchange of lists
    hirl_panels_t panels;    // queries of a round
    hirl_tiles_t tiles;      // the local bank for AMX; data is NULL where there is none
    hirl_faiss_index_t *index; // instead of both with FAISS as engine
    hirl_device_rows_t rows;   // instead of both: the local bank for the backend
    float *round_query;        // [queries of a round, d]
    uint64_t *found;           // [queries of a round, n_list of this rank]
    uint64_t *lists;           // [own queries of a round, n_list of each rank]
    uint64_t *scratch;         // [threads, k]
} knn_search_t;

static void search_reset(knn_search_t *s) {
    hirl_mem_free(s->n_list);
    hirl_mem_free(s->n_query);
    hirl_mem_free(s->query_items);
    hirl_mem_free(s->send);
    hirl_mem_free(s->receive);
    hirl_panels_reset(&s->panels);
    hirl_tiles_reset(&s->tiles);
    hirl_faiss_destroy(&s->index);
    hirl_device_rows_reset(&s->rows);
    hirl_mem_free(s->round_query);
    hirl_mem_free(s->found);
    hirl_mem_free(s->lists);
    hirl_mem_free(s->scratch);
}

// Queries that rank r sends in a round.
static int64_t round_count(const knn_search_t *s, int r, int64_t round) {
    const int64_t left = s->n_query[r] - round * s->share;
    return left <= 0 ? 0 : left < s->share ? left : s->share;
}

// Who has how much. Collective.
static hirl_status_t exchange_sizes(knn_search_t *s, int64_t query_chunk) {
    const int size = hirl_world_size(s->world);
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &s->n_list);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &s->n_query);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &s->query_items);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &s->send);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, size, &s->receive);
    HIRL_TRY(hirl_par_agree(s->world, status));
    HIRL_TRY(hirl_par_scan_i64(s->world, s->n_bank_local, &s->first_bank, &s->n_bank));
    HIRL_REQUIRE(s->k <= s->n_bank, HIRL_ERR_ARG,
                 "%lld neighbours of a bank of %lld rows, want at most so many", (long long)s->k,
                 (long long)s->n_bank);
    HIRL_REQUIRE(s->n_bank <= UINT32_MAX, HIRL_ERR_UNSUPPORTED,
                 "a bank of %lld rows, want at most %lld", (long long)s->n_bank,
                 (long long)UINT32_MAX);
    HIRL_TRY(hirl_par_all_gather(s->world, &s->n_bank_local, 1, HIRL_PAR_I64, s->n_list));
    HIRL_TRY(hirl_par_all_gather(s->world, &s->n_query_local, 1, HIRL_PAR_I64, s->n_query));
    s->share = query_chunk / size > 1 ? query_chunk / size : 1;
    for (int r = 0; r < size; r++) {
        if (s->n_list[r] > s->k) s->n_list[r] = s->k;
        const int64_t n_rounds = (s->n_query[r] + s->share - 1) / s->share;
        if (n_rounds > s->n_rounds) s->n_rounds = n_rounds;
    }
    return HIRL_OK;
}

// Device memory that a round takes beside the bank: queries, lists, and what the search works with
// (hirl_op_top_rows).
static int64_t device_reserve(const knn_search_t *s, int64_t n_round, int64_t n_list) {
    const int64_t most = (int64_t)256 << 20, least_queries = 128, most_rows = 32768;
    const int64_t n_rows = s->n_bank_local < most_rows ? s->n_bank_local : most_rows;
    const int64_t query_bytes = (2 * n_list + n_rows) * 8;
    int64_t work = n_round * query_bytes;
    if (work > most) work = most > least_queries * query_bytes ? most : least_queries * query_bytes;
    return n_round * (s->d * 4 + n_list * 8) + work;
}

static hirl_status_t search_alloc(knn_search_t *s) {
    const int rank = hirl_world_rank(s->world), size = hirl_world_size(s->world);
    int64_t n_round = 0, n_lists = 0; // round 0 is the largest
    for (int r = 0; r < size; r++) {
        n_round += round_count(s, r, 0);
        n_lists += s->n_list[r];
    }
    const int64_t n_own = round_count(s, rank, 0);
    const bool has_device = s->engine == HIRL_CLUSTER_FUSED && s->be;
    const bool has_tiles =
        s->engine == HIRL_CLUSTER_FUSED && !has_device && hirl_amx_is_usable(s->d);
    char text[32];
    hirl_log_root(
        HIRL_LOG_DEBUG, "knn bank = %lld k = %lld queries_per_round = %lld memory_per_rank = %s",
        (long long)s->n_bank, (long long)s->k, (long long)n_round,
        hirl_text_bytes(text, (double)n_round * (8.0 * s->d + 8.0 * (double)s->n_list[rank]) +
                                  8.0 * (double)n_own * (double)n_lists +
                                  (has_tiles ? 2.0 * (double)s->n_bank_local * s->d : 0)));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_round * s->d, &s->round_query));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_round * s->n_list[rank], &s->found));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_own * n_lists, &s->lists));
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_CLUSTER, omp_get_max_threads() * s->k, &s->scratch));
    if (s->engine == HIRL_CLUSTER_FAISS) {
        HIRL_TRY(hirl_faiss_create(s->d, true, &s->index));
        return hirl_faiss_load(s->index, s->bank, s->n_bank_local);
    }
    if (has_device)
        return hirl_device_rows_init(&s->rows, s->be, "knn bank", s->bank, s->n_bank_local, s->d,
                                     device_reserve(s, n_round, s->n_list[rank]));
    if (has_tiles) {
        HIRL_TRY(hirl_tiles_init(&s->tiles, s->n_bank_local, s->d));
        hirl_tiles_pack(&s->tiles, s->bank, s->n_bank_local);
    }
    return hirl_panels_init(&s->panels, n_round, s->d, false, false);
}

// This rank's answer to all queries of a round.
static hirl_status_t answer(knn_search_t *s, int64_t n_round) {
    const int64_t n_list = s->n_list[hirl_world_rank(s->world)];
    if (n_list == 0 || n_round == 0) return HIRL_OK;
    if (s->index)
        return hirl_faiss_topk(s->index, s->round_query, n_round, s->first_bank, n_list, s->found);
    if (s->rows.be)
        return hirl_device_topk(&s->rows, s->round_query, n_round, s->first_bank, n_list, s->found);
    hirl_panels_pack(&s->panels, s->round_query, n_round);
    return hirl_topk_search(&s->panels, s->bank, s->n_bank_local, s->tiles.data ? &s->tiles : NULL,
                            s->first_bank, n_list, s->found);
}

// Merges the lists of all ranks into keys [n_own, k]. lists holds, rank after rank, [n_own,
// n_list[r]].
static void merge(const knn_search_t *s, int64_t n_own, uint64_t *keys) {
    const int size = hirl_world_size(s->world);
#pragma omp parallel for schedule(static)
    for (int64_t q = 0; q < n_own; q++) {
        uint64_t *out = keys + q * s->k,
                 *scratch = s->scratch + (int64_t)omp_get_thread_num() * s->k;
        const uint64_t *part = s->lists;
        int64_t n_out = 0;
        for (int r = 0; r < size; r++) {
            const int64_t n = n_out + s->n_list[r] < s->k ? n_out + s->n_list[r] : s->k;
            hirl_topk_merge(out, n_out, part + q * s->n_list[r], s->n_list[r], scratch, n);
            memcpy(out, scratch, (size_t)n * sizeof(*out));
            n_out = n;
            part += n_own * s->n_list[r];
        }
    }
}

static hirl_status_t run_round(knn_search_t *s, int64_t round, uint64_t *keys) {
    const int size = hirl_world_size(s->world), rank = hirl_world_rank(s->world);
    const int64_t n_own = round_count(s, rank, round), at = round * s->share;
    int64_t n_round = 0;
    for (int r = 0; r < size; r++) {
        const int64_t n = round_count(s, r, round);
        s->query_items[r] = n * s->d;
        s->send[r] = n * s->n_list[rank];
        s->receive[r] = n_own * s->n_list[r];
        n_round += n;
    }
    const float *own = n_own ? s->query + at * s->d : s->round_query;
    HIRL_TRY(hirl_par_all_gather_v(s->world, own, s->query_items, HIRL_PAR_F32, s->round_query));
    HIRL_TRY(hirl_par_agree(s->world, answer(s, n_round)));
    HIRL_TRY(
        hirl_par_all_to_all_v(s->world, s->found, s->send, s->lists, s->receive, HIRL_PAR_I64));
    if (n_own) merge(s, n_own, keys + at * s->k);
    return HIRL_OK;
}

// keys [n_query_local, k]: the neighbours of each local query, best first. Arguments were checked.
static hirl_status_t search(knn_search_t *s, int64_t query_chunk, uint64_t *keys) {
    hirl_status_t status;
    const double start = hirl_time_now();
    HIRL_TRY_GOTO(exchange_sizes(s, query_chunk), status, end);
    HIRL_TRY_GOTO(hirl_par_agree(s->world, search_alloc(s)), status, end);
    for (int64_t round = 0; round < s->n_rounds; round++) {
        HIRL_TRY_GOTO(hirl_par_heed_signals(s->world), status, end);
        HIRL_TRY_GOTO(run_round(s, round, keys), status, end);
        char text[96], left[32];
        (void)hirl_text_format(text, sizeof(text), "knn %lld/%lld rounds, %s left",
                               (long long)round + 1, (long long)s->n_rounds,
                               hirl_text_duration(left, (hirl_time_now() - start) /
                                                            (double)(round + 1) *
                                                            (double)(s->n_rounds - round - 1)));
        hirl_log_progress(round + 1 < s->n_rounds ? text : NULL);
    }
end:
    search_reset(s);
    return status;
}

static hirl_status_t check_args(const float *bank, int64_t n_bank, const float *query,
                                int64_t n_query, int d, int64_t k, int64_t query_chunk) {
    HIRL_REQUIRE(n_bank >= 0 && (bank || n_bank == 0), HIRL_ERR_ARG,
                 "%lld bank rows on this rank, memory at %p", (long long)n_bank,
                 (const void *)bank);
    HIRL_REQUIRE(n_query >= 0 && (query || n_query == 0), HIRL_ERR_ARG,
                 "%lld queries on this rank, memory at %p", (long long)n_query,
                 (const void *)query);
    HIRL_REQUIRE(d >= 1, HIRL_ERR_ARG, "rows of %d columns, want at least 1", d);
    HIRL_REQUIRE(k >= 1 && k <= INT32_MAX, HIRL_ERR_ARG, "%lld neighbours, want at least 1",
                 (long long)k);
    HIRL_REQUIRE(query_chunk >= 1, HIRL_ERR_ARG, "query_chunk = %lld, want at least 1",
                 (long long)query_chunk);
    return HIRL_OK;
}

hirl_status_t hirl_knn_search(hirl_world_t *world, hirl_backend_t *be, const float *bank,
                              int64_t n_bank_local, const float *query, int64_t n_query_local,
                              int d, int k, int64_t query_chunk, float *score, int64_t *index) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "there is no world");
    static const char *const names[] = {"columns", "k", "query_chunk"};
    const int64_t values[] = {d, k, query_chunk};
    hirl_rows_info_t info;
    uint64_t *keys = NULL;
    hirl_status_t status = check_args(bank, n_bank_local, query, n_query_local, d, k, query_chunk);
    if (status == HIRL_OK && n_query_local > 0 && !(score && index))
        status = HIRL_FAIL(HIRL_ERR_ARG, "score and index must not be NULL");
    HIRL_TRY(hirl_rows_check(world, status, "bank row", bank, n_bank_local, d, false, &info));
    HIRL_TRY(hirl_rows_check(world, HIRL_OK, "query", query, n_query_local, d, false, &info));
    HIRL_TRY(hirl_same_on_all_ranks(world, 3, names, values));
    HIRL_TRY(hirl_par_agree(world, HIRL_ALLOC(HIRL_MEM_CLUSTER, n_query_local * k, &keys)));
    knn_search_t s = {.world = world,
                      .be = be,
                      .bank = bank,
                      .query = query,
                      .n_bank_local = n_bank_local,
                      .n_query_local = n_query_local,
                      .d = d,
                      .k = k};
    HIRL_TRY_GOTO(search(&s, query_chunk, keys), status, end);
    for (int64_t i = 0; i < n_query_local * k; i++) {
        score[i] = hirl_key_score(keys[i]);
        index[i] = hirl_key_index(keys[i]);
    }
end:
    hirl_mem_free(keys);
    return status;
}

// ---------------------------------------------------------------------------------- classification

// The votes of one query, class by class.
typedef struct ballot {
    double *score;  // [n_classes]; zero between queries
    int32_t *voted; // [largest k] classes with votes, in the order of their first
    int64_t n_voted;
} ballot_t;

// Classes ahead of `label`: higher score, or equal score and lower number. A class without a
// neighbour is behind all that have one; -1 if this is such a one.
static int64_t place_of(const ballot_t *b, int32_t label) {
    int64_t n_ahead = 0;
    bool has_votes = false;
    for (int64_t i = 0; i < b->n_voted; i++) {
        const int32_t c = b->voted[i];
        has_votes |= c == label;
        n_ahead += b->score[c] > b->score[label] || (b->score[c] == b->score[label] && c < label);
    }
    return has_votes ? n_ahead : -1;
}

// What the votes need. ks: [n_k] positions of the cfg's list, by rising k.
typedef struct vote {
    const hirl_knn_cfg_t *cfg;
    const int *order;
    int64_t k;
    const uint64_t *keys;       // [n_query, k]
    const int32_t *bank_label;  // [bank rows of all ranks], shared by the node
    const int32_t *query_label; // [n_query]
} vote_t;

// Adds hits of one query to n_hit [2 n_k]: top-1, then top-5.
static void vote_one(const vote_t *v, int64_t query, ballot_t *b, int64_t *n_hit) {
    const uint64_t *list = v->keys + query * v->k;
    const int32_t label = v->query_label[query];
    // Relative to the best neighbour, which changes no order and cannot overflow.
    const double best = (double)hirl_key_score(list[0]);
    int64_t n_counted = 0;
    b->n_voted = 0;
    for (int i = 0; i < v->cfg->n_k; i++) {
        const int64_t k = v->cfg->k[v->order[i]];
        for (; n_counted < k; n_counted++) {
            const int32_t c = v->bank_label[hirl_key_index(list[n_counted])];
            // Underflow to 0 would look like no vote.
            const double vote =
                exp(((double)hirl_key_score(list[n_counted]) - best) / v->cfg->temperature) +
                1e-300;
            if (b->score[c] == 0) b->voted[b->n_voted++] = c;
            b->score[c] += vote;
        }
        const int64_t place = place_of(b, label);
        n_hit[v->order[i]] += place == 0;
        n_hit[v->cfg->n_k + v->order[i]] += place >= 0 && place < (k < 5 ? k : 5);
    }
    for (int64_t i = 0; i < b->n_voted; i++) b->score[b->voted[i]] = 0;
}

static hirl_status_t count_hits(const vote_t *v, int64_t n_query, int n_classes, int64_t *n_hit) {
    const int n_threads = omp_get_max_threads(), n_counts = 2 * v->cfg->n_k;
    double *score = NULL;
    int32_t *voted = NULL;
    hirl_status_t status;
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, (int64_t)n_threads * n_classes, &score), status,
                  end);
    HIRL_TRY_GOTO(HIRL_ALLOC(HIRL_MEM_CLUSTER, n_threads * v->k, &voted), status, end);
#pragma omp parallel num_threads(n_threads)
    {
        const int t = omp_get_thread_num();
        ballot_t ballot = {.score = score + (int64_t)t * n_classes, .voted = voted + t * v->k};
        int64_t hits[2 * HIRL_DECK_LIST_MAX] = {0};
#pragma omp for schedule(static)
        for (int64_t q = 0; q < n_query; q++) vote_one(v, q, &ballot, hits);
#pragma omp critical(hirl_knn_hits)
        for (int i = 0; i < n_counts; i++) n_hit[i] += hits[i];
    }
end:
    hirl_mem_free(voted);
    hirl_mem_free(score);
    return status;
}

static hirl_status_t check_cfg(const hirl_knn_cfg_t *cfg, int64_t *max_k_p) {
    HIRL_REQUIRE(cfg->n_k >= 1 && cfg->n_k <= HIRL_DECK_LIST_MAX, HIRL_ERR_ARG,
                 "knn%%k has %d items, want 1 to %d", cfg->n_k, HIRL_DECK_LIST_MAX);
    HIRL_REQUIRE(cfg->temperature > 0 && isfinite(cfg->temperature), HIRL_ERR_ARG,
                 "knn%%temperature = %g, want a number > 0", cfg->temperature);
    HIRL_REQUIRE(!cfg->engine[0] || !strcmp(cfg->engine, "fused") || !strcmp(cfg->engine, "faiss"),
                 HIRL_ERR_ARG, "knn%%engine = '%s', want 'fused' or 'faiss'", cfg->engine);
    int64_t max = 0;
    for (int i = 0; i < cfg->n_k; i++) {
        HIRL_REQUIRE(cfg->k[i] >= 1, HIRL_ERR_ARG, "knn%%k has %lld, want at least 1",
                     (long long)cfg->k[i]);
        max = cfg->k[i] > max ? cfg->k[i] : max;
    }
    *max_k_p = max;
    return HIRL_OK;
}

static hirl_status_t check_labels(hirl_world_t *world, const char *what, const int32_t *label,
                                  int64_t n_local, int n_classes) {
    int64_t first, n;
    hirl_status_t mine = HIRL_OK;
    HIRL_TRY(hirl_par_scan_i64(world, n_local, &first, &n));
    if (!label && n_local > 0) mine = HIRL_FAIL(HIRL_ERR_ARG, "%ss have no labels", what);
    for (int64_t i = 0; i < n_local && mine == HIRL_OK; i++)
        if (label[i] < 0 || label[i] >= n_classes)
            mine = HIRL_FAIL(HIRL_ERR_ARG, "%s %lld: label %d, want 0 to %d", what,
                             (long long)(first + i), label[i], n_classes - 1);
    return hirl_par_agree(world, mine);
}

// Positions of the list of k by rising k.
static void sort_ks(const hirl_knn_cfg_t *cfg, int *order) {
    for (int i = 0; i < cfg->n_k; i++) {
        int at = i;
        for (; at > 0 && cfg->k[order[at - 1]] > cfg->k[i]; at--) order[at] = order[at - 1];
        order[at] = i;
    }
}

static hirl_status_t check_classify(hirl_world_t *world, hirl_status_t mine,
                                    const hirl_knn_cfg_t *cfg, const float *bank,
                                    const int32_t *bank_label, int64_t n_bank, const float *query,
                                    const int32_t *query_label, int64_t n_query, int d,
                                    int n_classes, int64_t k) {
    static const char *const names[] = {"columns",     "n_classes",   "largest k",
                                        "number of k", "query_chunk", "engine"};
    hirl_rows_info_t info;
    if (mine == HIRL_OK) mine = check_args(bank, n_bank, query, n_query, d, k, cfg->query_chunk);
    if (mine == HIRL_OK && n_classes < 1)
        mine = HIRL_FAIL(HIRL_ERR_ARG, "%d classes, want at least 1", n_classes);
    HIRL_TRY(hirl_rows_check(world, mine, "bank row", bank, n_bank, d, true, &info));
    HIRL_TRY(hirl_rows_check(world, HIRL_OK, "query", query, n_query, d, true, &info));
    HIRL_REQUIRE(info.n > 0, HIRL_ERR_ARG, "there are no queries to classify");
    const int64_t values[] = {d,        n_classes,        k,
                              cfg->n_k, cfg->query_chunk, !strcmp(cfg->engine, "faiss")};
    HIRL_TRY(hirl_same_on_all_ranks(world, sizeof(values) / sizeof(*values), names, values));
    HIRL_TRY(check_labels(world, "bank row", bank_label, n_bank, n_classes));
    return check_labels(world, "query", query_label, n_query, n_classes);
}

hirl_status_t hirl_knn_classify(hirl_world_t *world, hirl_backend_t *be, const float *bank,
                                const int32_t *bank_label, int64_t n_bank_local, const float *query,
                                const int32_t *query_label, int64_t n_query_local, int d,
                                int n_classes, const hirl_knn_cfg_t *cfg, double *top1,
                                double *top5) {
    HIRL_REQUIRE(world, HIRL_ERR_ARG, "there is no world");
    int64_t k = 0, first, n_bank, n_query, n_hit[2 * HIRL_DECK_LIST_MAX] = {0};
    int order[HIRL_DECK_LIST_MAX];
    float *unit_bank = NULL, *unit_query = NULL;
    uint64_t *keys = NULL;
    hirl_par_shared_t *shared = NULL;
    void *label = NULL;
    hirl_status_t status = cfg && top1 && top5
                               ? check_cfg(cfg, &k)
                               : HIRL_FAIL(HIRL_ERR_ARG, "cfg, top1 and top5 must not be NULL");
    HIRL_TRY(check_classify(world, status, cfg, bank, bank_label, n_bank_local, query, query_label,
                            n_query_local, d, n_classes, k));
    HIRL_TRY(hirl_par_scan_i64(world, n_bank_local, &first, &n_bank));
    HIRL_TRY(hirl_par_scan_i64(world, n_query_local, &first, &n_query));
    HIRL_REQUIRE(k <= n_bank, HIRL_ERR_ARG, "knn%%k has %lld, but the bank has %lld rows",
                 (long long)k, (long long)n_bank);
    char rows_text[32], keys_text[32];
    hirl_log_root(HIRL_LOG_INFO,
                  "knn bank = %lld queries = %lld columns = %d k = %lld rows_of_all_ranks = %s "
                  "lists_of_all_ranks = %s",
                  (long long)n_bank, (long long)n_query, d, (long long)k,
                  hirl_text_bytes(rows_text, 4.0 * (double)(n_bank + n_query) * d),
                  hirl_text_bytes(keys_text, 8.0 * (double)n_query * (double)k));

    status = HIRL_ALLOC(HIRL_MEM_CLUSTER, n_bank_local * d, &unit_bank);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, n_query_local * d, &unit_query);
    if (status == HIRL_OK) status = HIRL_ALLOC(HIRL_MEM_CLUSTER, n_query_local * k, &keys);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, end);
    status = hirl_par_shared_create(world, (size_t)n_bank * sizeof(int32_t), &shared, &label);
    HIRL_TRY_GOTO(hirl_par_agree(world, status), status, end);
    HIRL_TRY_GOTO(hirl_gather_on_nodes(world, bank_label, n_bank_local, label), status, end);
    HIRL_TRY_GOTO(hirl_par_shared_sync(shared), status, end);
    hirl_rows_normalise(bank, n_bank_local, d, unit_bank);
    hirl_rows_normalise(query, n_query_local, d, unit_query);
    knn_search_t s = {.world = world,
                      .be = be,
                      .engine =
                          strcmp(cfg->engine, "faiss") ? HIRL_CLUSTER_FUSED : HIRL_CLUSTER_FAISS,
                      .bank = unit_bank,
                      .query = unit_query,
                      .n_bank_local = n_bank_local,
                      .n_query_local = n_query_local,
                      .d = d,
                      .k = k};
    HIRL_TRY_GOTO(search(&s, cfg->query_chunk, keys), status, end);
    sort_ks(cfg, order);
    const vote_t vote = {.cfg = cfg,
                         .order = order,
                         .k = k,
                         .keys = keys,
                         .bank_label = label,
                         .query_label = query_label};
    HIRL_TRY_GOTO(hirl_par_agree(world, count_hits(&vote, n_query_local, n_classes, n_hit)), status,
                  end);
    HIRL_TRY_GOTO(hirl_par_all_reduce(world, n_hit, 2 * cfg->n_k, HIRL_PAR_I64, HIRL_PAR_SUM),
                  status, end);
    for (int i = 0; i < cfg->n_k; i++) {
        top1[i] = 100 * (double)n_hit[i] / (double)n_query;
        top5[i] = 100 * (double)n_hit[cfg->n_k + i] / (double)n_query;
    }
end:
    hirl_par_shared_destroy(&shared);
    hirl_mem_free(keys);
    hirl_mem_free(unit_query);
    hirl_mem_free(unit_bank);
    return status;
}
