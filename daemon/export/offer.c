/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an export has to offer: size, flags and block sizes, by its device and its settings.
 */
#include <string.h>

#include "export/admit.h"

#define PREFERRED_BLOCK_LEAST 4096u
#define PREFERRED_BLOCK_MOST (1u << 20)

uint16_t offer_flags(const struct export *export)
{
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
	                 NBD_FLAG_SEND_CACHE;

	/* A writer that opened several connections would be refused all but one. */
	if (export->settings->max_connections > 1 &&
	    (!export->settings->single_writer || export->device.read_only))
		flags |= NBD_FLAG_CAN_MULTI_CONN;
	if (export->device.rotational)
		flags |= NBD_FLAG_ROTATIONAL;
	if (export->device.read_only)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
	return (uint16_t) flags;
}

uint16_t offer_flags_for(const struct export *export, const struct channel_reserve *reserve)
{
	unsigned flags = offer_flags(export);

	if (reserve->mode >= NBD_MODE_STRUCTURED)
		flags |= NBD_FLAG_SEND_DF;
	if (reserve->mode == NBD_MODE_EXTENDED && reserve->n_contexts)
		flags |= NBD_FLAG_BLOCK_STAT_PAYLOAD;
	if (!(reserve->rights & CHANNEL_RIGHT_WRITE)) {
		flags |= NBD_FLAG_READ_ONLY;
		flags &= ~(NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO);
	}
	return (uint16_t) flags;
}

/* A power of two, at least 4096, that suits the medium. */
static uint32_t preferred_block(const struct device *dev)
{
	uint32_t size = PREFERRED_BLOCK_LEAST, optimal = dev->optimal_io;

	if (optimal & (optimal - 1))            /* a RAID's stripe may be no power of two */
		optimal = 0;
	while (size < dev->sector || (size < dev->physical_block && size < 65536) ||
	       (size < optimal && size < PREFERRED_BLOCK_MOST))
		size *= 2;
	return size;
}

/* Zero where there is nothing, so that two can be compared as bytes. */
struct channel_offer offer_of(const struct export *export, uint64_t number, uint16_t n_contexts)
{
	struct channel_offer offer;

	memset(&offer, 0, sizeof offer);
	offer.number = number;
	offer.size = export->device.size;
	offer.flags = offer_flags(export);
	offer.minimum_block = export->device.sector;
	offer.preferred_block = preferred_block(&export->device);
	offer.maximum_payload = NBD_MAX_PAYLOAD;
	offer.n_contexts = n_contexts;
	return offer;
}

bool admit_offer_to(struct admission *a, struct link *answered)
{
	struct context_list contexts;
	struct channel_offer offer;
	struct link *next;

	contexts_list(a->export, &contexts);
	offer = offer_of(a->export, a->offer.number, contexts.n);
	if (memcmp(&offer, &a->offer, sizeof offer) == 0 &&
	    memcmp(&contexts, &a->contexts, sizeof contexts) == 0)
		return true;
	a->offer = offer;
	a->contexts = contexts;
	a->offer.number++;
	for (struct link *link = a->links; link; link = next) {
		next = link->next;
		if (link != answered && !link_introduce(link))
			link_close(link, "it does not take the offer");
	}
	return !answered || link_introduce(answered);
}

void admit_offer_again(struct admission *a)
{
	(void) admit_offer_to(a, NULL);
}
