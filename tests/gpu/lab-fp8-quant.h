/* SPDX-License-Identifier: Apache-2.0 */
/* Quantizers against plain C, bit by bit. */
#ifndef FK_LAB_FP8_QUANT_H
#define FK_LAB_FP8_QUANT_H

#include "../../kernels/norm.cu"
#include "lab-fp8-reference.h"

/* ---- checks of the quantizers ------------------------------------------------------------------------------------ */

static int64_t differing(const float *v, const uint8_t *codes, const float *scale, int64_t rows, int cols) {
  uint8_t *want = (uint8_t *)malloc(cols);
  int64_t bad = 0;
  for (int64_t r = 0; r < rows; r++) {
    float s;
    ref_group(v + r * cols, cols, want, &s);
    bad += memcmp(&s, &scale[r], 4) != 0;
    for (int i = 0; i < cols; i++) bad += want[i] != codes[r * cols + i];
  }
  free(want);
  return bad;
}

/* Rows with what is rare: zero, tiny, -0, NaN, infinity, one value only, exact ties. */
static void special_rows(uint16_t *x, int64_t ld, int cols) {
  for (int c = 0; c < cols; c++) {
    x[0 * ld + c] = c & 1 ? 0x8000 : 0;                              /* zeros of both signs */
    x[1 * ld + c] = (uint16_t)((c & 1 ? 0x8d00 : 0x0d00) + c % 128); /* below 2^-100 */
    x[2 * ld + c] = (uint16_t)(0x0d00 + c % 129);                    /* up to 2^-100 */
    x[3 * ld + c] = (uint16_t)(c * 37);                              /* every exponent, no NaN */
    if ((x[3 * ld + c] & 0x7f80) == 0x7f80) x[3 * ld + c] = 0x3f80;
    x[6 * ld + c] = (uint16_t)(0x3f80 + c % 128 + (c & 1 ? 0x8000 : 0)); /* 1..2, ties among them */
    x[7 * ld + c] = c == 77 ? 0x4248 : 0;
  }
  x[4 * ld + 5] = 0x7fc0, x[5 * ld + 9] = 0xff80;
  for (int c = 0; c < cols; c++) x[6 * ld + c] = c ? x[6 * ld + c] : 0x43e0; /* amax 448: inv is 1 */
}

static bool quant_case(const Pool *p, int64_t rows, int cols, int64_t ldx, int kind) {
  const size_t all = (size_t)rows * ldx;
  uint16_t *x = (uint16_t *)malloc(all * 2);
  float *v = (float *)malloc((size_t)rows * cols * 4), *scale = (float *)malloc(ROWS * 4);
  uint8_t *codes = (uint8_t *)malloc((size_t)rows * cols);
  fill(p->x, (int64_t)all, 30 + cols, kind, 1);
  TRY(cudaMemcpy(x, p->x, all * 2, cudaMemcpyDeviceToHost));
  if (rows >= 8) special_rows(x, ldx, cols);
  TRY(cudaMemcpy(p->x, x, all * 2, cudaMemcpyHostToDevice));
  for (int64_t r = 0; r < rows; r++)
    for (int c = 0; c < cols; c++) {
      const uint32_t u = (uint32_t)x[r * ldx + c] << 16;
      memcpy(&v[r * cols + c], &u, 4);
    }
  FkQuantRows q = {p->x, ldx, p->xq, cols, p->sx, rows};
  TRY(fk_cuda_quant_rows(0, &q, cols));
  TRY(cudaMemcpy(codes, p->xq, (size_t)rows * cols, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(scale, p->sx, rows * 4, cudaMemcpyDeviceToHost));
  const int64_t bad = differing(v, codes, scale, rows, cols);
  printf("  quantize %5ld x %5d: %ld codes and scales differ  %s\n", (long)rows, cols, (long)bad,
         bad ? "FAILED" : "ok");
  free(x), free(v), free(scale), free(codes);
  return bad == 0;
}

/* Against plain C from the kernel's own float32 values, and these against norm.cu after rounding. */
static bool norm_case(const Pool *p, int64_t r0, int64_t r1, int cols, bool same_as_norm) {
  const int64_t rows = r0 + r1;
  float *plain = (float *)device((size_t)rows * cols * 4), *v = (float *)malloc((size_t)rows * cols * 4);
  uint16_t *y = (uint16_t *)malloc((size_t)rows * cols * 2);
  uint8_t *codes = (uint8_t *)malloc((size_t)rows * cols);
  float *scale = (float *)malloc(rows * 4);
  FkQuantNorm n[2] = {};
  RowArgs a = {};
  int64_t bad = 0, rounded = 0;
  fill(p->x, rows * cols, 40, NORMAL, 3);
  a.cols = cols, a.split = 1, a.eps = 1e-6f, a.center = true;
  for (int i = 0; i < 2; i++) {
    const int64_t first = i ? r0 : 0;
    const float *mul = p->vectors + i * 2 * 21504, *add = mul + 21504;
    n[i] = FkQuantNorm{{p->x + first * cols, cols, p->xq + first * cols, cols, p->sx + first, i ? r1 : r0},
                       mul,
                       add,
                       1,
                       plain + first * cols};
    a.group[i] = RowGroup{{(char *)(p->x + first * cols), cols, FK_BF16},
                          {(char *)(p->y + first * cols), cols, FK_BF16},
                          mul,
                          add,
                          1,
                          i ? r1 : r0};
  }
  TRY(fk_cuda_quant_norm(0, cu.sms, 2, n, cols, 1e-6f));
  if (same_as_norm) TRY(launch_rows(&cu, a, true));
  TRY(cudaMemcpy(v, plain, (size_t)rows * cols * 4, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(y, p->y, (size_t)rows * cols * 2, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(codes, p->xq, (size_t)rows * cols, cudaMemcpyDeviceToHost));
  TRY(cudaMemcpy(scale, p->sx, rows * 4, cudaMemcpyDeviceToHost));
  bad = differing(v, codes, scale, rows, cols);
  for (int64_t i = 0; same_as_norm && i < rows * cols; i++) {
    uint32_t u;
    memcpy(&u, &v[i], 4);
    rounded += (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16) != y[i];
  }
  printf("  norm + quantize %4ld + %4ld x %4d: %ld codes and scales differ; %s %ld  %s\n", (long)r0, (long)r1, cols,
         (long)bad, same_as_norm ? "bf16 of y against layer norm:" : "(layer norm not compared)", (long)rounded,
         bad || rounded ? "FAILED" : "ok");
  cudaFree(plain), free(v), free(y), free(codes), free(scale);
  return bad == 0 && rounded == 0;
}

static int run_quant(int) {
  Pool p;
  cu_open();
  pool_make(&p);
  bool ok = quant_case(&p, 129, 3072, 3072, WIDE);
  ok = quant_case(&p, 512, 3072, 3072, NORMAL) && ok;
  ok = quant_case(&p, 65, 12288, 12288, GELU) && ok;
  ok = quant_case(&p, 300, 15360, 21504, NORMAL) && ok;
  ok = quant_case(&p, 33, 640, 648, WIDE) && ok;
  ok = quant_case(&p, 1, 16, 16, NORMAL) && ok;
  ok = norm_case(&p, 512, 8192, 3072, true) && ok;
  ok = norm_case(&p, 2560, 1, 3072, true) && ok;
  ok = norm_case(&p, 3, 7, 3072, false) && ok;
  return !ok;
}

#endif
