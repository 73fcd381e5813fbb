/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The link to nbd-tls: connect on demand, ask, hear, end. */
#include "negotiator/tls-link.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/text.h"

#define FAILED_USEC USEC_PER_SEC        /* that it could not be reached is told again so long */
#define GRACE_USEC (2 * USEC_PER_SEC)   /* in which nbd-tls tells that a handshake took too long */
#define RECORDS_PER_WAKEUP 64u

void tls_wait_init(struct tls_wait *wait,
                   void (*done)(struct tls_wait *wait, const struct tls_result *result))
{
	*wait = (struct tls_wait) { .done = done };
	list_init(&wait->node);
}

static void forget(struct tls_wait *wait)
{
	list_remove(&wait->node);
	wait->link = NULL;
	wait->request = 0;
	wait->for_room = false;
}

/* For the wait whose time is up first; they are not in that order. */
static void arm_timer(struct tls_link *link)
{
	uint64_t at = UINT64_MAX;

	for (struct list *node = link->waits.next; node != &link->waits; node = node->next) {
		const struct tls_wait *wait = container_of(node, struct tls_wait, node);

		at = wait->deadline < at ? wait->deadline : at;
	}
	(void) sd_event_source_set_time(link->timer, at);
	(void) sd_event_source_set_enabled(link->timer, at == UINT64_MAX ? SD_EVENT_OFF :
	                                                                  SD_EVENT_ONESHOT);
}

static enum tls_answer queue_wait(struct tls_link *link, struct tls_wait *wait, uint64_t patience)
{
	wait->link = link;
	wait->deadline = monotonic_us() + patience;
	list_append(&link->waits, &wait->node);
	arm_timer(link);
	return TLS_LINK_WAIT;
}

static void end_wait(struct tls_wait *wait, const struct tls_result *result)
{
	forget(wait);
	wait->done(wait, result);
}

static bool is_started(const struct tls_wait *wait)
{
	return wait->request;
}

static bool waits_for_hello(const struct tls_wait *wait)
{
	return !wait->request && !wait->for_room;
}

static bool waits_for_room(const struct tls_wait *wait)
{
	return wait->for_room;
}

/* Ends all waits of one kind; the others keep their order. */
static void end_those(struct tls_link *link, bool (*concerns)(const struct tls_wait *),
                      const struct tls_result *result)
{
	struct list all, those;

	list_init(&those);
	list_move_all(&link->waits, &all);
	while (!list_empty(&all)) {
		struct tls_wait *wait = container_of(all.next, struct tls_wait, node);

		list_remove(&wait->node);
		list_append(concerns(wait) ? &those : &link->waits, &wait->node);
	}
	while (!list_empty(&those))
		end_wait(container_of(those.next, struct tls_wait, node), result);
	arm_timer(link);
}

static void ask_again(struct tls_link *link, bool (*concerns)(const struct tls_wait *))
{
	end_those(link, concerns, &(struct tls_result) { .outcome = TLS_ASK_AGAIN, .fd = -1 });
}

/* The end of a connection.  Whose handshake it was is refused; and if it had not begun well, all
 * who ask in the next moment, else they get another one. */
static void drop(struct tls_link *link, const struct refusal *refusal)
{
	const struct tls_result refused = { .outcome = TLS_REFUSED, .fd = -1, .refusal = refusal };
	bool has_failed = link->state == TLS_LINK_STARTING;

	link->io = sd_event_source_disable_unref(link->io);
	close_fd(&link->fd);
	link->state = TLS_LINK_IDLE;
	if (has_failed) {
		link->failure = *refusal;
		link->failed_until = monotonic_us() + FAILED_USEC;
	}
	end_those(link, is_started, &refused);
	end_those(link, waits_for_room, &refused);
	if (has_failed)
		end_those(link, waits_for_hello, &refused);
	else
		ask_again(link, waits_for_hello);
}

static int send_to(struct tls_link *link, const struct tls_record *record, int fd)
{
	uint8_t bytes[TLS_RECORD_MAX];
	struct emit out = emit_into(bytes, sizeof bytes);
	int r = -ENOTCONN;

	emit_tls_record(&out, record);
	if (link->state == TLS_LINK_READY)
		r = send_record(link->fd, out.start, out.len, fd);
	if (r == -EPIPE || r == -ECONNRESET)
		link->state = TLS_LINK_ENDED;
	return r;
}

