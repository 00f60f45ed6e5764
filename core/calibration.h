/* SPDX-License-Identifier: Apache-2.0 */
/* Scales of inputs that are known before an edit (quantization=fp8-static): the file of fluxkontext-calibrate. */
#ifndef FK_CALIBRATION_H
#define FK_CALIBRATION_H

#include "fk.h"
#include "model.h"

#define FK_CALIBRATION_NAME "fluxkontext-calibration.json" /* in a model's folder, and inside a packed model */

/* Gives the transformer's quantised matrices their scales (FkWeight.x_scale) from the file `path` (NULL: beside the
 * model, or inside it). opened, options: of the engine, for fk_manifest_model, whose text goes to *hashes. *hash: of
 * the file. (both transfer full) FK_ERROR_MODEL_MISSING, _DENIED, _BAD, or _MISMATCH where it is of another model; then
 * the scales may be some of the file's. */
bool fk_calibration_apply(FkModel *model, const char *path, const char *opened, const FkOptions *options, char **hashes,
                          char **hash, GError **error);

#endif
