/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA module (fkcuda.so) as the host library sees it: one exported symbol that returns the op table. Here are the
 * device and its check, memory, the pinned ring of the weight loader, events, recordings and the sticky first failure.
 * Kernels are in the other files of this folder. One stream a backend: ops run in the order in which they are issued,
 * so scratch memory needs no further ordering.
 *
 * The host library is not linked: failures are written into FkBackend directly. */
#include "module.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define FK_NVTX 1
#endif

/* ---- failures --------------------------------------------------------------------------------------------------- */

void fk_cuda_fail(FkBackend *be, FkFailure failure, const char *format, ...) {
  if (be->failure != FK_FAIL_NONE) return;
  va_list args;
  va_start(args, format);
  vsnprintf(be->message, sizeof be->message, format, args);
  va_end(args);
  be->failure = failure;
}

/* Errors after which every call of this process on the device fails: the context is gone. */
static bool is_fatal(cudaError_t status) {
  switch (status) {
  case cudaErrorIllegalAddress:
  case cudaErrorLaunchFailure:
  case cudaErrorLaunchTimeout:
  case cudaErrorHardwareStackError:
  case cudaErrorIllegalInstruction:
  case cudaErrorMisalignedAddress:
  case cudaErrorInvalidAddressSpace:
  case cudaErrorInvalidPc:
  case cudaErrorAssert:
  case cudaErrorECCUncorrectable:
  case cudaErrorNvlinkUncorrectable:
  case cudaErrorContained:
  case cudaErrorDevicesUnavailable:
  case cudaErrorContextIsDestroyed:
  case cudaErrorExternalDevice:
  case cudaErrorTensorMemoryLeak:
  case cudaErrorUnknown: return true;
  default: return false;
  }
}

bool fk_cuda_ok(FkBackend *be, const char *op, cudaError_t status) {
  if (status == cudaSuccess) return true;
  cudaGetLastError(); /* clears what can be cleared: the next call must not report this one again */
  be->dead = be->dead || is_fatal(status);
  fk_cuda_fail(be, status == cudaErrorMemoryAllocation ? FK_FAIL_MEMORY : FK_FAIL_DEVICE, "%s: %s (%s)%s", op,
               cudaGetErrorString(status), cudaGetErrorName(status),
               be->dead ? "; the process must be restarted to use the GPU again" : "");
  return false;
}

static FkCuda *state(FkBackend *be) {
  return (FkCuda *)be->priv;
}

FkCuda *fk_cuda_enter(FkBackend *be) {
  FkCuda *cu = state(be);
  fk_cuda_ok(be, "device", cudaSetDevice(cu->device));
  return cu;
}

/* ---- machine ---------------------------------------------------------------------------------------------------- */

static bool refuse(char *message, size_t size, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, size, format, args);
  va_end(args);
  cudaGetLastError();
  return false;
}

