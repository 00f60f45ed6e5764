/* SPDX-License-Identifier: Apache-2.0 */
/* edited-mask.c: which tokens are edited, by hand-made grids; the text there and back, and texts that are none. Whole
 * edits: test-denoise.c. */
#include "edited.h"
#include "test-files.h"

#include <math.h>

/* "..#" rows: '#' edited. */
static void draw(uint8_t *to, const char *rows) {
  for (int t = 0; rows[t]; t++) to[t] = rows[t] == '#';
}

static void assert_grid(const uint8_t *have, const char *rows) {
  for (int t = 0; rows[t]; t++)
    if (have[t] != (rows[t] == '#')) g_error("token %d of %s is %d", t, rows, have[t]);
}

static void measure(void) {
  const float clean[6] = {1, 2, 3, -1, 0, 1}, reference[6] = {1, 1, 1, 1, 1, 1};
  float change[2];
  fk_edited_measure(change, clean, reference, 2, 3);
  g_assert_cmpfloat(fabs((double)change[0] - 1), <, 1e-6);
  g_assert_cmpfloat(fabs((double)change[1] - 1), <, 1e-6);
}

/* Grown by one in eight directions; one-wide gaps filled; wider ones kept; borders do not take part. */
static void finds(void) {
  static const struct {
    int h, w;
    const char *above, *want;
  } cases[] = {
      {5, 5, "............#............", "......###..###..###......"},
      {1, 9, "#...#....", "######..."}, /* the gap between 2 and 3 */
      {1, 9, "#.......#", "##.....##"}, /* five stay */
      {3, 3, "#........", "##.##...."}, /* a corner */
      {2, 3, "......", "......"},       /* nothing */
  };
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const int n = cases[i].h * cases[i].w;
    g_autofree uint8_t *edited = g_new(uint8_t, (size_t)n);
    g_autofree float *change = g_new(float, (size_t)n);
    for (int t = 0; t < n; t++) change[t] = cases[i].above[t] == '#' ? 0.6f : 0.5f;
    fk_edited_find(edited, change, cases[i].h, cases[i].w, 0.5);
    assert_grid(edited, cases[i].want);
  }
}

static void not_a_number(void) {
  uint8_t edited[1] = {0};
  fk_edited_find(edited, (const float[]){NAN}, 1, 1, 1000);
  g_assert_cmpint(edited[0], ==, 1);
}

static void buckets(void) {
  g_assert_cmpint(fk_edited_bucket(1, 4096), ==, 256);
  g_assert_cmpint(fk_edited_bucket(16, 4096), ==, 4096);
  g_assert_cmpint(fk_edited_bucket(3, 17), ==, 6);
  g_assert_cmpint(fk_edited_bucket(16, 17), ==, 17);
}

/* Up to a multiple of the bucket, the largest first, equal ones by index; none edited gives one bucket. */
static void fills(void) {
  uint8_t edited[40];
  float change[40];
  memset(edited, 0, sizeof edited);
  for (int t = 0; t < 40; t++) change[t] = (float)(t % 10);
  edited[5] = 1;
  g_assert_cmpint(fk_edited_fill(edited, change, 40), ==, 3);
  g_assert_true(edited[5] && edited[9] && edited[19]);
  g_assert_cmpint(fk_edited_fill(edited, change, 40), ==, 3);
  memset(edited, 0, sizeof edited);
  g_assert_cmpint(fk_edited_fill(edited, NULL, 40), ==, 3);
  g_assert_true(edited[0] && edited[1] && edited[2]);
  memset(edited, 1, sizeof edited);
  g_assert_cmpint(fk_edited_fill(edited, NULL, 40), ==, 40);
}

static void text(void) {
  char text[FK_EDITED_TEXT];
  uint8_t edited[15], back[15];
  draw(edited, "#.#.....#####.#");
  fk_edited_write(text, edited, 3, 5);
  g_assert_cmpstr(text, ==, "5x3:a0fa");
  g_assert_true(fk_edited_read(text, back, 3, 5, NULL));
  g_assert_cmpmem(edited, 15, back, 15);
}

