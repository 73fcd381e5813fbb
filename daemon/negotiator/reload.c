/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files: at the start, and again while clients are here.
 *
 * A client goes on with the catalogue that it has until its next option.  Links to exports
 * that stay are taken over, so nothing is connected again; a bad file changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#include "base/log.h"
#include "negotiator/export-link.h"
#include "negotiator/server.h"

static int read_settings(const struct server *server, struct negotiator_settings *ret,
                         struct failure *why)
{
	const struct server_files *files = &server->files;
	int r = -ENOENT;

	if (files->config)
		r = negotiator_settings_read(files->config, ret, why);
	if (r == -ENOENT) {
		*why = (struct failure) { 0 };
		r = negotiator_settings_default(ret, why);
	}
	if (r < 0)
		return r;
	if (files->start_timeout)
		ret->start_timeout = files->start_timeout;
	if (files->handshake_timeout)
		ret->handshake_timeout = files->handshake_timeout;
	return 0;
}

/* Gives each export of the new catalogue its link. */
static int link_all(struct server *server, struct catalogue *c, struct failure *why)
{
	uint64_t start = server->settings.start_timeout * USEC_PER_SEC;

	for (size_t i = 0; i < c->n; i++) {
		struct catalogue_entry *entry = &c->entries[i], *old = NULL;

		if (server->catalogue)
			old = catalogue_find_label(server->catalogue, entry->label);
		if (old && export_link_rename(old->link, entry->name) == 0)
			entry->link = export_link_ref(old->link);
		else
			entry->link = export_link_new(server->event, entry->label, entry->name,
			                              start, &server->sources, why);
		if (!entry->link)
			return -why->code;
		entry->link->start_timeout = start;
	}
	return 0;
}

static int read_catalogue(struct server *server, struct failure *why)
{
	struct catalogue *c;
	int r = catalogue_read(server->files.exports, server->settings.allow, server->catalogue,
	                       &c, why);

	if (r < 0)
		return r;
	r = link_all(server, c, why);
	if (r < 0) {
		catalogue_unref(c);
		return r;
	}
	catalogue_unref(server->catalogue);
	server->catalogue = c;
	return 0;
}

int server_read_files(struct server *server, struct failure *why)
{
	struct negotiator_settings old = server->settings, new;
	int r = read_settings(server, &new, why);

	if (r < 0)
		return r;
	server->settings = new;
	r = read_catalogue(server, why);
	if (r < 0) {
		server->settings = old;
		negotiator_settings_clear(&new);
		return r;
	}
	negotiator_settings_clear(&old);
	return 0;
}

/* A bad negotiator.conf does not keep the exports' files from being read. */
static int read_again(struct server *server, struct failure *why)
{
	struct failure ignored = { 0 };
	int r;

	if (!server->files.readable)
		return fail_plain(why, EPERM, "this kernel has no Landlock, so the sandbox lets "
		                  "nothing be read; restart nbd-negotiator instead, clients that "
		                  "are being served stay");
	r = server_read_files(server, why);
	if (r < 0)
		(void) read_catalogue(server, &ignored);
	return r;
}

int server_reload(struct server *server, struct failure *why)
{
	struct timespec now;
	int r;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	(void) sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
	                  (uint64_t) now.tv_sec * USEC_PER_SEC + (uint64_t) now.tv_nsec / 1000);
	r = read_again(server, why);
	if (r < 0)
		log_event(EVENT_SETTINGS_KEPT, NULL, "%s; what was read before stays in force",
		          why->text);
	else
		log_event(EVENT_SETTINGS_RELOADED, NULL, "settings were read again: %zu export%s",
		          server->catalogue->n, server->catalogue->n == 1 ? "" : "s");
	server_tell_ready(server);
	return r;
}
