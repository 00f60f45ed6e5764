/* SPDX-License-Identifier: Apache-2.0 */
/* Functions of libgstcuda are the same in GStreamer 1.22 to 1.28, as is the beginning of its GstCudaMemory;
 * gst_cuda_allocator_alloc() is not, so that memory comes from pools alone. Without a driver every function but
 * gst_cuda_load_library() ends the process in 1.22. Types and numbers of the driver are those of its binary interface.
 *
 * Copies between contexts go through the driver: libgstcuda has none. Each ends with a wait for its context, so that
 * streams of others, the engine's or downstream's, may begin at once. */
#include "gstfluxkontextcuda.h"

#include "gstfluxkontextlayout.h"
#include "gstfluxkontextpixels.h"

#include <dlfcn.h>
#include <string.h>

/* ---- The libraries ---- */

typedef struct {
  gboolean (*load_library)(void);
  void (*memory_init)(void);
  gboolean (*is_memory)(GstMemory *memory);
  void (*memory_sync)(GstMemory *memory); /* NULL before GStreamer 1.24, whose elements wait themselves */
  gpointer (*context_new)(guint device);
  gpointer (*context_new_wrapped)(gpointer handle, gint device);
  gpointer (*context_handle)(gpointer context);
  GstContext *(*context_share)(gpointer context);
  gboolean (*context_take)(GstElement *element, GstContext *context, gint device, gpointer *mine);
  gboolean (*context_answer)(GstElement *element, GstQuery *query, gpointer context);
  GstBufferPool *(*pool_new)(gpointer context);
  GType (*pool_type)(void);
} Library;

typedef struct {
  gint (*push)(gpointer context);
  gint (*pop)(gpointer *context);
  gint (*synchronize)(void);
  gint (*alloc)(guint64 *address, gsize bytes);
  gint (*release)(guint64 address);
  gint (*set)(guint64 address, guchar value, gsize bytes);
  gint (*copy_up)(guint64 to, gconstpointer from, gsize bytes);
  gint (*copy_down)(gpointer to, guint64 from, gsize bytes);
  gint (*copy_peer)(guint64 to, gpointer to_context, guint64 from, gpointer from_context, gsize bytes);
} Driver;

static Library library;
static Driver driver;

typedef struct {
  const gchar *name;
  gsize offset;
  gboolean optional;
} Symbol;

static const Symbol library_symbols[] = {
    {"gst_cuda_load_library", G_STRUCT_OFFSET(Library, load_library), FALSE},
    {"gst_cuda_memory_init_once", G_STRUCT_OFFSET(Library, memory_init), FALSE},
    {"gst_is_cuda_memory", G_STRUCT_OFFSET(Library, is_memory), FALSE},
    {"gst_cuda_memory_sync", G_STRUCT_OFFSET(Library, memory_sync), TRUE},
    {"gst_cuda_context_new", G_STRUCT_OFFSET(Library, context_new), FALSE},
    {"gst_cuda_context_new_wrapped", G_STRUCT_OFFSET(Library, context_new_wrapped), FALSE},
    {"gst_cuda_context_get_handle", G_STRUCT_OFFSET(Library, context_handle), FALSE},
    {"gst_context_new_cuda_context", G_STRUCT_OFFSET(Library, context_share), FALSE},
    {"gst_cuda_handle_set_context", G_STRUCT_OFFSET(Library, context_take), FALSE},
    {"gst_cuda_handle_context_query", G_STRUCT_OFFSET(Library, context_answer), FALSE},
    {"gst_cuda_buffer_pool_new", G_STRUCT_OFFSET(Library, pool_new), FALSE},
    {"gst_cuda_buffer_pool_get_type", G_STRUCT_OFFSET(Library, pool_type), FALSE},
};

