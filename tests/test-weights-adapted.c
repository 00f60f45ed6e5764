/* SPDX-License-Identifier: Apache-2.0 */
/* Adapters that a backend adds (FkOps.commit_adapted): whatever they were before, the bytes are those that the loader
 * makes itself; where memory has the file's numbers, these are not read again; a reload that failed is made up for. */
#include "adapted-reference.h"
#include "test-weights-specs.h"

static const Spec model[] = {
    {"brain.weight", "BF16", {70, 96}, 2}, {"wide.weight", "F32", {2100, 40}, 2},
    {"half.weight", "F16", {33, 64}, 2},   {"large.weight", "BF16", {2900, 3000}, 2},
    {"brain.bias", "F32", {70}, 1},        {"other.weight", "BF16", {9, 7}, 2},
};
/* "long": of more ranks than a kernel takes at a time, "small": of fewer columns than the matrix. */
static const Spec parts[] = {
    {"brain.up", "BF16", {70, 3}, 2},
    {"brain.down", "BF16", {3, 96}, 2},
    {"brain.long.up", "F32", {70, 67}, 2},
    {"brain.long.down", "F16", {67, 96}, 2},
    {"brain.small.down", "F32", {3, 50}, 2},
    {"brain.all", "F32", {70, 96}, 2},
    {"wide.up", "F16", {2100, 5}, 2},
    {"wide.down", "F32", {5, 40}, 2},
    {"half.up", "F32", {33, 4}, 2},
    {"half.down", "F32", {4, 64}, 2},
    {"large.up", "BF16", {2900, 2}, 2},
    {"large.down", "BF16", {2, 3000}, 2},
    {"bias", "F32", {70}, 1},
};

typedef struct {
  TestBackend *t;
  FkBinder *binder;
  FkWeight w[5];
  FkTensor bias;
  int added, in_place; /* calls of the slot */
} Side;

static FkComponent *files, *changes;
static Side *of_call;

static void commit_adapted(FkBackend *be, int buffer, void *to, FkDtype as, const FkAdapted *m) {
  TestBackend *t = be->priv;
  g_assert_true(t->thread == g_thread_self());
  g_assert_cmpuint(fk_adapted_begin(m) + fk_adapted_right(m) + (size_t)(m->rows * fk_adapted_ranks(m)) * sizeof(float),
                   <=, t->buffer_size[buffer]);
  of_call->added++;
  of_call->in_place += m->in_place;
  if (++t->commits == t->fail_commit)
    fk_backend_fail(be, FK_FAIL_DEVICE, "a sum failed on purpose");
  else
    adapted_reference(to, as, t->buffer[buffer], m);
}

static void open_side(Side *s, bool adds) {
  *s = (Side){.t = backend_new(true)};
  if (adds) s->t->ops.commit_adapted = commit_adapted;
  s->binder = binder_of(s->t, NULL, files, &plain);
  int64_t n = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(model); i++)
    if (model[i].rank == 2)
      fk_bind_matrix(s->binder, &s->w[n++], FK_ROLE_QKV, model[i].dim[0], model[i].dim[1], "%s", model[i].name);
    else
      fk_bind_vector(s->binder, &s->bias, model[i].dim[0], "%s", model[i].name);
  g_autoptr(GError) error = NULL;
  fk_binder_finish(s->binder, &error);
  g_assert_no_error(error);
}

static void close_side(Side *s) {
  fk_binder_free(s->binder);
  backend_free(s->t);
}

static const FkStTensor *part(const char *name) {
  const FkStTensor *t = fk_safetensors_find(fk_component_shard(changes, 0), name);
  g_assert_nonnull(t);
  return t;
}

static void add(GHashTable *changed, const char *name, FkDelta d) {
  const FkBound *bound = fk_binder_find(of_call->binder, name);
  GArray *deltas = g_hash_table_lookup(changed, name);
  if (!deltas) g_hash_table_insert(changed, (gpointer)name, deltas = g_array_new(FALSE, TRUE, sizeof(FkDelta)));
  d.file = fk_component_shard(changes, 0);
  d.rows = bound->rows;
  d.cols = bound->cols;
  g_array_append_val(deltas, d);
}

static FkDelta product(const char *up, const char *down, double weight, double scale) {
  return (FkDelta){.part = {part(up), part(down)}, .weight = weight, .scale = scale};
}

enum { NONE, ONE, TWO, MIXED, LISTS };

/* (transfer full) */
static GHashTable *changes_of(int list) {
  GHashTable *changed = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)g_array_unref);
  if (list == NONE) return changed;
  add(changed, "brain.weight", product("brain.up", "brain.down", 0.7, 0.3));
  add(changed, "wide.weight", product("wide.up", "wide.down", 1, 0.1));
  add(changed, "half.weight", product("half.up", "half.down", -0.3, 1));
  add(changed, "large.weight", product("large.up", "large.down", 0.01, 0.5));
  if (list == ONE) return changed;
  FkDelta second = product("brain.long.up", "brain.long.down", 0.2, 0.01);
  second.swap = true;
  add(changed, "brain.weight", second);
  add(changed, "brain.weight", product("brain.up", "brain.small.down", 1.5, 1));
  add(changed, "brain.bias", (FkDelta){.kind = FK_DELTA_FULL, .part = {part("bias")}, .weight = 1, .scale = 1});
  if (list == TWO) return changed;
  add(changed, "brain.weight",
      (FkDelta){.kind = FK_DELTA_FULL, .part = {part("brain.all")}, .weight = 0.1, .scale = 1});
  return changed;
}

