/* SPDX-License-Identifier: Apache-2.0 */
/* Objects by URI (examples/worker/store.c) against a store of its own that checks signatures and misbehaves
 * (store-server.py), and every URI that must be refused before anything is opened. */
#include "worker/store.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *scratch, *endpoint, *open_prefix;
static GPid server;

static void start_server(void) {
  const char *const argv[] = {"python3", FK_STORE_SERVER, NULL};
  g_autoptr(GError) error = NULL;
  int out;
  g_spawn_async_with_pipes(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL,
                           &server, NULL, &out, NULL, &error);
  g_assert_no_error(error);
  char port[16] = "";
  g_assert_cmpint(read(out, port, sizeof port - 1), >, 0);
  endpoint = g_strdup_printf("http://127.0.0.1:%d", atoi(port));
  open_prefix = g_strconcat(endpoint, "/open/", NULL);
}

static Store *open_store(uint64_t max_bytes, int attempts) {
  const char *const roots[] = {scratch, NULL}, *const prefixes[] = {open_prefix, NULL};
  const StoreConfig config = {.roots = roots,
                              .prefixes = prefixes,
                              .endpoint = endpoint,
                              .region = "eu-test-1",
                              .max_bytes = max_bytes,
                              .attempts = attempts};
  g_autoptr(GError) error = NULL;
  Store *store = store_new(&config, &error);
  g_assert_no_error(error);
  return store;
}

static char *file_with(const char *name, const char *text) {
  char *path = g_build_filename(scratch, name, NULL);
  g_assert_true(g_file_set_contents(path, text, -1, NULL));
  return path;
}

static void assert_error(GError **error, StoreError code, const char *part) {
  g_assert_error(*error, STORE_ERROR, (int)code);
  if (!strstr((*error)->message, part)) g_error("\"%s\" does not say \"%s\"", (*error)->message, part);
  g_clear_error(error);
}

/* What is put is what is got; the store's own check accepts our signatures. */
static void signed_objects(void) {
  g_autoptr(Store) store = open_store(1 << 20, 1);
  g_autoptr(GError) error = NULL;
  g_autofree char *big = g_strnfill(200000, 'a'), *from = file_with("from", big);
  g_autofree char *to = g_build_filename(scratch, "to", NULL), *have = NULL;
  g_assert_true(store_put(store, "s3://bucket/folder/a_1-2.png", from, "image/png", NULL, &error));
  g_assert_no_error(error);
  g_assert_true(store_get(store, "s3://bucket/folder/a_1-2.png", to, NULL, &error));
  g_assert_no_error(error);
  g_assert_true(g_file_get_contents(to, &have, NULL, NULL));
  g_assert_cmpstr(have, ==, big);
  g_assert_false(store_get(store, "s3://bucket/none", to, NULL, &error));
  assert_error(&error, STORE_ERROR_MISSING, "s3://bucket/none");
  g_assert_false(g_file_test(to, G_FILE_TEST_EXISTS));
  g_autofree char *text = store_read(store, "s3://bucket/folder/a_1-2.png", 300000, NULL, &error);
  g_assert_cmpstr(text, ==, big);
}

static void wrong_key(void) {
  g_setenv("AWS_SECRET_ACCESS_KEY", "another", TRUE);
  g_autoptr(Store) store = open_store(1000, 3);
  g_setenv("AWS_SECRET_ACCESS_KEY", "secret-example", TRUE);
  g_autoptr(GError) error = NULL;
  g_assert_null(store_read(store, "s3://bucket/a", 100, NULL, &error));
  assert_error(&error, STORE_ERROR_DENIED, "status 403");
}

