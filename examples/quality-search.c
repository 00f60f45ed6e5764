/* SPDX-License-Identifier: Apache-2.0 */
/* The search; see quality-search.h. A setting is a vector of genes, each of which takes one of a few values. Cases on
 * which most settings failed come first, so that a bad setting costs one edit. Not here: edits, files and tables
 * (quality.c). */
#include "quality-search.h"

#include "quality-table.h"

#include <string.h>

/* Values that a property may take. The first is what an exact edit has, and is not written. needs: the gene without
 * which this one has no effect, by its place; -1: none. */
typedef struct {
  const char *name;
  const char *values[14];
  int needs;
} Gene;

enum { STEPS, CACHE = 3, REGION = 9, REUSE = 12, DRAFT = 14 };
static const Gene genes[] = {
    [STEPS] = {"steps", {"28", "24", "20", "16", "14", "13", "12", "11", "10", "9", "8", "6", "4"}, -1},
    {"scheduler", {"euler", "dpmpp-2m", "unipc", "deis"}, -1},
    {"sigmas", {"flow", "beta", "karras", "exponential"}, -1},
    /* A cadence: a threshold that no change reaches. */
    [CACHE] = {"step-cache", {"none", "teacache step-cache-threshold=100"}, -1},
    {"step-cache-cooldown", {"-1", "0", "1", "2"}, CACHE},
    {"step-cache-warmup", {"-1", "1", "2", "3", "4", "5", "6"}, CACHE},
    {"step-cache-last", {"-1", "1", "2", "3", "4", "6", "8"}, CACHE},
    {"step-cache-growth", {"0", "1", "2", "3", "4", "6"}, CACHE},
    {"step-cache-forecast", {"none", "taylor"}, CACHE},
    [REGION] = {"region-tokens", {"0", "0.05", "0.1", "0.2", "0.3"}, -1},
    {"region-warmup", {"4", "1", "2", "3", "6", "8"}, REGION},
    {"region-refresh", {"0", "2", "4", "6", "9"}, REGION},
    [REUSE] = {"context-reuse", {"1", "2", "3", "100"}, -1},
    {"context-reuse-warmup", {"0", "4", "8", "12", "16", "20"}, REUSE},
    [DRAFT] = {"draft", {"1", "2"}, -1},
    {"draft-share", {"0.3", "0.1", "0.2"}, DRAFT},
};

#define CADENCE "step-cache=teacache step-cache-threshold=100 step-cache-cooldown=0"
static const char *const starts[] = {
    CADENCE " step-cache-warmup=4 step-cache-last=1 step-cache-growth=1 step-cache-forecast=taylor",
    CADENCE " step-cache-warmup=4 step-cache-last=2 step-cache-growth=4 step-cache-forecast=taylor",
    CADENCE " step-cache-warmup=1 step-cache-last=8 step-cache-growth=2 step-cache-forecast=taylor",
    "steps=16 scheduler=deis sigmas=beta " CADENCE
    " step-cache-warmup=5 step-cache-last=2 step-cache-growth=2 step-cache-forecast=taylor",
    "steps=12 scheduler=unipc sigmas=beta " CADENCE
    " step-cache-warmup=4 step-cache-last=1 step-cache-growth=1 step-cache-forecast=taylor",
    "steps=8",
    "steps=4",
};

typedef struct {
  int value[G_N_ELEMENTS(genes)];
} Genome;

/* One that was tried. */
typedef struct {
  Genome genome;
  QualitySetting *setting;
  int passed;               /* cases */
  double worst, ssim, flop; /* dB and SSIM of the worst case of each */
} Tried;

static void tried_free(gpointer data) {
  Tried *t = data;
  quality_setting_free(t->setting);
  g_free(t);
}

static int values_of(const Gene *g) {
  int n = 0;
  while (n < (int)G_N_ELEMENTS(g->values) && g->values[n]) n++;
  return n;
}

