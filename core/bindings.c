/* SPDX-License-Identifier: Apache-2.0 */
/* The interface as other languages see it: g-ir-scanner reads the comments here. Functions of fk.h that take or return
 * arrays of structs, and structs with a C bool, whose size a GIR cannot say, are hidden; a C bool that comes with a
 * GError is never looked at, because a failure is an exception. */
#include "fk-bindings.h"

#include <string.h>

/* clang-format off */
/**
 * FkProperty: (skip)
 */
/**
 * FkInteraction: (skip)
 */
/**
 * FkSample: (skip)
 */
/**
 * FkPlanes: (skip)
 */
/**
 * FkImage: (skip)
 */
/**
 * fk_engine_device: (skip)
 */
/**
 * FkTextRead: (skip)
 */
/**
 * FkResult: (skip)
 */
/**
 * FkJob: (skip)
 */
/**
 * FkPreview: (skip)
 */
/**
 * FkProfileRow: (skip)
 */
/**
 * FkLayerRow: (skip)
 */
/**
 * FkLayers: (skip)
 */
/**
 * fk_layers_new: (skip)
 */
/**
 * fk_layers_free: (skip)
 */
/**
 * fk_layers_edit: (skip)
 */
/**
 * fk_layers_rows: (skip)
 */
/**
 * fk_layers_calibration: (skip)
 */
/**
 * FkMachine: (skip)
 */
/**
 * FkPlanStage: (skip)
 */
/**
 * FkPlan: (skip)
 */
/**
 * FkPlanWeights: (skip)
 */
/**
 * fk_pack: (skip)
 */
/**
 * fk_pack_adapted: (skip)
 */
/**
 * fk_properties: (skip)
 */
/**
 * fk_interactions: (skip)
 */
/**
 * fk_settings_batchable: (skip)
 */
/**
 * fk_engine_edit: (skip)
 */
/**
 * fk_engine_profile: (skip)
 */
/**
 * fk_engine_dead: (skip)
 */
/**
 * fk_manifest: (skip)
 */
/**
 * fk_manifest_id: (skip)
 */
/**
 * fk_machine: (skip)
 */
/**
 * fk_plan: (skip)
 */
/**
 * fk_options_set:
 * @options: options
 * @name: a property
 * @value: (nullable): as on a command line; %NULL: the default
 * @error: an error
 */
/**
 * fk_settings_set:
 * @settings: settings
 * @name: a property
 * @value: (nullable): as on a command line; %NULL: the default
 * @error: an error
 */
/**
 * fk_options_get:
 * @options: options
 * @name: a property
 *
 * Returns: (transfer none) (nullable): its value
 */
/**
 * fk_settings_get:
 * @settings: settings
 * @name: a property
 *
 * Returns: (transfer none) (nullable): its value
 */
/**
 * fk_settings_decided:
 * @settings: settings
 * @name: a property
 *
 * Returns: (transfer none) (nullable): its value once the preset has decided it
 */
/**
 * fk_set:
 * @options: (nullable): options
 * @settings: (nullable): settings
 * @name: a property of either
 * @value: (nullable): as on a command line
 * @error: an error
 */
/**
 * fk_settings_idle:
 * @settings: settings
 *
 * Returns: (transfer full) (array zero-terminated=1): names and reasons, in turn
 */
/**
 * FkProgress:
 * @stage: name
 * @current: from 0
 * @total: to here
 * @user_data: (closure): of the caller
 */
/**
 * fk_engine_new:
 * @options: options
 * @error: an error
 *
 * Returns: (transfer full): an engine without weights
 */
/**
 * fk_engine_load:
 * @engine: an engine
 * @cancellable: (nullable): stops it
 * @progress: (nullable) (scope call): called as it goes
 * @user_data: (closure): for @progress
 * @error: an error
 */
/**
 * fk_engine_load_for:
 * @engine: an engine
 * @settings: (nullable): of the edits to come
 * @cancellable: (nullable): stops it
 * @progress: (nullable) (scope call): called as it goes
 * @user_data: (closure): for @progress
 * @error: an error
 */
/**
 * fk_engine_open:
 * @options: options
 * @cancellable: (nullable): stops it
 * @progress: (nullable) (scope call): called as it goes
 * @user_data: (closure): for @progress
 * @error: an error
 *
 * Returns: (transfer full): an engine that is loaded
 */
/**
 * fk_engine_output_size:
 * @engine: an engine
 * @settings: settings
 * @width: of the input
 * @height: of the input
 * @out_width: (out): of the result
 * @out_height: (out): of the result
 * @error: an error
 */
