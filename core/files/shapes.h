/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations of files that come without one, from the shapes of their tensors. */
#ifndef FK_SHAPES_H
#define FK_SHAPES_H

#include "config.h"

/* Fills the part's configuration. What shapes do not say is FLUX.1's: the split of a head's channels among positions
 * (heads must be 128 wide), the autoencoder's scaling, shift and training size, CLIP's heads of 64, epsilons.
 * FK_ERROR_MODEL_MISMATCH names the tensor that is missing or gives no configuration. */
bool fk_shapes_config(FkConfig *config, const FkNames *names, FkPart part, GError **error);

#endif