static char *text_of(const Genome *g) {
  GString *s = g_string_new(NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(genes); i++) {
    if (!g->value[i] || (genes[i].needs >= 0 && !g->value[genes[i].needs])) continue;
    g_string_append_printf(s, "%s%s=%s", s->len ? " " : "", genes[i].name, genes[i].values[g->value[i]]);
  }
  return g_string_free(s, FALSE);
}

/* The genes whose property has its value in the text. */
static Genome genome_of(const char *text) {
  Genome g = {{0}};
  for (size_t i = 0; i < G_N_ELEMENTS(genes); i++)
    for (int k = 1; k < values_of(&genes[i]); k++) {
      g_autofree char *pair = g_strdup_printf(" %s=%s ", genes[i].name, genes[i].values[k]);
      g_autofree char *all = g_strdup_printf(" %s ", text);
      if (strstr(all, pair)) g.value[i] = k;
    }
  return g;
}

static int draw(GRand *random, int n) {
  return (int)g_rand_int_range(random, 0, n);
}

/* Half of the genes that switch something on do. */
static Genome random_genome(GRand *random) {
  Genome g = {{0}};
  for (size_t i = 0; i < G_N_ELEMENTS(genes); i++) {
    const int n = values_of(&genes[i]), value = draw(random, n);
    g.value[i] = genes[i].needs < 0 && i != STEPS && draw(random, 2) ? 0 : value;
  }
  return g;
}

/* One to three genes that have an effect get another value. */
static Genome changed(const Genome *from, GRand *random) {
  Genome g = *from;
  for (int left = 1 + draw(random, 3); left > 0;) {
    const int i = draw(random, G_N_ELEMENTS(genes)), n = values_of(&genes[i]);
    if (genes[i].needs >= 0 && !g.value[genes[i].needs]) continue;
    g.value[i] = (g.value[i] + 1 + draw(random, n - 1)) % n;
    left--;
  }
  return g;
}

/* ---- Judging ---- */

typedef struct {
  const QualityCase *c;
  int failures;
} Hurdle;

static int by_failures(const void *a, const void *b) {
  const Hurdle *x = a, *y = b;
  const int failures = y->failures - x->failures;
  return failures ? failures : strcmp(x->c->id, y->c->id);
}

/* Until the first case that it does not pass. */
static bool judge(const QualitySearch *s, GArray *hurdles, Tried *t, GError **error) {
  g_array_sort(hurdles, by_failures);
  t->worst = t->ssim = G_MAXDOUBLE;
  for (guint i = 0; i < hurdles->len; i++) {
    Hurdle *h = &g_array_index(hurdles, Hurdle, i);
    const QualityRow *row = s->judge(s->data, t->setting, h->c, error);
    if (!row) return false;
    t->flop += row->model_flop / s->cases->len;
    t->worst = MIN(t->worst, row->psnr);
    t->ssim = MIN(t->ssim, row->ssim);
    const bool dear = row->model_flop * s->by > s->exact, bad = row->psnr < s->floor || row->ssim < s->ssim;
    h->failures += bad;
    if (dear || bad) return true;
    t->passed++;
  }
  return true;
}

static bool is_whole(const QualitySearch *s, const Tried *t) {
  return t->passed == (int)s->cases->len;
}

/* Whether some other one is as good in all three and better in one. */
static bool is_beaten(const QualitySearch *s, const GPtrArray *all, const Tried *t) {
  for (guint i = 0; i < all->len; i++) {
    const Tried *o = all->pdata[i];
    if (o != t && is_whole(s, o) && o->worst >= t->worst && o->ssim >= t->ssim && o->flop <= t->flop &&
        (o->worst > t->worst || o->ssim > t->ssim || o->flop < t->flop))
      return true;
  }
  return false;
}

