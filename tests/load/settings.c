/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads the command line by a table. */
#include "settings.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_TEXT, KIND_COUNT, KIND_NUMBER, KIND_SECONDS, KIND_FLAG, KIND_CHOICE };

struct row {
	const char *name;
	unsigned verbs;                 /* bits of enum verb; see `required` */
	unsigned required;
	enum kind kind;
	size_t field;
	uint64_t largest;               /* of a KIND_COUNT, which is at least 1 */
	const char *values;             /* of a KIND_CHOICE, in the order of its enum */
	const char *help;
};

#define CLIENTS (VERB_RUN | VERB_CONNECT | VERB_IDLE | VERB_STATUS)
#define REPORTS (VERB_RUN | VERB_CONNECT | VERB_STATUS)
#define FIELD(name) offsetof(struct settings, name)

static const struct row rows[] = {
	{"to", CLIENTS, CLIENTS, KIND_TEXT, FIELD(to), 0, NULL,
	 "ADDRESS of the server: unix:PATH or tcp:HOST:PORT"},
	{"listen", VERB_NULL, VERB_NULL, KIND_TEXT, FIELD(listen), 0, NULL, "ADDRESS to listen on"},
	{"size", VERB_NULL, VERB_NULL, KIND_COUNT, FIELD(size), INT64_MAX, NULL,
	 "BYTES of the export"},
	{"export", CLIENTS, 0, KIND_TEXT, FIELD(export_name), 0, NULL, "NAME (default: empty)"},
	{"tls", CLIENTS, 0, KIND_TEXT, FIELD(tls), 0, NULL,
	 "x509 (shows and verifies no certificate), or psk:FILE of USER:HEX-KEY"},
	{"mode", CLIENTS, 0, KIND_CHOICE, FIELD(mode), 0, "simple|structured|extended",
	 "replies to negotiate (default: structured)"},
	{"op", VERB_RUN, VERB_RUN, KIND_CHOICE, FIELD(operation), 0, "read|write|mix",
	 "what to ask for"},
	{"read-percent", VERB_RUN, 0, KIND_NUMBER, FIELD(read_percent), 100, NULL,
	 "reads of a mix (default: 70)"},
	{"pattern", VERB_RUN, VERB_RUN, KIND_CHOICE, FIELD(pattern), 0, "random|sequential",
	 "where; sequential connections divide the region"},
	{"block", VERB_RUN, VERB_RUN, KIND_COUNT, FIELD(block), LARGEST_PAYLOAD, NULL,
	 "BYTES of each request"},
	{"depth", VERB_RUN, VERB_RUN, KIND_COUNT, FIELD(depth), 65536, NULL,
	 "requests in flight on each connection"},
	{"connections", VERB_RUN | VERB_IDLE, VERB_RUN | VERB_IDLE, KIND_COUNT, FIELD(connections),
	 1000000, NULL, "how many"},
	{"seconds", VERB_RUN | VERB_CONNECT, VERB_CONNECT, KIND_SECONDS, FIELD(seconds), 0, NULL,
	 "how long"},
	{"requests", VERB_RUN, 0, KIND_COUNT, FIELD(requests), INT64_MAX, NULL,
	 "end after N requests, divided among the connections"},
	{"region", VERB_RUN, 0, KIND_COUNT, FIELD(region), INT64_MAX, NULL,
	 "BYTES from the export's start to use (default: all)"},
	{"seed", VERB_RUN, 0, KIND_NUMBER, FIELD(seed), UINT64_MAX, NULL,
	 "of offsets and content (default: 1)"},
	{"verify", VERB_RUN, 0, KIND_FLAG, FIELD(verify), 0, NULL,
	 "write content that tells its place; check it in what is read"},
	{"context", VERB_STATUS, 0, KIND_TEXT, FIELD(context), 0, NULL,
	 "NAME of what to ask for (default: base:allocation)"},
	{"repeat", VERB_STATUS, 0, KIND_COUNT, FIELD(repeat), 1000000, NULL,
	 "passes over the export (default: 1)"},
	{"socket-buffer", CLIENTS | VERB_NULL, 0, KIND_COUNT, FIELD(socket_buffer), 1u << 30, NULL,
	 "BYTES of each socket buffer (default: the kernel's)"},
	{"json", REPORTS, 0, KIND_FLAG, FIELD(json), 0, NULL, "print one JSON object"},
};

