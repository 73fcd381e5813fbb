/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "netlink/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>

#include "base/attr.h"

#define KERNEL_GROUP 1                  /* udev's own is 2 */
#define RECEIVE_BUFFER (256 << 10)      /* some hundred events that come at once */
#define AT_ONCE 256u                    /* messages, before others have their turn */
#define FIELDS_MAX 128u                 /* the kernel has room for 64 */

/* --- one message ---------------------------------------------------------- */

/* What is looked for; each comes once. */
struct fields {
	struct span action, path, subsystem, major, minor;
};

static const struct wanted {
	const char *key;
	size_t offset;
} wanted[] = {
	{ "ACTION", offsetof(struct fields, action) },
	{ "DEVPATH", offsetof(struct fields, path) },
	{ "SUBSYSTEM", offsetof(struct fields, subsystem) },
	{ "MAJOR", offsetof(struct fields, major) },
	{ "MINOR", offsetof(struct fields, minor) },
};

static bool is_text(struct span s, const char *text)
{
	return span_equal(s, span_of(text));
}

/* The next string, without the NUL that must end it; empty ones are none. */
static struct span take_string(struct bytes *in)
{
	const uint8_t *end = in->left ? memchr(in->at, '\0', in->left) : NULL;
	struct span s = { 0 };

	if (!end || end == in->at) {
		in->overrun = true;
		return s;
	}
	s = take_span(in, (size_t) (end - in->at));
	(void) take_u8(in);
	return s;
}

/* Divides at the first `c`: false where there is none, or nothing in front of it. */
static bool divide(struct span s, char c, struct span *ret_before, struct span *ret_behind)
{
	const uint8_t *at = s.len ? memchr(s.at, c, s.len) : NULL;

	if (!at || at == s.at)
		return false;
	ret_before->at = s.at;
	ret_before->len = (size_t) (at - s.at);
	ret_behind->at = at + 1;
	ret_behind->len = s.len - ret_before->len - 1;
	return true;
}

static bool keep_field(struct fields *fields, struct span key, struct span value)
{
	for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
		struct span *field = (struct span *) ((char *) fields + wanted[i].offset);

		if (!is_text(key, wanted[i].key))
			continue;
		if (field->at || value.len == 0)
			return false;
		*field = value;
	}
	return true;
}

static bool take_fields(struct bytes *in, struct fields *ret)
{
	for (unsigned n = 0; bytes_left(in); n++) {
		struct span key, value;

		if (n == FIELDS_MAX || !divide(take_string(in), '=', &key, &value) ||
		    !keep_field(ret, key, value))
			return false;
	}
	return bytes_all_taken(in);
}

static bool decode_number(struct span s, unsigned *ret)
{
	uint64_t number = 0;

	if (s.len == 0 || s.len > 10)
		return false;
	for (size_t i = 0; i < s.len; i++) {
		if (s.at[i] < '0' || s.at[i] > '9')
			return false;
		number = number * 10 + (s.at[i] - '0');
	}
	if (number > UINT32_MAX)
		return false;
	*ret = (unsigned) number;
	return true;
}

/* The same numbers mean another device where it is a character device's. */
static bool decode_device(const struct fields *fields, struct uevent *ret)
{
	unsigned ma, mi;

	ret->is_block = is_text(fields->subsystem, "block");
	if (!ret->is_block)
		return true;
	if (!decode_number(fields->major, &ma) || !decode_number(fields->minor, &mi))
		return false;
	ret->device = makedev(ma, mi);
	return true;
}

/* "change@/devices/virtual/block/loop0", and the same as fields among others. */
bool uevent_decode(struct bytes in, struct uevent *ret)
{
	struct span action, path;
	struct fields fields = { 0 };
	struct uevent event = { 0 };

	if (!divide(take_string(&in), '@', &action, &path) || !take_fields(&in, &fields))
		return false;
	if (!span_equal(action, fields.action) || !span_equal(path, fields.path) ||
	    path.len == 0 || path.at[0] != '/' || action.len > UEVENT_ACTION_MAX)
		return false;
	if (!decode_device(&fields, &event))
		return false;
	memcpy(event.action, action.at, action.len);
	*ret = event;
	return true;
}

/* --- the socket ----------------------------------------------------------- */

/* The kernel's messages come from port 0, and count as root's; nobody else's come from there. */
bool uevent_is_from_kernel(const struct sockaddr_nl *from, const struct ucred *sender)
{
	return from->nl_pid == 0 && from->nl_groups == 1u << (KERNEL_GROUP - 1) && sender &&
	       sender->uid == 0 && sender->pid == 0;
}

static int prepare(struct nl_sock *socket)
{
	int r = nl_connect(socket, NETLINK_KOBJECT_UEVENT);

	if (r == 0)
		r = nl_socket_set_buffer_size(socket, RECEIVE_BUFFER, 0);
	if (r == 0)
		r = nl_socket_set_passcred(socket, 1);
	if (r == 0)
		r = nl_socket_set_nonblocking(socket);
	if (r == 0)
		r = nl_socket_set_msg_buf_size(socket, UEVENT_MAX);
	nl_socket_disable_msg_peek(socket);     /* what is longer is cut off */
	return r < 0 ? r : nl_socket_add_memberships(socket, KERNEL_GROUP, 0);
}

int uevents_open(struct uevents *ret, struct failure *why)
{
	struct nl_sock *socket = nl_socket_alloc();
	int r;

	if (!socket)
		return fail(why, ENOMEM, "cannot hear of devices");
	errno = 0;
	r = prepare(socket);
	if (r < 0) {
		int code = errno ? errno : EPROTO;

		nl_socket_free(socket);
		return fail_plain(why, code, "the kernel's words about devices cannot be heard: %s",
		                  nl_geterror(r));
	}
	*ret = (struct uevents) { .socket = socket, .fd = nl_socket_get_fd(socket) };
	return 0;
}

void uevents_close(struct uevents *uevents)
{
	if (uevents->socket)
		nl_socket_free(uevents->socket);
	*uevents = (struct uevents) { .fd = -1 };
}

/* nl_recv()'s negative answers. */
static int fault_of(int error)
{
	switch (-error) {
	case NLE_AGAIN:
		return 0;
	case NLE_NOMEM:                         /* ENOBUFS: the socket's buffer was full */
	case NLE_MSG_TRUNC:
		return -ENOBUFS;
	default:
		return -EIO;
	}
}

/* 1: an event; 0: something else; or fault_of(), and *ret_empty. */
static int receive(struct uevents *uevents, struct uevent *ret, bool *ret_empty)
{
	AUTO_FREE unsigned char *text = NULL;
	AUTO_FREE struct ucred *sender = NULL;
	struct sockaddr_nl from = { 0 };
	int n = nl_recv(uevents->socket, &from, &text, &sender);

	*ret_empty = n < 0;
	if (n <= 0)
		return n < 0 ? fault_of(n) : 0;
	return uevent_is_from_kernel(&from, sender) && uevent_decode(bytes_over(text, (size_t) n), ret);
}

int uevents_next(struct uevents *uevents, struct uevent *ret)
{
	bool empty = false;
	int r = 0;

	for (unsigned n = 0; n < AT_ONCE && r == 0 && !empty; n++)
		r = receive(uevents, ret, &empty);
	return r;
}
