/* SPDX-License-Identifier: Apache-2.0 */
/* The backend boundary: one table of function pointers per kind of machine (cpu, null, cuda). libc only.
 *
 * Basic slots are filled by every backend. Fused slots may be NULL: ops.c then runs the composition of basic slots that
 * defines them. Ops enqueue and return; they cannot fail in the middle. The first failure is written into the backend
 * (fk_backend_fail) and every later op of that backend does nothing until fk_backend_sync reports it.
 *
 * Ops have no batch axis: the engine walks the frames of a batch one after another inside each step, because one frame
 * fills the machine and because the bytes of a frame may then not depend on its batch. */
#ifndef FK_BACKEND_H
#define FK_BACKEND_H

#include "blocks.h"
#include "frame.h"

#include <time.h>

#define FK_BACKEND_ABI 17
#define FK_MAX_GROUPS 2
#define FK_MAX_TERMS 6
#define FK_QUANT_BLOCK 128       /* columns, or rows, under one scale; part of the format, as is the tile of keys */
#define FK_QUANT_VALUES 1024     /* rows of v under one scale, and of one promotion, in attention of codes */
#define FK_QUANT_MEAN 64         /* rows of v whose mean it is taken off, */
#define FK_QUANT_MEAN_PART 16    /* added so many at a time */
#define FK_QUANT_PROMOTE 512     /* products of E4M3 codes summed exactly where a row has one scale */
#define FK_QUANT_MAX_K (1 << 17) /* inner size of products of codes: int8 sums stay below 2^31 */
#define FK_QUANT_HEAD 1024       /* widest head of quantised attention: its scores are exact in float32 */
#define FK_EVENTS 16384          /* events a backend holds at a time, numbered from 0 */
#define FK_RING_SLOTS 8          /* of a ring of weights that come and go */
#define FK_AHEAD_SLOTS 2         /* behind them: halves of a scratch that weights are expanded into (expand.h) */
#define FK_STREAM_SLOTS (FK_RING_SLOTS + FK_AHEAD_SLOTS)
#define FK_STAGING 12     /* pinned buffers that weights come through */
#define FK_LOOP_EVENTS 64 /* the first of them belong to the denoising loop, the others to a profile */

typedef struct FkBackend FkBackend;

typedef enum { FK_ACT_NONE, FK_ACT_SILU, FK_ACT_GELU_TANH, FK_ACT_QUICK_GELU } FkAct;

/* What a backend can do beyond the basic ops, and which of it is used (FkBackend.can, .use). */
enum {
  FK_CAN_FUSED_LINEAR = 1u << 0,     /* linear_fused */
  FK_CAN_FUSED_QKV = 1u << 1,        /* linear_fused for FK_EPI_QKV */
  FK_CAN_FLASH = 1u << 2,            /* flash_attention */
  FK_CAN_FUSED_CONV = 1u << 3,       /* conv_fused */
  FK_CAN_FUSED_GROUP_NORM = 1u << 4, /* group_norm_silu */
  FK_CAN_GRAPH = 1u << 5,            /* graph_begin and graph_end */
  FK_CAN_FP8 = 1u << 6,              /* products of E4M3 codes in linear and linear_fused */
  FK_CAN_QUANT_ATTENTION = 1u << 7,  /* attention of numbers whose queries, keys and values become codes */
  FK_CAN_DEVICE_IMAGES = 1u << 8,    /* pictures in its memory that somebody else allocated */
  FK_CAN_GIVEN_SCALE = 1u << 9,      /* quantize and layer_norm with a given scale */
  FK_CAN_VALUE_CODES = 1u << 10,     /* attention of numbers with values in codes */
  FK_CAN_WEIGHT_CODES = 1u << 11,    /* products of numbers and weights in E4M3 codes in linear */
  FK_CAN_EXPAND_AHEAD = 1u << 12,    /* stream_expand */
  FK_CAN_FUSED_CODES = 1u << 13      /* linear_fused and flash_attention with results in codes */
};

/* What opening a backend consists of, in this order: the module's file, the driver, the device's context, memory of
 * the backend's own (FkBackend.open_ms). */
