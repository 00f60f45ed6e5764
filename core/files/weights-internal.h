/* SPDX-License-Identifier: Apache-2.0 */
/* What weights.c (needs, places, checks) and weights-coded.c (matrices as files have them) hand to weights-load.c
 * (chunks) and weights-read.c (bytes). For these files only. */
#ifndef FK_WEIGHTS_INTERNAL_H
#define FK_WEIGHTS_INTERNAL_H

#include "delta.h"
#include "numbers.h"
#include "weights.h"

/* What of a source an item brings: its numbers in the form that the model wants, or for a matrix that stays as its file
 * has it the codes, and the scales beside them. */
typedef enum { FK_ITEM_NUMBERS, FK_ITEM_CODES, FK_ITEM_ROW_SCALES, FK_ITEM_BLOCK_SCALES } FkItemKind;

/* Rows of a tensor of the checkpoint and where they go: rows x cols elements without gaps. */
typedef struct {
  FkItemKind kind;
  FkSource source;
  FkDtype from, as;   /* from: of the file, float32 where numbers.h makes them; as E4M3 or I8: codes, and a float32
                         scale for each row */
  int64_t rows, cols; /* source.first_row is the first; cols: elements of memory */
  int64_t numbers;    /* of a row */
  int taps;           /* kernel * kernel; a row is [cols / taps, taps] in the file and transposed in memory. 1: as is */
  size_t place, scale;    /* bytes of the store's memory; scale: of codes alone */
  FkMx mx;                /* of codes: what the numbers are rounded to first */
  bool odd;               /* codes of 2 x less what the first codes say */
  const char *name;       /* canonical: the bound tensor's */
  int64_t row;            /* of that tensor, the item's first */
  const uint64_t *sums;   /* of a group of a packed model (pack.h), which is the source; NULL: none. (transfer none) */
  bool again;             /* numbers of memory that are a part of such a group: read when adapters change them */
  uint64_t base;          /* of `again`: byte of the group */
  const FkDeltas *deltas; /* NULL: the numbers stay the file's. (transfer none) */
  bool plain;             /* memory has what the file has, without anything of an adapter */
  bool in_place;          /* it had when this reading began: a backend that adds needs no numbers */
} FkItem;

/* Places of a part of a matrix that stays as its file has it, and what adapters add to it. */
typedef struct {
  size_t codes, row_scale, block_scale;
  FkCoded *coded;
  const char *name;       /* canonical: the bound tensor's */
  const FkDeltas *deltas; /* NULL: none. (transfer none) */
  FkAdapted adapted;      /* of these */
  size_t operands;        /* byte of the binder's operands: the right parts, and the left ones behind them */
} FkCodedPlace;

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
  FkCoded *coded; /* the weight's [parts], NULL: it is numbers, or codes of its form */
  FkCodedPlace *coded_place;
  int parts;
} FkTarget;

/* One tensor of the model, and the rows of the target that it fills. */
#define FK_NEED_RANK 4
typedef struct {
  const char *name; /* canonical */
  int64_t dim[FK_NEED_RANK];
  int rank, taps; /* taps as in FkItem */
  int64_t first;  /* row of the target */
  int part;       /* of the target */
} FkNeed;

struct FkBinder {
  FkBackend *be;
  FkPrecision precision;
  FkNames names;
  FkPart part;
  const FkComponent *component; /* NULL: null walk, or packed */
  bool packed;                  /* items are groups of a packed model, and the numbers in them */
  bool adapted;                 /* items have deltas */
  FkStore store;
  GArray *items;    /* FkItem; empty in a null walk */
  GArray *targets;  /* FkTarget */
  GPtrArray *owned; /* twins (FkWeight), coded parts and their places */
  bool makes_codes; /* the loader does, of some matrix */
  int coded_rows;   /* atomic: those that it has made so far */
  FkLoadTimes times;
  GPtrArray *changed;   /* FkCodedPlace that have deltas */
  void *operands;       /* what these need, in backend memory; NULL: not there */
  size_t operand_bytes; /* of it */
  GHashTable *apart;    /* canonical names of matrices that do not stay as their file has them; NULL: none */
  GHashTable *bound;    /* canonical name -> FkBound */
  GHashTable *known;    /* FkStTensor asked for */
  int64_t parameters;
  FkRoleShare share[FK_ROLES + 1]; /* the last: vectors and tables */
  int missing, mismatched, extra;
  const FkStTensor *wrong; /* the last mismatched one: parts of one tensor follow each other */
  GString *problems;       /* their messages; full: not all of them */
  bool full;
};

