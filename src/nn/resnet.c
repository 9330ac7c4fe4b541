// ResNet encoders (He et al. 2016, "Deep residual learning for image recognition"), torchvision's variant: stride on the 3x3 convolution of a
// bottleneck, 1x1 projection shortcuts, kaiming-normal fan-out convolutions, batch-norm weights 1. The 'cifar' stem is a 3x3 convolution of stride 1 without pooling.

#include <string.h>

#include "nn_impl.h"

enum { N_STAGES = 4, MAX_CONVS = 3 };

typedef struct block {
    conv_norm_t conv[MAX_CONVS];
    conv_norm_t shortcut;
    bool has_shortcut;
} block_t;

struct hirl_resnet {
    conv_norm_t stem;
    bool has_pool;
    block_t *blocks;
    int n_blocks;
    int n_convs; // per block: 2 basic, 3 bottleneck
    int feature_dim;
};

typedef struct variant {
    const char *name;
    int n_blocks[N_STAGES];
    bool is_bottleneck;
} variant_t;

static const variant_t variants[] = {
    {"resnet10", {1, 1, 1, 1}, false},  {"resnet18", {2, 2, 2, 2}, false},
    {"resnet34", {3, 4, 6, 3}, false},  {"resnet50", {3, 4, 6, 3}, true},
    {"resnet101", {3, 4, 23, 3}, true}, {"resnet152", {3, 8, 36, 3}, true},
};

static hirl_status_t block_declare(hirl_registry_t *registry, const char *prefix, int64_t in,
                                   int64_t width, int64_t out, int stride, bool is_bottleneck,
                                   bool is_zero_init, block_t *block) {
    int64_t channels[MAX_CONVS + 1] = {in, width, is_bottleneck ? width : out, out};
    int kernel[MAX_CONVS] = {is_bottleneck ? 1 : 3, 3, 1};
    int n = is_bottleneck ? 3 : 2;
    for (int i = 0; i < n; ++i) {
        char conv[HIRL_NAME_MAX], norm[HIRL_NAME_MAX];
        int conv_stride = i == (is_bottleneck ? 1 : 0) ? stride : 1;
        hirl_init_t init = is_zero_init && i == n - 1 ? HIRL_INIT_ZERO : HIRL_INIT_ONE;
        HIRL_TRY(hirl_text_format(conv, sizeof conv, "%sconv%d.", prefix, i + 1));
        HIRL_TRY(hirl_text_format(norm, sizeof norm, "%sbn%d.", prefix, i + 1));
        HIRL_TRY(conv_norm_declare(registry, conv, norm, channels[i], channels[i + 1], kernel[i],
                                   conv_stride, init, &block->conv[i]));
    }
    block->has_shortcut = stride != 1 || in != out;
    if (block->has_shortcut) {
        char conv[HIRL_NAME_MAX], norm[HIRL_NAME_MAX];
        HIRL_TRY(hirl_text_format(conv, sizeof conv, "%sdownsample.0.", prefix));
        HIRL_TRY(hirl_text_format(norm, sizeof norm, "%sdownsample.1.", prefix));
        HIRL_TRY(conv_norm_declare(registry, conv, norm, in, out, 1, stride, HIRL_INIT_ONE,
                                   &block->shortcut));
    }
    return HIRL_OK;
}