#define N_ROWS (sizeof rows / sizeof *rows)

void refuse_usage(const char *format, ...)
{
	va_list arguments;

	fputs("nbd-load: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputs("; see nbd-load --help\n", stderr);
	exit(2);
}

static void print_help(enum verb verb)
{
	puts("Options (BYTES take K, M, G):");
	for (size_t i = 0; i < N_ROWS; i++) {
		char name[64];

		if (!(rows[i].verbs & verb))
			continue;
		snprintf(name, sizeof name, "--%s%s%s", rows[i].name, rows[i].values ? " " : "",
		         rows[i].values ? rows[i].values : "");
		printf("  %-36s %s%s\n", name, rows[i].help,
		       rows[i].required & verb ? "; needed" : "");
	}
	if (verb == VERB_RUN)
		puts("Either --seconds or --requests; a sequential run without both is one pass.");
}

static uint64_t read_number(const struct row *row, const char *text)
{
	static const char suffixes[] = "KMG";
	char *end;
	unsigned shift = 0;

	errno = 0;
	uint64_t number = strtoull(text, &end, 0);

	if (text[0] < '0' || text[0] > '9' || errno)
		refuse_usage("--%s %s: not a number", row->name, text);
	const char *suffix = *end ? strchr(suffixes, toupper((unsigned char) *end)) : NULL;

	if (suffix) {
		shift = 10 * (unsigned) (suffix - suffixes + 1);
		end++;
	}
	if (*end || number > UINT64_MAX >> shift)
		refuse_usage("--%s %s: not a number", row->name, text);
	number <<= shift;
	if (number > row->largest || (row->kind == KIND_COUNT && number == 0))
		refuse_usage("--%s %s: out of range", row->name, text);
	return number;
}

static double read_seconds(const struct row *row, const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !isfinite(seconds) || seconds <= 0 || seconds > 1e6)
		refuse_usage("--%s %s: not a time", row->name, text);
	return seconds;
}

static unsigned read_choice(const struct row *row, const char *text)
{
	const char *value = row->values;

	for (unsigned i = 0;; i++) {
		size_t n = strcspn(value, "|");

		if (strlen(text) == n && memcmp(value, text, n) == 0)
			return i;
		if (value[n] == '\0')
			refuse_usage("--%s is one of %s", row->name, row->values);
		value += n + 1;
	}
}

static void set_field(const struct row *row, const char *text, struct settings *settings)
{
	void *field = (char *) settings + row->field;

	switch (row->kind) {
	case KIND_TEXT:
		*(const char **) field = text;
		break;
	case KIND_COUNT:
	case KIND_NUMBER:
		*(uint64_t *) field = read_number(row, text);
		break;
	case KIND_SECONDS:
		*(double *) field = read_seconds(row, text);
		break;
	case KIND_FLAG:
		*(bool *) field = true;
		break;
	case KIND_CHOICE:
		*(unsigned *) field = read_choice(row, text);
		break;
	}
}

static size_t find_row(enum verb verb, const char *word)
{
	for (size_t i = 0; i < N_ROWS; i++)
		if (strncmp(word, "--", 2) == 0 && strcmp(word + 2, rows[i].name) == 0 &&
		    rows[i].verbs & verb)
			return i;
	refuse_usage("%s: no such option here", word);
}

void settings_read(enum verb verb, char **words, struct settings *ret_settings)
{
	struct settings settings = {.export_name = "", .context = BASE_ALLOCATION,
	                            .mode = MODE_STRUCTURED,
	                            .read_percent = 70, .seed = 1, .repeat = 1};
	bool given[N_ROWS] = {false};

	for (; *words; words++) {
		if (strcmp(*words, "--help") == 0) {
			print_help(verb);
			exit(0);
		}
		size_t i = find_row(verb, *words);

		if (rows[i].kind != KIND_FLAG && !words[1])
			refuse_usage("%s needs a value", *words);
		if (rows[i].kind != KIND_FLAG)
			words++;
		set_field(&rows[i], *words, &settings);
		given[i] = true;
	}
	for (size_t i = 0; i < N_ROWS; i++)
		if (rows[i].required & verb && !given[i])
			refuse_usage("--%s is needed", rows[i].name);
	*ret_settings = settings;
}
