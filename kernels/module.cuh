/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the CUDA module: the state of one device behind FkBackend.priv, and the launchers that fill the op table.
 * module.cu owns the state and the table; nothing here knows a kernel.
 *
 * A launcher is fk_cuda_OP(FkCuda *, the slot's operands). It enqueues on FkCuda.stream and returns cudaSuccess, or
 * cudaErrorNotSupported with nothing enqueued where no kernel here takes the case (a fused slot then declines, a basic
 * one fails), or the error of a launch. It allocates nothing and keeps what it learns of the device in FkCuda: several
 * devices may be in use at a time, each by a thread of its own. */
#ifndef FK_MODULE_CUH
#define FK_MODULE_CUH

#include "given.cuh"

extern "C" {
#include "../core/ops/backend.h"
}

constexpr int FK_CUDA_RING = FK_STAGING;           /* pinned buffers of the weight loader */
constexpr size_t FK_CUDA_RING_BYTES = 16 << 20;    /* of each */
constexpr int FK_CUDA_STAGES = 64;                 /* different names given to `check` */
constexpr int FK_CUDA_GRAPHS = 64;                 /* CUDA graphs kept */
constexpr int FK_CUDA_KERNELS = 128;               /* kernels that need setting up */
constexpr size_t FK_CUDA_SCRATCH_BYTES = 8u << 20; /* one stream, so one owner at a time */

/* In a launcher. */
#define FK_CUDA_TRY(call)                                                                                              \
  do {                                                                                                                 \
    cudaError_t fk_status = (call);                                                                                    \
    if (fk_status != cudaSuccess) return fk_status;                                                                    \
  } while (0)

typedef struct {
  void *host;       /* part of FkCuda.ring_memory */
  cudaEvent_t idle; /* passed when the last copy out of the buffer is done */
  bool busy;
} FkCudaBuffer;

/* What was learnt of a kernel on this device. */
typedef struct {
  const void *kernel;
  int shared_bytes; /* dynamic shared memory that it may have */
  int clusters;     /* that run at once; -1: not asked yet */
} FkCudaKernel;

/* A CUDA graph. The first run of a key is issued plainly, which loads the kernels (capture forbids that); the second is
 * captured, instantiated and launched; later ones are replays. */
typedef struct {
  int key, runs;
  cudaGraphExec_t exec;
} FkCudaGraph;

typedef struct {
  int device, sms;
  int arch;         /* 10 * major + minor of the compute capability */
  int shared_bytes; /* the most that a block may have */
  void *encode_map; /* the driver's cuTensorMapEncodeTiled; NULL: it has none */
  cudaStream_t stream;
  cudaStream_t copies;                                      /* of weights that come while ops run */
  cudaStream_t expansions;                                  /* of weights that are expanded meanwhile */
  cudaEvent_t come[FK_STREAM_SLOTS], used[FK_STREAM_SLOTS]; /* the slot's last copy, and the last op that read it */
  FkCudaKernel kernel[FK_CUDA_KERNELS];
  int kernels;
  cudaEvent_t event[FK_EVENTS];
  char *pages;       /* of the process, for the ring; NULL: the driver has given it others */
  char *ring_memory; /* pinned, FK_CUDA_RING * FK_CUDA_RING_BYTES */
  FkCudaBuffer ring[FK_CUDA_RING];
  char *scratch;     /* device: partial results of reductions; file bytes on their way to another dtype */
  unsigned *counter; /* device, zero between launches: which block of a reduction is the last */
  /* One word for each stage named to `check`, in host memory that the device writes: 1 when it met NaN or infinity. */
  int *flags, *flags_device;
  const char *stage[FK_CUDA_STAGES];
  int stages;
  FkCudaGraph graph[FK_CUDA_GRAPHS];
  int graphs;
  bool capturing;
  /* What given scales have cut off is counted behind `counter`; those of it that sync has collected. It asks from the
   * first such launch on. */
  unsigned long long collected;
  bool given;
  char declined[128]; /* why the last launcher answered cudaErrorNotSupported; "": it did not say */
} FkCuda;

/* Makes a kernel fit for launches with this much dynamic shared memory, once a device. cudaErrorNotSupported: more than
 * a block of this device may have. */
cudaError_t fk_cuda_prepare(FkCuda *cu, const void *kernel, int shared_bytes);
/* Clusters of this launch that the device runs at once, 0: none. Asked of the driver once a kernel, which
 * fk_cuda_prepare has made ready. */
int fk_cuda_clusters(FkCuda *cu, const void *kernel, const cudaLaunchConfig_t *config);
/* A launch in clusters of `cluster` blocks along x. `attribute` is the caller's, for as long as the config. */
static inline cudaLaunchConfig_t fk_cuda_in_clusters(cudaLaunchAttribute *attribute, int cluster, dim3 grid,
                                                     int threads, int shared, cudaStream_t stream) {
  *attribute = {};
  attribute->id = cudaLaunchAttributeClusterDimension;
  attribute->val.clusterDim.x = cluster, attribute->val.clusterDim.y = attribute->val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid, config.blockDim = dim3(threads), config.dynamicSmemBytes = shared;
  config.stream = stream, config.attrs = attribute, config.numAttrs = 1;
  return config;
}
/* A kernel whose clusters of two blocks walk over `units` of work. cudaErrorNotSupported: the device runs none of them.
 */
template <class Args>
cudaError_t fk_cuda_launch_pairs(FkCuda *cu, void (*kernel)(Args), int threads, int shared, int units,
                                 const Args &args) {
  cudaLaunchAttribute attribute;
  cudaLaunchConfig_t config = fk_cuda_in_clusters(&attribute, 2, dim3(cu->sms / 2 * 2), threads, shared, cu->stream);
  FK_CUDA_TRY(fk_cuda_prepare(cu, (const void *)kernel, shared));
  const int clusters = fk_cuda_clusters(cu, (const void *)kernel, &config);
  if (!clusters) return cudaErrorNotSupported;
  config.gridDim = dim3(2 * (clusters < units ? clusters : units));
  return cudaLaunchKernelEx(&config, kernel, args);
}
/* cudaErrorNotSupported, with a sentence for the failure that it may become; `format` as printf. */
cudaError_t fk_cuda_decline(FkCuda *cu, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Numbers that given scales have cut off since open, on the device. */
static inline unsigned long long *fk_cuda_cut(const FkCuda *cu) {
  return (unsigned long long *)(cu->counter + 32);
}

/* A scale for kernels that end in codes under it; what it cuts off is counted. */
static inline FkGiven fk_cuda_given(FkCuda *cu, float scale) {
  cu->given = true;
  return FkGiven{scale, 1.0f / scale, fk_cuda_cut(cu)};
}

/* A function of the driver, which is not linked, as this version of it has it. NULL: there is none. */
static inline void *fk_cuda_driver(const char *name, unsigned version) {
  void *entry = NULL;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t status = cudaGetDriverEntryPointByVersion(name, &entry, version, cudaEnableDefault, &found);
  cudaGetLastError();
  return status == cudaSuccess && found == cudaDriverEntryPointSuccess ? entry : NULL;
}

/* bf16 rows that begin at multiples of 16 bytes, as vector accesses and tensor maps ask for. */
static inline bool fk_cuda_rows16(FkTensor t) {
  return t.dtype == FK_BF16 && (uintptr_t)t.data % 16 == 0 && t.ld % 8 == 0;
}

/* `count` elements of F32, BF16, F16, I32 or U8, both dense. elementwise.cu */
cudaError_t fk_cuda_convert(FkCuda *cu, void *to, FkDtype as, const void *from, FkDtype is, size_t count);
/* The same from the host's pinned memory, copied where the types are one. */
cudaError_t fk_cuda_upload_numbers(FkCuda *cu, const void *from, void *to, FkDtype as, FkDtype is, size_t count);

/* linear.cu: x and weights bf16, or E4M3 codes with a scale a row, or weights alone; 1 or 2 groups in one launch. */
cudaError_t fk_cuda_linear(FkCuda *cu, const FkLinear *l, int groups = 1);

/* attention.cu. The result of a row depends on neither the run nor the machine nor which other rows are asked for. */
cudaError_t fk_cuda_attention(FkCuda *cu, const FkAttention *a);
cudaError_t fk_cuda_flash_attention(FkCuda *cu, const FkAttention *a);
/* For both of them. attention_int8.cu: queries, keys and values in codes; attention_codes.cu: values alone. */
cudaError_t fk_cuda_attention_int8(FkCuda *cu, const FkAttention *a);
cudaError_t fk_cuda_attention_value_codes(FkCuda *cu, const FkAttention *a);
/* For fk_cuda_flash_attention, which has checked everything: heads of 128, of 512. */
cudaError_t fk_cuda_attention_sm90(FkCuda *cu, const FkAttention *a);
cudaError_t fk_cuda_attention_wide_sm90(FkCuda *cu, const FkAttention *a);

/* conv.cu: everything on any architecture; the other two: their own shapes. With upsample and residual. */
cudaError_t fk_cuda_conv(FkCuda *cu, const FkConv *c);
cudaError_t fk_cuda_conv_sm90(FkCuda *cu, const FkConv *c);
cudaError_t fk_cuda_conv_narrow(FkCuda *cu, const FkConv *c);

/* norm.cu */
cudaError_t fk_cuda_layer_norm(FkCuda *cu, const FkLayerNorm *n, int groups);
cudaError_t fk_cuda_rms_norm(FkCuda *cu, FkTensor y, FkTensor x, FkTensor weight, float eps);
cudaError_t fk_cuda_group_norm(FkCuda *cu, const FkGroupNorm *n); /* without silu */
cudaError_t fk_cuda_group_norm_silu(FkCuda *cu, const FkGroupNorm *n);

/* quant.cu */
cudaError_t fk_cuda_quantize(FkCuda *cu, FkTensor y, FkTensor y_scale, FkTensor x, float given);
cudaError_t fk_cuda_layer_norm_quantized(FkCuda *cu, const FkLayerNorm *n, int groups);
/* E4M3 codes [rows, cols] and scales [rows] of numbers in the host's pinned memory. */
cudaError_t fk_cuda_upload_codes(FkCuda *cu, const void *from, void *codes, float *scales, FkDtype is, int64_t rows,
                                 int64_t cols);
/* *since: what given scales have cut off since the last such call, recordings included. Waits. */
cudaError_t fk_cuda_saturated(FkCuda *cu, int64_t *since);

/* adapt.cu: FkOps.commit_adapted; buffer: in the host's pinned memory. */
cudaError_t fk_cuda_upload_adapted(FkCuda *cu, const void *buffer, void *to, FkDtype as, const FkAdapted *m);

/* expand.cu */
cudaError_t fk_cuda_expand(FkCuda *cu, FkTensor y, const FkCoded *x, cudaStream_t stream = NULL); /* NULL: the ops' */

/* elementwise.cu */
cudaError_t fk_cuda_rope(FkCuda *cu, FkTensor x, FkTensor table, int64_t heads);
cudaError_t fk_cuda_act(FkCuda *cu, FkTensor y, FkTensor x, FkAct act);
cudaError_t fk_cuda_add(FkCuda *cu, FkTensor y, FkTensor a, FkTensor b);
cudaError_t fk_cuda_mul(FkCuda *cu, FkTensor y, FkTensor a, FkTensor b);
cudaError_t fk_cuda_gate_add(FkCuda *cu, FkTensor y, FkTensor x, FkTensor gate);
cudaError_t fk_cuda_copy(FkCuda *cu, FkTensor y, FkTensor x);
cudaError_t fk_cuda_embed(FkCuda *cu, FkTensor y, FkWeight table, FkTensor ids);
cudaError_t fk_cuda_gather_rows(FkCuda *cu, FkTensor y, FkTensor x, FkTensor index);
cudaError_t fk_cuda_upsample(FkCuda *cu, FkTensor y, FkTensor x);
cudaError_t fk_cuda_pack(FkCuda *cu, FkTensor tokens, FkTensor latent, float scale, float shift);
cudaError_t fk_cuda_unpack(FkCuda *cu, FkTensor latent, FkTensor tokens, float scale, float shift);
cudaError_t fk_cuda_from_u8(FkCuda *cu, FkTensor y, FkTensor x);
cudaError_t fk_cuda_to_u8(FkCuda *cu, FkTensor y, FkTensor x);
cudaError_t fk_cuda_combine(FkCuda *cu, FkTensor y, int n, const FkTensor *x, FkTensor coef);
cudaError_t fk_cuda_mean_rows(FkCuda *cu, FkTensor y, FkTensor x, FkTensor first, FkTensor index);

/* frame.cu; the first two from any thread, while another one works. */
void *fk_cuda_context(const FkCuda *cu);
bool fk_cuda_reach(const FkCuda *cu, const void *memory, size_t bytes);
cudaError_t fk_cuda_resize(FkCuda *cu, const FkResize *r);
cudaError_t fk_cuda_frame_read(FkCuda *cu, FkTensor y, const FkFrame *f, int left, int top, int first);
cudaError_t fk_cuda_frame_write(FkCuda *cu, const FkFrame *f, FkTensor x);
cudaError_t fk_cuda_frame_keep(FkCuda *cu, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after);
cudaError_t fk_cuda_mix(FkCuda *cu, FkTensor y, FkTensor x, FkTensor fade);
cudaError_t fk_cuda_invert(FkCuda *cu, FkTensor y, FkTensor x);
cudaError_t fk_cuda_window(FkCuda *cu, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns);
cudaError_t fk_cuda_bounds(FkCuda *cu, FkTensor y, FkTensor x);
cudaError_t fk_cuda_mask_tokens(FkCuda *cu, FkTensor y, FkTensor x);

/* reduce.cu */
cudaError_t fk_cuda_distance(FkCuda *cu, FkTensor out, FkTensor a, FkTensor b);
cudaError_t fk_cuda_check(FkCuda *cu, FkTensor x, const char *stage);
cudaError_t fk_cuda_match(FkCuda *cu, FkTensor best, FkTensor score, FkTensor src, FkTensor dst);

#endif
