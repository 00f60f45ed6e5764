/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures that settings name (mask-path, references): the same edit as with the pixels in the job, read once, in plans
 * and in manifests, and files that are none. */
#include "pictures.h"
#include "test-demo.h"
#include "test-files.h"
#include "tune.h"

#include <glib/gstdio.h>
#include <png.h>
#include <string.h>
#include <sys/stat.h>

enum { W = 64, H = 48 };

static FkEngine *engine;

/* A grey picture; columns from `edge` on are white. (transfer full): its path */
static char *write_picture(const char *name, int width, int height, int edge) {
  g_autofree uint8_t *pixels = g_malloc((size_t)(width * height));
  for (int i = 0; i < width * height; i++) pixels[i] = i % width >= edge ? 255 : 0;
  char *path = g_build_filename(scratch, name, NULL);
  png_image png = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)width,
                   .height = (png_uint_32)height,
                   .format = PNG_FORMAT_GRAY};
  g_assert_true(png_image_write_to_file(&png, path, 0, pixels, width, NULL));
  return path;
}

/* "name=value|name=value"; (transfer full) */
static FkSettings *settings_of(const char *pairs) {
  g_autoptr(GError) error = NULL;
  FkSettings *s = fk_settings_new();
  fk_settings_set(s, "steps", "2", NULL);
  fk_settings_set(s, "prompt", "night", NULL);
  g_auto(GStrv) list = g_strsplit(pairs, "|", -1);
  for (char **p = list; *p; p++) {
    char *value = strchr(*p, '=');
    *value = 0;
    fk_settings_set(s, *p, value + 1, &error);
    g_assert_no_error(error);
  }
  return s;
}

static uint8_t frame[W * H * 3];

/* (transfer full) the result's pixels; NULL: *error */
static uint8_t *edit(const FkSettings *settings, const FkImage *mask, GError **error) {
  uint8_t *out = g_malloc0(sizeof frame);
  FkJob job = {.in = {frame, W, H, 3, W * 3}, .out = {out, W, H, 3, W * 3}, .settings = settings, .mask = mask};
  if (fk_engine_edit(engine, &job, 1, NULL, NULL, NULL, error)) return out;
  g_free(out);
  return NULL;
}

