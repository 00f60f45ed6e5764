/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a packed model; see pack.h. Its groups are read by weights-load.c like everything else. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "pack.h"

#include "file.h"
#include "fk-error.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LENGTH = 8, DIGITS = 16 };

struct FkPack {
  FkSafetensors *file;
  uint64_t *sums; /* of all tensors, one behind the other */
  size_t *first;  /* of each tensor, its first */
};

bool fk_pack_detect(const char *path) {
  char begin[LENGTH + sizeof FK_PACK_BEGIN - 1];
  uint64_t size;
  if (!g_file_test(path, G_FILE_TEST_IS_REGULAR)) return false;
  const int fd = fk_file_open(path, &size, NULL);
  if (fd < 0) return false;
  const bool read = size >= sizeof begin && fk_file_read(fd, path, 0, begin, sizeof begin, NULL);
  close(fd);
  return read && !memcmp(begin + LENGTH, FK_PACK_BEGIN, sizeof begin - LENGTH);
}

const char *fk_pack_text(const FkPack *p, const char *name) {
  g_autofree char *key = g_strconcat("fluxkontext.", name, NULL);
  const char *text = fk_safetensors_metadata(p->file, key);
  return text ? text : "";
}

static bool bad(const FkPack *p, GError **error, const char *what) {
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD, "%s: packed model: %s", fk_safetensors_path(p->file), what);
  return false;
}

static bool parse_digits(const char *text, uint64_t *value) {
  *value = 0;
  for (int i = 0; i < DIGITS; i++) {
    const int digit = g_ascii_xdigit_value(text[i]);
    if (digit < 0) return false;
    *value = *value << 4 | (uint64_t)digit;
  }
  return true;
}

/* Length and header as they are in the file, but for the digits of their own sum. */
static bool check_header(const FkPack *p, const char *path, GError **error) {
  const size_t bytes = LENGTH + fk_safetensors_header_bytes(p->file);
  g_autofree char *header = g_try_malloc(bytes + 1);
  uint64_t size, expected;
  if (!header) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: an allocation of %zu bytes was refused",
                fk_safetensors_path(p->file), bytes);
    return false;
  }
  const int fd = fk_file_open(path, &size, error);
  if (fd < 0) return false;
  const bool read = fk_file_read(fd, path, 0, header, bytes, error);
  close(fd);
  if (!read) return false;
  header[bytes] = 0;
  char *found = strstr(header + LENGTH, FK_PACK_HEADER), *digits = found ? found + strlen(FK_PACK_HEADER) : NULL;
  if (!digits || strlen(digits) < DIGITS || !parse_digits(digits, &expected))
    return bad(p, error, "its header has no sum: it is damaged");
  memset(digits, '0', DIGITS);
  if (fk_sum(header, bytes) == expected) return true;
  return bad(p, error, "its header is not as it was written: it is damaged");
}

/* One sum of 16 digits for each chunk of each tensor. */
static bool take_sums(FkPack *p, GError **error) {
  const char *text = fk_pack_text(p, "sums");
  const size_t n = fk_safetensors_count(p->file), count = strlen(text) / DIGITS;
  size_t next = 0;
  p->sums = g_try_new(uint64_t, count + 1); /* one more: never NULL */
  p->first = g_try_new(size_t, n + 1);
  if (!p->sums || !p->first) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for the sums of %zu tensors",
                fk_safetensors_path(p->file), n);
    return false;
  }
  for (size_t i = 0; i < count; i++)
    if (!parse_digits(text + i * DIGITS, &p->sums[i])) return bad(p, error, "its sums are not hexadecimal digits");
  for (size_t i = 0; i < n; i++) {
    const uint64_t bytes = fk_safetensors_at(p->file, i)->bytes, chunks = (bytes + FK_SUM_CHUNK - 1) / FK_SUM_CHUNK;
    p->first[i] = next;
    if (chunks > count - next) return bad(p, error, "it has fewer sums than its tensors have chunks");
    next += chunks;
  }
  return next == count || bad(p, error, "it has more sums than its tensors have chunks");
}

FkPack *fk_pack_open(const char *path, GError **error) {
  g_autoptr(FkPack) p = g_new0(FkPack, 1);
  p->file = fk_safetensors_open(path, error);
  if (!p->file) return NULL;
  const char *format = fk_pack_text(p, "pack"); /* first: what a sum is follows from it */
  if (strcmp(format, FK_PACK_FORMAT)) {
    g_autofree char *found = fk_shown_name(format), *version = fk_shown_name(fk_pack_text(p, "version"));
    g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISMATCH,
                "%s: packed model: expected format %s, found %s, written by version %s; pack the model again",
                fk_safetensors_path(p->file), FK_PACK_FORMAT, found, version);
    return NULL;
  }
  return check_header(p, path, error) && take_sums(p, error) ? g_steal_pointer(&p) : NULL;
}

void fk_pack_free(FkPack *p) {
  if (!p) return;
  fk_safetensors_free(p->file);
  g_free(p->sums);
  g_free(p->first);
  g_free(p);
}

const FkSafetensors *fk_pack_file(const FkPack *p) {
  return p->file;
}

static const FkStTensor *find(const FkPack *p, const char *name, const uint64_t **sums) {
  const FkStTensor *t = fk_safetensors_find(p->file, name);
  if (!t || strcmp(fk_st_type_name(t), "U8")) return NULL;
  *sums = p->sums + p->first[t - fk_safetensors_at(p->file, 0)];
  return t;
}

