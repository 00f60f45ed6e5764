/* SPDX-License-Identifier: Apache-2.0 */
/* Two engines on two GPUs in one process, through fk.h alone: each gives the bytes that it gives alone, one after the
 * other and at the same time from two threads. Skipped where there is no second GPU.
 *
 * Environment: BACKEND (default cuda; cpu tries the test itself on two engines of the CPU), FK_SOURCE (the project's
 * root, default: where this was built). Not here: one device (test-gpu-edit.c). */
#include "../test-picture.h"

#include <string.h>

enum { DEVICES = 2 };

static const char *backend, *root;
static int used; /* cases; on the CPU two */
static FkEngine *engine[DEVICES];
static FkImage photo;

/* Edits that between them run every kind of kernel: with and without CUDA graphs, few and many rows, two branches, kept
 * and skipped evaluations, another size. */
static const struct {
  const char *pairs;
  int width, height; /* 0: the photograph's own size */
} cases[] = {{"steps=4", 0, 0},
             {"steps=4", 200, 136},
             {"steps=4 cuda-graph=off", 0, 0},
             {"steps=4 flash-attention=off fused-qkv=off channels-last=off", 0, 0},
             {"steps=4 true-cfg-scale=2 negative-prompt=", 0, 0},
             {"steps=8 step-cache=first-block step-cache-threshold=0.2 context-reuse=2", 0, 0},
             {"steps=4 token-merge=0.25", 0, 0}};
enum { CASES = G_N_ELEMENTS(cases) };
static char *alone[DEVICES][CASES]; /* hashes */

/* NULL with *error: there is no such device. */
static FkEngine *open_device(int device, GError **error) {
  g_autofree char *model = g_build_filename(root, "examples", "demo-model", "checkpoint", NULL);
  g_autofree char *number = g_strdup_printf("%d", device);
  g_autoptr(FkOptions) options = fk_options_new();
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", backend, NULL);
  fk_options_set(options, "cuda-device-id", number, NULL);
  return fk_engine_open(options, NULL, NULL, NULL, error);
}

/* (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  FkSettings *s = fk_settings_new();
  g_auto(GStrv) list = g_strsplit(pairs, " ", -1);
  fk_settings_set(s, "prompt", "add a shape", NULL); /* vague: shows a single changed bit */
  fk_settings_set(s, "seed", "3", NULL);
  for (int i = 0; list[i]; i++) {
    g_auto(GStrv) pair = g_strsplit(list[i], "=", 2);
    g_autoptr(GError) error = NULL;
    fk_settings_set(s, pair[0], pair[1], &error);
    g_assert_no_error(error);
  }
  return s;
}

/* The hash of one edit. (transfer full) */
static char *edit(FkEngine *on, int index) {
  g_autoptr(FkSettings) s = settings_of(cases[index].pairs);
  g_autoptr(GError) error = NULL;
  FkImage in = photo;
  if (cases[index].width) in.width = cases[index].width, in.height = cases[index].height;
  int width = 0, height = 0;
  fk_engine_output_size(on, s, in.width, in.height, &width, &height, &error);
  g_assert_no_error(error);
  const size_t stride = (size_t)width * 3;
  g_autofree uint8_t *pixels = g_malloc0(stride * (size_t)height);
  FkJob job = {.in = in, .out = {pixels, width, height, 3, stride}, .settings = s};
  fk_engine_edit(on, &job, 1, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  return g_compute_checksum_for_data(G_CHECKSUM_SHA256, pixels, stride * (size_t)height);
}

/* Rounds of all cases on one engine: edits that differ from those it made alone. */
static int rounds(int device, int count) {
  int different = 0;
  for (int i = 0; i < count * used; i++) {
    g_autofree char *now = edit(engine[device], i % used);
    if (!strcmp(now, alone[device][i % used])) continue;
    g_test_message("device %d: %s differs", device, cases[i % used].pairs);
    different++;
  }
  return different;
}

/* The first engine's hashes were made before the second one was opened. */
static void one_after_the_other(void) {
  g_test_message("%s and %s", fk_engine_machine(engine[0]), fk_engine_machine(engine[1]));
  for (int i = 0; i < 2; i++)
    for (int d = DEVICES - 1; d >= 0; d--) g_assert_cmpint(rounds(d, 1), ==, 0);
}

/* Equal cards give equal bytes. */
static void equal_cards(void) {
  if (strcmp(fk_engine_machine(engine[0]), fk_engine_machine(engine[1]))) {
    g_test_skip("the two GPUs are not of one kind");
    return;
  }
  for (int i = 0; i < used; i++) g_assert_cmpstr(alone[0][i], ==, alone[1][i]);
}

static gpointer rounds_in_thread(gpointer device) {
  return GINT_TO_POINTER(rounds(GPOINTER_TO_INT(device), used == CASES ? 3 : 1));
}

static void at_the_same_time(void) {
  GThread *thread[DEVICES];
  for (int d = 0; d < DEVICES; d++) thread[d] = g_thread_new("device", rounds_in_thread, GINT_TO_POINTER(d));
  for (int d = 0; d < DEVICES; d++) g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(thread[d])), ==, 0);
}

/* One is closed and opened again while the other edits. */
static void reopened(void) {
  g_autoptr(GError) error = NULL;
  GThread *other = g_thread_new("device", rounds_in_thread, GINT_TO_POINTER(1));
  for (int i = 0; i < 2; i++) {
    g_clear_pointer(&engine[0], fk_engine_unref);
    engine[0] = open_device(0, &error);
    g_assert_no_error(error);
    g_assert_cmpint(rounds(0, 1), ==, 0);
  }
  g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(other)), ==, 0);
}

int main(int argc, char **argv) {
  backend = g_getenv("BACKEND") ? g_getenv("BACKEND") : "cuda";
  root = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  used = strcmp(backend, "cuda") ? 2 : CASES;
  g_test_init(&argc, &argv, NULL);
  g_test_set_nonfatal_assertions();
  g_autofree char *path = g_build_filename(root, "examples", "demo-model", "photos", "coffee_256.png", NULL);
  photo = read_png(path);
  for (int d = 0; d < DEVICES; d++) {
    g_autoptr(GError) error = NULL;
    engine[d] = open_device(d, &error);
    if (!engine[d]) {
      printf("1..0 # SKIP %s\n", error->message);
      return 0;
    }
    for (int i = 0; i < used; i++) alone[d][i] = edit(engine[d], i);
  }
  g_test_add_func("/gpu-devices/one-after-the-other", one_after_the_other);
  g_test_add_func("/gpu-devices/equal-cards", equal_cards);
  g_test_add_func("/gpu-devices/at-the-same-time", at_the_same_time);
  g_test_add_func("/gpu-devices/reopened", reopened);
  const int status = g_test_run();
  for (int d = 0; d < DEVICES; d++) {
    for (int i = 0; i < used; i++) g_free(alone[d][i]);
    fk_engine_unref(engine[d]);
  }
  g_free(photo.data);
  return status;
}
