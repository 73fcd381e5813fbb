/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of options, and the options that need no export.
 *
 * A client may ask anything in any order, so order is data here, never an assertion.
 */
#include "negotiator/dispatch.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"
#include "wire/names.h"

/* How much of a name is shown in a sentence. */
#define NAME_SHOWN 80u

#define NEEDS_TLS "use TLS first: nothing is served without it"

bool option_has_room(const struct negotiation *n)
{
	return n->out.size - n->out.len >= OPTION_REPLY_MAX;
}

enum next option_ack(struct negotiation *n)
{
	emit_option_reply(&n->out, n->header.option, NBD_REP_ACK);
	return NEXT_OPTION;
}

enum next option_refuse(struct negotiation *n, enum nbd_rep error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(n->verdict.sentence, sizeof n->verdict.sentence, fmt, args);
	va_end(args);
	n->verdict.error = error;
	emit_option_error(&n->out, n->header.option, error, n->verdict.sentence);
	return NEXT_OPTION;
}

enum next option_close(struct negotiation *n, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(n->verdict.sentence, sizeof n->verdict.sentence, fmt, args);
	va_end(args);
	return NEXT_CLOSE;
}

const struct catalogue_entry *option_find_export(struct negotiation *n, struct span name)
{
	const struct catalogue_entry *entry = catalogue_find(n->catalogue, name);

	if (!entry)
		return NULL;
	n->verdict.access = option_access(n, entry);
	if (n->verdict.access.rights & ACCESS_READ)
		return entry;
	n->verdict.denied = entry;
	return NULL;
}

/* EXPORT_NAME is older than error replies: hanging up is its only refusal. */
static enum next PRINTF(4, 5)
refuse_with(struct negotiation *n, enum reason reason, enum nbd_rep error, const char *fmt, ...)
{
	char sentence[sizeof n->verdict.sentence];
	va_list args;

	va_start(args, fmt);
	vsnprintf(sentence, sizeof sentence, fmt, args);
	va_end(args);
	n->verdict.reason = reason;
	if (n->header.option == NBD_OPT_EXPORT_NAME)
		return option_close(n, "%s", sentence);
	return option_refuse(n, error, "%s", sentence);
}

enum next option_refuse_unknown(struct negotiation *n, struct span name)
{
	char shown[NAME_SHOWN + 4];

	printable(name, NAME_SHOWN, shown, sizeof shown);
	if (n->verdict.denied && n->verdict.access.denial == ACCESS_DENIED_CLEAR)
		return refuse_with(n, REASON_TLS_REQUIRED, NBD_REP_ERR_TLS_REQD, "use TLS first: "
		                   "export '%s' is not served without it", shown);
	if (n->verdict.denied && n->verdict.access.rights)
		return refuse_with(n, REASON_NO_ACCESS, NBD_REP_ERR_POLICY, "export '%s' is listed "
		                   "for this client, but not to be used by it", shown);
	return refuse_with(n, n->verdict.denied ? REASON_NO_ACCESS : REASON_EXPORT_UNKNOWN,
	                   NBD_REP_ERR_UNKNOWN, "there is no export '%s'", shown);
}

/* The option reply that says best why the export side refused. */
static enum nbd_rep error_for(enum reason reason)
{
	switch (reason) {
	case REASON_EXPORT_UNKNOWN:
		return NBD_REP_ERR_UNKNOWN;
	case REASON_NO_SLOT:
	case REASON_SINGLE_WRITER:
	case REASON_LIMIT:
		return NBD_REP_ERR_POLICY;
	case REASON_SHUTDOWN:
		return NBD_REP_ERR_SHUTDOWN;
	default:
		return NBD_REP_ERR_PLATFORM;
	}
}

enum next option_refuse_for_export(struct negotiation *n)
{
	const struct refusal *refusal = &n->now.refusal;

	assert(refusal->reason != REASON_NONE);
	return refuse_with(n, refusal->reason, error_for(refusal->reason), "%s",
	                   refusal->sentence);
}

static enum next refuse_length(struct negotiation *n)
{
	return option_refuse(n, NBD_REP_ERR_INVALID, "%s takes no payload, but %u bytes came",
	                     nbd_opt_name(n->header.option), n->header.length);
}

static enum next on_abort(struct negotiation *n, struct bytes payload)
{
	(void) payload;
	(void) option_ack(n);
	return NEXT_CLOSE;
}

static enum next on_list(struct negotiation *n, struct bytes payload)
{
	(void) payload;
	if (n->header.length)
		return refuse_length(n);

	for (; n->now.cursor < n->catalogue->n; n->now.cursor++) {
		const struct catalogue_entry *entry = &n->catalogue->entries[n->now.cursor];

		if (!(option_access(n, entry).rights & ACCESS_LIST))
			continue;
		if (!option_has_room(n))
			return NEXT_FLUSH;
		emit_rep_server(&n->out, NBD_OPT_LIST, span_of(entry->name),
		                span_of(entry->description));
	}
	return option_has_room(n) ? option_ack(n) : NEXT_FLUSH;
}

static enum next on_starttls(struct negotiation *n, struct bytes payload)
{
	(void) payload;
	if (n->header.length) {
		(void) refuse_length(n);
		return NEXT_CLOSE;
	}
	if (n->identity)
		return option_refuse(n, NBD_REP_ERR_INVALID, "TLS is in use already");
	if (!n->catalogue->has_tls)
		return option_refuse(n, NBD_REP_ERR_POLICY, "TLS is not configured");
	if (n->now.refusal.reason)
		return option_refuse_for_export(n);
	if (!n->now.has_tls)
		return NEXT_TLS;
	(void) option_ack(n);
	return NEXT_SECURE;
}

