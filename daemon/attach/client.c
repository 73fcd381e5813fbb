/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The handshake: greeting, GO, and NBD_OPT_EXPORT_NAME for servers that do not know GO. */
#include "attach/client.h"

#include <errno.h>
#include <string.h>

#include "attach/stream.h"
#include "attach/tls.h"
#include "base/text.h"
#include "wire/names.h"

#define MAX_ANSWERS 64u                 /* to one GO; a server that sends more means harm */

struct handshake {
	struct stream stream;
	const char *name;
	uint16_t greeting;              /* the server's flags */
	struct export_facts facts;
};

static int broken(const char *fault, struct failure *why)
{
	return fail_plain(why, EPROTO, "%s", fault);
}

static int greet(struct handshake *h, struct failure *why)
{
	uint8_t greeting[NBD_GREETING_SIZE], buffer[NBD_CLIENT_FLAGS_SIZE];
	struct emit out = emit_into(buffer, sizeof buffer);
	uint32_t flags = NBD_FLAG_C_FIXED_NEWSTYLE;
	const char *fault;
	int r = stream_read(&h->stream, greeting, sizeof greeting, why);

	if (r < 0)
		return r;
	fault = decode_greeting(bytes_over(greeting, sizeof greeting), &h->greeting);
	if (fault)
		return broken(fault, why);
	if (h->greeting & NBD_FLAG_NO_ZEROES)
		flags |= NBD_FLAG_C_NO_ZEROES;
	emit_client_flags(&out, flags);
	return stream_write(&h->stream, buffer, out.len, why);
}

/* What a refusal means, where the server says no more. */
static const struct {
	uint32_t reply;
	int code;
	const char *meaning;
} refusals[] = {
	{ NBD_REP_ERR_POLICY, EACCES, "its rules do not let us in" },
	{ NBD_REP_ERR_TLS_REQD, EPROTONOSUPPORT, "it wants TLS: use nbds://" },
	{ NBD_REP_ERR_UNKNOWN, ENOENT, "it has no export of that name" },
	{ NBD_REP_ERR_SHUTDOWN, ESHUTDOWN, "it is shutting down" },
	{ NBD_REP_ERR_EXT_HEADER_REQD, EPROTONOSUPPORT, "it wants extended headers, which the "
	                                                "kernel does not speak" },
};

static int refused(const struct handshake *h, uint32_t reply, struct span sentence,
                   struct failure *why)
{
	char name[68], said[260];
	const char *meaning = nbd_rep_name(reply);
	int code = ECONNREFUSED;

	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		if (refusals[i].reply == reply) {
			meaning = refusals[i].meaning;
			code = refusals[i].code;
		}
	}
	printable(span_of(h->name), 64, name, sizeof name);
	printable(sentence, 256, said, sizeof said);
	if (sentence.len == 0)
		return fail_plain(why, code, "the server refuses \"%s\": %s", name, meaning);
	return fail_plain(why, code, "the server refuses \"%s\": %s: it says: %s", name, meaning,
	                  said);
}

/* Option STARTTLS, and its answer, which has to be a bare acknowledgement. */
static int start_tls(struct handshake *h, struct failure *why)
{
	uint8_t buffer[NBD_OPTION_HEADER_SIZE], reply[NBD_OPTION_REPLY_HEADER_SIZE];
	struct emit out = emit_into(buffer, sizeof buffer);
	struct answer_header header;
	const char *fault;
	int r;

	emit_option(&out, NBD_OPT_STARTTLS, (struct span) { 0 });
	r = stream_write(&h->stream, buffer, out.len, why);
	if (r == 0)
		r = stream_read(&h->stream, reply, sizeof reply, why);
	if (r < 0)
		return r;
	fault = decode_answer_header(bytes_over(reply, sizeof reply), NBD_OPT_STARTTLS, &header);
	if (fault)
		return broken(fault, why);
	if (header.type != NBD_REP_ACK || header.length)
		return fail_plain(why, EPROTONOSUPPORT, "the server has no TLS to offer (%s)",
		                  nbd_rep_name(header.type));
	return 0;
}

