/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one line that a device remembers. */
#include "attach/identity.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/text.h"
#include "netlink/nbd-driver.h"

#define FIRST_WORD "nbd-export/1 "
#define NO_NAME "-"

int attach_name_check(const char *name, struct failure *why)
{
	static const char legal[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	                            "0123456789:-_.";
	char shown[ATTACH_NAME_MAX + 4];

	if (*name && strlen(name) <= ATTACH_NAME_MAX && *name != '-' && *name != '.' &&
	    name[strspn(name, legal)] == '\0')
		return 0;
	printable(span_of(name), ATTACH_NAME_MAX, shown, sizeof shown);
	return fail_plain(why, EINVAL, "\"%s\" cannot be the name of an attached device: 1 to %u "
	                  "letters, digits and :-_., not starting with a dot or a dash", shown,
	                  ATTACH_NAME_MAX);
}

void identity_format(const struct attach_identity *id, char ret[ATTACH_IDENTITY_MAX])
{
	(void) snprintf(ret, ATTACH_IDENTITY_MAX, FIRST_WORD "%s %u %s",
	                *id->name ? id->name : NO_NAME, id->connections, id->uri);
}

/* A word of `text` up to a blank, at most `size` - 1 bytes; what follows the blank, or NULL. */
static const char *take_word(const char *text, char *ret, size_t size)
{
	const char *blank = strchr(text, ' ');

	if (!blank || blank == text || (size_t) (blank - text) >= size)
		return NULL;
	memcpy(ret, text, (size_t) (blank - text));
	ret[blank - text] = '\0';
	return blank + 1;
}

bool identity_parse(const char *text, struct attach_identity *ret)
{
	struct attach_identity id = { .name = "" };
	char number[8] = "";
	char *end;
	unsigned long n;

	if (strncmp(text, FIRST_WORD, strlen(FIRST_WORD)) != 0)
		return false;
	text = take_word(text + strlen(FIRST_WORD), id.name, sizeof id.name);
	if (text)
		text = take_word(text, number, sizeof number);
	if (!text || !*text || strlen(text) > NBD_URI_MAX || strchr(text, ' '))
		return false;
	n = strtoul(number, &end, 10);
	if (*end || number[0] < '0' || number[0] > '9' || n < 1 || n > NBD_MAX_SOCKETS)
		return false;
	if (strcmp(id.name, NO_NAME) == 0)
		id.name[0] = '\0';
	id.connections = (unsigned) n;
	(void) strcpy(id.uri, text);
	*ret = id;
	return true;
}
