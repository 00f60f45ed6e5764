/* SPDX-License-Identifier: Apache-2.0 */
/* Texts of a PNG: "parameters" as web UIs read it (A1111 and its kin), and "fluxkontext", the record without what
 * differs between two runs, so that the file's bytes stay repeatable. */
#ifndef PNG_TEXT_H
#define PNG_TEXT_H

#include <fk.h>

/* Puts both behind the head of a PNG; any other file stays as it is. record: what fk_manifest says of the job,
 * without the end of its object. data: g_free; replaced. */
void png_text_add(guint8 **data, gsize *bytes, const FkJob *job, const char *record);
/* The record of a PNG, as fk_manifest_apply takes it; NULL: there is none. (transfer full) */
char *png_text_record(const guint8 *data, gsize bytes);

#endif
