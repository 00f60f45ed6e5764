/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that handle every element alone, and those that only move rows: activations, sums, gates, copies, embeddings,
 * rotary embedding, token packing, pixels. All are bound by memory: one read of each operand and one write, 16 bytes a
 * thread where alignment and width allow, arithmetic in float32, one rounding at the store. Operands may be float32 or
 * bf16 in any mix. Reductions are in reduce.cu and norm.cu. */
#include "device.cuh"

namespace {

struct ActOp {
  FkView y, x;
  int act;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V];
    fk_view_load<V>(x, row, col, v);
#pragma unroll
    for (int i = 0; i < V; i++) {
      if (act == FK_ACT_SILU) v[i] = fk_silu(v[i]);
      if (act == FK_ACT_GELU_TANH) v[i] = fk_gelu_tanh(v[i]);
      if (act == FK_ACT_QUICK_GELU) v[i] = fk_quick_gelu(v[i]);
    }
    fk_view_store<V>(y, row, col, v);
  }
};

template <bool Product> struct PairOp {
  FkView y, a, b;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V], w[V];
    fk_view_load<V>(a, row, col, v);
    fk_view_load<V>(b, row, col, w);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = Product ? v[i] * w[i] : v[i] + w[i];
    fk_view_store<V>(y, row, col, v);
  }
};

struct GateOp {
  FkView y, x, gate;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V], w[V], g[V];
    fk_view_load<V>(y, row, col, v);
    fk_view_load<V>(x, row, col, w);
    fk_view_load<V>(gate, 0, col, g);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] += g[i] * w[i];
    fk_view_store<V>(y, row, col, v);
  }
};

struct CopyOp {
  FkView y, x;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V];
    fk_view_load<V>(x, row, col, v);
    fk_view_store<V>(y, row, col, v);
  }
};

/* y[row] = x[index[row]] */
struct GatherOp {
  FkView y, x;
  const int *index;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V];
    fk_view_load<V>(x, index[row], col, v);
    fk_view_store<V>(y, row, col, v);
  }
};

struct MeanOp {
  FkView y, x;
  const int *first, *index;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float sum[V] = {}, v[V];
    const int begin = first[row], end = first[row + 1];
    for (int i = begin; i < end; i++) {
      fk_view_load<V>(x, index[i], col, v);
#pragma unroll
      for (int k = 0; k < V; k++) sum[k] += v[k];
    }
#pragma unroll
    for (int k = 0; k < V; k++) sum[k] = end > begin ? sum[k] / (float)(end - begin) : 0.0f;
    fk_view_store<V>(y, row, col, sum);
  }
};

/* y row (i, j) of width 2W reads x row (i / 2, j / 2). */
struct UpsampleOp {
  FkView y, x;
  int64_t width; /* of x */
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V];
    const int64_t i = row / (2 * width), j = row % (2 * width);
    fk_view_load<V>(x, i / 2 * width + j / 2, col, v);
    fk_view_store<V>(y, row, col, v);
  }
};

/* x / 255 * 2 - 1 */
struct FromU8Op {
  FkView y, x;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V];
    fk_view_load<V>(x, row, col, v);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = __fdiv_rn(v[i], 255.0f) * 2.0f - 1.0f;
    fk_view_store<V>(y, row, col, v);
  }
};

/* The store rounds half to even. NaN becomes 0. */
struct ToU8Op {
  FkView y, x;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V];
    fk_view_load<V>(x, row, col, v);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = fminf(fmaxf(v[i] * 0.5f + 0.5f, 0.0f), 1.0f) * 255.0f;
    fk_view_store<V>(y, row, col, v);
  }
};

struct CombineOp {
  FkView y, x[FK_MAX_TERMS];
  const float *coef;
  int n;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float sum[V] = {}, v[V];
#pragma unroll
    for (int k = 0; k < FK_MAX_TERMS; k++) {
      if (k >= n) break;
      const float c = coef[k];
      fk_view_load<V>(x[k], row, col, v);
#pragma unroll
      for (int i = 0; i < V; i++) sum[i] += c * v[i];
    }
    fk_view_store<V>(y, row, col, sum);
  }
};

