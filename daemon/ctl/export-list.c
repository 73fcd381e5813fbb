/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/export-list.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/access.h"
#include "base/attr.h"
#include "base/log.h"
#include "base/text.h"
#include "ctl/absolute-path.h"

#define LABEL_STEM_MAX 40u      /* bytes of a name that its label shows */
#define SHOWN 128u              /* bytes of a name or path in a sentence */

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char) *text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

/* What a client may be told, and a line of a file may hold. */
static int check_text(const char *what, const char *text, size_t longest, struct failure *why)
{
	char shown[SHOWN + 4];

	printable(span_of(text), SHOWN, shown, sizeof shown);
	if (has_control(text))
		return fail_plain(why, EINVAL, "%s \"%s\" has a control character in it", what,
		                  shown);
	if (!is_utf8(span_of(text)))
		return fail_plain(why, EINVAL, "%s \"%s\" is not valid UTF-8", what, shown);
	if (strlen(text) > longest)
		return fail_plain(why, EINVAL, "%s \"%s\" is longer than %zu bytes", what, shown,
		                  longest);
	return 0;
}

/* What all have in common, and the strings of `s`. */
static struct export_settings with_options(const struct serve_options *o,
                                           const struct export_settings *s)
{
	struct export_settings all = EXPORT_SETTINGS_DEFAULTS;

	all.name = s->name;
	all.device = s->device;
	all.read_only = o->read_only;
	all.direct = o->direct;
	all.shared = o->shared;
	all.memory = o->memory;
	all.max_connections = o->max_connections;
	all.single_writer = o->single_writer;
	all.threads = o->threads;
	all.engine = o->engine;
	return all;
}

/* A file "a=b" may exist, and "x/y=z" can only be a path. */
static const char *find_separator(const char *argument)
{
	const char *equals = strchr(argument, '=');

	if (!equals || memchr(argument, '/', (size_t) (equals - argument)))
		return NULL;
	return access(argument, F_OK) == 0 ? NULL : equals;
}

/* "/dev/vg/web1" is exported as "web1", and so is "/dev/vg/web1/". */
static char *base_name(const char *path)
{
	size_t len = strlen(path);
	size_t start;

	while (len > 1 && path[len - 1] == '/')
		len--;
	start = len;
	while (start > 0 && path[start - 1] != '/')
		start--;
	return strndup(path + start, len - start);
}

static int split(const char *argument, struct export_settings *s, struct failure *why)
{
	const char *equals = find_separator(argument);
	const char *path = equals ? equals + 1 : argument;

	if (equals == argument)
		return fail_plain(why, EINVAL, "\"%s\" has an empty name before the \"=\"; a "
		                  "single export answers to the empty name anyway", argument);
	if (*path == '\0')
		return fail_plain(why, ENOENT, "\"%s\" has an empty path", argument);
	s->name = equals ? strndup(argument, (size_t) (equals - argument)) : base_name(path);
	s->device = absolute_path(path);
	if (!s->name || !s->device)
		return fail(why, errno, "cannot note \"%s\"", argument);
	if (*s->name == '\0') {         /* the path is "/" */
		free(s->name);
		s->name = strdup("root");
		if (!s->name)
			return fail(why, ENOMEM, "cannot note \"%s\"", argument);
	}
	if (has_control(s->device))
		return fail_plain(why, EINVAL, "the path \"%s\" has a control character in it",
		                  s->device);
	if (check_text("the export's name", s->name, EXPORT_NAME_MAX, why) < 0)
		return equals ? -why->code : fail_while(why, "give it another with NAME=PATH");
	return 0;
}

static bool label_taken(const struct export_list *list, const char *label)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->items[i].label, label) == 0)
			return true;
	return false;
}

/* A label that looks like the name: its letters, digits, "-", "_" and "." */
static int make_label(const struct export_list *list, const char *name, char **ret)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	                            "0123456789-_.";
	char stem[LABEL_STEM_MAX + 1];
	AUTO_FREE char *label = NULL;
	size_t len = 0;

	for (; name[len] && len < LABEL_STEM_MAX; len++)
		stem[len] = strchr(plain, name[len]) ? name[len] : '_';
	stem[len] = '\0';
	if (stem[0] == '.' || stem[0] == '-')
		stem[0] = '_';

	label = strdup(stem);
	for (unsigned n = 2; label && label_taken(list, label); n++) {
		free(label);
		if (asprintf(&label, "%s-%u", stem, n) < 0)
			label = NULL;
	}
	if (!label)
		return -ENOMEM;
	*ret = take_ptr(label);
	return 0;
}

/* The sentence names both, since either may be the mistake. */
static int check_unique(const struct export_list *list, const struct export_settings *s,
                        struct failure *why)
{
	char shown[SHOWN + 4];

	for (size_t i = 0; i < list->n; i++) {
		if (strcmp(list->items[i].name, s->name) != 0)
			continue;
		printable(span_of(s->name), SHOWN, shown, sizeof shown);
		return fail_plain(why, EEXIST, "%s and %s would both be exported as \"%s\"; give "
		                  "one another name with NAME=PATH", list->items[i].device,
		                  s->device, shown);
	}
	return 0;
}

static int from_path(const struct serve_options *o, const char *argument,
                     const struct export_list *before, struct export_settings *s,
                     struct failure *why)
{
	int r = split(argument, s, why);

	if (r == 0)
		r = check_unique(before, s, why);
	if (r < 0)
		return r;
	*s = with_options(o, s);
	if (make_label(before, s->name, &s->label) < 0)
		return fail(why, ENOMEM, "cannot note \"%s\"", argument);
	s->description = strdup(o->description);
	if (!s->description)
		return fail(why, ENOMEM, "cannot note the description");
	return 0;
}

int export_list_from_paths(const struct serve_options *o, struct export_list *ret,
                           struct failure *why)
{
	struct export_list list = { 0 };
	int r = check_text("the description", o->description, EXPORT_NAME_MAX, why);

	if (r < 0)
		return r;
	list.items = calloc(o->n_paths, sizeof *list.items);
	if (!list.items)
		return fail(why, ENOMEM, "cannot note %zu paths", o->n_paths);
	for (size_t i = 0; i < o->n_paths && r == 0; i++) {
		r = from_path(o, o->paths[i], &list, &list.items[i], why);
		if (r < 0)
			export_settings_clear(&list.items[i]);
		else
			list.n++;
	}
	if (r < 0) {
		export_list_clear(&list);
		return r;
	}
	*ret = list;
	return 0;
}

static void log_bad_file(void *userdata, const char *path, const struct failure *why)
{
	(void) userdata;
	(void) path;
	log_error("%s; this file is skipped", why->text);
}

int export_list_from_folder(const char *folder, struct export_list *ret, struct failure *why)
{
	return export_settings_read_folder(folder, &ret->items, &ret->n, log_bad_file, NULL, why);
}

int export_list_let_anybody_in(struct export_list *list, struct failure *why)
{
	for (size_t i = 0; i < list->n; i++) {
		char **allow = &list->items[i].allow;

		if (*allow && **allow)
			continue;
		free(*allow);
		*allow = strdup(ACCESS_ANYBODY);
		if (!*allow)
			return fail(why, ENOMEM, "cannot note who may connect");
	}
	return 0;
}

void export_list_clear(struct export_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		export_settings_clear(&list->items[i]);
	free(list->items);
	*list = (struct export_list) { 0 };
}
