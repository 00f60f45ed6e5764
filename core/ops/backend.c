/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, closing and the sticky failure of a backend; finding and checking the CUDA module. libc and dlopen only.
 *
 * The module is the file FK_CUDA_MODULE names (environment), else fkcuda.so in the folder FK_MODULE_DIR (environment,
 * else as the build defines it). It exports one symbol: const FkOps *fk_cuda_backend(void). */
#include "cpu.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FK_MODULE_DIR
#define FK_MODULE_DIR "/usr/local/lib/fluxkontext"
#endif

/* The module's table, NULL with a message. dlopen's own text names the file. */
static const FkOps *open_module(void **module, char *message, size_t size) {
  char path[4096];
  const char *file = getenv("FK_CUDA_MODULE"), *folder = getenv("FK_MODULE_DIR");
  if (file && *file)
    snprintf(path, sizeof path, "%s", file);
  else
    snprintf(path, sizeof path, "%s/fkcuda.so", folder && *folder ? folder : FK_MODULE_DIR);
  *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!*module) {
    snprintf(message, size, "cannot open the CUDA module %s: %s", path, dlerror());
    return NULL;
  }
  union {
    void *symbol;
    const FkOps *(*entry)(void);
  } found = {.symbol = dlsym(*module, "fk_cuda_backend")}; /* ISO C has no cast between the two */
  if (!found.symbol) {
    snprintf(message, size, "%s is no CUDA module of this program: it has no fk_cuda_backend", path);
    return NULL;
  }
  const FkOps *ops = found.entry();
  static const uint32_t sizes[] = FK_BACKEND_SIZES;
  if (ops && ops->abi == FK_BACKEND_ABI && memcmp(ops->sizes, sizes, sizeof sizes) == 0) return ops;
  snprintf(message, size, "%s has backend interface %u, this program needs %u: install the two from one build", path,
           ops ? ops->abi : 0, FK_BACKEND_ABI);
  return NULL;
}

/* NULL with *message empty: no such backend. */
static const FkOps *find_table(const char *name, void **module, char *message, size_t size) {
  if (strcmp(name, "cpu") == 0) return &fk_cpu_ops;
  if (strcmp(name, "null") == 0) return &fk_null_ops;
  if (strcmp(name, "cuda") == 0) return open_module(module, message, size);
  snprintf(message, size, "there is no backend '%s' (cpu, cuda, null)", name);
  return NULL;
}

/* Capabilities that follow from the table; open adds those that depend on the device. */
static uint32_t capabilities(const FkOps *ops) {
  return (ops->linear_fused ? FK_CAN_FUSED_LINEAR | FK_CAN_FUSED_QKV : 0u) |
         (ops->flash_attention ? FK_CAN_FLASH : 0u) | (ops->conv_fused ? FK_CAN_FUSED_CONV : 0u) |
         (ops->group_norm_silu ? FK_CAN_FUSED_GROUP_NORM : 0u) |
         (ops->graph_begin && ops->graph_end ? FK_CAN_GRAPH : 0u);
}

FkBackend *fk_backend_open(const char *name, int device, int threads, FkFailure *failure, char *message, size_t size) {
  void *module = NULL;
  *failure = FK_FAIL_UNSUPPORTED;
  const FkOps *ops = find_table(name, &module, message, size);
  if (!ops) {
    if (module) dlclose(module);
    return NULL;
  }
  FkBackend *be = calloc(1, sizeof *be);
  if (!be) {
    *failure = FK_FAIL_MEMORY;
    snprintf(message, size, "no memory for the %s backend", name);
    return NULL;
  }
  be->ops = ops;
  be->module = module;
  be->device = device;
  be->threads = threads;
  if (!ops->open(be, device, message, size)) {
    if (be->failure != FK_FAIL_NONE) *failure = be->failure;
    free(be);
    return NULL;
  }
  be->can |= capabilities(ops); /* open has added what depends on the device */
  be->use = be->can;
  *failure = FK_FAIL_NONE;
  return be;
}

/* The module stays mapped: the CUDA runtime inside it has exit handlers and driver callbacks of its own. */
void fk_backend_close(FkBackend *be) {
  if (!be) return;
  be->ops->close(be);
  free(be);
}

void fk_backend_fail(FkBackend *be, FkFailure failure, const char *format, ...) {
  if (be->failure != FK_FAIL_NONE) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(be->message, sizeof be->message, format, arguments);
  va_end(arguments);
  be->failure = failure;
}

bool fk_backend_sync(FkBackend *be) {
  be->ops->sync(be);
  return be->failure == FK_FAIL_NONE;
}

/* A dead backend stays failed. */
void fk_backend_clear(FkBackend *be) {
  be->clears++;
  if (be->dead) return;
  be->failure = FK_FAIL_NONE;
  be->message[0] = 0;
}
