/* SPDX-License-Identifier: Apache-2.0 */
/* Walks of an edit on the null backend. */
#ifndef FK_PLAN_H
#define FK_PLAN_H

#include "job.h"

/* Bytes of work memory that this edit needs on its backend. */
bool fk_plan_arena(const FkEdit *edit, size_t *bytes, GError **error);
/* What matrices of an FkRole are called; FK_ROLES: vectors and tables. Static. */
const char *fk_plan_role(int role);

#endif
