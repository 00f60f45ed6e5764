/* SPDX-License-Identifier: Apache-2.0 */
/* Lab of the e4m3 linear layers: checks the quantizers bit by bit against plain C and every kernel against float64 sums
 * of its codes, then times the six shapes of FLUX.1 beside cuBLASLt and the linear layers of a step in a row.
 *
 *     nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -DFK_WAIT_TRAP -o lab-fp8 \
 *         tests/gpu/lab-fp8.cu kernels/linear_fp8.cu kernels/quant.cu -ldl
 *     ./lab-fp8 [quant] [check] [time] [few] [mix]      nothing named: all
 *
 * Every part runs in a process of its own with a limit of seconds, so a hang or a trap of one is a line of the table.
 * What fails its check is not timed. */
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "lab-fp8-quant.h"
#include "lab-fp8-time.h"

/* ---- what is tried ---------------------------------------------------------------------------------------------- */

enum { VARIANTS = 8, RIVALS = 2, TIMED = VARIANTS + RIVALS, CASES = 12, SHAPES = 6, LONG = 4 };

typedef struct {
  const char *name;
  FkFp8Plan plan;
} Variant;

/* From LONG on with float32 sums. */
static const Variant variants[VARIANTS] = {
    {"once 184", {false, 184, 11}}, {"once 176", {false, 176, 11}}, {"once 160", {false, 160, 11}},
    {"once 128", {false, 128, 11}}, {"long 200", {true, 200, 11}},  {"long 176", {true, 176, 11}},
    {"long 160", {true, 160, 11}},  {"long 128", {true, 128, 11}},
};
static const char *const rivals[RIVALS] = {"cuBLASLt tensor", "cuBLASLt rows"};

static const Case cases[CASES] = {
    {"1 row", {1, 0}, 512, 512, FK_LINEAR_NONE, 0},
    {"7 rows, gelu", {7, 0}, 512, 3072, FK_LINEAR_GELU, 0},
    {"129 rows, K 400", {129, 0}, 768, 400, FK_LINEAR_NONE, 0},
    {"129 rows, gate", {129, 0}, 768, 1024, FK_LINEAR_GATE, 0},
    {"129 + 7, heads", {129, 7}, 1280, 640, FK_LINEAR_QKV, 256},
    {"2560 rows", {2560, 0}, 3072, 3072, FK_LINEAR_NONE, 0},
    {"qkv", {512, 8192}, 9216, 3072, FK_LINEAR_QKV, 3072},
    {"out", {512, 8192}, 3072, 3072, FK_LINEAR_GATE, 0},
    {"up", {512, 8192}, 12288, 3072, FK_LINEAR_GELU, 0},
    {"down", {512, 8192}, 3072, 12288, FK_LINEAR_GATE, 0},
    {"single in", {8704, 0}, 21504, 3072, FK_LINEAR_QKV, 3072},
    {"single out", {8704, 0}, 3072, 15360, FK_LINEAR_GATE, 0},
};
static const Case *const shapes = cases + 6;
static const int shape_count[SHAPES] = {19, 19, 19, 19, 38, 38}; /* in a step */

/* Shared among the processes. */
typedef struct {
  int ok[VARIANTS];
  unsigned long long hash[VARIANTS][CASES]; /* of the whole result, 0: not run */
  Timing time[2][TIMED][SHAPES];            /* 8704 rows, 2560 rows; us 0: not timed */
  int chosen[2][SHAPES];
} Board;
static Board *board;

/* ---- checks of the linear kernels -------------------------------------------------------------------------------- */

static int sample(int m, int *rows) {
  static const int edges[] = {0,   1,   6,   7,   8,   103, 104, 127, 128,  159,
                              160, 175, 176, 199, 200, 201, 399, 400, 4095, 8191};
  int n = 0;
  for (unsigned i = 0; i < sizeof edges / sizeof *edges; i++)
    if (edges[i] < m) rows[n++] = edges[i];
  for (int i = 1; i <= 9 && m - i > 0; i++) rows[n++] = m - i;
  for (uint32_t i = 1; n < SAMPLED; i++) rows[n++] = (int)((i * 2654435761u >> 4) % (uint32_t)m);
  return n;
}

