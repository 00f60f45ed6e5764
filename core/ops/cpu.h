/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CPU backend share: threads, matrix product, vector loops. Internal, libc only.
 *
 * Bytes do not depend on the number of threads: an op is cut into tasks by its shape alone, a task is computed by one
 * thread from start to end, and sums over tasks are taken in task order. */
#ifndef FK_CPU_H
#define FK_CPU_H

#include "backend.h"

/* Loops worth a version per instruction set. They contain no fused multiply-add and sum in fixed lanes, so all versions
 * give the same bytes. No clones under sanitizers, which start after the dynamic linker has asked for the version, and
 * none with clang, whose version 14 gives the dispatched function a name that other files do not find. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FK_CPU_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define FK_CPU_SANITIZED 1
#endif
#endif
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(FK_CPU_SANITIZED) && !defined(__clang__) && defined(__GNUC__)
#define FK_CPU_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FK_CPU_CLONES
#endif

/* cpu-pool.c */

typedef struct FkCpuPool FkCpuPool;

/* One task of an op. `scratch` belongs to the running thread and holds rubbish. */
typedef void (*FkCpuTask)(const void *op, int64_t task, float *scratch);

/* NULL with an errno value in *error: no memory, or a thread that could not be created. */
FkCpuPool *fk_cpu_pool_new(int threads, int *error);
void fk_cpu_pool_free(FkCpuPool *pool); /* NULL allowed */
/* Runs tasks 0..tasks-1 and returns when all are done. False, with nothing run: no memory for the scratch. */
bool fk_cpu_pool_run(FkCpuPool *pool, int64_t tasks, size_t scratch_floats, FkCpuTask run, const void *op);

/* cpu.c */

typedef struct {
  FkCpuPool *pool;
  double event_ms[FK_EVENTS]; /* when it was recorded */
  double *partial;            /* sums of an op's tasks, added up in task order */
  size_t partial_count;
} FkCpu;

/* Memory that goes back to the system when it is freed, 256-byte aligned, for what is large. NULL: there is none. */
void *fk_cpu_block(size_t bytes);
void fk_cpu_block_free(void *memory); /* NULL allowed */

/* Reductions are cut into at most this many tasks, which bounds `partial`. */
#define FK_CPU_PARTIALS 64
/* `count` doubles, grown when needed; NULL marks the backend. */
double *fk_cpu_partial(FkBackend *be, size_t count);

/* As fk_cpu_pool_run; no memory marks the backend. */
void fk_cpu_run(FkBackend *be, int64_t tasks, size_t scratch_floats, FkCpuTask run, const void *op);

/* `size` cut into equal parts of at most `most`, rounded up to `unit`: the size of a part. */
static inline int64_t fk_cpu_part(int64_t size, int64_t most, int64_t unit) {
  int64_t parts = (size + most - 1) / most;
  int64_t part = parts < 2 ? size : (size + parts - 1) / parts;
  return parts < 2 ? size : (part + unit - 1) / unit * unit;
}

static inline int64_t fk_cpu_parts(int64_t size, int64_t part) {
  return part > 0 ? (size + part - 1) / part : 0;
}
static inline int64_t fk_cpu_min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t fk_cpu_max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
static inline float *fk_cpu_f32(FkTensor t, int64_t row) {
  assert(t.dtype == FK_F32);
  return (float *)t.data + row * t.ld;
}

/* cpu-gemm.c: c = alpha a op(b) + beta c on the calling thread alone, row-major; a [m, k], b [k, n], or [n, k] when
 * transposed. */