static void mask(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = write_picture("mask.png", W, H, 40), *pair = g_strconcat("mask-path=", path, NULL);
  g_autofree char *named = g_strconcat("mask=path|", pair, NULL);
  g_autoptr(FkSettings) implied = settings_of(pair), said = settings_of(named), plain = settings_of("seed=0");
  uint8_t bytes[W * H];
  for (int i = 0; i < W * H; i++) bytes[i] = i % W >= 40 ? 255 : 0;
  const FkImage image = {bytes, W, H, 1, W};
  g_autofree uint8_t *a = edit(implied, NULL, &error), *b = edit(said, NULL, &error), *c = edit(plain, &image, &error),
                     *whole = edit(plain, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpmem(a, sizeof frame, c, sizeof frame);
  g_assert_cmpmem(b, sizeof frame, c, sizeof frame);
  g_assert_cmpint(memcmp(a, whole, sizeof frame), !=, 0);
  for (int y = 0; y < H; y++) g_assert_cmpmem(a + y * W * 3, 40 * 3, frame + y * W * 3, 40 * 3);
}

/* Decoded once for all edits, again when the file is another, and a file that goes is not used on. */
static void once(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *one = write_picture("one.png", 32, 32, 8), *two = write_picture("two.png", 48, 32, 8),
                  *pairs = g_strconcat("references=", one, " ; ", two, NULL);
  g_autoptr(FkSettings) s = settings_of(pairs);
  const int before = fk_pictures_decoded();
  for (int i = 0; i < 3; i++) {
    g_autofree uint8_t *out = edit(s, NULL, &error);
    g_assert_no_error(error);
  }
  g_assert_cmpint(fk_pictures_decoded() - before, ==, 2);
  g_unlink(two);
  g_free(write_picture("two.png", 40, 32, 8));
  g_autofree uint8_t *out = edit(s, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpint(fk_pictures_decoded() - before, ==, 3);
  g_unlink(one);
  g_assert_null(edit(s, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  g_assert_nonnull(strstr(error->message, "references: "));
  g_assert_nonnull(strstr(error->message, "one.png"));
}

static void plan_of(const char *pairs, FkPlan *p) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  fk_plan("kontext-dev", NULL, s, 1024, 1024, 2, p, &error);
  g_assert_no_error(error);
}

static void plans(void) {
  g_autofree char *picture = write_picture("square.png", 64, 64, 32), *corner = write_picture("corner.png", 64, 64, 60),
                  *one = g_strconcat("references=", picture, NULL), *two = g_strconcat(one, ";", picture, NULL),
                  *masked = g_strconcat("mask-path=", corner, NULL),
                  *crop = g_strconcat(masked, "|region=crop|size-mode=input|max-area=1048576", NULL);
  FkPlan p[5];
  plan_of("seed=0", &p[0]);
  plan_of(one, &p[1]);
  plan_of(two, &p[2]);
  plan_of(masked, &p[3]);
  plan_of(crop, &p[4]);
  g_assert_cmpint(p[0].context_tokens, ==, 4096);
  for (int i = 1; i < 3; i++) {
    g_assert_cmpint(p[i].context_tokens, ==, 4096 * (i + 1));
    g_assert_cmpfloat(p[i].flop, >, p[i - 1].flop);
    g_assert_cmpfloat(p[i].arena_bytes, >, p[i - 1].arena_bytes);
  }
  g_assert_cmpint(p[3].width, ==, 1024);
  g_assert_cmpfloat(p[3].arena_bytes, >=, p[0].arena_bytes);
  g_assert_cmpint(p[4].width, <, p[4].height); /* a high, narrow part */
}

static void warmups(void) {
  g_autoptr(GError) error = NULL;
  g_autofree char *path = write_picture("warm.png", W, H, 8),
                  *pairs = g_strconcat("mask-path=", path, "|region=crop|references=", path, NULL);
  g_autoptr(FkSettings) s = settings_of(pairs), bad = settings_of("references=/nowhere/a.png");
  fk_engine_warmup(engine, s, W, H, NULL, &error);
  g_assert_no_error(error);
  g_assert_false(fk_engine_warmup(engine, bad, W, H, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
}

static char *id_of(const char *pairs) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  const FkJob job = {.in = {frame, W, H, 3, W * 3}, .settings = s};
  char *id = fk_manifest_id(engine, &job, &error);
  g_assert_no_error(error);
  return id;
}

/* By the pixels, not by the name. */
static void ids(void) {
  static const char *const settings[] = {"mask-path=", "references="};
  g_autofree char *a = write_picture("a.png", 32, 32, 8), *same = write_picture("same.png", 32, 32, 8),
                  *b = write_picture("b.png", 32, 32, 9), *none = id_of("seed=0");
  for (size_t i = 0; i < G_N_ELEMENTS(settings); i++) {
    g_autofree char *pair_a = g_strconcat(settings[i], a, NULL), *pair_same = g_strconcat(settings[i], same, NULL),
                    *pair_b = g_strconcat(settings[i], b, NULL), *id_a = id_of(pair_a), *id_same = id_of(pair_same),
                    *id_b = id_of(pair_b);
    g_assert_cmpstr(id_a, ==, id_same);
    g_assert_cmpstr(id_a, !=, id_b);
    g_assert_cmpstr(id_a, !=, none);
  }
}

static void refuse(const char *pairs, const char *a, const char *b) {
  g_autoptr(GError) error = NULL;
  g_autoptr(FkSettings) s = settings_of(pairs);
  g_test_message("%s", pairs);
  g_assert_null(edit(s, NULL, &error));
  g_assert_error(error, FK_ERROR, FK_ERROR_OPTION_BAD);
  if (!strstr(error->message, a) || !strstr(error->message, b)) g_error("%s", error->message);
}

static void refused(void) {
  g_autofree char *text = g_build_filename(scratch, "text.png", NULL), *fifo = g_build_filename(scratch, "fifo", NULL),
                  *good = write_picture("good.png", 32, 32, 8);
  g_assert_true(g_file_set_contents(text, "no picture", -1, NULL));
  g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
  const char *const paths[] = {"/nowhere/a.png", "/", "/dev/zero", fifo, text};
  for (size_t i = 0; i < G_N_ELEMENTS(paths); i++) {
    g_autofree char *m = g_strconcat("mask-path=", paths[i], NULL),
                    *r = g_strconcat("references=", good, ";", paths[i], NULL);
    refuse(m, "mask-path: ", paths[i]);
    refuse(r, "references: ", paths[i]);
  }
  refuse("mask=path", "mask=path", "mask-path is not set");
  refuse("references=a;b;c;d;e;f;g;h;i", "up to 8", "found 9");
  refuse("references=a;;b", "references", "entry 2");
  refuse("references=a|task=generate", "references=a", "task=generate");
  refuse("mask-path=a|task=generate", "mask=path", "task=generate");
  refuse("mask-path=a|size-mode=native", "mask=path", "size-mode=native");
}

static bool is_idle(const char *pairs, const char *name) {
  g_autoptr(FkSettings) s = settings_of(pairs);
  g_auto(GStrv) list = fk_settings_idle(s);
  for (char **p = list; *p; p += 2)
    if (!strcmp(*p, name)) return true;
  return false;
}

static void idle(void) {
  static const char *const pairs[] = {"mask-feather=3", "mask-dilate=3", "mask-invert=true", "region=crop"};
  for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
    g_auto(GStrv) word = g_strsplit(pairs[i], "=", 2);
    g_autofree char *file = g_strconcat(pairs[i], "|mask-path=a.png", NULL),
                    *alpha = g_strconcat(pairs[i], "|mask=alpha", NULL);
    g_assert_true(is_idle(pairs[i], word[0]));
    g_assert_false(is_idle(file, word[0]));
    g_assert_false(is_idle(alpha, word[0]));
  }
  g_assert_true(is_idle("mask=alpha|mask-path=a.png", "mask-path"));
  g_assert_false(is_idle("mask-path=a.png", "mask-path"));
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  scratch_open();
  for (size_t i = 0; i < sizeof frame; i++) frame[i] = (uint8_t)(i * 31);
  engine = demo_engine("null");
  g_test_add_func("/beside/mask", mask);
  g_test_add_func("/beside/once", once);
  g_test_add_func("/beside/plans", plans);
  g_test_add_func("/beside/warmups", warmups);
  g_test_add_func("/beside/ids", ids);
  g_test_add_func("/beside/refused", refused);
  g_test_add_func("/beside/idle", idle);
  const int status = g_test_run();
  fk_engine_unref(engine);
  scratch_close();
  return status;
}
