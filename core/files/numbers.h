/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of files: plain ones, codes of 8 and 4 bits with the scales beside them, and blocks that have their
 * scales inside. Whatever they are, they become float32, by one product in float32 for each scale; what is rounded
 * after that is the reader's matter. */
#ifndef FK_NUMBERS_H
#define FK_NUMBERS_H

#include "blocks.h"
#include "names.h"

/* A source whose numbers fk_numbers_rows makes; false: it is plain F32, F16 or BF16 and its bytes are the numbers. */
bool fk_numbers_coded(const FkSource *source);
/* What the source says it has against `dim`, the shape of the tensor in the model (before rows are taken out of it).
 * Finds out how its scales are meant. NULL: it fits; else the problem, to stand behind the tensor's name.
 * (transfer full) */
char *fk_numbers_check(FkSource *source, const int64_t *dim, int rank);
/* What its numbers are made of, after the check. */
FkCodedForm fk_numbers_form(const FkSource *source);
/* After the check: E4M3 under one scale for all, one for each row, or none. */
bool fk_numbers_by_rows(const FkSource *source);

/* Rows of a source on their way: buffers, and the scales of these rows. */
typedef struct FkNumbers FkNumbers;

/* Rows first..first+n of the source, each of `cols` numbers. Reads their scales; any thread. NULL with FK_ERROR_MODEL_*
 * or FK_ERROR_MEMORY. */
FkNumbers *fk_numbers_begin(const FkSource *source, int64_t cols, int64_t first, int64_t n, GError **error);
void fk_numbers_end(FkNumbers *numbers); /* (nullable) */
/* The rows that it was begun for: their form and scales, no codes. */
const FkCoded *fk_numbers_scales(const FkNumbers *numbers);
/* Of fk_numbers_by_rows all rows that it was begun for, as the file has them: codes [n, cols], scales [n]; 1 where it
 * has none. */
bool fk_numbers_take(const FkNumbers *numbers, uint8_t *codes, float *scales, GError **error);
/* Rows at..at+n of those that it was begun for, as [n, cols]. */
bool fk_numbers_rows(FkNumbers *numbers, int64_t at, int64_t n, float *to, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkNumbers, fk_numbers_end)

#endif
