/* SPDX-License-Identifier: Apache-2.0 */
/* Writing packed models (fk_pack of fk.h), and what an engine has to know to open one; the file is pack.h. */
#ifndef FK_PACKING_H
#define FK_PACKING_H

#include "model.h"

#include "fk.h"

/* Options left at `auto` become what the packed model at `path` was made with; nothing where there is no packed model
 * or it says nothing that an option takes: opening it tells. */
void fk_packing_adopt(FkOptions *options, const char *path);

#endif