static const Symbol driver_symbols[] = {
    {"cuCtxPushCurrent_v2", G_STRUCT_OFFSET(Driver, push), FALSE},
    {"cuCtxPopCurrent_v2", G_STRUCT_OFFSET(Driver, pop), FALSE},
    {"cuCtxSynchronize", G_STRUCT_OFFSET(Driver, synchronize), FALSE},
    {"cuMemAlloc_v2", G_STRUCT_OFFSET(Driver, alloc), FALSE},
    {"cuMemFree_v2", G_STRUCT_OFFSET(Driver, release), FALSE},
    {"cuMemsetD8_v2", G_STRUCT_OFFSET(Driver, set), FALSE},
    {"cuMemcpyHtoD_v2", G_STRUCT_OFFSET(Driver, copy_up), FALSE},
    {"cuMemcpyDtoH_v2", G_STRUCT_OFFSET(Driver, copy_down), FALSE},
    {"cuMemcpyPeer", G_STRUCT_OFFSET(Driver, copy_peer), FALSE},
};

/* Fills `table` from a library, which stays open. */
static gboolean bind(const gchar *name, const Symbol *symbols, guint n, gpointer table) {
  void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  for (guint i = 0; handle && i < n; i++) {
    void *address = dlsym(handle, symbols[i].name);
    if (!address && !symbols[i].optional) return FALSE;
    memcpy(G_STRUCT_MEMBER_P(table, symbols[i].offset), &address, sizeof address);
  }
  return handle != NULL;
}

/* NULL, or why CUDA memory cannot be used. */
static gpointer open_libraries(gpointer unused) {
  (void)unused;
  if (!bind("libgstcuda-1.0.so.0", library_symbols, G_N_ELEMENTS(library_symbols), &library))
    return (gpointer) "there is no libgstcuda-1.0.so.0 of GStreamer 1.22 or newer (GStreamer's bad plugins bring it)";
  if (!library.load_library()) return (gpointer) "libgstcuda finds no driver that it knows";
  if (!bind("libcuda.so.1", driver_symbols, G_N_ELEMENTS(driver_symbols), &driver))
    return (gpointer) "libcuda.so.1 lacks a function";
  library.memory_init();
  return NULL;
}

static gint opened; /* atomic */

gboolean gst_flux_kontext_cuda_open(const gchar **why) {
  static GOnce once = G_ONCE_INIT;
  const gchar *reason = g_once(&once, open_libraries, NULL);
  if (why) *why = reason;
  if (!reason) g_atomic_int_set(&opened, TRUE);
  return !reason;
}

/* ---- Caps ---- */

gboolean gst_flux_kontext_cuda_is(const GstCapsFeatures *features) {
  return features && !gst_caps_features_is_any(features) &&
         gst_caps_features_contains(features, GST_FLUX_KONTEXT_CUDA_MEMORY);
}

/* What libgstcuda 1.22 can allocate and the engine converts. */
GstCaps *gst_flux_kontext_cuda_caps(void) {
  static const GstVideoFormat formats[] = {GST_VIDEO_FORMAT_RGB,  GST_VIDEO_FORMAT_BGR,  GST_VIDEO_FORMAT_RGBx,
                                           GST_VIDEO_FORMAT_BGRx, GST_VIDEO_FORMAT_RGBA, GST_VIDEO_FORMAT_BGRA,
                                           GST_VIDEO_FORMAT_NV12, GST_VIDEO_FORMAT_I420, GST_VIDEO_FORMAT_P010_10LE,
                                           GST_VIDEO_FORMAT_ARGB, GST_VIDEO_FORMAT_ABGR, GST_VIDEO_FORMAT_RGBP,
                                           GST_VIDEO_FORMAT_BGRP, GST_VIDEO_FORMAT_GBR,  GST_VIDEO_FORMAT_GBRA,
                                           GST_VIDEO_FORMAT_NV21, GST_VIDEO_FORMAT_YV12, GST_VIDEO_FORMAT_P016_LE,
                                           GST_VIDEO_FORMAT_Y42B, GST_VIDEO_FORMAT_Y444, GST_VIDEO_FORMAT_Y444_16LE};
  GstCapsFeatures *cuda = gst_caps_features_new(GST_FLUX_KONTEXT_CUDA_MEMORY, NULL);
  return gst_video_make_raw_caps_with_features(formats, G_N_ELEMENTS(formats), cuda);
}

/* ---- Contexts ---- */