/* 503 and cut transfers are tried again, and told when that was not enough. */
static void busy(void) {
  g_autoptr(Store) store = open_store(1 << 20, 3);
  g_autoptr(GError) error = NULL;
  g_autofree char *from = file_with("from", "text"), *to = g_build_filename(scratch, "to", NULL);
  g_assert_true(store_put(store, "s3://bucket/busy-2", from, "text/plain", NULL, &error));
  g_assert_no_error(error);
  g_autofree char *text = store_read(store, "s3://bucket/busy-2", 100, NULL, &error);
  g_assert_cmpstr(text, ==, "text");
  g_assert_false(store_put(store, "s3://bucket/busy-9", from, "text/plain", NULL, &error));
  assert_error(&error, STORE_ERROR_BUSY, "status 503");
  g_assert_true(store_put(store, "s3://bucket/x/cut", from, "text/plain", NULL, &error) || error);
  g_clear_error(&error);
  g_autofree char *whole = store_read(store, "s3://bucket/x/cut", 10000, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpstr(whole, ==, "text");
  g_autoptr(Store) once = open_store(1 << 20, 1);
  g_assert_false(store_get(once, "s3://bucket/y/cut", to, NULL, &error));
  assert_error(&error, STORE_ERROR_BUSY, "s3://bucket/y/cut");
  g_assert_false(g_file_test(to, G_FILE_TEST_EXISTS));
}

static void limits(void) {
  g_autoptr(Store) store = open_store(50000, 1);
  g_autoptr(GError) error = NULL;
  g_autofree char *to = g_build_filename(scratch, "to", NULL), *big = g_strconcat(open_prefix, "big", NULL);
  g_autofree char *moved = g_strconcat(open_prefix, "moved?key=secret", NULL);
  g_assert_false(store_get(store, big, to, NULL, &error));
  assert_error(&error, STORE_ERROR_LARGE, "larger than the limit");
  g_assert_false(store_get(store, moved, to, NULL, &error));
  g_assert_null(strstr(error->message, "secret")); /* a presigned URL is a secret */
  assert_error(&error, STORE_ERROR_BAD, "status 302");
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_cancellable_cancel(cancellable);
  g_assert_false(store_get(store, big, to, cancellable, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error(&error);
}

static void presigned(void) {
  g_autoptr(Store) store = open_store(50000, 1);
  g_autoptr(GError) error = NULL;
  g_autofree char *from = file_with("from", "text"), *url = g_strconcat(open_prefix, "a.png?X-Amz-Signature=1", NULL);
  g_assert_true(store_put(store, url, from, "image/png", NULL, &error));
  g_assert_no_error(error);
  g_autofree char *text = store_read(store, url, 100, NULL, &error);
  g_assert_cmpstr(text, ==, "text");
}

static void files(void) {
  g_autoptr(Store) store = open_store(50000, 1);
  g_autoptr(GError) error = NULL;
  g_autofree char *path = file_with("here.txt", "words"), *uri = g_filename_to_uri(path, NULL, NULL);
  g_autofree char *text = store_read(store, uri, 5, NULL, &error), *same = store_path(store, uri);
  g_assert_cmpstr(text, ==, "words");
  g_assert_cmpstr(same, ==, path);
  g_assert_null(store_read(store, uri, 4, NULL, &error));
  assert_error(&error, STORE_ERROR_LARGE, "here.txt");
  g_autofree char *none = g_strconcat(uri, ".none", NULL);
  g_assert_null(store_read(store, none, 4, NULL, &error));
  assert_error(&error, STORE_ERROR_MISSING, "here.txt.none");
}

static void refused(void) {
  g_autoptr(Store) store = open_store(50000, 1);
  g_autoptr(GError) error = NULL;
  g_autofree char *out = g_strdup_printf("file://%s/../passwd", scratch), *link = g_build_filename(scratch, "l", NULL),
                  *through = g_strdup_printf("file://%s/l/passwd", scratch),
                  *root = g_strdup_printf("file://%s", scratch),
                  *beside = g_strdup_printf("file://%s-beside/a", scratch),
                  *none = g_strdup_printf("file://%s/none/../../passwd", scratch),
                  *up = g_strconcat(open_prefix, "../bucket/a", NULL), *space = g_strconcat(open_prefix, "a b", NULL),
                  *closed = g_strconcat(endpoint, "/bucket/a", NULL),
                  *user = g_strdup_printf("http://127.0.0.1@elsewhere/open/%s", "a");
  g_assert_cmpint(symlink("/etc", link), ==, 0);
  const char *const uris[] = {"",
                              "a.png",
                              "/etc/passwd",
                              "file:///etc/passwd",
                              out,
                              none,
                              through,
                              root,
                              beside,
                              "file://elsewhere/etc",
                              "ftp://127.0.0.1/a",
                              "s3://bucket",
                              "s3:///a",
                              "s3://bucket/",
                              "s3://bucket/a b",
                              "s3://bucket/a?x",
                              "s3://bucket/../a",
                              "s3://bucket//a",
                              up,
                              space,
                              closed,
                              user,
                              "gopher://127.0.0.1/"};
  for (size_t i = 0; i < G_N_ELEMENTS(uris); i++) {
    if (store_check(store, uris[i], &error)) g_error("\"%s\" was accepted", uris[i]);
    g_assert_error(error, STORE_ERROR, STORE_ERROR_BAD);
    g_clear_error(&error);
  }
  g_remove(link);
}

static void configurations(void) {
  const char *const no_slash[] = {"https://host", NULL}, *const no_folder[] = {"/nowhere", NULL};
  const StoreConfig bad[] = {
      {.prefixes = no_slash}, {.roots = no_folder}, {.endpoint = "host"}, {.endpoint = "https://host/bucket"}};
  for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_autoptr(GError) error = NULL;
    g_assert_null(store_new(&bad[i], &error));
    g_assert_error(error, STORE_ERROR, STORE_ERROR_BAD);
  }
  const StoreConfig s3 = {.endpoint = endpoint};
  g_autoptr(GError) error = NULL;
  g_unsetenv("AWS_ACCESS_KEY_ID");
  g_assert_null(store_new(&s3, &error));
  assert_error(&error, STORE_ERROR_BAD, "AWS_ACCESS_KEY_ID");
  g_setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", TRUE);
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_autofree char *folder = g_dir_make_tmp("fk-store-XXXXXX", NULL);
  scratch = realpath(folder, NULL);
  g_setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE", TRUE);
  g_setenv("AWS_SECRET_ACCESS_KEY", "secret-example", TRUE);
  g_setenv("AWS_SESSION_TOKEN", "session-example", TRUE);
  g_setenv("no_proxy", "127.0.0.1", TRUE);
  g_setenv("NO_PROXY", "127.0.0.1", TRUE);
  start_server();
  g_test_add_func("/store/signed", signed_objects);
  g_test_add_func("/store/wrong-key", wrong_key);
  g_test_add_func("/store/busy", busy);
  g_test_add_func("/store/limits", limits);
  g_test_add_func("/store/presigned", presigned);
  g_test_add_func("/store/files", files);
  g_test_add_func("/store/refused", refused);
  g_test_add_func("/store/configurations", configurations);
  const int status = g_test_run();
  kill(server, SIGTERM);
  g_autofree char *from = g_build_filename(scratch, "from", NULL), *here = g_build_filename(scratch, "here.txt", NULL);
  g_remove(from);
  g_remove(here);
  g_rmdir(scratch);
  free(scratch);
  g_free(endpoint);
  g_free(open_prefix);
  return status;
}
