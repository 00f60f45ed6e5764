/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of weights and the memory they are in; see residency.h. */
#include "residency.h"

#include "fk-error.h"
#include "ops.h"

#include <string.h>

static void clear_group(gpointer group) {
  g_free(((FkGroup *)group)->name);
}

static size_t aligned(size_t bytes) {
  return (bytes + FK_WEIGHT_ALIGN - 1) / FK_WEIGHT_ALIGN * FK_WEIGHT_ALIGN;
}

void fk_store_init(FkStore *s, FkBackend *be) {
  FkGroup unnamed = {.name = g_strdup(""), .slot = -1};
  *s = (FkStore){.be = be, .groups = g_array_new(FALSE, FALSE, sizeof(FkGroup))};
  g_array_set_clear_func(s->groups, clear_group);
  g_array_append_val(s->groups, unnamed);
}

static void release_host(FkStore *s) {
  if (s->host) s->be->ops->host_release(s->be, s->host);
  s->host = NULL;
  s->host_filled = false;
  if (s->kept) s->be->ops->host_release(s->be, s->kept);
  s->kept = NULL;
  s->kept_filled = false;
}

void fk_store_clear(FkStore *s) {
  fk_store_release(s);
  release_host(s);
  g_clear_pointer(&s->groups, g_array_unref);
}

void fk_store_group(FkStore *s, const char *name, FkUse use) {
  FkGroup group = {.name = g_strdup(name), .at = aligned(s->bytes), .use = use, .slot = -1};
  assert(!s->memory);
  if (!s->bytes) g_array_set_size(s->groups, 0); /* nothing is in the one without a name */
  g_array_append_val(s->groups, group);
}

size_t fk_store_place(FkStore *s, size_t bytes) {
  FkGroup *group = &g_array_index(s->groups, FkGroup, s->groups->len - 1);
  const size_t at = aligned(s->bytes);
  assert(!s->memory);
  s->bytes = at + bytes;
  group->bytes = s->bytes - group->at;
  s->memory_bytes = s->stay_bytes = s->bytes;
  return at;
}

/* ---- The ring ---- */

static int count_use(const FkStore *s, FkUse use) {
  int n = 0;
  for (guint i = 0; i < s->groups->len; i++) n += fk_store_at(s, (int)i)->use == use;
  return n;
}

int fk_store_levels(const FkStore *s) {
  const int each = count_use(s, FK_USE_EACH);
  return each ? 1 + each : 0;
}

/* Of n groups that each evaluation uses, the i-th is one of the k that leave. */
static bool leaves(int i, int k, int n) {
  return (int64_t)(i + 1) * k / n > (int64_t)i * k / n;
}

typedef struct {
  size_t memory, host, largest, stay;
  int slots;
} Layout;

/* Gives every group its slot and its places. */
static Layout lay_out(FkGroup *groups, int count, int level, int slots) {
  Layout l = {0};
  int n = 0, seen = 0, most = 0, index[FK_USES] = {0};
  for (int i = 0; i < count; i++) n += groups[i].use == FK_USE_EACH;
  for (int i = 0; i < count; i++) {
    FkGroup *g = &groups[i];
    const bool away = level > 0 && (g->use == FK_USE_BEFORE || (g->use == FK_USE_EACH && leaves(seen, level - 1, n)));
    seen += g->use == FK_USE_EACH;
    g->slot = away ? index[g->use]++ : -1;
    if (away) most = MAX(most, index[g->use]);
    g->where = l.stay;
    g->host_at = l.host;
    if (away) l.largest = MAX(l.largest, aligned(g->bytes));
    *(away ? &l.host : &l.stay) += aligned(g->bytes);
  }
  l.slots = MIN(slots, most);
  for (int i = 0; i < count; i++) {
    FkGroup *g = &groups[i];
    if (g->slot < 0) continue;
    g->slot %= l.slots;
    g->where = l.stay + (size_t)g->slot * l.largest;
  }
  l.memory = l.stay + (size_t)l.slots * l.largest;
  return l;
}

size_t fk_store_level_bytes(const FkStore *s, int level, int slots) {
  g_autofree FkGroup *groups = g_memdup2(s->groups->data, sizeof(FkGroup) * s->groups->len);
  return level ? lay_out(groups, (int)s->groups->len, level, slots).memory : s->bytes;
}

size_t fk_store_level_host_bytes(const FkStore *s, int level, int slots, bool keeps) {
  g_autofree FkGroup *groups = g_memdup2(s->groups->data, sizeof(FkGroup) * s->groups->len);
  const Layout l = lay_out(groups, (int)s->groups->len, level, slots);
  return l.host + (!keeps ? 0 : level ? l.stay : s->bytes);
}

size_t fk_store_pinned_bytes(const FkStore *s) {
  return (s->host ? s->host_bytes : 0) + (s->kept ? s->stay_bytes : 0);
}

