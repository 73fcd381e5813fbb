/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes log entries, each whole with one system call, so that threads and processes
 * that share a stderr never mix their lines; log-sink.h says how long that may take.
 *
 * Speaks the journal's native protocol itself (one datagram of FIELD=value lines): its
 * socket is connected by log_start(), before any sandbox, and afterwards only written
 * to.  A journal that does not take an entry gets it over stderr.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/log-sink.h"
#include "base/text.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define TEXT_SIZE 2048u         /* of one entry's text, as it comes */
#define SUBJECT_SHOWN 128u      /* of a label or an address, in a field of its own */

static const char *program;
static const char *own_export;
static atomic_int highest_level = LOG_INFO;
static int journal = -1;        /* set once, at the start; there is no end to logging */
static bool names_unit;         /* OBJECT_SYSTEMD_UNIT= */

/* Whether stderr is the journal's stream, as JOURNAL_STREAM=DEVICE:INODE says. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	if (!stream || sscanf(stream, "%llu:%llu", &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static int connect_journal(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
	AUTO_FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *) &address, sizeof address) < 0)
		return -1;
	return take_fd(&fd);
}

void log_start(const char *program_name, int level)
{
	program = program_name;
	log_set_level(level);
	log_sink_is_main_thread();
	if (journal < 0 && stderr_is_journal())
		journal = connect_journal();
}

bool log_use_journal(void)
{
	if (journal < 0)
		journal = connect_journal();
	names_unit = journal >= 0;
	return names_unit;
}

void log_wait_for_reader(void)
{
	log_sink_waits();
}

void log_set_export(const char *label)
{
	own_export = label;
}

void log_set_level(int level)
{
	atomic_store_explicit(&highest_level, level, memory_order_relaxed);
}

int log_level(void)
{
	return atomic_load_explicit(&highest_level, memory_order_relaxed);
}

static const char *level_prefix(int level)
{
	if (level <= LOG_ERR)
		return "error: ";
	if (level == LOG_WARNING)
		return "warning: ";
	return level == LOG_DEBUG ? "debug: " : "";
}

/* Appends to a text of `size`; what does not fit is cut off. */
static void append(char *text, size_t size, const char *fmt, ...) PRINTF(3, 4);
static void append(char *text, size_t size, const char *fmt, ...)
{
	size_t len = strlen(text);
	va_list args;

	va_start(args, fmt);
	(void) vsnprintf(text + len, size - len, fmt, args);
	va_end(args);
}

static void append_printable(char *text, size_t size, const char *raw, size_t max_shown)
{
	size_t len = strlen(text);

	printable(span_of(raw), max_shown, text + len, size - len);
}

/* "client ADDRESS: text (reason)": what a person needs in both kinds of log. */
static void append_sentence(char *line, size_t size, const struct subject *about,
                            const char *text)
{
	if (about->client) {
		append(line, size, "client ");
		append_printable(line, size, about->client, SUBJECT_SHOWN);
		append(line, size, ": ");
	}
	append_printable(line, size, text, TEXT_SIZE);
	if (about->reason) {
		append(line, size, " (");
		append_printable(line, size, about->reason, SUBJECT_SHOWN);
		append(line, size, ")");
	}
}

static void append_field(char *entry, size_t size, const char *field, const char *value)
{
	if (!value)
		return;
	append(entry, size, "%s=", field);
	append_printable(entry, size, value, SUBJECT_SHOWN);
	append(entry, size, "\n");
}

static void append_number(char *entry, size_t size, const char *field, uint64_t value)
{
	append(entry, size, "%s=%" PRIu64 "\n", field, value);
}

static void append_event(char *entry, size_t size, const struct subject *about)
{
	const struct event_kind *kind = event_kind(about->event);
	const struct log_counters *c = about->counters;

	if (kind)
		append(entry, size, "MESSAGE_ID=%s\nEVENT=%s\n", kind->id, kind->name);
	if (about->connection)
		append_number(entry, size, "CONNECTION", about->connection);
	if (about->bytes)
		append_number(entry, size, "BYTES", about->bytes);
	if (about->sectors)
		append_number(entry, size, "SECTORS", about->sectors);
	if (!c)
		return;
	append_number(entry, size, "REQUESTS", c->requests);
	append_number(entry, size, "ERRORS", c->errors);
	append_number(entry, size, "BYTES_READ", c->bytes_read);
	append_number(entry, size, "BYTES_WRITTEN", c->bytes_written);
	append_number(entry, size, "DURATION_USEC", c->duration_usec);
}