/* Adjacent pairs (2i, 2i + 1) of each head turn by the table's angle (spec 6.2); two products and one sum. */
struct RopeOp {
  FkView x;
  const float *table;
  int64_t ld, width; /* of the table; of a head */
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[V], t[V];
    fk_view_load<V>(x, row, col, v);
    const float *at = table + row * ld + col % width;
#pragma unroll
    for (int i = 0; i < V; i++) t[i] = at[i];
#pragma unroll
    for (int i = 0; i + 1 < V; i += 2) {
      const float a = v[i], b = v[i + 1];
      v[i] = __fadd_rn(__fmul_rn(a, t[i]), __fmul_rn(-b, t[i + 1]));
      v[i + 1] = __fadd_rn(__fmul_rn(b, t[i]), __fmul_rn(a, t[i + 1]));
    }
    fk_view_store<V>(x, row, col, v);
  }
};

/* Token (ty, tx) holds the 2x2 pixels of the latent below it: column c * 4 + py * 2 + px (spec 6.1). */
struct PackOp {
  FkView tokens, latent;
  int64_t width; /* tokens in a row of the grid */
  float scale, shift;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[1];
    const int64_t y = row / width * 2 + (col >> 1 & 1), x = row % width * 2 + (col & 1);
    fk_view_load<1>(latent, y * 2 * width + x, col >> 2, v);
    v[0] = (v[0] - shift) * scale;
    fk_view_store<1>(tokens, row, col, v);
  }
};

struct UnpackOp {
  FkView latent, tokens;
  int64_t width;
  float scale, shift;
  template <int V> __device__ __forceinline__ void run(int64_t row, int64_t col) const {
    float v[1];
    const int64_t y = row / (2 * width), x = row % (2 * width);
    fk_view_load<1>(tokens, y / 2 * width + x / 2, col * 4 + (y & 1) * 2 + (x & 1), v);
    v[0] = __fdiv_rn(v[0], scale) + shift;
    fk_view_store<1>(latent, row, col, v);
  }
};

template <class Op> void run(FkBackend *be, const char *name, Op op, FkTensor shape, bool dense, bool wide) {
  FkCuda *cu = fk_cuda_enter(be);
  fk_cuda_ok(be, name, fk_map_any(cu->stream, op, fk_tensor_rows(shape), fk_tensor_cols(shape), dense, wide));
}

bool wide2(FkTensor a, FkTensor b) {
  return fk_view_wide(a) && fk_view_wide(b);
}
bool dense2(FkTensor a, FkTensor b) {
  return fk_view_dense(a) && fk_view_dense(b);
}

} // namespace

void fk_cuda_op_act(FkBackend *be, FkTensor y, FkTensor x, FkAct act) {
  run(be, "act", ActOp{fk_view(y), fk_view(x), act}, y, dense2(y, x), wide2(y, x));
}

void fk_cuda_op_add(FkBackend *be, FkTensor y, FkTensor a, FkTensor b) {
  run(be, "add", PairOp<false>{fk_view(y), fk_view(a), fk_view(b)}, y, dense2(a, b) && fk_view_dense(y),
      wide2(a, b) && fk_view_wide(y));
}

void fk_cuda_op_mul(FkBackend *be, FkTensor y, FkTensor a, FkTensor b) {
  run(be, "mul", PairOp<true>{fk_view(y), fk_view(a), fk_view(b)}, y, dense2(a, b) && fk_view_dense(y),
      wide2(a, b) && fk_view_wide(y));
}

void fk_cuda_op_gate_add(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate) {
  run(be, "gate_add", GateOp{fk_view(y), fk_view(x), fk_view(gate)}, y, false, wide2(y, x) && fk_view_wide(gate));
}

void fk_cuda_op_copy(FkBackend *be, FkTensor y, FkTensor x) {
  if (y.dtype == FK_I32 || x.dtype == FK_I32) { /* float holds 24 bits only: integers move as they are */
    FkCuda *cu = fk_cuda_enter(be);
    assert(y.dtype == x.dtype);
    fk_cuda_ok(be, "copy",
               cudaMemcpy2DAsync(y.data, (size_t)y.ld * 4, x.data, (size_t)x.ld * 4, (size_t)fk_tensor_cols(y) * 4,
                                 (size_t)fk_tensor_rows(y), cudaMemcpyDeviceToDevice, cu->stream));
    return;
  }
  run(be, "copy", CopyOp{fk_view(y), fk_view(x)}, y, dense2(y, x), wide2(y, x));
}

