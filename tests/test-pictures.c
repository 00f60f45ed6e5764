/* SPDX-License-Identifier: Apache-2.0 */
/* PNG and JPEG as the tools read them, byte for byte against Pillow (tests/golden/make_pictures.py), files that are
 * cut, changed or of another kind, and what is written. */
#include "image-file.h"
#include "picture-formats.h"
#include "picture.h"
#include "test-files.h"
#include "tool.h"

static char *golden(const char *name) {
  return g_build_filename(FK_GOLDEN, "pictures", name, NULL);
}

static void check_line(char **word) {
  g_autofree char *path = golden(word[0]), *sha = NULL;
  g_autoptr(GError) error = NULL;
  FkImage image;
  g_test_message("%s", word[0]);
  fk_image_read(path, &image, &error);
  g_assert_no_error(error);
  g_assert_cmpint(image.width, ==, atoi(word[1]));
  g_assert_cmpint(image.height, ==, atoi(word[2]));
  g_assert_cmpint(image.channels, ==, atoi(word[3]));
  g_assert_cmpuint(image.stride, ==, (size_t)image.width * (size_t)image.channels);
  sha = g_compute_checksum_for_data(G_CHECKSUM_SHA256, image.data, image.stride * (size_t)image.height);
  g_assert_cmpstr(sha, ==, word[4]);
  g_free(image.data);
}

static void reference(void) {
  g_autofree char *path = golden("pictures.txt"), *text = NULL;
  g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
  g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
  int seen = 0;
  for (char **line = lines; *line; line++) {
    g_auto(GStrv) word = g_strsplit(*line, " ", -1);
    if (**line == '#' || g_strv_length(word) != 5) continue;
    check_line(word);
    seen++;
  }
  g_assert_cmpint(seen, ==, 24);
}

static void refused(const char *path, const char *word) {
  g_autoptr(GError) error = NULL;
  FkImage image;
  g_assert_false(fk_image_read(path, &image, &error));
  g_assert_null(image.data);
  g_assert_nonnull(error);
  g_assert_nonnull(strstr(error->message, path));
  g_assert_nonnull(strstr(error->message, word));
}

/* Cut at every tenth byte and with every tenth byte changed: a picture or an error, never more. */
static void hostile(void) {
  static const char *const names[] = {"plain.png", "interlaced.png",  "palette-alpha.png", "turned.png",
                                      "grey.jpg",  "progressive.jpg", "turned-6.jpg",      "little-endian.jpg"};
  scratch_open();
  g_autofree char *path = g_build_filename(scratch, "picture", NULL);
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autofree char *from = golden(names[i]), *data = NULL;
    gsize size;
    g_assert_true(g_file_get_contents(from, &data, &size, NULL));
    for (gsize at = 0; at + 4 < size; at += 10) { /* the last bytes may be missing */
      g_assert_true(fk_file_write(path, data, at, NULL));
      refused(path, "");
      g_remove(path); /* overwriting a file may wait for the disk */
      FkImage image;
      const char kept = data[at];
      data[at] ^= 0x55;
      g_assert_true(fk_file_write(path, data, size, NULL));
      data[at] = kept;
      if (fk_image_read(path, &image, NULL)) g_free(image.data);
      g_remove(path);
    }
  }
  scratch_close();
}

static void other_kinds(void) {
  g_autofree char *cmyk = golden("cmyk.jpg"), *text = golden("pictures.txt");
  refused(cmyk, "CMYK");
  refused(text, "neither PNG nor JPEG");
  refused("/nowhere.png", "");
}

/* A directory of EXIF whose numbers lead outside. */
static void exif(void) {
  static const char good[] = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
  guint8 data[sizeof good];
  memcpy(data, good, sizeof good);
  g_assert_cmpint(fk_image_file_orientation(data, sizeof good - 1), ==, 6);
  for (gsize n = 0; n < sizeof good - 1; n++) g_assert_cmpint(fk_image_file_orientation(data, n), ==, 1);
  data[9] = 0xff; /* entries beyond the end */
  g_assert_cmpint(fk_image_file_orientation(data, sizeof good - 1), ==, 6);
  data[19] = 9; /* no orientation */
  g_assert_cmpint(fk_image_file_orientation(data, sizeof good - 1), ==, 1);
  memset(data + 4, 0xff, 4);
  g_assert_cmpint(fk_image_file_orientation(data, sizeof good - 1), ==, 1);
}

/* PNG gives the bytes back, JPEG those that Pillow's JPEG of the same quality gives. */
static void written(void) {
  static const char *const names[][2] = {
      {"a.png", "plain.png"}, {"a.PNG", "plain.png"}, {"a.jpg", "full-colour.jpg"}, {"a.JPEG", "full-colour.jpg"}};
  g_autofree char *path = golden("plain.png");
  g_autoptr(GError) error = NULL;
  FkImage image, again, want;
  scratch_open();
  g_assert_true(fk_image_read(path, &image, &error));
  for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autofree char *to = g_build_filename(scratch, names[i][0], NULL), *reference = golden(names[i][1]);
    picture_write(to, &image, &error);
    g_assert_no_error(error);
    g_assert_true(fk_image_read(to, &again, &error) && fk_image_read(reference, &want, &error));
    g_assert_cmpmem(again.data, again.stride * (size_t)again.height, want.data, want.stride * (size_t)want.height);
    g_free(again.data);
    g_free(want.data);
  }
  g_free(image.data);
  scratch_close();
}

static void not_written(void) {
  g_autoptr(GError) error = NULL;
  uint8_t pixels[4 * 4 * 4] = {0};
  const FkImage image = {pixels, 4, 4, 4, 16}, flat = {pixels, 4, 4, 3, 12};
  g_assert_false(picture_write("a.jpg", &image, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "a.jpg", "transparency");
  g_clear_error(&error);
  g_assert_false(picture_write("a.webp", &flat, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "a.webp", ".png");
  g_clear_error(&error);
  g_assert_false(picture_write("/nowhere/a.png", &flat, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "/nowhere/a.png", "");
  g_clear_error(&error);
  g_assert_false(fk_file_write("/dev/full", "text", 4, &error));
  assert_error(error, FK_ERROR_OPTION_BAD, "/dev/full", "No space");
}

int main(int argc, char **argv) {
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/pictures/reference", reference);
  g_test_add_func("/pictures/hostile", hostile);
  g_test_add_func("/pictures/other-kinds", other_kinds);
  g_test_add_func("/pictures/exif", exif);
  g_test_add_func("/pictures/written", written);
  g_test_add_func("/pictures/not-written", not_written);
  return g_test_run();
}
