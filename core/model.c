/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and loading a checkpoint folder: which files make which network. Not here: reading files (weights.c,
 * config.c) and anything that computes. */
#include "model.h"

#include "file.h"
#include "fk.h"
#include "types.h"

static bool mismatch(GError **error, const char *path, const char *what, int64_t expected, int64_t found) {
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
              "%s: %s: expected %" G_GINT64_FORMAT ", found %" G_GINT64_FORMAT, path ? path : "published configuration",
              what, expected, found);
  return false;
}

/* That the networks fit each other is checked where their configurations are read (config.c). */
static bool check_levels(const FkModel *m, GError **error) {
  const int levels = m->config.vae.n_levels;
  return levels == 4 || mismatch(error, m->path, "vae levels (8 pixels per latent)", 4, levels);
}

bool fk_model_bind(FkModel *m, FkPart i, const FkPrecision *precision, GError **error) {
  FkModelPart *p = &m->part[i];
  p->binder = fk_binder_new(m->be, precision, &m->names, i);
  if (m->forms_only) fk_binder_forms_only(p->binder);
  fk_binder_expand(p->binder, m->apart[i]);
  switch (i) {
  case FK_PART_CLIP: fk_clip_init(&m->clip, &m->config.clip, p->binder); break;
  case FK_PART_T5: fk_t5_init(&m->t5, &m->config.t5, p->binder); break;
  case FK_PART_FLUX: fk_flux_init(&m->flux, &m->config.flux, p->binder); break;
  default: fk_vae_init(&m->vae, &m->config.vae, p->binder); break;
  }
  if (!m->pack && !fk_binder_finish(p->binder, error)) return false;
  p->parameters = fk_binder_parameters(p->binder);
  p->bytes = fk_binder_bytes(p->binder);
  return true;
}

static bool open_tokenizers(FkModel *m, const char *folder, GError **error) {
  g_autofree char *clip = g_build_filename(folder, "tokenizer", NULL);
  g_autofree char *t5 = g_build_filename(folder, "tokenizer_2", NULL);
  m->clip_tokenizer = fk_clip_tokenizer_open(clip, error);
  if (!m->clip_tokenizer) return false;
  m->t5_tokenizer = fk_t5_tokenizer_open(t5, error);
  if (!m->t5_tokenizer) return false;
  const int clip_rows = fk_clip_tokenizer_rows(m->clip_tokenizer), t5_rows = fk_t5_tokenizer_rows(m->t5_tokenizer);
  if (clip_rows > m->config.clip.vocab)
    return mismatch(error, clip, "ids of the vocabulary (vocab_size of text_encoder)", m->config.clip.vocab, clip_rows);
  if (t5_rows > m->config.t5.vocab)
    return mismatch(error, t5, "ids of the vocabulary (vocab_size of text_encoder_2)", m->config.t5.vocab, t5_rows);
  return true;
}

char *fk_model_layout(const FkModel *m) {
  g_autoptr(GString) text = g_string_new(NULL);
  for (int i = 0; i < FK_PARTS; i++) fk_binder_layout(m->part[i].binder, text);
  return g_compute_checksum_for_string(G_CHECKSUM_SHA256, text->str, (gssize)text->len);
}

/* The options that this precision comes of, as a packed model's header has its own (but for one scale for all inputs,
 * which is no other form). (transfer full) */
static char *options_of(const FkPrecision *p) {
  static const char *const codes[] = {[FK_MX_NONE] = "fp8", [FK_MX_FP8] = "mxfp8", [FK_MX_FP4] = "mxfp4"};
  const FkForm *blocks = &p->form[FK_ROLE_QKV];
  const char *const block = blocks->dtype == FK_E4M3 ? codes[blocks->mx] : "none";
  return g_strdup_printf(
      "quantization=%s text-quantization=%s%s%s%s", block, p->form[FK_ROLE_T5].dtype == FK_E4M3 ? "fp8" : "none",
      p->form[FK_ROLE_MODULATION].dtype == FK_E4M3 ? " modulation-quantization=fp8" : "",
      blocks->dither ? " weight-dither=on" : "", blocks->twin ? " and precision-first or precision-last above 0" : "");
}

