/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's side of the handshake. */
#include "handshake.h"

#include <string.h>

#include "report.h"

#define OPTION_HEADER 16u
#define REPLY_HEADER 20u
#define LARGEST_NAME 4096u
#define LARGEST_REPLY 8192u             /* of what a well-behaved server says to us */

struct reply {
	uint32_t type;
	uint32_t n;
	uint8_t payload[LARGEST_REPLY];
};

static void send_option(struct stream *stream, enum option option, const uint8_t *payload, size_t n)
{
	uint8_t bytes[OPTION_HEADER + 2 * LARGEST_NAME + 64];

	put_be64(bytes, OPTION_MAGIC);
	put_be32(bytes + 8, option);
	put_be32(bytes + 12, (uint32_t) n);
	memcpy(bytes + OPTION_HEADER, payload, n);
	stream_send_all(stream, bytes, OPTION_HEADER + n);
}

static void receive_reply(struct stream *stream, enum option option, struct reply *ret_reply)
{
	uint8_t header[REPLY_HEADER];

	stream_receive_all(stream, header, sizeof header);
	if (get_be64(header) != OPTION_REPLY_MAGIC || get_be32(header + 8) != option)
		give_up("the server's reply to option %d is none", option);
	ret_reply->type = get_be32(header + 12);
	ret_reply->n = get_be32(header + 16);
	if (ret_reply->n > sizeof ret_reply->payload)
		give_up("the server's reply to option %d has %u bytes", option, ret_reply->n);
	stream_receive_all(stream, ret_reply->payload, ret_reply->n);
	if (ret_reply->type & REP_ERROR_BIT)
		give_up("the server refuses option %d with error %u%s%.*s", option,
		        ret_reply->type & ~REP_ERROR_BIT, ret_reply->n ? ": " : "", (int) ret_reply->n,
		        (const char *) ret_reply->payload);
}

/* An option without payload that the server must acknowledge. */
static void ask_for(struct stream *stream, enum option option)
{
	struct reply reply;

	send_option(stream, option, (const uint8_t *) "", 0);
	receive_reply(stream, option, &reply);
	if (reply.type != REP_ACK)
		give_up("the server answers option %d with %u", option, reply.type);
}

static size_t put_name(uint8_t *at, const char *name)
{
	size_t n = strlen(name);

	if (n > LARGEST_NAME)
		give_up("a name has at most %u bytes", LARGEST_NAME);
	put_be32(at, (uint32_t) n);
	memcpy(at + 4, name, n);
	return 4 + n;
}

static void ask_for_status(struct peer *peer, const char *name, const char *context)
{
	uint8_t payload[2 * LARGEST_NAME + 64];
	size_t n = put_name(payload, name);
	struct reply reply;
	bool found = false;

	put_be32(payload + n, 1);
	n += 4;
	n += put_name(payload + n, context);
	send_option(&peer->stream, OPTION_SET_META_CONTEXT, payload, n);
	for (;;) {
		receive_reply(&peer->stream, OPTION_SET_META_CONTEXT, &reply);
		if (reply.type == REP_ACK)
			break;
		if (reply.type == REP_META_CONTEXT && reply.n >= 4) {
			peer->context = get_be32(reply.payload);
			found = true;
		}
	}
	if (!found)
		give_up("the server has no %s", context);
}

static void take_info(struct peer *peer, const struct reply *reply)
{
	unsigned type = reply->n >= 2 ? get_be16(reply->payload) : UINT32_MAX;

	if (type == INFO_EXPORT && reply->n == 12) {
		peer->size = get_be64(reply->payload + 2);
		peer->flags = get_be16(reply->payload + 10);
	} else if (type == INFO_BLOCK_SIZE && reply->n == 14) {
		peer->min_block = get_be32(reply->payload + 2);
		peer->max_block = get_be32(reply->payload + 10);
	}
}

static void go(struct peer *peer, const char *name)
{
	uint8_t payload[LARGEST_NAME + 64];
	size_t n = put_name(payload, name);
	struct reply reply;

	put_be16(payload + n, 1);
	put_be16(payload + n + 2, INFO_BLOCK_SIZE);
	send_option(&peer->stream, OPTION_GO, payload, n + 4);
	for (;;) {
		receive_reply(&peer->stream, OPTION_GO, &reply);
		if (reply.type == REP_ACK)
			break;
		if (reply.type == REP_INFO)
			take_info(peer, &reply);
	}
	if (!peer->flags)
		give_up("the server says nothing about the export");
}

static void greet(struct stream *stream)
{
	uint8_t greeting[18];
	uint8_t flags[4];

	stream_receive_all(stream, greeting, sizeof greeting);
	if (get_be64(greeting) != GREETING_MAGIC || get_be64(greeting + 8) != OPTION_MAGIC)
		give_up("this is no NBD server of the newstyle kind");
	if (!(get_be16(greeting + 16) & 1u))
		give_up("this server's newstyle is not the fixed one");
	put_be32(flags, get_be16(greeting + 16) & FLAGS_FIXED_NO_ZEROES);
	stream_send_all(stream, flags, sizeof flags);
}

void peer_open(const struct address *address, const struct settings *settings, bool want_status,
               struct peer *ret_peer)
{
	struct peer peer = {.mode = settings->mode, .min_block = 1, .max_block = LARGEST_PAYLOAD};

	peer.stream.fd = address_connect(address, settings->socket_buffer);
	greet(&peer.stream);
	if (settings->tls) {
		ask_for(&peer.stream, OPTION_STARTTLS);
		stream_start_tls(&peer.stream, settings->tls);
	}
	if (peer.mode == MODE_STRUCTURED)
		ask_for(&peer.stream, OPTION_STRUCTURED_REPLY);
	if (peer.mode == MODE_EXTENDED)
		ask_for(&peer.stream, OPTION_EXTENDED_HEADERS);
	if (want_status)
		ask_for_status(&peer, settings->export_name, settings->context);
	go(&peer, settings->export_name);
	*ret_peer = peer;
}

void peer_close(struct peer *peer)
{
	uint8_t request[LARGEST_HEADER];
	size_t n = put_request(request, peer->mode, COMMAND_DISC, 0, 0, 0, 0);

	(void) stream_send(&peer->stream, &(struct iovec) {request, n}, 1);
	stream_close(&peer->stream);
}
