/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * attach-probe URI CONNECTIONS: makes the connections that `nbdctl attach` would give to the
 * kernel, and plays the kernel for a moment: a simple READ of the first 512 bytes over each.
 *
 * Prints "SIZE FLAGS MINIMUM MAXIMUM CONNECTIONS"; exit status 1 and a sentence when it cannot.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "attach/attach.h"
#include "base/clock.h"
#include "base/log.h"
#include "wire/nbd.h"

#define N_BYTES 512u

static void read_first_sector(int fd)
{
	uint8_t request[NBD_REQUEST_SIZE], reply[NBD_SIMPLE_REPLY_SIZE + N_BYTES];
	struct emit out = emit_into(request, sizeof request);
	struct bytes in = bytes_over(reply, sizeof reply);

	emit_u32(&out, NBD_REQUEST_MAGIC);
	emit_u16(&out, 0);
	emit_u16(&out, NBD_CMD_READ);
	emit_u64(&out, 4711);
	emit_u64(&out, 0);
	emit_u32(&out, N_BYTES);
	if (send(fd, request, out.len, MSG_NOSIGNAL) != (ssize_t) out.len ||
	    recv(fd, reply, sizeof reply, MSG_WAITALL) != (ssize_t) sizeof reply ||
	    take_u32(&in) != NBD_SIMPLE_REPLY_MAGIC || take_u32(&in) != NBD_SUCCESS ||
	    take_u64(&in) != 4711) {
		fprintf(stderr, "attach-probe: no simple reply to a READ\n");
		exit(EXIT_FAILURE);
	}
}

int main(int argc, char **argv)
{
	static struct attach_wishes wishes;
	const struct client_limits limits = { .deadline = monotonic_us() + ATTACH_PATIENCE,
	                                      .cancel_fd = -1 };
	struct failure why = { 0 };
	int fds[NBD_MAX_SOCKETS], r;
	struct export_facts facts;
	uint32_t n = argc == 3 ? (uint32_t) atoi(argv[2]) : 0;

	if (n < 1 || n > NBD_MAX_SOCKETS)
		return 2;
	log_start("attach-probe", LOG_INFO);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = -1;
	r = nbd_uri_parse(argv[1], &wishes.uri, &why);
	if (r == 0)
		r = attach_connect(&wishes, &limits, fds, &n, &facts, &why);
	if (r < 0) {
		fprintf(stderr, "attach-probe: %s\n", why.text);
		return EXIT_FAILURE;
	}
	for (uint32_t i = 0; i < n; i++) {
		read_first_sector(fds[i]);
		close_fd(&fds[i]);
	}
	printf("%llu %#x %u %u %u\n", (unsigned long long) facts.size, facts.flags, facts.minimum,
	       facts.maximum, n);
	return EXIT_SUCCESS;
}
