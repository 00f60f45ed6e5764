/* SPDX-License-Identifier: Apache-2.0 */
/* Resize against Pillow's bytes; sizes against the specification's examples and the reference's own rule. */
#include "image.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>

static void fill(uint8_t *data, int w, int h, int channels, int pattern) {
  uint32_t x = (uint32_t)w * 65536u + (uint32_t)h;
  for (int64_t i = 0; i < (int64_t)w * h * channels; i++) {
    x = x * 1664525u + 1013904223u;
    data[i] = (uint8_t)(pattern ? 255 * (x >> 31) : x >> 24);
  }
}

/* Rows are set apart by other strides than Pillow's; the gaps must stay as they were. */
static char *resize_digest(int w, int h, int tw, int th, int channels, int pattern) {
  gsize row = (gsize)w * (gsize)channels, out_row = (gsize)tw * (gsize)channels;
  gsize src_stride = row + 5, dst_stride = out_row + 3;
  g_autofree uint8_t *dense = g_malloc(row * (gsize)h);
  g_autofree uint8_t *src = g_malloc0(src_stride * (gsize)h);
  g_autofree uint8_t *dst = g_malloc(dst_stride * (gsize)th);
  fill(dense, w, h, channels, pattern);
  for (int y = 0; y < h; y++) memcpy(src + (gsize)y * src_stride, dense + (gsize)y * row, row);
  memset(dst, 0xa5, dst_stride * (gsize)th);
  g_assert_true(fk_image_resize_lanczos(dst, tw, th, dst_stride, src, w, h, src_stride, channels));
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  for (int y = 0; y < th; y++) {
    g_checksum_update(sum, dst + (gsize)y * dst_stride, (gssize)out_row);
    for (gsize b = out_row; b < dst_stride; b++) g_assert_cmpint(dst[(gsize)y * dst_stride + b], ==, 0xa5);
  }
  return g_strdup(g_checksum_get_string(sum));
}

static GStrv golden_lines(void) {
  g_autofree char *path = g_build_filename(FK_TEST_DATA, "resize.txt", NULL);
  g_autofree char *text = NULL;
  g_autoptr(GError) error = NULL;
  g_file_get_contents(path, &text, NULL, &error);
  g_assert_no_error(error);
  return g_strsplit(text, "\n", -1);
}

static void test_resize_bytes(void) {
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  for (char **line = lines; *line; line++) {
    int w, h, tw, th, channels, pattern;
    char want[65];
    if (sscanf(*line, "%d %d %d %d %d %d %64s", &w, &h, &tw, &th, &channels, &pattern, want) != 7) continue;
    g_autofree char *got = resize_digest(w, h, tw, th, channels, pattern);
    if (strcmp(got, want)) g_error("resize %s: got %s", *line, got);
    cases++;
  }
  g_test_message("%d resizes byte-equal to Pillow", cases);
  g_assert_cmpint(cases, >=, 120);
}

/* Spec 2.3, a row of seven samples and its two results. */
static void test_resize_vector(void) {
  static const uint8_t row[8] = {0, 255, 10, 200, 128, 64, 32, 250};
  static const uint8_t down[5] = {106, 121, 157, 45, 163};
  static const uint8_t up[13] = {0, 118, 255, 86, 24, 180, 198, 116, 83, 27, 26, 169, 255};
  uint8_t out[13];
  g_assert_true(fk_image_resize_lanczos(out, 5, 1, 5, row, 8, 1, 8, 1));
  g_assert_cmpmem(out, 5, down, 5);
  g_assert_true(fk_image_resize_lanczos(out, 13, 1, 13, row, 8, 1, 8, 1));
  g_assert_cmpmem(out, 13, up, 13);
  g_assert_true(fk_image_resize_lanczos(out, 1, 13, 1, row, 1, 8, 1, 1)); /* the same as a column */
  g_assert_cmpmem(out, 13, up, 13);
}

