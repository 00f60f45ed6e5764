/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA module (fkcuda.so) as the host library sees it: one exported symbol that returns the op table. Here are the
 * device and its check, memory, the pinned ring of the weight loader, events, CUDA graphs, the sticky first failure,
 * and the table. Kernels are in the other files of this folder. One stream has the ops of a backend, which run in the
 * order in which they are issued, so scratch memory needs no further ordering; two more bring weights while these run,
 * in slots of memory with an event for each direction.
 *
 * The host library is not linked: failures are written into FkBackend directly. */
#include "pages.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#define FK_NVTX 1
#endif

namespace {

/* ---- failures --------------------------------------------------------------------------------------------------- */

/* Keeps the first failure, as fk_backend_fail does (which lives in the library that opens the module). */
__attribute__((format(printf, 3, 4))) void fail(FkBackend *be, FkFailure failure, const char *format, ...) {
  if (be->failure != FK_FAIL_NONE) return;
  va_list args;
  va_start(args, format);
  vsnprintf(be->message, sizeof be->message, format, args);
  va_end(args);
  be->failure = failure;
}

/* Errors after which every call of this process on the device fails: the context is gone. */
bool is_fatal(cudaError_t status) {
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

/* True on success; else keeps the failure under the op's name. */
bool ok(FkBackend *be, const char *op, cudaError_t status) {
  if (status == cudaSuccess) return true;
  cudaGetLastError(); /* clears what can be cleared: the next call must not report this one again */
  be->dead = be->dead || is_fatal(status);
  fail(be, status == cudaErrorMemoryAllocation ? FK_FAIL_MEMORY : FK_FAIL_DEVICE, "%s: %s (%s)%s", op,
       cudaGetErrorString(status), cudaGetErrorName(status),
       be->dead ? "; the process must be restarted to use the GPU again" : "");
  return false;
}

/* The state, with this thread made to use its device. */
FkCuda *enter(FkBackend *be) {
  FkCuda *cu = (FkCuda *)be->priv;
  ok(be, "device", cudaSetDevice(cu->device));
  cu->declined[0] = 0;
  return cu;
}

/* A launcher's answer where somebody else can do the op: false if he has to. */
bool taken(FkBackend *be, const char *op, cudaError_t status) {
  if (status == cudaErrorNotSupported) return false;
  ok(be, op, status);
  return true;
}

/* The same where nobody else can. */
void must(FkBackend *be, const char *op, cudaError_t status) {
  const FkCuda *cu = (const FkCuda *)be->priv;
  if (!taken(be, op, status))
    fail(be, FK_FAIL_UNSUPPORTED, "%s: %s", op, *cu->declined ? cu->declined : "no kernel takes these operands");
}

/* ---- machine ---------------------------------------------------------------------------------------------------- */

bool refuse(char *message, size_t size, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(message, size, format, args);
  va_end(args);
  cudaGetLastError();
  return false;
}

/* Number of devices, or the reason why there is none. */
bool count_devices(int *count, char *message, size_t size) {
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
void list_archs(char *text, size_t size) {
  static const int archs[] = {__CUDA_ARCH_LIST__};
  size_t used = 0;
  for (size_t i = 0; i < sizeof archs / sizeof *archs && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%d.%d", i ? ", " : "", archs[i] / 100, archs[i] % 100 / 10);
}

__global__ void probe_kernel(void) {}

/* One device: its properties and that this module holds machine code for it. */
bool select_device(FkBackend *be, FkCuda *cu, int device, char *message, size_t size) {
  cudaDeviceProp prop;
  cudaFuncAttributes attributes;
  cudaError_t status = cudaSetDevice(device);
  if (status == cudaSuccess) status = cudaGetDeviceProperties(&prop, device);
  if (status != cudaSuccess)
    return refuse(message, size, "CUDA device %d cannot be used: %s", device, cudaGetErrorString(status));
  cu->device = device;
  cu->sms = prop.multiProcessorCount;
  cu->arch = 10 * prop.major + prop.minor;
  cu->shared_bytes = (int)prop.sharedMemPerBlockOptin;
  snprintf(be->machine, sizeof be->machine, "%.90s", prop.name);
  if (cudaFuncGetAttributes(&attributes, probe_kernel) != cudaSuccess) {
    char archs[64];
    list_archs(archs, sizeof archs);
    return refuse(message, size,
                  "%s has compute capability %d.%d; this build supports %s and newer ones of 8.x and 10.x", prop.name,
                  prop.major, prop.minor, archs);
  }
  cu->encode_map = fk_cuda_driver("cuTensorMapEncodeTiled", 12000);
  return true;
}

/* The device asked for; -1: the first that can be used, else what is wrong with the first. */
bool choose(FkBackend *be, FkCuda *cu, int device, char *message, size_t size) {
  int count = 0;
  char other[256];
  if (!count_devices(&count, message, size)) return false;
  if (device < -1 || device >= count)
    return refuse(message, size, "there is no CUDA device %d: %d found, numbered from 0", device, count);
  if (device >= 0) return select_device(be, cu, device, message, size);
  for (int i = 0; i < count; i++)
    if (select_device(be, cu, i, i == 0 ? message : other, i == 0 ? size : sizeof other)) return true;
  return false;
}

/* Memory, stream and events, all that the backend holds from open to close; what is there is counted. */
cudaError_t create_resources(FkBackend *be, FkCuda *cu) {
  constexpr size_t device_bytes = FK_CUDA_SCRATCH_BYTES + 256; /* the counters stand behind the scratch memory */
  int least = 0, greatest = 0;                                 /* greatest <= least */
  FK_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  /* A product has every processor for itself: of two kernels that wait for one the product's blocks must come first,
   * and those that expand the next weights at the end of its last wave. */
  FK_CUDA_TRY(cudaStreamCreateWithPriority(&cu->stream, cudaStreamNonBlocking, least > greatest ? least - 1 : least));
  FK_CUDA_TRY(cudaStreamCreateWithPriority(&cu->expansions, cudaStreamNonBlocking, least));
  FK_CUDA_TRY(cudaStreamCreateWithFlags(&cu->copies, cudaStreamNonBlocking));
  for (int i = 0; i < FK_STREAM_SLOTS; i++) {
    FK_CUDA_TRY(cudaEventCreateWithFlags(&cu->come[i], cudaEventDisableTiming));
    FK_CUDA_TRY(cudaEventCreateWithFlags(&cu->used[i], cudaEventDisableTiming));
  }
  FK_CUDA_TRY(cudaMalloc((void **)&cu->scratch, device_bytes));
  be->fixed_bytes = device_bytes;
  cu->counter = (unsigned *)(cu->scratch + FK_CUDA_SCRATCH_BYTES);
  FK_CUDA_TRY(cudaMemsetAsync(cu->counter, 0, 256, cu->stream));
  FK_CUDA_TRY(cudaHostAlloc((void **)&cu->flags, FK_CUDA_STAGES * sizeof(int), cudaHostAllocMapped));
  FK_CUDA_TRY(cudaHostGetDevicePointer((void **)&cu->flags_device, cu->flags, 0));
  memset(cu->flags, 0, FK_CUDA_STAGES * sizeof(int));
  FK_CUDA_TRY(fk_ring_pin(cu));
  for (int i = 0; i < FK_CUDA_RING; i++) {
    cu->ring[i].host = cu->ring_memory + i * FK_CUDA_RING_BYTES;
    FK_CUDA_TRY(cudaEventCreateWithFlags(&cu->ring[i].idle, cudaEventDisableTiming));
  }
  for (int i = 0; i < FK_LOOP_EVENTS; i++) FK_CUDA_TRY(cudaEventCreate(&cu->event[i]));
  return cudaSuccess;
}

void forget_graphs(FkCuda *cu) {
  for (int i = 0; i < cu->graphs; i++)
    if (cu->graph[i].exec) cudaGraphExecDestroy(cu->graph[i].exec);
  cu->graphs = 0;
}

/* After a lost device every call fails; the process goes on and the rest is freed with it. */
void destroy_resources(FkCuda *cu) {
  if (!cu->stream) return; /* made first: nothing else is there */
  cudaSetDevice(cu->device);
  cudaStreamSynchronize(cu->stream);
  if (cu->copies) cudaStreamSynchronize(cu->copies);
  if (cu->expansions) cudaStreamSynchronize(cu->expansions);
  forget_graphs(cu);
  for (int i = 0; i < FK_STREAM_SLOTS; i++) {
    if (cu->come[i]) cudaEventDestroy(cu->come[i]);
    if (cu->used[i]) cudaEventDestroy(cu->used[i]);
  }
  for (int i = 0; i < FK_CUDA_RING; i++)
    if (cu->ring[i].idle) cudaEventDestroy(cu->ring[i].idle);
  for (int i = 0; i < FK_EVENTS; i++)
    if (cu->event[i]) cudaEventDestroy(cu->event[i]);
  if (cu->flags) cudaFreeHost(cu->flags);
  if (cu->scratch) cudaFree(cu->scratch);
  if (cu->copies) cudaStreamDestroy(cu->copies);
  if (cu->expansions) cudaStreamDestroy(cu->expansions);
  cudaStreamDestroy(cu->stream);
  cudaGetLastError();
}

void cuda_close(FkBackend *be) {
  FkCuda *cu = (FkCuda *)be->priv;
  if (!cu) return;
  destroy_resources(cu);
  fk_ring_release(cu);
  free(cu);
  be->priv = NULL;
}

bool cuda_open(FkBackend *be, int device, char *message, size_t size) {
  FkCuda *cu = (FkCuda *)calloc(1, sizeof *cu);
  int count = 0;
  FkPages pages;
  if (!cu) return refuse(message, size, "out of memory");
  be->priv = cu;
  fk_pages_start(&pages);
  cudaGetDeviceCount(&count); /* starts the driver */
  fk_open_step(be, FK_OPEN_DRIVER);
  bool opened = choose(be, cu, device, message, size);
  fk_open_step(be, FK_OPEN_DEVICE);
  cu->pages = fk_pages_finish(&pages, opened);
  const cudaError_t status = opened ? create_resources(be, cu) : cudaSuccess;
  fk_open_step(be, FK_OPEN_MEMORY);
  if (status != cudaSuccess)
    opened = refuse(message, size, "CUDA device %d: %s (%s)", cu->device, cudaGetErrorString(status),
                    cudaGetErrorName(status));
  if (!opened) {
    cuda_close(be);
    return false;
  }
  be->device = cu->device;
  be->dtype = FK_BF16;
  /* Elsewhere products of codes would be slower than those of numbers. */
  be->can |= FK_CAN_DEVICE_IMAGES | FK_CAN_WEIGHT_CODES |
             (cu->arch == 90 ? FK_CAN_FP8 | FK_CAN_QUANT_ATTENTION | FK_CAN_VALUE_CODES | FK_CAN_GIVEN_SCALE : 0);
  return true;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

void cuda_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  *free_bytes = *total_bytes = 0;
  enter(be);
  ok(be, "memory", cudaMemGetInfo(free_bytes, total_bytes));
}

void *cuda_alloc(FkBackend *be, size_t bytes) {
  void *p = NULL;
  enter(be);
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaSuccess) return p;
  if (status == cudaErrorMemoryAllocation)
    cudaGetLastError(); /* refused: the caller says how much was asked */
  else
    ok(be, "alloc", status);
  return NULL;
}

/* What was copied or expanded ahead and not waited for may still be under way. */
void cuda_release(FkBackend *be, void *memory) {
  if (!memory) return;
  FkCuda *cu = enter(be);
  ok(be, "release", cudaStreamSynchronize(cu->copies));
  ok(be, "release", cudaStreamSynchronize(cu->expansions));
  ok(be, "release", cudaFree(memory));
}

void *cuda_host_alloc(FkBackend *be, size_t bytes) {
  void *p = NULL;
  enter(be);
  const cudaError_t status = cudaHostAlloc(&p, bytes, cudaHostAllocDefault);
  if (status == cudaSuccess) return p;
  if (status == cudaErrorMemoryAllocation)
    cudaGetLastError();
  else
    ok(be, "host alloc", status);
  return NULL;
}

void cuda_host_release(FkBackend *be, void *memory) {
  if (!memory) return;
  FkCuda *cu = enter(be);
  ok(be, "host release", cudaStreamSynchronize(cu->copies));
  ok(be, "host release", cudaFreeHost(memory));
}

bool is_pinned(const void *host) {
  cudaPointerAttributes a;
  if (cudaPointerGetAttributes(&a, host) == cudaSuccess) return a.type == cudaMemoryTypeHost;
  cudaGetLastError();
  return false;
}

/* From pageable memory the runtime has read everything when the call returns; from pinned memory it reads later. */
void cuda_upload(FkBackend *be, void *to, const void *from, size_t bytes) {
  FkCuda *cu = enter(be);
  if (bytes == 0) return;
  if (!ok(be, "upload", cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cu->stream))) return;
  if (is_pinned(from)) ok(be, "upload", cudaStreamSynchronize(cu->stream));
}

/* NaN or infinity met by `check` since the last wait: the earliest stage in order of first use is reported. */
void collect_flags(FkBackend *be) {
  FkCuda *cu = (FkCuda *)be->priv;
  for (int i = 0; i < cu->stages; i++)
    if (((volatile int *)cu->flags)[i]) fail(be, FK_FAIL_NONFINITE, "%s", cu->stage[i]);
  memset(cu->flags, 0, FK_CUDA_STAGES * sizeof(int));
}

void cuda_sync(FkBackend *be) {
  FkCuda *cu = enter(be);
  int64_t saturated = 0;
  if (ok(be, "sync", cudaStreamSynchronize(cu->stream))) collect_flags(be);
  if (cu->given && !be->dead && ok(be, "sync", fk_cuda_saturated(cu, &saturated))) be->count.saturated += saturated;
}

void cuda_download(FkBackend *be, void *to, const void *from, size_t bytes) {
  FkCuda *cu = enter(be);
  if (bytes && !ok(be, "download", cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cu->stream))) return;
  ok(be, "download", cudaStreamSynchronize(cu->stream));
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

/* The events of the denoising loop exist since open; those that time single ops are made when first recorded. */
void cuda_event_record(FkBackend *be, int event) {
  FkCuda *cu = enter(be);
  assert(event >= 0 && event < FK_EVENTS);
  if (!cu->event[event] && !ok(be, "event record", cudaEventCreate(&cu->event[event]))) return;
  ok(be, "event record", cudaEventRecord(cu->event[event], cu->stream));
}

void cuda_event_wait(FkBackend *be, int event) {
  FkCuda *cu = enter(be);
  assert(event >= 0 && event < FK_EVENTS);
  if (cu->event[event]) ok(be, "event wait", cudaEventSynchronize(cu->event[event])); /* passed if never recorded */
}

double cuda_elapsed_ms(FkBackend *be, int from, int to) {
  FkCuda *cu = enter(be);
  float ms = 0;
  ok(be, "elapsed", cudaEventElapsedTime(&ms, cu->event[from], cu->event[to]));
  return ms;
}

/* ---- the loader's ring ------------------------------------------------------------------------------------------ */

/* NULL after a failure, and for more than a buffer holds. */
void *cuda_stage(FkBackend *be, int buffer, size_t bytes) {
  enter(be);
  FkCuda *cu = (FkCuda *)be->priv;
  assert(buffer >= 0 && buffer < FK_CUDA_RING);
  FkCudaBuffer *b = &cu->ring[buffer];
  if (bytes > FK_CUDA_RING_BYTES) {
    fail(be, FK_FAIL_MEMORY, "stage: %zu bytes asked of a buffer of %zu", bytes, FK_CUDA_RING_BYTES);
    return NULL;
  }
  if (b->busy && !ok(be, "stage", cudaEventSynchronize(b->idle))) return NULL;
  b->busy = false;
  return b->host;
}

/* After a failure too a part may be under way. */
template <typename Enqueue> void commit_with(FkBackend *be, const char *op, int buffer, Enqueue enqueue) {
  FkCuda *cu = enter(be);
  assert(buffer >= 0 && buffer < FK_CUDA_RING);
  FkCudaBuffer *b = &cu->ring[buffer];
  must(be, op, enqueue(cu, b->host));
  b->busy = ok(be, op, cudaEventRecord(b->idle, cu->stream));
}

/* A slot from its launcher. */
#define COMMIT(op)                                                                                                     \
  [](FkBackend *be, int buffer, auto... operands) {                                                                    \
    commit_with(be, "commit " #op, buffer,                                                                             \
                [=](FkCuda *cu, const void *host) { return fk_cuda_upload_##op(cu, host, operands...); });             \
  }

/* ---- weights that come while ops run ---------------------------------------------------------------------------- */

/* An event that was never recorded has passed: the first copy into a slot waits for nothing. */
void cuda_stream_copy(FkBackend *be, int slot, void *to, const void *from, size_t bytes) {
  FkCuda *cu = enter(be);
  assert(slot >= 0 && slot < FK_RING_SLOTS);
  if (!ok(be, "stream copy", cudaStreamWaitEvent(cu->copies, cu->used[slot], 0))) return;
  if (!ok(be, "stream copy", cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cu->copies))) return;
  ok(be, "stream copy", cudaEventRecord(cu->come[slot], cu->copies));
}

/* While ops are captured the wait takes the stream into the capture, and the wait for the slot brings it back. */
void cuda_stream_expand(FkBackend *be, int slot, FkTensor y, const FkCoded *x) {
  FkCuda *cu = enter(be);
  assert(slot >= 0 && slot < FK_STREAM_SLOTS);
  if (!ok(be, "stream expand", cudaStreamWaitEvent(cu->expansions, cu->used[slot], 0))) return;
  must(be, "stream expand", fk_cuda_expand(cu, y, x, cu->expansions));
  if (be->failure == FK_FAIL_NONE) ok(be, "stream expand", cudaEventRecord(cu->come[slot], cu->expansions));
}

void cuda_stream_wait(FkBackend *be, int slot) {
  FkCuda *cu = enter(be);
  assert(slot >= 0 && slot < FK_STREAM_SLOTS);
  ok(be, "stream wait", cudaStreamWaitEvent(cu->stream, cu->come[slot], 0));
}

void cuda_stream_done(FkBackend *be, int slot) {
  FkCuda *cu = enter(be);
  assert(slot >= 0 && slot < FK_STREAM_SLOTS);
  ok(be, "stream done", cudaEventRecord(cu->used[slot], cu->stream));
}

/* ---- CUDA graphs ------------------------------------------------------------------------------------------------ */

FkCudaGraph *find_graph(FkCuda *cu, int key) {
  for (int i = 0; i < cu->graphs; i++)
    if (cu->graph[i].key == key) return &cu->graph[i];
  if (cu->graphs == FK_CUDA_GRAPHS) return NULL;
  FkCudaGraph *g = &cu->graph[cu->graphs++];
  *g = FkCudaGraph{key, 0, NULL};
  return g;
}

bool cuda_graph_begin(FkBackend *be, int key) {
  FkCuda *cu = enter(be);
  FkCudaGraph *g = (be->use & FK_CAN_GRAPH) ? find_graph(cu, key) : NULL;
  if (!g) return true;
  if (g->exec) {
    ok(be, "graph", cudaGraphLaunch(g->exec, cu->stream));
    return false;
  }
  if (g->runs++ == 0) return true;
  cu->capturing = ok(be, "graph", cudaStreamBeginCapture(cu->stream, cudaStreamCaptureModeThreadLocal));
  return true;
}

void cuda_graph_end(FkBackend *be, int key) {
  FkCuda *cu = enter(be);
  FkCudaGraph *g = (be->use & FK_CAN_GRAPH) ? find_graph(cu, key) : NULL;
  cudaGraph_t graph = NULL;
  if (!g || !cu->capturing) return;
  cu->capturing = false;
  const bool ended = ok(be, "graph", cudaStreamEndCapture(cu->stream, &graph));
  if (!ended || be->failure != FK_FAIL_NONE) {
    if (graph) cudaGraphDestroy(graph);
    return;
  }
  if (ok(be, "graph", cudaGraphInstantiate(&g->exec, graph, 0)))
    ok(be, "graph", cudaGraphLaunch(g->exec, cu->stream));
  else
    g->exec = NULL;
  cudaGraphDestroy(graph);
}

void cuda_graph_forget(FkBackend *be) {
  forget_graphs(enter(be));
}

/* Ranges of the NVTX library: nothing unless a profiler has put itself into the process. */
void cuda_range(FkBackend *, const char *name) {
#ifdef FK_NVTX
  if (name)
    nvtxRangePushA(name);
  else
    nvtxRangePop();
#endif
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* A slot from its launcher: one that fails where no kernel takes the case, and one that declines. */
#define MUST(op) [](FkBackend *be, auto... operands) { must(be, #op, fk_cuda_##op(enter(be), operands...)); }
#define MAY(op) [](FkBackend *be, auto... operands) { return taken(be, #op, fk_cuda_##op(enter(be), operands...)); }

const FkOps table = {
    .abi = FK_BACKEND_ABI,
    .sizes = FK_BACKEND_SIZES,
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .context = [](FkBackend *be) { return fk_cuda_context((const FkCuda *)be->priv); },
    .reach = [](FkBackend *be, auto... span) { return fk_cuda_reach((const FkCuda *)be->priv, span...); },
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
    .commit = COMMIT(numbers),
    .commit_codes = COMMIT(codes),
    .commit_adapted = COMMIT(adapted),
    .host_alloc = cuda_host_alloc,
    .host_release = cuda_host_release,
    .stream_copy = cuda_stream_copy,
    .stream_wait = cuda_stream_wait,
    .stream_done = cuda_stream_done,
    .stream_expand = cuda_stream_expand,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_forget = cuda_graph_forget,
    .range = cuda_range,
    .linear = MUST(linear),
    .layer_norm = MUST(layer_norm),
    .rms_norm = MUST(rms_norm),
    .rope = MUST(rope),
    .attention = MUST(attention),
    .act = MUST(act),
    .add = MUST(add),
    .mul = MUST(mul),
    .gate_add = MUST(gate_add),
    .copy = MUST(copy),
    .embed = MUST(embed),
    .gather_rows = MUST(gather_rows),
    .quantize = MUST(quantize),
    .expand = MUST(expand),
    .conv = MUST(conv),
    .group_norm = MUST(group_norm),
    .upsample = MUST(upsample),
    .pack = MUST(pack),
    .unpack = MUST(unpack),
    .from_u8 = MUST(from_u8),
    .to_u8 = MUST(to_u8),
    .resize = MUST(resize),
    .frame_read = MUST(frame_read),
    .frame_write = MUST(frame_write),
    .frame_keep = MUST(frame_keep),
    .mix = MUST(mix),
    .invert = MUST(invert),
    .window = MUST(window),
    .bounds = MUST(bounds),
    .mask_tokens = MUST(mask_tokens),
    .combine = MUST(combine),
    .distance = MUST(distance),
    .check = MUST(check),
    .match = MUST(match),
    .mean_rows = MUST(mean_rows),
    .linear_fused = MAY(linear),
    .layer_norm_quantized = MAY(layer_norm_quantized),
    .conv_fused = MAY(conv),
    .group_norm_silu = MAY(group_norm_silu),
    .flash_attention = MAY(flash_attention),
};

} // namespace

extern "C" __attribute__((visibility("default"))) const FkOps *fk_cuda_backend(void);
const FkOps *fk_cuda_backend(void) {
  return &table;
}