/* Number of devices, or the reason why there is none. */
static bool count_devices(int *count, char *message, size_t size) {
  const cudaError_t status = cudaGetDeviceCount(count);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (status == cudaErrorInsufficientDriver && driver == 0)
    return refuse(message, size, "no NVIDIA driver is installed (libcuda.so.1 not found)");
  if (status == cudaErrorInsufficientDriver)
    return refuse(message, size, "the NVIDIA driver is too old: it supports CUDA %d.%d, this module needs %d.%d",
                  driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
  if (status == cudaErrorNoDevice || (status == cudaSuccess && *count == 0))
    return refuse(message, size, "the NVIDIA driver sees no GPU");
  if (status != cudaSuccess)
    return refuse(message, size, "no GPU can be used: %s (%s)", cudaGetErrorString(status), cudaGetErrorName(status));
  return true;
}

/* "8.0, 8.9, 9.0": the architectures this file was compiled for (the list is the compiler's: 100 * major + 10 * minor).
 */
static void list_archs(char *text, size_t size) {
  static const int archs[] = {__CUDA_ARCH_LIST__};
  size_t used = 0;
  for (size_t i = 0; i < sizeof archs / sizeof *archs && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%d.%d", i ? ", " : "", archs[i] / 100, archs[i] % 100 / 10);
}

__global__ void probe_kernel(void) {}

/* One device: its properties and that this module holds machine code for it. */
static bool adopt(FkBackend *be, FkCuda *cu, int device, char *message, size_t size) {
  cudaDeviceProp prop;
  cudaFuncAttributes attributes;
  cudaError_t status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaGetDeviceProperties(&prop, device);
  if (status != cudaSuccess)
    return refuse(message, size, "CUDA device %d cannot be used: %s", device, cudaGetErrorString(status));
  cu->device = device;
  cu->sms = prop.multiProcessorCount;
  cu->arch = 10 * prop.major + prop.minor;
  snprintf(be->machine, sizeof be->machine, "%.90s", prop.name);
  if (cudaFuncGetAttributes(&attributes, probe_kernel) != cudaSuccess) {
    char archs[64];
    list_archs(archs, sizeof archs);
    return refuse(message, size,
                  "%s has compute capability %d.%d; this build supports %s and newer ones of 8.x and 10.x", prop.name,
                  prop.major, prop.minor, archs);
  }
  return true;
}

/* The device asked for; -1: the first that can be used, else what is wrong with the first. */
static bool choose(FkBackend *be, FkCuda *cu, int device, char *message, size_t size) {
  int count = 0;
  char other[256];
  if (!count_devices(&count, message, size)) return false;
  if (device < -1 || device >= count)
    return refuse(message, size, "there is no CUDA device %d: %d found, numbered from 0", device, count);
  if (device >= 0) return adopt(be, cu, device, message, size);
  for (int i = 0; i < count; i++)
    if (adopt(be, cu, i, i == 0 ? message : other, i == 0 ? size : sizeof other)) return true;
  return false;
}

/* Everything that does not grow later. False: out of memory or a driver error, named in `message`. */
static bool furnish(FkCuda *cu, char *message, size_t size) {
  cudaError_t status = cudaStreamCreateWithFlags(&cu->stream, cudaStreamNonBlocking);
  if (status == cudaSuccess) status = cudaMalloc((void **)&cu->scratch, FK_CUDA_SCRATCH_BYTES);
  if (status == cudaSuccess) status = cudaMalloc((void **)&cu->counter, 256);
  if (status == cudaSuccess) status = cudaMemsetAsync(cu->counter, 0, 256, cu->stream);
  if (status == cudaSuccess)
    status = cudaHostAlloc((void **)&cu->flags, FK_CUDA_STAGES * sizeof(int), cudaHostAllocMapped);
  if (status == cudaSuccess) status = cudaHostGetDevicePointer((void **)&cu->flags_device, cu->flags, 0);
  if (status != cudaSuccess)
    return refuse(message, size, "CUDA device %d: %s (%s)", cu->device, cudaGetErrorString(status),
                  cudaGetErrorName(status));
  memset(cu->flags, 0, FK_CUDA_STAGES * sizeof(int));
  return true;
}

static void cuda_graph_forget(FkBackend *be);

static void cuda_close(FkBackend *be) {
  FkCuda *cu = state(be);
  if (!cu) return;
  /* After a lost device every call fails; the process goes on and the rest is freed with it. */
  cudaSetDevice(cu->device);
  if (cu->stream) cudaStreamSynchronize(cu->stream);
  cuda_graph_forget(be);
  for (int i = 0; i < FK_CUDA_RING; i++) {
    FkCudaBuffer *b = &cu->ring[i];
    if (b->host) cudaFreeHost(b->host);
    if (b->device) cudaFree(b->device);
    if (b->idle) cudaEventDestroy(b->idle);
  }
  for (int i = 0; i < FK_EVENTS; i++)
    if (cu->event[i]) cudaEventDestroy(cu->event[i]);
  if (cu->scratch) cudaFree(cu->scratch);
  if (cu->counter) cudaFree(cu->counter);
  if (cu->flags) cudaFreeHost(cu->flags);
  if (cu->stream) cudaStreamDestroy(cu->stream);
  cudaGetLastError();
  free(cu);
  be->priv = NULL;
}

static bool cuda_open(FkBackend *be, int device, char *message, size_t size) {
  FkCuda *cu = (FkCuda *)calloc(1, sizeof *cu);
  if (!cu) return refuse(message, size, "out of memory");
  be->priv = cu;
  if (!choose(be, cu, device, message, size) || !furnish(cu, message, size)) {
    cuda_close(be);
    return false;
  }
  be->device = cu->device;
  be->dtype = FK_BF16;
  return true;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void cuda_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  *free_bytes = *total_bytes = 0;
  fk_cuda_enter(be);
  fk_cuda_ok(be, "memory", cudaMemGetInfo(free_bytes, total_bytes));
}

static void *cuda_alloc(FkBackend *be, size_t bytes) {
  void *p = NULL;
  fk_cuda_enter(be);
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaSuccess) return p;
  if (status == cudaErrorMemoryAllocation)
    cudaGetLastError(); /* refused: the caller says how much was asked */
  else
    fk_cuda_ok(be, "alloc", status);
  return NULL;
}

static void cuda_release(FkBackend *be, void *memory) {
  if (!memory) return;
  fk_cuda_enter(be);
  fk_cuda_ok(be, "release", cudaFree(memory));
}

static bool is_pinned(const void *host) {
  cudaPointerAttributes a;
  if (cudaPointerGetAttributes(&a, host) == cudaSuccess) return a.type == cudaMemoryTypeHost;
  cudaGetLastError();
  return false;
}

/* From pageable memory the runtime has read everything when the call returns; from pinned memory it reads later. */
static void cuda_upload(FkBackend *be, void *to, const void *from, size_t bytes) {
  FkCuda *cu = fk_cuda_enter(be);
  if (bytes == 0) return;
  if (!fk_cuda_ok(be, "upload", cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cu->stream))) return;
  if (is_pinned(from)) fk_cuda_ok(be, "upload", cudaStreamSynchronize(cu->stream));
}

