/* SPDX-License-Identifier: Apache-2.0 */
/* Host, origin and token; see guard.h. */
#include "guard.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

/* "name:port", "[::1]:port" or "name" without the port, in small letters. (transfer full) */
static char *host_name(const char *host) {
  const char *end = *host == '[' ? strchr(host, ']') : NULL;
  end = end ? end + 1 : host + strcspn(host, ":");
  g_autofree char *name = g_strndup(host, (gsize)(end - host));
  return g_ascii_strdown(name, -1);
}

static bool known_host(const Server *server, const char *host) {
  static const char *const local[] = {"localhost", "127.0.0.1", "[::1]", NULL};
  g_autofree char *name = host_name(host);
  return g_strv_contains(local, name) || (server->hosts && g_strv_contains((const char *const *)server->hosts, name));
}

bool guard_host(const Server *server, SoupMessageHeaders *headers, bool local_socket, Failure *f) {
  const char *host = soup_message_headers_get_one(headers, "Host");
  const char *origin = soup_message_headers_get_one(headers, "Origin");
  if (!local_socket && (!host || !known_host(server, host)))
    return fail(f, 403, "unknown_host", NULL, "Host: \"%.100s\" is no name of this server; --host adds one",
                host ? host : "");
  if (!origin || (server->origin && !strcmp(origin, server->origin))) return true;
  const char *name = strstr(origin, "://");
  if (name && host && !strcmp(name + 3, host)) return true;
  return fail(f, 403, "unknown_origin", NULL, "Origin: \"%.100s\" may not use this server; --allow-origin lets one",
              origin);
}

/* Takes as long whatever the first difference is. */
static bool same(const char *a, gsize n, const char *token) {
  const gsize length = strlen(token);
  guchar difference = n != length;
  for (gsize i = 0; i < length; i++) difference |= (guchar)((i < n ? a[i] : 0) ^ token[i]);
  return !difference;
}

bool guard_token(const Server *server, SoupMessageHeaders *headers, Failure *f) {
  const char *given = soup_message_headers_get_one(headers, "Authorization");
  const char *key = soup_message_headers_get_one(headers, "x-key");
  if (!server->token || (key && same(key, strlen(key), server->token))) return true;
  if (given && !g_ascii_strncasecmp(given, "Bearer ", 7) && same(given + 7, strlen(given + 7), server->token))
    return true;
  if (given && !g_ascii_strncasecmp(given, "Basic ", 6)) {
    gsize n;
    g_autofree guchar *pair = g_base64_decode(given + 6, &n);
    const char *colon = memchr(pair, ':', n);
    if (colon && same(colon + 1, n - (gsize)(colon + 1 - (const char *)pair), server->token)) return true;
  }
  return fail(f, 401, given || key ? "invalid_api_key" : "missing_api_key", NULL,
              "this server asks for its token: Authorization: Bearer TOKEN");
}

char *guard_read_token(const char *path, GError **error) {
  g_autofree char *text = NULL;
  GStatBuf info;
  if (!g_file_get_contents(path, &text, NULL, error)) return NULL;
  if (!g_stat(path, &info) && (info.st_mode & 077)) {
    g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: mode %03o lets others read the token; expected 600", path,
                (unsigned)info.st_mode & 0777);
    return NULL;
  }
  text[strcspn(text, "\r\n")] = 0;
  if (strlen(text) >= 16 && g_str_is_ascii(text)) return g_steal_pointer(&text);
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "%s: expected a token of at least 16 ASCII characters", path);
  return NULL;
}
