/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attaches with patience, and hands the kernel new connections.  The kernel tells of each
 * connection that dies, once; how many are dead is counted here.  A keeper that did not hear it
 * all makes as many as there are: the kernel lets go of those for which it has no use, and they
 * are closed.
 */
#include "attach/keeper.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <systemd/sd-device.h>

#include "attach/backoff.h"
#include "attach/relied.h"
#include "attach/watch-note.h"
#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/notify.h"

struct keeper {
	sd_event *event;
	const struct attach_wishes *wishes;
	int cancel_fd;
	struct nbd_driver driver;       /* to ask */
	struct nbd_driver ears;         /* to hear of dead links */
	sd_event_source *hearing, *again;
	sd_device_monitor *monitor;
	int note_fd;
	struct backoff backoff;
	struct held_sockets sockets;
	struct attached device;
	uint32_t dead;                  /* connections, of device.connections; at most */
	bool counted;                   /* and no fewer: all that died were heard */
	uint32_t restored;              /* since that was told */
	bool gone;                      /* the kernel takes no sockets for it any more */
	char backend[ATTACH_IDENTITY_MAX];
	struct failure last;            /* why it could not reconnect, as it was logged */
};

static void tell(struct keeper *k)
{
	struct watch_note note = { .live = k->device.connections - k->dead };

	(void) snprintf(note.sentence, sizeof note.sentence, "%s", k->dead ? k->last.text : "");
	watch_note_write(k->note_fd, &note);
	if (k->dead)
		notify("STATUS=/dev/nbd%d: %u of %u connections to %.200s%s%.400s\n",
		       k->device.index, note.live, k->device.connections, k->wishes->uri.text,
		       *note.sentence ? ": " : "", note.sentence);
	else
		notify("STATUS=/dev/nbd%d: %u connection%s to %.200s\n", k->device.index,
		       k->device.connections, k->device.connections == 1 ? "" : "s",
		       k->wishes->uri.text);
}

/* A server that stays away is told of once, and again when the reason is another. */
static void log_once(struct keeper *k, const struct failure *why)
{
	if (strcmp(k->last.text, why->text) != 0)
		log_warning("cannot connect, trying again: %s", why->text);
	k->last = *why;
}

static struct client_limits limits_of(const struct keeper *k)
{
	return (struct client_limits) { .deadline = monotonic_us() + ATTACH_PATIENCE,
	                                .cancel_fd = k->cancel_fd };
}

/* --- reconnecting ------------------------------------------------------------------------ */

/* Whether the kernel may go on with what the server now has. */
static int check_same(const struct keeper *k, const struct export_facts *now, struct failure *why)
{
	const struct relied relied = { .size = k->device.size, .flags = k->device.flags,
	                               .connections = k->device.connections };

	return relied_check(&relied, SYS_BLOCK, k->device.index, now, why);
}

/* The kernel gives a socket that it uses a deadline for sending, where requests have one. */
enum taken { TAKEN, LET_GO, NOT_KNOWN };

static enum taken was_taken(const struct keeper *k, int fd)
{
	struct timeval deadline = { 0 };
	socklen_t len = sizeof deadline;

	if (getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &deadline, &len) < 0)
		return NOT_KNOWN;
	if (deadline.tv_sec || deadline.tv_usec)
		return TAKEN;
	return k->wishes->timeout ? LET_GO : NOT_KNOWN;
}

/* The device has what all its connections have; older ones than ours may have less. */
static void grow(struct keeper *k)
{
	struct failure why = { 0 };
	uint64_t size;

	if (!held_sockets_least(&k->sockets, k->device.connections, &size) ||
	    size <= k->device.size)
		return;
	if (nbd_driver_reconfigure(&k->driver, k->device.index, size, NULL, 0,
	                           *k->backend ? k->backend : NULL, &why) < 0) {
		log_warning("/dev/nbd%d does not grow: %s", k->device.index, why.text);
		return;
	}
	log_notice("/dev/nbd%d has grown to %llu bytes", k->device.index,
	           (unsigned long long) size);
	k->device.size = size;
}

/* One connection to the kernel, if it has use for it. */
static int replace_one(struct keeper *k, struct failure *why)
{
	const struct client_limits limits = limits_of(k);
	struct export_facts facts;
	AUTO_FD fd = -1;
	enum taken taken;
	int r;

	(void) held_sockets_abort_dead(&k->sockets);
	r = client_connect(&k->wishes->uri, &limits, &fd, &facts, why);
	if (r == 0)
		r = check_same(k, &facts, why);
	if (r < 0)
		return r;
	(void) held_sockets_abort_dead(&k->sockets);    /* before this acknowledges anything */
	r = nbd_driver_reconfigure(&k->driver, k->device.index, 0, &fd, 1,
	                           *k->backend ? k->backend : NULL, why);
	k->gone = r == -EINVAL;
	if (r < 0)
		return r;
	k->dead--;
	taken = was_taken(k, fd);
	if (taken == LET_GO)
		return 0;
	k->restored++;
	held_sockets_add(&k->sockets, take_fd(&fd), taken == TAKEN || k->counted
	                 ? facts.size / 512 * 512 : k->device.size);
	grow(k);
	return 0;
}

