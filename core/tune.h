/* SPDX-License-Identifier: Apache-2.0 */
/* What the settings of one edit resolve to. Nothing here computes. */
#ifndef FK_TUNE_H
#define FK_TUNE_H

#include "backend.h"
#include "fk.h"
#include "random.h"
#include "scheduler.h"
#include "stepcache.h"

typedef enum { FK_TASK_EDIT, FK_TASK_GENERATE } FkTask;

/* Settings resolved: plain values, no `auto` left. Chosen once per edit, then run blindly (rule 3). */
typedef struct {
  const char *prompt, *negative_prompt; /* (transfer none) from the settings; negative NULL: no true CFG */
  uint64_t seed;
  int steps, max_sequence_length; /* max_sequence_length 0: the tokenizer's own */
  double guidance, true_cfg_scale;
  FkSchedulerKind scheduler;
  FkSigmasKind sigmas;
  FkRng rng;
  FkTask task;
  bool native_size;
  int64_t max_area; /* 0: the square of vae.sample_size */
  bool fused_qkv, flash_attention, cuda_graph, channels_last, vae_tiling, prompt_cache;
  const char *trace_file; /* NULL: none */
  FkCacheTune step_cache;
  int context_reuse;  /* refresh every N evaluations; 1: off */
  double token_merge; /* ratio; 0: off */
} FkTune;

/* Resolves `auto` by preset, backend and the other switches, and refuses what cannot be had (rule 7).
 * The strings in *tune live as long as `settings` is unchanged. */
bool fk_tune_resolve(const FkSettings *settings, const FkBackend *be, FkTune *tune, GError **error);
/* Sets the backend's switches for one edit. */
void fk_tune_apply(const FkTune *tune, FkBackend *be);
/* "decided (asked; why)" pairs as fk_engine_active returns them; (transfer full). */
char **fk_tune_report(const FkSettings *settings, const FkBackend *be);
/* What a property is after the preset and its interactions; NULL: it follows from the rest, or is a string not set. */
const char *fk_tune_decided(const FkSettings *settings, const FkProperty *p);
/* A mask of decisions: the right length and nothing but 0 and 1, the first 1. */
bool fk_tune_check_mask(const FkSettings *settings, GError **error);

#endif
