/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of edit jobs; see nats-queue.h. */
#include "nats-queue.h"

#include <nats/nats.h>
#include <string.h>

#define SECOND INT64_C(1000000000) /* nanoseconds, as JetStream counts */
#define DUPLICATES_SECONDS 120
#define FULL 10077 /* JetStream's error for a stream at its limit */
#define NO_STREAM 10059
#define CLASS_DIGITS 12

struct NatsQueue {
  natsConnection *connection;
  jsCtx *js;
  char *stream, *subject;
  natsSubscription *from[2]; /* any, class */
  int turn;
};

struct NatsJob {
  natsMsg *message;
  char *text;
  int deliveries;
  GMutex lock;
  GCond over;
  bool ended;
  GThread *reporter;
};

static bool fail(GError **error, GIOErrorEnum code, const char *what, natsStatus status, jsErrCode js) {
  g_set_error(error, G_IO_ERROR, (int)code, "%s: %s%s", what, natsStatus_GetText(status),
              js == FULL ? " (the stream is full)" : "");
  return false;
}

/* ---- Opening ---- */

static bool check(const NatsConfig *c, GError **error) {
  const size_t n = c->name ? strlen(c->name) : 0;
  const char *letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  if (n && n <= 64 && strspn(c->name, letters) == n) return true;
  g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, "queue \"%s\": expected 1 to 64 letters, digits, _ and -",
              c->name ? c->name : "");
  return false;
}

static natsStatus connect_to(NatsQueue *q, const NatsConfig *c) {
  natsOptions *o = NULL;
  natsStatus s = natsOptions_Create(&o);
  g_auto(GStrv) urls = g_strsplit(c->url, ",", -1);
  if (s == NATS_OK) s = natsOptions_SetServers(o, (const char **)urls, (int)g_strv_length(urls));
  if (s == NATS_OK) s = natsOptions_SetMaxReconnect(o, -1);
  if (s == NATS_OK) s = natsOptions_SetReconnectWait(o, 500);
  if (s == NATS_OK) s = natsOptions_SetTimeout(o, 5000);
  if (s == NATS_OK) s = natsOptions_SetPingInterval(o, 20000);
  if (s == NATS_OK) s = natsOptions_SetName(o, g_get_prgname());
  if (s == NATS_OK && c->credentials) s = natsOptions_SetUserCredentialsFromFiles(o, c->credentials, NULL);
  if (s == NATS_OK) s = natsConnection_Connect(&q->connection, o);
  natsOptions_Destroy(o);
  return s;
}

/* Two that come at once may both find none: then the second is told that it is there. */
static bool need_stream(NatsQueue *q, const NatsConfig *c, GError **error) {
  g_autofree char *classes = g_strconcat(q->subject, ".*", NULL);
  const char *subjects[] = {q->subject, classes};
  jsStreamConfig config;
  jsErrCode js = 0;
  jsStreamInfo *info = NULL;
  natsStatus s = js_GetStreamInfo(&info, q->js, q->stream, NULL, &js);
  jsStreamInfo_Destroy(info);
  if (s == NATS_OK) return true;
  if (js && js != NO_STREAM) return fail(error, G_IO_ERROR_FAILED, q->stream, s, js);
  jsStreamConfig_Init(&config);
  config.Name = q->stream;
  config.Subjects = subjects;
  config.SubjectsLen = 2;
  config.Retention = js_WorkQueuePolicy;
  config.Storage = js_FileStorage;
  config.Discard = js_DiscardNew;
  config.MaxMsgs = c->max_jobs;
  config.MaxMsgSize = NATS_JOB_BYTES;
  config.Duplicates = DUPLICATES_SECONDS * SECOND;
  s = js_AddStream(NULL, q->js, &config, NULL, &js);
  if (s == NATS_OK) return true;
  info = NULL;
  const bool there = js_GetStreamInfo(&info, q->js, q->stream, NULL, NULL) == NATS_OK;
  jsStreamInfo_Destroy(info);
  return there || fail(error, G_IO_ERROR_FAILED, q->stream, s, js);
}

