/* SPDX-License-Identifier: Apache-2.0 */
/* How attention's queries are shared out to clusters: every 64 rows once, and never longer at work than full items
 * alone. */
#include "attention_share.h"

#include <glib.h>
#include <string.h>

static float longest(FkShare s, int clusters) {
  float most = 0;
  for (int k = 0; k < clusters; k++) most = MAX(most, fk_share_time(s, clusters, k));
  return most;
}

static void once(int rows, int heads, int clusters) {
  const int groups = (rows + FK_SHARE_ROWS - 1) / FK_SHARE_ROWS;
  const FkShare s = fk_share_out(rows, heads, clusters);
  g_autofree guint8 *taken = g_malloc0((gsize)groups * (gsize)heads);
  for (int item = 0; item < fk_share_items(s); item++)
    for (int rank = 0; rank < FK_SHARE_BLOCKS; rank++) {
      const FkShareItem x = fk_share_item(s, item, rank);
      g_assert_cmpint(x.groups, >=, 1);
      g_assert_cmpint(x.groups, <=, FK_SHARE_GROUPS);
      g_assert_true(x.head >= 0 && x.head < heads && x.row % FK_SHARE_ROWS == 0);
      for (int g = 0; g < x.groups; g++)
        if (x.row + g * FK_SHARE_ROWS < rows) taken[x.head * groups + x.row / FK_SHARE_ROWS + g]++;
    }
  for (int i = 0; i < groups * heads; i++) g_assert_cmpint(taken[i], ==, 1);
  /* Its time is that of the cluster that is at work longest, and full items alone take no less. */
  const int item = FK_SHARE_BLOCKS * FK_SHARE_GROUPS;
  const FkShare plain = {heads, 0, (groups + item - 1) / item, FK_SHARE_GROUPS};
  g_assert_cmpfloat(longest(s, clusters), <=, longest(plain, clusters));
  g_assert_cmpfloat(longest(s, clusters), ==,
                    MAX(fk_share_time(s, clusters, 0), fk_share_time(s, clusters, s.full * heads % clusters)));
}

static void every_size(void) {
  static const int heads[] = {1, 2, 3, 12, 24}, clusters[] = {1, 2, 7, 57, 66, 72};
  for (gsize h = 0; h < G_N_ELEMENTS(heads); h++)
    for (gsize c = 0; c < G_N_ELEMENTS(clusters); c++) {
      for (int rows = 1; rows < 1400; rows += rows < 400 ? 7 : 63) once(rows, heads[h], clusters[c]);
      once(2560, heads[h], clusters[c]);
      once(4608, heads[h], clusters[c]);
      once(8704, heads[h], clusters[c]);
    }
}

/* The sizes of the model at 1024x1024 and 512x512 on 132 processors. */
static void model_sizes(void) {
  FkShare s = fk_share_out(8704, 24, 66);
  g_assert_cmpint(s.full, ==, 22); /* eight waves, and 256 rows of each head in two items */
  g_assert_cmpint(s.active, ==, 1);
  g_assert_cmpint(s.tail, ==, 2);
  g_assert_cmpfloat(longest(s, 66), <, 8.6f);
  s = fk_share_out(2560, 24, 66);
  g_assert_cmpfloat(longest(s, 66), <, 2.9f);
  s = fk_share_out(4608, 24, 66);
  g_assert_cmpfloat(longest(s, 66), <, 4.9f);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/share/every-size", every_size);
  g_test_add_func("/share/model-sizes", model_sizes);
  return g_test_run();
}
