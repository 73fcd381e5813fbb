/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "export/reload.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"
#include "export/look.h"
#include "export/server.h"

static bool text_differs(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") != 0;
}

void reload_name_fixed(const struct export_settings *old, const struct export_settings *new,
                       char *ret, size_t size)
{
	const struct {
		const char *key;
		bool differs;
	} keys[] = {
		{ "Device=", text_differs(old->device, new->device) },
		{ "ReadOnly=", old->read_only != new->read_only },
		{ "Direct=", old->direct != new->direct },
		{ "Shared=", old->shared != new->shared },
		{ "Memory=", export_settings_memory(old) != export_settings_memory(new) &&
		             (old->memory != new->memory || old->threads == new->threads) },
		{ "Threads=", old->threads != new->threads },
		{ "Engine=", old->engine != new->engine },
		{ "Bitmap=", text_differs(old->bitmaps, new->bitmaps) },
		{ "BitmapStore=", text_differs(old->bitmap_store, new->bitmap_store) },
		{ "BitmapGranularity=", old->bitmap_granularity != new->bitmap_granularity },
		{ "BitmapRegion=", old->bitmap_region != new->bitmap_region },
		{ "BitmapArmLimit=", old->bitmap_arm_limit != new->bitmap_arm_limit },
		{ "BitmapCold=", old->bitmap_cold != new->bitmap_cold },
		{ "OnBitmapError=", old->on_bitmap_error != new->on_bitmap_error },
	};

	*ret = '\0';
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		size_t len = strlen(ret);

		if (keys[i].differs)
			(void) snprintf(ret + len, size - len, "%s%s", len ? ", " : "", keys[i].key);
	}
}

/* The service manager counts a reload from here to READY=1. */
static void tell_begin(void)
{
	notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, monotonic_us());
}

/* `why` is NULL when the settings were taken over. */
static void finish(struct server *server, const struct failure *why)
{
	struct reload *reload = &server->reload;
	bool again = reload->again;

	if (why)
		log_event(EVENT_SETTINGS_KEPT, NULL, "the settings stay as they were: %s", why->text);
	export_settings_clear(&reload->wanted);
	reload->runs = reload->again = false;
	reload->kept = why != NULL;
	pulse_report(server, "READY=1\n");
	control_tell_reloaded(&server->control, why);
	if (again)
		reload_begin(server);
}

static void swap(char **a, char **b)
{
	char *was = *a;

	*a = *b;
	*b = was;
}

static void apply(struct server *server)
{
	struct export_settings *now = server->settings, *wanted = &server->reload.wanted;
	uint32_t timeout = now->idle_timeout;
	char fixed[256];

	reload_name_fixed(now, wanted, fixed, sizeof fixed);
	if (*fixed)
		log_event(EVENT_SETTINGS_NEED_RESTART, NULL, "changed in the file, but in force only after "
		          "a restart: %s", fixed);
	now->max_connections = wanted->max_connections;
	now->single_writer = wanted->single_writer;
	now->idle_timeout = wanted->idle_timeout;
	now->resize_reconnect = wanted->resize_reconnect;
	swap(&now->description, &wanted->description);
	swap(&now->name, &wanted->name);
	log_event(EVENT_SETTINGS_RELOADED, NULL, "settings were read again: MaxConnections=%" PRIu32
	          ", IdleTimeout=%" PRIu32, now->max_connections, now->idle_timeout);
	if (now->idle_timeout != timeout)       /* a new time starts from now */
		server->idle = sd_event_source_disable_unref(server->idle);
	server_look_idle(server);
	(void) export_look(&server->export);
	admit_offer_again(&server->admission);
	finish(server, NULL);
}

/* The main thread. */
static void on_grown(struct letter *letter)
{
	struct growth *growth = container_of(letter, struct growth, letter);
	struct server *server = growth->server;
	struct reload *reload = &server->reload;
	struct failure why = { 0 };

	if (growth->result == 0)
		growth->loop->n_clients += growth->n;
	else
		reload->result = growth->result;
	if (--reload->n_out)
		return;
	if (reload->result == 0) {
		apply(server);
		return;
	}
	(void) fail(&why, -reload->result, "no memory for %" PRIu32 " connections (MaxConnections=)",
	            reload->wanted.max_connections);
	finish(server, &why);
}

/* The loop's thread. */
static void grow(struct letter *letter)
{
	struct growth *growth = container_of(letter, struct growth, letter);

	growth->result = loop_grow(growth->loop, growth->n);
	letter->open = on_grown;
	mailbox_post(&growth->server->export.mail, letter);
}

/* Each loop that has too little room for its part of the clients is sent a letter. */
static int begin_growth(struct server *server, unsigned clients_each, struct failure *why)
{
	struct reload *reload = &server->reload;
	struct export *export = &server->export;

	if (!reload->growths)
		reload->growths = calloc(export->n_loops, sizeof *reload->growths);
	if (!reload->growths)
		return fail(why, ENOMEM, "cannot make room for more connections");
	reload->result = 0;
	for (unsigned i = 0; i < export->n_loops; i++) {
		struct loop *loop = &export->loops[i];
		struct growth *growth = &reload->growths[i];

		if (clients_each <= loop->n_clients)
			continue;
		*growth = (struct growth) { { .open = grow }, server, loop,
		                            clients_each - loop->n_clients, 0 };
		reload->n_out++;
		mailbox_post(&loop->ring.mail, &growth->letter);
	}
	return 0;
}

static int begin(struct server *server, struct failure *why)
{
	struct export_settings *wanted = &server->reload.wanted;
	unsigned n = server->export.n_loops;
	unsigned each;
	int r;

	r = server_read_settings(server->options, server->settings->label, wanted, why);
	if (r < 0)
		return r;
	each = (wanted->max_connections + wanted->threads - 1) / wanted->threads;
	r = memory_suffices(export_settings_memory(wanted) / wanted->threads, each,
	                    server->export.device.sector, why);
	if (r < 0)
		return r;
	each = (wanted->max_connections + n - 1) / n;
	return begin_growth(server, each, why);
}

void reload_begin(struct server *server)
{
	struct reload *reload = &server->reload;
	struct failure why = { 0 };

	if (server->leaving)
		return;
	if (reload->runs) {
		reload->again = true;
		return;
	}
	reload->runs = true;
	tell_begin();
	if (begin(server, &why) < 0)
		finish(server, &why);
	else if (reload->n_out == 0)
		apply(server);
}

void reload_clear(struct reload *reload)
{
	free(reload->growths);
	export_settings_clear(&reload->wanted);
	*reload = (struct reload) { 0 };
}
