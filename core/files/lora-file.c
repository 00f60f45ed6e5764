/* SPDX-License-Identifier: Apache-2.0 */
/* From a file's tensors to modules whose shapes, types and numbers have been checked; see lora-file.h. */
#include "lora-file.h"

#include "file.h"
#include "fk-error.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#define NUMBERS 16384 /* of a tensor at a time */
#define THREADS 16    /* that look at numbers at most; a few megabytes each are worth one */
#define THREAD_BYTES (4 << 20)
#define MAX_HEADER (16u << 20) /* bytes; a file of every module of the largest model has 0.3 MB */

/* ---- Ends of names ---- */

static const struct {
  const char *suffix;
  FkLoraSlot slot;
} suffixes[] = {
    {".lora_up.weight", FK_SLOT_UP},
    {".lora_down.weight", FK_SLOT_DOWN},
    {".lora_B.weight", FK_SLOT_UP},
    {".lora_A.weight", FK_SLOT_DOWN},
    {".lora_B.default.weight", FK_SLOT_UP},
    {".lora_A.default.weight", FK_SLOT_DOWN},
    {".lora.up.weight", FK_SLOT_UP},
    {".lora.down.weight", FK_SLOT_DOWN},
    {"_lora.up.weight", FK_SLOT_UP},
    {"_lora.down.weight", FK_SLOT_DOWN},
    {".lora_linear_layer.up.weight", FK_SLOT_UP},
    {".lora_linear_layer.down.weight", FK_SLOT_DOWN},
    {".up.weight", FK_SLOT_UP},
    {".down.weight", FK_SLOT_DOWN},
    {".lora_B.bias", FK_SLOT_UP_BIAS},
    {".lora_B.default.bias", FK_SLOT_UP_BIAS},
    {".alpha", FK_SLOT_ALPHA},
    {".dora_scale", FK_SLOT_MAGNITUDE},
    {".lora_magnitude_vector", FK_SLOT_MAGNITUDE},
    {".lora_magnitude_vector.weight", FK_SLOT_MAGNITUDE},
    {".lora_magnitude_vector.default", FK_SLOT_MAGNITUDE},
    {".lora_magnitude_vector.default.weight", FK_SLOT_MAGNITUDE},
    {".hada_w1_a", FK_SLOT_HADA_W1A},
    {".hada_w1_b", FK_SLOT_HADA_W1B},
    {".hada_w2_a", FK_SLOT_HADA_W2A},
    {".hada_w2_b", FK_SLOT_HADA_W2B},
    {".lokr_w1", FK_SLOT_LOKR_W1},
    {".lokr_w1_a", FK_SLOT_LOKR_W1A},
    {".lokr_w1_b", FK_SLOT_LOKR_W1B},
    {".lokr_w2", FK_SLOT_LOKR_W2},
    {".lokr_w2_a", FK_SLOT_LOKR_W2A},
    {".lokr_w2_b", FK_SLOT_LOKR_W2B},
    {".diff", FK_SLOT_DIFF},
    {".diff_b", FK_SLOT_DIFF_BIAS},
    {".w_norm", FK_SLOT_DIFF},
    {".b_norm", FK_SLOT_DIFF_BIAS},
};

/* Kinds that are known and cannot be applied: to leave them out would give another picture without a word. */
static const struct {
  const char *pattern, *kind;
} refused[] = {
    {"*.lora_mid.weight", "a LoRA of convolutions (LoCon)"},
    {"*.lokr_t2", "a LoKr of convolutions"},
    {"*.hada_t1", "a LoHa of convolutions"},
    {"*.hada_t2", "a LoHa of convolutions"},
    {"*.oft_blocks", "OFT"},
    {"*.oft_diag", "diagonal OFT"},
    {"*.oft_R*", "OFT"},
    {"*.boft_*", "BOFT"},
    {"*.a1.weight", "GLoRA"},
    {"*.a2.weight", "GLoRA"},
    {"*.b1.weight", "GLoRA"},
    {"*.b2.weight", "GLoRA"},
    {"*.vera_lambda_*", "VeRA"},
    {"*.ia3_l*", "IA3"},
    {"*.on_input", "IA3"},
    {"*.reshape_weight", "a LoRA that widens the model's weights"},
    {"*.lora_embedding_?", "a LoRA of embeddings"},
    {"*query_norm.scale", "a control LoRA (depth, canny)"},
    {"*key_norm.scale", "a control LoRA (depth, canny)"},
};

