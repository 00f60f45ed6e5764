/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the host; see host.h. What cannot be read has no say. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "host.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH = 4096, LINE = 4096 };

static FILE *open_file(const char *root, const char *folder, const char *name) {
  char path[3 * PATH];
  snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
  return fopen(path, "re");
}

/* A whole number that is there, as far as a size can say it; else `none` ("max"). */
static size_t parse(const char *text, size_t none) {
  char *end;
  const unsigned long long value = strtoull(text, &end, 10);
  return end == text ? none : value > SIZE_MAX ? SIZE_MAX : (size_t)value;
}

/* The number in the file; more than there can be: there is none. */
static size_t number(const char *root, const char *folder, const char *name) {
  char line[64];
  FILE *file = open_file(root, folder, name);
  if (!file) return SIZE_MAX;
  const size_t value = fgets(line, sizeof line, file) ? parse(line, SIZE_MAX) : SIZE_MAX;
  fclose(file);
  return value;
}

/* Sum of the lines "word number" whose word is one of two. */
static size_t sum_of(const char *root, const char *folder, const char *name, const char *a, const char *b) {
  char line[256];
  size_t sum = 0;
  FILE *file = open_file(root, folder, name);
  if (!file) return 0;
  while (fgets(line, sizeof line, file)) {
    const size_t word = strcspn(line, " ");
    if (!line[word]) continue;
    line[word] = 0;
    if (!strcmp(line, a) || !strcmp(line, b)) sum += parse(line + word + 1, 0);
  }
  fclose(file);
  return sum;
}

static FkHostMemory of_machine(const char *root) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  FkHostMemory m = {(size_t)sysconf(_SC_AVPHYS_PAGES) * page, (size_t)sysconf(_SC_PHYS_PAGES) * page};
  const size_t total = sum_of(root, "/proc", "meminfo", "MemTotal:", ""),
               available = sum_of(root, "/proc", "meminfo", "MemAvailable:", "");
  if (total) m.total = total * 1024;
  if (available) m.available = available * 1024; /* else free pages alone: an old kernel */
  return m;
}

/* Names of one version's files. */
typedef struct {
  const char *mount, *limit, *used, *cache[2];
} Group;

/* A limit of this group and of those above it; each has its files in a folder of the mount. */
static void limit_by(FkHostMemory *m, const char *root, const Group *g, char *path) {
  for (;;) {
    char folder[2 * PATH];
    snprintf(folder, sizeof folder, "%s%s", g->mount, path);
    const size_t limit = number(root, folder, g->limit), used = number(root, folder, g->used);
    if (limit < m->total) m->total = limit;
    if (limit != SIZE_MAX && used != SIZE_MAX) {
      const size_t cache = sum_of(root, folder, "memory.stat", g->cache[0], g->cache[1]);
      const size_t taken = used > cache ? used - cache : 0, left = limit > taken ? limit - taken : 0;
      if (left < m->available) m->available = left;
    }
    char *slash = strrchr(path, '/');
    if (!slash) return;
    *slash = 0;
  }
}

/* Lines "id:controllers:/path"; version 2 has no controllers there. */
FkHostMemory fk_host_memory(const char *root) {
  static const Group one = {"/sys/fs/cgroup/memory",
                            "memory.limit_in_bytes",
                            "memory.usage_in_bytes",
                            {"total_active_file", "total_inactive_file"}};
  static const Group two = {"/sys/fs/cgroup", "memory.max", "memory.current", {"active_file", "inactive_file"}};
  FkHostMemory m = of_machine(root);
  FILE *file = open_file(root, "/proc/self", "cgroup");
  char line[LINE];
  while (file && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path) continue;
    *path++ = 0;
    controllers++;
    if (!*controllers) limit_by(&m, root, &two, path);
    if (!strcmp(controllers, "memory") || strstr(controllers, ",memory") || !strncmp(controllers, "memory,", 7))
      limit_by(&m, root, &one, path);
  }
  if (file) fclose(file);
  return m;
}
