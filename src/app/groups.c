// The list of all deck groups.

#include "app_impl.h"

#include "hirl/data_clip.h"
#include "hirl/data_preview.h"

enum { MAX_GROUPS = 64 };

static const hirl_group_t *const fixed[] = {
    &hirl_run_group,        &hirl_data_group,  &hirl_views_group,    &hirl_model_group,
    &hirl_hirl_group,       &hirl_optim_group, &hirl_schedule_group, &hirl_ckpt_group,
    &hirl_knn_group,        &hirl_pack_group,  &app_probe_group,     &app_inspect_group,
    &app_bench_input_group, &hirl_mask_group,  &hirl_mix_group,      &hirl_preview_group,
    &hirl_clip_group,
};

const hirl_group_t *const *hirl_app_groups(int *n_p) {
    static const hirl_group_t *groups[MAX_GROUPS]; // filled with the same constants at every call
    int n = 0, n_methods;
    const hirl_method_ops_t *const *methods = hirl_methods(&n_methods);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; ++i) groups[n++] = fixed[i];
    for (int i = 0; i < n_methods; ++i) groups[n++] = methods[i]->group;
    *n_p = n;
    return groups;
}