void fk_store_stream(FkStore *s, int level, int slots) {
  assert(!s->memory && level >= 0 && level <= fk_store_levels(s) && slots > 0 && slots <= FK_RING_SLOTS);
  release_host(s);
  const Layout l = lay_out((FkGroup *)(void *)s->groups->data, (int)s->groups->len, level, slots);
  s->level = level;
  s->slots = l.slots;
  s->memory_bytes = level ? l.memory : s->bytes;
  s->stay_bytes = level ? l.stay : s->bytes;
  s->host_bytes = l.host;
  for (int i = 0; i < FK_RING_SLOTS; i++) s->occupant[i] = -1;
}

int fk_store_group_at(const FkStore *s, size_t place) {
  int first = 0, last = (int)s->groups->len - 1;
  while (first < last) {
    const int middle = (first + last + 1) / 2;
    if (fk_store_at(s, middle)->at <= place)
      first = middle;
    else
      last = middle - 1;
  }
  return first;
}

void *fk_store_address(const FkStore *s, size_t place) {
  if (!s->memory) return NULL;
  if (!s->level) return (char *)s->memory + place;
  const FkGroup *g = fk_store_at(s, fk_store_group_at(s, place));
  return (char *)s->memory + g->where + (place - g->at);
}

static void fetch(FkStore *s, int group) {
  const FkGroup *g = fk_store_at(s, group);
  fk_op_stream_copy(s->be, g->slot, s->memory ? (char *)s->memory + g->where : NULL,
                    s->host ? (char *)s->host + g->host_at : NULL, g->bytes);
  s->occupant[g->slot] = s->be->failure ? -1 : group;
}

void fk_store_need(FkStore *s, int group) {
  const int slot = fk_store_at(s, group)->slot;
  if (slot < 0) return;
  if (s->occupant[slot] != group) fetch(s, group);
  fk_op_stream_wait(s->be, slot);
}

/* The next user of the slot: in the order of groups, and from the last of an evaluation to the first. -1: none. */
static int next_of(const FkStore *s, int group) {
  const FkGroup *g = fk_store_at(s, group);
  int first = -1;
  for (int i = 0; i < (int)s->groups->len; i++) {
    const FkGroup *other = fk_store_at(s, i);
    if (other->slot != g->slot) continue;
    if (other->use == g->use && i > group) return i;
    if (first < 0 && other->use == FK_USE_EACH) first = i;
  }
  return s->once ? -1 : first;
}

void fk_store_done(FkStore *s, int group) {
  const int slot = fk_store_at(s, group)->slot;
  if (slot < 0) return;
  fk_op_stream_done(s->be, slot);
  const int next = next_of(s, group);
  if (next >= 0 && next != group) fetch(s, next);
}

void fk_store_settle(FkStore *s) {
  for (int i = 0; i < s->slots; i++) {
    fk_op_stream_wait(s->be, i);
    s->occupant[i] = -1;
  }
}

/* ---- Memory ---- */

bool fk_store_alloc_host(FkStore *s, const char *what, GError **error) {
  if (s->host || !s->host_bytes) return true;
  s->host = s->be->ops->host_alloc(s->be, s->host_bytes);
  if (!s->host)
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: an allocation of %zu bytes of host memory was refused", what,
                s->host_bytes);
  return s->host != NULL;
}

bool fk_store_alloc(FkStore *s, const char *what, GError **error) {
  size_t free_bytes = 0, total_bytes = 0;
  assert(!s->memory);
  s->memory = s->be->ops->alloc(s->be, s->memory_bytes);
  if (s->memory) return true;
  s->be->ops->memory(s->be, &free_bytes, &total_bytes);
  /* A limit of the process or a hole too small may refuse what there is enough of: then the number says nothing. */
  g_autofree char *have = free_bytes < s->memory_bytes ? g_strdup_printf("; %zu are free", free_bytes) : NULL;
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: an allocation of %zu bytes on %s was refused%s", what,
              s->memory_bytes, s->be->machine, have ? have : "");
  return false;
}

void fk_store_release(FkStore *s) {
  if (s->memory) s->be->ops->release(s->be, s->memory);
  s->memory = NULL;
  for (int i = 0; i < FK_RING_SLOTS; i++) s->occupant[i] = -1;
}

/* The null backend's addresses are made up: there is nothing to copy. */
bool fk_store_keep(FkStore *s) {
  const FkOps *ops = s->be->ops;
  if (s->kept_filled) return true;
  if (!s->memory || !s->stay_bytes || !ops->host_alloc) return false;
  if (!s->kept) s->kept = ops->host_alloc(s->be, s->stay_bytes);
  if (!s->kept) return false;
  if (strcmp(ops->name, "null")) ops->download(s->be, s->kept, s->memory, s->stay_bytes);
  s->kept_filled = !s->be->failure;
  return s->kept_filled;
}

bool fk_store_restore(FkStore *s) {
  if (!s->kept_filled) return false;
  s->be->ops->upload(s->be, s->memory, s->kept, s->stay_bytes);
  return !s->be->failure;
}
