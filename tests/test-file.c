/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and reading regular files: what is not one is refused without waiting for it. Writing: what is replaced, what
 * is written into, and what is refused. */
#include "file.h"
#include "test-files.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
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
  refused(fifo, FK_ERROR_MODEL_BAD, "found a FIFO"); /* nobody writes into it: no waiting */
  refused("/dev/zero", FK_ERROR_MODEL_BAD, "found a character device");
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

/* ---- Writing ---- */

static char *content(int fd) {
  static char text[64];
  const ssize_t n = read(fd, text, sizeof text - 1);
  text[MAX(n, 0)] = 0;
  return text;
}

/* A socket with this name, and nobody behind it. */
static void make_socket(const char *path) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  g_assert_cmpuint(g_strlcpy(name.sun_path, path, sizeof name.sun_path), <, sizeof name.sun_path);
  g_assert_cmpint(bind(fd, (struct sockaddr *)&name, sizeof name), ==, 0);
  close(fd);
}

/* What cannot be written: told, it stays what it was, and nothing else is left. */
static void not_written(void) {
  const struct {
    const char *name;
    mode_t kind;
    const char *link, *says;
  } cases[] = {{"folder", S_IFDIR, NULL, "found a folder"},
               {"socket", S_IFSOCK, NULL, "found a socket"},
               {"unread", S_IFIFO, NULL, "nobody reads it"},
               {"disk", S_IFBLK, NULL, "found a block device"},
               {"to-folder", S_IFLNK, "folder", "found a folder"},
               {"to-socket", S_IFLNK, "socket", "found a socket"},
               {"to-unread", S_IFLNK, "unread", "nobody reads it"},
               {"to-nothing", S_IFLNK, "nowhere", "found a link to nothing"},
               {"to-itself", S_IFLNK, "to-itself", ""},
               {"no/folder", 0, NULL, "No such file"},
               {"file/inside", 0, NULL, "Not a directory"}};
  g_autofree char *own = scratch;
  scratch = g_build_filename(own, "not-written", NULL);
  g_assert_cmpint(g_mkdir(scratch, 0700), ==, 0);
  g_autofree char *file = write_text("file", "old");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *path = scratch_path(cases[i].name);
    struct stat before = {0}, after = {0};
    if (cases[i].kind == S_IFDIR) g_assert_cmpint(g_mkdir(path, 0700), ==, 0);
    if (cases[i].kind == S_IFIFO) g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    if (cases[i].kind == S_IFSOCK) make_socket(path);
    if (cases[i].kind == S_IFLNK) g_assert_cmpint(symlink(cases[i].link, path), ==, 0);
    /* of a driver that there is none of: it could not be opened either */
    if (cases[i].kind == S_IFBLK && mknod(path, S_IFBLK | 0600, makedev(240, 255)) != 0) continue;
    if (cases[i].kind) g_assert_cmpint(lstat(path, &before), ==, 0);
    g_assert_false(fk_file_write(path, "new", 3, &error));
    assert_error(error, FK_ERROR_OPTION_BAD, path, cases[i].says);
    int held = 0;
    g_assert_false(fk_file_check(path, &held, &error)); /* the same before the work */
    assert_error(error, FK_ERROR_OPTION_BAD, path, cases[i].says);
    g_assert_cmpint(held, ==, -1);
    if (cases[i].kind) g_assert_cmpint(lstat(path, &after), ==, 0);
    g_assert_true(before.st_ino == after.st_ino && before.st_mode == after.st_mode);
  }
  g_autoptr(GDir) dir = g_dir_open(scratch, 0, NULL);
  for (const char *name; (name = g_dir_read_name(dir));) g_assert_false(g_str_has_prefix(name, ".fluxkontext"));
  g_free(scratch);
  scratch = g_steal_pointer(&own);
}

/* A regular file is another one afterwards, with the permissions that it had; links to it stay links. */
static void replaced(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = write_text("replaced/file", "old"), *link = scratch_path("replaced/link");
  g_autofree char *made = scratch_path("replaced/made"), *text = NULL;
  struct stat before, after;
  g_assert_cmpint(g_chmod(path, 0640), ==, 0);
  g_assert_cmpint(symlink("file", link), ==, 0);
  const char *const names[] = {made, path, link};
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    g_assert_cmpint(stat(path, &before), ==, 0);
    const int fd = open(path, O_RDONLY); /* the number of the old file is taken while this is open */
    g_autofree char *want = g_strdup_printf("new %zu", i), *got = NULL;
    fk_file_write(names[i], want, strlen(want), &error);
    g_assert_no_error(error);
    g_assert_true(g_file_get_contents(names[i], &got, NULL, NULL));
    g_assert_cmpstr(got, ==, want);
    g_assert_cmpint(stat(path, &after), ==, 0);
    g_assert_true((before.st_ino == after.st_ino) == (i == 0));
    g_assert_cmpint(after.st_mode, ==, S_IFREG | 0640);
    close(fd);
  }
  g_assert_true(g_file_test(link, G_FILE_TEST_IS_SYMLINK));
  g_assert_true(fk_file_write(path, "", 0, NULL)); /* of no bytes */
  g_assert_true(g_file_get_contents(link, &text, NULL, NULL));
  g_assert_cmpstr(text, ==, "");
}

