/* SPDX-License-Identifier: Apache-2.0 */
/* What the matrix products of edits see (fk_layers_* of fk.h): an observer of the engine's backend that measures their
 * inputs on the host, and makes some of the products a second time there, from numbers and from codes.
 * Not here: what follows from it for an engine (calibration.c). */
#include "layers.h"

#include "number.h"
#include "plan.h"

#include <math.h>
#include <string.h>

enum { SAMPLE_ROWS = 32, SAMPLE_EVERY = 9 }; /* rows of a product made twice, and which evaluations have one */

#define CONSTANT 1e-12 /* of the squares: below, all rows are equal, and what is left is the sums' rounding */
#define MEAN_LIMIT 5.0 /* RMS from which a column's mean is worth taking off before codes are made */

/* Bytes of the names' beginning that all of them share, up to and with a dot. */
static size_t common_length(const GPtrArray *names) {
  size_t dot = 0;
  const char *first = names->pdata[0];
  for (size_t i = 0; first[i]; i++) {
    for (guint k = 1; k < names->len; k++)
      if (((const char *)names->pdata[k])[i] != first[i]) return dot;
    if (first[i] == '.') dot = i + 1;
  }
  return names->len > 1 ? dot : 0;
}

static int by_first(gconstpointer a, gconstpointer b) {
  const FkBound *x = *(const FkBound *const *)a, *y = *(const FkBound *const *)b;
  return x->first < y->first ? -1 : x->first > y->first;
}

/* "transformer_blocks.0.attn.to_k+to_v+to_q" of the tensors that are one weight, in the order of its rows. */
static void write_name(char *to, size_t size, GPtrArray *bounds) {
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GString) text = g_string_new(NULL);
  g_ptr_array_sort(bounds, by_first);
  for (guint i = 0; i < bounds->len; i++) {
    const char *name = ((const FkBound *)bounds->pdata[i])->name;
    const size_t length = strlen(name) - (g_str_has_suffix(name, ".weight") ? strlen(".weight") : 0);
    g_ptr_array_add(names, g_strndup(name, length));
  }
  const size_t shared = common_length(names);
  g_string_append_len(text, names->pdata[0], (gssize)shared);
  for (guint i = 0; i < names->len; i++)
    g_string_append_printf(text, "%s%s", i ? "+" : "", (const char *)names->pdata[i] + shared);
  g_strlcpy(to, text->str, size);
}

static int by_place(gconstpointer a, gconstpointer b) {
  const FkBound *x = *(const FkBound *const *)a, *y = *(const FkBound *const *)b;
  return x->place < y->place ? -1 : x->place > y->place;
}

GPtrArray *fk_layers_list(const FkModel *model) {
  static const FkPart parts[] = {FK_PART_T5, FK_PART_FLUX};
  GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
  for (size_t p = 0; p < G_N_ELEMENTS(parts); p++) {
    g_autoptr(GPtrArray) bounds = fk_binder_all(model->part[parts[p]].binder);
    g_ptr_array_sort(bounds, by_place); /* the tensors of one weight follow each other */
    for (guint i = 0, next; i < bounds->len; i = next) {
      const FkBound *b = bounds->pdata[i];
      g_autoptr(GPtrArray) same = g_ptr_array_new();
      for (next = i; next < bounds->len; next++) {
        const FkBound *other = bounds->pdata[next];
        if (next > i && (!b->weight || other->weight != b->weight)) break;
        g_ptr_array_add(same, (gpointer)other);
      }
      if (!b->weight || b->role == FK_ROLES) continue;
      FkNamedLayer *layer = g_new0(FkNamedLayer, 1);
      layer->weight = b->weight;
      layer->role = (FkRole)b->role;
      write_name(layer->name, sizeof layer->name, same);
      g_ptr_array_add(list, layer);
    }
  }
  return list;
}

/* ---- One layer ---- */

typedef struct {
  const FkNamedLayer *named; /* (transfer none) */
  int64_t calls, rows, blocks;
  double amax, squares, peaks, peak_most, block_peaks;
  double *sums;        /* [in], of columns; NULL: not seen yet */
  double wrong, right; /* squares of products made twice: of their differences, and of them */
  int64_t codes, saturated, zeros, numbers;
} Layer;

struct FkLayers {
  FkObserver observer; /* first: it is found by it */
  FkEngine *engine;
  FkBackend *cpu; /* that makes products twice */
  GPtrArray *named;
  Layer *layers; /* [named->len] */
  int edits;
  GError *error; /* the first one inside an edit */
};

