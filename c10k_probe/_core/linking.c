/*
 * linking.c - the only source that is compiled once for each kind of linking; all other objects are the same
 * in the dynamic, the static and the static-pie executable, so that a difference between them comes from the
 * linking.
 */
#include "creation_state.h"
#include "helper.h"

#if !defined(C10K_LINKING) || !defined(C10K_FLAGS) || !defined(C10K_LOADS_LIBRARIES)
#error "C10K_LINKING, C10K_FLAGS and C10K_LOADS_LIBRARIES must be defined by the build (see CMakeLists.txt)"
#endif

const char *const helper_linking = C10K_LINKING;
const char *const helper_flags = C10K_FLAGS;

#if C10K_LOADS_LIBRARIES
#include <dlfcn.h>

static bool load_library(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL) != NULL;
}

bool (*const linking_load_library)(const char *path) = load_library;
#else
bool (*const linking_load_library)(const char *path) = NULL;
#endif
