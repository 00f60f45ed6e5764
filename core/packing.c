/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a packed model (pack.h): the loader fills memory that is the file itself, so that no part has to fit in memory
 * and a packed group is what an engine would hold, byte by byte. The sums and the header follow when everything is
 * there, under another name until then. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "packing.h"

#include "adapters.h"
#include "calibration.h"
#include "file-write.h"
#include "file.h"
#include "hash.h"
#include "properties.h"
#include "registry.h"
#include "sum.h"
#include "tune.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 65536u /* bytes; of the largest pages that Linux has */

/* The files that a model is opened by, beside its weights. */
static const char *const small_files[] = {"model_index.json",
                                          "transformer/config.json",
                                          "vae/config.json",
                                          "text_encoder/config.json",
                                          "text_encoder_2/config.json",
                                          "scheduler/scheduler_config.json",
                                          "tokenizer/vocab.json",
                                          "tokenizer/merges.txt",
                                          "tokenizer/tokenizer_config.json",
                                          "tokenizer/special_tokens_map.json",
                                          "tokenizer/tokenizer.json",
                                          "tokenizer_2/spiece.model",
                                          "tokenizer_2/tokenizer_config.json",
                                          "tokenizer_2/special_tokens_map.json",
                                          "tokenizer_2/tokenizer.json"};

typedef struct {
  char *name;
  uint64_t at, bytes; /* of the data */
  char *content;      /* of a small file; NULL: a group, or zeros */
} Piece;

typedef struct {
  FkOps ops; /* the CPU's, with memory in the file */
  FkBackend be;
  FkModel *model;
  FkPaths paths;
  const char *loras; /* nullable */
  char *calibration; /* text of static scales; NULL: none */
  GArray *pieces;    /* Piece, one behind the other */
  uint64_t bytes;    /* of all */
  uint64_t begin;    /* of the data in the file: length and header come first */
  char *part, *path; /* the file while it is written, and then; for messages `shown` */
  char *shown;
  int fd;
  uint64_t map_at; /* of the file: what the next allocation is */
  void *map;
  size_t map_bytes;
  FkProgress progress;
  void *user_data;
  int64_t done, total;
} Writer;

static void clear_piece(gpointer data) {
  g_free(((Piece *)data)->name);
  g_free(((Piece *)data)->content);
}

static void *map_alloc(FkBackend *be, size_t bytes) {
  Writer *w = be->priv;
  w->map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, (off_t)w->map_at);
  w->map_bytes = bytes;
  return w->map == MAP_FAILED ? NULL : w->map;
}

static void map_release(FkBackend *be, void *memory) {
  munmap(memory, ((Writer *)be->priv)->map_bytes);
}

static void add_piece(Writer *w, char *name, uint64_t bytes, char *content) {
  Piece piece = {name, w->bytes, bytes, content};
  g_array_append_val(w->pieces, piece);
  w->bytes += bytes;
}

static void pad(Writer *w, const char *name) {
  const uint64_t more = (PAGE - w->bytes % PAGE) % PAGE;
  if (more) add_piece(w, g_strconcat("pad/", name, NULL), more, g_malloc0(more));
}

/* The options that name files beside the model's own. */
typedef struct {
  const char *property, *path;
} Other;
enum { OTHERS = 4 };

static void list_others(const FkPaths *p, Other others[OTHERS]) {
  const Other all[OTHERS] = {
      {"vae-path", p->vae}, {"clip-path", p->clip}, {"t5-path", p->t5}, {"tokenizer-path", p->tokenizer}};
  memcpy(others, all, sizeof all);
}

/* All that the model is made of is in one folder, with configurations that say so. */
static bool whole_folder(const Writer *w) {
  Other others[OTHERS];
  list_others(&w->paths, others);
  for (int i = 0; i < OTHERS; i++)
    if (others[i].path && *others[i].path) return false;
  return g_file_test(w->paths.model, G_FILE_TEST_IS_DIR);
}

