/* SPDX-License-Identifier: Apache-2.0 */
/* One edit of a file: read, decoded, edited, encoded, written with its manifest. For everything that edits files: the
 * batch tool, which runs the stages on threads of their own, and workers, which call work_run.
 *
 * The result is OUT, its record OUT.json: the image first and the record last, each whole or not at all, so that a
 * record stands for a finished image. The record is fk_manifest's and a member "file" more: what was read and written,
 * with SHA-256 of both files, and the job's id, by which a second run knows what is done. */
#ifndef WORK_H
#define WORK_H

#include "photo.h"

typedef struct {
  int quality;       /* of formats that lose, 1 to 100 */
  bool text;         /* PNG: settings as web UIs read them, and the record */
  gint64 max_pixels; /* of one picture */
  gint64 max_bytes;  /* of one file */
} WorkRules;

#define WORK_RULES ((WorkRules){.quality = 95, .max_pixels = (gint64)1 << 28, .max_bytes = (gint64)1 << 30})

typedef struct {
  char *input, *output; /* paths; owned */
  FkSettings *settings; /* owned */
  GBytes *bytes;        /* of the file, from work_read on until it is decoded */
  char *input_sha;      /* of these */
  Photo photo;          /* from work_decode on */
  FkJob job;            /* from work_edit on; the result's pixels are owned */
  char *id;             /* of the job, from work_edit on */
} Work;

/* Copies. (transfer full) */
Work *work_new(const char *input, const char *output, const FkSettings *settings);
void work_free(Work *work); /* (nullable) */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Work, work_free)

/* Hexadecimal SHA-256 of everything that the written file depends on: the input file's bytes, fk_manifest_id (settings,
 * model, determinism class), format and rules. After work_read. (transfer full) */
char *work_id(const Work *work, FkEngine *engine, const WorkRules *rules, GError **error);
/* Are OUT and OUT.json there, by a job of this id, and OUT as it was written? */
bool work_is_done(const Work *work, const char *id);

/* The stages; each needs the one before. Errors name the file. */
bool work_read(Work *work, const WorkRules *rules, GError **error);
bool work_decode(Work *work, const WorkRules *rules, GError **error);
/* n works of one size whose settings are batchable. */
bool work_edit(FkEngine *engine, Work **works, int n, const WorkRules *rules, GCancellable *cancellable,
               FkProgress progress, void *user_data, GError **error);
bool work_write(const Work *work, FkEngine *engine, const WorkRules *rules, GError **error);
/* All of them. */
bool work_run(Work *work, FkEngine *engine, const WorkRules *rules, GCancellable *cancellable, FkProgress progress,
              void *user_data, GError **error);

#endif