static hirl_status_t resnet_declare(hirl_registry_t *registry, const char *prefix,
                                    const hirl_model_cfg_t *cfg, const variant_t *variant,
                                    int in_channels, hirl_resnet_t *resnet) {
    char conv[HIRL_NAME_MAX], norm[HIRL_NAME_MAX];
    bool is_cifar = strcmp(cfg->stem, "cifar") == 0;
    int64_t in = cfg->width;
    int at = 0;
    HIRL_TRY(hirl_text_format(conv, sizeof conv, "%sconv1.", prefix));
    HIRL_TRY(hirl_text_format(norm, sizeof norm, "%sbn1.", prefix));
    HIRL_TRY(conv_norm_declare(registry, conv, norm, in_channels, in, is_cifar ? 3 : 7,
                               is_cifar ? 1 : 2, HIRL_INIT_ONE, &resnet->stem));
    resnet->has_pool = !is_cifar;
    for (int stage = 0; stage < cfg->stages; ++stage) {
        int64_t width = cfg->width << stage, out = variant->is_bottleneck ? 4 * width : width;
        for (int i = 0; i < variant->n_blocks[stage]; ++i, ++at) {
            char name[HIRL_NAME_MAX];
            HIRL_TRY(hirl_text_format(name, sizeof name, "%slayer%d.%d.", prefix, stage + 1, i));
            HIRL_TRY(block_declare(registry, name, in, width, out, i == 0 && stage > 0 ? 2 : 1,
                                   variant->is_bottleneck, cfg->zero_init_residual,
                                   &resnet->blocks[at]));
            in = out;
        }
    }
    resnet->feature_dim = (int)in;
    return HIRL_OK;
}

hirl_status_t hirl_resnet_create(hirl_registry_t *registry, const char *prefix,
                                 const hirl_model_cfg_t *cfg, int in_channels,
                                 hirl_resnet_t **resnet_p) {
    const variant_t *variant = NULL;
    hirl_resnet_t *resnet = NULL;
    for (size_t i = 0; i < sizeof variants / sizeof *variants; ++i)
        if (strcmp(variants[i].name, cfg->backbone) == 0) variant = &variants[i];
    HIRL_REQUIRE(variant, HIRL_ERR_DECK,
                 "model%%backbone = '%s': no such encoder; see --describe model%%backbone",
                 cfg->backbone);
    HIRL_REQUIRE(cfg->stages >= 1 && cfg->stages <= N_STAGES, HIRL_ERR_DECK,
                 "model%%stages = %lld: 1 to %d", (long long)cfg->stages, N_STAGES);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &resnet));
    for (int stage = 0; stage < cfg->stages; ++stage) resnet->n_blocks += variant->n_blocks[stage];
    resnet->n_convs = variant->is_bottleneck ? 3 : 2;
    hirl_status_t status = HIRL_ALLOC(HIRL_MEM_PARAM, resnet->n_blocks, &resnet->blocks);
    if (status == HIRL_OK)
        status = resnet_declare(registry, prefix, cfg, variant, in_channels, resnet);
    if (status != HIRL_OK) {
        hirl_resnet_destroy(&resnet);
        return status;
    }
    *resnet_p = resnet;
    return HIRL_OK;
}

void hirl_resnet_destroy(hirl_resnet_t **resnet) {
    if (!resnet || !*resnet) return;
    hirl_mem_free((*resnet)->blocks);
    hirl_mem_free(*resnet);
    *resnet = NULL;
}

int hirl_resnet_feature_dim(const hirl_resnet_t *resnet) { return resnet->feature_dim; }

// The shortcut is computed first: its input is freed as early as the main path allows.
static hirl_status_t block_forward(const block_t *block, int n_convs, const hirl_forward_t *fw,
                                   hirl_var_t *x, hirl_var_t **y_p) {
    hirl_var_t *shortcut = NULL, *h = hirl_var_retain(x);
    hirl_status_t status = HIRL_OK;
    if (block->has_shortcut)
        HIRL_TRY_GOTO(conv_norm_forward(&block->shortcut, fw, x, NULL, false, &shortcut), status,
                      done);
    else
        shortcut = hirl_var_retain(x);
    for (int i = 0; i < n_convs; ++i) {
        hirl_var_t *next = NULL;
        HIRL_TRY_GOTO(conv_norm_forward(&block->conv[i], fw, h, i == n_convs - 1 ? shortcut : NULL,
                                        true, &next),
                      status, done);
        hirl_var_release(&h);
        h = next;
    }
    *y_p = hirl_var_retain(h);
done:
    hirl_var_release(&h);
    hirl_var_release(&shortcut);
    return status;
}

