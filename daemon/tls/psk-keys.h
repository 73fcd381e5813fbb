/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pre-shared keys as psktool(1) writes them: lines of "identity:hexadecimal key".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/failure.h"

struct psk_key {
	char *identity;                 /* UTF-8 without control characters, to TLS_NAME_MAX bytes */
	uint8_t *key;
	size_t len;
};

struct psk_keys {
	struct psk_key *keys;
	size_t n;
};

/* Reads the file's text.  Sentences name `path` and the line, never what is in it. */
int psk_keys_parse(struct span text, const char *path, struct psk_keys *ret, struct failure *why);

/* NULL when there is no such identity. */
const struct psk_key *psk_keys_find(const struct psk_keys *keys, struct span identity);

/* Forgets the keys, in memory too. */
void psk_keys_clear(struct psk_keys *keys);
