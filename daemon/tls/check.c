/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tls/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"
#include "base/text.h"
#include "tls/credentials.h"

#define SENTENCE_SIZE 600u
#define SECONDS_PER_DAY 86400

static const char *const words[] = {
	[CHECK_GOOD] = "good", [CHECK_SOON] = "soon", [CHECK_BAD] = "bad", [CHECK_ABSENT] = "absent",
};

static void print_line(const char *file, enum check_result result, time_t ends, const char *subject,
                       const char *sentence)
{
	char shown[SENTENCE_SIZE + 4], date[24] = "-";

	printable(span_of(sentence), SENTENCE_SIZE, shown, sizeof shown);
	if (ends)
		(void) snprintf(date, sizeof date, "%" PRId64, (int64_t) ends);
	(void) printf("%s\t%s\t%s\t%s\t%s\n", file, words[result], date, *subject ? subject : "-",
	              *shown ? shown : "-");
}

void check_say(struct check *c, enum key_file which, enum check_result result, const char *fmt, ...)
{
	struct checked_file *file = &c->file[which];
	char sentence[SENTENCE_SIZE];
	va_list args;

	va_start(args, fmt);
	(void) vsnprintf(sentence, sizeof sentence, fmt, args);
	va_end(args);
	file->n_findings++;
	c->n_wrong += result == CHECK_BAD || result == CHECK_SOON;
	print_line(key_file_name(which), result, file->ends, file->subject, sentence);
}

static void date_of(time_t at, char *ret, size_t size)
{
	struct tm tm;

	*ret = '\0';
	if (gmtime_r(&at, &tm))
		(void) strftime(ret, size, "%Y-%m-%d %H:%M UTC", &tm);
}

void check_dates(struct check *c, enum key_file which, const char *what, time_t from, time_t to)
{
	time_t soon = c->now + (time_t) c->wishes->within_days * SECONDS_PER_DAY;
	char date[40];

	date_of(from > c->now ? from : to, date, sizeof date);
	if (from > c->now)
		check_say(c, which, CHECK_BAD, "%s is not valid before %s", what, date);
	else if (to < c->now)
		check_say(c, which, CHECK_BAD, "%s expired on %s", what, date);
	else if (to < soon)
		check_say(c, which, CHECK_SOON, "%s expires on %s", what, date);
}

/* Keeps what can be read, and who else may change it. */
static void read_file(struct check *c, const struct credentials_folder *folder, enum key_file which)
{
	struct checked_file *file = &c->file[which];
	struct failure why = { 0 };

	if (key_file_read(folder, which, &file->text, &why) < 0) {
		check_say(c, which, CHECK_BAD, "%s", why.text);
		key_text_clear(&file->text);
		return;
	}
	file->there = file->text.len > 0;
	if (file->there && !folder->private && file->text.mode & (S_IWGRP | S_IWOTH))
		check_say(c, which, CHECK_BAD, "others than its owner may change it (chmod go-w %s)",
		          file->text.path);
}

/* Others could put files of theirs into it. */
static void check_mode(struct check *c, const struct credentials_folder *folder)
{
	struct stat st;

	if (folder->private || fstat(folder->fd, &st) < 0 || !(st.st_mode & (S_IWGRP | S_IWOTH)))
		return;
	c->n_wrong++;
	print_line(".", CHECK_BAD, 0, "", "others than its owner may put files into the folder "
	           "(chmod go-w)");
}

static void check_psk(struct check *c)
{
	const struct checked_file *file = &c->file[PSK_KEYS];
	const struct span text = { .at = file->text.at, .len = file->text.len };
	struct psk_keys keys = { 0 };
	struct failure why = { 0 };

	if (!file->there)
		return;
	if (psk_keys_parse(text, file->text.path, &keys, &why) < 0)
		check_say(c, PSK_KEYS, CHECK_BAD, "%s", why.text);
	else if (!file->n_findings)
		check_say(c, PSK_KEYS, CHECK_GOOD, "%zu key%s", keys.n, keys.n == 1 ? "" : "s");
	psk_keys_clear(&keys);
}

/* Of files that go together, one that is not there. */
static void check_missing(struct check *c)
{
	bool cert = c->file[SERVER_CERT].there, key = c->file[SERVER_KEY].there;
	bool ca = c->file[CA_CERT].there, psk = c->file[PSK_KEYS].there;
	bool broken_key = c->file[SERVER_KEY].n_findings > 0, broken_ca = c->file[CA_CERT].n_findings > 0;

	if (key && !cert && !c->file[SERVER_CERT].n_findings)
		check_say(c, SERVER_CERT, CHECK_BAD, "it is not there, though its key is");
	if (cert && !key && !broken_key)
		check_say(c, SERVER_KEY, CHECK_BAD, "it is not there, though its certificate is");
	if (ca || broken_ca)
		return;
	if (c->file[CA_CRL].there)
		check_say(c, CA_CERT, CHECK_BAD, "it is not there, though there is a list of revoked "
		          "certificates");
	else if (cert && !psk)
		check_say(c, CA_CERT, CHECK_BAD, "it is not there, so no client can show who it is");
}

/* A line for each file of which nothing was said; those to attach exports only where they are. */
static void tell_rest(struct check *c)
{
	for (unsigned i = 0; i < N_KEY_FILES; i++)
		if (!c->file[i].n_findings && (c->file[i].there || i < CLIENT_CERT))
			print_line(key_file_name((enum key_file) i),
			           c->file[i].there ? CHECK_GOOD : CHECK_ABSENT, c->file[i].ends,
			           c->file[i].subject, "");
}

/* nbd-tls itself must be able to use them: what is not known above is known to GnuTLS. */
static int check_use(struct check *c, const struct credentials_folder *folder, struct failure *why)
{
	struct credentials *credentials;
	struct failure fault = { 0 };
	int r = credentials_prepare(why);

	if (r < 0)
		return r;
	r = credentials_read(folder, false, &credentials, &fault);
	if (r == 0)
		credentials_unref(credentials);
	if (r == 0 || c->n_wrong)
		return 0;
	c->n_wrong++;
	print_line(".", CHECK_BAD, 0, "", fault.text);
	return 0;
}

int check_folder(const struct credentials_folder *folder, const struct check_wishes *wishes,
                 struct failure *why)
{
	struct check *c = calloc(1, sizeof *c);
	int r;

	if (!c)
		return fail(why, ENOMEM, "cannot check %s", folder->path);
	c->wishes = wishes;
	c->now = time(NULL);
	for (unsigned i = 0; i < N_KEY_FILES; i++)
		read_file(c, folder, (enum key_file) i);
	check_mode(c, folder);
	check_missing(c);
	check_ca(c);
	check_server(c);
	check_crl(c);
	check_psk(c);
	tell_rest(c);
	r = check_use(c, folder, why);
	if (r == 0)
		r = c->n_wrong == 0;
	check_free_certificates(c);
	for (unsigned i = 0; i < N_KEY_FILES; i++)
		key_text_clear(&c->file[i].text);
	free(c);
	return r;
}
