/* SPDX-License-Identifier: Apache-2.0 */
/* Times the memory-bound ops and the autoencoder's layers at 1024x1024 on the CUDA backend: microseconds (median of
 * nine samples), TFLOP/s or TB/s, and the share of the floor, which is the larger of FLOP / 989 TFLOP/s (dense bf16,
 * data sheet) and bytes / 4.25 TB/s (measured device-to-device copy, read and written). Ends with the sums over one
 * encode and one decode. Correctness is test-cuda-ops.c's business. */
#include "operands.h"

enum { SAMPLES = 9, MAP = 1024 * 1024 * 256 };

static FkBackend *be;
static const char *only = "";         /* part of the name of what is timed */
static uint16_t *a, *b, *c, *weights; /* device: three maps of MAP elements, weights */
static float *vectors;                /* device: 64 K values about 1 */
static double sum_us[2], sum_flop[2]; /* encode, decode */

static int by_value(const void *x, const void *y) {
  const double d = *(const double *)x - *(const double *)y;
  return d < 0 ? -1 : d > 0;
}

typedef struct {
  enum { CONV, GROUP_NORM, LAYER_NORM, LINEAR, ATTENTION, COPY, GATE } kind;
  union {
    FkConv conv;
    FkGroupNorm group_norm;
    FkLayerNorm layer_norm[2];
    FkLinear linear;
    FkAttention attention;
    struct {
      FkTensor y, x, gate;
    } move;
  } op;
} Job;

static void issue(const Job *j) {
  switch (j->kind) {
  case CONV: fk_op_conv(be, NULL, &j->op.conv); break;
  case GROUP_NORM: fk_op_group_norm(be, &j->op.group_norm); break;
  case LAYER_NORM: fk_op_layer_norm(be, NULL, j->op.layer_norm, 2); break;
  case LINEAR: fk_op_linear(be, NULL, &j->op.linear, 1); break;
  case ATTENTION: fk_op_attention(be, &j->op.attention); break;
  case COPY: fk_op_copy(be, j->op.move.y, j->op.move.x); break;
  case GATE: fk_op_gate_add(be, j->op.move.y, j->op.move.x, j->op.move.gate); break;
  }
}

/* enc, dec: how often the layer runs in an encode and in a decode. A sample is eight runs in a row. */
static void time_job(const char *name, const Job *j, double flop, double bytes, int enc, int dec) {
  double us[SAMPLES];
  if (!strstr(name, only)) return;
  enum { RUNS = 8 };
  for (int i = -1; i < SAMPLES; i++) {
    fk_op_event_record(be, 0);
    for (int r = 0; r < RUNS; r++) issue(j);
    fk_op_event_record(be, 1);
    fk_op_event_wait(be, 1);
    if (i >= 0) us[i] = be->ops->elapsed_ms(be, 0, 1) * 1e3 / RUNS;
  }
  if (!fk_backend_sync(be)) {
    printf("%-44s FAILED: %s\n", name, be->message);
    fk_backend_clear(be);
    return;
  }
  qsort(us, SAMPLES, sizeof *us, by_value);
  const double t = us[SAMPLES / 2], arithmetic = flop / 989e6, memory = bytes / 4.25e6;
  const double floor_us = arithmetic > memory ? arithmetic : memory;
  printf("%-44s %9.1f us %7.1f TFLOP/s %5.2f TB/s  floor %7.1f  share %4.0f %%\n", name, t, flop / t * 1e-6,
         bytes / t * 1e-6, floor_us, 100 * floor_us / t);
  sum_us[0] += enc * t, sum_us[1] += dec * t;
  sum_flop[0] += enc * flop, sum_flop[1] += dec * flop;
}

static FkTensor vec(int64_t n) {
  return fk_tensor_1d(vectors, FK_F32, n);
}
static FkTensor map(void *p, int64_t h, int64_t w, int64_t ch) {
  return fk_tensor_3d(p, FK_BF16, h, w, ch);
}

static void conv(int64_t size, int64_t in, int64_t out, int kernel, int stride, bool up, bool residual, int enc,
                 int dec) {
  const int64_t from = up ? size / 2 : size * stride, k = (int64_t)kernel * kernel * in;
  Job j = {.kind = CONV};
  j.op.conv = (FkConv){.x = map(a, from, from, in),
                       .y = map(b, size, size, out),
                       .bias = vec(out),
                       .residual = residual ? map(c, size, size, out) : fk_tensor_none(),
                       .w = {.data = weights, .dtype = FK_BF16, .out = out, .in = k},
                       .kernel = kernel,
                       .stride = stride,
                       .pad_before = stride == 2 || kernel == 1 ? 0 : 1,
                       .pad_after = kernel == 1 ? 0 : 1,
                       .upsample = up};
  const double pixels = (double)(size * size);
  const double bytes = 2 * ((double)(from * from * in) + pixels * (double)out * (residual ? 2 : 1) + (double)(out * k));
  char name[80];
  snprintf(name, sizeof name, "conv %dx%d /%d %ld: %ld -> %ld%s%s", kernel, kernel, stride, (long)size, (long)in,
           (long)out, up ? " doubled" : "", residual ? " residual" : "");
  time_job(name, &j, 2 * pixels * (double)(out * k), bytes, enc, dec);
}

