/* SPDX-License-Identifier: Apache-2.0 */
/* Components, binder and loader: what a model asks for arrives bit by bit as the files have it, and what does not fit is
 * refused by name. Two backends of the test's own stand for the CPU (host memory) and for a GPU (stage and commit). */
#include "test-files.h"
#include "weights.h"

#include <json-glib/json-glib.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Backends ---- */

#define BUFFERS 8

typedef struct {
  FkOps ops;
  FkBackend be;
  int live;          /* allocations not yet released */
  size_t allocated;  /* bytes of the last one */
  bool refuse;       /* the next allocation */
  int fail_commit;   /* the n-th commit marks a failure; 0: none */
  int fail_stage;    /* the n-th stage gives no buffer */
  int commits, stages;
  void *buffer[BUFFERS];
  size_t buffer_size[BUFFERS];
  GThread *thread;
} TestBackend;

static void *test_alloc(FkBackend *be, size_t bytes) {
  TestBackend *t = be->priv;
  if (t->refuse) return NULL;
  t->live++;
  t->allocated = bytes;
  char *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, 0xaa, bytes);
  return memory;
}

static void test_release(FkBackend *be, void *memory) {
  ((TestBackend *)be->priv)->live--;
  free(memory);
}

static void test_memory(FkBackend *be, size_t *free_bytes, size_t *total_bytes) {
  (void)be;
  *free_bytes = 12345;
  *total_bytes = 99999;
}

static void test_sync(FkBackend *be) { (void)be; }

static void *test_stage(FkBackend *be, int buffer, size_t bytes) {
  TestBackend *t = be->priv;
  g_assert_true(t->thread == g_thread_self());
  g_assert_cmpint(buffer, >=, 0);
  g_assert_cmpint(buffer, <, BUFFERS);
  if (++t->stages == t->fail_stage) return NULL;
  if (bytes > t->buffer_size[buffer]) {
    free(t->buffer[buffer]);
    t->buffer[buffer] = malloc(bytes);
    t->buffer_size[buffer] = bytes;
  }
  memset(t->buffer[buffer], 0xee, bytes);
  return t->buffer[buffer];
}

static float bf16_value(uint16_t bits) {
  union {
    uint32_t bits;
    float value;
  } u = {.bits = (uint32_t)bits << 16};
  return u.value;
}

/* By the definition of binary16, in double. */
static float f16_value(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double value = exponent == 0    ? ldexp(fraction, -24)
                 : exponent == 31 ? (fraction ? NAN : INFINITY)
                                  : ldexp(1024 + fraction, exponent - 25);
  return (float)(bits & 0x8000 ? -value : value);
}

/* The nearer of the two bfloat16 around a finite value, ties to the even one. */
static uint16_t bf16_nearest(float value) {
  union {
    float value;
    uint32_t bits;
  } u = {.value = value};
  uint16_t low = (uint16_t)(u.bits >> 16), high = (uint16_t)(low + 1);
  double down = fabs((double)value - (double)bf16_value(low));
  double up = isinf(bf16_value(high)) ? fabs(ldexp(1, 128) - fabs((double)value))
                                      : fabs((double)bf16_value(high) - (double)value);
  return down < up || (down == up && low % 2 == 0) ? low : high;
}

static float value_of(const void *data, FkDtype dtype, int64_t i) {
  if (dtype == FK_F32) return ((const float *)data)[i];
  uint16_t bits = ((const uint16_t *)data)[i];
  return dtype == FK_BF16 ? bf16_value(bits) : f16_value(bits);
}

static void test_commit(FkBackend *be, int buffer, void *to, FkDtype as, FkDtype from, size_t count) {
  TestBackend *t = be->priv;
  g_assert_true(t->thread == g_thread_self());
  if (++t->commits == t->fail_commit) {
    be->failure = FK_FAIL_DEVICE;
    g_strlcpy(be->message, "a copy failed on purpose", sizeof be->message);
    return;
  }
  for (size_t i = 0; i < count; i++) {
    float value = value_of(t->buffer[buffer], from, (int64_t)i);
    if (as == FK_F32) ((float *)to)[i] = value;
    else ((uint16_t *)to)[i] = bf16_nearest(value);
  }
}

