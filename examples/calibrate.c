/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-calibrate: edits pictures of one's own, unquantised, and writes the scales that quantization=fp8-static
 * takes. On fk.h alone. */
#include "tool.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char name[] = "fluxkontext-calibrate";

/* Of pictures that say none themselves: one that asks for little, one for much, one for nothing. */
static const char *const common_prompts[] = {"make it night", "turn it into a pencil drawing", "", NULL};

typedef struct {
  char **prompts, *out;
  int most;
} Arguments;

static int by_name(gconstpointer a, gconstpointer b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* PNG and JPEG files of a folder, by name; NULL: none, or no folder. */
static GPtrArray *list_pictures(const char *folder, GError **error) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, error);
  g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
  if (!dir) return NULL;
  for (const char *file; (file = g_dir_read_name(dir));) {
    g_autofree char *lower = g_ascii_strdown(file, -1);
    if (g_str_has_suffix(lower, ".png") || g_str_has_suffix(lower, ".jpg") || g_str_has_suffix(lower, ".jpeg"))
      g_ptr_array_add(list, g_build_filename(folder, file, NULL));
  }
  g_ptr_array_sort(list, by_name);
  if (list->len) return g_steal_pointer(&list);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: no PNG or JPEG files", folder);
  return NULL;
}

/* What stands in NAME.txt beside NAME.png, else the next of the list. (transfer full) */
static char *prompt_of(const char *picture, const char *const *prompts, guint index) {
  const char *dot = strrchr(picture, '.');
  g_autofree char *stem = g_strndup(picture, (gsize)(dot - picture)), *file = g_strconcat(stem, ".txt", NULL);
  char *text = NULL;
  if (g_file_get_contents(file, &text, NULL, NULL)) return g_strchomp(text);
  return g_strdup(prompts[index % g_strv_length((char **)prompts)]);
}

static bool edit(FkEngine *engine, FkLayers *layers, FkSettings *settings, const char *picture, const char *prompt,
                 GError **error) {
  FkImage in = {0};
  int width, height;
  if (!fk_settings_set(settings, "prompt", prompt, error) || !fk_image_read(picture, &in, error)) return false;
  bool ok = fk_engine_output_size(engine, settings, in.width, in.height, &width, &height, error);
  if (ok) {
    const size_t stride = (size_t)width * (size_t)in.channels;
    g_autofree uint8_t *result = g_malloc(stride * (size_t)height);
    FkJob job = {.in = in, .out = {result, width, height, in.channels, stride}, .settings = settings};
    ok = fk_layers_edit(layers, &job, 1, NULL, error);
  }
  fk_image_clear(&in);
  if (!ok) g_prefix_error(error, "%s: ", picture);
  return ok;
}

static bool run(const Arguments *a, char **words, GError **error) {
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  if (!fk_options_set(options, "model-path", words[0], error) || !fk_settings_set(settings, "preset", "exact", error))
    return false;
  for (char **pair = words + 2; *pair; pair++)
    if (!tool_set(options, settings, *pair, error)) return false;
  g_autofree char *beside = fk_calibration_path(words[0]);
  const char *path = a->out ? a->out : beside;
  const bool there = g_file_test(words[0], G_FILE_TEST_EXISTS); /* else opening it says so */
  if ((a->out || there) && !tool_check_output(path, error)) return false;
  g_autoptr(GPtrArray) pictures = list_pictures(words[1], error);
  g_autoptr(FkEngine) engine = pictures ? fk_engine_open(options, NULL, NULL, NULL, error) : NULL;
  g_autoptr(FkLayers) layers = engine ? fk_layers_new(engine, error) : NULL;
  if (!layers) return false;
  const char *const *prompts = a->prompts ? (const char *const *)a->prompts : common_prompts;
  const guint n = a->most ? MIN(pictures->len, (guint)a->most) : pictures->len;
  for (guint i = 0; i < n; i++) {
    g_autofree char *prompt = prompt_of(pictures->pdata[i], prompts, i);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%u of %u ", i, n);
    if (!edit(engine, layers, settings, pictures->pdata[i], prompt, error)) return false;
  }
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%20s\r", "");
  g_autofree char *text = fk_layers_calibration(layers, error);
  if (!text || !fk_file_write(path, text, strlen(text), error)) return false;
  printf("%s: scales from %u edits\n", path, n);
  return true;
}

int main(int argc, char **argv) {
  Arguments a = {0};
  const GOptionEntry entries[] = {
      {"prompt", 'p', 0, G_OPTION_ARG_FILENAME_ARRAY, &a.prompts, "For pictures without NAME.txt; several in turn",
       "TEXT"},
      {"limit", 'n', 0, G_OPTION_ARG_INT, &a.most, "At most so many pictures", "N"},
      {"output", 'o', 0, G_OPTION_ARG_FILENAME, &a.out, "Another file than the one beside the model", "FILE"},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status;
  if (!tool_begin(name, "MODEL FOLDER [PROPERTY=VALUE ...]",
                  "  fluxkontext-calibrate FLUX.1-Kontext-dev photos/\n"
                  "Edits the pictures of a folder and writes the scales that\n"
                  "quantization=fp8-static takes: a small JSON file beside the model.\n"
                  "Exit: 0 done, 1 an error, 2 usage.",
                  entries, &argc, &argv, &status))
    return status;
  if (argc < 3 || a.most < 0) {
    fprintf(stderr, "%s: expected MODEL and FOLDER, and a limit of at least 1; see --help\n", name);
    status = 2;
  } else {
    status = tool_end(name, run(&a, argv + 1, &error) ? 0 : 1);
    if (error) fprintf(stderr, "%s: %s\n", name, error->message);
  }
  g_strfreev(a.prompts);
  g_free(a.out);
  return status;
}
