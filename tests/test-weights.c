/* SPDX-License-Identifier: Apache-2.0 */
/* Components, binder and loader: what a model asks for arrives bit by bit as the files have it, and what does not fit
 * is refused by name. Two backends of the test's own stand for the CPU (host memory) and for a GPU (stage and commit).
 */
#define _POSIX_C_SOURCE 200809L
#include "test-weights-specs.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const Spec small[] = {
    {"m", "F32", {3, 5}, 2},
    {"h", "F16", {7, 3}, 2},
    {"b", "BF16", {2, 9}, 2},
    {"conv", "BF16", {4, 3, 3, 3}, 4},
    {"conv32", "F32", {2, 5, 3, 3}, 4},
    {"conv16", "F16", {3, 2, 1, 1}, 4},
    {"v", "F16", {5}, 1},
    {"p.q.weight", "BF16", {4, 6}, 2},
    {"p.q.bias", "BF16", {4}, 1},
    {"k.weight", "F32", {2, 6}, 2},
    {"k.bias", "F32", {2}, 1},
    {"old.name", "F32", {2}, 1},
    {"extra.1", "F64", {2}, 1},
    {"tied", "F32", {2}, 1},
};

typedef struct {
  FkWeight m, h, b, conv, conv32, conv16, stack;
  FkTensor v, stack_bias, alternative;
} Small;

/* "q" goes by another name here; "new.name" is there under two of three, of which one is a tied copy. */
static const FkNameRow small_rows[] = {{"q", "p.q", 0, 0, 0, FK_TRANSFORM_NONE},
                                       {"new.name", "new.name", 0, 0, 0, FK_TRANSFORM_NONE},
                                       {"new.name", "old.name", 0, 0, 0, FK_TRANSFORM_NONE},
                                       {"new.name", "tied", 0, 0, 0, FK_TRANSFORM_NONE}};
static const char *const small_ignored[] = {"extra.?", "tied", NULL};
static const FkNameTable small_names = {small_rows, G_N_ELEMENTS(small_rows), small_ignored};

static void bind_small(FkBinder *b, Small *s) {
  fk_bind_matrix(b, &s->m, FK_ROLE_CLIP, 3, 5, "m");
  fk_bind_matrix(b, &s->h, FK_ROLE_CLIP, 7, 3, "%c", 'h');
  fk_bind_matrix(b, &s->b, FK_ROLE_CLIP, 2, 9, "b");
  fk_bind_conv(b, &s->conv, 4, 3, 3, "conv");
  fk_bind_conv(b, &s->conv32, 2, 5, 3, "conv%d", 32);
  fk_bind_conv(b, &s->conv16, 3, 2, 1, "conv16");
  fk_bind_vector(b, &s->v, 5, "v");
  fk_bind_stack(b, &s->stack, &s->stack_bias, FK_ROLE_CLIP, 6, 2, (int64_t[]){2, 4}, (const char *const[]){"k", "q"});
  fk_bind_vector(b, &s->alternative, 2, "new.name");
}

static const Spec *spec_named(const char *name) {
  for (size_t i = 0; i < G_N_ELEMENTS(small); i++)
    if (!strcmp(small[i].name, name)) return &small[i];
  g_assert_not_reached();
}

static void assert_small(const Small *s, FkDtype dtype) {
  const struct {
    const FkWeight *w;
    const char *name;
  } weights[] = {{&s->m, "m"},       {&s->h, "h"},           {&s->b, "b"},
                 {&s->conv, "conv"}, {&s->conv32, "conv32"}, {&s->conv16, "conv16"}};
  for (size_t i = 0; i < G_N_ELEMENTS(weights); i++) {
    const Spec *spec = spec_named(weights[i].name);
    g_assert_cmpint(weights[i].w->out, ==, spec->dim[0]);
    g_assert_cmpint(weights[i].w->in, ==, spec_count(spec) / spec->dim[0]);
    g_assert_cmpint((int)weights[i].w->dtype, ==, (int)dtype);
    g_assert_cmpuint((uintptr_t)weights[i].w->data % 256, ==, 0);
    assert_holds(weights[i].w->data, dtype, spec);
  }
  g_assert_cmpint(s->stack.out, ==, 6);
  g_assert_cmpint(s->stack.in, ==, 6);
  assert_holds(s->stack.data, dtype, spec_named("k.weight"));
  assert_holds(fk_weight_rows(s->stack, 2, 4).data, dtype, spec_named("p.q.weight"));
  g_assert_cmpint((int)s->v.dtype, ==, FK_F32);
  assert_holds(s->v.data, FK_F32, spec_named("v"));
  assert_holds(s->stack_bias.data, FK_F32, spec_named("k.bias"));
  assert_holds(fk_tensor_slice(s->stack_bias, 2, 4).data, FK_F32, spec_named("p.q.bias"));
  assert_holds(s->alternative.data, FK_F32, spec_named("old.name"));
}

