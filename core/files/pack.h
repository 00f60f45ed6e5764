/* SPDX-License-Identifier: Apache-2.0 */
/* A packed model: one safetensors file with what an engine holds in memory, in the order in which it goes up, and the
 * small files of the model beside it. Writing one is packing.h.
 *
 *   tensors      U8 all of them: "files/tokenizer/vocab.json" is a file of the folder;
 * "transformer/transformer_blocks.7" the memory of a group (residency.h), gaps of alignment included; "pad/..." zeros
 *   __metadata__ (first, "fluxkontext.pack" in front) "fluxkontext." and: pack, the number of this format; version,
 * that wrote it; values, the type of numbers that are not quantised; options, NAME=VALUE lines that give their forms;
 * layout, SHA-256 of groups and places; sources, lines of SHA-256 and name of the files that it was made of, the name
 * behind "vae-path=", "loras=" ... where that option gave it; adapters, where some are merged, what became of them
 * (fk_loras_text); sums, fk_sum of each FK_SUM_CHUNK of each tensor; header, fk_sum of length and header with
 * zeros for these 16 digits
 *
 * The file is untrusted like any other; the sums find damage. */
#ifndef FK_PACK_H
#define FK_PACK_H

#include "safetensors.h"
#include "sum.h"

#define FK_PACK_FORMAT "3"
#define FK_PACK_BEGIN "{\"__metadata__\":{\"fluxkontext.pack\":" /* the first bytes of the header */
#define FK_PACK_HEADER "\"fluxkontext.header\":\""
#define FK_PACK_LARGEST_FILE (64u << 20) /* bytes of a file inside */

typedef struct FkPack FkPack;

/* A regular file that begins as a packed model does. */
bool fk_pack_detect(const char *path);
/* Reads and checks the header. FK_ERROR_MODEL_MISSING, _DENIED, _BAD, _MEMORY; _MISMATCH: of another format. */
FkPack *fk_pack_open(const char *path, GError **error);
void fk_pack_free(FkPack *pack); /* (nullable) */
const FkSafetensors *fk_pack_file(const FkPack *pack);
/* A text of the metadata by its name behind "fluxkontext."; "" where it has none. (transfer none) */
const char *fk_pack_text(const FkPack *pack, const char *name);
/* A tensor of exactly `bytes` bytes and its sums, or FK_ERROR_MODEL_BAD. */
const FkStTensor *fk_pack_find(const FkPack *pack, const char *name, uint64_t bytes, const uint64_t **sums,
                               GError **error);

/* A tensor read in order from some byte on. Whatever chunks that touches are read whole, and held against their sums
 * while their bytes are in the cache. */
typedef struct {
  const FkSafetensors *file;
  const FkStTensor *tensor;
  const uint64_t *sums;
  uint64_t at;    /* the next byte */
  FkSum sum;      /* of the chunk, up to there */
  int64_t sum_us; /* what sums took so far */
} FkPackReading;

/* All of them FK_ERROR_MODEL_BAD where bytes cannot be read or are others than when the file was written. What `next`
 * has given counts once a chunk is whole, the last one with `end`. */
bool fk_pack_begin(FkPackReading *r, const FkSafetensors *file, const FkStTensor *tensor, const uint64_t *sums,
                   uint64_t offset, GError **error);
bool fk_pack_next(FkPackReading *r, void *to, size_t n, GError **error);
bool fk_pack_end(FkPackReading *r, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkPack, fk_pack_free)

#endif
