/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The null server's side of the handshake: every export name is right, structured replies,
 * extended headers and base:allocation are there for who asks.
 */
#include "null.h"

#include <string.h>
#include <sys/socket.h>

#define OPTION_HEADER 16u
#define LARGEST_OPTION 65536u
#define FLAGS (FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_SEND_TRIM | \
	FLAG_SEND_WRITE_ZEROES | FLAG_SEND_DF | FLAG_CAN_MULTI_CONN | FLAG_SEND_CACHE)

struct dialogue {
	int fd;
	uint64_t size;
	enum mode mode;
	uint32_t option;
	uint32_t n;
	uint8_t payload[LARGEST_OPTION];
};

static bool receive(int fd, void *bytes, size_t n)
{
	return n == 0 || recv(fd, bytes, n, MSG_WAITALL) == (ssize_t) n;
}

static bool transmit(int fd, const void *bytes, size_t n)
{
	return send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t) n;
}

static bool reply(struct dialogue *dialogue, uint32_t type, const void *payload, size_t n)
{
	uint8_t bytes[128];

	put_be64(bytes, OPTION_REPLY_MAGIC);
	put_be32(bytes + 8, dialogue->option);
	put_be32(bytes + 12, type);
	put_be32(bytes + 16, (uint32_t) n);
	if (n)
		memcpy(bytes + 20, payload, n);
	return transmit(dialogue->fd, bytes, 20 + n);
}

static bool describe(struct dialogue *dialogue)
{
	uint8_t export[12];
	uint8_t sizes[14];

	put_be16(export, INFO_EXPORT);
	put_be64(export + 2, dialogue->size);
	put_be16(export + 10, FLAGS);
	put_be16(sizes, INFO_BLOCK_SIZE);
	put_be32(sizes + 2, 1);
	put_be32(sizes + 6, 4096);
	put_be32(sizes + 10, LARGEST_PAYLOAD);
	return reply(dialogue, REP_INFO, export, sizeof export) &&
	       reply(dialogue, REP_INFO, sizes, sizeof sizes) &&
	       reply(dialogue, REP_ACK, NULL, 0);
}

/* The end of the handshake for clients of before GO. */
static bool answer_export_name(struct dialogue *dialogue, bool no_zeroes)
{
	uint8_t bytes[134] = {0};

	put_be64(bytes, dialogue->size);
	put_be16(bytes + 8, FLAGS);
	return transmit(dialogue->fd, bytes, no_zeroes ? 10 : sizeof bytes);
}

static bool answer_contexts(struct dialogue *dialogue)
{
	static const char name[] = BASE_ALLOCATION;
	uint8_t context[4 + sizeof name - 1];

	if (dialogue->mode == MODE_SIMPLE)
		return reply(dialogue, REP_ERR_INVALID, NULL, 0);
	put_be32(context, NULL_CONTEXT);
	memcpy(context + 4, name, sizeof name - 1);
	if (memmem(dialogue->payload, dialogue->n, name, sizeof name - 1) &&
	    !reply(dialogue, REP_META_CONTEXT, context, sizeof context))
		return false;
	return reply(dialogue, REP_ACK, NULL, 0);
}

static bool receive_option(struct dialogue *dialogue)
{
	uint8_t header[OPTION_HEADER];

	if (!receive(dialogue->fd, header, sizeof header) || get_be64(header) != OPTION_MAGIC)
		return false;
	dialogue->option = get_be32(header + 8);
	dialogue->n = get_be32(header + 12);
	return dialogue->n <= LARGEST_OPTION &&
	       receive(dialogue->fd, dialogue->payload, dialogue->n);
}

/* Answers one option.  Sets *ret_over when transmission follows. */
static bool answer(struct dialogue *dialogue, bool no_zeroes, bool *ret_over)
{
	switch (dialogue->option) {
	case OPTION_STRUCTURED_REPLY:
		if (dialogue->mode == MODE_SIMPLE)
			dialogue->mode = MODE_STRUCTURED;
		return reply(dialogue, REP_ACK, NULL, 0);
	case OPTION_EXTENDED_HEADERS:
		dialogue->mode = MODE_EXTENDED;
		return reply(dialogue, REP_ACK, NULL, 0);
	case OPTION_LIST_META_CONTEXT:
	case OPTION_SET_META_CONTEXT:
		return answer_contexts(dialogue);
	case OPTION_GO:
		*ret_over = true;
		return describe(dialogue);
	case OPTION_INFO:
		return describe(dialogue);
	case OPTION_EXPORT_NAME:
		*ret_over = true;
		return answer_export_name(dialogue, no_zeroes);
	case OPTION_ABORT:
		(void) reply(dialogue, REP_ACK, NULL, 0);
		return false;
	default:
		return reply(dialogue, REP_ERR_UNSUP, NULL, 0);
	}
}

bool null_handshake(int fd, uint64_t size, enum mode *ret_mode)
{
	struct dialogue dialogue = {.fd = fd, .size = size};
	uint8_t greeting[18];
	uint8_t flags[4];
	bool over = false;

	put_be64(greeting, GREETING_MAGIC);
	put_be64(greeting + 8, OPTION_MAGIC);
	put_be16(greeting + 16, FLAGS_FIXED_NO_ZEROES);
	if (!transmit(fd, greeting, sizeof greeting) || !receive(fd, flags, sizeof flags))
		return false;
	while (!over)
		if (!receive_option(&dialogue) ||
		    !answer(&dialogue, get_be32(flags) & 2u, &over))
			return false;
	*ret_mode = dialogue.mode;
	return true;
}
