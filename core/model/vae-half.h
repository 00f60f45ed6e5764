/* SPDX-License-Identifier: Apache-2.0 */
/* Between vae.c (one tile through the network) and vae-tiles.c (which tiles, and how they are joined). */
#ifndef FK_VAE_HALF_H
#define FK_VAE_HALF_H

#include "vae.h"

void fk_vae_encode_tile(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor image, FkTensor moments);
void fk_vae_decode_tile(const FkVae *vae, FkBackend *be, FkArena *arena, FkTensor latent, FkTensor image);

#endif
