/* SPDX-License-Identifier: Apache-2.0 */
/* T5 v1.1 encoder (transformers modeling_t5.py): token ids -> embeddings. */
#ifndef FK_T5_H
#define FK_T5_H

#include "config.h"
#include "ops.h"
#include "weights.h"

typedef struct {
  FkTensor norm0, norm1;
  FkWeight qkv, o, wi, wo; /* qkv: q, k, v one below the other; wi: wi_0 above wi_1 */
} FkT5Block;

typedef struct {
  FkT5Config config;
  FkWeight embedding, relative_bias; /* relative_bias [buckets, heads] */
  FkT5Block *blocks;
  FkTensor final_norm;
  float *bias_table; /* relative_bias on the host, after fk_t5_prepare */
  FkStore *store;    /* of the weights; (transfer none) */
} FkT5;

void fk_t5_init(FkT5 *t5, const FkT5Config *config, FkBinder *binder);
/* After every load of the weights. False: the table did not arrive, FK_ERROR_MEMORY, _DEVICE or _DEVICE_LOST. */
bool fk_t5_prepare(FkT5 *t5, FkBackend *be, GError **error);
void fk_t5_clear(FkT5 *t5);
/* ids [length] on the host -> out [length, width] (spec 4.2); padding is attended, as the reference does. */
void fk_t5_encode(const FkT5 *t5, FkBackend *be, FkArena *arena, const int32_t *ids, int length, FkTensor out);
/* Bucket of relative position j - i, bidirectional. */
int fk_t5_bucket(int relative, int buckets, int max_distance);

#endif
