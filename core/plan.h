/* SPDX-License-Identifier: Apache-2.0 */
/* Walks of an edit on the null backend. */
#ifndef FK_PLAN_H
#define FK_PLAN_H

#include "job.h"

/* Bytes of work memory that an edit needs with the model's matrices expanded, [0], and as their files have them, [1]:
 * these are expanded in it one by one. What the model cannot be has the other's. */
typedef struct {
  size_t bytes[2];
} FkWork;

/* Of this edit on its backend. */
bool fk_plan_works(const FkEdit *edit, FkWork *work, GError **error);
/* What matrices of an FkRole are called; FK_ROLES: vectors and tables. Static. */
const char *fk_plan_role(int role);

#endif
