/* SPDX-License-Identifier: Apache-2.0 */
/* The FLUX.1 transformer (diffusers transformer_flux.py): 19 double and 38 single blocks in the large model.
 *
 * Rows of the joint sequence are [text | target | context]; one buffer `hidden` holds them through all blocks, so the
 * single blocks need no concatenation. */
#ifndef FK_FLUX_H
#define FK_FLUX_H

#include "config.h"
#include "ops.h"
#include "weights.h"

/* One stream of a double block. qkv: to_k, to_v, to_q one below the other (FK_EPI_QKV says why that order). */
typedef struct {
  FkWeight mod, qkv, out, ff_in, ff_out;
  FkTensor mod_bias, qkv_bias, out_bias, ff_in_bias, ff_out_bias, q_norm, k_norm;
} FkFluxStream;

typedef struct {
  FkFluxStream text, image;
} FkFluxDouble;

/* in: to_k, to_v, to_q, proj_mlp one below the other; out: proj_out on [attention | mlp]. */
typedef struct {
  FkWeight mod, in, out;
  FkTensor mod_bias, in_bias, out_bias, q_norm, k_norm;
} FkFluxSingle;

typedef struct {
  FkWeight linear_1, linear_2;
  FkTensor bias_1, bias_2;
} FkFluxMlp;

typedef struct {
  FkFluxConfig config;
  int64_t width, mod_total; /* D; values of all modulations of one evaluation */
  bool whole_last_block;    /* plans only: count the last block as the reference runs it, on every row */
  FkWeight x_embedder, context_embedder, proj_out, norm_out;
  FkTensor x_embedder_bias, context_embedder_bias, proj_out_bias, norm_out_bias;
  FkFluxMlp time, guidance, pooled;
  FkFluxDouble *doubles;
  FkFluxSingle *singles;
  FkStore *store; /* of the weights; (transfer none) */
} FkFlux;

void fk_flux_init(FkFlux *flux, const FkFluxConfig *config, FkBinder *binder);
void fk_flux_clear(FkFlux *flux);
/* Around the ops that use a block's weights, or its modulation's: they may not stay in memory (residency.h). */
void fk_flux_need(const FkFlux *flux, const FkBackend *be, int block, bool modulation);
void fk_flux_done(const FkFlux *flux, const FkBackend *be, int block, bool modulation);
static inline int fk_flux_blocks(const FkFlux *flux) {
  return flux->config.layers + flux->config.single_layers;
}

/* Runs that record evaluations of their own: sizes and addresses differ. */
enum { FK_RECORDINGS_WHOLE, FK_RECORDINGS_DRAFT, FK_RECORDINGS_REGION };

/* Numbers; scores and values in 8 bits (fk_op_attention_quantized); values alone (fk_op_attention_value_codes). */
typedef enum {
  FK_ATTENTION_BF16,
  FK_ATTENTION_FP8,
  FK_ATTENTION_FP8_VALUES,
  FK_ATTENTION_PRECISIONS
} FkAttentionPrecision;

/* Buffers of one forward of a fixed size, from an arena. */
typedef struct {
  const FkFlux *flux;
  FkBackend *be;
  FkAttentionPrecision attention;
  FkArena *arena;                /* for kernel scratch: what an op takes it gives back */
  int64_t text, target, context; /* rows */
  FkTensor tokens;               /* [target + context, in_channels]: the model's input */
  FkTensor hidden, normed;       /* [rows, D] */
  FkTensor wide;                 /* [rows, 7 D]: [K | V | Q or attention | MLP] */
  /* [rows, 5 D] and [rows]: quantised operands of products, a norm's in the first D columns, or attention's and beside
   * it the MLP's; scales of what is measured, and of results that leave their op as codes under a given scale, which
   * may happen while the norm's are read. Absent where no block's weights are quantised. */
  FkTensor codes, codes_scale, given_scale;
  FkTensor rope;        /* [rows, E] float32 */
  FkTensor mod;         /* [mod_total] float32: the running evaluation's */
  FkTensor velocity;    /* [target, out_channels] float32: the model's output */
  FkTensor *saved_kv;   /* [slots * blocks] of [kept_target + context, 2 D], or NULL: nothing is reused */
  int64_t kept_target;  /* target rows whose keys and values are saved too, before the context's: none or all */
  FkTensor saved_index; /* [context] int32: saved rows that stand for the context; absent: the last ones */
  int recordings;       /* FK_RECORDINGS_*, counted on where sizes of one kind differ */
} FkFluxRun;

#define FK_FLUX_REFERENCES 8 /* pictures beside the frame, at most */

/* Pictures beside the frame: context tokens behind its own. */
typedef struct {
  int n;
  int rows[FK_FLUX_REFERENCES], columns[FK_FLUX_REFERENCES]; /* tokens */
  bool apart;                                                /* their positions (fk_latent_places) */
} FkFluxReferences;

static inline int64_t fk_flux_reference_tokens(const FkFluxReferences *r) {
  int64_t tokens = 0;
  for (int i = 0; i < r->n; i++) tokens += (int64_t)r->rows[i] * r->columns[i];
  return tokens;
}

typedef struct {
  int64_t text;                 /* tokens */
  int64_t grid_h, grid_w;       /* target tokens: rows and columns */
  int64_t context_h, context_w; /* 0: no reference image */
  FkFluxReferences references;
  int keep_context; /* slots of saved_kv: one for each frame and branch; 0: no context reuse */
  FkAttentionPrecision attention;
  bool keep_target; /* the slots hold the target rows too */
  int recordings;
} FkFluxShape;

void fk_flux_run_open(FkFluxRun *run, const FkFlux *flux, FkBackend *be, FkArena *arena, const FkFluxShape *shape);
void fk_flux_run_clear(FkFluxRun *run);

/* Offset of block i's modulation in FkFluxRun.mod; double blocks image then text; i = blocks: norm_out. */
int64_t fk_flux_mod_offset(const FkFlux *flux, int block);

/* How one evaluation runs. */
typedef struct {
  int evaluation;
  int slot;           /* whose keys and values of the context are saved or reused */
  bool reuse_context; /* the context rows are not computed: their keys and values are the slot's saved ones */
  bool full;          /* weights that have a twin in full precision use it */
} FkFluxPass;

/* run->tokens -> run->velocity, with the evaluation's modulation and text rows in the run (fk_flux_load). */
void fk_flux_forward(FkFluxRun *run, const FkFluxPass *pass);

/* The same forward in pieces, for policies that look or skip in between: embed, blocks
 * first..last of the list [double blocks, single blocks] in order, output. After the last block only the target rows of
 * run->hidden are defined. part 1..7: which piece of the edit this is; equal parts have equal first, last and run. */
void fk_flux_embed(FkFluxRun *run, const FkFluxPass *pass);
void fk_flux_run_blocks(FkFluxRun *run, const FkFluxPass *pass, int part, int first, int last);
void fk_flux_output(FkFluxRun *run);
/* After embed: the target rows of block 0's modulated input, [target, D] in run->normed until the next block. */
FkTensor fk_flux_probe(FkFluxRun *run);
/* Rows of `hidden` that a pass computes. */
static inline int64_t fk_flux_active(const FkFluxRun *run, const FkFluxPass *pass) {
  return run->text + run->target + (pass->reuse_context ? 0 : run->context);
}

#endif