static void test_round_trip(gconstpointer device) {
  write_specs("small/model.safetensors", small, G_N_ELEMENTS(small));
  g_autoptr(FkComponent) c = open_part("small");
  TestBackend *t = backend_new(device != NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkBinder) b = binder_of(t, NULL, c, &small_names);
  Small s;
  bind_small(b, &s);
  g_assert_null(s.m.data);
  g_assert_true(fk_binder_finish(b, &error));
  g_assert_cmpint(fk_binder_parameters(b), ==, 15 + 21 + 18 + 108 + 90 + 6 + 5 + 36 + 6 + 2);
  g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  g_assert_cmpuint(t->allocated, ==, fk_binder_bytes(b));
  assert_small(&s, t->be.dtype);
  fk_binder_release(b);
  g_assert_cmpint(t->live, ==, 0);
  g_assert_null(s.m.data);
  g_assert_null(s.v.data);
  g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error)); /* and again, wherever it is then */
  g_assert_no_error(error);
  assert_small(&s, t->be.dtype);
  g_clear_pointer(&b, fk_binder_free);
  backend_free(t);
}

/* Every half, and floats at and around the ties, through the loader. */
static void test_conversion(gconstpointer device) {
  g_autoptr(GByteArray) data = g_byte_array_new();
  for (guint32 i = 0; i < 65536; i++) g_byte_array_append(data, (const guint8 *)&(uint16_t){(uint16_t)i}, 2);
  for (guint32 i = 0; i < 65536; i++) {
    /* a bfloat16 pattern, and behind it less than a half, a half, or more; infinities and NaN have no neighbours */
    static const guint32 tails[] = {0, 0x7fff, 0x8000, 0x8001};
    guint32 bits = i << 16 | ((i >> 7 & 255) == 255 ? 0 : tails[i % 4]);
    g_byte_array_append(data, (const guint8 *)&bits, 4);
  }
  const char *header = "{\"h\":{\"dtype\":\"F16\",\"shape\":[256,256],\"data_offsets\":[0,131072]},"
                       "\"f\":{\"dtype\":\"F32\",\"shape\":[256,256],\"data_offsets\":[131072,393216]}}";
  g_free(write_safetensors("numbers/model.safetensors", header, data->data, data->len));
  g_autoptr(FkComponent) c = open_part("numbers");
  TestBackend *t = backend_new(false);
  t->be.dtype = device ? FK_BF16 : FK_F32; /* host memory in both, so that the loader itself converts */
  {
    g_autoptr(FkBinder) b = binder_of(t, NULL, c, &plain);
    FkWeight h, f;
    fk_bind_matrix(b, &h, FK_ROLE_CLIP, 256, 256, "h");
    fk_bind_matrix(b, &f, FK_ROLE_CLIP, 256, 256, "f");
    g_assert_true(fk_binder_finish(b, NULL));
    g_assert_true(fk_binder_load(b, NULL, NULL, NULL, NULL));
    for (guint32 i = 0; i < 65536; i++) {
      float half = f16_value((uint16_t)i), found = value_of(h.data, t->be.dtype, i);
      if (device && isfinite(half)) half = bf16_value(bf16_nearest(half));
      g_assert_true(isnan(half) ? isnan(found) : found == half && signbit(found) == signbit(half));
      float wide;
      memcpy(&wide, data->data + 131072 + 4 * i, 4);
      found = value_of(f.data, t->be.dtype, i);
      if (device && isfinite(wide)) wide = bf16_value(bf16_nearest(wide));
      g_assert_true(isnan(wide) ? isnan(found) : found == wide && signbit(found) == signbit(wide));
    }
  }
  backend_free(t);
}

