/* SPDX-License-Identifier: Apache-2.0 */
/* Results that leave a CUDA kernel as codes under given scales (FkLinear.y_codes, FkAttention.o_codes): every byte, and
 * what is counted, as where the numbers are quantised by an op of its own, which test-cuda-ops.c compares with the CPU
 * (TAP).
 *
 *   test-cuda-codes [--time] [WORD]    the cases whose name contains WORD; with --time the microseconds of both ways */
#include "operands.h"

/* GELU's result, or with width the MLP columns beside heads of 128. general: no kernel takes it, the op makes it of
 * numbers. */
typedef struct {
  const char *name;
  int64_t m[2], n, k, width;
  bool general, timed, infinite; /* one column of the result is infinite, which no code is */
} LinearCase;

static const LinearCase linear_cases[] = {
    {"demo up", {64, 512}, 1024, 256},
    {"demo single in", {576}, 1792, 256, 256},
    {"few rows", {1, 7}, 512, 512},
    {"one group, ragged", {333}, 768, 384},
    {"ragged, heads", {517}, 1280, 640, 256},
    {"heads, two groups", {64, 450}, 1792, 256, 256},
    {"infinite", {40}, 512, 256, .infinite = true},
    {"long sums", {70}, 512, 5120, .general = true},
    {"odd sizes", {37}, 52, 48, .general = true},
    {"feed-forward up", {512, 8192}, 12288, 3072, .timed = true},
    {"single block in", {8704}, 21504, 3072, 3072, .timed = true},
    {"feed-forward up, 512x512", {512, 2048}, 12288, 3072, .timed = true},
};

/* first: rows under the first scale. value_codes, codes: v becomes codes, everything does. */
typedef struct {
  int64_t sq, sk, heads, width, first;
  bool packed, value_codes, codes, general, timed;
} AttentionCase;

static const AttentionCase attention_cases[] = {
    {320, 320, 2, 128, 64},
    {577, 577, 2, 128, 77, .packed = true},
    {200, 450, 3, 128, 200, .packed = true},
    {1, 1, 1, 128, 0},
    {129, 300, 2, 128, 1},
    {100, 100, 2, 64, 50, .general = true},
    {320, 320, 2, 128, 64, .value_codes = true},
    {577, 577, 2, 128, 77, .packed = true, .value_codes = true},
    {200, 450, 3, 128, 0, .packed = true, .value_codes = true},
    {70, 300, 2, 48, 7, .value_codes = true, .general = true},
    {1, 1, 1, 128, 0, .codes = true},
    {63, 65, 2, 128, 63, .codes = true},
    {65, 63, 2, 128, 1, .codes = true},
    {300, 777, 3, 128, 7, .packed = true, .codes = true},
    {577, 577, 2, 128, 77, .packed = true, .codes = true},
    {70, 300, 2, 48, 7, .codes = true, .general = true},
    {8704, 8704, 24, 128, 512, .packed = true, .timed = true},
    {8704, 8704, 24, 128, 512, .packed = true, .value_codes = true, .timed = true},
    {8704, 8704, 24, 128, 512, .packed = true, .codes = true, .timed = true},
    {2560, 2560, 24, 128, 512, .packed = true, .timed = true},
    {2560, 2560, 24, 128, 512, .packed = true, .codes = true, .timed = true},
};

enum { OUTPUTS = 6 };

/* An op, its results, and where the kernel's are kept. */
typedef struct {
  char name[128];
  FkLinear linear[2];
  FkAttention attention;
  int groups; /* 0: attention */
  bool general;
  Pair out[OUTPUTS];
  int64_t only[OUTPUTS]; /* columns that are compared; 0: all memory behind the output, what is between rows too */
  int outputs;
} Job;

static const char *only = "";

static void issue(const Job *j, FkArena *arena) {
  FkBackend *be = side[GPU];
  if (j->groups)
    fk_op_linear(be, arena, j->linear, j->groups);
  else if (fk_tensor_given(j->attention.k_codes))
    fk_op_attention_quantized(be, arena, &j->attention);
  else if (fk_tensor_given(j->attention.v_codes))
    fk_op_attention_value_codes(be, arena, &j->attention);
  else
    fk_op_attention(be, &j->attention);
}

/* Whether a kernel takes it, issued once. */
static bool taken(const Job *j) {
  FkBackend *be = side[GPU];
  return j->groups ? be->ops->linear_fused(be, j->linear, j->groups) : be->ops->flash_attention(be, &j->attention);
}

