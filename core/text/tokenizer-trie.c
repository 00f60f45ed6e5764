/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of the tokenizers: a map between numbers, a trie over bytes, and ranges of code points. */
#include "tokenizer-private.h"

#include "json-scan.h"

#include <string.h>

/* ---- FkMap: open addressing; at most half of the slots are taken ---- */

bool fk_map_init(FkMap *map, gsize entries) {
  int bits = 4;
  while (((gsize)1 << bits) < entries * 2) bits++;
  *map = (FkMap){g_try_new0(guint64, (gsize)1 << bits), g_try_new(gint32, (gsize)1 << bits), fk_hash_multiplier(),
                 64 - bits};
  return map->keys && map->values;
}

void fk_map_clear(FkMap *map) {
  g_clear_pointer(&map->keys, g_free);
  g_clear_pointer(&map->values, g_free);
}

/* The slot of `key`, or the free one where it would go. Multiplications keep the highest bits, so those of the key come
 * down in between. */
static gsize map_slot(const FkMap *map, guint64 key) {
  guint64 hash = key * map->multiplier;
  hash = (hash ^ hash >> 32) * G_GUINT64_CONSTANT(0x9E3779B97F4A7C15);
  const gsize mask = G_MAXUINT64 >> map->shift;
  gsize slot = hash >> map->shift;
  while (map->keys[slot] != 0 && map->keys[slot] != key + 1) slot = (slot + 1) & mask;
  return slot;
}

bool fk_map_add(FkMap *map, guint64 key, gint32 value) {
  gsize slot = map_slot(map, key);
  if (map->keys[slot]) return false;
  map->keys[slot] = key + 1;
  map->values[slot] = value;
  return true;
}

gint32 fk_map_get(const FkMap *map, guint64 key) {
  gsize slot = map_slot(map, key);
  return map->keys[slot] ? map->values[slot] : -1;
}

/* ---- FkTrie ---- */

bool fk_trie_init(FkTrie *trie, gsize bytes) {
  *trie = (FkTrie){.value = g_try_new(gint32, bytes + 1), .nodes = 1};
  if (!fk_map_init(&trie->edges, bytes) || !trie->value) return false;
  trie->value[0] = -1;
  return true;
}

void fk_trie_clear(FkTrie *trie) {
  fk_map_clear(&trie->edges);
  g_clear_pointer(&trie->value, g_free);
}

bool fk_trie_add(FkTrie *trie, const char *text, gsize bytes, gint32 value) {
  gint32 node = 0;
  for (gsize i = 0; i < bytes; i++) {
    gint32 child = fk_trie_step(trie, node, text[i]);
    if (child < 0) {
      child = trie->nodes++;
      trie->value[child] = -1;
      fk_map_add(&trie->edges, (guint64)node << 8 | (guint8)text[i], child);
    }
    node = child;
  }
  if (trie->value[node] >= 0) return false;
  trie->value[node] = value;
  return true;
}

gint32 fk_trie_find(const FkTrie *trie, const char *text) {
  gint32 node = 0;
  for (; *text && node >= 0; text++) node = fk_trie_step(trie, node, *text);
  return node > 0 ? trie->value[node] : -1;
}

/* ---- Ranges ---- */

const FkRange *fk_range_find(const FkRange *ranges, gsize count, gunichar c) {
  gsize low = 0, high = count;
  while (low < high) {
    gsize middle = (low + high) / 2;
    if (c > ranges[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < count && c >= ranges[low].first ? &ranges[low] : NULL;
}
