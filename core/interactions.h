/* SPDX-License-Identifier: Apache-2.0 */
/* Questions asked of the table of settings that refuse each other (fk_interactions, fk.h). */
#ifndef FK_INTERACTIONS_H
#define FK_INTERACTIONS_H

#include "fk.h"

/* False with FK_ERROR_OPTION_BAD naming both properties when two decided values refuse each other. */
bool fk_interactions_check(const FkSettings *settings, GError **error);
/* The reason why `value`, chosen by a preset for `name`, gives way to an explicit setting; NULL: it does not. */
const char *fk_interactions_yield(const FkSettings *settings, const char *name, const char *value);

#endif
