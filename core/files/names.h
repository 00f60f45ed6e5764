/* SPDX-License-Identifier: Apache-2.0 */
/* Where a checkpoint keeps each tensor of the model.
 *
 * A tensor's canonical name is the one it has in a diffusers folder; the networks bind canonical names only. How a file
 * names and packs them is its layout: a table of rows. Layouts are told apart by the tensors that are there, never by
 * file names or metadata. */
#ifndef FK_NAMES_H
#define FK_NAMES_H

#include "component.h"

/* Parts of a model, in the order in which they are loaded. */
typedef enum { FK_PART_CLIP, FK_PART_T5, FK_PART_FLUX, FK_PART_VAE, FK_PARTS } FkPart;

/* The part's folder in a diffusers checkpoint, also its name in messages: "text_encoder", "text_encoder_2",
 * "transformer", "vae". */
const char *fk_part_name(FkPart part);

typedef enum {
  FK_TRANSFORM_NONE,
  FK_TRANSFORM_SWAP_HALVES, /* the second half of the rows comes first */
  FK_TRANSFORM_POINT        /* a matrix that the file has as a convolution of one pixel: [out, in, 1, 1] */
} FkTransform;

/* How numbers that stand beside a tensor's codes multiply them. */
typedef enum {
  FK_SCALING_NONE,
  FK_SCALING_TENSOR, /* one for all */
  FK_SCALING_ROW,    /* one for each row */
  FK_SCALING_MXFP8,  /* a power of two for each 32 numbers of a row */
  FK_SCALING_NVFP4   /* an E4M3 for each 16 numbers of a row, and one for all */
} FkScaling;

/* One rule of a layout. `ours` is matched with the beginning of a canonical name, up to its end or a '.' (or any
 * character, where `ours` ends with a '.'); a '*' stands for one or more characters other than '.'. The file's name is
 * `theirs` with its '*' replaced by the same texts in the same order, and the rest of the canonical name behind it. */
typedef struct {
  const char *ours, *theirs;
  int first, count, of; /* rows first/of .. (first + count)/of of the file's tensor; of 0: all of them */
  FkTransform transform;
} FkNameRow;

/* Names that no row matches are the same in the file. Where several rows match, the first counts whose tensor is
 * there, so that a row may be an alternative for another. */
typedef struct {
  const FkNameRow *rows;
  size_t n_rows;
  const char *const *ignored; /* (nullable) NULL-terminated patterns of tensors that may be there and have no use; '*'
                                 and '?' stand for any text and any character */
  const char *title;          /* (nullable) whose names they are, for people */
} FkNameTable;

/* One part's files and how they name things. */
typedef struct {
  const FkComponent *component; /* NULL: no files */
  const FkNameTable *table;
  const char *prefix; /* (nullable) before each name of the table in the files; what is without it is not the part's */
} FkNamesPart;

/* A checkpoint's parts. */
typedef struct {
  FkNamesPart part[FK_PARTS];
} FkNames;

/* What a canonical tensor is made of: rows of a tensor of a file. */
typedef struct {
  const FkSafetensors *file;
  const FkStTensor *tensor; /* NULL: not there */
  int64_t first_row, rows;  /* along the tensor's first axis */
  int of, count;            /* the rows are count/of of the tensor's; of 0: all */
  FkTransform transform;
  /* X.scale_weight or X.weight_scale beside X.weight, and X.weight_scale_2; NULL: not there. */
  const FkSafetensors *scale_file, *scale2_file;
  const FkStTensor *scale, *scale2;
  FkScaling scaling; /* how they are meant: known when fk_numbers_check has seen the source */
} FkSource;

/* What the table calls a canonical name by the first row that is about it, *row; NULL: none is. (transfer full) */
char *fk_names_translate(const FkNameTable *table, const char *canonical, const FkNameRow **row);
#define FK_NAMES_BFL 1 /* Black Forest Labs' layout among the transformer's */
/* The layouts that the program knows for a part; those of tests are their own. */
const FkNameTable *fk_name_tables(FkPart part, size_t *n);
/* Which of `n` layouts the component has: the one with the most of a few tensors that every model of this part has;
 * among equals, also when there are none, the first. */
const FkNameTable *fk_names_detect(FkPart part, const FkComponent *component, const FkNameTable *tables, size_t n);
/* The same with the layouts that the program knows, under each prefix that files put before the part's names. Returns
 * how many of those few tensors are there; 0: the files have nothing of this part. */
int fk_names_layout(FkPart part, const FkComponent *component, FkNamesPart *out);

/* The source of a canonical name, by reference to the component; false: it has no such tensor. */
bool fk_names_find(const FkNames *names, FkPart part, const char *canonical, FkSource *out);
/* The name that the layout gives a canonical tensor first. (transfer full) */
char *fk_names_expected(const FkNames *names, FkPart part, const char *canonical);
/* Each tensor of a file that holds several parts must belong to one of them or be known to have no use: else
 * FK_ERROR_MODEL_MISMATCH names the first and counts them. */
bool fk_names_claim(const FkNames *names, const FkSafetensors *file, GError **error);
/* It is not the part's, or has no use. */
bool fk_names_ignored(const FkNames *names, FkPart part, const char *tensor);

#endif