static bool fail(const FkLoraFile *f, FkError code, const char *name, GError **error, const char *format, ...)
    G_GNUC_PRINTF(5, 6);
static bool fail(const FkLoraFile *f, FkError code, const char *name, GError **error, const char *format, ...) {
  va_list list;
  va_start(list, format);
  g_autofree char *text = g_strdup_vprintf(format, list), *shown = fk_shown_name(name);
  va_end(list);
  g_set_error(error, FK_ERROR, (int)code, "%s: \"%s\": %s", fk_safetensors_path(f->file), shown, text);
  return false;
}

/* NULL: of none of these. Norms are of a control LoRA beside adapters alone: a whole model has them too. */
static const char *refused_kind(const char *name, bool adapters, bool *control) {
  for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
    *control = strstr(refused[i].kind, "control") != NULL;
    if ((adapters || !*control) && g_pattern_match_simple(refused[i].pattern, name)) return refused[i].kind;
  }
  return NULL;
}

static bool check_refused(const FkLoraFile *f, const char *name, GError **error) {
  bool control;
  const char *kind = refused_kind(name, f->adapters, &control);
  if (kind)
    return fail(f, FK_ERROR_MODEL_MISMATCH, name, error, "%s cannot be applied%s", kind,
                control ? ": it needs a second image beside the one that is edited, which this model has no inputs for"
                        : "; LoRA, DoRA, LoHa, LoKr and differences can");
  return true;
}

/* The longest end that the name has: its slot and where it begins; -1: none. */
static int split(const char *name, size_t *stem) {
  const size_t bytes = strlen(name);
  size_t longest = 0;
  int slot = -1;
  for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
    const size_t n = strlen(suffixes[i].suffix);
    if (n <= longest || n >= bytes || strcmp(name + bytes - n, suffixes[i].suffix)) continue;
    longest = n;
    slot = (int)suffixes[i].slot;
  }
  *stem = bytes - longest;
  return slot;
}

static bool has_adapters(const FkSafetensors *file) {
  size_t stem;
  for (size_t i = 0; i < fk_safetensors_count(file); i++)
    if (split(fk_safetensors_at(file, i)->name, &stem) >= 0) return true;
  return false;
}

/* ---- Groups ---- */

static void free_group(gpointer group) {
  g_free(((FkLoraGroup *)group)->stem);
  g_free(group);
}

static bool add_tensor(FkLoraFile *f, GHashTable *by_stem, const FkLoraNames *names, const FkStTensor *t,
                       GError **error) {
  size_t bytes;
  const int slot = split(t->name, &bytes);
  g_autofree char *stem = g_strndup(t->name, bytes);
  const FkLoraSpelling *spelling = slot < 0 ? NULL : fk_lora_names_find(names, stem);
  if (!check_refused(f, t->name, error)) return false;
  if (!spelling) {
    if (f->unmatched < FK_LORA_SHOWN) f->shown[f->unmatched] = fk_shown_name(t->name);
    f->unmatched++;
    return true;
  }
  FkLoraGroup *g = g_hash_table_lookup(by_stem, stem);
  if (!g) {
    g = g_new0(FkLoraGroup, 1);
    g->module = spelling->module;
    g->stem = g_steal_pointer(&stem);
    g_ptr_array_add(f->groups, g);
    g_hash_table_insert(by_stem, g->stem, g);
  }
  if (g->slot[slot]) return fail(f, FK_ERROR_MODEL_BAD, t->name, error, "the same as \"%.120s\"", g->slot[slot]->name);
  g->slot[slot] = t;
  if (!f->dialect) f->dialect = spelling->dialect;
  return true;
}

static bool collect(FkLoraFile *f, const FkLoraNames *names, GError **error) {
  g_autoptr(GHashTable) by_stem = g_hash_table_new(fk_text_hash, g_str_equal);
  const size_t n = fk_safetensors_count(f->file);
  f->adapters = has_adapters(f->file);
  for (size_t i = 0; i < n; i++)
    if (!add_tensor(f, by_stem, names, fk_safetensors_at(f->file, i), error)) return false;
  if (f->groups->len) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH, "%s: none of its %zu tensors is an adapter of this model%s%s%s",
              fk_safetensors_path(f->file), n, f->shown[0] ? ": \"" : "", f->shown[0] ? f->shown[0] : "",
              f->shown[0] ? "\" and so on" : "");
  return false;
}

