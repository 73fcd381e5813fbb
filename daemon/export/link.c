/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One negotiator's connection: records in and out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fdpass.h"
#include "base/log.h"
#include "export/admit.h"

/* There is more than one negotiator only while one of them ends; what each may make us keep is
 * bounded, and so is their number. */
#define LINKS_MAX 16u

/* Records that a negotiator has not read, besides one about each client: a busy one catches up. */
#define UNSENT_MAX 1024u

static void drop_first(struct link *link)
{
	struct unsent *first = link->unsent;

	link->unsent = first->next;
	if (!link->unsent)
		link->unsent_end = &link->unsent;
	link->n_unsent--;
	free(first);
}

void link_close(struct link *link, const char *why)
{
	struct admission *a = link->admission;
	struct link **at;

	if (why)
		log_event(EVENT_CHANNEL_VIOLATION, NULL, "a negotiator's connection is closed: %s", why);
	else
		log_debug("a negotiator has left");
	admit_forget(link);
	for (at = &a->links; *at != link; at = &(*at)->next)
		;
	*at = link->next;
	if (a->n_links-- == LINKS_MAX && a->source)
		(void) sd_event_source_set_enabled(a->source, SD_EVENT_ON);
	while (link->unsent)
		drop_first(link);
	sd_event_source_disable_unref(link->source);
	close_fd(&link->fd);
	free(link);
}

static bool must_wait(int error)
{
	return error == -EAGAIN || error == -ENOBUFS;
}

static bool keep(struct link *link, const uint8_t *record, size_t len)
{
	const struct admission *a = link->admission;
	struct unsent *last;

	if (link->n_unsent >= UNSENT_MAX + a->export->settings->max_connections + a->n_slots)
		return false;
	last = malloc(sizeof *last + len);
	if (!last)
		return false;
	*last = (struct unsent) { .len = len };
	memcpy(last->record, record, len);
	*link->unsent_end = last;
	link->unsent_end = &last->next;
	link->n_unsent++;
	return sd_event_source_set_io_events(link->source, EPOLLIN | EPOLLOUT) >= 0;
}

/* False when the negotiator has gone. */
static bool send_unsent(struct link *link)
{
	while (link->unsent) {
		int r = send_record(link->fd, link->unsent->record, link->unsent->len, -1);

		if (r < 0)
			return must_wait(r);
		drop_first(link);
	}
	return sd_event_source_set_io_events(link->source, EPOLLIN) >= 0;
}

bool link_send(struct link *link, const struct channel_record *record)
{
	uint8_t buf[CHANNEL_RECORD_MAX];
	struct emit out = emit_into(buf, sizeof buf);
	int r = -EAGAIN;

	emit_channel_record(&out, record);
	if (!link->unsent)
		r = send_record(link->fd, buf, out.len, -1);
	return r == 0 || (must_wait(r) && keep(link, buf, out.len));
}

/* OFFER, the contexts, who is connected, READY. */
bool link_introduce(struct link *link)
{
	const struct context_list *contexts = &link->admission->contexts;
	struct channel_record r = { .type = CHANNEL_OFFER, .offer = link->admission->offer };
	bool ok = link_send(link, &r);

	for (unsigned i = 0; ok && i < contexts->n; i++) {
		r = (struct channel_record) { .type = CHANNEL_CONTEXT };
		r.context.id = contexts->contexts[i].id;
		r.context.name = span_of(contexts->contexts[i].name);
		ok = link_send(link, &r);
	}
	for (struct admitted *who = link->admission->admitted; ok && who; who = who->next) {
		r = (struct channel_record) { .type = CHANNEL_LIVE };
		r.live.connection = who->connection;
		r.live.peer = span_of(who->peer);
		ok = link_send(link, &r);
	}
	r = (struct channel_record) { .type = CHANNEL_READY };
	return ok && link_send(link, &r);
}