typedef struct {
  double error, gain, worst; /* relative L2; slope - 1; largest error over its allowance */
} Errors;

static Errors compare(const double *ref, const double *got, int n, double loose) {
  double d2 = 0, r2 = 0, gr = 0, worst = 0;
  for (int i = 0; i < SAMPLED; i++) {
    double rms = 0;
    for (int j = 0; j < n; j++) rms += ref[(size_t)i * n + j] * ref[(size_t)i * n + j];
    rms = sqrt(rms / n);
    for (int j = 0; j < n; j++) {
      const double r = ref[(size_t)i * n + j], v = got[(size_t)i * n + j], d = v - r;
      const double over = fabs(d) / (fabs(r) / 200 + loose * rms);
      d2 += d * d, r2 += r * r, gr += v * r;
      if (!(over <= worst)) worst = over;
    }
  }
  return Errors{sqrt(d2 / r2), gr / r2 - 1, worst};
}

static double *host_rows(const double *p, int n) {
  double *h = (double *)malloc((size_t)SAMPLED * n * 8);
  TRY(cudaMemcpy(h, p, (size_t)SAMPLED * n * 8, cudaMemcpyDeviceToHost));
  return h;
}

/* Sets y as before a launch: `old` inside, a NaN outside. */
static void reset_y(const Pool *p, const Case *c, const FkCudaFp8Group *g) {
  fill_u16<<<2048, 256>>>((uint16_t *)p->y, kY, 0x7fc1);
  for (int i = 0; i < 2; i++)
    if (g[i].m)
      TRY(cudaMemcpy2D(g[i].y, g[i].ldy * 2, p->old + (g[i].y - p->y), g[i].ldy * 2, (size_t)c->n * 2, g[i].m,
                       cudaMemcpyDeviceToDevice));
}

/* True if rows around stayed as they were; the hash of the result. */
static bool untouched(const Pool *p, const Case *c, const FkCudaFp8Group *g, unsigned long long *hash) {
  unsigned long long h[2], sum = 0, outside = 0;
  for (int i = 0; i < 2; i++) {
    if (!g[i].m) continue;
    const int64_t rows = i ? g[i].m + 16 : c->m[1] ? second_row(c) : g[i].m + 16;
    TRY(cudaMemset(p->sums, 0, 16));
    hash_kernel<<<1024, 256>>>((const uint16_t *)g[i].y, g[i].ldy, rows, g[i].m, c->n, 0x7fc1, p->sums);
    TRY(cudaMemcpy(h, p->sums, 16, cudaMemcpyDeviceToHost));
    sum = sum * 31 + h[0], outside += h[1];
  }
  *hash = sum | 1;
  if (outside) printf("      %llu elements outside were written\n", outside);
  return outside == 0;
}

static cudaError_t linear(int v, const Case *c, const FkCudaFp8Group *g) {
  return fk_cuda_linear_fp8(&cu, c->m[1] ? 2 : 1, g, c->n, c->k, c->epilogue, c->width, &variants[v].plan);
}

static bool knows(int v, const Case *c) {
  return v < LONG || ((c->epilogue == FK_LINEAR_NONE || c->epilogue == FK_LINEAR_GATE) && c->k > 3 * 128);
}

