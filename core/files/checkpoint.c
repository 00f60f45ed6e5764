/* SPDX-License-Identifier: Apache-2.0 */
/* Which files make which part, and where its configuration is; see checkpoint.h. */
#include "checkpoint.h"

#include "file.h"
#include "fk-error.h"
#include "pack.h"
#include "quant-marks.h"
#include "shapes.h"

#include <sys/stat.h>

/* Names of the files in a part's folder: diffusers' and transformers'. */
static const char *const stems[FK_PARTS] = {[FK_PART_CLIP] = "model",
                                            [FK_PART_T5] = "model",
                                            [FK_PART_FLUX] = "diffusion_pytorch_model",
                                            [FK_PART_VAE] = "diffusion_pytorch_model"};
static const char *const properties[FK_PARTS] = {
    [FK_PART_CLIP] = "clip-path", [FK_PART_T5] = "t5-path", [FK_PART_FLUX] = "model-path", [FK_PART_VAE] = "vae-path"};

typedef struct {
  FkCheckpoint *c;
  const FkPaths *paths;
  bool folder; /* the model is one */
  FkFiles files;
  GString *wanted; /* what is missing, with the properties that could give it */
} Opening;

static bool given(const char *path) {
  return path && *path;
}

static bool is_folder(const char *path) {
  return g_file_test(path, G_FILE_TEST_IS_DIR);
}

/* What is neither is told as what it is, and not by the first file that it does not have. Nothing there: that file. */
static bool check_kind(const char *property, const char *path, GError **error) {
  struct stat status;
  if (stat(path, &status) != 0 || S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) return true;
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s %s: expected a folder or a regular file, found %s", property,
              shown, fk_file_kind(status.st_mode));
  return false;
}

static bool has_config(const char *folder) {
  g_autofree char *path = g_build_filename(folder, "config.json", NULL);
  return g_file_test(path, G_FILE_TEST_EXISTS);
}

static const char *own_path(const FkPaths *p, FkPart part) {
  return part == FK_PART_CLIP ? p->clip : part == FK_PART_T5 ? p->t5 : part == FK_PART_VAE ? p->vae : NULL;
}

/* Keeps a component as the part's, with its layout. */
static bool take(Opening *o, FkPart part, FkComponent *component, GError **error) {
  o->c->component[part] = component;
  fk_names_layout(part, component, &o->c->names.part[part]);
  return fk_quant_marks_check(component, error);
}

/* A folder of the part: config.json and its files. */
static bool open_folder(Opening *o, FkPart part, const char *folder, GError **error) {
  const bool optional = o->files != FK_FILES_ALL && has_config(folder);
  if (o->files != FK_FILES_NONE || !optional) {
    FkComponent *component = fk_component_open(folder, stems[part], optional ? NULL : error);
    if (!optional && (!component || !take(o, part, component, error))) return false;
    if (optional && component) take(o, part, component, NULL);
  }
  if (has_config(folder) || (o->folder && !given(own_path(o->paths, part))))
    return fk_config_load_part(&o->c->config, part, folder, error);
  return fk_shapes_config(&o->c->config, &o->c->names, part, error);
}

/* The parts that a file has, for a message. (transfer full) */
static char *parts_of(const FkComponent *component) {
  g_autoptr(GPtrArray) names = g_ptr_array_new();
  FkNamesPart found;
  for (int i = 0; i < FK_PARTS; i++)
    if (fk_names_layout((FkPart)i, component, &found)) g_ptr_array_add(names, (gpointer)fk_part_name((FkPart)i));
  g_ptr_array_add(names, NULL);
  return names->len > 1 ? g_strjoinv(", ", (char **)names->pdata) : g_strdup("nothing that this program knows");
}

/* The configuration of a part that is in a file: of the model's folder, else of its shapes. */
static bool config_of_file(Opening *o, FkPart part, GError **error) {
  g_autofree char *folder = o->folder ? g_build_filename(o->paths->model, fk_part_name(part), NULL) : NULL;
  if (folder && has_config(folder)) return fk_config_load_part(&o->c->config, part, folder, error);
  return fk_shapes_config(&o->c->config, &o->c->names, part, error);
}

static bool open_own_file(Opening *o, FkPart part, const char *path, GError **error) {
  if (fk_pack_detect(path)) {
    g_autofree char *shown = fk_shown_path(path);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
                "%s %s: expected tensors of %s, found a packed model, which only model-path takes", properties[part],
                shown, fk_part_name(part));
    return false;
  }
  FkComponent *component = fk_component_open_file(path, error);
  if (!component) return false;
  if (!take(o, part, component, error)) return false;
  FkNamesPart found;
  if (fk_names_layout(part, component, &found)) return config_of_file(o, part, error);
  g_autofree char *has = parts_of(component);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s %s: expected tensors of %s, found %s", properties[part],
              fk_component_folder(component), fk_part_name(part), has);
  return false;
}