/* One file as the model's folder has it, or as a folder of this model would. */
static bool add_file(Writer *w, const char *name, GError **error) {
  g_autoptr(GError) own = NULL;
  char *content = whole_folder(w) ? NULL : fk_config_text(&w->model->config, name);
  size_t size = content ? strlen(content) : 0;
  g_autofree char *path = g_build_filename(w->model->tokenizers, name, NULL);
  if (!content) content = fk_file_load(path, FK_PACK_LARGEST_FILE, &size, &own);
  if (content) add_piece(w, g_strconcat("files/", name, NULL), size, content);
  /* the model has opened without it */
  if (content || g_error_matches(own, FK_ERROR, FK_ERROR_MODEL_MISSING)) return true;
  g_propagate_error(error, g_steal_pointer(&own));
  return false;
}

/* Files, then the groups of each part from the begin of a page on. */
static bool list_pieces(Writer *w, GError **error) {
  for (size_t i = 0; i < G_N_ELEMENTS(small_files); i++)
    if (!add_file(w, small_files[i], error)) return false;
  if (w->calibration)
    add_piece(w, g_strdup("files/" FK_CALIBRATION_NAME), strlen(w->calibration), g_strdup(w->calibration));
  pad(w, "files");
  for (int i = 0; i < FK_PARTS; i++) {
    const FkBinder *b = w->model->part[i].binder;
    for (int g = 0; g < (int)fk_binder_store(b)->groups->len; g++)
      if (fk_binder_group_bytes(b, g)) add_piece(w, fk_binder_packed_name(b, g), fk_binder_group_bytes(b, g), NULL);
    pad(w, fk_part_name((FkPart)i));
  }
  return true;
}

/* ---- Header ---- */

static void text(GString *s, const char *name, const char *value) {
  g_string_append_printf(s, ",\"fluxkontext.%s\":\"", name);
  for (const char *c = value; *c; c++) {
    if ((unsigned char)*c < 0x20)
      g_string_append_printf(s, "\\u%04x", (unsigned)*c);
    else
      g_string_append_printf(s, "%s%c", *c == '"' || *c == '\\' ? "\\" : "", *c);
  }
  g_string_append_c(s, '"');
}

/* One line: what is hashed, and its name behind the property's that gave it. */
static bool append_source(GString *s, const char *property, const char *path, const char *name, GError **error) {
  g_autofree char *shown = fk_shown_path(name);
  uint64_t bytes;
  bool sampled;
  g_autofree char *hash = fk_hash_file(path, &bytes, &sampled, error);
  if (!hash) return false;
  g_string_append_printf(s, "%s%s %s%s\n", hash, sampled ? " sampled" : "", property, shown);
  return true;
}

/* A file, or those that are read of a folder. */
static bool append_sources(GString *s, const FkOptions *options, const char *property, const char *path,
                           GError **error) {
  g_auto(GStrv) names = fk_registry_read(options, property, path);
  g_autofree char *base = g_path_get_basename(path);
  g_autofree char *before = strcmp(property, "model-path") ? g_strconcat(property, "=", NULL) : g_strdup("");
  if (!g_file_test(path, G_FILE_TEST_IS_DIR) && !append_source(s, before, path, base, error)) return false;
  for (char **name = names; *name; name++) {
    g_autofree char *file = g_build_filename(path, *name, NULL);
    if (!append_source(s, before, file, *name, error)) return false;
  }
  return true;
}

/* SHA-256 and name of what the model was made of; (transfer full) */
static char *sources(const Writer *w, const FkOptions *options, GError **error) {
  g_autoptr(GString) s = g_string_new(NULL);
  Other others[OTHERS];
  list_others(&w->paths, others);
  if (!append_sources(s, options, "model-path", w->paths.model, error)) return NULL;
  for (int i = 0; i < OTHERS; i++)
    if (others[i].path && *others[i].path && !append_sources(s, options, others[i].property, others[i].path, error))
      return NULL;
  g_autofree char *loras = fk_loras_sources(w->loras, "loras=", error);
  if (!loras) return NULL;
  g_string_append(s, loras);
  return g_string_free(g_steal_pointer(&s), FALSE);
}

