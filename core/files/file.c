/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and reading regular files of a model; see file.h. */
#define _POSIX_C_SOURCE 200809L
#include "file.h"

#include "fk-error.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static FkError error_code(int number) {
  if (number == ENOENT || number == ENOTDIR) return FK_ERROR_MODEL_MISSING;
  if (number == EACCES || number == EPERM) return FK_ERROR_MODEL_DENIED;
  if (number == ENOMEM || number == EMFILE || number == ENFILE) return FK_ERROR_MEMORY;
  return FK_ERROR_MODEL_BAD;
}

int fk_file_open(const char *path, uint64_t *size, GError **error) {
  g_autofree char *shown = g_filename_display_name(path);
  int fd;
  /* O_NONBLOCK: opening a pipe that nobody writes would wait for ever. It changes nothing for regular files. */
  do fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    int number = errno;
    g_set_error(error, FK_ERROR, error_code(number), "%s: cannot be opened: %s", shown, g_strerror(number));
    return -1;
  }
  struct stat status;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(fd);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: expected a regular file, found %s", shown,
                S_ISDIR(status.st_mode) ? "a folder" : "something else");
    return -1;
  }
  *size = (uint64_t)status.st_size;
  return fd;
}

bool fk_file_read(int fd, const char *path, uint64_t offset, void *to, size_t bytes, GError **error) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t got = pread(fd, (char *)to + done, bytes - done, (off_t)(offset + done));
    if (got > 0) done += (size_t)got;
    if (got > 0 || (got < 0 && errno == EINTR)) continue;
    int number = got < 0 ? errno : 0;
    g_autofree char *shown = g_filename_display_name(path);
    if (number)
      g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: cannot be read at byte %" G_GUINT64_FORMAT ": %s", shown,
                  (guint64)(offset + done), g_strerror(number));
    else
      g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                  "%s: ends at byte %" G_GUINT64_FORMAT ", expected %" G_GUINT64_FORMAT " more", shown,
                  (guint64)(offset + done), (guint64)(bytes - done));
    return false;
  }
  return true;
}

char *fk_file_load(const char *path, size_t limit, size_t *size, GError **error) {
  uint64_t bytes;
  int fd = fk_file_open(path, &bytes, error);
  if (fd < 0) return NULL;
  if (bytes > limit) {
    close(fd);
    g_autofree char *shown = g_filename_display_name(path);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: expected at most %" G_GSIZE_FORMAT " bytes, found %" G_GUINT64_FORMAT, shown, limit,
                (guint64)bytes);
    return NULL;
  }
  char *text = g_malloc(bytes + 1);
  bool ok = fk_file_read(fd, path, 0, text, bytes, error);
  close(fd);
  if (!ok) {
    g_free(text);
    return NULL;
  }
  text[bytes] = 0;
  *size = bytes;
  return text;
}
