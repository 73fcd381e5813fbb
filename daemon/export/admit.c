/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/admit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fdpass.h"
#include "base/log.h"
#include "base/peer.h"
#include "base/text.h"
#include "export/look.h"

/* What an expired token is remembered for: a hand-off that comes too late gets a word. */
#define REMEMBER_SECONDS 60u

/* Slots are taken and given back here only. */
static void take_slot(struct admission *a)
{
	a->n_slots++;
	if (a->on_change)
		a->on_change(a);
}

static void give_slot(struct admission *a)
{
	a->n_slots--;
	if (a->on_change)
		a->on_change(a);
}

static bool refuse(struct link *link, uint32_t request, enum reason reason, const char *sentence)
{
	struct channel_record r = { .type = CHANNEL_REFUSED };

	r.refused.request = request;
	r.refused.reason = reason;
	r.refused.sentence = span_of(sentence);
	return link_send(link, &r);
}

/* Of the clients that anybody refuses on this export's account, in this export's journal. */
static void log_refusal(struct admission *a, struct span peer, enum reason reason,
                        const char *sentence)
{
	bool matters = reason != REASON_OFFER_STALE;    /* which is asked again, unnoticed */
	char who[CHANNEL_PEER_MAX + 4];
	struct peer from, source;

	peer_parse(peer, &from);
	peer_source(&from, &source);
	matters = matters && refusal_log_may_list(&a->refusals, &source);
	printable(peer, CHANNEL_PEER_MAX, who, sizeof who);
	log_about(matters ? LOG_NOTICE : LOG_DEBUG,
	          &(struct subject) { NULL, who, reason_word(reason), EVENT_CLIENT_REFUSED },
	          "refused: %s", sentence);
}

static bool refuse_client(struct link *link, const struct channel_reserve *reserve,
                          enum reason reason, const char *sentence)
{
	log_refusal(link->admission, reserve->peer, reason, sentence);
	return refuse(link, reserve->request, reason, sentence);
}

void admit_note_refusal(struct link *link, const struct channel_refusal *refusal)
{
	char sentence[CHANNEL_SENTENCE_MAX + 4];

	printable(refusal->sentence, CHANNEL_SENTENCE_MAX, sentence, sizeof sentence);
	log_refusal(link->admission, refusal->peer, refusal->reason, sentence);
}

static void free_reservation(struct reservation *r)
{
	sd_event_source_disable_unref(r->timer);
	if (r->conn) {
		give_slot(r->link->admission);
		conn_free(r->conn);
	}
	free(r);
}

static void drop_reservation(struct reservation **at)
{
	struct reservation *r = *at;

	*at = r->next;
	free_reservation(r);
}

void admit_forget(struct link *link)
{
	while (link->reservations)
		drop_reservation(&link->reservations);
}

static struct reservation **find_reservation(struct link *link, uint64_t token)
{
	struct reservation **at = &link->reservations;

	while (*at && (*at)->token != token)
		at = &(*at)->next;
	return at;
}