/* What makes an engine hold these bytes: options that are not at their default. (transfer full) */
static char *options_text(const FkLoadPlan *plan) {
  GString *s = g_string_new(NULL);
  static const char *const names[] = {"quantization", "text-quantization"};
  const int values[] = {(int)plan->quantization, (int)plan->text_quantization};
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
    g_string_append_printf(s, "%s=%s\n", names[i], fk_properties_find(names[i])->values[1 + values[i]]);
  if (plan->modulation_quantization != FK_MODULATION_QUANTIZATION_NONE)
    g_string_append(s, "modulation-quantization=fp8\n");
  if (plan->weight_dither) g_string_append(s, "weight-dither=on\n");
  if (plan->twins)
    g_string_append_printf(s, "precision-first=%d\nprecision-last=%d\n", plan->precision_first, plan->precision_last);
  return g_string_free(s, FALSE);
}

/* The header with zeros for digits, ended so that the data begin with a page. (transfer full) */
static GString *write_header(Writer *w, const FkLoadPlan *plan, const char *hashes) {
  GString *s = g_string_new(FK_PACK_BEGIN "\"" FK_PACK_FORMAT "\"");
  g_autofree char *options = options_text(plan), *layout = fk_model_layout(w->model);
  uint64_t chunks = 0;
  text(s, "version", FK_VERSION);
  text(s, "values", w->be.dtype == FK_F32 ? "float32" : "bfloat16");
  text(s, "options", options);
  text(s, "layout", layout);
  text(s, "sources", hashes);
  if (w->model->adapters.loras) {
    g_autofree char *adapters = fk_loras_text(w->model->adapters.loras);
    text(s, "adapters", adapters);
  }
  for (guint i = 0; i < w->pieces->len; i++)
    chunks += (g_array_index(w->pieces, Piece, i).bytes + FK_SUM_CHUNK - 1) / FK_SUM_CHUNK;
  g_autofree char *zeros = g_strnfill(16 * chunks, '0');
  text(s, "sums", zeros);
  g_string_append(s, "," FK_PACK_HEADER "0000000000000000\"}");
  for (guint i = 0; i < w->pieces->len; i++) {
    const Piece *p = &g_array_index(w->pieces, Piece, i);
    g_string_append_printf(s,
                           ",\"%s\":{\"dtype\":\"U8\",\"shape\":[%" G_GUINT64_FORMAT
                           "],\"data_offsets\":[%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT "]}",
                           p->name, (guint64)p->bytes, (guint64)p->at, (guint64)(p->at + p->bytes));
  }
  g_string_append_c(s, '}');
  while ((8 + s->len) % PAGE) g_string_append_c(s, ' ');
  w->begin = 8 + s->len;
  return s;
}

/* ---- Data ---- */

static bool fail(const Writer *w, const char *what, int number, GError **error) {
  g_set_error(error, FK_ERROR, number == ENOSPC ? FK_ERROR_MEMORY : FK_ERROR_OPTION_BAD, "%s: %s: %s", w->shown, what,
              g_strerror(number));
  return false;
}

static bool put(const Writer *w, uint64_t at, const void *bytes, size_t n, GError **error) {
  for (size_t done = 0; done < n;) {
    const ssize_t now = pwrite(w->fd, (const char *)bytes + done, n - done, (off_t)(at + done));
    if (now < 0 && errno == EINTR) continue;
    if (now <= 0) return fail(w, "cannot be written", now < 0 ? errno : EIO, error);
    done += (size_t)now;
  }
  return true;
}