NatsQueue *nats_queue_open(const NatsConfig *c, GError **error) {
  if (!check(c, error)) return NULL;
  g_autoptr(NatsQueue) q = g_new0(NatsQueue, 1);
  q->stream = g_strconcat("FK_", c->name, NULL);
  q->subject = g_strconcat("edit.", c->name, NULL);
  natsStatus s = connect_to(q, c);
  if (s == NATS_OK) s = natsConnection_JetStream(&q->js, q->connection, NULL);
  if (s != NATS_OK) {
    fail(error, G_IO_ERROR_CONNECTION_REFUSED, c->url, s, 0);
    return NULL;
  }
  return need_stream(q, c, error) ? g_steal_pointer(&q) : NULL;
}

void nats_queue_close(NatsQueue *q) {
  if (!q) return;
  for (int i = 0; i < 2; i++) natsSubscription_Destroy(q->from[i]);
  jsCtx_Destroy(q->js);
  natsConnection_Destroy(q->connection);
  g_free(q->stream);
  g_free(q->subject);
  g_free(q);
}

/* ---- Submitting ---- */

char *nats_queue_class(const char *class) {
  char *digits = g_compute_checksum_for_string(G_CHECKSUM_SHA256, class, -1);
  digits[CLASS_DIGITS] = 0;
  return digits;
}

bool nats_queue_submit(NatsQueue *q, const char *id, const char *class, const char *text, NatsAnswer *answer,
                       GError **error) {
  g_autofree char *subject = class ? g_strdup_printf("%s.%s", q->subject, class) : g_strdup(q->subject);
  jsPubOptions options;
  jsErrCode js = 0;
  jsPubAck *ack = NULL;
  jsPubOptions_Init(&options);
  options.MsgId = id;
  const natsStatus s = js_Publish(&ack, q->js, subject, text, (int)strlen(text), &options, &js);
  if (s != NATS_OK && js != FULL) return fail(error, G_IO_ERROR_FAILED, id, s, js);
  *answer = s != NATS_OK ? NATS_FULL : ack->Duplicate ? NATS_DUPLICATE : NATS_STORED;
  jsPubAck_Destroy(ack);
  return true;
}

bool nats_queue_depth(NatsQueue *q, uint64_t *waiting, GError **error) {
  jsStreamInfo *info = NULL;
  jsErrCode js = 0;
  const natsStatus s = js_GetStreamInfo(&info, q->js, q->stream, NULL, &js);
  if (s != NATS_OK) return fail(error, G_IO_ERROR_FAILED, q->stream, s, js);
  *waiting = info->State.Msgs;
  jsStreamInfo_Destroy(info);
  return true;
}

/* ---- Taking ---- */

static bool subscribe(NatsQueue *q, int i, const char *subject, const char *durable, GError **error) {
  jsSubOptions options;
  jsErrCode js = 0;
  if (q->from[i]) return true;
  jsSubOptions_Init(&options);
  options.Stream = q->stream;
  options.Config.AckPolicy = js_AckExplicit;
  options.Config.AckWait = NATS_ACK_SECONDS * SECOND;
  options.Config.MaxDeliver = -1; /* whoever takes a job counts, and ends one that nobody can do */
  options.Config.MaxAckPending = 10000;
  const natsStatus s = js_PullSubscribe(&q->from[i], q->js, subject, durable, NULL, &options, &js);
  return s == NATS_OK || fail(error, G_IO_ERROR_FAILED, subject, s, js);
}

bool nats_queue_take_class(NatsQueue *q, const char *class, GError **error) {
  g_autofree char *subject = g_strdup_printf("%s.%s", q->subject, class);
  return subscribe(q, 1, subject, class, error);
}