enum { FK_OPEN_MODULE, FK_OPEN_DRIVER, FK_OPEN_DEVICE, FK_OPEN_MEMORY, FK_OPEN_STEPS };

typedef enum {
  FK_FAIL_NONE,
  FK_FAIL_MEMORY,     /* an allocation was refused */
  FK_FAIL_DEVICE,     /* a kernel or the device failed; `dead` says whether the process must restart */
  FK_FAIL_NONFINITE,  /* fk_op_check met NaN or infinity; the text is the stage's name */
  FK_FAIL_UNSUPPORTED /* no such machine, architecture or driver */
} FkFailure;

/* y = epilogue(x W^T + bias): x [M, K], w [N, K], bias [N] float32 or none, y [M, N].
 * FK_EPI_ACT   y = act(.)
 * FK_EPI_GATE  y = y + gate * (.), gate [N] float32: the residual stream, read and written in place
 * FK_EPI_ADD   y = y + (.)
 * FK_EPI_QKV   N = 3 D + M with column blocks [K | V | Q | MLP], or N = 2 D: [K | V]. K and Q: RMSNorm over each head
 * of E columns with k_norm, q_norm [E] float32 (eps 1e-6), then rotary embedding by `rope` [M, E] float32 (cos, sin
 * pairs); V: as it is; MLP: gelu-tanh. Attention written over Q then stands beside MLP: no concatenation. */
typedef enum { FK_EPI_ACT, FK_EPI_GATE, FK_EPI_ADD, FK_EPI_QKV } FkEpilogue;

/* clang-format off */
/* Quantised operands (value = code * scale).
 * w alone: x is numbers, w is codes E4M3 or I8; each code is first multiplied by its scale in float32.
 * Both: x is codes of w's type, with x_scale sa [M] or [M, K / 128] float32. The sum of products of codes over a
 * k-block is exact and then rounded to float32, acc[m, n, b]; everything after it is float32, blocks b in order:
 *   x_scale            k-block          y
 *   [M, K / 128]       128              sw[n] * sum_b (sa[m, b] * acc[m, n, b])
 *   [M], codes E4M3    512              sw[n] * (sa[m] * sum_b acc[m, n, b])
 *   [M], codes I8      all of K         sw[n] * (sa[m] * acc[m, n])
 * then bias and epilogue. sw is w.scale; TENSOR: one for all n. BLOCK: sw[n, b] multiplies each term instead, the
 * k-block is the smaller of the two (one is a multiple of the other): (sa[m, b] * sw[n, b]) * acc, or sw[n, b] * acc.
 * With y_codes, E4M3 [M, C], the last C columns of y leave as codes: the result as numbers of y's type, followed by
 * `quantize` with `given` and the scales y_scale, [M] or [M, C / 128]. In y itself these columns then hold anything.
 * FK_EPI_ACT: C is N; FK_EPI_QKV: the MLP columns. */
/* clang-format on */
typedef struct {
  FkTensor x, y, bias, gate;
  FkTensor x_scale;          /* not given: x is numbers; where w.x_scale > 0, every number of it is that */
  FkTensor y_codes, y_scale; /* not given: y leaves as numbers alone */
  float given;               /* of y_codes; 0: measured */
  FkWeight w;
  FkEpilogue epilogue;
  FkAct act;
  FkTensor q_norm, k_norm, rope;
  int64_t width; /* FK_EPI_QKV: D */
  void *scratch; /* set by fk_op_linear: what FkOps.scratch asked for */
} FkLinear;

/* y = LN(x) * (1 + scale) + shift, or LN(x) * weight + bias; vectors [D] float32; biased variance; y may be x.
 * With y_scale, [rows] or [rows, D / 128], y is codes: the float32 result followed by `quantize` with `given`. */
typedef struct {
  FkTensor x, y, weight, bias, scale, shift, y_scale;
  float eps, given;
} FkLayerNorm;

