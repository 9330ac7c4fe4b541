/// The backends of a program built with CUDA, best first; it stands in for registry.c.
#include "backend_impl.h"

const hirl_backend_ops_t *const hirl_backend_registry[] = {
    &hirl_backend_ops_cuda, &hirl_backend_ops_cpu, &hirl_backend_ops_ref};
const char *const hirl_backend_registry_names[] = {"cuda", "cpu", "ref"};
const int hirl_backend_registry_count = 3;
