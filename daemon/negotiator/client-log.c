/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens to a client, for the operator.  Refusals on the export's account and by access
 * rules are notices, a client's own mistakes are for debugging only.
 *
 * A client without access is told that there is no such export; the log tells the truth.  What
 * is refused here for an export is sent to it as well, for its own journal, if there is a link
 * to it: none is made for that, since it would start the export.
 */
#include "negotiator/client.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "wire/names.h"

#define REFUSALS_LOGGED 8u              /* of one client; the rest at debug level */
#define NAME_SHOWN 80u
#define RULES_SHOWN 120u

/* What the end of a handshake is in the journal; a client that just left is nothing. */
static enum event event_of(enum reason reason)
{
	switch (reason) {
	case REASON_NONE:
	case REASON_DISCONNECT:
		return EVENT_NONE;
	case REASON_PROTOCOL:
		return EVENT_PROTOCOL_VIOLATION;
	case REASON_DEADLINE:
		return EVENT_CLIENT_STALLED;
	default:
		return EVENT_CLIENT_REFUSED;
	}
}

/* Of what was refused without asking the export. */
static void tell_export(const struct client *client, const struct catalogue_entry *entry,
                        enum reason reason, const char *sentence)
{
	if (entry && (reason == REASON_NO_ACCESS || reason == REASON_TLS_REQUIRED ||
	              reason == REASON_LIMIT || reason == REASON_DEADLINE))
		export_link_tell_refusal(entry->link, reason, client->peer, sentence);
}

/* The export that the option is about, whether the client knows of it or not. */
static const struct catalogue_entry *subject_of(const struct client *client)
{
	const struct negotiation *n = &client->negotiation;

	return n->verdict.denied ? n->verdict.denied : n->now.export;
}

enum client_progress client_end(struct client *client, int level, enum reason reason,
                                const char *fmt, ...)
{
	const struct catalogue_entry *entry = subject_of(client);
	const struct subject about = {
		.export_label = entry ? entry->label : NULL,
		.client = client->peer,
		.reason = reason ? reason_word(reason) : NULL,
		.event = event_of(reason),
	};
	bool listed = level != LOG_NOTICE ||
	              refusal_log_may_list(&client->server->refusals, &client->source->who);
	char text[CHANNEL_SENTENCE_MAX + 64];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	log_about(listed ? level : LOG_DEBUG, &about, "%s", text);
	if (listed)
		tell_export(client, entry, reason, text);
	return CLIENT_ENDS;
}

/* The verdict's sentence, or what stands behind it that the client may not know. */
static const char *truth_of(const struct client *client, char *room, size_t size)
{
	const struct verdict *verdict = &client->negotiation.verdict;
	const struct catalogue_entry *denied = verdict->denied;
	char name[NAME_SHOWN + 4], rules[RULES_SHOWN + 4];
	int len;

	if (!denied)
		return verdict->sentence;
	printable(span_of(denied->name), NAME_SHOWN, name, sizeof name);
	printable(span_of(denied->rules_text), RULES_SHOWN, rules, sizeof rules);
	len = snprintf(room, size, "no access to export '%s': ", name);
	room += len;
	size -= (size_t) len;
	switch (verdict->access.denial) {
	case ACCESS_DENIED_ADDRESS:
		(void) snprintf(room, size, "no rule of Allow=%s (%s) is for %s", rules,
		                denied->rules_from, client->peer);
		break;
	case ACCESS_DENIED_CLEAR:
		(void) snprintf(room, size, "it is not served without TLS (%s)",
		                denied->tls == TLS_POLICY_REQUIRE ? "TLS=require" :
		                "Identity= asks who it is");
		break;
	case ACCESS_DENIED_TLS:
		(void) snprintf(room, size, "it is served without TLS only (TLS=off)");
		break;
	case ACCESS_DENIED_IDENTITY:
		(void) snprintf(room, size, "no rule of Identity= (%s) is for %s",
		                denied->identities_from, client_identity(client));
		break;
	case ACCESS_GRANTED:
		(void) snprintf(room, size, "%s may only list it (%s)", client_identity(client),
		                denied->identities_from);
		break;
	}
	return room - len;
}

void client_log_verdict(struct client *client)
{
	const struct negotiation *n = &client->negotiation;
	const struct catalogue_entry *entry = subject_of(client);
	const struct subject about = {
		.export_label = entry ? entry->label : NULL,
		.client = client->peer,
		.reason = n->verdict.reason ? reason_word(n->verdict.reason) : NULL,
		.event = n->verdict.reason ? EVENT_CLIENT_REFUSED : EVENT_NONE,
	};
	bool matters = n->verdict.reason && client->n_logged < REFUSALS_LOGGED &&
	               refusal_log_may_list(&client->server->refusals, &client->source->who);
	char room[CHANNEL_SENTENCE_MAX + 1];
	const char *sentence = truth_of(client, room, sizeof room);

	if (n->verdict.error == NBD_REP_ACK)
		return;
	client->n_logged += matters;
	client->server->n_refused += n->verdict.reason != REASON_NONE;
	log_about(matters ? LOG_NOTICE : LOG_DEBUG, &about, "%s refused with %s: %s",
	          nbd_opt_name(n->header.option), nbd_rep_name((uint32_t) n->verdict.error),
	          sentence);
	if (matters)
		tell_export(client, entry, n->verdict.reason, sentence);
}

void client_log_close(struct client *client)
{
	const struct negotiation *n = &client->negotiation;
	enum reason reason = n->verdict.reason ? n->verdict.reason : REASON_PROTOCOL;
	char room[CHANNEL_SENTENCE_MAX + 1];

	if (!*n->verdict.sentence)
		return;
	client->server->n_refused++;
	(void) client_end(client, LOG_NOTICE, reason, "%s: closing",
	                  truth_of(client, room, sizeof room));
}