static bool check_case(const Pool *p, int v, int at) {
  const Case *c = &cases[at];
  FkCudaFp8Group g[2];
  int rows[SAMPLED];
  bool ok = true;
  unsigned long long hash = 0, again = 0;
  if (!knows(v, c)) return true;
  operands(p, c, c->k > 4096 ? GELU : NORMAL, NORMAL, 0.02f);
  groups_of(p, c, g);
  for (int run = 0; run < 3; run++) { /* the same bytes each time */
    reset_y(p, c, g);
    TRY(linear(v, c, g));
    TRY(cudaDeviceSynchronize());
    ok = untouched(p, c, g, run ? &again : &hash) && ok;
    if (run && again != hash) printf("      run %d has other bytes\n", run), ok = false;
  }
  for (int i = 0; i < (c->m[1] ? 2 : 1); i++) {
    sample(g[i].m, rows);
    TRY(cudaMemcpy(p->rows, rows, sizeof rows, cudaMemcpyHostToDevice));
    ref_sums<<<dim3(c->n / 8, SAMPLED), 256>>>(p->ref, p->rows, g[i], c->n, c->k);
    ref_epilogue<<<dim3(c->n / 128, SAMPLED), 128>>>(p->ref, p->rows, g[i], p->old + (g[i].y - p->y), c->n, c->epilogue,
                                                     c->width);
    take_rows<<<dim3(c->n / 128, SAMPLED), 128>>>(p->got, p->rows, g[i].y, g[i].ldy, c->n);
    TRY(cudaDeviceSynchronize());
    double *ref = host_rows(p->ref, c->n), *got = host_rows(p->got, c->n);
    const Errors e = compare(ref, got, c->n, v < LONG ? 0.05 : 0.01);
    const bool good = e.error < (v < LONG ? 0.01 : 0.004) && e.worst < 1;
    if (!good || at >= 6)
      printf("  %-12s %-16s group %d: error %.3f %%  gain %+.4f %%  worst %.2f of allowed  %s\n", variants[v].name,
             c->name, i, e.error * 100, e.gain * 100, e.worst, good ? "ok" : "FAILED");
    ok = ok && good;
    free(ref), free(got);
  }
  board->hash[v][at] = hash;
  return ok;
}

/* The product alone against exact sums, without the rounding to bf16: a row at a time, with a bias of -ref. */
static bool check_sums(const Pool *p, int v, const char *name, int k, int x_kind, int w_kind, double bound) {
  const Case c = {name, {4 * SAMPLED, 0}, 3072, k, FK_LINEAR_NONE, 0};
  FkCudaFp8Group g[2];
  int rows[SAMPLED];
  float bias[3072];
  operands(p, &c, x_kind, w_kind, 0.02f);
  groups_of(p, &c, g);
  for (int i = 0; i < SAMPLED; i++) rows[i] = 4 * i;
  TRY(cudaMemcpy(p->rows, rows, sizeof rows, cudaMemcpyHostToDevice));
  ref_sums<<<dim3(c.n / 8, SAMPLED), 256>>>(p->ref, p->rows, g[0], c.n, k);
  double *ref = host_rows(p->ref, c.n);
  FkCudaFp8Group one[2] = {g[0], g[1]};
  one[0].bias = p->vectors + 6 * 21504, one[0].m = 1;
  for (int i = 0; i < SAMPLED; i++) {
    for (int j = 0; j < c.n; j++) bias[j] = -(float)ref[(size_t)i * c.n + j];
    TRY(cudaMemcpy((void *)one[0].bias, bias, sizeof bias, cudaMemcpyHostToDevice));
    one[0].x = g[0].x + (size_t)rows[i] * k, one[0].x_scale = g[0].x_scale + rows[i];
    one[0].y = g[0].y + rows[i] * g[0].ldy;
    TRY(linear(v, &c, one));
  }
  take_rows<<<dim3(c.n / 128, SAMPLED), 128>>>(p->got, p->rows, g[0].y, g[0].ldy, c.n);
  TRY(cudaDeviceSynchronize());
  double *got = host_rows(p->got, c.n);
  for (size_t i = 0; i < (size_t)SAMPLED * c.n; i++) got[i] += (float)ref[i];
  const Errors e = compare(ref, got, c.n, 1);
  const bool good = e.error <= bound;
  printf("  %-12s sums, %-22s K %5d: error %.4f %%  gain %+.4f %%  bound %.2f %%  %s\n", variants[v].name, name, k,
         e.error * 100, e.gain * 100, bound * 100, good ? "ok" : "FAILED");
  free(ref), free(got);
  return good;
}