/* ---- Checks of one module ---- */

/* Rows and columns, without the two ones that a matrix of a 1 x 1 convolution ends with. False: neither. */
static bool matrix(const FkStTensor *t, int64_t *rows, int64_t *cols) {
  for (int i = 2; i < t->rank; i++)
    if (t->dim[i] != 1) return false;
  if (t->rank < 2) return false;
  *rows = t->dim[0];
  *cols = t->dim[1];
  return true;
}

/* The tensor is [rows, cols]; -1: any number of at least 1. */
static bool check_shape(const FkLoraFile *f, const FkStTensor *t, int64_t rows, int64_t cols, GError **error) {
  int64_t r = 0, c = 0;
  if (matrix(t, &r, &c) && r > 0 && c > 0 && (rows < 0 || r == rows) && (cols < 0 || c == cols)) return true;
  g_autofree char *found = fk_st_shape_text(t->dim, t->rank);
  g_autofree char *p = rows < 0 ? g_strdup("any") : g_strdup_printf("%" G_GINT64_FORMAT, rows);
  g_autofree char *q = cols < 0 ? g_strdup("any") : g_strdup_printf("%" G_GINT64_FORMAT, cols);
  return fail(f, FK_ERROR_MODEL_MISMATCH, t->name, error, "expected shape [%s,%s], found %s", p, q, found);
}

/* [rows, r] and [r, cols] with a rank within bounds. */
static bool check_pair(const FkLoraFile *f, const FkStTensor *left, const FkStTensor *right, int64_t rows, int64_t cols,
                       GError **error) {
  int64_t rank = 0, q = 0;
  if (!check_shape(f, right, -1, cols, error) || !matrix(right, &rank, &q)) return false;
  if (rank > FK_LORA_MAX_RANK)
    return fail(f, FK_ERROR_MODEL_MISMATCH, right->name, error,
                "expected a rank of at most %d, found %" G_GINT64_FORMAT, FK_LORA_MAX_RANK, rank);
  return check_shape(f, left, rows, rank, error);
}

/* Both or none of two slots; *there: both. */
static bool both(const FkLoraFile *f, const FkLoraGroup *g, FkLoraSlot a, FkLoraSlot b, bool *there, GError **error) {
  const FkStTensor *one = g->slot[a] ? g->slot[a] : g->slot[b];
  *there = g->slot[a] && g->slot[b];
  return *there || !one || fail(f, FK_ERROR_MODEL_BAD, one->name, error, "its other half is missing");
}

static bool check_product(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  const FkLoraModule *m = g->module;
  const FkStTensor *up = g->slot[FK_SLOT_UP], *down = g->slot[FK_SLOT_DOWN];
  const bool narrow = m->pads && down->rank >= 2 && down->dim[1] > 0 && down->dim[1] < m->cols;
  g->weight.kind = FK_DELTA_PRODUCT;
  g->weight.part[0] = up;
  g->weight.part[1] = down;
  return check_pair(f, up, down, m->rows, narrow ? down->dim[1] : m->cols, error);
}

static bool check_hadamard(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  const FkLoraModule *m = g->module;
  g->weight.kind = FK_DELTA_HADAMARD;
  for (int i = 0; i < FK_DELTA_PARTS; i++) g->weight.part[i] = g->slot[FK_SLOT_HADA_W1A + i];
  return check_pair(f, g->weight.part[0], g->weight.part[1], m->rows, m->cols, error) &&
         check_pair(f, g->weight.part[2], g->weight.part[3], m->rows, m->cols, error);
}

/* One factor of a Kronecker product: whole, or a pair. *p, *q: its shape. */
static bool check_factor(const FkLoraFile *f, FkLoraGroup *g, int k, int64_t *p, int64_t *q, GError **error) {
  const FkLoraSlot whole = k ? FK_SLOT_LOKR_W2 : FK_SLOT_LOKR_W1;
  const FkStTensor *w = g->slot[whole], *a = g->slot[whole + 1], *b = g->slot[whole + 2];
  bool pair;
  if (!both(f, g, whole + 1, whole + 2, &pair, error)) return false;
  if (w && pair) return fail(f, FK_ERROR_MODEL_BAD, w->name, error, "a matrix and its factors are both there");
  if (!w && !pair) return fail(f, FK_ERROR_MODEL_BAD, g->stem, error, "lokr_w%d is missing", k + 1);
  g->weight.part[2 * k] = w ? w : a;
  g->weight.part[2 * k + 1] = b;
  if (w) return check_shape(f, w, -1, -1, error) && matrix(w, p, q);
  int64_t rank;
  return check_pair(f, a, b, -1, -1, error) && matrix(a, p, &rank) && matrix(b, &rank, q);
}