/* Where there is no room for it, nbd-tls's deadline does the same. */
void tls_wait_cancel(struct tls_wait *wait)
{
	const struct tls_record record = { .type = TLS_CANCEL,
	                                   .cancel = { .request = wait->request } };
	struct tls_link *link = wait->link;

	if (!link)
		return;
	if (wait->request)
		(void) send_to(link, &record, -1);
	forget(wait);
	arm_timer(link);
}

/* --- what nbd-tls tells ------------------------------------------------------ */

static struct tls_wait *find(const struct tls_link *link, uint32_t request)
{
	for (struct list *at = link->waits.next; at != &link->waits; at = at->next) {
		struct tls_wait *wait = container_of(at, struct tls_wait, node);

		if (wait->request == request)
			return wait;
	}
	return NULL;
}

static const char *on_hello(struct tls_link *link, const struct tls_record *record,
                            struct bytes bytes, int *fd)
{
	(void) bytes;
	(void) fd;
	link->can = record->hello.can;
	link->has_verified |= (link->can & TLS_CAN_VERIFY) != 0;
	link->state = TLS_LINK_READY;
	ask_again(link, waits_for_hello);
	return NULL;
}

/* A connected stream socket of the kind that sessions have. */
static const char *check_plain_end(int fd)
{
	int domain = 0, type = 0, flags = fcntl(fd, F_GETFL);
	socklen_t domain_len = sizeof domain, type_len = sizeof type;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 ||
	    domain != AF_UNIX || type != SOCK_STREAM)
		return "a session's end is no unix stream socket";
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return "a session's end cannot be made non-blocking";
	return NULL;
}

/* Of a client that has left meanwhile the session ends with its descriptor. */
static const char *on_established(struct tls_link *link, const struct tls_record *record,
                                  struct bytes bytes, int *fd)
{
	struct tls_wait *wait = find(link, record->established.request);
	struct tls_result result = { .outcome = TLS_SESSION };
	const char *fault = check_plain_end(*fd);

	if (fault || !wait)
		return fault;
	result.secure = secure_new(bytes);
	if (!result.secure)
		return "no memory for a session";
	result.fd = take_fd(fd);
	end_wait(wait, &result);
	arm_timer(link);
	return NULL;
}

static const char *on_failed(struct tls_link *link, const struct tls_record *record,
                             struct bytes bytes, int *fd)
{
	struct tls_wait *wait = find(link, record->failed.request);
	struct refusal refusal = { .reason = record->failed.reason };

	(void) bytes;
	(void) fd;
	if (!wait)
		return NULL;
	printable(record->failed.sentence, sizeof refusal.sentence - 4, refusal.sentence,
	          sizeof refusal.sentence);
	end_wait(wait, &(struct tls_result) { .outcome = TLS_REFUSED, .fd = -1,
	                                      .refusal = &refusal });
	arm_timer(link);
	return NULL;
}

/* Its export has noticed, or will. */
static const char *on_ended(struct tls_link *link, const struct tls_record *record,
                            struct bytes bytes, int *fd)
{
	(void) link;
	(void) bytes;
	(void) fd;
	log_about(LOG_DEBUG, &(struct subject) { .reason = reason_word(record->ended.reason) },
	          "TLS session %" PRIu64 " has ended", record->ended.session);
	return NULL;
}

/* What only a negotiator sends has no row. */
static const char *(*const records[])(struct tls_link *link, const struct tls_record *record,
                                      struct bytes bytes, int *fd) = {
	[TLS_HELLO] = on_hello,
	[TLS_ESTABLISHED] = on_established,
	[TLS_FAILED] = on_failed,
	[TLS_ENDED] = on_ended,
};