/* Read twice (statistics, then values) and written once. */
static void group_norm(int64_t size, int64_t ch, bool silu, int enc, int dec) {
  Job j = {.kind = GROUP_NORM};
  j.op.group_norm = (FkGroupNorm){.x = map(a, size, size, ch),
                                  .y = map(b, size, size, ch),
                                  .weight = vec(ch),
                                  .bias = vec(ch),
                                  .groups = 32,
                                  .eps = 1e-6f,
                                  .silu = silu};
  char name[80];
  snprintf(name, sizeof name, "group_norm %ld x %ld%s", (long)size, (long)ch, silu ? " silu" : "");
  time_job(name, &j, 0, 6.0 * (double)(size * size * ch), enc, dec);
}

static void layer_norm(int64_t text, int64_t rows, int64_t d) {
  Job j = {.kind = LAYER_NORM};
  for (int g = 0; g < 2; g++) {
    const int64_t first = g ? text : 0, n = g ? rows - text : text;
    j.op.layer_norm[g] = (FkLayerNorm){.x = fk_tensor_2d(a + first * d, FK_BF16, n, d),
                                       .y = fk_tensor_2d(b + first * d, FK_BF16, n, d),
                                       .scale = vec(d),
                                       .shift = vec(d),
                                       .eps = 1e-6f};
  }
  char name[80];
  snprintf(name, sizeof name, "layer_norm %ld x %ld modulated, 2 groups", (long)rows, (long)d);
  time_job(name, &j, 0, 4.0 * (double)(rows * d), 0, 0);
}

static void moves(void) {
  Job j = {.kind = COPY};
  j.op.move.x = fk_tensor_2d(a, FK_BF16, 65536, 3072);
  j.op.move.y = fk_tensor_2d(b, FK_BF16, 65536, 3072);
  time_job("copy 65536 x 3072", &j, 0, 4.0 * 65536 * 3072, 0, 0);
  j.op.move.y = fk_tensor_slice_cols(fk_tensor_2d(b, FK_BF16, 4096, 21504), 0, 6144);
  j.op.move.x = fk_tensor_2d(a, FK_BF16, 4096, 6144);
  time_job("copy 4096 x 6144 into columns", &j, 0, 4.0 * 4096 * 6144, 0, 0);
  j.kind = GATE;
  j.op.move.x = fk_tensor_2d(a, FK_BF16, 8704, 3072);
  j.op.move.y = fk_tensor_2d(b, FK_BF16, 8704, 3072);
  j.op.move.gate = vec(3072);
  time_job("gate_add 8704 x 3072", &j, 0, 6.0 * 8704 * 3072, 0, 0);
}

static void middle(void) {
  const int64_t n = 16384, d = 512;
  Job j = {.kind = LINEAR};
  FkTensor x = fk_tensor_2d(a, FK_BF16, n, d), qkv = fk_tensor_2d(b, FK_BF16, n, 3 * d);
  j.op.linear =
      (FkLinear){.x = x, .y = qkv, .bias = vec(3 * d), .w = {.data = weights, .dtype = FK_BF16, .out = 3 * d, .in = d}};
  time_job("middle: q, k, v", &j, 2.0 * (double)(n * 3 * d * d), 2.0 * (double)(n * 4 * d), 1, 1);
  j = (Job){.kind = ATTENTION};
  j.op.attention = (FkAttention){.q = fk_tensor_slice_cols(qkv, 0, d),
                                 .k = fk_tensor_slice_cols(qkv, d, d),
                                 .v = fk_tensor_slice_cols(qkv, 2 * d, d),
                                 .o = fk_tensor_2d(c, FK_BF16, n, d),
                                 .heads = 1,
                                 .scale = 1 / sqrtf((float)d)};
  time_job("middle: attention 16384, head 512", &j, 4.0 * (double)(n * n * d), 2.0 * (double)(n * 4 * d), 1, 1);
  j = (Job){.kind = LINEAR};
  j.op.linear = (FkLinear){.x = fk_tensor_2d(c, FK_BF16, n, d),
                           .y = x,
                           .bias = vec(d),
                           .epilogue = FK_EPI_ADD,
                           .w = {.data = weights, .dtype = FK_BF16, .out = d, .in = d}};
  time_job("middle: out", &j, 2.0 * (double)(n * d * d), 2.0 * (double)(n * 3 * d), 1, 1);
}

