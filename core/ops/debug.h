/* SPDX-License-Identifier: Apache-2.0 */
/* Dumping named tensors for a comparison with the reference scripts. libc only. */
#ifndef FK_DEBUG_H
#define FK_DEBUG_H

#include "backend.h"

/* Environment FK_DUMP=dir: writes dir/NNNN-name.npy (NNNN counts the dumps of a backend; '/' in the name becomes '.'),
 * float32 in C order whatever the tensor's dtype, int32 for int32; codes without their scales. Backends may dump at the
 * same time: the second of a process writes 2-NNNN-name.npy, and so on. Waits for the backend. Without FK_DUMP, and
 * after a failure of the backend, it does nothing. A file that cannot be written is left out. */
void fk_debug_dump(FkBackend *be, const char *name, FkTensor t);

#endif
