/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attaches and detaches.  Refuses exports of which no block device can be made, and connections
 * that do not agree with one another.
 */
#include "attach/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "attach/relied.h"
#include "attach/settle.h"
#include "base/attr.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/paths.h"
#include "netlink/module.h"

#define SECTOR 512u
#define ATTACH_LOCK RUN_DIR "/attach.lock"
#define LOCK_EVERY 50                    /* milliseconds: nothing tells that a lock is free */

int attach_open_driver(bool load_module, struct nbd_driver *ret, struct failure *why)
{
	struct kernel_link link;
	int r = kernel_link_open(&link, why);

	if (r < 0)
		return r;
	r = nbd_driver_open(link, ret, why);
	if (r != -ENOENT || !load_module)
		return r;
	*why = (struct failure) { 0 };
	r = module_load(NBD_DRIVER_MODULE, why);
	if (r == 0)
		r = kernel_link_open(&link, why);
	return r < 0 ? r : nbd_driver_open(link, ret, why);
}

/* The kernel's blocks are 512 bytes to a page, and no request of it is smaller than one. */
static int check_export(const struct export_facts *facts, struct failure *why)
{
	long page = sysconf(_SC_PAGESIZE);

	if (facts->size < SECTOR)
		return fail_plain(why, EINVAL, "the export is empty: a device has at least %u "
		                  "bytes", SECTOR);
	if (facts->minimum > (unsigned long) page)
		return fail_plain(why, EINVAL, "the server takes no requests below %u bytes, and "
		                  "the kernel's can be %ld", facts->minimum, page);
	if (facts->maximum && facts->maximum < (unsigned long) page)
		return fail_plain(why, EINVAL, "the server takes no more than %u bytes at once, "
		                  "which is less than a page", facts->maximum);
	if (facts->size % (facts->minimum > SECTOR ? facts->minimum : SECTOR))
		return fail_plain(why, EINVAL, "the export's size of %llu bytes is not a whole "
		                  "number of blocks", (unsigned long long) facts->size);
	return 0;
}

static int check_agreement(const struct export_facts *a, const struct export_facts *b,
                           struct failure *why)
{
	if (a->size == b->size && a->flags == b->flags)
		return 0;
	return fail_plain(why, EPROTO, "the server's connections lead to exports that differ: %llu "
	                  "and %llu bytes, flags %#x and %#x", (unsigned long long) a->size,
	                  (unsigned long long) b->size, a->flags, b->flags);
}

static void close_all(int *fds, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		close_fd(&fds[i]);
}

int attach_connect(const struct attach_wishes *wishes, const struct client_limits *limits,
                   int *ret_fds, uint32_t *n, struct export_facts *ret, struct failure *why)
{
	struct export_facts first = { 0 };
	uint32_t wished = *n;
	int r = 0;

	for (uint32_t done = 0; r == 0 && done < *n; done++) {
		struct export_facts facts = { 0 };

		r = client_connect(&wishes->uri, limits, &ret_fds[done], &facts, why);
		if (r == 0 && done == 0)
			r = check_export(&facts, why);
		if (done == 0)
			first = facts;
		else if (r == 0)
			r = check_agreement(&first, &facts, why);
		if (r == 0 && *n > 1 && !(first.flags & NBD_FLAG_CAN_MULTI_CONN)) {
			log_notice("%.160s: the server does not promise that several connections "
			           "see the same data: one is used, not %u", wishes->uri.text, *n);
			*n = 1;
		}
	}
	if (r < 0) {
		close_all(ret_fds, wished);
		return r;
	}
	*ret = first;
	return 0;
}

