/// What backend.c, registry.c and dispatch.c share.
#ifndef HIRL_BACKEND_IMPL_H
#define HIRL_BACKEND_IMPL_H

#include "hirl/backend_ops.h"

enum { HIRL_BACKEND_N_SLOTS = sizeof(hirl_backend_ops_t) / sizeof(void *) + 1 };

struct hirl_backend {
    const hirl_backend_ops_t *ops;
    void *ctx;
    const hirl_allocator_t *allocator;
    double upload_seconds;
    double mark[HIRL_N_MARKS]; // wall-clock time, where operations are done when they return
    bool is_fallback_logged[HIRL_BACKEND_N_SLOTS]; // by place in the table
};

/// The backends built in, best first.
extern const hirl_backend_ops_t *const hirl_backend_registry[];
extern const char *const hirl_backend_registry_names[];
extern const int hirl_backend_registry_count;

#endif
