/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-edit-image: edits one picture with libfluxkontext alone, as an example of fk.h.
 *
 *   fluxkontext-edit-image -m MODEL -p "make it night" in.jpg out.png [property=value ...]
 *   fluxkontext-edit-image -m MODEL -p "..." --mask mask.png --reference other.jpg in.jpg out.png
 *   fluxkontext-edit-image -m MODEL -p "add a hat" -p "make the hat red" in.jpg out.png    one after the other
 *
 * Ownership: FkImage never owns its pixels; this program allocates and frees them. Everything else is freed by autoptr.
 * Threads: the edit runs on the main thread. A second thread waits for Ctrl-C and cancels, which fk_engine_open and
 * fk_engine_edit notice within one step; they return false with FK_ERROR_CANCELLED.
 * Units: pixels, bytes, milliseconds. Exit status: 0 done, 1 an error (one line on stderr), 2 usage, 130 interrupted.
 */
#include "picture.h"
#include "tool.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "fluxkontext-edit-image";
static GCancellable *cancellable;
static gint editing; /* atomic; before, pictures are read, which may wait for a pipe */

/* The first signal cancels; it takes its source away, so that a second one ends the process. */
static gboolean on_signal(gpointer data) {
  (void)data;
  if (!g_atomic_int_get(&editing)) _exit(130);
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

static void show(const char *stage, int64_t current, int64_t total, void *user_data) {
  (void)user_data;
  if (!isatty(STDERR_FILENO)) return;
  if (!strcmp(stage, "open"))
    fprintf(stderr, "\ropen   %5.1f of %.1f MB  ", (double)current / 1e6, (double)total / 1e6);
  else
    fprintf(stderr, "\r%-6s %3d of %-3d            ", stage, (int)current, (int)total);
}

/* What an encoder did not read of a text, which the result cannot show. */
static void tell_unread(const char *encoder, const char *property, const char *text, const FkTextRead *r) {
  if (r->read < r->tokens)
    fprintf(stderr, "%s: %s reads %d of %d tokens of %s; not read: \"%s\"\n", name, encoder, r->read, r->tokens,
            property, text + r->read_bytes);
}

static void tell(const FkJob *job) {
  const FkResult *r = &job->result;
  const char *prompt = fk_settings_get(job->settings, "prompt"),
             *negative = fk_settings_get(job->settings, "negative-prompt");
  tell_unread("T5", "prompt", prompt, &r->t5);
  tell_unread("T5", "negative-prompt", negative, &r->negative_t5);
}

/* Adapters of which a part is not the model's. */
static void tell_adapters(FkEngine *engine, const FkJob *job) {
  g_auto(GStrv) active = job->result.unmatched ? fk_engine_active(engine, job->settings) : NULL;
  for (char **p = active; p && *p; p += 2)
    if (!strcmp(p[0], "loras")) fprintf(stderr, "%s: loras: %s\n", name, p[1]);
}

/* job->out is the result; (transfer full) its data. */
static bool edit_one(FkEngine *engine, FkJob *job, GError **error) {
  job->out = job->in;
  if (!fk_engine_output_size(engine, job->settings, job->in.width, job->in.height, &job->out.width, &job->out.height,
                             error))
    return false;
  job->out.stride = (size_t)job->out.width * (size_t)job->out.channels;
  g_autofree uint8_t *pixels = job->out.data = g_try_malloc(job->out.stride * (size_t)job->out.height);
  if (!pixels) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "no memory for a result of %dx%d", job->out.width, job->out.height);
    return false;
  }
  if (!fk_engine_edit(engine, job, 1, cancellable, show, NULL, error)) return false;
  g_steal_pointer(&pixels);
  return true;
}

static void tell_edit(FkEngine *engine, const FkJob *job, const char *what) {
  fprintf(stderr, "\r%s: %dx%d on %s, text %.0f ms, encode %.0f ms, %d evaluation%s %.0f ms, decode %.0f ms\n", what,
          job->result.width, job->result.height, fk_engine_machine(engine), job->result.text_ms, job->result.encode_ms,
          job->result.evaluations, job->result.evaluations == 1 ? "" : "s", job->result.denoise_ms,
          job->result.decode_ms);
  tell(job);
  tell_adapters(engine, job);
}

