/* SPDX-License-Identifier: Apache-2.0 */
/* AutoencoderKL (diffusers models/autoencoders/autoencoder_kl.py, vae.py), channels-last. */
#ifndef FK_VAE_H
#define FK_VAE_H

#include "config.h"
#include "ops.h"
#include "weights.h"

typedef struct {
  FkTensor norm1, norm1_bias, norm2, norm2_bias;
  FkWeight conv1, conv2, shortcut; /* shortcut.out 0: identity */
  FkTensor conv1_bias, conv2_bias, shortcut_bias;
} FkVaeResnet;

typedef struct {
  FkTensor norm, norm_bias;
  FkWeight qkv, out; /* qkv: to_q, to_k, to_v one below the other */
  FkTensor qkv_bias, out_bias;
} FkVaeAttention;

/* One half of the autoencoder. Levels in the order in which they run. */
typedef struct {
  FkWeight conv_in, conv_out;
  FkTensor conv_in_bias, conv_out_bias, norm_out, norm_out_bias;
  int levels, resnets; /* resnets per level */
  int64_t channels[FK_VAE_MAX_LEVELS];
  FkVaeResnet resnet[FK_VAE_MAX_LEVELS][FK_VAE_MAX_RESNETS], mid[2];
  FkWeight resample[FK_VAE_MAX_LEVELS]; /* out 0: none (last level) */
  FkTensor resample_bias[FK_VAE_MAX_LEVELS];
  FkVaeAttention attention;
} FkVaeHalf;

typedef struct {
  FkVaeConfig config;
  FkVaeHalf encoder, decoder;
} FkVae;

void fk_vae_init(FkVae *vae, const FkVaeConfig *config, FkBinder *binder);
/* Pixels per latent, per side: 2 ^ (levels - 1). */
int fk_vae_factor(const FkVae *vae);
/* image [H, W, 3] in -1..1 -> moments [H/f, W/f, 2 * latent_channels]; the mean is the first half of the channels. */
void fk_vae_encode(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor image, FkTensor moments, bool tiling);
/* latent [h, w, latent_channels], already unscaled -> image [h*f, w*f, 3]. */
void fk_vae_decode(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor latent, FkTensor image, bool tiling);

#endif
