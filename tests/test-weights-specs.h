/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints that the loader's tests write: tensors whose data follow from their names; a binder for them; progress
 * that is looked at. */
#ifndef FK_TEST_WEIGHTS_SPECS_H
#define FK_TEST_WEIGHTS_SPECS_H

#include "test-weights-backend.h"
#include "test-files.h"
#include "weights.h"

/* Tensors of one file, in order; data follow from the name, so that no two are alike. */
typedef struct {
  const char *name, *type;
  int64_t dim[4];
  int rank;
} Spec;

/* A number that every type holds exactly: k / 8, |k| <= 255 (8 bits of significand are enough). */
static inline float made_value(const char *name, int64_t i) {
  guint32 x = (g_str_hash(name) ^ (guint32)i) * 2654435761u;
  return (float)((int)(x >> 23) - 256 + (x >> 23 == 0)) / 8;
}

static inline void append_value(GByteArray *data, const char *type, float value) {
  union {
    float value;
    uint32_t bits;
  } u = {.value = value};
  uint16_t half = 0;
  if (!strcmp(type, "BF16")) half = (uint16_t)(u.bits >> 16);
  if (!strcmp(type, "F16") && value != 0)
    half = (uint16_t)((u.bits >> 16 & 0x8000) | (((u.bits >> 23 & 255) - 112) << 10) | (u.bits >> 13 & 1023));
  double wide = (double)value;
  if (!strcmp(type, "F32"))
    g_byte_array_append(data, (const guint8 *)&u.bits, 4);
  else if (!strcmp(type, "F64"))
    g_byte_array_append(data, (const guint8 *)&wide, 8);
  else
    g_byte_array_append(data, (const guint8 *)&half, 2);
}

static inline int64_t spec_count(const Spec *s) {
  int64_t count = 1;
  for (int i = 0; i < s->rank; i++) count *= s->dim[i];
  return count;
}

static inline void write_specs(const char *name, const Spec *specs, size_t n) {
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
  g_free(write_safetensors(name, header->str, data->data, data->len));
}

static inline FkComponent *open_part(const char *folder) {
  g_autofree char *path = scratch_path(folder);
  g_autoptr(GError) error = NULL;
  FkComponent *c = fk_component_open(path, "model", &error);
  g_assert_no_error(error);
  return c;
}

/* Names as in the model. */
static const FkNameTable plain = {NULL, 0, NULL};

static inline FkBinder *binder_of(TestBackend *t, const FkPrecision *precision, const FkComponent *c,
                                  const FkNameTable *table) {
  FkNames names = {.part[FK_PART_FLUX] = {c, table}};
  return fk_binder_new(&t->be, precision, &names, FK_PART_FLUX);
}

/* Element i of a matrix or vector as the file has it; for convolutions i is an index of the order [out, kh, kw, in]. */
static inline float expected_value(const Spec *s, int64_t i) {
  if (s->rank < 4) return made_value(s->name, i);
  int64_t in = s->dim[1], taps = s->dim[2] * s->dim[3];
  int64_t out = i / (in * taps), tap = i / in % taps, c = i % in;
  return made_value(s->name, (out * in + c) * taps + tap);
}

static inline void assert_holds(const void *data, FkDtype dtype, const Spec *s) {
  g_assert_nonnull(data);
  for (int64_t i = 0; i < spec_count(s); i++)
    if (value_of(data, dtype, i) != expected_value(s, i))
      g_error("%s[%d]: expected %g, found %g", s->name, (int)i, (double)expected_value(s, i),
              (double)value_of(data, dtype, i));
}

typedef struct {
  int64_t last, total;
  int calls;
  GCancellable *cancel; /* cancelled when half is done */
} Watch;

static inline void watch(int64_t done, int64_t total, void *user_data) {
  Watch *w = user_data;
  if (w->calls)
    g_assert_cmpint(done, >, w->last);
  else
    g_assert_cmpint(done, ==, 0);
  g_assert_cmpint(done - w->last, <=, 64 << 20);
  g_assert_cmpint(done, <=, total);
  w->last = done;
  w->total = total;
  w->calls++;
  if (w->cancel && done >= total / 2) g_cancellable_cancel(w->cancel);
}

#endif
