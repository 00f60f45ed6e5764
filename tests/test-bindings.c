/* SPDX-License-Identifier: Apache-2.0 */
/* What other languages call (core/bindings.c), in C: lifetimes, refusals, one edit; on the null engine. */
#include "fk-bindings.h"

#include <string.h>

static FkEngine *open_null(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "backend", "null", NULL);
  FkEngine *engine = fk_engine_new(options, &error);
  g_assert_no_error(error);
  return engine;
}

static FkPicture *picture_of(int width, int height, int channels) {
  const gsize size = (gsize)width * (gsize)height * (gsize)channels;
  g_autoptr(GBytes) pixels = g_bytes_new_take(g_malloc0(size), size);
  return fk_picture_new(pixels, width, height, channels, NULL);
}

static void boxed(void) {
  g_autoptr(FkSettings) settings = fk_settings_new();
  fk_settings_set(settings, "steps", "3", NULL);
  FkSettings *copy = g_boxed_copy(FK_TYPE_SETTINGS, settings);
  g_assert_cmpstr(fk_settings_get(copy, "steps"), ==, "3");
  g_boxed_free(FK_TYPE_SETTINGS, copy);
  g_autoptr(FkOptions) options = fk_options_new();
  g_boxed_free(FK_TYPE_OPTIONS, g_boxed_copy(FK_TYPE_OPTIONS, options));
  g_autoptr(FkPicture) picture = picture_of(4, 3, 3);
  FkPicture *same = g_boxed_copy(FK_TYPE_PICTURE, picture);
  g_assert_true(same == picture);
  g_boxed_free(FK_TYPE_PICTURE, same);
  fk_picture_unref(NULL);
}

static void refused(void) {
  static const struct {
    gsize bytes;
    int width, height, channels;
    const char *word;
  } cases[] = {{35, 4, 3, 3, "expected 36 bytes, found 35"},
               {37, 4, 3, 3, "found 37"},
               {24, 4, 3, 2, "2 channels"},
               {0, 0, 3, 3, "0x3"},
               {0, 4, -3, 3, "4x-3"},
               {9, 65536, 1, 3, "65536x1"}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GBytes) pixels = g_bytes_new_take(g_malloc0(cases[i].bytes + 1), cases[i].bytes);
    g_autoptr(GError) error = NULL;
    g_assert_null(fk_picture_new(pixels, cases[i].width, cases[i].height, cases[i].channels, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
    g_assert_nonnull(strstr(error->message, cases[i].word));
  }
  g_autoptr(FkPicture) picture = picture_of(4, 3, 3);
  g_autoptr(GError) error = NULL;
  g_assert_null(fk_picture_get_manifest(picture, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
}

typedef struct {
  int previews, calls;
} Seen;

static void watch(const char *stage, gint64 current, gint64 total, FkPicture *preview, gpointer user_data) {
  Seen *seen = user_data;
  g_assert_cmpint(current, <=, total);
  g_assert_cmpint(preview != NULL, ==, strcmp(stage, "preview") == 0);
  seen->calls++;
  if (preview) seen->previews++;
}

static void edit(void) {
  g_autoptr(FkEngine) engine = open_null();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancelled = g_cancellable_new();
  Seen seen = {0};
  fk_settings_set(settings, "steps", "4", NULL);
  fk_settings_set(settings, "seed", "9", NULL);
  for (int channels = 3; channels <= 4; channels++) {
    g_autoptr(FkPicture) picture = picture_of(64, 48, channels);
    g_autoptr(FkPicture) result = fk_engine_edit_picture(engine, settings, picture, NULL, 2, watch, &seen, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fk_picture_get_width(result), ==, 64);
    g_assert_cmpint(fk_picture_get_height(result), ==, 48);
    g_assert_cmpint(fk_picture_get_channels(result), ==, channels);
    g_assert_cmpuint(g_bytes_get_size(fk_picture_get_pixels(result)), ==, (gsize)(64 * 48 * channels));
    g_assert_cmpuint(fk_picture_get_seed(result), ==, 9);
    g_assert_cmpint(fk_picture_get_evaluations(result), ==, 4);
    g_assert_cmpfloat(fk_picture_get_edit_ms(result), >=, 0);
    g_clear_pointer(&picture, fk_picture_unref); /* the result keeps what its record needs */
    g_autofree char *manifest = fk_picture_get_manifest(result, &error);
    g_assert_no_error(error);
    g_assert_nonnull(strstr(manifest, "\"seed\""));
    g_assert_cmpint(seen.previews, ==, channels - 2);
  }
  g_assert_cmpint(seen.calls, >, 10);
  g_autoptr(FkPicture) picture = picture_of(64, 48, 3);
  g_autoptr(FkPicture) quiet = fk_engine_edit_picture(engine, settings, picture, NULL, 1, NULL, NULL, &error);
  g_assert_no_error(error);
  g_cancellable_cancel(cancelled);
  g_assert_null(fk_engine_edit_picture(engine, settings, picture, cancelled, 0, NULL, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_CANCELLED);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/bindings/boxed", boxed);
  g_test_add_func("/bindings/refused", refused);
  g_test_add_func("/bindings/edit", edit);
  return g_test_run();
}