/* Before its tensors are looked for: a packed model of other forms has them with other sizes. */
static bool check_pack(const FkModel *m, GError **error) {
  const char *values = fk_pack_text(m->pack, "values"), *ours = m->be->dtype == FK_F32 ? "float32" : "bfloat16";
  const char *path = fk_safetensors_path(fk_pack_file(m->pack));
  if (strcmp(values, ours)) {
    g_autofree char *found = fk_shown_name(values);
    g_set_error(
        error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
        "%s: packed model: expected values in %s, which %s computes in, found %s; pack the model again with backend=%s",
        path, ours, m->be->machine, found, m->be->ops->name);
    return false;
  }
  g_autofree char *layout = fk_model_layout(m);
  if (!strcmp(layout, fk_pack_text(m->pack, "layout"))) return true;
  g_autofree char *options = g_strdelimit(g_strchomp(g_strdup(fk_pack_text(m->pack, "options"))), "\n", ' ');
  g_autofree char *shown = fk_shown_name(options), *version = fk_shown_name(fk_pack_text(m->pack, "version")),
                  *asked = options_of(&m->precision);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
              "%s: packed model: expected the memory layout of %s, which this engine (version " FK_VERSION
              ") was asked for, found that of %s, by version %s; open it with these options, or pack the model again",
              path, asked, shown, version);
  return false;
}

static bool take_pack(const FkModel *m, GError **error) {
  if (!check_pack(m, error)) return false;
  for (int i = 0; i < FK_PARTS; i++)
    if (!fk_binder_take_pack(m->part[i].binder, m->pack, error)) return false;
  return true;
}

/* Files and configurations are inside, as in a folder. */
static bool read_packed(FkModel *m, const char *path, bool with_files, GError **error) {
  m->path = g_strdup(path);
  m->packed = true;
  if (with_files && !(m->pack = fk_pack_open(path, error))) return false;
  return fk_config_load(&m->config, path, error) && check_levels(m, error) &&
         (!with_files || open_tokenizers(m, path, error));
}

/* A packed model has all of its parts: a path beside it would be one that nothing is read from. */
static bool check_alone(const FkPaths *p, GError **error) {
  const struct {
    const char *property, *path;
  } others[] = {{"vae-path", p->vae}, {"clip-path", p->clip}, {"t5-path", p->t5}, {"tokenizer-path", p->tokenizer}};
  for (size_t i = 0; i < G_N_ELEMENTS(others); i++) {
    if (!others[i].path || !*others[i].path) continue;
    g_autofree char *shown = fk_shown_path(p->model), *other = fk_shown_path(others[i].path);
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "%s: expected nothing beside the packed model %s, which has all parts, found %s; pack the model again "
                "with this path",
                others[i].property, shown, other);
    return false;
  }
  return true;
}

/* Parts, configurations and tokenizers of the model's files. */
static bool read_checkpoint(FkModel *m, const FkPaths *paths, FkFiles which, GError **error) {
  const bool with_files = which == FK_FILES_ALL;
  FkCheckpoint c;
  if (fk_pack_detect(paths->model)) return check_alone(paths, error) && read_packed(m, paths->model, with_files, error);
  if (!fk_checkpoint_open(&c, paths, which, error)) return false;
  m->path = g_strdup(paths->model);
  m->config = c.config;
  m->names = c.names;
  m->forms_only = !with_files;
  for (int i = 0; i < FK_PARTS; i++)
    *(with_files ? &m->part[i].component : &m->forms[i]) = g_steal_pointer(&c.component[i]);
  m->tokenizers = g_steal_pointer(&c.tokenizers);
  const bool ok = check_levels(m, error) && (!with_files || open_tokenizers(m, m->tokenizers, error));
  fk_checkpoint_clear(&c);
  return ok;
}

