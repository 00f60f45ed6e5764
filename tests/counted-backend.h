/* SPDX-License-Identifier: Apache-2.0 */
/* A backend whose transfers and allocations are counted, and one of the latter refused. One at a time. */
#ifndef COUNTED_BACKEND_H
#define COUNTED_BACKEND_H

#include "backend.h"

#include <string.h>

static struct {
  FkOps ops;
  const FkOps *own;
  size_t large;                     /* from so many bytes on a transfer is one of a frame's size */
  int ups, downs, allocs, releases; /* transfers of a frame's size; of memory */
  int refuse;                       /* the n-th allocation from now on; 0: none, -1: all */
  bool fails;                       /* what refuses one is a failure of the device */
} counted;

static inline void count_upload(FkBackend *be, void *to, const void *from, size_t bytes) {
  counted.ups += bytes >= counted.large;
  counted.own->upload(be, to, from, bytes);
}

static inline void count_download(FkBackend *be, void *to, const void *from, size_t bytes) {
  counted.downs += bytes >= counted.large;
  counted.own->download(be, to, from, bytes);
}

static inline void *count_alloc(FkBackend *be, size_t bytes) {
  counted.allocs++;
  if (counted.refuse < 0 || (counted.refuse && --counted.refuse == 0)) {
    if (counted.fails) be->failure = FK_FAIL_DEVICE;
    return NULL;
  }
  return counted.own->alloc(be, bytes);
}

static inline void count_release(FkBackend *be, void *memory) {
  counted.releases++;
  counted.own->release(be, memory);
}

static inline void count_on(FkBackend *be, size_t large) {
  memset(&counted, 0, sizeof counted);
  counted.own = be->ops;
  counted.ops = *be->ops;
  counted.ops.upload = count_upload;
  counted.ops.download = count_download;
  counted.ops.alloc = count_alloc;
  counted.ops.release = count_release;
  counted.large = large;
  be->ops = &counted.ops;
}

static inline void count_off(FkBackend *be) {
  be->ops = counted.own;
}

#endif
