/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in the memory of the engine's device (FK_MEMORY_DEVICE). */
#ifndef FK_SURFACE_H
#define FK_SURFACE_H

#include "backend.h"
#include "fk.h"

/* FK_ERROR_OPTION_BAD: a picture of a call lies where this backend, or this part of a job, takes none. be NULL: what
 * works on pixels of host memory alone. */
bool fk_surface_check(const FkBackend *be, const FkJob *jobs, int n, GError **error);

#endif
