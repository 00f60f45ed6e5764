/* SPDX-License-Identifier: Apache-2.0 */
/* For LD_PRELOAD, by tests/tsan.sh: tells ThreadSanitizer what GLib and GStreamer order. Distributions build both
 * without it, so their locks, conditions, thread starts, queues and reference counts, which are futexes and atomics of
 * their own, are invisible to it, and every access that they guard looks like a race.
 *
 * Each function is the library's own with an acquire behind it or a release in front of it, on the address of what is
 * waited for, or on one address for all of a kind where there is none. */
#include <dlfcn.h>
#include <gio/gio.h>
#include <gst/gst.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

/* The next definition of a function, looked up once. This library is linked with all that it stands in front of, so
 * that there is one even where a program loads its libraries late. */
#define REAL(name)                                                                                                     \
  ({                                                                                                                   \
    static void *found;                                                                                                \
    void *now = __atomic_load_n(&found, __ATOMIC_RELAXED);                                                             \
    if (!now) __atomic_store_n(&found, now = dlsym(RTLD_NEXT, #name), __ATOMIC_RELAXED);                               \
    (__typeof__(&name))now;                                                                                            \
  })
#define SHOWN __attribute__((visibility("default")))

static char pools, onces, cancels, starts, ends;

/* ---- Locks and conditions ---- */

#define LOCK(name, Type)                                                                                               \
  SHOWN void(name)(Type * lock) {                                                                                      \
    REAL(name)(lock);                                                                                                  \
    __tsan_acquire(lock);                                                                                              \
  }
#define UNLOCK(name, Type)                                                                                             \
  SHOWN void(name)(Type * lock) {                                                                                      \
    __tsan_release(lock);                                                                                              \
    REAL(name)(lock);                                                                                                  \
  }
LOCK(g_mutex_lock, GMutex)
UNLOCK(g_mutex_unlock, GMutex)
LOCK(g_rec_mutex_lock, GRecMutex)
UNLOCK(g_rec_mutex_unlock, GRecMutex)
LOCK(g_rw_lock_reader_lock, GRWLock)
UNLOCK(g_rw_lock_reader_unlock, GRWLock)
LOCK(g_rw_lock_writer_lock, GRWLock)
UNLOCK(g_rw_lock_writer_unlock, GRWLock)

SHOWN gboolean(g_mutex_trylock)(GMutex *mutex) {
  gboolean taken = REAL(g_mutex_trylock)(mutex);
  if (taken) __tsan_acquire(mutex);
  return taken;
}

SHOWN void(g_cond_wait)(GCond *cond, GMutex *mutex) {
  __tsan_release(mutex);
  REAL(g_cond_wait)(cond, mutex);
  __tsan_acquire(mutex);
}

SHOWN gboolean(g_cond_wait_until)(GCond *cond, GMutex *mutex, gint64 end) {
  __tsan_release(mutex);
  gboolean woken = REAL(g_cond_wait_until)(cond, mutex, end);
  __tsan_acquire(mutex);
  return woken;
}

/* ---- Threads and pools ---- */

typedef struct {
  GThreadFunc run;
  gpointer data;
} Start;

static gpointer start(gpointer user_data) {
  Start s = *(Start *)user_data;
  __tsan_acquire(&starts);
  g_free(user_data);
  gpointer result = s.run(s.data);
  __tsan_release(&ends);
  return result;
}

static Start *new_start(GThreadFunc run, gpointer data) {
  Start *s = g_new(Start, 1);
  *s = (Start){run, data};
  __tsan_release(&starts);
  return s;
}

SHOWN GThread *(g_thread_new)(const gchar *name, GThreadFunc run, gpointer data) {
  return REAL(g_thread_new)(name, start, new_start(run, data));
}

SHOWN GThread *(g_thread_try_new)(const gchar *name, GThreadFunc run, gpointer data, GError **error) {
  return REAL(g_thread_try_new)(name, start, new_start(run, data), error);
}

SHOWN gpointer(g_thread_join)(GThread *thread) {
  gpointer result = REAL(g_thread_join)(thread);
  __tsan_acquire(&ends);
  return result;
}

typedef struct {
  GFunc run;
  gpointer data;
} Pool;

static void run_pooled(gpointer item, gpointer user_data) {
  Pool *pool = user_data;
  __tsan_acquire(&pools);
  pool->run(item, pool->data);
  __tsan_release(&pools);
}

SHOWN GThreadPool *(g_thread_pool_new)(GFunc run, gpointer data, gint max, gboolean exclusive, GError **error) {
  Pool *pool = g_new(Pool, 1); /* as long as the process: a pool has no hook for its end */
  *pool = (Pool){run, data};
  __tsan_release(&pools);
  return REAL(g_thread_pool_new)(run_pooled, pool, max, exclusive, error);
}

SHOWN gboolean(g_thread_pool_push)(GThreadPool *pool, gpointer item, GError **error) {
  __tsan_release(&pools);
  return REAL(g_thread_pool_push)(pool, item, error);
}

SHOWN void(g_thread_pool_free)(GThreadPool *pool, gboolean immediate, gboolean wait) {
  REAL(g_thread_pool_free)(pool, immediate, wait);
  __tsan_acquire(&pools);
}

/* ---- Once, queues, cancelling ---- */

SHOWN gboolean(g_once_init_enter)(volatile void *location) {
  gboolean first = REAL(g_once_init_enter)(location);
  __tsan_acquire(&onces);
  return first;
}

SHOWN void(g_once_init_leave)(volatile void *location, gsize result) {
  __tsan_release(&onces);
  REAL(g_once_init_leave)(location, result);
}

SHOWN void(g_async_queue_push)(GAsyncQueue *queue, gpointer item) {
  __tsan_release(queue);
  REAL(g_async_queue_push)(queue, item);
}

SHOWN gpointer(g_async_queue_pop)(GAsyncQueue *queue) {
  gpointer item = REAL(g_async_queue_pop)(queue);
  __tsan_acquire(queue);
  return item;
}

SHOWN gpointer(g_async_queue_try_pop)(GAsyncQueue *queue) {
  gpointer item = REAL(g_async_queue_try_pop)(queue);
  __tsan_acquire(queue);
  return item;
}

SHOWN gpointer(g_async_queue_timeout_pop)(GAsyncQueue *queue, guint64 timeout) {
  gpointer item = REAL(g_async_queue_timeout_pop)(queue, timeout);
  __tsan_acquire(queue);
  return item;
}

SHOWN void g_cancellable_cancel(GCancellable *cancellable) {
  __tsan_release(&cancels);
  REAL(g_cancellable_cancel)(cancellable);
}

SHOWN gboolean g_cancellable_is_cancelled(GCancellable *cancellable) {
  gboolean cancelled = REAL(g_cancellable_is_cancelled)(cancellable);
  if (cancelled) __tsan_acquire(&cancels);
  return cancelled;
}

/* ---- The bus and reference counts: the last unref frees what others wrote before theirs ---- */

SHOWN gboolean(gst_bus_post)(GstBus *bus, GstMessage *message) {
  __tsan_release(bus);
  return REAL(gst_bus_post)(bus, message);
}

SHOWN GstMessage *(gst_bus_timed_pop_filtered)(GstBus *bus, GstClockTime timeout, GstMessageType types) {
  GstMessage *message = REAL(gst_bus_timed_pop_filtered)(bus, timeout, types);
  __tsan_acquire(bus);
  return message;
}

SHOWN GstMessage *(gst_bus_pop)(GstBus *bus) {
  GstMessage *message = REAL(gst_bus_pop)(bus);
  __tsan_acquire(bus);
  return message;
}

/* All others release; an acquire at every unref would order threads that nothing orders. */
SHOWN void(g_object_unref)(gpointer object) {
  __tsan_release(object);
  if (__atomic_load_n(&((GObject *)object)->ref_count, __ATOMIC_RELAXED) == 1) __tsan_acquire(object);
  REAL(g_object_unref)(object);
}

SHOWN void(gst_mini_object_unref)(GstMiniObject *object) {
  __tsan_release(object);
  if (__atomic_load_n(&object->refcount, __ATOMIC_RELAXED) == 1) __tsan_acquire(object);
  REAL(gst_mini_object_unref)(object);
}
