/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "negotiator/trace.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "base/log.h"
#include "wire/names.h"
#include "wire/nbd.h"

#define ERROR_BIT 0x80000000u

void trace_option(const struct client *client, const struct option_header *header)
{
	log_about(LOG_DEBUG, &(struct subject) { .client = client->peer },
	          "%s (option %u), %u bytes", nbd_opt_name(header->option), header->option,
	          header->length);
}

static void trace_reply(const struct client *client, uint32_t type, struct bytes payload)
{
	const struct subject about = { .client = client->peer };
	size_t length = bytes_left(&payload);

	if (type & ERROR_BIT)
		return;
	if (type == NBD_REP_INFO)
		log_about(LOG_DEBUG, &about, "reply: %s %s, %zu bytes", nbd_rep_name(type),
		          nbd_info_name(take_u16(&payload)), length);
	else
		log_about(LOG_DEBUG, &about, "reply: %s, %zu bytes", nbd_rep_name(type), length);
}

void trace_replies(const struct client *client, size_t start)
{
	const struct emit *out = &client->negotiation.out;
	struct bytes in = bytes_over(out->start + start, out->len - start);

	if (log_level() < LOG_DEBUG)
		return;
	while (bytes_left(&in)) {
		uint64_t magic = take_u64(&in);
		uint32_t type, length;

		if (magic != NBD_REP_MAGIC) {   /* NBD_OPT_EXPORT_NAME's answer has no header */
			log_about(LOG_DEBUG, &(struct subject) { .client = client->peer },
			          "reply: size %" PRIu64, magic);
			return;
		}
		(void) take_u32(&in);
		type = take_u32(&in);
		length = take_u32(&in);
		trace_reply(client, type, take_bytes(&in, length));
	}
}