static bool check_kronecker(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  const FkLoraModule *m = g->module;
  int64_t p1 = 0, q1 = 0, p2 = 0, q2 = 0;
  g->weight.kind = FK_DELTA_KRONECKER;
  if (!check_factor(f, g, 0, &p1, &q1, error) || !check_factor(f, g, 1, &p2, &q2, error)) return false;
  if (m->rows % p1 == 0 && m->rows / p1 == p2 && m->cols % q1 == 0 && m->cols / q1 == q2) return true;
  return fail(f, FK_ERROR_MODEL_MISMATCH, g->stem, error,
              "expected factors of [%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT "], found [%" G_GINT64_FORMAT
              ",%" G_GINT64_FORMAT "] and [%" G_GINT64_FORMAT ",%" G_GINT64_FORMAT "]",
              m->rows, m->cols, p1, q1, p2, q2);
}

/* A difference, [rows, cols], or [rows] of a vector. */
static bool check_full(const FkLoraFile *f, const FkStTensor *t, int64_t rows, int64_t cols, FkDelta *delta,
                       GError **error) {
  *delta = (FkDelta){.kind = FK_DELTA_FULL, .part = {t}, .scale = 1};
  if (cols > 1) return check_shape(f, t, rows, cols, error);
  if (t->rank == 1 && t->dim[0] == rows) return true;
  g_autofree char *found = fk_st_shape_text(t->dim, t->rank);
  return fail(f, FK_ERROR_MODEL_MISMATCH, t->name, error, "expected shape [%" G_GINT64_FORMAT "], found %s", rows,
              found);
}

/* Finds out which kind the module has, which must be one. */
static bool check_kind(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  bool product, hada_1, hada_2, lokr = false;
  if (!both(f, g, FK_SLOT_UP, FK_SLOT_DOWN, &product, error) ||
      !both(f, g, FK_SLOT_HADA_W1A, FK_SLOT_HADA_W1B, &hada_1, error) ||
      !both(f, g, FK_SLOT_HADA_W2A, FK_SLOT_HADA_W2B, &hada_2, error))
    return false;
  for (int i = FK_SLOT_LOKR_W1; i <= FK_SLOT_LOKR_W2B; i++) lokr |= g->slot[i] != NULL;
  const bool diff = g->slot[FK_SLOT_DIFF], bias = g->slot[FK_SLOT_DIFF_BIAS];
  if (hada_1 != hada_2) return fail(f, FK_ERROR_MODEL_BAD, g->stem, error, "one half of a LoHa is missing");
  if (product + hada_1 + lokr + diff > 1)
    return fail(f, FK_ERROR_MODEL_BAD, g->stem, error, "changes of two kinds for one module");
  g->changes_weight = product || hada_1 || lokr || diff;
  if (!g->changes_weight && !bias)
    return fail(f, FK_ERROR_MODEL_BAD, g->stem, error, "nothing but what belongs to an adapter's weights");
  if (product) return check_product(f, g, error);
  if (hada_1) return check_hadamard(f, g, error);
  if (lokr) return check_kronecker(f, g, error);
  return !diff || check_full(f, g->slot[FK_SLOT_DIFF], g->module->rows, g->module->cols, &g->weight, error);
}

/* ---- Scale ---- */

static bool read_alpha(const FkLoraFile *f, const FkStTensor *t, double *alpha, GError **error) {
  FkDtype type;
  float value;
  const bool plain = fk_st_type_usable(t, &type) && type != FK_E4M3;
  if (!plain || t->bytes != fk_dtype_size(type)) {
    g_autofree char *found = fk_st_shape_text(t->dim, t->rank);
    return fail(f, FK_ERROR_MODEL_BAD, t->name, error, "expected one number of F32, F16 or BF16, found %s of shape %s",
                fk_st_type_name(t), found);
  }
  if (!fk_delta_numbers(f->file, t, 0, 1, &value, error)) return false;
  *alpha = (double)value;
  return (isfinite(value) && value > 0) ||
         fail(f, FK_ERROR_MODEL_BAD, t->name, error, "expected a positive number, found %g", (double)value);
}

