/* SPDX-License-Identifier: Apache-2.0 */
/* A bounded queue between threads: who is faster waits, so that memory does not grow with the list. */
#ifndef BOUNDED_QUEUE_H
#define BOUNDED_QUEUE_H

#include <glib.h>
#include <stdbool.h>

typedef struct {
  GMutex lock;
  GCond changed;
  GQueue items;
  guint limit, writers; /* writers: threads that will still push */
  bool abandoned;
} Queue;

/* limit: most items that wait in it. writers: threads that push and then call queue_done. */
void queue_init(Queue *q, guint limit, guint writers);
void queue_clear(Queue *q); /* must be empty */
/* Waits for room. False: abandoned, and the item stays the caller's. */
bool queue_push(Queue *q, gpointer item);
void queue_done(Queue *q);
/* The next one; waits for it. NULL: there will be none. */
gpointer queue_pop(Queue *q);
/* The same where fits(item, data), without taking it otherwise. */
gpointer queue_pop_if(Queue *q, bool (*fits)(gpointer item, gpointer data), gpointer data);
/* Gives up what waits, by free, and lets nobody wait any more. */
void queue_abandon(Queue *q, GDestroyNotify free);

#endif