static bool is_detached(const struct keeper *k)
{
	struct nbd_state now;

	return !nbd_state_read(SYS_BLOCK, k->device.index, &now) || !now.connected ||
	       now.size == 0 || strcmp(now.backend, k->backend) != 0;
}

static void end_if_detached(struct keeper *k)
{
	if (!is_detached(k))
		return;
	log_event(EVENT_DEVICE_DETACHED, NULL, "/dev/nbd%d was detached by somebody else",
	          k->device.index);
	(void) sd_event_exit(k->event, 0);
}

/* sysfs shows it as connected as long as somebody has it open. */
static int end_as_gone(struct keeper *k, const struct failure *why)
{
	log_event(EVENT_DEVICE_DETACHED, NULL, "/dev/nbd%d was detached by somebody else, while "
	          "it was open: %s", k->device.index, why->text);
	return sd_event_exit(k->event, 0);
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata);

static void try_later(struct keeper *k, uint64_t after)
{
	int r;

	k->again = sd_event_source_unref(k->again);
	r = sd_event_add_time_relative(k->event, &k->again, CLOCK_MONOTONIC, after, 0, on_again, k);
	if (r < 0) {
		log_error("cannot wait before connecting again: %s", strerror(-r));
		(void) sd_event_exit(k->event, EXIT_FAILURE);
	}
}

static void say_restored(struct keeper *k)
{
	if (k->restored > 0)
		log_event(EVENT_LINK_RESTORED, NULL, "/dev/nbd%d has %u of %u connections again",
		          k->device.index, k->device.connections - k->dead, k->device.connections);
	k->restored = 0;
}

/* One of those that are dead, and then the next; what fails is tried again later. */
static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct keeper *k = userdata;
	struct failure why = { 0 };
	int r = k->dead > 0 ? replace_one(k, &why) : 0;

	(void) source, (void) usec;
	if (r == -ECANCELED)
		return 0;
	if (k->gone)
		return end_as_gone(k, &why);
	if (r < 0) {
		say_restored(k);
		log_once(k, &why);
		try_later(k, backoff_after_failure(&k->backoff));
		end_if_detached(k);
	} else if (k->dead > 0) {
		try_later(k, 0);
	} else {
		say_restored(k);
		k->last = (struct failure) { 0 };
		k->counted = true;
		backoff_after_success(&k->backoff, monotonic_us());
	}
	tell(k);
	return 0;
}

static int on_dead_link(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct keeper *k = userdata;
	struct failure why = { 0 };
	bool concerned = false;
	int index, r;

	(void) source, (void) fd, (void) events;
	while ((r = nbd_driver_next_dead_link(&k->ears, &index, &why)) > 0) {
		if (index == NBD_INDEX_ANY) {
			k->dead = k->device.connections;
			k->counted = false;
		} else if (index == k->device.index && k->dead < k->device.connections) {
			k->dead++;
		}
		concerned = concerned || index == NBD_INDEX_ANY || index == k->device.index;
	}
	if (r < 0) {
		log_error("%s", why.text);
		return sd_event_exit(k->event, EXIT_FAILURE);
	}
	if (!concerned)
		return 0;
	(void) held_sockets_abort_dead(&k->sockets);
	log_event(EVENT_LINK_LOST, NULL, "/dev/nbd%d lost a connection to %.200s: %u of %u are "
	          "left", k->device.index, k->wishes->uri.text, k->device.connections - k->dead,
	          k->device.connections);
	if (!k->last.code)              /* else it waits for its turn */
		try_later(k, backoff_after_loss(&k->backoff, monotonic_us()));
	tell(k);
	return 0;
}

/* --- the device -------------------------------------------------------------------------- */

static int on_device(sd_device_monitor *monitor, sd_device *device, void *userdata)
{
	struct keeper *k = userdata;
	char wanted[16];
	const char *name;

	(void) monitor;
	(void) snprintf(wanted, sizeof wanted, "nbd%d", k->device.index);
	if (sd_device_get_sysname(device, &name) >= 0 && strcmp(name, wanted) == 0)
		end_if_detached(k);
	return 0;
}

