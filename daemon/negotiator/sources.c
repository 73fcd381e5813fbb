/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table of sources, by address. */
#include "negotiator/sources.h"

#include <stdlib.h>
#include <sys/random.h>

static struct source **bucket_of(struct sources *sources, const struct peer *who)
{
	uint64_t hash = sources->seed ^ (uint64_t) who->kind;

	for (size_t i = 0; i < sizeof who->address; i++)
		hash = (hash ^ who->address[i]) * UINT64_C(0x100000001b3);
	hash = (hash ^ who->id) * UINT64_C(0x100000001b3);
	return &sources->buckets[(hash ^ hash >> 32) % SOURCES_BUCKETS];
}

void sources_init(struct sources *sources)
{
	*sources = (struct sources) { 0 };
	if (getrandom(&sources->seed, sizeof sources->seed, GRND_NONBLOCK) < 0)
		sources->seed = (uintptr_t) sources;
}

struct source *sources_get(struct sources *sources, const struct peer *peer)
{
	struct source **bucket, *source;
	struct peer who;

	peer_source(peer, &who);
	bucket = bucket_of(sources, &who);
	for (source = *bucket; source; source = source->next) {
		if (peer_equal(&source->who, &who)) {
			source->n_refs++;
			return source;
		}
	}
	source = calloc(1, sizeof *source);
	if (!source)
		return NULL;
	*source = (struct source) { .who = who, .next = *bucket, .n_refs = 1 };
	list_init(&source->handshakes);
	*bucket = source;
	return source;
}

void sources_put(struct sources *sources, struct source *source)
{
	struct source **at;

	if (!source || --source->n_refs > 0)
		return;
	at = bucket_of(sources, &source->who);
	while (*at != source)
		at = &(*at)->next;
	*at = source->next;
	free(source);
}

struct source *sources_busiest(struct sources *sources)
{
	struct source *busiest = NULL;

	for (size_t i = 0; i < SOURCES_BUCKETS; i++)
		for (struct source *s = sources->buckets[i]; s; s = s->next)
			if (!busiest || s->n_handshakes > busiest->n_handshakes)
				busiest = s;
	return busiest && busiest->n_handshakes ? busiest : NULL;
}
