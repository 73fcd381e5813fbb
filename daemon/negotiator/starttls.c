/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * STARTTLS: nbd-tls is asked for, the client is told, and its socket given away; what comes back is
 * another socket, in clear, and who the client is.
 *
 * Somebody between us and the client could have put in what came in clear.  So nothing of it holds
 * behind TLS, and bytes that lie behind STARTTLS before it was acknowledged end the
 * connection: an honest client cannot know yet that TLS begins.
 */
#include <errno.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "negotiator/client.h"

static bool has_input(const struct client *client)
{
	char byte;

	return recv(client->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

enum client_progress client_step_tls(struct client *client)
{
	struct negotiation *n = &client->negotiation;

	if (has_input(client))
		return client_end(client, LOG_NOTICE, REASON_PROTOCOL, "bytes came behind "
		                  "NBD_OPT_STARTTLS, before the TLS handshake: closing");
	client->step = STEP_DISPATCH;
	switch (tls_link_ready(&client->server->tls, &client->tls_wait, &n->now.refusal)) {
	case TLS_LINK_DONE:
		n->now.has_tls = true;
		break;
	case TLS_LINK_WAIT:
		client->step = STEP_WAIT;
		break;
	case TLS_LINK_REFUSED:
		break;
	}
	return CLIENT_GOES_ON;
}

static uint8_t wanted_certificate(const struct server *server)
{
	switch (server->settings.client_certificate) {
	case CLIENT_CERTIFICATE_NONE:
		return TLS_CERTIFICATE_OFF;
	case CLIENT_CERTIFICATE_OPTIONAL:
		return TLS_CERTIFICATE_OPTIONAL;
	case CLIENT_CERTIFICATE_REQUIRED:
		return TLS_CERTIFICATE_REQUIRED;
	case CLIENT_CERTIFICATE_UNSET:
	case N_CLIENT_CERTIFICATES:
		break;
	}
	/* A CA that has vanished since lets nobody in who would have needed a certificate. */
	return server->tls.has_verified ? TLS_CERTIFICATE_REQUIRED : TLS_CERTIFICATE_OFF;
}

/* How much of the time for the whole handshake is left. */
static uint64_t patience_with(const struct client *client)
{
	uint64_t at = 0, now = monotonic_us();

	(void) sd_event_source_get_time(client->deadline, &at);
	return at > now ? at - now : 0;
}

enum client_progress client_step_secure(struct client *client)
{
	struct tls_start start = { .certificate = wanted_certificate(client->server),
	                           .peer = span_of(client->peer) };
	struct refusal refusal;

	/* The descriptor's description is about to be shared: our epoll must forget it first. */
	client->io = sd_event_source_disable_unref(client->io);
	client->is_securing = true;
	client_forget_choices(client);
	client->step = STEP_WAIT;
	switch (tls_link_start(&client->server->tls, &client->tls_wait, &start,
	                       patience_with(client), client->fd, &refusal)) {
	case TLS_LINK_DONE:
		close_fd(&client->fd);
		/* nbd-tls keeps the time, so that the client is told by TLS. */
		(void) sd_event_source_set_enabled(client->deadline, SD_EVENT_OFF);
		return CLIENT_GOES_ON;
	case TLS_LINK_WAIT:
		return CLIENT_GOES_ON;
	case TLS_LINK_REFUSED:
		break;
	}
	return client_end(client, LOG_NOTICE, refusal.reason,
	                  "%s after TLS was promised: closing", refusal.sentence);
}

/* False: the client has been ended. */
static bool take_session(struct client *client, const struct tls_result *result)
{
	int r;

	client->fd = result->fd;
	client->secure = result->secure;
	client->negotiation.identity = &client->secure->identity;
	client->is_securing = false;
	client->step = STEP_HEADER;
	log_about(LOG_DEBUG, &(struct subject) { .client = client->peer,
	          .identity = client->secure->name }, "%s, %s", client->secure->tls,
	          client->secure->shown);
	r = client_watch(client);
	if (r >= 0)
		r = sd_event_source_set_enabled(client->deadline, SD_EVENT_ONESHOT);
	if (r < 0)
		(void) client_end(client, LOG_ERR, REASON_NONE, "cannot watch its socket: %s",
		                  strerror(-r));
	return r >= 0;
}

/* What nbd-tls has found wrong with a client is in its log; here is what is wrong with itself. */
static void end_refused(struct client *client, const struct refusal *refusal)
{
	client->server->n_refused++;
	(void) client_end(client, refusal->reason == REASON_TLS_UNAVAILABLE ? LOG_NOTICE :
	                                                                    LOG_DEBUG,
	                  refusal->reason, "%s: closing", refusal->sentence);
}

void client_tls_done(struct tls_wait *wait, const struct tls_result *result)
{
	struct client *client = container_of(wait, struct client, tls_wait);
	bool lives = true;

	switch (result->outcome) {
	case TLS_ASK_AGAIN:
		client->step = client->is_securing ? STEP_SECURE : STEP_TLS;
		break;
	case TLS_SESSION:
		lives = take_session(client, result);
		break;
	case TLS_REFUSED:
		lives = !client->is_securing;
		if (!lives)
			end_refused(client, result->refusal);
		client->negotiation.now.refusal = *result->refusal;
		client->step = STEP_DISPATCH;
		break;
	}
	if (lives)
		client_advance(client);
	else
		client_free(client);
}
