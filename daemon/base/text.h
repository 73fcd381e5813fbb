/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text from outside, and text for people: printable names, sizes, addresses.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/bytes.h"

/*
 * Copies `s` as valid, printable UTF-8: control characters, and bytes that are
 * not UTF-8, become U+FFFD.  At most `max_shown` bytes of the result are kept, cut
 * between characters, with "..." behind what was cut.  `ret` is always terminated;
 * a `size` of max_shown + 4 holds any result.
 */
void printable(struct span s, size_t max_shown, char *ret, size_t size);

/* Copies `text` as valid UTF-8: bytes that are not become U+FFFD, the rest stays as it is.  What
 * does not fit is cut between characters; three bytes for each and one more hold any. */
void make_utf8(const char *text, char *ret, size_t size);

/* Whether `s` is valid UTF-8 without NUL. */
bool is_utf8(struct span s);

/*
 * "64M" to bytes: a decimal number and an optional K, M, G, T, P, E (powers of 1024,
 * in either case, optionally followed by "iB" or "B").  -EINVAL, -ERANGE; *ret untouched then.
 */
int parse_size(const char *text, uint64_t *ret);

/* Bytes to "64 MiB", as few digits as keep it exact to one decimal. */
void format_size(uint64_t bytes, char *ret, size_t size);

/* yes/no, true/false, on/off, 1/0.  -EINVAL otherwise. */
int parse_bool(const char *text, bool *ret);

/*
 * A peer's address for people: "192.0.2.1:4711", "[::1]:4711", "vsock:3:4711", and for a
 * unix socket "unix:pid=4711,uid=0", which SO_PEERCRED of `fd` tells.
 */
void format_peer(int fd, char *ret, size_t size);
#define PEER_TEXT_SIZE 64u

/* Percent-escapes `text` for the path or query of a URI, "/" left alone.
 * -ENAMETOOLONG when `ret` is too small; three bytes for each and one more suffice. */
int uri_escape(const char *text, char *ret, size_t size);
