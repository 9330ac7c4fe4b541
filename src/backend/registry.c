/// The backends built into this program, best first ('auto' takes the first that opens). Another one is one more line of the list.
#include "backend_impl.h"

#define BACKEND_LIST(X) \
    X(cpu)              \
    X(ref)

#define TABLE_OF(name) &hirl_backend_ops_##name,
#define NAME_OF(name) #name,
#define ONE(name) +1

const hirl_backend_ops_t *const hirl_backend_registry[] = {BACKEND_LIST(TABLE_OF)};
const char *const hirl_backend_registry_names[] = {BACKEND_LIST(NAME_OF)};
const int hirl_backend_registry_count = 0 BACKEND_LIST(ONE);