/* Says that the job is worked on, until it is ended. */
static gpointer report(gpointer user_data) {
  NatsJob *job = user_data;
  g_mutex_lock(&job->lock);
  while (!job->ended) {
    const gint64 until = g_get_monotonic_time() + NATS_ACK_SECONDS * G_TIME_SPAN_SECOND / 3;
    if (g_cond_wait_until(&job->over, &job->lock, until)) continue;
    natsMsg_InProgress(job->message, NULL);
  }
  g_mutex_unlock(&job->lock);
  return NULL;
}

static NatsJob *wrap(natsMsg *message) {
  NatsJob *job = g_new0(NatsJob, 1);
  jsMsgMetaData *data = NULL;
  job->message = message;
  job->text = g_strndup(natsMsg_GetData(message), (gsize)natsMsg_GetDataLength(message));
  job->deliveries = natsMsg_GetMetaData(&data, message) == NATS_OK ? (int)data->NumDelivered : 1;
  jsMsgMetaData_Destroy(data);
  g_mutex_init(&job->lock);
  g_cond_init(&job->over);
  job->reporter = g_thread_new("report", report, job);
  return job;
}

static bool is_quiet(natsStatus s) {
  return s == NATS_TIMEOUT || s == NATS_NOT_FOUND || s == NATS_CONNECTION_DISCONNECTED || s == NATS_NO_RESPONDERS;
}

NatsJob *nats_queue_next(NatsQueue *q, int wait_ms, GError **error) {
  if (!subscribe(q, 0, q->subject, "any", error)) return NULL;
  const int sides = q->from[1] ? 2 : 1;
  for (int i = 0; i < sides; i++) {
    natsMsgList list = {0};
    jsErrCode js = 0;
    q->turn = (q->turn + 1) % sides;
    const natsStatus s = natsSubscription_Fetch(&list, q->from[q->turn], 1, MAX(50, wait_ms / sides), &js);
    if (s == NATS_OK && list.Count > 0) {
      natsMsg *message = list.Msgs[0];
      list.Msgs[0] = NULL;
      natsMsgList_Destroy(&list);
      return wrap(message);
    }
    natsMsgList_Destroy(&list);
    if (s != NATS_OK && !is_quiet(s)) {
      fail(error, G_IO_ERROR_FAILED, q->subject, s, js);
      return NULL;
    }
  }
  return NULL;
}

const char *nats_job_text(const NatsJob *job) {
  return job->text;
}

size_t nats_job_bytes(const NatsJob *job) {
  return (size_t)natsMsg_GetDataLength(job->message);
}

int nats_job_deliveries(const NatsJob *job) {
  return job->deliveries;
}

/* ---- Ending ---- */

static void stop_reports(NatsJob *job) {
  g_mutex_lock(&job->lock);
  job->ended = true;
  g_cond_signal(&job->over);
  g_mutex_unlock(&job->lock);
  g_thread_join(job->reporter);
}

static void free_job(NatsJob *job) {
  natsMsg_Destroy(job->message);
  g_mutex_clear(&job->lock);
  g_cond_clear(&job->over);
  g_free(job->text);
  g_free(job);
}

/* A server that is away for a moment gets the answer when it is back. */
bool nats_job_finish(NatsJob *job) {
  natsStatus s = NATS_ERR;
  stop_reports(job);
  for (int i = 0; s != NATS_OK && i < 6; i++) {
    if (i) g_usleep(500000);
    s = natsMsg_AckSync(job->message, NULL, NULL);
  }
  free_job(job);
  return s == NATS_OK;
}

void nats_job_retry(NatsJob *job, int seconds) {
  stop_reports(job);
  natsMsg_NakWithDelay(job->message, (int64_t)seconds * SECOND, NULL);
  free_job(job);
}

void nats_job_drop(NatsJob *job) {
  stop_reports(job);
  natsMsg_Term(job->message, NULL);
  free_job(job);
}
