/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an export tells over its channel: a table of records, one function each. */
#include "negotiator/export-link.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/text.h"

/* Copies a sentence of the export, which has been checked to be UTF-8. */
static void refusal_from(const struct channel_refused *refused, struct refusal *ret)
{
	*ret = (struct refusal) { .reason = refused->reason };
	printable(refused->sentence, sizeof ret->sentence - 4, ret->sentence,
	          sizeof ret->sentence);
	if (refused->reason == REASON_NONE || refused->reason >= N_REASONS)
		ret->reason = REASON_START_FAILED;
	if (!*ret->sentence)
		snprintf(ret->sentence, sizeof ret->sentence, "the export refused: %s",
		         reason_word(ret->reason));
}

/* The wait for the answer to RESERVE number `request`, taken from the list; NULL for none. */
static struct export_wait *take_wait(struct export_link *link, uint32_t request)
{
	for (struct list *at = link->waits.next; at != &link->waits; at = at->next) {
		struct export_wait *wait = container_of(at, struct export_wait, node);

		if (request && wait->request == request) {
			export_wait_cancel(wait);
			return wait;
		}
	}
	return NULL;
}

static const char *on_offer(struct export_link *link, const struct channel_record *record)
{
	if (link->incoming)
		return "an offer inside an offer";
	link->incoming = offer_new(&record->offer);
	return link->incoming ? NULL : "no memory for its offer";
}

static const char *on_context(struct export_link *link, const struct channel_record *record)
{
	if (!link->incoming)
		return "a context outside an offer";
	return offer_add_context(link->incoming, &record->context);
}

/* Whom it serves already, from before our time. */
static bool note_live(struct export_link *link, const struct channel_live *live)
{
	struct place *place;
	struct peer peer;

	if (places_find(&link->places, live->connection))
		return true;
	peer_parse(live->peer, &peer);
	place = place_take(&link->places, &peer);
	if (place)
		place->connection = live->connection;
	return place;
}

static const char *on_live(struct export_link *link, const struct channel_record *record)
{
	char peer[CHANNEL_PEER_MAX + 4];
	const struct subject about = { .export_label = link->label, .client = peer };

	if (!link->incoming)
		return "a live connection outside an offer";
	if (!note_live(link, &record->live))
		return "more live connections than an export can have";
	printable(record->live.peer, CHANNEL_PEER_MAX, peer, sizeof peer);
	log_about(LOG_DEBUG, &about, "connection %" PRIu64 " is being served",
	          record->live.connection);
	return NULL;
}

static const char *on_ready(struct export_link *link, const struct channel_record *record)
{
	(void) record;
	if (!link->incoming)
		return "ready without an offer";
	if (!offer_complete(link->incoming))
		return "ready before all contexts came";

	offer_unref(link->offer);
	link->offer = link->incoming;
	link->incoming = NULL;
	link->state = LINK_READY;
	export_link_wake(link);
	return NULL;
}

static const char *on_failed(struct export_link *link, const struct channel_record *record)
{
	struct refusal refusal;

	refusal_from(&record->refused, &refusal);
	log_about(LOG_DEBUG, &(struct subject) { .export_label = link->label },
	          "did not start: %s", refusal.sentence);
	export_link_drop(link, &refusal, true);
	return NULL;
}

static const char *on_granted(struct export_link *link, const struct channel_record *record)
{
	struct export_wait *wait = take_wait(link, record->granted.request);

	if (wait) {
		wait->done(wait, &(struct wait_result) { .outcome = WAIT_GRANTED,
		                                         .granted = &record->granted });
		return NULL;
	}
	/* The client has left meanwhile. */
	export_link_abandon(link, &(struct reservation) { .generation = link->generation,
	                                                  .token = record->granted.token });
	return NULL;
}

static const char *on_refused(struct export_link *link, const struct channel_record *record)
{
	struct export_wait *wait = take_wait(link, record->refused.request);
	struct refusal refusal;

	refusal_from(&record->refused, &refusal);
	if (wait) {
		wait->done(wait, &(struct wait_result) { .outcome = WAIT_REFUSED,
		                                         .refusal = &refusal });
		return NULL;
	}
	place_free(places_find_request(&link->places, record->refused.request));
	log_about(LOG_NOTICE, &(struct subject) { .export_label = link->label,
	                                          .reason = reason_word(refusal.reason),
	                                          .event = EVENT_CLIENT_REFUSED },
	          "request %u, whose client left or was handed over, was refused: %s",
	          record->refused.request, refusal.sentence);
	return NULL;
}

static const char *on_gone(struct export_link *link, const struct channel_record *record)
{
	place_free(places_find(&link->places, record->gone.connection));
	log_about(LOG_DEBUG, &(struct subject) { .export_label = link->label,
	                                         .reason = reason_word(record->gone.reason) },
	          "connection %" PRIu64 " ended", record->gone.connection);
	return NULL;
}

/* What only a negotiator may send has no row. */
static const char *(*const records[])(struct export_link *link,
                                      const struct channel_record *record) = {
	[CHANNEL_OFFER] = on_offer,
	[CHANNEL_CONTEXT] = on_context,
	[CHANNEL_LIVE] = on_live,
	[CHANNEL_READY] = on_ready,
	[CHANNEL_FAILED] = on_failed,
	[CHANNEL_GRANTED] = on_granted,
	[CHANNEL_REFUSED] = on_refused,
	[CHANNEL_GONE] = on_gone,
};

const char *export_link_record(struct export_link *link, struct bytes bytes)
{
	struct channel_record record;
	const char *fault = decode_channel_record(bytes, &record);

	if (fault)
		return fault;
	if ((size_t) record.type >= ARRAY_LEN(records) || !records[record.type])
		return "a record that only a negotiator sends";
	return records[record.type](link, &record);
}
