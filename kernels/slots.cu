/* SPDX-License-Identifier: Apache-2.0 */
/* The linear and attention slots of the op table: from op-line descriptions to the launchers of linear.h and
 * attention.h. Host code only. */
#include "attention.h"
#include "linear.h"
#include "module.cuh"

static const __nv_bfloat16 *bf16(FkTensor t) {
  return (const __nv_bfloat16 *)t.data;
}

static int epilogue_of(const FkLinear *l) {
  switch (l->epilogue) {
  case FK_EPI_GATE:
  case FK_EPI_ADD: return FK_LINEAR_GATE;
  case FK_EPI_QKV: return FK_LINEAR_QKV;
  default: break;
  }
  switch (l->act) {
  case FK_ACT_SILU: return FK_LINEAR_SILU;
  case FK_ACT_GELU_TANH: return FK_LINEAR_GELU;
  case FK_ACT_QUICK_GELU: return FK_LINEAR_QUICK_GELU;
  default: return FK_LINEAR_NONE;
  }
}

/* bf16 in; bf16 or float32 out; weights without scales. */
static bool linear_types(const FkLinear *l) {
  return l->x.dtype == FK_BF16 && l->w.dtype == FK_BF16 && l->w.scale.kind == FK_SCALE_NONE &&
         (l->y.dtype == FK_BF16 || l->y.dtype == FK_F32);
}

/* cudaErrorNotSupported: nothing was enqueued. */
static cudaError_t run_linear(FkCuda *cu, const FkLinear *l, int groups) {
  FkCudaLinearGroup g[FK_MAX_GROUPS] = {};
  for (int i = 0; i < groups; i++) {
    if (!linear_types(&l[i]) || l[i].y.dtype != l[0].y.dtype) return cudaErrorNotSupported;
    g[i].x = bf16(l[i].x), g[i].ldx = l[i].x.ld;
    g[i].w = (const __nv_bfloat16 *)l[i].w.data;
    g[i].bias = (const float *)l[i].bias.data;
    g[i].y = l[i].y.data, g[i].ldy = l[i].y.ld;
    g[i].gate = l[i].epilogue == FK_EPI_GATE ? (const float *)l[i].gate.data : NULL;
    g[i].q_norm = (const float *)l[i].q_norm.data, g[i].k_norm = (const float *)l[i].k_norm.data;
    g[i].rope = (const float2 *)l[i].rope.data;
    g[i].m = (int)fk_tensor_rows(l[i].x);
    /* The fused norm and rotation know heads of 128 and a table without holes. */
    if (l[i].epilogue == FK_EPI_QKV && (l[i].q_norm.dim[0] != 128 || l[i].rope.ld != 128)) return cudaErrorNotSupported;
  }
  return fk_cuda_linear(cu->stream, groups, g, (int)l->w.out, (int)l->w.in, epilogue_of(l), (int)l->width,
                        l->y.dtype == FK_F32);
}

void fk_cuda_op_linear(FkBackend *be, const FkLinear *l) {
  const cudaError_t status = run_linear(fk_cuda_enter(be), l, 1);
  if (status == cudaErrorNotSupported)
    fk_cuda_fail(be, FK_FAIL_UNSUPPORTED, "linear: operand types x %d, w %d, y %d have no kernel", l->x.dtype,
                 l->w.dtype, l->y.dtype);
  else
    fk_cuda_ok(be, "linear", status);
}

bool fk_cuda_op_linear_fused(FkBackend *be, const FkLinear *l, int groups) {
  const cudaError_t status = run_linear(fk_cuda_enter(be), l, groups);
  if (status == cudaErrorNotSupported) return false;
  fk_cuda_ok(be, "linear", status);
  return true;
}

static bool attention_types(const FkAttention *a) {
  return a->q.dtype == FK_BF16 && a->k.dtype == FK_BF16 && a->v.dtype == FK_BF16 && a->o.dtype == FK_BF16;
}

void fk_cuda_op_attention(FkBackend *be, const FkAttention *a) {
  FkCuda *cu = fk_cuda_enter(be);
  const int width = (int)(fk_tensor_cols(a->q) / a->heads);
  const bool done =
      attention_types(a) &&
      fk_cuda_attention_general(cu->stream, bf16(a->q), bf16(a->k), bf16(a->v), (__nv_bfloat16 *)a->o.data, a->q.ld,
                                a->k.ld, a->v.ld, a->o.ld, (int)fk_tensor_rows(a->q), (int)fk_tensor_rows(a->k),
                                (int)a->heads, width, a->scale, (const float *)a->bias.data, a->causal);
  if (!done) fk_cuda_fail(be, FK_FAIL_UNSUPPORTED, "attention: no kernel for heads %d wide", width);
  fk_cuda_ok(be, "attention", cudaGetLastError());
}

/* Hopper, heads of 128 or 512, no mask; everything else is the basic slot's. */
bool fk_cuda_op_flash_attention(FkBackend *be, const FkAttention *a) {
  FkCuda *cu = fk_cuda_enter(be);
  if (cu->arch != 90 || !attention_types(a) || a->causal || fk_tensor_given(a->bias)) return false;
  const int64_t width = fk_tensor_cols(a->q) / a->heads;
  if (width != 128 && width != 512) return false;
  const bool done = (width == 128 ? fk_cuda_attention_sm90 : fk_cuda_attention_wide_sm90)(
      cu->stream, bf16(a->q), bf16(a->k), bf16(a->v), (__nv_bfloat16 *)a->o.data, a->q.ld, a->k.ld, a->v.ld, a->o.ld,
      (int)fk_tensor_rows(a->q), (int)fk_tensor_rows(a->k), (int)a->heads, a->scale);
  if (done) fk_cuda_ok(be, "attention", cudaGetLastError());
  return done;
}
