/* SPDX-License-Identifier: Apache-2.0 */
/* JSON of untrusted files: a scanner that decodes in place, and a tree of what it scanned. All JSON of a checkpoint is
 * read here: headers of safetensors and vocabularies by the scanner, configurations by the tree.
 *
 * Exactly RFC 8259 in UTF-8: no comments, no byte order mark, no NUL in a string, no half of a surrogate pair. Nothing
 * recurses; a nest of more than FK_JSON_DEPTH levels is an error, and so is a key that is twice in an object that is
 * read. Time is linear in the text, but for keys that are sorted. */
#ifndef FK_JSON_SCAN_H
#define FK_JSON_SCAN_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define FK_JSON_DEPTH 64
#define FK_JSON_NODES 131072 /* values of one tree; published files have fewer than 5,000 */

/* ---- The scanner ---- */

/* Functions return false or 0 at the first error and leave `at` there; the caller then stops. */
typedef struct {
  char *text, *at, *end; /* all of it, owned by the caller; the unread rest; *end is a NUL */
  char problem[384];     /* what is wrong at `at`: printable UTF-8 */
} FkJson;

/* text[bytes] is a NUL. False: not UTF-8. */
bool fk_json_start(FkJson *j, char *text, size_t bytes);
/* Nothing but white space is left. */
bool fk_json_finish(FkJson *j);
/* Sets `problem`; false. */
bool fk_json_fail(FkJson *j, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The problem as FK_ERROR_MODEL_BAD that names the file and the byte; `before`: bytes of the file before the text. */
void fk_json_report(const FkJson *j, const char *path, size_t before, GError **error);

/* An object or a list is scanned by
 *   for (c = fk_json_open(j, "{}"); c == ','; c = fk_json_next(j, "{}")) { one member }
 * after which c is the closing bracket, or 0. */
char fk_json_open(FkJson *j, const char *brackets);
char fk_json_next(FkJson *j, const char *brackets);
/* A string, decoded in place and ended by a NUL; it lives as long as the text. */
bool fk_json_string(FkJson *j, char **string);
/* A member's name and its colon. */
bool fk_json_key(FkJson *j, char **key);
/* A whole number from 0 to 2^63 - 1. */
bool fk_json_whole(FkJson *j, uint64_t *value);

/* ---- The tree ---- */

typedef enum {
  FK_JSON_NULL,
  FK_JSON_FALSE,
  FK_JSON_TRUE,
  FK_JSON_NUMBER,
  FK_JSON_STRING,
  FK_JSON_LIST,
  FK_JSON_OBJECT
} FkJsonKind;

/* A value; those inside it follow it in memory. */
typedef struct {
  const char *key;  /* of a member of an object; NULL elsewhere */
  const char *text; /* string: decoded, ended by a NUL. number: as in the file, ended by what follows it there */
  uint32_t bytes;   /* of `text` */
  uint32_t count;   /* values directly inside */
  uint32_t span;    /* values inside at any depth, and itself */
  uint8_t kind;     /* FkJsonKind */
  bool whole;       /* a number without fraction and exponent */
} FkJsonNode;

typedef struct FkJsonTree FkJsonTree;

/* Reads a file of at most `limit` bytes whose top is an object. `only`: keep this member alone and drop the others, of
 * which there may be any number; NULL: keep all. NULL with FK_ERROR_MODEL_MISSING, _DENIED, _BAD or _MEMORY. */
FkJsonTree *fk_json_load(const char *path, size_t limit, const char *only, GError **error);
/* The same of a text in memory; what: stands for the path in errors. */
FkJsonTree *fk_json_parse(const char *text, const char *what, GError **error);
void fk_json_free(FkJsonTree *tree); /* (nullable) */
/* The object at the top. */
const FkJsonNode *fk_json_root(const FkJsonTree *tree);

/* The member of an object; NULL: there is none, or `object` is NULL or no object. */
const FkJsonNode *fk_json_member(const FkJsonNode *object, const char *key);
/* The values directly inside: first(of) and then next(of, it), until NULL. */
const FkJsonNode *fk_json_first(const FkJsonNode *of);
const FkJsonNode *fk_json_after(const FkJsonNode *of, const FkJsonNode *it);
/* The string; NULL: `node` is NULL or another kind. */
const char *fk_json_text(const FkJsonNode *node);
/* Of a number: the nearest in 64 bits (check `whole` first), and the nearest double, which may be infinite. */
int64_t fk_json_integer(const FkJsonNode *number);
double fk_json_double(const FkJsonNode *number);
/* The value for a message, short and printable. (transfer full) */
char *fk_json_shown(const FkJsonNode *node);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(FkJsonTree, fk_json_free)

/* ---- Tables whose keys come from files ---- */

/* Hashes with a key of this process, so that no file can be made whose names all collide. */
guint fk_text_hash(gconstpointer text); /* a GHashFunc of strings; equality is g_str_equal */
/* A multiplier for tables of numbers: random, odd, the same for the whole process. */
uint64_t fk_hash_multiplier(void);

#endif
