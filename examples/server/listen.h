/* SPDX-License-Identifier: Apache-2.0 */
/* Where the server listens. */
#ifndef LISTEN_H
#define LISTEN_H

#include "server.h"

/* "127.0.0.1:8000", "[::1]:8000" or "unix:PATH"; the sockets that systemd passed come first, and then `address` is not
 * used. Port 0 takes a free one. Prints where. An address that others can reach needs a token. */
bool listen_start(Server *server, const char *address, GError **error);
/* No connection is accepted any more. */
void listen_stop(Server *server);
/* Removes the file of a Unix socket. */
void listen_remove(const char *address);
/* Of the connection that a message came by; (transfer none). */
GSocket *listen_socket(SoupServerMessage *msg);

#endif
