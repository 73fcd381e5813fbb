/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of `nbdctl serve`: a table with one row and one function per option.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/export-settings.h"
#include "base/failure.h"

/* Every string is borrowed from argv. */
struct serve_options {
	char **paths;                   /* [NAME=]PATH, as given */
	size_t n_paths;
	const char *config;             /* a folder; NULL with paths */
	const char **listen;            /* ADDRESS:PORT */
	size_t n_listen;
	const char **unix_paths;
	size_t n_unix;
	const char *description;        /* "" if not given */
	bool read_only;
	bool direct;
	bool shared;
	uint64_t memory;                /* bytes; 0 if not given */
	bool single_writer;
	uint32_t max_connections;
	uint32_t threads;
	enum export_engine engine;
	const char *tls;                /* the folder with keys; NULL: no TLS */
	bool tls_required;
	bool insecure_listen;
	bool debug;
	bool help;
};

/* -EINVAL and a sentence for a command line that is not right.  argv[0] is the verb. */
int serve_options_parse(int argc, char **argv, struct serve_options *ret, struct failure *why);
void serve_options_clear(struct serve_options *o);

/* The first --listen that other machines reach, unless --insecure-listen or --tls-required is for
 * that; NULL. */
const char *serve_options_open_address(const struct serve_options *o);

/* Whether other machines reach it and a certificate, or a key, is what keeps them out. */
bool serve_options_tls_guards(const struct serve_options *o);

enum tls_policy serve_options_tls(const struct serve_options *o);

/* Prints the options' lines of --help. */
void serve_options_print(void);
