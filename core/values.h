/* SPDX-License-Identifier: Apache-2.0 */
/* FkOptions and FkSettings: one text per property of their scope, checked against the table when set. */
#ifndef FK_VALUES_H
#define FK_VALUES_H

#include "fk.h"

/* False with FK_ERROR_OPTION_BAD when `value` is none of the property's. */
bool fk_values_parse(const FkProperty *property, const char *value, GError **error);
/* All option values in one line: engines with equal identity are one engine. (transfer full) */
char *fk_options_identity(const FkOptions *options);

#endif
