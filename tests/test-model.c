/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint folder as a whole: the demo opens and loads, damaged copies are named by file and tensor, loading can be
 * left and begun again, and the published configurations open without files. */
#include "model.h"
#include "test-files.h"

static FkBackend *be;

static void copy_tree(const char *from, const char *to) {
  g_autoptr(GDir) dir = g_dir_open(from, 0, NULL);
  const char *name;
  g_assert_cmpint(g_mkdir_with_parents(to, 0700), ==, 0);
  while ((name = g_dir_read_name(dir))) {
    g_autofree char *a = g_build_filename(from, name, NULL), *b = g_build_filename(to, name, NULL);
    if (g_file_test(a, G_FILE_TEST_IS_DIR)) {
      copy_tree(a, b);
      continue;
    }
    g_autoptr(GFile) source = g_file_new_for_path(a), target = g_file_new_for_path(b);
    g_assert_true(g_file_copy(source, target, G_FILE_COPY_OVERWRITE, NULL, NULL, NULL, NULL));
  }
}

static void opens(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkModel) m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  g_assert_no_error(error);
  /* Of the demo model's README. */
  g_assert_cmpint(m->part[FK_PART_FLUX].parameters, ==, 10257984);
  g_assert_cmpint(m->part[FK_PART_T5].parameters, ==, 2064512);
  g_assert_cmpint(m->part[FK_PART_CLIP].parameters, ==, 545280);
  g_assert_cmpint(m->part[FK_PART_VAE].parameters, ==, 3925699);
  g_assert_cmpint(fk_model_area(m), ==, 65536);
  g_assert_cmpuint(fk_model_weight_bytes(m), >=, 4u * 16793475u);
  g_assert_false(m->loaded);
}

typedef struct {
  GCancellable *cancellable;
  int64_t last, total, stop;
} Seen;

static void see(int64_t done, int64_t total, void *user_data) {
  Seen *s = user_data;
  g_assert_cmpint(done, >=, s->last);
  g_assert_cmpint(done, <=, total);
  s->last = done;
  s->total = total;
  if (s->stop && done >= s->stop) g_cancellable_cancel(s->cancellable);
}

static void loads_again(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(FkModel) m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  Seen seen = {.cancellable = cancellable, .stop = 1};
  g_assert_false(fk_model_load(m, cancellable, see, &seen, &error));
  assert_error(error, FK_ERROR_CANCELLED, "", "");
  g_assert_false(m->loaded);
  for (int i = 0; i < FK_PARTS; i++) g_assert_null(m->part[i].memory);
  seen = (Seen){.cancellable = NULL};
  g_assert_true(fk_model_load(m, NULL, see, &seen, &error));
  g_assert_no_error(error);
  g_assert_true(m->loaded);
  g_assert_cmpint(seen.last, ==, seen.total);
  g_assert_cmpint(seen.total, ==, (int64_t)fk_model_weight_bytes(m));
}

/* Rewrites the first `from` in a file of the copy. */
static void replace(const char *folder, const char *file, const char *from, const char *to) {
  g_autofree char *path = g_build_filename(folder, file, NULL), *text = NULL;
  gsize size;
  g_assert_true(g_file_get_contents(path, &text, &size, NULL));
  char *at = g_strstr_len(text, (gssize)size, from);
  if (!at) g_error("%s has no %s", file, from);
  g_autoptr(GByteArray) out = g_byte_array_new();
  g_byte_array_append(out, (guint8 *)text, (guint)(at - text));
  g_byte_array_append(out, (const guint8 *)to, (guint)strlen(to));
  g_byte_array_append(out, (guint8 *)at + strlen(from), (guint)(size - (gsize)(at - text) - strlen(from)));
  g_assert_true(g_file_set_contents(path, (char *)out->data, (gssize)out->len, NULL));
}

/* One thing wrong at a time; to NULL: the file is taken away. The message has both words. */
static void damaged(void) {
  static const struct {
    const char *file, *from, *to;
    int code;
    const char *word, *other;
  } cases[] = {
      {"model_index.json", NULL, NULL, FK_ERROR_MODEL_MISSING, "model_index.json", ""},
      {"vae/diffusion_pytorch_model.safetensors", NULL, NULL, FK_ERROR_MODEL_MISSING, "vae", ".safetensors"},
      {"tokenizer/vocab.json", NULL, NULL, FK_ERROR_MODEL_MISSING, "vocab.json", ""},
      {"tokenizer_2/spiece.model", NULL, NULL, FK_ERROR_MODEL_MISSING, "spiece.model", ""},
      {"text_encoder/config.json", "\"hidden_size\": 128", "\"hidden_size\": 192", FK_ERROR_MODEL_MISMATCH, "192",
       "128"},
      {"transformer/config.json", "\"num_layers\": 2", "\"num_layers\": 3", FK_ERROR_MODEL_MISMATCH,
       "transformer_blocks.2", "missing"},
      {"transformer/config.json", "\"num_layers\": 2", "\"num_layers\": 1", FK_ERROR_MODEL_MISMATCH,
       "transformer_blocks.1", ""},
      {"text_encoder_2/config.json", "\"num_layers\": 3", "\"num_layers\": 4", FK_ERROR_MODEL_MISMATCH, "block.3", ""},
      {"text_encoder_2/config.json", "\"vocab_size\": 377", "\"vocab_size\": 376", FK_ERROR_MODEL_MISMATCH, "376",
       "377"},
      {"transformer/diffusion_pytorch_model.safetensors.index.json", "weight_map", "weight_mop", FK_ERROR_MODEL_BAD,
       "weight_map", ""},
  };
  g_autofree char *copy = scratch_path("model");
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(copy, cases[i].file, NULL);
    copy_tree(FK_DEMO_MODEL, copy);
    if (cases[i].from)
      replace(copy, cases[i].file, cases[i].from, cases[i].to);
    else
      g_assert_cmpint(g_remove(path), ==, 0);
    g_autoptr(FkModel) m = fk_model_open(copy, be, NULL, true, &error);
    g_assert_null(m);
    g_test_message("%s", error->message);
    assert_error(error, cases[i].code, cases[i].word, cases[i].other);
  }
}

static void published(void) {
  static const char *const names[] = {"kontext-dev", "dev", "schnell"};
  char message[64];
  FkFailure failure;
  FkBackend *null = fk_backend_open("null", 0, 0, &failure, message, sizeof message);
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(FkModel) m = fk_model_open(names[i], null, NULL, false, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fk_model_area(m), ==, 1024 * 1024);
    g_assert_null(m->path);
  }
  fk_backend_close(null);
}

int main(int argc, char **argv) {
  char message[256] = "";
  FkFailure failure;
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  be = fk_backend_open("cpu", 0, 0, &failure, message, sizeof message);
  g_test_add_func("/model/opens", opens);
  g_test_add_func("/model/loads-again", loads_again);
  g_test_add_func("/model/damaged", damaged);
  g_test_add_func("/model/published", published);
  const int status = g_test_run();
  fk_backend_close(be);
  scratch_close();
  return status;
}
