/* SPDX-License-Identifier: Apache-2.0 */
/* Photographs by libvips; see photo.h. Nothing is read or written by path: vips takes "name[option]" for options, and
 * the bytes are hashed anyway. Of its loaders those of the formats named below are open, and none other. */
#include "photo.h"

#include <string.h>
#include <vips/vips.h>

enum { SIDE = 65535 };

/* What it has to say about a file is in the error. */
static void be_quiet(const char *domain, GLogLevelFlags level, const char *message, gpointer data) {
  (void)domain;
  (void)level;
  (void)message;
  (void)data;
}

bool photo_start(const char *program, GError **error) {
  static const char *const readers[] = {"VipsForeignLoadPng",  "VipsForeignLoadJpeg", "VipsForeignLoadWebp",
                                        "VipsForeignLoadTiff", "VipsForeignLoadHeif", "VipsForeignLoadNsgif"};
  if (VIPS_INIT(program)) {
    g_set_error(error, FK_ERROR, FK_ERROR_BACKEND_MISSING, "libvips: %s", vips_error_buffer());
    return false;
  }
  vips_operation_block_set("VipsForeignLoad", TRUE);
  for (size_t i = 0; i < G_N_ELEMENTS(readers); i++) vips_operation_block_set(readers[i], FALSE);
  vips_block_untrusted_set(TRUE);
  vips_cache_set_max(0); /* results of other pictures only take memory */
  vips_concurrency_set(1);
  g_log_set_handler("VIPS", G_LOG_LEVEL_WARNING | G_LOG_LEVEL_MESSAGE | G_LOG_LEVEL_INFO, be_quiet, NULL);
  return true;
}

void photo_clear(Photo *photo) {
  g_clear_pointer(&photo->image.data, g_free);
  g_clear_pointer((VipsImage **)&photo->about, g_object_unref);
  if (photo->notes) g_string_free(photo->notes, TRUE);
  photo->notes = NULL;
}

/* vips keeps one text of errors for the whole process; its first line says what went wrong. */
static bool fail(const char *name, GError **error) {
  g_autofree char *text = vips_error_buffer_copy();
  char *end = strchr(text, '\n');
  if (end) *end = 0;
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %s", name, *text ? text : "cannot be decoded");
  return false;
}

static void note(Photo *photo, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void note(Photo *photo, const char *format, ...) {
  va_list list;
  if (photo->notes->len) g_string_append(photo->notes, "; ");
  va_start(list, format);
  g_string_append_vprintf(photo->notes, format, list);
  va_end(list);
}

/* "VipsForeignLoadPngBuffer" -> "png"; NULL: not one of ours. */
static const char *format_of(const char *loader) {
  static const char *const names[][2] = {{"Png", "png"},   {"Jpeg", "jpeg"}, {"Webp", "webp"},
                                         {"Tiff", "tiff"}, {"Heif", "heif"}, {"Nsgif", "gif"}};
  for (size_t i = 0; loader && i < G_N_ELEMENTS(names); i++)
    if (g_str_has_prefix(loader + strlen("VipsForeignLoad"), names[i][0])) return names[i][1];
  return NULL;
}

/* The head of the file; pixels are decoded when they are asked for. NULL with an error. */
static VipsImage *open_head(const char *name, const guint8 *data, gsize bytes, const char **format, GError **error) {
  *format = format_of(vips_foreign_find_load_buffer(data, bytes));
  vips_error_clear();
  if (!*format) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "%s: not a PNG, JPEG, WebP, TIFF, HEIF, AVIF or GIF, which are the formats that are read", name);
    return NULL;
  }
  VipsImage *image = vips_image_new_from_buffer(data, bytes, "", "fail_on", VIPS_FAIL_ON_ERROR, NULL);
  if (!image) fail(name, error);
  return image;
}

/* Replaces *image by what an operation made of it. */
static bool step(VipsImage **image, VipsImage *const *next, int failed) {
  g_object_unref(*image);
  *image = failed ? NULL : *next;
  return !failed;
}

