/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `nbd-tls --check`: what is wrong with the files, all of it at once, for `nbdctl tls check`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "base/failure.h"
#include "tls/key-file.h"

#define CHECK_HOSTS_MAX 64u
#define CHECK_WITHIN_DAYS 30u

struct check_wishes {
	const char *host[CHECK_HOSTS_MAX];      /* that the certificate must be for */
	size_t n_hosts;
	unsigned within_days;           /* what ends so soon is told of */
};

/*
 * Prints a line for each finding, and one for each file without: FILE, RESULT (good, soon, bad,
 * absent), when it ends (seconds since 1970, or -), its SUBJECT (or -), and a sentence (or -), with
 * tabs between them.  1: all is well, 0: not, negative: it could not be found out.
 */
int check_folder(const struct credentials_folder *folder, const struct check_wishes *wishes,
                 struct failure *why);

/* --- between check.c and check-certificates.c ---------------------------------- */

enum check_result { CHECK_GOOD, CHECK_SOON, CHECK_BAD, CHECK_ABSENT };

struct checked_file {
	struct key_text text;
	bool there;                     /* and could be read */
	unsigned n_findings;
	char subject[260];
	time_t ends;                    /* 0 where it does not */
};

struct check {
	const struct check_wishes *wishes;
	time_t now;
	unsigned n_wrong;
	struct checked_file file[N_KEY_FILES];
	gnutls_x509_crt_t *chain, *ca;  /* the server's and those behind it; who vouches */
	unsigned n_chain, n_ca;
};

/* One finding about a file. */
void check_say(struct check *c, enum key_file which, enum check_result result, const char *fmt, ...)
	PRINTF(4, 5);
/* About something that is good from one date to another: whether now is between them, for long. */
void check_dates(struct check *c, enum key_file which, const char *what, time_t from, time_t to);

/* What is in the files that hold certificates; the CA's first. */
void check_ca(struct check *c);
void check_server(struct check *c);
void check_crl(struct check *c);
void check_free_certificates(struct check *c);