hirl_status_t hirl_resnet_forward(const hirl_resnet_t *resnet, const hirl_forward_t *fw,
                                  hirl_var_t *x, hirl_var_t **features_p) {
    hirl_var_t *h = NULL, *next = NULL;
    hirl_status_t status = HIRL_OK;
    HIRL_TRY(hirl_tape_cast(fw->tape, x, fw->dtype, &h));
    HIRL_TRY_GOTO(conv_norm_forward(&resnet->stem, fw, h, NULL, true, &next), status, done);
    hirl_var_release(&h);
    h = next;
    if (resnet->has_pool) {
        HIRL_TRY_GOTO(hirl_tape_max_pool(fw->tape,
                                         &(hirl_pool_param_t){.kernel = 3, .stride = 2, .pad = 1},
                                         h, &next),
                      status, done);
        hirl_var_release(&h);
        h = next;
    }
    for (int i = 0; i < resnet->n_blocks; ++i) {
        HIRL_TRY_GOTO(block_forward(&resnet->blocks[i], resnet->n_convs, fw, h, &next), status,
                      done);
        hirl_var_release(&h);
        h = next;
    }
    status = hirl_tape_global_avg_pool(fw->tape, h, features_p);
done:
    hirl_var_release(&h);
    return status;
}

// ---------------------------------------------------------------------------------------------- cost

static double conv_flops(const conv_norm_t *layer, int *height, int *width) {
    const int64_t *d = layer->weight->shape.dim;
    *height = (*height + 2 * layer->conv.pad_h - (int)d[2]) / layer->conv.stride_h + 1;
    *width = (*width + 2 * layer->conv.pad_w - (int)d[3]) / layer->conv.stride_w + 1;
    return 2.0 * (double)hirl_shape_count(&layer->weight->shape) * *height * *width;
}

double hirl_resnet_flops(const hirl_resnet_t *resnet, int height, int width) {
    int h = height, w = width;
    double flops = conv_flops(&resnet->stem, &h, &w);
    if (resnet->has_pool) {
        h = (h - 1) / 2 + 1;
        w = (w - 1) / 2 + 1;
    }
    for (int i = 0; i < resnet->n_blocks; ++i) {
        const block_t *block = &resnet->blocks[i];
        int hs = h, ws = w;
        if (block->has_shortcut) flops += conv_flops(&block->shortcut, &hs, &ws);
        for (int j = 0; j < resnet->n_convs; ++j) flops += conv_flops(&block->conv[j], &h, &w);
    }
    return flops;
}

// ---------------------------------------------------------------------------------------------- deck

static const hirl_key_t model_keys[] = {
    HIRL_ROW_TEXT(hirl_model_cfg_t, backbone, "'resnet50'",
                  "resnet10|resnet18|resnet34|resnet50|resnet101|resnet152",
                  "Encoder. resnet10 has one basic block per stage."),
    HIRL_ROW_TEXT(hirl_model_cfg_t, stem, "'imagenet'", "imagenet|cifar",
                  "First layers: 7x7 convolution of stride 2 and max pooling, or one 3x3 "
                  "convolution of stride 1 for small images."),
    HIRL_ROW_INT(hirl_model_cfg_t, width, "64", 1, 4096, "channels",
                 "Channels of the first stage; each later stage doubles them."),
    HIRL_ROW_INT(hirl_model_cfg_t, stages, "4", 1, N_STAGES, "stages",
                 "Stages used; fewer than four suit small images."),
    HIRL_ROW_INT(hirl_model_cfg_t, bn_group, "0", 0, 1 << 30, "samples",
                 "Batch-norm statistics are taken over groups of this many consecutive samples of "
                 "the global batch, wherever they are; 0: the whole global batch. It must divide "
                 "a rank's batch, or be a multiple of it. The published MoCo v2 runs 32 per GPU."),
    HIRL_ROW_BOOL(hirl_model_cfg_t, zero_init_residual, ".false.",
                  "Start the last batch norm of each block at zero."),
};

const hirl_group_t hirl_model_group = {"model", "The encoder.", model_keys,
                                       sizeof model_keys / sizeof *model_keys,
                                       sizeof(hirl_model_cfg_t)};
