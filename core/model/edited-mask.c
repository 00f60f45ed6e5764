/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens are edited: measure, threshold, growing, buckets and the text; see edited.h. Host arrays, fixed order.
 */
#include "edited.h"

#include "fk-error.h"

#include <math.h>
#include <string.h>

void fk_edited_measure(float *change, const float *clean, const float *reference, int tokens, int columns) {
  for (int t = 0; t < tokens; t++) {
    float sum = 0;
    for (int c = 0; c < columns; c++) sum += fabsf(clean[t * columns + c] - reference[t * columns + c]);
    change[t] = sum / (float)columns;
  }
}

/* to[t] = whether any of the 3x3 around t has `value` (outside the grid: none has), else 1 - value. */
static void spread(uint8_t *to, const uint8_t *from, int h, int w, uint8_t value) {
  for (int y = 0; y < h; y++)
    for (int x = 0; x < w; x++) {
      bool found = false;
      for (int j = MAX(0, y - 1); j <= MIN(h - 1, y + 1); j++)
        for (int i = MAX(0, x - 1); i <= MIN(w - 1, x + 1); i++) found |= from[j * w + i] == value;
      to[y * w + x] = found ? value : (uint8_t)(1 - value);
    }
}

/* On a grid with a border of one more token, so that what is grown over the edge shrinks back. */
void fk_edited_find(uint8_t *edited, const float *change, int h, int w, double threshold) {
  const int wide = w + 2;
  const size_t n = (size_t)(h + 2) * (size_t)wide;
  g_autofree uint8_t *found = g_new0(uint8_t, n), *grown = g_new0(uint8_t, n), *more = g_new0(uint8_t, n);
  for (int t = 0; t < h * w; t++) found[(t / w + 1) * wide + t % w + 1] = !((double)change[t] <= threshold);
  spread(grown, found, h + 2, wide, 1);
  for (int i = 0; i < wide; i++) grown[i] = grown[(h + 1) * wide + i] = 0;
  for (int i = 0; i < h + 2; i++) grown[i * wide] = grown[i * wide + w + 1] = 0;
  spread(more, grown, h + 2, wide, 1);
  spread(found, more, h + 2, wide, 0);
  for (int t = 0; t < h * w; t++) edited[t] = found[(t / w + 1) * wide + t % w + 1];
}

int fk_edited_bucket(int i, int tokens) {
  return MIN(tokens, i * ((tokens + FK_EDITED_BUCKETS - 1) / FK_EDITED_BUCKETS));
}

/* The unedited token of the largest change; numbers before what is none. */
static int next_token(const uint8_t *edited, const float *change, int tokens) {
  int best = -1;
  for (int t = 0; t < tokens; t++) {
    if (edited[t]) continue;
    if (best < 0 || (change && change[t] > change[best])) best = t;
  }
  return best;
}

int fk_edited_fill(uint8_t *edited, const float *change, int tokens) {
  const int size = fk_edited_bucket(1, tokens);
  int count = 0;
  for (int t = 0; t < tokens; t++) count += edited[t];
  const int want = fk_edited_bucket(MAX(1, (count + size - 1) / size), tokens);
  for (; count < want; count++) edited[next_token(edited, change, tokens)] = 1;
  return count;
}

void fk_edited_write(char *text, const uint8_t *edited, int h, int w) {
  int at = g_snprintf(text, FK_EDITED_TEXT, "%dx%d:", w, h);
  for (int t = 0; t < h * w && at + 1 < FK_EDITED_TEXT; t += 4) {
    int digit = 0;
    for (int k = 0; k < 4; k++) digit = digit * 2 + (t + k < h * w && edited[t + k]);
    text[at++] = "0123456789abcdef"[digit];
  }
  text[at] = 0;
}

static bool refuse(GError **error, char *found, int h, int w) {
  g_autofree char *shown = found;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "region-mask: expected \"%dx%d:\" and %d hexadecimal digits, found %s", w, h, (h * w + 3) / 4, shown);
  return false;
}

bool fk_edited_read(const char *text, uint8_t *edited, int h, int w, GError **error) {
  g_autofree char *head = g_strdup_printf("%dx%d:", w, h);
  const int digits = (h * w + 3) / 4;
  if (!g_str_has_prefix(text, head)) return refuse(error, g_strdup_printf("\"%.20s\"", text), h, w);
  text += strlen(head);
  if (strlen(text) != (size_t)digits) return refuse(error, g_strdup_printf("%zu digits", strlen(text)), h, w);
  for (int i = 0; i < digits; i++) {
    const int digit = g_ascii_xdigit_value(text[i]);
    if (digit < 0) return refuse(error, g_strdup_printf("\"%.1s\" as digit %d", text + i, i + 1), h, w);
    for (int k = 0; k < 4 && 4 * i + k < h * w; k++) edited[4 * i + k] = digit >> (3 - k) & 1;
  }
  return true;
}
