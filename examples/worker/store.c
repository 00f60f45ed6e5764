/* SPDX-License-Identifier: Apache-2.0 */
/* Objects by URI; see store.h. Transfers by libcurl, one at a time, each with limits on size, silence and redirects. */
#include "store.h"

#include <curl/curl.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

G_DEFINE_QUARK(store - error - quark, store_error)

struct Store {
  char **roots, **prefixes, *endpoint, *sign, *user, *token;
  uint64_t max_bytes;
  int attempts;
  CURL *curl;
};

static bool refuse(GError **error, StoreError code, const char *uri, const char *why) {
  g_autofree char *shown = g_strescape(uri, NULL);
  if (strlen(shown) > 200) memcpy(shown + 197, "...", 4);
  g_set_error(error, STORE_ERROR, (int)code, "%s: %s", shown, why);
  return false;
}

/* ---- Configuration ---- */

static bool is_url(const char *text) {
  return g_str_has_prefix(text, "https://") || g_str_has_prefix(text, "http://");
}

/* A prefix that names a host and ends at a slash, so that "https://host.example" is not the start of
 * "https://host.example.elsewhere/". */
static bool is_prefix(const char *text) {
  const char *host = is_url(text) ? strstr(text, "://") + 3 : NULL;
  return host && *host != '/' && strchr(host, '/') && g_str_has_suffix(text, "/");
}

static bool add_root(GPtrArray *roots, const char *root, GError **error) {
  char *real = realpath(root, NULL);
  if (!real) return refuse(error, STORE_ERROR_BAD, root, g_strerror(errno));
  g_ptr_array_add(roots, g_strdup(real));
  free(real);
  return true;
}

static bool read_roots(Store *s, const char *const *roots, GError **error) {
  g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
  for (; roots && *roots; roots++)
    if (!add_root(list, *roots, error)) return false;
  g_ptr_array_add(list, NULL);
  s->roots = g_strdupv((char **)list->pdata);
  return true;
}