/* "kontext-dev" or "kontext-dev:Q4_K". */
static bool take_published(FkModel *m, const char *name) {
  g_auto(GStrv) words = g_strsplit(name, ":", 2);
  if (!words[0] || !fk_config_preset(&m->config, words[0])) return false;
  if (!words[1]) return true;
  m->precision.assumed = fk_number_code(words[1]);
  return m->precision.assumed != FK_CODE_NONE;
}

/* The model with its matrices the other way, where that takes other bytes; nothing of it is ever loaded. */
static FkModel *bind_other(const FkModel *m) {
  g_autoptr(FkModel) o = g_new0(FkModel, 1);
  o->be = m->be;
  o->config = m->config;
  o->names = m->names;
  o->precision = m->precision;
  o->precision.as_filed = !m->precision.as_filed;
  o->forms_only = true;
  for (int i = 0; i < FK_PARTS; i++) fk_model_bind(o, (FkPart)i, &o->precision, NULL);
  return fk_model_weight_bytes(o) == fk_model_weight_bytes(m) ? NULL : g_steal_pointer(&o);
}

static size_t filed_bytes(const FkModel *m) {
  size_t bytes = 0;
  for (int i = 0; i < FK_PARTS; i++)
    for (int role = 0; role < FK_ROLES; role++) bytes += fk_binder_share(m->part[i].binder, role).coded;
  return bytes;
}

static FkModel *read_model(const FkPaths *paths, FkFiles which, GError **error) {
  g_autoptr(FkModel) m = g_new0(FkModel, 1);
  const bool published = !g_file_test(paths->model, G_FILE_TEST_EXISTS) && take_published(m, paths->model);
  return published || read_checkpoint(m, paths, which, error) ? g_steal_pointer(&m) : NULL;
}

FkModel *fk_model_read(const FkPaths *paths, GError **error) {
  return read_model(paths, FK_FILES_ALL, error);
}

bool fk_model_begin(FkModel *m, FkBackend *be, const FkPrecision *precision, GError **error) {
  const FkCode assumed = m->precision.assumed;
  m->be = be;
  m->precision = precision ? *precision : fk_precision_uniform(be->dtype);
  if (assumed != FK_CODE_NONE) m->precision.assumed = assumed;
  if (m->packed && m->precision.as_filed) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "weight-storage=file: a packed model has expanded weights; open what it was packed from");
    return false;
  }
  m->precision.either = m->precision.either && !m->packed;
  for (int i = 0; i < FK_PARTS; i++)
    if (!fk_model_bind(m, (FkPart)i, &m->precision, error)) return false;
  if (m->pack && !take_pack(m, error)) return false;
  if (m->precision.either) m->other = bind_other(m);
  m->has_forms = m->other || filed_bytes(m);
  return true;
}

FkModel *fk_model_open_paths(const FkPaths *paths, FkBackend *be, const FkPrecision *precision, bool with_files,
                             GError **error) {
  const bool forms = precision && (precision->as_filed || precision->either);
  g_autoptr(FkModel) m = read_model(paths, with_files ? FK_FILES_ALL : forms ? FK_FILES_FORMS : FK_FILES_NONE, error);
  return m && fk_model_begin(m, be, precision, error) ? g_steal_pointer(&m) : NULL;
}

FkModel *fk_model_open(const char *path, FkBackend *be, const FkPrecision *precision, bool with_files, GError **error) {
  return fk_model_open_paths(&(FkPaths){.model = path}, be, precision, with_files, error);
}

static void clear_network(FkModel *m, FkPart i) {
  switch (i) {
  case FK_PART_CLIP: fk_clip_clear(&m->clip); break;
  case FK_PART_T5: fk_t5_clear(&m->t5); break;
  case FK_PART_FLUX: fk_flux_clear(&m->flux); break;
  default: break;
  }
}

