/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of one component of a checkpoint (transformer, vae, text_encoder, text_encoder_2): one safetensors file,
 * or several with an index. Which tensors the network needs is weights.h. */
#ifndef FK_COMPONENT_H
#define FK_COMPONENT_H

#include "safetensors.h"

/* Limits of all files of a component together. The largest published one has 3 files, 780 tensors and 0.1 MB of
 * headers. */
#define FK_COMPONENT_MAX_SHARDS 256 /* each holds a file descriptor */
#define FK_COMPONENT_MAX_TENSORS 100000
#define FK_COMPONENT_MAX_HEADER (16u << 20) /* bytes */

typedef struct FkComponent FkComponent;

/* Opens folder/stem.safetensors.index.json and its shards if the index is there, else folder/stem.safetensors. `stem`
 * is "diffusion_pytorch_model" (diffusers) or "model" (transformers). Each name of the index must be in its shard and
 * in no other, and each tensor of a shard in the index. NULL with an FK_ERROR_MODEL_* that names file and tensor, or
 * FK_ERROR_MEMORY.
 */
FkComponent *fk_component_open(const char *folder, const char *stem, GError **error);
/* The same of one file, safetensors or GGUF by its first bytes; it may hold several components. */
FkComponent *fk_component_open_file(const char *path, GError **error);
void fk_component_free(FkComponent *component); /* (nullable) */
/* For messages: printable UTF-8. */
const char *fk_component_folder(const FkComponent *component);

size_t fk_component_shards(const FkComponent *component);
const FkSafetensors *fk_component_shard(const FkComponent *component, size_t index);
/* The tensor and the file that has it; NULL when there is none. */
const FkStTensor *fk_component_find(const FkComponent *component, const char *name, const FkSafetensors **shard);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkComponent, fk_component_free)

#endif
