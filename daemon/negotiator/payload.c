/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Payload buffers: doubled as they fill, charged to the budget. */
#include "negotiator/payload.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static size_t charge_of(size_t size)
{
	return size > PAYLOAD_FREE ? size - PAYLOAD_FREE : 0;
}

int payload_make_room(struct payload *p, struct payload_budget *budget, size_t total)
{
	size_t size = p->size ? 2 * p->size : PAYLOAD_FREE;
	size_t more;
	uint8_t *at;

	assert(p->len < total);
	if (p->len < p->size)
		return 0;

	if (size > total)
		size = total;
	more = charge_of(size) - charge_of(p->size);
	if (more > budget->limit - budget->used)
		return -EAGAIN;
	at = realloc(p->at, size);
	if (!at)
		return -ENOMEM;
	budget->used += more;
	p->at = at;
	p->size = size;
	return 0;
}

bool payload_clear(struct payload *p, struct payload_budget *budget)
{
	size_t charge = charge_of(p->size);

	assert(charge <= budget->used);
	budget->used -= charge;
	free(p->at);
	*p = (struct payload) { 0 };
	return charge > 0;
}