/* Tensors of several chunks, with progress. */
static const Spec large[] = {
    {"conv", "F32", {600, 900, 3, 3}, 4}, {"m", "BF16", {4100, 4099}, 2}, {"h", "F16", {3000, 3001}, 2}};

static void bind_large(FkBinder *b, FkWeight w[3]) {
  fk_bind_conv(b, &w[0], 600, 900, 3, "conv");
  fk_bind_matrix(b, &w[1], FK_ROLE_CLIP, 4100, 4099, "m");
  fk_bind_matrix(b, &w[2], FK_ROLE_CLIP, 3000, 3001, "h");
}

static void test_large(gconstpointer device) {
  write_specs("large/model.safetensors", large, G_N_ELEMENTS(large));
  g_autoptr(FkComponent) c = open_part("large");
  TestBackend *t = backend_new(device != NULL);
  g_autoptr(FkBinder) b = binder_of(t, NULL, c, &plain);
  FkWeight w[3];
  Watch seen = {0};
  g_autoptr(GError) error = NULL;
  bind_large(b, w);
  g_assert_true(fk_binder_finish(b, &error));
  g_assert_true(fk_binder_load(b, NULL, watch, &seen, &error));
  g_assert_no_error(error);
  g_assert_cmpint(seen.last, ==, seen.total);
  g_assert_cmpint(seen.total, ==, (gint64)fk_binder_bytes(b));
  g_assert_cmpint(seen.calls, >, 4);
  for (int i = 0; i < 3; i++) assert_holds(w[i].data, t->be.dtype, &large[i]);
  g_clear_pointer(&b, fk_binder_free);
  backend_free(t);
}

/* ---- Failures while loading: told, nothing kept, and a second attempt works ---- */

typedef enum { FAIL_CANCEL, FAIL_CANCEL_EARLY, FAIL_MEMORY, FAIL_STAGE, FAIL_COMMIT, FAIL_SHORT_FILE } Failure;

static void fail_once(TestBackend *t, FkBinder *b, Failure failure, const char *path) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  Watch seen = {.cancel = failure == FAIL_CANCEL ? cancellable : NULL};
  struct stat status;
  g_assert_cmpint(stat(path, &status), ==, 0);
  t->stages = t->commits = 0;
  if (failure == FAIL_CANCEL_EARLY) g_cancellable_cancel(cancellable);
  if (failure == FAIL_MEMORY) t->refuse = true;
  if (failure == FAIL_STAGE) t->fail_stage = 3;
  if (failure == FAIL_COMMIT) t->fail_commit = 3;
  if (failure == FAIL_SHORT_FILE) g_assert_cmpint(truncate(path, status.st_size - 100), ==, 0);
  g_assert_false(fk_binder_load(b, cancellable, watch, &seen, &error));
  g_assert_cmpint(t->live, ==, 0);
  switch (failure) {
  case FAIL_CANCEL:
  case FAIL_CANCEL_EARLY: assert_error(error, FK_ERROR_CANCELLED, "transformer", "cancelled"); break;
  case FAIL_MEMORY: {
    g_autofree char *bytes = g_strdup_printf("transformer: an allocation of %zu bytes", fk_binder_bytes(b));
    assert_error(error, FK_ERROR_MEMORY, bytes, "a test machine was refused; 12345 are free");
    break;
  }
  case FAIL_STAGE: assert_error(error, FK_ERROR_DEVICE, "transformer", "no buffer"); break;
  case FAIL_COMMIT: assert_error(error, FK_ERROR_DEVICE, "transformer", "a copy failed on purpose"); break;
  case FAIL_SHORT_FILE: {
    g_autofree char *where = g_strdup_printf("ends at byte %d", (int)status.st_size - 100);
    assert_error(error, FK_ERROR_MODEL_BAD, "transformer: tensor \"h\": ", where);
    break;
  }
  }
  g_assert_cmpint(truncate(path, status.st_size), ==, 0);
  t->refuse = false;
  t->be.failure = FK_FAIL_NONE;
  t->fail_stage = t->fail_commit = 0;
}

