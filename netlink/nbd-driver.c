/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asks the driver and puts its answers into words.  Refuses, before the kernel does so in its log
 * alone, what no device can be made of.
 */
#include "netlink/nbd-driver.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd-netlink.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/attr.h"
#include "netlink/nbd-family.h"

static void free_message(struct nl_msg **message)
{
	nlmsg_free(*message);
}

#define AUTO_MESSAGE __attribute__((cleanup(free_message))) struct nl_msg

/* What the driver means by an errno, where strerror() does not say it. */
static const struct meaning {
	uint8_t command;
	int code;
	const char *sentence;
} meanings[] = {
	{ NBD_CMD_CONNECT, EBUSY, "it is connected already: choose another, or detach it" },
	{ NBD_CMD_CONNECT, ENODEV, "there is no such device" },
	{ NBD_CMD_CONNECT, ENOSPC, "there is no room for another device" },
	{ NBD_CMD_CONNECT, EINVAL, "the kernel does not take it; its log (dmesg) has the reason" },
	{ NBD_CMD_RECONFIGURE, ENODEV, "there is no such device" },
	{ NBD_CMD_RECONFIGURE, EINVAL, "it is not connected, or by somebody else; the kernel's log "
	                               "(dmesg) has the reason" },
	{ NBD_CMD_DISCONNECT, ENODEV, "there is no such device" },
	{ NBD_CMD_DISCONNECT, EINVAL, "there is no such device" },
};

static const char *meaning_of(uint8_t command, int code)
{
	if (code == EPERM || code == EACCES)
		return "only root may (CAP_SYS_ADMIN)";
	for (size_t i = 0; i < ARRAY_LEN(meanings); i++)
		if (meanings[i].command == command && meanings[i].code == code)
			return meanings[i].sentence;
	return NULL;
}

/* The device as people know it. */
static const char *device_name(int index, char *ret, size_t size)
{
	if (index == NBD_INDEX_ANY)
		(void) snprintf(ret, size, "an nbd device");
	else
		(void) snprintf(ret, size, "/dev/nbd%d", index);
	return ret;
}

/* "cannot VERB /dev/nbd0: meaning (the kernel says: sentence)"; 0 for a verdict without errno. */
static int judge(const struct kernel_verdict *verdict, uint8_t command, const char *verb, int index,
                 struct failure *why)
{
	const char *meaning = meaning_of(command, verdict->code), *said = verdict->sentence;
	char device[32];

	if (verdict->code == 0)
		return 0;
	(void) device_name(index, device, sizeof device);
	if (!meaning)
		return fail(why, verdict->code, "cannot %s %s%s%s", verb, device, *said ? ": " : "",
		            said);
	return fail_plain(why, verdict->code, "cannot %s %s: %s%s%s%s", verb, device, meaning,
	                  *said ? " (the kernel says: " : "", said, *said ? ")" : "");
}

struct found_family {
	uint16_t family;
	uint32_t group;
};

static int take_family(struct nlmsghdr *message, void *userdata, struct failure *why)
{
	struct found_family *found = userdata;

	if (nbd_read_family(message, &found->family, &found->group) < 0)
		return fail_plain(why, EPROTO, "the kernel's nbd driver is not one that is known: "
		                  "its netlink family has no group " NBD_GENL_MCAST_GROUP_NAME);
	return 0;
}

static int find_family(const struct kernel_link *link, struct found_family *ret,
                       struct failure *why)
{
	AUTO_MESSAGE *message = nbd_message_find_family();
	struct kernel_verdict verdict;
	int r;

	if (!message)
		return fail(why, ENOMEM, "netlink");
	r = kernel_ask(link, nlmsg_hdr(message), take_family, ret, &verdict, why);
	if (r < 0)
		return r;
	if (verdict.code == ENOENT || (verdict.code == 0 && ret->family == 0))
		return fail_plain(why, ENOENT, "the kernel's nbd driver is not loaded: `modprobe "
		                  NBD_DRIVER_MODULE "`, or --load-module");
	if (verdict.code)
		return fail(why, verdict.code, "cannot find the kernel's nbd driver%s%s",
		            *verdict.sentence ? ": " : "", verdict.sentence);
	return 0;
}

int nbd_driver_open(struct kernel_link link, struct nbd_driver *ret, struct failure *why)
{
	struct found_family found = { 0 };
	int r = find_family(&link, &found, why);

	if (r < 0) {
		kernel_link_close(&link);
		return r;
	}
	*ret = (struct nbd_driver) {
		.link = link, .family = found.family, .dead_link_group = found.group,
	};
	return 0;
}

void nbd_driver_close(struct nbd_driver *driver)
{
	kernel_link_close(&driver->link);
}

static int take_index(struct nlmsghdr *message, void *userdata, struct failure *why)
{
	if (nbd_read_index(message, NBD_CMD_CONNECT, userdata) < 0)
		return fail_plain(why, EPROTO, "netlink: the nbd driver's answer is broken");
	return 0;
}

