/* SPDX-License-Identifier: Apache-2.0 */
/* fluxkontext-doctor: what this machine can run, whether a model folder is sound and what is in it, what an edit of a
 * size costs, and the table of properties as Markdown (docs/tuning.md). On fk.h alone; no weights are loaded. */
#include "doctor.h"
#include "tool.h"

#include <stdio.h>
#include <string.h>

static const char name[] = "fluxkontext-doctor";

const char *doctor_bytes(double bytes, char *buffer, size_t size) {
  g_snprintf(buffer, size, bytes >= 1e9 ? "%.2f GB" : "%.1f MB", bytes / (bytes >= 1e9 ? 1e9 : 1e6));
  return buffer;
}

typedef struct {
  char *config, *size;
  gboolean wide, properties, rates;
} Arguments;

/* What was asked for, beside the options of the command line. */
typedef struct {
  const char *model; /* a folder or the name of a published configuration; NULL: none */
  FkOptions *options;
  FkSettings *settings;
  bool task_set, steps_set;
} Request;

/* ---- Plan ---- */

static void print_plan(const FkPlan *p, const char *model, int width, int height, int bytes_per_value) {
  char a[32], b[32];
  printf("%s, edited at %dx%d: %" G_GINT64_FORMAT " text + %" G_GINT64_FORMAT " target + %" G_GINT64_FORMAT
         " context tokens, %d evaluations, %s\n",
         model, p->width, p->height, p->text_tokens, p->target_tokens, p->context_tokens, p->evaluations,
         bytes_per_value == 2 ? "bfloat16" : "float32");
  if (p->width != width || p->height != height)
    printf("%dx%d was asked for: sides are multiples of 16 and their product is the model's own area, or max-area\n",
           width, height);
  printf("\n%-12s %16s %12s %14s %14s\n", "stage", "parameters", "weights", "work memory", "TFLOP");
  for (int i = 0; i < FK_PLAN_STAGES; i++) {
    const FkPlanStage *s = &p->stage[i];
    printf("%-12s %16" G_GINT64_FORMAT " %12s %14s %14.3f\n", s->stage, s->parameters,
           doctor_bytes(s->weight_bytes, a, sizeof a), doctor_bytes(s->activation_bytes, b, sizeof b), s->flop / 1e12);
  }
  printf("%-12s %16" G_GINT64_FORMAT " %12s %14s %14.3f\n", "edit", p->parameters,
         doctor_bytes(p->weight_bytes, a, sizeof a), doctor_bytes(p->arena_bytes, b, sizeof b), p->flop / 1e12);
  printf("\n%-16s %16s %12s  %s\n", "weights", "parameters", "bytes", "form");
  for (int i = 0; i < FK_PLAN_ROLES; i++)
    if (p->weights[i].parameters)
      printf("%-16s %16" G_GINT64_FORMAT " %12s  %s\n", p->weights[i].role, p->weights[i].parameters,
             doctor_bytes(p->weights[i].bytes, a, sizeof a), p->weights[i].form);
  printf("\nstep: %.3f TFLOP if every row of the last block were computed, as the reference does\n",
         p->whole_step_flop / 1e12);
  printf("memory needed: %s\n", doctor_bytes(p->weight_bytes + p->cache_bytes + p->arena_bytes, a, sizeof a));
  printf("offload=%s weight-storage=%s: %s of device memory", p->offload, p->storage,
         doctor_bytes(p->placed_bytes + p->cache_bytes + p->arena_bytes, a, sizeof a));
  if (p->streamed_before_bytes > 0)
    printf("; %d of %d blocks stream, %s an evaluation, and %s before the first", p->streamed_blocks, p->blocks,
           doctor_bytes(p->streamed_bytes, a, sizeof a), doctor_bytes(p->streamed_before_bytes, b, sizeof b));
  if (p->streamed_text_bytes > 0) printf("; %s of T5 a prompt", doctor_bytes(p->streamed_text_bytes, a, sizeof a));
  if (p->host_bytes > 0) printf("; %s of host memory", doctor_bytes(p->host_bytes, a, sizeof a));
  printf("\n");
}

