/* SPDX-License-Identifier: Apache-2.0 */
/* What a run would do, without doing it. */
#ifndef DRY_H
#define DRY_H

#include "work.h"

/* A line for each work on standard output, and what all of them need: FLOP, memory, and the least time, which is that
 * of the machine's measured peak rate. False: at least one would fail. */
bool dry_run(FkEngine *const *engines, const FkOptions *options, const GPtrArray *works, const WorkRules *rules,
             bool resume);

#endif
