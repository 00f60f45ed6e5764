/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA ops that compute: linear, attention, norms, quantisation, convolution, each against the CPU backend on
 * random data (TAP), or with --time their microseconds. Cases of both: cuda-cases.h. Measure and tolerances:
 * operands.h. The ops that move or combine elements: test-cuda-moves.c.
 *
 *   test-cuda-ops [--time] [WORD]    the cases whose name contains WORD, e.g. linear, codes, attention, norm, conv
 *
 * --time: median of nine samples of eight runs in a row, TFLOP/s, TB/s, and the share of the floor, which is the larger
 * of FLOP / 989 TFLOP/s (dense bf16, data sheet; 1979 for products of codes) and bytes / 4.25 TB/s (measured
 * device-to-device copy, read and written). Ends with the sums over one encode and one decode of the autoencoder at
 * 1024 x 1024. */
#include "cuda-cases.h"
#include "operands.h"

static const char *only = ""; /* part of the name of what runs */
static bool timing;
static double sum_us[2], sum_flop[2]; /* encode, decode */

/* ---- one op ----------------------------------------------------------------------------------------------------- */

/* An op with its operands on each side. */
typedef struct {
  enum { LINEAR, ATTENTION, LAYER_NORM, RMS_NORM, GROUP_NORM, CONV, COPY, GATE_ADD, QUANTIZE } kind;
  int groups;
  union {
    FkLinear linear[2];
    FkAttention attention;
    FkLayerNorm layer_norm[2];
    FkGroupNorm group_norm;
    FkConv conv;
    struct {
      FkTensor y, x, vector; /* weight of RMS norm, gate, scales */
    } rows;
  } on[SIDES];
  char name[160];
  uint32_t off;       /* FK_CAN_*: not used on the GPU */
  size_t scratch;     /* bytes that compositions may need */
  bool codes;         /* the product is one of codes */
  Coded coded;        /* attention's operands */
  float given;        /* scale of quantize; 0: measured */
  double flop, bytes; /* bytes: operands read and written once, group norm's input twice */
  int encode, decode; /* how often the autoencoder runs it */
} Job;

static void issue(const Job *j, int s, FkArena *arena) {
  FkBackend *be = side[s];
  switch (j->kind) {
  case LINEAR: fk_op_linear(be, arena, j->on[s].linear, j->groups); break;
  case ATTENTION:
    if (j->coded == OF_CODES)
      fk_op_attention_quantized(be, arena, &j->on[s].attention);
    else if (j->coded == OF_VALUE_CODES)
      fk_op_attention_value_codes(be, arena, &j->on[s].attention);
    else
      fk_op_attention(be, &j->on[s].attention);
    break;
  case LAYER_NORM: fk_op_layer_norm(be, arena, j->on[s].layer_norm, j->groups); break;
  case RMS_NORM: fk_op_rms_norm(be, j->on[s].rows.y, j->on[s].rows.x, j->on[s].rows.vector, 1e-6f); break;
  case GROUP_NORM: fk_op_group_norm(be, &j->on[s].group_norm); break;
  case CONV: fk_op_conv(be, arena, &j->on[s].conv); break;
  case COPY: fk_op_copy(be, j->on[s].rows.y, j->on[s].rows.x); break;
  case GATE_ADD: fk_op_gate_add(be, j->on[s].rows.y, j->on[s].rows.x, j->on[s].rows.vector); break;
  case QUANTIZE: fk_op_quantize_given(be, j->on[s].rows.y, j->on[s].rows.vector, j->on[s].rows.x, j->given); break;
  }
}

static int by_value(const void *x, const void *y) {
  const double d = *(const double *)x - *(const double *)y;
  return d < 0 ? -1 : d > 0;
}