/* NaN or infinity met by `check` since the last wait: the earliest stage in order of first use is reported. */
static void collect_flags(FkBackend *be) {
  FkCuda *cu = state(be);
  for (int i = 0; i < cu->stages; i++)
    if (((volatile int *)cu->flags)[i]) fk_cuda_fail(be, FK_FAIL_NONFINITE, "%s", cu->stage[i]);
  memset(cu->flags, 0, FK_CUDA_STAGES * sizeof(int));
}

static void cuda_sync(FkBackend *be) {
  FkCuda *cu = fk_cuda_enter(be);
  if (fk_cuda_ok(be, "sync", cudaStreamSynchronize(cu->stream))) collect_flags(be);
}

static void cuda_download(FkBackend *be, void *to, const void *from, size_t bytes) {
  FkCuda *cu = fk_cuda_enter(be);
  if (bytes && !fk_cuda_ok(be, "download", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cu->stream)))
    return;
  fk_cuda_ok(be, "download", cudaStreamSynchronize(cu->stream));
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

static void cuda_event_record(FkBackend *be, int event) {
  FkCuda *cu = fk_cuda_enter(be);
  assert(event >= 0 && event < FK_EVENTS);
  if (!cu->event[event] && !fk_cuda_ok(be, "event record", cudaEventCreate(&cu->event[event]))) return;
  fk_cuda_ok(be, "event record", cudaEventRecord(cu->event[event], cu->stream));
}

/* An event never recorded has passed. */
static void cuda_event_wait(FkBackend *be, int event) {
  FkCuda *cu = fk_cuda_enter(be);
  assert(event >= 0 && event < FK_EVENTS);
  if (cu->event[event]) fk_cuda_ok(be, "event wait", cudaEventSynchronize(cu->event[event]));
}