/* Exchanges what the model holds. False with an error that was made on purpose. */
static bool exchange(Side *s, GHashTable *now, bool load, GError **error) {
  g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
  for (size_t i = 0; i < G_N_ELEMENTS(model); i++)
    if (strcmp(model[i].name, "other.weight")) g_hash_table_add(names, (gpointer)model[i].name);
  of_call = s;
  s->added = s->in_place = 0;
  fk_binder_adapt(s->binder, now);
  return load ? fk_binder_load(s->binder, NULL, NULL, NULL, error)
              : fk_binder_reload(s->binder, names, NULL, NULL, NULL, error);
}

static void same_bytes(const Side *a, const Side *b) {
  for (size_t i = 0; i < G_N_ELEMENTS(a->w); i++) {
    const size_t n = (size_t)(a->w[i].out * a->w[i].in) * fk_dtype_size(a->w[i].dtype);
    g_assert_true(a->w[i].data != b->w[i].data);
    g_assert_cmpmem(a->w[i].data, n, b->w[i].data, n);
  }
  g_assert_cmpmem(a->bias.data, 70 * sizeof(float), b->bias.data, 70 * sizeof(float));
}

/* Each list behind each other one. */
static void exchanged(void) {
  static const int order[] = {NONE, ONE, TWO, ONE, MIXED, NONE, TWO, MIXED, ONE, NONE};
  Side host, device;
  int before = NONE;
  open_side(&host, false);
  open_side(&device, true);
  for (size_t i = 0; i < G_N_ELEMENTS(order); i++) {
    g_autoptr(GError) error = NULL;
    of_call = &host;
    g_autoptr(GHashTable) now = changes_of(order[i]);
    g_assert_true(exchange(&host, now, i == 0, &error) && host.added == 0);
    g_assert_true(exchange(&device, now, i == 0, &error));
    same_bytes(&host, &device);
    /* "large" is two chunks at least; "half" and "wide" are not of memory's type */
    g_assert_cmpint(device.added, >=, order[i] == NONE ? 0 : order[i] == MIXED ? 4 : 5);
    g_assert_true(order[i] != NONE || device.added == 0);
    g_assert_cmpint(device.in_place > 0, ==, i > 0 && before == NONE && order[i] != NONE);
    g_assert_true(!device.in_place || device.in_place == device.added - 2);
    before = order[i];
  }
  close_side(&host);
  close_side(&device);
}

/* At loading too. */
static void loaded(void) {
  Side host, device;
  g_autoptr(GError) error = NULL;
  open_side(&host, false);
  open_side(&device, true);
  of_call = &host;
  g_autoptr(GHashTable) now = changes_of(TWO);
  g_assert_true(exchange(&host, now, true, &error) && exchange(&device, now, true, &error));
  g_assert_true(device.added > 0 && device.in_place == 0);
  same_bytes(&host, &device);
  close_side(&host);
  close_side(&device);
}

/* What memory has after a failure is not known: the next exchange reads the numbers. */
static void failed(void) {
  Side host, device;
  g_autoptr(GError) error = NULL;
  open_side(&host, false);
  open_side(&device, true);
  of_call = &host;
  g_autoptr(GHashTable) none = changes_of(NONE), one = changes_of(ONE);
  g_assert_true(exchange(&host, none, true, &error) && exchange(&device, none, true, &error));
  for (int fail = 1; fail <= 4; fail++) {
    device.t->commits = 0;
    device.t->fail_commit = fail;
    g_assert_false(exchange(&device, one, false, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_DEVICE);
    g_clear_error(&error);
    fk_backend_clear(&device.t->be);
    device.t->fail_commit = 0;
    g_assert_true(exchange(&host, one, false, &error) && exchange(&device, one, false, &error));
    g_assert_cmpint(device.in_place, ==, 0);
    same_bytes(&host, &device);
    g_assert_true(exchange(&host, none, false, &error) && exchange(&device, none, false, &error));
    same_bytes(&host, &device);
  }
  close_side(&host);
  close_side(&device);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  write_specs("model/model.safetensors", model, G_N_ELEMENTS(model));
  write_specs("changes/model.safetensors", parts, G_N_ELEMENTS(parts));
  files = open_part("model");
  changes = open_part("changes");
  g_test_add_func("/weights-adapted/exchanged", exchanged);
  g_test_add_func("/weights-adapted/loaded", loaded);
  g_test_add_func("/weights-adapted/failed", failed);
  const int status = g_test_run();
  fk_component_free(files);
  fk_component_free(changes);
  scratch_close();
  return status;
}
