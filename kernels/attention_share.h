/* SPDX-License-Identifier: Apache-2.0 */
/* How the queries of attention are shared out to clusters of two blocks with three warpgroups of 64 rows each. Host and
 * device; tests/test-share.c checks that every row is taken once.
 *
 * Items of 384 rows of one head fill whole waves. What is left over would keep a part of the machine for as long as a
 * whole item takes, so it is cut finer: items in which one or two warpgroups of each block have rows, and which take
 * less, because three warpgroups of a block share its units. A row's result does not depend on who computes it. */
#ifndef FK_ATTENTION_SHARE_H
#define FK_ATTENTION_SHARE_H

#ifdef __CUDACC__
#define FK_SHARE __host__ __device__ __forceinline__
#else
#define FK_SHARE static inline
#endif

enum { FK_SHARE_ROWS = 64, FK_SHARE_GROUPS = 3, FK_SHARE_BLOCKS = 2 }; /* of a warpgroup, block, cluster */

/* Of each head: full items, then `tail` items with `active` warpgroups in each block; all heads' full items come first.
 */
typedef struct {
  int heads, full, tail, active;
} FkShare;

/* What one block of an item has. */
typedef struct {
  int head, row, groups; /* first row; warpgroups that have rows */
} FkShareItem;

FK_SHARE int fk_share_items(FkShare s) {
  return (s.full + s.tail) * s.heads;
}

FK_SHARE FkShareItem fk_share_item(FkShare s, int item, int rank) {
  const int whole = s.full * s.heads, rows = FK_SHARE_BLOCKS * FK_SHARE_GROUPS * FK_SHARE_ROWS;
  FkShareItem x;
  if (item < whole) {
    x.head = item / s.full;
    x.row = item % s.full * rows + rank * (FK_SHARE_GROUPS * FK_SHARE_ROWS);
    x.groups = FK_SHARE_GROUPS;
    return x;
  }
  x.head = (item - whole) / s.tail;
  x.row = s.full * rows + ((item - whole) % s.tail * FK_SHARE_BLOCKS + rank) * s.active * FK_SHARE_ROWS;
  x.groups = s.active;
  return x;
}

/* How long cluster k of `clusters` is at work, a full item being 1: it takes items k, k + clusters and so on. A block
 * with two warpgroups takes 0.77 of one with three (measured, attention of 8704 rows), with one about a half. */
static inline float fk_share_time(FkShare s, int clusters, int k) {
  const float cost[] = {0.f, .5f, .77f, 1.f};
  const int whole = s.full * s.heads, all = fk_share_items(s);
  const int items = k < all ? (all - 1 - k) / clusters + 1 : 0, fulls = k < whole ? (whole - 1 - k) / clusters + 1 : 0;
  return (float)fulls + cost[s.active] * (float)(items - fulls);
}

/* The share that ends first; with the fewest items of those. */
static inline FkShare fk_share_out(int rows, int heads, int clusters) {
  const int groups = (rows + FK_SHARE_ROWS - 1) / FK_SHARE_ROWS, item = FK_SHARE_BLOCKS * FK_SHARE_GROUPS;
  FkShare best = {heads, 0, 0, 0};
  float least = 0.f;
  for (int full = groups / item; full >= 0; full--)
    for (int active = FK_SHARE_GROUPS; active > 0; active--) {
      const int left = groups - full * item, width = FK_SHARE_BLOCKS * active;
      const FkShare s = {heads, full, (left + width - 1) / width, active};
      /* Clusters from 0 on have one full item more, those behind them the first of the rest. */
      const float first = fk_share_time(s, clusters, 0), behind = fk_share_time(s, clusters, full * heads % clusters);
      const float time = first > behind ? first : behind;
      if (best.active && time >= least) continue;
      best = s, least = time;
    }
  return best;
}

#endif
