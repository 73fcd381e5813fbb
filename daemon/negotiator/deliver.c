/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way into an export: offer, reservation, answer, hand-off.
 *
 * A client is told that it may enter only once the export has promised to take it, and is
 * handed over only once it has been told; one that leaves in between gives its place back.
 */
#include "negotiator/client.h"

#include <inttypes.h>

#include "base/log.h"
#include "negotiator/access.h"
#include "wire/names.h"

static struct export_link *link_of(const struct client *client)
{
	return client->negotiation.now.export->link;
}

static void set_offer(struct client *client, struct offer *offer)
{
	offer_unref(client->offer);
	client->offer = offer;
	client->negotiation.now.offer = offer;
}

/* Lets the option's handler answer; or, if the offer had aged or the export has just gone,
 * asks once more without the client noticing. */
static void take_refusal(struct client *client, const struct refusal *refusal)
{
	struct negotiation *n = &client->negotiation;
	bool may_pass = refusal->reason == REASON_OFFER_STALE ||
	                refusal->reason == REASON_EXPORT_GONE;

	if (may_pass && !client->has_retried) {
		client->has_retried = true;
		set_offer(client, NULL);
	} else {
		n->now.refusal = *refusal;
	}
	client->step = STEP_DISPATCH;
}

enum client_progress client_step_offer(struct client *client)
{
	struct offer *offer = NULL;
	struct refusal refusal;

	switch (export_link_offer(link_of(client), &client->wait, &offer, &refusal)) {
	case LINK_DONE:
		set_offer(client, offer);
		client->step = STEP_DISPATCH;
		return CLIENT_GOES_ON;
	case LINK_WAIT:
		client->step = STEP_WAIT;
		return CLIENT_GOES_ON;
	case LINK_REFUSED:
		break;
	}
	take_refusal(client, &refusal);
	return CLIENT_GOES_ON;
}

static struct channel_reserve reserve_for(const struct client *client)
{
	const struct negotiation *n = &client->negotiation;
	struct channel_reserve reserve = {
		.offer = client->offer->terms.number,
		.mode = (uint8_t) n->mode,
		.rights = access_rights(n->now.export, n->peer),
		.peer = span_of(client->peer),
		.n_contexts = n->chosen.n,
	};

	memcpy(reserve.contexts, n->chosen.ids, n->chosen.n * sizeof *n->chosen.ids);
	return reserve;
}

enum client_progress client_step_reserve(struct client *client)
{
	struct channel_reserve reserve = reserve_for(client);
	struct refusal refusal;

	switch (export_link_reserve(link_of(client), &client->wait, &reserve, &refusal)) {
	case LINK_DONE:
	case LINK_WAIT:
		client->step = STEP_WAIT;
		return CLIENT_GOES_ON;
	case LINK_REFUSED:
		break;
	}
	take_refusal(client, &refusal);
	return CLIENT_GOES_ON;
}

static enum client_progress delivered(struct client *client)
{
	const struct negotiation *n = &client->negotiation;
	const struct subject about = { .export_label = n->now.export->label,
	                               .client = client->peer };

	client->reservation.token = 0;
	log_about(LOG_INFO, &about, "export '%s' handed over as connection %" PRIu64
	          " (%s, %u contexts)", link_of(client)->title, n->now.granted.connection,
	          nbd_mode_name(n->mode), n->chosen.n);
	return CLIENT_ENDS;
}

enum client_progress client_step_handoff(struct client *client)
{
	struct refusal refusal;

	/* The descriptor's description is about to be shared: our epoll must forget it first,
	 * or it would go on telling about a socket that is no longer ours. */
	(void) sd_event_source_set_enabled(client->io, SD_EVENT_OFF);

	switch (export_link_handoff(link_of(client), &client->wait, &client->reservation,
	                            client->fd, &refusal)) {
	case LINK_DONE:
		return delivered(client);
	case LINK_WAIT:
		client->step = STEP_WAIT;
		return CLIENT_GOES_ON;
	case LINK_REFUSED:
		break;
	}
	return client_end(client, LOG_WARNING, refusal.reason,
	                  "%s after the client was told that it may enter: closing",
	                  refusal.sentence);
}

static void take_grant(struct client *client, const struct channel_granted *granted)
{
	client->negotiation.now.granted = *granted;
	client->negotiation.now.is_granted = true;
	client->reservation = (struct reservation) {
		.generation = link_of(client)->generation,
		.token = granted->token,
	};
	client->step = STEP_DISPATCH;
}

void client_wait_done(struct export_wait *wait, const struct wait_result *result)
{
	struct client *client = container_of(wait, struct client, wait);
	bool is_granted = client->negotiation.now.is_granted;

	switch (result->outcome) {
	case WAIT_ASK_AGAIN:
		client->step = is_granted ? STEP_HANDOFF : STEP_DISPATCH;
		break;
	case WAIT_GRANTED:
		take_grant(client, result->granted);
		break;
	case WAIT_REFUSED:
		if (is_granted) {
			/* It waited for room to be handed over: there is nobody to take it. */
			(void) client_end(client, LOG_WARNING, result->refusal->reason,
			                  "%s before the client could be handed over: closing",
			                  result->refusal->sentence);
			client_free(client);
			return;
		}
		take_refusal(client, result->refusal);
		break;
	}
	client_advance(client);
}

void client_abandon(struct client *client)
{
	if (client->reservation.token)
		export_link_abandon(link_of(client), &client->reservation);
	client->reservation = (struct reservation) { 0 };
}