static void test_failures(gconstpointer device) {
  write_specs("large/model.safetensors", large, G_N_ELEMENTS(large));
  g_autofree char *path = scratch_path("large/model.safetensors");
  TestBackend *t = backend_new(device != NULL);
  for (int failure = FAIL_CANCEL; failure <= FAIL_SHORT_FILE; failure++) {
    if (!device && (failure == FAIL_STAGE || failure == FAIL_COMMIT)) continue;
    g_autoptr(FkComponent) c = open_part("large");
    g_autoptr(FkBinder) b = binder_of(t, NULL, c, &plain);
    FkWeight w[3];
    bind_large(b, w);
    g_assert_true(fk_binder_finish(b, NULL));
    fail_once(t, b, (Failure)failure, path);
    g_assert_null(w[0].data);
    g_assert_true(fk_binder_load(b, NULL, NULL, NULL, NULL));
    assert_holds(w[1].data, t->be.dtype, &large[1]);
  }
  backend_free(t);
}

/* Leaves this process `more` bytes of memory; RLIM_INFINITY: what it likes. */
static void limit_memory(rlim_t more) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  g_assert_true(file && fscanf(file, "%lu", &pages) == 1);
  fclose(file);
  const rlim_t used = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
  const struct rlimit limit = {more == RLIM_INFINITY ? more : used + more, RLIM_INFINITY};
  g_assert_cmpint(setrlimit(RLIMIT_AS, &limit), ==, 0);
}

/* Where no thread can be started, because its stack does not fit: an error, and not the end of the application. In a
 * process of its own. */
static void test_no_threads(void) {
  if (g_test_subprocess()) {
    write_specs("small/model.safetensors", small, G_N_ELEMENTS(small));
    g_autoptr(FkComponent) c = open_part("small");
    TestBackend *t = backend_new(false);
    g_autoptr(FkBinder) b = binder_of(t, NULL, c, &small_names);
    g_autoptr(GError) error = NULL;
    Small s;
    bind_small(b, &s);
    g_assert_true(fk_binder_finish(b, NULL));
    limit_memory(2 << 20);
    const bool loaded = fk_binder_load(b, NULL, NULL, NULL, &error);
    limit_memory(RLIM_INFINITY); /* other threads of the process wait for memory */
    g_assert_false(loaded);
    assert_error(error, FK_ERROR_MEMORY, "transformer", "no thread can be started");
    g_assert_cmpint(t->live, ==, 0);
    _exit(0); /* GLib leaks what it had made for the thread */
  }
  g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
  g_test_trap_assert_passed();
}

/* ---- Checkpoints that do not fit ---- */

