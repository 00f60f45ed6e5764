/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker counts, for Prometheus: GET /metrics in text form, GET /readyz 200 while the engine lives. */
#ifndef METRICS_H
#define METRICS_H

#include <fk.h>

/* One job has ended; result: as PerformEnd has it. Any thread. */
void metrics_count(const char *result, double ms);
/* address: "host:port". Answers on threads of its own for as long as the process lives. */
bool metrics_listen(const char *address, FkEngine *engine, GError **error);

#endif
