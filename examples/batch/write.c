/* SPDX-License-Identifier: Apache-2.0 */
/* Files, whole or not at all; see write.h. */
#include "write.h"

#include <errno.h>
#include <fcntl.h>
#include <fk.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX ".fluxkontext-"
#define SUFFIX ".tmp"

static GMutex lock;
static GHashTable *open_names; /* temporary files of this process: under the lock */
static bool abandoned;

/* "HOST-PID", the host without what a name cannot hold. */
static char *owner(void) {
  char *host = g_strcanon(g_strdup(g_get_host_name()), G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS ".", '_');
  char *text = g_strdup_printf("%s-%ld", host, (long)getpid());
  g_free(host);
  return text;
}

/* The file is made under the lock, so that write_abandon knows each. -1 with errno. */
static int open_temporary(const char *folder, char **path) {
  static guint number;
  g_autofree char *mine = owner();
  int fd = -1;
  g_mutex_lock(&lock);
  if (!open_names) open_names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  g_autofree char *name = g_strdup_printf(PREFIX "%s-%u" SUFFIX, mine, number++);
  *path = g_build_filename(folder, name, NULL);
  errno = EINTR;
  if (!abandoned) fd = g_open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  const int why = errno;
  if (fd >= 0) g_hash_table_add(open_names, g_strdup(*path));
  g_mutex_unlock(&lock);
  errno = why;
  return fd;
}

/* Renames it, or with to NULL removes it. */
static bool close_temporary(const char *path, const char *to) {
  g_mutex_lock(&lock);
  bool ok = !abandoned;
  if (!ok) errno = EINTR;
  if (ok) ok = to ? g_rename(path, to) == 0 : g_unlink(path) == 0;
  const int why = errno;
  if (!ok && to && !abandoned) g_unlink(path);
  g_hash_table_remove(open_names, path);
  g_mutex_unlock(&lock);
  errno = why;
  return ok;
}

static bool write_all(int fd, const char *data, gsize bytes) {
  while (bytes) {
    const ssize_t n = write(fd, data, MIN(bytes, (gsize)1 << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data += n;
    bytes -= (gsize)n;
  }
  return true;
}

/* A folder that cannot be synced, as on some network file systems, still has the file. */
static void sync_folder(const char *folder) {
  const int fd = g_open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

static bool fail(const char *path, int why, GError **error) {
  g_autofree char *shown = g_filename_display_name(path);
  const GFileError code = why == EDQUOT ? G_FILE_ERROR_NOSPC : g_file_error_from_errno(why);
  g_set_error(error, G_FILE_ERROR, (int)code, "%s: %s", shown, g_strerror(why));
  return false;
}

bool write_whole(const char *path, const void *data, gsize bytes, GError **error) {
  struct stat there;
  if (g_lstat(path, &there) == 0 && !S_ISREG(there.st_mode)) return fk_file_write(path, data, bytes, error);
  g_autofree char *folder = g_path_get_dirname(path), *temporary = NULL;
  const int fd = open_temporary(folder, &temporary);
  if (fd < 0) return fail(path, errno, error);
  bool ok = write_all(fd, data, bytes) && !fsync(fd);
  int why = errno;
  if (close(fd) && ok) {
    ok = false;
    why = errno;
  }
  if (!ok) {
    close_temporary(temporary, NULL);
    return fail(path, why, error);
  }
  if (!close_temporary(temporary, path)) return fail(path, errno, error);
  sync_folder(folder);
  return true;
}

bool write_failed_for_all(const GError *error) {
  static const GFileError codes[] = {G_FILE_ERROR_NOSPC, G_FILE_ERROR_ROFS, G_FILE_ERROR_IO, G_FILE_ERROR_ACCES};
  for (size_t i = 0; i < G_N_ELEMENTS(codes); i++)
    if (g_error_matches(error, G_FILE_ERROR, (int)codes[i])) return true;
  return false;
}

bool write_folder(const char *folder, GError **error) {
  g_autofree char *temporary = NULL;
  if (g_mkdir_with_parents(folder, 0777)) return fail(folder, errno, error);
  const int fd = open_temporary(folder, &temporary);
  if (fd < 0) return fail(folder, errno, error);
  close(fd);
  return close_temporary(temporary, NULL) || fail(folder, errno, error);
}

/* The process in "PREFIX HOST-PID-NUMBER SUFFIX" of this host is no more. */
static bool is_stale(const char *name, const char *host) {
  int number = 0;
  long pid = 0;
  if (!g_str_has_prefix(name, host) || !g_str_has_suffix(name, SUFFIX)) return false;
  return sscanf(name + strlen(host), "%9ld-%9d", &pid, &number) == 2 && pid > 0 && kill((pid_t)pid, 0) &&
         errno == ESRCH;
}

void write_clean(const char *folder) {
  g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
  g_autofree char *mine = owner();
  *(strrchr(mine, '-') + 1) = 0;
  g_autofree char *host = g_strconcat(PREFIX, mine, NULL);
  const char *name;
  while (dir && (name = g_dir_read_name(dir))) {
    g_autofree char *path = g_build_filename(folder, name, NULL);
    if (is_stale(name, host)) g_unlink(path);
  }
}

void write_abandon(void) {
  g_mutex_lock(&lock);
  abandoned = true;
  GHashTableIter iter;
  gpointer path;
  if (open_names) {
    g_hash_table_iter_init(&iter, open_names);
    while (g_hash_table_iter_next(&iter, &path, NULL)) g_unlink(path);
  }
  g_mutex_unlock(&lock);
}