static void test_mismatch(void) {
  static const struct {
    Spec spec;
    const char *text_1, *text_2;
  } cases[] = {
      {{"m", "F32", {5, 3}, 2}, "tensor \"m\": expected shape [3,5], found [5,3]", "(in all 0 missing, 1 of another"},
      {{"m", "F32", {15}, 1}, "expected shape [3,5], found [15]", "bad/model.safetensors"},
      {{"m", "F32", {3, 5, 1, 1}, 4}, "expected shape [3,5], found [3,5,1,1]", "transformer: "},
      {{"m", "F64", {3, 5}, 2},
       "tensor \"m\": expected F32, F16, BF16 or F8_E4M3 or another type of weights, found F64",
       "transformer: "},
      {{"M", "F32", {3, 5}, 2}, "tensor \"m\" is missing", "(in all 1 missing, 0 of another shape or type, 1 unknown)"},
  };
  TestBackend *t = backend_new(false);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    Spec specs[G_N_ELEMENTS(small)];
    memcpy(specs, small, sizeof small);
    specs[0] = cases[i].spec;
    write_specs("bad/model.safetensors", specs, G_N_ELEMENTS(specs));
    g_autoptr(FkComponent) c = open_part("bad");
    g_autoptr(FkBinder) b = binder_of(t, NULL, c, &small_names);
    g_autoptr(GError) error = NULL;
    Small s;
    bind_small(b, &s);
    g_assert_false(fk_binder_finish(b, &error));
    assert_error(error, FK_ERROR_MODEL_MISMATCH, cases[i].text_1, cases[i].text_2);
  }
  /* A tensor too many; half of a stack; many at once: they are listed as far as there is room, and all are counted. */
  write_specs("bad/model.safetensors", small, G_N_ELEMENTS(small));
  g_autoptr(FkComponent) c = open_part("bad");
  g_autoptr(FkBinder) b = binder_of(t, NULL, c, &plain);
  g_autoptr(GError) error = NULL;
  FkWeight w;
  FkTensor v;
  fk_bind_stack(b, &w, &v, FK_ROLE_CLIP, 6, 2, (int64_t[]){2, 4}, (const char *const[]){"k", "q"});
  g_assert_false(fk_binder_finish(b, &error));
  assert_error(error, FK_ERROR_MODEL_MISMATCH, "tensor \"q.weight\" is missing",
               "(in all 2 missing, 0 of another shape or type, 12 unknown)");
  backend_free(t);
}

static void test_extra(void) {
  /* No set of characters: only '*' and '?'. */
  static const char *const ignored[] = {"[bhkopqtv]*", "*o*", "?", "k*", NULL};
  static const FkNameTable table = {NULL, 0, ignored};
  write_specs("extra/model.safetensors", small, G_N_ELEMENTS(small));
  TestBackend *t = backend_new(false);
  g_autoptr(FkComponent) c = open_part("extra");
  g_autoptr(FkBinder) b = binder_of(t, NULL, c, &table);
  g_autoptr(GError) error = NULL;
  FkWeight w;
  fk_bind_matrix(b, &w, FK_ROLE_CLIP, 3, 5, "m");
  g_assert_false(fk_binder_finish(b, &error));
  assert_error(error, FK_ERROR_MODEL_MISMATCH, "tensor \"p.q.weight\" of shape [4,6] is not part of the model",
               "(in all 0 missing, 0 of another shape or type, 4 unknown)");
  backend_free(t);
}

/* A long name in a message is cut between characters. */
static void test_long_name(void) {
  g_autoptr(GString) name = g_string_new("x"), part = g_string_new("tensor \"x");
  for (int i = 0; i < 100; i++) g_string_append(name, "\xc3\xa9");
  for (int i = 0; i < 59; i++) g_string_append(part, "\xc3\xa9");
  const Spec one = {name->str, "F32", {2}, 1};
  write_specs("long/model.safetensors", &one, 1);
  TestBackend *t = backend_new(false);
  g_autoptr(FkComponent) c = open_part("long");
  g_autoptr(FkBinder) b = binder_of(t, NULL, c, &plain);
  g_autoptr(GError) error = NULL;
  g_assert_false(fk_binder_finish(b, &error));
  assert_error(error, FK_ERROR_MODEL_MISMATCH, part->str, "...\" of shape [2] is not part of the model");
  backend_free(t);
}

/* ---- Index and shards ---- */

static void write_shards(const char *folder) {
  static const Spec one[] = {{"a", "F32", {2}, 1}, {"b", "F32", {2}, 1}}, two[] = {{"c", "F32", {2}, 1}};
  g_autofree char *first = g_strconcat(folder, "/one.safetensors", NULL);
  g_autofree char *second = g_strconcat(folder, "/two.safetensors", NULL);
  write_specs(first, one, 2);
  write_specs(second, two, 1);
}