static void add_sums(GString *sums, const char *bytes, uint64_t n) {
  for (uint64_t at = 0; at < n; at += FK_SUM_CHUNK)
    g_string_append_printf(sums, "%016" G_GINT64_MODIFIER "x", (guint64)fk_sum(bytes + at, MIN(FK_SUM_CHUNK, n - at)));
}

static void report(int64_t done, int64_t total, void *user_data) {
  const Writer *w = user_data;
  (void)total;
  if (w->progress) w->progress("pack", w->done + done, w->total, w->user_data);
}

/* The pieces of a part, from *index on, in memory that is theirs in the file. */
static bool write_part(Writer *w, FkPart part, guint *index, GString *sums, GCancellable *cancellable, GError **error) {
  FkBinder *b = w->model->part[part].binder;
  const FkStore *store = fk_binder_store(b);
  w->map_at = w->begin + g_array_index(w->pieces, Piece, *index).at;
  if (!fk_binder_load(b, cancellable, report, w, error)) return false;
  const char *memory = store->memory;
  const uint64_t first = g_array_index(w->pieces, Piece, *index).at;
  for (; *index < w->pieces->len; (*index)++) {
    const Piece *p = &g_array_index(w->pieces, Piece, *index);
    if (p->content) break;
    add_sums(sums, memory + (p->at - first), p->bytes);
  }
  const bool written = msync(store->memory, store->bytes, MS_ASYNC) == 0;
  const int number = errno;
  fk_binder_release(b);
  w->done += (int64_t)store->bytes;
  return written || fail(w, "cannot be written", number, error);
}

static bool write_data(Writer *w, GString *sums, GCancellable *cancellable, GError **error) {
  int part = 0;
  for (guint i = 0; i < w->pieces->len;) {
    const Piece *p = &g_array_index(w->pieces, Piece, i);
    if (!p->content) {
      if (!write_part(w, (FkPart)part++, &i, sums, cancellable, error)) return false;
      continue;
    }
    if (!put(w, w->begin + p->at, p->content, p->bytes, error)) return false;
    add_sums(sums, p->content, p->bytes);
    i++;
  }
  return true;
}

/* The digits in place of the zeros, and the length in front. */
static bool finish_header(Writer *w, GString *header, const GString *sums, GError **error) {
  static const char before[] = "\"fluxkontext.sums\":\"";
  unsigned char length[8];
  char digits[17];
  memcpy(strstr(header->str, before) + strlen(before), sums->str, sums->len);
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)(header->len >> 8 * i);
  g_string_insert_len(header, 0, (const char *)length, sizeof length);
  g_snprintf(digits, sizeof digits, "%016" G_GINT64_MODIFIER "x", (guint64)fk_sum(header->str, header->len));
  memcpy(strstr(header->str + sizeof length, FK_PACK_HEADER) + strlen(FK_PACK_HEADER), digits, 16);
  return put(w, 0, header->str, header->len, error);
}

static bool write_file(Writer *w, const FkLoadPlan *plan, const FkOptions *options, GCancellable *cancellable,
                       GError **error) {
  g_autofree char *hashes = sources(w, options, error);
  if (!hashes || !list_pieces(w, error)) return false;
  g_autoptr(GString) header = write_header(w, plan, hashes), sums = g_string_new(NULL);
  w->total = (int64_t)fk_model_weight_bytes(w->model);
  w->fd = open(w->part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (w->fd < 0 && errno == EEXIST) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "%s.part: expected no such file, which is this one until it is whole: another run is under way, or was "
                "stopped and it can go",
                w->shown);
    return false;
  }
  if (w->fd < 0) return fail(w, "cannot be made", errno, error);
  /* Room first: memory that is a file without room ends the process. */
  const int number = posix_fallocate(w->fd, 0, (off_t)(w->begin + w->bytes));
  bool ok = number == 0 || fail(w, "has no room", number, error);
  ok = ok && write_data(w, sums, cancellable, error) && finish_header(w, header, sums, error);
  if (ok && (fsync(w->fd) != 0 || rename(w->part, w->path) != 0)) ok = fail(w, "cannot be written", errno, error);
  close(w->fd);
  if (!ok) unlink(w->part);
  return ok;
}

