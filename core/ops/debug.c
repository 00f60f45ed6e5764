/* SPDX-License-Identifier: Apache-2.0 */
/* FK_DUMP: tensors as .npy files, version 1.0 of the format. For people at work on a model; never on the frame path
 * unless asked for, hence its own malloc. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "debug.h"

#include "cpu.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The header is padded so that the data starts at a multiple of 64 bytes; its length stands behind the magic. */
static void write_header(FILE *file, FkTensor t) {
  char shape[80], text[256];
  int used = 0;
  for (int i = 0; i < t.rank; i++)
    used += snprintf(shape + used, sizeof shape - (size_t)used, "%lld,", (long long)t.dim[i]);
  int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                   t.dtype == FK_I32 ? "<i4" : "<f4", shape);
  int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
  fwrite("\x93NUMPY\x01\x00", 1, 8, file);
  fputc(padded & 255, file);
  fputc(padded >> 8, file);
  fprintf(file, "%-*s\n", padded - 1, text);
}

/* Rows one by one, because a view may have holes between them. */
static bool write_rows(FkBackend *be, FILE *file, FkTensor t) {
  enum { TOGETHER = 1 << 18 }; /* elements of dense rows that are taken at once: a row of an image has three */
  const int64_t rows = fk_tensor_rows(t), cols = fk_tensor_cols(t);
  const int64_t most = t.rank > 1 && t.ld == cols && cols < TOGETHER ? TOGETHER / cols : 1;
  const FkDtype as = t.dtype == FK_I32 ? FK_I32 : FK_F32;
  void *raw = malloc((size_t)(most * cols) * fk_dtype_size(t.dtype) + 1);
  float *values = malloc((size_t)(most * cols) * sizeof *values + 1);
  bool ok = raw && values;
  for (int64_t r = 0; ok && r < rows; r += most) {
    const int64_t n = (rows - r < most ? rows - r : most) * cols;
    be->ops->download(be, raw, fk_tensor_at(t, r * t.ld), (size_t)n * fk_dtype_size(t.dtype));
    fk_cpu_convert(values, as, raw, t.dtype, n);
    ok = fwrite(values, sizeof *values, (size_t)n, file) == (size_t)n;
  }
  free(values);
  free(raw);
  return ok;
}

void fk_debug_dump(FkBackend *be, const char *name, FkTensor t) {
  if (be->ops == &fk_null_ops) return; /* plans walk on it: there are no values */
  static atomic_uint dumpers;
  const char *directory = secure_getenv("FK_DUMP");
  if (!directory || !*directory || !fk_tensor_given(t) || be->failure != FK_FAIL_NONE) return;
  if (be->dumper == 0) be->dumper = atomic_fetch_add(&dumpers, 1) + 1;
  char path[4096], of[16] = "";
  size_t start = strlen(directory) + 1;
  if (be->dumper > 1) snprintf(of, sizeof of, "%u-", be->dumper);
  if (snprintf(path, sizeof path, "%s/%s%04u-%s.npy", directory, of, be->dumps++, name) >= (int)sizeof path) return;
  for (char *c = path + start; *c; c++)
    if (*c == '/') *c = '.';
  FILE *file = fopen(path, "wb");
  if (!file) return;
  write_header(file, t);
  bool ok = write_rows(be, file, t);
  if (fclose(file) != 0 || !ok) remove(path);
}
