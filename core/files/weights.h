/* SPDX-License-Identifier: Apache-2.0 */
/* From a model's list of the tensors it needs to weights in backend memory.
 *
 * A model names each tensor once, by its canonical name (names.h) and with its shape, in one pass (its init function).
 * The binder counts them, gives each a place in one block of backend memory, checks them against the checkpoint, and
 * loads them. Without a checkpoint (null walk) it only counts. Matrices get the form that an FkPrecision gives their
 * role, tables the backend's dtype, vectors float32. Sources are all that numbers.h reads; numbers are converted with
 * round to nearest even, codes and their scales are those of FkOps.quantize on the row in float32, or the file's where
 * it has E4M3 with a scale for each row or for all. */
#ifndef FK_WEIGHTS_H
#define FK_WEIGHTS_H

#include "delta.h"
#include "names.h"
#include "pack.h"
#include "precision.h"
#include "residency.h"

#include <gio/gio.h>

typedef struct FkBinder FkBinder;

/* A tensor of the model by its canonical name: rows first..first+rows of a weight, or elements of a vector. What
 * changes weights after the load (adapters) finds its targets so. */
typedef struct {
  char *name;
  FkWeight *weight; /* one of the two */
  FkTensor *tensor;
  int64_t first, rows;
  int64_t cols; /* 1: a vector */
  int role;     /* FkRole; FK_ROLES: a vector or a table */
  int group;    /* of the store */
  size_t place; /* byte of the store's memory; of a quantised matrix its codes */
} FkBound;

/* precision: NULL: every matrix in the backend's dtype. names: where the part's tensors are; NULL, or without a
 * component for this part: null walk. Both are copied; backend, component and name table are kept by reference. */
FkBinder *fk_binder_new(FkBackend *be, const FkPrecision *precision, const FkNames *names, FkPart part);
/* Before the first bind. No more than its forms is taken from the part's files, and whatever is wrong with them is not
 * told: a null walk. */
void fk_binder_forms_only(FkBinder *b);
/* Before the first bind: canonical names (a set, copied) of matrices that do not stay as their files have them. */
void fk_binder_expand(FkBinder *b, GHashTable *names);
/* Frees the binder and the weights' memory. (nullable) */
void fk_binder_free(FkBinder *b);