const char *link_client_fault(int fd)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;
	int domain, type, size = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, (socklen_t *) &size) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, (socklen_t *) &size) < 0)
		return "what was handed over is not a socket";
	if (type != SOCK_STREAM || (domain != AF_UNIX && domain != AF_INET && domain != AF_INET6 &&
	                            domain != AF_VSOCK))
		return "what was handed over is not a stream socket of a kind that clients have";
	/* A client that left meanwhile is no fault: its end comes with the first receive. */
	if (getpeername(fd, (struct sockaddr *) &peer, &len) < 0 && errno != ENOTCONN)
		return "the socket that was handed over has no peer";
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &type, (socklen_t *) &size) == 0 && type)
		return "the socket that was handed over is a listening one";
	return NULL;
}

int link_make_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 ? -errno : fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

/* NULL, or why the link must end. */
static const char *take_record(struct link *link, const uint8_t *buf, size_t len, int *fd,
                               unsigned n_fds)
{
	struct channel_record record;
	const char *fault = decode_channel_record(bytes_over(buf, len), &record);
	bool ok;

	if (fault)
		return fault;
	if (n_fds != channel_carries_fd(record.type))
		return "a record came with a descriptor too many or too few";
	switch (record.type) {
	case CHANNEL_RESERVE:
		ok = admit_reserve(link, &record.reserve);
		break;
	case CHANNEL_HANDOFF:
		return admit_hand_off(link, record.token.token, fd);
	case CHANNEL_ABANDON:
		ok = admit_abandon(link, record.token.token);
		break;
	case CHANNEL_REFUSAL:
		admit_note_refusal(link, &record.refusal);
		ok = true;
		break;
	default:
		return "it sent a record that only an export may send";
	}
	return ok ? NULL : LINK_DEAF;
}

static void read_one(struct link *link)
{
	uint8_t buf[CHANNEL_RECORD_MAX];
	AUTO_FD client = -1;
	const char *fault;
	unsigned n_fds = 0;
	ssize_t len;

	len = receive_record(link->fd, buf, sizeof buf, &client, &n_fds);
	if (len == -EAGAIN || len == -EINTR)
		return;
	if (len == 0 || len == -ECONNRESET) {
		link_close(link, NULL);
		return;
	}
	fault = len < 0 ? strerror((int) -len) : take_record(link, buf, (size_t) len, &client, n_fds);
	if (fault)
		link_close(link, fault);
}

static int on_link(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct link *link = userdata;

	(void) source;
	(void) fd;
	if (events & EPOLLOUT && !send_unsent(link))
		link_close(link, NULL);
	else if (events & ~(uint32_t) EPOLLOUT)
		read_one(link);
	return 0;
}

/* Only our own user, root, or who was named may be a negotiator: the socket's mode keeps others
 * out, too. */
static bool is_trusted(const struct admission *a, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return peer.uid == geteuid() || peer.uid == 0 || (a->trusts && peer.uid == a->trusted);
}

int link_accept(struct admission *a)
{
	AUTO_FD fd = accept4(a->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct link *link;

	if (fd < 0)
		return errno == EAGAIN || errno == ECONNABORTED || errno == EINTR ? 0 : -errno;
	if (!is_trusted(a, fd)) {
		log_event(EVENT_CHANNEL_REFUSED, NULL, "a connection to the channel from another user is "
		          "refused");
		return 0;
	}
	link = calloc(1, sizeof *link);
	if (!link)
		return -ENOMEM;
	link->admission = a;
	link->fd = take_fd(&fd);
	link->unsent_end = &link->unsent;
	link->next = a->links;
	a->links = link;
	if (++a->n_links == LINKS_MAX) {
		log_warning("%u negotiators are connected: others wait until one has left", LINKS_MAX);
		(void) sd_event_source_set_enabled(a->source, SD_EVENT_OFF);
	}
	if (sd_event_add_io(a->event, &link->source, link->fd, EPOLLIN, on_link, link) < 0)
		link_close(link, "out of memory");
	else if (!link_introduce(link))
		link_close(link, "it does not take the offer");
	return 0;
}
