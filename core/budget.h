/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory of an engine, known before the first byte of it is asked for. */
#ifndef FK_BUDGET_H
#define FK_BUDGET_H

#include "model.h"

/* Bytes. */
typedef struct {
  size_t weights, cache; /* of the model, and of the prompt cache */
  size_t operands;       /* of the weights, what adapters need that is not there although the weights are */
  size_t work;           /* the arena of one edit, kernel scratch included; 0: no edit is asked for */
  size_t fixed;          /* what the backend's module holds from open to close */
  size_t masks;          /* of frames in device memory, now */
  size_t host;           /* of host memory: copies of weights that leave the device */
  bool kept;             /* some of these are of codes that the loader makes */
} FkBudget;

FkBudget fk_budget_of(const FkModel *model, const FkBackend *be, size_t work);

/* Of device memory, all of it. */
uint64_t fk_budget_bytes(const FkBudget *budget);
/* FK_ERROR_MEMORY when all together is above `limit` (0: none). what: the purpose, for the message. */
bool fk_budget_within(const FkBudget *budget, uint64_t limit, const char *what, GError **error);
/* FK_ERROR_MEMORY when what is still to be allocated is more than there is. loaded: weights and cache are there; held:
 * bytes of work memory that will be given back first. */
bool fk_budget_available(const FkBudget *budget, FkBackend *be, bool loaded, size_t held, const char *what,
                         GError **error);
/* The same of host memory, of which there are `available` bytes for copies, those that are there among them. */
bool fk_budget_host(const FkBudget *budget, uint64_t available, const char *what, GError **error);

#endif