/* Models without a reference image are planned as what they are: they generate, schnell in 4 steps. */
static bool take_kind(const Request *r, const char *model, GError **error) {
  const bool folder = g_file_test(model, G_FILE_TEST_IS_DIR), schnell = !folder && g_str_has_prefix(model, "schnell");
  g_autofree char *pipeline = folder ? doctor_pipeline(model) : NULL;
  if (!schnell && g_strcmp0(pipeline, "FluxPipeline") && (folder || !g_str_has_prefix(model, "dev"))) return true;
  if (r->task_set && !strcmp(fk_settings_get(r->settings, "task"), "edit")) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "task=edit: %s makes images from text alone; task=generate plans it", model);
    return false;
  }
  return fk_settings_set(r->settings, "task", "generate", error) &&
         (!schnell || r->steps_set || fk_settings_set(r->settings, "steps", "4", error));
}

/* A plan comes also where no placing keeps to the limit. */
static bool within(const FkPlan *p, double limit, GError **error) {
  const double need = p->placed_bytes + p->cache_bytes + p->arena_bytes;
  if (limit <= 0 || need <= limit) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY,
              "the edit needs %.0f bytes of device memory, and max-vram is %.0f bytes", need, limit);
  return false;
}

static bool plan(const Request *r, const char *size, bool wide, GError **error) {
  const char *model = r->model ? r->model : "kontext-dev";
  int width, height;
  FkPlan result;
  if (!tool_size("--plan", size, &width, &height, error) || !take_kind(r, model, error)) return false;
  if (!fk_settings_check(r->settings, error)) return false;
  if (!fk_plan(model, r->options, r->settings, width, height, wide ? 4 : 2, &result, error)) return false;
  print_plan(&result, model, width, height, wide ? 4 : 2);
  return within(&result, g_ascii_strtod(fk_options_get(r->options, "max-vram"), NULL), error);
}

/* ---- Check ---- */

/* Opens (without loading) with one backend, and says what an edit takes there. */
static bool check(const Request *r, const char *backend, bool *reported, GError **error) {
  char a[32];
  const int device = (int)g_ascii_strtoll(fk_options_get(r->options, "cuda-device-id"), NULL, 10);
  FkPlan p;
  FkMachine m;
  if (!fk_options_set(r->options, "backend", backend, error)) return false;
  g_autoptr(FkEngine) engine = fk_engine_new(r->options, error);
  if (!engine) return false;
  if (!*reported) doctor_model(r->model);
  *reported = true;
  if (!take_kind(r, r->model, error)) return false;
  if (!fk_plan(r->model, r->options, r->settings, 1024, 1024, strcmp(backend, "cuda") ? 4 : 2, &p, error)) return false;
  const double need = p.weight_bytes + p.cache_bytes + p.arena_bytes;
  printf("%-10s sound on %s; an edit at %dx%d takes %d evaluations, %.3g TFLOP and %s of memory\n", backend,
         fk_engine_machine(engine), p.width, p.height, p.evaluations, p.flop / 1e12, doctor_bytes(need, a, sizeof a));
  if (fk_machine(backend, device, false, &m, NULL) && need > (double)m.free_bytes)
    printf("%-10s of which only %s are free\n", "", doctor_bytes((double)m.free_bytes, a, sizeof a));
  return true;
}

/* True when the model opens on one backend at least: those that the machine has, or the one that was asked for. */
static bool check_all(const Request *r, GError **error) {
  static const char *const backends[] = {"cuda", "cpu"};
  const char *asked = fk_options_get(r->options, "backend");
  g_autofree char *only = strcmp(asked, "auto") ? g_strdup(asked) : NULL;
  bool reported = false, sound = false;
  if (!fk_options_set(r->options, "model-path", r->model, error)) return false;
  if (only) return check(r, only, &reported, error);
  for (size_t i = 0; i < G_N_ELEMENTS(backends); i++) {
    g_autoptr(GError) own = NULL;
    if (check(r, backends[i], &reported, &own)) {
      sound = true;
      continue;
    }
    if (!g_error_matches(own, FK_ERROR, FK_ERROR_BACKEND_MISSING)) {
      g_propagate_error(error, g_steal_pointer(&own));
      return false;
    }
  }
  if (!sound) g_set_error(error, FK_ERROR, FK_ERROR_BACKEND_MISSING, "no backend could be opened");
  return sound;
}

/* ---- The program ---- */