/* Several decisions: what changed since the last one, zeros in runs; those that are not named leave the mask. */
static void several(void) {
  enum { N = 15 };
  char text[FK_EDITED_TEXT];
  uint8_t first[N], second[N], third[N], have[N];
  g_autoptr(GError) error = NULL;
  draw(first, "#.#.....#####.#");
  draw(second, "#.#.....#####..");
  draw(third, "..#.........#..");
  fk_edited_write(text, first, 3, 5);
  g_assert_false(fk_edited_several(text));
  g_assert_true(fk_edited_append(text, 4, first, second, N));
  g_assert_true(fk_edited_append(text, 9, second, second, N));
  g_assert_true(fk_edited_append(text, 12, second, third, N));
  g_assert_cmpstr(text, ==, "v2:5x3:a0fa+4:hg2+9:i+12:8gfg");
  g_assert_true(fk_edited_several(text) && fk_edited_check(text, NULL));
  g_assert_true(fk_edited_read(text, have, 3, 5, NULL));
  g_assert_cmpmem(have, N, first, N);
  g_assert_true(fk_edited_follow(text, 2, 3, have, N, NULL));
  g_assert_cmpmem(have, N, first, N);
  g_assert_true(fk_edited_follow(text, 3, 4, have, N, NULL) && fk_edited_follow(text, 4, 9, have, N, NULL));
  g_assert_cmpmem(have, N, second, N);
  g_assert_true(fk_edited_follow(text, 9, 12, have, N, NULL));
  g_assert_cmpmem(have, N, third, N);
  g_assert_false(fk_edited_follow(text, 4, 12, have, N, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "region-mask", "evaluation 9");
}

/* Any two masks of any size there and back, by a generator of numbers. */
static void round_trips(void) {
  GRand *random = g_rand_new_with_seed(7);
  for (int round = 0; round < 200; round++) {
    const int h = g_rand_int_range(random, 1, 40), w = g_rand_int_range(random, 1, 40), n = h * w;
    char text[FK_EDITED_TEXT];
    g_autofree uint8_t *a = g_malloc0((size_t)n), *b = g_malloc0((size_t)n), *have = g_malloc((size_t)n);
    for (int k = g_rand_int_range(random, 0, n + 1); k > 0; k--) a[g_rand_int_range(random, 0, n)] = 1;
    for (int k = g_rand_int_range(random, 0, n + 1); k > 0; k--) b[g_rand_int_range(random, 0, n)] ^= 1;
    fk_edited_write(text, a, h, w);
    g_assert_true(fk_edited_append(text, 1, a, b, n) && fk_edited_check(text, NULL));
    g_assert_true(fk_edited_read(text, have, h, w, NULL) && fk_edited_follow(text, 0, 1, have, n, NULL));
    g_assert_cmpmem(b, (size_t)n, have, (size_t)n);
  }
  g_rand_free(random);
}

/* One mask of the largest grid leaves no room for another that differs everywhere: the text stays. */
static void no_room(void) {
  enum { H = 128, W = 256 };
  char text[FK_EDITED_TEXT];
  g_autofree uint8_t *all = g_malloc(H * W), *none = g_malloc0(H * W);
  memset(all, 1, H * W);
  fk_edited_write(text, all, H, W);
  g_autofree char *before = g_strdup(text);
  g_assert_false(fk_edited_append(text, 5, all, none, H * W));
  g_assert_cmpstr(text, ==, before);
}

/* The largest grid has room. */
static void longest(void) {
  enum { H = 128, W = 256 };
  char text[FK_EDITED_TEXT];
  g_autofree uint8_t *edited = g_malloc(H * W), *back = g_malloc0(H * W);
  memset(edited, 1, H * W);
  fk_edited_write(text, edited, H, W);
  g_assert_true(fk_edited_read(text, back, H, W, NULL));
  g_assert_cmpmem(edited, H * W, back, H * W);
}

static void refuses(void) {
  static const char *const bad[] = {"1", "", "3x5:a0fa", "5x3:a0f", "5x3:a0fa0", "5x3:a0gz", "5x3", "0x0:"};
  static const char *const malformed[] = {"x",
                                          "5x3:a0fa+4:i",
                                          "v2:",
                                          "v2:5x3:a0fa+4",
                                          "v2:5x3:a0fa+4:",
                                          "v2:5x3:a0fa+4:h",
                                          "v2:5x3:a0fa+4:hhg",
                                          "v2:5x3:a0fa+4:w",
                                          "v2:5x3:a0fa+4:v",
                                          "v2:5x3:a0fa+4:i+4:i",
                                          "v2:5x3:a0fa+04:i",
                                          "v2:5x3:a0fa+2001:i",
                                          "v2:5x3:a0fa-",
                                          "v3:5x3:a0fa",
                                          "99999999999x3:0",
                                          "256x256:0",
                                          "05x3:a0fa",
                                          "5x3:a0fa\xff"};
  uint8_t edited[15];
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(GError) error = NULL;
    g_assert_false(fk_edited_read(bad[i], edited, 3, 5, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, "region-mask", ": ");
  }
  for (size_t i = 0; i < G_N_ELEMENTS(malformed); i++) {
    g_autoptr(GError) error = NULL;
    g_assert_false(fk_edited_check(malformed[i], &error));
    assert_error(error, FK_ERROR_OPTION_BAD, "region-mask", ": ");
  }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/edited/measure", measure);
  g_test_add_func("/edited/finds", finds);
  g_test_add_func("/edited/not-a-number", not_a_number);
  g_test_add_func("/edited/buckets", buckets);
  g_test_add_func("/edited/fills", fills);
  g_test_add_func("/edited/text", text);
  g_test_add_func("/edited/several", several);
  g_test_add_func("/edited/round-trips", round_trips);
  g_test_add_func("/edited/no-room", no_room);
  g_test_add_func("/edited/longest", longest);
  g_test_add_func("/edited/refuses", refuses);
  return g_test_run();
}