GstObject *gst_flux_kontext_cuda_context_new(gint device, gpointer handle) {
  return handle ? library.context_new_wrapped(handle, device) : library.context_new((guint)MAX(device, 0));
}

gint gst_flux_kontext_cuda_context_device(GstObject *context) {
  guint device = 0;
  g_object_get(context, "cuda-device-id", &device, NULL);
  return (gint)device;
}

gpointer gst_flux_kontext_cuda_context_handle(GstObject *context) {
  return library.context_handle(context);
}

gboolean gst_flux_kontext_cuda_context_take(GstElement *element, GstContext *context, gint device, GstObject **mine) {
  gpointer taken = *mine;
  gboolean found = library.context_take(element, context, device, &taken);
  *mine = taken;
  return found;
}

gboolean gst_flux_kontext_cuda_context_answer(GstElement *element, GstQuery *query, GstObject *context) {
  return library.context_answer(element, query, context);
}

GstContext *gst_flux_kontext_cuda_context_share(GstObject *context) {
  return library.context_share(context);
}

/* ---- Pools ---- */

GstBufferPool *gst_flux_kontext_cuda_pool_new(GstObject *context, GstCaps *caps, guint min_buffers, guint *size) {
  g_autoptr(GstBufferPool) pool = library.pool_new(context);
  GstVideoInfo info;
  if (!pool || !gst_video_info_from_caps(&info, caps)) return NULL;
  GstStructure *config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  gst_buffer_pool_config_set_params(config, caps, (guint)GST_VIDEO_INFO_SIZE(&info), min_buffers, 0);
  if (!gst_buffer_pool_set_config(pool, config)) return NULL;
  config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_get_params(config, NULL, size, NULL, NULL);
  gst_structure_free(config);
  return g_steal_pointer(&pool);
}

/* The beginning of a GstCudaBufferPool. */
typedef struct {
  GstBufferPool parent;
  GstObject *context;
} Pool;

gboolean gst_flux_kontext_cuda_pool_is(GstBufferPool *pool, GstObject *context) {
  return G_OBJECT_TYPE(pool) == library.pool_type() && ((Pool *)pool)->context == context;
}

/* ---- Memory ---- */

/* The beginning of a GstCudaMemory. */
typedef struct {
  GstMemory parent;
  GstObject *context;
  GstVideoInfo info;
} Memory;

#define MAP_DEVICE ((GstMapFlags)(GST_MAP_FLAG_LAST << 1))
#define NEED_SYNC (GST_MEMORY_FLAG_LAST << 2) /* since 1.24: work on it may still run */

static gboolean fail(GError **error, FkError code, const gchar *what, gsize bytes, gint result) {
  g_set_error(error, FK_ERROR, (gint)code, "%s, %" G_GSIZE_FORMAT " bytes: CUDA error %d.", what, bytes, result);
  return FALSE;
}

/* The one memory of a buffer, if it is of CUDA. (transfer none, nullable) */
static Memory *memory_of(GstBuffer *buffer) {
  GstMemory *memory = gst_buffer_n_memory(buffer) == 1 ? gst_buffer_peek_memory(buffer, 0) : NULL;
  return memory && g_atomic_int_get(&opened) && library.is_memory(memory) ? (Memory *)memory : NULL;
}

/* Maps for the device, once the producer's work is done. */
static gboolean map_device(Memory *memory, GstBuffer *buffer, gboolean write, GstMapInfo *map, GError **error) {
  if (library.memory_sync && GST_MEMORY_FLAG_IS_SET(memory, NEED_SYNC)) library.memory_sync(&memory->parent);
  if (gst_buffer_map(buffer, map, (write ? GST_MAP_WRITE : GST_MAP_READ) | MAP_DEVICE)) return TRUE;
  g_set_error_literal(error, FK_ERROR, FK_ERROR_DEVICE, "A buffer of CUDA memory cannot be mapped for the device.");
  return FALSE;
}

/* ---- Bytes for the CPU ---- */