static void fail(FkLayers *all, FkError code, const char *text) {
  if (!all->error) all->error = g_error_new_literal(FK_ERROR, code, text);
}

/* n bytes; NULL: marked. */
static void *take(FkLayers *all, size_t bytes) {
  void *memory = g_try_malloc(bytes);
  if (!memory) fail(all, FK_ERROR_MEMORY, "layers: no memory for the operands of a product on the host");
  return memory;
}

/* Elements of a tensor, holes included, in host memory: its own on the CPU, else a copy, which *copy is to free. */
static const void *host_data(FkLayers *all, FkBackend *be, const void *data, size_t bytes, void **copy) {
  *copy = NULL;
  if (be->ops == &fk_cpu_ops) return data;
  *copy = take(all, bytes);
  if (*copy) be->ops->download(be, *copy, data, bytes);
  return *copy;
}

static void widen(float *to, const void *from, FkDtype dtype, int64_t first, int64_t n) {
  if (dtype == FK_F32)
    memcpy(to, (const float *)from + first, (size_t)n * sizeof *to);
  else
    for (int64_t i = 0; i < n; i++) to[i] = fk_bf16_to_f32(((const uint16_t *)from)[first + i]);
}

/* ---- Inputs ---- */

static double peak_of(double amax, double squares, int64_t n) {
  return squares > 0 ? amax / sqrt(squares / (double)n) : 0;
}

/* One row of the input into the sums. */
static void add_row(Layer *l, const float *x, int64_t n) {
  double most = 0, squares = 0;
  for (int64_t first = 0; first < n; first += FK_QUANT_BLOCK) {
    const int64_t end = MIN(first + FK_QUANT_BLOCK, n);
    float block_most = 0;
    double block_squares = 0;
    for (int64_t c = first; c < end; c++) {
      block_most = fmaxf(block_most, fabsf(x[c]));
      block_squares += (double)x[c] * (double)x[c];
      l->sums[c] += (double)x[c];
    }
    l->block_peaks += peak_of((double)block_most, block_squares, end - first);
    l->blocks++;
    most = fmax(most, (double)block_most);
    squares += block_squares;
  }
  const double peak = peak_of(most, squares, n);
  l->amax = fmax(l->amax, most);
  l->squares += squares;
  l->peaks += peak;
  l->peak_most = fmax(l->peak_most, peak);
  l->rows++;
}

static void add_rows(Layer *l, FkTensor x, const void *data, float *row) {
  const int64_t rows = fk_tensor_rows(x), n = fk_tensor_cols(x);
  for (int64_t r = 0; r < rows; r++) {
    widen(row, data, x.dtype, r * x.ld, n);
    add_row(l, row, n);
  }
}

/* ---- Products made twice ---- */

/* Operands in float32 and in codes, and both results. */
typedef struct {
  int64_t rows;
  float *x, *w, *y, *y_codes, *x_scale, *w_scale, *bias;
  uint8_t *x_codes, *w_codes;
} Twice;

static void clear_twice(Twice *t) {
  float *const numbers[] = {t->x, t->w, t->y, t->y_codes, t->x_scale, t->w_scale, t->bias};
  for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) g_free(numbers[i]);
  g_free(t->x_codes);
  g_free(t->w_codes);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Twice, clear_twice)

static bool take_twice(FkLayers *all, Twice *t, int64_t rows, int64_t out, int64_t in) {
  const size_t f = sizeof(float), m = (size_t)rows, n = (size_t)out, k = (size_t)in;
  t->rows = rows;
  return (t->x = take(all, m * k * f)) && (t->w = take(all, n * k * f)) && (t->y = take(all, m * n * f)) &&
         (t->y_codes = take(all, m * n * f)) && (t->x_scale = take(all, m * f)) && (t->w_scale = take(all, n * f)) &&
         (t->bias = take(all, n * f)) && (t->x_codes = take(all, m * k)) && (t->w_codes = take(all, n * k));
}

static void count_codes(Layer *l, const Twice *t, int64_t in) {
  for (int64_t i = 0; i < t->rows * in; i++) {
    const int size = t->x_codes[i] & 0x7f;
    l->codes++;
    l->saturated += size == 0x7e;
    l->numbers += fk_float_bits(t->x[i]) << 1 != 0;
    l->zeros += size == 0 && fk_float_bits(t->x[i]) << 1 != 0;
  }
}

