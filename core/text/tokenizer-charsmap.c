/* SPDX-License-Identifier: Apache-2.0 */
/* sentencepiece's precompiled character map (nmt_nfkc), as the tokenizers library applies it.
 *
 * The map is a double-array trie over UTF-8 bytes whose leaves are offsets into NUL-terminated replacement texts. The
 * tokenizers library takes the shortest hit and replaces a whole short grapheme cluster by it; the C++ sentencepiece
 * library takes the longest hit and goes on behind it. They differ on combining marks, so the map is walked here, with
 * every index checked, and not there. Source: spec 3.2. */
#include "file.h"
#include "tokenizer-private.h"

#include <string.h>

enum { CLUSTER_BYTES = 6, REPLACEMENT_LIMIT = 128 }; /* the longest replacement of nmt_nfkc has 33 bytes */

struct FkCharsmap {
  guint32 *units;
  guint32 count;
  char *texts;
  guint32 text_bytes;
};

static FkCharsmap *bad(FkCharsmap *map, const char *path, const char *what, GError **error) {
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: precompiled_charsmap: %s", shown, what);
  fk_charsmap_free(map);
  return NULL;
}

/* NULL: the replacement texts are sound. */
static const char *check_texts(const char *texts, gsize bytes) {
  if (bytes == 0 || texts[bytes - 1] != 0) return "the replacement texts do not end with a zero";
  for (gsize at = 0; at < bytes;) {
    gsize length = strlen(texts + at);
    if (length > REPLACEMENT_LIMIT) return "a replacement text is longer than 128 bytes";
    if (!g_utf8_validate(texts + at, (gssize)length, NULL)) return "a replacement text is not UTF-8";
    at += length + 1;
  }
  return NULL;
}

FkCharsmap *fk_charsmap_new(const guint8 *blob, gsize bytes, const char *path, GError **error) {
  FkCharsmap *map = g_new0(FkCharsmap, 1);
  guint32 trie;
  if (!blob || bytes == 0) return map;
  if (bytes < sizeof trie || bytes > G_MAXUINT32) return bad(map, path, "has no trie", error);
  memcpy(&trie, blob, sizeof trie);
  trie = GUINT32_FROM_LE(trie);
  if (trie < 4 || trie % 4 || trie > bytes - sizeof trie) return bad(map, path, "the trie's size is wrong", error);
  map->count = trie / 4;
  map->text_bytes = (guint32)(bytes - sizeof trie - trie);
  map->units = g_try_malloc(trie);
  map->texts = g_try_malloc((gsize)map->text_bytes + 1);
  if (!map->units || !map->texts) {
    g_autofree char *shown = fk_shown_path(path);
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for a character map of %" G_GSIZE_FORMAT " bytes",
                shown, bytes);
    fk_charsmap_free(map);
    return NULL;
  }
  memcpy(map->units, blob + sizeof trie, trie);
  memcpy(map->texts, blob + sizeof trie + trie, map->text_bytes);
  for (guint32 i = 0; i < map->count; i++) map->units[i] = GUINT32_FROM_LE(map->units[i]);
  const char *wrong = check_texts(map->texts, map->text_bytes);
  return wrong ? bad(map, path, wrong, error) : map;
}

void fk_charsmap_free(FkCharsmap *map) {
  if (!map) return;
  g_free(map->units);
  g_free(map->texts);
  g_free(map);
}

/* A unit's bits: 0-7 label, 8 a leaf follows, 9 the offset counts in 256s, 10-30 offset, 31 it is a leaf's value. */
static guint32 unit_offset(guint32 unit) {
  return (unit >> 10) << ((unit & 0x200) >> 6);
}

/* The replacement of the shortest key that `text` starts with; NULL: none. */
static const char *find(const FkCharsmap *map, const char *text, gsize bytes) {
  if (map->count == 0) return NULL;
  guint32 at = unit_offset(map->units[0]);
  for (gsize i = 0; i < bytes && text[i]; i++) {
    at ^= (guint8)text[i];
    if (at >= map->count) return NULL;
    guint32 unit = map->units[at];
    if ((unit & 0x800000FF) != (guint8)text[i]) return NULL;
    at ^= unit_offset(unit);
    if (!(unit >> 8 & 1)) continue;
    guint32 value = at < map->count ? map->units[at] & 0x7FFFFFFF : G_MAXUINT32;
    /* An offset into the middle of a character would make text that is not UTF-8. */
    return value < map->text_bytes && (map->texts[value] & 0xC0) != 0x80 ? map->texts + value : NULL;
  }
  return NULL;
}

void fk_charsmap_apply(const FkCharsmap *map, const char *text, gsize bytes, GString *out) {
  const char *end = text + bytes;
  for (const char *p = text; p < end && out->len <= FK_CLEAN_LIMIT;) {
    const char *next = fk_grapheme_end(p, end);
    const char *whole = next - p < CLUSTER_BYTES ? find(map, p, (gsize)(next - p)) : NULL;
    if (whole) {
      g_string_append(out, whole);
      p = next;
    }
    while (p < next && out->len <= FK_CLEAN_LIMIT) {
      gsize length = (gsize)(g_utf8_next_char(p) - p);
      const char *one = find(map, p, length);
      if (one)
        g_string_append(out, one);
      else
        g_string_append_len(out, p, (gssize)length);
      p += length;
    }
  }
}
