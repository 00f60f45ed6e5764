/* SPDX-License-Identifier: Apache-2.0 */
/* Reading golden .npy files (format 1.0, little-endian, C order) and comparing with them. For tests only. */
#ifndef TEST_NPY_H
#define TEST_NPY_H

#include <glib.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
  char *bytes; /* whole file */
  void *data;
  char type[8]; /* "<f4", "<i4", "|u1" */
  int rank;
  int64_t dim[4];
} Npy;

static inline int64_t npy_count(const Npy *n) {
  int64_t count = 1;
  for (int i = 0; i < n->rank; i++) count *= n->dim[i];
  return count;
}

static inline Npy npy_load(const char *name) {
  g_autofree char *file = g_strconcat(name, ".npy", NULL), *path = g_build_filename(FK_TEST_DATA, file, NULL);
  g_autoptr(GError) error = NULL;
  Npy n = {0};
  gsize size = 0;
  if (!g_file_get_contents(path, &n.bytes, &size, &error)) g_error("%s", error->message);
  const size_t header = (uint8_t)n.bytes[8] + 256u * (uint8_t)n.bytes[9];
  g_autofree char *text = g_strndup(n.bytes + 10, header);
  const char *descr = strstr(text, "'descr': '"), *shape = strstr(text, "'shape': (");
  g_assert_true(descr && shape && strstr(text, "'fortran_order': False"));
  memcpy(n.type, descr + 10, 3);
  for (const char *p = shape + 10; *p && *p != ')';) {
    char *end;
    const int64_t d = g_ascii_strtoll(p, &end, 10);
    if (end != p) n.dim[n.rank++] = d;
    p = *end == ',' || *end == ' ' ? end + 1 : end;
    while (*p == ' ' || *p == ',') p++;
  }
  n.data = n.bytes + 10 + header;
  return n;
}

static inline void npy_clear(Npy *n) {
  g_clear_pointer(&n->bytes, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Npy, npy_clear)

/* |a - b| / |b|, L2, in double; NaN anywhere gives NaN. */
static inline double relative_error(const float *a, const float *b, int64_t n) {
  double d = 0, s = 0;
  for (int64_t i = 0; i < n; i++) {
    d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    s += (double)b[i] * b[i];
  }
  return sqrt(d / s);
}

/* [C, H, W] <-> [H, W, C]. */
static inline float *to_channels_last(const float *chw, int64_t c, int64_t h, int64_t w) {
  float *out = g_new(float, (size_t)(c * h * w));
  for (int64_t k = 0; k < c; k++)
    for (int64_t i = 0; i < h * w; i++) out[i * c + k] = chw[k * h * w + i];
  return out;
}

#define assert_close(what, a, b, n, limit)                                                                             \
  do {                                                                                                                 \
    const double error_ = relative_error(a, b, n);                                                                     \
    g_test_message("%s: relative error %.2e (limit %.0e)", what, error_, (double)(limit));                             \
    if (!(error_ <= (limit))) g_error("%s: relative error %.3e is over %.0e", what, error_, (double)(limit));          \
  } while (0)

#endif
