/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who is at the other end of a socket: from the socket, and from text. */
#include "base/peer.h"

#include <arpa/inet.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/text.h"

#define IPV6_SOURCE_BYTES 8u            /* a /64 */

static void from_inet(const struct in_addr *in, struct peer *ret)
{
	ret->kind = PEER_IPV4;
	memcpy(ret->address, in, sizeof *in);
}

static void from_inet6(const struct in6_addr *in6, struct peer *ret)
{
	if (IN6_IS_ADDR_V4MAPPED(in6)) {
		ret->kind = PEER_IPV4;
		memcpy(ret->address, in6->s6_addr + 12, 4);
		return;
	}
	ret->kind = PEER_IPV6;
	memcpy(ret->address, in6, sizeof *in6);
}

static void from_unix(int fd, struct peer *ret)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	ret->kind = PEER_LOCAL;
	ret->id = UINT32_MAX;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0)
		ret->id = cred.uid;
}

void peer_of(int fd, struct peer *ret)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_vm vm;
		struct sockaddr_storage room;
	} at = { 0 };
	socklen_t len = sizeof at;

	*ret = (struct peer) { .kind = PEER_UNKNOWN };
	if (getpeername(fd, &at.any, &len) < 0)
		return;
	if (at.any.sa_family == AF_INET) {
		from_inet(&at.in.sin_addr, ret);
	} else if (at.any.sa_family == AF_INET6) {
		from_inet6(&at.in6.sin6_addr, ret);
	} else if (at.any.sa_family == AF_UNIX) {
		from_unix(fd, ret);
	} else if (at.any.sa_family == AF_VSOCK) {
		ret->kind = PEER_VSOCK;
		ret->id = at.vm.svm_cid;
	}
}

/* "[ADDRESS%SCOPE]:PORT" or "ADDRESS:PORT", cut to the address in place. */
static void parse_inet(char *text, struct peer *ret)
{
	struct in6_addr in6;
	struct in_addr in;

	if (*text == '[') {
		text[strcspn(text, "%]")] = '\0';
		if (inet_pton(AF_INET6, text + 1, &in6) == 1)
			from_inet6(&in6, ret);
		return;
	}
	text[strcspn(text, ":")] = '\0';
	if (inet_pton(AF_INET, text, &in) == 1)
		from_inet(&in, ret);
}

void peer_parse(struct span text, struct peer *ret)
{
	char copy[PEER_TEXT_SIZE + 1];
	unsigned id;

	*ret = (struct peer) { .kind = PEER_UNKNOWN };
	if (text.len > PEER_TEXT_SIZE)
		return;
	memcpy(copy, text.at, text.len);
	copy[text.len] = '\0';
	if (strcmp(copy, "unix") == 0)
		*ret = (struct peer) { .kind = PEER_LOCAL, .id = UINT32_MAX };
	else if (sscanf(copy, "unix:pid=%*d,uid=%u", &id) == 1)
		*ret = (struct peer) { .kind = PEER_LOCAL, .id = id };
	else if (sscanf(copy, "vsock:%u:", &id) == 1)
		*ret = (struct peer) { .kind = PEER_VSOCK, .id = id };
	else
		parse_inet(copy, ret);
}

void peer_source(const struct peer *peer, struct peer *ret)
{
	*ret = *peer;
	if (ret->kind == PEER_IPV6)
		memset(ret->address + IPV6_SOURCE_BYTES, 0,
		       sizeof ret->address - IPV6_SOURCE_BYTES);
}

bool peer_equal(const struct peer *a, const struct peer *b)
{
	return a->kind == b->kind && a->id == b->id &&
	       memcmp(a->address, b->address, sizeof a->address) == 0;
}

void peer_format_source(const struct peer *source, char *ret, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "?";

	switch (source->kind) {
	case PEER_LOCAL:
		(void) snprintf(ret, size, "user %u", source->id);
		return;
	case PEER_IPV4:
		(void) inet_ntop(AF_INET, source->address, host, sizeof host);
		(void) snprintf(ret, size, "%s", host);
		return;
	case PEER_IPV6:
		(void) inet_ntop(AF_INET6, source->address, host, sizeof host);
		(void) snprintf(ret, size, "%s/64", host);
		return;
	case PEER_VSOCK:
		(void) snprintf(ret, size, "vsock context %u", source->id);
		return;
	case PEER_UNKNOWN:
		break;
	}
	(void) snprintf(ret, size, "an unknown address");
}