/* First its slot becomes free; later it is forgotten. */
static int on_expiry(sd_event_source *source, uint64_t now, void *userdata)
{
	struct reservation *r = userdata;
	struct reservation **at = find_reservation(r->link, r->token);

	if (r->expired) {
		drop_reservation(at);
		return 0;
	}
	r->expired = true;
	give_slot(r->link->admission);
	conn_free(r->conn);
	r->conn = NULL;
	(void) sd_event_source_set_time(source, now + REMEMBER_SECONDS * USEC_PER_SEC);
	(void) sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* conn_free() lets go of what could be had. */
static int select_contexts(struct conn *conn, const struct channel_reserve *reserve)
{
	if (reserve->n_contexts == 0)
		return 0;
	conn->contexts = malloc(reserve->n_contexts * sizeof *conn->contexts);
	if (!conn->contexts)
		return -ENOMEM;
	for (unsigned i = 0; i < reserve->n_contexts; i++) {
		if (!context_use(conn->export, reserve->contexts[i]))
			return -ESTALE;
		conn->contexts[conn->n_contexts++] = reserve->contexts[i];
		if (context_is_bitmap(reserve->contexts[i]) && conn->size > conn->export->tracked_size)
			conn->size = conn->export->tracked_size;
	}
	return 0;
}

/* A connection without a socket yet: what was agreed is pinned here. */
static int make_conn(struct admission *a, const struct channel_reserve *reserve, struct conn **ret)
{
	struct conn *conn = conn_new(export_choose_loop(a->export));
	int r;

	if (!conn)
		return -ENOMEM;
	conn->size = conn->offered = a->offer.size;
	r = conn_set_identity(conn, reserve->identity, reserve->tls);
	if (r == 0)
		r = select_contexts(conn, reserve);
	if (r < 0) {
		conn_free(conn);
		return r;
	}
	conn->id = ++a->n_connections;
	conn->mode = (enum nbd_mode) reserve->mode;
	conn->flags = offer_flags_for(a->export, reserve);
	printable(reserve->peer, sizeof conn->peer - 4, conn->peer, sizeof conn->peer);
	*ret = conn;
	return 0;
}

/* -ESTALE: a context is not there any more, or just going; or -ENOMEM. */
static int make_reservation(struct link *link, const struct channel_reserve *reserve,
                            struct reservation **ret)
{
	struct admission *a = link->admission;
	struct reservation *r = calloc(1, sizeof *r);
	int error;

	if (!r)
		return -ENOMEM;
	r->link = link;
	r->request = reserve->request;
	error = make_conn(a, reserve, &r->conn);
	if (error == 0)
		take_slot(a);
	if (error == 0 && (getrandom(&r->token, sizeof r->token, 0) != sizeof r->token ||
	    sd_event_add_time_relative(a->event, &r->timer, CLOCK_MONOTONIC,
	                               CHANNEL_TOKEN_SECONDS * USEC_PER_SEC, 0, on_expiry, r) < 0))
		error = -ENOMEM;
	if (error) {
		free_reservation(r);
		return error;
	}
	r->next = link->reservations;
	link->reservations = r;
	*ret = r;
	return 0;
}

static bool writes(const struct conn *conn)
{
	return !(conn->flags & NBD_FLAG_READ_ONLY);
}

/* Who may write now, or has a slot kept for it; NULL if nobody does. */
static const struct conn *find_writer(const struct admission *a)
{
	for (const struct admitted *who = a->admitted; who; who = who->next)
		if (writes(who->conn))
			return who->conn;
	for (const struct link *link = a->links; link; link = link->next)
		for (const struct reservation *r = link->reservations; r; r = r->next)
			if (r->conn && writes(r->conn))
				return r->conn;
	return NULL;
}

/* Before it has a slot; from then on it would be the one that others find. */
static const struct conn *find_writer_before(const struct admission *a,
                                             const struct channel_reserve *reserve)
{
	if (!a->export->settings->single_writer ||
	    offer_flags_for(a->export, reserve) & NBD_FLAG_READ_ONLY)
		return NULL;
	return find_writer(a);
}

static bool refuse_writer(struct link *link, const struct channel_reserve *reserve,
                          const struct conn *writer)
{
	char sentence[CHANNEL_PEER_MAX + 80];

	(void) snprintf(sentence, sizeof sentence, "another client may write: %s, connection %" PRIu64
	                " (SingleWriter=)", writer->peer, writer->id);
	return refuse_client(link, reserve, REASON_SINGLE_WRITER, sentence);
}

static bool refuse_stale(struct link *link, const struct channel_reserve *reserve)
{
	return refuse_client(link, reserve, REASON_OFFER_STALE,
	                     "the export has changed since it was offered");
}

bool admit_reserve(struct link *link, const struct channel_reserve *reserve)
{
	struct channel_record answer = { .type = CHANNEL_GRANTED };
	struct admission *a = link->admission;
	const struct conn *writer;
	struct reservation *r;
	int error;

	if (a->closed)
		return refuse_client(link, reserve, a->closed, a->closed_sentence);
	/* The offer comes before the refusal, so that the next request is for it. */
	if (export_look(a->export) && !admit_offer_to(a, link))
		return false;
	if (reserve->offer != a->offer.number)
		return refuse_stale(link, reserve);
	if (!(reserve->rights & CHANNEL_RIGHT_READ))
		return refuse_client(link, reserve, REASON_PROTOCOL, "without the right to read");
	if (a->n_slots >= a->export->settings->max_connections)
		return refuse_client(link, reserve, REASON_NO_SLOT,
		              "all connections of this export are in use (MaxConnections=)");
	writer = find_writer_before(a, reserve);
	if (writer)
		return refuse_writer(link, reserve, writer);
	error = make_reservation(link, reserve, &r);
	if (error == -ESTALE)
		return refuse_stale(link, reserve);
	if (error)
		return refuse_client(link, reserve, REASON_LIMIT, "the export is out of memory");

	answer.granted = (struct channel_granted) {
		.request = reserve->request, .token = r->token, .connection = r->conn->id,
		.size = r->conn->size, .flags = r->conn->flags,
	};
	return link_send(link, &answer);
}

static void let_in(struct reservation *r, struct admitted *who, int *fd)
{
	struct admission *a = r->link->admission;
	struct conn *conn = take_ptr(r->conn);

	who->connection = conn->id;
	who->conn = conn;
	who->since = real_time_us();
	(void) memcpy(who->peer, conn->peer, sizeof conn->peer);
	who->next = a->admitted;
	a->admitted = who;
	conn->admitted = who;
	conn->fd = take_fd(fd);
	log_about(LOG_INFO, &(struct subject) { a->export->settings->label, conn->peer, NULL,
	          EVENT_CLIENT_ADMITTED, conn->id, .identity = conn->identity },
	          "connection %" PRIu64 " begins (%s%s%s%s%s)", conn->id,
	          (const char *[]) { "simple", "structured", "extended" }[conn->mode],
	          *conn->tls ? ", " : "", conn->tls, *conn->identity ? ", " : "", conn->identity);
	conn_arrive(conn);
}

/* REASON_NONE: the client is the ring's now. */
static enum reason try_hand_off(struct reservation *r, int *fd, const char **ret_sentence)
{
	struct admission *a = r->link->admission;
	struct admitted *who;

	*ret_sentence = a->closed_sentence;
	if (a->full)
		return a->closed;
	*ret_sentence = "the hand-off came too late";
	if (r->expired)
		return REASON_TOKEN_UNKNOWN;
	*ret_sentence = link_client_fault(*fd);
	if (*ret_sentence)
		return REASON_PROTOCOL;
	*ret_sentence = "the export is out of memory";
	who = link_make_blocking(*fd) < 0 ? NULL : calloc(1, sizeof *who);
	if (!who)
		return REASON_LIMIT;
	let_in(r, who, fd);
	return REASON_NONE;
}

/* Each is answered, REFUSED or later GONE: the negotiator keeps a place for the client until then.
 * Without its token nobody can tell which place that is; only the link's end frees it. */
const char *admit_hand_off(struct link *link, uint64_t token, int *fd)
{
	struct reservation **at = find_reservation(link, token);
	const char *sentence;
	enum reason reason;
	uint32_t request;
	bool ok = true;

	if (!*at)
		return "it handed over a client with a token that it was not given";
	request = (*at)->request;
	reason = try_hand_off(*at, fd, &sentence);
	if (reason != REASON_NONE) {
		struct span peer = span_of((*at)->conn ? (*at)->conn->peer : "");

		log_refusal(link->admission, peer, reason, sentence);
		ok = refuse(link, request, reason, sentence);
	}
	drop_reservation(at);
	return ok ? NULL : LINK_DEAF;
}

bool admit_abandon(struct link *link, uint64_t token)
{
	struct reservation **at = find_reservation(link, token);

	if (*at)
		drop_reservation(at);
	return true;
}

static void log_end(const struct admission *a, const struct conn *conn)
{
	const struct conn_stats *stats = &conn->stats;
	uint64_t since = ((const struct admitted *) conn->admitted)->since, now = real_time_us();
	const struct log_counters counters = {
		stats->n_requests, stats->n_errors, stats->bytes_read, stats->bytes_written,
		now > since ? now - since : 0,
	};
	char read[32], written[32], failed[48] = "";

	format_size(stats->bytes_read, read, sizeof read);
	format_size(stats->bytes_written, written, sizeof written);
	if (stats->n_errors)
		(void) snprintf(failed, sizeof failed, ", %" PRIu64 " failed", stats->n_errors);
	log_about(LOG_INFO, &(struct subject) { a->export->settings->label, conn->peer,
	          reason_word(conn->reason), EVENT_CLIENT_ENDED, conn->id, &counters },
	          "connection %" PRIu64 " ends: %" PRIu64 " requests%s, %s read, %s written",
	          conn->id, stats->n_requests, failed, read, written);
}

void admit_gone(struct admission *a, struct conn *conn)
{
	struct channel_record r = { .type = CHANNEL_GONE };
	struct admitted **at = &a->admitted, *who = conn->admitted;
	struct link *next;

	log_end(a, conn);
	while (*at != who)
		at = &(*at)->next;
	*at = who->next;
	free(who);
	stats_add(&a->gone, &conn->stats);

	r.gone.connection = conn->id;
	r.gone.reason = conn->reason;
	conn_free(conn);
	give_slot(a);
	for (struct link *link = a->links; link; link = next) {
		next = link->next;
		if (!link_send(link, &r))
			link_close(link, "it does not read what it is told");
	}
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct admission *a = userdata;
	int r;

	(void) fd;
	(void) events;
	r = link_accept(a);
	if (r < 0) {
		/* Out of descriptors or memory: those who wait find no one; do not spin on them. */
		log_error("cannot accept a negotiator's connection: %s", strerror(-r));
		(void) sd_event_source_set_ratelimit(source, USEC_PER_SEC, 10);
	}
	return 0;
}

int admit_start(struct admission *a, struct export *export, sd_event *event, int listener,
                struct failure *why)
{
	int r;

	*a = (struct admission) { .export = export, .event = event, .listener = listener };
	contexts_list(export, &a->contexts);
	a->offer = offer_of(export, 1, a->contexts.n);
	r = sd_event_add_io(event, &a->source, listener, EPOLLIN, on_connection, a);
	if (r < 0)
		return fail(why, -r, "cannot watch the channel's socket");
	return refusal_log_init(&a->refusals, event, why);
}

void admit_stop(struct admission *a)
{
	while (a->links)
		link_close(a->links, NULL);
	refusal_log_end(&a->refusals);
	a->source = sd_event_source_disable_unref(a->source);
	close_fd(&a->listener);
}

void admit_failed(int listener, const char *sentence)
{
	struct channel_record r = { .type = CHANNEL_FAILED };
	uint8_t buf[CHANNEL_RECORD_MAX];
	struct emit out = emit_into(buf, sizeof buf);

	r.refused.reason = REASON_START_FAILED;
	r.refused.sentence = span_of(sentence);
	emit_channel_record(&out, &r);
	for (;;) {
		AUTO_FD fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0)
			return;
		(void) send_record(fd, buf, out.len, -1);
	}
}
