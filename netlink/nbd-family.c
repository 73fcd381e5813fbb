/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes and reads the messages of linux/nbd-netlink.h by libnl's attributes. */
#include "netlink/nbd-family.h"

#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_SIZE (16u << 10)

/* A message with its two headers, and room for all that ours carry. */
static struct nl_msg *message_of(uint16_t family, uint8_t command, uint8_t version)
{
	struct nl_msg *message = nlmsg_alloc_size(MESSAGE_SIZE);

	if (message && !genlmsg_put(message, NL_AUTO_PORT, 0, family, 0, 0, command, version)) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

static struct nl_msg *nbd_message_of(uint16_t family, uint8_t command)
{
	return message_of(family, command, NBD_GENL_VERSION);
}

/* The message when all its attributes went in. */
static struct nl_msg *whole(struct nl_msg *message, int r)
{
	if (r < 0) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

/* [SOCKETS [ITEM [FD]] ...] */
static int put_sockets(struct nl_msg *message, const int *sockets, size_t n)
{
	struct nlattr *all, *one;
	int r = 0;

	if (n == 0)
		return 0;
	all = nla_nest_start(message, NBD_ATTR_SOCKETS);
	if (!all)
		return -ENOMEM;
	for (size_t i = 0; i < n && r >= 0; i++) {
		one = nla_nest_start(message, NBD_SOCK_ITEM);
		r = one ? nla_put_u32(message, NBD_SOCK_FD, (uint32_t) sockets[i]) : -ENOMEM;
		if (r >= 0)
			(void) nla_nest_end(message, one);
	}
	if (r >= 0)
		(void) nla_nest_end(message, all);
	return r;
}

static int put_backend(struct nl_msg *message, const char *backend)
{
	return backend ? nla_put_string(message, NBD_ATTR_BACKEND_IDENTIFIER, backend) : 0;
}

static int put_setup(struct nl_msg *message, const struct nbd_setup *s)
{
	int r = nla_put_u64(message, NBD_ATTR_SIZE_BYTES, s->size);

	if (r >= 0 && s->index != NBD_INDEX_ANY)
		r = nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t) s->index);
	if (r >= 0 && s->block_size)
		r = nla_put_u64(message, NBD_ATTR_BLOCK_SIZE_BYTES, s->block_size);
	if (r >= 0 && s->timeout)
		r = nla_put_u64(message, NBD_ATTR_TIMEOUT, s->timeout);
	if (r >= 0 && s->dead_conn_timeout)
		r = nla_put_u64(message, NBD_ATTR_DEAD_CONN_TIMEOUT, s->dead_conn_timeout);
	if (r >= 0)
		r = nla_put_u64(message, NBD_ATTR_SERVER_FLAGS, s->flags);
	if (r >= 0)
		r = put_sockets(message, s->sockets, s->n_sockets);
	return r < 0 ? r : put_backend(message, s->backend);
}

struct nl_msg *nbd_message_find_family(void)
{
	struct nl_msg *message = message_of(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);

	return message ? whole(message, nla_put_string(message, CTRL_ATTR_FAMILY_NAME,
	                                               NBD_GENL_FAMILY_NAME)) : NULL;
}

struct nl_msg *nbd_message_connect(uint16_t family, const struct nbd_setup *setup)
{
	struct nl_msg *message = nbd_message_of(family, NBD_CMD_CONNECT);

	return message ? whole(message, put_setup(message, setup)) : NULL;
}

struct nl_msg *nbd_message_reconfigure(uint16_t family, int index, uint64_t size,
                                       const int *sockets, size_t n_sockets, const char *backend)
{
	struct nl_msg *message = nbd_message_of(family, NBD_CMD_RECONFIGURE);
	int r;

	if (!message)
		return NULL;
	r = nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t) index);
	if (r >= 0 && size)
		r = nla_put_u64(message, NBD_ATTR_SIZE_BYTES, size);
	if (r >= 0)
		r = put_sockets(message, sockets, n_sockets);
	if (r >= 0)
		r = put_backend(message, backend);
	return whole(message, r);
}

struct nl_msg *nbd_message_disconnect(uint16_t family, int index)
{
	struct nl_msg *message = nbd_message_of(family, NBD_CMD_DISCONNECT);

	if (!message)
		return NULL;
	return whole(message, nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t) index));
}

struct nl_msg *nbd_message_status(uint16_t family, int index)
{
	struct nl_msg *message = nbd_message_of(family, NBD_CMD_STATUS);

	if (!message || index == NBD_INDEX_ANY)
		return message;
	return whole(message, nla_put_u32(message, NBD_ATTR_INDEX, (uint32_t) index));
}

