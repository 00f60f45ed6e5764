/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that handle every element alone, and those that only move rows: activations, sums, gates, copies, embeddings,
 * rotary embedding, token packing, pixels. Arithmetic in float32, one rounding at the store; operands may be float32 or
 * bf16 in any mix. Reductions are in reduce.cu and norm.cu.
 *
 * Blocks of 256 threads (fk_map), eight elements a thread where alignment and width allow; no shared memory, 13 to 44
 * registers. All are bound by memory: one read of each operand and one write. Measured on an H200: a copy of 65536 x
 * 3072 takes 192 us (99 % of the floor), 4096 x 6144 into columns of a wider matrix 29.8 us (79 %), gate_add of 8704 x
 * 3072 50.3 us (75 %); start and tail cost 4 to 6 us. */
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

/* How a launch may go through its operands. */
struct Access {
  bool known, dense, wide; /* types that views have; as one row; eight elements at a time, where the columns allow */
};

template <class... T> Access access(T... t) {
  return Access{(fk_view_known(t) && ...), (fk_view_dense(t) && ...), (fk_view_wide(t) && ...)};
}
Access by_rows(Access a) {
  return Access{a.known, false, a.wide};
}
Access by_elements(Access a) {
  return Access{a.known, false, false};
}

/* Over the rows and columns of `shape`. */
template <class Op> cudaError_t run(FkCuda *cu, Op op, FkTensor shape, Access a) {
  const int64_t rows = fk_tensor_rows(shape), cols = fk_tensor_cols(shape), row = a.dense ? rows * cols : cols;
  if (!a.known) return cudaErrorNotSupported;
  return a.wide && row % 8 == 0 ? fk_map<8>(cu, op, rows, cols, a.dense) : fk_map<1>(cu, op, rows, cols, a.dense);
}

/* Codes that only move are bytes. */
FkTensor as_bytes(FkTensor t) {
  if (t.dtype == FK_I8 || t.dtype == FK_E4M3) t.dtype = FK_U8;
  return t;
}

} // namespace

cudaError_t fk_cuda_act(FkCuda *cu, FkTensor y, FkTensor x, FkAct act) {
  return run(cu, ActOp{fk_view(y), fk_view(x), act}, y, access(y, x));
}

cudaError_t fk_cuda_add(FkCuda *cu, FkTensor y, FkTensor a, FkTensor b) {
  return run(cu, PairOp<false>{fk_view(y), fk_view(a), fk_view(b)}, y, access(y, a, b));
}

cudaError_t fk_cuda_mul(FkCuda *cu, FkTensor y, FkTensor a, FkTensor b) {
  return run(cu, PairOp<true>{fk_view(y), fk_view(a), fk_view(b)}, y, access(y, a, b));
}

cudaError_t fk_cuda_gate_add(FkCuda *cu, FkTensor y, FkTensor x, FkTensor gate) {
  return run(cu, GateOp{fk_view(y), fk_view(x), fk_view(gate)}, y, by_rows(access(y, x, gate)));
}

cudaError_t fk_cuda_copy(FkCuda *cu, FkTensor y, FkTensor x) {
  const bool same = y.dtype == x.dtype;
  if (same && y.dtype == FK_I32) /* float holds 24 bits only: integers move as they are */
    return cudaMemcpy2DAsync(y.data, (size_t)y.ld * 4, x.data, (size_t)x.ld * 4, (size_t)fk_tensor_cols(y) * 4,
                             (size_t)fk_tensor_rows(y), cudaMemcpyDeviceToDevice, cu->stream);
  if (y.dtype == FK_I32 || x.dtype == FK_I32) return cudaErrorNotSupported;
  if (same) y = as_bytes(y), x = as_bytes(x);
  return run(cu, CopyOp{fk_view(y), fk_view(x)}, y, access(y, x));
}

cudaError_t fk_cuda_embed(FkCuda *cu, FkTensor y, FkWeight table, FkTensor ids) {
  const FkTensor x = fk_tensor_2d((void *)table.data, table.dtype, table.out, table.in);
  return run(cu, GatherOp{fk_view(y), fk_view(x), (const int *)ids.data}, y, by_rows(access(y, x)));
}

cudaError_t fk_cuda_gather_rows(FkCuda *cu, FkTensor y, FkTensor x, FkTensor index) {
  if (y.dtype == x.dtype) y = as_bytes(y), x = as_bytes(x);
  return run(cu, GatherOp{fk_view(y), fk_view(x), (const int *)index.data}, y, by_rows(access(y, x)));
}

cudaError_t fk_cuda_mean_rows(FkCuda *cu, FkTensor y, FkTensor x, FkTensor first, FkTensor index) {
  return run(cu, MeanOp{fk_view(y), fk_view(x), (const int *)first.data, (const int *)index.data}, y,
             by_rows(access(y, x)));
}