/* All memory behind an output to 0xFF, so that what is not written shows. */
static void blank(const Job *j) {
  for (int i = 0; i < j->outputs; i++) {
    const size_t bytes = j->out[i].elements[GPU] * fk_dtype_size(j->out[i].t[GPU].dtype);
    void *host = malloc(bytes);
    if (!host) abort();
    memset(host, 0xFF, bytes);
    side[GPU]->ops->upload(side[GPU], j->out[i].base[GPU], host, bytes);
    free(host);
  }
}

static bool equal_outputs(const Job *j, void *const *first, char *detail, size_t size) {
  bool ok = true;
  size_t used = 0;
  for (int i = 0; i < j->outputs; i++) {
    const size_t each = fk_dtype_size(j->out[i].t[GPU].dtype), bytes = j->out[i].elements[GPU] * each;
    const size_t row = (size_t)j->out[i].t[GPU].ld * each, columns = (size_t)j->only[i] * each;
    uint8_t *second = fetch(j->out[i], GPU);
    size_t differ = 0;
    for (size_t b = 0; b < bytes; b++)
      differ += second[b] != ((const uint8_t *)first[i])[b] && (!columns || b % row < columns);
    used += (size_t)snprintf(detail + used, size - used, "%zu of %zu bytes differ ", differ, bytes);
    ok = ok && !differ;
    free(second);
  }
  return ok;
}

/* By the kernel; then with the pass, and as the model asks for it. Frees no operand. */
static void check(const Job *j, FkArena *arena) {
  FkBackend *be = side[GPU];
  char detail[400] = "";
  void *kept[OUTPUTS] = {NULL};
  int64_t counted = be->count.saturated;
  bool ok = taken(j) != j->general;
  if (j->general) issue(j, arena);
  ok = fk_backend_sync(be) && ok;
  const int64_t saturated = be->count.saturated - counted;
  for (int i = 0; i < j->outputs; i++) kept[i] = fetch(j->out[i], GPU);
  for (int way = 0; ok && way < 2; way++) {
    counted = be->count.saturated;
    blank(j);
    if (way == 0) be->use &= ~(uint32_t)FK_CAN_FUSED_CODES;
    issue(j, arena);
    be->use = be->can;
    ok = fk_backend_sync(be);
    ok = equal_outputs(j, kept, detail, sizeof detail) && ok;
    const size_t used = strlen(detail);
    snprintf(detail + used, sizeof detail - used, "saturated %ld %ld", (long)saturated,
             (long)(be->count.saturated - counted));
    ok = ok && saturated > 0 && be->count.saturated - counted == saturated;
  }
  if (be->failure) snprintf(detail, sizeof detail, "%s", be->message);
  report(ok, j->name, detail);
  fk_backend_clear(be);
  for (int i = 0; i < j->outputs; i++) free(kept[i]);
}

static int by_value(const void *x, const void *y) {
  const double d = *(const double *)x - *(const double *)y;
  return d < 0 ? -1 : d > 0;
}

static double median_us(const Job *j, FkArena *arena) {
  enum { SAMPLES = 9, RUNS = 8 };
  FkBackend *be = side[GPU];
  double us[SAMPLES];
  for (int i = -1; i < SAMPLES; i++) {
    fk_op_event_record(be, 0);
    for (int r = 0; r < RUNS; r++) issue(j, arena);
    fk_op_event_record(be, 1);
    fk_op_event_wait(be, 1);
    if (i >= 0) us[i] = be->ops->elapsed_ms(be, 0, 1) * 1e3 / RUNS;
  }
  qsort(us, SAMPLES, sizeof *us, by_value);
  return us[SAMPLES / 2];
}

static void run(const Job *j, size_t scratch, bool timing) {
  FkBackend *be = side[GPU];
  FkArena arena = {0};
  if (scratch) fk_arena_open(&arena, be, scratch);
  if (timing) {
    const double fused = median_us(j, &arena);
    be->use &= ~(uint32_t)FK_CAN_FUSED_CODES;
    const double pass = median_us(j, &arena);
    be->use = be->can;
    if (!fk_backend_sync(be)) failures++;
    printf("%-64s %9.1f us, with the pass %9.1f us\n", j->name, fused, pass);
  } else {
    check(j, &arena);
  }
  release_operands();
  if (scratch) fk_arena_close(&arena);
}