static bool check_source(const char *model, GError **error) {
  const bool packed = model && fk_pack_detect(model);
  if (model && *model && g_file_test(model, G_FILE_TEST_EXISTS) && !packed) return true;
  g_autofree char *shown = fk_shown_path(model ? model : "");
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "model-path \"%s\": expected the folder or file of a model to pack, found %s", shown,
              packed ? "one that is packed: pack what it was made of" : "nothing");
  return false;
}

static bool is_same_file(const char *path, const struct stat *target) {
  struct stat status;
  return stat(path, &status) == 0 && status.st_dev == target->st_dev && status.st_ino == target->st_ino;
}

/* One of the files that it is made of. */
static bool is_source(const char *path, const struct stat *target) {
  g_auto(GStrv) names = fk_registry_checkpoint(path);
  bool same = is_same_file(path, target);
  for (char **name = names; *name && !same; name++) {
    g_autofree char *file = g_build_filename(path, *name, NULL);
    same = is_same_file(file, target);
  }
  return same;
}

/* What the file would replace is none of its own sources, which it cannot be made of again. */
static bool check_target(const Writer *w, GError **error) {
  struct stat target;
  Other others[OTHERS];
  if (stat(w->path, &target) != 0) return true;
  bool own = is_source(w->paths.model, &target);
  list_others(&w->paths, others);
  for (int i = 0; i < OTHERS; i++) own |= others[i].path && *others[i].path && is_source(others[i].path, &target);
  g_autofree char *loras = fk_loras_identity(w->loras, error); /* lines that begin with device and file */
  if (!loras) return false;
  g_autofree char *identity = g_strdup_printf("%ju %ju ", (uintmax_t)target.st_dev, (uintmax_t)target.st_ino);
  g_auto(GStrv) lines = g_strsplit(loras, "\n", -1);
  for (char **line = lines; *line; line++) own |= g_str_has_prefix(*line, identity);
  if (own)
    g_set_error(
        error, FK_ERROR, FK_ERROR_OPTION_BAD,
        "%s: expected the name of a new file, or of one to replace, found one of those that it would be made of",
        w->shown);
  return !own;
}

static bool bad_target(const Writer *w, const char *found, GError **error) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
              "%s: expected the name of a new file, or of one to replace, found %s", w->shown, found);
  return false;
}

/* The file is mapped while it is made: nothing but a regular file will do. */
static bool choose_target(Writer *w, const char *path, GError **error) {
  bool into;
  struct stat there;
  if (stat(path, &there) == 0 && !S_ISREG(there.st_mode)) return bad_target(w, fk_file_kind(there.st_mode), error);
  w->path = fk_file_target(path, &into, error);
  if (!w->path) return false;
  w->part = g_strconcat(w->path, ".part", NULL);
  return !into || bad_target(w, "one that has no name any more", error);
}

/* The adapters come into what is loaded from now on. */
static bool adapt(const Writer *w, GError **error) {
  bool text_changed;
  return fk_adapters_set(w->model, w->loras, &text_changed, NULL, NULL, NULL, error);
}

/* Static scales go with the model, once they are known to be its own. */
static bool calibrate(Writer *w, const FkLoadPlan *plan, const FkOptions *options, GError **error) {
  const char *path = plan->calibration_path;
  if (plan->quantization != FK_QUANTIZATION_FP8_STATIC) return true;
  g_autofree char *files = fk_registry_files(options), *hashes = NULL, *hash = NULL;
  if (!fk_calibration_apply(w->model, path, files, options, &hashes, &hash, error)) return false;
  g_autofree char *beside = path && *path ? NULL : fk_calibration_path(w->paths.model);
  size_t size;
  w->calibration = fk_file_load(beside ? beside : path, FK_PACK_LARGEST_FILE, &size, error);
  return w->calibration != NULL;
}

