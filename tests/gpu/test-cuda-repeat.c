/* SPDX-License-Identifier: Apache-2.0 */
/* The same bytes every time: each kernel of the large model's shapes is run some hundred times on the same operands and
 * every result is compared with the first on the device. TAP.
 *
 * A race shows only under the right timing, so what lies between two runs changes: nothing, a pass that reads the
 * operands (they are then in L2 and copies arrive early), a pass that fills L2 with something else (copies arrive
 * late). Not here: whether the result is right (test-cuda-ops.c). */
#include "operands.h"

enum { D = 3072, WIDE = 7 * D, MLP = 4 * D, HEADS = 24, MOST_ROWS = 8704, RUNS = 240, MAP = 1024 * 1024 * 256 };

static FkBackend *be;
static uint16_t *weights, *input, *first, *work; /* bf16; `work` is what an op writes, `first` its first result */
static uint8_t *code_weights, *code_input;       /* E4M3 */
static float *vectors, *answers;                 /* answers: two numbers a run */
static uint16_t *other;                          /* half of it is copied onto the other half to fill L2 */

static FkTensor vec(int64_t n) {
  return fk_tensor_1d(vectors, FK_F32, n);
}

/* One kernel with its operands. It writes `out`, which is set to `before` ahead of each run where the op reads it. */
typedef struct {
  const char *name;
  enum { LINEAR, ATTENTION, CONV, GROUP_NORM, LAYER_NORM } kind;
  union {
    struct {
      FkLinear l[2];
      int groups;
    } linear;
    FkAttention attention;
    FkConv conv;
    FkGroupNorm group_norm;
    FkLayerNorm layer_norm[2];
  } op;
  FkTensor out, before, read; /* read: gone through between some of the runs */
} Job;

static bool enqueue(const Job *j) {
  switch (j->kind) {
  case LINEAR: return be->ops->linear_fused(be, j->op.linear.l, j->op.linear.groups);
  case ATTENTION:
    if (!be->ops->flash_attention(be, &j->op.attention)) be->ops->attention(be, &j->op.attention);
    return true;
  case CONV: return be->ops->conv_fused(be, &j->op.conv);
  case GROUP_NORM: return be->ops->group_norm_silu(be, &j->op.group_norm);
  case LAYER_NORM: be->ops->layer_norm(be, j->op.layer_norm, 2); return true;
  }
  return false;
}

static void between(const Job *j, int run) {
  if (run % 3 == 1) be->ops->check(be, j->read, j->name);
  if (run % 3 == 2)
    be->ops->copy(be, fk_tensor_1d(other, FK_BF16, MAP / 4), fk_tensor_1d(other + MAP / 2, FK_BF16, MAP / 4));
}

static void repeat(const Job *j, int runs) {
  const FkTensor flat = fk_tensor_flat(j->out);
  const FkTensor kept = fk_tensor_2d(first, j->out.dtype, flat.dim[0], flat.dim[1]);
  bool ok = true;
  for (int i = 0; ok && i < runs; i++) {
    if (fk_tensor_given(j->before)) be->ops->copy(be, flat, fk_tensor_flat(j->before));
    between(j, i);
    ok = enqueue(j);
    if (i == 0) be->ops->copy(be, kept, flat);
    be->ops->distance(be, fk_tensor_1d(answers + 2 * i, FK_F32, 2), flat, kept);
  }
  float got[2 * RUNS];
  char detail[400];
  int different = 0;
  be->ops->download(be, got, answers, sizeof(float) * 2 * (size_t)runs);
  for (int i = 0; i < runs; i++) different += got[2 * i] != 0; /* NaN counts too */
  snprintf(detail, sizeof detail, "%d of %d runs differ, mean |first| %.3g %s", different, runs, got[1],
           ok ? be->message : "declined");
  ok = ok && fk_backend_sync(be) && !different && got[1] > 0;
  fk_backend_clear(be);
  report(ok, j->name, detail);
}