static TestBackend *backend_new(bool device) {
  TestBackend *t = g_new0(TestBackend, 1);
  t->ops = (FkOps){.abi = FK_BACKEND_ABI,
                   .name = device ? "test device" : "test host",
                   .alloc = test_alloc,
                   .release = test_release,
                   .memory = test_memory,
                   .sync = test_sync};
  if (device) {
    t->ops.stage = test_stage;
    t->ops.commit = test_commit;
  }
  t->be.ops = &t->ops;
  t->be.priv = t;
  t->be.dtype = device ? FK_BF16 : FK_F32;
  g_strlcpy(t->be.machine, "a test machine", sizeof t->be.machine);
  t->thread = g_thread_self();
  return t;
}

static void backend_free(TestBackend *t) {
  g_assert_cmpint(t->live, ==, 0);
  for (int i = 0; i < BUFFERS; i++) free(t->buffer[i]);
  g_free(t);
}

/* ---- Checkpoints that the tests write ---- */

/* Tensors of one file, in order; data follow from the name, so that no two are alike. */
typedef struct {
  const char *name, *type;
  int64_t dim[4];
  int rank;
} Spec;

/* A number that every type holds exactly: k / 8, |k| <= 255 (8 bits of significand are enough). */
static float made_value(const char *name, int64_t i) {
  guint32 x = (g_str_hash(name) ^ (guint32)i) * 2654435761u;
  return (float)((int)(x >> 23) - 256 + (x >> 23 == 0)) / 8;
}

static void append_value(GByteArray *data, const char *type, float value) {
  union {
    float value;
    uint32_t bits;
  } u = {.value = value};
  uint16_t half = 0;
  if (!strcmp(type, "BF16")) half = (uint16_t)(u.bits >> 16);
  if (!strcmp(type, "F16") && value != 0)
    half = (uint16_t)((u.bits >> 16 & 0x8000) | (((u.bits >> 23 & 255) - 112) << 10) | (u.bits >> 13 & 1023));
  double wide = (double)value;
  if (!strcmp(type, "F32")) g_byte_array_append(data, (const guint8 *)&u.bits, 4);
  else if (!strcmp(type, "F64")) g_byte_array_append(data, (const guint8 *)&wide, 8);
  else g_byte_array_append(data, (const guint8 *)&half, 2);
}

static int64_t spec_count(const Spec *s) {
  int64_t count = 1;
  for (int i = 0; i < s->rank; i++) count *= s->dim[i];
  return count;
}

static void write_specs(const char *name, const Spec *specs, size_t n) {
  g_autoptr(GString) header = g_string_new("{");
  g_autoptr(GByteArray) data = g_byte_array_new();
  for (size_t k = 0; k < n; k++) {
    const Spec *s = &specs[k];
    guint begin = data->len;
    for (int64_t i = 0; i < spec_count(s); i++) append_value(data, s->type, made_value(s->name, i));
    g_autofree char *shape = fk_st_shape_text(s->dim, s->rank);
    g_string_append_printf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%u,%u]}", k ? "," : "",
                           s->name, s->type, shape, begin, data->len);
  }
  g_string_append_c(header, '}');
  while (header->len % 8 != 1) g_string_append_c(header, ' '); /* data at odd places */
  g_autofree char *path = write_safetensors(name, header->str, data->data, data->len);
}

static FkComponent *open_part(const char *folder) {
  g_autofree char *path = scratch_path(folder);
  g_autoptr(GError) error = NULL;
  FkComponent *c = fk_component_open(path, "model", &error);
  g_assert_no_error(error);
  return c;
}

/* ---- Binding and loading ---- */

/* Element i of a matrix or vector as the file has it; for convolutions i is an index of the order [out, kh, kw, in]. */
static float expected_value(const Spec *s, int64_t i) {
  if (s->rank < 4) return made_value(s->name, i);
  int64_t in = s->dim[1], taps = s->dim[2] * s->dim[3];
  int64_t out = i / (in * taps), tap = i / in % taps, c = i % in;
  return made_value(s->name, (out * in + c) * taps + tap);
}

static void assert_holds(const void *data, FkDtype dtype, const Spec *s) {
  g_assert_nonnull(data);
  for (int64_t i = 0; i < spec_count(s); i++)
    if (value_of(data, dtype, i) != expected_value(s, i))
      g_error("%s[%d]: expected %g, found %g", s->name, (int)i, (double)expected_value(s, i),
              (double)value_of(data, dtype, i));
}