static void test_index(void) {
  write_shards("sharded");
  g_free(write_text("sharded/model.safetensors.index.json",
                    "{\"metadata\":{\"total_size\":24},\"weight_map\":{\"a\":\"one.safetensors\","
                    "\"c\":\"two.safetensors\",\"b\":\"one.safetensors\"}}"));
  g_autoptr(FkComponent) c = open_part("sharded");
  g_assert_cmpuint(fk_component_shards(c), ==, 2);
  const FkSafetensors *shard;
  g_assert_nonnull(fk_component_find(c, "c", &shard));
  g_assert_true(g_str_has_suffix(fk_safetensors_path(shard), "/two.safetensors"));
  g_assert_null(fk_component_find(c, "d", &shard));
  TestBackend *t = backend_new(false);
  {
    g_autoptr(FkBinder) b = binder_of(t, NULL, c, &plain);
    FkTensor v[3];
    for (int i = 0; i < 3; i++) fk_bind_vector(b, &v[i], 2, "%c", 'a' + i);
    g_assert_true(fk_binder_finish(b, NULL));
    g_assert_true(fk_binder_load(b, NULL, NULL, NULL, NULL));
    for (int i = 0; i < 3; i++) {
      const char name[] = {(char)('a' + i), 0};
      assert_holds(v[i].data, FK_F32, &(Spec){name, "F32", {2}, 1});
    }
  }
  backend_free(t);
}

static void test_bad_index(void) {
#define MAP(entries) "{\"weight_map\":{" entries "}}"
#define AB "\"a\":\"one.safetensors\",\"b\":\"one.safetensors\","
  static const struct {
    const char *index;
    FkError code;
    const char *text_1, *text_2;
  } cases[] = {
      {"", FK_ERROR_MODEL_BAD, "index.json", "JSON"},
      {"[]", FK_ERROR_MODEL_BAD, "index.json", "expected a JSON object"},
      {"{", FK_ERROR_MODEL_BAD, "index.json", "found the end"},
      {"{}", FK_ERROR_MODEL_BAD, "weight_map", "expected an object"},
      {"{\"weight_map\":[]}", FK_ERROR_MODEL_BAD, "weight_map", "expected an object"},
      {MAP(""), FK_ERROR_MODEL_BAD, "weight_map", "expected an object"},
      {MAP("\"a\":1"), FK_ERROR_MODEL_BAD, "\"a\"", "name of a file"},
      {MAP("\"a\":null"), FK_ERROR_MODEL_BAD, "\"a\"", "name of a file"},
      {MAP("\"a\":\"\""), FK_ERROR_MODEL_BAD, "\"a\"", "name of a file"},
      {MAP("\"a\":\"..\""), FK_ERROR_MODEL_BAD, "\"a\"", "found \"..\""},
      {MAP("\"a\":\"../bad-index/one.safetensors\""), FK_ERROR_MODEL_BAD, "\"a\"", "found \"../bad-index/"},
      {MAP("\"a\":\"/etc/passwd\""), FK_ERROR_MODEL_BAD, "\"a\"", "found \"/etc/passwd\""},
      {MAP(AB "\"c\":\"three.safetensors\""), FK_ERROR_MODEL_MISSING, "three.safetensors", "tensor \"c\""},
      {MAP(AB "\"c\":\"loop\""), FK_ERROR_MODEL_BAD, "loop", "symbolic links"},
      {MAP(AB "\"c\":\"pipe\""), FK_ERROR_MODEL_BAD, "pipe", "regular file"},
      {MAP(AB "\"c\":\"folder\""), FK_ERROR_MODEL_BAD, "folder", "found a folder"},
      {MAP(AB "\"c\":\"text\""), FK_ERROR_MODEL_BAD, "text", "header"},
      {MAP(AB "\"c\":\"one.safetensors\""), FK_ERROR_MODEL_BAD, "\"c\": expected in one.safetensors, found in no shard",
       ""},
      {MAP("\"a\":\"two.safetensors\",\"b\":\"one.safetensors\",\"c\":\"two.safetensors\""), FK_ERROR_MODEL_BAD,
       "\"a\": expected in two.safetensors, found in ", "/one.safetensors"},
      {MAP("\"a\":\"one.safetensors\",\"c\":\"two.safetensors\""), FK_ERROR_MODEL_BAD,
       "\"b\": expected in no shard, found also in ", "/one.safetensors"},
      {MAP(AB "\"c\":\"twice.safetensors\",\"d\":\"two.safetensors\""), FK_ERROR_MODEL_BAD, "\"d\"", "no shard"},
      {MAP(AB "\"c\":\"two.safetensors\",\"a2\":\"twice.safetensors\""), FK_ERROR_MODEL_BAD, "\"a2\"", "no shard"},
  };
  write_shards("bad-index");
  g_free(write_text("bad-index/text", "a text that is no safetensors file"));
  static const Spec twice[] = {{"c", "F32", {2}, 1}};
  write_specs("bad-index/twice.safetensors", twice, 1);
  g_autofree char *folder = scratch_path("bad-index"), *loop = scratch_path("bad-index/loop");
  g_autofree char *pipe_path = scratch_path("bad-index/pipe"), *inner = scratch_path("bad-index/folder");
  g_assert_cmpint(symlink("loop", loop), ==, 0);
  g_assert_cmpint(mkfifo(pipe_path, 0600), ==, 0);
  g_assert_cmpint(g_mkdir(inner, 0700), ==, 0);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_free(write_text("bad-index/model.safetensors.index.json", cases[i].index));
    g_autoptr(GError) error = NULL;
    g_assert_null(fk_component_open(folder, "model", &error));
    assert_error(error, (int)cases[i].code, cases[i].text_1, cases[i].text_2);
  }
  g_autofree char *index = scratch_path("bad-index/model.safetensors.index.json");
  g_autoptr(GError) error = NULL;
  g_remove(index);
  g_assert_null(fk_component_open(folder, "model", &error));
  assert_error(error, FK_ERROR_MODEL_MISSING, "bad-index/model.safetensors", "No such file");
  g_assert_cmpint(symlink("nowhere", index), ==, 0);
  g_assert_null(fk_component_open(folder, "model", &error));
  assert_error(error, FK_ERROR_MODEL_MISSING, "index.json", "No such file");
}

