/* SPDX-License-Identifier: Apache-2.0 */
/* Marks by which files say how their numbers are quantised, beyond what types and shapes say. */
#ifndef FK_QUANT_MARKS_H
#define FK_QUANT_MARKS_H

#include "component.h"

/* Refuses formats that are not read here, by their names: those of X.comfy_quant and of the header's
 * _quantization_metadata. FK_ERROR_MODEL_MISMATCH names the layer with expected and found format. */
bool fk_quant_marks_check(const FkComponent *component, GError **error);

#endif