/* The first word is the model, unless --config names one; the others are PROPERTY=VALUE. */
static bool take_words(char **words, const char *config, Request *r, GError **error) {
  r->model = config;
  for (char **p = words; *p; p++) {
    if (!config && p == words && !strchr(*p, '=')) {
      r->model = *p;
      continue;
    }
    if (!tool_set(r->options, r->settings, *p, error)) return false;
    r->task_set |= g_str_has_prefix(*p, "task=");
    r->steps_set |= g_str_has_prefix(*p, "steps=");
  }
  return true;
}

/* A folder with weights and without what a whole model has. */
static bool part_folder(const char *path) {
  static const char *const files[] = {"diffusion_pytorch_model.safetensors", "model.safetensors",
                                      "diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json"};
  g_autofree char *whole = g_build_filename(path, "model_index.json", NULL);
  bool some = false;
  for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
    g_autofree char *file = g_build_filename(path, files[i], NULL);
    some |= g_file_test(file, G_FILE_TEST_EXISTS);
  }
  return some && !g_file_test(whole, G_FILE_TEST_EXISTS);
}

/* Words that are all files are what is asked about, each by itself. A packed model is opened as a folder is. */
static bool only_files(char **words) {
  bool some = false;
  for (char **p = words; *p; p++) {
    if (!part_folder(*p) && (!g_file_test(*p, G_FILE_TEST_IS_REGULAR) || doctor_packed(*p))) return false;
    some = true;
  }
  return some;
}

/* Each, whatever the others are. False: one is none of ours, or something in it does not fit. */
static bool describe(char **files) {
  bool ok = true, some = false;
  for (char **p = files; *p; p++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *text = fk_describe_file(*p, &error);
    if (text) printf("%s%s", some ? "\n" : "", text);
    some |= text != NULL;
    fflush(stdout);
    if (error) fprintf(stderr, "%s: %s\n", name, error->message);
    ok &= text && !strstr(text, "\n  wrong ");
  }
  return ok;
}

static bool run(const Arguments *a, char **words, GError **error) {
  if (!a->size && !a->config && only_files(words)) return describe(words);
  g_autoptr(FkOptions) options = fk_options_new();
  g_autoptr(FkSettings) settings = fk_settings_new();
  Request r = {.options = options, .settings = settings};
  if (!take_words(words, a->config, &r, error)) return false;
  if (a->size) return plan(&r, a->size, a->wide, error);
  if (a->config || a->wide) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s belongs to --plan WIDTHxHEIGHT",
                a->config ? "--config" : "--float32");
    return false;
  }
  const bool machine = doctor_machine(a->rates);
  return r.model ? check_all(&r, error) : machine;
}

int main(int argc, char **argv) {
  Arguments a = {0};
  const GOptionEntry entries[] = {
      {"plan", 'p', 0, G_OPTION_ARG_FILENAME, &a.size, "Cost of an edit of this size", "WIDTHxHEIGHT"},
      {"config", 'c', 0, G_OPTION_ARG_FILENAME, &a.config, "Plan without a folder: kontext-dev, dev, schnell", "NAME"},
      {"float32", 'f', 0, G_OPTION_ARG_NONE, &a.wide, "Plan in float32, as the CPU runs (bfloat16)", NULL},
      {"rates", 'r', 0, G_OPTION_ARG_NONE, &a.rates, "Measure what each device reaches", NULL},
      {"properties", 0, 0, G_OPTION_ARG_NONE, &a.properties, "Table of all properties as Markdown", NULL},
      {NULL, 0, 0, 0, NULL, NULL, NULL}};
  g_autoptr(GError) error = NULL;
  int status;
  if (!tool_begin(name, "[MODEL|FILE...] [PROPERTY=VALUE ...]",
                  "  fluxkontext-doctor FLUX.1-Kontext-dev\n"
                  "  fluxkontext-doctor --plan 1024x1024 FLUX.1-Kontext-dev preset=fast\n"
                  "Reports on machine, model or files of weights, or plans an edit, without\n"
                  "loading weights.\n"
                  "Exit: 0 done, 1 an error, a model or file that does not fit, 2 usage.",
                  entries, &argc, &argv, &status))
    return status;
  if (a.properties) doctor_properties();
  const bool ok = a.properties || run(&a, argv + 1, &error);
  if (error) {
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", name, error->message);
  }
  g_free(a.config);
  g_free(a.size);
  return tool_end(name, ok ? 0 : 1);
}
