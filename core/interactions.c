/* SPDX-License-Identifier: Apache-2.0 */
/* The table of settings that refuse each other, from which checks, tests and documents come. An explicit value
 * is refused when another explicit one forbids it (fk_settings_check, tune.c); a preset's choice gives way instead. */
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
    {"step-cache", "=none", "step-cache-mask", "!", "a mask is replayed by a step cache: name the one that wrote it"},
};

const FkInteraction *fk_interactions(size_t *count) {
  *count = G_N_ELEMENTS(table);
  return table;
}

bool fk_interactions_holds(const char *when, const char *value) {
  if (!value) return false;
  if (*when == '>') return g_ascii_strtod(value, NULL) > g_ascii_strtod(when + 1, NULL);
  return !strcmp(value, when + 1) == (*when == '=');
}

const char *fk_interactions_yield(const FkSettings *s, const char *name, const char *value) {
  for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
    const FkInteraction *t = &table[i];
    const bool first = !strcmp(t->a, name);
    if (!first && strcmp(t->b, name)) continue;
    const FkProperty *other = fk_properties_find(first ? t->b : t->a);
    const char *asked = fk_settings_get(s, other->name);
    if (fk_properties_automatic(other, asked)) continue;
    if (fk_interactions_holds(first ? t->a_when : t->b_when, value) &&
        fk_interactions_holds(first ? t->b_when : t->a_when, asked))
      return t->reason;
  }
  return NULL;
}