static const Spec small[] = {
    {"m", "F32", {3, 5}, 2},          {"h", "F16", {7, 3}, 2},        {"b", "BF16", {2, 9}, 2},
    {"conv", "BF16", {4, 3, 3, 3}, 4}, {"conv32", "F32", {2, 5, 3, 3}, 4}, {"conv16", "F16", {3, 2, 1, 1}, 4},
    {"v", "F16", {5}, 1},             {"p.q.weight", "BF16", {4, 6}, 2}, {"p.q.bias", "BF16", {4}, 1},
    {"k.weight", "F32", {2, 6}, 2},   {"k.bias", "F32", {2}, 1},      {"old.name", "F32", {2}, 1},
    {"extra.1", "I64", {2}, 0},       {"tied", "F32", {2}, 1},
};

typedef struct {
  FkWeight m, h, b, conv, conv32, conv16, stack;
  FkTensor v, stack_bias, alternative;
} Small;

static void bind_small(FkBinder *b, Small *s) {
  fk_bind_matrix(b, &s->m, 3, 5, "m");
  fk_bind_matrix(b, &s->h, 7, 3, "%c", 'h');
  fk_bind_matrix(b, &s->b, 2, 9, "b");
  fk_bind_conv(b, &s->conv, 4, 3, 3, "conv");
  fk_bind_conv(b, &s->conv32, 2, 5, 3, "conv%d", 32);
  fk_bind_conv(b, &s->conv16, 3, 2, 1, "conv16");
  fk_bind_vector(b, &s->v, 5, "v");
  fk_bind_stack(b, &s->stack, &s->stack_bias, 6, 2, (int64_t[]){2, 4}, (const char *const[]){"k", "q|p.q"});
  fk_bind_vector(b, &s->alternative, 2, "new.name|old.name|tied");
  fk_bind_ignore(b, "extra.?");
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
  Spec specs[G_N_ELEMENTS(small)];
  memcpy(specs, small, sizeof small);
  specs[12] = (Spec){"extra.1", "F64", {2}, 1};
  write_specs("small/model.safetensors", specs, G_N_ELEMENTS(specs));
  g_autoptr(FkComponent) c = open_part("small");
  TestBackend *t = backend_new(device != NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(FkBinder) b = fk_binder_new(&t->be, c, "part");
  Small s;
  bind_small(b, &s);
  g_assert_null(s.m.data);
  g_assert_true(fk_binder_finish(b, &error));
  g_assert_cmpint(fk_binder_parameters(b), ==, 15 + 21 + 18 + 108 + 90 + 6 + 5 + 36 + 6 + 2);
  g_assert_true(fk_binder_load(b, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  g_assert_cmpuint(t->allocated, ==, fk_binder_bytes(b));
  assert_small(&s, t->be.dtype);
  void *memory = fk_binder_take_memory(b);
  g_assert_null(fk_binder_take_memory(b));
  g_clear_pointer(&b, fk_binder_free);
  assert_small(&s, t->be.dtype); /* the weights outlive the binder */
  t->ops.release(&t->be, memory);
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
  g_autofree char *path = write_safetensors("numbers/model.safetensors", header, data->data, data->len);
  g_autoptr(FkComponent) c = open_part("numbers");
  TestBackend *t = backend_new(false);
  t->be.dtype = device ? FK_BF16 : FK_F32; /* host memory in both, so that the loader itself converts */
  {
    g_autoptr(FkBinder) b = fk_binder_new(&t->be, c, "numbers");
    FkWeight h, f;
    fk_bind_matrix(b, &h, 256, 256, "h");
    fk_bind_matrix(b, &f, 256, 256, "f");
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

/* Tensors of several pieces, with progress. */
typedef struct {
  int64_t last, total;
  int calls;
  GCancellable *cancel; /* cancelled when half is done */
} Watch;

static void watch(int64_t done, int64_t total, void *user_data) {
  Watch *w = user_data;
  g_assert_cmpint(done, w->calls ? > : ==, w->calls ? w->last : 0);
  g_assert_cmpint(done - w->last, <=, 64 << 20);
  g_assert_cmpint(done, <=, total);
  w->last = done;
  w->total = total;
  w->calls++;
  if (w->cancel && done >= total / 2) g_cancellable_cancel(w->cancel);
}
