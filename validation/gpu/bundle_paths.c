// Tells Open MPI and PMIx where they lie, before main() and before they look: their folders are
// compiled in, and a bundle (bundle.sh) is unpacked anywhere. A library beside theirs, which they
// name as needed, so that each program that uses them has it, with mpirun or without.

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// A variable of the environment and the folder in the bundle that it names.
typedef struct {
    const char *name;
    const char *folder;
} place_t;

static const place_t places[] = {
    {"OPAL_PREFIX", ""},
    {"OPAL_BINDIR", "/bin"},
    {"OPAL_LIBDIR", "/lib"},
    {"OPAL_PKGLIBDIR", "/lib/openmpi"},
    {"OPAL_DATADIR", "/share"},
    {"OPAL_PKGDATADIR", "/share/openmpi"},
    {"OPAL_SYSCONFDIR", "/share/openmpi"},
    {"PMIX_PREFIX", ""},
    {"PMIX_LIBDIR", "/lib"},
    {"PMIX_PKGLIBDIR", "/lib/pmix"},
    {"PMIX_DATADIR", "/share"},
    {"PMIX_PKGDATADIR", "/share/pmix"},
    {"PMIX_SYSCONFDIR", "/share/pmix"},
};

// What the environment says may be meant for another Open MPI on the machine, so it is replaced.
__attribute__((constructor)) static void set_places(void) {
    static const char here;
    Dl_info info;
    char root[PATH_MAX], value[PATH_MAX + 32];
    if (!dladdr(&here, &info) || !info.dli_fname || !realpath(info.dli_fname, root)) return;
    for (int up = 0; up < 2; ++up) { // the file, then lib/
        char *slash = strrchr(root, '/');
        if (!slash) return;
        *slash = 0;
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) {
        snprintf(value, sizeof value, "%s%s", root, places[i].folder);
        setenv(places[i].name, value, 1);
    }
}