static enum next on_structured_reply(struct negotiation *n, struct bytes payload)
{
	(void) payload;
	if (n->header.length)
		return refuse_length(n);
	if (n->mode == NBD_MODE_EXTENDED)
		return option_refuse(n, NBD_REP_ERR_EXT_HEADER_REQD,
		                     "extended headers have been negotiated already");
	if (n->mode == NBD_MODE_STRUCTURED)
		return option_refuse(n, NBD_REP_ERR_INVALID,
		                     "structured replies have been negotiated already");
	n->mode = NBD_MODE_STRUCTURED;
	return option_ack(n);
}

static enum next on_extended_headers(struct negotiation *n, struct bytes payload)
{
	(void) payload;
	if (n->header.length)
		return refuse_length(n);
	if (n->mode == NBD_MODE_EXTENDED)
		return option_refuse(n, NBD_REP_ERR_INVALID,
		                     "extended headers have been negotiated already");
	n->mode = NBD_MODE_EXTENDED;
	return option_ack(n);
}

/* The longest payload that INFO and GO can have: a name, and every count of types. */
#define GO_PAYLOAD_MAX (4u + NBD_MAX_STRING + 2u + 2u * UINT16_MAX)

static const struct option {
	uint32_t keeps;                 /* bytes of payload; longer ones cannot be valid, and are
	                                 * skipped: the decoder then misses them */
	enum next (*handle)(struct negotiation *n, struct bytes payload);
} options[] = {
	[NBD_OPT_EXPORT_NAME] = { NBD_MAX_STRING, on_export_name },
	[NBD_OPT_ABORT] = { 0, on_abort },
	[NBD_OPT_LIST] = { 0, on_list },
	[NBD_OPT_STARTTLS] = { 0, on_starttls },
	[NBD_OPT_INFO] = { GO_PAYLOAD_MAX, on_info },
	[NBD_OPT_GO] = { GO_PAYLOAD_MAX, on_go },
	[NBD_OPT_STRUCTURED_REPLY] = { 0, on_structured_reply },
	[NBD_OPT_LIST_META_CONTEXT] = { NBD_MAX_OPTION, on_list_meta_context },
	[NBD_OPT_SET_META_CONTEXT] = { NBD_MAX_OPTION, on_set_meta_context },
	[NBD_OPT_EXTENDED_HEADERS] = { 0, on_extended_headers },
};

static const struct option *option_find(uint32_t option)
{
	if (option >= ARRAY_LEN(options) || !options[option].handle)
		return NULL;
	return &options[option];
}

/* TLS=require: before it everything else is refused, whatever it is. */
static bool needs_tls_first(const struct negotiation *n)
{
	return n->catalogue->tls == TLS_POLICY_REQUIRE && !n->identity &&
	       n->header.option != NBD_OPT_STARTTLS && n->header.option != NBD_OPT_ABORT;
}

/* NULL, or why this option ends the connection at its header. */
static const char *header_fault(const struct negotiation *n)
{
	if (n->header.option != NBD_OPT_EXPORT_NAME)
		return n->flags.fixed_newstyle ? NULL :
			"only NBD_OPT_EXPORT_NAME is allowed without fixed newstyle";
	if (needs_tls_first(n))
		return NEEDS_TLS;
	if (n->mode == NBD_MODE_EXTENDED)
		return "NBD_OPT_EXPORT_NAME is not allowed after extended headers";
	if (n->header.length > NBD_MAX_STRING)
		return "the name is too long";
	return NULL;
}

enum payload_use option_begin(struct negotiation *n, struct option_header header)
{
	const struct option *option = option_find(header.option);
	const char *fault;

	n->header = header;
	n->now = (struct progress) { 0 };
	n->verdict = (struct verdict) { .error = NBD_REP_ACK };

	fault = header_fault(n);
	if (fault) {
		n->verdict.reason = needs_tls_first(n) ? REASON_TLS_REQUIRED : REASON_PROTOCOL;
		(void) option_close(n, "option %u (%s): %s", header.option,
		                    nbd_opt_name(header.option), fault);
		return PAYLOAD_CLOSE;
	}
	if (!option || header.length > option->keeps || needs_tls_first(n))
		return PAYLOAD_SKIP;
	/* It will be refused whatever it says, so it need not be kept. */
	if (header.option == NBD_OPT_SET_META_CONTEXT && n->mode < NBD_MODE_STRUCTURED)
		return PAYLOAD_SKIP;
	return PAYLOAD_KEEP;
}

enum next option_dispatch(struct negotiation *n, struct bytes payload)
{
	const struct option *option = option_find(n->header.option);
	enum next next;

	n->verdict = (struct verdict) { .error = NBD_REP_ACK };
	if (needs_tls_first(n))
		next = refuse_with(n, REASON_TLS_REQUIRED, NBD_REP_ERR_TLS_REQD, NEEDS_TLS);
	else if (option)
		next = option->handle(n, payload);
	else
		next = option_refuse(n, NBD_REP_ERR_UNSUP, "option %u (%s) is not supported",
		                     n->header.option, nbd_opt_name(n->header.option));
	assert(emit_fits(&n->out));
	return next;
}