cudaError_t fk_cuda_upsample(FkCuda *cu, FkTensor y, FkTensor x) {
  return run(cu, UpsampleOp{fk_view(y), fk_view(x), x.dim[1]}, y, by_rows(access(y, x)));
}

cudaError_t fk_cuda_pack(FkCuda *cu, FkTensor tokens, FkTensor latent, float scale, float shift) {
  return run(cu, PackOp{fk_view(tokens), fk_view(latent), latent.dim[1] / 2, scale, shift}, tokens,
             by_elements(access(tokens, latent)));
}

cudaError_t fk_cuda_unpack(FkCuda *cu, FkTensor latent, FkTensor tokens, float scale, float shift) {
  const FkTensor shape = fk_tensor_2d(latent.data, latent.dtype, fk_tensor_rows(latent), fk_tensor_cols(tokens) / 4);
  return run(cu, UnpackOp{fk_view(latent), fk_view(tokens), latent.dim[1] / 2, scale, shift}, shape,
             by_elements(access(tokens, latent)));
}

cudaError_t fk_cuda_from_u8(FkCuda *cu, FkTensor y, FkTensor x) {
  return run(cu, FromU8Op{fk_view(y), fk_view(x)}, y, access(y, x));
}

cudaError_t fk_cuda_to_u8(FkCuda *cu, FkTensor y, FkTensor x) {
  return run(cu, ToU8Op{fk_view(y), fk_view(x)}, y, access(y, x));
}

cudaError_t fk_cuda_combine(FkCuda *cu, FkTensor y, int n, const FkTensor *x, FkTensor coef) {
  CombineOp op = {.y = fk_view(y), .coef = (const float *)coef.data, .n = n};
  Access all = access(y);
  assert(n >= 1 && n <= FK_MAX_TERMS);
  for (int i = 0; i < n; i++) {
    const Access one = access(x[i]);
    op.x[i] = fk_view(x[i]);
    all = Access{all.known && one.known, all.dense && one.dense, all.wide && one.wide};
  }
  return run(cu, op, y, all);
}

/* Pairs must stay together: eight at a time where that divides a head, else two. */
cudaError_t fk_cuda_rope(FkCuda *cu, FkTensor x, FkTensor table, int64_t heads) {
  const int64_t rows = fk_tensor_rows(x), cols = fk_tensor_cols(x), width = cols / heads;
  const RopeOp op = {fk_view(x), (const float *)table.data, table.ld, width};
  if (!fk_view_known(x)) return cudaErrorNotSupported;
  return fk_view_wide(x) && width % 8 == 0 ? fk_map<8>(cu, op, rows, cols, false)
                                           : fk_map<2>(cu, op, rows, cols, false);
}

cudaError_t fk_cuda_convert(FkCuda *cu, void *to, FkDtype as, const void *from, FkDtype is, size_t count) {
  const FkTensor y = fk_tensor_1d(to, as, (int64_t)count), x = fk_tensor_1d((void *)from, is, (int64_t)count);
  const bool wide = (uintptr_t)to % 16 == 0 && (uintptr_t)from % 16 == 0 && as != FK_I32 && is != FK_I32;
  const int64_t whole = wide ? (int64_t)(count / 8 * 8) : 0, rest = (int64_t)count - whole;
  if (!fk_view_known(y) || !fk_view_known(x)) return cudaErrorNotSupported;
  FK_CUDA_TRY(fk_map<8>(cu, CopyOp{fk_view(y), fk_view(x)}, 1, whole, true));
  const CopyOp last = {fk_view(fk_tensor_slice(y, whole, rest)), fk_view(fk_tensor_slice(x, whole, rest))};
  return fk_map<1>(cu, last, 1, rest, true);
}

/* Through the scratch memory, a part at a time. Of a checkpoint in the device's own dtype these are the vectors alone.
 */
cudaError_t fk_cuda_upload_numbers(FkCuda *cu, const void *from, void *to, FkDtype as, FkDtype is, size_t count) {
  if (as == is)
    return cudaMemcpyAsync(to, from, count * (size_t)fk_dtype_bits(is) / 8, cudaMemcpyHostToDevice, cu->stream);
  const size_t size = fk_dtype_size(is), most = FK_CUDA_SCRATCH_BYTES / size;
  for (size_t at = 0; at < count; at += most) {
    const size_t n = count - at < most ? count - at : most;
    FK_CUDA_TRY(
        cudaMemcpyAsync(cu->scratch, (const char *)from + at * size, n * size, cudaMemcpyHostToDevice, cu->stream));
    FK_CUDA_TRY(fk_cuda_convert(cu, (char *)to + at * fk_dtype_size(as), as, cu->scratch, is, n));
  }
  return cudaSuccess;
}