/**
 * fk_engine_warmup:
 * @engine: an engine
 * @settings: settings
 * @width: of the input
 * @height: of the input
 * @cancellable: (nullable): stops it
 * @error: an error
 */
/**
 * fk_engine_active:
 * @engine: an engine
 * @settings: settings
 *
 * Returns: (transfer full) (array zero-terminated=1): names and texts, in turn
 */
/**
 * fk_engine_machine:
 * @engine: an engine
 *
 * Returns: (transfer none): its device
 */
/**
 * fk_engine_timing:
 * @engine: an engine
 *
 * Returns: (transfer full): where the time of opening and of the last exchange of adapters went
 */
/**
 * fk_engine_class:
 * @engine: an engine
 *
 * Returns: (transfer full): what equal bytes need in common
 */
/**
 * fk_manifest_apply:
 * @json: a manifest
 * @options: (nullable): options
 * @settings: (nullable): settings
 * @error: an error
 */
/* clang-format on */

#define BOXED(type, name, copy, drop)                                                                                  \
  GType name(void) {                                                                                                   \
    static gsize type##_type;                                                                                          \
    if (g_once_init_enter(&type##_type))                                                                               \
      g_once_init_leave(&type##_type,                                                                                  \
                        g_boxed_type_register_static(#type, (GBoxedCopyFunc)copy, (GBoxedFreeFunc)drop));              \
    return type##_type;                                                                                                \
  }
BOXED(FkOptions, fk_options_get_type, fk_options_copy, fk_options_free)
BOXED(FkSettings, fk_settings_get_type, fk_settings_copy, fk_settings_free)
BOXED(FkPicture, fk_picture_get_type, fk_picture_ref, fk_picture_unref)

struct _FkPicture {
  gint refs; /* atomic */
  GBytes *pixels;
  int width, height, channels;
  /* Of a result; all empty otherwise. */
  FkPicture *source;
  FkSettings *settings;
  FkEngine *engine;
  FkResult result;
};

/* Takes the pixels. */
static FkPicture *picture_take(GBytes *pixels, int width, int height, int channels) {
  FkPicture *picture = g_new0(FkPicture, 1);
  *picture = (FkPicture){.refs = 1, .pixels = pixels, .width = width, .height = height, .channels = channels};
  return picture;
}

/**
 * fk_picture_new:
 * @pixels: R G B or R G B A, rows one behind the other
 * @width: 1 to 65535
 * @height: 1 to 65535
 * @channels: 3 or 4
 * @error: an error
 *
 * Returns: (transfer full): a picture of these pixels
 */
FkPicture *fk_picture_new(GBytes *pixels, int width, int height, int channels, GError **error) {
  const gboolean shape =
      width > 0 && width <= 65535 && height > 0 && height <= 65535 && (channels == 3 || channels == 4);
  const gsize need = shape ? (gsize)width * (gsize)height * (gsize)channels : 0;
  if (shape && g_bytes_get_size(pixels) == need) return picture_take(g_bytes_ref(pixels), width, height, channels);
  if (shape)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "a picture of %dx%d with %d channels: expected %" G_GSIZE_FORMAT " bytes, found %" G_GSIZE_FORMAT,
                width, height, channels, need, g_bytes_get_size(pixels));
  else
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "a picture of %dx%d with %d channels: expected sides of 1 to 65535 and 3 or 4 channels", width, height,
                channels);
  return NULL;
}

FkPicture *fk_picture_ref(FkPicture *picture) {
  g_atomic_int_inc(&picture->refs);
  return picture;
}

void fk_picture_unref(FkPicture *picture) {
  if (!picture || !g_atomic_int_dec_and_test(&picture->refs)) return;
  g_bytes_unref(picture->pixels);
  fk_picture_unref(picture->source);
  fk_settings_free(picture->settings);
  fk_engine_unref(picture->engine);
  g_free(picture);
}

/**
 * fk_picture_get_pixels:
 * @picture: a picture
 *
 * Returns: (transfer none): rows one behind the other
 */
GBytes *fk_picture_get_pixels(FkPicture *picture) {
  return picture->pixels;
}

int fk_picture_get_width(FkPicture *picture) {
  return picture->width;
}

int fk_picture_get_height(FkPicture *picture) {
  return picture->height;
}

int fk_picture_get_channels(FkPicture *picture) {
  return picture->channels;
}

/**
 * fk_picture_get_seed:
 * @picture: a result
 *
 * Returns: the seed that made it
 */
guint64 fk_picture_get_seed(FkPicture *picture) {
  return picture->result.seed;
}

/**
 * fk_picture_get_evaluations:
 * @picture: a result
 *
 * Returns: evaluations of the model that made it
 */
int fk_picture_get_evaluations(FkPicture *picture) {
  return picture->result.evaluations;
}

/**
 * fk_picture_get_edit_ms:
 * @picture: a result
 *
 * Returns: the time that it took
 */
double fk_picture_get_edit_ms(FkPicture *picture) {
  return picture->result.edit_ms;
}

static FkImage image_of(FkPicture *picture) {
  const size_t stride = (size_t)picture->width * (size_t)picture->channels;
  /* Read only: the engine writes `out` alone. */
  return (FkImage){(uint8_t *)(uintptr_t)g_bytes_get_data(picture->pixels, NULL), picture->width, picture->height,
                   picture->channels, stride};
}

/**
 * fk_picture_get_manifest:
 * @picture: a result
 * @error: an error
 *
 * Returns: (transfer full): the JSON record of the edit that made it
 */
char *fk_picture_get_manifest(FkPicture *picture, GError **error) {
  if (!picture->engine) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD, "this picture is no result of an edit");
    return NULL;
  }
  const FkJob job = {.in = image_of(picture->source),
                     .out = image_of(picture),
                     .settings = picture->settings,
                     .result = picture->result};
  return fk_manifest(picture->engine, &job, error);
}