/* Between the device and `data`. */
static gboolean copy_bytes(const GstFluxKontextBytes *bytes, gboolean up, GError **error) {
  guint64 address = (guint64)(guintptr)bytes->map.data;
  gint result = driver.push(bytes->context);
  if (!result) {
    result =
        up ? driver.copy_up(address, bytes->data, bytes->size) : driver.copy_down(bytes->data, address, bytes->size);
    if (!result) result = driver.synchronize();
    driver.pop(NULL);
  }
  return !result || fail(error, FK_ERROR_DEVICE,
                         up ? "A frame cannot be copied to the device" : "A frame cannot be copied from the device",
                         bytes->size, result);
}

static gboolean open_copy(GstFluxKontextBytes *bytes, Memory *memory, GstBuffer *buffer, GError **error) {
  if (!map_device(memory, buffer, bytes->written, &bytes->map, error)) return FALSE;
  bytes->size = bytes->map.size;
  bytes->context = library.context_handle(memory->context);
  bytes->data = g_try_malloc(bytes->size);
  if (!bytes->data)
    g_set_error(error, FK_ERROR, FK_ERROR_MEMORY, "No memory for a frame's copy, %" G_GSIZE_FORMAT " bytes.",
                bytes->size);
  if (bytes->data && (bytes->written || copy_bytes(bytes, FALSE, error))) return TRUE;
  gst_flux_kontext_bytes_close(bytes, buffer, FALSE, NULL);
  return FALSE;
}

gboolean gst_flux_kontext_bytes_open(GstFluxKontextBytes *bytes, GstBuffer *buffer, gboolean write, GError **error) {
  Memory *memory = memory_of(buffer);
  *bytes = (GstFluxKontextBytes){.written = write};
  if (memory) return open_copy(bytes, memory, buffer, error);
  if (!gst_buffer_map(buffer, &bytes->map, write ? GST_MAP_WRITE : GST_MAP_READ)) {
    g_set_error_literal(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "The buffer's memory cannot be mapped.");
    return FALSE;
  }
  bytes->data = bytes->map.data;
  bytes->size = bytes->map.size;
  return TRUE;
}

gboolean gst_flux_kontext_bytes_close(GstFluxKontextBytes *bytes, GstBuffer *buffer, gboolean keep, GError **error) {
  gboolean kept = !bytes->context || !bytes->written || !keep || copy_bytes(bytes, TRUE, error);
  gst_buffer_unmap(buffer, &bytes->map);
  if (bytes->context) g_free(bytes->data);
  return kept;
}

/* ---- Pictures ---- */

/* 0, or the driver's error. */
static gint copy_between(guint64 to, gpointer to_context, guint64 from, gpointer from_context, gsize bytes) {
  gint result = driver.push(to_context);
  if (result) return result;
  result = driver.copy_peer(to, to_context, from, from_context, bytes);
  if (!result) result = driver.synchronize();
  driver.pop(NULL);
  return result;
}

static guint64 address_of(const GstFluxKontextPicture *picture) {
  return picture->copy ? picture->copy : (guint64)(guintptr)picture->map.data;
}

static gboolean alloc_copy(GstFluxKontextPicture *picture, GError **error) {
  gint result = driver.push(picture->home);
  if (!result) {
    result = driver.alloc(&picture->copy, picture->map.size);
    driver.pop(NULL);
  }
  if (result) picture->copy = 0;
  return !result || fail(error, FK_ERROR_MEMORY, "No device memory for a frame's copy of another context",
                         picture->map.size, result);
}

static gboolean clear_bytes(const GstFluxKontextPicture *picture, GError **error) {
  gint result = driver.push(picture->home);
  if (!result) {
    result = driver.set(address_of(picture), 0, picture->map.size);
    if (!result) result = driver.synchronize();
    driver.pop(NULL);
  }
  return !result ||
         fail(error, FK_ERROR_DEVICE, "A frame's device memory cannot be written", picture->map.size, result);
}

/* Memory of the engine's context that holds what the buffer holds, or zeros. */
static gboolean bring_home(GstFluxKontextPicture *picture, GError **error) {
  gsize bytes = picture->map.size;
  if (picture->home != picture->away && !alloc_copy(picture, error)) return FALSE;
  if (picture->written) return clear_bytes(picture, error);
  if (!picture->copy) return TRUE;
  gint result = copy_between(picture->copy, picture->home, (guint64)(guintptr)picture->map.data, picture->away, bytes);
  return !result || fail(error, FK_ERROR_DEVICE, "A frame cannot be copied from another context", bytes, result);
}

