/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Takes a URI apart. */
#include "attach/uri.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/attr.h"
#include "base/bytes.h"
#include "base/text.h"

#define DEFAULT_PORT "10809"

static int refuse(const char *text, const char *what, struct failure *why)
{
	char shown[132];

	printable(span_of(text), 128, shown, sizeof shown);
	return fail_plain(why, EINVAL, "%s is not a URI that can be attached: %s", shown, what);
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;

	return at ? (int) (at - digits) : -1;
}

/* Decodes %XX of `len` bytes; false for broken escapes, for a NUL and for what does not fit. */
static bool unescape(const char *from, size_t len, char *ret, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int c = (unsigned char) from[i];

		if (c == '%') {
			int high = i + 2 < len ? hex_digit(from[i + 1]) : -1;
			int low = high >= 0 ? hex_digit(from[i + 2]) : -1;

			if (low < 0)
				return false;
			c = high << 4 | low;
			i += 2;
		}
		if (c == 0 || n + 1 >= size)
			return false;
		ret[n++] = (char) c;
	}
	ret[n] = '\0';
	return true;
}

/* HOST, HOST:PORT, [V6] or [V6]:PORT. */
static const char *read_authority(const char *at, size_t len, struct nbd_uri *uri)
{
	const char *end = at + len, *host_end, *port;

	if (len == 0)
		return "it names no host";
	if (memchr(at, '@', len))
		return "a user in it, for a pre-shared key, is not taken";
	if (*at == '[') {
		at++;
		host_end = memchr(at, ']', (size_t) (end - at));
		if (!host_end)
			return "the ] is missing";
		port = host_end + 1;
	} else {
		host_end = memchr(at, ':', len);
		port = host_end ? host_end : end;
		host_end = port;
	}
	if (host_end == at || !unescape(at, (size_t) (host_end - at), uri->host, sizeof uri->host))
		return "the host's name is broken";
	(void) strcpy(uri->port, DEFAULT_PORT);
	if (port == end)
		return NULL;
	if (*port != ':' || end - port < 2 || end - port > 6 ||
	    strspn(port + 1, "0123456789") < (size_t) (end - port - 1))
		return "the port is broken";
	memcpy(uri->port, port + 1, (size_t) (end - port - 1));
	uri->port[end - port - 1] = '\0';
	return NULL;
}

static const char *read_socket(const char *at, size_t len, struct nbd_uri *uri)
{
	if (*uri->socket)
		return "socket= is given twice";
	if (!unescape(at, len, uri->socket, sizeof uri->socket) || uri->socket[0] != '/')
		return "socket= is not an absolute path of at most 107 bytes";
	return NULL;
}

static const char *read_tls_host(const char *at, size_t len, struct nbd_uri *uri)
{
	if (*uri->tls_host)
		return "tls-hostname= is given twice";
	if (!unescape(at, len, uri->tls_host, sizeof uri->tls_host) || !*uri->tls_host)
		return "tls-hostname= is no name";
	return NULL;
}

static const char *read_parameter(const char *at, size_t len, struct nbd_uri *uri)
{
	static const struct {
		const char *key;
		const char *(*read)(const char *at, size_t len, struct nbd_uri *uri);
	} keys[] = {
		{ "socket=", read_socket },
		{ "tls-hostname=", read_tls_host },
	};

	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		size_t key_len = strlen(keys[i].key);

		if (len >= key_len && memcmp(at, keys[i].key, key_len) == 0)
			return keys[i].read(at + key_len, len - key_len, uri);
	}
	if (len == 0)
		return NULL;
	return "it has a parameter that is not known (socket= and tls-hostname= are)";
}

static const char *read_query(const char *query, struct nbd_uri *uri)
{
	while (query && *query) {
		size_t len = strcspn(query, "&;");
		const char *fault = read_parameter(query, len, uri);

		if (fault)
			return fault;
		query += len + (query[len] != '\0');
	}
	return NULL;
}

/* "/NAME?QUERY" behind the authority. */
static const char *read_rest(const char *rest, struct nbd_uri *uri)
{
	size_t len = strcspn(rest, "?");

	if (strchr(rest, '#'))
		return "there is a # in it (write %23)";
	if (len > 0 && !unescape(rest + 1, len - 1, uri->name, sizeof uri->name))
		return "the export's name is broken";
	return read_query(rest[len] ? rest + len + 1 : NULL, uri);
}

static const char *read_tcp(const char *at, struct nbd_uri *uri)
{
	size_t len = strcspn(at, "/?#");
	const char *fault = read_authority(at, len, uri);

	if (!fault)
		fault = read_rest(at + len, uri);
	if (!fault && *uri->socket)
		fault = "socket= belongs to nbd+unix://";
	return fault;
}

static const char *read_unix(const char *at, struct nbd_uri *uri)
{
	size_t len = strcspn(at, "/?#");
	const char *fault = len ? "a host does not belong into nbd+unix:// (write three slashes)"
	                        : read_rest(at + len, uri);

	if (!fault && !*uri->socket)
		fault = "?socket=/PATH is missing";
	return fault;
}

/* Whose certificate it must be: the host's that was asked for, unless it is said otherwise. */
static const char *settle_tls_host(struct nbd_uri *uri, bool tls)
{
	if (!tls)
		return *uri->tls_host ? "tls-hostname= belongs to nbds:// and nbds+unix://" : NULL;
	if (!*uri->tls_host)
		(void) strcpy(uri->tls_host, *uri->host ? uri->host : "localhost");
	return NULL;
}

static bool has_blank(const char *text)
{
	for (; *text; text++)
		if ((unsigned char) *text <= ' ' || *text == 0x7f)
			return true;
	return false;
}

int nbd_uri_parse(const char *text, struct nbd_uri *ret, struct failure *why)
{
	static const struct {
		const char *scheme;
		const char *(*read)(const char *at, struct nbd_uri *uri);
		bool tls;
	} schemes[] = {
		{ "nbd://", read_tcp, false },
		{ "nbd+unix://", read_unix, false },
		{ "nbds://", read_tcp, true },
		{ "nbds+unix://", read_unix, true },
	};
	struct nbd_uri uri = { .host = "" };

	if (strlen(text) > NBD_URI_MAX)
		return refuse(text, "it is too long", why);
	if (has_blank(text))
		return refuse(text, "there is a blank in it (write %20)", why);
	(void) strcpy(uri.text, text);
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i].scheme);
		const char *fault;

		if (strncmp(text, schemes[i].scheme, len) != 0)
			continue;
		fault = schemes[i].read(text + len, &uri);
		if (!fault)
			fault = settle_tls_host(&uri, schemes[i].tls);
		if (fault)
			return refuse(text, fault, why);
		*ret = uri;
		return 0;
	}
	return refuse(text, "it begins with none of nbd://, nbd+unix://, nbds:// and nbds+unix://",
	              why);
}