static void time_job(const Job *j, FkArena *arena) {
  enum { SAMPLES = 9, RUNS = 8 };
  FkBackend *be = side[GPU];
  double us[SAMPLES];
  for (int i = -1; i < SAMPLES; i++) {
    fk_op_event_record(be, 0);
    for (int r = 0; r < RUNS; r++) issue(j, GPU, arena);
    fk_op_event_record(be, 1);
    fk_op_event_wait(be, 1);
    if (i >= 0) us[i] = be->ops->elapsed_ms(be, 0, 1) * 1e3 / RUNS;
  }
  if (!fk_backend_sync(be)) {
    printf("%-56s FAILED: %s\n", j->name, be->message);
    failures++;
    fk_backend_clear(be);
    return;
  }
  qsort(us, SAMPLES, sizeof *us, by_value);
  const double t = us[SAMPLES / 2],
               arithmetic = j->flop / (j->codes || j->coded == OF_CODES ? 1979e6
                                       : j->coded == OF_VALUE_CODES     ? 1319e6
                                                                        : 989e6),
               memory = j->bytes / 4.25e6;
  const double floor_us = arithmetic > memory ? arithmetic : memory;
  printf("%-56s %9.1f us %7.1f TFLOP/s %5.2f TB/s  floor %7.1f  share %4.0f %%\n", j->name, t, j->flop / t * 1e-6,
         j->bytes / t * 1e-6, floor_us, 100 * floor_us / t);
  sum_us[0] += j->encode * t, sum_us[1] += j->decode * t;
  sum_flop[0] += j->encode * j->flop, sum_flop[1] += j->decode * j->flop;
}

/* Runs it on both sides and compares the outputs, or times it. Frees all operands. */
static void run(const Job *j, int outputs, const Pair *out) {
  FkArena arena[SIDES] = {0};
  EACH_SIDE if (j->scratch) fk_arena_open(&arena[s], side[s], j->scratch);
  side[GPU]->use &= ~j->off;
  if (timing)
    time_job(j, &arena[GPU]);
  else
    EACH_SIDE issue(j, s, &arena[s]);
  side[GPU]->use = side[GPU]->can;
  if (timing)
    release_operands();
  else
    same(j->name, outputs, out);
  EACH_SIDE if (j->scratch) fk_arena_close(&arena[s]);
}

