/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files of a folder of keys: their names, who may read them, and their text.  They are read
 * here, not by GnuTLS, so that nothing else is opened; no sentence ever has a byte of one.
 */
#pragma once

#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/failure.h"

enum key_file { SERVER_CERT, SERVER_KEY, CA_CERT, CA_CRL, PSK_KEYS, CLIENT_CERT, CLIENT_KEY,
                N_KEY_FILES };

const char *key_file_name(enum key_file which);

/* A folder of them.  Opened before the sandbox; read in it too. */
struct credentials_folder {
	const char *path;               /* for sentences */
	int fd;                         /* O_PATH; -1 when there is none */
	bool private;                   /* the service manager's: it sees to who may read */
};

int credentials_folder_open(const char *path, struct credentials_folder *ret,
                            struct failure *why);

/* Whether one of the files is there, even an empty one: then what is missing has been withdrawn. */
bool credentials_folder_has_files(const struct credentials_folder *folder);

/* A file's text; terminated, for good measure.  Empty when there is no such file. */
struct key_text {
	uint8_t *at;
	size_t len;
	mode_t mode;
	char path[256];
};

/* What holds secrets and can be read by others is refused. */
int key_file_read(const struct credentials_folder *folder, enum key_file which,
                  struct key_text *text, struct failure *why);

/* Forgets it, in memory too. */
void key_text_clear(struct key_text *text);

#define AUTO_KEY_TEXT __attribute__((cleanup(key_text_clear))) struct key_text

static inline gnutls_datum_t datum_of(const struct key_text *text)
{
	return (gnutls_datum_t) { .data = text->at, .size = (unsigned) text->len };
}
