/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and reading regular files of a model, and names in messages; see file.h. */
#define _POSIX_C_SOURCE 200809L
#include "file.h"

#include "fk-error.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static FkError error_code(int number) {
  if (number == ENOENT || number == ENOTDIR) return FK_ERROR_MODEL_MISSING;
  if (number == EACCES || number == EPERM) return FK_ERROR_MODEL_DENIED;
  if (number == ENOMEM || number == EMFILE || number == ENFILE) return FK_ERROR_MEMORY;
  return FK_ERROR_MODEL_BAD;
}

/* ---- Names in messages ---- */

/* Format characters (which turn the writing direction, say) and separators of lines count as not printable. */
static bool printable(gunichar c) {
  GUnicodeType type = g_unichar_type(c);
  return g_unichar_isprint(c) && type != G_UNICODE_LINE_SEPARATOR && type != G_UNICODE_PARAGRAPH_SEPARATOR;
}

static char *shown(const char *text, size_t limit) {
  GString *out = g_string_new(NULL);
  while (*text) {
    gunichar c = g_utf8_get_char_validated(text, -1);
    bool valid = c < 0x110000; /* else one of two codes for what is not UTF-8 */
    char piece[16];
    if (!valid)
      g_snprintf(piece, sizeof piece, "\\x%02x", (guint)(guchar)*text);
    else if (printable(c))
      piece[g_unichar_to_utf8(c, piece)] = 0;
    else
      g_snprintf(piece, sizeof piece, "\\u%04x", c);
    if (out->len + strlen(piece) > limit) {
      g_string_append(out, "...");
      break;
    }
    g_string_append(out, piece);
    text = valid ? g_utf8_next_char(text) : text + 1;
  }
  return g_string_free(out, FALSE);
}

char *fk_shown_name(const char *name) {
  return shown(name, 120);
}

char *fk_shown_path(const char *path) {
  return shown(path, SIZE_MAX);
}

char **fk_file_list(const char *property, const char *list, guint most, GError **error) {
  g_auto(GStrv) names = g_strsplit(list ? list : "", ";", -1);
  const guint n = g_strv_length(names);
  guint empty = 0;
  for (guint i = 0; i < n; i++)
    if (!*g_strstrip(names[i]) && !empty) empty = i + 1;
  if (empty)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: expected a file between semicolons, entry %u is empty",
                property, empty);
  else if (n > most)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: expected up to %u files, found %u", property, most, n);
  else
    return g_steal_pointer(&names);
  return NULL;
}

bool fk_decimal(const char *text, double *number) {
  char *end;
  *number = g_ascii_strtod(text, &end);
  return *text && !text[strspn(text, "+-.0123456789eE")] && !*end && isfinite(*number);
}

/* ---- Files ---- */

const char *fk_file_kind(mode_t mode) {
  switch (mode & S_IFMT) {
  case S_IFREG: return "a regular file";
  case S_IFDIR: return "a folder";
  case S_IFIFO: return "a FIFO";
  case S_IFSOCK: return "a socket";
  case S_IFCHR: return "a character device";
  case S_IFBLK: return "a block device";
  }
  return "something else";
}

int fk_file_open(const char *path, uint64_t *size, GError **error) {
  g_autofree char *shown = fk_shown_path(path);
  int fd;
  /* O_NONBLOCK: opening a pipe that nobody writes would wait for ever. It changes nothing for regular files. */
  do fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    int number = errno;
    if (number == ENOTDIR) return fk_file_open_inside(path, size, error);
    g_set_error(error, FK_ERROR, error_code(number), "%s: cannot be opened: %s", shown, g_strerror(number));
    return -1;
  }
  struct stat status;
  const bool known = fstat(fd, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    close(fd);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: expected a regular file, found %s", shown,
                known ? fk_file_kind(status.st_mode) : "something else");
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
    g_autofree char *shown = fk_shown_path(path);
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
    g_autofree char *shown = fk_shown_path(path);
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
                "%s: expected at most %" G_GSIZE_FORMAT " bytes, found %" G_GUINT64_FORMAT, shown, limit,
                (guint64)bytes);
    return NULL;
  }
  char *text = g_try_malloc(bytes + 1);
  if (!text) {
    close(fd);
    g_autofree char *shown = fk_shown_path(path);
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for its %" G_GUINT64_FORMAT " bytes", shown,
                (guint64)bytes);
    return NULL;
  }
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