/* One of the model's own, out of the file that model-path names. */
static bool open_shared_file(Opening *o, FkPart part, GError **error) {
  g_autoptr(FkComponent) component = fk_component_open_file(o->paths->model, error);
  FkNamesPart found;
  if (!component) return false;
  if (fk_names_layout(part, component, &found))
    return take(o, part, g_steal_pointer(&component), error) &&
           fk_shapes_config(&o->c->config, &o->c->names, part, error);
  if (part == FK_PART_FLUX) {
    g_autofree char *has = parts_of(component);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "model-path %s: expected tensors of transformer, found %s",
                fk_component_folder(component), has);
    return false;
  }
  g_string_append_printf(o->wanted, "%s%s (%s)", o->wanted->len ? ", " : "", fk_part_name(part), properties[part]);
  return true;
}

static bool open_part(Opening *o, FkPart part, GError **error) {
  const char *path = own_path(o->paths, part);
  if (!given(path)) {
    if (!o->folder) return open_shared_file(o, part, error);
    g_autofree char *folder = g_build_filename(o->paths->model, fk_part_name(part), NULL);
    return open_folder(o, part, folder, error);
  }
  if (!check_kind(properties[part], path, error)) return false;
  if (!is_folder(path)) return open_own_file(o, part, path, error);
  g_autofree char *below = g_build_filename(path, fk_part_name(part), NULL);
  return open_folder(o, part, is_folder(below) ? below : path, error);
}

/* Tensors of one file that holds several parts: each must belong to one of them. */
static bool check_claimed(const Opening *o, GError **error) {
  const FkComponent *component = o->c->component[FK_PART_FLUX];
  FkNames all = {0};
  if (o->folder || !component || !o->c->names.part[FK_PART_FLUX].prefix) return true;
  for (int i = 0; i < FK_PARTS; i++)
    if (!fk_names_layout((FkPart)i, component, &all.part[i])) all.part[i].component = NULL;
  return fk_names_claim(&all, fk_component_shard(component, 0), error);
}

/* Kind and schedule: the model folder's, else those of FLUX.1, with or without guidance as the transformer is. */
static bool open_pipeline(Opening *o, GError **error) {
  FkConfig *c = &o->c->config, published;
  if (o->folder) return fk_config_load_pipeline(c, o->paths->model, error);
  fk_config_preset(&published, c->flux.guidance_embeds ? "kontext-dev" : "schnell");
  c->pipeline = published.pipeline;
  c->scheduler = published.scheduler;
  return true;
}

static bool open_tokenizers(Opening *o, GError **error) {
  const char *path = given(o->paths->tokenizer) ? o->paths->tokenizer : o->folder ? o->paths->model : NULL;
  if (!path) {
    g_string_append_printf(o->wanted, "%stokenizers (tokenizer-path: a folder with tokenizer/ and tokenizer_2/)",
                           o->wanted->len ? ", " : "");
    return true;
  }
  if (!check_kind("tokenizer-path", path, error)) return false;
  o->c->tokenizers = g_strdup(path);
  return fk_config_load_tokenizers(&o->c->config, path, error);
}

static bool open_all(Opening *o, GError **error) {
  static const FkPart order[] = {FK_PART_FLUX, FK_PART_VAE, FK_PART_CLIP, FK_PART_T5};
  if (o->folder && !open_pipeline(o, error)) return false;
  for (size_t i = 0; i < G_N_ELEMENTS(order); i++)
    if (!open_part(o, order[i], error)) return false;
  if (!open_tokenizers(o, error) || (!o->folder && !open_pipeline(o, error))) return false;
  if (o->wanted->len) {
    g_autofree char *shown = fk_shown_path(o->paths->model);
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "model-path %s: the file does not have %s", shown,
                o->wanted->str);
    return false;
  }
  return check_claimed(o, error) && fk_config_agree(&o->c->config, o->paths->model, error);
}

bool fk_checkpoint_open(FkCheckpoint *c, const FkPaths *paths, FkFiles files, GError **error) {
  Opening o = {c, paths, !g_file_test(paths->model, G_FILE_TEST_IS_REGULAR), files, g_string_new(NULL)};
  *c = (FkCheckpoint){0};
  const bool ok = check_kind("model-path", paths->model, error) && open_all(&o, error);
  g_string_free(o.wanted, TRUE);
  if (!ok) {
    fk_checkpoint_clear(c);
    return false;
  }
  for (int i = 0; files == FK_FILES_NONE && i < FK_PARTS; i++) {
    g_clear_pointer(&c->component[i], fk_component_free);
    c->names.part[i] = (FkNamesPart){0};
  }
  return true;
}

void fk_checkpoint_clear(FkCheckpoint *c) {
  for (int i = 0; i < FK_PARTS; i++) g_clear_pointer(&c->component[i], fk_component_free);
  g_clear_pointer(&c->tokenizers, g_free);
}
