/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Places of one export. */
#include "negotiator/live.h"

#include <stdlib.h>

#include "base/attr.h"

static struct place *place_at(struct list *node)
{
	return container_of(node, struct place, node);
}

void places_init(struct places *places, struct sources *sources)
{
	*places = (struct places) { .sources = sources };
	list_init(&places->list);
}

struct place *place_take(struct places *places, const struct peer *peer)
{
	struct place *place;

	if (places->n >= PLACES_MAX)
		return NULL;
	place = calloc(1, sizeof *place);
	if (!place)
		return NULL;
	place->source = sources_get(places->sources, peer);
	if (!place->source) {
		free(place);
		return NULL;
	}
	place->places = places;
	list_append(&places->list, &place->node);
	places->n++;
	place->source->n_live++;
	places->sources->n_live++;
	return place;
}

void place_free(struct place *place)
{
	struct sources *sources;

	if (!place)
		return;
	sources = place->places->sources;
	list_remove(&place->node);
	place->places->n--;
	place->source->n_live--;
	sources->n_live--;
	sources_put(sources, place->source);
	free(place);
}

struct place *places_find(struct places *places, uint64_t connection)
{
	for (struct list *at = places->list.next; at != &places->list; at = at->next)
		if (connection && place_at(at)->connection == connection)
			return place_at(at);
	return NULL;
}

struct place *places_find_request(struct places *places, uint32_t request)
{
	for (struct list *at = places->list.next; at != &places->list; at = at->next)
		if (place_at(at)->connection && place_at(at)->request == request)
			return place_at(at);
	return NULL;
}

unsigned places_of(const struct places *places, const struct source *source)
{
	unsigned n = 0;

	for (struct list *at = places->list.next; at != &places->list; at = at->next)
		n += place_at(at)->source == source;
	return n;
}

void places_forget(struct places *places)
{
	struct list *at = places->list.next;

	while (at != &places->list) {
		struct place *place = place_at(at);

		at = at->next;
		if (place->connection)
			place_free(place);
	}
}