static int watch_device(struct keeper *k)
{
	int r = sd_device_monitor_new(&k->monitor);

	if (r >= 0)
		r = sd_device_monitor_filter_add_match_subsystem_devtype(k->monitor, "block",
		                                                         "disk");
	if (r >= 0)
		r = sd_device_monitor_attach_event(k->monitor, k->event);
	if (r >= 0)
		r = sd_device_monitor_start(k->monitor, on_device, k);
	if (r >= 0)
		r = sd_event_add_io(k->event, &k->hearing, k->ears.link.fd, EPOLLIN, on_dead_link,
		                    k);
	return r;
}

int keeper_new(sd_event *event, const struct attach_wishes *wishes, int cancel_fd,
               struct keeper **ret, struct failure *why)
{
	struct keeper *k = calloc(1, sizeof *k);
	int r;

	if (!k)
		return fail(why, ENOMEM, "cannot start");
	k->event = event;
	k->wishes = wishes;
	k->cancel_fd = cancel_fd;
	k->note_fd = -1;
	held_sockets_init(&k->sockets, event);
	r = attach_open_driver(wishes->load_module, &k->driver, why);
	if (r == 0)
		r = attach_open_driver(false, &k->ears, why);
	if (r == 0)
		r = nbd_driver_watch(&k->ears, why);    /* before there is anything to hear */
	if (r < 0) {
		keeper_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

void keeper_free(struct keeper *k)
{
	if (!k)
		return;
	held_sockets_close(&k->sockets);
	watch_note_close(k->device.index, &k->note_fd);
	sd_event_source_unref(k->hearing);
	sd_event_source_unref(k->again);
	sd_device_monitor_unref(k->monitor);
	nbd_driver_close(&k->ears);
	nbd_driver_close(&k->driver);
	free(k);
}

/* What no waiting mends: settings, the machine, a device that is another's. */
static bool is_for_people(int code)
{
	static const int codes[] = { EINVAL, EEXIST, EPERM, ENODEV, EBUSY, EPROTONOSUPPORT,
	                             ENOMEM };

	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (codes[i] == code)
			return true;
	return false;
}

static int wait_before_next(struct keeper *k, struct failure *why)
{
	struct pollfd cancelled = { .fd = k->cancel_fd, .events = POLLIN };
	uint64_t after = backoff_after_failure(&k->backoff);

	if (poll(&cancelled, 1, (int) (after / 1000)) > 0)
		return fail_plain(why, ECANCELED, "stopped before the server answered");
	return 0;
}

static int attach_with_patience(struct keeper *k, struct failure *why)
{
	for (;;) {
		const struct client_limits limits = limits_of(k);
		struct failure here = { 0 };
		int r = attach_device(&k->driver, k->wishes, &limits, &k->sockets,
		                      &k->device, &here);

		if (r == 0)
			return 0;
		if (r == -ECANCELED || is_for_people(-r)) {
			*why = here;
			return r;
		}
		log_once(k, &here);
		notify("STATUS=waiting for the server: %.600s\n", here.text);
		r = wait_before_next(k, why);
		if (r < 0)
			return r;
	}
}

int keeper_attach(struct keeper *k, struct failure *why)
{
	struct nbd_state state = { 0 };
	int r = attach_with_patience(k, why);

	if (r < 0)
		return r;
	k->last = (struct failure) { 0 };
	backoff_after_success(&k->backoff, monotonic_us());
	(void) nbd_state_read(SYS_BLOCK, k->device.index, &state);
	(void) strcpy(k->backend, state.backend);
	r = watch_note_open(k->device.index, &k->note_fd, why);
	if (r < 0)
		return r;
	r = watch_device(k);
	if (r < 0)
		return fail(why, -r, "cannot watch /dev/nbd%d", k->device.index);
	log_event(EVENT_DEVICE_ATTACHED, NULL,
	          "/dev/nbd%d is %.200s, %llu bytes, %u connection%s%s", k->device.index,
	          k->wishes->uri.text, (unsigned long long) k->device.size, k->device.connections,
	          k->device.connections == 1 ? "" : "s",
	          k->device.was_there ? "; it was attached already" : "");
	if (k->device.was_there) {      /* nobody knows how many of them live */
		k->dead = k->device.connections;
		try_later(k, 0);
	} else {
		k->counted = true;
		tell(k);
	}
	return 0;
}

int keeper_detach(struct keeper *k, struct failure *why)
{
	/* The signal that ends it must not cancel this. */
	const struct client_limits limits = { .deadline = monotonic_us() + ATTACH_PATIENCE,
	                                      .cancel_fd = -1 };
	int r;

	if (k->gone || is_detached(k))
		return 0;
	r = attach_detach(&k->driver, k->device.index, false, &limits, why);
	if (r == -EBUSY)
		log_warning("%s: it stays attached, and nobody makes new connections for it",
		            why->text);
	else if (r == 0)
		log_event(EVENT_DEVICE_DETACHED, NULL, "/dev/nbd%d is detached", k->device.index);
	return r == -EBUSY ? 0 : r;
}
