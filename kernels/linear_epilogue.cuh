/* SPDX-License-Identifier: Apache-2.0 */
/* Epilogues of linear_sm90.cuh: from float32 accumulators in registers to the result in memory; and what
 * linear_pingpong_sm90.cuh must round in the same way.
 *
 * A thread holds two rows (8 apart) and, of each 32 columns, eight neighbours. Everything here is straight-line code
 * with predicated accesses: a branch would keep the compiler from starting the next loads early, and a lone warp on its
 * scheduler then waits out every latency. Vectors along the columns come from shared memory (fk_linear_vectors). */
#ifndef FK_LINEAR_EPILOGUE_CUH
#define FK_LINEAR_EPILOGUE_CUH

#include "common.cuh"
#include "linear.h"

typedef struct {
  void *y; /* bf16, or float32 where y_f32 */
  int64_t ldy;
  const float *bias, *gate, *q_norm, *k_norm;
  const float2 *rope;
  int m;
} FkLinearRows;

/* A thread's place in a tile. */
typedef struct {
  char *y[2];            /* its first element in its two rows */
  const float4 *rope[2]; /* QKV: angles of its first columns */
  bool ok[2];            /* which of the two rows exist */
  int left;              /* columns from its first to the end of the tile */
  const float *bias;     /* shared memory, at its first column */
  const float *second;   /* gate, or norm weights */
} FkLinearSpot;

FK_DEVICE uint4 fk_load16_if(const void *p, bool wanted) {
  uint4 v;
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\nmov.b32 %0, 0;\nmov.b32 %1, 0;\nmov.b32 %2, 0;\n"
               "mov.b32 %3, 0;\n@p ld.global.v4.b32 {%0, %1, %2, %3}, [%4];\n}"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p), "r"((int)wanted)
               : "memory");
  return v;
}

FK_DEVICE void fk_store16_if(void *p, uint4 v, bool wanted) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n@p st.global.v4.b32 [%4], {%0, %1, %2, %3};\n}" ::"r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w), "l"(p), "r"((int)wanted)
               : "memory");
}

/* Block t (0..BN/32-1) of 32 columns, row h. */
template <bool F32> FK_DEVICE void fk_linear_store(const FkLinearSpot &s, int t, int h, const float (&v)[8]) {
  bool wanted = s.ok[h] && 32 * t < s.left;
  if (F32) {
    const uint4 *u = (const uint4 *)v;
    fk_store16_if(s.y[h] + 128 * t, u[0], wanted);
    fk_store16_if(s.y[h] + 128 * t + 16, u[1], wanted);
  } else {
    fk_store16_if(s.y[h] + 64 * t, fk_pack8(v), wanted);
  }
}

FK_DEVICE void fk_linear_shared8(const float *p, float (&v)[8]) {
  float4 a = *(const float4 *)p, b = *((const float4 *)p + 1);
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
  v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

/* Where accumulator i of block t, row h is. */
FK_DEVICE constexpr int fk_linear_at(int t, int h, int i) {
  return 16 * t + 4 * (i / 2) + 2 * h + i % 2;
}

template <int Epi> FK_DEVICE float fk_linear_act(float x) {
  return Epi == FK_LINEAR_SILU         ? fk_silu(x)
         : Epi == FK_LINEAR_GELU       ? fk_gelu_tanh(x)
         : Epi == FK_LINEAR_QUICK_GELU ? fk_quick_gelu(x)
                                       : x;
}

/* Bias and an element-wise function, blocks From..To-1. */
template <int Epi, int From, int To, bool F32, int Regs>
FK_DEVICE void fk_linear_map(const FkLinearSpot &s, const float (&acc)[Regs]) {
#pragma unroll
  for (int t = From; t < To; t++) {
    float b[8];
    fk_linear_shared8(s.bias + 32 * t, b);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = fk_linear_act<Epi>(acc[fk_linear_at(t, h, i)] + b[i]);
      fk_linear_store<F32>(s, t, h, v);
    }
  }
}

/* The residual, asked for before the last products are done. */
template <int Blocks> FK_DEVICE void fk_linear_residual(const FkLinearSpot &s, uint4 (&old)[Blocks][2]) {
#pragma unroll
  for (int t = 0; t < Blocks; t++)
#pragma unroll
    for (int h = 0; h < 2; h++) old[t][h] = fk_load16_if(s.y[h] + 64 * t, s.ok[h] && 32 * t < s.left);
}