/* clang-format off */
/* o = softmax(q k^T * scale + bias) v per head; q, o [Sq, N*E], k, v [Sk, N*E]; o may be q itself.
 * bias: none or float32 [N, Sq + Sk - 1], indexed by (j - i + Sq - 1). causal: j <= i.
 *
 * With v_codes, E4M3 [128 ceil(Sk / 128), N*E], and v_scale, [ceil(Sk / 128), N] float32: q, k, v and o are numbers,
 * no bias, not causal. The two are room that the slot fills with what `quantize` makes of v after norm and rotary
 * embedding, in whatever order the backend reads it; blocks of keys are counted from row 0 of k, which is the first row
 * of the joint sequence [text, target, context]. Per head and query, keys in tiles t of 128, the last first, everything
 * float32 but the sum of products, which is exact:
 *   s_j = (q . k_j) * (scale * log2(e))
 *   m'  = max(m, max_j s_j);  r = exp2(m - m');  p_j = exp2(s_j - m')
 *   l'  = l * r + sum_j p_j
 *   O'  = O * r + v_scale_t * (float)(sum_j e4m3(256 p_j) * v_j)
 *   o   = O / (256 l)
 *
 * With k_codes, I8 [Sk, N*E], k_scale, [ceil(Sk / 128), N], and v_mean, [N*E], both float32, as well: k_codes and
 * k_scale are filled from k as `quantize` does it; queries become codes I8 with a scale for each row and head, which
 * the slot keeps to itself. E <= 1024. Values become codes of what they lie off a mean of 64 of them, one scale for
 * each head and 1024 rows: v_scale is [ceil(Sk / 1024), N], and per column, in order, sums of 16 rows and their sum
 *   v_mean = (sum_i v[floor(i Sk / 64)]) / 64, i = 0..63;  v_j: the codes of v[j] - v_mean
 * Tiles as above, of each the first 64 keys and then the others; m, A, a, O and l begin at 0:
 *   f   = (q_scale * (scale * log2(e))) * k_scale_t;  d_j = (float)(q . k_j), exact
 *   x_j = fma(f, d_j, 5 - m);  w_j = e4m3(exp2(x_j));  m' = m, r = 1
 * but in the first of all steps, and in one where a w_j is 448 or no number:
 *   u   = max_j x_j - 5;  w_j = e4m3(exp2(x_j - u));  m' = m + u;  r = exp2(-u)
 * and then
 *   A'  = A * r + sum_j w_j * v_j;  a' = a * r + sum_j w_j, exact but for r
 * after each block b of 1024 keys, M being the m of the block before:
 *   O'  = O * exp2(M - m) + v_scale_b * (float)A;  l' = l * exp2(M - m) + (float)a;  A' = a' = 0
 * and at the end
 *   o   = O / l + v_mean
 *
 * With o_codes, E4M3 [Sq, N*E], the result of any of them leaves as codes: numbers of o's type, followed by `quantize`
 * with given[0] for rows 0..given_rows-1 and given[1] for the others, and the scales o_scale, [Sq] or [Sq, N*E / 128].
 * o itself then holds anything. */
/* clang-format on */
typedef struct {
  FkTensor q, k, v, o, bias;
  FkTensor k_codes, k_scale, v_codes, v_scale, v_mean; /* not given: everything stays numbers */
  FkTensor o_codes, o_scale;
  float given[2]; /* of o_codes; 0: measured */
  int64_t given_rows;
  int64_t heads;
  float scale;
  bool causal;
} FkAttention;

/* y [Ho, Wo, Cout] = conv(x [H, W, Cin]) + bias (+ residual), w [Cout, kh*kw*Cin] in the order kh, kw, Cin.
 * upsample: x is first doubled by nearest neighbour. pad: zeros before (top, left) and after (bottom, right). */
typedef struct {
  FkTensor x, y, bias, residual;
  FkWeight w;
  int kernel, stride, pad_before, pad_after;
  bool upsample;
} FkConv;

/* y = (x - mean_g) / sqrt(var_g + eps) * weight + bias, then silu if asked; x [H, W, C], groups over C. */
typedef struct {
  FkTensor x, y, weight, bias;
  int groups;
  float eps;
  bool silu;
} FkGroupNorm;

/* One pass of a resize of bytes, x [H, W, C] to y: along rows (columns change) or, with `rows`, along columns (rows
 * change). Value i of the axis is the sum over k < count[i] of weight[i, k] * x[first[i] + k] and 2^21, shifted right
 * by FK_RESIZE_BITS, in 0..255: exact in 32 bits. first, count [n], weight [n, taps] int32. Dense tensors. */