static double cuda_elapsed_ms(FkBackend *be, int from, int to) {
  FkCuda *cu = fk_cuda_enter(be);
  float ms = 0;
  fk_cuda_ok(be, "elapsed", cudaEventElapsedTime(&ms, cu->event[from], cu->event[to]));
  return ms;
}

/* ---- the loader's ring ------------------------------------------------------------------------------------------ */

/* NULL after a failure, and for more than a ring buffer holds. Buffers are made at first use: 32 MiB each. */
static void *cuda_stage(FkBackend *be, int buffer, size_t bytes) {
  FkCuda *cu = fk_cuda_enter(be);
  assert(buffer >= 0 && buffer < FK_CUDA_RING);
  FkCudaBuffer *b = &cu->ring[buffer];
  if (bytes > FK_CUDA_RING_BYTES) {
    fk_cuda_fail(be, FK_FAIL_MEMORY, "stage: %zu bytes asked of a buffer of %u", bytes, FK_CUDA_RING_BYTES);
    return NULL;
  }
  if (!b->host) {
    if (!fk_cuda_ok(be, "stage", cudaHostAlloc(&b->host, FK_CUDA_RING_BYTES, cudaHostAllocDefault))) return NULL;
    if (!fk_cuda_ok(be, "stage", cudaEventCreateWithFlags(&b->idle, cudaEventDisableTiming))) return NULL;
  }
  if (b->busy && !fk_cuda_ok(be, "stage", cudaEventSynchronize(b->idle))) return NULL;
  b->busy = false;
  return b->host;
}

/* The device side of a conversion, as large as the conversions met need it: with a checkpoint of the device's own dtype
 * only vectors are converted. */
static void *conversion_buffer(FkBackend *be, FkCudaBuffer *b, size_t bytes) {
  if (bytes <= b->device_bytes) return b->device;
  if (bytes < 1 << 20) bytes = 1 << 20; /* freeing waits for the device: few steps */
  if (b->device) fk_cuda_ok(be, "commit", cudaFree(b->device));
  b->device = NULL;
  b->device_bytes = 0;
  if (!fk_cuda_ok(be, "commit", cudaMalloc(&b->device, bytes))) return NULL;
  b->device_bytes = bytes;
  return b->device;
}

/* Equal dtypes go straight to their place; others through a device buffer, from which a kernel converts. */
static void cuda_commit(FkBackend *be, int buffer, void *to, FkDtype as, FkDtype from, size_t count) {
  FkCuda *cu = fk_cuda_enter(be);
  assert(buffer >= 0 && buffer < FK_CUDA_RING);
  FkCudaBuffer *b = &cu->ring[buffer];
  const size_t bytes = count * fk_dtype_size(from);
  assert(b->host && bytes <= FK_CUDA_RING_BYTES);
  void *landing = as == from ? to : conversion_buffer(be, b, bytes);
  if (!landing) return;
  if (!fk_cuda_ok(be, "commit", cudaMemcpyAsync(landing, b->host, bytes, cudaMemcpyHostToDevice, cu->stream))) return;
  if (as != from && !fk_cuda_ok(be, "commit", fk_cuda_convert(cu->stream, to, as, landing, from, count))) return;
  b->busy = fk_cuda_ok(be, "commit", cudaEventRecord(b->idle, cu->stream));
}

/* ---- recordings ------------------------------------------------------------------------------------------------- */

static FkCudaGraph *find_graph(FkCuda *cu, int key) {
  for (int i = 0; i < cu->graphs; i++)
    if (cu->graph[i].key == key) return &cu->graph[i];
  if (cu->graphs == FK_CUDA_GRAPHS) return NULL;
  FkCudaGraph *g = &cu->graph[cu->graphs++];
  *g = FkCudaGraph{key, 0, NULL};
  return g;
}