static FkWeight weight(int64_t out, int64_t in) {
  return (FkWeight){.data = weights, .dtype = FK_BF16, .out = out, .in = in};
}

/* Scales are vectors as others are. */
static void take_codes(FkLinear *l, int64_t from, int64_t rows) {
  const FkTensor all = fk_tensor_2d(code_input, FK_E4M3, from + rows, l->w.in);
  l->x = fk_tensor_slice_rows(all, from, rows);
  l->x_scale = vec(rows);
  l->w.data = code_weights;
  l->w.dtype = FK_E4M3;
  l->w.scale = (FkScale){.data = vectors, .dtype = FK_F32, .kind = FK_SCALE_ROW};
}

/* Text and image rows of a double block in one launch; text 0: one group. codes: E4M3 operands. */
static void linear(const char *what, bool codes, int64_t text, int64_t rows, int64_t n, int64_t k, FkEpilogue epilogue,
                   FkAct act) {
  char name[96];
  const FkTensor x = fk_tensor_2d(input, FK_BF16, text + rows, k), y = fk_tensor_2d(work, FK_BF16, text + rows, n);
  Job j = {.name = name, .kind = LINEAR, .out = y, .read = x};
  if (codes) j.read = fk_tensor_2d(code_input, FK_BF16, text + rows, k / 2); /* the same bytes */
  j.op.linear.groups = text ? 2 : 1;
  for (int g = 0; g < j.op.linear.groups; g++) {
    const int64_t from = g ? text : 0, count = text && !g ? text : rows;
    j.op.linear.l[g] = (FkLinear){.x = fk_tensor_slice_rows(x, from, count),
                                  .y = fk_tensor_slice_rows(y, from, count),
                                  .bias = vec(n),
                                  .gate = vec(n),
                                  .w = weight(n, k),
                                  .epilogue = epilogue,
                                  .act = act,
                                  .q_norm = vec(128),
                                  .k_norm = vec(128),
                                  .rope = fk_tensor_2d(vectors, FK_F32, count, 128),
                                  .width = D};
    if (codes) take_codes(&j.op.linear.l[g], from, count);
  }
  if (epilogue == FK_EPI_GATE) j.before = fk_tensor_2d(input, FK_BF16, text + rows, n);
  snprintf(name, sizeof name, "linear %s%s %ld x %ld x %ld", codes ? "codes " : "", what, (long)(text + rows), (long)n,
           (long)k);
  repeat(&j, RUNS);
}

/* Room for what becomes codes, which the caller frees. */
static void *take_room(FkAttention *a, int64_t rows) {
  const int64_t tiles = (rows + 127) / 128, padded = 128 * tiles;
  uint8_t *room = be->ops->alloc(be, (size_t)(2 * padded * D + 4 * (2 * tiles * HEADS + D)));
  if (!room) abort();
  float *scales = (float *)(room + 2 * padded * D);
  a->v_codes = fk_tensor_2d(room, FK_E4M3, padded, D);
  a->k_codes = fk_tensor_2d(room + padded * D, FK_I8, rows, D);
  a->k_scale = fk_tensor_2d(scales, FK_F32, tiles, HEADS);
  a->v_scale = fk_tensor_2d(scales + tiles * HEADS, FK_F32, (rows + 1023) / 1024, HEADS);
  a->v_mean = fk_tensor_1d(scales + 2 * tiles * HEADS, FK_F32, D);
  return room;
}

/* Keys, values and queries are columns of one matrix and the result replaces the queries, as in a single block. codes:
 * they become codes. */
