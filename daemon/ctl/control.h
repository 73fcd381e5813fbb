/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of the daemons' control sockets: sd-bus, peer to peer, on a unix socket.  docs/
 * processes.md has the interfaces.
 */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-bus.h>

#include "base/failure.h"

#define CONTROL_PATIENCE UINT64_C(5000000)      /* microseconds for a plain answer */

/* Who is at the other end. */
struct control_peer {
	const char *title;              /* "web1", for sentences */
	const char *path;               /* the object's */
	const char *interface;
};

#define CONTROL_EXPORT(label) \
	(&(struct control_peer) { (label), "/org/nbd_export/export", "org.nbd_export.Export1" })
#define CONTROL_NEGOTIATOR \
	(&(struct control_peer) { "the negotiator", "/org/nbd_export/negotiator", \
	                          "org.nbd_export.Negotiator1" })

static inline void control_close(sd_bus **bus)
{
	*bus = sd_bus_close_unref(*bus);
}

#define AUTO_BUS __attribute__((cleanup(control_close))) sd_bus
static inline void control_unref(sd_bus_message **message)
{
	*message = sd_bus_message_unref(*message);
}

#define AUTO_MESSAGE __attribute__((cleanup(control_unref))) sd_bus_message

/* Whether a failure to connect means that nobody runs there. */
static inline bool control_is_absent(int r)
{
	return r == -ENOENT || r == -ECONNREFUSED;
}

/* Connects to the socket; control_is_absent() tells whether a failure is just that. */
int control_connect(const char *socket_path, sd_bus **ret, struct failure *why);

/* The same without waiting for anybody: the peer may not even have let us in yet. */
int control_connect_at_once(const char *socket_path, sd_bus **ret, struct failure *why);

/*
 * Calls a method without arguments, or with one number if `number` is not NULL.  `ret` may be
 * NULL; the message is the caller's.  The peer's own sentence becomes the failure's.
 */
int control_call(sd_bus *bus, const struct control_peer *peer, const char *method,
                 const uint64_t *number, uint64_t patience, sd_bus_message **ret,
                 struct failure *why);

/* One entry of a dictionary a{sv} that is wanted, and the member that takes it. */
struct control_field {
	const char *name;
	char type;              /* s: char *, own memory; t: uint64_t; u: uint32_t; b: bool;
	                         * l: the words of an "as" by \n, char *, own memory */
	size_t offset;
};

/* A call of a method without arguments, or, for NULL, for all properties.  -errno. */
int control_new_call(sd_bus *bus, const struct control_peer *peer, const char *method,
                     sd_bus_message **ret);

/* The failure of a call: `r`, or what the peer said. */
int control_fail_call(const struct control_peer *peer, const char *method,
                      const sd_bus_error *error, int r, struct failure *why);

/* Reads one a{sv} of a message.  1, 0 at the end of the array that it is in, -errno.  Unknown
 * entries are left out, as are those whose type is another; what does not come stays as it is
 * in `into`. */
int control_read_dictionary(sd_bus_message *m, const struct control_field *fields, size_t n,
                            void *into);