const FkStTensor *fk_pack_find(const FkPack *p, const char *name, uint64_t bytes, const uint64_t **sums,
                               GError **error) {
  const FkStTensor *t = find(p, name, sums);
  if (t && t->bytes == bytes) return t;
  g_autofree char *found = t ? g_strdup_printf("%" G_GUINT64_FORMAT, (guint64)t->bytes) : g_strdup("none");
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
              "%s: packed model: tensor \"%s\": expected U8 of %" G_GUINT64_FORMAT " bytes, found %s",
              fk_safetensors_path(p->file), name, (guint64)bytes, found);
  return NULL;
}

/* ---- Bytes of tensors ---- */

#define BLOCK (256u << 10) /* bytes: still in the second-level cache when they are summed */

static bool check_chunk(FkPackReading *r, GError **error) {
  const uint64_t chunk = (r->at - 1) / FK_SUM_CHUNK, expected = r->sums[chunk], found = fk_sum_end(&r->sum);
  fk_sum_begin(&r->sum);
  if (found == expected) return true;
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_BAD,
              "from its byte %" G_GUINT64_FORMAT " on: expected bytes of sum %016" G_GINT64_MODIFIER
              "x, found %016" G_GINT64_MODIFIER "x: the packed model is damaged",
              (guint64)(chunk * FK_SUM_CHUNK), (guint64)expected, (guint64)found);
  return false;
}

bool fk_pack_next(FkPackReading *r, void *to, size_t n, GError **error) {
  for (size_t done = 0; done < n;) {
    const size_t now = MIN(MIN(BLOCK, n - done), FK_SUM_CHUNK - r->at % FK_SUM_CHUNK);
    char *block = (char *)to + done;
    if (!fk_safetensors_read(r->file, r->tensor, r->at, block, now, error)) return false;
    const gint64 start = g_get_monotonic_time();
    fk_sum_add(&r->sum, block, now);
    r->sum_us += g_get_monotonic_time() - start;
    r->at += now;
    done += now;
    if ((r->at % FK_SUM_CHUNK == 0 || r->at == r->tensor->bytes) && !check_chunk(r, error)) return false;
  }
  return true;
}

static bool skip(FkPackReading *r, uint64_t n, GError **error) {
  char bytes[64 << 10];
  for (size_t now; n; n -= now) {
    now = MIN(sizeof bytes, n);
    if (!fk_pack_next(r, bytes, now, error)) return false;
  }
  return true;
}

bool fk_pack_begin(FkPackReading *r, const FkSafetensors *file, const FkStTensor *tensor, const uint64_t *sums,
                   uint64_t offset, GError **error) {
  const uint64_t before = offset % FK_SUM_CHUNK;
  *r = (FkPackReading){.file = file, .tensor = tensor, .sums = sums, .at = offset - before};
  fk_sum_begin(&r->sum);
  return skip(r, before, error);
}

bool fk_pack_end(FkPackReading *r, GError **error) {
  const uint64_t more = r->at % FK_SUM_CHUNK ? FK_SUM_CHUNK - r->at % FK_SUM_CHUNK : 0;
  return skip(r, MIN(more, r->tensor->bytes - r->at), error);
}

/* ---- Files inside ---- */

/* The bytes of a file inside, as a file without a name. */
static int unpack(const FkPack *p, const char *name, const char *shown, uint64_t *size, GError **error) {
  g_autofree char *tensor = g_strconcat("files/", name, NULL);
  const uint64_t *sums;
  const FkStTensor *t = find(p, tensor, &sums);
  if (!t || t->bytes > FK_PACK_LARGEST_FILE) {
    g_set_error(error, FK_ERROR, t ? FK_ERROR_MODEL_BAD : FK_ERROR_MODEL_MISSING, "%s: the packed model has %s", shown,
                t ? "more than 64 MiB of it" : "no such file");
    return -1;
  }
  g_autofree char *bytes = g_try_malloc(t->bytes + 1);
  const int fd = bytes ? memfd_create("fluxkontext", MFD_CLOEXEC) : -1;
  if (fd < 0) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for its %" G_GUINT64_FORMAT " bytes", shown,
                (guint64)t->bytes);
    return -1;
  }
  *size = t->bytes;
  FkPackReading r;
  bool ok = fk_pack_begin(&r, p->file, t, sums, 0, error) && fk_pack_next(&r, bytes, t->bytes, error);
  if (!ok) g_prefix_error(error, "%s: ", shown);
  for (size_t done = 0; ok && done < t->bytes;) {
    const ssize_t n = write(fd, bytes + done, t->bytes - done);
    if (n > 0) done += (size_t)n;
    if (n > 0) continue;
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "%s: no memory for its %" G_GUINT64_FORMAT " bytes", shown,
                (guint64)t->bytes);
    ok = false;
  }
  if (ok) return fd;
  close(fd);
  return -1;
}

int fk_file_open_inside(const char *path, uint64_t *size, GError **error) {
  g_autofree char *shown = fk_shown_path(path), *outer = g_strdup(path);
  for (char *slash; (slash = strrchr(outer, '/'));) {
    *slash = 0;
    if (!g_file_test(outer, G_FILE_TEST_EXISTS)) continue;
    if (!fk_pack_detect(outer)) break;
    g_autoptr(FkPack) p = fk_pack_open(outer, error);
    return p ? unpack(p, path + (slash - outer) + 1, shown, size, error) : -1;
  }
  struct stat status;
  const bool known = stat(outer, &status) == 0;
  g_autofree char *there = fk_shown_path(outer);
  g_set_error(error, FK_ERROR, FK_ERROR_MODEL_MISSING,
              "%s: cannot be opened: expected %s to be a folder or a packed model, found %s", shown, there,
              !known                    ? "neither a folder nor a file"
              : S_ISREG(status.st_mode) ? "another file"
                                        : fk_file_kind(status.st_mode));
  return -1;
}
