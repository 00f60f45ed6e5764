/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets; see listen.h. */
#include "listen.h"

#include <errno.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_PASSED = 3 };

static bool bad(GError **error, const char *address, const char *why) {
  g_set_error(error, FK_ERROR, FK_ERROR_OPTION_BAD, "--listen %s: %s", address, why);
  return false;
}

/* Sockets of systemd's socket activation (sd_listen_fds(3)). */
static int passed(void) {
  const char *pid = g_getenv("LISTEN_PID"), *count = g_getenv("LISTEN_FDS");
  return pid && count && atoi(pid) == getpid() ? atoi(count) : 0;
}

static bool listen_passed(Server *server, int n, GError **error) {
  for (int i = 0; i < n; i++) {
    g_autoptr(GSocket) socket = g_socket_new_from_fd(FIRST_PASSED + i, error);
    if (!socket || !soup_server_listen_socket(server->soup, socket, 0, error)) return false;
  }
  g_unsetenv("LISTEN_FDS");
  return true;
}

/* A socket file that nobody answers on is what a server left that was killed. */
static bool listen_unix(Server *server, const char *path, GError **error) {
  g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
  g_autoptr(GSocket) socket =
      g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, error);
  g_autoptr(GSocket) probe = g_socket_new(G_SOCKET_FAMILY_UNIX, G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_DEFAULT, NULL);
  GStatBuf info;
  if (!socket) return false;
  if (probe && !g_stat(path, &info) && S_ISSOCK(info.st_mode) && !g_socket_connect(probe, address, NULL, NULL))
    g_unlink(path);
  return g_socket_bind(socket, address, FALSE, error) && g_socket_listen(socket, error) &&
         soup_server_listen_socket(server->soup, socket, 0, error);
}

static bool listen_inet(Server *server, const char *address, GError **error) {
  g_autoptr(GSocketConnectable) parsed = g_network_address_parse(address, 8000, error);
  if (!parsed) return false;
  const GNetworkAddress *name = G_NETWORK_ADDRESS(parsed);
  const char *host = g_network_address_get_hostname((GNetworkAddress *)name);
  g_autoptr(GInetAddress) inet = g_inet_address_new_from_string(strcmp(host, "localhost") ? host : "127.0.0.1");
  if (!inet) return bad(error, address, "expected an IP address, localhost or unix:PATH");
  const bool local = g_inet_address_get_is_loopback(inet);
  if (!local && !server->token)
    return bad(error, address, "others can reach it, so that --token-file is needed (and a proxy with TLS in front)");
  if (!local)
    g_printerr("%s: others can reach %s: a proxy with TLS has to stand in front (docs/server.md)\n", g_get_prgname(),
               address);
  g_autoptr(GSocketAddress) at = g_inet_socket_address_new(inet, g_network_address_get_port((GNetworkAddress *)name));
  return soup_server_listen(server->soup, at, 0, error);
}

bool listen_start(Server *server, const char *address, GError **error) {
  const int n = passed();
  const char *path = g_str_has_prefix(address, "unix:") ? address + 5 : NULL;
  const bool ok = n      ? listen_passed(server, n, error)
                  : path ? listen_unix(server, path, error)
                         : listen_inet(server, address, error);
  if (!ok) return false;
  if (n) g_printerr("%s: listening on %d sockets of the service manager\n", g_get_prgname(), n);
  if (path && !n) g_printerr("%s: listening on %s\n", g_get_prgname(), address);
  /* libsoup has addresses of the internet alone. */
  GSList *uris = n || path ? NULL : soup_server_get_uris(server->soup);
  for (GSList *u = uris; u; u = u->next) {
    g_autofree char *text = g_uri_to_string(u->data);
    g_printerr("%s: listening on %s\n", g_get_prgname(), text);
  }
  g_slist_free_full(uris, (GDestroyNotify)g_uri_unref);
  return true;
}

void listen_stop(const char *address) {
  if (!passed() && g_str_has_prefix(address, "unix:")) g_unlink(address + 5);
}
