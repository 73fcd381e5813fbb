/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line.  One table says which option belongs to which verbs; a wrong one ends
 * the program with status 2.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "protocol.h"

enum verb {
	VERB_RUN = 1 << 0,
	VERB_CONNECT = 1 << 1,
	VERB_IDLE = 1 << 2,
	VERB_STATUS = 1 << 3,
	VERB_NULL = 1 << 4,
};

enum operation { OPERATION_READ, OPERATION_WRITE, OPERATION_MIX };
enum pattern { PATTERN_RANDOM, PATTERN_SEQUENTIAL };

struct settings {
	const char *to;
	const char *listen;
	const char *export_name;
	const char *context;            /* whose status is asked for */
	const char *tls;                /* NULL: in clear; see stream_start_tls() */
	unsigned mode;                  /* enum mode, operation, pattern */
	unsigned operation;
	unsigned pattern;
	uint64_t read_percent;
	uint64_t block;
	uint64_t depth;
	uint64_t connections;
	uint64_t requests;
	uint64_t region;
	uint64_t seed;
	uint64_t repeat;
	uint64_t size;
	uint64_t socket_buffer;
	double seconds;
	bool verify;
	bool json;
};

/* Reads the words after the verb; "--help" prints the verb's options and exits. */
void settings_read(enum verb verb, char **words, struct settings *ret_settings);

/* Says what is wrong with the command line and exits with status 2. */
_Noreturn void refuse_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