static int by_flop(const void *a, const void *b) {
  const Tried *x = *(Tried *const *)a, *y = *(Tried *const *)b;
  return x->flop > y->flop ? 1 : x->flop < y->flop ? -1 : strcmp(x->setting->text, y->setting->text);
}

/* (transfer container) */
static GPtrArray *front_of(const QualitySearch *s, const GPtrArray *all) {
  GPtrArray *front = g_ptr_array_new();
  for (guint i = 0; i < all->len; i++)
    if (is_whole(s, all->pdata[i]) && !is_beaten(s, all, all->pdata[i])) g_ptr_array_add(front, all->pdata[i]);
  g_ptr_array_sort(front, by_flop);
  return front;
}

/* What the next ones are changed from: the front, or those that passed the most cases. (transfer container) */
static GPtrArray *parents_of(const QualitySearch *s, const GPtrArray *all) {
  GPtrArray *parents = front_of(s, all);
  int most = 1;
  if (parents->len) return parents;
  for (guint i = 0; i < all->len; i++) most = MAX(most, ((const Tried *)all->pdata[i])->passed);
  for (guint i = 0; i < all->len; i++)
    if (((const Tried *)all->pdata[i])->passed == most) g_ptr_array_add(parents, all->pdata[i]);
  return parents;
}

static bool is_known(const GPtrArray *all, const char *text) {
  for (guint i = 0; i < all->len; i++)
    if (!strcmp(((const Tried *)all->pdata[i])->setting->text, text)) return true;
  return false;
}

/* The next one: the starts; then one in four is random, the others come from the best so far. */
static Genome next(const QualitySearch *s, const GPtrArray *all, int i, GRand *random) {
  if (i < (int)G_N_ELEMENTS(starts)) return genome_of(starts[i]);
  g_autoptr(GPtrArray) parents = parents_of(s, all);
  if (!parents->len || !draw(random, 4)) return random_genome(random);
  return changed(&((const Tried *)parents->pdata[draw(random, (int)parents->len)])->genome, random);
}

/* NULL: the settings cannot be combined. */
static Tried *tried_new(const QualitySearch *s, const Genome *g, char *text) {
  g_autofree char *line = g_strdup_printf("tried: %s", text);
  Tried *t = g_new0(Tried, 1);
  t->genome = *g;
  t->setting = quality_setting_parse(line, (1u << QUALITY_TIERS) - 1, NULL);
  g_autoptr(FkSettings) probe = t->setting ? quality_settings_apply(t->setting, s->cases->pdata[0], NULL) : NULL;
  if (probe) return t;
  tried_free(t);
  return NULL;
}

GPtrArray *quality_search(const QualitySearch *s, GError **error) {
  g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func(tried_free);
  g_autoptr(GArray) hurdles = g_array_new(FALSE, FALSE, sizeof(Hurdle));
  g_autoptr(GRand) random = g_rand_new_with_seed(s->seed);
  for (guint i = 0; i < s->cases->len; i++) g_array_append_val(hurdles, ((Hurdle){s->cases->pdata[i], 0}));
  for (int i = 0, draws = 0; i < s->count && draws < 100 * s->count; draws++) {
    const Genome g = next(s, all, draws, random);
    g_autofree char *text = text_of(&g);
    Tried *t = *text && !is_known(all, text) ? tried_new(s, &g, text) : NULL;
    if (!t) continue;
    g_ptr_array_add(all, t);
    if (!judge(s, hurdles, t, error)) return NULL;
    i++;
  }
  g_autoptr(GPtrArray) front = front_of(s, all);
  GPtrArray *settings = g_ptr_array_new_with_free_func(quality_setting_free);
  for (guint i = 0; i < front->len; i++) {
    Tried *t = front->pdata[i];
    g_autofree char *line = g_strdup_printf("found-%u: %s", i + 1, t->setting->text);
    g_ptr_array_add(settings, quality_setting_parse(line, (1u << QUALITY_TIERS) - 1, NULL));
  }
  return settings;
}
