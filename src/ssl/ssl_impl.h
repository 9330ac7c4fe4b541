/// @file ssl_impl.h
/// Tables of the methods and of the hierarchy decorator, for src/ssl alone.
#ifndef HIRL_SSL_IMPL_H
#define HIRL_SSL_IMPL_H

#include "hirl/ssl.h"

extern const hirl_method_ops_t ssl_mocov2_ops;

/// The decorator's table; its `create` is ssl_hirl_create.
extern const hirl_method_ops_t ssl_hirl_ops;
/// The rules of &hirl around a method; not collective.
hirl_status_t ssl_hirl_check(const hirl_deck_t *deck, const hirl_method_ops_t *inner);
/// Wraps `inner`, which the decorator owns from then on (also on failure).
hirl_status_t ssl_hirl_create(const hirl_method_ctx_t *ctx, hirl_method_t *inner, void **self_p);
void ssl_hirl_set_hierarchy(void *self, hirl_hierarchy_t **hierarchy);
hirl_status_t ssl_hirl_upload(void *self);

#endif