/* ---- The demo checkpoint against the safetensors library ---- */

static void bind_golden(FkBinder *b, FkWeight *w, FkTensor *v, JsonObject *golden) {
  JsonArray *shape = json_object_get_array_member(golden, "shape");
  const char *name = json_object_get_string_member(golden, "name");
  int64_t dim[4] = {0}, rank = json_array_get_length(shape);
  for (guint i = 0; i < rank; i++) dim[i] = json_array_get_int_element(shape, i);
  if (rank == 1) fk_bind_vector(b, v, dim[0], "%s", name);
  if (rank == 2) fk_bind_matrix(b, w, FK_ROLE_CLIP, dim[0], dim[1], "%s", name);
  if (rank == 4) fk_bind_conv(b, w, dim[0], dim[1], (int)dim[2], "%s", name);
}

static void check_golden(const FkWeight *w, const FkTensor *v, JsonObject *golden) {
  bool vector = json_array_get_length(json_object_get_array_member(golden, "shape")) == 1;
  const float *data = vector ? v->data : w->data;
  int64_t count = vector ? v->dim[0] : w->out * w->in;
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; i++) {
    sum += (double)data[i];
    squares += (double)data[i] * (double)data[i];
  }
  /* Sums of bfloat16 in double: exact but for the order, at most 2^-53 per addition. */
  double scale = json_object_get_double_member(golden, "sum_of_squares");
  g_assert_cmpfloat_with_epsilon(squares, scale, 1e-9 * scale);
  g_assert_cmpfloat_with_epsilon(sum, json_object_get_double_member(golden, "sum"), 1e-9 * sqrt(scale * (double)count));
  JsonArray *index = json_object_get_array_member(golden, "index");
  JsonArray *value = json_object_get_array_member(golden, "value");
  for (guint i = 0; i < json_array_get_length(index); i++)
    g_assert_cmpfloat((double)data[json_array_get_int_element(index, i)], ==, json_array_get_double_element(value, i));
}

