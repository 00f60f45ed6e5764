/* SPDX-License-Identifier: Apache-2.0 */
/* What the element's tests share: an element in a GstHarness with a bus of its own, and counts of what it posted. */
#ifndef TEST_ELEMENT_UTIL_H
#define TEST_ELEMENT_UTIL_H

#include <gst/check/gstharness.h>
#include <gst/video/video.h>

/* Options for a null engine that works at 256x256 in two steps: an edit takes a few milliseconds. */
#define NULL_ENGINE "backend=null max-area=65536 steps=2 prompt=night "

typedef struct {
  GstElement *element;
  GstBus *bus;
  GstHarness *h; /* NULL until tester_play */
  /* Counted by tester_collect since the last tester_forget. */
  guint errors, warnings, starts, ends, completes, canceled, failed, steps, latencies, need_contexts;
  guint warmups; /* of the starts, those with code warmup */
  GQuark domain; /* of the last error */
  gint code;
  gchar *text;           /* of the last error */
  gchar *warning;        /* of the last warning */
  gchar *kind;           /* `code` of the last error's details */
  gchar *property;       /* `property` of them; NULL: none */
  gint restart_required; /* -1: not in the details */
  gint percent;          /* of the last step */
} Tester;

/* Runs the tests, then shuts GStreamer down under the leaks tracer: a leaked object is a failure. */
int tester_main(int *argc, char ***argv, void (*add)(void));

/* "fluxkontextedit " + properties, in NULL. */
Tester *tester_new(const gchar *properties);
/* Into PLAYING inside a harness; the change must succeed. `caps` may be NULL: set later. */
void tester_play(Tester *t, const gchar *caps);
Tester *tester_new_playing(const gchar *properties, const gchar *caps);
/* On the null engine, with frames of SMALL size. */
Tester *tester_new_batch(gint batch);
/* Sets NULL and checks that every progress that was started has ended. */
void tester_free(Tester *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Tester, tester_free)

/* Takes what is on the bus. Every text must be UTF-8. */
void tester_collect(Tester *t);
void tester_forget(Tester *t);
/* Exactly one error since the last look, and it is this one; `word` occurs in its text. */
void tester_assert_error(Tester *t, GQuark domain, gint code, const gchar *word);

/* The step time and failures of null engines opened from now on; 0: none. */
void null_engine(gint step_ms, gint fail_step, gint fail_alloc);

/* Waits until the element has posted a step. */
void tester_wait_for_step(Tester *t);

/* A buffer of these caps whose bytes follow from `seed`, PTS n * 100 ms, duration 100 ms, offset n. */
GstBuffer *test_frame(const gchar *caps, guint seed, guint n);
gchar *buffer_hash(GstBuffer *buffer);
/* Pushes frame n of SMALL size, which must be taken. */
void tester_push(Tester *t, guint n);
/* Takes every buffer that came out so far, which must be first, first + 1, ... by PTS and offset. */
guint tester_take(Tester *t, guint first);
guint64 stat_uint64(GstElement *element, const gchar *field);

/* Removes a folder with all that it holds; links are not followed. */
void drop_tree(const gchar *folder);

#define RGB_CAPS(w, h) "video/x-raw,format=RGB,width=" #w ",height=" #h ",framerate=10/1"
#define SMALL RGB_CAPS(64, 48)

#endif
