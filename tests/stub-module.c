/* SPDX-License-Identifier: Apache-2.0 */
/* A module that looks like the CUDA one from outside, for test-backend.c. Environment FK_STUB: "abi" has another
 * interface number, "sizes" another FkBackend, "open" finds no device, else it opens and does nothing. */
#include "backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const FkOps *fk_cuda_backend(void);

static bool stub_is(const char *what) {
  const char *stub = getenv("FK_STUB");
  return stub && strcmp(stub, what) == 0;
}

static bool stub_open(FkBackend *be, int device, char *message, size_t size) {
  if (stub_is("open")) {
    snprintf(message, size, "no CUDA device %d: the driver finds 0", device);
    return false;
  }
  snprintf(be->machine, sizeof be->machine, "stub %d", device);
  return true;
}

static void stub_close(FkBackend *be) {
  (void)be;
}
static void stub_sync(FkBackend *be) {
  (void)be;
}

const FkOps *fk_cuda_backend(void) {
  static FkOps ops;
  ops = (FkOps){.abi = FK_BACKEND_ABI + stub_is("abi"),
                .sizes = FK_BACKEND_SIZES,
                .name = "cuda",
                .open = stub_open,
                .close = stub_close};
  ops.sizes[1] += stub_is("sizes");
  ops.sync = stub_sync;
  return &ops;
}