void fk_model_free(FkModel *m) {
  if (!m) return;
  fk_model_free(m->other);
  fk_loras_free(m->adapters.loras);
  g_free(m->adapters.identity);
  for (int i = 0; i < FK_PARTS; i++) g_clear_pointer(&m->adapters.stale[i], g_hash_table_unref);
  for (int i = 0; i < FK_PARTS; i++) {
    fk_binder_free(m->part[i].binder);
    fk_component_free(m->part[i].component);
    fk_component_free(m->forms[i]);
    if (m->apart[i]) g_hash_table_unref(m->apart[i]);
    clear_network(m, (FkPart)i);
  }
  fk_clip_tokenizer_free(m->clip_tokenizer);
  fk_t5_tokenizer_free(m->t5_tokenizer);
  fk_pack_free(m->pack);
  g_free(m->tokenizers);
  g_free(m->path);
  g_free(m);
}

static FkStore *store_of(const FkModel *m, int part) {
  return fk_binder_store(m->part[part].binder);
}

static size_t operands_of(const FkModel *m, int part) {
  return fk_binder_operand_bytes(m->part[part].binder);
}

/* Not of a null walk. */
static bool from_files(const FkModel *m, int part) {
  return m->part[part].component || m->pack;
}

static bool is_text(int part) {
  return part == FK_PART_CLIP || part == FK_PART_T5;
}

/* Refuses before anything is loaded. Memory of a host can be made free by the system (page cache, swap), so there what
 * counts is how much there is at all; memory of a device is free or it is not. */
static bool check_memory(const FkModel *m, GError **error) {
  size_t need = fk_model_missing_operands(m), free_bytes = 0, total_bytes = 0;
  for (int i = 0; i < FK_PARTS; i++)
    if (!m->part[i].loaded && from_files(m, i) && (!m->swaps || is_text(i)))
      need += store_of(m, i)->memory_bytes + operands_of(m, i);
  m->be->ops->memory(m->be, &free_bytes, &total_bytes);
  const bool host = m->be->ops == &fk_cpu_ops;
  const size_t have = host ? total_bytes : free_bytes;
  if (need <= have) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "the weights need %zu bytes of memory on %s, %zu are %s", need,
              m->be->machine, have, host ? "all there is" : "free");
  return false;
}

/* Bytes of one part's files, seen as bytes of all. */
typedef struct {
  FkLoadProgress progress;
  void *user_data;
  int64_t before, total;
} Share;

static void forward_progress(int64_t done, int64_t total, void *user_data) {
  const Share *s = user_data;
  (void)total;
  if (s->progress) s->progress(s->before + done, s->total, s->user_data);
}

static void note_loaded(FkModel *m) {
  m->loaded = true;
  for (int i = 0; i < FK_PARTS && !m->swaps; i++) m->loaded = m->loaded && m->part[i].loaded;
}

bool fk_model_load_part(FkModel *m, FkPart i, GCancellable *cancellable, FkLoadProgress progress, void *user_data,
                        GError **error) {
  FkModelPart *p = &m->part[i];
  if (p->loaded) return fk_binder_load_operands(p->binder, cancellable, error);
  if (!fk_binder_load(p->binder, cancellable, progress, user_data, error)) return false;
  if (i == FK_PART_T5 && from_files(m, i) && !fk_t5_prepare(&m->t5, m->be, error)) {
    fk_binder_release(p->binder);
    return false;
  }
  p->loaded = true;
  note_loaded(m);
  return true;
}

void fk_model_release_part(FkModel *m, FkPart i) {
  fk_binder_release(m->part[i].binder);
  m->part[i].loaded = false;
  m->loaded = m->loaded && m->swaps;
}