/* False: the case is left out. `format` gives its name. */
static bool wanted(Job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool wanted(Job *j, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(j->name, sizeof j->name, format, args);
  va_end(args);
  return strstr(j->name, only) != NULL;
}

static double size_of(Pair p) {
  return (double)fk_tensor_bytes(p.t[GPU]);
}

/* ---- linear ----------------------------------------------------------------------------------------------------- */

/* x and weights of one group: numbers, or codes as quantised normal numbers have them, and scales that bring both to
 * the size of the numbers. The scales of x begin at no multiple of 16 bytes. */
static void linear_operands(const LinearCase *c, FkLinear *l[SIDES], int64_t m, double *bytes) {
  const FkDtype dtype = c->codes ? FK_E4M3 : FK_BF16;
  const bool x_codes = c->codes && !c->numbers;
  const double by = 1 / sqrt((double)c->k);
  const Pair x = row_operand(x_codes ? FK_E4M3 : FK_BF16, m, c->k, c->ldx, NORMAL, 0, x_codes ? 100 : 1);
  const Pair w = matrix(dtype, c->n, c->k, 0, c->codes ? 100 : by);
  *bytes += size_of(x) + size_of(w);
  EACH_SIDE l[s]->x = x.t[s], l[s]->w = weight_of(w, s);
  if (!c->codes) return;
  const int64_t skip = x.sample ? 0 : 1;
  const Pair sx = row_scales(m + skip, NORMAL, 0.01);
  const Pair sw = vector(c->codes == FK_SCALE_ROW ? c->n : 1, 0.01 * by, 0.001 * by);
  EACH_SIDE {
    if (x_codes) l[s]->x_scale = fk_tensor_slice(as_vector(sx.t[s]), skip, fk_tensor_rows(x.t[s]));
    l[s]->w.scale = (FkScale){.data = sw.t[s].data, .dtype = FK_F32, .kind = c->codes};
  }
}

static void linear_case(const LinearCase *c, bool fused) {
  const int groups = c->m[1] ? 2 : 1;
  const bool adds = c->epilogue == FK_EPI_GATE || c->epilogue == FK_EPI_ADD;
  const int64_t rows = c->m[0] + c->m[1];
  Job j = {.kind = LINEAR, .groups = groups, .encode = c->encode, .decode = c->decode};
  Pair y[2];
  if (!wanted(&j, "linear %s%s %ldx%ldx%ld", c->name, fused ? "" : " composed", (long)rows, (long)c->n, (long)c->k))
    return;
  j.off = fused ? 0 : FK_CAN_FUSED_LINEAR;
  j.codes = c->codes && !c->numbers;
  if (j.codes && !(side[GPU]->can & FK_CAN_FP8)) return;
  if (!c->sample) j.scratch = (size_t)(rows + 64) * (size_t)(c->n + 64) * 4;
  j.flop = 2.0 * (double)rows * (double)c->n * (double)c->k;
  sample_rows = timing ? 0 : c->sample;
  for (int g = 0; g < groups; g++) {
    Pair bias = vector(c->n, 0, 0.5), gate = vector(c->n, 0, 1), q = nothing(), k = nothing(), rope = nothing();
    y[g] = row_operand(c->y, c->m[g], c->n, c->ldy, adds ? NORMAL : OUTPUT, 0, 1);
    if (c->epilogue == FK_EPI_QKV) {
      q = vector(c->head, 1, 0.2), k = vector(c->head, 1, 0.2);
      rope = row_operand(FK_F32, c->m[g], c->head, 0, NORMAL, 0, 0.7);
    }
    j.bytes += size_of(y[g]) * (adds ? 2 : 1);
    EACH_SIDE j.on[s].linear[g] = (FkLinear){.y = y[g].t[s],
                                             .bias = bias.t[s],
                                             .gate = c->epilogue == FK_EPI_GATE ? gate.t[s] : fk_tensor_none(),
                                             .epilogue = c->epilogue,
                                             .act = c->act,
                                             .q_norm = q.t[s],
                                             .k_norm = k.t[s],
                                             .rope = rope.t[s],
                                             .width = c->width};
    linear_operands(c, (FkLinear *[SIDES]){&j.on[CPU].linear[g], &j.on[GPU].linear[g]}, c->m[g], &j.bytes);
  }
  run(&j, groups, y);
}

/* Rows of x together and in parts: the same bytes. */
static void weight_codes_alone(void) {
  enum { ROWS = 28, N = 1552, K = 1232 };
  static const int parts[] = {1, 7, 20};
  const char *name = "linear weight codes, rows alone and together";
  if (timing || !strstr(name, only)) return;
  FkBackend *be = side[GPU];
  const Pair x = matrix(FK_BF16, ROWS, K, 0, 1), w = matrix(FK_E4M3, N, K, 0, 100), scale = vector(N, 1e-4, 1e-5);
  const Pair y[2] = {matrix_out(FK_F32, ROWS, N, 0), matrix_out(FK_F32, ROWS, N, 0)};
  FkLinear l = {.x = x.t[GPU], .y = y[0].t[GPU], .w = weight_of(w, GPU)};
  l.w.scale = (FkScale){.data = scale.t[GPU].data, .dtype = FK_F32, .kind = FK_SCALE_ROW};
  fk_op_linear(be, NULL, &l, 1);
  for (int i = 0, at = 0; i < 3; at += parts[i++]) {
    l.x = fk_tensor_slice_rows(x.t[GPU], at, parts[i]);
    l.y = fk_tensor_slice_rows(y[1].t[GPU], at, parts[i]);
    fk_op_linear(be, NULL, &l, 1);
  }
  void *together = fetch(y[0], GPU), *apart = fetch(y[1], GPU);
  const bool equal = !memcmp(together, apart, fk_tensor_bytes(y[0].t[GPU]));
  report(fk_backend_sync(be) && equal, name, equal ? be->message : "different bytes");
  fk_backend_clear(be);
  free(together);
  free(apart);
  release_operands();
}

static void all_linear(void) {
  weight_codes_alone();
  for (size_t i = 0; i < sizeof linear_cases / sizeof *linear_cases; i++) {
    const LinearCase *c = &linear_cases[i];
    const bool plain = c->epilogue == FK_EPI_ACT && c->act == FK_ACT_NONE;
    if (!timing || c->timed) linear_case(c, true);
    if (!timing && !plain && !c->sample) linear_case(c, false);
  }
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

static void attention_case(const AttentionCase *c) {
  const int64_t d = c->heads * c->width, ld = c->packed ? 3 * d + 64 : 0;
  Job j = {.kind = ATTENTION, .off = c->general ? FK_CAN_FLASH : 0, .encode = c->encode, .decode = c->decode};
  static const uint32_t needs[] = {0, FK_CAN_VALUE_CODES, FK_CAN_QUANT_ATTENTION};
  static const char *const of[] = {"", ", codes of v", ", codes"};
  char sharp[32] = "", mean[32] = "";
  j.coded = c->coded;
  if (c->coded) j.scratch = 2 * (size_t)(c->sk + 128) * (size_t)(d + 4 * c->heads) + 4096;
  if (needs[c->coded] & ~side[GPU]->can) return;
  if (c->sharp > 0) snprintf(sharp, sizeof sharp, ", scores x %g", c->sharp);
  if (c->mean > 0) snprintf(mean, sizeof mean, ", mean of v %g", c->mean);
  if (!wanted(&j, "attention %ldx%ld, %ld heads of %ld%s%s%s%s%s%s%s", (long)c->sq, (long)c->sk, (long)c->heads,
              (long)c->width, c->causal ? ", causal" : "", c->bias ? ", bias" : "", c->packed ? ", in place" : "",
              c->general ? ", general" : "", of[c->coded], sharp, mean))
    return;
  sample_rows = timing ? 0 : c->sample;
  j.flop = 4.0 * (double)c->sq * (double)c->sk * (double)d;
  j.bytes = 4.0 * (double)((c->sq + c->sk) * d);
  Pair k = matrix(FK_BF16, c->sk, c->packed ? 3 * d : d, ld, 1), v = k, q = k, o = k;
  if (!c->packed) {
    v = operand(FK_BF16, 2, (int64_t[]){c->sk, d}, 0, NORMAL, c->mean, 1),
    q = row_operand(FK_BF16, c->sq, d, 0, NORMAL, 0, 1);
    o = row_operand(FK_BF16, c->sq, d, 0, OUTPUT, 0, 0);
  }
  Pair bias = c->bias ? matrix(FK_F32, c->heads, c->sq + c->sk - 1, 0, 2) : nothing();
  EACH_SIDE {
    FkAttention *a = &j.on[s].attention;
    *a = (FkAttention){.k = k.t[s],
                       .v = v.t[s],
                       .q = q.t[s],
                       .o = o.t[s],
                       .bias = bias.t[s],
                       .heads = c->heads,
                       .scale = (float)((c->sharp > 0 ? c->sharp : 1) / sqrt((double)c->width)),
                       .causal = c->causal};
    if (!c->packed) continue;
    a->k = fk_tensor_slice_cols(k.t[s], 0, d);
    a->v = fk_tensor_slice_cols(k.t[s], d, d);
    /* k and v lie in the same memory: only the result's columns are compared. */
    o.t[s] = a->q = a->o = fk_tensor_slice_cols(fk_tensor_slice_rows(k.t[s], 0, c->sq), 2 * d, d);
  }
  o.part = c->packed;
  o.sums = c->coded == OF_CODES && c->mean > 0;
  o.cut = c->coded == OF_CODES && c->mean == 0 && c->sk > 512;
  run(&j, 1, &o);
}

static void all_attention(void) {
  for (size_t i = 0; i < sizeof attention_cases / sizeof *attention_cases; i++)
    if (!timing || attention_cases[i].timed) attention_case(&attention_cases[i]);
}

/* ---- norms ------------------------------------------------------------------------------------------------------ */

static void layer_norm_case(const LayerNormCase *c) {
  Job j = {.kind = LAYER_NORM, .groups = c->rows[1] ? 2 : 1};
  Pair out[4]; /* results, then scales */
  if (!wanted(&j, "layer_norm %ld+%ld rows of %ld %s%s%s%s", (long)c->rows[0], (long)c->rows[1], (long)c->cols,
              c->modulated ? "modulated" : "weighted", c->dtype == FK_F32 ? ", float" : "", c->codes ? ", codes" : "",
              c->given > 0 ? ", scale given" : ""))
    return;
  if (c->given > 0 && !(side[GPU]->can & FK_CAN_GIVEN_SCALE)) return;
  sample_rows = timing ? 0 : c->sample;
  if (c->codes) j.scratch = (size_t)(c->rows[0] + c->rows[1]) * (size_t)c->cols * 4 + 4096;
  for (int g = 0; g < j.groups; g++) {
    Pair x = row_operand(c->dtype, c->rows[g], c->cols, c->ld, NORMAL, 3, 2);
    Pair a = vector(c->cols, c->modulated ? 0 : 1, 0.3), b = vector(c->cols, 0, 0.3);
    Pair y = row_operand(c->codes ? FK_E4M3 : c->dtype, c->rows[g], c->cols, c->ld, OUTPUT, 0, 0);
    Pair scale = c->codes ? row_scales(c->rows[g], OUTPUT, 0) : nothing();
    y.measure = c->codes ? CODES : VALUES;
    out[g] = y, out[j.groups + g] = scale;
    j.bytes += size_of(x) + size_of(y);
    EACH_SIDE {
      FkLayerNorm *n = &j.on[s].layer_norm[g];
      *n = c->modulated ? (FkLayerNorm){.x = x.t[s], .y = y.t[s], .scale = a.t[s], .shift = b.t[s], .eps = 1e-6f}
                        : (FkLayerNorm){.x = x.t[s], .y = y.t[s], .weight = a.t[s], .bias = b.t[s], .eps = 1e-5f};
      if (c->codes) n->y_scale = as_vector(scale.t[s]), n->given = c->given;
    }
  }
  run(&j, j.groups * (c->codes ? 2 : 1), out);
}

static void rms_norm_case(const RmsNormCase *c) {
  Job j = {.kind = RMS_NORM};
  if (!wanted(&j, "rms_norm %ld rows of %ld x %ld", (long)c->rows, (long)c->heads, (long)c->width)) return;
  Pair x = matrix(c->dtype, c->rows, c->heads * c->width, c->ld, 2), w = vector(c->width, 1, 0.3);
  Pair y = matrix_out(c->dtype, c->rows, c->heads * c->width, 0);
  EACH_SIDE j.on[s].rows.y = y.t[s], j.on[s].rows.x = x.t[s], j.on[s].rows.vector = w.t[s];
  run(&j, 1, &y);
}

/* On the case's own map, or timed on a square one. */
static void group_norm_case(const GroupNormCase *c, const Timed *at) {
  const int64_t h = at ? at->side : c->h, w = at ? at->side : c->w;
  const bool in_place = c->in_place && !at;
  Job j = {.kind = GROUP_NORM, .off = c->composed ? FK_CAN_FUSED_GROUP_NORM : 0};
  if (at) j.encode = at->encode, j.decode = at->decode;
  if (!wanted(&j, "group_norm %ldx%ldx%ld%s%s%s mean %g", (long)h, (long)w, (long)c->channels, c->plain ? "" : " silu",
              in_place ? " in place" : "", c->composed ? " composed" : "", c->mean))
    return;
  Pair x = image(c->dtype, h, w, c->channels, c->mean, 1.5), a = vector(c->channels, 1, 0.3);
  Pair b = vector(c->channels, 0, 0.3), y = in_place ? x : image_out(c->dtype, h, w, c->channels);
  j.bytes = 2 * size_of(x) + size_of(y);
  EACH_SIDE j.on[s].group_norm = (FkGroupNorm){
      .x = x.t[s], .y = y.t[s], .weight = a.t[s], .bias = b.t[s], .groups = 32, .eps = 1e-6f, .silu = !c->plain};
  run(&j, 1, &y);
}

static void all_norms(void) {
  for (size_t i = 0; i < sizeof layer_norm_cases / sizeof *layer_norm_cases; i++)
    if (!timing || layer_norm_cases[i].timed) layer_norm_case(&layer_norm_cases[i]);
  for (size_t i = 0; !timing && i < sizeof rms_norm_cases / sizeof *rms_norm_cases; i++)
    rms_norm_case(&rms_norm_cases[i]);
  for (size_t i = 0; i < sizeof group_norm_cases / sizeof *group_norm_cases; i++) {
    const GroupNormCase *c = &group_norm_cases[i];
    if (!timing) group_norm_case(c, NULL);
    for (int k = 0; timing && k < TIMED && c->timed[k].side; k++) group_norm_case(c, &c->timed[k]);
  }
}

/* ---- quantisation ------------------------------------------------------------------------------------------------ */

/* Rows with what is rare: zeros of both signs; below 2^-100; 2^-100 itself; NaN; infinity; one value; ties. */
static void set_rare_rows(Pair x, int64_t cols) {
  for (int64_t c = 0; c < cols; c++) {
    const float sign = c % 3 == 1 ? -1 : 1;
    set_element(x, 0, c, sign * 0.0f);
    set_element(x, 1, c, sign * 0x1.8p-101f);
    set_element(x, 2, c, sign * (c % 2 ? 0x1p-100f : 0x1p-103f));
    set_element(x, 5, c, c == cols - 1 ? -3 : 0);
    set_element(x, 6, c, c == 0 ? 448 : sign * (1 + (float)(c % 128) / 128));
  }
  set_element(x, 3, cols / 2, NAN);
  set_element(x, 4, cols - 1, -INFINITY);
}

/* What a scale has cut off since `before` is counted alike. */
static void same_saturated(const char *name, const int64_t *before) {
  const int64_t cpu = side[CPU]->count.saturated - before[CPU], gpu = side[GPU]->count.saturated - before[GPU];
  char detail[64], title[200];
  snprintf(title, sizeof title, "%s, saturated", name);
  snprintf(detail, sizeof detail, "%ld, on the CPU %ld", (long)gpu, (long)cpu);
  report(cpu == gpu, title, detail);
}

static void quantize_case(const QuantizeCase *c) {
  Job j = {.kind = QUANTIZE};
  char groups[48] = "";
  if (c->width) snprintf(groups, sizeof groups, ", groups of %ldx%ld", (long)c->height, (long)c->width);
  const int64_t before[SIDES] = {side[CPU]->count.saturated, side[GPU]->count.saturated};
  if (!wanted(&j, "quantize %ldx%ld%s to %s%s%s", (long)c->rows, (long)c->cols, c->x == FK_F32 ? ", float," : "",
              c->codes == FK_I8 ? "int8" : "codes", groups, c->given > 0 ? ", scale given" : ""))
    return;
  if (c->given > 0 && !(side[GPU]->can & FK_CAN_GIVEN_SCALE)) return;
  j.given = c->given;
  sample_rows = timing ? 0 : c->sample;
  Pair x = row_operand(c->x, c->rows, c->cols, c->ldx, NORMAL, 0, 2);
  Pair y = row_operand(c->codes, c->rows, c->cols, c->ldy, OUTPUT, 0, 0), scale;
  if (c->width)
    scale = matrix_out(FK_F32, (c->rows + c->height - 1) / c->height, c->cols / c->width, 0);
  else
    scale = row_scales(c->rows, OUTPUT, 0);
  if (c->rows >= 9 && c->cols <= 640 && !timing) set_rare_rows(x, c->cols);
  y.measure = scale.measure = BITS;
  j.bytes = size_of(x) + size_of(y);
  EACH_SIDE {
    j.on[s].rows.y = y.t[s], j.on[s].rows.x = x.t[s];
    j.on[s].rows.vector = c->width ? scale.t[s] : as_vector(scale.t[s]);
  }
  run(&j, 2, (Pair[]){y, scale});
  if (c->given > 0 && !timing && !c->sample) same_saturated(j.name, before);
}

static void all_quantize(void) {
  sample_rows = 0;
  for (size_t i = 0; i < sizeof quantize_cases / sizeof *quantize_cases; i++)
    if (!timing || quantize_cases[i].timed) quantize_case(&quantize_cases[i]);
}

/* ---- convolution ------------------------------------------------------------------------------------------------ */

/* On the case's own map, or timed where the result is a square. */
static void conv_case(const ConvCase *c, const Timed *at) {
  const int64_t up = c->up ? 2 : 1, pad = c->before + c->after, k = (int64_t)c->kernel * c->kernel * c->in;
  const int64_t h = at ? at->side * c->stride / up : c->h, w = at ? at->side * c->stride / up : c->w;
  const int64_t ho = (h * up + pad - c->kernel) / c->stride + 1, wo = (w * up + pad - c->kernel) / c->stride + 1;
  Job j = {.kind = CONV, .off = c->composed ? FK_CAN_FUSED_CONV : 0};
  if (at) j.encode = at->encode, j.decode = at->decode;
  if (!wanted(&j, "conv %dx%d /%d pad %d,%d %ldx%ldx%ld -> %ld%s%s%s%s", c->kernel, c->kernel, c->stride, c->before,
              c->after, (long)h, (long)w, (long)c->in, (long)c->out, c->up ? " doubled" : "",
              c->residual ? " residual" : "", c->composed ? " composed" : "",
              c->x != FK_BF16   ? ", float in"
              : c->y != FK_BF16 ? ", float out"
                                : ""))
    return;
  Pair x = image(c->x, h, w, c->in, 0.1, 1), weights = matrix(FK_BF16, c->out, k, 0, 1 / sqrt((double)k));
  Pair bias = vector(c->out, 0, 0.5), y = image_out(c->y, ho, wo, c->out);
  Pair residual = c->residual ? image(c->y, ho, wo, c->out, 0, 1) : nothing();
  j.flop = 2.0 * (double)(ho * wo) * (double)(c->out * k);
  j.bytes = size_of(x) + size_of(weights) + size_of(y) * (c->residual ? 2 : 1);
  if (!at) j.scratch = (size_t)(ho * wo * (c->in + c->out) * 4 + 4096);
  EACH_SIDE j.on[s].conv = (FkConv){.x = x.t[s],
                                    .y = y.t[s],
                                    .bias = bias.t[s],
                                    .residual = residual.t[s],
                                    .w = weight_of(weights, s),
                                    .kernel = c->kernel,
                                    .stride = c->stride,
                                    .pad_before = c->before,
                                    .pad_after = c->after,
                                    .upsample = c->up};
  run(&j, 1, &y);
}

static void all_conv(void) {
  for (size_t i = 0; i < sizeof conv_cases / sizeof *conv_cases; i++) {
    const ConvCase *c = &conv_cases[i];
    if (!timing) conv_case(c, NULL);
    for (int k = 0; timing && k < TIMED && c->timed[k].side; k++) conv_case(c, &c->timed[k]);
  }
}

/* ---- large moves ------------------------------------------------------------------------------------------------ */

static void move_case(const MoveCase *c) {
  Job j = {.kind = c->gate ? GATE_ADD : COPY};
  if (!wanted(&j, "%s %ldx%ld%s", c->gate ? "gate_add" : "copy", (long)c->rows, (long)c->cols,
              c->ld ? " into columns" : ""))
    return;
  sample_rows = timing ? 0 : SAMPLE;
  Pair x = row_operand(FK_BF16, c->rows, c->cols, 0, NORMAL, 0, 1), gate = vector(c->cols, 0, 1);
  Pair y = row_operand(FK_BF16, c->rows, c->cols, c->ld, c->gate ? NORMAL : OUTPUT, 0, 1);
  j.bytes = size_of(x) + size_of(y) * (c->gate ? 2 : 1);
  EACH_SIDE j.on[s].rows.y = y.t[s], j.on[s].rows.x = x.t[s], j.on[s].rows.vector = gate.t[s];
  run(&j, 1, &y);
}

static void all_moves(void) {
  for (size_t i = 0; i < sizeof move_cases / sizeof *move_cases; i++) move_case(&move_cases[i]);
}

int main(int argc, char **argv) {
  timing = argc > 1 && !strcmp(argv[1], "--time");
  if (argc > 1 + timing) only = argv[1 + timing];
  if (!open_sides()) return 0;
  if (timing) first_side = GPU;
  all_moves();
  all_linear();
  all_attention();
  all_norms();
  all_quantize();
  all_conv();
  if (timing)
    printf("encode 1024: %.2f ms, %.2f TFLOP   decode 1024: %.2f ms, %.2f TFLOP\n", sum_us[0] / 1e3, sum_flop[0] / 1e12,
           sum_us[1] / 1e3, sum_flop[1] / 1e12);
  return close_sides();
}