/* What is bound from now on is placed together: a block, an encoder. The name is a printf format. */
void fk_bind_group(FkBinder *b, FkUse use, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Each of these asks for one tensor; the name is a printf format. The target gets its shape at once and its data when
 * fk_binder_load succeeds, so it must stay where it is as long as the binder lives. Places are 256-byte aligned. */
void fk_bind_matrix(FkBinder *b, FkWeight *w, FkRole role, int64_t out, int64_t in, const char *format, ...)
    G_GNUC_PRINTF(6, 7);
/* A matrix whose rows are looked up, never multiplied by: it has no role and is never quantised. */
void fk_bind_table(FkBinder *b, FkWeight *w, int64_t rows, int64_t cols, const char *format, ...) G_GNUC_PRINTF(5, 6);
/* FK_ROLE_CONV; [out, in, kernel, kernel] in the file, [out, kernel, kernel, in] in memory. */
void fk_bind_conv(FkBinder *b, FkWeight *w, int64_t out, int64_t in, int kernel, const char *format, ...)
    G_GNUC_PRINTF(6, 7);
void fk_bind_vector(FkBinder *b, FkTensor *t, int64_t n, const char *format, ...) G_GNUC_PRINTF(4, 5);
/* n matrices [outs[i], in] stored one below the other without a gap, as one weight; their biases likewise as one vector
 * unless `bias` is NULL. names[i] goes without ".weight" and ".bias". */
void fk_bind_stack(FkBinder *b, FkWeight *w, FkTensor *bias, FkRole role, int64_t in, int n, const int64_t *outs,
                   const char *const *names);

/* Call after the last bind. False when tensors are missing, of another shape or type, or neither asked for nor ignored
 * by the layout: one FK_ERROR_MODEL_MISMATCH that lists them with expected and found value, as many as a message takes,
 * and counts them. */
bool fk_binder_finish(FkBinder *b, GError **error);
/* Instead of fk_binder_finish, for a binder without a component: everything comes from the packed model, group by
 * group. It is kept by reference; its forms and layout are this binder's (fk_binder_layout). FK_ERROR_MODEL_BAD. */
bool fk_binder_take_pack(FkBinder *b, const FkPack *pack, GError **error);
/* Whether adapters can be added to a tensor; false with FK_ERROR_OPTION_BAD: a packed model has it as codes. */
bool fk_binder_has_numbers(const FkBinder *b, const char *canonical, GError **error);
/* The name of a group's tensor in a packed model. (transfer full) */
char *fk_binder_packed_name(const FkBinder *b, int group);
/* Appends what says where everything lies in memory and in which form: equal texts, equal meaning of the bytes. */
void fk_binder_layout(const FkBinder *b, GString *text);
/* Bytes of memory from a group's begin to the next one's; their sum is fk_binder_bytes. */
size_t fk_binder_group_bytes(const FkBinder *b, int group);
int64_t fk_binder_parameters(const FkBinder *b); /* elements asked for */
/* What matrices of one role come to; FK_ROLES: vectors and tables. */
typedef struct {
  int64_t parameters;
  size_t bytes; /* of backend memory: scales, twins and the gap in front included */
  size_t coded; /* of them those of matrices that stay as their files have them */
} FkRoleShare;
FkRoleShare fk_binder_share(const FkBinder *b, int role);
size_t fk_binder_bytes(const FkBinder *b);   /* of backend memory, alignment included */
FkStore *fk_binder_store(const FkBinder *b); /* groups and memory */
/* (nullable) By canonical name, ".weight" or ".bias" included. */
const FkBound *fk_binder_find(const FkBinder *b, const char *canonical);
/* All of them, in no order. (transfer container) */
GPtrArray *fk_binder_all(const FkBinder *b);

/* Bytes of backend memory filled, from 0 to fk_binder_bytes, at least every 64 MiB; on the calling thread. */
typedef void (*FkLoadProgress)(int64_t bytes_done, int64_t bytes_total, void *user_data);
/* Allocates, reads and places everything; the calling thread is the backend's. After a failure nothing is kept and it
 * may be called again. FK_ERROR_MEMORY, FK_ERROR_MODEL_BAD with file and position, else FK_ERROR_CANCELLED, _DEVICE or
 * _DEVICE_LOST. A null walk leaves the data NULL; the null backend gets its made-up addresses and reads nothing. */
bool fk_binder_load(FkBinder *b, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error);
/* Where the time of loads and reloads went, since the last fk_binder_clear_times. */
typedef struct {
  double memory_ms;               /* calling thread: allocation of backend memory, */
  double readers_ms, buffers_ms;  /* waiting for readers, waiting for copies out of staging buffers, */
  double end_ms;                  /* the last copies, and the end of the readers */
  double reading_ms, checking_ms; /* of all readers together: files and what is made of them; sums of packed models */
  int64_t bytes;                  /* of memory that was filled */
  int readers;                    /* threads at most */
} FkLoadTimes;
const FkLoadTimes *fk_binder_times(const FkBinder *b);
void fk_binder_clear_times(FkBinder *b);
/* The loader may make codes of some matrices (files may have them), which takes long; then a copy of what is in memory
 * is worth its place on the host (fk_store_keep), from which the next load takes it unless adapters have changed. */
bool fk_binder_makes_codes(const FkBinder *b);
/* Rows of codes made so far. */
int fk_binder_coded_rows(const FkBinder *b);
/* Gives the memory back; the targets' data are NULL until the next load, which may give them other addresses: what was
 * captured with the old ones (FkOps.graph_begin) must be forgotten. The caller has waited for what used them. */
void fk_binder_release(FkBinder *b);

/* What adapters change between the file and memory from the next load on: canonical name -> FkDeltas (transfer none,
 * until the next call); NULL: nothing. Matrices that stay as their files have them take terms (fk_delta_terms), which
 * are added when they are expanded; what these need of the adapters is in memory of its own: that for others is given
 * back at once, so that the caller is as of fk_binder_release. */
void fk_binder_adapt(FkBinder *b, GHashTable *deltas);
/* Bytes of that memory; those that are there; and the number of tensors that are changed so. */
size_t fk_binder_operand_bytes(const FkBinder *b);
size_t fk_binder_held_operand_bytes(const FkBinder *b);
int fk_binder_changed(const FkBinder *b);
/* What of it is not there; fk_binder_load has done the same. Errors as of fk_binder_load; then none of it is. */
bool fk_binder_load_operands(FkBinder *b, GCancellable *cancellable, GError **error);
/* Reads the tensors of these canonical names (a set) again, into the place where they are, but for matrices that stay
 * as their files have them. The caller has waited for what used them. After a failure each of them may be the old one,
 * the new one or a part of both. Errors and progress as of fk_binder_load; bytes are of these tensors alone. */
bool fk_binder_reload(FkBinder *b, GHashTable *names, GCancellable *cancellable, FkLoadProgress progress,
                      void *user_data, GError **error);
/* Bytes of memory that it fills. names: nullable */
int64_t fk_binder_reload_bytes(const FkBinder *b, GHashTable *names);
/* Rows of a tensor as the checkpoint has them, without what adapters change, as float32 [rows, cols]; of a packed model
 * as that has them, of a null walk 0. */
bool fk_binder_read(const FkBinder *b, const char *canonical, int64_t first, int64_t rows, float *to, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkBinder, fk_binder_free)

#endif
