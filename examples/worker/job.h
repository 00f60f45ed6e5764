/* SPDX-License-Identifier: Apache-2.0 */
/* What one message of the queue asks for:
 *
 *   {"fluxkontext-job": 1, "input": URI, "output": URI, "class": "cuda NVIDIA H200 0.1.0", "settings": {"prompt": ...}}
 *
 * "class" (may be missing): only machines of this determinism class take it. "settings": texts by property name, those
 * that were set. Images are never in a message. Not here: URIs (store.c), the queue (nats-queue.c). */
#ifndef JOB_MESSAGE_H
#define JOB_MESSAGE_H

#include <fk.h>

typedef struct {
  char *input, *output, *class; /* class NULL: any */
  FkSettings *settings;
} JobMessage;

/* text: of anybody. The error names what is wrong; input and output are filled as far as they were read, so that it can
 * be said where the result should have been. (transfer full, never NULL) */
JobMessage *job_message_read(const char *text, size_t bytes, GError **error);
void job_message_free(JobMessage *message); /* (nullable) */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JobMessage, job_message_free)
/* The text. (transfer full) */
char *job_message_write(const char *input, const char *output, const char *class, const FkSettings *settings);

/* The string member of an object in an object, for records that a store gives back: any text, NULL where there is no
 * such member. (transfer full) */
char *job_json_member(const char *text, const char *object, const char *member);

#endif
