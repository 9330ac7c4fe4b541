/// @file nn.h
/// Parameter registry, encoders and heads written in tape operations. Parameters are named and shaped as in the common PyTorch implementations
/// (torchvision for ResNet), so that weights travel by name. Not collective unless said.
#ifndef HIRL_NN_H
#define HIRL_NN_H

#include "hirl/deck.h"
#include "hirl/tape.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { HIRL_NAME_MAX = 128 };

/// How a parameter starts. All draws are functions of (seed, name).
typedef enum hirl_init {
    HIRL_INIT_ZERO,
    HIRL_INIT_ONE,
    HIRL_INIT_KAIMING_NORMAL_FAN_OUT, // N(0, 2 / (O kH kW)): He et al. 2015, torchvision's ResNet convolutions
    HIRL_INIT_UNIFORM_FAN_IN, // U(+-1 / sqrt(fan_in)): torch.nn.Linear weight and bias; fan_in is `scale`
    HIRL_INIT_NORMAL          // N(0, scale^2)
} hirl_init_t;

typedef struct hirl_param {
    char name[HIRL_NAME_MAX]; // "encoder_q.layer1.0.conv1.weight"
    hirl_shape_t shape;
    int64_t offset; // elements into the slab
    int64_t count;
    hirl_init_t init;
    double scale;
    bool is_buffer;      // running statistics: no gradient, no update
    hirl_tensor_t value; // view of the slab
    hirl_tensor_t grad;  // view of the gradient slab; no tensor for buffers and frozen registries
    hirl_var_t *var;     // leaf (trainable) or constant
} hirl_param_t;

/// Owns parameters and buffers: one slab each for values, gradients, buffers. Declare all, then finalize, then use.
typedef struct hirl_registry hirl_registry_t;
hirl_status_t hirl_registry_create(hirl_tape_t *tape, hirl_registry_t **registry_p);
void hirl_registry_destroy(hirl_registry_t **registry);
/// Declares; `*param_p` stays valid until destroy. name = prefix + suffix. Errors: HIRL_ERR_ARG (name taken, too long, finalized).
hirl_status_t hirl_registry_add(hirl_registry_t *registry, const char *prefix, const char *suffix,
                                hirl_shape_t shape, hirl_init_t init, double scale, bool is_buffer,
                                hirl_param_t **param_p);
/// Allocates the slabs and draws initial values from (seed, name). Frozen registries have no gradients.
hirl_status_t hirl_registry_finalize(hirl_registry_t *registry, uint64_t seed, bool is_trainable);
/// The same without gradients and with the values of `from`, which declares the same parameters: an averaged copy's
/// beginning. Errors: HIRL_ERR_ARG (the declarations differ).
hirl_status_t hirl_registry_finalize_copy(hirl_registry_t *registry, const hirl_registry_t *from);
/// Declared before any parameter is looked for in a file: a checkpoint of another method may lack all of this registry, which
/// then keeps its drawn values (heads that a hierarchy adds to a method).
void hirl_registry_set_optional(hirl_registry_t *registry);
bool hirl_registry_is_optional(const hirl_registry_t *registry);
int hirl_registry_n_params(const hirl_registry_t *registry);
hirl_param_t *hirl_registry_param(hirl_registry_t *registry, int i); // in order of declaration
hirl_param_t *hirl_registry_find(hirl_registry_t *registry, const char *name); // NULL if absent
/// Slabs (plain f32 [n]); buffers are in a slab of their own.
const hirl_tensor_t *hirl_registry_values_view(const hirl_registry_t *registry);
const hirl_tensor_t *hirl_registry_grads_view(const hirl_registry_t *registry);
const hirl_tensor_t *hirl_registry_buffers_view(const hirl_registry_t *registry);
bool hirl_registry_is_trainable(const hirl_registry_t *registry);
/// Forgets gradients before a step.
/// Keeps a copy of the buffers (running statistics), to be put back if a step is passed over. Not collective.
hirl_status_t hirl_registry_keep_buffers(hirl_registry_t *registry);
/// Puts back what was last kept; HIRL_ERR_ARG if nothing was.
hirl_status_t hirl_registry_restore_buffers(hirl_registry_t *registry);
void hirl_registry_clear_grads(hirl_registry_t *registry);
/// Copies values and buffers of a registry with the same declarations (names may differ in their prefix).
hirl_status_t hirl_registry_copy(const hirl_registry_t *from, hirl_registry_t *to);
/// to = m to + (1 - m) from, parameters only.
hirl_status_t hirl_registry_ema(const hirl_registry_t *from, float m, hirl_registry_t *to);
/// hirl_backend_weights_begin of all of them: until hirl_backend_weights_end nothing may change a parameter.
hirl_status_t hirl_registries_hold(hirl_backend_t *backend, hirl_registry_t *const *registries,
                                   int n);