static void test_demo(void) {
  static const char *const all[] = {"*", NULL};
  static const FkNameTable table = {NULL, 0, all};
  g_autoptr(JsonParser) parser = json_parser_new();
  g_assert_true(json_parser_load_from_file(parser, FK_GOLDEN "/weights.json", NULL));
  JsonArray *parts = json_object_get_array_member(json_node_get_object(json_parser_get_root(parser)), "parts");
  for (guint p = 0; p < json_array_get_length(parts); p++) {
    JsonObject *part = json_array_get_object_element(parts, p);
    g_autofree char *folder = g_build_filename(FK_DEMO_MODEL, json_object_get_string_member(part, "folder"), NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(FkComponent) c = fk_component_open(folder, json_object_get_string_member(part, "stem"), &error);
    g_assert_no_error(error);
    int64_t tensors = 0, elements = 0;
    for (size_t s = 0; s < fk_component_shards(c); s++)
      for (size_t i = 0; i < fk_safetensors_count(fk_component_shard(c, s)); i++, tensors++)
        elements += (int64_t)fk_safetensors_at(fk_component_shard(c, s), i)->bytes / 2; /* all are BF16 */
    g_assert_cmpint(tensors, ==, json_object_get_int_member(part, "tensors"));
    g_assert_cmpint(elements, ==, json_object_get_int_member(part, "elements"));
    if (p == 0) g_assert_cmpuint(fk_component_shards(c), ==, 3);
    TestBackend *t = backend_new(false);
    FkBinder *b = binder_of(t, NULL, c, &table);
    JsonArray *values = json_object_get_array_member(part, "values");
    FkWeight w[8];
    FkTensor v[8];
    for (guint i = 0; i < json_array_get_length(values); i++)
      bind_golden(b, &w[i], &v[i], json_array_get_object_element(values, i));
    g_assert_true(fk_binder_finish(b, &error));
    g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error));
    for (guint i = 0; i < json_array_get_length(values); i++)
      check_golden(&w[i], &v[i], json_array_get_object_element(values, i));
    fk_binder_free(b);
    backend_free(t);
  }
}

/* The null walk counts and allocates nothing. */
static void test_null_walk(void) {
  TestBackend *t = backend_new(true);
  g_autoptr(FkBinder) b = fk_binder_new(&t->be, NULL, NULL, FK_PART_FLUX);
  g_autoptr(GError) error = NULL;
  Small s;
  bind_small(b, &s);
  FkWeight w;
  fk_bind_matrix(b, &w, FK_ROLE_CLIP, 1000000, 1000000, "huge");
  g_assert_true(fk_binder_finish(b, &error));
  g_assert_cmpint(fk_binder_parameters(b), ==, 307 + G_GINT64_CONSTANT(1000000000000));
  g_assert_cmpuint(fk_binder_bytes(b), >, (gsize)2000000000000);
  g_assert_cmpuint(fk_binder_bytes(b), <, (gsize)2000000010000);
  g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error));
  g_assert_null(w.data);
  g_assert_cmpint(w.out, ==, 1000000);
  g_assert_cmpuint(t->allocated, ==, 0);
  backend_free(t);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_data_func("/weights/round-trip/host", NULL, test_round_trip);
  g_test_add_data_func("/weights/round-trip/device", "", test_round_trip);
  g_test_add_data_func("/weights/conversion/float32", NULL, test_conversion);
  g_test_add_data_func("/weights/conversion/bfloat16", "", test_conversion);
  g_test_add_data_func("/weights/large/host", NULL, test_large);
  g_test_add_data_func("/weights/large/device", "", test_large);
  g_test_add_data_func("/weights/failures/host", NULL, test_failures);
  g_test_add_data_func("/weights/failures/device", "", test_failures);
  g_test_add_func("/weights/no-threads", test_no_threads);
  g_test_add_func("/weights/mismatch", test_mismatch);
  g_test_add_func("/weights/extra", test_extra);
  g_test_add_func("/weights/long-name", test_long_name);
  g_test_add_func("/weights/index", test_index);
  g_test_add_func("/weights/bad-index", test_bad_index);
  g_test_add_func("/weights/demo", test_demo);
  g_test_add_func("/weights/null-walk", test_null_walk);
  int status = g_test_run();
  scratch_close();
  return status;
}
