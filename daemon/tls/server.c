/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Accepts negotiators, passes on what workers tell, and changes keys.
 */
#include "tls/server.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "base/notify.h"

static struct link *find_link(const struct server *server, uint64_t number)
{
	struct link *link;

	TAILQ_FOREACH(link, &server->links, next)
		if (link->number == number)
			return link;
	return NULL;
}

/* Takes the handshake that this ends off its link.  Whether anybody waits for it. */
static bool end_handshake(struct link *link, uint64_t session)
{
	struct handshake *h;
	bool wanted;

	if (!link)
		return false;
	TAILQ_FOREACH(h, &link->handshakes, next)
		if (h->session == session)
			break;
	if (!h)
		return false;
	wanted = !h->cancelled;
	TAILQ_REMOVE(&link->handshakes, h, next);
	free(h);
	return wanted;
}

void server_log_refusal(struct server *server, const char *peer, enum reason reason,
                        const char *sentence)
{
	const struct subject about = { .client = peer, .reason = reason_word(reason),
	                               .event = EVENT_TLS_REFUSED };
	struct peer who, source;

	peer_parse(span_of(peer), &who);
	peer_source(&who, &source);
	log_about(refusal_log_may_list(&server->refusals, &source) ? LOG_NOTICE : LOG_DEBUG,
	          &about, "%s", sentence);
}

static void log_news(struct server *server, const struct news *news, bool wanted)
{
	const struct subject about = { .client = news->peer, .reason = reason_word(news->reason) };

	if (news->kind == NEWS_ENDED)
		log_event(EVENT_TLS_ENDED, &about, "%s", news->sentence);
	else if (wanted && news->kind == NEWS_FAILED)
		server_log_refusal(server, news->peer, news->reason, news->sentence);
	else if (wanted)
		log_event(EVENT_TLS_ESTABLISHED, &(struct subject) { .client = news->peer }, "%s",
		          news->sentence);
}

static void hear(struct server *server, struct news *news)
{
	struct link *link = find_link(server, news->link);
	bool wanted = link;

	if (news->kind == NEWS_ENDED) {
		server->figures.n_sessions--;
	} else {
		server->figures.n_handshakes--;
		server->figures.n_sessions += news->kind == NEWS_ESTABLISHED;
		wanted = end_handshake(link, news->session);
	}
	log_news(server, news, wanted);
	if (wanted)
		link_tell(link, news);
	else
		news_free(news);                /* with the plain end, which ends the session */
}

static int on_news(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct server *server = userdata;
	struct letters letters;

	(void) source;
	(void) fd;
	(void) events;
	mailbox_collect(&server->news, &letters);
	while (!STAILQ_EMPTY(&letters)) {
		struct letter *first = STAILQ_FIRST(&letters);

		STAILQ_REMOVE_HEAD(&letters, next);
		hear(server, container_of(first, struct news, letter));
	}
	return 0;
}

static int on_listener(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct server *server = userdata;
	AUTO_FD link = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct failure why = { 0 };

	(void) source;
	(void) events;
	if (link < 0)
		return 0;
	if (server->n_links >= SERVER_MAX_LINKS) {
		log_event(EVENT_CHANNEL_VIOLATION, NULL, "there are %u negotiators already: "
		          "another one is turned away", server->n_links);
		return 0;
	}
	if (link_new(server, link, &why) < 0)
		log_error("%s", why.text);
	else
		(void) take_fd(&link);
	return 0;
}

int server_open(struct server *server, struct failure *why)
{
	int r;

	TAILQ_INIT(&server->links);
	r = mailbox_init(&server->news, why);
	if (r < 0)
		return r;
	server->has_news = true;
	r = sd_event_add_io(server->event, &server->hearing, server->news.fd, EPOLLIN, on_news,
	                    server);
	return r < 0 ? fail(why, -r, "cannot prepare the event loop") : 0;
}

int server_start_workers(struct server *server, struct failure *why)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	n = n < 1 ? 1 : n > (long) SERVER_MAX_WORKERS ? (long) SERVER_MAX_WORKERS : n;
	while (server->n_workers < (unsigned) n) {
		struct worker *worker = &server->workers[server->n_workers++];
		int r = worker_init(worker, &server->news, server->last_words, why);

		if (r == 0)
			r = worker_start(worker, why);
		if (r < 0)
			return r;
	}
	return 0;
}

int server_listen(struct server *server, struct failure *why)
{
	int r = sd_event_add_io(server->event, &server->accepting, server->listener, EPOLLIN,
	                        on_listener, server);

	return r < 0 ? fail(why, -r, "cannot watch the listening socket") : 0;
}

void server_close(struct server *server)
{
	struct letters letters;
	struct link *link;

	server->accepting = sd_event_source_disable_unref(server->accepting);
	while ((link = TAILQ_FIRST(&server->links)))
		link_free(link);                /* gives workers their last orders */
	for (unsigned i = 0; i < server->n_workers; i++)
		worker_stop(&server->workers[i]);
	server->hearing = sd_event_source_disable_unref(server->hearing);
	refusal_log_end(&server->refusals);
	server->expiring = sd_event_source_disable_unref(server->expiring);
	mailbox_collect(&server->news, &letters);
	while (!STAILQ_EMPTY(&letters)) {
		struct letter *first = STAILQ_FIRST(&letters);

		STAILQ_REMOVE_HEAD(&letters, next);
		news_free(container_of(first, struct news, letter));
	}
	mailbox_clear(&server->news);
}

int server_read_keys(struct server *server, struct failure *why)
{
	struct credentials *c;
	bool is_reload = server->credentials;
	int r = credentials_read(credentials_folder_has_files(&server->renewed) ?
	                         &server->renewed : &server->folder, is_reload, &c, why);

	if (r < 0)
		return r;
	credentials_unref(server->credentials);
	server->credentials = c;
	return 0;
}

static int read_again(struct server *server, struct failure *why)
{
	int r;

	if (!server->readable)
		return fail_plain(why, EPERM, "this kernel has no Landlock, so the sandbox lets "
		                  "nothing be read: only a restart of nbd-tls, which ends its "
		                  "clients, reads keys anew");
	r = server_read_keys(server, why);
	if (r == -EACCES)
		return fail_while(why, "keys must lie in the folder that was there at the start, "
		                  "and be no links to others");
	return r;
}

int server_reload(struct server *server, struct failure *why)
{
	struct link *link;
	char keys[96];
	struct timespec now;
	int r;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
	       (uint64_t) now.tv_sec * USEC_PER_SEC + (uint64_t) now.tv_nsec / 1000);
	r = read_again(server, why);
	server->figures.keys_kept = r < 0;
	credentials_describe(server->credentials, keys, sizeof keys);
	if (r < 0) {
		log_event(EVENT_TLS_KEYS_KEPT, NULL, "%s; the keys that were read before stay in "
		          "use (%s)", why->text, keys);
	} else {
		log_event(EVENT_TLS_KEYS_READ, NULL, "keys were read again: %s; sessions go on "
		          "with theirs", keys);
		server_look_at_expiry(server);
		TAILQ_FOREACH(link, &server->links, next)
			link_say_hello(link);
	}
	server_tell_ready(server);
	return r;
}