/* Where the planes lie in the memory. Without a GstVideoMeta the memory knows. */
static gboolean place_planes(GstFluxKontextPicture *picture, const GstVideoInfo *info, GError **error) {
  const Memory *memory = (const Memory *)gst_buffer_peek_memory(picture->buffer, 0);
  GstVideoInfo laid = *info;
  gsize offset[GST_VIDEO_MAX_PLANES];
  gint stride[GST_VIDEO_MAX_PLANES];
  memcpy(laid.offset, memory->info.offset, sizeof laid.offset);
  memcpy(laid.stride, memory->info.stride, sizeof laid.stride);
  if (!gst_flux_kontext_layout_of(&laid, picture->buffer, picture->map.size, offset, stride, error)) return FALSE;
  for (guint plane = 0; plane < GST_VIDEO_INFO_N_PLANES(info); plane++) {
    gboolean whole_words = picture->planes.depth <= 8 || (offset[plane] % 2 == 0 && stride[plane] % 2 == 0);
    if (stride[plane] < 0 || !whole_words) {
      g_set_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                  "Plane %u of a buffer of CUDA memory has stride %d and offset %" G_GSIZE_FORMAT
                  ": rows from top to bottom and whole values are expected.",
                  plane, stride[plane], offset[plane]);
      return FALSE;
    }
    picture->planes.data[plane] = (uint8_t *)(guintptr)(address_of(picture) + offset[plane]);
    picture->planes.stride[plane] = (size_t)stride[plane];
  }
  return TRUE;
}

/* TRUE: mapped. */
static gboolean map(GstFluxKontextPicture *picture, GstBuffer *buffer, gpointer engine, gboolean write,
                    GError **error) {
  Memory *memory = memory_of(buffer);
  if (!memory) {
    g_set_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT,
                "The caps say CUDA memory: expected a buffer of one such memory, found %u of another kind.",
                gst_buffer_n_memory(buffer));
    return FALSE;
  }
  if (!map_device(memory, buffer, write, &picture->map, error)) return FALSE;
  picture->buffer = gst_buffer_ref(buffer);
  picture->written = write;
  picture->away = library.context_handle(memory->context);
  picture->home = engine ? engine : picture->away;
  return TRUE;
}

gboolean gst_flux_kontext_picture_open(GstFluxKontextPicture *picture, const GstVideoInfo *info, GstBuffer *buffer,
                                       gpointer engine, gboolean write, FkImage *image, GError **error) {
  memset(picture, 0, sizeof *picture);
  gst_flux_kontext_pixels_planes(info, &picture->planes);
  if (!map(picture, buffer, engine, write, error)) return FALSE;
  if (!bring_home(picture, error) || !place_planes(picture, info, error)) {
    gst_flux_kontext_picture_clear(picture);
    return FALSE;
  }
  *image = (FkImage){.width = info->width,
                     .height = info->height,
                     .channels = GST_VIDEO_INFO_HAS_ALPHA(info) ? 4 : 3,
                     .memory = FK_MEMORY_DEVICE,
                     .planes = &picture->planes};
  return TRUE;
}

gboolean gst_flux_kontext_picture_finish(GstFluxKontextPicture *picture, GError **error) {
  if (!picture->copy || !picture->written) return TRUE;
  gsize bytes = picture->map.size;
  gint result = copy_between((guint64)(guintptr)picture->map.data, picture->away, picture->copy, picture->home, bytes);
  return !result || fail(error, FK_ERROR_DEVICE, "A result cannot be copied to another context", bytes, result);
}

void gst_flux_kontext_picture_clear(GstFluxKontextPicture *picture) {
  if (picture->copy && !driver.push(picture->home)) {
    driver.release(picture->copy);
    driver.pop(NULL);
  }
  if (picture->buffer) gst_buffer_unmap(picture->buffer, &picture->map);
  gst_clear_buffer(&picture->buffer);
  memset(picture, 0, sizeof *picture);
}