/* A member of peft's metadata, whose names begin with the part's: "transformer.lora_alpha". */
static const FkJsonNode *metadata(const FkLoraFile *f, const FkLoraGroup *g, const char *name) {
  static const char *const parts[FK_PARTS] = {"text_encoder", "text_encoder_2", "transformer", "vae"};
  g_autofree char *key = g_strconcat(parts[g->module->part], ".", name, NULL);
  return f->metadata ? fk_json_member(fk_json_root(f->metadata), key) : NULL;
}

/* peft's alpha of the module: of a pattern that its name ends with, else the common one; NULL: none. */
static const FkJsonNode *metadata_alpha(const FkLoraFile *f, const FkLoraGroup *g) {
  const FkJsonNode *patterns = metadata(f, g, "alpha_pattern");
  const char *name = g->module->name;
  if (patterns && patterns->kind == FK_JSON_OBJECT)
    for (const FkJsonNode *it = fk_json_first(patterns); it; it = fk_json_after(patterns, it)) {
      const char *key = it->key + (*it->key == '^');
      const size_t n = strlen(key), all = strlen(name);
      if (n <= all && !strcmp(name + all - n, key) && (n == all || name[all - n - 1] == '.')) return it;
    }
  return metadata(f, g, "lora_alpha");
}

/* alpha / rank; 1 where the file has no alpha, and of a Kronecker product of two whole matrices. */
static bool find_scale(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  const FkDelta *d = &g->weight;
  const FkStTensor *ranked = d->kind == FK_DELTA_KRONECKER && d->part[3] ? d->part[3] : d->part[1];
  const FkStTensor *tensor = g->slot[FK_SLOT_ALPHA];
  double alpha = 0;
  g->weight.scale = 1;
  if (tensor && !read_alpha(f, tensor, &alpha, error)) return false;
  const FkJsonNode *node = tensor ? NULL : metadata_alpha(f, g), *root = metadata(f, g, "use_rslora");
  if (node) {
    alpha = node->kind == FK_JSON_NUMBER ? fk_json_double(node) : 0;
    g_autofree char *found = fk_json_shown(node);
    if (!isfinite(alpha) || alpha <= 0)
      return fail(f, FK_ERROR_MODEL_BAD, g->stem, error, "lora_adapter_metadata: expected a positive alpha, found %s",
                  found);
  }
  if (alpha <= 0 || !ranked) return true;
  const double rank = (double)ranked->dim[0];
  g->weight.scale = alpha / (node && root && root->kind == FK_JSON_TRUE ? sqrt(rank) : rank);
  return true;
}

/* ---- What stands beside the weights ---- */

/* One number for each row, [rows], [rows, 1]; or for each column, [1, cols]. */
static bool check_magnitude(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  const FkStTensor *t = g->slot[FK_SLOT_MAGNITUDE];
  const FkLoraModule *m = g->module;
  int64_t r = 0, c = 1;
  if (!t) return true;
  if (!g->changes_weight || g->weight.kind == FK_DELTA_FULL)
    return fail(f, FK_ERROR_MODEL_BAD, t->name, error, "magnitudes without a product to decompose");
  const bool vector = t->rank == 1 && (r = t->dim[0], true);
  if ((vector || matrix(t, &r, &c)) && ((r == m->rows && c == 1) || (r == 1 && c == m->cols))) {
    g->weight.magnitude = t;
    return true;
  }
  g_autofree char *found = fk_st_shape_text(t->dim, t->rank);
  return fail(f, FK_ERROR_MODEL_MISMATCH, t->name, error,
              "expected shape [%" G_GINT64_FORMAT ",1] or [1,%" G_GINT64_FORMAT "], found %s", m->rows, m->cols, found);
}

