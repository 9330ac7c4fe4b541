/// @file app.h
/// The program's tables: every deck group there is. For main() and for tests that read decks.
#ifndef HIRL_APP_H
#define HIRL_APP_H

#include "hirl/deck.h"

#ifdef __cplusplus
extern "C" {
#endif

/// All deck groups, the methods' included. Not collective.
const hirl_group_t *const *hirl_app_groups(int *n_p);

#ifdef __cplusplus
}
#endif
#endif
