/* SPDX-License-Identifier: Apache-2.0 */
/* The record of one edit: the functions fk_manifest* of fk.h, and what they are made of. */
#ifndef FK_MANIFEST_H
#define FK_MANIFEST_H

#include "fk.h"

/* Of the form that is written; fk_manifest_apply reads no other. */
#define FK_MANIFEST_FORM 1

/* SHA-256 of the pixels, rows without gaps; NULL: there are none. (transfer full) */
char *fk_manifest_pixels(const FkImage *image);
/* {"sha256": of names and hashes, "files": [...]}: what an engine opened at `path` (NULL: a published configuration
 * without files) when it noted `opened` (fk_registry_files), or an error. *sum: the first member alone (transfer full);
 * sum may be NULL. (transfer full) */
char *fk_manifest_model(const char *path, const char *opened, const FkOptions *options, char **sum, GError **error);

#endif
