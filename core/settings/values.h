/* SPDX-License-Identifier: Apache-2.0 */
/* FkOptions and FkSettings: one text per property of their scope, checked against the table when set. */
#ifndef FK_VALUES_H
#define FK_VALUES_H

#include "fk.h"

/* What both are: texts by row of the table. */
typedef struct FkValues FkValues;

/* (transfer none): valid as long as the argument. */
const FkValues *fk_options_values(const FkOptions *options);
const FkValues *fk_settings_values(const FkSettings *settings);
/* Text of a row; NULL: not set, or of another scope. (transfer none): valid until the next set. */
const char *fk_values_get(const FkValues *values, const FkProperty *property);

/* Whether a row belongs to a scope: `both` rows belong to both. */
bool fk_values_in_scope(const FkProperty *property, FkScope scope);
/* False with FK_ERROR_OPTION_BAD when `value` is none of the property's. */
bool fk_values_parse(const FkProperty *property, const char *value, GError **error);

#endif
