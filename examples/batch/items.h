/* SPDX-License-Identifier: Apache-2.0 */
/* What there is to do: files, folders, patterns and lists, as one list of works with a name for each result. */
#ifndef ITEMS_H
#define ITEMS_H

#include "work.h"

typedef struct {
  const char *out;            /* folder of the results */
  const char *format;         /* ending of the results without the dot; NULL: that of the input */
  const FkSettings *settings; /* of all that say nothing else */
  bool recursive;             /* folders in folders, whose names are kept below `out` */
  bool zero;                  /* names in lists end with NUL instead of a line's end */
  int shard, shards;          /* from 1 to shards: take every shards-th item, beginning with this one */
} ItemsRules;

/* A film among the inputs, with the reason why it is not edited and what edits it. */
typedef struct {
  char *name, *reason;
} ItemsFilm;

/* inputs: each a folder (the pictures in it by name), a list of names (.txt, "-": standard input), a list of JSON
 * objects (.jsonl: "input", "output", and any setting by its name), a picture, or a pattern as shells have them. Names
 * in a list are relative to its folder. The same inputs give the same order everywhere. films: Film of videos. NULL
 * with an error before anything is edited: a bad line, nothing found, two results of one name, a result that would
 * replace an input. (transfer full) */
GPtrArray *items_list(char *const *inputs, const ItemsRules *rules, GPtrArray *films, GError **error);
void items_film_free(ItemsFilm *film);

#endif