static void multiply_twice(FkBackend *cpu, Layer *l, const Twice *t, int64_t out, int64_t in) {
  const FkTensor x = fk_tensor_2d(t->x, FK_F32, t->rows, in), w = fk_tensor_2d(t->w, FK_F32, out, in);
  FkLinear numbers = {.x = x, .y = fk_tensor_2d(t->y, FK_F32, t->rows, out)};
  numbers.w = (FkWeight){.data = t->w, .dtype = FK_F32, .out = out, .in = in};
  FkLinear codes = {.x = fk_tensor_2d(t->x_codes, FK_E4M3, t->rows, in),
                    .x_scale = fk_tensor_1d(t->x_scale, FK_F32, t->rows),
                    .y = fk_tensor_2d(t->y_codes, FK_F32, t->rows, out)};
  codes.w = (FkWeight){.data = t->w_codes, .dtype = FK_E4M3, .out = out, .in = in};
  codes.w.scale = (FkScale){.data = t->w_scale, .dtype = FK_F32, .kind = FK_SCALE_ROW};
  fk_op_quantize(cpu, codes.x, codes.x_scale, x);
  fk_op_quantize(cpu, fk_tensor_2d(t->w_codes, FK_E4M3, out, in), fk_tensor_1d(t->w_scale, FK_F32, out), w);
  fk_op_linear(cpu, NULL, &numbers, 1);
  fk_op_linear(cpu, NULL, &codes, 1);
  for (int64_t i = 0; i < t->rows * out; i++) {
    const double right = (double)t->y[i] + (double)t->bias[i % out], wrong = (double)t->y_codes[i] - (double)t->y[i];
    l->right += right * right;
    l->wrong += wrong * wrong;
  }
  count_codes(l, t, in);
}

static void add_product(FkLayers *all, Layer *layer, FkBackend *be, const FkLinear *l, const void *data) {
  const int64_t rows = fk_tensor_rows(l->x), in = l->w.in, out = l->w.out;
  g_auto(Twice) t = {0};
  g_autofree void *copy = NULL;
  if (!take_twice(all, &t, MIN(rows, SAMPLE_ROWS), out, in)) return;
  const void *w = host_data(all, be, l->w.data, (size_t)(out * in) * fk_dtype_size(l->w.dtype), &copy);
  if (!w) return;
  for (int64_t i = 0; i < t.rows; i++) widen(t.x + i * in, data, l->x.dtype, i * rows / t.rows * l->x.ld, in);
  widen(t.w, w, l->w.dtype, 0, out * in);
  memset(t.bias, 0, (size_t)out * sizeof *t.bias);
  if (fk_tensor_given(l->bias)) fk_op_download(be, t.bias, l->bias);
  multiply_twice(all->cpu, layer, &t, out, in);
}

/* ---- The observer ---- */

/* (nullable) The layer whose memory, or whose rows of it, a product reads. */
static Layer *find(const FkLayers *all, const FkWeight *w) {
  for (guint i = 0; i < all->named->len; i++) {
    const FkWeight *own = all->layers[i].named->weight;
    const char *begin = own->data;
    if (!begin || own->in != w->in || own->dtype != w->dtype) continue;
    if ((const char *)w->data >= begin &&
        (const char *)w->data < begin + (size_t)(own->out * own->in) * fk_dtype_size(own->dtype))
      return &all->layers[i];
  }
  return NULL;
}

static void observe(FkObserver *observer, FkBackend *be, const FkLinear *l) {
  FkLayers *all = (FkLayers *)observer;
  if (all->error || be->failure || !fk_tensor_rows(l->x)) return;
  const FkModelPart *part = all->engine->model->part;
  if (fk_store_streams(fk_binder_store(part[FK_PART_FLUX].binder)) ||
      fk_store_streams(fk_binder_store(part[FK_PART_T5].binder))) {
    fail(all, FK_ERROR_MEMORY, "layers: weights stream (offload=sequential), and cannot be measured");
    return;
  }
  Layer *layer = find(all, &l->w);
  if (!layer) return; /* of another part */
  const int64_t rows = fk_tensor_rows(l->x);
  const size_t span = (size_t)((rows - 1) * l->x.ld + l->w.in) * fk_dtype_size(l->x.dtype);
  g_autofree void *copy = NULL;
  g_autofree float *row = take(all, (size_t)l->w.in * sizeof *row);
  const void *data = row ? host_data(all, be, l->x.data, span, &copy) : NULL;
  if (!data) return;
  if (!layer->sums) layer->sums = g_new0(double, (size_t)l->w.in);
  add_rows(layer, l->x, data, row);
  if (layer->calls++ % SAMPLE_EVERY == 0) add_product(all, layer, be, l, data);
}

