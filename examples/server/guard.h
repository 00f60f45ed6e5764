/* SPDX-License-Identifier: Apache-2.0 */
/* Who may ask, before anything is read: name of the server, origin of a page, token. */
#ifndef GUARD_H
#define GUARD_H

#include "server.h"

/* Host: this machine by a loopback name, or one of server->hosts; a page of another name (DNS rebinding) has neither.
 * Origin: none, this server's, or server->origin. */
bool guard_host(const Server *server, SoupMessageHeaders *headers, bool local_socket, Failure *f);
/* "Authorization: Bearer TOKEN" or Basic with it as password, or "x-key: TOKEN". */
bool guard_token(const Server *server, SoupMessageHeaders *headers, Failure *f);
/* The first line of a file that others may not read. (transfer full, nullable) */
char *guard_read_token(const char *path, GError **error);

#endif