#define FK_RESIZE_BITS 22
typedef struct {
  FkTensor x, y, first, count, weight;
  bool rows;
} FkResize;

/* Of the 2 r + 1 values around each, the ends repeated; mean: nearest, halves up. */
typedef enum { FK_WINDOW_MOST, FK_WINDOW_LEAST, FK_WINDOW_MEAN } FkWindow;

/* Rows of a matrix with what adapters add to them: for each term in its order, columns j < q of every row i become
 *   w = w + scale * s, where s = 0, then s = s + left[i, k] * right[k, j] for k = 0 .. rank - 1
 * in float32, every product and sum rounded; what comes of all terms is rounded once more, to the type in memory. NaN
 * is some NaN. left [rows, rank] and right [rank, q] are float32. They come in a staging buffer: first the numbers of
 * the rows, or nothing where memory has them already; behind them, at fk_adapted_begin, the right parts of all terms,
 * one behind the other; then for each row the left parts of all. */
#define FK_ADAPTED_TERMS 32
#define FK_ADAPTED_RIGHT (120u << 16) /* bytes that the right parts have at most */
#define FK_ADAPTED_ROW (256u << 10)   /* that a row's numbers and its left parts have at most */
typedef struct FkAdapted {
  int64_t rows, cols;
  FkDtype from;  /* of the numbers */
  bool in_place; /* memory has them, in its own type, which is `from` */
  int n;
  struct {
    int64_t rank, q;
    float scale;
  } term[FK_ADAPTED_TERMS];
} FkAdapted;

/* The table of a backend. A module is compiled apart from the program that opens it, so both must see the same structs:
 * whoever changes one of them, or the meaning of a slot, raises FK_BACKEND_ABI; FK_BACKEND_SIZES catches most of what
 * is forgotten. A module of another number or size is not used. */
