/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A conversation over netlink.  Takes datagrams from the kernel alone (port 0), and of those the
 * messages with the number of the question; refuses what is cut.
 */
#include "netlink/kernel-link.h"

#include <errno.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/socket.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "base/attr.h"
#include "base/text.h"

static int socket_send(void *userdata, const struct nlmsghdr *message)
{
	ssize_t n;

	do
		n = send(nl_socket_get_fd(userdata), message, message->nlmsg_len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static ssize_t socket_receive(void *userdata, void *ret, size_t size)
{
	struct sockaddr_nl from;
	socklen_t from_len;
	ssize_t n;

	do {
		from_len = sizeof from;
		memset(&from, 0, sizeof from);
		n = recvfrom(nl_socket_get_fd(userdata), ret, size, MSG_TRUNC,
		             (struct sockaddr *) &from, &from_len);
	} while ((n < 0 && errno == EINTR) ||
	         (n >= 0 && (from_len < sizeof from || from.nl_pid != 0)));
	if (n < 0)
		return -errno;
	return (size_t) n > size ? -EMSGSIZE : n;
}

static int socket_join(void *userdata, unsigned group)
{
	int number = (int) group;

	if (setsockopt(nl_socket_get_fd(userdata), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &number,
	               sizeof number) < 0)
		return -errno;
	return 0;
}

static void socket_close(void *userdata)
{
	nl_socket_free(userdata);
}

int kernel_link_open(struct kernel_link *ret, struct failure *why)
{
	struct nl_sock *sock = nl_socket_alloc();
	int on = 1, r;

	if (!sock)
		return fail(why, ENOMEM, "cannot open a netlink socket");
	r = nl_connect(sock, NETLINK_GENERIC);
	if (r < 0) {
		nl_socket_free(sock);
		return fail_plain(why, EPROTONOSUPPORT, "cannot open a netlink socket: %s",
		                  nl_geterror(r));
	}
	/* Without it, errno alone says what was wrong. */
	(void) setsockopt(nl_socket_get_fd(sock), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
	*ret = (struct kernel_link) {
		.send = socket_send, .receive = socket_receive, .join = socket_join,
		.close = socket_close, .fd = nl_socket_get_fd(sock), .userdata = sock,
	};
	return 0;
}

void kernel_link_close(struct kernel_link *link)
{
	if (link->close)
		link->close(link->userdata);
	*link = (struct kernel_link) { .fd = -1 };
}

/* The attributes of an acknowledgement lie behind the request that it repeats, or behind its header
 * where the kernel repeats no more than that. */
static void take_sentence(struct nlmsghdr *message, char *ret, size_t size)
{
	const struct nlmsgerr *error = nlmsg_data(message);
	struct nlattr *found[NLMSGERR_ATTR_MSG + 1];
	size_t skipped = sizeof *error, total = (size_t) nlmsg_datalen(message);

	if (!(message->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(message->nlmsg_flags & NLM_F_CAPPED)) {
		if (error->msg.nlmsg_len < sizeof error->msg)
			return;
		skipped += error->msg.nlmsg_len - sizeof error->msg;
	}
	skipped = NLMSG_ALIGN(skipped);
	if (skipped > total ||
	    nla_parse(found, NLMSGERR_ATTR_MSG,
	              (struct nlattr *) ((char *) nlmsg_data(message) + skipped),
	              (int) (total - skipped), NULL) < 0 ||
	    !found[NLMSGERR_ATTR_MSG])
		return;
	printable((struct span) { .at = nla_data(found[NLMSGERR_ATTR_MSG]),
	                          .len = strnlen(nla_data(found[NLMSGERR_ATTR_MSG]),
	                                         (size_t) nla_len(found[NLMSGERR_ATTR_MSG])) },
	          size - 4, ret, size);
}

/* An acknowledgement is an error of 0. */
static int take_verdict(struct nlmsghdr *message, struct kernel_verdict *ret, struct failure *why)
{
	const struct nlmsgerr *error = nlmsg_data(message);

	if (nlmsg_datalen(message) < (int) sizeof *error || error->error > 0)
		return fail_plain(why, EPROTO, "netlink: the kernel's answer is broken");
	ret->code = -error->error;
	take_sentence(message, ret->sentence, sizeof ret->sentence);
	return 0;
}

struct conversation {
	uint32_t number;
	int (*answer)(struct nlmsghdr *message, void *userdata, struct failure *why);
	void *userdata;
	struct kernel_verdict verdict;
	bool over;
};

static int take_message(struct conversation *c, struct nlmsghdr *message, struct failure *why)
{
	if (message->nlmsg_seq != c->number)
		return 0;               /* of a question that was given up */
	if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE)
		c->over = true;
	if (message->nlmsg_type == NLMSG_ERROR)
		return take_verdict(message, &c->verdict, why);
	if (message->nlmsg_type < NLMSG_MIN_TYPE || !c->answer)
		return 0;
	return c->answer(message, c->userdata, why);
}

static int take_datagram(struct conversation *c, void *datagram, ssize_t len, struct failure *why)
{
	struct nlmsghdr *message = datagram;
	int left = (int) len;

	for (; nlmsg_ok(message, left); message = nlmsg_next(message, &left)) {
		int r = take_message(c, message, why);

		if (r < 0)
			return r;
	}
	return 0;
}

int kernel_ask(const struct kernel_link *link, struct nlmsghdr *message,
               int (*answer)(struct nlmsghdr *message, void *userdata, struct failure *why),
               void *userdata, struct kernel_verdict *ret, struct failure *why)
{
	static uint32_t number;
	struct conversation c = { .answer = answer, .userdata = userdata };
	AUTO_FREE void *datagram = malloc(KERNEL_DATAGRAM_MAX);
	int r;

	if (!datagram)
		return fail(why, ENOMEM, "netlink");
	c.number = message->nlmsg_seq = ++number;
	message->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	r = link->send(link->userdata, message);
	if (r < 0)
		return fail(why, -r, "netlink: cannot ask the kernel");
	while (!c.over) {
		ssize_t n = link->receive(link->userdata, datagram, KERNEL_DATAGRAM_MAX);

		if (n < 0)
			return fail(why, (int) -n, "netlink: no answer from the kernel");
		r = take_datagram(&c, datagram, n, why);
		if (r < 0)
			return r;
	}
	*ret = c.verdict;
	return 0;
}
