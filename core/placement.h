/* SPDX-License-Identifier: Apache-2.0 */
/* Which parts of the model are in memory at a time (option offload). For who has the engine's turn. */
#ifndef FK_PLACEMENT_H
#define FK_PLACEMENT_H

#include "budget.h"
#include "engine.h"

/* As asked for, or all parts where they fit; what a larger edit has made smaller stays so. By the plan and the device's
 * total: by what is free it would be another engine each time. limit: max-vram, 0: none. The budget with it. */
FkBudget fk_placement_choose(FkEngine *engine, size_t work, uint64_t limit);
/* Adds to an error of memory the settings that would fit, with their bytes. */
void fk_placement_suggest(const FkEngine *engine, size_t work, uint64_t limit, GError **error);

#endif
