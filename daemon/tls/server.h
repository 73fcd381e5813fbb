/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main thread: negotiators' channels, the newest keys, and who works on what.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "base/clock.h"
#include "base/failure.h"
#include "base/refusal-log.h"
#include "tls/credentials.h"
#include "tls/worker.h"

#define SERVER_MAX_WORKERS 4u
#define SERVER_MAX_LINKS 16u
#define SERVER_LAST_WORDS 60000u        /* milliseconds */

/* A client whose handshake goes on. */
struct handshake {
	TAILQ_ENTRY(handshake) next;
	uint32_t request;
	uint64_t session;
	struct worker *worker;
	bool cancelled;                 /* nobody wants to hear of it */
};

/* One negotiator; there is more than one only while one of them ends. */
struct link {
	TAILQ_ENTRY(link) next;
	struct server *server;
	uint64_t number;
	int fd;
	bool may_connect;               /* root's, or our own user's: CONNECT is for who attaches */
	sd_event_source *source;
	TAILQ_HEAD(, handshake) handshakes;
	struct letters unsent;          /* struct news */
	unsigned n_unsent;
};

struct server_figures {
	unsigned n_sessions;
	unsigned n_handshakes;
	bool keys_kept;                 /* newer ones could not be read */
};

struct server {
	sd_event *event;
	struct credentials_folder folder;
	struct credentials_folder renewed;      /* .fd -1 without one */
	bool readable;                  /* still, inside the sandbox */
	struct credentials *credentials;        /* the newest */

	int listener;
	sd_event_source *accepting;
	TAILQ_HEAD(, link) links;
	unsigned n_links;
	uint64_t last_link;
	uint64_t last_session;

	struct worker workers[SERVER_MAX_WORKERS];
	unsigned n_workers;
	unsigned max_sessions;          /* for which there are descriptors */
	unsigned last_words;            /* milliseconds; see struct worker */
	struct mailbox news;
	bool has_news;                  /* the mailbox has been made */
	sd_event_source *hearing;

	struct refusal_log refusals;
	struct server_figures figures, told;
	sd_event_source *expiring;
};

int server_open(struct server *server, struct failure *why);
int server_start_workers(struct server *server, struct failure *why);
int server_listen(struct server *server, struct failure *why);
void server_close(struct server *server);

/* Reads keys: the first ones, or newer ones, and then tells the negotiators. */
int server_read_keys(struct server *server, struct failure *why);
int server_reload(struct server *server, struct failure *why);

/* status.c */
int server_watch_status(struct server *server, struct failure *why);
void server_tell_ready(struct server *server);

/* expiry.c: from the first look on it is looked again each day. */
int server_watch_expiry(struct server *server, struct failure *why);
void server_look_at_expiry(struct server *server);

/* link.c */
int link_new(struct server *server, int fd, struct failure *why);
void link_free(struct link *link);
void link_say_hello(struct link *link);
/* Takes the news over. */
void link_tell(struct link *link, struct news *news);

/* starting.c: a START of a negotiator, or a CONNECT.  Takes `fd` over.  NULL, or how it breaks the
 * protocol. */
const char *start_session(struct link *link, const struct tls_start *start, struct span host,
                          int fd);

/* A refusal, if the log may list one more of that source. */
void server_log_refusal(struct server *server, const char *peer, enum reason reason,
                        const char *sentence);

void news_free(struct news *news);