static inline bool fk_item_quantised(const FkItem *item) {
  return item->as == FK_E4M3 || item->as == FK_I8;
}

/* Its source has codes. */
static inline bool fk_item_coded(const FkItem *item) {
  return !item->again && fk_numbers_coded(&item->source);
}

/* The file has the codes that the item wants, with scales that are those of rows: nothing is made. Odd codes are the
 * same, because the first ones leave nothing over. */
static inline bool fk_item_takes_codes(const FkItem *item) {
  const bool wanted = item->kind == FK_ITEM_NUMBERS && item->as == FK_E4M3 && !item->mx && !item->deltas;
  return wanted && !item->again && fk_numbers_by_rows(&item->source);
}

/* Adapters change what memory has of it: codes of files stay. */
static inline bool fk_item_reloads(const FkItem *item, GHashTable *names) {
  return item->kind == FK_ITEM_NUMBERS && g_hash_table_contains(names, item->name);
}

/* All of a group of a packed model: bytes of memory as they are. */
static inline bool fk_item_whole_group(const FkItem *item) {
  return item->sums && !item->again;
}

/* The reader makes the elements of memory of those of the file, also for a backend that could convert plain numbers. */
static inline bool fk_item_made_by_reader(const FkItem *item) {
  if (fk_item_whole_group(item) || item->kind == FK_ITEM_CODES) return false; /* bytes of memory already */
  if (item->kind != FK_ITEM_NUMBERS) return true;
  return fk_item_quantised(item) || fk_item_coded(item) || item->deltas;
}

/* The backend makes codes of the file's own numbers, behind a staging buffer. */
static inline bool fk_item_commits_codes(const FkBackend *be, const FkItem *item) {
  const bool numbers = item->kind == FK_ITEM_NUMBERS && !item->deltas && !fk_numbers_coded(&item->source);
  return be->ops->commit_codes && numbers && item->as == FK_E4M3 && !item->mx && !item->odd &&
         item->cols <= FK_QUANT_MAX_K;
}

/* Rows of an item on their way to memory of the host. */
typedef struct {
  const FkItem *item;
  int64_t first, rows; /* of the item */
  void *to;
  FkDtype as;      /* of `to` */
  float *scales;   /* of codes, [rows]; NULL: none are made */
  bool raw;        /* numbers of the file alone: the backend makes codes or adds adapters */
  int64_t *sum_us; /* what sums of a packed model took is added; NULL: nobody asks */
} FkReading;

/* weights-read.c: any thread. FK_ERROR_MODEL_BAD, FK_ERROR_MEMORY. */
bool fk_reading_run(const FkReading *r, GError **error);

/* weights.c */

/* A backend with commit_adapted adds the item's adapters: *adapted but for its rows. */
bool fk_item_adds(const FkBackend *be, const FkItem *item, FkAdapted *adapted);
/* `bytes` at the next place, counted as a role's. */
size_t fk_binder_place(FkBinder *b, int role, size_t bytes);
FkTarget *fk_binder_target(FkBinder *b, FkTarget target);
/* The need's source, where there is one that fits; *problem otherwise what is wrong with it, NULL: it is not there.
 * (transfer full) */
bool fk_binder_source(const FkBinder *b, const FkNeed *need, FkSource *source, char **problem);
/* Rows of the item's source from its place on, in the order that its transform asks for; first: row of the place. */
void fk_binder_add_item(FkBinder *b, FkItem item, int64_t first);
/* Data of what the model holds: where the weights are now, or NULL. */
void fk_binder_set_targets(FkBinder *b);

/* weights-coded.c */

/* The place of a matrix of needs below each other as their files have it; NULL: it is not to stay so. */
const FkTarget *fk_coded_place(FkBinder *b, FkWeight *w, int role, int64_t out, int64_t in, const FkNeed *needs, int n);
/* The items of one of its parts. item: source, name and counts are set. */
void fk_coded_items(FkBinder *b, const FkTarget *target, FkItem item, int part);
/* What adapters (NULL: none) add to such matrices; what was in memory for others is given back. */
void fk_coded_adapt(FkBinder *b, GHashTable *deltas);
/* Memory for it, filled. False without an error when the backend has failed. */
bool fk_coded_load_operands(FkBinder *b, GCancellable *cancellable, GError **error);
void fk_coded_release_operands(FkBinder *b);

#endif
