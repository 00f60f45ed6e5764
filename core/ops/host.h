/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the host that this process can have. libc only. */
#ifndef FK_HOST_H
#define FK_HOST_H

#include <stddef.h>

typedef struct {
  size_t available; /* bytes that can be had without swapping: page cache counts, it gives way */
  size_t total;
} FkHostMemory;

/* The machine's, or less where a control group of the process (version 1 or 2) or one above it has a limit. root: the
 * folder that proc and sys are in, "" of this machine. */
FkHostMemory fk_host_memory(const char *root);

#endif