/* A plan in float32 is one of the CPU. */
static bool keeps(const FkModel *m, FkPlacing p, int part) {
  const bool host = m->be->ops == &fk_cpu_ops || (m->be->ops == &fk_null_ops && m->be->dtype == FK_F32);
  return p.swaps && !p.remakes && !host && fk_binder_makes_codes(m->part[part].binder);
}

bool fk_model_bring(FkModel *m, bool text, GCancellable *cancellable, GError **error) {
  assert(m->swaps);
  for (int i = 0; i < FK_PARTS; i++) {
    if (is_text(i) == text || !m->part[i].loaded) continue;
    if (keeps(m, fk_model_placing(m), i)) fk_store_keep(store_of(m, i)); /* else it is read again */
    fk_model_release_part(m, (FkPart)i);
  }
  for (int i = 0; i < FK_PARTS; i++)
    if (is_text(i) == text && !fk_model_load_part(m, (FkPart)i, cancellable, NULL, NULL, error)) return false;
  return true;
}

/* What a calibration has written into weights, by name. (transfer full) */
static GHashTable *input_scales(const FkBinder *b) {
  GHashTable *scales = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  g_autoptr(GPtrArray) all = fk_binder_all(b);
  for (guint i = 0; i < all->len; i++) {
    const FkBound *bound = all->pdata[i];
    if (bound->weight && bound->weight->x_scale > 0)
      g_hash_table_insert(scales, g_strdup(bound->name), g_memdup2(&bound->weight->x_scale, sizeof(float)));
  }
  return scales;
}

static void set_input_scales(const FkBinder *b, GHashTable *scales) {
  GHashTableIter it;
  gpointer name, scale;
  g_hash_table_iter_init(&it, scales);
  while (g_hash_table_iter_next(&it, &name, &scale)) fk_binder_find(b, name)->weight->x_scale = *(const float *)scale;
}

/* Another network on the same files; it was bound before, so that nothing of it can be wrong. */
static void rebind(FkModel *m, FkPart i) {
  const FkStore *s = store_of(m, i);
  const int level = s->level, slots = s->slots;
  if (m->part[i].loaded) fk_model_release_part(m, i);
  m->loaded = false;
  g_autoptr(GHashTable) scales = input_scales(m->part[i].binder);
  fk_binder_free(m->part[i].binder);
  clear_network(m, i);
  const bool bound = fk_model_bind(m, i, &m->precision, NULL);
  assert(bound);
  (void)bound;
  set_input_scales(m->part[i].binder, scales);
  if (level) fk_store_stream(store_of(m, i), level, slots);
  fk_binder_adapt(m->part[i].binder, m->deltas[i]);
}

static void set_form(FkModel *m, bool as_filed) {
  m->precision.as_filed = as_filed;
  for (int i = 0; i < FK_PARTS; i++)
    if (i != FK_PART_VAE) rebind(m, (FkPart)i); /* whose kernels are always expanded */
}

static bool same_names(GHashTable *a, GHashTable *b) {
  GHashTableIter it;
  gpointer name;
  if (!a || !b) return !a && !b;
  if (g_hash_table_size(a) != g_hash_table_size(b)) return false;
  g_hash_table_iter_init(&it, a);
  while (g_hash_table_iter_next(&it, &name, NULL))
    if (!g_hash_table_contains(b, name)) return false;
  return true;
}

/* Whether to expand a matrix for good: it is changed by more than terms, or these take as many bytes as its numbers. */
static bool is_apart(const FkBound *bound, const FkDeltas *deltas) {
  FkAdapted terms;
  if (!bound->weight || !fk_delta_terms(deltas, &terms)) return bound->weight != NULL;
  terms.rows = bound->rows;
  return fk_delta_operand_numbers(&terms) * fk_dtype_size(fk_delta_type(deltas)) >=
         (size_t)(bound->rows * bound->cols) * fk_dtype_size(bound->weight->dtype);
}

