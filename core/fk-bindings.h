/* SPDX-License-Identifier: Apache-2.0 */
/* What other languages use beside fk.h, through GObject introspection (namespace Fk 1.0): types with a GType, and one
 * edit without arrays of structs. C programs use fk_engine_edit. core/bindings.c says which functions of fk.h are seen.
 */
#ifndef FK_BINDINGS_H
#define FK_BINDINGS_H

#include "fk.h"

G_BEGIN_DECLS

#define FK_TYPE_OPTIONS (fk_options_get_type())
#define FK_TYPE_SETTINGS (fk_settings_get_type())
#define FK_TYPE_PICTURE (fk_picture_get_type())
FK_API GType fk_options_get_type(void);  /* boxed */
FK_API GType fk_settings_get_type(void); /* boxed */

/* An image that never changes, and what made it. */
typedef struct _FkPicture FkPicture;
FK_API GType fk_picture_get_type(void); /* boxed */
FK_API FkPicture *fk_picture_new(GBytes *pixels, int width, int height, int channels, GError **error);
FK_API FkPicture *fk_picture_ref(FkPicture *picture);
FK_API void fk_picture_unref(FkPicture *picture); /* (nullable) */
FK_API GBytes *fk_picture_get_pixels(FkPicture *picture);
FK_API int fk_picture_get_width(FkPicture *picture);
FK_API int fk_picture_get_height(FkPicture *picture);
FK_API int fk_picture_get_channels(FkPicture *picture);
FK_API guint64 fk_picture_get_seed(FkPicture *picture);
FK_API int fk_picture_get_evaluations(FkPicture *picture);
FK_API double fk_picture_get_edit_ms(FkPicture *picture);
FK_API char *fk_picture_get_manifest(FkPicture *picture, GError **error);

/* FkProgress and FkPreview in one: `preview` with stage "preview", NULL otherwise. */
typedef void (*FkWatch)(const char *stage, gint64 current, gint64 total, FkPicture *preview, gpointer user_data);
FK_API FkPicture *fk_engine_edit_picture(FkEngine *engine, const FkSettings *settings, FkPicture *picture,
                                         GCancellable *cancellable, int preview_every, FkWatch watch,
                                         gpointer user_data, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkPicture, fk_picture_unref)

G_END_DECLS

#endif