/// Averages the buffers (running statistics) over ranks, so that all ranks hold the same. Collective.
hirl_status_t hirl_registry_average_buffers(hirl_registry_t *registry, hirl_world_t *world);

/// What a forward pass needs to know.
typedef struct hirl_forward {
    hirl_tape_t *tape;
    bool is_training;   // batch statistics or running ones
    int64_t bn_group;   // see hirl_bn_args_t
    hirl_dtype_t dtype; // f32 or bf16 for images and activations; heads and losses stay f32
    int micro,
        n_micro; // which of the step's micro-batches this is; 0, 0: the only one. Running statistics move once a step, by the mean of all
} hirl_forward_t;

// ---------------------------------------------------------------------------------------------- deck group

/// &model
typedef struct hirl_model_cfg {
    char backbone[HIRL_DECK_TEXT_MAX]; // resnet10 18 34 50 101 152
    char stem[HIRL_DECK_TEXT_MAX];     // 'imagenet' (7x7/2 + pool) | 'cifar' (3x3/1)
    int64_t width;                     // channels of the first stage (64)
    int64_t stages;                    // stages used, 1 to 4
    int64_t bn_group; // samples of the global batch per group of batch statistics; 0: all
    bool zero_init_residual;
} hirl_model_cfg_t;
extern const hirl_group_t hirl_model_group;

// ---------------------------------------------------------------------------------------------- modules

/// ResNet (He et al. 2016; torchvision's v1.5 with the stride on the 3x3), without `fc`.
typedef struct hirl_resnet hirl_resnet_t;
/// Declares its parameters under `prefix` ("encoder_q."). in_channels 1 or 3. Errors: HIRL_ERR_DECK.
hirl_status_t hirl_resnet_create(hirl_registry_t *registry, const char *prefix,
                                 const hirl_model_cfg_t *cfg, int in_channels,
                                 hirl_resnet_t **resnet_p);
void hirl_resnet_destroy(hirl_resnet_t **resnet);
int hirl_resnet_feature_dim(const hirl_resnet_t *resnet);
/// x [N, H, W, C] -> features [N, D] (global average pool), f32.
hirl_status_t hirl_resnet_forward(const hirl_resnet_t *resnet, const hirl_forward_t *fw,
                                  hirl_var_t *x, hirl_var_t **features_p);
/// Floating-point operations of one image's forward pass.
double hirl_resnet_flops(const hirl_resnet_t *resnet, int height, int width);

/// Multi-layer perceptron: n_layers linear layers; hidden ones are Linear (- BatchNorm1d) - ReLU, as nn.Sequential names them ("<prefix>0.weight", ...).
typedef struct hirl_mlp hirl_mlp_t;
typedef struct hirl_mlp_spec {
    int in_dim, hidden_dim, out_dim;
    int n_layers; // linear layers, >= 1
    bool has_bn;  // hidden layers carry BatchNorm1d and then no bias
} hirl_mlp_spec_t;
hirl_status_t hirl_mlp_create(hirl_registry_t *registry, const char *prefix,
                              const hirl_mlp_spec_t *spec, hirl_mlp_t **mlp_p);
void hirl_mlp_destroy(hirl_mlp_t **mlp);
hirl_status_t hirl_mlp_forward(const hirl_mlp_t *mlp, const hirl_forward_t *fw, hirl_var_t *x,
                               hirl_var_t **y_p);

#ifdef __cplusplus
}
#endif
#endif
