/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One netlink socket to the kernel, as two functions that a test replaces by its own kernel.
 *
 * kernel_ask() is a whole conversation: it sends one request, gives every answer to a function and
 * ends with the kernel's verdict, errno and the sentence of its extended acknowledgement.
 */
#pragma once

#include <linux/netlink.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/failure.h"

/* Room for one datagram from the kernel; more would be cut, which is an error. */
#define KERNEL_DATAGRAM_MAX (64u << 10)

struct kernel_link {
	/* All of `message`, or -errno. */
	int (*send)(void *userdata, const struct nlmsghdr *message);
	/* One datagram from the kernel itself, waited for; its length, or -errno. */
	ssize_t (*receive)(void *userdata, void *ret, size_t size);
	/* Joins a multicast group; -errno. */
	int (*join)(void *userdata, unsigned group);
	void (*close)(void *userdata);
	int fd;                         /* for an event loop; -1 where there is none */
	void *userdata;
};

/* A generic netlink socket with extended acknowledgements. */
int kernel_link_open(struct kernel_link *ret, struct failure *why);
void kernel_link_close(struct kernel_link *link);

/* What the kernel said to one request. */
struct kernel_verdict {
	int code;                       /* positive errno; 0: done */
	char sentence[256];             /* of the extended acknowledgement; "" without one */
};

/*
 * Sends `message`, which gets its sequence number here, and calls `answer` (which may be NULL) for
 * every message that belongs to it.  0 and the verdict; -errno and a sentence when the conversation
 * itself failed, or what `answer` returned.
 */
int kernel_ask(const struct kernel_link *link, struct nlmsghdr *message,
               int (*answer)(struct nlmsghdr *message, void *userdata, struct failure *why),
               void *userdata, struct kernel_verdict *ret, struct failure *why);
