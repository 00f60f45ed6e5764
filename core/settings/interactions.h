/* SPDX-License-Identifier: Apache-2.0 */
/* Questions asked of the table of settings that cannot be combined (fk_interactions, fk.h). */
#ifndef FK_INTERACTIONS_H
#define FK_INTERACTIONS_H

#include "values.h"

/* Whether a condition of the table is met by `value` (nullable). */
bool fk_interactions_holds(const char *when, const char *value);
/* The reason why `value`, chosen by a preset for `name`, gives way to an explicit setting; NULL: it does not. */
const char *fk_interactions_yield(const FkValues *settings, const char *name, const char *value);

/* A setting that has no effect beside another; `b` NULL: whatever the others are. a_when NULL: `a` differs from its
 * default. (transfer none): static. */
const FkInteraction *fk_interactions_idle(size_t *count);

#endif