/* Counts: resnets of two convolutions each, the second with the residual (spec 5.2, 5.3). */
static void autoencoder(void) {
  conv(1024, 3, 128, 3, 1, false, false, 1, 0);
  conv(1024, 128, 128, 3, 1, false, false, 2, 2);
  conv(1024, 128, 128, 3, 1, false, true, 2, 3);
  conv(512, 128, 128, 3, 2, false, false, 1, 0);
  conv(512, 128, 256, 3, 1, false, false, 1, 0);
  conv(512, 128, 256, 1, 1, false, false, 1, 0);
  conv(512, 256, 256, 3, 1, false, false, 1, 2);
  conv(512, 256, 256, 3, 1, false, true, 2, 3);
  conv(256, 256, 256, 3, 2, false, false, 1, 0);
  conv(256, 256, 512, 3, 1, false, false, 1, 0);
  conv(256, 256, 512, 1, 1, false, false, 1, 0);
  conv(256, 512, 512, 3, 1, false, false, 1, 3);
  conv(256, 512, 512, 3, 1, false, true, 2, 3);
  conv(128, 512, 512, 3, 2, false, false, 1, 0);
  conv(128, 512, 512, 3, 1, false, false, 4, 5);
  conv(128, 512, 512, 3, 1, false, true, 4, 5);
  conv(128, 512, 32, 3, 1, false, false, 1, 0);
  conv(128, 16, 512, 3, 1, false, false, 0, 1);
  conv(256, 512, 512, 3, 1, true, false, 0, 1);
  conv(512, 512, 512, 3, 1, true, false, 0, 1);
  conv(512, 512, 256, 3, 1, false, false, 0, 1);
  conv(512, 512, 256, 1, 1, false, false, 0, 1);
  conv(1024, 256, 256, 3, 1, true, false, 0, 1);
  conv(1024, 256, 128, 3, 1, false, false, 0, 1);
  conv(1024, 256, 128, 1, 1, false, false, 0, 1);
  conv(1024, 128, 3, 3, 1, false, false, 0, 1);
  group_norm(1024, 128, true, 4, 6);
  group_norm(1024, 256, true, 0, 1);
  group_norm(512, 128, true, 1, 0);
  group_norm(512, 256, true, 3, 5);
  group_norm(512, 512, true, 0, 1);
  group_norm(256, 256, true, 1, 0);
  group_norm(256, 512, true, 3, 6);
  group_norm(128, 512, true, 9, 10);
  group_norm(128, 512, false, 1, 1);
  middle();
}

/* Random values all over: the same half a million again and again. */
static void fill(void *to, size_t bytes, FkDtype dtype, double mean, double scale) {
  enum { N = 1 << 19 };
  void *host = malloc((size_t)N * 4);
  const size_t piece = (size_t)N * fk_dtype_size(dtype);
  for (size_t i = 0; i < N; i++) put(host, dtype, i, (float)(mean + scale * random_normal()));
  for (size_t at = 0; at < bytes; at += piece)
    be->ops->upload(be, (char *)to + at, host, bytes - at < piece ? bytes - at : piece);
  free(host);
}

/* An argument limits the run to the lines that contain it. */
int main(int argc, char **argv) {
  FkFailure failure;
  char message[256];
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc > 1) only = argv[1];
  be = fk_backend_open("cuda", 0, 0, &failure, message, sizeof message);
  if (!be) {
    printf("skipped: %s\n", message);
    return 77;
  }
  printf("%s\n", be->machine);
  uint16_t **maps[3] = {&a, &b, &c};
  for (int i = 0; i < 3; i++) {
    *maps[i] = be->ops->alloc(be, (size_t)MAP * 2);
    fill(*maps[i], (size_t)MAP * 2, FK_BF16, 0, 1);
  }
  weights = be->ops->alloc(be, (size_t)512 * 9 * 512 * 2);
  fill(weights, (size_t)512 * 9 * 512 * 2, FK_BF16, 0, 0.02);
  vectors = be->ops->alloc(be, 65536 * 4);
  fill(vectors, 65536 * 4, FK_F32, 1, 0.1);
  moves();
  layer_norm(512, 65536, 3072);
  layer_norm(512, 8704, 3072);
  layer_norm(512, 4608, 3072);
  autoencoder();
  printf("encode 1024: %.2f ms, %.2f TFLOP   decode 1024: %.2f ms, %.2f TFLOP\n", sum_us[0] / 1e3, sum_flop[0] / 1e12,
         sum_us[1] / 1e3, sum_flop[1] / 1e12);
  fk_backend_close(be);
  return 0;
}