/* An output whose rows are `ld` elements apart. */
static FkTensor output_of(Job *j, FkDtype dtype, int64_t rows, int64_t cols, int64_t ld) {
  const Pair p = matrix_out(dtype, rows, cols, ld);
  j->out[j->outputs++] = p;
  return p.t[GPU];
}

static FkLinear group_of(Job *j, const LinearCase *c, int64_t m) {
  const int64_t cols = c->n - 3 * c->width;
  const Pair x = matrix(FK_E4M3, m, c->k, 0, 100), w = matrix(FK_E4M3, c->n, c->k, 0, 100);
  const Pair sx = vector(m, 0.01, 0.001), sw = vector(c->n, 0.01 / sqrt((double)c->k), 0.001 / sqrt((double)c->k));
  FkLinear l = {.x = x.t[GPU], .x_scale = sx.t[GPU], .bias = vector(c->n, 0, 0.5).t[GPU], .w = weight_of(w, GPU)};
  const float infinity = INFINITY;
  if (c->infinite) side[GPU]->ops->upload(side[GPU], (float *)l.bias.data + 5, &infinity, sizeof infinity);
  l.w.scale = (FkScale){.data = sw.t[GPU].data, .dtype = FK_F32, .kind = FK_SCALE_ROW};
  if (c->width) { /* the columns that leave as numbers are compared, the others hold anything */
    j->only[j->outputs] = 3 * c->width;
    l.y = output_of(j, FK_BF16, m, c->n, 0);
  } else {
    l.y = matrix_out(FK_BF16, m, c->n, 0).t[GPU];
  }
  l.y_codes = output_of(j, FK_E4M3, m, cols, cols + cols / 4);
  const FkTensor scale = output_of(j, FK_F32, m, 1, 0);
  l.y_scale = as_vector(scale);
  l.given = 0.002f; /* of numbers around 1: some saturate */
  l.epilogue = c->width ? FK_EPI_QKV : FK_EPI_ACT;
  l.act = c->width ? FK_ACT_NONE : FK_ACT_GELU_TANH;
  l.width = c->width;
  if (!c->width) return l;
  l.q_norm = vector(128, 1, 0.2).t[GPU];
  l.k_norm = vector(128, 1, 0.2).t[GPU];
  l.rope = matrix(FK_F32, m, 128, 0, 0.7).t[GPU];
  return l;
}

static void linear_case(const LinearCase *c, bool timing) {
  const int64_t rows = c->m[0] + c->m[1];
  Job j = {.groups = c->m[1] ? 2 : 1, .general = c->general};
  snprintf(j.name, sizeof j.name, "linear to codes, %s %ldx%ldx%ld", c->name, (long)rows, (long)c->n, (long)c->k);
  if (!strstr(j.name, only) || (timing && !c->timed)) return;
  for (int g = 0; g < j.groups; g++) j.linear[g] = group_of(&j, c, c->m[g]);
  run(&j, 0, timing);
}

static void attention_case(const AttentionCase *c, bool timing) {
  const int64_t d = c->heads * c->width, blocks = (c->sk + 127) / 128;
  Job j = {.general = c->general};
  snprintf(j.name, sizeof j.name, "attention to codes %ldx%ld, %ld heads of %ld%s%s", (long)c->sq, (long)c->sk,
           (long)c->heads, (long)c->width, c->packed ? ", packed" : "",
           c->codes         ? ", codes"
           : c->value_codes ? ", codes of v"
                            : "");
  if (!strstr(j.name, only) || (timing && !c->timed)) return;
  const Pair all = matrix(FK_BF16, c->sk, 3 * d + 64, 0, 1), q = matrix(FK_BF16, c->sq, d, 0, 1);
  FkAttention *a = &j.attention;
  *a = (FkAttention){.k = fk_tensor_slice_cols(all.t[GPU], 0, d),
                     .v = fk_tensor_slice_cols(all.t[GPU], d, d),
                     .q = c->packed ? fk_tensor_slice_cols(fk_tensor_slice_rows(all.t[GPU], 0, c->sq), 2 * d, d)
                                    : q.t[GPU],
                     .heads = c->heads,
                     .scale = (float)(1 / sqrt((double)c->width)),
                     .given = {0.0002f, 0.0001f},
                     .given_rows = c->first};
  a->o = matrix_out(FK_BF16, c->sq, d, 0).t[GPU];
  a->o_codes = output_of(&j, FK_E4M3, c->sq, d, 5 * d);
  a->o_scale = as_vector(output_of(&j, FK_F32, c->sq, 1, 0));
  if (c->value_codes || c->codes) { /* room that the op would take from the arena */
    a->v_codes = matrix_out(FK_E4M3, 128 * blocks, d, 0).t[GPU];
    a->v_scale = matrix_out(FK_F32, c->codes ? (c->sk + 1023) / 1024 : blocks, c->heads, 0).t[GPU];
  }
  if (c->codes) {
    a->k_codes = matrix_out(FK_I8, c->sk, d, 0).t[GPU];
    a->k_scale = matrix_out(FK_F32, blocks, c->heads, 0).t[GPU];
    a->v_mean = as_vector(matrix_out(FK_F32, d, 1, 0).t[GPU]);
  }
  run(&j,
      c->value_codes || c->codes ? 2 * (size_t)(128 * blocks * d + 4 * blocks * c->heads) + 4 * (size_t)d + 8192 : 0,
      timing);
}