#define FK_BACKEND_STRUCTS 11
typedef struct {
  uint32_t abi;
  uint32_t sizes[FK_BACKEND_STRUCTS]; /* FK_BACKEND_SIZES, as the backend was compiled */
  const char *name;

  /* Machine. open returns false with a sentence in `message`. */
  bool (*open)(FkBackend *be, int device, char *message, size_t size);
  void (*close)(FkBackend *be);
  /* These two from any thread, while another one works. The CUcontext that its addresses belong to, kept by the
   * backend; NULL slot: there is none. */
  void *(*context)(FkBackend *be);
  /* Whether ops may follow `memory`, which somebody else allocated, for `bytes`. Asked where FK_CAN_DEVICE_IMAGES. */
  bool (*reach)(FkBackend *be, const void *memory, size_t bytes);
  void (*memory)(FkBackend *be, size_t *free_bytes, size_t *total_bytes);
  void *(*alloc)(FkBackend *be, size_t bytes); /* 256-byte aligned; NULL when refused, without marking a failure */
  void (*release)(FkBackend *be, void *memory);
  void (*upload)(FkBackend *be, void *to, const void *from, size_t bytes);   /* `from` may be reused on return */
  void (*download)(FkBackend *be, void *to, const void *from, size_t bytes); /* waits: `to` is filled on return */
  void (*sync)(FkBackend *be); /* waits for everything enqueued; failures found are marked */
  /* Events 0..FK_EVENTS-1: record enqueues one, wait blocks until the device has reached its last record (at once where
   * there is none). Recording an event again moves it. elapsed_ms: between two events that have both been reached. */
  void (*event_record)(FkBackend *be, int event);
  void (*event_wait)(FkBackend *be, int event);
  double (*elapsed_ms)(FkBackend *be, int from, int to);
  /* Weight files go up through pinned memory: stage gives one of FK_STAGING host buffers to fill (waits until it is
   * free), commit enqueues its copy to `to`, converting `count` elements from dtype `from` to dtype `as`. NULL slots:
   * upload.
   */
  void *(*stage)(FkBackend *be, int buffer, size_t bytes);
  void (*commit)(FkBackend *be, int buffer, void *to, FkDtype as, FkDtype from, size_t count);
  /* Instead of commit: of the buffer's numbers [rows, cols] (float32, bfloat16, float16) the codes E4M3 and the scales
   * [rows] that `quantize` makes. cols <= FK_QUANT_MAX_K. NULL slot: the loader makes them. */
  void (*commit_codes)(FkBackend *be, int buffer, void *codes, float *scales, FkDtype from, int64_t rows, int64_t cols);
  /* Instead of commit: what the buffer has for `m`, into `to`, as float32 or bfloat16. NULL slot: the loader adds. */
  void (*commit_adapted)(FkBackend *be, int buffer, void *to, FkDtype as, const FkAdapted *m);
  /* Weights that come while ops run. Host memory from which copies are asynchronous. copy enqueues one beside the ops,
   * after those that stream_done has closed for this slot; wait: ops enqueued from now on start after the slot's last
   * copy; done: ops enqueued so far use the slot. NULL slots: there is none of this. */
  void *(*host_alloc)(FkBackend *be, size_t bytes); /* NULL when refused, without marking a failure */
  void (*host_release)(FkBackend *be, void *memory);
  void (*stream_copy)(FkBackend *be, int slot, void *to, const void *from, size_t bytes);
  void (*stream_wait)(FkBackend *be, int slot);
  void (*stream_done)(FkBackend *be, int slot);
  /* A copy whose bytes are the numbers of x, as `expand` makes them: beside the ops, and beside the copies too. Between
   * graph_begin and graph_end it is recorded with the ops, if both halves of its slot are: a stream_done before it and
   * a stream_wait after it. NULL slot: there is none. */
  void (*stream_expand)(FkBackend *be, int slot, FkTensor y, const FkCoded *x);
  /* Recording of a fixed sequence of ops (CUDA graph). begin: true if the ops must be issued now (first time, or no
   * recording here), false if the recording `key` was replayed instead; end closes it; forget drops all recordings. */
  bool (*graph_begin)(FkBackend *be, int key);
  void (*graph_end)(FkBackend *be, int key);
  void (*graph_forget)(FkBackend *be);
  /* Opens a named range for a profiler's timeline (NVTX), `name` NULL: closes the last one. NULL slot: no profiler. */
  void (*range)(FkBackend *be, const char *name);

  /* Bytes that linear or linear_fused needs in FkLinear.scratch for this case; asked before every such op, and by plans
   * for a backend that is not there to run it. NULL slot: none. */
  size_t (*scratch)(const FkBackend *be, const FkLinear *l, int groups);

  /* Basic ops. */
  void (*linear)(FkBackend *be, const FkLinear *l); /* epilogue FK_EPI_ACT with FK_ACT_NONE only */
  void (*layer_norm)(FkBackend *be, const FkLayerNorm *n, int groups);
  void (*rms_norm)(FkBackend *be, FkTensor y, FkTensor x, FkTensor weight, float eps); /* rows of x [.., E] */
  void (*rope)(FkBackend *be, FkTensor x, FkTensor table, int64_t heads); /* x [S, N*E] in place, table [S, E] */
  void (*attention)(FkBackend *be, const FkAttention *a);
  void (*act)(FkBackend *be, FkTensor y, FkTensor x, FkAct act);
  void (*add)(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
  void (*mul)(FkBackend *be, FkTensor y, FkTensor a, FkTensor b);
  void (*gate_add)(FkBackend *be, FkTensor y, FkTensor x, FkTensor gate);     /* y += gate * x, gate [cols] float32 */
  void (*copy)(FkBackend *be, FkTensor y, FkTensor x);                        /* strided, converts dtypes */
  void (*embed)(FkBackend *be, FkTensor y, FkWeight table, FkTensor ids);     /* ids [S] int32 */
  void (*gather_rows)(FkBackend *be, FkTensor y, FkTensor x, FkTensor index); /* y[i] = x[index[i]], index int32 */
  /* clang-format off */
  /* y = codes of x (E4M3 or I8 by y's type; x float32 or bfloat16), one scale for each group of numbers. y_scale:
   *   [rows]                         a row
   *   [rows, cols / C]               C columns of a row; C divides cols: 128, or a head
   *   [ceil(rows / 128), cols / C]   C columns of 128 rows, counted from x's first row; the last group may be shorter
   * Per group, in float32, with limit 448 (E4M3) or 127 (I8):
   *   amax = max |x|, NaN passed over; inverse = limit / amax, scale = amax / limit; amax < 2^-100: 0 and 1
   *   code = round(x * inverse) to nearest even, saturated
   * An infinite amax gives inverse 0 and scale infinity, so that nothing of the group stays a number. E4M3: subnormals
   * and -0 kept, NaN gives 0x7F. I8 has no NaN: one in the group makes the scale NaN and the group's codes 0.
   * given, of E4M3 alone and not 0: the scale of every group; y_scale is filled with it, so that products need not
   * know.
   *   inverse = 1 / given; codes as above, but an infinite x gives NaN; each finite x whose |x * inverse| is above 448
   *   adds 1 to be->count.saturated, at the latest when sync returns */
  /* clang-format on */
  void (*quantize)(FkBackend *be, FkTensor y, FkTensor y_scale, FkTensor x, float given);
  /* y [rows, cols] float32 or bfloat16 = the numbers of x as fk_coded_expand makes them, with what x.adapted adds,
   * rounded once. */
  void (*expand)(FkBackend *be, FkTensor y, const FkCoded *x);
  void (*conv)(FkBackend *be, const FkConv *c);            /* without upsample and residual */
  void (*group_norm)(FkBackend *be, const FkGroupNorm *n); /* without silu */
  void (*upsample)(FkBackend *be, FkTensor y, FkTensor x); /* nearest, x2 */
  /* tokens [(H/2)*(W/2), 4C] <-> latent [H, W, C]; channel c*4 + py*2 + px (spec 6.1).
   * pack: token = (latent - shift) * scale; unpack: latent = token / scale + shift. C = the latent's channels read. */
  void (*pack)(FkBackend *be, FkTensor tokens, FkTensor latent, float scale, float shift);
  void (*unpack)(FkBackend *be, FkTensor latent, FkTensor tokens, float scale, float shift);
  void (*from_u8)(FkBackend *be, FkTensor y, FkTensor x); /* 2 * x / 255 - 1 */
  void (*to_u8)(FkBackend *be, FkTensor y, FkTensor x);   /* clamp(x / 2 + 1/2) * 255, half to even */
  void (*resize)(FkBackend *be, const FkResize *r);
  /* Pictures in memory that somebody else laid out; pixels of tensors are bytes, dense. Arithmetic: frame.h. read: y
   * [H, W, n], values first.. of R G B A of the part at left, top. write: x [H, W, channels], the whole of f. keep: the
   * bytes of `from` in `to`, of the same layout, where before and after (as x) agree in all pixels that share them. */
  void (*frame_read)(FkBackend *be, FkTensor y, const FkFrame *f, int left, int top, int first);
  void (*frame_write)(FkBackend *be, const FkFrame *f, FkTensor x);
  void (*frame_keep)(FkBackend *be, const FkFrame *to, const FkFrame *from, FkTensor before, FkTensor after);
  /* y = (fade y + (255 - fade) x) / 255, nearest, halves up; bytes, fade [rows]. */
  void (*mix)(FkBackend *be, FkTensor y, FkTensor x, FkTensor fade);
  /* Masks, bytes [H, W, 1], dense. invert: y = 255 - x; y may be x. window: y of x along rows, or with `columns` along
   * columns; y is not x. bounds [4] int32: W - left, H - top, right and bottom of the box around what is not 0, the
   * latter two behind its last pixel; 0 0 0 0: there is nothing. mask_tokens: y [(H/16)(W/16), 4 C] float32, 1 where
   * the first of the 8 x 8 pixels of a latent is 128 or more, else 0, in the order of pack. */
  void (*invert)(FkBackend *be, FkTensor y, FkTensor x);
  void (*window)(FkBackend *be, FkTensor y, FkTensor x, FkWindow window, int radius, bool columns);
  void (*bounds)(FkBackend *be, FkTensor y, FkTensor x);
  void (*mask_tokens)(FkBackend *be, FkTensor y, FkTensor x);
  /* y = sum of coef[i] * x[i], coef [n] float32 in backend memory (so a recording serves all steps); y may be an x. */
  void (*combine)(FkBackend *be, FkTensor y, int n, const FkTensor *x, FkTensor coef);
  /* out[0] = mean |a - b|, out[1] = mean |b|, float32 in backend memory, fixed reduction order. */
  void (*distance)(FkBackend *be, FkTensor out, FkTensor a, FkTensor b);
  /* Marks FK_FAIL_NONFINITE with `stage` (a string literal) if x holds NaN or infinity. */
  void (*check)(FkBackend *be, FkTensor x, const char *stage);
  /* Token merging (spec 10.4), see merge.h: best[i] = argmax over destinations of <src_i, dst_j> / (|src_i| |dst_j|),
   * ties to the lower j; score[i] that maximum. src [A, D], dst [B, D], best [A] int32, score [A] float32. */
  void (*match)(FkBackend *be, FkTensor best, FkTensor score, FkTensor src, FkTensor dst);
  /* y[i] = mean of x over rows index[first[i]]..index[first[i+1]-1], summed in that order; first [rows+1] int32. */
  void (*mean_rows)(FkBackend *be, FkTensor y, FkTensor x, FkTensor first, FkTensor index);

  /* Fused ops, NULL where there is no kernel. A slot may decline a case by returning false before enqueuing anything.
   */
  bool (*linear_fused)(FkBackend *be, const FkLinear *l, int groups); /* any epilogue, 1..2 groups of one N, K */
  bool (*layer_norm_quantized)(FkBackend *be, const FkLayerNorm *n, int groups); /* with y_scale */
  bool (*conv_fused)(FkBackend *be, const FkConv *c);                            /* with upsample and residual */
  bool (*group_norm_silu)(FkBackend *be, const FkGroupNorm *n);
  bool (*flash_attention)(FkBackend *be, const FkAttention *a);
} FkOps;

/* What ops have asked of a backend: the null backend's whole purpose, the others count too (it costs nothing). */
typedef struct {
  double linear_flop, attention_flop, conv_flop; /* 2 per multiply-add */
  double bytes;                                  /* operands read and written once */
  double streamed;                               /* by stream_copy */
  int64_t ops;
  int64_t saturated; /* numbers that a given scale was too small for */
} FkCount;

/* Sees every group of every matrix product before it is run (fk_op_linear), with its operands in backend memory as they
 * will be read: for measurements, never part of an edit's work. It may download, and may not change anything. Recorded
 * ops are not seen, so FK_CAN_GRAPH must not be used meanwhile. */
typedef struct FkObserver FkObserver;
struct FkObserver {
  void (*linear)(FkObserver *observer, FkBackend *be, const FkLinear *l);
};

struct FkBackend {
  const FkOps *ops;
  void *priv;    /* the backend's own state */
  void *module;  /* handle of the opened module, cuda only */
  FkDtype dtype; /* of activations: float32 on the CPU, bfloat16 on CUDA */
  int device;
  int threads;      /* of the CPU backend: as asked for (0: its default), from open on those it has */
  char machine[96]; /* "NVIDIA H200", "cpu (2 threads)" */
  FkFailure failure;
  bool dead; /* the process can no longer use the device */
  char message[256];
  FkCount count;
  uint32_t clears;           /* calls of fk_backend_clear */
  unsigned dumper, dumps;    /* debug.c: which of the process' backends that dump, from 1; its files so far */
  struct FkProfile *profile; /* NULL: ops are not timed; see profile.h */
  uint32_t can, use;         /* FK_CAN_*: what there is, and what an edit may use (fk_tune_apply) */
  size_t fixed_bytes;        /* device memory that the backend holds for itself from open to close */
  FkObserver *observer;      /* NULL: nobody looks */
  struct FkAhead *ahead;     /* products to come, whose weights are expanded ahead (expand.h); NULL: none */
  double open_ms[FK_OPEN_STEPS], open_at; /* what each step took; the clock at the end of the last one */
  const FkBackend *real; /* plans: the backend that will run the edit; its kernels' scratch is counted */
};

/* Of every struct that both sides of the table read. */
#define FK_BACKEND_SIZES                                                                                               \
  {                                                                                                                    \
    (uint32_t)sizeof(FkOps), (uint32_t)sizeof(FkBackend), (uint32_t)sizeof(FkLinear), (uint32_t)sizeof(FkLayerNorm),   \
        (uint32_t)sizeof(FkAttention), (uint32_t)sizeof(FkConv), (uint32_t)sizeof(FkGroupNorm),                        \
        (uint32_t)sizeof(FkResize), (uint32_t)sizeof(FkFrame), (uint32_t)sizeof(FkCoded), (uint32_t)sizeof(FkAdapted)  \
  }

/* Ends a step of opening. */
static inline void fk_open_step(FkBackend *be, int step) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  const double now = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
  be->open_ms[step] = be->open_at > 0 ? now - be->open_at : 0;
  be->open_at = now;
}

