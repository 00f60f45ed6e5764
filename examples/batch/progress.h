/* SPDX-License-Identifier: Apache-2.0 */
/* What a run tells while it runs and at its end: a bar on a terminal, lines elsewhere, or JSON for programs. Any
 * thread. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum { PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_LINES, PROGRESS_JSON, PROGRESS_NONE } ProgressKind;
typedef enum { PROGRESS_DONE, PROGRESS_SKIPPED, PROGRESS_FAILED, PROGRESS_OUTCOMES } ProgressOutcome;

/* "auto", "bar", "lines", "json", "none". */
bool progress_kind(const char *text, ProgressKind *kind, GError **error);
/* tool: stands before messages. AUTO: a bar where standard error is a terminal, else lines. */
void progress_start(const char *tool, ProgressKind kind, guint total);
/* An edit of `input` under way; stages as FkProgress has them. */
void progress_step(const char *input, const char *stage, int64_t current, int64_t total);
/* One item has come to its end. text: why it failed, or notes, or NULL. ms: of the edit. */
void progress_item(const char *input, const char *output, ProgressOutcome outcome, const char *text, double ms);
/* A sentence for people, above the bar. */
void progress_say(const char *format, ...) G_GNUC_PRINTF(1, 2);
guint progress_count(ProgressOutcome outcome);
/* Totals, and what failed, each with its reason. why: why it ended early; NULL: it did not. */
void progress_end(const char *why);

#endif
