/* SPDX-License-Identifier: Apache-2.0 */
/* What a request asks for; see ask.h. */
#include "ask.h"

#include <stdio.h>
#include <string.h>

Ask *ask_new(const FkSettings *defaults) {
  Ask *ask = g_new0(Ask, 1);
  ask->settings = fk_settings_copy(defaults);
  ask->images = g_ptr_array_new_with_free_func((GDestroyNotify)g_bytes_unref);
  ask->n = 1;
  ask->format = MEDIA_PNG;
  ask->compression = -1;
  return ask;
}

void ask_free(Ask *ask) {
  fk_settings_free(ask->settings);
  g_ptr_array_unref(ask->images);
  if (ask->mask) g_bytes_unref(ask->mask);
  g_free(ask);
}

/* ---- Settings ---- */

static const FkProperty *setting_of(const char *name) {
  size_t n;
  const FkProperty *p = fk_properties(&n);
  g_autofree char *property = g_strdelimit(g_strdup(name), "_", '-');
  for (size_t i = 0; i < n; i++)
    if (p[i].scope == FK_SCOPE_SETTING && !p[i].file && !strcmp(p[i].name, property)) return &p[i];
  return NULL;
}

bool ask_is_setting(const char *name) {
  return setting_of(name);
}

bool ask_is_value(const char *name, const char *value) {
  const FkProperty *p = setting_of(name);
  return p && p->values && g_strv_contains(p->values, value);
}

bool ask_set(Ask *ask, const char *name, const char *value, Failure *f) {
  const FkProperty *property = setting_of(name);
  g_autoptr(GError) error = NULL;
  if (!property) return fail(f, 400, "unknown_parameter", name, "\"%s\" is no parameter of this request", name);
  if (fk_settings_set(ask->settings, property->name, value, &error)) return true;
  return fail(f, 400, "invalid_value", name, "%s", error->message);
}

bool ask_prompt(Ask *ask, Form *form, Failure *f) {
  const char *prompt = form_text(form, "prompt", NULL, f);
  if (f->status) return false;
  if (!prompt || !*prompt) return fail(f, 400, "missing_parameter", "prompt", "prompt: it is required");
  if (strlen(prompt) > ASK_PROMPT_BYTES)
    return fail(f, 400, "invalid_value", "prompt", "prompt: %" G_GSIZE_FORMAT " bytes; at most %d are taken",
                strlen(prompt), ASK_PROMPT_BYTES);
  return ask_set(ask, "prompt", prompt, f);
}

bool ask_rest(Ask *ask, Form *form, Failure *f) {
  for (guint i = 0; i < form->fields->len; i++) {
    FormField *field = g_ptr_array_index(form->fields, i);
    if (field->used) continue;
    if (!field->text) {
      if (ask_is_setting(field->name))
        return fail(f, 400, "invalid_value", field->name, "%s: expected a text or a number", field->name);
      return fail(f, 400, "unknown_parameter", field->name, "\"%s\" is no parameter of this request", field->name);
    }
    if (!ask_set(ask, field->name, field->text, f)) return false;
    field->used = true;
  }
  return true;
}

/* ---- Pictures ---- */

bool ask_add_image(Ask *ask, const char *param, const char *base64, Failure *f) {
  if (g_str_has_prefix(base64, "http:") || g_str_has_prefix(base64, "https:"))
    return fail(f, 400, "unsupported_url", param, "%s: this server fetches nothing; send the picture itself", param);
  GBytes *file = media_from_base64(base64);
  if (!file) return fail(f, 400, "invalid_image", param, "%s: neither base64 nor a data URL of it", param);
  g_ptr_array_add(ask->images, file);
  return true;
}

