/* SPDX-License-Identifier: Apache-2.0 */
/* Determinism, shown: one edit again and again in several modes. */
#ifndef REPORT_H
#define REPORT_H

#include "work.h"

enum { REPORT_THUMB = 128 /* pixels of a picture's longer side */ };

/* One run of one mode. */
typedef struct {
  const char *expected; /* the hash that it must have; NULL: it is the first of its kind */
  char *sha;            /* NULL: it failed */
  char *error;
  double ms;
  FkImage thumb; /* 3 channels; data owned */
  bool equal;
} ReportRun;

typedef struct {
  char *mode, *against; /* "batch of 3", and what its runs have to be equal to */
  char *seed, *steps, *guidance, *note;
  GPtrArray *runs; /* ReportRun */
} ReportMode;

/* Edits the decoded work n times plainly, with each preset, in a batch beside other frames, with other threads or
 * without graphs, and with other edits between. Prints a table on standard output and writes report.json and report.png
 * into the folder. expected: hash of a result from elsewhere, which the plain runs must have; NULL: none. *equal: all
 * runs were what they had to be. */
bool report_run(const FkOptions *options, Work *work, const char *expected, int n, const char *folder, bool *equal,
                GError **error);
/* The page, as PNG. title: one line. */
bool report_page(const char *path, const char *title, const GPtrArray *modes, GError **error);

#endif
