/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files: at the start, and again while clients are here.
 *
 * A client goes on with the catalogue that it has until its next option.  Links to exports
 * that stay are taken over, so nothing is connected again; a bad file changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
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
	if (files->tls)
		ret->tls = files->tls;
	if (files->client_certificate)
		ret->client_certificate = files->client_certificate;
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
		entry->link->failed_until = 0;  /* what kept it from starting may be mended */
	}
	return 0;
}

static int read_catalogue(struct server *server, struct failure *why)
{
	struct catalogue *c;
	int r = catalogue_read(server->files.exports, &server->settings, server->catalogue,
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
	server->tls.start_timeout = new.start_timeout * USEC_PER_SEC;
	negotiator_settings_clear(&old);
	return 0;
}

/* A bad negotiator.conf does not keep the exports' files from being read. */
static int read_again(struct server *server, struct failure *why)
{
	struct failure ignored = { 0 };
	int r;

	r = server_read_files(server, why);
	if (r < 0)
		(void) read_catalogue(server, &ignored);
	return r;
}

/* The sandbox knows the folders that were there at the start, not those that have been put in their
 * place or mounted there since.  What our user may not read is another matter. */
static bool sandbox_hides(const char *path)
{
	AUTO_FD fd = -1;

	if (!path || access(path, R_OK) < 0)
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0 && errno == EACCES;
}

/* Its sockets stay with the service manager, and clients that are being served with the exports. */
static int start_anew(struct server *server, const char *cause)
{
	log_notice("%s: the negotiator ends, to read its settings when it is started again; clients "
	           "that are being served stay", cause);
	server->files.wanted_anew = true;
	notify("STOPPING=1");
	return sd_event_exit(server->event, 0);
}

int server_reload(struct server *server, struct failure *why)
{
	int r;

	if (!server->files.readable)
		return start_anew(server, "this kernel has no Landlock, so the sandbox lets nothing "
		                  "be read");
	if (sandbox_hides(server->files.exports) || sandbox_hides(server->files.config))
		return start_anew(server, "the files of settings are in another place than at the "
		                  "start, which the sandbox does not let through");
	notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, monotonic_us());
	r = read_again(server, why);
	server->settings_kept = r < 0;
	if (r < 0)
		log_event(EVENT_SETTINGS_KEPT, NULL, "%s; what was read before stays in force",
		          why->text);
	else
		log_event(EVENT_SETTINGS_RELOADED, NULL, "settings were read again: %zu export%s",
		          server->catalogue->n, server->catalogue->n == 1 ? "" : "s");
	server_tell_ready(server);
	return r;
}