static int run_check(int v) {
  Pool p;
  bool ok = true;
  cu_open();
  pool_make(&p);
  fill(p.old, kY, 5, NORMAL, 1);
  for (int i = 0; i < CASES; i++) ok = check_case(&p, v, i) && ok;
  ok = check_sums(&p, v, "normal", 3072, NORMAL, NORMAL, v < LONG ? 0.002 : 0.001) && ok;
  ok = check_sums(&p, v, "all positive", 3072, POSITIVE, POSITIVE, v < LONG ? 0.06 : 0.008) && ok;
  ok = check_sums(&p, v, "GELU x normal", 15360, GELU, NORMAL, v < LONG ? 0.005 : 0.001) && ok;
  ok = check_sums(&p, v, "all positive", 15360, POSITIVE, POSITIVE, v < LONG ? 0.3 : 0.008) && ok;
  board->ok[v] = ok;
  return !ok;
}

/* Tiles do not change bytes: every variant of a kind has one hash a case. */
static bool compare_hashes(void) {
  int same = 0, other = 0;
  for (int a = 0; a < VARIANTS; a++)
    for (int b = a + 1; b < VARIANTS; b++)
      for (int c = 0; c < CASES; c++) {
        if ((a < LONG) != (b < LONG) || !board->hash[a][c] || !board->hash[b][c]) continue;
        if (board->hash[a][c] == board->hash[b][c]) {
          same++;
          continue;
        }
        other++;
        printf("  %s and %s differ in %s\n", variants[a].name, variants[b].name, cases[c].name);
      }
  printf("whole results equal between tiles: %d pairs, differing: %d\n", same, other);
  return other == 0;
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

typedef struct {
  const Lt *lt;
  LtPlan plan;
  FkCudaFp8Group g[2];
  Case c;
  int v;
} Single;

static bool job_ours(void *arg) {
  const Single *s = (const Single *)arg;
  return linear(s->v, &s->c, s->g) == cudaSuccess;
}
static bool job_lt(void *arg) {
  const Single *s = (const Single *)arg;
  return lt_run(s->lt, &s->plan, s->g[0].w, s->g[0].x, s->g[0].y);
}

/* Long K with all, short K with one kernel of float32 sums where it has the epilogue. */
static bool wanted_time(int v, const Case *c) {
  if (v >= VARIANTS) return true;
  if (!board->ok[v] || !knows(v, c)) return false;
  return c->k > FK_FP8_ONCE_K ? v != 3 : v < LONG || v == LONG;
}

/* One shape, everything that passed, one after the other. few: 512 + 2048 rows and 2560. */
static void time_shape(const Pool *p, const Lt *lt, const Meter *meter, int at, int few) {
  Single s = {};
  s.lt = lt, s.c = shapes[at];
  if (few) s.c.m[s.c.m[1] ? 1 : 0] = s.c.m[1] ? 2048 : 2560;
  const int m = s.c.m[0] + s.c.m[1];
  const double flop = 2.0 * m * s.c.n * s.c.k;
  TRY(cudaMemset(p->y, 0, kY * 2));
  operands(p, &s.c, s.c.k > 4096 ? GELU : NORMAL, NORMAL, 0.02f);
  groups_of(p, &s.c, s.g);
  for (int i = 0; i < 2; i++) s.g[i].ldy = s.c.n, s.g[i].y = p->y + (i ? (int64_t)s.c.m[0] * s.c.n : 0);
  const FkFp8Plan plan = fk_cuda_linear_fp8_plan(cu.sms, s.c.m[1] ? 2 : 1, s.g, s.c.n, s.c.k);
  for (int v = VARIANTS; v--;)
    if (variants[v].plan.promoted == plan.promoted && variants[v].plan.tokens == plan.tokens)
      board->chosen[few][at] = v;
  for (s.v = 0; s.v < TIMED; s.v++) {
    const int rows = s.v == VARIANTS + 1;
    Timing *t = &board->time[few][s.v][at];
    if (!wanted_time(s.v, &s.c)) continue;
    if (s.v >= VARIANTS &&
        (!lt->handle || !lt_plan(lt, &s.plan, m, s.c.n, s.c.k, rows, true, s.g[0].w_scale, s.g[0].x_scale)))
      continue;
    if (!timed(meter, s.v >= VARIANTS ? job_lt : job_ours, &s, flop, 0.4, t)) t->us = 0;
  }
}

static int run_time(int few) {
  Pool p;
  Lt lt = {};
  Meter meter = {};
  cu_open();
  pool_make(&p);
  meter_open(&meter);
  lt_open(&lt);
  for (int warm = 1; warm >= 0; warm--) /* the first shape twice: the card is cold at first */
    for (int i = 0; i < (warm ? 1 : SHAPES); i++) time_shape(&p, &lt, &meter, i, few);
  return 0;
}

/* TFLOP/s of each shape; means over a step weighted with its time. v: of each shape. */
static void print_row(const char *name, int few, const int *v) {
  double flop = 0, us = 0, watt = 0, mhz = 0, busy = 0;
  bool all = true;
  printf("  %-16s", name);
  for (int i = 0; i < SHAPES; i++) {
    const Timing *t = &board->time[few][v[i]][i];
    const double time = t->us * shape_count[i];
    flop += t->tflops * time, us += time, watt += t->watt * time, mhz += t->mhz * time, busy += t->busy * time;
    all = all && t->us > 0;
    if (t->us > 0)
      printf(" %5.0f", t->tflops);
    else
      printf("     -");
  }
  if (us > 0)
    printf("  %5.0f%s %6.1f ms %5.0f MHz %4.0f W %3.0f %%", flop / us, all ? " " : "*", us / 1000, mhz / us, watt / us,
           busy / us * 100);
  printf("\n");
}

static void print_table(int few) {
  int v[SHAPES], best[SHAPES] = {}, once[SHAPES] = {};
  printf("== TFLOP/s at %d rows; weighted (*: of the shapes shown), time a step, clock, power, tensor cores busy\n",
         few ? 2560 : 8704);
  printf("  %-16s   qkv   out    up  down    in outer  all\n", "");
  for (int a = 0; a < TIMED; a++) {
    for (int i = 0; i < SHAPES; i++) v[i] = a;
    print_row(a < VARIANTS ? variants[a].name : rivals[a - VARIANTS], few, v);
  }
  for (int i = 0; i < SHAPES; i++) {
    best[i] = shapes[i].k > FK_FP8_ONCE_K ? LONG : 0;
    for (int a = best[i]; a < VARIANTS; a++)
      if (board->time[few][a][i].tflops > board->time[few][best[i]][i].tflops && (a < LONG) == (best[i] < LONG))
        best[i] = a;
    for (int a = 0; a < LONG; a++)
      if (board->time[few][a][i].tflops > board->time[few][once[i]][i].tflops) once[i] = a;
  }
  print_row("chosen", few, board->chosen[few]);
  print_row("best tiles", few, best);
  print_row("best, all once", few, once);
  printf("  chosen:");
  for (int i = 0; i < SHAPES; i++) printf(" %s%s", variants[board->chosen[few][i]].name, i + 1 < SHAPES ? "," : "\n");
}

/* ---- the linear layers of a double block and two single blocks in a row ------------------------------------------ */

typedef struct {
  uint8_t *w[SHAPES][2];
  float *sw[SHAPES][2];
  __nv_bfloat16 *hidden, *wide, *mlp;
  uint8_t *codes;
  float *scale, *vectors;
  float2 *rope;
  bool quantize; /* and norms */
} Mix;

static bool mix_linear(const Mix *x, int at, __nv_bfloat16 *y) {
  const Case *c = &shapes[at];
  FkCudaFp8Group g[2] = {};
  for (int i = 0; i < 2; i++) {
    const int64_t first = i ? c->m[0] : 0;
    g[i].x = x->codes + first * c->k, g[i].ldx = c->k, g[i].x_scale = x->scale + first;
    g[i].w = x->w[at][i], g[i].w_scale = x->sw[at][i];
    g[i].bias = x->vectors, g[i].gate = x->vectors + 21504, g[i].q_norm = g[i].k_norm = x->vectors + 2 * 21504;
    g[i].rope = x->rope + first * 64, g[i].y = y + first * c->n, g[i].ldy = c->n, g[i].m = c->m[i];
  }
  return fk_cuda_linear_fp8(&cu, c->m[1] ? 2 : 1, g, c->n, c->k, c->epilogue, c->width) == cudaSuccess;
}

static void mix_norm(const Mix *x, int64_t first) {
  FkQuantNorm n[2] = {};
  for (int i = 0; i < 2; i++) {
    const int64_t at = i ? first : 0, rows = i ? ROWS - first : first;
    n[i] = FkQuantNorm{{x->hidden + at * 3072, 3072, x->codes + at * 3072, 3072, x->scale + at, rows},
                       x->vectors + 3 * 21504,
                       x->vectors + 4 * 21504,
                       1,
                       NULL};
  }
  if (x->quantize) fk_cuda_quant_norm(0, 132, 2, n, 3072, 1e-6f);
}

static void mix_quant(const Mix *x, const __nv_bfloat16 *from, int64_t ld, int cols) {
  FkQuantRows q = {from, ld, x->codes, cols, x->scale, ROWS};
  if (x->quantize) fk_cuda_quant_rows(0, &q, cols);
}

static bool job_mix(void *arg) {
  const Mix *x = (const Mix *)arg;
  bool ok = true;
  mix_norm(x, 512);
  ok = mix_linear(x, 0, x->wide) && ok;
  mix_quant(x, x->wide, 9216, 3072);
  ok = mix_linear(x, 1, x->hidden) && ok;
  mix_norm(x, 512);
  ok = mix_linear(x, 2, x->mlp) && ok;
  mix_quant(x, x->mlp, 12288, 12288);
  ok = mix_linear(x, 3, x->hidden) && ok;
  for (int i = 0; i < 2; i++) {
    mix_norm(x, ROWS);
    ok = mix_linear(x, 4, x->wide) && ok;
    mix_quant(x, x->wide + 6144, 21504, 15360);
    ok = mix_linear(x, 5, x->hidden) && ok;
  }
  return ok;
}

static void mix_make(Mix *x) {
  __nv_bfloat16 *w = (__nv_bfloat16 *)device(kW * 2);
  for (int at = 0; at < SHAPES; at++)
    for (int i = 0; i < (shapes[at].m[1] ? 2 : 1); i++) {
      const Case *c = &shapes[at];
      x->w[at][i] = (uint8_t *)device((size_t)c->n * c->k), x->sw[at][i] = (float *)device(c->n * 4);
      fill(w, (int64_t)c->n * c->k, 60 + at * 2 + i, NORMAL, 0.02f);
      FkQuantRows q = {w, c->k, x->w[at][i], c->k, x->sw[at][i], c->n};
      TRY(fk_cuda_quant_rows(0, &q, c->k));
    }
  x->hidden = (__nv_bfloat16 *)device((size_t)ROWS * 3072 * 2),
  x->wide = (__nv_bfloat16 *)device((size_t)ROWS * 21504 * 2);
  x->mlp = (__nv_bfloat16 *)device((size_t)ROWS * 12288 * 2), x->codes = (uint8_t *)device((size_t)ROWS * 15360);
  x->scale = (float *)device(ROWS * 4), x->vectors = (float *)device(5 * 21504 * 4);
  x->rope = (float2 *)device((size_t)ROWS * 64 * 8);
  fill(x->vectors, 21504, 1, 0.1f, 0), fill(x->vectors + 21504, 21504, 2, 0.05f, 0);
  fill(x->vectors + 2 * 21504, 3 * 21504, 3, 0.1f, 1);
  fill_rope<<<(ROWS * 64 + 255) / 256, 256>>>(x->rope, ROWS);
  fill(x->hidden, (int64_t)ROWS * 3072, 7, NORMAL, 1), fill(x->wide, (int64_t)ROWS * 21504, 8, NORMAL, 1);
  fill(x->mlp, (int64_t)ROWS * 12288, 9, GELU, 1);
  TRY(cudaDeviceSynchronize());
}

static int run_mix(int) {
  const double flop = 2.0 * 8704 * 3072 * (9216 + 3072 + 2 * 12288 + 2 * (21504 + 15360));
  Mix x = {};
  Meter meter = {};
  cu_open();
  mix_make(&x);
  meter_open(&meter);
  for (int i = 0; i < 2; i++) {
    Timing t;
    fill(x.hidden, (int64_t)ROWS * 3072, 7, NORMAL, 1);
    x.quantize = true;
    if (!job_mix(&x)) return 1; /* codes and scales, should they not be made again */
    x.quantize = i == 0;
    if (timed(&meter, job_mix, &x, flop, 1.5, &t))
      printf("  %-28s %7.2f ms = %5.1f ms a step  %6.0f TFLOP/s  %4.0f W  %5.0f MHz  tensor %3.0f %%\n",
             i ? "linear layers alone" : "with norms and quantizers", t.us / 1000, t.us * 19 / 1000, t.tflops, t.watt,
             t.mhz, t.busy * 100);
  }
  return 0;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static void late(int) {
  static const char text[] = "FAILED: over its time, ended\n";
  if (write(1, text, sizeof text - 1) < 0) _exit(4);
  _exit(3);
}

/* Runs a part in a process of its own, before which this one never touches the device. */
static bool part(const char *name, int (*run)(int), int arg, int seconds) {
  struct timespec from, to;
  int status = 0;
  printf("== %s\n", name);
  fflush(stdout);
  clock_gettime(CLOCK_MONOTONIC, &from);
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGALRM, late);
    alarm(seconds);
    const int rc = run(arg);
    fflush(stdout);
    _exit(rc);
  }
  waitpid(child, &status, 0);
  clock_gettime(CLOCK_MONOTONIC, &to);
  const bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  printf("   %s: %s (%.1f s)\n", name, ok ? "passed" : "FAILED",
         (to.tv_sec - from.tv_sec) + (to.tv_nsec - from.tv_nsec) * 1e-9);
  return ok;
}