/* Queries in slices give the bytes that they give together, and again. */
static void slices_case(int64_t sq, int64_t sk, int64_t each, bool codes) {
  enum { HEADS = 2, D = HEADS * 128 };
  char name[128], detail[400] = "";
  snprintf(name, sizeof name, "attention %ldx%ld in slices of %ld%s", (long)sq, (long)sk, (long)each,
           codes ? ", codes" : ", codes of v");
  if (!strstr(name, only) || !(side[GPU]->can & (codes ? FK_CAN_QUANT_ATTENTION : FK_CAN_VALUE_CODES))) return;
  const Pair q = matrix(FK_BF16, sq, D, 0, 2), k = matrix(FK_BF16, sk, D, 0, 1), v = matrix(FK_BF16, sk, D, 0, 1);
  const Pair out[3] = {matrix_out(FK_BF16, sq, D, 0), matrix_out(FK_BF16, sq, D, 0), matrix_out(FK_BF16, sq, D, 0)};
  FkArena arena = {0};
  fk_arena_open(&arena, side[GPU], 2 * (size_t)(sk + 128) * (D + 64) + 8192);
  for (int run = 0; run < 3; run++)
    for (int64_t from = 0; from < sq; from += run == 1 ? each : sq) {
      const int64_t n = run == 1 && from + each < sq ? each : sq - from;
      const FkAttention a = {.q = fk_tensor_slice_rows(q.t[GPU], from, n),
                             .k = k.t[GPU],
                             .v = v.t[GPU],
                             .o = fk_tensor_slice_rows(out[run].t[GPU], from, n),
                             .heads = HEADS,
                             .scale = 0.0883883f};
      (codes ? fk_op_attention_quantized : fk_op_attention_value_codes)(side[GPU], &arena, &a);
    }
  bool ok = fk_backend_sync(side[GPU]);
  uint16_t *have[3];
  for (int run = 0; run < 3; run++) have[run] = fetch(out[run], GPU);
  size_t differ[3] = {0};
  for (int64_t i = 0; i < sq * D; i++)
    for (int run = 1; run < 3; run++) differ[run] += have[run][i] != have[0][i];
  for (int run = 0; run < 3; run++) free(have[run]);
  snprintf(detail, sizeof detail, "%zu in slices and %zu again of %ld differ %s", differ[1], differ[2], (long)(sq * D),
           ok ? "" : side[GPU]->message);
  ok = ok && !differ[1] && !differ[2];
  report(ok, name, detail);
  fk_backend_clear(side[GPU]);
  release_operands();
  fk_arena_close(&arena);
}

int main(int argc, char **argv) {
  const bool timing = argc > 1 && !strcmp(argv[1], "--time");
  if (argc > 1 + timing) only = argv[1 + timing];
  if (!open_sides()) return 0;
  first_side = GPU;
  if (side[GPU]->can & FK_CAN_GIVEN_SCALE) {
    for (size_t i = 0; i < sizeof linear_cases / sizeof *linear_cases; i++) linear_case(&linear_cases[i], timing);
    for (size_t i = 0; i < sizeof attention_cases / sizeof *attention_cases; i++)
      if ((!attention_cases[i].value_codes || (side[GPU]->can & FK_CAN_VALUE_CODES)) &&
          (!attention_cases[i].codes || (side[GPU]->can & FK_CAN_QUANT_ATTENTION)))
        attention_case(&attention_cases[i], timing);
    for (int codes = 0; codes < 2 && !timing; codes++) {
      slices_case(300, 777, 77, codes);
      slices_case(8704, 8704, 1000, codes);
    }
  }
  return close_sides();
}
