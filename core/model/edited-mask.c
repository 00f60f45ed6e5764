/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens are edited: measure, threshold, growing, buckets and the text; see edited.h. Host arrays, fixed order.
 */
#include "edited.h"

#include "file.h"
#include "fk-error.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define SEVERAL "v2:" /* begins the text of several masks */
/* Tokens of the largest grid, evaluations of the longest schedule, and letters for runs of zeros (g to v). */
enum { TOKENS = 32768, EVALUATIONS = 2000, RUNS = 16 };

static const char hexadecimal[] = "0123456789abcdef";

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

/* Four tokens from t on; with `before` those that differ from it. */
static int digit_of(const uint8_t *edited, const uint8_t *before, int t, int tokens) {
  int digit = 0;
  for (int k = t; k < t + 4; k++) digit = digit * 2 + (k < tokens && (before ? edited[k] != before[k] : edited[k]));
  return digit;
}

void fk_edited_write(char *text, const uint8_t *edited, int h, int w) {
  int at = g_snprintf(text, FK_EDITED_TEXT, "%dx%d:", w, h);
  for (int t = 0; t < h * w && at + 1 < FK_EDITED_TEXT; t += 4)
    text[at++] = hexadecimal[digit_of(edited, NULL, t, h * w)];
  text[at] = 0;
}

bool fk_edited_append(char *text, int i, const uint8_t *before, const uint8_t *edited, int tokens) {
  g_autoptr(GString) s = g_string_new(g_str_has_prefix(text, SEVERAL) ? "" : SEVERAL);
  int zeros = 0;
  g_string_append_printf(s, "%s+%d:", text, i);
  for (int t = 0; t < tokens + 4; t += 4) {
    const int digit = t < tokens ? digit_of(edited, before, t, tokens) : -1;
    for (int k = RUNS - 1; digit && k >= 0; k--)
      for (; zeros >= 1 << k; zeros -= 1 << k) g_string_append_c(s, (char)('g' + k));
    zeros += !digit;
    if (digit > 0) g_string_append_c(s, hexadecimal[digit]);
  }
  if (s->len >= FK_EDITED_TEXT) return false;
  memcpy(text, s->str, s->len + 1);
  return true;
}

/* ---- Reading ---- */

/* What a text is read from, from its first digit on. */
typedef struct {
  const char *at;
  int width, height;
} Reader;

static bool bad(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);
static bool bad(GError **error, const char *format, ...) {
  va_list args;
  va_start(args, format);
  g_autofree char *text = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "region-mask: %s", text);
  return false;
}

/* A number of at most `most` without sign or leading zero, and what follows it. */
static bool number(const char **at, int most, char end, int *value) {
  const char *p = *at;
  int n = 0;
  for (; g_ascii_isdigit(*p) && n <= most; p++) n = n * 10 + *p - '0';
  if (p == *at || n > most || *p != end || (**at == '0' && p > *at + 1)) return false;
  *value = n;
  *at = p + 1;
  return true;
}

static bool begin(Reader *r, const char *text, GError **error) {
  *r = (Reader){.at = text};
  if (g_str_has_prefix(text, SEVERAL)) r->at += strlen(SEVERAL);
  if (number(&r->at, TOKENS, 'x', &r->width) && number(&r->at, TOKENS, ':', &r->height) && r->width && r->height &&
      r->width <= TOKENS / r->height)
    return true;
  g_autofree char *shown = fk_shown_name(text);
  return bad(error, "expected \"WxH:\" with at most %d tokens, found \"%s\"", TOKENS, shown);
}

/* The digits of the first mask into edited (nullable). */
static bool read_first(Reader *r, uint8_t *edited, GError **error) {
  const int tokens = r->width * r->height, digits = (tokens + 3) / 4;
  for (int i = 0; i < digits; i++, r->at++) {
    const int digit = g_ascii_xdigit_value(*r->at);
    if (digit < 0)
      return bad(error, "expected %d hexadecimal digits for %dx%d, found %d", digits, r->width, r->height, i);
    for (int k = 0; edited && k < 4 && 4 * i + k < tokens; k++) edited[4 * i + k] = digit >> (3 - k) & 1;
  }
  return true;
}

/* The digits of one later mask, changed in edited (nullable). False: they are not as many as the mask has. */
static bool read_next(Reader *r, uint8_t *edited, int tokens) {
  const int digits = (tokens + 3) / 4;
  int i = 0;
  for (; *r->at && *r->at != '+'; r->at++) {
    const int digit = g_ascii_xdigit_value(*r->at), run = *r->at - 'g';
    if (digit < 0 && (run < 0 || run >= RUNS)) return false;
    const int more = digit < 0 ? 1 << run : 1;
    if (more > digits - i) return false;
    for (int k = 0; edited && digit > 0 && k < 4 && 4 * i + k < tokens; k++)
      edited[4 * i + k] ^= (uint8_t)(digit >> (3 - k) & 1);
    i += more;
  }
  return i == digits;
}

bool fk_edited_check(const char *text, GError **error) {
  Reader r;
  if (!begin(&r, text, error) || !read_first(&r, NULL, error)) return false;
  if (!fk_edited_several(text) && *r.at) return bad(error, "%zu characters behind the mask's digits", strlen(r.at));
  for (int last = 0, i; *r.at; last = i) {
    r.at++;
    if (r.at[-1] != '+' || !number(&r.at, EVALUATIONS, ':', &i) || i <= last)
      return bad(error, "expected \"+I:\" with an evaluation from %d to %d behind a mask", last + 1, EVALUATIONS);
    if (!read_next(&r, NULL, r.width * r.height))
      return bad(error, "the digits of evaluation %d are not those of %dx%d tokens", i, r.width, r.height);
  }
  return true;
}

bool fk_edited_read(const char *text, uint8_t *edited, int h, int w, GError **error) {
  Reader r;
  if (!fk_edited_check(text, error) || !begin(&r, text, error)) return false;
  if (r.width != w || r.height != h)
    return bad(error, "expected a mask of %dx%d: tokens, found one of %dx%d", w, h, r.width, r.height);
  return read_first(&r, edited, error);
}

bool fk_edited_follow(const char *text, int last, int i, uint8_t *edited, int tokens, GError **error) {
  Reader r;
  if (!begin(&r, text, error) || !read_first(&r, NULL, error)) return false;
  for (int at = 0; *r.at++ == '+' && number(&r.at, EVALUATIONS, ':', &at) && at <= i;) {
    if (at > last && at < i) return bad(error, "a mask of evaluation %d, after which these settings find none", at);
    if (!read_next(&r, at == i ? edited : NULL, tokens)) break;
  }
  return true;
}

bool fk_edited_last(const char *text, uint8_t *edited, int h, int w) {
  Reader r;
  if (!begin(&r, text, NULL) || r.width != w || r.height != h || !read_first(&r, edited, NULL)) return false;
  for (int at; *r.at && *r.at++ == '+' && number(&r.at, EVALUATIONS, ':', &at);)
    if (!read_next(&r, edited, h * w)) return false;
  return true;
}

bool fk_edited_several(const char *text) {
  return g_str_has_prefix(text, SEVERAL);
}
