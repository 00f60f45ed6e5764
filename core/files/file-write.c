/* SPDX-License-Identifier: Apache-2.0 */
/* Files whole or not at all, and what is no file; see file-write.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "file-write.h"

#include "file.h"
#include "fk.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool fail(const char *path, const char *why, GError **error) {
  g_autofree char *shown = fk_shown_path(path);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", shown, why);
  return false;
}

static char *refuse(const char *path, const char *found, GError **error) {
  g_autofree char *why =
      g_strdup_printf("expected a regular file, a FIFO or a character device to write, or nothing, found %s", found);
  fail(path, why, error);
  return NULL;
}

char *fk_file_target(const char *path, bool *into, GError **error) {
  struct stat there, name;
  const bool exists = stat(path, &there) == 0;
  const int number = errno;
  *into = false;
  if (!exists && number == ENOENT) {
    if (lstat(path, &name) != 0) return g_strdup(path);
    return refuse(path, "a link to nothing", error);
  }
  if (!exists) {
    fail(path, g_strerror(number), error);
    return NULL;
  }
  if (S_ISDIR(there.st_mode) || S_ISSOCK(there.st_mode) || S_ISBLK(there.st_mode))
    return refuse(path, fk_file_kind(there.st_mode), error);
  *into = !S_ISREG(there.st_mode);
  if (*into || (lstat(path, &name) == 0 && S_ISREG(name.st_mode))) return g_strdup(path);
  char *real = realpath(path, NULL);
  /* /proc/self/fd/1 of a file without a name leads to a text that is none */
  *into = !real || lstat(real, &name) != 0 || name.st_dev != there.st_dev || name.st_ino != there.st_ino;
  char *to = g_strdup(*into ? path : real);
  free(real);
  return to;
}

/* False with errno. */
static bool write_all(int fd, const char *data, size_t bytes) {
  while (bytes) {
    const ssize_t n = write(fd, data, MIN(bytes, (size_t)1 << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data += n;
    bytes -= (size_t)n;
  }
  return true;
}

/* The same, where a reader may leave: that is an error here (EPIPE) and no signal, which would end the process. */
static bool write_piped(int fd, const char *data, size_t bytes) {
  const struct timespec now = {0, 0};
  sigset_t pipe, pending, before;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  const bool ok = write_all(fd, data, bytes);
  const int number = errno;
  if (!ok && number == EPIPE && !sigismember(&pending, SIGPIPE)) sigtimedwait(&pipe, NULL, &now);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = number;
  return ok;
}

/* O_NONBLOCK: a FIFO that nobody reads would be waited for, for ever. -1 with an error. */
static int open_into(const char *path, int flags, GError **error) {
  const int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags);
  if (fd < 0) fail(path, errno == ENXIO ? "nobody reads it" : g_strerror(errno), error);
  return fd;
}

static bool write_into(const char *path, const void *data, size_t bytes, GError **error) {
  const int fd = open_into(path, O_TRUNC, error);
  if (fd < 0) return false;
  const bool ok = fcntl(fd, F_SETFL, 0) == 0 && write_piped(fd, data, bytes);
  const int number = errno;
  const bool closed = close(fd) == 0;
  return (ok && closed) || fail(path, g_strerror(ok ? errno : number), error);
}

/* As the file that goes: its permissions and, where this user may, its owner; then it has to be on the disk before. */
static bool take_over(int fd, const char *to) {
  struct stat old;
  if (stat(to, &old) != 0) return true;
  if (fchown(fd, old.st_uid, old.st_gid) != 0) errno = 0;
  return fchmod(fd, old.st_mode & 0777) == 0 && fsync(fd) == 0;
}

bool fk_file_write(const char *path, const void *data, size_t bytes, GError **error) {
  bool into;
  g_autofree char *to = fk_file_target(path, &into, error);
  if (!to) return false;
  if (into) return write_into(to, data, bytes, error);
  g_autofree char *folder = g_path_get_dirname(to);
  g_autofree char *temporary = g_build_filename(folder, ".fluxkontext-XXXXXX", NULL);
  const int fd = g_mkstemp_full(temporary, O_WRONLY | O_CLOEXEC, 0666);
  if (fd < 0) return fail(path, g_strerror(errno), error);
  bool ok = write_all(fd, data, bytes) && take_over(fd, to);
  int number = errno;
  if (close(fd) != 0 && ok) {
    ok = false;
    number = errno;
  }
  if (ok && g_rename(temporary, to) == 0) return true;
  if (ok) number = errno;
  g_unlink(temporary);
  return fail(path, g_strerror(number), error);
}

/* What else than a FIFO stands there is not opened: that may do something to a device. */
bool fk_file_check(const char *path, int *held, GError **error) {
  bool into;
  struct stat there;
  g_autofree char *to = fk_file_target(path, &into, error);
  *held = -1;
  if (!to) return false;
  if (into && stat(to, &there) == 0 && S_ISFIFO(there.st_mode)) {
    for (int i = 0; i < 20 && (*held = open_into(to, 0, NULL)) < 0; i++) g_usleep(50000);
    return *held >= 0 || (*held = open_into(to, 0, error)) >= 0;
  }
  g_autofree char *folder = g_path_get_dirname(to);
  return access(into ? to : folder, into ? W_OK : W_OK | X_OK) == 0 || fail(path, g_strerror(errno), error);
}
