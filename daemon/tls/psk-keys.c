/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tls/psk-keys.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"
#include "wire/tls-channel.h"

#define KEY_MIN 16u             /* bytes */
#define KEY_MAX 64u
#define MOST_KEYS 65536u

static int digit_of(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* The key of `hex`, or NULL. */
static uint8_t *key_of(struct span hex, size_t *ret_len)
{
	AUTO_FREE uint8_t *key = NULL;

	if (hex.len % 2 || hex.len < 2 * KEY_MIN || hex.len > 2 * KEY_MAX)
		return NULL;
	key = malloc(hex.len / 2);
	for (size_t i = 0; key && i < hex.len; i += 2) {
		int high = digit_of(hex.at[i]), low = digit_of(hex.at[i + 1]);

		if (high < 0 || low < 0)
			return NULL;
		key[i / 2] = (uint8_t) (high << 4 | low);
	}
	*ret_len = hex.len / 2;
	return take_ptr(key);
}

static bool is_identity(struct span text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.at[i] < 0x20 || text.at[i] == 0x7f)
			return false;
	return text.len && text.len <= TLS_NAME_MAX && text.at[0] != '#' && is_utf8(text);
}

/* Makes room for one more: 16, 32, 64... */
static int reserve(struct psk_keys *keys)
{
	struct psk_key *more;

	if (keys->n < 16 ? keys->n > 0 : (keys->n & (keys->n - 1)) != 0)
		return 0;
	more = reallocarray(keys->keys, keys->n < 16 ? 16 : 2 * keys->n, sizeof *more);
	if (!more)
		return -ENOMEM;
	keys->keys = more;
	return 0;
}

/* The fault of one line, or NULL. */
static const char *parse_line(struct span line, struct psk_keys *keys)
{
	const uint8_t *colon = line.len ? memrchr(line.at, ':', line.len) : NULL;
	struct span identity = { .at = line.at, .len = colon ? (size_t) (colon - line.at) : 0 };
	struct psk_key key = { 0 };

	if (!colon)
		return "is not \"identity:key\"";
	if (!is_identity(identity))
		return "has an identity that is empty, too long, in hexadecimal, or not text";
	if (psk_keys_find(keys, identity))
		return "has an identity that was there before";
	if (keys->n == MOST_KEYS || reserve(keys) < 0)
		return "is one too many";
	key.key = key_of((struct span) { .at = colon + 1,
	                                 .len = line.len - identity.len - 1 }, &key.len);
	if (!key.key)
		return "has a key that is not 32 to 128 hexadecimal digits";
	key.identity = strndup((const char *) identity.at, identity.len);
	if (!key.identity) {
		free(key.key);
		return "does not fit into memory";
	}
	keys->keys[keys->n++] = key;
	return NULL;
}

int psk_keys_parse(struct span text, const char *path, struct psk_keys *ret, struct failure *why)
{
	struct psk_keys keys = { 0 };

	for (unsigned number = 1; text.len; number++) {
		const uint8_t *end = memchr(text.at, '\n', text.len);
		struct span line = { .at = text.at,
		                     .len = end ? (size_t) (end - text.at) : text.len };
		const char *fault = NULL;

		text.at += line.len + (end != NULL);
		text.len -= line.len + (end != NULL);
		if (line.len && line.at[line.len - 1] == '\r')
			line.len--;
		if (line.len)
			fault = parse_line(line, &keys);
		if (fault) {
			psk_keys_clear(&keys);
			return fail_plain(why, EINVAL, "%s: line %u %s", path, number, fault);
		}
	}
	*ret = keys;
	return 0;
}

const struct psk_key *psk_keys_find(const struct psk_keys *keys, struct span identity)
{
	for (size_t i = 0; i < keys->n; i++)
		if (span_equal(span_of(keys->keys[i].identity), identity))
			return &keys->keys[i];
	return NULL;
}

void psk_keys_clear(struct psk_keys *keys)
{
	for (size_t i = 0; i < keys->n; i++) {
		explicit_bzero(keys->keys[i].key, keys->keys[i].len);
		free(keys->keys[i].key);
		free(keys->keys[i].identity);
	}
	free(keys->keys);
	*keys = (struct psk_keys) { 0 };
}