/* FIFOs and devices are written into, by their name and by a link; the reader may leave. */
static void written_into(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *fifo = scratch_path("into"), *link = scratch_path("to-into"), *device = scratch_path("null");
  struct stat status;
  g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
  g_assert_cmpint(symlink("into", link), ==, 0);
  const int fd = open(fifo, O_RDONLY | O_NONBLOCK);
  const char *const names[] = {fifo, link};
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    fk_file_write(names[i], "text", 4, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(content(fd), ==, "text");
  }
  close(fd);
  g_assert_true(lstat(fifo, &status) == 0 && S_ISFIFO(status.st_mode));
  g_assert_true(lstat(link, &status) == 0 && S_ISLNK(status.st_mode));
  int ends[2];
  g_assert_cmpint(pipe(ends), ==, 0);
  g_autofree char *end = g_strdup_printf("/proc/self/fd/%d", ends[1]), *rest = NULL;
  g_assert_true(fk_file_write(end, "text", 4, NULL));
  g_assert_cmpstr(content(ends[0]), ==, "text");
  close(ends[0]);
  g_assert_false(fk_file_write(end, "text", 4, &error)); /* an error and no signal */
  assert_error(error, FK_ERROR_OPTION_BAD, end, "");
  close(ends[1]);
  /* a file that has no name any more, as standard output may be */
  g_autofree char *gone = write_text("gone", "old text"), *open_gone = NULL;
  const int file = open(gone, O_RDWR);
  g_assert_cmpint(g_remove(gone), ==, 0);
  open_gone = g_strdup_printf("/proc/self/fd/%d", file);
  g_assert_true(fk_file_write(open_gone, "text", 4, NULL));
  g_assert_cmpstr(content(file), ==, "text");
  close(file);
  if (mknod(device, S_IFCHR | 0600, makedev(1, 3)) == 0 && access(device, W_OK) == 0 &&
      g_file_get_contents(device, &rest, NULL, NULL)) { /* of a null device that is this test's own */
    g_assert_true(fk_file_write(device, "text", 4, NULL));
    g_assert_true(lstat(device, &status) == 0 && S_ISCHR(status.st_mode));
  }
}

static gpointer read_late(gpointer path) {
  g_usleep(50000);
  const int fd = open(path, O_RDONLY);
  char bytes[16] = "";
  size_t n = 0;
  for (ssize_t now; n < sizeof bytes - 1 && (now = read(fd, bytes + n, sizeof bytes - 1 - n)) > 0;) n += (size_t)now;
  close(fd);
  return g_strdup(bytes);
}

/* Nothing is made or changed; the reader of a FIFO may come late, and has its end after the file and not before. */
static void checked(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *file = write_text("checked/file", "old"), *made = scratch_path("checked/made"), *text = NULL;
  g_autofree char *fifo = scratch_path("checked/fifo");
  const char *const names[] = {file, made, "/dev/null"};
  int held = 0;
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    g_assert_true(fk_file_check(names[i], &held, &error));
    g_assert_no_error(error);
    g_assert_cmpint(held, ==, -1);
  }
  g_assert_false(g_file_test(made, G_FILE_TEST_EXISTS));
  g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
  g_assert_cmpstr(text, ==, "old");
  g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
  GThread *reader = g_thread_new("reader", read_late, fifo);
  g_assert_true(fk_file_check(fifo, &held, &error));
  g_assert_no_error(error);
  g_usleep(100000);
  g_assert_true(fk_file_write(fifo, "text", 4, &error));
  g_assert_no_error(error);
  close(held);
  g_autofree char *got = g_thread_join(reader);
  g_assert_cmpstr(got, ==, "text");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  g_test_add_func("/file/not-files", not_files);
  g_test_add_func("/file/denied", denied);
  g_test_add_func("/file/reads", reads);
  g_test_add_func("/file/loads", loads);
  g_test_add_func("/file/shown-names", shown_names);
  g_test_add_func("/file/not-written", not_written);
  g_test_add_func("/file/replaced", replaced);
  g_test_add_func("/file/written-into", written_into);
  g_test_add_func("/file/checked", checked);
  const int status = g_test_run();
  scratch_close();
  return status;
}
