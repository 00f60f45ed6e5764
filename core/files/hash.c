/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes of files; see hash.h. */
#include "hash.h"

#include "file.h"

#include <fcntl.h>
#include <unistd.h>

enum { MIB = 1 << 20, SAMPLE = 4096 };

/* Bytes to hash from `at` on; at is a multiple of MIB. */
static size_t piece(uint64_t at, uint64_t size) {
  const uint64_t left = size - at;
  const bool edge = size <= FK_HASH_WHOLE || at == 0 || left <= MIB;
  return (size_t)MIN(left, (uint64_t)(edge ? MIB : SAMPLE));
}

static bool hash(GChecksum *sum, int fd, const char *path, uint64_t size, GError **error) {
  g_autofree uint8_t *buffer = g_malloc(MIB);
  for (uint64_t at = 0; at < size; at += MIB) {
    const size_t n = piece(at, size);
    if (!fk_file_read(fd, path, at, buffer, n, error)) return false;
    g_checksum_update(sum, buffer, (gssize)n);
  }
  return true;
}

char *fk_hash_file(const char *path, uint64_t *bytes, bool *sampled, GError **error) {
  const int fd = fk_file_open(path, bytes, error);
  if (fd < 0) return NULL;
  g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
  g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, *bytes);
  *sampled = *bytes > FK_HASH_WHOLE;
  if (*sampled) {
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM); /* reading ahead would read most of it */
    g_checksum_update(sum, (const guchar *)size, -1);
  }
  const bool ok = hash(sum, fd, path, *bytes, error);
  close(fd);
  return ok ? g_strdup(g_checksum_get_string(sum)) : NULL;
}