/* Ranks of all terms. */
static inline int64_t fk_adapted_ranks(const FkAdapted *m) {
  int64_t ranks = 0;
  for (int i = 0; i < m->n; i++) ranks += m->term[i].rank;
  return ranks;
}
/* Bytes of all right parts. */
static inline size_t fk_adapted_right(const FkAdapted *m) {
  size_t numbers = 0;
  for (int i = 0; i < m->n; i++) numbers += (size_t)(m->term[i].rank * m->term[i].q);
  return numbers * sizeof(float);
}
/* Where in a staging buffer the right parts begin. */
static inline size_t fk_adapted_begin(const FkAdapted *m) {
  const size_t numbers = m->in_place ? 0 : (size_t)(m->rows * m->cols) * fk_dtype_size(m->from);
  return (numbers + 255) / 256 * 256;
}

static inline bool fk_backend_uses(const FkBackend *be, uint32_t what) {
  return (be->use & what) == what;
}

/* name: "cpu", "null" or "cuda". threads: of the CPU backend, 0: the environment's FK_THREADS, else all processors that
 * the process may use; results do not depend on it. NULL with a sentence in `message` when it cannot be had; *failure
 * says of which kind. */
FkBackend *fk_backend_open(const char *name, int device, int threads, FkFailure *failure, char *message, size_t size);
void fk_backend_close(FkBackend *be);
/* Keeps the first failure; `format` as printf. */
void fk_backend_fail(FkBackend *be, FkFailure failure, const char *format, ...);
/* Waits; true when nothing has failed since the last fk_backend_clear. */
bool fk_backend_sync(FkBackend *be);
void fk_backend_clear(FkBackend *be);

