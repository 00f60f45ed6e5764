/* SPDX-License-Identifier: Apache-2.0 */
/* PNG and JPEG files as the tools write them. Reading is the library's (fk_image_read). */
#ifndef PICTURE_H
#define PICTURE_H

#include <fk.h>

/* May pictures with (alpha) or without transparency be written under this name? Only its end counts: .png, and .jpg or
 * .jpeg without alpha. */
bool picture_check_name(const char *path, bool alpha, GError **error);
/* Format by the name; JPEG at quality 95 without subsampling. */
bool picture_write(const char *path, const FkImage *image, GError **error);

#endif