static bool add_node(Ask *ask, const char *param, JsonNode *node, Failure *f) {
  if (JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING)
    return ask_add_image(ask, param, json_node_get_string(node), f);
  if (!JSON_NODE_HOLDS_OBJECT(node))
    return fail(f, 400, "invalid_image", param, "%s: expected texts or objects with \"image_url\"", param);
  JsonNode *url = json_object_get_member(json_node_get_object(node), "image_url");
  if (!url || !JSON_NODE_HOLDS_VALUE(url) || json_node_get_value_type(url) != G_TYPE_STRING)
    return fail(f, 400, "unsupported", param, "%s: expected an object with the text \"image_url\"", param);
  return ask_add_image(ask, param, json_node_get_string(url), f);
}

bool ask_add_images(Ask *ask, const FormField *field, Failure *f) {
  if (field->file) {
    g_ptr_array_add(ask->images, g_bytes_ref(field->file));
    return true;
  }
  if (field->text) return ask_add_image(ask, field->name, field->text, f);
  if (!JSON_NODE_HOLDS_ARRAY(field->node)) return add_node(ask, field->name, field->node, f);
  JsonArray *array = json_node_get_array(field->node);
  for (guint i = 0; i < json_array_get_length(array); i++)
    if (!add_node(ask, field->name, json_array_get_element(array, i), f)) return false;
  return true;
}

bool ask_size(Ask *ask, const char *param, const char *text, Failure *f) {
  int width, height;
  char rest;
  if (!strcmp(text, "auto")) return true;
  if (sscanf(text, "%5dx%5d%c", &width, &height, &rest) != 2 || width < 16 || height < 16 || width % 16 ||
      height % 16 || width > MEDIA_SIDE || height > MEDIA_SIDE)
    return fail(f, 400, "invalid_value", param,
                "%s: \"%.100s\" is neither auto nor WIDTHxHEIGHT, multiples of 16 from 16 to %d", param, text,
                MEDIA_SIDE);
  ask->width = width;
  ask->height = height;
  return true;
}

bool ask_format(Ask *ask, const char *name, Failure *f) {
  ask->format = media_format(name);
  if (ask->format) return true;
  return fail(f, 400, "invalid_value", "output_format", "output_format: \"%.100s\" is not one of png, jpeg%s", name,
              media_format("webp") ? ", webp" : "");
}

/* ---- Checks ---- */

static bool check_images(Ask *ask, gint64 max_pixels, Failure *f) {
  if (!ask->images->len) return fail(f, 400, "missing_parameter", "image", "image: a picture is required");
  for (guint i = 0; i < ask->images->len; i++) {
    int width, height;
    if (!media_probe(g_ptr_array_index(ask->images, i), "image", max_pixels, &width, &height, f)) return false;
    if (i) {
      ask->reference_pixels += (gsize)width * (gsize)height;
      continue;
    }
    ask->image_width = width;
    ask->image_height = height;
  }
  if (ask->mask && !media_probe(ask->mask, "mask", max_pixels, &(int){0}, &(int){0}, f)) return false;
  if (ask->images->len > 1 + FK_REFERENCES)
    return fail(f, 400, "invalid_value", "image", "image: %u pictures; at most %d are taken", ask->images->len,
                1 + FK_REFERENCES);
  return true;
}

bool ask_check(Ask *ask, gint64 max_pixels, Failure *f) {
  GError *error = NULL;
  if (!fk_settings_check(ask->settings, &error)) return fail_error(f, error);
  if (!strcmp(fk_settings_get(ask->settings, "task"), "generate")) ask->generate = true;
  if ((gint64)ask->width * ask->height > max_pixels)
    return fail(f, 400, "invalid_value", "size", "size: %dx%d; at most %" G_GINT64_FORMAT " pixels are made",
                ask->width, ask->height, max_pixels);
  if (!ask->generate) return check_images(ask, max_pixels, f);
  if (ask->images->len || ask->mask)
    return fail(f, 400, "invalid_value", "image", "image: a picture is generated from the prompt alone");
  if (!ask->width) ask->width = ask->height = 1024;
  return fk_settings_set(ask->settings, "task", "generate", NULL);
}
