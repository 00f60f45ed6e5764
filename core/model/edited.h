/* SPDX-License-Identifier: Apache-2.0 */
/* Edited tokens: once the first evaluations have shown what an edit changes, the target tokens that it leaves alone
 * are not computed any more.
 *
 * After `warmup` evaluations at full size the estimate x0 = x - sigma v is compared with the reference, token by token:
 * mean |x0 - reference|. Tokens above the threshold are edited; then, on the grid of tokens, the edited ones grow by
 * one in each of eight directions, and holes that are one token wide are filled (grown once more and shrunk again).
 * Their number is rounded up to a sixteenth of all, by the tokens of the largest change among the others, so that few
 * sizes exist and each is recorded once. All of that is done on the host in a fixed order.
 *
 * Edited tokens alone go through the blocks from there on. Keys and values of the others, and of the reference, are
 * those of the last evaluation that computed all rows (flux.h, saved_kv). An unedited token moves on the straight line
 * from where it is to its reference: v = (x - reference) / sigma, which every solver integrates exactly. At the end it
 * is the reference's token itself, to the bit.
 *
 * Every `refresh` evaluations, at the next one that runs the blocks, all rows are computed again: all tokens move by
 * the model's velocity, keys and values become new, and the edited tokens are found again by the same measure. Tokens
 * may come back, from their straight line, and go.
 *
 * The decision is a text, "WxH:" and one hexadecimal digit for four tokens, row by row, edited = 1, the first token in
 * the highest bit. Of several decisions it is "v2:", the first as above, and for each later one "+I:" with its
 * evaluation (counted from 0 at full size) and the digits that are its exclusive-or with the mask before, where a
 * letter stands for a run of zeros: g for one, h for 2, i for 4 and on to v. An edit stops to decide when the next one
 * has no room; then the mask stays. It can be replayed. */
#ifndef FK_EDITED_H
#define FK_EDITED_H

#include "flux-cond.h"

#include <gio/gio.h>

#include <stdint.h>

#define FK_EDITED_BUCKETS 16
#define FK_EDITED_TEXT 8224 /* bytes of a mask as text: 32768 tokens at most */

/* Whose keys and values stand in for the tokens that are not computed. */
typedef enum {
  FK_EDITED_KEYS_ALL,       /* the unedited target tokens' and all of the reference's */
  FK_EDITED_KEYS_REFERENCE, /* the reference's alone: it holds the same picture */
  FK_EDITED_KEYS_TARGET,    /* the unedited target tokens', and the reference's where something is edited */
  FK_EDITED_KEYS
} FkEditedKeys;

/* The resolved region settings. */
typedef struct {
  double threshold; /* 0: off */
  int warmup;       /* evaluations of all tokens at first */
  int refresh;      /* all tokens again, and another decision, every so many evaluations; 0: never */
  FkEditedKeys keys;
  const char *mask; /* NULL or "": find it */
  bool keep;        /* pixels of unedited tokens are the frame's */
} FkEditedTune;

/* ---- The decision: host arrays of h w tokens ---- */

/* change[t] = mean over the columns of |clean - reference|. */
void fk_edited_measure(float *change, const float *clean, const float *reference, int tokens, int columns);
/* edited[t] = 1 or 0, grown and closed. A change that is not a number counts as one. */
void fk_edited_find(uint8_t *edited, const float *change, int h, int w, double threshold);
/* Tokens of i buckets, at most all. */
int fk_edited_bucket(int i, int tokens);
/* Adds tokens up to the next bucket: of the largest change first, equal ones by index; change NULL: by index. Returns
 * their number: at least one bucket. */
int fk_edited_fill(uint8_t *edited, const float *change, int tokens);
/* text [FK_EDITED_TEXT]. */
void fk_edited_write(char *text, const uint8_t *edited, int h, int w);
/* Adds the decision of evaluation i, `before` it and after. False: no room, and the text is as it was. */
bool fk_edited_append(char *text, int i, const uint8_t *before, const uint8_t *edited, int tokens);
/* A text of any size is well formed; otherwise false with FK_ERROR_OPTION_BAD. */
bool fk_edited_check(const char *text, GError **error);
/* Its first mask. False with FK_ERROR_OPTION_BAD where the text is no mask of this size. */
bool fk_edited_read(const char *text, uint8_t *edited, int h, int w, GError **error);
/* The mask before -> that of evaluation i, where a checked text has one; otherwise it stays. False with
 * FK_ERROR_OPTION_BAD where it has one between the decisions `last` and i. */
bool fk_edited_follow(const char *text, int last, int i, uint8_t *edited, int tokens, GError **error);
/* Its last mask. False: it is of another size. */
bool fk_edited_last(const char *text, uint8_t *edited, int h, int w);
/* Whether a checked text has several masks. */
bool fk_edited_several(const char *text);

/* ---- Around the blocks ---- */

typedef struct FkEdited FkEdited;

/* Of a run whose shape has keep_target. Tensors come from `arena` and go with it. `plan`: nothing is decided; the
 * memory that kernels take for each number of edited tokens is counted. (transfer full) */
FkEdited *fk_edited_open(const FkFluxRun *run, const FkFluxShape *shape, const FkEditedTune *tune, FkArena *arena,
                         const float *sigmas, int evaluations, int frames, bool plan);
void fk_edited_free(FkEdited *region); /* (nullable) */
/* Decides for a frame where it is time, after evaluation i: x and v [S, C] float32, reference [C rows, C]. whole: the
 * evaluation computed all rows. True in *narrowed when the rows that are computed are others from now on. False: an
 * error is set. */
bool fk_edited_decide(FkEdited *region, int frame, int i, FkTensor x, FkTensor v, FkTensor reference, bool whole,
                      bool *narrowed, GError **error);
/* Whether only edited tokens of this frame are computed. */
bool fk_edited_active(const FkEdited *region, int frame);
/* Indices of the edited tokens, [count] int32. */
FkTensor fk_edited_rows(const FkEdited *region, int frame);
/* The same, with [target] for a token that the decision before left out. */
FkTensor fk_edited_known(const FkEdited *region, int frame);
/* [target] int32: where each token is among the edited ones; 0 where it is not. */
FkTensor fk_edited_places(const FkEdited *region, int frame);
/* The frame's mask as text; "" as long as there is none. */
const char *fk_edited_text(const FkEdited *region, int frame);
/* Whether evaluation i, if it runs the blocks, is to compute all rows of this frame. */
bool fk_edited_due(const FkEdited *region, int frame, int i);
/* The run of the edited rows for evaluation i, loaded. */
FkFluxRun *fk_edited_begin(FkEdited *region, FkFluxRun *run, FkFluxCond *cond, int frame, int i);
/* run->velocity from that of the edited rows and the straight lines of the others. */
void fk_edited_end(FkEdited *region, FkFluxRun *run, FkTensor x, FkTensor reference, int frame, int i);
/* After the last step: unedited tokens of x become the reference's. */
void fk_edited_finish(FkEdited *region, int frame, FkTensor x, FkTensor reference);

#endif