static bool read_endpoint(Store *s, const StoreConfig *c, GError **error) {
  const char *id = g_getenv("AWS_ACCESS_KEY_ID"), *secret = g_getenv("AWS_SECRET_ACCESS_KEY");
  if (!c->endpoint) return true;
  if (!is_url(c->endpoint) || strchr(strstr(c->endpoint, "://") + 3, '/'))
    return refuse(error, STORE_ERROR_BAD, c->endpoint, "expected https://HOST[:PORT] as the S3 endpoint");
  if (!id || !secret)
    return refuse(error, STORE_ERROR_BAD, c->endpoint, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set");
  s->endpoint = g_strdup(c->endpoint);
  s->sign = g_strdup_printf("aws:amz:%s:s3", c->region ? c->region : "us-east-1");
  s->user = g_strdup_printf("%s:%s", id, secret);
  s->token = g_strdup(g_getenv("AWS_SESSION_TOKEN"));
  return true;
}

Store *store_new(const StoreConfig *c, GError **error) {
  g_autoptr(Store) s = g_new0(Store, 1);
  curl_global_init(CURL_GLOBAL_DEFAULT);
  s->curl = curl_easy_init();
  s->max_bytes = c->max_bytes;
  s->attempts = MAX(1, c->attempts);
  s->prefixes = g_strdupv((char **)c->prefixes);
  for (char **p = s->prefixes; p && *p; p++)
    if (!is_prefix(*p)) {
      refuse(error, STORE_ERROR_BAD, *p, "expected a prefix like https://host/folder/");
      return NULL;
    }
  return read_roots(s, c->roots, error) && read_endpoint(s, c, error) ? g_steal_pointer(&s) : NULL;
}

void store_free(Store *s) {
  if (!s) return;
  if (s->curl) curl_easy_cleanup(s->curl);
  g_strfreev(s->roots);
  g_strfreev(s->prefixes);
  g_free(s->endpoint);
  g_free(s->sign);
  g_free(s->user);
  g_free(s->token);
  g_free(s);
}

/* ---- Which URIs ---- */

/* The path with links followed as far as there are files; what is not there yet is appended. (transfer full): NULL: it
 * steps out of what is not there. */
static char *real_path(const char *path) {
  char *real = realpath(path, NULL);
  if (real || errno != ENOENT || !strcmp(path, "/")) {
    char *copy = g_strdup(real);
    free(real);
    return copy;
  }
  g_autofree char *name = g_path_get_basename(path), *folder = g_path_get_dirname(path);
  g_autofree char *parent = strcmp(name, "..") && strcmp(name, ".") ? real_path(folder) : NULL;
  return parent ? g_build_filename(parent, name, NULL) : NULL;
}

/* Below a root. (transfer full): NULL: not. */
static char *allowed_path(const Store *s, const char *uri) {
  g_autofree char *path = g_filename_from_uri(uri, NULL, NULL), *real = path ? real_path(path) : NULL;
  for (char **root = s->roots; real && *root; root++) {
    const size_t n = strlen(*root);
    if (!strncmp(real, *root, n) && (real[n] == '/' || (n && real[n - 1] == '/'))) return g_steal_pointer(&real);
  }
  return NULL;
}

static bool check_s3(const Store *s, const char *uri, GError **error) {
  const char *bucket = uri + strlen("s3://"), *slash = strchr(bucket, '/');
  if (!s->endpoint) return refuse(error, STORE_ERROR_BAD, uri, "no S3 endpoint was given");
  if (!slash || slash == bucket || !slash[1]) return refuse(error, STORE_ERROR_BAD, uri, "expected s3://BUCKET/KEY");
  if (strspn(bucket, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-") != strlen(bucket))
    return refuse(error, STORE_ERROR_BAD, uri, "only A-Z a-z 0-9 . _ / - in buckets and keys");
  if (strstr(bucket, "//") || strstr(bucket, "/./") || strstr(bucket, "/../"))
    return refuse(error, STORE_ERROR_BAD, uri, "empty, . and .. parts in a key");
  return true;
}

static bool check_url(const Store *s, const char *uri, GError **error) {
  const size_t path = strcspn(uri, "?#");
  g_autofree char *plain = g_strndup(uri, path);
  bool allowed = false;
  for (char **p = s->prefixes; p && *p; p++) allowed |= g_str_has_prefix(uri, *p);
  if (!allowed) return refuse(error, STORE_ERROR_BAD, plain, "not below a prefix that is allowed");
  if (strstr(plain, "/..") || strstr(plain, "%2e") || strstr(plain, "%2E") || strchr(plain, '\\'))
    return refuse(error, STORE_ERROR_BAD, plain, "steps out of its folder");
  for (const char *p = uri; *p; p++)
    if ((guchar)*p <= 0x20 || (guchar)*p >= 0x7f) return refuse(error, STORE_ERROR_BAD, plain, "not an encoded URL");
  return true;
}

bool store_check(const Store *s, const char *uri, GError **error) {
  if (g_str_has_prefix(uri, "s3://")) return check_s3(s, uri, error);
  if (is_url(uri)) return check_url(s, uri, error);
  if (!g_str_has_prefix(uri, "file:"))
    return refuse(error, STORE_ERROR_BAD, uri, "expected file:, s3:, http: or https:");
  g_autofree char *path = allowed_path(s, uri);
  return path || refuse(error, STORE_ERROR_BAD, uri, "not in a folder that is allowed");
}

char *store_path(const Store *s, const char *uri) {
  return g_str_has_prefix(uri, "file:") ? allowed_path(s, uri) : NULL;
}

/* ---- One transfer ---- */

typedef struct {
  FILE *file;    /* read for a put, written for a get */
  GString *text; /* of a get, instead of the file */
  uint64_t max, got;
  bool large;
  GCancellable *cancellable;
} Transfer;

static size_t take(char *data, size_t size, size_t n, void *user_data) {
  Transfer *t = user_data;
  const size_t bytes = size * n;
  t->got += bytes;
  if (t->got > t->max) {
    t->large = true;
    return 0;
  }
  if (t->text) g_string_append_len(t->text, data, (gssize)bytes);
  return t->text ? bytes : fwrite(data, 1, bytes, t->file);
}

static size_t give(char *data, size_t size, size_t n, void *user_data) {
  Transfer *t = user_data;
  return fread(data, size, n, t->file);
}

/* What is sent back to a put, and pages of errors. */
static size_t drop(char *data, size_t size, size_t n, void *user_data) {
  (void)data;
  (void)user_data;
  return size * n;
}

static int watch(void *user_data, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
  (void)a;
  (void)b;
  (void)c;
  (void)d;
  return g_cancellable_is_cancelled(((Transfer *)user_data)->cancellable);
}

static char *hash_file(FILE *file) {
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  guchar piece[65536];
  for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0;) g_checksum_update(sum, piece, (gssize)n);
  rewind(file);
  return g_strdup(g_checksum_get_string(sum));
}

/* Of no bytes: what a get sends. */
#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static void header(struct curl_slist **list, const char *name, const char *value) {
  g_autofree char *line = g_strdup_printf("%s: %s", name, value);
  *list = curl_slist_append(*list, line);
}

/* The URL of the object; signed where it is the S3 store's. */
static struct curl_slist *address(Store *s, const char *uri, FILE *put, const char *type) {
  struct curl_slist *list = NULL;
  const bool s3 = g_str_has_prefix(uri, "s3://");
  g_autofree char *url = s3 ? g_strdup_printf("%s/%s", s->endpoint, uri + 5) : g_strdup(uri);
  curl_easy_reset(s->curl);
  curl_easy_setopt(s->curl, CURLOPT_URL, url);
  if (type) header(&list, "Content-Type", type);
  header(&list, "Expect", "");
  if (!s3) return list;
  g_autofree char *sum = put ? hash_file(put) : g_strdup(EMPTY_SHA256);
  header(&list, "x-amz-content-sha256", sum);
  if (s->token) header(&list, "x-amz-security-token", s->token);
  curl_easy_setopt(s->curl, CURLOPT_AWS_SIGV4, s->sign);
  curl_easy_setopt(s->curl, CURLOPT_USERPWD, s->user);
  return list;
}

/* True: done. Otherwise why not, and by its code whether it is worth another attempt. */
static bool judge(CURLcode code, long status, const Transfer *t, const char *uri, GError **error) {
  g_autofree char *plain = g_strndup(uri, strcspn(uri, "?#")), *why = g_strdup_printf("status %ld", status);
  if (g_cancellable_set_error_if_cancelled(t->cancellable, error)) return false;
  if (t->large || code == CURLE_FILESIZE_EXCEEDED)
    return refuse(error, STORE_ERROR_LARGE, plain, "larger than the limit");
  if (code == CURLE_WRITE_ERROR) return refuse(error, STORE_ERROR_DENIED, plain, "could not be written here");
  if (code != CURLE_OK) return refuse(error, STORE_ERROR_BUSY, plain, curl_easy_strerror(code));
  if (status >= 200 && status < 300) return true;
  if (status == 404 || status == 410) return refuse(error, STORE_ERROR_MISSING, plain, "there is no such object");
  if (status == 401 || status == 403) return refuse(error, STORE_ERROR_DENIED, plain, why);
  return refuse(error, status == 408 || status == 429 || status >= 500 ? STORE_ERROR_BUSY : STORE_ERROR_BAD, plain,
                why);
}

static bool attempt(Store *s, const char *uri, Transfer *t, bool put, const char *type, GError **error) {
  CURL *c = s->curl;
  long status = 0;
  struct curl_slist *headers = address(s, uri, put ? t->file : NULL, type);
  curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, 10L);
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1000L); /* bytes a second, for 30 seconds */
  curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, 30L);
  curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L); /* the page of an error is not the object */
  curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, watch);
  curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
  curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, put ? drop : take);
  curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
  curl_easy_setopt(c, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)t->max);
  if (put) {
    fseeko(t->file, 0, SEEK_END);
    const off_t bytes = ftello(t->file);
    rewind(t->file);
    curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, give);
    curl_easy_setopt(c, CURLOPT_READDATA, t);
    curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)bytes);
  }
  CURLcode code = curl_easy_perform(c);
  curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
  if (code == CURLE_HTTP_RETURNED_ERROR) code = CURLE_OK;
  curl_slist_free_all(headers);
  return judge(code, status, t, uri, error);
}

