/* SPDX-License-Identifier: Apache-2.0 */
/* Questions asked of the table of properties (fk_properties, fk.h). */
#ifndef FK_PROPERTIES_H
#define FK_PROPERTIES_H

#include "fk.h"

/* The row of that name; NULL: there is none. */
const FkProperty *fk_properties_find(const char *name);
/* `value` leaves the choice to the preset. */
bool fk_properties_automatic(const FkProperty *p, const char *value);

#endif