static bool check_bias(const FkLoraFile *f, FkLoraGroup *g, GError **error) {
  const FkStTensor *diff = g->slot[FK_SLOT_DIFF_BIAS], *up = g->slot[FK_SLOT_UP_BIAS], *t = diff ? diff : up;
  if (!t) return true;
  if (diff && up) return fail(f, FK_ERROR_MODEL_BAD, up->name, error, "changes of two kinds for one bias");
  if (up && !g->slot[FK_SLOT_UP]) return fail(f, FK_ERROR_MODEL_BAD, up->name, error, "a bias without its product");
  if (!check_full(f, t, g->module->rows, 1, &g->bias, error)) return false;
  if (up) g->bias.scale = g->weight.scale;
  return g->changes_bias = true;
}

/* Every number of the module's tensors is one. */
static bool check_numbers(const FkLoraFile *f, const FkLoraGroup *g, GError **error) {
  float block[NUMBERS];
  for (int i = 0; i < FK_SLOTS; i++) {
    const FkStTensor *t = g->slot[i];
    FkDtype type;
    if (!t) continue;
    if (!fk_st_type_usable(t, &type))
      return fail(f, FK_ERROR_MODEL_MISMATCH, t->name, error, "expected F32, F16, BF16 or F8_E4M3, found %s",
                  fk_st_type_name(t));
    const int64_t n = (int64_t)(t->bytes / fk_dtype_size(type));
    for (int64_t at = 0; at < n; at += NUMBERS) {
      const int64_t count = MIN(NUMBERS, n - at);
      if (!fk_delta_numbers(f->file, t, at, count, block, error)) return false;
      for (int64_t k = 0; k < count; k++)
        if (!isfinite(block[k]))
          return fail(f, FK_ERROR_MODEL_BAD, t->name, error, "number %" G_GINT64_FORMAT " is %g", at + k,
                      (double)block[k]);
    }
  }
  return true;
}

/* Numbers of all groups, by threads where there are many: errors[i] is of group i. */
typedef struct {
  const FkLoraFile *file;
  GError **errors;
} Numbers;

static void look_at_numbers(gpointer index, gpointer user_data) {
  const Numbers *n = user_data;
  const guint i = GPOINTER_TO_UINT(index) - 1; /* a pool takes no NULL */
  check_numbers(n->file, n->file->groups->pdata[i], &n->errors[i]);
}

static void look_at_all_numbers(const FkLoraFile *f, GError **errors) {
  Numbers numbers = {f, errors};
  uint64_t bytes = 0;
  for (size_t i = 0; i < fk_safetensors_count(f->file); i++) bytes += fk_safetensors_at(f->file, i)->bytes;
  const int threads = (int)MIN(MIN((uint64_t)g_get_num_processors(), THREADS), bytes / THREAD_BYTES);
  GThreadPool *pool = threads > 1 ? g_thread_pool_new(look_at_numbers, &numbers, threads, TRUE, NULL) : NULL;
  const bool shared = pool && g_thread_pool_get_num_threads(pool) > 0; /* exclusive: all have been started, or fewer */
  for (guint i = 1; i <= f->groups->len; i++)
    if (shared)
      g_thread_pool_push(pool, GUINT_TO_POINTER(i), NULL);
    else
      look_at_numbers(GUINT_TO_POINTER(i), &numbers);
  if (pool) g_thread_pool_free(pool, FALSE, TRUE);
}

static bool check_group(const FkLoraFile *f, FkLoraGroup *g, GError **numbers, GError **error) {
  if (!check_kind(f, g, error)) return false;
  if (*numbers) {
    g_propagate_error(error, g_steal_pointer(numbers));
    return false;
  }
  if (!find_scale(f, g, error) || !check_magnitude(f, g, error) || !check_bias(f, g, error)) return false;
  FkDelta *deltas[] = {&g->weight, &g->bias};
  for (int i = 0; i < 2; i++) {
    deltas[i]->file = f->file;
    deltas[i]->rows = g->module->rows;
    deltas[i]->cols = i ? 1 : g->module->cols;
  }
  return true;
}

/* No tensor of the model is changed by two modules of a file, under whatever names. */
static bool check_once(const FkLoraFile *f, GError **error) {
  g_autoptr(GHashTable) taken = g_hash_table_new(NULL, NULL); /* FkBound -> FkLoraGroup */
  for (guint i = 0; i < f->groups->len; i++) {
    FkLoraGroup *g = f->groups->pdata[i];
    for (int k = 0; k < g->module->n; k++) {
      const FkLoraGroup *other = g_hash_table_lookup(taken, g->module->piece[k]);
      if (other) {
        g_autofree char *name = fk_shown_name(other->stem);
        return fail(f, FK_ERROR_MODEL_BAD, g->stem, error, "the same weight as of \"%s\"", name);
      }
      g_hash_table_insert(taken, (gpointer)g->module->piece[k], g);
    }
  }
  return true;
}

