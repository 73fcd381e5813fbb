/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's nbd driver, by its generic netlink family: devices are connected to sockets whose
 * handshake is over, get new sockets, are disconnected.
 *
 * What the kernel refuses comes back as a sentence that names the device, says why, and what to do.
 * A socket stays the caller's, who closes it; the kernel holds it for itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "netlink/kernel-link.h"

#define NBD_DRIVER_MODULE "nbd"
#define NBD_INDEX_ANY (-1)              /* the first device that is free */
#define NBD_MAX_SOCKETS 64u             /* of one device; our own limit */

struct nbd_driver {
	struct kernel_link link;
	uint16_t family;
	uint32_t dead_link_group;
};

/*
 * Finds the driver over `link`, which is taken over, also on failure.  ENOENT: the driver is not
 * loaded.
 */
int nbd_driver_open(struct kernel_link link, struct nbd_driver *ret, struct failure *why);
void nbd_driver_close(struct nbd_driver *driver);

struct nbd_setup {
	int index;                      /* of /dev/nbdN, or NBD_INDEX_ANY */
	uint64_t size;
	uint64_t block_size;            /* 0: the kernel's choice */
	uint64_t timeout;               /* seconds until a request without a reply; 0: never */
	uint64_t dead_conn_timeout;     /* seconds that requests wait for a new socket */
	uint16_t flags;                 /* transmission flags of the server */
	const int *sockets;
	size_t n_sockets;
	const char *backend;            /* NULL: none; kernels before 5.14 forget it */
};

int nbd_driver_connect(struct nbd_driver *driver, const struct nbd_setup *setup, int *ret_index,
                       struct failure *why);

/*
 * Gives a connected device sockets in place of those that died, and another size unless 0; one of
 * both at least.  The kernel says nothing about a socket for which no dead one is found; it lets go
 * of it.  `backend` must be what the device was connected with.  -EINVAL: it is not connected.
 */
int nbd_driver_reconfigure(struct nbd_driver *driver, int index, uint64_t size, const int *sockets,
                           size_t n_sockets, const char *backend, struct failure *why);

/* Also a device in use is taken away from who uses it; 0 also for one that is not connected. */
int nbd_driver_disconnect(struct nbd_driver *driver, int index, struct failure *why);

struct nbd_device {
	int index;
	bool connected;
};

/* Of all devices, or of one.  The list is the caller's to free. */
int nbd_driver_status(struct nbd_driver *driver, int index, struct nbd_device **ret,
                      size_t *ret_n, struct failure *why);

/* From now on nbd_driver_next_dead_link() tells; of a driver that is opened for this alone, whose
 * link.fd becomes readable. */
int nbd_driver_watch(struct nbd_driver *driver, struct failure *why);

/*
 * 1 and a device that lost a socket, or 0 when there is nothing more to hear for now.
 * `ret_index` is NBD_INDEX_ANY when messages were lost, so that it may have been any device.
 */
int nbd_driver_next_dead_link(struct nbd_driver *driver, int *ret_index, struct failure *why);