/* ---- One edit ---- */

typedef struct {
  FkWatch watch;
  gpointer user_data;
} Watching;

static void on_progress(const char *stage, int64_t current, int64_t total, void *user_data) {
  const Watching *w = user_data;
  w->watch(stage, current, total, NULL, w->user_data);
}

static void on_preview(int evaluation, int evaluations, const FkImage *image, void *user_data) {
  const Watching *w = user_data;
  const gsize row = (gsize)image->width * 3;
  guint8 *pixels = g_malloc(row * (gsize)image->height);
  for (int y = 0; y < image->height; y++) memcpy(pixels + (gsize)y * row, image->data + (gsize)y * image->stride, row);
  g_autoptr(FkPicture) preview =
      picture_take(g_bytes_new_take(pixels, row * (gsize)image->height), image->width, image->height, 3);
  w->watch("preview", evaluation, evaluations, preview, w->user_data);
}

/**
 * FkWatch:
 * @stage: "open", "text", "encode", "step", "preview" or "decode"
 * @current: units of it that are done
 * @total: of so many
 * @preview: (nullable): the running estimate, with stage "preview"
 * @user_data: (closure): of the caller
 */

/**
 * fk_engine_edit_picture:
 * @engine: an engine, which loads its weights first where it has not
 * @settings: settings of this edit
 * @picture: what is edited
 * @cancellable: (nullable): stops it within a step
 * @preview_every: evaluations between two previews; 0: none
 * @watch: (nullable) (scope call): called as it goes, on this thread
 * @user_data: (closure): for @watch
 * @error: an error
 *
 * Returns: (transfer full): the result
 */
FkPicture *fk_engine_edit_picture(FkEngine *engine, const FkSettings *settings, FkPicture *picture,
                                  GCancellable *cancellable, int preview_every, FkWatch watch, gpointer user_data,
                                  GError **error) {
  Watching watching = {watch, user_data};
  int width, height;
  if (!fk_engine_output_size(engine, settings, picture->width, picture->height, &width, &height, error)) return NULL;
  const gsize stride = (gsize)width * (gsize)picture->channels;
  g_autofree uint8_t *pixels = g_try_malloc(stride * (gsize)height);
  if (!pixels) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for a result of %dx%d", width, height);
    return NULL;
  }
  FkJob job = {.in = image_of(picture),
               .out = {pixels, width, height, picture->channels, stride},
               .settings = settings,
               .preview = watch ? on_preview : NULL,
               .preview_every = preview_every,
               .preview_data = &watching};
  if (!fk_engine_edit(engine, &job, 1, cancellable, watch ? on_progress : NULL, &watching, error)) return NULL;
  FkPicture *result = picture_take(g_bytes_new_take(g_steal_pointer(&pixels), stride * (gsize)height), width, height,
                                   picture->channels);
  result->source = fk_picture_ref(picture);
  result->settings = fk_settings_copy(settings);
  result->engine = fk_engine_ref(engine);
  result->result = job.result;
  return result;
}