static void attention(int64_t rows, bool codes) {
  char name[96];
  const FkTensor all = fk_tensor_2d(work, FK_BF16, rows, WIDE), q = fk_tensor_slice_cols(all, 2 * D, D);
  Job j = {.name = name, .kind = ATTENTION, .out = q, .before = fk_tensor_2d(input, FK_BF16, rows, D), .read = all};
  j.op.attention = (FkAttention){.k = fk_tensor_slice_cols(all, 0, D),
                                 .v = fk_tensor_slice_cols(all, D, D),
                                 .q = q,
                                 .o = q,
                                 .heads = HEADS,
                                 .scale = 0.0883883f};
  void *room = codes ? take_room(&j.op.attention, rows) : NULL;
  be->ops->copy(be, all, fk_tensor_2d(input, FK_BF16, rows, WIDE));
  snprintf(name, sizeof name, "attention %ld, 24 heads of 128, in place%s", (long)rows, codes ? ", codes" : "");
  repeat(&j, RUNS);
  if (room) be->ops->release(be, room);
}

/* The autoencoder's one head of 512. */
static void attention_wide(int64_t rows, int64_t width) {
  char name[96];
  const FkTensor all = fk_tensor_2d(input, FK_BF16, rows, 3 * width);
  Job j = {.name = name, .kind = ATTENTION, .out = fk_tensor_2d(work, FK_BF16, rows, width), .read = all};
  j.op.attention = (FkAttention){.q = fk_tensor_slice_cols(all, 0, width),
                                 .k = fk_tensor_slice_cols(all, width, width),
                                 .v = fk_tensor_slice_cols(all, 2 * width, width),
                                 .o = j.out,
                                 .heads = 1,
                                 .scale = 0.0441942f};
  snprintf(name, sizeof name, "attention %ld, one head of %ld", (long)rows, (long)width);
  repeat(&j, RUNS / 2);
}

static void conv(int64_t side_in, int64_t from, int64_t to, int stride, bool upsample, bool residual) {
  char name[96];
  const int64_t side_out = (upsample ? 2 * side_in : side_in) / stride;
  const FkTensor x = fk_tensor_3d(input, FK_BF16, side_in, side_in, from);
  Job j = {.name = name, .kind = CONV, .out = fk_tensor_3d(work, FK_BF16, side_out, side_out, to), .read = x};
  j.op.conv = (FkConv){.x = x,
                       .y = j.out,
                       .bias = vec(to),
                       .residual = residual ? fk_tensor_3d(input, FK_BF16, side_out, side_out, to) : fk_tensor_none(),
                       .w = weight(to, 9 * from),
                       .kernel = 3,
                       .stride = stride,
                       .pad_before = stride == 1,
                       .pad_after = 1,
                       .upsample = upsample};
  snprintf(name, sizeof name, "conv 3x3 of %ld x %ld, %ld -> %ld, stride %d%s%s", (long)side_in, (long)side_in,
           (long)from, (long)to, stride, upsample ? ", doubled" : "", residual ? ", residual" : "");
  repeat(&j, RUNS / 2);
}

static void norms(void) {
  const FkTensor x = fk_tensor_3d(input, FK_BF16, 512, 512, 256);
  Job g = {.name = "group_norm + SiLU 512 x 512 x 256", .kind = GROUP_NORM, .read = x};
  g.out = fk_tensor_3d(work, FK_BF16, 512, 512, 256);
  g.op.group_norm =
      (FkGroupNorm){.x = x, .y = g.out, .weight = vec(256), .bias = vec(256), .groups = 32, .eps = 1e-6f, .silu = true};
  repeat(&g, RUNS);
  const FkTensor rows = fk_tensor_2d(input, FK_BF16, MOST_ROWS, D);
  Job n = {.name = "layer_norm 8704 x 3072, two groups", .kind = LAYER_NORM, .read = rows};
  n.out = fk_tensor_2d(work, FK_BF16, MOST_ROWS, D);
  for (int i = 0; i < 2; i++)
    n.op.layer_norm[i] = (FkLayerNorm){.x = fk_tensor_slice_rows(rows, i ? 512 : 0, i ? MOST_ROWS - 512 : 512),
                                       .y = fk_tensor_slice_rows(n.out, i ? 512 : 0, i ? MOST_ROWS - 512 : 512),
                                       .scale = vec(D),
                                       .shift = vec(D),
                                       .eps = 1e-6f};
  repeat(&n, RUNS);
}