/* Each prompt on the result of the one before, without files between. job->in owns its data. */
static bool edit_and_write(FkEngine *engine, FkJob *job, FkSettings *settings, char **prompts, const char *out,
                           GError **error) {
  const bool chained = prompts && prompts[0] && prompts[1];
  for (int i = 0; !i || (chained && prompts[i]); i++) {
    if (chained && !fk_settings_set(settings, "prompt", prompts[i], error)) return false;
    if (!edit_one(engine, job, error)) return false;
    tell_edit(engine, job, chained && prompts[i + 1] ? prompts[i] : out);
    g_free(job->in.data);
    job->in = job->out;
  }
  return picture_write(out, &job->out, error);
}

static bool check_outputs(const char *out, const FkSettings *settings, GError **error) {
  const char *trace = fk_settings_get(settings, "trace-file");
  if (!tool_check_output(out, error)) return false;
  if (!trace || !*trace || tool_check_output(trace, error)) return true;
  g_prefix_error(error, "trace-file ");
  return false;
}

/* What costs little goes first: names and the pictures before the model. */
static bool edit(FkOptions *options, FkSettings *settings, char **prompts, const char *in, const char *out,
                 GError **error) {
  FkJob job = {.settings = settings};
  if (!picture_check_name(out, false, error) || !fk_settings_check(settings, error) ||
      !fk_image_read(in, &job.in, error) || !check_outputs(out, settings, error)) {
    fk_image_clear(&job.in);
    return false;
  }
  g_autoptr(FkEngine) engine = NULL;
  g_atomic_int_set(&editing, 1);
  const bool done = picture_check_name(out, job.in.channels == 4, error) && (engine = fk_engine_new(options, error)) &&
                    fk_engine_load_for(engine, settings, cancellable, show, NULL, error) &&
                    edit_and_write(engine, &job, settings, prompts, out, error);
  g_free(job.in.data);
  return done;
}

static bool run(const char *model, char **prompts, const char *mask, char **references, char **arguments,
                GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
  for (char **p = prompts; p && *p; p++) {
    char *text = tool_utf8(*p, error);
    if (!text) return false;
    g_ptr_array_add(texts, text);
    if (!fk_settings_set(settings, "prompt", text, error)) return false; /* each can be one */
  }
  if (!fk_options_set(options, "model-path", model, error) ||
      (texts->len && !fk_settings_set(settings, "prompt", texts->pdata[0], error)))
    return false;
  g_ptr_array_add(texts, NULL);
  for (char **file = references; file && *file; file++)
    if (strchr(*file, ';')) {
      g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--reference %s: a name with a semicolon cannot be given",
                  *file);
      return false;
    }
  g_autofree char *list = references ? g_strjoinv(";", references) : NULL;
  if ((mask && !fk_settings_set(settings, "mask-path", mask, error)) ||
      (list && !fk_settings_set(settings, "references", list, error)))
    return false;
  for (char **pair = arguments + 2; *pair; pair++)
    if (!tool_set(options, settings, *pair, error)) return false;
  tool_tell_idle(name, settings, true);
  return edit(options, settings, (char **)texts->pdata, arguments[0], arguments[1], error);
}

int main(int argc, char **argv) {
  g_autofree char *model = NULL, *mask = NULL;
  g_auto(GStrv) references = NULL, prompts = NULL;
  const GOptionEntry entries[] = {
      {"model", 'm', 0, G_OPTION_ARG_FILENAME, &model, "Folder of the model", "FOLDER"},
      {"prompt", 'p', 0, G_OPTION_ARG_FILENAME_ARRAY, &prompts, "What to change; again: change that result", "TEXT"},
      {"mask", 0, 0, G_OPTION_ARG_FILENAME, &mask, "mask-path: white is edited, black is kept", "FILE"},
      {"reference", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &references,
       "references: a picture the prompt refers to; up to 8", "FILE"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status;
  if (!tool_begin(name, "IN OUT [PROPERTY=VALUE ...]",
                  "  fluxkontext-edit-image -m MODEL -p \"make it night\" in.jpg out.png steps=20\n"
                  "Edits one picture. IN is a PNG or JPEG, OUT the name of one. PROPERTY: see\n"
                  "fluxkontext-properties(7).\n"
                  "Exit: 0 done, 1 an error, 2 usage, 130 interrupted.",
                  entries, &argc, &argv, &status))
    return status;
  if (argc < 3) {
    fprintf(stderr, "%s: expected IN and OUT; see --help\n", name);
    return 2;
  }
  watch_signals();
  const bool done = run(model, prompts, mask, references, argv + 1, &error);
  if (done) return tool_end(name, 0);
  fprintf(stderr, "%s: %s\n", name, error->message);
  return g_error_matches(error, FK_ERROR, FK_ERROR_CANCELLED) ? 130 : 1;
  /* The cancellable stays: the signal thread may still hold it. */
}