static bool cuda_graph_begin(FkBackend *be, int key) {
  FkCuda *cu = fk_cuda_enter(be);
  FkCudaGraph *g = (be->use & FK_CAN_GRAPH) ? find_graph(cu, key) : NULL;
  if (!g) return true;
  if (g->exec) {
    fk_cuda_ok(be, "graph", cudaGraphLaunch(g->exec, cu->stream));
    return false;
  }
  if (g->runs++ == 0) return true;
  cu->recording = fk_cuda_ok(be, "graph", cudaStreamBeginCapture(cu->stream, cudaStreamCaptureModeThreadLocal));
  return true;
}

static void cuda_graph_end(FkBackend *be, int key) {
  FkCuda *cu = fk_cuda_enter(be);
  FkCudaGraph *g = (be->use & FK_CAN_GRAPH) ? find_graph(cu, key) : NULL;
  cudaGraph_t graph = NULL;
  if (!g || !cu->recording) return;
  cu->recording = false;
  const bool ended = fk_cuda_ok(be, "graph", cudaStreamEndCapture(cu->stream, &graph));
  if (!ended || be->failure != FK_FAIL_NONE) {
    if (graph) cudaGraphDestroy(graph);
    return;
  }
  if (fk_cuda_ok(be, "graph", cudaGraphInstantiate(&g->exec, graph, 0)))
    fk_cuda_ok(be, "graph", cudaGraphLaunch(g->exec, cu->stream));
  else
    g->exec = NULL;
  cudaGraphDestroy(graph);
}

static void cuda_graph_forget(FkBackend *be) {
  FkCuda *cu = fk_cuda_enter(be);
  for (int i = 0; i < cu->graphs; i++)
    if (cu->graph[i].exec) cudaGraphExecDestroy(cu->graph[i].exec);
  cu->graphs = 0;
}

/* Ranges of the NVTX library: nothing unless a profiler has put itself into the process. */
static void cuda_range(FkBackend *, const char *name) {
#ifdef FK_NVTX
  if (name)
    nvtxRangePushA(name);
  else
    nvtxRangePop();
#endif
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static const FkOps table = {
    .abi = FK_BACKEND_ABI,
    .sizes = FK_BACKEND_SIZES,
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .memory = cuda_memory,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .elapsed_ms = cuda_elapsed_ms,
    .stage = cuda_stage,
    .commit = cuda_commit,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_forget = cuda_graph_forget,
    .range = cuda_range,
    .linear = fk_cuda_op_linear,
    .layer_norm = fk_cuda_op_layer_norm,
    .rms_norm = fk_cuda_op_rms_norm,
    .rope = fk_cuda_op_rope,
    .attention = fk_cuda_op_attention,
    .act = fk_cuda_op_act,
    .add = fk_cuda_op_add,
    .mul = fk_cuda_op_mul,
    .gate_add = fk_cuda_op_gate_add,
    .copy = fk_cuda_op_copy,
    .embed = fk_cuda_op_embed,
    .gather_rows = fk_cuda_op_gather_rows,
    .conv = fk_cuda_op_conv,
    .group_norm = fk_cuda_op_group_norm,
    .upsample = fk_cuda_op_upsample,
    .pack = fk_cuda_op_pack,
    .unpack = fk_cuda_op_unpack,
    .from_u8 = fk_cuda_op_from_u8,
    .to_u8 = fk_cuda_op_to_u8,
    .combine = fk_cuda_op_combine,
    .distance = fk_cuda_op_distance,
    .check = fk_cuda_op_check,
    .match = fk_cuda_op_match,
    .mean_rows = fk_cuda_op_mean_rows,
    .linear_fused = fk_cuda_op_linear_fused,
    .conv_fused = fk_cuda_op_conv_fused,
    .group_norm_silu = fk_cuda_op_group_norm_silu,
    .flash_attention = fk_cuda_op_flash_attention,
};

extern "C" __attribute__((visibility("default"))) const FkOps *fk_cuda_backend(void);
const FkOps *fk_cuda_backend(void) {
  return &table;
}
