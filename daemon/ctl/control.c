/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/clock.h"
#include "base/paths.h"

/* Root may do all; who else may look is as the socket's folder says. */
static int fail_connect(const char *path, int code, struct failure *why)
{
	if (code != EACCES)
		return fail(why, code, "cannot connect to %s", path);
	return fail_plain(why, code, "cannot connect to %s: Permission denied (%s)", path,
	                  strncmp(path, RUN_DIR "/", strlen(RUN_DIR "/")) == 0 ?
	                  "group nbd-export may look, root may change" :
	                  "it belongs to somebody else");
}

/* A peer with a full backlog is one that does not answer. */
static int connect_socket(const char *path, int flags, int *ret_fd, struct failure *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = CONTROL_PATIENCE / USEC_PER_SEC };
	AUTO_FD fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (strlen(path) >= sizeof address.sun_path)
		return fail(why, ENAMETOOLONG, "cannot connect to %s", path);
	strcpy(address.sun_path, path);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) < 0 ||
	    connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
		return fail_connect(path, errno, why);
	*ret_fd = take_fd(&fd);
	return 0;
}

static int connect_bus(const char *path, int flags, sd_bus **ret, struct failure *why)
{
	AUTO_BUS *bus = NULL;
	AUTO_FD fd = -1;
	int r = connect_socket(path, flags, &fd, why);

	if (r < 0)
		return r;
	r = sd_bus_new(&bus);
	if (r >= 0)
		r = sd_bus_set_fd(bus, fd, fd);
	if (r >= 0) {
		(void) take_fd(&fd);            /* the bus closes it */
		r = sd_bus_start(bus);
	}
	if (r < 0)
		return fail(why, -r, "cannot talk over %s", path);
	*ret = take_ptr(bus);
	return 0;
}

int control_connect_at_once(const char *socket_path, sd_bus **ret, struct failure *why)
{
	return connect_bus(socket_path, SOCK_NONBLOCK, ret, why);
}

/* Until the peer has let us in, for which sd-bus would wait longer than we. */
static int await_ready(sd_bus *bus)
{
	uint64_t until = monotonic_us() + CONTROL_PATIENCE;
	int r = sd_bus_is_ready(bus);

	while (r == 0) {
		uint64_t now = monotonic_us();

		if (now >= until)
			return -ETIMEDOUT;
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, until - now);
		if (r >= 0)
			r = sd_bus_is_ready(bus);
	}
	return r < 0 ? r : 0;
}

int control_connect(const char *socket_path, sd_bus **ret, struct failure *why)
{
	AUTO_BUS *bus = NULL;
	int r = connect_bus(socket_path, 0, &bus, why);

	if (r < 0)
		return r;
	r = await_ready(bus);
	if (r == -ETIMEDOUT)
		return fail_plain(why, ETIMEDOUT, "there is no answer over %s", socket_path);
	if (r < 0)
		return fail(why, EPROTO, "cannot talk over %s", socket_path);
	*ret = take_ptr(bus);
	return 0;
}

int control_fail_call(const struct control_peer *peer, const char *method,
                      const sd_bus_error *error, int r, struct failure *why)
{
	if (r == -EINVAL || r == -ERANGE || r >= 0)
		r = -EPROTO;                    /* not what the command line has wrong */
	if (r == -ETIMEDOUT)
		return fail_plain(why, ETIMEDOUT, "%s does not answer (%s)", peer->title, method);
	if (sd_bus_error_has_name(error, SD_BUS_ERROR_ACCESS_DENIED) && !error->message)
		return fail(why, EACCES, "%s: %s", peer->title, method);
	if (error && error->message && *error->message)
		return fail_plain(why, -r, "%s: %s", peer->title, error->message);
	return fail(why, -r, "%s: %s", peer->title, method);
}

static int finish_call(sd_bus *bus, sd_bus_message *m, const struct control_peer *peer,
                       const char *method, uint64_t patience, sd_bus_message **ret,
                       struct failure *why)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r = sd_bus_call(bus, m, patience, &error, ret);

	if (r < 0)
		r = control_fail_call(peer, method, &error, r, why);
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}

