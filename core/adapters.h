/* SPDX-License-Identifier: Apache-2.0 */
/* Which adapters a model's weights have in them: put in, exchanged and taken out again while the model stays open. */
#ifndef FK_ADAPTERS_H
#define FK_ADAPTERS_H

#include "model.h"

/* Makes the weights those of the checkpoint with the adapters of `list` (lora.h), NULL or "": with none. Nothing
 * happens where they are in already, by what the file system says of the files. Else every weight that either list
 * changes is read again from the checkpoint, into the place where it is: parts that are not loaded follow when they
 * are. The caller has waited for what uses the weights. *text_changed: a text encoder is another one.
 * Errors as fk_loras_open, and OPTION_BAD for a packed model: then nothing has changed. As fk_binder_reload, CANCELLED
 * too: then the next call reads what is uncertain again, and the weights are not to be used before. */
bool fk_adapters_set(FkModel *model, const char *list, bool *text_changed, GCancellable *cancellable,
                     FkLoadProgress progress, void *user_data, GError **error);

#endif
