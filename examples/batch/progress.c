/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells; see progress.h. People read standard error, programs one JSON object a line on standard output. */
#include "progress.h"

#include "../json.h"

#include <fk.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 24, COLUMNS = 79 };

static struct {
  GMutex lock; /* guards all of it */
  const char *tool;
  ProgressKind kind;
  guint total, count[PROGRESS_OUTCOMES];
  gint64 start;        /* µs */
  GPtrArray *failures; /* "NAME: reason" */
  bool bar_shown;
} p;

static const char *const outcomes[] = {"done", "skipped", "failed"};

bool progress_kind(const char *text, ProgressKind *kind, GError **error) {
  static const char *const names[] = {"auto", "bar", "lines", "json", "none", NULL};
  for (int i = 0; names[i]; i++)
    if (!strcmp(text, names[i])) {
      *kind = (ProgressKind)i;
      return true;
    }
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--progress: \"%s\" is not one of auto, bar, lines, json, none",
              text);
  return false;
}

void progress_start(const char *tool, ProgressKind kind, guint total) {
  g_mutex_lock(&p.lock);
  p.tool = tool;
  p.kind = kind != PROGRESS_AUTO ? kind : isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_LINES;
  p.total = total;
  p.start = g_get_monotonic_time();
  p.failures = g_ptr_array_new_with_free_func(g_free);
  g_mutex_unlock(&p.lock);
}

static double elapsed(void) {
  return (double)(g_get_monotonic_time() - p.start) / 1e6;
}

static guint finished(void) {
  return p.count[PROGRESS_DONE] + p.count[PROGRESS_SKIPPED] + p.count[PROGRESS_FAILED];
}

/* Seconds to the end, from what was not merely skipped so far; -1: not known. */
static double remaining(void) {
  const guint worked = p.count[PROGRESS_DONE] + p.count[PROGRESS_FAILED];
  return worked ? elapsed() / worked * (p.total - finished()) : -1;
}

static void hide_bar(void) {
  if (p.bar_shown) fprintf(stderr, "\r%*s\r", COLUMNS, "");
  p.bar_shown = false;
}

static char *time_text(double seconds) {
  if (seconds < 0) return g_strdup("");
  const guint s = (guint)(seconds + 0.5);
  if (s < 100) return g_strdup_printf("%u s left", s);
  return s < 6000 ? g_strdup_printf("%u min left", (s + 59) / 60) : g_strdup_printf("%u h left", (s + 3599) / 3600);
}

static void show_bar(const char *input, const char *stage, int64_t current, int64_t total) {
  char bar[BAR + 1];
  const guint done = finished(), filled = p.total ? done * BAR / p.total : 0;
  g_autofree char *left = time_text(remaining()), *base = input ? g_path_get_basename(input) : g_strdup(""),
                  *name = g_filename_display_name(base), *line = NULL;
  g_strdelimit(name, "\n\r\t\033", '?');
  for (guint i = 0; i < BAR; i++) bar[i] = i < filled ? '#' : '-';
  bar[BAR] = 0;
  line = g_strdup_printf("[%s] %u of %u  %s  %s %s %" G_GINT64_FORMAT "/%" G_GINT64_FORMAT, bar, done, p.total, left,
                         name, stage, (gint64)current, (gint64)total);
  if (g_utf8_strlen(line, -1) > COLUMNS) *g_utf8_offset_to_pointer(line, COLUMNS) = 0;
  hide_bar();
  fputs(line, stderr);
  fflush(stderr);
  p.bar_shown = true;
}

static void json_event(Json *j, const char *event) {
  json_open(j, NULL, '{');
  json_text(j, "event", event);
}

static void json_send(Json *j) {
  json_close(j, '}');
  puts(j->text->str);
  fflush(stdout);
  g_string_free(j->text, TRUE);
}

