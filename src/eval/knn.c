// Weighted KNN evaluation (Wu et al. 2018, "Unsupervised feature learning via non-parametric instance discrimination", section 3.4).

#include <string.h>

#include "hirl/eval.h"

static hirl_status_t knn(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *bank,
                         const hirl_shard_set_t *query, const hirl_knn_cfg_t *cfg,
                         hirl_knn_result_t *result_p) {
    float *x = NULL, *q = NULL;
    int32_t *x_label = NULL, *q_label = NULL;
    int64_t n_x = 0, n_q = 0;
    int d = 0, d_q = 0;
    int n_classes = hirl_shard_set_n_classes(bank);
    hirl_knn_result_t result = {.n_k = cfg->n_k,
                                .n_bank = hirl_shard_set_n_samples(bank),
                                .n_query = hirl_shard_set_n_samples(query)};
    hirl_status_t status = HIRL_OK;
    double start = hirl_time_now();
    if (hirl_shard_set_n_classes(query) > n_classes) n_classes = hirl_shard_set_n_classes(query);
    HIRL_TRY_GOTO(
        hirl_eval_extract(ctx, bank, HIRL_EMBED_FEATURE, "knn bank", &x, &x_label, &n_x, &d),
        status, done);
    HIRL_TRY_GOTO(
        hirl_eval_extract(ctx, query, HIRL_EMBED_FEATURE, "knn queries", &q, &q_label, &n_q, &d_q),
        status, done);
    if (d != d_q) {
        status = HIRL_FAIL(
            HIRL_ERR_MISMATCH,
            "knn: bank features have %d entries, query features %d: images of different size?", d,
            d_q);
        goto done;
    }
    double extracted = hirl_time_now();
    result.extract_seconds = extracted - start;
    HIRL_TRY_GOTO(hirl_knn_classify(
                      ctx->world, hirl_cluster_device_of(hirl_tape_backend_view(ctx->tape)), x,
                      x_label, n_x, q, q_label, n_q, d, n_classes, cfg, result.top1, result.top5),
                  status, done);
    result.search_seconds = hirl_time_now() - extracted;
    result.d = d;
    memcpy(result.k, cfg->k, sizeof result.k);
    *result_p = result;
done:
    hirl_mem_free(x);
    hirl_mem_free(q);
    hirl_mem_free(x_label);
    hirl_mem_free(q_label);
    return status;
}

hirl_status_t hirl_eval_knn(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *bank,
                            const hirl_shard_set_t *query, const hirl_knn_cfg_t *cfg,
                            hirl_knn_result_t *result_p) {
    HIRL_REQUIRE(ctx->method, HIRL_ERR_ARG, "knn: no method given");
    return knn(ctx, bank, query, cfg, result_p);
}

hirl_status_t hirl_eval_knn_pixels(const hirl_eval_ctx_t *ctx, const hirl_shard_set_t *bank,
                                   const hirl_shard_set_t *query, const hirl_knn_cfg_t *cfg,
                                   hirl_knn_result_t *result_p) {
    // raw means raw: centred pixels are another baseline (and on Fashion-MNIST a better one)
    hirl_eval_ctx_t pixels = *ctx;
    hirl_data_cfg_t data = *ctx->data;
    for (int i = 0; i < data.n_mean; ++i) data.mean[i] = 0;
    for (int i = 0; i < data.n_std; ++i) data.std[i] = 1;
    pixels.method = NULL;
    pixels.data = &data;
    return knn(&pixels, bank, query, cfg, result_p);
}