/* Starts over after each failure that may pass. */
static bool transfer(Store *s, const char *uri, Transfer *t, bool put, const char *type, GError **error) {
  for (int i = 1;; i++) {
    g_autoptr(GError) problem = NULL;
    t->got = 0;
    if (t->text) g_string_truncate(t->text, 0);
    if (t->file) rewind(t->file);
    if (t->file && !put && ftruncate(fileno(t->file), 0))
      return refuse(error, STORE_ERROR_DENIED, uri, g_strerror(errno));
    if (attempt(s, uri, t, put, type, &problem)) return true;
    if (i >= s->attempts || !g_error_matches(problem, STORE_ERROR, STORE_ERROR_BUSY)) {
      g_propagate_error(error, g_steal_pointer(&problem));
      return false;
    }
    g_usleep(200000UL << MIN(i - 1, 5));
  }
}

bool store_get(Store *s, const char *uri, const char *path, GCancellable *cancellable, GError **error) {
  if (!store_check(s, uri, error)) return false;
  Transfer t = {.file = g_fopen(path, "w+be"), .max = s->max_bytes, .cancellable = cancellable};
  if (!t.file) return refuse(error, STORE_ERROR_DENIED, path, g_strerror(errno));
  bool ok = transfer(s, uri, &t, false, NULL, error);
  if (fclose(t.file) && ok) ok = refuse(error, STORE_ERROR_DENIED, path, g_strerror(errno));
  if (!ok) g_remove(path);
  return ok;
}

