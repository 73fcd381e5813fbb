/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The catalogue: from files to names. */
#include "negotiator/catalogue.h"

#include <errno.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/log.h"
#include "negotiator/export-link.h"

static void log_bad_file(void *userdata, const char *path, const struct failure *why)
{
	(void) userdata;
	(void) path;                    /* the sentence names it */
	log_error("%s; the file is skipped", why->text);
}

/* The reader has seen to it that names are short, UTF-8 and used once. */
static void add(struct catalogue *c, struct export_settings *s)
{
	struct catalogue_entry *entry = &c->entries[c->n++];

	*entry = (struct catalogue_entry) {
		.label = take_ptr(s->label),
		.name = take_ptr(s->name),
		.description = take_ptr(s->description),
	};
	if (s->is_default)
		c->nameless = entry;
}

int catalogue_read(const char *dir, struct catalogue *ret, struct failure *why)
{
	struct export_settings *all = NULL;
	struct catalogue c = { 0 };
	size_t n = 0;
	int r;

	r = export_settings_read_folder(dir, &all, &n, log_bad_file, NULL, why);
	if (r < 0)
		return r;

	c.entries = calloc(n ? n : 1, sizeof *c.entries);
	for (size_t i = 0; i < n; i++) {
		if (c.entries)
			add(&c, &all[i]);
		export_settings_clear(&all[i]);
	}
	free(all);
	if (!c.entries)
		return fail(why, ENOMEM, "cannot keep %zu exports", n);

	if (!c.nameless && c.n == 1)
		c.nameless = c.entries;
	*ret = c;
	return 0;
}

void catalogue_clear(struct catalogue *c)
{
	for (size_t i = 0; i < c->n; i++) {
		export_link_free(c->entries[i].link);
		free(c->entries[i].label);
		free(c->entries[i].name);
		free(c->entries[i].description);
	}
	free(c->entries);
	*c = (struct catalogue) { 0 };
}

struct catalogue_entry *catalogue_find(const struct catalogue *c, struct span name)
{
	if (name.len == 0)
		return c->nameless;
	for (size_t i = 0; i < c->n; i++)
		if (span_equal(span_of(c->entries[i].name), name))
			return &c->entries[i];
	return NULL;
}
