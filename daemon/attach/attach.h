/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attaching a remote export as a local block device, and taking it away again: handshakes, the
 * kernel's driver, and the wait until the device is there.
 */
#pragma once

#include <stdbool.h>

#include "attach/client.h"
#include "attach/device.h"
#include "attach/held-sockets.h"
#include "netlink/nbd-driver.h"

#define ATTACH_PATIENCE (10 * UINT64_C(1000000))        /* for handshakes, and for udev */
#define ATTACH_TIMEOUT 30u                              /* seconds, where nobody says */
#define ATTACH_DEAD_TIMEOUT 600u

struct attach_wishes {
	struct nbd_uri uri;
	int index;                      /* NBD_INDEX_ANY: the first that is free */
	const char *name;               /* NULL without */
	uint32_t connections;
	uint32_t timeout;               /* seconds until a request without a reply goes
	                                 * elsewhere; 0: never */
	uint32_t dead_timeout;          /* seconds that requests wait for a connection */
	bool read_only;
	bool load_module;
};

struct attached {
	int index;
	uint64_t size;
	uint16_t flags;                 /* of the server, or what the device shows of them */
	uint32_t connections;
	bool was_there;                 /* somebody had attached it so before */
};

/* The driver, loaded first where it is missing and that is wished. */
int attach_open_driver(bool load_module, struct nbd_driver *ret, struct failure *why);

/*
 * Connections that all lead to the same export, in ret_fds, of which *n is the number wished for
 * and becomes the number made: one, where the server does not promise that several see the same.
 * ret_fds begins as -1 throughout, and is so again after a failure.
 */
int attach_connect(const struct attach_wishes *wishes, const struct client_limits *limits,
                   int *ret_fds, uint32_t *n, struct export_facts *ret, struct failure *why);

/*
 * Attaches, or finds what is attached already: by the device that was given, else by its name.
 * -EEXIST where that is attached to something else.  One at a time on a machine, but for handshakes.
 * The sockets go to `hold`, which may be NULL.
 */
int attach_device(struct nbd_driver *driver, const struct attach_wishes *wishes,
                  const struct client_limits *limits, struct held_sockets *hold,
                  struct attached *ret, struct failure *why);

/* Takes a device away.  -EBUSY when it is mounted or claimed, unless `force`. */
int attach_detach(struct nbd_driver *driver, int index, bool force,
                  const struct client_limits *limits, struct failure *why);
