/* SPDX-License-Identifier: Apache-2.0 */
/* Which settings refuse each other: one table, from which checks, tests and docs/tuning.md come. Pairs that are not in
 * it combine. */
#ifndef FK_INTERACTIONS_H
#define FK_INTERACTIONS_H

#include "fk.h"

/* Conditions: "=text", "!text" (another, and set), ">number". */
typedef struct {
  const char *a, *a_when, *b, *b_when, *reason;
} FkInteraction;

/* (transfer none) */
const FkInteraction *fk_interactions(size_t *count);
/* False with FK_ERROR_OPTION_BAD naming both properties when two decided values refuse each other. */
bool fk_interactions_check(const FkSettings *settings, GError **error);
/* The reason why `value`, chosen by a preset for `name`, gives way to an explicit setting; NULL: it does not. */
const char *fk_interactions_yield(const FkSettings *settings, const char *name, const char *value);

#endif