static int wait_for_lock(int fd, const struct client_limits *limits, struct failure *why)
{
	struct pollfd cancelled = { .fd = limits->cancel_fd, .events = POLLIN };

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return fail(why, errno, "cannot lock " ATTACH_LOCK);
		if (monotonic_us() >= limits->deadline)
			return fail_plain(why, ETIMEDOUT, "somebody else attaches or detaches a "
			                  "device, and does not end: " ATTACH_LOCK " is locked");
		if (poll(&cancelled, 1, LOCK_EVERY) > 0)
			return fail_plain(why, ECANCELED, "stopped while waiting for "
			                  ATTACH_LOCK);
	}
	return 0;
}

/* Nobody else attaches or detaches until the descriptor is closed. */
static int lock_attaching(int *ret_fd, const struct client_limits *limits, struct failure *why)
{
	AUTO_FD fd = -1;
	int r;

	(void) mkdir(RUN_DIR, 0755);
	fd = open(ATTACH_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && (errno == EACCES || errno == EPERM))
		return fail_plain(why, EPERM, "only root may attach and detach devices");
	if (fd < 0)
		return fail(why, errno, "cannot open " ATTACH_LOCK);
	r = wait_for_lock(fd, limits, why);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

/* Whether `state` is what is wished for; -EEXIST when it is something else. */
static int compare(const struct nbd_state *state, const struct attach_wishes *wishes,
                   struct failure *why)
{
	const char *name = wishes->name ? wishes->name : "";

	if (!state->ours)
		return fail_plain(why, EEXIST, "/dev/nbd%d is connected already, by somebody else",
		                  state->index);
	if (strcmp(state->identity.uri, wishes->uri.text) != 0)
		return fail_plain(why, EEXIST, "/dev/nbd%d%s%s is attached to %.200s", state->index,
		                  *state->identity.name ? ", which has the name " : "",
		                  state->identity.name, state->identity.uri);
	if (*name && strcmp(state->identity.name, name) != 0)
		return fail_plain(why, EEXIST, "/dev/nbd%d is attached with %s%s", state->index,
		                  *state->identity.name ? "the name " : "no name",
		                  state->identity.name);
	if (wishes->read_only && !state->read_only)
		return fail_plain(why, EEXIST, "/dev/nbd%d is attached for writing", state->index);
	return 1;
}

static bool answers_to(const struct nbd_state *state, const struct attach_wishes *wishes)
{
	if (wishes->index != NBD_INDEX_ANY && state->index == wishes->index)
		return true;
	return wishes->name && state->ours && strcmp(state->identity.name, wishes->name) == 0;
}

/* 1 and the device when it is attached as wished; 0 when nothing is. */
static int find_attached(const struct attach_wishes *wishes, struct nbd_state *ret,
                         struct failure *why)
{
	AUTO_FREE struct nbd_state *list = NULL;
	size_t n;
	int r = nbd_state_list(SYS_BLOCK, &list, &n, why);

	for (size_t i = 0; r == 0 && i < n; i++) {
		if (!answers_to(&list[i], wishes))
			continue;
		r = compare(&list[i], wishes, why);
		*ret = list[i];
		if (r == 1 && wishes->index != NBD_INDEX_ANY && ret->index != wishes->index)
			return fail_plain(why, EEXIST, "%s is attached already, as /dev/nbd%d",
			                  wishes->name, ret->index);
	}
	return r;
}

static int hand_over(struct nbd_driver *driver, const struct attach_wishes *wishes, const int *fds,
                     const struct export_facts *facts, struct attached *a, struct failure *why)
{
	struct attach_identity id = { .connections = a->connections };
	char backend[ATTACH_IDENTITY_MAX];
	const struct nbd_setup setup = {
		.index = wishes->index,
		.size = facts->size,
		.block_size = facts->minimum > SECTOR ? facts->minimum : SECTOR,
		.timeout = wishes->timeout,
		.dead_conn_timeout = wishes->dead_timeout,
		.flags = (uint16_t) (facts->flags | (wishes->read_only ? NBD_FLAG_READ_ONLY : 0)),
		.sockets = fds,
		.n_sockets = a->connections,
		.backend = backend,
	};

	(void) snprintf(id.name, sizeof id.name, "%s", wishes->name ? wishes->name : "");
	(void) snprintf(id.uri, sizeof id.uri, "%s", wishes->uri.text);
	identity_format(&id, backend);
	a->size = facts->size / SECTOR * SECTOR;
	a->flags = facts->flags;
	return nbd_driver_connect(driver, &setup, &a->index, why);
}

/* Connects and waits; what was connected and did not get its size is taken back. */
static int give_to_kernel(struct nbd_driver *driver, const struct attach_wishes *wishes,
                          const int *fds, const struct export_facts *facts, struct attached *a,
                          struct failure *why)
{
	struct failure ignored = { 0 };
	struct settle *settle;
	int r = settle_start(&settle, why);

	if (r < 0)
		return r;
	r = hand_over(driver, wishes, fds, facts, a, why);
	if (r == 0) {
		r = nbd_limit_requests(SYS_BLOCK, a->index, facts->maximum, why);
		if (r == 0)
			r = settle_wait(settle, a->index, a->size, ATTACH_PATIENCE, why);
		if (r < 0)
			(void) nbd_driver_disconnect(driver, a->index, &ignored);
	}
	settle_stop(settle);
	return r;
}

/* 1 and what is attached as wished; 0 when nothing is, and *ret_lock keeps it so. */
static int look(const struct attach_wishes *wishes, const struct client_limits *limits,
                int *ret_lock, struct attached *ret, struct failure *why)
{
	AUTO_FD lock = -1;
	struct nbd_state state = { 0 };
	int r = lock_attaching(&lock, limits, why);

	if (r == 0)
		r = find_attached(wishes, &state, why);
	if (r == 0)
		*ret_lock = take_fd(&lock);
	if (r <= 0)
		return r;
	*ret = (struct attached) { .index = state.index, .size = state.size, .was_there = true,
	                           .connections = state.identity.connections };
	ret->flags = relied_flags_of(SYS_BLOCK, ret->index, ret->connections);
	return 1;
}

/* The handshakes can take long: others may attach meanwhile, perhaps this very device. */
int attach_device(struct nbd_driver *driver, const struct attach_wishes *wishes,
                  const struct client_limits *limits, struct held_sockets *hold,
                  struct attached *ret, struct failure *why)
{
	struct attached a = { .connections = wishes->connections };
	int fds[NBD_MAX_SOCKETS];
	struct export_facts facts;
	AUTO_FD lock = -1;
	int r = look(wishes, limits, &lock, ret, why);

	if (r != 0)
		return r < 0 ? r : 0;
	close_fd(&lock);
	memset(fds, 0xff, sizeof fds);
	r = attach_connect(wishes, limits, fds, &a.connections, &facts, why);
	if (r < 0)
		return r;
	r = look(wishes, limits, &lock, ret, why);
	if (r == 0) {
		r = give_to_kernel(driver, wishes, fds, &facts, &a, why);
		for (uint32_t i = 0; r == 0 && hold && i < a.connections; i++)
			held_sockets_add(hold, take_fd(&fds[i]), a.size);
		if (r == 0)
			*ret = a;
	}
	close_all(fds, NBD_MAX_SOCKETS);
	return r < 0 ? r : 0;
}

int attach_detach(struct nbd_driver *driver, int index, bool force,
                  const struct client_limits *limits, struct failure *why)
{
	AUTO_FD lock = -1;
	AUTO_FD claim = -1;
	struct settle *settle;
	int r = lock_attaching(&lock, limits, why);

	if (r == 0 && !force)
		r = nbd_claim(index, &claim, why);
	if (r < 0)
		return r;
	r = settle_start(&settle, why);
	if (r < 0)
		return r;
	r = nbd_driver_disconnect(driver, index, why);
	close_fd(&claim);               /* a device that is open is not gone */
	if (r == 0)
		r = settle_wait_gone(settle, index, ATTACH_PATIENCE, why);
	settle_stop(settle);
	return r;
}
