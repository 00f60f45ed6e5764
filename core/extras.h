/* SPDX-License-Identifier: Apache-2.0 */
/* What an edit is given beside its frame: a mask, and pictures that it refers to; from the job, from files that
 * settings name, or from the frame's own alpha. */
#ifndef FK_EXTRAS_H
#define FK_EXTRAS_H

#include "fk.h"
#include "flux.h"
#include "mask.h"
#include "model.h"
#include "pictures.h"
#include "tune.h"

/* A mask as it came. image.width 0: there is none. */
typedef struct {
  FkImage image;
  int channel; /* of it; -1: its luminance, of R G B */
  bool invert;
  int number; /* of a file that was decoded (FkPictures.mask_number); 0: another picture in each frame */
} FkMaskOrigin;

/* Of one frame; zero: nothing. */
typedef struct FkExtras {
  int width, height;                 /* of the frame, and so of both masks, rows without gaps */
  FkMaskOrigin origin;               /* of a frame in device memory, until masking.h has made these of it there */
  struct FkMaskBlock *block;         /* the device memory that they are in; NULL: they are in host memory */
  uint8_t *mask;                     /* 255 is edited; NULL: no mask */
  uint8_t *fade;                     /* share of the edit in each pixel of the result, of 255 */
  FkMaskBox box;                     /* around what the result takes from the edit; w 0: nothing is edited */
  FkImage references[FK_REFERENCES]; /* their pixels are the job's, or the files' */
  int n_references;
} FkExtras;

_Static_assert(FK_REFERENCES == FK_FLUX_REFERENCES, "as many as the model takes");

/* FK_ERROR_OPTION_BAD: a mask that does not fit, or too many pictures; FK_ERROR_MEMORY. files: what the
 * settings name, which is to live as long as *extras. Of a frame in device memory the mask is left to
 * fk_masking_prepare. On failure *extras is zero. */
bool fk_extras_init(FkExtras *extras, const FkTune *tune, const FkPictures *files, const FkJob *job, int frame,
                    GError **error);
void fk_extras_clear(FkExtras *extras);

/* One channel of an image in host memory, or its luminance as Pillow's convert("L"); rows without gaps. NULL: no
 * memory. (transfer full) */
uint8_t *fk_extras_plane(const FkImage *image, int channel);
/* Part of the frame's mask at width x height of the model, packed for its tokens [(h/16)(w/16), 4 channels]. region: of
 * the frame. False: FK_ERROR_MEMORY. */
bool fk_extras_tokens(const FkExtras *extras, FkMaskBox region, int width, int height, int channels, float *tokens,
                      GError **error);
/* The pictures' sizes in tokens, each the preferred one of the model's area. FK_ERROR_SHAPE: one that the model
 * cannot work at. */
bool fk_extras_references(const FkExtras *extras, const FkModel *model, const FkTune *tune,
                          FkFluxReferences *references, GError **error);
/* Puts the frame's own pixels back into the result, where nothing or not all is edited. in, out: the region of each. */
void fk_extras_mix(const FkExtras *extras, FkMaskBox region, const FkImage *in, const FkImage *out);
/* 255 for pixels of tokens, rows x columns of them, that FkResult.region has edited, or of all where it says nothing
 * of so many, else 0. False: FK_ERROR_MEMORY. */
bool fk_extras_edited(const char *tokens, int rows, int columns, int width, int height, uint8_t *fade, GError **error);
/* fk_extras_mix where FkResult.region says that tokens, rows x columns of them, are not edited. False: FK_ERROR_MEMORY.
 */
bool fk_extras_keep(const char *tokens, int rows, int columns, const FkImage *in, const FkImage *out, GError **error);

#endif