int control_new_call(sd_bus *bus, const struct control_peer *peer, const char *method,
                     sd_bus_message **ret)
{
	AUTO_MESSAGE *m = NULL;
	int r;

	if (method)
		return sd_bus_message_new_method_call(bus, ret, NULL, peer->path, peer->interface,
		                                      method);
	r = sd_bus_message_new_method_call(bus, &m, NULL, peer->path,
	                                   "org.freedesktop.DBus.Properties", "GetAll");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", peer->interface);
	if (r >= 0)
		*ret = take_ptr(m);
	return r;
}

int control_call(sd_bus *bus, const struct control_peer *peer, const char *method,
                 const uint64_t *number, uint64_t patience, sd_bus_message **ret,
                 struct failure *why)
{
	AUTO_MESSAGE *m = NULL;
	int r = control_new_call(bus, peer, method, &m);

	if (r >= 0 && number)
		r = sd_bus_message_append(m, "t", *number);
	if (r < 0)
		return fail(why, -r, "%s: %s", peer->title, method);
	return finish_call(bus, m, peer, method, patience, ret, why);
}

/* --- dictionaries --------------------------------------------------------- */

static const char *signature_of(char type)
{
	switch (type) {
	case 's': return "s";
	case 't': return "t";
	case 'u': return "u";
	case 'b': return "b";
	default: return "as";
	}
}

static int keep_string(sd_bus_message *m, char **into)
{
	const char *text;
	int r = sd_bus_message_read_basic(m, 's', &text);

	if (r < 0)
		return r;
	free(*into);
	*into = strdup(text);
	return *into ? 0 : -ENOMEM;
}

static int keep_bool(sd_bus_message *m, bool *into)
{
	int value;
	int r = sd_bus_message_read_basic(m, 'b', &value);

	if (r >= 0)
		*into = value;
	return r;
}

static int keep_list(sd_bus_message *m, char **into)
{
	AUTO_FREE char *all = strdup("");
	const char *word;
	int r = sd_bus_message_enter_container(m, 'a', "s");

	while (r >= 0 && all && (r = sd_bus_message_read_basic(m, 's', &word)) > 0) {
		char *more;

		if (asprintf(&more, "%s%s%s", all, *all ? "\n" : "", word) < 0)
			return -ENOMEM;
		free(all);
		all = more;
	}
	if (r < 0 || !all)
		return r < 0 ? r : -ENOMEM;
	free(*into);
	*into = take_ptr(all);
	return sd_bus_message_exit_container(m);
}

static int keep_value(sd_bus_message *m, const struct control_field *field, void *into)
{
	void *member = (char *) into + field->offset;

	switch (field->type) {
	case 's':
		return keep_string(m, member);
	case 'b':
		return keep_bool(m, member);
	case 'l':
		return keep_list(m, member);
	default:                                /* t and u are memory of that size */
		return sd_bus_message_read_basic(m, field->type, member);
	}
}

static int read_variant(sd_bus_message *m, const struct control_field *field, void *into)
{
	const char *contents;
	char type;
	int r = sd_bus_message_peek_type(m, &type, &contents);

	if (r < 0)
		return r;
	if (!field || type != 'v' || strcmp(contents, signature_of(field->type)) != 0)
		return sd_bus_message_skip(m, "v");
	r = sd_bus_message_enter_container(m, 'v', contents);
	if (r >= 0)
		r = keep_value(m, field, into);
	return r < 0 ? r : sd_bus_message_exit_container(m);
}

static const struct control_field *find_field(const struct control_field *fields, size_t n,
                                              const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(fields[i].name, name) == 0)
			return &fields[i];
	return NULL;
}

int control_read_dictionary(sd_bus_message *m, const struct control_field *fields, size_t n,
                            void *into)
{
	int r = sd_bus_message_enter_container(m, 'a', "{sv}");

	if (r <= 0)
		return r;
	while ((r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
		const char *name;

		r = sd_bus_message_read_basic(m, 's', &name);
		if (r >= 0)
			r = read_variant(m, find_field(fields, n, name), into);
		if (r >= 0)
			r = sd_bus_message_exit_container(m);
		if (r < 0)
			return r;
	}
	if (r >= 0)
		r = sd_bus_message_exit_container(m);
	return r < 0 ? r : 1;
}
