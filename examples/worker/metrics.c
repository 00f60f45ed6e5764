/* SPDX-License-Identifier: Apache-2.0 */
/* Counters of a worker and the two pages that show them; see metrics.h. */
#include "metrics.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RESULTS 4
#define BUCKETS 11
#define REQUEST_BYTES 4096 /* of a request, which is a line and some headers */
#define SILENCE 10         /* seconds in which a client has to ask */

static const char *const results[RESULTS] = {"done", "skipped", "failed", "retried"};
static const double bounds[BUCKETS] = {0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128}; /* seconds */

static GMutex lock;
static guint64 count[RESULTS], bucket[BUCKETS], jobs;
static double seconds;

void metrics_count(const char *result, double ms) {
  g_mutex_lock(&lock);
  for (int i = 0; i < RESULTS; i++) count[i] += !strcmp(result, results[i]);
  for (int i = 0; i < BUCKETS; i++) bucket[i] += ms <= bounds[i] * 1000;
  jobs++;
  seconds += ms / 1000;
  g_mutex_unlock(&lock);
}

static guint64 resident_bytes(void) {
  unsigned long size = 0, pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  if (!file) return 0;
  if (fscanf(file, "%lu %lu", &size, &pages) != 2) pages = 0;
  fclose(file);
  return (guint64)pages * (guint64)sysconf(_SC_PAGESIZE);
}

static void head(GString *s, const char *name, const char *type, const char *help) {
  g_string_append_printf(s, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void value(GString *s, const char *name, double number) {
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  g_string_append_printf(s, "%s %s\n", name, g_ascii_dtostr(digits, sizeof digits, number));
}

static void write_all(GString *s, FkEngine *engine) {
  static const char duration[] = "fluxkontext_worker_job_duration_seconds";
  char digits[G_ASCII_DTOSTR_BUF_SIZE];
  head(s, "fluxkontext_build_info", "gauge", "Version and machine.");
  g_string_append_printf(s, "fluxkontext_build_info{version=\"%s\",device=\"%s\"} 1\n", FK_VERSION,
                         fk_engine_machine(engine));
  head(s, "fluxkontext_ready", "gauge", "1 while the engine can edit.");
  value(s, "fluxkontext_ready", fk_engine_dead(engine) ? 0 : 1);
  g_mutex_lock(&lock);
  head(s, "fluxkontext_worker_jobs_total", "counter", "Jobs of the queue by how they ended here.");
  for (int i = 0; i < RESULTS; i++)
    g_string_append_printf(s, "fluxkontext_worker_jobs_total{result=\"%s\"} %" G_GUINT64_FORMAT "\n", results[i],
                           count[i]);
  head(s, duration, "histogram", "From the message to its end.");
  for (int i = 0; i < BUCKETS; i++)
    g_string_append_printf(s, "%s_bucket{le=\"%s\"} %" G_GUINT64_FORMAT "\n", duration,
                           g_ascii_dtostr(digits, sizeof digits, bounds[i]), bucket[i]);
  g_string_append_printf(s, "%s_bucket{le=\"+Inf\"} %" G_GUINT64_FORMAT "\n%s_sum %s\n%s_count %" G_GUINT64_FORMAT "\n",
                         duration, jobs, duration, g_ascii_dtostr(digits, sizeof digits, seconds), duration, jobs);
  g_mutex_unlock(&lock);
  head(s, "process_resident_memory_bytes", "gauge", "Resident memory.");
  value(s, "process_resident_memory_bytes", (double)resident_bytes());
}

/* The request's first line is all that counts, but it is read to its empty line: a socket that is closed with bytes
 * unread resets the answer. */
static void read_request(GInputStream *in, char *request) {
  gsize have = 0;
  while (have < REQUEST_BYTES - 1) {
    const gssize n = g_input_stream_read(in, request + have, REQUEST_BYTES - 1 - have, NULL, NULL);
    if (n <= 0) break;
    have += (gsize)n;
    request[have] = 0;
    if (strstr(request, "\r\n\r\n")) break;
  }
  request[have] = 0;
}

static gboolean answer(GThreadedSocketService *service, GSocketConnection *c, GObject *from, gpointer engine) {
  (void)service;
  (void)from;
  char request[REQUEST_BYTES];
  const char *status = "404 Not Found";
  g_autoptr(GString) body = g_string_new(NULL), head_of = g_string_new(NULL);
  g_socket_set_timeout(g_socket_connection_get_socket(c), SILENCE);
  read_request(g_io_stream_get_input_stream(G_IO_STREAM(c)), request);
  if (g_str_has_prefix(request, "GET /metrics ")) {
    status = "200 OK";
    write_all(body, engine);
  } else if (g_str_has_prefix(request, "GET /readyz ")) {
    status = fk_engine_dead(engine) ? "503 Service Unavailable" : "200 OK";
  }
  g_string_printf(head_of,
                  "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %zu\r\n"
                  "Connection: close\r\n\r\n",
                  status, body->len);
  GOutputStream *out = g_io_stream_get_output_stream(G_IO_STREAM(c));
  if (g_output_stream_write_all(out, head_of->str, head_of->len, NULL, NULL, NULL))
    g_output_stream_write_all(out, body->str, body->len, NULL, NULL, NULL);
  return TRUE;
}

bool metrics_listen(const char *address, FkEngine *engine, GError **error) {
  g_autoptr(GSocketConnectable) at = g_network_address_parse(address, 0, error);
  if (!at) return false;
  g_autoptr(GSocketService) service = g_threaded_socket_service_new(4);
  g_autoptr(GSocketAddressEnumerator) all = g_socket_connectable_enumerate(at);
  g_autoptr(GSocketAddress) first = g_socket_address_enumerator_next(all, NULL, error);
  if (!first) return false;
  g_autoptr(GSocketAddress) bound = NULL;
  if (!g_socket_listener_add_address(G_SOCKET_LISTENER(service), first, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP,
                                     NULL, &bound, error))
    return false;
  g_autofree char *shown = g_socket_connectable_to_string(G_SOCKET_CONNECTABLE(bound));
  fprintf(stderr, "metrics and readiness on http://%s\n", shown);
  g_signal_connect(g_steal_pointer(&service), "run", G_CALLBACK(answer), fk_engine_ref(engine)); /* for good */
  return true;
}