/* To sRGB of 8 bits, with or without alpha. */
static bool to_rgb(VipsImage **image, Photo *photo) {
  const VipsInterpretation from = vips_image_get_interpretation(*image);
  const bool profile = vips_image_get_typeof(*image, VIPS_META_ICC_NAME), cmyk = from == VIPS_INTERPRETATION_CMYK;
  const bool grey = from == VIPS_INTERPRETATION_B_W || from == VIPS_INTERPRETATION_GREY16;
  const bool rgb = from == VIPS_INTERPRETATION_sRGB || from == VIPS_INTERPRETATION_RGB16;
  VipsImage *next = NULL;
  if (from == VIPS_INTERPRETATION_sRGB) return true;
  if (!grey && !rgb)
    note(photo, "converted from %s to sRGB%s", vips_enum_nick(VIPS_TYPE_INTERPRETATION, (int)from),
         cmyk && profile ? " by its profile" : "");
  if (grey && profile) note(photo, "its profile of grey is left out");
  const int failed = cmyk && profile ? vips_icc_transform(*image, &next, "srgb", "embedded", TRUE, NULL)
                                     : vips_colourspace(*image, &next, VIPS_INTERPRETATION_sRGB, NULL);
  if (!step(image, &next, failed)) return false;
  if (!rgb && profile) vips_image_remove(*image, VIPS_META_ICC_NAME);
  return true;
}

/* Upright RGB or RGBA of 8 bits. */
static bool to_pixels(VipsImage **image, Photo *photo) {
  const VipsBandFormat type = vips_image_get_format(*image);
  VipsImage *next = NULL;
  if (!step(image, &next, vips_autorot(*image, &next, NULL)) || !to_rgb(image, photo)) return false;
  if (type != VIPS_FORMAT_UCHAR) note(photo, "cut to 8 bits");
  if (vips_image_get_format(*image) != VIPS_FORMAT_UCHAR &&
      !step(image, &next, vips_cast(*image, &next, VIPS_FORMAT_UCHAR, NULL)))
    return false;
  if (vips_image_get_bands(*image) <= 4) return true;
  note(photo, "of its channels the first four are kept");
  return step(image, &next, vips_extract_band(*image, &next, 0, "n", 4, NULL));
}

static bool check_size(const char *name, VipsImage *image, gint64 max_pixels, GError **error) {
  const gint64 width = vips_image_get_width(image), height = vips_image_get_height(image);
  if (width > SIDE || height > SIDE)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %dx%d: sides go from 1 to %d", name, (int)width, (int)height,
                SIDE);
  else if (width * height > max_pixels)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "%s: %dx%d: more than the %" G_GINT64_FORMAT " pixels of --max-pixels", name, (int)width, (int)height,
                max_pixels);
  else
    return true;
  return false;
}

static bool take_pixels(const char *name, VipsImage *image, Photo *photo, GError **error) {
  size_t size;
  FkImage *out = &photo->image;
  *out = (FkImage){.width = vips_image_get_width(image), .height = vips_image_get_height(image)};
  out->channels = vips_image_get_bands(image);
  out->stride = (size_t)out->width * (size_t)out->channels;
  if (out->channels < 3) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: %d channels, which are no RGB", name, out->channels);
    return false;
  }
  void *pixels = vips_image_write_to_memory(image, &size);
  out->data = pixels;
  return pixels || fail(name, error);
}

/* What a file says about the photograph, and not about its pixels, its file or its former text. */
static bool kept(const char *field) {
  static const char *const names[] = {VIPS_META_ICC_NAME, VIPS_META_EXIF_NAME, VIPS_META_XMP_NAME, VIPS_META_IPTC_NAME,
                                      NULL};
  return g_strv_contains(names, field) || g_str_has_prefix(field, "exif-");
}

static void tell_about(VipsImage *to, VipsImage *from) {
  g_auto(GStrv) fields = vips_image_get_fields(from);
  for (char **field = fields; *field; field++) {
    GValue value = G_VALUE_INIT;
    if (!kept(*field) || vips_image_get(from, *field, &value)) continue;
    vips_image_set(to, *field, &value);
    g_value_unset(&value);
  }
}

