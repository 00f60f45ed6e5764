/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded queue; see bounded-queue.h. */
#include "bounded-queue.h"

void queue_init(Queue *q, guint limit, guint writers) {
  *q = (Queue){.limit = limit, .writers = writers};
  g_mutex_init(&q->lock);
  g_cond_init(&q->changed);
  g_queue_init(&q->items);
}

void queue_clear(Queue *q) {
  g_mutex_clear(&q->lock);
  g_cond_clear(&q->changed);
}

bool queue_push(Queue *q, gpointer item) {
  g_mutex_lock(&q->lock);
  while (q->items.length >= q->limit && !q->abandoned) g_cond_wait(&q->changed, &q->lock);
  const bool ok = !q->abandoned;
  if (ok) g_queue_push_tail(&q->items, item);
  g_cond_broadcast(&q->changed);
  g_mutex_unlock(&q->lock);
  return ok;
}

void queue_done(Queue *q) {
  g_mutex_lock(&q->lock);
  q->writers--;
  g_cond_broadcast(&q->changed);
  g_mutex_unlock(&q->lock);
}

gpointer queue_pop_if(Queue *q, bool (*fits)(gpointer item, gpointer data), gpointer data) {
  gpointer item = NULL;
  g_mutex_lock(&q->lock);
  while (!q->items.length && q->writers && !q->abandoned) g_cond_wait(&q->changed, &q->lock);
  if (q->items.length && (!fits || fits(g_queue_peek_head(&q->items), data))) item = g_queue_pop_head(&q->items);
  g_cond_broadcast(&q->changed);
  g_mutex_unlock(&q->lock);
  return item;
}

gpointer queue_pop(Queue *q) {
  return queue_pop_if(q, NULL, NULL);
}

void queue_abandon(Queue *q, GDestroyNotify free) {
  g_mutex_lock(&q->lock);
  q->abandoned = true;
  gpointer item;
  while ((item = g_queue_pop_head(&q->items))) free(item);
  g_cond_broadcast(&q->changed);
  g_mutex_unlock(&q->lock);
}
