/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of settings that cannot be combined and of settings that have no effect beside others, from which checks,
 * warnings, tests and documents come. An explicit value is refused when another explicit one forbids it
 * (fk_settings_check, tune.c); a preset's choice gives way instead. */
#include "interactions.h"

#include "properties.h"

#include <string.h>

static const FkInteraction table[] = {
    {"token-merge", ">0", "context-reuse", ">1",
     "keys and values kept from one evaluation are of tokens that the next one merges differently"},
    {"context-reuse", ">1", "task", "=generate", "without a reference image there is nothing to reuse"},
    {"context-reuse", ">1", "step-cache-back", ">0",
     "the blocks after the skipped ones need the context rows, which a reusing evaluation does not compute"},
    {"step-cache", "=teacache", "step-cache-front", ">-1",
     "TeaCache looks at the model's input and runs no block first"},
    {"step-cache", "=teacache", "step-cache-back", ">0", "TeaCache skips to the end of the model"},
    {"draft", ">1", "strength", "<=0.999999", "the steps that a draft runs are those that strength leaves out"},
    {"draft", ">1", "scheduler", "=heun", "the second slope of the draft's last step would be of another size"},
    {"mask", "!none", "task", "=generate", "a picture from text alone has nothing to keep"},
    {"mask", "!none", "size-mode", "=native", "the result has another size than the frame that is kept"},
    {"references", "!", "task", "=generate", "a picture from text alone refers to no other"},
    {"region-tokens", ">0", "task", "=generate", "without a reference image there is nothing to compare with"},
    {"region-tokens", ">0", "token-merge", ">0", "groups of tokens would be edited in part"},
    {"region-tokens", ">0", "step-cache-back", ">0", "the blocks after the skipped ones need all rows"},
    {"region-tokens", ">0", "guidance-start", ">0", "the negative branch would have no keys of the unedited tokens"},
    {"region-keep", "=true", "size-mode", "=native", "the result has another size than the frame that is kept"},
    {"region-tokens", "=0", "region-mask", "!",
     "a mask is replayed by region-tokens: give the threshold that wrote it"},
    {"step-cache", "=none", "step-cache-mask", "!", "a mask is replayed by a step cache: name the one that wrote it"},
};

#define FEW_STEP                                                                                                       \
  "no adapter is named, and the few steps of preset=few-step make good pictures only with one, or a model, that was "  \
  "distilled for them"
#define NO_CACHE(name)                                                                                                 \
  { name, NULL, "step-cache", "=none", "no step cache runs" }
#define MASKED(name)                                                                                                   \
  { name, NULL, "step-cache-mask", "!", "step-cache-mask decides" }

static const FkInteraction idle[] = {
    {"prompt", "=", NULL, NULL, "it is empty: what changes is left to the model"},
    {"loras", "", "preset", "=few-step", FEW_STEP},
    {"loras", "=", "preset", "=few-step", FEW_STEP},
    {"negative-prompt", NULL, "true-cfg-scale", "<=1", "true classifier-free guidance is off at true-cfg-scale=1"},
    {"true-cfg-scale", ">1", "negative-prompt", "", "there is no negative-prompt to guide away from"},
    {"guidance-start", NULL, "true-cfg-scale", "<=1", "true classifier-free guidance is off at true-cfg-scale=1"},
    {"guidance-end", NULL, "true-cfg-scale", "<=1", "true classifier-free guidance is off at true-cfg-scale=1"},
    {"guidance-start", NULL, "negative-prompt", "", "there is no negative-prompt to guide away from"},
    {"guidance-end", NULL, "negative-prompt", "", "there is no negative-prompt to guide away from"},
    {"strength", NULL, "task", "=generate", "the frame's pixels take no part"},
    {"mask-type", NULL, "mask", "!meta", "it names regions of interest, which mask=meta reads"},
    {"mask-invert", NULL, "mask", "=none", "no setting says where a mask is"},
    {"mask-dilate", NULL, "mask", "=none", "no setting says where a mask is"},
    {"mask-feather", NULL, "mask", "=none", "no setting says where a mask is"},
    {"region", NULL, "mask", "=none", "no setting says where a mask is"},
    {"mask-path", NULL, "mask", "=alpha", "mask=alpha takes the frame's transparency"},
    {"mask-path", NULL, "mask", "=meta", "mask=meta takes regions of interest"},
    {"max-area", NULL, "size-mode", "=native", "a native size is one of the model's own"},
    NO_CACHE("step-cache-threshold"),
    NO_CACHE("step-cache-front"),
    NO_CACHE("step-cache-back"),
    NO_CACHE("step-cache-warmup"),
    NO_CACHE("step-cache-max"),
    NO_CACHE("step-cache-last"),
    NO_CACHE("step-cache-growth"),
    NO_CACHE("step-cache-cooldown"),
    NO_CACHE("step-cache-forecast"),
    MASKED("step-cache-threshold"),
    MASKED("step-cache-warmup"),
    MASKED("step-cache-max"),
    MASKED("step-cache-last"),
    MASKED("step-cache-growth"),
    MASKED("step-cache-cooldown"),
    {"context-reuse-warmup", NULL, "context-reuse", "<=1", "the context is computed at every evaluation"},
    {"region-warmup", NULL, "region-tokens", "<=0", "all tokens are computed"},
    {"region-refresh", NULL, "region-tokens", "<=0", "all tokens are computed"},
    {"region-keys", NULL, "region-tokens", "<=0", "all tokens are computed"},
    {"region-keep", NULL, "region-tokens", "<=0", "all tokens are computed"},
    {"draft-share", NULL, "draft", "<=1", "there is no draft"},
    {"step-cache-growth", NULL, "step-cache-last", "<=-1", "runs have no limit that could grow (step-cache-last)"},
};

const FkInteraction *fk_interactions(size_t *count) {
  *count = G_N_ELEMENTS(table);
  return table;
}

const FkInteraction *fk_interactions_idle(size_t *count) {
  *count = G_N_ELEMENTS(idle);
  return idle;
}

bool fk_interactions_holds(const char *when, const char *value) {
  if (!*when) return !value;
  if (!value) return false;
  if (*when == '<') return g_ascii_strtod(value, NULL) <= g_ascii_strtod(when + 2, NULL);
  if (*when == '>') return g_ascii_strtod(value, NULL) > g_ascii_strtod(when + 1, NULL);
  return !strcmp(value, when + 1) == (*when == '=');
}

const char *fk_interactions_yield(const FkValues *v, const char *name, const char *value) {
  for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
    const FkInteraction *t = &table[i];
    const bool first = !strcmp(t->a, name);
    if (!first && strcmp(t->b, name)) continue;
    const FkProperty *other = fk_properties_find(first ? t->b : t->a);
    const char *asked = fk_values_get(v, other);
    if (fk_properties_automatic(other, asked)) continue;
    if (fk_interactions_holds(first ? t->a_when : t->b_when, value) &&
        fk_interactions_holds(first ? t->b_when : t->a_when, asked))
      return t->reason;
  }
  return NULL;
}