/* One answer to GO.  1: the last, the export is ours; -EOPNOTSUPP without words: GO is unknown. */
static int take_answer(struct handshake *h, struct failure *why)
{
	uint8_t header_bytes[NBD_OPTION_REPLY_HEADER_SIZE], payload[NBD_MAX_ANSWER];
	struct answer_header header;
	const char *fault;
	int r = stream_read(&h->stream, header_bytes, sizeof header_bytes, why);

	if (r < 0)
		return r;
	fault = decode_answer_header(bytes_over(header_bytes, sizeof header_bytes), NBD_OPT_GO,
	                             &header);
	if (fault)
		return broken(fault, why);
	r = stream_read(&h->stream, payload, header.length, why);
	if (r < 0)
		return r;
	if (header.type == (uint32_t) NBD_REP_ERR_UNSUP)
		return -EOPNOTSUPP;
	if (header.type & NBD_REP_ERROR_BIT)
		return refused(h, header.type, (struct span) { payload, header.length }, why);
	if (header.type == NBD_REP_INFO)
		fault = decode_info(bytes_over(payload, header.length), &h->facts);
	else if (header.type != NBD_REP_ACK || header.length)
		fault = "the server answers what was not asked";
	else if (!h->facts.has_size)
		fault = "the server did not say what size the export has";
	if (fault)
		return broken(fault, why);
	return header.type == NBD_REP_ACK;
}

static int go(struct handshake *h, struct failure *why)
{
	uint8_t buffer[NBD_OPTION_HEADER_SIZE + NBD_MAX_STRING + 8];
	struct emit out = emit_into(buffer, sizeof buffer);
	int r;

	emit_go(&out, span_of(h->name));
	if (!emit_fits(&out))
		return fail_plain(why, ENAMETOOLONG, "the export's name is too long");
	r = stream_write(&h->stream, buffer, out.len, why);
	for (unsigned i = 0; r == 0 && i < MAX_ANSWERS; i++)
		r = take_answer(h, why);
	if (r == 0)
		return broken("the server says more than an export has", why);
	return r < 0 ? r : 0;
}

/* The only refusal that this option has is the end of the connection. */
static int ask_by_name_alone(struct handshake *h, struct failure *why)
{
	uint8_t buffer[NBD_OPTION_HEADER_SIZE + NBD_MAX_STRING];
	uint8_t reply[NBD_EXPORT_NAME_REPLY_SIZE], zeroes[NBD_EXPORT_NAME_ZEROES];
	struct emit out = emit_into(buffer, sizeof buffer);
	const char *fault;
	int r;

	emit_option(&out, NBD_OPT_EXPORT_NAME, span_of(h->name));
	r = stream_write(&h->stream, buffer, out.len, why);
	if (r == 0)
		r = stream_read(&h->stream, reply, sizeof reply, why);
	if (r == 0 && !(h->greeting & NBD_FLAG_NO_ZEROES))
		r = stream_read(&h->stream, zeroes, sizeof zeroes, why);
	if (r < 0)
		return r;
	fault = decode_export_name_reply(bytes_over(reply, sizeof reply), &h->facts);
	return fault ? broken(fault, why) : 0;
}

static int enter(struct handshake *h, struct failure *why)
{
	int r = go(h, why);

	if (r == -EOPNOTSUPP && why->code == 0)
		r = ask_by_name_alone(h, why);
	return r;
}

int client_negotiate(int fd, const char *name, const struct client_limits *limits,
                     struct export_facts *ret, struct failure *why)
{
	struct handshake h = { .stream = { .fd = fd, .limits = limits }, .name = name };
	int r = greet(&h, why);

	if (r == 0)
		r = enter(&h, why);
	if (r == 0)
		*ret = h.facts;
	return r;
}

/* The same over TLS: the plain end takes the place of *fd. */
static int negotiate_over_tls(int *fd, const struct nbd_uri *uri,
                              const struct client_limits *limits, struct export_facts *ret,
                              struct failure *why)
{
	struct handshake h = { .stream = { .fd = *fd, .limits = limits }, .name = uri->name };
	int r = greet(&h, why);

	if (r == 0)
		r = start_tls(&h, why);
	if (r == 0)
		r = tls_connect(fd, uri->tls_host, limits, why);
	h.stream.fd = *fd;
	if (r == 0)
		r = enter(&h, why);
	if (r == 0)
		*ret = h.facts;
	return r;
}

int client_connect(const struct nbd_uri *uri, const struct client_limits *limits, int *ret_fd,
                   struct export_facts *ret, struct failure *why)
{
	AUTO_FD fd = -1;
	int r = stream_connect(uri, limits, &fd, why);

	if (r == 0 && *uri->tls_host)
		r = negotiate_over_tls(&fd, uri, limits, ret, why);
	else if (r == 0)
		r = client_negotiate(fd, uri->name, limits, ret, why);
	if (r == 0)
		r = stream_make_blocking(fd, why);
	if (r < 0)
		return fail_while(why, "%.160s", uri->text);
	*ret_fd = take_fd(&fd);
	return 0;
}