/* NULL, or how it broke the protocol. */
static const char *take_record(struct tls_link *link, struct bytes bytes, int *fd, unsigned n_fds)
{
	struct tls_record record;
	const char *fault = decode_tls_record(bytes, &record);

	if (fault)
		return fault;
	if ((size_t) record.type >= ARRAY_LEN(records) || !records[record.type])
		return "a record that only a negotiator sends";
	if (n_fds != tls_record_carries_fd(record.type))
		return "the number of descriptors is wrong";
	if (link->state != TLS_LINK_READY && record.type != TLS_HELLO)
		return "it did not say what it can";
	return records[record.type](link, &record, bytes, fd);
}

static void on_end(struct tls_link *link)
{
	struct refusal refusal;

	refuse(&refusal, REASON_TLS_UNAVAILABLE, "nbd-tls has ended");
	log_about(link->state == TLS_LINK_STARTING ? LOG_WARNING : LOG_DEBUG, NULL,
	          "nbd-tls has ended%s", link->state == TLS_LINK_STARTING ?
	          " before it was ready" : "");
	drop(link, &refusal);
}

static void on_fault(struct tls_link *link, const char *fault)
{
	struct refusal refusal;

	log_event(EVENT_CHANNEL_VIOLATION, &(struct subject) {
	          .reason = reason_word(REASON_PROTOCOL) },
	          "nbd-tls broke the channel's protocol (%s); closing it", fault);
	refuse(&refusal, REASON_TLS_UNAVAILABLE, "nbd-tls has ended");
	drop(link, &refusal);
}

/* True while there may be more. */
static bool receive_one(struct tls_link *link)
{
	uint8_t record[TLS_RECORD_MAX];
	unsigned n_fds = 0;
	AUTO_FD fd = -1;
	const char *fault;
	ssize_t len = receive_record(link->fd, record, sizeof record, &fd, &n_fds);

	if (len == -EAGAIN)
		return false;
	if (len == 0 || len == -ECONNRESET || len == -EPIPE) {
		on_end(link);
		return false;
	}
	if (len < 0)
		fault = len == -EMSGSIZE ? "a record that is too long" : strerror((int) -len);
	else
		fault = take_record(link, bytes_over(record, (size_t) len), &fd, n_fds);
	if (fault)
		on_fault(link, fault);
	return !fault;
}

static int on_channel(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct tls_link *link = userdata;

	(void) source;
	(void) fd;
	if (events & EPOLLOUT) {
		(void) sd_event_source_set_io_events(link->io, EPOLLIN);
		ask_again(link, waits_for_room);
	}
	for (unsigned i = 0; i < RECORDS_PER_WAKEUP; i++)
		if (link->fd < 0 || !receive_one(link))
			break;
	return 0;
}

/* --- what we ask ------------------------------------------------------------- */

static enum tls_answer connect_link(struct tls_link *link, struct refusal *ret_refusal)
{
	int r = connect_records(link->path, &link->fd);

	if (r >= 0)
		r = sd_event_add_io(link->event, &link->io, link->fd, EPOLLIN, on_channel, link);
	if (r >= 0) {
		link->state = TLS_LINK_STARTING;
		return TLS_LINK_WAIT;
	}
	close_fd(&link->fd);
	refuse(ret_refusal, REASON_TLS_UNAVAILABLE, "nbd-tls cannot be reached: %s",
	       r == -ENOENT || r == -ECONNREFUSED ? "its socket does not listen (systemctl status "
	       "nbd-tls.socket)" : strerror(-r));
	log_warning("%s", ret_refusal->sentence);
	link->failure = *ret_refusal;
	link->failed_until = monotonic_us() + FAILED_USEC;
	return TLS_LINK_REFUSED;
}

enum tls_answer tls_link_ready(struct tls_link *link, struct tls_wait *wait,
                               struct refusal *ret_refusal)
{
	if (!link->path) {
		refuse(ret_refusal, REASON_TLS_UNAVAILABLE, "there is no nbd-tls");
		return TLS_LINK_REFUSED;
	}
	if (link->state == TLS_LINK_READY && link->can & (TLS_CAN_X509 | TLS_CAN_PSK))
		return TLS_LINK_DONE;
	if (link->state == TLS_LINK_READY) {
		refuse(ret_refusal, REASON_TLS_UNAVAILABLE, "nbd-tls has no keys");
		return TLS_LINK_REFUSED;
	}
	if (link->state == TLS_LINK_IDLE && monotonic_us() < link->failed_until) {
		*ret_refusal = link->failure;
		return TLS_LINK_REFUSED;
	}
	if (link->state == TLS_LINK_IDLE && connect_link(link, ret_refusal) == TLS_LINK_REFUSED)
		return TLS_LINK_REFUSED;
	return queue_wait(link, wait, link->start_timeout);
}