template <int Blocks, int Regs>
FK_DEVICE void fk_linear_gate(const FkLinearSpot &s, const float (&acc)[Regs], const uint4 (&old)[Blocks][2]) {
#pragma unroll
  for (int t = 0; t < Blocks; t++) {
    float b[8], gate[8];
    fk_linear_shared8(s.bias + 32 * t, b);
    fk_linear_shared8(s.second + 32 * t, gate);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float v[8];
      fk_unpack8(old[t][h], v);
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = __fmaf_rn(gate[i], acc[fk_linear_at(t, h, i)] + b[i], v[i]);
      fk_linear_store<false>(s, t, h, v);
    }
  }
}

/* Arithmetic of a head, every rounding fixed, so that all kernels give it the same bytes. Squares: of four neighbouring
 * columns; two of these are added, then two of those, until 32 columns are together. */
FK_DEVICE float fk_linear_squares(float a, float b, float c, float d) {
  return __fmaf_rn(d, d, __fmaf_rn(c, c, __fmaf_rn(b, b, __fmul_rn(a, a))));
}
/* 1 / RMS from the four sums of 32 squares. */
FK_DEVICE float fk_linear_scale(float a, float b, float c, float d) {
  return rsqrtf(__fmaf_rn(__fadd_rn(__fadd_rn(a, b), __fadd_rn(c, d)), 1.0f / 128, 1e-6f));
}
/* A pair, turned. */
FK_DEVICE uint32_t fk_linear_rotate(float x, float y, float cosine, float sine) {
  return fk_pack_bf16(__fmaf_rn(x, cosine, -__fmul_rn(y, sine)), __fmaf_rn(y, cosine, __fmul_rn(x, sine)));
}

/* Head n of the tile, 128 columns: bias, RMS norm over the head (a quad holds a row), rotation of neighbouring pairs.
 */
template <int N, int Regs> FK_DEVICE void fk_linear_head(const FkLinearSpot &s, float (&acc)[Regs]) {
  float sum[2][4], scale[2];
#pragma unroll
  for (int t = 0; t < 4; t++) {
    float b[8];
    fk_linear_shared8(s.bias + 128 * N + 32 * t, b);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = acc[fk_linear_at(4 * N + t, h, i)] += b[i];
      float x = fk_linear_squares(v[0], v[1], v[2], v[3]) + fk_linear_squares(v[4], v[5], v[6], v[7]);
      x += __shfl_xor_sync(0xffffffffu, x, 1);
      sum[h][t] = x + __shfl_xor_sync(0xffffffffu, x, 2);
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) scale[h] = fk_linear_scale(sum[h][0], sum[h][1], sum[h][2], sum[h][3]);
#pragma unroll
  for (int t = 0; t < 4; t++) {
    float w[8];
    fk_linear_shared8(s.second + 128 * N + 32 * t, w);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float x[8], cs[8];
      fk_load8((const float *)(s.rope[h] + 8 * t), cs);
#pragma unroll
      for (int i = 0; i < 8; i++) x[i] = acc[fk_linear_at(4 * N + t, h, i)] * (scale[h] * w[i]);
      uint4 v = make_uint4(fk_linear_rotate(x[0], x[1], cs[0], cs[1]), fk_linear_rotate(x[2], x[3], cs[2], cs[3]),
                           fk_linear_rotate(x[4], x[5], cs[4], cs[5]), fk_linear_rotate(x[6], x[7], cs[6], cs[7]));
      fk_store16_if(s.y[h] + 64 * (4 * N + t), v, s.ok[h] && 32 * (4 * N + t) < s.left);
    }
  }
}

/* Head N of a QKV tile. col: the tile's first column; width: D; columns are [K | V | Q | MLP]. */
template <int N, int Regs>
FK_DEVICE void fk_linear_part(const FkLinearSpot &s, int col, int width, float (&acc)[Regs]) {
  int part = (col + 128 * N) / width;
  if (part == 0 || part == 2)
    fk_linear_head<N>(s, acc);
  else if (part == 1)
    fk_linear_map<FK_LINEAR_NONE, 4 * N, 4 * N + 4, false>(s, acc);
  else
    fk_linear_map<FK_LINEAR_GELU, 4 * N, 4 * N + 4, false>(s, acc);
}

template <int Regs> FK_DEVICE void fk_linear_qkv(const FkLinearSpot &s, int col, int width, float (&acc)[Regs]) {
  fk_linear_part<0>(s, col, width, acc);
  if constexpr (Regs == 128) fk_linear_part<1>(s, col, width, acc);
}

#endif
