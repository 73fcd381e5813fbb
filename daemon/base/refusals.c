/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/refusals.h"

#include <stddef.h>

/* Its place, which may be a new one; -1 when there is none left. */
static int place_of(struct refusals *r, const struct peer *source)
{
	for (unsigned i = 0; i < r->n_sources; i++)
		if (peer_equal(&r->sources[i].source, source))
			return (int) i;
	if (r->n_sources == REFUSALS_SOURCES)
		return -1;
	r->sources[r->n_sources].source = *source;
	r->sources[r->n_sources].n_listed = 0;
	r->sources[r->n_sources].n_left_out = 0;
	return (int) r->n_sources++;
}

bool refusals_may_list(struct refusals *r, const struct peer *source, uint64_t now)
{
	int at = place_of(r, source);

	if (r->until == 0)
		r->until = now + REFUSALS_USEC;
	if (at < 0) {
		r->n_left_out++;
		return false;
	}
	if (r->sources[at].n_listed == REFUSALS_OF_ONE || r->n_listed == REFUSALS_OF_ALL) {
		r->sources[at].n_left_out++;
		return false;
	}
	r->sources[at].n_listed++;
	r->n_listed++;
	return true;
}

uint64_t refusals_due(const struct refusals *r)
{
	return r->until ? r->until : UINT64_MAX;
}

void refusals_tell(struct refusals *r, void (*tell)(const struct peer *source, uint64_t n))
{
	for (unsigned i = 0; i < r->n_sources; i++)
		if (r->sources[i].n_left_out)
			tell(&r->sources[i].source, r->sources[i].n_left_out);
	if (r->n_left_out)
		tell(NULL, r->n_left_out);
	r->until = r->n_left_out = 0;
	r->n_sources = r->n_listed = 0;
}