static uint32_t next_request(struct tls_link *link)
{
	do
		link->last_request++;
	while (link->last_request == 0 || find(link, link->last_request));
	return link->last_request;
}

enum tls_answer tls_link_start(struct tls_link *link, struct tls_wait *wait,
                               struct tls_start *start, uint64_t patience, int fd,
                               struct refusal *ret_refusal)
{
	struct tls_record record = { .type = TLS_START };
	uint64_t msec = patience / 1000;
	int r;

	start->request = next_request(link);
	start->deadline = msec < 1 ? 1 : msec > TLS_DEADLINE_MAX ? TLS_DEADLINE_MAX :
	                                                           (uint32_t) msec;
	record.start = *start;
	r = send_to(link, &record, fd);
	if (r == -EAGAIN) {
		wait->for_room = true;
		(void) sd_event_source_set_io_events(link->io, EPOLLIN | EPOLLOUT);
		return queue_wait(link, wait, link->start_timeout);
	}
	if (r < 0) {
		refuse(ret_refusal, REASON_TLS_UNAVAILABLE, "nbd-tls has ended");
		return TLS_LINK_REFUSED;
	}
	wait->request = start->request;
	(void) queue_wait(link, wait, patience + GRACE_USEC);
	return TLS_LINK_DONE;
}

/* One whose time is up, or NULL. */
static struct tls_wait *find_late(const struct tls_link *link)
{
	for (struct list *at = link->waits.next; at != &link->waits; at = at->next) {
		struct tls_wait *wait = container_of(at, struct tls_wait, node);

		if (wait->deadline <= monotonic_us())
			return wait;
	}
	return NULL;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct tls_link *link = userdata;
	struct refusal slow, late;
	struct tls_wait *wait;

	(void) source;
	(void) usec;
	refuse(&slow, REASON_TLS_UNAVAILABLE, "nbd-tls did not answer within %u s",
	       (unsigned) (link->start_timeout / USEC_PER_SEC));
	refuse(&late, REASON_TLS_TIMEOUT, "the TLS handshake took too long");
	if (link->state == TLS_LINK_STARTING) {
		log_warning("%s", slow.sentence);
		drop(link, &slow);
		return 0;
	}
	while ((wait = find_late(link)))
		end_wait(wait, &(struct tls_result) { .outcome = TLS_REFUSED, .fd = -1,
		                                      .refusal = wait->request ? &late : &slow });
	arm_timer(link);
	return 0;
}

int tls_link_init(struct tls_link *link, sd_event *event, const char *path, struct failure *why)
{
	int r;

	*link = (struct tls_link) { .event = event, .fd = -1 };
	list_init(&link->waits);
	if (!path)
		return 0;
	if (strlen(path) >= sizeof ((struct sockaddr_un *) NULL)->sun_path)
		return fail_plain(why, ENAMETOOLONG, "the path of nbd-tls's socket is too long: %s",
		                  path);
	link->path = strdup(path);
	if (!link->path)
		return fail(why, ENOMEM, "cannot prepare the link to nbd-tls");
	r = sd_event_add_time(event, &link->timer, CLOCK_MONOTONIC, UINT64_MAX, 0, on_timer, link);
	if (r >= 0)
		r = sd_event_source_set_enabled(link->timer, SD_EVENT_OFF);
	return r < 0 ? fail(why, -r, "cannot prepare the link to nbd-tls") : 0;
}

void tls_link_clear(struct tls_link *link)
{
	if (!link->event)
		return;
	link->io = sd_event_source_disable_unref(link->io);
	link->timer = sd_event_source_disable_unref(link->timer);
	close_fd(&link->fd);
	free(link->path);
	*link = (struct tls_link) { .fd = -1 };
}