static void test_size_reference(void) {
  g_auto(GStrv) lines = golden_lines();
  int cases = 0;
  for (char **line = lines; *line; line++) {
    int w, h, area, target[2], preferred[2], got[2];
    if (sscanf(*line, "size %d %d %d %d %d %d %d", &w, &h, &area, &target[0], &target[1], &preferred[0],
               &preferred[1]) != 7)
      continue;
    fk_size_target(w, h, area, &got[0], &got[1]);
    g_assert_cmpmem(got, sizeof got, target, sizeof target);
    fk_size_preferred(w, h, FK_SIZE_PREFERRED_AREA, &got[0], &got[1]);
    g_assert_cmpmem(got, sizeof got, preferred, sizeof preferred);
    cases++;
  }
  g_assert_cmpint(cases, >, 350);
}

typedef struct {
  int w, h;
  int64_t area;
  int tw, th;
} SizeCase;

static void test_size_target(void) {
  static const SizeCase cases[] = {{512, 512, 1048576, 1024, 1024},  {1920, 1080, 1048576, 1360, 768},
                                   {1080, 1920, 1048576, 768, 1360}, {832, 1248, 1048576, 832, 1248},
                                   {1500, 1000, 1048576, 1248, 832}, {600, 400, 65536, 304, 208},
                                   {100000, 1, 65536, 80944, 16},    {1, 1, 1, 16, 16}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    int w, h;
    fk_size_target(cases[i].w, cases[i].h, cases[i].area, &w, &h);
    g_assert_cmpint(w, ==, cases[i].tw);
    g_assert_cmpint(h, ==, cases[i].th);
  }
}

static void test_size_preferred(void) {
  static const SizeCase cases[] = {{1920, 1080, 1048576, 1392, 752},  {1080, 1920, 1048576, 752, 1392},
                                   {1000, 1000, 1048576, 1024, 1024}, {10000, 10, 1048576, 1568, 672},
                                   {1, 5000, 1048576, 672, 1568},     {1920, 1080, 65536, 256, 256},
                                   {3, 3, 262144, 512, 512},          {64, 32, 4096, 64, 64}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    int w, h;
    fk_size_preferred(cases[i].w, cases[i].h, cases[i].area, &w, &h);
    g_assert_cmpint(w, ==, cases[i].tw);
    g_assert_cmpint(h, ==, cases[i].th);
  }
}

static void test_size_plan(void) {
  static const SizeCase cases[] = {
      {1280, 720, 1048576, 1280, 720}, /* inside the bounds */
      {1024, 512, 1048576, 1024, 512}, /* exactly half the area */
      {1008, 512, 1048576, 1424, 720}, /* just below half */
      {176, 400, 64000, 176, 400},     /* exactly 1.1 times */
      {176, 400, 63999, 160, 368},     /* just above */
      {1281, 720, 1048576, 1360, 768}, /* a side that is no multiple of 16: aspect at max_area */
      {600, 400, 65536, 304, 208},      {256, 256, 65536, 256, 256},
      {1920, 1080, 1048576, 1360, 768}, {1, 1, 65536, 256, 256}};
  for (gsize i = 0; i < G_N_ELEMENTS(cases); i++) {
    int w, h;
    fk_size_plan(FK_SIZE_INPUT, cases[i].w, cases[i].h, cases[i].area, &w, &h);
    g_assert_cmpint(w, ==, cases[i].tw);
    g_assert_cmpint(h, ==, cases[i].th);
  }
  int w, h;
  fk_size_plan(FK_SIZE_NATIVE, 1280, 720, 1048576, &w, &h);
  g_assert_cmpint(w, ==, 1392);
  g_assert_cmpint(h, ==, 752);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/image/resize/bytes", test_resize_bytes);
  g_test_add_func("/image/resize/vector", test_resize_vector);
  g_test_add_func("/image/size/reference", test_size_reference);
  g_test_add_func("/image/size/target", test_size_target);
  g_test_add_func("/image/size/preferred", test_size_preferred);
  g_test_add_func("/image/size/plan", test_size_plan);
  return g_test_run();
}
