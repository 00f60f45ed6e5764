/* SPDX-License-Identifier: Apache-2.0 */
/* What weights.c (needs, places, checks) hands to weights-load.c (bytes). For these two files only. */
#ifndef FK_WEIGHTS_INTERNAL_H
#define FK_WEIGHTS_INTERNAL_H

#include "delta.h"
#include "numbers.h"
#include "weights.h"

/* Rows of a tensor of the checkpoint and where they go: rows x cols elements without gaps. */
typedef struct {
  FkSource source;
  FkDtype from, as;   /* from: of the file, float32 where numbers.h makes them; as E4M3 or I8: codes, and a float32
                         scale for each row */
  int64_t rows, cols; /* source.first_row is the first */
  int taps;           /* kernel * kernel; a row is [cols / taps, taps] in the file and transposed in memory. 1: as is */
  size_t place, scale;    /* bytes of the store's memory; scale: of codes alone */
  FkMx mx;                /* of codes: what the numbers are rounded to first */
  bool odd;               /* codes of 2 x less what the first codes say */
  const char *name;       /* canonical: the bound tensor's */
  int64_t row;            /* of that tensor, the item's first */
  const uint64_t *sums;   /* of a group of a packed model (pack.h); NULL: none. (transfer none) */
  const FkDeltas *deltas; /* NULL: the numbers stay the file's. (transfer none) */
} FkItem;

/* What the model holds: gets memory + place when everything is loaded. */
typedef struct {
  FkWeight *weight; /* one of the two */
  FkTensor *tensor;
  int role;            /* FK_ROLES: a vector or a table */
  size_t place, scale; /* scale: of codes alone */
  FkWeight *full;      /* the weight's twin, NULL: none */
  size_t full_place;
  FkWeight *odd; /* its other codes, NULL: none */
  size_t odd_place, odd_scale;
  FkMx mx;
} FkTarget;

struct FkBinder {
  FkBackend *be;
  FkPrecision precision;
  FkNames names;
  FkPart part;
  const FkComponent *component; /* NULL: null walk, or packed */
  bool packed;                  /* items are groups of a packed model */
  FkStore store;
  GArray *items;     /* FkItem; empty in a null walk */
  GArray *targets;   /* FkTarget */
  GPtrArray *twins;  /* FkWeight, owned */
  GHashTable *bound; /* canonical name -> FkBound */
  GHashTable *known; /* FkStTensor asked for */
  int64_t parameters;
  FkRoleShare share[FK_ROLES + 1]; /* the last: vectors and tables */
  int missing, mismatched, extra;
  GString *problems; /* their messages; full: not all of them */
  bool full;
};

static inline bool fk_item_quantised(const FkItem *item) {
  return item->as == FK_E4M3 || item->as == FK_I8;
}

/* The reader makes the elements of memory of those of the file, also for a backend that could convert plain numbers. */
static inline bool fk_item_made_by_reader(const FkItem *item) {
  if (item->sums) return false; /* bytes of memory already */
  return fk_item_quantised(item) || fk_numbers_coded(&item->source) || item->deltas;
}

#endif
