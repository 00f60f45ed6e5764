/* SPDX-License-Identifier: Apache-2.0 */
/* Resolution of options and settings into plain values. Nothing here computes. */
#ifndef FK_TUNE_H
#define FK_TUNE_H

#include "backend.h"
#include "checkpoint.h"
#include "resolved.h"
#include "values.h"

/* Resolves `auto` by preset, backend and the other settings, and refuses with FK_ERROR_OPTION_BAD what cannot be had
 * (rule 7). The strings in *tune live as long as `settings` is unchanged. */
bool fk_tune_resolve(const FkSettings *settings, const FkBackend *be, FkTune *tune, GError **error);
/* The same for options, once the backend that they ask for is open. */
bool fk_load_resolve(const FkOptions *options, const FkBackend *be, FkLoadPlan *plan, GError **error);
/* The options that make two engines different, one line each (texts and files are fk_registry_files'): as they were
 * set, and as they were resolved. `auto` and what it became, or another max-vram, are one engine. (transfer full) */
char *fk_load_spelling(const FkOptions *options);
char *fk_load_identity(const FkLoadPlan *plan);
/* Where the files of `model` and of the options' other paths are. */
static inline FkPaths fk_load_paths(const FkLoadPlan *plan, const char *model) {
  return (FkPaths){model, plan->vae_path, plan->clip_path, plan->t5_path, plan->tokenizer_path};
}
/* Sets what the backend may use for one edit. */
void fk_tune_apply(const FkTune *tune, FkBackend *be);
/* Whether edits with `a` and `b` use the same memory at the same addresses and the same kernels, given equal sizes and
 * numbers of frames: the rows of the table without `memory` may differ. */
bool fk_tune_same_memory(const FkTune *a, const FkTune *b);

/* "decided (asked; why)" pairs as fk_engine_active returns them; (transfer full). */
char **fk_tune_report(const FkSettings *settings, const FkBackend *be);
/* why: why this backend. */
char **fk_load_report(const FkOptions *options, const FkLoadPlan *plan, const FkBackend *be, const char *why);

/* What a property is after the preset and its interactions; NULL: a text that is not set. Where no preset says what
 * `auto` is, it stays. */
const char *fk_tune_decided(const FkValues *values, const FkProperty *p);
/* The same as it runs on this backend: a switch that it has no kernel for is "off". */
const char *fk_tune_ran(const FkValues *values, const FkProperty *p, const FkBackend *be);
/* step-cache-mask: the right length and nothing but 0 and 1, the first 1. */
bool fk_tune_check_mask(const FkSettings *settings, GError **error);

#endif