/* ---- The interface ---- */

FkLayers *fk_layers_new(FkEngine *engine, GError **error) {
  char message[256];
  FkFailure failure;
  if (engine->plan.quantization != FK_QUANTIZATION_NONE ||
      engine->plan.text_quantization != FK_TEXT_QUANTIZATION_NONE ||
      engine->plan.modulation_quantization != FK_MODULATION_QUANTIZATION_NONE) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "layers are measured where nothing is quantised: expected quantization=none, "
                        "text-quantization=none and modulation-quantization=none");
    return NULL;
  }
  FkBackend *cpu = fk_backend_open("cpu", 0, engine->plan.threads, &failure, message, sizeof message);
  if (!cpu) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "layers: %s", message);
    return NULL;
  }
  FkLayers *all = g_new0(FkLayers, 1);
  all->observer.linear = observe;
  all->engine = fk_engine_ref(engine);
  all->cpu = cpu;
  all->named = fk_layers_list(engine->model);
  all->layers = g_new0(Layer, all->named->len);
  for (guint i = 0; i < all->named->len; i++) all->layers[i].named = all->named->pdata[i];
  return all;
}

void fk_layers_free(FkLayers *all) {
  if (!all) return;
  for (guint i = 0; i < all->named->len; i++) g_free(all->layers[i].sums);
  g_free(all->layers);
  g_ptr_array_unref(all->named);
  g_clear_error(&all->error);
  fk_backend_close(all->cpu);
  fk_engine_unref(all->engine);
  g_free(all);
}

bool fk_layers_edit(FkLayers *all, FkJob *jobs, int n, GCancellable *cancellable, GError **error) {
  if (!fk_engine_edit_observed(all->engine, &all->observer, jobs, n, cancellable, NULL, NULL, error)) return false;
  all->edits += n;
  if (!all->error) return true;
  g_propagate_error(error, g_steal_pointer(&all->error));
  return false;
}

const FkEngine *fk_layers_source(const FkLayers *all, int *edits) {
  *edits = all->edits;
  return all->engine;
}

static void fill_means(FkLayerRow *row, const Layer *l) {
  double of_means = 0, most = 0;
  for (int64_t c = 0; c < row->in; c++) {
    const double mean = l->sums[c] / (double)l->rows;
    of_means += mean * mean;
    most = fmax(most, fabs(mean));
  }
  const double all = l->squares / (double)l->rows, less = all - of_means;
  const double rest = less > CONSTANT * all ? sqrt(less / (double)row->in) : 0;
  row->mean = rest > 0 ? most / rest : (double)NAN;
  for (int64_t c = 0; c < row->in && rest > 0; c++)
    row->mean_columns += fabs(l->sums[c]) / (double)l->rows > MEAN_LIMIT * rest;
}

static void fill_row(FkLayerRow *row, const Layer *l) {
  *row = (FkLayerRow){.role = fk_plan_role((int)l->named->role),
                      .out = l->named->weight->out,
                      .in = l->named->weight->in,
                      .evaluations = l->calls,
                      .rows = l->rows,
                      .amax = l->amax,
                      .rms = sqrt(l->squares / (double)(l->rows * l->named->weight->in)),
                      .peak = l->peaks / (double)l->rows,
                      .peak_most = l->peak_most,
                      .peak_block = l->block_peaks / (double)l->blocks,
                      .saturated = (double)l->saturated / (double)l->codes,
                      .zeros = (double)l->zeros / (double)l->numbers,
                      .error = sqrt(l->wrong / l->right)};
  g_strlcpy(row->name, l->named->name, sizeof row->name);
  fill_means(row, l);
}

FkLayerRow *fk_layers_rows(const FkLayers *all, size_t *count) {
  FkLayerRow *rows = g_new0(FkLayerRow, all->named->len + 1);
  *count = 0;
  for (guint i = 0; i < all->named->len; i++)
    if (all->layers[i].calls) fill_row(&rows[(*count)++], &all->layers[i]);
  return rows;
}