/* (transfer full): NULL: none */
static GHashTable *apart_of(const FkBinder *b, GHashTable *deltas) {
  GHashTable *names = NULL;
  GHashTableIter it;
  gpointer name, list;
  if (!deltas) return NULL;
  g_hash_table_iter_init(&it, deltas);
  while (g_hash_table_iter_next(&it, &name, &list)) {
    if (!is_apart(fk_binder_find(b, name), list)) continue;
    if (!names) names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_hash_table_add(names, g_strdup(name));
  }
  return names;
}

/* True: bound anew, with the deltas. */
static bool set_apart(FkModel *m, FkPart i, bool has_forms) {
  g_autoptr(GHashTable) names = has_forms ? apart_of(m->part[i].binder, m->deltas[i]) : NULL;
  if (same_names(names, m->apart[i])) return false;
  g_clear_pointer(&m->apart[i], g_hash_table_unref);
  m->apart[i] = g_steal_pointer(&names);
  if (m->precision.as_filed) rebind(m, i);
  return m->precision.as_filed;
}

void fk_model_adapt(FkModel *m, const FkLoras *loras) {
  FkModel *const models[] = {m, m->other};
  const int before = fk_model_changed(m);
  for (int k = 0; k < 2 && models[k]; k++)
    for (int i = 0; i < FK_PARTS; i++) {
      models[k]->deltas[i] = loras ? fk_loras_deltas(loras, (FkPart)i) : NULL;
      if (!set_apart(models[k], (FkPart)i, m->has_forms))
        fk_binder_adapt(models[k]->part[i].binder, models[k]->deltas[i]);
    }
  if (before || fk_model_changed(m)) m->exchanges++;
}

bool fk_model_load_operands(FkModel *m, GCancellable *cancellable, GError **error) {
  for (int i = 0; i < FK_PARTS; i++)
    if (m->part[i].loaded && !fk_binder_load_operands(m->part[i].binder, cancellable, error)) return false;
  return true;
}

size_t fk_model_missing_operands(const FkModel *m) {
  size_t bytes = 0;
  for (int i = 0; i < FK_PARTS; i++) {
    const FkBinder *b = m->part[i].binder;
    if (m->part[i].loaded) bytes += fk_binder_operand_bytes(b) - fk_binder_held_operand_bytes(b);
  }
  return bytes;
}

int fk_model_changed(const FkModel *m) {
  int n = 0;
  for (int i = 0; i < FK_PARTS; i++) n += fk_binder_changed(m->part[i].binder);
  return n;
}

bool fk_model_stay_expanded(FkModel *m, GError **error) {
  if (m->precision.as_filed && m->has_forms) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "layers are measured where weights are expanded: expected weight-storage=expanded");
    return false;
  }
  g_clear_pointer(&m->other, fk_model_free);
  return true;
}

FkPlacing fk_model_placing(const FkModel *m) {
  const FkStore *s = store_of(m, FK_PART_FLUX);
  const int text_level = store_of(m, FK_PART_T5)->level;
  return (FkPlacing){m->swaps, s->level, s->slots, text_level, m->precision.as_filed, m->remakes};
}

void fk_model_place(FkModel *m, FkPlacing p) {
  if (p.as_filed != m->precision.as_filed) {
    set_form(m, p.as_filed);
    if (m->other) set_form(m->other, !p.as_filed);
  }
  FkStore *s = store_of(m, FK_PART_FLUX), *text = store_of(m, FK_PART_T5);
  const bool others = p.swaps && !m->swaps, streams = p.level != s->level || (p.level && p.slots != s->slots);
  const bool text_streams = p.text_level != text->level;
  m->swaps = p.swaps;
  m->remakes = p.remakes;
  for (int i = 0; i < FK_PARTS; i++)
    if (m->part[i].loaded && (is_text(i) ? others || (text_streams && i == FK_PART_T5) : streams))
      fk_model_release_part(m, (FkPart)i);
  if (streams) fk_store_stream(s, p.level, p.slots);
  if (text_streams) fk_store_stream(text, p.text_level, FK_TEXT_SLOTS);
}

