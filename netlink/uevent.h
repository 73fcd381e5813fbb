/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel tells everybody about devices that come, change and go (uevents).
 *
 * Heard of the kernel itself, not of udev: this works without udev, before it, and in a network of
 * one's own (PrivateNetwork=), as long as that does not come with users of its own.  Others with
 * privileges can send to the same group: they are not believed.
 *
 * An event is a hint and no more.  Who hears of a device looks at it, so one that is made up costs
 * a look, and where events were lost a look makes up for them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/failure.h"

struct nl_sock;
struct sockaddr_nl;
struct ucred;

/* The kernel writes at most 2048 bytes of fields, behind an action and a path in /sys. */
#define UEVENT_MAX 8192u
#define UEVENT_ACTION_MAX 15u

struct uevent {
	char action[UEVENT_ACTION_MAX + 1];     /* "change", "remove" */
	bool is_block;                          /* of a block device, and only then: */
	dev_t device;
};

struct uevents {
	struct nl_sock *socket;                 /* NULL: closed */
	int fd;                                 /* the socket's, non-blocking, for who waits */
};

/* -errno with a sentence, and nothing is held. */
int uevents_open(struct uevents *ret, struct failure *why);
void uevents_close(struct uevents *uevents);

/* 1: *ret is the next event; 0: none is waiting, or it is somebody else's turn; -ENOBUFS: events
 * were lost; or another -errno, and there will be no more. */
int uevents_next(struct uevents *uevents, struct uevent *ret);

/* For the tests: whether the kernel sent it, and one message.  What is not as the kernel writes
 * it is no event. */
bool uevent_is_from_kernel(const struct sockaddr_nl *from, const struct ucred *sender);
bool uevent_decode(struct bytes in, struct uevent *ret);
