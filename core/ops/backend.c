/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, closing and the sticky failure of a backend; finding and checking the CUDA module. libc and dlopen only.
 *
 * The module is the file FK_CUDA_MODULE names (environment), else fkcuda.so in the folder FK_MODULE_DIR (environment,
 * else as the build defines it), by a path from the root: what code a process runs may not depend on the folder it was
 * started in. Programs with rights of another user's (setuid) do not read the two. The module exports one symbol:
 * const FkOps *fk_cuda_backend(void). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cpu.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FK_MODULE_DIR
#define FK_MODULE_DIR "/usr/local/lib/fluxkontext"
#endif

/* False with a message: no path that can be used. */
static bool module_path(char *path, size_t path_size, char *message, size_t size) {
  const char *file = secure_getenv("FK_CUDA_MODULE"), *folder = secure_getenv("FK_MODULE_DIR");
  const bool of_file = file && *file, of_folder = !of_file && folder && *folder;
  const char *start = of_file ? file : of_folder ? folder : FK_MODULE_DIR;
  if (start[0] != '/') {
    snprintf(message, size, "%s is '%s': expected a path that starts with /",
             of_file     ? "FK_CUDA_MODULE"
             : of_folder ? "FK_MODULE_DIR"
                         : "the module folder of this build",
             start);
    return false;
  }
  const int length = snprintf(path, path_size, "%s%s", start, of_file ? "" : "/fkcuda.so");
  if (length >= 0 && (size_t)length < path_size) return true;
  snprintf(message, size, "the CUDA module's path has %d bytes: expected at most %zu", length, path_size - 1);
  return false;
}

/* The module's table, NULL with a message. dlopen's own text names the file. */
static const FkOps *open_module(void **module, char *message, size_t size) {
  char path[4096];
  if (!module_path(path, sizeof path, message, size)) return NULL;
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
  const uint32_t abi = ops ? ops->abi : 0;
  if (abi != FK_BACKEND_ABI)
    snprintf(message, size, "%s has backend interface %u, this program needs %u: install the two from one build", path,
             abi, (uint32_t)FK_BACKEND_ABI);
  else if (memcmp(ops->sizes, sizes, sizeof sizes) != 0)
    snprintf(message, size, "%s was built with other headers than this program: install the two from one build", path);
  else
    return ops;
  return NULL;
}

/* NULL with a message: no such backend. */
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
         (ops->flash_attention ? FK_CAN_FLASH : 0u) |
         (ops->linear_fused && ops->flash_attention ? FK_CAN_FUSED_CODES : 0u) |
         (ops->conv_fused ? FK_CAN_FUSED_CONV : 0u) | (ops->group_norm_silu ? FK_CAN_FUSED_GROUP_NORM : 0u) |
         (ops->graph_begin && ops->graph_end ? FK_CAN_GRAPH : 0u) | (ops->stream_expand ? FK_CAN_EXPAND_AHEAD : 0u);
}

uint32_t fk_backend_host_device(FkBackend *be) {
  const char *text = secure_getenv("FK_HOST_IS_DEVICE");
  if (!text || strcmp(text, "1") != 0) return 0;
  be->device = 0;
  return FK_CAN_DEVICE_IMAGES;
}

FkBackend *fk_backend_open(const char *name, int device, int threads, FkFailure *failure, char *message, size_t size) {
  void *module = NULL;
  FkBackend clock = {0};
  *failure = FK_FAIL_UNSUPPORTED;
  fk_open_step(&clock, FK_OPEN_MODULE);
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
  be->open_at = clock.open_at;
  fk_open_step(be, FK_OPEN_MODULE);
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