bool photo_decode(const char *name, const guint8 *data, gsize bytes, gint64 max_pixels, Photo *photo, GError **error) {
  *photo = (Photo){.notes = g_string_new(NULL)};
  VipsImage *image = open_head(name, data, bytes, &photo->format, error);
  bool ok = image && check_size(name, image, max_pixels, error);
  if (ok && vips_image_get_n_pages(image) > 1) note(photo, "the first of %d frames", vips_image_get_n_pages(image));
  ok = ok && (to_pixels(&image, photo) || fail(name, error)) && take_pixels(name, image, photo, error);
  if (ok) {
    /* What it says, without the pixels, which it would hold on to. */
    VipsImage *about = vips_image_new();
    tell_about(about, image);
    photo->about = about;
  }
  g_clear_object(&image);
  return ok;
}

bool photo_size(const char *name, const guint8 *data, gsize bytes, int *width, int *height, GError **error) {
  const char *format;
  VipsImage *image = open_head(name, data, bytes, &format, error);
  if (!image) return false;
  const bool ok = check_size(name, image, G_MAXINT64, error);
  const bool swap = vips_image_get_orientation_swap(image);
  *width = swap ? vips_image_get_height(image) : vips_image_get_width(image);
  *height = swap ? vips_image_get_width(image) : vips_image_get_height(image);
  g_object_unref(image);
  return ok;
}

/* ---- Writing ---- */

/* Ending, what vips calls it with our options (%d: quality), whether it holds transparency. */
typedef struct {
  const char *end, *saver;
  bool alpha;
} Format;

static const Format *format_named(const char *name) {
  static const Format list[] = {{"png", ".png", true},
                                {"jpg", ".jpg[Q=%d,subsample_mode=off]", false},
                                {"jpeg", ".jpg[Q=%d,subsample_mode=off]", false},
                                {"webp", ".webp[Q=%d]", true},
                                {"tif", ".tif[compression=deflate,predictor=horizontal]", true},
                                {"tiff", ".tif[compression=deflate,predictor=horizontal]", true},
                                {"avif", ".avif[Q=%d]", true},
                                {"heif", ".heif[Q=%d]", true},
                                {"heic", ".heif[Q=%d]", true}};
  const char *dot = strrchr(name, '.');
  for (size_t i = 0; dot && i < G_N_ELEMENTS(list); i++)
    if (!g_ascii_strcasecmp(dot + 1, list[i].end)) return &list[i];
  return NULL;
}

bool photo_check_name(const char *name, bool alpha, GError **error) {
  const Format *format = format_named(name);
  if (!format)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD,
                "%s: the name says the format: expected .png, .jpg, .jpeg, .webp, .tif, .tiff, .avif, .heif or .heic",
                name);
  else if (alpha && !format->alpha)
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: JPEG has no transparency, which the picture has; use .png",
                name);
  else
    return true;
  return false;
}

bool photo_encode(const char *name, const FkImage *image, const Photo *like, int quality, guint8 **data, gsize *bytes,
                  GError **error) {
  if (!photo_check_name(name, image->channels == 4, error)) return false;
  const size_t size = image->stride * (size_t)image->height;
  VipsImage *raw = vips_image_new_from_memory(image->data, size, image->width, image->height, image->channels,
                                              VIPS_FORMAT_UCHAR),
            *out = NULL;
  g_autoptr(GString) saver = g_string_new(format_named(name)->saver);
  g_autofree char *q = g_strdup_printf("%d", quality);
  void *buffer = NULL;
  g_string_replace(saver, "%d", q, 1);
  bool ok = raw && !vips_copy(raw, &out, "interpretation", VIPS_INTERPRETATION_sRGB, NULL);
  if (ok && like && like->about) {
    tell_about(out, like->about);
    vips_image_set_int(out, VIPS_META_ORIENTATION, 1); /* as the pixels are; absent, the EXIF data's own would stay */
  }
  ok = ok && !vips_image_write_to_buffer(out, saver->str, &buffer, bytes, NULL);
  g_clear_object(&out);
  g_clear_object(&raw);
  *data = buffer;
  return ok || fail(name, error);
}