/* For tests: with FK_HOST_IS_DEVICE=1 in the environment the CPU and null backends take pictures in "device memory",
 * which is the host's, as that of device 0. FK_CAN_DEVICE_IMAGES or 0. */
uint32_t fk_backend_host_device(FkBackend *be);

extern const FkOps fk_cpu_ops, fk_null_ops;

/* Memory of one purpose, handed out front to back and given back by mark and reset. Measures its peak; with base NULL
 * (null backend, or plan) it only counts. */
typedef struct {
  FkBackend *be;
  char *base;
  size_t size, used, peak;
} FkArena;

bool fk_arena_open(FkArena *arena, FkBackend *be, size_t bytes); /* bytes 0: counts only */
void fk_arena_close(FkArena *arena);
/* 256-byte aligned; past the end marks FK_FAIL_MEMORY on the backend and returns NULL. */
void *fk_arena_alloc(FkArena *arena, size_t bytes);
FkTensor fk_arena_1d(FkArena *arena, FkDtype dtype, int64_t n);
FkTensor fk_arena_2d(FkArena *arena, FkDtype dtype, int64_t rows, int64_t cols);
FkTensor fk_arena_3d(FkArena *arena, FkDtype dtype, int64_t a, int64_t b, int64_t c);
/* arena NULL: nothing is taken from it. */
static inline size_t fk_arena_mark(const FkArena *arena) {
  return arena ? arena->used : 0;
}
static inline void fk_arena_reset(FkArena *arena, size_t mark) {
  if (arena) arena->used = mark;
}

#endif
