// Multi-layer perceptron heads, numbered as torch.nn.Sequential(Linear, [BatchNorm1d,] ReLU, ..., Linear) numbers them.

#include "nn_impl.h"

enum { MAX_LAYERS = 16 };

struct hirl_mlp {
    int n_layers;
    bool has_bn;
    struct {
        hirl_param_t *weight, *bias;
        norm_layer_t norm;
    } layer[MAX_LAYERS];
};

static hirl_status_t mlp_declare(hirl_registry_t *registry, const char *prefix,
                                 const hirl_mlp_spec_t *spec, hirl_mlp_t *mlp) {
    int in = spec->in_dim;
    for (int i = 0, number = 0; i < spec->n_layers; ++i) {
        bool is_last = i == spec->n_layers - 1;
        int out = is_last ? spec->out_dim : spec->hidden_dim;
        char name[HIRL_NAME_MAX];
        HIRL_TRY(hirl_text_format(name, sizeof name, "%s%d.", prefix, number));
        HIRL_TRY(hirl_registry_add(registry, name, "weight", hirl_shape_2(out, in),
                                   HIRL_INIT_UNIFORM_FAN_IN, in, false, &mlp->layer[i].weight));
        if (is_last || !spec->has_bn)
            HIRL_TRY(hirl_registry_add(registry, name, "bias", hirl_shape_1(out),
                                       HIRL_INIT_UNIFORM_FAN_IN, in, false, &mlp->layer[i].bias));
        if (!is_last && spec->has_bn) {
            HIRL_TRY(hirl_text_format(name, sizeof name, "%s%d.", prefix, number + 1));
            HIRL_TRY(norm_layer_declare(registry, name, out, HIRL_INIT_ONE, &mlp->layer[i].norm));
        }
        number += spec->has_bn ? 3 : 2;
        in = out;
    }
    return HIRL_OK;
}

hirl_status_t hirl_mlp_create(hirl_registry_t *registry, const char *prefix,
                              const hirl_mlp_spec_t *spec, hirl_mlp_t **mlp_p) {
    hirl_mlp_t *mlp = NULL;
    HIRL_REQUIRE(spec->n_layers >= 1 && spec->n_layers <= MAX_LAYERS, HIRL_ERR_ARG,
                 "%s: 1 to %d linear layers, got %d", prefix, MAX_LAYERS, spec->n_layers);
    HIRL_TRY(HIRL_ALLOC(HIRL_MEM_PARAM, 1, &mlp));
    mlp->n_layers = spec->n_layers;
    mlp->has_bn = spec->has_bn;
    hirl_status_t status = mlp_declare(registry, prefix, spec, mlp);
    if (status != HIRL_OK) {
        hirl_mlp_destroy(&mlp);
        return status;
    }
    *mlp_p = mlp;
    return HIRL_OK;
}

void hirl_mlp_destroy(hirl_mlp_t **mlp) {
    if (!mlp || !*mlp) return;
    hirl_mem_free(*mlp);
    *mlp = NULL;
}

hirl_status_t hirl_mlp_forward(const hirl_mlp_t *mlp, const hirl_forward_t *fw, hirl_var_t *x,
                               hirl_var_t **y_p) {
    hirl_var_t *h = hirl_var_retain(x);
    hirl_status_t status = HIRL_OK;
    for (int i = 0; i < mlp->n_layers; ++i) {
        hirl_var_t *next = NULL;
        bool is_hidden = i < mlp->n_layers - 1;
        hirl_act_t act = is_hidden && !mlp->has_bn ? HIRL_ACT_RELU : HIRL_ACT_NONE;
        HIRL_TRY_GOTO(hirl_tape_linear(fw->tape, h, mlp->layer[i].weight->var,
                                       mlp->layer[i].bias ? mlp->layer[i].bias->var : NULL, act,
                                       &next),
                      status, done);
        hirl_var_release(&h);
        h = next;
        if (is_hidden && mlp->has_bn) {
            HIRL_TRY_GOTO(norm_layer_forward(&mlp->layer[i].norm, fw, h, NULL, true, &next), status,
                          done);
            hirl_var_release(&h);
            h = next;
        }
    }
    *y_p = hirl_var_retain(h);
done:
    hirl_var_release(&h);
    return status;
}
