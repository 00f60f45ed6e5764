/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP text encoder (transformers modeling_clip.py): token ids -> pooled vector. */
#ifndef FK_CLIP_H
#define FK_CLIP_H

#include "config.h"
#include "ops.h"
#include "weights.h"

typedef struct {
  FkTensor norm1, norm1_bias, norm2, norm2_bias;
  FkWeight qkv, out, fc1, fc2; /* qkv: q_proj, k_proj, v_proj one below the other */
  FkTensor qkv_bias, out_bias, fc1_bias, fc2_bias;
} FkClipLayer;

typedef struct {
  FkClipConfig config;
  FkWeight token_embedding, position_embedding;
  FkClipLayer *layers;
  FkTensor final_norm, final_norm_bias;
} FkClip;

/* Names every tensor of the encoder to the binder, which fills the fields in when it loads. */
void fk_clip_init(FkClip *clip, const FkClipConfig *config, FkBinder *binder);
void fk_clip_clear(FkClip *clip);
/* ids [length] on the host; pooled [1, width]: the final-normed state at the first end-of-text token (spec 4.1). */
void fk_clip_encode(const FkClip *clip, FkBackend *be, FkArena *arena, const int32_t *ids, int length, FkTensor pooled);

#endif
