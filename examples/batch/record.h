/* SPDX-License-Identifier: Apache-2.0 */
/* A record of an edit as a file: OUT.json beside an image, or the text in a PNG; and what two records differ in. */
#ifndef RECORD_H
#define RECORD_H

#include <fk.h>
#include <json-glib/json-glib.h>

typedef struct {
  char *text; /* as fk_manifest_apply takes it */
  JsonParser *parser;
  JsonObject *top; /* of the parser */
  char *image;     /* file of the result; NULL: it is not there */
  char *beside;    /* file beside the record that has the name of what was edited; NULL: there is none */
} Record;

/* NULL with an error: not a record, or one of another form. (transfer full) */
Record *record_read(const char *path, GError **error);
/* A record in memory. (transfer full) */
Record *record_parse(char *text, GError **error);
void record_free(Record *record); /* (nullable) */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Record, record_free)
/* A text two levels down, such as "result", "sha256"; "" where there is none. name NULL: at the top. */
const char *record_text(const Record *record, const char *member, const char *name);
bool record_has(const Record *record, const char *member);
/* Elements of an array at the top; 0 where there is none. */
guint record_count(const Record *record, const char *member);
/* The file that was edited: where the record says, if it is trusted, else beside it. (transfer none) (nullable) */
const char *record_input(const Record *record, bool trust);
/* Sentences about what differs, in the order in which one thing follows from another; empty: nothing that matters.
 * Times, names and the number of threads do not. (transfer full): g_ptr_array_unref */
GPtrArray *record_differences(const Record *expected, const Record *found);

#endif