int nbd_driver_connect(struct nbd_driver *driver, const struct nbd_setup *setup, int *ret_index,
                       struct failure *why)
{
	AUTO_MESSAGE *message = nbd_message_connect(driver->family, setup);
	struct kernel_verdict verdict;
	int index = NBD_INDEX_ANY, r;

	assert(setup->n_sockets > 0 && setup->n_sockets <= NBD_MAX_SOCKETS);
	if (!message)
		return fail(why, ENOMEM, "netlink");
	r = kernel_ask(&driver->link, nlmsg_hdr(message), take_index, &index, &verdict, why);
	if (r < 0)
		return r;
	r = judge(&verdict, NBD_CMD_CONNECT, "connect", setup->index, why);
	if (r < 0)
		return r;
	if (index == NBD_INDEX_ANY)
		return fail_plain(why, EPROTO, "netlink: the nbd driver does not say which device "
		                  "it connected");
	*ret_index = index;
	return 0;
}

int nbd_driver_reconfigure(struct nbd_driver *driver, int index, uint64_t size, const int *sockets,
                           size_t n_sockets, const char *backend, struct failure *why)
{
	AUTO_MESSAGE *message = nbd_message_reconfigure(driver->family, index, size, sockets,
	                                                n_sockets, backend);
	struct kernel_verdict verdict;
	int r;

	assert((n_sockets > 0 || size) && n_sockets <= NBD_MAX_SOCKETS);
	if (!message)
		return fail(why, ENOMEM, "netlink");
	r = kernel_ask(&driver->link, nlmsg_hdr(message), NULL, NULL, &verdict, why);
	if (r < 0)
		return r;
	return judge(&verdict, NBD_CMD_RECONFIGURE, "reconnect", index, why);
}

int nbd_driver_disconnect(struct nbd_driver *driver, int index, struct failure *why)
{
	AUTO_MESSAGE *message = nbd_message_disconnect(driver->family, index);
	struct kernel_verdict verdict;
	int r;

	if (!message)
		return fail(why, ENOMEM, "netlink");
	r = kernel_ask(&driver->link, nlmsg_hdr(message), NULL, NULL, &verdict, why);
	if (r < 0)
		return r;
	return judge(&verdict, NBD_CMD_DISCONNECT, "disconnect", index, why);
}

struct device_list {
	struct nbd_device *at;
	size_t n;
};

static int take_status(struct nlmsghdr *message, void *userdata, struct failure *why)
{
	struct device_list *list = userdata;
	int r = nbd_read_status(message, &list->at, &list->n);

	if (r == -ENOMEM)
		return fail(why, ENOMEM, "netlink");
	if (r < 0)
		return fail_plain(why, EPROTO, "netlink: the nbd driver's answer is broken");
	return 0;
}

int nbd_driver_status(struct nbd_driver *driver, int index, struct nbd_device **ret,
                      size_t *ret_n, struct failure *why)
{
	AUTO_MESSAGE *message = nbd_message_status(driver->family, index);
	struct device_list list = { 0 };
	struct kernel_verdict verdict;
	int r;

	if (!message)
		return fail(why, ENOMEM, "netlink");
	r = kernel_ask(&driver->link, nlmsg_hdr(message), take_status, &list, &verdict, why);
	if (r == 0)
		r = judge(&verdict, NBD_CMD_STATUS, "see", index, why);
	if (r < 0) {
		free(list.at);
		return r;
	}
	*ret = list.at;
	*ret_n = list.n;
	return 0;
}

int nbd_driver_watch(struct nbd_driver *driver, struct failure *why)
{
	int r = driver->link.join(driver->link.userdata, driver->dead_link_group);

	if (r == 0 && driver->link.fd >= 0 && fcntl(driver->link.fd, F_SETFL, O_NONBLOCK) < 0)
		r = -errno;
	return r < 0 ? fail(why, -r, "cannot hear of dead links from the kernel") : 0;
}

/* The index of the first LINK_DEAD in a datagram; false when there is none. */
static bool find_dead_link(const struct nbd_driver *driver, void *datagram, ssize_t len, int *ret)
{
	struct nlmsghdr *message = datagram;
	int left = (int) len;

	for (; nlmsg_ok(message, left); message = nlmsg_next(message, &left))
		if (message->nlmsg_type == driver->family &&
		    nbd_read_index(message, NBD_CMD_LINK_DEAD, ret) == 0)
			return true;
	return false;
}

int nbd_driver_next_dead_link(struct nbd_driver *driver, int *ret_index, struct failure *why)
{
	AUTO_FREE void *datagram = malloc(KERNEL_DATAGRAM_MAX);

	if (!datagram)
		return fail(why, ENOMEM, "netlink");
	for (;;) {
		ssize_t n = driver->link.receive(driver->link.userdata, datagram,
		                                 KERNEL_DATAGRAM_MAX);

		if (n == -EAGAIN)
			return 0;
		if (n == -ENOBUFS) {
			*ret_index = NBD_INDEX_ANY;
			return 1;
		}
		if (n < 0)
			return fail(why, (int) -n, "cannot hear of dead links from the kernel");
		if (find_dead_link(driver, datagram, n, ret_index))
			return 1;
	}
}
