/* SPDX-License-Identifier: Apache-2.0 */
/* A profiler's stand-in: a library that NVTX loads into the process (NVTX_INJECTION64_PATH) and that writes each range
 * to standard error as it opens and closes. For run-on-gpu.sh, which compares the lines with the stages of an edit.
 * Source: NVTX 3, "injection" in nvtxDetail (InitializeInjectionNvtx2). */
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>

static int depth;

static int NVTX_API push(const char *name) {
  fprintf(stderr, "nvtx %d open %s\n", depth, name);
  return depth++;
}

static int NVTX_API pop(void) {
  fprintf(stderr, "nvtx %d close\n", --depth);
  return depth;
}

/* The name by which NVTX finds a profiler in the library of NVTX_INJECTION64_PATH. */
__attribute__((visibility("default"))) int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table);

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table) {
  const NvtxExportTableCallbacks *callbacks = get_export_table(NVTX_ETID_CALLBACKS);
  NvtxFunctionTable table;
  unsigned int size = 0;
  if (!callbacks || !callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &size)) return 0;
  *table[NVTX_CBID_CORE_RangePushA] = (NvtxFunctionPointer)push;
  *table[NVTX_CBID_CORE_RangePop] = (NvtxFunctionPointer)pop;
  return 1;
}
