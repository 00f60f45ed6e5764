/* SPDX-License-Identifier: Apache-2.0 */
/* Failures of requests; see failure.h. */
#include "failure.h"

#include <string.h>

bool fail(Failure *f, guint status, const char *code, const char *param, const char *format, ...) {
  va_list arguments;
  if (f->status) return false;
  va_start(arguments, format);
  g_autofree char *text = g_strdup_vprintf(format, arguments);
  va_end(arguments);
  *f = (Failure){.status = status,
                 .code = code,
                 .param = param ? g_utf8_make_valid(param, -1) : NULL,
                 .message = g_utf8_make_valid(text, -1)};
  return false;
}

/* "steps: "none" is not ..." names its property first. */
static char *property_of(const char *message) {
  const gsize length = strcspn(message, ": =");
  if (!length || message[length] != ':') return NULL;
  return g_strdelimit(g_strndup(message, length), "-", '_');
}

bool fail_error(Failure *f, GError *error) {
  g_autofree char *param = property_of(error->message);
  const int code = error->domain == FK_ERROR ? error->code : FK_ERROR_DEVICE;
  if (code == FK_ERROR_OPTION_BAD || code == FK_ERROR_SHAPE)
    fail(f, 400, "invalid_value", param, "%s", error->message);
  else if (code == FK_ERROR_CANCELLED)
    fail(f, 409, "cancelled", NULL, "%s", error->message);
  else if (code == FK_ERROR_MEMORY)
    fail(f, 500, "out_of_memory", NULL, "%s", error->message);
  else if (code == FK_ERROR_DEVICE_LOST)
    fail(f, 500, "device_lost", NULL, "%s", error->message);
  else
    fail(f, 500, "edit_failed", NULL, "%s", error->message);
  g_error_free(error);
  return false;
}

Failure failure_copy(const Failure *f) {
  Failure copy = *f;
  copy.param = g_strdup(f->param);
  copy.message = g_strdup(f->message);
  return copy;
}

void failure_clear(Failure *f) {
  g_free(f->param);
  g_free(f->message);
  *f = (Failure){0};
}

const char *failure_type(guint status) {
  if (status == 401) return "authentication_error";
  if (status == 403) return "permission_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
