/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The verbs of `nbdctl tls`, and what they share.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/failure.h"
#include "ctl/command-line.h"
#include "ctl/tls-site.h"

#define TLS_WORDS_MAX 64u
#define TLS_DAYS 365u

/* What an option that may be given several times has collected.  Borrowed. */
struct tls_words {
	const char *word[TLS_WORDS_MAX];
	size_t n;
};

int tls_verb_check(int argc, char **argv);
int tls_verb_client(int argc, char **argv);
int tls_verb_init(int argc, char **argv);
int tls_verb_revoke(int argc, char **argv);

/* For rows of options. */
int tls_option_host(const char *value, void *words, struct failure *why);
int tls_option_name(const char *value, void *words, struct failure *why);
int tls_option_days(const char *value, void *u32, struct failure *why);

/* "The client alice: FOLDER", and how the files in it are used. */
int tls_tell_client(const struct tls_site *site, const char *name, struct failure *why);
void tls_tell_how(void);
