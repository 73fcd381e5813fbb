/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The messages of the nbd family, and the one that finds the family, as bytes: made and read here,
 * sent nowhere.  Makers return NULL when memory runs out; nlmsg_free() ends a message.
 */
#pragma once

#include <netlink/msg.h>
#include <stdint.h>

#include "netlink/nbd-driver.h"

struct nl_msg *nbd_message_find_family(void);
struct nl_msg *nbd_message_connect(uint16_t family, const struct nbd_setup *setup);
struct nl_msg *nbd_message_reconfigure(uint16_t family, int index, uint64_t size,
                                       const int *sockets, size_t n_sockets, const char *backend);
struct nl_msg *nbd_message_disconnect(uint16_t family, int index);
struct nl_msg *nbd_message_status(uint16_t family, int index);

/* The family's number and its group's from the controller's answer; -EPROTO when they are not
 * there. */
int nbd_read_family(struct nlmsghdr *message, uint16_t *ret_family, uint32_t *ret_group);

/* NBD_ATTR_INDEX of the answer to CONNECT, and of LINK_DEAD; -EPROTO. */
int nbd_read_index(struct nlmsghdr *message, uint8_t command, int *ret);

/* The devices of an answer to STATUS, appended to the list at *list; -EPROTO, -ENOMEM. */
int nbd_read_status(struct nlmsghdr *message, struct nbd_device **list, size_t *n);
