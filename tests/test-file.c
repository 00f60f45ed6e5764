/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and reading regular files: what is not one is refused without waiting for it. */
#include "file.h"
#include "test-files.h"

#include <sys/stat.h>
#include <unistd.h>

static void refused(const char *path, int code, const char *word) {
  g_autoptr(GError) error = NULL;
  uint64_t size;
  g_assert_cmpint(fk_file_open(path, &size, &error), ==, -1);
  assert_error(error, code, path, word);
}

static void not_files(void) {
  g_autofree char *folder = scratch_path("folder"), *fifo = scratch_path("fifo"), *loop = scratch_path("loop");
  g_autofree char *missing = scratch_path("missing"), *file = write_text("file", "x");
  g_autofree char *inside = g_build_filename(file, "inside", NULL);
  g_assert_cmpint(g_mkdir(folder, 0700), ==, 0);
  g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
  g_assert_cmpint(symlink("loop", loop), ==, 0);
  refused(missing, FK_ERROR_MODEL_MISSING, "No such file");
  refused(inside, FK_ERROR_MODEL_MISSING, "");
  refused(folder, FK_ERROR_MODEL_BAD, "a folder");
  refused(fifo, FK_ERROR_MODEL_BAD, "something else"); /* nobody writes into it: no waiting */
  refused("/dev/zero", FK_ERROR_MODEL_BAD, "something else");
  refused(loop, FK_ERROR_MODEL_BAD, "");
}

static void denied(void) {
  g_autofree char *path = write_text("denied", "x");
  g_assert_cmpint(g_chmod(path, 0), ==, 0);
  if (geteuid() == 0)
    g_test_skip("root may read everything");
  else
    refused(path, FK_ERROR_MODEL_DENIED, "");
}

static void reads(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = write_bytes("reads", "0123456789", 10), *link = scratch_path("link");
  g_assert_cmpint(symlink("reads", link), ==, 0);
  uint64_t size = 0;
  const int fd = fk_file_open(link, &size, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(size, ==, 10);
  char bytes[4] = "";
  g_assert_true(fk_file_read(fd, path, 7, bytes, 3, &error));
  g_assert_cmpmem(bytes, 3, "789", 3);
  g_assert_true(fk_file_read(fd, path, 10, bytes, 0, &error));
  g_assert_false(fk_file_read(fd, path, 8, bytes, 3, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "ends at byte 10", "1 more");
  g_assert_cmpint(truncate(path, 5), ==, 0); /* shortened while it is open: an error, no signal */
  g_assert_false(fk_file_read(fd, path, 7, bytes, 3, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, path, "ends at byte");
  close(fd);
}

static void loads(void) {
  g_autoptr(GError) error = NULL;
  gsize size = 0;
  g_autofree char *path = write_bytes("loads", "a\0b", 3), *empty = write_bytes("empty", "", 0);
  g_autofree char *text = fk_file_load(path, 3, &size, &error);
  g_assert_no_error(error);
  g_assert_cmpmem(text, size, "a\0b", 3);
  g_assert_cmpint(text[3], ==, 0);
  g_assert_null(fk_file_load(path, 2, &size, &error));
  assert_error(error, FK_ERROR_MODEL_BAD, "at most 2", "found 3");
  g_autofree char *nothing = fk_file_load(empty, 3, &size, &error);
  g_assert_cmpuint(size, ==, 0);
  g_assert_cmpstr(nothing, ==, "");
}

/* Names as messages have them: printable UTF-8 of at most 120 bytes, whole characters. */
static void shown_names(void) {
  g_autofree char *long_name = g_strnfill(121, 'a'), *fits = g_strnfill(120, 'a');
  g_autofree char *wide = g_strdup_printf("%.119s\xc3\xa9", fits), *cut = g_strdup_printf("%.119s...", fits);
  g_autofree char *escape = g_strdup_printf("%.118s\x1b", fits), *no_escape = g_strdup_printf("%.118s...", fits);
  g_autofree char *longer = g_strdup_printf("%s...", fits);
  const struct {
    const char *name, *shown;
  } cases[] = {{"", ""},
               {"blocks.0.weight \xc3\xa9 \xf0\x9f\x98\x80", "blocks.0.weight \xc3\xa9 \xf0\x9f\x98\x80"},
               {"\x1b]0;t\a\x1b[2J\r\n\t\x7f", "\\u001b]0;t\\u0007\\u001b[2J\\u000d\\u000a\\u0009\\u007f"},
               {"\xc2\x9b", "\\u009b"},     /* CSI of C1 */
               {"\xe2\x80\xae", "\\u202e"}, /* turns the writing direction */
               {"\xe2\x80\xa8", "\\u2028"}, /* a line separator */
               {"a\xff\xc3(\xe2\x82", "a\\xff\\xc3(\\xe2\\x82"},
               {fits, fits},
               {long_name, longer},
               {wide, cut},
               {escape, no_escape}};
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *shown = fk_shown_name(cases[i].name);
    g_assert_cmpstr(shown, ==, cases[i].shown);
  }
  g_autofree char *path = fk_shown_path(long_name), *strange = fk_shown_path("/a\xff\n");
  g_assert_cmpstr(path, ==, long_name);
  g_assert_cmpstr(strange, ==, "/a\\xff\\u000a");
  g_autoptr(GError) error = NULL;
  uint64_t size;
  g_assert_cmpint(fk_file_open("/nowhere/\x1b[2J", &size, &error), ==, -1);
  assert_error(error, FK_ERROR_MODEL_MISSING, "/nowhere/\\u001b[2J", "");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/file/not-files", not_files);
  g_test_add_func("/file/denied", denied);
  g_test_add_func("/file/reads", reads);
  g_test_add_func("/file/loads", loads);
  g_test_add_func("/file/shown-names", shown_names);
  const int status = g_test_run();
  scratch_close();
  return status;
}
