/* SPDX-License-Identifier: Apache-2.0 */
/* Weights, adapters and work memory for an edit. For who has the engine's turn. */
#ifndef FK_LOADING_H
#define FK_LOADING_H

#include "engine.h"

/* The adapters of this edit into the weights that are in memory, and for those that come later. */
bool fk_loading_adapt(FkEngine *engine, const FkEdit *edit, GError **error);
/* Memory is planned, weights are loaded, work memory is opened: nothing of it where an edit like it has run before. */
bool fk_loading_prepare(FkEngine *engine, const FkEdit *edit, GError **error);
/* Loads the weights, if an edit at the model's own area fits beside them. Writes the edit's size. */
bool fk_loading_first(FkEngine *engine, FkEdit *edit, GError **error);
/* FkEdit.bring, its owner the engine. */
bool fk_loading_bring(void *owner, bool text, GCancellable *cancellable, GError **error);

#endif
