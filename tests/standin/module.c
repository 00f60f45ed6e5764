/* SPDX-License-Identifier: Apache-2.0 */
/* A CUDA module (FK_CUDA_MODULE) for the stand-in driver: backend=cuda computes on the CPU, and follows the driver's
 * memory, which may be closed to everything else (FK_STANDIN_CLOSED), while an op runs that takes pictures. Like the
 * real module it has a context of its own, so that memory of others is copied first. */
#include "backend.h"

#include <stdio.h>

/* Of the driver. */
int cuCtxCreate_v2(void **context, unsigned flags, int device);
int cuCtxPopCurrent_v2(void **context);
int cuDeviceGetCount(int *count);
void fk_standin_open(int open);
int fk_standin_belongs(const void *memory, size_t bytes, void *context);

static FkOps table;
static void *contexts[8]; /* of devices; until the process ends */

#define OPENED(slot, parameters, ...)                                                                                  \
  static void slot parameters {                                                                                        \
    fk_standin_open(1);                                                                                                \
    fk_cpu_ops.slot(__VA_ARGS__);                                                                                      \
    fk_standin_open(0);                                                                                                \
  }
OPENED(copy, (FkBackend * be, FkTensor y, FkTensor x), be, y, x)
OPENED(frame_read, (FkBackend * be, FkTensor y, const FkFrame *f, int left, int top, int first), be, y, f, left, top,
       first)
OPENED(frame_write, (FkBackend * be, const FkFrame *f, FkTensor x), be, f, x)
OPENED(frame_keep, (FkBackend * be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after), be, to,
       from, before, after)

static bool open_device(FkBackend *be, int device, char *message, size_t size) {
  int count = 0;
  device = device < 0 ? 0 : device;
  cuDeviceGetCount(&count);
  if (device >= count || device >= (int)(sizeof contexts / sizeof *contexts)) {
    snprintf(message, size, "there is no CUDA device %d: %d found, numbered from 0", device, count);
    return false;
  }
  if (!contexts[device] && (cuCtxCreate_v2(&contexts[device], 0, device) || cuCtxPopCurrent_v2(NULL))) {
    snprintf(message, size, "device %d: no context", device);
    return false;
  }
  if (!fk_cpu_ops.open(be, device, message, size)) return false;
  be->device = device;
  be->can |= FK_CAN_DEVICE_IMAGES;
  return true;
}

static void *context_of(FkBackend *be) {
  return contexts[be->device];
}

static bool reach(FkBackend *be, const void *memory, size_t bytes) {
  return fk_standin_belongs(memory, bytes, contexts[be->device]);
}

__attribute__((visibility("default"))) const FkOps *fk_cuda_backend(void);
const FkOps *fk_cuda_backend(void) {
  table = fk_cpu_ops;
  table.name = "cuda";
  table.open = open_device;
  table.context = context_of;
  table.reach = reach;
  table.copy = copy;
  table.frame_read = frame_read;
  table.frame_write = frame_write;
  table.frame_keep = frame_keep;
  return &table;
}
