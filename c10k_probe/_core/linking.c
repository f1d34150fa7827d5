/*
 * linking.c - the only source that is compiled once for each kind of linking; all other objects are the same
 * in the dynamic and the static executable, so that a difference between the two comes from the linking.
 */
#include "helper.h"

#if !defined(C10K_LINKING) || !defined(C10K_FLAGS)
#error "C10K_LINKING and C10K_FLAGS must be defined by the build (see CMakeLists.txt)"
#endif

const char *const helper_linking = C10K_LINKING;
const char *const helper_flags = C10K_FLAGS;
