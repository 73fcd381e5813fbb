/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Access rules: `Allow=` as a list that a peer is looked up in.
 *
 * A list is rules with blanks between them.  A rule says who, and may say what:
 *
 *	10.0.0.0/8              IPv4 addresses that start so; without /N just one
 *	2001:db8::/32           the same with IPv6;
 *	[2001:db8::1]:read      in brackets where a right follows the address
 *	local                   who comes by a unix socket
 *	vsock                   who comes by a vsock
 *	any                     everybody
 *
 *	:read                   may read, and is told that the export is read-only
 *	:write                  may read and write; so it is where nothing is said
 *
 * The first rule that matches counts, not the closest one: exceptions stand first.  Whom no
 * rule matches has no access.  An IPv4 address inside an IPv6 one ("::ffff:192.0.2.1") is an
 * IPv4 address, in rules and of peers; "::/0" matches no IPv4 peer.
 */
#pragma once

#include <stdint.h>

#include "base/failure.h"
#include "base/peer.h"

#define ACCESS_READ (1u << 0)
#define ACCESS_WRITE (1u << 1)
#define ACCESS_LIST (1u << 2)          /* who may read is told of it, too */

/* Where nothing is said: this machine alone. */
#define ACCESS_DEFAULT "local 127.0.0.0/8 ::1"
#define ACCESS_ANYBODY "any"

struct access_rule {
	bool anybody;
	enum peer_kind kind;
	uint8_t prefix;                 /* bits of the address that must match */
	uint8_t address[16];
	uint8_t rights;                 /* ACCESS_*, never 0 */
};

struct access_list {
	struct access_rule *rules;
	size_t n;
};

/* `ret` is untouched on failure.  A list without any rule is a failure. */
int access_list_parse(const char *text, struct access_list *ret, struct failure *why);
void access_list_clear(struct access_list *list);

/* What `peer` may do by the list: ACCESS_*, 0 for nothing. */
uint8_t access_list_rights(const struct access_list *list, const struct peer *peer);

/* For tables of settings: keeps the text, as setting_string(), if it is such a list. */
int setting_access(const char *value, void *char_pointer, struct failure *why);
