/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint folder as a whole: the demo opens and loads, damaged copies are named by file and tensor, loading can be
 * left and begun again, and the published configurations open without files. */
#include "model.h"
#include "test-files.h"
#include "test-held.h"

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
  for (int i = 0; i < FK_PARTS; i++) g_assert_null(fk_binder_store(m->part[i].binder)->memory);
  seen = (Seen){.cancellable = NULL};
  g_assert_true(fk_model_load(m, NULL, see, &seen, &error));
  g_assert_no_error(error);
  g_assert_true(m->loaded);
  g_assert_cmpint(seen.last, ==, seen.total);
  g_assert_cmpint(seen.total, ==, (int64_t)fk_model_weight_bytes(m));
}

/* ---- Parts by themselves ---- */

/* Their addresses follow them: what was found by name is there again, elsewhere or not. */
static void parts(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkModel) m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  const FkBound *q = fk_binder_find(m->part[FK_PART_T5].binder, "encoder.block.2.layer.0.SelfAttention.k.weight");
  g_assert_nonnull(q);
  const size_t row = (size_t)q->weight->in * fk_dtype_size(q->weight->dtype);
  Seen seen = {.cancellable = NULL};
  g_assert_true(fk_model_load_part(m, FK_PART_T5, NULL, see, &seen, &error));
  g_assert_no_error(error);
  g_assert_cmpint(seen.total, ==, (int64_t)m->part[FK_PART_T5].bytes);
  g_assert_true(m->part[FK_PART_T5].loaded && !m->part[FK_PART_FLUX].loaded && !m->loaded);
  g_assert_nonnull(m->t5.bias_table);
  g_autofree char *before = g_memdup2((const char *)q->weight->data + (size_t)q->first * row, (size_t)q->rows * row);
  g_assert_true(fk_model_load(m, NULL, NULL, NULL, &error)); /* the others */
  g_assert_true(m->loaded);
  const void *flux = m->flux.x_embedder.data;
  fk_model_release_part(m, FK_PART_T5);
  g_assert_null(q->weight->data);
  g_assert_true(!m->part[FK_PART_T5].loaded && m->part[FK_PART_FLUX].loaded && !m->loaded);
  fk_model_release_part(m, FK_PART_T5); /* nothing to do */
  g_assert_true(fk_model_load_part(m, FK_PART_T5, NULL, NULL, NULL, &error));
  g_assert_true(m->loaded && m->flux.x_embedder.data == flux);
  g_assert_cmpmem((const char *)q->weight->data + (size_t)q->first * row, (size_t)q->rows * row, before,
                  (size_t)q->rows * row);
  g_assert_true(fk_model_load_part(m, FK_PART_T5, NULL, NULL, NULL, &error)); /* nothing to do */
}

/* Every tensor of the model is found by its name, inside its group and its target; groups lie one behind the other. */
static void groups(void) {
  static const struct {
    FkPart part;
    const char *name, *group;
    int64_t first, rows;
  } cases[] = {
      {FK_PART_FLUX, "x_embedder.weight", "embedders", 0, 256},
      {FK_PART_FLUX, "transformer_blocks.1.attn.to_k.weight", "transformer_blocks.1", 0, 256},
      {FK_PART_FLUX, "transformer_blocks.1.attn.to_v.bias", "transformer_blocks.1", 256, 256},
      {FK_PART_FLUX, "transformer_blocks.0.attn.add_q_proj.weight", "transformer_blocks.0", 512, 256},
      {FK_PART_FLUX, "single_transformer_blocks.4.proj_mlp.weight", "single_transformer_blocks.4", 768, 1024},
      {FK_PART_FLUX, "norm_out.linear.bias", "output", 0, 512},
      {FK_PART_T5, "encoder.block.2.layer.1.DenseReluDense.wi_1.weight", "encoder.block.2", 512, 512},
      {FK_PART_CLIP, "text_model.encoder.layers.1.self_attn.v_proj.bias", "text_model.encoder.layers.1", 256, 128},
      {FK_PART_VAE, "decoder.conv_in.weight", "decoder", 0, 128},
  };
  g_autoptr(GError) error = NULL;
  g_autoptr(FkModel) m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
    const FkBinder *b = m->part[cases[i].part].binder;
    const FkBound *bound = fk_binder_find(b, cases[i].name);
    g_test_message("%s", cases[i].name);
    g_assert_nonnull(bound);
    const FkGroup *group = fk_store_at(fk_binder_store(b), bound->group);
    g_assert_cmpstr(group->name, ==, cases[i].group);
    g_assert_cmpint(bound->first, ==, cases[i].first);
    g_assert_cmpint(bound->rows, ==, cases[i].rows);
    g_assert_cmpuint(bound->place, >=, group->at);
    g_assert_cmpuint(bound->place, <, group->at + group->bytes);
    g_assert_true((bound->weight != NULL) != (bound->tensor != NULL));
    g_assert_cmpint(bound->first + bound->rows, <=, bound->weight ? bound->weight->out : bound->tensor->dim[0]);
  }
  g_assert_null(fk_binder_find(m->part[FK_PART_FLUX].binder, "transformer_blocks.2.attn.to_q.weight"));
  for (int p = 0; p < FK_PARTS; p++) {
    const FkStore *s = fk_binder_store(m->part[p].binder);
    size_t at = 0;
    for (int g = 0; g < (int)s->groups->len; g++) {
      g_assert_cmpuint(fk_store_at(s, g)->at, >=, at);
      g_assert_cmpuint(fk_store_at(s, g)->at, <, at + FK_WEIGHT_ALIGN);
      g_assert_cmpuint(fk_store_at(s, g)->at % FK_WEIGHT_ALIGN, ==, 0);
      at = fk_store_at(s, g)->at + fk_store_at(s, g)->bytes;
    }
    g_assert_cmpuint(at, ==, m->part[p].bytes);
  }
  g_assert_cmpuint(fk_binder_store(m->part[FK_PART_FLUX].binder)->groups->len, ==, 2 + 2 * (2 + 5));
}

