/* SPDX-License-Identifier: Apache-2.0 */
/* What weights.c (needs, places, checks) hands to weights-load.c (bytes). For these two files only. */
#ifndef FK_WEIGHTS_INTERNAL_H
#define FK_WEIGHTS_INTERNAL_H

#include "weights.h"

#define FK_WEIGHT_ALIGN 256u /* bytes */

/* One tensor of the checkpoint and where it goes. In memory it is rows x cols elements without gaps. */
typedef struct {
  const FkSafetensors *file;
  const FkStTensor *source;
  size_t place; /* byte of the binder's memory */
  FkDtype from, as;
  int64_t rows, cols;
  int taps; /* kernel * kernel; a row is [cols / taps, taps] in the file and transposed in memory. 1: as it is */
} FkItem;

/* What the model holds: gets memory + place when everything is loaded. One of the two pointers is set. */
typedef struct {
  FkWeight *weight;
  FkTensor *tensor;
  size_t place;
} FkTarget;

struct FkBinder {
  FkBackend *be;
  FkPrecision precision;
  FkComponent *component; /* NULL: null walk */
  char *what;
  GArray *items;      /* FkItem; empty in a null walk */
  GArray *targets;    /* FkTarget */
  GHashTable *known;  /* FkStTensor asked for, alternatives included */
  GPtrArray *ignored; /* GPatternSpec */
  int64_t parameters;
  size_t bytes; /* of memory, so far */
  int missing, mismatched, extra;
  char *first; /* message of the first of these */
  void *memory;
};

#endif
