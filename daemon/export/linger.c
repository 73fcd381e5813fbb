/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/linger.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "export/conn.h"

/* Between two processes of this machine nothing is on its way: it is in the other's queue. */
static bool is_local(const struct conn *conn)
{
	int domain = AF_UNSPEC;
	socklen_t size = sizeof domain;

	return getsockopt(conn->fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/* What the kernel does not tell may be some. */
static int count(const struct conn *conn, unsigned long what)
{
	int n = LINGER_LAST + 1;

	(void) ioctl(conn->fd, what, &n);
	return n;
}

/* One that said goodbye, or sends no more, had its replies or does not want them.  Where all has
 * been delivered and nothing has come, as on most connections without traffic, there is nothing
 * to wait for. */
static bool may_cut(const struct conn *conn)
{
	if (conn->reason == REASON_DISCONNECT || is_local(conn))
		return false;
	return conn->pending || count(conn, SIOCINQ) > 0 || count(conn, SIOCOUTQ) > 0;
}

bool linger(struct conn *conn)
{
	if (conn->lingers)
		return conn->discarded <= CONN_LINGER_BYTES;
	if (!may_cut(conn))
		return false;
	conn->lingers = true;
	(void) shutdown(conn->fd, SHUT_WR);
	conn->undelivered = count(conn, SIOCOUTQ);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &conn->lingers_since);
	conn->taken = conn->lingers_since;
	conn_unsettle(conn);
	loop_watch(conn->loop);
	return true;
}

bool linger_advanced(struct conn *conn)
{
	int before = conn->undelivered;

	conn->undelivered = count(conn, SIOCOUTQ);
	return conn->undelivered < before;
}