static bool pack(Writer *w, FkBackend *cpu, const FkOptions *options, GCancellable *cancellable, GError **error) {
  FkLoadPlan plan;
  w->ops = *cpu->ops;
  w->ops.alloc = map_alloc;
  w->ops.release = map_release;
  w->be = *cpu;
  w->be.ops = &w->ops;
  w->be.priv = w;
  if (!fk_load_resolve(options, &w->be, &plan, error)) return false;
  if (plan.storage == FK_STORAGE_FILE) {
    g_set_error_literal(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                        "weight-storage=file: a packed model has expanded weights; the files are opened as they are");
    return false;
  }
  plan.precision.either = false;
  w->paths = fk_load_paths(&plan, fk_options_get(options, "model-path"));
  if (!check_target(w, error)) return false;
  w->model = fk_model_open_paths(&w->paths, &w->be, &plan.precision, true, error);
  const bool ok = w->model && calibrate(w, &plan, options, error) && adapt(w, error) &&
                  write_file(w, &plan, options, cancellable, error);
  fk_model_free(w->model);
  return ok;
}

bool fk_pack(const FkOptions *options, int bytes_per_value, const char *path, GCancellable *cancellable,
             FkProgress progress, void *user_data, GError **error) {
  return fk_pack_adapted(options, NULL, bytes_per_value, path, cancellable, progress, user_data, error);
}

bool fk_pack_adapted(const FkOptions *options, const char *loras, int bytes_per_value, const char *path,
                     GCancellable *cancellable, FkProgress progress, void *user_data, GError **error) {
  char message[256] = "";
  FkFailure failure;
  if (bytes_per_value != 2 && bytes_per_value != 4) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "bytes per value: expected 2 or 4, found %d", bytes_per_value);
    return false;
  }
  if (!check_source(fk_options_get(options, "model-path"), error)) return false;
  FkBackend *cpu = fk_backend_open("cpu", 0, 1, &failure, message, sizeof message);
  if (!cpu) {
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "packing: %s", message);
    return false;
  }
  cpu->dtype = bytes_per_value == 4 ? FK_F32 : FK_BF16;
  Writer w = {.fd = -1, .loras = loras, .progress = progress, .user_data = user_data};
  w.shown = fk_shown_path(path);
  w.pieces = g_array_new(FALSE, FALSE, sizeof(Piece));
  g_array_set_clear_func(w.pieces, clear_piece);
  const bool ok = choose_target(&w, path, error) && pack(&w, cpu, options, cancellable, error);
  fk_backend_close(cpu);
  g_array_unref(w.pieces);
  g_free(w.path);
  g_free(w.part);
  g_free(w.shown);
  g_free(w.calibration);
  return ok;
}

/* ---- Opening ---- */

void fk_packing_adopt(FkOptions *options, const char *path) {
  static const char *const names[] = {"quantization",  "text-quantization", "modulation-quantization",
                                      "weight-dither", "precision-first",   "precision-last"};
  g_autoptr(FkPack) p = path && fk_pack_detect(path) ? fk_pack_open(path, NULL) : NULL;
  g_auto(GStrv) lines = g_strsplit(p ? fk_pack_text(p, "options") : "", "\n", 64);
  for (char **line = lines; *line; line++)
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
      const size_t length = strlen(names[i]);
      const FkProperty *row = fk_properties_find(names[i]);
      if (strncmp(*line, names[i], length) || (*line)[length] != '=') continue;
      if (fk_properties_automatic(row, fk_options_get(options, names[i])))
        fk_options_set(options, names[i], *line + length + 1, NULL); /* what no option takes is told by its layout */
    }
}