void fk_cuda_op_embed(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids) {
  const FkTensor x = fk_tensor_2d((void *)table.data, table.dtype, table.out, table.in);
  run(be, "embed", GatherOp{fk_view(y), fk_view(x), (const int *)ids.data}, y, false, wide2(y, x));
}

void fk_cuda_op_gather_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor index) {
  run(be, "gather_rows", GatherOp{fk_view(y), fk_view(x), (const int *)index.data}, y, false, wide2(y, x));
}

void fk_cuda_op_mean_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index) {
  run(be, "mean_rows", MeanOp{fk_view(y), fk_view(x), (const int *)first.data, (const int *)index.data}, y, false,
      wide2(y, x));
}

void fk_cuda_op_upsample(FkBackend *be, FkTensor y, FkTensor x) {
  run(be, "upsample", UpsampleOp{fk_view(y), fk_view(x), x.dim[1]}, y, false, wide2(y, x));
}

void fk_cuda_op_pack(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift) {
  run(be, "pack", PackOp{fk_view(tokens), fk_view(latent), latent.dim[1] / 2, scale, shift}, tokens, false, false);
}

void fk_cuda_op_unpack(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift) {
  const FkTensor shape = fk_tensor_2d(latent.data, latent.dtype, fk_tensor_rows(latent), fk_tensor_cols(tokens) / 4);
  run(be, "unpack", UnpackOp{fk_view(latent), fk_view(tokens), latent.dim[1] / 2, scale, shift}, shape, false, false);
}

void fk_cuda_op_from_u8(FkBackend *be, FkTensor y, FkTensor x) {
  run(be, "from_u8", FromU8Op{fk_view(y), fk_view(x)}, y, dense2(y, x), wide2(y, x));
}

void fk_cuda_op_to_u8(FkBackend *be, FkTensor y, FkTensor x) {
  run(be, "to_u8", ToU8Op{fk_view(y), fk_view(x)}, y, dense2(y, x), wide2(y, x));
}

void fk_cuda_op_combine(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef) {
  CombineOp op = {};
  bool dense = fk_view_dense(y), wide = fk_view_wide(y);
  assert(n >= 1 && n <= FK_MAX_TERMS);
  for (int i = 0; i < n; i++) {
    op.x[i] = fk_view(x[i]);
    dense = dense && fk_view_dense(x[i]);
    wide = wide && fk_view_wide(x[i]);
  }
  op.y = fk_view(y);
  op.coef = (const float *)coef.data;
  op.n = n;
  run(be, "combine", op, y, dense, wide);
}

/* Pairs must stay together: eight at a time where that divides a head, else two. */
void fk_cuda_op_rope(FkBackend *be, FkTensor x, FkTensor table, int64_t heads) {
  FkCuda *cu = fk_cuda_enter(be);
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x), width = cols / heads;
  const RopeOp op = {fk_view(x), (const float *)table.data, table.ld, width};
  fk_cuda_ok(be, "rope",
             fk_view_wide(x) && width % 8 == 0 ? fk_map<8>(cu->stream, op, rows, cols, false)
                                               : fk_map<2>(cu->stream, op, rows, cols, false));
}

cudaError_t fk_cuda_convert(cudaStream_t stream, void *to, FkDtype as, const void *from, FkDtype is, size_t count) {
  const FkTensor y = fk_tensor_1d(to, as, (int64_t)count), x = fk_tensor_1d((void *)from, is, (int64_t)count);
  const CopyOp op = {fk_view(y), fk_view(x)};
  const bool wide = (uintptr_t)to % 16 == 0 && (uintptr_t)from % 16 == 0 && as != FK_I32 && is != FK_I32;
  const int64_t whole = wide ? (int64_t)(count / 8 * 8) : 0;
  cudaError_t status = fk_map<8>(stream, op, 1, whole, true);
  if (status != cudaSuccess || whole == (int64_t)count) return status;
  const CopyOp rest = {fk_view(fk_tensor_slice(y, whole, (int64_t)count - whole)),
                       fk_view(fk_tensor_slice(x, whole, (int64_t)count - whole))};
  return fk_map<1>(stream, rest, 1, (int64_t)count - whole, true);
}
