/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets; see listen.h. */
#include "listen.h"

#include <errno.h>
#include <gio/gunixsocketaddress.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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
  return pid && count && g_ascii_strtoll(pid, NULL, 10) == getpid()
             ? (int)CLAMP(g_ascii_strtoll(count, NULL, 10), 0, 1 << 16)
             : 0;
}

/* Connections are accepted here: libsoup 3.2 never frees the GSocket of a connection that it accepts itself. The socket
 * goes with the address, which libsoup hands to each message of the connection; see listen_socket. */
static gboolean on_incoming(GSocketService *service, GSocketConnection *connection, GObject *source, gpointer data) {
  Server *server = data;
  GSocket *socket = g_socket_connection_get_socket(connection);
  g_autoptr(GSocketAddress) local = g_socket_connection_get_local_address(connection, NULL);
  g_autoptr(GSocketAddress) remote = g_socket_connection_get_remote_address(connection, NULL);
  (void)service, (void)source;
  if (!local) return TRUE; /* it is gone again */
  if (g_socket_get_family(socket) != G_SOCKET_FAMILY_UNIX)
    g_socket_set_option(socket, IPPROTO_TCP, TCP_NODELAY, TRUE, NULL);
  g_object_set_data_full(G_OBJECT(local), "socket", g_object_ref(socket), g_object_unref);
  soup_server_accept_iostream(server->soup, G_IO_STREAM(connection), local, remote, NULL);
  return TRUE;
}

GSocket *listen_socket(SoupServerMessage *msg) {
  GSocketAddress *local = soup_server_message_get_local_address(msg);
  return local ? g_object_get_data(G_OBJECT(local), "socket") : NULL;
}

static bool add_socket(Server *server, GSocket *socket, GError **error) {
  return g_socket_listener_add_socket(G_SOCKET_LISTENER(server->service), socket, NULL, error);
}

static bool listen_passed(Server *server, int n, GError **error) {
  for (int i = 0; i < n; i++) {
    g_autoptr(GSocket) socket = g_socket_new_from_fd(FIRST_PASSED + i, error);
    if (!socket || !add_socket(server, socket, error)) return false;
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
         add_socket(server, socket, error);
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
  g_autoptr(GSocketAddress) effective = NULL;
  if (!g_socket_listener_add_address(G_SOCKET_LISTENER(server->service), at, G_SOCKET_TYPE_STREAM,
                                     G_SOCKET_PROTOCOL_TCP, NULL, &effective, error))
    return false;
  g_autofree char *text = g_inet_address_to_string(inet);
  const bool v6 = g_inet_address_get_family(inet) == G_SOCKET_FAMILY_IPV6;
  g_printerr("%s: listening on http://%s%s%s:%u/\n", g_get_prgname(), v6 ? "[" : "", text, v6 ? "]" : "",
             g_inet_socket_address_get_port(G_INET_SOCKET_ADDRESS(effective)));
  return true;
}

bool listen_start(Server *server, const char *address, GError **error) {
  const int n = passed();
  const char *path = g_str_has_prefix(address, "unix:") ? address + 5 : NULL;
  server->service = g_socket_service_new();
  g_signal_connect(server->service, "incoming", G_CALLBACK(on_incoming), server);
  const bool ok = n      ? listen_passed(server, n, error)
                  : path ? listen_unix(server, path, error)
                         : listen_inet(server, address, error);
  if (!ok) return false;
  if (n) g_printerr("%s: listening on %d sockets of the service manager\n", g_get_prgname(), n);
  if (path && !n) g_printerr("%s: listening on %s\n", g_get_prgname(), address);
  return true;
}

void listen_stop(Server *server) {
  if (!server->service) return;
  g_socket_service_stop(server->service);
  g_socket_listener_close(G_SOCKET_LISTENER(server->service));
  g_clear_object(&server->service);
}

void listen_remove(const char *address) {
  if (!passed() && g_str_has_prefix(address, "unix:")) g_unlink(address + 5);
}
