/* SPDX-License-Identifier: Apache-2.0 */
/* The null backend fills every slot, hands out addresses that do not overlap, repeats its pixels, and keeps the
 * promises of its variables; what ops count does not depend on who runs them. */
#include "ops.h"

#include <glib.h>
#include <string.h>

static FkBackend *open_backend(const char *name) {
  char message[128];
  FkFailure failure;
  FkBackend *be = fk_backend_open(name, 0, 0, &failure, message, sizeof message);
  g_assert_nonnull(be);
  return be;
}

/* Every basic slot that the CPU has, so that any walk can go through it. */
static void slots(void) {
  const void *const *null = (const void *const *)&fk_null_ops.open, *const *cpu = (const void *const *)&fk_cpu_ops.open;
  const size_t n = (sizeof(FkOps) - offsetof(FkOps, open)) / sizeof *null;
  for (size_t i = 0; i < n; i++)
    if (cpu[i] && !null[i]) g_error("slot %zu after open is filled by the CPU alone", i);
}

static void addresses(void) {
  FkBackend *be = open_backend("null");
  uintptr_t end = 0;
  for (size_t i = 0; i < 50; i++) {
    const size_t bytes = i * i * 977;
    const uintptr_t at = (uintptr_t)be->ops->alloc(be, bytes);
    g_assert_cmpuint(at % 256, ==, 0);
    g_assert_cmpuint(at, >=, end);
    end = at + bytes;
  }
  size_t free_bytes, total_bytes;
  be->ops->memory(be, &free_bytes, &total_bytes);
  g_assert_cmpuint(free_bytes, >, (size_t)1 << 60);
  fk_backend_close(be);
}

static void pixels_repeat(void) {
  FkBackend *be = open_backend("null");
  uint8_t a[600], b[600];
  memset(a, 0, sizeof a);
  memset(b, 1, sizeof b);
  be->ops->download(be, a, NULL, sizeof a);
  be->ops->download(be, b, NULL, sizeof b);
  g_assert_cmpmem(a, sizeof a, b, sizeof b);
  g_assert_cmpint(a[0], !=, a[1]);
  fk_backend_close(be);
}

/* The same linear and attention on both backends: the same work counted. */
static void counts(void) {
  FkCount count[2];
  static const char *const names[] = {"null", "cpu"};
  for (int i = 0; i < 2; i++) {
    FkBackend *be = open_backend(names[i]);
    FkArena arena;
    g_assert_true(fk_arena_open(&arena, be, i ? 1 << 20 : 0));
    FkTensor x = fk_arena_2d(&arena, FK_F32, 8, 32), y = fk_arena_2d(&arena, FK_F32, 8, 16);
    FkTensor w = fk_arena_2d(&arena, FK_F32, 16, 32), o = fk_arena_2d(&arena, FK_F32, 8, 32);
    if (i) memset(arena.base, 0, arena.used);
    FkLinear l = {.x = x, .y = y, .w = {.data = w.data, .dtype = FK_F32, .out = 16, .in = 32}};
    FkAttention a = {.q = x, .k = x, .v = x, .o = o, .heads = 2, .scale = 1};
    fk_op_linear(be, NULL, &l, 1);
    fk_op_attention(be, &a);
    g_assert_true(fk_backend_sync(be));
    count[i] = be->count;
    fk_arena_close(&arena);
    fk_backend_close(be);
  }
  g_assert_cmpfloat(count[0].linear_flop, ==, 2.0 * 8 * 16 * 32);
  g_assert_cmpfloat(count[0].attention_flop, ==, 4.0 * 8 * 8 * 32);
  g_assert_cmpfloat(count[0].linear_flop, ==, count[1].linear_flop);
  g_assert_cmpfloat(count[0].attention_flop, ==, count[1].attention_flop);
  g_assert_cmpfloat(count[0].bytes, ==, count[1].bytes);
  g_assert_cmpint(count[0].ops, ==, count[1].ops);
}

static void fail_alloc(void) {
  g_setenv("FK_NULL_FAIL_ALLOC", "3", TRUE);
  FkBackend *be = open_backend("null");
  g_unsetenv("FK_NULL_FAIL_ALLOC");
  for (int i = 1; i <= 5; i++) g_assert_cmpint(be->ops->alloc(be, 100) != NULL, ==, i != 3);
  g_assert_true(fk_backend_sync(be)); /* a refusal is no failure of the backend */
  fk_backend_close(be);
}

/* Every event that backend.h promises, which is what a profile uses of them. */
static void events(void) {
  FkBackend *be = open_backend("null");
  for (int i = 0; i < FK_EVENTS; i++) be->ops->event_record(be, i);
  for (int i = 0; i < FK_EVENTS; i++) be->ops->event_wait(be, i);
  g_assert_cmpfloat(be->ops->elapsed_ms(be, 0, FK_EVENTS - 1), ==, 0);
  g_assert_true(fk_backend_sync(be));
  fk_backend_close(be);
}

/* A variable that is no number is refused, not taken for 0. */
static void settings(void) {
  static const char *const names[] = {"FK_NULL_STEP_MS", "FK_NULL_FAIL_STEP", "FK_NULL_FAIL_ALLOC"};
  static const char *const bad[] = {"", "x", "1.5", "1,5", "-1", "7 ", "99999999999999999999"};
  for (guint n = 0; n < G_N_ELEMENTS(names); n++)
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
      char message[128] = "";
      FkFailure failure;
      g_setenv(names[n], bad[i], TRUE);
      g_assert_null(fk_backend_open("null", 0, 0, &failure, message, sizeof message));
      g_autofree char *is = g_strdup_printf("%s is '%s': expected", names[n], bad[i]);
      g_assert_true(g_str_has_prefix(message, is));
      g_unsetenv(names[n]);
    }
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/null/slots", slots);
  g_test_add_func("/null/addresses", addresses);
  g_test_add_func("/null/pixels", pixels_repeat);
  g_test_add_func("/null/counts", counts);
  g_test_add_func("/null/events", events);
  g_test_add_func("/null/settings", settings);
  g_test_add_func("/null/fail-alloc", fail_alloc);
  return g_test_run();
}