bool store_put(Store *s, const char *uri, const char *path, const char *type, GCancellable *cancellable,
               GError **error) {
  if (!store_check(s, uri, error)) return false;
  Transfer t = {.file = g_fopen(path, "rbe"), .max = s->max_bytes, .cancellable = cancellable};
  if (!t.file) return refuse(error, STORE_ERROR_DENIED, path, g_strerror(errno));
  const bool ok = transfer(s, uri, &t, true, type, error);
  fclose(t.file);
  return ok;
}

static char *read_file(const char *uri, const char *path, size_t max_bytes, GError **error) {
  FILE *file = g_fopen(path, "rbe");
  const StoreError code = errno == ENOENT || errno == ENOTDIR ? STORE_ERROR_MISSING : STORE_ERROR_DENIED;
  if (!file) {
    refuse(error, code, uri, g_strerror(errno));
    return NULL;
  }
  g_autofree char *text = g_malloc(max_bytes + 2);
  const size_t n = fread(text, 1, max_bytes + 1, file);
  const bool failed = ferror(file);
  fclose(file);
  text[n] = 0;
  if (!failed && n <= max_bytes) return g_steal_pointer(&text);
  refuse(error, failed ? STORE_ERROR_DENIED : STORE_ERROR_LARGE, uri,
         failed ? "could not be read" : "larger than the limit");
  return NULL;
}

char *store_read(Store *s, const char *uri, size_t max_bytes, GCancellable *cancellable, GError **error) {
  if (!store_check(s, uri, error)) return NULL;
  g_autofree char *path = store_path(s, uri);
  if (path) return read_file(uri, path, max_bytes, error);
  Transfer t = {.text = g_string_new(NULL), .max = max_bytes, .cancellable = cancellable};
  const bool ok = transfer(s, uri, &t, false, NULL, error);
  return g_string_free(t.text, !ok);
}