/* `elements` values of N(mean, scale), the same half a million again and again; an odd period keeps rows different. */
static void *filled(size_t elements, FkDtype dtype, double mean, double scale) {
  enum { PERIOD = (1 << 19) - 1 };
  const size_t size = fk_dtype_size(dtype);
  char *to = be->ops->alloc(be, elements * size), *host = malloc((size_t)PERIOD * size);
  if (!to || !host) abort();
  for (size_t i = 0; i < PERIOD; i++) put(host, dtype, i, (float)(mean + scale * random_normal()));
  for (size_t at = 0; at < elements; at += PERIOD)
    be->ops->upload(be, to + at * size, host, (elements - at < PERIOD ? elements - at : PERIOD) * size);
  free(host);
  return to;
}

static void linear_layers(bool codes, int64_t text, int64_t image) {
  linear("qkv", codes, text, image, 3 * D, D, FK_EPI_QKV, FK_ACT_NONE);
  linear("attention out", codes, text, image, D, D, FK_EPI_GATE, FK_ACT_NONE);
  linear("feed-forward up", codes, text, image, MLP, D, FK_EPI_ACT, FK_ACT_GELU_TANH);
  linear("feed-forward down", codes, text, image, D, MLP, FK_EPI_GATE, FK_ACT_NONE);
  linear("single block in", codes, 0, text + image, WIDE, D, FK_EPI_QKV, FK_ACT_NONE);
  linear("single block out", codes, 0, text + image, D, 5 * D, FK_EPI_GATE, FK_ACT_NONE);
}

static void large_model(int64_t text, int64_t image) {
  linear_layers(false, text, image);
  if (be->can & FK_CAN_FP8) linear_layers(true, text, image);
  attention(text + image, false);
  if (be->can & FK_CAN_QUANT_ATTENTION) attention(text + image, true);
}

int main(void) {
  FkFailure failure;
  char message[256];
  setvbuf(stdout, NULL, _IOLBF, 0);
  be = fk_backend_open("cuda", device_asked(), 0, &failure, message, sizeof message);
  if (!be) {
    printf("1..0 # SKIP %s\n", message);
    return 0;
  }
  printf("# %s\n", be->machine);
  input = filled(MAP, FK_BF16, 0, 1);
  work = filled(MAP, FK_BF16, 0, 1);
  first = filled(MAP, FK_BF16, 0, 1);
  other = filled(MAP, FK_BF16, 0, 1);
  weights = filled((size_t)WIDE * D, FK_BF16, 0, 0.02);
  code_weights = filled((size_t)WIDE * D, FK_E4M3, 0, 100);
  code_input = filled((size_t)MOST_ROWS * 5 * D, FK_E4M3, 0, 100);
  vectors = filled((size_t)MOST_ROWS * 128, FK_F32, 0.5, 0.5);
  answers = filled(2 * RUNS, FK_F32, 0, 1);
  large_model(512, 8192);
  large_model(512, 4096);
  large_model(512, 2048);
  linear("of T5", false, 0, 512, 10240, 4096, FK_EPI_ACT, FK_ACT_GELU_TANH);
  attention(1613, false); /* ragged */
  if (be->can & FK_CAN_QUANT_ATTENTION) attention(1613, true);
  attention_wide(16384, 512);
  attention_wide(4096, 512);
  conv(1024, 128, 128, 1, false, true);
  conv(512, 256, 256, 2, false, false);
  conv(256, 512, 512, 1, true, false);
  conv(1024, 3, 128, 1, false, false);
  conv(1024, 128, 3, 1, false, false);
  norms();
  void *all[] = {input, work, first, other, weights, code_weights, code_input, vectors, answers};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) be->ops->release(be, all[i]);
  printf("1..%d\n", tests);
  fk_backend_close(be);
  return failures != 0;
}