size_t fk_model_placed_bytes(const FkModel *m, FkPlacing p) {
  if (m->other && p.as_filed != m->precision.as_filed) m = m->other;
  const size_t text = m->part[FK_PART_CLIP].bytes + operands_of(m, FK_PART_CLIP) + operands_of(m, FK_PART_T5) +
                      fk_store_level_bytes(store_of(m, FK_PART_T5), p.text_level, FK_TEXT_SLOTS);
  const size_t rest = fk_store_level_bytes(store_of(m, FK_PART_FLUX), p.level, p.slots) + operands_of(m, FK_PART_FLUX) +
                      m->part[FK_PART_VAE].bytes;
  return p.swaps ? MAX(text, rest) : text + rest;
}

size_t fk_model_placed_host_bytes(const FkModel *m, FkPlacing p) {
  if (m->other && p.as_filed != m->precision.as_filed) m = m->other;
  size_t bytes = 0;
  for (int i = 0; i < FK_PARTS; i++) {
    const int level = i == FK_PART_FLUX ? p.level : i == FK_PART_T5 ? p.text_level : 0;
    const int slots = i == FK_PART_T5 ? FK_TEXT_SLOTS : p.slots;
    bytes += fk_store_level_host_bytes(store_of(m, i), level, slots, keeps(m, p, i));
  }
  return bytes;
}

size_t fk_model_host_bytes(const FkModel *m) {
  return fk_model_placed_host_bytes(m, fk_model_placing(m));
}

bool fk_model_keeps(const FkModel *m) {
  bool any = false;
  for (int i = 0; i < FK_PARTS; i++) any |= keeps(m, fk_model_placing(m), i);
  return any;
}

size_t fk_model_pinned_bytes(const FkModel *m) {
  size_t bytes = 0;
  for (int i = 0; i < FK_PARTS; i++) bytes += fk_store_pinned_bytes(store_of(m, i));
  return bytes;
}

bool fk_model_load(FkModel *m, GCancellable *cancellable, FkLoadProgress progress, void *user_data, GError **error) {
  Share share = {progress, user_data, 0, (int64_t)fk_model_open_bytes(m)};
  if (!check_memory(m, error)) return false;
  for (int i = 0; i < FK_PARTS; i++) fk_binder_clear_times(m->part[i].binder);
  for (int i = 0; i < FK_PARTS; i++) {
    if (m->swaps && !is_text(i)) { /* the first edit begins with its text */
      if (m->part[i].loaded) fk_model_release_part(m, (FkPart)i);
      continue;
    }
    if (!fk_model_load_part(m, (FkPart)i, cancellable, forward_progress, &share, error)) {
      for (int k = 0; k < FK_PARTS; k++) fk_model_release_part(m, (FkPart)k);
      m->loaded = false;
      return false;
    }
    share.before += (int64_t)m->part[i].bytes;
  }
  return true;
}

size_t fk_model_open_bytes(const FkModel *m) {
  size_t sum = 0;
  for (int i = 0; i < FK_PARTS; i++) sum += m->swaps && !is_text(i) ? 0 : m->part[i].bytes;
  return sum;
}

size_t fk_model_held_bytes(const FkModel *m) {
  size_t sum = 0;
  for (int i = 0; i < FK_PARTS; i++)
    if (m->part[i].loaded) sum += store_of(m, i)->memory_bytes + fk_binder_held_operand_bytes(m->part[i].binder);
  return sum;
}

size_t fk_model_weight_bytes(const FkModel *m) {
  size_t sum = 0;
  for (int i = 0; i < FK_PARTS; i++) sum += m->part[i].bytes + operands_of(m, i);
  return sum;
}

int64_t fk_model_area(const FkModel *m) {
  return (int64_t)m->config.vae.sample_size * m->config.vae.sample_size;
}