/* No value holds a newline, so every field has the simple form.  MESSAGE, the one that
 * may be long, comes last. */
static int to_journal(int level, const struct subject *about, const char *name,
                       const char *text)
{
	char entry[2 * TEXT_SIZE] = "";

	append(entry, sizeof entry, "PRIORITY=%d\n", level);
	append_field(entry, sizeof entry, "SYSLOG_IDENTIFIER", name);
	append_field(entry, sizeof entry, "EXPORT", about->export_label);
	if (names_unit && about->export_label)
		append(entry, sizeof entry, "OBJECT_SYSTEMD_UNIT=nbd-export@%s.service\n",
		       about->export_label);
	append_field(entry, sizeof entry, "CLIENT", about->client);
	append_field(entry, sizeof entry, "REASON", about->reason);
	append_field(entry, sizeof entry, "BITMAP", about->bitmap);
	if (about->identity && *about->identity)
		append_field(entry, sizeof entry, "IDENTITY", about->identity);
	append_event(entry, sizeof entry, about);
	append(entry, sizeof entry, "MESSAGE=");
	if (about->export_label) {
		append(entry, sizeof entry, "export ");
		append_printable(entry, sizeof entry, about->export_label, SUBJECT_SHOWN);
		append(entry, sizeof entry, ": ");
	}
	append_sentence(entry, sizeof entry - 1, about, text);
	append(entry, sizeof entry, "\n");
	return log_sink_write(journal, entry, strlen(entry));
}

static int to_stderr(int level, const struct subject *about, const char *name,
                      const char *text)
{
	char line[2 * TEXT_SIZE] = "";

	append(line, sizeof line, "%s", name);
	if (about->export_label) {
		append(line, sizeof line, "[");
		append_printable(line, sizeof line, about->export_label, SUBJECT_SHOWN);
		append(line, sizeof line, "]");
	}
	append(line, sizeof line, ": %s", level_prefix(level));
	append_sentence(line, sizeof line - 1, about, text);
	append(line, sizeof line, "\n");
	return log_sink_write(STDERR_FILENO, line, strlen(line));
}

/* 0 also when nowhere is left to tell it; -EAGAIN: it is lost, and may be told as that. */
static int put(int level, const struct subject *about, const char *name, const char *text)
{
	int r = journal < 0 ? -ENOTCONN : to_journal(level, about, name, text);

	if (r < 0 && r != -EAGAIN)
		r = to_stderr(level, about, name, text);
	return r == -EAGAIN ? r : 0;
}

static const char *identifier(void)
{
	return program ? program : program_invocation_short_name;
}

bool log_has_lost(void)
{
	return log_sink_has_lost();
}

void log_tell_lost(void)
{
	const struct event_kind *kind = event_kind(EVENT_MESSAGES_LOST);
	unsigned n = log_sink_take_lost();
	char text[80];

	if (n == 0)
		return;
	(void) snprintf(text, sizeof text, "%u message%s lost: the log did not take %s", n,
	                n == 1 ? " was" : "s were", n == 1 ? "it" : "them");
	/* That it could not be told is not one more. */
	if (put(kind->level, &(struct subject) { .export_label = own_export,
	                                         .event = EVENT_MESSAGES_LOST },
	        identifier(), text) < 0)
		log_sink_give_back_lost(n - 1);
}

static void PRINTF(3, 0) log_args(int level, const struct subject *about, const char *fmt,
                                  va_list args)
{
	struct subject whole = *about;
	char text[TEXT_SIZE];
	int saved = errno;

	if (level > log_level())
		return;
	if (!whole.export_label)
		whole.export_label = own_export;
	(void) vsnprintf(text, sizeof text, fmt, args);
	log_tell_lost();
	(void) put(level, &whole, identifier(), text);
	errno = saved;
}

void log_about(int level, const struct subject *about, const char *fmt, ...)
{
	static const struct subject nobody;
	va_list args;

	va_start(args, fmt);
	log_args(level, about ? about : &nobody, fmt, args);
	va_end(args);
}

void log_event(enum event event, const struct subject *about, const char *fmt, ...)
{
	const struct event_kind *kind = event_kind(event);
	struct subject whole = { 0 };
	va_list args;

	if (about)
		whole = *about;
	whole.event = event;
	va_start(args, fmt);
	log_args(kind ? kind->level : LOG_INFO, &whole, fmt, args);
	va_end(args);
}
