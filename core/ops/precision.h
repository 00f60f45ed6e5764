/* SPDX-License-Identifier: Apache-2.0 */
/* Which form each kind of parameter matrix has in memory: chosen once when an engine opens, asked by role when a matrix
 * is bound. Activations have the backend's own type (FkBackend.dtype); vectors are float32. libc only. */
#ifndef FK_PRECISION_H
#define FK_PRECISION_H

#include "blocks.h"

/* What a matrix does in its network. The block linears of the transformer each have a role of their own, because
 * quantisation treats them differently; everything else shares one. */
typedef enum {
  FK_ROLE_EMBED,      /* x_embedder, context_embedder, time, guidance and pooled MLPs */
  FK_ROLE_MODULATION, /* adaLN: norm1.linear, norm1_context.linear, norm.linear, norm_out.linear */
  FK_ROLE_QKV,        /* joint attention's to_q, to_k, to_v and add_*_proj */
  FK_ROLE_OUT,        /* to_out.0, to_add_out */
  FK_ROLE_FF_UP,      /* ff.net.0.proj, ff_context.net.0.proj */
  FK_ROLE_FF_DOWN,    /* ff.net.2, ff_context.net.2 */
  FK_ROLE_SINGLE_IN,  /* single blocks: to_q, to_k, to_v, proj_mlp */
  FK_ROLE_SINGLE_OUT, /* single blocks: proj_out */
  FK_ROLE_FINAL,      /* proj_out of the model */
  FK_ROLE_CLIP,
  FK_ROLE_T5,
  FK_ROLE_CONV, /* the autoencoder, its attention's matrices included */
  FK_ROLES
} FkRole;

/* Rounding to an MX format before the codes are made: blocks of 32 with a power of two each, in E4M3 or E2M1. */
typedef enum { FK_MX_NONE, FK_MX_FP8, FK_MX_FP4 } FkMx;

typedef struct {
  FkDtype dtype;
  FkScaleKind scale;
  int block; /* FK_SCALE_BLOCK: elements of a row under one scale */
  FkLayout layout;
  FkMx mx;     /* of E4M3 by rows; their scales are powers of two then */
  bool twin;   /* quantised matrices are held in the backend's own type too (FkWeight.full) */
  bool dither; /* and a second time, rounded the other way (FkWeight.odd) */
} FkForm;

typedef struct {
  FkForm form[FK_ROLES];
  bool as_filed;  /* matrices without scales stay as their file has them, where that takes fewer bytes */
  bool either;    /* not decided yet: it may become the other */
  FkCode assumed; /* of a model without files: what a file of it would have; FK_CODE_NONE: numbers of `form` */
} FkPrecision;

/* Every role unquantised in one type. */
static inline FkPrecision fk_precision_uniform(FkDtype dtype) {
  FkPrecision p = {0};
  for (int i = 0; i < FK_ROLES; i++) p.form[i].dtype = dtype;
  return p;
}

#endif