static bool check_all(const FkLoraFile *f, GError **error) {
  g_autofree GError **numbers = g_new0(GError *, f->groups->len);
  bool ok = true;
  look_at_all_numbers(f, numbers);
  for (guint i = 0; ok && i < f->groups->len; i++) ok = check_group(f, f->groups->pdata[i], &numbers[i], error);
  for (guint i = 0; i < f->groups->len; i++) g_clear_error(&numbers[i]);
  return ok && check_once(f, error);
}

FkLoraFile *fk_lora_file_open(const char *path, const FkLoraNames *names, GError **error) {
  g_autoptr(FkLoraFile) f = g_new0(FkLoraFile, 1);
  f->groups = g_ptr_array_new_with_free_func(free_group);
  f->file = fk_safetensors_open_within(path, MAX_HEADER, error);
  if (!f->file || !collect(f, names, error)) return NULL;
  const char *text = fk_safetensors_metadata(f->file, "lora_adapter_metadata");
  if (text) {
    g_autofree char *what = g_strconcat(fk_safetensors_path(f->file), ": lora_adapter_metadata", NULL);
    f->metadata = fk_json_parse(text, what, error);
    if (!f->metadata) return NULL;
  }
  return check_all(f, error) ? g_steal_pointer(&f) : NULL;
}

void fk_lora_file_free(FkLoraFile *f) {
  if (!f) return;
  fk_safetensors_free(f->file);
  fk_json_free(f->metadata);
  g_ptr_array_unref(f->groups);
  for (int i = 0; i < FK_LORA_SHOWN; i++) g_free(f->shown[i]);
  g_free(f);
}

/* ---- For people ---- */

/* What the slots of a module mean: bits of kinds. */
static const char *const kinds[] = {"LoRA", "LoHa", "LoKr", "differences", "DoRA"};

static int kind_of(int slot) {
  return slot <= FK_SLOT_DOWN                                ? 1 << 0
         : slot <= FK_SLOT_HADA_W2B                          ? 1 << 1
         : slot <= FK_SLOT_LOKR_W2B                          ? 1 << 2
         : slot == FK_SLOT_DIFF || slot == FK_SLOT_DIFF_BIAS ? 1 << 3
         : slot == FK_SLOT_MAGNITUDE                         ? 1 << 4
                                                             : 0;
}

char *fk_lora_file_describe(const FkSafetensors *file) {
  g_autoptr(GHashTable) stems = g_hash_table_new_full(fk_text_hash, g_str_equal, g_free, NULL);
  GString *s = g_string_new("adapters (loras)\n  kinds    ");
  int64_t least = INT64_MAX, most = 0;
  int found = 0, others = 0;
  const char *cannot = NULL;
  for (size_t i = 0; i < fk_safetensors_count(file); i++) {
    const FkStTensor *t = fk_safetensors_at(file, i);
    size_t bytes;
    bool control;
    const int slot = split(t->name, &bytes);
    if (!cannot) cannot = refused_kind(t->name, true, &control);
    others += slot < 0;
    if (slot < 0) continue;
    g_hash_table_add(stems, g_strndup(t->name, bytes));
    found |= kind_of(slot);
    if (slot != FK_SLOT_DOWN || t->rank < 1) continue;
    least = MIN(least, t->dim[0]);
    most = MAX(most, t->dim[0]);
  }
  for (size_t i = 0, n = 0; i < G_N_ELEMENTS(kinds); i++)
    if (found >> i & 1) g_string_append_printf(s, "%s%s", n++ ? ", " : "", kinds[i]);
  g_string_append_printf(s, "\n  modules  %u", g_hash_table_size(stems));
  if (most) g_string_append_printf(s, ", rank %" G_GINT64_FORMAT, least);
  if (most > least) g_string_append_printf(s, " to %" G_GINT64_FORMAT, most);
  if (others) g_string_append_printf(s, "; %d tensors are of none", others);
  if (cannot) g_string_append_printf(s, "\n  wrong    %s cannot be applied", cannot);
  g_string_append_c(s, '\n');
  return g_string_free(s, !found && !cannot);
}
