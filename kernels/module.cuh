/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the CUDA module: the state behind FkBackend.priv, how failures are kept, and the slots that other files of
 * this folder fill. module.cu owns the state; nothing here knows a kernel. */
#ifndef FK_MODULE_CUH
#define FK_MODULE_CUH

#include <cuda_runtime.h>
#include <stdint.h>

extern "C" {
#include "../core/ops/backend.h"
}

#define FK_CUDA_RING 8                   /* pinned buffers of the weight loader */
#define FK_CUDA_RING_BYTES (32u << 20)   /* of each */
#define FK_CUDA_STAGES 64                /* different names given to `check` */
#define FK_CUDA_GRAPHS 64                /* recordings kept */
#define FK_CUDA_SCRATCH_BYTES (8u << 20) /* partial results of reductions; one stream, so one owner at a time */

typedef struct {
  void *host, *device; /* pinned; device side of a conversion, made when first needed */
  size_t device_bytes;
  cudaEvent_t idle; /* passed when the last copy out of the buffer is done */
  bool busy;
} FkCudaBuffer;

/* A recording. The first run of a key is issued plainly (it loads kernels, which recording forbids), the second is
 * recorded and launched, later ones replay. */
typedef struct {
  int key, runs;
  cudaGraphExec_t exec;
} FkCudaGraph;

typedef struct {
  int device, sms;
  int arch; /* 10 * major + minor of the compute capability */
  cudaStream_t stream;
  cudaEvent_t event[FK_EVENTS]; /* made when first recorded */
  FkCudaBuffer ring[FK_CUDA_RING];
  char *scratch;
  unsigned *counter; /* device, zero between launches: which block of a reduction is the last */
  /* One word for each stage named to `check`, in host memory that the device writes: 1 when it met NaN or infinity. */
  int *flags, *flags_device;
  const char *stage[FK_CUDA_STAGES];
  int stages;
  FkCudaGraph graph[FK_CUDA_GRAPHS];
  int graphs;
  bool recording;
} FkCuda;

/* The state, with this thread made to use its device. */
FkCuda *fk_cuda_enter(FkBackend *be);
/* Keeps the first failure, as fk_backend_fail does (which lives in the library that opens the module). */
void fk_cuda_fail(FkBackend *be, FkFailure failure, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* True on success; else keeps the failure under the op's name. */
bool fk_cuda_ok(FkBackend *be, const char *op, cudaError_t status);
/* `count` elements, both dense. */
cudaError_t fk_cuda_convert(cudaStream_t stream, void *to, FkDtype as, const void *from, FkDtype is, size_t count);

/* norm.cu */
void fk_cuda_op_layer_norm(FkBackend *be, const FkLayerNorm *n, int groups);
void fk_cuda_op_rms_norm(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, float eps);
void fk_cuda_op_group_norm(FkBackend *be, const FkGroupNorm *n);
bool fk_cuda_op_group_norm_silu(FkBackend *be, const FkGroupNorm *n);

/* elementwise.cu */
void fk_cuda_op_rope(FkBackend *be, FkTensor x, FkTensor table, int64_t heads);
void fk_cuda_op_act(FkBackend *be, FkTensor y, FkTensor x, FkAct act);
void fk_cuda_op_add(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
void fk_cuda_op_mul(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
void fk_cuda_op_gate_add(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate);
void fk_cuda_op_copy(FkBackend *be, FkTensor y, FkTensor x);
void fk_cuda_op_embed(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids);
void fk_cuda_op_gather_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor index);
void fk_cuda_op_upsample(FkBackend *be, FkTensor y, FkTensor x);
void fk_cuda_op_pack(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift);
void fk_cuda_op_unpack(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift);
void fk_cuda_op_from_u8(FkBackend *be, FkTensor y, FkTensor x);
void fk_cuda_op_to_u8(FkBackend *be, FkTensor y, FkTensor x);
void fk_cuda_op_combine(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef);
void fk_cuda_op_mean_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index);

/* reduce.cu */
void fk_cuda_op_distance(FkBackend *be, FkTensor out, FkTensor a, FkTensor b);
void fk_cuda_op_check(FkBackend *be, FkTensor x, const char *stage);
void fk_cuda_op_match(FkBackend *be, FkTensor best, FkTensor score, FkTensor src, FkTensor dst);

/* conv.cu: everything, any architecture; conv_sm90.cu, conv_narrow.cu: false where the shape is not one of theirs. */
void fk_cuda_op_conv(FkBackend *be, const FkConv *c);
bool fk_cuda_op_conv_fused(FkBackend *be, const FkConv *c);
bool fk_cuda_conv_sm90(FkBackend *be, const FkConv *c);
bool fk_cuda_conv_narrow(FkBackend *be, const FkConv *c);

/* slots.cu: the launchers of linear*.cu and attention*.cu */
void fk_cuda_op_linear(FkBackend *be, const FkLinear *l);
bool fk_cuda_op_linear_fused(FkBackend *be, const FkLinear *l, int groups);
void fk_cuda_op_attention(FkBackend *be, const FkAttention *a);
bool fk_cuda_op_flash_attention(FkBackend *be, const FkAttention *a);

#endif