#if !defined(__SANITIZE_ADDRESS__) /* which keeps freed memory for a while */
static GAsyncQueue *loaded, *leave;

static gpointer load_and_free(gpointer unused) {
  (void)unused;
  FkModel *m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, NULL);
  g_assert_true(fk_model_load(m, NULL, NULL, NULL, NULL));
  fk_model_free(m);
  g_async_queue_push(loaded, m);
  return g_async_queue_pop(leave); /* the thread stays, and so does its heap */
}

/* A model's memory goes back to the system when it is freed, from whatever thread: weights in the heap of the thread
 * that loads them would stay there, 24 MB of this model. Small things do, some 4 MB in each heap. */
static void gives_back(void) {
  enum { THREADS = 8 };
  GThread *thread[THREADS];
  gsize before = 0;
  loaded = g_async_queue_new();
  leave = g_async_queue_new();
  for (int i = 0; i < THREADS; i++) {
    thread[i] = g_thread_new("load", load_and_free, NULL);
    g_async_queue_pop(loaded);
    if (i == 1) before = held_pages();
  }
  const gsize after = held_pages();
  g_test_message("%zu and then %zu bytes resident", before, after);
  g_assert_cmpuint(after, <, before + (THREADS - 2) * (12 << 20));
  for (int i = 0; i < THREADS; i++) g_async_queue_push(leave, thread);
  for (int i = 0; i < THREADS; i++) g_thread_join(thread[i]);
  g_async_queue_unref(loaded);
  g_async_queue_unref(leave);
}
#endif

/* ---- The CPU backend with slots that fail ---- */

static FkOps ops;
static int fail_download, allocations; /* the n-th download fails, from 1; 0: none */
static size_t free_bytes;

static void failing_download(FkBackend *b, void *to, const void *from, size_t bytes) {
  if (fail_download && --fail_download == 0)
    fk_backend_fail(b, FK_FAIL_DEVICE, "a download failed on purpose");
  else
    fk_cpu_ops.download(b, to, from, bytes);
}

static void *counting_alloc(FkBackend *b, size_t bytes) {
  allocations++;
  return fk_cpu_ops.alloc(b, bytes);
}

static void little_memory(FkBackend *b, size_t *available, size_t *total) {
  fk_cpu_ops.memory(b, available, total);
  *available = free_bytes;
}

static void use_failing_ops(void) {
  ops = fk_cpu_ops;
  ops.download = failing_download;
  ops.alloc = counting_alloc;
  ops.memory = little_memory;
  be->ops = &ops;
}

/* T5's position bias comes back from the backend after the load: without it T5 is not loaded, and nothing stays that a
 * later edit would take for a table. */
static void lost_bias(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkModel) m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error), good = NULL;
  good = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  g_assert_true(fk_model_load(good, NULL, NULL, NULL, &error));
  use_failing_ops();
  free_bytes = SIZE_MAX;
  fail_download = 1;
  g_assert_false(fk_model_load(m, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_DEVICE, "text_encoder_2", "a download failed on purpose");
  g_assert_true(!m->loaded && !m->part[FK_PART_T5].loaded && !m->part[FK_PART_CLIP].loaded);
  g_assert_null(m->t5.bias_table);
  fk_backend_clear(be);
  g_assert_true(fk_model_load(m, NULL, NULL, NULL, &error));
  g_assert_no_error(error);
  const size_t bytes = (size_t)(m->t5.relative_bias.out * m->t5.relative_bias.in) * sizeof(float);
  g_assert_cmpmem(m->t5.bias_table, bytes, good->t5.bias_table, bytes);
  be->ops = &fk_cpu_ops;
}

/* All parts together, before the first is allocated; one byte more is enough. */
static void too_little_memory(void) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkModel) m = fk_model_open(FK_DEMO_MODEL, be, NULL, true, &error);
  use_failing_ops();
  allocations = 0;
  free_bytes = fk_model_weight_bytes(m) - 1;
  g_autofree char *need = g_strdup_printf("the weights need %zu bytes", fk_model_weight_bytes(m));
  g_autofree char *have = g_strdup_printf(", %zu are free", free_bytes);
  g_assert_false(fk_model_load(m, NULL, NULL, NULL, &error));
  assert_error(error, FK_ERROR_MEMORY, need, have);
  g_assert_cmpint(allocations, ==, 0);
  free_bytes++;
  g_assert_true(fk_model_load(m, NULL, NULL, NULL, &error));
  g_assert_cmpint(allocations, ==, FK_PARTS);
  fk_model_release_part(m, FK_PART_VAE);
  free_bytes = m->part[FK_PART_VAE].bytes; /* what is loaded needs nothing any more */
  g_assert_true(fk_model_load(m, NULL, NULL, NULL, &error));
  be->ops = &fk_cpu_ops;
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
  g_test_add_func("/model/parts", parts);
  g_test_add_func("/model/groups", groups);
#if !defined(__SANITIZE_ADDRESS__)
  g_test_add_func("/model/gives-back", gives_back);
#endif
  g_test_add_func("/model/lost-bias", lost_bias);
  g_test_add_func("/model/too-little-memory", too_little_memory);
  g_test_add_func("/model/damaged", damaged);
  g_test_add_func("/model/published", published);
  const int status = g_test_run();
  fk_backend_close(be);
  scratch_close();
  return status;
}
