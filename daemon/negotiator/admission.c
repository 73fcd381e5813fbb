/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may begin a handshake.  One source has only so many, and when all places are taken the
 * source with the most of them gives up its oldest: who keeps many connections idle harms
 * only itself.  Whoever is turned away is told of in the log, at most once a second for each
 * source.
 */
#include <inttypes.h>
#include <time.h>

#include "base/log.h"
#include "negotiator/client-socket.h"
#include "negotiator/client.h"
#include "negotiator/server.h"

#define DESCRIPTORS_OF_OURS 144u        /* standard ones, timers, control, files being read */
#define LOG_EVERY_USEC USEC_PER_SEC

unsigned server_max_handshakes(const struct server *server)
{
	size_t used = server->n_listeners + server->catalogue->n + DESCRIPTORS_OF_OURS;
	unsigned wanted = server->settings.max_handshakes;

	if (server->most_descriptors >= used + wanted)
		return wanted;
	return server->most_descriptors > used ? (unsigned) (server->most_descriptors - used) : 1;
}

/* True when it may be told again. */
static bool is_time_to_tell(const struct server *server, uint64_t *next_log)
{
	uint64_t now = 0;

	(void) sd_event_now(server->event, CLOCK_MONOTONIC, &now);
	if (now < *next_log)
		return false;
	*next_log = now + LOG_EVERY_USEC;
	return true;
}

static struct subject limit_event(const char *who)
{
	return (struct subject) { .client = who, .reason = reason_word(REASON_LIMIT),
	                          .event = EVENT_HANDSHAKE_LIMIT };
}

/* Told for all of them, or for one source. */
static void tell_refused(struct server *server)
{
	const struct subject about = limit_event(NULL);

	server->n_refused++;
	server->refused_since++;
	if (!is_time_to_tell(server, &server->next_log))
		return;
	log_about(LOG_WARNING, &about, "%u clients are in the handshake, which is the limit: "
	          "%" PRIu64 " more turned away", server->n_clients, server->refused_since);
	server->refused_since = 0;
}

static void tell_refused_source(struct server *server, struct source *source)
{
	char who[PEER_SOURCE_TEXT_SIZE];
	const struct subject about = limit_event(who);

	server->n_refused++;
	source->refused_since++;
	if (!is_time_to_tell(server, &source->next_log))
		return;
	peer_format_source(&source->who, who, sizeof who);
	log_about(LOG_WARNING, &about, "%u clients from there are in the handshake, which is the "
	          "limit for one source: %" PRIu64 " more turned away", source->n_handshakes,
	          source->refused_since);
	source->refused_since = 0;
}

/* The oldest that has not been promised a place at its export. */
static struct client *oldest_of(const struct source *source)
{
	for (struct list *at = source->handshakes.next; at != &source->handshakes; at = at->next) {
		struct client *client = container_of(at, struct client, of_source);

		if (!client->reservation.token)
			return client;
	}
	return NULL;
}

/* Makes room for one more from `source`, if others have more than it.  False: there is none. */
static bool make_room(struct server *server, const struct source *source)
{
	struct source *busiest = sources_busiest(&server->sources);
	struct client *victim;

	if (!busiest || busiest->n_handshakes <= source->n_handshakes + 1)
		return false;
	victim = oldest_of(busiest);
	if (!victim)
		return false;
	server->n_refused++;
	client_evict(victim, is_time_to_tell(server, &busiest->next_log) ? LOG_NOTICE : LOG_DEBUG);
	return true;
}

static bool may_begin(struct server *server, struct source *source)
{
	if (source->n_handshakes >= server->settings.max_handshakes_per_source) {
		tell_refused_source(server, source);
		return false;
	}
	if (server->n_clients >= server_max_handshakes(server) && !make_room(server, source)) {
		tell_refused(server);
		return false;
	}
	return true;
}

void server_admit(struct server *server, int socket)
{
	AUTO_FD fd = socket;
	struct source *source;
	struct peer peer;

	peer_of(fd, &peer);
	source = sources_get(&server->sources, &peer);
	if (!source) {
		log_error("no memory for a new client: closing it");
		return;
	}
	if (!may_begin(server, source)) {
		sources_put(&server->sources, source);
		return;
	}
	client_socket_prepare(fd, server->big_buffers);
	client_start(server, take_fd(&fd), source);
}
