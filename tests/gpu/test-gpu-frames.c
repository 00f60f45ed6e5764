/* SPDX-License-Identifier: Apache-2.0 */
/* Edits of pictures in a GPU's memory have the bytes of the same edits in host memory; what is no memory of the
 * engine's device is refused, and the engine works on. Sizes, layouts and what is compared: surface-cases.h. */
#include "../surface-cases.h"

#include <stdio.h>

static FkEngine *engine;

static void interleaved(void) {
  check_all_interleaved(engine);
}

static void planes(void) {
  check_all_planes(engine);
}

static void copies(void) {
  check_all_copies(engine);
}

/* Host memory, an address of nobody, and one behind an allocation's end. */
static void unreachable(void) {
  g_autoptr(FkSettings) settings = settings_of(&edits[0]);
  static uint8_t host[64 * 64 * 3], other[64 * 64 * 3];
  uint8_t *device = device_put(host, sizeof host), *small = device_put(host, 256);
  uint8_t *const wrong[] = {other, (uint8_t *)(uintptr_t)0x100000, small};
  for (int i = 0; i < 3; i++) {
    g_autoptr(GError) error = NULL;
    /* The last one's end is 48 GiB behind its beginning. */
    FkJob job = {.in = {wrong[i], 64, 64, 3, i == 2 ? (size_t)768 << 20 : 192, FK_MEMORY_DEVICE, NULL},
                 .out = {device, 64, 64, 3, 192, FK_MEMORY_DEVICE, NULL},
                 .settings = settings};
    g_assert_false(fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, &error));
    g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
    g_assert_nonnull(strstr(error->message, "input image: plane 0"));
  }
  device_get(host, device, sizeof host);
  device_get(host, small, 256);
  check_interleaved(engine, &edits[0]);
}

static void device(void) {
  int ordinal = -5;
  void *context = NULL;
  g_assert_true(fk_engine_device(engine, &ordinal, &context));
  g_assert_cmpint(ordinal, >=, 0);
  g_assert_nonnull(context);
}

int main(int argc, char **argv) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkOptions) options = fk_options_new();
  const char *source = g_getenv("FK_SOURCE") ? g_getenv("FK_SOURCE") : FK_ROOT;
  g_autofree char *model = g_build_filename(source, "examples", "demo-model", "checkpoint", NULL);
  g_autofree char *mask = g_build_filename(source, "examples", "demo-model", "photos", "shapes_256.png", NULL);
  char message[256];
  FkFailure failure;
  g_test_init(&argc, &argv, NULL);
  fk_options_set(options, "model-path", model, NULL);
  fk_options_set(options, "backend", "cuda", NULL);
  mask_file = mask;
  engine = fk_engine_open(options, NULL, NULL, NULL, &error);
  int ordinal = 0;
  if (engine) fk_engine_device(engine, &ordinal, NULL);
  device_memory = engine ? fk_backend_open("cuda", ordinal, 0, &failure, message, sizeof message) : NULL;
  if (!device_memory) {
    printf("1..0 # SKIP %s\n", engine ? message : error->message);
    fk_engine_unref(engine);
    return 0;
  }
  g_test_add_func("/gpu-frames/device", device);
  g_test_add_func("/gpu-frames/interleaved", interleaved);
  g_test_add_func("/gpu-frames/planes", planes);
  g_test_add_func("/gpu-frames/copies", copies);
  g_test_add_func("/gpu-frames/unreachable", unreachable);
  const int status = g_test_run();
  fk_backend_close(device_memory);
  fk_engine_unref(engine);
  return status;
}
