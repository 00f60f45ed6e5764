/* SPDX-License-Identifier: Apache-2.0 */
/* Epilogues of linear_sm90.cuh: from float32 accumulators in registers to the result in memory.
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
#ifdef FK_STORE_FIRST
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %5, 0;\n@p st.global.L2::cache_hint.v4.b32 [%4], {%0, %1, %2, %3}, %6;\n}" ::
          "r"(v.x),
      "r"(v.y), "r"(v.z), "r"(v.w), "l"(p), "r"((int)wanted), "l"(FK_L2_EVICT_FIRST)
      : "memory");
  return;
#endif
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

template <int Epi> FK_DEVICE void fk_linear_act(float (&v)[8]) {
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    if (Epi == FK_LINEAR_SILU)
      fk_gated_four(v + i, fk_silu_arg(v[i]), fk_silu_arg(v[i + 1]), fk_silu_arg(v[i + 2]), fk_silu_arg(v[i + 3]));
    if (Epi == FK_LINEAR_GELU)
      fk_gated_four(v + i, fk_gelu_arg(v[i]), fk_gelu_arg(v[i + 1]), fk_gelu_arg(v[i + 2]), fk_gelu_arg(v[i + 3]));
    if (Epi == FK_LINEAR_QUICK_GELU)
      fk_gated_four(v + i, fk_quick_gelu_arg(v[i]), fk_quick_gelu_arg(v[i + 1]), fk_quick_gelu_arg(v[i + 2]),
                    fk_quick_gelu_arg(v[i + 3]));
  }
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
      for (int i = 0; i < 8; i++) v[i] = acc[fk_linear_at(t, h, i)] + b[i];
      fk_linear_act<Epi>(v);
      fk_linear_store<F32>(s, t, h, v);
    }
  }
}

/* The residual, asked for before the last products are done. */
template <int Blocks> FK_DEVICE void fk_linear_residual(const FkLinearSpot &s, bool wanted, uint4 (&old)[Blocks][2]) {
#pragma unroll
  for (int t = 0; t < Blocks; t++)
#pragma unroll
    for (int h = 0; h < 2; h++) old[t][h] = fk_load16_if(s.y[h] + 64 * t, wanted && s.ok[h] && 32 * t < s.left);
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
      for (int i = 0; i < 8; i++) v[i] += gate[i] * (acc[fk_linear_at(t, h, i)] + b[i]);
      fk_linear_store<false>(s, t, h, v);
    }
  }
}

/* Heads First..First+Count-1 of the tile, 128 columns each: bias, RMS norm over the head (a quad holds a row), rotation
 * of neighbouring pairs. The angles of a row are the same in all heads. */
template <int First, int Count, int Regs> FK_DEVICE void fk_linear_heads(const FkLinearSpot &s, float (&acc)[Regs]) {
  float scale[Count][2] = {};
  float4 angle[2][2][2]; /* [t of this and the next block][row][16 bytes] */
#pragma unroll
  for (int h = 0; h < 2; h++) angle[0][h][0] = __ldg(s.rope[h]), angle[0][h][1] = __ldg(s.rope[h] + 1);
#pragma unroll
  for (int n = 0; n < Count; n++) {
#pragma unroll
    for (int t = 4 * (First + n); t < 4 * (First + n) + 4; t++) {
      float b[8];
      fk_linear_shared8(s.bias + 32 * t, b);
#pragma unroll
      for (int h = 0; h < 2; h++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
          float &x = acc[fk_linear_at(t, h, i)];
          x += b[i];
          scale[n][h] += x * x;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float &x = scale[n][h];
      x += __shfl_xor_sync(0xffffffffu, x, 1);
      x += __shfl_xor_sync(0xffffffffu, x, 2);
      x = rsqrtf(x * (1.0f / 128) + 1e-6f);
    }
  }
#pragma unroll
  for (int t = 0; t < 4; t++) {
#pragma unroll
    for (int h = 0; h < 2 && t < 3; h++)
#pragma unroll
      for (int i = 0; i < 2; i++) angle[(t + 1) & 1][h][i] = __ldg(s.rope[h] + 8 * (t + 1) + i);
#pragma unroll
    for (int n = 0; n < Count; n++) {
      float w[8];
      fk_linear_shared8(s.second + 128 * (First + n) + 32 * t, w);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        const float *cs = (const float *)angle[t & 1][h];
        float v[8], x[8];
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = acc[fk_linear_at(4 * (First + n) + t, h, i)] * (scale[n][h] * w[i]);
#pragma unroll
        for (int i = 0; i < 8; i += 2) {
          v[i] = x[i] * cs[i] - x[i + 1] * cs[i + 1];
          v[i + 1] = x[i + 1] * cs[i] + x[i] * cs[i + 1];
        }
        fk_linear_store<false>(s, 4 * (First + n) + t, h, v);
      }
    }
  }
}

/* part: [K | V | Q | MLP] = 0, 1, 2, 3 and above. */
template <int First, int Count, int Regs>
FK_DEVICE void fk_linear_part(const FkLinearSpot &s, int part, float (&acc)[Regs]) {
  if (part == 0 || part == 2)
    fk_linear_heads<First, Count>(s, acc);
  else if (part == 1)
    fk_linear_map<FK_LINEAR_NONE, 4 * First, 4 * (First + Count), false>(s, acc);
  else
    fk_linear_map<FK_LINEAR_GELU, 4 * First, 4 * (First + Count), false>(s, acc);
}

/* col: the tile's first column; width: D. Tiles that straddle two parts take a head at a time. */
template <int Regs> FK_DEVICE void fk_linear_qkv(const FkLinearSpot &s, int col, int width, float (&acc)[Regs]) {
  int part = col / width;
  if constexpr (Regs == 64) {
    fk_linear_part<0, 1>(s, part, acc);
  } else {
    int next = (col + 128) / width;
    if (part == next || part >= 3) {
      fk_linear_part<0, 2>(s, part, acc);
    } else {
      fk_linear_part<0, 1>(s, part, acc);
      fk_linear_part<1, 1>(s, next, acc);
    }
  }
}

/* Starts the residual's way into L2: 64 rows, two threads a row. */
template <int BN> FK_DEVICE void fk_linear_warm(const FkLinearRows &g, int row, int col, int end) {
  int tid = threadIdx.x & 127;
  row += tid / 2;
  col += (tid & 1) * (BN / 2);
  const char *at = (const char *)g.y + (row * g.ldy + col) * 2;
#pragma unroll
  for (int i = 0; i < BN / 128; i++)
    if (row < g.m && col + 64 * i < end) asm volatile("prefetch.global.L2 [%0];" ::"l"(at + 128 * i));
}

#endif
