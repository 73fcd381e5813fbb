/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way into an export: offer, reservation, answer, hand-off.
 *
 * A client is told that it may enter only once the export has promised to take it, and is
 * handed over only once it has been told; one that leaves in between gives its place back.
 */
#include "negotiator/client.h"

#include <inttypes.h>
#include <stdio.h>

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

/* The refusals that may pass: the offer had aged, or the export has just gone, which an idle one
 * may do between a RESERVE and its answer. */
static bool may_pass(struct client *client, enum reason reason)
{
	bool *has_passed = reason == REASON_OFFER_STALE ? &client->has_passed_stale :
	                   reason == REASON_EXPORT_GONE ? &client->has_passed_gone : NULL;

	if (!has_passed || *has_passed)
		return false;
	*has_passed = true;
	return true;
}

/* Lets the option's handler answer; or asks once more without the client noticing. */
static void take_refusal(struct client *client, const struct refusal *refusal)
{
	if (may_pass(client, refusal->reason))
		set_offer(client, NULL);
	else
		client->negotiation.now.refusal = *refusal;
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
		.rights = access_channel_rights(option_access(n, n->now.export)),
		.peer = span_of(client->peer),
		.n_contexts = n->chosen.n,
		.identity = span_of(client->secure ? client->secure->name : ""),
		.tls = span_of(client->secure ? client->secure->tls : ""),
	};

	memcpy(reserve.contexts, n->chosen.ids, n->chosen.n * sizeof *n->chosen.ids);
	return reserve;
}

/* The limits on clients that are being served; those of the export are its own affair, but for
 * the one on sources, which it cannot know. */
static bool take_place(struct client *client, struct refusal *ret_refusal)
{
	const struct negotiator_settings *s = &client->server->settings;
	const struct catalogue_entry *entry = client->negotiation.now.export;
	struct places *places = &entry->link->places;
	const struct source *source = client->source;
	char who[PEER_SOURCE_TEXT_SIZE];

	peer_format_source(&source->who, who, sizeof who);
	if (client->server->sources.n_live >= s->max_clients)
		refuse(ret_refusal, REASON_LIMIT, "%u clients are being served, which is the limit",
		       client->server->sources.n_live);
	else if (s->max_clients_per_source && source->n_live >= s->max_clients_per_source)
		refuse(ret_refusal, REASON_LIMIT, "%u clients from %s are being served, which is the "
		       "limit for one source", source->n_live, who);
	else if (entry->max_per_source && places_of(places, source) >= entry->max_per_source)
		refuse(ret_refusal, REASON_LIMIT, "export '%s' serves %u clients from %s, which is the "
		       "limit for one source", entry->link->title, places_of(places, source), who);
	else if (!(client->place = place_take(places, &client->negotiation.who)))
		refuse(ret_refusal, REASON_LIMIT, "there is no room for another client");
	return client->place;
}

enum client_progress client_step_reserve(struct client *client)
{
	struct channel_reserve reserve = reserve_for(client);
	struct refusal refusal;
	enum link_answer answer;

	if (!client->place && !take_place(client, &refusal)) {
		take_refusal(client, &refusal);
		return CLIENT_GOES_ON;
	}
	answer = export_link_reserve(link_of(client), &client->wait, &reserve, &refusal);
	client->place->request = reserve.request;
	switch (answer) {
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
	const struct secure *secure = client->secure;
	const struct subject about = { .export_label = n->now.export->label,
	                               .client = client->peer,
	                               .connection = n->now.granted.connection,
	                               .identity = secure ? secure->name : NULL };

	client->reservation.token = 0;
	client->place->connection = n->now.granted.connection;
	client->place = NULL;           /* the export will tell when it is free */
	log_event(EVENT_CLIENT_HANDED_OVER, &about, "export '%s' handed over as connection %" PRIu64
	          " (%s, %u contexts%s%s%s%s)", link_of(client)->title, n->now.granted.connection,
	          nbd_mode_name(n->mode), n->chosen.n, secure ? ", " : "",
	          secure ? secure->tls : "", secure ? ", " : "", secure ? secure->shown : "");
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