static bool wanted(int argc, char **argv, const char *name) {
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], name) == 0) return true;
  return argc == 1;
}

int main(int argc, char **argv) {
  char name[64];
  bool ok = true;
  board = (Board *)mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (board == MAP_FAILED) return 1;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (wanted(argc, argv, "quant")) ok = part("quantizers against plain C", run_quant, 0, 60) && ok;
  if (wanted(argc, argv, "check")) {
    for (int v = 0; v < VARIANTS; v++) {
      snprintf(name, sizeof name, "check of %s", variants[v].name);
      ok = part(name, run_check, v, 60) && ok;
    }
    ok = compare_hashes() && ok;
  } else {
    for (int v = 0; v < VARIANTS; v++) board->ok[v] = 1;
  }
  if (wanted(argc, argv, "mix")) ok = part("linear layers of a step in a row", run_mix, 0, 60) && ok;
  if (wanted(argc, argv, "time")) ok = part("shapes at 8704 rows", run_time, 0, 120) && ok;
  if (wanted(argc, argv, "few")) ok = part("shapes at 2560 rows", run_time, 1, 120) && ok;
  for (int few = 0; few < 2; few++)
    if (wanted(argc, argv, few ? "few" : "time")) print_table(few);
  printf("lab-fp8: %s\n", ok ? "passed" : "FAILED");
  return !ok;
}