void progress_step(const char *input, const char *stage, int64_t current, int64_t total) {
  g_mutex_lock(&p.lock);
  if (p.kind == PROGRESS_BAR) show_bar(input, stage, current, total);
  if (p.kind == PROGRESS_JSON) {
    Json j = {.text = g_string_new(NULL), .line = TRUE};
    json_event(&j, "progress");
    json_text(&j, "input", input);
    json_text(&j, "stage", stage);
    json_count(&j, "current", current);
    json_count(&j, "total", total);
    json_send(&j);
  }
  g_mutex_unlock(&p.lock);
}

static void item_json(const char *input, const char *output, ProgressOutcome outcome, const char *text, double ms) {
  Json j = {.text = g_string_new(NULL), .line = TRUE};
  json_event(&j, "item");
  json_text(&j, "input", input);
  json_text(&j, "output", output);
  json_text(&j, "status", outcomes[outcome]);
  if (text && *text) json_text(&j, outcome == PROGRESS_FAILED ? "error" : "notes", text);
  if (outcome == PROGRESS_DONE) json_number(&j, "edit_ms", ms);
  json_count(&j, "finished", finished());
  json_count(&j, "total", p.total);
  if (remaining() >= 0) json_number(&j, "seconds_left", remaining());
  json_send(&j);
}

void progress_item(const char *input, const char *output, ProgressOutcome outcome, const char *text, double ms) {
  g_autofree char *in = g_filename_display_name(input), *out = g_filename_display_name(output);
  g_mutex_lock(&p.lock);
  p.count[outcome]++;
  if (outcome == PROGRESS_FAILED) g_ptr_array_add(p.failures, g_strdup(text));
  if (p.kind == PROGRESS_JSON) item_json(in, out, outcome, text, ms);
  if (p.kind == PROGRESS_LINES && outcome == PROGRESS_DONE)
    fprintf(stderr, "%s: %.0f ms%s%s\n", out, ms, text && *text ? "; " : "", text ? text : "");
  if (p.kind == PROGRESS_LINES && outcome == PROGRESS_SKIPPED) fprintf(stderr, "%s: done before\n", out);
  if (p.kind == PROGRESS_LINES && outcome == PROGRESS_FAILED) fprintf(stderr, "%s: %s\n", p.tool, text);
  if (p.kind == PROGRESS_BAR) show_bar(NULL, "", finished(), p.total);
  g_mutex_unlock(&p.lock);
}

void progress_say(const char *format, ...) {
  va_list list;
  g_mutex_lock(&p.lock);
  hide_bar();
  fprintf(stderr, "%s: ", p.tool);
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fputc('\n', stderr);
  g_mutex_unlock(&p.lock);
}

guint progress_count(ProgressOutcome outcome) {
  g_mutex_lock(&p.lock);
  const guint n = p.count[outcome];
  g_mutex_unlock(&p.lock);
  return n;
}

void progress_end(const char *why) {
  g_mutex_lock(&p.lock);
  hide_bar();
  if (p.kind == PROGRESS_JSON) {
    Json j = {.text = g_string_new(NULL), .line = TRUE};
    json_event(&j, "end");
    for (int i = 0; i < PROGRESS_OUTCOMES; i++) json_count(&j, outcomes[i], p.count[i]);
    json_count(&j, "left", p.total - finished());
    json_number(&j, "seconds", elapsed());
    if (why) json_text(&j, "ended", why);
    json_send(&j);
  } else if (p.kind != PROGRESS_NONE) {
    fprintf(stderr, "%s: %u done, %u done before, %u failed, %u left, %.1f s%s%s\n", p.tool, p.count[PROGRESS_DONE],
            p.count[PROGRESS_SKIPPED], p.count[PROGRESS_FAILED], p.total - finished(), elapsed(), why ? "; " : "",
            why ? why : "");
  }
  /* The lines of a long run are far above. */
  const bool list = p.kind == PROGRESS_BAR || (p.kind == PROGRESS_LINES && p.total > p.failures->len);
  for (guint i = 0; list && i < p.failures->len; i++) fprintf(stderr, "  failed: %s\n", (char *)p.failures->pdata[i]);
  g_clear_pointer(&p.failures, g_ptr_array_unref);
  g_mutex_unlock(&p.lock);
}
