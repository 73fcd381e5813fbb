/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/journal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-journal.h>
#include <time.h>

#include "base/attr.h"
#include "base/text.h"
#include "ctl/units.h"

#define FIELD_SHOWN 4096u               /* bytes of a message */
#define NEGOTIATOR "_SYSTEMD_UNIT=nbd-negotiator.service"

static void close_journal(sd_journal **j)
{
	sd_journal_close(*j);
}

/* One alternative: up to three fields that an entry must all have. */
static int match(sd_journal *j, const char *a, const char *b, const char *c)
{
	const char *fields[] = { a, b, c };
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(fields) && r >= 0; i++)
		if (fields[i])
			r = sd_journal_add_match(j, fields[i], 0);
	return r < 0 ? r : sd_journal_add_disjunction(j);
}

/* As `journalctl -u` does: fields without a "_" are believed only of whom may say such. */
static int match_unit(sd_journal *j, const char *unit)
{
	char own[UNIT_NAME_SIZE + 32], of_manager[UNIT_NAME_SIZE + 32];
	char of_root[UNIT_NAME_SIZE + 32], dumped[UNIT_NAME_SIZE + 32];
	int r;

	(void) snprintf(own, sizeof own, "_SYSTEMD_UNIT=%s", unit);
	(void) snprintf(of_manager, sizeof of_manager, "UNIT=%s", unit);
	(void) snprintf(of_root, sizeof of_root, "OBJECT_SYSTEMD_UNIT=%s", unit);
	(void) snprintf(dumped, sizeof dumped, "COREDUMP_UNIT=%s", unit);
	r = match(j, own, NULL, NULL);
	if (r >= 0)
		r = match(j, "_PID=1", of_manager, NULL);
	if (r >= 0)
		r = match(j, "_UID=0", of_root, NULL);
	if (r >= 0)
		r = match(j, "_UID=0", dumped, NULL);
	return r;
}

static int match_export(sd_journal *j, const char *label)
{
	char unit[UNIT_NAME_SIZE], about[UNIT_NAME_SIZE];
	int r;

	units_service_of(label, unit);
	r = match_unit(j, unit);
	units_socket_of(label, unit);
	if (r >= 0)
		r = match_unit(j, unit);
	(void) snprintf(about, sizeof about, "EXPORT=%s", label);
	return r < 0 ? r : match(j, NEGOTIATOR, about, NULL);
}

/* A field's value, made printable; "" if it has none. */
static void get_field(sd_journal *j, const char *field, char *ret, size_t size)
{
	size_t skip = strlen(field) + 1;
	const void *data;
	size_t len;

	*ret = '\0';
	if (sd_journal_get_data(j, field, &data, &len) < 0 || len < skip)
		return;
	printable((struct span) { (const uint8_t *) data + skip, len - skip }, size - 4, ret, size);
}

static void print_time(sd_journal *j)
{
	char text[64] = "";
	uint64_t usec;
	time_t seconds;
	struct tm tm;

	if (sd_journal_get_realtime_usec(j, &usec) < 0)
		return;
	seconds = (time_t) (usec / 1000000);
	if (localtime_r(&seconds, &tm))
		(void) strftime(text, sizeof text, "%b %d %H:%M:%S ", &tm);
	(void) fputs(text, stdout);
}

/* "Nov 24 00:32:40 host nbd-export[4711]: message" */
static void print_entry(sd_journal *j)
{
	char host[128], program[128], pid[32], message[FIELD_SHOWN + 4];

	get_field(j, "_HOSTNAME", host, sizeof host);
	get_field(j, "SYSLOG_IDENTIFIER", program, sizeof program);
	if (!*program)
		get_field(j, "_COMM", program, sizeof program);
	get_field(j, "_PID", pid, sizeof pid);
	get_field(j, "MESSAGE", message, sizeof message);
	print_time(j);
	(void) printf("%s%s%s", host, *host ? " " : "", *program ? program : "unknown");
	if (*pid)
		(void) printf("[%s]", pid);
	(void) printf(": %s\n", message);
}

/* To before the first entry that is to be printed. */
static int seek(sd_journal *j, uint64_t lines)
{
	int r;

	if (lines == JOURNAL_ALL)
		return sd_journal_seek_head(j);
	r = sd_journal_seek_tail(j);
	if (r < 0)
		return r;
	/* One step more than is printed, unless that is where the journal begins. */
	r = sd_journal_previous_skip(j, lines + 1);
	if (r >= 0 && (uint64_t) r <= lines)
		r = sd_journal_seek_head(j);
	return r;
}

/* How many there were, or -errno. */
static int print_new(sd_journal *j)
{
	int n = 0;
	int r;

	while ((r = sd_journal_next(j)) > 0) {
		print_entry(j);
		n++;
	}
	return r < 0 ? r : n;
}

static int follow_journal(sd_journal *j)
{
	int r = 0;

	while (r >= 0 && fflush(stdout) == 0) {
		r = sd_journal_wait(j, UINT64_MAX);
		if (r >= 0)
			r = print_new(j);
	}
	return r;
}

int journal_print(const char *label, const char *folder, uint64_t lines, bool follow,
                  struct failure *why)
{
	__attribute__((cleanup(close_journal))) sd_journal *j = NULL;
	int n;
	int r = folder ? sd_journal_open_directory(&j, folder, 0)
	               : sd_journal_open(&j, SD_JOURNAL_LOCAL_ONLY);

	if (r < 0)
		return fail(why, -r, "cannot open the journal%s%s", folder ? " in " : "",
		            folder ? folder : "");
	r = match_export(j, label);
	if (r >= 0)
		r = seek(j, lines);
	n = r < 0 ? r : print_new(j);
	r = n >= 0 && follow ? follow_journal(j) : n;
	if (r < 0)
		return fail(why, -r, "cannot read the journal");
	return n;
}
