/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of a PNG as iTXt chunks, which hold UTF-8; see png-text.h. */
#include "png-text.h"

#include <string.h>

enum { SIGNATURE = 8, HEAD = SIGNATURE + 25 /* IHDR: length, name, 13 bytes, check */, FRAME = 12, TEXT_HEAD = 4 };

static const char record_key[] = "fluxkontext";

static guint32 crc(const guint8 *p, gsize n) {
  guint32 c = 0xffffffff;
  for (; n; n--) {
    c ^= *p++;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
  }
  return ~c;
}

static void append_number(GByteArray *out, guint32 value) {
  value = GUINT32_TO_BE(value);
  g_byte_array_append(out, (const guint8 *)&value, sizeof value);
}

/* keyword NUL, not compressed, no language, no translation, text */
static void append_text(GByteArray *out, const char *key, const char *text) {
  g_autoptr(GByteArray) chunk = g_byte_array_new();
  g_byte_array_append(chunk, (const guint8 *)"iTXt", 4);
  g_byte_array_append(chunk, (const guint8 *)key, (guint)strlen(key) + 1);
  g_byte_array_append(chunk, (const guint8 *)"\0\0\0\0", TEXT_HEAD);
  g_byte_array_append(chunk, (const guint8 *)text, (guint)strlen(text));
  append_number(out, chunk->len - 4);
  g_byte_array_append(out, chunk->data, chunk->len);
  append_number(out, crc(chunk->data, chunk->len));
}

/* Prompt, negative prompt, and the numbers under the names that A1111 gave them. */
static char *parameters(const FkJob *job, const char *record) {
  const FkSettings *s = job->settings;
  static const char before[] = "\n \"model\": {\"sha256\": \"";
  const char *negative = fk_settings_get(s, "negative-prompt"), *model = strstr(record, before);
  GString *text = g_string_new(fk_settings_get(s, "prompt"));
  if (negative) g_string_append_printf(text, "\nNegative prompt: %s", negative);
  g_string_append_printf(text, "\nSteps: %s, Sampler: %s, Schedule type: %s, CFG scale: %s, Distilled CFG Scale: %s",
                         fk_settings_decided(s, "steps"), fk_settings_decided(s, "scheduler"),
                         fk_settings_decided(s, "sigmas"), fk_settings_get(s, "true-cfg-scale"),
                         fk_settings_get(s, "guidance"));
  g_string_append_printf(text, ", Seed: %s, Size: %dx%d", fk_settings_get(s, "seed"), job->out.width, job->out.height);
  if (model) g_string_append_printf(text, ", Model hash: %.10s", model + strlen(before));
  g_string_append(text, ", Version: fluxkontext " FK_VERSION);
  return g_string_free(text, FALSE);
}

static bool is_png(const guint8 *data, gsize bytes) {
  return bytes > HEAD && !memcmp(data, "\x89PNG\r\n\x1a\n", SIGNATURE);
}

void png_text_add(guint8 **data, gsize *bytes, const FkJob *job, const char *record) {
  if (!is_png(*data, *bytes)) return;
  g_autoptr(GString) repeatable = g_string_new(record);
  const char *times = strstr(record, ",\n \"times\"");
  if (times) g_string_truncate(repeatable, (gsize)(times - record));
  g_string_append(repeatable, "}\n");
  g_autofree char *text = parameters(job, record);
  GByteArray *out = g_byte_array_new();
  g_byte_array_append(out, *data, HEAD);
  append_text(out, "parameters", text);
  append_text(out, record_key, repeatable->str);
  g_byte_array_append(out, *data + HEAD, (guint)(*bytes - HEAD));
  g_free(*data);
  *bytes = out->len;
  *data = g_byte_array_free(out, FALSE);
}

char *png_text_record(const guint8 *data, gsize bytes) {
  const gsize head = 8 + sizeof record_key + TEXT_HEAD;
  if (!is_png(data, bytes)) return NULL;
  for (gsize at = SIGNATURE; bytes - at >= FRAME;) {
    guint32 length;
    memcpy(&length, data + at, sizeof length);
    length = GUINT32_FROM_BE(length);
    if (length > bytes - at - FRAME) return NULL;
    if (length + 8 >= head && !memcmp(data + at + 4, "iTXt", 4) &&
        !memcmp(data + at + 8, record_key, sizeof record_key) &&
        !memcmp(data + at + 8 + sizeof record_key, "\0\0\0\0", TEXT_HEAD))
      return g_strndup((const char *)data + at + head, length + 8 - head);
    at += FRAME + length;
  }
  return NULL;
}
