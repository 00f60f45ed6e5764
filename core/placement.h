/* SPDX-License-Identifier: Apache-2.0 */
/* Which parts of the model are in memory at a time (option offload). For who has the engine's turn. */
#ifndef FK_PLACEMENT_H
#define FK_PLACEMENT_H

#include "budget.h"
#include "engine.h"
#include "plan.h"

/* What weights may take, in bytes. */
typedef struct {
  uint64_t most[2]; /* of device memory, expanded [0] and as filed [1] */
  uint64_t host;    /* of host memory, for copies of those that leave */
} FkRoom;

/* The fastest that keeps weights within the room: all parts, parts that change
 * places, and then as few blocks that stream as possible. Of a model that may be either, each of the first two is tried
 * expanded and then as filed, and what streams is as filed. offload: FkOffload, -1: the first of these that fits. Where
 * nothing fits: what was asked for, -1: all parts; where the host's memory alone stands in the way, what would fit
 * without. -1 keeps no copies of codes where the host has no room for them. streams: whether -1 may stream. */
FkPlacing fk_placement_pick(const FkModel *model, int offload, bool streams, const FkRoom *room);
/* Bytes of host memory that copies of weights may have in all. */
uint64_t fk_placement_host(const FkEngine *engine);
/* Fewest bytes of weights that the engine's option leaves. */
size_t fk_placement_least(const FkEngine *engine);
/* As asked for, or all parts where they fit; what a larger edit has made smaller stays so. By the plan and the device's
 * total: by what is free it would be another engine each time. limit: max-vram, 0: none. The budget with it. */
FkBudget fk_placement_choose(FkEngine *engine, const FkWork *work, uint64_t limit);
/* Adds to an error of memory the settings that would fit, with their bytes. */
void fk_placement_suggest(const FkEngine *engine, size_t work, uint64_t limit, GError **error);

#endif