void fk_cpu_gemm(bool transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                 const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
void fk_cpu_gemm_double(bool transposed, int64_t m, int64_t n, int64_t k, const double *a, int64_t lda, const double *b,
                        int64_t ldb, double beta, double *c, int64_t ldc);

/* cpu-math.c: loops over rows [rows, cols] of float32, `ld` floats apart. */

void fk_cpu_exp(float *y, const float *x, int64_t n);
void fk_cpu_act_span(float *y, const float *x, int64_t n, FkAct act);
float fk_cpu_row_max(const float *x, int64_t n);
float fk_cpu_softmax_span(float *x, int64_t n, float max); /* x = exp(x - max); returns the sum */
float fk_cpu_exp2_span(float *x, int64_t n, float max);    /* x = 2^(x - max); returns the sum */
void fk_cpu_scale_span(float *x, int64_t n, float factor);
void fk_cpu_axpy_span(float *y, const float *x, int64_t n, float factor); /* y += factor * x */
double fk_cpu_sum(const float *x, int64_t n);
double fk_cpu_sum_squares(const float *x, int64_t n, double mean); /* sum (x - mean)^2 */
float fk_cpu_dot(const float *a, const float *b, int64_t n);
void fk_cpu_add_span(float *y, const float *a, const float *b, int64_t n);
void fk_cpu_mul_span(float *y, const float *a, const float *b, int64_t n);
void fk_cpu_bias_rows(float *y, int64_t ld, int64_t rows, int64_t cols, const float *bias);
void fk_cpu_add_rows(float *y, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t cols);
/* y = x + bias + residual, x [rows, cols] dense; bias and residual may be NULL; x or the residual may be y. */
void fk_cpu_finish_rows(float *y, int64_t ld, const float *x, int64_t rows, int64_t cols, const float *bias,
                        const float *residual, int64_t ldr);
void fk_cpu_gate_rows(float *y, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t cols, const float *gate);
/* y = (x - mean) * scale + shift per column. */
void fk_cpu_affine_rows(float *y, int64_t ld, const float *x, int64_t ldx, int64_t rows, int64_t cols,
                        const float *mean, const float *scale, const float *shift);
/* y = (x - mean) * rstd * (plus_one + scale) + shift of one row; scale and shift may be NULL. */
void fk_cpu_norm_span(float *y, const float *x, int64_t n, float mean, float rstd, float plus_one, const float *scale,
                      const float *shift);
/* sum[c] += x, square[c] += x^2 over the rows. */
void fk_cpu_column_moments(double *sum, double *square, const float *x, int64_t ld, int64_t rows, int64_t cols);
void fk_cpu_rope_span(float *x, const float *table, int64_t n); /* n channels, adjacent pairs */
/* sum[0] = sum |a - b|, sum[1] = sum |b|. */
void fk_cpu_distance_span(double *sum, const float *a, const float *b, int64_t n);
/* y += (sa * sw) * (float)x per column; sw NULL: 1. */
void fk_cpu_promote_span(float *y, const double *x, int64_t n, float sa, const float *sw);
/* y = x rounded to E4M3; x from 0 to 448. */
void fk_cpu_round_e4m3_span(double *y, const float *x, int64_t n);
bool fk_cpu_finite(const float *x, int64_t n);
void fk_cpu_from_u8_span(float *y, const uint8_t *x, int64_t n);
void fk_cpu_to_u8_span(uint8_t *y, const float *x, int64_t n);
void fk_cpu_bf16_to_f32_span(float *y, const uint16_t *x, int64_t n);

/* cpu-elementwise.c: an op on elements alone. `span` gets n elements of each tensor; t[0] is the result. */

typedef void (*FkCpuSpan)(void *const *t, int64_t n, const void *argument);
void fk_cpu_spans(FkBackend *be, int count, const FkTensor *t, FkCpuSpan span, const void *argument);

/* cpu-norm.c: one row of heads, for the fused linear too. */

void fk_cpu_rms_heads(float *y, const float *x, int64_t cols, int64_t width, const float *weight, float eps);

/* cpu-quant-linear.c: y [rows, cols] = the product of a linear whose weight is quantised, rows row.. and columns col..
 * of it, without bias and epilogue. `scratch`: as many floats as fk_cpu_quant_scratch says, aligned to 8 bytes. */

size_t fk_cpu_quant_scratch(const FkLinear *l, int64_t rows, int64_t cols);
void fk_cpu_quant_product(const FkLinear *l, int64_t row, int64_t rows, int64_t col, int64_t cols, float *y, int64_t ld,
                          float *scratch);

/* cpu-copy.c */

void fk_cpu_convert(void *to, FkDtype as, const void *from, FkDtype dtype, int64_t n);

/* cpu-adapt.c */

/* values [n, stride] += scale * left [n, rank] right [rank, q] in the columns before q, as FkAdapted says; ld: numbers
 * from one row of `left` to the next. */
void fk_cpu_add_product(float *values, int64_t stride, int64_t n, const float *left, int64_t ld, const float *right,
                        int64_t rank, int64_t q, float scale);
/* What x->adapted adds, to the numbers [rows, cols] of x. scratch: as many floats as fk_cpu_adapt_scratch says of so
 * many rows. */
void fk_cpu_adapt(const FkCoded *x, float *values, float *scratch);
size_t fk_cpu_adapt_scratch(const FkCoded *x, int64_t rows);

/* The op table's slots, by file. */

void fk_cpu_linear(FkBackend *be, const FkLinear *l);
bool fk_cpu_linear_fused(FkBackend *be, const FkLinear *l, int groups);
void fk_cpu_attention(FkBackend *be, const FkAttention *a);
void fk_cpu_attention_codes(FkBackend *be, const FkAttention *a);
void fk_cpu_conv(FkBackend *be, const FkConv *c);
bool fk_cpu_conv_fused(FkBackend *be, const FkConv *c);
void fk_cpu_upsample(FkBackend *be, FkTensor y, FkTensor x);
void fk_cpu_layer_norm(FkBackend *be, const FkLayerNorm *n, int groups);
void fk_cpu_rms_norm(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, float eps);
void fk_cpu_rope(FkBackend *be, FkTensor x, FkTensor table, int64_t heads);
void fk_cpu_group_norm(FkBackend *be, const FkGroupNorm *n);
bool fk_cpu_group_norm_silu(FkBackend *be, const FkGroupNorm *n);
void fk_cpu_act(FkBackend *be, FkTensor y, FkTensor x, FkAct act);
void fk_cpu_add(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
void fk_cpu_mul(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
void fk_cpu_gate_add(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate);
void fk_cpu_combine(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef);
void fk_cpu_distance(FkBackend *be, FkTensor out, FkTensor a, FkTensor b);
void fk_cpu_check(FkBackend *be, FkTensor x, const char *stage);
void fk_cpu_match(FkBackend *be, FkTensor best, FkTensor score, FkTensor src, FkTensor dst);
void fk_cpu_mean_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index);
void fk_cpu_copy(FkBackend *be, FkTensor y, FkTensor x);
void fk_cpu_quantize(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x, float given);
void fk_cpu_expand(FkBackend *be, FkTensor y, const FkCoded *x);
void fk_cpu_embed(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids);
void fk_cpu_gather_rows(FkBackend *be, FkTensor y, FkTensor x, FkTensor index);
void fk_cpu_pack(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift);
void fk_cpu_unpack(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift);
void fk_cpu_from_u8(FkBackend *be, FkTensor y, FkTensor x);
void fk_cpu_to_u8(FkBackend *be, FkTensor y, FkTensor x);
void fk_cpu_resize(FkBackend *be, const FkResize *r);
void fk_cpu_frame_read(FkBackend *be, FkTensor y, const FkFrame *f, int left, int top, int first);
void fk_cpu_frame_write(FkBackend *be, const FkFrame *f, FkTensor x);
void fk_cpu_frame_keep(FkBackend *be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after);
void fk_cpu_mix(FkBackend *be, FkTensor y, FkTensor x, FkTensor fade);
void fk_cpu_invert(FkBackend *be, FkTensor y, FkTensor x);
void fk_cpu_window(FkBackend *be, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns);
void fk_cpu_bounds(FkBackend *be, FkTensor y, FkTensor x);
void fk_cpu_mask_tokens(FkBackend *be, FkTensor y, FkTensor x);

#endif
