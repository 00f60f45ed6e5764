/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-edit-image: edits one PNG with libfluxkontext alone, as an example of fk.h.
 *
 *   fluxkontext-edit-image -m MODEL -p "make it night" in.png out.png [property=value ...]
 *
 * Ownership: FkImage never owns its pixels; this program allocates and frees them. Everything else is freed by autoptr.
 * Threads: the edit runs on the main thread. A second thread waits for Ctrl-C and cancels, which fk_engine_open and
 * fk_engine_edit notice within one step; they return false with FK_ERROR_CANCELLED.
 * Units: pixels, bytes, milliseconds. Exit status: 0 done, 1 an error (one line on stderr), 2 usage, 130 interrupted.
 */
#include <fk.h>

#include <glib-unix.h>
#include <png.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static GCancellable *cancellable;

/* The first signal cancels; it takes its source away, so that a second one ends the process. */
static gboolean on_signal(gpointer data) {
  (void)data;
  g_cancellable_cancel(cancellable);
  return G_SOURCE_REMOVE;
}

static gpointer run_loop(gpointer loop) {
  g_main_loop_run(loop);
  return NULL;
}

static void watch_signals(void) {
  cancellable = g_cancellable_new();
  g_unix_signal_add(SIGINT, on_signal, NULL);
  g_unix_signal_add(SIGTERM, on_signal, NULL);
  g_thread_unref(g_thread_new("signals", run_loop, g_main_loop_new(NULL, FALSE)));
}

/* 8-bit RGB or RGBA, whatever the file holds; (transfer full) pixels in image->data. */
static bool read_png(const char *path, FkImage *image) {
  png_image png = {.version = PNG_IMAGE_VERSION};
  if (!png_image_begin_read_from_file(&png, path)) {
    fprintf(stderr, "%s: %s\n", path, png.message);
    return false;
  }
  const bool alpha = png.format & PNG_FORMAT_FLAG_ALPHA;
  png.format = alpha ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB;
  *image = (FkImage){.width = (int)png.width, .height = (int)png.height, .channels = alpha ? 4 : 3};
  image->stride = (size_t)PNG_IMAGE_ROW_STRIDE(png);
  image->data = g_try_malloc(PNG_IMAGE_SIZE(png));
  if (image->data && png_image_finish_read(&png, NULL, image->data, 0, NULL)) return true;
  fprintf(stderr, "%s: %s\n", path, image->data ? png.message : "too large for the memory at hand");
  png_image_free(&png);
  return false;
}

static bool write_png(const char *path, const FkImage *image) {
  png_image png = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)image->width,
                   .height = (png_uint_32)image->height,
                   .format = image->channels == 4 ? PNG_FORMAT_RGBA : PNG_FORMAT_RGB};
  if (png_image_write_to_file(&png, path, 0, image->data, (png_int_32)image->stride, NULL)) return true;
  fprintf(stderr, "%s: %s\n", path, png.message);
  return false;
}

static void show(const char *stage, int64_t current, int64_t total, void *user_data) {
  (void)user_data;
  if (!isatty(STDERR_FILENO)) return;
  if (!strcmp(stage, "open"))
    fprintf(stderr, "\ropen   %5.1f of %.1f MB  ", (double)current / 1e6, (double)total / 1e6);
  else
    fprintf(stderr, "\r%-6s %3d of %-3d            ", stage, (int)current, (int)total);
}

/* property=value goes to the options or to the settings, whichever has it. */
static bool set_property(FkOptions *options, FkSettings *settings, const char *pair, GError **error) {
  const char *equals = strchr(pair, '=');
  if (!equals) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "\"%s\" is not property=value", pair);
    return false;
  }
  g_autofree char *name = g_strndup(pair, (gsize)(equals - pair));
  size_t n;
  const FkProperty *p = fk_properties(&n);
  for (size_t i = 0; i < n; i++)
    if (!strcmp(p[i].name, name) && p[i].scope == FK_SCOPE_OPTION)
      return fk_options_set(options, name, equals + 1, error);
  return fk_settings_set(settings, name, equals + 1, error);
}

static bool edit(FkOptions *options, FkSettings *settings, const char *in, const char *out, GError **error) {
  FkJob job = {.settings = settings};
  g_autoptr(FkEngine) engine = fk_engine_open(options, cancellable, show, NULL, error);
  if (!engine || !read_png(in, &job.in)) return false;
  job.out = job.in;
  if (!fk_engine_output_size(engine, settings, job.in.width, job.in.height, &job.out.width, &job.out.height, error))
    return false;
  job.out.stride = (size_t)job.out.width * (size_t)job.out.channels;
  job.out.data = g_malloc(job.out.stride * (size_t)job.out.height);
  bool ok = fk_engine_edit(engine, &job, 1, cancellable, show, NULL, error) && write_png(out, &job.out);
  if (ok)
    fprintf(stderr, "\r%s: %dx%d on %s, text %.0f ms, encode %.0f ms, %d evaluations %.0f ms, decode %.0f ms\n", out,
            job.result.width, job.result.height, fk_engine_machine(engine), job.result.text_ms, job.result.encode_ms,
            job.result.evaluations, job.result.denoise_ms, job.result.decode_ms);
  g_free(job.in.data);
  g_free(job.out.data);
  return ok;
}

int main(int argc, char **argv) {
  g_autofree char *model = NULL, *prompt = NULL;
  const GOptionEntry entries[] = {{"model", 'm', 0, G_OPTION_ARG_FILENAME, &model, "Folder of the model", "FOLDER"},
                                  {"prompt", 'p', 0, G_OPTION_ARG_STRING, &prompt, "What to change", "TEXT"},
                                  {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GOptionContext) context = g_option_context_new("IN.png OUT.png [PROPERTY=VALUE ...]");
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_option_context_set_summary(context,
                               "Edits one picture. Properties are those of `gst-inspect-1.0 fluxkontextedit`.");
  g_option_context_add_main_entries(context, entries, NULL);
  bool ok = g_option_context_parse(context, &argc, &argv, &error);
  if (ok && argc < 3) {
    g_autofree char *help = g_option_context_get_help(context, TRUE, NULL);
    fputs(help, stderr);
    return 2;
  }
  watch_signals();
  ok =
      ok && fk_options_set(options, "model-path", model, &error) && fk_settings_set(settings, "prompt", prompt, &error);
  for (int i = 3; ok && i < argc; i++) ok = set_property(options, settings, argv[i], &error);
  ok = ok && edit(options, settings, argv[1], argv[2], &error);
  if (error) fprintf(stderr, "fluxkontext-edit-image: %s\n", error->message);
  if (g_error_matches(error, FK_ERROR, FK_ERROR_CANCELLED)) return 130;
  return ok ? 0 : 1; /* the cancellable stays: the signal thread may still hold it */
}
