/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures and records by URI: what a worker reads and writes.
 *
 *   file:///folder/name      below one of the roots that were given
 *   s3://bucket/key          at the endpoint that was given (path style, signature version 4); keys of the letters
 *                            A-Z a-z 0-9 . _ / -, the secrets from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, where
 *                            set, AWS_SESSION_TOKEN
 *   http://, https://        presigned; below one of the prefixes that were given, redirects not followed
 *
 * URIs come from job messages and are not trusted. Not here: jobs (worker-job.c), the queue (queue.c). */
#ifndef STORE_H
#define STORE_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
  STORE_ERROR_BAD,     /* the URI: malformed or not allowed; another attempt ends the same way */
  STORE_ERROR_MISSING, /* there is no such object */
  STORE_ERROR_DENIED,  /* refused by the store or the file system */
  STORE_ERROR_LARGE,   /* more bytes than the limit */
  STORE_ERROR_BUSY     /* network, a store that asks to wait, a cut transfer: worth another attempt later */
} StoreError;
#define STORE_ERROR (store_error_quark())
GQuark store_error_quark(void);

typedef struct {
  const char *const *roots;    /* (nullable) folders, NULL-terminated */
  const char *const *prefixes; /* (nullable) of URLs, each with scheme, host and a slash at its end */
  const char *endpoint;        /* (nullable) "https://host" of the S3 store */
  const char *region;          /* (nullable) "us-east-1"; "auto" for stores that have none */
  uint64_t max_bytes;          /* of one object */
  int attempts;                /* of one transfer, with 0.2, 0.4, 0.8, ... s between; at least 1 */
} StoreConfig;

typedef struct Store Store;

/* Checks the configuration (FALSE ones are STORE_ERROR_BAD). Strings are copied. (transfer full) */
Store *store_new(const StoreConfig *config, GError **error);
void store_free(Store *store); /* (nullable) */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Store, store_free)

/* May this URI be used at all: nothing is opened. */
bool store_check(const Store *store, const char *uri, GError **error);
/* The path of a file: URI that store_check takes; NULL: it is of another kind. (transfer full) */
char *store_path(const Store *store, const char *uri);
/* The object into the new file `path`; on failure there is no such file. Only for URIs that are not file:. */
bool store_get(Store *store, const char *uri, const char *path, GCancellable *cancellable, GError **error);
/* The file into the object, whole or not at all. Only for URIs that are not file:. */
bool store_put(Store *store, const char *uri, const char *path, const char *type, GCancellable *cancellable,
               GError **error);
/* A small object as text, NULL-terminated; of any kind of URI. (transfer full); STORE_ERROR_MISSING */
char *store_read(Store *store, const char *uri, size_t max_bytes, GCancellable *cancellable, GError **error);

#endif