/* Finds the group by its name among [GROUPS [n [NAME, ID]] ...]. */
static int read_group(struct nlattr *groups, uint32_t *ret)
{
	static struct nla_policy policy[CTRL_ATTR_MCAST_GRP_MAX + 1] = {
		[CTRL_ATTR_MCAST_GRP_NAME] = { .type = NLA_NUL_STRING },
		[CTRL_ATTR_MCAST_GRP_ID] = { .type = NLA_U32 },
	};
	struct nlattr *group;
	int left;

	nla_for_each_nested(group, groups, left) {
		struct nlattr *found[CTRL_ATTR_MCAST_GRP_MAX + 1];

		if (nla_parse_nested(found, CTRL_ATTR_MCAST_GRP_MAX, group, policy) < 0 ||
		    !found[CTRL_ATTR_MCAST_GRP_NAME] || !found[CTRL_ATTR_MCAST_GRP_ID])
			return -EPROTO;
		if (nla_strcmp(found[CTRL_ATTR_MCAST_GRP_NAME], NBD_GENL_MCAST_GROUP_NAME) == 0) {
			*ret = nla_get_u32(found[CTRL_ATTR_MCAST_GRP_ID]);
			return 0;
		}
	}
	return -EPROTO;
}

int nbd_read_family(struct nlmsghdr *message, uint16_t *ret_family, uint32_t *ret_group)
{
	static struct nla_policy policy[CTRL_ATTR_MAX + 1] = {
		[CTRL_ATTR_FAMILY_ID] = { .type = NLA_U16 },
		[CTRL_ATTR_MCAST_GROUPS] = { .type = NLA_NESTED },
	};
	struct nlattr *found[CTRL_ATTR_MAX + 1];
	uint32_t group;

	if (genlmsg_parse(message, 0, found, CTRL_ATTR_MAX, policy) < 0 ||
	    !found[CTRL_ATTR_FAMILY_ID] || !found[CTRL_ATTR_MCAST_GROUPS] ||
	    read_group(found[CTRL_ATTR_MCAST_GROUPS], &group) < 0)
		return -EPROTO;
	*ret_family = nla_get_u16(found[CTRL_ATTR_FAMILY_ID]);
	*ret_group = group;
	return 0;
}

/* The attributes of one of the family's messages, if it is `command`. */
static int read_attributes(struct nlmsghdr *message, uint8_t command,
                           struct nlattr *ret[NBD_ATTR_MAX + 1])
{
	static struct nla_policy policy[NBD_ATTR_MAX + 1] = {
		[NBD_ATTR_INDEX] = { .type = NLA_U32 },
		[NBD_ATTR_DEVICE_LIST] = { .type = NLA_NESTED },
	};

	if (!genlmsg_valid_hdr(message, 0) ||
	    ((const struct genlmsghdr *) nlmsg_data(message))->cmd != command ||
	    genlmsg_parse(message, 0, ret, NBD_ATTR_MAX, policy) < 0)
		return -EPROTO;
	return 0;
}

int nbd_read_index(struct nlmsghdr *message, uint8_t command, int *ret)
{
	struct nlattr *found[NBD_ATTR_MAX + 1];

	if (read_attributes(message, command, found) < 0 || !found[NBD_ATTR_INDEX] ||
	    nla_get_u32(found[NBD_ATTR_INDEX]) > INT32_MAX)
		return -EPROTO;
	*ret = (int) nla_get_u32(found[NBD_ATTR_INDEX]);
	return 0;
}

static int read_device(struct nlattr *item, struct nbd_device *ret)
{
	static struct nla_policy policy[NBD_DEVICE_ATTR_MAX + 1] = {
		[NBD_DEVICE_INDEX] = { .type = NLA_U32 },
		[NBD_DEVICE_CONNECTED] = { .type = NLA_U8 },
	};
	struct nlattr *found[NBD_DEVICE_ATTR_MAX + 1];

	if (nla_parse_nested(found, NBD_DEVICE_ATTR_MAX, item, policy) < 0 ||
	    !found[NBD_DEVICE_INDEX] || !found[NBD_DEVICE_CONNECTED] ||
	    nla_get_u32(found[NBD_DEVICE_INDEX]) > INT32_MAX)
		return -EPROTO;
	*ret = (struct nbd_device) {
		.index = (int) nla_get_u32(found[NBD_DEVICE_INDEX]),
		.connected = nla_get_u8(found[NBD_DEVICE_CONNECTED]) != 0,
	};
	return 0;
}

int nbd_read_status(struct nlmsghdr *message, struct nbd_device **list, size_t *n)
{
	struct nlattr *found[NBD_ATTR_MAX + 1], *item;
	int left;

	if (read_attributes(message, NBD_CMD_STATUS, found) < 0 || !found[NBD_ATTR_DEVICE_LIST])
		return -EPROTO;
	nla_for_each_nested(item, found[NBD_ATTR_DEVICE_LIST], left) {
		struct nbd_device *more = reallocarray(*list, *n + 1, sizeof *more);

		if (!more)
			return -ENOMEM;
		*list = more;
		if (read_device(item, &more[*n]) < 0)
			return -EPROTO;
		(*n)++;
	}
	return 0;
}
